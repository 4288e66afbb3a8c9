"""What the files of a run may say: config.json, summary.json, metrics.jsonl.

One description of each, held against whatever is read; an error names file and field.
What wszoo wrote since the first version (324dc88) is taken.
"""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from processors.options import LATER, OPTIONS, Options
from processors.presets import PRESETS
from processors.settings import SEEDS, Settings
from zoo import ZooError, identity, schema
from zoo.fields import types_of
from zoo.schema import (
    SHA256,
    Also,
    Bool,
    Choice,
    Either,
    Int,
    Json,
    ListOf,
    MapOf,
    Maybe,
    Real,
    Record,
    Rule,
    Text,
)  # fmt: skip

CONFIG, METRICS, SUMMARY = "config.json", "metrics.jsonl", "summary.json"
CHECKPOINT, STATE = "checkpoint", "state.pt"
# In the folder of a zoo: what its pictures tell, see `processors.ceiling`.
CEILING = "ceiling.json"
# Trials of learning rates.
GRID = "grid"
_METRICS_BYTES = 256 << 20
_LINE = Text(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]*", "a text on one line", most=100_000)
_NUMBERS = MapOf(Real())
FILES = MapOf(Record({"bytes": Int(low=0), "sha256": SHA256}))


def _fields(kind: type, later: tuple[str, ...] = ()) -> Record:
    """The fields of a dataclass; those that came `later` than the first version may lack."""
    rules: dict[str, Rule] = {}
    for name, (hint, optional) in types_of(kind).items():
        plain: dict[type, Rule] = {int: Int(), float: Real(), bool: Bool(), str: _LINE}
        rules[name] = Maybe(plain[hint]) if optional else plain[hint]
    required = {name: rule for name, rule in rules.items() if name not in later}
    return Record(required, {name: rules[name] for name in later})


def _no_command(text: str) -> str | None:
    try:
        shlex.split(text)
    except ValueError as error:
        return f"is no command ({error})"
    return None


_CONFIG = Record(
    {
        "task": schema.NAME,
        "model": schema.NAME,
        "zoo": _LINE,
        "zoo_name": _LINE,
        "zoo_sha256": SHA256,
        "recipe": MapOf(Json()),
        "source": _LINE,
        "networks": MapOf(Int(low=0)),
        "settings": _fields(Settings),
        "options": MapOf(Json()),
        "sizes": MapOf(Json()),
        "task_options": MapOf(Json()),
        "model_sizes": MapOf(Json()),
        "seed": Int(low=0, high=SEEDS - 1),
        "split_limit": MapOf(Int(low=1)),
        "lr_grid": ListOf(Real(above=0)),
        "versions": MapOf(_LINE),
        "command": Also(_LINE, _no_command),
    },
    # Of runs since there are presets.
    {"preset": Choice(*PRESETS), "asked": MapOf(Json())},
    others=Json(),
)


def _wrong_summary(found: Mapping[str, Any]) -> str | None:
    for split in ("validation", "test"):
        if found["metric"] not in found[split]:
            return f"{split} has no {schema.shown(found['metric'])}, which `metric` names"
    if found["best_step"] > found["steps"]:
        return f"best_step is {found['best_step']:,} of {found['steps']:,} steps"
    return None


_SUMMARY = Also(
    Record(
        {
            "task": schema.NAME,
            "model": schema.NAME,
            "zoo": _LINE,
            "epochs": Real(low=0),
            "networks": Int(low=1),
            "seed": Int(low=0, high=SEEDS - 1),
            "device": _LINE,
            "devices": Int(low=1),
            "validation": _NUMBERS,
            "test": _NUMBERS,
            "metric": _LINE,
            "higher": Bool(),
            "recipe": _LINE,
            "source": _LINE,
            "steps": Int(low=0),
            "best_step": Int(low=0),
            "batch": Int(low=1),
            "lr": Real(above=0),
            "lr_grid": MapOf(Maybe(Real())),
            "parameters": Int(low=0),
            "minutes": Real(low=0),
        },
        # Sizes and hashes of the models, which the first version did not keep.
        {"files": FILES},
        others=Json(),
    ),
    _wrong_summary,
)
_METRIC = Either(
    Record(
        {
            "step": Int(low=1),
            "epoch": Real(low=0),
            "loss": Real(),
            "lr": Real(low=0),
            "seconds": Real(low=0),
        }
    ),
    Record({"step": Int(low=1), "validation": _NUMBERS}),
)
_TRIAL = Record({"best": Maybe(Real())})


def check_config(plain: Any, name: str) -> dict[str, Any]:
    """A run's configuration, held against what it may say.

    Raises:
        ZooError: naming the field that is wrong; or that a wszoo wrote it that recorded less.
    """
    if isinstance(plain, dict):
        lacking = [field for field in ("task_options", "model_sizes") if field not in plain]
        if lacking:
            raise ZooError(
                f"{name} is of a run of an older wszoo, without {', '.join(lacking)}; train it "
                "again"
            )
    schema.check(plain, _CONFIG, name)
    try:
        Settings(**plain["settings"])
    except ValueError as error:
        raise ZooError(f"{name}: settings.{error}") from error
    kind = OPTIONS.get(plain["task"])
    if kind is not None:
        schema.check({"task_options": plain["task_options"]}, _options(kind), name)
        try:
            kind(**plain["task_options"])
        except ValueError as error:
            raise ZooError(f"{name}: task_options.{error}") from error
    found: dict[str, Any] = plain
    return found


def _options(kind: type[Options]) -> Record:
    later = tuple(name for name in types_of(kind) if name in LATER)
    return Record({"task_options": _fields(kind, later)})


def check_summary(plain: Any, config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A run's summary, held against what it may say and against the run's configuration.

    Raises:
        ZooError: naming the field that is wrong.
    """
    schema.check(plain, _SUMMARY, name)
    expected = {
        "task": config["task"],
        "model": config["model"],
        "seed": config["seed"],
        "source": config["source"],
        "recipe": config["recipe"].get("name"),
        "networks": config["networks"].get("train"),
        "batch": config["settings"]["batch"],
    }
    for field, value in expected.items():
        if plain[field] != value:
            raise ZooError(
                f"{name}: {field}: {CONFIG} says {schema.shown(value)}, got "
                f"{schema.shown(plain[field])}"
            )
    rates = config["lr_grid"] or [config["settings"]["lr"]]
    if plain["lr"] not in rates:
        raise ZooError(
            f"{name}: lr: {CONFIG} says {' or '.join(map(schema.shown, rates))}, got "
            f"{schema.shown(plain['lr'])}"
        )
    found: dict[str, Any] = plain
    return found


def same_zoo(zoo: str | Path, one: str, other: str) -> bool:
    """Whether two hashes that were recorded are of one zoo, such as lies in a folder."""
    return one == other or {one, other} <= {*identity.hashes(Path(zoo))}


def check_plain(folder: Path, *names: str) -> None:
    """ZooError if a folder of the run is a link: what is written would change files elsewhere."""
    for name in names:
        if (folder / name).is_symlink():
            raise ZooError(
                f"{schema.safe(folder / name)} is a link; put the folder itself in its place, or "
                "the whole run elsewhere"
            )


def stamp(folder: Path) -> tuple[int, int] | None:
    """What changes when the run in a folder is begun, or begun anew; None if there is none."""
    try:
        found = (folder / CONFIG).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def how_to_go_on(
    folder: Path, before: tuple[int, int] | None = None, overwrite: bool = False
) -> str:
    """What a stopped training leaves, in a line that begins with what is to be done.

    Args:
        before: the `stamp` when the command began.
        overwrite: whether it was to take the place of what lay there.
    """
    same = "the same command"
    if overwrite:
        if stamp(folder) in (None, before):
            return f"{same} begins again; nothing was begun in {folder} yet"
        same += " without --overwrite"
    if (folder / SUMMARY).is_file():
        return f"the run in {folder} is finished"
    if (folder / CHECKPOINT / STATE).exists():
        return f"{same} goes on from the last checkpoint in {folder}"
    if any((folder / CHECKPOINT).glob("*")) or any((folder / GRID).glob("*/*")):
        return f"{same} goes on with what is kept in {folder}"
    return f"{same} begins again, as there is no checkpoint in {folder} yet"


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of the run in a folder.

    Raises:
        ZooError: if it is missing or damaged.
    """
    path = folder / CONFIG
    return check_config(schema.read_json(path), schema.safe(path))


def read_summary(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """The summary of the finished run in a folder.

    Raises:
        ZooError: if it is missing or damaged.
    """
    path = folder / SUMMARY
    return check_summary(schema.read_json(path), config, schema.safe(path))


def read_trial(path: Path) -> float | None:
    """What a trial of a learning rate came to; None if it diverged.

    Raises:
        ZooError: if the file is missing or damaged.
    """
    plain = schema.read_json(path)
    schema.check(plain, _TRIAL, schema.safe(path))
    best: float | None = plain["best"]
    return best


def read_metrics(folder: Path) -> tuple[list[dict[str, Any]], str | None]:
    """The records of a run so far, and what is wrong with the first line that is none.

    A last line that a kill cut short is left out without a word; others that are damaged
    are left out too, and the first is told of.

    Raises:
        ZooError: if the file cannot be read at all.
    """
    path = folder / METRICS
    if not path.exists():
        return [], None
    lines = schema.read_plain(path, _METRICS_BYTES).split(b"\n")
    records: list[dict[str, Any]] = []
    wrong = None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name = f"{schema.safe(path)}, line {number}"
        try:
            plain = schema.parse(line, name)
            schema.check(plain, _METRIC, name)
        except ZooError as error:
            # Every whole line ends with a line break.
            if number < len(lines) or _is_json(line):
                wrong = wrong or str(error)
            continue
        records.append(plain)
    return records, wrong


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True
