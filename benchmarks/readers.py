"""Trained runs as the folders of model_cards/: what `wszoo push` would send, under a name.

    python benchmarks/readers.py mnist-inrs-probe=runs/mnist-probe-0 ... [--out model_cards]

Weights of more than 2 MB stay out of the repository: of such a run the folder has the card and
the records, and the card says by which command it is trained again.
"""

import argparse
import shutil
import sys
from pathlib import Path

# Beside this file lies one with the name of the package.
sys.path[0] = str(Path(__file__).parents[1])

from processors import runs, saving  # noqa: E402
from zoo import ZooError  # noqa: E402

MOST = 2_000_000
LOAD = "## Load it\n"


def lay(name: str, run: Path, out: Path) -> bool:
    """One run as the folder `name`, in the place of what was there; whether its weights fit.

    Raises:
        ZooError: see `runs.published`.
    """
    runs.finished(run)
    size = (run / runs.MODEL / saving.WEIGHTS).stat().st_size
    kept = size <= MOST
    place = out / name
    loaded = f"{out.name}/{name}" if kept else f"runs/{run.name}/{runs.MODEL}"
    with runs.published(run, loaded) as staged:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(staged, place)
    if not kept:
        for part in (saving.WEIGHTS, saving.CONFIG):
            (place / part).unlink()
        card = place / runs.CARD
        told = (
            f"{LOAD}\nIts weights have {size / 1e6:.1f} MB and are not in this repository. The "
            "command below trains it again, and then:\n"
        )
        card.write_text(card.read_text("utf-8").replace(LOAD, told, 1), "utf-8")
    return kept


def named(word: str) -> tuple[str, Path]:
    """NAME=RUN, as argparse wants it."""
    name, _, run = word.partition("=")
    if not name or not run:
        raise argparse.ArgumentTypeError(f"expected NAME=RUN, got {word!r}")
    return name, Path(run)


def main() -> None:
    """Lay out what was named, and print where."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", nargs="+", type=named, metavar="NAME=RUN")
    parser.add_argument("--out", type=Path, default=Path("model_cards"))
    given = parser.parse_args()
    for name, run in given.runs:
        try:
            kept = lay(name, run, given.out)
        except ZooError as error:
            sys.exit(f"Error: {error}")
        print(f"{given.out / name}{'' if kept else ': its card alone'}")


if __name__ == "__main__":
    main()
