"""Makes one zoo of parts that were fitted apart, on machines that know nothing of each other.

    wszoo fit-inrs mnist --shards 0/2 --out parts/0     # here
    wszoo fit-inrs mnist --shards 1/2 --out parts/1     # there, at any time
    wszoo merge parts/0 parts/1 --out zoos/mnist-inrs

A part is a site that ends without an index: a plan, and the records of its shards. Each
shard was written by the same code as in a run that makes the whole zoo, and so is the end:
the files and the index are those of such a run. Of each shard there is a note, its moments
and its quality, so that nothing is read again but the notes.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zoo import schema, shards, stopping
from zoo.compare import source_of
from zoo.errors import ZooError
from zoo.making.plan import Key, Planned, Settings, differences, plan_zoo
from zoo.making.site import (
    PLAN,
    Record,
    Site,
    contradiction,
    index_of,
    make,
    misfits,
    read_plan,
    record_file,
    refuse_foreign,
)
from zoo.recipes import recipe_from_json
from zoo.shards import File, Index
from zoo.storage import Folder


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
    folders = [Path(part) for part in parts]
    where = Folder(Path(out))
    if where.path.resolve() in {part.resolve() for part in folders}:
        raise ValueError(f"{where} is one of the parts; choose another --out")
    refuse_foreign(where)
    planned = _planned(folders, where.name, data_root, warn)
    found = _collect(folders, planned)
    if all(each.record.shard is None for each in found.values()):
        raise ZooError(f"no network is left for {where}: all were excluded")
    _check(found, planned, check_hashes)

    def bring(site: Site) -> None:
        for key in planned.parts:
            stopping.check()
            _bring(found[key], site)

    index = make(where, planned, bring, overwrite, warn)
    made = [found[key].record.shard for key in planned.parts if found[key].record.shard]
    if list(index.shards) != made:
        raise ValueError(
            f"{where} holds this zoo already, with other bytes than the parts have; choose "
            "another --out, or replace it with --overwrite"
        )
    return index


@dataclass(frozen=True)
class _Found:
    """A shard of a part."""

    part: Path
    record: Record

    @property
    def content(self) -> Any:
        """What two parts that hold the same shard have alike."""
        return self.record.shard and self.record.shard.sha256, self.record.excluded


def _planned(
    folders: Sequence[Path],
    name: str,
    data_root: str | Path | None,
    warn: Callable[[str], None] | None,
) -> Planned:
    """The plan of the whole zoo, on which all parts agree."""
    plans = [_plan(part) for part in folders]
    first, address = plans[0]
    for part, (plan, _) in zip(folders, plans, strict=True):
        if differing := differences(first, plan.to_json()):
            raise ValueError(
                f"{part} and {folders[0]} are parts of different zoos: {'; '.join(differing)}"
            )
        if plan.pictures != first.pictures:
            shown = [", ".join(each.pictures) or "none" for each in (plan, first)]
            raise ValueError(
                f"the view of {part} begins with other pictures ({shown[0]}) than that of "
                f"{folders[0]} ({shown[1]}); fit one of them anew, with or without --no-pictures"
            )
        if plan.packages != first.packages and warn:
            warn(f"{part} was made with other versions than {folders[0]}; those are recorded")
    planned = plan_zoo(
        recipe_from_json(first.recipe),
        source_of(first, data_root, address),
        name,
        Settings(
            limit=first.plan["limit"],
            seed=first.plan["seed"],
            shard_rows=first.plan["shard_rows"],
            dtype=first.plan.get("dtype", "float32"),
        ),
    )
    # Engine and versions are those that the parts were made with, not what is here.
    names = planned.index.names if "names" in first.source else None
    return replace(planned, index=replace(first, name=planned.index.name, names=names))


def _plan(folder: Path) -> tuple[Index, str | None]:
    """The plan of the whole zoo from one of its parts, and where its source lay."""
    if not (folder / PLAN).is_file():
        raise ZooError(
            f"{folder} is no part of a zoo: it has no {PLAN}; a fit with --shards makes one"
        )
    plain = read_plan(Folder(folder))
    index = index_of(plain)
    if index.imported:
        raise ZooError(f"{folder} is an import that was not finished, not a part of a zoo")
    index.plan.pop("part", None)
    return index, plain.get("address")


def _collect(folders: Sequence[Path], planned: Planned) -> Mapping[Key, _Found]:
    """Each shard's record and the part it lies in, every shard once."""
    found: dict[Key, _Found] = {}
    for folder in folders:
        for key in planned.parts:
            path = folder / record_file(*key)
            if not path.is_file():
                continue
            record = Record.parse(schema.read_plain(path), str(path))
            if wrong := contradiction(record, planned, key):
                raise ZooError(f"{path} contradicts the plan: {wrong}; {_again(folder)}")
            this = _Found(folder, record)
            other = found.setdefault(key, this)
            if other.content != this.content:
                raise ZooError(
                    f"{other.part} and {folder} both hold shard {key[0]} {key[1]}, with other "
                    "bytes (another kind of CPU?); give only one of them"
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
    return found


def _again(part: Path) -> str:
    return f"run the fit of {part} again, it makes the shard anew"


def _check(found: Mapping[Key, _Found], planned: Planned, check_hashes: bool) -> None:
    """ZooError for a shard whose files are not those of its record or its plan."""
    for part in dict.fromkeys(each.part for each in found.values()):
        records = [each.record for each in found.values() if each.part == part]
        for record in records:
            for file in record.files:
                if wrong := shards.check_file(part, file, check_hashes):
                    raise ZooError(f"{wrong}; {_again(part)}")
        for wrong in misfits(Folder(part), planned, records):
            if wrong:
                raise ZooError(f"{wrong}; {_again(part)}")


def _bring(found: _Found, site: Site) -> None:
    """Have a shard of a part in the site: its files linked or copied, and its record."""
    assert isinstance(site.where, Folder)
    part, record, folder = found.part, found.record, site.where.path
    kept = site.records.get(record.key)
    if kept is not None and _Found(folder, kept).content == found.content:
        return
    for file in record.files:
        _link(part, folder, file)
    note = record.note
    if note is not None and shards.check_file(part, note, hashes=False):
        note = None  # it is made again from the shard
    if note is not None:
        _link(part, folder, note)
    site.commit(replace(record, note=note))


def _link(part: Path, folder: Path, file: File) -> None:
    there, here = part / file.file, folder / file.file
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
            raise ZooError(f"{there} does not have the sha256 of its record; {_again(part)}")
