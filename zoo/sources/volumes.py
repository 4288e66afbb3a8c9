"""Shapes as voxels in a file of MedMNIST's layout."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8
from numpy.typing import NDArray

from zoo import voxels
from zoo.errors import safe_line
from zoo.sources.base import data_folder

# Files that are known by the sha256 of what lies on disk.
_MEDMNIST = {
    "license": "cc-by-4.0",
    "url": "https://medmnist.com",
    "citation": "Yang et al. 2023, MedMNIST v2 - A large-scale lightweight benchmark for 2D and "
    "3D biomedical image classification, Scientific Data 10:41",
}
KNOWN = {
    "124a53ea2c66c8ac1985a4c98ea6f34d1ab35bdab1dc50947f80d4a87e54057d": {
        "title": "AdrenalMNIST3D+, 64x64x64",
        **_MEDMNIST,
    }
}
# By the names under which they are published.
PUBLISHED = ("adrenalmnist3d_64.npz",)


@dataclass(frozen=True, eq=False)
class VoxelSource:
    """The volumes of a file, in its order: training, validation, test; see `load_voxels`.

    Attributes:
        path: of the file.
        masks: 0 empty, 1 filled, 2 neither.
    """

    name: str
    title: str
    license: str
    url: str
    citation: str
    path: Path
    masks: UInt8[np.ndarray, "item z y x"]
    labels: Int64[np.ndarray, " item"]
    class_names: tuple[str, ...]
    train_items: int
    validation_items: int
    sha256: str
    files: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The name without the folder, which is another on every machine."""
        return f"voxels:{self.path.name}"

    @property
    def address(self) -> str:
        """The name by which it is opened from anywhere."""
        return f"voxels:{self.path.resolve()}"

    def __len__(self) -> int:
        """Number of items."""
        return len(self.masks)

    def items(self, chosen: Int64[np.ndarray, " item"]) -> UInt8[np.ndarray, "item z y x"]:
        """The chosen volumes."""
        return self.masks[chosen]

    def columns(self, chosen: Int64[np.ndarray, " item"]) -> dict[str, NDArray[Any]]:
        """The class of each of the chosen volumes."""
        return {"label": self.labels[chosen]}


def load_voxels(name: str, data_root: Path | None = None) -> VoxelSource:
    """The volumes of `voxels:FILE.npz`.

    Args:
        data_root: where the file is looked for if it is not at FILE.npz; by default see
            `data_folder`.

    Raises:
        ValueError: if there is no such file.
        ZooError: if it is damaged or of another layout.
    """
    path = _found(name.partition(":")[2], data_folder(data_root))
    found = _read(str(path.resolve()))
    facts: Mapping[str, str] = KNOWN.get(_file_sha256(path), {})
    return VoxelSource(
        name=name,
        title=facts.get("title", f"Voxels of {path.name}"),
        license=facts.get("license", "unknown"),
        url=facts.get("url", ""),
        citation=facts.get("citation", ""),
        path=path,
        masks=found.masks,
        labels=found.labels,
        class_names=found.class_names,
        train_items=len(found.splits["train"]),
        validation_items=len(found.splits["validation"]),
        sha256=found.sha256,
    )


def _found(address: str, root: Path) -> Path:
    """The file as it is named, else in the folder of published sets."""
    path = Path(address).expanduser()
    if path.is_file() or path.is_absolute() or not (root / path).is_file():
        if path.name in PUBLISHED and not path.is_file():
            raise ValueError(
                f"there is no file {safe_line(path)}, nor {safe_line(root / path.name)}: put "
                f"MedMNIST's file of that name there, from {_MEDMNIST['url']} (Zenodo record "
                "10519652), or say where it lies by voxels:FILE.npz"
            )
        return path
    return root / path


@lru_cache(maxsize=1)
def _read(path: str) -> voxels.Voxels:
    return voxels.read(path)


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
