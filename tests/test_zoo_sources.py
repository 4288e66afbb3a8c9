"""Sources: what is read is verified, the order is fixed, and every failure is one line."""

import copyreg
import gzip
import hashlib
import http.server
import io
import os
import pickle
import socket
import tarfile
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets

from zoo import philox, sources
from zoo.errors import ZooError
from zoo.sources import (
    digits,
    load_images,
    load_sine,
    published,
    sha256_of,
    solids,
    split_items,
    volumes,
    waves,
)

RNG = np.random.default_rng(20260726)
FILES = tuple(published.IDX_MD5["mnist"])


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def idx(values: np.ndarray) -> bytes:
    lengths = np.array(values.shape, ">u4").tobytes()
    return bytes([0, 0, 8, values.ndim]) + lengths + values.astype(np.uint8).tobytes()


@pytest.fixture
def no_network(monkeypatch):
    """Any connection fails at once, as on a machine without network."""

    def refuse(*_args, **_kwargs):
        raise OSError("no network here")

    monkeypatch.setattr(socket, "create_connection", refuse)


@pytest.fixture
def small_mnist(monkeypatch):
    """Images, labels and the four files' content of an MNIST of 6 + 3 items of 5x4 pixels."""
    images = RNG.integers(0, 256, (9, 5, 4), np.uint8)
    labels = np.arange(9) % 10
    parts = (images[:6], labels[:6], images[6:], labels[6:])
    contents = dict(zip(FILES, map(idx, parts), strict=True))
    monkeypatch.setitem(published.IDX_MD5, "mnist", {f: md5(c) for f, c in contents.items()})
    return images, labels, contents


def write_raw(root: Path, contents: dict[str, bytes], folder: str = "MNIST/raw") -> Path:
    raw = root / folder
    raw.mkdir(parents=True)
    for file, content in contents.items():
        (raw / file).write_bytes(content)
    return raw


def tree(root: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in [root, *root.rglob("*")]
    }


# ---- MNIST and Fashion-MNIST


@pytest.mark.parametrize("packed", [False, True])
def test_mnist_files_are_read_plain_or_packed(tmp_path, small_mnist, no_network, packed):
    images, labels, contents = small_mnist
    if packed:
        contents = {f"{file}.gz": gzip.compress(content) for file, content in contents.items()}
    raw = write_raw(tmp_path, contents)
    before = tree(tmp_path)
    source = load_images("mnist", tmp_path)
    assert tree(tmp_path) == before
    np.testing.assert_array_equal(source.images, images[..., None], strict=True)
    np.testing.assert_array_equal(source.labels, labels.astype(np.int64), strict=True)
    assert (source.train_items, len(source), source.shape) == (6, 9, (5, 4, 1))
    assert source.images.flags.writeable  # torch.from_numpy warns about arrays that are not
    assert source.class_names == tuple("0123456789")
    assert (source.name, source.license, source.path) == ("mnist", "cc-by-sa-3.0", raw)


def test_sha256_sees_pixels_labels_and_shape_and_not_the_packing(tmp_path, small_mnist):
    _, _, contents = small_mnist
    write_raw(tmp_path / "plain", contents)
    write_raw(tmp_path / "gz", {f"{f}.gz": gzip.compress(c) for f, c in contents.items()})
    plain = load_images("mnist", tmp_path / "plain")
    assert plain.sha256 == load_images("mnist", tmp_path / "gz").sha256
    assert plain.sha256 != load_images("mnist", tmp_path / "plain", size=4).sha256
    changed = plain.images.copy()
    changed[3, 1, 2, 0] ^= 1
    turned = plain.images.reshape(9, 4, 5, 1)
    labels = plain.labels.copy()
    labels[5] = 0
    others = {
        sha256_of(changed, plain.labels),
        sha256_of(turned, plain.labels),
        sha256_of(plain.images, labels),
    }
    assert len(others | {plain.sha256}) == 4
    assert sha256_of(plain.images, plain.labels) == plain.sha256


def test_data_root_comes_from_the_environment(tmp_path, small_mnist, monkeypatch):
    write_raw(tmp_path, small_mnist[2])
    monkeypatch.setenv("WSZOO_DATA", str(tmp_path))
    assert len(load_images("mnist")) == 9
    monkeypatch.delenv("WSZOO_DATA")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(ZooError, match=r"not found in \S*/home/\.cache/wszoo/MNIST/raw"):
        load_images("mnist", download=False)


@pytest.mark.parametrize("damage", ["shorter", "flipped"])
def test_damaged_idx_file_is_named(tmp_path, small_mnist, no_network, damage):
    content = bytearray(small_mnist[2][FILES[2]])
    if damage == "shorter":
        del content[-3:]
    else:
        content[-3] ^= 1
    raw = write_raw(tmp_path, {**small_mnist[2], FILES[2]: bytes(content)})
    line = rf"^mnist: {raw}/{FILES[2]} is truncated or altered \(md5 \w+, not \w+\); delete it .*$"
    with pytest.raises(ZooError, match=line):
        load_images("mnist", tmp_path)


def test_truncated_gz_is_named(tmp_path, small_mnist):
    packed = {f"{file}.gz": gzip.compress(content) for file, content in small_mnist[2].items()}
    packed[f"{FILES[0]}.gz"] = packed[f"{FILES[0]}.gz"][:-20]
    write_raw(tmp_path, packed)
    with pytest.raises(ZooError, match=rf"{FILES[0]}\.gz cannot be read \(.*delete it"):
        load_images("mnist", tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (FILES[0], b"\0\0\x08", "is not an idx file"),
        (FILES[0], idx(np.zeros((6, 5, 4)))[:-1], "or not all of one"),
        (FILES[1], idx(np.zeros(5)), r"the train files in .* contradict .*\(6, 5, 4\).*\(5,\)"),
    ],
)
def test_idx_files_that_pass_their_md5_are_still_parsed_with_care(
    tmp_path, small_mnist, monkeypatch, file, content, message
):
    monkeypatch.setitem(published.IDX_MD5["mnist"], file, md5(content))
    write_raw(tmp_path, {**small_mnist[2], file: content})
    with pytest.raises(ZooError, match=message):
        load_images("mnist", tmp_path)


def test_missing_files_without_network_are_one_line(tmp_path, no_network, capsys):
    with pytest.raises(
        ZooError,
        match=r"^fashion-mnist: train-images-idx3-ubyte, train-labels-idx1-ubyte, "
        r"t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte not found in \S*/FashionMNIST/raw, and "
        r"the download failed \(.*no network here.*\); put the files there, plain or as \.gz, "
        r"or name the folder that has FashionMNIST/raw with --data-root or WSZOO_DATA$",
    ) as caught:
        load_images("fashion-mnist", tmp_path)
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


def test_download_can_be_forbidden(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "_download", pytest.fail)
    with pytest.raises(ZooError, match=r"not found in .*MNIST/raw, and downloading is off;"):
        load_images("mnist", tmp_path, download=False)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def mirror(tmp_path):
    """A folder served over HTTP: (folder, address)."""
    folder = tmp_path / "mirror"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, directory=str(folder), **kwargs)

        def log_message(self, *_args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture
def mnist_mirror(mirror, small_mnist, monkeypatch):
    folder, address = mirror
    packed = {f"{file}.gz": gzip.compress(content) for file, content in small_mnist[2].items()}
    for file, content in packed.items():
        (folder / file).write_bytes(content)
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [address])
    resources = [(file, md5(content)) for file, content in packed.items()]
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", resources)
    return folder


def test_missing_files_are_downloaded_once(tmp_path, small_mnist, mnist_mirror, capsys):
    images, _, contents = small_mnist
    raw = write_raw(tmp_path / "data", {FILES[1]: contents[FILES[1]]})
    before = (raw / FILES[1]).stat().st_mtime_ns
    source = load_images("mnist", tmp_path / "data")
    np.testing.assert_array_equal(source.images[..., 0], images)
    assert capsys.readouterr().out == ""
    assert (raw / FILES[1]).stat().st_mtime_ns == before
    assert sorted(os.listdir(raw)) == sorted(FILES)
    assert os.listdir(tmp_path / "data") == ["MNIST"]
    assert socket.getdefaulttimeout() is None
    for file in mnist_mirror.iterdir():
        file.unlink()
    assert load_images("mnist", tmp_path / "data").sha256 == source.sha256


def test_chatter_of_a_download_stays_off_stdout(tmp_path, monkeypatch, capsys):
    def chatty(*_args, **_kwargs):
        print("Downloading")
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(torchvision.datasets, "MNIST", chatty)
    with pytest.raises(ZooError, match=r"the download failed \(two lines\)"):
        load_images("mnist", tmp_path)
    assert capsys.readouterr() == ("", "Downloading\n")


def test_damaged_download_leaves_nothing(tmp_path, small_mnist, mnist_mirror):
    (mnist_mirror / f"{FILES[3]}.gz").write_bytes(b"half")
    with pytest.raises(ZooError, match=r"the download failed \(.*t10k-labels.*corrupted"):
        load_images("mnist", tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.skipif(not os.environ.get("WSZOO_DATA"), reason="WSZOO_DATA names no folder of data")
@pytest.mark.parametrize(
    ("name", "folder", "mean"),
    [("mnist", "MNIST", 0.1307), ("fashion-mnist", "FashionMNIST", 0.286)],
)
def test_real_data(name, folder, mean, no_network):
    if not (Path(os.environ["WSZOO_DATA"]) / folder).is_dir():
        pytest.skip(f"WSZOO_DATA has no {folder}")
    source = load_images(name)
    assert (source.train_items, len(source), source.shape) == (60_000, 70_000, (28, 28, 1))
    assert source.images[:60_000].mean() / 255 == pytest.approx(mean, abs=1e-4)
    theirs = getattr(torchvision.datasets, folder)
    if all((source.path / file).exists() for file in FILES):
        test = theirs(os.environ["WSZOO_DATA"], train=False)
        np.testing.assert_array_equal(source.images[60_000:, ..., 0], test.data.numpy())
        np.testing.assert_array_equal(source.labels[60_000:], test.targets.numpy())
    assert (np.bincount(source.labels) >= 6_000).sum() >= 9
    assert len(source.class_names) == 10


def test_class_names_agree_with_torchvision():
    theirs = tuple(torchvision.datasets.FashionMNIST.classes)
    assert published.FACTS["fashion-mnist"]["class_names"] == theirs
    theirs = tuple(name[0] for name in torchvision.datasets.MNIST.classes)
    assert published.FACTS["mnist"]["class_names"] == theirs


# ---- CIFAR-10


def old_pickle(value: object) -> bytes:
    """Pickled as by the numpy of 2009, with integers for a dtype's flags."""
    stream = io.BytesIO()
    pickler = pickle.Pickler(stream, protocol=2)
    pickler.dispatch_table = copyreg.dispatch_table.copy()
    pickler.dispatch_table[type(np.dtype("u1"))] = lambda dtype: (
        np.dtype,
        ("u1", 0, 1),
        dtype.__reduce__()[2],
    )
    pickler.dump(value)
    return stream.getvalue()


@pytest.fixture
def small_cifar(monkeypatch):
    """Images, labels and files of a CIFAR-10 of 5 x 2 + 2 items; MD5 lists to match."""
    images = RNG.integers(0, 256, (12, 32, 32, 3), np.uint8)
    labels = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8]
    cifar = torchvision.datasets.CIFAR10
    contents = {}
    for at, (file, _) in enumerate([*cifar.train_list, *cifar.test_list]):
        rows = slice(2 * at, 2 * at + 2)
        planes = images[rows].transpose(0, 3, 1, 2).reshape(2, -1)
        contents[file] = old_pickle({"data": planes, "labels": labels[rows]})
    contents["batches.meta"] = pickle.dumps({"label_names": list("abcdefghij")})
    for lists in ("train_list", "test_list"):
        known = [[file, md5(contents[file])] for file, _ in getattr(cifar, lists)]
        monkeypatch.setattr(cifar, lists, known)
    meta = {**cifar.meta, "md5": md5(contents["batches.meta"])}
    monkeypatch.setattr(cifar, "meta", meta)
    return images, labels, contents


def test_cifar10_batches(tmp_path, small_cifar, no_network, capsys):
    images, labels, contents = small_cifar
    write_raw(tmp_path, contents, "cifar-10-batches-py")
    before = tree(tmp_path)
    source = load_images("cifar10", tmp_path)
    assert tree(tmp_path) == before
    np.testing.assert_array_equal(source.images, images, strict=True)
    np.testing.assert_array_equal(source.labels, np.array(labels), strict=True)
    assert source.images.flags.c_contiguous
    assert (source.train_items, source.class_names) == (10, tuple("abcdefghij"))
    assert (source.license, capsys.readouterr().out) == ("unknown", "")


def test_damaged_batch_is_named_and_never_unpickled(tmp_path, small_cifar, monkeypatch):
    folder = write_raw(tmp_path, small_cifar[2], "cifar-10-batches-py")
    content = (folder / "data_batch_3").read_bytes()
    (folder / "data_batch_3").write_bytes(content[:-1])
    monkeypatch.setattr(pickle, "load", pytest.fail)
    with pytest.raises(ZooError, match=r"^cifar10: \S*/data_batch_3 is truncated or altered"):
        load_images("cifar10", tmp_path)


def test_missing_batches_without_network(tmp_path, small_cifar, no_network):
    contents = {f: c for f, c in small_cifar[2].items() if f not in ("test_batch", "batches.meta")}
    write_raw(tmp_path, contents, "cifar-10-batches-py")
    with pytest.raises(
        ZooError,
        match=r"^cifar10: test_batch, batches\.meta not found in .*no network here.*"
        r"imagefolder:PATH, or name the folder that has cifar-10-batches-py with --data-root",
    ):
        load_images("cifar10", tmp_path)


def test_cifar10_is_downloaded_and_unpacked(tmp_path, small_cifar, mirror, monkeypatch, capsys):
    images, _, contents = small_cifar
    folder, address = mirror
    with tarfile.open(folder / "cifar-10-python.tar.gz", "w:gz") as archive:
        for file, content in contents.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{file}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    cifar = torchvision.datasets.CIFAR10
    monkeypatch.setattr(cifar, "url", f"{address}cifar-10-python.tar.gz")
    monkeypatch.setattr(cifar, "tgz_md5", md5((folder / "cifar-10-python.tar.gz").read_bytes()))
    source = load_images("cifar10", tmp_path / "data")
    np.testing.assert_array_equal(source.images, images)
    assert capsys.readouterr().out == ""
    assert os.listdir(tmp_path / "data") == ["cifar-10-batches-py"]


# ---- digits, names, sizes


def test_digits():
    from sklearn.datasets import load_digits

    source = load_images("digits")
    assert (source.images.shape, source.train_items) == ((1797, 8, 8, 1), 1797)
    expected = [round(v * 255 / 16) for v in load_digits().images.reshape(-1)]
    np.testing.assert_array_equal(source.images.reshape(-1), expected)
    assert source.images.min() == 0
    assert source.images.max() == 255
    assert sorted(set(source.labels.tolist())) == list(range(10))
    assert source.path is None


def test_size_of_a_published_set():
    source = load_images("digits", size=4)
    assert source.shape == (4, 4, 1)
    # Halving by area is the mean of 2 x 2 pixels.
    whole = load_images("digits").images[..., 0].reshape(-1, 4, 2, 4, 2).mean((2, 4))
    np.testing.assert_allclose(source.images[..., 0], whole, atol=0.5)
    grown = load_images("digits", size=20)
    assert grown.shape == (20, 20, 1)


@pytest.mark.parametrize("size", [0, -3, "3x", "0x4", "4x4x4", "", True])
def test_bad_size(size):
    with pytest.raises(ValueError, match=rf"at least 1, or two as WxH, got {size}"):
        load_images("digits", size=size)
    with pytest.raises(ValueError, match=r"unknown fit 'padd'; known: .*did you mean pad\?"):
        load_images("digits", size=4, fit="padd")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "mnst",
            r"^unknown source 'mnst'; known: mnist, fashion-mnist, cifar10, digits, "
            r"imagefolder:PATH, sine, shapes, voxels:PATH \(did you mean mnist\?\)$",
        ),
        ("CT scans", r"imagefolder:PATH, sine, shapes, voxels:PATH$"),
        ("some/pictures", r"^there is no folder some/pictures; a source is a folder of pictures"),
        (__file__, r"^\S+\.py is a file; a source is a folder of pictures or one of mnist"),
        ("sine", "'sine' has no images; it holds waves"),
        ("shapes", "'shapes' has no images; it holds parametric solids"),
        ("imagefolder:", "needs a path"),
    ],
)
def test_names_that_open_nothing(name, message):
    with pytest.raises(ValueError, match=message):
        load_images(name)


def test_every_source_has_one_line_and_every_licence_is_stated():
    assert all(entry.about and "\n" not in entry.about for entry in sources.SOURCES.values())
    facts = {**published.FACTS, "digits": digits.FACTS, "sine": waves.FACTS}
    facts["shapes"] = solids.FACTS
    assert set(facts) == set(sources.SOURCES) - {"imagefolder:PATH", "voxels:PATH"}
    facts |= volumes.KNOWN
    assert all(each["license"] and each["citation"] for each in facts.values())


# ---- sine waves


def test_sine_values():
    source = load_sine(50, 11, (0, 10), (0.5, 10), seed=3)
    u = philox.uniforms(3, 0, np.arange(50), np.zeros(50, np.int64), philox.HYPER, 2)
    np.testing.assert_allclose(source.coefs, [0, 0.5] + u * [10, 9.5], rtol=1e-15)
    assert source.inputs.dtype == np.float32
    assert source.inputs.shape == (11, 1)
    assert source.inputs[0] == np.float32(-np.pi)
    assert source.inputs[-1] == np.float32(np.pi)
    targets = source.targets(np.array([7, 2]))
    assert targets.dtype == np.float32
    assert targets.shape == (2, 11, 1)
    for row, item in enumerate((7, 2)):
        a, b = source.coefs[item]
        expected = a * np.sin(b * source.inputs.astype(np.float64))
        np.testing.assert_array_equal(targets[row], expected.astype(np.float32))
    assert (len(source), source.train_items, source.labels, source.class_names) == (
        50,
        50,
        None,
        (),
    )


def test_sine_depends_on_seed_and_index_alone():
    source = load_sine(20, 5, (0, 10), (0, 10), seed=1)
    again = load_sine(20, 5, (0, 10), (0, 10), seed=1)
    assert source.sha256 == again.sha256
    assert source.sha256 != load_sine(20, 5, (0, 10), (0, 10), seed=2).sha256
    np.testing.assert_array_equal(load_sine(8, 5, (0, 10), (0, 10), 1).coefs, source.coefs[:8])
    for one in (None, (1, 1)):
        plain = load_sine(20, 5, one, (0, 10), seed=1)
        assert (plain.coefs[:, 0] == 1).all()
        np.testing.assert_array_equal(plain.coefs[:, 1], source.coefs[:, 1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 5, None, (0, 1), 0), r"count >= 1 and points >= 2, got count 0, points 5"),
        ((5, 1, None, (0, 1), 0), r"got count 5, points 1"),
        ((5, 5, (2, 1), (0, 1), 0), r"amplitude must be \(low, high\) .* got \(2\.0, 1\.0\)"),
        ((5, 5, None, (0, np.inf), 0), r"frequency must be .* got \(0\.0, inf\)"),
    ],
)
def test_sine_misuse(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_sine(*arguments)


# ---- splits


@pytest.mark.parametrize(
    ("source_train", "total", "rule", "train", "validation", "test"),
    [
        (60_000, 70_000, "dws", (0, 55_000), (55_000, 60_000), (60_000, 70_000)),
        (50_000, 60_000, "dws", (0, 45_000), (45_000, 50_000), (50_000, 60_000)),
        (1_797, 1_797, "dws", (0, 1_457), (1_457, 1_618), (1_618, 1_797)),
        (60_000, 70_000, "nfn", (0, 45_000), (45_000, 50_000), (60_000, 70_000)),
        (60_000, 70_000, "nfn-all-rest", (0, 45_000), (45_000, 50_000), (50_000, 70_000)),
        (50_000, 60_000, "nfn", (0, 45_000), (45_000, 50_000), (50_000, 60_000)),
        (1_000, 1_200, "nfn", (0, 900), (900, 1_000), (1_000, 1_200)),
        (1_797, 1_797, "nfn-all-rest", (0, 1_457), (1_457, 1_618), (1_618, 1_797)),
        (1_000, 1_000, "80-10-10", (0, 800), (800, 900), (900, 1_000)),
        (5_000, 5_000, "80-10-10", (0, 4_000), (4_000, 4_500), (4_500, 5_000)),
    ],
)
def test_splits(source_train, total, rule, train, validation, test):
    assert split_items(source_train, total, rule) == {
        "train": range(*train),
        "validation": range(*validation),
        "test": range(*test),
    }


@pytest.mark.parametrize("rule", sources.SPLIT_RULES)
def test_splits_are_disjoint_ordered_and_keep_a_train_item(rule):
    for total in (*range(1, 60), 49_999, 50_001, 55_555, 55_556, 70_000):
        for source_train in {1, (total + 1) // 2, total}:
            splits = split_items(source_train, total, rule)
            assert list(splits) == ["train", "validation", "test"]
            ends = [(part.start, part.stop) for part in splits.values()]
            flat = [end for pair in ends for end in pair]
            assert flat == sorted(flat)
            assert flat[0] == 0
            assert flat[-1] == total
            assert len(splits["train"]) >= 1
            if source_train == total >= 20 or 10 <= source_train < total:
                assert all(len(part) for part in splits.values())


@pytest.mark.parametrize("rule", ["dws", "nfn", "nfn-all-rest"])
def test_a_source_with_validation_items_of_its_own(rule):
    found = split_items(60, 100, rule, 15)
    assert found == {"train": range(60), "validation": range(60, 75), "test": range(75, 100)}
    found = split_items(60, 75, rule, 15)
    assert found == {"train": range(54), "validation": range(60, 75), "test": range(54, 60)}
    with pytest.raises(ValueError, match="got 16 of 75 - 60"):
        split_items(60, 75, rule, 16)


def test_a_source_is_cut_with_its_own_validation_items():
    images = np.zeros((100, 2, 2, 1), np.uint8)
    plain = replace(sources.of_arrays(images), train_items=60)
    assert plain.cut() == split_items(60, 100, "dws")
    assert plain.trained_on == range(60)
    own = replace(plain, validation_items=15)
    assert own.cut("nfn") == split_items(60, 100, "nfn", 15)
    assert own.trained_on == range(60)
    untested = replace(plain, validation_items=40)
    assert (untested.trained_on, untested.cut()["test"]) == (range(54), range(54, 60))


def test_split_misuse():
    with pytest.raises(
        ValueError, match=r"unknown split rule 'nfm'; known: dws, nfn, .*mean nfn\?"
    ):
        split_items(10, 10, "nfm")
    for source_train, total in ((0, 10), (11, 10)):
        with pytest.raises(
            ValueError, match=rf"1 <= source_train <= total, got {source_train} and"
        ):
            split_items(source_train, total, "dws")
