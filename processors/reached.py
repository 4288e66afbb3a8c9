"""What runs reached on a zoo, for the zoo's card."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processors import ceiling, results
from processors.results import Row, Section
from zoo import ZooError
from zoo.reached import Line, Reached

# Of a task's metric, where no table of a paper gives the unit: words, and what turns our number
# into them.
_UNITS = {
    "accuracy": ("accuracy, %", 100.0),
    "mse": ("mean squared error", 1.0),
    "tau": ("Kendall's tau", 1.0),
    "agreement": ("share of a ticket that is found, %", 100.0),
}
_CEILINGS = {
    "originals": "ceiling: a small CNN on the pictures themselves",
    "renders": "a small CNN on what the networks render",
}


@dataclass(frozen=True)
class About:
    """What a zoo says of itself, as far as runs on it must agree.

    Attributes:
        folder: where it lies.
        sha256: of its index.
        recipe, source: as in its index; of the source the name.
        splits: networks of each.
    """

    folder: Path
    sha256: str
    recipe: Mapping[str, Any]
    source: str
    splits: Mapping[str, int]


def reached(
    zoo: About, folders: Iterable[str | Path], tell: Callable[[str], object] | None = None
) -> tuple[Reached, ...]:
    """What finished runs reached on this zoo, by task; with the zoo's ceiling if it has one.

    Args:
        folders: of runs; or JSON files of `wszoo report --keep`.
        tell: is told, in a line, of runs whose zoo had another index than this one.

    Raises:
        ZooError: for a folder that is no finished run, or a run on other networks.
    """
    given = [*folders, *ceiling.beside([{"zoo": str(zoo.folder), "zoo_sha256": zoo.sha256}])]
    found = results.collect(given)
    for folder, record in found:
        _check(zoo, str(folder or record["config"]["command"]), record["config"], tell)
    groups: dict[tuple[str, str], list[Section]] = {}
    for section in results.sections(found):
        task = section.rows[0].configs[0]["task"]
        groups.setdefault((task, section.unit), []).append(section)
    made = [_of_task(task, each) for (task, _), each in groups.items()]
    return tuple(each for each in made if each.models)


def _check(
    zoo: About, name: str, config: Mapping[str, Any], tell: Callable[[str], object] | None
) -> None:
    """Refuse a run on other networks than the zoo's."""
    if config["zoo_sha256"] == zoo.sha256:
        return
    same = config["recipe"] == zoo.recipe and config["source"] == zoo.source
    more = [split for split, n in config["networks"].items() if n > zoo.splits.get(split, 0)]
    if not same or more:
        what = f"has more networks in {more[0]}" if same else "is of another recipe or source"
        raise ZooError(
            f"{name} was trained on the zoo {config['zoo_name']}, which {what} than {zoo.folder}: "
            "a card shows what models reach on its own zoo"
        )
    if tell:
        tell(f"{name}: its zoo, of the same recipe and source, had another zoo.json than this one")


def _of_task(task: str, sections: Sequence[Section]) -> Reached:
    """All rows of a task, whatever their scale."""
    first = sections[0]
    words, factor = first.unit, first.factor
    if words == first.metric:
        words, factor = _UNITS.get(words, (words.replace("_", " "), 1.0))
    scaled = factor / first.factor

    def line(row: Row, model: str) -> Line:
        values = tuple(factor * value for value in row.values(first.metric))
        return Line(model, row.reads, values, _scale(row))

    rows = [row for section in sections for row in section.rows]
    # A row may stand in several sections, beside what it is a part of.
    rows = list({tuple(map(id, row.summaries)): row for row in rows}.values())
    ceilings = [line(row, _CEILINGS[name]) for row in rows if (name := _model(row)) in ceiling.SEEN]
    readers = [row for row in rows if _model(row) not in ceiling.SEEN]
    models = [line(row, name) for row, name in zip(readers, _names(readers), strict=True)]
    models.sort(key=lambda each: -each.mean if first.higher else each.mean)
    chance = next((each.constant for each in sections if each.constant), None)
    return Reached(
        task=task,
        unit=words,
        higher=first.higher,
        models=tuple(models),
        ceilings=tuple(ceilings),
        chance=chance and (chance[0], scaled * chance[1]),
    )


def _model(row: Row) -> str:
    return str(row.configs[0]["model"])


def _scale(row: Row) -> str:
    """Networks, epochs and seeds, in words."""
    epochs = sum(summary["epochs"] for summary in row.summaries) / len(row.summaries)
    seeds = "1 seed" if len(row.summaries) == 1 else f"{len(row.summaries)} seeds"
    return f"{row.summaries[0]['networks']:,} networks, {epochs:.3g} epochs, {seeds}"


def _names(rows: Sequence[Row]) -> list[str]:
    """Models, as commands take them, with what tells rows of one model apart."""
    made = []
    asked = [{**row.configs[0]["sizes"], **row.configs[0]["options"]} for row in rows]
    for row, own in zip(rows, asked, strict=True):
        alike = [
            each for other, each in zip(rows, asked, strict=True) if _model(other) == _model(row)
        ]
        differ = [k for k in own if any(own[k] != each.get(k) for each in alike)]
        words = ", ".join(f"{key} {own[key]}" for key in differ)
        made.append(f"{_model(row)} ({words})" if words else _model(row))
    return made
