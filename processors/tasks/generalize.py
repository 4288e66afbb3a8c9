"""How well a classifier does on unseen data, from its weights alone."""

from collections.abc import Callable, Mapping
from math import sqrt
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from processors.options import GeneralizeOptions
from processors.rows import Rows
from processors.tasks import figures
from processors.tasks.task import Constant, Metrics, Task, constant_error, target_column
from zoo import Weights, symmetry

# Of networks to others of the same function, with random numbers of the generator.
Change: TypeAlias = Callable[[Weights, torch.Generator], Weights]


class Generalize(Task):
    """The accuracy of a zoo's classifiers, a fraction.

    The model puts out a logit: the sigmoid of it is the accuracy, whatever the loss.

    Source: Zhou et al. 2023, Sec. 3.1 (Table 2; BCE, selected by tau); Navon et al. 2023,
    App. K.1 (MSE); Tran et al. 2024, Sec. 5.1 (Table 2; rescaled and flipped networks).
    """

    name, takes = "generalize", GeneralizeOptions
    out = 1
    options: GeneralizeOptions
    # The column that is predicted unless --target names another.
    usual = "test_accuracy"

    def __init__(self, data: Mapping[str, Rows], options: GeneralizeOptions) -> None:
        super().__init__(data, options)
        rows = next(iter(data.values()))
        needs = f"the accuracy of classifiers, as zoos of trajectories have (`{self.usual}`)"
        named = options.target
        if named is None:
            named = self.usual
            if named not in rows.zoo.columns:
                raise ValueError(
                    f"{self.name} needs {needs}, and {rows.zoo.folder.name} has none; another "
                    "column of fractions can be chosen with --target"
                )
        self.target = target_column(rows, self.name, "quality", "real", named, needs)
        values = rows.column(self.target)
        if not bool(((values >= 0) & (values <= 1)).all()):
            raise ValueError(
                f"{self.name} predicts fractions, and {self.target} of {rows.zoo.folder.name} is "
                f"from {values.min():g} to {values.max():g}"
            )
        convolutional = any(layer.kind == "conv" for layer in self.spec.layers)
        auto = "bce" if convolutional else "mse"
        self.kind = auto if options.loss == "auto" else options.loss
        self.higher = self.kind == "bce"
        self.metric = "tau" if self.higher else "mse_x100"
        self.title = "Kendall's tau" if self.higher else "100 x MSE"
        asked = {"scale": ("rescale", "ReLU"), "sign": ("flip", "tanh or sine")}
        for kind, (option, networks) in asked.items():
            if getattr(options, option) and kind not in symmetry.kept_by(self.spec):
                raise ValueError(
                    f"--{option} is for {networks} networks, whose function it keeps; these have "
                    f"{self.spec.layers[0].activation}"
                )
        # What networks are measured after, by the suffix of its metrics.
        self.cases: dict[str, Change | None] = {"": None}
        if options.rescale:
            self.cases["_rescaled"] = self._rescaled
        if options.flip:
            self.cases["_flipped"] = self._flipped

    def _auto(self) -> tuple[str, ...]:
        # NFN trains without any, on CNNs.
        return () if any(layer.kind == "conv" for layer in self.spec.layers) else (
            "noise", "dropout",
        )  # fmt: skip

    def loss(self, module: Any, weights: Weights, columns: dict[str, Tensor]) -> Tensor:
        """Binary cross-entropy, or 100 x the mean squared error, of the sigmoid."""
        logits = module(self.augment(weights))[:, 0].float()
        wanted = columns[self.target]
        if self.kind == "bce":
            return binary_cross_entropy_with_logits(logits, wanted)
        return 100 * mse_loss(logits.sigmoid(), wanted)

    def _rescaled(self, weights: Weights, generator: torch.Generator) -> Weights:
        element = symmetry.identity(self.spec, len(weights))
        largest = 10**self.options.rescale
        factors = tuple(
            1 + (largest - 1) * torch.rand(f.shape, generator=generator) for f in element.factors
        )
        return symmetry.apply(symmetry.Element(element.permutations, factors), weights)

    def _flipped(self, weights: Weights, generator: torch.Generator) -> Weights:
        drawn = symmetry.sample(self.spec, len(weights), ("sign",), generator)
        return symmetry.apply(drawn, weights)

    @torch.no_grad()
    def _predict(self, module: Any, rows: Rows, change: Change | None = None) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        found = []
        for weights, _ in rows.batches(64):
            weights = weights if change is None else change(weights, generator)
            found.append(module(weights)[:, 0].float().sigmoid().cpu())
        return torch.cat(found)

    def evaluate(self, module: Any, split: str) -> Metrics:
        """Kendall's tau-b, R^2 and 100 x MSE; with --rescale also `tau_rescaled` and so on."""
        from scipy.stats import kendalltau

        rows = self.data[split]
        wanted = rows.column(self.target).double()
        spread = float((wanted - wanted.mean()).square().mean())
        metrics: Metrics = {}
        for suffix, change in self.cases.items():
            found = self._predict(module, rows, change).double()
            mse = float(mse_loss(found, wanted))
            tau = float(kendalltau(found.numpy(), wanted.numpy()).statistic)
            metrics[f"tau{suffix}"] = tau if tau == tau else 0.0  # constants order nothing
            if spread:  # of a constant, no share is explained or not
                metrics[f"r2{suffix}"] = 1 - mse / spread
            metrics[f"mse_x100{suffix}"] = 100 * mse
        return metrics

    def constant(self, split: str) -> Constant | None:
        """An order by chance, or the mean of the training split."""
        wanted = self.data[split].column(self.target)
        if self.metric == "tau":
            nets = len(wanted)
            # Of Kendall's tau where there is no order (Kendall 1938).
            error = sqrt(2 * (2 * nets + 5) / (9 * nets * (nets - 1))) if nets > 1 else 0.0
            return Constant("chance", 0.0, error)
        if "train" not in self.data:
            return None
        return constant_error(wanted, self.data["train"].column(self.target), 100)

    def figures(self, module: Any, split: str, folder: Path) -> None:
        """`predicted.png`: predicted against actual accuracy."""
        rows = self.data[split]
        found, wanted = self._predict(module, rows), rows.column(self.target)
        figures.predicted(found.numpy(), wanted.numpy(), self.target, folder / "predicted.png")
