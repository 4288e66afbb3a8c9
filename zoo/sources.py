"""The images and waves that networks are fitted to, opened whole and checked.

`load_images` opens MNIST, Fashion-MNIST, CIFAR-10, scikit-learn's digits or a folder of
pictures; `load_sine` draws sine waves. An item's position in its source is fixed: the
source's own training images come first, then its test images, and `split_items` cuts
this order into train, validation and test. So `index` in a zoo means the same image on
every machine, and the sha256 of a source says whether two machines hold the same pixels.

What is missing is downloaded through torchvision, into a temporary folder first: a
download that breaks off leaves nothing that looks like data. Files that are present are
only read, never written, and must have the published content.
"""

import difflib
import gzip
import hashlib
import os
import pickle
import socket
import sys
import tarfile
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import numpy as np
from jaxtyping import Float32, Float64, Int64, Shaped, UInt8

from zoo import philox
from zoo.errors import ZooError

SOURCES = {
    "mnist": "70,000 handwritten digits, 28x28 grey",
    "fashion-mnist": "70,000 articles of clothing, 28x28 grey",
    "cifar10": "60,000 photographs of ten classes, 32x32 RGB",
    "digits": "1,797 handwritten digits, 8x8 grey; part of scikit-learn, no download",
    "imagefolder:PATH": "pictures in PATH/<class>/, or PATH/train/<class>/ and PATH/test/<class>/",
    "sine": "waves a*sin(b*x) on [-pi, pi], drawn from a seed",
}

SPLIT_RULES = {
    "dws": "validation is the last 5,000 training images, test the source's own",
    "nfn": "train 45,000, validation the next 5,000, test the source's own",
    "nfn-all-rest": "as nfn, but test is all that remains",
    "80-10-10": "eight, one and one tenth of all items, in order",
}

# MD5 of the unpacked idx files as widely published, in the order images, labels of the
# training set, images, labels of the test set. The .gz around them is not compared: it
# differs with the gzip that packed it.
IDX_MD5 = {
    "mnist": {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
    "fashion-mnist": {
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    },
}

# Licences as the Hub names them.
_FACTS: dict[str, dict[str, Any]] = {
    "mnist": {
        "title": "MNIST",
        "license": "cc-by-sa-3.0",
        "url": "http://yann.lecun.com/exdb/mnist/",
        "citation": "LeCun, Bottou, Bengio and Haffner 1998, Gradient-based learning applied to "
        "document recognition, Proceedings of the IEEE 86(11)",
        "class_names": tuple("0123456789"),
    },
    "fashion-mnist": {
        "title": "Fashion-MNIST",
        "license": "mit",
        "url": "https://github.com/zalandoresearch/fashion-mnist",
        "citation": "Xiao, Rasul and Vollgraf 2017, Fashion-MNIST: a novel image dataset for "
        "benchmarking machine learning algorithms, arXiv:1708.07747",
        "class_names": (
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
    },
    "cifar10": {
        "title": "CIFAR-10",
        "license": "unknown",
        "url": "https://www.cs.toronto.edu/~kriz/cifar.html",
        "citation": "Krizhevsky 2009, Learning multiple layers of features from tiny images, "
        "technical report, University of Toronto",
    },
    "digits": {
        "title": "Digits (optical recognition of handwritten digits, UCI; scikit-learn's copy)",
        "license": "cc-by-4.0",
        "url": "https://doi.org/10.24432/C50P49",
        "citation": "Alpaydin and Kaynak 1998, Optical recognition of handwritten digits, "
        "UCI Machine Learning Repository, doi:10.24432/C50P49",
        "class_names": tuple("0123456789"),
    },
    "sine": {
        "title": "Sine waves a*sin(b*x)",
        "license": "cc0-1.0",
        "url": "",
        "citation": "Drawn by wszoo as in Navon et al. 2023, Equivariant architectures for "
        "learning in deep weight spaces, ICML",
    },
}

# A mirror that swallows packets would otherwise hold the download for minutes: torchvision
# opens its connections without a time limit.
_CONNECTION_SECONDS = 30.0


@dataclass(frozen=True, eq=False)
class ImageSource:
    """A whole set of labelled images in memory, in its fixed order.

    Attributes:
        name: as given to `load_images`.
        license: identifier as the Hub names licences; "unknown" if none is stated.
        url, citation: one line each; empty for an image folder.
        images: 0..255, one channel (grey) or three (RGB).
        labels: class numbers, positions in `class_names`.
        train_items: this many items at the front are the source's own training images,
            the rest its own test images.
        sha256: over shape, pixels and labels as they stand here, hence independent of how
            files were packed. Pictures in a lossy format depend on the decoder too.
        path: the folder it was read from; None for digits.
        files: of an image folder each item's file, relative to `path`; else empty.
    """

    name: str
    title: str
    license: str
    url: str
    citation: str
    images: UInt8[np.ndarray, "item row column chan"]
    labels: Int64[np.ndarray, " item"]
    class_names: tuple[str, ...]
    train_items: int
    sha256: str
    path: Path | None = None
    files: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(row, column, chan) of every image."""
        _, row, column, chan = self.images.shape
        return row, column, chan

    def __len__(self) -> int:
        """Number of items."""
        return len(self.images)


@dataclass(frozen=True, eq=False)
class SineSource:
    """Waves a*sin(b*x); see `load_sine`.

    Attributes:
        coefs: columns amplitude a and frequency b (radians per unit of x).
        inputs: x, evenly spaced on [-pi, pi], ends included.
        sha256: over shapes and bytes of `coefs` and `inputs`.
        labels: none, and hence no class names.
    """

    name: str
    title: str
    license: str
    url: str
    citation: str
    coefs: Float64[np.ndarray, "item 2"]
    inputs: Float32[np.ndarray, "point 1"]
    sha256: str
    class_names: tuple[str, ...] = ()
    labels: None = None

    @property
    def train_items(self) -> int:
        """All of them: waves have no test items of their own."""
        return len(self)

    def __len__(self) -> int:
        """Number of items."""
        return len(self.coefs)

    def targets(
        self, items: Int64[np.ndarray, " item"] | Sequence[int]
    ) -> Float32[np.ndarray, "item point 1"]:
        """a*sin(b*x) of these items at `inputs`, computed in float64 and rounded once."""
        amplitude, frequency = self.coefs[np.asarray(items, np.int64)].T[:, :, None, None]
        return (amplitude * np.sin(frequency * self.inputs.astype(np.float64))).astype(np.float32)


def load_images(
    name: str, data_root: Path | None = None, size: int | None = None, download: bool = True
) -> ImageSource:
    """A set of images, verified, its own training images first.

    - mnist, fashion-mnist: `data_root`/MNIST/raw and `data_root`/FashionMNIST/raw, the four
      idx files, plain or .gz. Every file must have the published MD5, which implies the
      published 60,000 and 10,000 items.
    - cifar10: `data_root`/cifar-10-batches-py. These files are pickles; they are opened
      only after every MD5 has been found right.
    - digits: from scikit-learn; its counts 0..16 become 0..255 by round(v * 255 / 16). No
      test images of its own.
    - imagefolder:PATH: PATH/train/<class>/* and then PATH/test/<class>/* (test may be
      absent, further folders beside them are ignored), or, without PATH/train, all of
      PATH/<class>/* as training images. Classes are numbered by name, as torchvision's
      `ImageFolder` does; hidden files and folders are ignored. So that a prefix or suffix
      of the order has nearly the class proportions, the images of a class, by file name,
      stand at (rank + 0.5) / class size, and positions are sorted, ties by class; train
      and test separately. 16-bit pictures are divided by 257 and rounded, alpha is
      dropped (not blended), an EXIF orientation is applied. One channel if no picture has a
      pixel with unequal channels, else three.

    Args:
        data_root: default $WSZOO_DATA, else ~/.cache/wszoo; not used by digits and folders.
        size: rows and columns wanted: the largest centred square, resized by area averaging
            to shrink and linearly to grow (no new extremes, unlike cubic). Default: as is.
        download: whether missing files are downloaded; progress goes to stderr.

    Raises:
        ValueError: if the name is unknown, the size is below 1, or pictures of a folder
            differ in size and no `size` is given.
        ZooError: if files are missing and cannot be downloaded, are damaged, or contradict
            one another.
    """
    if size is not None and not (isinstance(size, int) and size >= 1):
        raise ValueError(f"size must be a whole number of pixels, at least 1, got {size}")
    if name.startswith("imagefolder:"):
        return _open_folder(name, size)
    if name == "sine":
        raise ValueError("source 'sine' has waves, not images; open it with load_sine")
    if name not in _FACTS:
        raise ValueError(_unknown("source", name, SOURCES))

    path: Path | None = None
    facts = dict(_FACTS[name])
    if name == "digits":
        images, labels, train_items = _read_digits()
    else:
        if data_root is None:
            data_root = Path(os.environ.get("WSZOO_DATA") or "~/.cache/wszoo")
        data_root = Path(data_root).expanduser()
        if name == "cifar10":
            path = data_root / "cifar-10-batches-py"
            images, labels, train_items, facts["class_names"] = _read_cifar10(path, download)
        else:
            path = data_root / {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}[name] / "raw"
            images, labels, train_items = _read_idx(name, path, download)
    if size is not None and images.shape[1:3] != (size, size):
        images = np.stack([_resize(image, size) for image in images])
    return ImageSource(
        name=name,
        images=images,
        labels=labels,
        train_items=train_items,
        sha256=_sha256(images, labels),
        path=path,
        **facts,
    )


def load_sine(
    count: int,
    points: int,
    amplitude: tuple[float, float] | None,
    frequency: tuple[float, float],
    seed: int,
) -> SineSource:
    """`count` waves a*sin(b*x), a and b uniform, each wave's drawn from (seed, its index).

    A wave does not depend on `count`, and its frequency not on whether a is drawn.

    Args:
        points: number of x, evenly spaced on [-pi, pi], ends included.
        amplitude: range (low, high) of a; None, like (1, 1), for a = 1.
        frequency: range (low, high) of b, radians per unit of x.

    Raises:
        ValueError: if count < 1, points < 2, or a range is not (low, high) with low <= high.
    """
    if count < 1 or points < 2:
        raise ValueError(f"need count >= 1 and points >= 2, got count {count}, points {points}")
    ranges = np.array([amplitude or (1.0, 1.0), frequency], np.float64)
    for label, (low, high) in zip(("amplitude", "frequency"), ranges, strict=True):
        if not (np.isfinite([low, high]).all() and low <= high):
            raise ValueError(f"{label} must be (low, high) with low <= high, got ({low}, {high})")

    items = np.arange(count, dtype=np.int64)
    u = philox.uniforms(seed, 0, items, np.zeros_like(items), philox.HYPER, 2)
    coefs = ranges[:, 0] + u * (ranges[:, 1] - ranges[:, 0])
    inputs = np.linspace(-np.pi, np.pi, points).astype(np.float32)[:, None]
    return SineSource(
        name="sine", coefs=coefs, inputs=inputs, sha256=_sha256(coefs, inputs), **_FACTS["sine"]
    )


def split_rule(split: str, source: str) -> str:
    """The rule of `split_items` that a recipe's `split` stands for on a source.

    NFN's released loader takes all that is left of Fashion-MNIST as test: 20,000 items.

    >>> split_rule("nfn", "mnist"), split_rule("nfn", "fashion-mnist")
    ('nfn', 'nfn-all-rest')
    """
    return "nfn-all-rest" if split == "nfn" and source == "fashion-mnist" else split


def split_items(source_train: int, total: int, rule: str) -> dict[str, range]:
    """Which items are train, validation and test: disjoint ranges in this order.

    - "dws": test is the source's own test items; validation the last min(5,000, a tenth) of
      the training items, train the rest. A source without test items gives the last tenth
      of all, and what is before it counts as its training items.
    - "nfn": train the first 45,000, validation the next 5,000, test as for dws; further
      training items are unused. With fewer than 50,000 training items, validation is their
      last tenth and train the rest.
    - "nfn-all-rest": as "nfn", but test is all after validation (Fashion-MNIST as
      published: 20,000).
    - "80-10-10": tenths of all items, whatever the source calls them.

    Below ten items (twenty, if the source has no test items) validation or test can be
    empty; train never is.

    Args:
        source_train: number of the source's own training items, `train_items`.
        total: number of all items.

    Raises:
        ValueError: if the rule is unknown or the numbers are not 1 <= source_train <= total.

    Source: `dws` Navon et al. 2023, `nfn` Zhou et al. 2023.
    """
    if rule not in SPLIT_RULES:
        raise ValueError(_unknown("split rule", rule, SPLIT_RULES))
    if not 1 <= source_train <= total:
        raise ValueError(f"expected 1 <= source_train <= total, got {source_train} and {total}")

    if rule == "80-10-10":
        train, validation = max(1, total * 8 // 10), max(1, total * 9 // 10)
        return {
            "train": range(train),
            "validation": range(train, validation),
            "test": range(validation, total),
        }
    test = source_train if source_train < total else total - total // 10
    if rule == "dws":
        validation, train = test, test - min(5_000, test // 10)
    elif test >= 50_000:
        validation, train = 50_000, 45_000
    else:
        validation, train = test, test - test // 10
    if rule == "nfn-all-rest":
        test = validation
    return {
        "train": range(train),
        "validation": range(train, validation),
        "test": range(test, total),
    }


def _unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """One line: the unknown name, the known ones, the one probably meant."""
    message = f"unknown {kind} {name!r}; known: {', '.join(known)}"
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"{message} (did you mean {near[0]}?)" if near else message


def _sha256(*arrays: Shaped[np.ndarray, "..."]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        # The shape goes in too: the same bytes can be another picture.
        digest.update(f"{little.dtype.str}{little.shape}\n".encode())
        digest.update(little.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


# ---- files of the published sets


def _read_digits() -> tuple[UInt8[np.ndarray, "item 8 8 1"], Int64[np.ndarray, " item"], int]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * 255.0 / 16.0).astype(np.uint8)[..., None]
    return images, digits.target.astype(np.int64), len(images)


def _read_idx(
    name: str, folder: Path, download: bool
) -> tuple[UInt8[np.ndarray, "item row column 1"], Int64[np.ndarray, " item"], int]:
    """The four idx files, checked.

    Read here and not by torchvision, which wants them unpacked and compares nothing once
    they are: so the bytes decoded are the bytes verified.
    """
    checksums = IDX_MD5[name]
    missing = [
        file
        for file in checksums
        if not any(os.path.exists(folder / form) for form in (file, f"{file}.gz"))
    ]
    if missing:
        _fetch(name, folder, missing, folder.parent.parent, download, "plain or as .gz")

    parts = []
    for file, md5 in checksums.items():
        path = folder / file
        if not os.path.exists(path):
            path = folder / f"{file}.gz"
        try:
            content = path.read_bytes()
            if path.suffix == ".gz":
                content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            _damaged(name, path, f"cannot be read ({_one_line(error)})")
        _check_md5(name, path, hashlib.md5(content, usedforsecurity=False).hexdigest(), md5)
        parts.append(_parse_idx(name, path, content))

    for images, labels, which in (
        (parts[0], parts[1], "train"),
        (parts[2], parts[3], "t10k"),
    ):
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise ZooError(
                f"{name}: the {which} files in {folder} contradict each other: images of shape "
                f"{images.shape}, labels of shape {labels.shape}; copy both from the same place"
            )
    images = np.concatenate([parts[0], parts[2]])[..., None]
    return images, np.concatenate([parts[1], parts[3]]).astype(np.int64), len(parts[0])


def _parse_idx(name: str, path: Path, content: bytes) -> UInt8[np.ndarray, "..."]:
    # Source: LeCun's page of MNIST, "file formats": two zero bytes, the type (8 is unsigned
    # byte), the number of axes, their lengths as big-endian words, then the values.
    axes = content[3] if len(content) > 3 and content[:3] == b"\0\0\x08" else 0
    start = 4 + 4 * axes
    if axes and len(content) >= start:
        shape = tuple(int(length) for length in np.frombuffer(content, ">u4", axes, 4))
        values = np.frombuffer(content, np.uint8, offset=start)
        if values.size == int(np.prod(shape)):
            return values.reshape(shape)
    _damaged(name, path, "is not an idx file of unsigned bytes, or not all of one")


def _read_cifar10(
    folder: Path, download: bool
) -> tuple[
    UInt8[np.ndarray, "item row column 3"], Int64[np.ndarray, " item"], int, tuple[str, ...]
]:
    from torchvision.datasets import CIFAR10

    checksums = {str(file): str(md5) for file, md5 in (*CIFAR10.train_list, *CIFAR10.test_list)}
    checksums[CIFAR10.meta["filename"]] = CIFAR10.meta["md5"]
    missing = [file for file in checksums if not os.path.exists(folder / file)]
    if missing:
        hint = "or open a folder of pictures as imagefolder:PATH"
        _fetch("cifar10", folder, missing, folder.parent, download, hint)

    # torchvision compares the same MD5s, but its message does not name the file.
    for file, md5 in checksums.items():
        path = folder / file
        try:
            with path.open("rb") as stream:
                found = hashlib.file_digest(
                    stream, lambda: hashlib.md5(usedforsecurity=False)
                ).hexdigest()
        except OSError as error:
            _damaged("cifar10", path, f"cannot be read ({_one_line(error)})")
        _check_md5("cifar10", path, found, md5)

    with _quiet():
        train = CIFAR10(str(folder.parent), train=True)
        test = CIFAR10(str(folder.parent), train=False)
    images = np.ascontiguousarray(np.concatenate([train.data, test.data]))
    labels = np.array(train.targets + test.targets, np.int64)
    return images, labels, len(train.data), tuple(train.classes)


def _fetch(
    name: str, folder: Path, missing: Sequence[str], root: Path, download: bool, hint: str
) -> None:
    """Downloads the set through torchvision and moves the missing files to `folder`."""
    problem = "and downloading is off"
    cause: Exception | None = None
    if download:
        try:
            _download(_dataset_class(name), folder, missing, root)
            return
        # torchvision raises RuntimeError if all mirrors fail or an MD5 differs; the rest
        # are a network, a disk and an archive in trouble.
        except (
            *(OSError, RuntimeError, HTTPException, EOFError),
            *(zlib.error, tarfile.TarError, pickle.UnpicklingError),
        ) as error:
            problem, cause = f"and the download failed ({_one_line(error)})", error
    raise ZooError(
        f"{name}: {_names(missing, shown=7)} not found in {folder}, {problem}; put the files "
        f"there, {hint}, or name the folder that has {folder.relative_to(root)} with --data-root "
        "or WSZOO_DATA"
    ) from cause


def _dataset_class(name: str) -> Callable[..., Any]:
    from torchvision import datasets

    return {
        "mnist": datasets.MNIST,
        "fashion-mnist": datasets.FashionMNIST,
        "cifar10": datasets.CIFAR10,
    }[name]


def _download(
    dataset: Callable[..., Any], folder: Path, missing: Sequence[str], root: Path
) -> None:
    root.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that the move is a rename: files appear whole or not at all.
    with TemporaryDirectory(prefix=".wszoo-download-", dir=root) as temporary:
        with _quiet():
            dataset(temporary, train=True, download=True)
        folder.mkdir(parents=True, exist_ok=True)
        for file in missing:
            os.replace(Path(temporary) / folder.relative_to(root) / file, folder / file)


@contextmanager
def _quiet() -> Iterator[None]:
    """Torchvision with its chatter on stderr, a time limit, and old pickles let pass."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_CONNECTION_SECONDS)
    try:
        with redirect_stdout(sys.stderr), warnings.catch_warnings():
            # Pickles of old numpy, as CIFAR-10's, hold integers for a dtype's `align`, which
            # numpy 2.4 deprecates; 2.4.6 lets this form pass, other versions need not.
            warnings.filterwarnings("ignore", message=r".*align should be passed")
            yield
    finally:
        socket.setdefaulttimeout(before)


def _check_md5(name: str, path: Path, found: str, expected: str) -> None:
    if found != expected:
        content = "content " if path.suffix == ".gz" else ""
        _damaged(name, path, f"is truncated or altered ({content}md5 {found}, not {expected})")


def _damaged(name: str, path: Path, what: str) -> NoReturn:
    raise ZooError(f"{name}: {path} {what}; delete it to have it downloaded again, or replace it")


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]} ..."


def _names(items: Sequence[str], shown: int = 3) -> str:
    more = f" and {len(items) - shown} more" if len(items) > shown else ""
    return ", ".join(items[:shown]) + more


# ---- folders of pictures


def _open_folder(name: str, size: int | None) -> ImageSource:
    given = name.removeprefix("imagefolder:")
    if not given:
        raise ValueError("imagefolder: needs a path, as in imagefolder:my/pictures")
    root = Path(given).expanduser()
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise ZooError(f"imagefolder: {root} {what}; expected a folder with one folder per class")

    if (root / "train").is_dir():
        class_names, paths, labels = _list_pictures(root / "train")
        train_items = len(paths)
        if (root / "test").is_dir():
            test_names, test_paths, test_labels = _list_pictures(root / "test")
            if test_names != class_names:
                differ = sorted(set(class_names) ^ set(test_names))
                raise ZooError(
                    f"imagefolder: {root}/train and {root}/test must have the same class "
                    f"folders, but only one of them has {_names(differ)}"
                )
            paths += test_paths
            labels = np.concatenate([labels, test_labels])
    else:
        class_names, paths, labels = _list_pictures(root)
        train_items = len(paths)

    images = _read_pictures(paths, size)
    return ImageSource(
        name=name,
        title=f"Image folder {root.resolve().name}",
        license="unknown",
        url="",
        citation="",
        images=images,
        labels=labels,
        class_names=class_names,
        train_items=train_items,
        sha256=_sha256(images, labels),
        path=root,
        files=tuple(path.relative_to(root).as_posix() for path in paths),
    )


def _list_pictures(
    folder: Path,
) -> tuple[tuple[str, ...], list[Path], Int64[np.ndarray, " item"]]:
    """Class names, picture files and class numbers, classes interleaved in proportion."""
    from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

    # Left to itself, torchvision takes .ipynb_checkpoints for a class and the ._ files that
    # macOS leaves behind for pictures.
    try:
        class_names = sorted(
            entry.name
            for entry in os.scandir(folder)
            if entry.is_dir() and not entry.name.startswith(".")
        )
    except OSError as error:
        raise ZooError(f"imagefolder: {folder} cannot be read: {error.strerror}") from error
    if not class_names:
        raise ZooError(
            f"imagefolder: {folder} has no class folders; expected {folder}/<class>/<picture>, "
            "a single folder if there are no classes"
        )
    numbers = {class_name: number for number, class_name in enumerate(class_names)}
    found = make_dataset(
        str(folder),
        numbers,
        is_valid_file=lambda file: (
            file.lower().endswith(IMG_EXTENSIONS) and not os.path.basename(file).startswith(".")
        ),
        allow_empty=True,
    )
    labels = np.array([number for _, number in found], np.int64)
    sizes = np.bincount(labels, minlength=len(class_names))
    empty = [class_name for class_name, items in zip(class_names, sizes, strict=True) if not items]
    if empty:
        raise ZooError(
            f"imagefolder: no pictures in {folder} for {_names(empty)}; expected files "
            f"{' '.join(IMG_EXTENSIONS)} in every class folder, so fill or remove the empty ones"
        )
    # `found` is sorted by class, so an item's rank is its distance from its class's first.
    rank = np.arange(len(labels)) - (np.cumsum(sizes) - sizes)[labels]
    order = np.lexsort((labels, (rank + 0.5) / sizes[labels]))
    return tuple(class_names), [Path(found[item][0]) for item in order], labels[order]


def _read_pictures(
    paths: Sequence[Path], size: int | None
) -> UInt8[np.ndarray, "item row column chan"]:
    """All pictures in one array, which is all that is held beside a few single pictures."""
    import cv2

    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = min(8, threads or 1)
    first: Path | None = None
    shape = (0, 0)
    images = np.empty((0, 0, 0, 1), np.uint8)
    broken: list[str] = []
    # OpenCV logs every failure with its source line; ours says which file it was.
    log_level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        with ThreadPoolExecutor(threads) as pool:
            # Few at a time: map() over all of them would decode far ahead of the copying.
            for start in range(0, len(paths), 4 * threads):
                block = paths[start : start + 4 * threads]
                decoded = pool.map(lambda path: _decode(path, size), block)
                for item, (path, picture) in enumerate(zip(block, decoded, strict=True), start):
                    if isinstance(picture, str):
                        broken.append(f"{path} ({picture})")
                        continue
                    if first is None:
                        first, shape = path, picture.shape[:2]
                        images = np.empty((len(paths), *shape, 1), np.uint8)
                    if picture.shape[:2] != shape:
                        raise ValueError(
                            f"imagefolder: pictures differ in size: {first} has {shape[0]} rows "
                            f"and {shape[1]} columns, {path} {picture.shape[0]} and "
                            f"{picture.shape[1]}; pass --size N to crop and resize them to N x N"
                        )
                    if picture.shape[2] > images.shape[3]:
                        images = _grey_to_colour(images, item)
                    images[item] = picture
    finally:
        cv2.utils.logging.setLogLevel(log_level)
    if broken:
        raise ZooError(
            f"imagefolder: {len(broken)} of {len(paths)} pictures cannot be used: "
            f"{_names(broken)}; repair or remove them"
        )
    return images


def _grey_to_colour(
    images: UInt8[np.ndarray, "item row column 1"], filled: int
) -> UInt8[np.ndarray, "item row column 3"]:
    """The same memory grown to three channels, the first `filled` items repeated in them."""
    item, row, column, _ = images.shape
    pixels = row * column
    # In place, since a second array would double the memory of a large set. The check is
    # off because it counts the caller's name for it, which the caller then rebinds.
    images.resize(item * pixels * 3, refcheck=False)
    # From the back, so that no item is overwritten before it has moved.
    for at in reversed(range(filled)):
        grey = images[at * pixels : (at + 1) * pixels]
        images[at * pixels * 3 : (at + 1) * pixels * 3] = np.repeat(grey, 3)
    return images.reshape(item, row, column, 3)


def _decode(path: Path, size: int | None) -> UInt8[np.ndarray, "row column chan"] | str:
    """One picture, or in a few words why not."""
    import cv2

    try:
        # Not cv2.imread: it takes a JPEG that breaks off halfway, grey below, for whole.
        content = np.frombuffer(path.read_bytes(), np.uint8)
        # These flags drop alpha and apply an EXIF orientation; IMREAD_UNCHANGED does neither.
        picture = cv2.imdecode(content, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except cv2.error:
        return "damaged, or not a picture"
    if picture is None:
        return "damaged, or not a picture"
    if picture.dtype == np.uint16:
        # 65535 = 255 * 257, an odd number: no ties to round.
        picture = ((picture.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if picture.dtype != np.uint8:
        return f"{picture.dtype} pixels, expected 8 or 16 bits without sign"
    if picture.ndim == 3:
        picture = picture[..., ::-1]  # OpenCV's order is BGR
        if (picture == picture[..., :1]).all():
            picture = picture[..., 0]
    if picture.ndim == 2:
        picture = picture[..., None]
    return picture if size is None else _resize(picture, size)


def _resize(
    image: UInt8[np.ndarray, "row column chan"], size: int
) -> UInt8[np.ndarray, "{size} {size} chan"]:
    """The largest centred square, resized."""
    import cv2

    row, column, chan = image.shape
    side = min(row, column)
    top, left = (row - side) // 2, (column - side) // 2
    square = np.ascontiguousarray(image[top : top + side, left : left + side])
    if side != size:
        how = cv2.INTER_AREA if size < side else cv2.INTER_LINEAR
        square = cv2.resize(square, (size, size), interpolation=how)
    return square.reshape(size, size, chan)
