"""What originals themselves tell: the ceiling of every model that reads networks of them.

A small convolutional network is trained twice on the same splits: on the pictures or shapes that
the networks were fitted to ("originals", which access the data), and on what the networks render
("renders", which access the function). Of pictures hardly any reader of weights does better than
the first, and what lies between the two is what fitting lost. Shapes are seen on a grid of `SIDE`
points along each axis, by what the zoo's networks are to say there; readers that turn them do
better than that. The results are rows of
reports; they lie in the zoo's folder, beside its files, in `ceiling.json`, which is no part of
the zoo: no hash covers it and no push sends it. Each is kept the moment it stands, so that after
a stop the same call goes on with what is lacking.

    measure("zoos/mnist-inrs")
"""

import contextlib
import itertools
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

import zoo as zoos
from processors.config import SPLITS, Request, RunConfig
from processors.evaluation import find_device
from processors.files import write_records
from processors.options import ClassifyOptions
from processors.probe import WIDTHS, convolutions
from processors.records import CEILING, check_config, check_summary, same_zoo
from processors.rows import Rows
from processors.settings import Settings, steps_per_epoch
from processors.tasks.classify import told
from processors.tasks.task import target_column
from processors.train import device_name
from zoo import Zoo, ZooError, identity, machine, schema, stopping

FILE = CEILING
# What the network sees, and what that takes of a row.
SEEN = {"originals": "data", "renders": "function"}
# They are moved by up to so many pixels, of 28, while training.
_MOVED = 2
# By default, of pictures or shapes; at least so many updates.
_BATCH, _UPDATES = 64, 1000
_RENDERED = 512  # networks at a time
# Points of shapes along each axis; networks and points that are rendered at a time.
SIDE, _FEW, _POINTS = 32, 32, 4096


@dataclass(frozen=True)
class Signals:
    """A split: pictures or shapes `item chan *place`, from 0 to 1, and classes, int64."""

    values: Float[Tensor, "item chan *place"]
    labels: Tensor


def network(chan: int, out: int, axes: int = 2) -> nn.Sequential:
    """Three convolutions with batch norm, then a linear layer; gives `item out`.

    Pictures `item chan row column`, of any size from 4 x 4 on, are pooled after the first two;
    in space `item chan x y z` the convolutions have a stride instead, an eighth of the work.
    """
    widths = [chan, *(times * WIDTHS[axes] for times in (1, 2, 4))]
    if axes == 3:
        seen = convolutions(chan, axes, first=2)
        return nn.Sequential(*seen, nn.Dropout(0.3), nn.Linear(8 * widths[-1], out))
    layers: list[nn.Module] = []
    for number, (inp, n) in enumerate(itertools.pairwise(widths)):
        layers += [nn.Conv2d(inp, n, 3, padding=1, bias=False), nn.BatchNorm2d(n), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if number < 2 else []
    return nn.Sequential(
        *layers, nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Dropout(0.3),
        nn.Linear(4 * widths[-1], out),
    )  # fmt: skip


def measure(
    zoo: str | Path,
    *,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    limit: str | None = None,
    device: str = "auto",
    data_root: str | Path | None = None,
    target: str | None = None,
    tell: Callable[[str], object] | None = None,
) -> dict[str, dict[str, float]]:
    """Train on originals and on renders, and keep the results in the zoo's folder.

    Args:
        zoo: folder of the zoo, of pictures or shapes with classes.
        settings: `epochs` and `batch` of both trainings; by default 10 epochs, or more for
            1,000 updates, and 64.
        limit: networks of each split, as `--split-limit` has it.
        target: the column of classes, if there are several.
        tell: is told of each result, in a line.

    Returns:
        The test metrics of "originals" and "renders"; the first is missing where the zoo
        was imported without its originals. What is kept of the same settings is not measured
        again.

    Raises:
        ValueError: if the zoo is not of pictures or shapes with classes.
        ZooError: if the zoo is damaged, or its source cannot be opened.
    """
    folder, where = Path(zoo), find_device(device)
    if not folder.is_dir():
        raise ValueError(f"{zoo} is no folder; pull the zoo first: results are kept beside it")
    asked = Request(task="classify", model="renders", zoo=str(zoo), seed=seed,
                    split_limit=limit, options={"target": target} if target else {})  # fmt: skip
    rows = {
        split: Rows(zoos.open_zoo(folder, split), "cpu", asked.limits.get(split))
        for split in SPLITS
    }
    first = rows["train"].zoo
    if len(first.spec.axes) not in WIDTHS:
        raise ValueError(
            f"{zoo} is not of pictures or shapes: nothing renders, so there is no ceiling"
        )
    needs = "one column of classes, as zoos of INRs have (`label`)"
    column = target_column(rows["train"], "ceiling", "target", "class", target, needs)
    machine.limit_torch()
    chosen, given = _settings(len(rows["train"]), **(settings or {}))
    given += [("--seed", seed or None), ("--split-limit", limit), ("--target", target)]
    words = [str(word) for pair in given if pair[1] is not None for word in pair]
    command = shlex.join(["wszoo", "ceiling", str(zoo), *words])
    found: dict[str, dict[str, float]] = {}
    records, known = _kept(folder), identity.hashes(folder)[0]
    for seen, signals in (("originals", _originals), ("renders", _renders)):
        config = RunConfig(
            request=replace(asked, model=seen),
            zoo_name=first.index.name,
            zoo_sha256=known,
            recipe=first.index.recipe,
            source=first.index.source["name"],
            networks={split: len(each) for split, each in rows.items()},
            settings=chosen,
            task_options=ClassifyOptions(**asked.options),
            model_sizes={"width": WIDTHS[len(first.spec.axes)]},
            out=folder,
        )
        if seen in records and not config.differences(records[seen]["config"]):
            found[seen] = records[seen]["summary"]["test"]
            if tell:
                tell(f"{seen}: kept, accuracy {found[seen]['accuracy']:.3f} on the test split")
            continue
        begun = time.monotonic()
        try:
            data = {
                split: Signals(signals(each, data_root), each.column(column))
                for split, each in rows.items()
            }
        except _NoOriginals as error:
            if tell:
                tell(f"{error}: renders alone")
            continue
        classes = first.columns[column].names
        out = len(classes) if classes else int(max(d.labels.max() for d in data.values())) + 1
        result = _train(data, out, chosen, seed, where)
        result["minutes"] = (time.monotonic() - begun) / 60
        plain = config.to_json() | {"command": command}
        records[seen] = {"config": plain, "summary": _summary(plain, result, where)}
        write_records(folder / FILE, [records[each] for each in SEEN if each in records])
        found[seen] = result["test"]
        if tell:
            tell(
                f"{seen}: accuracy {result['test']['accuracy']:.3f} on the test split, "
                f"{result['minutes']:.1f} minutes"
            )
    return found


def _kept(folder: Path) -> dict[str, Any]:
    """The whole results that lie beside this very zoo, by what the network saw."""
    with contextlib.suppress(ZooError, OSError, LookupError, TypeError):
        records = schema.read_json(folder / FILE)
        for record in records:
            check_summary(record["summary"], check_config(record["config"], FILE), FILE)
        known = identity.hashes(folder)
        found = {r["config"]["model"]: r for r in records if r["config"]["zoo_sha256"] in known}
        for record in found.values():
            record["config"]["zoo_sha256"] = known[0]
        return {seen: found[seen] for seen in SEEN if seen in found}
    return {}


def _settings(
    networks: int, epochs: int | None = None, batch: int = _BATCH
) -> tuple[Settings, list[tuple[str, Any]]]:
    """Of both trainings, and the flags that say what is not by default."""
    given = [("--epochs", epochs), ("--batch", batch if batch != _BATCH else None)]
    epochs = epochs or max(10, ceil(_UPDATES / steps_per_epoch(networks, batch)))
    return Settings(
        epochs=epochs, batch=batch, lr=3e-3, weight_decay=1e-2, schedule="cosine"
    ), given  # fmt: skip


class _NoOriginals(ZooError):
    """The zoo's originals cannot be had, and never could."""


def _originals(rows: Rows, data_root: str | Path | None) -> Tensor:
    """What the networks of these rows were fitted to."""
    zoo = rows.zoo
    if zoo.index.imported and not zoo.index.source.get("sha256"):
        raise _NoOriginals(f"{zoo.index.name} was imported without its originals")
    items = zoo.column("index")[: len(rows)]
    if zoo.spec.signal is not None:
        return _fields(rows, items, data_root)
    if zoo.index.imported:
        chosen = np.stack([zoos.original(zoo[n], data_root) for n in range(len(rows))])
    else:
        source: Any = zoos.source_of(zoo.index, data_root)
        chosen = source.images[items]
    return torch.from_numpy(np.ascontiguousarray(chosen)).float().div(255).movedim(-1, 1)


def _fields(rows: Rows, items: NDArray[np.int64], data_root: str | Path | None) -> Tensor:
    """The shapes of these items, each once: its views share it.

    By shares, so that what surrounds the grid, which convolutions take for 0, is far away.
    """
    zoo, kept = rows.zoo, np.unique(items, return_index=True)[1]
    each = np.empty((len(kept), 1, SIDE, SIDE, SIDE), np.float16)
    for place, row in enumerate(kept):
        stopping.check()
        each[place, 0] = zoos.from_field(zoo.spec, zoos.original(zoo[int(row)], data_root))
    return torch.from_numpy(each[np.searchsorted(items[kept], items)])


def _renders(rows: Rows, data_root: str | Path | None) -> Tensor:
    """What the networks of these rows render, at the size that they were fitted at."""
    spec = rows.zoo.spec
    if spec.signal is not None:
        points = zoos.space(spec, SIDE).split(_POINTS)
        with torch.no_grad():
            fields = [
                torch.cat([zoos.field(spec, weights, part) for part in points], 1).half()
                for weights, _ in rows.batches(_FEW)
            ]
        return zoos.from_field(spec, torch.cat(fields).reshape(-1, 1, SIDE, SIDE, SIDE))
    height, width = _shape(rows.zoo)
    parts = [
        zoos.render(spec, weights, height, width).clamp(0, 1).movedim(-1, 1)
        for weights, _ in rows.batches(_RENDERED)
    ]
    return torch.cat(parts)


def _shape(zoo: Zoo) -> tuple[int, int]:
    row, column, _ = zoo[0].render().shape
    return row, column


def _moved(signals: Tensor, draw: torch.Generator) -> Tensor:
    """All pictures or shapes of a batch moved by one random step, edges repeated."""
    most = max(1, round(_MOVED * signals.shape[-1] / 28))
    sides = signals.shape[2:]
    steps = [int(torch.randint(-most, most + 1, (), generator=draw)) for _ in sides]
    wide = pad(signals, (most, most) * len(sides), mode="replicate")
    cut = [slice(most + step, most + step + side) for step, side in zip(steps, sides, strict=True)]
    return wide[(slice(None), slice(None), *cut)]


def _train(
    data: Mapping[str, Signals], out: int, settings: Settings, seed: int, device: torch.device
) -> dict[str, Any]:
    """Train, keep the best epoch by the validation split, and measure that."""
    train = data["train"]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        module = network(train.values.shape[1], out, train.values.ndim - 2).to(device)
        draw = torch.Generator().manual_seed(seed)
        every = steps_per_epoch(len(train.labels), settings.batch)
        total = settings.total(every)
        optimiser = torch.optim.AdamW(module.parameters(), settings.lr,
                                      weight_decay=settings.weight_decay)  # fmt: skip
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.lr, total_steps=total)
        best: tuple[float, int, dict[str, Tensor]] | None = None
        step = 0
        while step < total:
            module.train()
            order = torch.randperm(len(train.labels), generator=draw)
            for rows in order.split(settings.batch)[:every]:
                stopping.check()
                signals = _moved(train.values[rows].to(device).float(), draw)
                loss = cross_entropy(module(signals), train.labels[rows].to(device))
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                step += 1
            reached = _measured(module, data["validation"], device)["accuracy"]
            if best is None or reached > best[0]:
                state = {name: value.clone() for name, value in module.state_dict().items()}
                best = reached, step, state
    assert best is not None
    module.load_state_dict(best[2])
    return {
        "steps": total,
        "best_step": best[1],
        "epochs": total / every,
        "parameters": sum(p.numel() for p in module.parameters()),
        **{split: _measured(module, data[split], device) for split in ("validation", "test")},
    }


@torch.no_grad()
def _measured(module: nn.Module, data: Signals, device: torch.device) -> dict[str, float]:
    """What `classify` tells of a model."""
    module.eval()
    parts = data.values.split(1024 if data.values.ndim == 4 else 64)
    logits = torch.cat([module(part.to(device).float()).cpu() for part in parts])
    return told(logits, data.labels)


def _summary(
    config: Mapping[str, Any], result: Mapping[str, Any], device: torch.device
) -> dict[str, Any]:
    """What `summary.json` of a run says."""
    return {
        "task": "classify",
        "model": config["model"],
        "zoo": config["zoo"],
        "networks": config["networks"]["train"],
        "seed": config["seed"],
        "device": device_name(device),
        "devices": 1,
        "metric": "accuracy",
        "higher": True,
        "recipe": config["recipe"].get("name", ""),
        "source": config["source"],
        "batch": config["settings"]["batch"],
        "lr": config["settings"]["lr"],
        "lr_grid": {},
        **result,
    }


def beside(configs: Sequence[Mapping[str, Any]]) -> list[Path]:
    """The ceilings that lie in the folders of the zoos of these runs, if they still are those.

    Args:
        configs: of runs, as their `config.json` says.
    """
    found: dict[Path, None] = {}
    for config in configs:
        path = Path(config["zoo"]) / FILE
        with contextlib.suppress(ZooError, OSError, LookupError, TypeError):
            records = schema.read_json(path)
            theirs = [r["config"]["zoo_sha256"] for r in records]
            if all(same_zoo(config["zoo"], each, config["zoo_sha256"]) for each in theirs):
                found[path] = None
    return list(found)
