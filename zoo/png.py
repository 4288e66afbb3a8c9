"""Pictures as PNG files: OpenCV's, with the settings that keep small pictures short."""

import numpy as np
from jaxtyping import UInt8


def encode(pictures: UInt8[np.ndarray, "net row column chan"], level: int = 9) -> list[bytes]:
    """Each picture as a PNG file of 8 bits, grey or RGB; equal pixels give equal bytes.

    Args:
        pictures: at least a pixel each, of one or three channels.
        level: of zlib.

    Raises:
        ValueError: for other shapes.
    """
    import cv2

    rows, columns, chan = pictures.shape[1:]
    if chan not in (1, 3) or not rows or not columns:
        raise ValueError(f"expected pictures (net, row, column, 1 or 3), got {pictures.shape}")
    # 850 bytes for a digit and its network, where OpenCV's default takes 980.
    strategy = (cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_FILTERED)
    flags = (cv2.IMWRITE_PNG_COMPRESSION, level, *strategy)
    # OpenCV takes blue, green, red.
    ordered = np.ascontiguousarray(pictures[..., ::-1])
    return [cv2.imencode(".png", picture, flags)[1].tobytes() for picture in ordered]
