"""Lists of commands: `campaign`, and what `reproduce` runs."""

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli import progress
from cli.options import FolderPath
from cli.output import say
from zoo import stopping

if TYPE_CHECKING:
    from processors.campaign import Outcome, Step


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--out", type=FolderPath(),
    help="Folder of the ledger, and what {out} stands for.  [default: campaigns/NAME of FILE]",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only list the commands, and what is done already.")
def campaign(file: Path, out: Path | None, dry_run: bool) -> None:
    """Run the commands that FILE lists, TOML or JSON, one after the other.

    What the ledger in --out has as done is not run again, what fails is said, and the rest goes
    on. Run the same command again after a stop of any kind: it goes on where it was.
    """
    from processors.campaign import read

    folder = out or Path("campaigns") / file.stem
    steps = read(file, folder)
    check(steps)
    if dry_run:
        show(steps, folder)
        return
    outcome = perform(steps, folder)
    say(f"{folder}: {len(outcome.done)} commands run, {len(outcome.kept)} were done before")


def show(steps: Sequence["Step"], folder: Path) -> None:
    """The commands of a campaign, each with what the ledger says of it."""
    from processors.campaign import LEDGER, pending
    from processors.ledger import Ledger

    due = pending(steps, Ledger(folder / LEDGER))
    for step, needed in zip(steps, due, strict=True):
        say(f"{'to do' if needed else 'done':<6} {step.command}")


def perform(steps: Sequence["Step"], folder: Path) -> "Outcome":
    """Run a campaign; its lines go to stderr.

    Raises:
        ZooError: if a command failed; names each.
    """
    from processors.campaign import LEDGER
    from processors.campaign import perform as run
    from zoo.errors import ZooError

    def how_to_go_on() -> str:
        return f"the same command goes on with what is in {folder}"

    with stopping.telling(how_to_go_on):
        outcome = run(steps, folder, progress.tell)
    if outcome.failed:
        for step, why in outcome.failed:
            progress.tell(f"failed: {step.command}: {why}")
        raise ZooError(
            f"{len(outcome.failed)} of {len(steps)} commands failed, see above and "
            f"{folder / LEDGER}; the same command tries those again"
        )
    return outcome


def check(steps: Sequence["Step"]) -> None:
    """Hold every command line against what the commands take, before the first is run.

    Raises:
        ValueError: for an unknown command or option, or a value that it cannot have.
    """
    wszoo = click.get_current_context().find_root().command
    assert isinstance(wszoo, click.Group)
    made: set[str] = set()
    for step in steps:
        with click.Context(wszoo, info_name="wszoo") as context:
            try:
                _parse(wszoo, context, list(step.stand_in().words))
            except click.UsageError as error:
                # What an earlier step makes need not be there yet.
                if not any(f"'{name}'" in error.message for name in made):
                    raise ValueError(f"{step.command}: {error.format_message()}") from None
        if step.out is not None:
            made.add(step.out)


def _parse(group: click.Group, context: click.Context, words: list[str]) -> None:
    name, command, rest = group.resolve_command(context, words)
    assert command is not None
    if isinstance(command, click.Group) and rest:
        with click.Context(command, parent=context, info_name=name) as inner:
            _parse(command, inner, rest)
        return
    command.make_context(name, rest, parent=context).close()


def end_with_parent() -> None:
    """Have this process stop when the one that began it ends, and its pipe with it."""

    def wait() -> None:
        # Not through sys.stdin, whose lock a thread may not hold when Python ends.
        os.read(0, 1)
        stopping.ask("the campaign that it belongs to has ended")

    threading.Thread(target=wait, daemon=True, name="wszoo-campaign").start()
