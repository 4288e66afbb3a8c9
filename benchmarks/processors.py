"""How fast processors are: the equivariant layer beside plain blocks, and whole models.

    python benchmarks/processors.py [--quick] [--models] [--every] [--cpu]

Run it on an idle machine; on one that others use too, `--cpu` takes the CPU time of one thread
instead of the clock. Timings are forward and backward, in milliseconds per network;
those that are compared are taken in turn within one round, and medians are printed.

"blocks" is the layer as the papers spell it out and the released codes run it: one small
linear map for each pair of tensors and kind of pooling, which pools its input, broadcasts
its output and adds it at full size. Both layers have the same parameters, which is checked.
Memory is the peak above what the process held before, read from Linux.

Whole models, encoder and head included, are timed at the MNIST spec, 2-32-32-1. "plain" is NFN
with Fourier features as torch computes them, at once and kept for backward, and each layer by
itself, which is how we had it and the released code has it; outputs and gradients of both are
compared first. GFLOP/s are those of a 2048^3 float32 product, taken in turn with the models.

`--every` prints one table of all models by preset "paper", which is M6 of the Monomial-NFN paper in
kind: small CNNs, 1-16-16-16 and ten classes, in batches of 8, as papers train on them, and MNIST
INRs in batches of 128; parameters, milliseconds a network, and the peak of a step.
"""

import argparse
import ctypes
import gc
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

# This file has the name of the package that it measures.
sys.path[0] = str(Path(__file__).parents[1])

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

import processors  # noqa: E402
from processors import EquivariantLinear, base, fourier, presets  # noqa: E402
from processors.graded import Graded  # noqa: E402
from processors.linear import Term  # noqa: E402
from processors.probe import Probe  # noqa: E402
from zoo import NetworkSpec, Weights  # noqa: E402
from zoo.making.plan import cpu_kind  # noqa: E402

MNIST = NetworkSpec.mlp([2, 32, 32, 1])


class Blocks(nn.Module):
    """Every term of an equivariant layer by itself; weights are those of `layer`."""

    def __init__(self, layer: EquivariantLinear):
        super().__init__()
        self.slots = {slot.name: slot for slot in base.slots(layer.spec, layer.group)}
        self.terms, self.pool = layer.terms, layer.pool
        self.maps = nn.ParameterList(layer.block(term).detach().clone() for term in self.terms)

    def term(self, term: Term, x: Tensor, matrix: Tensor) -> Tensor:
        source, target = self.slots[term.source], self.slots[term.target]
        x = source.fold(x)
        for place in reversed(range(len(source.sets))):
            if source.sets[place] not in term.kept:
                x = x.amax(1 + place) if self.pool == "max" else x.mean(1 + place)
        y = x @ matrix.T
        for place, axis in enumerate(target.sets):
            if axis not in term.kept:
                y = y.unsqueeze(1 + place)
        sizes = [target.sizes[target.axes.index(axis)] for axis in target.sets]
        return target.unfold(y.expand(-1, *sizes, -1).contiguous())

    def forward(self, weights: Weights) -> Weights:
        tensors, total = weights.tensors(), {}
        for term, matrix in zip(self.terms, self.maps, strict=True):
            part = self.term(term, tensors[term.source], matrix)
            total[term.target] = total[term.target] + part if term.target in total else part
        return base.rebuild({name: total[name] for name in tensors})


def random_weights(spec: NetworkSpec, nets: int, chan: int | None) -> Weights:
    """Normal weights with `chan` channels, or plain ones."""
    shapes = {slot.name: slot.shape(chan or 1) for slot in base.slots(spec, "hnp")}
    plain = {
        name: torch.randn(nets, *(shape if chan else shape[:-1])) for name, shape in shapes.items()
    }
    return base.rebuild(plain)


def step(module: nn.Module, weights: Weights) -> Callable[[], None]:
    """One forward and backward; the gradients reach the input too if it has channels."""
    inputs = weights
    if weights.biases[0].ndim == 3:
        inputs = weights.map(lambda tensor: tensor.requires_grad_())

    def run() -> None:
        module.zero_grad()
        for tensor in inputs.tensors().values():
            tensor.grad = None
        out = module(inputs)
        tensors = list(out.tensors().values()) if isinstance(out, Weights) else [out]
        torch.autograd.backward(tensors, [torch.ones_like(tensor) for tensor in tensors])

    return run


def rounds(
    runs: dict[str, Callable[[], None]],
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds of each by the clock, taken in turn for about `seconds` in all."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds or len(next(iter(taken.values()))) < 3:
        for name, run in runs.items():
            start = clock()
            run()
            taken[name].append(clock() - start)
    return {name: statistics.median(times) for name, times in taken.items()}


def product() -> Callable[[], None]:
    """One 2048^3 float32 product."""
    a, b = torch.randn(2, 2048, 2048)

    def run() -> None:
        a @ b

    return run


def peak_mb(run: Callable[[], None]) -> float:
    """MB by which the process grows at most during `run`; nan where Linux does not tell."""
    if platform.system() != "Linux":
        return float("nan")
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)

    def status(key: str) -> int:
        with open("/proc/self/status") as lines:
            return next(int(line.split()[1]) for line in lines if line.startswith(key))

    before = status("VmRSS")
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")  # the peak starts again from here
    run()
    return (status("VmHWM") - before) / 1024


def compare(quick: bool, clock: Callable[[], float]) -> None:
    """Print the layer beside its plain blocks, one size at a time."""
    sizes: dict[str, tuple[NetworkSpec, str, int, int]] = {}
    for batch in (16, 256) if quick else (4, 16, 64, 256, 512):
        sizes[f"batch {batch}"] = (MNIST, "np", batch, 32)
    for chan in (8, 128) if quick else (8, 32, 128, 256):
        sizes[f"channels {chan}"] = (MNIST, "np", 32, chan)
    for depth in (2, 5) if quick else (2, 3, 5, 8):
        spec = NetworkSpec.mlp([2, *[32] * (depth - 1), 1])
        sizes[f"layers {depth}"] = (spec, "np", 32, 32)
    for width in (16, 128) if quick else (16, 32, 64, 128):
        sizes[f"width {width}"] = (NetworkSpec.mlp([2, width, width, 1]), "np", 16, 32)
    sizes["784-128-128-128-10"] = (NetworkSpec.mlp([784, 128, 128, 128, 10], "relu"), "np", 4, 16)
    sizes["3072-64-64-64-64-10"] = (
        *(NetworkSpec.mlp([3072, *[64] * 4, 10], "relu"), "np"),
        *(2, 16),
    )
    for group in ("hnp", "mono-sin"):
        sizes[f"{group}, batch 64"] = (MNIST, group, 64, 32)
    sizes["cnn 1-16-16-16-10"] = (NetworkSpec.cnn([1, 16, 16, 16], 10), "hnp", 16, 8)
    print(
        f"{'one layer':<22}{'batch':>6}{'chan':>6}{'ours ms':>10}{'blocks ms':>11}{'faster':>8}"
        f"{'ours MB':>9}{'blocks MB':>11}"
    )
    for name, (spec, group, batch, chan) in sizes.items():
        layer = EquivariantLinear(spec, group, chan, chan, bias=False)
        blocks = Blocks(layer)
        weights = random_weights(spec, batch, chan)
        with torch.no_grad():
            for mine, plain in zip(
                layer(weights).tensors().values(), blocks(weights).tensors().values(), strict=True
            ):
                torch.testing.assert_close(mine, plain, rtol=1e-3, atol=1e-3)
        runs = {"ours": step(layer, weights), "blocks": step(blocks, weights)}
        found = rounds(runs, 0.5 if quick else 2.0, clock)
        memory = {key: peak_mb(run) for key, run in runs.items()}
        ours, theirs = (found[key] / batch * 1e3 for key in ("ours", "blocks"))
        print(
            f"{name:<22}{batch:>6}{chan:>6}{ours:>10.3f}{theirs:>11.3f}{theirs / ours:>7.1f}x"
            f"{memory['ours']:>9.0f}{memory['blocks']:>11.0f}"
        )


class Plain(nn.Module):
    """Fourier features of all entries at once, kept for backward, and layers by themselves."""

    def __init__(self, model: processors.NFN):
        super().__init__()
        self.model = model

    def forward(self, weights: Weights) -> Tensor:
        model = self.model
        first, *positions = model.lifting
        lifted = processors.lift(model.normalise(weights)).map(
            lambda tensor: fourier._plainly(tensor, first.frequencies)
        )
        for module in positions:
            lifted = module(lifted)
        # One after the other, so that none knows what the next one asks for.
        for module in model.features:
            lifted = module(lifted)
        return model.head(lifted)


def settings() -> dict[str, tuple[Callable[[], nn.Module], int]]:
    """Name to model and batch."""
    found: dict[str, tuple[Callable[[], nn.Module], int]] = {}
    for variant in ("attention", "deepsets"):
        found[f"DWSNets, {variant}"] = (
            lambda variant=variant: processors.DWSNet(MNIST, variant=variant),
            64,
        )
    for symmetry, chan in (("np", 32), ("hnp", 32), ("np", 128), ("hnp", 128)):
        found[f"NFN {symmetry}, 3 x {chan}"] = (
            lambda symmetry=symmetry, chan=chan: processors.NFN(
                MNIST, symmetry=symmetry, channels=(chan,) * 3
            ),
            128,
        )
    found["Monomial-NFN"] = (lambda: processors.MonomialNFN(MNIST), 32)
    found["graded"] = (lambda: Graded(MNIST, 10), 128)
    found["probe"] = (lambda: Probe(MNIST, 10), 128)
    return found


def compared(model: processors.NFN, plain: nn.Module, weights: Weights) -> None:
    """Raise unless outputs and gradients agree; without dropout, which draws anew."""
    gradients = []
    model.eval()
    for module in (model, plain):
        model.zero_grad()
        out = module(weights[:4])
        out.square().sum().backward()
        gradients.append([out.detach(), *(p.grad.clone() for p in model.parameters())])
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))
    model.train()


def models(quick: bool, compiled: bool, clock: Callable[[], float]) -> None:
    """Print times and peaks of whole models, NFN's beside those with features that are kept."""
    print(
        f"\n{'whole models':<24}{'batch':>6}{'ms':>8}{'plain':>8}{'faster':>8}{'compiled':>10}"
        f"{'MB':>7}{'plain':>7}{'GFLOP/s':>9}"
    )
    for name, (make, batch) in settings().items():
        torch.manual_seed(0)
        module = make()
        weights = random_weights(MNIST, batch, None)
        runs = {"product": product(), "ours": step(module, weights)}
        if isinstance(module, processors.NFN):
            plain = Plain(module)
            compared(module, plain, weights)
            runs["plain"] = step(plain, weights)
        if compiled:
            torch.compiler.reset()
            runs["compiled"] = step(torch.compile(module), weights)
        found = rounds(runs, 1.0 if quick else 4.0, clock)
        gflops = 2 * 2048**3 / found["product"] / 1e9
        times = {
            key: f"{found[key] / batch * 1e3:.2f}" if key in found else "-"
            for key in ("ours", "plain", "compiled")
        }
        peaks = {
            key: f"{peak_mb(runs[key]):.0f}" if key in runs else "-" for key in ("ours", "plain")
        }
        faster = f"{found['plain'] / found['ours']:.1f}x" if "plain" in found else "-"
        print(
            f"{name:<24}{batch:>6}{times['ours']:>8}{times['plain']:>8}{faster:>8}"
            f"{times['compiled']:>10}{peaks['ours']:>7}{peaks['plain']:>7}{gflops:>9.0f}",
            flush=True,
        )


_CNNS = presets.Situation("generalize", "", "small-cnn", conv=True, picture=False)
# Of each kind of networks what is learnt, their spec, outputs and the batch.
EVERY = {
    "small CNNs": (_CNNS, NetworkSpec.cnn([1, 16, 16, 16], 10), 1, 8),
    "MNIST INRs": (presets.Situation("classify", "", "dws", "mnist"), MNIST, 10, 128),
}


def every(clock: Callable[[], float], quick: bool) -> None:
    """Print parameters, time and peak of every model by preset "paper", as Markdown."""
    heads = [f"{name}: parameters | ms | MB" for name in EVERY]
    print(f"| model | {' | '.join(heads)} |", "|---" * (1 + 3 * len(EVERY)) + "|", sep="\n")
    for model in processors.MODELS:
        cells = []
        for of, spec, out, batch in EVERY.values():
            sizes = presets.chosen(replace(of, model=model), "paper").sizes
            torch.manual_seed(0)
            module = processors.build(model, spec, out, **sizes)
            flat = 0.1 * torch.randn(batch, spec.param_count)
            run = step(module, Weights.unflatten(flat, spec))
            taken = rounds({model: run}, 0.5 if quick else 3.0, clock)[model]
            count = sum(parameter.numel() for parameter in module.parameters())
            cells += [f"{count / 1e6:.2f}M", f"{taken / batch * 1e3:.2f}", f"{peak_mb(run):.0f}"]
        print(f"| {model} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer sizes, not compiled")
    parser.add_argument("--models", action="store_true", help="whole models alone")
    parser.add_argument("--every", action="store_true", help="one table of all models, alone")
    parser.add_argument("--cpu", action="store_true", help="CPU time of one thread")
    asked = parser.parse_args()
    quick, clock = asked.quick, time.perf_counter
    if asked.cpu:
        torch.set_num_threads(1)
        clock = time.process_time
    print(f"{cpu_kind()}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    if asked.every:
        every(clock, quick)
        return
    if not asked.models:
        compare(quick, clock)
    models(quick, compiled=not quick and not asked.cpu, clock=clock)


if __name__ == "__main__":
    main()
