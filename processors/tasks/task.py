"""The contract of a task: its target, loss, metric and augmentation.

A task is made of the splits it works on. It says what a model must put out, gives the
loss of one batch and the metrics of one split, and draws the figures; the loop of
`processors.train` does the rest.
"""

import abc
from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from math import sqrt
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from processors import own
from processors.encode import EntryDropout, GaussianNoise, MovePicture, RandomSymmetry
from processors.first import unsaid
from processors.models import Processor, check_given, load, sizes_of
from processors.models import build as build_model
from processors.options import Options, augmentations
from processors.presets import Chosen, Situation, before, chosen
from processors.rows import Rows
from processors.settings import Settings
from zoo import NetworkSpec, Weights, Zoo, fitted_by

Metrics = dict[str, float]


class Constant(NamedTuple):
    """What one would score without reading any network.

    Attributes:
        name: of that, such as "chance".
        score: in the task's metric.
        error: the standard error of such a score on as many networks.
    """

    name: str
    score: float
    error: float


def constant_error(wanted: Tensor, found: Tensor, factor: float = 1.0) -> Constant:
    """The mean squared error of the mean of `found`, over the rows of `wanted`.

    Args:
        wanted, found: numbers of the split that is measured, and of the training split.
        factor: of both.
    """
    squares = (wanted.double() - found.double().mean(dim=0)).square()
    each = squares.flatten(1).mean(dim=1) if squares.ndim > 1 else squares
    error = float(each.std()) / sqrt(len(each)) if len(each) > 1 else 0.0
    return Constant("the mean", factor * float(each.mean()), factor * error)


class Augment(nn.Module):
    """Augmentations by name, in training mode only.

    Raises:
        ValueError: for an unknown name, or one that does not fit the networks.
    """

    def __init__(self, spec: NetworkSpec, options: Options, auto: tuple[str, ...]) -> None:
        super().__init__()
        given = augmentations(options.augment)
        names = tuple(x for name in given for x in (auto if name == "auto" else (name,)))
        if "move" in names and not spec.axes:
            raise ValueError(
                "augmentation 'move' is for INRs, these networks take no coordinates; leave it "
                "out of --augment"
            )
        if "move" in names and spec.frequencies:
            raise ValueError(
                "augmentation 'move' turns the coordinates that a first layer reads, these "
                "networks read Fourier features of them; leave it out of --augment"
            )
        self.names = names
        parts: list[nn.Module] = []
        if "move" in names:
            parts.append(MovePicture(spec, options.degrees, options.shift, options.zoom))
        if "noise" in names:
            parts.append(GaussianNoise(options.noise))
        if "dropout" in names:
            parts.append(EntryDropout(options.drop))
        kinds = {"permute": "permutation", "sign": "sign", "phase": "phase", "scale": "scale"}
        chosen = tuple(kind for name, kind in kinds.items() if name in names)
        if chosen:
            parts.append(RandomSymmetry(spec, chosen))
        parts += [_Own(name) for name in names if own.is_own(name)]
        self.parts = nn.ModuleList(parts)

    def forward(self, weights: Weights) -> Weights:
        for part in self.parts:
            weights = part(weights)
        return weights


class _Own(nn.Module):
    """An augmentation of one's own, found when it is first used; in training mode only."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, weights: Weights) -> Weights:
        found: Weights = own.find(self.path)(weights) if self.training else weights
        return found


class Task(abc.ABC):
    """What a model is trained for.

    Attributes:
        name: in `tasks.TASKS`.
        metric: of the validation split, by which models and learning rates are chosen.
        higher: whether more of it is better.
        title: of the metric, as it stands in figures and reports.
        out: length of the model's output; None for an editor.
    """

    name: ClassVar[str] = ""
    # What it can be told.
    takes: ClassVar[type[Options]] = Options
    # Whether `evaluate` fits something to the training split.
    probes: ClassVar[bool] = False
    metric: str
    higher: bool
    title: str
    out: int | None
    # By which the best weights are chosen; None for `metric`.
    selects: str | None = None

    def __init__(self, data: Mapping[str, Rows], options: Options) -> None:
        """Take the splits, "train" among them unless only `evaluate` is wanted.

        Raises:
            ValueError: if the zoo does not fit the task; says which would.
        """
        self.data, self.options = data, options
        self.zoo = next(iter(data.values())).zoo
        self.spec: NetworkSpec = self.zoo.spec
        self.data_root = next(iter(data.values())).data_root
        self.augment = Augment(self.spec, options, self._auto())

    @classmethod
    def rows(cls, zoo: Zoo, device: torch.device | str, limit: int | None) -> Rows:
        """What is trained on: the networks of a split, the first `limit`."""
        return Rows(zoo, device, limit)

    def _auto(self) -> tuple[str, ...]:
        """The augmentations of `--augment auto`."""
        move = ("move",) if len(self.spec.axes) == 2 and not self.spec.frequencies else ()
        return (*move, "noise", "dropout")

    def augment_as(self, model: str) -> None:
        """Take what `--augment auto` stood for with this model, before there were presets."""
        auto = before(self.name, model, self._auto())
        self.augment = Augment(self.spec, self.options, auto)

    def situation(self, model: str) -> Situation:
        """What a training of this model is of."""
        index = self.zoo.index
        return Situation(
            self.name, model, str(fitted_by(index.recipe).get("name", "")), index.source["name"],
            conv=any(layer.kind == "conv" for layer in self.spec.layers), inputs=self.spec.inp,
            picture=len(self.spec.axes) == 2 and not self.spec.frequencies,
            space=len(self.spec.axes) == 3 and not self.spec.frequencies,
            networks=len(self.data.get("train", ())),
        )  # fmt: skip

    def chosen(self, model: str, preset: str = "paper", networks: int | None = None) -> Chosen:
        """What a preset does with this model here, with what this task's own methods say.

        Args:
            networks: for training; None for those that there are.
        """
        situation = self.situation(model)
        if networks is not None:
            situation = replace(situation, networks=networks)
        found = chosen(situation, preset)
        settings, sizes = self.settings(model), self.sizes(model)
        return replace(found, settings=settings or found.settings, sizes={**found.sizes, **sizes})

    def settle(self, found: Chosen, asked: Collection[str] = ()) -> None:
        """Take every option but those that are asked for as a preset has it."""
        options = found.options
        names = {option.name for option in fields(self.options)} - {"augment", *asked}
        changes = {name: value for name, value in options.items() if name in names}
        auto = augmentations(options["augment"]) if "augment" in options else self._auto()
        given = augmentations(self.options.augment)
        kinds = [x for name in given for x in (auto if name == "auto" else (name,))]
        changes["augment"] = ",".join(dict.fromkeys(kinds)) or "none"
        self.options = replace(self.options, **changes)
        self.augment = Augment(self.spec, self.options, ())
        self._settled()

    def _settled(self) -> None:
        """What follows from the options once they are settled."""
        if getattr(self.options, "select", None) == "loss":
            self.selects = "loss"

    def settings(self, model: str) -> Settings | None:
        """How a task of one's own trains this model; None for what presets say."""
        return None

    def sizes(self, model: str) -> dict[str, Any]:
        """Arguments of the model's class that a task of one's own takes, over a preset's."""
        return {}

    def constant(self, split: str) -> Constant | None:
        """What one would score on a split without reading networks, where that is known."""
        return None

    @property
    def selection(self) -> tuple[str, bool]:
        """The metric by which the best weights are chosen, and whether more of it is better."""
        return (self.metric, self.higher) if self.selects is None else (self.selects, False)

    @classmethod
    def check_model(cls, model: str, sizes: Mapping[str, Any]) -> None:
        """Refuse a model, or arguments of it, before the zoo is opened.

        Raises:
            ValueError: for what the model does not take.
        """
        check_given(model, sizes)

    def readout(self) -> dict[str, list[float]] | None:
        """The target's "mean" and "std", where outputs are in its units."""
        return None

    def module(self, model: str, stats: Mapping[str, Tensor] | None, sizes: dict[str, Any]) -> Any:
        """The module that is trained, of these sizes.

        Raises:
            ValueError: if the model does not fit.
        """
        return build_model(
            model,
            self.spec,
            out=self.out,
            stats=stats,
            readout=self.readout(),
            **sizes,
        )

    def fitting_sizes(self, model: str, sizes: Mapping[str, Any]) -> dict[str, Any]:
        """Those of a preset's sizes that the model's class takes."""
        takes = sizes_of(model)
        return {name: value for name, value in sizes.items() if name in takes}

    def unsaid(self, model: str) -> dict[str, Any]:
        """What the model took by default in runs of before there were presets."""
        return self.fitting_sizes(model, unsaid(model))

    def processor(self, module: nn.Module) -> Any:
        """The part of the trained module that is saved as `model/`, or None."""
        assert isinstance(module, Processor)
        return module

    def restore(self, folder: Path) -> Any:
        """What `evaluate` takes, from a run's `model/`.

        Raises:
            ValueError: if the model is for networks of another architecture.
        """
        model = load(folder)
        if model.spec.tensors != self.spec.tensors:
            raise ValueError(
                f"{folder.parent.name} reads networks {'-'.join(map(str, model.spec.widths))}, "
                f"and those of {self.zoo.folder.name} are {'-'.join(map(str, self.spec.widths))}"
            )
        if not model.spec.encoded_as(self.spec):
            raise ValueError(
                f"{folder.parent.name} reads Fourier features of other frequencies than "
                f"those of {self.zoo.folder.name}, which are drawn from a zoo's seed"
            )
        return model

    @abc.abstractmethod
    def loss(self, module: Any, weights: Weights, columns: dict[str, Tensor]) -> Tensor:
        """The training loss of one batch, a number; draws from torch's generators."""

    @abc.abstractmethod
    def evaluate(self, module: Any, split: str) -> Metrics:
        """The metrics of a whole split, plain numbers; every network counts."""

    @abc.abstractmethod
    def figures(self, module: Any, split: str, folder: Path) -> None:
        """Draw what shows how good the model is, as PNG files."""


@torch.no_grad()
def predict(module: Any, rows: Rows, batch: int = 256) -> Tensor:
    """The model's output for every row, `row out`, float32 on the CPU."""
    return torch.cat([module(weights).float().cpu() for weights, _ in rows.batches(batch)])


def target_column(
    rows: Rows, task: str, role: str, kind: str, named: str | None, needs: str
) -> str:
    """The one column of this role and kind, or the one that is named.

    Of several real columns the constant ones, such as the amplitude of waves that vary in
    frequency alone, are not asked about.

    Raises:
        ValueError: if there is none or more than one; lists what there is.
    """
    columns = rows.zoo.columns
    plain = [n for n, c in columns.items() if c.role in ("target", "quality", "key")]
    if named is not None:
        if named not in plain:
            raise ValueError(
                f"{rows.zoo.folder.name} has no column {named!r}; its columns: {', '.join(plain)}"
            )
        if columns[named].kind != kind:
            raise ValueError(
                f"{task} needs {needs}, and {named!r} of {rows.zoo.folder.name} is of kind "
                f"{columns[named].kind!r}"
            )
        return named
    found = [n for n, c in columns.items() if c.role == role and c.kind == kind]
    if len(found) > 1 and kind == "real":
        varied = [n for n in found if bool((rows.column(n) != rows.column(n)[0]).any())]
        found = varied or found
    if len(found) == 1:
        return found[0]
    if not found:
        raise ValueError(
            f"{task} needs {needs}, and {rows.zoo.folder.name} has none; its columns: "
            f"{', '.join(plain)}"
        )
    raise ValueError(f"{rows.zoo.folder.name} has {' and '.join(found)}: choose one with --target")
