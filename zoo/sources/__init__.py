"""The pictures, waves and shapes that networks are fitted to, opened whole and checked.

One file a source; `SOURCES` is the only list of them, so a new one is a file here and an
entry. `load_images` opens MNIST, Fashion-MNIST, CIFAR-10, scikit-learn's digits or a
folder of pictures; `load_sine` draws sine waves, `load_solids` solids; `load_voxels` opens a
file of shapes. `split_items` cuts the fixed order of a
source into train, validation and test.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from zoo.errors import ZooError, unknown
from zoo.sources.arrays import of_arrays
from zoo.sources.base import (
    FITS,
    Frame,
    ImageSource,
    Request,
    Source,
    data_folder,
    sha256_of,
)
from zoo.sources.digits import open_digits
from zoo.sources.folders import open_folder
from zoo.sources.published import open_cifar10, open_mnist
from zoo.sources.solids import SolidSource, load_solids
from zoo.sources.splits import SPLIT_RULES, split_items, split_rule
from zoo.sources.volumes import VoxelSource, load_voxels
from zoo.sources.waves import SineSource, load_sine

__all__ = [
    "FITS",
    "SOURCES",
    "SPLIT_RULES",
    "Entry",
    "Frame",
    "ImageSource",
    "Request",
    "SineSource",
    "SolidSource",
    "Source",
    "VoxelSource",
    "load_images",
    "load_sine",
    "load_solids",
    "load_voxels",
    "of_arrays",
    "resolve",
    "sha256_of",
    "split_items",
    "split_rule",
]


@dataclass(frozen=True)
class Entry:
    """A source in the list.

    Attributes:
        about: one line for people.
        open: opens a set of pictures; None if it holds something else.
        grew: whether it takes more than 324dc88 took.
    """

    about: str
    open: Callable[[Request], ImageSource] | None = None
    grew: bool = False


SOURCES = {
    "mnist": Entry("70,000 handwritten digits, 28x28 grey", open_mnist),
    "fashion-mnist": Entry("70,000 articles of clothing, 28x28 grey", open_mnist),
    "cifar10": Entry("60,000 photographs of ten classes, 32x32 RGB", open_cifar10),
    "digits": Entry(
        "1,797 handwritten digits, 8x8 grey; part of scikit-learn, no download", open_digits
    ),
    "imagefolder:PATH": Entry(
        "pictures in PATH, PATH/<class>, or both in PATH/train, PATH/val, PATH/test",
        open_folder,
        grew=True,
    ),
    "sine": Entry("waves a*sin(b*x) on [-pi, pi], drawn from a seed"),
    "shapes": Entry("parametric solids of ten families, drawn from a seed"),
    "voxels:PATH": Entry("volumes in a file PATH.npz of MedMNIST's layout"),
}


def resolve(name: str) -> str:
    """The whole name of a source: an existing folder is imagefolder:PATH, a .npz voxels:PATH.

    >>> resolve("mnist"), resolve(".")
    ('mnist', 'imagefolder:.')

    Raises:
        ValueError: if there is no such source and no such folder.
    """
    kind, colon, address = name.partition(":")
    if (f"{kind}:PATH" if colon else kind) in SOURCES:
        if colon and not address:
            example = "my/pictures" if kind == "imagefolder" else "my/shapes.npz"
            raise ValueError(f"{name} needs a path, as in {name}{example}")
        return name
    if not name:
        raise ValueError(unknown("source", name, SOURCES))
    path = Path(name).expanduser()
    if path.is_dir():
        return f"imagefolder:{name}"
    if path.suffix == ".npz" and path.is_file():
        return f"voxels:{name}"
    if path.exists():
        raise ValueError(
            f"{name} is a file; a source is a folder of pictures or one of {', '.join(SOURCES)}"
        )
    if "/" in name or "\\" in name or name.startswith("."):
        raise ValueError(
            f"there is no folder {name}; a source is a folder of pictures or one of "
            f"{', '.join(SOURCES)}"
        )
    raise ValueError(unknown("source", name, SOURCES))


def load_images(
    name: str,
    data_root: Path | None = None,
    size: int | str | None = None,
    download: bool = True,
    *,
    fit: str = "crop",
    expect: str | None = None,
) -> ImageSource:
    """A set of images, verified, its own training images first.

    The functions that open each source say where its files lie and what is checked.

    Args:
        name: of a source, or of a folder of pictures.
        data_root: default $WSZOO_DATA, else ~/.cache/wszoo; not used by digits and folders.
        size: wanted, as a number of pixels or "WxH" (columns x rows); resized by area
            averaging to shrink and linearly to grow (no new extremes, unlike cubic).
            Default: as is.
        fit: how a picture of another shape comes to that size, see `Frame`.
        download: whether missing files are downloaded; progress goes to stderr.
        expect: the sha256 that the source had for an older zoo: if it has another today, what
            324dc88 took of a folder is tried too.

    Raises:
        ValueError: if the name is unknown, the size is below 1, or pictures of a folder
            differ in size and no `size` is given.
        ZooError: if files are missing and cannot be downloaded, are damaged, or contradict
            one another.
    """
    frame = Frame.of(size, fit)
    name = resolve(name)
    kind, colon, address = name.partition(":")
    entry = SOURCES[f"{kind}:PATH" if colon else kind]
    if entry.open is None:
        raise ValueError(f"source {name!r} has no images; it holds {entry.about}")
    request = Request(name, address, data_folder(data_root), frame, download)
    source = entry.open(request)
    if expect in (None, source.sha256) or not entry.grew:
        return source
    try:
        older = entry.open(replace(request, older=True))
    except ZooError:
        return source
    return older if older.sha256 == expect else source
