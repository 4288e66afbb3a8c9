"""Damages zoos, imports, runs and half-made zoos, and judges what wszoo says of each.

    python -m hostile.fuzz --seconds 180
    python -m hostile.fuzz --zoos 100000 --imports 20000 --runs 2000 --builds 500
    python -m hostile.fuzz --case zoos:1234          # one of them again, with its traceback

What is right after damage: a refusal in one line that names a file or a field, or what was
there before. Anything else is a fault: a traceback, more than 10 s, more than 1 GB beyond
what the undamaged case takes, other values than before (unless bytes of data changed and
nobody asked for hashes). The same seed damages the same things. Exit 1 if there are faults.
"""

import argparse
import json
import os
import resource
import sys
import tarfile
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ARCHIVE = ROOT / "tests" / "fixtures" / "324dc88.tar.xz"
TARGETS = ("zoos", "imports", "runs", "builds")
# Of the time that is given.
SHARES = {"zoos": 0.4, "imports": 0.3, "runs": 0.15, "builds": 0.15}
SHOWN = 3
# Of the archive: a zoo and a run of each kind.
OLD_ZOOS = ("pictures-dws", "pictures-nfn", "waves-ssl", "classifiers-bfloat16",
            "trajectories-tenths", "cnns-tanh", "imported")  # fmt: skip
OLD_RUNS = ("classify-mlp", "classify-nfn-np", "regress", "generalize", "ssl", "edit", "tickets")
NEW_RUNS = ("classify-mlp", "classify-mlp-align", "regress")


def environment() -> None:
    """What every case finds: no network, one thread, caches of its own."""
    os.environ.update(
        HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", OMP_NUM_THREADS="1", MPLBACKEND="agg"
    )


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, help="in all; instead of counts")
    for name in TARGETS:
        parser.add_argument(f"--{name}", type=int, help="cases; without any: by --seconds")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--case", help="TARGET:NUMBER: only this one, in this process")
    parser.add_argument("--report", type=Path, help="counts and faults as JSON")
    return parser.parse_args(words)


def targets(seed: int, home: Path, wanted: Collection[str]) -> dict[str, Any]:
    """What can be damaged; all material is made here, before any worker starts."""
    sys.path.insert(0, str(ROOT / "tests"))
    from fixtures.make import HALF, RUNS, STOPPED, ZOOS, hashes

    from hostile.answers import command
    from hostile.folders import Builds, Runs
    from hostile.imports import Imports
    from hostile.zoos import Zoos

    old, new, work = home / "324dc88", home / "now", home / "work"
    with tarfile.open(ARCHIVE) as tar:
        tar.extractall(old, filter="data")
    new.mkdir()
    os.chdir(new)
    # What this version makes, beside what 324dc88 made.
    fresh = ("pictures-dws", "waves-ssl", "trajectories")
    for name in fresh:
        command(*ZOOS[name], "--out", name)
    found: dict[str, Any] = {}
    if "zoos" in wanted:
        # A folder of pictures, whose names the zoo keeps: format 2.
        _pictures(home / "pictures")
        words = ("--hidden", 3, "--layers", 2, "--steps", 2, "--out", "folder")
        command("fit-inrs", f"imagefolder:{home / 'pictures'}", *words)
        sources = {name: old / name for name in OLD_ZOOS}
        sources |= {f"new-{name}": new / name for name in (*fresh, "folder")}
        found["zoos"] = Zoos(seed, sources, work)
    if "imports" in wanted:
        found["imports"] = Imports(seed, home / "published", work)
    if "runs" in wanted:
        runs: dict[str, Any] = {name: (RUNS[name], old) for name in OLD_RUNS}
        runs["stopped"] = STOPPED["stopped"][0], old
        for name in NEW_RUNS:
            command(*RUNS[name], "--out", f"new-{name}")
            runs[f"new-{name}"] = RUNS[name], new
        # Killed at a renaming, as the stored one was.
        dies(*STOPPED["stopped"][0], "--out", "new-stopped", at=STOPPED["stopped"][1])
        runs["new-stopped"] = STOPPED["stopped"][0], new
        found["runs"] = Runs(seed, runs, work)
    if "builds" in wanted:
        expected = json.loads((old / "expected.json").read_text())
        halves: dict[str, Any] = {}
        for name, (words, at) in HALF.items():
            again = tuple(word for word in words if word != "--overwrite")
            halves[name] = again, old / name, _networks(expected[name])
            if "--overwrite" not in words and name != "half-planned":
                dies(*words, "--out", f"new-{name}", at=at)
                command(*words, "--out", f"whole-{name}")
                whole = _networks(hashes(new / f"whole-{name}"))
                halves[f"new-{name}"] = again, new / f"new-{name}", whole
        found["builds"] = Builds(seed, halves, work)
    return found


def _pictures(folder: Path) -> None:
    """Twenty grey pictures of two classes."""
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(0)
    for number in range(20):
        path = folder / "train" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 255, (5, 4), np.uint8)).save(path)


def _networks(files: dict[str, str]) -> dict[str, str]:
    """Those files of which every byte is decided: networks, and what is computed of them."""
    return {
        name: digest
        for name, digest in files.items()
        if name.endswith(".safetensors") and not name.startswith(".build")
    }


def dies(*words: str, at: str) -> None:
    """Run a command in a fork that ends before its n-th renaming, "rename:n"."""
    child = os.fork()
    if not child:
        left, real = [int(at.partition(":")[2])], os.replace

        def replace(*paths: Any, **more: Any) -> None:
            left[0] -= 1
            if not left[0]:
                os._exit(137)
            real(*paths, **more)

        os.replace = replace
        try:
            from hostile.answers import command

            command(*words)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != 137:
        raise RuntimeError(f"{' '.join(words)} ended with {status} before {at}")


def main(words: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    given = arguments(words)
    environment()
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        prefix="wszoo-fuzz-", dir=shm if os.access(shm, os.W_OK) else None
    ) as name:
        target, _, number = (given.case or "").partition(":")
        counted = [each for each in TARGETS if getattr(given, each) is not None]
        found = targets(given.seed, Path(name), [target] if target else counted or TARGETS)
        if target:
            result = found[target].prepare()(int(number))
            print(result)
            return 1 if result.fault else 0
        return fuzz(found, given)


def fuzz(found: dict[str, Any], given: argparse.Namespace) -> int:
    """Run all targets, print what came of them, and keep the report."""
    from hostile.workers import Tally, Workers

    counts = {name: getattr(given, name) for name in found if getattr(given, name) is not None}
    seconds = given.seconds if given.seconds or counts else 180.0
    report: dict[str, Any] = {"seed": given.seed, "first": given.first, "targets": {}}
    for name, target in found.items():
        stop = given.first + counts[name] if counts else 1 << 60
        limit = 1e9 if counts else seconds * SHARES[name]
        tally = Tally()
        Workers(target.prepare, given.workers).run(given.first, stop, limit, tally)
        report["targets"][name] = {
            "cases": tally.cases,
            "seconds": round(tally.seconds, 1),
            "outcomes": dict(tally.outcomes.most_common()),
            "kinds": dict(tally.kinds.most_common()),
            "faults": {w: {"count": len(c), "cases": c[:SHOWN]} for w, c in tally.faults.items()},
        }
        rate = tally.cases / max(tally.seconds, 1e-9) / given.workers
        outcomes = ", ".join(f"{word} {count:,}" for word, count in tally.outcomes.most_common())
        print(f"{name}: {tally.cases:,} cases, {rate:.0f} a second and core; {outcomes}")
        for where, cases in sorted(tally.faults.items(), key=lambda item: -len(item[1])):
            print(f"  {len(cases):>6} x {where}")
            for number, line in cases[:SHOWN]:
                print(f"           {name}:{number} {line}"[:400])
        sys.stdout.flush()
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    report["peak_memory_bytes"] = usage.ru_maxrss * 1024
    if given.report is not None:
        given.report.write_text(json.dumps(report, indent=1) + "\n")
    faults = sum(len(f["faults"]) for f in report["targets"].values())
    print(f"{faults} kinds of faults" if faults else "no faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
