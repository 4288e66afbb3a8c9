"""INRs of pictures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo import sources
from zoo.figures import Samples
from zoo.kinds.regression import Regression
from zoo.objectives import ImageObjective, Objective
from zoo.sources import ImageSource, SineSource


def open_pictures(
    recipe: Any, name: str, data_root: Path | None, expect: str | None
) -> ImageSource:
    """The pictures that a recipe names, in its size."""
    return sources.load_images(name, data_root, recipe.size, fit=recipe.fit, expect=expect)


def refuse_others(recipe: Any, source: ImageSource | SineSource) -> None:
    """Raise ValueError unless a source has pictures."""
    if not isinstance(source, ImageSource):
        raise ValueError(f"recipe {recipe.name!r} is for pictures, {source.name} has none")


def picture_facts(recipe: Any, source: ImageSource) -> dict[str, Any]:
    """What the index says of a source of pictures."""
    return {
        "kind": "image",
        "size": recipe.size,
        "shape": list(source.shape),
        "train_items": source.train_items,
        "class_names": list(source.class_names),
        **({"fit": recipe.fit} if recipe.fit != "crop" else {}),
        **source.remarks(),
    }


class Pictures(Regression):
    """One network a picture and view; only training pictures have more than view 0."""

    def open_source(
        self, recipe: Any, name: str, seed: int, data_root: Path | None, expect: str | None
    ) -> ImageSource:
        return open_pictures(recipe, name, data_root, expect)

    def splits(self, recipe: Any, source: Any) -> dict[str, range]:
        rule = sources.split_rule(recipe.split, source.name)
        return sources.split_items(source.train_items, len(source), rule, source.validation_items)

    def views(self, recipe: Any) -> int:
        return int(recipe.views)

    def facts(self, recipe: Any, source: Any) -> dict[str, Any]:
        return picture_facts(recipe, source)

    def objective(self, recipe: Any, source: Any) -> Objective:
        refuse_others(recipe, source)
        return ImageObjective(recipe, source.shape, source.class_names)

    def shown(
        self,
        goal: Objective,
        source: Any,
        arrays: Mapping[str, NDArray[Any]],
        targets: NDArray[np.float32],
        outputs: NDArray[np.float32],
    ) -> Samples:
        black, white = goal.spec.pixel_range
        originals, reconstructions = (
            np.clip((values - black) / (white - black), 0, 1).reshape(len(values), *source.shape)
            for values in (targets, outputs)
        )
        captions = [f"{value:.1f} dB" for value in arrays["psnr_db"]]
        return Samples(originals, reconstructions, captions)
