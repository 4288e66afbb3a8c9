"""A dense representation of networks, learnt without labels by SimCLR.

Two views of every network, by noise and masking, are pulled together and apart from the
others' (NT-Xent). How good the representation is, a linear regressor tells that finds
what the signal was made with, such as amplitude and frequency.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from processors.models import Processor
from processors.options import LATER, SslOptions, views
from processors.rows import Rows
from processors.tasks import figures
from processors.tasks.task import Constant, Metrics, Task, constant_error, predict
from zoo import Weights

# Networks whose views are compared in an evaluation, at most.
_BATCH = 512


class Projected(nn.Module):
    """A processor and, in training, the perceptron of SimCLR after it."""

    def __init__(self, processor: Processor, dimension: int, width: int) -> None:
        super().__init__()
        self.processor = processor
        self.head = nn.Sequential(
            nn.Linear(dimension, width), nn.ReLU(), nn.Linear(width, dimension)
        )

    def forward(self, weights: Weights) -> Tensor:
        found: Tensor = self.processor(weights)
        return self.head(found) if self.training else found


def nt_xent(
    first: Float[Tensor, "net feat"], second: Float[Tensor, "net feat"], temperature: float
) -> Float[Tensor, ""]:
    """The normalised, temperature-scaled cross-entropy of two views of every network.

    Source: Chen et al. 2020 (SimCLR), Eq. 1, the mean over both views.
    """
    views = normalize(torch.cat([first, second]).float(), dim=1)
    alike = views @ views.T / temperature
    alike = alike.masked_fill(torch.eye(len(views), dtype=torch.bool, device=views.device), -1e9)
    nets = len(first)
    partner = torch.arange(2 * nets, device=views.device).roll(nets)
    return cross_entropy(alike, partner)


class Ssl(Task):
    """SimCLR on a zoo whose networks are of signals with known numbers.

    Source: Navon et al. 2023, Sec. 7.3 and App. J (Table 2).
    """

    name, takes = "ssl", SslOptions
    probes = True
    metric, higher, title = "mse", False, "MSE of a linear probe"
    options: SslOptions

    def __init__(self, data: Mapping[str, Rows], options: SslOptions) -> None:
        super().__init__(data, options)
        columns = self.zoo.columns
        real = [n for n, c in columns.items() if c.role == "target" and c.kind == "real"]
        self.targets = options.targets.split(",") if options.targets else real
        unknown = [name for name in self.targets if name not in real]
        if unknown or not real:
            raise ValueError(
                f"ssl needs real targets for its probe, as zoos of waves have (amplitude, "
                f"frequency) and of solids (sizes and volume); {self.zoo.folder.name} has "
                f"{', '.join(real) or 'none'}"
            )
        self.out = options.dimension

    def _auto(self) -> tuple[str, ...]:
        return ("noise", "dropout")

    def module(self, model: str, stats: Mapping[str, Tensor] | None, sizes: dict[str, Any]) -> Any:
        """The model, and with --projection the perceptron after it."""
        built = super().module(model, stats, sizes)
        if not self.options.projection:
            return built
        return Projected(built, self.options.dimension, self.options.projection)

    def processor(self, module: nn.Module) -> Processor | None:
        """The model without the perceptron."""
        found = module.processor if isinstance(module, Projected) else module
        assert isinstance(found, Processor)
        return found

    def loss(self, module: Any, weights: Weights, columns: dict[str, Tensor]) -> Tensor:
        """NT-Xent of two views; one pass through the model, so that batch norm sees both."""
        views = self._pair(weights)
        both = views[0].map(lambda *pair: torch.cat(pair), views[1])
        found = module(both)
        return nt_xent(found[: len(weights)], found[len(weights) :], self.options.temperature)

    def _pair(self, weights: Weights) -> list[Weights]:
        """Two views of every network, as --pair has them."""
        pair = views(self.options.pair or LATER["pair"])
        return [weights if name == "clean" else self.augment(weights) for name in pair]

    @torch.no_grad()
    def contrast(self, module: Any, split: str) -> float:
        """The contrastive loss of a split, of the same views and batches in every evaluation."""
        training, rows, total = self.augment.training, self.data[split], 0.0
        self.augment.train()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            for weights, _ in rows.batches(_BATCH):
                first, second = (self._through(module, view) for view in self._pair(weights))
                loss = nt_xent(first, second, self.options.temperature)
                total += float(loss) * len(weights)
        self.augment.train(training)
        return total / len(rows)

    def _through(self, module: Any, weights: Weights) -> Tensor:
        """What the loss compares, the perceptron's output if there is one."""
        found: Tensor = module(weights)
        return module.head(found) if isinstance(module, Projected) else found

    @torch.no_grad()
    def embed(self, module: Any, rows: Rows) -> Tensor:
        """The representation of every row, `row feat`, float32 on the CPU.

        With --views the mean over as many augmented views, the same in every evaluation:
        what the model was trained on, where a clean network is not.
        """
        if not self.options.views:
            return predict(module, rows)
        found = []
        with torch.random.fork_rng():
            torch.manual_seed(0)
            for weights, _ in rows.batches(256):
                seen = [module(self.augment(weights)) for _ in range(self.options.views)]
                found.append(torch.stack(seen).float().mean(dim=0).cpu())
        return torch.cat(found)

    def _wanted(self, rows: Rows) -> Tensor:
        return torch.stack([rows.column(name) for name in self.targets], dim=1).double()

    def evaluate(self, module: Any, split: str) -> Metrics:
        """Mean squared error, over all targets, of a linear regressor on the representation.

        It is fitted to the training split, or, where there is none, by cross-validation
        within the split.
        """
        from sklearn.linear_model import LinearRegression
        from sklearn.model_selection import cross_val_predict

        rows = self.data[split]
        wanted = self._wanted(rows).numpy()
        features = self.embed(module, rows).double().numpy()
        if "train" in self.data:
            train = self.data["train"]
            seen = self.embed(module, train).double().numpy()
            probe = LinearRegression().fit(seen, self._wanted(train).numpy())
            found = probe.predict(features)
        elif len(rows) < 2:
            raise ValueError(
                f"the {split} split has a single network, and a linear probe is fitted to some to "
                "be measured on others: give a zoo with a training split, or more networks"
            )
        else:
            parts = min(5, len(rows))
            found = cross_val_predict(LinearRegression(), features, wanted, cv=parts)
        errors = ((found - wanted) ** 2).mean(axis=0)
        metrics = {"mse": float(errors.mean())}
        for name, error in zip(self.targets, errors, strict=True):
            metrics[f"mse_{name}"] = float(error)
        # What the run chooses by; a saved model is without the perceptron that it needs.
        if self.selects == "loss" and split == "validation":
            metrics["loss"] = self.contrast(module, split)
        return metrics

    def constant(self, split: str) -> Constant | None:
        """The targets' means in the training split."""
        if "train" not in self.data:
            return None
        return constant_error(self._wanted(self.data[split]), self._wanted(self.data["train"]))

    def figures(self, module: Any, split: str, folder: Path) -> None:
        """`tsne.png`: the representations in the plane, coloured by each target.

        Of so few networks that none has neighbours there is no figure.
        """
        rows = self.data[split]
        if len(rows) < figures.FEWEST:
            return
        found = self.embed(module, rows).numpy()
        wanted = dict(zip(self.targets, self._wanted(rows).T.numpy(), strict=True))
        figures.tsne(found, wanted, folder / "tsne.png")
