"""From raw weights to channels: normalisation, augmentation, lifting and encodings.

In the order in which they are applied:

    augment      plain weights -> plain weights, in training mode only
    Normalise    plain weights -> plain weights, by statistics kept as buffers
    lift         `net out inp` -> `net out inp 1`; the taps of a conv layer are channels
    FourierFeatures, IOEncoding, LearnedEncoding   channels -> more channels

Augmentations draw for each network on its own, from torch's global generator or from
the one that `forward` is given.
"""

from collections.abc import Mapping
from math import pi
from typing import Any

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

import zoo
from processors import base, fourier
from processors.sizes import STATISTICS
from zoo import NetworkSpec, Weights, symmetry

# The contract: smaller deviations are of entries that do not vary.
_LEAST_STD = 1e-5


class Normalise(nn.Module):
    """(x - mean) / std of plain weights, by the statistics of a zoo.

    The statistics are buffers, saved with the model; a model that is to be loaded is
    built without, and then the identity.

    Args:
        stats: what `zoo.Zoo.stats()` gives; None for the identity.
        kind: "entry", a mean and deviation for each entry, as DWSNets; "tensor", one for each
            tensor, which commutes with permutations; or "none": raw weights, as NFN and
            Monomial-NFN read them.
        group: for "mono-relu" and "mono-sin" no mean is subtracted, which would mix up
            orbits; only `kind="tensor"` then commutes with the group.

    Raises:
        ValueError: for an unknown kind or group, or statistics of another spec.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        stats: Mapping[str, Tensor] | None = None,
        kind: str = "entry",
        group: str = "hnp",
    ):
        super().__init__()
        if kind not in STATISTICS:
            raise ValueError(f"unknown statistics {kind!r}; known: {', '.join(STATISTICS)}")
        base.check_group(group)
        self.kind, self.names = kind, () if kind == "none" else tuple(spec.tensors)
        for name in self.names:
            shape = spec.tensors[name]
            size = tuple(shape) if kind == "entry" else (1,)
            mean, std = torch.zeros(size), torch.ones(size)
            if stats is not None:
                mean = _statistic(stats, f"{kind}.mean.{name}", size)
                std = _statistic(stats, f"{kind}.std.{name}", size)
                std = torch.where(std < _LEAST_STD, 1.0, std)
            if group.startswith("mono"):
                mean = torch.zeros_like(mean)
            # Conv weights [out, inp, kh, kw] are merged as in `Weights`, [out, inp, taps].
            self.register_buffer(f"mean_{name}", mean.flatten(2) if mean.ndim > 2 else mean)
            self.register_buffer(f"std_{name}", std.flatten(2) if std.ndim > 2 else std)

    def forward(self, x: Weights) -> Weights:
        if self.kind == "none":
            return x
        tensors = x.tensors()
        return base.rebuild(
            {
                name: (tensors[name] - getattr(self, f"mean_{name}").to(tensors[name]))
                / getattr(self, f"std_{name}").to(tensors[name])
                for name in self.names
            }
        )

    def extra_repr(self) -> str:
        return self.kind


def _statistic(stats: Mapping[str, Tensor], key: str, size: tuple[int, ...]) -> Tensor:
    if key not in stats or tuple(stats[key].shape) != size:
        got = tuple(stats[key].shape) if key in stats else "none"
        raise ValueError(f"expected statistics {key} of shape {size}, got {got}; see zoo.Zoo.stats")
    return stats[key].to(torch.float32)


def canonical(spec: NetworkSpec, weights: Weights) -> Weights:
    """The networks of the same functions in which signs and scales of neurons are settled.

    Sine and tanh neurons without a negative bias: where it is, their incoming weights, their
    bias and their outgoing weights change sign. ReLU neurons as `zoo.canonical` has them. So
    networks that differ by signs, where no bias is 0, or by positive scales become one.
    """
    new_weights, new_biases = list(weights.weights), list(weights.biases)
    for number, layer in enumerate(spec.layers[:-1]):
        if layer.activation not in ("sin", "tanh"):
            continue
        sign = torch.where(new_biases[number] < 0, -1.0, 1.0).to(new_biases[number])
        inward, outward = new_weights[number], new_weights[number + 1]
        rows = sign.reshape(*sign.shape, *(1 for _ in inward.shape[2:]))
        new_weights[number] = inward * rows
        new_biases[number] = new_biases[number] * sign
        columns = sign.reshape(sign.shape[0], 1, -1, *(1 for _ in outward.shape[3:]))
        new_weights[number + 1] = outward * columns
    return zoo.canonical(spec, Weights(tuple(new_weights), tuple(new_biases)))


def lift(weights: Weights) -> Weights:
    """Plain weights with one channel; the taps of conv weights stay, as channels.

    >>> plain = Weights(weights=(torch.ones(1, 3, 2),), biases=(torch.ones(1, 3),))
    >>> lift(plain).weights[0].shape, lift(plain).biases[0].shape
    (torch.Size([1, 3, 2, 1]), torch.Size([1, 3, 1]))

    Raises:
        ValueError: if the weights have channels already.
    """
    if any(bias.ndim != 2 for bias in weights.biases):
        raise ValueError("lift takes plain weights, these have a channel axis")
    return Weights(
        tuple(w.unsqueeze(3) if w.ndim == 3 else w for w in weights.weights),
        tuple(bias.unsqueeze(2) for bias in weights.biases),
    )


def drop_channel(weights: Weights, spec: NetworkSpec) -> Weights:
    """The inverse of `lift`: plain weights from those with a single channel.

    Raises:
        ValueError: if there are more channels.
    """
    if any(bias.shape[2:] != (1,) for bias in weights.biases):
        raise ValueError(f"expected one channel, got {[b.shape[-1] for b in weights.biases]}")
    return Weights(
        tuple(
            w if layer.kind == "conv" else w.squeeze(3)
            for w, layer in zip(weights.weights, spec.layers, strict=True)
        ),
        tuple(bias.squeeze(2) for bias in weights.biases),
    )


class FourierFeatures(nn.Module):
    """`[sin, cos](2 pi x B)` of each entry, B ~ N(0, scale^2) a fixed buffer.

    Computed in float32 at least, under autocast too: phases reach hundreds of radians. Nothing
    but the entries is kept for backward; see `processors.fourier`.

    Args:
        inp: channels of the entries.
        chan: channels that come out, half sines, half cosines.
        scale: 10 in NFN, 3 for MNIST and editing.

    Raises:
        ValueError: if `chan` is odd.

    Source: Tancik et al. 2020; Zhou et al. 2023 (NFN), App. C.
    """

    def __init__(self, spec: NetworkSpec, inp: int = 1, chan: int = 256, scale: float = 10.0):
        super().__init__()
        if chan % 2:
            raise ValueError(f"half the channels are sines, so they must be even, got {chan}")
        self.taps, self.scale, self.chan = base.taps(spec), scale, chan
        self.frequencies: Tensor
        self.register_buffer("frequencies", scale * torch.randn(inp, chan // 2))

    def encode(self, x: Float[Tensor, "*entry chan"], taps: int) -> Float[Tensor, "*entry feat"]:
        """The features of one tensor."""
        wide = x if x.dtype == torch.float64 else x.float()
        entries = rearrange(wide, "... (chan taps) -> ... taps chan", taps=taps)
        found = fourier.features(entries, self.frequencies.to(wide)).to(x.dtype)
        return rearrange(found, "... taps feat -> ... (feat taps)")

    def forward(self, x: Weights) -> Weights:
        return Weights(
            tuple(self.encode(w, taps) for w, taps in zip(x.weights, self.taps, strict=True)),
            tuple(self.encode(bias, 1) for bias in x.biases),
        )

    def extra_repr(self) -> str:
        return f"chan={self.chan}, scale={self.scale}"


def _waves(count: int, max_freq: float, bands: int) -> Float[Tensor, "position feat"]:
    """Sines and cosines of positions -1..1, in frequencies up to max_freq / 2; the positions."""
    position = torch.linspace(-1, 1, count, dtype=torch.float64)[:, None]
    phase = pi * position * torch.linspace(1, max_freq / 2, bands, dtype=torch.float64)
    return torch.cat([phase.sin(), phase.cos(), position], dim=1)


class IOEncoding(nn.Module):
    """Sinusoidal positions of input and output neurons, concatenated to the channels.

    2 bands + 1 channels hold the waves of the layer's number, plus those of the input
    neuron in the first weights and of the output neuron in the last weights and biases.
    It makes NP layers see which input or output they are at.

    Args:
        inp: channels that come in.
        max_freq, bands: 10 and 6, 3 and 3 for MNIST and editing.
        layers: whether the layer's number is encoded, else zero.

    Source: NFN's released `IOSinusoidalEncoding`; the paper (App. C) does not mention
    the layer's number.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        inp: int,
        max_freq: float = 10.0,
        bands: int = 6,
        layers: bool = True,
    ):
        super().__init__()
        self.taps = base.taps(spec)
        self.extra = 2 * bands + 1
        self.chan = inp + self.extra
        depth = len(spec.layers)
        numbers = _waves(depth, max_freq, bands) * layers
        inputs, outputs = (_waves(width, max_freq, bands) for width in (spec.inp, spec.out))
        for layer in range(depth):
            weight, bias = numbers[layer].expand(1, 1, -1), numbers[layer].expand(1, -1)
            if layer == 0:
                weight = weight + inputs[None, :]
            if layer == depth - 1:
                weight, bias = weight + outputs[:, None], bias + outputs
            # Known from the spec, so not worth a place in the state dict.
            self.register_buffer(f"weight_{layer}", weight.float(), persistent=False)
            self.register_buffer(f"bias_{layer}", bias.float(), persistent=False)

    def forward(self, x: Weights) -> Weights:
        weights, biases = [], []
        for layer, (weight, bias) in enumerate(zip(x.weights, x.biases, strict=True)):
            wave = getattr(self, f"weight_{layer}").to(weight)
            wave = repeat(wave, "out inp feat -> out inp (feat taps)", taps=self.taps[layer])
            weights.append(torch.cat([weight, wave.expand(*weight.shape[:-1], -1)], dim=-1))
            wave = getattr(self, f"bias_{layer}").to(bias)
            biases.append(torch.cat([bias, wave.expand(*bias.shape[:-1], -1)], dim=-1))
        return Weights(tuple(weights), tuple(biases))


class LearnedEncoding(nn.Module):
    """A learned vector of each layer, input and output neuron, added to the channels.

    Source: NFN's released `LearnedPosEmbedding`, N(0, 1) at the start.
    """

    def __init__(self, spec: NetworkSpec, chan: int):
        super().__init__()
        self.taps = base.taps(spec)
        depth = len(spec.layers)
        self.weight_layer = nn.Parameter(torch.randn(depth, chan))
        self.bias_layer = nn.Parameter(torch.randn(depth, chan))
        self.inputs = nn.Parameter(torch.randn(spec.inp, chan))
        self.outputs = nn.Parameter(torch.randn(spec.out, chan))

    def forward(self, x: Weights) -> Weights:
        weights, biases = [], []
        for layer, (weight, bias) in enumerate(zip(x.weights, x.biases, strict=True)):
            for_weight = self.weight_layer[layer].expand(1, 1, -1)
            for_bias = self.bias_layer[layer]
            if layer == 0:
                for_weight = for_weight + self.inputs[None, :]
            if layer == x.layers - 1:
                for_weight = for_weight + self.outputs[:, None]
                for_bias = for_bias + self.outputs
            taps = self.taps[layer]
            weights.append(
                weight + repeat(for_weight, "out inp chan -> out inp (chan taps)", taps=taps)
            )
            biases.append(bias + for_bias)
        return Weights(tuple(weights), tuple(biases))


class InputOutputEmbedding(nn.Module):
    """Learned vectors of the inputs and outputs, added in front of one layer.

    Of the input neurons in the first weights, of the output neurons in the last weights and,
    others, in the last biases. With one in front of every layer NP layers see all the way
    which input or output they are at.

    Source: NFN's released `NPLinear` with `io_embed`, N(0, 1) at the start.
    """

    def __init__(self, spec: NetworkSpec, chan: int):
        super().__init__()
        taps = base.taps(spec)
        self.inputs = nn.Parameter(torch.randn(spec.inp, chan * taps[0]))
        self.outputs = nn.Parameter(torch.randn(spec.out, chan * taps[-1]))
        self.bias = nn.Parameter(torch.randn(spec.out, chan))

    def forward(self, x: Weights) -> Weights:
        weights, biases = list(x.weights), list(x.biases)
        weights[0] = weights[0] + self.inputs
        weights[-1] = weights[-1] + self.outputs[:, None]
        biases[-1] = biases[-1] + self.bias
        return Weights(tuple(weights), tuple(biases))


def _uniform(x: Weights, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    """U(-1, 1) on the weights' device, drawn where the generator lives."""
    device = generator.device if generator is not None else x.device
    return (2 * torch.rand(shape, generator=generator, device=device) - 1).to(x.weights[0])


def _normal_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    device = generator.device if generator is not None else x.device
    return torch.randn(x.shape, generator=generator, device=device).to(x)


def move_picture(
    spec: NetworkSpec,
    weights: Weights,
    degrees: Float[Tensor, " net"] | float = 0.0,
    shift: Float[Tensor, "net coord"] | float = 0.0,
    zoom: Float[Tensor, " net"] | float = 1.0,
    turn: Float[Tensor, "net 3 3"] | None = None,
) -> Weights:
    """The networks of the enlarged, then turned, then shifted pictures or shapes; exact, layer 1.

    The new picture at p is the old one at A (p - m - shift) + m, m the middle of the
    picture: W <- W A and b <- b + W t. A picture keeps the spec's coordinate range in
    both directions, so turning one that is not square also stretches it. What a shape says of
    a point moves with it, so that after a zoom distances are no longer those of space.

    Args:
        degrees: counter-clockwise as the picture is seen, rows downwards: 90 is
            `torch.rot90` over (row, column).
        shift: (right, down) in coordinates, whatever their order; one number for
            networks of one coordinate, (x, y, z) for those of space.
        zoom: 2 shows everything twice as large.
        turn: rotations of x, y, z, of networks of space alone; see `random_turns`.

    Raises:
        ValueError: if the inputs are not coordinates, or encoded ones, or cannot be turned so.
    """
    refuse_unmovable(spec)
    plane = len(spec.axes) == 2
    first = weights.weights[0]
    angle, enlarge = (torch.as_tensor(v).to(first).expand(len(first)) for v in (degrees, zoom))
    if not plane and bool((angle != 0).any()):
        raise ValueError(
            f"networks of {spec.inp} coordinates cannot be turned by degrees, only those of two; "
            "those of three take turn"
        )
    if turn is not None and spec.inp != 3:
        raise ValueError(f"turn is for networks of space, these take {spec.inp} coordinates")
    offset = torch.as_tensor(shift).to(first).expand(len(first), spec.inp)
    if plane:
        angle = torch.deg2rad(angle)
        if spec.axes[0] == "row":
            # (row, column): the plane is seen from behind, and shifts are (down, right).
            angle, offset = -angle, offset.flip(1)
        cos, sin = angle.cos(), angle.sin()
        matrix = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
    elif turn is not None:
        # The shape turned is the old one at points turned back.
        matrix = turn.to(first).transpose(1, 2)
    else:
        matrix = torch.eye(spec.inp).to(first).expand(len(first), -1, -1)
    matrix = matrix / enlarge[:, None, None]
    middle = torch.full_like(offset, sum(spec.coord_range) / 2)
    # Sums of products, which autocast leaves alone: bfloat16 would blur the picture.
    moved = middle - (matrix * (middle + offset)[:, None]).sum(dim=2)
    bias = weights.biases[0] + (first * moved[:, None]).sum(dim=2)
    weight = (first[:, :, :, None] * matrix[:, None]).sum(dim=2)
    return Weights((weight, *weights.weights[1:]), (bias, *weights.biases[1:]))


def refuse_unmovable(spec: NetworkSpec) -> None:
    """Raise ValueError unless what the networks show can be moved by their first layer."""
    if spec.frequencies:
        raise ValueError(
            f"networks that read {len(spec.frequencies)} Fourier features cannot be moved: their "
            "first layer sees no coordinates"
        )
    if not spec.axes or spec.inp != len(spec.axes):
        raise ValueError(f"only networks of coordinates can be moved, these take {spec.inp} inputs")


def random_turns(
    count: int, degrees: float = 180.0, generator: torch.Generator | None = None
) -> Float[Tensor, "net 3 3"]:
    """Rotations of space, uniform among those by at most so many degrees.

    The axis is uniform on the sphere; the angle t has the density 1 - cos t of Haar's measure,
    so that 180 degrees give all orientations alike. By Rodrigues' formula, float64, on the CPU
    or where the generator lives.
    """
    device = generator.device if generator is not None else torch.device("cpu")
    kind: dict[str, Any] = {"generator": generator, "device": device, "dtype": torch.float64}
    axis = torch.nn.functional.normalize(torch.randn(count, 3, **kind), dim=1)
    most = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    wanted = torch.rand(count, **kind) * (most - most.sin())
    low, high = torch.zeros_like(wanted), torch.full_like(wanted, float(most))
    for _ in range(48):  # t - sin t rises: halve until it is exact
        middle = (low + high) / 2
        above = middle - middle.sin() > wanted
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    angle = ((low + high) / 2)[:, None, None]
    x, y, z = axis.unbind(1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).reshape(-1, 3, 3)
    outer = cross @ cross
    return (
        torch.eye(3, device=device, dtype=torch.float64)
        + angle.sin() * cross
        + (1 - angle.cos()) * outer
    )


class MovePicture(nn.Module):
    """Random turn, shift and zoom of every network's picture or shape, by `move_picture`.

    Args:
        degrees: turns are uniform in +-degrees; of shapes see `random_turns`.
        shift: shifts are uniform in +-shift, in coordinates, in every direction.
        zoom: zooms are uniform in 1 +- zoom.

    Source: Navon et al. 2023, App. J; sizes from their code, which shifts inexactly
    in deeper layers.
    """

    def __init__(
        self, spec: NetworkSpec, degrees: float = 45.0, shift: float = 0.25, zoom: float = 0.2
    ):
        super().__init__()
        self.spec, self.shift, self.zoom, self.degrees = spec, shift, zoom, degrees

    def forward(self, x: Weights, generator: torch.Generator | None = None) -> Weights:
        if not self.training:
            return x
        nets, inp = len(x), self.spec.inp
        # Drawn in every case, so that waves are moved as they always were.
        degrees = (self.degrees if inp == 2 else 0.0) * _uniform(x, (nets,), generator)
        shift = self.shift * _uniform(x, (nets, inp), generator)
        zoom = 1 + self.zoom * _uniform(x, (nets,), generator)
        turn = random_turns(nets, self.degrees, generator) if inp == 3 and self.degrees else None
        return move_picture(self.spec, x, degrees, shift, zoom, turn)


class GaussianNoise(nn.Module):
    """Independent Gaussian noise on every entry.

    Args:
        scale: its standard deviation, in units of the deviation of the tensor's entries
            in each network (a tensor of one entry then stays), or, if not `relative`, as
            it is.

    Source: Navon et al. 2023, App. J. Their code adds the constant scale * std instead.
    """

    def __init__(self, scale: float = 0.1, relative: bool = True):
        super().__init__()
        self.scale, self.relative = scale, relative

    def _noisy(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        noise = self.scale * _normal_like(x, generator)
        if self.relative:
            flat = x.flatten(1)
            # Tensor.std takes 20 times as long on the CPU.
            std = (flat - flat.mean(dim=1, keepdim=True)).square().mean(dim=1).sqrt()
            noise = noise * std.reshape(-1, *(1 for _ in x.shape[1:]))
        return x + noise

    def forward(self, x: Weights, generator: torch.Generator | None = None) -> Weights:
        return x.map(lambda tensor: self._noisy(tensor, generator)) if self.training else x


class EntryDropout(nn.Module):
    """Sets entries to zero, each with probability p, and divides the others by 1 - p.

    Raises:
        ValueError: if p is not in [0, 1).
    """

    def __init__(self, p: float = 0.01):
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"expected a probability in [0, 1), got {p}")
        self.p = p

    def _dropped(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        device = generator.device if generator is not None else x.device
        kept = torch.rand(x.shape, generator=generator, device=device) >= self.p
        return x * kept.to(x) / (1 - self.p)

    def forward(self, x: Weights, generator: torch.Generator | None = None) -> Weights:
        return x.map(lambda tensor: self._dropped(tensor, generator)) if self.training else x


class RandomSymmetry(nn.Module):
    """A random element of the network's symmetries acts on each; the function stays.

    Args:
        kinds: of "permutation", "sign", "scale" and "phase"; all that keep the function of
            this spec by default.
        log_scale: standard deviation of the scales' natural logarithm.

    Raises:
        ValueError: for an unknown kind, or one that would change the function.
    """

    def __init__(
        self, spec: NetworkSpec, kinds: tuple[str, ...] | None = None, log_scale: float = 1.0
    ):
        super().__init__()
        kept = symmetry.kept_by(spec)
        self.spec, self.kinds, self.log_scale = spec, kept if kinds is None else kinds, log_scale
        if set(self.kinds) - set(kept):
            raise ValueError(
                f"expected symmetries that keep the function ({', '.join(kept)}), got "
                f"{', '.join(self.kinds)}"
            )

    def forward(self, x: Weights, generator: torch.Generator | None = None) -> Weights:
        """`generator`, if given, must be on the CPU, where symmetries are drawn."""
        if not self.training:
            return x
        drawn = symmetry.sample(
            self.spec, len(x), self.kinds, generator, self.log_scale, dtype=x.dtype
        )
        return symmetry.apply(drawn, x, self.spec)
