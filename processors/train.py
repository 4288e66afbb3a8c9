"""The one training loop: every task and model, on whatever devices `accelerate` gives.

    train("classify", "dws", "zoos/mnist-inrs", "runs/dws-mnist", settings={"epochs": 10})

What a run computes depends on its configuration alone: the order of the networks on the
seed and the epoch, every random number on the seed and the update. So a run that was
killed goes on from its last checkpoint to the weights it would have had (to the byte on
a CPU with the same number of threads).
"""

import atexit
import contextlib
import io
import json
import math
import os
import shlex
import shutil
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_type_hints

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

import zoo as zoos
from processors import runs
from processors.models import known_model
from processors.options import OPTIONS
from processors.rows import SEEDS, Rows, batch_rows, mixed, orders, steps_per_epoch
from processors.settings import Settings
from processors.tasks import TASKS, Task, figures
from zoo import Weights, Zoo, ZooError, machine, symmetry

SPLITS = ("train", "validation", "test")
DEVICES = ("auto", "cpu", "cuda", "mps")
# Between checkpoints; one more is made at every validation.
CHECKPOINT_SECONDS = 60.0
_STATE, _BEST, _MATCHED = "state.pt", "best.safetensors", "matched.safetensors"
# Networks whose mean others are matched to; also those that are matched at a time.
_SAMPLE = 1000
_PACKAGES = ("wszoo", "torch", "accelerate", "numpy")


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        label: what is being trained.
        step, steps: updates done, and in all; or whatever `unit` names.
        loss: of the last update that was logged.
        metric, best: the validation metric's name, and its best value so far.
    """

    label: str
    step: int
    steps: int
    loss: float | None
    metric: str
    best: float | None
    unit: str = "step"


Report = Callable[[Progress], None]


class Diverged(ZooError):
    """A training whose numbers are no longer finite."""


def settings_of(task: str, model: str, splits: Mapping[str, Rows], changes: Mapping[str, Any],
                options: Mapping[str, Any]) -> tuple[Task, Settings]:  # fmt: skip
    """The task on these splits, and its settings for a model with changes.

    Raises:
        ValueError: for an unknown task, option or setting, or a zoo that does not fit.
    """
    made = make(task, splits, options)
    given = dict(changes)
    names = [each.name for each in fields(Settings)]
    if unknown := sorted(set(given) - set(names)):
        raise ValueError(f"unknown setting {unknown[0]!r}; known: {', '.join(names)}")
    if given.get("steps") is not None:
        given.setdefault("epochs", None)
    if given.get("epochs") is not None:
        given.setdefault("steps", None)
    return made, replace(made.settings(model), **given)


def make(task: str, splits: Mapping[str, Rows], options: Mapping[str, Any]) -> Task:
    """A task on these splits.

    Raises:
        ValueError: for an unknown task or option, or a zoo that does not fit.
    """
    kind = TASKS[known(task)]
    names = [each.name for each in fields(OPTIONS[task])]
    if unknown := sorted(set(options) - set(names)):
        raise ValueError(f"task {task!r} has no option {unknown[0]!r}; known: {', '.join(names)}")
    hints = get_type_hints(OPTIONS[task])
    for name, value in options.items():
        # JSON and Python have whole numbers where fractions would do.
        wanted = hints[name] | int if hints[name] is float else hints[name]
        if not isinstance(value, wanted):
            raise ValueError(
                f"option {name} of task {task!r} must be of type "
                f"{getattr(hints[name], '__name__', hints[name])}, got {value!r}"
            )
    return kind(splits, OPTIONS[task](**options))


def known(task: str) -> str:
    """The task's name.

    Raises:
        ValueError: if there is none of that name; lists those there are.
    """
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}; known: {', '.join(TASKS)}")
    return task


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


def command(
    task: str,
    model: str,
    zoo: str,
    out: Path,
    settings: Mapping[str, Any],
    options: Mapping[str, Any],
    sizes: Mapping[str, Any],
    seed: int,
    split_limit: str | None,
    lr_grid: Sequence[float],
) -> str:
    """The command line that makes this run."""
    words = ["wszoo", "train", task, zoo, "--model", model]
    for name, value in {**settings, **options}.items():
        if value is None or value is False:
            continue
        words.append(f"--{name.replace('_', '-')}")
        words += [] if value is True else [f"{value}"]
    for name, value in sizes.items():
        plain = value if isinstance(value, str) else json.dumps(value).replace(" ", "")
        words += ["--set", f"{name}={plain}"]
    words += ["--seed", str(seed)] if seed else []
    words += ["--split-limit", split_limit] if split_limit else []
    words += ["--lr-grid", ",".join(f"{lr:g}" for lr in lr_grid)] if lr_grid else []
    return shlex.join([*words, "--out", str(out)])


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
        raise ValueError(f"accelerate cannot do this: {error}") from error
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


def train(
    task: str,
    model: str,
    zoo: str | Path,
    out: str | Path,
    *,
    settings: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    sizes: Mapping[str, Any] | None = None,
    seed: int = 0,
    split_limit: str | None = None,
    lr_grid: Sequence[float] = (),
    device: str = "auto",
    log_with: str | None = None,
    overwrite: bool = False,
    progress: Report | None = None,
) -> dict[str, Any]:
    """Train a model for a task on a zoo, or go on where a run was stopped.

    Args:
        task, model: in `tasks.TASKS` and `models.MODELS`.
        zoo: a folder, or a repository on the Hub.
        out: folder of the run.
        settings: changes of what the papers do, see `Settings`.
        options: of the task, see its `Options`.
        sizes: arguments of the model's class.
        split_limit: see `parse_limit`.
        lr_grid: learning rates that are tried for a tenth of the run each; the one with
            the best validation metric is taken.
        device: auto, cpu, cuda or mps.
        log_with: a tracker of accelerate, such as tensorboard or wandb.

    Returns:
        What `summary.json` holds.

    Raises:
        ValueError: for misuse, and zoos or models that do not fit.
        ZooError: if the zoo is damaged, the loss is no longer finite, or the disk is full.
    """
    folder = Path(out)
    known(task)
    known_model(model)
    if not 0 <= seed < SEEDS:
        raise ValueError(f"seed must be from 0 to {SEEDS - 1}, got {seed}")
    limits = parse_limit(split_limit)
    machine.limit_torch()
    first = _device(device)
    opened = _open(str(zoo))
    data = {s: TASKS[task].rows(each, first, limits.get(s)) for s, each in opened.items()}
    made, chosen = settings_of(task, model, data, settings or {}, options or {})
    for lr in lr_grid:
        _tenth(replace(chosen, lr=lr))
    _check_sizes(made, model, sizes or {})
    accelerator = _accelerator(chosen, device, log_with, folder)
    per_epoch = steps_per_epoch(len(data["train"]), chosen.batch)
    if len(data["train"]) // per_epoch < accelerator.num_processes:
        raise ValueError(
            f"{len(data['train'])} networks in {per_epoch} batches are too few for "
            f"{accelerator.num_processes} processes; raise --batch"
        )
    # The grid is part of what the run depends on; its answer is not yet known.
    config = {
        "wszoo": "run",
        "task": task,
        "model": model,
        "zoo": str(zoo),
        "zoo_name": opened["train"].index.name,
        "zoo_sha256": runs.zoo_sha256(opened["train"]),
        "recipe": opened["train"].index.recipe,
        "source": opened["train"].index.source["name"],
        "networks": {split: len(rows) for split, rows in data.items()},
        "settings": asdict(chosen),
        "options": dict(options or {}),
        "sizes": dict(sizes or {}),
        # With the defaults of the task, which may be others in another version.
        "task_options": asdict(made.options),
        "model_sizes": {**made.sizes(model), **(sizes or {})},
        "seed": seed,
        "split_limit": limits,
        "lr_grid": list(lr_grid),
        "versions": {name: version(name) for name in _PACKAGES},
        "command": command(
            task,
            model,
            str(zoo),
            folder,
            settings or {},
            options or {},
            sizes or {},
            seed,
            split_limit,
            lr_grid,
        ),
    }
    # As it comes back from the file.
    config = json.loads(json.dumps(config))
    main = accelerator.is_main_process
    with runs.one_writer(folder) if main else contextlib.nullcontext():
        if main:
            runs.begin(folder, config, overwrite)
        accelerator.wait_for_everyone()
        if (folder / runs.SUMMARY).is_file():
            found: dict[str, Any] = runs.read_json(folder / runs.SUMMARY)
            return found
        try:
            return _work(
                made, model, folder, config, chosen, dict(sizes or {}), seed, lr_grid,
                accelerator, log_with, progress,
            )  # fmt: skip
        except torch.OutOfMemoryError as error:
            raise ZooError(
                f"{accelerator.device} has no memory left: {str(error).partition('.')[0]}; try "
                "--accumulate 2, or a smaller --batch"
            ) from error
        except (OSError, SafetensorError) as error:
            raise ZooError(
                f"{folder}: {error}; the same command goes on from the last checkpoint"
            ) from error


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


def _check_sizes(task: Task, model: str, sizes: Mapping[str, Any]) -> None:
    """ValueError unless the model can be built, before anything is written."""
    try:
        with torch.random.fork_rng(devices=[]):
            task.module(model, None, dict(sizes))
    except (TypeError, RuntimeError, ArithmeticError, LookupError) as error:
        if not sizes:
            raise
        given = ", ".join(f"{name}={value!r}" for name, value in sizes.items())
        line = " ".join(str(error).split())
        raise ValueError(f"{model} cannot be built with {given}: {line:.300}") from error


def _work(
    task: Task,
    model: str,
    folder: Path,
    config: dict[str, Any],
    chosen: Settings,
    sizes: dict[str, Any],
    seed: int,
    lr_grid: Sequence[float],
    accelerator: Any,
    log_with: str | None,
    progress: Report | None,
) -> dict[str, Any]:
    """Everything that takes time, in a folder of one's own."""
    stats: Mapping[str, Any] = task.data["train"].zoo.stats()
    if model == "mlp-align":
        main = accelerator.is_main_process
        stats = _align(
            task.data, seed, folder / runs.CHECKPOINT / _MATCHED, main, progress if main else None
        )
    found_grid: dict[str, float | None] = {}
    if lr_grid:
        tried = {}
        for lr in lr_grid:
            trial = _tenth(replace(chosen, lr=lr))
            tried[lr] = _Run(
                task, model, stats, trial, sizes, seed, folder / "grid" / f"{lr:g}", accelerator,
                progress, f"{model} lr {lr:g}",
            ).trial()  # fmt: skip
        sound = {lr: value for lr, value in tried.items() if value is not None}
        if not sound:
            raise Diverged(
                "the loss is no longer finite with any rate of --lr-grid; try lower ones"
            )
        best = max(sound, key=lambda lr: sound[lr] if task.higher else -sound[lr])
        chosen = replace(chosen, lr=best)
        config = {**config, "settings": asdict(chosen)}
        found_grid = {f"{lr:g}": value for lr, value in tried.items()}
    run = _Run(task, model, stats, chosen, sizes, seed, folder, accelerator, progress, model)
    if log_with:
        accelerator.init_trackers("wszoo", config=_flat(config))
    summary = run.finish(config, found_grid)
    if log_with:
        accelerator.end_training()
    return summary


def _device(device: str) -> torch.device:
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


def _align(
    data: Mapping[str, Rows], seed: int, path: Path, main: bool, progress: Report | None
) -> Mapping[str, Any]:
    """Align all splits to a mean of training networks, which also sets the statistics.

    Args:
        path: of the permutations found so far, int32, which a later call goes on from.
        main: whether this process writes them.
    """
    from processors import align

    spec = data["train"].zoo.spec
    known = load_file(path) if path.is_file() else {}
    total, saved = sum(map(len, data.values())), time.perf_counter()

    def keep() -> None:
        if main:
            runs.write_bytes(path, save(known))

    def tell(done: int) -> None:
        if progress is not None:
            progress(Progress("matching", done, total, None, "", None, unit="network"))

    tell(0)
    if "reference" not in known:
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(min(_SAMPLE, len(data["train"])), generator=generator)
        sample = data["train"].batch(order)[0].to("cpu")
        known["reference"] = align.mean_reference(spec, sample).flatten()
        keep()
    reference = Weights.unflatten(known["reference"], spec)
    before = 0
    for split, rows in data.items():
        names = {f"{split}.{n}": width for n, width in enumerate(spec.widths[1:-1])}
        for name, width in names.items():
            known.setdefault(name, torch.empty(0, width, dtype=torch.int32))
        start = min((len(known[name]) for name in names), default=len(rows))
        for part in torch.arange(start, len(rows)).split(_SAMPLE):
            found = align.match(spec, rows.batch(part)[0], reference).permutations
            for name, order in zip(names, found, strict=True):
                known[name] = torch.cat([known[name], order.int()])
            if time.perf_counter() - saved > CHECKPOINT_SECONDS:
                keep()
                saved = time.perf_counter()
            tell(before + int(part[-1]) + 1)
        before += len(rows)
        rows.permute(symmetry.Element.permuting(known[name].long() for name in names))
    keep()
    return {**data["train"].stats(), "reference": known["reference"]}


class _Run:
    """One training, of a trial of a learning rate or of the run itself."""

    def __init__(
        self,
        task: Task,
        model: str,
        stats: Mapping[str, Any],
        settings: Settings,
        sizes: dict[str, Any],
        seed: int,
        folder: Path,
        accelerator: Any,
        progress: Report | None,
        label: str,
    ):
        self.task, self.data = task, task.data
        self.model, self.settings, self.seed = model, settings, seed
        self.folder, self.accelerator = folder, accelerator
        self.progress, self.label = progress, label
        self.main = bool(accelerator.is_main_process)
        torch.manual_seed(seed)
        plain = {name: value for name, value in stats.items() if name != "reference"}
        self.module: nn.Module = self.task.module(model, plain, sizes)
        if "reference" in stats:
            # The data are aligned already; the saved model aligns what it is given.
            inner: Any = self._inner()
            inner.reference.copy_(stats["reference"])
            inner.aligned = True
        self.per_epoch = steps_per_epoch(len(self.data["train"]), settings.batch)
        self.total = settings.total(self.per_epoch)
        self.interval = math.ceil(self.total / settings.evaluations)
        if settings.epochs is not None:
            self.interval = math.ceil(self.interval / self.per_epoch) * self.per_epoch
        self.step, self.waited, self.seconds = 0, 0, 0.0
        self.best: float | None = None
        self.best_step = 0
        self.last_loss: float | None = None
        # Of the updates since the last record.
        self.losses: list[torch.Tensor] = []

    def _inner(self) -> Any:
        processor = self.task.processor(self.module)
        assert processor is not None
        return processor.model

    # -- checkpoints

    def _save(self, optimiser: Any) -> None:
        if not self.main:
            return
        path = self.folder / runs.CHECKPOINT / _STATE
        state = {
            "module": self.module.state_dict(),
            "optimiser": optimiser.state_dict(),
            "step": self.step,
            "waited": self.waited,
            "seconds": self.seconds,
            "best": self.best,
            "best_step": self.best_step,
            "losses": self.losses,
        }
        # To a file, torch.save tells of a full disk in the words of its zip writer.
        buffer = io.BytesIO()
        torch.save(state, buffer)
        runs.write_bytes(path, buffer.getvalue())

    def _resume(self, optimiser: Any) -> None:
        path = self.folder / runs.CHECKPOINT / _STATE
        if not path.is_file():
            if self.main:
                (self.folder / runs.METRICS).unlink(missing_ok=True)
            return
        state = torch.load(path, map_location=self.accelerator.device, weights_only=True)
        self.module.load_state_dict(state["module"])
        optimiser.load_state_dict(state["optimiser"])
        self.step, self.waited, self.seconds = state["step"], state["waited"], state["seconds"]
        self.best, self.best_step = state["best"], state["best_step"]
        self.losses = state.get("losses", [])
        if self.main:
            # What was logged after the checkpoint will be logged again.
            kept = [r for r in runs.read_metrics(self.folder) if r["step"] <= self.step]
            self._rewrite(kept)

    def _rewrite(self, records: Sequence[Mapping[str, Any]]) -> None:
        text = "".join(json.dumps(record) + "\n" for record in records)
        runs.write_text(self.folder / runs.METRICS, text)

    def _log(self, record: dict[str, Any]) -> None:
        if not self.main:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / runs.METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        self.accelerator.log(_flat(record), step=record["step"])

    def _tell(self) -> None:
        if self.progress is not None and self.main:
            self.progress(
                Progress(
                    self.label, self.step, self.total, self.last_loss, self.task.metric, self.best
                )
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
        accelerator.free_memory()

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

    def _shared(self, value: Any) -> Any:
        """What the main process has, on all."""
        if self.accelerator.num_processes == 1:
            return value
        from accelerate.utils import broadcast_object_list

        (found,) = broadcast_object_list([value])
        return found

    def _validate(self) -> None:
        """Measure the validation split, and keep the weights if they are the best so far."""
        metrics: dict[str, float] = {}
        if self.main:
            self.module.eval()
            metrics = self.task.evaluate(self.module, "validation")
            self.module.train()
        # The others' batch statistics are those of their own networks.
        metrics = self._shared(metrics)
        value = metrics[self.task.metric]
        if not math.isfinite(value):
            raise self._diverged(f"validation {self.task.metric}")
        self._log({"step": self.step, "validation": metrics})
        better = self.best is None or (value > self.best if self.task.higher else value < self.best)
        self.waited = 0 if better else self.waited + 1
        if better:
            self.best, self.best_step = value, self.step
            if self.main:
                path = self.folder / runs.CHECKPOINT / _BEST
                _write_weights(self.module.state_dict(), path)
        self._tell()

    def trial(self) -> float | None:
        """The best validation metric of this training; None if it diverged."""
        path = self.folder / runs.SUMMARY
        found = self._shared(runs.read_json(path) if self.main and path.is_file() else None)
        if found is not None:
            return found["best"]
        try:
            self.loop()
        except Diverged:
            self.best = None
        if self.main:
            runs.write_json(path, {"best": self.best})
            shutil.rmtree(self.folder / runs.CHECKPOINT, ignore_errors=True)
        return self.best

    def finish(self, config: dict[str, Any], lr_grid: Mapping[str, float | None]) -> dict[str, Any]:
        """Train to the end, measure the best weights on the test split, and write it all."""
        self.loop()
        summary = self._conclude(config, lr_grid) if self.main else None
        found: dict[str, Any] = self._shared(summary)
        return found

    def _conclude(
        self, config: dict[str, Any], lr_grid: Mapping[str, float | None]
    ) -> dict[str, Any]:
        folder, task = self.folder, self.task
        # Autocast was for training; what is saved is measured as `evaluate` will.
        self.accelerator.unwrap_model(self.module, keep_fp32_wrapper=False)
        last = {name: value.clone() for name, value in self.module.state_dict().items()}
        best = folder / runs.CHECKPOINT / _BEST
        self.module.load_state_dict(_read_weights(self.module, best))
        self.module.eval()
        found = {split: task.evaluate(self.module, split) for split in ("validation", "test")}
        parameters = sum(p.numel() for p in self.module.parameters())
        summary = {
            "task": config["task"],
            "model": config["model"],
            "zoo": config["zoo"],
            "epochs": round(self.step / self.per_epoch, 2),
            "networks": len(self.data["train"]),
            "seed": self.seed,
            "device": device_name(self.accelerator.device),
            "devices": self.accelerator.num_processes,
            **found,
            "metric": task.metric,
            "higher": task.higher,
            "recipe": config["recipe"]["name"],
            "source": config["source"],
            "steps": self.step,
            "best_step": self.best_step,
            "batch": self.settings.batch,
            "lr": self.settings.lr,
            "lr_grid": dict(lr_grid),
            "parameters": parameters,
            "minutes": round(self.seconds / 60, 3),
        }
        processor = task.processor(self.module)
        if processor is not None:
            if self.model == "mlp-align":
                self._inner().aligned = False
            processor.save_pretrained(folder / runs.MODEL)
        task.figures(self.module, "test", folder / runs.FIGURES)
        records = runs.read_metrics(folder)
        figures.curves(records, task.metric, folder / runs.FIGURES / "curves.png")
        _write_weights(last, folder / runs.LAST / "model.safetensors")
        config = {**config, "title": task.title}
        drawn = sorted(f"{runs.FIGURES}/{p.name}" for p in (folder / runs.FIGURES).glob("*.png"))
        runs.write_text(folder / runs.CARD, runs.card(config, summary, drawn))
        runs.write_json(folder / runs.SUMMARY, summary)
        shutil.rmtree(folder / runs.CHECKPOINT, ignore_errors=True)
        return summary


def _write_weights(state: Mapping[str, torch.Tensor], path: Path) -> None:
    runs.write_bytes(path, save({name: v.contiguous().cpu() for name, v in state.items()}))


def _read_weights(module: nn.Module, path: Path) -> dict[str, Any]:
    return load_file(path, device=str(next(module.parameters()).device))


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
    folder, where = Path(run), _device(device)
    limits = parse_limit(split_limit)
    machine.limit_torch()
    best = runs.model_folder(folder)
    config = runs.read_json(folder / runs.CONFIG)
    runs.check_config(config, folder)
    if keep is not None and split != "test":
        raise ValueError(f"reports show the test split; {split!r} cannot be kept for them")
    kind = TASKS[known(config["task"])]
    data = {split: kind.rows(zoos.open_zoo(str(zoo), split), where, limits.get(split))}
    if kind.probes and split != "train":
        data["train"] = kind.rows(zoos.open_zoo(str(zoo), "train"), where, limits.get("train"))
    task = make(config["task"], data, {**config["task_options"], **(options or {})})
    if keep is not None and runs.zoo_sha256(data[split].zoo) != config["zoo_sha256"]:
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
        summary = {**runs.read_json(folder / runs.SUMMARY), split: metrics}
        runs.write_records(Path(keep), [{"config": kept, "summary": summary}])
    return metrics
