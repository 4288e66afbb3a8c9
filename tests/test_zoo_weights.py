"""Weights keep PyTorch's order through every change of form."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector
from torch.testing import assert_close

from zoo.spec import NetworkSpec
from zoo.weights import Weights

MLP = NetworkSpec.mlp([2, 5, 4, 3])
CNN = NetworkSpec.cnn([2, 5, 4], 3, kernel=3)


def modules(spec: NetworkSpec, nets: int = 3) -> list[nn.Sequential]:
    torch.manual_seed(0)
    return [
        nn.Sequential(
            *(
                nn.Linear(layer.inp, layer.out)
                if layer.kind == "linear"
                else nn.Conv2d(layer.inp, layer.out, layer.kernel)
                for layer in spec.layers
            )
        )
        for _ in range(nets)
    ]


def batch(spec: NetworkSpec, nets: int = 3) -> Weights:
    torch.manual_seed(1)
    return Weights.unflatten(torch.randn(nets, spec.param_count), spec)


@pytest.mark.parametrize("spec", [MLP, CNN], ids=["mlp", "cnn"])
def test_flat_order_is_that_of_torch(spec):
    ones = modules(spec)
    weights = Weights.from_state_dict([one.state_dict() for one in ones])
    for vector, one in zip(weights.flatten(), ones, strict=True):
        assert torch.equal(vector, parameters_to_vector(one.parameters()))


@pytest.mark.parametrize("spec", [MLP, CNN], ids=["mlp", "cnn"])
def test_unflatten_undoes_flatten(spec):
    vectors = torch.randn(4, spec.param_count)
    weights = Weights.unflatten(vectors, spec)
    assert torch.equal(weights.flatten(), vectors)
    assert weights.weights[0].data_ptr() == vectors.data_ptr()  # a view
    shapes = [tuple(weight.shape[1:3]) for weight in weights.weights]
    assert shapes == [(layer.out, layer.inp) for layer in spec.layers]
    with pytest.raises(ValueError, match=rf"expected vectors \(net, {spec.param_count}\), got"):
        Weights.unflatten(vectors[:, 1:], spec)


def test_taps_are_one_last_axis():
    first = modules(CNN)[0]
    weights = Weights.from_state_dict(first.state_dict())
    assert weights.weights[0].shape == (1, 5, 2, 9)
    assert torch.equal(weights.weights[0][0], first[0].weight.flatten(2))


@pytest.mark.parametrize("spec", [MLP, CNN], ids=["mlp", "cnn"])
def test_state_dicts_round_trip(spec):
    states = [one.state_dict() for one in modules(spec)]
    back = Weights.from_state_dict(states).to_state_dicts(spec, template="{layer}.{kind}")
    for state, other in zip(states, back, strict=True):
        assert list(state) == list(other)
        for name in state:
            assert torch.equal(state[name], other[name])


def test_one_state_dict_is_one_network():
    state = modules(MLP)[0].state_dict()
    assert torch.equal(
        Weights.from_state_dict(state).flatten(), Weights.from_state_dict([state]).flatten()
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s | {"0.running_mean": torch.zeros(5)}, "ending in weight or bias, got 0.r"),
        (lambda s: {k: v for k, v in s.items() if k != "1.bias"}, "3 weights and 2 biases"),
        (lambda s: {k: v for k, v in s.items() if k != "1.weight"}, "2 weights and 3 biases"),
        (lambda s: s | {"1.weight": s["1.weight"].T}, r"layer 1: .*\(3, 4, 5\), got \(3, 5, 4\)"),
    ],
)
def test_wrong_state_dicts_are_refused(change, message):
    states = [change(one.state_dict()) for one in modules(MLP)]
    with pytest.raises(ValueError, match=message):
        Weights.from_state_dict(states)


def test_a_bias_belongs_to_the_weight_of_its_module():
    state = {"a.weight": torch.ones(3, 3), "b.weight": torch.ones(3, 3) * 2,
             "b.bias": torch.full((3,), 2.0), "a.bias": torch.ones(3)}  # fmt: skip
    weights = Weights.from_state_dict(state)
    assert [float(bias.mean()) for bias in weights.biases] == [1, 2]
    del state["a.bias"]
    with pytest.raises(ValueError, match=r"2 weights and 1 biases: a\.bias is missing"):
        Weights.from_state_dict(state)
    state["c.bias"] = torch.ones(3)
    with pytest.raises(ValueError, match=r"a\.bias is missing"):
        Weights.from_state_dict(state)


def test_state_dicts_of_two_architectures_are_refused():
    first, second = (one.state_dict() for one in modules(MLP, 2))
    with pytest.raises(ValueError, match=r"state dict 1 has 0.weight.*one architecture"):
        Weights.from_state_dict([first, {k: v for k, v in second.items() if k[0] != "2"}])


def test_no_state_dict_is_refused():
    with pytest.raises(ValueError, match="at least one state dict"):
        Weights.from_state_dict([])


def test_transposed_weights_name_the_order():
    with pytest.raises(ValueError, match=r"layer 1: expected weight \(3, 4, 5\), got \(3, 5, 4\)"):
        Weights(
            weights=(torch.zeros(3, 5, 2), torch.zeros(3, 5, 4)),
            biases=(torch.zeros(3, 5), torch.zeros(3, 4)),
        )


@pytest.mark.parametrize(
    ("weights", "biases", "message"),
    [
        ([], [], "one bias a weight"),
        ([(2, 3, 1)], [(2, 3), (2, 3)], "got 1 weights and 2 biases"),
        ([(3, 1)], [(3,)], "a single network has net = 1"),
        ([(2, 3, 1)], [(4, 3)], "layer 0"),
        ([(2, 3, 1), (4, 2, 3)], [(2, 3), (4, 2)], "layer 1"),
        ([(2, 3, 1), (2, 2, 5)], [(2, 3), (2, 2)], r"layer 1: expected weight \(2, 2, 3\)"),
    ],
)
def test_tensors_that_do_not_chain_are_refused(weights, biases, message):
    with pytest.raises(ValueError, match=message):
        Weights(
            weights=tuple(torch.zeros(shape) for shape in weights),
            biases=tuple(torch.zeros(shape) for shape in biases),
        )


def test_choosing_networks():
    weights = batch(MLP, nets=5)
    flat = weights.flatten()
    assert len(weights) == 5
    assert torch.equal(weights[2].flatten(), flat[2:3])
    assert torch.equal(weights[-1].flatten(), flat[4:])
    assert torch.equal(weights[1:4].flatten(), flat[1:4])
    assert torch.equal(weights[[4, 0]].flatten(), flat[[4, 0]])
    assert torch.equal(weights[flat[:, 0] > 0].flatten(), flat[flat[:, 0] > 0])
    assert torch.equal(weights[(flat[:, 0] > 0).numpy()].flatten(), flat[flat[:, 0] > 0])
    assert torch.equal(weights[np.int64(2)].flatten(), flat[2:3])
    for outside in (5, -6):
        with pytest.raises(IndexError, match=f"network {outside} of 5"):
            weights[outside]


def test_iterating_ends():
    assert len(list(batch(MLP, nets=3))) == 3


def test_map_takes_the_same_tensor_of_each():
    first, second = batch(MLP), batch(MLP).map(torch.sin)
    both = first.map(lambda a, b: 2 * a - b, second)
    assert_close(both.flatten(), 2 * first.flatten() - second.flatten())
    assert first.to(torch.float64).dtype == torch.float64
    assert first.to("cpu").device.type == "cpu"


def test_names_and_order_of_tensors():
    assert list(batch(MLP).tensors()) == list(MLP.tensors)
    assert batch(MLP).layers == 3


def test_channels_are_kept_and_not_flattened():
    lifted = batch(MLP).map(lambda tensor: torch.stack([tensor, -tensor], dim=-1))
    assert lifted.weights[1].shape == (3, 4, 5, 2)
    assert lifted.biases[1].shape == (3, 4, 2)
    with pytest.raises(ValueError, match="without a channel axis"):
        lifted.flatten()
