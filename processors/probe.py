"""Probes: networks read by what they answer to learned inputs.

All networks of a batch are evaluated at the same few inputs, which are trained with the
rest; a perceptron reads the answers. Whatever symmetry keeps the function keeps the
answers, so the model is exactly invariant to all of them, of any network that can be
evaluated. It sees functions and no weights, so compare it with models that do the same.

With `hidden=True` each hidden neuron's activations on the probes are a token. Tokens are
encoded by one even function (sin, tanh: a sign of the neuron changes nothing) and averaged
over the layer; ReLU networks are brought into canonical form first, which takes scales out.

With `lattice=16` the inputs stand on a lattice instead, and convolutions read the answers: where
what is shown lies anywhere and in any direction, as solids do, neighbours tell more than an order
that is learned. Answers that are logits are read as what they stand for, numbers from 0 to 1.

Source: Kahana et al. 2025, ProbeGen (factored probes, sizes, settings); Herrmann et al.
2024 and Kofinas et al. 2024 for probes before it.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zoo import NetworkSpec, Weights, activations, canonical, forward
from zoo.symmetry import kept_by_activation

# Probes are linear in codes of this length.
_CODE = 32
# On a lattice: channels of the first convolution by the inputs of the networks, and values of the
# widest layer that are in memory at a time.
WIDTHS = {2: 32, 3: 16}
_ANSWERED = 1 << 23
# Conv networks are asked small pictures: 2 ** 5 pixels a side.
_DOUBLINGS = 5


class PointProbes(nn.Module):
    """Learned inputs `item inp`: P = (Z A + a) B + c, which starts as spread as Z."""

    def __init__(self, count: int, inp: int):
        super().__init__()
        self.codes = nn.Parameter(torch.randn(count, _CODE))
        self.inner, self.outer = nn.Linear(_CODE, _CODE), nn.Linear(_CODE, inp)

    def forward(self) -> Float[Tensor, "item inp"]:
        found: Tensor = self.outer(self.inner(self.codes))
        return found


class PictureProbes(nn.Module):
    """Learned pictures `item inp 32 32`: codes through transposed convolutions, then tanh."""

    def __init__(self, count: int, inp: int):
        super().__init__()
        self.codes = nn.Parameter(torch.randn(count, _CODE, 1, 1))
        grown = [nn.ConvTranspose2d(_CODE, _CODE, 2, stride=2) for _ in range(_DOUBLINGS)]
        self.layers = nn.Sequential(*grown, nn.ConvTranspose2d(_CODE, inp, 3, padding=1))

    def forward(self) -> Float[Tensor, "item inp row col"]:
        return torch.tanh(self.layers(self.codes))


def _lattice(spec: NetworkSpec, side: int) -> Float[Tensor, "item inp"]:
    """The middles of so many equal cells along each coordinate, the last the fastest."""
    low, high = spec.coord_range
    along = low + (high - low) * (torch.arange(side) + 0.5) / side
    grids = torch.meshgrid(*[along] * len(spec.axes), indexing="ij")
    return torch.stack(grids, dim=-1).reshape(-1, len(spec.axes))


def convolutions(chan: int, inp: int, first: int = 1) -> nn.Sequential:
    """`net chan *place` to features: three convolutions of strides `first`, 2 and 2."""
    make, norm, pool = (
        (nn.Conv2d, nn.BatchNorm2d, nn.AdaptiveMaxPool2d)
        if inp == 2
        else (nn.Conv3d, nn.BatchNorm3d, nn.AdaptiveMaxPool3d)
    )
    layers: list[nn.Module] = []
    for number in range(3):
        wide = WIDTHS[inp] << number
        layers += [make(chan, wide, 3, stride=2 if number else first, padding=1, bias=False)]
        layers += [norm(wide), nn.ReLU()]
        chan = wide
    return nn.Sequential(*layers, pool(2), nn.Flatten())


class Probe(nn.Module):
    """Reads plain weights by evaluating the networks, invariant to all that keeps them.

    Args:
        out: length of the output.
        probes: how many inputs are learned.
        hidden: whether hidden neurons' activations are read too.
        width: of the head, and of the encoder of hidden neurons half of it.
        layers: of the head, linear ones, the last included.
        dropout: in the head.
        lattice: points along each coordinate of a lattice in the place of learned inputs; 0 for
            none. Of networks of two or three coordinates.
        stats: taken as every model takes it, and not needed: weights are read raw.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        out: int,
        probes: int = 128,
        hidden: bool = False,
        width: int = 256,
        layers: int = 6,
        dropout: float = 0.0,
        lattice: int = 0,
        stats: Mapping[str, Tensor] | None = None,
    ):
        super().__init__()
        if min(probes, width, layers) < 1:
            raise ValueError(
                f"probes, width and layers are at least 1, got {probes}, {width}, {layers}"
            )
        self.spec, self.hidden, self.lattice = spec, hidden, lattice
        if lattice:
            seen = self._stand(lattice)
        else:
            make = PictureProbes if spec.layers[0].kind == "conv" else PointProbes
            self.probes = make(probes, spec.inputs)
            seen = probes * spec.out
        if hidden:
            code = max(1, width // 2)
            count = len(spec.layers) - 1
            self.encode = nn.Sequential(nn.Linear(probes, code), nn.GELU(), nn.Linear(code, code))
            self.place = nn.Parameter(torch.zeros(count, code))
            seen += code * count
        parts: list[nn.Module] = []
        for number in range(layers - 1):
            parts += [nn.Linear(width if number else seen, width), nn.ReLU()]
            parts += [nn.Dropout(dropout)] if dropout else []
        self.head = nn.Sequential(*parts, nn.Linear(width if parts else seen, out))

    def _stand(self, side: int) -> int:
        """Take the lattice for inputs; gives how many features are read of it."""
        spec = self.spec
        if len(spec.axes) not in WIDTHS:
            raise ValueError(
                "lattice is for networks of two or three coordinates, these take "
                f"{spec.inputs} inputs"
            )
        if side < 4 or self.hidden:
            raise ValueError(
                f"lattice is at least 4, and not with hidden, got lattice={side}, "
                f"hidden={self.hidden}"
            )
        self.points: Tensor
        self.register_buffer("points", _lattice(spec, side), persistent=False)
        self.see = convolutions(spec.out, len(spec.axes))
        return (4 * WIDTHS[len(spec.axes)]) << len(spec.axes)

    def _seen(self, weights: Weights) -> Float[Tensor, "net feat"]:
        """What is read of the answers on the lattice, evaluated a part after the other."""
        spec = self.spec
        step = max(1, _ANSWERED // (len(weights) * max(spec.widths[1:])))
        points = self.points.to(weights.weights[0])
        with torch.autocast(weights.device.type, enabled=False):
            parts = [forward(spec, weights, part) for part in points.split(step)]
        answers = self._read(torch.cat(parts, dim=1)).transpose(1, 2)
        found: Tensor = self.see(answers.unflatten(2, (self.lattice,) * len(spec.axes)))
        return found

    def _read(self, answers: Tensor) -> Tensor:
        return answers.sigmoid() if self.spec.logits else answers

    def forward(self, weights: Weights) -> Float[Tensor, "net out"]:
        if self.lattice:
            return self.head(self._seen(weights))
        # Under autocast too networks are evaluated exactly: phases reach hundreds of radians.
        with torch.autocast(weights.device.type, enabled=False):
            inputs = self.probes()
            if self.hidden:
                *inner, answers = activations(self.spec, canonical(self.spec, weights), inputs)
            else:
                inner, answers = [], forward(self.spec, weights, inputs)
        answers = self._read(answers)
        if not self.hidden:
            return self.head(answers.flatten(1))
        codes = [
            self._tokens(layer.activation, x.mean(dim=(-2, -1)) if x.ndim == 5 else x) + place
            for layer, x, place in zip(self.spec.layers[:-1], inner, self.place, strict=True)
        ]
        return self.head(torch.cat([answers.flatten(1), *codes], dim=1))

    def _tokens(
        self, activation: str, x: Float[Tensor, "net item neuron"]
    ) -> Float[Tensor, "net code"]:
        tokens = x.transpose(1, 2)
        found = self.encode(tokens)
        if "sign" in kept_by_activation(activation):
            found = (found + self.encode(-tokens)) / 2
        return found.mean(dim=1)
