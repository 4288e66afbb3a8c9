"""Shows the examples of docstrings as Python sessions: for mkdocstrings, which reads Markdown.

In the docstrings they stand bare, as doctest and editors have them.
"""

import re
from typing import Any

import griffe

# From a first >>> to the next empty line, however far it is indented.
_EXAMPLE = re.compile(r"^( *)>>> .*?(?=\n *\n|\Z)", re.MULTILINE | re.DOTALL)


def fenced(text: str) -> str:
    """The text of a docstring, each example within a fence."""
    return _EXAMPLE.sub(lambda f: f"{f[1]}```pycon\n{f[0]}\n{f[1]}```", text)


class Examples(griffe.Extension):
    """Fences the examples of every object."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Change the docstring of an object that was read."""
        if obj.docstring:
            obj.docstring.value = fenced(obj.docstring.value)
