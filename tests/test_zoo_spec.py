"""A spec says what stands on disk and how it is read; wrong ones are refused by name."""

import dataclasses
import json

import pytest
from torch import nn

from zoo.spec import Layer, NetworkSpec

SPECS = {
    "siren": NetworkSpec.mlp(
        [2, 32, 32, 3], output_offset=0.5, coord_order="ij", pixel_range=(-1.0, 1.0)
    ),
    "line": NetworkSpec.mlp([1, 7, 5, 3, 2], coord_order="x", coord_range=(-3.5, 3.5)),
    "relu": NetworkSpec.mlp([784, 16, 10], activation="relu"),
    "cnn": NetworkSpec.cnn([1, 16, 8], 10, activation="tanh", kernel=5, stride=1, padding=2),
}


def test_mlp_has_the_papers_defaults():
    spec = NetworkSpec.mlp([2, 32, 16, 1])
    assert [(la.inp, la.out, la.activation, la.omega) for la in spec.layers] == [
        (2, 32, "sin", 30.0),
        (32, 16, "sin", 30.0),
        (16, 1, "identity", 1.0),
    ]
    assert spec.widths == (2, 32, 16, 1)
    assert (spec.inp, spec.out) == (2, 1)


@pytest.mark.parametrize("activation", ["relu", "tanh", "identity"])
def test_only_sines_have_an_omega(activation):
    spec = NetworkSpec.mlp([2, 4, 1], activation=activation, omega=30.0)
    assert [layer.omega for layer in spec.layers] == [1.0, 1.0]


def test_tensors_in_storage_order():
    assert list(NetworkSpec.mlp([2, 32, 1]).tensors.items()) == [
        ("weight_0", (32, 2)),
        ("bias_0", (32,)),
        ("weight_1", (1, 32)),
        ("bias_1", (1,)),
    ]
    conv = NetworkSpec.cnn([3, 8], 10, kernel=5)
    assert conv.tensors["weight_0"] == (8, 3, 5, 5)
    assert conv.tensors["weight_1"] == (10, 8)
    assert conv.weight_shapes == ((8, 3, 5, 5), (10, 8))
    assert conv.bias_shapes == ((8,), (10,))
    assert conv.layers[0].fan_in == 75


def test_param_count_is_that_of_the_torch_modules():
    mlp = nn.Sequential(nn.Linear(1, 7), nn.Linear(7, 5), nn.Linear(5, 3), nn.Linear(3, 2))
    cnn = nn.Sequential(nn.Conv2d(1, 16, 5), nn.Conv2d(16, 8, 5), nn.Linear(8, 10))
    for spec, module in ((SPECS["line"], mlp), (SPECS["cnn"], cnn)):
        assert spec.param_count == sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", SPECS)
def test_json_round_trip(name):
    spec = SPECS[name]
    back = NetworkSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert back == spec
    assert hash(back) == hash(spec)  # no lists left in it


def test_json_stays_as_format_1_has_it():
    spec = NetworkSpec.mlp([2, 3, 1], output_offset=0.5, coord_order="xy")
    shared = {"kernel": [1, 1], "stride": 1, "padding": 0}
    assert spec.to_json() == {
        "layers": [
            {"kind": "linear", "inp": 2, "out": 3, "activation": "sin", "omega": 30.0, **shared},
            {"kind": "linear", "inp": 3, "out": 1, "activation": "identity", "omega": 1.0} | shared,
        ],
        "conventions": {
            "output_offset": 0.5,
            "coord_order": "xy",
            "coord_range": [-1.0, 1.0],
            "pixel_range": [0.0, 1.0],
        },
    }


def test_specs_are_values():
    assert NetworkSpec.mlp([2, 3, 1]) == NetworkSpec.mlp([2, 3, 1])
    assert NetworkSpec.mlp([2, 3, 1]) != NetworkSpec.mlp([2, 3, 1], omega=1.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        SPECS["siren"].output_offset = 0.0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Layer("pool", 2, 3), "unknown layer kind 'pool'; known: linear, conv"),
        (lambda: Layer("linear", 0, 3), "sizes of at least 1, got 0 -> 3"),
        (lambda: Layer("linear", 2, 3, "gelu"), "unknown activation 'gelu'; known: .*sin"),
        (lambda: Layer("linear", 2, 3, "sin", 0.0), "omega must be positive, got 0"),
        (lambda: Layer("linear", 2, 3, "sin", float("nan")), "omega must be positive, got nan"),
        (lambda: Layer("linear", 2, 3, stride=2), "of conv layers only"),
        (lambda: NetworkSpec(()), "at least one layer"),
        (lambda: NetworkSpec.mlp([2]), r"at least two widths, got \[2\]"),
        (lambda: NetworkSpec.mlp([2, 3], coord_order="yx"), "unknown coord_order 'yx'; known"),
        (
            lambda: NetworkSpec((Layer("linear", 2, 3), Layer("linear", 4, 1))),
            "layer 1 takes 4 inputs, but layer 0 gives 3",
        ),
        (
            lambda: NetworkSpec((Layer("linear", 2, 3), Layer("conv", 3, 1))),
            "layer 1: a conv layer cannot follow a linear one",
        ),
    ],
)
def test_what_is_no_network_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()
