"""Graded networks: exact for permutations, signs and phases of hidden neurons, any depth.

Next to its permutation, each hidden neuron has symmetries of its own, by its activation:

    sin    d in {0, 1}, j an integer    (w, b, u) -> ((-1)^d w, (-1)^d b + pi j, (-1)^(d+j) u)
    tanh   d in {0, 1}                  (w, b, u) -> ((-1)^d w, (-1)^d b, (-1)^d u)

for its incoming weights w and bias b, with omega absorbed, and its outgoing weights u. A
feature of grade (p, q) is one that is multiplied by (-1)^(p d + q j): w and sin 2b have
(1, 0), cos b (0, 1), sin b and u (1, 1), |w|^2 and cos 2b (0, 0). Linear maps stay within
a grade, and products go to the sum of grades. Nonlinearities act on the values that
features take over all elements of the group, one pointwise function for all, so that they
commute with it. Between layers the weights carry messages: E f of the lower layer's (1, 1)
is (1, 0) of the upper one, E^T g the other way, and squares of weights carry what does not
change. Only (0, 0) is pooled, so the output moves under no element of the group at all.

Neurons of ReLU have a single grade. Their networks are read in canonical form, which is
the same for all that differ by positive scales. So have those of GELU, SiLU, sigmoid and ELU,
whose only symmetry are permutations.

Source: the characters of these groups; messages along weights as in Kofinas et al. 2024
and Kalogeropoulos et al. 2024, which have permutations, and scales or signs.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, pad

from processors.base import traced
from zoo import NetworkSpec, Weights, absorb, canonical

# Grades are numbers whose bits are (p, q); they add bit by bit. Per activation: how many,
# the grade of incoming weights, and that of outgoing ones.
_GRADES = {"sin": (4, 2, 3), "tanh": (2, 1, 1), "identity": (2, 1, 1)}
# Of ReLU, which canonical forms are read of, and of all that have permutations alone.
_UNGRADED = (1, 0, 0)
_LEAST_SCALE = 1e-5


class _Linear(nn.Module):
    """A linear map of each grade's channels of its own; constants in grade 0 alone."""

    def __init__(self, grades: int, inp: int, out: int):
        super().__init__()
        bound = inp**-0.5
        self.weight = nn.Parameter(torch.empty(grades, inp, out).uniform_(-bound, bound))
        self.constant = nn.Parameter(torch.zeros(out))

    def forward(
        self,
        x: Float[Tensor, "grade net neuron chan"],
        more: Float[Tensor, "grade net neuron out"] | None = None,
    ) -> Float[Tensor, "grade net neuron out"]:
        """The map of `x`, and `more`."""
        flat, others = x.flatten(1, 2), None if more is None else more.flatten(1, 2)
        if traced() or torch.is_autocast_enabled(x.device.type):
            constants = pad(self.constant[None, None], (0, 0, 0, 0, 0, len(x) - 1))
            found = torch.baddbmm(constants, flat, self.weight)
            found = found if others is None else found + others
        else:
            found = _Mapped.apply(flat, self.weight, self.constant, others)  # type: ignore[no-untyped-call]
        return found.unflatten(1, x.shape[1:3])


class _Mapped(torch.autograd.Function):
    """x W of each grade, plus constants in grade 0 and `more`, all in the memory of the product."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, constant: Tensor, more: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        found = torch.bmm(x, weight) if more is None else torch.baddbmm(more, x, weight)
        found[0] += constant
        return found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        to_x = torch.bmm(grad, weight.transpose(1, 2)) if ctx.needs_input_grad[0] else None
        to_weight = torch.bmm(x.transpose(1, 2), grad)
        more = grad if ctx.needs_input_grad[3] else None
        return to_x, to_weight, grad[0].sum(dim=0), more


def values(x: Float[Tensor, "grade ..."]) -> Float[Tensor, "element ..."]:
    """Features as what they are under each element of the group; its own inverse.

    The Hadamard transform over grades, which are 1, 2 or 4, scaled to keep norms.
    """
    if len(x) == 1:
        return x
    if traced():
        half = len(x) // 2
        first, second = values(x[:half]), values(x[half:])
        return torch.cat([first + second, first - second]) * 2**-0.5
    found: Tensor = _Values.apply(x)  # type: ignore[no-untyped-call]
    return found


class _Values(torch.autograd.Function):
    """`values` of 2 or 4 grades, written where they are to be: nothing is cut and joined."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        found = torch.empty_like(x, memory_format=torch.contiguous_format)
        step = len(x) // 2
        torch.add(x[:step], x[step:], out=found[:step])
        torch.sub(x[:step], x[step:], out=found[step:])
        if len(x) == 4:
            even, odd = found[0::2], found[1::2]
            total = even + odd
            torch.sub(even, odd, out=odd)
            even.copy_(total)
        return found.mul_(len(x) ** -0.5)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return values(grad)


def _scaled(x: Float[Tensor, "grade net neuron chan"]) -> Float[Tensor, "grade net neuron chan"]:
    """Each neuron's features divided by their root mean square, which no sign changes."""
    return x * (x.square().mean(dim=(0, 3), keepdim=True) + 1e-6).rsqrt()


def _gated(x: Float[Tensor, "grade net neuron twice"]) -> Float[Tensor, "grade net neuron chan"]:
    """The first half of the features times what gelu makes of the second, value by value."""
    plain, gate = values(x).chunk(2, dim=-1)
    return values(plain * gelu(gate))


def _still(x: Float[Tensor, "grade net neuron chan"]) -> Float[Tensor, "1 net neuron chan"]:
    """Grade 0 of what gelu makes of the features, value by value."""
    return gelu(values(x)).sum(dim=0, keepdim=True) * len(x) ** -0.5


_PLAIN = {"scaled": _scaled, "gated": _gated, "still": _still}


def _each_neuron(kind: str, x: Float[Tensor, "grade net neuron chan"]) -> Tensor:
    """One of `_PLAIN`, compiled where that is possible."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or traced():
        return _PLAIN[kind](x)
    found: Tensor = _EachNeuron.apply(x, kind)  # type: ignore[no-untyped-call]
    return found


class _EachNeuron(torch.autograd.Function):
    """`processors.gates`, of which only what comes in is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kind: str) -> Tensor:
        # Numba takes a second to import, and is wanted here alone.
        from processors import gates

        x = x.contiguous()
        ctx.kind = kind
        ctx.save_for_backward(x)
        grades, chan = 1 if kind == "still" else len(x), x.shape[-1] // (1 + (kind == "gated"))
        out = x.new_empty(grades, *x.shape[1:-1], chan)
        getattr(gates, kind)(*(each.detach().flatten(1, 2).numpy() for each in (x, out)))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        from processors import gates

        (x,) = ctx.saved_tensors
        if torch.is_grad_enabled():
            found = _PLAIN[ctx.kind](x)
            return torch.autograd.grad(found, x, grad, create_graph=True)[0], None
        to_x = torch.empty_like(x)
        arrays = (each.detach().flatten(1, 2).numpy() for each in (x, grad.contiguous(), to_x))
        getattr(gates, f"{ctx.kind}_backward")(*arrays)
        return to_x, None


class _Link(nn.Module):
    """Messages between two hidden layers, up and down, by weights and by their squares."""

    def __init__(self, rows: int, columns: int, taps: int, chan: int):
        super().__init__()
        self._rows, self._columns, self._taps, self._chan = rows, columns, taps, chan
        self.up, self.down, self.up_squared, self.down_squared = (
            nn.Linear(chan, chan * taps, bias=False) for _ in range(4)
        )

    def forward(
        self,
        lower: Sequence[Tensor],
        upper: Sequence[Tensor],
        edges: "_Edges",
        to_lower: list[Tensor],
        to_upper: list[Tensor],
    ) -> None:
        """Add what the layers send each other to what they receive, grade by grade."""
        rows, columns = self._rows, self._columns
        to_upper[rows] = to_upper[rows] + self._carry(edges.up, self.up(lower[columns]))
        to_lower[columns] = to_lower[columns] + self._carry(edges.down, self.down(upper[rows]))
        squares = (self.up_squared(lower[0]), self.down_squared(upper[0]))
        to_upper[0] = to_upper[0] + self._carry(edges.up_squared, squares[0])
        to_lower[0] = to_lower[0] + self._carry(edges.down_squared, squares[1])

    def _carry(self, edge: Tensor, sent: Tensor) -> Float[Tensor, "net neuron chan"]:
        return torch.bmm(edge, sent.unflatten(-1, (self._taps, self._chan)).flatten(1, 2))


class _Edges(NamedTuple):
    """A layer's weights as messages go along them, `net neuron (neuron taps)`."""

    up: Tensor
    down: Tensor
    up_squared: Tensor
    down_squared: Tensor


def _edges(weight: Tensor) -> _Edges:
    """Each is scaled so that sums over the senders keep their size."""
    lifted = weight if weight.ndim == 4 else weight[..., None]
    up, down = lifted.flatten(2), lifted.transpose(1, 2).flatten(2)
    many, few = up.shape[2], down.shape[2]
    return _Edges(up * many**-0.5, down * few**-0.5, up.square() / many, down.square() / few)


class _Round(nn.Module):
    """Messages along all weights, both ways, and an update of every hidden neuron."""

    def __init__(self, grades: list[tuple[int, int, int]], taps: list[int], chan: int):
        super().__init__()
        self.links = nn.ModuleList(
            _Link(upper[1], lower[2], count, chan)
            for (lower, upper), count in zip(pairwise(grades), taps, strict=True)
        )
        self.mixed = nn.ModuleList(_Linear(count, chan, 2 * chan) for count, _, _ in grades)
        self.updated = nn.ModuleList(_Linear(count, chan, chan) for count, _, _ in grades)

    def forward(self, features: list[Tensor], edges: list[_Edges]) -> list[Tensor]:
        scaled = [_each_neuron("scaled", each) for each in features]
        # Grades are taken apart once, and what they are and receive is put together once.
        sent = [each.unbind() for each in scaled]
        received = [list(each) for each in sent]
        for lower, (link, along) in enumerate(zip(self.links, edges, strict=True)):
            upper = lower + 1
            link(sent[lower], sent[upper], along, received[lower], received[upper])
        found = []
        for each, all_of_it, mixed, updated in zip(
            features, received, self.mixed, self.updated, strict=True
        ):
            found.append(updated(_each_neuron("gated", mixed(torch.stack(all_of_it))), each))
        return found


class _Embedding(nn.Module):
    """What is known of a hidden layer's neurons without the others, in grades.

    Args:
        number: of the layer, from 0.
        taps: of its own and of the next layer's kernel.
    """

    def __init__(self, spec: NetworkSpec, number: int, taps: tuple[int, int], chan: int):
        super().__init__()
        layer = spec.layers[number]
        self._sine = layer.activation == "sin"
        count, self._rows, self._columns = _GRADES.get(layer.activation, _UNGRADED)
        self._first, self._last = number == 0, number == len(spec.layers) - 2
        sizes = [2] + [0] * (count - 1)
        if self._sine:
            sizes = [size + 1 for size in sizes]
        else:
            sizes[self._rows] += 1
            sizes[0] += self._rows > 0
        sizes[self._rows] += layer.inp * taps[0] * self._first
        sizes[self._columns] += spec.out * taps[1] * self._last
        self.linear = nn.ModuleList(
            nn.Linear(size, chan, bias=not grade) for grade, size in enumerate(sizes)
        )

    def forward(
        self,
        inward: Float[Tensor, "net neuron inp *taps"],
        bias: Float[Tensor, "net neuron"],
        outward: Float[Tensor, "net out neuron *next"],
    ) -> Float[Tensor, "grade net neuron chan"]:
        raw: list[list[Tensor]] = [[] for _ in self.linear]
        rows, columns = inward.flatten(2), outward.transpose(1, 2).flatten(2)
        raw[0] += [each.square().mean(dim=2, keepdim=True) for each in (rows, columns)]
        shift = bias[..., None]
        if self._sine:
            for found, part in zip(
                raw, ((2 * shift).cos(), shift.cos(), (2 * shift).sin(), shift.sin()), strict=True
            ):
                found.append(part)
        else:
            raw[self._rows].append(shift)
            raw[0] += [shift.square()] if self._rows else []
        raw[self._rows] += [rows] if self._first else []
        raw[self._columns] += [columns] if self._last else []
        return torch.stack(
            [
                linear(torch.cat(parts, dim=2))
                for linear, parts in zip(self.linear, raw, strict=True)
            ]
        )


class Graded(nn.Module):
    """Reads plain weights, invariant under permutations, signs and phases, or scales.

    Args:
        out: length of the output.
        chan: channels of each grade of each hidden neuron.
        rounds: of messages, up and down.
        width: of the two hidden layers of the head.
        dropout: in the head.
        stats: of the zoo, see `encode.Normalise`; tensors are divided by their root mean
            square, and none is shifted. Of ReLU networks they have to be those of the
            canonical forms.

    Raises:
        ValueError: for networks without a hidden layer.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        out: int,
        chan: int = 64,
        rounds: int = 2,
        width: int = 256,
        dropout: float = 0.2,
        stats: Mapping[str, Tensor] | None = None,
    ):
        super().__init__()
        hidden = spec.layers[:-1]
        if not hidden:
            raise ValueError("graded reads hidden neurons, and these networks have none")
        self.spec = spec
        grades = [_GRADES.get(layer.activation, _UNGRADED) for layer in hidden]
        taps = [prod(layer.kernel) for layer in spec.layers]
        for name in spec.tensors:
            layer = spec.layers[int(name.split("_")[1])]
            scale = torch.ones(())
            if stats is not None:
                mean, std = (stats[f"tensor.{kind}.{name}"] for kind in ("mean", "std"))
                scale = layer.omega * (mean.square() + std.square()).sqrt().float().squeeze()
            self.register_buffer(f"scale_{name}", torch.where(scale < _LEAST_SCALE, 1.0, scale))
        self.embedded = nn.ModuleList(
            _Embedding(spec, number, (taps[number], taps[number + 1]), chan)
            for number in range(len(hidden))
        )
        self.rounds = nn.ModuleList(_Round(grades, taps[1:-1], chan) for _ in range(rounds))
        self.read = nn.ModuleList(_Linear(count, chan, chan) for count, _, _ in grades)
        pooled = 2 * chan * len(hidden) + spec.out
        self.head = nn.Sequential(
            nn.Linear(pooled, width), nn.GELU(), nn.Dropout(dropout),
            nn.Linear(width, width), nn.GELU(), nn.Dropout(dropout),
            nn.Linear(width, out),
        )  # fmt: skip

    def forward(self, weights: Weights) -> Float[Tensor, "net out"]:
        _, plain = absorb(self.spec, canonical(self.spec, weights))
        seen = {
            name: x / getattr(self, f"scale_{name}").to(x) for name, x in plain.tensors().items()
        }
        features, edges = [], []
        for number, embedded in enumerate(self.embedded):
            # Phases are angles, which nothing may scale.
            turns = self.spec.layers[number].activation == "sin"
            bias = plain.biases[number] if turns else seen[f"bias_{number}"]
            features.append(embedded(seen[f"weight_{number}"], bias, seen[f"weight_{number + 1}"]))
            if number:
                edges.append(_edges(seen[f"weight_{number}"]))
        for each in self.rounds:
            features = each(features, edges)
        pooled = [seen[f"bias_{len(features)}"]]
        for read, found in zip(self.read, features, strict=True):
            # Grade 0 of the values.
            still = _each_neuron("still", read(_each_neuron("scaled", found)))[0]
            pooled += [still.mean(dim=1), still.amax(dim=1)]
        vectors: Tensor = self.head(torch.cat(pooled, dim=1))
        return vectors
