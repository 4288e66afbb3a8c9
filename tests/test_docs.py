"""The documents are true: links lead somewhere, examples run, generated pages are current."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import run

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LONGEST_README, LONGEST_EXAMPLE = 150, 40


def in_the_tree(script: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
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


def test_the_list_of_runs_in_training_runs_as_it_stands(tmp_path):
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


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="signatures print otherwise there")
def test_pages_made_from_help_and_docstrings_are_current():
    found = in_the_tree(["docs/generate.py", "--check"], ROOT)
    assert found.returncode == 0, found.stderr
