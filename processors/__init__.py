"""Networks that process networks: equivariant layers, the papers' models, baselines.

    model = processors.build("dws", spec, out=10, stats=z.stats())
    model(weights)                                   # `Weights` -> net out
    processors.build("nfn-np", spec, out=None)       # an editor, `Weights` -> `Weights`
    model.save_pretrained("model")
    processors.load("model")

    processors.fit_model("classify", "dws", "zoos/mnist-inrs", "runs/dws")
    processors.evaluate("runs/dws", "zoos/mnist-inrs")

Names are loaded when first used, so that importing `processors` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from processors import align, base, report
    from processors.attention import DeepSets, SetAttention, TwoSet
    from processors.baselines import MLP, AlignedMLP, AugmentedMLP, INR2Vec, StatNN, Transformer
    from processors.dws import DWSLayer, DWSNet
    from processors.encode import (
        EntryDropout,
        FourierFeatures,
        GaussianNoise,
        IOEncoding,
        LearnedEncoding,
        MovePicture,
        Normalise,
        RandomSymmetry,
        drop_channel,
        lift,
        move_picture,
    )
    from processors.evaluation import evaluate
    from processors.linear import EquivariantLinear
    from processors.models import MODELS, Processor, build, load
    from processors.monomial import DegreeZero, MonomialLayers, MonomialNFN
    from processors.nfn import NFN
    from processors.options import Options
    from processors.pointwise import Activation, BatchNorm, ChannelDropout, ChannelMixing, Dropout
    from processors.pool import InvariantPool
    from processors.rows import Rows
    from processors.settings import Settings
    from processors.tasks import TASKS, Task
    from processors.train import fit_model

_HOMES = {
    "Options": "processors.options",
    "Rows": "processors.rows",
    "Settings": "processors.settings",
    "TASKS": "processors.tasks",
    "Task": "processors.tasks",
    "MLP": "processors.baselines",
    "MODELS": "processors.models",
    "NFN": "processors.nfn",
    "Activation": "processors.pointwise",
    "AlignedMLP": "processors.baselines",
    "AugmentedMLP": "processors.baselines",
    "BatchNorm": "processors.pointwise",
    "ChannelDropout": "processors.pointwise",
    "ChannelMixing": "processors.pointwise",
    "DWSLayer": "processors.dws",
    "DWSNet": "processors.dws",
    "DeepSets": "processors.attention",
    "DegreeZero": "processors.monomial",
    "Dropout": "processors.pointwise",
    "EntryDropout": "processors.encode",
    "EquivariantLinear": "processors.linear",
    "FourierFeatures": "processors.encode",
    "GaussianNoise": "processors.encode",
    "INR2Vec": "processors.baselines",
    "IOEncoding": "processors.encode",
    "InvariantPool": "processors.pool",
    "LearnedEncoding": "processors.encode",
    "MonomialLayers": "processors.monomial",
    "MonomialNFN": "processors.monomial",
    "MovePicture": "processors.encode",
    "Normalise": "processors.encode",
    "Processor": "processors.models",
    "RandomSymmetry": "processors.encode",
    "SetAttention": "processors.attention",
    "StatNN": "processors.baselines",
    "Transformer": "processors.baselines",
    "TwoSet": "processors.attention",
    "build": "processors.models",
    "evaluate": "processors.evaluation",
    "fit_model": "processors.train",
    "drop_channel": "processors.encode",
    "lift": "processors.encode",
    "load": "processors.models",
    "move_picture": "processors.encode",
}
_MODULES = ("align", "base", "report")

__all__ = [*_HOMES, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"processors.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'processors' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Also what is not loaded yet, for completion."""
    return sorted({*globals(), *__all__})
