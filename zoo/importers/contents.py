"""What a file from outside is, told by its content, and the tensors in it.

Files are known by their first bytes and never by their suffix: torch's `.pth` (whatever it is
called), safetensors, `.npz`. Everything else that people take for one of these is told by
name, with what to do: a TorchScript or exported program, a pickle, a pointer of Git LFS, a
page of HTML. Pickles are opened by torch's `weights_only` unpickler alone, which makes tensors
and containers and calls nothing else; settings that trainers save beside the weights (paths,
namespaces, numbers of NumPy) become blanks that hold nothing.
"""

import io
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray

from zoo.errors import ZooError
from zoo.schema import safe

# Of one network's file, unpacked.
FILE_BYTES = 256 << 20
HEAD_BYTES = 512
ZIP = b"PK\x03\x04"
# The number that torch's older files begin with, as a pickle of protocol 2.
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
SAFETENSORS_HEADER = 100 << 20

TORCH, OLD_TORCH, SAFETENSORS, NPZ = "torch", "torch, older", "safetensors", "npz"
# Kinds that hold tensors by name.
KNOWN = (TORCH, OLD_TORCH, SAFETENSORS, NPZ)
SAVE = "save its weights by torch.save(net.state_dict(), path) instead"
# What else a file may be, by its first bytes, and what to do.
OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself: fetch it by "
     "`git lfs pull`"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (of Keras?): its layers are laid out otherwise; write "
     "state dicts of (out, inp) weights"),
    (b"\x93NUMPY", "a single array of NumPy: save the tensors by name, as numpy.savez does"),
    (b"\x1f\x8b", "packed by gzip: unpack it first"),
    (b"\xfd7zXZ", "packed by xz: unpack it first"),
    (b"BZh", "packed by bzip2: unpack it first"),
    (b"7z\xbc\xaf", "an archive of 7-Zip: unpack it first"),
    (b"Rar!", "an archive of RAR: unpack it first"),
)  # fmt: skip


def kind_of(head: bytes) -> str:
    """One of `KNOWN`, or in words what a file is that begins with these bytes, and what to do.

    Args:
        head: the first `HEAD_BYTES` of the file, fewer if it is shorter.

    >>> kind_of(b"version https://git-lfs.github.com/spec/v1")[:20]
    'a pointer of Git LFS'
    """
    if not head:
        return "empty"
    if head.startswith(ZIP):
        return _kind_of_zip(head)
    if head.startswith(LEGACY):
        return OLD_TORCH
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= SAFETENSORS_HEADER:
        return SAFETENSORS
    for magic, words in OTHERS:
        if head.startswith(magic):
            return words
    if re.match(rb"(\xef\xbb\xbf)?\s*<(!doctype|html|\?xml|head|body)", head, re.IGNORECASE):
        return (
            "a page of HTML or XML, not the file: download it again (where a login or a "
            "confirmation is asked for, by hand)"
        )
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        return f"refused, nothing of it was run: a pickle that torch did not write; {SAVE}"
    if head[257:262] == b"ustar":
        return "a tar archive: give it by itself, or unpack it first"
    return "no file of torch, safetensors or NumPy, or a damaged one"


def _kind_of_zip(head: bytes) -> str:
    """By the name of the first member, which stands at the very beginning."""
    (length,) = struct.unpack("<H", head[26:28].ljust(2, b"\0"))
    name = head[30 : 30 + length]
    if name.endswith(b".npy"):
        return NPZ
    # A folder of the file's own name, then data.pkl, data/0, version and others.
    if re.fullmatch(
        rb"[^/]+/(data\.pkl|data/.*|code/.*|constants\.pkl|version|byteorder|\..*|"
        rb"archive_\w+|models/.*|extra/.*)",
        name,
        re.DOTALL,
    ):
        return TORCH
    if name in (b"version", b"archive_format", b"serialized_exported_program.json"):
        return TORCH
    return "a zip archive: give it by itself, or unpack it first"


# ---- what stands for the objects that a pickle may name ----------------------------------


class _Blank:
    """Stands for an object of which nothing is wanted: takes any state, keeps none."""

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _BlankDict:
    """Stands for a kind of dict; what the reader then fills is a plain one."""

    def __new__(cls, *args: Any) -> Any:
        return {}


def _blank_dict(*args: Any) -> dict[Any, Any]:
    """Stands for a function that makes a kind of dict."""
    return {}


class _DType:
    """Stands for `numpy.dtype` in a pickle: numbers only.

    numpy's own would take a state from the file, by which it changes flags of types that
    the whole process shares; allow-listing it would let a file corrupt memory.
    """

    KNOWN = frozenset(["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"])

    def __init__(self, name: str, align: bool = False, copy: bool = False):
        self.name = f"<{name}" if name in self.KNOWN else None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in ("<", "=", "|"):
            self.name = None


class _Array:
    """Stands for `numpy.ndarray` in a pickle; `values` once it is read, None if no numbers."""

    values: NDArray[Any] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, content = state
        if isinstance(dtype, _DType) and dtype.name and isinstance(content, bytes):
            flat = np.frombuffer(content, dtype.name)
            turned = flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)
            self.values = np.ascontiguousarray(turned).copy()


def _reconstruct(kind: type, shape: tuple[int, ...], code: bytes) -> _Array:
    """Stands for the function of that name, which makes an array that a state then fills."""
    return _Array()


def _named(kind: Any, *names: str) -> list[tuple[Any, str]]:
    return [(kind, name) for name in names]


# Under the names of numpy 1 and of numpy 2.
ARRAYS: list[Any] = [
    *_named(_reconstruct, "numpy.core.multiarray._reconstruct"),
    *_named(_reconstruct, "numpy._core.multiarray._reconstruct"),
    *_named(_Array, "numpy.ndarray"),
    *_named(_DType, "numpy.dtype"),
]
# What trainers save beside the weights. Nothing of these is ever looked at.
BLANKS: list[Any] = [
    *_named(_Blank, "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
    *_named(_Blank, "argparse.Namespace", "types.SimpleNamespace", "datetime.datetime"),
    *_named(_Blank, "datetime.timedelta", "datetime.date"),
    *(
        (_Blank, f"pathlib{room}.{flavour}{kind}Path")
        for room in ("", "._local")
        for flavour in ("", "Pure")
        for kind in ("", "Posix", "Windows")
    ),
    *(
        (_Blank, f"{room}.{name}")
        for room in ("__builtin__", "builtins")
        for name in ("int", "float", "bool", "str", "list", "dict", "object", "tuple")
    ),
    *_named(_blank_dict, "collections.defaultdict"),
    *(
        (_BlankDict, f"{room}.AttributeDict")
        for room in (
            "lightning.fabric.utilities.data", "lightning_fabric.utilities.data",
            "pytorch_lightning.utilities.parsing", "lightning.pytorch.utilities.parsing",
        )
    ),
    *_named(_Blank, "typing.Any", "typing.Union", "typing.Dict", "typing.List"),
    *(
        (_Blank, f"omegaconf.{name}")
        for name in (
            "dictconfig.DictConfig", "listconfig.ListConfig", "base.ContainerMetadata",
            "base.Metadata", "base.Node", "nodes.AnyNode", "nodes.StringNode",
            "nodes.IntegerNode", "nodes.FloatNode", "nodes.BooleanNode", "nodes.ValueNode",
        )
    ),
]  # fmt: skip
STAND_INS = [*ARRAYS, *BLANKS]
_STAND_IN_NAMES = {name for _, name in STAND_INS}


# ---- reading -----------------------------------------------------------------------------


def load(content: bytes, where: str) -> tuple[Any, bool]:
    """What a file holds, and whether its order is that in which it was saved.

    Tensors stay tensors, arrays of numbers become tensors; other objects are blanks.

    Args:
        where: what a message calls the file.

    Raises:
        ZooError: if it is none of `KNOWN`, damaged, unpacks to more than `FILE_BYTES`, or
            asks for more than tensors, containers and settings; the message says what it is.
    """
    kind = kind_of(content[:HEAD_BYTES])
    if kind == SAFETENSORS:
        return _load_safetensors(content, where), False
    if kind == NPZ:
        return _load_npz(content, where), True
    return load_torch(content, where), True


def load_torch(content: bytes, where: str) -> Any:
    """What a file of torch holds, as `load`."""
    kind = kind_of(content[:HEAD_BYTES])
    if kind == TORCH:
        _check_zip(content, where)
    elif kind != OLD_TORCH:
        raise ZooError(f"{where}: {kind}")
    try:
        return _plain(_unpickle(content))
    except pickle.UnpicklingError as error:
        raise ZooError(f"{where}: {_refusal(str(error))}") from error
    except Exception as error:
        # Damaged or hostile files end in whatever error torch's reader runs into.
        raise ZooError(f"{where}: not a file of torch that can be read ({_why(error)})") from error


def load_dict(content: bytes, where: str) -> dict[str, Any]:
    """What a file of torch holds, which must be one dict of names; ZooError as `load`."""
    state = load_torch(content, where)
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise ZooError(f"{where}: expected a state dict, got {type(state).__name__}")
    return state


def _unpickle(content: bytes) -> Any:
    """By torch's reader; with stand-ins only where they are asked for, as they cost time."""

    def read(stand_ins: list[Any]) -> Any:
        with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings():
            # It warns of other protocols in words about its own insides.
            warnings.simplefilter("ignore")
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)

    try:
        return read([])
    except pickle.UnpicklingError as error:
        if _global_of(str(error)) not in _STAND_IN_NAMES:
            raise
    return read(STAND_INS)


def _global_of(message: str) -> str | None:
    """The name that torch's reader refused."""
    found = re.search(r"GLOBAL ([\w.<>]+)", message)
    name = found[1].rstrip(".") if found else None
    # It leaves the room of built-ins out of its message.
    return name if name is None or "." in name else f"builtins.{name}"


def _refusal(message: str) -> str:
    """Why a pickle is refused, and what to do."""
    name = _global_of(message)
    if name is not None and name.startswith("torch.nn.modules."):
        return f"a whole pickled module, and nothing of it was run: {SAVE}"
    if name is not None and ("__main__." in name or re.search(r"\.[A-Z]\w*$", name)):
        return (
            f"refused, nothing of it was run: it holds an object of {safe(name, 80)}, "
            f"perhaps a whole pickled module; {SAVE}"
        )
    operand = re.search(r"Unsupported operand (\d+)", message)
    if operand:
        return (
            "refused, nothing of it was run: a pickle of a protocol that torch does not write by "
            f"itself, or a damaged one; {SAVE}"
        )
    reason = re.search(r"(GLOBAL|Trying to|Can only|Invalid)[^\n.]*[\w.]*", message)
    why = reason[0] if reason else "not a pickle of tensors"
    return (
        "refused, it holds more than weights or is damaged; nothing of it was run "
        f"({safe(why, 120)})"
    )


def _why(error: Exception) -> str:
    """The first line of somebody else's error, which may repeat bytes of the file."""
    return safe((str(error).splitlines() or [type(error).__name__])[0], 120)


def _plain(value: Any, seen: dict[int, Any] | None = None) -> Any:
    """Arrays in place of their stand-ins, as tensors, in dicts and lists however deep.

    Args:
        seen: what each container has become: a small file can name one a billion times.
    """
    seen = {} if seen is None else seen
    if isinstance(value, _Array):
        return None if value.values is None else torch.from_numpy(value.values)
    if isinstance(value, Mapping | list | tuple):
        if id(value) not in seen:
            inner: dict[Any, Any] | list[Any]
            if isinstance(value, Mapping):
                inner = seen[id(value)] = {}
                inner.update((key, _plain(part, seen)) for key, part in value.items())
            else:
                inner = seen[id(value)] = []
                inner.extend(_plain(part, seen) for part in value)
        return seen[id(value)]
    return value


def _check_zip(content: bytes, where: str) -> None:
    """The kind, size and check sums of a file of torch that is a zip."""
    damaged = (
        zipfile.BadZipFile, struct.error, zlib.error, ValueError, RuntimeError, OSError, EOFError,
        KeyError, IndexError, OverflowError,
    )  # fmt: skip
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            size = sum(item.file_size for item in members)
            if size > FILE_BYTES:
                raise ZooError(f"{where}: unpacks to {size:,} bytes, which is too large")
            names = {item.filename.partition("/")[2] or item.filename for item in members}
            if what := _program(names):
                raise ZooError(f"{where}: {what}; {SAVE}")
            for item in members:
                with archive.open(item) as member:
                    while member.read(1 << 20):
                        pass
    except damaged as error:
        raise ZooError(
            f"{where}: not a file of torch that can be read: damaged or cut ({_why(error)})"
        ) from error


def _program(names: set[str]) -> str | None:
    """What kind of program the members of a zip make up; None for tensors alone."""
    if "constants.pkl" in names or any(name.startswith("code/") for name in names):
        return "a TorchScript program, which is not run"
    if "data.pkl" not in names:
        if any(
            name.startswith("models/") or "archive_format" in name or "exported_program" in name
            for name in names
        ):
            return "an exported program (torch.export), which is not run"
        return "a zip without the weights of torch (data.pkl)"
    return None


def _load_safetensors(content: bytes, where: str) -> dict[str, Any]:
    try:
        return dict(safetensors.torch.load(content))
    except Exception as error:
        # Its reader raises a type of its own, torch's others, for types and shapes it lacks.
        raise ZooError(f"{where}: not a safetensors file ({_why(error)})") from error


def _load_npz(content: bytes, where: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(item.file_size for item in archive.infolist()) > FILE_BYTES:
                raise ZooError(f"{where}: unpacks to more than {FILE_BYTES:,} bytes")
            for item in archive.infolist():
                with archive.open(item) as member:
                    array = _read_npy(member.read())
                name = item.filename.removesuffix(".npy")
                numbers = array.dtype.kind in "fiub"
                found[name] = torch.from_numpy(array) if numbers else None
    except ZooError:
        raise
    except Exception as error:
        # Of zip, of numpy's header, which is Python's syntax, of torch for types it lacks.
        raise ZooError(f"{where}: not an .npz file that can be read ({_why(error)})") from error
    return found


def _read_npy(content: bytes) -> NDArray[Any]:
    """An array of numbers; nothing is made larger than the file that is to fill it."""
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0,
    }  # fmt: skip
    if version not in readers:
        raise ValueError(f"an array of format {version}")
    shape, fortran, dtype = readers[version](file)
    if dtype.hasobject or prod(shape) * dtype.itemsize > len(content):
        raise ValueError(f"an array {shape} of {dtype} does not fit into {len(content)} bytes")
    flat = np.frombuffer(file.read(prod(shape) * dtype.itemsize), dtype)
    turned = flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)
    return np.ascontiguousarray(turned.astype(dtype.newbyteorder("=")))
