"""Published formats become zoos, bit for bit; what is damaged, mislabelled or evil does not."""

import csv
import gzip
import io
import json
import os
import pickle
import random
import tarfile
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import cv2
import datasets
import numpy as np
import pytest
import safetensors.torch
import torch
from checkpoints import (
    LAYERS,
    Numpy,
    draw,
    nef_config,
    nef_params,
    nfn_name,
    save,
    state_of,
    wave_state,
    write_dws_mnist,
    write_nefs,
    write_small_cnn_zoo,
    write_table,
)
from helpers import line_of, run

import zoo
import zoo.sources
from cli import importing
from zoo import nets, shards
from zoo.errors import ZooError
from zoo.importers import FORMATS, contents, files, fit_a_nef, import_zoo
from zoo.importers.published import Options
from zoo.spec import NetworkSpec


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def assert_rows(out: Path, expected: dict[str, dict[tuple[int, int], Numpy]]) -> None:
    """The zoo holds exactly these networks, by (index, view), bits and all, in this order."""
    index = shards.read_index(out)
    assert index.splits == {split: len(rows) for split, rows in expected.items()}
    for split, rows in expected.items():
        z = zoo.open_zoo(out, split, check_hashes=True)
        keys = list(zip(z.column("index").tolist(), z.column("view").tolist(), strict=True))
        assert keys == sorted(rows)
        for row, key in enumerate(keys):
            for name, tensor in rows[key].items():
                got = z.column(name)[row]
                assert got.shape == tensor.shape
                np.testing.assert_array_equal(got.view(np.int32), tensor.view(np.int32))


def assert_whole(out: Path, cache: Path) -> None:
    """The zoo is one for every reader: datasets, verify, info, the card."""
    index = shards.read_index(out)
    rows = datasets.load_dataset(str(out), cache_dir=str(cache))
    assert {split: part.num_rows for split, part in rows.items()} == index.splits
    verified = run("verify", out, "--samples", 0)
    assert verified.exit_code == 0, verified.output
    skipped = run("verify", out)
    assert skipped.exit_code == 0
    assert "skipped: imported networks" in skipped.stdout
    info = run("info", out)
    assert info.exit_code == 0
    assert "(import)" in info.stdout
    assert "imported from" in (out / "README.md").read_text()
    assert not (out / shards.BUILD_FOLDER).exists()


# ---- DWSNets


@pytest.fixture
def dws_mnist(tmp_path: Path) -> tuple[Path, dict[tuple[str, int, int], Numpy]]:
    made = {
        ("training", n % 10, 7 * n): draw([2, 32, 32, 1], n) for n in range(20)
    } | {("testing", 3, n): draw([2, 32, 32, 1], 100 + n) for n in (0, 9999)}  # fmt: skip
    write_dws_mnist(tmp_path, made)
    # What lies beside the networks there and is not one.
    (tmp_path / "mnist-inrs" / "statistics.pth").write_bytes(b"not to be opened")
    return tmp_path / "mnist-inrs", made


def test_dws_mnist_folder(dws_mnist, tmp_path: Path):
    folder, made = dws_mnist
    out = tmp_path / "zoo"
    result = run("import", "dws", folder, "--out", out, "--shard-rows", 7)
    assert result.exit_code == 0, result.output
    assert "22 networks (train 18, validation 2, test 2)" in result.stdout
    train = {(i, 0): made["training", i // 7 % 10, i] for i in range(0, 126, 7)}
    later = {(i, 0): made["training", i // 7 % 10, i] for i in (126, 133)}
    test = {(60_000 + i, 0): made["testing", 3, i] for i in (0, 9999)}
    assert_rows(out, {"train": train, "validation": later, "test": test})
    z = zoo.open_zoo(out, "train")
    assert z.column("label").tolist() == [i // 7 % 10 for i in range(0, 126, 7)]
    assert z.columns["label"].names == tuple("0123456789")
    assert "psnr_db" not in z.columns
    assert (z.spec.output_offset, z.spec.coord_order, z.spec.pixel_range) == (0.5, "xy", (0, 1))
    assert [layer.omega for layer in z.spec.layers] == [30, 30, 1]
    assert z[0].render().shape == (28, 28, 1)
    assert set(z.stats()) >= {"entry.mean.weight_0", "tensor.std.bias_2"}
    assert_whole(out, tmp_path / "cache")
    with pytest.raises(ZooError, match="imported without its originals"):
        zoo.original(z[0])
    assert "was imported" in line_of(run("show", out, "--out", tmp_path / "x.png"), 1)


def test_dws_split_file(dws_mnist, tmp_path: Path):
    folder, made = dws_mnist
    named = {"train": [0, 7, 14], "val": [21], "test": []}
    plain: dict[str, Any] = {
        split: {
            "path": [
                f"/home/them/mnist-inrs/mnist_png_training_{i // 7}_{i}/checkpoints/model_final.pth"
                for i in numbers
            ],
            "label": [str(i // 7) for i in numbers],
        }
        for split, numbers in named.items()
    }
    file = tmp_path / "mnist_splits.json"
    file.write_text(json.dumps(plain))
    out = tmp_path / "zoo"
    import_zoo("dws", folder, out, options=Options(splits=file))
    rows = {i: {(i, 0): made["training", i // 7, i]} for i in (0, 7, 14, 21)}
    assert_rows(out, {"train": rows[0] | rows[7] | rows[14], "validation": rows[21]})

    plain["val"]["label"] = ["8"]
    file.write_text(json.dumps(plain))
    with pytest.raises(ZooError, match="labelled 8 in the split file, 3 in its name"):
        import_zoo("dws", folder, tmp_path / "x", options=Options(splits=file))

    plain["val"]["path"] = [""]
    file.write_text(json.dumps(plain))
    with pytest.raises(ZooError, match="the split file names , which is not there"):
        import_zoo("dws", folder, tmp_path / "x", options=Options(splits=file))
    plain["val"] = {"path": ["mnist_png_training_3_22/checkpoints/model_final.pth"], "label": ["3"]}
    file.write_text(json.dumps(plain))
    with pytest.raises(ZooError, match=r"3_22.*is not there"):
        import_zoo("dws", folder, tmp_path / "x", options=Options(splits=file))
    for text, wrong in (("{", "not JSON"), ('{"a": []}', "expected the splits"),
                        ('{"val": [1]}', "list of paths")):  # fmt: skip
        file.write_text(text)
        with pytest.raises(ZooError, match=wrong):
            import_zoo("dws", folder, tmp_path / "x", options=Options(splits=file))
    assert not (tmp_path / "x").exists()


def test_dws_fashion(tmp_path: Path):
    root = tmp_path / "fmnist_inrs"
    made = {n: draw([2, 32, 32, 1], n) for n in range(6)}
    for n, net in made.items():
        part = "test" if n == 5 else "train"
        label: Any = n if n % 2 else torch.tensor(n)
        save(root / part / f"model_{n}.pth", {**state_of(net, "seq.{n}.{kind}"), "label": label})
    splits = {
        "train": [f"fmnist_inrs/train/model_{n}.pth" for n in (0, 2, 4)],
        "val": ["fmnist_inrs/train/model_1.pth", "fmnist_inrs/train/model_3.pth"],
        "test": ["fmnist_inrs/test/model_5.pth"],
    }
    (root / "splits.json").write_text(json.dumps(splits))
    out = tmp_path / "zoo"
    import_zoo("dws", root, out)
    rows = {n: {(n, 0): made[n]} for n in range(5)}
    assert_rows(
        out,
        {
            "train": rows[0] | rows[2] | rows[4],
            "validation": rows[1] | rows[3],
            "test": {(60_005, 0): made[5]},
        },
    )
    assert zoo.open_zoo(out, "validation").column("label").tolist() == [1, 3]
    assert zoo.open_zoo(out, "test").columns["label"].names[5] == "Sandal"
    assert_whole(out, tmp_path / "cache")

    labelled = {k: {"path": v, "label": [9] * len(v)} for k, v in splits.items()}
    (root / "splits.json").write_text(json.dumps(labelled))
    with pytest.raises(ZooError, match="labelled 0 in the file, 9 in its name or the split file"):
        import_zoo("dws", root, tmp_path / "x")


def as_numpy_1(path: Path) -> None:
    """Rename in a .pth what numpy 2 calls otherwise: the published files are older."""
    with zipfile.ZipFile(path) as archive:
        members = [(item.filename, archive.read(item)) for item in archive.infolist()]
    assert any(b"numpy._core.multiarray" in content for _, content in members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            archive.writestr(name, content.replace(b"numpy._core", b"numpy.core"))


def test_dws_sine(tmp_path: Path):
    root = tmp_path / "sine"
    made = {n: draw([1, 32, 32, 1], n) for n in range(10)}
    draws = np.random.default_rng(0).uniform(0.5, 10, (10, 2))
    for n, net in made.items():
        net["bias_2"] += 5
        save(root / f"model_{n}.pth", wave_state(net, draws[n].tolist()))
    as_numpy_1(root / "model_3.pth")
    out = tmp_path / "zoo"
    result = run("import", "dws", root, "--out", out)
    assert result.exit_code == 1  # random networks are no waves
    assert "do not show their originals" in result.stderr

    for n, (a, b) in enumerate(draws):  # networks that are: sin(30 (b/30) x), handed through
        made[n] = {k: np.zeros_like(v) for k, v in made[n].items()}
        made[n]["weight_0"][3, 0] = b / 30
        made[n]["weight_1"][5, 3] = 0.01 / 30  # sin(0.01 h) is 0.01 h
        made[n]["weight_2"][0, 5] = a / 0.01
        made[n]["bias_2"] -= 0.5
        save(root / f"model_{n}.pth", wave_state(made[n], draws[n].tolist()))
    as_numpy_1(root / "model_3.pth")
    result = run("import", "dws", root, "--out", out)
    assert result.exit_code == 0, result.output
    rows = {n: {(n, 0): net} for n, net in made.items()}
    train = {k: v for n in range(8) for k, v in rows[n].items()}
    assert_rows(out, {"train": train, "validation": rows[8], "test": rows[9]})
    z = zoo.open_zoo(out)
    np.testing.assert_array_equal(z.column("amplitude"), draws[:8, 0].astype(np.float32))
    np.testing.assert_array_equal(z.column("frequency"), draws[:8, 1].astype(np.float32))
    x = wave_state(made[0], [1.0, 1.0])["x"]
    assert z.spec.coord_range == (x[0], x[-1])
    assert z.column("mse").max() < 1e-6
    assert zoo.original(z[0]).shape == (2000, 1)
    assert_whole(out, tmp_path / "cache")

    state = wave_state(made[4], draws[4].tolist())
    state["coef"] = [1.0, 2.0]
    save(root / "model_4.pth", state)
    with pytest.raises(ZooError, match=r"model_4.pth: y is not coef"):
        import_zoo("dws", root, tmp_path / "x")


# ---- NFN


@pytest.fixture
def nfn(tmp_path: Path) -> tuple[Path, dict[tuple[int, int, int], Numpy]]:
    keys = [(n, n % 10, view) for n in (0, 3, 12, 44_999) for view in (0, 1, 10)]
    keys += [(45_000, 5, 0), (49_999, 6, 0), (50_000, 1, 0), (69_999, 2, 0)]
    made = {key: draw([2, 32, 32, 1], seed) for seed, key in enumerate(keys)}
    for (index, label, view), net in made.items():
        state = state_of(net, "net.{n}.linear.{kind}", "net.{n}.{kind}")
        save(tmp_path / nfn_name(index, label, view), state)
    return tmp_path / "siren_mnist_wts", made


def nfn_expected(made: dict[tuple[int, int, int], Numpy]) -> dict[str, Any]:
    expected: dict[str, Any] = {"train": {}, "validation": {}, "test": {}}
    for (index, _, view), net in made.items():
        split = "train" if index < 45_000 else "validation" if index < 50_000 else "test"
        expected[split][index, view] = net
    return expected


@pytest.mark.parametrize("kind", ["folder", "tar", "tar.gz", "zip"])
def test_nfn(nfn, tmp_path: Path, kind: str):
    folder, made = nfn
    path = folder
    if kind == "zip":
        path = tmp_path / "siren_mnist_wts.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in folder.rglob("*.pth"):
                archive.write(file, file.relative_to(tmp_path))
    elif kind != "folder":
        path = tmp_path / f"siren_mnist_wts.{kind}"
        with tarfile.open(path, "w:gz" if kind.endswith("gz") else "w") as tar:
            tar.add(folder, "siren_mnist_wts")
    out = tmp_path / "zoo"
    import_zoo("nfn", path, out, shard_rows=5)
    assert_rows(out, nfn_expected(made))
    z = zoo.open_zoo(out)
    assert z.column("label").tolist() == [index % 10 for index in z.column("index")]
    assert (z.spec.output_offset, z.spec.coord_order, z.spec.pixel_range) == (0, "ij", (-1, 1))
    assert z.index.source["name"] == "mnist"
    if kind == "folder":
        assert_whole(out, tmp_path / "cache")


def test_nfn_takes_whole_folder_names(nfn, tmp_path: Path):
    folder, made = nfn
    evil = folder / "randinit_smaller_extra_0s" / "net1.pth"
    evil.parent.mkdir()
    evil.write_bytes(b"not to be opened")
    (folder / "randinit_smaller_10s").mkdir()
    (folder / "randinit_smaller_10s" / "net2.pth").write_bytes(b"nor this")
    import_zoo("nfn", folder, tmp_path / "zoo", parquet=False)
    assert_rows(tmp_path / "zoo", nfn_expected(made))


def test_nfn_refuses_contradictions(nfn, tmp_path: Path):
    folder, made = nfn
    net = state_of(made[0, 0, 0], "net.{n}.linear.{kind}", "net.{n}.{kind}")
    out = tmp_path / "zoo"

    def wrong(name: str, state: Any, match: str) -> None:
        path = tmp_path / name
        before = path.read_bytes() if path.is_file() else None
        save(path, state)
        with pytest.raises(ZooError, match=match) as raised:
            import_zoo("nfn", folder, out, overwrite=True)
        assert "\n" not in str(raised.value)
        assert not (out / shards.INDEX_FILE).exists()
        path.write_bytes(before) if before else path.unlink()

    wrong(nfn_name(3, 4, 0), net, r"item 3 \(view 0\) is there twice")
    wrong(nfn_name(45_000, 5, 1), net, "copies of training items|training items only")
    wrong(nfn_name(70_000, 5, 0), net, "only 70,000 items")
    transposed = {**net, "net.0.linear.weight": net["net.0.linear.weight"].T.contiguous()}
    wrong(nfn_name(12, 2, 0), transposed, r"net12.pth: .*expected weight \(out, inp\).*\(2, 32\)")
    wrong(nfn_name(0, 0, 0), transposed, r"net0.pth: .*expected weight \(out, inp\)")
    narrow = state_of(draw([2, 32, 16, 1], 0), "net.{n}.linear.{kind}", "net.{n}.{kind}")
    wrong(nfn_name(12, 2, 0), narrow, r"weight_1: expected \(32, 32\).*\(16, 32\)")
    swapped = dict(reversed(net.items()))
    wrong(nfn_name(12, 2, 0), swapped, "expected the keys net.0.linear.weight")
    wrong(nfn_name(12, 2, 0), state_of(made[0, 0, 0], "seq.{n}.{kind}"), "expected the keys")
    whole = {k: v.int() for k, v in net.items()}
    wrong(nfn_name(12, 2, 0), whole, "expected a dense tensor of floating-point numbers")
    wrong(nfn_name(12, 2, 0), [1, 2], "expected a state dict, got list")
    wrong(nfn_name(12, 2, 0), {**net, "net.0.linear.bias": 3}, "expected a dense tensor")
    # A view of one number that claims to be large.
    large = torch.zeros(1).expand(1 << 28)
    wrong(nfn_name(12, 2, 0), {**net, "net.0.linear.bias": large}, "entries are too many")


def test_networks_that_are_not_finite_are_left_out_and_named(nfn, tmp_path: Path):
    folder, made = nfn
    made[3, 3, 0]["bias_1"][4] = np.nan
    state = state_of(made[3, 3, 0], "net.{n}.linear.{kind}", "net.{n}.{kind}")
    save(tmp_path / nfn_name(3, 3, 0), state)
    out = tmp_path / "zoo"
    result = run("import", "nfn", folder, "--out", out)
    assert result.exit_code == 0, result.output
    assert "1 excluded" in result.stdout
    (lost,) = shards.read_index(out).excluded
    assert (lost.split, lost.index, lost.view) == ("train", 3, 0)
    assert lost.reason == "bias_1 is not finite"
    assert_whole(out, tmp_path / "cache")


# ---- held against the originals


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> dict[str, tuple[dict[int, Numpy], np.ndarray, np.ndarray]]:
    """Networks of digits by recipe: tensors by index, labels, the PSNR that was recorded."""
    found = {}
    for recipe in ("dws", "nfn"):
        out = tmp_path_factory.mktemp("fitted") / recipe
        changes = {"steps": 60, "lr": 1e-3}
        zoo.build(zoo.recipe(recipe, "digits", **changes), "digits", out, limit=40, parquet=False)
        z = zoo.open_zoo(out)
        index = z.column("index").tolist()
        tensors = {
            n: {name: z.column(name)[row] for name in z.spec.tensors} for row, n in enumerate(index)
        }
        found[recipe] = tensors, z.column("label"), z.column("psnr_db")
    return found


def write_fitted(root: Path, layout: str, tensors: dict[int, Numpy], labels: np.ndarray) -> Path:
    """Digits in the layout of MNIST's networks."""
    for (n, net), label in zip(tensors.items(), labels, strict=True):
        if layout == "dws":
            write_dws_mnist(root, {("training", int(label), n): net})
        else:
            state = state_of(net, "net.{n}.linear.{kind}", "net.{n}.{kind}")
            save(root / nfn_name(n, int(label), 0), state)
    return root / ("mnist-inrs" if layout == "dws" else "siren_mnist_wts")


@pytest.mark.parametrize("layout", ["dws", "nfn"])
def test_psnr_against_the_originals(fitted, layout: str, tmp_path: Path):
    tensors, labels, psnr = fitted[layout]
    folder = write_fitted(tmp_path, layout, tensors, labels)
    out = tmp_path / "zoo"
    result = run("import", layout, folder, "--out", out, "--check-against", "digits")
    assert result.exit_code == 0, result.output
    assert "held against the originals: mean PSNR" in result.stdout
    got = np.concatenate(
        [zoo.open_zoo(out, s).column("psnr_db") for s in shards.read_index(out).splits]
    )
    np.testing.assert_allclose(got, psnr, atol=0.01)
    row = zoo.open_zoo(out)[0]
    original = zoo.original(row)
    error = np.square(row.render().numpy() - original / 255).mean()
    assert -10 * np.log10(error) == pytest.approx(row.psnr_db, abs=0.01)
    assert (out / "figures" / "samples.png").is_file()
    assert_whole(out, tmp_path / "cache")


def test_another_reading_is_noticed(fitted, tmp_path: Path):
    """Transposed, without offset, of other items, mislabelled."""

    def refuse(layout: str, tensors: dict[int, Numpy], labels: np.ndarray, match: str) -> None:
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        folder = write_fitted(root, layout, tensors, labels)
        out = root / "zoo"
        result = run("import", layout, folder, "--out", out, "--check-against", "digits")
        line = line_of(result, 1)
        assert match in line
        assert not (out / shards.INDEX_FILE).exists()

    tensors, labels, _ = fitted["dws"]
    transposed = {
        n: {**net, "weight_0": np.ascontiguousarray(net["weight_0"][:, ::-1])}
        for n, net in tensors.items()
    }
    refuse("dws", transposed, labels, "better with rows and columns swapped")
    shifted = {n: {**net, "bias_2": net["bias_2"] + 0.5} for n, net in tensors.items()}
    refuse("dws", shifted, labels, "better with the offset 0")
    items = list(tensors)
    rolled = dict(zip(items, [tensors[n] for n in items[1:] + items[:1]], strict=True))
    refuse("dws", rolled, labels, "do not show their originals")
    refuse("dws", tensors, np.roll(labels, 1), "mislabelled, or in another order")
    refuse("nfn", tensors, labels, "these networks")


def test_sources_that_do_not_fit(nfn, tmp_path: Path):
    folder, _ = nfn
    out = tmp_path / "zoo"
    beyond = run("import", "nfn", folder, "--out", out, "--check-against", "digits")
    assert "is not one of the 1,797 of digits" in line_of(beyond, 1)
    missing = run("import", "nfn", folder, "--out", out, "--data-root", tmp_path / "empty")
    line_of(missing, 1)  # the format's own source is taken, and nothing is downloaded
    unknown = run("import", "nfn", folder, "--out", out, "--check-against", "mnits")
    assert "unknown source" in line_of(unknown, 2)


# ---- Small CNN Zoo


def small_cnn(flat: np.ndarray) -> Numpy:
    """A row of weights.npy in our order: kernels (kh, kw, in, out) to (out, in, kh, kw)."""
    net, place = {}, 0
    for number, shape in enumerate(LAYERS):
        net[f"bias_{number}"] = flat[place : place + shape[-1]]
        place += shape[-1]
        size = int(np.prod(shape))
        kernel = flat[place : place + size].reshape(shape)
        net[f"weight_{number}"] = np.ascontiguousarray(np.moveaxis(kernel, (-1, -2), (0, 1)))
        place += size
    return net


def nfn_split(rows: list[int]) -> dict[str, list[int]]:
    half = int(0.5 * len(rows))
    first = list(range(half))
    random.Random(0).shuffle(first)
    point = int(0.8 * half)
    return {
        "train": [rows[n] for n in first[:point]],
        "validation": [rows[n] for n in first[point:]],
        "test": rows[half:],
    }


@pytest.mark.parametrize("ordered", [False, True])
def test_small_cnn_zoo(tmp_path: Path, ordered: bool):
    root = tmp_path / "cifar10"
    weights = write_small_cnn_zoo(root)
    order = list(range(60))
    options = Options()
    if ordered:
        random.Random(1).shuffle(order)
        options = Options(splits=tmp_path / "cifar10_split.csv")
        options.splits.write_text("\n".join(map(str, order)) + "\n")
    out = tmp_path / "zoo"
    import_zoo("small-cnn-zoo", root, out, options=options, shard_rows=3)
    expected = nfn_split([row for row in order if row % 3 == 2])
    assert_rows(out, {s: {(r, 0): small_cnn(weights[r]) for r in p} for s, p in expected.items()})
    z = zoo.open_zoo(out, "test")
    assert z.spec == NetworkSpec.cnn([1, 16, 16, 16], 10)
    index = z.column("index")
    np.testing.assert_array_equal(z.column("test_accuracy"), (index / 60).astype(np.float32))
    np.testing.assert_array_equal(
        z.column("learning_rate"), (10.0 ** -(index % 4)).astype(np.float32)
    )
    assert z.columns["optimizer"].names == ("adam", "sgd")
    assert z.columns["optimizer"].role == "target"
    np.testing.assert_array_equal(z.column("optimizer"), index % 2)
    assert "other" not in z.columns
    # The very function of the published kernels: TensorFlow's correlation, written out.
    image = np.random.default_rng(2).standard_normal((9, 9)).astype(np.float32)
    kernel = weights[index[0]][16:160].reshape(3, 3, 1, 16)
    patches = np.lib.stride_tricks.sliding_window_view(image, (3, 3))[::2, ::2]
    hidden = (
        np.einsum("rchw,hwo->orc", patches, kernel[:, :, 0]) + weights[index[0]][:16, None, None]
    )
    module = z[0].to_module()
    with torch.no_grad():
        ours = module.layers[0](torch.from_numpy(image)[None, None])[0]
    np.testing.assert_allclose(ours.numpy(), hidden, atol=1e-5)
    assert_whole(out, tmp_path / "cache")


def test_small_cnn_zoo_has_one_activation(tmp_path: Path):
    root = tmp_path / "mnist"
    write_small_cnn_zoo(root, activation="tanh")
    out = tmp_path / "zoo"
    several = run("import", "small-cnn-zoo", root, "--out", out)
    assert "(relu 10, tanh 10)" in line_of(several, 2)
    done = run("import", "small-cnn-zoo", root, "--out", out, "--activation", "tanh")
    assert done.exit_code == 0, done.output
    index = shards.read_index(out)
    assert {layer.activation for layer in index.spec.layers} == {"tanh", "identity"}
    assert index.rows == 10
    assert index.source["title"] == "MNIST"


def stripes(root: Path, upright: bool) -> None:
    """Test pictures of two classes: lines along columns, lines along rows."""
    for part in ("train", "test"):
        for number, name in enumerate(("columns", "rows")):
            for item in range(8):
                picture = np.zeros((17, 17), np.uint8)
                picture[:, 1 + 2 * (item % 2) :: 4] = 255
                picture = picture.T if (number == 1) == upright else picture
                path = root / part / name / f"{item}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), np.ascontiguousarray(picture))


def test_small_cnn_zoo_is_evaluated_again(tmp_path: Path):
    """A network that tells columns from rows: with transposed kernels it would be all wrong."""
    root = tmp_path / "zoo0"
    weights = write_small_cnn_zoo(root)
    weights[:] = 0
    first = weights[:, 16:160].reshape(-1, 3, 3, 1, 16)
    first[:, :, 1, 0, 0] = 1  # answers to a column of the picture
    first[:, 1, :, 0, 1] = 1  # to a row
    weights[:, :16] = -2
    for start in (160 + 16, 160 + 16 + 2304 + 16):
        passing = weights[:, start : start + 2304].reshape(-1, 3, 3, 16, 16)
        passing[:, :, :, 0, 0] = passing[:, :, :, 1, 1] = 1
    dense = weights[:, -160:].reshape(-1, 16, 10)
    dense[:, 0, 0] = dense[:, 1, 1] = 1
    np.save(root / "weights.npy", weights)
    with gzip.open(root / "metrics.csv.gz", "rt") as file:
        lines = list(csv.reader(file))
    for line in lines[1:]:
        line[5] = "1.0"
    with gzip.open(root / "metrics.csv.gz", "wt", newline="") as file:
        csv.writer(file).writerows(lines)
    stripes(tmp_path / "right", upright=True)
    stripes(tmp_path / "turned", upright=False)
    words = ["import", "small-cnn-zoo", root, "--out", tmp_path / "zoo", "--check-against"]
    turned = run(*words, f"imagefolder:{tmp_path / 'turned'}")
    assert "off their published test accuracy" in line_of(turned, 1)
    right = run(*words, f"imagefolder:{tmp_path / 'right'}")
    assert right.exit_code == 0, right.output
    assert "evaluated again: 20 networks, 0.0000 apart" in right.stdout


def test_small_cnn_zoo_refuses_damage(tmp_path: Path):
    root = tmp_path / "svhn"
    write_small_cnn_zoo(root)
    whole = {path.name: path.read_bytes() for path in root.iterdir()}

    def wrong(name: str, content: bytes, match: str, splits: Path | None = None) -> None:
        (root / name).write_bytes(content)
        with pytest.raises(ZooError, match=match) as raised:
            import_zoo("small-cnn-zoo", root, tmp_path / "zoo", options=Options(splits=splits))
        assert "\n" not in str(raised.value)
        (root / name).write_bytes(whole[name])

    wrong("weights.npy", whole["weights.npy"][:-40], "not a .npy file")
    wrong("weights.npy", whole["weights.npy"][:20], "not a .npy file")
    wrong("metrics.csv.gz", whole["metrics.csv.gz"][:-30], "damaged")
    wrong("metrics.csv.gz", b"step", "damaged")
    text = gzip.decompress(whole["metrics.csv.gz"])
    shorter = b"\n".join(text.splitlines()[:-1]) + b"\n"
    wrong("metrics.csv.gz", gzip.compress(shorter), "59 rows, weights.npy has 60")
    wrong("metrics.csv.gz", gzip.compress(text.replace(b"step", b"stop")), "expected columns step")
    wrong(
        "metrics.csv.gz", gzip.compress(text.replace(b",86,", b",85,")), "no checkpoint of step 86"
    )
    layout = whole["layout.csv"]
    wrong("layout.csv", layout.replace(b"(3, 3, 1, 16)", b"(3, 3, 1, 15)"), "no kernel or bias")
    wrong("layout.csv", b"\n".join(layout.splitlines()[:-1]), "a row of weights.npy has 4970")
    wrong("layout.csv", layout.replace(b"varname", b"name"), "expected the columns varname")
    wrong("layout.csv", layout.replace(b",0,16,", b",1,17,"), "a tensor starts at")
    splits = tmp_path / "split.csv"
    splits.write_text("0\n1\n")
    wrong("layout.csv", layout, "each of the 60 rows", splits)
    (root / "layout.csv").unlink()
    with pytest.raises(ValueError, match=r"lacks layout\.csv"):
        import_zoo("small-cnn-zoo", root, tmp_path / "zoo")


# ---- fit-a-nef


def test_fit_a_nef(tmp_path: Path):
    root = tmp_path / "MNIST" / "SIREN"
    # The last training items, test items, and the second seed's first items.
    numbers = [*range(0, 4), *range(54_998, 55_002), *range(69_998, 70_003)]
    fields = {n: draw([2, 8, 8, 1], n) for n in numbers}
    labels = {n: n % 10 for n in numbers}
    spans = [(0, 4), (54_998, 55_002), (69_998, 70_000), (70_000, 70_003)]
    write_nefs(root, spans, fields, labels)
    out = tmp_path / "zoo"
    result = run("import", "fit-a-nef", root, "--out", out, "--shard-rows", 3)
    assert result.exit_code == 0, result.output
    rows = {n: {(n % 70_000, n // 70_000): net} for n, net in fields.items()}
    train = {k: v for n in numbers if n % 70_000 < 55_000 for k, v in rows[n].items()}
    assert_rows(
        out,
        {
            "train": train,
            "validation": rows[55_000] | rows[55_001],
            "test": rows[69_998] | rows[69_999],
        },
    )
    z = zoo.open_zoo(out)
    found = z.column("index") + 70_000 * z.column("view")
    np.testing.assert_array_equal(z.column("label"), found % 10)
    assert [layer.omega for layer in z.spec.layers] == [9, 9, 1]
    assert (z.spec.coord_order, z.spec.output_offset) == ("xy", 0)
    black, white = z.spec.pixel_range
    assert pytest.approx(black) == (0 - 0.13066047) / 0.30810782
    assert pytest.approx(white) == (1 - 0.13066047) / 0.30810782
    # The field as flax computes it, x W + b.
    config = nef_params(fields[int(found[0])])
    net = fields[int(found[0])]
    x = np.array([[0.3, -0.8]], np.float32)
    hidden = np.sin(9 * (x @ net["weight_0"].T + config[:8]))
    hidden = np.sin(9 * (hidden @ net["weight_1"].T + net["bias_1"]))
    flax = hidden @ net["weight_2"].T + net["bias_2"]
    ours = nets.forward(z.spec, z.batch([0])[0], torch.from_numpy(x))[0]
    np.testing.assert_allclose(ours.numpy(), flax, atol=1e-5)
    assert_whole(out, tmp_path / "cache")


def test_fit_a_nef_of_colours_is_checked_per_channel(tmp_path: Path):
    """Fields of one colour, exactly, in each channel's own units; one pixel is black."""
    mean, std = (np.array(v) for v in fit_a_nef.STANDARDISATION["CIFAR10"])
    fields, variances = {}, []
    for item, colour in enumerate(np.array([[200, 90, 30], [10, 120, 250], [80, 255, 0]])):
        path = tmp_path / "pictures" / "train" / "all" / f"{item}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = np.tile(colour[::-1].astype(np.uint8), (8, 8, 1))  # cv2 has blue first
        picture[3, 5] = 0
        cv2.imwrite(str(path), picture)
        fields[item] = {k: np.zeros_like(v) for k, v in draw([2, 8, 8, 3], 0).items()}
        fields[item]["bias_2"] = ((colour / 255 * 63 / 64 - mean) / std).astype(np.float32)
        variances.append(np.mean((colour / 255) ** 2 * 63 / 64**2))
    root = tmp_path / "CIFAR10" / "SIREN"
    write_nefs(root, [(0, 3)], fields, dict.fromkeys(range(3), 0))
    out = tmp_path / "zoo"
    import_zoo("fit-a-nef", root, out, check_against=f"imagefolder:{tmp_path / 'pictures'}")
    psnr = zoo.open_zoo(out).column("psnr_db")
    np.testing.assert_allclose(psnr, -10 * np.log10(variances), atol=0.01)


def test_fit_a_nef_refuses_damage(tmp_path: Path):
    h5py = pytest.importorskip("h5py", reason="wszoo[hdf5] is not installed")
    root = tmp_path / "MNIST" / "SIREN"
    fields = {n: draw([2, 8, 8, 1], n) for n in range(4)}
    write_nefs(root, [(0, 4)], fields, dict.fromkeys(fields, 1))
    file = root / "nefs_0-4.hdf5"
    whole = file.read_bytes()

    def wrong(match: str, error: type[Exception] = ZooError) -> None:
        with pytest.raises(error, match=match) as raised:
            import_zoo("fit-a-nef", root, tmp_path / "zoo", overwrite=True)
        assert "\n" not in str(raised.value)
        file.write_bytes(whole)

    file.write_bytes(whole[: len(whole) // 2])
    wrong("can(not)? be read")
    file.write_bytes(b"not HDF5")
    wrong("can(not)? be read")
    with h5py.File(file, "a") as opened:
        params = opened["params"][:]
        del opened["params"]
        opened["params"] = params[:3]
    wrong(r"expected params float32 \(4, 105\), got float32 \(3, 105\)")
    with h5py.File(file, "a") as opened:
        opened["param_config"][0] = json.dumps([["kernel_net_0.linear.bias", [8]]])
    wrong("not that of a SIREN")
    with h5py.File(file, "a") as opened:
        config = nef_config([2, 8, 8, 1])
        config[1] = ("kernel_net_0.linear.kernel", [8, 2])
        opened["param_config"][0] = json.dumps(config)
    wrong("not that of a SIREN")
    with h5py.File(file, "a") as opened:
        opened["labels"][2] = 12
    wrong("labels beyond the 10 classes")
    # HDF5 goes from object to object of a heap by their sizes; one of 0 would keep it for ever.
    place = whole.index(b"GCOL") + 16
    used = 16 + int.from_bytes(whole[place + 8 : place + 16], "little")
    free = place + used + -used % 8
    assert whole[free : free + 2] == b"\0\0"
    file.write_bytes(whole[: free + 8] + bytes(8) + whole[free + 16 :])
    wrong("param_config is damaged: its heap leads in circles")
    # A link to a file elsewhere on the disk must not be followed.
    with h5py.File(tmp_path / "secret.hdf5", "w") as secret:
        secret["params"] = params
    with h5py.File(file, "a") as opened:
        del opened["params"]
        opened["params"] = h5py.ExternalLink(str(tmp_path / "secret.hdf5"), "params")
    wrong("expected the dataset 'params' in the file itself")
    nef = json.loads((root / "nef.json").read_text())
    (root / "nef.json").write_text(json.dumps({**nef, "name": "RFFNet"}))
    wrong("unknown network 'RFFNet'", ValueError)
    (root / "nef.json").unlink()
    wrong("omega stands there and nowhere else", ValueError)
    (root / "cfg.json").write_text(json.dumps({"dataset": {"name": "Ponies"}}))
    wrong("unknown data set 'Ponies'", ValueError)


def test_fit_a_nef_without_h5py(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    (tmp_path / "nefs").mkdir()
    result = run("import", "fit-a-nef", tmp_path / "nefs", "--out", tmp_path / "zoo")
    assert "pip install 'wszoo[hdf5]'" in line_of(result, 2)


# ---- state dicts


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_state_dicts(tmp_path: Path, suffix: str):
    """Eleven layers, so that names in plain order of letters would be out of order."""
    root = tmp_path / "nets"
    widths = [3, *[4] * 10, 2]
    made = {n: draw(widths, n) for n in range(12)}
    for n, net in made.items():
        path = root / f"n{n}" / f"model.{suffix}"
        state = state_of(net, "layers.{n}.{kind}")
        path.parent.mkdir(parents=True, exist_ok=True)
        if suffix == "pth":
            save(path, {"state_dict": state} if n % 2 else state)
        else:
            safetensors.torch.save_file(state, path)
    split = {n: ("train", "val", "test")[n % 3] for n in made}
    rows = [(f"n{n}/model.{suffix}", "cat" if n % 2 else "dog", split[n], n / 20, 0.25 * n)
            for n in made]  # fmt: skip
    table = write_table(
        tmp_path / "labels.csv", [("file", "label", "split", "test_accuracy", "rate"), *rows]
    )
    out = tmp_path / "zoo"
    words = ["import", "state-dicts", root, "--out", out, "--labels", table]
    assert "does not say its activation" in line_of(run(*words), 2)
    result = run(*words, "--activation", "tanh")
    assert result.exit_code == 0, result.output
    names = {"train": "train", "val": "validation", "test": "test"}
    expected: dict[str, Any] = {"train": {}, "validation": {}, "test": {}}
    for n, net in made.items():
        expected[names[split[n]]][n, 0] = net
    assert_rows(out, expected)
    z = zoo.open_zoo(out, "validation")
    index = z.column("index")
    assert z.columns["label"].names == ("cat", "dog")
    np.testing.assert_array_equal(z.column("label"), 1 - index % 2)
    np.testing.assert_array_equal(z.column("test_accuracy"), (index / 20).astype(np.float32))
    assert z.columns["test_accuracy"].role == "quality"
    assert z.columns["rate"].role == "target"
    assert z.spec == NetworkSpec.mlp(widths, "tanh")
    assert_whole(out, tmp_path / "cache")


@pytest.mark.parametrize("activation", ["GELU", "LeakyReLU", "SiLU", "Sigmoid", "ELU", "ReLU"])
def test_state_dicts_by_torchs_names_of_activations(activation: str, tmp_path: Path):
    """What is imported gives what torch gives, and says format 2 where older versions cannot."""
    kind = getattr(torch.nn, activation)
    torch.manual_seed(0)
    modules = [
        torch.nn.Sequential(torch.nn.Linear(3, 5), kind(), torch.nn.Linear(5, 2)) for _ in range(10)
    ]
    for n, module in enumerate(modules):
        save(tmp_path / "nets" / f"{n}.pth", module.state_dict())
    out = tmp_path / "zoo"
    words = ["import", "state-dicts", tmp_path / "nets", "--out", out, "--activation", activation]
    result = run(*words)
    assert result.exit_code == 0, result.output
    x = torch.randn(7, 3)
    for row in zoo.open_zoo(out, "train"):
        assert torch.equal(row.to_module()(x), modules[row.index](x))
        torch.testing.assert_close(nets.forward(row.spec, row.weights, x)[0], modules[row.index](x))
    assert json.loads((out / "zoo.json").read_text())["format"] == (
        1 if activation == "ReLU" else 2
    )
    assert_whole(out, tmp_path / "cache")


def test_state_dicts_of_networks_on_fourier_features(tmp_path: Path):
    """The frequencies come with --spec; a buffer of them is named and left out."""
    torch.manual_seed(0)
    turns = torch.randn(6, 2)
    modules = [
        torch.nn.Sequential(torch.nn.Linear(12, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1))
        for _ in range(10)
    ]
    for n, module in enumerate(modules):
        save(tmp_path / "nets" / f"{n}.pth", {"B": turns, **module.state_dict()})
    spec = NetworkSpec.mlp([2, 5, 1], "Tanh", coord_order="xy", frequencies=turns)
    (tmp_path / "spec.json").write_text(json.dumps(spec.to_json()))
    out = tmp_path / "zoo"
    words = ["import", "state-dicts", tmp_path / "nets", "--out", out]
    result = run(*words, "--spec", tmp_path / "spec.json")
    assert result.exit_code == 0, result.output
    assert "left out: B [6, 2]" in result.output
    x = torch.rand(7, 2) * 2 - 1
    phase = 2 * torch.pi * x @ turns.T
    features = torch.cat([phase.sin(), phase.cos()], dim=1)
    for row in zoo.open_zoo(out, "train"):
        expected = modules[row.index](features)
        torch.testing.assert_close(row.to_module()(x), expected, atol=1e-5, rtol=1e-5)
    assert zoo.symmetry.kept_by(spec) == ("permutation", "sign")
    assert json.loads((out / "zoo.json").read_text())["format"] == 2
    assert_whole(out, tmp_path / "cache")


def test_state_dicts_of_a_spec_without_labels(tmp_path: Path):
    root = tmp_path / "cnns"
    spec = NetworkSpec.cnn([1, 4, 3], 2)
    normal = np.random.default_rng(0).standard_normal
    made = {}
    for n in range(10):
        made[n] = {
            k: normal(s).astype(np.float16).astype(np.float32) for k, s in spec.tensors.items()
        }
        state = {k: v.half() for k, v in state_of(made[n], "conv{n}.{kind}", "head.{kind}").items()}
        save(root / f"{n}.pth", state)
    out = tmp_path / "zoo"
    assert "give --spec" in line_of(
        run("import", "state-dicts", root, "--out", out, "--activation", "relu"), 2
    )
    file = tmp_path / "spec.json"
    file.write_text(json.dumps(spec.to_json()))
    done = run("import", "state-dicts", root, "--out", out, "--spec", file)
    assert done.exit_code == 0, done.output
    rows = {n: {(n, 0): net} for n, net in made.items()}
    train = {k: v for n in range(8) for k, v in rows[n].items()}
    assert_rows(out, {"train": train, "validation": rows[8], "test": rows[9]})
    file.write_text("{}")
    assert "expected a NetworkSpec" in line_of(
        run("import", "state-dicts", root, "--out", out, "--spec", file, "--overwrite"), 2
    )


def test_labels_must_fit_the_files(tmp_path: Path):
    root = tmp_path / "nets"
    for n in range(3):
        save(root / f"{n}.pth", state_of(draw([2, 3, 1], n), "{n}.{kind}"))
    table = tmp_path / "labels.csv"

    def wrong(rows: list[tuple[Any, ...]], match: str) -> None:
        write_table(table, rows)
        with pytest.raises(ZooError, match=match):
            import_zoo(
                "state-dicts", root, tmp_path / "zoo",
                options=Options(labels=table, activation="relu"),
            )  # fmt: skip

    all_three = [("0.pth", "a"), ("1.pth", "b"), ("2.pth", "a")]
    wrong([("file", "label"), *all_three[:2]], "does not name 2.pth")
    wrong([("file", "label"), *all_three, ("3.pth", "a")], "names 3.pth, which is not there")
    wrong([("file", "label"), *all_three, all_three[0]], "0.pth is there twice")
    wrong([("file", "label"), *all_three[:2], ("2.pth", "")], "2.pth has no label")
    wrong([("file", "label"), *all_three[:2], ("2.pth",)], "row 3 has 1 fields")
    wrong([("rate", "label"), *[(n, n) for n in range(3)]], "`file` among them")
    wrong([("file", "split"), *all_three], "unknown split 'a'")
    wrong([("file", "index"), *all_three], "expected whole numbers")
    wrong([("file", "index"), *[(f, 4) for f, _ in all_three]], "is there twice")
    wrong([("file", "weight_0"), *all_three], "cannot be the name of a column")
    wrong([("file", "test_accuracy"), *all_three], "expected numbers")
    wrong([("file", "../x"), *all_three], "cannot be the name of a column")
    table.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ZooError, match="not a table"):
        import_zoo(
            "state-dicts", root, tmp_path / "zoo",
            options=Options(labels=table, activation="relu"),
        )  # fmt: skip


def write_nets(root: Path, names: list[str], widths: tuple[int, ...] = (2, 3, 1)) -> None:
    for n, name in enumerate(names):
        save(root / name, state_of(draw(list(widths), n), "{n}.{kind}"))


def take(root: Path, out: Path, *words: object) -> str:
    """What an import of relu networks prints; it must be done."""
    result = run("import", "state-dicts", root, "--out", out, "--activation", "relu", *words)
    assert result.exit_code == 0, result.output
    return result.stdout


def items(out: Path) -> dict[str, list[tuple[int, int]]]:
    """(index, view) of each split."""
    found = {}
    for split in shards.read_index(out).splits:
        z = zoo.open_zoo(out, split)
        found[split] = list(zip(z.column("index").tolist(), z.column("view").tolist(), strict=True))
    return found


RUNS = [f"run{run}/epoch_{epoch}.pth" for run in range(10) for epoch in (1, 2, 10)]


def test_checkpoints_of_one_run_stay_in_one_split(tmp_path: Path):
    write_nets(tmp_path / "n", RUNS)
    said = take(tmp_path / "n", tmp_path / "z", "--no-parquet")
    assert "read: 10 runs told by names such as run0/epoch_1.pth: the files of a run stay" in said
    found = items(tmp_path / "z")
    assert {split: len(rows) for split, rows in found.items()} == {
        "train": 24, "validation": 3, "test": 3,
    }  # fmt: skip
    assert found["test"] == [(9, 0), (9, 1), (9, 2)]
    # epoch_10 stands behind epoch_2.
    z = zoo.open_zoo(tmp_path / "z", "test")
    expected = draw([2, 3, 1], RUNS.index("run9/epoch_10.pth"))
    np.testing.assert_array_equal(z.column("weight_0")[2], expected["weight_0"])

    said = take(tmp_path / "n", tmp_path / "y", "--no-parquet", "--group", "none")
    assert "every file was taken for an independent network, as --group says" in said
    assert items(tmp_path / "y")["test"] == [(27, 0), (28, 0), (29, 0)]
    assert "--group none" in shards.read_index(tmp_path / "y").command


@pytest.mark.parametrize(
    ("names", "runs"),
    [
        (["a/epoch=1-step=10.ckpt", "a/last.ckpt", "b/epoch=2-step=20.ckpt", "b/best.ckpt"], 2),
        ([f"r{r}/checkpoint-{s}/model.pth" for r in range(3) for s in (100, 200)], 3),
        ([f"net{r}_step{s}.pth" for r in range(3) for s in (1, 2)], 3),
        (["e1.pth", "e2.pth", "step.pth", "best_of_all/1.pth", "deep2/epochal_3.pth"], 5),
        ([f"run{r}/{n}.pth" for r in range(2) for n in range(2)], 4),
    ],
)
def test_runs_are_told_by_names(names: list[str], runs: int, tmp_path: Path):
    write_nets(tmp_path / "n", names)
    said = take(tmp_path / "n", tmp_path / "z", "--no-parquet")
    assert len({key[0] for rows in items(tmp_path / "z").values() for key in rows}) == runs
    told = f"{runs} runs told by names" if runs < len(names) else "taken for an independent network"
    assert told in said
    if names[0] == "run0/0.pth":
        said = take(tmp_path / "n", tmp_path / "y", "--no-parquet", "--group", "folder")
        assert {key[0] for rows in items(tmp_path / "y").values() for key in rows} == {0, 1}
        assert "files of one folder are one item, as --group says" in said


def test_folders_named_after_splits_are_the_splits(tmp_path: Path):
    names = ["train/0.pth", "train/1.pth", "Val/0.pth", "test/0.pth"]
    write_nets(tmp_path / "n", names)
    said = take(tmp_path / "n", tmp_path / "z", "--no-parquet")
    assert "splits by folders named train, validation and test" in said
    assert shards.read_index(tmp_path / "z").splits == {"train": 2, "validation": 1, "test": 1}
    write_nets(tmp_path / "n", ["0.pth"])
    words = ["import", "state-dicts", tmp_path / "n", "--activation", "relu", "--out"]
    line = line_of(run(*words, tmp_path / "y"), 2)
    assert "0.pth does not" in line
    assert "a column split" in line
    take(tmp_path / "n", tmp_path / "y", "--no-parquet", "--match", "*/*.pth")


def test_one_file_is_as_good_as_a_folder(tmp_path: Path):
    write_nets(tmp_path, ["a b.pth"])
    said = take(tmp_path / "a b.pth", tmp_path / "z")
    assert "1 networks (train 1)" in said.splitlines()[-1]
    assert_rows(tmp_path / "z", {"train": {(0, 0): draw([2, 3, 1], 0)}})
    assert_whole(tmp_path / "z", tmp_path / "cache")


@pytest.mark.parametrize("packed", [False, True])
def test_what_systems_leave_behind_is_passed_over_and_said(packed: bool, tmp_path: Path):
    root = tmp_path / "n"
    write_nets(root, [f"{n}.pth" for n in range(4)])
    for name in (".ipynb_checkpoints/0-checkpoint.pth", "._1.pth", "notes.txt", "a/README"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes((root / "0.pth").read_bytes() if "check" in name else b"x")
    path = root
    if packed:
        path = tmp_path / "n.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in root.rglob("*"):
                archive.write(file, Path("n") / file.relative_to(root))
            archive.writestr("__MACOSX/n/._0.pth", b"\0\5\x16\7\0\2\0\0Mac OS X")
    out = tmp_path / "z"
    said = take(path, out)
    assert ": 4 networks" in said.splitlines()[-1]
    hidden = 3 if packed else 2
    counts = {"hidden or left behind by a system": hidden, ".txt": 1, "without suffix": 1}
    for reason, count in counts.items():
        assert f"passed over: {count} {reason}" in said
    source = shards.read_index(out).source
    assert source["passed_over"] == counts
    assert "linear layers 2-3-1, relu behind all but the last, weights (out, inp)" in source["read"]
    card = (out / "README.md").read_text()
    assert "## What was read" in card
    assert f"Files that were passed over: {hidden} hidden or left behind by a system" in card
    assert_whole(out, tmp_path / "cache")


@pytest.mark.parametrize("format", ["dws", "nfn", "small-cnn-zoo", "fit-a-nef"])
def test_every_format_says_what_was_read_and_passed_over(
    format: str, dws_mnist, nfn, tmp_path: Path
):
    folder = {"dws": dws_mnist[0], "nfn": nfn[0]}.get(format, tmp_path / "MNIST" / "SIREN")
    if format == "small-cnn-zoo":
        write_small_cnn_zoo(folder)
    if format == "fit-a-nef":
        write_nefs(folder, [(5, 7)], {n: draw([2, 8, 8, 1], n) for n in (5, 6)}, {5: 1, 6: 2})
    (folder / "notes.md").write_text("x")
    result = run("import", format, folder, "--out", tmp_path / "z", "--no-parquet")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert "passed over: 1 .md" in lines
    words = {
        "dws": "omega 30", "nfn": "(row, column)", "small-cnn-zoo": "stride 2, no padding",
        "fit-a-nef": "no file holds the fields 0 to 4",
    }[format]  # fmt: skip
    assert any(words in line for line in lines if line.startswith("read: "))
    assert shards.read_index(tmp_path / "z").source["read"]
    assert "networks (" in lines[-1]


def test_a_dry_run_says_the_same_and_writes_nothing(tmp_path: Path):
    write_nets(tmp_path / "n", [f"{n}.pth" for n in range(3)])
    (tmp_path / "n" / "x.txt").write_text("x")
    dry = take(tmp_path / "n", tmp_path / "z", "--dry-run").splitlines()
    assert not (tmp_path / "z").exists()
    done = take(tmp_path / "n", tmp_path / "z", "--no-parquet").splitlines()
    assert dry[:-1] == done[:-1]
    assert "3 networks (train 2, test 1); nothing was written" in dry[-1]
    (tmp_path / "n" / "2.pth").write_bytes(b"x")
    words = ["import", "state-dicts", tmp_path / "n", "--activation", "relu", "--dry-run"]
    assert "2.pth" in line_of(run(*words), 1)


def test_omega_is_never_guessed(tmp_path: Path):
    write_nets(tmp_path / "n", ["0.pth"])
    words = ["import", "state-dicts", tmp_path / "n", "--out", tmp_path / "z", "--activation"]
    assert "give --omega" in line_of(run(*words, "sin"), 2)
    assert "--omega is of sine layers" in line_of(run(*words, "relu", "--omega", 30), 2)
    for wrong in ("0", "-1", "nan", "inf"):
        assert "--omega" in line_of(run(*words, "sin", "--omega", wrong), 2)
    assert run(*words, "sin", "--omega", 7).exit_code == 0
    index = shards.read_index(tmp_path / "z")
    assert [layer.omega for layer in index.spec.layers] == [7, 1]
    assert "--activation sin --omega 7.0" in index.command


@pytest.fixture(scope="module")
def digit_mlps() -> dict[str, tuple[list[Any], float]]:
    """Perceptrons that tell digits apart, by how pixels were given to them."""
    source = zoo.sources.load_images("digits")
    x = torch.from_numpy(source.images.reshape(len(source), -1) / np.float32(255))
    y = torch.from_numpy(source.labels)
    ways = {
        "0 to 1": x,
        "-1 to 1": 2 * x - 1,
        "less the mean, over the deviation": (x - x.mean()) / x.std(),
    }
    found = {}
    for how, pixels in ways.items():
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Linear(16, 10))
        adam = torch.optim.Adam(net.parameters(), 1e-2)
        for _ in range(60):
            adam.zero_grad()
            torch.nn.functional.cross_entropy(net(pixels), y).backward()
            adam.step()
        accuracy = float((net(pixels).argmax(1) == y).float().mean())
        assert accuracy > 0.9
        found[how] = net.state_dict(), accuracy
    return found


@pytest.mark.parametrize("published", [True, False])
def test_perceptrons_are_held_against_pictures(digit_mlps, published: bool, tmp_path: Path):
    ranges = {"0 to 1": (0, 1), "-1 to 1": (-1, 1)}
    for number, (how, (state, accuracy)) in enumerate(digit_mlps.items()):
        root, out = tmp_path / f"n{number}", tmp_path / f"z{number}"
        save(root / "0.pth", state)
        table = write_table(
            tmp_path / "labels.csv", [("file", "test_accuracy"), ("0.pth", accuracy)]
        )
        words = ["--labels", table] if published else []
        said = take(root, out, *words, "--check-against", "digits", "--no-parquet")
        assert "evaluated again: 1 networks, " in said
        assert f"pixels given as {how}" in said
        index = shards.read_index(out)
        assert index.source["pixels"] == how
        if how in ranges:
            assert index.spec.pixel_range == ranges[how]
        else:
            black, white = index.spec.pixel_range
            assert (black, white) == pytest.approx((-0.812, 1.845), abs=0.01)
    wrong = write_table(tmp_path / "labels.csv", [("file", "test_accuracy"), ("0.pth", 0.3)])
    words = ["import", "state-dicts", tmp_path / "n0", "--activation", "relu", "--out",
             tmp_path / "x", "--check-against", "digits"]  # fmt: skip
    assert "off their published test accuracy" in line_of(run(*words, "--labels", wrong), 1)
    save(tmp_path / "n0" / "0.pth", state_of(draw([64, 16, 10], 0), "{n}.{kind}"))
    assert "these are no classifiers of digits" in line_of(run(*words, "--overwrite"), 1)
    save(tmp_path / "n0" / "0.pth", state_of(draw([63, 16, 10], 0), "{n}.{kind}"))
    assert "take 63 inputs, the pictures of digits have 64" in line_of(run(*words), 1)
    save(tmp_path / "n0" / "0.pth", state_of(draw([64, 16, 2], 0), "{n}.{kind}"))
    assert "have 2 outputs, digits 10 classes" in line_of(run(*words), 2)


def test_a_metrics_file_without_line_breaks_is_bounded(tmp_path: Path):
    """7 MB of it once became 1.6 GB of memory; fault 11."""
    root = tmp_path / "mnist"
    write_small_cnn_zoo(root)
    packed = gzip.compress(b"x" * (64 << 20), 9)
    (root / "metrics.csv.gz").write_bytes(packed)
    tracemalloc.start()
    try:
        with pytest.raises(ZooError, match=r"metrics\.csv\.gz: a line of more than 65,536"):
            import_zoo("small-cnn-zoo", root, tmp_path / "zoo")
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    lines = b"a,b\n" * (16 << 20)
    (root / "metrics.csv.gz").write_bytes(gzip.compress(lines, 1))
    with pytest.raises(ZooError, match=r"metrics\.csv\.gz"):
        import_zoo("small-cnn-zoo", root, tmp_path / "zoo")


def test_a_hyper_parameter_that_some_lack_costs_no_network(tmp_path: Path):
    root = tmp_path / "mnist"
    write_small_cnn_zoo(root)
    with gzip.open(root / "metrics.csv.gz", "rt") as file:
        lines = list(csv.reader(file))
    for line in lines[1::2]:
        line[1] = ""
    with gzip.open(root / "metrics.csv.gz", "wt", newline="") as file:
        csv.writer(file).writerows(lines)
    done = run("import", "small-cnn-zoo", root, "--out", tmp_path / "z", "--no-parquet")
    assert done.exit_code == 0, done.output
    assert "column learning_rate left out: 10 of 20 have none" in done.stdout
    assert shards.read_index(tmp_path / "z").rows == 20


def test_the_commands_list_of_formats_is_the_packages():
    assert list(importing.FORMATS) == list(FORMATS)


# ---- files from outside


class Evil:
    """Leaves a mark where it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def evil_files(marker: Path, good: dict[str, Any]) -> dict[str, bytes]:
    """A reduce call in every place of a pickle that torch or pickle would read."""
    found = {}
    for name, value in (
        ("alone", Evil(marker)),
        ("beside the weights", {**good, "extra": Evil(marker)}),
        ("as a key's value", {**good, next(iter(good)): Evil(marker)}),
        ("as the label", {**good, "label": Evil(marker)}),
    ):
        zipped, legacy = io.BytesIO(), io.BytesIO()
        torch.save(value, zipped)
        torch.save(value, legacy, _use_new_zipfile_serialization=False)
        found[f"{name}, zip"] = zipped.getvalue()
        found[f"{name}, legacy"] = legacy.getvalue()
    found["plain pickle"] = pickle.dumps(Evil(marker))
    return found


def test_the_evil_file_is_evil(tmp_path: Path):
    """The tests below would be worth nothing otherwise."""
    marker = tmp_path / "marker"
    for number, content in enumerate(evil_files(marker, {"w": 1}).values()):
        opener = (
            pickle.loads if number == 8 else lambda c: torch.load(io.BytesIO(c), weights_only=False)
        )
        opener(content)
        assert marker.is_dir()
        marker.rmdir()


@pytest.mark.parametrize("format", ["dws", "sine", "nfn", "state-dicts"])
def test_a_pickle_does_not_run(format: str, tmp_path: Path):
    marker = tmp_path / "marker"
    root = tmp_path / "nets"
    net = draw([2, 32, 32, 1], 0)
    name = {
        "dws": "mnist_png_training_1_2/checkpoints/model_final.pth",
        "sine": "model_3.pth",
        "nfn": "randinit_smaller_3s/net4.pth",
        "state-dicts": "a.pth",
    }[format]
    path = root / name
    path.parent.mkdir(parents=True)
    options = Options(activation="relu") if format == "state-dicts" else Options()
    good = state_of(net, "seq.{n}.{kind}")
    for what, content in evil_files(marker, good).items():
        path.write_bytes(content)
        with pytest.raises(ZooError, match=r"refused|not a \.pth file") as raised:
            import_zoo(
                "dws" if format == "sine" else format, root, tmp_path / "zoo", options=options
            )
        assert not marker.exists(), what
        assert "\n" not in str(raised.value)
        assert name in str(raised.value)
    result = run(
        "import", "dws" if format == "sine" else format, root, "--out", tmp_path / "zoo",
        *(("--activation", "relu") if format == "state-dicts" else ()),
    )  # fmt: skip
    assert "nothing of it was run" in line_of(result, 1) or "not a .pth" in result.stderr
    assert not (tmp_path / "zoo").exists()


def test_arrays_in_a_pickle_cannot_reach_numpy(tmp_path: Path):
    """A state for the float64 that all of numpy shares: it would then be taken for pointers."""

    class Shared:
        def __reduce__(self) -> tuple[Any, ...]:
            # copy=False gives the very dtype, and 63 are flags of objects.
            return np.dtype, ("f8", False, False), (3, "<", None, None, None, -1, -1, 63)

    class Objects:
        def __reduce__(self) -> tuple[Any, ...]:
            make = np.array([1.0]).__reduce__()[0]
            state = (1, (2,), np.dtype("O"), False, bytes(16))
            return make, (np.ndarray, (0,), b"b"), state

    good = wave_state(draw([1, 4, 1], 0), [1.0, 2.0])
    for evil in (Shared(), Objects()):
        save(tmp_path / "s" / "model_1.pth", {**good, "x": evil})
        with pytest.raises(ZooError, match="model_1"):
            import_zoo("dws", tmp_path / "s", tmp_path / "zoo")
        assert np.dtype("f8").flags == 0
        assert not np.dtype("f8").hasobject
        assert np.zeros(3).copy().sum() == 0


def test_a_pickled_array_does_not_run(tmp_path: Path):
    marker = tmp_path / "marker"
    root = tmp_path / "cnns"
    write_small_cnn_zoo(root)
    np.save(root / "weights.npy", np.array([[Evil(marker)]], object), allow_pickle=True)
    with pytest.raises(ZooError, match=r"not a \.npy file of numbers"):
        import_zoo("small-cnn-zoo", root, tmp_path / "zoo")
    assert not marker.exists()


@pytest.mark.parametrize("damage", ["half", "empty", "bit", "text"])
def test_truncated_networks_are_refused(damage: str, nfn, tmp_path: Path):
    folder, _ = nfn
    path = tmp_path / nfn_name(12, 2, 0)
    content = path.read_bytes()
    broken = {
        "half": content[: len(content) // 2],
        "empty": b"",
        "bit": b"\x00" + content[1:200] + bytes(64) + content[264:],
        "text": b"<html>not found</html>",
    }[damage]
    path.write_bytes(broken)
    result = run("import", "nfn", folder, "--out", tmp_path / "zoo")
    assert "net12.pth" in line_of(result, 1)
    assert not (tmp_path / "zoo" / shards.INDEX_FILE).exists()
    assert "is not finished" in line_of(run("verify", tmp_path / "zoo"), 1)
    # Whole again, the same command makes the zoo from the start.
    path.write_bytes(content)
    assert run("import", "nfn", folder, "--out", tmp_path / "zoo").exit_code == 0


def test_archives_are_never_unpacked(nfn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Names that climb out, links, twins, truncation, bombs."""
    folder, made = nfn
    inside = tmp_path / "work"
    inside.mkdir()
    monkeypatch.chdir(inside)
    good = folder / "randinit_smaller_0s" / "net0.pth"

    def tar(path: Path, *members: tuple[str, bytes | str]) -> Path:
        with tarfile.open(path, "w") as archive:
            for name, content in members:
                item = tarfile.TarInfo(name)
                if isinstance(content, str):
                    item.type, item.linkname = tarfile.SYMTYPE, content
                    archive.addfile(item)
                else:
                    item.size = len(content)
                    archive.addfile(item, io.BytesIO(content))
        return path

    name = "siren_mnist_wts/randinit_smaller_0s/net0.pth"
    climbing = tar(
        tmp_path / "climbing.tar",
        (name, good.read_bytes()),
        ("../../escaped.pth", b"x"),
        ("/outside/escaped.pth", b"x"),
        ("siren_mnist_wts/randinit_smaller_1s/net1.pth", "/etc/passwd"),
    )
    before = sorted(tmp_path.rglob("escaped*"))
    import_zoo("nfn", climbing, tmp_path / "zoo")
    assert_rows(tmp_path / "zoo", {"train": {(0, 0): made[0, 0, 0]}})
    assert sorted(tmp_path.rglob("escaped*")) == before
    assert not Path("/outside/escaped.pth").exists()
    assert not list(inside.iterdir())

    twins = tar(tmp_path / "twins.tar", (name, good.read_bytes()), (name, b"other"))
    with pytest.raises(ZooError, match="twice"):
        import_zoo("nfn", twins, tmp_path / "x")
    cut = tmp_path / "cut.tar"
    cut.write_bytes(climbing.read_bytes()[:3000])
    with pytest.raises(ZooError, match=r"ends before the file does|cannot be read|can be read"):
        import_zoo("nfn", cut, tmp_path / "x")
    packed = tmp_path / "cut.tar.gz"
    packed.write_bytes(gzip.compress(climbing.read_bytes())[:-20])
    with pytest.raises(ZooError, match="can be read"):
        import_zoo("nfn", packed, tmp_path / "x")
    (tmp_path / "text.tar").write_text("no archive")
    with pytest.raises(ZooError, match=r"text\.tar: expected a folder.*no file of torch"):
        import_zoo("nfn", tmp_path / "text.tar", tmp_path / "x")

    monkeypatch.setattr(contents, "FILE_BYTES", 1 << 20)
    monkeypatch.setattr(files, "STREAM_BYTES", 1 << 20)
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(8 << 20))
    good.write_bytes(bomb.getvalue())
    with pytest.raises(ZooError, match="unpacks to 8,388,608 bytes"):
        import_zoo("nfn", folder, tmp_path / "x")
    packed.write_bytes(gzip.compress(bytes(8 << 20)))
    with pytest.raises(ZooError, match="unpacks to more than"):
        import_zoo("nfn", packed, tmp_path / "x")


def test_sizes_of_files_are_bounded(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.pth").write_bytes(bytes(1000))
    os.mkfifo(tmp_path / "a" / "pipe.pth")
    found = files.Files(tmp_path / "a")
    assert found.names == ["x.pth"]
    assert found.read("x.pth", 1000) == bytes(1000)
    with pytest.raises(ZooError, match="more than 999 bytes"):
        found.read("x.pth", 999)


# ---- the writer


def test_limit_takes_the_lowest_of_each_split(nfn, tmp_path: Path):
    folder, made = nfn
    out = tmp_path / "zoo"
    import_zoo("nfn", folder, out, limit=8, shard_rows=4)
    expected = nfn_expected(made)
    counts = shards.read_index(out).splits
    assert counts == {"train": 6, "validation": 1, "test": 1}
    kept = {s: {k: rows[k] for k in sorted(rows)[: counts[s]]} for s, rows in expected.items()}
    assert_rows(out, kept)


def test_what_is_there_is_not_lost(nfn, tmp_path: Path):
    folder, _ = nfn
    out = tmp_path / "zoo"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    assert "not empty and not a zoo" in line_of(run("import", "nfn", folder, "--out", out), 2)
    (out / "thesis.txt").unlink()
    assert run("import", "nfn", folder, "--out", out, "--no-parquet").exit_code == 0
    assert not (out / "data").exists()
    before = (out / "zoo.json").read_bytes()
    assert "holds a zoo" in line_of(run("import", "nfn", folder, "--out", out), 2)
    assert (out / "zoo.json").read_bytes() == before
    assert run("import", "nfn", folder, "--out", out, "--overwrite").exit_code == 0
    assert (out / "data").is_dir()
    with shards.one_writer(out):
        busy = run("import", "nfn", folder, "--out", out, "--overwrite")
    assert "another process" in line_of(busy, 1)


def test_same_files_same_bytes(nfn, tmp_path: Path):
    folder, _ = nfn
    found = []
    for name in ("a/zoo", "b/zoo"):
        import_zoo("nfn", folder, tmp_path / name, shard_rows=5)
        found.append(
            {
                path.relative_to(tmp_path / name): path.read_bytes()
                for path in (tmp_path / name).rglob("*")
                if path.is_file()
            }
        )
    assert found[0] == found[1]


def test_misuse_is_one_line(nfn, tmp_path: Path):
    folder, _ = nfn
    assert "known: dws, nfn" in line_of(run("import", "onnx", folder), 2)
    assert "does not exist" in line_of(run("import", "nfn", tmp_path / "nowhere"), 2)
    assert "takes no --activation" in line_of(
        run("import", "nfn", folder, "--activation", "relu"), 2
    )
    for flag in ("--limit", "--shard-rows"):
        assert f"'{flag}': 0 is not" in line_of(run("import", "nfn", folder, flag, 0), 2)
    with pytest.raises(ValueError, match="limit must be"):
        import_zoo("nfn", folder, tmp_path / "z", limit=0)
    with pytest.raises(ValueError, match="shard_rows must be"):
        import_zoo("nfn", folder, tmp_path / "z", shard_rows=0)
    (tmp_path / "empty").mkdir()
    for format in FORMATS:
        if format == "fit-a-nef":
            pytest.importorskip("h5py", reason="wszoo[hdf5] is not installed")
        line_of(run("import", format, tmp_path / "empty", "--out", tmp_path / "z"), 2)
    assert not (tmp_path / "z").exists()
