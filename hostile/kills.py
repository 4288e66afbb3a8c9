"""Kills commands at any moment, again and again, and looks at what is left.

    python -m hostile.kills                          # 1,000 kill -9 and 200 SIGTERM
    python -m hostile.kills --kills 100 --terms 20 --report kills.json

A story is a command in a fresh folder: it is killed up to five times, each run going on with
what the last one left, and then left in peace. After every kill what is there must open right
or be refused; the end must be what an undisturbed run makes, to the byte; a process must end
within 10 s of SIGTERM. Moments are drawn log-uniformly over the life of the command, from its
first millisecond on. Nine of ten processes are forks of one that has loaded everything, so
that moments fall into the work; the others are `python -m cli.main`, start and all.
"""

import argparse
import contextlib
import hashlib
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ARCHIVE = ROOT / "tests" / "fixtures" / "324dc88.tar.xz"
LIMIT_SECONDS = 10.0
AGAIN = 5  # times a story is disturbed at most
# The zoo that is overwritten, and that grows.
OVER = ("overwrite", "grow")
BEFORE = ("fit-inrs", "digits", "--limit", "300", "--steps", "60", "--shard-rows", "150")
FRESH = 0.1  # share of processes that start from nothing
FIT = ("--hidden", "4", "--no-parquet")
COMMANDS: dict[str, tuple[str, ...]] = {
    "fit-inrs": ("fit-inrs", "digits", "--limit", "900", "--steps", "60", "--shard-rows", "300",
                 *FIT),
    "fit-classifiers": ("fit-classifiers", "digits", "--limit", "160", "--layers", "2", "--epochs",
                        "3", "--shard-rows", "70", *FIT),
    "fit-trajectories": ("fit-trajectories", "digits", "--limit", "150", "--layers", "2",
                         "--epochs", "2", "--batch", "256", "--shard-rows", "400", *FIT),
    "train": ("train", "classify", "{old}/pictures-dws", "--model", "mlp", "--set", "width=16",
              "--steps", "120", "--batch", "16", "--evaluations", "12", "--device", "cpu"),
    "merge": ("merge", "{old}/part-0", "{old}/part-1"),
    "push": ("push", "{old}/pictures-dws", "user/{name}"),
    "pull": ("pull", "user/{name}"),
    # Over a zoo that is there: until the new one stands, the old one opens.
    "overwrite": ("fit-inrs", "digits", "--limit", "450", "--steps", "60", "--shard-rows", "150",
                  "--seed", "1", "--overwrite", *FIT),
    "grow": ("fit-inrs", "digits", "--limit", "600", "--steps", "60", "--shard-rows", "150", *FIT),
}  # fmt: skip


def serve() -> None:
    """In a process that has loaded everything: runs, disturbs and awaits commands.

    Reads [words, folder, seconds or null, signal, whether to start from nothing] as JSON
    lines; answers with the exit code, how long the command lived, and how long after the
    signal, if one was sent.
    """
    import accelerate  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import numba  # noqa: F401
    import pyarrow  # noqa: F401
    import sklearn.datasets  # noqa: F401
    import torch
    import torchvision  # noqa: F401

    import processors.train  # noqa: F401
    import zoo.hub
    import zoo.importers  # noqa: F401
    from cli.main import main

    torch.set_num_threads(1)
    for line in sys.stdin:
        words, folder, seconds, number, fresh = json.loads(line)
        began = time.monotonic()
        if fresh:
            with open(Path(folder) / "log", "ab") as log:
                pid = subprocess.Popen(
                    [sys.executable, "-m", "cli.main", *words], cwd=folder, stdout=log, stderr=log
                ).pid
        else:
            pid = os.fork()
        if not pid:
            _child(main, words, folder)
        sent, status = None, 0
        while True:
            found, status = os.waitpid(pid, os.WNOHANG)
            now = time.monotonic()
            if found:
                break
            if seconds is not None and sent is None and now - began >= seconds:
                os.kill(pid, number)
                sent = now
            late = sent is not None and now - sent > 3 * LIMIT_SECONDS
            if late or now - began > 300:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.0005)
        ended = time.monotonic()
        answer = {
            "code": os.waitstatus_to_exitcode(status),
            "lived": ended - began,
            "after": None if sent is None else ended - sent,
        }
        print(json.dumps(answer), flush=True)


def _child(main: Callable[[], None], words: list[str], folder: str) -> None:
    """A command as its own program would run it, in a fork."""
    os.chdir(folder)
    log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    # The streams of Python, so that nothing of the server's buffers is written twice.
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    sys.argv = ["wszoo", *words]
    code = 1
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


@dataclass
class Tally:
    """What was done to one command, and what came of it."""

    kills: int = 0
    terms: int = 0
    missed: int = 0
    fresh: int = 0
    stories: int = 0
    phases: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    faults: list[str] = field(default_factory=list)


class Kills:
    """All commands, their undisturbed ends, and the process that runs them."""

    def __init__(self, home: Path, seed: int):
        sys.path.insert(0, str(ROOT / "tests"))
        from local_hub import Hub

        self.home, self.draw = home, random.Random(seed)
        self.old = home / "324dc88"
        with tarfile.open(ARCHIVE) as tar:
            tar.extractall(self.old, filter="data")
        self.hub = Hub()
        self.hub.__enter__()
        environment = {**self.hub.environment(home / "hf"), "OMP_NUM_THREADS": "1",
                       "MPLBACKEND": "agg"}  # fmt: skip
        self.server = subprocess.Popen(
            [sys.executable, "-m", "hostile.kills", "--serve"], cwd=ROOT, env=environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.files = {
            str(p.relative_to(self.old / "pictures-dws")): p.read_bytes()
            for p in (self.old / "pictures-dws").rglob("*") if p.is_file()
        }  # fmt: skip
        self.tallies = {name: Tally() for name in COMMANDS}
        self.whole: dict[str, dict[str, str]] = {}
        self.before: dict[str, str] = {}
        self.life: dict[tuple[str, bool], float] = {}
        self.number = 0

    def close(self) -> None:
        """End the server and the Hub."""
        self.server.kill()
        self.server.wait()
        self.hub.__exit__(None, None, None)

    # ---- running

    def run(
        self, command: str, story: Path, seconds: float | None, number: int, fresh: bool
    ) -> dict[str, Any]:
        """A command in the folder of a story, disturbed or not."""
        return self.ask(list(COMMANDS[command]), story, seconds, number, fresh)

    def ask(
        self, words: list[str], story: Path, seconds: float | None, number: int, fresh: bool
    ) -> dict[str, Any]:
        """A command line there, its places filled in."""
        places = {"{old}": str(self.old), "{name}": story.name}
        for place, value in places.items():
            words = [word.replace(place, value) for word in words]
        if words[0] != "push":
            words += ["--out", "out"]
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        ask = [words, str(story), seconds, number, fresh]
        print(json.dumps(ask), file=self.server.stdin, flush=True)
        line = self.server.stdout.readline()
        if not line:
            raise RuntimeError("the process that runs the commands has died")
        found: dict[str, Any] = json.loads(line)
        return found

    def begin(self, command: str) -> Path:
        """A fresh folder, and for pull a repository with a zoo in it."""
        self.number += 1
        story = self.home / "stories" / f"{command}-{self.number}"
        story.mkdir(parents=True)
        self.hub.objects.clear()
        if command in OVER:
            if not (self.home / "before").exists():
                (self.home / "before").mkdir()
                self.ask([*BEFORE, *FIT], self.home / "before", None, 0, False)
                self.before = self.made(command, self.home / "before")
            shutil.copytree(self.home / "before" / "out", story / "out")
        if command == "pull":
            self.hub.put(f"user/{story.name}", dict(self.files))
        return story

    def learn(self) -> None:
        """What each command makes undisturbed, and how long that takes."""
        for command in COMMANDS:
            for fresh in (False, False, True):
                story = self.begin(command)
                found = self.run(command, story, None, 0, fresh)
                if found["code"]:
                    raise RuntimeError(f"{command}: {(story / 'log').read_text()[-2000:]}")
                self.life[command, fresh] = found["lived"]
                made = self.made(command, story)
                if self.whole.setdefault(command, made) != made:
                    raise RuntimeError(f"{command} undisturbed makes other bytes each time")
                shutil.rmtree(story)
            if command == "grow":
                story = self.begin("at-once")
                self.run(command, story, None, 0, False)
                if self.made(command, story) != self.whole[command]:
                    self.fault(command, story, "grown, it is not what is made at once")
            print(f"{command}: {self.life[command, False]:.2f} s, from nothing "
                  f"{self.life[command, True]:.2f} s", flush=True)  # fmt: skip

    # ---- what is there

    def made(self, command: str, story: Path) -> dict[str, str]:
        """The sha256 of everything that the command is for."""
        if command == "push":
            return _sent(self.hub.files(f"user/{story.name}"), story)
        found = {}
        for path in sorted((story / "out").rglob("*")):
            name = str(path.relative_to(story / "out"))
            if not path.is_file() or path.name == ".lock" or name.startswith(".cache/"):
                continue
            # A run tells how long it took, in words, numbers and pictures.
            if command == "train" and path.suffix != ".safetensors":
                continue
            found[name] = _sha(path.read_bytes())
        return found

    def flaw(self, command: str, story: Path) -> str | None:
        """What is wrong with what is there in the midst of things: it opens otherwise."""
        import zoo

        out = story / "out"
        if command == "push":
            repo = self.hub.repos.get(("dataset", f"user/{story.name}"))
            if repo is None:
                return None
            for tree in self.hub.history(f"user/{story.name}"):
                files = {n: blob.content for n, blob in tree.items() if n != ".gitattributes"}
                if files and _sent(files, story) != self.whole["push"]:
                    return f"the repository showed {len(files)} files of {len(self.whole['push'])}"
            return None
        try:
            if command == "train":
                import processors

                processors.load(out)
            else:
                for split in ("train", "validation", "test"):
                    zoo.open_zoo(out, split, check_hashes=True).stats()
        except zoo.ZooError as error:
            return None if command not in OVER else f"neither old nor new opens: {error}"
        except BaseException as error:
            return f"opening what is there: {error!r:.300}"
        made, whole = self.made(command, story), self.whole[command]
        if command in OVER and made.get("zoo.json") == self.before["zoo.json"]:
            whole = self.before
        # What opens has all of it but, for a moment, scraps of its making.
        scraps = (".build/", ".pull/", "checkpoint/")
        extra = {name for name in made if name not in whole and not name.startswith(scraps)}
        wrong = [n for n in whole if made.get(n) != whole[n] and "last" not in n] + sorted(extra)
        return f"it opens, with other {wrong[0]}" if wrong else None

    def phase(self, command: str, story: Path) -> str:
        """How far the command was, by what lies there."""
        if command == "push":
            repo = self.hub.repos.get(("dataset", f"user/{story.name}"))
            if repo is None:
                return "before the repository"
            return "after the commit" if len(repo.branches["main"]) > 1 else "before the commit"
        out = story / "out"
        if not out.exists() or not any(p.name != ".lock" for p in out.iterdir()):
            return "nothing"
        if command == "train":
            for name, word in (("summary.json", "finished"), ("checkpoint", "checkpoints")):
                if (out / name).exists():
                    return word
            return "begun"
        if (out / "zoo.json").exists():
            return "finished"
        build = out / ".build"
        if any(build.glob("shards/*.json")) or any(out.glob("weights/*")):
            return "shards"
        return "chunks" if any(build.glob("chunks/*")) else "begun"

    # ---- stories

    def story(self, command: str, kills: int, terms: int) -> None:
        """Disturb a command so often, and then let it end."""
        tally, story = self.tallies[command], self.begin(command)
        tally.stories += 1
        numbers = [signal.SIGKILL] * kills + [signal.SIGTERM] * terms
        self.draw.shuffle(numbers)
        for number in numbers:
            fresh = self.draw.random() < FRESH
            life = self.life[command, fresh]
            low = 0.001 if not fresh else 0.05
            seconds = math.exp(self.draw.uniform(math.log(low), math.log(1.1 * life)))
            found = self.run(command, story, seconds, number, fresh)
            what = f"{signal.Signals(number).name} after {seconds:.3f} s"
            if found["after"] is None:
                tally.missed += 1
            elif number == signal.SIGKILL:
                tally.kills += 1
            else:
                tally.terms += 1
                tally.slowest = max(tally.slowest, found["after"])
                if found["after"] > LIMIT_SECONDS:
                    self.fault(command, story, f"{what}: ended {found['after']:.1f} s later")
            tally.fresh += fresh
            phase = self.phase(command, story)
            tally.phases[phase] += found["after"] is not None
            if wrong := self.flaw(command, story):
                self.fault(command, story, f"{what} ({phase}): {wrong}")
            log = story / "log"
            if log.exists() and "Traceback" in (text := log.read_text(errors="replace")):
                line = text.strip().splitlines()[-1]
                self.fault(command, story, f"{what} ({phase}): traceback, {line}")
                log.unlink()
        found = self.run(command, story, None, 0, False)
        if found["code"]:
            line = (story / "log").read_text().strip().splitlines()[-1]
            self.fault(command, story, f"the end: exit {found['code']}: {line}")
        elif (made := self.made(command, story)) != self.whole[command]:
            whole = self.whole[command]
            wrong_names = sorted({n for n in {*made, *whole} if made.get(n) != whole.get(n)})
            self.fault(command, story, f"the end: other {', '.join(wrong_names[:3])}")
        if not any(story.name in fault for fault in tally.faults):
            shutil.rmtree(story)

    def fault(self, command: str, story: Path, line: str) -> None:
        """Keep and print what is wrong."""
        self.tallies[command].faults.append(f"{story.name}: {line}")
        print(f"FAULT {story.name}: {line}", flush=True)

    def tell(self, kills: int, terms: int) -> None:
        """Stories of all commands in turn until there were so many of each."""
        began = time.monotonic()
        count = 0
        while True:
            done = sum(t.kills for t in self.tallies.values())
            termed = sum(t.terms for t in self.tallies.values())
            if done >= kills and termed >= terms:
                break
            command = list(COMMANDS)[count % len(COMMANDS)]
            count += 1
            share = terms / max(kills + terms, 1)
            times = self.draw.randint(1, AGAIN)
            some = sum(self.draw.random() < share for _ in range(times))
            if done >= kills:
                some = times
            elif termed >= terms:
                some = 0
            self.story(command, times - some, some)
            if count % 10 == 0:
                print(f"{done} kills, {termed} SIGTERM, {time.monotonic() - began:.0f} s",
                      file=sys.stderr, flush=True)  # fmt: skip


def _sent(files: dict[str, bytes], story: Path) -> dict[str, str]:
    """The sha256 of what a repository shows, whose card has its name."""
    name = story.name.encode()
    return {n: _sha(content.replace(name, b"NAME")) for n, content in files.items()}


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def main(words: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--terms", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=Path, help="counts and faults as JSON")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(words)
    if given.serve:
        serve()
        return 0
    os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", MPLBACKEND="agg")
    with tempfile.TemporaryDirectory(prefix="wszoo-kills-") as name:
        work = Kills(Path(name), given.seed)
        try:
            work.learn()
            work.tell(given.kills, given.terms)
        finally:
            work.close()
    faults = sum(len(tally.faults) for tally in work.tallies.values())
    for command, tally in work.tallies.items():
        phases = ", ".join(f"{phase} {n}" for phase, n in tally.phases.most_common())
        print(f"{command:<17} {tally.stories} stories, {tally.kills} kills, {tally.terms} SIGTERM "
              f"(slowest {tally.slowest:.2f} s), {tally.missed} too late; {phases}")  # fmt: skip
    if given.report is not None:
        plain = {
            "seed": given.seed,
            "kills": sum(t.kills for t in work.tallies.values()),
            "terms": sum(t.terms for t in work.tallies.values()),
            "commands": {name: vars(tally) for name, tally in work.tallies.items()},
        }
        given.report.write_text(json.dumps(plain, indent=1) + "\n")
    print(f"{faults} faults" if faults else "no faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
