"""Commands that make zoos: `fit-*`, `merge`, and `recipes` that lists what they can make."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli import progress
from cli.options import (
    INRS,
    TRAINED,
    FolderPath,
    data_root,
    fitting,
    given_fields,
    overwrite,
    recipe_options,
    storage,
    threads,
)
from cli.output import say
from cli.plan import automatic, settle

if TYPE_CHECKING:
    from zoo.making.progress import Progress
    from zoo.shards import Index

NODES_SHOWN = 4


@click.command("fit-inrs")
@click.argument("source")
@fitting
@recipe_options(*INRS)
def fit_inrs(source: str, **values: Any) -> None:
    """Fit an INR to every picture, wave or shape of SOURCE, into a zoo.

    SOURCE is mnist, fashion-mnist, cifar10, digits, sine, shapes (solids of ten families),
    voxels:FILE.npz (volumes in MedMNIST's layout), or a folder of pictures, flat or with a
    folder for each class, or with such in its folders train, val and test. Pictures of other
    shapes are cropped by --size, see --fit. Run the same command again after a
    stop of any kind: it goes on where it was.
    """
    _fit("fit-inrs", source, **values)


@click.command("fit-classifiers")
@click.argument("source")
@fitting
@storage
@recipe_options(TRAINED[0])
def fit_classifiers(source: str, **values: Any) -> None:
    """Train classifiers of two random classes each of SOURCE, into a zoo.

    SOURCE is cifar10, mnist, fashion-mnist, digits, or a folder of pictures with a folder
    for each class, or with such in its folders train, val and test. Pictures of other shapes
    are cropped by --size, see --fit. Run the same command again after a stop of any kind: it
    goes on where it was.
    """
    _fit("fit-classifiers", source, **values)


@click.command("fit-trajectories")
@click.argument("source")
@fitting
@storage
@recipe_options(TRAINED[1])
def fit_trajectories(source: str, **values: Any) -> None:
    """Train classifiers of SOURCE and keep networks on the way, into a zoo.

    SOURCE is fashion-mnist, mnist, cifar10, digits, or a folder of pictures with a folder
    for each class, or with such in its folders train, val and test. Pictures of other shapes
    are cropped by --size, see --fit. Run the same command again after a stop of any kind: it
    goes on where it was.
    """
    _fit("fit-trajectories", source, **values)


def _fit(command: str, source: str, **given: Any) -> None:
    """Run the recipe that the options of a command describe."""
    from zoo import recipes, sources
    from zoo.sources.folders import folder_of

    source = sources.resolve(source)
    if source.startswith("imagefolder:"):
        # Before torch is loaded, and the rest of the words are looked at.
        folder_of(source.partition(":")[2])
    tasks = _tasks(given)
    name, folder, part = given["recipe"], given["out"], given["part"]
    usual = _folder(source, recipes.default_recipe(source, command), part)
    if name is None and not given["overwrite"]:
        there = _begun_by(folder or usual, source).get("name")
        name = recipes.default_recipe(source, command, there)
    fields, wanted = automatic(given_fields(given))
    chosen = recipes.recipe(name, source, command, **fields)
    if folder is None:
        # Its recipe may have been the default when a zoo was begun there.
        begun = _begun_by(usual, source).get("name") == chosen.name
        folder = usual if begun else _folder(source, chosen.name, part)

    from zoo.making.builder import build
    from zoo.making.cluster import Cluster

    passed_on = (
        *("limit", "seed", "shard_rows", "workers", "engine", "device", "data_root"),
        *("overwrite", "part"),
    )
    settings = {name: given[name] for name in passed_on}
    opened: Any = source
    if wanted:
        about = {**settings, "parquet": not given["no_parquet"]}
        about["pictures"] = not given["no_pictures"]
        chosen, opened = settle(chosen, source, wanted, folder, about, tasks is not None)
    meter = _Meter(folder, tasks is not None)
    with progress.shown(f"{folder}", "net", meter.how_to_go_on) as meter.shown:
        index = build(
            chosen,
            opened,
            folder,
            **settings,
            parquet=not given["no_parquet"],
            pictures=not given["no_pictures"],
            dtype=given.get("dtype", "float32"),
            cluster=None if tasks is None else Cluster(**tasks),
            progress=meter.update,
            warn=progress.tell,
        )
    if part is not None:
        say(
            f"{folder}: part {part}, {len(index.shards)} shards of {index.rows:,} networks; "
            "`wszoo merge` joins the parts"
        )
        return
    _report(folder, index)
    if words := meter.nodes():
        say(f"fitted by {', '.join(words)}", err=True)


def _folder(source: str, recipe: str, part: str | None) -> Path:
    """Where a zoo, or a part of it, goes if no other place is named."""
    folder = Path("zoos") / zoo_name(source, recipe)
    if part is None:
        return folder
    return folder.with_name(f"{folder.name}.parts") / part.replace("/", "-of-")


def _begun_by(folder: Path | str, source: str) -> dict[str, Any]:
    """The recipe of the zoo of a folder of pictures that lies there, empty if none does."""
    if ":" not in source:
        return {}  # of others the default has never changed
    from zoo.making.site import recipe_there
    from zoo.storage import place

    return recipe_there(place(folder))


def _tasks(given: dict[str, Any]) -> dict[str, Any] | None:
    """What each task of a cluster asks for, None without one.

    Raises:
        ValueError: for options that belong to the other way of fitting.
    """
    from zoo.storage import is_url

    named = {"cpus": "cpus_per_task", "gpus": "gpus_per_task", "in_flight": "in_flight"}
    tasks = {name: given[option] for name, option in named.items() if given[option] is not None}
    if given["cluster"] is not None:
        for option, name, default in (("workers", "--workers", 1), ("part", "--shards", None)):
            if given[option] != default:
                raise ValueError(f"{name} is for a fit without --cluster")
        return {"address": given["cluster"], **tasks}
    if tasks:
        raise ValueError("--cpus-per-task, --gpus-per-task and --in-flight want a --cluster")
    if is_url(given["out"]):
        raise ValueError(
            f"{given['out']} is written by the tasks of a cluster: add --cluster local"
        )
    return None


class _Meter:
    """What the progress line says of a fit, and the last line of one that was stopped."""

    def __init__(self, folder: Path | str, clustered: bool):
        self.folder, self.clustered = folder, clustered
        self.begun = time.monotonic()
        self.last: Progress | None = None
        self.shown: Any = None

    def update(self, state: "Progress") -> None:
        from zoo.recipes import MEASURES

        self.last = state
        found = [each for each in MEASURES if each.column in state.means]
        words = [each.short.format(state.means[each.column]) for each in found[:1]]
        words += self.nodes()
        self.shown.update(state.done, state.total, words=", ".join(words), found=state.fitted == 0)

    def nodes(self) -> list[str]:
        """Throughput of each node of a cluster."""
        return _of_nodes(self.last, time.monotonic() - self.begun) if self.last else []

    def how_to_go_on(self) -> str:
        if isinstance(self.folder, Path) and not self.folder.is_dir():
            return "nothing is fitted yet. Run the same command again to begin."
        cancelled = "its tasks are cancelled; " if self.clustered else ""
        kept = f"what is finished is kept in {self.folder}"
        return f"{cancelled}{kept}. Run the same command again to go on."


def _of_nodes(state: "Progress", seconds: float) -> list[str]:
    """Throughput of each node of a cluster, and what went wrong there."""
    words = [f"{node} {count / seconds:.1f} net/s" for node, count in state.nodes.items()]
    if len(words) > NODES_SHOWN:
        rest = sum(list(state.nodes.values())[NODES_SHOWN:]) / seconds
        more = f"{len(words) - NODES_SHOWN} more nodes {rest:.1f} net/s"
        words = [*words[:NODES_SHOWN], more]
    return words + ([f"{state.failures} tasks lost"] if state.failures else [])


def _report(folder: Path | str, index: "Index") -> None:
    """What was made, on stdout."""
    from zoo.kinds import shortfall

    splits = ", ".join(f"{name} {rows:,}" for name, rows in index.splits.items())
    say(f"{folder}: {index.rows:,} networks ({splits})")
    for line in index.source.get("read", ()):
        say(line)
    if passed := index.source.get("passed_over"):
        say("left out: " + ", ".join(f"{count:,} {reason}" for reason, count in passed.items()))
    if index.told:
        say(index.told)
    for line in shortfall(index):
        say(line)
    if index.excluded:
        say(f"{len(index.excluded)} excluded; `wszoo info {folder}` lists them")


def zoo_name(source: str, recipe: str) -> str:
    """The folder's name when none is given.

    >>> zoo_name("mnist", "dws"), zoo_name("mnist", "nfn"), zoo_name("sine", "sine-ssl")
    ('mnist-inrs', 'mnist-inrs-nfn', 'sine-ssl')
    >>> zoo_name("cifar10", "binary"), zoo_name("mnist", "nfn-mlp3")
    ('cifar10-classifiers', 'mnist-trajectories-nfn-mlp3')
    """
    from zoo.recipes import command_of, default_recipe, stand_in

    if source == stand_in(recipe):  # drawn by the recipe alone
        return recipe
    kind, _, path = source.partition(":")
    stem = (Path(path).resolve().name or kind) if path else kind
    command = command_of(recipe)
    what = f"{stem}-{command.removeprefix('fit-')}"
    return what if recipe == default_recipe(source, command) else f"{what}-{recipe}"


@click.command()
@click.argument("parts", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=FolderPath(), required=True, help="Folder of the zoo.")
@click.option("--check", is_flag=True, help="Also compare the sha256 of files that are linked.")
@overwrite
@threads
@data_root
def merge(parts: tuple[Path, ...], out: Path, check: bool, **settings: Any) -> None:
    """Join PARTS, folders that fits with --shards made, into the zoo in --out.

    The result equals that of one fit of everything. The parts are left as they are; their
    files are linked, or copied from another file system.
    """
    from zoo.making.merging import merge as join

    index = join(parts, out, check_hashes=check, warn=progress.tell, **settings)
    _report(out, index)
