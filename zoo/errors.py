"""The one error for data that is not what it should be, and how foreign words are shown.

Misuse (a wrong argument, an unknown name) is `ValueError`; the command line turns that into
exit code 2 and `ZooError` into exit code 1. What a file or a server says reaches a terminal
only through `safe_line`, and never with a secret in it.
"""

import difflib
import os
import re
from collections.abc import Iterable

LINE = 2000
HIDDEN = "***"

# Variables whose values are never shown.
_SECRET_VARIABLES = (
    *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_TOKEN", "AWS_SECRET_ACCESS_KEY"),
    *("AWS_SESSION_TOKEN", "WANDB_API_KEY"),
)
_SHORTEST_SECRET = 6
# What is a secret by its form: (pattern, what is kept of it).
_FORMS = (
    (re.compile(r"\bhf_[A-Za-z0-9]{16,}"), HIDDEN),
    (re.compile(r"(?i)(\b(?:bearer|basic|token)\b[\s:=%\"'+]{1,4}(?:20|3A)?)[\w.~+/%=-]{12,}"), 1),
    (re.compile(r"(?i)((?:authorization|cookie)[\"']?\s*[:=]\s*[\"']?(?!(?:bearer|basic)\b))"
                r"[^\s\"',;*]+"), 1),
    (re.compile(r"(\w://)[^\s/@?#]+(?=@)"), 1),
    (re.compile(r"(?i)([?&;](?:[\w-]*(?:signature|token|credential|secret|password|api_?key)"
                r"|sig|policy|key-pair-id)=)[^&\s\"'#;]+"), 1),
)  # fmt: skip


class ZooError(Exception):
    """A file, folder or remote is missing, damaged, or contradicts its index."""


def without_secrets(text: str, secrets: Iterable[str | None] = ()) -> str:
    """A text with `***` for each secret: before it is cut, or a part would stay.

    Secrets are those given and those in the environment ($HF_TOKEN, ...), also
    percent-encoded or escaped as in JSON, and what has the form of one: tokens of the Hub,
    Authorization headers, passwords and signatures in URLs.

    >>> without_secrets("https://me:pass@host/a?X-Amz-Signature=0a1b&b=2")
    'https://***@host/a?X-Amz-Signature=***&b=2'
    """
    given = (*secrets, *(os.environ.get(name) for name in _SECRET_VARIABLES))
    known = {secret.strip() for secret in given if secret}
    for secret in sorted(known, key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET:
            text = re.sub("".join(map(_any_spelling, secret)), HIDDEN, text)
    for pattern, kept in _FORMS:
        text = pattern.sub(HIDDEN if kept == HIDDEN else rf"\1{HIDDEN}", text)
    return text


def _any_spelling(character: str) -> str:
    """A pattern for a character as it is, percent-encoded (also twice), or as in JSON."""
    code = "".join(f"%(?:25)*{byte:02x}" for byte in character.encode())
    return rf"(?:(?i:{code})|{re.escape(character)}|\\u00(?i:{ord(character):02x}))"


def safe_line(text: object, limit: int = LINE) -> str:
    r"""One line that a terminal may show, whoever wrote it.

    Blanks and line breaks become one blank, secrets `***`. What is longer than `limit`
    characters loses its middle.

    >>> safe_line("a\n b\x1b[2Jc\u202ed")
    'a b\\x1b[2Jc\\u202ed'
    """
    folded = " ".join(str(text).split())
    most = 100 * limit
    words = visible(without_secrets(folded[:most]))
    if len(words) <= limit:
        return words
    # The end of a text that was cut may be a part of a secret.
    tail = limit // 4 if len(folded) <= most else 0
    return f"{words[: limit - tail - 5]} ... {words[len(words) - tail :]}".rstrip()


def visible(text: str) -> str:
    r"""A text in which every character can be seen and none does anything.

    Escape sequences, control characters, line breaks, signs that turn the direction of
    writing, and whatever else has no picture are written as Python writes them.

    >>> visible("two  blanks\n")
    'two  blanks\\n'
    """
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode("ascii")
        for sign in text
    )


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """One line: the unknown name, the known ones, the one probably meant."""
    message = f"unknown {kind} {name!r}; known: {', '.join(known)}"
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"{message} (did you mean {near[0]}?)" if near else message
