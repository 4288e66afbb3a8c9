"""Weight matching: permutes hidden neurons so that networks lie close to each other.

One hidden layer after the other takes the permutation that brings the network closest
to a reference, given those of its neighbours, until nothing changes. The products
are batched over networks; the assignments are scipy's, one for each network and layer.
10,000 networks 2-32-32-1 take some 5 s on one core.

Source: Ainsworth et al. 2022, Sec. 3.2 (matching) and A.7 (merging many), by the scheme
of Navon et al. 2023, App. J: a sample is aligned to its running mean, and then
everything to that mean.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from zoo import NetworkSpec, Weights, symmetry

# Parameters of the networks that are matched side by side, which bounds the memory.
_SIDE_BY_SIDE = 1 << 24

# The order of every layer of neurons, `net neuron`; None for inputs and outputs.
Orders: TypeAlias = list[Tensor | None]


@dataclass(frozen=True)
class Aligned:
    """Networks after weight matching.

    Attributes:
        weights: the permuted networks.
        element: the permutations, which `zoo.symmetry.apply` takes; factors are 1.
        reference: what they were aligned to, net = 1.
    """

    weights: Weights
    element: symmetry.Element
    reference: Weights


def _similarity(reference: Tensor, tensor: Tensor, axis: int) -> Float[Tensor, "net neuron neuron"]:
    """<reference's neuron i, network's neuron j>, over all other axes."""
    ours, theirs = (
        x.movedim(axis, 1).reshape(len(x), x.shape[axis], -1) for x in (tensor, reference)
    )
    # One reference for all networks is one product of matrices.
    return (ours @ (theirs[0] if len(theirs) == 1 else theirs).mT).mT


def _permute(tensor: Tensor, order: Tensor | None, axis: int) -> Tensor:
    if order is None:
        return tensor
    shape = [len(order)] + [1] * (tensor.ndim - 1)
    shape[axis] = order.shape[1]
    return tensor.take_along_dim(order.reshape(shape), dim=axis)


class _Scores:
    """What each pairing of a layer's neurons adds to the product with the reference.

    Inputs and outputs keep their order, so what comes in from those and what goes out
    to these is computed once.

    Attributes:
        hidden: the numbers of the layers that are matched.
        scale: the product of the two norms, `net`.
    """

    def __init__(self, weights: Weights, reference: Weights):
        self._weights, self._reference = weights, reference
        self.hidden = range(weights.layers - 1)
        self.scale = _norm(weights) * _norm(reference)
        last = weights.layers - 1
        first = _similarity(reference.weights[0], weights.weights[0], 1)
        self._fixed = {
            (0, 1): first + _similarity(reference.biases[0], weights.biases[0], 1),
            (last, 2): _similarity(reference.weights[last], weights.weights[last], 2),
        }

    def _part(
        self, layer: int, axis: int, order: Tensor | None, rows: Tensor
    ) -> Float[Tensor, "row neuron neuron"]:
        """Of one tensor, for the neurons along `axis`, those of its other axis in order."""
        if (layer, axis) in self._fixed:
            return self._fixed[layer, axis][rows]
        reference = self._reference
        if len(reference) > 1:
            reference = reference[rows]
        tensor = _permute(self._weights.weights[layer][rows], order, 3 - axis)
        score = _similarity(reference.weights[layer], tensor, axis)
        if axis == 1:
            biases = self._weights.biases[layer][rows]
            score = score + _similarity(reference.biases[layer], biases, 1)
        return score

    def incoming(
        self, layer: int, orders: Orders, rows: Int[Tensor, " row"]
    ) -> Float[Tensor, "row neuron neuron"]:
        """By the layer's own weights and biases, given the order of the layer before."""
        before = orders[layer]
        return self._part(layer, 1, None if before is None else before[rows], rows).double()

    def __call__(
        self, layer: int, orders: Orders, rows: Int[Tensor, " row"]
    ) -> Float[Tensor, "row neuron neuron"]:
        """By what comes in and what goes out, given the orders of both neighbours."""
        after = orders[layer + 2]
        outgoing = self._part(layer + 1, 2, None if after is None else after[rows], rows)
        return self.incoming(layer, orders, rows) + outgoing

    def product(self, orders: Orders) -> Float[Tensor, " net"]:
        """Of the permuted networks and the reference, but for the outputs' biases."""
        rows = torch.arange(len(self._weights))
        total = torch.zeros(len(rows), dtype=torch.float64)
        for layer in self.hidden:
            score = self if layer == self.hidden[-1] else self.incoming
            order = orders[layer + 1]
            assert order is not None
            total += _total(score(layer, orders, rows), order)
        return total


def _assign(score: Float[Tensor, "net neuron neuron"]) -> Int[Tensor, "net neuron"]:
    from scipy.optimize import linear_sum_assignment  # takes .3 s to load, for one model's sake

    return torch.from_numpy(
        np.stack([linear_sum_assignment(one, maximize=True)[1] for one in score.numpy()])
    )


def _from_the_inputs(scores: _Scores) -> Orders:
    """Layer by layer, by what comes in; what goes out counts once its order is known."""
    orders: Orders = [None] * (len(scores.hidden) + 2)
    rows = torch.arange(len(scores.scale))
    for layer in scores.hidden:
        score = scores if layer == scores.hidden[-1] else scores.incoming
        orders[layer + 1] = _assign(score(layer, orders, rows))
    return orders


def _descend(scores: _Scores, orders: Orders, sweeps: int, tolerance: float) -> Orders:
    """The orders after sweeps over all layers, each network until it gains no more.

    A layer whose neighbours have not moved since its last assignment is left out.
    """
    orders = [None if order is None else order.clone() for order in orders]
    enough = tolerance * scores.scale
    stale = [torch.ones(len(enough), dtype=torch.bool) for _ in scores.hidden]
    for _ in range(sweeps):
        for layer in scores.hidden:
            rows = stale[layer].nonzero()[:, 0]
            if not len(rows):
                continue
            stale[layer][:] = False
            order = orders[layer + 1]
            assert order is not None
            score = scores(layer, orders, rows)
            best = _assign(score)
            gain = _total(score, best) - _total(score, order[rows])
            # Ties and rounding are no reason to move.
            better = gain > enough[rows]
            moved = rows[better]
            order[moved] = best[better]
            for neighbour in (layer - 1, layer + 1):
                if neighbour in scores.hidden:
                    stale[neighbour][moved] = True
        if not any(rows.any() for rows in stale):
            break
    return orders


# Under autocast products of bfloat16 would order neurons by their rounding.
@torch.autocast("cpu", enabled=False)  # type: ignore[untyped-decorator]
def match(
    spec: NetworkSpec,
    weights: Weights,
    reference: Weights,
    sweeps: int = 100,
    tolerance: float = 1e-6,
) -> symmetry.Element:
    """The permutations that bring each network close to `reference`.

    Coordinate descent finds a local optimum, so it starts twice, from the network as it
    is and from a matching layer by layer from the inputs on, and each network keeps the
    better end. So the squared distance to the reference never grows, and a permuted copy
    of the reference is recognised.

    Args:
        reference: one network, or one for each.
        sweeps: over all layers, at most.
        tolerance: least gain of a layer, in units of the product of the two norms.

    Raises:
        ValueError: if the weights have channels, or `sweeps` is less than 1.
    """
    if any(bias.ndim != 2 for bias in weights.biases):
        raise ValueError("weight matching takes plain weights, without a channel axis")
    if sweeps < 1:
        raise ValueError(f"expected at least one sweep, got {sweeps}")
    # Assignments run on the CPU, and the products are too small to be worth a device.
    weights, reference = (w.map(lambda x: x.detach().cpu()) for w in (weights, reference))
    parts = [
        _match(spec, weights[some], reference[some] if len(reference) > 1 else reference,
               sweeps, tolerance)
        for some in torch.arange(len(weights)).split(max(1, _SIDE_BY_SIDE // spec.param_count))
    ]  # fmt: skip
    return symmetry.Element.permuting(torch.cat(orders) for orders in zip(*parts, strict=True))


def _match(
    spec: NetworkSpec, weights: Weights, reference: Weights, sweeps: int, tolerance: float
) -> tuple[Tensor, ...]:
    """The order of every hidden layer, see `match`."""
    scores = _Scores(weights, reference)
    as_it_is: Orders = [None, *symmetry.identity(spec, len(weights)).permutations, None]
    near, other = (
        _descend(scores, start, sweeps, tolerance) for start in (as_it_is, _from_the_inputs(scores))
    )
    # Not for a tie: a network that is aligned shall stay as it is.
    switch = scores.product(other) - scores.product(near) > tolerance * scores.scale
    return tuple(
        torch.where(switch[:, None], second, first)
        for first, second in zip(near, other, strict=True)
        if first is not None and second is not None
    )


def _total(score: Tensor, order: Tensor) -> Float[Tensor, " net"]:
    return score.gather(2, order[:, :, None]).sum(dim=(1, 2))


def _norm(weights: Weights) -> Float[Tensor, " net"]:
    return weights.flatten().norm(dim=1).double()


def mean_reference(
    spec: NetworkSpec,
    weights: Weights,
    rounds: int = 20,
    tolerance: float = 1e-3,
) -> Weights:
    """The mean of the networks after they have been aligned to it; net = 1.

    Starts from the first network. Each round aligns all to the mean so far, and takes
    the new mean, until it gains no more than `tolerance` of the mean squared distance.
    """
    reference = weights[0]
    last = float("inf")
    for _ in range(rounds):
        aligned = symmetry.apply(match(spec, weights, reference), weights)
        reference = aligned.map(lambda tensor: tensor.mean(dim=0, keepdim=True))
        distance = float(squared_distance(aligned, reference).mean())
        if not last - distance > tolerance * distance:
            break
        last = distance
    return reference


def squared_distance(weights: Weights, reference: Weights) -> Float[Tensor, " net"]:
    """The squared Euclidean distance of each network to the reference, float64."""
    tensors = weights.map(lambda ours, theirs: ours.double() - theirs.double(), reference)
    return sum(
        (tensor.flatten(1).square().sum(dim=1) for tensor in tensors.tensors().values()),
        start=torch.zeros(len(weights), dtype=torch.float64),
    )


def align(
    spec: NetworkSpec,
    weights: Weights,
    reference: Weights | None = None,
    sample: int = 1000,
    generator: torch.Generator | None = None,
) -> Aligned:
    """All networks, aligned to one reference.

    Align the training networks first, and then validation and test networks to the
    reference that comes with them.

    Args:
        reference: net = 1; by default the mean that a random sample is aligned to.
        sample: networks in that sample; the published number.
    """
    if reference is None:
        chosen = torch.randperm(len(weights), generator=generator)[:sample]
        reference = mean_reference(spec, weights[chosen])
    element = match(spec, weights, reference)
    return Aligned(symmetry.apply(element, weights), element, reference)
