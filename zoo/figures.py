"""Draws what a data card shows: how good the networks are, and some beside their originals.

All in the look of `zoo.drawing`; equal arrays give equal bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, isclose, pi
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zoo.drawing import BLUE, DPI, INK, PALE, SMALL, SPLITS, TEXT, WIDE, figure, save, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Of pictures: those of a card, to the pixel.
_WIDTH = int(WIDE * DPI)


@dataclass(frozen=True, eq=False)
class Samples:
    """A few networks beside what they were fitted to, for the card.

    Attributes:
        originals, reconstructions: of pictures `net row column chan`, black 0 and white 1
            (or uint8), one or three channels; of waves `net point`.
        captions: one a network, such as "26.3 dB"; may have several lines.
        x: the inputs of waves, `point`; None for pictures.
    """

    originals: NDArray[Any]
    reconstructions: NDArray[Any]
    captions: Sequence[str]
    x: NDArray[Any] | None = None

    def first(self, count: int) -> "Samples":
        """At most so many of them."""
        shown = self.originals[:count], self.reconstructions[:count]
        return Samples(*shown, self.captions[:count], self.x)

    def __post_init__(self) -> None:
        _check_samples(self.originals, self.reconstructions, self.captions)


def quality_histogram(
    path: Path, values: Mapping[str, ArrayLike], label: str, log: bool = False
) -> None:
    """Draw how a quality is spread over the networks of each split.

    Args:
        values: per split, one value a network; what is not finite (and, if `log`, not
            positive) is counted in the legend but not drawn.
        label: of the horizontal axis, with the unit.
        log: a logarithmic axis, for errors.
    """
    made = figure(WIDE, 3.2)
    _draw_histogram(made.subplots(), values, label, log)
    save(made, path)


def _draw_histogram(axes: Any, values: Mapping[str, ArrayLike], label: str, log: bool) -> None:
    found = {split: np.asarray(value, np.float64).ravel() for split, value in values.items()}
    drawn = {
        split: value[np.isfinite(value) & ((value > 0) | (not log))]
        for split, value in found.items()
    }
    together = np.concatenate([*drawn.values(), np.empty(0)])
    low, high = (together.min(), together.max()) if together.size else (1.0, 2.0)
    bins = int(np.clip(2 * np.sqrt(together.size), 10, 48))
    if log:
        low, high = (low * 0.9, high * 1.1) if low == high else (low, high)
        edges = np.geomspace(low, high, bins + 1)
        axes.set_xscale("log")
    else:
        low, high = (low - 0.5, high + 0.5) if low == high else (low, high)
        edges = np.linspace(low, high, bins + 1)
    for split, value in drawn.items():
        if not found[split].size:
            continue
        colour, dashes = SPLITS.get(split, (INK, "solid"))
        counts = np.histogram(value, edges)[0] * (100 / max(1, value.size))
        missing = found[split].size - value.size
        more = f", {missing:,} not drawn" if missing else ""
        name = f"{split} ({found[split].size:,}{more})"
        fill = split == "train" or len(drawn) == 1
        if fill:
            axes.stairs(counts, edges, fill=True, color=colour, alpha=0.25)
        axes.stairs(counts, edges, color=colour, linewidth=1.8, linestyle=dashes, label=name)
        if value.size:
            middle = {"color": colour, "markeredgecolor": INK, "markersize": 8, "clip_on": False}
            axes.plot(np.median(value), 0, "^", zorder=5, **middle)
    axes.set_xlabel(label + "; triangle: median")
    axes.set_ylabel("networks [% of split]")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=SMALL)
    tidy(axes)


# Places at which runs of steps of their own are compared.
_PLACES = 40


def middle_of_runs(
    run: NDArray[Any], step: NDArray[Any], accuracy: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Steps, and the 0.1, 0.5 and 0.9 quantiles over all runs at each, `step 3`.

    Where runs are kept at steps of their own, these are 40 places at most, as dense as the
    steps are. Between two kept networks a run counts by the straight line, behind its last by
    that: else a step would show only the few runs that were kept there. Before its first it
    does not count, and places where half of the runs do not are left out.
    """
    places = np.unique(step).astype(np.float64)
    kept = int(np.ceil(step.size / max(1, len(np.unique(run)))))
    if places.size > min(kept, 400):
        places = np.unique(np.quantile(step, np.linspace(0, 1, _PLACES)))
    lines = []
    for each in np.unique(run):
        order = np.argsort(step[run == each], kind="stable")
        steps, values = step[run == each][order], accuracy[run == each][order]
        lines.append(np.interp(places, steps, values, left=np.nan))
    found = np.array(lines)
    told = np.isfinite(found).mean(axis=0) >= 0.5
    return places[told], np.nanquantile(found[:, told], (0.1, 0.5, 0.9), axis=0).T


def accuracy_over_steps(
    path: Path,
    values: Mapping[str, tuple[NDArray[Any], NDArray[Any], NDArray[Any]]],
    histogram: bool = True,
) -> None:
    """Draw median and middle 80 % of the accuracy of the runs over the steps.

    Args:
        values: per split the run, the step and the accuracy of every network.
        histogram: also draw how the accuracy is spread.
    """
    spread = {split: accuracy for split, (_, _, accuracy) in values.items()}
    made, axes = _below_histogram(spread, histogram)
    for split, (run, step, accuracy) in values.items():
        runs = len(np.unique(run))
        at, quantiles = middle_of_runs(run, step, accuracy)
        colour, dashes = SPLITS.get(split, (INK, "solid"))
        line = {"color": colour, "linewidth": 1.8, "linestyle": dashes}
        axes.plot(at, quantiles[:, 1], label=f"{split} ({runs:,} runs)", **line)
        if split == "train" or len(values) == 1:
            axes.fill_between(
                at, quantiles[:, 0], quantiles[:, 2], color=colour, alpha=0.2, linewidth=0
            )
    axes.set_xlabel("updates")
    axes.set_ylabel("test accuracy")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    made.legend(frameon=False, fontsize=SMALL, loc="outside lower center", ncols=len(values))
    tidy(axes)
    save(made, path)


def accuracy_of_pairs(
    path: Path,
    values: Mapping[str, tuple[NDArray[Any], NDArray[Any], NDArray[Any]]],
    names: Sequence[str],
    histogram: bool = True,
) -> None:
    """Draw the mean accuracy of each pair of classes, as a triangle of numbers.

    Args:
        values: per split the higher class, the lower one and the accuracy of every network.
        names: of the classes.
        histogram: also draw how the accuracy is spread.
    """
    spread = {split: accuracy for split, (_, _, accuracy) in values.items()}
    made, axes = _below_histogram(spread, histogram)
    count = len(names)
    total, seen = np.zeros((count, count)), np.zeros((count, count))
    for *pair, accuracy in values.values():
        np.add.at(total, tuple(pair), accuracy.astype(np.float64))
        np.add.at(seen, tuple(pair), 1)
    mean = np.where(seen > 0, total / np.maximum(seen, 1), np.nan)
    axes.imshow(np.ma.masked_invalid(mean), cmap="viridis", aspect="auto")
    low, high = (np.nanmin(mean), np.nanmax(mean)) if seen.any() else (0.0, 1.0)
    if count <= 16:
        for row, column in zip(*np.nonzero(seen), strict=True):
            dark = mean[row, column] < low + 0.6 * (high - low)
            axes.text(
                column, row, f"{mean[row, column]:.2f}".removeprefix("0"), ha="center", va="center",
                fontsize=8, color="white" if dark else INK,
            )  # fmt: skip
    shown = [name if len(name) <= 12 else f"{name[:11]}…" for name in names]
    axes.set_xticks(range(count), shown, rotation=45, ha="right", fontsize=SMALL)
    axes.set_yticks(range(count), shown, fontsize=SMALL)
    axes.set_title("mean test accuracy by pair of classes", fontsize=TEXT, color=INK)
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
    save(made, path)


def _below_histogram(spread: Mapping[str, ArrayLike], histogram: bool) -> tuple["Figure", Any]:
    """A figure, and the axes that are left below the spread of an accuracy if that is drawn."""
    made = figure(WIDE, 7.6 if histogram else 4.4)
    axes = made.subplots(2 if histogram else 1, 1, squeeze=False)[:, 0]
    if histogram:
        _draw_histogram(axes[0], spread, "test accuracy", log=False)
    return made, axes[-1]


def sample_grid(
    path: Path, originals: ArrayLike, reconstructions: ArrayLike, captions: Sequence[str]
) -> None:
    """Draw pictures in pairs, the original on the left, at most eight pairs a row.

    Args:
        originals, reconstructions: `net row column chan` (or without chan), uint8 or
            black 0 and white 1; values outside are clipped. Every pixel is drawn as a
            square of whole pixels, so nothing is blurred.
        captions: one a pair.

    Raises:
        ValueError: if the numbers of pictures and captions differ.
    """
    pairs = [_pictures(originals), _pictures(reconstructions)]
    _check_samples(pairs[0], pairs[1], captions)
    tall, wide = pairs[0].shape[1:3]
    inner, outer, margin = 4, 20, 10
    per_row = min(8, len(captions), max(1, (_WIDTH - 2 * margin) // (2 * wide + inner + outer)))
    rows = ceil(len(captions) / per_row)
    pair = 2 * wide + inner
    lines = [caption.splitlines() or [""] for caption in captions]
    longest = max(len(line) for caption in lines for line in caption)
    # A letter of DejaVu Sans is about 0.6 of its size wide.
    size = int(np.clip((pair + outer - 8) / (0.6 * max(longest, 1)), 11, 15))
    below = int(1.25 * size * max(len(caption) for caption in lines)) + 14
    head = 28
    width = max(2 * margin + per_row * (pair + outer) - outer, 420)
    height = head + rows * (tall + below)
    left = (width - per_row * (pair + outer) + outer) // 2

    made = figure(width / DPI, height / DPI, constrained=False)
    made.text(
        0.5,
        1 - head / 2 / height,
        "left: original      right: network",
        color=INK,
        fontsize=TEXT,
        ha="center",
        va="center",
    )
    for number, caption in enumerate(lines):
        row, column = divmod(number, per_row)
        x = left + column * (pair + outer)
        y = height - head - row * (tall + below) - tall
        for side, pictures in enumerate(pairs):
            # figimage puts array pixels on figure pixels, without resampling.
            made.figimage(pictures[number], x + side * (wide + inner), y)
        made.text(
            (x + pair / 2) / width,
            (y - 5) / height,
            "\n".join(caption),
            color=INK,
            fontsize=size * 72 / DPI,
            ha="center",
            va="top",
            parse_math=False,
        )
    save(made, path)


def wave_grid(
    path: Path,
    x: ArrayLike,
    originals: ArrayLike,
    reconstructions: ArrayLike,
    captions: Sequence[str],
) -> None:
    """Draw waves, the original thick and grey, the network's thin and blue on top.

    Args:
        x: `point`.
        originals, reconstructions: `net point`.
        captions: one a wave.

    Raises:
        ValueError: if the numbers of waves and captions differ.
    """
    at = np.asarray(x, np.float64).ravel()
    count = len(captions)
    pairs = [np.asarray(waves, np.float64) for waves in (originals, reconstructions)]
    _check_samples(pairs[0], pairs[1], captions)
    pairs = [waves.reshape(count, at.size) for waves in pairs]
    per_row = min(4, count)
    rows = ceil(count / per_row)
    made = figure(WIDE, 1.5 * rows + 0.3)
    grid = made.subplots(rows, per_row, sharex=True, squeeze=False)
    for number, axes in enumerate(grid.flat):
        if number >= count:
            axes.set_axis_off()
            continue
        axes.plot(at, pairs[0][number], color=PALE, linewidth=5, solid_capstyle="round")
        axes.plot(at, pairs[1][number], color=BLUE, linewidth=1.3)
        axes.set_title(captions[number], fontsize=TEXT, color=INK, parse_math=False)
        axes.margins(x=0.02, y=0.12)
        axes.tick_params(labelbottom=number + per_row >= count)
        axes.locator_params(axis="y", nbins=4)
        if isclose(at[0], -pi, rel_tol=1e-6) and isclose(at[-1], pi, rel_tol=1e-6):
            axes.set_xticks([-pi, 0, pi], ["\N{MINUS SIGN}π", "0", "π"])
        tidy(axes)
    save(made, path)


def _check_samples(
    originals: NDArray[Any], reconstructions: NDArray[Any], captions: Sequence[str]
) -> None:
    shapes = np.shape(originals), np.shape(reconstructions)
    if not captions or {len(captions)} != {shape[0] if shape else 0 for shape in shapes}:
        raise ValueError(
            f"expected as many originals and reconstructions as captions, at least one, got "
            f"{shapes[0]}, {shapes[1]} and {len(captions)} captions"
        )


def _pictures(images: ArrayLike) -> NDArray[Any]:
    """`net row column 3` in [0, 1], enlarged or averaged by a whole factor."""
    array = np.asarray(images)
    pixels = array.astype(np.float32) / (255 if array.dtype == np.uint8 else 1)
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    if pixels.ndim != 4 or pixels.shape[3] not in (1, 3):
        raise ValueError(f"expected pictures (net, row, column, 1 or 3), got {tuple(array.shape)}")
    pixels = np.broadcast_to(np.clip(np.nan_to_num(pixels), 0, 1), (*pixels.shape[:3], 3))
    side = max(pixels.shape[1:3])
    if side > 168:
        net, row, column, chan = pixels.shape
        factor = min(ceil(side / 96), row, column)
        pixels = pixels[:, : row // factor * factor, : column // factor * factor]
        blocks = (net, row // factor, factor, column // factor, factor, chan)
        pixels = pixels.reshape(blocks).mean(axis=(2, 4))
        side = max(pixels.shape[1:3])
    factor = max(1, round(84 / side))
    return pixels.repeat(factor, axis=1).repeat(factor, axis=2)
