"""Pictures of shapes: the surface in parallel light, and three slices.

A shape is a field on a grid over the cube [-1, 1]^3, `z y x`, negative inside, the outer
faces of the grid on those of the cube. The grid is turned to the viewer and looked through:
each pixel shows the first point that is inside, shaded by the slope of the field there. Edges
are smooth, since at them the field tells how much of a pixel is covered.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, pi, sin
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64, UInt8
from numpy.typing import NDArray

# Columns, and rows: the surface above, three slices below.
WIDE, TALL = 117, 157
_GAP = 3
_SLICE = (WIDE - 2 * _GAP) // 3
# From where it is seen: turned around the vertical, looked at from above.
_TURN, _DOWN = 35 * pi / 180, 28 * pi / 180
# Towards the light: right, up, towards the viewer.
_LIGHT = np.array([-0.45, 0.65, 0.62])
_COLOUR = np.array([0.36, 0.58, 0.82])
_INSIDE, _OUTSIDE = np.array([0.36, 0.58, 0.82]), np.array([0.955, 0.96, 0.97])

# What stands for an infinite distance, and for none.
_FAR = 1e3


@dataclass(frozen=True)
class Frame:
    """What part of the cube is looked at: all pictures of one shape have the same.

    Attributes:
        middle: x, y, z.
        half: from there to the border of the picture.
    """

    middle: tuple[float, float, float] = (0.0, 0.0, 0.0)
    half: float = 1.0


def frame_of(field: Float[np.ndarray, "z y x"]) -> Frame:
    """The frame that holds a shape in every direction; all of the cube if nothing is inside."""
    inside = np.argwhere(field < 0)
    if not len(inside):
        return Frame()
    places = (2 * inside[:, ::-1] + 1 - np.array(field.shape)[::-1]) / max(field.shape)
    middle = (places.min(0) + places.max(0)) / 2
    reach = np.linalg.norm(places - middle, axis=1).max()
    x, y, z = middle.tolist()
    return Frame((x, y, z), min(1.05 * float(reach) + 2 / max(field.shape), 1.8))


def centres(side: int) -> Float32[np.ndarray, "point 3"]:
    """Points x, y, z of a grid `z y x` over the cube, so many a side, x the fastest.

    >>> centres(2)[:3].tolist()
    [[-0.5, -0.5, -0.5], [0.5, -0.5, -0.5], [-0.5, 0.5, -0.5]]
    """
    line = ((2 * np.arange(side) + 1) / side - 1).astype(np.float32)
    z, y, x = np.meshgrid(line, line, line, indexing="ij")
    return np.stack([x, y, z], axis=-1).reshape(-1, 3)


def evened(field: Float[np.ndarray, "z y x"]) -> Float64[np.ndarray, "z y x"]:
    """About the distance that a steep or uneven field stands for, a little smoothed.

    What a network says jumps at the surface, from cell to cell of the grid, and would show it.
    """
    from scipy import ndimage  # takes .3 s to load, which no other command should wait for

    values = np.nan_to_num(np.asarray(field, np.float64), nan=_FAR, posinf=_FAR, neginf=-_FAR)
    cell = 2 / max(values.shape)
    slope = np.linalg.norm(np.gradient(values, cell), axis=0)
    steep = ndimage.gaussian_filter(slope, 1.0, mode="nearest")
    least = max(1e-3 * float(steep.max()), 1e-9)
    near = np.clip(values / np.maximum(steep, least), -6 * cell, 6 * cell)
    return ndimage.gaussian_filter(near, 0.7, mode="nearest")


def picture(
    field: Float[np.ndarray, "z y x"], frame: Frame | None = None
) -> UInt8[np.ndarray, "row column 3"]:
    """The surface, and below it the slices through the frame's middle, of `TALL` x `WIDE` pixels.

    The slices are seen along x, y and z. What is not finite counts as outside.
    """
    frame = frame or frame_of(field)
    values = _closed(field)
    whole = np.ones((TALL, WIDE, 3))
    whole[:WIDE] = _surface(values, frame, WIDE)
    for number in range(3):
        left = number * (_SLICE + _GAP)
        whole[WIDE + _GAP :, left : left + _SLICE] = _slice(values, frame, number)
    return _bytes(whole)


def small(
    field: Float[np.ndarray, "z y x"], frame: Frame, side: int
) -> UInt8[np.ndarray, "side side 3"]:
    """The surface alone, in a size of one's own."""
    return _bytes(_surface(_closed(field), frame, side))


def _bytes(picture: Float64[np.ndarray, "row column 3"]) -> UInt8[np.ndarray, "row column 3"]:
    return np.rint(255 * np.clip(picture, 0, 1)).astype(np.uint8)


def _closed(field: Float[np.ndarray, "z y x"]) -> Float64[np.ndarray, "z2 y2 x2"]:
    """With a layer around that is outside: what reaches the grid's side ends there."""
    finite = np.nan_to_num(np.asarray(field, np.float64), nan=_FAR, posinf=_FAR, neginf=-_FAR)
    padded = np.pad(finite, 1, "edge")
    inner = np.zeros(padded.shape, bool)
    inner[1:-1, 1:-1, 1:-1] = True
    return np.where(inner, padded, np.abs(padded))


def _surface(
    field: Float64[np.ndarray, "z2 y2 x2"], frame: Frame, side: int
) -> Float64[np.ndarray, "side side 3"]:
    """The surface on white, 0 to 1, seen from above and in front."""
    axes = _axes()
    step = 2 * frame.half / side
    line = (np.arange(side) + 0.5) * step - frame.half
    # Depth, row and column as multiples of the viewer's axes: away, down, right.
    turned = _resampled(field, frame, np.stack([-axes[2], -axes[1], axes[0]]), [line] * 3)
    inside = turned < 0
    hit = inside.any(0)
    depth = np.where(hit, inside.argmax(0), turned.argmin(0))
    here = np.take_along_axis(turned, depth[None], 0)[0]
    slope = _slope(turned, depth) / step
    length = np.maximum(np.linalg.norm(slope, axis=0), 1e-9)
    normal = np.stack([slope[2], -slope[1], -slope[0]]) / length
    light, halfway = _unit(_LIGHT), _unit(_unit(_LIGHT) + np.array([0, 0, 1]))
    facing, shine = (np.clip(np.tensordot(to, normal, 1), 0, 1) for to in (light, halfway))
    shade = 0.34 + 0.2 * normal[1] + 0.6 * facing
    colour = shade[..., None] * _COLOUR + 0.25 * shine[..., None] ** 24
    cover = np.where(hit, 1.0, np.clip(0.5 - here / (length * step), 0, 1))
    return 1 + cover[..., None] * (np.clip(colour, 0, 1) - 1)


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    return vector / np.linalg.norm(vector)


def _slope(
    turned: Float64[np.ndarray, "depth row column"], depth: Int64[np.ndarray, "row column"]
) -> Float64[np.ndarray, "3 row column"]:
    """Central differences along depth, rows and columns at one point of each pixel."""
    place = [depth, *np.indices(depth.shape)]
    found = []
    for axis, size in enumerate(turned.shape):
        ends = []
        for step in (-1, 1):
            moved = list(place)
            moved[axis] = np.clip(place[axis] + step, 0, size - 1)
            ends.append(moved)
        apart = np.maximum(ends[1][axis] - ends[0][axis], 1)
        found.append((turned[tuple(ends[1])] - turned[tuple(ends[0])]) / apart)
    return np.stack(found)


def _slice(
    field: Float64[np.ndarray, "z2 y2 x2"], frame: Frame, axis: int
) -> Float64[np.ndarray, "side side 3"]:
    """What is inside in the plane through the middle at right angles to x, y or z."""
    right, up = ((1, 2), (0, 2), (0, 1))[axis]
    unit = np.eye(3)
    step = 2 * frame.half / _SLICE
    line = (np.arange(_SLICE) + 0.5) * step - frame.half
    plane = _resampled(
        field, frame, np.stack([unit[axis], -unit[up], unit[right]]), (np.zeros(1), line, line)
    )[0]
    slope = np.hypot(*np.gradient(plane, step))
    cover = np.clip(0.5 - plane / (np.maximum(slope, 1e-9) * step), 0, 1)[..., None]
    return cover * _INSIDE + (1 - cover) * _OUTSIDE


def _axes() -> Float64[np.ndarray, "3 3"]:
    """Right, up and towards the viewer, in x, y, z; z is up."""
    towards = np.array([sin(_TURN) * cos(_DOWN), -cos(_TURN) * cos(_DOWN), sin(_DOWN)])
    right = np.array([cos(_TURN), sin(_TURN), 0.0])
    return np.stack([right, np.cross(towards, right), towards])


def _resampled(
    field: Float64[np.ndarray, "z2 y2 x2"],
    frame: Frame,
    axes: Float64[np.ndarray, "3 3"],
    lines: Sequence[NDArray[np.floating[Any]]],
) -> Float64[np.ndarray, "depth row column"]:
    """The field at the middle plus evenly spaced multiples of three axes, linear between."""
    from scipy import ndimage  # as above

    sides = np.array(field.shape) - 2
    scale = sides.max() / 2
    steps = np.array([line[1] - line[0] if len(line) > 1 else 0.0 for line in lines])
    start = np.array(frame.middle) + np.array([line[0] for line in lines]) @ axes
    # From x, y, z to places in an array z, y, x.
    matrix = (axes * steps[:, None]).T[::-1] * scale
    offset = start[::-1] * scale + (sides + 1) / 2
    shape = tuple(len(line) for line in lines)
    return ndimage.affine_transform(field, matrix, offset, shape, order=1, mode="nearest")
