"""Compiled kernels of the CPU engine: fit one SIREN, wholly on the calling thread.

All code that Numba compiles stands in this file, because Numba's on-disk cache
notices changes to the file of the compiled function only. `cpu.py` holds the
Python around it. `fit_network` is the entry; it releases the GIL.

Layout. Vector lanes are *features*, not points, which makes all three products of
a layer (forward, backward to the input, weight gradient) the same cheap motion: load
one or two vectors of features, broadcast single numbers against them, and keep the
sums in registers. No product needs a transposed activation or a horizontal sum. A
`wide` array (activations, their cosines, deltas) is stored as panels of `LANES`
features, each panel point-major,

    wide[panel][point][lane],  feature = panel * LANES + lane,

so that the distance from point to point is a constant of the machine code,
whatever the width. A `narrow` array (inputs, deltas of the outputs) has one row of
`NARROW` numbers per point. Weights are held in two orders, both with panels of
lanes first:

    backward [input panel][output][lane of input]   product to the input; gradient
    forward  [output panel][input][lane of output]  product to the output

Adam's state has the backward order (the forward order in layer 0, whose inputs are
too few to fill lanes and need no gradient). Lanes past a width hold zero weights
and zero gradients, so they stay zero. Points past the last one are computed with
the rest of their tile but never read by a sum.

Omega is folded into the weights: the kernels see omega * W and omega * b, and
Adam multiplies the gradient by omega. Points go through all layers, forward and
backward, in blocks small enough to stay in the first-level cache; the delta of a
layer overwrites its cosines.

The tile kernels are LLVM IR written by `@intrinsic` functions: plain loops leave the
choice of registers to LLVM's vectoriser; a trial with them took 43 us per network and step for
(2, 32, 32, 1) and 784 points where these take 16 (two cores, Zen 5). Everything a kernel
sums over is in a fixed order, so a network's bytes depend on nothing but its own
data (and on the kind of machine).
"""

# Numba infers the types of what it compiles, and gives intrinsics theirs at compile time.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"

from __future__ import annotations

import math
import platform
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import config, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from zoo.engines.compiling import kernel


def _machine_shape() -> tuple[int, int, int]:
    """(lanes of a float32 vector, rows of a product tile, rows of a gradient tile).

    A product tile holds rows * 2 sums, 2 weights and 1 broadcast in registers: 31
    of AVX-512's 32, 15 of AVX2's 16, 27 of NEON's 32.
    """
    if config.CPU_FEATURES is not None:
        features = {name[1:] for name in config.CPU_FEATURES.split(",") if name.startswith("+")}
    else:
        features = {name for name, present in llvm.get_host_cpu_features().items() if present}
    if "avx512f" in features:
        return 16, 14, 8
    if platform.machine().lower() in ("arm64", "aarch64"):
        return 4, 12, 4
    return 8, 6, 4


LANES, TILE_ROWS, GRADIENT_ROWS = _machine_shape()
NARROW = 4  # numbers per point of a narrow array: at most 4 inputs and 4 outputs
UNROLL = 4  # steps of a product's inner loop written out; divides LANES

# Columns of the layer table that `cpu.py` lays out; offsets count floats in memory.
INP, OUT, WEIGHT, WEIGHT_ROWS, BIAS, FORWARD, SINE, COSINE, SIZE = range(9)
LAYER_FIELDS = 9
# Hyperparameters, in this order in a float64 array.
(
    RATE, DECAY, BETA1, BETA2, EPSILON, TARGET_MSE, OFFSET, COSINE_RATE, WARMUP, LOGISTIC,
) = range(10)  # fmt: skip
# Words of a network's key, in this order in a uint64 array.
SEED, ATTEMPT, INDEX, VIEW, STREAM = range(5)

_I64 = ir.IntType(64)
_I32 = ir.IntType(32)
_F32 = ir.FloatType()
_F64 = ir.DoubleType()
_VECTOR = ir.VectorType(_F32, LANES)
_BITS = ir.VectorType(_I32, LANES)
_DOUBLES = ir.VectorType(_F64, LANES)
_INDEX = types.int64


# --- writing LLVM IR -----------------------------------------------------------------


class _Writer:
    """Few words to write vector code with: addresses count elements of one array."""

    def __init__(self, builder: ir.IRBuilder) -> None:
        self.builder = builder

    def index(self, value: int) -> ir.Constant:
        return ir.Constant(_I64, value)

    def add(self, left: ir.Value, right: ir.Value | int) -> ir.Value:
        if isinstance(right, int):
            right = self.index(right)
        return self.builder.add(left, right)

    def mul(self, left: ir.Value, right: ir.Value | int) -> ir.Value:
        if isinstance(right, int):
            right = self.index(right)
        return self.builder.mul(left, right)

    def _at(self, base: ir.Value, offset: ir.Value, constant: int, kind: ir.Type) -> ir.Value:
        # Two steps, so that the constant becomes part of the instruction.
        scalar = kind.element if isinstance(kind, ir.VectorType) else kind
        pointer = self.builder.gep(base, [offset], source_etype=scalar)
        if constant:
            pointer = self.builder.gep(pointer, [self.index(constant)], source_etype=scalar)
        return self.builder.bitcast(pointer, kind.as_pointer())

    def load(
        self, base: ir.Value, offset: ir.Value, constant: int = 0, kind: ir.Type = _VECTOR
    ) -> ir.Value:
        align = 8 if kind in (_DOUBLES, _F64) else 4
        return self.builder.load(self._at(base, offset, constant, kind), align=align, typ=kind)

    def store(self, value: ir.Value, base: ir.Value, offset: ir.Value, constant: int = 0) -> None:
        align = 8 if value.type in (_DOUBLES, _F64) else 4
        self.builder.store(value, self._at(base, offset, constant, value.type), align=align)

    def splat(self, scalar: ir.Value) -> ir.Value:
        kind = ir.VectorType(scalar.type, LANES)
        one = self.builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, _I32(0))
        zeros = ir.Constant(_BITS, [0] * LANES)
        return self.builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), zeros)

    def broadcast(self, base: ir.Value, offset: ir.Value, constant: int = 0) -> ir.Value:
        return self.splat(self.load(base, offset, constant, _F32))

    def fma(self, left: ir.Value, right: ir.Value, addend: ir.Value) -> ir.Value:
        return _vector_call(self.builder, "fma", left, right, addend)

    def variables(self, *shape: int) -> list[Any]:
        """Zeroed vector variables; LLVM turns them into registers."""
        if len(shape) > 1:
            return [self.variables(*shape[1:]) for _ in range(shape[0])]
        names = [cgutils.alloca_once(self.builder, _VECTOR) for _ in range(shape[0])]
        for name in names:
            self.builder.store(_float(0.0), name)
        return names

    def loop(self, count: ir.Value | int):
        if isinstance(count, int):
            count = self.index(count)
        return cgutils.for_range(self.builder, count, intp=_I64)

    def get(self, variable: ir.Value) -> ir.Value:
        return self.builder.load(variable, typ=_VECTOR)

    def accumulate(self, variable: ir.Value, left: ir.Value, right: ir.Value) -> None:
        self.builder.store(self.fma(left, right, self.get(variable)), variable)


def _vector_call(builder: ir.IRBuilder, name: str, *values: ir.Value) -> ir.Value:
    """Call an LLVM intrinsic on float32 vectors."""
    kind = ir.FunctionType(_VECTOR, [_VECTOR] * len(values))
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{LANES}f32")
    return builder.call(function, values)


def _float(value: float) -> ir.Constant:
    """A vector of equal constants, rounded to float32 first."""
    return ir.Constant(_VECTOR, [float(np.float32(value))] * LANES)


def _integer(value: int) -> ir.Constant:
    return ir.Constant(_BITS, [value] * LANES)


def _arguments(context, builder, signature, values) -> list[ir.Value]:
    """The LLVM values of a kernel's arguments, arrays replaced by their data pointers."""
    result = []
    for kind, value in zip(signature.args, values, strict=True):
        if isinstance(kind, types.Array):
            value = context.make_array(kind)(context, builder, value).data
        result.append(value)
    return result


# --- products ------------------------------------------------------------------------


def _product_tile(panels: int, narrow: bool, backward: bool):
    """Write the kernel of one tile: TILE_ROWS points by `panels` panels of features.

    out[point, lane] = sum_k source[point, k] * weight[k, lane], plus the bias
    (forward) or times what stands in out, the cosine (backward). `narrow` tells the
    layout of the source.
    """
    stride = NARROW if narrow else LANES

    @intrinsic
    def tile(
        typingctx,
        source,
        memory,
        first,
        source_panel,
        weight,
        weight_panel,
        bias,
        out,
        out_panel,
        depth,
    ):
        signature = types.void(source, memory, *[_INDEX] * 8)

        def generate(context, builder, signature, values):
            (
                source,
                memory,
                first,
                source_panel,
                weight,
                weight_panel,
                bias,
                out,
                out_panel,
                depth,
            ) = _arguments(context, builder, signature, values)
            ll = _Writer(builder)
            sums = ll.variables(TILE_ROWS, panels)
            if not backward:
                for panel in range(panels):
                    start = ll.load(memory, bias, panel * LANES)
                    for row in range(TILE_ROWS):
                        builder.store(start, sums[row][panel])

            def step(column, weights):
                factors = [
                    ll.load(memory, ll.add(weights, ll.mul(weight_panel, panel)))
                    for panel in range(panels)
                ]
                for row in range(TILE_ROWS):
                    value = ll.broadcast(source, column, row * stride)
                    for panel in range(panels):
                        ll.accumulate(sums[row][panel], value, factors[panel])

            column, weights, rest = first, weight, depth
            if not narrow:
                full = builder.udiv(depth, ll.index(LANES))
                with ll.loop(full) as outer:
                    column = ll.add(first, ll.mul(outer.index, source_panel))
                    weights = ll.add(weight, ll.mul(outer.index, LANES * LANES))
                    with ll.loop(LANES // UNROLL) as inner:
                        for unrolled in range(UNROLL):
                            k = ll.add(ll.mul(inner.index, UNROLL), unrolled)
                            step(ll.add(column, k), ll.add(weights, ll.mul(k, LANES)))
                column = ll.add(first, ll.mul(full, source_panel))
                weights = ll.add(weight, ll.mul(full, LANES * LANES))
                rest = builder.urem(depth, ll.index(LANES))
            with ll.loop(rest) as inner:
                step(ll.add(column, inner.index), ll.add(weights, ll.mul(inner.index, LANES)))

            for panel in range(panels):
                place = ll.add(out, ll.mul(out_panel, panel))
                for row in range(TILE_ROWS):
                    value = ll.get(sums[row][panel])
                    if backward:
                        value = builder.fmul(value, ll.load(memory, place, row * LANES))
                    ll.store(value, memory, place, row * LANES)
            return context.get_dummy_value()

        return signature, generate

    return tile


_forward_wide_2 = _product_tile(2, narrow=False, backward=False)
_forward_wide_1 = _product_tile(1, narrow=False, backward=False)
_forward_narrow_2 = _product_tile(2, narrow=True, backward=False)
_forward_narrow_1 = _product_tile(1, narrow=True, backward=False)
_backward_wide_2 = _product_tile(2, narrow=False, backward=True)
_backward_wide_1 = _product_tile(1, narrow=False, backward=True)
_backward_narrow_2 = _product_tile(2, narrow=True, backward=True)
_backward_narrow_1 = _product_tile(1, narrow=True, backward=True)


# --- weight gradients ----------------------------------------------------------------


def _gradient_tile(rows: int, panels: int, narrow: bool):
    """Write the kernel of one tile of a weight gradient: `rows` by `panels` of lanes.

    gradient[row, lane] += sum_point left[point, row] * right[point, lane], over exactly
    `count` points. Few rows would leave the adders waiting for each other, so such
    tiles keep several partial sums over interleaved points.
    """
    stride = NARROW if narrow else LANES
    parts = max(1, 8 // (rows * panels))

    @intrinsic
    def tile(
        typingctx,
        source,
        memory,
        left,
        right,
        right_panel,
        gradient,
        gradient_panel,
        count,
    ):
        signature = types.void(source, memory, *[_INDEX] * 6)

        def generate(context, builder, signature, values):
            source, memory, left, right, right_panel, gradient, gradient_panel, count = _arguments(
                context, builder, signature, values
            )
            ll = _Writer(builder)
            sums = ll.variables(parts, rows, panels)

            def step(point, part):
                row_base = ll.add(left, ll.mul(point, stride))
                lane_base = ll.add(right, ll.mul(point, LANES))
                factors = [
                    ll.load(memory, ll.add(lane_base, ll.mul(right_panel, panel)), part * LANES)
                    for panel in range(panels)
                ]
                for row in range(rows):
                    value = ll.broadcast(source, row_base, part * stride + row)
                    for panel in range(panels):
                        ll.accumulate(sums[part][row][panel], value, factors[panel])

            chunks = builder.udiv(count, ll.index(parts))
            with ll.loop(chunks) as loop:
                point = ll.mul(loop.index, parts)
                for part in range(parts):
                    step(point, part)
            if parts > 1:
                done = ll.mul(chunks, parts)
                with ll.loop(builder.sub(count, done)) as loop:
                    step(ll.add(done, loop.index), 0)

            for panel in range(panels):
                place = ll.add(gradient, ll.mul(gradient_panel, panel))
                for row in range(rows):
                    value = ll.get(sums[0][row][panel])
                    for part in range(1, parts):
                        value = builder.fadd(value, ll.get(sums[part][row][panel]))
                    value = builder.fadd(value, ll.load(memory, place, row * LANES))
                    ll.store(value, memory, place, row * LANES)
            return context.get_dummy_value()

        return signature, generate

    return tile


_gradient_wide_2 = _gradient_tile(GRADIENT_ROWS, 2, narrow=False)
_gradient_wide_1 = _gradient_tile(GRADIENT_ROWS, 1, narrow=False)
_gradient_narrow_4_1 = _gradient_tile(4, 1, narrow=True)
_gradient_narrow_3_1 = _gradient_tile(3, 1, narrow=True)
_gradient_narrow_2_1 = _gradient_tile(2, 1, narrow=True)
_gradient_narrow_1_1 = _gradient_tile(1, 1, narrow=True)


@intrinsic
def _sum_points(typingctx, memory, wide, total, count):
    """total[lane] += sum over `count` points of one panel."""
    signature = types.void(memory, *[_INDEX] * 3)

    def generate(context, builder, signature, values):
        memory, wide, total, count = _arguments(context, builder, signature, values)
        ll = _Writer(builder)
        parts = 4
        sums = ll.variables(parts)

        def step(point, part):
            value = ll.load(memory, ll.add(wide, ll.mul(point, LANES)), part * LANES)
            builder.store(builder.fadd(ll.get(sums[part]), value), sums[part])

        chunks = builder.udiv(count, ll.index(parts))
        with ll.loop(chunks) as loop:
            for part in range(parts):
                step(ll.mul(loop.index, parts), part)
        done = ll.mul(chunks, parts)
        with ll.loop(builder.sub(count, done)) as loop:
            step(ll.add(done, loop.index), 0)
        value = ll.load(memory, total)
        for part in range(parts):
            value = builder.fadd(value, ll.get(sums[part]))
        ll.store(value, memory, total)
        return context.get_dummy_value()

    return signature, generate


# --- elementwise ---------------------------------------------------------------------


def _sine_cosine(ll: _Writer, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """sin(x) and cos(x) from one range reduction, within about 1e-7.

    n = round(x * 2 / pi) by adding 1.5 * 2^23, whose low bits then hold n; with
    fused operations pi/2 in two float32 parts carries 48 bits, which is enough up to
    the 6.6e6 where the trick ends. Beyond, float32 no longer resolves the angle; the
    reduced angle is clamped, so that the result stays bounded. NaN stays NaN.
    Polynomials on [-pi/4, pi/4]: Cephes, sinf.c and cosf.c (S. Moshier).
    """
    builder = ll.builder
    magic = _float(12582912.0)
    half_pi = float(np.float32(math.pi / 2))
    shifted = ll.fma(x, _float(2 / math.pi), magic)
    n = builder.fsub(shifted, magic)
    r = ll.fma(n, _float(-half_pi), x)
    r = ll.fma(n, _float(half_pi - math.pi / 2), r)
    low, high = _float(-1.0), _float(1.0)
    r = builder.select(builder.fcmp_ordered("<", r, low), low, r)
    r = builder.select(builder.fcmp_ordered(">", r, high), high, r)
    square = builder.fmul(r, r)
    sine = ll.fma(square, _float(-1.9515295891e-4), _float(8.3321608736e-3))
    sine = ll.fma(sine, square, _float(-1.6666654611e-1))
    sine = ll.fma(sine, builder.fmul(r, square), r)
    cosine = ll.fma(square, _float(2.443315711809948e-5), _float(-1.388731625493765e-3))
    cosine = ll.fma(cosine, square, _float(4.166664568298827e-2))
    cosine = ll.fma(cosine, square, _float(-0.5))
    cosine = ll.fma(cosine, square, _float(1.0))

    quadrant = builder.bitcast(shifted, _BITS)
    swap = builder.icmp_unsigned("!=", builder.and_(quadrant, _integer(1)), _integer(0))

    def signed(value, turned):
        sign = builder.shl(builder.and_(turned, _integer(2)), _integer(30))
        return builder.bitcast(builder.xor(builder.bitcast(value, _BITS), sign), _VECTOR)

    return (
        signed(builder.select(swap, cosine, sine), quadrant),
        signed(builder.select(swap, sine, cosine), builder.add(quadrant, _integer(1))),
    )


@intrinsic
def _sine_panel(typingctx, memory, sine, cosine, tiles):
    """Replace the angles at `sine`, `tiles` tiles of points, by sines; store cosines."""
    signature = types.void(memory, *[_INDEX] * 3)

    def generate(context, builder, signature, values):
        memory, sine, cosine, tiles = _arguments(context, builder, signature, values)
        ll = _Writer(builder)
        together = 2
        with ll.loop(ll.mul(tiles, TILE_ROWS // together)) as loop:
            start = ll.mul(loop.index, together * LANES)
            for part in range(together):
                place = ll.add(sine, start)
                s, c = _sine_cosine(ll, ll.load(memory, place, part * LANES))
                ll.store(s, memory, place, part * LANES)
                ll.store(c, memory, ll.add(cosine, start), part * LANES)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _adam(
    typingctx,
    memory,
    weight,
    gradient,
    mean,
    square,
    scaled,
    vectors,
    omega,
    decay,
    gain1,
    beta2,
    gain2,
    rate,
    root_correction,
    epsilon,
):
    """One step of torch.optim.Adam; clears the gradient, stores omega * weight."""
    signature = types.void(memory, *[_INDEX] * 6, *[types.float32] * 8)

    def generate(context, builder, signature, values):
        values = _arguments(context, builder, signature, values)
        memory, weight, gradient, mean, square, scaled, vectors = values[:7]
        ll = _Writer(builder)
        omega, decay, gain1, beta2, gain2, rate, root_correction, epsilon = (
            ll.splat(value) for value in values[7:]
        )
        with ll.loop(vectors) as loop:
            i = ll.mul(loop.index, LANES)
            w = ll.load(memory, ll.add(weight, i))
            g = builder.fmul(ll.load(memory, ll.add(gradient, i)), omega)
            g = ll.fma(decay, w, g)
            m = ll.load(memory, ll.add(mean, i))
            m = ll.fma(gain1, builder.fsub(g, m), m)
            v = builder.fmul(beta2, ll.load(memory, ll.add(square, i)))
            v = ll.fma(builder.fmul(gain2, g), g, v)
            root = _vector_call(builder, "sqrt", v)
            denominator = ll.fma(root, root_correction, epsilon)
            w = builder.fsub(w, builder.fdiv(builder.fmul(rate, m), denominator))
            ll.store(_float(0.0), memory, ll.add(gradient, i))
            ll.store(m, memory, ll.add(mean, i))
            ll.store(v, memory, ll.add(square, i))
            ll.store(w, memory, ll.add(weight, i))
            ll.store(builder.fmul(w, omega), memory, ll.add(scaled, i))
        return context.get_dummy_value()

    return signature, generate


# --- output layer --------------------------------------------------------------------


def _logistic(ll: _Writer, z: ir.Value, target: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Binary cross-entropy of a target and sigmoid(z), and its derivative in z.

    With e = exp(-|z|): max(z, 0) - z * target + log(1 + e), and 1 / (1 + e) or e / (1 + e) less
    the target. exp by Cephes, expf.c (S. Moshier); log(1 + e) = 2 artanh(e / (2 + e)), whose
    series in at most 1/3 ends below 1e-8. What is not finite makes a loss that is not.
    """
    builder = ll.builder
    zero, one = _float(0.0), _float(1.0)
    positive = builder.fcmp_ordered(">", z, zero)
    x = builder.select(positive, builder.fsub(zero, z), z)
    low = _float(-86.0)  # exp of less is no normal float32
    x = builder.select(builder.fcmp_ordered("<", x, low), low, x)
    shifted = ll.fma(x, _float(1 / math.log(2)), _float(12582912.0))
    n = builder.fsub(shifted, _float(12582912.0))
    high_log2 = 0.693359375
    r = ll.fma(n, _float(-high_log2), x)
    r = ll.fma(n, _float(high_log2 - math.log(2)), r)
    e = ll.fma(r, _float(1.9875691500e-4), _float(1.3981999507e-3))
    for factor in (8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
        e = ll.fma(e, r, _float(factor))
    e = ll.fma(e, builder.fmul(r, r), builder.fadd(r, one))
    power = builder.shl(builder.bitcast(shifted, _BITS), _integer(23))
    e = builder.bitcast(builder.add(builder.bitcast(e, _BITS), power), _VECTOR)
    s = builder.fdiv(e, builder.fadd(e, _float(2.0)))
    square = builder.fmul(s, s)
    log = _float(1 / 13)
    for number in (11, 9, 7, 5, 3, 1):
        log = ll.fma(log, square, _float(1 / number))
    log = builder.fmul(log, builder.fadd(s, s))
    above = builder.select(positive, z, zero)
    # z that is NaN stays so in the product.
    loss = builder.fadd(builder.fsub(above, builder.fmul(z, target)), log)
    share = builder.fdiv(builder.select(positive, one, e), builder.fadd(one, e))
    return loss, builder.fsub(share, target)


def _output_group(logistic: bool):
    """Write the kernel of one output at LANES points, of which `count` exist.

    It gives the error, its sums and its delta. Here the sum runs over lanes: one vector of
    products per point, then a tree of pairwise sums that ends with one point per lane.
    totals[0] collects losses and totals[1 + output] errors, per lane in float64: squared
    errors of outputs, or where `logistic` the cross-entropy of logits, and its derivatives.
    """

    @intrinsic
    def group(
        typingctx,
        memory,
        targets,
        totals,
        sine,
        sine_panel,
        panels,
        weight,
        weight_panel,
        bias,
        target,
        delta,
        count,
        output,
        offset,
        scale,
    ):
        signature = types.void(
            memory, targets, totals, *[_INDEX] * 10, types.float32, types.float32
        )

        def generate(context, builder, signature, values):
            (
                memory,
                targets,
                totals,
                sine,
                sine_panel,
                panels,
                weight,
                weight_panel,
                bias,
                target,
                delta,
                count,
                output,
                offset,
                scale,
            ) = _arguments(context, builder, signature, values)
            ll = _Writer(builder)
            sums = ll.variables(LANES)
            with ll.loop(panels) as loop:
                factor = ll.load(memory, ll.add(weight, ll.mul(loop.index, weight_panel)))
                place = ll.add(sine, ll.mul(loop.index, sine_panel))
                for row in range(LANES):
                    ll.accumulate(sums[row], ll.load(memory, place, row * LANES), factor)
            level = [ll.get(name) for name in sums]
            even = ir.Constant(_BITS, list(range(0, 2 * LANES, 2)))
            odd = ir.Constant(_BITS, list(range(1, 2 * LANES, 2)))
            while len(level) > 1:
                level = [
                    builder.fadd(
                        builder.shuffle_vector(left, right, even),
                        builder.shuffle_vector(left, right, odd),
                    )
                    for left, right in zip(level[::2], level[1::2], strict=True)
                ]
            shift = ll.splat(builder.fadd(ll.load(memory, bias, kind=_F32), offset))
            value = builder.fadd(level[0], shift)
            wanted = ll.load(targets, target)
            if logistic:
                loss, error = _logistic(ll, value, wanted)
            else:
                error = builder.fsub(value, wanted)
            lanes = ir.Constant(_BITS, list(range(LANES)))
            exists = builder.icmp_signed("<", lanes, ll.splat(builder.trunc(count, _I32)))
            error = builder.select(exists, error, _float(0.0))
            wide = builder.fpext(error, _DOUBLES)
            zero = ll.index(0)
            if logistic:
                part = builder.fpext(builder.select(exists, loss, _float(0.0)), _DOUBLES)
            else:
                part = builder.fmul(wide, wide)
            total = builder.fadd(ll.load(totals, zero, kind=_DOUBLES), part)
            ll.store(total, totals, zero)
            place = ll.mul(ll.add(output, 1), LANES)
            ll.store(builder.fadd(ll.load(totals, place, kind=_DOUBLES), wide), totals, place)
            scaled = builder.fmul(error, ll.splat(scale))
            for lane in range(LANES):
                value = builder.extract_element(scaled, _I32(lane))
                ll.store(value, memory, delta, lane * NARROW)
            return context.get_dummy_value()

        return signature, generate

    return group


_squared_group = _output_group(logistic=False)
_logistic_group = _output_group(logistic=True)


# --- one network ---------------------------------------------------------------------


@njit(nogil=True, error_model="numpy")
def _transpose_weights(memory, layers, scaled):
    """Refresh the forward order of the hidden-to-hidden weights from the backward order."""
    for layer in range(1, layers.shape[0] - 1):
        inp = layers[layer, INP]
        rows = layers[layer, WEIGHT_ROWS]
        source = scaled + layers[layer, WEIGHT]
        target = layers[layer, FORWARD]
        for panel in range((inp + LANES - 1) // LANES):
            width = min(LANES, inp - panel * LANES)
            for out in range(layers[layer, OUT]):
                read = source + (panel * rows + out) * LANES
                write = target + ((out // LANES) * inp + panel * LANES) * LANES + out % LANES
                for lane in range(width):
                    memory[write + lane * LANES] = memory[read + lane]


@njit(nogil=True, error_model="numpy")
def _forward_block(
    memory, inputs, targets, totals, layers, scaled, delta, start, count, points, offset, scale,
    capacity, logistic,
):  # fmt: skip
    """Activations, cosines and errors of one block of `count` points from `start`."""
    last = layers.shape[0] - 1
    tiles = (count + TILE_ROWS - 1) // TILE_ROWS
    stride = capacity * LANES  # from panel to panel
    for layer in range(last):
        inp = layers[layer, INP]
        panels = (layers[layer, OUT] + LANES - 1) // LANES
        bias = scaled + layers[layer, BIAS]
        sine = layers[layer, SINE]
        if layer == 0:
            weight = scaled + layers[layer, WEIGHT]
        else:
            weight = layers[layer, FORWARD]
            source = layers[layer - 1, SINE]
        step = inp * LANES
        for panel in range(0, panels - 1, 2):
            for tile in range(tiles):
                row = tile * TILE_ROWS
                if layer == 0:
                    _forward_narrow_2(
                        inputs, memory, (start + row) * NARROW, 0, weight + panel * step, step,
                        bias + panel * LANES, sine + panel * stride + row * LANES, stride, inp,
                    )  # fmt: skip
                else:
                    _forward_wide_2(
                        memory, memory, source + row * LANES, stride, weight + panel * step, step,
                        bias + panel * LANES, sine + panel * stride + row * LANES, stride, inp,
                    )  # fmt: skip
        if panels % 2:
            panel = panels - 1
            for tile in range(tiles):
                row = tile * TILE_ROWS
                if layer == 0:
                    _forward_narrow_1(
                        inputs, memory, (start + row) * NARROW, 0, weight + panel * step, step,
                        bias + panel * LANES, sine + panel * stride + row * LANES, stride, inp,
                    )  # fmt: skip
                else:
                    _forward_wide_1(
                        memory, memory, source + row * LANES, stride, weight + panel * step, step,
                        bias + panel * LANES, sine + panel * stride + row * LANES, stride, inp,
                    )  # fmt: skip
        for panel in range(panels):
            _sine_panel(
                memory, sine + panel * stride, layers[layer, COSINE] + panel * stride, tiles
            )

    inp = layers[last, INP]
    out = layers[last, OUT]
    panels = (inp + LANES - 1) // LANES
    for output in range(out):
        for row in range(0, count, LANES):
            if logistic:
                _logistic_group(
                    memory, targets, totals, layers[last - 1, SINE] + row * LANES, stride, panels,
                    scaled + layers[last, WEIGHT] + output * LANES, out * LANES,
                    scaled + layers[last, BIAS] + output, output * points + start + row,
                    delta + row * NARROW + output, min(LANES, count - row), output, offset, scale,
                )  # fmt: skip
            else:
                _squared_group(
                    memory, targets, totals, layers[last - 1, SINE] + row * LANES, stride, panels,
                    scaled + layers[last, WEIGHT] + output * LANES, out * LANES,
                    scaled + layers[last, BIAS] + output, output * points + start + row,
                    delta + row * NARROW + output, min(LANES, count - row), output, offset, scale,
                )  # fmt: skip


@njit(nogil=True, error_model="numpy")
def _narrow_gradient(source, memory, rows, left, right, right_panel, panels, gradient, count):
    """Gradient of a layer whose inputs or outputs are narrow: [panel][row][lane]."""
    for panel in range(panels):
        lanes = right + panel * right_panel
        place = gradient + panel * rows * LANES
        if rows == 1:
            _gradient_narrow_1_1(source, memory, left, lanes, 0, place, 0, count)
        elif rows == 2:
            _gradient_narrow_2_1(source, memory, left, lanes, 0, place, 0, count)
        elif rows == 3:
            _gradient_narrow_3_1(source, memory, left, lanes, 0, place, 0, count)
        else:
            _gradient_narrow_4_1(source, memory, left, lanes, 0, place, 0, count)


@njit(nogil=True, error_model="numpy")
def _backward_block(memory, inputs, layers, scaled, gradient, delta, start, count, capacity):
    """Add one block's part of all gradients; deltas replace the cosines."""
    last = layers.shape[0] - 1
    tiles = (count + TILE_ROWS - 1) // TILE_ROWS
    stride = capacity * LANES
    for layer in range(last, -1, -1):
        inp = layers[layer, INP]
        out = layers[layer, OUT]
        place = gradient + layers[layer, WEIGHT]
        if layer < last:
            own = layers[layer, COSINE]
            for panel in range((out + LANES - 1) // LANES):
                total = gradient + layers[layer, BIAS] + panel * LANES
                _sum_points(memory, own + panel * stride, total, count)
        if layer == 0:
            panels = (out + LANES - 1) // LANES
            _narrow_gradient(inputs, memory, inp, start * NARROW, own, stride, panels, place, count)
            break
        panels = (inp + LANES - 1) // LANES
        sine = layers[layer - 1, SINE]
        if layer == last:
            _narrow_gradient(memory, memory, out, delta, sine, stride, panels, place, count)
        else:
            rows = layers[layer, WEIGHT_ROWS]
            step = rows * LANES
            for row in range(0, rows, GRADIENT_ROWS):
                left = own + (row // LANES) * stride + row % LANES
                for panel in range(0, panels - 1, 2):
                    _gradient_wide_2(
                        memory, memory, left, sine + panel * stride, stride,
                        place + panel * step + row * LANES, step, count,
                    )  # fmt: skip
                if panels % 2:
                    panel = panels - 1
                    _gradient_wide_1(
                        memory, memory, left, sine + panel * stride, stride,
                        place + panel * step + row * LANES, step, count,
                    )  # fmt: skip

        weight = scaled + layers[layer, WEIGHT]
        step = layers[layer, WEIGHT_ROWS] * LANES
        target = layers[layer - 1, COSINE]
        for panel in range(0, panels - 1, 2):
            for tile in range(tiles):
                row = tile * TILE_ROWS
                if layer == last:
                    _backward_narrow_2(
                        memory, memory, delta + row * NARROW, 0, weight + panel * step, step,
                        0, target + panel * stride + row * LANES, stride, out,
                    )  # fmt: skip
                else:
                    _backward_wide_2(
                        memory, memory, own + row * LANES, stride, weight + panel * step, step,
                        0, target + panel * stride + row * LANES, stride, out,
                    )  # fmt: skip
        if panels % 2:
            panel = panels - 1
            for tile in range(tiles):
                row = tile * TILE_ROWS
                if layer == last:
                    _backward_narrow_1(
                        memory, memory, delta + row * NARROW, 0, weight + panel * step, step,
                        0, target + panel * stride + row * LANES, stride, out,
                    )  # fmt: skip
                else:
                    _backward_wide_1(
                        memory, memory, own + row * LANES, stride, weight + panel * step, step,
                        0, target + panel * stride + row * LANES, stride, out,
                    )  # fmt: skip


@njit(nogil=True, error_model="numpy")
def _place_parameters(memory, params, layers, base, store):
    """Copy flat parameters into the layout at `base`, or back when `store`.

    Layer 0 has the forward order, the others the backward order.
    """
    position = 0
    for layer in range(layers.shape[0]):
        inp = layers[layer, INP]
        out = layers[layer, OUT]
        rows = layers[layer, WEIGHT_ROWS]
        weight = base + layers[layer, WEIGHT]
        for j in range(out):
            for k in range(inp):
                if layer == 0:
                    place = weight + ((j // LANES) * inp + k) * LANES + j % LANES
                else:
                    place = weight + ((k // LANES) * rows + j) * LANES + k % LANES
                if store:
                    params[position] = memory[place]
                else:
                    memory[place] = params[position]
                position += 1
        for j in range(out):
            place = base + layers[layer, BIAS] + j
            if store:
                params[position] = memory[place]
            else:
                memory[place] = params[position]
            position += 1


@njit(nogil=True, error_model="numpy")
def _rate(settings, steps, taken):
    """The learning rate of the next update; the formula of `zoo.engines.Adam.rates`."""
    warmup = settings[WARMUP]
    if taken < warmup:
        return settings[RATE] * ((taken + 1) / warmup)
    if settings[COSINE_RATE] == 0.0:
        return settings[RATE]
    done = (taken - warmup) / max(1.0, steps - warmup)
    return settings[RATE] * (0.5 * (1.0 + math.cos(math.pi * done)))


@njit(nogil=True, error_model="numpy")
def _philox(c0, c1, c2, c3, k0, k1):
    """As `zoo.philox.philox` on one counter."""
    low = np.uint64(0xFFFFFFFF)
    shift = np.uint64(32)
    for _ in range(10):
        p0 = c0 * np.uint64(0xD2511F53)
        p1 = c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (p1 >> shift) ^ c1 ^ k0, p1 & low, (p0 >> shift) ^ c3 ^ k1, p0 & low
        k0 = (k0 + np.uint64(0x9E3779B9)) & low
        k1 = (k1 + np.uint64(0xBB67AE85)) & low
    return c0, c1, c2, c3


@njit(nogil=True, error_model="numpy")
def _draw_points(pool_inputs, pool_targets, pool, inputs, targets, out, points, key, step):
    """Take the points of a step from the pool, as `zoo.engines.Draws` says which."""
    blocks = (points + 3) // 4
    shift = np.uint64(32)
    for block in range(blocks):
        four = _philox(
            key[INDEX], key[VIEW], key[STREAM], np.uint64(step * blocks + block), key[SEED],
            key[ATTEMPT],
        )  # fmt: skip
        for lane in range(4):
            point = 4 * block + lane
            if point < points:
                chosen = np.int64(four[lane] * np.uint64(pool) >> shift)
                for number in range(NARROW):
                    inputs[point * NARROW + number] = pool_inputs[chosen * NARROW + number]
                for output in range(out):
                    targets[output * points + point] = pool_targets[output * pool + chosen]


@kernel
def fit_network(
    memory, totals, params, inputs, targets, layers, omegas, settings, state, points, delta,
    capacity, steps, cancel, pool_inputs, pool_targets, pool, key,
):  # fmt: skip
    """Fit one network; `params` is read and then overwritten with the result.

    Args:
        memory: scratch, laid out by `cpu._Layout`; what it held does not matter.
        totals: scratch, (1 + NARROW) * LANES.
        params: (weight_0, bias_0, weight_1, ...), weights (out, inp).
        inputs: (point, NARROW), padded by a tile of zero rows.
        targets: (out, points), padded by a vector.
        layers: table of sizes and offsets, one row per layer.
        omegas: one per layer, 1 for the last.
        settings: hyperparameters in the order of RATE ... LOGISTIC; TARGET_MSE may be -1,
            COSINE_RATE and LOGISTIC are 1 or 0.
        state: floats in one copy of the parameters' layout. Weights, Adam's two
            moments, the gradient and the scaled weights stand in this order from 0.
        points: number of real points; the distance between outputs in `targets`
            is `points` too.
        delta: offset of the deltas of the outputs in memory.
        capacity: points that a block can hold, block size rounded up.
        steps: updates at most.
        cancel: one byte; when another thread sets it the fit ends after the step.
        pool_inputs, pool_targets: as inputs and targets; where `pool` is not 0, so many points
            from which those of every step are drawn into inputs and targets.
        key: of what is drawn, in the order of SEED ... STREAM.

    Returns:
        loss of the result, steps taken, 1.0 if the target was met.
    """
    weight, mean, square, gradient, scaled = 0, state, 2 * state, 3 * state, 4 * state
    last = layers.shape[0] - 1
    out = layers[last, OUT]
    block = capacity // TILE_ROWS * TILE_ROWS
    offset = np.float32(settings[OFFSET])
    logistic = settings[LOGISTIC] != 0.0
    scale = np.float32((1.0 if logistic else 2.0) / (points * out))
    beta1, beta2 = settings[BETA1], settings[BETA2]

    # Forward weights follow the five copies; all padding must be zero.
    for i in range(layers[0, SINE]):
        memory[i] = np.float32(0.0)
    _place_parameters(memory, params, layers, weight, False)
    for layer in range(last + 1):
        begin = layers[layer, WEIGHT]
        for i in range(begin, begin + layers[layer, SIZE]):
            memory[scaled + i] = memory[weight + i] * omegas[layer]
    _transpose_weights(memory, layers, scaled)

    mse = 0.0
    met = 0.0
    taken = 0
    power1, power2 = 1.0, 1.0
    while True:
        final = taken == steps
        totals[:] = 0.0
        if pool > 0:
            _draw_points(pool_inputs, pool_targets, pool, inputs, targets, out, points, key, taken)
        for start in range(0, points, block):
            count = min(block, points - start)
            _forward_block(
                memory, inputs, targets, totals, layers, scaled, delta, start, count, points,
                offset, scale, capacity, logistic,
            )  # fmt: skip
            if not final:
                _backward_block(
                    memory, inputs, layers, scaled, gradient, delta, start, count, capacity
                )
        mse = totals[:LANES].sum() / (points * out)
        if mse < settings[TARGET_MSE]:
            met = 1.0
            break
        if final or not math.isfinite(mse) or cancel[0] != 0:
            break
        for output in range(out):
            first = (1 + output) * LANES
            total = totals[first : first + LANES].sum()
            memory[gradient + layers[last, BIAS] + output] = np.float32(total * scale)
        power1 *= beta1
        power2 *= beta2
        rate = _rate(settings, steps, taken)
        for layer in range(last + 1):
            begin = layers[layer, WEIGHT]
            _adam(
                memory, weight + begin, gradient + begin, mean + begin, square + begin,
                scaled + begin, layers[layer, SIZE] // LANES, omegas[layer],
                np.float32(settings[DECAY]), np.float32(1.0 - beta1), np.float32(beta2),
                np.float32(1.0 - beta2), np.float32(rate / (1.0 - power1)),
                np.float32(1.0 / math.sqrt(1.0 - power2)), np.float32(settings[EPSILON]),
            )  # fmt: skip
        _transpose_weights(memory, layers, scaled)
        taken += 1
    _place_parameters(memory, params, layers, weight, True)
    return mse, float(taken), met
