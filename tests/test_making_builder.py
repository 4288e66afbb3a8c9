"""Builds of small real zoos: same bytes whatever happens on the way."""

import errno
import json
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import assert_same_rows, rows_of, run, write_pets

import zoo
from zoo import shards, sources
from zoo.engines.cpu import CpuEngine
from zoo.errors import ZooError
from zoo.machine import Notice
from zoo.making import plan
from zoo.making.builder import build
from zoo.making.plan import largest_remainder, plan_rows
from zoo.making.progress import Progress
from zoo.making.site import unfinished
from zoo.recipes import recipe


def assert_same_files(left: Path, right: Path) -> None:
    """The shards, their views and the statistics are equal byte for byte."""
    a, b = shards.read_index(left), shards.read_index(right)
    assert a.shards == b.shards
    assert a.stats == b.stats
    for index, folder in ((a, left), (b, right)):
        assert not [f for f in index.files if shards.check_file(folder, f, hashes=True)]


def test_same_rows_whatever_the_shards_workers_and_batches(digits, quick, tmp_path, monkeypatch):
    settings: list[dict[str, Any]] = [
        {"shard_rows": 40}, {"shard_rows": 17, "workers": 2}, {"shard_rows": 1000},
    ]  # fmt: skip
    for number, setting in enumerate(settings):
        if number == 2:
            monkeypatch.setattr(CpuEngine, "batch", 7)
        build(quick, digits, tmp_path / str(number), limit=150, **setting)
    assert_same_rows(tmp_path / "0", tmp_path / "1")
    assert_same_rows(tmp_path / "0", tmp_path / "2")


def test_reference_engine_gives_the_same_rows_whatever_the_shards(digits, quick, tmp_path):
    few = replace(quick, steps=2)
    for name, rows in (("a", 13), ("b", 90)):
        build(few, digits, tmp_path / name, limit=90, shard_rows=rows, engine="reference")
    assert_same_rows(tmp_path / "a", tmp_path / "b")


def test_encoded_zoos_are_whole_and_read_without_wszoo(digits, tmp_path):
    """ReLU on Fourier features: what the files say is the function that the columns tell of."""
    chosen = recipe(
        "dws", "digits", activation="relu", encoding="fourier", frequencies=8, scale=1.5, steps=4,
        hidden=6, coord_order="ij",
    )  # fmt: skip
    with pytest.warns(Notice, match="^engine 'cpu' fits SIRENs .* only: fitted by 'reference'"):
        build(chosen, digits, tmp_path / "a", limit=14, shard_rows=5, seed=3)
    # Grown, in other shards and batches.
    for limit in (7, 14):
        build(chosen, digits, tmp_path / "b", limit=limit, seed=3, engine="reference")
    assert_same_rows(tmp_path / "a", tmp_path / "b")
    index = shards.read_index(tmp_path / "a")
    assert (index.format, index.spec, index.plan["engine"]) == (
        2, chosen.spec(2, 1, 3), "reference",
    )  # fmt: skip
    assert [*zoo.verify(tmp_path / "a", samples=14, refit=2)][-1].detail.endswith("to the byte")
    assert all(check.passed for check in zoo.verify(tmp_path / "b"))

    # The card says all of the encoding, defaults too, and no omega where there are no sines.
    card, page = (tmp_path / "a" / "README.md").read_text(), run("info", tmp_path / "a").output
    for words in ("| `scale` | 1.5 |", "| `init` | torch |", "p = 2 pi B input", "tancik2020"):
        assert words in card
    assert "16-6-6-1 on 8 Fourier features of 2 inputs" in card
    assert "16-6-6-1 on 8 Fourier features of 2 inputs" in page
    assert "omega" not in card + page
    assert "sitzmann" not in card

    plain = json.loads((tmp_path / "a" / "zoo.json").read_text())["spec"]["conventions"]
    turns = 2 * np.pi * np.array(plain["frequencies"])
    assert turns.shape == (8, 2)
    side = np.linspace(-1, 1, 8)
    grid = np.stack([each.ravel() for each in np.meshgrid(side, side, indexing="ij")], axis=1)
    features = np.concatenate([np.sin(grid @ turns.T), np.cos(grid @ turns.T)], axis=1)
    for (number, *_), row in rows_of(tmp_path / "a").items():
        h = np.maximum(features @ row["weight_0"].T + row["bias_0"], 0)
        h = np.maximum(h @ row["weight_1"].T + row["bias_1"], 0)
        out = (h @ row["weight_2"].T + row["bias_2"] + 0.5)[:, 0]
        error = np.square(out - digits.images[number].ravel() / 255).mean()
        assert row["mse"] == pytest.approx(error, rel=1e-4)


def test_encoded_zoos_of_another_seed_are_not_put_together(digits, tmp_path):
    chosen = recipe("dws", "digits", encoding="fourier", steps=1, hidden=4)
    for seed in (0, 1):
        build(chosen, digits, tmp_path / str(seed), limit=7, seed=seed, engine="reference")
    with pytest.raises(ValueError, match="Fourier features of different frequencies, which the se"):
        zoo.concat([tmp_path / "0", tmp_path / "1"], tmp_path / "both")


def test_another_seed_gives_other_networks(digits, quick, tmp_path):
    for seed in (0, 1):
        build(quick, digits, tmp_path / str(seed), limit=10, seed=seed, parquet=False)
    a, b = rows_of(tmp_path / "0"), rows_of(tmp_path / "1")
    assert all((a[key]["weight_0"] != b[key]["weight_0"]).any() for key in a)


KILLED = textwrap.dedent(
    """
    # Forks a builder again and again and kills it at random moments; the modules are
    # imported once. Nothing may have started threads before a fork.
    import os, random, shutil, signal, sys, time
    from pathlib import Path
    import zoo
    from zoo import shards, sources, recipes
    from zoo.making import builder, site
    import zoo.cards, zoo.table, zoo.engines.cpu, datasets, matplotlib.figure

    out, whole, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    digits = sources.load_images("digits")
    quick = recipes.recipe("dws", "digits", steps=int(sys.argv[4]), hidden=8)
    want = shards.read_index(whole)

    def start():
        child = os.fork()
        if child == 0:
            try:
                builder.build(quick, digits, out, shard_rows=600)
            except BaseException as error:
                print("child:", error, file=sys.stderr)
                os._exit(1)
            os._exit(0)
        return child

    begun = time.monotonic()
    assert os.waitpid(start(), 0)[1] == 0
    length = time.monotonic() - begun
    shutil.rmtree(out)
    draw, kills, finished, partial = random.Random(seed), 0, 0, 0
    while kills < 20 or not partial and kills < 100:
        child = start()
        time.sleep(draw.uniform(0, length))
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert status == 0, status
        else:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            kills += 1
        try:
            got = shards.read_index(out)
        except zoo.ZooError:
            state = site.unfinished(out) if out.is_dir() else None
            partial += bool(state and 0 < state.done < state.total)
            continue
        assert got.shards == want.shards
        assert not [f for f in got.files if shards.check_file(out, f, hashes=True)]
        assert (out / "README.md").is_file()
        finished += 1
        shutil.rmtree(out)
    child = start()
    assert os.waitpid(child, 0)[1] == 0
    print(f"kills {kills} finished {finished} partial {partial} length {length:.2f}")
    """
)


def test_killed_at_twenty_moments(digits, quick, tmp_path):
    whole, out, steps = tmp_path / "whole", tmp_path / "killed", 300
    # So many steps that fitting is a good part of a build, on a fast machine as well.
    build(replace(quick, steps=steps), digits, whole, shard_rows=600)
    script = tmp_path / "kill.py"
    script.write_text(KILLED)
    ran = subprocess.run(
        [sys.executable, str(script), str(out), str(whole), "7", str(steps)],
        capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert "partial 0" not in ran.stdout, "no kill fell into the fitting"
    assert_same_files(out, whole)


def test_resume_keeps_what_is_whole(digits, quick, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "out"
    build(quick, digits, whole, limit=300, shard_rows=50)

    class StopError(Exception):
        pass

    def stop(state: Progress) -> None:
        if state.done >= 120:
            raise StopError

    with pytest.raises(StopError):
        build(quick, digits, out, limit=300, shard_rows=50, progress=stop)
    state = unfinished(out)
    assert state is not None
    assert 120 <= state.done < state.total == 300
    with pytest.raises(ZooError, match="not finished"):
        zoo.open_zoo(out)
    kept = {path: path.stat().st_mtime_ns for path in (out / "weights").iterdir()}
    assert kept
    seen: list[Progress] = []
    build(quick, digits, out, limit=300, shard_rows=50, progress=seen.append)
    assert seen[-1].done == 300
    assert seen[-1].fitted <= 180
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert unfinished(out) is None
    assert_same_files(out, whole)


@pytest.mark.parametrize("damage", ["flip", "missing shard", "missing view", "missing card"])
def test_the_same_command_mends_a_finished_zoo(damage, digits, quick, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "out"
    for folder in (whole, out):
        build(quick, digits, folder, limit=120, shard_rows=40)
    shard = out / shards.read_index(out).shards[1].file
    if damage == "flip":
        content = bytearray(shard.read_bytes())
        content[-5] ^= 1
        shard.write_bytes(content)
    elif damage == "missing shard":
        shard.unlink()
    elif damage == "missing view":
        next((out / "data").glob("test-*")).unlink()
    else:
        (out / "README.md").unlink()
    lines: list[str] = []
    seen: list[Progress] = []
    build(
        quick, digits, out, limit=120, shard_rows=40, warn=lines.append, progress=seen.append
    )  # fmt: skip
    assert len(lines) == 1
    assert "making it again" in lines[0]
    if seen:
        assert seen[-1].fitted <= 40
    assert_same_files(out, whole)
    assert (out / "README.md").read_text() == (whole / "README.md").read_text().replace(
        "whole", "out"
    )


def test_a_finished_zoo_is_left_alone(digits, quick, tmp_path):
    build(quick, digits, tmp_path / "out", limit=20)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*") if p.is_file()}
    seen: list[Progress] = []
    build(quick, digits, tmp_path / "out", limit=20, progress=seen.append)
    after = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert seen == []
    assert before == after


def test_a_damaged_chunk_is_fitted_again(digits, quick, tmp_path, monkeypatch):
    monkeypatch.setattr(CpuEngine, "batch", 10)
    whole, out = tmp_path / "whole", tmp_path / "out"
    build(quick, digits, whole, limit=60, shard_rows=60)

    def stop(state: Progress) -> None:
        if state.done >= 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(quick, digits, out, limit=60, shard_rows=60, progress=stop)
    chunk = sorted((out / ".build" / "chunks").iterdir())[0]
    content = bytearray(chunk.read_bytes())
    content[-1] ^= 1
    chunk.write_bytes(content)
    build(quick, digits, out, limit=60, shard_rows=60)
    assert_same_files(out, whole)


def test_another_recipe_is_refused_and_named(digits, quick, tmp_path):
    out = tmp_path / "out"
    build(quick, digits, out, limit=20)
    with pytest.raises(ValueError, match=r"lr 0\.001 there, 0\.5 asked for.*--overwrite"):
        build(replace(quick, lr=0.5), digits, out, limit=20)
    with pytest.raises(ValueError, match=r"limit 20 there, 10 asked for"):
        build(quick, digits, out, limit=10)
    with pytest.raises(ValueError, match=r"seed 0 there, 1 asked for"):
        build(quick, digits, out, limit=20, seed=1)
    changed = replace(digits, sha256="0" * 64)
    with pytest.raises(ValueError, match=r"source sha256"):
        build(quick, changed, out, limit=20)
    index = build(replace(quick, lr=0.5), digits, out, limit=20, overwrite=True)
    assert index.recipe["lr"] == 0.5


def test_a_folder_of_something_else_is_left_alone(digits, quick, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match=r"not empty and not a zoo \('thesis.tex'"):
            build(quick, digits, tmp_path, limit=20, overwrite=overwrite)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_second_writer_is_refused(digits, quick, tmp_path):
    with shards.one_writer(tmp_path), pytest.raises(ZooError, match="another process"):
        build(quick, digits, tmp_path, limit=20)


def test_a_full_disk_loses_nothing(digits, quick, tmp_path, monkeypatch):
    whole, out = tmp_path / "whole", tmp_path / "out"
    monkeypatch.setattr(CpuEngine, "batch", 10)
    build(quick, digits, whole, limit=60, shard_rows=30)
    write_bytes, written = Path.write_bytes, []

    def full(path: Path, content: bytes) -> int:
        written.append(path)
        if len(written) > 3:
            path.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write_bytes(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(ZooError, match=r"the disk is full.*same command again"):
            build(quick, digits, out, limit=60, shard_rows=30)
    state = unfinished(out)
    assert state is not None
    assert state.done > 0
    build(quick, digits, out, limit=60, shard_rows=30)
    assert_same_files(out, whole)


def test_an_unwritable_place_is_named(digits, quick, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"file/zoo lies in a file, not a folder; choose another"):
        build(quick, digits, tmp_path / "file" / "zoo", limit=20)
    with pytest.raises(ValueError, match=r"file is a file, not a folder; choose another"):
        build(quick, digits, tmp_path / "file", limit=20)


def test_poor_networks_are_left_out_and_listed(digits, quick, tmp_path):
    all_of_them = build(quick, digits, tmp_path / "all", limit=60)
    floor = all_of_them.quality["train"]["psnr_db"]["mean"]
    index = build(
        replace(quick, min_psnr_db=floor), digits, tmp_path / "good", limit=60, shard_rows=16
    )
    assert 0 < len(index.excluded) < 60
    assert index.rows + len(index.excluded) == 60
    assert all("is below" in row.reason for row in index.excluded)
    for split in index.splits:
        assert zoo.open_zoo(tmp_path / "good", split).column("psnr_db").min() >= floor
    listed = json.loads((tmp_path / "good" / "zoo.json").read_text())["excluded"]
    assert len(listed) == len(index.excluded)
    with pytest.raises(ZooError, match="all 60 were excluded"):
        build(replace(quick, min_psnr_db=99.0), digits, tmp_path / "none", limit=60)


def test_diverging_networks_never_get_in(digits, quick, tmp_path):
    with pytest.raises(ZooError, match="not finite after 3 attempts"):
        build(replace(quick, lr=1e30), digits, tmp_path / "out", limit=12)


def test_views_stay_in_the_training_split(digits, quick):
    planned = plan_rows(replace(quick, views=3), digits, None)
    items = {split: set(rows.index.tolist()) for split, rows in planned.items()}
    assert not items["train"] & items["validation"]
    assert not items["train"] & items["test"]
    assert set(planned["train"].view.tolist()) == {0, 1, 2}
    assert set(planned["validation"].view.tolist()) == {0}
    keys = list(zip(planned["train"].index.tolist(), planned["train"].view.tolist(), strict=True))
    assert keys == sorted(set(keys))
    assert len(keys) == 3 * len(items["train"])


def test_limit_takes_the_first_of_each_split_in_proportion(digits, quick):
    whole = plan_rows(quick, digits, None)
    part = plan_rows(quick, digits, 100)
    assert sum(len(rows) for rows in part.values()) == 100
    for split, rows in part.items():
        assert abs(len(rows) - 100 * len(whole[split]) / 1797) <= 1
        assert rows.index.tolist() == whole[split].index.tolist()[: len(rows)]
    assert largest_remainder(7, {"a": 1, "b": 1, "c": 1}) == {"a": 3, "b": 2, "c": 2}
    with pytest.raises(ValueError, match="limit must be at least 1, got 0"):
        plan_rows(quick, digits, 0)


def test_published_splits():
    mnist = replace(
        sources.load_images("digits"),
        name="mnist",
        images=np.zeros((70_000, 1, 1, 1), np.uint8),
        labels=np.zeros(70_000, np.int64),
        train_items=60_000,
    )
    sizes = {s: len(r) for s, r in plan_rows(recipe("dws", "mnist"), mnist, None).items()}
    assert sizes == {"train": 55_000, "validation": 5_000, "test": 10_000}
    sizes = {s: len(r) for s, r in plan_rows(recipe("nfn", "mnist"), mnist, None).items()}
    assert sizes == {"train": 45_000, "validation": 5_000, "test": 10_000}
    fashion = replace(mnist, name="fashion-mnist")
    rows = plan_rows(recipe("nfn", "fashion-mnist"), fashion, None)
    assert len(rows["test"]) == 20_000
    assert rows["test"].index[0] == 50_000


def test_sine_zoo(tmp_path):
    chosen = recipe("sine-ssl", "sine", waves=40, points=50, steps=5)
    index = build(chosen, "sine", tmp_path / "sine", seed=3)
    assert index.splits == {"train": 32, "validation": 4, "test": 4}
    network = zoo.open_zoo(tmp_path / "sine", "test")[1]
    wave = zoo.original(network)
    assert wave.shape == (50, 1)
    x = np.linspace(-np.pi, np.pi, 50)
    np.testing.assert_allclose(
        wave[:, 0], network.amplitude * np.sin(network.frequency * x), atol=1e-5
    )
    error = np.mean((network.render().numpy() - wave) ** 2)
    np.testing.assert_allclose(error, network.mse, rtol=1e-3)


def test_row_quality_is_that_of_the_stored_weights(digits, quick, tmp_path):
    build(replace(quick, steps=40), digits, tmp_path / "out", limit=30)
    networks = zoo.open_zoo(tmp_path / "out", "train")
    for row in networks:
        picture = row.render().numpy()
        error = np.mean((picture - zoo.original(row) / 255.0) ** 2)
        assert abs(-10 * np.log10(error) - row.psnr_db) < 0.01
        assert row.label == digits.labels[row.index]


def test_misuse(digits, quick, tmp_path):
    for settings, message in (
        ({"workers": 0}, "workers must be at least 1, got 0"),
        ({"shard_rows": 0}, "shard_rows must be at least 1"),
        ({"seed": -1}, "seed must be in"),
        ({"engine": "gpu"}, "unknown engine 'gpu'; known: auto, cpu, reference"),
        ({"engine": "cpu", "device": "cuda"}, "engine 'cpu' does not run on device 'cuda'"),
        ({"device": "cuda:7"}, "device 'cuda:7' is not there: torch sees"),
    ):
        with pytest.raises(ValueError, match=message):
            build(quick, digits, tmp_path / "out", **settings)
    with pytest.raises(ValueError, match="recipe 'sine-ssl' is not for digits"):
        build("sine-ssl", "digits", tmp_path / "out")


def test_command_line_in_the_card_says_what_differs(quick):
    line = plan.command_line(quick, "digits", {"seed": 4, "limit": 9})
    assert line == ("wszoo fit-inrs digits --recipe dws --hidden 8 --steps 6 --seed 4 --limit 9")


def test_a_zoo_begun_without_file_names_ends_without(tmp_path):
    """324dc88 kept none: what it left half made goes on, all of one form."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for number in range(6):
        picture = draw.integers(0, 256, (4, 4, 3), np.uint8)
        assert cv2.imwrite(str(folder / f"{number}.png"), picture)
    chosen = recipe("dws", "imagefolder:x", steps=2, hidden=4)
    opened = sources.load_images(f"{folder}")

    def stop(state):
        raise KeyboardInterrupt

    for files, format in (((), 1), (opened.files, 2)):
        out = tmp_path / f"out-{format}"
        with pytest.raises(KeyboardInterrupt):
            build(chosen, replace(opened, files=files), out, shard_rows=2, progress=stop)
        index = build(chosen, f"{folder}", out, shard_rows=2)
        assert index.format == format
        assert (out / "names.parquet").exists() is bool(files)
        networks = zoo.open_zoo(out, "train")
        assert networks.names == ([f"{number}.png" for number in range(6)] if files else [None] * 6)
        views = [shard.parquet.file for shard in index.shards]
        assert [("file" in pq.read_schema(out / view).names) for view in views] == [bool(files)] * 3


def test_a_folder_with_val_goes_on_as_it_was_begun(tmp_path):
    """The first version passed over `val`: its half-made zoos go on without, to the byte."""
    pets = write_pets(tmp_path / "pets", train=40, val=8, test=10)
    name = f"imagefolder:{pets}"
    request = sources.Request(name, str(pets), Path(), None, False, older=True)
    older = sources.folders.open_folder(request)
    assert (len(older), older.validation_items) == (50, 0)
    chosen = recipe("dws", name, steps=2, hidden=4)

    def stop(state: Progress) -> None:
        if state.done > 20:
            raise KeyboardInterrupt

    whole = build(chosen, older, tmp_path / "whole", shard_rows=10)
    with pytest.raises(KeyboardInterrupt):
        build(chosen, older, tmp_path / "half", shard_rows=10, progress=stop)
    begun = unfinished(tmp_path / "half")
    assert begun is not None
    assert 0 < begun.done < 50
    found = build(chosen, name, tmp_path / "half", shard_rows=10)
    assert found.shards == whole.shards
    assert (found.splits, found.source["sha256"]) == (whole.splits, older.sha256)
    # A finished one is left as it is, and grows.
    assert build(chosen, name, tmp_path / "whole", shard_rows=10).shards == whole.shards
    more = build(replace(chosen, views=2), name, tmp_path / "whole", shard_rows=10)
    assert (more.rows, more.source["sha256"]) == (86, older.sha256)
    # What is begun anew has all that lies there.
    fresh = build(chosen, name, tmp_path / "half", shard_rows=10, overwrite=True)
    assert (fresh.splits, fresh.source["validation_items"]) == (
        {"train": 40, "validation": 8, "test": 10}, 8,
    )  # fmt: skip
