"""The site of the documentation: what can be told without MkDocs always, its build where it is.

`make docs` and `.ci/run` install MkDocs.
"""

import doctest
import importlib.util
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import browser as browsers
import pytest
import yaml

import processors
import zoo

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^(```+).*?^\1$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


@cache
def pages():
    """docs/pages.py, which MkDocs runs."""
    made = importlib.util.spec_from_file_location("pages", ROOT / "docs" / "pages.py")
    module = importlib.util.module_from_spec(made)
    made.loader.exec_module(module)
    return module


@cache
def tree() -> dict[str, str]:
    """Every page of the site by its path in the tree, as Markdown, the notebook made so."""
    found = {f"docs/{path.name}": path.read_text("utf-8") for path in (ROOT / "docs").glob("*.md")}
    for path in pages().HOMES:
        if path.endswith(".md"):
            found[path] = (ROOT / path).read_text("utf-8")
    for folder, names in pages().CARDS.items():
        for name in names:
            path = f"{folder}/{name}/README.md"
            found[path] = pages().without_header((ROOT / path).read_text("utf-8"))
    return found


def slug(heading: str) -> str:
    """The anchor of a heading, as MkDocs and GitHub have it."""
    plain = re.sub(r"[`*]|\]\([^)]*\)|\[", "", heading).strip().lower()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain))


def anchors(text: str) -> set[str]:
    return {slug(title) for title in re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE)}


def settings() -> dict:
    return yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))


def listed(nav) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    parts = nav if isinstance(nav, list) else nav.values()
    return [page for part in parts for page in listed(part)]


def test_every_page_stands_once_in_the_navigation():
    config = pages().on_config(type("Config", (), {"nav": settings()["nav"]}))
    named = listed(config.nav)
    there = [path for path in [*tree(), "docs/quickstart.ipynb"] if not path.startswith("source")]
    assert sorted(named) == sorted(pages().home_of(path) for path in there)
    assert len(config.nav) == 7  # as many tabs as fit a narrow screen


def test_settings_name_no_machine():
    text = (ROOT / "mkdocs.yml").read_text("utf-8") + (ROOT / "docs" / "site.css").read_text()
    assert "://" not in text  # no address, of a package index or anything else
    assert not re.search(r"(?<![\w./])/\w", text)  # no absolute path
    assert f"/{settings()['site_dir']}/" in (ROOT / ".gitignore").read_text().splitlines()
    assert all((ROOT / hook).is_file() for hook in settings()["hooks"])


@pytest.mark.parametrize("path", sorted(tree()))
def test_links_lead_to_pages_of_the_site_and_their_headings(path):
    met = set()
    text = FENCE.sub("", pages().relinked(tree()[path], path, met.add))
    homes = {pages().home_of(each): each for each in {*tree(), "docs/quickstart.ipynb", *met}}
    here = Path(pages().home_of(path)).parent
    for target in LINK.findall(text):
        file, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        place = os.path.normpath(here / file) if file else pages().home_of(path)
        figure = ROOT / "docs" / place
        assert place in homes or figure.is_file(), f"{path}: {target}"
        if anchor:
            assert anchor in anchors(tree()[homes[place]]), f"{path}: {target}"


@pytest.mark.parametrize("path", sorted(tree()))
def test_lists_and_tables_stand_apart(path):
    """GitHub takes them for what they are without an empty line before; MkDocs does not."""
    lines = FENCE.sub("\n", tree()[path]).splitlines()
    row = re.compile(r"(- |\d+\. |\|)")
    for before, line in zip(["", *lines], lines, strict=False):
        if row.match(line) and before.strip() and not before.startswith((" ", "<!--")):
            assert row.match(before), f"{path}: {line[:60]!r} after {before[:60]!r}"


def test_links_of_the_tree_become_those_of_the_site():
    relinked = pages().relinked
    assert relinked("[format.md](format.md) [c](data:x)", "docs/a.md") == (
        "[format](format.md) [c](data:x)"
    )
    met = []
    assert (
        relinked("[a](../zoo/spec.py)", "docs/api.md", met.append) == "[a](source/zoo/spec.py.md)"
    )
    assert met == ["zoo/spec.py"]
    assert (
        relinked("[docs/format.md](docs/format.md#rows)", "README.md") == "[format](format.md#rows)"
    )
    shown = "![x](data_cards/adrenal/figures/iou.png)"
    assert relinked(shown, "README.md") == "![x](zoos/adrenal/figures/iou.png)"
    reader = "[a](../model_cards/mnist-inrs-probe/README.md)"
    assert relinked(reader, "docs/learnt.md") == "[a](readers/mnist-inrs-probe.md)"
    inside = "```\n[a](docs/format.md)\n```\n"
    assert relinked(inside, "README.md") == inside
    assert relinked("[a](gone.md)", "README.md") == "[a](gone.md)"
    assert doctest.testmod(pages()).failed == 0
    assert slug("D2: the class, recipe dws; 11,000 for `training`") == (
        "d2-the-class-recipe-dws-11000-for-training"
    )


def test_the_notebook_becomes_a_page():
    cell = {"cell_type": "code", "source": ["1 + 1"], "outputs": [
        {"output_type": "execute_result", "data": {"text/plain": ["2"]}},
        {"output_type": "stream", "name": "stderr", "text": ["a warning"]},
        {"output_type": "display_data", "data": {"image/png": "QUJD\n", "text/plain": "<Figure>"}},
    ]}  # fmt: skip
    text = pages().notebook_page({"cells": [{"cell_type": "markdown", "source": ["# T"]}, cell]})
    assert text == (
        "# T\n\n```python\n1 + 1\n```\n\n```{.text .shown}\n2\n```\n\n"
        "![What the cell shows](data:image/png;base64,QUJD)\n"
    )


# ---- the build


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("no MkDocs here: make docs, or pip install '.[docs]'")
    out = tmp_path_factory.mktemp("site")
    words = ["-m", "mkdocs", "build", "--strict", "--config-file", ROOT / "mkdocs.yml"]
    found = subprocess.run(
        [sys.executable, *words, "--site-dir", out], cwd=ROOT, capture_output=True, text=True,
        timeout=400, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert "WARNING" not in found.stderr
    return out


def test_everything_that_the_site_shows_is_in_it(site):
    html = {path: path.read_text("utf-8") for path in site.rglob("*.html")}
    assert len(html) >= len(tree())
    ids = {path: set(re.findall(r'\bid="([^"]+)"', text)) for path, text in html.items()}
    checked = 0
    for path, text in html.items():
        if path.name == "404.html":
            continue  # its links are of the root of a server
        for target in re.findall(r'(?:href|src)="([^"]+)"', text):
            if re.match(r"[a-z]+:|//", target):
                continue
            file, _, anchor = unquote(target.partition("?")[0]).partition("#")
            there = Path(os.path.normpath(path.parent / file)) if file else path
            there = there / "index.html" if there.is_dir() else there
            assert there.is_file(), f"{path}: {target}"
            if anchor and there in ids:
                assert anchor in ids[there], f"{path}: {target}"
            checked += 1
        # Scripts, styles and pictures are the site's own; only text leads elsewhere.
        loaded = re.findall(
            r'<(?:script|img|link rel="stylesheet")[^>]*(?:src|href)="([^"]+)"', text
        )
        assert not [each for each in loaded if re.match(r"https?:|//", each)]
    assert checked > 1000


def test_the_reference_has_every_public_name(site):
    ids = set(re.findall(r'<h\d id="([^"]+)"', (site / "api" / "index.html").read_text("utf-8")))
    names = {f"{each.__name__}.{name}" for each in (zoo, processors) for name in each.__all__}
    assert names <= ids


@pytest.mark.skipif(browsers.path() is None, reason="no browser here: apt-get install chromium")
def test_no_page_is_wider_than_its_screen(site, tmp_path):
    """On a telephone and on a desk: tables and code scroll within the page, figures fit."""
    with browsers.browser(tmp_path) as tab:
        for width in (390, 1280):
            tab.size(width, 900)
            for page in ("", "results", "recipes", "learnt", "zoos/mnist-inrs"):
                tab.open((site / page / "index.html").as_uri())
                assert tab.run("document.documentElement.scrollWidth") <= width, (page, width)
                wide = "[...document.querySelectorAll('.md-typeset img')].map(e => e.clientWidth)"
                assert all(0 < each <= width for each in tab.run(wide))
