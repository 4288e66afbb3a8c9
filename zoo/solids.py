"""Ten families of solids with exact distances: the digits of three dimensions.

A solid is a row of `PARAMETERS`, which a seed and its index alone decide; no file is needed.
Each family is described in a frame of its own, whose origin is the middle of the solid's
extents; `draw` then scales, turns and shifts it, so that it lies within a ball of radius
`REACH` about the origin. Distances are those to the surface itself, from closed formulas (of
ellipsoids from the one root that the formula asks for), negative inside.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import pi, prod, sqrt
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float32, Float64, Int64
from numpy.typing import NDArray

from zoo import philox
from zoo.recipes import SOLID_TARGETS

# No point of a solid is further from the middle of the cube [-1, 1]^3.
REACH = 0.95
# Distance of the furthest point of a solid from its own origin: smallest, largest.
RADII = (0.65, 0.85)
PARAMETERS = (
    *("family", "a", "b", "c", "d"),
    *("turn_w", "turn_x", "turn_y", "turn_z"),
    *("shift_x", "shift_y", "shift_z"),
)

Array: TypeAlias = NDArray[np.float64]
Sizes: TypeAlias = tuple[float, float, float, float]

# Around an axis, and along an arc: chords are cut off again by a step onto the surface.
_AROUND, _ALONG = 64, 24
# Of a difference quotient, in the cube's units.
_STEP = 1e-6


@dataclass(frozen=True)
class Family:
    """A family of solids: all functions take sizes a, b, c, d in the solid's own frame.

    Attributes:
        ranges: of a, b, c, d before they are scaled; what is not needed is 0.
        distance: exact and signed, of points given by their coordinates x, y, z.
        radius: of the smallest ball about the origin that holds the solid.
        extents: along x, y, z.
        faces: triangles `triangle corner coord` that are the surface, or close to it.
    """

    name: str
    ranges: tuple[tuple[float, float], ...]
    distance: Callable[[Sizes, Array, Array, Array], Array]
    radius: Callable[[Sizes], float]
    extents: Callable[[Sizes], tuple[float, float, float]]
    volume: Callable[[Sizes], float]
    faces: Callable[[Sizes], Array]


# ---- distances


def _segment(u: Array, v: Array, start: tuple[float, float], end: tuple[float, float]) -> Array:
    """Distances to a segment of the plane."""
    du, dv = end[0] - start[0], end[1] - start[1]
    pu, pv = u - start[0], v - start[1]
    along = np.clip((pu * du + pv * dv) / (du * du + dv * dv), 0, 1)
    return np.hypot(pu - along * du, pv - along * dv)


def _both(first: Array, second: Array) -> Array:
    """Signed distances of what lies in both of two sets along axes at right angles.

    It is exact where both are: an outline of the plane swept along a line, say.
    """
    outside = np.hypot(np.maximum(first, 0), np.maximum(second, 0))
    return outside + np.minimum(np.maximum(first, second), 0)


def _rectangle(u: Array, v: Array, a: float, b: float) -> Array:
    return _both(np.abs(u) - a, np.abs(v) - b)


def _gable(u: Array, v: Array, a: float, b: float) -> Array:
    """Of a triangle with the corners (-a, -b), (a, -b) and (0, b)."""
    u = np.abs(u)
    edge = np.minimum(_segment(u, v, (a, -b), (0, b)), _segment(u, v, (0, -b), (a, -b)))
    inside = (v > -b) & (u * 2 * b < a * (b - v))
    return np.where(inside, -edge, edge)


def _outline(u: Array, v: Array, corners: Array) -> Array:
    """Of a polygon."""
    edge = np.full(u.shape, np.inf)
    inside = np.zeros(u.shape, bool)
    for (u0, v0), (u1, v1) in zip(corners, np.roll(corners, -1, 0), strict=True):
        edge = np.minimum(edge, _segment(u, v, (u0, v0), (u1, v1)))
        if v0 != v1:
            # A ray to the right crosses this edge.
            inside ^= ((v0 > v) != (v1 > v)) & (u < u0 + (v - v0) * ((u1 - u0) / (v1 - v0)))
    return np.where(inside, -edge, edge)


def _ellipsoid(sizes: Sizes, x: Array, y: Array, z: Array) -> Array:
    """By the root of sum (e_i y_i / (e_i^2 + t))^2 = 1, which gives the nearest point.

    Source: Eberly 2013, "Distance from a point to an ellipse, an ellipsoid, or a
    hyperellipsoid", Sec. 3; here by Newton's method on one over the root of the sum, which
    is almost a line, from where the sum is at least 1: it comes from below and never misses.
    """
    axes = np.array(sizes[:3])
    # On a plane of symmetry inside there are two nearest points: a hair beside it is one.
    points = np.maximum(np.abs(np.stack([x, y, z])), 1e-9)
    squares = axes**2
    least = squares.min()
    gaps = (squares - least)[:, None]
    scaled = axes[:, None] * points
    root = (scaled - gaps).max(0)  # t + least
    for _ in range(40):
        terms = scaled / (root + gaps)
        total = (terms**2).sum(0)
        slope = (terms**2 / (root + gaps)).sum(0)
        step = total * (np.sqrt(total) - 1) / slope
        root = root + step
        if np.all(np.abs(step) <= 1e-14 * root):
            break
    nearest = squares[:, None] * points / (root + gaps)
    found = np.sqrt(((points - nearest) ** 2).sum(0))
    return np.where(((points / axes[:, None]) ** 2).sum(0) < 1, -found, found)


def _box(sizes: Sizes, x: Array, y: Array, z: Array) -> Array:
    a, b, c, _ = sizes
    return _both(_rectangle(x, y, a, b), np.abs(z) - c)


def _cylinder(sizes: Sizes, x: Array, y: Array, z: Array) -> Array:
    a, b, *_ = sizes
    return _both(np.hypot(x, y) - a, np.abs(z) - b)


def _cone(sizes: Sizes, x: Array, y: Array, z: Array) -> Array:
    a, b, *_ = sizes
    return _gable(np.hypot(x, y), z, a, b)


def _capsule(sizes: Sizes, x: Array, y: Array, z: Array) -> Array:
    a, b, *_ = sizes
    return np.sqrt(x**2 + y**2 + np.maximum(np.abs(z) - b, 0) ** 2) - a


def _torus(sizes: Sizes, x: Array, y: Array, z: Array) -> Array:
    a, b, *_ = sizes
    return np.hypot(np.hypot(x, y) - a, z) - b


def _pyramid(sizes: Sizes, x: Array, y: Array, z: Array) -> Array:
    """By the two slopes and the base of a quarter: the rest is its image in mirrors."""
    a, b, c, _ = sizes
    x, y = np.abs(x), np.abs(y)
    top, corner = (0.0, 0.0, c), (a, b, -c)
    base = np.sqrt(np.maximum(x - a, 0) ** 2 + np.maximum(y - b, 0) ** 2 + (z + c) ** 2)
    slopes = (
        _triangle(x, y, z, np.array([top, corner, foot])) for foot in ((a, 0.0, -c), (0.0, b, -c))
    )
    found = np.minimum(base, np.minimum(*slopes))
    left = (c - z) / (2 * c)
    return np.where((z > -c) & (x < a * left) & (y < b * left), -found, found)


def _triangle(x: Array, y: Array, z: Array, corners: Array) -> Array:
    """Distances to a triangle in space."""
    points = np.stack([x, y, z])
    normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
    normal /= np.linalg.norm(normal)
    apart = [points - corner[:, None] for corner in corners]
    plane = np.abs(normal @ apart[0])
    nearest = np.full(x.shape, np.inf)
    over = np.ones(x.shape, bool)
    for number, from_corner in enumerate(apart):
        edge = corners[(number + 1) % 3] - corners[number]
        along = np.clip(edge @ from_corner / (edge @ edge), 0, 1)
        nearest = np.minimum(nearest, np.sqrt(((from_corner - edge[:, None] * along) ** 2).sum(0)))
        over &= np.cross(normal, edge) @ from_corner >= 0
    return np.where(over, plane, nearest)


def _prism(sizes: Sizes, x: Array, y: Array, z: Array) -> Array:
    a, b, c, _ = sizes
    return _both(_gable(x, y, a, b), np.abs(z) - c)


def _cross(sizes: Sizes, x: Array, y: Array, z: Array) -> Array:
    """By the end and the side of half an arm: the rest is their image in mirrors."""
    a, b, c, _ = sizes
    u, v = np.abs(x), np.abs(y)
    u, v = np.maximum(u, v), np.minimum(u, v)
    edge = np.minimum(_segment(u, v, (a, 0), (a, b)), _segment(u, v, (a, b), (b, b)))
    flat = np.where((u < a) & (v < b), -edge, edge)
    return _both(flat, np.abs(z) - c)


def _bracket(sizes: Sizes, x: Array, y: Array, z: Array) -> Array:
    return _both(_outline(x, y, _bracket_corners(sizes)), np.abs(z) - sizes[2])


def _bracket_corners(sizes: Sizes) -> Array:
    a, b, _, d = sizes
    return np.array(
        [(-a, -b), (a, -b), (a, -b + d), (-a + d, -b + d), (-a + d, b), (-a, b)], np.float64
    )


# ---- surfaces


def _rectangle_corners(low: tuple[float, float], high: tuple[float, float]) -> Array:
    return np.array([low, (high[0], low[1]), high, (low[0], high[1])], np.float64)


def _swept(outline: Array, pieces: list[Array], half: float) -> Array:
    """Of an outline of the plane from z = -half to half; its convex pieces are both ends."""
    found: list[Any] = []
    for (u0, v0), (u1, v1) in zip(outline, np.roll(outline, -1, 0), strict=True):
        low, high = ((u0, v0, -half), (u1, v1, -half)), ((u0, v0, half), (u1, v1, half))
        found += [(*low, high[1]), (low[0], high[1], high[0])]
    for piece in pieces:
        for number in range(1, len(piece) - 1):
            fan = piece[[0, number, number + 1]]
            found += [tuple((u, v, end) for u, v in fan) for end in (-half, half)]
    return np.array(found, np.float64)


def _turned(radius: Array, z: Array) -> Array:
    """Of a line in a half plane, turned around the z axis."""
    angle = np.linspace(0, 2 * pi, _AROUND + 1)
    ring = np.stack([np.cos(angle), np.sin(angle), np.ones_like(angle)], -1)
    grid = np.stack([radius, radius, z], -1)[:, None] * ring  # point angle coord
    corner, across, along = grid[:-1, :-1], grid[:-1, 1:], grid[1:, :-1]
    both = np.stack([corner, across, along]), np.stack([grid[1:, 1:], across, along])
    return np.concatenate([three.reshape(3, -1, 3).swapaxes(0, 1) for three in both])


def _ellipsoid_faces(sizes: Sizes) -> Array:
    angle = np.linspace(0, pi, _ALONG + 1)
    return _turned(np.sin(angle), np.cos(angle)) * np.array(sizes[:3])


def _box_faces(sizes: Sizes) -> Array:
    a, b, c, _ = sizes
    outline = _rectangle_corners((-a, -b), (a, b))
    return _swept(outline, [outline], c)


def _cylinder_faces(sizes: Sizes) -> Array:
    a, b, *_ = sizes
    return _turned(np.array([0, a, a, 0]), np.array([-b, -b, b, b]))


def _cone_faces(sizes: Sizes) -> Array:
    a, b, *_ = sizes
    return _turned(np.array([0, a, 0]), np.array([-b, -b, b]))


def _capsule_faces(sizes: Sizes) -> Array:
    a, b, *_ = sizes
    angle = np.linspace(0, pi / 2, _ALONG // 2 + 1)
    radius, height = a * np.sin(angle), b + a * np.cos(angle)
    return _turned(np.r_[radius, radius[::-1]], np.r_[height, -height[::-1]])


def _torus_faces(sizes: Sizes) -> Array:
    a, b, *_ = sizes
    angle = np.linspace(0, 2 * pi, _ALONG + 1)
    return _turned(a + b * np.cos(angle), b * np.sin(angle))


def _pyramid_faces(sizes: Sizes) -> Array:
    a, b, c, _ = sizes
    base = [(-a, -b, -c), (a, -b, -c), (a, b, -c), (-a, b, -c)]
    slopes = [(base[number - 1], base[number], (0, 0, c)) for number in range(4)]
    return np.array([*slopes, base[:3], [base[0], *base[2:]]], np.float64)


def _prism_faces(sizes: Sizes) -> Array:
    a, b, c, _ = sizes
    outline = np.array([(-a, -b), (a, -b), (0, b)], np.float64)
    return _swept(outline, [outline], c)


def _cross_faces(sizes: Sizes) -> Array:
    a, b, c, _ = sizes
    quarter = np.array([(a, -b), (a, b), (b, b)], np.float64)
    turns = ([[1, 0], [0, 1]], [[0, -1], [1, 0]], [[-1, 0], [0, -1]], [[0, 1], [-1, 0]])
    outline = np.concatenate([quarter @ np.array(turn, np.float64).T for turn in turns])
    arms = [((-a, -b), (a, b)), ((-b, b), (b, a)), ((-b, -a), (b, -b))]
    return _swept(outline, [_rectangle_corners(*arm) for arm in arms], c)


def _bracket_faces(sizes: Sizes) -> Array:
    a, b, c, d = sizes
    legs = [((-a, -b), (a, -b + d)), ((-a, -b + d), (-a + d, b))]
    return _swept(_bracket_corners(sizes), [_rectangle_corners(*leg) for leg in legs], c)


# ---- the families


def _ball(sizes: Sizes) -> float:
    """The diagonal of the box around a, b, c."""
    return sqrt(sum(size**2 for size in sizes[:3]))


def _twice(sizes: Sizes) -> tuple[float, float, float]:
    return 2 * sizes[0], 2 * sizes[1], 2 * sizes[2]


_NONE = (0.0, 0.0)
_ALL = (
    Family(
        "ellipsoid", ((1, 1), (0.55, 0.8), (0.35, 0.55), _NONE), _ellipsoid,
        lambda s: max(s[:3]), _twice, lambda s: 4 / 3 * pi * prod(s[:3]), _ellipsoid_faces,
    ),
    Family(
        "box", ((1, 1), (0.5, 0.9), (0.35, 0.75), _NONE), _box,
        _ball, _twice, lambda s: 8 * prod(s[:3]), _box_faces,
    ),
    Family(
        "cylinder", ((0.45, 1), (0.5, 1), _NONE, _NONE), _cylinder,
        lambda s: sqrt(s[0] ** 2 + s[1] ** 2), lambda s: (2 * s[0], 2 * s[0], 2 * s[1]),
        lambda s: 2 * pi * s[0] ** 2 * s[1], _cylinder_faces,
    ),
    Family(
        "cone", ((0.6, 1), (0.6, 1), _NONE, _NONE), _cone,
        lambda s: sqrt(s[0] ** 2 + s[1] ** 2), lambda s: (2 * s[0], 2 * s[0], 2 * s[1]),
        lambda s: 2 / 3 * pi * s[0] ** 2 * s[1], _cone_faces,
    ),
    Family(
        "capsule", ((0.4, 0.6), (0.6, 1), _NONE, _NONE), _capsule,
        lambda s: s[0] + s[1], lambda s: (2 * s[0], 2 * s[0], 2 * (s[0] + s[1])),
        lambda s: pi * s[0] ** 2 * (2 * s[1] + 4 / 3 * s[0]), _capsule_faces,
    ),
    Family(
        "torus", ((1, 1), (0.28, 0.45), _NONE, _NONE), _torus,
        lambda s: s[0] + s[1], lambda s: (2 * (s[0] + s[1]), 2 * (s[0] + s[1]), 2 * s[1]),
        lambda s: 2 * pi**2 * s[0] * s[1] ** 2, _torus_faces,
    ),
    Family(
        "pyramid", ((0.65, 1), (0.65, 1), (0.5, 0.9), _NONE), _pyramid,
        _ball, _twice, lambda s: 8 / 3 * prod(s[:3]), _pyramid_faces,
    ),
    Family(
        "prism", ((0.65, 1), (0.6, 0.9), (0.5, 1), _NONE), _prism,
        _ball, _twice, lambda s: 4 * prod(s[:3]), _prism_faces,
    ),
    Family(
        "cross", ((1, 1), (0.25, 0.4), (0.25, 0.5), _NONE), _cross,
        lambda s: sqrt(s[0] ** 2 + s[1] ** 2 + s[2] ** 2),
        lambda s: (2 * s[0], 2 * s[0], 2 * s[2]),
        lambda s: 2 * s[2] * (8 * s[0] * s[1] - 4 * s[1] ** 2), _cross_faces,
    ),
    Family(
        "bracket", ((0.75, 1), (0.75, 1), (0.3, 0.6), (0.4, 0.6)), _bracket,
        _ball, _twice,
        lambda s: 2 * s[2] * s[3] * (2 * s[0] + 2 * s[1] - s[3]), _bracket_faces,
    ),
)  # fmt: skip
FAMILIES = tuple(family.name for family in _ALL)


def draw(seed: int, index: Int64[np.ndarray, " net"]) -> Float64[np.ndarray, "net _"]:
    """The solids of these indices as rows of `PARAMETERS`: families in turn, all else random.

    Proportions are uniform in the ranges of the family, the radius in `RADII`, turns uniform
    over all rotations, shifts uniform as far as `REACH` allows.
    """
    index = np.asarray(index, np.int64)
    uniforms = philox.uniforms(seed, 0, index, np.zeros_like(index), philox.SHAPE, 11)
    params = np.empty((len(index), len(PARAMETERS)))
    for row, number, u in zip(params, index % len(_ALL), uniforms, strict=True):
        family = _ALL[number]
        low, high = np.array(family.ranges).T
        sizes = low + u[:4] * (high - low)
        radius = RADII[0] + u[4] * (RADII[1] - RADII[0])
        row[0] = number
        row[1:5] = sizes * (radius / family.radius(_sizes(sizes)))
        # Source: Shoemake 1992, "Uniform random rotations", Graphics Gems III.
        first, second = 2 * pi * u[6:8]
        row[5:7] = sqrt(1 - u[5]) * np.sin(first), sqrt(1 - u[5]) * np.cos(first)
        row[7:9] = sqrt(u[5]) * np.sin(second), sqrt(u[5]) * np.cos(second)
        row[9:] = (2 * u[8:] - 1) * (REACH - radius) / sqrt(3)
    return params


def columns(params: Float64[np.ndarray, "net _"]) -> dict[str, NDArray[np.generic]]:
    """The class of each solid as `label`, and its `SOLID_TARGETS`."""
    sizes, volumes = np.empty((len(params), 3)), np.empty(len(params))
    for number, row in enumerate(params):
        family, own = _family(row), _sizes(row[1:5])
        sizes[number] = sorted(family.extents(own), reverse=True)
        volumes[number] = family.volume(own)
    found = dict(zip(SOLID_TARGETS, (*sizes.T, volumes), strict=True))
    named: dict[str, NDArray[np.generic]] = {"label": params[:, 0].astype(np.int64)}
    return named | {name: values.astype(np.float32) for name, values in found.items()}


def distance(
    params: Float64[np.ndarray, "net _"], points: Float32[np.ndarray, "net point 3"]
) -> Float32[np.ndarray, "net point"]:
    """Signed distances of points x, y, z to the surface of each solid, negative inside."""
    found = np.empty(points.shape[:2], np.float32)
    for values, row, own in zip(found, params, points, strict=True):
        values[:] = _distance(row, own.astype(np.float64))
    return found


def cloud(
    params: Float64[np.ndarray, "net _"],
    seed: int,
    index: Int64[np.ndarray, " net"],
    count: int,
) -> Float32[np.ndarray, "net count 3"]:
    """Random points on the surface of each solid, uniform by area."""
    index = np.asarray(index, np.int64)
    found = np.empty((len(params), count, 3), np.float32)
    for values, row, number in zip(found, params, index, strict=True):
        key = number[None], np.zeros(1, np.int64)
        which, u, v = philox.uniforms(seed, 0, *key, philox.CLOUD, 3 * count)[0].reshape(3, -1)
        corner, second, third = _family(row).faces(_sizes(row[1:5])).swapaxes(0, 1)
        sides = second - corner, third - corner
        areas = np.linalg.norm(np.cross(*sides), axis=1).cumsum()
        chosen = np.searchsorted(areas, which * areas[-1], side="right")
        chosen = np.minimum(chosen, len(areas) - 1)
        # What lies beyond the third side is turned back into the triangle.
        beyond = u + v > 1
        u, v = np.where(beyond, 1 - u, u), np.where(beyond, 1 - v, v)
        flat = corner[chosen] + u[:, None] * sides[0][chosen] + v[:, None] * sides[1][chosen]
        points = flat @ _rotation(row).T + row[9:]
        values[:] = _onto(row, points)
    return found


def _onto(row: Array, points: Array) -> Array:
    """Points close to the surface moved onto it, along the slope of the distance."""
    here = _distance(row, points)
    slope = np.stack([_distance(row, points + step) - here for step in _STEP * np.eye(3)], axis=-1)
    return points - here[:, None] * (slope / _STEP)


def _distance(row: Array, points: Array) -> Array:
    own = (points - row[9:]) @ _rotation(row)
    return _family(row).distance(_sizes(row[1:5]), *np.ascontiguousarray(own.T))


def _family(row: Array) -> Family:
    return _ALL[int(row[0])]


def _sizes(values: Array) -> Sizes:
    a, b, c, d = (float(value) for value in values)
    return a, b, c, d


def _rotation(row: Array) -> Array:
    """The matrix that turns the solid's own frame into the cube's, of a unit quaternion."""
    w, x, y, z = row[5:9]
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
