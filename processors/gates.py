"""What graded networks do with each neuron between two products, compiled: one pass each way.

Features come by grade, and nonlinearities act on their values, the Hadamard transform over
grades. torch would write and read a whole tensor for each step; here all of them are done for one
neuron after the other, in a few kilobytes. float32 on a CPU; `processors.graded` has the plain
operations, which these agree with to 1e-6.
"""

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from zoo.engines.compiling import kernel

# 2^f, |f| <= 1/2, and, with t = 1 / (1 + 0.32 a), the tail of a normal variable beyond a >= 0
# divided by its density at a and by t: interpolated at the nodes of Chebyshev, both to 4e-8.
_P0, _P1, _P2 = np.float32(1), np.float32(0.6931472067106194), np.float32(0.2402265121361371)
_P3, _P4 = np.float32(0.05550327214210613), np.float32(0.00961802560290122)
_P5, _P6 = np.float32(0.0013400432164859964), np.float32(0.00015469731993241875)
_T0, _T1 = np.float32(0.3200000076670555), np.float32(0.3199978574278219)
_T2, _T3 = np.float32(0.28732833313313394), np.float32(0.22004969293937643)
_T4, _T5 = np.float32(0.14749089634762938), np.float32(-0.024716093759547725)
_T6, _T7 = np.float32(0.16563788144164832), np.float32(-0.3694797586858823)
_T8, _T9 = np.float32(0.24002541362607288), np.float32(-0.053020133398449326)
_SPREAD = np.float32(0.32)
# exp(-a^2 / 2) as a power of two, no less than 2^-125; 1 / sqrt(2 pi).
_POWER, _LEAST, _PEAK = np.float32(-0.7213475204444817), np.float32(-125), np.float32(0.3989423)
_ZERO, _ONE, _TINY = np.float32(0), np.float32(1), np.float32(1e-6)
_BIAS, _SHIFT = np.int32(127), np.int32(23)


@intrinsic  # type: ignore[untyped-decorator]
def _as_float(context: Any, bits: Any) -> Any:
    """The float32 of these bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.int32), generate


# Untyped, since they are compiled.
@njit
def _normal(x):  # type: ignore[no-untyped-def]
    """How likely a standard normal variable is below x, and its density."""
    a = abs(x)
    y = max(a * a * _POWER, _LEAST)
    whole = np.rint(y)
    f = y - whole
    power = (((((_P6 * f + _P5) * f + _P4) * f + _P3) * f + _P2) * f + _P1) * f + _P0
    power *= _as_float(np.int32((np.int32(whole) + _BIAS) << _SHIFT))
    density = power * _PEAK
    t = _ONE / (_ONE + _SPREAD * a)
    tail = (((_T9 * t + _T8) * t + _T7) * t + _T6) * t + _T5
    tail = ((((tail * t + _T4) * t + _T3) * t + _T2) * t + _T1) * t + _T0
    tail *= t * density
    return (_ONE - tail if x > _ZERO else tail), density


@njit
def _pair(rows, first, second):  # type: ignore[no-untyped-def]
    """Sum and difference of two rows, in place."""
    for chan in range(rows.shape[1]):
        x, y = rows[first, chan], rows[second, chan]
        rows[first, chan] = x + y
        rows[second, chan] = x - y


@njit
def _transform(rows):  # type: ignore[no-untyped-def]
    """The Hadamard transform over 1, 2 or 4 grades, not scaled, in place."""
    if rows.shape[0] == 4:
        _pair(rows, 0, 2)
        _pair(rows, 1, 3)
        _pair(rows, 2, 3)
    if rows.shape[0] > 1:
        _pair(rows, 0, 1)


@njit
def _values(x, entry, rows, scale):  # type: ignore[no-untyped-def]
    """Write the values of one entry."""
    for grade in range(x.shape[0]):
        for chan in range(x.shape[2]):
            rows[grade, chan] = x[grade, entry, chan] * scale
    _transform(rows)


@njit
def _write(rows, entry, out):  # type: ignore[no-untyped-def]
    for grade in range(out.shape[0]):
        for chan in range(out.shape[2]):
            out[grade, entry, chan] = rows[grade, chan]


@kernel
def gated(x, out):  # type: ignore[no-untyped-def]
    """values(plain * gelu(gate)), where values(x) are plain and gate side by side."""
    grades, entries, wide = x.shape
    half = wide // 2
    scale = np.float32(1 / np.sqrt(grades))
    rows = np.empty((grades, wide), np.float32)
    found = np.empty((grades, half), np.float32)
    for entry in range(entries):
        _values(x, entry, rows, scale)
        for grade in range(grades):
            for chan in range(half):
                gate = rows[grade, half + chan]
                below, _ = _normal(gate)
                found[grade, chan] = rows[grade, chan] * (gate * below) * scale
        _transform(found)
        _write(found, entry, out)


@kernel
def gated_backward(x, to_out, to_x):  # type: ignore[no-untyped-def]
    """The gradient of `gated`."""
    grades, entries, wide = x.shape
    half = wide // 2
    scale = np.float32(1 / np.sqrt(grades))
    rows = np.empty((grades, wide), np.float32)
    slope = np.empty((grades, half), np.float32)
    for entry in range(entries):
        _values(x, entry, rows, scale)
        _values(to_out, entry, slope, scale)
        for grade in range(grades):
            for chan in range(half):
                plain, gate = rows[grade, chan], rows[grade, half + chan]
                below, density = _normal(gate)
                to = slope[grade, chan] * scale
                rows[grade, chan] = to * (gate * below)
                rows[grade, half + chan] = to * plain * (below + gate * density)
        _transform(rows)
        _write(rows, entry, to_x)


@kernel
def still(x, out):  # type: ignore[no-untyped-def]
    """Grade 0 of gelu(values(x)), by their values."""
    grades, entries, wide = x.shape
    scale = np.float32(1 / np.sqrt(grades))
    rows = np.empty((grades, wide), np.float32)
    for entry in range(entries):
        _values(x, entry, rows, scale)
        for chan in range(wide):
            out[0, entry, chan] = _ZERO
        for grade in range(grades):
            for chan in range(wide):
                value = rows[grade, chan]
                below, _ = _normal(value)
                out[0, entry, chan] += value * below * scale


@kernel
def still_backward(x, to_out, to_x):  # type: ignore[no-untyped-def]
    """The gradient of `still`."""
    grades, entries, wide = x.shape
    scale = np.float32(1 / np.sqrt(grades))
    rows = np.empty((grades, wide), np.float32)
    for entry in range(entries):
        _values(x, entry, rows, scale)
        for grade in range(grades):
            for chan in range(wide):
                value = rows[grade, chan]
                below, density = _normal(value)
                to = to_out[0, entry, chan] * scale * scale
                rows[grade, chan] = to * (below + value * density)
        _transform(rows)
        _write(rows, entry, to_x)


@kernel
def scaled(x, out):  # type: ignore[no-untyped-def]
    """Each entry divided by the root mean square of its features."""
    grades, entries, wide = x.shape
    squares = np.empty(wide, np.float32)
    for entry in range(entries):
        squares[:] = _ZERO
        for grade in range(grades):
            for chan in range(wide):
                squares[chan] += x[grade, entry, chan] * x[grade, entry, chan]
        mean = np.float32(squares.sum() / np.float32(grades * wide))
        factor = np.float32(_ONE / np.sqrt(mean + _TINY))
        for grade in range(grades):
            for chan in range(wide):
                out[grade, entry, chan] = x[grade, entry, chan] * factor


@kernel
def scaled_backward(x, to_out, to_x):  # type: ignore[no-untyped-def]
    """The gradient of `scaled`."""
    grades, entries, wide = x.shape
    count = np.float32(grades * wide)
    squares, products = np.empty(wide, np.float32), np.empty(wide, np.float32)
    for entry in range(entries):
        squares[:] = _ZERO
        products[:] = _ZERO
        for grade in range(grades):
            for chan in range(wide):
                squares[chan] += x[grade, entry, chan] * x[grade, entry, chan]
            for chan in range(wide):
                products[chan] += x[grade, entry, chan] * to_out[grade, entry, chan]
        mean = np.float32(squares.sum() / count)
        factor = np.float32(_ONE / np.sqrt(mean + _TINY))
        less = np.float32(factor * factor * factor * (products.sum() / count))
        for grade in range(grades):
            for chan in range(wide):
                to_x[grade, entry, chan] = (
                    to_out[grade, entry, chan] * factor - x[grade, entry, chan] * less
                )
