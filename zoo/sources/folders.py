"""A folder of pictures, in folders by class."""

import os
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from zoo.errors import ZooError
from zoo.sources.base import ImageSource, Request, listed
from zoo.sources.pictures import image_source, read_pictures


def open_folder(request: Request) -> ImageSource:
    """PATH/train/<class>/* and then PATH/test/<class>/*, or all of PATH/<class>/*.

    test may be absent, further folders beside them are ignored; without PATH/train all are
    training pictures. Classes are numbered by name, as torchvision's `ImageFolder` does;
    hidden files and folders are ignored. So that a prefix or suffix of the order has nearly
    the class proportions, the images of a class, by file name, stand at (rank + 0.5) / class
    size, and positions are sorted, ties by class; train and test separately. 16-bit pictures
    are divided by 257 and rounded, alpha is dropped (not blended), an EXIF orientation is
    applied. One channel if no picture has a pixel with unequal channels, else three.

    Raises:
        ValueError: if there is no path, or pictures differ in size and no size is given.
        ZooError: if the folder or a picture is missing, damaged, or holds no pictures.
    """
    if not request.address:
        raise ValueError("imagefolder: needs a path, as in imagefolder:my/pictures")
    root = Path(request.address).expanduser()
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise ZooError(f"imagefolder: {root} {what}; expected a folder with one folder per class")

    if (root / "train").is_dir():
        class_names, paths, labels = _list_pictures(root / "train")
        train_items = len(paths)
        if (root / "test").is_dir():
            test_names, test_paths, test_labels = _list_pictures(root / "test")
            if test_names != class_names:
                differ = sorted(set(class_names) ^ set(test_names))
                raise ZooError(
                    f"imagefolder: {root}/train and {root}/test must have the same class "
                    f"folders, but only one of them has {listed(differ)}"
                )
            paths += test_paths
            labels = np.concatenate([labels, test_labels])
    else:
        class_names, paths, labels = _list_pictures(root)
        train_items = len(paths)

    return image_source(
        request,
        read_pictures(paths, request.size),
        labels,
        train_items,
        title=f"Image folder {root.resolve().name}",
        license="unknown",
        url="",
        citation="",
        class_names=class_names,
        path=root,
        files=tuple(path.relative_to(root).as_posix() for path in paths),
    )


def _list_pictures(
    folder: Path,
) -> tuple[tuple[str, ...], list[Path], Int64[np.ndarray, " item"]]:
    """Class names, picture files and class numbers, classes interleaved in proportion."""
    from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

    # Left to itself, torchvision takes .ipynb_checkpoints for a class and the ._ files that
    # macOS leaves behind for pictures.
    try:
        class_names = sorted(
            entry.name
            for entry in os.scandir(folder)
            if entry.is_dir() and not entry.name.startswith(".")
        )
    except OSError as error:
        raise ZooError(f"imagefolder: {folder} cannot be read: {error.strerror}") from error
    if not class_names:
        raise ZooError(
            f"imagefolder: {folder} has no class folders; expected {folder}/<class>/<picture>, "
            "a single folder if there are no classes"
        )
    numbers = {class_name: number for number, class_name in enumerate(class_names)}
    found = make_dataset(
        str(folder),
        numbers,
        is_valid_file=lambda file: (
            file.lower().endswith(IMG_EXTENSIONS) and not os.path.basename(file).startswith(".")
        ),
        allow_empty=True,
    )
    labels = np.array([number for _, number in found], np.int64)
    sizes = np.bincount(labels, minlength=len(class_names))
    empty = [class_name for class_name, items in zip(class_names, sizes, strict=True) if not items]
    if empty:
        raise ZooError(
            f"imagefolder: no pictures in {folder} for {listed(empty)}; expected files "
            f"{' '.join(IMG_EXTENSIONS)} in every class folder, so fill or remove the empty ones"
        )
    # `found` is sorted by class, so an item's rank is its distance from its class's first.
    rank = np.arange(len(labels)) - (np.cumsum(sizes) - sizes)[labels]
    order = np.lexsort((labels, (rank + 0.5) / sizes[labels]))
    return tuple(class_names), [Path(found[item][0]) for item in order], labels[order]
