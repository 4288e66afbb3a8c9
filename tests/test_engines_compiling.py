"""The cache of compiled code is wanted, not needed."""

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numba
import pytest
from numba import config
from numba.core import caching

from zoo import machine
from zoo.engines import compiling

ROOT = Path(__file__).parents[1]


def square(x):
    return x * x


@pytest.fixture(autouse=True)
def _apart(tmp_path, monkeypatch):
    """A cache of its own for each test."""
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture
def read_only(monkeypatch):
    """Neither package nor home can be written."""

    def refuse(self):
        raise OSError(errno.EROFS, "Read-only file system")

    for name in dir(caching):
        if name.endswith("Locator") and name not in ("_CacheLocator", "UserProvidedCacheLocator"):
            monkeypatch.setattr(getattr(caching, name), "ensure_cache_path", refuse)
    monkeypatch.setattr(config, "CACHE_DIR", "")


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.nb*") if path.is_file())


def test_what_was_compiled_is_kept_and_found(tmp_path):
    """Numba keeps its cache in `_cache`; if a newer one does not, `kernel` needs its new name."""
    assert isinstance(compiling.kernel(square)._cache, compiling._Cache)
    assert compiling.kernel(square)(3) == 9
    assert _files(tmp_path / "cache")
    again = compiling.kernel(square)
    assert again(3) == 9
    assert sum(again.stats.cache_hits.values()) == 1


def test_read_only_folders_lead_to_the_temporary_one(tmp_path, read_only):
    with pytest.warns(machine.Notice, match=r"kept in \S+wszoo-numba-\d+.*NUMBA_CACHE_DIR") as said:
        function = compiling.kernel(square)
    assert len(said) == 1
    assert function(4) == 16
    folder = tmp_path / f"wszoo-numba-{os.getuid()}"
    assert _files(folder)
    assert folder.stat().st_mode & 0o077 == 0
    assert os.environ["NUMBA_CACHE_DIR"] == str(folder)  # for workers
    assert compiling.kernel(square)(4) == 16  # and says it once


def _another(path: Path) -> None:
    path.mkdir(mode=0o777)
    path.chmod(0o777)  # anybody could put code there


def _link(path: Path) -> None:
    (path.parent / "elsewhere").mkdir()
    path.symlink_to(path.parent / "elsewhere")


@pytest.mark.parametrize("make", [_another, _link, Path.touch])
def test_a_temporary_folder_of_others_is_not_read(tmp_path, read_only, make):
    make(tmp_path / f"wszoo-numba-{os.getuid()}")
    with pytest.warns(machine.Notice, match="cannot be kept anywhere, so that every process"):
        function = compiling.kernel(square)
    assert function(5) == 25
    assert not _files(tmp_path)


@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_a_damaged_cache_is_as_good_as_none(tmp_path, content):
    assert compiling.kernel(square)(6) == 36
    for path in _files(tmp_path / "cache"):
        path.write_bytes(path.read_bytes()[:-20] if content is None else content)
    assert compiling.kernel(square)(6) == 36
    again = compiling.kernel(square)
    assert again(6) == 36
    assert sum(again.stats.cache_hits.values()) == 1  # it was mended


def test_a_full_disk_costs_the_cache_alone(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(caching.IndexDataCacheFile, "save", full)
    with pytest.warns(machine.Notice, match="No space left"):
        assert compiling.kernel(square)(7) == 49


def test_every_kernel_of_the_engines_is_one_of_these():
    """None is compiled with a cache that could fail."""
    for name in ("tiles", "dense"):
        text = (ROOT / "zoo" / "engines" / f"{name}.py").read_text(encoding="utf-8")
        assert "cache=True" not in text
        assert "\n@kernel\n" in text
    assert numba.__version__


def test_a_fit_on_a_read_only_machine_says_it_in_one_line(tmp_path):
    """Worker processes too."""
    script = """
import errno, sys
from numba.core import caching
def refuse(self):
    raise OSError(errno.EROFS, "Read-only file system")
for name in dir(caching):
    if name.endswith("Locator") and name not in ("_CacheLocator", "UserProvidedCacheLocator"):
        setattr(getattr(caching, name), "ensure_cache_path", refuse)
from cli.main import main
sys.argv = ["wszoo", *sys.argv[1:]]
main()
"""
    words = ["fit-inrs", "digits", "--limit", "4", "--steps", "2", "--hidden", "4"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    environment.pop("NUMBA_CACHE_DIR", None)
    done = subprocess.run(
        [sys.executable, "-c", script, *words, "--out", str(tmp_path / "zoo")],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("Warning: compiled code is kept in ")
