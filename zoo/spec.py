"""What a network is: its layers, and how its inputs and outputs are to be read.

A `NetworkSpec` is stored in every zoo's index, so that a reader renders a network the
way it was fitted: omega of each layer, the output's offset, the order and range of the
coordinates and the range that stands for black and white. Published sets leave these
to the reader, who then sees transposed or shifted pictures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from math import isclose, prod
from numbers import Number
from struct import pack, unpack
from typing import Any

from zoo.schema import Also, Bool, Choice, Int, ListOf, Real, Record, Rule, Tuple, Wrong, shown

# How INRs start, see zoo.nets.bounds.
INIT_SCHEMES = ("dws", "nfn", "torch")
# Element by element, each by the name of torch's function and with its defaults.
ACTIVATIONS = (
    *("identity", "sin", "relu", "tanh"),
    *("leaky_relu", "elu", "gelu", "silu", "sigmoid"),
)
# Those that zoos of format 1 have.
OLDEST_ACTIVATIONS = ACTIVATIONS[:4]
_SPELLED = {name.replace("_", ""): name for name in ACTIVATIONS} | {"linear": "identity"}
# numpy.meshgrid's names: "xy" is (column, row), "ij" is (row, column); "x" is one
# coordinate, "xyz" a point of space, None says that the inputs are not coordinates.
_AXES: dict[str | None, tuple[str, ...]] = {
    "xy": ("column", "row"),
    "ij": ("row", "column"),
    "x": ("x",),
    "xyz": ("x", "y", "z"),
    None: (),
}
COORD_ORDERS = tuple(_AXES)
# What a network is fitted by: squared errors, or binary cross-entropy on logits.
LOSSES = ("squared", "bce")
# What a network's output v in [0, 1] says of a shape; see `NetworkSpec`.
SIGNALS = ("udf", "occupancy", "sdf")

_SIZE = Int(low=1, high=2**31 - 1)
_KERNEL = Tuple(_SIZE, _SIZE)
_PADDING = Int(low=0, high=2**31 - 1)
_NUMBERS = Tuple(Real(), Real())
# Of a Fourier encoding: what its matrix may have of rows, columns and float32 numbers.
MOST_FREQUENCIES, _MOST_INPUTS, _MOST_FREQUENCY = 1024, 1024, 3e38


def spelled(activation: str) -> str:
    """The name of an activation that may be written as torch's class is; unknown ones stay.

    >>> spelled("LeakyReLU"), spelled("SiLU"), spelled("relu"), spelled("cosine")
    ('leaky_relu', 'silu', 'relu', 'cosine')
    """
    return _SPELLED.get(activation.replace("_", "").lower(), activation)


def _plain(value: Any) -> Any:
    """NumPy's numbers as Python's, lists as tuples."""
    if isinstance(value, list | tuple):
        return tuple(_plain(item) for item in value)
    return value.item() if isinstance(value, Number) and hasattr(value, "item") else value


def _listed(value: Any) -> Any:
    """Tuples as lists, as JSON has them."""
    return [_listed(item) for item in value] if isinstance(value, tuple) else value


def _rounded(frequencies: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
    """As float32 has them, in which networks compute."""
    return tuple(tuple(unpack("<f", pack("<f", value))[0] for value in row) for row in frequencies)


@dataclass(frozen=True)
class Layer:
    """One affine map and its activation, `activation(omega * (W x + b))`.

    Attributes:
        kind: "linear" or "conv".
        activation: one of ACTIVATIONS, or as torch's class is called, such as "LeakyReLU".
        omega: factor on the pre-activation, bias included; 1 except for "sin".
        kernel: taps (rows, columns) of a conv layer, (1, 1) for a linear one.
        stride, padding: of a conv layer, in pixels.
    """

    kind: str
    inp: int
    out: int
    activation: str = "identity"
    omega: float = 1.0
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: int = 0

    def __post_init__(self) -> None:
        for name in ("inp", "out", "omega", "kernel", "stride", "padding"):
            object.__setattr__(self, name, _plain(getattr(self, name)))
        if self.kind not in ("linear", "conv"):
            raise ValueError(f"unknown layer kind {self.kind!r}; known: linear, conv")
        for name, rule in (
            *(("inp", _SIZE), ("out", _SIZE), ("stride", _SIZE), ("padding", _PADDING)),
            ("omega", Real(above=0)),
        ):
            if not rule.passes(getattr(self, name)):
                got = shown(getattr(self, name))
                raise ValueError(f"{name} of a layer: expected {rule.words}, got {got}")
        if not isinstance(self.kernel, tuple) or not _KERNEL.passes(list(self.kernel)):
            got = shown(self.kernel)
            raise ValueError(f"kernel of a layer: expected {_KERNEL.words}, got {got}")
        object.__setattr__(self, "activation", spelled(self.activation))
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"unknown activation {self.activation!r}; known: {', '.join(ACTIVATIONS)}"
            )
        if self.kind == "linear" and (self.kernel, self.stride, self.padding) != ((1, 1), 1, 0):
            raise ValueError("kernel, stride and padding are of conv layers only")

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """`(out, inp)`, or `(out, inp, kh, kw)` of a conv layer."""
        taps = self.kernel if self.kind == "conv" else ()
        return (self.out, self.inp, *taps)

    @property
    def fan_in(self) -> int:
        return self.inp * prod(self.kernel)


@dataclass(frozen=True)
class NetworkSpec:
    """A chain of layers and the conventions of its inputs and outputs.

    A linear layer that follows a conv layer reads the mean over positions (global
    average pooling), as in the Small CNN Zoo.

    Attributes:
        layers: each one's `inp` is the one before's `out`.
        output_offset: added to the last layer's output.
        coord_order: "xy" (column, row), "ij" (row, column), "x", "xyz", or None.
        coord_range: first and last coordinate, both included.
        pixel_range: the output values that stand for black and white.
        signal: what the output says of a point of a shape, as a number v in [0, 1]: "udf", the
            distance clip (1 - v) to its surface; "sdf", the distance clip (1 - 2 v), negative
            inside; "occupancy", v itself is the chance to be inside. None if it is no shape.
        clip: greatest distance that is told; greater ones count as it.
        logits: whether v is the sigmoid of the output, else the output itself.
        frequencies: B of a Fourier encoding, `frequency input`, in turns per unit of input: the
            first layer reads sin(2 pi B x), then cos(2 pi B x). Rounded to float32; lists and
            arrays are taken too. Empty if the first layer reads the inputs x themselves.
    """

    layers: tuple[Layer, ...]
    output_offset: float = 0.0
    coord_order: str | None = None
    coord_range: tuple[float, float] = (-1.0, 1.0)
    pixel_range: tuple[float, float] = (0.0, 1.0)
    signal: str | None = None
    clip: float = 0.1
    logits: bool = False
    frequencies: tuple[tuple[float, ...], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        if hasattr(self.frequencies, "tolist"):
            object.__setattr__(self, "frequencies", self.frequencies.tolist())
        for name in _CONVENTIONS | _OF_SHAPES | _ENCODING:
            object.__setattr__(self, name, _plain(getattr(self, name)))
        if not self.layers:
            raise ValueError("a network needs at least one layer")
        for number, (before, after) in enumerate(pairwise(self.layers)):
            if before.out != after.inp:
                raise ValueError(
                    f"layer {number + 1} takes {after.inp} inputs, but layer {number} gives "
                    f"{before.out}"
                )
            if before.kind == "linear" and after.kind == "conv":
                raise ValueError(f"layer {number + 1}: a conv layer cannot follow a linear one")
        if self.coord_order not in COORD_ORDERS:
            raise ValueError(f"unknown coord_order {self.coord_order!r}; known: {COORD_ORDERS}")
        for name, rule in (_CONVENTIONS | _OF_SHAPES).items():
            value = getattr(self, name)
            plain = list(value) if isinstance(value, tuple) else value
            if not rule.passes(plain):
                raise ValueError(f"{name}: expected {rule.words}, got {shown(plain)}")
        self._settle_encoding()

    def _settle_encoding(self) -> None:
        """Frequencies as they are kept, if they fit the first layer."""
        if self.frequencies == ():
            return
        try:
            _ENCODING["frequencies"].check(_listed(self.frequencies))
        except Wrong as wrong:
            wrong.place.append("frequencies")
            raise ValueError(wrong.line()) from None
        object.__setattr__(self, "frequencies", _rounded(self.frequencies))
        first = self.layers[0]
        if first.kind != "linear" or first.inp != 2 * len(self.frequencies):
            raise ValueError(
                f"frequencies: {len(self.frequencies)} give the first layer "
                f"{2 * len(self.frequencies)} inputs, sines and cosines, it is {first.kind} and "
                f"takes {first.inp}"
            )

    @property
    def inputs(self) -> int:
        """Numbers that a network takes of each item: of the first layer, unless it is encoded.

        >>> NetworkSpec.mlp([2, 8, 1]).inputs, NetworkSpec.mlp([2, 8, 1]).inp
        (2, 2)
        >>> encoded = NetworkSpec.mlp([2, 8, 1], "relu", frequencies=[[1, 0], [0, 1], [1, 1]])
        >>> encoded.inputs, encoded.inp, encoded.param_count
        (2, 6, 65)
        """
        return len(self.frequencies[0]) if self.frequencies else self.inp

    @property
    def encoding_words(self) -> str:
        """What is done to the inputs, to follow a network's sizes; empty if nothing.

        >>> NetworkSpec.mlp([1, 8, 1], frequencies=[[1.0], [2.0]]).encoding_words
        'on 2 Fourier features of 1 input'
        """
        if not self.frequencies:
            return ""
        plural = "s" if self.inputs > 1 else ""
        return f"on {len(self.frequencies)} Fourier features of {self.inputs} input{plural}"

    @property
    def axes(self) -> tuple[str, ...]:
        """What the inputs are, in order, if they are coordinates; else nothing.

        >>> NetworkSpec.mlp([2, 8, 1], coord_order="ij").axes, NetworkSpec.mlp([3, 8, 1]).axes
        (('row', 'column'), ())
        """
        return _AXES[self.coord_order]

    def close_to(self, other: "NetworkSpec") -> bool:
        """Whether it is the other but for the rounding of frequencies drawn on another machine.

        >>> one = NetworkSpec.mlp([1, 8, 1], frequencies=[[3.0]])
        >>> one.close_to(replace(one, frequencies=[[3.0000005]])), one.close_to(one.transposed())
        (True, True)
        >>> one.close_to(replace(one, frequencies=[[3.1]]))
        False
        """
        same = replace(self, frequencies=()) == replace(other, frequencies=())
        return same and self.encoded_as(other)

    def encoded_as(self, other: "NetworkSpec") -> bool:
        """Whether both read the same of an input, but for the rounding of frequencies.

        Weights of first layers can be compared only where they do.
        """
        ours, theirs = ([x for row in each.frequencies for x in row] for each in (self, other))
        if (self.inputs, len(ours)) != (other.inputs, len(theirs)):
            return not ours and not theirs
        return all(isclose(*pair, rel_tol=1e-6) for pair in zip(ours, theirs, strict=True))

    def transposed(self) -> "NetworkSpec":
        """The same network read with row and column exchanged."""
        exchanged = {"xy": "ij", "ij": "xy"}
        return replace(self, coord_order=exchanged.get(str(self.coord_order), self.coord_order))

    @classmethod
    def mlp(
        cls,
        widths: Sequence[int],
        activation: str = "sin",
        omega: float = 30.0,
        **conventions: Any,
    ) -> "NetworkSpec":
        """A multilayer perceptron; the last layer is linear.

        Args:
            widths: inputs, hidden widths, outputs: `[2, 32, 32, 1]`. With `frequencies` the
                first layer reads twice as many as these are, whatever the inputs.
            omega: of every hidden layer when `activation` is "sin", else not used.
            conventions: `output_offset`, `coord_order`, ...; all fields but `layers`.

        >>> NetworkSpec.mlp([2, 32, 32, 1]).param_count
        1185
        """
        if len(widths) < 2:
            raise ValueError(f"an MLP needs at least two widths, got {list(widths)}")
        inputs, encoded = widths[0], len(conventions.get("frequencies", ()))
        if encoded:
            widths = [2 * encoded, *widths[1:]]
        hidden = len(widths) - 2
        scale = omega if spelled(activation) == "sin" else 1.0
        layers = tuple(
            Layer("linear", inp, out, activation, scale)
            if number < hidden
            else Layer("linear", inp, out)
            for number, (inp, out) in enumerate(pairwise(widths))
        )
        spec = cls(layers, **conventions)
        if spec.inputs != inputs:
            raise ValueError(
                f"frequencies: expected {inputs} numbers each, one an input, got {spec.inputs}"
            )
        return spec

    @classmethod
    def cnn(
        cls,
        channels: Sequence[int],
        classes: int,
        activation: str = "relu",
        kernel: int = 3,
        stride: int = 2,
        padding: int = 0,
    ) -> "NetworkSpec":
        """Conv layers of the given channels, global average pooling, one linear layer.

        >>> NetworkSpec.cnn([1, 16, 16, 16], 10).param_count
        4970
        """
        convs = tuple(
            Layer(
                "conv",
                inp,
                out,
                activation,
                kernel=(kernel, kernel),
                stride=stride,
                padding=padding,
            )
            for inp, out in pairwise(channels)
        )
        return cls((*convs, Layer("linear", channels[-1], classes)))

    @property
    def widths(self) -> tuple[int, ...]:
        """Neurons (or channels) of every layer, inputs first: n_0 .. n_L."""
        return (self.layers[0].inp, *(layer.out for layer in self.layers))

    @property
    def inp(self) -> int:
        return self.layers[0].inp

    @property
    def out(self) -> int:
        return self.layers[-1].out

    @property
    def weight_shapes(self) -> tuple[tuple[int, ...], ...]:
        return tuple(layer.weight_shape for layer in self.layers)

    @property
    def bias_shapes(self) -> tuple[tuple[int], ...]:
        return tuple((layer.out,) for layer in self.layers)

    @property
    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes in storage order: weight_0, bias_0, weight_1, ..."""
        named: dict[str, tuple[int, ...]] = {}
        for number, layer in enumerate(self.layers):
            named[f"weight_{number}"] = layer.weight_shape
            named[f"bias_{number}"] = (layer.out,)
        return named

    @property
    def param_count(self) -> int:
        return sum(prod(shape) for shape in self.tensors.values())

    @property
    def format(self) -> int:
        """The oldest format of zoos that has such networks.

        >>> NetworkSpec.mlp([2, 8, 1]).format, NetworkSpec.mlp([2, 8, 1], "gelu").format
        (1, 2)
        """
        known = all(layer.activation in OLDEST_ACTIVATIONS for layer in self.layers)
        plain = self.signal is None and len(self.axes) < 3 and not self.frequencies
        return 1 if known and plain else 2

    def to_json(self) -> dict[str, Any]:
        """Plain data, as it stands in the index; `from_json` is the inverse."""
        plain = asdict(self)
        if self.signal is None:  # the index of other zoos stays as it was
            for name in _OF_SHAPES:
                del plain[name]
        if not self.frequencies:
            del plain["frequencies"]
        layers = [{**layer, "kernel": list(layer["kernel"])} for layer in plain.pop("layers")]
        conventions = {key: _listed(value) for key, value in plain.items()}
        return {"layers": layers, "conventions": conventions}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> "NetworkSpec":
        """The network of plain data, as people write it too.

        Of a layer only `kind`, `inp`, `out`, and of a convolution `kernel`, have to be
        said, and `conventions` may be left out: the rest has the defaults of `Layer` and
        `NetworkSpec`.

        Raises:
            ValueError: naming the layer and the field that is missing, unknown or wrong.

        >>> layer = {"kind": "linear", "inp": 2, "out": 1}
        >>> NetworkSpec.from_json({"layers": [layer]}).widths
        (2, 1)
        """
        try:
            SPEC.check(plain)
        except Wrong as wrong:
            raise ValueError(wrong.line()) from None
        layers = []
        for number, layer in enumerate(plain["layers"]):
            kernel = {"kernel": tuple(layer["kernel"])} if "kernel" in layer else {}
            try:
                layers.append(Layer(**{**layer, **kernel}))
            except ValueError as error:
                raise ValueError(f"layers[{number}]: {error}") from None
        conventions: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in plain.get("conventions", {}).items()
        }
        return cls(tuple(layers), **conventions)


_CONVENTIONS: dict[str, Rule] = {
    "output_offset": Real(),
    "coord_order": Choice(*COORD_ORDERS),
    "coord_range": _NUMBERS,
    "pixel_range": Also(
        _NUMBERS, lambda pair: "black and white are the same" if pair[0] == pair[1] else None
    ),
}
_OF_SHAPES: dict[str, Rule] = {
    "signal": Choice(None, *SIGNALS),
    "clip": Real(above=0),
    "logits": Bool(),
}
_ENCODING: dict[str, Rule] = {
    "frequencies": Also(
        ListOf(
            ListOf(Real(-_MOST_FREQUENCY, _MOST_FREQUENCY), least=1, most=_MOST_INPUTS),
            least=1,
            most=MOST_FREQUENCIES,
        ),
        lambda rows: "rows of several lengths" if len({len(row) for row in rows}) > 1 else None,
    )
}
_LAYER: dict[str, Rule] = {
    "kind": Choice("linear", "conv"),
    "inp": _SIZE,
    "out": _SIZE,
    "activation": Choice(*ACTIVATIONS),
    "omega": Real(above=0),
    "kernel": _KERNEL,
    "stride": _SIZE,
    "padding": _PADDING,
}


class _Spelled(Choice):
    """One of a few names, or as torch's class is called."""

    def check(self, value: Any) -> None:
        super().check(spelled(value) if isinstance(value, str) else value)


def _lacks_kernel(layer: Mapping[str, Any]) -> str | None:
    if layer["kind"] == "conv" and "kernel" not in layer:
        return "a conv layer needs its kernel, [rows, columns]"
    return None


# As people write it, and as an index has it, where nothing is left to defaults.
SPEC: Rule = Record(
    {
        "layers": ListOf(
            Also(
                Record(
                    {name: _LAYER[name] for name in ("kind", "inp", "out")},
                    {name: _LAYER[name] for name in list(_LAYER)[3:]}
                    | {"activation": _Spelled(*ACTIVATIONS)},
                ),
                _lacks_kernel,
            ),
            least=1,
            most=1000,
        )
    },
    {"conventions": Record({}, _CONVENTIONS | _OF_SHAPES | _ENCODING)},
)
WHOLE_SPEC: Rule = Record(
    {
        "layers": ListOf(Record(_LAYER), least=1, most=1000),
        "conventions": Record(_CONVENTIONS, _OF_SHAPES | _ENCODING),
    }
)
