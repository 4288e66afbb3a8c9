"""What is passed over where files are gathered, and the count of it.

Operating systems, editors and notebooks leave files of their own beside data, under names
that nobody means: `left_behind` is the one list of them. A gatherer that takes only some of
what lies there counts the rest in a `Passed`, so that it can be said.
"""

import re
from collections import Counter
from pathlib import PurePosixPath

# Whatever case they have: these systems do not tell cases apart.
FOLDERS = (
    "__macosx", "__pycache__", "lost+found", "$recycle.bin", "system volume information", "@eadir",
)  # fmt: skip
FILES = ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r")
LEFT_BEHIND = "hidden or left behind by a system"
# Kinds that are told apart; suffixes of a stranger's files would otherwise fill an index.
KINDS = 12
OTHERS = "others"


def left_behind(name: str) -> bool:
    r"""Whether a path inside a folder or archive is never looked at.

    It is if a part of it begins with a dot (`.ipynb_checkpoints`, `._0.pth` of macOS), is a
    folder of `FOLDERS` or a file of `FILES`.

    >>> left_behind("nets/.ipynb_checkpoints/0-checkpoint.pth"), left_behind("__MACOSX/._0.pth")
    (True, True)
    >>> left_behind("./nets/0.pth"), left_behind("..\\0.pth")
    (False, False)
    """
    parts = [part for part in re.split(r"[/\\]", name) if part not in ("", ".", "..")]
    return any(part.startswith(".") or part.lower() in FOLDERS for part in parts) or (
        bool(parts) and parts[-1].lower() in FILES
    )


class Passed:
    """How many files were passed over, by reason.

    >>> passed = Passed()
    >>> for name in ("notes.txt", "a/.DS_Store", "README", "more.TXT"):
    ...     passed.add(name)
    >>> print(passed)
    2 .txt, 1 hidden or left behind by a system, 1 without suffix
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, name: str, reason: str | None = None) -> None:
        """Count a file; without a reason by its kind: left behind, or its suffix."""
        if reason is None:
            suffix = PurePosixPath(name).suffix.lower()
            known = re.fullmatch(r"\.[a-z0-9_]{1,12}", suffix)
            plain = suffix if known else "without suffix" if not suffix else OTHERS
            reason = LEFT_BEHIND if left_behind(name) else plain
        if len(self._counts) >= KINDS and reason not in self._counts:
            reason = OTHERS
        self._counts[reason] += 1

    def __len__(self) -> int:
        """Number of files."""
        return self._counts.total()

    def to_json(self) -> dict[str, int]:
        """Files by reason, the most first, as the index of a zoo has them."""
        return dict(sorted(self._counts.items(), key=lambda item: (-item[1], item[0])))

    def __str__(self) -> str:
        """The counts in words; empty if nothing was passed over."""
        return ", ".join(f"{count:,} {reason}" for reason, count in self.to_json().items())
