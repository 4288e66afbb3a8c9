"""Pages of the site that do not lie in docs/, made for MkDocs (`make docs`) from what does.

README.md is the home, CHANGELOG.md and CONTRIBUTING.md are pages, so is every card of a zoo or of
a reader with its figures, and the notebook with the outputs that it was committed with. A link to
a file that is none of these leads to a page that shows it. Nothing is written beside the site
itself.
"""

import json
import os
import posixpath
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# Files of the tree that are pages elsewhere than in docs/, by where they stand in the site.
HOMES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "LICENSE": "source/LICENSE.md",
    "docs/quickstart.ipynb": "quickstart.md",
}
# Folders of cards, with the section of the site and the folder that they stand in there.
SECTIONS = {"data_cards": ("Zoos", "zoos"), "model_cards": ("Trained already", "readers")}
CARDS = {
    folder: sorted(path.parent.name for path in (ROOT / folder).glob("*/README.md"))
    for folder in SECTIONS
}
_LINK = re.compile(r"\[((?:\\.|[^\[\]\\]|!\[[^\]]*\]\([^)]*\))*)\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^(```+).*?^\1$", re.MULTILINE | re.DOTALL)
_SOURCE = {".py": "python", ".toml": "toml", ".json": "json", ".sh": "bash"}


def home_of(path: str) -> str:
    """Where a file of the tree stands in the site.

    >>> home_of("docs/format.md"), home_of("README.md"), home_of("zoo/spec.py")
    ('format.md', 'index.md', 'source/zoo/spec.py.md')
    >>> home_of("data_cards/adrenal/figures/iou.png")
    'zoos/adrenal/figures/iou.png'
    """
    if path in HOMES:
        return HOMES[path]
    first, _, rest = path.partition("/")
    if first == "docs":
        return rest
    if first in SECTIONS:
        _, there = SECTIONS[first]
        named = f"{rest.removesuffix('/README.md')}.md" if rest.endswith(".md") else rest
        return f"{there}/{named}"
    return f"source/{path}.md"


def relinked(text: str, path: str, meet: Callable[[str], object] = lambda target: None) -> str:
    """The text of a page, with links to files of the tree as they are in the site.

    Args:
        path: of the page, inside the tree.
        meet: called with the path of every file that is linked to.
    """

    def link(found: re.Match[str]) -> str:
        words, target = found.groups()
        file, mark, anchor = target.partition("#")
        if not file or re.match(r"[a-z]+:", file):
            return found.group()
        there = posixpath.normpath(posixpath.join(posixpath.dirname(path), file))
        if not (ROOT / there).is_file():
            return found.group()  # which the strict build complains of
        meet(there)
        place = posixpath.relpath(home_of(there), posixpath.dirname(home_of(path)) or ".")
        # A page of the site has a name, not a path.
        named = words in (file, posixpath.basename(file)) and not place.startswith("source/")
        words = PurePosixPath(file).stem if named else words
        return f"[{words}]({place}{mark}{anchor})"

    parts, end = [], 0
    for fence in _FENCE.finditer(text):
        parts += [_LINK.sub(link, text[end : fence.start()]), fence.group()]
        end = fence.end()
    return "".join([*parts, _LINK.sub(link, text[end:])])


def without_header(text: str) -> str:
    """A card without the Hub's metadata."""
    return re.sub(r"\A---\n.*?\n---\n", "", text, count=1, flags=re.DOTALL)


def notebook_page(plain: dict[str, Any]) -> str:
    """A notebook as Markdown: text, code, and what the code showed."""
    parts = []
    for cell in plain["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                picture = "".join(data["image/png"]).replace("\n", "")
                parts.append(f"![What the cell shows](data:image/png;base64,{picture})")
            elif output.get("name") != "stderr":
                shown = "".join(output.get("text", data.get("text/plain", "")))
                parts.append(f"```{{.text .shown}}\n{shown.rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def api_page(text: str) -> str:
    """docs/api.md with mkdocstrings' view of every name that it lists, in the place of its own."""
    parts = ["# Python\n"]
    for title in re.findall(r"^##? ((?:zoo|processors)(?:\.\w+)?)$", text, re.MULTILINE):
        members = "" if "." in title else "\n    options: {members: false}"
        parts.append(f"::: {title}{members}\n")
    return "\n".join(parts)


def opened_details(text: str) -> str:
    """What is folded away is Markdown too."""
    return text.replace("<details>", '<details markdown="1">')


# ---- what MkDocs calls


def on_config(config: Any) -> Any:
    """Put the cards into the navigation, wherever it has a section for them."""
    cards = {
        title: [{name: f"{there}/{name}.md"} for name in CARDS[folder]]
        for folder, (title, there) in SECTIONS.items()
    }

    def fill(sections: list[dict[str, Any]]) -> None:
        for section in sections:
            for title, pages in section.items():
                if title in cards:
                    section[title] = cards[title]
                elif isinstance(pages, list):
                    fill(pages)

    fill(config.nav)
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that lie elsewhere, and pages of the files that pages link to."""
    from mkdocs.structure.files import File

    linked: set[str] = set()
    pages = {path: (ROOT / path).read_text("utf-8") for path in HOMES if path.endswith(".md")}
    pages |= {
        f"{folder}/{name}/README.md": without_header(
            (ROOT / folder / name / "README.md").read_text("utf-8")
        )
        for folder, names in CARDS.items()
        for name in names
    }
    notebook = "docs/quickstart.ipynb"
    pages[notebook] = notebook_page(json.loads((ROOT / notebook).read_text("utf-8")))
    for path, text in pages.items():
        content = relinked(text, path, linked.add)
        files.append(File.generated(config, home_of(path), content=content))
    for page in (ROOT / "docs").glob("*.md"):
        relinked(page.read_text("utf-8"), f"docs/{page.name}", linked.add)
    known = {os.path.relpath(file.abs_src_path, ROOT) for file in files if file.abs_src_path}
    for path in sorted(linked - known - pages.keys()):
        whole = ROOT / path
        if whole.suffix in (".png", ".svg"):
            files.append(File.generated(config, home_of(path), abs_src_path=str(whole)))
        else:
            kind = _SOURCE.get(whole.suffix, "text")
            content = f"# {path}\n\n````{kind}\n{whole.read_text('utf-8')}\n````\n"
            files.append(File.generated(config, home_of(path), content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links of pages in docs/ that lead out of it, and the names of the packages."""
    path = page.file.src_uri
    if path == "api.md":
        return api_page(markdown)
    if page.file.generated_by:
        return markdown
    return opened_details(relinked(markdown, f"docs/{path}"))
