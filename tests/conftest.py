"""Settings of every test: annotations are checked, one thread, no network, caches apart."""

import atexit
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook
from local_hub import Client, Hub

# A suite in the background of a shell inherits that Ctrl-C is ignored, and so would the
# commands that tests stop by it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Before anything that reads them is imported; worker processes inherit them.
_caches = tempfile.mkdtemp(prefix="wszoo-tests-")
atexit.register(shutil.rmtree, _caches, ignore_errors=True)
os.environ["HF_HOME"] = _caches
os.environ["HF_HUB_OFFLINE"] = "1"
for _name in ("HF_DATASETS_CACHE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
    os.environ.pop(_name, None)

# Processes that tests start have threads for all cores, and so have those of other workers
# beside them: what waits must not spin.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# The same tests run the CUDA engine's kernel on a GPU or, where there is none, in Triton's
# interpreter, which Triton reads when it is imported.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

_ROOT = Path(__file__).parents[1]
_UNCHECKED = {
    # A package takes its modules with it, so these are left to their modules.
    *("zoo", "zoo.engines", "zoo.sources", "processors"),
    # Numba compiles its functions as they are written, so nothing may wrap them.
    *("zoo.engines.tiles", "zoo.engines.dense", "zoo.engines.compiling"),
    *("processors.sines", "processors.gates"),
    # So does Triton.
    "zoo.engines.cuda",
    # They read what others wrote and refuse wrong types by themselves, which is tested.
    *("zoo.recipes", "zoo.schema", "zoo.shards", "zoo.spec", "zoo.machine"),
    # The same; and it resizes an array in place, whose shape is then another on return.
    "zoo.sources.pictures",
}


def _modules(package: str) -> list[str]:
    files = (_ROOT / package).rglob("*.py")
    names = (".".join(file.relative_to(_ROOT).with_suffix("").parts) for file in files)
    return [name.removesuffix(".__init__") for name in names]


# As for mypy, an int will do for a float.
check = beartype(conf=BeartypeConf(is_pep484_tower=True))

_checked = {name for package in ("zoo", "processors") for name in _modules(package)}
install_import_hook(sorted(_checked - _UNCHECKED), f"{__name__}.check")


# The tests share few cores. Here too, for fixtures that last longer than a test: sums depend
# on the number of threads.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def one_thread():
    """Engines that set torch's threads do not last."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits_zoo(tmp_path_factory) -> Path:
    """80 tiny INRs of digits, hardly fitted."""
    return _made(
        tmp_path_factory, "digits", "fit-inrs", "digits", "--limit", 80, "--steps", 30,
        "--hidden", 6, "--shard-rows", 25,
    )  # fmt: skip


@pytest.fixture(scope="session")
def waves_zoo(tmp_path_factory) -> Path:
    """120 tiny INRs of sine waves, with amplitude and frequency."""
    return _made(
        tmp_path_factory, "waves", "fit-inrs", "sine", "--recipe", "sine-ssl", "--limit", 120,
        "--steps", 100, "--points", 100, "--hidden", 6,
    )  # fmt: skip


@pytest.fixture(scope="session")
def trajectories_zoo(tmp_path_factory) -> Path:
    """Checkpoints of 16 tiny classifiers of digits."""
    return _made(
        tmp_path_factory, "trajectories", "fit-trajectories", "digits", "--limit", 16,
        "--hidden", 8, "--layers", 3, "--batch", 256, "--epochs", 4,
    )  # fmt: skip


def _made(homes: pytest.TempPathFactory, name: str, *words: object) -> Path:
    from helpers import run

    out = homes.mktemp("zoos") / name
    result = run(*words, "--out", out)
    assert result.exit_code == 0, result.output
    return out


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("WSZOO_DATA"):
        return
    skip = pytest.mark.skip(reason="needs real images: set WSZOO_DATA to a folder with MNIST")
    for item in items:
        if item.get_closest_marker("real"):
            item.add_marker(skip)


@pytest.fixture(scope="module")
def shared_hub() -> Iterator[Hub]:
    """A Hub that the tests of a module share."""
    with Hub() as running:
        yield running


@pytest.fixture
def hub(shared_hub) -> Hub:
    """The module's Hub without the faults and requests of the test before."""
    shared_hub.heal()
    shared_hub.seen.clear()
    return shared_hub


@pytest.fixture(scope="module")
def client(shared_hub, tmp_path_factory) -> Iterator[Client]:
    """A process that runs commands against the module's Hub."""
    with shared_hub.client(tmp_path_factory.mktemp("home")) as process:
        yield process


@pytest.fixture(scope="session")
def digits():
    """scikit-learn's digits, a source."""
    from zoo import sources

    return sources.load_images("digits")


@pytest.fixture(scope="session")
def quick():
    """A recipe that fits digits in no time."""
    from zoo.recipes import ImageRecipe, recipe

    chosen = recipe("dws", "digits", steps=6, hidden=8)
    assert isinstance(chosen, ImageRecipe)
    return chosen
