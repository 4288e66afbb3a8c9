"""A zoo that grows is the zoo made at once, and costs what it lacks."""

import json
import shutil

import pytest

import zoo
from zoo.making.fitting import Rows
from zoo.making.growth import Donor, merged
from zoo.shards import read_index
from zoo.storage import Folder

SMALL = zoo.recipe("dws", "digits", steps=3, hidden=4)
WAVES = zoo.recipe("sine-ssl", "sine", steps=3, hidden=4, waves=60, points=20)
FALLING = zoo.recipe("dws", "digits", steps=4, hidden=4, schedule="cosine", lr_warmup=2)


def made(recipe, source, folder, **settings):
    """The index, how many networks this run fitted, and the lines it said."""
    fitted, lines = [0], []

    def progress(state):
        fitted.append(state.fitted)

    index = zoo.build(
        recipe, source, folder, shard_rows=40, progress=progress, warn=lines.append, **settings
    )
    return index, fitted[-1], lines


def files(folder):
    """Content of every file but the card's figures, which hold no rows."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "figures" not in path.parts and not path.name.startswith(".")
    }


@pytest.mark.parametrize(
    ("recipe", "source"), [(SMALL, "digits"), (WAVES, "sine"), (FALLING, "digits")]
)
def test_more_networks_cost_what_is_lacking_and_are_those_made_at_once(recipe, source, tmp_path):
    small, grown, whole = (tmp_path / name / "zoo" for name in ("small", "grown", "whole"))
    made(recipe, source, small, limit=25)
    shutil.copytree(small, grown)
    _, fitted, lines = made(recipe, source, grown, limit=50)
    assert "stays until the new one is finished" in lines[0]
    _, all_of_them, _ = made(recipe, source, whole, limit=50)
    assert all_of_them == 50
    # Splits are cut in proportion: a row or two of the old zoo may be of no use.
    assert 25 <= fitted <= 27
    assert files(grown) == files(whole)
    assert not (grown / ".build").exists()


def test_without_a_limit_all_the_rest_is_fitted(tmp_path):
    grown, whole = tmp_path / "a" / "zoo", tmp_path / "b" / "zoo"
    made(WAVES, "sine", grown, limit=30)
    assert made(WAVES, "sine", grown)[1] == 30
    made(WAVES, "sine", whole)
    assert files(grown) == files(whole)


def test_more_views_of_the_same_pictures(tmp_path):
    three = zoo.recipe("dws", "imagefolder", steps=3, hidden=4, views=3)
    two = zoo.recipe("dws", "imagefolder", steps=3, hidden=4, views=2)
    pictures = _pictures(tmp_path / "pictures")
    source = f"imagefolder:{pictures}"
    grown, whole = tmp_path / "a" / "zoo", tmp_path / "b" / "zoo"
    made(two, source, grown)
    train = len(zoo.open_zoo(grown, "train")) // 2
    assert made(three, source, grown)[1] == train
    made(three, source, whole)
    assert files(grown) == files(whole)


def _pictures(folder):
    import cv2
    import numpy as np

    draw = np.random.default_rng(0)
    for number in range(24):
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), draw.integers(0, 255, (6, 6), np.uint8))
    return folder


@pytest.mark.parametrize(
    ("recipe", "settings", "named"),
    [
        (SMALL, {"limit": 20}, "limit"),
        (SMALL, {"limit": 50, "seed": 1}, "seed"),
        (zoo.recipe("dws", "digits", steps=4, hidden=4), {"limit": 50}, "steps"),
        (zoo.recipe("dws", "digits", steps=3, hidden=4, views=2), {"limit": 50}, "views"),
    ],
)
def test_other_changes_are_refused_and_the_zoo_stays(recipe, settings, named, tmp_path):
    folder = tmp_path / "zoo"
    made(SMALL, "digits", folder, limit=25)
    before = files(folder)
    with pytest.raises(ValueError, match=rf"made otherwise: .*{named}"):
        made(recipe, "digits", folder, **settings)
    assert files(folder) == before
    assert len(zoo.open_zoo(folder, "train")) > 0


@pytest.mark.parametrize("recipe", [SMALL, FALLING], ids=["constant", "cosine"])
def test_killed_while_it_grows_the_old_zoo_opens_and_the_same_command_goes_on(recipe, tmp_path):
    folder, whole = tmp_path / "a" / "zoo", tmp_path / "b" / "zoo"
    made(recipe, "digits", folder, limit=100)
    before = read_index(folder)

    def killed(state):
        if state.fitted:
            raise SystemExit("killed")

    with pytest.raises(SystemExit):
        zoo.build(recipe, "digits", folder, shard_rows=40, limit=200, progress=killed)
    assert read_index(folder) == before
    assert len(zoo.open_zoo(folder, "train", check_hashes=True)) == before.splits["train"]
    assert made(recipe, "digits", folder, limit=200)[1] < 105
    index, *_ = made(recipe, "digits", whole, limit=200)
    assert files(folder) == files(whole)
    assert index.format == (1 if recipe is SMALL else 2)
    assert all(check.passed for check in zoo.verify(whole, refit=5))


def test_a_damaged_shard_gives_nothing(tmp_path):
    folder, whole = tmp_path / "a" / "zoo", tmp_path / "b" / "zoo"
    index, _, _ = made(SMALL, "digits", folder, limit=100)
    path = folder / index.shards[0].file
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    _, fitted, lines = made(SMALL, "digits", folder, limit=120)
    assert any("its networks are fitted again" in line for line in lines)
    assert fitted >= 20 + index.shards[0].rows
    made(SMALL, "digits", whole, limit=120)
    assert files(folder) == files(whole)


def test_networks_that_were_left_out_stay_out(tmp_path):
    """By PSNR some are excluded; they are not fitted again, and the record says why."""
    folder, whole = tmp_path / "a" / "zoo", tmp_path / "b" / "zoo"
    quality = zoo.open_zoo(_made(tmp_path / "probe", SMALL, 60), "train").column("psnr_db")
    picky = zoo.recipe("dws", "digits", steps=3, hidden=4, min_psnr_db=float(sorted(quality)[10]))
    index, _, _ = made(picky, "digits", folder, limit=60)
    assert index.excluded
    _, fitted, _ = made(picky, "digits", folder, limit=70)
    assert fitted <= 12
    made(picky, "digits", whole, limit=70)
    assert files(folder) == files(whole)
    assert json.loads((folder / "zoo.json").read_text())["excluded"]


def _made(folder, recipe, limit):
    made(recipe, "digits", folder, limit=limit)
    return folder


def test_a_chunk_of_old_and_new_rows_is_in_the_order_of_the_plan(tmp_path):
    folder = _made(tmp_path / "zoo", SMALL, 30)
    index = read_index(folder)
    donor = Donor(Folder(folder), index, print)
    train = zoo.open_zoo(folder, "train")
    rows = Rows(train.column("index"), train.column("view"))
    assert donor.has(rows).all()
    odd = rows.index % 2 == 1
    first, _ = donor.take(rows[odd])
    second, machines = donor.take(rows[~odd])
    assert machines == index.shards[0].cpu
    joined = merged(rows, first, second)
    for name, array in donor.take(rows)[0].arrays.items():
        assert (joined.arrays[name] == array).all()
    assert len(donor) == 30
