import io
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from zoo import png


def drawn(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Pictures with flat parts, slopes and noise."""
    draw = np.random.default_rng(seed)
    found = draw.integers(0, 256, shape, dtype=np.uint8)
    found[0] = np.linspace(0, 255, found[0].size).reshape(shape[1:]).astype(np.uint8)
    found[1, : shape[1] // 2] = 7
    return found


@pytest.mark.parametrize("shape", [(3, 28, 28, 1), (3, 9, 4, 3), (3, 1, 1, 1), (2, 1, 300, 3)])
def test_other_readers_see_the_same_pixels(shape):
    pictures = drawn(shape)
    for file, pixels in zip(png.encode(pictures), pictures, strict=True):
        with Image.open(io.BytesIO(file)) as opened:
            opened.load()
            assert opened.mode == ("L" if shape[3] == 1 else "RGB")
            np.testing.assert_array_equal(np.asarray(opened).reshape(pixels.shape), pixels)
        found = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_UNCHANGED)
        found = found if found.ndim == 2 else found[..., ::-1]
        np.testing.assert_array_equal(found.reshape(pixels.shape), pixels)


def test_files_are_short():
    """The pixels of a slope cost little as differences, those of a drawing as they are."""
    slope = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)[None, ..., None]
    drawing = np.zeros((1, 64, 64, 1), np.uint8)
    drawing[0, 20:40, 20:40] = 255
    assert len(png.encode(slope)[0]) < 200 < len(zlib.compress(slope.tobytes(), 9))
    assert len(png.encode(drawing)[0]) < 130


def test_equal_pixels_give_equal_bytes():
    pictures = drawn((4, 8, 8, 3))
    together = png.encode(pictures)
    assert together == [png.encode(pictures[at : at + 1])[0] for at in range(4)]
    assert png.encode(np.asfortranarray(pictures)) == together
    assert png.encode(pictures[:0]) == []


@pytest.mark.parametrize("shape", [(1, 4, 4, 2), (1, 4, 4, 4), (1, 0, 4, 1), (1, 4, 0, 3)])
def test_what_is_no_picture_is_refused(shape):
    with pytest.raises(ValueError, match="expected pictures"):
        png.encode(np.zeros(shape, np.uint8))
