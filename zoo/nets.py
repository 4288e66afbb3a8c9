"""Initialises and evaluates networks, all of a batch at once.

Initial weights are numpy arrays from `zoo.philox`, so every engine starts from the
same bytes; evaluation is plain torch, differentiable and on any device.
"""

from collections.abc import Callable, Iterator, Sequence
from math import pi, sqrt
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor, nn

from zoo import philox
from zoo.spec import INIT_SCHEMES, Layer, NetworkSpec
from zoo.weights import Weights

# Values of the widest layer that `pictures` holds at a time.
_RENDERED = 1 << 22
_NO_SHAPES = "these networks do not stand for shapes: their spec names no signal"


def bounds(spec: NetworkSpec, scheme: str) -> list[tuple[float, float]]:
    """Bounds of the uniform initialisation, (weight, bias) of each layer.

    Schemes, with r = 1/sqrt(fan_in) (the default of `torch.nn.Linear`):
        "dws": W sqrt(6/fan_in)/omega and b = 0 in every sine layer, the first
            included (the released code never sets `is_first`); last layer r and r.
        "nfn": first W 1/fan_in (Sitzmann et al. 2020, Sec. 3.2), further W
            sqrt(6/fan_in)/omega, the last too, where omega is that of the layer
            before; every b is r.
        "torch": r and r everywhere, for other activations than sine. With these, whose omega
            is 1, the hidden weights of the others are those of He et al. 2015.

    Raises:
        ValueError: for an unknown scheme.
    """
    if scheme not in INIT_SCHEMES:
        raise ValueError(f"unknown init {scheme!r}; known: {', '.join(INIT_SCHEMES)}")
    found = []
    last = len(spec.layers) - 1
    omega = spec.layers[0].omega
    for number, layer in enumerate(spec.layers):
        default = 1 / sqrt(layer.fan_in)
        omega = layer.omega if number < last else omega
        siren = sqrt(6 / layer.fan_in) / omega
        if scheme == "torch" or (scheme == "dws" and number == last):
            found.append((default, default))
        elif scheme == "dws":
            found.append((siren, 0.0))
        elif number == 0:
            found.append((1 / layer.fan_in, default))
        else:
            found.append((siren, default))
    return found


def initialise(
    spec: NetworkSpec,
    scheme: str,
    seed: int,
    index: NDArray[np.int64],
    view: NDArray[np.int64],
    attempt: int = 0,
) -> NDArray[np.float32]:
    """`net param`: fresh networks in storage order, one for each (index, view).

    Entry e of a network takes the e-th uniform of its stream, whatever its bound, so
    that schemes share their draws.
    """
    uniforms = philox.uniforms(seed, attempt, index, view, philox.INIT, spec.param_count)
    bound = np.concatenate(
        [
            np.full(int(np.prod(shape)), side)
            for shapes, sides in zip(
                zip(spec.weight_shapes, spec.bias_shapes, strict=True),
                bounds(spec, scheme),
                strict=True,
            )
            for shape, side in zip(shapes, sides, strict=True)
        ]
    )
    return ((2.0 * uniforms - 1.0) * bound).astype(np.float32)


def coordinates(spec: NetworkSpec, rows: int, columns: int) -> NDArray[np.float32]:
    """`point coord`: the grid of a picture, points in row-major order.

    Coordinates run over `spec.coord_range`, both ends included; their order is
    `spec.coord_order`. A single row or column lies at the first coordinate.
    """
    first, last = spec.coord_range
    row = np.linspace(first, last, rows)
    column = np.linspace(first, last, columns)
    by_row, by_column = np.meshgrid(row, column, indexing="ij")
    grids = {"column": by_column, "row": by_row}
    return np.stack([grids[axis].ravel() for axis in spec.axes], axis=1).astype(np.float32)


def line(spec: NetworkSpec, points: int) -> NDArray[np.float32]:
    """`point 1`: equally spaced inputs of a one-dimensional INR, both ends included."""
    first, last = spec.coord_range
    return np.linspace(first, last, points).astype(np.float32)[:, None]


_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "leaky_relu": nn.functional.leaky_relu,
    "elu": nn.functional.elu,
    "gelu": nn.functional.gelu,
    "silu": nn.functional.silu,
    "sigmoid": torch.sigmoid,
}


def _activate(layer: Layer, x: Tensor) -> Tensor:
    if layer.activation == "identity":
        return x
    if layer.activation == "sin":
        return torch.sin(layer.omega * x)
    return _FUNCTIONS[layer.activation](x)


def _conv(layer: Layer, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`net item inp row col` -> `net item out row col`, one group a network."""
    nets = weight.shape[0]
    merged = nn.functional.conv2d(
        rearrange(x, "net item inp row col -> item (net inp) row col"),
        weight.reshape(nets * layer.out, layer.inp, *layer.kernel),
        rearrange(bias, "net out -> (net out)"),
        stride=layer.stride,
        padding=layer.padding,
        groups=nets,
    )
    return rearrange(merged, "item (net out) row col -> net item out row col", net=nets)


def encode(spec: NetworkSpec, x: Float[Tensor, "*item inp"]) -> Float[Tensor, "*item first"]:
    """What the first layer reads of inputs: they themselves, or their Fourier features.

    These are sin(2 pi B x), then cos(2 pi B x), with B the frequencies of the spec.

    Source: Tancik et al. 2020, "Fourier Features Let Networks Learn High Frequency Functions in
    Low Dimensional Domains", Sec. 5; sines and cosines in the order that is usual in code.
    """
    if not spec.frequencies:
        return x
    turns = torch.tensor(spec.frequencies, dtype=torch.float32).to(x)
    # Products and sums in a fixed order: a matrix product rounds by the shape of the batch.
    parts = [x[..., axis, None] * turns[:, axis] for axis in range(spec.inputs)]
    phase = 2 * pi * sum(parts[1:], parts[0])
    return torch.cat([phase.sin(), phase.cos()], dim=-1)


Inputs = (
    Float[Tensor, "item inp"]
    | Float[Tensor, "net item inp"]
    | Float[Tensor, "item inp row col"]
    | Float[Tensor, "net item inp row col"]
)


def forward(
    spec: NetworkSpec,
    weights: Weights,
    x: Inputs,
    factors: Sequence[Float[Tensor, "net item _"]] | None = None,
) -> Float[Tensor, "net item out"]:
    """Every network's output on shared inputs, or on inputs of its own.

    Args:
        x: `item inp` (conv: `item inp row col`) for all networks, or the same with a
            leading `net`. An encoding of the spec is applied here.
        factors: of every hidden layer's activations, for dropout; of a conv layer each
            holds for a whole map.

    Raises:
        ValueError: if the weights or inputs do not fit the spec.
    """
    for last in _layers(spec, weights, x, factors):
        x = last
    return x + spec.output_offset


def activations(spec: NetworkSpec, weights: Weights, x: Inputs) -> list[Tensor]:
    """What every layer gives on the inputs, `net item out` or of a conv layer its maps.

    The last is the output, its offset included; inputs and errors are those of `forward`.
    """
    *hidden, last = _layers(spec, weights, x, None)
    return [*hidden, last + spec.output_offset]


def _layers(
    spec: NetworkSpec, weights: Weights, x: Tensor, factors: Sequence[Tensor] | None
) -> Iterator[Tensor]:
    """What every layer gives, in order; see `forward`."""
    shapes = [(w.shape[1], w.shape[2]) for w in weights.weights]
    if shapes != [(layer.out, layer.inp) for layer in spec.layers]:
        raise ValueError(f"the weights {shapes} are not of a {spec.widths} network")
    item_axes = 4 if spec.layers[0].kind == "conv" else 2
    sizes = tuple(x.shape[-item_axes:])
    if x.ndim not in (item_axes, item_axes + 1) or sizes[1] != spec.inputs:
        raise ValueError(f"expected inputs (item, {spec.inputs}, ...), got {sizes}")
    x = encode(spec, x)
    if x.ndim == item_axes:
        x = x.expand(len(weights), *x.shape)
    layers = zip(spec.layers, weights.weights, weights.biases, strict=True)
    for number, (layer, weight, bias) in enumerate(layers):
        if layer.kind == "conv":
            x = _conv(layer, x, weight, bias)
        else:
            x = x.mean(dim=(-2, -1)) if x.ndim == 5 else x
            x = torch.baddbmm(bias[:, None, :], x, weight.transpose(1, 2))
        x = _activate(layer, x)
        if factors is not None and number < len(factors):
            x = x * factors[number].reshape(*factors[number].shape, *[1] * (x.ndim - 3))
        yield x


def render(
    spec: NetworkSpec, weights: Weights, rows: int, columns: int
) -> Float[Tensor, "net row column chan"]:
    """Pictures of image INRs, black 0 and white 1, not clipped; any resolution.

    Raises:
        ValueError: if the networks do not take two coordinates.
    """
    if len(spec.axes) != 2:
        raise ValueError(
            f"only networks of two coordinates render as pictures, these take {spec.inputs} inputs"
        )
    grid = torch.from_numpy(coordinates(spec, rows, columns)).to(weights.weights[0])
    with torch.no_grad():
        values = forward(spec, weights, grid)
    black, white = spec.pixel_range
    pixels = (values - black) / (white - black)
    return rearrange(pixels, "net (row column) chan -> net row column chan", row=rows)


def pictures(
    spec: NetworkSpec, weights: Weights, rows: int, columns: int
) -> UInt8[np.ndarray, "net row column chan"]:
    """What `render` gives, rounded to 8 bits: black 0 and white 255, clipped.

    Raises:
        ValueError: if the networks do not take two coordinates.
    """
    step = max(1, _RENDERED // (rows * columns * max(spec.widths[1:])))
    parts = [
        render(spec, weights[start : start + step], rows, columns)
        for start in range(0, max(len(weights), 1), step)
    ]
    pixels = [(part.nan_to_num(nan=0.0).clamp(0, 1) * 255).round() for part in parts]
    return torch.cat([part.to(torch.uint8) for part in pixels]).numpy()


def field(
    spec: NetworkSpec,
    weights: Weights,
    points: Float[Tensor, "point 3"] | Float[Tensor, "net point 3"],
) -> Float[Tensor, "net point"]:
    """What networks of shapes say of points: a distance, negative inside, or an occupancy.

    The conventions of the spec say which, and how it follows from the output.

    Raises:
        ValueError: if the networks do not stand for shapes.
    """
    if spec.signal is None:
        raise ValueError(_NO_SHAPES)
    value = forward(spec, weights, points)[..., 0]
    value = torch.sigmoid(value) if spec.logits else value
    if spec.signal == "occupancy":
        return value
    return spec.clip * (1 - value) if spec.signal == "udf" else spec.clip * (1 - 2 * value)


def from_field(spec: NetworkSpec, told: Any) -> Any:
    """The number v in [0, 1] by which networks of shapes say this: the inverse of `field`.

    Of distances it is 0 far outside and, by "udf", 1 on the surface, by "sdf" 1 deep inside.

    Args:
        told: a tensor or an array of what `field` gives, of any shape.

    Raises:
        ValueError: if the networks do not stand for shapes.
    """
    if spec.signal is None:
        raise ValueError(_NO_SHAPES)
    if spec.signal == "occupancy":
        return told
    return 1 - told / spec.clip if spec.signal == "udf" else (1 - told / spec.clip) / 2


def depth(
    spec: NetworkSpec,
    weights: Weights,
    points: Float[Tensor, "point 3"] | Float[Tensor, "net point 3"],
) -> Float[Tensor, "net point"]:
    """Smooth values that are negative inside of shapes, as pictures of surfaces want them.

    Distances to the surface that know no inside have one of their own: what is nearer than
    half of what they tell.

    Raises:
        ValueError: if the networks do not stand for shapes.
    """
    if spec.signal == "occupancy":
        value = forward(spec, weights, points)[..., 0]
        return -value if spec.logits else 0.5 - value
    signed = field(spec, weights, points)
    return signed - spec.clip / 2 if spec.signal == "udf" else signed


def space(spec: NetworkSpec, side: int) -> Float[Tensor, "point 3"]:
    """A grid of so many points along each axis, both ends of the range included, z the fastest."""
    along = torch.linspace(*spec.coord_range, side)
    return torch.stack(torch.meshgrid(along, along, along, indexing="ij"), -1).reshape(-1, 3)


def volume(spec: NetworkSpec, weights: Weights, side: int) -> Float[Tensor, "net x y z"]:
    """The `field` of shapes on a grid of so many points along each axis.

    Raises:
        ValueError: if the networks do not stand for shapes.
    """
    grid = space(spec, side).to(weights.weights[0])
    step = max(1, _RENDERED // (side * max(spec.widths[1:])))
    with torch.no_grad():
        parts = [field(spec, weights, part) for part in grid.split(step)]
    return torch.cat(parts, 1).reshape(-1, side, side, side)


class Network(nn.Module):
    """One network of a zoo as a plain torch module, to run, train or export.

    `layers` holds `nn.Linear` and `nn.Conv2d`; the state dict has `layers.0.weight`,
    `layers.0.bias`, ...
    """

    def __init__(self, spec: NetworkSpec):
        super().__init__()
        self.spec = spec
        self.layers = nn.ModuleList(
            nn.Linear(layer.inp, layer.out)
            if layer.kind == "linear"
            else nn.Conv2d(
                layer.inp, layer.out, layer.kernel, stride=layer.stride, padding=layer.padding
            )
            for layer in spec.layers
        )

    def forward(self, x: Float[Tensor, "item *inp"]) -> Float[Tensor, "item out"]:
        """Raw outputs, the spec's encoding and offset included."""
        x = encode(self.spec, x)
        for layer, module in zip(self.spec.layers, self.layers, strict=True):
            if layer.kind == "linear" and x.ndim == 4:
                x = x.mean(dim=(-2, -1))
            x = _activate(layer, module(x))
        return x + self.spec.output_offset


def to_module(spec: NetworkSpec, weights: Weights, net: int = 0) -> Network:
    """Network `net` of the batch as a module with weights of its own."""
    module = Network(spec)
    module.load_state_dict(weights[net].to_state_dicts(spec)[0])
    return module
