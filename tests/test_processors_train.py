"""The training loop: what a run computes follows from its configuration, however it went."""

import contextlib
import gc
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import weakref
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

import processors
import zoo
from processors import align, checkpoint, matching, report, runs
from processors import train as training
from processors.evaluation import evaluate
from processors.models import Processor
from processors.settings import Settings
from zoo import Weights, ZooError, identity
from zoo.schema import read_json

ROOT = Path(__file__).parents[1]
# No batch norm, little to compute.
SMALL = {"width": 16}


def train(zoo_folder: Path, out: Path, task: str = "regress", model: str = "statnn", **more: Any):
    """A short run; on waves the frequency is asked for."""
    more = {"sizes": SMALL, "device": "cpu", **more}
    more["settings"] = {"epochs": 4, "batch": 32, **more.get("settings", {})}
    if task == "regress":
        more["options"] = {"target": "frequency", **more.get("options", {})}
    return training.train(task, model, zoo_folder, out, **more)


def metrics(folder: Path) -> list[dict[str, Any]]:
    """What was logged, less how long it took."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def assert_same_run(left: Path, right: Path) -> None:
    """The same weights, to the byte, and the same numbers on the way."""
    for part in ("model", "last"):
        files = [folder / part / "model.safetensors" for folder in (left, right)]
        assert files[0].read_bytes() == files[1].read_bytes(), part
    assert metrics(left) == metrics(right)
    a, b = (read_json(folder / "summary.json") for folder in (left, right))
    for found in (a, b):
        found["minutes"] = 0
        # It knows how long the run took; those of trials are not kept.
        found["files"].pop("last/state.pt", None)
    assert a == b


@pytest.fixture(scope="module")
def plain(waves_zoo, tmp_path_factory) -> Path:
    """An undisturbed run, which others are held against."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    train(waves_zoo, folder)
    return folder


# ---- what comes out


def test_the_folder_of_a_run(plain, waves_zoo):
    assert sorted(path.name for path in plain.iterdir()) == [
        ".lock", "README.md", "config.json", "figures", "last", "metrics.jsonl", "model",
        "summary.json",
    ]  # fmt: skip
    summary = read_json(plain / "summary.json")
    fixed = ["task", "model", "zoo", "epochs", "networks", "seed", "device", "validation", "test"]
    assert [key for key in summary if key in fixed] == fixed
    assert summary["task"] == "regress"
    assert summary["epochs"] == 4
    assert summary["networks"] == 96
    assert summary["steps"] == 12
    config = read_json(plain / "config.json")
    assert config["zoo_sha256"] == identity.hashes(waves_zoo)[0]
    assert {
        "losses": sum("loss" in record for record in metrics(plain)),
        "validations": sum("validation" in record for record in metrics(plain)),
    } == {"losses": 12, "validations": 4}
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_the_best_weights_are_kept(plain, waves_zoo):
    found = [r["validation"]["mse"] for r in metrics(plain) if "validation" in r]
    summary = read_json(plain / "summary.json")
    assert summary["validation"]["mse"] == pytest.approx(min(found), rel=1e-12)
    assert evaluate(plain, waves_zoo, "validation")["mse"] == summary["validation"]["mse"]
    assert evaluate(plain, waves_zoo, device="cpu") == summary["test"]
    assert summary["best_step"] == 3 * (1 + found.index(min(found)))


@pytest.mark.parametrize("model", ["dws", "nfn-hnp", "mlp-align", "statnn"])
def test_a_model_that_memory_does_not_hold_is_refused_before_it_is_built(
    model, waves_zoo, tmp_path, monkeypatch
):
    """NFN-HNP of 784 inputs has 22 billion parameters: the system killed the process."""
    monkeypatch.setattr(training.machine, "memory_bytes", lambda: 1000)
    out = tmp_path / "run"
    with pytest.raises(ValueError, match=r"parameters for networks of widths .* this process may"):
        train(waves_zoo, out, model=model, sizes={})
    assert not out.exists()


def test_a_saved_model_reads_networks(plain, waves_zoo):
    model = processors.load(plain / "model").eval()
    weights, columns = zoo.open_zoo(waves_zoo, "test").batch(range(12))
    with torch.no_grad():
        errors = (model(weights)[:, 0] - columns["frequency"]).square()
    summary = read_json(plain / "summary.json")
    assert float(errors.mean()) == pytest.approx(summary["test"]["mse"], rel=1e-5)


def test_regression_beats_the_variance(waves_zoo, tmp_path):
    settings = {"epochs": 60, "lr": 5e-3, "evaluations": 5}
    train(waves_zoo, tmp_path / "run", settings=settings)
    assert evaluate(tmp_path / "run", waves_zoo, "train", device="cpu")["r2"] > 0.2
    losses = [r["loss"] for r in metrics(tmp_path / "run") if "loss" in r]
    assert losses[-1] < 0.6 * losses[0]


# ---- the same again


def test_same_seed_same_bytes(plain, waves_zoo, tmp_path):
    torch.rand(7)  # whatever was drawn before
    train(waves_zoo, tmp_path / "again")
    assert_same_run(plain, tmp_path / "again")
    train(waves_zoo, tmp_path / "other", seed=1)
    with pytest.raises(AssertionError, match="model"):
        assert_same_run(plain, tmp_path / "other")


def test_order_and_noise_follow_the_seed(waves_zoo, tmp_path, monkeypatch):
    """Not only the initial weights, which torch's seed alone would change."""
    seen: list[list[Weights]] = []

    def watched(self, module, weights, columns):
        seen[-1].append(self.augment(weights))
        return module(weights).mean()

    from processors.tasks import Regress

    monkeypatch.setattr(Regress, "loss", watched)
    for run, seed in enumerate((0, 0, 1)):
        seen.append([])
        train(waves_zoo, tmp_path / str(run), seed=seed, settings={"epochs": 1, "batch": 96})
    first, again, other = (batches[0].flatten() for batches in seen)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    # The same networks, were it only for their order, would have the same sum.
    ordered = [x.sum(dim=1).sort().values for x in (first, other)]
    assert not torch.allclose(*ordered)


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


@pytest.mark.parametrize("more", [{}, {"lr_grid": (1e-2, 1e-3)}], ids=["plain", "grid"])
def test_a_run_that_is_killed_anywhere_goes_on(more, waves_zoo, tmp_path, monkeypatch):
    """Cut after each of its writes in turn, with a checkpoint at every update."""
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    # Losses are logged every other update, so that some are under way in a checkpoint.
    settings = {"epochs": None, "steps": 40, "evaluations": 5}
    whole = tmp_path / "whole"
    train(waves_zoo, whole, settings=settings, **more)
    left = {"writes": 0}

    def cut(name, owner):
        inner = getattr(owner, name)

        def counted(*args, **named):
            left["writes"] -= 1
            if left["writes"] == 0:
                raise Killed
            return inner(*args, **named)

        monkeypatch.setattr(owner, name, counted)

    cut("_save", training._Run)
    cut("_log", training._Run)
    cut("write_bytes", training)
    cut("write_json", training)
    cut("write_json", runs)
    cut("card", runs)
    cuts = 0
    draw = random.Random(0)
    folder = tmp_path / "cut"
    while True:
        left["writes"] = draw.randint(2, 12)
        try:
            train(waves_zoo, folder, settings=settings, **more)
            break
        except Killed:
            cuts += 1
    assert cuts >= 5
    assert_same_run(whole, folder)
    assert not (folder / "checkpoint").exists()


_CHILD = """
import sys, time, torch
torch.set_num_threads(1)
from processors import train as training
training.CHECKPOINT_SECONDS = 0.0
training.train(
    "regress", "statnn", sys.argv[1], sys.argv[2], sizes={"width": 16}, device="cpu",
    settings={"epochs": 40, "batch": 32}, options={"target": "frequency"}, lr_grid=[1e-2, 1e-3],
    progress=lambda state: time.sleep(0.02),
)
"""


def test_a_killed_process_goes_on(waves_zoo, tmp_path):
    out = tmp_path / "killed"
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(waves_zoo), str(out)], env=environment(),
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(child, out / "checkpoint" / "state.pt")
    time.sleep(random.uniform(0, 0.5))
    child.kill()
    _, errors = child.communicate()
    assert child.returncode == -signal.SIGKILL, errors
    assert not (out / "summary.json").exists()
    before = (out / "checkpoint" / "state.pt").stat().st_mtime_ns
    more = {"settings": {"epochs": 40}, "lr_grid": [1e-2, 1e-3]}
    train(waves_zoo, out, **more)
    assert before
    train(waves_zoo, tmp_path / "whole", **more)
    assert_same_run(out, tmp_path / "whole")


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def wait_for(child: subprocess.Popen[str], path: Path, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.02)
    assert path.exists(), child.communicate()[1] if child.poll() is not None else "too slow"


def test_patience_that_ran_out_before_a_kill(waves_zoo, tmp_path, monkeypatch):
    """The run ends where it ended, although not all of its updates are done."""
    settings = {"epochs": 40, "lr": 1e-9, "patience": 3}
    whole = train(waves_zoo, tmp_path / "whole", settings=settings)
    assert whole["steps"] < 120
    found = [r["validation"]["mse"] for r in metrics(tmp_path / "whole") if "validation" in r]
    assert len(found) - 1 - found.index(min(found)) == 3

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(runs, "card", killed)
        with pytest.raises(Killed):
            train(waves_zoo, tmp_path / "cut", settings=settings)
    train(waves_zoo, tmp_path / "cut", settings=settings)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


# ---- the optimiser


@pytest.mark.parametrize("parts", [2, 3, 64])
def test_accumulated_gradients_are_those_of_the_batch(plain, parts, waves_zoo, tmp_path):
    """Also if parts differ in size, or there are fewer networks than parts."""
    out = tmp_path / "run"
    options = {"augment": "none"}
    train(waves_zoo, tmp_path / "whole", options=options)
    train(waves_zoo, out, settings={"accumulate": parts}, options=options)
    ours, theirs = (
        load_file(folder / "last" / "model.safetensors") for folder in (out, tmp_path / "whole")
    )
    for name, value in theirs.items():
        assert_close(ours[name], value, rtol=1e-3, atol=1e-6)
    pairs = zip(metrics(out), metrics(tmp_path / "whole"), strict=True)
    for a, b in pairs:
        if "loss" in a:
            assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)


def test_learning_rates(waves_zoo, tmp_path):
    lr = {"lr": 0.1, "weight_decay": 0.0}
    for schedule in ("constant", "cosine"):
        settings = {"epochs": None, "steps": 20, "warmup": 5, "schedule": schedule, **lr}
        train(waves_zoo, tmp_path / schedule, settings=settings)
        found = [record["lr"] for record in metrics(tmp_path / schedule) if "lr" in record]
        assert found[:5] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1])
        later = [1.0] * 15
        if schedule == "cosine":
            later = [0.5 * (1 + math.cos(math.pi * k / 15)) for k in range(15)]
        assert found[5:] == pytest.approx([0.1 * factor for factor in later])


def test_the_first_update_is_the_optimisers(waves_zoo, tmp_path, monkeypatch):
    """Gradient, clipping and Adam by hand; what accelerate is for must not change them."""
    settings = {"epochs": 1, "batch": 96, "clip": 0.01, "optimiser": "adam", "weight_decay": 0.1}
    options = {"augment": "none"}
    begun: list[dict[str, torch.Tensor]] = []
    inner = training._Run.loop

    def watched(self):
        begun.append({k: v.clone() for k, v in self.module.state_dict().items()})
        inner(self)

    monkeypatch.setattr(training._Run, "loop", watched)
    train(waves_zoo, tmp_path / "run", settings=settings, options=options)
    model = processors.load(tmp_path / "run" / "model").train()
    model.load_state_dict(begun[0])
    weights, columns = zoo.open_zoo(waves_zoo).batch(range(96))
    std = columns["frequency"].std(correction=0)
    torch.nn.functional.mse_loss(model(weights)[:, 0] / std, columns["frequency"] / std).backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.01)
    assert norm > 0.01
    # Clipped gradients are small beside the decay, so that Adam's signs tell them apart.
    torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=0.1).step()
    last = load_file(tmp_path / "run" / "last" / "model.safetensors")
    for name, value in model.state_dict().items():
        assert_close(last[name], value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("model", ["mlp", "nfn-np"])
def test_bfloat16_on_a_cpu(model, waves_zoo, tmp_path):
    sizes = {"mlp": SMALL, "nfn-np": {"channels": [4, 4], "fourier": 4, "head": 8}}[model]
    summary = train(
        waves_zoo, tmp_path / "run", model=model, sizes=sizes, settings={"precision": "bf16"}
    )
    # What is measured is what a saved model gives, without autocast.
    assert evaluate(tmp_path / "run", waves_zoo, device="cpu") == summary["test"]
    last = load_file(tmp_path / "run" / "last" / "model.safetensors")
    assert all(tensor.dtype != torch.bfloat16 for tensor in last.values())


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a compiler")
def test_compiled(plain, waves_zoo, tmp_path):
    # In a process of its own: what checks types in the tests cannot be compiled.
    out = tmp_path / "run"
    words = ["--target", "frequency", "--epochs", "4", "--batch", "32", "--set", "width=16"]
    ran = subprocess.run(
        [
            sys.executable, "-m", "cli.main", "train", "regress", str(waves_zoo), "--model",
            "statnn", "--device", "cpu", "--out", str(out), "--compile", *words,
        ],
        capture_output=True, text=True, timeout=300,
        env={**environment(), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "compiled")},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert list((tmp_path / "compiled").rglob("*.cpp")), "nothing was compiled"
    assert read_json(out / "config.json")["settings"]["compile"]
    files = [folder / "model" / "model.safetensors" for folder in (plain, out)]
    expected, found = map(load_file, files)
    # The order of sums differs, and Adam enlarges the difference where gradients are small.
    assert_close(found, expected, rtol=1e-2, atol=1e-3)


# ---- rates that are tried


def test_a_rate_that_diverges_leaves_no_model_behind(waves_zoo, tmp_path, monkeypatch):
    made, alive = [], []
    building = Processor.__init__

    @wraps(building)
    def watched(self, *words, **more):
        alive.append(sum(model() is not None for model in made))
        made.append(weakref.ref(self))
        building(self, *words, **more)

    monkeypatch.setattr(Processor, "__init__", watched)
    gc.disable()  # by itself Python looks for cycles when it likes
    try:
        train(waves_zoo, tmp_path / "run", settings={"epochs": 10}, lr_grid=(1e30, 1e-2))
    finally:
        gc.enable()
    assert len(alive) >= 3
    assert set(alive) == {0}


def test_the_best_rate_is_taken(waves_zoo, tmp_path):
    settings = {"epochs": 30}
    summary = train(waves_zoo, tmp_path / "run", settings=settings, lr_grid=(1e-7, 1e-2, 1e30))
    assert summary["lr"] == 1e-2
    tried = summary["lr_grid"]
    assert tried["0.01"] < tried["1e-07"]
    assert tried["1e+30"] is None
    assert max(r["lr"] for r in metrics(tmp_path / "run") if "lr" in r) == 1e-2
    alone = train(waves_zoo, tmp_path / "alone", settings={**settings, "lr": 1e-2})
    assert alone["test"] == summary["test"]


def test_a_diverging_run_is_one_line(waves_zoo, tmp_path):
    with pytest.raises(ZooError, match=r"loss of statnn is no longer finite at update \d+; try"):
        train(waves_zoo, tmp_path / "a", settings={"lr": 1e30})
    with pytest.raises(ZooError, match="no longer finite with any rate of --lr-grid"):
        train(waves_zoo, tmp_path / "b", lr_grid=(1e29, 1e30))
    assert not (tmp_path / "a" / "summary.json").exists()


def test_a_metric_that_is_no_number_is_no_best(waves_zoo, tmp_path, monkeypatch):
    from processors.tasks import Regress

    monkeypatch.setattr(Regress, "evaluate", lambda *_: {"mse": math.nan})
    with pytest.raises(ZooError, match="the validation mse of statnn is no longer finite"):
        train(waves_zoo, tmp_path / "run")


# ---- folders


def test_a_finished_run_is_not_trained_again(plain, waves_zoo, monkeypatch):
    before = {p: p.stat().st_mtime_ns for p in plain.rglob("*") if p.name != ".lock"}
    monkeypatch.setattr(training, "_work", None)
    assert train(waves_zoo, plain) == read_json(plain / "summary.json")
    assert before == {p: p.stat().st_mtime_ns for p in plain.rglob("*") if p.name != ".lock"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"seed": 3}, "seed is 0, not 3"),
        ({"settings": {"lr": 0.5}}, r"settings\.lr is 0\.001, not 0\.5"),
        ({"sizes": {"width": 8}}, r"model_sizes\.width is 16, not 8"),
        ({"options": {"noise": 0.5}}, r"task_options\.noise is 0\.1, not 0\.5"),
        ({"split_limit": "train=50"}, r"split_limit\.train is None, not 50"),
        ({"lr_grid": [1e-3]}, r"lr_grid is \[\], not \[0\.001\]"),
        ({"model": "mlp"}, "model is 'statnn', not 'mlp'"),
    ],
)
def test_another_run_is_refused_by_what_differs(more, message, plain, waves_zoo):
    with pytest.raises(ValueError, match=f"holds another run: .*{message}.*--overwrite"):
        train(waves_zoo, plain, **more)


def test_the_same_zoo_may_lie_elsewhere(plain, waves_zoo, tmp_path):
    (tmp_path / "moved").symlink_to(waves_zoo)
    assert train(tmp_path / "moved", plain) == read_json(plain / "summary.json")


def test_tuples_are_lists_when_a_run_goes_on(waves_zoo, tmp_path):
    sizes = {"channels": (4, 4), "fourier": 4, "head": 8}
    for _ in range(2):
        train(waves_zoo, tmp_path / "run", model="nfn-np", sizes=sizes, settings={"epochs": 1})


def test_overwriting(waves_zoo, tmp_path):
    train(waves_zoo, tmp_path / "run", settings={"epochs": 1})
    (tmp_path / "run" / "notes.txt").write_text("x")
    summary = train(waves_zoo, tmp_path / "run", settings={"epochs": 2}, overwrite=True)
    assert summary["epochs"] == 2
    assert not (tmp_path / "run" / "notes.txt").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_foreign_folders_are_left_alone(waves_zoo, tmp_path, overwrite):
    (tmp_path / "thesis.tex").write_text("x")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="holds something that is not a run; choose another"):
        train(waves_zoo, tmp_path, overwrite=overwrite)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "thesis.tex"]
    with pytest.raises(ValueError, match="is not a folder"):
        train(waves_zoo, tmp_path / "thesis.tex", overwrite=overwrite)


def test_one_process_a_folder(waves_zoo, tmp_path):
    out = tmp_path / "run"
    with runs.one_writer(out), pytest.raises(ZooError, match="is being trained by another"):
        train(waves_zoo, out, settings={"epochs": 1})
    train(waves_zoo, out, settings={"epochs": 1})


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"task": "sort"}, "unknown task 'sort'; known: classify, regress"),
        ({"model": "dwsnet"}, "unknown model 'dwsnet'; known: dws, nfn-np"),
        ({"settings": {"epochz": 3}}, "unknown setting 'epochz'; known: epochs, steps"),
        ({"options": {"nois": 3}}, "task 'regress' has no option 'nois'; known: augment"),
        ({"options": {"noise": "big"}}, "noise must be a number, got 'big'"),
        ({"sizes": {"widht": 3}}, "model 'statnn' has no argument 'widht'; known: hidden, width"),
        ({"sizes": {"width": -3}}, "width must be from 1 to .*, got -3"),
        ({"model": "dws", "sizes": {"chan": "x"}}, "chan must be a number, got 'x'"),
        ({"settings": {"epochs": 3, "steps": 3}}, "expected either epochs or steps"),
        ({"settings": {"lr": 0.0}}, r"lr must be in \(0, 1e\+30\], got 0\.0"),
        ({"settings": {"lr": math.nan}}, "lr must be a finite number, got nan"),
        ({"settings": {"clip": -1.0}}, r"clip must be in \(0, 1e\+30\], got -1\.0"),
        ({"settings": {"batch": 0}}, "batch must be from 1 to .*, got 0"),
        ({"settings": {"optimiser": "lion"}}, "optimiser must be one of adamw, adam, got 'lion'"),
        ({"lr_grid": [0.1, -1.0]}, r"lr must be in \(0, 1e\+30\], got -1\.0"),
        ({"seed": -1}, r"seed must be from 0 to \d+, got -1"),
        ({"split_limit": "train=0"}, "split_limit: expected a number of at least 1, or splits"),
        ({"split_limit": "val=3"}, "split_limit: expected a number of at least 1, or splits"),
        ({"device": "tpu"}, "unknown device 'tpu'; known: auto, cpu, cuda, mps"),
        ({"log_with": "sheet"}, "accelerate cannot do this: .*sheet"),
    ],
)
def test_misuse_is_refused_before_anything_is_written(more, message, waves_zoo, tmp_path):
    with pytest.raises(ValueError, match=message):
        train(waves_zoo, tmp_path / "run", **more)
    assert list(tmp_path.iterdir()) == []


def test_without_a_gpu(waves_zoo, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device 'cuda' is not there: torch sees no GPU"):
        train(waves_zoo, tmp_path / "run", device="cuda")
    with pytest.raises(ValueError, match="device 'cuda' is not there"):
        evaluate(tmp_path / "run", waves_zoo, device="cuda")


# ---- damage


def cut(path: Path, share: float = 0.5) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


@pytest.fixture
def stopped(waves_zoo, tmp_path, monkeypatch) -> Path:
    """A run that was killed after its second validation, one update after a checkpoint."""
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    seen = []

    def killed(state):
        seen.append(state.step)
        if state.step == 7:
            raise Killed

    with pytest.raises(Killed):
        train(waves_zoo, tmp_path / "stopped", progress=killed)
    return tmp_path / "stopped"


STATES = {
    "cut": cut,
    "a bit flipped": flip,
    "empty": lambda path: path.write_bytes(b""),
    "another file": lambda path: path.write_bytes(b"PK" + bytes(100)),
    "without its hash": lambda path: cut(path, 0.9),
    "of another model": lambda path: checkpoint.write(
        path, {**torch.load(path, weights_only=True), "module": {"x": torch.zeros(1)}}
    ),
    "not finite": lambda path: checkpoint.write(
        path,
        {
            **torch.load(path, weights_only=True),
            "module": {
                name: x * float("nan") if x.is_floating_point() else x
                for name, x in torch.load(path, weights_only=True)["module"].items()
            },
        },
    ),
    "no optimiser": lambda path: checkpoint.write(
        path, {k: v for k, v in torch.load(path, weights_only=True).items() if k != "optimiser"}
    ),
    "numbers": lambda path: checkpoint.write(
        path, {**torch.load(path, weights_only=True), "step": 6.5}
    ),
}


@pytest.mark.parametrize("kind", STATES)
def test_a_damaged_checkpoint_is_set_aside_and_the_run_begins_again(
    kind, stopped, plain, waves_zoo
):
    state = stopped / "checkpoint" / "state.pt"
    STATES[kind](state)
    told: list[str] = []
    train(waves_zoo, stopped, tell=told.append)
    (line,) = told
    assert line.startswith(str(state))
    assert f"it is now {state}.damaged, and statnn begins again" in line
    assert_same_run(stopped, plain)


def test_a_checkpoint_that_is_whole_goes_on_without_a_word(stopped, plain, waves_zoo):
    told, steps = [], []
    train(waves_zoo, stopped, tell=told.append, progress=lambda state: steps.append(state.step))
    assert told == []
    assert min(steps) > 6
    assert_same_run(stopped, plain)


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_the_best_weights_of_the_first_version(damage, stopped, plain, waves_zoo):
    """They lay beside the state, which had no hash."""
    folder = stopped / "checkpoint"
    state = torch.load(folder / "state.pt", weights_only=True)
    best = state.pop("best_weights") or state["module"]
    torch.save({**state, "best_step": state["best_step"] - 1}, folder / "state.pt")
    save_file(best, folder / "best.safetensors")
    whole = shutil.copytree(stopped, stopped.with_name("whole"))
    told: list[str] = []
    train(waves_zoo, whole, tell=told.append)
    assert told == []
    path = folder / "best.safetensors"
    path.unlink() if damage == "gone" else cut(path)
    train(waves_zoo, stopped, tell=told.append)
    assert [f"{path} is" in line and "statnn begins again" in line for line in told] == [True]
    assert_same_run(stopped, plain)


def test_damaged_metrics_are_set_aside(stopped, waves_zoo):
    path = stopped / "metrics.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], "[1, 2]", *lines[2:]]) + "\n")
    told: list[str] = []
    train(waves_zoo, stopped, tell=told.append)
    (line,) = told
    assert "metrics.jsonl, line 2: expected" in line
    assert (stopped / "metrics.jsonl.damaged").is_file()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()][:2] == [1, 3]


def test_a_damaged_trial_is_made_again(waves_zoo, tmp_path, monkeypatch):
    more = {"lr_grid": (1e-2, 1e-3), "settings": {"epochs": 10}}

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(runs, "card", killed)
        with pytest.raises(Killed):
            train(waves_zoo, tmp_path / "a", **more)
    (tmp_path / "a/grid/0.01/summary.json").write_text('{"best": "good"}')
    told: list[str] = []
    summary = train(waves_zoo, tmp_path / "a", tell=told.append, **more)
    assert len(told) == 1
    assert "best: expected a finite number or null, got 'good'" in told[0]
    assert summary["lr_grid"] == train(waves_zoo, tmp_path / "b", **more)["lr_grid"]


def test_a_warning_where_nobody_listens(stopped, waves_zoo):
    cut(stopped / "checkpoint" / "state.pt")
    with pytest.warns(RuntimeWarning, match=r"state\.pt is damaged .* begins again"):
        train(waves_zoo, stopped)


MODELS_DAMAGED = {
    "cut": ("model/model.safetensors", cut),
    "flipped": ("model/model.safetensors", flip),
    "gone": ("model/model.safetensors", Path.unlink),
    "config": ("model/config.json", lambda path: path.write_text("{}")),
    "summary": ("summary.json", cut),
    "wrong": ("summary.json", lambda path: path.write_text("[]")),
    "last": ("last/model.safetensors", flip),
}


@pytest.mark.parametrize("kind", MODELS_DAMAGED)
def test_a_finished_run_that_is_damaged_says_so_everywhere(kind, plain, waves_zoo, tmp_path):
    copy = shutil.copytree(plain, tmp_path / "copy")
    name, damage = MODELS_DAMAGED[kind]
    damage(copy / name)
    with pytest.raises(ZooError, match=rf"{name}.*; train the run again with --overwrite"):
        train(waves_zoo, copy)
    with pytest.raises(ZooError, match=name):
        evaluate(copy, waves_zoo, device="cpu")
    with pytest.raises(ZooError, match=name):
        report.collect([copy])
    with pytest.raises(ZooError, match=name), runs.published(copy, "user/name"):
        pass
    if name.startswith("model"):
        with pytest.raises(ZooError, match=name):
            processors.load(copy)
    assert train(waves_zoo, copy, overwrite=True)["epochs"] == 4


def test_runs_without_hashes_are_read_whole(plain, waves_zoo, tmp_path):
    """As 324dc88 wrote them: numbers that are not finite have to be seen."""
    copy = shutil.copytree(plain, tmp_path / "copy")
    summary = read_json(copy / "summary.json")
    del summary["files"]
    (copy / "summary.json").write_text(json.dumps(summary))
    assert evaluate(copy, waves_zoo, device="cpu") == summary["test"]
    path = copy / "model" / "model.safetensors"
    state = load_file(path)
    state["model.layers.0.weight"].fill_(float("nan"))
    save_file(state, path)
    for use in (lambda: report.collect([copy]), lambda: evaluate(copy, waves_zoo)):
        with pytest.raises(ZooError, match=r"model\.layers\.0\.weight' has numbers that are not"):
            use()


LINKED = ["model/model.safetensors", "model", "figures/a.png", "README.md"]


@pytest.mark.parametrize("place", LINKED)
def test_no_target_of_a_link_is_published(place, plain, tmp_path):
    copy = shutil.copytree(plain, tmp_path / "copy")
    secret = tmp_path / "secret"
    path = copy / place
    if path.is_dir() or path.exists():
        path.rename(secret)
    else:
        secret.write_text("key")
    path.symlink_to(secret)
    message = f"{path} is a link; only plain files are published"
    with pytest.raises(ZooError, match=message), runs.published(copy, "user/name"):
        pass


def test_only_what_a_run_wrote_is_published(plain, tmp_path):
    copy = shutil.copytree(plain, tmp_path / "copy")
    for name in ("notes.txt", "model/key.json", "figures/key.txt"):
        (copy / name).write_text("x")
    with runs.published(copy, "user/name") as staged:
        names = sorted(p.relative_to(staged).as_posix() for p in staged.rglob("*") if p.is_file())
    assert names == [
        "README.md", "config.json", "figures/curves.png", "figures/predicted.png",
        "metrics.jsonl", "model.safetensors", "run.json", "summary.json",
    ]  # fmt: skip


# ---- --overwrite keeps the old run until the new one has begun


def test_a_run_that_cannot_begin_leaves_the_old_one(plain, waves_zoo, tmp_path):
    copy = shutil.copytree(plain, tmp_path / "copy")
    before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()}
    for wrong in ({"sizes": {"width": 0}}, {"settings": {"lr": math.inf}}, {"seed": -1}):
        with pytest.raises(ValueError, match="must"):
            train(waves_zoo, copy, overwrite=True, **wrong)
    other = shutil.copytree(waves_zoo, tmp_path / "zoo")
    cut(other / "stats.safetensors")
    with pytest.raises(ZooError):
        train(other, copy, overwrite=True)
    assert {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("after", range(1, 14))
def test_overwriting_that_is_killed_leaves_the_old_run_or_the_new(
    after, plain, waves_zoo, tmp_path, monkeypatch
):
    copy = shutil.copytree(plain, tmp_path / "copy")
    left = [after]

    def counting(owner, name):
        inner = getattr(owner, name)

        def counted(*args, **named):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return inner(*args, **named)

        return counted

    with monkeypatch.context() as patch:
        for owner, name in ((os, "replace"), (os, "unlink"), (shutil, "rmtree"), (os, "rmdir")):
            patch.setattr(owner, name, counting(owner, name))
        patch.setattr(Path, "unlink", counting(Path, "unlink"))
        patch.setattr(Path, "replace", counting(Path, "replace"))
        patch.setattr(training, "_work", lambda job: {})
        with contextlib.suppress(Killed):
            train(waves_zoo, copy, overwrite=True, seed=1)
    config = copy / "config.json"
    begun = config.exists() and read_json(config)["seed"] == 1
    if begun:
        train(waves_zoo, copy, seed=1)
        train(waves_zoo, tmp_path / "alone", seed=1)
        assert_same_run(copy, tmp_path / "alone")
        assert not (copy / ".old").exists()
    else:
        train(waves_zoo, copy)
        assert_same_run(copy, plain)


# ---- longer runs


@pytest.mark.parametrize("ended", [True, False], ids=["finished", "stopped"])
def test_a_run_can_become_longer(ended, waves_zoo, tmp_path, monkeypatch):
    """Its weights are those of a run that was so long from the beginning."""
    out = tmp_path / "run"
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)

    def killed(state):
        if state.step == 5 and not ended:
            raise Killed

    with contextlib.suppress(Killed):
        train(waves_zoo, out, settings={"epochs": 2}, progress=killed)
    assert (out / "summary.json").exists() == ended
    steps: list[int] = []
    longer = train(
        waves_zoo, out, settings={"epochs": 4}, progress=lambda state: steps.append(state.step)
    )
    assert longer["epochs"] == 4
    assert min(steps) > (6 if ended else 4)
    train(waves_zoo, tmp_path / "whole", settings={"epochs": 4})
    files = [folder / "last" / "model.safetensors" for folder in (out, tmp_path / "whole")]
    assert files[0].read_bytes() == files[1].read_bytes()
    losses = [
        [r["loss"] for r in metrics(folder) if "loss" in r] for folder in (out, tmp_path / "whole")
    ]
    assert losses[0] == losses[1]
    # In steps too, and again.
    assert train(waves_zoo, out, settings={"epochs": None, "steps": 20})["steps"] == 20
    assert evaluate(out, waves_zoo, device="cpu") == read_json(out / "summary.json")["test"]


@pytest.mark.parametrize(
    ("first", "then", "message"),
    [
        ({}, {"epochs": 1}, "it can become longer than its 6 updates, not shorter; choose"),
        ({"schedule": "cosine"}, {"epochs": 4}, "its cosine schedule depends on its length;"),
        ({}, {"epochs": 4, "lr": 0.5}, r"settings\.lr is 0\.001, not 0\.5; choose another"),
    ],
)
def test_why_a_run_cannot_become_longer(first, then, message, waves_zoo, tmp_path):
    train(waves_zoo, tmp_path / "run", settings={"epochs": 2, **first})
    with pytest.raises(ValueError, match=message):
        train(waves_zoo, tmp_path / "run", settings={"epochs": 2, **first, **then})
    assert train(waves_zoo, tmp_path / "run", settings={"epochs": 2, **first})["epochs"] == 2


def test_runs_that_kept_nothing_to_go_on_from(waves_zoo, tmp_path):
    """Those that 324dc88 has finished, and those whose state was deleted for its bytes."""
    train(waves_zoo, tmp_path / "run", settings={"epochs": 2})
    (tmp_path / "run" / "last" / "state.pt").unlink()
    assert train(waves_zoo, tmp_path / "run", settings={"epochs": 2})["epochs"] == 2
    assert evaluate(tmp_path / "run", waves_zoo, device="cpu")["mse"] > 0
    with pytest.raises(ZooError, match=r"has no last/state\.pt to go on from: it was del"):
        train(waves_zoo, tmp_path / "run", settings={"epochs": 4})
    train(waves_zoo, tmp_path / "grid", settings={"epochs": 10}, lr_grid=[1e-3])
    with pytest.raises(ValueError, match="its learning rates were tried for a tenth"):
        train(waves_zoo, tmp_path / "grid", settings={"epochs": 20}, lr_grid=[1e-3])


def test_a_finished_run_keeps_its_models_once(waves_zoo, tmp_path):
    """Beside them the three moments of AMSGrad; nothing where nothing could go on."""
    sizes = {"width": 64}
    train(waves_zoo, tmp_path / "run", settings={"epochs": 2}, sizes=sizes)
    run = tmp_path / "run"
    model = (run / "model" / "model.safetensors").stat().st_size
    assert (run / "last" / "model.safetensors").stat().st_size < 1.1 * model
    assert 2.8 * model < (run / "last" / "state.pt").stat().st_size < 3.3 * model
    for name, settings in (("cosine", {"schedule": "cosine"}), ("patience", {"patience": 1})):
        given = {"epochs": 40, "lr": 0.3, **settings} if name == "patience" else settings
        found = train(waves_zoo, tmp_path / name, settings={"epochs": 2, **given}, sizes=sizes)
        assert name == "cosine" or found["epochs"] < 40
        assert not (tmp_path / name / "last" / "state.pt").exists()


# ---- trackers


def test_a_tracker_that_is_not_installed(waves_zoo, tmp_path, monkeypatch):
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", list)
    with pytest.raises(ValueError, match="tracker 'tensorboard' is not installed here"):
        train(waves_zoo, tmp_path / "run", log_with="tensorboard")
    assert not (tmp_path / "run").exists()


def test_a_tracker_sees_what_the_file_has(waves_zoo, tmp_path, monkeypatch):
    from accelerate import tracking

    lines, configs = [], []

    class Notes(tracking.GeneralTracker):
        name = "notes"
        requires_logging_directory = False
        tracker = None

        def __init__(self, project, **_):
            super().__init__()

        def store_init_configuration(self, values):
            configs.append(values)

        def log(self, values, step, **_):
            lines.append((step, values))

    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "notes", Notes)
    train(waves_zoo, tmp_path / "run", log_with="notes", settings={"epochs": 1}, lr_grid=[1e-3])
    assert configs[0]["settings.batch"] == 32
    assert [step for step, _ in lines] == [r["step"] for r in metrics(tmp_path / "run")]
    assert "validation.mse" in lines[-1][1]


# ---- alignment


def test_aligning_once_is_aligning_every_time(digits_zoo, tmp_path, monkeypatch):
    options = {"augment": "none"}
    plain = {"task": "classify", "model": "mlp-align", "options": options}
    summary = train(digits_zoo, tmp_path / "once", **plain)
    assert evaluate(tmp_path / "once", digits_zoo, device="cpu") == pytest.approx(summary["test"])
    reference = load_file(tmp_path / "once/model/model.safetensors")["model.reference"]
    assert reference.abs().max() > 0
    # The same without the shortcut: raw networks, aligned in every forward.
    inner = matching.align_splits

    def lazily(data, place):
        held = {split: rows._held for split, rows in data.items()}
        found = inner(data, place)
        for split, rows in data.items():
            rows._held = held[split]
        return found

    init = training._Run.__init__

    def not_aligned(self, *args, **named):
        init(self, *args, **named)
        self.module.model.aligned = False

    monkeypatch.setattr(matching, "align_splits", lazily)
    monkeypatch.setattr(training._Run, "__init__", not_aligned)
    other = train(digits_zoo, tmp_path / "always", **plain)
    assert other["test"]["loss"] == pytest.approx(summary["test"]["loss"], rel=1e-4)


def test_matching_goes_on_where_it_was_killed(digits_zoo, tmp_path, monkeypatch):
    plain = {"task": "classify", "model": "mlp-align", "settings": {"epochs": 1}}
    monkeypatch.setattr(matching, "SAMPLE", 20)
    monkeypatch.setattr(matching, "SAVE_SECONDS", 0)
    told: list[training.Progress] = []
    train(digits_zoo, tmp_path / "whole", progress=told.append, **plain)
    seen = [state for state in told if state.unit == "network"]
    assert (seen[0].step, seen[-1].step) == (0, 80)
    assert {state.steps for state in seen} == {80}

    class Killed(Exception):
        pass

    def killed(state):
        if state.unit == "network" and state.step == 40:
            raise Killed

    with pytest.raises(Killed):
        train(digits_zoo, tmp_path / "again", progress=killed, **plain)
    matched, match = [], align.match

    def counting(spec, weights, reference, *more):
        matched.append(len(weights))
        return match(spec, weights, reference, *more)

    monkeypatch.setattr(align, "match", counting)
    train(digits_zoo, tmp_path / "again", **plain)
    # The rest of training, validation, test; never again after that.
    assert matched == [20, 5, 7, 8]
    files = (tmp_path / run / "last" / "model.safetensors" for run in ("whole", "again"))
    expected, found = map(load_file, files)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


# ---- several processes

_RANKS = """
import os, sys, torch
torch.set_num_threads(1)
from safetensors.torch import save_file
from processors import train as training
inner, folder = training._Run.loop, sys.argv[1]
def loop(self):
    inner(self)
    save_file(self.module.state_dict(), f"{folder}/rank{self.accelerator.process_index}")
training._Run.loop = loop
sys.argv[1:] = ["train"] + sys.argv[2:]
from cli.main import main
main()
"""


def test_accelerate_launches_the_command_itself(waves_zoo, tmp_path):
    """On several processes, beside a folder of the user's own that is called like ours."""
    (tmp_path / "cli").mkdir()
    (tmp_path / "cli" / "__init__.py").write_text("raise RuntimeError('the wrong cli')")
    here = Path(sys.executable).parent
    if not (here / "wszoo").exists() or not (here / "accelerate").exists():
        pytest.skip("wszoo is not installed as a command here")
    words = [
        *("--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"),
        *("--dynamo_backend", "no", "--no_python", "wszoo", "train", "regress", str(waves_zoo)),
        *("--model", "statnn", "--set", "width=16", "--target", "frequency", "--steps", "2"),
        *("--device", "cpu", "--out", "run"),
    ]
    path = f"{here}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [here / "accelerate", "launch", *words], cwd=tmp_path,
        env=environment() | {"PATH": path}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("statnn for regress") == 1
    assert read_json(tmp_path / "run" / "summary.json")["devices"] == 2


def test_two_processes_train_one_model(waves_zoo, tmp_path):
    script = tmp_path / "ranks.py"
    script.write_text(_RANKS)
    out = tmp_path / "both"
    # 95 networks in batches of 32, 32, 31: shards of a batch differ, too.
    words = [
        "regress", waves_zoo, "--model", "statnn", "--set", "width=16", "--target", "frequency",
        "--batch", 32, "--epochs", 4, "--augment", "none", "--split-limit", "train=95",
        "--device", "cpu", "--out", out,
    ]  # fmt: skip
    # What `accelerate launch` starts; it knows several processes on CPUs with MPI only.
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*launch, script, tmp_path, *map(str, words)],
        env=environment(), capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("statnn for regress") == 1
    first, second = (load_file(tmp_path / f"rank{rank}") for rank in range(2))
    alone = tmp_path / "alone"
    summary = train(waves_zoo, alone, options={"augment": "none"}, split_limit="train=95")
    last = load_file(alone / "last" / "model.safetensors")
    for name, value in first.items():
        assert torch.equal(value, second[name])
        assert_close(value, last[name], rtol=1e-3, atol=1e-6)
    found = read_json(out / "summary.json")
    assert found["devices"] == 2
    assert found["test"]["mse"] == pytest.approx(summary["test"]["mse"], rel=1e-4)
    for ours, theirs in zip(metrics(out), metrics(alone), strict=True):
        assert ours.keys() == theirs.keys()
        if "loss" in ours:
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)


def test_default_settings_are_sound():
    assert Settings().total(per_epoch=3) == 300
    assert Settings(epochs=None, steps=7).total(per_epoch=3) == 7
