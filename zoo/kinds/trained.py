"""Classifiers at the end of their training, and networks kept on the way."""

from pathlib import Path
from typing import Any, ClassVar

from zoo.kinds.base import Kind, Means
from zoo.kinds.pictures import open_pictures, picture_facts, refuse_others
from zoo.making.fitting import Rows
from zoo.sources import ImageSource
from zoo.training import Classification


class Trained(Kind):
    """Units are classifiers, or runs of several networks, cut by the recipe's shares."""

    signals: ClassVar[bool] = False

    def open_source(
        self, recipe: Any, name: str, seed: int, data_root: Path | None, expect: str | None
    ) -> ImageSource:
        return open_pictures(recipe, name, data_root, expect)

    def splits(self, recipe: Any, source: Any) -> dict[str, range]:
        validation, test = (round(share * recipe.units) for share in recipe.shares)
        first = recipe.units - validation - test
        return {
            "train": range(first),
            "validation": range(first, first + validation),
            "test": range(first + validation, recipe.units),
        }

    def facts(self, recipe: Any, source: Any) -> dict[str, Any]:
        return picture_facts(recipe, source)

    def goal(self, recipe: Any, source: Any, means: Means) -> tuple[Classification, str]:
        from zoo.engines import classifiers

        refuse_others(recipe, source)
        engine = classifiers.choose(means.engine, means.device)
        if means.device != "cpu" and means.here:
            classifiers.load(engine, means.device)
        return Classification(recipe, source, means.dtype), engine

    def task(self, source: Any, rows: Rows) -> tuple[Any, ...]:
        return (rows,)
