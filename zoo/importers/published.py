"""What an importer yields, and what is known of the data sets behind published networks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import ZooError
from zoo.making.plan import largest_remainder
from zoo.passed import Passed
from zoo.schema import safe
from zoo.shards import SPLITS, Column
from zoo.spec import NetworkSpec

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Options:
    """What the user says beside the path; an importer takes some of it.

    Attributes:
        labels: file of labels, of state-dicts.
        splits: file of splits, as the authors of a format lay it out.
        activation: of the hidden layers, where the files leave it open.
        spec: file with a `NetworkSpec` as JSON, of state-dicts.
        omega: factor on the pre-activations of sine layers, of state-dicts.
        match: pattern of the names of files that are networks, of state-dicts.
        key: where in a file its state dict lies, of state-dicts.
        order: names of the modules in the order in which they compute, of state-dicts.
        norm: "before" or "after": where batch norms stand beside the activation.
        norm_eps: what they add to the variance; torch's default if None.
        group: "folder" or "none": which files belong together, of state-dicts.
        column: what columns of the labels are, "NAME=KIND", of state-dicts.
    """

    labels: Path | None = None
    splits: Path | None = None
    activation: str | None = None
    spec: Path | None = None
    omega: float | None = None
    match: str | None = None
    key: str | None = None
    order: tuple[str, ...] | None = None
    norm: str | None = None
    norm_eps: float | None = None
    group: str | None = None
    column: tuple[str, ...] | None = None

    def words(self) -> list[str]:
        """What is said, as on the command line."""
        words: list[str] = []
        for option in fields(self):
            value = getattr(self, option.name)
            if option.name == "order" and value:
                value = ",".join(value)
            for one in value if isinstance(value, tuple) else [value]:
                if one is not None:
                    words += [flag(option.name), one.name if isinstance(one, Path) else str(one)]
        return words


def flag(name: str) -> str:
    """The option of the command line that a field of `Options` is.

    >>> flag("norm_eps")
    '--norm-eps'
    """
    return f"--{name.replace('_', '-')}"


class Told:
    """What an import says at its end: what was read as what, each thing once.

    >>> told = Told()
    >>> for _ in range(3):
    ...     told.add("float64, rounded to float32")
    >>> told.lines(4)
    ['float64, rounded to float32 (3 of 4 networks)']
    """

    MOST = 40  # lines; files that differ from one another would otherwise fill an index

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._always: list[str] = []

    def say(self, line: str) -> None:
        """Something that holds for the whole import."""
        if line not in self._always:
            self._always.append(line)

    def add(self, line: str) -> None:
        """Something that holds for one network."""
        if line in self._counts or len(self._counts) < self.MOST:
            self._counts[line] = self._counts.get(line, 0) + 1
        else:
            self._counts["more of this kind"] = self._counts.get("more of this kind", 0) + 1

    def lines(self, networks: int) -> list[str]:
        """Every line, with the number of networks it holds for unless it is all of them."""
        return self._always + [
            line if count >= networks else f"{line} ({count:,} of {networks:,} networks)"
            for line, count in self._counts.items()
        ]


@dataclass(frozen=True)
class Published:
    """Networks as an importer found them: the contract of every format.

    Attributes:
        spec: architecture and conventions.
        columns: those between keys and tensors, but not the quality of `targets`.
        rows: networks of each split, in the order train, validation, test.
        read: (split, start, stop) -> every column of these rows, `index`, `view` and the
            tensors of `spec` included. Called in order; nothing is kept between calls.
        source: what the networks were made from, as the index says it.
        pictures: the source of `zoo.sources` that holds the pictures, if one does.
        pixel_ranges: outputs that stand for black and white, one pair a channel, where
            these differ and the spec holds their mean; else None.
        targets: what each network was fitted to at `points` inputs, `net point out`, from
            its columns; None if the files do not say.
        points: number of equally spaced inputs of `targets`.
        facts: further entries of the index's recipe.
        told: what was read as what; reading adds to it.
        passed: files that were passed over.
    """

    spec: NetworkSpec
    columns: dict[str, Column]
    rows: dict[str, int]
    read: Callable[[str, int, int], Arrays]
    source: dict[str, Any]
    pictures: str | None = None
    pixel_ranges: NDArray[np.float64] | None = None
    targets: Callable[[Mapping[str, NDArray[Any]]], NDArray[np.float32]] | None = None
    points: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    told: Told = field(default_factory=Told)
    passed: Passed = field(default_factory=Passed)


@dataclass(frozen=True, order=True)
class Ref:
    """A network in the source's files: its keys, class, and the name of its file."""

    index: int
    view: int
    name: str = field(compare=False)
    label: int = field(compare=False, default=-1)


def by_split(found: Mapping[str, Sequence[Ref]], where: object) -> dict[str, list[Ref]]:
    """Each split's networks by index and view, in the order of `SPLITS`.

    Raises:
        ZooError: if there are none, or one (index, view) is there twice.
    """
    ordered = {split: sorted(found[split]) for split in SPLITS if found.get(split)}
    if not ordered:
        raise ZooError(f"{where}: no network found; see `wszoo import --help` for the layouts")
    seen: dict[tuple[int, int], Ref] = {}
    for refs in ordered.values():
        for ref in refs:
            other = seen.setdefault((ref.index, ref.view), ref)
            if other is not ref:
                raise ZooError(
                    f"{where}: item {ref.index} (view {ref.view}) is there twice, as "
                    f"{safe(other.name, 100)} and {safe(ref.name, 100)}; a network has "
                    "one label and one split"
                )
    return ordered


def keys(refs: Sequence[Ref]) -> Arrays:
    """The key columns of networks."""
    return {
        "index": np.array([ref.index for ref in refs], np.int64),
        "view": np.array([ref.view for ref in refs], np.int64),
    }


def stacked(rows: Sequence[Mapping[str, NDArray[Any]]]) -> Arrays:
    """Networks one by one, as columns."""
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def limited(rows: Mapping[str, int], limit: int | None) -> dict[str, int]:
    """How many networks of each split are taken: its first ones, in proportion.

    Raises:
        ValueError: if `limit` is not positive.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    if limit is None or limit >= sum(rows.values()):
        return dict(rows)
    return largest_remainder(limit, rows)


_DIGITS = tuple("0123456789")
_FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
    "Ankle boot",
)  # fmt: skip
_CIFAR10 = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip

# Title, classes, shape, training items, items; in torchvision's order, train before test.
PICTURES: dict[str, tuple[str, tuple[str, ...], tuple[int, int, int], int, int]] = {
    "mnist": ("MNIST", _DIGITS, (28, 28, 1), 60_000, 70_000),
    "fashion-mnist": ("Fashion-MNIST", _FASHION, (28, 28, 1), 60_000, 70_000),
    "cifar10": ("CIFAR-10", _CIFAR10, (32, 32, 3), 50_000, 60_000),
}


def describe(name: str, title: str, citation: str, **more: Any) -> dict[str, Any]:
    """What the index says of a source; the authors of none of the formats state a licence."""
    return {
        "name": name, "title": title, "license": "unknown", "url": more.pop("url", ""),
        "citation": citation, "sha256": None, "class_names": [], **more,
    }  # fmt: skip


def describe_pictures(name: str, citation: str, url: str) -> dict[str, Any]:
    """The source of networks that are pictures of one of `PICTURES`."""
    title, classes, shape, train_items, items = PICTURES[name]
    return describe(
        name, title, citation, url=url, kind="image", size=None, shape=list(shape),
        train_items=train_items, items=items, class_names=list(classes),
    )  # fmt: skip
