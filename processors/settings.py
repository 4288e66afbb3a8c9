"""How a model is trained: the numbers of one run, apart from its task and its model.

Every field is a flag of `wszoo train`; `describe` gives a field its line of help.
"""

import math
from dataclasses import dataclass, field, fields
from typing import Any

OPTIMISERS = ("adamw", "adam")
SCHEDULES = ("constant", "cosine")
PRECISIONS = ("float32", "bf16")
# Seeds are from 0 to here.
SEEDS = 1 << 32


def describe(default: Any, text: str) -> Any:
    """A field of a frozen dataclass with its line of help."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Settings:
    """The training of one run; the defaults of DWSNets (Navon et al. 2023, App. J).

    Raises:
        ValueError: for an unknown name, or a number out of its range.
    """

    epochs: int | None = describe(100, "Passes over the training networks.")
    steps: int | None = describe(None, "Updates; instead of --epochs.")
    batch: int = describe(512, "Networks of an update, over all devices.")
    lr: float = describe(1e-3, "Learning rate after the warm-up.")
    optimiser: str = describe("adamw", f"{' or '.join(OPTIMISERS)}; adamw with amsgrad.")
    weight_decay: float = describe(5e-4, "Decoupled for adamw, L2 in the gradient for adam.")
    warmup: int = describe(0, "Updates in which the learning rate rises linearly.")
    schedule: str = describe("constant", f"Learning rate afterwards: {' or '.join(SCHEDULES)}.")
    clip: float | None = describe(None, "Largest norm of the gradient.")
    accumulate: int = describe(1, "Parts that each batch is worked off in, to save memory.")
    precision: str = describe("float32", f"{' or '.join(PRECISIONS)} (autocast).")
    compile: bool = describe(False, "Use torch.compile.")
    evaluations: int = describe(50, "Validations in a run, at most one an epoch.")
    patience: int | None = describe(None, "Stop after so many validations without a better one.")

    def __post_init__(self) -> None:
        for name, known in (
            ("optimiser", OPTIMISERS),
            ("schedule", SCHEDULES),
            ("precision", PRECISIONS),
        ):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"unknown {name} {getattr(self, name)!r}; known: {', '.join(known)}"
                )
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("expected either epochs or steps")
        for name in ("epochs", "steps", "batch", "accumulate", "evaluations", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name in ("lr", "clip"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be a positive number, got {value}")
        for name in ("warmup", "weight_decay"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must not be negative, got {value}")

    def total(self, per_epoch: int) -> int:
        """Updates in all, of epochs of so many."""
        return self.steps if self.steps is not None else (self.epochs or 0) * per_epoch


def texts(kind: type) -> dict[str, str]:
    """The line of help of every field of a dataclass."""
    return {each.name: each.metadata.get("help", "") for each in fields(kind)}
