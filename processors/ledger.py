"""What has been run: one line of JSON a command, added when it has ended.

    {"command": "wszoo train ...", "status": "done", "wszoo": "0.1.0", "commit": "1a2b3c4",
     "machine": "AMD EPYC 9R14, 2 threads", "began": "2026-11-26T03:00:00Z", "minutes": 1.2,
     "core_minutes": 1.1, "result": {"said": [...], "test": {"accuracy": 0.9}}}

A line is whole or not there: it is written in one piece and brought to disk; what a kill cuts
off at the end is passed over and written again.
"""

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import zoo
from zoo import ZooError, machine, schema
from zoo.schema import Choice, Json, Maybe, Real, Record, Text

DONE, FAILED, STOPPED = "done", "failed", "stopped"
_BYTES = 256 << 20
_ENTRY = Record(
    {
        "command": Text(),
        "status": Choice(DONE, FAILED, STOPPED),
        "wszoo": Text(),
        "commit": Maybe(Text()),
        "machine": Text(),
        "began": Text(),
        "minutes": Real(low=0),
        "core_minutes": Real(low=0),
        "result": Record({}, others=Json()),
    },
    others=Json(),
)


def _here() -> str:
    return f"{_processor()}, {machine.threads()} threads"


@cache
def _processor() -> str:
    """What the machine's processor is called."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@cache
def _state() -> str | None:
    """The state of the repository that this code lies in; None if it lies in none."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    head = _git(root, "rev-parse", "--short", "HEAD")
    changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    return f"{head}+" if head and changed else head


def _git(root: Path, *words: str) -> str | None:
    command: Sequence[str] = ("git", "-C", str(root), *words)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


@dataclass(frozen=True)
class Entry:
    """A command that was run.

    Attributes:
        command: as a shell would take it.
        status: "done", "failed" or "stopped".
        wszoo, commit: the version; the state of its repository, "+" where it was changed, None
            if it lies in none.
        machine: its processor, and how many threads computed.
        began: UTC.
        minutes: by the clock.
        core_minutes: of all its processes.
        result: what it printed ("said"), a training's metrics, an error's last line.
    """

    command: str
    status: str
    began: str
    minutes: float
    core_minutes: float
    result: dict[str, Any] = field(default_factory=dict)
    wszoo: str = field(default_factory=lambda: str(zoo.__version__))
    commit: str | None = field(default_factory=_state)
    machine: str = field(default_factory=_here)


class Ledger:
    """The commands that were run, in the order in which they ended.

    Raises:
        ZooError: if the file is damaged; names the line.
    """

    def __init__(self, path: Path):
        self.path = path
        self.entries: list[Entry] = []
        # A line that a kill cut short is taken off before the next one is added.
        self._whole = 0
        content = schema.read_plain(path, _BYTES) if path.exists() else b""
        for number, line in enumerate(content.splitlines(keepends=True), 1):
            if not line.endswith(b"\n"):
                break
            self._whole += len(line)
            if line.strip():
                self.entries.append(_entry(line, f"{schema.safe(path)}, line {number}"))

    def add(self, entry: Entry) -> None:
        """Add a line, on disk when this returns."""
        line = json.dumps(asdict(entry), ensure_ascii=False).encode() + b"\n"
        with self.path.open("r+b" if self.path.exists() else "wb") as file:
            file.truncate(self._whole)
            file.seek(self._whole)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._whole += len(line)
        self.entries.append(entry)

    def last_done(self, command: str) -> int | None:
        """Which line says that a command is done, the last one; None if there is none."""
        found = [
            number
            for number, entry in enumerate(self.entries)
            if entry.command == command and entry.status == DONE
        ]
        return found[-1] if found else None


def _entry(line: bytes, name: str) -> Entry:
    try:
        plain = schema.parse(line, name)
        schema.check(plain, _ENTRY, name)
    except ZooError as error:
        raise ZooError(f"{error}; delete that line") from None
    return Entry(**{key: plain[key] for key in _ENTRY.fields})


def now() -> str:
    """The time, UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
