"""Lists of commands: order, ledger, what is run again, and stops."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import line_of, run

from processors import campaign
from processors.campaign import Step, perform, read
from processors.ledger import Ledger
from processors.reproduce import EXPERIMENTS
from zoo import ZooError

# Stands for wszoo: notes its words, makes what --out says, and fails where that says so.
SCRIPT = """
import pathlib, sys, time
words = sys.argv[1:]
with open("called", "a") as file:
    print(*words, file=file)
if "slow" in words:
    print("begun", flush=True)
    time.sleep(60)
if "bad" in words and not pathlib.Path("mended").exists():
    sys.exit("Error: it is bad")
out = pathlib.Path(words[words.index("--out") + 1]) if "--out" in words else None
if out:
    out.mkdir(exist_ok=True)
print("made", out)
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """How a stand-in for wszoo is started in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return (sys.executable, "-S", "-c", SCRIPT)


def called() -> list[str]:
    """What was run since the last call."""
    path = Path("called")
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return lines


def steps(*commands: str) -> list[Step]:
    return [Step(tuple(command.split())) for command in commands]


def test_what_is_done_is_not_run_again(fake):
    listed = steps("fit digits --out zoo", "eval run zoo", "card zoo")
    outcome = perform(listed, "out", wszoo=fake)
    assert called() == ["fit digits --out zoo", "eval run zoo", "card zoo"]
    assert (len(outcome.done), outcome.kept, outcome.failed) == (3, (), ())
    entries = Ledger(Path("out/ledger.jsonl")).entries
    assert [entry.command for entry in entries] == [step.command for step in listed]
    assert entries[0].result == {"said": ["made zoo"]}
    assert all(entry.status == "done" and 0 <= entry.core_minutes < 1 for entry in entries)
    assert all("threads" in entry.machine and entry.wszoo for entry in entries)
    again = perform([*listed, *steps("card other")], "out", wszoo=fake)
    assert called() == ["card other"]
    assert (len(again.kept), len(again.done)) == (3, 1)


def test_what_reads_a_thing_that_was_made_anew_is_run_again(fake):
    perform(steps("fit digits --out zoo", "eval run zoo", "eval run other"), "out", wszoo=fake)
    called()
    changed = steps("fit digits --limit 9 --out zoo", "eval run zoo", "eval run other")
    perform(changed, "out", wszoo=fake)
    assert called() == ["fit digits --limit 9 --out zoo", "eval run zoo"]


def test_what_was_deleted_is_made_again_only_for_what_needs_it(fake):
    listed = steps("fit digits --out zoo", "eval run zoo")
    perform(listed, "out", wszoo=fake)
    Path("zoo").rmdir()
    called()
    assert perform(listed, "out", wszoo=fake).done == ()
    assert called() == []
    perform([*listed, *steps("verify zoo")], "out", wszoo=fake)
    # What stands is told from what it reads, so the one before is made again too.
    assert called() == ["fit digits --out zoo", "eval run zoo", "verify zoo"]


def test_what_fails_is_said_and_the_rest_goes_on(fake):
    listed = steps("fit bad --out zoo", "eval run zoo", "fit good --out other")
    lines: list[str] = []
    outcome = perform(listed, "out", lines.append, wszoo=fake)
    assert called() == ["fit bad --out zoo", "fit good --out other"]
    assert outcome.failed == (
        (listed[0], "exit code 1: Error: it is bad"),
        (listed[1], "it needs zoo, which failed"),
    )
    assert "1 of 3 failed: exit code 1: Error: it is bad" in lines
    entry = Ledger(Path("out/ledger.jsonl")).entries[0]
    assert (entry.status, entry.result["error"]) == ("failed", "Error: it is bad")
    Path("mended").touch()
    assert perform(listed, "out", wszoo=fake).failed == ()
    assert called() == ["fit bad --out zoo", "eval run zoo"]


def test_a_stop_ends_the_command_and_is_entered(fake, tmp_path):
    script = (
        "from processors.campaign import Step, perform\n"
        "from zoo import stopping\n"
        "with stopping.guarded():\n"
        f"    perform([Step(('slow',))], 'out', lambda line: print(line, flush=True), {fake!r})\n"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while process.stdout.readline() != b"begun\n":
            pass
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) != 0
    (entry,) = Ledger(tmp_path / "out" / "ledger.jsonl").entries
    assert (entry.command, entry.status) == ("wszoo slow", "stopped")


def test_a_command_ends_with_the_campaign_that_was_killed(tmp_path):
    """Its standard input is a pipe that ends then."""
    script = (
        "import time\n"
        "from cli.campaign import end_with_parent\n"
        "from zoo import stopping\n"
        "end_with_parent()\n"
        "with stopping.guarded():\n"
        "    print('begun', flush=True); time.sleep(60)"
    )
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as process:
        assert process.stdout.readline() == b"begun\n"
        began = time.monotonic()
        process.stdin.close()
        assert process.wait(20) != 0
        assert time.monotonic() - began < 20


def test_a_line_cut_by_a_kill_is_written_again_and_others_are_refused(fake):
    listed = steps("fit a --out a", "fit b --out b")
    perform(listed, "out", wszoo=fake)
    path = Path("out/ledger.jsonl")
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    called()
    perform(listed, "out", wszoo=fake)
    assert called() == ["fit b --out b"]
    assert len(path.read_text().splitlines()) == 2
    path.write_text('{"command": "wszoo fit"}\n')
    with pytest.raises(ZooError, match=r"ledger.jsonl, line 1: status: is missing; delete that"):
        perform(listed, "out", wszoo=fake)


def test_one_campaign_runs_in_a_folder_at_a_time(fake):
    from zoo import locks

    with locks.one_writer(Path("out")), pytest.raises(ZooError, match="is being run by"):
        perform(steps("fit a"), "out", wszoo=fake)


def test_a_file_lists_steps_with_what_each_gives(tmp_path):
    told = {
        "steps": [
            "wszoo fit-inrs digits --out {out}/zoo",
            {
                "command": "train classify {out}/zoo --model {m} --seed {s} --out '{out}/{m} {s}'",
                "each": {"m": ["dws", "mlp"], "s": [0, 1]},
            },
            "report {runs} --out report.md",
        ]
    }
    plain = tmp_path / "list.json"
    plain.write_text(json.dumps(told))
    found = read(plain, "made")
    assert [step.out for step in found] == [
        *("made/zoo", "made/dws 0", "made/dws 1", "made/mlp 0", "made/mlp 1", "report.md")
    ]
    assert found[3].words[4:8] == ("mlp", "--seed", "0", "--out")
    toml = tmp_path / "list.toml"
    toml.write_text(
        'steps = ["fit-inrs digits --out {out}/zoo", "report {runs} --out report.md"]\n'
    )
    assert [*read(toml, "made")] == [found[0], found[-1]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"steps": [1]}', r"steps\[0\]: expected"),
        ('{"steps": ["fit {x}"]}', r"steps\[0\]: nothing gives {x}; known: {out}, {runs}, {lr:RUN"),
        ('{"steps": ["report a{runs}"]}', "stands for several words"),
        ('{"steps": ["train classify zoo --model dws"]}', "say --out"),
        ('{"steps": [""]}', "has no command"),
        ('{"steps": ["fit \'"]}', "No closing quotation"),
        ('{"steps": [{"command": "fit", "each": {"out": [1]}}]}', "choose another name"),
        ("[", "not JSON"),
    ],
)
def test_lists_that_cannot_be(tmp_path, content, message):
    path = tmp_path / "list.json"
    path.write_text(content)
    with pytest.raises((ValueError, ZooError), match=message):
        read(path, "out")


def test_all_commands_are_checked_before_the_first_is_run(tmp_path):
    path = tmp_path / "list.json"
    good = ["fit-inrs digits --out {out}/zoo", "report {out}/zoo/run --out r.md"]
    for bad, words in (
        ("train classify zoo --model dws --epochs none-of --out r", "--epochs"),
        ("train nothing zoo --model dws --out r", "nothing"),
        ("fit-pictures digits", "unknown command 'fit-pictures'"),
        ("eval run zoo --splits test", "--splits"),
        ("report no/such/run --out r.md", "no/such/run"),
    ):
        path.write_text(json.dumps({"steps": [good[0], bad]}))
        line = line_of(run("campaign", path, "--out", tmp_path / "out"), 2)
        assert words in line, line
        assert bad.split()[0] in line
    assert not (tmp_path / "out").exists()


def test_the_runs_that_stand_for_themselves_and_the_rate_that_one_chose(tmp_path, monkeypatch):
    finished = SimpleNamespace(summary={"lr": 0.005})
    monkeypatch.setattr(campaign.runs, "finished", lambda folder: finished)
    step = Step(("train", "classify", "z", "--lr", "{lr:a/b}", "--out", "c"))
    assert step.inputs >= {"a/b", "z"}
    assert step.resolved([]).words[4] == "0.005"
    report = Step(("report", "{runs}", "--out", "r.md"))
    assert report.resolved(["a", "b"]).words == ("report", "a", "b", "--out", "r.md")


def test_a_step_that_stands_there_twice_is_refused(fake):
    with pytest.raises(ValueError, match="stands there twice: wszoo fit a"):
        perform(steps("fit a", "fit b", "fit a"), "out", wszoo=fake)
    assert not os.path.exists("out")


LISTS = sorted((Path(__file__).resolve().parents[1] / "benchmarks").glob("*.toml"))


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_the_lists_that_wszoo_comes_with_can_be_run(path, tmp_path):
    listed = run("campaign", path, "--out", tmp_path / "out", "--dry-run")
    assert listed.exit_code == 0, listed.output
    lines = listed.stdout.splitlines()
    assert lines
    assert all(line.startswith("to do  wszoo ") for line in lines)
    if path.stem == "published":
        assert {line.split()[4] for line in lines} == set(EXPERIMENTS)
