"""What equivariant processors are compared with: `Weights -> net out`, not equivariant.

Each takes raw, plain weights and normalises them itself. Depth is that of the processor
it stands beside (`hidden=4` for DWSNets), and the width is solved for so that the number
of parameters is `params`, unless `width` is given. Outputs are plain: no sigmoid before a
cross-entropy, which NFN's released MLP has.

Source: Navon et al. 2023, Sec. 7 and App. J (all but StatNN: ReLU, batch normalisation,
matched depth and parameters); Zhou et al. 2023, NFN (StatNN).
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from processors import align, matching
from processors.encode import Normalise, RandomSymmetry
from processors.progress import Workplace
from processors.rows import Rows
from zoo import NetworkSpec, Weights, symmetry

# The published size of all methods on MNIST INRs.
PARAMS = 550_000
QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


def count_params(module: nn.Module) -> int:
    """The number of trainable parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def solve_width(make: Callable[[int], nn.Module], params: int, step: int = 1) -> int:
    """The multiple of `step` for which `make(width)` has nearest to `params` parameters.

    Modules are made without memory, on the meta device.

    Raises:
        ValueError: if even the smallest is more than twice too large.
    """

    def count(width: int) -> int:
        with torch.device("meta"):
            return count_params(make(width * step))

    low, high = 1, 2
    while count(high) < params:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) < params else (low, middle)
    best = min((low, high), key=lambda width: abs(count(width) - params))
    if count(best) > 2 * params:
        raise ValueError(f"expected {params} parameters, but width {best * step} has {count(best)}")
    return best * step


def _perceptron(
    inp: int, width: int, out: int, hidden: int, norm: bool = True, dropout: float = 0.0
) -> nn.Sequential:
    """`hidden` times (linear, norm, ReLU, dropout), and a linear layer."""
    layers: list[nn.Module] = []
    for number in range(hidden):
        layers.append(nn.Linear(width if number else inp, width))
        if norm:
            layers.append(nn.BatchNorm1d(width))
        layers.append(nn.ReLU())
        if dropout:
            layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(width, out))


class MLP(nn.Module):
    """A multilayer perceptron on the flat vector of weights.

    Args:
        out: length of the output.
        hidden: hidden layers, each with batch normalisation, ReLU and dropout.
        norm: whether there is batch normalisation; NFN's has none, and 3 x 1,000 on raw weights.
        stats, statistics: see `encode.Normalise`.
        params: what the width is solved for, unless `width` is given.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        out: int,
        hidden: int = 4,
        width: int | None = None,
        params: int = PARAMS,
        dropout: float = 0.0,
        norm: bool = True,
        stats: Mapping[str, Tensor] | None = None,
        statistics: str = "entry",
    ):
        super().__init__()
        self.spec = spec
        self.normalise = Normalise(spec, stats, statistics)

        def make(width: int) -> nn.Module:
            return _perceptron(spec.param_count, width, out, hidden, norm, dropout)

        self.width = width or solve_width(make, params)
        self.resolved = {"width": self.width}
        self.layers = make(self.width)

    def order(self, weights: Weights) -> Weights:
        """The networks with their neurons in the order that is read."""
        return weights

    def read(self, weights: Weights) -> Float[Tensor, "net out"]:
        """The output for networks in that order."""
        return self.layers(self.normalise(weights).flatten())

    def forward(self, weights: Weights) -> Float[Tensor, "net out"]:
        return self.read(self.order(weights))


class AugmentedMLP(MLP):
    """`MLP`, trained on randomly permuted networks; evaluated on them as they are."""

    def __init__(self, spec: NetworkSpec, out: int, **options: object):
        super().__init__(spec, out, **options)  # type: ignore[arg-type]
        self.augment = RandomSymmetry(spec, ("permutation",))

    def order(self, weights: Weights) -> Weights:
        """A random one in training mode."""
        return self.augment(weights)


class AlignedMLP(MLP):
    """`MLP` on networks after weight matching to a reference, which is saved with it.

    Call `fit_reference` with the training networks first; without, nothing is aligned.
    Matching takes from 0.6 ms a network (2-32-32-1) to 40 ms (hidden layers of 128) and
    runs on the CPU, so a training aligns its data once, by `prepare`.

    Args:
        stats: see `encode.Normalise`; with the "reference" that `prepare` adds, `1 param`,
            the networks that come in are taken for aligned already.

    Attributes:
        aligned: the networks that come in are aligned already; not saved.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        out: int,
        stats: Mapping[str, Tensor] | None = None,
        **options: object,
    ):
        super().__init__(spec, out, stats=stats, **options)  # type: ignore[arg-type]
        self.reference: Tensor
        self.register_buffer("reference", torch.zeros(1, spec.param_count))
        self.aligned = stats is not None and "reference" in stats
        if stats is not None and self.aligned:
            self.reference.copy_(stats["reference"])

    @staticmethod
    def prepare(data: Mapping[str, Rows], place: Workplace) -> Mapping[str, Tensor]:
        """Align the networks of all splits; the statistics that the model is built with."""
        return matching.align_splits(data, place)

    def fit_reference(
        self, weights: Weights, sample: int = 1000, generator: torch.Generator | None = None
    ) -> None:
        """Set the reference to the mean of an aligned sample of these networks."""
        found = align.align(self.spec, weights, sample=sample, generator=generator)
        self.reference.copy_(found.reference.flatten())

    def _align(self, weights: Weights) -> Weights:
        reference = Weights.unflatten(self.reference, self.spec)
        return symmetry.apply(align.match(self.spec, weights, reference), weights)

    def order(self, weights: Weights) -> Weights:
        """That of the reference."""
        if self.aligned:
            return weights
        # As a decorator it would load the compiler, which takes seconds, with this module.
        compiling = torch.compiler.is_compiling()
        match = torch.compiler.disable(self._align) if compiling else self._align
        return match(weights)


def weight_rows(spec: NetworkSpec, weights: Weights) -> Float[Tensor, "net row feat"]:
    """The rows of all weights and every bias as one more row, padded with zeros.

    Rows of conv weights have their taps side by side.
    """
    length = row_length(spec)
    rows = []
    for weight, bias in zip(weights.weights, weights.biases, strict=True):
        for matrix in (weight.flatten(2), bias[:, None]):
            rows.append(pad(matrix, (0, length - matrix.shape[2])))
    return torch.cat(rows, dim=1)


def row_length(spec: NetworkSpec) -> int:
    """The longest row of `weight_rows`."""
    return max(max(layer.fan_in, layer.out) for layer in spec.layers)


class _RowNorm(nn.BatchNorm1d):
    """Batch normalisation over networks and rows."""

    def forward(self, x: Float[Tensor, "net row feat"]) -> Float[Tensor, "net row feat"]:
        return super().forward(x.flatten(0, 1)).view(x.shape)


class INR2Vec(nn.Module):
    """The INR2Vec encoder: rows of weights as a set, a shared perceptron, max pool, linear.

    Trained from scratch. The first half of the hidden layers has half of `width`, as the
    paper's 512-512-1024-1024.

    Source: De Luigi et al. 2023, Sec. 3 and App.; without pre-training, as in Navon et
    al. 2023. All rows are taken, those of the first and last layer too.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        out: int,
        hidden: int = 4,
        width: int | None = None,
        params: int = PARAMS,
        stats: Mapping[str, Tensor] | None = None,
        statistics: str = "entry",
    ):
        super().__init__()
        self.spec = spec
        self.normalise = Normalise(spec, stats, statistics)

        def make(width: int) -> nn.ModuleList:
            layers: list[nn.Module] = []
            inp = row_length(spec)
            for number in range(hidden):
                size = width if 2 * number >= hidden else max(1, width // 2)
                layers += [nn.Linear(inp, size), _RowNorm(size), nn.ReLU()]
                inp = size
            return nn.ModuleList([nn.Sequential(*layers), nn.Linear(inp, out)])

        self.width = width or solve_width(make, params)
        self.resolved = {"width": self.width}
        self.encoder, self.head = make(self.width)

    def forward(self, weights: Weights) -> Float[Tensor, "net out"]:
        rows = self.encoder(weight_rows(self.spec, self.normalise(weights)))
        return self.head(rows.amax(dim=1))


class _Block(nn.Module):
    """Self-attention and a perceptron, each after a layer norm and with a skip."""

    def __init__(self, width: int, inner: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_inner = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.inner = nn.Sequential(nn.Linear(width, inner), nn.ReLU(), nn.Linear(inner, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "net row feat"]) -> Float[Tensor, "net row feat"]:
        projected = self.project(self.before_attention(x))
        axes = "net row (qkv head feat) -> qkv net head row feat"
        query, key, value = rearrange(projected, axes, qkv=3, head=self.heads).unbind()
        mixed = scaled_dot_product_attention(query, key, value)
        mixed = rearrange(mixed, "net head row feat -> net row (head feat)")
        x = x + self.dropout(self.mix(mixed))
        return x + self.dropout(self.inner(self.before_inner(x)))


class Transformer(nn.Module):
    """A transformer encoder with rows of weights, and the biases, as tokens.

    Every layer's rows have a linear map of their own, and each token a learned position;
    the mean over tokens gives the output.

    Args:
        hidden: attention blocks.
        width, inner: of the tokens, a multiple of `heads`, and inside the perceptrons;
            solved for unless given, inner close to twice the width.

    Raises:
        ValueError: for a width that is no multiple of `heads`.

    Source: Schuerholt et al. 2021, after Navon et al. 2023, App. A; before each part a
    layer norm, which trains without warm-up.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        out: int,
        hidden: int = 4,
        width: int | None = None,
        inner: int | None = None,
        params: int = PARAMS,
        heads: int = 8,
        dropout: float = 0.0,
        stats: Mapping[str, Tensor] | None = None,
        statistics: str = "entry",
    ):
        super().__init__()
        self.normalise = Normalise(spec, stats, statistics)
        # (length, tokens) of every layer's weights, then its bias.
        sizes = [
            size for layer in spec.layers for size in ((layer.fan_in, layer.out), (layer.out, 1))
        ]
        tokens = sum(count for _, count in sizes)

        def make(width: int, inner: int) -> nn.ModuleDict:
            blocks = [_Block(width, inner, heads, dropout) for _ in range(hidden)]
            return nn.ModuleDict(
                {
                    "embed": nn.ModuleList(nn.Linear(length, width) for length, _ in sizes),
                    "position": nn.Embedding(tokens, width),
                    "blocks": nn.Sequential(*blocks, nn.LayerNorm(width)),
                    "head": nn.Linear(width, out),
                }
            )

        if width and width % heads:
            raise ValueError(
                f"width must be a multiple of heads, got {width} and {heads}; set either of them"
            )
        # Widths come in multiples of the heads, so the perceptrons make up the rest.
        self.width = width or solve_width(lambda w: make(w, 2 * w), params, step=heads)
        if width and not inner:
            inner = 2 * width
        self.inner = inner or solve_width(lambda i: make(self.width, i), params)
        self.resolved = {"width": self.width, "inner": self.inner}
        parts = make(self.width, self.inner)
        self.embed, self.position = parts["embed"], parts["position"]
        self.blocks, self.head = parts["blocks"], parts["head"]

    def forward(self, weights: Weights) -> Float[Tensor, "net out"]:
        tensors = self.normalise(weights).tensors().values()
        tokens = [
            # A bias is a single token.
            embed(tensor.flatten(2) if tensor.ndim > 2 else tensor[:, None])
            for embed, tensor in zip(self.embed.children(), tensors, strict=True)
        ]
        x = torch.cat(tokens, dim=1) + self.position.get_parameter("weight")
        return self.head(self.blocks(x).mean(dim=1))


def statistics_of(weights: Weights) -> Float[Tensor, "net feat"]:
    """Mean, variance and the quantiles 0, 25, 50, 75 and 100% of every tensor.

    Variances are divided by the number of entries: the unbiased ones of the released
    code are undefined for a single entry. Quantiles interpolate linearly.
    """
    features = []
    for tensor in weights.tensors().values():
        entries = tensor.flatten(1)
        # torch.quantile refuses more than 16 million entries.
        ordered = _ascending(entries)
        last = entries.shape[1] - 1
        quantiles = [
            torch.lerp(ordered[:, int(at)], ordered[:, min(int(at) + 1, last)], at - int(at))
            for at in (q * last for q in QUANTILES)
        ]
        mean = entries.mean(dim=1)
        # On a CPU Tensor.var over rows takes many times as long as its definition.
        spread = (entries - mean[:, None]).square().mean(dim=1)
        features += [mean, spread, *quantiles]
    return torch.stack(features, dim=1)


def _ascending(entries: Float[Tensor, "net entry"]) -> Float[Tensor, "net entry"]:
    """Each row sorted. On a CPU by NumPy, many times faster, where no gradient is wanted."""
    tracked = entries.requires_grad or torch.compiler.is_compiling()
    if entries.device.type != "cpu" or entries.dtype != torch.float32 or tracked:
        return entries.sort(dim=1).values
    return torch.from_numpy(np.sort(entries.numpy(), axis=1))


class StatNN(nn.Module):
    """A perceptron on statistics of every tensor; knows nothing of single weights.

    Has 1.06M parameters for the Small CNN Zoo with the default width and out = 1.

    Args:
        width: of the hidden layers, 1,000 by default; with `params` it is solved for,
            unless it is given.

    Source: Unterthiner et al. 2020; head of NFN's released `StatNet`, without its
    sigmoid.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        out: int,
        hidden: int = 2,
        width: int | None = None,
        params: int | None = None,
        dropout: float = 0.0,
        stats: Mapping[str, Tensor] | None = None,
        statistics: str = "tensor",
    ):
        super().__init__()
        self.normalise = Normalise(spec, stats, statistics)
        features = (2 + len(QUANTILES)) * len(spec.tensors)

        def make(width: int) -> nn.Module:
            return _perceptron(features, width, out, hidden, norm=False, dropout=dropout)

        self.width = width or (solve_width(make, params) if params else 1000)
        self.resolved = {"width": self.width}
        self.layers = make(self.width)

    def forward(self, weights: Weights) -> Float[Tensor, "net out"]:
        return self.layers(statistics_of(self.normalise(weights)))
