"""Measures the model of a finished run on a split of a zoo, of the same networks."""

import os
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import zoo as zoos
from processors import runs, tasks
from processors.config import parse_limit, zoo_sha256
from processors.files import read_json, write_records
from zoo import machine

DEVICES = ("auto", "cpu", "cuda", "mps")


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
    keep: str | Path | None = None,
) -> dict[str, float]:
    """The metrics of a finished run's model on a split of a zoo, of the same networks.

    Args:
        options: of the task, over those of the run.
        keep: a JSON file for what a report needs, which then has a row of its own.

    Raises:
        ValueError: if the zoo's networks are of another architecture than the model's, or
            what is to be kept is not of the test split of the run's zoo.
        ZooError: if the run is not finished.
    """
    folder, where = Path(run), find_device(device)
    limits = parse_limit(split_limit)
    machine.limit_torch()
    best = runs.model_folder(folder)
    config = read_json(folder / runs.CONFIG)
    runs.check_config(config, folder)
    if keep is not None and split != "test":
        raise ValueError(f"reports show the test split; {split!r} cannot be kept for them")
    kind = tasks.known(config["task"])
    data = {split: kind.rows(zoos.open_zoo(str(zoo), split), where, limits.get(split))}
    if kind.probes and split != "train":
        data["train"] = kind.rows(zoos.open_zoo(str(zoo), "train"), where, limits.get("train"))
    changed = {**config["task_options"], **(options or {})}
    task = tasks.make(config["task"], data, changed, config["model"])
    if keep is not None and zoo_sha256(data[split].zoo) != config["zoo_sha256"]:
        raise ValueError(f"reports show a run on its own zoo, {config['zoo_name']}; not on {zoo}")
    model = task.restore(best).to(where).eval()
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
        summary = {**read_json(folder / runs.SUMMARY), split: metrics}
        write_records(Path(keep), [{"config": kept, "summary": summary}])
    return metrics
