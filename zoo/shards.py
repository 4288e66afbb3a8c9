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
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from zoo import stopping
from zoo.errors import ZooError
from zoo.locks import LOCK_FILE as LOCK_FILE
from zoo.locks import one_writer as one_writer
from zoo.spec import NetworkSpec

FORMAT = 2  # the highest that is read; a zoo that uses nothing new says 1
SPLITS = ("train", "validation", "test")
INDEX_FILE = "zoo.json"
STATS_FILE = "stats.safetensors"
NAMES_FILE = "names.parquet"
BUILD_FOLDER = ".build"
PLAN_FILE = "plan.json"
# Where the source lies on this machine, if it has an address; no part of the zoo.
ADDRESS_FILE = ".source"
# What a zoo's folder holds beside its index, card and pictures among it.
ZOO_FILES = ("README.md", "weights", "data", "figures", STATS_FILE, NAMES_FILE, ADDRESS_FILE)


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
    def files(self) -> list[File]:
        """Every file that the index vouches for."""
        views = [shard.parquet for shard in self.shards if shard.parquet]
        return [*self.shards, *views, *self.extras]

    @property
    def extras(self) -> list[File]:
        """The files beside the shards that reading a split needs too."""
        found = [self.stats] if self.stats else []
        named = self.source.get("names") or {}
        # A plan names the file only, which is not written yet.
        return [*found, File(**{**named, "file": NAMES_FILE})] if "sha256" in named else found

    @property
    def format(self) -> int:
        """The oldest format that has all that the zoo uses.

        What format 2 has more: names of files, a source with validation items of its own,
        pictures that are not cropped to a square.
        """
        newer = {"names", "validation_items", "fit"} & self.source.keys()
        return 2 if newer or isinstance(self.source.get("size"), str) else 1

    def to_json(self) -> dict[str, Any]:
        few = asdict(replace(self, shards=(), names=None))
        plain = {"format": self.format, "name": self.name, "splits": self.splits, **few}
        # asdict takes 20 us a shard, and there may be 100,000.
        plain["shards"] = [
            {**vars(shard), "parquet": dict(vars(shard.parquet)) if shard.parquet else None}
            for shard in self.shards
        ]
        plain["spec"] = self.spec.to_json()
        del plain["address"], plain["names"]
        for column in plain["columns"].values():
            if column["storage"] is None:  # the index of exact zoos stays as it was
                del column["storage"]
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> "Index":
        """The inverse of `to_json`.

        Raises:
            ZooError: if the format is newer than this code, or a part is missing or
                names a file outside the folder.
        """
        if not isinstance(plain, Mapping):
            raise ZooError(f"{INDEX_FILE}: not an index: expected an object, got {plain!r:.40}")
        version = plain.get("format")
        if not isinstance(version, int):
            raise ZooError(f"{INDEX_FILE}: expected a format number, got {version!r}")
        if version > FORMAT:
            raise ZooError(
                f"{INDEX_FILE}: format {version} is newer than format {FORMAT}, the last one this "
                "wszoo reads; upgrade wszoo"
            )
        try:
            apart = ("format", "splits", "address", "names")
            rest = {key: value for key, value in plain.items() if key not in apart}
            rest["spec"] = NetworkSpec.from_json(rest["spec"])
            rest["columns"] = {
                name: Column(**{**c, "names": tuple(c["names"]) if c["names"] else None})
                for name, c in rest["columns"].items()
            }
            rest["shards"] = tuple(shard_from_json(shard) for shard in rest["shards"])
            rest["excluded"] = tuple(Excluded(**row) for row in rest.get("excluded", ()))
            rest["stats"] = File(**rest["stats"]) if rest.get("stats") else None
            index = cls(**rest)
            names = [(file.file, file.file.split("/")) for file in index.files]
            splits = index.splits
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ZooError(f"{INDEX_FILE}: not an index of format {version}: {error}") from error
        for name, parts in names:
            if name.startswith("/") or ".." in parts or "\\" in name:
                raise ZooError(f"{INDEX_FILE}: {name!r} lies outside the zoo's folder")
        if splits != plain.get("splits"):
            raise ZooError(
                f"{INDEX_FILE}: splits say {plain.get('splits')}, the shards add up to {splits}"
            )
        return index


def shard_from_json(plain: Mapping[str, Any]) -> Shard:
    """A shard's record, as it stands in the index and in the build folder."""
    parquet = File(**plain["parquet"]) if plain["parquet"] else None
    return Shard(**{**plain, "parquet": parquet})


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
    index = Index.from_json(read_json(path))
    beside = folder / ADDRESS_FILE
    if not beside.is_file():
        return index
    address = read_json(beside)
    if not isinstance(address, str):
        raise ZooError(f"{beside}: expected the name of a source, got {address!r:.40}")
    return replace(index, address=address)


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        ZooError: if it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise ZooError(f"{path}: not JSON ({error})") from error


def write_index(folder: Path, index: Index) -> None:
    """Write `zoo.json`, the last file of a zoo."""
    write_json(folder / INDEX_FILE, index.to_json())


def write_json(path: Path, plain: Any) -> None:
    """Write JSON durably: whole under its name, or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(plain, indent=1, allow_nan=False) + "\n", encoding="utf-8")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that is synced and renamed onto it on success."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
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


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """All tensors of a safetensors file, copied into memory, reduced floats as float32.

    Raises:
        ZooError: if the file is missing or damaged.
    """
    try:
        parts = safetensors.deserialize(path.read_bytes())
        kinds = {"F32": np.float32, "I64": np.int64, "F64": np.float64, "F16": np.float16,
                 "BF16": np.uint16}  # fmt: skip
        return {
            name: widen(np.frombuffer(part["data"], kinds[part["dtype"]]).reshape(part["shape"]))
            for name, part in parts
        }
    except FileNotFoundError:
        raise ZooError(f"{path} is missing") from None
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise ZooError(f"{path}: not a safetensors file ({error})") from error


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
    """The hex digest of a file, equal to the Hub's object id of it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_file(folder: Path, file: File, hashes: bool) -> str | None:
    """What is wrong with a file of the index, or None; one line that names it."""
    stopping.check()
    path = folder / file.file
    if not path.is_file():
        return f"{path} is missing"
    size = path.stat().st_size
    if size != file.bytes:
        return f"{path} has {size} bytes, the index says {file.bytes}"
    if hashes and sha256(path) != file.sha256:
        return f"{path} does not have the sha256 of the index: its content has changed"
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
