"""Holds imported networks against what they were fitted to, so that mistakes show.

Networks of pictures are rendered and compared with the originals: labels must be equal,
every other reading of the coordinates or of the offset must give worse pictures than the
one that the spec says, and the pictures of other items must be further away. Waves are
compared with the curves in their own files. Classifiers, convolutional ones and multilayer
perceptrons, are evaluated again on a sample, against their published accuracy.
"""

from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from zoo import nets
from zoo.errors import ZooError
from zoo.figures import Samples
from zoo.importers.published import Arrays, Published
from zoo.kinds.objectives import MAX_PSNR_DB, psnr_db
from zoo.shards import Column
from zoo.sources import ImageSource, load_images
from zoo.spec import NetworkSpec
from zoo.weights import Weights

# A wrong reading of a network is worse than the right one by several dB.
MARGIN_DB = 0.5
JUDGED = 256  # networks whose other readings are tried
PIXEL_BUDGET = 1 << 24  # activations held at once, in numbers
ACCURACY_IMAGES = 1_000
ACCURACY_NETWORKS = 64
# Arithmetic of another framework, or the resizing of grey, turns single test images.
ACCURACY_TOLERANCE = 0.03


class Originals:
    """The base: nothing is known of the originals, nothing is measured.

    Attributes:
        columns: quality columns that `measure` fills.
        source: entries of the index's source that the originals settle.
        measured: further such entries, known at the end.
        means: of measured quality columns so far, for the progress line.
        spec_found: the spec with what `judge` found out; None leaves it as it is.
    """

    def __init__(self) -> None:
        self.columns: dict[str, Column] = {}
        self.source: dict[str, Any] = {}
        self.measured: dict[str, Any] = {}
        self.spec_found: NetworkSpec | None = None
        self.means: dict[str, float] = {}

    def measure(self, arrays: Arrays) -> Arrays:
        """The quality of these rows; ZooError if a row contradicts its original."""
        return {}

    def judge(self) -> None:
        """ZooError if another reading of the networks fits the originals better."""

    def samples(self, arrays: Arrays) -> Samples | None:
        """Rows beside their originals, for the card."""
        return None


def weights_of(spec: NetworkSpec, arrays: Arrays) -> Weights:
    """The networks of these rows."""
    return Weights.from_tensors(
        {name: torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in spec.tensors}
    )


def outputs_of(
    spec: NetworkSpec, arrays: Arrays, inputs: NDArray[np.float32]
) -> NDArray[np.float32]:
    """`net point out`, a few networks at a time."""
    weights, x = weights_of(spec, arrays), torch.from_numpy(inputs)
    step = max(1, PIXEL_BUDGET // (len(inputs) * max(spec.widths)))
    with torch.no_grad():
        parts = [
            nets.forward(spec, weights[start : start + step], x).numpy()
            for start in range(0, len(weights), step)
        ]
    return np.concatenate(parts)


class _Values(Originals, ABC):
    """Networks whose outputs are known: the common part of pictures and waves."""

    def __init__(self, published: Published):
        super().__init__()
        self.spec = published.spec
        self.judged: list[tuple[Arrays, NDArray[np.float32]]] = []
        self.left = JUDGED

    @abstractmethod
    def inputs(self, spec: NetworkSpec) -> NDArray[np.float32]:
        """Where the networks are evaluated, `point inp`, under this reading."""

    def readings(self) -> dict[str, NetworkSpec]:
        """Specs that a careless importer could have taken instead."""
        offset = 0.0 if self.spec.output_offset else 0.5
        return {f"the offset {offset:g}": replace(self.spec, output_offset=offset)}

    def remember(self, arrays: Arrays, targets: NDArray[np.float32]) -> None:
        """Keep some rows for `judge`."""
        take = slice(0, self.left)
        if self.left:
            names = list(self.spec.tensors)
            self.judged.append(({name: arrays[name][take] for name in names}, targets[take]))
            self.left -= len(targets[take])

    def error(
        self, spec: NetworkSpec, arrays: Arrays, targets: NDArray[Any]
    ) -> NDArray[np.float64]:
        """Mean squared error of each network under this reading."""
        outputs = outputs_of(spec, arrays, self.inputs(spec)).astype(np.float64)
        error: NDArray[np.float64] = np.square(outputs - targets).mean(axis=(1, 2))
        return error

    def judge(self) -> None:
        """Compare the mean error, in dB, with other readings and with what knows nothing."""
        arrays = {
            name: np.concatenate([rows[name] for rows, _ in self.judged])
            for name in self.spec.tensors
        }
        targets = np.concatenate([values for _, values in self.judged])
        finite = np.all(
            [np.isfinite(a).reshape(len(a), -1).all(axis=1) for a in arrays.values()], 0
        )
        arrays, targets = {k: v[finite] for k, v in arrays.items()}, targets[finite]
        if not len(targets):
            return

        def decibels(errors: NDArray[np.float64]) -> float:
            return float(np.mean(-10 * np.log10(np.maximum(errors, 10 ** (-MAX_PSNR_DB / 10)))))

        ours = decibels(self.error(self.spec, arrays, targets))
        for what, spec in self.readings().items():
            other = decibels(self.error(spec, arrays, targets))
            if other > ours + MARGIN_DB:
                raise ZooError(
                    f"these networks show their originals better with {what} than as this format "
                    f"says, by {other - ours:.1f} dB in the mean; it is not this format, or its "
                    "weights were changed"
                )
        flat = decibels(targets.astype(np.float64).var(axis=1).mean(axis=1))
        # A flat picture, and the picture of another item, tell nothing of the network.
        others = decibels(self.error(self.spec, arrays, np.roll(targets, 1, axis=0)))
        if ours < flat - MARGIN_DB or (len(targets) > 1 and ours < others + MARGIN_DB):
            raise ZooError(
                f"these networks do not show their originals: in the mean they are only "
                f"{ours - flat:.1f} dB closer to them than flat pictures, {ours - others:.1f} dB "
                "closer than to those of other items; the source is another, its items are in "
                "another order, or the weights were changed"
            )


class Pictures(_Values):
    """INRs of the pictures of a source, by index."""

    def __init__(self, published: Published, source: ImageSource):
        super().__init__(published)
        if published.spec.out != source.shape[2]:
            raise ZooError(
                f"the networks have {published.spec.out} outputs, the pictures of {source.name} "
                f"{source.shape[2]} channels"
            )
        self.images = source
        ranges = published.pixel_ranges
        if ranges is None:
            ranges = np.array([published.spec.pixel_range] * published.spec.out, np.float64)
        self.black, self.range = ranges[:, 0], ranges[:, 1] - ranges[:, 0]
        self.columns = {
            "psnr_db": Column("quality", "real", unit="dB"),
            "mse": Column("quality", "real"),
        }
        self.source = {
            key: getattr(source, key)
            for key in ("name", "title", "license", "url", "citation", "sha256", "train_items")
        }
        self.source |= {
            "kind": "image", "size": None, "shape": list(source.shape), "items": len(source),
            "class_names": list(source.class_names),
        }  # fmt: skip
        self.source["citation"] = "; ".join(
            text for text in (published.source["citation"], source.citation) if text
        )
        self.source["license"] = published.source["license"]
        self.total = self.count = 0.0

    def inputs(self, spec: NetworkSpec) -> NDArray[np.float32]:
        """The grid of the pictures."""
        return nets.coordinates(spec, *self.images.shape[:2])

    def readings(self) -> dict[str, NetworkSpec]:
        """Coordinates in the other order, too."""
        return {"rows and columns swapped": self.spec.transposed(), **super().readings()}

    def measure(self, arrays: Arrays) -> Arrays:
        """PSNR of each channel's own range, and the error of the outputs; labels are compared."""
        index = arrays["index"]
        if index.max(initial=0) >= len(self.images) or index.min(initial=0) < 0:
            raise ZooError(
                f"item {index.max()} is not one of the {len(self.images):,} of {self.images.name}"
            )
        if "label" in arrays:
            wrong = np.flatnonzero(self.images.labels[index] != arrays["label"])
            if len(wrong):
                row = int(wrong[0])
                raise ZooError(
                    f"item {index[row]} is labelled {arrays['label'][row]}, but {self.images.name} "
                    f"says {self.images.labels[index[row]]} ({len(wrong)} of {len(index)} rows "
                    "differ): mislabelled, or in another order"
                )
        pixels = self.images.images[index].reshape(len(index), -1, self.spec.out) / 255.0
        targets = (self.black + self.range * pixels).astype(np.float32)
        self.remember(arrays, targets)
        outputs = outputs_of(self.spec, arrays, self.inputs(self.spec)).astype(np.float64)
        square = np.square(outputs - targets)
        mse = square.mean(axis=(1, 2))
        quality = psnr_db((square / self.range**2).mean(axis=(1, 2)), 1.0)
        self.total += float(quality[np.isfinite(quality)].sum())
        self.count += int(np.isfinite(quality).sum())
        self.means = {"psnr_db": self.total / self.count} if self.count else {}
        return {"psnr_db": quality.astype(np.float32), "mse": mse.astype(np.float32)}

    def samples(self, arrays: Arrays) -> Samples:
        """Pictures and networks side by side."""
        index = arrays["index"]
        outputs = outputs_of(self.spec, arrays, self.inputs(self.spec))
        shown = ((outputs - self.black) / self.range).clip(0, 1)
        captions = [f"{value:.1f} dB" for value in arrays["psnr_db"]]
        shape = (len(index), *self.images.shape)
        return Samples(self.images.images[index], shown.reshape(shape), captions)


class Waves(_Values):
    """INRs of curves that stand in the files themselves."""

    def __init__(self, published: Published):
        super().__init__(published)
        assert published.targets is not None
        self.targets = published.targets
        self.points = published.points
        self.columns = {"mse": Column("quality", "real")}

    def inputs(self, spec: NetworkSpec) -> NDArray[np.float32]:
        """The points of the curves."""
        return nets.line(spec, self.points)

    def measure(self, arrays: Arrays) -> Arrays:
        """The error of each network's own curve."""
        targets = self.targets(arrays)
        self.remember(arrays, targets)
        return {"mse": self.error(self.spec, arrays, targets).astype(np.float32)}

    def samples(self, arrays: Arrays) -> Samples:
        """Curves and networks."""
        x = self.inputs(self.spec)
        outputs = outputs_of(self.spec, arrays, x)
        captions = [f"mse {value:.1e}" for value in arrays["mse"]]
        return Samples(self.targets(arrays)[..., 0], outputs[..., 0], captions, x[:, 0])


class Classifiers(Originals):
    """Classifiers of a source's pictures, held against their published test accuracy.

    How pictures were given to them is not told by weights: they are evaluated under every
    usual way (`pixels_of`), and the one that agrees best is recorded. Without a published
    accuracy that is the one with the highest.
    """

    def __init__(self, published: Published, source: ImageSource):
        super().__init__()
        self.spec = published.spec
        self.published = "test_accuracy" in published.columns
        self.classes = len(source.class_names)
        if self.spec.out < self.classes:
            raise ValueError(
                f"the networks have {self.spec.out} outputs, {source.name} "
                f"{self.classes} classes: leave out --check-against"
            )
        test = source.cut()["test"][:ACCURACY_IMAGES]
        if not len(test):
            raise ValueError(f"{source.name} has too few pictures to evaluate classifiers on")
        self.labels = source.labels[test.start : test.stop]
        self.inputs = pixels_of(self.spec, source, test)
        self.name = source.name
        # A row a network, a column a way of giving pixels.
        self.found: list[list[float]] = []
        self.recorded: list[float] = []

    def measure(self, arrays: Arrays) -> Arrays:
        """Evaluates the first networks; there is nothing to record of each."""
        for row in range(len(arrays["index"])):
            if len(self.found) == ACCURACY_NETWORKS:
                break
            one = {name: array[row : row + 1] for name, array in arrays.items()}
            if self.published and not np.isfinite(one["test_accuracy"][0]):
                continue
            weights, right = weights_of(self.spec, one), []
            for _, x in self.inputs.values():
                with torch.no_grad():
                    out = nets.forward(self.spec, weights, x)[0]
                right.append(float((out.argmax(1).numpy() == self.labels).mean()))
            self.found.append(right)
            self.recorded.append(float(one["test_accuracy"][0]) if self.published else 1.0)
        return {}

    def judge(self) -> None:
        """ZooError if accuracies are not those that were published, or no better than chance."""
        if not self.found:
            return
        found = np.array(self.found)
        apart = np.abs(found - np.array(self.recorded)[:, None]).mean(axis=0)
        best = int(apart.argmin())
        how, (pixel_range, _) = list(self.inputs.items())[best]
        accuracy, count = float(found[:, best].mean()), len(self.labels)
        # The images are a sample of the test set: three standard errors of a fraction.
        allowed = ACCURACY_TOLERANCE + 1.5 / np.sqrt(count)
        chance = 1 / self.classes
        if self.published and not apart[best] <= allowed:
            raise ZooError(
                f"evaluated on {count} test pictures of {self.name}, the networks are "
                f"{apart[best]:.3f} off their published test accuracy in the mean (allowed "
                f"{allowed:.3f}), pixels given as {', '.join(self.inputs)}: the kernels are laid "
                "out otherwise, or the pictures are given otherwise"
            )
        if not self.published and accuracy < chance + allowed:
            raise ZooError(
                f"evaluated on {count} test pictures of {self.name}, the networks are right on "
                f"{accuracy:.3f} of them, chance on {chance:.3f}, pixels given as "
                f"{', '.join(self.inputs)}: these are no classifiers of {self.name}, or its "
                "pictures are given otherwise"
            )
        agreed = f"{apart[best]:.4f} apart" if self.published else f"accuracy {accuracy:.4f}"
        self.measured = {
            "accuracy_checked": f"{len(self.found)} networks, {agreed}",
            "pixels": how,
        }
        if pixel_range is not None:
            self.spec_found = replace(self.spec, pixel_range=pixel_range)


# Grey of colours, ITU-R BT.601.
_GREY = np.array([[0.299], [0.587], [0.114]], np.float32)


def pixels_of(
    spec: NetworkSpec, source: ImageSource, items: range
) -> dict[str, tuple[tuple[float, float] | None, Float[Tensor, "item ..."]]]:
    """Pictures as classifiers are usually given them: by words, the range and the inputs.

    The range is what black and white become, None where it differs between channels.

    Raises:
        ZooError: if the networks take other numbers of channels or pixels.
    """
    chosen = source.images[items.start : items.stop].astype(np.float32) / 255
    seen = source.images[: source.train_items]
    # A sample will do: mean and deviation of 10,000 pictures are those of all to a thousandth.
    seen = seen[:: max(1, len(seen) // 10_000)].astype(np.float32) / 255
    flat, rows = spec.layers[0].kind == "linear", chosen[0].size // chosen.shape[3]
    wanted = spec.inp // rows if flat else spec.inp
    if wanted == 1 and chosen.shape[3] == 3:
        chosen, seen = chosen @ _GREY, seen @ _GREY
    if wanted != chosen.shape[3] or (flat and spec.inp != rows * wanted):
        have = f"{rows * chosen.shape[3]} pixels" if flat else f"{chosen.shape[3]} channels"
        raise ZooError(
            f"the networks take {spec.inp} {'inputs' if flat else 'channels'}, the pictures of "
            f"{source.name} have {have}"
        )
    mean, std = seen.mean(axis=(0, 1, 2)), seen.std(axis=(0, 1, 2))
    ways: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]] = {
        "0 to 1": (np.zeros_like(mean), np.ones_like(std)),
        "less the mean, over the deviation": (mean, np.maximum(std, 1e-6)),
        "-1 to 1": (np.full_like(mean, 0.5), np.full_like(std, 0.5)),
    }
    found: dict[str, tuple[tuple[float, float] | None, Tensor]] = {}
    for words, (shift, scale) in ways.items():
        black, white = -shift / scale, (1 - shift) / scale
        same = len(mean) == 1 or (np.ptp(black) == 0 and np.ptp(white) == 0)
        span = (float(black[0]), float(white[0])) if same else None
        x = torch.from_numpy((chosen - shift) / scale).permute(0, 3, 1, 2).contiguous()
        if not flat:
            found[words] = span, x
            continue
        # torch.flatten of (channel, row, column).
        found[words] = span, x.flatten(1)
        if chosen.shape[3] > 1:
            by_pixel = x.permute(0, 2, 3, 1).flatten(1)
            found[f"{words}, channels of a pixel side by side"] = None, by_pixel
    return found


def originals_of(published: Published, name: str | None, data_root: str | Path | None) -> Originals:
    """What the networks can be held against.

    Raises:
        ValueError: for an unknown source, or networks that no source can be held against.
        ZooError: if the source is not in `data_root`; nothing is downloaded.
    """
    if published.targets is not None:
        if name is not None:
            raise ValueError("these networks bring their own curves; leave out --check-against")
        return Waves(published)
    if name is None:
        return Originals()
    root = Path(data_root) if data_root else None
    try:
        source = load_images(name, root, download=False)
    except (ValueError, ZooError) as error:
        kind = ValueError if isinstance(error, ValueError) else ZooError
        raise kind(f"--check-against: {error}") from error
    if len(published.spec.axes) == 2:
        return Pictures(published, source)
    return Classifiers(published, source)
