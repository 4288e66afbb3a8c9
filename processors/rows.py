"""Gathers the networks of a split, batch by batch, on the device that trains.

Small zoos are held on the device whole; of others each batch is copied from the mapped
shards by a thread, one batch ahead of the model.

    rows = Rows(zoo.open_zoo("zoos/mnist-inrs", "train"), device="cuda")
    for weights, columns in rows.stream(orders(len(rows), batch=512, seed=0)):
        ...
"""

from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from processors.settings import SEEDS, steps_per_epoch
from zoo import Moments, Weights, Zoo, normalisation, stopping, symmetry

Batch: TypeAlias = tuple[Weights, dict[str, Tensor]]
# Of a split that is held on the device whole.
HELD_BYTES = 2e9


class Rows:
    """The first networks of a split, gathered by number.

    Args:
        device: where batches are wanted.
        limit: how many networks, the first; None for all.

    Attributes:
        zoo: the split.
        device: of the batches.
        data_root: where the zoo's source lies, if a task has to open it; None for the default.

    Raises:
        ValueError: if `limit` is not positive.
    """

    def __init__(
        self, zoo: Zoo, device: torch.device | str = "cpu", limit: int | None = None
    ) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"expected a limit of at least 1 network, got {limit}")
        self.zoo, self.device = zoo, torch.device(device)
        self.data_root: str | Path | None = None
        self._count = self._total() if limit is None else min(limit, self._total())
        self._held: Batch | None = None
        self._element: symmetry.Element | None = None
        if 4 * zoo.spec.param_count * self._count <= HELD_BYTES:
            self._held = self._gather(torch.arange(self._count))

    def _total(self) -> int:
        return len(self.zoo)

    def __len__(self) -> int:
        return self._count

    def column(self, name: str) -> Tensor:
        """One column of these rows, on the CPU; integers, or float32."""
        values = torch.from_numpy(self.zoo.column(name)[: self._count])
        return values.float() if values.is_floating_point() else values

    def permute(self, element: symmetry.Element) -> None:
        """Give every network as it is after `element` has acted, which has one for each row.

        It may have factors and phases too. Networks that are not held are changed batch by
        batch.
        """
        if self._held is not None:
            weights, columns = self._held
            self._held = symmetry.apply(element, weights, self.zoo.spec), columns
        elif self._element is None:
            self._element = element
        else:
            self._element = symmetry.compose(element, self._element)

    def stats(self) -> Mapping[str, Tensor]:
        """What `zoo.Zoo.stats` gives, of these rows as they are now."""
        moments = {name: Moments() for name in self.zoo.spec.tensors}
        for weights, _ in self.batches(1024):
            for name, tensor in weights.tensors().items():
                shape = self.zoo.spec.tensors[name]
                moments[name].add(tensor.cpu().numpy().reshape(-1, *shape))
        return {name: torch.from_numpy(value) for name, value in normalisation(moments).items()}

    def batch(self, rows: Tensor) -> Batch:
        """The networks of these row numbers, int64, and their columns, on the device."""
        if self._held is None:
            weights, columns = self._gather(rows)
            if self._element is not None:
                weights = symmetry.apply(self._element[rows], weights, self.zoo.spec)
            return weights, columns
        weights, columns = self._held
        chosen = rows.to(weights.device, non_blocking=True)
        return weights[chosen], {name: values[chosen] for name, values in columns.items()}

    def _gather(self, rows: Tensor) -> Batch:
        weights, columns = self.zoo.batch(rows)
        if self.device.type == "cuda":
            weights = weights.map(Tensor.pin_memory)
        return (
            weights.to(self.device, non_blocking=True),
            {name: values.to(self.device) for name, values in columns.items()},
        )

    def batches(self, size: int) -> Iterator[Batch]:
        """Every row once, in order; the last batch may be smaller."""
        return self.stream(torch.arange(len(self)).split(size))

    def stream(self, orders: Iterable[Tensor]) -> Generator[Batch, None, None]:
        """One batch for each tensor of row numbers, gathered one batch ahead."""
        if self._held is not None:
            for rows in orders:
                stopping.check()
                yield self.batch(rows)
            return
        pending = iter(orders)
        with ThreadPoolExecutor(1, thread_name_prefix="wszoo-rows") as pool:
            ahead = [pool.submit(self.batch, rows) for rows in islice(pending, 1)]
            while ahead:
                stopping.check()
                ready = ahead.pop()
                found = ready.result()
                ahead += [pool.submit(self.batch, rows) for rows in islice(pending, 1)]
                yield found


def mixed(seed: int, number: int) -> int:
    """A seed of its own for every number and seed.

    32 bits, as torch's generator on the CPU silently drops the others. Numbers of one seed
    are far from those of another (Knuth's multiplicative hashing).
    """
    return (seed * 2_654_435_761 + number) % SEEDS


def batch_rows(rows: int, batch: int, step: int) -> int:
    """How many rows batch `step` has, over all processes.

    >>> [batch_rows(10, 4, step) for step in range(3)]
    [5, 5, 5]
    >>> [batch_rows(11, 4, step) for step in range(3)]
    [4, 4, 3]
    """
    length = steps_per_epoch(rows, batch)
    return rows // length + (step % length < rows % length)


def orders(
    rows: int, batch: int, seed: int, start: int = 0, rank: int = 0, world: int = 1
) -> Iterator[Tensor]:
    """Row numbers of batch `start`, `start + 1`, ..., without end.

    Every epoch is a permutation of its own, which depends on the seed and its number
    alone, cut into batches whose sizes differ by one at most, so that no row is left out.

    Args:
        rank, world: of this process and of all; each takes every world-th row of a batch.
    """
    length = steps_per_epoch(rows, batch)
    for epoch in count(start // length):
        generator = torch.Generator().manual_seed(mixed(seed, epoch))
        order = torch.randperm(rows, generator=generator)
        skipped = start % length if epoch == start // length else 0
        for chosen in order.tensor_split(length)[skipped:]:
            yield chosen[rank::world]
