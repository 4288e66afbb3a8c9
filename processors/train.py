"""The one training loop: every task and model, on whatever devices `accelerate` gives.

    train("classify", "dws", "zoos/mnist-inrs", "runs/dws-mnist", settings={"epochs": 10})

What a run computes depends on its configuration alone: the order of the networks on the
seed and the epoch, every random number on the seed and the update. So a run that was
killed goes on from its last checkpoint to the weights it would have had (to the byte on
a CPU with the same number of threads).
"""

import atexit
import contextlib
import json
import math
import shutil
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

import zoo as zoos
from processors import checkpoint, own, presets, records, runs, saving, tasks
from processors.config import SPLITS, Request, RunConfig, Stored
from processors.evaluation import evaluate, find_device
from processors.files import set_aside, write_bytes, write_json, write_text
from processors.models import name_of, preparation
from processors.options import augmentations
from processors.progress import Progress, Report, Workplace
from processors.rows import batch_rows, mixed, orders
from processors.settings import Settings, steps_per_epoch
from processors.tasks import Task, figures
from processors.tasks.task import Constant
from zoo import Weights, Zoo, ZooError, identity, machine

__all__ = ["Diverged", "Progress", "Report", "evaluate", "fit_model", "train"]
# Memory that a parameter takes: the value, its gradient and both moments.
_TRAINED_BYTES = 16
# Between checkpoints; one more is made at every validation.
CHECKPOINT_SECONDS = 60.0


class Diverged(ZooError):
    """A training whose numbers are no longer finite."""


def _accelerator(settings: Settings, device: str, log_with: str | None, out: Path) -> Any:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    # Another run of this process may have asked for another precision.
    AcceleratorState._reset_state(reset_partial_state=True)
    mixed = {"float32": "no", "bf16": "bf16"}[settings.precision]
    try:
        with warnings.catch_warnings():
            # That there is no such tracker is an error here.
            warnings.simplefilter("ignore", UserWarning)
            found = Accelerator(
                cpu=device == "cpu",
                mixed_precision=mixed,
                log_with=log_with,
                project_dir=str(out),
            )
    except (ImportError, ValueError) as error:
        what = f"log_with {log_with!r}: " if log_with is not None else ""
        raise ValueError(f"{what}accelerate cannot do this: {error}") from error
    if log_with and not found.log_with:
        raise ValueError(
            f"tracker {log_with!r} is not installed here; install its package, or leave --log-with "
            "out: metrics.jsonl has all of it"
        )
    if found.num_processes > 1:
        atexit.unregister(_leave)
        atexit.register(_leave)
    return found


def _leave() -> None:
    """Leave the group of processes, whose threads abort a process that just ends."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def fit_model(
    task: str | type[Task],
    model: str | Callable[..., nn.Module],
    zoo: str | Path,
    out: str | Path | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    sizes: Mapping[str, Any] | None = None,
    augment: Callable[[Weights], Weights] | None = None,
    seed: int = 0,
    split_limit: str | None = None,
    lr_grid: Sequence[float] = (),
    device: str = "auto",
    data_root: str | Path | None = None,
    log_with: str | None = None,
    overwrite: bool = False,
    progress: Report | None = None,
    tell: Callable[[str], None] | None = None,
    preset: str | None = None,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Train a model for a task on a zoo, or go on where a run was stopped.

    The same command with more epochs or steps goes on with a run that is there, finished or
    not, where its schedule is constant.

    Args:
        task, model: in `tasks.TASKS` and `models.MODELS`, or classes of your own; a model's
            is given those of spec, out and stats that it takes, and the sizes.
        zoo: a folder, or a repository on the Hub.
        out: folder of the run; `runs/TASK-MODEL-ZOO-SEED` by default.
        settings: changes of what the preset does, see `Settings`.
        options: of the task, see its `Options`.
        sizes: arguments of the model's class.
        augment: a function of your own, networks to networks, instead of the task's
            augmentations; with them where `options["augment"]` names it among others.
        split_limit: see `parse_limit`.
        lr_grid: learning rates that are tried for a tenth of the run each; the one with
            the best validation metric is taken.
        device: auto, cpu, cuda or mps.
        data_root: folder of the sources, for tasks that need the pictures themselves.
        log_with: a tracker of accelerate, such as tensorboard or wandb.
        overwrite: take the place of the run that is there, once this one has begun.
        tell: called with a line where something damaged was set aside; a warning by default.
        preset: what is done where nothing else is asked for: "paper", or "small", which learns
            from few networks in minutes; by default that for the number of training networks.
        say: called with lines on what is about to be done, and on what came out.

    Returns:
        What `summary.json` holds.

    Raises:
        ValueError: for misuse, and zoos or models that do not fit.
        ZooError: if the zoo is damaged, the loss is no longer finite, or the disk is full.
    """
    options = dict(options or {})
    if augment is not None:
        options.setdefault("augment", own.give(augment))
    request = Request(
        tasks.name_of(task), name_of(model), str(zoo), settings or {}, options, sizes or {}, seed,
        split_limit, tuple(lr_grid), preset,
    )  # fmt: skip
    folder = Path(out) if out is not None else request.default_out()
    if str(out) == "":
        raise ValueError("out must name the folder of the run, got ''")
    where = find_device(device)
    tasks.options_of(request.task, options)
    tasks.known(request.task).check_model(request.model, request.sizes)
    for name in augmentations(options.get("augment", "none")):
        if own.is_own(name):
            own.allow(name)
    machine.limit_torch()
    machine.keep_memory()
    made = open_task(request, where, data_root)
    rows = made.data["train"]
    was = None if overwrite else runs.stored_in(folder, request.task, request.model, rows.zoo)
    usual, why = _usual(request, made, was)
    made.settle(usual, request.options)
    stats = _plain_stats(request.model, made)
    config = _settled(request, made, usual, was, stats, folder)
    accelerator = _accelerator(config.settings, device, log_with, folder)
    _check_processes(config, accelerator.num_processes)
    speak = say or (lambda _: None)
    job = _Job(made, config, accelerator, log_with, progress, tell or _warn, stats, speak, why)
    return _in_folder(job, overwrite)


# The name that scripts of the first version know.
train = fit_model


def _warn(line: str) -> None:
    warnings.warn(line, RuntimeWarning, stacklevel=2)


def open_task(request: Request, device: torch.device, data_root: str | Path | None) -> Task:
    """The task on all splits of the zoo."""
    opened, kind = _open(request.zoo), tasks.known(request.task)
    data = {s: kind.rows(each, device, request.limits.get(s)) for s, each in opened.items()}
    for rows in data.values():
        rows.data_root = data_root
    return tasks.make(request.task, data, request.options)


def _usual(request: Request, task: Task, was: Stored | None) -> tuple[presets.Chosen, str]:
    """What is done where nothing else is asked for, and a line that says whose it is and why."""
    networks = len(task.data["train"])
    few = presets.default_preset(networks, request.task, request.model)
    if was is not None and _goes_on(request, was):
        usual = was.laid_over(task.chosen(request.model, was.preset or "paper"))
        return usual, f"preset {was.preset or 'none'}: that of the run that goes on"
    usual = task.chosen(request.model, request.preset or few)
    if request.preset is not None:
        return usual, f"preset {usual.preset}, as asked for"
    least = presets.least_networks(request.task, request.model)
    if few == "paper":
        small = task.chosen(request.model, "small").settings
        sooner = request.model not in presets.READERS and small != usual.settings
        more = "; --preset small learns in minutes" if sooner else ""
        return usual, f"preset paper: {networks:,} training networks, at least {least:,}{more}"
    why = "" if least is None else f": {networks:,} training networks, fewer than {least:,}"
    return usual, f"preset small{why}; --preset paper does what the model's paper does"


def _goes_on(request: Request, was: Stored) -> bool:
    """Whether what is not asked for stays as a run that is there has it."""
    return request.preset in (None, was.preset)


def _plain_stats(model: str, task: Task) -> Mapping[str, Any] | None:
    """The zoo's statistics; None where the model's `prepare` will give those it is built with."""
    if preparation(model) is not None:
        return None
    stats: Mapping[str, Any] = task.data["train"].zoo.stats()
    return stats


def _settled(
    request: Request,
    task: Task,
    usual: presets.Chosen,
    was: Stored | None,
    stats: Mapping[str, Any] | None,
    out: Path,
) -> RunConfig:
    """Everything that the run depends on.

    Raises:
        ValueError: for settings that cannot be, or a model that cannot be built.
    """
    per_epoch = steps_per_epoch(len(task.data["train"]), request.settled(usual.settings).batch)
    # What goes on has been fitted to its length when it began.
    stays = was is not None and _goes_on(request, was)
    given = frozenset(request.settings) | ({"warmup", "patience"} if stays else set())
    chosen = presets.fitted(usual.settings, request.settled(usual.settings), given, per_epoch)
    old = was is not None and was.preset is None and request.preset is None
    unsaid = task.unsaid(request.model) if old else {}
    model_sizes = {**task.fitting_sizes(request.model, usual.sizes), **request.sizes}
    for lr in request.lr_grid:
        _tenth(replace(chosen, lr=lr))
    _try_to_build(task, request.model, stats, {**unsaid, **model_sizes}, request.sizes)
    zoo = task.data["train"].zoo
    return RunConfig(
        request,
        zoo_name=zoo.index.name,
        zoo_sha256=was.zoo_sha256 if was else identity.hashes(zoo.folder)[0],
        recipe=zoo.index.recipe,
        source=zoo.index.source["name"],
        networks={split: len(rows) for split, rows in task.data.items()},
        settings=chosen,
        task_options=task.options,
        model_sizes=model_sizes,
        out=out,
        preset=None if old else usual.preset,
        unsaid=unsaid,
    )


def _check_processes(config: RunConfig, processes: int) -> None:
    """ValueError if there are batches with fewer networks than processes."""
    networks = config.networks["train"]
    per_epoch = steps_per_epoch(networks, config.settings.batch)
    if networks // per_epoch < processes:
        raise ValueError(
            f"{networks} networks in {per_epoch} batches are too few for {processes} processes; "
            "raise --batch"
        )


@dataclass(frozen=True)
class _Job:
    """A run that is sound: what it is, and who works on it.

    Attributes:
        tell: called with a line where something damaged was set aside.
        stats: what the model is built with; None until its `prepare` has found them.
        say: called with lines on what is about to be done, and on what came out.
        why: a line on whose settings are taken.
    """

    task: Task
    config: RunConfig
    accelerator: Any
    log_with: str | None
    progress: Report | None
    tell: Callable[[str], None]
    stats: Mapping[str, Any] | None
    say: Callable[[str], None]
    why: str

    @property
    def folder(self) -> Path:
        return self.config.out

    @property
    def main(self) -> bool:
        """Whether this process is the one that writes."""
        return bool(self.accelerator.is_main_process)

    def shared(self, value: Any) -> Any:
        """What the main process has, on all."""
        if self.accelerator.num_processes == 1:
            return value
        from accelerate.utils import broadcast_object_list

        (found,) = broadcast_object_list([value])
        return found


def _in_folder(job: _Job, overwrite: bool) -> dict[str, Any]:
    """The run in a folder of its own; that of a finished one is its summary."""
    folder = job.folder
    with runs.one_writer(folder) if job.main else contextlib.nullcontext():
        if job.main:
            runs.begin(folder, job.config, overwrite)
        job.accelerator.wait_for_everyone()
        if (folder / records.SUMMARY).exists():
            return _summary(folder)
        if job.main:
            _announce(job)
        try:
            return _work(job)
        except torch.OutOfMemoryError as error:
            raise ZooError(
                f"{job.accelerator.device} has no memory left: {str(error).partition('.')[0]}; "
                "try --accumulate 2, or a smaller --batch"
            ) from error
        except (OSError, SafetensorError) as error:
            raise ZooError(f"{folder}: {error}; {records.how_to_go_on(folder)}") from error


def _announce(job: _Job) -> None:
    """Say what is about to be done."""
    config = job.config
    networks = config.networks["train"]
    per_epoch = steps_per_epoch(networks, config.settings.batch)
    job.say(job.why)
    job.say(
        f"{networks:,} networks, batch {config.settings.batch:,}: {per_epoch:,} updates an epoch, "
        f"{config.settings.total(per_epoch):,} in all"
    )
    for line in presets.too_long(config.settings, per_epoch):
        job.say(line)


def _summary(folder: Path) -> dict[str, Any]:
    """That of a finished run whose model is whole."""
    try:
        run = runs.finished(folder)
        run.verify()
    except ZooError as error:
        raise ZooError(f"{error}; train the run again with --overwrite") from error
    return run.summary


def _open(zoo: str) -> dict[str, Zoo]:
    """The splits of a zoo.

    Raises:
        ZooError: if there is nothing in one of them.
    """
    opened = {}
    for split in SPLITS:
        try:
            opened[split] = zoos.open_zoo(zoo, split)
        except ValueError as error:
            raise ValueError(f"{error}; training needs train, validation and test") from error
    if len({each.index.shards for each in opened.values()}) > 1:
        raise ZooError(f"{zoo} changed while it was opened; run the same command again")
    empty = [split for split, each in opened.items() if not len(each)]
    if empty:
        raise ZooError(f"{zoo} has no networks in its {' and '.join(empty)} split")
    return opened


def _try_to_build(
    task: Task,
    model: str,
    stats: Mapping[str, Any] | None,
    whole: Mapping[str, Any],
    sizes: Mapping[str, Any],
) -> None:
    """ValueError unless the model can be built of all its sizes, before anything is written.

    Args:
        sizes: those that were asked for.
    """
    count, room = _parameters(task, model, stats, whole), machine.memory_bytes()
    if count is not None:
        if room is None or count * _TRAINED_BYTES <= room:
            return
        raise ValueError(
            f"{model} has {count:,} parameters for networks of widths {list(task.spec.widths)}: "
            f"training takes {count * _TRAINED_BYTES / 1e9:,.0f} GB, this process may use "
            f"{room / 1e9:,.0f}; take a smaller one, as by --set, or another model"
        )
    try:
        with torch.random.fork_rng(devices=[]):
            task.module(model, stats, dict(whole))
    except (TypeError, RuntimeError, ArithmeticError, LookupError, AttributeError) as error:
        if not sizes and not own.is_own(model):
            raise
        given = ", ".join(f"{name}={value!r}" for name, value in sizes.items())
        line = " ".join(str(error).split())
        with_what = f" with {given}" if given else ""
        raise ValueError(f"{model} cannot be built{with_what}: {line:.300}") from error


def _parameters(
    task: Task, model: str, stats: Mapping[str, Any] | None, sizes: Mapping[str, Any]
) -> int | None:
    """Of a listed model, counted without memory; None where that cannot be told."""
    if own.is_own(model):
        return None
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            module = task.module(model, stats, dict(sizes))
    except Exception:  # building it with memory says what is wrong
        return None
    return sum(parameter.numel() for parameter in module.parameters())


def _work(job: _Job) -> dict[str, Any]:
    """Everything that takes time: preparation, trials of rates, the training itself."""
    if job.stats is None:
        job = replace(job, stats=_prepared(job))
    config, accelerator = job.config, job.accelerator
    tried = _tried(job)
    if tried:
        best = _best_rate(tried, job.task.selection[1])
        config = replace(config, settings=replace(config.settings, lr=best))
        job = replace(job, config=config)
    run = _Run(job, config.settings, config.out, config.request.model)
    if job.log_with:
        accelerator.init_trackers("wszoo", config=_flat(config.to_json()))
    summary = run.finish({f"{lr:g}": value for lr, value in tried.items()})
    if job.log_with:
        accelerator.end_training()
    return summary


def _prepared(job: _Job) -> Mapping[str, Any]:
    """The statistics that the model is built with, after what its class does with the data."""
    request, prepare = job.config.request, preparation(job.config.request.model)
    assert prepare is not None
    place = Workplace(
        request.seed, job.folder / records.CHECKPOINT, job.main, job.progress, job.tell, job.shared
    )
    return prepare(job.task.data, place)


def _tried(job: _Job) -> dict[float, float | None]:
    """The best validation metric of every rate of the grid; None where it diverged."""
    found = {}
    for lr in job.config.request.lr_grid:
        trial = _tenth(replace(job.config.settings, lr=lr))
        folder, label = (
            job.folder / records.GRID / f"{lr:g}",
            f"{job.config.request.model} lr {lr:g}",
        )
        found[lr] = _Run(job, trial, folder, label).trial()
    return found


def _best_rate(tried: Mapping[float, float | None], higher: bool) -> float:
    sound = {lr: value for lr, value in tried.items() if value is not None}
    if not sound:
        raise Diverged("the loss is no longer finite with any rate of --lr-grid; try lower ones")
    return max(sound, key=lambda lr: sound[lr] if higher else -sound[lr])


def _flat(config: Mapping[str, Any], name: str = "") -> dict[str, Any]:
    """Plain values by dotted names, as trackers want them."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{name}{key}.")
        elif isinstance(value, int | float | str | bool):
            found[name + key] = value
    return found


def _tenth(settings: Settings) -> Settings:
    """The same for a tenth of the epochs, judged less often."""
    short: dict[str, Any] = {"warmup": settings.warmup // 10, "evaluations": 5, "patience": None}
    if settings.epochs is not None:
        return replace(settings, epochs=max(1, settings.epochs // 10), **short)
    return replace(settings, steps=max(1, (settings.steps or 0) // 10), **short)


class _Run:
    """One training, of a trial of a learning rate or of the run itself."""

    def __init__(self, job: _Job, settings: Settings, folder: Path, label: str):
        self.job, self.task, self.data = job, job.task, job.task.data
        self.settings, self.seed = settings, job.config.request.seed
        self.folder, self.label = folder, label
        self.accelerator, self.main = job.accelerator, job.main
        torch.manual_seed(self.seed)
        request = job.config.request
        sizes = {**job.config.unsaid, **job.config.model_sizes}
        self.module: nn.Module = self.task.module(request.model, job.stats, sizes)
        self.per_epoch = steps_per_epoch(len(self.data["train"]), settings.batch)
        self.total = settings.total(self.per_epoch)
        self.interval = settings.interval(self.per_epoch)
        self.selects, self.more_is_better = self.task.selection
        self.step, self.waited, self.seconds = 0, 0, 0.0
        self.best: float | None = None
        self.best_step = 0
        self.best_weights: dict[str, torch.Tensor] | None = None
        self.last_loss: float | None = None
        # Of the updates since the last record.
        self.losses: list[torch.Tensor] = []

    # -- checkpoints

    def _save(self, optimiser: Any) -> None:
        if not self.main:
            return
        state = {
            "module": self.module.state_dict(),
            "optimiser": optimiser.state_dict(),
            "step": self.step,
            "waited": self.waited,
            "seconds": self.seconds,
            "best": self.best,
            "best_step": self.best_step,
            # Those that are the module's stand there already.
            "best_weights": None if self.best_step == self.step else self.best_weights,
            "losses": self.losses,
        }
        checkpoint.write(self.folder / records.CHECKPOINT / records.STATE, state)

    def _resume(self, optimiser: Any) -> None:
        folder = self.folder / records.CHECKPOINT
        if not self.job.shared((folder / records.STATE).exists()):
            if self.main:
                (self.folder / records.METRICS).unlink(missing_ok=True)
            return
        untouched = [
            {name: value.clone() for name, value in self.module.state_dict().items()},
            optimiser.state_dict(),
        ]
        wrong = None
        try:
            state = checkpoint.read_run(folder, self.module, self.accelerator.device)
            self.module.load_state_dict(state["module"])
            optimiser.load_state_dict(state["optimiser"])
        except (ZooError, RuntimeError, ValueError, LookupError, TypeError) as error:
            wrong = str(error)
        # Where processes see one folder, all see the same; else none goes on alone.
        if wrong := self.job.shared(wrong):
            self.module.load_state_dict(untouched[0])
            optimiser.load_state_dict(untouched[1])
            self._begin_again(wrong)
            return
        self.step, self.waited, self.seconds = state["step"], state["waited"], state["seconds"]
        self.best, self.best_step = state["best"], state["best_step"]
        self.best_weights = state["best_weights"]
        self.losses = state.get("losses", [])
        if self.main:
            self._take_back()

    def _begin_again(self, wrong: str) -> None:
        """Set a damaged checkpoint aside; what was computed before is computed again."""
        if not self.main:
            return
        aside = set_aside(self.folder / records.CHECKPOINT / records.STATE)
        (self.folder / records.METRICS).unlink(missing_ok=True)
        self.job.tell(f"{wrong}; it is now {aside}, and {self.label} begins again")

    def _take_back(self) -> None:
        """Leave out what was logged after the checkpoint: it will be logged again."""
        found, wrong = records.read_metrics(self.folder)
        if wrong:
            aside = set_aside(self.folder / records.METRICS)
            self.job.tell(f"{wrong}; the file is now {aside}, and its whole lines are kept")
        self._rewrite([record for record in found if record["step"] <= self.step])

    def _rewrite(self, kept: Sequence[Mapping[str, Any]]) -> None:
        text = "".join(json.dumps(record) + "\n" for record in kept)
        write_text(self.folder / records.METRICS, text)

    def _log(self, record: dict[str, Any]) -> None:
        if not self.main:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / records.METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        self.accelerator.log(_flat(record), step=record["step"])

    def _tell(self) -> None:
        if self.job.progress is not None and self.main:
            self.job.progress(
                Progress(self.label, self.step, self.total, self.last_loss, self.selects, self.best)
            )

    # -- the loop

    def _optimiser(self) -> torch.optim.Optimizer:
        s = self.settings
        parameters = [p for p in self.module.parameters() if p.requires_grad]
        fused = self.accelerator.device.type == "cuda"
        if s.optimiser == "adam":
            return torch.optim.Adam(
                parameters, lr=s.lr, weight_decay=s.weight_decay, fused=fused or None
            )
        return torch.optim.AdamW(
            parameters, lr=s.lr, weight_decay=s.weight_decay, amsgrad=True, fused=fused or None
        )

    def _lr(self, step: int) -> float:
        """Of update `step`, counted from 0."""
        s = self.settings
        if step < s.warmup:
            return s.lr * (step + 1) / s.warmup
        if s.schedule == "cosine":
            done = (step - s.warmup) / max(1, self.total - s.warmup)
            return s.lr * 0.5 * (1 + math.cos(math.pi * done))
        return s.lr

    def _exhausted(self) -> bool:
        """Whether patience has run out."""
        return self.settings.patience is not None and self.waited >= self.settings.patience

    def _update(self, module: Any, weights: Weights, columns: dict[str, torch.Tensor]) -> Any:
        """Gradients of a batch, in as many parts as settings say; its loss."""
        parts = [
            part
            for part in torch.arange(len(weights)).tensor_split(self.settings.accumulate)
            if len(part)
        ]
        processes = self.accelerator.num_processes
        if len(parts) == processes == 1:
            loss = self.task.loss(module, weights, columns)
            self.accelerator.backward(loss)
            return loss.detach()
        # So that every network counts alike, in parts and processes of any size.
        whole = batch_rows(len(self.data["train"]), self.settings.batch, self.step)
        total: Any = 0.0
        for part in parts:
            last = part is parts[-1]
            with contextlib.nullcontext() if last else self.accelerator.no_sync(module):
                values = {name: column[part] for name, column in columns.items()}
                loss = self.task.loss(module, weights[part], values)
                loss = loss * (len(part) * processes / whole)
                self.accelerator.backward(loss)
            total = total + loss.detach()
        return total

    def loop(self) -> None:
        """Train from the last checkpoint to the end.

        Raises:
            Diverged: if the loss or the metric is no longer finite.
        """
        try:
            self._updates()
        finally:  # also of a rate that diverges, before the next one is tried
            self.accelerator.free_memory()

    def _updates(self) -> None:
        accelerator, settings = self.accelerator, self.settings
        self.module.to(accelerator.device)
        plain = self._optimiser()
        self._resume(plain)
        wrapped: Any = torch.compile(self.module) if settings.compile else self.module
        module, optimiser = accelerator.prepare(wrapped, plain)
        stream = self.data["train"].stream(
            orders(
                len(self.data["train"]), settings.batch, self.seed, self.step,
                accelerator.process_index, accelerator.num_processes,
            )
        )  # fmt: skip
        self.module.train()
        began = saved = time.perf_counter()
        every = max(1, min(50, self.total // 20))
        while self.step < self.total and not self._exhausted():
            weights, columns = next(stream)
            # Every random number of an update follows from the seed and its number.
            number = (self.step << 8) + accelerator.process_index + 1
            _seed(accelerator.device, mixed(self.seed, number))
            for group in plain.param_groups:
                group["lr"] = self._lr(self.step)
            self.losses.append(self._update(module, weights, columns))
            if settings.clip is not None:
                accelerator.clip_grad_norm_(self.module.parameters(), settings.clip)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            self.step += 1
            due = self.step % self.interval == 0 or self.step == self.total
            if self.step % every == 0 or due:
                self.last_loss = self._mean_loss()
                now = time.perf_counter()
                self.seconds, began = self.seconds + now - began, now
                if not math.isfinite(self.last_loss):
                    raise self._diverged("loss")
                epoch = self.step / self.per_epoch
                self._log(
                    {"step": self.step, "epoch": round(epoch, 3), "loss": self.last_loss,
                     "lr": self._lr(self.step - 1), "seconds": round(self.seconds, 2)}
                )  # fmt: skip
                self._tell()
            if due:
                self._validate()
            if due or time.perf_counter() - saved > CHECKPOINT_SECONDS:
                self._save(plain)
                saved = time.perf_counter()
            if due:
                began = time.perf_counter()
        stream.close()
        accelerator.wait_for_everyone()

    def _mean_loss(self) -> float:
        """Of the updates since the last call, over all processes."""
        loss = torch.stack(self.losses).mean()
        self.losses.clear()
        if self.accelerator.num_processes > 1:
            loss = self.accelerator.reduce(loss, reduction="mean")
        return float(loss)

    def _diverged(self, what: str) -> Diverged:
        return Diverged(
            f"the {what} of {self.label} is no longer finite at update {self.step:,}; try a lower "
            f"--lr than {self.settings.lr:g}, or --clip 1"
        )

    def _validate(self) -> None:
        """Measure the validation split, and keep the weights if they are the best so far."""
        metrics: dict[str, float] = {}
        if self.main:
            self.module.eval()
            metrics = self.task.evaluate(self.module, "validation")
            self.module.train()
        # The others' batch statistics are those of their own networks.
        metrics = self.job.shared(metrics)
        value = metrics[self.selects]
        if not math.isfinite(value):
            raise self._diverged(f"validation {self.selects}")
        self._log({"step": self.step, "validation": metrics})
        sign = 1 if self.more_is_better else -1
        better = self.best is None or sign * value > sign * self.best
        self.waited = 0 if better else self.waited + 1
        if better:
            self.best, self.best_step = value, self.step
            state = self.module.state_dict()
            self.best_weights = {name: tensor.cpu().clone() for name, tensor in state.items()}
            if any(x.is_floating_point() and not x.isfinite().all() for x in state.values()):
                raise self._diverged("model")
        self._tell()

    def trial(self) -> float | None:
        """The best validation metric of this training; None if it diverged."""
        path = self.folder / records.SUMMARY
        found = self.job.shared(self._tried_before() if self.main else None)
        if found is not None:
            (best,) = found
            return best
        try:
            self.loop()
        except Diverged:
            self.best = None
        if self.main:
            write_json(path, {"best": self.best})
            shutil.rmtree(self.folder / records.CHECKPOINT, ignore_errors=True)
        return self.best

    def _tried_before(self) -> tuple[float | None] | None:
        """What a finished trial came to."""
        path = self.folder / records.SUMMARY
        if not path.exists():
            return None
        try:
            return (records.read_trial(path),)
        except ZooError as error:
            aside = set_aside(path)
            self.job.tell(f"{error}; it is now {aside}, and {self.label} is tried again")
            return None

    def finish(self, lr_grid: Mapping[str, float | None]) -> dict[str, Any]:
        """Train to the end, measure the best weights on the test split, and write it all."""
        self.loop()
        summary = self._conclude(lr_grid) if self.main else None
        found: dict[str, Any] = self.job.shared(summary)
        return found

    def _conclude(self, lr_grid: Mapping[str, float | None]) -> dict[str, Any]:
        config, request = self.job.config, self.job.config.request
        folder, task = self.folder, self.task
        # Autocast was for training; what is saved is measured as `evaluate` will.
        self.accelerator.unwrap_model(self.module, keep_fp32_wrapper=False)
        last = {name: value.clone() for name, value in self.module.state_dict().items()}
        assert self.best_weights is not None
        self.module.load_state_dict(self.best_weights)
        self.module.eval()
        found = {split: self._measured(split) for split in ("validation", "test")}
        parameters = sum(p.numel() for p in self.module.parameters())
        summary = {
            "task": request.task,
            "model": request.model,
            "zoo": request.zoo,
            "epochs": round(self.step / self.per_epoch, 2),
            "networks": len(self.data["train"]),
            "seed": self.seed,
            "device": device_name(self.accelerator.device),
            "devices": self.accelerator.num_processes,
            **found,
            "metric": task.metric,
            "higher": task.higher,
            "recipe": config.recipe["name"],
            "source": config.source,
            "steps": self.step,
            "best_step": self.best_step,
            "batch": self.settings.batch,
            "lr": self.settings.lr,
            "lr_grid": dict(lr_grid),
            "parameters": parameters,
            "minutes": round(self.seconds / 60, 3),
        }
        constant = task.constant("test")
        if constant is not None and math.isfinite(constant.score):
            summary["constant"] = constant._asdict()
            self._compare(found["test"][task.metric], constant)
        self._write_models(last)
        task.figures(self.module, "test", folder / runs.FIGURES)
        logged, _ = records.read_metrics(folder)
        figures.curves(logged, task.metric, folder / runs.FIGURES / "curves.png", constant)
        drawn = sorted(f"{runs.FIGURES}/{p.name}" for p in (folder / runs.FIGURES).glob("*.png"))
        write_text(folder / runs.CARD, runs.card(config.to_json(), summary, drawn))
        kept = [f"{runs.MODEL}/{name}" for name in (saving.CONFIG, saving.WEIGHTS)]
        # What a longer run goes on from has its own hash, and may be deleted to save its bytes.
        kept.append(f"{runs.LAST}/{saving.WEIGHTS}")
        kept = [name for name in kept if (folder / name).exists()]
        summary["files"] = saving.described(folder, kept)
        write_json(folder / records.SUMMARY, summary)
        shutil.rmtree(folder / records.CHECKPOINT, ignore_errors=True)
        return summary

    def _compare(self, value: float, constant: Constant) -> None:
        """Say so if the metric is no better than what one has without reading networks."""
        if abs(value - constant.score) <= 2 * constant.error:
            self.job.say(
                f"{self.task.metric} {value:.4g} is within two standard errors "
                f"({2 * constant.error:.2g}) of {constant.name}, {constant.score:.4g}: "
                "nothing was learnt that the test split shows; try more --epochs, or another --lr"
            )

    def _measured(self, split: str) -> dict[str, float]:
        """The finite metrics of a split; that of the task is among them."""
        found = self.task.evaluate(self.module, split)
        if not math.isfinite(found[self.task.metric]):
            raise self._diverged(f"{split} {self.task.metric}")
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def _write_models(self, last: Mapping[str, torch.Tensor]) -> None:
        """The best weights as a model, the last ones, and what a longer run goes on from."""
        processor = self.task.processor(self.module)
        if processor is not None:
            processor.save(self.folder / runs.MODEL)
        ended = self.folder / runs.LAST
        write_bytes(ended / saving.WEIGHTS, saving.packed(last))
        # The learning rate of another schedule depends on the length; whose patience has run out
        # would end at once.
        constant = self.settings.schedule == "constant" and not self.job.config.request.lr_grid
        if constant and not self._exhausted():
            state = self.folder / records.CHECKPOINT / records.STATE
            best = self.folder / runs.MODEL / saving.WEIGHTS
            checkpoint.keep(state, ended / records.STATE, best, ended / saving.WEIGHTS)


def _seed(device: torch.device, number: int) -> None:
    """What `torch.manual_seed` does, for this device alone.

    Without a GPU that one notes the whole stack at every call, in case there will be one.
    """
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        torch.cuda.manual_seed(number)
    elif device.type == "mps":
        torch.mps.manual_seed(number)


def device_name(device: torch.device) -> str:
    """Such as "cpu, 2 threads" or "NVIDIA H200"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return f"cpu, {torch.get_num_threads()} threads"
    return device.type
