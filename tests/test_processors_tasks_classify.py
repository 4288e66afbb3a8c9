"""What is told of a classifier: accuracy, loss, and of two classes the area under the ROC curve."""

import pytest
import torch
from sklearn.metrics import roc_auc_score

from processors.tasks.classify import told


@pytest.mark.parametrize("ties", [False, True])
def test_auc_is_that_of_scikit_learn(ties):
    draw = torch.Generator().manual_seed(3)
    logits = torch.randn(200, 2, generator=draw)
    logits = logits.round() if ties else logits
    labels = (torch.rand(200, generator=draw) < 0.2).long()
    scores = logits[:, 1] - logits[:, 0]
    assert told(logits, labels)["auc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_auc_of_known_orders():
    labels = torch.tensor([0, 0, 0, 1])
    for scores, wanted in (([0, 1, 2, 3], 1), ([3, 2, 1, 0], 0), ([5, 5, 5, 5], 0.5),
                           ([0, 1, 3, 1], 0.5)):  # fmt: skip
        logits = torch.stack([torch.zeros(4), torch.tensor(scores).float()], dim=1)
        assert told(logits, labels)["auc"] == wanted


def test_auc_is_of_two_classes_that_are_both_there():
    two, three = torch.zeros(4, 2), torch.zeros(4, 3)
    assert set(told(two, torch.tensor([0, 1, 0, 1]))) == {"accuracy", "loss", "auc"}
    assert set(told(two, torch.tensor([1, 1, 1, 1]))) == {"accuracy", "loss"}
    assert set(told(three, torch.tensor([0, 1, 0, 1]))) == {"accuracy", "loss"}
