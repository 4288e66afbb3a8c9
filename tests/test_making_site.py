"""One protocol for zoos in the making: nothing is lost, nothing is believed unseen."""

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from helpers import line_of, run

import zoo
from zoo import shards, sources, storage, succession, table
from zoo.engines.cpu import CpuEngine
from zoo.errors import ZooError
from zoo.making import plan
from zoo.making.builder import build
from zoo.making.chunks import Fitter
from zoo.making.merging import merge
from zoo.making.plan import Settings, plan_zoo, processor
from zoo.making.site import Site, slot_of, unfinished, write
from zoo.recipes import ImageRecipe, recipe

SETTINGS: dict[str, Any] = {"limit": 60, "shard_rows": 20}  # five shards: three, one, one


@pytest.fixture(scope="module")
def other(quick) -> ImageRecipe:
    return replace(quick, lr=0.01)


@pytest.fixture(scope="module")
def made(digits, quick, other, tmp_path_factory) -> Path:
    """Two zoos called `zoo`, `old/zoo` and `new/zoo`, of the same shards' names."""
    root = tmp_path_factory.mktemp("made")
    build(quick, digits, root / "old" / "zoo", **SETTINGS)
    build(other, digits, root / "new" / "zoo", **SETTINGS)
    return root


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a zoo by its path."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in paths
        if path.name != shards.LOCK_FILE
    }


def assert_whole(folder: Path, index: shards.Index | None = None) -> shards.Index:
    """The folder opens, and every file that its index names has the sha256 it says."""
    found = shards.read_index(folder)
    assert not [line for f in found.files if (line := shards.check_file(folder, f, True))]
    for split in found.splits:
        zoo.open_zoo(folder, split)
    return found


# ---- a kill at any moment


class Killed(BaseException):
    """The process is dead: nothing that it would still do happens."""


@contextlib.contextmanager
def killed_at(moment: int) -> Iterator[list[str]]:
    """Nothing is written, linked, renamed or removed from that operation on.

    Yields the operations that happened.
    """
    done: list[str] = []
    with pytest.MonkeyPatch.context() as patch:

        def dying(owner: Any, name: str) -> None:
            true = getattr(owner, name)

            def call(*given: Any, **named: Any) -> Any:
                if len(done) >= moment:
                    raise Killed
                done.append(f"{name} {given[0]}")
                return true(*given, **named)

            patch.setattr(owner, name, call)

        for name in ("write_bytes", "write_text", "replace", "unlink"):
            dying(Path, name)
        for name in ("link", "unlink", "rmdir"):  # the last two are what rmtree does
            dying(os, name)
        dying(shutil, "copyfile")
        yield done


def moments(
    begin: Callable[[], None], work: Callable[[], Any], check: Callable[[], None], stride: int = 1
) -> int:
    """Begin anew, do some work, killed at its every operation (or every few), and check.

    Returns:
        How many kills there were before the work got through.
    """
    for kills in range(10_000):
        begin()
        try:
            with killed_at(kills * stride):
                work()
            return kills
        except Killed:
            check()
    raise AssertionError


def test_an_overwriting_killed_at_any_moment_leaves_the_old_zoo_or_the_new(
    digits, other, made, tmp_path
):
    old, new = (shards.read_index(made / name / "zoo") for name in ("old", "new"))
    out, seen = tmp_path / "zoo", []

    def begin() -> None:
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(made / "old" / "zoo", out)

    def work() -> None:
        build(other, digits, out, overwrite=True, **SETTINGS)

    def check() -> None:
        found = assert_whole(out)
        seen.append("old" if found.recipe == old.recipe else "new")
        if seen[-1] == "old":
            assert found == old
        before = sorted(contents(out))
        lines = []
        build(other, digits, out, overwrite=seen[-1] == "old", warn=lines.append, **SETTINGS)
        if contents(out).keys() != contents(made / "new" / "zoo").keys():
            print(seen, before, lines, sorted(contents(out)))
        assert contents(out) == contents(made / "new" / "zoo")

    assert moments(begin, work, check, stride=5) > 15
    assert {"old", "new"} == set(seen)
    assert seen == sorted(seen, key=["old", "new"].index)  # the change is one moment
    assert contents(out) == contents(made / "new" / "zoo")
    assert shards.read_index(out) == new


def test_a_merge_over_a_zoo_killed_at_any_moment_leaves_the_old_zoo_or_the_new(
    digits, other, made, tmp_path
):
    parts = [tmp_path / "parts" / str(number) for number in range(2)]
    for number, part in enumerate(parts):
        build(other, digits, part, part=f"{number}/2", **SETTINGS)
    out = tmp_path / "zoo"

    def begin() -> None:
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(made / "old" / "zoo", out)

    def check() -> None:
        recipe = assert_whole(out).recipe
        merge(parts, out, overwrite=recipe["lr"] != other.lr)
        assert contents(out) == contents(made / "new" / "zoo")

    assert moments(begin, lambda: merge(parts, out, overwrite=True), check, stride=9) > 5
    assert contents(out) == contents(made / "new" / "zoo")


def test_a_first_build_killed_at_any_moment_is_gone_on_with(digits, quick, made, tmp_path):
    out = tmp_path / "zoo"

    def check() -> None:
        if (out / "zoo.json").exists():
            assert_whole(out)
        build(quick, digits, out, **SETTINGS)
        assert contents(out) == contents(made / "old" / "zoo")

    def begin() -> None:
        shutil.rmtree(out, ignore_errors=True)

    assert moments(begin, lambda: build(quick, digits, out, **SETTINGS), check, stride=6) > 5


def test_mending_keeps_the_index_and_what_is_whole(digits, quick, made, tmp_path):
    """A zoo of which one shard is damaged opens all the time, but for that shard."""
    out = tmp_path / "zoo"
    index = shards.read_index(made / "old" / "zoo")
    victim = index.shards[1].file

    def begin() -> None:
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(made / "old" / "zoo", out)
        (out / victim).write_bytes(b"damaged")

    def check() -> None:
        assert shards.read_index(out) == index
        wrong = [f.file for f in index.files if shards.check_file(out, f, hashes=True)]
        assert set(wrong) <= {victim, index.shards[1].parquet.file, "stats.safetensors"}
        assert wrong in ([], [victim])
        build(quick, digits, out, **SETTINGS)
        assert contents(out) == contents(made / "old" / "zoo")

    assert moments(begin, lambda: build(quick, digits, out, **SETTINGS), check, stride=3) > 3


# ---- what is read back

Edit = Callable[[dict[str, Any]], Any]


@pytest.fixture(scope="module")
def half(digits, quick, tmp_path_factory) -> Path:
    """A zoo in the making: two shards have records and notes, the third has chunks."""
    out = tmp_path_factory.mktemp("half") / "zoo"

    def stop(state: zoo.Progress) -> None:
        if state.done >= 48:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CpuEngine, "batch", 4)
        with pytest.raises(KeyboardInterrupt):
            build(quick, digits, out, progress=stop, **SETTINGS)
    assert len(list((out / ".build" / "shards").iterdir())) == 2
    assert len(list((out / ".build" / "chunks").iterdir())) == 2
    return out


def gone_on_with(half: Path, out: Path, damage: Callable[[Path], None]) -> Callable[..., list[str]]:
    """A function that copies `half`, damages it and goes on; it returns what was told."""
    shutil.copytree(half, out)
    damage(out)

    def go_on(digits: sources.ImageSource, quick: ImageRecipe) -> list[str]:
        lines: list[str] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(CpuEngine, "batch", 4)
            build(quick, digits, out, warn=lines.append, **SETTINGS)
        return lines

    return go_on


def edited(edit: Edit, name: str) -> Callable[[Path], None]:
    """Change a JSON file in `.build/`."""

    def damage(folder: Path) -> None:
        path = folder / ".build" / name
        plain = json.loads(path.read_text())
        edit(plain)
        path.write_text(json.dumps(plain))

    return damage


RECORD = "shards/train-00001.json"
RECORDS: dict[str, tuple[Edit, str]] = {
    "rows": (lambda r: r["shard"].update(rows=19), "it has 19 rows, 20 are planned"),
    "rows as a fraction": (lambda r: r["shard"].update(rows=20.0), "shard.rows: expected an"),
    "units": (lambda r: r.update(planned=19), "it has 19 units, planned are 20"),
    "another split": (lambda r: r.update(split="test"), "it is of shard test 1"),
    "no such split": (lambda r: r.update(split="all"), "split: expected 'train'"),
    "another number": (lambda r: r.update(number=0), "it is of shard train 0"),
    "number as true": (lambda r: r.update(number=True), "number: expected an integer"),
    "nothing made": (lambda r: r.update(shard=None), "it has 0 rows, 20 are planned"),
    "no field": (lambda r: r.pop("excluded"), "excluded: is missing"),
    "a field more": (lambda r: r.update(extra=1), "extra: unknown field"),
    "split of the shard": (lambda r: r["shard"].update(split="test"), "shard.file: expected"),
    "another file": (
        lambda r: r["shard"].update(file="weights/train-00000-of-00003.safetensors"),
        "shard.parquet.file: expected data/train-00000",
    ),
    "a file elsewhere": (lambda r: r["shard"].update(file="../../passwd"), "lies outside"),
    "no view": (lambda r: r["shard"].update(parquet=None), "its files are weights"),
    "sha256": (lambda r: r["shard"].update(sha256="0" * 64), "does not have the sha256"),
    "sha256 of the view": (
        lambda r: r["shard"]["parquet"].update(sha256="0" * 64), "does not have the sha256"
    ),
    "bytes": (lambda r: r["shard"].update(bytes=7), "bytes, the index says 7"),
    "a network left out": (
        lambda r: (
            r["excluded"].append({"split": "train", "index": 25, "view": 0, "reason": "no"}),
            r["shard"].update(rows=19),
        ),
        r"train-00001-of-00003.safetensors: index: expected",
    ),
    "one left out that is not planned": (
        lambda r: (
            r["excluded"].append({"split": "train", "index": 5, "view": 0, "reason": "no"}),
            r["shard"].update(rows=19),
        ),
        "it excludes networks that are not planned",
    ),
    "one left out twice": (
        lambda r: r["excluded"].extend(
            2 * [{"split": "train", "index": 25, "view": 0, "reason": "no"}]
        ),
        "excluded networks has one twice",
    ),
    "note": (lambda r: r["note"].update(file="notes/x"), "its note is notes/x"),
}  # fmt: skip


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_that_contradicts_is_named_and_its_shard_made_again(
    name, half, digits, quick, made, tmp_path
):
    edit, words = RECORDS[name]
    lines = gone_on_with(half, tmp_path / "zoo", edited(edit, RECORD))(digits, quick)
    assert len(lines) == 1
    assert words in lines[0]
    assert contents(tmp_path / "zoo") == contents(made / "old" / "zoo")


def test_records_of_other_shards_and_of_none(half, digits, quick, made, tmp_path):
    """A record under another name, one that is cut, one of a shard that nobody planned."""

    def damage(folder: Path) -> None:
        records = folder / ".build" / "shards"
        first, second = sorted(records.iterdir())
        shutil.copy(first, records / "train-00007.json")
        shutil.copy(first, second)
        first.write_bytes(first.read_bytes()[:-30])

    lines = gone_on_with(half, tmp_path / "zoo", damage)(digits, quick)
    assert len(lines) == 3
    told = " ".join(lines)
    assert "train-00007.json is of no planned shard" in told
    assert "train-00001.json contradicts the plan: it is of shard train 0" in told
    assert "train-00000.json: not JSON" in told
    assert contents(tmp_path / "zoo") == contents(made / "old" / "zoo")


def test_a_shard_of_other_networks_is_made_again(half, digits, quick, made, tmp_path):
    """Record and shard agree with each other, but hold what another shard should."""

    def damage(folder: Path) -> None:
        paths = [folder / shards.shard_file("train", number, 3) for number in range(2)]
        shutil.copy(*paths)
        record = json.loads((folder / ".build" / RECORD).read_text())
        record["shard"].update(sha256=shards.sha256(paths[1]), bytes=paths[1].stat().st_size)
        (folder / ".build" / RECORD).write_text(json.dumps(record))

    (line,) = gone_on_with(half, tmp_path / "zoo", damage)(digits, quick)
    assert "does not hold the networks that are planned: index is another" in line
    assert contents(tmp_path / "zoo") == contents(made / "old" / "zoo")


@pytest.mark.parametrize("damage", ["changed", "missing", "of 324dc88"])
def test_a_note_that_is_not_what_was_kept_is_made_again(
    damage, half, digits, quick, made, tmp_path
):
    def spoil(folder: Path) -> None:
        note = folder / ".build" / "notes" / "train-00001.safetensors"
        if damage == "missing":
            note.unlink()
            return
        arrays = safetensors.numpy.load_file(note)
        arrays["column.psnr_db"] += 1
        safetensors.numpy.save_file(arrays, note)
        if damage == "of 324dc88":  # whose records say nothing of their notes
            edited(lambda record: record.pop("note"), RECORD)(folder)

    lines = gone_on_with(half, tmp_path / "zoo", spoil)(digits, quick)
    assert ["has changed; it is made again" in line for line in lines] == [True] * (
        damage == "changed"
    )
    assert contents(tmp_path / "zoo") == contents(made / "old" / "zoo")


def test_no_shard_is_read_again_at_the_end(digits, quick, tmp_path, monkeypatch):
    def read(path: Path) -> Any:
        raise AssertionError(path)

    monkeypatch.setattr(shards, "read_tensors", read)
    build(quick, digits, tmp_path / "zoo", **SETTINGS)


def chunk(folder: Path) -> Path:
    return sorted((folder / ".build" / "chunks").iterdir())[0]


def rewritten(folder: Path, edit: Callable[[dict[str, Any], dict[str, str]], None]) -> None:
    """Change a chunk, and give it the name that fits its bytes."""
    path = chunk(folder)
    with safetensors.safe_open(path, "numpy") as file:
        note = file.metadata()
    arrays = safetensors.numpy.load_file(path)
    edit(arrays, note)
    path.unlink()
    content = safetensors.numpy.save(arrays, note)
    *words, _ = path.stem.split("-")
    digest = hashlib.sha256(content).hexdigest()[:16]
    path.with_name("-".join([*words, digest]) + ".safetensors").write_bytes(content)


CHUNKS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a name of nothing": (
        lambda folder: chunk(folder).rename(chunk(folder).with_name("x.safetensors")),
        "has not the name of a chunk",
    ),
    "another place": (
        lambda folder: chunk(folder).rename(
            chunk(folder).with_name(chunk(folder).name.replace("-000000-", "-000004-"))
        ),
        "does not hold the networks that are planned",
    ),
    "no digest": (
        lambda folder: chunk(folder).rename(
            chunk(folder).with_name(chunk(folder).name.rpartition("-")[0] + "-.safetensors")
        ),
        "does not have the sha256 of its name",
    ),
    "a column less": (
        lambda folder: rewritten(folder, lambda arrays, note: arrays.pop("mse")),
        "expected mse of float32 (4,)",
    ),
    "a column more": (
        lambda folder: rewritten(folder, lambda arrays, note: arrays.update(x=arrays["mse"])),
        "columns that are not planned",
    ),
    "fewer rows": (
        lambda folder: rewritten(
            folder, lambda arrays, note: arrays.update({k: v[1:] for k, v in arrays.items()})
        ),
        "expected index of int64 (4,)",
    ),
    "a network left out that is there": (
        lambda folder: rewritten(
            folder, lambda arrays, note: note.update(excluded='[[40, 0, "no"]]')
        ),
        "expected index of int64 (3,)",
    ),
    "no list of those left out": (
        lambda folder: rewritten(folder, lambda arrays, note: note.update(excluded="[[1]]")),
        "excluded: [0]: expected a list of 3",
    ),
    "other types": (
        lambda folder: rewritten(
            folder, lambda arrays, note: arrays.update(steps=arrays["steps"].astype("float32"))
        ),
        "expected steps of int64 (4,)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHUNKS)
def test_a_chunk_that_contradicts_is_named_and_fitted_again(
    name, half, digits, quick, made, tmp_path
):
    damage, words = CHUNKS[name]
    (line,) = gone_on_with(half, tmp_path / "zoo", damage)(digits, quick)
    assert words in line
    assert contents(tmp_path / "zoo") == contents(made / "old" / "zoo")


def test_tasks_that_contradict_are_not_taken(digits, quick, made, tmp_path):
    """What a task left is looked at as records are, and only where it lies."""
    out = tmp_path / "zoo"
    planned = plan_zoo(quick, digits, "zoo", Settings(**SETTINGS))
    engine = Fitter(planned.goal, 0, "cpu", 1, "cpu")

    def task(number: int, edit: Edit) -> None:
        key = ("train", number)
        folder = out / ".build" / "tasks" / f"t{number}"
        fitted = engine(*planned.task(planned.parts[key]))
        pieces = [(fitted.arrays, fitted.excluded, processor("cpu"))]
        slot = slot_of(planned, key)
        record = write(folder, planned.index, slot, pieces, planned.items).to_json()
        edit(record)
        (folder / "record.json").write_text(json.dumps(record))

    task(0, lambda record: record.update(task="../../elsewhere"))  # which is not looked at
    task(1, lambda record: record["shard"].update(file="../../../secret"))
    task(2, lambda record: record["shard"].update(rows=3))
    (out / ".build" / "plan.json").write_text(json.dumps(planned.to_json()))
    (tmp_path / "secret").write_text("key")
    lines: list[str] = []
    site = Site(storage.place(out), planned, lines.append)
    site.open(overwrite=False)
    assert set(site.records) == {("train", 0)}
    assert len(lines) == 2
    assert "t1/record.json" in lines[0]
    assert "'../../../secret' lies outside the zoo's folder" in lines[0]
    assert "t2/record.json contradicts the plan: it has 3 rows, 9 are planned" in lines[1]
    assert (tmp_path / "secret").read_text() == "key"
    build(quick, digits, out, **SETTINGS)
    assert contents(out) == contents(made / "old" / "zoo")


def test_what_is_no_file_is_neither_read_nor_waited_for(half, digits, quick, made, tmp_path):
    def damage(folder: Path) -> None:
        build = folder / ".build"
        (build / "notes" / "train-00000.safetensors").unlink()
        os.mkfifo(build / "notes" / "train-00000.safetensors")
        chunk(folder).unlink()
        (build / "chunks" / "train-00002-000000-4-0123456789abcdef.safetensors").symlink_to(
            "/dev/zero"
        )

    lines = gone_on_with(half, tmp_path / "zoo", damage)(digits, quick)
    assert [line.partition("safetensors ")[2] for line in lines] == [
        "is no plain file; it is not used"
    ] * 2
    assert contents(tmp_path / "zoo") == contents(made / "old" / "zoo")


def test_a_pipe_for_a_plan_and_links_for_folders_are_refused(half, digits, quick, tmp_path):
    out = tmp_path / "zoo"
    shutil.copytree(half, out)
    (out / ".build" / "plan.json").unlink()
    os.mkfifo(out / ".build" / "plan.json")
    with pytest.raises(ZooError, match=r"plan\.json: expected a plain file, it is a pipe"):
        build(quick, digits, out, overwrite=True, **SETTINGS)
    linked = tmp_path / "linked"
    shutil.copytree(half, linked)
    (linked / "weights").rename(tmp_path / "elsewhere")
    (linked / "weights").symlink_to(tmp_path / "elsewhere")
    before = contents(tmp_path / "elsewhere")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="weights is a link; a zoo's folder has folders"):
            build(quick, digits, linked, overwrite=overwrite, **SETTINGS)
    assert contents(tmp_path / "elsewhere") == before


PLANS: dict[str, tuple[Callable[[str], str], str]] = {
    "cut": (lambda text: text[:-20], "plan.json: not JSON"),
    "empty": (lambda text: "", "plan.json: not JSON"),
    "a list": (lambda text: "[]", "plan.json: expected an object"),
    "no recipe": (lambda text: text.replace('"recipe"', '"recipes"'), "recipe: is missing"),
    "units": (lambda text: text.replace('"planned": 60', '"planned": true'), "planned: expected"),
}


@pytest.mark.parametrize("name", PLANS)
def test_shards_without_a_plan_are_not_believed(name, half, digits, quick, made, tmp_path):
    edit, words = PLANS[name]
    out = tmp_path / "zoo"
    shutil.copytree(half, out)
    path = out / ".build" / "plan.json"
    path.write_text(edit(path.read_text()))
    before = contents(out)
    with pytest.raises(ZooError, match=re.escape(words)) as error:
        build(quick, digits, out, **SETTINGS)
    assert "start afresh with --overwrite" in str(error.value)
    assert contents(out) == before
    assert words in line_of(run("info", out), 1)
    build(quick, digits, out, overwrite=True, **SETTINGS)
    assert contents(out) == contents(made / "old" / "zoo")


def test_a_plan_of_another_zoo_is_refused_by_what_differs(half, digits, quick, tmp_path):
    for edit, words in (
        (lambda plain: plain["recipe"].update(lr=0.5), "lr 0.5 there, 0.001 asked for"),
        (lambda plain: plain["recipe"].update(new=1), "new 1 there, None asked for"),
        (lambda plain: plain["plan"].update(seed=3), "seed 3 there, 0 asked for"),
        (lambda plain: plain["source"].update(sha256="0" * 64), "source sha256 '0000"),
        (lambda plain: plain["source"].update(title="x"), "source title 'x' there"),
    ):
        out = tmp_path / words.replace(" ", "-")
        shutil.copytree(half, out)
        edited(edit, "plan.json")(out)
        with pytest.raises(ValueError, match=re.escape(words)):
            build(quick, digits, out, **SETTINGS)


def test_a_plan_of_an_older_wszoo_has_fewer_fields(half, digits, quick, made, tmp_path):
    """Fields that a recipe gained since have their defaults in its folders."""
    out = tmp_path / "zoo"
    shutil.copytree(half, out)
    assert "fit" not in json.loads((out / ".build" / "plan.json").read_text())["recipe"]
    build(quick, digits, out, **SETTINGS)
    assert contents(out) == contents(made / "old" / "zoo")
    assert "fit" not in json.loads((out / "zoo.json").read_text())["recipe"]
    before = contents(out)
    build(quick, digits, out, **SETTINGS)
    assert contents(out) == before
    with pytest.raises(ValueError, match="fit 'crop' there, 'pad' asked for"):
        build(replace(quick, size=8, fit="pad"), digits, out, **SETTINGS)


@pytest.mark.parametrize("end", ["card", "shard"])
def test_shards_of_which_nothing_is_left_are_not_fitted_again(end, digits, quick, tmp_path):
    """The one maker did and the other did not: now they are one."""
    out = tmp_path / "zoo"
    settings: dict[str, Any] = {"limit": 60, "shard_rows": 1}
    floor = build(quick, digits, tmp_path / "all", limit=60).quality["train"]["psnr_db"]["mean"]
    strict = replace(quick, min_psnr_db=floor)
    index = build(strict, digits, out, **settings)
    assert len(index.shards) + len(index.excluded) == 60
    whole = contents(out)
    (out / ("README.md" if end == "card" else index.shards[3].file)).unlink()
    seen: list[zoo.Progress] = []
    build(strict, digits, out, progress=seen.append, **settings)
    assert (seen[-1].fitted if seen else 0) == (end == "shard")
    assert contents(out) == whole


# ---- overwriting


def test_the_old_zoo_opens_and_info_tells_while_a_new_one_is_made(digits, other, made, tmp_path):
    out = tmp_path / "zoo"
    shutil.copytree(made / "old" / "zoo", out)
    lines: list[str] = []

    def stop(state: zoo.Progress) -> None:
        if state.fitted >= 20:
            raise KeyboardInterrupt

    again: dict[str, Any] = {"overwrite": True, "warn": lines.append, **SETTINGS}
    with pytest.raises(KeyboardInterrupt):
        build(other, digits, out, progress=stop, **again)
    assert lines == [f"{out}: the zoo there stays until the new one is finished"]
    assert assert_whole(out) == shards.read_index(made / "old" / "zoo")
    state = unfinished(out)
    assert state is not None
    assert state.replaces
    assert 20 <= state.done < state.total == 60
    told = run("info", out).stdout
    assert "60 networks" in told
    assert f"being overwritten: of the new zoo {state.done} of 60 networks are there" in told
    # The command of the old zoo leaves both alone; one of a third zoo is refused.
    lines.clear()
    build(replace(other, lr=0.001), digits, out, warn=lines.append, **SETTINGS)
    assert lines == [f"{out}: a zoo that is to replace it is still unfinished"]
    with pytest.raises(ValueError, match=r"lr 0.001 there, 0.5 asked for"):
        build(replace(other, lr=0.5), digits, out, **SETTINGS)
    # The same command goes on.
    lines.clear()
    seen: list[zoo.Progress] = []
    build(other, digits, out, progress=seen.append, **again)
    assert lines == [f"{out}: going on with the zoo that is to replace the one there"]
    assert seen[-1].fitted <= 60 - state.done
    assert contents(out) == contents(made / "new" / "zoo")
    assert unfinished(out) is None


def test_another_overwriting_takes_the_place_of_one_that_was_cut(digits, other, made, tmp_path):
    out = tmp_path / "zoo"
    shutil.copytree(made / "old" / "zoo", out)

    def stop(state: zoo.Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(replace(other, lr=0.5), digits, out, overwrite=True, progress=stop, **SETTINGS)
    build(other, digits, out, overwrite=True, **SETTINGS)
    assert contents(out) == contents(made / "new" / "zoo")


def test_a_damaged_zoo_is_replaced_by_one_of_the_same_recipe(digits, quick, made, tmp_path):
    """Both indices are equal to the byte, the files are not."""
    out = tmp_path / "zoo"
    shutil.copytree(made / "old" / "zoo", out)
    victim = next((out / "weights").iterdir())
    victim.write_bytes(victim.read_bytes()[:-1] + b"x")
    build(quick, digits, out, overwrite=True, **SETTINGS)
    assert contents(out) == contents(made / "old" / "zoo")


def test_a_zoo_whose_index_cannot_be_read_is_replaced_at_the_end(digits, other, made, tmp_path):
    out = tmp_path / "zoo"
    shutil.copytree(made / "old" / "zoo", out)
    (out / "zoo.json").write_text("{")
    with pytest.raises(ZooError, match=r"zoo.json: not JSON"):
        build(other, digits, out, **SETTINGS)
    build(other, digits, out, overwrite=True, **SETTINGS)
    assert contents(out) == contents(made / "new" / "zoo")


def test_nothing_is_touched_before_all_is_checked(digits, quick, made, tmp_path):
    """What cannot be fitted does not cost the zoo that lies there."""
    out = tmp_path / "zoo"
    shutil.copytree(made / "old" / "zoo", out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    for words in (
        ("--lr", "inf"),
        ("--omega", "nan"),
        ("--min-psnr", "nan"),
        ("--limit", "0"),
        ("--shard-rows", "-1"),
        ("--seed", "-1"),
        ("--workers", "0"),
        ("--engine", "gpu"),
        ("--device", "cuda:7"),
        ("--shards", "0/99"),
        ("--shards", "0/2"),
        ("--cluster", "slurm"),
        ("--in-flight", "3"),
        ("--out", ""),
        ("--hidden", "65536", "--layers", "100"),
        ("--workers", "257"),
        ("--shards", "1/0"),
        ("--cpus-per-task", "inf", "--cluster", "local"),
        ("--cluster", "local", "--workers", "2"),
    ):
        line_of(run("fit-inrs", "digits", "--out", out, "--overwrite", *words), 2)
        assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before, words


def test_a_store_keeps_the_old_zoo_until_the_new_one_stands(digits, quick, other, made, tmp_path):
    """Of a place that only copies: the memory of fsspec stands for a store."""
    import fsspec

    store = fsspec.filesystem("memory")
    where = storage.place(f"memory://tests-{tmp_path.name}/zoo")
    for path in contents(made / "old" / "zoo"):
        where.write(path, (made / "old" / "zoo" / path).read_bytes())
    new = where.inside(succession.NEW)
    for path, content in contents(made / "new" / "zoo").items():
        new.write(path, content)
    told: list[str] = []
    copy = where.copy

    def watched(name: str, to: str) -> None:
        index = shards.Index.from_json(where.read_json("zoo.json"))
        there = where.sizes()
        told.append("new" if index.recipe["lr"] == other.lr else "old")
        assert not [line for f in index.files if (line := where.check(f, there))]
        copy(name, to)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(where, "copy", watched)
        succession.put_in_place(where)
    assert set(told) == {"new"}
    wanted = contents(made / "new" / "zoo")
    assert {name: next(where.read([name])) for name in where.sizes()} == wanted
    store.rm(where.url.removeprefix("memory://"), recursive=True)


def test_a_part_does_not_replace_a_finished_zoo(digits, quick, made, tmp_path):
    out = tmp_path / "zoo"
    shutil.copytree(made / "old" / "zoo", out)
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="holds a finished zoo, and --shards makes a part"):
            build(quick, digits, out, part="0/2", overwrite=overwrite, **SETTINGS)
    assert contents(out) == contents(made / "old" / "zoo")


# ---- a source is the same one, wherever it lies and however it is called


@pytest.fixture
def pictures(tmp_path) -> Path:
    from PIL import Image

    draw = np.random.default_rng(0)
    for label in "ab":
        (tmp_path / "data" / "pictures" / label).mkdir(parents=True)
        for number in range(12):
            pixels = draw.integers(0, 256, (6, 6), np.uint8)
            file = tmp_path / "data" / "pictures" / label / f"{number:02d}.png"
            Image.fromarray(pixels).save(file)
    return tmp_path / "data" / "pictures"


def test_a_zoo_of_a_folder_goes_on_and_verifies_from_elsewhere(
    quick, pictures, tmp_path, monkeypatch
):
    out, whole = tmp_path / "zoo", tmp_path / "whole" / "zoo"
    few: dict[str, Any] = {"shard_rows": 5}
    build(quick, f"imagefolder:{pictures}", whole, **few)

    def stop(state: zoo.Progress) -> None:
        if state.done >= 10:
            raise KeyboardInterrupt

    monkeypatch.chdir(pictures.parent)
    with pytest.raises(KeyboardInterrupt):
        build(quick, "imagefolder:pictures", out, progress=stop, **few)
    monkeypatch.chdir(pictures)
    seen: list[zoo.Progress] = []
    build(quick, "imagefolder:../pictures/.", out, progress=seen.append, **few)
    assert 0 < seen[-1].fitted < 24
    build(quick, f"imagefolder:{pictures}", out, **few)
    # No path of this machine in what is published, whose bytes are those of any spelling.
    assert (out / "zoo.json").read_bytes() == (whole / "zoo.json").read_bytes()
    assert str(tmp_path) not in (out / "zoo.json").read_text() + (out / "README.md").read_text()
    assert shards.read_index(out).source["name"] == "imagefolder:pictures"
    monkeypatch.chdir("/")
    assert run("verify", out, "--samples", 5, "--refit", 2).exit_code == 0
    row = zoo.open_zoo(out)[0]
    assert zoo.original(row).shape == (6, 6, 1)
    assert run("show", out, "--out", tmp_path / "s.png").exit_code == 0
    # The folder is moved: it has to be said where it lies.
    pictures.parent.rename(tmp_path / "moved")
    line = line_of(run("verify", out, "--samples", 5), 1)
    assert "say where it lies by --source imagefolder:PATH" in line
    moved = f"imagefolder:{tmp_path}/moved/pictures"
    for command in (("verify", out, "--samples", 5), ("show", out, "--out", tmp_path / "s.png")):
        assert run(*command, "--source", moved).exit_code == 0
    assert zoo.original(row, source=moved).shape == (6, 6, 1)
    assert build(quick, moved, out, **few) == shards.read_index(whole)


def test_parts_of_a_folder_are_merged_from_elsewhere(quick, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(pictures.parent)
    whole = build(quick, "imagefolder:pictures", tmp_path / "whole", shard_rows=8)
    for number in range(2):
        part = tmp_path / "parts" / str(number)
        build(quick, "imagefolder:pictures", part, part=f"{number}/2", shard_rows=8)
    monkeypatch.chdir("/")
    parts = [tmp_path / "parts" / str(number) for number in range(2)]
    assert merge(parts, tmp_path / "merged") == replace(whole, name="merged")
    with pytest.raises(ValueError, match="is one of the parts"):
        merge(parts, parts[0], overwrite=True)


def test_the_zoo_of_another_folder_is_another_zoo(quick, pictures, tmp_path):
    build(quick, f"imagefolder:{pictures}", tmp_path / "zoo")
    shutil.copytree(pictures, tmp_path / "others")
    with pytest.raises(ValueError, match="source title 'Image folder pictures' there"):
        build(quick, f"imagefolder:{tmp_path}/others", tmp_path / "zoo")
    next(iter((pictures / "a").iterdir())).unlink()
    with pytest.raises(ValueError, match=r"source sha256 '\w+' there"):
        build(quick, f"imagefolder:{pictures}", tmp_path / "zoo")


def test_networks_that_do_not_fit_into_memory_are_refused_in_words(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(plan.machine, "memory_bytes", lambda: 10**6)
    large = recipe("dws", "digits", hidden=300)
    with pytest.raises(ValueError, match=r"a network of 91,501 parameters takes 0 GB while it is"):
        build(large, digits, tmp_path / "zoo")
    runs = recipe("fashion", "digits", "fit-trajectories", hidden=8, epochs=500)
    with pytest.raises(ValueError, match=r"a run of \d+ networks of 754 parameters"):
        build(runs, digits, tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


def test_too_little_memory_on_the_way_is_one_line(digits, quick, tmp_path, monkeypatch):
    def refused(*given: object) -> None:
        raise MemoryError("Unable to allocate 9.19 TiB")

    monkeypatch.setattr(CpuEngine, "fit", refused)
    with pytest.raises(ZooError, match=r"zoo: not enough memory \(Unable to allocate 9.19 TiB\)"):
        build(quick, digits, tmp_path / "zoo", **SETTINGS)


def test_overwriting_a_zoo_of_a_folder_killed_at_the_change(quick, pictures, tmp_path):
    """The zoo that makes room or takes the place opens at every moment, file names included."""
    name, out = f"imagefolder:{pictures}", tmp_path / "zoo"
    build(quick, name, tmp_path / "old" / "zoo")
    index = build(replace(quick, lr=0.5), name, tmp_path / "new" / "zoo")
    names = table.read_names(tmp_path / "new" / "zoo", index)
    assert names

    def begin() -> None:
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(tmp_path / "old" / "zoo", out)
        shutil.copytree(tmp_path / "new" / "zoo", out / ".build" / "new")

    def check() -> None:
        assert_whole(out)
        assert len(zoo.open_zoo(out)) == index.splits["train"]
        assert table.read_names(out, shards.read_index(out)) == names
        build(replace(quick, lr=0.5), name, out)
        assert contents(out) == contents(tmp_path / "new" / "zoo")

    moments(begin, lambda: succession.settle(storage.place(out)), check)
    assert contents(out) == contents(tmp_path / "new" / "zoo")
