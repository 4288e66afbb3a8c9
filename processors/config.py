"""What a run depends on: as it is asked for, stored, compared and typed again."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from processors.options import LATER, OPTIONS, Options
from processors.own import find, is_own
from processors.presets import PRESETS, Chosen
from processors.settings import SEEDS, Settings, steps_per_epoch
from zoo.fields import about, defaults_of, types_of
from zoo.making.plan import versions_of

SPLITS = ("train", "validation", "test")
_NUMBER = re.compile(r"[0-9]{1,15}")
_PACKAGES = ("wszoo", "torch", "accelerate", "numpy")
# What a run may go on with otherwise: where the zoo lies, as its hash says that it is the same.
_FREE = ("command", "versions", "device", "zoo", "options", "sizes", "asked")


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
    wrong = (
        f"split_limit: expected a number of at least 1, or splits such as train=100,test=50, "
        f"got {text!r}"
    )
    if "=" not in text:
        pairs = [(split, text) for split in SPLITS]
    else:
        pairs = [tuple(part.split("=")) for part in text.split(",")]  # type: ignore[misc]
    if any(len(pair) != 2 or not _NUMBER.fullmatch(pair[1].strip()) for pair in pairs):
        raise ValueError(wrong)
    found = {name.strip(): int(number) for name, number in pairs}
    if set(found) - set(SPLITS) or min(found.values()) < 1:
        raise ValueError(wrong)
    if len(found) < len(pairs):
        raise ValueError(f"split_limit: the same split stands twice in {text!r}")
    return found


def _check_given(kind: type, given: Mapping[str, Any], unknown: str) -> None:
    """ValueError for a field that a dataclass has not, or a value that it cannot have."""
    known, kinds = about(kind), types_of(kind)
    for name, value in given.items():
        if name not in known:
            raise ValueError(unknown.format(name, ", ".join(known)))
        hint, optional = kinds[name]
        if value is None and optional:
            continue
        if problem := known[name].problem(value, hint):
            raise ValueError(f"{name} {problem}")


@dataclass(frozen=True)
class Request:
    """What is asked of a training; the rest is a preset's and the zoo's.

    Attributes:
        task, model: names in `tasks.TASKS` and `models.MODELS`.
        zoo: a folder, or a repository on the Hub.
        settings: changes of what the preset does, see `Settings`.
        options: of the task, see its `Options`.
        sizes: arguments of the model's class.
        split_limit: see `parse_limit`.
        lr_grid: learning rates that are tried first.
        preset: of `presets.PRESETS`; None for what the number of networks asks for.

    Raises:
        ValueError: for whatever can be known to be wrong without the zoo.
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
    preset: str | None = None

    def __post_init__(self) -> None:
        if not self.zoo:
            raise ValueError("zoo must name a folder, or a repository user/name")
        if type(self.seed) is not int or not 0 <= self.seed < SEEDS:
            raise ValueError(f"seed must be from 0 to {SEEDS - 1}, got {self.seed}")
        parse_limit(self.split_limit)
        if self.preset is not None and self.preset not in PRESETS:
            raise ValueError(f"unknown preset {self.preset!r}; known: {', '.join(PRESETS)}")
        if None not in (self.settings.get("epochs"), self.settings.get("steps")):
            raise ValueError("epochs and steps both say how long: expected either epochs or steps")
        _check_given(Settings, self.settings, "unknown setting {!r}; known: {}")
        if self.task in OPTIONS:
            words = f"task {self.task!r} has no option {{!r}}; known: {{}}"
            _check_given(OPTIONS[self.task], self.options, words)
        for lr in self.lr_grid:
            _check_given(Settings, {"lr": lr}, "")
        if len(set(self.lr_grid)) < len(self.lr_grid):
            raise ValueError("lr_grid has the same rate twice")

    @property
    def limits(self) -> dict[str, int]:
        """Networks at most of each split."""
        return parse_limit(self.split_limit)

    def default_out(self) -> Path:
        """Where the run lies if nothing else is asked for."""
        # Of parts of one's own, the name alone.
        task, model = (name.rpartition(":")[2] for name in (self.task, self.model))
        return Path("runs") / f"{task}-{model}-{Path(self.zoo).name}-{self.seed}"

    def settled(self, usual: Settings) -> Settings:
        """Usual settings with the changes that are asked for.

        Raises:
            ValueError: for an unknown setting, or a number out of its range.
        """
        given = dict(self.settings)
        if given.get("steps") is not None:
            given.setdefault("epochs", None)
        if given.get("epochs") is not None:
            given.setdefault("steps", None)
        return Settings(**{**asdict(usual), **given})

    def command(self, out: Path) -> str:
        """The command line that asks for it."""
        return shlex.join(["wszoo", *self.words(out)])

    def words(self, out: Path) -> list[str]:
        """The words of that command line after `wszoo`."""
        task = [self._command_of_own(), "--task", self.task] if is_own(self.task) else [self.task]
        words = ["train", task[0], self.zoo, *task[1:], "--model", self.model]
        words += ["--preset", self.preset] if self.preset else []
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
        return [*words, "--out", str(out)]

    def _command_of_own(self) -> str:
        """The command with the flags that one's own task takes."""
        takes = find(self.task).takes
        return next((name for name, kind in OPTIONS.items() if kind is takes), "classify")


@dataclass(frozen=True)
class RunConfig:
    """Everything that a run depends on; `config.json` of its folder.

    Attributes:
        request: what was asked for.
        zoo_name, zoo_sha256, recipe, source: from the zoo's index.
        networks: of each split that are used.
        settings, task_options, model_sizes: the request's over the preset's and the defaults,
            which may be others in another version.
        preset: what was not asked for is of; None in runs of before there were any.
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
    preset: str | None = None
    # Of the model, what runs of before there were presets took without saying so.
    unsaid: Mapping[str, Any] = field(default_factory=dict)

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
            "versions": versions_of(_PACKAGES),
            "command": self.command(),
        }
        if self.preset is not None:
            plain |= {"preset": self.preset, "asked": dict(asked.settings)}
        found: dict[str, Any] = json.loads(json.dumps(plain))
        return found

    def command(self) -> str:
        """The command line that makes this run."""
        return self.request.command(self.out)

    def differences(self, found: Mapping[str, Any]) -> list[str]:
        """What a stored configuration has otherwise, in words; where the zoo lies is free."""
        return [f"{name} is {was!r}, not {now!r}" for name, was, now in self._differ(found)]

    def _differ(self, found: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
        # A setting that is newer than the run was as its default is.
        settings = {**defaults_of(Settings), **found["settings"]}
        options = {**defaults_of(type(self.task_options)), **LATER, **found["task_options"]}
        options = {k: v for k, v in options.items() if k in asdict(self.task_options)}
        known = {**found, "settings": settings, "task_options": options}
        return list(_differ(known, self.to_json()))

    def extends(self, found: Mapping[str, Any]) -> bool:
        """Whether it is a stored run for more epochs or steps, which that can go on to."""
        return self._may_be_longer(found) and not self.why_not_longer(found)

    def _may_be_longer(self, found: Mapping[str, Any]) -> bool:
        lengths = {"settings.epochs", "settings.steps"}
        return {name for name, _, _ in self._differ(found)} <= lengths

    def why_not_longer(self, found: Mapping[str, Any]) -> str:
        """Why a run that differs in its length alone cannot go on to this one; or nothing."""
        if not self._may_be_longer(found):
            return ""
        stored = Settings(**{**defaults_of(Settings), **found["settings"]})
        was, now = (self._updates(each) for each in (stored, self.settings))
        if self.request.lr_grid:
            return "its learning rates were tried for a tenth of its length; "
        if stored.schedule != "constant":
            return f"its {stored.schedule} schedule depends on its length; "
        if now < was:
            return f"it can become longer than its {was:,} updates, not shorter; "
        return ""

    def _updates(self, settings: Settings) -> int:
        return settings.total(steps_per_epoch(self.networks["train"], settings.batch))


def _differ(was: Any, now: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(was, dict) and isinstance(now, dict):
        for key in sorted({*was, *now}):
            inner = f"{name}.{key}" if name else key
            if inner in _FREE:
                continue
            yield from _differ(was.get(key), now.get(key), inner)
    elif was != now:
        yield name, was, now


@dataclass(frozen=True)
class Stored:
    """What the configuration of a run that is there says of what was not asked for.

    Whatever is asked for neither now nor then stays as the run has it, though another version,
    or another number of networks, would choose otherwise.

    Attributes:
        preset: of the run; None where there was none yet.
        settings, sizes, options: that were not asked for then.
        asked: names of what was.
        zoo_sha256: what the run calls its zoo.
    """

    preset: str | None
    settings: Mapping[str, Any]
    sizes: Mapping[str, Any]
    options: Mapping[str, Any]
    asked: frozenset[str]
    zoo_sha256: str

    def laid_over(self, usual: Chosen) -> Chosen:
        """A preset as it was when the run began."""
        settings = Settings(**{**asdict(usual.settings), **self.settings})
        sizes = {name: value for name, value in usual.sizes.items() if name in self.asked}
        options = {name: value for name, value in usual.options.items() if name in self.asked}
        return replace(
            usual, settings=settings, sizes={**sizes, **self.sizes},
            options={**options, **self.options},
        )  # fmt: skip


def stored(found: Mapping[str, Any]) -> Stored:
    """What a run's configuration, as it was checked, holds of its preset's or its paper's."""
    words = shlex.split(found["command"])
    flags = {word.removeprefix("--").partition("=")[0].replace("-", "_") for word in words}
    asked = frozenset(found["asked"] if "asked" in found else flags & set(found["settings"]))
    if asked & {"epochs", "steps"}:
        asked |= {"epochs", "steps"}
    settings = {**defaults_of(Settings), **found["settings"]}
    options = {**LATER, **found["task_options"]}
    return Stored(
        found.get("preset"),
        {name: value for name, value in settings.items() if name not in asked},
        {name: v for name, v in found["model_sizes"].items() if name not in found["sizes"]},
        {name: value for name, value in options.items() if name not in found["options"]},
        asked | set(found["sizes"]) | set(found["options"]),
        found["zoo_sha256"],
    )
