"""The pictures and waves that networks are fitted to, opened whole and checked.

One file a source; `SOURCES` is the only list of them, so a new one is a file here and an
entry. `load_images` opens MNIST, Fashion-MNIST, CIFAR-10, scikit-learn's digits or a
folder of pictures; `load_sine` draws sine waves. `split_items` cuts the fixed order of a
source into train, validation and test.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from zoo.sources.base import ImageSource, Request, Source, sha256_of, unknown
from zoo.sources.digits import open_digits
from zoo.sources.folders import open_folder
from zoo.sources.published import open_cifar10, open_mnist
from zoo.sources.splits import SPLIT_RULES, split_items, split_rule
from zoo.sources.waves import SineSource, load_sine

__all__ = [
    "SOURCES",
    "SPLIT_RULES",
    "Entry",
    "ImageSource",
    "Request",
    "SineSource",
    "Source",
    "load_images",
    "load_sine",
    "sha256_of",
    "split_items",
    "split_rule",
]


@dataclass(frozen=True)
class Entry:
    """A source in the list.

    Attributes:
        about: one line for people.
        open: opens a set of pictures; None if it holds something else.
    """

    about: str
    open: Callable[[Request], ImageSource] | None = None


SOURCES = {
    "mnist": Entry("70,000 handwritten digits, 28x28 grey", open_mnist),
    "fashion-mnist": Entry("70,000 articles of clothing, 28x28 grey", open_mnist),
    "cifar10": Entry("60,000 photographs of ten classes, 32x32 RGB", open_cifar10),
    "digits": Entry(
        "1,797 handwritten digits, 8x8 grey; part of scikit-learn, no download", open_digits
    ),
    "imagefolder:PATH": Entry(
        "pictures in PATH/<class>/, or PATH/train/<class>/ and PATH/test/<class>/", open_folder
    ),
    "sine": Entry("waves a*sin(b*x) on [-pi, pi], drawn from a seed"),
}


def load_images(
    name: str, data_root: Path | None = None, size: int | None = None, download: bool = True
) -> ImageSource:
    """A set of images, verified, its own training images first.

    The functions that open each source say where its files lie and what is checked.

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
    kind, colon, address = name.partition(":")
    entry = SOURCES.get(f"{kind}:PATH" if colon else kind)
    if entry is None:
        raise ValueError(unknown("source", name, SOURCES))
    if entry.open is None:
        raise ValueError(f"source {name!r} has waves, not images; open it with load_sine")
    if data_root is None:
        data_root = Path(os.environ.get("WSZOO_DATA") or "~/.cache/wszoo")
    return entry.open(Request(name, address, Path(data_root).expanduser(), size, download))
