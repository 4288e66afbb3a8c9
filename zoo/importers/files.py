"""Reads other people's files: folders and archives without unpacking, .pth without code.

Nothing is ever written under a name that comes from outside, and nothing is read without
a bound: archives are read member by member, and a compressed tar is first unpacked as one
stream into a nameless temporary file. `.pth` files are pickles; they are opened by torch's
`weights_only` unpickler, which makes tensors and containers and calls nothing else.
"""

import gzip
import io
import lzma
import os
import pickle
import re
import struct
import tarfile
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.errors import ZooError
from zoo.spec import NetworkSpec

# Of one network's file, unpacked; of a whole compressed tar, unpacked.
FILE_BYTES = 256 << 20
STREAM_BYTES = 64 << 30
ZIP = b"PK\x03\x04"
MAX_FILES = 5_000_000
MAX_PARAMS = FILE_BYTES // 4

_DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile)


class Files:
    """The regular files of a folder, a .zip or a .tar (also .gz, .xz, .bz2), by name.

    Names are relative, with "/". Links inside archives and linked folders are passed over.

    Attributes:
        path: of the folder or archive.
        names: in natural order, so that net2 stands before net10.

    Raises:
        ZooError: if the archive is damaged or too large.
        ValueError: if there is neither a folder nor an archive.
    """

    def __init__(self, path: Path):
        self.path = path
        self._zip: zipfile.ZipFile | None = None
        self._stream: IO[bytes] | None = None
        self._spans: dict[str, tuple[int, int]] = {}
        try:
            if path.is_dir():
                names = self._walk()
            elif not path.is_file():
                raise ValueError(f"{path}: neither a folder nor an archive lies there")
            # By its beginning: a tar that ends in a .pth ends like a zip.
            elif _first_bytes(path).startswith(ZIP):
                self._zip = zipfile.ZipFile(path)
                names = [item.filename for item in self._zip.infolist() if not item.is_dir()]
            else:
                names = self._index_tar()
        except _DAMAGE as error:
            raise ZooError(
                f"{path}: not a folder, .zip or .tar that can be read ({error})"
            ) from error
        if len(set(names)) != len(names):
            raise ZooError(f"{path}: a file is in the archive twice; unpack it and look")
        self.names = sorted(names, key=natural)

    def _walk(self) -> list[str]:
        names: list[str] = []
        for folder, _, files in os.walk(self.path):
            place = Path(folder).relative_to(self.path)
            # Opening a pipe would wait for ever, hence regular files only.
            found = [file for file in files if os.path.isfile(os.path.join(folder, file))]
            names += [(place / file).as_posix() for file in found]
            _bound(len(names), self.path)
        return names

    def _index_tar(self) -> list[str]:
        openers: dict[bytes, Any] = {
            b"\x1f\x8b": gzip.open, b"\xfd7zXZ\x00": lzma.open, b"BZh": _open_bz2,
        }  # fmt: skip
        start = _first_bytes(self.path)
        opener = next((found for magic, found in openers.items() if start.startswith(magic)), None)
        # Random access to what is packed would unpack it again for every file.
        stream: IO[bytes] = tempfile.TemporaryFile() if opener else self.path.open("rb")  # noqa: SIM115
        weakref.finalize(self, stream.close)
        if opener is not None:
            with opener(self.path) as packed:
                _unpack(packed, stream, self.path)
        self._stream = stream
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            for member in tar:
                if member.isreg() and not member.issparse():
                    if member.name in self._spans:
                        raise ZooError(f"{self.path}: {member.name} is in the archive twice")
                    self._spans[member.name] = (member.offset_data, member.size)
                    _bound(len(self._spans), self.path)
        return list(self._spans)

    def where(self, name: str) -> str:
        """How a message names the file."""
        packed = self._zip is not None or self._stream is not None
        return f"{self.path}: {name}" if packed else f"{self.path / name}"

    def read(self, name: str, limit: int = FILE_BYTES) -> bytes:
        """The content of a file.

        Raises:
            ZooError: if it is larger than `limit` bytes, or damaged.
        """
        try:
            if self._zip is not None:
                with self._zip.open(name) as file:
                    content = file.read(limit + 1)
            elif self._stream is not None:
                start, size = self._spans[name]
                self._stream.seek(start)
                content = self._stream.read(min(size, limit + 1))
                if len(content) < min(size, limit + 1):
                    raise ZooError(f"{self.where(name)}: the archive ends before the file does")
            else:
                with (self.path / name).open("rb") as file:
                    content = file.read(limit + 1)
        except (*_DAMAGE, RuntimeError) as error:
            raise ZooError(f"{self.where(name)}: cannot be read ({error})") from error
        if len(content) > limit:
            raise ZooError(f"{self.where(name)}: more than {limit:,} bytes, which is too large")
        return content


def natural(name: str) -> list[tuple[int, int, str]]:
    """A sorting key by which numbers in names count as numbers.

    >>> sorted(["net10.pth", "net9.pth"], key=natural)
    ['net9.pth', 'net10.pth']
    """
    return [
        (1, int(part), "") if part.isdecimal() else (0, 0, part)
        for part in re.split(r"([0-9]+)", name)
        if part
    ]


def _bound(count: int, path: Path) -> None:
    if count > MAX_FILES:
        raise ZooError(f"{path}: more than {MAX_FILES:,} files, which is too many")


def _open_bz2(path: Path) -> io.BufferedIOBase:
    import bz2

    return bz2.open(path)


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(6)


def _unpack(packed: io.BufferedIOBase, stream: IO[bytes], path: Path) -> None:
    while block := packed.read(1 << 20):
        stream.write(block)
        if stream.tell() > STREAM_BYTES:
            raise ZooError(f"{path}: unpacks to more than {STREAM_BYTES:,} bytes")
    stream.seek(0)


class _DType:
    """Stands for `numpy.dtype` in a pickle: floating-point numbers only.

    numpy's own would take a state from the file, by which it changes flags of types that
    the whole process shares; allow-listing it would let a file corrupt memory.
    """

    def __init__(self, name: str, align: bool = False, copy: bool = False):
        if name not in ("f4", "f8"):
            raise ValueError(f"an array of type {name!r:.20}; known: f4, f8")
        self.name = "<" + name

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in ("<", "="):
            raise ValueError(f"an array of byte order {state[1]!r:.20}; known: <")


class _Array:
    """Stands for `numpy.ndarray` in a pickle, with the array in `values` once it is read."""

    values: NDArray[Any]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, _, content = state
        if not isinstance(dtype, _DType) or not isinstance(content, bytes) or len(shape) != 1:
            raise ValueError("an array that is not one row of numbers")
        self.values = np.frombuffer(content, dtype.name).reshape(shape).copy()


def _reconstruct(kind: type, shape: tuple[int, ...], code: bytes) -> _Array:
    """Stands for the function of that name, which makes an array that a state then fills."""
    return _Array()


# Under the names of numpy 1 and of numpy 2.
NUMPY_GLOBALS: list[Any] = [
    (_reconstruct, "numpy.core.multiarray._reconstruct"),
    (_reconstruct, "numpy._core.multiarray._reconstruct"),
    (_Array, "numpy.ndarray"),
    (_DType, "numpy.dtype"),
]


def load_pth(content: bytes, where: str, arrays: bool = False) -> dict[str, Any]:
    """The dict in a `.pth` file; no code of the file is run.

    Args:
        where: what a message calls the file.
        arrays: whether numpy arrays of one axis may be in it, as values of the dict.

    Raises:
        ZooError: if it is damaged, unpacks to more than `FILE_BYTES`, asks for anything
            but tensors, containers and numbers, or is no dict.
    """
    if content.startswith(ZIP):
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                size = sum(item.file_size for item in archive.infolist())
        except (zipfile.BadZipFile, struct.error, ValueError, RuntimeError) as error:
            raise ZooError(f"{where}: not a .pth file that can be read ({error})") from error
        if size > FILE_BYTES:
            raise ZooError(f"{where}: unpacks to {size:,} bytes, which is too large")
    try:
        with torch.serialization.safe_globals(NUMPY_GLOBALS if arrays else []):
            loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = re.search(
            r"(GLOBAL|Unsupported|Trying to|Can only|Invalid)[^\n.]*[\w.]*", str(error)
        )
        raise ZooError(
            f"{where}: refused, it holds more than weights or is damaged; nothing of it was run "
            f"({reason[0] if reason else 'not a pickle of tensors'})"
        ) from error
    except Exception as error:
        # Damaged or hostile files end in whatever error torch's reader runs into.
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ZooError(f"{where}: not a .pth file that can be read ({first:.120})") from error
    if not isinstance(loaded, Mapping) or not all(isinstance(key, str) for key in loaded):
        raise ZooError(f"{where}: expected a state dict, got {type(loaded).__name__}")
    return {
        key: getattr(value, "values", None) if isinstance(value, _Array) else value
        for key, value in loaded.items()
    }


def load_state(content: bytes, where: str) -> dict[str, Any]:
    """The tensors of a `.safetensors` or `.pth` file, in the network's order.

    A .pth keeps the order of the module; safetensors has none, so the names are sorted,
    numbers in them as numbers.

    Raises:
        ZooError: as `load_pth`.
    """
    if not where.endswith(".safetensors"):
        state = load_pth(content, where)
        inner = state.get("state_dict")
        return dict(inner) if isinstance(inner, Mapping) else state
    try:
        loaded = safetensors.torch.load(content)
    except (safetensors.SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise ZooError(f"{where}: not a safetensors file ({error})") from error
    return {name: loaded[name] for name in sorted(loaded, key=natural)}


def layer_tensors(state: Mapping[str, Any], where: str) -> dict[str, Tensor]:
    """The weights and biases of a state dict as weight_0, bias_0, weight_1, ...

    They are numbered in the dict's order, each kind for itself.

    Raises:
        ZooError: for an entry that is neither weight nor bias, no dense tensor of
            floating-point numbers on the CPU, or a weight without bias.
    """
    named: dict[str, Tensor] = {}
    counts = {"weight": 0, "bias": 0}
    for key, value in state.items():
        kind = key.rpartition(".")[2]
        if kind not in counts:
            raise ZooError(f"{where}: expected names ending in weight or bias, got {key!r}")
        if (
            not isinstance(value, Tensor)
            or value.layout != torch.strided
            or value.device.type != "cpu"
            or value.dtype not in (torch.float32, torch.float16, torch.bfloat16)
            or value.is_quantized
        ):
            got = f"{value.dtype} {value.layout}" if isinstance(value, Tensor) else type(value)
            raise ZooError(
                f"{where}: {key}: expected a dense tensor of float32 (or 16 bits), got {got}; "
                "convert others by .float() first, a zoo holds float32"
            )
        if value.numel() > MAX_PARAMS:
            raise ZooError(f"{where}: {key}: {value.numel():,} entries are too many")
        named[f"{kind}_{counts[kind]}"] = value.detach()
        counts[kind] += 1
    if counts["weight"] != counts["bias"] or not counts["weight"]:
        raise ZooError(
            f"{where}: expected a bias for each weight, got {counts['weight']} weights and "
            f"{counts['bias']} biases"
        )
    return named


def network(
    state: Mapping[str, Any], spec: NetworkSpec, where: str
) -> dict[str, NDArray[np.float32]]:
    """One network's tensors as float32 arrays of the spec's shapes.

    Raises:
        ZooError: if they are not a network of this spec.
    """
    named = layer_tensors(state, where)
    for name, shape in spec.tensors.items():
        got = tuple(named[name].shape) if name in named else "nothing"
        if got != shape:
            raise ZooError(f"{where}: {name}: expected {shape}, as in the first network, got {got}")
    if len(named) != len(spec.tensors):
        raise ZooError(f"{where}: expected {len(spec.tensors)} tensors, got {len(named)}")
    return {name: named[name].float().contiguous().numpy() for name in spec.tensors}


def mlp_widths(state: Mapping[str, Any], where: str) -> list[int]:
    """Inputs, hidden widths and outputs of a state dict of linear layers.

    Raises:
        ZooError: if weights are not `(out, inp)`, or layers do not chain.
    """
    named = layer_tensors(state, where)
    widths: list[int] = []
    for number in range(len(named) // 2):
        weight, bias = named[f"weight_{number}"].shape, named[f"bias_{number}"].shape
        inp = widths[-1] if widths else "inp"
        fits = len(weight) == 2 and tuple(bias) == (weight[0],) and inp in ("inp", weight[1])
        if not fits:
            raise ZooError(
                f"{where}: layer {number}: expected weight (out, {inp}) and bias (out,), got "
                f"{tuple(weight)} and {tuple(bias)}"
            )
        widths += [weight[1], weight[0]] if not widths else [weight[0]]
    if prod(widths) < 1:
        raise ZooError(f"{where}: a layer of width 0")
    return widths
