"""Gathers the results of runs, and puts those together that may be compared.

Runs that differ in their seed alone become one row; runs of different scale never do. A section
is one experiment at one number of training networks: all of its rows can be set side by side.
Where a paper takes a model to pieces, these runs, and the whole model beside them, are a
section of their own.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from processors import ceiling, runs
from processors.files import write_records
from processors.models import ACCESS
from processors.presets import plain_source
from processors.published import Table, tables_for
from processors.records import check_config, check_summary
from zoo import ZooError, schema

Found: TypeAlias = tuple[Path | None, dict[str, Any]]

# Options by which a task measures models once more, beside what it always measures.
ONCE_MORE = ("rescale", "flip")


@dataclass(frozen=True, eq=False)
class Row:
    """Runs that differ in their seed alone.

    Attributes:
        configs, summaries: of each, by seed.
        folders: of each; None where only the summary was kept.
        again: the same runs, measured by other values of `ONCE_MORE`.
    """

    configs: tuple[dict[str, Any], ...]
    summaries: tuple[dict[str, Any], ...]
    folders: tuple[Path | None, ...]
    again: tuple["Row", ...] = ()

    @property
    def model(self) -> str:
        """The model's name, as commands take it."""
        return str(self.configs[0]["model"])

    @property
    def reads(self) -> str:
        """What the model sees of a network: weights, function or data; of one's own, "own"."""
        return {**ACCESS, **ceiling.SEEN}.get(self.model, "own")

    @property
    def ceiling(self) -> bool:
        """Whether it reads pictures, and bounds what a reader of networks can do."""
        return self.model in ceiling.SEEN

    @property
    def before(self) -> bool:
        """Whether it was trained before there were presets, by settings that are not today's."""
        return not self.ceiling and "preset" not in self.configs[0]

    @property
    def networks(self) -> int:
        """How many it was trained on."""
        return int(self.configs[0]["networks"]["train"])

    @property
    def scale(self) -> str:
        """Networks, epochs and seeds, in words."""
        epochs = float(np.mean([summary["epochs"] for summary in self.summaries]))
        seeds = "1 seed" if len(self.summaries) == 1 else f"{len(self.summaries)} seeds"
        return f"{self.networks:,} networks, {epochs:.3g} epochs, {seeds}"

    def values(self, metric: str, split: str = "test") -> list[float]:
        """The metric of each seed."""
        return [summary[split][metric] for summary in self.summaries]

    def after(self, metric: str) -> dict[str, tuple[float, int]]:
        """The metric after something was done to each network, by what it was.

        Means over seeds, and how many were measured so.
        """
        found: dict[str, tuple[float, int]] = {}
        for row in sorted((self, *self.again), key=lambda row: row.rescale):
            named = {
                f"{metric}_rescaled": f"after scaling by up to {power(row.rescale)}",
                f"{metric}_flipped": "after random signs",
            }
            for name in row.summaries[0]["test"]:
                words = named.get(name, name.removeprefix(f"{metric} "))
                if words.startswith("after ") and all(name in s["test"] for s in row.summaries):
                    values = row.values(name)
                    # What more seeds have is not given up for what fewer have.
                    if len(values) >= found.get(words, (0.0, 0))[1]:
                        found[words] = float(np.mean(values)), len(values)
        return found

    @property
    def rescale(self) -> float:
        """Neurons were scaled by up to ten to the power of this; 0 where they were not."""
        return self.configs[0]["task_options"].get("rescale") or 0.0


def power(exponent: float) -> str:
    """Ten to the power of it, as a table has it.

    >>> power(0.5), power(4.0)
    ('3.162', '10,000')
    """
    number = 10**exponent
    return f"{number:,.0f}" if 1000 <= number < 1e7 else f"{number:.4g}"


@dataclass(frozen=True)
class Section:
    """Rows of one experiment, of one number of training networks.

    Attributes:
        identity: of the experiment in the papers, such as "D2"; "" where it is in none.
        networks: the rows were trained on.
        metric, higher: by which rows are ordered; of the paper's table where there is one.
        factor, unit: from our metric to what is shown.
        rows: the best first.
        tables: of the papers.
        constant: name and score, in the unit, of what reads no networks, where that is known.
        bounds: the same of what knows the answer, where runs measure that, the nearest first.
    """

    identity: str
    networks: int
    metric: str
    higher: bool
    factor: float
    unit: str
    rows: tuple[Row, ...]
    tables: tuple[Table, ...]
    constant: tuple[str, float] | None = None
    bounds: tuple[tuple[str, float], ...] = ()

    @property
    def config(self) -> dict[str, Any]:
        """Of its first run, which says what all of them are of."""
        return self.rows[0].configs[0]

    @property
    def part(self) -> bool:
        """Whether it is about the parts of one model."""
        return any(table.varies for table in self.tables)

    def mean(self, row: Row) -> float:
        """A row's metric, over its seeds, in the unit."""
        return self.factor * float(np.mean(row.values(self.metric)))

    def best(self, reads: str) -> Row | None:
        """The best of the rows that read this."""
        found = [row for row in self.rows if row.reads == reads and not row.ceiling]
        return found[0] if found else None

    @cached_property
    def limit(self) -> Row | None:
        """The best of the ceilings."""
        found = [row for row in self.rows if row.ceiling]
        return found[0] if found else None


# ---- of runs, and of files


def collect(folders: Iterable[str | Path]) -> list[Found]:
    """(folder, {"config", "summary"}) of every finished run, and of every kept record.

    The same run, by its configuration and seed, counts once, where it comes first; what was
    measured of it later, such as after random symmetries, is added. Where the zoo of a run lies
    with its ceiling, those rows come too, see `processors.ceiling`.

    Args:
        folders: of runs; or JSON files that `keep` wrote.

    Raises:
        ZooError: for a folder that is no run, or a run that is not finished.
    """
    found: list[Found] = []
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
    once: dict[str, Found] = {}
    for folder, record in found:
        same = identity(record["config"])
        if same in once:
            first, kept = once[same]
            once[same] = first or folder, _with_more(kept, record)
        else:
            once[same] = folder, record
    return list(once.values())


def identity(config: Mapping[str, Any]) -> str:
    """What tells a run from others, wherever its zoo lay and whatever its folder was called."""
    told = {key: value for key, value in config.items() if key not in ("zoo", "command")}
    return json.dumps(told, sort_keys=True)


def _with_more(record: dict[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """A record with the test metrics that another one of the same run has besides."""
    more = {
        name: value
        for name, value in other["summary"]["test"].items()
        if name not in record["summary"]["test"]
    }
    if not more:
        return record
    test = {**record["summary"]["test"], **more}
    return {**record, "summary": {**record["summary"], "test": test}}


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


def keep(found: Sequence[Found], path: Path) -> None:
    """Keep what a report needs of these runs in one JSON file, one record a line."""
    write_records(path, [record for _, record in found])


def newest(found: Sequence[Found]) -> list[Found]:
    """Without the runs of before there were presets that a run by a preset stands in for.

    That is one of the same model and experiment, on as many networks; runs that take a model
    to pieces stay.
    """
    made = {_place(r["config"]) for _, r in found if "preset" in r["config"]}
    return [
        (folder, record)
        for folder, record in found
        if "preset" in record["config"]
        or record["config"]["model"] in ceiling.SEEN
        or any(table.varied(record["config"]) for table in tables_for(record["config"]))
        or _place(record["config"]) not in made
    ]


def _place(config: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a run is of, whatever its settings."""
    options = config["task_options"]
    asked = tuple(str(options.get(name)) for name in ("target", "edit", "views"))
    return (
        config["task"], config["model"], config["recipe"].get("name"),
        config["recipe"].get("activation"), plain_source(config["source"]),
        config["networks"]["train"], asked,
    )  # fmt: skip


# ---- rows and sections


def _scale(config: dict[str, Any], summary: dict[str, Any]) -> str:
    """What runs must share to be one row, their seed aside."""
    # The rate is chosen on one seed and given to the others, so it does not tell rows apart.
    settings = {name: value for name, value in config["settings"].items() if name != "lr"}
    keys = ("model", "model_sizes", "task_options", "networks", "zoo_sha256")
    same = [config[key] for key in keys]
    return json.dumps([*same, settings, summary["device"].split(",")[0]], sort_keys=True)


def _each_seed_once(found: Sequence[Found]) -> list[list[Found]]:
    """Rows in order of their seeds; where one was trained repeatedly, apart by the rate."""
    found = sorted(found, key=lambda pair: pair[1]["summary"]["seed"])
    seeds = [record["summary"]["seed"] for _, record in found]
    if len(set(seeds)) == len(seeds):
        return [found]
    rows: dict[tuple[float, int], list[Found]] = {}
    met: Counter[tuple[float, int]] = Counter()
    for folder, record in found:
        rate, seed = record["summary"]["lr"], record["summary"]["seed"]
        rows.setdefault((rate, met[rate, seed]), []).append((folder, record))
        met[rate, seed] += 1
    return list(rows.values())


def _rows(members: Sequence[Found]) -> list[Row]:
    byscale: dict[str, list[Found]] = {}
    for folder, record in members:
        scale = _scale(record["config"], record["summary"])
        byscale.setdefault(scale, []).append((folder, record))
    rows = [
        Row(
            tuple(r["config"] for _, r in ordered),
            tuple(r["summary"] for _, r in ordered),
            tuple(f for f, _ in ordered),
        )
        for each in byscale.values()
        for ordered in _each_seed_once(each)
    ]
    # Rows of the same trained models, or of some of them, are that of most seeds, measured again.
    kept: list[tuple[frozenset[str], list[Row]]] = []
    for row in sorted(rows, key=lambda row: -len(row.configs)):
        own = _trained(row)
        same = next((found for trained, found in kept if own <= trained), None)
        if same is None:
            kept.append((own, [row]))
        else:
            same.append(row)
    return [replace(first, again=tuple(again)) for _, (first, *again) in kept]


def _trained(row: Row) -> frozenset[str]:
    """What tells a row's trained models from others, however they were measured."""
    parts = []
    for config, summary in zip(row.configs, row.summaries, strict=True):
        less = {
            name: {k: v for k, v in config[name].items() if k not in ONCE_MORE}
            for name in ("options", "task_options")
        }
        told = {key: value for key, value in summary.items() if key not in ("zoo", "test", "files")}
        parts.append(json.dumps([identity({**config, **less}), told], sort_keys=True))
    return frozenset(parts)


def sections(found: Sequence[Found]) -> list[Section]:
    """The runs by experiment and number of training networks, the largest first."""
    groups: dict[tuple[str, ...], list[Found]] = {}
    for folder, record in found:
        config, summary = record["config"], record["summary"]
        aims = dict.fromkeys(t.experiment for t in _tables(config, summary) if not t.varies)
        key = (
            config["task"], config["recipe"].get("name", ""), plain_source(config["source"]),
            str(config["recipe"].get("activation", "")), ", ".join(aims),
            # Which rows of another zoo.
            str(config["recipe"].get("where", "")),
            # What one experiment differs by from another on the same zoo.
            *(str(config["task_options"].get(name)) for name in ("edit", "target")),
            summary["metric"],
        )  # fmt: skip
        groups.setdefault(key, []).append((folder, record))
    constants = _constants(found)
    made = []
    for members in groups.values():
        config, summary = members[0][1]["config"], members[0][1]["summary"]
        tables = _tables(config, summary)
        rows = _rows(members)
        for networks in {row.networks: None for row in rows}:
            at = [row for row in rows if row.networks == networks]
            made += _sections_at(at, tables, constants)
    return sorted(made, key=_order)


def _sections_at(
    rows: Sequence[Row], tables: Sequence[Table], constants: Mapping[Any, tuple[str, float]]
) -> list[Section]:
    """That of the experiment, and those of the parts of its models."""
    parts: list[tuple[tuple[Row, ...], tuple[Table, ...]]] = []
    varied: list[Row] = []
    beside: list[Row] = []
    for table in (each for each in tables if each.varies):
        own = [row for row in rows if table.varied(row.configs[0])]
        if own:
            whole = [row for row in rows if any(_same_but(table, row, each) for each in own)]
            parts.append(((*own, *whole), (table,)))
            varied, beside = varied + own, beside + whole
    rest = [row for row in rows if row not in varied]
    if any(row not in beside for row in rest):
        parts.insert(0, (tuple(rest), tuple(t for t in tables if not t.varies)))
    return [_section(each, beside_them, constants) for each, beside_them in parts]


def _same_but(table: Table, row: Row, own: Row) -> bool:
    """Whether a row is the whole of what another one has a part of."""
    one, other = row.configs[0], own.configs[0]
    if table.varied(one) or one["model"] != other["model"] or row.before != own.before:
        return False

    def left(config: Mapping[str, Any]) -> dict[str, Any]:
        asked = {**config["sizes"], **config["options"]}
        return {name: value for name, value in asked.items() if name not in table.varies}

    return left(one) == left(other) and one["settings"] == other["settings"]


def _section(
    rows: Sequence[Row], tables: tuple[Table, ...], constants: Mapping[Any, tuple[str, float]]
) -> Section:
    config, summary = rows[0].configs[0], rows[0].summaries[0]
    table = tables[0] if tables else None
    metric = table.metric if table else summary["metric"]
    higher = bool(summary["higher"]) if metric == summary["metric"] else not _error(metric)
    factor = table.factor if table else 1.0
    sign = -1 if higher else 1
    constant = next(
        (found for row in rows if (found := _constant(row, metric))), None
    ) or constants.get((_measured(config), metric))
    return Section(
        identity=", ".join(dict.fromkeys(table.experiment for table in tables)),
        networks=rows[0].networks,
        metric=metric,
        higher=higher,
        factor=factor,
        unit=table.unit if table else metric,
        rows=tuple(sorted(rows, key=lambda row: sign * float(np.mean(row.values(metric))))),
        tables=tables,
        constant=constant and (constant[0], factor * constant[1]),
        bounds=tuple((name, factor * score) for name, score in _bounds(rows[0], metric)),
    )


def _bounds(row: Row, metric: str) -> list[tuple[str, float]]:
    """What the same networks have by their own tickets, and with all of their entries."""
    test = row.summaries[0]["test"]
    if metric != "accuracy_predicted":
        return []
    named = {"accuracy_imp": "their tickets", "accuracy_dense": "all entries"}
    return [(words, float(test[name])) for name, words in named.items() if name in test]


def _error(metric: str) -> bool:
    """Whether less of a metric is better."""
    return metric.startswith(("mse", "loss"))


def _measured(config: Mapping[str, Any]) -> tuple[Any, ...]:
    """The networks that are measured: what a constant scores on them is the same for all runs."""
    recipe = config["recipe"]
    split = recipe.get("split", recipe.get("name"))
    return config["task"], plain_source(config["source"]), split, config["networks"]["test"]


def _constants(found: Sequence[Found]) -> dict[Any, tuple[str, float]]:
    """What a constant scores, by the networks that are measured and the metric."""
    known: dict[Any, tuple[str, float]] = {}
    for _, record in found:
        summary = record["summary"]
        if "constant" in summary:
            told = summary["constant"]["name"], float(summary["constant"]["score"])
            known.setdefault((_measured(record["config"]), summary["metric"]), told)
    return known


def _constant(row: Row, metric: str) -> tuple[str, float] | None:
    """What one scores without reading networks, as a run says it or as follows from its metrics."""
    summary = row.summaries[0]
    test = summary["test"]
    if "constant" in summary and summary["metric"] == metric:
        return summary["constant"]["name"], float(summary["constant"]["score"])
    if f"{metric}_before" in test:
        name = "unedited" if metric == "mse" else "unadapted"
        return name, float(test[f"{metric}_before"])
    if metric == "accuracy_predicted" and "accuracy_random" in test:
        return "random masks", float(test["accuracy_random"])
    if metric == "tau":
        return "chance", 0.0
    # R^2 compares the error with that of the mean.
    if metric in ("mse", "mse_x100") and test.get("r2", 1.0) < 1.0:
        return "the mean", float(test[metric] / (1 - test["r2"]))
    return None


def _order(section: Section) -> tuple[Any, ...]:
    """As experiments are numbered; those of no paper last, larger before smaller ones."""
    letter, number = section.identity[:1], section.identity[1:].partition(",")[0]
    config = section.config
    return (
        "DNM".find(letter) if letter else 9, int(number) if number.isdigit() else 0,
        plain_source(config["source"]), str(config["recipe"].get("name")), config["task"],
        str(config["recipe"].get("activation", "")), -section.networks,
    )  # fmt: skip


def _tables(config: dict[str, Any], summary: dict[str, Any]) -> list[Table]:
    """Those that a run stands beside, whose metric it has."""
    return [table for table in tables_for(config) if table.metric in summary["test"]]
