"""Gathers the commands; each is loaded when it is used, so that --help is instant."""

import atexit
import builtins
import contextlib
import errno
import sys
from collections.abc import Iterator
from importlib import import_module
from keyword import iskeyword
from typing import Any

import click

from zoo import machine, stopping
from zoo.errors import ZooError, safe_line

# Command: module and its line in --help. The line stands here, because asking the
# command for it would load what the command needs.
COMMANDS = {
    "fit-inrs": ("cli.fit", "Fit an INR to every picture or wave of a source."),
    "fit-classifiers": ("cli.fit", "Train classifiers of two random classes each."),
    "fit-trajectories": ("cli.fit", "Train classifiers and keep networks on the way."),
    "plan": ("cli.plan", "Fit a few INRs, and say what a zoo of all will be."),
    "merge": ("cli.fit", "Join parts that were fitted by --shards into a zoo."),
    "select": ("cli.joining", "Make a zoo of the rows that meet a condition."),
    "concat": ("cli.joining", "Make one zoo of several of one architecture."),
    "view": ("cli.joining", "Write the Parquet view of a zoo anew."),
    "card": ("cli.joining", "Write the data card of a zoo anew."),
    "import": ("cli.importing", "Make a zoo of networks that others published."),
    "sources": ("cli.listing", "List what networks can be fitted to."),
    "recipes": ("cli.listing", "List the recipes, or the fields of one."),
    "models": ("cli.listing", "List the models, or the arguments and settings of one."),
    "tasks": ("cli.listing", "List what models can be trained for."),
    "info": ("cli.inspect", "What a zoo holds, finished or not."),
    "verify": ("cli.inspect", "Hold a zoo against its index, its source and a refit."),
    "show": ("cli.inspect", "Draw networks beside their originals, or their accuracy."),
    "train": ("cli.train", "Train a model that reads networks, for a task."),
    "eval": ("cli.train", "Measure a trained model on a zoo."),
    "ceiling": ("cli.ceiling", "What the pictures of a zoo tell, a ceiling for its readers."),
    "report": ("cli.report", "Tables of results, published ones beside ours."),
    "reproduce": ("cli.report", "A paper's experiment: zoo, runs, report."),
    "campaign": ("cli.campaign", "Run a list of these commands, with a ledger."),
    "push": ("cli.hub", "Send a zoo or a trained model to the Hugging Face Hub."),
    "pull": ("cli.hub", "Fetch a zoo from the Hugging Face Hub."),
}


class Commands(click.Group):
    """Loads commands late, and turns the library's errors into one line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _ = COMMANDS[name]
        taken = iskeyword(name) or hasattr(builtins, name)
        attribute = name.replace("-", "_") + "_" * taken
        return getattr(import_module(module), attribute)  # type: ignore[no-any-return]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"unknown command {args[0]!r}; known: {', '.join(COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with _stoppable(), _one_line():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> object:
        try:
            with stopping.guarded(), _stoppable(), _one_line():
                return super().invoke(ctx)
        except ZooError as error:
            raise Failure(str(error), 1) from error
        except ValueError as error:
            raise Failure(str(error), 2) from error
        except OSError as error:
            if error.errno == errno.EPIPE:  # click ends quietly
                raise
            known = error.filename is not None and error.strerror
            what = f"{error.filename}: {error.strerror}" if known else str(error)
            raise Failure(what, 1) from error


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Turn a stop into its line, whatever the exception that it came as."""
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped(stopping.line()) from None
    except Exception as error:
        # What is interrupted may fail in a way of its own: an import, a pool of workers.
        if stopping.asked():
            raise Stopped(stopping.line()) from error
        raise


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    """Have misuse that click finds said in one line, which ends with where the help is."""
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        message = error.format_message()
        if error.ctx is not None:
            message = f"{message.removesuffix('.')} (see {error.ctx.command_path} --help)"
        raise Failure(message, 2) from error


class Failure(click.ClickException):
    """An expected error: one line on stderr, and the exit code."""

    def __init__(self, message: str, code: int):
        super().__init__(safe_line(message))
        self.exit_code = code  # type: ignore[misc]


class Stopped(Failure):
    """A stop that was asked for; its line is no error."""

    def __init__(self, message: str):
        super().__init__(message, stopping.STOPPED)

    def show(self, file: Any = None) -> None:
        click.echo(self.format_message(), file=file, err=True)


def _tell_version(context: click.Context, option: click.Parameter, asked: bool) -> None:
    if asked:
        import zoo

        click.echo(f"wszoo {zoo.__version__}")
        context.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_tell_version,
    help="Show the version and exit.",
)  # fmt: skip
def wszoo() -> None:
    """Make datasets of neural networks and read them.

    Exit codes: 0 done, 1 failed, 2 misuse.
    """


def main() -> None:
    """The entry point."""
    from cli.output import prepare_streams
    from cli.progress import tell_notices

    if machine.on_windows():
        sys.exit(machine.WINDOWS)
    # Python's own end lets signals be: nothing is left to be stopped.
    atexit.register(stopping.ignore)
    prepare_streams()
    tell_notices()
    code = stopping.STOPPED
    try:
        with stopping.guarded():
            try:
                sys.exit(wszoo())
            except SystemExit as ended:
                if ended.code is None or isinstance(ended.code, int):
                    code = ended.code or 0
                if stopping.asked():
                    stopping.end(code)
                raise
    finally:
        stopping.settled(code)


if __name__ == "__main__":
    main()
