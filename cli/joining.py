"""Commands that make zoos of zoos, `select` and `concat`, and views anew, `view` and `card`."""

from pathlib import Path
from typing import Any

import click

from cli import progress
from cli.options import FolderPath, data_root, no_pictures, source_address, threads
from cli.output import say

_OVERWRITE = click.option(
    "--overwrite", is_flag=True, help="Replace the zoo in --out, which stays until then."
)
_NO_PARQUET = click.option(
    "--no-parquet", is_flag=True, help="Leave out the view for load_dataset."
)
_OUT = click.option("--out", type=FolderPath(), required=True, help="Folder of the new zoo.")


@click.command()
@click.argument("zoo")
@click.option(
    "--where", required=True,
    help="Condition on columns, such as \"psnr_db > 25 and label in (3, 8)\".",
)  # fmt: skip
@_OUT
@_NO_PARQUET
@no_pictures
@_OVERWRITE
def select(zoo: str, where: str, out: Path, overwrite: bool, **left_out: bool) -> None:
    """Make a zoo of the rows of ZOO that meet a condition.

    ZOO is a folder, USER/NAME on the Hub or a URL. A condition has columns, numbers, class
    names in quotes, comparisons, in, not in, and, or, not and brackets.
    """
    from zoo.joining import select as chosen

    _print(out, chosen(zoo, where, out, overwrite=overwrite, **_view_of(**left_out)))


@click.command()
@click.argument("zoos", nargs=-1, required=True)
@_OUT
@click.option(
    "--equal-keys", is_flag=True, help="Take rows of the same index and view from several zoos."
)
@_NO_PARQUET
@no_pictures
@_OVERWRITE
def concat(
    zoos: tuple[str, ...], out: Path, equal_keys: bool, overwrite: bool, **left_out: bool
) -> None:
    """Make one zoo of all rows of several ZOOS of one architecture.

    Its column `origin` says which zoo a row comes from.
    """
    from zoo.joining import concat as joined

    settings = {"equal_keys": equal_keys, "overwrite": overwrite, **_view_of(**left_out)}
    _print(out, joined(zoos, out, **settings))


def _view_of(no_parquet: bool, no_pictures: bool) -> dict[str, bool]:
    return {"parquet": not no_parquet, "pictures": not no_pictures}


@click.command()
@click.argument("zoo", type=click.Path(path_type=Path))
@no_pictures
@data_root
@source_address
@threads
def view(zoo: Path, no_pictures: bool, data_root: Path | None, source: str | None) -> None:
    """Write the Parquet view of the zoo in the folder ZOO anew, and its card.

    Also for a zoo that was made with --no-parquet. Rows of pictures begin with what the
    network renders and, where the source is at hand and its licence allows, the original.
    """
    _renew(zoo, view=True, pictures=not no_pictures, data_root=data_root, source=source)


@click.command()
@click.argument("zoo", type=click.Path(path_type=Path))
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path, exists=True))
@click.option(
    "--results", is_flag=True,
    help="Show what the RUNS reached: folders of runs, or files of report --keep.",
)  # fmt: skip
@data_root
@source_address
@threads
def card(
    zoo: Path, runs: tuple[Path, ...], results: bool, data_root: Path | None, source: str | None
) -> None:
    """Write the data card of the zoo in the folder ZOO anew, from its shards.

    With --results RUNS... it has a table and a figure of what these models reach on the zoo,
    beside chance and, after `wszoo ceiling ZOO`, the ceiling. A card that is made anew
    without them shows none.
    """
    if results != bool(runs):
        what = "names no run" if results else f"is lacking before {runs[0]}"
        raise ValueError(f"--results {what}: wszoo card ZOO --results RUN...")
    _renew(zoo, data_root=data_root, source=source, reached=_reached(zoo, runs) if runs else ())


def _reached(zoo: Path, runs: tuple[Path, ...]) -> Any:
    """What runs reached on a zoo."""
    from processors.reached import About, reached
    from zoo import identity, shards

    index = shards.read_index(zoo)
    about = About(
        folder=zoo,
        hashes=identity.hashes(zoo),
        recipe=index.recipe,
        source=index.source["name"],
        splits=index.splits,
    )
    return reached(about, runs, progress.tell)


def _renew(zoo: Path, **settings: Any) -> None:
    from zoo.renewal import renew

    index = renew(zoo, warn=progress.tell, **settings)
    _print(zoo, index)


def _print(folder: Path, index: Any) -> None:
    splits = ", ".join(f"{split} {rows:,}" for split, rows in index.splits.items())
    say(f"{folder}: {index.rows:,} networks ({splits})")
