"""INRs of pictures."""

from collections.abc import Collection, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from zoo import sources
from zoo.errors import ZooError
from zoo.figures import Samples
from zoo.kinds.objectives import ImageObjective, Objective
from zoo.kinds.regression import Regression, Target
from zoo.reader import Row
from zoo.shards import Index
from zoo.sources import ImageSource, Source
from zoo.spec import NetworkSpec


def open_pictures(
    recipe: Any, name: str, data_root: Path | None, expect: str | None
) -> ImageSource:
    """The pictures that a recipe names, in its size."""
    return sources.load_images(name, data_root, recipe.size, fit=recipe.fit, expect=expect)


def refuse_others(recipe: Any, source: Source) -> None:
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

    what: ClassVar[str] = "Each one is a picture: it maps a pixel's coordinates to its colour."
    target: ClassVar[Target] = Target("target_psnr_db", "psnr_db", "dB", "min", "lowest {:.1f}")

    def resembles(self, columns: Collection[str], spec: NetworkSpec) -> bool:
        return len(spec.axes) == 2

    def open_source(
        self, recipe: Any, name: str, seed: int, data_root: Path | None, expect: str | None
    ) -> ImageSource:
        return open_pictures(recipe, name, data_root, expect)

    def splits(self, recipe: Any, source: Any) -> dict[str, range]:
        return dict(source.cut(self.rule(recipe.split, source.name)))

    def rule(self, split: str, source: str) -> str:
        return sources.split_rule(split, source)

    def views(self, recipe: Any) -> int:
        return int(recipe.views)

    def facts(self, recipe: Any, source: Any) -> dict[str, Any]:
        return picture_facts(recipe, source)

    def objective(self, recipe: Any, source: Any, seed: int | None = None) -> Objective:
        refuse_others(recipe, source)
        return ImageObjective(recipe, source.shape, source.class_names, seed)

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

    def shortfall(self, recipe: Any, index: Index) -> list[str]:
        lines = super().shortfall(recipe, index)
        floor = recipe.min_psnr_db
        if floor is not None:
            below = sum(row.reason.startswith("PSNR") for row in index.excluded)
            lines.append(f"left out by --min-psnr {floor:g}: {below:,} of {index.rows + below:,}")
        return lines

    def original(self, row: Row, data_root: Path | None, source: str | None) -> NDArray[Any]:
        about = row.source
        if not about["sha256"]:
            return super().original(row, data_root, source)
        name = source or about.get("address") or about["name"]
        size, fit = about["size"], about.get("fit", "crop")
        found = _opened(name, size, fit, data_root, about["sha256"])
        if found.sha256 != about["sha256"]:
            raise ZooError(
                f"source {found.name} is not what this row was fitted to: it has changed"
            )
        return found.images[int(row.columns["index"])]


@lru_cache(maxsize=2)
def _opened(
    name: str, size: int | str | None, fit: str, data_root: Path | None, expect: str
) -> ImageSource:
    return sources.load_images(name, data_root, size, fit=fit, expect=expect)
