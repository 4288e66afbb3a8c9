"""Shapes as voxels: MedMNIST's files, and exact distances to what is filled.

A file is a `.npz` with `train_images`, `val_images`, `test_images` of equal cubes or boxes of
voxels, empty 0 and filled any one value, and `train_labels`, ... It is read without pickles,
and what its header promises is held against its size before memory is asked for.

The grid fills the cube [-1, 1]^3: the outer faces of its longest side lie at -1 and 1, shorter
sides are centred, and arrays are `z y x`. What lies beyond the grid is empty. The distance at a
voxel's centre is that to the nearest centre of the other kind, less half a voxel, since the
surface lies midway between two such neighbours; between centres it is linear in each axis.
"""

import hashlib
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain, pairwise
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64, Shaped, UInt8
from numpy.lib import format as npy
from numpy.typing import NDArray

from zoo import philox
from zoo.errors import ZooError, safe_line
from zoo.files import instead

PARTS = {"train": "train", "val": "validation", "test": "test"}
# Of all volumes of a file, unpacked; AdrenalMNIST3D at 64^3 has .4 GB.
MOST_BYTES = 16 << 30
# Longest side; longer ones are no signal for networks of this size.
MOST_SIDE = 512
# Names of classes by what MedMNIST calls the file.
CLASS_NAMES = {
    "adrenalmnist3d": ("normal", "hyperplasia"),
    "vesselmnist3d": ("vessel", "aneurysm"),
}


@dataclass(frozen=True, eq=False)
class Voxels:
    """All volumes of a file, its training volumes first, then validation and test.

    Attributes:
        masks: 0 empty, 1 filled; 2 marks a value that is neither, see `flaw`.
        splits: which volumes are train, validation and test, as published.
        sha256: over masks and labels, hence independent of how they were packed.
    """

    masks: UInt8[np.ndarray, "item z y x"]
    labels: Int64[np.ndarray, " item"]
    splits: Mapping[str, range]
    class_names: tuple[str, ...]
    sha256: str


def read(path: str | Path) -> Voxels:
    """The volumes of a file of MedMNIST's layout.

    Raises:
        ValueError: if there is no such file.
        ZooError: if it is damaged, or not of that layout: one line says what is wrong with it.
    """
    path = Path(path)
    name = safe_line(path)
    if not path.is_file():
        raise ValueError(f"there is no file {name}; voxels are a .npz of MedMNIST's layout")
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = _arrays(archive, name)
    except zipfile.BadZipFile:
        raise ZooError(
            f"{name}: expected a .npz of MedMNIST's layout"
            f"{instead(path, 'a zip archive') or '; it is no whole zip archive: download it again'}"
        ) from None
    except (OSError, EOFError, zlib.error, RuntimeError) as error:
        raise ZooError(f"{name} is damaged: {safe_line(error)}; download it again") from None
    volumes = [arrays[f"{part}_images"] for part in PARTS]
    labels = [arrays[f"{part}_labels"].astype(np.int64).reshape(-1) for part in PARTS]
    ends = np.cumsum([0, *map(len, volumes)]).tolist()
    splits = {
        split: range(start, end)
        for split, (start, end) in zip(PARTS.values(), pairwise(ends), strict=True)
    }
    masks, marks = _binary(volumes, name), np.concatenate(labels)
    kind = path.name.lower().partition(".")[0].partition("_")[0]
    classes: tuple[str, ...] = CLASS_NAMES.get(kind, ())
    count = int(marks.max()) + 1
    if len(classes) < count:
        classes = tuple(str(number) for number in range(count))
    return Voxels(masks, marks, splits, classes, _sha256(masks, marks))


def _arrays(archive: zipfile.ZipFile, name: str) -> dict[str, NDArray[Any]]:
    """The six arrays, checked before they are read: names, types, shapes, sizes."""
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    wanted = [f"{part}_{what}" for what in ("images", "labels") for part in PARTS]
    missing = [each for each in wanted if each not in members]
    if missing:
        has = ", ".join(sorted(members)[:8]) or "nothing"
        raise ZooError(
            f"{name}: expected the arrays of MedMNIST's layout, {', '.join(wanted)}; "
            f"{', '.join(missing)} missing, it has {safe_line(has, 200)}"
        )
    headers = {each: _header(archive, members[each], name) for each in wanted}
    _check_shapes({each: shape for each, (shape, _) in headers.items()}, name)
    size = sum(prod(shape) * dtype.itemsize for shape, dtype in headers.values())
    if size > MOST_BYTES:
        raise ZooError(
            f"{name}: {size:,} bytes unpacked are more than {MOST_BYTES:,}; cut it into parts"
        )
    found = {}
    for each in wanted:
        with archive.open(members[each]) as stream:
            try:
                found[each] = npy.read_array(stream, allow_pickle=False)
            except ValueError as error:
                raise ZooError(f"{name}: {each} is damaged: {safe_line(error)}") from None
    for part in PARTS:
        labels = found[f"{part}_labels"]
        if labels.size and (labels.min() < 0 or labels.max() >= 1 << 16):
            raise ZooError(
                f"{name}: {part}_labels must be class numbers from 0, got {labels.min()} to "
                f"{labels.max()}"
            )
    return found


def _header(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str
) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an array; refused unless it holds numbers, and all of them."""
    each = info.filename.removesuffix(".npy")
    with archive.open(info) as stream:
        try:
            version = npy.read_magic(stream)
            reads = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
            shape, _, dtype = reads[version](stream)
            header = stream.tell()
        except (ValueError, KeyError) as error:
            raise ZooError(f"{name}: {each} is no array of NumPy: {safe_line(error)}") from None
    if dtype.hasobject:
        raise ZooError(
            f"{name}: {each} is a pickle of Python objects, which is never opened; save an array "
            "of uint8 instead"
        )
    allowed = "iu" if each.endswith("labels") else "iubf"
    if dtype.kind not in allowed:
        expected = "whole numbers" if allowed == "iu" else "numbers, best of uint8"
        raise ZooError(f"{name}: {each} must be {expected}, got {dtype}")
    if header + prod(shape) * dtype.itemsize != info.file_size:
        raise ZooError(f"{name}: {each} is cut short, or its header is wrong; download it again")
    return shape, dtype


def _check_shapes(shapes: Mapping[str, tuple[int, ...]], name: str) -> None:
    sides = None
    for part in PARTS:
        images, labels = shapes[f"{part}_images"], shapes[f"{part}_labels"]
        if len(images) != 4:
            hint = "; pictures are a source by themselves, not voxels" if len(images) == 3 else ""
            raise ZooError(f"{name}: {part}_images must be (item, z, y, x), got {images}{hint}")
        sides = sides or images[1:]
        if images[1:] != sides:
            raise ZooError(
                f"{name}: volumes must all have one size, train has {sides}, {part} {images[1:]}"
            )
        if not 2 <= min(sides) <= max(sides) <= MOST_SIDE:
            raise ZooError(f"{name}: sides of volumes must be 2 to {MOST_SIDE}, got {sides}")
        if labels not in ((images[0],), (images[0], 1)):
            raise ZooError(
                f"{name}: {part}_labels must be one class a volume, ({images[0]}, 1), got {labels}"
            )
    if not shapes["train_images"][0]:
        raise ZooError(f"{name}: train_images has no volume")


def _binary(volumes: list[NDArray[Any]], name: str) -> UInt8[np.ndarray, "item z y x"]:
    """Volumes as 0, 1, and 2 for what is neither empty nor the one filled value."""
    # The largest value of the most volumes that are not empty; NaN is nobody's.
    largest = Counter(float(np.fmax.reduce(values, axis=None)) for values in chain(*volumes))
    filled = max(largest, key=lambda value: (value > 0, largest[value], value))
    filled = filled if filled > 0 else 1.0
    masks = np.empty((sum(map(len, volumes)), *volumes[0].shape[1:]), np.uint8)
    wrong = 0
    for mask, values in zip(masks, chain(*volumes), strict=True):
        np.equal(values, filled, out=mask.view(bool))
        neither = (values != 0) & (values != filled)
        if neither.any():
            mask[neither] = 2
            wrong += 1
    if 2 * wrong > len(masks):
        raise ZooError(
            f"{name}: expected volumes that are empty (0) or filled (one other value), but "
            f"{wrong:,} of {len(masks):,} have other values, or NaN; choose a threshold and save "
            "them as 0 and 1"
        )
    return masks


def _sha256(masks: UInt8[np.ndarray, "..."], labels: Int64[np.ndarray, "..."]) -> str:
    digest = hashlib.sha256(f"{masks.shape}\n".encode())
    digest.update(masks.data)
    digest.update(labels.astype("<i8").data)
    return digest.hexdigest()


def flaw(mask: Shaped[np.ndarray, "z y x"]) -> str | None:
    """Why a volume is no shape, in a word or two; None if it is one.

    >>> flaw(np.zeros((2, 2, 2))), flaw(np.ones((2, 2, 2))), flaw(np.eye(4).reshape(4, 2, 2))
    ('empty', 'full', None)
    """
    empty, filled = np.count_nonzero(mask == 0), np.count_nonzero(mask == 1)
    if empty + filled < mask.size:
        return "not binary"
    return "empty" if not filled else None if empty else "full"


# ---- distances


def field(mask: Shaped[np.ndarray, "z y x"]) -> Float32[np.ndarray, "z2 y2 x2"]:
    """Signed distances at the centres of voxels, negative inside, see the module.

    A layer of voxels beyond the grid stands around them, so that what touches the grid's side
    ends there.

    Raises:
        ValueError: if the mask is no shape.
    """
    if wrong := flaw(mask):
        raise ValueError(f"a mask must have filled and empty voxels, this one is {wrong}")
    from scipy import ndimage  # takes .3 s to load, which no other command should wait for

    filled = np.pad(np.asarray(mask) != 0, 1)
    outside = ndimage.distance_transform_edt(~filled)
    inside = ndimage.distance_transform_edt(filled)
    voxel = 2 / max(mask.shape)
    return (voxel * np.where(filled, 0.5 - inside, outside - 0.5)).astype(np.float32)


def sample(
    field: Float32[np.ndarray, "z2 y2 x2"], points: Float32[np.ndarray, "point 3"]
) -> Float32[np.ndarray, " point"]:
    """What `field` gave, at points x, y, z: linear between centres, constant beyond the last."""
    sides = np.array(field.shape) - 2
    place = points[:, ::-1].astype(np.float64) * (sides.max() / 2) + (sides / 2 + 0.5)
    place = np.clip(place, 0, sides + 1)
    corner = np.minimum(place.astype(np.int64), sides)
    part = place - corner
    strides = np.array([field.shape[1] * field.shape[2], field.shape[2], 1])
    first, values = corner @ strides, field.reshape(-1)
    found = np.zeros(len(points))
    for z, y, x in np.ndindex(2, 2, 2):
        share = np.ones(len(points))
        for axis, step in enumerate((z, y, x)):
            share *= part[:, axis] if step else 1 - part[:, axis]
        found += share * values[first + int(strides @ (z, y, x))]
    return found.astype(np.float32)


def distance(
    masks: Shaped[np.ndarray, "net z y x"], points: Float32[np.ndarray, "net point 3"]
) -> Float32[np.ndarray, "net point"]:
    """Signed distances of points to the surface of each mask."""
    return np.stack([sample(field(mask), own) for mask, own in zip(masks, points, strict=True)])


def cloud(
    masks: Shaped[np.ndarray, "net z y x"],
    seed: int,
    index: Int64[np.ndarray, " net"],
    count: int,
) -> Float32[np.ndarray, "net count 3"]:
    """Random points on the faces between filled and empty voxels, uniform by area."""
    index = np.asarray(index, np.int64)
    u = philox.uniforms(seed, 0, index, np.zeros_like(index), philox.CLOUD, 3 * count)
    found = np.empty((len(masks), count, 3), np.float32)
    for values, mask, own in zip(found, masks, u.reshape(len(index), 3, count), strict=True):
        faces, axes = _faces(np.pad(np.asarray(mask) != 0, 1))
        chosen = (own[0] * len(faces)).astype(np.int64)
        place = faces[chosen].astype(np.float64)
        for axis in range(3):
            first, second = (other for other in range(3) if other != axis)
            on = axes[chosen] == axis
            place[on, axis] += 0.5
            place[on, first] += own[1, on] - 0.5
            place[on, second] += own[2, on] - 0.5
        sides = np.array(mask.shape)
        values[:] = ((place - (sides / 2 + 0.5)) * (2 / sides.max()))[:, ::-1]
    return found


def _faces(
    filled: Bool[np.ndarray, "z y x"],
) -> tuple[Int64[np.ndarray, "face 3"], Int64[np.ndarray, " face"]]:
    """Voxels whose next one along an axis is of the other kind, and that axis."""
    places = [np.argwhere(np.diff(filled, axis=axis)) for axis in range(3)]
    return np.concatenate(places), np.repeat(np.arange(3), [len(each) for each in places])
