"""MNIST, Fashion-MNIST and CIFAR-10: downloaded where missing, and checked.

What is missing is downloaded through torchvision, into a temporary folder first: a
download that breaks off leaves nothing that looks like data. Files that are present are
only read, never written, and must have the published content.
"""

import gzip
import hashlib
import os
import pickle
import socket
import sys
import tarfile
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import numpy as np
from jaxtyping import Int64, UInt8

from zoo.errors import ZooError
from zoo.sources.base import ImageSource, Request, listed, one_line
from zoo.sources.pictures import image_source

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
FACTS: dict[str, dict[str, Any]] = {
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
}

# A mirror that swallows packets would otherwise hold the download for minutes: torchvision
# opens its connections without a time limit.
_CONNECTION_SECONDS = 30.0


def open_mnist(request: Request) -> ImageSource:
    """`data_root`/MNIST/raw or `data_root`/FashionMNIST/raw, four idx files, plain or .gz.

    Every file must have the published MD5, which implies the published 60,000 and 10,000
    items.
    """
    folder = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}[request.name]
    path = request.data_root / folder / "raw"
    images, labels, train_items = _read_idx(request.name, path, request.download)
    return image_source(request, images, labels, train_items, path=path, **FACTS[request.name])


def open_cifar10(request: Request) -> ImageSource:
    """`data_root`/cifar-10-batches-py.

    These files are pickles; they are opened only after every MD5 has been found right.
    """
    path = request.data_root / "cifar-10-batches-py"
    images, labels, train_items, names = _read_cifar10(path, request.download)
    facts = {**FACTS["cifar10"], "class_names": names}
    return image_source(request, images, labels, train_items, path=path, **facts)


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
            _damaged(name, path, f"cannot be read ({one_line(error)})")
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
            _damaged("cifar10", path, f"cannot be read ({one_line(error)})")
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
            problem, cause = f"and the download failed ({one_line(error)})", error
    raise ZooError(
        f"{name}: {listed(missing, shown=7)} not found in {folder}, {problem}; put the files "
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
