"""NFN: lifted weights through linear equivariant layers, then a pool or a learned step.

    Normalise -> lift -> Fourier features -> positions -> (linear, ReLU, dropout) x n
        -> invariant pool -> perceptron                        `net out`
        -> linear to one channel -> U + scale * it             `Weights`

Source: Zhou et al. 2023, NFN, Sec. 3 and App. D; where the released code differs from the
text, the code is followed, and said so.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad

from processors import base, fourier
from processors.base import check_group, traced
from processors.encode import (
    FourierFeatures,
    InputOutputEmbedding,
    IOEncoding,
    LearnedEncoding,
    Normalise,
    drop_channel,
    lift,
)
from processors.linear import EquivariantLinear, Term
from processors.matrices import Lifted, joined
from processors.pointwise import Activation, ChannelDropout, LayerNorm
from processors.pool import InvariantPool, Matrix, Pooled
from processors.sizes import POSITIONS, SYMMETRIES
from zoo import NetworkSpec, Weights

# Numbers in the largest tensor of a piece of a batch: 16 MB, or 1 GB.
_PIECE = {"cpu": 2**21}
_PIECE_ELSEWHERE = 2**28


class Lifting(nn.Sequential):
    """Gaussian Fourier features of each entry, and the positions of inputs and outputs.

    Args:
        inp: channels that come in.
        fourier: channels of the Fourier features; 0 leaves them out.
        fourier_scale: 10, and 3 for MNIST and editing.
        positions: "sinusoidal" adds channels, "learned" adds to them; "learned-each", which adds
            to them in front of every layer, is left to `Features`; or "none".
        max_freq, bands: of the sinusoidal positions; 10 and 6, 3 and 3 for MNIST and editing.
        layers: whether the sinusoidal positions have the layer's number.

    Attributes:
        chan: channels that come out.

    Raises:
        ValueError: for unknown positions.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        inp: int = 1,
        fourier: int = 256,
        fourier_scale: float = 10.0,
        positions: str = "sinusoidal",
        max_freq: float = 10.0,
        bands: int = 6,
        layers: bool = False,
    ):
        if positions not in POSITIONS:
            raise ValueError(f"unknown positions {positions!r}; known: {', '.join(POSITIONS)}")
        parts: list[nn.Module] = []
        chan = inp
        if fourier:
            parts.append(FourierFeatures(spec, inp, fourier, fourier_scale))
            chan = fourier
        if positions == "sinusoidal":
            encoding = IOEncoding(spec, chan, max_freq, bands, layers)
            parts.append(encoding)
            chan = encoding.chan
        elif positions == "learned":
            parts.append(LearnedEncoding(spec, chan))
        super().__init__(*parts)
        self.chan = chan

    def into(
        self, layer: EquivariantLinear, x: Weights, *front: nn.Module, whole: bool = True
    ) -> Weights | Pooled:
        """`layer.rectified` of the lifted entries, which of large tensors are never kept.

        Args:
            x: weights with channels.
            front: what comes between; like positions, it adds or appends what is the same
                for every network and every hidden neuron.
        """
        first = next(iter(self), None)
        if (
            not isinstance(first, FourierFeatures)
            or len(first.frequencies) > 1
            or layer.pool == "max"
            or layer.blocks != "all"
        ):
            x = self(x)
            for module in front:
                x = module(x)
            return layer.rectified(x, whole)
        base.check(x, base.slots(layer.spec, layer.group), 1)
        constants = None
        if len(self) > 1 or front:
            constants = _blank(x, first.chan)
            for module in (*list(self)[1:], *front):
                constants = module(constants)
        return layer.rectified(_LiftedPools(layer, first, x, constants), whole)


def _blank(x: Weights, chan: int) -> Weights:
    """Features of a single network, all zero, with a single neuron in each hidden layer."""
    last = x.layers - 1
    weights = (
        weight.new_zeros(
            1,
            weight.shape[1] if layer == last else 1,
            1 if layer else weight.shape[2],
            chan * weight.shape[3],
        )
        for layer, weight in enumerate(x.weights)
    )
    biases = (
        bias.new_zeros(1, bias.shape[1] if layer == last else 1, chan)
        for layer, bias in enumerate(x.biases)
    )
    return Weights(tuple(weights), tuple(biases))


class _LiftedPools(Pooled):
    """What a layer takes from lifted entries: their pools, and products with large tensors.

    Lifted entries are Fourier features, followed by zeros, plus `constants`, which are those
    of one network with single hidden neurons; what the layer does to either is linear, and so is
    added up. Where features of a tensor are not those of one entry, they are added before.
    """

    def __init__(
        self,
        layer: EquivariantLinear,
        features: FourierFeatures,
        x: Weights,
        constants: Weights | None,
    ):
        slots = base.slots(layer.spec, layer.group)
        self._begin(slots, {}, layer.pool)
        self._mixed: dict[str, Tensor] = {}
        self._lifted: dict[str, Lifted] = {}
        self._wide = {slot.name: slot.features(layer.chan_in) for slot in slots}
        self._constants: dict[str, Tensor] = {}
        self._lengths = {slot.name: slot.sizes for slot in slots}
        self._frequencies = features.frequencies
        for slot in slots:
            tensor = x.tensors()[slot.name]
            constant = None if constants is None else constants.tensors()[slot.name]
            if constant is not None and slot.sets == slot.axes:
                self._constants[slot.name] = constant
                constant = None
            if len(slot.sets) == 2 and slot.taps == 1:
                self._never_kept(layer, slot, tensor.squeeze(-1))
            else:
                lifted = features.encode(tensor, slot.taps)
                self._known[slot.name, slot.sets] = slot.fold(_added(lifted, constant))

    def _never_kept(self, layer: EquivariantLinear, slot: base.Slot, x: Tensor) -> None:
        linear = layer.product(Term(slot.name, slot.name, slot.sets))
        half = self._frequencies.shape[1]
        wide = x if x.dtype == torch.float64 else x.float()
        matrix = linear.weight[:, : 2 * half]
        if torch.is_autocast_enabled(x.device.type):
            matrix = matrix.to(torch.get_autocast_dtype(x.device.type))
        frequencies = self._frequencies[0].to(wide)
        # Data have no gradient, and their product need not be part of the graph.
        apart = not (x.requires_grad or traced() or torch.is_autocast_enabled(x.device.type))
        with torch.set_grad_enabled(torch.is_grad_enabled() and not apart):
            mixed, *totals = fourier.mixed(wide, frequencies, matrix)
        self._mixed[slot.name] = mixed
        if apart:
            self._lifted[slot.name] = Lifted(wide, frequencies)
        for place, total in enumerate(totals):
            if self.pool == "mean":
                total = total / x.shape[2 - place]
            self._known[slot.name, slot.sets[place : place + 1]] = total.to(x.dtype)

    def _constant(self, name: str, kept: tuple[int, ...]) -> Tensor:
        """What is the same for every network, pooled; axes of hidden neurons have length 1."""
        constant = self._constants[name]
        for place in reversed(range(len(self._sets[name]))):
            if self._sets[name][place] not in kept:
                length = constant.shape[1 + place]
                constant = constant.sum(1 + place)
                wanted = 1 if self.pool == "mean" else self._lengths[name][place]
                constant = constant * (wanted / length) if wanted != length else constant
        return constant

    def _shift(
        self, linear: nn.Linear, names: Sequence[str], kept: tuple[int, ...]
    ) -> Tensor | None:
        """What a map makes of the constants, and its bias."""
        starts = self._starts(names)
        mine = [
            (self._constant(name, kept), starts[name]) for name in names if name in self._constants
        ]
        if not mine:
            return linear.bias
        constants, places = zip(*mine, strict=True)
        return joined(constants, linear.weight, places, linear.bias)

    def _starts(self, names: Sequence[str]) -> dict[str, int]:
        """Where the features of each tensor begin, side by side."""
        found, start = {}, 0
        for name in names:
            found[name] = start
            start += self._wide[name]
        return found

    def mix(
        self, linear: nn.Linear, names: Sequence[str], kept: tuple[int, ...]
    ) -> Float[Tensor, "net *kept feature"]:
        """As `Pooled.mix`; products with large tensors are known already."""
        if not names:
            return super().mix(linear, names, kept)
        shift = self._shift(linear, names, kept)
        if len(kept) == 2 and len(names) == 1 and names[0] in self._mixed:
            mixed = self._mixed[names[0]]
            return mixed if shift is None else mixed.add_(shift)
        inputs = [self(name, kept) for name in names]
        return joined(inputs, linear.weight, list(self._starts(names).values()), shift)

    def matrix(self, linear: nn.Linear, name: str) -> Matrix:
        """As `Pooled.matrix`."""
        shift = self._shift(linear, [name], self._sets[name])
        if name not in self._mixed:
            tensor = self(name, self._sets[name])
            return Matrix(tensor, linear.weight[:, : tensor.shape[-1]], shift)
        product, lifted = self._mixed[name], self._lifted.get(name)
        weight = None
        if lifted is not None:
            weight = linear.weight[:, : 2 * len(lifted.frequencies)]
        return Matrix(product, weight, shift, lifted)


def _added(lifted: Tensor, constant: Tensor | None) -> Tensor:
    """Features, and zeros behind them, plus what is the same for every network."""
    if constant is None:
        return lifted
    return pad(lifted, (0, constant.shape[-1] - lifted.shape[-1])) + constant


class Features(nn.Sequential):
    """Linear layers of one symmetry, each with ReLU and a dropout of whole channels.

    Args:
        symmetry: "np", "hnp" or "pointwise".
        inp, channels: that come in, and after each layer.
        dropout: of the channels.
        embed: whether learned inputs and outputs are added in front of every layer.
        layer_norm: whether the channels of every entry are normalised after every ReLU.

    Attributes:
        chan: channels that come out.

    Raises:
        ValueError: for an unknown symmetry.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        symmetry: str,
        inp: int,
        channels: Sequence[int],
        dropout: float = 0.0,
        pool: str = "mean",
        embed: bool = False,
        layer_norm: bool = False,
    ):
        check_group(symmetry, SYMMETRIES)
        parts: list[nn.Module] = []
        for before, after in zip((inp, *channels), channels, strict=False):
            parts += [InputOutputEmbedding(spec, before)] if embed else []
            parts.append(EquivariantLinear(spec, symmetry, before, after, pool=pool))
            parts.append(Activation("relu", overwrite=True))
            if layer_norm:
                parts.append(LayerNorm(spec, after))
            if dropout:
                parts.append(ChannelDropout(dropout))
        super().__init__(*parts)
        self.chan = channels[-1] if channels else inp

    def forward(self, x: Weights) -> Weights:
        """The features of weights with channels."""
        return _weights(self._from(0, x))

    def pooled(self, x: Weights) -> Weights | Pooled:
        """As `forward`, with the pools that are known, for a layer that follows."""
        return self._from(0, x)

    def lifted(self, lifting: Lifting, x: Weights) -> Weights:
        """The features of `lifting(x)`, at less cost than by themselves."""
        return _weights(self.pools(lifting, x, whole=True))

    def in_pieces(self, lifting: Lifting, x: Weights) -> Iterator[Weights | Pooled]:
        """The pools of a few networks after the other's: gradients are no larger than these."""
        modules = [module for module in self if isinstance(module, EquivariantLinear)]
        wide = max((module.chan_out for module in modules), default=self.chan)
        largest = wide * max(weight[0, ..., 0].numel() for weight in x.weights) if len(x) else 1
        pieces = 1
        if not traced():
            together = max(1, _PIECE.get(x.device.type, _PIECE_ELSEWHERE) // largest)
            pieces = max(1, -(-len(x) // together))
        size = max(1, -(-len(x) // pieces))
        for net in range(0, max(len(x), 1), size):
            yield self.pools(lifting, x if pieces == 1 else x[net : net + size])

    def pools(self, lifting: Lifting, x: Weights, whole: bool = False) -> Weights | Pooled:
        """As `lifted`; unless `whole`, as much of them as a pool over hidden neurons asks for."""
        modules = list(self)
        for place, module in enumerate(modules):
            if isinstance(module, EquivariantLinear):
                wanted = whole or place + 2 < len(modules)
                found = lifting.into(module, x, *modules[:place], whole=wanted)
                return self._from(place + 1, found, whole)
        return self(lifting(x))  # type: ignore[no-any-return]

    def _from(self, start: int, x: Weights | Pooled, whole: bool = True) -> Weights | Pooled:
        """What the modules from there on make of `x`."""
        for place, module in enumerate(self):
            if place < start or isinstance(module, Activation):
                continue  # done by the layer before it
            if isinstance(module, EquivariantLinear):
                x = module.rectified(x, whole or place + 2 < len(self))
            else:
                x = module(_weights(x))
        return x


def _weights(x: Weights | Pooled) -> Weights:
    return x if isinstance(x, Weights) else x.weights()


class PoolHead(nn.Sequential):
    """The `hnp` invariant pool with means, whatever the symmetry, and in-w-w-out with ReLU.

    Args:
        inp: channels that come in.
        width: of the two hidden layers.
        dropout: after each ReLU.
        norm: batch normalisation of what was pooled. Not in the papers: means over neurons
            hardly differ from network to network, and without it some thousand updates pass
            before anything is learnt.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        inp: int,
        out: int,
        width: int = 1000,
        dropout: float = 0.0,
        norm: bool = False,
    ):
        pool = InvariantPool(spec, "hnp", inp, pool="mean")
        super().__init__(
            *([nn.Sequential(pool, nn.BatchNorm1d(pool.features))] if norm else [pool]),
            nn.Linear(pool.features, width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(width, out),
        )

    def of_pieces(self, pieces: Iterable[Weights | Pooled]) -> Float[Tensor, "net out"]:
        """As `forward` of all of them, one after the other."""
        first, *others = self
        pool, *norm = first if isinstance(first, nn.Sequential) else [first]
        vectors = torch.cat([pool(piece) for piece in pieces])
        for module in (*norm, *others):
            vectors = module(vectors)
        return vectors


class LearnedStep(nn.Module):
    """U + scale * step, with one learned scale a tensor.

    The paper has one scale in all; the released code, like this, one a tensor.
    """

    def __init__(self, spec: NetworkSpec, init: float = 0.01):
        super().__init__()
        self.scale = nn.Parameter(torch.full((2, len(spec.layers)), init))

    def forward(self, weights: Weights, step: Weights) -> Weights:
        """The sum of plain weights and a plain step."""
        pairs = zip(weights.weights, step.weights, self.scale[0].unbind(), strict=True)
        biases = zip(weights.biases, step.biases, self.scale[1].unbind(), strict=True)
        return Weights(
            tuple(weight + scale * by for weight, by, scale in pairs),
            tuple(bias + scale * by for bias, by, scale in biases),
        )


def _chosen(sizes: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults, but for the sizes that are given."""
    return {**defaults, **{key: value for key, value in sizes.items() if value is not None}}


class NFN(nn.Module):
    """A neural functional of plain weights: invariant, or an editor of networks.

    Sizes that are None are the paper's, for raw weights: 3 x 512 channels, Fourier scale 10,
    positions 10 and 6 and dropout 0.5 in the head to classify INRs; 3 x 128, 3, and 3 and 3 to
    edit. A scale of 10 is for entries as they are: the hidden weights of an INR deviate by
    some .02. What the papers have beyond that, experiment by experiment, stands in
    `processors.presets`.

    Args:
        out: length of the output; None to edit, `Weights` to `Weights`.
        symmetry: "np", "hnp" or "pointwise" (the ablation, without any mixing of entries).
        channels: after each layer.
        fourier, fourier_scale, positions, max_freq, bands, layers: see `Lifting`; positions are
            "none" by default for "hnp", which sees inputs and outputs anyway.
        dropout: of whole channels.
        head, head_dropout, head_norm: see `PoolHead`.
        scale: first value of the learned scales.
        stats, statistics: see `processors.Normalise`.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        out: int | None = 10,
        symmetry: str = "np",
        channels: Sequence[int] | None = None,
        fourier: int = 256,
        fourier_scale: float | None = None,
        positions: str | None = None,
        max_freq: float | None = None,
        bands: int | None = None,
        dropout: float = 0.0,
        head: int = 1000,
        head_dropout: float = 0.5,
        scale: float = 0.01,
        stats: Mapping[str, Tensor] | None = None,
        statistics: str = "none",
        layers: bool | int = False,
        head_norm: bool = False,
    ):
        super().__init__()
        check_group(symmetry, SYMMETRIES)
        if not isinstance(layers, bool):
            raise ValueError(
                f"layers says whether positions have the layer's number: true or false, got "
                f"{layers!r}; channels=[...] says how many layers there are"
            )
        if channels is None:
            channels = (128, 128, 128) if out is None else (512, 512, 512)
        lifting = _chosen(
            {
                "fourier_scale": fourier_scale,
                "positions": positions,
                "max_freq": max_freq,
                "bands": bands,
            },
            {
                "fourier_scale": 3.0 if out is None else 10.0,
                "positions": "none" if symmetry == "hnp" else "sinusoidal",
                "max_freq": 3.0 if out is None else 10.0,
                "bands": 3 if out is None else 6,
            },
        )
        self.spec, self.out, self.symmetry = spec, out, symmetry
        self.resolved = {"channels": list(channels), **lifting}
        self.normalise = Normalise(spec, stats, statistics)
        self.lifting = Lifting(spec, 1, fourier, **lifting, layers=layers)
        embed = lifting["positions"] == "learned-each"
        self.features = Features(spec, symmetry, self.lifting.chan, channels, dropout, embed=embed)
        if out is None:
            last = EquivariantLinear(spec, symmetry, self.features.chan, 1)
            before = [InputOutputEmbedding(spec, self.features.chan)] if embed else []
            self.last = nn.Sequential(*before, last) if embed else last
            self.step = LearnedStep(spec, scale)
        else:
            self.head = PoolHead(spec, self.features.chan, out, head, head_dropout, head_norm)

    def forward(self, weights: Weights) -> Float[Tensor, "net out"] | Weights:
        """`net out`, or edited networks."""
        lifted = lift(self.normalise(weights))
        if self.out is None:
            features = self.features.pools(self.lifting, lifted, whole=True)
            if not isinstance(self.last, EquivariantLinear):
                features = _weights(features)
            edited: Weights = self.step(weights, drop_channel(self.last(features), self.spec))
            return edited
        vectors: Tensor = self.head.of_pieces(self.features.in_pieces(self.lifting, lifted))
        return vectors
