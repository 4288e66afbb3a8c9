"""Runs a list of wszoo's commands, one after the other, and keeps a ledger of them.

    steps = read("models.toml", out="/disk/models")
    perform(steps, "/disk/models")

What the ledger says is done is not run again; what fails is said, and the rest goes on. Each
command is a process of its own, with all that it does on its own: a fit or a training that was
stopped goes on where it was. A step that reads what another makes is run again after it, and
what was deleted since is made again only where something that is still to be run reads it.

A word of a command may hold `{out}`, the campaign's folder, or what `each` of its step gives;
`{runs}` stands for all finished runs of the trainings before it, and `{lr:RUN}` for the
learning rate that a finished run chose.
"""

import itertools
import os
import re
import resource
import shlex
import subprocess
import sys
import threading
import time
import tomllib
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processors import records, runs
from processors.ledger import DONE, FAILED, STOPPED, Entry, Ledger, now
from zoo import ZooError, locks, schema, stopping
from zoo.schema import Bool, Either, ListOf, MapOf, Real, Record, Text

LEDGER = "ledger.jsonl"
RUNS = "{runs}"
_HELD = re.compile(r"\{([^{}]*)\}")
_LR = re.compile(r"\{lr:([^{}]+)\}")
_FILE_BYTES = 4 << 20
# Lines of a command that the ledger keeps.
_LINES = 20
_STEP = Record(
    {"command": Text()},
    optional={"each": MapOf(ListOf(Either(Text(), Real(), Bool())))},
)
_FILE = Record({"steps": ListOf(Either(Text(), _STEP))}, optional={"about": Text()})
# The `wszoo` of this very installation, whatever folders lie where it is run; the end of its
# standard input is the end of the campaign.
_ROOT = str(Path(__file__).resolve().parents[1])
WSZOO = (
    *(sys.executable, "-P", "-c"),
    f"import sys; sys.path.append({_ROOT!r}); sys.argv[0] = 'wszoo'; "
    "from cli.campaign import end_with_parent; end_with_parent(); "
    "from cli.main import main; main()",
)

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Step:
    """One command of a campaign.

    Attributes:
        words: of the command line after "wszoo"; may hold `{runs}` and `{lr:RUN}`.

    Raises:
        ValueError: for no command, or a training that does not say where its run lies.
    """

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.words:
            raise ValueError("a step of a campaign has no command")
        if self.words[0] == "train" and self.out is None:
            raise ValueError(f"{self.command}: say --out, so that it is known where the run lies")

    @property
    def command(self) -> str:
        """As a shell would take it."""
        return shlex.join(["wszoo", *self.words])

    @property
    def out(self) -> str | None:
        """What it makes, as `--out` says; None where it does not say."""
        for word, following in itertools.zip_longest(self.words, self.words[1:]):
            if word == "--out" and following:
                return os.path.normpath(following)
            if word.startswith("--out="):
                return os.path.normpath(word.removeprefix("--out="))
        return None

    @property
    def inputs(self) -> set[str]:
        """Words that may name what another step makes."""
        named = {found for word in self.words for found in _LR.findall(word)}
        return {os.path.normpath(word) for word in {*self.words, *named} if word} - {self.out}

    def stand_in(self) -> "Step":
        """The same with something in the place of what is not known before others are run."""
        return Step(tuple("." if word == RUNS else _LR.sub("0.001", word) for word in self.words))

    def resolved(self, trained: Sequence[str]) -> "Step":
        """With the runs, and the rates of runs, that there are.

        Args:
            trained: finished runs of the steps before.

        Raises:
            ZooError: if a run whose rate is wanted is not finished.
        """
        words: list[str] = []
        for word in self.words:
            if word == RUNS:
                words += trained
            else:
                words.append(_LR.sub(lambda found: _rate(found[1]), word))
        return Step(tuple(words))


def _rate(run: str) -> str:
    return f"{runs.finished(Path(run)).summary['lr']:g}"


# ---- lists in files


def read(path: str | Path, out: str | Path) -> list[Step]:
    """The steps of a campaign that a TOML or JSON file describes.

    Args:
        out: what `{out}` stands for.

    Raises:
        ZooError: if the file cannot be read, or says what it cannot.
        ValueError: for a command that is none, or a word in braces that nothing gives.
    """
    path = Path(path)
    name, content = schema.safe(path), schema.read_plain(path, _FILE_BYTES)
    if path.suffix.lower() == ".toml":
        try:
            plain: Any = tomllib.loads(content.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise ZooError(f"{name}: not TOML ({schema.safe(error)})") from None
    else:
        plain = schema.parse(content, name)
    schema.check(plain, _FILE, name)
    steps: list[Step] = []
    for number, step in enumerate(plain["steps"]):
        command, each = (step, {}) if isinstance(step, str) else (step["command"], step.get("each"))
        try:
            steps += _each(command, each or {}, str(out))
        except ValueError as error:
            raise ValueError(f"{name}: steps[{number}]: {error}") from None
    return steps


def _each(command: str, each: Mapping[str, Sequence[Any]], out: str) -> list[Step]:
    """The steps that a command stands for: one for each combination of values."""
    if taken := sorted({"out", "runs"} & each.keys()):
        raise ValueError(f"each: {taken[0]} stands for something else; choose another name")
    words = shlex.split(command)
    words = words[1:] if words[:1] == ["wszoo"] else words
    steps = []
    for values in itertools.product(*each.values()):
        given = {"out": out} | {
            name: str(value).lower() if isinstance(value, bool) else str(value)
            for name, value in zip(each, values, strict=True)
        }
        steps.append(Step(tuple(_filled(word, given) for word in words)))
    return steps


def _filled(word: str, given: Mapping[str, str]) -> str:
    for name, value in given.items():
        word = word.replace(f"{{{name}}}", value)
    for name in _HELD.findall(word):
        if name != "runs" and not name.startswith("lr:"):
            known = ", ".join(f"{{{each}}}" for each in [*given, "runs", "lr:RUN"])
            raise ValueError(f"nothing gives {{{name}}}; known: {known}")
    if RUNS in word and word != RUNS:
        raise ValueError(f"{RUNS} stands for several words and has to be one, got {word!r}")
    return word


# ---- what is to be run


@dataclass(frozen=True)
class Outcome:
    """What became of a campaign.

    Attributes:
        kept: steps that the ledger knew as done.
        done: steps that were run now.
        failed: what failed or could not be tried, with the reason.
    """

    kept: tuple[Step, ...]
    done: tuple[Step, ...]
    failed: tuple[tuple[Step, str], ...]


def pending(steps: Sequence[Step], ledger: Ledger) -> list[bool]:
    """Which steps are to be run, by what the ledger and the disk say now."""
    found = [not _stands(step, ledger, steps[:number]) for number, step in enumerate(steps)]
    reads = [_inputs(step, steps[:number]) for number, step in enumerate(steps)]
    changed = True
    while changed:
        changed = False
        for number, step in enumerate(steps):
            if found[number]:
                continue
            remade = any(found[i] and steps[i].out in reads[number] for i in range(number))
            gone = step.out is not None and not Path(step.out).exists()
            wanted = any(found[i] and step.out in reads[i] for i in range(number + 1, len(steps)))
            found[number] = changed_now = remade or (gone and wanted)
            changed = changed or changed_now
    return found


def _inputs(step: Step, before: Sequence[Step]) -> set[str]:
    """What a step reads of what others make; the runs that it stands for too."""
    made = set(_trainings(before)) if RUNS in step.words else set()
    return step.inputs | made


def _trainings(steps: Sequence[Step]) -> list[str]:
    """Folders of the runs that steps train."""
    return list(dict.fromkeys(step.out for step in steps if step.words[0] == "train" and step.out))


def _trained(steps: Sequence[Step]) -> list[str]:
    """Those of them that are finished."""
    return [run for run in _trainings(steps) if (Path(run) / records.SUMMARY).exists()]


def _stands(step: Step, ledger: Ledger, before: Sequence[Step]) -> bool:
    """Whether the ledger has a step as done, and nothing that it reads was made since."""
    try:
        command = step.resolved(_trained(before))
    except ZooError:
        return False
    line = ledger.last_done(command.command)
    if line is None:
        return False
    since = [entry for entry in ledger.entries[line + 1 :] if entry.status == DONE]
    made = {Step(tuple(shlex.split(entry.command)[1:])).out for entry in since}
    return not made & _inputs(step, before)


# ---- running


def perform(
    steps: Sequence[Step], out: str | Path, tell: Tell | None = None, wszoo: Sequence[str] = WSZOO
) -> Outcome:
    """Run the steps that are not done, in their order, or go on with that.

    Args:
        out: folder of the ledger; one campaign runs in it at a time.
        tell: called with the lines that commands say, and one before and after each.
        wszoo: how the command is started.

    Raises:
        ValueError: for a step that stands there twice.
        ZooError: if the ledger is damaged, or another process runs this campaign.
    """
    folder, tell = Path(out), tell or (lambda _: None)
    if len(set(steps)) < len(steps):
        twice = next(step for step in steps if list(steps).count(step) > 1)
        raise ValueError(f"this step stands there twice: {twice.command}")
    with locks.one_writer(folder, "run"):
        ledger = Ledger(folder / LEDGER)
        due = pending(steps, ledger)
        done: list[Step] = []
        failed: dict[Step, str] = {}
        for number, step in enumerate(steps):
            if not due[number]:
                continue
            before = steps[:number]
            wrong = _lacking(step, before, failed)
            if not wrong:
                tell(f"{number + 1} of {len(steps)}: {step.command}")
                wrong = _run(step, before, ledger, tell, wszoo)
            if wrong:
                failed[step] = wrong
                tell(f"{number + 1} of {len(steps)} failed: {wrong}")
            else:
                done.append(step)
        kept = tuple(step for step, needed in zip(steps, due, strict=True) if not needed)
    return Outcome(kept, tuple(done), tuple(failed.items()))


def _lacking(step: Step, before: Sequence[Step], failed: Mapping[Step, str]) -> str:
    """Why a step is not tried: what it reads could not be made."""
    for other in failed:
        if other.out in step.inputs:
            return f"it needs {other.out}, which failed"
    if RUNS in step.words and not _trained(before):
        return "none of the runs before it is finished"
    return ""


def _run(
    step: Step, before: Sequence[Step], ledger: Ledger, tell: Tell, wszoo: Sequence[str]
) -> str:
    """Run a step and enter it; why it failed, or nothing."""
    try:
        step = step.resolved(_trained(before))
    except ZooError as error:
        return str(error)
    began, clock, used = now(), time.monotonic(), _core_seconds()
    said: deque[str] = deque(maxlen=_LINES)
    told: deque[str] = deque(maxlen=_LINES)

    def enter(status: str, result: Mapping[str, Any]) -> None:
        minutes = round((time.monotonic() - clock) / 60, 4)
        core = round((_core_seconds() - used) / 60, 4)
        result = {"said": list(said), **result}
        ledger.add(Entry(step.command, status, began, minutes, core, result))

    try:
        code = _process([*wszoo, *step.words], said, told, tell)
    except KeyboardInterrupt:
        enter(STOPPED, {})
        raise
    if code == 0:
        enter(DONE, _result(step))
        return ""
    line = told[-1] if told else ""
    ended = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    enter(FAILED, {"error": line, "exit": code})
    return f"{ended}: {line}" if line else ended


def _result(step: Step) -> dict[str, Any]:
    """The metrics of a training."""
    if step.words[0] != "train" or step.out is None:
        return {}
    summary = runs.finished(Path(step.out)).summary
    return {key: summary[key] for key in ("validation", "test", "device", "lr")}


def _core_seconds() -> float:
    """What all processes used that were children of this one and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _process(command: Sequence[str], said: deque[str], told: deque[str], tell: Tell) -> int:
    """Run a process to its end; its lines are told as they come. A stop stops it too."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, errors="backslashreplace"
    ) as process:
        assert process.stdout
        assert process.stderr
        readers = [
            threading.Thread(target=_follow, args=(stream, kept, tell), daemon=True)
            for stream, kept in ((process.stdout, said), (process.stderr, told))
        ]
        for reader in readers:
            reader.start()
        try:
            while process.poll() is None:
                stopping.check()
                try:
                    process.wait(1)
                except subprocess.TimeoutExpired:
                    continue
        except BaseException:
            process.terminate()
            try:
                process.wait(stopping.GRACE_S + 1)
            except subprocess.TimeoutExpired:
                process.kill()
            raise
        finally:
            for reader in readers:
                reader.join(5)
    return process.returncode


def _follow(stream: Iterable[str], kept: deque[str], tell: Tell) -> None:
    for line in stream:
        text = line.rstrip()
        if text:
            kept.append(text)
            tell(text)
