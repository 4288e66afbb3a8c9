"""How long an experiment of `reproduce` takes on this machine, before it is begun.

    expected("sine-ssl", "paper", told=print)

A few of its networks are fitted, every model does a few updates on them at its own batch, and
what both take is multiplied by how many there will be. So it is an estimate: validations, which
take a few hundredths of a run, are left out, and patience may end a run before its time.
"""

import contextlib
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import zoo as zoos
from processors import train
from processors.config import Request
from processors.models import preparation
from processors.progress import Progress
from processors.reproduce import Changes, Experiment, Variant, asked, known, plan
from processors.settings import steps_per_epoch
from zoo import machine
from zoo.making.plan import Settings, plan_zoo

# Networks that are fitted where each is cheap; of runs as many as the quick scale has.
_NETWORKS = 60
# Updates are timed for so long, after the first, and at most so many.
_SECONDS, _UPDATES = 1.0, 20
# Part of a run that each rate of a grid is tried for.
_TRIAL = 0.1

Clock = Callable[[], float]


@dataclass(frozen=True)
class Expected:
    """What a part of an experiment will take.

    Attributes:
        what: the zoo, or a row of the experiment.
        amount: how much of it there is, in words.
        seconds: that it takes.
    """

    what: str
    amount: str
    seconds: float


class _Enough(Exception):
    """The updates that are timed are done."""


def clock_of(device: str) -> Clock:
    """Processor time where one thread computes, as other work is not in it; else the clock."""
    return time.process_time if device == "cpu" and machine.threads() == 1 else time.perf_counter


def expected(
    name: str,
    scale: str,
    changes: Changes | None = None,
    told: Callable[[Expected], None] | None = None,
) -> list[Expected]:
    """What each part of an experiment takes here, the zoo first, then its rows.

    Args:
        scale: see `reproduce.plan`.
        told: called with each part as it is known.

    Raises:
        ValueError: for whatever `reproduce.plan` refuses.
        ZooError: if the source is missing.
    """
    experiment, changes = known(name), changes or Changes()
    plan(name, scale, "reproduced", changes)
    found: list[Expected] = []

    def tell(part: Expected) -> None:
        found.append(part)
        if told is not None:
            told(part)

    with tempfile.TemporaryDirectory(prefix="wszoo-minutes-") as folder:
        zoo = Path(folder) / "zoo"
        part, networks = _of_zoo(experiment, scale, zoo, changes)
        tell(part)
        seeds = changes.seeds_of(experiment, scale)
        for number, variant in enumerate(changes.variants_of(experiment)):
            request = asked(experiment, variant, scale, seeds[0], zoo, changes.settings)
            run = Path(folder) / f"run-{number}"
            tell(_of_row(variant, request, networks, len(seeds), run, changes))
    return found


def _of_zoo(
    experiment: Experiment, scale: str, out: Path, changes: Changes
) -> tuple[Expected, dict[str, int]]:
    """What the zoo takes, and how many networks its splits will have; leaves a small one."""
    recipe = experiment.made_by(scale)
    count = changes.count_of(experiment, scale)
    device = changes.device if changes.device.startswith("cuda") else "cpu"
    root = changes.data_root
    whole = plan_zoo(
        recipe, experiment.source, "whole", Settings(limit=count, device=device), data_root=root
    )
    networks: dict[str, int] = {}
    for (split, _), units in whole.sizes.items():
        networks[split] = networks.get(split, 0) + units * whole.unit_rows
    few = experiment.limit if whole.unit_rows > 1 else min(experiment.limit, _NETWORKS)
    clock = clock_of(device)

    def make(made_by: Any, at: Path) -> float:
        begun = clock()
        zoos.build(
            made_by, experiment.source, at, limit=few, device=device, parquet=False,
            data_root=root,
        )  # fmt: skip
        return clock() - begun

    # What is loaded and compiled at the first fit is no part of it.
    if hasattr(recipe, "steps"):
        hurried: Any = replace(recipe, steps=1)  # type: ignore[arg-type]
        make(hurried, out.with_name("hurried"))
    seconds = make(recipe, out) * whole.units / min(few, whole.units)
    return Expected("the zoo", f"{sum(networks.values()):,} networks", seconds), networks


def _of_row(
    variant: Variant,
    request: Request,
    networks: Mapping[str, int],
    seeds: int,
    run: Path,
    changes: Changes,
) -> Expected:
    """What a row's trainings take, all seeds and rates."""
    assert request.preset is not None
    device = train.find_device(changes.device)
    task = train.open_task(request, device, changes.data_root)
    # As the preset has it for so many networks, not for the few that are tried here.
    usual = task.chosen(request.model, request.preset, networks["train"])
    settings = request.settled(usual.settings)
    sizes = {**task.fitting_sizes(request.model, usual.sizes), **request.sizes}
    request = replace(request, sizes=sizes)
    few = {split: len(rows) for split, rows in task.data.items()}
    prepared, update = _timed(request, run, clock_of(device.type), changes)
    # As large as batches are of the few networks, and as they will be.
    tried = few["train"] / steps_per_epoch(few["train"], settings.batch)
    per_epoch = steps_per_epoch(networks["train"], settings.batch)
    batch = networks["train"] / per_epoch
    updates = settings.total(per_epoch)
    training = update / tried * batch * updates
    before = prepared / sum(few.values()) * sum(networks.values())
    words = f"{updates:,} updates of {round(batch):,}"
    words += f", {seeds} seeds" if seeds > 1 else ""
    words += f", {len(request.lr_grid)} rates tried" if request.lr_grid else ""
    trials = training * _TRIAL * len(request.lr_grid)
    return Expected(variant.name, words, (training + before) * seeds + trials)


def _timed(request: Request, run: Path, clock: Clock, changes: Changes) -> tuple[float, float]:
    """Seconds of what a model does before it is trained, of all networks, and of an update."""
    ends: list[float] = []

    def note(state: Progress) -> None:
        if state.unit != "step" or (ends and state.step <= len(ends)):
            return
        ends.append(clock())
        if len(ends) > 1 and (ends[-1] - ends[0] > _SECONDS or len(ends) == _UPDATES):
            raise _Enough

    settings = {k: v for k, v in request.settings.items() if k not in ("epochs", "steps")}
    begun = clock()
    with contextlib.suppress(_Enough):
        train.fit_model(
            request.task, request.model, request.zoo, run,
            settings={**settings, "steps": _UPDATES, "evaluations": 1},
            options=request.options, sizes=request.sizes, seed=request.seed,
            device=changes.device, data_root=changes.data_root, progress=note,
            preset=request.preset,
        )  # fmt: skip
    update = (ends[-1] - ends[0]) / (len(ends) - 1)
    has = preparation(request.model) is not None
    return max(0.0, ends[0] - begun - update) if has else 0.0, update
