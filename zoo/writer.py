"""Makes a zoo of anybody's networks: rows in, a whole zoo out.

    columns = {"label": zoo.Column("target", "class", ("cat", "dog"))}
    with zoo.Writer("zoos/mine", spec, columns) as writer:
        writer.write("train", weights, {"label": labels})

Rows wait in a folder beside the zoo until the writer is closed; then shards, statistics,
card and index are written by the protocol of all zoos, the index last. If the block ends in
an error nothing is made. The zoo opens, verifies by its hashes, trains and pushes; it cannot
be fitted again, since no recipe made it.
"""

import contextlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from zoo import shards, stopping, writing
from zoo.errors import ZooError
from zoo.making.plan import Key, Plan, default_shard_rows, package_versions
from zoo.making.site import Site, refuse_foreign, refuse_started
from zoo.shards import Column, Index
from zoo.spec import NetworkSpec
from zoo.storage import Folder
from zoo.table import pictures_of
from zoo.weights import Weights

# Of networks that no recipe of ours made, as the index has it.
KIND = "import"
_OWN = {
    "kind": "own",
    "name": "own networks",
    "title": "networks of the user's own",
    "sha256": None,
}
_WORDS = {
    "class": Column("target", "class"),
    "real": Column("target", "real"),
    "count": Column("quality", "count"),
}

Arrays = dict[str, NDArray[Any]]
Values = Tensor | NDArray[Any] | Sequence[Any]


@dataclass(frozen=True)
class _WrittenPlan(Plan):
    """The plan of a zoo whose rows are all there."""

    index: Index
    counts: dict[str, int]
    totals: dict[str, int]
    unit_rows: int = 1

    @property
    def shown(self) -> bool:
        return False

    @cached_property
    def sizes(self) -> dict[Key, int]:
        step = int(self.index.plan["shard_rows"])
        return {
            (split, number): min(step, count - number * step)
            for split, count in self.counts.items()
            for number in range(self.totals[split])
        }


class Writer:
    """Writes networks into a zoo in the folder `out`; use it in a `with` block.

    Args:
        out: a new folder, or one that holds a zoo if `overwrite`; that stays until the new
            one stands.
        spec: of all networks.
        columns: what each further value of a row is: a `zoo.Column`, or "class", "real" or
            "count". `index` and `view` are there anyway.
        source: what the networks were made from, for the card: name, title, license, url,
            citation, ... as in `zoo.json`.
        name: of the zoo; None takes the folder's.
        facts: further fields of the index's `recipe`, plain data.
        command: a command line that makes the zoo again.
        shard_rows: networks of a shard; None chooses about 24 MB.
        parquet: also write the view that `datasets.load_dataset` reads.
        pictures: begin its rows with what each network renders, if networks are of pictures and
            `source` has their `shape`, [rows, columns, channels].
        dtype: "float32" is exact; "float16" and "bfloat16" halve the files.

    Raises:
        ValueError: if `out` holds something else, or a column cannot be.
        ZooError: if another process writes there.
    """

    def __init__(
        self,
        out: str | Path,
        spec: NetworkSpec,
        columns: Mapping[str, Column | str] | None = None,
        *,
        source: Mapping[str, Any] | None = None,
        name: str | None = None,
        facts: Mapping[str, Any] | None = None,
        command: str = "",
        shard_rows: int | None = None,
        parquet: bool = True,
        pictures: bool = True,
        dtype: str = "float32",
        overwrite: bool = False,
    ):
        if dtype not in shards.STORAGE:
            raise ValueError(f"unknown dtype {dtype!r}; known: {', '.join(shards.STORAGE)}")
        if shard_rows is not None and shard_rows < 1:
            raise ValueError(f"shard_rows must be at least 1, got {shard_rows}")
        self._where = Folder(Path(out))
        self.spec, self._overwrite = spec, overwrite
        self._others = {key: _column(key, each, spec) for key, each in (columns or {}).items()}
        self._columns = shards.zoo_columns(spec, self._others, dtype)
        row_bytes = sum(
            column.dtype().itemsize * prod(spec.tensors.get(key, ()))
            for key, column in self._columns.items()
        )
        recipe = {"kind": KIND, "name": "own", **(facts or {})}
        self._index = Index(
            name=name or self._where.name,
            recipe=recipe,
            spec=spec,
            columns=self._columns,
            shards=(),
            source={**_OWN, **(source or {})},
            plan={
                "limit": None,
                "shard_rows": shard_rows or default_shard_rows(row_bytes),
                "parquet": parquet,
                **({} if dtype == "float32" else {"dtype": dtype}),
            },
            packages=package_versions(),
            command=command,
        )
        if pictures:
            drawn = pictures_of(self._index, originals=False)
            self._index = replace(self._index, pictures=drawn)
        # Files of rows of each split, and how many rows they have.
        self._kept: dict[str, list[tuple[Path, int]]] = {}
        # What tells rows apart: of runs the step too.
        self._named = [name for name, each in self._columns.items() if each.role == "key"]
        self._keys: set[tuple[int, ...]] = set()
        self._open = contextlib.ExitStack()
        self._scratch: Path | None = None
        self._check = stopping.check
        self.index: Index | None = None

    def __enter__(self) -> "Writer":
        refuse_foreign(self._where)
        refuse_started(self._where, self._overwrite)
        try:
            self._check_owner = self._open.enter_context(self._where.owned())
            parent = self._where.path.resolve().parent
            prefix = f".{self._where.name}.rows-"
            for left in parent.glob(f"{prefix}*"):  # by a writer that was killed
                shutil.rmtree(left, ignore_errors=True)
            made = tempfile.TemporaryDirectory(prefix=prefix, dir=parent)
            self._scratch = Path(self._open.enter_context(made))
        except OSError as error:
            self._open.close()
            raise ZooError(writing.disk_message(self._where, error)) from error
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._open:
            if error is None:
                try:
                    self.index = self._finish()
                except OSError as lost:
                    raise ZooError(writing.disk_message(self._where, lost)) from lost

    def write(
        self, split: str, weights: Weights | Tensor | NDArray[Any], columns: Mapping[str, Values]
    ) -> None:
        """Add networks to a split, in order.

        Args:
            split: "train", "validation" or "test".
            weights: the networks, or `net param` vectors in storage order.
            columns: one value a network for each column; `index` counts on from what was
                written, and `view` is 0, where they are not given.

        Raises:
            ValueError: if shapes, columns, classes or keys do not fit; nothing of the call
                is kept then.
        """
        if self._scratch is None:
            raise ValueError("a zoo.Writer writes inside its `with` block")
        if split not in shards.SPLITS:
            raise ValueError(f"unknown split {split!r}; known: {', '.join(shards.SPLITS)}")
        arrays = self._arrays(weights, columns)
        keys = list(zip(*(arrays[name].tolist() for name in self._named), strict=True))
        counts = Counter(keys)
        again = [key for key, count in counts.items() if count > 1 or key in self._keys]
        if again:
            words = ", ".join(f"{n} {v}" for n, v in zip(self._named, again[0], strict=True))
            raise ValueError(f"{words} is there twice; every row has keys of its own")
        if not keys:
            return
        self._keys.update(keys)
        kept = self._kept.setdefault(split, [])
        path = self._scratch / f"{split}-{len(kept)}.safetensors"
        try:
            shards.write_tensors(path, arrays)
        except OSError as error:
            raise ZooError(writing.disk_message(self._scratch.parent, error)) from error
        kept.append((path, len(keys)))

    def _arrays(
        self, weights: Weights | Tensor | NDArray[Any], columns: Mapping[str, Values]
    ) -> Arrays:
        if not isinstance(weights, Weights):
            vectors = _numbers("weights", weights)
            if vectors.ndim != 2 or vectors.shape[1] != self.spec.param_count:
                raise ValueError(
                    f"expected vectors (net, {self.spec.param_count}), got {vectors.shape}"
                )
            named = _cut(vectors, self.spec)
        else:
            named = {name: _numbers(name, each) for name, each in weights.tensors().items()}
        nets = len(next(iter(named.values())))
        arrays: Arrays = {}
        for name, shape in self.spec.tensors.items():
            found = named.get(name, np.empty(0))
            lead = (nets, *shape[:2])
            if found.size != nets * prod(shape) or found.shape[: len(lead)] != lead:
                raise ValueError(f"{name}: expected {(nets, *shape)}, got {found.shape}")
            arrays[name] = found.reshape(nets, *shape).astype(np.float32)
        unknown = sorted(set(columns) - set(self._others) - {"index", "view"})
        lacking = sorted(set(self._others) - set(columns))
        if unknown or lacking:
            wrong = f"unknown column {unknown[0]!r}" if unknown else f"no column {lacking[0]!r}"
            raise ValueError(f"{wrong}; the zoo has {', '.join(self._others) or 'none'}")
        start = len(self._keys)
        given = {"index": np.arange(start, start + nets), "view": np.zeros(nets, np.int64)}
        for name, values in {**given, **columns}.items():
            arrays[name] = _values(name, values, nets, self._columns[name])
        return {name: arrays[name] for name in self._columns}

    def _finish(self) -> Index:
        counts = {
            split: sum(rows for _, rows in self._kept[split])
            for split in shards.SPLITS
            if split in self._kept
        }
        if not counts:
            raise ValueError(f"nothing was written for {self._where}: a zoo has networks")
        step = int(self._index.plan["shard_rows"])
        totals = {split: -(-count // step) for split, count in counts.items()}
        plan = _WrittenPlan(self._index, counts, totals)
        site = Site(self._where, plan, check=self._check_owner)
        site.start(self._overwrite)
        for split in counts:
            rows = self._rows(split, step)
            for number, arrays in enumerate(rows):
                stopping.check()
                site.put((split, number), [(*writing.finite(arrays), "written")])
        return site.finish()

    def _rows(self, split: str, step: int) -> Iterator[Arrays]:
        """The rows of a split, `step` at a time."""
        waiting: list[Arrays] = []
        held = 0
        for path, rows in self._kept[split]:
            waiting.append(shards.read_tensors(path))
            held += rows
            while held >= step:
                joined = _joined(waiting)
                yield {name: array[:step] for name, array in joined.items()}
                waiting = [{name: array[step:] for name, array in joined.items()}]
                held -= step
        if held:
            yield _joined(waiting)


def _joined(parts: Sequence[Arrays]) -> Arrays:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _cut(vectors: NDArray[Any], spec: NetworkSpec) -> Arrays:
    """`net param` as the named tensors."""
    ends = np.cumsum([prod(shape) for shape in spec.tensors.values()])[:-1]
    pieces = zip(spec.tensors.items(), np.split(vectors, ends, axis=1), strict=True)
    return {name: piece.reshape(len(vectors), *shape) for (name, shape), piece in pieces}


def _column(name: str, column: Column | str, spec: NetworkSpec) -> Column:
    """A column as it is described, or by a word.

    Raises:
        ValueError: if it cannot be a column of a row.
    """
    if not name.isidentifier() or name in ("index", "view", *spec.tensors):
        raise ValueError(f"{name!r} cannot be the name of a column")
    if isinstance(column, str):
        if column not in _WORDS:
            raise ValueError(
                f"column {name!r}: unknown kind {column!r}; known: {', '.join(_WORDS)}"
            )
        return _WORDS[column]
    if column.role not in ("target", "quality", "key") or column.kind == "tensor":
        raise ValueError(f"column {name!r} must be one number a network, got {column}")
    return column


def _numbers(name: str, values: Values) -> NDArray[Any]:
    """Real numbers as an array.

    Raises:
        ValueError: for anything else.
    """
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name}: expected real numbers, got {array.dtype}")
    return array


def _values(name: str, values: Values, nets: int, column: Column) -> NDArray[Any]:
    """A column's values in its type.

    Raises:
        ValueError: if there is not one for each network, or they are not of its kind.
    """
    array = _numbers(name, values)
    if array.shape != (nets,):
        raise ValueError(f"{name}: expected ({nets},), got {array.shape}")
    if column.dtype is np.int64:
        whole = array.astype(np.int64)
        if not np.array_equal(whole, array):
            raise ValueError(f"{name} is of kind {column.kind!r}: expected whole numbers")
        if column.kind in ("class", "index") and whole.size and whole.min() < 0:
            raise ValueError(f"{name} is of kind {column.kind!r}: expected no negative number")
        if column.names and whole.size and whole.max() >= len(column.names):
            raise ValueError(
                f"{name} has {len(column.names)} classes, counted from 0, and {whole.max()} is none"
            )
        return whole
    return array.astype(np.float32)
