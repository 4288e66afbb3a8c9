"""Files of runs: each is replaced durably, in one step."""

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from zoo import replacing


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file in one step, so that a kill, a full disk or a power cut leaves old or new."""
    with replacing(path) as fresh:
        fresh.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Replace a text file in one step."""
    write_bytes(path, text.encode())


def write_json(path: Path, plain: Any) -> None:
    """Replace a JSON file in one step."""
    write_text(path, json.dumps(plain, indent=2) + "\n")


def write_records(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Replace a file of what reports need, {"config", "summary"} of each run, one a line."""
    lines = ",\n".join(json.dumps(record) for record in records)
    write_text(path, f"[\n{lines}\n]\n")


def set_aside(path: Path) -> Path:
    """Give a damaged file or folder another name, over one that had it before."""
    aside = path.with_name(f"{path.name}.damaged")
    if aside.is_dir() and not aside.is_symlink():
        shutil.rmtree(aside)
    os.replace(path, aside)
    return aside
