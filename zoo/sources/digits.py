"""Scikit-learn's handwritten digits, which need no download."""

from typing import Any

import numpy as np

from zoo.sources.base import ImageSource, Request
from zoo.sources.pictures import image_source

FACTS: dict[str, Any] = {
    "title": "Digits (optical recognition of handwritten digits, UCI; scikit-learn's copy)",
    "license": "cc-by-4.0",
    "url": "https://doi.org/10.24432/C50P49",
    "citation": "Alpaydin and Kaynak 1998, Optical recognition of handwritten digits, "
    "UCI Machine Learning Repository, doi:10.24432/C50P49",
    "class_names": tuple("0123456789"),
}


def open_digits(request: Request) -> ImageSource:
    """All of them are training items; their counts 0..16 become 0..255, rounded."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * 255.0 / 16.0).astype(np.uint8)[..., None]
    labels = digits.target.astype(np.int64)
    return image_source(request, images, labels, len(images), **FACTS)
