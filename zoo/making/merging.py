"""Makes one zoo of parts that were fitted apart, on machines that know nothing of each other.

    wszoo fit-inrs mnist --shards 0/2 --out parts/0     # here
    wszoo fit-inrs mnist --shards 1/2 --out parts/1     # there, at any time
    wszoo merge parts/0 parts/1 --out zoos/mnist-inrs

A part is a folder that a plan and the records of its shards describe; each shard was
written by the same code as in a run that makes the whole zoo, and so is the end: the
files and the index are those of such a run. Of each shard a note was kept, its moments and
its quality, so that nothing is read again but the notes.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from zoo import shards, writing
from zoo.compare import source_of
from zoo.errors import ZooError
from zoo.making.builder import (
    gathered,
    note_file,
    record_file,
    record_of,
    refuse_nothing,
)
from zoo.making.plan import Planned, differences, plan_zoo, refuse_other
from zoo.recipes import recipe_from_json
from zoo.shards import File, Index, Shard

Record = dict[str, Any]


def merge(
    parts: Sequence[str | Path],
    out: str | Path,
    *,
    data_root: str | Path | None = None,
    check_hashes: bool = False,
    overwrite: bool = False,
    warn: Callable[[str], None] | None = None,
) -> Index:
    """Join the folders of parts into the zoo in the folder `out`, or go on with that.

    The parts are left as they are. Their files are linked where `out` is on the same file
    system, else copied, and compared with their sha256 while they are; a part that was
    fitted twice is taken once.

    Args:
        parts: folders that `build` made with `part=`; unfinished ones give what they have.
        data_root: where the source lies, which the card shows some of.
        check_hashes: also read what is only linked, and compare its sha256.
        overwrite: throw away a zoo that is already in `out`.
        warn: called with one line about anything strange that does no harm.

    Returns:
        The index of the finished zoo.

    Raises:
        ValueError: if there are no parts, they are of different zoos, or `out` holds
            something else.
        ZooError: if a shard is missing, or its files are not those of its record, or
            the source cannot be opened.
    """
    if not parts:
        raise ValueError("expected the folders of at least one part")
    folder, folders = Path(out), [Path(part) for part in parts]
    plans = [_plan(part) for part in folders]
    first = plans[0]
    for part, plan in zip(folders, plans, strict=True):
        if differing := differences(first, plan.to_json()):
            raise ValueError(
                f"{part} and {folders[0]} are parts of different zoos: {'; '.join(differing)}"
            )
        if plan.packages != first.packages and warn:
            warn(f"{part} was made with other versions than {folders[0]}; those are recorded")
    planned = plan_zoo(
        recipe_from_json(first.recipe),
        source_of(first, data_root),
        folder.resolve().name,
        limit=first.plan["limit"],
        seed=first.plan["seed"],
        shard_rows=first.plan["shard_rows"],
        dtype=first.plan.get("dtype", "float32"),
    )
    # Engine and versions are those that the parts were made with, not what is here.
    planned = replace(planned, index=replace(first, name=planned.index.name))
    found = _collect(folders, planned)
    try:
        with shards.one_writer(folder):
            return _join(folder, planned, found, check_hashes, overwrite)
    except OSError as error:
        raise ZooError(writing.disk_message(folder, error)) from error


def _plan(folder: Path) -> Index:
    """The plan of the whole zoo, from one of its parts."""
    path = folder / shards.BUILD_FOLDER / shards.PLAN_FILE
    if not path.is_file():
        raise ZooError(
            f"{folder} is no part of a zoo: it has no {shards.BUILD_FOLDER}/{shards.PLAN_FILE}; "
            "a fit with --shards makes one"
        )
    plain = shards.read_json(path)
    if plain.get("recipe", {}).get("kind") == "import":
        raise ZooError(f"{folder} is an import that was not finished, not a part of a zoo")
    index = Index.from_json({k: v for k, v in plain.items() if k not in ("planned", "unit_rows")})
    index.plan.pop("part", None)
    return index


def _collect(
    folders: Sequence[Path], planned: Planned
) -> dict[tuple[str, int], tuple[Path, Record]]:
    """Each shard's record and the folder it lies in, every shard once."""
    found: dict[tuple[str, int], tuple[Path, Record]] = {}
    for folder in folders:
        for key, rows in planned.parts.items():
            path = folder / record_file(*key)
            if not path.is_file():
                continue
            record = shards.read_json(path)
            if record["planned"] != len(rows):
                raise ZooError(f"{path} has {record['planned']} rows, planned are {len(rows)}")
            other, known = found.setdefault(key, (folder, record))
            if _content(known) != _content(record):
                raise ZooError(
                    f"{other} and {folder} both hold shard {key[0]} {key[1]}, with other bytes "
                    "(another kind of CPU?); give only one of them"
                )
    there = [key in found for key in planned.parts]
    if not all(there):
        first, count = there.index(False), len(there)
        end = there.index(True, first) if True in there[first:] else count
        raise ZooError(
            f"{there.count(False)} of {count} shards are in none of these folders; to fit the "
            f"first of them run the same fit with --shards {first}-{end - 1}/{count} into a "
            "folder of its own, and name that too"
        )
    return {key: found[key] for key in planned.parts}


def _content(record: Record) -> Any:
    shard = record["shard"]
    return (shard["sha256"] if shard else None, record["excluded"])


def _join(
    folder: Path,
    planned: Planned,
    found: dict[tuple[str, int], tuple[Path, Record]],
    check_hashes: bool,
    overwrite: bool,
) -> Index:
    index = planned.index
    made, excluded = gathered([found[key][1] for key in planned.parts])
    refuse_nothing(folder, made, excluded)
    theirs = {path.name for path in folder.iterdir()} - {shards.LOCK_FILE}
    if theirs and not theirs & {shards.INDEX_FILE, shards.BUILD_FOLDER}:
        raise ValueError(
            f"{folder} is not empty and not a zoo ({min(theirs)!r} lies there); choose another "
            "--out"
        )
    if overwrite:
        (folder / shards.BUILD_FOLDER).mkdir(exist_ok=True)
        for name in writing.OURS:
            writing.remove(folder / name)
    if (folder / shards.INDEX_FILE).is_file():
        there = shards.read_index(folder)
        refuse_other(folder, index, there.to_json())
        if there.shards == made and not any(
            shards.check_file(folder, file, check_hashes) for file in there.files
        ):
            return there
        (folder / shards.INDEX_FILE).unlink()
    plan = folder / shards.BUILD_FOLDER / shards.PLAN_FILE
    if plan.is_file():
        refuse_other(folder, index, shards.read_json(plan))
    shards.write_json(plan, planned.to_json())
    for key, (part, record) in found.items():
        shard = shards.shard_from_json(record["shard"]) if record["shard"] else None
        for file in (shard, shard.parquet if shard else None):
            if file is not None:
                _bring(part, folder, file, check_hashes)
        # So that a fit can go on here as well, and `wszoo info` counts the shard.
        shards.write_json(
            folder / record_file(*key),
            record_of(*key, len(planned.parts[key]), shard, record["excluded"]),
        )
    return writing.finish(folder, index, made, excluded, planned.samples, _notes(planned, found))


def _notes(
    planned: Planned, found: dict[tuple[str, int], tuple[Path, Record]]
) -> Iterator[writing.Arrays]:
    """The note of each shard; of one that has none it is made again from the shard."""
    for key, (part, record) in found.items():
        if record["shard"] is None:
            continue
        path = part / note_file(*key)
        if path.is_file():
            yield shards.read_tensors(path)
        else:
            arrays = shards.read_tensors(part / record["shard"]["file"])
            yield writing.note_of(planned.index, key[0], arrays)


def _bring(part: Path, folder: Path, file: File | Shard, check_hashes: bool) -> None:
    """A file of a part, linked or copied into the folder."""
    there, here = part / file.file, folder / file.file
    if wrong := shards.check_file(part, file, check_hashes):
        raise ZooError(f"{wrong}; run the fit of {part} again, it makes the shard anew")
    if here.exists() and (here.samefile(there) or not shards.check_file(folder, file, True)):
        return
    here.parent.mkdir(parents=True, exist_ok=True)
    here.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        os.link(there, here)
        return
    with shards.replacing(here) as temporary:
        shutil.copyfile(there, temporary)
        if shards.sha256(temporary) != file.sha256:
            raise ZooError(f"{there} does not have the sha256 of its record; fit {part} again")
