"""What a kind of zoo has to say for itself; the rest of wszoo asks nothing but this."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from zoo.figures import Samples
from zoo.making.fitting import Rows
from zoo.objectives import Objective
from zoo.sources import ImageSource, SineSource
from zoo.training import Classification


@dataclass(frozen=True)
class Means:
    """With what networks are fitted.

    Attributes:
        engine: by name, "auto" among them.
        device: of torch.
        dtype: that the networks are kept in.
        here: whether they are fitted on this machine, whose device can be tried.
    """

    engine: str
    device: str
    dtype: str
    here: bool


class Kind(ABC):
    """Pictures, waves, classifiers or trajectories.

    Attributes:
        signals: whether a network stands for an item of the source, which it can be shown
            beside; else it was trained on many of them.
    """

    signals: ClassVar[bool]

    @abstractmethod
    def open_source(
        self, recipe: Any, name: str, seed: int, data_root: Path | None, expect: str | None
    ) -> ImageSource | SineSource:
        """The source that a recipe is run on.

        Args:
            expect: the sha256 that it had for a zoo made of it, see `sources.load_images`.
        """

    @abstractmethod
    def splits(self, recipe: Any, source: Any) -> dict[str, range]:
        """Which items of the source, or which classifiers or runs, make up each split."""

    def views(self, recipe: Any) -> int:
        """Independent initialisations of each training item."""
        return 1

    @abstractmethod
    def facts(self, recipe: Any, source: Any) -> dict[str, Any]:
        """What the index says of the source beside its name, title, licence and sha256."""

    @abstractmethod
    def goal(
        self, recipe: Any, source: Any, means: Means
    ) -> tuple[Objective | Classification, str]:
        """What the networks are fitted to, and the engine; a missing device shows here.

        Raises:
            ValueError: if recipe, source and means do not go together.
        """

    @abstractmethod
    def task(self, source: Any, rows: Rows) -> tuple[Any, ...]:
        """What is handed to a fitter for these units: all that it needs of the source."""

    def samples(self, goal: Any, source: Any, arrays: Mapping[str, NDArray[Any]]) -> Samples | None:
        """Rows of a shard beside their originals, with their quality as captions."""
        return None
