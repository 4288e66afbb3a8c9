"""The documents are true: links lead somewhere, examples run, generated pages are current."""

import ast
import importlib
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from helpers import run

from processors import campaign

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
CARDS = [path for of in ("data_cards", "model_cards") for path in (ROOT / of).glob("*/README.md")]
ALL_PAGES = [*PAGES, ROOT / "CHANGELOG.md", *sorted(CARDS)]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LONGEST_README, LONGEST_EXAMPLE = 150, 40


def in_the_tree(script: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    more = {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
    environment = {**os.environ, **more}
    return subprocess.run(
        [sys.executable, *script], cwd=folder, env=environment, capture_output=True, text=True,
        timeout=400,
    )  # fmt: skip


def examples(page: Path) -> list[str]:
    """The Python blocks of a page."""
    return [text for kind, text in FENCE.findall(page.read_text("utf-8")) if kind == "python"]


def broken(page: Path) -> list[str]:
    """Links of a page to files of the project that are not there."""
    text = FENCE.sub("", page.read_text("utf-8"))
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    local = [target for target in targets if "://" not in target]
    return [target for target in local if not (page.parent / target).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    assert broken(page) == []


def test_a_broken_link_is_seen(tmp_path):
    (tmp_path / "page.md").write_text("[a](there.md) [b](page.md#part) [c](https://x.org)")
    assert broken(tmp_path / "page.md") == ["there.md"]


def test_the_front_door_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= LONGEST_README


def test_the_tree_in_the_design_names_every_module():
    """Every file of the packages stands in the tree, by its name or that of its room."""
    text = (ROOT / "docs" / "design.md").read_text("utf-8")
    for package in ("zoo", "processors", "cli"):
        for path in (ROOT / package).iterdir():
            name = f"{path.name}/" if path.is_dir() else path.name
            if not path.name.startswith("__") and path.suffix in ("", ".py"):
                assert name in text, f"docs/design.md lacks {package}/{name}"


def test_examples_of_extending_run_as_they_stand(tmp_path):
    parts = examples(ROOT / "docs" / "extending.md")
    assert len(parts) == 5
    assert max(len(part.splitlines()) for part in parts) <= LONGEST_EXAMPLE
    (tmp_path / "mine.py").write_text("\n".join(parts), "utf-8")
    found = in_the_tree(["mine.py"], tmp_path)
    assert found.returncode == 0, found.stderr
    decibels, accuracy, error = (float(line) for line in found.stdout.split())
    assert decibels > 10
    assert 0 <= accuracy <= 1
    assert error < 1000
    made = ("zoos/checkers", "zoos/checkers-small", "zoos/mine")
    assert all((tmp_path / each / "zoo.json").is_file() for each in made)


def test_the_list_of_runs_in_training_runs_as_it_stands(tmp_path, monkeypatch):

    def in_this_one(command, said, told, tell):
        """What test_processors_campaign.py tries in processes of their own, which take longer."""
        result = run(*command[len(campaign.WSZOO) :])
        said.extend(result.stdout.splitlines())
        told.extend(result.stderr.splitlines())
        return result.exit_code

    monkeypatch.setattr(campaign, "_process", in_this_one)
    (text,) = [
        text
        for kind, text in FENCE.findall((ROOT / "docs" / "training.md").read_text("utf-8"))
        if kind == "toml"
    ]
    path, out = tmp_path / "two-models.toml", tmp_path / "out"
    path.write_text(text)
    found = run("campaign", path, "--out", out)
    assert found.exit_code == 0, found.output
    assert found.stdout.strip() == f"{out}: 6 commands run, 0 were done before"
    report = (out / "report.md").read_text()
    for model in ("StatNN", "MLP"):
        # Results, and then how they came about.
        row, _ = [line for line in report.splitlines() if line.startswith(f"| {model} |")]
        assert "±" in row
    lines = [json.loads(line) for line in (out / "ledger.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines] == ["done"] * 6
    assert lines[1]["result"]["test"]["accuracy"] >= 0
    again = run("campaign", path, "--out", out)
    assert again.stdout.strip() == f"{out}: 0 commands run, 6 were done before"


# ---- commands and blocks of code, on every page


def commands_of(text: str) -> list[str]:
    """Lines of a page's blocks that begin with wszoo; of alternatives, each alone."""
    blocks = [
        body
        for kind, body in FENCE.findall(text)
        if kind not in ("python", "text", "toml", "bibtex")
    ]
    plain = FENCE.sub("", text)
    blocks += re.findall(r"(?:^    .*\n(?:\n(?=    ))?)+", plain, re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = []
    for line in (line.strip().removeprefix("$ ") for line in lines):
        if line.startswith("wszoo "):
            first, *others = re.split(r" \| ", line.partition("  #")[0])
            before = shlex.split(first)[:-1]
            found += [first, *(f"{shlex.join(before)} {other}" for other in others)]
    # Within a sentence a verb may stand alone.
    spans = [span.replace("\\|", "|") for span in re.findall(r"`(wszoo [^`\n]*)`", plain)]
    return found + [span for span in spans if len(span.split()) > 3]


def check_command(line: str) -> None:
    """Raise click's error if the command does not take these words; nothing is opened or run."""
    from cli.main import wszoo

    words = shlex.split(line, comments=True)[1:]
    # What a page leaves to the reader: optional parts in brackets, dots.
    words = [word.strip("[]") for word in words if word != "..."]
    top = click.Context(wszoo)
    name, command, rest = wszoo.resolve_command(top, words)
    context = click.Context(command, info_name=name, parent=top)
    if isinstance(command, click.Group) and rest:
        name, command, rest = command.resolve_command(context, rest)
        context = click.Context(command, info_name=name, parent=context)
    values, extra, _ = command.make_parser(context).parse_args(args=rest)
    if extra:
        raise click.UsageError(f"unexpected {extra}", context)
    for param in command.params:
        value = values.get(param.name)
        if param.required and value in (None, ()):
            raise click.MissingParameter(ctx=context, param=param)
        placeholder = (
            isinstance(value, str) and value.isupper() and isinstance(param, click.Argument)
        )
        if isinstance(value, str) and not isinstance(param.type, click.Path) and not placeholder:
            param.type_cast_value(context, value)


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: page.parent.name + page.name)
def test_commands_on_pages_are_taken(page):
    for line in commands_of(page.read_text("utf-8")):
        try:
            check_command(line)
        except click.ClickException as error:
            pytest.fail(f"{page.name}: {line}: {error.format_message()}")


def test_there_are_commands_and_wrong_ones_are_seen():
    assert len(commands_of((ROOT / "README.md").read_text("utf-8"))) > 20
    assert commands_of("    wszoo fit-inrs a | b --seed 1  # c\n") == [
        "wszoo fit-inrs a", "wszoo fit-inrs b --seed 1"
    ]  # fmt: skip
    for wrong in (
        "wszoo fit-inrs mnist --stepz 3", "wszoo fit-inrs mnist --steps three", "wszoo fit mnist",
        "wszoo train classify", "wszoo info a b", "wszoo ceiling z --batch 0",
    ):  # fmt: skip
        with pytest.raises(click.ClickException):
            check_command(wrong)


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: page.parent.name + page.name)
def test_blocks_of_python_name_what_there_is(page):
    for block in examples(page):
        wrong = unknown_names(block)
        assert wrong == [], f"{page.name}: {block[:80]}"


def unknown_names(block: str) -> list[str]:
    """Modules and names that a block imports or takes from our packages, and are not there."""
    wrong = []
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.Import):
            wrong += [each.name for each in node.names if not importlib.util.find_spec(each.name)]
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            wrong += [each.name for each in node.names if not hasattr(module, each.name)]
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("zoo", "processors"):
            package = ast.unparse(node.value)
            module = importlib.import_module(package)
            wrong += [] if hasattr(module, node.attr) else [f"{package}.{node.attr}"]
    return wrong


def test_unknown_names_are_seen():
    block = "import zoo, zooo\nfrom zoo import Zoo, Zo\nzoo.open_zo\nzoo.open_zoo(1).x"
    assert unknown_names(block) == ["zooo", "Zo", "zoo.open_zo"]
    with pytest.raises(SyntaxError):
        unknown_names("zoo.(")


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="signatures print otherwise there")
def test_pages_made_from_help_and_docstrings_are_current():
    found = in_the_tree(["docs/generate.py", "--check"], ROOT)
    assert found.returncode == 0, found.stderr
