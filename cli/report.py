"""Commands that set results beside published ones: `report`, `reproduce`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli import campaign
from cli.listing import MODELS
from cli.options import FilePath, FolderPath, Parsed, Value, data_root, number, threads
from cli.output import say
from cli.progress import duration
from cli.train import device
from processors.settings import SEEDS, Settings
from zoo.fields import about

if TYPE_CHECKING:
    from processors.minutes import Expected
    from processors.reproduce import Changes


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option(
    "--out", type=FilePath(), default=Path("report.md"), show_default=True,
    help="The report, Markdown; its figures go beside it.",
)  # fmt: skip
@click.option(
    "--keep", type=FilePath(),
    help="Also keep what a report needs of the RUNS in this JSON file.",
)  # fmt: skip
@click.option(
    "--newest", is_flag=True,
    help="Leave out runs of before there were presets where one by a preset stands in their place.",
)  # fmt: skip
@click.option(
    "--confusion", is_flag=True,
    help="Show what tasks draw, such as confusion matrices, of every model, not the best alone.",
)  # fmt: skip
def report(
    runs: tuple[Path, ...], out: Path, keep: Path | None, newest: bool, confusion: bool
) -> None:
    """Tables and figures of RUNS, published numbers beside ours.

    RUNS are folders of runs, or JSON files of --keep. Runs that are not finished are left
    out, and named. What stands between the two marks for your notes in a report that is
    made again stays there.
    """
    from processors import report as reports
    from zoo.errors import ZooError

    unfinished = [run for run in runs if reports.unfinished(run)]
    for run in unfinished:
        say(f"{run} is not finished and left out", err=True)
    given, runs = runs, tuple(run for run in runs if run not in unfinished)
    if not runs:
        raise ZooError(f"none of {', '.join(map(str, given))} is finished: nothing to report")
    reports.write(runs, out, kept=keep, latest=newest, every=confusion)
    say(f"{out}")
    if keep is not None:
        say(f"{keep}")


def parse_seeds(text: str) -> list[int]:
    """Seeds with commas.

    >>> parse_seeds("0,1")
    [0, 1]

    Raises:
        ValueError: for anything else.
    """
    try:
        seeds = [int(word) for word in text.split(",")]
    except ValueError:
        raise ValueError(f"takes whole numbers with commas, got {text!r}") from None
    if len(set(seeds)) < len(seeds) or not all(0 <= seed < SEEDS for seed in seeds):
        raise ValueError(f"takes different seeds from 0 to {SEEDS - 1:,}, got {text!r}")
    return seeds


def parse_models(text: str) -> list[str]:
    """Names of models with commas.

    Raises:
        ValueError: for an unknown one; lists those there are.
    """
    names = [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in MODELS]:
        raise ValueError(f"unknown model {unknown[0]!r}; known: {', '.join(MODELS)}")
    return names


@click.command()
@click.argument("experiment", required=False)
@click.option(
    "--scale", type=click.Choice(["paper", "cpu", "quick"]), default="quick", show_default=True,
    help="As published, a night of one core, or some minutes on a laptop.",
)  # fmt: skip
@click.option(
    "--out", type=FolderPath(), default=Path("reproduced"), show_default=True,
    help="Folder of zoos, runs and report.",
)  # fmt: skip
@click.option(
    "--models", type=Parsed(parse_models), help="Only these of the experiment's, with commas."
)
@click.option("--seeds", type=Parsed(parse_seeds), help="Instead of the scale's, with commas.")
@click.option(
    "--limit", type=number(least=1),
    help="Networks (or runs) of the zoo, instead of the scale's.",
)  # fmt: skip
@click.option(
    "--epochs", type=Value(int, about(Settings)["epochs"]), help="Instead of the scale's."
)
@device
@threads
@data_root
@click.option("--dry-run", is_flag=True, help="Only list the commands, and what is done already.")
@click.option(
    "--minutes", is_flag=True,
    help="Only say what each part takes on this machine; a few networks and updates are tried.",
)  # fmt: skip
def reproduce(
    experiment: str | None, scale: str, out: Path, dry_run: bool, minutes: bool, **changes: Any
) -> None:
    """Make the zoo of a paper's EXPERIMENT, train on it, and report, in one go.

    Without EXPERIMENT it lists them. Run the same command again after a stop of any kind:
    it goes on where it was.
    """
    from processors import reproduce as papers

    if minutes and dry_run:
        raise click.UsageError("--minutes and --dry-run are answers of their own; ask for one")
    if experiment is None and (minutes or dry_run):
        asked_for = "--minutes" if minutes else "--dry-run"
        raise click.UsageError(f"{asked_for} needs an EXPERIMENT; `wszoo reproduce` lists them")
    if experiment is None:
        for name, each in papers.EXPERIMENTS.items():
            say(f"{name:<24} {each.identity:<3} {each.text}")
        return
    epochs = changes.pop("epochs")
    settings: dict[str, Any] = {} if epochs is None else {"epochs": epochs}
    chosen = {name: value for name, value in changes.items() if value is not None}
    asked = papers.Changes(**chosen, settings=settings)
    if minutes:
        _say_minutes(experiment, scale, asked)
        return
    steps = papers.plan(experiment, scale, out, asked)
    campaign.check(steps)
    if dry_run:
        campaign.show(steps, out)
        return
    campaign.perform(steps, out)
    say(f"{steps[-1].out}")


def _say_minutes(experiment: str, scale: str, changes: "Changes") -> None:
    """What each part of an experiment takes here, a line as it is known, then all of it."""
    from processors.evaluation import find_device
    from processors.minutes import expected
    from processors.train import device_name

    def tell(part: "Expected") -> None:
        say(f"{part.what:<32} {part.amount:<44} {duration(part.seconds)}")

    found = expected(experiment, scale, changes, tell)
    whole = sum(part.seconds for part in found)
    say(f"{'in all':<32} {device_name(find_device(changes.device)):<44} {duration(whole)}")
