"""What a training goes on from: written whole with its own hash, read whole or not at all.

`state.pt` holds everything: the model, the optimiser, the best weights so far, and how far
the run is. That of a finished run holds less (`keep`): what its models do not say. Its last
bytes are the sha256 of the rest. The first version (324dc88) wrote no hash, and the best weights
beside it; what it wrote is read too.
"""

import hashlib
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from processors import saving
from processors.files import write_bytes
from processors.records import STATE
from zoo import ZooError, schema

# Beside it, of the first version.
BEST = "best.safetensors"
_MARK = re.compile(rb"\nwszoo-sha256:([0-9a-f]{64})")
_MARK_BYTES = 78
# A state holds the model, the best one, and what an optimiser keeps of each number: two of
# them with Adam's, and an optimiser of a user's own has room for more.
_MODELS = 16
_LEAST_BYTES = 64 << 20
_NUMBERS = schema.Record(
    {
        "step": schema.Int(low=0),
        "waited": schema.Int(low=0),
        "seconds": schema.Real(low=0),
        "best": schema.Maybe(schema.Real()),
        "best_step": schema.Int(low=0),
    },
    others=schema.Json(),
)


def write(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors and plain numbers, and their hash at the end."""
    # To a file, torch.save tells of a full disk in the words of its zip writer.
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    content = buffer.getvalue()
    mark = f"\nwszoo-sha256:{hashlib.sha256(content).hexdigest()}"
    write_bytes(path, content + mark.encode())


def read(path: Path, device: torch.device, most: int) -> dict[str, Any]:
    """What `write` wrote, or the first version; tensors on the device.

    Raises:
        ZooError: if it is damaged, or larger than `most` bytes.
    """
    name = schema.safe(path)
    content = schema.read_plain(path, most)
    mark = _MARK.fullmatch(content[-_MARK_BYTES:])
    if mark:
        content = content[:-_MARK_BYTES]
        if hashlib.sha256(content).hexdigest().encode() != mark[1]:
            raise ZooError(f"{name} is damaged: its sha256 is not that which was written")
    try:
        found = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except Exception as error:  # zip, unpickler and storages each have their own
        line = schema.safe(" ".join(str(error).split()), 200)
        raise ZooError(f"{name} is damaged ({line})") from error
    if not isinstance(found, dict):
        raise ZooError(f"{name} is damaged: it holds no state of a training")
    plain = {key: value for key, value in found.items() if key in _NUMBERS.fields}
    schema.check(plain, _NUMBERS, name)
    state: dict[str, Any] = found
    return state


def keep(state: Path, kept: Path, model: Path, last: Path) -> None:
    """Keep of a finished run's state what a longer one needs and its models do not say.

    Args:
        state, kept: the whole state; where the rest of it goes.
        model, last: its best weights, and the last ones, as safetensors.
    """
    found = _beside(state, last)
    if _same(found["module"], last):
        del found["module"]
    if (
        found.get("best_weights") is not None
        and model.exists()
        and _same(found["best_weights"], model)
    ):
        found["best_weights"], found["best_in_model"] = None, True
    write(kept, found)


def restore(kept: Path, state: Path, model: Path, last: Path) -> None:
    """Make the whole state again of what `keep` has kept, or another version.

    Raises:
        ZooError: if a file is damaged.
    """
    found = _beside(kept, last)
    if "module" not in found:
        found["module"] = saving.read_state(last, None)
    if found.pop("best_in_model", False):
        found["best_weights"] = saving.read_state(model, None)
    write(state, found)


def _beside(state: Path, last: Path) -> dict[str, Any]:
    """A state, bounded by the size of the model that it belongs to."""
    size = last.stat().st_size if last.is_file() else 0
    return read(state, torch.device("cpu"), _LEAST_BYTES + _MODELS * size)


def _same(tensors: Mapping[str, Tensor], path: Path) -> bool:
    """Whether a safetensors file holds these tensors and no others."""
    there = saving.read_state(path, None)
    return there.keys() == tensors.keys() and all(
        there[name].dtype == value.dtype and torch.equal(there[name], value)
        for name, value in tensors.items()
    )


def read_run(folder: Path, module: torch.nn.Module, device: torch.device) -> dict[str, Any]:
    """The state of a run, which fits the module, with the best weights as "best_weights".

    Raises:
        ZooError: if it is damaged, or of another model.
    """
    path = folder / STATE
    wanted = module.state_dict()
    size = sum(value.nbytes for value in wanted.values() if isinstance(value, Tensor))
    state = read(path, device, _LEAST_BYTES + _MODELS * size)
    if state["best"] is not None and state.get("best_weights") is None:
        if state["best_step"] == state["step"]:
            state["best_weights"] = state.get("module")
        else:
            state["best_weights"] = saving.read_state(folder / BEST, wanted)
    for part in ("module", "best_weights"):
        tensors = state.get(part)
        if part == "best_weights" and state["best"] is None:
            continue
        if not isinstance(tensors, Mapping) or not _is_state(tensors) or "optimiser" not in state:
            raise ZooError(f"{schema.safe(path)} is damaged: it has no {part}")
        saving.check_state(tensors, wanted, path)
        saving.check_finite(tensors, path)
    return state


def _is_state(tensors: Mapping[str, Any]) -> bool:
    return all(isinstance(tensor, Tensor) for tensor in tensors.values())
