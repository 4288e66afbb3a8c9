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

from processors.encode import InputOutputEmbedding, Normalise, drop_channel, lift
from processors.linear import EquivariantLinear
from processors.nfn import Features, Lifting
from processors.options import PICKS, SCOPES
from processors.saving import Saved
from processors.sizes import check_sizes
from zoo import NetworkSpec, Weights


class _Coder(nn.Sequential):
    """Features and a last layer, which takes the pools that these know; positions in front.

    Args:
        inp, hidden, out: channels.
        positions: of inputs and outputs, see `TicketVAE`.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        symmetry: str,
        inp: int,
        hidden: Sequence[int],
        out: int,
        positions: str,
        layer_norm: bool,
    ):
        each = positions == "learned-each"
        lifting = Lifting(spec, inp, fourier=0, positions=positions)
        features = Features(spec, symmetry, lifting.chan, hidden, embed=each, layer_norm=layer_norm)
        last: nn.Module = EquivariantLinear(spec, symmetry, features.chan, out)
        if each:
            last = nn.Sequential(InputOutputEmbedding(spec, features.chan), last)
        # Positions come last here: models of before had none, and the same names.
        super().__init__(features, last, lifting)

    def forward(self, x: Weights) -> Weights:
        features, last, lifting = self
        known = isinstance(last, EquivariantLinear)
        read: Any = features.pooled if known else features
        found: Weights = last(read(lifting(x)))
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
        positions: of inputs and outputs, which layers of NP cannot tell apart: "none",
            "sinusoidal", "learned" or "learned-each", see `Lifting`. The paper has them (Sec. 3),
            and does not say whether here.

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
        positions: str = "none",
    ):
        super().__init__()
        sizes = {
            "chan": chan, "layers": layers, "latent": latent, "layer_norm": layer_norm,
            "positions": positions,
        }  # fmt: skip
        check_sizes(sizes)
        self.spec, self.latent = NetworkSpec.from_json(spec), latent
        # What models of before were without is not said where they would have it so.
        without = {"layer_norm": False, "positions": "none"}
        said = {name: size for name, size in sizes.items() if size != without.get(name)}
        self._sizes: dict[str, Any] = {"symmetry": symmetry, **said}
        self.normalise = Normalise(self.spec, stats)
        hidden = [chan] * (layers - 1)

        def make(inp: int, out: int) -> nn.Module:
            return _Coder(self.spec, symmetry, inp, hidden, out, positions, layer_norm)

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
        self,
        weights: Weights,
        sparsity: float = 0.95,
        scope: str = "network",
        pick: str = "likeliest",
        generator: torch.Generator | None = None,
    ) -> Bool[Tensor, "net param"]:
        """The entries of the largest scores, see `scores` and `largest`.

        Args:
            scope: of which a share of 1 - sparsity is kept, each "tensor" or the "network".
        """
        scores = self.scores(weights, pick, generator)
        return largest(scores, sparsity, parts_of(self.spec, scope))

    @torch.no_grad()
    def scores(
        self,
        weights: Weights,
        pick: str = "likeliest",
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "net param"]:
        """What entries are kept by, the largest first.

        Args:
            pick: "likeliest": the logits by a Z of zero, the middle of the prior. "drawn": those
                by a Z of the prior, with noise, so that the largest are entries drawn one after
                the other, each in proportion to its odds (Gumbel top-k). "likeliest-by-draw": the
                logits by a Z of the prior, as runs were measured at first.
            generator: of the draws, on any device; None takes torch's own.

        Raises:
            ValueError: for another pick.
        """
        if pick not in PICKS:
            raise ValueError(f"unknown pick {pick!r}; known: {', '.join(PICKS)}")
        entries, like = self.latent * self.spec.param_count, weights.flatten()
        if pick == "likeliest":
            return self.decode(weights, like.new_zeros(len(weights), entries))
        where = like.device if generator is None else generator.device
        latent = torch.randn(len(weights), entries, generator=generator, device=where)
        if pick == "likeliest-by-draw":
            return self.decode(weights, latent.to(like))
        # The logarithm of an exponential variable is a negated one of Gumbel.
        waits = torch.empty(like.shape, device=where).exponential_(generator=generator)
        return self.decode(weights, latent.to(like)) - waits.log().to(like)


def parts_of(spec: NetworkSpec, scope: str) -> list[int]:
    """Entries of each part of a network that keeps its own share: "tensor", or "network".

    Raises:
        ValueError: for another scope.
    """
    if scope not in SCOPES:
        raise ValueError(f"unknown scope {scope!r}; known: {', '.join(SCOPES)}")
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
