"""The contract of every processor: which group acts on a network, and how.

A processor maps `Weights` to `Weights` (equivariant) or to a vector `net feature`
(invariant) under one of `GROUPS`. g acts by W_i -> g_i W_i g_{i-1}^-1, b_i -> g_i b_i:

    hnp        permutations of the hidden neurons
    np         permutations of the hidden neurons, the inputs and the outputs
    mono-relu  permutations and positive scales of the hidden neurons
    mono-sin   permutations and signs of the hidden neurons
    pointwise  permutations of the entries of each tensor, whatever their neurons

Source: Zhou et al. 2023, NFN, Sec. 2 (NP, HNP); Navon et al. 2023, DWSNets, Sec. 3
(hnp); Tran et al. 2024, Monomial-NFN, Sec. 3 and 4.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor

from zoo import NetworkSpec, Weights, symmetry

GROUPS = ("hnp", "np", "mono-relu", "mono-sin", "pointwise")
# What zoo.symmetry has to draw for the hidden neurons.
_HIDDEN_KINDS = {
    "hnp": ("permutation",),
    "np": ("permutation",),
    "mono-relu": ("permutation", "scale"),
    "mono-sin": ("permutation", "sign"),
}


def check_group(group: str, known: tuple[str, ...] = GROUPS) -> None:
    """Raise `ValueError` unless the group is one of `known`."""
    if group not in known:
        raise ValueError(f"unknown group {group!r}; known: {', '.join(known)}")


def traced() -> bool:
    """Whether others trace what is done: they can neither see pieces nor gain from them."""
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()


def taps(spec: NetworkSpec) -> tuple[int, ...]:
    """Channels of each layer's raw weights: kh * kw of a conv layer, 1 of a linear one."""
    return tuple(prod(layer.kernel) for layer in spec.layers)


def weight_channels(spec: NetworkSpec, chan: int) -> tuple[int, ...]:
    """The length of `chan` of each layer's weights, where biases have `chan`.

    Taps are channels, `(chan kh kw)`, before and after every layer, as in NFN's code.

    >>> weight_channels(NetworkSpec.cnn([1, 16, 16], 10), 4)
    (36, 36, 4)
    """
    return tuple(chan * count for count in taps(spec))


@dataclass(frozen=True)
class Slot:
    """One tensor of a network as a group sees it.

    Axes are named by the layer of neurons they run over: layer l's weight has
    (l + 1, l), its bias (l + 1,). A *set* axis is one on which the group acts; the
    others are free: they are features, like channels.

    Attributes:
        name: as in `Weights.tensors`.
        axes: all axes but net and chan, in the tensor's order.
        sizes: their lengths.
        sets: the set axes, in the tensor's order.
        charges: of each set axis, how often its neuron's factor multiplies the tensor:
            1 on rows and -1 on columns for scales; for signs these are the same, 1.
        taps: of the kernel.
    """

    name: str
    axes: tuple[int, ...]
    sizes: tuple[int, ...]
    sets: tuple[int, ...]
    charges: tuple[int, ...]
    taps: int

    @property
    def charged(self) -> bool:
        return any(self.charges)

    def charge(self, axis: int) -> int:
        """The charge of an axis; 0 if it is free or absent."""
        return self.charges[self.sets.index(axis)] if axis in self.sets else 0

    def shape(self, chan: int) -> tuple[int, ...]:
        """The tensor's shape without net."""
        return (*self.sizes, self.taps * chan)

    def features(self, chan: int) -> int:
        """Features of each element: channels, taps and free axes together."""
        free = [
            size for axis, size in zip(self.axes, self.sizes, strict=True) if axis not in self.sets
        ]
        return prod(free) * self.taps * chan

    def fold(self, tensor: Float[Tensor, "net *axes chan"]) -> Float[Tensor, "net *sets feature"]:
        """The tensor with its free axes moved behind its sets, into the features."""
        if self.sets == self.axes:
            return tensor
        if self._flipped:
            tensor = tensor.transpose(1, 2)
        return tensor.flatten(1 + len(self.sets))

    def unfold(self, folded: Float[Tensor, "net *sets feature"]) -> Float[Tensor, "net *axes chan"]:
        """The inverse of `fold`, for any number of channels."""
        if self.sets == self.axes:
            return folded
        sizes = self.sizes[::-1] if self._flipped else self.sizes
        free = sizes[len(self.sets) :]
        tensor = folded.unflatten(-1, (*free, folded.shape[-1] // prod(free)))
        return tensor.transpose(1, 2) if self._flipped else tensor

    @property
    def _flipped(self) -> bool:
        """Whether the free axis stands before the set axis, as in the last weight."""
        return len(self.axes) == 2 and self.sets == self.axes[1:]


def slots(spec: NetworkSpec, group: str) -> tuple[Slot, ...]:
    """Every tensor of the network under the group, in storage order.

    Raises:
        ValueError: for an unknown group.
    """
    check_group(group)
    last = len(spec.layers)
    monomial = group.startswith("mono")
    column = -1 if group == "mono-relu" else 1  # signs are their own inverses

    def acts_on(axis: int) -> bool:
        if group == "pointwise":
            return True
        if axis in (0, last) and group != "np":
            return False
        # Permutations of a single neuron do nothing, so that keeping its axis and
        # pooling it would be the same map twice; factors still act on it.
        return monomial or spec.widths[axis] > 1

    found = []
    for name, shape in spec.tensors.items():
        kind, layer = name.split("_")
        axes = (int(layer) + 1, int(layer)) if kind == "weight" else (int(layer) + 1,)
        charge = dict(zip(axes, (1, column), strict=False))
        sets = tuple(axis for axis in axes if acts_on(axis))
        found.append(
            Slot(
                name=name,
                axes=axes,
                sizes=tuple(shape[: len(axes)]),
                sets=sets,
                charges=tuple(charge[axis] if monomial else 0 for axis in sets),
                taps=prod(shape[len(axes) :]),
            )
        )
    return tuple(found)


def check(weights: Weights, slots: tuple[Slot, ...], chan: int) -> None:
    """Raise `ValueError` unless the tensors have these shapes, with `chan` channels."""
    tensors = weights.tensors()
    if len(tensors) != len(slots):
        raise ValueError(f"expected {len(slots) // 2} layers, got {weights.layers}")
    for slot in slots:
        got = tuple(tensors[slot.name].shape)
        if got[1:] != slot.shape(chan):
            raise ValueError(
                f"{slot.name}: expected (net, {', '.join(map(str, slot.shape(chan)))}), got {got}; "
                "the last axis holds the channels, taps included, see weight_channels"
            )


@dataclass(frozen=True)
class Element:
    """One element of a processor's group for each network.

    Attributes:
        orders: of each tensor `net entry`, int64: entry e becomes the old entry
            order[e], entries counted in row-major order over out and inp.
        factors: of each tensor `net entry`; nonzero.
    """

    orders: dict[str, Tensor]
    factors: dict[str, Tensor]


def sample(
    spec: NetworkSpec,
    group: str,
    nets: int,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
) -> Element:
    """A random element of the group for each network.

    Raises:
        ValueError: for an unknown group.
    """
    check_group(group)
    orders, factors = {}, {}
    for name, neurons in _neurons(spec, group, nets, generator, dtype):
        order, factor = neurons[0]
        if len(neurons) == 2:
            inp_order, inp_factor = neurons[1]
            order = (order[:, :, None] * inp_order.shape[1] + inp_order[:, None, :]).flatten(1)
            factor = (factor[:, :, None] / inp_factor[:, None, :]).flatten(1)
        if group == "pointwise":
            order = torch.rand(order.shape, generator=generator).argsort(dim=1)
        orders[name], factors[name] = order, factor
    return Element(orders, factors)


def _neurons(
    spec: NetworkSpec, group: str, nets: int, generator: torch.Generator | None, dtype: torch.dtype
) -> Iterator[tuple[str, list[tuple[Tensor, Tensor]]]]:
    """Each tensor's name, and order and factor `net neuron` of each of its axes."""
    kinds = _HIDDEN_KINDS.get(group, ())
    hidden = symmetry.sample(spec, nets, kinds, generator=generator, dtype=dtype)
    acting = list(zip(hidden.permutations, hidden.factors, strict=True))
    ends = []
    for width in (spec.inp, spec.out):
        order = torch.arange(width).expand(nets, width)
        if group == "np":
            order = torch.rand(nets, width, generator=generator).argsort(dim=1)
        ends.append((order, torch.ones(nets, width, dtype=dtype)))
    acting = [ends[0], *acting, ends[1]]
    for slot in slots(spec, group):
        yield slot.name, [acting[axis] for axis in slot.axes]


def act(element: Element, weights: Weights) -> Weights:
    """The networks after the element has acted; any number of channels, or none."""
    moved = {}
    for name, tensor in weights.tensors().items():
        axes = 2 if name.startswith("weight") else 1
        entries = tensor.flatten(1, axes)
        order = element.orders[name].to(tensor.device)
        factor = element.factors[name].to(tensor)
        net = torch.arange(len(tensor), device=tensor.device)[:, None]
        shape = (*factor.shape, *(1 for _ in entries.shape[2:]))
        moved[name] = (entries[net, order] * factor.reshape(shape)).reshape(tensor.shape)
    return rebuild(moved)


def rebuild(named: dict[str, Tensor]) -> Weights:
    """The inverse of `Weights.tensors`, channels allowed."""
    layers = range(len(named) // 2)
    return Weights(
        weights=tuple(named[f"weight_{layer}"] for layer in layers),
        biases=tuple(named[f"bias_{layer}"] for layer in layers),
    )
