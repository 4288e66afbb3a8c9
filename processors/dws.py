"""DWSNets: equivariant layers of set attention or DeepSets, with max pools.

A layer is a sum of blocks, one from each tensor to each tensor, divided by their number:

    no set axis in common    pool all, linear, broadcast
    one                      pool the other, set attention or DeepSets along it, broadcast
    two                      the two-set layer of Hartford et al. 2018

All linear blocks together are one `EquivariantLinear`, which has one bias an orbit where
the released code has one a block; all attention along an axis is one `SetAttention`.

Source: Navon et al. 2023, DWSNets, Sec. 5 and App. J. The published numbers come from set
attention: with it the counts of parameters match the paper, with DeepSets they do not.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from processors import base
from processors.attention import SetAttention, xavier_
from processors.base import Slot
from processors.encode import Normalise, drop_channel, lift
from processors.linear import BLOCKS, EquivariantLinear, Part, Term
from processors.pointwise import Activation, BatchNorm, Dropout
from processors.pool import InvariantPool, Pooled
from processors.sizes import VARIANTS
from zoo import NetworkSpec, Weights

# What networks with more inputs than _WIDE are reduced to by default (App. J).
_WIDE, _REDUCED = 64, 16
_BIAS = 1e-4


def _shared(source: Slot, target: Slot) -> tuple[int, ...]:
    return tuple(axis for axis in target.sets if axis in source.sets)


class _ScaledLinear(nn.Module):
    """All linear blocks, each with its published initialisation and factor.

    The factors, 1 / (2 L) and for two-set blocks another quarter, multiply the
    parameters: these are fewer than the entries. They are not taken into the
    initialisation, since a step of Adam is as long for small weights.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        inp: int,
        out: int,
        pool: str,
        mu: float,
        blocks: Callable[[Term], bool],
    ):
        super().__init__()
        self.linear = EquivariantLinear(spec, "hnp", inp, out, pool=pool, blocks=blocks)
        slots = {slot.name: slot for slot in base.slots(spec, "hnp")}
        with torch.no_grad():
            for parameter in self.linear.parameters():
                parameter.fill_(1 / len(slots))
            for term in self.linear.terms:
                if len(_shared(slots[term.source], slots[term.target])) == 2:
                    self.linear.block(term).mul_(1 / 4)
            for name, parameter in self.linear.named_parameters():
                self.register_buffer(_factor(name), parameter.clone(), persistent=False)
                nn.init.uniform_(parameter, -_BIAS, _BIAS)
            for term in self.linear.terms:
                xavier_(self.linear.block(term), mu)

    def forward(self, x: Weights, pooled: Pooled, more: Sequence[Part] = ()) -> Weights:
        scaled = {
            name: parameter * getattr(self, _factor(name))
            for name, parameter in self.linear.named_parameters()
        }
        found: Weights = functional_call(self.linear, scaled, (x, pooled, more))
        return found


def _factor(name: str) -> str:
    return "factor_" + name.replace(".", "_")


class _AxisAttention(nn.Module):
    """All attention blocks of one layer, along each axis between the tensors that have it."""

    def __init__(
        self,
        spec: NetworkSpec,
        inp: int,
        out: int,
        heads: int,
        mu: float,
        blocks: Callable[[Slot, Slot], bool],
    ):
        super().__init__()
        self._slots = base.slots(spec, "hnp")
        self.axes: list[int] = []
        self._sources: list[list[Slot]] = []
        self._targets: list[list[Slot]] = []
        self.attention = nn.ModuleList()
        for axis in range(1, len(spec.layers)):
            pairs = [
                (source, target)
                for source in self._slots
                for target in self._slots
                if _shared(source, target) == (axis,) and blocks(source, target)
            ]
            if not pairs:
                continue
            sources = [slot for slot in self._slots if any(slot is s for s, _ in pairs)]
            targets = [slot for slot in self._slots if any(slot is t for _, t in pairs)]
            self.axes.append(axis)
            self._sources.append(sources)
            self._targets.append(targets)
            self.attention.append(
                SetAttention(
                    [slot.features(inp) for slot in sources],
                    [slot.features(out) for slot in targets],
                    {(sources.index(s), targets.index(t)) for s, t in pairs},
                    heads=heads,
                    mu=mu,
                )
            )

    def forward(self, pooled: Pooled) -> list[Part]:
        """For each axis and each tensor that has it, the sum of the blocks."""
        parts = []
        for axis, sources, targets, attention in zip(
            self.axes, self._sources, self._targets, self.attention, strict=True
        ):
            found = attention([pooled(slot.name, (axis,)) for slot in sources])
            for slot, part in zip(targets, found, strict=True):
                parts.append(Part(slot.name, (axis,), part / len(self._slots)))
        return parts


class DWSLayer(nn.Module):
    """One DWSNets layer, `Weights` to `Weights`, equivariant under `hnp`.

    Args:
        inp, out: channels of biases; weights have `base.weight_channels`.
        variant: "attention" or "deepsets".
        heads: of the attention.
        mu: of the initialisation, see `attention.xavier_`.
        blocks: "all", or "b2b", "w2w", "both", "diagonal" of the ablation (Table 10).

    Raises:
        ValueError: for an unknown variant or name of blocks.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        inp: int,
        out: int,
        variant: str = "attention",
        pool: str = "max",
        heads: int = 8,
        mu: float = 1.0,
        blocks: str = "all",
    ):
        super().__init__()
        if variant not in VARIANTS:
            raise ValueError(f"unknown variant {variant!r}; known: {', '.join(VARIANTS)}")
        if blocks not in BLOCKS:
            raise ValueError(f"unknown blocks {blocks!r}; known: {', '.join(BLOCKS)}")
        self._slots, self.pool = base.slots(spec, "hnp"), pool
        slots = {slot.name: slot for slot in self._slots}

        def attends(source: Slot, target: Slot) -> bool:
            return variant == "attention" and len(_shared(source, target)) == 1

        def is_linear(term: Term) -> bool:
            kept = BLOCKS[blocks](term, spec)
            return kept and not attends(slots[term.source], slots[term.target])

        def is_attention(source: Slot, target: Slot) -> bool:
            kept = BLOCKS[blocks](Term(source.name, target.name, _shared(source, target)), spec)
            return kept and attends(source, target)

        self.linear = _ScaledLinear(spec, inp, out, pool, mu, is_linear)
        self.attention = None
        if variant == "attention":
            self.attention = _AxisAttention(spec, inp, out, heads, mu, is_attention)

    def forward(self, x: Weights) -> Weights:
        # Pooled once, for linear and attention blocks.
        pooled = Pooled(self._slots, x.tensors(), self.pool, both=True)
        more = [] if self.attention is None else self.attention(pooled)
        y: Weights = self.linear(x, pooled, more)
        return y


class ReducedLayer(nn.Module):
    """A layer on networks with fewer inputs: n_0 -> `reduced` -> n_0, and a skip on W_1.

    The maps of the inputs and the skip, of the channels, are linear.

    Source: Navon et al. 2023, App. J. The released code takes a DeepSets layer with an
    attention pool in place of each map, twice the parameters.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        inp: int,
        out: int,
        reduced: int,
        make: Callable[[NetworkSpec], nn.Module],
        mu: float = 1.0,
    ):
        """`make(spec)` gives the layer of the networks with fewer inputs."""
        super().__init__()
        first = replace(spec.layers[0], inp=reduced)
        smaller = replace(spec, layers=(first, *spec.layers[1:]), coord_order=None, frequencies=())
        taps = base.taps(spec)[0]
        self.down = nn.Linear(spec.inp, reduced)
        self.layer = make(smaller)
        self.up = nn.Linear(reduced, spec.inp)
        self.skip = nn.Linear(inp * taps, out * taps)
        for linear in (self.down, self.up, self.skip):
            # Only what leads to the output parametrises a network, but a skip that is
            # larger than the layer it skips would be all there is.
            xavier_(linear.weight, mu if linear is self.skip else 1.0)
            nn.init.uniform_(linear.bias, -_BIAS, _BIAS)

    def forward(self, x: Weights) -> Weights:
        first = x.weights[0]
        small = self.down(first.transpose(2, 3)).transpose(2, 3)
        y = self.layer(Weights((small, *x.weights[1:]), x.biases))
        large = self.up(y.weights[0].transpose(2, 3)).transpose(2, 3)
        return Weights((large + self.skip(first), *y.weights[1:]), y.biases)


class DWSNet(nn.Module):
    """A DWSNet of plain weights: invariant, or an editor of networks.

    Layers with BatchNorm, ReLU and dropout between them; then ReLU, dropout, the
    invariant pool and one linear map, or one channel that is added to the networks.

    Args:
        out: length of the output; None to edit, `Weights` to `Weights`.
        variant, pool, blocks: see `DWSLayer`.
        chan, layers: of the equivariant layers; the paper's "4 hidden layers" are 5.
        heads: of the attention; 1 in the last layer, as in the released code.
        norm: BatchNorm over channels, for each tensor.
        reduced: what wide inputs are reduced to; None for 16 if there are more than 64,
            0 for never.
        mu: of the initialisation; None for 1, or 1e-3 to edit.
        stats, statistics: see `processors.Normalise`.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        out: int | None = 10,
        variant: str = "attention",
        chan: int = 32,
        layers: int = 5,
        heads: int = 8,
        pool: str = "max",
        norm: bool = True,
        dropout: float = 0.0,
        reduced: int | None = None,
        mu: float | None = None,
        blocks: str = "all",
        stats: Mapping[str, Tensor] | None = None,
        statistics: str = "entry",
    ):
        super().__init__()
        if layers < 1:
            raise ValueError(f"expected at least one layer, got {layers}")
        if mu is None:
            mu = 1e-3 if out is None else 1.0
        if reduced is None:
            reduced = _REDUCED if spec.inp > _WIDE else 0
        self.spec, self.out = spec, out
        self.resolved = {"mu": mu, "reduced": reduced}
        self.normalise = Normalise(spec, stats, statistics)
        parts: list[nn.Module] = []
        for number in range(layers):
            last = number == layers - 1
            before = chan if number else 1
            after = 1 if last and out is None else chan

            def make(
                inner: NetworkSpec, before: int = before, after: int = after, last: bool = last
            ) -> nn.Module:
                count = 1 if last else heads
                return DWSLayer(inner, before, after, variant, pool, count, mu, blocks)

            parts.append(
                ReducedLayer(spec, before, after, reduced, make, mu) if reduced else make(spec)
            )
            if not last:
                # Of two modules, whatever does the work, as checkpoints number them.
                parts += [BatchNorm(spec, chan, relu=True)] if norm else []
                parts += [Activation("identity" if norm else "relu")]
                parts += [Dropout(dropout)] if dropout else []
        self.layers = nn.Sequential(*parts)
        if out is not None:
            self.relu, self.dropout = Activation("relu"), Dropout(dropout)
            self.pool = InvariantPool(spec, "hnp", chan, pool)
            self.head = nn.Linear(self.pool.features, out)

    def forward(self, weights: Weights) -> Float[Tensor, "net out"] | Weights:
        """`net out`, or edited networks."""
        features = self.layers(lift(self.normalise(weights)))
        if self.out is None:
            return weights.map(torch.add, drop_channel(features, self.spec))
        vectors: Tensor = self.head(self.pool(self.dropout(self.relu(features))))
        return vectors
