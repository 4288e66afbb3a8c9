"""The figures of runs, as PNG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DPI = 120


def _axes(width: float, height: float, columns: int = 1) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DPI)


def confusion(counts: NDArray[np.int64], names: Sequence[str], path: Path) -> None:
    """Rows are true classes, columns predicted ones; shares of each row."""
    figure, (axes,) = _axes(5.5, 5)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    if len(names) <= 20:
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.005:
                dark = "white" if share > 0.5 else "black"
                text = f"{100 * share:.0f}"
                axes.text(column, row, text, ha="center", va="center", color=dark, fontsize=7)
    places = range(len(names))
    axes.set_xticks(places, names, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(places, names, fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    _save(figure, path)


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
    figure, (axes,) = _axes(4.5, 4.2)
    axes.scatter(wanted, found, s=4, alpha=0.4, linewidths=0)
    ends = np.array([wanted.min(), wanted.max()])
    axes.plot(ends, ends, color="grey", linewidth=1, linestyle="--", label=diagonal)
    if ends[0] < ends[1]:
        slope, offset = np.polyfit(wanted, found, 1)
        axes.plot(ends, slope * ends + offset, color="black", linewidth=1, label="linear fit")
    axes.set_xlabel(f"{across} {name}")
    axes.set_ylabel(f"{up} {name}")
    axes.legend(fontsize=8)
    _save(figure, path)


def tsne(
    features: NDArray[np.floating[Any]], values: Mapping[str, NDArray[Any]], path: Path
) -> None:
    """The features in the plane by t-SNE, a panel for each value that colours them."""
    from sklearn.manifold import TSNE

    perplexity = min(30, max(2, (len(features) - 1) // 3))
    plane = TSNE(random_state=0, perplexity=perplexity, init="pca").fit_transform(features)
    figure, panels = _axes(4.5 * len(values), 4, len(values))
    for axes, (name, colours) in zip(panels, values.items(), strict=True):
        dots = axes.scatter(plane[:, 0], plane[:, 1], c=colours, s=6, cmap="viridis")
        axes.set_xticks([])
        axes.set_yticks([])
        figure.colorbar(dots, ax=axes, label=name)
    _save(figure, path)


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
    figure, (left, right) = _axes(9, 3.5, 2)
    losses = [(r["step"], r["loss"]) for r in records if "loss" in r]
    measured = [(r["step"], r["validation"]) for r in records if "validation" in r]
    found = [(step, values[metric]) for step, values in measured if metric in values]
    if losses:
        left.plot(*zip(*losses, strict=True), linewidth=1)
    left.set_ylabel("training loss")
    if found:
        right.plot(*zip(*found, strict=True), marker=".", linewidth=1)
    right.set_ylabel(f"validation {metric}")
    if constant is not None:
        right.axhline(constant[1], color="grey", linewidth=1, linestyle="--", label=constant[0])
        right.legend(fontsize=8)
    for axes in (left, right):
        axes.set_xlabel("update")
        axes.grid(alpha=0.3)
    _save(figure, path)


def pictures(rows: Mapping[str, Sequence[NDArray[Any]]], path: Path) -> None:
    """One row of pictures for each name; values in [0, 1], `row column chan`."""
    count = max(len(shown) for shown in rows.values())
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.0 * count + 0.9, 1.05 * len(rows)), layout="constrained")
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
        line[0].set_ylabel(name, fontsize=8)
    _save(figure, path)


def shares(
    values: Mapping[str, Sequence[float]], names: Sequence[str], label: str, path: Path
) -> None:
    """Bars side by side for each name, a colour for each row of values."""
    figure, (axes,) = _axes(max(4.0, 0.8 * len(names)), 3.2)
    width = 0.8 / len(values)
    for number, (row, heights) in enumerate(values.items()):
        places = [place + number * width for place in range(len(names))]
        axes.bar(places, heights, width, label=row)
    middle = (len(values) - 1) * width / 2
    axes.set_xticks([n + middle for n in range(len(names))], names, rotation=45, fontsize=8)
    axes.set_ylabel(label)
    axes.legend(fontsize=8)
    _save(figure, path)
