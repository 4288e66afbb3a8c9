"""Datasets of neural networks: fit many at once, keep them well, read them fast.

    zoo.build("dws", "mnist", "zoos/mnist-inrs")     # make one
    z = zoo.open_zoo("zoos/mnist-inrs", "train")     # read one; "user/name" is one on the Hub
    z[7].render(), z[7].to_module(), z.batch([1, 2, 3])
    zoo.fit(inputs, targets)                         # networks for tensors of your own

Names are loaded when first used, so that importing `zoo` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and mypy; at run time __getattr__ does it
    from zoo import symmetry
    from zoo.compare import original, source_of
    from zoo.errors import ZooError
    from zoo.hub import fetch_model, locate, open_zoo, pull, push
    from zoo.importers import import_zoo
    from zoo.joining import concat, select
    from zoo.machine import set_threads
    from zoo.making.builder import build, build_on_cluster
    from zoo.making.cluster import Cluster
    from zoo.making.merging import merge
    from zoo.making.progress import Progress
    from zoo.nets import (
        activations,
        coordinates,
        field,
        forward,
        from_field,
        render,
        space,
        to_module,
    )
    from zoo.own import Networks, fit
    from zoo.reader import Row, Zoo, collate
    from zoo.recipes import ImageRecipe, SineRecipe, fitted_by, recipe
    from zoo.renewal import renew
    from zoo.shards import Column, replacing
    from zoo.sources import split_items
    from zoo.spec import Layer, NetworkSpec
    from zoo.stats import Moments, normalisation
    from zoo.symmetry import absorb, canonical
    from zoo.verification import verify
    from zoo.weights import Weights
    from zoo.writer import Writer

_HOMES = {
    "Cluster": "zoo.making.cluster",
    "Column": "zoo.shards",
    "ImageRecipe": "zoo.recipes",
    "Layer": "zoo.spec",
    "Moments": "zoo.stats",
    "NetworkSpec": "zoo.spec",
    "Networks": "zoo.own",
    "Progress": "zoo.making.progress",
    "Row": "zoo.reader",
    "SineRecipe": "zoo.recipes",
    "Weights": "zoo.weights",
    "Writer": "zoo.writer",
    "Zoo": "zoo.reader",
    "ZooError": "zoo.errors",
    "absorb": "zoo.symmetry",
    "activations": "zoo.nets",
    "build": "zoo.making.builder",
    "build_on_cluster": "zoo.making.builder",
    "canonical": "zoo.symmetry",
    "concat": "zoo.joining",
    "collate": "zoo.reader",
    "coordinates": "zoo.nets",
    "fetch_model": "zoo.hub",
    "fit": "zoo.own",
    "fitted_by": "zoo.recipes",
    "field": "zoo.nets",
    "forward": "zoo.nets",
    "from_field": "zoo.nets",
    "import_zoo": "zoo.importers",
    "locate": "zoo.hub",
    "merge": "zoo.making.merging",
    "normalisation": "zoo.stats",
    "open_zoo": "zoo.hub",
    "original": "zoo.compare",
    "pull": "zoo.hub",
    "push": "zoo.hub",
    "recipe": "zoo.recipes",
    "render": "zoo.nets",
    "replacing": "zoo.shards",
    "set_threads": "zoo.machine",
    "renew": "zoo.renewal",
    "select": "zoo.joining",
    "source_of": "zoo.compare",
    "space": "zoo.nets",
    "split_items": "zoo.sources",
    "symmetry": "zoo",
    "to_module": "zoo.nets",
    "verify": "zoo.verification",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("wszoo")
        except PackageNotFoundError:  # a folder of sources on the path
            return "unknown"
    if name not in _HOMES:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    if name == "symmetry":
        return import_module("zoo.symmetry")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Also what is not loaded yet, for completion."""
    return sorted({*globals(), *__all__})
