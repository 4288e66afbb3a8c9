import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from helpers import CNN, SINE, SIREN, pixels, write_zoo
from huggingface_hub import DatasetCard

import zoo
from zoo import cards, nets, recipes, shards, table
from zoo.figures import Samples
from zoo.shards import Column, Excluded, Index
from zoo.spec import ACTIVATIONS, Layer, NetworkSpec

NFN_RGB = NetworkSpec.mlp([2, 8, 8, 3], coord_order="ij", pixel_range=(-1.0, 1.0))
DWS = NetworkSpec.mlp([2, 8, 1], coord_order="xy", output_offset=0.5)
UNEVEN = NetworkSpec(
    (Layer("linear", 2, 6, "sin", 30.0), Layer("linear", 6, 5, "sin", 1.5), Layer("linear", 5, 1)),
    coord_order="xy",
    coord_range=(0.0, 1.0),
)
MNIST = {
    "name": "mnist",
    "title": "MNIST",
    "license": "cc-by-sa-3.0",
    "url": "http://yann.lecun.com/exdb/mnist/",
    "citation": "LeCun et al. 1998",
    "items": 70_000,
    "train_items": 60_000,
    "shape": [28, 28, 1],
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Index]:
    """A small zoo whose card is ours."""
    folder = tmp_path_factory.mktemp("zoos") / "tiny"
    index = write_zoo(folder)
    quality = {
        split: {"psnr_db": zoo.open_zoo(folder, split).column("psnr_db")} for split in index.splits
    }
    cards.write_card(folder, index, quality, pictures(5))
    return folder, index


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def pictures(count: int, side: int = 28, chan: int = 1) -> Samples:
    draw = np.random.default_rng(count)
    originals = draw.uniform(0, 1, (count, side, side, chan))
    return Samples(originals, originals + 0.1, [f"{10 + n:.1f} dB" for n in range(count)])


def examples(card: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", card, re.DOTALL)


def sine_index() -> Index:
    spec = recipes.sine_ssl("sine").spec(1, 1)
    others = {
        "amplitude": Column("target", "real"),
        "frequency": Column("target", "real", unit="rad per unit"),
        "mse": Column("quality", "real"),
    }
    file = shards.Shard(
        "weights/train-00000-of-00001.safetensors", 10, "0" * 64, "train", 4_000, "zen", None
    )
    return Index(
        name="sine-inrs",
        recipe=recipes.sine_ssl("sine").to_json(),
        spec=spec,
        columns=shards.zoo_columns(spec, others),
        shards=(file,),
        source={
            "name": "sine",
            "title": "Sine waves a*sin(b*x)",
            "license": "cc0-1.0",
            "items": 5_000,
            "points": 2_000,
        },
        plan={"seed": 3, "engine": "cpu", "limit": None},
        quality={"train": {"mse": {"mean": 1e-4, "std": 1e-5, "min": 1e-6, "max": 2e-3}}},
    )


# ---- the header


def test_header_agrees_with_table(tiny: tuple[Path, Index]) -> None:
    folder, index = tiny
    data = DatasetCard.load(folder / "README.md").data
    info = datasets.DatasetInfo._from_yaml_dict(data["dataset_info"])
    assert info.features == table.features(index)
    assert list(info.features) == list(index.columns)
    assert {s.name: s.num_examples for s in info.splits.values()} == index.splits
    assert data["configs"] == [
        {
            "config_name": "default",
            "data_files": [
                {"split": split, "path": f"data/{split}-*.parquet"}
                for split in ("train", "validation", "test")
            ],
        }
    ]
    assert data["dataset_info"]["download_size"] == sum(s.parquet.bytes for s in index.shards)
    assert "safetensors" in data.tags
    assert data.size_categories == "n<1K"


def test_header_of_conv_networks_keeps_features(tmp_path: Path) -> None:
    index = write_zoo(tmp_path, spec=CNN)
    data = DatasetCard(cards.render_card(index, {})).data
    info = datasets.DatasetInfo._from_yaml_dict(data["dataset_info"])
    assert info.features == table.features(index)
    rows = datasets.load_dataset(str(tmp_path), split="train", cache_dir=str(tmp_path / "cache"))
    assert abs(info.splits["train"].num_bytes / rows.data.nbytes - 1) < 0.05


def test_load_dataset_obeys_the_card(tiny: tuple[Path, Index], tmp_path: Path) -> None:
    folder, index = tiny
    found = datasets.load_dataset(str(folder), cache_dir=str(tmp_path))
    assert {split: len(rows) for split, rows in found.items()} == index.splits
    assert found["train"].features["label"].names == ["zero", "one", "two"]
    assert found["test"].features == table.features(index)
    said = DatasetCard.load(folder / "README.md").data["dataset_info"]
    for split in said["splits"]:
        # The card counts rows alone, Arrow one more offset for every list of a batch.
        held = found[split["name"]].data.nbytes
        assert abs(split["num_bytes"] / held - 1) < 0.01


def test_load_dataset_rejects_a_card_with_a_wrong_count(
    tiny: tuple[Path, Index], tmp_path: Path
) -> None:
    folder, _ = tiny
    other = tmp_path / "other"
    (other / "data").mkdir(parents=True)
    for path in (folder / "data").iterdir():
        (other / "data" / path.name).write_bytes(path.read_bytes())
    card = (folder / "README.md").read_text()
    (other / "README.md").write_text(card.replace("num_examples: 20", "num_examples: 21"))
    with pytest.raises(datasets.exceptions.DatasetsError, match="num_examples=21"):
        datasets.load_dataset(str(other), cache_dir=str(tmp_path / "cache"))


def test_no_parquet_view_no_configs(tmp_path: Path) -> None:
    index = write_zoo(tmp_path, rows={"train": 3}, parquet=False)
    card = cards.render_card(index, {})
    data = DatasetCard(card).data
    assert "configs" not in data
    assert "dataset_info" not in data
    assert "load_dataset" not in card
    assert ".parquet" not in card


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("mit", "mit"),
        ("cc0-1.0", "mit"),
        ("cc-by-4.0", "cc-by-4.0"),
        ("cc-by-sa-3.0", "cc-by-sa-3.0"),
        ("unknown", "other"),
        ("", "other"),
    ],
)
def test_licence_follows_the_source(tiny: tuple[Path, Index], theirs: str, ours: str) -> None:
    index = replace(tiny[1], source={**MNIST, "license": theirs})
    card = cards.render_card(index, {})
    data = DatasetCard(card).data
    assert data.license == ours
    assert ("license_name" in data) == (ours == "other")
    if ours == "other":
        assert data["license_link"] == MNIST["url"]
        assert "no licence is stated" in card
    else:
        assert f": {theirs}. Of the networks: " in card


@pytest.mark.parametrize(
    ("rows", "category"),
    [(0, "n<1K"), (999, "n<1K"), (1_000, "1K<n<10K"), (70_000, "10K<n<100K"), (10**6, "1M<n<10M")],
)
def test_size_category(rows: int, category: str) -> None:
    assert cards._size_category(rows) == category


# ---- the body


def test_card_of_images(tiny: tuple[Path, Index]) -> None:
    recipe = recipes.dws("mnist")
    index = replace(
        tiny[1],
        name="mnist-inrs",
        recipe=recipe.to_json(),
        spec=recipe.spec(2, 1),
        source=MNIST,
        plan={"seed": 7, "engine": "cpu", "limit": 34, "shard_rows": 8, "parquet": True},
        packages={"torch": "2.15"},
        command="wszoo fit-inrs mnist --seed 7 --limit 34",
        quality={"train": {"psnr_db": {"mean": 25.81234, "std": 2, "min": 19.1, "max": 31}}},
        excluded=(
            Excluded("train", 3, 0, "PSNR 12.31 dB is below 15 dB"),
            Excluded("test", 60_003, 0, "PSNR 11.02 dB is below 15 dB"),
        ),
    )
    card = cards.render_card(index, {"figures/psnr_db.png": "PSNR"})
    for line in (
        "The first input is the column, the second is the row.",
        "Omega scales the bias too.",
        "0.5 is added to its output.",
        "An output of 0 is black, 1 is white.",
        "wszoo fit-inrs mnist --seed 7 --limit 34",
        "| `lr` | 0.001 | learning rate of Adam |",
        "| train | `psnr_db` | dB | 25.81 | 2 | 19.1 | 31 |",
        "| train | 20 | 0 to 20 | 3 |",
        "| test | 7 | 60,000 to 60,007 | 1 |",
        "The source was cut by rule `dws`",
        "2 networks were left out",
        "| PSNR is below 15 dB | 1 | 0 | 1 |",
        "output = W_2 h_2 + b_2 + 0.5",
        "![PSNR](figures/psnr_db.png)",
        "entry.mean.weight_0",
        "navon2023equivariant",
        "sitzmann2020implicit",
        "LeCun et al. 1998",
    ):
        assert line in card, line
    assert "zhou2023" not in card


def test_card_of_the_nfn_recipe(tiny: tuple[Path, Index]) -> None:
    recipe = recipes.nfn("fashion-mnist")
    index = replace(
        tiny[1],
        recipe=replace(recipe, views=10).to_json(),
        spec=recipe.spec(2, 1),
        source={**MNIST, "name": "fashion-mnist"},
    )
    card = cards.render_card(index, {})
    assert "The first input is the row, the second is the column." in card
    assert "An output of -1 is black, 1 is white." in card
    assert "Nothing is added to its output." in card
    assert "zhou2023permutation" in card
    assert "| train | 20 | 0 to 1 | 3 |" in card
    assert "| test | 7 | 50,000 to 50,006 | 1 |" in card
    assert "up to 10 views" in card


def test_the_first_screen(tiny: tuple[Path, Index]) -> None:
    """What it is, pictures, how to read it, up to a number."""
    figures = {"figures/psnr_db.png": "Quality", "figures/samples.png": "Some of them"}
    card = cards.render_card(tiny[1], figures)
    order = [
        "# tiny",
        "sine networks (SIREN)",
        "![Some of them](figures/samples.png)",
        "## In ten lines",
        "chance is 0.333",
        "RidgeClassifier().fit",
        "wszoo train classify tiny --model graded",
        "## Load it",
        "## Quality",
        "![Quality](figures/psnr_db.png)",
        "## What it is for",
        "## Licence",
    ]
    places = [card.index(words) for words in order]
    assert places == sorted(places)
    assert card.count("figures/samples.png") == 1
    waves = cards.render_card(replace(sine_index(), shards=tiny[1].shards), {})
    assert 'columns["amplitude"]' in waves
    assert "R^2" in waves
    one = replace(tiny[1], shards=tiny[1].shards[:1])
    assert "## In ten lines" not in cards.render_card(one, {})


def test_quality_that_does_not_vary_is_one_line(tiny: tuple[Path, Index]) -> None:
    same = {"mean": 400, "std": 0, "min": 400, "max": 400}
    varies = {"mean": 25.5, "std": 2, "min": 19.1, "max": 31}
    stop = {"mean": 0, "std": 0, "min": 0, "max": 0}
    quality = {
        split: {"psnr_db": varies, "steps": same, "stop": stop} for split in ("train", "test")
    }
    card = cards.render_card(replace(tiny[1], quality=quality), {})
    assert "| train | `steps` |" not in card
    assert "| test | `psnr_db` |" in card
    assert "The same in every network: `steps` 400, `stop` 0." in card
    assert "The mean of `stop`" not in card
    quality["test"]["steps"] = {**same, "max": 401}
    card = cards.render_card(replace(tiny[1], quality=quality), {})
    assert "| train | `steps` |" in card


def test_papers_are_tags(tiny: tuple[Path, Index]) -> None:
    index = replace(tiny[1], recipe=recipes.nfn("mnist").to_json())
    tags = DatasetCard(cards.render_card(index, {})).data.tags
    assert [tag for tag in tags if tag.startswith("arxiv:")] == [
        "arxiv:2302.14040",
        "arxiv:2006.09661",
    ]
    cnn = DatasetCard(cards.render_card(replace(index, recipe={"name": "own"}, spec=CNN), {}))
    assert not [tag for tag in cnn.data.tags if tag.startswith("arxiv:")]


def test_card_without_labels() -> None:
    card = cards.render_card(sine_index(), {})
    data = DatasetCard(card).data
    assert data.license == "mit"
    assert data.size_categories == "1K<n<10K"
    assert "class" not in card.split("## What a row is")[1].split("## Conventions")[0]
    assert "`frequency` | target | float32 | rad per unit |" in card
    assert "It runs from -pi to pi, ends included." in card
    assert "| train | 4,000 | 0 to 3,999 | 1 |" in card
    assert "# Normalisation" not in card
    assert "Sine waves a\\*sin(b\\*x)" in card
    assert "None |" not in card


def test_text_from_outside_does_not_break_tables(tiny: tuple[Path, Index]) -> None:
    names = ("a|b", "*c*\nd", "<e>: f")
    index = tiny[1]
    columns = {**index.columns, "label": Column("target", "class", names)}
    source = {**MNIST, "title": 'Odd: "title" #1 | x'}
    card = cards.render_card(replace(index, columns=columns, source=source), {})
    assert "0 a\\|b, 1 \\*c\\* d, 2 \\<e\\>: f" in card
    data = DatasetCard(card).data
    assert data.pretty_name == 'Odd: "title" #1 | x as networks (tiny)'
    info = datasets.DatasetInfo._from_yaml_dict(data["dataset_info"])
    assert info.features["label"].names == list(names)


def test_many_reasons_are_summed(tiny: tuple[Path, Index]) -> None:
    lost = tuple(Excluded("train", n, 0, f"reason {n}") for n in range(12))
    card = cards.render_card(replace(tiny[1], excluded=lost), {})
    assert "12 networks were left out" in card
    assert "| other reasons | 4 | 0 | 0 |" in card


# ---- the examples


def test_all_examples_run_beside_the_folder(
    tiny: tuple[Path, Index],
    cache: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, _ = tiny
    monkeypatch.chdir(folder.parent)
    found = examples((folder / "README.md").read_text())
    assert len(found) == 4
    assert max(len(example.splitlines()) for example in found) <= 14
    assert len([line for line in found[0].splitlines() if line]) <= 10
    spaces: list[dict[str, object]] = [{}, {}, {}, {}]
    for example, space in zip(found, spaces, strict=True):
        exec(compile(example, "README.md", "exec"), space)
    printed = capsys.readouterr().out
    assert "20 torch.Size([32, 2]) torch.Size([1, 32])" in printed
    assert re.search(r"^accuracy [01]\.\d", printed)
    rendered, bare = spaces[2]["image"], spaces[3]["image"]
    assert isinstance(rendered, torch.Tensor)
    assert isinstance(bare, torch.Tensor)
    assert bare.shape == (6, 5, 1)
    torch.testing.assert_close(bare, rendered.clip(0, 1), atol=3e-3, rtol=0)
    assert bare.std() > 0


TURNS = [[0.1, -2.0], [1.5, 0.25], [0.0, 1.0]]


@pytest.mark.parametrize(
    "spec",
    [
        *(DWS, NFN_RGB, UNEVEN, SINE, CNN, NetworkSpec.mlp([3, 5, 4, 2], "relu")),
        *(NetworkSpec.mlp([3, 5, 4, 2], name) for name in ACTIVATIONS[4:]),
        NetworkSpec.mlp([2, 5, 4, 3], "tanh", coord_order="ij", frequencies=TURNS),
        NetworkSpec.mlp([1, 5, 4, 1], "gelu", coord_order="x", frequencies=[[0.3], [2.0]]),
        NetworkSpec.mlp([3, 5, 4, 2], "relu", frequencies=[[0.3, 1.0, -2.0]]),
    ],
    ids=["dws", "nfn", "uneven", "sine", "cnn", "mlp", *ACTIVATIONS[4:], "ij", "x", "own"],
)
def test_plain_example_honours_the_conventions(
    tmp_path: Path, spec: NetworkSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = write_zoo(tmp_path / "tiny", rows={"validation": 2}, spec=spec, parquet=False)
    index = replace(index, source={**index.source, "shape": [17, 15, spec.out]})
    monkeypatch.chdir(tmp_path)
    zoo_example, plain_example = examples(cards.render_card(index, {}))
    exec(compile(zoo_example, "README.md", "exec"), {})
    space: dict[str, torch.Tensor] = {}
    exec(compile(plain_example, "README.md", "exec"), space)
    weights, _ = zoo.open_zoo(tmp_path / "tiny", "validation").batch([0])
    if spec.coord_order in ("xy", "ij"):
        expected = nets.render(spec, weights, 17, 15)[0].clip(0, 1)
        got = space["image"]
    elif spec.coord_order == "x":
        expected = nets.forward(spec, weights, torch.from_numpy(nets.line(spec, 11)))[0]
        got = space["out"]
    else:
        shape = (1, spec.inp, 17, 15) if spec.layers[0].kind == "conv" else (1, spec.inputs)
        expected = nets.forward(spec, weights, torch.zeros(shape))[0]
        got = space["out"]
    # Random weights under omega = 30 are steep; a wrong convention is off by 0.1 and more.
    torch.testing.assert_close(got, expected, atol=3e-3, rtol=1e-4)


def test_the_wrong_order_of_coordinates_would_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = write_zoo(tmp_path / "tiny", rows={"train": 1}, parquet=False)
    monkeypatch.chdir(tmp_path)
    turned = replace(index, spec=replace(SIREN, coord_order="ij"))
    space: dict[str, torch.Tensor] = {}
    exec(compile(examples(cards.render_card(turned, {}))[1], "README.md", "exec"), space)
    right = zoo.open_zoo("tiny")[0].render().clip(0, 1)
    assert (space["image"] - right).abs().max() > 0.1


# ---- the whole


def test_write_card_writes_all(tiny: tuple[Path, Index]) -> None:
    folder, _ = tiny
    card = (folder / "README.md").read_text()
    for name in ("psnr_db", "samples"):
        assert f"](figures/{name}.png)" in card
        pixels(folder / "figures" / f"{name}.png")
    assert not list(folder.rglob("*.tmp"))


def test_write_card_of_waves_without_samples(tmp_path: Path) -> None:
    mse = np.array([1e-5, 1e-3, 0.0, np.nan], np.float32)
    cards.write_card(tmp_path, sine_index(), {"train": {"mse": mse}}, None)
    pixels(tmp_path / "figures/mse.png")
    x = np.linspace(-np.pi, np.pi, 50, dtype=np.float32)
    waves = np.sin(x) * np.arange(1, 6)[:, None]
    samples = Samples(waves, waves + 0.1, ["mse 1e-3"] * 5, x)
    cards.write_card(tmp_path, sine_index(), {"train": {"mse": mse}}, samples)
    pixels(tmp_path / "figures/samples.png")


def test_import_is_light() -> None:
    code = (
        "import sys, zoo.cards; "
        "print(sorted({'matplotlib', 'datasets', 'huggingface_hub', 'pyarrow'} & set(sys.modules)))"
    )
    root = Path(cards.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
