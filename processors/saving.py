"""A model in a folder: config.json and model.safetensors, written durably, read whole or refused.

config.json says everything that the model is built from; the tensors must be exactly those
of the model that is built, of the same shapes, and finite. What does not fit is one line
that names the file.
"""

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from huggingface_hub import PyTorchModelHubMixin
from safetensors.torch import save
from torch import Tensor, nn

from processors.files import write_bytes, write_text
from processors.sizes import POSITIONS, STATISTICS
from zoo import NetworkSpec, ZooError, fetch_model, schema
from zoo.schema import Bool, Choice, Int, Json, ListOf, MapOf, Maybe, Real, Record

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_CONFIG_BYTES = 16 << 20
_SIZE = Int(low=1, high=1 << 16)
_READOUT = Record({"mean": ListOf(Real(), least=1), "std": ListOf(Real(above=0), least=1)})
# Of a `Processor`; what may be missing is new since the first version.
PROCESSOR = Record(
    {
        "name": schema.NAME,
        "spec": MapOf(Json()),
        "out": Maybe(Int(low=1, high=1 << 24)),
        "sizes": Maybe(MapOf(Json())),
        "readout": Maybe(_READOUT),
        "narrow": Int(low=0, high=(1 << 31) - 1),
    },
    {
        "stats": Choice(None),
        "resolved": Bool(),
        "canonical": Bool(),
        "input_rank": Int(low=0, high=1 << 16),
        "statistics": Choice(*STATISTICS),
    },
)
# Of a `TicketVAE`.
TICKETS = Record(
    {
        "spec": MapOf(Json()),
        "symmetry": Choice("np", "hnp", "pointwise"),
        "chan": _SIZE,
        "layers": Int(low=1, high=1000),
        "latent": _SIZE,
    },
    {"stats": Choice(None), "layer_norm": Bool(), "positions": Choice(*POSITIONS)},
)


class Saved(PyTorchModelHubMixin, ABC):
    """`save_pretrained`, `from_pretrained`, `push_to_hub` of huggingface_hub, by this module."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """What the model is built from, plain data."""

    def save(self, folder: Path) -> None:
        """Write config.json and model.safetensors, each durably in one step."""
        state: Mapping[str, Tensor] = self.state_dict()  # type: ignore[attr-defined]
        write_text(folder / CONFIG, json.dumps(self.config(), sort_keys=True, indent=2))
        write_bytes(folder / WEIGHTS, packed(state))

    def _save_pretrained(self, save_directory: Path) -> None:
        self.save(save_directory)

    @classmethod
    def from_pretrained(cls, path: str | Path, *, revision: str | None = None) -> Any:  # type: ignore[override]
        """The model of this class in a folder or a repository; see `processors.load`."""
        from processors.models import load

        found = load(path, revision=revision)
        if not isinstance(found, cls):
            raise ZooError(f"{path} holds a {type(found).__name__}, not a {cls.__name__}")
        return found


def packed(state: Mapping[str, Tensor]) -> bytes:
    """Tensors as a safetensors file."""
    return save({name: value.contiguous().cpu() for name, value in state.items()})


def find(path: str | Path, revision: str | None = None) -> Path:
    """The folder of a model: itself, or where a repository's files were fetched to.

    Raises:
        ZooError: if there is no model, or the repository cannot be reached.
    """
    folder = Path(path)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ZooError(f"{folder} is a file; a model is a folder with {CONFIG} and {WEIGHTS}")
    try:
        found: Path = fetch_model(str(path), (CONFIG, WEIGHTS), revision)
    except ValueError as error:
        raise ZooError(f"there is no folder {path}, and on the Hub a model is user/name") from error
    return found


def read_config(folder: Path) -> dict[str, Any]:
    """What config.json says of a model, held against what it may say.

    Raises:
        ZooError: if it is missing or damaged, or of something else.
    """
    path = folder / CONFIG
    if not path.exists():
        raise ZooError(f"{folder} holds no model; a run has one when it is finished")
    plain = schema.read_json(path, _CONFIG_BYTES)
    if not isinstance(plain, dict) or "spec" not in plain:
        raise ZooError(f"{folder} holds no model; a run has one when it is finished")
    schema.check(plain, PROCESSOR if "name" in plain else TICKETS, schema.safe(path))
    readout, out = plain.get("readout"), plain.get("out")
    if readout and {len(readout["mean"]), len(readout["std"])} != {out}:
        raise ZooError(f"{schema.safe(path)}: readout: expected {out} means and deviations")
    return plain


def read_spec(plain: Mapping[str, Any], path: Path) -> NetworkSpec:
    """The networks that a model is for.

    Raises:
        ZooError: if the description is damaged.
    """
    try:
        return NetworkSpec.from_json(plain["spec"])
    except (ZooError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        line = schema.safe(" ".join(str(error).split()), 300)
        raise ZooError(f"{schema.safe(path)}: spec: {line}") from error


def read_state(path: Path, wanted: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU.

    Args:
        wanted: the tensors that the model has, of which only shapes and kinds count; None
            if they are not known before.

    Raises:
        ZooError: if the file is missing or damaged, its tensors are not those of the model,
            or a number is not finite.
    """
    name = schema.safe(path)
    try:
        schema.check_length(path)
        with safetensors.safe_open(path, framework="pt") as file:
            if wanted is not None:
                there = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
                check_state(there, wanted, path)
            found = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, ValueError, RuntimeError) as error:
        line = schema.safe(" ".join(str(error).split()), 200)
        raise ZooError(f"{name} is damaged ({line})") from error
    check_finite(found, path)
    return found


def check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """ZooError that names the first tensor of a file with a number that is not finite."""
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ZooError(
                f"{schema.safe(path)}: tensor {schema.shown(key)} has numbers that are not finite"
            )


def check_state(there: Mapping[str, Any], wanted: Mapping[str, Tensor], path: Path) -> None:
    """Hold the tensors of a file, or slices of it, against those of the model.

    Raises:
        ZooError: unless they are the same ones, of the same shapes, floats where floats are.
    """
    name = schema.safe(path)
    if lacking := sorted(set(wanted) - set(there)):
        raise ZooError(f"{name} lacks the tensor {schema.shown(lacking[0])}")
    if foreign := sorted(set(there) - set(wanted)):
        raise ZooError(f"{name} has a tensor that the model has not, {schema.shown(foreign[0])}")
    for key, tensor in wanted.items():
        shape, kind = _about(there[key])
        if shape != tuple(tensor.shape) or (kind in _FLOATS) != tensor.is_floating_point():
            raise ZooError(
                f"{name}: tensor {schema.shown(key)}: expected {tuple(tensor.shape)} of "
                f"{tensor.dtype}, got {shape} of {kind}"
            )


_FLOATS = ("F64", "F32", "F16", "BF16", torch.float64, torch.float32, torch.float16, torch.bfloat16)


def _about(stored: Any) -> tuple[tuple[int, ...], Any]:
    """Shape and kind of a tensor, or of a slice of a file."""
    if isinstance(stored, Tensor):
        return tuple(stored.shape), stored.dtype
    return tuple(stored.get_shape()), stored.get_dtype()


def shapes_of(make: Callable[[], nn.Module]) -> Mapping[str, Tensor]:
    """The tensors of what `make` builds, without their memory."""
    with torch.device("meta"):
        return make().state_dict()


# ---- sizes and hashes that a run keeps of its files


FILES = MapOf(Record({"bytes": Int(low=0), "sha256": schema.SHA256}))
SUMMARY = "summary.json"


def described(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Size and sha256 of files, by their names in the folder."""
    found = {}
    for name in names:
        content = (folder / name).read_bytes()
        found[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return found


def check_hashes(folder: Path, part: str = "") -> None:
    """Hold the files of a run against what its summary keeps of them, if it does.

    Args:
        part: only what lies in this folder of the run; the run's other files are let be.

    Raises:
        ZooError: for a file that is missing, or not as it was written.
    """
    path = folder / SUMMARY
    if not path.exists():
        return
    plain = schema.read_json(path)
    kept = plain.get("files") if isinstance(plain, dict) else None
    if kept is None:
        return
    schema.check({"files": kept}, Record({"files": FILES}), schema.safe(path))
    for name, about in kept.items():
        if name.startswith(f"{part}/" if part else ""):
            check_file(folder / name, about)


def check_file(path: Path, about: Mapping[str, Any]) -> None:
    """ZooError unless a plain file has this size and this sha256."""
    name = schema.safe(path)
    with schema.open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size != about["bytes"]:
            raise ZooError(
                f"{name} is damaged: it has {size:,} bytes, and was written with {about['bytes']:,}"
            )
        # Its stub asks for more than such a file has.
        digest: Any = hashlib.file_digest(file, "sha256")  # type: ignore[arg-type]
        if digest.hexdigest() != about["sha256"]:
            raise ZooError(f"{name} is damaged: its sha256 is not that which was written")
