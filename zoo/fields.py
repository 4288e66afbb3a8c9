"""A field of settings, described once: what it is, its unit, what values it takes.

`described` puts this on a field of a dataclass. From there the command line makes an
option with its help and its checks, a data card the words of a table, and `check` the error
of a wrong value: no text and no limit stands twice. Only the standard library is loaded.
"""

import sys
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, field, fields
from difflib import get_close_matches
from typing import Any

_KEY = "about"


@dataclass(frozen=True)
class About:
    """What a field is and which values it takes; numbers must be finite besides.

    Attributes:
        help: what it is, in words that can stand in a sentence: no capital, no full stop.
        unit: of the number, if it has one.
        above, least, below, most: limits of a number; `above` and `below` are not reached.
        choices: the words it can be, if they are listed.
        values: takes the values out of a text that can hold several, such as "1e-4..1e-2".
        form: how such a text looks, as an option's help shows it.
        since: the format of zoos that first had the field. One that is newer than format 1 is
            not written at its default, so that zoos without it stay as they were.
        auto: what the command line's `auto` finds by a trial, in words; empty if it takes none.
    """

    help: str = ""
    unit: str = ""
    above: float | None = None
    least: float | None = None
    below: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    values: Callable[[str], Sequence[Any]] | None = None
    form: str = ""
    since: int = 1
    auto: str = ""

    @property
    def words(self) -> str:
        """What it is, with its unit.

        >>> About("a network stops above it", unit="dB").words
        'a network stops above it, in dB'
        """
        return f"{self.help}, in {self.unit}" if self.unit else self.help

    @property
    def range(self) -> str:
        """What its limits ask of a number, to follow "must"; empty without limits.

        >>> About(above=0).range, About(least=1, most=2**16).range, About(least=0, below=1).range
        ('be positive', 'be from 1 to 65,536', 'be in [0, 1)')
        """
        low, left = (self.least, "[") if self.above is None else (self.above, "(")
        top, right = (self.most, "]") if self.below is None else (self.below, ")")
        if low is not None and top is not None:
            if left + right == "[]":
                return f"be from {low:,.10g} to {top:,.10g}"
            return f"be in {left}{low:,.10g}, {top:,.10g}{right}"
        if top is not None:
            return f"be {'at most' if self.below is None else 'below'} {top:g}"
        if low is None:
            return ""
        if low == 0:
            return "not be negative" if self.above is None else "be positive"
        return f"be {'at least' if self.above is None else 'above'} {low:g}"

    def problem(self, value: Any, kind: type) -> str | None:
        """What is wrong with a value of a field of this kind, to follow its name; or None.

        >>> About(above=0).problem(0, int), About(least=1).problem(2.5, int)
        ('must be positive, got 0', 'must be a whole number, got 2.5')
        """
        if kind is bool:
            return None if isinstance(value, bool) else f"must be true or false, got {_got(value)}"
        if kind is str and not isinstance(value, str):
            return f"must be a text, got {_got(value)}"
        if kind is str and self.values is None:
            return self._unlisted(value)
        try:
            found = [value] if self.values is None else self.values(value)
        except ValueError as error:
            return f"cannot be read: {error!s:.300}"
        for each in found:
            word = kind is str and isinstance(each, str)
            problem = self._unlisted(each) if word else self._outside(each, kind)
            if problem:
                whole = "" if str(value) == str(each) else f" in {value!r}"
                return problem + whole
        return None

    def _unlisted(self, word: str) -> str | None:
        if not self.choices or word in self.choices:
            return None
        near = get_close_matches(word, self.choices, n=1)
        meant = f" (did you mean {near[0]}?)" if near else ""
        return f"must be one of {', '.join(self.choices)}, got {word!r}{meant}"

    def _outside(self, number: Any, kind: type) -> str | None:
        if isinstance(number, bool) or not isinstance(number, int | float):
            return f"must be a number, got {_got(number)}"
        if kind is int and not isinstance(number, int):
            return f"must be a whole number, got {_got(number)}"
        # Comparing takes integers that are too long for a float, as nan is taken by neither.
        if kind is not int and not -sys.float_info.max <= number <= sys.float_info.max:
            return f"must be a finite number, got {_got(number)}"
        if (
            (self.above is not None and not number > self.above)
            or (self.least is not None and not number >= self.least)
            or (self.below is not None and not number < self.below)
            or (self.most is not None and not number <= self.most)
        ):
            return f"must {self.range}, got {_got(number)}"
        return None


def _got(value: Any) -> str:
    """A value as a message repeats it; Python writes no integer of more than 4,300 digits."""
    if isinstance(value, int) and value.bit_length() > 4000:
        return f"an integer of {value.bit_length()} bits"
    return f"{value!r:.500}"


def described(default: Any = MISSING, help: str = "", **limits: Any) -> Any:
    """A field of a dataclass with its default and its `About`."""
    return field(default=default, metadata={_KEY: About(help, **limits)})


def about(kind: type) -> dict[str, About]:
    """What every field of a dataclass is; a field not described takes anything of its type."""
    return {
        each.name: each.metadata.get(_KEY) or About(each.metadata.get("help", ""))
        for each in fields(kind)
    }


def types_of(kind: type) -> dict[str, tuple[type, bool]]:
    """The type of every field of a dataclass, and whether it can be None.

    Fields are one of bool, int, float and str, or that with None; a text that may also be
    given as a whole number is a str.
    """
    found = {}
    hints = typing.get_type_hints(kind)
    for each in fields(kind):
        hint = hints[each.name]
        parts = set(typing.get_args(hint)) if isinstance(hint, types.UnionType) else {hint}
        optional = types.NoneType in parts
        parts -= {types.NoneType}
        found[each.name] = str if parts == {int, str} else parts.pop(), optional
    return found


def defaults_of(kind: type) -> dict[str, Any]:
    """The defaults of a dataclass's fields; fields without one are left out."""
    return {each.name: each.default for each in fields(kind) if each.default is not MISSING}


def to_plain(settings: Any) -> dict[str, Any]:
    """The fields of a dataclass's instance as JSON has them; new ones only where used."""
    described = about(type(settings))
    defaults = defaults_of(type(settings))
    return {
        name: getattr(settings, name)
        for name, each in described.items()
        if each.since == 1 or getattr(settings, name) != defaults[name]
    }


def check(settings: Any) -> None:
    """Hold every field of a dataclass's instance against its type and its limits.

    Raises:
        ValueError: for the first that is not of its type, not finite or out of its limits.
    """
    kinds, hints = types_of(type(settings)), typing.get_type_hints(type(settings))
    for name, each in about(type(settings)).items():
        value = getattr(settings, name)
        kind, optional = kinds[name]
        if value is None and optional:
            continue
        if type(value) is int and kind is str and int in typing.get_args(hints[name]):
            value = str(value)  # a text of one number
        problem = each.problem(value, kind)
        if problem:
            raise ValueError(f"{name} {problem}")
