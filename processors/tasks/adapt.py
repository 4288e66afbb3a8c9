"""Classifiers of clean pictures, changed so that they read corrupted ones.

A model gives each classifier its change, v - dv; the loss is that of the changed one on
corrupted training pictures of its own two classes. Neither the pictures nor the
classifiers that it is measured on were there in training.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import cross_entropy

from processors.options import AdaptOptions
from processors.rows import Rows
from processors.tasks import figures
from processors.tasks.corruptions import corrupt, flip, flip_chance
from processors.tasks.task import Constant, Metrics, Task
from zoo import Weights, Zoo, ZooError, forward, source_of

# Classifiers that are changed at once in an evaluation, and pictures in memory with them.
_NETS, _PICTURES = 32, 20_000
# Opening tens of thousands of files takes long, and so does corrupting them: the last source
# stays open, and its banks.
_SOURCES: dict[str, Any] = {}
_BANKS: dict[tuple[Any, ...], "Bank"] = {}


class Bank:
    """Corrupted pictures of one part of a source, by class.

    Attributes:
        flips: chance of a flip along each axis, anew whenever a picture is drawn; the first
            ones are flipped alike every time. 0 where flips are in `pixels`.
        pixels: 0..255, `variant item chan row column`, items ordered by class.
        starts, counts: where the items of each class lie.
        clean: one picture of each class as it was, `label row column chan`, for figures.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        classes: int,
        strength: float,
        seeds: Sequence[int],
        flips_later: bool = False,
    ) -> None:
        images = images[labels.argsort(stable=True)]
        self.flips = flip_chance(strength) if flips_later else 0.0
        shape = images.permute(0, 3, 1, 2).shape
        # Filled one by one: there may be more than a gigabyte.
        self.pixels = torch.empty(len(seeds), *shape, dtype=torch.uint8)
        for variant, seed in zip(self.pixels, seeds, strict=True):
            variant.copy_(corrupt(images, strength, seed, flips=not flips_later))
        self.counts = labels.bincount(minlength=classes)
        self.starts = self.counts.cumsum(0) - self.counts
        self.clean = images[self.starts.clamp(max=len(images) - 1)]

    def to(self, device: torch.device) -> "Bank":
        """Itself, with its pictures on the device."""
        self.pixels = self.pixels.to(device)
        self.counts, self.starts = self.counts.to(device), self.starts.to(device)
        return self

    def drawn(
        self, pairs: Int64[Tensor, "net 2"], count: int
    ) -> tuple[Tensor, Int64[Tensor, "net item"]]:
        """Random pictures of each network's classes, `net item ...`, and their classes."""
        counts = self.counts[pairs]
        place = torch.rand(len(pairs), count, device=pairs.device) * counts.sum(1, keepdim=True)
        place = place.long().clamp(max=counts.sum(1, keepdim=True) - 1)
        second = (place >= counts[:, :1]).long()
        item = place - second * counts[:, :1] + self.starts[pairs].gather(1, second)
        variant = torch.randint(len(self.pixels), item.shape, device=pairs.device)
        pixels = self.pixels[variant, item]
        if self.flips:
            pixels = flip(pixels, torch.rand(2, *item.shape, device=pairs.device) < self.flips)
        return pixels, pairs.gather(1, second)

    def first(
        self, pairs: Int64[Tensor, "net 2"], count: int
    ) -> tuple[Tensor, Int64[Tensor, "net item"]]:
        """The first pictures of each network's classes, as many of the one as of the other."""
        each = min(count // 2, int(self.counts.min()))
        item = self.starts[pairs][..., None] + torch.arange(each, device=pairs.device)
        pixels = self.pixels[0, item.flatten(1)]
        if self.flips:
            draws = torch.rand(2, *pixels.shape[:2], generator=torch.Generator().manual_seed(0))
            pixels = flip(pixels, (draws < self.flips).to(pixels.device))
        return pixels, pairs.repeat_interleave(each, dim=1)


class Adapt(Task):
    """Classifiers of two classes each, on pictures that are rotated, flipped and so on.

    How strong the published corruption was is not said; that of --strength leaves the
    classifiers as accurate as the published ones, 60.9%.

    Source: Navon et al. 2023, Sec. 7.2 and App. J (Table 3).
    """

    name, takes = "adapt", AdaptOptions
    metric, higher, title = "accuracy", True, "accuracy on corrupted pictures"
    out = None
    options: AdaptOptions
    # Columns with the two classes of a classifier.
    pair = ("class_a", "class_b")

    def __init__(self, data: Mapping[str, Rows], options: AdaptOptions) -> None:
        super().__init__(data, options)
        if set(self.pair) - set(self.zoo.columns):
            raise ValueError(
                f"adapt needs classifiers of two classes each (columns "
                f"{' and '.join(self.pair)}), as `wszoo fit-classifiers` makes them; "
                f"{self.zoo.folder.name} has none"
            )
        self._before: dict[str, Tensor] = {}

    def _auto(self) -> tuple[str, ...]:
        return ("noise", "dropout")

    def bank(self, part: str) -> Bank:
        """The corrupted pictures of training, validation or test, made when first wanted.

        Those of validation are the last of the source's training pictures and not trained
        on here, though the classifiers have seen them clean.
        """
        index, options = self.zoo.index, self.options
        key = (index.source["sha256"], options.strength, options.variants)
        if (*key, part) not in _BANKS:
            for other in [old for old in _BANKS if old[:-1] != key]:
                del _BANKS[other]
            seeds = {"test": (0,), "validation": (1,)}.get(part, range(2, 2 + options.variants))
            pictures = _pictures(self.zoo, part, self.data_root)
            _BANKS[*key, part] = Bank(*pictures, options.strength, seeds, part == "train")
        device = next(iter(self.data.values())).device
        return _BANKS[*key, part].to(device)

    def _logits(self, weights: Weights, pixels: Tensor) -> Float[Tensor, "net item label"]:
        """What every network says about its pictures, 0..255, `net item chan row column`."""
        black, white = self.spec.pixel_range
        x = pixels.to(weights.dtype).mul_((white - black) / 255).add_(black)
        if self.spec.layers[0].kind == "linear":
            x = x.flatten(2)
        return forward(self.spec, weights, x)

    def loss(self, module: Any, weights: Weights, columns: dict[str, Tensor]) -> Tensor:
        """Cross-entropy over all classes, as the classifiers were trained."""
        changed = module(self.augment(weights))
        pixels, labels = self.bank("train").drawn(_pairs(columns), self.options.images)
        return cross_entropy(self._logits(changed, pixels).flatten(0, 1), labels.flatten())

    @torch.no_grad()
    def accuracies(self, module: Any, split: str) -> Float[Tensor, " net"]:
        """Of every changed network of a split, on corrupted pictures; `None` changes nothing."""
        bank = self.bank(split)
        found = []
        for weights, columns in self.data[split].batches(_NETS):
            changed = weights if module is None else module(weights)
            pairs = _pairs(columns)
            for nets in torch.arange(len(pairs)).split(
                max(1, _PICTURES // self.options.eval_images)
            ):
                pixels, labels = bank.first(pairs[nets], self.options.eval_images)
                right = self._logits(changed[nets], pixels).argmax(dim=2) == labels
                found.append(right.float().mean(dim=1).cpu())
        return torch.cat(found)

    def before(self, split: str) -> Float[Tensor, " net"]:
        """Of the networks as they are."""
        if split not in self._before:
            self._before[split] = self.accuracies(None, split)
        return self._before[split]

    def evaluate(self, module: Any, split: str) -> Metrics:
        """Mean accuracy, that of the networks as they are, and how much there is between."""
        after = float(self.accuracies(module, split).double().mean())
        before = float(self.before(split).double().mean())
        return {"accuracy": after, "accuracy_before": before, "gain": after - before}

    def constant(self, split: str) -> Constant:
        """The networks as they are."""
        before = self.before(split).double()
        error = float(before.std()) / len(before) ** 0.5 if len(before) > 1 else 0.0
        return Constant("unadapted", float(before.mean()), error)

    def figures(self, module: Any, split: str, folder: Path) -> None:
        """`before_after.png`: each network; `pictures.png`: clean and corrupted ones."""
        after, before = self.accuracies(module, split).numpy(), self.before(split).numpy()
        figures.predicted(
            after, before, "accuracy", folder / "before_after.png",
            labels=("before", "after", "no change"),
        )  # fmt: skip
        bank = self.bank(split)
        shown = bank.counts.cpu().nonzero()[:, 0][:10]
        starts = bank.starts.cpu()[shown]
        corrupted = bank.pixels[0].cpu()[starts].permute(0, 2, 3, 1)
        rows = {"clean": bank.clean[shown], "corrupted": corrupted}
        figures.pictures(
            {name: list((images.float() / 255).numpy()) for name, images in rows.items()},
            folder / "pictures.png",
        )


def _pictures(zoo: Zoo, part: str, data_root: str | Path | None) -> tuple[Tensor, Tensor, int]:
    """Pictures of a part of a zoo's source, their classes, and how many classes there are."""
    key = zoo.index.source["sha256"]
    if key not in _SOURCES:
        _SOURCES.clear()
        _SOURCES[key] = _opened(zoo, data_root)
    source = _SOURCES[key]
    items = source.cut()[part]
    chosen = slice(items.start, items.stop)
    images, labels = (torch.from_numpy(x[chosen]) for x in (source.images, source.labels))
    return images, labels, len(source.class_names)


def _opened(zoo: Zoo, data_root: str | Path | None) -> Any:
    """The pictures that a zoo was fitted to, every class in every part."""
    source: Any = source_of(zoo.index, data_root)
    if source.labels is None:
        raise ZooError(f"the source of {zoo.index.name} has no classes")
    for part, items in source.cut().items():
        if len(set(source.labels[items.start : items.stop])) < len(source.class_names):
            raise ZooError(f"{source.name} has too few pictures: its {part} part lacks a class")
    return source


def _pairs(columns: Mapping[str, Tensor]) -> Int64[Tensor, "net 2"]:
    return torch.stack([columns[name] for name in Adapt.pair], dim=1)
