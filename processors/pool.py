"""Pools tensors over their set axes: the invariants of a network, `net feature`.

`Pooled` computes each pooled tensor once, for whoever asks; an equivariant layer takes
its inputs from it. `InvariantPool` keeps no set axis at all, and so is invariant.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from processors import base
from processors.base import Slot
from processors.matrices import Lifted, joined
from processors.sizes import POOLS
from zoo import NetworkSpec, Weights


def check_pool(pool: str) -> None:
    """Raise `ValueError` unless the pool is one of `POOLS`."""
    if pool not in POOLS:
        raise ValueError(f"unknown pool {pool!r}; known: {', '.join(POOLS)}")


class Pooled:
    """Folded tensors, pooled to any of their set axes; each result is computed once.

    Args:
        both: pool tensors of two set axes over both at once: for those who want the
            tensor itself and both pools, backward takes fewer passes.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        tensors: Mapping[str, Tensor],
        pool: str,
        both: bool = False,
    ):
        self._begin(
            slots, {(slot.name, slot.sets): slot.fold(tensors[slot.name]) for slot in slots}, pool
        )
        if both and pool == "max" and not torch.compiler.is_compiling():
            for slot in slots:
                if len(slot.sets) == 2:
                    first, second = slot.sets
                    whole = self._known[slot.name, slot.sets]
                    found = _MaxBoth.apply(whole)  # type: ignore[no-untyped-call]
                    for kept, tensor in zip((slot.sets, (second,), (first,)), found, strict=True):
                        self._known[slot.name, kept] = tensor

    @classmethod
    def known(
        cls, slots: Sequence[Slot], known: dict[tuple[str, tuple[int, ...]], Tensor], pool: str
    ) -> "Pooled":
        """Of which some pools are known already, by tensor and by the axes that they keep."""
        found = cls.__new__(cls)
        found._begin(slots, known, pool)
        return found

    def _begin(
        self, slots: Sequence[Slot], known: dict[tuple[str, tuple[int, ...]], Tensor], pool: str
    ) -> None:
        self.slots, self.pool, self._known = tuple(slots), pool, known
        self._sets = {slot.name: slot.sets for slot in slots}

    @property
    def device(self) -> torch.device:
        return next(iter(self._known.values())).device

    def weights(self) -> Weights:
        """The tensors, none of them pooled."""
        return base.rebuild(
            {slot.name: slot.unfold(self(slot.name, slot.sets)) for slot in self.slots}
        )

    def __call__(self, name: str, kept: tuple[int, ...]) -> Float[Tensor, "net *kept feature"]:
        """The tensor pooled over all its set axes but `kept`."""
        if (name, kept) not in self._known:
            sets = self._sets[name]
            # One axis at a time: the pool of both axes starts from that of one.
            dropped = next(axis for axis in reversed(sets) if axis not in kept)
            wider = tuple(axis for axis in sets if axis in kept or axis == dropped)
            whole = self(name, wider)
            self._known[name, kept] = _reduce(whole, 1 + wider.index(dropped), self.pool)
        return self._known[name, kept]

    def mix(
        self, linear: nn.Linear, names: Sequence[str], kept: tuple[int, ...]
    ) -> Float[Tensor, "net *kept feature"]:
        """A linear map of the tensors, side by side, each pooled to `kept`."""
        inputs = [self(name, kept) for name in names]
        if not inputs:  # constants alone
            some = next(iter(self._known.values()))
            inputs = [some.new_zeros(len(some), 0)]
        elsewhere = inputs[0].device.type != "cpu"
        if len(inputs) == 1 and (elsewhere or len(linear.weight) > 1):
            mixed: Tensor = linear(inputs[0])
            return mixed
        if elsewhere:  # a copy of what is pooled costs less than launches
            mixed = linear(torch.cat(inputs, dim=-1))
            return mixed
        widths = [x.shape[-1] for x in inputs]
        starts = [sum(widths[:number]) for number in range(len(widths))]
        return joined(inputs, linear.weight, starts, linear.bias)

    def matrix(self, linear: nn.Linear, name: str) -> "Matrix":
        """What a layer makes of a tensor of two set axes, but for what it adds."""
        return Matrix(self(name, self._sets[name]), linear.weight, linear.bias)


class Matrix(NamedTuple):
    """A tensor of two set axes and the map that is to be applied, see `matrices.rectified`.

    Attributes:
        shift: what is added, with axes of length 1 where it is the same for all.
    """

    tensor: Float[Tensor, "net first second feature"]
    weight: Tensor | None
    shift: Tensor | None
    lifted: Lifted | None = None


def _reduce(tensor: Tensor, dim: int, pool: str) -> Tensor:
    if pool == "max":
        if torch.compiler.is_compiling():
            return tensor.amax(dim)
        return _Max.apply(tensor, dim)  # type: ignore[no-untyped-call,no-any-return]
    total = tensor.sum(dim)
    # Not `mean`: its gradient divides at full size, this one's at the pooled size.
    return total / tensor.shape[dim] if pool == "mean" else total


def largest(tensor: Tensor, dim: int) -> Tensor:
    """`amax` over an axis that is not negative, exactly; without a gradient.

    On a CPU torch goes one by one through rows of 2 to 31 entries: the larger ones of two
    halves, and so on, are found four to thirty times as fast.
    """
    if tensor.device.type != "cpu" or not 1 < tensor.shape[dim + 1 :].numel() < 32:
        return tensor.amax(dim)
    while (length := tensor.shape[dim]) > 1:
        half = length // 2
        rest = tensor.narrow(dim, 2 * half, length % 2)
        tensor = torch.maximum(tensor.narrow(dim, 0, half), tensor.narrow(dim, half, half))
        if length % 2:
            tensor = torch.cat([tensor, rest], dim)
    return tensor.squeeze(dim)


class _Max(torch.autograd.Function):
    """`amax`, whose backward counts ties in floating point: four times as fast on a CPU.

    Like `amax` it shares the gradient among equal entries, which ReLU makes frequent.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(tensor: Tensor, dim: int) -> Tensor:
        return largest(tensor, dim)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
        tensor, ctx.dim = inputs
        ctx.save_for_backward(tensor, output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        tensor, output = ctx.saved_tensors
        # Written as numbers at once: to sum or convert booleans takes most of amax's time.
        chosen = torch.empty_like(tensor, requires_grad=False)
        torch.eq(tensor.detach(), output.detach().unsqueeze(ctx.dim), out=chosen)
        share = grad / chosen.sum(ctx.dim)
        return chosen * share.unsqueeze(ctx.dim), None


class _MaxBoth(torch.autograd.Function):
    """A tensor, and its `amax` over axis 1 and over axis 2, each as `_Max`.

    Backward adds up all three gradients while it computes them.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        tensor: Float[Tensor, "net first second feature"],
    ) -> tuple[Tensor, Tensor, Tensor]:
        return tensor.view_as(tensor), largest(tensor, 1), largest(tensor, 2)

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor, Tensor]
    ) -> None:
        ctx.save_for_backward(*inputs, *output[1:])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Tensor | None:
        tensor, *pools = ctx.saved_tensors
        total, *parts = grads
        chosen = torch.empty_like(tensor, requires_grad=False)
        for dim, (pool, grad) in enumerate(zip(pools, parts, strict=True), 1):
            if grad is None:
                continue
            if torch.is_grad_enabled():
                chosen = torch.empty_like(chosen)  # the graph of backward keeps the last
            torch.eq(tensor.detach(), pool.detach().unsqueeze(dim), out=chosen)
            share = (grad / chosen.sum(dim)).unsqueeze(dim)
            if total is None:
                total = chosen * share
            elif total is grads[0]:
                # Not in place: the gradient that came in belongs to others.
                total = torch.addcmul(total, chosen, share)
            else:
                total = total.addcmul_(chosen, share)
        return total


class InvariantPool(nn.Module):
    """All tensors pooled over all their set axes, side by side in storage order.

    Under `hnp` the first weight is pooled over its rows, the last over its columns,
    those between over both, biases over their neurons, and the last bias is kept:
    chan * (2 L - 3 + n_0 + 2 n_L) features, plus taps. NFN uses it for NP too. Under
    `np` inputs and outputs are pooled as well, 2 L chan features.

    Attributes:
        features: the length of the vector.

    Raises:
        ValueError: for another group or an unknown pool. Under the monomial groups no
            pool is invariant: make the entries invariant first, then pool under `hnp`.

    Source: DWSNets, Sec. 5 (invariant layer); NFN, `HNPPool` and `NPPool`.
    """

    def __init__(self, spec: NetworkSpec, group: str, chan: int, pool: str = "mean"):
        super().__init__()
        base.check_group(group, ("hnp", "np"))
        check_pool(pool)
        self.spec, self.group, self.chan, self.pool = spec, group, chan, pool
        self._slots = base.slots(spec, group)
        self.features = sum(slot.features(chan) for slot in self._slots)

    def forward(self, weights: Weights | Pooled) -> Float[Tensor, "net feature"]:
        """The invariants of each network.

        Of weights some of whose pools are known, by the same pool, under this group or a larger
        one, no other is computed.
        """
        if isinstance(weights, Pooled):
            pooled = weights
        else:
            base.check(weights, self._slots, self.chan)
            pooled = Pooled(self._slots, weights.tensors(), self.pool)
        larger = {slot.name: slot.sets for slot in pooled.slots}
        found = []
        for slot in self._slots:
            free = tuple(axis for axis in larger[slot.name] if axis not in slot.sets)
            found.append(pooled(slot.name, free).flatten(1))
        return torch.cat(found, dim=-1)

    def extra_repr(self) -> str:
        return f"{self.spec.widths}, {self.group!r}, chan={self.chan}, pool={self.pool!r}"
