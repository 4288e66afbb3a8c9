"""The files of a zoo and their index: what stands where, and how it gets there safely.

    README.md  zoo.json  stats.safetensors
    weights/train-00000-of-00003.safetensors    rows of one split, in row order
    data/train-00000-of-00003.parquet           the same rows, for load_dataset
    names.parquet                               file names of pictures from a folder

Every file is written under a temporary name, synced and renamed, and `zoo.json` comes
last: a folder with an index is a whole zoo, and every file in it is named there with
its size and sha256. Reading never unpickles: safetensors and JSON only.
"""

import contextlib
import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from zoo import schema, stopping
from zoo.errors import ZooError, safe_line
from zoo.files import HEAD, instead
from zoo.locks import LOCK_FILE as LOCK_FILE
from zoo.locks import one_writer as one_writer
from zoo.recipes import MEASURES, RUN_KEY, recipe_class, recipe_format, recipe_from_json
from zoo.schema import (
    NAME,
    SHA256,
    Also,
    Bool,
    Choice,
    Either,
    Int,
    Json,
    ListOf,
    MapOf,
    Maybe,
    Real,
    Record,
    Rule,
    Text,
    read_json,
    shown,
)
from zoo.spec import WHOLE_SPEC, NetworkSpec

# A zoo that uses nothing new says 1; readers of that alone refuse the next by its number.
FORMAT = 1
NEWEST = 2
SPLITS = ("train", "validation", "test")
INDEX_FILE = "zoo.json"
STATS_FILE = "stats.safetensors"
NAMES_FILE = "names.parquet"
BUILD_FOLDER = ".build"
# Where a zoo lies that is taking the place of another, until its files have their names.
NEW_FOLDER = f"{BUILD_FOLDER}/new"
PLAN_FILE = "plan.json"
# Where the source lies on this machine, if it has an address; no part of the zoo.
ADDRESS_FILE = ".source"
# What a zoo's folder holds beside its index, card and pictures among it.
ZOO_FILES = ("README.md", "weights", "data", "figures", STATS_FILE, NAMES_FILE, ADDRESS_FILE)
# Of a safetensors header; one of 20 tensors takes 2 KB.
HEADER_BYTES = 1 << 20

_SHARD_FILE = re.compile(r"weights/[a-z]+-(\d{5,9})-of-(\d{5,9})\.safetensors")


@dataclass(frozen=True)
class Column:
    """What one tensor of a shard means.

    Attributes:
        role: "weight", "bias", "target", "quality" or "key".
        kind: "tensor", "class", "real", "count" or "index".
        names: the classes of a "class" column, in label order.
        unit: of a number, such as "dB".
        storage: of a tensor that is kept in fewer bits than float32, "float16" or
            "bfloat16"; readers give float32 all the same.
    """

    role: str
    kind: str
    names: tuple[str, ...] | None = None
    unit: str | None = None
    storage: str | None = None

    @property
    def dtype(self) -> type[np.generic]:
        """Of the values in memory."""
        return np.int64 if self.kind in ("class", "count", "index") else np.float32

    @property
    def stored(self) -> type[np.generic]:
        """Of the values in a shard; numpy has no bfloat16, its bits are uint16."""
        reduced = {"float16": np.float16, "bfloat16": np.uint16}
        return reduced[self.storage] if self.storage else self.dtype


@dataclass(frozen=True)
class File:
    """A file of the zoo, by its path inside the folder."""

    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Shard(File):
    """Rows of one split; `cpu` is the machine whose bytes these are."""

    split: str
    rows: int
    cpu: str
    parquet: File | None = None


@dataclass(frozen=True)
class Excluded:
    """A network that was left out, and why."""

    split: str
    index: int
    view: int
    reason: str


@dataclass(frozen=True)
class Index:
    """Everything about a zoo but its weights; stands in `zoo.json`.

    Attributes:
        name: of the zoo, such as "mnist-inrs".
        recipe: every field of the recipe, its `kind` and `name` among them.
        source: name, sha256, shape, classes, licence, ... of what was fitted.
        plan: what else the rows depend on: seed, engine, limit, shard_rows, parquet.
        quality: per split and quality column, mean, std, min, max.
        packages: versions of what made it.
        stats: the file of normalisation statistics.
        command: the command line that makes the zoo again.
        address: what the source is opened by on this machine, where its name does not say;
            no part of the index.
        names: file names of the source's items, by index, while they are at hand to be
            written; no part of the index, where `source["names"]` vouches for their file.
        pictures: with which of `table.PICTURES` rows of the Parquet view begin; no part of the
            index, the files say it, and a plan while the zoo is made.
    """

    name: str
    recipe: dict[str, Any]
    spec: NetworkSpec
    columns: dict[str, Column]
    shards: tuple[Shard, ...]
    source: dict[str, Any]
    plan: dict[str, Any]
    quality: dict[str, Any] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    stats: File | None = None
    excluded: tuple[Excluded, ...] = ()
    command: str = ""
    address: str | None = field(default=None, compare=False)
    names: Mapping[int, str] | None = field(default=None, compare=False, repr=False)
    pictures: tuple[str, ...] = field(default=(), compare=False)

    @property
    def splits(self) -> dict[str, int]:
        """Rows of each split that has any, in the order train, validation, test."""
        rows = {split: 0 for split in SPLITS}
        for shard in self.shards:
            rows[shard.split] += shard.rows
        return {split: count for split, count in rows.items() if count}

    @property
    def rows(self) -> int:
        return sum(self.splits.values())

    @property
    def in_runs(self) -> bool:
        """Whether rows of equal index are networks of one run, in the order of its steps."""
        return RUN_KEY in self.columns

    @property
    def told(self) -> str | None:
        """The mean over all networks of the first of `recipes.MEASURES` they have, in words."""
        for measure in MEASURES:
            means = {
                split: part[measure.column]["mean"]
                for split, part in self.quality.items()
                if measure.column in part
            }
            if means:
                total = sum(mean * self.splits[split] for split, mean in means.items())
                mean = total / sum(self.splits[split] for split in means)
                return f"mean {measure.words.format(mean)}"
        return None

    @property
    def imported(self) -> bool:
        """Whether no recipe of ours made the networks."""
        return recipe_class(self.recipe) is None

    @property
    def files(self) -> list[File]:
        """Every file that the index vouches for."""
        views = [shard.parquet for shard in self.shards if shard.parquet]
        return [*self.shards, *views, *self.extras]

    @property
    def extras(self) -> list[File]:
        """The files beside the shards that reading a split needs too."""
        return [file for file in (self.stats, self.names_file) if file is not None]

    @property
    def names_file(self) -> File | None:
        """The table of the source items' file names, if it has been written."""
        named = self.source.get("names") or {}
        # A plan names the file only.
        return File(**{**named, "file": self.base + NAMES_FILE}) if "sha256" in named else None

    @property
    def base(self) -> str:
        """What all files' names begin with: "", or `NEW_FOLDER` while an older zoo makes room."""
        base = f"{NEW_FOLDER}/"
        return base if self.shards and self.shards[0].file.startswith(base) else ""

    @property
    def format(self) -> int:
        """The oldest format that has all that the zoo uses.

        What format 2 has more: names of files, a source with validation items of its own,
        pictures that are not cropped to a square, networks of `NetworkSpec.format` 2.
        """
        newer = {"names", "validation_items", "fit"} & self.source.keys()
        old = not newer and not isinstance(self.source.get("size"), str)
        return max(self.spec.format, recipe_format(self.recipe)) if old else 2

    def to_json(self) -> dict[str, Any]:
        few = asdict(replace(self, shards=(), names=None))
        plain = {"format": self.format, "name": self.name, "splits": self.splits, **few}
        # asdict takes 20 us a shard, and there may be 100,000.
        plain["shards"] = [
            {**vars(shard), "parquet": dict(vars(shard.parquet)) if shard.parquet else None}
            for shard in self.shards
        ]
        plain["spec"] = self.spec.to_json()
        del plain["address"], plain["names"], plain["pictures"]
        for column in plain["columns"].values():
            column["names"] = None if column["names"] is None else list(column["names"])
            if column["storage"] is None:  # the index of exact zoos stays as it was
                del column["storage"]
        plain["excluded"] = list(plain["excluded"])
        return plain

    @classmethod
    def from_json(cls, plain: Any, name: str = INDEX_FILE) -> "Index":
        """The inverse of `to_json`; everything is checked, see `INDEX` and `_contradictions`.

        Args:
            name: of the file, for messages.

        Raises:
            ZooError: if the format is newer than this code; or naming the field that is
                missing, unknown, wrong, or contradicts another.
        """
        if not isinstance(plain, dict):
            raise ZooError(f"{name}: not an index: expected an object, got {shown(plain)}")
        version = plain.get("format")
        if type(version) is not int or version < 1:
            raise ZooError(f"{name}: expected a format number, got {shown(version)}")
        if version > NEWEST:
            raise ZooError(
                f"{name}: format {version} is newer than format {NEWEST}, the last one this "
                "wszoo reads; upgrade wszoo"
            )
        schema.check(plain, INDEX, name)
        rest = {k: v for k, v in plain.items() if k not in ("format", "splits")}
        try:
            rest["spec"] = NetworkSpec.from_json(plain["spec"])
        except ValueError as error:
            raise ZooError(f"{name}: spec: {safe_line(error, 400)}") from None
        rest["columns"] = {
            key: Column(**{**column, "names": tuple(column["names"]) if column["names"] else None})
            for key, column in plain["columns"].items()
        }
        rest["shards"] = tuple([_shard(shard) for shard in plain["shards"]])
        rest["excluded"] = tuple(Excluded(**row) for row in plain.get("excluded", ()))
        rest["stats"] = File(**plain["stats"]) if plain.get("stats") else None
        index = cls(**rest)
        # A higher one than it needs has lost what it needed that for.
        if version != index.format:
            raise ZooError(f"{name}: format: expected {index.format}, which it uses, got {version}")
        for wrong in _contradictions(index, plain["splits"]):
            raise ZooError(f"{name}: {safe_line(wrong, 400)}")
        return index


def shard_from_json(plain: Any, name: str = "a shard") -> Shard:
    """A shard's record, as it stands in the index and in the build folder.

    Args:
        name: of the file that it stands in, for messages.

    Raises:
        ZooError: naming the field that is missing, unknown or wrong.
    """
    schema.check(plain, SHARD, name)
    shard = _shard(plain)
    for wrong in _misnamed([shard]):
        raise ZooError(f"{name}: {wrong}")
    return shard


def _shard(plain: Mapping[str, Any]) -> Shard:
    parquet = File(**plain["parquet"]) if plain["parquet"] else None
    return Shard(**{**plain, "parquet": parquet})


# ---- what an index may say


def _outside(name: str) -> str | None:
    strange = not name.isprintable() or "\\" in name or ":" in name
    if strange or any(part in ("", ".", "..") for part in name.split("/")):
        return f"{shown(name)} lies outside the zoo's folder"
    return None


_BYTES = Int(low=1, high=2**53)
_FILE: dict[str, Rule] = {
    "file": Also(Text(most=255), _outside),
    "bytes": _BYTES,
    "sha256": SHA256,
}
_KEY = Int(low=0, high=2**63 - 1)
_COUNT = Int(low=1, high=2**53)
_SPLIT = Choice(*SPLITS)
SHARD = Record(
    {
        **_FILE,
        "split": _SPLIT,
        "rows": _COUNT,
        "cpu": Text(most=1000),
        "parquet": Maybe(Record(_FILE)),
    }
)
_COLUMN = Also(
    Record(
        {
            "role": Choice("weight", "bias", "target", "quality", "key"),
            "kind": Choice("tensor", "class", "real", "count", "index"),
            "names": Maybe(ListOf(Text())),
            "unit": Maybe(Text()),
        },
        {"storage": Maybe(Choice("float16", "bfloat16"))},
    ),
    lambda column: (
        f"names are of a class only, the kind is {column['kind']!r}"
        if column["names"] is not None and column["kind"] != "class"
        else None
    ),
)
PLAN = Record(
    {"shard_rows": _COUNT, "parquet": Bool()},
    {
        "seed": Int(low=0, high=2**32 - 1),
        "engine": NAME,
        "limit": Maybe(_COUNT),
        "dtype": Choice("float32", "float16", "bfloat16"),
        "part": Text(r"\d+-\d+/\d+", "a part such as 0-99/1000", most=100),
    },
)
# Further fields are free: each kind of source says what is worth saying of it.
SOURCE = Record(
    {"name": NAME},
    {
        **{key: Text() for key in ("title", "license", "url", "citation", "kind")},
        "sha256": Maybe(SHA256),
        "items": _COUNT,
        "train_items": _KEY,
        "points": _COUNT,
        "size": Maybe(Either(_COUNT, Text(r"\d{1,5}x\d{1,5}", "pixels as WxH"))),
        "shape": ListOf(_COUNT, least=1, most=8),
        "class_names": ListOf(Text()),
        "names": Also(
            Record({"file": Choice(NAMES_FILE)}, {"bytes": _BYTES, "sha256": SHA256}),
            lambda named: "lacks bytes or sha256" if len(named) == 2 else None,
        ),
    },
    others=Json(),
)
# Of `zoo.json` as a whole; what its parts say of each other is held by `_contradictions`.
INDEX = Record(
    {
        "format": Int(low=1, high=NEWEST),
        "name": Text(),
        "splits": MapOf(_COUNT, keys=_SPLIT),
        "recipe": Record({"kind": NAME}, {"name": Text()}, others=Json()),
        "spec": WHOLE_SPEC,
        "columns": MapOf(_COLUMN, least=1),
        "shards": ListOf(SHARD, unique=lambda shard: shard["file"], key="file"),
        "source": SOURCE,
        "plan": PLAN,
    },
    {
        "quality": MapOf(
            MapOf(Record({key: Real() for key in ("mean", "std", "min", "max")})), keys=_SPLIT
        ),
        "packages": MapOf(Text()),
        "stats": Maybe(Record(_FILE)),
        "excluded": ListOf(
            Record({"split": _SPLIT, "index": _KEY, "view": _KEY, "reason": Text()})
        ),
        "command": Text(),
    },
)


def _contradictions(index: Index, splits: Mapping[str, int]) -> Iterator[str]:
    """What parts of an index say against each other, each with its field."""
    yield from _of_recipe(index)
    yield from _of_columns(index)
    yield from _of_shards(index, splits)
    yield from _of_quality(index)


def _of_recipe(index: Index) -> Iterator[str]:
    """Network, columns and source are those of the recipe; the plan has what such a one wants."""
    source = index.source
    if index.imported:
        return  # of an import, or made by others
    try:
        recipe = recipe_from_json(index.recipe)
    except ValueError as error:
        yield f"recipe: {schema.safe(error, 500)}"
        return
    facts = recipe.facts()
    for part, given, wanted in (
        ("plan", index.plan, ("seed", "engine", "limit")),
        ("source", source, ("sha256", "items", *facts)),
    ):
        for key in wanted:
            if key not in given:
                yield f"{part}.{key}: is missing; the recipe {recipe.name!r} wants it"
                return
    if source["sha256"] is None:
        yield "source.sha256: expected a sha256 of 64 hex digits, got null"
    for key, value in facts.items():
        if source[key] != value:
            yield f"source.{key}: expected {shown(value)} by the recipe, got {shown(source[key])}"
    try:
        spec = recipe.spec_of(source, index.plan["seed"])
    except ValueError as error:
        yield f"source: its shape and class_names give no network ({schema.safe(error, 500)})"
        return
    if not spec.close_to(index.spec):
        yield f"spec: is not the one that the recipe gives, {shown(spec.to_json())}"
    dtype = index.plan.get("dtype", "float32")
    others = {
        name: Column(**column)
        for name, column in recipe.columns(source.get("class_names", []), dtype).items()
    }
    expected = zoo_columns(spec, others, dtype)
    for name in dict.fromkeys([*expected, *index.columns]):
        if name not in index.columns:
            yield f"columns.{name}: is missing, which recipe and source.class_names give"
        elif name not in expected:
            yield f"columns: recipe and source.class_names give no column {shown(name)}"
        elif index.columns[name] != expected[name]:
            place, got = f"columns.{name}", shown(vars(index.columns[name]))
            yield f"{place}: is not that of recipe and source.class_names, but {got}"


def _of_columns(index: Index) -> Iterator[str]:
    """Keys first; the tensors are those of the spec, stored alike."""
    tensors = index.spec.tensors
    for name in ("index", "view"):
        if index.columns.get(name) != Column("key", "index"):
            yield f"columns.{name}: expected a key of kind 'index', as every zoo has"
    for name in tensors:
        if name not in index.columns:
            yield f"columns.{name}: is missing, a tensor of the spec"
    dtype = index.plan.get("dtype", "float32")
    storage = None if dtype == "float32" else dtype
    for name, column in index.columns.items():
        place = f"columns.{name if name.isidentifier() else shown(name)}"
        if name in tensors:
            expected = Column(name.partition("_")[0], "tensor", storage=storage)
            if column != expected:
                yield (
                    f"{place}: expected role {expected.role!r}, kind 'tensor' and storage "
                    f"{shown(storage)} (plan.dtype), got {column.role!r}, {column.kind!r} and "
                    f"{shown(column.storage)}"
                )
        elif column.kind == "tensor" or column.role in ("weight", "bias"):
            yield f"{place}: is no tensor of the spec, which has {', '.join(tensors)}"
        elif column.storage:
            yield f"{place}.storage: is of tensors only, got {column.storage!r}"


def _of_shards(index: Index, splits: Mapping[str, int]) -> Iterator[str]:
    """Files are named and sized as their rows want, in order; the splits add up to them."""
    yield from _misnamed(index.shards, index.base)
    order = [SPLITS.index(shard.split) for shard in index.shards]
    if order != sorted(order):
        yield f"shards: expected those of {', '.join(SPLITS)} in this order"
    views = {shard.parquet is not None for shard in index.shards}
    if len(views) > 1:
        yield "shards: some have a Parquet view and some have none"
    width = row_bytes(index)
    for number, shard in enumerate(index.shards):
        # 8 bytes say how long the header is, the header describes the tensors.
        header = shard.bytes - 8 - shard.rows * width
        if not 0 < header <= HEADER_BYTES:
            yield (
                f"shards[{number}].bytes: {shard.bytes} bytes do not hold {shard.rows} rows of "
                f"{width} bytes each"
            )
    if index.splits != splits:
        yield f"splits: they say {shown(splits)}, the shards add up to {shown(index.splits)}"
    limit = index.plan.get("limit")
    rows = index.rows + len(index.excluded)
    if limit is not None and not index.in_runs and rows > limit:
        yield f"plan.limit: {limit} networks at most, there are {rows}"
    if index.stats is not None and index.stats.file != index.base + STATS_FILE:
        yield f"stats.file: expected {index.base + STATS_FILE!r}, got {shown(index.stats.file)}"
    if index.stats is None and "train" in index.splits:
        yield "stats: is missing, though there are networks to train on"
    size = stats_bytes(index.spec)
    if index.stats is not None and not 0 < index.stats.bytes - 8 - size <= HEADER_BYTES:
        yield (
            f"stats.bytes: {index.stats.bytes} bytes do not hold the {size} bytes that the spec's "
            "statistics take"
        )


def _misnamed(shards: Sequence[Shard], base: str = "") -> Iterator[str]:
    """Shards whose files do not have the names of their split, number and total."""
    before: dict[str, tuple[int, int]] = {}
    for place, shard in enumerate(shards):
        where = f"shards[{place}]" if len(shards) > 1 else "shard"
        found = _SHARD_FILE.fullmatch(shard.file, len(base))
        number, total = (int(found[1]), int(found[2])) if found else (0, 0)
        name = base + shard_file(shard.split, number, total)
        if not found or shard.file != name or number >= total:
            expected = base + shard_file(shard.split, 0, 1)
            yield f"{where}.file: expected a name such as {expected}, got {shown(shard.file)}"
            continue
        if shard.parquet is not None:
            view = base + shard_file(shard.split, number, total, parquet=True)
            if shard.parquet.file != view:
                yield f"{where}.parquet.file: expected {view}, got {shown(shard.parquet.file)}"
        last, of = before.get(shard.split, (-1, total))
        if number <= last or total != of:
            yield f"{where}.file: {shard.file} comes after number {last} of {of}"
        before[shard.split] = number, total


def _of_quality(index: Index) -> Iterator[str]:
    """The summaries are of the quality columns of every split, and ordered."""
    measured = {name for name, column in index.columns.items() if column.role == "quality"}
    for split, columns in index.quality.items():
        if split not in index.splits:
            yield f"quality.{split}: the zoo has no such split"
        if columns.keys() != measured:
            yield (
                f"quality.{split}: expected the columns {', '.join(sorted(measured))}, got "
                f"{shown(sorted(columns))}"
            )
        for name, values in columns.items():
            # Means of equal values are rounded.
            slack = 1e-6 * (abs(values["min"]) + abs(values["max"]))
            if values["std"] < 0 or not (
                values["min"] - slack <= values["mean"] <= values["max"] + slack
            ):
                yield f"quality.{split}.{name}: expected min <= mean <= max and std >= 0"
    wanted = index.quality or not index.imported
    if wanted and index.quality.keys() != index.splits.keys():
        yield f"quality: expected the splits {', '.join(index.splits)}"


def row_bytes(index: Index) -> int:
    """Bytes of one row in a shard, all its columns."""
    tensors = index.spec.tensors
    return sum(
        np.dtype(column.stored).itemsize * math.prod(tensors.get(name, ()))
        for name, column in index.columns.items()
    )


def stats_bytes(spec: NetworkSpec) -> int:
    """Bytes of the values in `stats.safetensors`: float64 means and deviations."""
    return 16 * (spec.param_count + len(spec.tensors))


def read_index(folder: Path) -> Index:
    """The index of a finished zoo.

    Raises:
        ZooError: if there is none, or it is not readable as one.
    """
    path = folder / INDEX_FILE
    if not path.is_file():
        plan = folder / BUILD_FOLDER / PLAN_FILE
        if plan.is_file() and (part := read_json(plan)["plan"].get("part")):
            raise ZooError(f"{folder} is part {part} of a zoo; `wszoo merge` joins its parts")
        if (folder / BUILD_FOLDER).is_dir():
            raise ZooError(
                f"{folder} is not finished; run the command that makes it again to go on, "
                f"or see `wszoo info {folder}`"
            )
        what = "has no zoo.json" if folder.is_dir() else "does not exist"
        raise ZooError(f"{folder} is not a zoo: it {what}")
    index = Index.from_json(read_json(path), str(path))
    beside = folder / ADDRESS_FILE
    if not beside.is_file():
        return index
    address = read_json(beside)
    if not isinstance(address, str):
        raise ZooError(f"{beside}: expected the name of a source, got {shown(address)}")
    return replace(index, address=address)


def write_index(folder: Path, index: Index) -> None:
    """Write `zoo.json`, the last file of a zoo."""
    write_json(folder / INDEX_FILE, index.to_json())


def write_json(path: Path, plain: Any) -> None:
    """Write JSON durably: whole under its name, or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json_text(plain), encoding="utf-8")


def json_text(plain: Any) -> str:
    """Plain data as it stands in a file."""
    return json.dumps(plain, indent=1, allow_nan=False) + "\n"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that is synced and renamed onto it on success."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    # Of a write that was cut; or a pipe or link, which would block it or lead it elsewhere.
    temporary.unlink(missing_ok=True)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sync_folder(path: Path) -> None:
    """Have the names in a folder survive a power cut."""
    if os.name == "posix":
        directory = os.open(path, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


STORAGE = ("float32", "float16", "bfloat16")


def round_to(values: NDArray[np.float32], storage: str) -> NDArray[np.float32]:
    """Values rounded to the nearest that a storage type holds, ties to even.

    >>> round_to(np.float32([1 / 3]), "bfloat16")
    array([0.33398438], dtype=float32)
    """
    return values if storage == "float32" else widen(narrow(values, storage))


def narrow(values: NDArray[np.float32], storage: str) -> NDArray[Any]:
    """Values as they stand in a shard; bfloat16 as its bits, uint16."""
    if storage == "float16":
        with np.errstate(over="ignore"):
            return values.astype(np.float16)
    if storage == "bfloat16":
        bits = values.view(np.uint32)
        # The upper half, plus one where the lower half is above, or at an odd, half.
        return ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)
    return values


def widen(stored: NDArray[Any]) -> NDArray[Any]:
    """The inverse of `narrow`: float16 and bfloat16 become float32, the rest stays."""
    if stored.dtype == np.float16:
        return stored.astype(np.float32)
    if stored.dtype == np.uint16:
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored


def write_tensors(
    path: Path, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file durably; uint16 is written as bfloat16."""
    # The numpy writer takes the memory as it lies, so strided arrays would be written wrong.
    whole = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    with replacing(path) as temporary:
        # save_file would hide a full disk behind an error of its own; bytes raise OSError.
        temporary.write_bytes(_serialised(whole, dict(metadata or {}) or None))


def _serialised(whole: Mapping[str, NDArray[Any]], metadata: dict[str, str] | None) -> bytes:
    if not any(array.dtype == np.uint16 for array in whole.values()):
        return safetensors.numpy.save(dict(whole), metadata)
    # The numpy writer of safetensors knows no bfloat16; the format is a header of JSON,
    # padded to 8 bytes, and the tensors, the widest types first so that all are aligned.
    kinds = {"float32": "F32", "int64": "I64", "float16": "F16", "uint16": "BF16"}
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    parts, place = [], 0
    for name in sorted(whole, key=lambda name: (-whole[name].itemsize, name)):
        array = whole[name]
        span = [place, place + array.nbytes]
        kind = kinds[array.dtype.name]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": span}
        parts.append(array.tobytes())
        place = span[1]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def read_tensors(path: Path, file: File | None = None) -> dict[str, NDArray[Any]]:
    """All tensors of a safetensors file, copied into memory, reduced floats as float32.

    Args:
        file: what the index says of it; its size and sha256 are then demanded.

    Raises:
        ZooError: if the file is missing, no plain file, damaged, or not what `file` says.
    """
    with schema.open_plain(path) as opened:
        size = os.fstat(opened.fileno()).st_size
        if file is not None and size != file.bytes:
            raise ZooError(f"{path} has {size} bytes, the index says {file.bytes}")
        content = opened.read(size)
    if file is not None and hashlib.sha256(content).hexdigest() != file.sha256:
        raise ZooError(f"{path}{_CHANGED}")
    try:
        parts = safetensors.deserialize(content)
        kinds = {"F32": np.float32, "I64": np.int64, "F64": np.float64, "F16": np.float16,
                 "BF16": np.uint16}  # fmt: skip
        return {
            name: widen(np.frombuffer(part["data"], kinds[part["dtype"]]).reshape(part["shape"]))
            for name, part in parts
        }
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        what = instead(content[:HEAD], "a safetensors file")
        raise ZooError(f"{path}: not a safetensors file ({schema.safe(error)}){what}") from error


def read_stats(folder: Path, index: Index) -> dict[str, NDArray[np.float64]]:
    """The normalisation statistics of a zoo, held against its index and its spec.

    Raises:
        ZooError: if the zoo has none, the file is not the one of the index, or it holds
            anything but means and deviations of every tensor, finite, none negative.
    """
    if index.stats is None:
        raise ZooError(f"{folder / INDEX_FILE} names no file of statistics")
    path = folder / index.stats.file
    found = read_tensors(path, index.stats)
    expected = {
        f"{part}.{kind}.{name}": shape if part == "entry" else (1,)
        for name, shape in index.spec.tensors.items()
        for part in ("entry", "tensor")
        for kind in ("mean", "std")
    }
    for key, shape in expected.items():
        array = found.get(key)
        if array is None or array.shape != shape or array.dtype != np.float64:
            got = "none" if array is None else f"{array.dtype} {array.shape}"
            raise ZooError(f"{path}: expected {key} float64 {shape}, got {got}")
        if not np.isfinite(array).all():
            raise ZooError(f"{path}: {key} has values that are not finite")
        if ".std." in key and array.min() < 0:
            raise ZooError(f"{path}: {key} has a negative standard deviation, {array.min()}")
    if extra := sorted(found.keys() - expected.keys()):
        raise ZooError(f"{path}: {shown(extra)} are no statistics of the zoo's tensors")
    return found


def part_of(text: str) -> tuple[int, int, int]:
    """Which parts of the list of shards a text means, and of how many.

    >>> part_of("0-99/1000"), part_of("7/10")
    ((0, 99, 1000), (7, 7, 10))

    Raises:
        ValueError: if the text means nothing.
    """
    found = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?/(\d{1,9})", text)
    first, last, of = (int(word or found[1]) for word in found.groups()) if found else (0, 0, 0)
    if not first <= last < of:
        raise ValueError(
            "--shards: expected shards as FIRST-LAST/PARTS, counted from 0, such as 0-99/1000, "
            f"got {text!r}"
        )
    return first, last, of


def shard_file(split: str, number: int, total: int, parquet: bool = False) -> str:
    """The path of a shard inside the folder.

    >>> shard_file("train", 0, 3)
    'weights/train-00000-of-00003.safetensors'
    """
    folder, suffix = ("data", "parquet") if parquet else ("weights", "safetensors")
    return f"{folder}/{split}-{number:05d}-of-{total:05d}.{suffix}"


def describe(folder: Path, file: str) -> File:
    """Size and sha256 of a file that is there."""
    path = folder / file
    return File(file, path.stat().st_size, sha256(path))


def sha256(path: Path) -> str:
    """The hex digest of a plain file, equal to the Hub's object id of it."""
    with schema.open_plain(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_CHANGED = " does not have the sha256 of the index: its content has changed"


def check_file(folder: Path, file: File, hashes: bool) -> str | None:
    """What is wrong with a file of the index, or None; one line that names it."""
    stopping.check()
    path = folder / file.file
    try:
        with schema.open_plain(path) as opened:
            size = os.fstat(opened.fileno()).st_size
            wrong = ""
            if size != file.bytes:
                wrong = f"{path} has {size} bytes, the index says {file.bytes}"
            elif hashes and hashlib.file_digest(opened, "sha256").hexdigest() != file.sha256:
                wrong = f"{path}{_CHANGED}"
            if wrong:
                kind = "a Parquet file" if path.suffix == ".parquet" else "a safetensors file"
                return wrong + instead(path, kind)
    except ZooError as error:
        return str(error)
    return None


def zoo_columns(
    spec: NetworkSpec, others: Mapping[str, Column], storage: str = "float32"
) -> dict[str, Column]:
    """Keys, then `others`, then the tensors of `spec`: the order of a row's columns."""
    reduced = None if storage == "float32" else storage
    named = {"index": Column("key", "index"), "view": Column("key", "index"), **others}
    for name in spec.tensors:
        named[name] = Column(name.partition("_")[0], "tensor", storage=reduced)
    return named
