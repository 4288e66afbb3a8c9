"""Shared assertions: a processor commutes with its group, or does not see it.

Errors are relative to the largest output, since scales of neurons make outputs large;
the tolerance belongs to the dtype.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from processors import base
from zoo import NetworkSpec, Weights, symmetry

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
# By how much a processor has to miss a group to count as not equivariant.
BROKEN = 1e-3

Output = Weights | Tensor


def random_weights(
    spec: NetworkSpec,
    chan: int | None,
    nets: int = 3,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Weights:
    """Normal weights with `chan` channels, taps among them; None: plain weights."""
    generator = torch.Generator().manual_seed(seed)
    return base.rebuild(
        {
            slot.name: torch.randn(
                nets,
                *(slot.shape(chan) if chan else _plain(slot)),
                generator=generator,
                dtype=dtype,
            )
            for slot in base.slots(spec, "hnp")
        }
    )


def _plain(slot: base.Slot) -> tuple[int, ...]:
    """A tensor's shape in stored data: taps as a last axis, of conv weights only."""
    return slot.shape(1) if slot.taps > 1 else slot.sizes


def distance(first: Output, second: Output) -> float:
    """The largest difference, relative to the largest entry or 1."""
    pairs = [(first, second)]
    if isinstance(first, Weights) and isinstance(second, Weights):
        pairs = list(zip(first.tensors().values(), second.tensors().values(), strict=True))
    worst = 0.0
    for a, b in pairs:
        assert a.shape == b.shape
        assert a.isfinite().all()
        if a.numel():
            worst = max(worst, ((a - b).abs().max() / b.abs().max().clamp(min=1)).item())
    return worst


def equivariance_error(
    module: Callable[[Weights], Output],
    spec: NetworkSpec,
    group: str,
    chan: int | None,
    nets: int = 3,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> float:
    """How far the module is from commuting with a random element, or not seeing it.

    The latter where it gives a vector. The module has to have the dtype.
    """
    weights = random_weights(spec, chan, nets, seed, dtype)
    generator = torch.Generator().manual_seed(seed + 1)
    element = base.sample(spec, group, nets, generator, dtype)
    with torch.no_grad():
        out = module(weights)
        moved = module(base.act(element, weights))
    return distance(moved, base.act(element, out) if isinstance(out, Weights) else out)


def _describe(spec: NetworkSpec, group: str, seed: int) -> str:
    return f"{spec.widths} under {group}, seed {seed}"


def assert_equivariant(
    module: Callable[[Weights], Output],
    spec: NetworkSpec,
    group: str,
    chan: int | None,
    nets: int = 3,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    tolerance: float | None = None,
) -> None:
    """`module(g x) == g module(x)` for a random g and x with `chan` channels."""
    error = equivariance_error(module, spec, group, chan, nets, seed, dtype)
    limit = TOLERANCE[dtype] if tolerance is None else tolerance
    assert error < limit, f"not equivariant by {error:.1e}: {_describe(spec, group, seed)}"


def assert_invariant(
    module: Callable[[Weights], Tensor],
    spec: NetworkSpec,
    group: str,
    chan: int | None,
    nets: int = 3,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    tolerance: float | None = None,
) -> None:
    """`module(g x) == module(x)`, a vector for each network."""
    vectors = module(random_weights(spec, chan, nets, seed, dtype))
    assert isinstance(vectors, Tensor), f"expected vectors, got {type(vectors).__name__}"
    assert len(vectors) == nets
    assert_equivariant(module, spec, group, chan, nets, seed, dtype, tolerance)


def assert_breaks(
    module: Callable[[Weights], Output],
    spec: NetworkSpec,
    group: str,
    chan: int | None,
    nets: int = 3,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> None:
    """The module does *not* commute with the group, or is not invariant to it."""
    error = equivariance_error(module, spec, group, chan, nets, seed, dtype)
    assert error > BROKEN, f"equivariant to {error:.1e}: {_describe(spec, group, seed)}"


def uncoupled_error(
    module: Callable[[Weights], Output], spec: NetworkSpec, chan: int | None, seed: int = 0
) -> float:
    """How far the module is from commuting with permutations that differ tensor by tensor.

    Every tensor's hidden axes are permuted for themselves, so that neighbours no longer agree
    on which neuron is which. No symmetry of the networks.
    """
    generator = torch.Generator().manual_seed(seed + 1)
    weights = random_weights(spec, chan, seed=seed)
    drawn = [
        torch.randperm(size, generator=generator).roll(1) if axis not in (0, len(spec.layers))
        else torch.arange(size)
        for slot in base.slots(spec, "hnp")
        for axis, size in zip(slot.axes, slot.sizes, strict=True)
    ]  # fmt: skip

    def act(to: Weights) -> Weights:
        orders = iter(drawn)
        return base.rebuild(
            {
                slot.name: _ordered(to.tensors()[slot.name], [next(orders) for _ in slot.axes])
                for slot in base.slots(spec, "hnp")
            }
        )

    with torch.no_grad():
        out, moved = module(weights), module(act(weights))
    return distance(moved, act(out) if isinstance(out, Weights) else out)


def _ordered(tensor: Tensor, orders: list[Tensor]) -> Tensor:
    for axis, order in enumerate(orders, 1):
        tensor = tensor.index_select(axis, order)
    return tensor


def assert_coupled(
    module: Callable[[Weights], Output], spec: NetworkSpec, chan: int | None, seed: int = 0
) -> None:
    """The module tells which rows and columns belong to the same neuron.

    One that ignores it commutes with every permutation of the group, and passes each test of
    equivariance.
    """
    error = uncoupled_error(module, spec, chan, seed)
    assert error > BROKEN, f"blind to the coupling of neighbours, to {error:.1e}: {spec.widths}"


# Networks whose whole group is drawn, for readers that are exact.
NETS = 4
# Per activation, what is exact, and one kind each that is not a symmetry.
EXACT = {
    "sin": (("permutation", "sign", "phase"), ("scale",)),
    "tanh": (("permutation", "sign"), ("scale", "phase")),
    "relu": (("permutation", "scale"), ("sign", "phase")),
    "leaky_relu": (("permutation", "scale"), ("sign", "phase")),
    "gelu": (("permutation",), ("sign", "scale", "phase")),
}


def random_spec(activation: str, seed: int) -> NetworkSpec:
    """Two to five layers, hidden widths of 1 to 8, 1 to 4 inputs and outputs; every third a CNN."""
    generator = torch.Generator().manual_seed(seed)

    def whole(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    hidden = [whole(1, 8) for _ in range(whole(1, 4))]
    ends = whole(1, 4), whole(1, 4)
    if seed % 3 == 2:
        return NetworkSpec.cnn([ends[0], *hidden], ends[1], activation, kernel=whole(1, 3))
    return NetworkSpec.mlp([ends[0], *hidden, ends[1]], activation, omega=7.0)


def draw(spec: NetworkSpec, seed: int) -> Weights:
    """Random networks, some with neurons that are zero, going in and coming out."""
    generator = torch.Generator().manual_seed(seed)
    flat = torch.randn(NETS, spec.param_count, generator=generator, dtype=torch.float64)
    weights = Weights.unflatten(flat, spec)
    weights.weights[0][0, 0], weights.biases[0][0, 0] = 0, 0
    weights.weights[1][1, :, 0] = 0
    return weights


def moved_by(spec: NetworkSpec, weights: Weights, kinds: tuple[str, ...], seed: int) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    element = symmetry.sample(spec, NETS, kinds, generator, dtype=torch.float64)
    return symmetry.apply(element, weights, spec)
