"""Judges what wszoo says about damage: a short refusal that names the thing, or the truth.

An answer is right if it is a `ZooError` or `ValueError` (of the command line: exit 1 or 2) of
one printable line that names a file or a field, or if what was read is what was there.
"""

import re
import traceback
from collections.abc import Callable, Collection
from typing import Any

from hostile.mutations import Damage
from hostile.workers import Hang, Result, clock, where_of

LONGEST = 1000
# Half of a surrogate pair, what moves a terminal's cursor, what turns text around.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def flaw_of_message(text: str, names: Collection[str]) -> str | None:
    """What is wrong with the message of a refusal; None if it is one safe line that helps."""
    if not text.strip():
        return "the message is empty"
    if found := _UNSAFE.search(text):
        return f"the message has the character {found[0]!r}: {text!r:.160}"
    if len(text) > LONGEST:
        return f"the message has {len(text)} characters: {text!r:.160}"
    if not any(name in text for name in names):
        return f"the message names neither file nor field: {text!r:.200}"
    return None


class Refused(Exception):
    """A command ended with an exit code and a line, and no exception."""

    def __init__(self, code: int, line: str):
        super().__init__(code, line)
        self.code, self.line = code, line


def command(*words: object, allowed: tuple[int, ...] = (0,)) -> str:
    """What a command of wszoo in this process prints.

    Raises:
        Refused: if it ends with code 1 or 2.
        AssertionError: if what it prints would reach a terminal raw, or it says nothing.
        BaseException: what the command let through.
    """
    from click.testing import CliRunner

    from cli.main import wszoo

    result = CliRunner().invoke(wszoo, [str(word) for word in words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    for name, text in (("stdout", result.stdout), ("stderr", result.stderr)):
        bad = _UNSAFE.search(text.replace("\n", "").replace("\r", "").replace("\t", ""))
        assert bad is None, f"{name} has the character {bad and bad[0]!r}: {text!r:.160}"
    if result.exit_code not in allowed:
        lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
        assert len(lines) == 1, f"expected one line of error, got {result.stderr!r:.200}"
        raise Refused(result.exit_code, lines[0])
    return result.stdout


def judge(
    damage: Damage,
    act: Callable[[], Any],
    names: Collection[str],
    differences: Callable[[Any], set[str]],
) -> Result:
    """Do something with what was damaged, and judge what comes of it.

    Args:
        names: of files and fields, one of which a refusal has to name.
        differences: which kinds of things were read otherwise than they are.
    """
    from zoo import ZooError

    kind = damage.kind
    try:
        with clock():
            found = act()
    except (ZooError, ValueError) as error:
        if type(error) is not ValueError and not isinstance(error, ZooError):
            # One of Python's, such as UnicodeDecodeError.
            return Result("traceback", kind, f"{damage.what}: {error!r:.200}", where_of(error))
        flaw = flaw_of_message(str(error), names)
        if flaw:
            return Result("message", kind, f"{damage.what}: {flaw}", f"message {where_of(error)}")
        return Result("refused", kind)
    except Refused as error:
        flaw = flaw_of_message(error.line, names)
        if flaw:
            return Result("message", kind, f"{damage.what}: {flaw}", "message of a command")
        return Result("refused", kind)
    except Hang as error:
        line = traceback.extract_tb(error.__traceback__)[-1]
        return Result("hang", kind, f"{damage.what}: {line}", f"hang {where_of(error)}")
    except MemoryError as error:
        return Result("memory", kind, f"{damage.what}: {error!r:.200}", f"memory {where_of(error)}")
    except BaseException as error:
        return Result("traceback", kind, f"{damage.what}: {error!r:.200}", where_of(error))
    wrong = differences(found)
    if not wrong:
        return Result("same", kind)
    unexplained = set() if "all" in damage.allows else wrong - damage.allows
    if unexplained:
        line = f"{damage.what}: opened, with other {', '.join(sorted(unexplained))}"
        return Result("changed", kind, line, f"changed {'+'.join(sorted(unexplained))} {kind}")
    return Result("other data", kind)
