"""What `zoo.verification` hands to a kind, and what comes back: one line a check."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from zoo.shards import Index, widen
from zoo.spec import NetworkSpec
from zoo.weights import Weights

Arrays: TypeAlias = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: `detail` says what was found, in one line."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Made:
    """A finished zoo with what it was made of.

    Attributes:
        rows: the shards of each split, mapped.
        source, goal: opened again.
        device: of a refit.
        exact: whether a refit must give the bytes again.
    """

    index: Index
    rows: Mapping[str, list[Arrays]]
    source: Any
    goal: Any
    device: str
    exact: bool

    def drawn(self, count: int, chosen: np.random.Generator) -> Arrays:
        """`count` random rows of all splits."""
        parts = [part for pieces in self.rows.values() for part in pieces]
        ends = np.cumsum([len(part["index"]) for part in parts])
        picked = np.sort(chosen.choice(ends[-1], min(count, int(ends[-1])), replace=False))
        places = np.searchsorted(ends, picked, side="right")
        found: Arrays = {}
        for name in parts[0]:
            values = [
                widen(parts[place][name][row - (ends[place - 1] if place else 0)][None])[0]
                for place, row in zip(places, picked, strict=True)
            ]
            found[name] = np.stack(values)
        return found


def weights_of(spec: NetworkSpec, arrays: Mapping[str, NDArray[Any]]) -> Weights:
    """The networks of rows."""
    return Weights.from_tensors({name: torch.from_numpy(arrays[name]) for name in spec.tensors})
