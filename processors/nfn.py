"""NFN: lifted weights through linear equivariant layers, then a pool or a learned step.

    Normalise -> lift -> Fourier features -> positions -> (linear, ReLU, dropout) x n
        -> invariant pool -> perceptron                        `net out`
        -> linear to one channel -> U + scale * it             `Weights`

Source: Zhou et al. 2023, NFN, Sec. 3 and App. D; where the released code differs from the
text, the code is followed, and said so.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from processors.base import check_group
from processors.encode import (
    FourierFeatures,
    IOEncoding,
    LearnedEncoding,
    Normalise,
    drop_channel,
    lift,
)
from processors.linear import EquivariantLinear
from processors.pointwise import Activation, ChannelDropout
from processors.pool import InvariantPool
from processors.sizes import POSITIONS, SYMMETRIES
from zoo import NetworkSpec, Weights


class Lifting(nn.Sequential):
    """Gaussian Fourier features of each entry, and the positions of inputs and outputs.

    Args:
        inp: channels that come in.
        fourier: channels of the Fourier features; 0 leaves them out.
        fourier_scale: 10, and 3 for MNIST and editing.
        positions: "sinusoidal" adds channels, "learned" adds to them, or "none".
        max_freq, bands: of the sinusoidal positions; 10 and 6, 3 and 3 for MNIST and editing.

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
    ):
        if positions not in POSITIONS:
            raise ValueError(f"unknown positions {positions!r}; known: {', '.join(POSITIONS)}")
        parts: list[nn.Module] = []
        chan = inp
        if fourier:
            parts.append(FourierFeatures(spec, inp, fourier, fourier_scale))
            chan = fourier
        if positions == "sinusoidal":
            encoding = IOEncoding(spec, chan, max_freq, bands)
            parts.append(encoding)
            chan = encoding.chan
        elif positions == "learned":
            parts.append(LearnedEncoding(spec, chan))
        super().__init__(*parts)
        self.chan = chan


class Features(nn.Sequential):
    """Linear layers of one symmetry, each with ReLU and a dropout of whole channels.

    Args:
        symmetry: "np", "hnp" or "pointwise".
        inp, channels: that come in, and after each layer.
        dropout: of the channels.

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
    ):
        check_group(symmetry, SYMMETRIES)
        parts: list[nn.Module] = []
        for before, after in zip((inp, *channels), channels, strict=False):
            parts.append(EquivariantLinear(spec, symmetry, before, after, pool=pool))
            parts.append(Activation("relu"))
            if dropout:
                parts.append(ChannelDropout(dropout))
        super().__init__(*parts)
        self.chan = channels[-1] if channels else inp


class PoolHead(nn.Sequential):
    """The `hnp` invariant pool with means, whatever the symmetry, and in-w-w-out with ReLU.

    Args:
        inp: channels that come in.
        width: of the two hidden layers.
        dropout: after each ReLU.
    """

    def __init__(
        self, spec: NetworkSpec, inp: int, out: int, width: int = 1000, dropout: float = 0.0
    ):
        pool = InvariantPool(spec, "hnp", inp, pool="mean")
        super().__init__(
            pool,
            nn.Linear(pool.features, width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(width, out),
        )


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

    Sizes that are None are the paper's: 3 x 512 channels, Fourier scale 10, positions 10
    and 6 and dropout 0.5 in the head to classify INRs; 3 x 128, 3, and 3 and 3 to edit.
    For MNIST the paper has Fourier scale 3, positions 3 and 3 and dropout 0.1; for
    generalisation channels 16, 16, 5 and nothing else (`fourier=0, positions="none"`).

    Args:
        out: length of the output; None to edit, `Weights` to `Weights`.
        symmetry: "np", "hnp" or "pointwise" (the ablation, without any mixing of entries).
        channels: after each layer.
        fourier, fourier_scale, positions, max_freq, bands: see `Lifting`; positions are
            "none" by default for "hnp", which sees inputs and outputs anyway.
        dropout: of whole channels.
        head, head_dropout: see `PoolHead`.
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
        statistics: str = "entry",
    ):
        super().__init__()
        check_group(symmetry, SYMMETRIES)
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
        self.lifting = Lifting(spec, 1, fourier, **lifting)
        self.features = Features(spec, symmetry, self.lifting.chan, channels, dropout)
        if out is None:
            self.last = EquivariantLinear(spec, symmetry, self.features.chan, 1)
            self.step = LearnedStep(spec, scale)
        else:
            self.head = PoolHead(spec, self.features.chan, out, head, head_dropout)

    def forward(self, weights: Weights) -> Float[Tensor, "net out"] | Weights:
        """`net out`, or edited networks."""
        features = self.features(self.lifting(lift(self.normalise(weights))))
        if self.out is None:
            edited: Weights = self.step(weights, drop_channel(self.last(features), self.spec))
            return edited
        vectors: Tensor = self.head(features)
        return vectors
