"""Parts of users' own by their import path: models, tasks and augmentations.

    own.give(Reader)                       # "package.module:Reader", to be found from now on
    own.allow("package.module:Reader")     # imports it: runs the module's code
    own.find("package.module:Reader")      # only what was given or allowed before

A run's files name such parts. Nothing is imported because a file says so: the path has to
be given or allowed by whoever runs the program.
"""

import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from zoo import schema

_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.<>]*", re.ASCII)
_given: dict[str, Any] = {}


def is_own(name: str) -> bool:
    """Whether a name is an import path and not one of wszoo's.

    >>> is_own("package.module:Reader"), is_own("nfn-np")
    (True, False)
    """
    return _PATH.fullmatch(name) is not None


class NotGiven(ValueError):
    """Code that is not wszoo's and was neither given nor allowed."""


def give(part: Any, path: str | None = None) -> str:
    """Have a class or function found by its import path, or by another one; which is returned.

    Raises:
        ValueError: if it has no name, such as a `functools.partial`.
    """
    module, name = getattr(part, "__module__", None), getattr(part, "__qualname__", None)
    path = path or f"{module}:{name}"
    if not module or not name or not is_own(path):
        raise ValueError(
            f"expected a class or function with a name of its own, got {schema.shown(part)}; "
            "wrap it in one"
        )
    _given[path] = part
    return path


def allow(path: str) -> Any:
    """Import a part, which runs the code of its module; the working directory counts.

    Raises:
        ValueError: if there is no such module, or nothing of that name in it.
    """
    if path in _given:
        return _given[path]
    module, _, name = path.partition(":")
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    try:
        found: Any = import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{path}: there is no module {error.name!r}; it is looked for where Python does, and "
            f"in {here}"
        ) from error
    except Exception as error:
        line = schema.safe(" ".join(str(error).split()), 300)
        raise ValueError(f"{path}: {module} fails with {type(error).__name__}: {line}") from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{path}: module {module} has no {part!r}")
        found = getattr(found, part)
    _given[path] = found
    return found


def find(path: str) -> Any:
    """A part that was given or allowed before.

    Raises:
        NotGiven: for any other, which is not imported.
    """
    if path not in _given:
        raise NotGiven(
            f"{schema.safe(path, 200)} is code that is not wszoo's, and is run only when you say "
            "so: --trust (trust=True in Python), or give the class itself"
        )
    return _given[path]
