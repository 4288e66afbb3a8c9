"""Writes cli.md from the commands' help and api.md from the docstrings of public names.

python docs/generate.py            # writes both
python docs/generate.py --check    # exit 1 if they are not what this would write
"""

import importlib
import inspect
import os
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import click

DOCS = Path(__file__).parent
WIDTH = 88
PACKAGES = ("zoo", "processors")
_MADE = "<!-- Made by `python docs/generate.py`; change the {where} and run it again. -->\n"


def commands(command: click.Command, words: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Every command with its help, in the order of the help; groups before their members."""
    context = click.Context(command, info_name=" ".join(words), max_content_width=WIDTH)
    context.terminal_width = WIDTH
    yield " ".join(words), command.get_help(context).rstrip()
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            member = command.get_command(context, name)
            if member is not None and not member.hidden:
                yield from commands(member, (*words, name))


def cli_page() -> str:
    """The page of all commands."""
    from cli.main import wszoo

    parts = ["# Commands\n", _MADE.format(where="commands' help")]
    for name, text in commands(wszoo, ("wszoo",)):
        parts.append(f"## {name}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def _signature(value: Any) -> str:
    try:
        found = str(inspect.signature(value))
    except (TypeError, ValueError):
        return ""
    # Where modules lie and how objects print is not part of what a name takes.
    found = re.sub(r"<[^<>]* at 0x[0-9a-f]+>", "...", found)
    return re.sub(
        r"\b(?:zoo|processors|torch|numpy|pathlib|collections)(?:\.\w+)+\.(?=\w)", "", found
    )


def _members(value: type) -> Iterator[tuple[str, Any]]:
    for name, member in vars(value).items():
        plain = getattr(member, "__func__", member)
        if (
            not name.startswith("_")
            and inspect.getdoc(member)
            and (inspect.isfunction(plain) or isinstance(member, property))
        ):
            yield name, member


def _entry(package: str, name: str, value: Any) -> str:
    doc = inspect.getdoc(value) or ""
    kind = "" if isinstance(value, ModuleType) or not callable(value) else _signature(value)
    parts = [
        f"## {package}.{name}\n",
        f"```text\n{name}{textwrap.fill(kind, WIDTH) if kind else ''}\n```\n",
    ]
    parts.append(f"```text\n{doc}\n```\n")
    if inspect.isclass(value):
        for member_name, member in _members(value):
            plain = getattr(member, "__func__", member)
            signature = "" if isinstance(member, property) else _signature(plain)
            first = (inspect.getdoc(member) or "").split("\n\n")[0].replace("\n", " ")
            parts.append(f"- `{member_name}{signature}`: {first}")
        parts.append("")
    return "\n".join(parts)


def api_page() -> str:
    """The page of all public names of the packages."""
    parts = ["# Python\n", _MADE.format(where="docstrings")]
    for package in PACKAGES:
        module = importlib.import_module(package)
        parts.append(f"# {package}\n\n```text\n{inspect.getdoc(module)}\n```\n")
        parts += [
            _entry(package, name, getattr(module, name))
            for name in sorted(module.__all__, key=str.lower)
        ]
    return "\n".join(parts)


PAGES = {"cli.md": cli_page, "api.md": api_page}


def main() -> None:
    """Write the pages, or compare them."""
    os.environ["COLUMNS"] = str(WIDTH)
    stale = []
    for name, make in PAGES.items():
        path, text = DOCS / name, make()
        if "--check" in sys.argv[1:]:
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                stale.append(name)
        else:
            path.write_text(text, encoding="utf-8")
    if stale:
        sys.exit(f"docs/{', docs/'.join(stale)}: not up to date; run python docs/generate.py")


if __name__ == "__main__":
    main()
