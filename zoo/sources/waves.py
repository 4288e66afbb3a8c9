"""Sine waves, drawn from a seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64
from numpy.typing import NDArray

from zoo import philox
from zoo.sources.base import Drawn, sha256_of

FACTS: dict[str, Any] = {
    "title": "Sine waves a*sin(b*x)",
    "license": "cc0-1.0",
    "url": "",
    "citation": "Drawn by wszoo as in Navon et al. 2023, Equivariant architectures for "
    "learning in deep weight spaces, ICML",
}


@dataclass(frozen=True, eq=False)
class SineSource(Drawn):
    """Waves a*sin(b*x); see `load_sine`.

    Attributes:
        coefs: columns amplitude a and frequency b (radians per unit of x).
        inputs: x, evenly spaced on [-pi, pi], ends included.
        sha256: over shapes and bytes of `coefs` and `inputs`.
        labels: none, and hence no class names.
    """

    name: str
    title: str
    license: str
    url: str
    citation: str
    coefs: Float64[np.ndarray, "item 2"]
    inputs: Float32[np.ndarray, "point 1"]
    sha256: str
    class_names: tuple[str, ...] = ()
    labels: None = None

    def __len__(self) -> int:
        """Number of items."""
        return len(self.coefs)

    def items(self, chosen: Int64[np.ndarray, " item"]) -> Float64[np.ndarray, "item 2"]:
        """Amplitude and frequency of the chosen waves."""
        return self.coefs[chosen]

    def columns(self, chosen: Int64[np.ndarray, " item"]) -> dict[str, NDArray[Any]]:
        """Amplitude and frequency of the chosen waves, as they stand in rows."""
        coefs = self.coefs[chosen].astype(np.float32)
        return {"amplitude": coefs[:, 0], "frequency": coefs[:, 1]}

    def targets(
        self, items: Int64[np.ndarray, " item"] | Sequence[int]
    ) -> Float32[np.ndarray, "item point 1"]:
        """a*sin(b*x) of these items at `inputs`, computed in float64 and rounded once."""
        amplitude, frequency = self.coefs[np.asarray(items, np.int64)].T[:, :, None, None]
        return (amplitude * np.sin(frequency * self.inputs.astype(np.float64))).astype(np.float32)


def load_sine(
    count: int,
    points: int,
    amplitude: tuple[float, float] | None,
    frequency: tuple[float, float],
    seed: int,
) -> SineSource:
    """`count` waves a*sin(b*x), a and b uniform, each wave's drawn from (seed, its index).

    A wave does not depend on `count`, and its frequency not on whether a is drawn.

    Args:
        points: number of x, evenly spaced on [-pi, pi], ends included.
        amplitude: range (low, high) of a; None, like (1, 1), for a = 1.
        frequency: range (low, high) of b, radians per unit of x.

    Raises:
        ValueError: if count < 1, points < 2, or a range is not (low, high) with low <= high.
    """
    if count < 1 or points < 2:
        raise ValueError(f"need count >= 1 and points >= 2, got count {count}, points {points}")
    ranges = np.array([amplitude or (1.0, 1.0), frequency], np.float64)
    for label, (low, high) in zip(("amplitude", "frequency"), ranges, strict=True):
        if not (np.isfinite([low, high]).all() and low <= high):
            raise ValueError(f"{label} must be (low, high) with low <= high, got ({low}, {high})")

    items = np.arange(count, dtype=np.int64)
    u = philox.uniforms(seed, 0, items, np.zeros_like(items), philox.HYPER, 2)
    coefs = ranges[:, 0] + u * (ranges[:, 1] - ranges[:, 0])
    inputs = np.linspace(-np.pi, np.pi, points).astype(np.float32)[:, None]
    return SineSource(
        name="sine", coefs=coefs, inputs=inputs, sha256=sha256_of(coefs, inputs), **FACTS
    )
