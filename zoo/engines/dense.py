"""Compiled kernels that train and evaluate one classifier, wholly on the calling thread.

Linear and convolutional layers are the same products of `tiles.py`: a conv layer reads
patches (its `points` are the positions of all items), laid out like the activations of a
linear one. Patches of pictures are built of whole tap rows, so that each is one vector copy:
a panel of them holds as many tap rows as fit and leaves the other lanes to garbage that no
sum reads (WIDTH counts the lanes in use). Layout and promises are those of `tiles.py`; every
weight stands in the forward order here,

    weight [output panel][input][lane of output]

with the inputs rounded up to whole panels, and a transposed copy serves the product back
to the input. Minibatches go through the network in blocks of items that fit the
second-level cache; gradients add up over blocks in a fixed order, so a network's bytes
depend on its own data, settings and block size alone.

The tiles are imported: whoever changes `tiles.py` must touch this file too, since
Numba's cache looks at the file of the compiled function only.
"""

# Numba infers the types of what it compiles.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from zoo.engines.compiling import kernel
from zoo.engines.tiles import (
    _INDEX,
    _VECTOR,
    GRADIENT_ROWS,
    LANES,
    TILE_ROWS,
    UNROLL,
    _arguments,
    _backward_wide_1,
    _backward_wide_2,
    _float,
    _forward_wide_1,
    _forward_wide_2,
    _gradient_tile,
    _gradient_wide_1,
    _gradient_wide_2,
    _philox,
    _sum_points,
    _Writer,
)

__all__ = ["LANES", "TILE_ROWS", "evaluate", "place", "train", "words"]

# Columns of the layer table; WEIGHT and BIAS count floats in one copy of the parameters,
# the other offsets count floats in memory.
(
    KIND, INP, DEPTH, OUT, WEIGHT, BIAS, BACKWARD, SOURCE, SOURCE_CAPACITY, CAPACITY, POINTS,
    VALUE, DELTA, IN_ROWS, IN_COLUMNS, CHANNELS, OUT_ROWS, OUT_COLUMNS, KERNEL_ROWS,
    KERNEL_COLUMNS, STRIDE, PADDING, ACTIVATION, WIDTH,
) = range(24)  # fmt: skip
LAYER_FIELDS = 24
LINEAR, CONV = 0, 1
IDENTITY, RELU, TANH = 0, 1, 2
ADAM, SGD, RMSPROP = 0, 1, 2
# Settings of one network, in this order in a float64 array.
OPTIMISER, RATE, DECAY, BETA1, BETA2, EPSILON, DROPOUT = range(7)
# Places in memory, in this order in an int64 array: floats of one copy of the parameters
# (weights, two moments and gradient stand at 0, 1, 2 and 3 times it), a row of zeros, and
# one picture with its padding.
STATE, ZEROS, PICTURE = range(3)


@njit(nogil=True, error_model="numpy", inline="always")
def _panels(width):
    return (width + LANES - 1) // LANES


# --- random words --------------------------------------------------------------------


@kernel
def words(seed, attempt, index, view, stream, first, out):
    """Fill `out` with the words of blocks `first`, `first` + 1, ... of a network's stream."""
    for block in range((len(out) + 3) // 4):
        four = _philox(
            np.uint64(index), np.uint64(view), np.uint64(stream), np.uint64(first + block),
            np.uint64(seed), np.uint64(attempt),
        )  # fmt: skip
        for lane in range(4):
            if 4 * block + lane < len(out):
                out[4 * block + lane] = np.uint32(four[lane])


# --- vectors -------------------------------------------------------------------------


def _vector_operation(write):
    """An intrinsic on vectors of `memory` at `target` and `source`."""

    @intrinsic
    def operation(typingctx, memory, target, source):
        signature = types.void(memory, _INDEX, _INDEX)

        def generate(context, builder, signature, values):
            memory, target, source = _arguments(context, builder, signature, values)
            ll = _Writer(builder)
            ll.store(write(ll, memory, target, source), memory, target)
            return context.get_dummy_value()

        return signature, generate

    return operation


def _added(ll, memory, target, source):
    return ll.builder.fadd(ll.load(memory, target), ll.load(memory, source))


_copy_vector = _vector_operation(lambda ll, memory, _, source: ll.load(memory, source))
_clear_vector = _vector_operation(lambda *_: _float(0.0))
_add_vector = _vector_operation(_added)


@intrinsic
def _load_bytes(typingctx, images, memory, source, target, scale, shift):
    """A vector of scale * byte + shift, of bytes `source` on of all `images`."""
    signature = types.void(images, memory, _INDEX, _INDEX, types.float32, types.float32)

    def generate(context, builder, signature, values):
        images, memory, source, target, scale, shift = _arguments(
            context, builder, signature, values
        )
        ll = _Writer(builder)
        kind = ir.VectorType(ir.IntType(8), LANES)
        pointer = builder.gep(images, [source], source_etype=kind.element)
        pixels = builder.load(builder.bitcast(pointer, kind.as_pointer()), align=1, typ=kind)
        scaled = builder.fmul(builder.uitofp(pixels, _VECTOR), ll.splat(scale))
        ll.store(builder.fadd(scaled, ll.splat(shift)), memory, target)
        return context.get_dummy_value()

    return signature, generate


# --- products ------------------------------------------------------------------------


def _conv_tile(rows: int, panels: int):
    """Write the kernel of `rows` points by `panels` panels of outputs of a conv layer.

    As the forward tiles of `tiles.py`, from source panels of `width` inputs each.
    """

    @intrinsic
    def tile(
        typingctx, memory, first, source_panel, weight, weight_panel, bias, out, out_panel, depth,
        width,
    ):  # fmt: skip
        signature = types.void(memory, *[_INDEX] * 9)

        def generate(context, builder, signature, values):
            (
                memory, first, source_panel, weight, weight_panel, bias, out, out_panel, depth,
                width,
            ) = _arguments(context, builder, signature, values)  # fmt: skip
            ll = _Writer(builder)
            sums = ll.variables(rows, panels)
            for panel in range(panels):
                start = ll.load(memory, bias, panel * LANES)
                for row in range(rows):
                    builder.store(start, sums[row][panel])

            def step(column, weights, unrolled):
                factors = [
                    ll.load(memory, ll.add(weights, ll.mul(weight_panel, panel)), unrolled * LANES)
                    for panel in range(panels)
                ]
                for row in range(rows):
                    value = ll.broadcast(memory, column, row * LANES + unrolled)
                    for panel in range(panels):
                        ll.accumulate(sums[row][panel], value, factors[panel])

            count = builder.udiv(ll.add(depth, builder.sub(width, ll.index(1))), width)
            with ll.loop(count) as outer:
                begin = ll.mul(outer.index, width)
                left = builder.sub(depth, begin)
                here = builder.select(builder.icmp_signed("<", left, width), left, width)
                column = ll.add(first, ll.mul(outer.index, source_panel))
                weights = ll.add(weight, ll.mul(begin, LANES))
                full = builder.udiv(here, ll.index(UNROLL))
                with ll.loop(full) as inner:
                    k = ll.mul(inner.index, UNROLL)
                    for unrolled in range(UNROLL):
                        step(ll.add(column, k), ll.add(weights, ll.mul(k, LANES)), unrolled)
                done = ll.mul(full, UNROLL)
                with ll.loop(builder.sub(here, done)) as inner:
                    k = ll.add(done, inner.index)
                    step(ll.add(column, k), ll.add(weights, ll.mul(k, LANES)), 0)

            for panel in range(panels):
                place = ll.add(out, ll.mul(out_panel, panel))
                for row in range(rows):
                    ll.store(ll.get(sums[row][panel]), memory, place, row * LANES)
            return context.get_dummy_value()

        return signature, generate

    return tile


# One panel alone leaves registers for twice the rows.
TALL_ROWS = 2 * TILE_ROWS
_conv_2 = _conv_tile(TILE_ROWS, 2)
_conv_1 = _conv_tile(TILE_ROWS, 1)
_conv_tall_1 = _conv_tile(TALL_ROWS, 1)
_gradient_lanes_1 = _gradient_tile(LANES, 1, narrow=False)
_gradient_9_1 = _gradient_tile(9, 1, narrow=False)
_gradient_3_1 = _gradient_tile(3, 1, narrow=False)
_gradient_1_1 = _gradient_tile(1, 1, narrow=False)


@njit(nogil=True, error_model="numpy")
def _conv_product(
    memory, source, source_stride, weight, weight_panel, bias, bias_panel, target, target_stride,
    panels, points, depth, width,
):  # fmt: skip
    """Target = source x weight + bias, from source panels of `width` inputs."""
    for panel in range(0, panels - 1, 2):
        for row in range(0, points, TILE_ROWS):
            _conv_2(
                memory, source + row * LANES, source_stride, weight + panel * weight_panel,
                weight_panel, bias + panel * bias_panel,
                target + panel * target_stride + row * LANES, target_stride, depth, width,
            )  # fmt: skip
    if panels % 2:
        weights = weight + (panels - 1) * weight_panel
        start = bias + (panels - 1) * bias_panel
        out = target + (panels - 1) * target_stride
        row = 0
        while points - row > TILE_ROWS:
            _conv_tall_1(
                memory, source + row * LANES, source_stride, weights, 0, start,
                out + row * LANES, 0, depth, width,
            )  # fmt: skip
            row += TALL_ROWS
        if row < points:
            _conv_1(
                memory, source + row * LANES, source_stride, weights, 0, start,
                out + row * LANES, 0, depth, width,
            )  # fmt: skip


@njit(nogil=True, error_model="numpy")
def _conv_gradient(
    memory, source, source_stride, right, gradient, points, depth, width
):  # fmt: skip
    """Add the weight gradient of one panel of outputs, deltas `right`."""
    for start in range(0, depth, width):
        left = source + (start // width) * source_stride
        stop = min(depth, start + width)
        k = start
        while k < stop:
            place = gradient + k * LANES
            if stop - k >= LANES:
                _gradient_lanes_1(memory, memory, left, right, 0, place, 0, points)
                done = LANES
            elif stop - k >= 9:
                _gradient_9_1(memory, memory, left, right, 0, place, 0, points)
                done = 9
            elif stop - k >= 3:
                _gradient_3_1(memory, memory, left, right, 0, place, 0, points)
                done = 3
            else:
                _gradient_1_1(memory, memory, left, right, 0, place, 0, points)
                done = 1
            k += done
            left += done


@njit(nogil=True, error_model="numpy")
def _product(
    memory, source, source_stride, weight, weight_panel, bias, bias_panel, target, target_stride,
    panels, points, depth, times,
):  # fmt: skip
    """Target = source x weight + bias, or with `times` what is in target times the product."""
    tiles = (points + TILE_ROWS - 1) // TILE_ROWS
    for panel in range(0, panels - 1, 2):
        for tile in range(tiles):
            row = tile * TILE_ROWS * LANES
            if times:
                _backward_wide_2(
                    memory, memory, source + row, source_stride, weight + panel * weight_panel,
                    weight_panel, 0, target + panel * target_stride + row, target_stride, depth,
                )  # fmt: skip
            else:
                _forward_wide_2(
                    memory, memory, source + row, source_stride, weight + panel * weight_panel,
                    weight_panel, bias + panel * bias_panel,
                    target + panel * target_stride + row, target_stride, depth,
                )  # fmt: skip
    if panels % 2:
        panel = panels - 1
        for tile in range(tiles):
            row = tile * TILE_ROWS * LANES
            if times:
                _backward_wide_1(
                    memory, memory, source + row, source_stride, weight + panel * weight_panel,
                    weight_panel, 0, target + panel * target_stride + row, target_stride, depth,
                )  # fmt: skip
            else:
                _forward_wide_1(
                    memory, memory, source + row, source_stride, weight + panel * weight_panel,
                    weight_panel, bias + panel * bias_panel,
                    target + panel * target_stride + row, target_stride, depth,
                )  # fmt: skip


# --- loading and patches -------------------------------------------------------------


@njit(nogil=True, error_model="numpy")
def _load_line(memory, images, source, target, size, scale, shift):
    """`size` bytes from `source` on of all images as floats."""
    flat = images.reshape(-1)
    full = size // LANES * LANES
    for i in range(0, full, LANES):
        _load_bytes(images, memory, source + i, target + i, scale, shift)
    for i in range(full, size):
        memory[target + i] = np.float32(flat[source + i]) * scale + shift


@njit(nogil=True, error_model="numpy")
def _load_items(memory, images, items, first, count, layers, places, scale, shift):
    """Items of bytes as the source of layer 0: values scale * byte + shift."""
    source = layers[0, SOURCE]
    stride = layers[0, SOURCE_CAPACITY] * LANES
    if layers[0, KIND] == LINEAR:
        inp = layers[0, INP]
        full = inp // LANES
        for point in range(count):
            image = images[items[first + point]]
            begin = items[first + point] * images.shape[1]
            for panel in range(full):
                place = source + panel * stride + point * LANES
                _load_bytes(images, memory, begin + panel * LANES, place, scale, shift)
            for k in range(full * LANES, inp):
                memory[source + full * stride + point * LANES + k - full * LANES] = (
                    np.float32(image[k]) * scale + shift
                )
        return
    rows, columns, channels = layers[0, IN_ROWS], layers[0, IN_COLUMNS], layers[0, CHANNELS]
    kernel_rows, kernel_columns = layers[0, KERNEL_ROWS], layers[0, KERNEL_COLUMNS]
    step, padding = layers[0, STRIDE], layers[0, PADDING]
    run = kernel_columns * channels
    point = 0
    if run <= LANES:
        picture, line = places[PICTURE], (columns + 2 * padding) * channels
        for number in range(count):
            begin = items[first + number] * images.shape[1]
            if padding == 0:
                _load_line(memory, images, begin, picture, rows * line, scale, shift)
            else:
                size = columns * channels
                for row in range(rows):
                    place = picture + (row + padding) * line + padding * channels
                    _load_line(memory, images, begin + row * size, place, size, scale, shift)
            for out_row in range(layers[0, OUT_ROWS]):
                corner = picture + out_row * step * line
                for _ in range(layers[0, OUT_COLUMNS]):
                    place, lane = source + point * LANES, 0
                    for tap_row in range(kernel_rows):
                        if lane == layers[0, WIDTH]:
                            place, lane = place + stride, 0
                        # Lanes past the tap row are overwritten by the next one or unused.
                        _copy_vector(memory, place + lane, corner + tap_row * line)
                        lane += run
                    corner += step * channels
                    point += 1
        return
    for number in range(count):
        image = images[items[first + number]]
        for out_row in range(layers[0, OUT_ROWS]):
            for out_column in range(layers[0, OUT_COLUMNS]):
                k = 0
                for tap_row in range(kernel_rows):
                    row = out_row * step + tap_row - padding
                    for tap_column in range(kernel_columns):
                        column = out_column * step + tap_column - padding
                        inside = 0 <= row < rows and 0 <= column < columns
                        pixel = (row * columns + column) * channels
                        for channel in range(channels):
                            value = np.float32(0.0)
                            if inside:
                                value = np.float32(image[pixel + channel]) * scale + shift
                            place = (k // LANES) * stride + point * LANES + k % LANES
                            memory[source + place] = value
                            k += 1
                point += 1


@njit(nogil=True, error_model="numpy")
def _panel_patches(memory, layers, layer, items, back, source, tap_stride, before):
    """As `_patches`, for one panel of channels: whole vectors."""
    rows, columns = layers[layer, IN_ROWS], layers[layer, IN_COLUMNS]
    out_rows, out_columns = layers[layer, OUT_ROWS], layers[layer, OUT_COLUMNS]
    step, padding = layers[layer, STRIDE], layers[layer, PADDING]
    kernel_columns = layers[layer, KERNEL_COLUMNS]
    for tap_column in range(kernel_columns):
        # Output columns from `low` to `high` - 1 find this tap inside the picture.
        shift = tap_column - padding
        low = min(out_columns, max(0, (step - 1 - shift) // step))
        high = max(low, min(out_columns, (columns - 1 - shift) // step + 1))
        for tap_row in range(layers[layer, KERNEL_ROWS]):
            patches = source + (tap_row * kernel_columns + tap_column) * tap_stride
            for item in range(items):
                for out_row in range(out_rows):
                    row = out_row * step + tap_row - padding
                    patch = patches + (item * out_rows + out_row) * out_columns * LANES
                    if not 0 <= row < rows:
                        if not back:
                            for column in range(out_columns):
                                _clear_vector(memory, patch + column * LANES, 0)
                        continue
                    pixel = before + ((item * rows + row) * columns + shift) * LANES
                    if back:
                        for column in range(low, high):
                            _add_vector(
                                memory, pixel + column * step * LANES, patch + column * LANES
                            )
                        continue
                    for column in range(low):
                        _clear_vector(memory, patch + column * LANES, 0)
                    for column in range(low, high):
                        _copy_vector(memory, patch + column * LANES, pixel + column * step * LANES)
                    for column in range(high, out_columns):
                        _clear_vector(memory, patch + column * LANES, 0)


@njit(nogil=True, error_model="numpy")
def _patches(memory, layers, layer, items, back):
    """Copy the values before a conv layer into its patches; `back` adds patches to them."""
    source = layers[layer, SOURCE]
    stride = layers[layer, SOURCE_CAPACITY] * LANES
    before = layers[layer - 1, VALUE]
    before_stride = layers[layer - 1, CAPACITY] * LANES
    rows, columns = layers[layer, IN_ROWS], layers[layer, IN_COLUMNS]
    channels = layers[layer, CHANNELS]
    step, padding = layers[layer, STRIDE], layers[layer, PADDING]
    if channels % LANES == 0:
        for panel in range(channels // LANES):
            _panel_patches(
                memory, layers, layer, items, back, source + panel * stride,
                channels // LANES * stride, before + panel * before_stride,
            )  # fmt: skip
        return
    point = 0
    for item in range(items):
        for out_row in range(layers[layer, OUT_ROWS]):
            for out_column in range(layers[layer, OUT_COLUMNS]):
                k = 0
                for tap_row in range(layers[layer, KERNEL_ROWS]):
                    row = out_row * step + tap_row - padding
                    for tap_column in range(layers[layer, KERNEL_COLUMNS]):
                        column = out_column * step + tap_column - padding
                        inside = 0 <= row < rows and 0 <= column < columns
                        pixel = before + ((item * rows + row) * columns + column) * LANES
                        for channel in range(channels):
                            place = source + (k // LANES) * stride + point * LANES + k % LANES
                            value = pixel + (channel // LANES) * before_stride + channel % LANES
                            if back:
                                if inside:
                                    memory[value] += memory[place]
                            else:
                                memory[place] = memory[value] if inside else np.float32(0.0)
                            k += 1
                point += 1


@njit(nogil=True, error_model="numpy")
def _pool(memory, layers, layer, items):
    """The mean over positions of every item's values before a linear layer."""
    source = layers[layer, SOURCE]
    stride = layers[layer, SOURCE_CAPACITY] * LANES
    before = layers[layer - 1, VALUE]
    before_stride = layers[layer - 1, CAPACITY] * LANES
    positions = layers[layer - 1, POINTS]
    share = np.float32(1.0 / positions)
    for panel in range(_panels(layers[layer, INP])):
        for item in range(items):
            start = source + panel * stride + item * LANES
            mean = memory[start : start + LANES]
            mean[:] = np.float32(0.0)
            for position in range(positions):
                start = before + panel * before_stride + (item * positions + position) * LANES
                values = memory[start : start + LANES]
                for lane in range(LANES):
                    mean[lane] += values[lane]
            for lane in range(LANES):
                mean[lane] *= share


# --- activations ---------------------------------------------------------------------


@njit(nogil=True, error_model="numpy")
def _activate(values, deltas, activation, derive):
    """Replace pre-activations by activations; deltas become derivatives."""
    zero, one = np.float32(0.0), np.float32(1.0)
    if activation == RELU:
        if derive:
            for i in range(len(values)):
                deltas[i] = one if values[i] > zero else zero
        for i in range(len(values)):
            # Written so that NaN stays NaN.
            values[i] = zero if values[i] <= zero else values[i]
    elif activation == TANH:
        # The rational approximation of Eigen (MathFunctionsImpl.h), within a few ulp.
        limit = np.float32(7.90531110763549805)
        for i in range(len(values)):
            x = values[i]
            x = limit if x > limit else x
            x = -limit if x < -limit else x
            s = x * x
            p = s * np.float32(-2.76076847742355e-16) + np.float32(2.00018790482477e-13)
            p = s * p + np.float32(-8.60467152213735e-11)
            p = s * p + np.float32(5.12229709037114e-08)
            p = s * p + np.float32(1.48572235717979e-05)
            p = s * p + np.float32(6.37261928875436e-04)
            p = s * p + np.float32(4.89352455891786e-03)
            q = s * np.float32(1.19825839466702e-06) + np.float32(1.18534705686654e-04)
            q = s * q + np.float32(2.26843463243900e-03)
            q = s * q + np.float32(4.89352518554385e-03)
            values[i] = x * p / q
        if derive:
            for i in range(len(values)):
                deltas[i] = one - values[i] * values[i]
    elif derive:
        deltas[:] = one


@njit(nogil=True, error_model="numpy")
def _drop(memory, layers, layer, items, rate, keys, block):
    """Drop each feature of an item (of a conv layer: its whole map) with chance `rate`.

    Values and derivatives of what stays are scaled by 1 / (1 - rate).
    """
    out, positions = layers[layer, OUT], layers[layer, POINTS]
    stride = layers[layer, CAPACITY] * LANES
    limit = np.uint64(rate * 16777216.0)
    keep = np.float32(1.0 / (1.0 - rate))
    fours = (out + 3) // 4
    for item in range(items):
        for four in range(fours):
            drawn = _philox(
                keys[2], keys[3], keys[4], np.uint64(block + item * fours + four), keys[0], keys[1]
            )
            for lane in range(4):
                feature = 4 * four + lane
                if feature < out:
                    factor = np.float32(0.0) if (drawn[lane] >> np.uint64(8)) < limit else keep
                    at = (feature // LANES) * stride + item * positions * LANES + feature % LANES
                    value, delta = layers[layer, VALUE] + at, layers[layer, DELTA] + at
                    for _ in range(positions):
                        memory[value] *= factor
                        memory[delta] *= factor
                        value += LANES
                        delta += LANES


# --- forward, loss, backward ---------------------------------------------------------


@njit(nogil=True, error_model="numpy")
def _forward(memory, layers, items, derive, rate, keys, block, batch, number):
    """Values of every layer for `items` items whose layer-0 source is loaded."""
    last = layers.shape[0] - 1
    for layer in range(last + 1):
        points = items * layers[layer, POINTS]
        if layer and layers[layer, KIND] == CONV:
            _patches(memory, layers, layer, items, False)
        elif layer and layers[layer - 1, KIND] == CONV:
            _pool(memory, layers, layer, items)
        panels = _panels(layers[layer, OUT])
        stride = layers[layer, CAPACITY] * LANES
        if layers[layer, KIND] == CONV:
            _conv_product(
                memory, layers[layer, SOURCE], layers[layer, SOURCE_CAPACITY] * LANES,
                layers[layer, WEIGHT], layers[layer, DEPTH] * LANES, layers[layer, BIAS], LANES,
                layers[layer, VALUE], stride, panels, points, layers[layer, INP],
                layers[layer, WIDTH],
            )  # fmt: skip
        else:
            _product(
                memory, layers[layer, SOURCE], layers[layer, SOURCE_CAPACITY] * LANES,
                layers[layer, WEIGHT], layers[layer, DEPTH] * LANES, layers[layer, BIAS], LANES,
                layers[layer, VALUE], stride, panels, points, layers[layer, INP], False,
            )  # fmt: skip
        if layer == last:
            continue
        for panel in range(panels):
            value = layers[layer, VALUE] + panel * stride
            delta = layers[layer, DELTA] + panel * stride
            size = points * LANES
            _activate(
                memory[value : value + size], memory[delta : delta + size],
                layers[layer, ACTIVATION], derive,
            )  # fmt: skip
        fours = (layers[layer, OUT] + 3) // 4
        if rate > 0.0:
            _drop(memory, layers, layer, items, rate, keys, block + number * fours)
        block += batch * fours


@njit(nogil=True, error_model="numpy")
def _loss(memory, layers, labels, items, first, count, scale, derive):
    """Summed cross-entropy and right answers; deltas of the outputs if `derive`.

    Deltas are the gradient of `scale` times the sum.
    """
    last = layers.shape[0] - 1
    out = layers[last, OUT]
    stride = layers[last, CAPACITY] * LANES
    value, delta = layers[last, VALUE], layers[last, DELTA]
    total = 0.0
    right = 0
    for point in range(count):
        label = labels[items[first + point]]
        best = 0
        highest = memory[value + point * LANES]
        for k in range(1, out):
            logit = memory[value + (k // LANES) * stride + point * LANES + k % LANES]
            if logit > highest:
                best, highest = k, logit
        weight = 0.0
        for k in range(out):
            at = (k // LANES) * stride + point * LANES + k % LANES
            power = math.exp(np.float64(memory[value + at]) - np.float64(highest))
            weight += power
            if derive:
                memory[delta + at] = np.float32(power)
        at = (label // LANES) * stride + point * LANES + label % LANES
        total += math.log(weight) - (np.float64(memory[value + at]) - np.float64(highest))
        right += best == label
        if derive:
            factor = np.float32(scale / weight)
            for k in range(out):
                place = delta + (k // LANES) * stride + point * LANES + k % LANES
                memory[place] *= factor
            memory[delta + at] -= np.float32(scale)
    return total, right


@njit(nogil=True, error_model="numpy")
def _backward(memory, layers, places, items):
    """Add the gradient of `items` items whose output deltas stand."""
    gradient = 3 * places[STATE]
    for layer in range(layers.shape[0] - 1, -1, -1):
        points = items * layers[layer, POINTS]
        panels = _panels(layers[layer, OUT])
        own, stride = layers[layer, DELTA], layers[layer, CAPACITY] * LANES
        source, source_stride = layers[layer, SOURCE], layers[layer, SOURCE_CAPACITY] * LANES
        depth = layers[layer, DEPTH] * LANES
        for panel in range(panels):
            total = gradient + layers[layer, BIAS] + panel * LANES
            _sum_points(memory, own + panel * stride, total, points)
        place = gradient + layers[layer, WEIGHT]
        if layers[layer, KIND] == CONV:
            for panel in range(panels):
                _conv_gradient(
                    memory, source, source_stride, own + panel * stride, place + panel * depth,
                    points, layers[layer, INP], layers[layer, WIDTH],
                )  # fmt: skip
        for k in range(0, layers[layer, INP] * (layers[layer, KIND] == LINEAR), GRADIENT_ROWS):
            left = source + (k // LANES) * source_stride + k % LANES
            for panel in range(0, panels - 1, 2):
                _gradient_wide_2(
                    memory, memory, left, own + panel * stride, stride,
                    place + panel * depth + k * LANES, depth, points,
                )  # fmt: skip
            if panels % 2:
                panel = panels - 1
                _gradient_wide_1(
                    memory, memory, left, own + panel * stride, stride,
                    place + panel * depth + k * LANES, depth, points,
                )  # fmt: skip
        if layer == 0:
            break
        before, before_stride = layers[layer - 1, DELTA], layers[layer - 1, CAPACITY] * LANES
        pooled = layers[layer - 1, KIND] == CONV
        plain = not pooled and layers[layer, KIND] == LINEAR
        target, target_stride = (before, before_stride) if plain else (source, source_stride)
        _product(
            memory, own, stride, layers[layer, BACKWARD], layers[layer, OUT] * LANES,
            places[ZEROS], 0, target, target_stride, _panels(layers[layer, INP]), points,
            layers[layer, OUT], plain,
        )  # fmt: skip
        if layers[layer, KIND] == CONV:
            # The values before are no longer needed: their place collects the patches.
            size = items * layers[layer - 1, POINTS] * LANES
            for panel in range(_panels(layers[layer - 1, OUT])):
                value = layers[layer - 1, VALUE] + panel * before_stride
                memory[value : value + size] = np.float32(0.0)
            _patches(memory, layers, layer, items, True)
            for panel in range(_panels(layers[layer - 1, OUT])):
                value = layers[layer - 1, VALUE] + panel * before_stride
                delta = before + panel * before_stride
                values, deltas = memory[value : value + size], memory[delta : delta + size]
                for i in range(size):
                    deltas[i] *= values[i]
        elif pooled:
            positions = layers[layer - 1, POINTS]
            share = np.float32(1.0 / positions)
            for panel in range(_panels(layers[layer, INP])):
                for item in range(items):
                    start = source + panel * source_stride + item * LANES
                    mean = memory[start : start + LANES]
                    for position in range(positions):
                        start = before + panel * before_stride
                        start += (item * positions + position) * LANES
                        deltas = memory[start : start + LANES]
                        for lane in range(LANES):
                            deltas[lane] *= mean[lane] * share


@njit(nogil=True, error_model="numpy")
def _transpose(memory, layers):
    """Refresh the weights of the products back to the inputs: [input panel][output][lane]."""
    for layer in range(1, layers.shape[0]):
        depth, out = layers[layer, DEPTH], layers[layer, OUT]
        weight, target = layers[layer, WEIGHT], layers[layer, BACKWARD]
        for panel in range(depth // LANES):
            for o in range(out):
                read = weight + ((o // LANES) * depth + panel * LANES) * LANES + o % LANES
                write = target + (panel * out + o) * LANES
                for lane in range(LANES):
                    memory[write + lane] = memory[read + lane * LANES]


@njit(nogil=True, error_model="numpy")
def _update(weight, mean, square, gradient, settings, step):
    """One step of torch.optim's Adam, SGD or RMSprop at their defaults; clears the gradient."""
    decay, rate = np.float32(settings[DECAY]), np.float32(settings[RATE])
    epsilon = np.float32(settings[EPSILON])
    one, zero = np.float32(1.0), np.float32(0.0)
    if settings[OPTIMISER] == ADAM:
        beta2 = np.float32(settings[BETA2])
        gain1, gain2 = np.float32(1.0 - settings[BETA1]), np.float32(1.0 - settings[BETA2])
        rate = np.float32(settings[RATE] / (1.0 - settings[BETA1] ** step))
        root = np.float32(1.0 / math.sqrt(1.0 - settings[BETA2] ** step))
        for i in range(len(weight)):
            g = gradient[i] + decay * weight[i]
            m = mean[i] + gain1 * (g - mean[i])
            v = beta2 * square[i] + gain2 * g * g
            mean[i] = m
            square[i] = v
            weight[i] -= rate * m / (np.sqrt(v) * root + epsilon)
            gradient[i] = zero
    elif settings[OPTIMISER] == SGD:
        for i in range(len(weight)):
            weight[i] -= rate * (gradient[i] + decay * weight[i])
            gradient[i] = zero
    else:
        alpha = np.float32(0.99)
        gain = one - alpha
        for i in range(len(weight)):
            g = gradient[i] + decay * weight[i]
            v = alpha * square[i] + gain * g * g
            square[i] = v
            weight[i] -= rate * g / (np.sqrt(v) + epsilon)
            gradient[i] = zero


# --- entries -------------------------------------------------------------------------


@kernel
def place(memory, params, layers, store):
    """Copy flat parameters into the layout, or back when `store`.

    Flat weights are (out, inp) or (out, channel, tap); inputs of a conv layer are
    laid out tap by tap.
    """
    position = 0
    for layer in range(layers.shape[0]):
        depth = layers[layer, DEPTH]
        channels = layers[layer, CHANNELS]
        taps = layers[layer, INP] // channels
        for o in range(layers[layer, OUT]):
            column = layers[layer, WEIGHT] + (o // LANES) * depth * LANES + o % LANES
            for channel in range(channels):
                for tap in range(taps):
                    at = column + (tap * channels + channel) * LANES
                    if store:
                        params[position] = memory[at]
                    else:
                        memory[at] = params[position]
                    position += 1
        for o in range(layers[layer, OUT]):
            at = layers[layer, BIAS] + o
            if store:
                params[position] = memory[at]
            else:
                memory[at] = params[position]
            position += 1
    if not store:
        _transpose(memory, layers)


@kernel
def train(
    memory, images, labels, order, first, last, batch, block, scale, shift, layers, places,
    settings, step, keys, cancel,
):  # fmt: skip
    """Updates on the minibatches `first` to `last` - 1 of `order`.

    Args:
        memory: scratch, laid out by `classifiers._lay_out`, with the network in place.
        images: bytes (item, feature), contiguous.
        order: items in the order of this epoch; the last minibatch takes what remains.
        block: items that go through the network at once.
        step: updates made before.
        keys: (seed, attempt, index, view, stream) of the dropout.
        cancel: one byte; when another thread sets it the training ends.

    Returns:
        updates made in all.
    """
    state = places[STATE]
    none = 0
    for layer in range(layers.shape[0] - 1):
        none += batch * ((layers[layer, OUT] + 3) // 4)
    for number in range(first, last):
        if cancel[0] != 0:
            break
        begin = number * batch
        count = min(batch, len(order) - begin)
        weight = 1.0 / count
        for start in range(0, count, block):
            items = min(block, count - start)
            _load_items(memory, images, order, begin + start, items, layers, places, scale, shift)
            _forward(
                memory, layers, items, True, settings[DROPOUT], keys, step * none, batch, start
            )
            _loss(memory, layers, labels, order, begin + start, items, weight, True)
            _backward(memory, layers, places, items)
        step += 1
        _update(
            memory[:state], memory[state : 2 * state], memory[2 * state : 3 * state],
            memory[3 * state : 4 * state], settings, step,
        )  # fmt: skip
        _transpose(memory, layers)
    return step


@kernel
def evaluate(
    memory, images, labels, items, block, scale, shift, layers, places, keys, cancel
):  # fmt: skip
    """Mean cross-entropy and share of right answers on `items`, without dropout."""
    total = 0.0
    right = 0
    for start in range(0, len(items), block):
        if cancel[0] != 0:
            break
        count = min(block, len(items) - start)
        _load_items(memory, images, items, start, count, layers, places, scale, shift)
        _forward(memory, layers, count, False, 0.0, keys, 0, 0, 0)
        loss, hits = _loss(memory, layers, labels, items, start, count, 1.0, False)
        total += loss
        right += hits
    return total / len(items), right / len(items)
