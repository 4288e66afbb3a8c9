"""Probes: networks read by what they answer to learned inputs.

All networks of a batch are evaluated at the same few inputs, which are trained with the
rest; a perceptron reads the answers. Whatever symmetry keeps the function keeps the
answers, so the model is exactly invariant to all of them, of any network that can be
evaluated. It sees functions and no weights, so compare it with models that do the same.

With `hidden=True` each hidden neuron's activations on the probes are a token. Tokens are
encoded by one even function (sin, tanh: a sign of the neuron changes nothing) and averaged
over the layer; ReLU networks are brought into canonical form first, which takes scales out.

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


class Probe(nn.Module):
    """Reads plain weights by evaluating the networks, invariant to all that keeps them.

    Args:
        out: length of the output.
        probes: how many inputs are learned.
        hidden: whether hidden neurons' activations are read too.
        width: of the head, and of the encoder of hidden neurons half of it.
        layers: of the head, linear ones, the last included.
        dropout: in the head.
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
        stats: Mapping[str, Tensor] | None = None,
    ):
        super().__init__()
        if min(probes, width, layers) < 1:
            raise ValueError(
                f"probes, width and layers are at least 1, got {probes}, {width}, {layers}"
            )
        self.spec, self.hidden = spec, hidden
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

    def forward(self, weights: Weights) -> Float[Tensor, "net out"]:
        # Under autocast too networks are evaluated exactly: phases reach hundreds of radians.
        with torch.autocast(weights.device.type, enabled=False):
            inputs = self.probes()
            if self.hidden:
                *inner, answers = activations(self.spec, canonical(self.spec, weights), inputs)
            else:
                inner, answers = [], forward(self.spec, weights, inputs)
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
