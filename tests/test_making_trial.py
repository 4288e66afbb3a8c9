"""A trial chooses what reaches a target, says what a zoo will be, and is kept by it."""

import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from helpers import line_of, run
from sklearn.datasets import load_sample_images

import zoo
from zoo import kinds, shards
from zoo.engines.reference import ReferenceEngine
from zoo.kinds import Means
from zoo.machine import Notice
from zoo.making import trial
from zoo.making.plan import Settings, plan_zoo
from zoo.making.trial import MISSES, PIECE, Trial, try_out

HERE = Means("auto", "cpu", "float32", here=True, seed=3)


def tried_out(name: str, source: str, auto: tuple[str, ...], limit: int, **fields: Any) -> Trial:
    chosen = zoo.recipe(name, source, **fields)
    opened = kinds.open_source(chosen, source, seed=3)
    planned = plan_zoo(chosen, opened, "trial", Settings(limit=limit, seed=3))
    return try_out(chosen, opened, planned, HERE, auto)


def quality(index: shards.Index, column: str) -> float:
    """The mean over all rows."""
    found = [(index.splits[split], each[column]) for split, each in index.quality.items()]
    return sum(rows * each["mean"] for rows, each in found) / index.rows


def test_the_least_width_and_then_the_fewest_steps_reach_the_target(tmp_path, monkeypatch):
    widths = (2, 3, 4, 6, 8, 12)  # digits have 64 pixels
    monkeypatch.setattr(trial, "WIDTHS", widths)
    found = tried_out("fast", "digits", ("hidden", "steps"), 120, target_psnr_db=35.0)
    *others, last = found.tried
    assert (found.recipe.hidden, found.recipe.steps) == (last.hidden, last.steps)
    assert last.networks == 64
    assert last.reached >= 64 - 64 // MISSES
    narrower = [each for each in others if each.hidden < last.hidden]
    assert [each.hidden for each in narrower] == list(widths[: widths.index(last.hidden)])
    assert narrower
    shorter = [each for each in others if each.steps < last.steps]
    for each in (*narrower, *shorter):
        assert each.networks - each.reached > 64 // MISSES
        assert each.networks % PIECE == 0  # given up after a piece that missed too often
    # What was tried is what the zoo has, and what it was said to be.
    index = zoo.build(found.recipe, "digits", tmp_path / "zoo", limit=120, seed=3)
    parts = [zoo.open_zoo(tmp_path / "zoo", split) for split in shards.SPLITS]
    made = np.concatenate([part.table["psnr_db"] for part in parts])
    assert set(last.values.tolist()) <= set(made.astype(np.float64).tolist())
    assert quality(index, "stop") >= 0.95
    assert found.networks == index.rows == 120
    data = sum(path.stat().st_size for path in (tmp_path / "zoo").rglob("*-of-*"))
    assert 0.5 * data < found.bytes < 1.5 * data  # such small files are half headers


def test_one_of_both_is_chosen_where_the_other_is_given():
    found = tried_out("fast", "digits", ("hidden",), 30, target_psnr_db=25.0, steps=300)
    assert {each.steps for each in found.tried} == {300}
    found = tried_out("fast", "digits", ("steps",), 30, target_psnr_db=25.0, hidden=20)
    assert {each.hidden for each in found.tried} == {20}
    assert found.recipe.steps < 375


def test_more_steps_are_given_where_the_recipes_nearly_do():
    fields = {"target_psnr_db": 30.0, "hidden": 16}
    enough = tried_out("fast", "digits", ("steps",), 30, **fields).recipe.steps
    found = tried_out("fast", "digits", ("steps",), 30, **fields, steps=enough // 2)
    assert enough // 2 < found.recipe.steps <= 2 * enough
    assert found.tried[-1].reached == found.tried[-1].networks


def test_waves_have_a_target_of_their_own():
    small = {"waves": 30, "points": 40, "lr": 5e-3, "max_frequency": 2.0, "target_mse": 1e-2}
    found = tried_out("sine-ssl", "sine", ("hidden", "steps"), 30, **small)
    assert found.target == "0.01 mse"
    assert found.tried[-1].values.max() < 1e-2


def test_what_nothing_reaches_and_what_is_not_asked_for(monkeypatch):
    monkeypatch.setattr(trial, "WIDTHS", (4, 6))
    few = r"6 neurons do not reach 90 dB in 9 steps: 0 of 8 do, the worst .* dB; ask for less"
    with pytest.raises(ValueError, match=few):
        tried_out("fast", "digits", ("hidden", "steps"), 30, target_psnr_db=90.0, steps=9)
    line = line_of(run("plan", "digits", "--recipe", "nfn", "--hidden", "auto"), 2)
    assert "--hidden and --steps auto wants a target to reach: give --target-psnr" in line
    line = line_of(run("plan", "sine", "--recipe", "sine-regression", "--steps", "auto"), 2)
    assert "--steps auto wants a target to reach: give --target-mse" in line


# ---- the commands


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    """Parts of the photographs that come with scikit-learn, 16 x 16 RGB."""
    folder = tmp_path_factory.mktemp("trial") / "photographs"
    folder.mkdir()
    for which, image in enumerate(load_sample_images().images):
        for y in range(0, 384, 96):
            for x in range(0, 640, 128):
                part = cv2.resize(image[y : y + 48, x : x + 48], (16, 16), None, 0, 0, 3)
                cv2.imwrite(str(folder / f"{which}-{y}-{x}.png"), part[..., ::-1])
    return folder


AUTO = ("--target-psnr", 30, "--hidden", "auto")


def test_auto_reaches_its_target_and_goes_on_with_its_choice(photographs, tmp_path, monkeypatch):
    out = ("--out", tmp_path / "zoo")
    result = run("fit-inrs", photographs, *AUTO, *out, "--limit", 30)
    assert result.exit_code == 0, result.output
    assert re.search(r"expected of all 30: .* on \d+ threads?, 0\.\d+ MB", result.stderr)
    made = shards.read_index(tmp_path / "zoo")
    hidden, steps = made.recipe["hidden"], made.recipe["steps"]
    assert f"tried 30 of 30 networks: {hidden} neurons, {steps} steps" in result.stderr
    assert quality(made, "stop") >= 0.95
    assert f"--hidden {hidden}" in made.command

    def tried(*words: Any, **more: Any) -> None:
        raise AssertionError("the choice was made")

    monkeypatch.setattr(trial, "try_out", tried)
    assert run("fit-inrs", photographs, *AUTO, *out, "--limit", 30).exit_code == 0
    assert shards.read_index(tmp_path / "zoo") == made
    grown = run("fit-inrs", photographs, *AUTO, *out)
    assert grown.exit_code == 0, grown.output
    index = shards.read_index(tmp_path / "zoo")
    assert (index.rows, index.recipe) == (40, made.recipe)
    assert quality(index, "stop") >= 0.95
    other = run("fit-inrs", photographs, "--target-psnr", 31, "--hidden", "auto", *out)
    assert "target_psnr_db 30.0 there, 31.0 asked for" in line_of(other, 2)


def test_a_kill_keeps_the_choice(photographs, tmp_path, monkeypatch):
    fields = {"hidden": 9, "steps": 30, "target_psnr_db": 30.0}
    chosen = zoo.recipe("fast", "imagefolder:x", **fields)

    def stop(state: zoo.Progress) -> None:
        raise SystemExit("killed")

    source = f"imagefolder:{photographs}"
    with pytest.raises(SystemExit):
        zoo.build(chosen, source, tmp_path / "zoo", shard_rows=10, progress=stop)
    monkeypatch.setattr(trial, "try_out", lambda *words: pytest.fail("the choice was made"))
    words = ("--out", tmp_path / "zoo", "--shard-rows", 10)
    result = run("fit-inrs", photographs, *AUTO, *words)
    assert result.exit_code == 0, result.output
    index = shards.read_index(tmp_path / "zoo")
    assert {name: index.recipe[name] for name in fields} == fields
    assert index.rows == 40


def test_a_trial_in_padded_batches_takes_one_and_counts_a_networks_part(monkeypatch):
    """Batched torch takes as long for a few networks as for its whole batch."""
    sizes, clock = [], iter(range(100))
    fitted = ReferenceEngine.fit

    def counted(engine: ReferenceEngine, spec: Any, params: Any, *rest: Any) -> Any:
        sizes.append(len(params))
        return fitted(engine, spec, params, *rest)

    monkeypatch.setattr(ReferenceEngine, "fit", counted)
    monkeypatch.setattr(trial, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    fields = {"activation": "relu", "encoding": "fourier", "steps": 2, "hidden": 4}
    with pytest.warns(Notice, match="fitted by 'reference'"):
        found = tried_out("dws", "digits", (), 640, **fields)
    assert sizes == [1, 64]
    assert (found.tried[-1].networks, found.tried[-1].seconds, found.seconds) == (64, 1.0, 10.0)
    sizes.clear()
    with pytest.warns(Notice, match="fitted by 'reference'"):
        found = tried_out("dws", "digits", (), 16, **fields)
    assert (sizes, found.tried[-1].seconds) == ([1, 16], 0.25)


def test_plan_writes_nothing_and_prints_the_command(photographs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("plan", photographs, *AUTO, "--limit", 25)
    assert result.exit_code == 0, result.output
    assert not list(tmp_path.iterdir())
    first, second, command = result.stdout.splitlines()
    assert first.startswith("tried 25 of 25 networks: ")
    assert second.startswith("expected of all 25: ")
    fitted = run(*shlex.split(command)[1:], "--out", "zoo")
    assert fitted.exit_code == 0, fitted.output
    index = shards.read_index(tmp_path / "zoo")
    assert (index.rows, index.recipe["target_psnr_db"]) == (25, 30.0)
    assert f"{index.recipe['hidden']} neurons, {index.recipe['steps']} steps" in first
    assert quality(index, "stop") >= 0.95


def test_plan_of_a_recipe_that_leaves_nothing_open(photographs):
    result = run("plan", photographs, "--steps", 20, "--target-psnr", "none", "--hidden", 8)
    assert result.exit_code == 0, result.output
    assert "tried 40 of 40 networks: 8 neurons, 20 steps: mean PSNR" in result.stdout
    assert "reach" not in result.stdout
