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
from scipy.optimize import linear_sum_assignment
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
    return theirs.expand(len(ours), -1, -1) @ ours.mT


def _permute(tensor: Tensor, order: Tensor | None, axis: int) -> Tensor:
    if order is None:
        return tensor
    shape = [len(order)] + [1] * (tensor.ndim - 1)
    shape[axis] = order.shape[1]
    return tensor.take_along_dim(order.reshape(shape), dim=axis)


def _layer_score(
    weights: Weights, reference: Weights, orders: Orders, layer: int, outgoing: bool = True
) -> Float[Tensor, "net neuron neuron"]:
    """What each pairing of the layer's neurons adds to the product, its neighbours fixed."""
    before = _permute(weights.weights[layer], orders[layer], 2)
    score = _similarity(reference.weights[layer], before, 1)
    score = score + _similarity(reference.biases[layer], weights.biases[layer], 1)
    if outgoing:
        after = _permute(weights.weights[layer + 1], orders[layer + 2], 1)
        score = score + _similarity(reference.weights[layer + 1], after, 2)
    return score.double()


def _assign(score: Float[Tensor, "net neuron neuron"]) -> Int[Tensor, "net neuron"]:
    return torch.from_numpy(
        np.stack([linear_sum_assignment(one, maximize=True)[1] for one in score.numpy()])
    )


def _from_the_inputs(spec: NetworkSpec, weights: Weights, reference: Weights) -> Orders:
    """Layer by layer, by what comes in; what goes out counts once its order is known."""
    orders: Orders = [None] * (len(spec.layers) + 1)
    hidden = range(len(spec.layers) - 1)
    for layer in hidden:
        score = _layer_score(weights, reference, orders, layer, outgoing=layer == hidden[-1])
        orders[layer + 1] = _assign(score)
    return orders


def _descend(
    spec: NetworkSpec,
    weights: Weights,
    reference: Weights,
    orders: Orders,
    sweeps: int,
    tolerance: float,
) -> Orders:
    """The orders after sweeps over all layers, each network until it gains no more."""
    orders = list(orders)
    enough = tolerance * _norm(weights) * _norm(reference)
    left = torch.arange(len(weights))
    for _ in range(sweeps):
        some, target = weights[left], reference[left] if len(reference) > 1 else reference
        chosen = [None if order is None else order[left] for order in orders]
        gained = torch.zeros(len(left), dtype=torch.float64)
        for layer in range(len(spec.layers) - 1):
            score = _layer_score(some, target, chosen, layer)
            old, best = chosen[layer + 1], _assign(score)
            assert old is not None
            gain = _total(score, best) - _total(score, old)
            # Ties and rounding are no reason to move.
            better = gain > enough[left]
            chosen[layer + 1] = torch.where(better[:, None], best, old)
            gained += torch.where(better, gain, 0)
        for order, new in zip(orders, chosen, strict=True):
            if order is not None and new is not None:
                order[left] = new
        left = left[gained > 0]
        if not len(left):
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
    return _element([None, *(torch.cat(orders) for orders in zip(*parts, strict=True)), None])


def _match(
    spec: NetworkSpec, weights: Weights, reference: Weights, sweeps: int, tolerance: float
) -> tuple[Tensor, ...]:
    """The order of every hidden layer, see `match`."""
    as_it_is: Orders = [
        None,
        *(torch.arange(n).repeat(len(weights), 1) for n in spec.widths[1:-1]),
        None,
    ]
    ends = [
        _element(_descend(spec, weights, reference, start, sweeps, tolerance))
        for start in (as_it_is, _from_the_inputs(spec, weights, reference))
    ]
    near, other = (squared_distance(symmetry.apply(end, weights), reference) for end in ends)
    # Not for a tie: a network that is aligned shall stay as it is.
    switch = other < near * (1 - tolerance)
    return tuple(
        torch.where(switch[:, None], second, first)
        for first, second in zip(ends[0].permutations, ends[1].permutations, strict=True)
    )


def _element(orders: Orders) -> symmetry.Element:
    permutations = tuple(order for order in orders if order is not None)
    return symmetry.Element(permutations, tuple(torch.ones(o.shape) for o in permutations))


def _total(score: Tensor, order: Tensor) -> Float[Tensor, " net"]:
    return score.gather(2, order[:, :, None]).sum(dim=(1, 2))


def _norm(weights: Weights) -> Float[Tensor, " net"]:
    return weights.flatten().double().norm(dim=1)


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
