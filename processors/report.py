"""Sets the results of runs side by side, and below them what was published.

Runs that differ in their seed alone become one row, mean and deviation over seeds; runs
of different scale never do. Every row says its networks, epochs and seeds. All published
numbers of the experiments stand below, grey, each with the scale that it belongs to; so does
what one has without reading networks. Settings, device and minutes are in a second table.
"""

import contextlib
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from processors import ceiling, runs
from processors.files import write_records, write_text
from processors.models import ACCESS
from processors.presets import plain_source
from processors.published import Table, tables_for
from processors.records import check_config, check_summary
from processors.tasks import figures
from zoo import ZooError, schema


@dataclass(frozen=True)
class Row:
    """Runs that differ in their seed alone.

    Attributes:
        configs, summaries: of each, by seed.
        folders: of each; None where only the summary was kept.
    """

    configs: tuple[dict[str, Any], ...]
    summaries: tuple[dict[str, Any], ...]
    folders: tuple[Path | None, ...]

    @property
    def model(self) -> str:
        """The model's name, with what was changed of it."""
        changes = {**self.configs[0]["sizes"], **self.configs[0]["options"]}
        words = [f"{name}={_plain(value)}" for name, value in changes.items()]
        return " ".join([self.configs[0]["model"], *words])

    @property
    def reads(self) -> str:
        """What the model sees of a network: weights, function or data; of one's own, "own"."""
        return {**ACCESS, **ceiling.SEEN}.get(self.configs[0]["model"], "own")

    def values(self, metric: str, split: str = "test") -> list[float]:
        """The metric of each seed."""
        return [summary[split][metric] for summary in self.summaries]


@dataclass(frozen=True)
class Section:
    """All rows for one task on one zoo.

    Attributes:
        metric, higher: by which rows are ordered; of the paper's table where there is one.
        factor, unit: from our metric to what is shown.
        tables: of the papers, for all of its rows.
    """

    title: str
    metric: str
    higher: bool
    factor: float
    unit: str
    rows: tuple[Row, ...]
    tables: tuple[Table, ...]

    @property
    def constant(self) -> tuple[str, float] | None:
        """Name and score of what reads no networks, where a run of these says it."""
        for row in self.rows:
            first = row.summaries[0]
            if "constant" in first and first["metric"] == self.metric:
                return first["constant"]["name"], self.factor * first["constant"]["score"]
        return None


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value).replace(" ", "")


def collect(folders: Iterable[str | Path]) -> list[tuple[Path | None, dict[str, Any]]]:
    """(folder, {"config", "summary"}) of every finished run, and of every kept record.

    The same run, by its configuration and seed, counts once, where it comes first. Where the
    zoo of a run lies with its ceiling, those rows come too, see `processors.ceiling`.

    Args:
        folders: of runs; or JSON files that `keep` wrote.

    Raises:
        ZooError: for a folder that is no run, or a run that is not finished.
    """
    found: list[tuple[Path | None, dict[str, Any]]] = []
    for name in folders:
        path = Path(name)
        if path.is_file():
            found += [(None, record) for record in _kept(path)]
            continue
        run = runs.finished(path)
        run.verify()
        found.append((path, {"config": run.config, "summary": run.summary}))
    for path in ceiling.beside([record["config"] for _, record in found]):
        found += [(None, record) for record in _kept(path)]
    once: dict[str, tuple[Path | None, dict[str, Any]]] = {}
    for folder, record in found:
        # Wherever its zoo lay and whatever its folder was called.
        told = {k: v for k, v in record["config"].items() if k not in ("zoo", "command")}
        once.setdefault(json.dumps(told, sort_keys=True), (folder, record))
    return list(once.values())


def _kept(path: Path) -> list[dict[str, Any]]:
    """The records of a file that `keep` wrote."""
    records: Any = None
    with contextlib.suppress(ZooError):
        records = schema.read_json(path)
    if not isinstance(records, list) or not all(
        isinstance(record, dict) and record.keys() >= {"config", "summary"} for record in records
    ):
        raise ZooError(f"{path} is neither the folder of a run nor a file of `wszoo report --keep`")
    for number, record in enumerate(records):
        name = f"{schema.safe(path)}, record {number}"
        config = check_config(record["config"], f"{name}: config")
        check_summary(record["summary"], config, f"{name}: summary")
    return records


def unfinished(folder: Path) -> bool:
    """Whether it is a run that has not come to its end."""
    return runs.is_run(folder) and not (folder / runs.SUMMARY).exists()


def keep(folders: Sequence[str | Path], path: Path) -> None:
    """Keep what a report needs of these runs in one JSON file, one record a line."""
    write_records(path, [record for _, record in collect(folders)])


def _scale(config: dict[str, Any], summary: dict[str, Any]) -> str:
    """What runs must share to be one row, their seed aside."""
    # The rate is chosen on one seed and given to the others, so it does not tell rows apart.
    settings = {name: value for name, value in config["settings"].items() if name != "lr"}
    keys = ("model", "model_sizes", "task_options", "networks", "zoo_sha256")
    same = [config[key] for key in keys]
    return json.dumps([*same, settings, summary["device"].split(",")[0]], sort_keys=True)


def _each_seed_once(
    found: Sequence[tuple[Path | None, dict[str, Any]]],
) -> list[list[tuple[Path | None, dict[str, Any]]]]:
    """Rows in order of their seeds; where one was trained repeatedly, apart by the rate."""
    found = sorted(found, key=lambda pair: pair[1]["summary"]["seed"])
    seeds = [record["summary"]["seed"] for _, record in found]
    if len(set(seeds)) == len(seeds):
        return [found]
    rows: dict[tuple[float, int], list[tuple[Path | None, dict[str, Any]]]] = {}
    met: Counter[tuple[float, int]] = Counter()
    for folder, record in found:
        rate, seed = record["summary"]["lr"], record["summary"]["seed"]
        rows.setdefault((rate, met[rate, seed]), []).append((folder, record))
        met[rate, seed] += 1
    return list(rows.values())


def sections(found: Sequence[tuple[Path | None, dict[str, Any]]]) -> list[Section]:
    """The runs by task and kind of zoo; rows of most networks first, and of these the best."""
    groups: dict[tuple[str, ...], list[tuple[Path | None, dict[str, Any]]]] = {}
    for folder, record in found:
        config, summary = record["config"], record["summary"]
        aims = dict.fromkeys(table.experiment for table in _tables(config, summary))
        # What one experiment differs by from another on the same zoo, such as how it edits.
        aim = ", ".join(name for name in aims if " " not in name)
        source = plain_source(config["source"])
        kind = str(config["task_options"].get("edit", ""))
        key = (config["task"], config["recipe"].get("name", ""), source, aim, kind,
               summary["metric"])  # fmt: skip
        groups.setdefault(key, []).append((folder, record))
    made = []
    for (task, recipe, source, aim, kind, metric), members in groups.items():
        byscale: dict[str, list[tuple[Path | None, dict[str, Any]]]] = {}
        for folder, record in members:
            scale = _scale(record["config"], record["summary"])
            byscale.setdefault(scale, []).append((folder, record))
        summary = members[0][1]["summary"]
        tables = _tables(members[0][1]["config"], summary)
        table = tables[0] if tables else None
        shown = table.metric if table else metric
        higher = bool(summary["higher"]) if shown == summary["metric"] else True
        rows = [
            Row(
                tuple(r["config"] for _, r in ordered),
                tuple(r["summary"] for _, r in ordered),
                tuple(f for f, _ in ordered),
            )
            for each in byscale.values()
            for ordered in _each_seed_once(each)
        ]
        sign = -1 if higher else 1
        # Rows of one scale stand together.
        rows.sort(
            key=lambda row: (
                -row.configs[0]["networks"]["train"],
                sign * float(np.mean(row.values(shown))),
            )
        )
        made.append(
            Section(
                title=f"{aim + ': ' if aim else ''}{task}{' ' + kind if kind else ''} on {source} "
                f"(recipe {recipe})",
                metric=shown,
                higher=higher,
                factor=table.factor if table else 1.0,
                unit=table.unit if table else shown,
                rows=tuple(rows),
                tables=tuple(tables),
            )
        )
    return sorted(made, key=lambda section: section.title)


def _tables(config: dict[str, Any], summary: dict[str, Any]) -> list[Table]:
    """Those that a run stands beside, whose metric it has."""
    return [table for table in tables_for(config) if table.metric in summary["test"]]


def _number(values: Sequence[float], factor: float) -> str:
    scaled = factor * np.asarray(values)
    digits = 2 if factor == 100 else 4
    text = f"{scaled.mean():.{digits}g}" if factor != 100 else f"{scaled.mean():.{digits}f}"
    if len(scaled) > 1:
        text += f" ± {scaled.std(ddof=1):.2g}"
    return text


def _others(row: Row, metric: str) -> str:
    """The other test metrics, means over seeds."""
    names = [name for name in row.summaries[0]["test"] if name != metric]
    return ", ".join(f"{name} {np.mean(row.values(name)):.4g}" for name in names)


def _grey(text: str) -> str:
    return f'<span style="color:grey">{text}</span>'


def _lines(cells: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table; the first row is its head."""
    head, *rows = [f"| {' | '.join(row)} |" for row in cells]
    return [head, "|" + "---|" * len(cells[0]), *rows]


def scale_of(row: Row) -> str:
    """Networks, epochs and seeds, in words."""
    first = row.summaries[0]
    epochs = float(np.mean([summary["epochs"] for summary in row.summaries]))
    seeds = "1 seed" if len(row.summaries) == 1 else f"{len(row.summaries)} seeds"
    return f"{first['networks']:,} networks, {epochs:.4g} epochs, {seeds}"


def _results(section: Section) -> list[str]:
    """The table of results: ours, a constant's, and all that was published; one unit."""
    cells = [["model", "reads", section.unit, "of scale"]]
    for row in section.rows:
        value = _number(row.values(section.metric), section.factor)
        cells.append([row.model, row.reads, f"**{value}**", scale_of(row)])
    if section.constant is not None:
        name, score = section.constant
        words = (name, "nothing", f"{score:.4g}", "without reading networks")
        cells.append([_grey(word) for word in words])
    for table in section.tables:
        for name in table.values:
            number = table.published(name)
            where = f"{table.scale} ({table.where})"
            cells.append([
                _grey(f"{table.experiment}: {name}"), "", _grey(f"{number}"), _grey(where)
            ])  # fmt: skip
    return _lines(cells)


def _conditions(section: Section) -> list[str]:
    """The table of how the rows came about."""
    cells = [["model", "preset", "lr", "batch", "updates", "parameters", "device", "minutes",
              "other metrics"]]  # fmt: skip
    for row in section.rows:
        first, config = row.summaries[0], row.configs[0]
        cells.append(
            [
                row.model,
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
    return _lines(cells)


def render(found: Sequence[tuple[Path | None, dict[str, Any]]], out: Path) -> str:
    """The report as Markdown; its figures go into a folder beside `out`."""
    pictures = out.with_name(f"{out.stem}_figures")
    lines = [
        "# Results",
        "",
        "Rows are means over seeds (± one deviation). Published numbers, in grey, belong to the "
        "scale that stands beside them; only rows of that scale can be compared with them.",
    ]
    for number, section in enumerate(sections(found), 1):
        arrow = "higher is better" if section.higher else "lower is better"
        lines += ["", f"## {section.title}", "", f"{section.unit}, test split; {arrow}.", ""]
        lines += [*_results(section), "", "How they came about:", "", *_conditions(section)]
        lines += ["", "Commands:", ""]
        lines += [f"    {row.configs[0]['command']}" for row in section.rows]
        lines += _draw(section, number, pictures)
    return "\n".join(lines) + "\n"


def panels(section: Section) -> list[figures.Panel]:
    """A panel for each scale of ours, and for each experiment and scale that was published."""
    found: dict[tuple[str, bool], list[tuple[str, Any]]] = {}
    for row in section.rows:
        values = section.factor * np.asarray(row.values(section.metric))
        first = row.summaries[0]
        scale = f"{first['networks']:,} networks, {first['epochs']:.4g} epochs"
        found.setdefault((scale, False), []).append((row.model, values))
    for table in section.tables:
        title = f"published, {table.experiment}: {table.scale}"
        for name, (value, _) in table.values.items():
            found.setdefault((title, True), []).append((name, np.asarray([value])))
    return [figures.Panel(title, tuple(rows), grey) for (title, grey), rows in found.items()]


def _draw(section: Section, number: int, folder: Path) -> list[str]:
    """A figure of the section's rows, and of each model the best that its run has drawn."""
    drawn = folder / f"{number}.png"
    figures.dots(panels(section), section.unit, section.constant, drawn)
    lines = ["", f"![{section.title}]({folder.name}/{drawn.name})"]
    for row in section.rows:
        run = row.folders[0]
        # What the task has drawn; curves are of use beside the run alone.
        for source in sorted((run / runs.FIGURES).glob("*.png")) if run else []:
            if source.name == "curves.png":
                continue
            assert run is not None
            copy = folder / f"{number}-{run.name}-{source.name}"
            shutil.copyfile(source, copy)
            lines += ["", f"{row.model}, {source.stem}:", "",
                      f"![{row.model}]({folder.name}/{copy.name})"]  # fmt: skip
    return lines


def write(folders: Sequence[str | Path], out: str | Path) -> None:
    """Write the report of these runs, and its figures.

    Raises:
        ZooError: if one of them is not a finished run.
        ValueError: if there are none.
    """
    if not folders:
        raise ValueError("a report needs at least one run")
    found = collect(folders)
    write_text(Path(out), render(found, Path(out)))
