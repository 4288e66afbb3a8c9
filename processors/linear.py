"""Equivariant linear layers on weight spaces: one rule builds them for every group.

The rule. An axis is a *set* axis where the group acts on it, else *free* (a feature).
A linear equivariant map between two tensors is a sum of terms, one for each choice of
which set axes that both have it *keeps*: the source is pooled over its other set axes,
its features are mixed by a full matrix, and the result is broadcast over the target's
other set axes. Where the group also multiplies neurons by factors, the axes carry
charges (see `Slot`), and a term survives only if it keeps every charged axis and the
charges agree: sums over factors and copies of them are not equivariant. A target
without charges has a constant, one value of each feature.

So all terms that keep the same axes read the same pooled tensors and are one matrix
product: a layer is as many products as there are kinds of axes to keep.

Source: Navon et al. 2023, DWSNets, Tables 5-9; Zhou et al. 2023, NFN, Eq. 3 and App. A;
Tran et al. 2024, Monomial-NFN, App. C and D; these are the rule spelled out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import sqrt
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from processors import base
from processors.base import Slot
from processors.matrices import rectified
from processors.pool import Pooled, check_pool
from zoo import NetworkSpec, Weights


@dataclass(frozen=True)
class Term:
    """Pool `source` to the axes `kept`, mix its features, broadcast to `target`."""

    source: str
    target: str
    kept: tuple[int, ...]


def terms(spec: NetworkSpec, group: str) -> tuple[Term, ...]:
    """A basis of the group's equivariant linear maps, up to the mixing of features.

    `pointwise` has no pooling and no mixing of tensors, as NFN's ablation.

    >>> len(terms(NetworkSpec.mlp([2, 3, 4, 1]), "mono-relu"))
    8
    """
    slots = base.slots(spec, group)
    if group == "pointwise":
        return tuple(Term(slot.name, slot.name, slot.sets) for slot in slots)
    return tuple(
        Term(source.name, target.name, kept)
        for target in slots
        for source in slots
        for kept in _kept(source, target)
    )


def _kept(source: Slot, target: Slot) -> list[tuple[int, ...]]:
    """The choices of axes to keep that the group allows."""
    shared = [axis for axis in target.sets if axis in source.sets]
    choices = [kept for count in range(len(shared) + 1) for kept in combinations(shared, count)]
    both = {*source.sets, *target.sets}
    return [
        kept
        for kept in choices
        if all(
            source.charge(axis) == target.charge(axis) and (axis in kept or not source.charge(axis))
            for axis in both
        )
    ]


def _kinds(term: Term) -> str:
    return term.source[0] + term.target[0]


def _meet(term: Term, spec: NetworkSpec) -> bool:
    axes = {slot.name: slot.axes for slot in base.slots(spec, "hnp")}
    return not set(axes[term.source]).isdisjoint(axes[term.target])


def _last_pointwise(term: Term, spec: NetworkSpec) -> bool:
    last = len(spec.layers) - 1
    return (term.source, term.target) == (f"bias_{last - 1}", f"weight_{last}") and bool(term.kept)


# Published restrictions, by name: which terms they keep.
BLOCKS: dict[str, Callable[[Term, NetworkSpec], bool]] = {
    "all": lambda term, spec: True,
    # DWSNets, Table 10. "Diagonal": tensors that have a layer of neurons in common.
    "b2b": lambda term, spec: _kinds(term) == "bb",
    "w2w": lambda term, spec: _kinds(term) == "ww",
    "both": lambda term, spec: _kinds(term) in ("ww", "bb"),
    "diagonal": _meet,
    # The released HNPLinear of NFN, whose other parameters beyond these are redundant.
    "nfn-hnp": lambda term, spec: not _last_pointwise(term, spec),
}


class Part(NamedTuple):
    """What is added to the folded `target`, broadcast over its set axes but `kept`."""

    target: str
    kept: tuple[int, ...]
    tensor: Float[Tensor, "net *kept feature"]


@dataclass(frozen=True)
class _Product:
    """All terms that keep the same axes, and where their features lie in the matrix."""

    kept: tuple[int, ...]
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    bias: bool


def _products(slots: tuple[Slot, ...], chosen: list[Term], bias: bool) -> list[_Product]:
    """The fewest products of the terms, those that keep less first."""
    grouped: dict[tuple[tuple[int, ...], tuple[str, ...], bool], list[str]] = {}
    for slot in slots:
        mine = [term for term in chosen if term.target == slot.name]
        kinds = sorted({term.kept for term in mine}, key=len) or [()]
        for kept in kinds:
            sources = tuple(term.source for term in mine if term.kept == kept)
            # The constants ride on the smallest product of their target.
            constant = bias and not slot.charged and kept == kinds[0]
            grouped.setdefault((kept, sources, constant), []).append(slot.name)
    found = [_Product(k, s, tuple(names), c) for (k, s, c), names in grouped.items()]
    return sorted(found, key=lambda product: len(product.kept))


class _Mixing(nn.Linear):
    """A product's matrix and constants, drawn by the layer that knows the fan-in."""

    def reset_parameters(self) -> None:
        pass


def _spread(
    tensor: Float[Tensor, "net *kept feature"], kept: tuple[int, ...], wider: tuple[int, ...]
) -> Float[Tensor, "net *wider feature"]:
    """The tensor with axes of length 1 where `wider` has more."""
    for place, axis in enumerate(wider):
        if axis not in kept:
            tensor = tensor.unsqueeze(1 + place)
    return tensor


def _sum(parts: dict[tuple[int, ...], Tensor], slot: Slot) -> Float[Tensor, "net *sets feature"]:
    """The sum of a target's parts, from those that keep less to those that keep more.

    Small parts are added to each other first, so that few adds are of full size.
    """
    pending: dict[tuple[int, ...], Tensor] = {}
    for kept, part in sorted(parts.items(), key=lambda item: len(item[0])):
        for smaller in [other for other in pending if set(other) <= set(kept)]:
            spread = _spread(pending.pop(smaller), smaller, kept)
            # A part that keeps two axes has a product of its own: nobody else holds it.
            part = part.add_(spread) if len(kept) == 2 else part + spread
        pending[kept] = part
    first, *others = [_spread(part, kept, slot.sets) for kept, part in pending.items()]
    total = sum(others, start=first)
    lengths = [slot.sizes[slot.axes.index(axis)] for axis in slot.sets]
    whole = (*total.shape[:1], *lengths, *total.shape[-1:])
    # No view of a whole tensor: what is none may be overwritten by what comes next.
    return total if total.shape == whole else total.expand(whole)


def _relu(tensor: Tensor) -> Tensor:
    """In place, unless it is a view: broadcast, or a part of others."""
    return tensor.relu() if tensor._is_view() or torch.compiler.is_compiling() else tensor.relu_()


def _rows_and_columns(
    parts: dict[tuple[int, ...], Tensor], slot: Slot, matrix: Tensor, shift: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """What is added to each row and to each column of a matrix; all else goes to the smaller."""
    rows, columns = (parts.get((axis,)) for axis in slot.sets)
    if () in parts:
        all_of_it = parts[()][:, None]
        rows = all_of_it if rows is None else rows + all_of_it
    if shift is not None:
        shift = shift.view(*(1,) * (4 - shift.ndim), *shift.shape)
        if shift.shape[1] == 1:
            columns = shift[:, 0] if columns is None else columns + shift[:, 0]
        else:
            rows = shift[:, :, 0] if rows is None else rows + shift[:, :, 0]
    nets, first, second = matrix.shape[:3]
    return (
        None if rows is None else rows.expand(nets, first, -1),
        None if columns is None else columns.expand(nets, second, -1),
    )


class EquivariantLinear(nn.Module):
    """The complete equivariant affine layer of a group, `Weights` to `Weights`.

    Args:
        spec: of the networks that come in, L >= 2 layers.
        group: one of `processors.base.GROUPS`.
        chan_in, chan_out: channels of biases; weights have `weight_channels`.
        pool: "mean", "sum" or "max". The monomial groups pool nothing.
        bias: whether there are constants, one for each orbit.
        blocks: "all", a name in `BLOCKS`, or a function that says which terms to keep.

    Attributes:
        terms: the terms in use; `block(term)` is a term's matrix, a view.
        products: one `nn.Linear` for each product.

    Initially everything is U(-r, r), r = 1/sqrt(total fan-in of the target), as in
    NFN's code.

    Raises:
        ValueError: for an unknown group, pool or name of blocks, or a single layer.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        group: str,
        chan_in: int,
        chan_out: int,
        pool: str = "mean",
        bias: bool = True,
        blocks: str | Callable[[Term], bool] = "all",
    ):
        super().__init__()
        check_pool(pool)
        if len(spec.layers) < 2:
            raise ValueError(f"expected networks of at least 2 layers, got {spec.widths}")
        if isinstance(blocks, str) and blocks not in BLOCKS:
            raise ValueError(f"unknown blocks {blocks!r}; known: {', '.join(BLOCKS)}")
        self.spec, self.group, self.pool, self.blocks = spec, group, pool, blocks
        self.chan_in, self.chan_out = chan_in, chan_out
        self._slots = base.slots(spec, group)
        self.terms = tuple(
            term
            for term in terms(spec, group)
            if (BLOCKS[blocks](term, spec) if isinstance(blocks, str) else blocks(term))
        )
        self._wide_in = {slot.name: slot.features(chan_in) for slot in self._slots}
        self._wide_out = {slot.name: slot.features(chan_out) for slot in self._slots}
        self._products = _products(self._slots, list(self.terms), bias)
        self.products = nn.ModuleList(
            _Mixing(
                sum(self._wide_in[name] for name in product.sources),
                sum(self._wide_out[name] for name in product.targets),
                bias=product.bias,
            )
            for product in self._products
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters anew."""
        fan_in = {slot.name: 0 for slot in self._slots}
        for term in self.terms:
            fan_in[term.target] += self._wide_in[term.source]
        with torch.no_grad():
            for product, linear in self._each():
                start = 0
                for name in product.targets:
                    rows = slice(start, start + self._wide_out[name])
                    bound = 1 / sqrt(max(fan_in[name], 1))
                    for parameter in linear.parameters():
                        parameter[rows].uniform_(-bound, bound)
                    start = rows.stop

    def _each(self) -> list[tuple[_Product, _Mixing]]:
        return list(zip(self._products, self.products, strict=True))  # type: ignore[arg-type]

    def block(self, term: Term) -> Float[Tensor, "feature_out feature_in"]:
        """The matrix of one term: a view, to look at or to initialise in place."""
        for product, linear in self._each():
            if product.kept != term.kept:
                continue
            if term.source in product.sources and term.target in product.targets:
                row, column = product.targets.index(term.target), product.sources.index(term.source)
                top = sum(self._wide_out[name] for name in product.targets[:row])
                left = sum(self._wide_in[name] for name in product.sources[:column])
                high, wide = self._wide_out[term.target], self._wide_in[term.source]
                return linear.weight[top : top + high, left : left + wide]
        raise ValueError(f"no such term: {term}")

    def product(self, term: Term) -> nn.Linear:
        """The map that a term is part of, or all of: `kept` has two axes for one tensor alone."""
        for product, linear in self._each():
            sides = term.source in product.sources and term.target in product.targets
            if sides and product.kept == term.kept:
                return linear
        raise ValueError(f"no such term: {term}")

    def forward(
        self, weights: Weights | Pooled, pooled: Pooled | None = None, more: Sequence[Part] = ()
    ) -> Weights:
        """The layer's output, in the input's order of axes.

        Args:
            weights: or what `rectified` of the layer before gives, all of it.
            pooled: of these weights, if others pool them too.
            more: parts of the output that come from elsewhere; to add them here, where
                they are small, costs less than to add them to the output.
        """
        if isinstance(weights, Pooled):
            return self.combine(weights, more)
        base.check(weights, self._slots, self.chan_in)
        if pooled is None:
            pooled = Pooled(self._slots, weights.tensors(), self.pool, both=True)
        return self.combine(pooled, more)

    def combine(self, pooled: Pooled, more: Sequence[Part] = ()) -> Weights:
        """As `forward`, of weights that nobody but `pooled` has to know."""
        parts = self._parts(pooled, self._each())
        for name, kept, part in more:
            mine = parts[name]
            mine[kept] = part if kept not in mine else mine[kept] + part
        return base.rebuild(
            {slot.name: slot.unfold(_sum(parts[slot.name], slot)) for slot in self._slots}
        )

    def rectified(self, x: Weights | Pooled, whole: bool = True) -> Weights | Pooled:
        """ReLU of the layer's output, with the pools that the next layer asks for, if that pays.

        Args:
            x: weights, or as much of them as is known.
            whole: whether anything but pools is asked of tensors with two set axes.
        """
        if isinstance(x, Weights):
            base.check(x, self._slots, self.chan_in)
            x = Pooled(self._slots, x.tensors(), self.pool, both=True)
        if self.pool == "max" or torch.is_autocast_enabled(x.device.type):
            return self.combine(x).map(_relu)
        matrices, others = {}, []
        for product, linear in self._each():
            if len(product.kept) == 2:
                matrices[product.targets[0]] = linear
            else:
                others.append((product, linear))
        parts = self._parts(x, others)
        known: dict[tuple[str, tuple[int, ...]], Tensor] = {}
        for slot in self._slots:
            mine = parts[slot.name]
            if slot.name not in matrices:
                known[slot.name, slot.sets] = _relu(_sum(mine, slot))
                continue
            tensor, weight, shift, lifted = x.matrix(matrices[slot.name], slot.name)
            added = _rows_and_columns(mine, slot, tensor, shift)
            found, *sums = rectified(tensor, weight, *added, whole=whole, lifted=lifted)
            if found is not None:
                known[slot.name, slot.sets] = found
            for place, total in enumerate(sums):
                pooled = total / tensor.shape[2 - place] if self.pool == "mean" else total
                known[slot.name, slot.sets[place : place + 1]] = pooled
        return Pooled.known(self._slots, known, self.pool)

    def _parts(
        self, pooled: Pooled, products: Sequence[tuple[_Product, _Mixing]]
    ) -> dict[str, dict[tuple[int, ...], Tensor]]:
        """What these products add to each folded target, by the axes that they keep."""
        parts: dict[str, dict[tuple[int, ...], Tensor]] = {slot.name: {} for slot in self._slots}
        for product, linear in products:
            y = pooled.mix(linear, product.sources, product.kept)
            pieces = y.split([self._wide_out[name] for name in product.targets], dim=-1)
            if len(pieces) == 1:
                pieces = (y,)  # not a view, so that adding to it in place is cheap
            for name, piece in zip(product.targets, pieces, strict=True):
                parts[name][product.kept] = piece
        return parts

    def extra_repr(self) -> str:
        blocks = self.blocks if isinstance(self.blocks, str) else "chosen"
        return (
            f"{self.spec.widths}, {self.group!r}, {self.chan_in} -> {self.chan_out}, "
            f"pool={self.pool!r}, blocks={blocks!r}"
        )
