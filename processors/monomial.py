"""Monomial-NFN: layers that also know scales (ReLU) and signs (sine, tanh) of neurons.

Monomial layers with a nonlinearity that commutes with the group; then an invariant map of
each entry, degree-zero for scales and even for signs, after which only permutations
remain and everything NFN has may follow.

    generalisation   monomial layers -> invariant -> pool -> perceptron
    classification   monomial layers -> invariant -> Fourier -> NFN layers -> pool -> perceptron
    editing          monomial layers -> Fourier -> NFN layers -> U + scale * step
    equivariant      monomial layers m; U + scale * mean_c m_c * NFN(invariant(m))_c

`editing` is as published, and *not* equivariant to signs: Fourier features and ReLU break
them. `equivariant` is ours: products of a step that transforms as the network does with
factors that are invariant transform as the network does.

Source: Tran et al. 2024, Monomial-NFN, Sec. 5 and App. B and D; the last line aside.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import sqrt
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from processors.base import check_group, slots, taps
from processors.encode import Normalise, drop_channel, lift
from processors.linear import EquivariantLinear
from processors.nfn import Features, LearnedStep, Lifting, PoolHead
from processors.pointwise import Activation
from processors.sizes import EDITING, KINDS, MONOMIAL_GROUPS
from zoo import NetworkSpec, Weights

# Nonlinearities that commute with the group.
_COMMUTING = {"mono-relu": ("relu", "identity"), "mono-sin": ("sin", "tanh", "identity")}


def monomial_group(spec: NetworkSpec) -> str:
    """The larger group that keeps the functions of these networks.

    Raises:
        ValueError: if the hidden activations have none, or not all the same.
    """
    activations = {layer.activation for layer in spec.layers[:-1]}
    if activations and activations <= {"relu", "leaky_relu"}:
        return "mono-relu"
    if activations and activations <= {"sin", "tanh"}:
        return "mono-sin"
    raise ValueError(
        f"expected hidden activations that are all relu or leaky_relu, or all sin or tanh, got "
        f"{', '.join(sorted(activations)) or 'none'}"
    )


class DegreeZero(nn.Module):
    """gamma * x / ||x|| + beta of each entry, the norm over its channels and taps.

    Unmoved by positive scales of neurons. gamma and beta are vectors of each tensor,
    N(0, 1) at first; tensors that scales do not act on, the last bias, are left as they are.

    Source: Tran et al. 2024, Eq. 19 and App. B.1.
    """

    def __init__(self, spec: NetworkSpec, chan: int):
        super().__init__()
        self.gamma = nn.ParameterList()
        self.beta = nn.ParameterList()
        for slot in slots(spec, "mono-relu"):
            wide = chan * slot.taps if slot.charged else 0
            self.gamma.append(torch.randn(wide))
            self.beta.append(torch.randn(wide))

    def _normalised(
        self, x: Float[Tensor, "... chan"], gamma: Tensor, beta: Tensor
    ) -> Float[Tensor, "... chan"]:
        # In float32 at least: squares of rescaled entries leave bfloat16's digits soon.
        wide = x if x.dtype == torch.float64 else x.float()
        unit = nn.functional.normalize(wide, dim=-1)
        return unit * gamma + beta if len(gamma) else x

    def forward(self, x: Weights) -> Weights:
        return Weights(
            tuple(map(self._normalised, x.weights, self.gamma[0::2], self.beta[0::2])),
            tuple(map(self._normalised, x.biases, self.gamma[1::2], self.beta[1::2])),
        )


class MonomialLayers(nn.Sequential):
    """Monomial linear layers, each followed by an activation that commutes with the group.

    Args:
        channels: after each layer.
        activations: after each layer; the last may be "abs", which ends equivariance to
            signs: what comes out is invariant to them.
        initial: "xavier" (see `xavier_`), or "fan-in", as every other layer.

    Raises:
        ValueError: if an activation does not fit the group.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        group: str,
        channels: Sequence[int],
        activations: Sequence[str],
        inp: int = 1,
        initial: str = "xavier",
    ):
        check_group(group, MONOMIAL_GROUPS)
        parts: list[nn.Module] = []
        count = len(channels)
        for number, (after, name) in enumerate(zip(channels, activations, strict=True)):
            even = name == "abs" and group == "mono-sin" and number == count - 1
            if name not in _COMMUTING[group] and not even:
                raise ValueError(
                    f"layer {number}: expected an activation that commutes with {group!r} "
                    f"({', '.join(_COMMUTING[group])}), got {name!r}"
                )
            before = channels[number - 1] if number else inp
            layer = EquivariantLinear(spec, group, before, after)
            if initial == "xavier":
                xavier_(layer)
            parts += [layer, Activation(name)]
        super().__init__(*parts)
        self.chan = channels[-1] if count else inp


@torch.no_grad()
def xavier_(layer: EquivariantLinear) -> None:
    """Draw a monomial layer anew: N(0, 2 / (fan-in + fan-out)), each summed over a group.

    Groups are all that the first weights, the first biases and the last biases come from, and
    each single map of the others; a constant has a fan-out alone.

    Source: the released code of Monomial-NFN, `init_type: xavier_normal`, which all of its
    experiments have but the classification of CIFAR-10.
    """
    last = f"bias_{len(layer.spec.layers) - 1}"
    blocks = [((term.target, term.source), layer.block(term)) for term in layer.terms]
    constants = [each.bias for each in layer.products.children() if each.bias is not None]
    groups: dict[tuple[str, ...], list[tuple[Tensor, int]]] = {}
    for (target, source), block in blocks:
        together = target in ("weight_0", "bias_0", last)
        key = (target,) if together else (target, source)
        groups.setdefault(key, []).append((block, block.shape[1]))
    groups.setdefault((last,), []).extend((each, 0) for each in constants)  # type: ignore[misc]
    for members in groups.values():
        fans = sum(fan_in + len(drawn) for drawn, fan_in in members)
        for drawn, _ in members:
            drawn.normal_(0, sqrt(2 / fans))


def invariant_entries(spec: NetworkSpec, group: str, chan: int) -> nn.Module:
    """What makes scales or signs vanish, entry by entry."""
    return DegreeZero(spec, chan) if group == "mono-relu" else Activation("abs")


@dataclass(frozen=True)
class _Sizes:
    """What a kind of model is made of, see `MonomialNFN`."""

    channels: Sequence[int]
    activations: Sequence[str]
    base: str | None = None
    base_channels: Sequence[int] = ()
    fourier: int = 256
    fourier_scale: float = 3.0
    max_freq: float = 3.0
    bands: int = 3
    head: int = 1000
    dropout: float = 0.0
    head_dropout: float | None = None
    initial: str = "xavier"

    def arguments(self) -> dict[str, Any]:
        """What `MonomialNFN` is to be given for these sizes."""
        return {
            **asdict(self),
            "channels": list(self.channels),
            "activations": list(self.activations),
            "base": self.base or "none",
            "base_channels": list(self.base_channels) or None,
            "head_dropout": self.dropout if self.head_dropout is None else self.head_dropout,
        }


_PUBLISHED = {
    ("generalisation", "mono-relu"): _Sizes((16, 16, 5), ("relu",) * 3, fourier=0, head=200),
    ("generalisation", "mono-sin"): _Sizes((16, 16, 5), ("tanh", "tanh", "abs"), fourier=0),
    ("classification", "mono-sin"): _Sizes(
        (64, 64, 1), ("sin", "sin", "abs"), "hnp", (256,) * 3, dropout=0.1
    ),
    ("editing", "mono-relu"): _Sizes((16, 1), ("identity",) * 2, "np", (128,) * 3),
    ("editing", "mono-sin"): _Sizes((16, 1), ("identity",) * 2, "np", (128,) * 3),
    # Ours, in the size of `editing`.
    ("equivariant", "mono-relu"): _Sizes(
        (16, 16, 16), ("relu", "relu", "identity"), "np", (128,) * 3, fourier=0
    ),
    ("equivariant", "mono-sin"): _Sizes(
        (16, 16, 16), ("sin", "sin", "identity"), "np", (128,) * 3, fourier=0
    ),
}


class MonomialNFN(nn.Module):
    """A Monomial-NFN of plain weights: invariant, or an editor of networks.

    Sizes that are None are the paper's:

                     monomial channels     activations     NFN layers     head
    generalisation   16, 16, 5             relu, or        none           200, or
                                           tanh tanh abs                  1000
    classification   64, 64, 1             sin, sin, abs   hnp, 3 x 256   1000, dropout 0.1
    editing          16, 1                 none            np, 3 x 128
    equivariant      16, 16, 16            relu, or sin    np, 3 x 128

    and Fourier features and positions as in `NFN` for MNIST. Classification is that of MNIST;
    the other data sets' stand in `processors.presets`.

    Args:
        out: length of the output; None to edit.
        group: "mono-relu" or "mono-sin"; None for what the spec's activations ask for.
        kind: a line of the table; None for "equivariant" to edit, else "classification"
            for sine networks and "generalisation" for others.
        channels, activations: of the monomial layers; for channels alone, activations
            are the table's first, and its last after the last layer.
        base, base_channels: symmetry and channels of the NFN layers; "none" for no layers.
        fourier, fourier_scale, max_freq, bands, layers: see `nfn.Lifting`; "np" has positions.
        head, head_dropout, head_norm: see `PoolHead`; the dropout as `dropout` if it is None.
        dropout: of whole channels of the NFN layers.
        initial: of the monomial layers, see `MonomialLayers`.
        scale: first value of the learned scales.
        stats, statistics: see `processors.Normalise`; "entry" does not commute with the group.

    Raises:
        ValueError: for an unknown kind, or one that does not fit `out` or the group.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        out: int | None = 10,
        group: str | None = None,
        kind: str | None = None,
        channels: Sequence[int] | None = None,
        activations: Sequence[str] | None = None,
        base: str | None = None,
        base_channels: Sequence[int] | None = None,
        fourier: int | None = None,
        fourier_scale: float | None = None,
        max_freq: float | None = None,
        bands: int | None = None,
        head: int | None = None,
        dropout: float | None = None,
        head_dropout: float | None = None,
        initial: str | None = None,
        layers: bool = False,
        head_norm: bool = False,
        scale: float = 0.01,
        stats: Mapping[str, Tensor] | None = None,
        statistics: str = "none",
    ):
        super().__init__()
        group = monomial_group(spec) if group is None else group
        check_group(group, MONOMIAL_GROUPS)
        if kind is None:
            sine = spec.layers[0].activation == "sin"
            kind = "classification" if sine else "generalisation"
            kind = "equivariant" if out is None else kind
        if kind not in KINDS:
            raise ValueError(f"unknown kind {kind!r}; known: {', '.join(KINDS)}")
        if (kind in EDITING) != (out is None):
            raise ValueError(f"kind {kind!r} does not fit out={out}; editors have out=None")
        if (kind, group) not in _PUBLISHED:
            raise ValueError(f"kind {kind!r} is for 'mono-sin', got {group!r}")
        sizes = _PUBLISHED[kind, group]
        if channels and activations is None:
            activations = (*[sizes.activations[0]] * (len(channels) - 1), sizes.activations[-1])
        given: dict[str, Any] = {
            "channels": channels,
            "activations": activations,
            "base": base,
            "base_channels": base_channels,
            "fourier": fourier,
            "fourier_scale": fourier_scale,
            "max_freq": max_freq,
            "bands": bands,
            "head": head,
            "dropout": dropout,
            "head_dropout": head_dropout,
            "initial": initial,
        }
        sizes = replace(sizes, **{key: value for key, value in given.items() if value is not None})
        if sizes.base == "none":
            sizes = replace(sizes, base=None)
        self.spec, self.out, self.group, self.kind = spec, out, group, kind
        self.resolved = {**sizes.arguments(), "group": group, "kind": kind}
        self.normalise = Normalise(spec, stats, statistics, group)
        self.monomial = MonomialLayers(
            spec, group, sizes.channels, sizes.activations, initial=sizes.initial
        )
        chan = self.monomial.chan
        # Published editing breaks the symmetry here; "abs" has made signs vanish already.
        vanished = kind == "editing" or sizes.activations[-1] == "abs"
        self.invariant = nn.Identity() if vanished else invariant_entries(spec, group, chan)
        self.features = nn.Sequential()
        if sizes.base is not None:
            positions = "none" if sizes.base == "hnp" else "sinusoidal"
            lifting = Lifting(
                spec,
                chan,
                sizes.fourier,
                sizes.fourier_scale,
                positions,
                sizes.max_freq,
                sizes.bands,
                layers,
            )
            features = Features(spec, sizes.base, lifting.chan, sizes.base_channels, sizes.dropout)
            self.features.extend([lifting, features])
            chan = features.chan
        if out is None:
            assert sizes.base is not None
            after = self.monomial.chan if kind == "equivariant" else 1
            self.last = EquivariantLinear(spec, sizes.base, chan, after)
            self.step = LearnedStep(spec, scale)
        else:
            dropped = self.resolved["head_dropout"]
            self.head = PoolHead(spec, chan, out, sizes.head, dropped, head_norm)

    def forward(self, weights: Weights) -> Float[Tensor, "net out"] | Weights:
        """`net out`, or edited networks."""
        own: Weights = self.monomial(lift(self.normalise(weights)))
        features: Weights = self.invariant(own)
        if len(self.features):
            lifting, layers = self.features
            assert isinstance(lifting, Lifting)
            assert isinstance(layers, Features)
            if self.out is not None:
                return self.head.of_pieces(layers.in_pieces(lifting, features))
            features = layers.lifted(lifting, features)
        if self.out is not None:
            vectors: Tensor = self.head(features)
            return vectors
        change: Weights = self.last(features)
        if self.kind == "equivariant":
            change = _contract(self.spec, own, change)
        edited: Weights = self.step(weights, drop_channel(change, self.spec))
        return edited


def _contract(spec: NetworkSpec, own: Weights, factors: Weights) -> Weights:
    """The mean over channels of the products of both: one channel, and taps."""

    def product(x: Tensor, y: Tensor, taps: int) -> Tensor:
        both = rearrange(x * y, "... (chan taps) -> ... chan taps", taps=taps)
        return both.mean(dim=-2)

    weights = map(product, own.weights, factors.weights, taps(spec))
    biases = map(product, own.biases, factors.biases, [1] * own.layers)
    return Weights(tuple(weights), tuple(biases))
