"""The command `import`, which brings published networks into zoos."""

from pathlib import Path

import click

from cli import progress
from cli.options import threads


@click.command("import")
@click.argument("format")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder of the zoo.  [default: zoos/NAME]"
)
@click.option("--labels", type=click.Path(path_type=Path), help="state-dicts: table of labels.")
@click.option(
    "--splits",
    type=click.Path(path_type=Path),
    help="dws: split file, JSON; small-cnn-zoo: NFN's order of rows.",
)
@click.option("--activation", help="small-cnn-zoo, state-dicts: of the hidden layers.")
@click.option("--spec", type=click.Path(path_type=Path), help="state-dicts: architecture, JSON.")
@click.option(
    "--check-against",
    metavar="SOURCE",
    help="Hold the networks against the originals: mnist, fashion-mnist, cifar10, digits or "
    "imagefolder:PATH.  [default: the format's own, if --data-root is given]",
)
@click.option(
    "--data-root",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the originals; nothing is downloaded.",
)
@threads
@click.option("--limit", type=int, help="Networks in all, split in proportion.")
@click.option("--shard-rows", type=int, help="Networks of a shard.  [default: about 24 MB]")
@click.option("--no-parquet", is_flag=True, help="Leave out the view for load_dataset.")
@click.option("--overwrite", is_flag=True, help="Throw away the zoo in --out first.")
def import_(
    format: str,
    path: Path,
    out: Path | None,
    labels: Path | None,
    splits: Path | None,
    activation: str | None,
    spec: Path | None,
    check_against: str | None,
    data_root: Path | None,
    limit: int | None,
    shard_rows: int | None,
    no_parquet: bool,
    overwrite: bool,
) -> None:
    """Make a zoo of published networks that lie at PATH.

    \b
    FORMAT is one of
      dws            DWSNets: mnist-inrs, fmnist_inrs, sine waves (.pth)
      nfn            NFN: siren_mnist_wts and so on (.pth)
      small-cnn-zoo  weights.npy, metrics.csv.gz, layout.csv
      fit-a-nef      nefs_0-5000.hdf5, nef.json; needs wszoo[hdf5]
      state-dicts    your own .safetensors or .pth of one architecture

    PATH is a folder, or for .pth files also a .zip or .tar of it. Nothing in these files is
    run: a pickle that asks for more than tensors is refused. With --data-root the networks
    are held against the pictures they were fitted to, and psnr_db is recorded.
    """
    from zoo.importers import import_zoo
    from zoo.importers.published import Options
    from zoo.making.progress import Progress

    folder = out or Path("zoos") / f"{path.resolve().name.partition('.')[0]}-{format}"

    def how_to_go_on() -> str:
        return f"the same command makes {folder} from the start"

    with progress.shown(f"{folder}", "net", how_to_go_on) as meter:

        def report(state: Progress) -> None:
            meter.update(state.done, state.total)

        index = import_zoo(
            format,
            path,
            folder,
            options=Options(labels, splits, activation, spec),
            limit=limit,
            shard_rows=shard_rows,
            check_against=check_against,
            data_root=data_root,
            overwrite=overwrite,
            parquet=not no_parquet,
            progress=report,
        )
    rows = ", ".join(f"{name} {count:,}" for name, count in index.splits.items())
    click.echo(f"{folder}: {index.rows:,} networks ({rows})")
    if check_against or data_root or index.source["kind"] == "sine":
        means = index.quality.items()
        for column, words in (("psnr_db", "mean PSNR {:.2f} dB"), ("mse", "mean error {:.3g}")):
            if column in index.columns:
                total = sum(q[column]["mean"] * index.splits[split] for split, q in means)
                click.echo(f"held against the originals: {words.format(total / index.rows)}")
                break
    if "accuracy_checked" in index.source:
        click.echo(f"evaluated again: {index.source['accuracy_checked']}")
    if index.excluded:
        click.echo(f"{len(index.excluded)} excluded; `wszoo info {folder}` lists them")
