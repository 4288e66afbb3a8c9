"""Names of other libraries that they call private, each with what to do when it goes.

Nobody promises to keep them, so pyproject.toml has an upper bound for each library, and a new
one is seen here first: raise the bound once this file passes with the new version.
"""

import ast
import importlib
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("zoo", "processors", "cli")

# Distribution, module, name, and what to do without it.
PRIVATE = [
    ("torch", "torch", "_softmax_backward_data",
     "processors/attention.py: differentiate the softmax by its formula, in one more product"),
    ("torch", "torch", "Tensor._is_view",
     "processors/pointwise.py, linear.py: never overwrite, which costs NFN a copy a layer"),
    ("torch", "torch._C", "_are_functorch_transforms_active",
     "processors/base.py: take the plain operations always; slower"),
    ("accelerate", "accelerate.state", "AcceleratorState._reset_state",
     "processors/train.py: one process can then train with one precision only; start another"),
    ("datasets", "datasets.features.features", "_ArrayXDExtensionType",
     "zoo/table.py: tell the type by its storage, a list of lists"),
    ("datasets", "datasets.table", "MemoryMappedTable._apply_replays",
     "zoo/table.py: replay the calls by hand, each is a method of pyarrow.Table"),
    ("huggingface_hub", "huggingface_hub", "CommitOperationAdd._should_ignore",
     "zoo/hub/pushing.py: ask the Hub's preupload answer, or let the commit be refused"),
    ("huggingface_hub", "huggingface_hub.utils._http", "_GLOBAL_CLIENT_FACTORY",
     "zoo/hub/bounds.py: set_client_factory is public; the factory that was there is then lost"),
    ("numba", "numba.core.dispatcher", "Dispatcher._cache",
     "zoo/engines/compiling.py: set NUMBA_CACHE_DIR before numba is imported"),
    ("", "concurrent.futures.process", "ProcessPoolExecutor._processes",
     "zoo/making/workers.py: start the processes by multiprocessing and keep them"),
]  # fmt: skip
# Attributes that only look foreign: given to objects by their __init__, or by a contract.
KNOWN = {"_C", "_asdict", "_exit", "_replace", "_fields"}


def foreign(sources: dict[str, str]) -> dict[str, str]:
    """Attributes with one leading underscore that nothing in these sources defines."""
    ours: set[str] = set()
    used: dict[str, str] = {}
    for name, text in sources.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
                ours.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                ours.add(node.id)
            elif isinstance(node, ast.Attribute) and node.attr.startswith("_"):
                mine = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
                if mine:
                    ours.add(node.attr)
                elif not node.attr.startswith("__"):
                    used[node.attr] = f"{name}:{node.lineno}"
            elif isinstance(node, ast.ImportFrom) and not str(node.module).startswith(PACKAGES):
                for alias in node.names:
                    if alias.name.startswith("_") and not alias.name.startswith("__"):
                        used[alias.name] = f"{name}:{node.lineno}"
    return {attr: where for attr, where in used.items() if attr not in ours | KNOWN}


def test_every_private_name_is_listed():
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    found = foreign({str(p.relative_to(ROOT)): p.read_text(encoding="utf-8") for p in files})
    listed = {name.rpartition(".")[2] for _, _, name, _ in PRIVATE} | {"_http"}
    assert {name: where for name, where in found.items() if name not in listed} == {}


def test_a_new_one_is_seen():
    assert foreign({"a": "import x\nx.y._z()"}) == {"_z": "a:2"}
    assert foreign({"a": "from x.y import _z"}) == {"_z": "a:1"}
    assert foreign({"a": "def _z(): ...", "b": "import a\na._z()"}) == {}


@pytest.mark.parametrize(("library", "module", "name", "instead"), PRIVATE)
def test_a_private_name_is_still_there(library, module, name, instead):
    found = importlib.import_module(module)
    first, _, rest = name.partition(".")
    assert hasattr(found, first), f"{module}.{name} is gone; {instead}"
    if rest:
        kind = getattr(found, first)
        # Of instances where the class does not have it.
        text = ast.unparse(ast.parse(Path(importlib.import_module(module).__file__).read_text()))
        assert hasattr(kind, rest) or rest in vars(kind).get("__annotations__", {}) or (
            f"self.{rest} =" in text or f"self.{rest}:" in text
        ), f"{module}.{name} is gone; {instead}"  # fmt: skip


@pytest.mark.parametrize("library", sorted({library for library, *_ in PRIVATE if library}))
def test_the_library_has_an_upper_bound(library):
    plain = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (line,) = [each for each in plain if each.startswith(f"{library}>")]
    assert ",<" in line
