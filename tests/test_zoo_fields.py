"""Fields described once: what each limit lets pass, what it refuses and in which words."""

from dataclasses import dataclass, replace

import pytest

from zoo.fields import About, about, check, described, types_of


def whole_numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


@dataclass(frozen=True)
class Settings:
    """One field of each form."""

    rate: float = described(0.1, "step of an update", above=0)
    share: float = described(0.5, "part that is kept", least=0, below=1)
    depth: int = described(3, "layers", least=1, most=9)
    offset: float | None = described(None, "added to it", unit="dB")
    scheme: str = described("dws", "of the weights", choices=("dws", "nfn"))
    batches: str = described("8,16", "of a step, or a list", values=whole_numbers, least=1)
    name: str = described("a", "of it")
    fast: bool = described(False, "whether to hurry")

    def __post_init__(self) -> None:
        check(self)


@pytest.mark.parametrize(
    "changes",
    [
        {"rate": 3},  # a whole number will do for a float
        {"rate": 1e-300},
        {"share": 0.0},
        {"depth": 1},
        {"depth": 9},
        {"offset": None},
        {"offset": -3.0},
        {"batches": "4"},
        {"fast": True},
    ],
    ids=str,
)
def test_what_is_right_passes(changes):
    assert replace(Settings(), **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rate": 0}, "rate must be positive, got 0"),
        ({"rate": float("nan")}, "rate must be a finite number, got nan"),
        ({"rate": float("inf")}, "rate must be a finite number, got inf"),
        ({"rate": None}, "rate must be a number, got None"),
        ({"rate": "0.1"}, "rate must be a number, got '0.1'"),
        ({"rate": 1j}, "rate must be a number, got 1j"),
        ({"share": 1.0}, r"share must be in \[0, 1\), got 1.0"),
        ({"share": -0.5}, r"share must be in \[0, 1\), got -0.5"),
        ({"depth": 0}, "depth must be from 1 to 9, got 0"),
        ({"depth": 10**400}, "depth must be from 1 to 9, got 1000"),
        ({"depth": 2.0}, "depth must be a whole number, got 2.0"),
        ({"depth": True}, "depth must be a number, got True"),
        ({"offset": float("-inf")}, "offset must be a finite number, got -inf"),
        ({"scheme": "nnf"}, r"scheme must be one of dws, nfn, got 'nnf' \(did you mean nfn\?\)"),
        ({"scheme": 3}, "scheme must be a text, got 3"),
        ({"batches": "8,0"}, "batches must be at least 1, got 0 in '8,0'"),
        ({"batches": "8,x"}, "batches cannot be read: invalid literal .* 'x'"),
        ({"name": None}, "name must be a text, got None"),
        ({"fast": 1}, "fast must be true or false, got 1"),
    ],
    ids=str,
)
def test_what_is_wrong_is_named(changes, message):
    with pytest.raises(ValueError, match=rf"^{message}"):
        replace(Settings(), **changes)


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({}, ""),
        ({"above": 0}, "be positive"),
        ({"above": 2}, "be above 2"),
        ({"least": 0}, "not be negative"),
        ({"least": 2}, "be at least 2"),
        ({"below": 5}, "be below 5"),
        ({"most": 5}, "be at most 5"),
        ({"least": 1, "most": 65536}, "be from 1 to 65,536"),
        ({"above": 0, "most": 1}, "be in (0, 1]"),
    ],
    ids=str,
)
def test_limits_in_words(limits, text):
    assert About(**limits).range == text


def test_what_a_field_says_of_itself():
    assert about(Settings)["offset"].words == "added to it, in dB"
    assert about(Settings)["rate"].words == "step of an update"
    assert types_of(Settings)["offset"] == (float, True)
    assert types_of(Settings)["depth"] == (int, False)
