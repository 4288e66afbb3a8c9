"""Parametric solids, drawn from a seed: the digits of space."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import NDArray

from zoo import solids
from zoo.sources.base import Drawn, sha256_of

FACTS: dict[str, Any] = {
    "title": "Parametric solids of ten families",
    "license": "cc0-1.0",
    "url": "",
    "citation": "Drawn by wszoo",
}


@dataclass(frozen=True, eq=False)
class SolidSource(Drawn):
    """Solids of ten families in turn; see `load_solids`.

    Attributes:
        params: columns of `solids.PARAMETERS`.
        sha256: over shape and bytes of `params`.
    """

    name: str
    title: str
    license: str
    url: str
    citation: str
    params: Float64[np.ndarray, "item _"]
    sha256: str
    class_names: tuple[str, ...] = solids.FAMILIES

    @property
    def labels(self) -> Int64[np.ndarray, " item"]:
        """The family of each solid."""
        labels: NDArray[np.int64] = solids.columns(self.params)["label"].astype(np.int64)
        return labels

    def __len__(self) -> int:
        """Number of items."""
        return len(self.params)

    def items(self, chosen: Int64[np.ndarray, " item"]) -> Float64[np.ndarray, "item _"]:
        """Parameters of the chosen solids."""
        return self.params[chosen]

    def columns(self, chosen: Int64[np.ndarray, " item"]) -> dict[str, NDArray[Any]]:
        """Family and measures of the chosen solids."""
        return dict(solids.columns(self.params[chosen]))


def load_solids(count: int, seed: int) -> SolidSource:
    """So many solids, each drawn from (seed, its index), hence the same whatever `count`.

    Raises:
        ValueError: if count < 1.
    """
    if count < 1:
        raise ValueError(f"need at least one solid, got {count}")
    params = solids.draw(seed, np.arange(count, dtype=np.int64))
    return SolidSource(name="shapes", params=params, sha256=sha256_of(params), **FACTS)
