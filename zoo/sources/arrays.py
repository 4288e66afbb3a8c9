"""Pictures of the user's own that are in memory already."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.sources.base import ImageSource, sha256_of

NAME = "arrays"


def of_arrays(
    pictures: NDArray[Any],
    labels: NDArray[Any] | Sequence[int] | None = None,
    class_names: Sequence[str] = (),
    title: str = "pictures given as arrays",
    license: str = "unknown",
) -> ImageSource:
    """A source of these pictures, all of them training items.

    Args:
        pictures: uint8, `item row column` or `item row column chan` of 1 or 3 channels.
        labels: the class of each, counted from 0; None for pictures without classes.
        class_names: of each class; by default the numbers.

    Raises:
        ValueError: if shapes, types or classes do not fit.
    """
    images = np.asarray(pictures)
    images = images[..., None] if images.ndim == 3 else images
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise ValueError(
            "expected pictures uint8 (item, row, column), or with 1 or 3 channels behind, got "
            f"{images.dtype} {np.asarray(pictures).shape}; other signals become a zoo by "
            "zoo.fit(inputs, targets).save(folder)"
        )
    if not images.size:
        raise ValueError(f"expected at least one picture and pixel, got {images.shape}")
    classes = np.zeros(len(images), np.int64)
    names = tuple(class_names)
    if labels is not None:
        given = np.asarray(labels)
        if given.shape != (len(images),) or given.dtype.kind not in "iu":
            raise ValueError(
                f"expected a whole number as label of each of {len(images)} pictures, got "
                f"{given.dtype} {given.shape}"
            )
        classes = given.astype(np.int64)
        names = names or tuple(str(number) for number in range(int(classes.max()) + 1))
        if classes.min() < 0 or classes.max() >= len(names):
            raise ValueError(
                f"expected labels from 0 to {len(names) - 1}, got {classes.min()} to "
                f"{classes.max()}"
            )
    images = np.ascontiguousarray(images)
    return ImageSource(
        name=NAME,
        title=title,
        license=license,
        url="",
        citation="",
        images=images,
        labels=classes,
        class_names=names,
        train_items=len(images),
        sha256=sha256_of(images, classes),
    )
