"""Measures the model of a finished run on a split of a zoo, of the same networks."""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import zoo as zoos
from processors import own, runs, tasks
from processors.config import parse_limit
from processors.files import write_records
from processors.settings import DEVICES
from zoo import machine


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


def evaluate(
    run: str | Path,
    zoo: str | Path,
    split: str = "test",
    *,
    split_limit: str | None = None,
    options: Mapping[str, Any] | None = None,
    device: str = "auto",
    data_root: str | Path | None = None,
    keep: str | Path | None = None,
    own_parts: Sequence[Any] = (),
    trust: bool = False,
) -> dict[str, float]:
    """The metrics of a finished run's model on a split of a zoo, of the same networks.

    Args:
        options: of the task, over those of the run.
        data_root: folder of the sources, for tasks that need the pictures themselves.
        keep: a JSON file for what a report needs, which then has a row of its own.
        own_parts: classes and functions of your own that the run was trained with.
        trust: whether those that the run names may be imported, which runs their code.

    Raises:
        ValueError: if the zoo's networks are of another architecture than the model's, what
            is to be kept is not of the test split of the run's zoo, or the run is of parts
            that were neither given nor are trusted.
        ZooError: if the run is not finished, or damaged.
    """
    folder, where = Path(run), find_device(device)
    limits = parse_limit(split_limit)
    if keep is not None and split != "test":
        raise ValueError(f"reports show the test split; {split!r} cannot be kept for them")
    if keep is not None and (not str(keep) or Path(keep).is_dir()):
        raise ValueError(f"keep must name a file, got {str(keep)!r}")
    machine.limit_torch()
    found = runs.finished(folder)
    found.verify()
    _have_found(found.config, own_parts, trust)
    config = found.config
    kind = tasks.known(config["task"])
    told = {**config["task_options"], **(options or {})}
    tasks.options_of(config["task"], told)
    data = {split: kind.rows(zoos.open_zoo(str(zoo), split), where, limits.get(split))}
    if kind.probes and split != "train":
        data["train"] = kind.rows(zoos.open_zoo(str(zoo), "train"), where, limits.get("train"))
    for rows in data.values():
        rows.data_root = data_root
    task = tasks.make(config["task"], data, told, config["model"])
    if keep is not None and runs.zoo_sha256(data[split].zoo) != config["zoo_sha256"]:
        raise ValueError(f"reports show a run on its own zoo, {config['zoo_name']}; not on {zoo}")
    model = task.restore(found.model).to(where).eval()
    metrics = task.evaluate(model, split)
    if keep is not None:
        words = ["wszoo", "eval", str(run), str(zoo)]
        words += ["--split-limit", split_limit] if split_limit else []
        words += [
            w for name, value in (options or {}).items() for w in ("--option", f"{name}={value}")
        ]
        kept = {
            **config,
            "networks": {**config["networks"], split: len(data[split])},
            "options": {**config["options"], **(options or {})},
            "task_options": asdict(task.options),
            "command": shlex.join([*words, "--keep", str(keep)]),
        }
        summary = {k: v for k, v in found.summary.items() if k != "files"}
        write_records(Path(keep), [{"config": kept, "summary": {**summary, split: metrics}}])
    return metrics


def _have_found(config: Mapping[str, Any], parts: Sequence[Any], trust: bool) -> None:
    """Have the parts of one's own that a run names found, by their import paths."""
    for part in parts:
        own.give(part)
    if trust:
        for path in own_paths(config):
            own.allow(path)


def own_paths(config: Mapping[str, Any]) -> list[str]:
    """The import paths of parts of one's own that a run was trained with."""
    named = str(config["task_options"].get("augment", "none")).split(",")
    return [name for name in (config["task"], config["model"], *named) if own.is_own(name)]
