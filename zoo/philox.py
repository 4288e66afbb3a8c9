"""Counter-based random numbers, so that a network's randomness has no history.

Philox 4x32-10 used raw: the key is (seed, attempt), the counter is (index, view,
stream, block). A network's numbers depend on these alone, never on the batch, the
shard or the worker it was drawn in, and never on a library's distribution functions,
whose streams change between versions.

Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", Table 2
(10 rounds, the constants below).
"""

import numpy as np
from numpy.typing import NDArray

# What a stream of numbers is for; part of format 1, so numbers are never reused.
INIT = 0
DATA_ORDER = 1
HYPER = 2
AUGMENT = 3
SHAPE = 4  # what a solid is and where it lies
POOL = 5  # the points that a shape is asked about in training
BATCH = 6  # which of them each step takes
TEST = 7  # the points that quality is measured on
CLOUD = 8  # the points on a surface
ENCODING = 9  # frequencies of a zoo's Fourier encoding, at index and view 0

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)


def philox(counter: NDArray[np.uint64], key: tuple[int, int]) -> NDArray[np.uint32]:
    """Ten Philox rounds on every counter.

    Args:
        counter: `[..., 4]`, values below 2**32.
        key: two words below 2**32, the same for all counters.

    Returns:
        `[..., 4]` random words.
    """
    c0, c1, c2, c3 = (counter[..., lane].astype(np.uint64) for lane in range(4))
    k0, k1 = key
    for _ in range(10):
        p0 = c0 * _MULTIPLIERS[0]
        p1 = c2 * _MULTIPLIERS[1]
        c0 = (p1 >> _SHIFT) ^ c1 ^ np.uint64(k0)
        c1 = p1 & _LOW
        c2 = (p0 >> _SHIFT) ^ c3 ^ np.uint64(k1)
        c3 = p0 & _LOW
        k0 = (k0 + _WEYL[0]) & 0xFFFFFFFF
        k1 = (k1 + _WEYL[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def words(
    seed: int,
    attempt: int,
    index: NDArray[np.int64],
    view: NDArray[np.int64],
    stream: int,
    count: int,
) -> NDArray[np.uint32]:
    """`[net, count]` random 32-bit words of every network.

    Raises:
        ValueError: if seed, attempt, index or view is outside 0 .. 2**32 - 1.
    """
    index, view = np.atleast_1d(index), np.atleast_1d(view)
    for name, value in (("seed", seed), ("attempt", attempt)):
        if not 0 <= value < 2**32:
            raise ValueError(f"{name} must be in 0 .. 2**32 - 1, got {value}")
    for name, values in (("index", index), ("view", view)):
        if values.size and (values.min() < 0 or values.max() >= 2**32):
            raise ValueError(
                f"{name} must be in 0 .. 2**32 - 1, got {values.min()}..{values.max()}"
            )
    blocks = -(-count // 4)
    counter = np.empty((len(index), blocks, 4), np.uint64)
    counter[:, :, 0] = index[:, None]
    counter[:, :, 1] = view[:, None]
    counter[:, :, 2] = stream
    counter[:, :, 3] = np.arange(blocks)
    return philox(counter, (seed, attempt)).reshape(len(index), -1)[:, :count]


def uniforms(
    seed: int,
    attempt: int,
    index: NDArray[np.int64],
    view: NDArray[np.int64],
    stream: int,
    count: int,
) -> NDArray[np.float64]:
    """`[net, count]` uniforms in [0, 1), multiples of 2**-24."""
    raw = words(seed, attempt, index, view, stream, count)
    return (raw >> np.uint32(8)).astype(np.float64) * 2.0**-24


def normals(
    seed: int,
    attempt: int,
    index: NDArray[np.int64],
    view: NDArray[np.int64],
    stream: int,
    count: int,
) -> NDArray[np.float64]:
    """`[net, count]` standard normals by Box-Muller on consecutive pairs of uniforms."""
    pairs = -(-count // 2)
    u = uniforms(seed, attempt, index, view, stream, 2 * pairs).reshape(-1, pairs, 2)
    # 1 - u is in (0, 1], so the logarithm is finite.
    radius = np.sqrt(-2.0 * np.log(1.0 - u[..., 0]))
    angle = 2.0 * np.pi * u[..., 1]
    both = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    return both.reshape(len(both), -1)[:, :count]
