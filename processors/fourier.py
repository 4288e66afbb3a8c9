"""Gaussian Fourier features, [sin, cos](2 pi x B), made in pieces and never kept.

A network of a thousand entries has a megabyte of them, which a linear map and two pools read
once. So they are computed for a few entries at a time, while they are in the cache, and again
in backward: `features` keeps its inputs alone, and `mixed` gives what an equivariant layer
takes from the features of a matrix, without making more than a piece of them.

Sines and cosines of float32 on a CPU are those of `processors.sines`: the error is that of x B
and some 5e-7, where the sine of a rounded phase of hundreds of radians is off by 1e-5. Elsewhere
they are torch's.
"""

from collections.abc import Iterator
from math import pi
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from processors.base import traced

# Numbers in one piece of features: a megabyte in the cache, or what fills a GPU.
_PIECE = {"cpu": 2**18}
_PIECE_ELSEWHERE = 2**25


def features(
    x: Float[Tensor, "*entry chan"], frequencies: Float[Tensor, "chan half"]
) -> Float[Tensor, "*entry feat"]:
    """The sines, then the cosines of 2 pi x B of every entry; backward computes them again."""
    if traced():
        return _plainly(x, frequencies)
    found: Tensor = _Features.apply(x, frequencies)  # type: ignore[no-untyped-call]
    return found


def mixed(
    x: Float[Tensor, "net first second"],
    frequencies: Float[Tensor, "half"],
    weight: Float[Tensor, "out feat"],
) -> tuple[
    Float[Tensor, "net first second out"],
    Float[Tensor, "net first feat"],
    Float[Tensor, "net second feat"],
]:
    """What a layer takes from the features of a matrix.

    Their product with `weight`, in its precision, and their sums over the second and over the
    first axis.
    """
    if traced():
        found = _plainly(x[..., None], frequencies[None])
        return found.to(weight.dtype) @ weight.T, found.sum(2), found.sum(1)
    three: tuple[Tensor, Tensor, Tensor] = _Mixed.apply(x, frequencies, weight)  # type: ignore[no-untyped-call]
    return three


def _plainly(x: Tensor, frequencies: Tensor) -> Tensor:
    """The features at once, in operations that torch differentiates."""
    # Not a matmul: autocast would round its inputs to bfloat16.
    products = (
        row * channel[..., None] for row, channel in zip(frequencies, x.unbind(-1), strict=True)
    )
    phase = 2 * pi * sum(products, start=x.new_zeros(()))
    return torch.cat([phase.sin(), phase.cos()], dim=-1)


class Waves:
    """Computes the features of one piece of entries after the other, in the same memory."""

    def __init__(self, frequencies: Float[Tensor, "chan half"], entries: int):
        self.frequencies = frequencies.detach()
        half = frequencies.shape[1]
        self._fast = frequencies.device.type == "cpu" and frequencies.dtype == torch.float32
        self._memory = frequencies.new_empty(2 if self._fast else 3, entries, half)

    def __call__(
        self, x: Float[Tensor, "entry chan"]
    ) -> tuple[Float[Tensor, "entry half"], Float[Tensor, "entry half"]]:
        """Sines and cosines, which the next call overwrites."""
        sine, cosine, *more = self._memory[:, : len(x)]
        if self._fast:
            # Numba takes a second to import, and is wanted here alone.
            from processors.sines import fill

            fill(*(each.detach().numpy() for each in (x, self.frequencies, sine, cosine)))
            return sine, cosine
        turns = torch.mul(x[:, :1], self.frequencies[0], out=more[0])
        for number in range(1, x.shape[1]):
            turns.addcmul_(x[:, number : number + 1], self.frequencies[number])
        turns.mul_(2 * pi)
        return torch.sin(turns, out=sine), torch.cos(turns, out=cosine)


def _size(device: torch.device, features: int) -> int:
    """How many entries make one piece."""
    return max(1, _PIECE.get(device.type, _PIECE_ELSEWHERE) // max(features, 1))


def _to_inputs(
    frequencies: Tensor, sine: Tensor, cosine: Tensor, to_sine: Tensor, to_cosine: Tensor
) -> Float[Tensor, "entry chan"]:
    """The gradient of a piece of inputs."""
    slope = (cosine * to_sine).addcmul_(sine, to_cosine, value=-1)
    return torch.mm(slope, frequencies.T).mul_(2 * pi)


class _Features(torch.autograd.Function):
    """`features`, of which only the inputs are kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, frequencies: Tensor) -> Tensor:
        ctx.save_for_backward(x, frequencies)
        half = frequencies.shape[1]
        found = x.new_empty(*x.shape[:-1], 2 * half)
        size = _size(x.device, 2 * half)
        waves = Waves(frequencies, min(size, x[..., 0].numel()))
        flat = found.view(-1, 2 * half)
        for piece, out in zip(
            x.reshape(-1, x.shape[-1]).split(size), flat.split(size), strict=True
        ):
            sine, cosine = waves(piece)
            out[:, :half], out[:, half:] = sine, cosine
        return found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None]:
        x, frequencies = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _again(lambda: _plainly(x, frequencies), (x,), (grad,))[0], None
        half = frequencies.shape[1]
        size = _size(x.device, 2 * half)
        waves = Waves(frequencies, min(size, x[..., 0].numel()))
        inputs, grads = x.reshape(-1, x.shape[-1]), grad.reshape(-1, 2 * half)
        with torch.autocast(x.device.type, enabled=False):
            parts = [
                _to_inputs(frequencies, *waves(piece), to[:, :half], to[:, half:])
                for piece, to in zip(inputs.split(size), grads.split(size), strict=True)
            ]
        return torch.cat(parts).view(x.shape), None


def _pieces(x: Float[Tensor, "net first second"], size: int) -> Iterator[tuple[slice, slice]]:
    """Networks and rows of each piece: of `size` entries at most, if a row has not more."""
    nets, first, second = x.shape
    rows = min(first, max(1, size // max(second, 1)))
    together = max(1, size // max(first * second, 1)) if rows == first else 1
    for net in range(0, nets, together):
        for row in range(0, first, rows):
            yield slice(net, min(net + together, nets)), slice(row, min(row + rows, first))


class _Mixed(torch.autograd.Function):
    """`mixed`: forward and backward both go through the pieces once."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, frequencies: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(x, frequencies, weight)
        ctx.set_materialize_grads(False)
        half = len(frequencies)
        nets, first, second = x.shape
        product = weight.new_empty(nets, first, second, len(weight))
        over_second = x.new_empty(nets, first, 2 * half)
        over_first = x.new_zeros(2, nets, second, half)
        parts = (slice(half), slice(half, None))
        rounded = weight.dtype != x.dtype
        transposed = [weight[:, part].T for part in parts]
        with torch.autocast(x.device.type, enabled=False):
            for net, row, waves in _walk(x, frequencies):
                into = product[net, row].view(-1, len(weight))
                block = x[net, row].shape
                if rounded:
                    torch.mm(torch.cat(waves, dim=1).to(weight.dtype), weight.T, out=into)
                for number, (wave, part) in enumerate(zip(waves, parts, strict=True)):
                    if not rounded:
                        torch.addmm(into, wave, transposed[number], beta=number, out=into)
                    shaped = wave.view(*block, half)
                    torch.sum(shaped, 2, out=over_second[net, row, part])
                    # As a product with ones, which is faster.
                    ones = wave.new_ones(1, 1, 1).expand(block[0], 1, block[1])
                    total = over_first[number, net].view(block[0], 1, second * half)
                    torch.baddbmm(total, ones, shaped.flatten(2), out=total)
        over_first = torch.cat(over_first.unbind(), dim=-1)
        if not ctx.needs_input_grad[0]:
            # Else whoever reads them would work out gradients that end here.
            ctx.mark_non_differentiable(over_second, over_first)
        return product, over_second, over_first

    @staticmethod
    def backward(
        ctx: Any, to_product: Tensor | None, to_second: Tensor | None, to_first: Tensor | None
    ) -> tuple[Tensor | None, None, Tensor | None]:
        x, frequencies, weight = ctx.saved_tensors
        grads = (to_product, to_second, to_first)
        if torch.is_grad_enabled():
            given = [(place, grad) for place, grad in enumerate(grads) if grad is not None]
            again = _again(
                lambda: _of_places(x, frequencies, weight, [place for place, _ in given]),
                (x, weight),
                tuple(grad for _, grad in given),
            )
            return again[0], None, again[1]
        half = len(frequencies)
        to_x = torch.zeros_like(x) if ctx.needs_input_grad[0] else None
        to_weight = None
        if ctx.needs_input_grad[2] and to_product is not None:
            to_weight = torch.zeros_like(weight, dtype=frequencies.dtype)
        if to_x is None and to_weight is None:
            return None, None, None
        with torch.autocast(x.device.type, enabled=False):
            for net, row, waves in _walk(x, frequencies):
                block = x[net, row].shape
                to = None
                if to_product is not None:
                    to = to_product[net, row].reshape(-1, len(weight))
                if to_weight is not None and to is not None:
                    for wave, place in zip(waves, to_weight.split(half, dim=1), strict=True):
                        if weight.dtype == place.dtype:
                            place.addmm_(to.T, wave)
                        else:
                            place += to.T @ wave.to(weight.dtype)
                if to_x is not None:
                    found = x.new_zeros(*block, 2 * half)
                    if to is not None:
                        found = (to @ weight).to(x.dtype).view(*block, 2 * half)
                    if to_second is not None:
                        found += to_second[net, row, None]
                    if to_first is not None:
                        found += to_first[net, None]
                    halves = found.view(-1, 2 * half).split(half, dim=1)
                    to_x[net, row] = _to_inputs(frequencies[None], *waves, *halves).view(block)
        return to_x, None, None if to_weight is None else to_weight.to(weight.dtype)


def _walk(
    x: Float[Tensor, "net first second"], frequencies: Float[Tensor, "half"]
) -> Iterator[tuple[slice, slice, tuple[Tensor, Tensor]]]:
    """Each piece's networks and rows, its sines and its cosines."""
    size = _size(x.device, 2 * len(frequencies))
    waves = Waves(frequencies[None], max(size, x.shape[2]))
    for net, row in _pieces(x, size):
        yield net, row, waves(x[net, row].reshape(-1, 1))


def _of_places(x: Tensor, frequencies: Tensor, weight: Tensor, places: list[int]) -> list[Tensor]:
    found = _plainly(x[..., None], frequencies[None])
    three = (found.to(weight.dtype) @ weight.T, found.sum(2), found.sum(1))
    return [three[place] for place in places]


def _again(
    compute: Any, inputs: tuple[Tensor, ...], grads: tuple[Tensor, ...]
) -> list[Tensor | None]:
    """Gradients that can be differentiated again, from the plain operations."""
    wanted = [tensor for tensor in inputs if tensor.requires_grad]
    found = compute()
    several = list(found) if isinstance(found, (list, tuple)) else [found]
    slopes = iter(torch.autograd.grad(several, wanted, grads, create_graph=True, allow_unused=True))
    return [next(slopes) if tensor.requires_grad else None for tensor in inputs]
