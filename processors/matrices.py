"""What equivariant layers do with matrices of features, in pieces that fit into the cache.

`net first second chan` is by far the largest thing that a layer reads and writes. `rectified`
goes through it once, a few networks or rows of one at a time: product, what is added to rows and
columns, ReLU and the sums that the next layer asks for; backward does likewise, and no gradient
but that of the matrix is of its size. `joined` is a linear map of tensors side by side that
never joins them.

Both have second derivatives, and are plain operations for whoever traces them.
"""

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from processors.base import traced
from processors.fourier import Waves, features

# Numbers of a matrix in one piece: half a megabyte in the cache, or what fills a GPU.
_PIECE = {"cpu": 2**17}
_PIECE_ELSEWHERE = 2**26
# So many times as much, where a piece is rows of one network.
_ROWS = 4


class Lifted(NamedTuple):
    """Entries whose Fourier features are the inputs of a product, see `fourier.mixed`."""

    entries: Float[Tensor, "net first second"]
    frequencies: Float[Tensor, "half"]


def rectified(
    x: Float[Tensor, "net first second feat"],
    weight: Float[Tensor, "chan inp"] | None,
    first: Float[Tensor, "net first chan"] | None,
    second: Float[Tensor, "net second chan"] | None,
    whole: bool = True,
    lifted: Lifted | None = None,
) -> tuple[
    Float[Tensor, "net first second chan"] | None,
    Float[Tensor, "net first chan"],
    Float[Tensor, "net second chan"],
]:
    """relu(x W^T + first + second), and its sums over the second and over the first axis.

    Args:
        weight: None if x has been multiplied already; it is overwritten then.
        whole: whether the first of the three is wanted; else it is None, and never kept.
        lifted: x is the product of their features with `weight`, which backward makes again;
            neither has a gradient of its own, and x is overwritten.
    """
    if traced():
        y, over_second, over_first = _plainly(x, weight, first, second)
        return y if whole else None, over_second, over_first
    product = None if lifted is None else (x,)
    inputs = x if lifted is None else lifted.entries
    frequencies = None if lifted is None else lifted.frequencies
    kept = whole or weight is None
    three: tuple[Tensor | None, Tensor, Tensor] = _Rectified.apply(  # type: ignore[no-untyped-call]
        inputs, weight, first, second, kept, product, frequencies
    )
    return three


def _plainly(
    x: Tensor, weight: Tensor | None, first: Tensor | None, second: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    y = x if weight is None else x @ weight.T
    if first is not None:
        y = y + first[:, :, None]
    if second is not None:
        y = y + second[:, None]
    y = y.relu()
    return y, y.sum(2), y.sum(1)


class _Piece(NamedTuple):
    """Some networks, or one network's rows from `rows.start` on."""

    nets: slice
    rows: slice

    @property
    def shape(self) -> tuple[int, int]:
        return self.nets.stop - self.nets.start, self.rows.stop - self.rows.start

    @property
    def place(self) -> tuple[slice, slice]:
        return self.nets, self.rows


def _pieces(device: torch.device, shape: Sequence[int], wide: int) -> list[_Piece]:
    """Of matrices `net first second` with as many numbers an entry; the first one is largest."""
    size = _PIECE.get(device.type, _PIECE_ELSEWHERE)
    nets, rows = shape[:2]
    of_row = max(shape[2] * wide, 1)
    together = max(1, size // max(rows * of_row, 1))
    # Of one network more at a time: cuts cost calls, and products of few rows are slow.
    high = rows if rows * of_row <= _ROWS * size else max(1, _ROWS * size // of_row)
    return [
        _Piece(slice(net, min(net + together, nets)), slice(row, min(row + high, rows)))
        for net in range(0, nets, together)
        for row in range(0, max(rows, 1), max(high, 1))
    ]


def _memory(like: Tensor, pieces: list[_Piece], *shape: int) -> Tensor:
    """Room for one piece, of so many numbers in a row of its networks."""
    return like.new_empty(*(pieces[0].shape if pieces else (0, 0)), *shape)


def _sums(
    piece: Float[Tensor, "net row second chan"],
    over_second: Float[Tensor, "net row chan"],
    over_first: Float[Tensor, "net second chan"],
    begun: bool,
) -> None:
    """Write the sums; that over rows as a product with ones, which is faster.

    Args:
        begun: whether earlier rows of these networks have been summed.
    """
    torch.sum(piece, 2, out=over_second)
    ones = piece.new_ones(1, 1, 1).expand(len(piece), 1, piece.shape[1])
    over_first.view(len(piece), 1, -1).baddbmm_(ones, piece.flatten(2), beta=int(begun))


def _add(
    out: Float[Tensor, "net first second chan"], first: Tensor | None, second: Tensor | None
) -> None:
    if first is not None:
        out += first[:, :, None]
    if second is not None:
        out += second[:, None]


def _write(
    out: Float[Tensor, "net first second chan"], first: Tensor | None, second: Tensor | None
) -> bool:
    """Write what `_add` adds; False if that is nothing."""
    if first is not None and second is not None:
        torch.add(first[:, :, None], second[:, None], out=out)
    elif first is not None:
        out.copy_(first[:, :, None])
    elif second is not None:
        out.copy_(second[:, None])
    return first is not None or second is not None


def _of(tensor: Tensor | None, place: slice | tuple[slice, slice]) -> Tensor | None:
    return None if tensor is None else tensor[place]


class _Rectified(torch.autograd.Function):
    """`rectified`; what ReLU has kept is read off its output, or off a mask."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        first: Tensor | None,
        second: Tensor | None,
        whole: bool,
        product: tuple[Tensor] | None,
        frequencies: Tensor | None,
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        nets, rows, columns = x.shape[:3]
        chan = x.shape[3] if weight is None else len(weight)
        y: Tensor | None = None
        if product is not None:
            y = product[0]
        elif weight is None:
            y = x
            ctx.mark_dirty(x)
        else:
            x = x.contiguous()
            y = x.new_empty(nets, rows, columns, chan) if whole else None
        multiplied = weight is None or product is not None
        pieces = _pieces(x.device, x.shape, max(chan, 0 if multiplied else x.shape[3]))
        memory = _memory(x, pieces, columns, chan) if y is None else y
        kept = memory if whole else x.new_empty(nets, rows, columns, chan, dtype=torch.bool)
        over_second, over_first = x.new_empty(nets, rows, chan), x.new_empty(nets, columns, chan)
        for each in pieces:
            nets_of, rows_of = each.shape
            piece = memory[each.place] if y is not None else memory[:nets_of, :rows_of]
            if multiplied:
                _add(piece, _of(first, each.place), _of(second, each.nets))
            else:
                assert weight is not None
                beta = _write(piece, _of(first, each.place), _of(second, each.nets))
                flat = piece.view(-1, chan)
                inputs = x[each.place].view(-1, x.shape[3])
                torch.addmm(flat, inputs, weight.T, beta=int(beta), out=flat)
            piece.relu_()
            if not whole:
                torch.gt(piece, 0, out=kept[each.place])
            _sums(piece, over_second[each.place], over_first[each.nets], each.rows.start > 0)
        saved = None if weight is None else x
        ctx.save_for_backward(saved, weight, kept, frequencies)
        return y if whole else None, over_second, over_first

    @staticmethod
    def backward(
        ctx: Any, to_y: Tensor | None, to_second: Tensor | None, to_first: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        x, weight, kept, frequencies = ctx.saved_tensors
        none: tuple[None, None, None] = (None, None, None)
        some = next((each for each in (to_y, to_second, to_first) if each is not None), None)
        if some is None:
            return (None, None, None, None, *none)
        if torch.is_grad_enabled():
            found = _again(x, weight, kept, frequencies, to_y, to_second, to_first)
            return (*_wanted(ctx, found), *none)
        (nets, rows, columns), chan = kept.shape[:3], kept.shape[3]
        wide = 0
        if weight is not None:
            wide = x.shape[3] if frequencies is None else 1
        pieces = _pieces(kept.device, kept.shape, max(chan, wide))
        to_x = None
        if weight is None:
            to_x = some.new_empty(nets, rows, columns, chan)
        elif ctx.needs_input_grad[0]:
            to_x = some.new_empty(x.shape)
        memory = _memory(some, pieces, columns, chan) if weight is not None else to_x
        to_weight = None if weight is None else torch.zeros_like(weight)
        to_rows, to_columns = some.new_empty(nets, rows, chan), some.new_empty(nets, columns, chan)
        waves = None
        if frequencies is not None:
            entries = prod(pieces[0].shape) * columns if pieces else 0
            waves = Waves(frequencies[None], entries)
        for each in pieces:
            assert memory is not None
            place, (nets_of, rows_of) = each.place, each.shape
            grad = memory[place] if weight is None else memory[:nets_of, :rows_of]
            if not _write(grad, _of(to_second, place), _of(to_first, each.nets)):
                grad.copy_(some[place])
            elif to_y is not None:
                grad += to_y[place]
            if kept.dtype == torch.bool:
                grad *= kept[place]
            else:
                torch.ops.aten.threshold_backward.grad_input(grad, kept[place], 0, grad_input=grad)
            _sums(grad, to_rows[place], to_columns[each.nets], each.rows.start > 0)
            if to_weight is None:
                continue
            flat = grad.view(-1, chan)
            if waves is not None:
                half = to_weight.shape[1] // 2
                for wave, part in zip(
                    waves(x[place].reshape(-1, 1)), to_weight.split(half, 1), strict=True
                ):
                    part.addmm_(flat.T, wave)
                continue
            to_weight.addmm_(flat.T, x[place].view(-1, x.shape[3]))
            if to_x is not None:
                torch.mm(flat, weight, out=to_x[place].view(-1, x.shape[3]))
        return (*_wanted(ctx, (to_x, to_weight, to_rows, to_columns)), *none)


def _wanted(ctx: Any, grads: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """Autograd takes no gradient of what has none."""
    return tuple(
        grad if needed else None for grad, needed in zip(grads, ctx.needs_input_grad, strict=False)
    )


def _again(
    x: Tensor,
    weight: Tensor | None,
    kept: Tensor,
    frequencies: Tensor | None,
    to_y: Tensor | None,
    to_second: Tensor | None,
    to_first: Tensor | None,
) -> tuple[Tensor | None, ...]:
    """Gradients that can be differentiated again."""
    parts = [to_y]
    parts.append(None if to_second is None else to_second[:, :, None])
    parts.append(None if to_first is None else to_first[:, None])
    grad = (kept.detach() > 0) * sum(part for part in parts if part is not None)
    sums = grad.sum(2), grad.sum(1)
    if weight is None:
        return grad, None, *sums
    inputs = x if frequencies is None else features(x[..., None], frequencies[None])
    to_weight = grad.flatten(0, 2).T @ inputs.flatten(0, 2)
    return grad @ weight if frequencies is None else None, to_weight, *sums


def joined(
    inputs: Sequence[Tensor],
    weight: Float[Tensor, "out inp"],
    starts: Sequence[int],
    shift: Tensor | None = None,
) -> Float[Tensor, "*entry out"]:
    """The sum of x W[:, start : start + part]^T over the inputs, plus `shift`.

    Args:
        inputs: `*entry part` each, of the same entries.
        shift: broadcast over the entries.
    """
    if traced() or torch.is_autocast_enabled(weight.device.type):
        return _joined(weight, shift, starts, inputs)
    found: Tensor = _Joined.apply(weight, shift, tuple(starts), *inputs)  # type: ignore[no-untyped-call]
    return found


def _joined(
    weight: Tensor, shift: Tensor | None, starts: Sequence[int], inputs: Sequence[Tensor]
) -> Tensor:
    total = sum(
        x @ weight[:, start : start + x.shape[-1]].T
        for start, x in zip(starts, inputs, strict=True)
    )
    assert isinstance(total, Tensor)
    # Under autocast products are of another type.
    return total if shift is None else total + shift.to(total.dtype)


class _Joined(torch.autograd.Function):
    """`joined`, of which the inputs are kept as they are."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, shift: Tensor | None, starts: tuple[int, ...], *inputs: Tensor
    ) -> Tensor:
        ctx.save_for_backward(weight, *inputs)
        ctx.starts, ctx.shifted = starts, None if shift is None else shift.shape
        found = weight.new_empty(*inputs[0].shape[:-1], len(weight))
        flat = found.view(-1, len(weight))
        for number, (start, x) in enumerate(zip(starts, inputs, strict=True)):
            part = weight[:, start : start + x.shape[-1]]
            torch.addmm(flat, x.reshape(-1, x.shape[-1]), part.T, beta=int(number > 0), out=flat)
        return found if shift is None else found.add_(shift)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, *inputs = ctx.saved_tensors
        flat = grad.reshape(-1, len(weight))
        to_shift = None if ctx.shifted is None else grad.sum_to_size(ctx.shifted)
        parts, to_inputs = [], []
        for number, (start, x) in enumerate(zip(ctx.starts, inputs, strict=True)):
            part = weight[:, start : start + x.shape[-1]]
            needed = ctx.needs_input_grad[3 + number]
            # Of a single feature a product would be slow.
            back = flat * part if len(part) == 1 else flat @ part
            to_inputs.append(back.view(x.shape) if needed else None)
            parts.append(flat.T @ x.reshape(-1, x.shape[-1]))
        to_weight = torch.zeros_like(weight)
        for start, part in zip(ctx.starts, parts, strict=True):
            to_weight[:, start : start + part.shape[1]] = part
        return (*_wanted(ctx, (to_weight, to_shift)), None, *to_inputs)
