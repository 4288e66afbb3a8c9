"""The folder of a run: what was trained, how it went, what came out.

config.json      everything that the run depends on, the zoo's hash included
metrics.jsonl    one record a line: losses on the way, metrics of the validation split
summary.json     the result, once there is one
model/           the best weights on the validation split, for `processors.load`
last/            the weights after the last update
checkpoint/      to go on from; gone once the run is finished
figures/  README.md
"""

import json
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from processors.config import RunConfig
from processors.files import read_json, write_json, write_text
from processors.models import MODEL, load
from zoo import ZooError, locks

CONFIG, METRICS, SUMMARY, CARD = "config.json", "metrics.jsonl", "summary.json", "README.md"
LAST, CHECKPOINT, FIGURES = "last", "checkpoint", "figures"
# Stands in a card until it is known where the model will lie.
_HERE = "PATH or user/name"


def check_config(config: Mapping[str, Any], where: str | Path) -> None:
    """Raise `ZooError` for the configuration of a run by a wszoo that recorded less."""
    lacking = [name for name in ("task_options", "model_sizes") if name not in config]
    if lacking:
        raise ZooError(
            f"{where} holds a run of an older wszoo, without {', '.join(lacking)}; train it again"
        )


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run, finished or not."""
    config = folder / CONFIG
    if not config.is_file():
        return False
    try:
        plain = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(plain, dict) and plain.get("wszoo") == "run"


@contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Hold the run's lock, see `zoo.locks`.

    Raises:
        ValueError: if the folder is a file, or holds something that is no run.
        ZooError: if another process is training there.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; choose another --out")
    if _names(folder) and not is_run(folder):
        raise ValueError(f"{folder} holds something that is not a run; choose another --out")
    with locks.one_writer(folder, "trained"):
        yield


def _names(folder: Path) -> set[str]:
    """What lies in a folder, less what a start that was cut leaves behind."""
    found = locks.names(folder) if folder.is_dir() else set()
    return found - {f".{CONFIG}.new", f".{CONFIG}.tmp"}


def begin(folder: Path, config: RunConfig, overwrite: bool) -> None:
    """Enter the folder of a run, a new one or one that is to go on.

    Raises:
        ValueError: if it holds something else, or a run of another configuration; names
            what differs.
    """
    if overwrite and is_run(folder):
        # The configuration goes last: it says that the rest may go.
        for path in sorted(folder.iterdir(), key=lambda path: path.name == CONFIG):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif not path.name.startswith(locks.LOCK_FILE):
                path.unlink()
    if not _names(folder):
        write_json(folder / CONFIG, config.to_json())
        return
    if not is_run(folder):
        raise ValueError(f"{folder} holds something that is not a run; choose another --out")
    if changed := config.differences(read_json(folder / CONFIG)):
        raise ValueError(
            f"{folder} holds another run: {'; '.join(changed)}; choose another --out, or "
            "--overwrite"
        )


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The records of a run so far; a line that a kill cut short is left out."""
    path = folder / METRICS
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records


def stamp(folder: Path) -> tuple[int, int] | None:
    """What changes when the run in a folder is begun, or begun anew; None if there is none."""
    try:
        found = (folder / CONFIG).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def how_to_go_on(folder: Path, before: tuple[int, int] | None, overwrite: bool) -> str:
    """What a stopped training leaves, in a line that begins with what is to be done.

    Args:
        before: the `stamp` when the command began.
        overwrite: whether it was to throw away what lay there.
    """
    same = "the same command"
    if overwrite:
        if stamp(folder) in (None, before):
            return f"{same} begins again; nothing was begun in {folder} yet"
        same += " without --overwrite"
    if (folder / SUMMARY).is_file():
        return f"the run in {folder} is finished"
    if (folder / CHECKPOINT).is_dir() and any((folder / CHECKPOINT).glob("state.pt")):
        return f"{same} goes on from the last checkpoint in {folder}"
    if any((folder / CHECKPOINT).glob("*")) or any((folder / "grid").glob("*/*")):
        return f"{same} goes on with what is kept in {folder}"
    return f"{same} begins again, as there is no checkpoint in {folder} yet"


def model_folder(folder: Path) -> Path:
    """Where the best model of a finished run lies.

    Raises:
        ZooError: if it is no run, or not finished.
    """
    if not is_run(folder):
        raise ZooError(f"{folder} is no run: it has no {CONFIG} that wszoo wrote")
    model = folder / MODEL
    if not (folder / SUMMARY).is_file() or not (model / "model.safetensors").is_file():
        raise ZooError(f"{folder} is not finished; run its command again")
    return model


def load_model(folder: Path) -> Any:
    """The best model of a finished run.

    Raises:
        ZooError: if it is no run, or not finished.
    """
    return load(model_folder(folder))


def card(config: Mapping[str, Any], summary: Mapping[str, Any], figures: list[str]) -> str:
    """The model card of a finished run, Markdown with the Hub's metadata."""
    rows = [
        ("task", f"{summary['task']} ({config['title']})"),
        ("networks it was trained on", f"{summary['networks']:,} of `{summary['zoo']}`"),
        ("updates", f"{summary['steps']:,} of {config['settings']['batch']} networks"),
        ("parameters", f"{summary['parameters']:,}"),
        ("learning rate", f"{config['settings']['lr']:g}"),
        ("seed", str(summary["seed"])),
        ("device, minutes", f"{summary['device']}, {summary['minutes']:.1f}"),
    ]
    for split in ("validation", "test"):
        found = ", ".join(f"{name} {value:.4g}" for name, value in summary[split].items())
        rows.append((split, found or "none"))
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    drawn = "\n\n".join(f"![{Path(name).stem}]({name})" for name in figures)
    return f"""---
library_name: wszoo
tags:
- weight-space
- {summary["task"]}
- {summary["model"]}
license: mit
---

# {summary["model"]} for {summary["task"]}

A network that reads networks: trained by wszoo on the zoo `{summary["zoo"]}`, whose index has
the sha256 `{config["zoo_sha256"][:16]}`. `model/` has the best weights on the validation split.

| | |
|---|---|
{table}

```python
import processors, zoo

model = processors.load("{_HERE}").eval()
weights, columns = zoo.open_zoo("{summary["zoo"]}", split="test").batch(range(8))
{"model.masks(weights)" if summary["task"] == "tickets" else "model(weights)"}
```

Made by `{config["command"]}`.

{drawn}
"""


@contextmanager
def published(folder: Path, repo_id: str) -> Iterator[Path]:
    """A folder laid out as the model repository `repo_id`, the run beside the model.

    `processors.load("user/name")` wants `config.json` and `model.safetensors` at the top,
    so the run's own configuration is called `run.json` there. Where the zoo and the run
    lie on this machine is left out.

    Raises:
        ZooError: if it is no run, or not finished.
    """
    model = model_folder(folder)
    config, summary = read_json(folder / CONFIG), read_json(folder / SUMMARY)
    names = _public_names(config)
    with tempfile.TemporaryDirectory(prefix="wszoo-") as name:
        staged = Path(name) / folder.resolve().name
        shutil.copytree(model, staged)
        write_json(staged / "run.json", _renamed(config, names))
        write_json(staged / SUMMARY, _renamed(summary, names))
        text = (folder / CARD).read_text(encoding="utf-8").replace(_HERE, repo_id)
        for old, new in names.items():
            for left, right in ("``", '""'):
                text = text.replace(f"{left}{old}{right}", f"{left}{new}{right}")
        write_text(staged / CARD, text.replace(f"`{MODEL}/`", "`model.safetensors`"))
        for part in (METRICS, FIGURES):
            if (folder / part).is_file():
                shutil.copy(folder / part, staged / part)
            elif (folder / part).is_dir():
                shutil.copytree(folder / part, staged / part)
        yield staged


def _public_names(config: Mapping[str, Any]) -> dict[str, str]:
    """What stands in a run's files and tells of the machine, and what to say instead."""
    given, source, command = config["zoo"], config["source"], config["command"]
    names = {}
    if Path(given).exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", given):
        names[given] = Path(given).resolve().name
    kind, colon, place = source.partition(":")
    if colon:
        names[source] = f"{kind}:{Path(place).name}"
    words = shlex.split(command)
    short = [
        names.get(word, Path(word).name if Path(word).is_absolute() else word) for word in words
    ]
    names[command] = shlex.join(short)
    return names


def _renamed(plain: Any, names: Mapping[str, str]) -> Any:
    """JSON with some strings exchanged."""
    if isinstance(plain, str):
        return names.get(plain, plain)
    if isinstance(plain, list):
        return [_renamed(part, names) for part in plain]
    if isinstance(plain, dict):
        return {key: _renamed(part, names) for key, part in plain.items()}
    return plain
