"""What runs reached on a zoo, for the zoo's card."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processors import ceiling, labels, results
from processors.metrics import CEILINGS, metric
from processors.results import Row, Section
from zoo import ZooError
from zoo.reached import Line, Reached


@dataclass(frozen=True)
class About:
    """What a zoo says of itself, as far as runs on it must agree.

    Attributes:
        folder: where it lies.
        hashes: of its index, see `zoo.identity.hashes`.
        recipe, source: as in its index; of the source the name.
        splits: networks of each.
    """

    folder: Path
    hashes: tuple[str, str]
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
    given = [*folders, *ceiling.beside([{"zoo": str(zoo.folder), "zoo_sha256": zoo.hashes[0]}])]
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
    if config["zoo_sha256"] in zoo.hashes:
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
    if words == first.metric:  # no table of a paper gives the unit
        shown = metric(words)
        words, factor = ", ".join(filter(None, (shown.words, shown.unit))), shown.factor
    scaled = factor / first.factor

    def line(row: Row, model: str) -> Line:
        values = tuple(factor * value for value in row.values(first.metric))
        return Line(model, row.reads, values, row.scale)

    rows = [row for section in sections for row in section.rows]
    # A row may stand in several sections, beside what it is a part of.
    rows = list({tuple(map(id, row.summaries)): row for row in rows}.values())
    ceilings = [line(row, f"ceiling: {CEILINGS[row.model]}") for row in rows if row.ceiling]
    readers = [row for row in rows if not row.ceiling]
    before = "(by settings of before there were presets)"
    names = [name.replace(labels.BEFORE, before) for name in labels.names(readers)]
    models = [line(row, name) for row, name in zip(readers, names, strict=True)]
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
