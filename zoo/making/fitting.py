"""The rows that are to be fitted, and the chunks of them that were.

Every maker of networks takes the one and gives the other, see `zoo.kinds`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

ATTEMPTS = 3  # a non-finite fit is tried afresh twice
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Rows:
    """Networks to be fitted, by their keys."""

    index: NDArray[np.int64]
    view: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, part: slice | NDArray[np.bool_]) -> "Rows":
        return Rows(self.index[part], self.view[part])

    def pairs(self) -> list[tuple[int, int]]:
        """(index, view) of each, in order."""
        return list(zip(self.index.tolist(), self.view.tolist(), strict=True))


@dataclass(frozen=True)
class Fitted:
    """A chunk of networks as they go to disk.

    Attributes:
        arrays: every column of the rows that are kept.
        excluded: (index, view, reason) of the others.
    """

    arrays: Arrays
    excluded: list[tuple[int, int, str]]


def split_params(params: NDArray[np.float32], tensors: Mapping[str, tuple[int, ...]]) -> Arrays:
    """`net param` as the named tensors of a shard, views of it."""
    named, start = {}, 0
    for name, shape in tensors.items():
        size = int(np.prod(shape))
        named[name] = params[:, start : start + size].reshape(len(params), *shape)
        start += size
    return named
