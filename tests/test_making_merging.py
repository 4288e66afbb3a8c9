"""Parts that were fitted apart make the zoo that one run makes."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import line_of, run

import zoo
from zoo import shards
from zoo.errors import ZooError
from zoo.making.builder import build
from zoo.making.merging import merge
from zoo.making.plan import Settings, plan_zoo
from zoo.making.site import record_file
from zoo.recipes import recipe

SETTINGS = {"limit": 120, "shard_rows": 20}  # 7 shards: five of train, one each of the others


@pytest.fixture(scope="module")
def made(digits, quick, tmp_path_factory) -> Path:
    """`plain` is the zoo of one run, `parts/0` to `parts/2` are parts of it."""
    root = tmp_path_factory.mktemp("merging")
    build(quick, digits, root / "plain", **SETTINGS)
    for number in range(3):
        build(quick, digits, root / "parts" / str(number), part=f"{number}/3", **SETTINGS)
    return root


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a zoo by its path."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    paths = [path for path in paths if path.name != shards.LOCK_FILE]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_the_parts_of_a_zoo_make_the_zoo(made, tmp_path):
    parts = [made / "parts" / name for name in "201"]  # in any order
    index = merge(parts, tmp_path / "plain")
    assert index == shards.read_index(made / "plain")
    left, right = contents(made / "plain"), contents(tmp_path / "plain")
    assert left.keys() == right.keys()
    # Of the pictures too: every byte that a plain run writes, card and figures among them.
    assert [name for name in left if left[name] != right[name]] == []
    assert merge(parts, tmp_path / "plain") == index  # once more changes nothing
    assert all(check.passed for check in zoo.verify(tmp_path / "plain", refit=3))


def test_parts_divide_the_shards(digits, quick):
    planned = plan_zoo(quick, digits, "x", Settings(**SETTINGS))
    whole = list(planned.parts)
    assert len(whole) == 7
    for of in range(1, 8):
        parts = [list(planned.part(f"{number}/{of}").parts) for number in range(of)]
        assert [key for part in parts for key in part] == whole
        assert all(parts)
        assert list(planned.part(f"0-{of - 1}/{of}").parts) == whole
    assert list(planned.part("2-4/7").parts) == whole[2:5]
    with pytest.raises(ValueError, match=r"the zoo has 7 shards, which do not make 8 parts"):
        planned.part("0/8")
    for text in ("3-2/7", "7/7", "0-7/7", "1-2", "a/b", "0/0", "-1/3", "1//3"):
        with pytest.raises(ValueError, match=r"expected shards as FIRST-LAST/PARTS.*got '"):
            planned.part(text)


def test_a_part_is_gone_on_with_and_is_no_zoo(digits, quick, made, tmp_path):
    out = tmp_path / "part"

    def stop(state: zoo.Progress) -> None:
        if state.done >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(quick, digits, out, part="0-1/3", progress=stop, **SETTINGS)
    seen: list[zoo.Progress] = []
    index = build(quick, digits, out, part="0-1/3", progress=seen.append, **SETTINGS)
    assert seen[-1].done == seen[-1].total == index.rows == 80
    assert seen[-1].fitted <= 60
    assert not (out / "zoo.json").exists()
    with pytest.raises(ZooError, match=r"is part 0-1/3 of a zoo; `wszoo merge` joins its parts"):
        zoo.open_zoo(out)
    with pytest.raises(ValueError, match=r"part '0-1/3' there, '1-1/3' asked for"):
        build(quick, digits, out, part="1/3", **SETTINGS)
    with pytest.raises(ValueError, match=r"part '0-1/3' there, None asked for"):
        build(quick, digits, out, **SETTINGS)
    # A shard that two parts hold is taken once.
    index = merge([out, made / "parts" / "1", made / "parts" / "2"], tmp_path / "merged")
    assert index == replace(shards.read_index(made / "plain"), name="merged")


def test_a_missing_shard_is_named_with_what_makes_it(digits, quick, made, tmp_path):
    parts = [made / "parts" / "0", made / "parts" / "2"]
    with pytest.raises(ZooError, match=r"2 of 7 shards are in none.* --shards 2-3/7 into") as error:
        merge(parts, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    part = str(error.value).partition("--shards ")[2].split()[0]
    build(quick, digits, tmp_path / "rest", part=part, **SETTINGS)
    assert merge([*parts, tmp_path / "rest"], tmp_path / "merged").rows == 120


def test_parts_of_other_zoos_are_refused(digits, quick, made, tmp_path):
    part = made / "parts" / "0"
    build(replace(quick, lr=0.5), digits, tmp_path / "lr", part="1/3", **SETTINGS)
    with pytest.raises(ValueError, match=r"parts of different zoos: lr 0.5 there, 0.001 asked"):
        merge([part, tmp_path / "lr"], tmp_path / "out")
    with pytest.raises(ZooError, match=r"plain is no part of a zoo.*a fit with --shards"):
        merge([part, made / "plain"], tmp_path / "out")
    parts = [made / "parts" / name for name in "012"]
    build(replace(quick, lr=0.5), digits, tmp_path / "other", **SETTINGS)
    with pytest.raises(ValueError, match=r"other holds a zoo made otherwise: lr 0.5 there"):
        merge(parts, tmp_path / "other")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"mine is not empty and not a zoo \('thesis.tex'"):
        merge(parts, tmp_path / "mine", overwrite=True)
    index = merge(parts, tmp_path / "other", overwrite=True)
    assert index.recipe["lr"] == quick.lr


def test_a_damaged_part_is_found(made, tmp_path):
    parts = []
    for name in "012":
        shutil.copytree(made / "parts" / name, tmp_path / name)
        parts.append(tmp_path / name)
    victim = next((tmp_path / "1" / "weights").iterdir())
    whole = victim.read_bytes()
    victim.write_bytes(whole[:-1])
    with pytest.raises(ZooError, match=r"bytes, the index says.*; run the fit of .* again"):
        merge(parts, tmp_path / "out")
    victim.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ZooError, match=r"does not have the sha256"):
        merge(parts, tmp_path / "out", check_hashes=True)
    victim.write_bytes(whole)
    # What the cut merge left behind is gone on with.
    assert merge(parts, tmp_path / "out").rows == 120
    record = tmp_path / "1" / record_file("train", 2)
    plain = shards.read_json(record)
    plain["shard"]["sha256"] = "0" * 64
    shutil.copytree(made / "parts" / "1", tmp_path / "again")
    shards.write_json(record, plain)
    with pytest.raises(ZooError, match=r"both hold shard train 2, with other bytes"):
        merge([*parts, tmp_path / "again"], tmp_path / "new")


def test_files_are_copied_where_they_cannot_be_linked(made, tmp_path, monkeypatch):
    def refuse(*names: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    parts = [made / "parts" / name for name in "012"]
    merge(parts, tmp_path / "out")
    shard = shards.read_index(tmp_path / "out").shards[0]
    assert not (tmp_path / "out" / shard.file).samefile(made / "parts" / "0" / shard.file)
    assert next(iter(zoo.verify(tmp_path / "out", samples=0))).passed


def test_without_notes_the_shards_are_read(made, tmp_path):
    parts = []
    for name in "012":
        shutil.copytree(made / "parts" / name, tmp_path / name)
        shutil.rmtree(tmp_path / name / ".build" / "notes")
        parts.append(tmp_path / name)
    index = merge(parts, tmp_path / "out")
    assert index == replace(shards.read_index(made / "plain"), name="out")


def test_excluded_networks_and_runs_come_along(digits, quick, tmp_path):
    """Networks below a floor are listed once; runs are not cut by the shards."""
    floor = build(quick, digits, tmp_path / "all", **SETTINGS).quality["train"]["psnr_db"]["mean"]
    short = recipe("fashion", "digits", "fit-trajectories", epochs=1, hidden=6, batch="256")
    for name, chosen, source, settings in (
        ("inrs", replace(quick, min_psnr_db=floor), digits, SETTINGS),
        ("runs", short, digits, {"limit": 6, "shard_rows": 4}),
    ):
        root = tmp_path / name
        whole = build(chosen, source, root / "plain", **settings)
        for number in range(2):
            build(chosen, source, root / str(number), part=f"{number}/2", **settings)
        index = merge([root / "0", root / "1"], root / "merged")
        assert index == replace(whole, name="merged")
        assert index.stats == whole.stats


def test_the_commands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit = ("fit-inrs", "digits", "--limit", 60, "--steps", 3, "--hidden", 5, "--shard-rows", 20)
    for part in ("0/2", "1-1/2"):
        result = run(*fit, "--shards", part)
        assert result.exit_code == 0, result.output
    assert "part 1-1/2, 3 shards of 20 networks; `wszoo merge` joins" in result.stdout
    folders = sorted(Path("zoos/digits-inrs.parts").iterdir())
    assert [path.name for path in folders] == ["0-of-2", "1-1-of-2"]
    assert "part 1-1/2" in run("info", folders[1]).stdout
    result = run("merge", *folders, "--out", "zoos/digits-inrs")
    assert "60 networks (train 49, validation 5, test 6)" in result.stdout
    assert run("verify", "zoos/digits-inrs", "--refit", 3).exit_code == 0
    assert "expected shards as FIRST-LAST/PARTS" in line_of(run(*fit, "--shards", "9"), 2)
    assert "shards are in none" in line_of(run("merge", folders[0], "--out", "x"), 1)
