"""Permutations, signs and positive scales of hidden neurons, and how they act.

An element g has for every hidden layer i a permutation p_i and a factor d_i of each
neuron; it acts by W_i -> g_i W_i g_{i-1}^-1 and b_i -> g_i b_i with
(g_i x)[j] = d_i[j] * x[p_i[j]], and leaves inputs and outputs alone. Which elements
keep the network's function depends on the activation: permutations always, signs for
odd ones (sin, tanh), positive scales for ReLU.

Source: Hecht-Nielsen 1990 (permutations); Tran et al. 2024, Monomial-NFN, Sec. 3 and 4
(monomial matrices).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.spec import NetworkSpec
from zoo.weights import Weights

KINDS = ("permutation", "sign", "scale")
_KEPT_BY = {
    "sin": ("permutation", "sign"),
    "tanh": ("permutation", "sign"),
    "relu": ("permutation", "scale"),
    "identity": KINDS,
}


@dataclass(frozen=True)
class Element:
    """One group element a network: a permutation and factors of each hidden layer.

    Attributes:
        permutations: layer i's `net out`, int64; neuron j becomes the old neuron p[j].
        factors: layer i's `net out`; nonzero.
    """

    permutations: tuple[Tensor, ...]
    factors: tuple[Tensor, ...]

    @classmethod
    def permuting(cls, permutations: Iterable[Tensor]) -> "Element":
        """These permutations, `net out` each, with factors of 1 in float32."""
        orders = tuple(permutations)
        return cls(orders, tuple(torch.ones(order.shape) for order in orders))

    def __getitem__(self, nets: Tensor) -> "Element":
        """Those of the chosen networks."""
        return Element(
            tuple(order[nets] for order in self.permutations),
            tuple(factor[nets] for factor in self.factors),
        )


def kept_by(spec: NetworkSpec) -> tuple[str, ...]:
    """The kinds that leave the function of every network of `spec` unchanged."""
    return tuple(
        kind
        for kind in KINDS
        if all(kind in _KEPT_BY[layer.activation] for layer in spec.layers[:-1])
    )


def identity(spec: NetworkSpec, nets: int, dtype: torch.dtype = torch.float32) -> Element:
    """The element that changes nothing."""
    widths = spec.widths[1:-1]
    return Element(
        tuple(torch.arange(n).expand(nets, n) for n in widths),
        tuple(torch.ones(nets, n, dtype=dtype) for n in widths),
    )


def sample(
    spec: NetworkSpec,
    nets: int,
    kinds: tuple[str, ...] = ("permutation",),
    generator: torch.Generator | None = None,
    log_scale: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> Element:
    """A random element for each network.

    Args:
        kinds: which of "permutation", "sign" and "scale" to draw; the rest is identity.
        log_scale: standard deviation of the scales' natural logarithm.

    Raises:
        ValueError: for an unknown kind.
    """
    unknown = set(kinds) - set(KINDS)
    if unknown:
        raise ValueError(f"unknown symmetry {sorted(unknown)}; known: {', '.join(KINDS)}")
    permutations, factors = [], []
    for width in spec.widths[1:-1]:
        order = torch.arange(width).expand(nets, width)
        if "permutation" in kinds:
            order = torch.rand(nets, width, generator=generator).argsort(dim=1)
        factor = torch.ones(nets, width, dtype=dtype)
        if "sign" in kinds:
            factor = torch.randint(0, 2, (nets, width), generator=generator).to(dtype) * 2 - 1
        if "scale" in kinds:
            noise = torch.randn(nets, width, generator=generator).to(dtype)
            factor = factor * torch.exp(log_scale * noise)
        permutations.append(order)
        factors.append(factor)
    return Element(tuple(permutations), tuple(factors))


def _gather(tensor: Tensor, order: Tensor, axis: int) -> Tensor:
    shape = [order.shape[0]] + [1] * (tensor.ndim - 1)
    shape[axis] = order.shape[1]
    index = order.reshape(shape).expand(
        *tensor.shape[:axis], order.shape[1], *tensor.shape[axis + 1 :]
    )
    return tensor.gather(axis, index)


def _scale(tensor: Tensor, factor: Tensor, axis: int) -> Tensor:
    shape = [factor.shape[0]] + [1] * (tensor.ndim - 1)
    shape[axis] = factor.shape[1]
    return tensor * factor.reshape(shape)


def apply(element: Element, weights: Weights) -> Weights:
    """The networks after the element has acted; any number of channels."""
    new_weights, new_biases = [], []
    for layer, (weight, bias) in enumerate(zip(weights.weights, weights.biases, strict=True)):
        if layer < weights.layers - 1:
            order, factor = element.permutations[layer], element.factors[layer]
            order, factor = order.to(weight.device), factor.to(weight)
            weight = _scale(_gather(weight, order, 1), factor, 1)
            bias = _scale(_gather(bias, order, 1), factor, 1)
        if layer > 0:
            order, factor = element.permutations[layer - 1], element.factors[layer - 1]
            order, factor = order.to(weight.device), factor.to(weight)
            weight = _scale(_gather(weight, order, 2), 1 / factor, 2)
        new_weights.append(weight)
        new_biases.append(bias)
    return Weights(tuple(new_weights), tuple(new_biases))


def invert(element: Element) -> Element:
    """The element that undoes `element`."""
    inverse = tuple(order.argsort(dim=1) for order in element.permutations)
    factors = tuple(
        1 / factor.gather(1, back) for factor, back in zip(element.factors, inverse, strict=True)
    )
    return Element(inverse, factors)


def compose(second: Element, first: Element) -> Element:
    """The element that acts as `first` and then `second`."""
    permutations = tuple(
        p.gather(1, q) for p, q in zip(first.permutations, second.permutations, strict=True)
    )
    factors = tuple(
        d * f.gather(1, q)
        for d, f, q in zip(second.factors, first.factors, second.permutations, strict=True)
    )
    return Element(permutations, factors)
