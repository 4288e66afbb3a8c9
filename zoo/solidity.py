"""How well a field of a shape agrees with the shape, on points that it was not fitted to."""

import numpy as np
from jaxtyping import Bool, Float, Float64


def iou(
    found: Bool[np.ndarray, "net point"], true: Bool[np.ndarray, "net point"]
) -> Float64[np.ndarray, " net"]:
    """Points that lie in both of two sets over points that lie in either; 1 if none does.

    >>> iou(np.array([[True, True, False]]), np.array([[True, False, False]]))
    array([0.5])
    """
    both = np.count_nonzero(found & true, axis=1)
    either = np.count_nonzero(found | true, axis=1)
    return np.where(either > 0, both / np.maximum(either, 1), 1.0)


def distance_error(
    found: Float[np.ndarray, "net point"], true: Float[np.ndarray, "net point"]
) -> Float64[np.ndarray, " net"]:
    """The mean of how far distances are from the true ones, in their units.

    >>> distance_error(np.array([[0.5, 0.0]]), np.array([[0.25, 0.25]]))
    array([0.25])
    """
    return np.abs(found.astype(np.float64) - true).mean(axis=1)
