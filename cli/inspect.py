"""Commands that look at zoos: `info`, `verify`, `show`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli import options
from cli.options import Word, data_root, number, source_address, threads
from cli.output import say
from zoo.errors import safe_line

if TYPE_CHECKING:
    from zoo.shards import Index

zoo_place = click.argument("path")
revision = options.revision("Of a zoo on the Hub: branch, tag or commit.  [default: main]")
seed = click.option(
    "--seed", type=number(least=0), default=0, show_default=True, help="Seed of the choice of rows."
)

# Characters that are shown of a text in an index.
WIDEST = 600


@click.command()
@zoo_place
@revision
def info(path: str, revision: str | None) -> None:
    """What the zoo at PATH holds; also for one that is still being made.

    PATH may be the USER/NAME of a zoo on the Hugging Face Hub or a URL such as
    s3://BUCKET/NAME, of which only the index is fetched.
    """
    from zoo.errors import ZooError
    from zoo.hub import find
    from zoo.shards import BUILD_FOLDER

    state = None
    # By os.path: what may not be looked into is told by `find`.
    if revision is None and os.path.isdir(os.path.join(path, BUILD_FOLDER)):
        from zoo.making.site import unfinished  # loads torch, which finished zoos need not wait for

        state = unfinished(Path(path))
    if state is not None and not state.replaces:
        index = state.index
        say(f"{path}: unfinished, {state.done:,} of {state.total:,} networks are on disk")
    else:
        index = find(path, revision).index
        say(f"{path}: {index.rows:,} networks")
    if state is not None and state.replaces:
        command = safe_line(state.index.command, WIDEST)
        say(
            f"  being overwritten: of the new zoo {state.done:,} of {state.total:,} networks are "
            f"there; the command that overwrites it goes on: {command}"
        )
    try:
        _describe(index)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ZooError(f"{path}: its index lacks something or has it wrong: {error}") from error


def _describe(index: "Index") -> None:
    from zoo.recipes import TOLD, told_recipes

    widths = "-".join(str(width) for width in index.spec.widths)
    encoded = f" {index.spec.encoding_words}".rstrip()
    rows: list[tuple[str, str]] = [
        ("source", f"{index.source.get('title', 'unknown')} ({index.source['name']})"),
        ("network", f"{widths}{encoded}, {index.spec.param_count:,} parameters"),
    ]
    for whose, recipe in told_recipes(index.recipe).items():
        rows += [
            (whose, f"{recipe.pop('name')} ({recipe.pop('kind')})"),
            ("", ", ".join(f"{key} {_plain(value)}" for key, value in recipe.items())),
        ]
    rows += [
        ("plan", ", ".join(f"{key} {_plain(value)}" for key, value in index.plan.items())),
        ("made by", index.command),
    ]
    if index.shards:
        files = index.files
        size = sum(file.bytes for file in files)
        rows.append(("files", f"{len(files)}, {size / 1e6:,.1f} MB, {len(index.shards)} shards"))
        rows.append(("cpu", ", ".join(sorted({shard.cpu for shard in index.shards}))))
    for name, value in rows:
        say(f"  {name:<9} {safe_line(value, WIDEST)}")
    for split, count in index.splits.items():
        found = index.quality.get(split, {})
        words = [
            f"{column} {found[column]['mean']:.4g} ({found[column]['min']:.4g}.."
            f"{found[column]['max']:.4g})"
            for column in TOLD
            if column in found
        ]
        say(f"  {split:<10} {count:>9,}  {'  '.join(words)}")
    if index.excluded:
        say(f"  excluded: {len(index.excluded)}")
        for row in index.excluded[:10]:
            reason = safe_line(row.reason, WIDEST)
            say(f"    {row.split} index {row.index} view {row.view}: {reason}")
        if len(index.excluded) > 10:
            say(f"    and {len(index.excluded) - 10} more, all in zoo.json")


def _plain(value: Any) -> str:
    return "none" if value is None else f"{value}"


@click.command()
@zoo_place
@revision
@click.option(
    "--samples", type=number(least=0), default=64, show_default=True, help="Rows to render again."
)
@click.option(
    "--refit", type=number(least=0), default=0, show_default=True, help="Rows to fit again."
)
@seed
@click.option(
    "--device", type=Word("cpu, cuda or cuda:N", r"cpu|mps|cuda(:\d{1,3})?"), default="cpu",
    show_default=True, help="Torch device of a refit.",
)  # fmt: skip
@threads
@data_root
@source_address
def verify(path: str, **settings: Any) -> None:
    """Check the zoo at PATH: hashes, rows, quality against its source, a refit.

    PATH is a folder, the USER/NAME of a zoo on the Hugging Face Hub, of which all is fetched,
    or a URL such as s3://BUCKET/NAME, from which everything is fetched anew.
    """
    from zoo.errors import ZooError
    from zoo.verification import verify as checks

    failed = []
    for check in checks(path, **settings):
        say(f"{'ok    ' if check.passed else 'FAILED'}  {check.name:<8} {check.detail}")
        if not check.passed:
            failed.append(check.name)
    if failed:
        remedy = (
            "Run the command that made it again: it keeps what is whole and makes the rest anew"
            if Path(path).is_dir()
            else "Tell those who published it"
        )
        raise ZooError(f"{path} did not pass: {', '.join(failed)}. {remedy}")


@click.command()
@zoo_place
@revision
@click.option(
    "--out", type=options.FilePath(),
    help="The picture, PNG.  [default: samples.png, with --html none]",
)  # fmt: skip
@click.option(
    "--html", type=options.FilePath(),
    help="A page for the browser, to sort and filter networks; it needs no network.",
)  # fmt: skip
@options.split("Which rows.  [default: the last split, of a page all]")
@click.option(
    "--count", type=number(least=1, most=10_000),
    help="How many networks.  [default: 16, of a page 2000]",
)  # fmt: skip
@seed
@threads
@data_root
@source_address
def show(
    path: str, out: Path | None, html: Path | None, count: int | None, **settings: Any
) -> None:
    """Draw random networks of the zoo at PATH beside their originals.

    PATH is a folder, the USER/NAME of a zoo on the Hugging Face Hub or a URL such as
    s3://BUCKET/NAME, of which only the shards are fetched that hold these networks. Of
    classifiers the whole split is drawn: test accuracy as a histogram, and over the steps
    of the runs or by pair of classes.

    With --html it is one page: networks beside their originals, to sort and filter by class,
    split and quality, with their weights as heat maps; of trajectories the curve of each run.
    """
    if out is not None or html is None:
        from zoo.compare import draw

        picture = out or options.FilePath().convert("samples.png", None, None)
        draw(path, picture, count=count or 16, **settings)
        say(f"{picture}")
    if html is not None:
        from zoo.page import NETWORKS, write_page

        for line in write_page(path, html, count=count or NETWORKS, **settings):
            say(line, err=True)
        say(f"{html}: {html.stat().st_size / 1e6:.1f} MB")
