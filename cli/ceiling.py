"""The command that measures what originals themselves tell: `ceiling`."""

from pathlib import Path
from typing import Any

import click

from cli import progress
from cli.options import FolderPath, data_root, number, threads
from cli.output import say
from cli.train import device, split_limit
from zoo import stopping


@click.command()
@click.argument("zoo", type=FolderPath())
@click.option(
    "--epochs", type=number(least=1),
    help="Of both trainings.  [default: 10, or more for 1,000 updates]",
)  # fmt: skip
@click.option(
    "--batch", type=number(least=1), default=64, show_default=True, help="Pictures, or shapes."
)
@click.option("--seed", type=number(least=0), default=0, show_default=True)
@click.option("--target", help="The column of classes, if there are several.")
@split_limit
@device
@data_root
@threads
def ceiling(zoo: Path, split_limit: str | None, **values: Any) -> None:
    """Measure what the pictures or shapes of ZOO tell: a ceiling for readers of its networks.

    A small convolutional network learns the classes from the originals, and once more from
    what the networks render. Both become rows of every report of runs on this zoo; they are
    kept in its folder as ceiling.json, which is no part of the zoo itself, each once it stands:
    after a stop the same command goes on.
    """
    from processors.ceiling import FILE, measure

    with stopping.telling(
        lambda: "what is measured is kept; the same command goes on with the rest"
    ):
        settings = {name: values.pop(name) for name in ("epochs", "batch")}
        measure(zoo, settings=settings, limit=split_limit, tell=progress.tell, **values)
    say(f"{zoo / FILE}")
