"""Which class a network's picture is of: cross-entropy, accuracy, a confusion matrix."""

from collections.abc import Mapping
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import cross_entropy

from processors.options import ClassifyOptions
from processors.rows import Rows
from processors.tasks import figures
from processors.tasks.task import Constant, Metrics, Task, predict, target_column
from zoo import Weights


def told(logits: Float[Tensor, "net label"], labels: Int64[Tensor, " net"]) -> Metrics:
    """Accuracy as a fraction, the mean cross-entropy, and of two classes the AUC.

    AUC, the area under the ROC curve, is the chance that a network of the second class gets more
    for it than one of the first; half of a tie counts. Unlike accuracy it does not depend on how
    many there are of each. It is left out where a class has no network.

    >>> told(torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0, 1]))["auc"]
    1.0
    """
    metrics = {
        "accuracy": float((logits.argmax(dim=1) == labels).double().mean()),
        "loss": float(cross_entropy(logits, labels)),
    }
    second = labels == 1
    ones, others = int(second.sum()), int((~second).sum())
    if logits.shape[1] != 2 or not ones or not others:
        return metrics
    scores = (logits[:, 1] - logits[:, 0]).double()
    _, place, count = scores.unique(return_inverse=True, return_counts=True)
    ranks = (count.cumsum(0) - (count - 1) / 2)[place]
    # Mann and Whitney's U over its greatest value.
    above = float(ranks[second].double().sum()) - ones * (ones + 1) / 2
    return {**metrics, "auc": above / (ones * others)}


class Classify(Task):
    """The class column of a zoo, such as the digit of an INR.

    Source: Navon et al. 2023, Sec. 7.1 (Table 1); Zhou et al. 2023, Sec. 3.2 (Table 3).
    """

    name, takes = "classify", ClassifyOptions
    metric, higher, title = "accuracy", True, "accuracy"
    options: ClassifyOptions
    out: int

    def __init__(self, data: Mapping[str, Rows], options: ClassifyOptions) -> None:
        super().__init__(data, options)
        rows = next(iter(data.values()))
        needs = "one column of classes, as zoos of INRs have (`label`)"
        self.target = target_column(rows, self.name, "target", "class", options.target, needs)
        self.classes = tuple(self.zoo.columns[self.target].names or ())
        self.out = len(self.classes) or int(rows.column(self.target).max()) + 1

    def loss(self, module: Any, weights: Weights, columns: dict[str, Tensor]) -> Tensor:
        """Cross-entropy of augmented networks."""
        return cross_entropy(module(self.augment(weights)).float(), columns[self.target])

    def evaluate(self, module: Any, split: str) -> Metrics:
        """What `told` tells of the answers."""
        rows = self.data[split]
        return told(predict(module, rows), rows.column(self.target))

    def constant(self, split: str) -> Constant:
        """Answering what is most frequent in the training split, or here without one."""
        wanted = self.data[split].column(self.target)
        frequent = self.data.get("train", self.data[split]).column(self.target).mode().values
        share = float((wanted == frequent).double().mean())
        return Constant("chance", share, sqrt(share * (1 - share) / len(wanted)))

    def figures(self, module: Any, split: str, folder: Path) -> None:
        """`confusion.png`: what the networks of each class are taken for."""
        rows = self.data[split]
        found = predict(module, rows).argmax(dim=1)
        labels = rows.column(self.target)
        counts = torch.zeros(self.out, self.out, dtype=torch.int64)
        counts.index_put_((labels, found), torch.ones_like(labels), accumulate=True)
        names = self.classes or tuple(str(number) for number in range(self.out))
        figures.confusion(np.asarray(counts), names, folder / "confusion.png")
