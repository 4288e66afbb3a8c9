"""How far a training is: what it tells whoever watches, and where its preparation goes on."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        label: what is being trained.
        step, steps: updates done, and in all; or whatever `unit` names.
        loss: of the last update that was logged.
        metric, best: the validation metric's name, and its best value so far.
    """

    label: str
    step: int
    steps: int
    loss: float | None
    metric: str
    best: float | None
    unit: str = "step"


Report = Callable[[Progress], None]


@dataclass(frozen=True)
class Workplace:
    """Where a model's `prepare` works before the training.

    Attributes:
        seed: of the run.
        folder: keeps what is found, so that a later call goes on from it.
        main: whether this process writes there; of several the others only read.
        progress: told how far it is.
        tell: called with a line where something damaged was set aside.
        shared: what the main process has, on all.
    """

    seed: int
    folder: Path
    main: bool
    progress: Report | None
    tell: Callable[[str], None]
    shared: Callable[[Any], Any]
