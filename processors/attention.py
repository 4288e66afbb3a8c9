"""Layers over sets of neurons: DWSNets' set attention, DeepSets and the two-set layer.

An axis that the group permutes is a *set* axis; free axes are folded into the features
before they come here. DWSNets has up to some twenty attention blocks a layer, each from
one tensor to another along an axis they share. `SetAttention` holds all blocks of one
axis, so that they run as a few large products.
"""

from collections.abc import Collection, Sequence
from math import gcd, sqrt
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear, scaled_dot_product_attention

from processors.sizes import POOLS

# Scores computed at a time on a CPU: 0.5 MB in float32 stay in the second-level cache.
_CHUNK = 2**17


def xavier_(weight: Float[Tensor, "out inp"], mu: float = 1.0) -> Tensor:
    """DWSNets' initialisation, in place: Xavier normal x mu x sqrt(2 inp / out).

    Args:
        mu: 1 for invariant tasks, 1e-3 where the output parametrises a network.

    Source: Navon et al. 2023, App. J.
    """
    out, inp = weight.shape
    with torch.no_grad():
        return weight.normal_(std=mu * sqrt(2 * inp / out) * sqrt(2 / (inp + out)))


def _bias_(bias: Tensor | None) -> None:
    if bias is not None:
        nn.init.uniform_(bias, -1e-4, 1e-4)


def pool_axis(x: Tensor, axis: int, pool: str) -> Tensor:
    """The mean, sum or maximum over one axis, which is kept with length 1.

    Raises:
        ValueError: for an unknown pool.
    """
    if pool == "mean":
        return x.mean(dim=axis, keepdim=True)
    if pool == "sum":
        return x.sum(dim=axis, keepdim=True)
    if pool == "max":
        return x.amax(dim=axis, keepdim=True)
    raise ValueError(f"unknown pool {pool!r}; known: {', '.join(POOLS)}")


class _SmallSets(torch.autograd.Function):
    """`attend` on a CPU: batched products, few enough rows at a time to stay in cache.

    The scores are computed again in backward, which costs less than to keep them.
    """

    @staticmethod
    def forward(ctx: Any, packed: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(packed)
        ctx.scale = scale
        query, key, value = packed.unbind(1)
        mixed = torch.empty_like(query, memory_format=torch.contiguous_format)
        scores = _scores(query)
        for rows in _chunks(query):
            share = _shares(query[rows], key[rows], scale, scores)
            torch.add(query[rows], torch.bmm(value[rows], share), out=mixed[rows])
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (packed,) = ctx.saved_tensors
        query, key, value = packed.unbind(1)
        back = torch.empty_like(packed)
        grad = grad.contiguous()
        scores = _scores(query)
        part = torch.empty_like(grad[: len(scores)])
        for rows in _chunks(query):
            share = _shares(query[rows], key[rows], ctx.scale, scores)
            # Into a temporary: bmm with a strided `out` takes one matrix at a time.
            back[rows, 2] = torch.bmm(grad[rows], share.mT)
            pull = torch.bmm(value[rows].mT, grad[rows], out=scores[: len(share)])
            pull = torch._softmax_backward_data(pull, share, 1, share.dtype)
            part = part[: len(share)]
            back[rows, 0] = part.copy_(grad[rows]).baddbmm_(key[rows], pull, alpha=ctx.scale)
            back[rows, 1] = part.baddbmm_(query[rows], pull.mT, beta=0, alpha=ctx.scale)
        return back, None


def _step(query: Float[Tensor, "row feat set"]) -> int:
    return max(1, _CHUNK // query.shape[2] ** 2)


def _chunks(query: Float[Tensor, "row feat set"]) -> list[slice]:
    step = _step(query)
    return [slice(start, start + step) for start in range(0, len(query), step)]


def _scores(query: Float[Tensor, "row feat set"]) -> Float[Tensor, "_ set set"]:
    """Room for one chunk's scores, which all chunks use."""
    rows = min(_step(query), len(query))
    return query.new_empty(rows, query.shape[2], query.shape[2])


def _shares(
    query: Tensor, key: Tensor, scale: float, scores: Float[Tensor, "_ from to"]
) -> Float[Tensor, "row from to"]:
    # Columns sum to 1: a softmax over any axis but the last is vectorised along it.
    scores = scores[: len(query)]
    return scores.baddbmm_(key.mT, query, beta=0, alpha=scale).softmax(dim=1)


def attend(
    packed: Float[Tensor, "row qkv feat set"], scale: float
) -> Float[Tensor, "row feat set"]:
    """Attention q + softmax(scale * q.k) v of many small sets, the set axis last.

    On CPUs torch's own attention takes over three times as long for features this narrow
    (128 heads of 4 features, 32 elements, batch 64, forward and backward on one core of
    a Zen 5: 101 ms against 29); elsewhere, and when compiled, it is what runs. On CPUs
    the result can be differentiated once.
    """
    if packed.device.type != "cpu" or torch.compiler.is_compiling():
        query, key, value = packed.unbind(1)
        mixed = scaled_dot_product_attention(query.mT, key.mT, value.mT, scale=scale)
        return query + mixed.mT
    return _SmallSets.apply(packed, scale)  # type: ignore[no-untyped-call]


class SetAttention(nn.Module):
    """Set attention between tensors that share a set axis; all blocks of one axis.

    A block from source s to target t, with heads along the features, is

        h = q + softmax(q k^T / sqrt(out)) v,    y = h + relu(o h),

    q, k, v linear maps (inp x out) of s, o (out x out) of h; each target is the sum of
    its blocks. q, v and o have biases; one of k would cancel in the softmax and is left
    out, but `key_bias` brings the published number of parameters.

    Source: the MAB of Lee et al. 2019, as in DWSNets' released code: no LayerNorm, and
    scores divided by the root of the whole width, not of the head's.

    >>> layer = SetAttention([64, 32], [64, 32])
    >>> [y.shape for y in layer([torch.ones(5, 9, 64), torch.ones(5, 9, 32)])]
    [torch.Size([5, 9, 64]), torch.Size([5, 9, 32])]

    Args:
        inputs, outputs: features of every source and of every target.
        pairs: the blocks (source, target) there are; all by default.
        heads: of each block; the largest common divisor with its width is taken.
        mu: of the initialisation, see `xavier_`.

    Raises:
        ValueError: if a target has no block, or a pair names none.
    """

    def __init__(
        self,
        inputs: Sequence[int],
        outputs: Sequence[int],
        pairs: Collection[tuple[int, int]] | None = None,
        heads: int = 8,
        key_bias: bool = False,
        mu: float = 1.0,
    ):
        super().__init__()
        every = {(s, t) for s in range(len(inputs)) for t in range(len(outputs))}
        chosen = every if pairs is None else set(pairs)
        if chosen - every or {t for _, t in chosen} != set(range(len(outputs))):
            raise ValueError(
                f"expected pairs (source, target) of {len(inputs)} sources that reach all "
                f"{len(outputs)} targets, got {sorted(chosen)}"
            )
        self.inputs, self.outputs, self.key_bias = tuple(inputs), tuple(outputs), key_bias
        # The blocks of one source with one width run together; a group is
        # (source, width, heads, targets).
        self.groups = [
            (s, width, gcd(heads, width), targets)
            for s in range(len(inputs))
            for width in sorted(set(outputs))
            if (
                targets := [
                    t for t in range(len(outputs)) if (s, t) in chosen and outputs[t] == width
                ]
            )
        ]
        # Rows are (block, head, q k v, feature): so every head's q is one strided view.
        self.project = nn.ParameterList()
        self.project_bias = nn.ParameterList()
        self.mix = nn.ParameterList()
        self.mix_bias = nn.ParameterList()
        for s, width, count, targets in self.groups:
            blocks = len(targets)
            self.project.append(torch.empty(blocks * width * 3, inputs[s]))
            self.project_bias.append(torch.empty(blocks, count, 2 + key_bias, width // count))
            self.mix.append(torch.empty(blocks, width, width))
            self.mix_bias.append(torch.empty(blocks, width, 1))
        self.reset_parameters(mu)

    def reset_parameters(self, mu: float = 1.0) -> None:
        """Each map of each block as `xavier_` has it; biases U(+-1e-4)."""
        for number, (s, width, count, targets) in enumerate(self.groups):
            fresh = torch.empty(len(targets), 3, width, self.inputs[s])
            for matrix in fresh.flatten(0, 1):
                xavier_(matrix, mu)
            rows = "block qkv (head feat) inp -> (block head qkv feat) inp"
            with torch.no_grad():
                self.project[number].copy_(rearrange(fresh, rows, head=count))
            for matrix in self.mix[number]:
                xavier_(matrix, mu)
            _bias_(self.project_bias[number])
            _bias_(self.mix_bias[number])

    def _project(
        self, number: int, x: Float[Tensor, "net inp set"]
    ) -> Float[Tensor, "row qkv feat set"]:
        """q, k and v of every network, block and head: row = (net block head)."""
        _, width, count, targets = self.groups[number]
        bias = self.project_bias[number]
        if not self.key_bias:
            bias = torch.stack([bias[:, :, 0], torch.zeros_like(bias[:, :, 0]), bias[:, :, 1]], 2)
        weight = self.project[number].expand(len(x), -1, -1)
        projected = torch.baddbmm(bias.reshape(-1, 1), weight, x)
        return projected.view(len(x) * len(targets) * count, 3, width // count, x.shape[2])

    def forward(
        self, sources: Sequence[Float[Tensor, "net set _"]]
    ) -> list[Float[Tensor, "net set _"]]:
        """Each target's sum over its sources; features as in `outputs`."""
        nets, size, _ = sources[0].shape
        transposed = [source.mT.contiguous() for source in sources]
        sums: list[list[Tensor]] = [[] for _ in self.outputs]
        for number, (s, width, _, targets) in enumerate(self.groups):
            hidden = attend(self._project(number, transposed[s]), 1 / sqrt(width))
            hidden = hidden.view(nets, len(targets), width, size)
            hidden = hidden.permute(1, 2, 0, 3).reshape(len(targets), width, nets * size)
            mixed = torch.baddbmm(self.mix_bias[number], self.mix[number], hidden)
            for target, block in zip(targets, (hidden + mixed.relu()).unbind(), strict=True):
                sums[target].append(block)
        summed = [torch.stack(blocks).sum(0) if len(blocks) > 1 else blocks[0] for blocks in sums]
        return [rearrange(y, "out (net set) -> net set out", net=nets) for y in summed]

    def extra_repr(self) -> str:
        blocks = sum(len(targets) for *_, targets in self.groups)
        return f"{list(self.inputs)} -> {list(self.outputs)}, {blocks} blocks"


class DeepSets(nn.Module):
    """G x - L pool(x) over one set axis, with a bias in G only.

    Source: Zaheer et al. 2017, as in DWSNets' released code.
    """

    def __init__(self, inp: int, out: int, pool: str = "max", bias: bool = True, mu: float = 1.0):
        super().__init__()
        self.each = nn.Linear(inp, out, bias=bias)
        self.pooled = nn.Linear(inp, out, bias=False)
        self.pool = pool
        self.reset_parameters(mu)

    def reset_parameters(self, mu: float = 1.0) -> None:
        """Both maps as `xavier_` has it."""
        xavier_(self.each.weight, mu)
        xavier_(self.pooled.weight, mu)
        _bias_(self.each.bias)

    def forward(self, x: Float[Tensor, "*net set inp"]) -> Float[Tensor, "*net set out"]:
        return self.each(x) - self.pooled(pool_axis(x, -2, self.pool))


class TwoSet(nn.Module):
    """(lin(x) + lin(row pool) + lin(column pool) + lin(pool of all)) / 4 over two set axes.

    One bias, where the released code has four that only add up.

    Source: Hartford et al. 2018, as in DWSNets' released code.
    """

    def __init__(self, inp: int, out: int, pool: str = "max", bias: bool = True, mu: float = 1.0):
        super().__init__()
        # each, row, column, all
        self.weight = nn.Parameter(torch.empty(4, out, inp))
        self.bias = nn.Parameter(torch.empty(out)) if bias else None
        self.pool = pool
        self.reset_parameters(mu)

    def reset_parameters(self, mu: float = 1.0) -> None:
        """The four maps as `xavier_` has it."""
        for matrix in self.weight:
            xavier_(matrix, mu)
        _bias_(self.bias)

    def forward(
        self,
        x: Float[Tensor, "net out inp chan"],
        over_rows: Float[Tensor, "net inp chan"] | None = None,
        over_columns: Float[Tensor, "net out chan"] | None = None,
        over_all: Float[Tensor, "net chan"] | None = None,
    ) -> Float[Tensor, "net out inp feat"]:
        """The layer's output; pools that are known already need not be computed again."""
        rows = pool_axis(x, 1, self.pool) if over_rows is None else over_rows[:, None]
        columns = pool_axis(x, 2, self.pool) if over_columns is None else over_columns[:, :, None]
        every = pool_axis(rows, 2, self.pool) if over_all is None else over_all[:, None, None]
        # A quarter of the weights costs less than a quarter of the entries.
        of_each, of_rows, of_columns, of_all = self.weight / 4
        bias = None if self.bias is None else self.bias / 4
        small = linear(columns, of_columns) + linear(every, of_all, bias)
        return linear(x, of_each) + linear(rows, of_rows) + small
