"""The kinds of zoo, one file each; `KINDS` by a recipe's kind is the one dispatch.

A new kind is a source, a file here with a class of `base.Kind`, an entry and a recipe.
"""

from collections.abc import Collection
from pathlib import Path

from zoo.kinds.base import Goal, Kind, Means
from zoo.kinds.checks import Check, Made
from zoo.kinds.looks import Look
from zoo.kinds.objectives import Objective
from zoo.kinds.pictures import Pictures
from zoo.kinds.regression import Inrs, evaluate
from zoo.kinds.shapes import SolidShapes, VoxelShapes
from zoo.kinds.trained import Classifiers, Trajectories
from zoo.kinds.waves import Waves
from zoo.recipes import AnyRecipe, recipe_from_json
from zoo.shards import Index
from zoo.sources import Source
from zoo.spec import NetworkSpec

__all__ = [
    "DRAWN",
    "KINDS",
    "Check",
    "Goal",
    "Inrs",
    "Kind",
    "Look",
    "Made",
    "Means",
    "Objective",
    "evaluate",
    "kind_of",
    "look_like",
    "look_of",
    "objective",
    "open_source",
    "shortfall",
    "split_rule",
]

KINDS: dict[str, Kind] = {
    "image": Pictures(),
    "sine": Waves(),
    "shape": VoxelShapes(),
    "solid": SolidShapes(),
    "classifier": Classifiers(),
    "trajectory": Trajectories(),
}
# Columns of any kind's figure; the same for every zoo, as notes of older versions have it.
DRAWN = tuple(dict.fromkeys(name for kind in KINDS.values() for name in kind.drawn))


def kind_of(recipe: AnyRecipe) -> Kind:
    """What a recipe makes."""
    return KINDS[recipe.kind]


def _made_by(index: Index) -> Kind | None:
    """The kind of a finished zoo; None if no recipe of ours made it."""
    return KINDS.get(str(index.recipe.get("kind")))


def look_like(columns: Collection[str], spec: NetworkSpec) -> Look:
    """How networks are shown of which only columns and conventions are known."""
    # What a row was trained on tells more than its inputs, hence the last kinds first.
    found = (kind for kind in reversed(KINDS.values()) if kind.resembles(columns, spec))
    return next(found, Look())


def look_of(index: Index) -> Look:
    """How the networks of a zoo are shown."""
    return _made_by(index) or look_like(index.columns, index.spec)


def split_rule(index: Index) -> str:
    """The rule of `sources.split_items` that cut the source of a zoo; "" if there is none."""
    kind = _made_by(index)
    split, source = str(index.recipe.get("split", "")), str(index.source.get("name"))
    return kind.rule(split, source) if kind else ""


def shortfall(index: Index) -> list[str]:
    """How many networks of a finished zoo missed what its recipe asked of them, in lines.

    Nothing is said of a target that all reached, or of networks that no recipe made.
    """
    kind = _made_by(index)
    return kind.shortfall(recipe_from_json(index.recipe), index) if kind else []


def open_source(
    recipe: AnyRecipe,
    name: str,
    seed: int,
    data_root: str | Path | None = None,
    expect: str | None = None,
) -> Source:
    """The source that a recipe is run on; waves are drawn from the seed.

    Args:
        expect: the sha256 that it had for a zoo made of it, see `sources.load_images`.
    """
    root = Path(data_root) if data_root else None
    return kind_of(recipe).open_source(recipe, name, seed, root, expect)


def objective(recipe: AnyRecipe, source: Source, seed: int | None = None) -> Objective:
    """The objective of a recipe on a source, in a zoo of this seed.

    Raises:
        ValueError: if its networks stand for no item of a source, or for none of this one, or
            they have an encoding, which is drawn from the seed, and there is none.
    """
    kind = kind_of(recipe)
    if not isinstance(kind, Inrs):
        raise ValueError(f"recipe {recipe.name!r} trains classifiers, which have no one target")
    return kind.objective(recipe, source, seed)
