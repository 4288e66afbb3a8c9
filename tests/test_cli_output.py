"""What commands print, on streams that are closed, full, or know only ASCII."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import run, write_zoo

from cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
WSZOO = f"{sys.executable} -c 'from cli.main import main; main()'"
FIT = "fit-inrs digits --limit 4 --steps 2 --no-parquet --out z"


def shell(words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command by a shell, with its redirections."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LC_")}
    return subprocess.run(
        ["sh", "-c", f"{WSZOO} {words}"],
        cwd=cwd,
        env={**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )


@pytest.fixture(scope="module")
def odd(tmp_path_factory) -> Path:
    """A zoo in a folder with an odd name, whose index has odd words in every free text."""
    folder = tmp_path_factory.mktemp("zoos") / "tïny-ünd"
    write_zoo(folder)
    path = folder / "zoo.json"
    plain = json.loads(path.read_text())
    bad = "\x1b[2J\x1b]0;owned\x07\u202e\r\nError: none\x9b1m"
    plain["source"]["title"] = f"title{bad}"
    plain["recipe"]["note"] = f"note{bad}" + "long" * 100_000
    plain["command"] = f"command{bad}"
    for shard in plain["shards"]:
        shard["cpu"] = f"cpu{bad}"
    plain["excluded"] = [{"split": "train", "index": 1, "view": 0, "reason": f"reason{bad}"}]
    path.write_text(json.dumps(plain))
    return folder


def test_info_shows_foreign_words_safely(odd):
    result = run("info", odd)
    assert result.exit_code == 0, result.output
    assert result.stdout.isascii() or "ï" in result.stdout
    for line in result.stdout.splitlines():
        assert line.isprintable(), line
        assert not line.startswith("Error")
        assert len(line) < 1000
    for word in ("title", "note", "command", "cpu", "reason"):
        assert rf"{word}\x1b[2J" in result.stdout, word


@pytest.mark.parametrize("redirection", ["2>&-", ">&-", "<&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_a_closed_or_full_stream_stops_nothing(tmp_path, odd, redirection):
    ran = shell(f"{FIT} {redirection}", tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "z" / "zoo.json").is_file()
    for words in (f"info {odd}", "--help", f"push {odd} user/x --dry-run"):
        ran = shell(f"{words} {redirection}", tmp_path, HF_TOKEN="")
        assert ran.returncode == 0, (words, ran.stderr)
    ran = shell(f"push nowhere user/x {redirection}", tmp_path)
    assert ran.returncode == 1
    ran = shell(f"fit-inrs nowhere {redirection}", tmp_path)
    assert ran.returncode == 2
    # No file was opened under the number of a closed stream.
    for path in (tmp_path / "z").rglob("*"):
        if path.is_file():
            assert b"Error" not in path.read_bytes()


@pytest.mark.parametrize(
    "environment",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0",
     "PYTHONCOERCECLOCALE": "0"}],
)  # fmt: skip
def test_terminals_that_know_only_ascii(tmp_path, odd, environment):
    for words in (
        f"info {odd}",
        f"verify {odd} --samples 0",
        "push nöwhere user/x",
        "fit-inrs nöne",
    ):
        ran = shell(words, tmp_path, **environment)
        assert "Traceback" not in ran.stderr, ran.stderr
        assert ran.returncode in ((0,) if str(odd) in words else (1, 2)), ran.stderr


def test_commands_print_by_one_function():
    """`say` makes every line safe; errors are made so by cli/main.py."""
    for path in (ROOT / "cli").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        for call in ("click.echo", "click.secho", "tqdm.write", " print("):
            alone = {"click.echo": ("output.py", "main.py"), "tqdm.write": ("progress.py",)}
            if path.name not in alone.get(call, ()):
                assert call not in text, (path.name, call)


def test_every_help_on_an_ascii_terminal(tmp_path):
    script = (
        "import sys\nfrom cli.output import prepare_streams\nfrom cli.main import COMMANDS, wszoo\n"
        "prepare_streams()\n"
        "for name in COMMANDS:\n"
        "    try: wszoo([name, '--help'])\n"
        "    except SystemExit as end: assert not end.code\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)},
        capture_output=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count(b"Usage: ") == len(COMMANDS)
