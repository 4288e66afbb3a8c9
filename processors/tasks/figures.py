"""The figures of runs, as PNG files, in the look of `zoo.drawing`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from processors import metrics
from zoo import drawing

# Networks that neighbours in a plane can be told of.
FEWEST = 4


def _axes(height: float, columns: int = 1) -> Any:
    figure = drawing.figure(drawing.WIDE, height)
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def confusion(counts: NDArray[np.int64], names: Sequence[str], path: Path) -> None:
    """Rows are true classes, columns predicted ones; shares of each row."""
    figure, (axes,) = _axes(6)
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, vmin=0, vmax=100, cmap="Blues")
    if len(names) <= 20:
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.5:
                dark = "white" if share > 50 else drawing.INK
                text = f"{share:.0f}"
                axes.text(column, row, text, ha="center", va="center", color=dark, fontsize=8)
    places = range(len(names))
    axes.set_xticks(places, names, rotation=45, ha="right", fontsize=drawing.SMALL)
    axes.set_yticks(places, names, fontsize=drawing.SMALL)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    figure.colorbar(image, ax=axes, label="share of the true class [%]", shrink=0.8)
    drawing.save(figure, path)


def predicted(
    found: NDArray[np.floating[Any]],
    wanted: NDArray[np.floating[Any]],
    name: str,
    path: Path,
    labels: tuple[str, str, str] = ("actual", "predicted", "perfect"),
) -> None:
    """Predictions against the truth, with the diagonal and a fitted line.

    Args:
        labels: what stands before the name of both axes, and the diagonal's name.
    """
    across, up, diagonal = labels
    figure, (axes,) = _axes(4.6)
    axes.scatter(wanted, found, s=8, alpha=0.5, linewidths=0, color=drawing.BLUE)
    ends = np.array([wanted.min(), wanted.max()])
    axes.plot(ends, ends, color=drawing.GREY, linewidth=1, linestyle="--", label=diagonal)
    if ends[0] < ends[1]:
        slope, offset = np.polyfit(wanted, found, 1)
        axes.plot(ends, slope * ends + offset, color=drawing.INK, linewidth=1, label="linear fit")
    words = name.replace("_", " ")
    axes.set_xlabel(f"{across} {words}")
    axes.set_ylabel(f"{up} {words}")
    axes.legend(frameon=False, fontsize=drawing.SMALL)
    drawing.tidy(axes, "both")
    drawing.save(figure, path)


def tsne(
    features: NDArray[np.floating[Any]], values: Mapping[str, NDArray[Any]], path: Path
) -> None:
    """The features in the plane by t-SNE, a panel for each value that colours them.

    Args:
        features: `net feat`, of at least `FEWEST` networks.
    """
    from sklearn.manifold import TSNE

    perplexity = min(30, max(2, (len(features) - 1) // 3))
    init = "pca" if features.shape[1] > 1 else "random"
    plane = TSNE(random_state=0, perplexity=perplexity, init=init).fit_transform(features)
    figure, panels = _axes(4, len(values))
    for axes, (name, colours) in zip(panels, values.items(), strict=True):
        dots = axes.scatter(plane[:, 0], plane[:, 1], c=colours, s=6, cmap="viridis")
        axes.set_xticks([])
        axes.set_yticks([])
        figure.colorbar(dots, ax=axes, label=name.replace("_", " "))
    drawing.save(figure, path)


def curves(
    records: Sequence[Mapping[str, Any]],
    metric: str,
    path: Path,
    constant: tuple[str, float, float] | None = None,
) -> None:
    """Training loss, and the validation metric, over updates.

    Args:
        constant: name and score of what reads no networks, drawn as a line.
    """
    figure, (left, right) = _axes(3.2, 2)
    losses = [(r["step"], r["loss"]) for r in records if "loss" in r]
    measured = [(r["step"], r["validation"]) for r in records if "validation" in r]
    shown = metrics.metric(metric)
    factor = shown.factor
    found = [(step, factor * values[metric]) for step, values in measured if metric in values]
    line = {"color": drawing.BLUE, "linewidth": 1.3}
    if losses:
        left.plot(*zip(*losses, strict=True), **line)
    left.set_ylabel("training loss")
    if found:
        right.plot(*zip(*found, strict=True), marker=".", **line)
    unit = f" [{shown.unit}]" if shown.unit else ""
    right.set_ylabel(f"{shown.words}{unit}, validation split")
    for axes in (left, right):
        axes.set_xlabel("updates")
        axes.locator_params(axis="x", nbins=5)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        drawing.tidy(axes, "both")
    if constant is not None:
        name, score = constant[0], factor * constant[1]
        drawing.level(right, score, f"{name} {score:.3g}", drawing.CHANCE)
    drawing.save(figure, path)


def pictures(rows: Mapping[str, Sequence[NDArray[Any]]], path: Path) -> None:
    """One row of pictures for each name; values in [0, 1], `row column chan`."""
    count = max(len(shown) for shown in rows.values())
    figure = drawing.figure(drawing.WIDE, (drawing.WIDE - 0.6) / count * 1.05 * len(rows))
    grid = figure.subplots(len(rows), count, squeeze=False)
    for line, (name, shown) in zip(grid, rows.items(), strict=True):
        for axes, picture in zip(line, shown, strict=False):
            grey = picture.shape[-1] == 1
            axes.imshow(
                np.clip(picture[..., 0] if grey else picture, 0, 1),
                cmap="gray" if grey else None,
                vmin=0,
                vmax=1,
            )
        for axes in line:
            axes.set_xticks([])
            axes.set_yticks([])
        line[0].set_ylabel(name, fontsize=drawing.SMALL)
    drawing.save(figure, path)


def shares(
    values: Mapping[str, Sequence[float]], names: Sequence[str], label: str, path: Path
) -> None:
    """Bars side by side for each name, a colour for each row of values."""
    figure, (axes,) = _axes(3.2)
    width = 0.8 / len(values)
    for number, (row, heights) in enumerate(values.items()):
        places = [place + number * width for place in range(len(names))]
        colour, _, hatch = drawing.SERIES[number % len(drawing.SERIES)]
        axes.bar(places, heights, width, label=row, color=colour, hatch=hatch, edgecolor="white")
    middle = (len(values) - 1) * width / 2
    axes.set_xticks([n + middle for n in range(len(names))], names, rotation=45)
    axes.set_ylabel(label)
    axes.legend(frameon=False, fontsize=drawing.SMALL)
    drawing.tidy(axes)
    drawing.save(figure, path)


def ranked(
    values: Mapping[str, Sequence[NDArray[Any]]], names: Sequence[str], label: str, path: Path
) -> None:
    """A panel for each name: a line for each row of values, which fall, over their ranks in %."""
    figure, panels = _axes(3.2, len(names))
    for number, (row, lines) in enumerate(values.items()):
        colour, style, _ = drawing.SERIES[number % len(drawing.SERIES)]
        for axes, line in zip(panels, lines, strict=True):
            ranks = np.linspace(0, 100, len(line))
            axes.plot(ranks, line, label=row, color=colour, linestyle=style)
    for axes, name in zip(panels, names, strict=True):
        axes.set_title(name)
        axes.set_xlabel("rank [%]")
        drawing.tidy(axes)
    panels[0].set_ylabel(label)
    panels[-1].legend(frameon=False, fontsize=drawing.SMALL)
    drawing.save(figure, path)
