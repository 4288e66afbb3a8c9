"""Sets the results of runs side by side, and below them what was published.

One table an experiment and number of training networks, in one unit: ours, then what one has
without reading networks, then all that was published, in italics, with its scale, paper and
table. Every row says what it reads of a network. How the rows came about (settings, device,
minutes, commands) is folded away below. A report of several experiments opens with one figure and
one table of all of them. What you write between the two marks that stand there is kept when
the report is made again.
"""

import hashlib
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from processors import charts, labels, runs
from processors.files import write_text
from processors.published import Table
from processors.results import (
    Found,
    Row,
    Section,
    collect,
    identity,
    keep,
    newest,
    sections,
    unfinished,
)  # fmt: skip

__all__ = [
    "Row", "Section", "collect", "keep", "newest", "render", "sections", "unfinished", "write",
]  # fmt: skip

NOTES, END = "<!-- your notes: kept when the report is made again -->", "<!-- end of notes -->"
_NOTES = re.compile(f"{re.escape(NOTES)}(.*){re.escape(END)}", re.DOTALL)


def number(value: float, section: Section) -> str:
    """As it is shown in the section's unit."""
    return f"{value:.2f}" if section.factor == 100 else f"{value:.3g}"


def _value(section: Section, row: Row) -> str:
    """The mean over seeds, and their deviation."""
    scaled = section.factor * np.asarray(row.values(section.metric))
    text = number(float(scaled.mean()), section)
    return f"{text} ± {scaled.std(ddof=1):.2g}" if len(scaled) > 1 else text


def _lines(cells: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table; the first row is its head."""
    head, *rows = [f"| {' | '.join(row)} |" for row in cells]
    return [head, "|" + "---|" * len(cells[0]), *rows]


def _italic(words: Sequence[str]) -> list[str]:
    return [f"*{word}*" if word else "" for word in words]


def _results(section: Section, names: Sequence[str]) -> list[str]:
    """Ours, a constant's, and all that was published; one unit."""
    later = list(dict.fromkeys(w for row in section.rows for w in row.after(section.metric)))
    cells = [["model", "reads", section.unit, *later, "of scale"]]
    best = [section.best(reads) for reads in ("weights", "function", "own")]
    for name, row in zip(names, section.rows, strict=True):
        value = _value(section, row)
        after = row.after(section.metric)
        cells.append([
            f"ceiling: {name}" if row.ceiling else name, row.reads,
            f"**{value}**" if row in best else value,
            *(_again(section, row, after[w]) if w in after else "" for w in later),
            row.scale,
        ])  # fmt: skip
    gap = [""] * len(later)
    if section.constant is not None:
        name, score = section.constant
        told = number(score, section)
        cells.append(_italic([name, "nothing", told, *gap, "without reading networks"]))
    for name, score in section.bounds:
        told = number(score, section)
        cells.append(_italic([name, "training", told, *gap, "of the same networks"]))
    for table in section.tables:
        cells += [_italic(row) for row in _published(table, section, gap)]
    return _lines(cells)


def _again(section: Section, row: Row, found: tuple[float, int]) -> str:
    """A mean of what was measured once more, and of how many seeds if not of all."""
    mean, seeds = found
    text = number(section.factor * mean, section)
    return text if seeds == len(row.summaries) else f"{text} ({seeds} of the seeds)"


def _published(table: Table, section: Section, gap: Sequence[str]) -> list[list[str]]:
    """The rows of a paper's table, the best first."""
    where = f"{table.scale} ({table.where})"
    if not table.values:
        return [["published", "", "a plot", *gap, where]]
    ranked = sorted(table.values, key=lambda name: table.values[name][0], reverse=section.higher)
    return [
        [labels.published_words(name), labels.reads(name), str(table.published(name)), *gap, where]
        for name in ranked
    ]


def _conditions(section: Section, names: Sequence[str]) -> list[str]:
    """The table of how the rows came about, and the commands; folded away."""
    cells = [["model", "preset", "lr", "batch", "updates", "parameters", "device", "minutes",
              "other metrics"]]  # fmt: skip
    for name, row in zip(names, section.rows, strict=True):
        first, config = row.summaries[0], row.configs[0]
        cells.append(
            [
                name,
                config.get("preset", ""),
                f"{first['lr']:g}",
                f"{first['batch']:,}",
                f"{np.mean([s['steps'] for s in row.summaries]):,.0f}",
                f"{first['parameters']:,}",
                first["device"],
                f"{np.mean([s['minutes'] for s in row.summaries]):.1f}",
                _others(row, section.metric),
            ]
        )
    each = (one for row in section.rows for one in (row, *row.again))
    commands = [f"    {row.configs[0]['command']}" for row in each]
    return [
        "<details><summary>Settings, device, minutes, commands</summary>", "", *_lines(cells), "",
        *commands, "", "</details>",
    ]  # fmt: skip


def _others(row: Row, metric: str) -> str:
    """The other test metrics, means over seeds."""
    shown = {metric, f"{metric}_rescaled", f"{metric}_flipped"}
    names = [n for n in row.summaries[0]["test"] if n not in shown and " after " not in n]
    names = [n for n in names if all(n in s["test"] for s in row.summaries)]
    return ", ".join(f"{name} {np.mean(row.values(name)):.4g}" for name in names)


def _of_before(rows: Sequence[Row]) -> list[str]:
    if not any(row.before for row in rows):
        return []
    return [
        "",
        f"{labels.BEFORE} by settings of before there were presets; the commands say which.",
    ]


# ---- all experiments at a glance


def _largest(made: Sequence[Section]) -> list[Section]:
    """One section an experiment, of most networks, those of the published scale first.

    Those about parts of models are left out.
    """
    found: dict[str, Section] = {}
    for section in made:
        if section.identity and not section.part:
            subject = labels.subject(section)
            if subject not in found or section.networks > found[subject].networks:
                found[subject] = section
    return sorted(found.values(), key=lambda each: not _equal(each))


def _equal(section: Section) -> bool:
    """Whether the paper's numbers are of as many networks as ours."""
    return any(table.networks == section.networks for table in section.tables)


def _glance(shown: Sequence[Section], picture: Path) -> list[str]:
    """A figure and a table of all experiments: ours, and the best published."""
    charts.glance(shown, picture)
    cells = [["experiment", "unit", "without reading", "ours: weights", "ours: function", "ceiling",
              "networks", "best published", "of scale"]]  # fmt: skip
    for section in shown:
        best = [section.best("weights"), section.best("function"), section.limit]
        ours = [
            f"{labels.model_words(row.model)} **{number(section.mean(row), section)}**"
            if row else "" for row in best
        ]  # fmt: skip
        if section.limit is None and section.bounds:
            name, score = section.bounds[0]
            ours[-1] = f"{name} **{number(score, section)}**"
        told = number(section.constant[1], section) if section.constant else ""
        networks = f"{section.networks:,}" + (", as published" if _equal(section) else "")
        cells.append([
            f"[{section.identity}](#{_anchor(labels.heading(section))}) "
            f"{labels.source_words(section.config['source'])}",
            section.unit, told, *ours, networks, *_best_published(section),
        ])  # fmt: skip
    text = f"![All experiments]({picture.parent.name}/{picture.name})"
    return ["", text, "", *_lines(cells)]


def _best_published(section: Section) -> tuple[str, str]:
    """Name, number and scale; of readers of weights where there are."""
    found = [
        (value, labels.published_words(name), table)
        for table in section.tables
        for name, (value, _) in table.values.items()
        if labels.reads(name) == "weights"
    ]
    if not found:
        scales = [table.scale.partition(", ")[0] for table in section.tables]
        return ("a plot", scales[0]) if scales else ("", "")
    value, name, table = (max if section.higher else min)(found, key=lambda each: each[0])
    return f"*{name} {value:g}*", table.scale.partition(", ")[0]


def _anchor(title: str) -> str:
    """How GitHub links to a heading."""
    kept = "".join(c for c in title.lower() if c.isalnum() or c in " -_")
    return kept.replace(" ", "-")


# ---- the whole


def render(found: Sequence[Found], out: Path, every: bool = False) -> str:
    """The report as Markdown; its figures go into a folder beside `out`.

    Args:
        every: whether what tasks have drawn of each model is shown, such as confusion matrices,
            and not of the best alone.
    """
    pictures = out.with_name(f"{out.stem}_figures")
    made = sections(found)
    lines = [
        "# Results", "",
        "Rows are means over seeds (± one deviation), the best of each access class in bold. "
        "Published numbers, in italics, belong to the scale that stands beside them; only rows of "
        "that scale can be compared with them.",
    ]  # fmt: skip
    shown = _largest(made)
    if len(shown) > 1:
        lines += _glance(shown, pictures / "glance.png")
    lines += ["", NOTES, _notes(out), END] if _notes(out) else ["", NOTES, END]
    for section in made:
        names = labels.names(section.rows, section.tables)
        arrow = "higher is better" if section.higher else "lower is better"
        lines += ["", f"## {labels.heading(section)}", ""]
        lines += [f"{section.unit}, test split; {arrow}.", "", *_results(section, names)]
        lines += _of_before(section.rows)
        slug = _slug(section)
        charts.compare(section, pictures / f"{slug}.png")
        lines += ["", f"![{labels.heading(section)}]({pictures.name}/{slug}.png)"]
        lines += _drawn(section, names, pictures, every)
        lines += ["", *_conditions(section, names)]
    return "\n".join(lines) + "\n"


def _notes(out: Path) -> str:
    """What the user has written into the report that is there."""
    found = _NOTES.search(out.read_text(encoding="utf-8")) if out.is_file() else None
    return found[1].strip("\n") if found else ""


def _slug(section: Section) -> str:
    """What a section's figures are called: the same whatever else is in the report."""
    config = section.config
    parts = [section.identity, config["task"], labels.plain_source(config["source"]),
             str(config["recipe"].get("name", "")), str(config["recipe"].get("activation", "")),
             str(config["recipe"].get("where", "")), str(config["task_options"].get("edit", "")),
             str(section.networks)]  # fmt: skip
    text = "-".join(part for part in parts if part).lower()
    return re.sub(r"[^a-z0-9]+", "-", text)


def _drawn(section: Section, names: Sequence[str], folder: Path, every: bool) -> list[str]:
    """What tasks have drawn of the best model, or of all; curves are of use beside a run alone.

    A picture that is there from an earlier report of the same run is shown too: a kept record
    has none.
    """
    own = [(n, r) for n, r in zip(names, section.rows, strict=True) if not r.ceiling]
    lines: list[str] = []
    for name, row in own if every else own[:1]:
        mark = hashlib.sha256(identity(row.configs[0]).encode()).hexdigest()[:6]
        stem = f"{_slug(section)}-{row.model.partition(':')[2] or row.model}-{mark}"
        run = row.folders[0]
        for source in sorted((run / runs.FIGURES).glob("*.png")) if run else []:
            if source.name != "curves.png":
                shutil.copyfile(source, folder / f"{stem}-{source.name}")
        for there in sorted(folder.glob(f"{stem}-*.png")):
            what = there.stem.removeprefix(f"{stem}-").replace("_", " ")
            lines += ["", f"{name}, {what}:", "", f"![{name}]({folder.name}/{there.name})"]
    return lines


def write(
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    kept: str | Path | None = None,
    latest: bool = False,
    every: bool = False,
) -> None:
    """Write the report of these runs, and its figures.

    Args:
        kept: a JSON file for what a report needs of them.
        latest: whether runs of before there were presets are left out where one by a preset
            stands in their place.
        every: see `render`.

    Raises:
        ZooError: if one of them is not a finished run.
        ValueError: if there are none.
    """
    if not folders:
        raise ValueError("a report needs at least one run")
    found = collect(folders)
    found = newest(found) if latest else found
    write_text(Path(out), render(found, Path(out), every))
    if kept is not None:
        keep(found, Path(kept))
