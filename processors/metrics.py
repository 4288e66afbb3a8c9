"""What metrics and ceilings are called, and in what unit people see them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A metric as cards and figures show it.

    Attributes:
        words: what it is.
        factor: from our number to the one that is shown.
        unit: behind that number; "" if it has none.
    """

    words: str
    factor: float = 1.0
    unit: str = ""


_METRICS = {
    "accuracy": Metric("accuracy", 100.0, "%"),
    "auc": Metric("area under the ROC curve"),
    "mse": Metric("mean squared error"),
    "tau": Metric("Kendall's tau"),
    "r2": Metric("share of the variance that is explained", 100.0, "%"),
    "agreement": Metric("share of a ticket that is found", 100.0, "%"),
}
# What a ceiling is that of.
CEILINGS = {
    "originals": "a small CNN that sees the originals themselves",
    "renders": "a small CNN that sees what the networks render",
}


def metric(name: str) -> Metric:
    """A metric by its name in a run's files; one of a user's own by that name.

    >>> metric("accuracy").words, metric("my_loss").words
    ('accuracy', 'my loss')
    """
    return _METRICS.get(name, Metric(name.replace("_", " ")))
