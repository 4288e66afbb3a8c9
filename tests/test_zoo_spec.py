"""A spec says what stands on disk and how it is read; wrong ones are refused by name."""

import dataclasses
import json
from dataclasses import replace

import numpy as np
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


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("ReLU", "relu"), ("Tanh", "tanh"), ("LeakyReLU", "leaky_relu"), ("GELU", "gelu"),
        ("SiLU", "silu"), ("Sigmoid", "sigmoid"), ("ELU", "elu"), ("leaky_relu", "leaky_relu"),
    ],
)  # fmt: skip
def test_activations_may_be_written_as_torch_does(written, name):
    spec = NetworkSpec.mlp([2, 3, 1], activation=written)
    assert spec == NetworkSpec.mlp([2, 3, 1], activation=name)
    assert spec.layers[0].omega == 1
    plain = spec.to_json()
    plain["layers"][0]["activation"] = written
    assert NetworkSpec.from_json(plain).layers[0].activation == name


def test_specs_are_values():
    assert NetworkSpec.mlp([2, 3, 1]) == NetworkSpec.mlp([2, 3, 1])
    assert NetworkSpec.mlp([2, 3, 1]) != NetworkSpec.mlp([2, 3, 1], omega=1.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        SPECS["siren"].output_offset = 0.0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Layer("pool", 2, 3), "unknown layer kind 'pool'; known: linear, conv"),
        (
            lambda: Layer("linear", 0, 3),
            "inp of a layer: expected an integer from 1 to 2147483647, got 0",
        ),
        (lambda: Layer("linear", 2, 3, "cosine"), "unknown activation 'cosine'; known: .*gelu"),
        (
            lambda: Layer("linear", 2, 3, "sin", 0.0),
            "omega .*: expected a finite number above 0, got 0",
        ),
        (lambda: Layer("linear", 2, 3, "sin", float("nan")), "omega .*above 0, got nan"),
        (lambda: Layer("linear", 2, 3, "sin", float("inf")), "omega .*above 0, got inf"),
        (lambda: Layer("linear", 2.0, 3), "inp of a layer: expected an integer .*, got 2.0"),
        (lambda: Layer("linear", 2, True), "out of a layer: expected an integer .*, got true"),
        (lambda: Layer("conv", 2, 3, kernel=3), "kernel of a layer: expected a list of 2"),
        (lambda: Layer("conv", 2, 3, kernel=(3, 0)), r"kernel of a layer: .*, got \[3, 0\]"),
        (lambda: Layer("conv", 2, 3, kernel=(3, 3), stride=0), "stride of a layer: .*, got 0"),
        (lambda: Layer("conv", 2, 3, kernel=(3, 3), padding=-1), "padding of a layer: .*, got -1"),
        (lambda: Layer("linear", 2, 3, stride=2), "of conv layers only"),
        (lambda: NetworkSpec.mlp([2, 3], output_offset=float("nan")), "output_offset: .*, got nan"),
        (lambda: NetworkSpec.mlp([2, 3], coord_range=(0,)), r"coord_range: .*, got \[0\]"),
        (lambda: NetworkSpec.mlp([2, 3], pixel_range=(1, 1)), r"pixel_range: .*, got \[1, 1\]"),
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


def test_numbers_of_numpy_are_plain_ones():
    widths = np.array([2, 5, 1])
    spec = NetworkSpec.mlp(widths, omega=np.float32(30), coord_range=[np.float64(0), 1])
    assert spec == NetworkSpec.mlp([2, 5, 1], omega=30.0, coord_range=(0.0, 1.0))
    assert json.loads(json.dumps(spec.to_json())) == spec.to_json()


# --- frequencies of an encoding ---------------------------------------------------------------


def test_frequencies_are_kept_as_float32_and_written_where_there_are_some():
    turns = np.array([[0.1, -2.0], [1e-3, 7.0]])
    spec = NetworkSpec.mlp([2, 5, 1], "relu", frequencies=turns)
    assert (spec.inputs, spec.widths, spec.format) == (2, (4, 5, 1), 2)
    rounded = turns.astype(np.float32).astype(np.float64).tolist()
    assert spec.frequencies == tuple(map(tuple, rounded)) != tuple(map(tuple, turns.tolist()))
    assert spec.to_json()["conventions"]["frequencies"] == rounded
    back = NetworkSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert back == spec
    assert hash(back) == hash(spec)
    assert "frequencies" not in NetworkSpec.mlp([2, 5, 1], "gelu").to_json()["conventions"]
    assert back.close_to(spec)
    off = (tuple(np.nextafter(np.float32(rounded[0]), np.float32(9)).tolist()), spec.frequencies[1])
    assert replace(spec, frequencies=off) != spec
    assert spec.close_to(replace(spec, frequencies=off))
    assert not spec.close_to(replace(spec, frequencies=2 * turns))
    assert not spec.close_to(NetworkSpec.mlp([4, 5, 1], "relu"))
    assert not spec.close_to(NetworkSpec.mlp([1, 5, 1], "relu", frequencies=[[0.1], [1e-3]]))


@pytest.mark.parametrize(
    ("frequencies", "message"),
    [
        ([[1.0, 2.0]] * 3, r"^frequencies: 3 give the first layer 6 inputs, .* linear and takes 4"),
        ([[1.0, 2.0], [3.0]], "^frequencies: rows of several lengths$"),
        ([[1.0, float("nan")], [0, 0]], r"^frequencies\[0\]\[1\]: expected a finite number"),
        ([[1.0, 1e39], [0, 0]], r"^frequencies\[0\]\[1\]: expected a finite number"),
        ([1.0, 2.0], r"^frequencies\[0\]: expected a list"),
        ([[], []], r"^frequencies\[0\]: expected a list"),
    ],
)
def test_frequencies_that_fit_no_first_layer_are_named(frequencies, message):
    with pytest.raises(ValueError, match=message):
        NetworkSpec(NetworkSpec.mlp([4, 5, 1], "relu").layers, frequencies=frequencies)
    with pytest.raises(ValueError, match=r"^frequencies: expected 3 numbers each, .* got 1$"):
        NetworkSpec.mlp([3, 5, 1], "relu", frequencies=[[1.0], [2.0]])
    with pytest.raises(ValueError, match="it is conv and takes 2"):
        replace(NetworkSpec.cnn([2, 5], 3), frequencies=[[1.0, 1.0]])


# --- specs that people write ----------------------------------------------------------------

LINEAR = {"kind": "linear", "inp": 2, "out": 3}
CONV = {"kind": "conv", "inp": 2, "out": 3, "kernel": [3, 2]}


def test_what_has_a_default_may_be_left_out():
    plain = {"layers": [{**LINEAR, "activation": "sin", "omega": 30}, {**LINEAR, "inp": 3}]}
    assert NetworkSpec.from_json(plain) == NetworkSpec.mlp([2, 3, 3])
    assert NetworkSpec.from_json({"layers": [CONV], "conventions": {"coord_order": "ij"}}) == (
        NetworkSpec((Layer("conv", 2, 3, kernel=(3, 2)),), coord_order="ij")
    )


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ([], r"^expected an object, got \[\]$"),
        ({}, "^layers: is missing$"),
        ({"layers": []}, "^layers: expected a list from 1 to 1000 items, got 0$"),
        ({"layers": [LINEAR], "convention": {}}, "^convention: unknown field; known: layers, conv"),
        ({"layers": [LINEAR, 5]}, r"^layers\[1\]: expected an object, got 5$"),
        ({"layers": [LINEAR, {"kind": "linear", "inp": 3}]}, r"^layers\[1\].out: is missing$"),
        ({"layers": [{**LINEAR, "bias": True}]}, r"^layers\[0\].bias: unknown field; known: kind"),
        ({"layers": [{**LINEAR, "omega": "30"}]}, r"^layers\[0\].omega: expected a finite number"),
        ({"layers": [{**LINEAR, "kind": "attention"}]}, r"^layers\[0\].kind: expected 'linear' or"),
        ({"layers": [{**LINEAR, "activation": "sine"}]}, r"^layers\[0\].activation: .*'sin'"),
        ({"layers": [{**LINEAR, "stride": 2}]}, r"^layers\[0\]: kernel, stride and padding are of"),
        ({"layers": [{**CONV, "kind": "linear"}]}, r"^layers\[0\]: kernel, stride and padding are"),
        (
            {"layers": [{k: v for k, v in CONV.items() if k != "kernel"}]},
            r"^layers\[0\]: a conv layer needs its kernel, \[rows, columns\]$",
        ),
        ({"layers": [LINEAR, LINEAR]}, "^layer 1 takes 2 inputs, but layer 0 gives 3$"),
        (
            {"layers": [LINEAR], "conventions": {"coord_range": [0]}},
            r"^conventions.coord_range: expected a list of 2 .*, got \[0\]$",
        ),
        ({"layers": [LINEAR], "conventions": {"offset": 0}}, "^conventions.offset: unknown field"),
    ],
    ids=str,
)
def test_what_is_wrong_in_a_spec_is_named_with_its_layer(plain, message):
    with pytest.raises(ValueError, match=message):
        NetworkSpec.from_json(plain)
