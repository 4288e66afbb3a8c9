"""Decodes pictures and brings them to a size."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from zoo import machine
from zoo.errors import ZooError
from zoo.sources.base import ImageSource, Request, listed, sha256_of


def image_source(
    request: Request,
    images: UInt8[np.ndarray, "item row column chan"],
    labels: Int64[np.ndarray, " item"],
    train_items: int,
    **facts: Any,
) -> ImageSource:
    """The pictures of a source in the size asked for, and their hash."""
    size = request.size
    if size is not None and images.shape[1:3] != (size, size):
        images = np.stack([resize(image, size) for image in images])
    return ImageSource(
        name=request.name,
        images=images,
        labels=labels,
        train_items=train_items,
        sha256=sha256_of(images, labels),
        **facts,
    )


def read_pictures(
    paths: Sequence[Path], size: int | None
) -> UInt8[np.ndarray, "item row column chan"]:
    """All pictures in one array, which is all that is held beside a few single pictures."""
    import cv2

    threads = min(8, machine.threads())
    first: Path | None = None
    shape = (0, 0)
    images = np.empty((0, 0, 0, 1), np.uint8)
    broken: list[str] = []
    # OpenCV logs every failure with its source line; ours says which file it was.
    log_level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        with ThreadPoolExecutor(threads) as pool:
            # Few at a time: map() over all of them would decode far ahead of the copying.
            for start in range(0, len(paths), 4 * threads):
                block = paths[start : start + 4 * threads]
                decoded = pool.map(lambda path: _decode(path, size), block)
                for item, (path, picture) in enumerate(zip(block, decoded, strict=True), start):
                    if isinstance(picture, str):
                        broken.append(f"{path} ({picture})")
                        continue
                    if first is None:
                        first, shape = path, picture.shape[:2]
                        images = np.empty((len(paths), *shape, 1), np.uint8)
                    if picture.shape[:2] != shape:
                        raise ValueError(
                            f"imagefolder: pictures differ in size: {first} has {shape[0]} rows "
                            f"and {shape[1]} columns, {path} {picture.shape[0]} and "
                            f"{picture.shape[1]}; pass --size N to crop and resize them to N x N"
                        )
                    if picture.shape[2] > images.shape[3]:
                        images = _grey_to_colour(images, item)
                    images[item] = picture
    finally:
        cv2.utils.logging.setLogLevel(log_level)
    if broken:
        raise ZooError(
            f"imagefolder: {len(broken)} of {len(paths)} pictures cannot be used: "
            f"{listed(broken)}; repair or remove them"
        )
    return images


def _grey_to_colour(
    images: UInt8[np.ndarray, "item row column 1"], filled: int
) -> UInt8[np.ndarray, "item row column 3"]:
    """The same memory grown to three channels, the first `filled` items repeated in them."""
    item, row, column, _ = images.shape
    pixels = row * column
    # In place, since a second array would double the memory of a large set. The check is
    # off because it counts the caller's name for it, which the caller then rebinds.
    images.resize(item * pixels * 3, refcheck=False)
    # From the back, so that no item is overwritten before it has moved.
    for at in reversed(range(filled)):
        grey = images[at * pixels : (at + 1) * pixels]
        images[at * pixels * 3 : (at + 1) * pixels * 3] = np.repeat(grey, 3)
    return images.reshape(item, row, column, 3)


def _decode(path: Path, size: int | None) -> UInt8[np.ndarray, "row column chan"] | str:
    """One picture, or in a few words why not."""
    import cv2

    try:
        # Not cv2.imread: it takes a JPEG that breaks off halfway, grey below, for whole.
        content = np.frombuffer(path.read_bytes(), np.uint8)
        # These flags drop alpha and apply an EXIF orientation; IMREAD_UNCHANGED does neither.
        picture = cv2.imdecode(content, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except cv2.error:
        return "damaged, or not a picture"
    if picture is None:
        return "damaged, or not a picture"
    if picture.dtype == np.uint16:
        # 65535 = 255 * 257, an odd number: no ties to round.
        picture = ((picture.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if picture.dtype != np.uint8:
        return f"{picture.dtype} pixels, expected 8 or 16 bits without sign"
    if picture.ndim == 3:
        picture = picture[..., ::-1]  # OpenCV's order is BGR
        if (picture == picture[..., :1]).all():
            picture = picture[..., 0]
    if picture.ndim == 2:
        picture = picture[..., None]
    return picture if size is None else resize(picture, size)


def resize(
    image: UInt8[np.ndarray, "row column chan"], size: int
) -> UInt8[np.ndarray, "{size} {size} chan"]:
    """The largest centred square, resized."""
    import cv2

    row, column, chan = image.shape
    side = min(row, column)
    top, left = (row - side) // 2, (column - side) // 2
    square = np.ascontiguousarray(image[top : top + side, left : left + side])
    if side != size:
        how = cv2.INTER_AREA if size < side else cv2.INTER_LINEAR
        square = cv2.resize(square, (size, size), interpolation=how)
    return square.reshape(size, size, chan)
