"""What is done to every tensor alike: activation, norm, dropout, mixing of channels.

All modules take and give `Weights` with channels, `net out inp chan` and `net out chan`,
where a conv layer's weights have its taps as further channels, `(chan taps)`. They treat
all entries of a tensor in the same way, so they commute with every permutation; signs
and scales are kept by fewer of them, see `Activation`.
"""

from collections.abc import Callable
from math import sqrt

import torch
from jaxtyping import Float
from torch import Tensor, nn

from processors import base
from zoo import NetworkSpec, Weights

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "abs": torch.abs,
    "identity": lambda x: x,
    "relu": torch.relu,
    "sin": torch.sin,
    "tanh": torch.tanh,
}


class PerTensor(nn.Module):
    """One module for each tensor of the network, applied to all of them.

    Attributes:
        weights, biases: layer i's modules; each maps `... chan` to `... chan`.
    """

    def __init__(self, spec: NetworkSpec, make: Callable[[int], nn.Module]):
        """`make(taps)` gives the module of a tensor, taps = 1 but for conv weights."""
        super().__init__()
        self.weights = nn.ModuleList(make(taps) for taps in base.taps(spec))
        self.biases = nn.ModuleList(make(1) for _ in spec.layers)

    def forward(self, x: Weights) -> Weights:
        return Weights(
            tuple(module(weight) for module, weight in zip(self.weights, x.weights, strict=True)),
            tuple(module(bias) for module, bias in zip(self.biases, x.biases, strict=True)),
        )


class Activation(nn.Module):
    """An activation of every entry.

    Odd ones ("sin", "tanh", "identity") commute with sign flips, "relu" and "abs" with
    positive scales, "abs" makes signs vanish.

    Args:
        overwrite: nobody else reads what comes in, so that "relu" may be done in place.

    Raises:
        ValueError: for an unknown activation.
    """

    def __init__(self, name: str = "relu", overwrite: bool = False):
        super().__init__()
        if name not in ACTIVATIONS:
            raise ValueError(f"unknown activation {name!r}; known: {', '.join(ACTIVATIONS)}")
        self.name = name
        self._overwrite = overwrite and name == "relu"

    def forward(self, x: Weights) -> Weights:
        if not self._overwrite or torch.compiler.is_compiling():
            return x.map(ACTIVATIONS[self.name])
        # Views are broadcast, or parts of others.
        return x.map(lambda tensor: tensor.relu() if tensor._is_view() else tensor.relu_())

    def extra_repr(self) -> str:
        return self.name


class _LastAxisNorm(nn.BatchNorm1d):
    """`nn.BatchNorm1d` with channels last and any number of axes before."""

    def __init__(self, chan: int, relu: bool = False):
        super().__init__(chan)
        self.relu = relu

    def forward(self, x: Float[Tensor, "... chan"]) -> Float[Tensor, "... chan"]:
        y = super().forward(x.reshape(-1, x.shape[-1]))
        # In place: neither the norm's backward nor that of ReLU reads what ReLU is given.
        return (y.relu_() if self.relu else y).view(x.shape)


class BatchNorm(PerTensor):
    """Batch normalisation over channels, with statistics and scales of each tensor.

    All networks and entries of a tensor make the batch, as in DWSNets; mean and variance
    do not depend on the entries' order.

    Args:
        relu: a ReLU follows, done in place.
    """

    def __init__(self, spec: NetworkSpec, chan: int, relu: bool = False):
        super().__init__(spec, lambda taps: _LastAxisNorm(chan * taps, relu))


class LayerNorm(PerTensor):
    """Layer normalisation over the channels of every entry, with scales of each tensor.

    Taps of a conv layer are channels of its entries. Commutes with permutations, but not with
    scales or signs.

    Source: NFN's released `SimpleLayerNorm`.
    """

    def __init__(self, spec: NetworkSpec, chan: int):
        super().__init__(spec, lambda taps: nn.LayerNorm(chan * taps))


class Dropout(nn.Module):
    """Dropout of single entries and channels in every tensor (DWSNets)."""

    def __init__(self, p: float):
        super().__init__()
        self.drop = nn.Dropout(p)

    def forward(self, x: Weights) -> Weights:
        return x.map(self.drop)


class ChannelDropout(nn.Module):
    """Dropout of whole channels in the weights, of single entries in the biases.

    Taps of a conv layer are channels of their own.

    Source: NFN's released `ChannelDropout`, biases included.
    """

    def __init__(self, p: float):
        super().__init__()
        self.drop = nn.Dropout(p)

    def _whole(self, weight: Float[Tensor, "net out inp chan"]) -> Tensor:
        return weight * self.drop(weight.new_ones(weight.shape[0], 1, 1, weight.shape[3]))

    def forward(self, x: Weights) -> Weights:
        if not self.training or not self.drop.p:
            return x
        return Weights(tuple(map(self._whole, x.weights)), tuple(map(self.drop, x.biases)))


class ChannelMixing(PerTensor):
    """A dense map of channels in each tensor: the `pointwise` group, Y_i = d_i W_i.

    Initialised as NFN's layers, U(+-1/sqrt(channels)), bias included.

    Args:
        bias: adds a constant to each channel.
    """

    def __init__(self, spec: NetworkSpec, inp: int, out: int, bias: bool = True):
        super().__init__(spec, lambda taps: nn.Linear(inp * taps, out * taps, bias=bias))
        for module in (*self.weights, *self.biases):
            bound = 1 / sqrt(module.in_features)
            for parameter in module.parameters():
                nn.init.uniform_(parameter, -bound, bound)
