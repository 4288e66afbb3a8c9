"""The notebook of the documentation runs from top to bottom, as a stranger runs it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"
# In a process of its own: what a kernel's client warns of is not ours.
RUN = """
import sys

import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], 4)
where = {"metadata": {"path": sys.argv[2]}}
NotebookClient(notebook, timeout=360, kernel_name="python3", resources=where).execute()
nbformat.write(notebook, sys.argv[3])
"""


def outputs(path: Path) -> list[str]:
    """What every cell of code shows: its text, or the kinds of what it draws."""
    cells = [c for c in json.loads(path.read_text("utf-8"))["cells"] if c["cell_type"] == "code"]
    found = []
    for cell in cells:
        shown = [each for each in cell["outputs"] if each.get("name") != "stderr"]
        texts = ["".join(o.get("text", o.get("data", {}).get("text/plain", ""))) for o in shown]
        pictures = ["picture" for o in shown if "image/png" in o.get("data", {})]
        found.append("".join([*texts, *pictures]))
    return found


def accuracy_of(shown: list[str]) -> tuple[float, float]:
    (line,) = [text for text in shown if text.startswith("accuracy")]
    found = re.fullmatch(r"accuracy ([\d.]+) on \d+ networks; chance is ([\d.]+)\n", line)
    assert found is not None, line
    return float(found[1]), float(found[2])


def test_the_quickstart_runs_from_top_to_bottom(tmp_path):
    # Figures are drawn into the page, whatever this machine draws them on.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment.pop("MPLBACKEND", None)
    ran = subprocess.run(
        [sys.executable, "-c", RUN, NOTEBOOK, tmp_path, tmp_path / "ran.ipynb"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    kept, found = outputs(NOTEBOOK), outputs(tmp_path / "ran.ipynb")
    accuracy, chance = accuracy_of(found)
    assert accuracy > 0.6 > 0.2 > chance
    # What the page shows is what running it gives; trainings differ a little between machines.
    assert [bool(text) for text in kept] == [bool(text) for text in found]
    assert kept[1:2] == found[1:2]
    assert "picture" in kept[2]
    assert abs(accuracy_of(kept)[0] - accuracy) < 0.2
    assert (tmp_path / "zoos" / "digits" / "zoo.json").is_file()
    assert (tmp_path / "runs" / "probe" / "summary.json").is_file()


def test_its_first_cell_installs_wszoo_where_it_is_missing(tmp_path):
    """Without the package it calls pip on the tree beside; with it, nothing."""
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    first = "".join(next(c for c in cells if c["cell_type"] == "code")["source"])
    pretend = "import importlib.util, subprocess\n"
    pretend += "subprocess.run = lambda words, check: print(words[1:])\n"
    there = pretend + first
    missing = pretend + "importlib.util.find_spec = lambda name: None\n" + first
    said = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip()
        for code in (there.replace('"zoo"', '"json"'), missing)
    ]
    assert said == ["", "['-m', 'pip', 'install', '--quiet', '..']"]
    assert (NOTEBOOK.parents[1] / "pyproject.toml").is_file()
