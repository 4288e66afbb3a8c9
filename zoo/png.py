"""Writes pictures as PNG, many at once: equal pixels give equal bytes with equal zlib.

Source of the format: Portable Network Graphics (PNG) Specification, W3C, Secs. 5, 9 and 11.
"""

import struct
import zlib

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {1: 0, 3: 2}  # grey, RGB


def encode(pictures: UInt8[np.ndarray, "net row column chan"], level: int = 9) -> list[bytes]:
    """Each picture as a PNG file of 8 bits, grey or RGB.

    Args:
        pictures: at least a pixel each, of one or three channels.
        level: of zlib.

    Raises:
        ValueError: for other shapes.
    """
    rows, columns, chan = pictures.shape[1:]
    if chan not in _COLOUR_TYPES or not rows or not columns:
        raise ValueError(f"expected pictures (net, row, column, 1 or 3), got {pictures.shape}")
    head = _chunk(b"IHDR", struct.pack(">2I5B", columns, rows, 8, _COLOUR_TYPES[chan], 0, 0, 0))
    end = _chunk(b"IEND", b"")
    # Drawings are shortest as they are, photographs as differences from their neighbours.
    ways = [_lines(0, pictures), _lines(4, pictures - _paeth(pictures))]
    return [
        _SIGNATURE
        + head
        + _chunk(b"IDAT", min((zlib.compress(way, level) for way in each), key=len))
        + end
        for each in zip(*ways, strict=True)
    ]


def _lines(filter_type: int, filtered: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`net (row * (1 + column * chan))`: every line of pixels after the number of its filter."""
    net, rows, columns, chan = filtered.shape
    lines = np.full((net, rows, 1 + columns * chan), filter_type, np.uint8)
    lines[:, :, 1:] = filtered.reshape(net, rows, columns * chan)
    return lines.reshape(net, rows * (1 + columns * chan))


def _paeth(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What Paeth's filter expects of each value: the neighbour next to left + upper - corner."""
    wide = np.zeros(np.add(pictures.shape, (0, 1, 1, 0)), np.int16)
    wide[:, 1:, 1:] = pictures
    left, upper, corner = wide[:, 1:, :-1], wide[:, :-1, 1:], wide[:, :-1, :-1]
    guess = left + upper - corner
    by_left, by_upper, by_corner = (abs(guess - each) for each in (left, upper, corner))
    nearest = np.where(by_upper <= by_corner, upper, corner)
    nearest = np.where((by_left <= by_upper) & (by_left <= by_corner), left, nearest)
    return nearest.astype(np.uint8)


def _chunk(kind: bytes, data: bytes) -> bytes:
    check = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)
