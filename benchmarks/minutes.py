"""How long every experiment of `wszoo reproduce` takes on this machine, as a table.

    python benchmarks/minutes.py --data-root ~/.cache/wszoo [--scales cpu,paper] [--cifar10 DIR]

Nothing is run to its end: of each experiment a few networks are fitted, every model does a few
updates at its own batch, and what both take is multiplied by how many there will be, as by
`wszoo reproduce NAME --scale S --minutes`. On one thread, in processor time, so that it may be
run beside other work. What is known already in --out is not measured again.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

# Beside this file lies one with the name of the package.
sys.path[0] = str(Path(__file__).parents[1])

from cli.progress import duration  # noqa: E402
from processors.minutes import expected  # noqa: E402
from processors.reproduce import EXPERIMENTS, SCALES, Changes  # noqa: E402

Known = dict[tuple[str, str], Mapping[str, Any]]


def read(path: Path) -> Known:
    """What was measured before."""
    lines = path.read_text().splitlines() if path.exists() else []
    entries = [json.loads(line) for line in lines]
    return {(entry["name"], entry["scale"]): entry for entry in entries}


def table(known: Known, scales: Sequence[str]) -> list[str]:
    """In Markdown: of each scale what the zoo takes, and its rows together, where it is known."""
    heads = [f"{scale}: the zoo | its rows" for scale in scales]
    lines = [f"| experiment | {' | '.join(heads)} |", "|---" * (1 + 2 * len(scales)) + "|"]
    for name, experiment in EXPERIMENTS.items():
        if not any((name, scale) in known for scale in scales):
            continue
        cells = []
        for scale in scales:
            entry = known.get((name, scale))
            parts = entry["parts"] if entry else []
            zoo, rows = parts[:1], parts[1:]
            cells += [
                f"{duration(zoo[0][2])}, {zoo[0][1]}" if zoo else "",
                f"{duration(sum(row[2] for row in rows))}, {len(rows)} in all" if rows else "",
            ]
        lines.append(f"| `{name}`, {experiment.identity} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Measure what is not known, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-root", required=True, help="folder of the sources")
    parser.add_argument("--scales", default=",".join(SCALES), help="with commas")
    parser.add_argument("--cifar10", help="a folder of pictures in the place of CIFAR-10")
    parser.add_argument("--out", type=Path, default=Path("minutes.jsonl"))
    asked = parser.parse_args()
    scales = asked.scales.split(",")
    torch.set_num_threads(1)
    known = read(asked.out)
    for scale in scales:
        for name, experiment in EXPERIMENTS.items():
            if (name, scale) in known:
                continue
            if experiment.source == "cifar10" and asked.cifar10:
                EXPERIMENTS[name] = replace(experiment, source=f"imagefolder:{asked.cifar10}")
            changes = Changes(data_root=asked.data_root, device="cpu")
            try:
                found = expected(name, scale, changes)
            except (ValueError, OSError, MemoryError) as error:
                print(f"{name} {scale}: {error}", flush=True)
                continue
            parts = [(part.what, part.amount, round(part.seconds)) for part in found]
            known[name, scale] = {"name": name, "scale": scale, "parts": parts}
            with asked.out.open("a") as file:
                file.write(json.dumps(known[name, scale]) + "\n")
            print(name, scale, duration(sum(part.seconds for part in found)), flush=True)
    print("\n".join(table(known, scales)))


if __name__ == "__main__":
    main()
