"""Makes a zoo: runs a recipe on a source, from rows to be fitted to a finished folder.

The rows of a zoo are planned before the first is fitted. What is planned is a unit: an
INR or a classifier, which is one row, or a run, which is a known number of rows that stay
together. Units are fitted in chunks of one engine batch; each chunk is kept in `.build/`
as soon as it is done, a full shard replaces its chunks, and statistics, card and index
end the work. So a kill at any moment costs the chunks under way, and the next run goes
on from what is on disk.

The shards are a list that recipe, source and plan decide alone. A part is a range of it,
fitted in a folder of its own that ends without an index: see `zoo.making.merging`.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from zoo import engines, machine, shards, writing
from zoo.errors import ZooError
from zoo.making import workers
from zoo.making.fitting import Arrays, Fitted, Rows, fit_rows
from zoo.making.plan import Planned, plan_zoo, processor, refuse_other
from zoo.making.progress import Progress, Tally
from zoo.objectives import Objective
from zoo.recipes import AnyRecipe
from zoo.shards import Excluded, Index, Shard
from zoo.sources import ImageSource, SineSource
from zoo.training import Classification

PLAN_FILE = shards.PLAN_FILE
CHUNK_BYTES = 16e6  # of a chunk of classifiers; a run may be larger


class _Fitter:
    """What a worker holds: the engine and the objective, so tasks carry only their rows."""

    def __init__(self, objective: Objective, seed: int, engine: str, threads: int, device: str):
        self.objective = objective
        self.seed = seed
        self.engine = engines.load(engine, device, threads)

    def __call__(self, rows: Rows, raw: NDArray[Any], others: Arrays) -> Fitted:
        targets = self.objective.targets(raw)
        return fit_rows(self.objective, self.engine, self.seed, rows, targets, others)


class _Trainer:
    """What a worker of a zoo of classifiers holds; tasks carry only their units."""

    def __init__(self, goal: Classification, seed: int, engine: str, threads: int, device: str):
        from zoo.engines import classifiers

        self.goal = goal
        self.seed = seed
        self.engine = classifiers.load(engine, device, threads)

    def __call__(self, rows: Rows) -> Fitted:
        return self.goal.train(self.engine, self.seed, rows)


def fitter_of(goal: Objective | Classification) -> type[_Fitter] | type[_Trainer]:
    """What a worker prepares from (goal, seed, engine, threads, device)."""
    return _Trainer if isinstance(goal, Classification) else _Fitter


def chunk_size(
    goal: Objective | Classification, engine: str, device: str, threads: int
) -> tuple[int, int]:
    """Units of a chunk, and how many chunks one process fits at once."""
    if not isinstance(goal, Classification):
        # While a GPU fits one thread's chunk, another thread draws the next one's networks.
        return engines.load(engine, device, threads).batch, 2 if engine == "cuda" else 1
    from zoo.engines import classifiers

    trainer = classifiers.load(engine, device, threads)
    rows = int(np.clip(CHUNK_BYTES // (4 * goal.spec.param_count * goal.unit_rows), 1, 64))
    return max(rows, trainer.batch), trainer.threads


def build(
    recipe: AnyRecipe | str | None,
    source: ImageSource | SineSource | str,
    out: str | Path,
    *,
    data_root: str | Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    shard_rows: int | None = None,
    workers: int = 1,
    engine: str = "auto",
    device: str = "cpu",
    overwrite: bool = False,
    parquet: bool = True,
    dtype: str = "float32",
    part: str | None = None,
    threads: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> Index:
    """Make the zoo of a recipe and a source in the folder `out`, or go on with it.

    Args:
        recipe: or its name; None takes the source's default.
        source: or its name, such as "mnist" or "imagefolder:PATH".
        data_root: where a named source lies or is downloaded to; None takes
            $WSZOO_DATA, else ~/.cache/wszoo.
        limit: networks (of trajectories: runs) in all, split in the recipe's proportions,
            lowest indices first.
        seed: of every random number; below 2**32.
        shard_rows: networks of a shard; None chooses about 24 MB. Runs are not cut: a
            shard holds as many whole ones as fit, at least one.
        workers: processes that fit; 1 fits in a thread of this one. Device "cuda" on a
            machine of several GPUs takes at least one for each. A script that has more
            than one must guard its main code by `if __name__ == "__main__"`.
        engine: "auto", "cpu", "cuda", "reference", or for classifiers "torch".
        device: a torch device for the engines that do not run on the CPU alone; "cuda" is
            all GPUs, "cuda:1" is one of them.
        overwrite: throw away a zoo that is already there.
        parquet: also write the view that `datasets.load_dataset` reads.
        dtype: "float32" is exact; classifiers may be kept as "float16" or "bfloat16".
        part: "0-99/1000" fits only parts 0 to 99 of the list of shards cut into 1,000
            equal ones; `zoo.merge` joins the folders of all parts.
        threads: of all workers together; None takes what `zoo.machine` says.
        progress: called after every chunk.
        warn: called with one line about anything found damaged and made again.

    Returns:
        The index of the finished zoo; of a part, what it would be of these shards alone.

    Raises:
        ValueError: for settings that make no sense, or a folder that holds something else.
        ZooError: if the folder is being written by someone else, or the disk fails.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    if threads is not None:
        machine.checked_threads(threads)
    folder = Path(out)
    planned = plan_zoo(
        recipe,
        source,
        folder.resolve().name,
        data_root=data_root,
        limit=limit,
        seed=seed,
        shard_rows=shard_rows,
        engine=engine,
        device=device,
        parquet=parquet,
        dtype=dtype,
    )
    if part is not None:
        planned = planned.part(part)
    try:
        with shards.one_writer(folder), machine.using(threads):
            build = _Build(folder, planned, warn or (lambda line: None))
            build.open(overwrite)
            places = engines.devices(device)
            count = max(workers, len(places))
            own = [places[number % len(places)] for number in range(count)]
            build.fit(own, progress or (lambda state: None))
            return build.finish()
    except OSError as error:
        raise ZooError(writing.disk_message(folder, error)) from error


def unfinished(path: str | Path) -> tuple[Index, int, int] | None:
    """The plan of a zoo that is still being made, and how many of its rows are on disk.

    Returns:
        The index so far, networks done, networks planned; None if nothing is under way.
    """
    folder = Path(path)
    scratch = folder / shards.BUILD_FOLDER
    if (folder / shards.INDEX_FILE).is_file() or not (scratch / PLAN_FILE).is_file():
        return None
    plain = shards.read_json(scratch / PLAN_FILE)
    total = plain.pop("planned")
    unit_rows = plain.pop("unit_rows", 1)
    records = [shards.read_json(path) for path in (scratch / "shards").glob("*.json")]
    chunks = [path.stem.split("-") for path in (scratch / "chunks").glob("*.safetensors")]
    finished = {(r["split"], r["number"]) for r in records}
    done = sum(record["planned"] for record in records)
    done += sum(
        int(rows) for split, number, _, rows, _ in chunks if (split, int(number)) not in finished
    )
    return Index.from_json(plain), done * unit_rows, total * unit_rows


def record_file(split: str, number: int) -> str:
    """Where the record of a finished shard stands in the folder."""
    return f"{shards.BUILD_FOLDER}/shards/{split}-{number:05d}.json"


def note_file(split: str, number: int) -> str:
    """Where the note of a finished shard stands in the folder, if one was kept."""
    return f"{shards.BUILD_FOLDER}/notes/{split}-{number:05d}.safetensors"


def join(
    folder: Path,
    index: Index,
    split: str,
    number: int,
    total: int,
    pieces: Sequence[tuple[Arrays, list[Any], str]],
    note: Path | None = None,
) -> tuple[Shard | None, list[dict[str, Any]]]:
    """Write a shard and its view from (arrays, excluded, cpu) in order.

    Args:
        total: shards of this split.
        note: where to keep what `writing.finish` needs of the shard.

    Returns:
        The shard, None if nothing of it is left, and what was excluded.
    """
    lost = [tuple(row) for _, excluded, _ in pieces for row in excluded]
    kinds = {cpu for _, _, cpu in pieces}
    arrays = {
        name: np.concatenate([part[name] for part, _, _ in pieces])
        if len(pieces) > 1
        else np.ascontiguousarray(pieces[0][0][name])
        for name in index.columns
    }
    shard = None
    if len(arrays["index"]):
        cpus = ", ".join(sorted(kinds))
        shard = writing.write_shard(folder, index, split, number, total, arrays, cpus)
        if note is not None:
            shards.write_tensors(note, writing.note_of(index, split, arrays))
    excluded = [
        asdict(Excluded(split, item, view_number, reason))
        for item, view_number, reason in sorted(lost)
    ]
    return shard, excluded


def record_of(
    split: str, number: int, units: int, shard: Shard | None, excluded: list[dict[str, Any]]
) -> dict[str, Any]:
    """What is known of a finished shard of so many units, as JSON."""
    return {
        "split": split,
        "number": number,
        "planned": units,
        "shard": asdict(shard) if shard else None,
        "excluded": excluded,
    }


class _Build:
    """One run of `build` in a locked folder; the methods are its phases, in order."""

    def __init__(self, folder: Path, planned: Planned, warn: Callable[[str], None]):
        self.folder = folder
        self.scratch = folder / shards.BUILD_FOLDER
        self.planned = planned
        self.index = planned.index
        self.goal = planned.goal
        self.source = planned.source
        self.parts = planned.parts
        self.unit_rows = planned.unit_rows
        self.warn = warn
        self.processor = ""
        self.chunk_rows = 128  # like all that is planned in units
        self.records: dict[tuple[str, int], dict[str, Any]] = {}

    # -- opening: what is there already -------------------------------------------------

    def open(self, overwrite: bool) -> None:
        """Take over what an earlier run left, or refuse it."""
        theirs = [path.name for path in self.folder.iterdir() if path.name != shards.LOCK_FILE]
        is_zoo = bool({shards.INDEX_FILE, shards.BUILD_FOLDER} & set(theirs))
        if theirs and not is_zoo:
            raise ValueError(
                f"{self.folder} is not empty and not a zoo ({sorted(theirs)[0]!r} lies there); "
                "choose another --out"
            )
        has_index = (self.folder / shards.INDEX_FILE).is_file()
        if overwrite or not (has_index or (self.scratch / PLAN_FILE).is_file()):
            # A build folder without a plan is an overwriting that was killed here.
            self.scratch.mkdir(exist_ok=True)
            for name in writing.OURS:
                writing.remove(self.folder / name)
        for path in [*self.folder.glob(".*.tmp"), *self.folder.glob("*/.*.tmp")]:
            path.unlink()
        for path in self.scratch.glob("*/.*.tmp"):
            path.unlink()
        if (self.folder / shards.INDEX_FILE).is_file():
            found = shards.read_index(self.folder)
            refuse_other(self.folder, self.index, found.to_json())
            self._adopt(found)
        elif (self.scratch / PLAN_FILE).is_file():
            refuse_other(self.folder, self.index, shards.read_json(self.scratch / PLAN_FILE))
            self._check_records()
        else:
            self._write_plan()

    def _write_plan(self) -> None:
        self.scratch.mkdir(parents=True, exist_ok=True)
        shards.write_json(self.scratch / PLAN_FILE, self.planned.to_json())

    def _adopt(self, found: Index) -> None:
        """Check a finished zoo; what is damaged is made again, the rest is kept."""
        wrong = [shards.check_file(self.folder, file, hashes=True) for file in found.files]
        problems = [line for line in wrong if line]
        card = self.folder / "README.md"
        if not problems and card.is_file():
            self.index = found
            return
        for line in problems or [f"{card} is missing"]:
            self.warn(f"{line}; making it again")
        self._write_plan()
        for shard in found.shards:
            split, number = shard.split, int(Path(shard.file).name.split("-")[1])
            part = self.parts[split, number]
            keys = set(zip(part.index.tolist(), part.view.tolist(), strict=True))
            lost = [
                asdict(row)
                for row in found.excluded
                if row.split == split and (row.index, row.view) in keys
            ]
            self._write_record(split, number, shard, lost)
        (self.folder / shards.INDEX_FILE).unlink()
        self._check_records(quietly=True)

    def _check_records(self, quietly: bool = False) -> None:
        """Take over the finished shards whose bytes are still those that were written."""
        for (split, number), part in self.parts.items():
            path = self._record_path(split, number)
            if not path.is_file():
                continue
            record = shards.read_json(path)
            if record["planned"] != len(part):
                raise ZooError(f"{path} has {record['planned']} rows, planned are {len(part)}")
            shard = shards.shard_from_json(record["shard"]) if record["shard"] else None
            files = [file for file in (shard, shard.parquet if shard else None) if file]
            wrong = [shards.check_file(self.folder, file, hashes=True) for file in files]
            if problems := [line for line in wrong if line]:
                if not quietly:
                    self.warn(f"{problems[0]}; making it again")
                path.unlink()
                self.records.pop((split, number), None)
                continue
            self.records[split, number] = record

    def _record_path(self, split: str, number: int) -> Path:
        return self.folder / record_file(split, number)

    def _write_record(
        self, split: str, number: int, shard: Shard | None, excluded: list[dict[str, Any]]
    ) -> None:
        record = record_of(split, number, len(self.parts[split, number]), shard, excluded)
        shards.write_json(self._record_path(split, number), record)
        self.records[split, number] = record

    # -- fitting ------------------------------------------------------------------------

    def fit(self, devices: Sequence[str], progress: Callable[[Progress], None]) -> None:
        """Fit every row that is on disk neither in a shard nor in a chunk.

        Args:
            devices: of each worker.
        """
        if self.index.shards:
            return
        count, device = len(devices), devices[0]
        self.processor = processor(device)
        engine = self.index.plan["engine"]
        threads = max(1, machine.threads() // count)
        self.chunk_rows, side_by_side = chunk_size(self.goal, engine, device, threads)
        chunks = self._found_chunks()
        tally = Tally(self.planned.units * self.unit_rows, progress)
        for record in self.records.values():
            tally.add(record["planned"] * self.unit_rows, None)
        todo: list[tuple[str, int, int]] = []
        missing: dict[tuple[str, int], int] = {}
        for (split, number), part in self.parts.items():
            if (split, number) in self.records:
                continue
            spans = range(0, len(part), self.chunk_rows)
            lacking = [start for start in spans if (split, number, start) not in chunks]
            tally.add(
                sum(len(part[start : start + self.chunk_rows]) for start in spans
                    if start not in lacking) * self.unit_rows,
                None,
            )  # fmt: skip
            todo += [(split, number, start) for start in lacking]
            missing[split, number] = len(lacking)
        for key in [key for key, lacking in missing.items() if not lacking]:
            self._write_shard(*key, chunks)

        def tasks() -> Iterator[tuple[Any, ...]]:
            for split, number, start in todo:
                yield self.planned.task(self.parts[split, number][start : start + self.chunk_rows])

        if not todo:
            return
        seed = self.index.plan["seed"]
        settings = (self.goal, seed, engine, threads)
        done = workers.run(fitter_of(self.goal), settings, tasks(), count, side_by_side, devices)
        for task, fitted in done:
            split, number, start = todo[task]
            rows = len(self.parts[split, number][start : start + self.chunk_rows])
            if rows == len(self.parts[split, number]):
                # The chunk is the whole shard: a long run is not written twice.
                self._join(split, number, [(fitted.arrays, fitted.excluded, self.processor)])
            else:
                chunks[split, number, start] = self._write_chunk(split, number, start, fitted)
                missing[split, number] -= 1
                if not missing[split, number]:
                    self._write_shard(split, number, chunks)
            tally.add(rows * self.unit_rows, fitted)
            del fitted  # or it would stay until the next one is whole

    def _found_chunks(self) -> dict[tuple[str, int, int], Path]:
        """Chunks of an earlier run, by shard and first row, that are whole."""
        found = {}
        for path in sorted((self.scratch / "chunks").glob("*.safetensors")):
            split, number, start, rows, digest = path.stem.split("-")
            # Another engine batch (other cores, say) cuts the rows elsewhere: fit those again.
            part = self.parts.get((split, int(number)))
            fits = (
                part is not None
                and int(start) % self.chunk_rows == 0
                and int(rows) == len(part[int(start) : int(start) + self.chunk_rows])
            )
            if fits and shards.sha256(path).startswith(digest):
                found[split, int(number), int(start)] = path
            else:
                path.unlink()
        return found

    def _write_chunk(self, split: str, number: int, start: int, fitted: Fitted) -> Path:
        """Keep a chunk; its name says what it holds and part of its sha256."""
        whole = {name: np.ascontiguousarray(array) for name, array in fitted.arrays.items()}
        note = {"excluded": json.dumps(fitted.excluded), "cpu": self.processor}
        content = safetensors.numpy.save(whole, note)
        rows = len(fitted.arrays["index"]) // self.unit_rows + len(fitted.excluded)
        digest = hashlib.sha256(content).hexdigest()[:16]
        name = f"{split}-{number:05d}-{start:06d}-{rows}-{digest}.safetensors"
        path = self.scratch / "chunks" / name
        with shards.replacing(path) as temporary:
            temporary.write_bytes(content)
        return path

    def _write_shard(
        self, split: str, number: int, chunks: dict[tuple[str, int, int], Path]
    ) -> None:
        """Join the chunks of a shard; they are deleted once its record stands."""
        part = self.parts[split, number]
        paths = [chunks[split, number, start] for start in range(0, len(part), self.chunk_rows)]
        pieces = []
        for path in paths:
            with safetensors.safe_open(path, "numpy") as file:
                note = file.metadata()
            pieces.append((shards.read_tensors(path), json.loads(note["excluded"]), note["cpu"]))
        self._join(split, number, pieces)
        for path in paths:
            path.unlink()

    def _join(
        self, split: str, number: int, pieces: Sequence[tuple[Arrays, list[Any], str]]
    ) -> None:
        """Write a shard, its view and its record from (arrays, excluded, cpu) in order."""
        note = self.folder / note_file(split, number) if "part" in self.index.plan else None
        shard, excluded = join(
            self.folder, self.index, split, number, self.planned.totals[split], pieces, note
        )
        self._write_record(split, number, shard, excluded)

    # -- finishing ----------------------------------------------------------------------

    def finish(self) -> Index:
        """Statistics, card and index, from the shards as they stand on disk."""
        if self.index.shards:
            writing.remove(self.scratch)
            return self.index
        made, excluded = gathered([self.records[key] for key in self.parts])
        if "part" in self.index.plan:
            return replace(self.index, shards=made, excluded=excluded)
        refuse_nothing(self.folder, made, excluded)
        return writing.finish(self.folder, self.index, made, excluded, self.planned.samples)


def gathered(
    records: Sequence[Mapping[str, Any]],
) -> tuple[tuple[Shard, ...], tuple[Excluded, ...]]:
    """The shards of records, and the networks that they left out."""
    made = tuple(shards.shard_from_json(r["shard"]) for r in records if r["shard"])
    return made, tuple(Excluded(**row) for r in records for row in r["excluded"])


def refuse_nothing(folder: object, made: Sequence[Shard], excluded: Sequence[Excluded]) -> None:
    """ZooError for a zoo without a network."""
    if not made:
        raise ZooError(
            f"no network is left for {folder}: all {len(excluded)} were excluded "
            f"({excluded[0].reason}); change the recipe and start afresh with --overwrite"
        )
