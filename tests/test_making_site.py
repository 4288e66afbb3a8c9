"""One protocol for zoos in the making: nothing is lost, nothing is believed unseen."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import zoo
from zoo import shards, sources
from zoo.making.builder import build
from zoo.recipes import ImageRecipe, recipe

SETTINGS: dict[str, Any] = {"limit": 60, "shard_rows": 20}  # five shards: three, one, one


@pytest.fixture(scope="module")
def digits() -> sources.ImageSource:
    return sources.load_images("digits")


@pytest.fixture(scope="module")
def quick() -> ImageRecipe:
    chosen = recipe("dws", "digits", steps=6, hidden=8)
    assert isinstance(chosen, ImageRecipe)
    return chosen


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

    assert moments(begin, work, check, stride=3) > 20
    assert {"old", "new"} == set(seen)
    assert seen == sorted(seen, key=["old", "new"].index)  # the change is one moment
    assert contents(out) == contents(made / "new" / "zoo")
    assert shards.read_index(out) == new
