"""Measures the model of a finished run on a split of a zoo, of the same networks."""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

import zoo as zoos
from processors import own, runs, tasks
from processors.config import parse_limit
from processors.files import write_records
from processors.options import LATER, symmetries
from processors.settings import DEVICES
from processors.tasks import Task
from zoo import identity, machine, symmetry

# Of the symmetries that networks are disturbed by.
_SEED = 0


def find_device(device: str) -> torch.device:
    """Where the networks are held.

    Raises:
        ValueError: for an unknown device, or one that is not there.
    """
    if device not in DEVICES:
        raise ValueError(f"unknown device {device!r}; known: {', '.join(DEVICES)}")
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if (device == "cuda" and not cuda) or (device == "mps" and not mps):
        raise ValueError(f"device {device!r} is not there: torch sees no GPU; use --device cpu")
    # What `accelerate launch --cpu` says to its processes.
    forced = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes", "on")
    if device == "cpu" or forced or not (cuda or mps):
        return torch.device("cpu")
    # Under accelerate launch every process has a GPU of its own.
    return (
        torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        if cuda
        else torch.device("mps")
    )


@dataclass(frozen=True)
class How:
    """How a run is measured.

    Attributes:
        split_limit: networks at most, the first; see `parse_limit`.
        options: of the task, over those of the run.
        device: auto, cpu, cuda or mps.
        data_root: folder of the sources, for tasks that need the pictures themselves.
        trust: whether parts of users' own that the run names may be imported, which runs their
            code; or those parts themselves, of which nothing is imported.
        randomise: kinds of symmetry, after which the metric is measured again.

    Raises:
        ValueError: for a limit that cannot be read, a device that is not there, or an unknown
            symmetry.
    """

    split_limit: str | None = None
    options: Mapping[str, Any] | None = None
    device: str = "auto"
    data_root: str | Path | None = None
    trust: bool | Sequence[Any] = False
    randomise: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.randomise:
            symmetries(",".join(self.randomise))
        parse_limit(self.split_limit)
        find_device(self.device)

    @property
    def words(self) -> list[str]:
        """The options of the command line that say what is measured."""
        words = ["--split-limit", self.split_limit] if self.split_limit else []
        for name, value in (self.options or {}).items():
            words += ["--option", f"{name}={value}"]
        words += ["--randomise", ",".join(self.randomise)] if self.randomise else []
        return words


def evaluate(
    run: str | Path,
    zoo: str | Path,
    split: str = "test",
    *,
    keep: str | Path | None = None,
    **how: Any,
) -> dict[str, float]:
    """The metrics of a finished run's model on a split of a zoo, of the same networks.

    Args:
        keep: a JSON file for what a report needs, which then has a row of its own.
        how: `split_limit`, networks at most, the first; `options` of the task, over those of
            the run; `device`, auto, cpu, cuda or mps; `data_root`, folder of the sources, for
            tasks that need the pictures themselves; `trust`, whether parts of your own that the
            run names may be imported, which runs their code, or a list of those parts;
            `randomise`, kinds of symmetry (permutation, sign, scale, phase): the metric is
            measured again after a random one of each network, as "accuracy after sign".

    Raises:
        ValueError: if the zoo's networks are of another architecture than the model's, what
            is to be kept is not of the test split of the run's zoo, or the run is of parts
            that were neither given nor are trusted, or a symmetry changes what the networks
            compute.
        ZooError: if the run is not finished, or damaged.
    """
    if unknown := sorted(how.keys() - {field.name for field in fields(How)}):
        known = ", ".join(field.name for field in fields(How))
        raise TypeError(f"evaluate takes no {unknown[0]!r}; it takes keep, {known}")
    told = How(**how)
    folder = Path(run)
    if keep is not None and split != "test":
        raise ValueError(f"reports show the test split; {split!r} cannot be kept for them")
    if keep is not None and (not str(keep) or Path(keep).is_dir()):
        raise ValueError(f"keep must name a file, got {str(keep)!r}")
    machine.limit_torch()
    found = runs.finished(folder)
    found.verify()
    _have_found(found.config, told.trust)
    task = _task(found.config, str(zoo), split, told)
    rows = task.data[split]
    if keep is not None and found.config["zoo_sha256"] not in identity.hashes(rows.zoo.folder):
        raise ValueError(
            f"reports show a run on its own zoo, {found.config['zoo_name']}; {zoo} holds others"
        )
    model = task.restore(found.model).to(find_device(told.device)).eval()
    metrics = task.evaluate(model, split)
    for name, kinds in _disturbances(task, told.randomise).items():
        again = _task(found.config, str(zoo), split, told)
        rows = again.data[split]
        draw = torch.Generator().manual_seed(_SEED)
        rows.permute(symmetry.sample(rows.zoo.spec, len(rows), kinds, draw))
        metrics[f"{task.metric} after {name}"] = again.evaluate(model, split)[task.metric]
    if keep is not None:
        words = ["wszoo", "eval", str(run), str(zoo), *told.words, "--keep", str(keep)]
        kept = {
            **found.config,
            "networks": {**found.config["networks"], split: len(rows)},
            "options": {**found.config["options"], **(told.options or {})},
            "task_options": asdict(task.options),
            "command": shlex.join(words),
        }
        summary = {k: v for k, v in found.summary.items() if k != "files"}
        write_records(Path(keep), [{"config": kept, "summary": {**summary, split: metrics}}])
    return metrics


def _disturbances(task: Task, kinds: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Symmetries by what they are called: each of these, and all of them together.

    Raises:
        ValueError: for one that changes what the networks compute.
    """
    kept = symmetry.kept_by(task.spec)
    if changing := [kind for kind in kinds if kind not in kept]:
        raise ValueError(
            f"a {changing[0]} of a neuron changes what these networks compute; leave it out of "
            f"--randomise, which may be of {', '.join(kept)}"
        )
    alone: dict[str, tuple[str, ...]] = {kind: (kind,) for kind in kinds}
    return alone | {"all": tuple(kinds)} if len(kinds) > 1 else alone


def _task(config: Mapping[str, Any], zoo: str, split: str, how: How) -> Task:
    """The task of a run on a split of a zoo, and on the training split where it needs that."""
    kind, where = tasks.known(config["task"]), find_device(how.device)
    limits = parse_limit(how.split_limit)
    before = {name: value for name, value in LATER.items() if hasattr(kind.takes, name)}
    options = {**before, **config["task_options"], **(how.options or {})}
    tasks.options_of(config["task"], options)
    splits = {split, "train"} if kind.probes else {split}
    data = {s: kind.rows(zoos.open_zoo(zoo, s), where, limits.get(s)) for s in splits}
    for rows in data.values():
        rows.data_root = how.data_root
    return tasks.make(config["task"], data, options, config["model"])


def _have_found(config: Mapping[str, Any], trust: bool | Sequence[Any]) -> None:
    """Have the parts of one's own that a run names found, by their import paths."""
    if not isinstance(trust, bool):
        for part in trust:
            own.give(part)
    elif trust:
        for path in own_paths(config):
            own.allow(path)


def own_paths(config: Mapping[str, Any]) -> list[str]:
    """The import paths of parts of one's own that a run was trained with."""
    named = str(config["task_options"].get("augment", "none")).split(",")
    return [name for name in (config["task"], config["model"], *named) if own.is_own(name)]
