"""A batch of networks of one architecture: the value that everything passes around.

Plain data has weights `net out inp` (conv: `net out inp taps`, taps = kh * kw) and
biases `net out`, in PyTorch's order. Processors append channels: `net out inp chan`,
`net out chan`, where the taps of a conv layer count as channels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from numbers import Integral
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from zoo.spec import NetworkSpec


@dataclass(frozen=True)
class Graph:
    """Networks of one architecture as graphs: neurons are nodes, weights are edges.

    All networks share the structure, so a batch has it once; `Weights.to_graph` makes
    it. Nodes are numbered layer by layer, inputs first; edges too, row by row of each
    weight matrix.

    Attributes:
        nodes: `net node feat`, each neuron's bias; zeros for inputs.
        edges: `net edge feat`, the weights; taps (or channels) of a connection are its
            features, padded with zeros to the largest number of any layer.
        edge_index: `2 edge`, int64, from neuron and to neuron.
        node_layer, node_position: `node`, int64; 0 for inputs, L for outputs, and the
            place within the layer. Positions tell inputs and outputs apart; those of
            hidden neurons carry no meaning.
        edge_layer: `edge`, int64, the number of the weight.
        channels: of each layer's weights and of its biases; None where there is no
            such axis.
    """

    nodes: Tensor
    edges: Tensor
    edge_index: Tensor
    node_layer: Tensor
    node_position: Tensor
    edge_layer: Tensor
    channels: tuple[tuple[int | None, int | None], ...]


@dataclass(frozen=True)
class Weights:
    """Weights and biases of many networks, one tensor a layer each.

    Attributes:
        weights: layer i's `net out inp` (conv `net out inp taps`), or with a last axis
            of channels.
        biases: layer i's `net out`, or `net out chan`.

    Raises:
        ValueError: if the tensors do not chain, or disagree about the number of nets.
    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", tuple(self.weights))
        object.__setattr__(self, "biases", tuple(self.biases))
        if not self.weights or len(self.weights) != len(self.biases):
            raise ValueError(
                f"expected one bias a weight, got {len(self.weights)} weights and "
                f"{len(self.biases)} biases"
            )
        nets = self.weights[0].shape[0] if self.weights[0].ndim else 0
        inp = None
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if weight.ndim < 3 or bias.ndim < 2:
                raise ValueError(
                    f"layer {layer}: expected weight (net, out, inp) and bias (net, out), got "
                    f"{tuple(weight.shape)} and {tuple(bias.shape)}; a single network has net = 1"
                )
            expected = (nets, bias.shape[1], weight.shape[2] if inp is None else inp)
            if tuple(weight.shape[:3]) != expected or bias.shape[0] != nets:
                raise ValueError(
                    f"layer {layer}: expected weight {expected}, got {tuple(weight.shape[:3])} "
                    f"with bias {tuple(bias.shape)}; weights are (net, out, inp), see "
                    "Weights.from_state_dict"
                )
            inp = weight.shape[1]

    def __len__(self) -> int:
        """The number of networks."""
        return self.weights[0].shape[0]

    def __getitem__(self, index: Any) -> "Weights":
        """The networks of an integer, a slice, a list of numbers or a mask, NumPy's or torch's.

        An integer keeps the net axis, of length 1.
        """
        if isinstance(index, Integral) and not isinstance(index, bool):
            index = int(index)
            if not -len(self) <= index < len(self):
                raise IndexError(f"network {index} of {len(self)}")
            index = slice(index, index + 1 or None)
        return self.map(lambda tensor: tensor[index])

    @classmethod
    def cat(cls, parts: Sequence["Weights"]) -> "Weights":
        """The networks of several batches, one after the other.

        Raises:
            ValueError: if there is none, or they are of different architectures.
        """
        if not parts:
            raise ValueError("expected at least one batch of networks")
        shapes = [[tuple(x.shape[1:]) for x in part.tensors().values()] for part in parts]
        if any(shape != shapes[0] for shape in shapes):
            raise ValueError("expected networks of one architecture, see Weights.tensors")
        return parts[0].map(lambda *same: torch.cat(same), *parts[1:])

    @property
    def layers(self) -> int:
        return len(self.weights)

    @property
    def device(self) -> torch.device:
        return self.weights[0].device

    @property
    def dtype(self) -> torch.dtype:
        return self.weights[0].dtype

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor under its name in a shard: weight_0, bias_0, weight_1, ..."""
        named = {}
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            named[f"weight_{layer}"] = weight
            named[f"bias_{layer}"] = bias
        return named

    def map(self, function: Callable[..., Tensor], *others: "Weights") -> "Weights":
        """`function` of every tensor, together with the same tensor of `others`.

        >>> w = Weights(weights=(torch.ones(1, 3, 2),), biases=(torch.ones(1, 3),))
        >>> w.map(torch.add, w).biases[0]
        tensor([[2., 2., 2.]])
        """
        return Weights(
            weights=tuple(
                function(*same)
                for same in zip(self.weights, *(o.weights for o in others), strict=True)
            ),
            biases=tuple(
                function(*same)
                for same in zip(self.biases, *(o.biases for o in others), strict=True)
            ),
        )

    def to(self, *args: object, **kwargs: object) -> "Weights":
        """Moved or cast, as `torch.Tensor.to`."""
        return self.map(lambda tensor: tensor.to(*args, **kwargs))  # type: ignore[call-overload]

    def flatten(self) -> Tensor:
        """`net param`: every network as one vector, in storage order.

        Raises:
            ValueError: if the weights carry channels; flatten plain data.
        """
        if any(bias.ndim != 2 for bias in self.biases):
            raise ValueError("flatten takes plain weights, without a channel axis")
        return torch.cat([tensor.flatten(1) for tensor in self.tensors().values()], dim=1)

    @classmethod
    def unflatten(cls, vectors: Tensor, spec: NetworkSpec) -> "Weights":
        """The networks of `net param` vectors; views of them, not copies.

        Raises:
            ValueError: if the vectors are not `spec.param_count` long.
        """
        if vectors.ndim != 2 or vectors.shape[1] != spec.param_count:
            raise ValueError(
                f"expected vectors (net, {spec.param_count}), got {tuple(vectors.shape)}"
            )
        pieces = vectors.split([prod(shape) for shape in spec.tensors.values()], dim=1)
        named = dict(zip(spec.tensors, pieces, strict=True))
        return cls.from_tensors(
            {name: piece.unflatten(1, spec.tensors[name]) for name, piece in named.items()}
        )

    @classmethod
    def from_tensors(cls, named: Mapping[str, Tensor]) -> "Weights":
        """From a shard's tensors: weight_i `net out inp [kh kw]`, bias_i `net out`."""
        weights, biases = (
            [named[f"{kind}_{n}"] for n in range(sum(name.startswith(kind) for name in named))]
            for kind in ("weight", "bias")
        )
        return cls(
            weights=tuple(w.flatten(3) if w.ndim == 5 else w for w in weights),
            biases=tuple(biases),
        )

    @classmethod
    def from_state_dict(
        cls, state: Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]]
    ) -> "Weights":
        """From the `state_dict` of one network, or of several of one architecture.

        Weights are taken in the dict's order, and each with the bias of the same module,
        whatever its name is.

        Raises:
            ValueError: if a tensor is neither, or weights and biases do not pair.
        """
        states = [state] if isinstance(state, Mapping) else list(state)
        if not states:
            raise ValueError("expected at least one state dict")
        weights = [name for name in states[0] if name.rpartition(".")[2] == "weight"]
        biases = [name for name in states[0] if name.rpartition(".")[2] == "bias"]
        strange = sorted(set(states[0]) - set(weights) - set(biases))
        if strange:
            raise ValueError(f"expected names ending in weight or bias, got {', '.join(strange)}")
        # Never the bias of another module, in whatever order they lie.
        pairs = [f"{name.removesuffix('weight')}bias" for name in weights]
        if set(pairs) != set(biases):
            odd = min(set(pairs) ^ set(biases))
            raise ValueError(
                f"expected one bias a weight, got {len(weights)} weights and {len(biases)} biases: "
                f"{odd} is {'alone' if odd in biases else 'missing; zeros will do for it'}"
            )
        for number, other in enumerate(states):
            if set(other) != set(states[0]):
                raise ValueError(
                    f"state dict {number} has {', '.join(other)}, the first has "
                    f"{', '.join(states[0])}; a batch is of one architecture"
                )
        stacked = {}
        for kind, names in (("weight", weights), ("bias", pairs)):
            for layer, name in enumerate(names):
                stacked[f"{kind}_{layer}"] = torch.stack([other[name] for other in states])
        return cls.from_tensors(stacked)

    def to_state_dicts(
        self, spec: NetworkSpec, template: str = "layers.{layer}.{kind}"
    ) -> list[dict[str, Tensor]]:
        """One `state_dict` a network; `template` names the tensors.

        >>> spec = NetworkSpec.mlp([2, 3, 1])
        >>> list(Weights.unflatten(torch.zeros(1, 13), spec).to_state_dicts(spec)[0])[:2]
        ['layers.0.weight', 'layers.0.bias']
        """
        states: list[dict[str, Tensor]] = [{} for _ in range(len(self))]
        for layer, shape in enumerate(spec.weight_shapes):
            for net, state in enumerate(states):
                state[template.format(layer=layer, kind="weight")] = self.weights[layer][
                    net
                ].reshape(shape)
                state[template.format(layer=layer, kind="bias")] = self.biases[layer][net]
        return states

    def to_graph(self) -> Graph:
        """Node and edge tensors, as graph networks over weights take them.

        >>> w = Weights(weights=(torch.ones(7, 3, 2), torch.ones(7, 1, 3)),
        ...             biases=(torch.ones(7, 3), torch.ones(7, 1)))
        >>> graph = w.to_graph()
        >>> graph.nodes.shape, graph.edges.shape
        (torch.Size([7, 6, 1]), torch.Size([7, 9, 1]))
        >>> graph.edge_index[:, :3].tolist(), graph.node_layer.tolist()
        ([[0, 1, 0], [2, 2, 3]], [0, 0, 1, 1, 1, 2])
        """
        widths = [self.weights[0].shape[2], *(bias.shape[1] for bias in self.biases)]
        edges = [(w if w.ndim > 3 else w[..., None]).flatten(1, 2) for w in self.weights]
        nodes = [bias if bias.ndim > 2 else bias[..., None] for bias in self.biases]
        longest = max(edge.shape[2] for edge in edges)
        inputs = nodes[0].new_zeros(len(self), widths[0], nodes[0].shape[2])

        index, start = [], 0
        for inp, out in pairwise(widths):
            row, column = torch.arange(out), torch.arange(inp)
            sources, targets = column.repeat(out), row.repeat_interleave(inp) + inp
            index.append(torch.stack([sources, targets]) + start)
            start += inp
        per_layer = torch.tensor([edge.shape[1] for edge in edges])
        layer_of_node = torch.arange(len(widths)).repeat_interleave(torch.tensor(widths))
        return Graph(
            nodes=torch.cat([inputs, *nodes], dim=1),
            edges=torch.cat([pad(edge, (0, longest - edge.shape[2])) for edge in edges], dim=1),
            edge_index=torch.cat(index, dim=1).to(self.device),
            node_layer=layer_of_node.to(self.device),
            node_position=torch.cat([torch.arange(width) for width in widths]).to(self.device),
            edge_layer=torch.arange(self.layers).repeat_interleave(per_layer).to(self.device),
            channels=tuple(
                (w.shape[3] if w.ndim > 3 else None, b.shape[2] if b.ndim > 2 else None)
                for w, b in zip(self.weights, self.biases, strict=True)
            ),
        )

    @classmethod
    def from_graph(cls, graph: Graph) -> "Weights":
        """The inverse of `to_graph`: padding and the inputs' features are left out.

        Features may have been changed, not their number; for another number of channels
        change `graph.channels` too.
        """
        widths = graph.node_layer.bincount().tolist()
        weights, biases = [], []
        nodes = graph.nodes.split(widths, dim=1)
        edges = graph.edges.split([inp * out for inp, out in pairwise(widths)], dim=1)
        for layer, (of_weight, of_bias) in enumerate(graph.channels):
            matrix = edges[layer].unflatten(1, (widths[layer + 1], widths[layer]))
            weights.append(matrix[..., 0] if of_weight is None else matrix[..., :of_weight])
            bias = nodes[layer + 1]
            biases.append(bias[..., 0] if of_bias is None else bias[..., :of_bias])
        return cls(tuple(weights), tuple(biases))
