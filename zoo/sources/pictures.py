"""Decodes pictures, says what had to be changed in them, and brings them to a size.

16 bits (and 10 or 12 of an AVIF, or any number of a PGM) are rounded to 8, alpha is dropped
(not blended), of several frames the first is taken, an orientation is applied, CMYK and
palettes become RGB. What OpenCV would get wrong is refused. One channel if no picture has a
pixel with unequal channels, else three.
"""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from zoo import machine
from zoo.errors import ZooError
from zoo.sources import formats
from zoo.sources.base import Frame, ImageSource, Request, listed, sha256_of

THREADS = 8  # reading from a disk gains nothing from more

# What is said of pictures that are not taken as they are.
ALPHA = "with transparency: alpha was dropped, not blended"
MULTIPLIED = "a TIFF with transparency: its colours are multiplied by alpha"
FRAMES = "of several frames or pages: the first was taken"
DEEP = "of more than 8 bits: rounded to 8"
RESIZED = {
    "crop": "cropped to the largest centred part of {columns}x{rows} shape and resized",
    "pad": "resized as a whole to {columns}x{rows}, with black on two sides",
    "stretch": "resized as a whole to {columns}x{rows}, which distorts them",
}


def image_source(
    request: Request,
    images: UInt8[np.ndarray, "item row column chan"],
    labels: Int64[np.ndarray, " item"],
    train_items: int,
    **facts: Any,
) -> ImageSource:
    """The pictures of a source in the size asked for, and their hash."""
    frame = request.frame
    if frame is not None and images.shape[1:3] != (frame.rows, frame.columns):
        images = np.stack([resize(image, frame) for image in images])
    return ImageSource(
        name=request.name,
        images=images,
        labels=labels,
        train_items=train_items,
        sha256=sha256_of(images, labels),
        **facts,
    )


@dataclass(frozen=True)
class Picture:
    """One picture, and what is to be said of it."""

    pixels: UInt8[np.ndarray, "row column chan"]
    notes: tuple[str, ...]


class _Unusable(Exception):
    """Why a file cannot be used, in a few words."""


def read_pictures(
    paths: Sequence[Path], frame: Frame | None, older: bool = False
) -> tuple[UInt8[np.ndarray, "item row column chan"], tuple[str, ...]]:
    """All pictures in one array, and in sentences what had to be changed in them.

    Beside the array only a few single pictures are held at a time.

    Args:
        older: take values that OpenCV gets wrong as they are, as 324dc88 did.

    Raises:
        ValueError: if pictures differ in size and no frame is given.
        ZooError: if a picture cannot be used; all such are named.
    """
    import cv2

    threads = min(THREADS, machine.threads())
    first: Path | None = None
    shape = (0, 0)
    images = np.empty((0, 0, 0, 1), np.uint8)
    broken: list[str] = []
    notes: Counter[str] = Counter()
    # OpenCV logs every failure with its source line; ours says which file it was.
    log_level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        with ThreadPoolExecutor(threads) as pool:
            # Few at a time: map() over all of them would decode far ahead of the copying.
            for start in range(0, len(paths), 4 * threads):
                block = paths[start : start + 4 * threads]
                decoded = pool.map(lambda path: _open(path, frame, older), block)
                for item, (path, picture) in enumerate(zip(block, decoded, strict=True), start):
                    if isinstance(picture, str):
                        broken.append(f"{path} ({picture})")
                        continue
                    pixels = picture.pixels
                    notes.update(picture.notes)
                    if first is None:
                        first, shape = path, pixels.shape[:2]
                        images = np.empty((len(paths), *shape, 1), np.uint8)
                    if pixels.shape[:2] != shape:
                        raise ValueError(
                            f"imagefolder: pictures differ in size: {first} has {shape[0]} rows "
                            f"and {shape[1]} columns, {path} {pixels.shape[0]} and "
                            f"{pixels.shape[1]}; pass --size N (the largest centred square, "
                            "resized to N x N) or --size WxH, with --fit pad or stretch to crop "
                            "nothing"
                        )
                    if pixels.shape[2] > images.shape[3]:
                        images = _grey_to_colour(images, item)
                    images[item] = pixels
    finally:
        cv2.utils.logging.setLogLevel(log_level)
    if broken:
        raise ZooError(
            f"imagefolder: {len(broken)} of {len(paths)} pictures cannot be used: "
            f"{listed(broken)}; repair or remove them"
        )
    return images, tuple(sentence(note, count) for note, count in sorted(notes.items()))


def sentence(note: str, count: int) -> str:
    """What is said of so many pictures.

    >>> sentence(DEEP, 3)
    '3 pictures of more than 8 bits: rounded to 8'
    """
    return f"{count:,} picture{'s' * (count != 1)} {note}"


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


def _open(path: Path, frame: Frame | None, older: bool) -> Picture | str:
    """One picture in its frame, or in a few words why not."""
    try:
        # Not cv2.imread: it takes a JPEG that breaks off halfway, grey below, for whole.
        content = path.read_bytes()
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    try:
        picture = decode(content, older)
    except _Unusable as error:
        return str(error)
    pixels, notes = picture.pixels, list(picture.notes)
    if frame is not None and pixels.shape[:2] != (frame.rows, frame.columns):
        row, column, _ = pixels.shape
        same_shape = row * frame.columns == column * frame.rows
        if not same_shape:
            notes.append(RESIZED[frame.fit].format(columns=frame.columns, rows=frame.rows))
        pixels = resize(pixels, frame)
    return Picture(pixels, tuple(notes))


def decode(content: bytes, older: bool = False) -> Picture:
    """The picture in a file's content, and what had to be changed in it."""
    import cv2

    format = formats.format_of(content)
    wrong = None if older else formats.wrong_colours(content, format)
    if wrong:
        raise _Unusable(wrong)
    # These flags drop alpha and apply an EXIF orientation; IMREAD_UNCHANGED does neither.
    flags = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH
    if format == "avif":
        flags = cv2.IMREAD_ANYCOLOR  # its 10 or 12 bits would come as they are, without their range
    notes = [FRAMES] if formats.has_frames(content, format) else []
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
        if formats.has_alpha(content, format) and _transparent(content):
            notes.append(MULTIPLIED if format == "tiff" else ALPHA)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise _Unusable(formats.what_else(content))
    peak = None if older else formats.pnm_peak(content)
    if peak not in (None, 255, 65535):
        pixels = np.rint(pixels * (255.0 / peak)).clip(0, 255).astype(np.uint8)
    if pixels.dtype == np.uint16:
        # 65535 = 255 * 257, an odd number: no ties to round.
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
        notes.append(DEEP)
    if pixels.dtype != np.uint8:
        raise _Unusable(f"{pixels.dtype} pixels, expected 8 or 16 bits without sign")
    if pixels.ndim == 3:
        pixels = pixels[..., ::-1]  # OpenCV's order is BGR
        if (pixels == pixels[..., :1]).all():
            pixels = pixels[..., 0]
    return Picture(pixels[..., None] if pixels.ndim == 2 else pixels, tuple(notes))


def _transparent(content: bytes) -> bool:
    """Whether any pixel is; many pictures have an alpha that is opaque all over."""
    import cv2

    whole = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if whole is None or whole.ndim != 3 or whole.shape[2] != 4:
        return False
    return bool((whole[..., 3] < np.iinfo(whole.dtype).max).any())


def resize(
    image: UInt8[np.ndarray, "row column chan"], frame: Frame
) -> UInt8[np.ndarray, "row_ column_ chan"]:
    """A picture brought to a frame, by area averaging to shrink and linearly to grow."""
    import cv2

    row, column, chan = image.shape
    rows, columns = frame.rows, frame.columns
    tall, wide = rows, columns  # of the part of the frame that the picture fills
    if frame.fit == "crop":
        high = min(row, max(1, round(column * rows / columns)))
        long = min(column, max(1, round(row * columns / rows)))
        top, left = (row - high) // 2, (column - long) // 2
        image = image[top : top + high, left : left + long]
    elif frame.fit == "pad":
        tall = min(rows, max(1, round(row * columns / column)))
        wide = min(columns, max(1, round(column * rows / row)))
    image = np.ascontiguousarray(image)
    if image.shape[:2] != (tall, wide):
        shrinks = tall < image.shape[0] or wide < image.shape[1]
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        image = cv2.resize(image, (wide, tall), interpolation=how)
    image = image.reshape(tall, wide, chan)
    if (tall, wide) == (rows, columns):
        return image
    whole = np.zeros((rows, columns, chan), np.uint8)
    top, left = (rows - tall) // 2, (columns - wide) // 2
    whole[top : top + tall, left : left + wide] = image
    return whole
