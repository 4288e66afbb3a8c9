"""The points that a network of a shape is asked about: near the surface, and all over the cube.

A pool is near the surface, as inr2vec draws it, or fills the volume, see `MIXES`. What it
holds is decided by the seed and the shape's index, whatever else is drawn beside it.
"""

import numpy as np
from jaxtyping import Float32, Int64

from zoo import philox
from zoo.errors import unknown

# Shares of a pool, and the deviation of the noise on points of the surface; None is uniform.
# Source of "surface": De Luigi et al. 2023, Deep learning on implicit neural representations
# of shapes, ICLR, and its released code. It says little of the cube far from the surface,
# where distances are clipped anyway. Occupancy wants "volume": without points out there ten
# solids had an IoU of .77 after 250 steps (3-64-64-1, omega 10), with them .94.
MIXES: dict[str, tuple[tuple[float, float | None], ...]] = {
    "surface": ((100, 0.0), (250, 0.003), (200, 0.01), (25, 0.1), (25, None)),
    "volume": ((35, 0.02), (35, 0.1), (30, None)),
}
_WORDS = 5  # of each point: which point of the surface, then noise or place


def queries(
    cloud: Float32[np.ndarray, "net some 3"],
    seed: int,
    index: Int64[np.ndarray, " net"],
    count: int,
    mix: str = "surface",
) -> Float32[np.ndarray, "net count 3"]:
    """Points near the surface of each shape, further off, and anywhere, in this order.

    Args:
        cloud: points of each surface, of which each query takes a random one.
        mix: one of `MIXES`.

    Returns:
        Points of the cube [-1, 1]^3: what noise moves out of it lies on its side.

    Raises:
        ValueError: if a cloud has no point, or the mix is unknown.
    """
    if not cloud.shape[1]:
        raise ValueError("expected at least one point of each surface, got none")
    if mix not in MIXES:
        raise ValueError(unknown("mix of points", mix, MIXES))
    index = np.asarray(index, np.int64)
    shares, (*deviations, _) = zip(*MIXES[mix], strict=True)
    *ends, _ = np.rint(np.cumsum(shares) * (count / sum(shares))).astype(int)
    noise = np.zeros((count, 1))
    for start, end, deviation in zip([0, *ends], ends, deviations, strict=False):
        noise[start:end] = deviation
    far = ends[-1]
    found = np.empty((len(index), count, 3), np.float32)
    for points, surface, number in zip(found, cloud, index, strict=True):
        key = number[None], np.zeros(1, np.int64)
        u = philox.uniforms(seed, 0, *key, philox.POOL, _WORDS * count)[0].reshape(_WORDS, count)
        chosen = (u[0, :far] * len(surface)).astype(np.int64)
        points[:far] = surface[chosen] + noise[:far] * _normals(u[1:, :far])
        points[far:] = (2 * u[1:4, far:] - 1).T
    return np.clip(found, -1, 1, out=found)


def _normals(u: np.ndarray) -> np.ndarray:
    """`point 3` standard normals of four uniforms each, by Box-Muller."""
    radius = np.sqrt(-2 * np.log(1 - u[:2]))
    first, second = 2 * np.pi * u[2:]
    return np.stack(
        [radius[0] * np.cos(first), radius[0] * np.sin(first), radius[1] * np.cos(second)], axis=1
    )


def uniform(
    seed: int, index: Int64[np.ndarray, " net"], count: int
) -> Float32[np.ndarray, "net count 3"]:
    """Points all over the cube for measures of quality; no pool has them."""
    index = np.asarray(index, np.int64)
    u = philox.uniforms(seed, 0, index, np.zeros_like(index), philox.TEST, 3 * count)
    return (2 * u - 1).astype(np.float32).reshape(len(index), count, 3)
