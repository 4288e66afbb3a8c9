"""CPU engine: fit many small SIRENs, each network wholly on one thread.

`fit` runs a pool of Python threads that take networks from one counter; the
compiled kernel in `tiles.py` releases the GIL. Python threads rather than Numba's
parallel loops: networks stop early, so work must be handed out as threads fall idle;
the kernel is safe under concurrent calls and after a fork; and Ctrl-C ends a running fit
after its present step.

The first call ever compiles for some seconds; the result is kept on disk where that is
possible, see `zoo.engines.compiling`.

Guarantees. A network's bytes depend on its own parameters and targets, the inputs and
the settings: not on the other networks, their number or order, nor on the number
of threads. The kind of machine does matter, since wider vectors sum in another order.
"""

from __future__ import annotations

import itertools
import threading
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zoo import machine, philox, stopping
from zoo.engines import Adam, Draws, Fit, tiles
from zoo.spec import LOSSES, NetworkSpec

# Activations and cosines of one block of points. Measured on Zen 5 (48 KiB of L1, 1 MiB of
# L2): 24 to 256 KiB differ by less than 8 %, 64 is best for two layers of 32.
_BLOCK_BYTES = 64 * 1024
_LOOK_S = 1.0  # between looks at whether to stop


class FitResult(NamedTuple):
    """What `fit` returns; `mse` always belongs to `params`.

    Attributes:
        params: float32 (net, P), flat as given.
        mse: float64 (net,), loss over points and outputs; not finite where a network
            diverged.
        steps: int32 (net,), Adam updates made.
        stop: uint8 (net,), 1 where mse < target_mse was reached, else 0.
    """

    params: NDArray[np.float32]
    mse: NDArray[np.float64]
    steps: NDArray[np.int32]
    stop: NDArray[np.uint8]


class _Layout(NamedTuple):
    """Where everything of one network stands in a thread's scratch memory, in floats.

    Attributes:
        layers: one row per layer, columns named in `tiles` (INP ... SIZE).
        state: size of one copy of all parameters with their padding. Five copies
            begin the memory; the forward weights, then the blocks, follow.
        delta: offset of the deltas of the outputs.
        capacity: points for which a block has room.
        floats: size of the whole.
    """

    layers: NDArray[np.int64]
    state: int
    delta: int
    capacity: int
    floats: int


def _round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def _lay_out(widths: tuple[int, ...], points: int) -> _Layout:
    """Divide scratch memory; see the top of `tiles.py` for the orders of weights."""
    lanes, rows = tiles.LANES, tiles.TILE_ROWS
    last = len(widths) - 2
    table = np.zeros((last + 1, tiles.LAYER_FIELDS), dtype=np.int64)
    place = 0
    for layer, (inp, out) in enumerate(itertools.pairwise(widths)):
        table[layer, [tiles.INP, tiles.OUT]] = inp, out
        weight_rows = inp if layer == 0 else out
        if 0 < layer < last:
            weight_rows = _round_up(out, tiles.GRADIENT_ROWS)
        across = _round_up(out if layer == 0 else inp, lanes)
        bias = place + weight_rows * across
        end = bias + _round_up(out, lanes)
        table[layer, [tiles.WEIGHT, tiles.WEIGHT_ROWS]] = place, weight_rows
        table[layer, [tiles.BIAS, tiles.SIZE]] = bias, end - place
        place = end
    state = place
    place = 5 * state
    for layer in range(1, last):
        table[layer, tiles.FORWARD] = place
        place += widths[layer] * _round_up(widths[layer + 1], lanes)

    hidden = [_round_up(width, lanes) for width in widths[1:-1]]
    fitting = _BLOCK_BYTES // (2 * 4 * sum(hidden) * rows)
    needed = -(-points // rows)
    blocks = -(-needed // max(2, fitting))
    block_tiles = -(-needed // blocks)  # nearly equal blocks rather than a small last one
    capacity = _round_up(block_tiles * rows, lanes)
    for layer, width in enumerate(hidden):
        table[layer, tiles.SINE] = place
        table[layer, tiles.COSINE] = place + width * capacity
        place += 2 * width * capacity
    delta = place
    return _Layout(table, state, delta, capacity, delta + capacity * tiles.NARROW)


def _aligned(count: int, dtype: type) -> NDArray[Any]:
    """Zeroed memory that starts on a cache line, hence vectors never straddle two."""
    size = count * np.dtype(dtype).itemsize
    raw = np.zeros(size + 64, dtype=np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype)


def fit(
    widths: tuple[int, ...],
    omegas: tuple[float, ...],
    output_offset: float,
    params: NDArray[np.float32],
    inputs: NDArray[np.float32],
    targets: NDArray[np.float32],
    lr: float,
    steps: int,
    weight_decay: float = 0.0,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    target_mse: float | None = None,
    threads: int | None = None,
    schedule: str = "constant",
    warmup: int = 0,
    loss: str = "squared",
    draws: Draws | None = None,
) -> FitResult:
    """Fit independent SIRENs h = sin(omega * (W h + b)) to their own targets with Adam.

    The last layer is linear, `output_offset` is added to it, and the loss is the mean
    over points and outputs. Adam is torch.optim.Adam: weight decay is
    added to the gradient, epsilon after the root of the corrected second moment.

    Args:
        widths: (inputs, hidden..., outputs); 1-4 inputs and outputs, at least one
            hidden layer of any width.
        omegas: one per hidden layer, radians per unit of pre-activation.
        output_offset: added to the last layer's output.
        params: (net, P), per layer weight (out, inp) row by row, then bias.
        inputs: (point, inp), shared by all networks, or (net, point, inp).
        targets: (net, point, out).
        lr: Adam's learning rate.
        steps: Adam updates at most.
        weight_decay: times the weights, added to the gradient.
        beta1: decay of the mean of the gradient.
        beta2: decay of the mean of its square.
        eps: added to the root of the corrected mean square; positive.
        target_mse: a network stops at the step at whose start its error is below.
        threads: None takes what `zoo.machine` says.
        schedule: "constant" or "cosine", see `zoo.engines.Adam`.
        warmup: updates in which the rate rises linearly to `lr`.
        loss: "squared", or "bce" on logits, whose targets lie in [0, 1].
        draws: the points of each step, of inputs of each one's own; None takes all.

    Returns:
        The fitted networks, see `FitResult`. A network whose error is not finite stops
        at once and keeps its parameters of that moment.

    Raises:
        ValueError: if a shape or a setting does not fit.
    """
    widths = tuple(int(width) for width in widths)
    if len(widths) < 3 or min(widths) < 1:
        raise ValueError(f"widths: expected (inp, hidden..., out), all positive, got {widths}")
    if max(widths[0], widths[-1]) > tiles.NARROW:
        raise ValueError(f"widths: expected at most {tiles.NARROW} inputs and outputs: {widths}")
    if len(omegas) != len(widths) - 2:
        raise ValueError(f"omegas: expected {len(widths) - 2}, one per hidden layer, got {omegas}")
    size = sum(out * (inp + 1) for inp, out in itertools.pairwise(widths))
    shared = inputs.ndim == 2
    nets, points = len(params), inputs.shape[0 if shared else 1]
    for name, array, expected in (
        ("params", params, (nets, size)),
        ("inputs", inputs, (points, widths[0]) if shared else (nets, points, widths[0])),
        ("targets", targets, (nets, points, widths[-1])),
    ):
        if array.shape != expected:
            raise ValueError(f"{name}: expected shape {expected}, got {array.shape}")
    if points == 0 or steps < 0:
        raise ValueError(f"expected points and steps >= 0, got {points} points, {steps} steps")
    # Padding has zero gradients; epsilon 0 would make its update 0 / 0.
    if not np.float32(eps) > 0:
        raise ValueError(f"eps: expected a positive float32, got {eps}")
    if loss not in LOSSES:
        raise ValueError(f"loss: expected one of {', '.join(LOSSES)}, got {loss!r}")
    pool = 0
    if draws is not None:
        draws.check(inputs, steps)
        pool, points = points, draws.points

    layout = _lay_out(widths, points)
    scales = np.array([*omegas, 1.0], dtype=np.float32)
    target = -1.0 if target_mse is None else float(target_mse)
    shape = (schedule == "cosine", warmup, loss == "bce")
    settings = np.array(
        [lr, weight_decay, beta1, beta2, eps, target, output_offset, *shape], np.float64
    )
    result = FitResult(
        np.array(params, dtype=np.float32, order="C"),
        np.zeros(nets, dtype=np.float64),
        np.zeros(nets, dtype=np.int32),
        np.zeros(nets, dtype=np.uint8),
    )
    counter = itertools.count()  # next() is atomic
    cancel = np.zeros(1, dtype=np.uint8)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            memory = _aligned(layout.floats, np.float32)
            padded = np.zeros((points + layout.capacity, tiles.NARROW), dtype=np.float32)
            if shared:
                padded[:points, : widths[0]] = inputs
            rows = padded.ravel()
            totals = _aligned((1 + tiles.NARROW) * tiles.LANES, np.float64)
            wanted = np.zeros(points * widths[-1] + tiles.LANES, dtype=np.float32)
            pooled = np.zeros((pool, tiles.NARROW), dtype=np.float32)
            pool_rows, pool_wanted = pooled.ravel(), np.zeros(pool * widths[-1], np.float32)
            key = np.zeros(5, dtype=np.uint64)
            while (net := next(counter)) < nets and not cancel[0]:
                if draws is not None:
                    pooled[:, : widths[0]] = inputs[net]
                    pool_wanted[:] = targets[net].T.ravel()
                    place = draws.index[net], draws.view[net]
                    key[:] = draws.seed, draws.attempt, *place, philox.BATCH
                else:
                    wanted[: points * widths[-1]] = targets[net].T.ravel()
                    if not shared:
                        padded[:points, : widths[0]] = inputs[net]
                mse, taken, met = tiles.fit_network(
                    memory, totals, result.params[net], rows, wanted, layout.layers, scales,
                    settings, layout.state, points, layout.delta, layout.capacity, int(steps),
                    cancel, pool_rows, pool_wanted, pool, key,
                )  # fmt: skip
                result.mse[net], result.steps[net], result.stop[net] = mse, taken, met
        except BaseException as error:
            failures.append(error)
            cancel[0] = 1

    if threads is None:
        threads = machine.threads()
    crew = [
        threading.Thread(target=work, name=f"wszoo-fit-{i}", daemon=True)
        for i in range(max(1, min(threads, nets)))
    ]
    try:
        for thread in crew:
            thread.start()
        for thread in crew:
            while thread.is_alive():
                thread.join(_LOOK_S)
                stopping.check()
    finally:
        # On Ctrl-C the kernels see this after their present step.
        cancel[0] = 1
        for thread in crew:
            if thread.ident is not None:
                thread.join()
    if failures:
        raise failures[0]
    return result


class CpuEngine:
    """The engine contract of `zoo.engines` on `fit`."""

    name = "cpu"
    batch = 256
    pads = False
    ahead = 1

    def __init__(self, threads: int):
        self.threads = threads

    def fit(
        self,
        spec: NetworkSpec,
        params: NDArray[np.float32],
        inputs: NDArray[np.float32],
        targets: NDArray[np.float32],
        adam: Adam,
        draws: Draws | None = None,
    ) -> Fit:
        """See `zoo.engines`; any SIREN of 1-4 inputs and outputs."""
        found = fit(
            spec.widths,
            tuple(layer.omega for layer in spec.layers[:-1]),
            spec.output_offset,
            params,
            inputs,
            targets,
            lr=adam.lr,
            steps=adam.steps,
            weight_decay=adam.weight_decay,
            beta1=adam.beta1,
            beta2=adam.beta2,
            eps=adam.eps,
            target_mse=adam.target_mse,
            threads=self.threads,
            schedule=adam.schedule,
            warmup=adam.warmup,
            loss=adam.loss,
            draws=draws,
        )
        return Fit(
            found.params, found.mse, found.steps.astype(np.int64), found.stop.astype(np.int64)
        )
