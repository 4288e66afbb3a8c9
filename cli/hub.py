"""Commands that move zoos and models to and from the Hugging Face Hub: `push`, `pull`."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from cli import progress
from cli.options import FolderPath, Word, revision, split, zoo_path
from cli.output import say

repo_id = click.argument("repo_id", metavar="USER/NAME")


@click.command()
@zoo_path
@repo_id
@click.option(
    "--as", "within", metavar="FOLDER", type=Word("a name", r"[A-Za-z0-9][\w-]{0,95}"),
    help="Folder of the repository, beside other zoos; it opens as USER/NAME/FOLDER.",
)  # fmt: skip
@click.option("--public", is_flag=True, help="Make a new repository public.  [default: private]")
@revision("Branch that the commit goes onto.  [default: main]")
@click.option(
    "--message", type=Word("a message"), help="Of the commit.  [default: Push NAME with wszoo]"
)
@click.option("--create-pr", is_flag=True, help="Propose the commit as a pull request.")
@click.option("--dry-run", is_flag=True, help="Only print what would be sent.")
def push(
    path: Path | str,
    repo_id: str,
    within: str | None,
    public: bool,
    revision: str | None,
    message: str | None,
    create_pr: bool,
    dry_run: bool,
) -> None:
    """Send PATH to the Hub: a zoo as the dataset USER/NAME, a finished run as a model.

    A zoo, which may lie at a URL such as s3://BUCKET/NAME, is verified first. Of a run
    the best model goes to the top, where processors.load("USER/NAME") finds it, with
    card, figures and metrics beside it. With --as several zoos lie in one repository.
    What is there already is not sent again, and all of it appears in one commit; after
    a stop of any kind run the same command again.
    """
    from zoo.hub import push as send

    with _bar("sent") as report, _sendable(path, repo_id) as folder:
        done = send(
            folder,
            repo_id,
            within=within,
            public=public,
            revision=revision,
            message=message,
            create_pr=create_pr,
            dry_run=dry_run,
            progress=report,
        )
    if dry_run:
        for file in done.send:
            say(f"send    {file.bytes:>13,}  {file.file}")
        for file in done.move:
            say(f"move    {file.bytes:>13,}  {file.file}")
        for name in done.remove:
            say(f"remove  {'':>13}  {name}")
    count, size = len(done.send), f"{done.send_bytes:,} bytes"
    removed = "to remove" if dry_run else "removed"
    there = len(done.keep) + len(done.move)
    rest = f"{there} there already, {len(done.remove)} {removed}"
    if not done.compared:
        rest = "not compared with the Hub, as there is no token: see `hf auth login`"
    say(f"{'would send' if dry_run else 'sent'} {count} files, {size}; {rest}")
    state = {True: "private", False: "public", None: ""}[done.private]
    say(" ".join(word for word in (done.url, f"({state})" if state else "") if word))
    if public and done.private and not done.created:
        say("it stays private: change that in the settings of the repository", err=True)


@click.command()
@repo_id
@click.option("--out", type=FolderPath(), help="Folder of the zoo.  [default: zoos/NAME]")
@split("Only this one: train, validation or test.  [default: all]")
@revision("Branch, tag or commit.  [default: main]")
@click.option("--overwrite", is_flag=True, help="Replace another zoo in --out.")
def pull(
    repo_id: str, out: Path | None, split: str | None, revision: str | None, overwrite: bool
) -> None:
    """Fetch the zoo USER/NAME from the Hub into a folder; of several USER/NAME/FOLDER.

    Every file is held against the zoo's index. After a stop of any kind run the same
    command again: what is there and whole is kept.
    """
    from zoo.hub import pull as fetch

    folder = out or Path("zoos") / repo_id.rpartition("/")[2]
    with _bar("fetched") as report:
        index = fetch(
            repo_id, folder, split=split, revision=revision, overwrite=overwrite, progress=report
        )
    splits = {split: index.splits[split]} if split else index.splits
    words = ", ".join(f"{name} {rows:,}" for name, rows in splits.items())
    say(f"{folder}: {sum(splits.values()):,} networks ({words}), every file verified")


@contextlib.contextmanager
def _sendable(path: Path | str, repo_id: str) -> Iterator[Path | str]:
    """The folder or URL itself, or for a run one that is laid out as a model repository."""
    if isinstance(path, str):  # a URL, where only zoos lie
        yield path
        return
    if (path / "config.json").is_file() and not (path / "zoo.json").is_file():
        from processors import runs

        if runs.is_run(path):
            with runs.published(path, repo_id) as staged:
                yield staged
            return
    yield path


@contextlib.contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar of bytes on stderr; a stop says how to go on."""

    def how_to_go_on() -> str:
        return f"what was {what} is kept. Run the same command again to go on."

    with progress.shown(what, "B", how_to_go_on) as meter:
        yield lambda done, total: meter.update(done, total)
