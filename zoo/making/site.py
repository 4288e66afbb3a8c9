"""A zoo in the making: the one protocol by which every maker of zoos opens, keeps and ends.

A site is a place, a folder or a URL, that one process holds, and a plan of what is to stand
there. In its `.build/`

    plan.json                        the index without shards, and how many units are planned
    shards/train-00003.json          the record of a finished shard, written when it lies there
    notes/train-00003.safetensors    what `finish` needs of the shard
    tasks/NAME/                      a shard that a task of a cluster wrote, not yet named
    chunks/                          pieces of shards, see `zoo.making.chunks`
    new/                             a site of its own: the zoo that replaces a finished one

The order of writing is shard, view, note, record; so a kill costs what has no record. What
is read back is held against the plan, and files against their hashes and headers: what
contradicts is named and made again, or refused, and never believed.

A finished zoo is not touched by an overwriting before the new one stands whole, and its
index not even while damage in it is mended: see `zoo.succession`.
"""

import hashlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from zoo import schema, shards, succession, table, writing
from zoo.errors import ZooError
from zoo.figures import Samples
from zoo.making import growth
from zoo.making.fitting import Arrays, Rows
from zoo.making.plan import Key, Plan, differences
from zoo.recipes import recipe_class
from zoo.schema import Int, Json, ListOf, Maybe, Text
from zoo.shards import BUILD_FOLDER, INDEX_FILE, Excluded, File, Index, Shard
from zoo.storage import Folder, Place
from zoo.writing import Items

PLAN = f"{BUILD_FOLDER}/{shards.PLAN_FILE}"
RECORDS = f"{BUILD_FOLDER}/shards"
NOTES = f"{BUILD_FOLDER}/notes"
TASKS = f"{BUILD_FOLDER}/tasks"
CHUNKS = f"{BUILD_FOLDER}/chunks"
TASK_RECORD = "record.json"
# Bytes at the start of a shard at a URL that are read; a header of 20 tensors takes 2 KB.
HEAD_BYTES = 64 << 10

_FILE = {"file": Text(), "bytes": Int(low=0), "sha256": schema.SHA256}
_RECORD = schema.Record(
    {
        "split": schema.Choice(*shards.SPLITS),
        "number": Int(low=0),
        "planned": Int(low=1),
        "shard": Maybe(
            schema.Record(
                {
                    **_FILE,
                    "split": Text(),
                    "rows": Int(low=1),
                    "cpu": Text(),
                    "parquet": Maybe(schema.Record(_FILE)),
                }
            )
        ),
        "excluded": ListOf(
            schema.Record(
                {"split": Text(), "index": Int(low=0), "view": Int(low=0), "reason": Text()}
            )
        ),
    },
    {"note": Maybe(schema.Record(_FILE)), "task": Text()},
)
_PLAN = schema.Record(
    {
        "recipe": schema.MapOf(Json()),
        "plan": schema.MapOf(Json()),
        "source": schema.MapOf(Json()),
        "planned": Int(low=1),
    },
    {
        "unit_rows": Int(low=1),
        "address": Maybe(Text()),
        "pictures": ListOf(schema.Choice(*table.PICTURES)),
    },
    others=Json(),
)


def record_file(split: str, number: int) -> str:
    """Where the record of a finished shard stands in the folder."""
    return f"{RECORDS}/{split}-{number:05d}.json"


def note_file(split: str, number: int) -> str:
    """Where the note of a finished shard stands in the folder."""
    return f"{NOTES}/{split}-{number:05d}.safetensors"


# ---- records


@dataclass(frozen=True)
class Record:
    """What is known of a finished shard.

    Attributes:
        planned: units that it was to hold.
        shard: None if no network of it is left.
        excluded: the networks that are left out.
        note: the file of its note; None where an older wszoo kept no hash of it.
    """

    split: str
    number: int
    planned: int
    shard: Shard | None
    excluded: tuple[Excluded, ...] = ()
    note: File | None = None

    @property
    def key(self) -> Key:
        return self.split, self.number

    @property
    def files(self) -> list[File]:
        """The shard and its view."""
        if self.shard is None:
            return []
        return [self.shard, *([self.shard.parquet] if self.shard.parquet else [])]

    def to_json(self) -> dict[str, Any]:
        plain: dict[str, Any] = {
            "split": self.split,
            "number": self.number,
            "planned": self.planned,
            "shard": asdict(self.shard) if self.shard else None,
            "excluded": [asdict(row) for row in self.excluded],
        }
        return {**plain, "note": asdict(self.note) if self.note else None}

    @classmethod
    def parse(cls, content: bytes, name: str) -> "Record":
        """A record as it stands in a file called `name`.

        Raises:
            ZooError: if it has not the shape of one.
        """
        plain = schema.parse(content, name)
        schema.check(plain, _RECORD, name)
        return cls(
            plain["split"],
            plain["number"],
            plain["planned"],
            shards.shard_from_json(plain["shard"], name) if plain["shard"] else None,
            tuple(Excluded(**row) for row in plain["excluded"]),
            File(**plain["note"]) if plain.get("note") else None,
        )


def contradiction(record: Record, plan: Plan, key: Key) -> str | None:
    """How a record says something else than the plan of its shard, in words, or None."""
    planned, total = plan.sizes[key], plan.totals[key[0]]
    if record.key != key:
        return f"it is of shard {record.split} {record.number}"
    if record.planned != planned:
        return f"it has {record.planned} units, planned are {planned}"
    left_out = {(row.index, row.view) for row in record.excluded}
    if len(left_out) != len(record.excluded) or {row.split for row in record.excluded} - {key[0]}:
        return "its list of excluded networks has one twice, or of another split"
    rows = plan.rows(key)
    if rows is not None and left_out and not left_out <= set(rows.pairs()):
        return "it excludes networks that are not planned"
    left = (planned - len(left_out)) * plan.unit_rows
    had = record.shard.rows if record.shard else 0
    if left != had:
        return f"it has {had} rows, {left} are planned and not excluded"
    shard = record.shard
    if shard is None:
        return None
    view = shards.shard_file(*key, total, parquet=True) if plan.index.plan["parquet"] else None
    names = shard.file, shard.parquet.file if shard.parquet else None
    if names != (shards.shard_file(*key, total), view) or shard.split != key[0]:
        return f"its files are {names[0]} and {names[1]}"
    if record.note is not None and record.note.file != note_file(*key):
        return f"its note is {record.note.file}"
    return None


def damage(where: Place, record: Record, sizes: dict[str, int]) -> str | None:
    """What is wrong with the files of a record, by size and, in a folder, sha256; or None."""
    lines = (where.check(file, sizes) for file in record.files)
    return next((line for line in lines if line), None)


def misfits(where: Place, plan: Plan, records: Sequence[Record]) -> Iterator[str | None]:
    """What is wrong with the shard of each record, whose files are whole; None if nothing.

    The header is held against the plan's columns and the record's rows; in a folder the
    rows are held against the planned ones too, and the view against the planned pictures.
    """
    if isinstance(where, Folder):
        yield from (_other_rows(where.path, plan, record) for record in records)
        return
    heads = where.heads([r.shard.file for r in records if r.shard], HEAD_BYTES)
    for record in records:
        wrong = None
        if record.shard is not None:
            try:
                name = f"{where}/{record.shard.file}"
                table.check_start(name, next(heads), plan.index, record.shard)
            except ZooError as error:
                wrong = str(error)
        yield wrong


def _other_rows(folder: Path, plan: Plan, record: Record) -> str | None:
    if record.shard is None:
        return None
    view = record.shard.parquet
    try:
        arrays = table.map_shard(folder, plan.index, record.shard)
        found = plan.index.pictures if view is None else table.pictures_in(folder / view.file)
    except ZooError as error:
        return str(error)
    if view is not None and found != plan.index.pictures:
        names = [", ".join(each) or "none" for each in (found, plan.index.pictures)]
        return f"{folder / view.file} begins with pictures ({names[0]}), planned are {names[1]}"
    rows = plan.rows(record.key)
    if rows is None:
        return None
    left_out = {(row.index, row.view) for row in record.excluded}
    wrong = other_keys(arrays, rows, left_out, plan.unit_rows)
    return f"{folder / record.shard.file} {wrong}" if wrong else None


def other_keys(arrays: Arrays, rows: Rows, left_out: Set[tuple[int, int]], each: int) -> str | None:
    """What is wrong with the keys of arrays that hold these units, `each` rows of each.

    Args:
        left_out: (index, view) of units that are not among them.
    """
    kept = np.array([pair not in left_out for pair in rows.pairs()]) if left_out else slice(None)
    for name in ("index", "view"):
        if not np.array_equal(arrays[name], np.repeat(getattr(rows, name)[kept], each)):
            return f"does not hold the networks that are planned: {name} is another"
    return None


# ---- writing a shard

# Rows of a shard in order: (arrays, (index, view, reason) of what was excluded, machine).
Piece = tuple[Arrays, Sequence[tuple[int, int, str]], str]


@dataclass(frozen=True)
class Slot:
    """A shard that is to be written.

    Attributes:
        total: shards of its split.
        planned: units that it is to hold.
        shown: whether the card may show its first networks.
    """

    key: Key
    total: int
    planned: int
    shown: bool


def slot_of(plan: Plan, key: Key) -> Slot:
    """What is to be written of a planned shard."""
    last = [split for split in shards.SPLITS if plan.totals.get(split)][-1]
    shown = plan.shown and key == (last, 0)
    return Slot(key, plan.totals[key[0]], plan.sizes[key], shown)


def write(
    folder: Path, index: Index, slot: Slot, pieces: Sequence[Piece], items: Items | None = None
) -> Record:
    """Write a shard, its view and its note into a folder; the record is handed back.

    Args:
        items: pictures of the source's items, if the view shows them.
    """
    split, number = slot.key
    lost = sorted((row[0], row[1], row[2]) for _, excluded, _ in pieces for row in excluded)
    arrays = {
        name: np.concatenate([part[name] for part, _, _ in pieces])
        if len(pieces) > 1
        else np.ascontiguousarray(pieces[0][0][name])
        for name in index.columns
    }
    shard = note = None
    if len(arrays["index"]):
        machines = ", ".join(sorted({machine for _, _, machine in pieces}))
        place = (split, number, slot.total)
        shard = writing.write_shard(folder, index, *place, arrays, machines, items)
        noted = writing.note_of(index, split, arrays, slot.shown)
        shards.write_tensors(folder / note_file(*slot.key), noted)
        note = shards.describe(folder, note_file(*slot.key))
    excluded = tuple(Excluded(split, item, view, reason) for item, view, reason in lost)
    return Record(split, number, slot.planned, shard, excluded, note)


# ---- the site


def _unheld() -> None:
    """Nothing can be lost: the system holds the lock."""


class Site:
    """A zoo in the making in a place that this process holds; the methods are its phases.

    Attributes:
        root: the place that was asked for.
        where: where the zoo is made: there, or in its `.build/new` while a finished zoo
            is overwritten.
        records: of the shards that are finished.
        whole: the index, if the zoo stands there finished and nothing is to be done.
        pending: whether an overwriting of a finished zoo was begun here earlier.
        settled: whether one had come to its end but for putting the new zoo in place.
        donor: the finished zoo, if the new one is a larger one of its kind.
    """

    def __init__(
        self,
        root: Place,
        plan: Plan,
        warn: Callable[[str], None] | None = None,
        check: Callable[[], None] = _unheld,
    ):
        self.root, self.where, self.plan = root, root, plan
        self.warn = warn or (lambda line: None)
        self.check = check
        self.records: dict[Key, Record] = {}
        self.whole: Index | None = None
        self.pending = self.settled = False
        self.donor: growth.Donor | None = None
        self._shown: Arrays = {}

    # -- opening: what is there already -------------------------------------------------

    def open(self, overwrite: bool) -> None:
        """Take over what an earlier run left, or refuse it.

        Raises:
            ValueError: if something else lies there, or a zoo made otherwise.
            ZooError: if what says which zoo it is cannot be read.
        """
        sizes = self._settled()
        if INDEX_FILE in sizes:
            self._open_finished(sizes, overwrite)
        elif PLAN in sizes and not self._is_other(self.root, overwrite):
            self._go_on(self.root, sizes)
        else:
            self._start_afresh(sizes)

    def start(self, overwrite: bool) -> None:
        """Open the site for a maker that always begins with the first shard.

        Raises:
            ValueError: if something else lies there, or, unless it may be overwritten, a zoo
                that is finished or of another kind.
        """
        sizes = self._settled()
        refuse_started(self.root, overwrite)
        if INDEX_FILE in sizes:
            self._replace()
        else:
            self._start_afresh(sizes)

    def _settled(self) -> dict[str, int]:
        """Every file of the place, once what a kill left half done is done or undone."""
        refuse_foreign(self.root)
        if isinstance(self.root, Folder):
            self._sweep(self.root.path)
        self.settled = succession.settle(self.root)
        if self.settled:
            self.warn(f"{self.root}: the new zoo, which stood whole, was put in place")
        return self.root.sizes()

    def _sweep(self, folder: Path) -> None:
        """Remove temporary files that a kill left, and what is no file from `.build/`.

        Raises:
            ValueError: for a link where a folder of the zoo should be: what lies at its end
                may be another's.
            ZooError: if a plan is no plain file.
        """
        for name in (BUILD_FOLDER, *shards.ZOO_FILES, INDEX_FILE):
            path = folder / name
            if path.is_symlink() and not path.is_file():
                raise ValueError(
                    f"{path} is a link; a zoo's folder has folders of its own: replace it by one"
                )
        for pattern in (".*.tmp", "*/.*.tmp"):
            for path in folder.glob(pattern):
                path.unlink()
        for where, folders, names in os.walk(folder / BUILD_FOLDER):
            for path in (Path(where, name) for name in (*folders, *names)):
                kind = path.lstat().st_mode
                if stat.S_ISDIR(kind) or (stat.S_ISREG(kind) and path.suffix != ".tmp"):
                    continue
                if path.name == shards.PLAN_FILE:
                    schema.read_plain(path)  # raises, but for a link to a plain file
                    continue
                if not stat.S_ISREG(kind):
                    self.warn(f"{path} is no plain file; it is not used")
                path.unlink()

    def _is_other(self, where: Place, forgiving: bool) -> bool:
        """Whether the unfinished zoo there is another one, which may go.

        Raises:
            ValueError: if it is another one, unless `forgiving`.
            ZooError: if its plan cannot be read, unless `forgiving`.
        """
        try:
            theirs = read_plan(where)
        except ZooError as error:
            if forgiving:
                return True
            raise ZooError(
                f"{error}; without it nobody knows whose shards lie there: start afresh with "
                "--overwrite"
            ) from None
        differing = differences(self.plan.index, theirs)
        if differing and not forgiving:
            raise ValueError(_made_otherwise(where, differing))
        return bool(differing)

    def _start_afresh(self, sizes: dict[str, int]) -> None:
        """Begin where no finished zoo lies."""
        if any(not name.startswith(shards.LOCK_FILE) for name in sizes):
            # Tells the next run that this was a zoo, if the removal is cut.
            self.where.write(f"{BUILD_FOLDER}/overwriting", b"")
            for name in writing.OURS:
                self.where.remove(name)
        self._write_plan()

    def _open_finished(self, sizes: dict[str, int], overwrite: bool) -> None:
        if "part" in self.plan.index.plan:
            raise ValueError(
                f"{self.root} holds a finished zoo, and --shards makes a part of one; choose "
                "another --out"
            )
        new = self.root.inside(succession.NEW)
        self.pending = f"{succession.NEW}/{PLAN}" in sizes
        going_on = self.pending and not self._is_other(new, forgiving=True)
        if not overwrite or self.settled:
            theirs = self.root.read_json(INDEX_FILE)
            found = Index.from_json(theirs)
            differing = differences(self.plan.index, theirs)
            if not differing:
                self._adopt(found, sizes)
                return
            self.donor = growth.donor(self.root, found, self.plan, self.warn)
            if not (overwrite or going_on or self.donor):
                raise ValueError(_made_otherwise(self.root, differing))
        if going_on:
            self.warn(f"{self.root}: going on with the zoo that is to replace the one there")
            self.where = new
            self._go_on(new, new.sizes())
        else:
            self._replace()

    def _go_on(self, where: Place, sizes: dict[str, int]) -> None:
        """Take over an unfinished zoo, whose shards stay of one form."""
        theirs = read_plan(where)
        if "names" not in theirs["source"]:
            self.plan = self.plan.nameless()
        pictures = tuple(theirs.get("pictures", ()))
        if pictures and pictures != self.plan.index.pictures:
            self.warn(
                f"{where}: its view begins with pictures, {', '.join(pictures)}, and stays so; "
                "`wszoo view` makes the view of a finished zoo anew"
            )
        self.plan = self.plan.drawn(pictures)
        self._take(sizes)

    def _replace(self) -> None:
        """Begin a zoo beside the finished one that it is to replace."""
        self.warn(f"{self.root}: the zoo there stays until the new one is finished")
        self.root.remove(BUILD_FOLDER)
        self.where = self.root.inside(succession.NEW)
        self._write_plan()

    def _write_plan(self) -> None:
        plain = self.plan.to_json()
        if not isinstance(self.where, Folder):
            plain["address"] = None  # of this machine, which nobody else needs to know
        self.where.write_json(PLAN, plain)

    def _adopt(self, found: Index, sizes: dict[str, int]) -> None:
        """Check a finished zoo; what is damaged is made again, the rest is kept."""
        wrong = {file.file: self.root.check(file, sizes) for file in found.files}
        lines = [line for line in wrong.values() if line]
        if not lines and "README.md" in sizes:
            self.whole = found
            self._clear()
            return
        for line in lines or [f"{self.root}/README.md is missing"]:
            self.warn(f"{line}; making it again")
        mending = PLAN in sizes and not self._is_other(self.root, forgiving=True)
        whole = [view for s in found.shards if (view := s.parquet) and not wrong[view.file]]
        if whole:
            self.plan = self.plan.drawn(_pictures_in(self.root, whole[0]))
        elif mending:
            self.plan = self.plan.drawn(tuple(read_plan(self.root).get("pictures", ())))
        if mending:
            self._take(sizes)  # what an earlier mending made has records of its own
        else:
            self._clear()
            self._write_plan()
        kept = [
            record
            for key, record in adopted(found, self.plan).items()
            if key not in self.records and not any(wrong[file.file] for file in record.files)
        ]
        for record, misfit in zip(kept, misfits(self.root, self.plan, kept), strict=True):
            if misfit:
                self.warn(f"{misfit}; making it again")
            else:
                self.records[record.key] = record

    def _take(self, sizes: dict[str, int]) -> None:
        """The shards that are finished and whole, and those that only lack their names."""
        named = {record_file(*key): key for key in self.plan.sizes}
        there = sorted(name for name in sizes if name.startswith(f"{RECORDS}/"))
        read = zip(there, self.where.read(there), strict=True)
        found = {
            name: self._parsed(name, content, named.get(name), sizes) for name, content in read
        }
        records = [record for record in found.values() if record is not None]
        for record, misfit in zip(records, misfits(self.where, self.plan, records), strict=True):
            if misfit:
                self.warn(f"{misfit}; making it again")
            else:
                self.records[record.key] = record
        for name in found:
            if name not in {record_file(*key) for key in self.records}:
                self.where.remove(name)
        self._take_tasks(sizes)
        self.where.remove(TASKS)

    def _parsed(
        self, name: str, content: bytes, key: Key | None, sizes: dict[str, int]
    ) -> Record | None:
        """A record that agrees with the plan, and its files with it; else a line says why not."""
        where = f"{self.where}/{name}"
        try:
            record = Record.parse(content, where)
        except ZooError as error:
            self.warn(f"{error}; making its shard again")
            return None
        if key is None:
            self.warn(f"{where} is of no planned shard; it is not used")
        elif wrong := contradiction(record, self.plan, key):
            self.warn(f"{where} contradicts the plan: {wrong}; making its shard again")
        elif wrong := damage(self.where, record, sizes):
            self.warn(f"{wrong}; making it again")
        else:
            return record
        return None

    def _take_tasks(self, sizes: dict[str, int]) -> None:
        """Shards of tasks that ended when there was no driver any more to name them."""
        ending = f"/{TASK_RECORD}"
        names = sorted(n for n in sizes if n.startswith(f"{TASKS}/") and n.endswith(ending))
        for name, content in zip(names, self.where.read(names), strict=True):
            task = name.removesuffix(f"/{TASK_RECORD}")
            try:
                record = Record.parse(content, f"{self.where}/{name}")
            except ZooError as error:
                self.warn(f"{error}; making its shard again")
                continue
            key = record.key
            if key in self.records or key not in self.plan.sizes:
                continue
            if wrong := contradiction(record, self.plan, key):
                self.warn(f"{self.where}/{name} contradicts the plan: {wrong}; making it again")
                continue
            if self._bring(record, task, sizes):
                self.commit(record)

    def _bring(self, record: Record, task: str, sizes: dict[str, int]) -> bool:
        """Move what a task wrote to where it belongs, if all of it is whole."""
        files = [*record.files, *([record.note] if record.note else [])]
        # A driver that was killed amid its moves left some of them.
        lying = [f"{task}/{file.file}" in sizes for file in files]
        there = [
            replace(file, file=f"{task}/{file.file}") if here else file
            for file, here in zip(files, lying, strict=True)
        ]
        if any(self.where.check(file, sizes) for file in there):
            return False
        for file, here in zip(files, lying, strict=True):
            if here:
                self.where.move(f"{task}/{file.file}", file.file)
        (wrong,) = misfits(self.where, self.plan, [record])
        if wrong:
            self.warn(f"{wrong}; making it again")
        return not wrong

    # -- keeping ------------------------------------------------------------------------

    @property
    def missing(self) -> list[Key]:
        """The shards that are still to be made, in order."""
        return [key for key in self.plan.sizes if key not in self.records]

    def put(self, key: Key, pieces: Sequence[Piece]) -> None:
        """Write a shard into the folder and keep its record."""
        assert isinstance(self.where, Folder)
        slot = slot_of(self.plan, key)
        self.commit(write(self.where.path, self.plan.index, slot, pieces, self.plan.items))

    def take(self, record: Record, task: str) -> None:
        """Give the shard of a task its name and keep its record; each shard once."""
        if record.key not in self.records:
            for file in [*record.files, *([record.note] if record.note else [])]:
                self.where.move(f"{TASKS}/{task}/{file.file}", file.file)
            self.commit(record)
            self.where.remove(f"{TASKS}/{task}")

    def commit(self, record: Record) -> None:
        """Keep the record of a shard whose files lie there."""
        self.where.write_json(record_file(*record.key), record.to_json())
        self.records[record.key] = record

    # -- finishing ----------------------------------------------------------------------

    def finish(self, **changed: Any) -> Index:
        """Statistics, card and index of the shards, and the end of `.build/`.

        Args:
            changed: fields of the index that were not known before the last shard.

        Raises:
            ZooError: if no network is left.
        """
        if self.whole is not None:
            return self.whole
        ordered = [self.records[key] for key in self.plan.sizes]
        index = replace(
            self.plan.index,
            shards=tuple(record.shard for record in ordered if record.shard),
            excluded=tuple(row for record in ordered for row in record.excluded),
            **changed,
        )
        if "part" in index.plan:
            return index
        if not index.shards:
            raise ZooError(
                f"no network is left for {self.root}: all {len(index.excluded)} were excluded "
                f"({index.excluded[0].reason}); change the recipe and start afresh with "
                "--overwrite"
            )
        self.check()
        index = self._end(index, [record for record in ordered if record.shard])
        if self.where is self.root:
            self._clear()
        else:
            succession.put_in_place(self.root)
        return index

    def _end(self, index: Index, ordered: list[Record]) -> Index:
        """Write what is not a shard, the index last."""
        notes = self._notes(ordered, list(index.splits)[-1])
        if isinstance(self.where, Folder):
            if self.plan.address is not None:
                self.where.write_json(shards.ADDRESS_FILE, self.plan.address)
            return writing.finish(self.where.path, index, notes, self._samples)
        with tempfile.TemporaryDirectory(prefix="wszoo-") as scratch:
            folder = Path(scratch)
            index = writing.finish(folder, index, notes, self._samples)
            texts = sorted(path for path in folder.rglob("*") if path.is_file())
            texts.sort(key=lambda path: path.name == INDEX_FILE)
            self.check()
            for path in texts:
                self.where.write(path.relative_to(folder).as_posix(), path.read_bytes())
        return index

    def _notes(self, ordered: Sequence[Record], last: str) -> Iterator[Arrays]:
        """The note of each shard; of one without, or with another, made again from the shard."""
        there = set(self.where.sizes(NOTES)) if ordered else set()
        kept = [r.note.file for r in ordered if r.note is not None and r.note.file in there]
        contents = self.where.read(kept)
        waiting = True  # for the first shard of the last split, which the card may show
        for record in ordered:
            note = None
            if record.note is not None and record.note.file in there:
                content = next(contents)
                if hashlib.sha256(content).hexdigest() == record.note.sha256:
                    note = safetensors.numpy.load(content)
                else:
                    self.warn(f"{self.where}/{record.note.file} has changed; it is made again")
            wanted = waiting and record.split == last and self.plan.shown
            if note is None or (wanted and not writing.shown_rows(note)):
                note = writing.note_of(
                    self.plan.index, record.split, self._arrays(record), shown=wanted
                )
            if wanted:
                waiting, self._shown = False, writing.shown_rows(note)
            yield note

    def _arrays(self, record: Record) -> Arrays:
        """The rows of a shard, read again."""
        assert record.shard is not None
        if isinstance(self.where, Folder):
            return shards.read_tensors(self.where.path / record.shard.file)
        with tempfile.TemporaryDirectory(prefix="wszoo-") as scratch:
            path = Path(scratch, "shard")
            self.where.fetch(record.shard.file, path)
            return shards.read_tensors(path)

    def _samples(self) -> Samples | None:
        return self.plan.samples(self._shown) if self._shown else None

    def _clear(self) -> None:
        """Remove `.build/`, but for a zoo that is being made there to replace this one."""
        kept = {"new"} if self.pending else set()
        for name in self.root.inside(BUILD_FOLDER).names() - kept:
            self.root.remove(f"{BUILD_FOLDER}/{name}")
        if not kept:
            self.root.remove(BUILD_FOLDER)
        else:
            self.warn(f"{self.root}: a zoo that is to replace it is still unfinished")


def make(
    where: Place,
    plan: Plan,
    fill: Callable[[Site], None],
    overwrite: bool,
    warn: Callable[[str], None] | None,
) -> Index:
    """Hold a place, open the site there, have what it lacks filled in, and finish it.

    Raises:
        ValueError: if the place holds something else.
        ZooError: if it is held by another, or the disk fails.
    """
    try:
        with where.owned() as check:
            site = Site(where, plan, warn, check)
            site.open(overwrite)
            if site.whole is None:
                fill(site)
            return site.finish()
    except OSError as error:
        raise ZooError(writing.disk_message(where, error)) from error
    except MemoryError as error:
        raise ZooError(
            f"{where}: not enough memory ({error}); smaller networks, pictures or --shard-rows, or "
            "fewer --workers; what is finished is kept"
        ) from error


def refuse_foreign(where: Place) -> None:
    """ValueError if a place holds something that is no zoo."""
    names = {name for name in where.names() if not name.startswith(shards.LOCK_FILE)}
    if names and not names & {INDEX_FILE, BUILD_FOLDER}:
        raise ValueError(
            f"{where} is not empty and not a zoo ({min(names)!r} lies there); choose another --out"
        )


def source_there(where: Place) -> str | None:
    """The sha256 of the source of the zoo that lies there, finished or not; None if none does.

    A folder of pictures is then read as it was read for that zoo, which may be by an older
    version that took less of it.
    """
    plain = _plain_there(where)
    source = plain.get("source") if plain else None
    found = source.get("sha256") if isinstance(source, dict) else None
    return found if isinstance(found, str) else None


def recipe_there(where: Place) -> dict[str, Any]:
    """The recipe of the zoo that lies there, finished or not, as JSON; empty if none does."""
    plain = _plain_there(where)
    found = plain.get("recipe") if plain else None
    return found if isinstance(found, dict) else {}


def _plain_there(where: Place) -> dict[str, Any] | None:
    """The index of the zoo that lies there, or its plan, as JSON that nobody has checked."""
    try:
        if INDEX_FILE in where.names():
            plain = where.read_json(INDEX_FILE)
        elif shards.PLAN_FILE in where.inside(BUILD_FOLDER).names():
            plain = where.read_json(PLAN)
        else:
            return None
    except ZooError:  # named when the place is opened
        return None
    return plain if isinstance(plain, dict) else None


def refuse_started(where: Place, overwrite: bool) -> None:
    """ValueError if a zoo lies there that may not be begun anew by a maker without a recipe."""
    names = where.names()
    if overwrite or not names & {INDEX_FILE, BUILD_FOLDER}:
        return
    what = "a zoo"
    if INDEX_FILE not in names:
        there = shards.PLAN_FILE in where.inside(BUILD_FOLDER).names()
        if not there or recipe_class(read_plan(where)["recipe"]) is None:
            return
        what = "an unfinished zoo"
    raise ValueError(f"{where} holds {what}; choose another --out, or give --overwrite")


def _pictures_in(where: Place, view: File) -> tuple[str, ...]:
    """With which pictures the rows of a view begin, wherever it lies."""
    if isinstance(where, Folder):
        return table.pictures_in(where.path / view.file)
    with tempfile.TemporaryDirectory(prefix="wszoo-") as scratch:
        path = Path(scratch, "view")
        where.fetch(view.file, path)
        return table.pictures_in(path)


def _made_otherwise(where: object, differing: Sequence[str]) -> str:
    told = "; ".join(schema.safe(each, 300) for each in differing[:4])
    return (
        f"{where} holds a zoo made otherwise: {told}. Choose another --out, or "
        "start afresh with --overwrite"
    )


def adopted(found: Index, plan: Plan) -> dict[Key, Record]:
    """The records of a finished zoo, those too of shards of which no network is left.

    Shards that do not agree with the plan are left out: they are made again.
    """
    made = {shard.file: shard for shard in found.shards}
    lost = {(row.split, row.index, row.view): row for row in found.excluded}
    incomplete = {row.split for row in found.excluded}
    records = {}
    for key, planned in plan.sizes.items():
        rows = plan.rows(key)
        if rows is None:
            continue
        pairs = rows.pairs() if key[0] in incomplete else []
        left_out = [lost[key[0], *pair] for pair in pairs if (key[0], *pair) in lost]
        shard = made.get(shards.shard_file(*key, plan.totals[key[0]]))
        record = Record(*key, planned, shard, tuple(left_out))
        if not contradiction(record, plan, key):
            records[key] = record
    return records


def read_plan(where: Place) -> dict[str, Any]:
    """The plan of an unfinished zoo, as it stands in JSON.

    Raises:
        ZooError: if it is not JSON, or not a plan.
    """
    plain: dict[str, Any] = where.read_json(PLAN)
    schema.check(plain, _PLAN, f"{where}/{PLAN}")
    return plain


def index_of(plan: dict[str, Any]) -> Index:
    """The index without shards of a plan that stands in JSON.

    Raises:
        ZooError: if it is none.
    """
    more = ("planned", "unit_rows", "address", "pictures")
    index = Index.from_json({key: value for key, value in plan.items() if key not in more})
    return replace(index, pictures=tuple(plan.get("pictures", ())))


@dataclass(frozen=True)
class State:
    """How far a zoo in the making is.

    Attributes:
        index: without shards.
        done, total: networks on disk, and planned.
        replaces: whether a finished zoo lies there until this one is whole.
    """

    index: Index
    done: int
    total: int
    replaces: bool


def unfinished(path: str | Path) -> State | None:
    """The zoo that is being made in a folder, or None if nothing is under way.

    Raises:
        ZooError: if its plan cannot be read.
    """
    folder = Folder(Path(path))
    names = folder.names() if folder.path.is_dir() else set()
    replaces = INDEX_FILE in names
    where = folder.inside(succession.NEW) if replaces else folder
    if not (where.path / PLAN).is_file():
        return None
    plain = read_plan(where)
    index = index_of(plain)
    finished: dict[tuple[str, int], int] = {}
    for file in sorted((where.path / RECORDS).glob("*.json")):
        try:
            record = Record.parse(schema.read_plain(file), str(file))
        except ZooError:
            continue  # it will be made again
        finished[record.key] = record.planned
    done = sum(finished.values())
    for file in (where.path / CHUNKS).glob("*.safetensors"):
        if (piece := chunk_of(file.name)) and piece[:2] not in finished:
            done += piece[3]
    unit_rows, planned = plain.get("unit_rows", 1), plain.get("planned", 0)
    return State(index, min(done, planned) * unit_rows, planned * unit_rows, replaces)


def chunk_of(name: str) -> tuple[str, int, int, int, str] | None:
    """Split, number of the shard, first unit, units and start of the sha256 of a chunk's name.

    >>> chunk_of("train-00002-000128-64-0123456789abcdef.safetensors")
    ('train', 2, 128, 64, '0123456789abcdef')
    """
    stem, dot, suffix = name.partition(".")
    words = stem.split("-")
    if (dot, suffix, len(words)) != (".", "safetensors", 5):
        return None
    split, *numbers, digest = words
    if split not in shards.SPLITS or not all(word.isdecimal() for word in numbers):
        return None
    number, start, units = (int(word) for word in numbers)
    return split, number, start, units, digest
