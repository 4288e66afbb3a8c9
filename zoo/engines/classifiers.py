"""Engines that train classifiers by minibatches: the contract and all three of them.

An engine takes initial networks and, for each, its own run: data, order, optimiser,
learning rate, weight decay, dropout, batch size, and after which updates a network is to
be kept and evaluated. What it must do for every run on its own:

    for update in 1, 2, ...:
        minibatch = the next `batch` items of this epoch's order (the last one smaller)
        loss = mean cross-entropy of the minibatch
        one update of torch.optim's Adam, SGD or RMSprop, at torch's defaults for the rest
        after update s in `run.steps`: keep the network and evaluate it

Order and dropout come from `zoo.philox`, so engines agree to rounding, and what a run
becomes does not depend on the runs beside it. Pixels are bytes and become scale * byte + shift.

`CompiledEngine` ("cpu") trains one run at a time on the calling thread and is meant to be
called from several; `BatchedEngine` ("torch") trains many side by side on any torch device;
`ReferenceEngine` ("reference") is torch.nn and torch.optim, one at a time.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor, nn

from zoo import machine, nets, philox, stopping
from zoo.engines import refuse_meta
from zoo.shards import round_to
from zoo.spec import NetworkSpec
from zoo.weights import Weights

ENGINES = ("cpu", "torch", "reference")
OPTIMISERS = ("adam", "sgd", "rmsprop")


@dataclass(frozen=True, eq=False)
class Data:
    """Labelled pictures that all runs share.

    Attributes:
        images: bytes, `item feature`; features are (chan row column) for linear networks,
            (row column chan) for convolutional ones.
        labels: class numbers.
        shape: (row, column, chan) of a picture.
        scale, shift: a network's input is scale * byte + shift, in float32.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    shape: tuple[int, int, int]
    scale: float
    shift: float


@dataclass(frozen=True, eq=False)
class Run:
    """One classifier's training.

    Attributes:
        key: (seed, attempt, index, view) of its random numbers.
        train_items, loss_items, test_items: positions in the data: trained on, and where
            train loss, and test loss and accuracy, are measured.
        steps: updates after which a network is kept, ascending; 0 is the initial one.
        batch: items of a minibatch.
        dropout: chance that a feature (of a conv layer: a whole map) of a hidden layer is 0.
        storage: what kept networks are rounded to before they are evaluated; training goes
            on with the unrounded ones, and these are given back.
    """

    key: tuple[int, int, int, int]
    train_items: NDArray[np.int64]
    loss_items: NDArray[np.int64]
    test_items: NDArray[np.int64]
    steps: tuple[int, ...]
    batch: int
    optimiser: str = "adam"
    lr: float = 1e-3
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    dropout: float = 0.0
    storage: str = "float32"

    @property
    def epoch_steps(self) -> int:
        """Updates of an epoch."""
        return -(-len(self.train_items) // self.batch)


class Trained(NamedTuple):
    """The kept networks of one run, `step ...`; losses are not finite where it diverged."""

    params: NDArray[np.float32]
    train_loss: NDArray[np.float64]
    test_loss: NDArray[np.float64]
    test_accuracy: NDArray[np.float64]


@runtime_checkable
class ClassifierEngine(Protocol):
    """Trains runs; see the module's text for what `train` must do.

    Attributes:
        name: as recorded in the index.
        threads: how many calls of `train` at once make full use of the machine.
        batch: how many runs to hand over at once for full speed.
    """

    name: str
    threads: int
    batch: int

    def train(
        self, spec: NetworkSpec, data: Data, params: NDArray[np.float32], runs: Sequence[Run]
    ) -> list[Trained]:
        """Train every network of `net param` by its run."""
        ...


def choose(name: str, device: str) -> str:
    """The engine that "auto" stands for; other names are checked and handed back.

    Raises:
        ValueError: for an unknown engine, or one that does not run on `device`.
    """
    if name not in ("auto", *ENGINES):
        raise ValueError(f"unknown engine {name!r}; known: auto, {', '.join(ENGINES)}")
    refuse_meta(device)
    if name == "auto":
        return "cpu" if device == "cpu" else "torch"
    if name == "cpu" and device != "cpu":
        raise ValueError(f"engine 'cpu' does not run on device {device!r}; use --engine torch")
    return name


def load(name: str, device: str = "cpu", threads: int | None = None) -> ClassifierEngine:
    """The engine of that name.

    Raises:
        ValueError: for an unknown engine or a device that is not there.
    """
    threads = threads or machine.threads()
    if name == "cpu":
        return CompiledEngine(threads)
    if name == "torch":
        return BatchedEngine(device, threads)
    if name == "reference":
        return ReferenceEngine(device, threads)
    raise ValueError(f"unknown engine {name!r}; known: {', '.join(ENGINES)}")


# ---- what all engines share: order, minibatches, dropout


def random_words(
    key: tuple[int, int, int, int], stream: int, count: int, first: int = 0
) -> NDArray[np.uint32]:
    """As `philox.words` of one network, from block `first` on, compiled."""
    from zoo.engines import dense

    found = np.empty(count, np.uint32)
    seed, attempt, index, view = key
    dense.words(seed, attempt, index, view, stream, first, found)
    return found


def shuffled(run: Run, epoch: int) -> NDArray[np.int64]:
    """The run's items in the order of an epoch.

    Every epoch takes the next blocks of the stream; equal words keep the items' order.
    """
    count = len(run.train_items)
    # The first words of the stream choose the items of a run that sees a part of them.
    blocks = -(-count // 4)
    words = random_words(run.key, philox.DATA_ORDER, count, (epoch + 1) * blocks + ORDER_BLOCKS)
    return run.train_items[np.argsort(words, kind="stable")]


# Blocks of DATA_ORDER words that are set aside for choosing items: room for 2**24 of them.
ORDER_BLOCKS = 1 << 22


def chosen_items(
    key: tuple[int, int, int, int], items: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """`count` of the items at random, in ascending order; all of them draw nothing."""
    if count >= len(items):
        return items
    words = random_words(key, philox.DATA_ORDER, len(items))
    return np.sort(items[np.argsort(words, kind="stable")[:count]])


def segments(run: Run) -> Iterator[tuple[int, int, int, bool]]:
    """(epoch, first minibatch, last + 1, whether a network is kept then), in order."""
    per_epoch = run.epoch_steps
    step = 0
    for kept in run.steps:
        while True:
            epoch, first = divmod(step, per_epoch)
            last = min(per_epoch, first + kept - step)
            step += last - first
            yield epoch, first, last, step == kept
            if step == kept:
                break


def minibatches(run: Run) -> Iterator[NDArray[np.int64] | None]:
    """The items of every update in turn; None where a network is kept."""
    order, ready = np.empty(0, np.int64), -1
    for epoch, first, last, keep in segments(run):
        if first < last and epoch != ready:
            order, ready = shuffled(run, epoch), epoch
        for number in range(first, last):
            yield order[number * run.batch : (number + 1) * run.batch]
        if keep:
            yield None


def dropout_factors(run: Run, spec: NetworkSpec, step: int, items: int) -> list[Tensor]:
    """`item out` factors of every hidden layer at an update: 0, or 1 / (1 - dropout)."""
    factors = []
    fours = [-(-layer.out // 4) for layer in spec.layers[:-1]]
    block = step * run.batch * sum(fours)
    for layer, blocks in zip(spec.layers[:-1], fours, strict=True):
        words = random_words(run.key, philox.AUGMENT, items * blocks * 4, block)
        block += run.batch * blocks
        dropped = (words >> np.uint32(8)) < np.uint32(run.dropout * 2**24)
        factor = np.where(dropped, 0.0, 1.0 / (1.0 - run.dropout)).astype(np.float32)
        factors.append(torch.from_numpy(factor.reshape(items, -1)[:, : layer.out].copy()))
    return factors


def pixels(data: Data, spec: NetworkSpec, items: NDArray[np.int64], device: Any) -> Tensor:
    """Network inputs of these items: `item inp`, or `item inp row col` of conv networks."""
    raw = torch.from_numpy(data.images[items]).to(device)
    x: Tensor = raw.float() * float(np.float32(data.scale)) + float(np.float32(data.shift))
    if spec.layers[0].kind == "linear":
        return x
    row, col, _ = data.shape
    x = rearrange(x, "item (row col chan) -> item chan row col", row=row, col=col)
    return x


def _torch_device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} cannot be used: {reason}") from None
    return device


# ---- compiled, for CPUs


class _Layout(NamedTuple):
    """Where everything of one network stands in scratch memory; see `dense`."""

    layers: NDArray[np.int64]
    places: NDArray[np.int64]
    block: int
    floats: int


# Values, derivatives and patches of one block of items.
_BLOCK_BYTES = 1 << 20


def _round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def layer_sizes(spec: NetworkSpec, shape: tuple[int, int, int]) -> list[tuple[int, int]]:
    """(rows, columns) of the output of every layer; (1, 1) of linear ones.

    Raises:
        ValueError: if a conv layer has no room for its kernel.
    """
    size = shape[:2]
    found = []
    for number, layer in enumerate(spec.layers):
        if layer.kind == "linear":
            found.append((1, 1))
            continue
        rows, columns = (
            (side + 2 * layer.padding - tap) // layer.stride + 1
            for side, tap in zip(size, layer.kernel, strict=True)
        )
        if rows < 1 or columns < 1:
            raise ValueError(
                f"layer {number}: a picture of {size[0]} rows and {size[1]} columns is too small "
                f"for a kernel of {layer.kernel[0]} x {layer.kernel[1]}"
            )
        size = (rows, columns)
        found.append(size)
    return found


def _lay_out(
    spec: NetworkSpec, shape: tuple[int, int, int], most: int, budget: int = _BLOCK_BYTES
) -> _Layout:
    """Divide scratch memory for blocks of at most `most` items."""
    from zoo.engines import dense

    lanes, tile = dense.LANES, dense.TILE_ROWS
    sizes = layer_sizes(spec, shape)
    table = np.zeros((len(spec.layers), dense.LAYER_FIELDS), np.int64)
    state, per_item = 0, 0
    before = shape[:2]
    for number, (layer, size) in enumerate(zip(spec.layers, sizes, strict=True)):
        inp = layer.fan_in
        depth, out, points = _round_up(inp, lanes), _round_up(layer.out, lanes), prod(size)
        conv = layer.kind == "conv"
        entry = table[number]
        entry[dense.KIND] = dense.CONV if conv else dense.LINEAR
        entry[[dense.INP, dense.DEPTH, dense.OUT]] = inp, depth, layer.out
        entry[[dense.WEIGHT, dense.BIAS]] = state, state + depth * out
        entry[dense.POINTS] = points
        entry[[dense.IN_ROWS, dense.IN_COLUMNS]] = before
        entry[dense.CHANNELS] = layer.inp
        entry[[dense.OUT_ROWS, dense.OUT_COLUMNS]] = size
        entry[[dense.KERNEL_ROWS, dense.KERNEL_COLUMNS]] = layer.kernel
        entry[[dense.STRIDE, dense.PADDING]] = layer.stride, layer.padding
        entry[dense.ACTIVATION] = ("identity", "relu", "tanh").index(layer.activation)
        run = layer.kernel[1] * layer.inp if conv else 0
        whole_runs = number == 0 and 0 < run <= lanes
        entry[dense.WIDTH] = lanes // run * run if whole_runs else lanes
        source_panels = -(-inp // int(entry[dense.WIDTH]))
        state += (depth + 1) * out
        own_source = number == 0 or conv or spec.layers[number - 1].kind == "conv"
        per_item += points * (2 * out + (source_panels * lanes if own_source else 0))
        before = size
    block = max(1, min(most, budget // (4 * per_item)))
    # Equal blocks, of whole tiles where that is less than all.
    if block < most:
        block = -(-most // -(-most // block))
    place = 4 * state
    for number in range(len(spec.layers)):
        entry = table[number]
        depth, out = entry[dense.DEPTH], _round_up(int(entry[dense.OUT]), lanes)
        capacity = _round_up(block * int(entry[dense.POINTS]), tile)
        entry[dense.CAPACITY] = capacity
        if number:
            entry[dense.BACKWARD] = place
            place += depth * entry[dense.OUT]
        chained = number and entry[dense.KIND] == dense.LINEAR
        if chained and table[number - 1, dense.KIND] == dense.LINEAR:
            entry[dense.SOURCE] = table[number - 1, dense.VALUE]
        else:
            # Copies of whole vectors run over the last patch.
            capacity += number == 0 and entry[dense.KIND] == dense.CONV
            entry[dense.SOURCE] = place
            place += capacity * lanes * -(-int(entry[dense.INP]) // int(entry[dense.WIDTH]))
        entry[dense.SOURCE_CAPACITY] = capacity
        capacity = entry[dense.CAPACITY]
        entry[dense.VALUE] = place
        entry[dense.DELTA] = place + capacity * out
        place += 2 * capacity * out
        place = _round_up(int(place), lanes)
    first = spec.layers[0]
    picture = 2 * lanes
    places = np.array([state, place, place + picture], np.int64)
    if first.kind == "conv":
        border = 2 * first.padding
        picture += (shape[0] + border) * (shape[1] + border) * first.inp + lanes
    return _Layout(table, places, block, int(place) + picture)


def _aligned(floats: int) -> NDArray[np.float32]:
    """Memory that starts on a cache line; vectors never straddle two."""
    raw = np.empty(4 * floats + 64, np.uint8)
    start = -raw.ctypes.data % 64
    found: NDArray[np.float32] = raw[start : start + 4 * floats].view(np.float32)
    return found


class CompiledEngine:
    """Kernels of `zoo.engines.dense`: own products, losses and optimisers, no torch."""

    name = "cpu"
    batch = 1

    def __init__(self, threads: int = 1):
        self.threads = threads
        self.cancel = np.zeros(1, np.uint8)

    def train(
        self, spec: NetworkSpec, data: Data, params: NDArray[np.float32], runs: Sequence[Run]
    ) -> list[Trained]:
        """See `zoo.engines.classifiers`; any chain of conv and linear ReLU or tanh layers."""
        layouts: dict[int, tuple[_Layout, NDArray[np.float32]]] = {}
        found = []
        for start, run in zip(params, runs, strict=True):
            if run.batch not in layouts:
                layout = _lay_out(spec, data.shape, run.batch)
                layouts[run.batch] = layout, _aligned(layout.floats)
            layout, memory = layouts[run.batch]
            found.append(self._train(data, start, run, layout, memory))
        return found

    def _train(
        self,
        data: Data,
        params: NDArray[np.float32],
        run: Run,
        layout: _Layout,
        memory: NDArray[np.float32],
    ) -> Trained:
        from zoo.engines import dense

        memory[:] = 0  # what an earlier run left in the padding may not be finite
        dense.place(memory, np.array(params), layout.layers, False)
        optimiser = (dense.ADAM, dense.SGD, dense.RMSPROP)[OPTIMISERS.index(run.optimiser)]
        settings = np.array(
            [optimiser, run.lr, run.weight_decay, run.beta1, run.beta2, run.eps, run.dropout],
            np.float64,
        )
        keys = np.array([*run.key, philox.AUGMENT], np.uint64)
        scale, shift = np.float32(data.scale), np.float32(data.shift)
        images = np.ascontiguousarray(data.images)
        kept = len(run.steps)
        found = Trained(
            np.empty((kept, len(params)), np.float32), *(np.zeros(kept) for _ in range(3))
        )
        order, ready = run.train_items, -1
        step, number = 0, 0
        for epoch, first, last, keep in segments(run):
            stopping.check()
            if first < last:
                if epoch != ready:
                    order, ready = shuffled(run, epoch), epoch
                step = dense.train(
                    memory, images, data.labels, order, first, last, run.batch, layout.block,
                    scale, shift, layout.layers, layout.places, settings, step, keys, self.cancel,
                )  # fmt: skip
            if keep:
                dense.place(memory, found.params[number], layout.layers, True)
                if run.storage != "float32":
                    rounded = round_to(found.params[number], run.storage)
                    dense.place(memory, rounded, layout.layers, False)
                for items, columns in (
                    (run.loss_items, (found.train_loss, None)),
                    (run.test_items, (found.test_loss, found.test_accuracy)),
                ):
                    loss, right = dense.evaluate(
                        memory, images, data.labels, items, layout.block, scale, shift,
                        layout.layers, layout.places, keys, self.cancel,
                    )  # fmt: skip
                    columns[0][number] = loss
                    if columns[1] is not None:
                        columns[1][number] = right
                if run.storage != "float32":
                    dense.place(memory, found.params[number], layout.layers, False)
                number += 1
        return found


# ---- torch, one at a time


class ReferenceEngine:
    """`torch.nn` and `torch.optim`, one network at a time; says what is right."""

    name = "reference"
    batch = 1
    threads = 1

    def __init__(self, device: str = "cpu", threads: int = 1, dtype: torch.dtype = torch.float32):
        self.device = _torch_device(device)
        self.dtype = dtype
        if self.device.type == "cpu":
            torch.set_num_threads(threads)

    def train(
        self, spec: NetworkSpec, data: Data, params: NDArray[np.float32], runs: Sequence[Run]
    ) -> list[Trained]:
        """See `zoo.engines.classifiers`."""
        return [
            self._train(spec, data, start, run) for start, run in zip(params, runs, strict=True)
        ]

    def _train(
        self, spec: NetworkSpec, data: Data, params: NDArray[np.float32], run: Run
    ) -> Trained:
        start = Weights.unflatten(torch.from_numpy(np.array(params))[None], spec)
        module: nets.Network = nets.to_module(spec, start).to(self.device, self.dtype)
        kind: Any = {
            "adam": torch.optim.Adam, "sgd": torch.optim.SGD, "rmsprop": torch.optim.RMSprop
        }[run.optimiser]  # fmt: skip
        more: dict[str, Any] = {} if run.optimiser == "sgd" else {"eps": run.eps}
        if run.optimiser == "adam":
            more["betas"] = (run.beta1, run.beta2)
        optimiser = kind(module.parameters(), lr=run.lr, weight_decay=run.weight_decay, **more)
        kept: list[tuple[NDArray[np.float32], float, float, float]] = []
        step = 0
        for items in minibatches(run):
            stopping.check()
            if items is None:
                flat = torch.cat([p.detach().flatten() for p in module.parameters()])
                stored = flat.float().cpu().numpy()
                tested = module
                if run.storage != "float32":
                    rounded = torch.from_numpy(round_to(stored, run.storage))[None]
                    tested = nets.to_module(spec, Weights.unflatten(rounded, spec))
                    tested = tested.to(self.device, self.dtype)
                train_loss, _ = self._evaluate(spec, data, tested, run.loss_items)
                loss, accuracy = self._evaluate(spec, data, tested, run.test_items)
                kept.append((stored, train_loss, loss, accuracy))
                continue
            x = pixels(data, spec, items, self.device).to(self.dtype)
            y = torch.from_numpy(data.labels[items]).to(self.device)
            optimiser.zero_grad()
            outputs = module(x) if not run.dropout else self._dropped(spec, module, x, run, step)
            nn.functional.cross_entropy(outputs, y).backward()
            optimiser.step()
            step += 1
        return Trained(*(np.array(column) for column in zip(*kept, strict=True)))

    def _dropped(
        self, spec: NetworkSpec, module: nets.Network, x: Tensor, run: Run, step: int
    ) -> Tensor:
        """The module's outputs with dropout after every hidden layer."""
        factors = dropout_factors(run, spec, step, len(x))
        for number, (layer, affine) in enumerate(zip(spec.layers, module.layers, strict=True)):
            if layer.kind == "linear" and x.ndim == 4:
                x = x.mean(dim=(-2, -1))
            x = affine(x)
            if number < len(factors):
                x = torch.relu(x) if layer.activation == "relu" else torch.tanh(x)
                factor = factors[number].to(x)
                x = x * factor.reshape(*factor.shape, *[1] * (x.ndim - 2))
        return x

    def _evaluate(
        self, spec: NetworkSpec, data: Data, module: nets.Network, items: NDArray[np.int64]
    ) -> tuple[float, float]:
        total, right = 0.0, 0
        with torch.no_grad():
            for start in range(0, len(items), 1000):
                part = items[start : start + 1000]
                outputs = module(pixels(data, spec, part, self.device).to(self.dtype)).double()
                y = torch.from_numpy(data.labels[part]).to(self.device)
                total += float(nn.functional.cross_entropy(outputs, y, reduction="sum"))
                right += int((outputs.argmax(dim=1) == y).sum())
        return total / len(items), right / len(items)


# ---- torch, side by side


def adjust(
    p: Tensor,
    grad: Tensor,
    mean: Tensor,
    square: Tensor,
    settings: tuple[Tensor, Tensor, Tensor, Tensor],
    betas: tuple[float, float, float],
    roots: tuple[Any, ...],
) -> None:
    """One optimiser's update of every run, in place; all tensors are `net param`.

    Args:
        mean, square: the moments of Adam; RMSprop's mean of squares is in `square`.
        settings: `net 1` each: learning rate, weight decay, whether Adam, whether SGD.
        betas: beta1, beta2 and epsilon of all runs.
        roots: 1 - beta1^t and the root of 1 - beta2^t, numbers or tensors.
    """
    lr, decay, is_adam, is_sgd = settings
    beta1, beta2, eps = betas
    grad = grad + decay * p
    mean.copy_(torch.where(is_adam, mean + (1 - beta1) * (grad - mean), mean))
    gain = torch.where(is_adam, 1 - beta2, 0.01)
    square.copy_(square + gain * (grad * grad - square))
    adam = mean / roots[0] / (square.sqrt() / roots[1] + eps)
    other = torch.where(is_sgd, grad, grad / (square.sqrt() + eps))
    p -= lr * torch.where(is_adam, adam, other)


class BatchedEngine:
    """Many runs side by side on any torch device.

    On a GPU an update is recorded once as a CUDA graph and replayed, since launching its
    hundred small kernels takes longer than they do, and `adjust` is compiled into one pass
    over the parameters; where either fails, it runs as on CPUs. Run on an H200: 320
    classifiers of recipe binary in 18 s, compiling included.

    Runs of equal batch and data sizes share tensors, each with its own order, optimiser
    and settings. Batches have one fixed size, padded, because torch picks its kernels by
    shape and would else round a network differently with its neighbours. Its place in the
    batch still matters on CPUs, in the last bits, since MKL rounds by how memory is
    aligned: another `shard_rows` gives other last bits with this engine.
    """

    name = "torch"
    batch = 16
    threads = 1
    eval_items = 500

    def __init__(self, device: str = "cpu", threads: int = 1, dtype: torch.dtype = torch.float32):
        self.device = _torch_device(device)
        self.dtype = dtype
        self.compiled: Callable[..., None] | None = None
        if self.device.type == "cpu":
            torch.set_num_threads(threads)
        if self.device.type == "cuda":
            # More would fill the GPU better, but chunks of 32 runs of trajectories already
            # take gigabytes on their way to the disk.
            self.batch = 32
            self.compiled = torch.compile(adjust, dynamic=False)

    def train(
        self, spec: NetworkSpec, data: Data, params: NDArray[np.float32], runs: Sequence[Run]
    ) -> list[Trained]:
        """See `zoo.engines.classifiers`; any spec that `zoo.nets.forward` runs."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for number, run in enumerate(runs):
            sizes = [len(i) for i in (run.train_items, run.loss_items, run.test_items)]
            # Of equal lengths too, so that none waits long for its neighbours.
            epochs = -(-run.steps[-1] // run.epoch_steps)
            groups.setdefault((run.batch, *sizes, epochs), []).append(number)
        found: dict[int, Trained] = {}
        images = torch.from_numpy(data.images).to(self.device)
        labels = torch.from_numpy(data.labels).to(self.device)
        for members in groups.values():
            for start in range(0, len(members), self.batch):
                part = members[start : start + self.batch]
                padded = part + part[:1] * (self.batch - len(part))
                results = self._train_batch(
                    spec, data, images, labels, params[padded], [runs[n] for n in padded]
                )
                found |= dict(zip(part, results[: len(part)], strict=True))
        return [found[number] for number in range(len(runs))]

    def _train_batch(
        self,
        spec: NetworkSpec,
        data: Data,
        images: Tensor,
        labels: Tensor,
        params: NDArray[np.float32],
        runs: list[Run],
    ) -> list[Trained]:
        place: dict[str, Any] = {"device": self.device, "dtype": self.dtype}
        p = torch.from_numpy(params).to(**place).clone().requires_grad_()
        mean, square = (torch.zeros_like(p, requires_grad=False) for _ in range(2))

        def column(values: list[float]) -> Tensor:
            return torch.tensor(values, **place)[:, None]

        lr, decay = column([r.lr for r in runs]), column([r.weight_decay for r in runs])
        is_adam, is_sgd = (
            column([float(r.optimiser == name) for r in runs]).bool() for name in ("adam", "sgd")
        )
        settings = lr, decay, is_adam, is_sgd
        beta1, beta2, eps = runs[0].beta1, runs[0].beta2, runs[0].eps
        kept: list[list[tuple[NDArray[np.float32], float, float, float]]] = [[] for _ in runs]
        wanted = [set(run.steps) for run in runs]
        per_epoch, count = runs[0].epoch_steps, len(runs[0].train_items)
        dropout = any(run.dropout for run in runs)
        orders = torch.empty(0)

        def update(items: Tensor, roots: tuple[Any, ...], factors: list[Tensor] | None) -> None:
            outputs = self._forward(spec, data, images, p, items, factors)
            losses = nn.functional.cross_entropy(
                outputs.flatten(0, 1), labels[items].flatten(), reduction="none"
            )
            (grad,) = torch.autograd.grad(losses.sum() / items.shape[1], p)
            with torch.no_grad():
                self._adjust(p, grad, mean, square, settings, (beta1, beta2, eps), roots)

        replay: Callable[..., None] | None = None
        for step in range(max(run.steps[-1] for run in runs) + 1):
            stopping.check()
            if any(step in steps for steps in wanted):
                stored = p.detach().float().cpu().numpy().copy()  # p changes in place
                rounded = round_to(stored, runs[0].storage)
                tested = torch.from_numpy(rounded).to(**place)
                train = self._evaluate(
                    spec, data, images, labels, tested, [r.loss_items for r in runs]
                )
                test = self._evaluate(
                    spec, data, images, labels, tested, [r.test_items for r in runs]
                )
                for net, steps in enumerate(wanted):
                    if step in steps:
                        kept[net].append((stored[net], train[0][net], test[0][net], test[1][net]))
            if all(step >= run.steps[-1] for run in runs):
                break
            epoch, number = divmod(step, per_epoch)
            if number == 0:
                orders = torch.from_numpy(np.stack([shuffled(r, epoch) for r in runs]))
                orders = orders.to(self.device)
            items = orders[:, number * runs[0].batch : min(count, (number + 1) * runs[0].batch)]
            factors = None
            if dropout:
                each = [dropout_factors(run, spec, step, items.shape[1]) for run in runs]
                factors = [torch.stack(same).to(**place) for same in zip(*each, strict=True)]
            roots = 1 - beta1 ** (step + 1), (1 - beta2 ** (step + 1)) ** 0.5
            whole = items.shape[1] == runs[0].batch and factors is None
            if step == 0 and whole and self.device.type == "cuda":
                replay = self._recorded(update, items, [p, mean, square])
            if replay is not None and whole:
                replay(items, roots)
            elif self.compiled is not None:
                # Numbers would be compiled in, anew at every step.
                update(items, tuple(torch.tensor(roots, **place)), factors)
            else:
                update(items, roots, factors)
        return [Trained(*(np.array(values) for values in zip(*rows, strict=True))) for rows in kept]

    def _adjust(self, *arguments: Any) -> None:
        """`adjust`, compiled where that works."""
        if self.compiled is not None:
            try:
                self.compiled(*arguments)
                return
            except Exception:  # the compiler's are of many kinds, and it is not needed
                self.compiled = None
        adjust(*arguments)

    def _recorded(
        self, update: Callable[..., None], items: Tensor, state: list[Tensor]
    ) -> Callable[[Tensor, tuple[float, float]], None] | None:
        """`update` as a CUDA graph, called with items and roots; None where that fails.

        Args:
            items: of any minibatch of the size to be replayed.
            state: what `update` changes; as it was when this returns.
        """
        given = items.clone()
        roots = torch.ones(2, dtype=self.dtype, device=self.device)
        before = [tensor.detach().clone() for tensor in state]
        graph = torch.cuda.CUDAGraph()
        try:
            # Run it first, on a stream of its own: torch and Triton set things up then.
            stream = torch.cuda.Stream(self.device)
            stream.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(stream):
                for _ in range(3):
                    update(given, (roots[0], roots[1]), None)
            torch.cuda.current_stream(self.device).wait_stream(stream)
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                update(given, (roots[0], roots[1]), None)
        except RuntimeError:
            return None
        finally:
            with torch.no_grad():
                for tensor, old in zip(state, before, strict=True):
                    tensor.copy_(old)

        def replay(items: Tensor, values: tuple[float, float]) -> None:
            given.copy_(items)
            roots[0], roots[1] = values
            graph.replay()

        return replay

    def _forward(
        self,
        spec: NetworkSpec,
        data: Data,
        images: Tensor,
        p: Tensor,
        items: Tensor,
        factors: list[Tensor] | None = None,
    ) -> Tensor:
        """`net item out` of every network on its own `net item`."""
        x = images[items].to(self.dtype) * float(np.float32(data.scale))
        x = x + float(np.float32(data.shift))
        if spec.layers[0].kind == "conv":
            row, col, _ = data.shape
            x = rearrange(x, "net item (row col chan) -> net item chan row col", row=row, col=col)
        weights = Weights.unflatten(p, spec)
        return nets.forward(spec, weights, x, factors)

    def _evaluate(
        self,
        spec: NetworkSpec,
        data: Data,
        images: Tensor,
        labels: Tensor,
        p: Tensor,
        items: list[NDArray[np.int64]],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean loss and share of right answers of every network on its own items."""
        every = torch.from_numpy(np.stack(items)).to(self.device)
        loss = torch.zeros(len(p), dtype=torch.float64, device=self.device)
        right = torch.zeros_like(loss)
        with torch.no_grad():
            for part in every.split(self.eval_items, dim=1):
                outputs = self._forward(spec, data, images, p, part).double()
                y = labels[part]
                flat = nn.functional.cross_entropy(
                    outputs.flatten(0, 1), y.flatten(), reduction="none"
                )
                loss += flat.reshape(y.shape).sum(dim=1)
                right += (outputs.argmax(dim=2) == y).sum(dim=1)
        count = every.shape[1]
        return (loss / count).cpu().numpy(), (right / count).cpu().numpy()
