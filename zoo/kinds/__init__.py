"""The kinds of zoo, one file each; `KINDS` by a recipe's kind is the one dispatch.

A new kind is a source, a file here with a class of `base.Kind`, an entry and a recipe.
"""

from pathlib import Path

from zoo.kinds.base import Kind, Means
from zoo.kinds.pictures import Pictures
from zoo.kinds.regression import Regression, evaluate
from zoo.kinds.trained import Trained
from zoo.kinds.waves import Waves
from zoo.objectives import Objective
from zoo.recipes import AnyRecipe
from zoo.sources import ImageSource, SineSource

__all__ = [
    "KINDS",
    "Kind",
    "Means",
    "Regression",
    "evaluate",
    "kind_of",
    "objective",
    "open_source",
]

KINDS: dict[str, Kind] = {
    "image": Pictures(),
    "sine": Waves(),
    "classifier": Trained(),
    "trajectory": Trained(),
}


def kind_of(recipe: AnyRecipe) -> Kind:
    """What a recipe makes."""
    return KINDS[recipe.kind]


def open_source(
    recipe: AnyRecipe,
    name: str,
    seed: int,
    data_root: str | Path | None = None,
    expect: str | None = None,
) -> ImageSource | SineSource:
    """The source that a recipe is run on; waves are drawn from the seed.

    Args:
        expect: the sha256 that it had for a zoo made of it, see `sources.load_images`.
    """
    root = Path(data_root) if data_root else None
    return kind_of(recipe).open_source(recipe, name, seed, root, expect)


def objective(recipe: AnyRecipe, source: ImageSource | SineSource) -> Objective:
    """The objective of a recipe on a source.

    Raises:
        ValueError: if its networks stand for no item of a source, or for none of this one.
    """
    kind = kind_of(recipe)
    if not isinstance(kind, Regression):
        raise ValueError(f"recipe {recipe.name!r} trains classifiers, which have no one target")
    return kind.objective(recipe, source)
