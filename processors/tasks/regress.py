"""A number that a network's signal is made with, such as the frequency of a wave."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from processors.options import RegressOptions
from processors.rows import Rows
from processors.tasks import figures
from processors.tasks.task import Constant, Metrics, Task, constant_error, predict, target_column
from zoo import Weights


class Regress(Task):
    """A real column of a zoo, in its own unit; trained in deviations of the training split.

    Source: Navon et al. 2023, Sec. 7.1 (Figure 3).
    """

    name, takes = "regress", RegressOptions
    metric, higher, title = "mse", False, "MSE"
    out = 1
    options: RegressOptions

    def __init__(self, data: Mapping[str, Rows], options: RegressOptions) -> None:
        super().__init__(data, options)
        rows = next(iter(data.values()))
        needs = (
            "a column of real numbers to predict, as zoos of waves (`frequency`) and of solids "
            "(`volume`) have"
        )
        self.target = target_column(rows, self.name, "target", "real", options.target, needs)

    def _auto(self) -> tuple[str, ...]:
        # Moving the picture or the wave would change what is asked for.
        return ("noise", "dropout")

    def readout(self) -> dict[str, list[float]] | None:
        """Mean and deviation over the training split."""
        if "train" not in self.data:
            return None
        values = self.data["train"].column(self.target).double()
        return {"mean": [float(values.mean())], "std": [float(values.std(correction=0)) or 1.0]}

    def loss(self, module: Any, weights: Weights, columns: dict[str, Tensor]) -> Tensor:
        """Mean squared error in variances of the training split."""
        std = _std(module)
        found = module(self.augment(weights))[:, 0].float()
        return mse_loss(found / std, columns[self.target] / std)

    def evaluate(self, module: Any, split: str) -> Metrics:
        """Mean squared error in the target's unit squared, and R^2."""
        rows = self.data[split]
        found, wanted = predict(module, rows)[:, 0].double(), rows.column(self.target).double()
        mse = float(mse_loss(found, wanted))
        spread = float((wanted - wanted.mean()).square().mean())
        # Of a constant, no share is explained or not.
        return {"mse": mse, "r2": 1 - mse / spread} if spread else {"mse": mse}

    def constant(self, split: str) -> Constant | None:
        """The mean of the training split."""
        if "train" not in self.data:
            return None
        train = self.data["train"].column(self.target)
        return constant_error(self.data[split].column(self.target), train)

    def figures(self, module: Any, split: str, folder: Path) -> None:
        """`predicted.png`: predictions against the truth."""
        rows = self.data[split]
        found, wanted = predict(module, rows)[:, 0], rows.column(self.target)
        figures.predicted(found.numpy(), wanted.numpy(), self.target, folder / "predicted.png")


def _std(module: Any) -> Tensor:
    """Of the readout, through whatever wraps the model."""
    plain = module
    for name in ("module", "_orig_mod"):
        plain = getattr(plain, name, plain)
    std: Tensor = plain.std
    return std if isinstance(std, Tensor) else torch.ones(1)
