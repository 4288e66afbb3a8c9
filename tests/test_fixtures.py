"""What version 324dc88 left on disk is read, verified, gone on with and measured as it was.

`fixtures/make.py` made the archive with the code of that version and says how; nothing in it
is ever made again by newer code.
"""

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures.make import (
    HALF,
    IMPORTED,
    MEASURED,
    PARTS,
    RUNS,
    STOPPED,
    ZOOS,
    hashes,
)
from helpers import run
from safetensors.torch import load_file

import processors
import zoo
from zoo import ZooError

ARCHIVE = Path(__file__).parent / "fixtures" / "324dc88.tar.xz"
SPLITS = ("train", "validation", "test")
# What the bytes of networks depend on beside the kind of CPU, and what those of the views do.
FITTING = ("numpy", "numba", "llvmlite", "torch")
VIEWS = ("pyarrow", "datasets")


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Path:
    """The archive, unpacked; no test changes it."""
    home = tmp_path_factory.mktemp("324dc88")
    with tarfile.open(ARCHIVE) as tar:
        tar.extractall(home, filter="data")
    return home


@pytest.fixture
def old(stored, tmp_path, monkeypatch) -> Path:
    """The working folder of that version, a copy for one test."""
    home = tmp_path / "home"
    shutil.copytree(stored, home)
    monkeypatch.chdir(home)
    return home


def index_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "zoo.json").read_text())


def same_machine(home: Path, names: tuple[str, ...] = FITTING) -> bool:
    """Whether networks fitted here get the bytes of the archive."""
    from importlib.metadata import version

    from llvmlite import binding

    index = index_of(home / "pictures-dws")
    kind = index["shards"][0]["cpu"].split()[-1]
    return kind == binding.get_host_cpu_name() and all(
        version(name) == index["packages"][name] for name in names
    )


def assert_made(folder: Path, wanted: dict[str, str], home: Path) -> None:
    """A folder holds what the undisturbed command of 324dc88 makes.

    Cards may be worded otherwise, and an index tells the versions that finished it. On other
    machines the rounding differs, so that only names can be compared.
    """
    found = hashes(folder)
    assert found.keys() == wanted.keys()
    if not same_machine(home):
        return
    # Plan, records and notes of a part say more by now.
    free = {"README.md", "zoo.json", *(name for name in found if name.startswith(".build/"))}
    if not same_machine(home, VIEWS):
        free |= {name for name in found if name.endswith(".parquet")}
    assert {n: h for n, h in found.items() if n not in free} == {
        n: h for n, h in wanted.items() if n not in free
    }


def go_on(words: tuple[str, ...], name: str) -> None:
    result = run(*words, "--out", name)
    assert result.exit_code == 0, result.output


# --- zoos ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*ZOOS, "imported"])
def test_a_zoo_opens_and_verifies(name, stored):
    before = hashes(stored / name)
    index = index_of(stored / name)
    if name == "pictures-left-out":
        assert "test" not in index["splits"]  # all of its networks were
    for split in index["splits"]:
        z = zoo.open_zoo(stored / name, split, check_hashes=True)
        weights, columns = z.batch(range(len(z)))
        assert len(weights) == len(z) == index["splits"][split]
        assert weights.flatten().isfinite().all()
        for column, summary in index["quality"].get(split, {}).items():
            assert float(columns[column].double().mean()) == pytest.approx(summary["mean"])
        assert z[0].to_module()(torch.zeros(1, *_item(z.spec))).shape[0] == 1
    stats = z.stats()
    assert set(stats) >= {"entry.mean.weight_0", "entry.std.weight_0"}
    failed = [check for check in zoo.verify(stored / name, refit=2) if not check.passed]
    assert failed == []
    assert hashes(stored / name) == before


def _item(spec: zoo.NetworkSpec) -> tuple[int, ...]:
    """Shape of one input of a network."""
    return (spec.layers[0].inp, 8, 8) if spec.layers[0].kind == "conv" else (spec.inp,)


@pytest.mark.parametrize("name", ZOOS)
def test_the_command_of_a_finished_zoo_leaves_it_as_it_is(name, old):
    before = hashes(old / name)
    go_on(ZOOS[name], name)
    assert hashes(old / name) == before


@pytest.mark.parametrize("name", ["pictures-nfn", "classifiers-bfloat16", "waves-ssl"])
def test_a_damaged_shard_is_made_again(name, old):
    before = hashes(old / name)
    shard = old / name / index_of(old / name)["shards"][0]["file"]
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ZooError, match=shard.name):
        zoo.open_zoo(old / name, "train", check_hashes=True)
    go_on(ZOOS[name], name)
    assert_made(old / name, before, old)


# Name of a half-made zoo, and the command that goes on with it.
GOES_ON = {
    **{name: tuple(w for w in words if w != "--overwrite") for name, (words, _) in HALF.items()},
    "half-tasks": ZOOS["pictures-dws"],
}


@pytest.mark.parametrize("name", GOES_ON)
def test_a_half_made_zoo_is_finished(name, old, stored):
    expected = json.loads((stored / "expected.json").read_text())[name]
    result = run("info", name)
    assert "Traceback" not in result.output
    go_on(GOES_ON[name], name)
    assert_made(old / name, expected, old)


def test_an_import_that_was_cut_is_no_zoo(old):
    with pytest.raises(ZooError, match="half-imported is not finished"):
        zoo.open_zoo("half-imported")
    result = run(*IMPORTED, "--out", "half-imported")
    assert "no such file or folder" in result.stderr or "does not exist" in result.stderr
    assert (old / "half-imported" / ".build" / "plan.json").is_file()


def test_parts_are_merged(old, stored):
    expected = json.loads((stored / "expected.json").read_text())["merged"]
    result = run("merge", *PARTS, "--out", "merged")
    assert result.exit_code == 0, result.output
    assert_made(old / "merged", expected, old)


def test_an_import_keeps_its_columns(stored):
    z = zoo.open_zoo(stored / "imported", "train")
    assert z.spec.layers[0].activation == IMPORTED[IMPORTED.index("--activation") + 1]
    assert z.columns["label"].names == ("a", "b")
    assert [round(float(row.score), 1) for row in z] == [n / 10 for n in range(8)]


@pytest.mark.parametrize("name", ZOOS)
def test_golden_bytes(name, stored, tmp_path):
    """The same command makes the same networks and statistics, on this kind of CPU."""
    if not same_machine(stored, ()):
        pytest.skip("the archive was made on another kind of CPU")
    go_on((*ZOOS[name], "--no-parquet"), str(tmp_path / name))
    kept = {
        file: digest
        for file, digest in hashes(stored / name).items()
        if file.startswith("weights/") or file == "stats.safetensors"
    }
    assert len(kept) > 1
    assert kept.items() <= hashes(tmp_path / name).items()


# --- runs ---------------------------------------------------------------------------------


def summary_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


@pytest.mark.parametrize("name", RUNS)
def test_a_run_evaluates_to_what_it_recorded(name, old):
    zoo_name = RUNS[name][2]
    wanted = summary_of(old / name)["test"]
    result = run("eval", name, zoo_name, "--device", "cpu")
    assert result.exit_code == 0, result.output
    found = {key: float(value) for key, value in map(str.split, result.stdout.splitlines())}
    assert found.keys() == wanted.keys()
    if name != "ssl":
        assert found == pytest.approx(wanted, rel=1e-3, abs=1e-6, nan_ok=True)


def test_a_representation_is_as_it_was(old):
    """Of the run `ssl`, whose 16 features are of rank 3 but for rounding: its error is noise."""
    z = zoo.open_zoo(old / "waves-ssl", "test")
    with torch.no_grad():
        found = processors.load(old / "ssl")(z.batch(range(len(z)))[0])
    expected = torch.tensor([-0.2087, 0.1372, -0.1324, 0.0661])  # by 324dc88
    torch.testing.assert_close(found[0, :4], expected, atol=1e-4, rtol=0)
    assert float(found.double().sum()) == pytest.approx(1.2800502, abs=1e-6)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_loads(name, stored):
    model = processors.load(stored / name).eval()
    z = zoo.open_zoo(stored / RUNS[name][2], "test")
    weights, _ = z.batch(range(2))
    found = model.masks(weights) if name == "tickets" else model(weights)
    values = found if isinstance(found, torch.Tensor) else found.flatten()
    assert values.isfinite().all()


@pytest.mark.parametrize("name", RUNS)
def test_the_command_of_a_finished_run_leaves_it_as_it_is(name, old):
    """Runs are bound to the sha256 of their zoo's index."""
    before = hashes(old / name)
    go_on(RUNS[name], name)
    assert hashes(old / name) == before


@pytest.mark.parametrize("name", STOPPED)
def test_a_stopped_run_goes_on_from_its_checkpoint(name, old, stored):
    expected = json.loads((stored / "expected.json").read_text())[name]
    steps = torch.load(old / name / "checkpoint" / "state.pt", weights_only=True)["step"]
    assert steps > 0
    (old / name / "metrics.jsonl").write_text("")  # what a start from nothing would write again
    go_on(STOPPED[name][0], name)
    text = (old / name / "metrics.jsonl").read_text()
    logged = [json.loads(line) for line in text.splitlines()]
    assert min(record["step"] for record in logged) > steps
    found = {key: value for key, value in hashes(old / name).items() if key in expected}
    assert found.keys() == expected.keys()
    if same_machine(old):
        assert found == expected


def test_runs_and_measurements_are_reported(old):
    result = run("report", *RUNS, "measured.json", "--out", "report.md")
    assert result.exit_code == 0, result.output
    report = (old / "report.md").read_text()
    for name in RUNS:
        assert f"wszoo {' '.join(RUNS[name][:2])}" in report, name
    assert "mean of 2 views" in report
    assert "by settings of before there were presets" in report


def test_a_measurement_is_made_again(old):
    kept = json.loads((old / "measured.json").read_text())
    (old / "measured.json").unlink()
    result = run(*MEASURED, "measured.json")
    assert result.exit_code == 0, result.output
    again = json.loads((old / "measured.json").read_text())
    for mine, theirs in zip(again, kept, strict=True):
        for split in ("validation", "test"):
            made, wanted = mine["summary"].get(split), theirs["summary"].get(split)
            if split == "test":  # a number that is noise, see above
                made, wanted = made.keys(), wanted.keys()
            assert made == wanted


def test_the_archive_is_whole(stored):
    others = {"imported", "half-imported", "measured.json", "expected.json"}
    names = {path.name for path in stored.iterdir()}
    assert names == {*ZOOS, *GOES_ON, *PARTS, *RUNS, *STOPPED, *others}
    assert ARCHIVE.stat().st_size < 1_500_000
    # Half made means half made: neither nothing nor everything is there.
    for name in [*GOES_ON, "half-imported"]:
        assert not (stored / name / "zoo.json").exists()
        assert (stored / name / ".build").is_dir()
    assert not (stored / "stopped" / "summary.json").exists()
    saved = load_file(stored / "regress" / "model" / "model.safetensors")
    assert all(np.isfinite(tensor.float().numpy()).all() for tensor in saved.values())
