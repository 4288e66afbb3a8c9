"""The conditional variational autoencoder of winning tickets: masks of initial networks.

Source: Zhou et al. 2023 (NFN), Sec. 3.3 and App. D.2.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from processors.encode import Normalise, drop_channel, lift
from processors.linear import EquivariantLinear
from processors.nfn import Features
from processors.saving import Saved
from processors.sizes import check_sizes
from zoo import NetworkSpec, Weights


class _Coder(nn.Sequential):
    """Features and a last layer, which takes the pools that these know."""

    def forward(self, x: Weights) -> Weights:
        features: Any = self[0]
        found: Weights = self[1](features.pooled(x))
        return found


class TicketVAE(nn.Module, Saved, library_name="wszoo", tags=["weight-space"]):
    """Encoder and decoder of masks, each of NFN layers on the networks themselves.

    Args:
        spec: as `NetworkSpec.to_json` gives it.
        symmetry: "np", "hnp" or "pointwise".
        chan, layers: of encoder and decoder alike.
        latent: channels of Z, for each entry of a network.
        stats: of the initial networks.
        layer_norm: whether hidden channels are normalised, see `pointwise.LayerNorm`. The paper
            names a layer norm (App. E.4), but not where it stands.

    Source: Zhou et al. 2023, App. D.2.
    """

    def __init__(
        self,
        spec: dict[str, Any],
        symmetry: str,
        chan: int = 64,
        layers: int = 4,
        latent: int = 5,
        stats: Mapping[str, Tensor] | None = None,
        layer_norm: bool = False,
    ):
        super().__init__()
        check_sizes({"chan": chan, "layers": layers, "latent": latent, "layer_norm": layer_norm})
        self.spec, self.latent = NetworkSpec.from_json(spec), latent
        self._sizes = {"symmetry": symmetry, "chan": chan, "layers": layers, "latent": latent}
        if layer_norm:  # models of before had none
            self._sizes["layer_norm"] = True
        self.normalise = Normalise(self.spec, stats)
        hidden = [chan] * (layers - 1)

        def make(inp: int, out: int) -> nn.Module:
            features = Features(self.spec, symmetry, inp, hidden, layer_norm=layer_norm)
            return _Coder(features, EquivariantLinear(self.spec, symmetry, features.chan, out))

        self.encoder, self.decoder = make(2, 2 * latent), make(1 + latent, 1)

    def config(self) -> dict[str, Any]:
        """What `config.json` holds."""
        return {"spec": self.spec.to_json(), **self._sizes}

    def encode(
        self, weights: Weights, mask: Float[Tensor, "net param"]
    ) -> tuple[Float[Tensor, "net latent"], Float[Tensor, "net latent"]]:
        """Mean and logarithm of the variance of every latent number, all of a net in a row."""
        own, masks = lift(self.normalise(weights)), lift(Weights.unflatten(mask, self.spec))
        found: Weights = self.encoder(own.map(lambda *both: torch.cat(both, dim=-1), masks))
        # Taps come after channels, so that halves of the channels are halves of them all.
        halves = [found.map(lambda x, n=n: x.chunk(2, dim=-1)[n]) for n in (0, 1)]
        mean, log_variance = (
            torch.cat([x.flatten(1) for x in half.tensors().values()], dim=1) for half in halves
        )
        return mean, log_variance

    def decode(
        self, weights: Weights, latent: Float[Tensor, "net latent"]
    ) -> Float[Tensor, "net param"]:
        """The logit of every entry of the mask."""
        own = lift(self.normalise(weights))
        shapes = {
            name: (*x.shape[1:-1], x.shape[-1] * self.latent) for name, x in own.tensors().items()
        }
        parts = latent.split([int(np.prod(shape)) for shape in shapes.values()], dim=1)
        named = {
            name: part.unflatten(1, shape)
            for (name, shape), part in zip(shapes.items(), parts, strict=True)
        }
        joined = {name: torch.cat([x, named[name]], -1) for name, x in own.tensors().items()}
        layers = range(len(self.spec.layers))
        inputs = Weights(
            tuple(joined[f"weight_{n}"] for n in layers), tuple(joined[f"bias_{n}"] for n in layers)
        )
        return drop_channel(self.decoder(inputs), self.spec).flatten()

    def forward(
        self, weights: Weights, mask: Float[Tensor, "net param"], noise: Tensor | None = None
    ) -> Float[Tensor, " net"]:
        """The evidence lower bound of each mask, nats an entry, by one draw of Z.

        Args:
            noise: standard normal, `net latent`; None draws it from torch's generators.
        """
        mean, log_variance = self.encode(weights, mask)
        noise = torch.randn_like(mean) if noise is None else noise
        logits = self.decode(weights, mean + noise * (log_variance / 2).exp())
        likelihood = -binary_cross_entropy_with_logits(logits, mask, reduction="none").sum(dim=1)
        return (likelihood - divergence(mean, log_variance)) / mask.shape[1]

    @torch.no_grad()
    def masks(
        self, weights: Weights, sparsity: float = 0.95, scope: str = "network"
    ) -> Bool[Tensor, "net param"]:
        """The likeliest entries by a Z of zero, the middle of the prior; see `largest`."""
        entries = self.latent * self.spec.param_count
        scores = self.decode(weights, weights.flatten().new_zeros(len(weights), entries))
        return largest(scores, sparsity, parts_of(self.spec, scope))


def parts_of(spec: NetworkSpec, scope: str) -> list[int]:
    """Entries of each part of a network that keeps its own share: "tensor", or "network"."""
    if scope == "network":
        return [spec.param_count]
    return [int(np.prod(shape)) for shape in spec.tensors.values()]


def divergence(
    mean: Float[Tensor, "net latent"], log_variance: Float[Tensor, "net latent"]
) -> Float[Tensor, " net"]:
    """The Kullback-Leibler divergence of normal distributions from the standard one, nats."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1)


def largest(
    values: Float[Tensor, "net param"], sparsity: float, parts: Sequence[int]
) -> Bool[Tensor, "net param"]:
    """Where the largest values lie, a share of 1 - sparsity of each part; one at least.

    Args:
        parts: how many entries each has, see `parts_of`.
    """
    masks = []
    for part in values.split(list(parts), dim=1):
        count = max(1, round((1 - sparsity) * part.shape[1]))
        mask = torch.zeros_like(part, dtype=torch.bool)
        masks.append(mask.scatter(1, part.topk(count, dim=1).indices, True))
    return torch.cat(masks, dim=1)
