"""One look for the figures of cards, runs and reports: sizes, colours, lines, files.

A figure `WIDE` inches wide fills the 800 pixels that the Hub gives a card. Splits, and what
else is compared, differ in brightness and in dashes or hatches, so nothing is lost in grey.
Small PNGs on matplotlib's Agg canvas, without global state; equal arrays give equal bytes.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.shards import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 100
WIDE = 8.0
INK = "#30363d"
PALE = "#d0d7de"
GREY = "#7d8590"
# Colours from dark to light, with the dashes and hatches that go with them.
SERIES: tuple[tuple[str, Any, str], ...] = (
    ("#1f4e8c", "solid", ""),
    ("#d07a1c", (0, (5, 1.5)), "//"),
    ("#7cc7ad", (0, (1.2, 1)), ".."),
)
SPLITS: dict[str, tuple[str, Any]] = {
    split: (colour, dashes)
    for split, (colour, dashes, _) in zip(("train", "validation", "test"), SERIES, strict=True)
}
BLUE = SERIES[0][0]
# Lines that results are measured by: what one has without reading networks, and what
# the pictures themselves give.
CHANCE, CEILING = "dotted", "dashed"
# Sizes of letters, in points.
TEXT, SMALL = 10, 9


def figure(width: float, height: float, constrained: bool = True) -> "Figure":
    """A figure of so many inches with a canvas of its own."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    layout: Any = "constrained" if constrained else "none"
    made = Figure(figsize=(width, height), dpi=DPI, layout=layout, facecolor="white")
    FigureCanvasAgg(made)
    return made


def tidy(axes: Any, grid: str = "y") -> None:
    """Axes without a frame, with pale lines across `grid` ("x", "y" or "both")."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(PALE)
    axes.tick_params(color=PALE, labelcolor=INK, labelsize=SMALL)
    axes.xaxis.label.set_size(TEXT)
    axes.yaxis.label.set_size(TEXT)
    axes.grid(axis=grid, color=PALE, linewidth=0.6, alpha=0.6)
    axes.set_axisbelow(True)


def level(axes: Any, value: float, words: str, dashes: str, upright: bool = False) -> None:
    """A thin line at a value, named where it ends.

    Args:
        dashes: `CHANCE` or `CEILING`.
        upright: whether the value is on the horizontal axis; then its name stands above.
    """
    line = {"color": INK, "linewidth": 1.1, "linestyle": dashes, "zorder": 1}
    name = {"color": INK, "fontsize": SMALL, "parse_math": False}
    if upright:
        axes.axvline(value, **line)
        where = axes.get_xaxis_transform()
        axes.text(value, 1.01, words, ha="center", va="bottom", transform=where, **name)
        return
    axes.axhline(value, **line)
    where = axes.get_yaxis_transform()
    axes.annotate(
        words, (1, value), xycoords=where, xytext=(0, 2), textcoords="offset points",
        ha="right", va="bottom", **name,
    )  # fmt: skip


def save(made: "Figure", path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        # No version in the file: equal arrays give equal bytes.
        made.savefig(
            temporary, format="png", metadata={"Software": None}, pil_kwargs={"optimize": True}
        )
