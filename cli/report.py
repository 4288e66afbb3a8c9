"""Commands that set results beside published ones: `report`, `reproduce`."""

from pathlib import Path
from typing import Any

import click

from cli import progress
from cli.options import data_root, threads
from cli.train import training


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("report.md"), show_default=True,
    help="The report, Markdown; its figures go beside it.",
)  # fmt: skip
@click.option(
    "--keep", type=click.Path(path_type=Path),
    help="Also keep what a report needs of the RUNS in this JSON file.",
)  # fmt: skip
def report(runs: tuple[Path, ...], out: Path, keep: Path | None) -> None:
    """Tables and figures of RUNS, published numbers beside ours.

    RUNS are folders of runs, or JSON files of --keep. Runs that are not finished are left
    out, and named.
    """
    from processors import report as reports
    from zoo.errors import ZooError

    unfinished = [path for path in runs if reports.unfinished(path)]
    for path in unfinished:
        click.echo(f"{path} is not finished and left out", err=True)
    runs = tuple(path for path in runs if path not in unfinished)
    if not runs:
        raise ZooError("none of the runs is finished: there is nothing to report")
    reports.write(runs, out)
    click.echo(f"{out}")
    if keep is not None:
        reports.keep(runs, keep)
        click.echo(f"{keep}")


@click.command()
@click.argument("experiment", required=False)
@click.option(
    "--scale", type=click.Choice(["paper", "quick"]), default="quick", show_default=True,
    help="As published, or some minutes on a laptop.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("reproduced"), show_default=True,
    help="Folder of zoos, runs and report.",
)  # fmt: skip
@click.option("--models", help="Only these of the experiment's, with commas.")
@click.option("--seeds", help="Instead of the scale's, with commas.")
@click.option("--limit", type=int, help="Networks (or runs) of the zoo, instead of the scale's.")
@click.option("--epochs", type=int, help="Instead of the scale's.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps.")
@threads
@data_root
def reproduce(
    experiment: str | None,
    scale: str,
    out: Path,
    models: str | None,
    seeds: str | None,
    limit: int | None,
    epochs: int | None,
    device: str,
    data_root: Path | None,
) -> None:
    """Make the zoo of a paper's EXPERIMENT, train on it, and report, in one go.

    Without EXPERIMENT it lists them. Run the same command again after a stop of any kind:
    it goes on where it was.
    """
    from processors import reproduce as papers

    if experiment is None:
        for name, each in papers.EXPERIMENTS.items():
            click.echo(f"{name:<24} {each.identity:<3} {each.text}")
        return
    settings: dict[str, Any] = {} if epochs is None else {"epochs": epochs}
    try:
        numbers = [int(word) for word in seeds.split(",")] if seeds else []
    except ValueError:
        raise ValueError(f"--seeds takes whole numbers with commas, got {seeds!r}") from None

    def how_to_go_on() -> str:
        return f"the same command goes on with what is in {out}"

    with training(f"{out}", how_to_go_on) as (meter, report):

        def fitted(state: Any) -> None:
            found = state.fitted == 0
            meter.update(state.done, state.total, label="zoo", unit="net", found=found)

        path = papers.reproduce(
            experiment, scale, out,
            models=models.split(",") if models else (), seeds=numbers, limit=limit,
            settings=settings, data_root=data_root, device=device, fit_progress=fitted,
            progress=report, tell=progress.tell,
        )  # fmt: skip
    click.echo(f"{path}")
