"""fit-a-nef's SIRENs (Papa et al. 2024), in HDF5; needs h5py: `pip install wszoo[hdf5]`.

Layout, the folder `{dataset}/SIREN` or one of its files:

    nefs_{start}-{end}.hdf5    params float32 [N, P], param_config a JSON string of (name,
                               shape) in storage order, labels [N]
    nef.json, cfg.json         omega_0 and the rest of the configuration

Biases stand before kernels, kernels are (in, out) and become (out, in); bits stay.
Conventions, from the authors' code: sin(omega (W x + b)), no offset, (x = column, y = row)
in [-1, 1], targets standardised by mean and deviation of the data set, which make its
`pixel_range`. A spec has one range for all channels, so that of colours is the channels'
mean: `render` is slightly off in tint, `--check-against` uses each channel's own.

A field's number counts pictures, train before test, over and over: `index` is its
remainder by the size of the data set, `view` the quotient, for test items too. Its data
sets are MNIST, CIFAR10 and those of `STANDARDISATION`.

Unverified: which fields are train, validation and test. Here test is the data set's own
test part, validation the last 5,000 (at most a tenth) training items.
"""

import itertools
import json
import re
import struct
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo import schema
from zoo.errors import ZooError
from zoo.importers.contents import FILE_BYTES
from zoo.importers.files import natural
from zoo.importers.published import (
    PICTURES,
    Arrays,
    Options,
    Published,
    Told,
    describe,
    describe_pictures,
)
from zoo.importers.states import MAX_PARAMS
from zoo.passed import Passed
from zoo.schema import safe
from zoo.shards import SPLITS, Column
from zoo.sources import split_items
from zoo.spec import NetworkSpec

OPTIONS: tuple[str, ...] = ()
URL = "https://github.com/samuelepapa/fit-a-nef"
CITATION = (
    "Papa et al. 2024, How to train neural field representations: a comprehensive study and "
    "benchmark, CVPR (the networks)"
)
FIELDS = re.compile(r"nefs_([0-9]{1,9})-([0-9]{1,9})\.hdf5$")
TENSOR = re.compile(r"(?:kernel_net_([0-9]{1,3})\.linear|output_linear)\.(bias|kernel)$")
CONFIG_BYTES = 1 << 20
# What h5py raises over damaged files, and what comes of their content.
_UNREADABLE = (OSError, KeyError, ValueError, TypeError, RuntimeError, RecursionError)
# Mean and deviation of each channel, of pixels in [0, 1], by the data set's name there.
STANDARDISATION: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "MNIST": ((0.13066047,), (0.30810782,)),
    "CIFAR10": ((0.49186882, 0.48265392, 0.44717726), (0.24697122, 0.24338895, 0.2615926)),
    "STL10": ((0.4470306, 0.43970686, 0.40560696), (0.26047868, 0.25662908, 0.27047333)),
    "MicroImageNet": (
        (0.4643375754356384, 0.4339415729045868, 0.38213176727294923),
        (0.18949764454628706, 0.18707174788855566, 0.21445986703967326),
    ),
}
SOURCES = {"MNIST": "mnist", "CIFAR10": "cifar10"}


def find(path: Path, options: Options) -> Published:
    """The fields at `path`; ValueError or ZooError as `zoo.importers.find`."""
    hdf5 = _h5py()
    folder = path if path.is_dir() else path.parent
    paths = sorted(
        (
            file
            for file in (path.glob("nefs_*.hdf5") if path.is_dir() else [path])
            if file.is_file()
        ),
        key=lambda p: natural(p.name),
    )
    spans = []
    for file in paths:
        match = FIELDS.fullmatch(file.name)
        if match and int(match[1]) < int(match[2]):
            spans.append((int(match[1]), int(match[2]), file))
    if not spans:
        raise ValueError(f"{path}: no fields of fit-a-nef; expected nefs_0-5000.hdf5 and so on")
    spans.sort()
    for (_, end, before), (start, _, after) in itertools.pairwise(spans):
        if start < end:
            raise ZooError(f"{after}: overlaps {before.name}")
    dataset = _dataset(folder)
    mean, std = (np.array(values, np.float64) for values in STANDARDISATION[dataset])
    ranges = np.stack([(0 - mean) / std, (1 - mean) / std], axis=1)
    omega = _omega(folder / "nef.json")
    names = _config(hdf5, spans[0][2])
    spec = _spec(
        names, omega, (float(ranges[:, 0].mean()), float(ranges[:, 1].mean())), spans[0][2]
    )
    if (spec.inp, spec.out) != (2, len(mean)):
        raise ZooError(
            f"{spans[0][2]}: expected 2 inputs and {len(mean)} outputs for {dataset}, got "
            f"{spec.inp} and {spec.out}"
        )
    params = sum(int(np.prod(shape)) for shape in names.values())
    labelled = {_look(hdf5, file, end - start, params, names) for start, end, file in spans}
    if len(labelled) > 1:
        raise ZooError(f"{path}: some files have labels, others have none")
    source = SOURCES.get(dataset)
    train_items, items = PICTURES[source][3:] if source else (0, 0)
    fields = np.concatenate([np.arange(start, end) for start, end, _ in spans])
    if source:
        ranges_of = split_items(train_items, items, "dws")
        index, view = fields % items, fields // items
    else:
        # The size is not known here: the last tenths are validation and test.
        ranges_of = split_items(int(fields[-1]) + 1, int(fields[-1]) + 1, "80-10-10")
        index, view = fields, fields * 0
    chosen: dict[str, NDArray[np.int64]] = {}
    for split in SPLITS:
        span = ranges_of[split]
        part = np.flatnonzero((index >= span.start) & (index < span.stop))
        part = part[np.lexsort((view[part], index[part]))]
        if len(part):
            chosen[split] = part
    with_labels = labelled == {True}
    classes = PICTURES[source][1] if source else None
    starts = np.array([start for start, _, _ in spans])
    told = _told(spans, spec, dataset, with_labels)
    if not source:
        told.say("the last tenths of the fields are validation and test")
    passed = Passed()
    for file in path.iterdir() if path.is_dir() else ():
        if file.name not in ("nef.json", "cfg.json", *(f.name for _, _, f in spans)):
            passed.add(file.name)

    def read(split: str, start: int, stop: int) -> Arrays:
        rows = chosen[split][start:stop]
        flat = np.empty((len(rows), params), np.float32)
        labels = np.zeros(len(rows), np.int64)
        where = np.searchsorted(starts, fields[rows], side="right") - 1
        for number in np.unique(where):
            begin, _, file = spans[number]
            places = np.flatnonzero(where == number)
            inside = fields[rows[places]] - begin
            # HDF5 takes increasing row numbers only.
            order = np.argsort(inside)
            try:
                with hdf5.File(file, "r") as opened:
                    flat[places[order]] = opened["params"][inside[order]]
                    if with_labels:
                        labels[places[order]] = opened["labels"][inside[order]]
            except _UNREADABLE as error:
                raise ZooError(f"{file}: cannot be read ({safe(error, 120)})") from error
        if classes and with_labels and not ((labels >= 0) & (labels < len(classes))).all():
            raise ZooError(f"{path}: labels beyond the {len(classes)} classes of {dataset}")
        arrays: Arrays = {"index": index[rows], "view": view[rows]}
        if with_labels:
            arrays["label"] = labels
        arrays |= _reordered(flat, names)
        return arrays

    return Published(
        spec=spec,
        columns={"label": Column("target", "class", names=classes)} if with_labels else {},
        rows={split: len(part) for split, part in chosen.items()},
        read=read,
        source=describe_pictures(source, CITATION, URL)
        if source
        else describe(dataset, dataset, CITATION, url=URL, kind="image"),
        pictures=source,
        pixel_ranges=ranges,
        facts={"views": int(view.max()) + 1, "mean": mean.tolist(), "std": std.tolist()},
        told=told,
        passed=passed,
    )


def _told(
    spans: list[tuple[int, int, Path]], spec: NetworkSpec, dataset: str, with_labels: bool
) -> Told:
    told = Told()
    widths = "-".join(map(str, spec.widths))
    omega = spec.layers[0].omega
    told.say(f"SIRENs of fit-a-nef, {widths} by param_config, omega {omega:g} by nef.json")
    told.say("kernels (in, out) turned to (out, inp), biases before them")
    told.say(
        "the format says: (x = column, y = row), nothing added to the output, targets "
        f"standardised by mean and deviation of {dataset}"
    )
    told.say(
        "index and view by the numbers of fields; test is the data set's own, validation the last "
        "5,000 (at most a tenth) training items"
    )
    told.say("labels by the files" if with_labels else "no labels in the files")
    missing = [(a, b) for (_, a, _), (b, _, _) in itertools.pairwise(spans) if a < b]
    missing = [(0, spans[0][0])] * (spans[0][0] > 0) + missing
    if missing:
        shown = ", ".join(f"{a:,} to {b - 1:,}" for a, b in missing[:6])
        told.say(f"no file holds the fields {shown}{' and others' if len(missing) > 6 else ''}")
    return told


def _h5py() -> ModuleType:
    try:
        import h5py
    except ImportError:
        raise ValueError(
            "reading fit-a-nef's files needs h5py, which is not installed: "
            "pip install 'wszoo[hdf5]'"
        ) from None
    return h5py  # type: ignore[no-any-return]


def _json(path: Path) -> dict[str, Any]:
    plain = schema.read_json(path, CONFIG_BYTES)
    schema.check(plain, schema.MapOf(schema.Json()), str(path))
    found: dict[str, Any] = plain
    return found


def _dataset(folder: Path) -> str:
    """The data set's name, from cfg.json, else from the folder's parent."""
    name: Any = folder.resolve().parent.name
    if (folder / "cfg.json").is_file():
        about = _json(folder / "cfg.json").get("dataset")
        name = about.get("name") if isinstance(about, dict) else about
    if not isinstance(name, str) or name not in STANDARDISATION:
        raise ValueError(
            f"{folder}: unknown data set {schema.shown(name)}: its mean and deviation are needed; "
            f"known: {', '.join(STANDARDISATION)}"
        )
    return name


def _omega(path: Path) -> float:
    if not path.is_file():
        raise ValueError(f"{path} is missing; omega stands there and nowhere else")
    plain = _json(path)
    if plain.get("name") != "SIREN":
        raise ValueError(f"{path}: unknown network {schema.shown(plain.get('name'))}; known: SIREN")
    settings = plain.get("params")
    omega = settings.get("omega_0") if isinstance(settings, dict) else None
    if not isinstance(omega, int | float) or not 0 < omega < 1e6:
        raise ZooError(f"{path}: expected a positive omega_0, got {schema.shown(omega)}")
    return float(omega)


def _plain_dataset(hdf5: ModuleType, opened: Any, name: str, file: Path) -> Any:
    """A dataset that lies in this very file: HDF5 can also point at others on the disk."""
    if not isinstance(opened.get(name, getlink=True), hdf5.HardLink):
        raise ZooError(f"{file}: expected the dataset {name!r} in the file itself")
    found = opened[name]
    if not isinstance(found, hdf5.Dataset) or found.external or found.is_virtual:
        raise ZooError(f"{file}: {name} is no plain dataset")
    # A chunk is unpacked whole, whatever is read of it.
    if found.chunks and prod(found.chunks) * found.dtype.itemsize > FILE_BYTES:
        raise ZooError(f"{file}: {name} lies in chunks {found.chunks}, which are too large")
    return found


def _check_heap(text: Any, file: Path) -> None:
    """ZooError if the heap that holds a text is larger than the file, or leads in circles.

    HDF5 makes room for it before it reads it, and goes from object to object by their sizes,
    for ever if one is 0. Layout: "HDF5 File Format Specification", III.E, global heap: GCOL, a
    version, three zeros, the size in eight bytes; then objects, each with its number (0: free
    space, whose size counts its header) in two bytes, six others, and its size in eight.
    """
    offset = text.id.get_offset()
    if offset is None or text.id.get_storage_size() != 16:
        return
    size = file.stat().st_size
    with schema.open_plain(file) as opened:
        opened.seek(offset)
        # Length of the text, address of its heap, its number there.
        _, address, _ = struct.unpack("<IQI", opened.read(16).ljust(16, b"\0"))
        opened.seek(min(address, size))
        header = opened.read(16).ljust(16, b"\0")
        length = int.from_bytes(header[8:], "little")
        if header[:4] != b"GCOL" or address + length > size:
            raise ZooError(f"{file}: param_config is damaged: its heap does not lie in the file")
        heap = opened.read(length - 16)
    place = 0
    while len(heap) - place >= 16:
        number, taken = struct.unpack_from("<H6xQ", heap, place)
        step = taken if number == 0 else 16 + taken + -taken % 8
        if not 16 <= step <= len(heap) - place:
            raise ZooError(f"{file}: param_config is damaged: its heap leads in circles")
        place += step


def _config(hdf5: ModuleType, file: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a field's tensors in storage order."""
    try:
        with hdf5.File(file, "r") as opened:
            text = _plain_dataset(hdf5, opened, "param_config", file)
            if text.shape != (1,) or file.stat().st_size > FILE_BYTES << 10:
                raise ZooError(f"{file}: expected param_config of shape (1,), got {text.shape}")
            _check_heap(text, file)
            value = text[0]
        plain = json.loads(value if isinstance(value, str) else bytes(value).decode())
        config = {str(name): tuple(int(side) for side in shape) for name, shape in plain}
        if any(side < 1 for shape in config.values() for side in shape):
            raise ValueError("a side below 1")
    except ZooError:
        raise
    except _UNREADABLE as error:
        raise ZooError(
            f"{file}: not a file of fit-a-nef that can be read ({safe(error, 120)})"
        ) from error
    if len(config) != len(plain) or sum(prod(shape) for shape in config.values()) > MAX_PARAMS:
        raise ZooError(f"{file}: param_config names a tensor twice, or too large ones")
    return config


def _look(
    hdf5: ModuleType, file: Path, rows: int, params: int, names: dict[str, tuple[int, ...]]
) -> bool:
    """Whether a file has labels; ZooError unless it holds what its name and config say."""
    if _config(hdf5, file) != names:
        raise ZooError(f"{file}: its param_config is not that of the first file")
    try:
        with hdf5.File(file, "r") as opened:
            found = _plain_dataset(hdf5, opened, "params", file)
            if found.shape != (rows, params) or found.dtype != np.float32:
                raise ZooError(
                    f"{file}: expected params float32 {(rows, params)}, got {found.dtype} "
                    f"{found.shape}"
                )
            if "labels" not in opened:
                return False
            labels = _plain_dataset(hdf5, opened, "labels", file)
            if labels.shape != (rows,) or labels.dtype.kind not in "iu":
                raise ZooError(
                    f"{file}: expected {rows} whole numbers as labels, got {labels.dtype} "
                    f"{labels.shape}"
                )
    except _UNREADABLE as error:
        raise ZooError(f"{file}: cannot be read ({safe(error, 120)})") from error
    return True


def _layer(name: str, count: int) -> tuple[int, str]:
    """Number and kind of a tensor of a field with `count` layers."""
    match = TENSOR.fullmatch(name)
    if not match:
        raise ValueError(f"unknown tensor {name!r}")
    number = count - 1 if match[1] is None else int(match[1])
    return number, "bias" if match[2] == "bias" else "weight"


def _spec(
    names: dict[str, tuple[int, ...]], omega: float, pixels: tuple[float, float], file: Path
) -> NetworkSpec:
    count = len(names) // 2
    try:
        shapes = {_layer(name, count): shape for name, shape in names.items()}
        kernels = [shapes[number, "weight"] for number in range(count)]
        widths = [kernels[0][0], *(kernel[1] for kernel in kernels)]
        spec = NetworkSpec.mlp(widths, omega=omega, coord_order="xy", pixel_range=pixels)
        for number in range(count):
            wanted = (widths[number], widths[number + 1]), widths[number + 1 : number + 2]
            if (kernels[number], list(shapes[number, "bias"])) != wanted:
                raise ValueError(f"layer {number} does not fit the one before")
    except (KeyError, IndexError, ValueError) as error:
        raise ZooError(
            f"{file}: param_config is not that of a SIREN ({safe(error, 120)})"
        ) from error
    return spec


def _reordered(flat: NDArray[np.float32], names: dict[str, tuple[int, ...]]) -> Arrays:
    """`net param` in storage order as our tensors."""
    arrays: Arrays = {}
    place = 0
    for name, shape in names.items():
        number, kind = _layer(name, len(names) // 2)
        size = int(np.prod(shape))
        part = flat[:, place : place + size].reshape(-1, *shape)
        # [net, in, out] -> [net, out, in]
        arrays[f"{kind}_{number}"] = part.transpose(0, 2, 1) if kind == "weight" else part
        place += size
    return arrays
