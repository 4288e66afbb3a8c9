"""The figures of reports: dots of ours, marks of what was published, chance and ceiling as lines.

A panel is one experiment at one number of training networks. Marks of papers are labelled with
the scale that they belong to; what reads functions is hollow, so that figures can be read in
grey.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from processors import labels
from processors.published import Table
from processors.results import Row, Section
from zoo import drawing

_INK, _PALE = drawing.INK, drawing.GREY
# One for each table of a paper.
_MARKS = "Ds^vPX*<>"
_LINE = 0.24


def _figure(height: float, rows: int = 1, columns: int = 1) -> Any:
    figure = drawing.figure(drawing.WIDE, height)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _tidy(axes: Any) -> None:
    drawing.tidy(axes, "x")
    axes.tick_params(axis="y", labelsize=8)


def _levels(section: Section, axes: Any) -> list[tuple[Any, str]]:
    """Chance dotted and the ceiling dashed, with what they are called."""
    found = []
    if section.constant is not None:
        name, score = section.constant
        line = axes.axvline(score, color=_INK, linewidth=1.1, linestyle=drawing.CHANCE)
        found.append((line, f"{name}: {score:.3g}"))
    if section.limit is not None:
        score = section.mean(section.limit)
        line = axes.axvline(score, color=_INK, linewidth=1.1, linestyle=drawing.CEILING)
        found.append((line, f"ceiling, {labels.model_words(section.limit.model)}: {score:.3g}"))
    for name, score in section.bounds:
        line = axes.axvline(score, color=_INK, linewidth=1.1, linestyle=drawing.CEILING)
        found.append((line, f"{name}: {score:.3g}"))
    return found


def _scaled(section: Section, axes: Any) -> None:
    """A logarithmic axis for errors that lie far apart."""
    values = [section.mean(row) for row in section.rows]
    values += [value for table in section.tables for value, _ in table.values.values()]
    if not section.higher and min(values) > 0 and max(values) > 15 * min(values):
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        axes.set_xscale("log")
        # Over three decades the numbers between their bounds would overlap.
        many = max(values) > 1_000 * min(values)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if many else (1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())


def compare(section: Section, path: Path) -> None:
    """Each of our rows beside what was published for its model, and what else was published."""
    rows = [row for row in section.rows if not row.ceiling]
    words = dict(zip(section.rows, labels.names(section.rows, section.tables), strict=True))
    ticks = [textwrap.fill(words[row], 44) for row in rows]
    marks, theirs = _published(section, rows, words)
    lines = len(rows) + len(theirs)
    figure, grid = _figure(_LINE * lines + 1.1 + 0.2 * (len(section.tables) + 2))
    axes = grid[0, 0]
    for place, row in enumerate(rows):
        values = section.factor * np.asarray(row.values(section.metric))
        _dots(axes, values, place, row.reads)
    for place, table, value in marks:
        mark = _MARKS[section.tables.index(table) % len(_MARKS)]
        axes.plot(value, place, mark, color=_PALE, markerfacecolor="none", markersize=7)
    axes.set_yticks(range(lines), [*ticks, *theirs], fontsize=8)
    axes.set_ylim(lines - 0.4, -0.6)
    if theirs:
        axes.axhline(len(rows) - 0.5, color=_PALE, linewidth=0.5)
    _scaled(section, axes)
    axes.set_xlabel(section.unit, fontsize=9)
    title = textwrap.fill(labels.heading(section), 110)
    figure.suptitle(title, x=0.01, ha="left", fontsize=9)
    _tidy(axes)
    axes.xaxis.label.set_size(9)
    for tick in axes.get_yticklabels()[len(rows) :]:
        tick.set(color=_PALE, style="italic")
    _legend(figure, axes, section, rows, _levels(section, axes))
    drawing.save(figure, path)


def _dots(axes: Any, values: Any, place: float, reads: str) -> None:
    """A dot for each seed, hollow where functions are read, and a tick for their mean."""
    fill = "none" if reads == "function" else _INK
    if len(values) > 1:
        axes.plot(values.mean(), place, "|", color=_INK, markersize=13)
    axes.plot(
        values,
        [place] * len(values),
        "o",
        color=_INK,
        markerfacecolor=fill,
        markersize=6,
        alpha=0.75,
    )


def _published(
    section: Section, rows: Sequence[Row], words: dict[Row, str]
) -> tuple[list[tuple[int, Table, float]], list[str]]:
    """Places of marks, with table and number; and names of the lines that are theirs alone.

    A number stands in the line of the first of our rows that is called as it is, or by its model
    alone.
    """
    called = [words[row].removesuffix(labels.BEFORE).strip() for row in rows]
    models = [labels.model_words(row.model) for row in rows]
    marks: list[tuple[int, Table, float]] = []
    theirs: list[str] = []
    for table in section.tables:
        for name, (value, _) in table.values.items():
            text = labels.published_words(name)
            if text in called:
                place = called.index(text)
            elif text in models:
                place = models.index(text)
            else:
                if text not in theirs:
                    theirs.append(text)
                place = len(rows) + theirs.index(text)
            marks.append((place, table, value))
    return marks, theirs


def _legend(
    figure: Any,
    axes: Any,
    section: Section,
    rows: Sequence[Row],
    levels: Sequence[tuple[Any, str]],
) -> None:
    from matplotlib.lines import Line2D

    handles, words = [], []
    for reads in dict.fromkeys(row.reads for row in rows):
        fill = "none" if reads == "function" else _INK
        handles.append(Line2D([], [], marker="o", color=_INK, markerfacecolor=fill, linestyle=""))
        words.append(f"ours, {section.networks:,} networks, reads {reads}")
    for number, table in enumerate(section.tables):
        if table.values:
            mark = _MARKS[number % len(_MARKS)]
            handles.append(
                Line2D([], [], marker=mark, color=_PALE, markerfacecolor="none", linestyle="")
            )
            words.append(f"published, {table.scale} ({table.where})")
    handles += [line for line, _ in levels]
    words += [text for _, text in levels]
    words = [textwrap.fill(text, 115) for text in words]
    figure.legend(handles, words, loc="outside lower left", fontsize=8, frameon=False, ncols=1)


def glance(sections: Sequence[Section], path: Path) -> None:
    """A panel for each experiment: all of ours in a line each, the papers' below.

    Args:
        sections: of experiments, at the largest number of networks of each.
    """
    columns = 2
    lines = -(-len(sections) // columns)
    figure, grid = _figure(1.65 * lines + 0.3, lines, columns)
    for axes, section in zip(grid.flat, sections, strict=False):
        _panel(axes, section)
    for axes in grid.flat[len(sections) :]:
        axes.set_axis_off()
    figure.supxlabel(
        "Dots: ours (hollow: reads the function). Diamonds: published, with their number of "
        "networks.\nDotted: what one has without reading networks. Dashed: the ceiling.",
        fontsize=8, x=0.01, ha="left",
    )  # fmt: skip
    drawing.save(figure, path)


def _panel(axes: Any, section: Section) -> None:
    rows = [row for row in section.rows if not row.ceiling]
    kinds = [kind for kind in ("weights", "function") if any(r.reads == kind for r in rows)]
    kinds += [kind for kind in dict.fromkeys(r.reads for r in rows) if kind not in kinds]
    for place, kind in enumerate(kinds):
        of = [row for row in rows if row.reads == kind]
        for row in of:
            _dots(axes, np.asarray([section.mean(row)]), place, kind)
        _name_best(axes, section, section.mean(of[0]), place, labels.model_words(of[0].model))
    scales = list(dict.fromkeys(_count(table.scale) for table in section.tables if table.values))
    for place, scale in enumerate(scales, len(kinds)):
        found = [
            (value, labels.published_words(name).partition(",")[0])
            for table in section.tables
            if _count(table.scale) == scale
            for name, (value, _) in table.values.items()
        ]
        for value, _ in found:
            axes.plot(value, place, "D", color=_PALE, markerfacecolor="none", markersize=5)
        best, name = (max if section.higher else min)(found)
        _name_best(axes, section, best, place, name, _PALE)
    total = len(kinds) + len(scales)
    axes.set_yticks(range(total), [*(f"{section.networks:,}" for _ in kinds), *scales], fontsize=8)
    axes.set_ylim(total - 0.4, -0.75)
    _scaled(section, axes)
    _levels(section, axes)
    _tidy(axes)
    for tick in axes.get_yticklabels()[len(kinds) :]:
        tick.set_color(_PALE)
    source = labels.source_words(section.config["source"])
    axes.set_title(f"{section.identity} {source}: {section.unit}", fontsize=8.5, loc="left")


def _count(scale: str) -> str:
    """The number of networks that a scale begins with, or the zoo that it names.

    >>> _count("55,000 networks, 100 epochs"), _count("Small CNN Zoo, tanh half")
    ('55,000', 'Small CNN Zoo')
    """
    return scale.partition(" ")[0] if scale[:1].isdigit() else scale.partition(",")[0]


def _name_best(
    axes: Any, section: Section, value: float, place: float, name: str, colour: str = _INK
) -> None:
    """The name above the best dot, to the side where there is room."""
    side = "right" if section.higher else "left"
    axes.annotate(
        f"{name} {value:.3g}", (value, place), (0, 5), textcoords="offset points",
        fontsize=7, ha=side, va="bottom", color=colour,
    )  # fmt: skip
