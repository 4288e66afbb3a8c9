"""CUDA engine: one launch of one Triton kernel fits a whole batch of small SIRENs.

A program fits one network from its first step to its last. It goes through the points in
tiles; activations, their cosines and the gradients of a step stay in registers and shared
memory. Weights and Adam's two moments are read and written once a step, in place, by the
same program: that is a few kilobytes, which stay in the caches.

No program touches what another one reads, and every sum has a fixed order, so a network's
bytes do not depend on its neighbours. A network that ends leaves its multiprocessor to the
next one.

The angles of a layer are kept in half turns: omega / pi is folded into its weights, so
that the range reduction of the sine is one exact subtraction.

Run on an H200 by `benchmarks/gpu.py`, whose figures stand beside `plans`; where there is no
GPU, it is tested under Triton's interpreter (`TRITON_INTERPRET=1`, where the engine takes the
device "cpu"), compiled for Hopper, and its arguments are bound as for a launch.
"""

# Triton infers the types of what it compiles.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc, assignment"

from __future__ import annotations

import threading
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray
from triton.runtime.errors import OutOfResources

from zoo.engines import CAP, TARGET, Adam, Draws, Fit, cuda_can_fit
from zoo.spec import NetworkSpec

# ---- kernel


@triton.jit
def _sine_cosine(turns):
    """sin(pi x) and cos(pi x), within 3e-7 of the exact values for |x| < 2^22.

    Adding 1.5 * 2^23 rounds to a whole number, whose parity is the lowest bit; the rest is
    exact. Beyond 2^22, which only diverging networks reach, the values are meaningless.
    Polynomials on [-1/2, 1/2]: minimax, fitted for this file; errors of 3e-9 and 5e-8.
    """
    shifted = turns + 12582912.0
    x = turns - (shifted - 12582912.0)
    s = x * x
    sine = 0.077220109391 * s - 0.598045164361
    sine = sine * s + 2.550031375683
    sine = sine * s - 5.167706878832
    sine = sine * s + 3.141592580043
    sine = sine * x
    cosine = 0.21969672403 * s - 1.331880128761
    cosine = cosine * s + 4.058411909845
    cosine = cosine * s - 4.934792858498
    cosine = cosine * s + 0.999999953466
    sign = shifted.to(tl.int32, bitcast=True) << 31
    sine = (sine.to(tl.int32, bitcast=True) ^ sign).to(tl.float32, bitcast=True)
    cosine = (cosine.to(tl.int32, bitcast=True) ^ sign).to(tl.float32, bitcast=True)
    return sine, cosine


@triton.jit
def _parts(x):
    """The bits of x that the tensor cores read, and the rest; their sum is x."""
    high = (x.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)
    return high, x - high


@triton.jit
def _product(a, b, total, PRECISION: tl.constexpr):
    """Total + a @ b.

    "tf32x3" is three products of parts, as Triton's own but for the replacing of NaN, which
    a network that diverges should keep: a sixth less instructions in the loop over tiles.
    """
    if PRECISION == "tf32x3":
        a_high, a_low = _parts(a)
        b_high, b_low = _parts(b)
        total = tl.dot(a_low, b_high, total, input_precision="tf32")
        total = tl.dot(a_high, b_low, total, input_precision="tf32")
        return tl.dot(a_high, b_high, total, input_precision="tf32")
    else:
        return tl.dot(a, b, total, input_precision=PRECISION)


@triton.jit
def _gather(total, part, CARRY: tl.constexpr):
    """Add one tile's part of a sum over points."""
    if CARRY:
        return total + part
    else:
        return total + tl.sum(part, axis=0)


@triton.jit
def _gathered(total, CARRY: tl.constexpr):
    """The sum over points: those of `_gather`."""
    if CARRY:
        return tl.sum(total, axis=0)
    else:
        return total


@triton.jit
def _adam(
    params, mean, square, place, mask, gradient,
    decay, gain1, beta2, gain2, eps, rate, root,
):  # fmt: skip
    """One update, as torch.optim.Adam does it, of the parameters at `place`."""
    value = tl.load(params + place, mask, 0.0)
    gradient += decay * value
    first = tl.load(mean + place, mask, 0.0)
    first += gain1 * (gradient - first)
    second = tl.load(square + place, mask, 0.0)
    second = beta2 * second + gain2 * gradient * gradient
    tl.store(mean + place, first, mask)
    tl.store(square + place, second, mask)
    tl.store(params + place, value - rate * first / (tl.sqrt(second) / root + eps), mask)


@triton.jit
def _weight(
    params, k: tl.constexpr, lane,
    WIDTHS: tl.constexpr, SCALES: tl.constexpr, STARTS: tl.constexpr,
):  # fmt: skip
    """The weights `out inp` of a layer between hidden ones, from angles in half turns."""
    place = STARTS[k] + lane[:, None] * WIDTHS[k] + lane[None, :]
    mask = (lane[:, None] < WIDTHS[k + 1]) & (lane[None, :] < WIDTHS[k])
    return tl.load(params + place, mask, 0.0) * SCALES[k]


# Else steps of 1 and of multiples of 16 would each be compiled anew.
@triton.jit(do_not_specialize=["steps"])
def _fit(
    entries, mean, square, inputs, targets, schedule, errors, taken,
    steps, target_mse, offset, decay, gain1, beta2, gain2, eps,
    POINTS: tl.constexpr, WIDTHS: tl.constexpr, SCALES: tl.constexpr, STARTS: tl.constexpr,
    COUNT: tl.constexpr, WIDTH: tl.constexpr, TILE: tl.constexpr, CARRY: tl.constexpr,
    STREAM: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Fit the network of this program; all arrays are contiguous and float32 but `taken`.

    No argument may be named `params`, `specialization` or `options`: Triton binds arguments in a
    function that it writes with these names in it, where such a one would be lost.

    Args:
        entries, mean, square: `net param`, changed in place; the moments come as zeros.
        inputs, targets: `point inp`, `net point out`.
        schedule: `step 2`: rate / (1 - beta1^t) and the root of 1 - beta2^t.
        errors, taken: `net`: the last mse, and (int32) the updates made.
        gain1, gain2: 1 - beta1, 1 - beta2.
        WIDTHS, SCALES, STARTS: of the layers: neurons from the inputs on; omega / pi of
            hidden layers; where a layer's weights begin in a network's COUNT parameters.
        WIDTH: lanes of every hidden layer. Those past its neurons hold zero weights, hence
            zero angles, sines and gradients.
        TILE: points at a time. Those past the last one have no error, hence no gradient.
        CARRY: sum gradients of vectors lane by lane over tiles, and over lanes at the end.
        STREAM: read weights anew for each tile rather than keep them, if they do not fit.
    """
    INP: tl.constexpr = WIDTHS[0]
    OUT: tl.constexpr = WIDTHS[len(WIDTHS) - 1]
    HIDDEN: tl.constexpr = len(WIDTHS) - 2
    LAST: tl.constexpr = WIDTHS[len(WIDTHS) - 2]
    net = tl.program_id(0).to(tl.int64)
    entries += net * COUNT
    mean += net * COUNT
    square += net * COUNT
    targets += net * (POINTS * OUT)
    lane = tl.arange(0, WIDTH)
    column = tl.arange(0, 16)
    # The first layer's weights `inp out` with its bias as one row more, which meets an input
    # of 1. A product like those of other layers: sums of outer products would be cheaper, but
    # then the compiler computes the sines once for every layout in which they are needed.
    first_place = lane[None, :] * INP + column[:, None]
    first_place = tl.where(column[:, None] < INP, first_place, WIDTHS[1] * INP + lane[None, :])
    first_mask = (column[:, None] <= INP) & (lane[None, :] < WIDTHS[1])
    nothing = tl.zeros((TILE, WIDTH), tl.float32)

    step = 0
    mse = 0.0
    running = True
    while running:
        first = tl.load(entries + first_place, first_mask, 0.0) * SCALES[0]
        weights = ()
        biases = ()
        for k in tl.static_range(1, HIDDEN):
            if not STREAM:
                weights += (_weight(entries, k, lane, WIDTHS, SCALES, STARTS),)
            place = entries + STARTS[k] + WIDTHS[k] * WIDTHS[k + 1] + lane
            biases += (tl.load(place, lane < WIDTHS[k + 1], 0.0) * SCALES[k],)
        last_weights = ()
        last_biases = ()
        for o in tl.static_range(OUT):
            place = entries + STARTS[HIDDEN] + o * LAST + lane
            last_weights += (tl.load(place, lane < LAST, 0.0),)
            last_biases += (tl.load(entries + STARTS[HIDDEN] + OUT * LAST + o) + offset,)

        zero = nothing if CARRY else tl.zeros((WIDTH,), tl.float32)
        first_sums = ()
        for _ in tl.static_range(INP):
            first_sums += (zero,)
        bias_sums = ()
        for _ in tl.static_range(HIDDEN):
            bias_sums += (zero,)
        weight_sums = ()
        for _ in tl.static_range(1, HIDDEN):
            weight_sums += (tl.zeros((WIDTH, WIDTH), tl.float32),)
        last_sums = ()
        error_sums = ()
        for _ in tl.static_range(OUT):
            last_sums += (zero,)
            error_sums += (tl.zeros((TILE,), tl.float32),)
        squares = tl.zeros((TILE,), tl.float32)

        # Loads are few; the stages of a pipeline would only take registers.
        for start in tl.range(0, POINTS, TILE, num_stages=1):
            # The same parameters at a place that seems to change: else the compiler takes the
            # weights, in all layouts and parts, out of the loop into shared memory.
            streamed = entries + start // POINTS
            point = start + tl.arange(0, TILE)
            there = point < POINTS
            x = inputs + point[:, None] * INP + column[None, :]
            x = tl.load(x, there[:, None] & (column[None, :] < INP), 0.0)
            x = tl.where(column[None, :] == INP, 1.0, x)
            sine, cosine = _sine_cosine(_product(x, first, nothing, PRECISION))
            sines = (sine,)
            cosines = (cosine,)
            for k in tl.static_range(1, HIDDEN):
                if STREAM:
                    weight = _weight(streamed, k, lane, WIDTHS, SCALES, STARTS)
                else:
                    weight = weights[k - 1]
                angle = _product(sine, tl.trans(weight), nothing, PRECISION)
                sine, cosine = _sine_cosine(angle + biases[k - 1][None, :])
                sines += (sine,)
                cosines += (cosine,)

            # From here on back: gradients of half the sum of squares.
            gradient = nothing
            new_last = ()
            new_error = ()
            for o in tl.static_range(OUT):
                output = tl.sum(sine * last_weights[o][None, :], axis=1) + last_biases[o]
                wanted = tl.load(targets + point * OUT + o, there, 0.0)
                error = tl.where(there, output - wanted, 0.0)
                squares += error * error
                new_error += (error_sums[o] + error,)
                new_last += (_gather(last_sums[o], error[:, None] * sine, CARRY),)
                gradient += error[:, None] * last_weights[o][None, :]
            last_sums = new_last
            error_sums = new_error
            new_weight = ()
            new_bias = ()
            for k in tl.static_range(HIDDEN - 1, 0, -1):
                delta = gradient * cosines[k]
                new_bias = (_gather(bias_sums[k], delta, CARRY),) + new_bias  # noqa: RUF005
                part = _product(tl.trans(delta), sines[k - 1], weight_sums[k - 1], PRECISION)
                new_weight = (part,) + new_weight  # noqa: RUF005
                if STREAM:
                    weight = _weight(streamed, k, lane, WIDTHS, SCALES, STARTS)
                else:
                    weight = weights[k - 1]
                # Lacks a factor of pi in each layer, which the update makes good.
                gradient = _product(delta, weight, nothing, PRECISION)
            delta = gradient * cosines[0]
            bias_sums = (_gather(bias_sums[0], delta, CARRY),) + new_bias  # noqa: RUF005
            weight_sums = new_weight
            new_first = ()
            for i in tl.static_range(INP):
                coordinate = tl.load(inputs + point * INP + i, there, 0.0)
                new_first += (_gather(first_sums[i], coordinate[:, None] * delta, CARRY),)
            first_sums = new_first

        mse = tl.sum(squares) / (POINTS * OUT)
        # Both comparisons are false for NaN.
        running = (mse >= target_mse) & (mse < float("inf")) & (step < steps)
        if running:
            # All threads of the program have read the parameters before any writes them.
            tl.debug_barrier()
            rate = tl.load(schedule + 2 * step)
            root = tl.load(schedule + 2 * step + 1)
            scale = 2.0 / (POINTS * OUT)
            for o in tl.static_range(OUT):
                _adam(
                    entries, mean, square, STARTS[HIDDEN] + o * LAST + lane, lane < LAST,
                    _gathered(last_sums[o], CARRY) * scale,
                    decay, gain1, beta2, gain2, eps, rate, root,
                )  # fmt: skip
                one = tl.arange(0, 1)
                _adam(
                    entries, mean, square, STARTS[HIDDEN] + OUT * LAST + o + one, one == 0,
                    tl.sum(error_sums[o]) * scale,
                    decay, gain1, beta2, gain2, eps, rate, root,
                )  # fmt: skip
            scale *= 3.141592653589793
            for k in tl.static_range(HIDDEN - 1, -1, -1):
                _adam(
                    entries, mean, square,
                    STARTS[k] + WIDTHS[k] * WIDTHS[k + 1] + lane, lane < WIDTHS[k + 1],
                    _gathered(bias_sums[k], CARRY) * (scale * SCALES[k]),
                    decay, gain1, beta2, gain2, eps, rate, root,
                )  # fmt: skip
                if k > 0:
                    _adam(
                        entries, mean, square,
                        STARTS[k] + lane[:, None] * WIDTHS[k] + lane[None, :],
                        (lane[:, None] < WIDTHS[k + 1]) & (lane[None, :] < WIDTHS[k]),
                        weight_sums[k - 1] * (scale * SCALES[k]),
                        decay, gain1, beta2, gain2, eps, rate, root,
                    )  # fmt: skip
                else:
                    for i in tl.static_range(INP):
                        _adam(
                            entries, mean, square, lane * INP + i, lane < WIDTHS[1],
                            _gathered(first_sums[i], CARRY) * (scale * SCALES[0]),
                            decay, gain1, beta2, gain2, eps, rate, root,
                        )  # fmt: skip
                scale *= 3.141592653589793
            step += 1
            # And all have written before any reads them.
            tl.debug_barrier()
    tl.store(errors + net, mse)
    tl.store(taken + net, step)


# ---- how to run it


@dataclass(frozen=True)
class Plan:
    """How a program is laid out.

    Attributes:
        tile, carry, stream, precision: the upper-case arguments of `_fit`.
        warps: of 32 threads, that share a network.
        registers: of a thread at most; None leaves it to the compiler.
    """

    tile: int
    warps: int
    carry: bool
    stream: bool
    precision: str = "tf32x3"
    registers: int | None = None


def lanes(spec: NetworkSpec) -> int:
    """Lanes of every hidden layer: the widest, up to the next power of two from 16 on."""
    return max(16, 1 << (max(spec.widths[1:-1]) - 1).bit_length())


# 528 MNIST INRs of recipe dws, 2-32-32-1, 784 points and 1,500 steps, on an H200 (67 TFLOP/s in
# float32 on paper); "error" is of ten updates against float64, the worst of a tensor and network.
# Instructions are those of the loop over tiles, of one thread, times tiles a step, as Triton 3.6
# compiles them.
#
#     tile warps carry stream precision  networks/s  TFLOP/s   PSNR   error   instructions  shared
#      64    4   yes    no    bf16x3        3,958      30.6   25.728  2.0e-5   1,275 * 13   26 KiB
#      64    4   yes    no    tf32x3        2,292      17.7   25.725  0.9e-5   1,652 * 13   52 KiB
#      64    4   yes    no    ieee          1,231       9.5   25.731  2.7e-5   3,017 * 13   22 KiB
#      64    4   yes    no    tf32          4,987      38.6   25.715  1.1e-2   1,030 * 13   26 KiB
#
# By its format "tf32x3" keeps some 21 bits of a factor, "bf16x3" 16, "tf32" 11; "ieee" is
# float32 without tensor cores, and no nearer to float64 than "bf16x3" is. Errors at 2-64-64-1 are
# 2.6e-5 by each of the three; speeds of other widths are not measured. Two layers of 128 do not
# fit into 227 KiB without streaming: 336 KiB, and 80 with it.
def plans(spec: NetworkSpec) -> list[Plan]:
    """Ways to lay out a program, the one to take first; later ones need less shared memory."""
    width = lanes(spec)
    if width <= 32:
        first = Plan(tile=64, warps=4, carry=True, stream=False, precision="bf16x3")
    elif width == 64:
        first = Plan(tile=32, warps=4, carry=False, stream=False)
    else:
        first = Plan(tile=32, warps=8, carry=False, stream=True)
    frugal = Plan(tile=16, warps=first.warps, carry=False, stream=True)
    return [first, frugal]


def constants(spec: NetworkSpec, points: int, plan: Plan) -> dict[str, Any]:
    """The upper-case arguments of `_fit`, which it is compiled for."""
    sizes = np.cumsum([0, *(layer.out * (layer.inp + 1) for layer in spec.layers)]).tolist()
    return {
        "POINTS": points,
        "WIDTHS": spec.widths,
        "SCALES": tuple(layer.omega / np.pi for layer in spec.layers[:-1]),
        "STARTS": tuple(sizes[:-1]),
        "COUNT": sizes[-1],
        "WIDTH": lanes(spec),
        "TILE": plan.tile,
        "CARRY": plan.carry,
        "STREAM": plan.stream,
        "PRECISION": plan.precision,
    }


def options(plan: Plan) -> dict[str, Any]:
    """What Triton's compiler is told."""
    # Fusing is Triton's default up to 3.9; asked for, it stays so.
    found: dict[str, Any] = {"num_warps": plan.warps, "enable_fp_fusion": True}
    return found if plan.registers is None else {**found, "maxnreg": plan.registers}


def _interpreted() -> bool:
    """Whether Triton runs kernels in its interpreter, on the CPU."""
    return not isinstance(_fit, triton.JITFunction)


# Threads may fit at once, but one of them compiles; launching itself does not wait.
_launching = threading.Lock()


class CudaEngine:
    """The engine contract of `zoo.engines` on `_fit`.

    Args:
        plan: how programs are laid out; None takes the first of `plans` that the device
            has memory for.

    Raises:
        ValueError: if there is no such device.
    """

    name = "cuda"
    batch = 16_384
    pads = False
    ahead = 2

    def __init__(self, device: str = "cuda", plan: Plan | None = None):
        try:
            self.device = torch.device(device)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"device {device!r} cannot be used: {reason}") from None
        self.plan = plan
        if self.device.type != "cuda" and not _interpreted():
            raise ValueError(f"engine 'cuda' does not run on device {device!r}")
        count = torch.cuda.device_count() if self.device.type == "cuda" else 1
        if (self.device.index or 0) >= count:
            sees = f"{count} GPUs" if count else "no GPU; use --device cpu"
            raise ValueError(f"device {device!r} is not there: torch sees {sees}")

    def fit(
        self,
        spec: NetworkSpec,
        params: NDArray[np.float32],
        inputs: NDArray[np.float32],
        targets: NDArray[np.float32],
        adam: Adam,
        draws: Draws | None = None,
    ) -> Fit:
        """See `zoo.engines`; any SIREN that `cuda_can_fit`, on inputs that all share.

        Raises:
            ValueError: for other networks, inputs or losses, or if the device has too little
                shared memory.
        """
        if draws is not None or inputs.ndim != 2 or adam.loss != "squared":
            raise ValueError(
                "the cuda engine fits networks that share their inputs, by squared errors"
            )
        if not cuda_can_fit(spec):
            raise ValueError(f"the cuda engine cannot fit {spec.widths} networks")
        place: dict[str, Any] = {"device": self.device, "dtype": torch.float32}
        # Copies, contiguous: the parameters change in place.
        p = torch.tensor(params, **place)
        x, y = torch.tensor(inputs, **place), torch.tensor(targets, **place)
        step = np.arange(1, max(1, adam.steps) + 1)
        schedule = np.stack(
            [adam.rates(step - 1) / (1 - adam.beta1**step), np.sqrt(1 - adam.beta2**step)], axis=1
        )
        target = np.float32(-1.0 if adam.target_mse is None else adam.target_mse)
        if adam.target_mse is not None and target < adam.target_mse:
            # No error in float32 lies between, so the kernel compares with the true target.
            target = np.nextafter(target, np.float32(np.inf))
        errors = torch.full((len(p),), torch.nan, **place)
        taken = torch.zeros(len(p), dtype=torch.int32, device=self.device)
        arrays = (
            p, torch.zeros_like(p), torch.zeros_like(p), x, y,
            torch.tensor(schedule, **place), errors, taken,
        )  # fmt: skip
        numbers = (
            adam.steps, float(target), spec.output_offset, adam.weight_decay,
            1 - adam.beta1, adam.beta2, 1 - adam.beta2, adam.eps,
        )  # fmt: skip
        if len(p):
            self._launch(spec, arrays, numbers)
        mse = errors.double().cpu().numpy()
        reached = mse < (-1.0 if adam.target_mse is None else adam.target_mse)
        return Fit(
            p.cpu().numpy(),
            mse,
            taken.cpu().numpy().astype(np.int64),
            np.where(reached, TARGET, CAP).astype(np.int64),
        )

    def _launch(
        self, spec: NetworkSpec, arrays: tuple[torch.Tensor, ...], numbers: tuple[float, ...]
    ) -> None:
        here = torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()
        reasons = []
        for plan in plans(spec) if self.plan is None else [self.plan]:
            if _interpreted() and plan.precision == "bf16x3":  # which the interpreter has not
                plan = replace(plan, precision="ieee")
            fixed = constants(spec, len(arrays[3]), plan)
            try:
                with here, _launching:
                    _fit[(len(arrays[0]),)](*arrays, *numbers, **fixed, **options(plan))
                return
            except OutOfResources as error:
                reasons.append(str(error).splitlines()[0])
        raise ValueError(
            f"device {str(self.device)!r} is too small for {spec.widths} networks "
            f"({reasons[-1]}); use --engine reference"
        )
