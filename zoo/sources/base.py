"""What every source is: items in a fixed order, and how they are named, hashed and found.

An item's position in its source is fixed: the source's own training items come first, then
its test items. So `index` in a zoo means the same item on every machine, and the sha256 of
a source says whether two machines hold the same values.
"""

import hashlib
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64, Shaped, UInt8
from numpy.typing import NDArray

from zoo.errors import unknown
from zoo.sources.splits import split_items


@runtime_checkable
class Source(Protocol):
    """What the rest of wszoo asks of a source.

    Attributes:
        name: as given by the user, an address included.
        title: for people.
        license: identifier as the Hub names licences; "unknown" if none is stated.
        url, citation: one line each; empty if there is none.
        class_names: empty if items have no classes.
        sha256: over all values, hence independent of how files were packed.
    """

    @property
    def name(self) -> str: ...
    @property
    def label(self) -> str:
        """The name without the address."""

    @property
    def address(self) -> str | None:
        """The name by which it is opened from anywhere; None if it has no address."""

    @property
    def title(self) -> str: ...
    @property
    def license(self) -> str: ...
    @property
    def url(self) -> str: ...
    @property
    def citation(self) -> str: ...
    @property
    def class_names(self) -> tuple[str, ...]: ...
    @property
    def labels(self) -> Int64[np.ndarray, " item"] | None:
        """Class numbers, positions in `class_names`; None if items have no classes."""

    @property
    def sha256(self) -> str: ...
    @property
    def train_items(self) -> int:
        """How many items at the front are the source's own training items."""

    @property
    def validation_items(self) -> int:
        """How many after them are its own validation items."""

    @property
    def files(self) -> tuple[str, ...]:
        """Each item's file, relative to the folder it was read from; empty without files."""

    def __len__(self) -> int:
        """Number of items."""

    def items(self, chosen: Int64[np.ndarray, " item"]) -> Shaped[np.ndarray, "item ..."]:
        """The chosen items as they are kept: bytes of pictures, coefficients of waves."""

    def columns(self, chosen: Int64[np.ndarray, " item"]) -> dict[str, NDArray[Any]]:
        """The columns of rows that come from the source alone, of the chosen items."""


class Drawn(ABC):
    """What a source that a seed draws has: no address, no files, no parts of its own."""

    name: str

    @property
    def label(self) -> str:
        """The name: it has no address."""
        return self.name

    @property
    def address(self) -> None:
        """None: it is drawn."""
        return None

    @property
    def train_items(self) -> int:
        """All of them."""
        return len(self)

    @property
    def validation_items(self) -> int:
        """None of them."""
        return 0

    @property
    def files(self) -> tuple[str, ...]:
        """None."""
        return ()

    @abstractmethod
    def __len__(self) -> int:
        """Number of items."""


FITS = ("crop", "pad", "stretch")


@dataclass(frozen=True)
class Frame:
    """The size that pictures are brought to, and how.

    Attributes:
        columns, rows: in pixels.
        fit: "crop" takes the largest centred part of this shape, "pad" the whole picture
            with black on two sides, "stretch" the whole picture distorted.
    """

    columns: int
    rows: int
    fit: str = "crop"

    @classmethod
    def of(cls, size: "int | str | None", fit: str = "crop") -> "Frame | None":
        """The frame of a size such as 28 or "64x48" (columns x rows); None for None.

        >>> Frame.of("64x48"), Frame.of(28)
        (Frame(columns=64, rows=48, fit='crop'), Frame(columns=28, rows=28, fit='crop'))

        Raises:
            ValueError: if it is neither, or `fit` is unknown.
        """
        if fit not in FITS:
            raise ValueError(unknown("fit", fit, FITS))
        if size is None:
            return None
        found = re.fullmatch(r"(\d+)(?:x(\d+))?", str(size).lower())
        columns, rows = (int(side or found[1]) for side in found.groups()) if found else (0, 0)
        if min(columns, rows) < 1 or isinstance(size, bool):
            raise ValueError(
                f"size must be a whole number of pixels, at least 1, or two as WxH, got {size}"
            )
        return cls(columns, rows, fit)


@dataclass(frozen=True)
class Request:
    """What a source of pictures is asked for.

    Attributes:
        name: as given, the address included.
        address: what follows the colon in a name such as imagefolder:PATH.
        data_root: where published sets lie.
        frame: the size wanted; None leaves pictures as they are.
        download: whether missing files may be downloaded.
        older: take only what 324dc88 took, so that zoos of then find their pictures.
    """

    name: str
    address: str
    data_root: Path
    frame: Frame | None
    download: bool
    older: bool = False


@dataclass(frozen=True, eq=False)
class ImageSource:
    """A whole set of labelled images in memory, in its fixed order.

    Attributes:
        name: as given to `load_images`.
        license: identifier as the Hub names licences; "unknown" if none is stated.
        url, citation: one line each; empty for an image folder.
        images: 0..255, one channel (grey) or three (RGB).
        labels: class numbers, positions in `class_names`.
        train_items: this many items at the front are the source's own training images.
        sha256: over shape, pixels and labels as they stand here, hence independent of how
            files were packed. Pictures in a lossy format depend on the decoder too.
        path: the folder it was read from; None for digits.
        files: of an image folder each item's file, relative to `path`; else empty.
        validation_items: this many after the training images are the source's own validation
            images; the rest are its own test images.
        passed_over: files that lie there and were not taken, by reason.
        read: what was read as something else than it is, a sentence each.
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
    validation_items: int = 0
    passed_over: Mapping[str, int] = field(default_factory=dict)
    read: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The name without the address, which is another on every machine.

        `imagefolder:pets` for a folder of pictures called pets, wherever it lies.
        """
        kind, colon, _ = self.name.partition(":")
        return f"{kind}:{self.path.resolve().name}" if colon and self.path else self.name

    @property
    def address(self) -> str | None:
        """The name by which it is opened from anywhere; None if it has no address."""
        kind, colon, _ = self.name.partition(":")
        return f"{kind}:{self.path.resolve()}" if colon and self.path else None

    def remarks(self) -> dict[str, Any]:
        """What the index says of a source only where there is something to say."""
        plain = {
            "validation_items": self.validation_items,
            "passed_over": dict(self.passed_over),
            "read": list(self.read),
        }
        return {key: value for key, value in plain.items() if value}

    def cut(self, rule: str = "dws") -> dict[str, range]:
        """Which items are train, validation and test by a rule of `split_items`."""
        return split_items(self.train_items, len(self), rule, self.validation_items)

    @property
    def trained_on(self) -> range:
        """The items that classifiers are trained on.

        They stop after a number of epochs: items set aside to choose by, which the rules cut
        off the training items, are trained on; the source's own validation items are not.
        """
        parts = self.cut()
        return parts["train"] if self.validation_items else range(parts["test"].start)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(row, column, chan) of every image."""
        _, row, column, chan = self.images.shape
        return row, column, chan

    def __len__(self) -> int:
        """Number of items."""
        return len(self.images)

    def items(
        self, chosen: Int64[np.ndarray, " item"]
    ) -> UInt8[np.ndarray, "item row column chan"]:
        """The chosen pictures."""
        return self.images[chosen]

    def columns(self, chosen: Int64[np.ndarray, " item"]) -> dict[str, NDArray[Any]]:
        """The class of each of the chosen pictures, if they have classes."""
        return {"label": self.labels[chosen]} if self.class_names else {}


def sha256_of(*arrays: Shaped[np.ndarray, "..."]) -> str:
    """Of shapes, types and values, little-endian."""
    digest = hashlib.sha256()
    for array in arrays:
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        # The shape goes in too: the same bytes can be another picture.
        digest.update(f"{little.dtype.str}{little.shape}\n".encode())
        digest.update(little.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def data_folder(data_root: str | Path | None) -> Path:
    """Where published sets lie: what is given, else $WSZOO_DATA, else ~/.cache/wszoo."""
    root = data_root or os.environ.get("WSZOO_DATA") or "~/.cache/wszoo"
    return Path(root).expanduser()


def one_line(error: BaseException) -> str:
    """What an error says, short enough for a line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]} ..."


def listed(items: Sequence[str], shown: int = 3) -> str:
    """The first few, and how many more there are."""
    more = f" and {len(items) - shown} more" if len(items) > shown else ""
    return ", ".join(items[:shown]) + more
