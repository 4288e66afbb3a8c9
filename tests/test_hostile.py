"""The harness of damage: it damages what it says, puts it back, and sees what is wrong."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from hostile import answers, mutations
from hostile.mutations import DATA, NOTHING, Damage, Elsewhere, Folder
from hostile.workers import Hang, Result, Tally, Workers
from zoo import ZooError

ROOT = Path(__file__).parents[1]
PLAIN = {"name": "z", "rows": 3, "mean": 1.5, "shards": [{"file": "a", "rows": 3}], "on": True}


@pytest.fixture
def folder(tmp_path) -> Folder:
    source = tmp_path / "source"
    (source / "weights").mkdir(parents=True)
    (source / ".build").mkdir()
    (source / "zoo.json").write_text(json.dumps(PLAIN))
    for number in range(3):
        (source / "weights" / f"{number}.bin").write_bytes(bytes([number]) * 100)
    return Folder.of(source, tmp_path / "work")


def test_every_damage_is_undone(folder, tmp_path):
    """Whatever was done, also twice, the folder is put back, and nothing beside it is touched."""
    elsewhere = Elsewhere(tmp_path / "elsewhere")
    draw = random.Random(0)
    kinds = set()
    for _ in range(600):
        for _ in range(draw.choice((1, 3))):
            try:
                done = mutations.change_files(folder, draw, list(folder.files), elsewhere)
            except OSError:
                break
            kinds.add(done.kind)
        folder.restore()
        assert folder.whole()
        assert (folder.path / ".build").is_dir()
    assert len(kinds) > 8
    assert elsewhere.spoiled() is None


def test_writing_through_a_link_is_seen(tmp_path):
    elsewhere = Elsewhere(tmp_path / "elsewhere")
    (elsewhere.path / mutations.SECRET).write_text("changed")
    assert "through a link" in str(elsewhere.spoiled())
    assert elsewhere.spoiled() is None


def test_the_same_seed_damages_the_same_field():
    done = [mutations.change_json(PLAIN, random.Random(seed)) for seed in range(300)]
    assert done == [mutations.change_json(PLAIN, random.Random(seed)) for seed in range(300)]
    changed = {mutations.pattern(path) for _, _, path in done}
    assert changed >= {"", "name", "rows", "shards", "shards.*.file", "shards.*.rows", "on"}
    texts = [content for _, content, _ in done]
    assert len(set(texts)) > 150
    assert (
        sum(_loads(text) == PLAIN for text in texts) < 40
    )  # true is 1, and a key copied onto itself
    assert any(b"NaN" in text for text in texts)
    assert any(_loads(text) is None for text in texts)  # raw text that is no JSON


def _loads(text: bytes) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


@pytest.mark.parametrize("way", [mutations.flip, mutations.smear, mutations.cut, mutations.stretch])
def test_bytes_change(way):
    content = bytes(range(256))
    for seed in range(50):
        found = way(content, random.Random(seed))
        changed = found[0] if isinstance(found, tuple) else found
        if way in (mutations.flip, mutations.smear):
            assert len(changed) == len(content)
    assert changed != content or way is mutations.smear


def raised(error: BaseException) -> Result:
    def act() -> None:
        raise error

    return answers.judge(Damage("k", "what"), act, ["zoo.json"], lambda found: set())


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ZooError("zoo.json: rows: expected 3"), "refused"),
        (ValueError("zoo.json has no split"), "refused"),
        (ZooError("it is wrong"), "message"),
        (ZooError("zoo.json: \x1b[31m"), "message"),
        (ZooError("zoo.json\nand more"), "message"),
        (ZooError("zoo.json" * 200), "message"),
        (ZooError(""), "message"),
        (KeyError("rows"), "traceback"),
        (json.JSONDecodeError("zoo.json", "", 0), "traceback"),
        (OSError("zoo.json"), "traceback"),
        (MemoryError(), "memory"),
        (Hang(), "hang"),
    ],
)
def test_refusals_are_judged(error, outcome):
    result = raised(error)
    assert result.outcome == outcome
    assert (result.fault is None) == (outcome == "refused")


def test_what_is_read_is_judged():
    def judged(damage: Damage, wrong: set[str]) -> str:
        return answers.judge(damage, lambda: 1, [], lambda found: wrong).outcome

    assert judged(Damage("k", "w"), set()) == "same"
    assert judged(Damage("k", "w", DATA), {"data"}) == "other data"
    assert judged(Damage("k", "w", DATA), {"data", "spec"}) == "changed"
    assert judged(Damage("k", "w", NOTHING), {"data"}) == "changed"


def test_a_case_that_takes_too_long_is_a_hang():
    from hostile.workers import clock

    with pytest.raises(Hang), clock(0.05):
        time.sleep(5)


def test_workers_outlive_their_cases():
    """Death, deafness and hunger are results, and every case is run once."""

    def case(number: int) -> Result:
        if number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 5:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
            time.sleep(60)
        if number == 7:
            try:
                np.ones(1 << 30)
            except MemoryError:
                return Result("memory", "k", "too much", "memory")
        return Result("same", "k")

    tally = Tally()
    workers = Workers(lambda: case, 2, deaf_seconds=1.0)
    assert workers.run(0, 20, 60, tally) == 20
    assert tally.cases == 20
    assert tally.outcomes == {"same": 17, "crash": 1, "hang": 1, "memory": 1}
    assert {number for cases in tally.faults.values() for number, _ in cases} == {3, 5, 7}


def test_a_slice_of_the_damage_finds_no_fault():
    """The beginning of the whole run that docs/trust.md tells of."""
    counts = {"zoos": 1000, "imports": 350, "runs": 30, "builds": 10}
    words = [word for name, count in counts.items() for word in (f"--{name}", str(count))]
    done = subprocess.run(
        [sys.executable, "-m", "hostile.fuzz", "--seed", "0", *words, "--workers", "1"],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        timeout=540,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    for name, count in counts.items():
        assert f"{name}: {count:,} cases" in done.stdout
