"""Pictures in the Parquet view: what they show, who has them, and that old zoos go on without."""

import io
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import CLASSES, CNN, SIREN, line_of, run, write_zoo
from PIL import Image

import zoo
from zoo import nets, table
from zoo.cards import may_be_passed_on
from zoo.shards import Index, read_index, read_json

QUICK = zoo.recipe("dws", "digits", steps=6, hidden=4)


def build(out: Path, **settings: Any) -> Index:
    return zoo.build(QUICK, "digits", out, **{"limit": 30, "shard_rows": 8, **settings})


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A small zoo of digits, with all its pictures."""
    out = tmp_path_factory.mktemp("made") / "zoo"
    build(out)
    return out


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Path:
    """The same without pictures, as older versions wrote it."""
    out = tmp_path_factory.mktemp("bare") / "zoo"
    build(out, pictures=False)
    return out


def views(folder: Path) -> dict[str, tuple[str, ...]]:
    """With which pictures each view begins."""
    return {path.name: table.pictures_in(path) for path in sorted(folder.glob("data/*"))}


def loaded(folder: Path, cache: Path, **settings: Any) -> Any:
    import datasets

    datasets.disable_progress_bars()
    return datasets.load_dataset(str(folder), cache_dir=str(cache), **settings)


# ---- what they show


def test_a_row_begins_with_what_the_network_renders_and_its_original(made, tmp_path):
    rows = loaded(made, tmp_path, split="train")
    networks = zoo.open_zoo(made)
    names = list(rows.features)
    assert names[:5] == ["image", "original", "label", "psnr_db", "mse"]
    assert names[5:9] == ["index", "view", "steps", "stop"]
    assert names[9:] == list(networks.spec.tensors)
    assert len(rows) == len(networks)
    for number, row in enumerate(rows):
        exact = networks[number].render().clamp(0, 1).numpy()[..., 0] * 255
        assert np.abs(np.asarray(row["image"]) - exact).max() <= 0.51
        original = zoo.original(networks[number])[..., 0]
        np.testing.assert_array_equal(np.asarray(row["original"]), original)
        assert row["label"] == networks[number].label
    assert rows.features["label"].names[3] == "3"
    first = next(iter(loaded(made, tmp_path, split="test", streaming=True)))
    assert first["image"].size == (8, 8)


def test_tensors_are_read_as_before(made, bare, tmp_path):
    names = ["weight_0", "bias_1", "psnr_db"]
    found = [
        loaded(each, tmp_path / each.parent.name, split="train")
        .select_columns(names)
        .with_format("torch")[:]
        for each in (made, bare)
    ]
    for name in names:
        assert found[0][name].shape[0] == 24
        assert (found[0][name] == found[1][name]).all()
    mapped = zoo.open_zoo(made).as_hf_dataset()
    assert "image" not in mapped.features
    assert mapped.features == zoo.open_zoo(bare).as_hf_dataset().features


def test_colours_are_shown_in_their_order(tmp_path):
    pixels = np.zeros((12, 6, 7, 3), np.uint8)
    pixels[..., 0] = 250
    pixels[:, :3, :, 2] = 200
    zoo.build(QUICK, pixels, tmp_path / "z", labels=np.arange(12) % 2)
    index = read_index(tmp_path / "z")
    view = pq.read_table(tmp_path / "z" / index.shards[0].parquet.file)
    # Pictures in memory have no licence that anybody knows.
    assert "original" not in view.column_names
    shown = np.asarray(Image.open(io.BytesIO(view["image"][0]["bytes"].as_py())))
    row = zoo.open_zoo(tmp_path / "z", index.shards[0].split)[0]
    assert np.abs(shown - row.render().clamp(0, 1).numpy() * 255).max() <= 0.51
    assert shown.shape == (6, 7, 3)


def test_large_pictures_are_rendered_a_few_at_a_time(made, monkeypatch):
    networks = zoo.open_zoo(made)
    weights, _ = networks.batch(range(10))
    whole = nets.pictures(networks.spec, weights, 8, 8)
    monkeypatch.setattr(nets, "_RENDERED", 64 * 4 * 3)
    parts = nets.pictures(networks.spec, weights, 8, 8)
    assert np.abs(whole.astype(int) - parts).max() <= 1
    weights.weights[0][3, 0, 0] = float("nan")
    assert nets.pictures(networks.spec, weights, 8, 8)[3].dtype == np.uint8
    assert nets.pictures(networks.spec, weights[:0], 8, 8).shape == (0, 8, 8, 1)


def test_another_program_without_wszoo_sees_them(made, tmp_path):
    script = f"""
import sys
sys.modules["zoo"] = sys.modules["wszoo"] = None
import datasets
rows = datasets.load_dataset({str(made)!r}, split="validation", cache_dir={str(tmp_path)!r})
print(rows[0]["image"].size, rows[0]["original"].mode, rows[0]["weight_0"][0][0])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    row = zoo.open_zoo(made, "validation")[0]
    assert done.stdout.split() == ["(8,", "8)", "L", str(row.weights.weights[0][0, 0, 0].item())]


# ---- who has them


def test_nothing_but_the_view_is_changed_by_them(made, bare):
    with_, without = read_json(made / "zoo.json"), read_json(bare / "zoo.json")
    for plain in (with_, without):
        for shard in plain["shards"]:
            del shard["parquet"]
    assert with_ == without
    for file in ("stats.safetensors", *(shard["file"] for shard in with_["shards"])):
        assert (made / file).read_bytes() == (bare / file).read_bytes()
    assert set(views(made).values()) == {("image", "original")}
    assert set(views(bare).values()) == {()}
    assert "Pillow" in (made / "README.md").read_text()
    assert "Pillow" not in (bare / "README.md").read_text()


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [("cc-by-sa-3.0", True), ("mit", True), ("cc0-1.0", True), ("unknown", False), ("", False),
     ("other", False), (None, False)],
)  # fmt: skip
def test_originals_are_passed_on_where_their_licence_allows(bare, licence, allowed):
    index = read_index(bare)
    index = replace(index, source={**index.source, "license": licence})
    assert may_be_passed_on(index) is allowed


def test_only_networks_of_pictures_have_them(bare, tmp_path):
    index = read_index(bare)
    assert table.pictures_of(index, True) == ("image", "original")
    assert table.pictures_of(index, False) == ("image",)
    for source in ({}, {"shape": None}, {"shape": [8, 8]}, {"shape": [8, 8, 3]}):
        assert table.pictures_of(replace(index, source=source), True) == ()
    assert table.pictures_of(replace(index, plan={"parquet": False}), True) == ()
    conv = write_zoo(tmp_path / "conv", {"train": 2}, spec=CNN)
    assert table.pictures_of(conv, True) == ()


def test_writers_show_what_their_networks_render(tmp_path):
    draw = np.random.default_rng(0)
    vectors = draw.standard_normal((5, SIREN.param_count), dtype=np.float32)
    columns = {"label": zoo.Column("target", "class", names=CLASSES)}
    for name, source, pictures, expected in (
        ("with", {"shape": [5, 4, 1]}, True, ("image",)),
        ("without", {"shape": [5, 4, 1]}, False, ()),
        ("shapeless", {}, True, ()),
    ):
        out = tmp_path / name
        with zoo.Writer(out, SIREN, columns, source=source, pictures=pictures) as writer:
            writer.write("train", vectors, {"label": [0, 1, 2, 0, 1]})
        assert set(views(out).values()) == {expected}
    chosen = zoo.select(tmp_path / "with", "label == 1", tmp_path / "chosen")
    assert chosen.rows == 2
    rows = loaded(tmp_path / "chosen", tmp_path / "cache", split="train")
    exact = zoo.open_zoo(tmp_path / "with")[4].render().clamp(0, 1).numpy()[..., 0] * 255
    assert np.abs(np.asarray(rows[1]["image"]) - exact).max() <= 0.51


def test_views_and_cards_are_made_anew(made, tmp_path):
    out = tmp_path / "zoo"
    shutil.copytree(made, out)
    card = (out / "README.md").read_text()
    assert run("card", out).exit_code == 0
    assert (out / "README.md").read_text() == card
    assert run("view", out, "--no-pictures").exit_code == 0
    assert set(views(out).values()) == {()}
    assert "Pillow" not in (out / "README.md").read_text()
    assert run("view", out).exit_code == 0
    assert (out / "README.md").read_text() == card
    for path in (made / "data").iterdir():
        assert (out / "data" / path.name).read_bytes() == path.read_bytes()


# ---- zoos that go on


def halted(out: Path, **settings: Any) -> None:
    """A build that ended after two shards."""

    class Halt(Exception):
        pass

    def progress(state: Any) -> None:
        if state.done >= 16:
            raise Halt

    with pytest.raises(Halt):
        build(out, progress=progress, **settings)
    assert 0 < len(list((out / "data").iterdir())) < 5


def test_a_half_made_zoo_of_an_older_version_goes_on_without(bare, tmp_path):
    out = tmp_path / "zoo"
    halted(out, pictures=False)
    assert "pictures" not in read_json(out / ".build" / "plan.json")
    lines: list[str] = []
    build(out, warn=lines.append)
    assert lines == []
    assert set(views(out).values()) == {()}
    assert read_json(out / "zoo.json") == read_json(bare / "zoo.json")
    assert (out / "README.md").read_text() == (bare / "README.md").read_text()


def test_a_half_made_zoo_with_pictures_keeps_them_and_says_so(made, tmp_path):
    out = tmp_path / "zoo"
    halted(out)
    lines: list[str] = []
    build(out, pictures=False, warn=lines.append)
    assert len(lines) == 1
    assert "its view begins with pictures, image, original, and stays so" in lines[0]
    assert read_json(out / "zoo.json") == read_json(made / "zoo.json")


def test_a_plan_that_lost_its_pictures_makes_all_shards_alike(bare, tmp_path):
    out = tmp_path / "zoo"
    halted(out)
    plan = read_json(out / ".build" / "plan.json")
    del plan["pictures"]
    (out / ".build" / "plan.json").write_text(json.dumps(plan))
    lines: list[str] = []
    build(out, warn=lines.append)
    assert "begins with pictures (image, original), planned are none" in lines[0]
    assert read_json(out / "zoo.json") == read_json(bare / "zoo.json")


@pytest.mark.parametrize("form", ["made", "bare"])
@pytest.mark.parametrize("file", ["weights/train-00001-of-00003.safetensors", "data"])
def test_a_damaged_zoo_is_mended_in_its_form(form, file, made, bare, tmp_path):
    whole = {"made": made, "bare": bare}[form]
    out = tmp_path / "zoo"
    shutil.copytree(whole, out)
    damaged = [out / file] if file != "data" else sorted((out / "data").iterdir())[1:]
    for path in damaged:
        path.write_bytes(path.read_bytes()[:-9] + b"something")
    build(out, pictures=form == "bare")  # what is asked for now is another form
    assert read_json(out / "zoo.json") == read_json(whole / "zoo.json")
    assert all(check.passed for check in zoo.verify(out))


def test_a_growing_zoo_has_pictures_in_all_its_rows(bare, tmp_path):
    out = tmp_path / "zoo"
    shutil.copytree(bare, out)
    build(out, limit=40)
    assert set(views(out).values()) == {("image", "original")}
    rows = loaded(out, tmp_path / "cache", split="train")
    assert rows[0]["image"].size == (8, 8)


def test_parts_of_two_forms_are_not_merged(tmp_path):
    for number, pictures in ((0, True), (1, False)):
        build(tmp_path / str(number), part=f"{number}/2", pictures=pictures)
    with pytest.raises(ValueError, match=r"1 begins with other pictures \(none\) than that of .*0"):
        zoo.merge([tmp_path / "0", tmp_path / "1"], tmp_path / "zoo")
    build(tmp_path / "2", part="1/2")
    zoo.merge([tmp_path / "0", tmp_path / "2"], tmp_path / "zoo")
    assert set(views(tmp_path / "zoo").values()) == {("image", "original")}


def test_a_plan_may_not_ask_for_other_pictures(tmp_path):
    out = tmp_path / "zoo"
    halted(out)
    plan = read_json(out / ".build" / "plan.json")
    plan["pictures"] = ["image", "../secret"]
    (out / ".build" / "plan.json").write_text(json.dumps(plan))
    done = run("info", out)
    assert "pictures" in line_of(done, 1)
