"""What a run depends on: as it is asked for, stored, compared and typed again."""

import hashlib
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from processors.options import Options
from processors.settings import SEEDS, Settings
from zoo import Zoo

SPLITS = ("train", "validation", "test")
_PACKAGES = ("wszoo", "torch", "accelerate", "numpy")
# What a run may go on with otherwise: where the zoo lies, as its hash says that it is the same.
_FREE = ("command", "versions", "device", "zoo", "options", "sizes")


def parse_limit(text: str | None) -> dict[str, int]:
    """Networks at most of each split.

    >>> parse_limit("100")
    {'train': 100, 'validation': 100, 'test': 100}
    >>> parse_limit("train=50,test=10")
    {'train': 50, 'test': 10}

    Raises:
        ValueError: for anything else.
    """
    if text is None:
        return {}
    wrong = f"expected a number, or splits such as train=100,test=50, got {text!r}"
    try:
        if "=" not in text:
            found = dict.fromkeys(SPLITS, int(text))
        else:
            pairs = (part.split("=") for part in text.split(","))
            found = {name.strip(): int(number) for name, number in pairs}
    except ValueError:
        raise ValueError(wrong) from None
    if set(found) - set(SPLITS) or min(found.values()) < 1:
        raise ValueError(wrong)
    return found


def zoo_sha256(zoo: Zoo) -> str:
    """The hash of a zoo's index, which has the hash of every file."""
    return hashlib.sha256((zoo.folder / "zoo.json").read_bytes()).hexdigest()


@dataclass(frozen=True)
class Request:
    """What is asked of a training; the rest is the papers' and the zoo's.

    Attributes:
        task, model: names in `tasks.TASKS` and `models.MODELS`.
        zoo: a folder, or a repository on the Hub.
        settings: changes of what the papers do, see `Settings`.
        options: of the task, see its `Options`.
        sizes: arguments of the model's class.
        split_limit: see `parse_limit`.
        lr_grid: learning rates that are tried first.

    Raises:
        ValueError: for a seed or limit that cannot be.
    """

    task: str
    model: str
    zoo: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    sizes: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    split_limit: str | None = None
    lr_grid: Sequence[float] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.seed < SEEDS:
            raise ValueError(f"seed must be from 0 to {SEEDS - 1}, got {self.seed}")
        parse_limit(self.split_limit)

    @property
    def limits(self) -> dict[str, int]:
        """Networks at most of each split."""
        return parse_limit(self.split_limit)

    def settled(self, papers: Settings) -> Settings:
        """The papers' settings with the changes that are asked for.

        Raises:
            ValueError: for an unknown setting, or a number out of its range.
        """
        given = dict(self.settings)
        names = [each.name for each in fields(Settings)]
        if unknown := sorted(set(given) - set(names)):
            raise ValueError(f"unknown setting {unknown[0]!r}; known: {', '.join(names)}")
        if given.get("steps") is not None:
            given.setdefault("epochs", None)
        if given.get("epochs") is not None:
            given.setdefault("steps", None)
        return Settings(**{**asdict(papers), **given})

    def command(self, out: Path) -> str:
        """The command line that asks for it."""
        words = ["wszoo", "train", self.task, self.zoo, "--model", self.model]
        for name, value in {**self.settings, **self.options}.items():
            if value is None or value is False:
                continue
            words.append(f"--{name.replace('_', '-')}")
            words += [] if value is True else [f"{value}"]
        for name, value in self.sizes.items():
            plain = value if isinstance(value, str) else json.dumps(value).replace(" ", "")
            words += ["--set", f"{name}={plain}"]
        words += ["--seed", str(self.seed)] if self.seed else []
        words += ["--split-limit", self.split_limit] if self.split_limit else []
        rates = ",".join(f"{lr:g}" for lr in self.lr_grid)
        words += ["--lr-grid", rates] if rates else []
        return shlex.join([*words, "--out", str(out)])


@dataclass(frozen=True)
class RunConfig:
    """Everything that a run depends on; `config.json` of its folder.

    Attributes:
        request: what was asked for.
        zoo_name, zoo_sha256, recipe, source: from the zoo's index.
        networks: of each split that are used.
        settings, task_options, model_sizes: the request's over the papers' and the defaults,
            which may be others in another version.
        out: the run's folder.
    """

    request: Request
    zoo_name: str
    zoo_sha256: str
    recipe: Mapping[str, Any]
    source: str
    networks: Mapping[str, int]
    settings: Settings
    task_options: Options
    model_sizes: Mapping[str, Any]
    out: Path

    def to_json(self) -> dict[str, Any]:
        """As it comes back from the file: plain data, tuples as lists."""
        asked = self.request
        plain = {
            "wszoo": "run",
            "task": asked.task,
            "model": asked.model,
            "zoo": asked.zoo,
            "zoo_name": self.zoo_name,
            "zoo_sha256": self.zoo_sha256,
            "recipe": self.recipe,
            "source": self.source,
            "networks": self.networks,
            "settings": asdict(self.settings),
            "options": dict(asked.options),
            "sizes": dict(asked.sizes),
            "task_options": asdict(self.task_options),
            "model_sizes": dict(self.model_sizes),
            "seed": asked.seed,
            "split_limit": asked.limits,
            # The grid is part of what the run depends on; its answer is not yet known.
            "lr_grid": list(asked.lr_grid),
            "versions": {name: version(name) for name in _PACKAGES},
            "command": self.command(),
        }
        found: dict[str, Any] = json.loads(json.dumps(plain))
        return found

    def command(self) -> str:
        """The command line that makes this run."""
        return self.request.command(self.out)

    def differences(self, found: Mapping[str, Any]) -> list[str]:
        """What a stored configuration has otherwise, in words; where the zoo lies is free."""
        return [
            f"{name} is {was!r}, not {now!r}" for name, was, now in _differ(found, self.to_json())
        ]


def _differ(was: Any, now: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(was, dict) and isinstance(now, dict):
        for key in sorted({*was, *now}):
            inner = f"{name}.{key}" if name else key
            if inner in _FREE:
                continue
            yield from _differ(was.get(key), now.get(key), inner)
    elif was != now:
        yield name, was, now
