"""Permutations, signs, phases and positive scales of hidden neurons, and how they act.

An element g has for every hidden layer i a permutation p_i, a factor d_i and a phase j_i,
an integer, of each neuron; it acts by W_i -> g_i W_i g_{i-1}^-1 and b_i -> g_i b_i with
(g_i x)[k] = d_i[k] * x[p_i[k]], leaves inputs and outputs alone, and adds half turns:
b_i[k] -> b_i[k] + pi j_i[k] / omega, while column k of W_{i+1} is multiplied by (-1)^j.
Which elements keep the network's function depends on the activation: permutations always,
signs for odd ones (sin, tanh), phases for sin, positive scales for ReLU and leaky ReLU.

`absorb` and `canonical` give other weights of the same function: without omega, and one
of all that differ by scales.

Source: Hecht-Nielsen 1990 (permutations); Tran et al. 2024, Monomial-NFN, Sec. 3 and 4
(monomial matrices). Phases follow from sin(x + pi j) = (-1)^j sin x.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import pi

import torch
from torch import Tensor

from zoo.spec import NetworkSpec
from zoo.weights import Weights

KINDS = ("permutation", "sign", "scale", "phase")
# The largest number of half turns that `sample` draws, either way.
MOST_TURNS = 3
_KEPT_BY = {
    "sin": ("permutation", "sign", "phase"),
    "tanh": ("permutation", "sign"),
    "relu": ("permutation", "scale"),
    "leaky_relu": ("permutation", "scale"),
    "identity": ("permutation", "sign", "scale"),
}


@dataclass(frozen=True)
class Element:
    """One group element a network: a permutation and factors of each hidden layer.

    Attributes:
        permutations: layer i's `net out`, int64; neuron j becomes the old neuron p[j].
        factors: layer i's `net out`; nonzero, 1 or -1 where there are phases.
        phases: layer i's `net out`, int64, half turns; empty for none.
    """

    permutations: tuple[Tensor, ...]
    factors: tuple[Tensor, ...]
    phases: tuple[Tensor, ...] = ()

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
            tuple(phase[nets] for phase in self.phases),
        )


def kept_by_activation(name: str) -> tuple[str, ...]:
    """The kinds that neurons of this activation have.

    >>> kept_by_activation("tanh"), kept_by_activation("gelu")
    (('permutation', 'sign'), ('permutation',))
    """
    return _KEPT_BY.get(name, ("permutation",))


def kept_by(spec: NetworkSpec) -> tuple[str, ...]:
    """The kinds that leave the function of every network of `spec` unchanged."""
    return tuple(
        kind
        for kind in KINDS
        if all(kind in kept_by_activation(layer.activation) for layer in spec.layers[:-1])
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
        kinds: which of "permutation", "sign", "scale" and "phase" to draw; the rest is
            identity. Phases are from -MOST_TURNS to MOST_TURNS.
        log_scale: standard deviation of the scales' natural logarithm.

    Raises:
        ValueError: for an unknown kind, or phases together with scales, which no activation
            allows and which make no group.
    """
    unknown = set(kinds) - set(KINDS)
    if unknown:
        raise ValueError(f"unknown symmetry {sorted(unknown)}; known: {', '.join(KINDS)}")
    if {"phase", "scale"} <= set(kinds):
        raise ValueError("phases are of sine layers and scales of ReLU ones; draw one of them")
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
    phases = [
        torch.randint(-MOST_TURNS, MOST_TURNS + 1, (nets, width), generator=generator)
        for width in spec.widths[1:-1]
        if "phase" in kinds
    ]
    return Element(tuple(permutations), tuple(factors), tuple(phases))


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


def apply(element: Element, weights: Weights, spec: NetworkSpec | None = None) -> Weights:
    """The networks after the element has acted; any number of channels.

    Args:
        spec: of the networks; phases need it, for each layer's omega.

    Raises:
        ValueError: for phases without a spec.
    """
    if element.phases and spec is None:
        raise ValueError("phases act by each layer's omega; give the spec of the networks")
    new_weights, new_biases = [], []
    for layer, (weight, bias) in enumerate(zip(weights.weights, weights.biases, strict=True)):
        if layer < weights.layers - 1:
            order, factor = element.permutations[layer], element.factors[layer]
            order, factor = order.to(weight.device), factor.to(weight)
            weight = _scale(_gather(weight, order, 1), factor, 1)
            bias = _scale(_gather(bias, order, 1), factor, 1)
            if element.phases and spec is not None:
                turns = element.phases[layer].to(bias) * (pi / spec.layers[layer].omega)
                bias = bias + turns.reshape(*turns.shape, *(1 for _ in bias.shape[2:]))
        if layer > 0:
            order, factor = element.permutations[layer - 1], element.factors[layer - 1]
            if element.phases:
                factor = factor * (1 - 2 * (element.phases[layer - 1] % 2))
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
    phases = tuple(
        -_turned(factor, phase.gather(1, back))
        for factor, phase, back in zip(factors, element.phases, inverse, strict=False)
    )
    return Element(inverse, factors, phases)


def compose(second: Element, first: Element) -> Element:
    """The element that acts as `first` and then `second`.

    Signs turn phases round: together they are a semidirect product.
    """
    permutations = tuple(
        p.gather(1, q) for p, q in zip(first.permutations, second.permutations, strict=True)
    )
    factors = tuple(
        d * f.gather(1, q)
        for d, f, q in zip(second.factors, first.factors, second.permutations, strict=True)
    )
    if not (first.phases or second.phases):
        return Element(permutations, factors)
    still = tuple(torch.zeros_like(order) for order in permutations)
    phases = tuple(
        later + _turned(d, sooner.gather(1, q))
        for later, sooner, d, q in zip(
            second.phases or still, first.phases or still, second.factors, second.permutations,
            strict=True,
        )
    )  # fmt: skip
    return Element(permutations, factors, phases)


def _turned(factor: Tensor, phase: Tensor) -> Tensor:
    """Phases after the sign of the factors, 1 or -1, has acted on them."""
    return torch.where(factor < 0, -phase, phase)


def absorb(spec: NetworkSpec, weights: Weights) -> tuple[NetworkSpec, Weights]:
    """The same functions with omega in the weights: sin(W x + b) with omega W and omega b.

    Returns:
        The spec with an omega of 1 in every layer, and networks of it.
    """
    factors = [layer.omega for layer in spec.layers]
    return (
        replace(spec, layers=tuple(replace(layer, omega=1.0) for layer in spec.layers)),
        Weights(
            tuple(w * omega for w, omega in zip(weights.weights, factors, strict=True)),
            tuple(b * omega for b, omega in zip(weights.biases, factors, strict=True)),
        ),
    )


def canonical(spec: NetworkSpec, weights: Weights) -> Weights:
    """The networks of the same functions whose ReLU neurons have incoming norm 1.

    From the first layer on, (w, b) of each hidden neuron of ReLU, or leaky ReLU, is divided by
    its norm, and
    its outgoing weights are multiplied by it: all networks that differ by positive scales
    become one. A neuron of norm 0 gives nothing, so its outgoing weights become 0. Neurons
    of other activations stay as they are.
    """
    new_weights: list[Tensor] = []
    new_biases: list[Tensor] = []
    before: Tensor | None = None
    for layer, weight, bias in zip(spec.layers, weights.weights, weights.biases, strict=True):
        if before is not None:
            weight = _scale(weight, before, 2)
            before = None
        scaled = layer.activation in ("relu", "leaky_relu")
        if scaled and len(new_weights) < weights.layers - 1:
            before = (weight.flatten(2).square().sum(dim=2) + bias.square()).sqrt()
            safe = torch.where(before > 0, before, 1.0)
            weight, bias = _scale(weight, 1 / safe, 1), bias / safe
        new_weights.append(weight)
        new_biases.append(bias)
    return Weights(tuple(new_weights), tuple(new_biases))
