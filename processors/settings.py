"""How a model is trained: the numbers of one run, apart from its task and its model.

Every field is a flag of `wszoo train`; what it is and which values it takes stands with it.
"""

import math
from dataclasses import dataclass

from zoo.fields import check, described

OPTIMISERS = ("adamw", "adam")
SCHEDULES = ("constant", "cosine")
PRECISIONS = ("float32", "bf16")
DEVICES = ("auto", "cpu", "cuda", "mps")
# Seeds are from 0 to here.
SEEDS = 1 << 32
# Beyond it float32 has no room for what is computed from a rate.
_MOST_RATE = 1e30
_MOST_STEPS = 10**12


def steps_per_epoch(rows: int, batch: int) -> int:
    """How many batches of about this size hold every row once.

    >>> steps_per_epoch(1000, 32), steps_per_epoch(20, 32)
    (31, 1)
    """
    return max(1, round(rows / batch))


@dataclass(frozen=True)
class Settings:
    """The training of one run; the defaults of DWSNets (Navon et al. 2023, App. J).

    Raises:
        ValueError: for an unknown name, or a number out of its range.
    """

    epochs: int | None = described(
        100, "passes over the training networks", least=1, most=_MOST_STEPS
    )
    steps: int | None = described(None, "updates; instead of --epochs", least=1, most=_MOST_STEPS)
    batch: int = described(512, "networks of an update, over all devices", least=1, most=1 << 31)
    lr: float = described(1e-3, "learning rate after the warm-up", above=0, most=_MOST_RATE)
    optimiser: str = described("adamw", "adamw (with amsgrad) or adam", choices=OPTIMISERS)
    weight_decay: float = described(
        5e-4, "decoupled for adamw, L2 in the gradient for adam", least=0, most=_MOST_RATE
    )
    warmup: int = described(
        0, "updates in which the learning rate rises linearly", least=0, most=_MOST_STEPS
    )
    schedule: str = described("constant", "learning rate afterwards", choices=SCHEDULES)
    clip: float | None = described(None, "largest norm of the gradient", above=0, most=_MOST_RATE)
    accumulate: int = described(
        1, "parts that each batch is worked off in, to save memory", least=1, most=1 << 31
    )
    precision: str = described("float32", "float32 or bf16 (autocast)", choices=PRECISIONS)
    compile: bool = described(False, "use torch.compile")
    evaluations: int = described(
        50, "validations in a run, at most one an epoch", least=1, most=_MOST_STEPS
    )
    patience: int | None = described(
        None, "stop after so many validations without a better one", least=1, most=_MOST_STEPS
    )

    def __post_init__(self) -> None:
        check(self)
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("expected either epochs or steps")

    def total(self, per_epoch: int) -> int:
        """Updates in all, of epochs of so many."""
        return self.steps if self.steps is not None else (self.epochs or 0) * per_epoch

    def interval(self, per_epoch: int) -> int:
        """Updates between validations: of whole epochs, where there are any."""
        found = math.ceil(self.total(per_epoch) / self.evaluations)
        return found if self.epochs is None else math.ceil(found / per_epoch) * per_epoch

    def validations(self, per_epoch: int) -> int:
        """How often the validation split is measured in all."""
        return math.ceil(self.total(per_epoch) / self.interval(per_epoch))
