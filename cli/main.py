"""Gathers the commands; each is loaded when it is used, so that --help is instant."""

import sys
from importlib import import_module

import click

# Command: module and its line in --help. The line stands here, because asking the
# command for it would load what the command needs.
COMMANDS = {
    "fit-inrs": ("cli.fit", "Fit an INR to every picture or wave of a source."),
    "fit-classifiers": ("cli.fit", "Train classifiers of two random classes each."),
    "fit-trajectories": ("cli.fit", "Train classifiers and keep networks on the way."),
    "recipes": ("cli.fit", "List the recipes and their fields."),
    "info": ("cli.inspect", "What a zoo holds, finished or not."),
    "verify": ("cli.inspect", "Hold a zoo against its index, its source and a refit."),
    "show": ("cli.inspect", "Draw networks beside their originals, or their accuracy."),
}


class Commands(click.Group):
    """Loads commands late, and turns the library's errors into one line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _ = COMMANDS[name]
        return getattr(import_module(module), name.replace("-", "_"))  # type: ignore[no-any-return]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"unknown command {args[0]!r}; known: {', '.join(COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> object:
        from zoo.errors import ZooError

        try:
            return super().invoke(ctx)
        except ZooError as error:
            raise _failure(str(error), 1) from error
        except ValueError as error:
            raise _failure(str(error), 2) from error


def _failure(message: str, code: int) -> click.ClickException:
    failure = click.ClickException(" ".join(message.split()))
    failure.exit_code = code
    return failure


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="wszoo", message="wszoo %(version)s")
def wszoo() -> None:
    """Make datasets of neural networks and read them.

    Exit codes: 0 done, 1 failed, 2 misuse.
    """


def main() -> None:
    """The entry point."""
    sys.exit(wszoo())
