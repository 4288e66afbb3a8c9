from dataclasses import replace

import pytest
import torch

from zoo.spec import NetworkSpec
from zoo.weights import Weights

MLP = NetworkSpec.mlp([2, 4, 3, 5])
CNN = NetworkSpec.cnn([1, 3, 2], 4)


def random_networks(spec, nets=3):
    return Weights.unflatten(torch.randn(nets, spec.param_count), spec)


@pytest.mark.parametrize("spec", [MLP, CNN])
def test_a_round_trip_is_exact(spec):
    weights = random_networks(spec)
    again = Weights.from_graph(weights.to_graph())
    for name, tensor in weights.tensors().items():
        torch.testing.assert_close(again.tensors()[name], tensor, rtol=0, atol=0)


def test_a_round_trip_keeps_channels():
    taps = (9, 9, 1)
    weights = random_networks(CNN)
    lifted = Weights(
        tuple(w.reshape(*w.shape[:3], -1).repeat(1, 1, 1, 2) for w in weights.weights),
        tuple(b[..., None].repeat(1, 1, 2) for b in weights.biases),
    )
    graph = lifted.to_graph()
    assert graph.channels == tuple((2 * t, 2) for t in taps)
    assert graph.edges.shape[2] == 18
    for name, tensor in lifted.tensors().items():
        assert torch.equal(Weights.from_graph(graph).tensors()[name], tensor)


def test_every_edge_carries_the_weight_between_its_neurons():
    weights = random_networks(MLP)
    graph = weights.to_graph()
    assert graph.nodes.shape == (3, 14, 1)
    assert graph.edge_index.shape == (2, 2 * 4 + 4 * 3 + 3 * 5)
    for edge, (source, target) in enumerate(graph.edge_index.T.tolist()):
        layer = int(graph.edge_layer[edge])
        assert int(graph.node_layer[source]) == layer
        assert int(graph.node_layer[target]) == layer + 1
        row, column = int(graph.node_position[target]), int(graph.node_position[source])
        assert torch.equal(graph.edges[:, edge, 0], weights.weights[layer][:, row, column])
        assert torch.equal(graph.nodes[:, target, 0], weights.biases[layer][:, row])
    assert not graph.nodes[:, graph.node_layer == 0].any()


def test_a_forward_pass_by_messages_is_the_network():
    weights = random_networks(MLP)
    graph = weights.to_graph()
    values = torch.zeros(3, 14)
    x = torch.randn(2)
    values[:, :2] = x
    source, target = graph.edge_index
    for layer in range(3):
        chosen = graph.edge_layer == layer
        messages = graph.edges[:, chosen, 0] * values[:, source[chosen]]
        sums = graph.nodes[..., 0].index_add(1, target[chosen], messages)
        here = graph.node_layer == layer + 1
        values[:, here] = sums[:, here]
    expected = x.expand(3, 2)
    for weight, bias in zip(weights.weights, weights.biases, strict=True):
        expected = torch.einsum("noi,ni->no", weight, expected) + bias
    torch.testing.assert_close(values[:, -5:], expected)


def test_taps_are_padded_and_features_are_differentiable():
    weights = random_networks(CNN).map(lambda tensor: tensor.requires_grad_())
    graph = weights.to_graph()
    assert graph.edges.shape[2] == 9
    assert not graph.edges[:, graph.edge_layer == 2, 1:].any()
    changed = replace(graph, edges=2 * graph.edges)
    torch.testing.assert_close(Weights.from_graph(changed).weights[0], 2 * weights.weights[0])
    graph.edges.sum().backward()
    assert torch.equal(weights.weights[2].grad, torch.ones_like(weights.weights[2]))
