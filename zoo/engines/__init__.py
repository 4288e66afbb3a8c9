"""Fits many networks at once: the contract that every engine keeps.

An engine takes initial parameters, inputs that all networks share or inputs of each one's
own, and each network's targets, and gives back trained parameters. What it must do, for every
network on its own:

    for step in 0 .. steps - 1:
        points = all of them, or those that `Draws` has for this step
        loss = mean over points and outputs of (network(inputs) - targets)^2, or of the binary
            cross-entropy of the targets, in [0, 1], and sigmoid(network(inputs))
        stop if the loss is below target_mse, or not finite
        one Adam update (Kingma and Ba 2015), weight_decay * parameter in the gradient, at
            the rate that `Adam.rates` has for this step
    loss of the final parameters, on the points of step `steps`

The loss that comes back always belongs to the parameters that come back. A network's
bytes do not depend on the others in its batch, on their order or number, or on the
number of threads; the points that are drawn for it depend on its keys alone.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from zoo import machine, philox
from zoo.machine import available_cores as available_cores
from zoo.spec import NetworkSpec

CAP, TARGET = 0, 1
ENGINES = ("cpu", "reference", "cuda")


@dataclass(frozen=True)
class Adam:
    """Adam on a loss, and when it ends.

    Attributes:
        steps: updates at most.
        target_mse: a network stops at the first step whose loss is below it.
        schedule: of the rate after the warm-up: "constant", or "cosine", half a wave from
            `lr` down to 0 at `steps`.
        warmup: updates in which the rate rises linearly to `lr`.
        loss: "squared", the squared error, or "bce", binary cross-entropy on logits.
    """

    lr: float
    steps: int
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    target_mse: float | None = None
    schedule: str = "constant"
    warmup: int = 0
    loss: str = "squared"

    def rates(self, step: NDArray[np.int64] | int) -> NDArray[np.float64]:
        """The learning rate of these updates, counted from 0.

        It depends on the step and these settings alone, so a network that stops early has
        had the same rates as one that goes on.

        >>> Adam(0.5, 4, schedule="cosine", warmup=2).rates(np.arange(4)).round(3).tolist()
        [0.25, 0.5, 0.5, 0.25]
        """
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        falling = 0.5 * (1 + np.cos(np.pi * done)) if self.schedule == "cosine" else 1.0
        rising = (step + 1) / max(1, self.warmup)
        return self.lr * np.where(step < self.warmup, rising, falling)


@dataclass(frozen=True, eq=False)
class Draws:
    """The points of every step: as many of each network's own, at random, with replacement.

    Point b of a step is number `word * pool >> 32` of the pool, where word is the
    (step * ceil(points / 4) * 4 + b)-th of the network's stream `philox.BATCH`.

    Attributes:
        points: of a step.
        seed, attempt: of the key of all networks.
        index, view: `net`, of each one's counter.
    """

    points: int
    seed: int
    attempt: int
    index: NDArray[np.int64]
    view: NDArray[np.int64]

    def __getitem__(self, rows: NDArray[np.int64] | slice) -> "Draws":
        """Of these networks."""
        return replace(self, index=self.index[rows], view=self.view[rows])

    @property
    def blocks(self) -> int:
        """Of four words each, that a step takes."""
        return -(-self.points // 4)

    def check(self, inputs: NDArray[np.float32], steps: int) -> None:
        """Raise ValueError unless there is a key for each pool, and words for the steps."""
        if inputs.ndim != 3:
            raise ValueError(
                "draws: expected inputs of each network's own, (net, point, inp), got "
                f"{inputs.shape}"
            )
        networks = len(inputs)
        if len(self.index) != networks or len(self.view) != networks:
            raise ValueError(
                f"draws: expected keys of {networks} networks, got {len(self.index)} and "
                f"{len(self.view)}"
            )
        if self.points < 1 or (steps + 1) * self.blocks >= 2**32:
            raise ValueError(
                f"draws: {self.points:,} points at each of {steps:,} steps cannot be drawn; at "
                f"least 1, and at most {2**34:,} in all"
            )

    def at(self, step: int, pool: int) -> NDArray[np.int64]:
        """`net point`: which ones of a pool of so many points this step takes."""
        from zoo.engines import dense

        words = np.empty((len(self.index), self.points), np.uint32)
        for row, (index, view) in enumerate(zip(self.index, self.view, strict=True)):
            dense.words(
                self.seed, self.attempt, index, view, philox.BATCH, step * self.blocks, words[row]
            )
        return (words.astype(np.uint64) * np.uint64(pool) >> np.uint64(32)).astype(np.int64)


class Fit(NamedTuple):
    """What an engine gives back.

    Attributes:
        params: float32 `net param`, in storage order.
        mse: float64 `net`, the loss of these parameters; not finite where the fit diverged.
        steps: int64 `net`, updates made.
        stop: int64 `net`, `TARGET` where the loss is below the target, else `CAP`.
    """

    params: NDArray[np.float32]
    mse: NDArray[np.float64]
    steps: NDArray[np.int64]
    stop: NDArray[np.int64]


@runtime_checkable
class Engine(Protocol):
    """Fits batches; see the module's text for what `fit` must do.

    Attributes:
        name: as recorded in the index.
        batch: how many networks to hand over at once for full speed.
        pads: whether fewer than `batch` take as long as `batch` do.
        ahead: batches that may be under way at once, so that one is drawn while another is fitted.
    """

    name: str
    batch: int
    pads: bool
    ahead: int

    def fit(
        self,
        spec: NetworkSpec,
        params: NDArray[np.float32],
        inputs: NDArray[np.float32],
        targets: NDArray[np.float32],
        adam: Adam,
        draws: Draws | None = None,
    ) -> Fit:
        """Fit every network of `net param` to `net point out` targets on its inputs.

        Args:
            inputs: `point inp` for all, or `net point inp`.
            draws: the points of each step, of inputs of each one's own; None takes all of them.
        """
        ...


def is_siren(spec: NetworkSpec) -> bool:
    """Whether it is hidden sine layers and a linear one, with 1-4 plain inputs and outputs."""
    hidden, last = spec.layers[:-1], spec.layers[-1]
    return (
        bool(hidden)
        and not spec.frequencies
        and all(layer.kind == "linear" and layer.activation == "sin" for layer in hidden)
        and last.kind == "linear"
        and last.activation == "identity"
        and spec.inp <= 4
        and spec.out <= 4
    )


def cuda_can_fit(spec: NetworkSpec) -> bool:
    """Whether the cuda engine knows this kind of network: 1-3 hidden layers of at most 128."""
    return is_siren(spec) and len(spec.layers) <= 4 and max(spec.widths[1:-1]) <= 128


def triton_problem() -> str | None:
    """Why Triton cannot be used here, in one line, or None."""
    try:
        import triton  # noqa: F401
    except Exception as error:  # a broken installation raises all kinds
        return (str(error) or type(error).__name__).splitlines()[0]
    return None


_SIRENS = "fits SIRENs of 1-4 plain inputs and outputs only"
_SMALL = (
    "fits SIRENs of 1-4 plain inputs and outputs and 1-3 hidden layers of at most 128 neurons only"
)
_WHOLE = "fits networks that share their inputs only, by squared errors"


def choose(name: str, device: str, spec: NetworkSpec, plain: bool = True) -> str:
    """The engine that "auto" stands for; other names are checked and handed back.

    Args:
        plain: whether all networks are fitted on the same inputs, whole, by their squared errors.

    Raises:
        ValueError: for an unknown engine, or one that cannot fit `spec` on `device`.
    """
    if name not in ("auto", *ENGINES):
        raise ValueError(f"unknown engine {name!r}; known: auto, {', '.join(ENGINES)}")
    refuse_meta(device)
    on_gpu = device.partition(":")[0] == "cuda"
    if name == "auto":
        if device == "cpu" and is_siren(spec):
            return "cpu"
        if on_gpu and cuda_can_fit(spec) and plain and not triton_problem():
            return "cuda"
        if lack := _lack(device, spec, plain):
            machine.notice(f"{lack}: fitted by 'reference', batched torch")
        return "reference"
    if name == "cpu" and device != "cpu":
        raise ValueError(f"engine 'cpu' does not run on device {device!r}; use --engine reference")
    if name == "cpu" and not is_siren(spec):
        raise ValueError(f"engine 'cpu' {_SIRENS}; use --engine reference")
    if name == "cuda" and not on_gpu:
        raise ValueError(f"engine 'cuda' does not run on device {device!r}; give --device cuda")
    if name == "cuda" and not cuda_can_fit(spec):
        raise ValueError(f"engine 'cuda' {_SMALL}; use --engine reference")
    if name == "cuda" and not plain:
        raise ValueError(
            f"engine 'cuda' {_WHOLE}; use engine 'reference', batched torch, on the same device"
        )
    if name == "cuda" and (problem := triton_problem()):
        raise ValueError(f"engine 'cuda' needs Triton: {problem}; use --engine reference")
    return name


def _lack(device: str, spec: NetworkSpec, plain: bool) -> str:
    """What the fast engine of a device lacks for these networks, in words; empty if nothing."""
    if device == "cpu":
        return f"engine 'cpu' {_SIRENS}"
    if device.partition(":")[0] != "cuda" or triton_problem():
        return ""
    return f"engine 'cuda' {_WHOLE if cuda_can_fit(spec) else _SMALL}"


def refuse_meta(device: str) -> None:
    """ValueError for the one device of torch that takes everything and computes nothing."""
    if device.partition(":")[0] == "meta":
        raise ValueError(f"device {device!r} computes nothing; use --device cpu or cuda")


def load(name: str, device: str = "cpu", threads: int | None = None) -> Engine:
    """The engine of that name.

    Args:
        device: a torch device, for engines that run on torch.
        threads: cores to use on a CPU; None takes all that `zoo.machine` says.

    Raises:
        ValueError: for an unknown engine or a device that is not there.
    """
    threads = threads or machine.threads()
    if name == "cpu":
        from zoo.engines.cpu import CpuEngine

        return CpuEngine(threads)
    if name == "reference":
        from zoo.engines.reference import ReferenceEngine

        return ReferenceEngine(device, threads)
    if name == "cuda":
        if problem := triton_problem():
            raise ValueError(f"engine 'cuda' needs Triton: {problem}; use --engine reference")
        from zoo.engines.cuda import CudaEngine

        return CudaEngine(device)
    raise ValueError(f"unknown engine {name!r}; known: {', '.join(ENGINES)}")


def devices(device: str) -> list[str]:
    """The devices that a build works on: all GPUs for "cuda", else the one that is named."""
    if device != "cuda":
        return [device]
    import torch

    return [f"cuda:{number}" for number in range(torch.cuda.device_count())] or ["cuda"]
