"""Damaged runs and damaged half-made zoos, and the commands that go on with them."""

import contextlib
import hashlib
import json
import os
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hostile.answers import command, judge
from hostile.mutations import (
    ALL,
    DATA,
    NOTHING,
    Damage,
    Elsewhere,
    Folder,
    change_files,
    change_json,
    change_text,
    cut,
    flip,
    smear,
    stretch,
)
from hostile.target import Target
from hostile.workers import Result

JSON = (".json", ".jsonl")


def change_any(folder: Folder, draw: random.Random, elsewhere: Elsewhere) -> Damage:
    """One thing that is wrong in a folder of JSON, tensors and text."""
    name = draw.choice([n for n in folder.files if not n.endswith(".png")])
    content = folder.files[name]
    way = draw.choice(("field", "field", "bytes", "bytes", "text", "header", "files", "files"))
    if way == "files":
        return change_files(folder, draw, list(folder.files), elsewhere)
    if way in ("field", "text") and name.endswith(JSON):
        if way == "text":
            changed, done = change_text(content, draw), "other text"
        elif name.endswith(".json"):
            done, changed, _ = change_json(json.loads(content), draw)
        else:
            lines = content.splitlines(keepends=True)
            at = draw.randrange(len(lines))
            done, line, _ = change_json(json.loads(lines[at]), draw)
            changed = b"".join([*lines[:at], line.replace(b"\n", b" ") + b"\n", *lines[at + 1 :]])
        folder.write(name, changed)
        return Damage(f"json: {Path(name).name}", f"{name}: {done}", ALL)
    if way == "header" and name.endswith(".safetensors"):
        (length,) = struct.unpack("<Q", content[:8])
        done, header, _ = change_json(json.loads(content[8 : 8 + length]), draw)
        header += b" " * (-len(header) % 8)
        folder.write(name, struct.pack("<Q", len(header)) + header + content[8 + length :])
        return Damage("header", f"{name}: {done}", DATA)
    if not content:
        return change_files(folder, draw, [name], elsewhere)
    method = draw.choice((flip, smear, cut, stretch))
    found = method(content, draw)
    folder.write(name, found[0] if isinstance(found, tuple) else found)
    allows = ALL if name.endswith((*JSON, ".md")) else DATA
    return Damage(f"bytes: {method.__name__}", f"{name}: {method.__name__}", allows)


# ---- runs


class Run:
    """A run beside its zoo, what it says, and a folder in which it is damaged."""

    def __init__(self, name: str, words: tuple[str, ...], home: Path, work: Path):
        self.name, self.words, self.home = name, words, work / f"home-{name}"
        self.zoo = words[2]
        shutil.copytree(home / self.zoo, self.home / self.zoo)
        self.folder = Folder.of(home / name, self.home / name)
        for lock in [n for n in self.folder.files if n.endswith(".lock")]:
            del self.folder.files[lock]
        self.finished = "summary.json" in self.folder.files
        # With hashes of the model nothing is excused.
        self.vouched = b"sha256" in self.folder.files.get("summary.json", b"").replace(
            b"zoo_sha256", b""
        )
        self.outputs = self.load() if self.finished else None
        self.measured = self.measure() if self.finished else None

    def load(self) -> bytes:
        """What the model gives for the first networks of its zoo."""
        import torch

        import processors
        import zoo

        model = processors.load(self.folder.path).eval()
        z = zoo.open_zoo(self.home / self.zoo, "test")
        weights, _ = z.batch(range(2))
        with torch.no_grad():
            found = model.masks(weights) if hasattr(model, "masks") else model(weights)
        values = found if isinstance(found, torch.Tensor) else found.flatten()
        return values.numpy().tobytes()

    def measure(self) -> str:
        """What `wszoo eval` prints."""
        return command("eval", self.folder.path, self.home / self.zoo, "--device", "cpu")

    def train(self) -> str:
        """The command of the run again."""
        os.chdir(self.home)
        return command(*self.words, "--out", self.name)

    def report(self) -> str:
        """A report of it."""
        return command("report", self.folder.path, "--out", self.home / "report.md")

    def push(self) -> str:
        """What would be sent."""
        return command("push", self.folder.path, "user/name", "--dry-run")

    def case(self, draw: random.Random, elsewhere: Elsewhere) -> Result:
        """Damage it, do one thing with it, judge."""
        damage = change_any(self.folder, draw, elsewhere)
        if damage.allows == DATA and self.vouched:
            damage = Damage(damage.kind, damage.what, NOTHING)
        damage = Damage(damage.kind, f"{self.name}: {damage.what}", damage.allows)
        names = [
            self.name, str(self.folder.path), "--", self.zoo,
            *(Path(n).name for n in self.folder.files),
        ]  # fmt: skip
        actions: dict[str, tuple[Callable[[], Any], Callable[[Any], set[str]]]] = {
            "load": (self.load, lambda f: {"data"} if f != self.outputs else set()),
            "eval": (self.measure, lambda f: {"data"} if f != self.measured else set()),
            "report": (self.report, lambda f: set()),
            "push": (self.push, lambda f: set()),
            "train": (self.train, lambda f: set()),
        }
        weights = (30, 20, 15, 15, 20) if self.finished else (0, 0, 5, 5, 90)
        action = draw.choices(list(actions), weights)[0]
        act, differences = actions[action]
        damage = Damage(damage.kind, f"{action}: {damage.what}", damage.allows)
        # Weights that are other numbers give other outputs; what is not finite is refused.
        return judge(damage, act, names, differences)


class Runs(Target[Run]):
    """Runs of several tasks, of 324dc88 and of now, whole and stopped."""

    name = "runs"
    writes = True

    def __init__(self, seed: int, runs: dict[str, tuple[tuple[str, ...], Path]], work: Path):
        super().__init__(seed, work)
        self.runs = runs

    def make(self, work: Path) -> list[Run]:
        """The runs, measured once."""
        return [Run(name, words, home, work) for name, (words, home) in self.runs.items()]

    def one(self, material: Run, draw: random.Random) -> Result:
        """Damage a run, and do one thing with it."""
        return material.case(draw, self.elsewhere)


# ---- half-made zoos


class Half:
    """A half-made zoo, the command that goes on with it, and what that makes."""

    def __init__(self, name: str, words: tuple[str, ...], source: Path, wanted: dict[str, str],
                 work: Path):  # fmt: skip
        self.name, self.words, self.wanted = name, words, wanted
        self.folder = Folder.of(source, work / "builds" / name / name)

    def go_on(self) -> dict[str, str]:
        """The command again; what lies there then."""
        command(*self.words, "--out", self.folder.path)
        found = sorted(p for p in self.folder.path.rglob("*") if p.is_file())
        return {
            str(p.relative_to(self.folder.path)): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in found
            if "weights" in p.parts or p.suffix == ".safetensors"
        }

    def case(self, draw: random.Random, elsewhere: Elsewhere) -> Result:
        """Damage it, go on, judge."""
        damage = change_any(self.folder, draw, elsewhere)
        if draw.random() < 0.3:
            # What it would change may have become a pipe, or a link.
            with contextlib.suppress(OSError):
                more = change_any(self.folder, draw, elsewhere)
                damage = Damage(more.kind, f"{damage.what}; {more.what}")
        damage = Damage(damage.kind, f"{self.name}: {damage.what}")
        names = [self.name, str(self.folder.path), *(Path(n).name for n in self.folder.files)]

        def wrong(found: dict[str, str]) -> set[str]:
            if not os.path.exists(self.folder.path / "zoo.json"):  # a part has no index
                found = {k: v for k, v in found.items() if not k.startswith(".build")}
            return {"networks"} if not self.wanted.items() <= found.items() else set()

        return judge(damage, self.go_on, names, wrong)


class Builds(Target[Half]):
    """Zoos that a kill left, of 324dc88 and of now, each damaged besides."""

    name = "builds"
    writes = True

    def __init__(
        self, seed: int, halves: dict[str, tuple[tuple[str, ...], Path, dict[str, str]]], work: Path
    ):
        super().__init__(seed, work)
        self.halves = halves

    def make(self, work: Path) -> list[Half]:
        """The half-made zoos, each finished once to see that it can be."""
        found = [Half(name, *rest, work) for name, rest in self.halves.items()]
        for half in found:
            made = half.go_on()
            if not half.wanted.items() <= made.items():
                raise RuntimeError(f"{half.name} undamaged is finished to other bytes")
            half.folder.touched |= {*half.folder.files, *half.folder.folders}
            half.folder.restore()
        return found

    def one(self, material: Half, draw: random.Random) -> Result:
        """Damage a half-made zoo, and go on with it."""
        return material.case(draw, self.elsewhere)
