"""Trials: `plan`, which says what a zoo will be, and what `--hidden auto` does before a fit."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from cli import progress
from cli.options import AUTO, INRS, given_fields, planning, recipe_options
from cli.output import say

if TYPE_CHECKING:
    from zoo.making.trial import Trial
    from zoo.recipes import AnyRecipe, Recipe


def automatic(fields: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The fields that have values, and the names of those that a trial is to find.

    >>> automatic({"hidden": "auto", "lr": 0.01})
    ({'lr': 0.01}, ['hidden', 'steps'])
    """
    wanted = [name for name, value in fields.items() if value == AUTO and name != "name"]
    if "hidden" in wanted and "steps" not in fields:
        wanted.append("steps")
    return {name: value for name, value in fields.items() if name not in wanted}, wanted


@click.command()
@click.argument("source")
@planning
@recipe_options(*INRS)
def plan(source: str, **values: Any) -> None:
    """Fit a few INRs of SOURCE, and say what a zoo of all will be; nothing is written.

    Takes what `fit-inrs` takes of the same names. With --hidden auto it finds the smallest
    networks that reach --target-psnr (waves: --target-mse) on 95% of the pictures, and the
    fewest steps, and prints the command that fits all of them.
    """
    from zoo import recipes, sources

    source = sources.resolve(source)
    fields, wanted = automatic(given_fields(values))
    chosen = recipes.recipe(values["recipe"], source, "fit-inrs", **fields)
    trial, command = _tried(chosen, source, wanted, values)
    for line in trial.words():
        say(line)
    say(command)


def settle(
    recipe: "AnyRecipe",
    source: str,
    wanted: Collection[str],
    folder: Path | str,
    settings: dict[str, Any],
    elsewhere: bool,
) -> tuple["AnyRecipe", Any]:
    """The recipe with its fields that are wanted, and the source, opened if it was needed.

    A zoo that was begun in the folder keeps what was chosen then.
    """
    from dataclasses import replace

    from zoo.making.site import recipe_there, refuse_foreign, source_there
    from zoo.storage import place

    where = place(folder)
    refuse_foreign(where)
    there = {} if settings["overwrite"] else recipe_there(where)
    if all(type(there.get(name)) is int for name in wanted):
        return replace(recipe, **{name: there[name] for name in wanted}), source
    expect = None if settings["overwrite"] else source_there(where)
    trial, _ = _tried(recipe, source, wanted, settings, elsewhere, expect)
    for line in trial.words():
        progress.tell(line)
    return trial.recipe, trial.source


def _tried(
    recipe: "AnyRecipe",
    source: str,
    wanted: Collection[str],
    settings: dict[str, Any],
    elsewhere: bool = False,
    expect: str | None = None,
) -> tuple["Trial", str]:
    """A trial, and the command that makes the zoo."""
    from zoo.kinds import Means, open_source
    from zoo.making import trial
    from zoo.making.plan import Settings, command_line, plan_zoo

    seed, engine, device = settings["seed"], settings["engine"], settings["device"]
    if elsewhere:
        engine, device = "auto", "cpu"  # the cluster's may not be here
    opened = open_source(recipe, source, seed, settings["data_root"], expect)
    planned = plan_zoo(
        recipe,
        opened,
        "trial",
        Settings(
            limit=settings["limit"],
            seed=seed,
            engine=engine,
            device=device,
            parquet=settings.get("parquet", True),
            pictures=settings.get("pictures", True),
        ),
    )
    means = Means(engine, device, "float32", here=True, seed=seed)
    with progress.shown("a trial", "net", lambda: "nothing is written yet."):
        inrs = cast("Recipe", recipe)  # all that fit-inrs takes
        found = trial.try_out(inrs, opened, planned, means, wanted, progress.tell)
    return found, command_line(found.recipe, source, planned.index.plan)
