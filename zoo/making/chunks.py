"""Fits the shards of a site on this machine, a chunk of one engine batch at a time.

Each chunk is kept in `.build/chunks/` as soon as it is done, under a name that says what it
holds and the start of its sha256; a full shard replaces its chunks. So a kill costs the
chunks under way. A chunk that another run left is used only if it holds what its name
says, of the units that are planned there.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from zoo import machine, schema, shards, stopping
from zoo.errors import ZooError
from zoo.kinds import Goal
from zoo.making import growth, workers
from zoo.making.fitting import Fitted, Rows
from zoo.making.plan import Key, Planned, processor
from zoo.making.progress import Progress, Tally
from zoo.making.site import CHUNKS, Piece, Site, chunk_of, other_keys
from zoo.schema import Int, ListOf, Text, Tuple
from zoo.storage import Folder

_EXCLUDED = ListOf(Tuple(Int(low=0), Int(low=0), Text()))


class Fitter:
    """What a worker holds: goal and engine, so that tasks carry only their rows."""

    def __init__(self, goal: Goal, seed: int, engine: str, threads: int, device: str):
        self.goal, self.seed = goal, seed
        self.engine = goal.load(engine, device, threads)

    def __call__(self, rows: Rows, *given: Any) -> Fitted:
        return self.goal.fit(self.engine, self.seed, rows, *given)


def chunk_size(goal: Goal, engine: str, device: str, threads: int) -> tuple[int, int]:
    """Units of a chunk, and how many chunks one process fits at once."""
    return goal.chunk(goal.load(engine, device, threads))


def fit(
    site: Site, planned: Planned, devices: Sequence[str], progress: Callable[[Progress], None]
) -> None:
    """Fit every shard of an open site that has no record.

    Args:
        devices: of each worker; 1 works in a thread of this process.
    """
    if site.whole is None and site.missing:
        _Fit(site, planned, devices).run(progress)


class _Fit:
    """One run over the missing shards, whose chunks `found` has, by shard and first unit."""

    def __init__(self, site: Site, planned: Planned, devices: Sequence[str]):
        assert isinstance(site.where, Folder)
        self.site, self.planned, self.devices = site, planned, devices
        self.folder = site.where.path / CHUNKS
        self.processor = processor(devices[0])
        self.threads = max(1, machine.threads() // len(devices))
        engine = planned.index.plan["engine"]
        self.size, self.side_by_side = chunk_size(planned.goal, engine, devices[0], self.threads)
        self.found = self._left_over()

    def run(self, progress: Callable[[Progress], None]) -> None:
        planned, site = self.planned, self.site
        tally = Tally(planned.units * planned.unit_rows, progress)
        for record in site.records.values():
            tally.add(record.planned * planned.unit_rows, None)
        self._inherit()
        todo: list[tuple[Key, int]] = []
        missing: dict[Key, int] = {}
        for key in site.missing:
            lacking = [start for start in self._starts(key) if (key, start) not in self.found]
            there = sum(len(self._rows(key, start)) for start in self._starts(key))
            there -= sum(len(self._rows(key, start)) for start in lacking)
            tally.add(there * planned.unit_rows, None)
            todo += [(key, start) for start in lacking]
            missing[key] = len(lacking)
        for key in [key for key, lacking in missing.items() if not lacking]:
            self._join(key)
        for number, fitted in self._fitted(todo):
            stopping.check()
            key, start = todo[number]
            rows = self._rows(key, start)
            fresh = int(self._fresh(rows).sum())
            whole, machines = self._completed(rows, fitted)
            if len(rows) == planned.sizes[key]:
                # The chunk is the whole shard: a long run is not written twice.
                site.put(key, [(whole.arrays, whole.excluded, machines)])
            else:
                self.found[key, start] = self._keep(key, start, whole, machines)
                missing[key] -= 1
                if not missing[key]:
                    self._join(key)
            tally.add((len(rows) - fresh) * planned.unit_rows, None)
            tally.add(fresh * planned.unit_rows, fitted)
            del fitted, whole  # or they would stay until the next ones are whole

    def _fitted(self, todo: Sequence[tuple[Key, int]]) -> Iterator[tuple[int, Fitted]]:
        """Position in `todo` and result of each chunk, as they end."""
        if not todo:
            return
        planned, plan = self.planned, self.planned.index.plan
        units = (self._rows(key, start) for key, start in todo)
        tasks = (planned.task(rows[self._fresh(rows)]) for rows in units)
        settings = (planned.goal, plan["seed"], plan["engine"], self.threads)
        count = len(self.devices)
        yield from workers.run(Fitter, settings, tasks, count, self.side_by_side, self.devices)

    def _starts(self, key: Key) -> range:
        return range(0, self.planned.sizes[key], self.size)

    def _rows(self, key: Key, start: int) -> Rows:
        return self.planned.parts[key][start : start + self.size]

    # -- a smaller zoo of the same kind, which stands there ------------------------------

    def _inherit(self) -> None:
        """Keep the chunks that a smaller zoo has whole."""
        if self.site.donor is None:
            return
        for key in self.site.missing:
            for start in self._starts(key):
                rows = self._rows(key, start)
                if (key, start) not in self.found and not self._fresh(rows).any():
                    self.found[key, start] = self._keep(key, start, *self.site.donor.take(rows))

    def _fresh(self, rows: Rows) -> NDArray[np.bool_]:
        """Which of the units have to be fitted."""
        donor = self.site.donor
        return np.ones(len(rows), bool) if donor is None else ~donor.has(rows)

    def _completed(self, rows: Rows, fitted: Fitted) -> tuple[Fitted, str]:
        """A chunk with the units that a smaller zoo has, and the machines that fitted it."""
        old = rows[~self._fresh(rows)]
        if self.site.donor is None or not len(old):
            return fitted, self.processor
        taken, machines = self.site.donor.take(old)
        return growth.merged(rows, taken, fitted), ", ".join(sorted({machines, self.processor}))

    # -- chunks on disk -----------------------------------------------------------------

    def _left_over(self) -> dict[tuple[Key, int], Path]:
        """Chunks of an earlier run that are whole; the others are removed."""
        found = {}
        for path in sorted(self.folder.glob("*.safetensors")):
            named = chunk_of(path.name)
            if named is None:
                self.site.warn(f"{path} has not the name of a chunk; it is not used")
            elif self._is_cut_so(*named[:4]):
                wrong = self._wrong(path, named[:2], named[2], named[4])
                if not wrong:
                    found[named[:2], named[2]] = path
                    continue
                self.site.warn(f"{wrong}; fitting it again")
            # Else another engine batch (other cores, say) cut the units elsewhere.
            path.unlink()
        return found

    def _is_cut_so(self, split: str, number: int, start: int, units: int) -> bool:
        key = split, number
        if key not in self.planned.parts or key in self.site.records or start % self.size:
            return False
        return units == len(self._rows(key, start)) > 0

    def _wrong(self, path: Path, key: Key, start: int, digest: str) -> str | None:
        """What is wrong with a chunk that is named as one should be, or None."""
        try:
            schema.check_length(path)
            if len(digest) != 16 or not shards.sha256(path).startswith(digest):
                return f"{path} does not have the sha256 of its name: its content has changed"
            arrays, excluded, _ = read(path)
        except ZooError as error:
            return str(error)
        planned, rows = self.planned, self._rows(key, start)
        kept = (len(rows) - len(excluded)) * planned.unit_rows
        for name, column in planned.index.columns.items():
            shape = (kept, *planned.index.spec.tensors.get(name, ()))
            found = arrays.get(name)
            if found is None or (found.dtype, found.shape) != (np.dtype(column.dtype), shape):
                return f"{path}: expected {name} of {np.dtype(column.dtype)} {shape}"
        if len(arrays) > len(planned.index.columns):
            return f"{path}: it has columns that are not planned"
        wrong = other_keys(
            arrays, rows, {(item, view) for item, view, _ in excluded}, planned.unit_rows
        )
        return f"{path} {wrong}" if wrong else None

    def _keep(self, key: Key, start: int, fitted: Fitted, machines: str) -> Path:
        """Write a chunk; its name says what it holds and part of its sha256."""
        whole = {name: np.ascontiguousarray(array) for name, array in fitted.arrays.items()}
        note = {"excluded": json.dumps(fitted.excluded), "cpu": machines}
        content = safetensors.numpy.save(whole, note)
        units = len(self._rows(key, start))
        digest = hashlib.sha256(content).hexdigest()[:16]
        path = self.folder / f"{key[0]}-{key[1]:05d}-{start:06d}-{units}-{digest}.safetensors"
        with shards.replacing(path) as temporary:
            temporary.write_bytes(content)
        return path

    def _join(self, key: Key) -> None:
        """Join the chunks of a shard; they are deleted once its record stands."""
        paths = [self.found[key, start] for start in self._starts(key)]
        self.site.put(key, [read(path) for path in paths])
        for path in paths:
            path.unlink()


def read(path: Path) -> Piece:
    """The rows of a chunk, the networks that it leaves out, and the machine that fitted it.

    Raises:
        ZooError: if it is damaged.
    """
    try:
        with safetensors.safe_open(path, "numpy") as file:
            note = dict(file.metadata() or {})
    except (safetensors.SafetensorError, OSError) as error:
        raise ZooError(f"{path}: not a safetensors file ({error})") from error
    plain = schema.parse(note.get("excluded", "").encode(), f"{path}: excluded")
    schema.check(plain, _EXCLUDED, f"{path}: excluded")
    excluded = [(item, view, reason) for item, view, reason in plain]
    return shards.read_tensors(path), excluded, note.get("cpu", "unknown")
