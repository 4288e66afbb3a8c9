"""Lays shards out as Arrow: the zero-copy `datasets` table and the Parquet view.

A shard's columns are mapped, not read, and Arrow's arrays point into the mapping; only
the offsets that Arrow wants for nested lists are new memory, some 6 % of a 2-32-32-1
network. pyarrow and datasets are imported where they are used, so that training needs
neither.
"""

import functools
import json
import math
import mmap
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from zoo import png, schema
from zoo.errors import ZooError, safe_line
from zoo.files import HEAD, instead
from zoo.recipes import MEASURES
from zoo.shards import HEADER_BYTES, Index, Shard, check_file, read_index, replacing, widen

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

# A row of a table -> the same table changed: name, arguments, named arguments.
Replay: TypeAlias = tuple[str, tuple[Any, ...], dict[str, Any]]

GROUP_BYTES = 64 << 20
# Of a row; columns with such are worth a call of the system for each.
LARGE_BYTES = 64 << 10

# With these a Parquet file repeats the very bytes of its safetensors shard in long runs,
# of which the Hub's storage keeps one copy: 93-96 % of the file, against 3 % with the
# defaults of pyarrow or datasets (measured on SIRENs with hf_xet 1.8).
CHUNKING = {"min_chunk_size": 4 << 20, "max_chunk_size": 16 << 20, "norm_level": 0}
PARQUET: dict[str, Any] = {
    "compression": "NONE",
    "use_dictionary": False,
    "write_page_index": True,
    "use_content_defined_chunking": CHUNKING,
    "data_page_size": 32 << 20,
    "max_rows_per_page": 1 << 30,
}
# What a row of the view of a zoo of pictures begins with: what the network renders, and what it
# was fitted to.
PICTURES = ("image", "original")
# One percent longer than the shortest, in two thirds of the time.
_PNG_LEVEL = 6
_DTYPES = {
    np.dtype("int64"): "I64",
    np.dtype("float32"): "F32",
    np.dtype("float16"): "F16",
    np.dtype("uint16"): "BF16",  # its bits
}


def row_shapes(index: Index) -> dict[str, tuple[int, ...]]:
    """The shape of one row of every column; () for those that are one number.

    Raises:
        ZooError: if the tensor columns are not those of the index's spec.
    """
    tensors = {name for name, column in index.columns.items() if column.kind == "tensor"}
    if tensors != set(index.spec.tensors):
        raise ZooError(
            f"zoo.json: the tensor columns {sorted(tensors)} are not those of its spec, "
            f"{sorted(index.spec.tensors)}"
        )
    return {name: index.spec.tensors.get(name, ()) for name in index.columns}


def map_shard(folder: Path, index: Index, shard: Shard) -> dict[str, NDArray[Any]]:
    """Every column of a shard as a read-only view of the mapped file, `row ...`.

    Tensors in reduced storage are as they are stored; see `shards.widen`.

    Nothing but the header is read. The header is parsed here and not by the
    safetensors package, which would take a file that contradicts the index.

    Raises:
        ZooError: if the file is missing, no plain file, of another size than the index
            says, or its header is not exactly what the index says: names, types, shapes,
            and data without gap or overlap.
    """
    path = folder / shard.file
    with schema.open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size != shard.bytes:
            what = instead(path, "a safetensors file")
            raise ZooError(f"{path} has {size} bytes, the index says {shard.bytes}{what}")
        if size < 8:
            raise ZooError(f"{path}: {size} bytes are too few for a safetensors file")
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    length = int.from_bytes(data[:8], "little")
    if length > min(HEADER_BYTES, size - 8) or length % 8:
        what = instead(data[:HEAD], "a safetensors file")
        raise ZooError(
            f"{path}: a header of {length} bytes in a file of {size}; expected a multiple of 8, "
            f"at most {HEADER_BYTES}{what}"
        )
    header = schema.parse(data[8 : 8 + length], f"{path}: the header")
    starts = _check_header(path, header, index, shard.rows, size - 8 - length)
    return {
        name: np.ndarray(
            (shard.rows, *shape),
            index.columns[name].stored,
            buffer=data,
            offset=8 + length + starts[name],
        )
        for name, shape in row_shapes(index).items()
    }


def check_start(name: str, start: bytes, index: Index, shard: Shard) -> None:
    """Hold the header of a shard against the index, where only its first bytes are at hand.

    A header that goes beyond them is not looked at.

    Args:
        name: of the file, for messages.

    Raises:
        ZooError: if it is not exactly what the index says.
    """
    length = int.from_bytes(start[:8], "little")
    if length > min(HEADER_BYTES, shard.bytes - 8):
        raise ZooError(f"{name}: a header of {length} bytes in a file of {shard.bytes}")
    if length > len(start) - 8:
        return
    try:
        header = json.loads(start[8 : 8 + length])
    except (ValueError, RecursionError) as error:
        raise ZooError(f"{name}: the header is not JSON ({error})") from error
    _check_header(name, header, index, shard.rows, shard.bytes - 8 - length)


def announce(column: NDArray[Any], rows: NDArray[np.int64]) -> None:
    """Have the system read these rows of a mapped column ahead, and nothing else.

    Without it each row that is not in memory yet is read at its first touch, one after
    the other, with as much around it as the system reads ahead: with 8 MB, as some
    machines have it, twenty times a row of 0.4 MB. Meant for rows of `LARGE_BYTES` or more.
    """
    if not hasattr(mmap, "MADV_WILLNEED"):
        return
    size = column.itemsize * math.prod(column.shape[1:])
    data = column.base
    assert isinstance(data, mmap.mmap)
    offset = column.ctypes.data - np.frombuffer(data, np.uint8).ctypes.data
    for start in (offset + rows * size).tolist():
        page = start - start % mmap.PAGESIZE
        data.madvise(mmap.MADV_WILLNEED, page, start + size - page)


def _check_header(
    path: Path | str, header: Any, index: Index, rows: int, data_bytes: int
) -> dict[str, int]:
    """Where each column starts in the data; ZooError unless all is as the index says."""
    if not isinstance(header, dict):
        raise ZooError(f"{path}: the header is not a JSON object")
    header.pop("__metadata__", None)
    shapes = row_shapes(index)
    if header.keys() != shapes.keys():
        found = schema.shown(sorted(header))
        raise ZooError(f"{path}: expected the columns {sorted(shapes)}, got {found}")
    starts: dict[str, int] = {}
    spans: list[tuple[int, int, str]] = []
    for name, shape in shapes.items():
        dtype = np.dtype(index.columns[name].stored)
        entry = header[name] if isinstance(header[name], dict) else {}
        expected = (_DTYPES[dtype], [rows, *shape])
        if (entry.get("dtype"), entry.get("shape")) != expected:
            raise ZooError(
                f"{path}: {name}: expected {expected[0]} {expected[1]}, got "
                f"{safe_line(entry.get('dtype'), 60)} {safe_line(entry.get('shape'), 200)}"
            )
        span = entry.get("data_offsets")
        length = dtype.itemsize * math.prod((rows, *shape))
        if (
            not isinstance(span, list)
            or [type(at) for at in span] != [int, int]
            or span[1] - span[0] != length
            or span[0] % dtype.itemsize
        ):
            raise ZooError(
                f"{path}: {name}: offsets {schema.shown(span)} do not hold {length} bytes"
            )
        starts[name] = span[0]
        spans.append((*span, name))
    place = 0
    for start, end, name in sorted(spans):
        if start != place:
            raise ZooError(f"{path}: {name}: data begin at {start}, expected {place}")
        place = end
    if place != data_bytes:
        raise ZooError(f"{path}: {data_bytes} bytes of data, the header describes {place}")
    return starts


def features(index: Index) -> "datasets.Features":
    """The columns of the index, in its order, as `datasets` describes them.

    Classes are `ClassLabel`, weights `Array2D` or `Array4D`, biases a `List` of fixed
    length: these give shaped tensors under `with_format("torch")`.
    """
    import datasets

    found: dict[str, Any] = {}
    for name, shape in row_shapes(index).items():
        column = index.columns[name]
        if len(shape) > 1:
            array = getattr(datasets, f"Array{len(shape)}D")
            found[name] = array(shape, "float32")
        elif shape:
            found[name] = datasets.List(datasets.Value("float32"), length=shape[0])
        elif column.kind == "class" and column.names:
            found[name] = datasets.ClassLabel(names=list(column.names))
        else:
            found[name] = datasets.Value(np.dtype(column.dtype).name)
    if "names" in index.source:
        found["file"] = datasets.Value("string")
    return datasets.Features(found)


def pictures_of(index: Index, originals: bool) -> tuple[str, ...]:
    """With which of `PICTURES` the view of a zoo may begin: none of networks of no pictures.

    Args:
        originals: whether what the networks were fitted to is at hand, and may be passed on.
    """
    spec, shape = index.spec, tuple(index.source.get("shape") or ())
    drawn = len(spec.axes) == 2 and len(shape) == 3 and shape[2] == spec.out and spec.out in (1, 3)
    if not drawn or not index.plan["parquet"] or set(PICTURES) & index.columns.keys():
        return ()
    return PICTURES if originals else PICTURES[:1]


def view_features(index: Index) -> "datasets.Features":
    """The columns of the Parquet view as `datasets` describes them.

    Those of `features`; with pictures these come first, then what a network is and how good,
    then keys, and the tensors last.
    """
    import datasets

    found = features(index)
    if not index.pictures:
        return found
    measures = [each.column for each in MEASURES]

    def place(name: str) -> tuple[int, int]:
        role = index.columns[name].role if name in index.columns else "key"
        if name in measures:
            return 1, measures.index(name)
        return {"target": 0, "key": 2, "quality": 3}.get(role, 4), 0

    pictures = {name: datasets.Image() for name in index.pictures}
    ordered = {name: found[name] for name in sorted(found, key=place)}
    return datasets.Features({**pictures, **ordered})


def pictures_in(path: Path) -> tuple[str, ...]:
    """With which of `PICTURES` the rows of a Parquet file begin.

    Raises:
        ZooError: if it is no Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with schema.open_plain(path) as file:
            names = pq.ParquetFile(file).schema_arrow.names
    except (OSError, pa.ArrowException) as error:
        raise ZooError(f"{path}: not a Parquet file ({schema.safe(error)})") from error
    return tuple(name for name in PICTURES if name in names)


def write_names(path: Path, names: Mapping[int, str]) -> None:
    """Write the file names of a source's items: columns `index` and `file`, by index."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    ordered = sorted(names)
    columns = {
        "index": pa.array(ordered, pa.int64()),
        "file": pa.array([names[item] for item in ordered], pa.string()),
    }
    with replacing(path) as temporary:
        pq.write_table(pa.table(columns), temporary, compression="zstd")


def read_names(folder: Path, index: Index) -> dict[int, str]:
    """The file name of each source item that rows were made from; empty where there are none.

    Raises:
        ZooError: if the table is missing, not the one of the index, or none of such names.
    """
    if index.names_file is None:
        return {}
    if wrong := check_file(folder, index.names_file, hashes=True):
        raise ZooError(wrong)
    import pyarrow as pa
    import pyarrow.parquet as pq

    path, most = folder / index.names_file.file, index.rows + len(index.excluded)
    try:
        about = pq.ParquetFile(path)
        types = dict(zip(about.schema_arrow.names, about.schema_arrow.types, strict=True))
        if types != {"index": pa.int64(), "file": pa.string()}:
            raise ZooError(f"{path}: expected int64 `index` and string `file`, got {types}")
        if (rows := about.metadata.num_rows) > most:
            raise ZooError(f"{path}: {rows:,} names, the zoo has at most {most:,} items")
        # A long text can stand in many rows: only what is told apart takes memory.
        columns = pq.read_table(path, columns=["index", "file"], read_dictionary=["file"])
        files: list[Any] = []
        for part in columns["file"].chunks:
            words = part.dictionary.to_pylist()
            files += [None if code is None else words[code] for code in part.indices.to_pylist()]
        items = columns["index"].to_pylist()
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise ZooError(f"{path}: no table of file names ({schema.safe(error)})") from error
    if None in items or None in files:
        raise ZooError(f"{path}: rows without a number or a name")
    return dict(zip(items, files, strict=True))


def write_parquet(
    path: Path,
    tensors: Mapping[str, NDArray[Any]],
    index: Index,
    originals: NDArray[np.uint8] | None = None,
) -> None:
    """Write the rows of a shard as Parquet, durably, for `datasets.load_dataset`.

    Args:
        path: of the file; its folder is made if need be.
        tensors: the columns of the index, `row ...`, as `shards.write_tensors` takes them.
        index: for its columns, spec and pictures; its shards need not be there yet.
        originals: what each row was fitted to, `row row column chan`, if the index's pictures
            have it.

    Raises:
        ValueError: if they are not the index's columns, types or shapes.
    """
    import pyarrow.parquet as pq

    if tensors.keys() != index.columns.keys():
        raise ValueError(f"expected the columns {list(index.columns)}, got {list(tensors)}")
    rows = len(next(iter(tensors.values())))
    for name, shape in row_shapes(index).items():
        dtype = np.dtype(index.columns[name].dtype)
        if (tensors[name].dtype, tensors[name].shape) != (dtype, (rows, *shape)):
            raise ValueError(
                f"{name}: expected {dtype} {(rows, *shape)}, got {tensors[name].dtype} "
                f"{tensors[name].shape}"
            )
    schema = view_features(index).arrow_schema
    tensors = {**_with_files(tensors, index), **_drawn(tensors, index, originals)}
    # Bounds are of use where one asks for rows by them; of weights they only cost time.
    keys = [name for name, column in index.columns.items() if column.kind != "tensor"]
    with (
        replacing(path) as temporary,
        pq.ParquetWriter(temporary, schema, write_statistics=keys, **PARQUET) as writer,
    ):
        # datasets writes this key, by which the Hub tells an optimised file.
        writer.add_key_value_metadata({"content_defined_chunking": json.dumps(CHUNKING)})
        for batch in _batches(tensors, schema):
            writer.write_batch(batch, row_group_size=max(1, len(batch)))


def _drawn(
    tensors: Mapping[str, NDArray[Any]], index: Index, originals: NDArray[np.uint8] | None
) -> dict[str, NDArray[Any]]:
    """The pictures of the rows as PNG files, by column."""
    found: dict[str, NDArray[Any]] = {}
    if "image" in index.pictures:
        import torch

        from zoo import nets
        from zoo.weights import Weights

        weights = Weights.from_tensors(
            {name: torch.from_numpy(np.array(tensors[name])) for name in index.spec.tensors}
        )
        rows, columns, _ = index.source["shape"]
        found["image"] = nets.pictures(index.spec, weights, rows, columns)
    if "original" in index.pictures:
        if originals is None or len(originals) != len(tensors["index"]):
            raise ValueError("the view has a column original: what the rows were fitted to is due")
        found["original"] = originals
    for name, pictures in found.items():
        files = np.empty(len(pictures), object)
        files[:] = png.encode(pictures, _PNG_LEVEL)
        found[name] = files
    return found


def _with_files(tensors: Mapping[str, NDArray[Any]], index: Index) -> Mapping[str, NDArray[Any]]:
    """The columns of a shard, and the file names of its rows' pictures if the zoo has them."""
    if "names" not in index.source:
        return tensors
    names = index.names or {}
    files = [names.get(item) for item in tensors["index"].tolist()]
    return {**tensors, "file": np.array(files, object)}


def hf_dataset(folder: Path, index: Index, split: str) -> "datasets.Dataset":
    """A split as a `datasets.Dataset` over the mapped shards, without reading them.

    A zoo in float16 or bfloat16 is widened to float32 in memory instead.

    The rows equal those of `datasets.load_dataset(folder)[split]` without its pictures. It
    pickles as folder and split, a few KB. What `map` makes is held in memory, as the zoo's
    folder is no place for caches; give `map` a `cache_file_name` if it is large.

    Raises:
        ZooError: if a shard is missing or contradicts the index.
        ValueError: for a split that the zoo does not have.
    """
    import datasets

    table = _mapped_table()(folder.absolute(), split, _arrow_table(folder, index, split))
    return datasets.Dataset(
        table,
        info=datasets.DatasetInfo(features=features(index), dataset_name=index.name),
        split=datasets.NamedSplit(split),
    )


def shards_of(index: Index, split: str) -> list[Shard]:
    """The shards of a split in row order.

    Raises:
        ValueError: for a split that the zoo does not have; lists those there are.
    """
    if split not in index.splits:
        raise ValueError(f"unknown split {split!r}; this zoo has {', '.join(index.splits)}")
    return [shard for shard in index.shards if shard.split == split]


def _arrow_table(folder: Path, index: Index, split: str) -> "pa.Table":
    import pyarrow as pa

    schema = features(index).arrow_schema
    if "names" in index.source:
        index = replace(index, names=read_names(folder, index))
    batches = [
        batch
        for shard in shards_of(index, split)
        for batch in _batches(_with_files(map_shard(folder, index, shard), index), schema)
    ]
    return pa.Table.from_batches(batches, schema)


def _batches(
    columns: Mapping[str, NDArray[Any]], schema: "pa.Schema"
) -> Iterator["pa.RecordBatch"]:
    """The rows in parts of 32-64 MB (or all), which keeps Arrow's 32-bit offsets in range."""
    import pyarrow as pa

    rows = len(columns[schema.names[0]])
    parts = max(1, math.ceil(sum(array.nbytes for array in columns.values()) / GROUP_BYTES))
    step = max(1, math.ceil(rows / parts))
    for start in range(0, max(rows, 1), step):
        arrays = [
            _arrow_array(field.type, widen(columns[field.name][start : start + step]))
            for field in schema
        ]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _arrow_array(kind: "pa.DataType", values: NDArray[Any]) -> "pa.Array":
    """`row ...` as an Arrow array over the same memory (copied only if strided)."""
    import datasets.features.features as hf
    import pyarrow as pa

    if pa.types.is_string(kind):
        return pa.array(values.tolist(), kind)
    if pa.types.is_struct(kind):  # a file, as datasets has it
        content = pa.array(values.tolist(), pa.binary())
        return pa.StructArray.from_arrays(
            [content, pa.nulls(len(values), pa.string())], fields=list(kind)
        )
    if isinstance(kind, hf._ArrayXDExtensionType):
        storage = _arrow_array(kind.storage_type, values)
        return pa.ExtensionArray.from_storage(kind, storage)
    if not pa.types.is_list(kind) and not pa.types.is_fixed_size_list(kind):
        flat = pa.py_buffer(np.ascontiguousarray(values))
        return pa.Array.from_buffers(kind, values.size, [None, flat], null_count=0)
    items = _arrow_array(kind.value_type, values.reshape(-1, *values.shape[2:]))
    rows, length = values.shape[:2]
    offsets = [] if pa.types.is_fixed_size_list(kind) else [_offsets(rows, length)]
    return pa.Array.from_buffers(kind, rows, [None, *offsets], null_count=0, children=[items])


@functools.lru_cache(maxsize=16)
def _offsets(rows: int, length: int) -> "pa.Buffer":
    """Where each list of equal length begins; shards of equal rows share these."""
    import pyarrow as pa

    return pa.py_buffer(np.arange(0, (rows + 1) * length, length, dtype=np.int32))


@functools.cache
def _mapped_table() -> Any:
    """The class of table that remembers its folder and split instead of its data."""
    from datasets.table import MemoryMappedTable, TableBlock

    class MappedSplit(TableBlock):  # type: ignore[misc]
        """Like `MemoryMappedTable`, but over safetensors.

        It is none, because of a table that names its file `datasets` takes the file's
        folder for a cache, and `map` would write into the zoo.
        """

        def __init__(
            self, folder: Path, split: str, table: "pa.Table", replays: tuple[Replay, ...] = ()
        ):
            super().__init__(table)
            self.folder, self.split, self.replays = folder, split, replays

        def __reduce__(self) -> tuple[Any, ...]:
            return _reopen, (self.folder, self.split, self.replays)

    def transform(name: str) -> Any:
        def replayed(self: MappedSplit, *args: Any, **kwargs: Any) -> MappedSplit:
            replay = (name, args, kwargs)
            table = MemoryMappedTable._apply_replays(self.table, [replay])
            return MappedSplit(self.folder, self.split, table, (*self.replays, replay))

        return replayed

    for name in (
        "slice", "filter", "flatten", "combine_chunks", "cast", "replace_schema_metadata",
        "add_column", "append_column", "remove_column", "set_column", "rename_columns",
        "drop", "select",
    ):  # fmt: skip
        setattr(MappedSplit, name, transform(name))
    return MappedSplit


def _reopen(folder: Path, split: str, replays: tuple[Replay, ...]) -> Any:
    """A pickled `MappedSplit`, mapped again and changed again."""
    from datasets.table import MemoryMappedTable

    table = _arrow_table(folder, read_index(folder), split)
    table = MemoryMappedTable._apply_replays(table, list(replays))
    return _mapped_table()(folder, split, table, replays)
