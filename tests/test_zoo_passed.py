"""One list of names that are never looked at, and what is passed over is counted."""

import pytest

from zoo.passed import KINDS, LEFT_BEHIND, OTHERS, Passed, left_behind


@pytest.mark.parametrize(
    "name",
    [
        ".DS_Store", "nets/.ipynb_checkpoints/0-checkpoint.pth", "__MACOSX/nets/._0.pth",
        "__MACOSX/0.pth", "nets/._0.pth", "Thumbs.db", "a/desktop.ini", "a/THUMBS.DB",
        "$RECYCLE.BIN/1.png", "System Volume Information/x", "lost+found/0.pth", "@eaDir/0.png",
        "__pycache__/nets.pyc", "a\\.hidden\\0.pth",
    ],
)  # fmt: skip
def test_names_that_are_never_looked_at(name: str):
    assert left_behind(name)


@pytest.mark.parametrize(
    "name", ["0.pth", "./nets/0.pth", "../nets/0.pth", "MACOSX/0.pth", "a/thumbs.db.pth", "a.b/c"]
)
def test_names_that_are_data(name: str):
    assert not left_behind(name)


def test_counts_are_by_reason_and_bounded():
    passed = Passed()
    assert (len(passed), str(passed), passed.to_json()) == (0, "", {})
    for name in ("a.txt", "b.TXT", ".x", "c", "evil.\x1b[2J"):
        passed.add(name)
    passed.add("d.pth", "a link")
    assert passed.to_json() == {
        ".txt": 2, LEFT_BEHIND: 1, "a link": 1, OTHERS: 1, "without suffix": 1
    }  # fmt: skip
    for number in range(100):
        passed.add(f"x.s{number}")
    assert len(passed) == 106
    assert len(passed.to_json()) <= KINDS + 1
    assert "\x1b" not in str(passed)
