"""Aligns all networks of a training to one reference, once, before the first update.

The permutations that were found are kept beside the run's checkpoint, so that matching
goes on where it was stopped.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from processors import align
from processors.files import set_aside, write_bytes
from processors.progress import Progress, Workplace
from processors.rows import Rows
from processors.saving import read_state
from zoo import NetworkSpec, Weights, ZooError, schema, stopping, symmetry

FILE = "matched.safetensors"
# Between writes of what was found.
SAVE_SECONDS = 60.0
# Networks whose mean others are matched to; also those that are matched at a time.
SAMPLE = 1000


def align_splits(data: Mapping[str, Rows], place: Workplace) -> Mapping[str, Tensor]:
    """Align all splits to a mean of training networks.

    Returns:
        The statistics of the aligned training networks, and "reference", `1 param`.
    """
    return _Matching(data, place).run()


class _Matching:
    """The permutations of every split, int32, by "SPLIT.LAYER", and the reference."""

    def __init__(self, data: Mapping[str, Rows], place: Workplace):
        self.data, self.place = data, place
        self.spec: NetworkSpec = data["train"].zoo.spec
        self.path: Path = place.folder / FILE
        self.known: dict[str, Any] = self._found_before()
        self.total, self.saved = sum(map(len, data.values())), time.perf_counter()

    def run(self) -> Mapping[str, Tensor]:
        self._tell(0)
        if "reference" not in self.known:
            self.known["reference"] = self._reference()
            self._keep()
        before = 0
        for split, rows in self.data.items():
            rows.permute(self._element(split, rows, before))
            before += len(rows)
        self._keep()
        return {**self.data["train"].stats(), "reference": self.known["reference"]}

    def _found_before(self) -> dict[str, Any]:
        """What an earlier call has kept, if it is whole; else that is set aside."""
        found, wrong = {}, None
        if self.path.exists():
            try:
                found = self._read()
            except ZooError as error:
                wrong = str(error)
        if wrong := self.place.shared(wrong):
            if self.place.main:
                aside = set_aside(self.path)
                self.place.tell(f"{wrong}; it is now {aside}, and matching begins again")
            return {}
        return found

    def _read(self) -> dict[str, Any]:
        """What an earlier call has kept.

        Raises:
            ZooError: if it is damaged.
        """
        found = read_state(self.path, None)
        widths = self.spec.widths[1:-1]
        hidden = {f"{s}.{n}": width for s in self.data for n, width in enumerate(widths)}
        for name, tensor in found.items():
            if name == "reference":
                sound = tensor.dtype == torch.float32 and tensor.shape == (1, self.spec.param_count)
            else:
                rows = len(self.data[name.partition(".")[0]]) if name in hidden else -1
                sound = (
                    tensor.dtype == torch.int32
                    and tensor.ndim == 2
                    and tensor.shape[1] == hidden.get(name)
                    and len(tensor) <= rows
                    and bool((tensor.sort(dim=1).values == torch.arange(tensor.shape[1])).all())
                )
            if not sound:
                raise ZooError(f"{schema.safe(self.path)} is damaged: {schema.shown(name)}")
        if found and "reference" not in found:
            raise ZooError(f"{schema.safe(self.path)} is damaged: it has no reference")
        return found

    def _reference(self) -> Tensor:
        rows = self.data["train"]
        generator = torch.Generator().manual_seed(self.place.seed)
        order = torch.randperm(min(SAMPLE, len(rows)), generator=generator)
        return align.mean_reference(self.spec, rows.batch(order)[0].to("cpu")).flatten()

    def _element(self, split: str, rows: Rows, before: int) -> symmetry.Element:
        """What aligns the networks of a split, after so many of the splits before it."""
        names = {f"{split}.{n}": width for n, width in enumerate(self.spec.widths[1:-1])}
        for name, width in names.items():
            self.known.setdefault(name, torch.empty(0, width, dtype=torch.int32))
        reference = Weights.unflatten(self.known["reference"], self.spec)
        start = min((len(self.known[name]) for name in names), default=len(rows))
        for part in torch.arange(start, len(rows)).split(SAMPLE):
            stopping.check()
            found = align.match(self.spec, rows.batch(part)[0], reference).permutations
            for name, order in zip(names, found, strict=True):
                self.known[name] = torch.cat([self.known[name], order.int()])
            if time.perf_counter() - self.saved > SAVE_SECONDS:
                self._keep()
            self._tell(before + int(part[-1]) + 1)
        return symmetry.Element.permuting(self.known[name].long() for name in names)

    def _keep(self) -> None:
        if self.place.main:
            write_bytes(self.path, save(self.known))
        self.saved = time.perf_counter()

    def _tell(self, done: int) -> None:
        if self.place.progress is not None and self.place.main:
            self.place.progress(
                Progress("matching", done, self.total, None, "", None, unit="network")
            )
