"""Opens a zoo, checks it, and yields networks and columns by split.

Shards are mapped and never unpickled: opening reads headers only, a batch copies the
rows it asks for, and worker processes open the folder again instead of receiving it.

    networks = zoo.open_zoo("mnist-inrs", split="train")
    for weights, columns in DataLoader(networks, batch_size=64, collate_fn=zoo.collate):
        loss = task(model(weights), columns["label"])

A part of the rows is a view, `networks[:5]`, `networks[networks.table["psnr_db"] > 25]` or
`networks.select("psnr_db > 25")`: a zoo that knows its row numbers, and reads as lazily.
"""

import math
import operator
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, SupportsIndex, TypeAlias, overload

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from zoo import nets, table
from zoo.errors import ZooError
from zoo.recipes import RUN_KEY
from zoo.shards import Column, File, Index, check_file, read_index, read_stats, widen
from zoo.spec import NetworkSpec
from zoo.weights import Weights
from zoo.where import Condition

Batch: TypeAlias = tuple[Weights, dict[str, Tensor]]
Chosen: TypeAlias = slice | Sequence[Any] | NDArray[Any] | Tensor


def open_zoo(path: str | Path, split: str = "train", check_hashes: bool = False) -> "Zoo":
    """One split of the zoo in a folder.

    Args:
        path: the folder that holds `zoo.json`.
        split: "train", "validation" or "test".
        check_hashes: also read every file of the index, statistics included, and compare
            its sha256, at some 2 GB/s; sizes and headers of the split's shards are always
            checked, and the statistics whenever they are read. Only files that this split
            does not need may be missing, as after a pull of one split.

    Raises:
        ZooError: if the folder is no finished zoo, or a file is missing, damaged or
            contradicts the index.
        ValueError: for a split that the zoo does not have.
    """
    # Absolute, so that a worker started in another folder finds it.
    folder = Path(path).absolute()
    index = read_index(folder)
    if check_hashes:
        needed: list[File] = [*table.shards_of(index, split), *index.extras]
        names = {file.file for file in needed}
        for file in index.files:
            there = file.file in names or os.path.lexists(folder / file.file)
            if there and (wrong := check_file(folder, file, hashes=True)):
                raise ZooError(wrong)
    return Zoo(folder, split, index)


@dataclass(frozen=True, eq=False, repr=False)
class Row:
    """One network of a zoo; its columns are attributes too: `row.label`, `row.psnr_db`.

    Attributes:
        weights: of the one network, net = 1; memory of its own.
        columns: its class, keys and quality as Python numbers.
        spec: what the network is.
        source: what it was fitted to, as in the index; with `index` it finds the original.
        file: name of the picture's file in the folder it was read from; None if there is none.
        seed: of the zoo, from which sources that are in no file are drawn; None if it was imported.
    """

    weights: Weights
    columns: dict[str, int | float]
    spec: NetworkSpec
    source: dict[str, Any]
    file: str | None = None
    seed: int | None = None

    def __getattr__(self, name: str) -> int | float:
        # copy and pickle ask before the fields are there, hence not self.columns.
        columns: dict[str, int | float] = self.__dict__.get("columns", {})
        if name not in columns:
            raise AttributeError(f"a row has no {name!r}; its columns: {', '.join(columns)}")
        return columns[name]

    def __repr__(self) -> str:
        columns = [
            f"{name}={value:.6g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in self.columns.items()
        ]
        return f"Row({_architecture(self.spec)}, {', '.join(columns)})"

    def render(
        self, rows: int | None = None, columns: int | None = None
    ) -> Float[Tensor, "row column chan"] | Float[Tensor, "point chan"] | Float[Tensor, "x y z"]:
        """The signal that the network stands for, not clipped.

        A network of two coordinates gives a picture, black 0 and white 1, one of a single
        coordinate its values at equally spaced points, and one of a shape its `zoo.nets.field`.

        Args:
            rows: of the picture, or the number of points; the source's by default. Of a shape
                the points along each axis, 32 by default.
            columns: of the picture; the source's by default.

        Raises:
            ValueError: if the network does not take coordinates, or the source has no
                size.
        """
        if len(self.spec.axes) == 1:
            if columns is not None:
                raise ValueError("a network of one coordinate renders rows, it has no columns")
            points = self._size("points") if rows is None else rows
            inputs = torch.from_numpy(nets.line(self.spec, points))
            with torch.no_grad():
                return nets.forward(self.spec, self.weights, inputs)[0]
        if self.spec.signal is not None:
            if columns is not None:
                raise ValueError("a network of a shape renders rows along every axis, no columns")
            return nets.volume(self.spec, self.weights, rows or 32)[0]
        if self.spec.axes and (rows is None or columns is None):
            shape = self._size("shape")
            rows, columns = rows or shape[0], columns or shape[1]
        return nets.render(self.spec, self.weights, rows or 1, columns or 1)[0]

    def _size(self, key: str) -> Any:
        if key not in self.source:
            raise ValueError(f"the source has no {key!r}: say how many rows and columns")
        return self.source[key]

    def to_module(self) -> nets.Network:
        """The network as a plain torch module, to run, train or export."""
        return nets.to_module(self.spec, self.weights)


class Table(Mapping[str, NDArray[Any]]):
    """The columns of a zoo that are one number a row, by name; each is read when it is asked for.

    >>> networks.table["psnr_db"].mean()                        # doctest: +SKIP
    25.7
    """

    def __init__(self, zoo: "Zoo", names: Sequence[str]):
        self._zoo, self._names = zoo, tuple(names)
        self._read: dict[str, NDArray[Any]] = {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._names:
            raise KeyError(f"no column {name!r}; there are {', '.join(self._names)}")
        if name not in self._read:
            values = self._zoo.column(name)
            # It is kept, and so is nobody's to change.
            values.setflags(write=False)
            self._read[name] = values
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"Table of {len(self._zoo):,} rows: {', '.join(self._names)}"


class Zoo(Dataset[Row]):
    """The networks of one split, or some of them; `zoo.open_zoo` makes it.

    >>> networks = zoo.open_zoo("mnist-inrs")                   # doctest: +SKIP
    >>> networks[0].label, networks[0].render().shape           # doctest: +SKIP
    (5, torch.Size([28, 28, 1]))
    >>> weights, columns = networks.batch([3, 1, 2])            # doctest: +SKIP
    >>> sharp = networks[networks.table["psnr_db"] > 25]        # doctest: +SKIP
    >>> len(networks[:5]), len(sharp), len(sharp.select("label in (3, 8)"))  # doctest: +SKIP
    (5, 31020, 6120)

    A view, such as `networks[:5]`, shares the files and reads nothing until it is asked; index
    and statistics are those of the whole zoo. `zoo.select(view, None, folder)` writes it.

    Attributes:
        folder: where it lies, absolute.
        split: "train", "validation" or "test".
        index: everything about the zoo but its weights.
        spec: of every network; `index.spec`.
        columns: what each column of a row means, tensors included; `index.columns`.
    """

    def __init__(self, folder: Path, split: str, index: Index):
        self.folder, self.split, self.index = folder, split, index
        self.spec: NetworkSpec = index.spec
        self.columns: dict[str, Column] = index.columns
        self._source = index.source | ({"address": index.address} if index.address else {})
        shards = table.shards_of(index, split)
        self._shards = [table.map_shard(folder, index, shard) for shard in shards]
        # Row numbers at which shards begin, and after the last the number of rows.
        self._starts = np.cumsum([0, *(shard.rows for shard in shards)])
        # Of a view: which rows of the split it has, in its order.
        self._rows: NDArray[np.int64] | None = None
        shapes = table.row_shapes(index)
        self._numbers = [name for name, shape in shapes.items() if not shape]
        self._large = [
            name
            for name, shape in shapes.items()
            if math.prod(shape) * np.dtype(index.columns[name].stored).itemsize >= table.LARGE_BYTES
        ]

    def __len__(self) -> int:
        return int(self._starts[-1]) if self._rows is None else len(self._rows)

    def __repr__(self) -> str:
        numbers = ", ".join(
            f"{name} ({len(names)} classes)" if (names := self.columns[name].names) else name
            for name in self._numbers
        )
        of = "" if self._rows is None else f" of {int(self._starts[-1]):,}"
        return (
            f"Zoo({str(self.folder)!r}, split={self.split!r}): {len(self):,}{of} networks "
            f"{_architecture(self.spec)}; columns {numbers}"
        )

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: Chosen) -> "Zoo": ...

    def __getitem__(self, index: Any) -> "Row | Zoo":
        """One network by an integer; a view by a slice, a mask or row numbers.

        Raises:
            IndexError: for a row that is not there, or a mask of another length.
            TypeError: for anything else.
        """
        if isinstance(index, slice):
            return self._view(np.arange(len(self))[index])
        if np.ndim(index) > 0:
            return self._view(self._numbered(index))
        try:
            number = operator.index(index)
        except TypeError:
            raise TypeError(
                "a row is chosen by one integer, a view by a slice, a mask or row numbers; got "
                f"{index!r}"
            ) from None
        weights, columns = self.batch([number])
        plain = {name: values.item() for name, values in columns.items()}
        file = self._names.get(int(plain.get("index", -1)))
        return Row(weights, plain, self.spec, self._source, file, self.index.plan.get("seed"))

    def select(self, where: str) -> "Zoo":
        """A view of the rows that meet a condition, such as "psnr_db > 25 and label in (3, 8)".

        Args:
            where: columns, numbers, class names in quotes, comparisons, in, not in, and, or,
                not and brackets; it is parsed and never evaluated as code.

        Raises:
            ValueError: if it cannot be read, or names what is no column.
        """
        return self._view(np.flatnonzero(Condition(where, self.columns)(self.table)))

    @cached_property
    def table(self) -> Table:
        """The columns that are one number a row, as NumPy arrays by name."""
        return Table(self, self._numbers)

    def _view(self, rows: NDArray[np.int64]) -> "Zoo":
        view = Zoo.__new__(Zoo)
        view.__dict__.update(self.__dict__)
        # Of these rows alone.
        view.__dict__.pop("table", None)
        view._rows = rows if self._rows is None else self._rows[rows]
        return view

    def _numbered(self, chosen: Sequence[Any] | NDArray[Any] | Tensor) -> NDArray[np.int64]:
        """Row numbers from 0, of a mask or of such as may count from the end.

        Raises:
            IndexError: for a row that is not there, or a mask of another length.
            TypeError: for anything but one axis of integers or truth values.
        """
        rows = np.asarray(chosen.cpu() if isinstance(chosen, Tensor) else chosen)
        if rows.dtype == bool and rows.ndim == 1:
            if len(rows) != len(self):
                raise IndexError(f"a mask of {len(rows)} values for {len(self)} rows")
            return np.flatnonzero(rows)
        if rows.size == 0:
            rows = np.zeros(0, np.int64)
        if rows.ndim != 1 or rows.dtype.kind not in "iu":
            raise TypeError(f"expected a list of row numbers, got {rows.dtype} {rows.shape}")
        rows = rows.astype(np.int64)
        outside = rows[(rows < -len(self)) | (rows >= len(self))]
        if outside.size:
            raise IndexError(f"row {outside[0]} of {len(self)} in {self.folder}, {self.split}")
        return np.where(rows < 0, rows + len(self), rows)

    def __iter__(self) -> Iterator[Row]:
        return (self[number] for number in range(len(self)))

    def batch(self, indices: Sequence[SupportsIndex] | NDArray[np.integer[Any]] | Tensor) -> Batch:
        """The networks of these rows, in this order, and their columns.

        All tensors are fresh memory: the caller may change them.

        Raises:
            IndexError: for a row that is not there.
            TypeError: for anything but one axis of integers.
        """
        rows = self._numbered(indices)
        named = self._gather(rows if self._rows is None else self._rows[rows], self._stored)
        weights = Weights.from_tensors({name: named[name] for name in self.spec.tensors})
        return weights, {name: named[name] for name in self._numbers}

    @property
    def _stored(self) -> Sequence[str]:
        return list(self._shards[0])

    def _gather(self, rows: NDArray[np.int64], names: Sequence[str]) -> dict[str, Tensor]:
        """Tensors and numbers of these rows of the split, by name."""
        where = np.searchsorted(self._starts, rows, side="right") - 1
        # (shard, its rows that are wanted, their places in the batch)
        parts = [
            (self._shards[shard], rows[places] - self._starts[shard], places)
            for shard in np.unique(where)
            for places in [np.flatnonzero(where == shard)]
        ]
        for shard, chosen, _ in parts:
            for name in self._large:
                if name in names:
                    table.announce(shard[name], chosen)
        gathered = {}
        for name in names:
            first = self._shards[0][name]
            fresh = np.empty((len(rows), *first.shape[1:]), first.dtype)
            for shard, chosen, places in parts:
                fresh[places] = shard[name][chosen]
            gathered[name] = torch.from_numpy(widen(fresh))
        return gathered

    def __getitems__(self, indices: Sequence[SupportsIndex]) -> Batch:
        """What a `DataLoader` asks for: a whole batch at once; see `collate`."""
        return self.batch(indices)

    def column(self, name: str) -> NDArray[Any]:
        """One column of all rows, `row ...`, copied into memory.

        Raises:
            ValueError: for an unknown column; lists those there are.
        """
        if name not in self.columns:
            raise ValueError(f"unknown column {name!r}; known: {', '.join(self.columns)}")
        if self._rows is not None:
            values: NDArray[Any] = self._gather(self._rows, [name])[name].numpy()
            return values
        return np.concatenate([widen(shard[name]) for shard in self._shards])

    @property
    def runs(self) -> list[int]:
        """Numbers of the runs of a zoo of trajectories that lie in this split.

        Raises:
            ValueError: if the zoo has no trajectories.
        """
        if not self.index.in_runs:
            raise ValueError(f"{self.folder} has no runs: its networks are not of trajectories")
        return [int(number) for number in np.unique(self.column("index"))]

    @property
    def steps(self) -> NDArray[np.int64]:
        """After how many updates of its run each network was kept, `row`.

        Raises:
            ValueError: if the zoo has no trajectories.
        """
        if not self.index.in_runs:
            raise ValueError(f"{self.folder} has no runs: its networks are not of trajectories")
        return self.column(RUN_KEY)

    def run(self, number: int) -> Batch:
        """The networks of one run in step order, and their columns.

        >>> weights, columns = networks.run(17)                 # doctest: +SKIP
        >>> columns["step"]                                     # doctest: +SKIP
        tensor([  2,   4,   6,  ..., 290, 292, 294])

        Raises:
            ValueError: if the zoo has no trajectories, or this split no such run.
        """
        known = self.runs
        if number not in known:
            raise ValueError(
                f"no run {number} in split {self.split!r}, which has {len(known)} runs from "
                f"{known[0]} to {known[-1]}"
            )
        rows = np.flatnonzero(self.column("index") == number)
        return self.batch(rows[np.argsort(self.steps[rows], kind="stable")])

    def stats(self) -> dict[str, Float[Tensor, "..."]]:
        """Means and standard deviations (ddof 0) of the training networks, float64.

        `entry.mean.weight_0` has the shape of the tensor, `tensor.mean.weight_0` is
        one number, [1]; likewise `std`, and every other tensor.

        Raises:
            ZooError: if the zoo has none, or the file does not have the size and sha256 of
                the index, or does not hold finite statistics of its spec.
        """
        found = read_stats(self.folder, self.index)
        return {name: torch.tensor(values) for name, values in found.items()}

    @cached_property
    def _names(self) -> dict[int, str]:
        return table.read_names(self.folder, self.index)

    @property
    def names(self) -> list[str | None]:
        """The file name of every row's picture, in its folder; None where there is none.

        Raises:
            ZooError: if the table of names is missing or damaged.
        """
        return [self._names.get(item) for item in self.column("index").tolist()]

    def as_hf_dataset(self) -> Any:
        """The same rows as a `datasets.Dataset`, nothing copied; see `table.hf_dataset`."""
        whole = table.hf_dataset(self.folder, self.index, self.split)
        return whole if self._rows is None else whole.select(self._rows)

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "split": self.split, "rows": self._rows}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(open_zoo(state["folder"], state["split"]).__dict__)
        self._rows = state["rows"]


def collate(batch: Batch) -> Batch:
    """Hand through what `Zoo.__getitems__` gathered; the `collate_fn` of a `DataLoader`.

    loader = DataLoader(networks, batch_size=64, shuffle=True, collate_fn=zoo.collate)
    for weights, columns in loader:
        ...

    Raises:
        TypeError: for single rows, which come from a wrapper without `__getitems__`,
            such as `ConcatDataset`.
    """
    if not isinstance(batch, tuple):
        raise TypeError(
            f"expected a gathered batch, got {type(batch).__name__}; the dataset around the "
            "zoo must pass on __getitems__, as torch's Subset does"
        )
    return batch


def _architecture(spec: NetworkSpec) -> str:
    widths = "-".join(str(width) for width in spec.widths)
    words = f"{spec.layers[0].kind} {widths} {spec.layers[0].activation} {spec.encoding_words}"
    return words.rstrip()
