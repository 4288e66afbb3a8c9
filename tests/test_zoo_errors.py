"""Foreign words on their way to a terminal: one line, everything visible, no secret."""

import base64
import unicodedata
from urllib.parse import quote

import pytest

from zoo.errors import HIDDEN, LINE, safe_line, visible, without_secrets

TOKEN = "hf_ATokenThatNobodyMaySee0123456789"
ODD = "pass word+/=%"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "abc/def+ghi")


@pytest.mark.parametrize(
    "text",
    [
        TOKEN,
        f"the token {TOKEN} is not welcome",
        "".join(f"%{ord(sign):02x}" for sign in TOKEN),
        "".join(f"%25{ord(sign):02X}" for sign in TOKEN),
        "".join(f"\\u{ord(sign):04x}" for sign in TOKEN),
        f"%68{TOKEN[1:]}",
        f'{{"headers": {{"Authorization": "Bearer {TOKEN}"}}}}',
        f"https://user:{TOKEN}@huggingface.co/x",
        f"https://huggingface.co/x?token={TOKEN}&a=1",
    ],
)
def test_a_known_token_is_hidden_however_it_is_spelled(text):
    for shown in (without_secrets(text), safe_line(text)):
        assert HIDDEN in shown
        assert "Nobody" not in shown
        assert TOKEN[-6:] not in shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("key abc/def+ghi", "key ***"),
        ("key abc%2Fdef%2bghi", "key ***"),
        ("another hf_abcdefghijklmnopqrstuvwxyz0123", "another ***"),
        ("Authorization: Bearer abcdefghijklmno", "Authorization: Bearer ***"),
        ("authorization=Basic dXNlcjpwYXNzd29yZA==", "authorization=Basic ***"),
        ("{'authorization': 'Digest-abc'}", "{'authorization': '***'}"),
        ("https://me:secret@host/zoo", "https://***@host/zoo"),
        ("s3://KEY:secret@bucket/zoo", "s3://***@bucket/zoo"),
        ("/a?X-Amz-Credential=AK%2F1&X-Amz-Signature=0a1b&x=2",
         "/a?X-Amz-Credential=***&X-Amz-Signature=***&x=2"),
        ("/a?Policy=ey__&Key-Pair-Id=K2&Signature=ab",
         "/a?Policy=***&Key-Pair-Id=***&Signature=***"),
    ],
)  # fmt: skip
def test_secrets_are_known_by_variable_and_form(text, expected):
    assert without_secrets(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1 does not know the token (401); log in again with `hf auth login`",
        "Invalid credentials in Authorization header",
        "hf_hub_download_is_a_function() of https://huggingface.co/user/name@v2",
        "s3://bucket/zoo, user@host, token: none",
        "wszoo fit-inrs imagefolder:pets --seed 1 --steps 1000",
    ],
)
def test_plain_words_stay(text):
    assert without_secrets(text) == text
    assert safe_line(text) == text


def test_given_secrets_are_hidden_in_other_spellings():
    assert without_secrets(f"a {ODD} b {quote(ODD)}", [ODD, None]) == "a *** b ***"
    # What is not told in words is not found; nothing else may vanish for it.
    other = base64.b64encode(ODD.encode()).decode()
    assert without_secrets(other, [ODD]) == other


@pytest.mark.parametrize("limit", [40, 300, LINE])
def test_a_cut_shows_no_part_of_a_token(limit):
    """Wherever the token stands, before, across or after the cut."""
    for before in (*range(0, 3 * limit, 7), 99 * limit, 100 * limit - 5):
        text = "x" * before + " " + TOKEN + " " + "y" * (2 * limit)
        shown = safe_line(text, limit)
        assert len(shown) <= limit
        for size in (len(TOKEN), 12, 6):
            for start in range(len(TOKEN) - size + 1):
                assert TOKEN[start : start + size] not in shown
    assert safe_line("a" * limit, limit) == "a" * limit
    assert safe_line("a" * (limit + 1) + "end", limit).endswith("end")


def test_every_character_is_shown_and_none_acts():
    every = "".join(map(chr, range(0x3000))) + "\ud800\ue000\U0001f600\U000e0041\ufeff"
    for shown in (visible(every), safe_line(every, 10**6)):
        kinds = {unicodedata.category(sign) for sign in shown}
        assert not kinds & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
        assert "\n" not in shown
        shown.encode()  # no surrogate is left
    assert safe_line("é 日本 😀") == "é 日本 😀"
    assert safe_line("  two\r\n lines\t ") == "two lines"
    assert safe_line("\x1b]0;title\x07\x1b[31m\u202egnp.exe\u2066") == (
        r"\x1b]0;title\x07\x1b[31m\u202egnp.exe\u2066"
    )
    assert safe_line(ValueError("a\nb")) == "a b"
