"""The folder of a run: what was trained, how it went, what came out.

config.json      everything that the run depends on, the zoo's hash included
metrics.jsonl    one record a line: losses on the way, metrics of the validation split
summary.json     the result, once there is one
model/           the best weights on the validation split, for `processors.load`
last/            the weights after the last update, and what a longer run goes on from
checkpoint/      to go on from; gone once the run is finished
figures/  README.md
"""

import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processors import checkpoint, own, records, saving
from processors.cards import HERE, MARK, card, ceilings_of
from processors.config import RunConfig, Stored, stored
from processors.files import write_json, write_text
from processors.models import MODEL, load
from processors.records import CHECKPOINT, CONFIG, GRID, METRICS, STATE, SUMMARY
from zoo import Zoo, ZooError, identity, locks, schema
from zoo.files import PICTURE_BYTES

CARD, LAST, FIGURES = "README.md", "last", "figures"
# What --overwrite takes the place of, until the new run has begun.
_OLD = ".old"
_CARD_BYTES = 16 << 20


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run, finished or not."""
    try:
        plain = schema.read_json(folder / CONFIG)
    except (ZooError, OSError):
        return False
    return isinstance(plain, dict) and plain.get("wszoo") == "run"


def _damage(folder: Path) -> str:
    """What is wrong with a folder's configuration; nothing if it has none or can be read."""
    path = folder / CONFIG
    try:
        if path.exists():
            schema.read_json(path)
    except ZooError as error:
        return str(error)
    return ""


def _no_run(folder: Path) -> str:
    """Why a folder is no run, to follow its name."""
    damage = _damage(folder)
    if damage:
        return f"is no run that can be read: {damage}"
    return f"is no run: it has no {CONFIG} that wszoo wrote"


@dataclass(frozen=True)
class Finished:
    """A finished run whose files say what they may say.

    Attributes:
        config, summary: of the run, checked.
    """

    folder: Path
    config: dict[str, Any]
    summary: dict[str, Any]

    @property
    def model(self) -> Path:
        """Where its best model lies."""
        return self.folder / MODEL

    def verify(self) -> None:
        """Hold the model against what the run keeps of it, or read it where that is nothing.

        Raises:
            ZooError: if a file is missing, damaged, cut or has numbers that are not finite.
        """
        saving.check_hashes(self.folder)
        if "files" not in self.summary:
            self.read_model()

    def read_model(self) -> None:
        """Read all of the model; of a class of one's own the tensors alone.

        Raises:
            ZooError: if it is damaged.
        """
        name = saving.read_config(self.model).get("name", "")
        if own.is_own(name):
            saving.read_state(self.model / saving.WEIGHTS, None)
        else:
            load(self.model)


def finished(folder: Path) -> Finished:
    """The finished run in a folder.

    Raises:
        ZooError: if it is no run, not finished, or its files say what they cannot.
    """
    if not is_run(folder):
        raise ZooError(f"{folder} {_no_run(folder)}")
    if not (folder / SUMMARY).exists():
        raise ZooError(f"{folder} is not finished; run its command again")
    config = records.read_config(folder)
    found = Finished(folder, config, records.read_summary(folder, config))
    for name in (saving.CONFIG, saving.WEIGHTS):
        if not (found.model / name).exists():
            raise ZooError(f"{found.model / name} is missing")
    return found


def load_model(folder: Path) -> Any:
    """The best model of a finished run.

    Raises:
        ZooError: if it is no run, not finished, or damaged.
    """
    return load(finished(folder).folder)


def stored_in(folder: Path, task: str, model: str, zoo: Zoo) -> Stored | None:
    """What a run in a folder, of the same task and model on the same zoo, says of its preset."""
    for place in (folder, folder / _OLD):
        if not is_run(place):
            continue
        try:
            found = records.read_config(place)
        except ZooError:
            return None
        same = (found["task"], found["model"]) == (task, model)
        same = same and found["zoo_sha256"] in identity.hashes(zoo.folder)
        return stored(found) if same else None
    return None


# ---- entering a folder


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
        raise _foreign(folder)
    with locks.one_writer(folder, "trained"):
        yield


def _foreign(folder: Path) -> ValueError:
    damage = _damage(folder)
    why = f" ({damage})" if damage else ""
    return ValueError(f"{folder} holds something that is not a run{why}; choose another --out")


def _names(folder: Path) -> set[str]:
    """What lies in a folder, less what a start that was cut leaves behind."""
    found = locks.names(folder) if folder.is_dir() else set()
    return found - {_OLD, f".{CONFIG}.new", f".{CONFIG}.tmp"}


def begin(folder: Path, config: RunConfig, overwrite: bool) -> None:
    """Enter the folder of a run: a new one, one that is to go on, or one that gets longer.

    Raises:
        ValueError: if it holds something else, or a run of another configuration; names
            what differs.
        ZooError: if its configuration is damaged.
    """
    _put_back(folder)
    if overwrite and is_run(folder):
        _put_aside(folder)
    if not _names(folder):
        write_json(folder / CONFIG, config.to_json())
        _throw_away(folder / _OLD)
        return
    if not is_run(folder):
        raise _foreign(folder)
    found = records.read_config(folder)
    records.check_plain(folder, CHECKPOINT, MODEL, LAST, FIGURES, GRID)
    if not (changed := config.differences(found)):
        return
    if config.extends(found):
        extend(folder, config)
        return
    why = config.why_not_longer(found)
    raise ValueError(
        f"{folder} holds another run: {'; '.join(changed)}; {why}choose another --out, or "
        "--overwrite"
    )


def _put_aside(folder: Path) -> None:
    """Move a run out of the way; its configuration goes last, and says how far this is."""
    old = folder / _OLD
    old.mkdir(exist_ok=True)
    for path in sorted(folder.iterdir(), key=lambda path: path.name == CONFIG):
        if path.name != _OLD and not path.name.startswith(locks.LOCK_FILE):
            os.replace(path, old / path.name)


def _put_back(folder: Path) -> None:
    """Undo what a kill has cut: the old run stands until the new one has a configuration."""
    old = folder / _OLD
    if not old.is_dir():
        return
    if (old / CONFIG).exists() and (folder / CONFIG).exists():
        _throw_away(old)
        return
    for path in sorted(old.iterdir(), key=lambda path: path.name == CONFIG):
        os.replace(path, folder / path.name)
    old.rmdir()


def _throw_away(old: Path) -> None:
    """Delete what was put aside; its configuration last, as it says that the rest may go."""
    if not old.is_dir():
        return
    for path in sorted(old.iterdir(), key=lambda path: path.name == CONFIG):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    old.rmdir()


def extend(folder: Path, config: RunConfig) -> None:
    """Have a run go on for longer: what it ended with is what it goes on from.

    Raises:
        ZooError: if it is finished and kept nothing to go on from.
    """
    if (folder / SUMMARY).exists():
        finished(folder).verify()
        state = folder / LAST / STATE
        if not state.exists():
            raise ZooError(
                f"{folder} has no {LAST}/{STATE} to go on from: it was deleted, the run's patience "
                "ran out, or an older wszoo kept none; choose another --out, or --overwrite"
            )
        # Each step leaves a run that is finished, or one that goes on to the same end.
        (folder / CHECKPOINT).mkdir(exist_ok=True)
        best, last = folder / MODEL / saving.WEIGHTS, folder / LAST / saving.WEIGHTS
        checkpoint.restore(state, folder / CHECKPOINT / STATE, best, last)
        (folder / SUMMARY).unlink()
    write_json(folder / CONFIG, config.to_json())


@contextmanager
def published(folder: Path, repo_id: str) -> Iterator[Path]:
    """A folder laid out as the model repository `repo_id`, the run beside the model.

    `processors.load("user/name")` wants `config.json` and `model.safetensors` at the top,
    so the run's own configuration is called `run.json` there. Where the zoo and the run
    lie on this machine is left out, and so is whatever the run did not write. The run is
    verified before. The card is made anew, unless somebody has written another one.

    Raises:
        ZooError: if it is no run, not finished or damaged, or has links in place of files.
    """
    run = finished(folder)
    names = [f"{MODEL}/{saving.CONFIG}", f"{MODEL}/{saving.WEIGHTS}", CARD, METRICS]
    names += [f"{FIGURES}/{path.name}" for path in sorted((folder / FIGURES).glob("*.png"))]
    names = [name for name in names if name != METRICS or (folder / name).exists()]
    for name in (CONFIG, SUMMARY, *names):
        _check_plain(folder, name)
    pictures = [name for name in names if name.startswith(FIGURES)]
    for name, most in ((CARD, _CARD_BYTES), *((name, PICTURE_BYTES) for name in pictures)):
        if (size := (folder / name).stat().st_size) > most:
            raise ZooError(f"{folder / name} has {size:,} bytes; at most {most:,} are published")
    run.verify()
    run.read_model()
    _, wrong = records.read_metrics(folder)
    if wrong:
        raise ZooError(f"{wrong}; delete that line, or train the run again with --overwrite")
    replaced = _public_names(run.config)
    with tempfile.TemporaryDirectory(prefix="wszoo-") as name:
        staged = Path(name) / folder.resolve().name
        for part in names:
            target = staged / part.removeprefix(f"{MODEL}/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / part, target)
        config, summary = _renamed(run.config, replaced), _renamed(run.summary, replaced)
        write_json(staged / "run.json", config)
        write_json(staged / SUMMARY, _public_files(summary))
        text = _text_of(folder / CARD)
        if MARK in text:
            found = ceilings_of(run.config, run.summary)
            text = card(config, summary, pictures, repo_id, found)
        write_text(staged / CARD, _public_card(text, repo_id, replaced))
        yield staged


def _check_plain(folder: Path, name: str) -> None:
    """ZooError unless a file of the run is a plain one, reached through plain folders."""
    path = folder
    for part in Path(name).parts:
        path = path / part
        if path.is_symlink():
            raise ZooError(f"{path} is a link; only plain files are published: put the file there")
    schema.open_plain(path).close()


def _public_files(summary: Mapping[str, Any]) -> dict[str, Any]:
    """A summary with the names that its files have in the repository."""
    if "files" not in summary:
        return dict(summary)
    ours = f"{MODEL}/"
    files = {
        name.removeprefix(ours): about
        for name, about in summary["files"].items()
        if name.startswith(ours)
    }
    return {**summary, "files": files}


def _text_of(path: Path) -> str:
    try:
        return schema.read_plain(path, _CARD_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ZooError(f"{path} is damaged: it is no text ({error.reason})") from None


def _public_card(text: str, repo_id: str, names: Mapping[str, str]) -> str:
    """A card that says where the model lies, and nothing of this machine."""
    text = text.replace(HERE, repo_id)
    for old, new in names.items():
        for left, right in ("``", '""'):
            text = text.replace(f"{left}{old}{right}", f"{left}{new}{right}")
    return text.replace(f"`{MODEL}/`", "`model.safetensors`")


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
