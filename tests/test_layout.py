"""Imports go one way: cli -> processors -> zoo, and down the data flow within each."""

import ast
import re
import subprocess
import sys
import tomllib
from dataclasses import fields
from functools import cache
from pathlib import Path

import jaxtyping
import pytest
import torch

from processors.options import AUGMENTATIONS, LOSSES
from processors.settings import Settings
from zoo.kinds import KINDS
from zoo.recipes import RECIPES

ROOT = Path(__file__).parents[1]

# A module imports only from those before it.
ORDER = {
    "zoo": [
        *("machine", "stopping"),
        *("errors", "locks", "files", "passed", "fields"),
        *("philox", "pools", "voxels", "solidity", "surfaces"),
        *("schema", "spec", "recipes", "solids"),
        *("weights", "symmetry", "nets", "png", "shards", "identity"),
        *("where", "table", "storage", "succession"),
        "reader",
        *("hub.bounds", "hub.trust", "hub.client", "hub.arrival", "hub.pulling"),
        "hub.publication",
        *("hub.pushing", "hub"),
        *(
            "sources.splits",
            "sources.base",
            "sources.arrays",
            "sources.formats",
            "sources.pictures",
        ),
        "sources.published",
        *("sources.digits", "sources.folders", "sources.waves"),
        *("sources.solids", "sources.volumes", "sources"),
        *("engines", "engines.compiling", "engines.tiles", "engines.cpu", "engines.reference"),
        "engines.cuda",
        *("engines.dense", "engines.classifiers"),
        *("drawing", "figures", "reached", "making", "making.workers", "making.fitting"),
        *("kinds.checks", "kinds.looks", "kinds.base", "kinds.objectives", "kinds.training"),
        *("kinds.regression", "kinds.pictures", "kinds.waves", "kinds.shapes"),
        *("kinds.trained", "kinds"),
        *("stats", "fidelity", "cards", "writing", "compare", "page"),
        *("making.progress", "making.plan", "making.growth", "making.site"),
        *("making.trial", "making.merging"),
        *("making.chunks", "making.cluster", "making.builder"),
        *("writer", "own", "joining", "renewal"),
        "verification",
        *("importers.published", "importers.contents", "importers.files"),
        *("importers.states", "importers.labels", "importers.checking"),
        *("importers.dws", "importers.nfn", "importers.small_cnn_zoo"),
        *("importers.fit_a_nef", "importers.state_dicts", "importers"),
    ],
    "cli": [
        "output",
        "progress",
        "options",
        "listing",
        "plan",
        "fit",
        "hub",
        "importing",
        "joining",
        "inspect",
        "train",
        "ceiling",
        "campaign",
        "report",
        "main",
    ],
    "processors": [
        *("sizes", "own", "settings", "presets", "options", "records", "metrics", "config"),
        *("files", "progress", "saving", "first", "rows"),
        *(
            "base",
            "sines",
            "fourier",
            "matrices",
            "pool",
            "pointwise",
            "encode",
            "linear",
            "attention",
            "align",
            "matching",
        ),
        *("dws", "nfn", "monomial", "gates", "graded", "probe", "vae", "baselines", "models"),
        *("checkpoint", "cards", "runs"),
        *("tasks.figures", "tasks.corruptions", "tasks.task"),
        *("tasks.classify", "tasks.regress", "tasks.generalize", "tasks.ssl"),
        *("tasks.adapt", "tasks.edit", "tasks.tickets", "tasks"),
        *("evaluation", "train", "ceiling"),
        *("published", "results", "labels", "charts", "report", "reached"),
        *("ledger", "campaign", "reproduce", "minutes"),
    ],
}
# Packages that each one may use, itself aside.
USES = {"zoo": set(), "processors": {"zoo"}, "cli": {"zoo", "processors"}}
# What processors see of zoo: what users see, how many networks a zoo will have, and how the
# machine is used.
SEEN = {
    "zoo",
    "zoo.drawing",
    "zoo.engines.compiling",
    "zoo.fields",
    "zoo.files",
    "zoo.identity",
    "zoo.schema",
    "zoo.symmetry",
    "zoo.locks",
    "zoo.machine",
    "zoo.making.plan",
    "zoo.reached",
    "zoo.stopping",
}
# Where names are gathered or engines loaded by name: against the order, inside functions.
# A model's own `from_pretrained` loads any.
LATE = {"zoo", "zoo.engines", "processors", "processors.saving"}


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules(package: str) -> dict[str, str]:
    """Name and source of every module of a package."""
    files = sorted((ROOT / package).rglob("*.py"))
    return {module_name(file): file.read_text(encoding="utf-8") for file in files}


def imports(name: str, source: str, known: set[str]) -> set[str]:
    """Modules of ours that a source imports anywhere: in functions, for type checkers."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: imports are absolute"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in known else str(node.module))
    return {other for other in found if other.partition(".")[0] in USES}


def violations(sources: dict[str, str], order: dict[str, list[str]]) -> list[str]:
    """Imports that go the wrong way."""
    known = set(sources) | {f"{p}.{m}" for p, names in order.items() for m in names}
    wrong = []
    for name, source in sources.items():
        package = name.partition(".")[0]
        ranks = {f"{package}.{m}": rank for rank, m in enumerate(order.get(package, []))}
        for other in sorted(imports(name, source, known) - {name}):
            home = other.partition(".")[0]
            if home != package:
                bad = home not in USES[package]
                bad |= package == "processors" and other not in SEEN
            elif name in LATE or package not in order:
                bad = False
            else:
                bad = ranks.get(other, len(ranks)) >= ranks[name]
            if bad:
                wrong.append(f"{name} imports {other}")
    return wrong


def all_modules() -> dict[str, str]:
    return {name: text for package in USES for name, text in modules(package).items()}


def test_imports_go_one_way():
    assert violations(all_modules(), ORDER) == []


@pytest.mark.parametrize("package", ORDER)
def test_every_module_has_its_place(package):
    """A new module is entered into ORDER (and into the README's tree)."""
    found = {name.removeprefix(f"{package}.") for name in modules(package)} - {package}
    assert found == set(ORDER[package])


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("zoo.spec", "from zoo.weights import Weights"),
        ("zoo.spec", "from zoo import weights"),
        ("zoo.spec", "import zoo.weights"),
        ("zoo.spec", "def f():\n    from zoo import weights"),
        ("zoo.spec", "if TYPE_CHECKING:\n    from zoo.weights import Weights"),
        ("zoo.spec", "import zoo"),
        ("zoo.spec", "from zoo import Weights"),
        ("zoo.spec", "import processors"),
        ("zoo", "from cli import main"),
        ("zoo.engines.cpu", "from zoo.kinds.objectives import adam"),
        ("processors.base", "from zoo.nets import forward"),
        ("processors.base", "from zoo import nets"),
        ("processors.base", "import cli.main"),
        ("cli.options", "def f():\n    from cli.fit import fit_inrs"),
    ],
)
def test_the_check_sees_wrong_ways(name, source):
    assert len(violations({name: source}, ORDER)) == 1


def test_the_check_lets_right_ways_pass():
    assert violations({"zoo.weights": "import torch\nfrom zoo.spec import Layer"}, ORDER) == []
    assert violations({"processors.base": "import zoo\nfrom zoo import symmetry"}, ORDER) == []
    assert violations({"processors.runs": "from zoo import schema"}, ORDER) == []
    assert (
        violations({"cli.fit": "from zoo.making.builder import build\nimport processors"}, ORDER)
        == []
    )


# --- where kinds of zoos are told apart -----------------------------------------------------

# Rooms that may: the kinds, the sources, what these draw (solids), and the recipes, which are
# one dataclass a kind.
KIND_ROOMS = ("zoo.kinds", "zoo.sources", "zoo.solids", "zoo.recipes")
# What else has a `kind`, by the word that stands before it.
OTHER_KINDS = {"column", "layer", "given"}
# Variables in which columns of rows lie, by their last word.
COLUMN_HOLDERS = re.compile(r"(columns?|arrays|quality|summaries)\b[\])]*$")


def columns_of_kinds() -> dict[str, set[str]]:
    """Per kind of zoo the columns that its recipes give, asked of all that there are."""
    found: dict[str, set[str]] = {}
    for made in (make(source) for make in RECIPES.values() for source in ("digits", "shapes")):
        columns = made.columns(("one", "other"), storage="float16")
        found.setdefault(made.kind, set()).update(columns)
    return found


@cache
def told_columns() -> set[str]:
    """Columns that some kinds have and others have not: to name one is to mean these."""
    each = columns_of_kinds().values()
    return set.union(*each) - set.intersection(*each)


def own_words(package: str) -> set[str]:
    """Words that a package has for things of its own, which some columns are called too."""
    if package == "zoo":
        return set()
    # Of the training of a processor: settings, losses, augmentations; what its files record.
    settings = {field.name for field in fields(Settings)}
    return settings | {*AUGMENTATIONS, *LOSSES} | {"step", "epoch", "steps", "optimiser"}


def last_word(node: ast.AST) -> str:
    return next(reversed(re.findall(r"\w+", ast.unparse(node))), "")


def docstrings(tree: ast.AST) -> set[int]:
    """Constants that are text about code."""
    return {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def told_apart(source: str, package: str = "zoo") -> list[str]:
    """What in a source tells kinds of zoo apart, a few words each."""
    tree, found = ast.parse(source), []
    columns, own = told_columns(), own_words(package)
    passed, held = docstrings(tree), set()
    for node in ast.walk(tree):
        text = ast.unparse(node) if isinstance(node, ast.expr) else ""
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass"):
            if any(re.search(r"(Recipe|Source|Classified)$", word) for word in named(node.args[1])):
                found.append(text)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "type":
            found += [text] if last_word(node.args[0]) in ("recipe", "source") else []
        elif isinstance(node, ast.Attribute) and node.attr == "kind":
            if re.search(r"recipe$", ast.unparse(node.value)):
                found.append(text)
        elif isinstance(node, ast.Attribute) and last_word(node.value) == "row":
            found += [text] if node.attr in columns else []
        elif (key := key_of(node)) is not None:
            holder, name = key
            if name == "kind" and last_word(holder) not in OTHER_KINDS:
                found.append(text)
            if COLUMN_HOLDERS.search(ast.unparse(holder)):
                held.add(name)
        elif isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if any(last_word(side) == "coord_order" for side in sides):
                found += [text] if any(is_literal(side) for side in sides) else []
            if any(COLUMN_HOLDERS.search(ast.unparse(side)) for side in sides):
                held |= {each.value for side in sides for each in constants(side)}
        elif isinstance(node, ast.BinOp) and COLUMN_HOLDERS.search(text.rstrip(")")):
            held |= {each.value for each in constants(node.left)}
        if isinstance(node, ast.Subscript | ast.Match):
            asked = node.slice if isinstance(node, ast.Subscript) else node.subject
            if last_word(asked) == "coord_order":
                found.append(ast.unparse(asked))
    for each in constants(tree):
        ours = each.value in own and each.value not in held
        if each.value in columns and not ours and id(each) not in passed:
            found.append(repr(each.value))
    return found


def named(node: ast.AST) -> list[str]:
    """Last words of all names in an expression."""
    names = [n for n in ast.walk(node) if isinstance(n, ast.Name | ast.Attribute)]
    return [n.id if isinstance(n, ast.Name) else n.attr for n in names]


def constants(node: ast.AST) -> list[ast.Constant]:
    return [n for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)]


def is_literal(node: ast.AST) -> bool:
    try:
        ast.literal_eval(node)
    except ValueError:
        return False
    return True


def key_of(node: ast.AST) -> tuple[ast.AST, str] | None:
    """What is looked into, and the literal key: of `a["b"]`, `a.get("b")`, `a.column("b")`."""
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        return node.value, str(node.slice.value)
    called = node.func if isinstance(node, ast.Call) else None
    if not isinstance(called, ast.Attribute) or called.attr not in ("get", "column"):
        return None
    if not node.args or not isinstance(node.args[0], ast.Constant):
        return None
    return called if called.attr == "column" else called.value, str(node.args[0].value)


# Columns that are named elsewhere, and why. Importers are like sources: each reads one
# published format, which has columns of its own.
FORMATS = "zoo.importers"
NAMED = {
    # What callbacks of the first version read of a `Progress`.
    "zoo.making.progress": ["psnr_db", "test_accuracy"],
    # A task says once, as data, which columns it reads where the user chooses none.
    "processors.tasks.adapt": ["class_a", "class_b"],
    "processors.tasks.generalize": ["test_accuracy"],
    # An argument of the kernel.
    "zoo.engines.cuda": ["steps"],
    # A mix of points, not the measure of a solid.
    "zoo.pools": ["volume"],
    # An experiment's --option, as a user would give it, and fields of a recipe.
    "processors.reproduce": ["frequency", "fraction", "init_scale"],
}


def test_kinds_of_zoo_are_told_apart_in_their_room():
    wrong = {}
    for name, text in all_modules().items():
        if name.startswith(KIND_ROOMS):
            continue
        found = told_apart(text, name.partition(".")[0])
        if name == "zoo.spec":  # says what coord_order means
            assert found == ["self.coord_order"]
        elif name.startswith(FORMATS):
            found = [each for each in found if each.strip("'") not in told_columns()]
            wrong |= {name: found} if found else {}
        elif found != [repr(column) for column in NAMED.get(name, [])]:
            wrong[name] = found
    assert wrong == {}


def test_every_kind_is_asked_for_its_columns():
    assert set(columns_of_kinds()) == set(KINDS)
    assert {"psnr_db", "label", "amplitude", "class_a", "step", "epoch", "mse"} <= told_columns()


@pytest.mark.parametrize(
    "source",
    [
        "isinstance(recipe, ImageRecipe | SineRecipe)",
        "isinstance(source, (str, sources.SineSource))",
        "issubclass(made, recipes.ImageRecipe)",
        "made = {ImageRecipe: 1}[type(index.recipe)]",
        "if recipe.kind == 'image': pass",
        "index.recipe['kind'] == 'sine'",
        "index.recipe.get('kind')",
        "index.source['kind'] == 'sine'",
        "about.get('kind', '')",
        "spec.coord_order == 'x'",
        "self.spec.coord_order in ('xy', 'ij')",
        "spec.coord_order is None",
        "{'xy': 1, None: 2}[spec.coord_order]",
        "match spec.coord_order:\n    case 'x': pass",
        "'step' in index.columns",
        "row.columns['amplitude']",
        "captions = arrays['psnr_db']",
        "for column in ('psnr_db', 'sum'): pass",
        "row.amplitude",
    ],
)
def test_the_check_sees_kinds_told_apart(source):
    assert told_apart(source)


@pytest.mark.parametrize(
    "source",
    [
        "batch.columns['lr']",
        "zoo.column('step')",
        "'epoch' in zoo.columns",
        "{'step', 'epoch'} - set(zoo.columns)",
        "label = 'class_a'",
    ],
)
def test_the_check_sees_columns_in_processors(source):
    """Words that a run has too, such as its own steps, count where columns are asked."""
    assert told_apart(source, "processors")


@pytest.mark.parametrize(
    ("source", "package"),
    [
        ('"""Rows have psnr_db."""', "zoo"),
        ("column.kind == 'class'", "zoo"),
        ("layer['kind'] == 'conv'", "zoo"),
        ("kind_of(recipe).signals", "zoo"),
        ("isinstance(source, str)", "zoo"),
        ("replace(spec, coord_order='x')", "zoo"),
        ("arrays['index']", "zoo"),
        ("record['step'] > settings['lr']", "processors"),
    ],
)
def test_the_check_lets_other_things_pass(source, package):
    assert told_apart(source, package) == []


def test_names_of_zoo_are_only_written_out_for_type_checkers():
    """What `zoo/__init__.py` imports when it runs is nothing of ours."""
    tree = ast.parse((ROOT / "zoo" / "__init__.py").read_text(encoding="utf-8"))
    (guard,) = [node for node in tree.body if isinstance(node, ast.If)]
    assert ast.unparse(guard.test) == "TYPE_CHECKING"
    running = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert {node.module for node in running} == {"importlib", "typing"}


def test_every_name_of_zoo_is_there():
    import zoo

    for name in zoo.__all__:
        assert getattr(zoo, name) is not None
    with pytest.raises(AttributeError, match="module 'zoo' has no attribute 'fits'"):
        zoo.fits  # noqa: B018


# --- what reading must never do -----------------------------------------------------------

UNPICKLERS = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def unpickling(source: str) -> list[str]:
    """What in a source could read a pickle."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [str(node.module)]
        found += [f"imports {name}" for name in names if name.partition(".")[0] in UNPICKLERS]
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            # The weights_only unpickler makes tensors and containers and calls nothing.
            safe = "weights_only=True" in map(ast.unparse, node.keywords)
            found += [] if safe else ["torch.load"]
        if isinstance(node, ast.keyword) and ast.unparse(node) == "allow_pickle=True":
            found.append("allow_pickle")
    return found


def test_nothing_in_zoo_unpickles():
    found = {name: unpickling(text) for name, text in modules("zoo").items()}
    # CIFAR-10 comes as pickles: torchvision opens them once their MD5 is right. Published
    # .pth files go through torch's weights_only reader. Both name the error that an
    # unexpected pickle gives, nothing else.
    for name in ("zoo.sources.published", "zoo.importers.contents"):
        assert found.pop(name) == ["imports pickle"]
        uses = {
            ast.unparse(node)
            for node in ast.walk(ast.parse(modules("zoo")[name]))
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle"
        }
        assert uses == {"pickle.UnpicklingError"}
    assert not any(found.values()), found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "def f():\n    from pickle import loads",
        "import joblib.numpy_pickle",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "numpy.load(path, allow_pickle=True)",
    ],
)
def test_unpickling_is_seen(source):
    assert len(unpickling(source)) == 1


# --- how much a function takes ------------------------------------------------------------

MOST_ARGUMENTS = 8
# Public, for users who have all of it to say.
LONG = {"zoo.making.builder.build", "processors.train.fit_model"}
# Orchestration; what an engine or a model takes is what it computes with.
ORCHESTRATION = ("zoo.making.", "processors.", "cli.")


def too_long(name: str, source: str) -> list[str]:
    """Functions of a module that take more than they may; a model's `__init__` takes its sizes."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name != "__init__":
            given = node.args
            named = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
            count = len([each for each in named if each and each.arg not in ("self", "cls")])
            if count > MOST_ARGUMENTS:
                found.append(f"{name}.{node.name}")
    return found


def test_orchestration_has_short_lists_of_arguments():
    found = {
        function
        for name, source in all_modules().items()
        if name.startswith(ORCHESTRATION)
        for function in too_long(name, source)
    }
    assert found == LONG


def test_a_long_list_of_arguments_is_seen():
    eight = ", ".join("abcdefgh")
    assert too_long("m", f"def f({eight}): ...\nclass A:\n    def g(self, {eight}): ...") == []
    assert too_long("m", f"def f({eight}, *, i): ...") == ["m.f"]
    assert too_long("m", f"async def f({eight}, **i): ...") == ["m.f"]


# --- what is loaded when ------------------------------------------------------------------


@pytest.mark.parametrize("package", ["zoo", "cli.main"])
def test_importing_loads_nothing_heavy(package):
    script = f"import sys, {package}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert package.partition(".")[0] in loaded
    heavy = {
        *("torch", "numba", "datasets", "numpy", "pyarrow", "matplotlib", "torchvision"),
        *("cv2", "sklearn", "huggingface_hub", "einops", "safetensors"),
        *("ray", "fsspec", "s3fs", "botocore"),
    }
    assert loaded & heavy == set()


def test_models_load_neither_the_compiler_nor_what_one_of_them_needs():
    """Both take seconds, which every command that reads networks would wait for."""
    script = "import sys, processors.models, processors.train; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    loaded = set(done.stdout.split())
    assert "processors.baselines" in loaded
    assert loaded & {"torch._dynamo", "torch._inductor", "scipy.optimize", "sklearn"} == set()


@pytest.mark.parametrize("package", ["zoo", "processors"])
def test_names_are_completed_before_they_are_loaded(package):
    script = f"import {package} as p; print(*set(p.__all__) - set(dir(p)))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == []


def test_shapes_are_checked_while_tests_run():
    from zoo import nets

    spec = nets.NetworkSpec.mlp([2, 3, 1])
    with pytest.raises(jaxtyping.TypeCheckError, match="'item inp'"):
        nets.forward(spec, nets.Weights.unflatten(torch.zeros(1, 13), spec), torch.zeros(2))


def test_examples_of_all_packages_are_run():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]
    assert settings["ini_options"]["testpaths"] == ["tests", *USES]
    assert "--doctest-modules" in settings["ini_options"]["addopts"]


def test_the_package_tells_its_version_and_has_types():
    from importlib.metadata import version

    import zoo

    assert zoo.__version__ == version("wszoo")
    for package in USES:
        assert (ROOT / package / "py.typed").is_file()


WITHOUT = """
import importlib.metadata as metadata

known = metadata.version


def version(name):
    if name == "wszoo":
        raise metadata.PackageNotFoundError(name)
    return known(name)


metadata.version = version
import zoo
from cli.main import wszoo
from processors import config
from zoo.making.plan import package_versions

assert zoo.__version__ == "unknown"
assert {*config.versions_of(config._PACKAGES)} == {"torch", "accelerate", "numpy"}
assert "wszoo" not in package_versions() and "torch" in package_versions()
wszoo(["--version"])
"""


def test_sources_on_the_path_do_without_what_an_installation_tells():
    """On a GPU box that has no pip, every training ended with PackageNotFoundError."""
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, "wszoo unknown\n"), done.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda p: p.stem)
def test_benchmarks_import_the_packages_and_not_each_other(path):
    """Python looks in a script's own folder first, and one script has the name of a package."""
    lines = path.read_text("utf-8").splitlines()
    own = [
        number
        for number, line in enumerate(lines)
        if re.match(r"(from|import) (zoo|processors|cli)\b", line)
    ]
    left = [number for number, line in enumerate(lines) if line.startswith("sys.path[0] = ")]
    if any(re.match(r"(from|import) (processors|cli)\b", lines[number]) for number in own):
        assert left, f"{path.name} finds benchmarks/processors.py in the place of processors"
    assert not left or left[0] < own[0]
