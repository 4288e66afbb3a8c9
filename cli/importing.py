"""The command `import`, which brings published networks into zoos."""

import math
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from cli import progress
from cli.options import Decorator, threads
from cli.output import say
from zoo.spec import ACTIVATIONS, spelled

# What `zoo.importers.FORMATS` has; a test holds them together. Here, so that --help and an
# unknown name need no torch.
FORMATS = {
    "dws": "DWSNets: mnist-inrs, fmnist_inrs, sine waves (.pth)",
    "nfn": "NFN: siren_mnist_wts and so on (.pth)",
    "small-cnn-zoo": "weights.npy, metrics.csv.gz, layout.csv",
    "fit-a-nef": "nefs_0-5000.hdf5, nef.json; needs wszoo[hdf5]",
    "state-dicts": "your own state dicts of one architecture, a folder or one file",
}


def _known_format(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if value not in FORMATS:
        raise click.BadParameter(f"unknown format {value!r}; known: {', '.join(FORMATS)}")
    return value


def _there(context: click.Context, parameter: click.Parameter, value: str | None) -> Path | None:
    if value is None:
        return None
    if not value.strip():
        raise click.BadParameter("expected a path, got an empty one")
    if not Path(value).exists():
        raise click.BadParameter(f"{value} does not exist")
    return Path(value)


def _filled(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and not value.strip():
        raise click.BadParameter("expected a name, got an empty one")
    return value


def _source(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if _filled(context, parameter, value) is None:
        return None
    from zoo import sources

    if value == "imagefolder:":
        raise click.BadParameter("imagefolder: needs a path, as in imagefolder:my/pictures")
    try:
        return sources.resolve(str(value))
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _folder(context: click.Context, parameter: click.Parameter, value: str | None) -> Path | None:
    if value is not None and not value.strip():
        raise click.BadParameter("expected the path of a folder, got an empty one")
    if value is None:
        return None
    file = next((p for p in (Path(value), *Path(value).parents) if p.exists()), Path("."))
    if not file.is_dir():
        raise click.BadParameter(f"{value}: no folder can be made there, {file} is a file")
    return Path(value)


def _finite(
    context: click.Context, parameter: click.Parameter, value: float | None
) -> float | None:
    if value is not None and not (math.isfinite(value) and value > 0):
        raise click.BadParameter(f"expected a positive number, got {value}")
    return value


def _names(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = tuple(name.strip() for name in value.split(","))
    if "" in names or len(set(names)) != len(names):
        raise click.BadParameter(f"expected different names between commas, got {value!r}")
    return names


def _option(flag: str, text: str, **settings: Any) -> Decorator:
    return click.option(flag, help=text, **settings)


class _Activation(click.Choice[str]):
    """By the zoo's name or torch's, such as LeakyReLU."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return super().convert(spelled(value) if isinstance(value, str) else value, param, ctx)


# What a format has to be told; the fields of `zoo.importers.published.Options`.
_TOLD = (
    _option("--labels", "state-dicts: table of labels, CSV or JSON, with the files' names.",
            metavar="FILE", callback=_there),
    _option("--splits", "dws: split file, JSON; small-cnn-zoo: NFN's order of rows.",
            metavar="FILE", callback=_there),
    _option("--activation", "small-cnn-zoo, state-dicts: of the hidden layers.",
            type=_Activation(ACTIVATIONS)),
    _option("--omega", "state-dicts: of --activation sin, as in sin(omega (W x + b)).",
            type=float, callback=_finite),
    _option("--spec", "state-dicts: architecture, JSON as in zoo.json.",
            metavar="FILE", callback=_there),
    _option("--match", "state-dicts: files that are networks, as *.pth.",
            metavar="PATTERN", callback=_filled),
    _option("--key", "state-dicts: which state dict of a file, or module of it.",
            metavar="NAME", callback=_filled),
    _option("--order", "state-dicts: modules in the order in which they compute.",
            metavar="NAME,NAME,...", callback=_names),
    _option("--norm", "state-dicts: where batch norms stand beside the activation.",
            type=click.Choice(["before", "after"])),
    _option("--norm-eps", "state-dicts: eps of batch norms.  [1e-05]",
            type=float, callback=_finite),
    _option("--group", "state-dicts: files of one folder stay in one split, or all are "
            "independent.  [default: files named like checkpoints of one run stay together]",
            type=click.Choice(["folder", "none"])),
    _option("--column", "state-dicts: a column of the labels is class, words, real or skip; may "
            "be repeated.", metavar="NAME=KIND", multiple=True),
)  # fmt: skip
_OTHERS = (
    _option("--check-against", "Hold the networks against the originals: mnist, fashion-mnist, "
            "cifar10, digits or imagefolder:PATH.  [default: the format's own, if --data-root is "
            "given]", metavar="SOURCE", callback=_source),
    _option("--data-root", "Folder of the originals; nothing is downloaded.",
            type=click.Path(path_type=Path, file_okay=False)),
    _option("--limit", "Networks in all, split in proportion.", type=click.IntRange(min=1)),
    _option("--shard-rows", "Networks of a shard.  [default: about 24 MB]",
            type=click.IntRange(min=1)),
    _option("--no-parquet", "Leave out the view for load_dataset.", is_flag=True),
    _option("--no-pictures", "Leave the pictures out of the view for load_dataset.", is_flag=True),
    _option("--overwrite", "Throw away the zoo in --out.", is_flag=True),
    _option("--dry-run", "Read everything, say what is read as what, write nothing.",
            is_flag=True),
)  # fmt: skip


def _with_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed((*_TOLD, *_OTHERS)):
        command = option(command)
    return command


@click.command("import")
@click.argument("format", callback=_known_format)
@click.argument("path", callback=_there)
@click.option(
    "--out", metavar="FOLDER", callback=_folder, help="Folder of the zoo.  [default: zoos/NAME]"
)
@_with_options
@threads
def import_(format: str, path: Path, out: Path | None, dry_run: bool, **chosen: Any) -> None:
    """Make a zoo of published networks that lie at PATH.

    \b
    FORMAT is one of
      dws            DWSNets: mnist-inrs, fmnist_inrs, sine waves (.pth)
      nfn            NFN: siren_mnist_wts and so on (.pth)
      small-cnn-zoo  weights.npy, metrics.csv.gz, layout.csv
      fit-a-nef      nefs_0-5000.hdf5, nef.json; needs wszoo[hdf5]
      state-dicts    your own state dicts of one architecture, a folder or one file

    PATH is a folder, or for files of torch also a .zip or .tar of it. Nothing in these files
    is run: a pickle that asks for more than tensors is refused. Nothing is guessed either:
    what the files leave open is asked for by its option, and the end says what was read as
    what and what was passed over. With --data-root the networks are held against the pictures
    they were fitted to, and psnr_db is recorded.
    """
    from zoo.importers import import_zoo, rehearse
    from zoo.importers.published import Options
    from zoo.kinds import look_of
    from zoo.making.progress import Progress

    chosen["column"] = chosen["column"] or None
    options = Options(**{each.name: chosen.pop(each.name) for each in fields(Options)})
    if dry_run:
        published, said = rehearse(format, path, options=options, limit=chosen["limit"])
        _tell(said)
        total = sum(published.rows.values())
        rows = ", ".join(f"{name} {count:,}" for name, count in published.rows.items())
        say(f"{path}: {total:,} networks ({rows}); nothing was written")
        return
    folder = out or Path("zoos") / f"{path.resolve().name.partition('.')[0]}-{format}"

    def how_to_go_on() -> str:
        return f"the same command makes {folder} from the start"

    with progress.shown(f"{folder}", "net", how_to_go_on) as meter:

        def report(state: Progress) -> None:
            meter.update(state.done, state.total)

        checked = chosen["check_against"] or chosen["data_root"]
        view: Any = {part: not chosen.pop(f"no_{part}") for part in ("parquet", "pictures")}
        index = import_zoo(
            format, path, folder, options=options, progress=report, warn=progress.tell,
            **view, **chosen,
        )  # fmt: skip
    _tell(index.source)
    held = checked or look_of(index).by_formula
    if held and index.told:
        say(f"held against the originals: {index.told}")
    if "accuracy_checked" in index.source:
        say(
            f"evaluated again: {index.source['accuracy_checked']}, pixels given as "
            f"{index.source['pixels']}"
        )
    if index.excluded:
        say(f"{len(index.excluded)} excluded; `wszoo info {folder}` lists them")
    rows = ", ".join(f"{name} {count:,}" for name, count in index.splits.items())
    say(f"{folder}: {index.rows:,} networks ({rows})")


def _tell(said: dict[str, Any]) -> None:
    """What was read as what, and what was passed over, a line each."""
    for line in said["read"]:
        say(f"read: {line}")
    for reason, count in said["passed_over"].items():
        say(f"passed over: {count:,} {reason}")
