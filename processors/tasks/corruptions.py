"""Corrupted copies of pictures: rotation, flips, colour jitter, Gaussian noise.

Every picture draws numbers of its own, all of a set at once: torchvision's transforms do
the same to one picture at a time, and a test holds both beside each other.
"""

from collections.abc import Iterator
from math import pi

import torch
from jaxtyping import Bool, Float, Shaped, UInt8
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

# Of strength 1: degrees to either side, what the factors of brightness, contrast and
# saturation differ from 1 by, turns of the hue, deviation of the noise (white is 1).
DEGREES, JITTER, HUE, NOISE = 30.0, 0.4, 0.1, 0.1
# Part of what is drawn: the numbers of a picture depend on its place in its chunk.
_CHUNK = 1000
_GREY = (0.2989, 0.587, 0.114)

Pictures = Float[Tensor, "item chan row column"]


def flip_chance(strength: float) -> float:
    """Of a flip along an axis: one half, or half the strength below 1, so that 0 has none."""
    return min(0.5, 0.5 * strength)


def corrupt(
    images: UInt8[Tensor, "item row column chan"], strength: float, seed: int, flips: bool = True
) -> UInt8[Tensor, "item chan row column"]:
    """Every picture rotated, flipped, jittered and with noise, in this order.

    Args:
        images: 0..255; grey ones keep their hue and saturation, being without any.
        strength: factor on all ranges; that of flips is `flip_chance`.
        seed: the same one gives the same pictures.
        flips: whether any are flipped. It is the same to flip them afterwards, the angles
            being as likely to either side and the noise alike everywhere.

    Raises:
        ValueError: for a negative strength.
    """
    if strength < 0:
        raise ValueError(f"strength must not be negative, got {strength}")
    generator = torch.Generator().manual_seed(seed)
    parts = [_corrupt(chunk, strength, generator, flips) for chunk in images.split(_CHUNK)]
    return torch.cat(parts)


def _corrupt(
    images: UInt8[Tensor, "item row column chan"],
    strength: float,
    generator: torch.Generator,
    flips: bool,
) -> UInt8[Tensor, "item chan row column"]:
    x = images.permute(0, 3, 1, 2).float() / 255
    signed = (torch.rand(5, len(x), generator=generator) * 2 - 1) * strength
    draws = torch.rand(2, len(x), generator=generator)
    x = rotate(x, signed[0] * DEGREES)
    if flips:
        x = flip(x, draws < flip_chance(strength))
    factors = iter((1 + signed[1:4] * JITTER).clamp(min=0))
    x = blend(x, torch.zeros(()), next(factors))
    x = blend(x, grey(x).mean(dim=(1, 2, 3), keepdim=True), next(factors))
    if x.shape[1] == 3:
        x = blend(x, grey(x), next(factors))
        x = turn_hue(x, (signed[4] * HUE).clamp(-0.5, 0.5))
    x = x + torch.randn(x.shape, generator=generator) * (strength * NOISE)
    return (x.clamp(0, 1) * 255).round().to(torch.uint8)


def rotate(x: Pictures, degrees: Float[Tensor, " item"]) -> Pictures:
    """Each picture turned counter-clockwise about its centre, bilinear; corners are black."""
    angle = degrees * (pi / 180)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    row, column = x.shape[2:]
    # Coordinates run over [-1, 1] whatever the sides.
    turn = torch.stack([cos, -sin * row / column, zero, sin * column / row, cos, zero], dim=1)
    grid = affine_grid(turn.view(-1, 2, 3), list(x.shape), align_corners=False)
    return grid_sample(x, grid, align_corners=False)


def flip(
    x: Shaped[Tensor, "*items chan row column"], chosen: Bool[Tensor, "2 *items"]
) -> Shaped[Tensor, "*items chan row column"]:
    """The chosen pictures flipped along columns, then those chosen for it along rows."""
    for axis, ones in zip((-1, -2), chosen, strict=True):
        x = torch.where(ones[..., None, None, None], x.flip(axis), x)
    return x


def grey(x: Pictures) -> Float[Tensor, "item 1 row column"]:
    """The brightness of each pixel."""
    if x.shape[1] == 1:
        return x
    return torch.einsum("ncij,c->nij", x, torch.tensor(_GREY))[:, None]


def blend(x: Pictures, other: Float[Tensor, "..."], factor: Float[Tensor, " item"]) -> Pictures:
    """`factor` of the picture and the rest of `other`: brightness, contrast, saturation."""
    return torch.lerp(other.expand_as(x), x, factor[:, None, None, None]).clamp(0, 1)


def turn_hue(x: Pictures, turns: Float[Tensor, " item"]) -> Pictures:
    """The hue of every pixel moved on by a part of the circle; value and chroma stay."""
    high, low = x.amax(dim=1), x.amin(dim=1)
    chroma = high - low
    red, green, blue = x.unbind(dim=1)
    safe = chroma.clamp(min=1e-12)
    sixths = torch.where(
        high == red,
        (green - blue) / safe,
        torch.where(high == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    sixths = sixths + 6 * turns[:, None, None]

    def channels() -> Iterator[Tensor]:
        for start in (5, 3, 1):
            place = (sixths + start) % 6
            yield high - chroma * torch.minimum(place, 4 - place).clamp(0, 1)

    return torch.stack(list(channels()), dim=1)
