"""What a kind of zoo has to say for itself; the rest of wszoo asks nothing but this."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from zoo.figures import Samples
from zoo.kinds.checks import Arrays, Check, Made
from zoo.kinds.looks import Look
from zoo.making.fitting import Fitted, Rows
from zoo.shards import Column, Index
from zoo.sources import Source
from zoo.spec import NetworkSpec
from zoo.weights import Weights


@dataclass(frozen=True)
class Means:
    """With what networks are fitted.

    Attributes:
        engine: by name, "auto" among them.
        device: of torch.
        dtype: that the networks are kept in.
        here: whether they are fitted on this machine, whose device can be tried.
        seed: of the zoo; what all its networks share is drawn from it.
    """

    engine: str
    device: str
    dtype: str
    here: bool
    seed: int | None = None


class Goal(ABC):
    """What networks are fitted to. It pickles, and goes to workers and machines.

    Attributes:
        spec: of all networks.
        columns: what a row has besides keys and tensors.
        unit_rows: rows of every unit.
    """

    spec: NetworkSpec
    columns: dict[str, Column]
    unit_rows: int

    @abstractmethod
    def load(self, engine: str, device: str, threads: int | None = None) -> Any:
        """The engine of that name.

        Raises:
            ValueError: if there is no such engine or device.
        """

    @abstractmethod
    def chunk(self, engine: Any) -> tuple[int, int]:
        """Units to hand over at once, and how many of such chunks one process fits at once."""

    @abstractmethod
    def fit(self, engine: Any, seed: int, rows: Rows, *given: Any) -> Fitted:
        """Fit these units.

        Args:
            given: what `Kind.task` gives beside the rows.
        """


class Kind(Look, ABC):
    """Pictures, waves, shapes, classifiers or trajectories.

    Attributes:
        signals: whether a network stands for an item of the source, which it can be shown
            beside; else it was trained on many of them.
        planned: what `verify` says when every unit is there.
    """

    signals: ClassVar[bool]
    planned: ClassVar[str]

    @abstractmethod
    def open_source(
        self, recipe: Any, name: str, seed: int, data_root: Path | None, expect: str | None
    ) -> Source:
        """The source that a recipe is run on.

        Args:
            expect: the sha256 that it had for a zoo made of it, see `sources.load_images`.
        """

    @abstractmethod
    def splits(self, recipe: Any, source: Any) -> dict[str, range]:
        """Which items of the source, or which classifiers or runs, make up each split."""

    def rule(self, split: str, source: str) -> str:
        """The rule of `sources.split_items` that cuts the source of that name; "" if none.

        Args:
            split: the recipe's field, if it has one.
        """
        return ""

    def views(self, recipe: Any) -> int:
        """Independent initialisations of each training item."""
        return 1

    @abstractmethod
    def facts(self, recipe: Any, source: Any) -> dict[str, Any]:
        """What the index says of the source beside its name, title, licence and sha256."""

    @abstractmethod
    def goal(self, recipe: Any, source: Any, means: Means) -> tuple[Goal, str]:
        """What the networks are fitted to, and the engine; a missing device shows here.

        Raises:
            ValueError: if recipe, source and means do not go together.
        """

    @abstractmethod
    def values_goal(
        self, recipe: Any, inputs: NDArray[np.float32], out: int, seed: int | None = None
    ) -> Any:
        """The goal of targets that are given as values on inputs `point inp` or `net point inp`.

        Raises:
            ValueError: if such networks do not stand for one target each.
        """

    @abstractmethod
    def task(self, source: Any, rows: Rows) -> tuple[Any, ...]:
        """What is handed to a fitter for these units: all that it needs of the source."""

    def target_of(self, recipe: Any) -> str | None:
        """What a recipe asks of each network, in words; None if nothing."""
        return None

    def reached(self, arrays: Arrays) -> int:
        """How many of these rows met it."""
        return 0

    @property
    def target_flag(self) -> str:
        """The option that asks for it."""
        return ""

    def samples(self, goal: Any, source: Any, arrays: Mapping[str, NDArray[Any]]) -> Samples | None:
        """Rows of a shard beside their originals, with their quality as captions."""
        return None

    def thumbnails(
        self, goal: Any, source: Any, weights: Weights, index: NDArray[np.int64], side: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
        """Originals and networks of space as pictures `net side side chan`.

        Args:
            index: of the networks' items in the source.
        """
        return None

    def shortfall(self, recipe: Any, index: Index) -> list[str]:
        """How many networks missed what the recipe asked of them, in lines; none if all did it."""
        return []

    @abstractmethod
    def contradiction(self, made: Made, part: Arrays) -> str | None:
        """What in the rows of a shard is not what source and seed decide, or None."""

    @abstractmethod
    def check_quality(self, made: Made, arrays: Arrays) -> Check:
        """Evaluate rows again, and compare with their records."""

    @abstractmethod
    def check_refit(self, made: Made, count: int, chosen: np.random.Generator) -> Check:
        """Fit some rows or units again, and compare."""
