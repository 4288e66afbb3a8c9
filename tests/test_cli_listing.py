"""Lists of what there is: complete, in tables of 100 columns, without loading torch."""

import re
import subprocess
import sys

import pytest
from helpers import line_of, run

import processors
from cli import listing
from processors.options import OPTIONS
from zoo.recipes import RECIPES
from zoo.sources import SOURCES


@pytest.mark.parametrize(
    ("verb", "names"),
    [("sources", SOURCES), ("recipes", RECIPES), ("models", processors.MODELS), ("tasks", OPTIONS)],
)
def test_everything_is_listed_once_in_a_table(verb, names):
    result = run(verb)
    assert result.exit_code == 0
    assert all(len(line) <= 100 for line in result.stdout.splitlines())
    first = [line.split()[0] for line in result.stdout.splitlines() if line[:1].strip()]
    assert [name for name in first if name in names] == list(names)
    for name in names:
        (line,) = (line for line in result.stdout.splitlines() if line.startswith(f"{name} "))
        assert len(line.split()) > 3


def test_lists_load_nothing_heavy():
    code = (
        "import sys\nfrom cli.main import wszoo\n"
        "for verb in ('sources', 'recipes', 'models', 'tasks', 'models dvs', 'recipes dwz'):\n"
        "    try: wszoo(verb.split())\n"
        "    except SystemExit: pass\n"
        "print('loaded', sorted({'torch', 'numba', 'datasets', 'pyarrow'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "loaded []" in ran.stdout


@pytest.mark.parametrize("name", processors.MODELS)
def test_a_model_is_described_with_its_arguments_and_settings(name):
    result = run("models", name)
    assert result.exit_code == 0, result.output
    assert all(len(line) <= 100 for line in result.stdout.splitlines())
    from processors.models import sizes_of

    for argument in sizes_of(name):
        assert re.search(rf"^ +{argument} +\S", result.stdout, re.M), argument
    for task in ("classify", "regress", "ssl"):
        assert f"  {task} " in result.stdout


def test_settings_of_presets_are_said_with_their_source():
    shown = " ".join(run("models", "nfn-np").stdout.split())
    assert "paper classify epochs none, steps 200000, batch 32, lr 0.0001" in shown
    assert "statistics=none" in shown
    assert "inv_ff.yaml" in shown
    assert "statistics=entry, positions=learned-each" in shown
    assert "small classify" in shown
    assert "(fashion-mnist) warmup 20000" in " ".join(run("models", "monomial").stdout.split())


def test_unknown_names_list_the_known_ones():
    assert "unknown model 'dvs'; known: dws, nfn-np" in line_of(run("models", "dvs"), 2)
    assert "unknown recipe 'dwz'; known: dws" in line_of(run("recipes", "dwz"), 2)


def test_a_table_breaks_its_last_column():
    lines = list(listing.table([("a", "word " * 40), ("longer", "x")]))
    assert lines[0].startswith("a       word")
    assert lines[1].startswith("        word")
    assert lines[-1] == "longer  x"
    assert max(map(len, lines)) <= 100


def test_a_model_says_for_how_many_networks_a_preset_is():
    told = run("models", "nfn-hnp").stdout
    assert re.search(r"small +classify \(dws, nfn, from 8,000 networks on\) +lr 0\.001", told)
    assert re.search(r"small +classify \(nfn, from 8,000 networks on\)", told)
