"""Named recipes are those of RECIPES.md, and a recipe survives JSON and the command line."""

import json
from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest

from zoo.fields import types_of
from zoo.philox import philox
from zoo.recipes import (
    RECIPES,
    ImageRecipe,
    Recipe,
    SineRecipe,
    default_recipe,
    flag,
    flags,
    recipe,
    recipe_format,
    recipe_from_json,
)
from zoo.spec import NetworkSpec

ADAM = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
SIREN = {"hidden": 32, "layers": 3, "omega": 30.0, "shared_init": False, **ADAM}
SIREN |= {"schedule": "constant", "lr_warmup": 0, "first_omega": None}
SIREN |= {"activation": "sin", "encoding": "none", "frequencies": 64, "scale": 10.0}
# RECIPES.md, section 1. The second column of the tables is `nfn`.
NAVON = {**SIREN, "init": "dws", "output_offset": 0.5}
PICTURES = {
    **NAVON,
    **{"coord_order": "xy", "black": 0.0, "white": 1.0, "split": "dws", "size": None},
    "fit": "crop",
    **{"target_psnr_db": 40.0, "min_psnr_db": None, "views": 1},
}
TABLE = [
    ("dws", "mnist", PICTURES | {"lr": 1e-3, "steps": 1_500, "weight_decay": 1e-4}),
    ("dws", "cifar10", PICTURES | {"lr": 1e-3, "steps": 1_500, "weight_decay": 1e-4}),
    ("dws", "imagefolder:x", PICTURES | {"lr": 1e-3, "steps": 1_500, "weight_decay": 1e-4}),
    ("dws", "fashion-mnist", PICTURES | {"lr": 5e-4, "steps": 11_000, "weight_decay": 0.0}),
    ("dws-paper", "mnist", PICTURES | {"lr": 5e-4, "steps": 1_000, "weight_decay": 0.0}),
    ("dws-paper", "fashion-mnist", PICTURES | {"lr": 5e-4, "steps": 1_000, "weight_decay": 0.0}),
    (
        "nfn",
        "mnist",
        {
            **PICTURES,
            **{"init": "nfn", "output_offset": 0.0, "coord_order": "ij", "split": "nfn"},
            **{"black": -1.0, "white": 1.0, "target_psnr_db": None},
            **{"lr": 5e-5, "steps": 5_000, "weight_decay": 0.0},
        },
    ),
    *(
        (
            "fast",
            source,
            {
                **PICTURES,
                **{"init": "nfn", "lr": 2e-3, "steps": 375, "weight_decay": 0.0},
                **{"schedule": "cosine", "beta2": 0.95, "target_psnr_db": 45.0},
            },
        )
        for source in ("mnist", "imagefolder:x")
    ),
    (
        "sine-ssl",
        "sine",
        {
            **NAVON,
            **{"lr": 1e-3, "steps": 1_500, "weight_decay": 1e-4, "target_mse": 1e-4},
            **{"waves": 5_000, "points": 2_000, "min_amplitude": 0.0, "max_amplitude": 10.0},
            **{"min_frequency": 0.0, "max_frequency": 10.0},
        },
    ),
    (
        "sine-regression",
        "sine",
        {
            **NAVON,
            **{"lr": 1e-4, "steps": 1_000, "weight_decay": 0.0, "target_mse": None},
            **{"waves": 1_000, "points": 2_000, "min_amplitude": 1.0, "max_amplitude": 1.0},
            **{"min_frequency": 0.5, "max_frequency": 10.0},
        },
    ),
]


@pytest.mark.parametrize(("name", "source", "values"), TABLE)
def test_values_of_the_named_recipes(name, source, values):
    found = recipe(name, source)
    assert {field.name: getattr(found, field.name) for field in fields(found)} == {
        "name": name,
        **values,
    }


# SHAPES.md; rates, pools and the networks of occupancy and sdf are ours, see docs/recipes.md.
SOLID = {
    **{**SIREN, "init": "nfn", "output_offset": 0.0, "weight_decay": 0.0, "steps": 1_000},
    "scale": 0.5,
    **{"clip": 0.1, "loss": "bce", "batch_points": 2_000, "pool_points": 100_000},
    **{"min_iou": None, "views": 1, "solids": 5_000, "pool": "surface"},
}
GOOD = {"hidden": 64, "schedule": "cosine"}
SHAPES = [
    ("udf", {**SOLID, "signal": "udf", "hidden": 128, "layers": 2, "lr": 1e-2}),
    (
        "occupancy",
        {**SOLID, **GOOD, "signal": "occupancy", "omega": 20.0, "lr": 3e-3, "pool": "volume"},
    ),
    ("sdf", {**SOLID, **GOOD, "signal": "sdf", "lr": 1e-3}),
]
# These mean nothing without the others; omega and its like are of sine layers.
ENCODING = {"encoding": "fourier", "frequencies": 5, "scale": 2.5}
OTHERS = {"activation": "gelu", "init": "nfn", **ENCODING}


def single(changes: dict[str, object]) -> list[dict[str, object]]:
    """Each change alone, those of an encoding together, and those of other activations."""
    alone = [{key: value} for key, value in changes.items() if key not in OTHERS or key == "init"]
    return [*alone, ENCODING, OTHERS, {"activation": "relu"}, {"activation": "tanh", "init": "dws"}]


SHAPE_CHANGES = {
    **{"hidden": 17, "layers": 4, "omega": 12.5, "output_offset": 0.1, "shared_init": True},
    **{"lr": 3.3e-7, "lr_warmup": 3, "first_omega": 7.5, "weight_decay": 1e-5, "beta1": 0.8},
    **{"beta2": 0.99, "eps": 1e-9, "steps": 7, "clip": 0.2, "loss": "squared"},
    **{"batch_points": 30, "pool_points": 400, "min_iou": 0.5, "views": 2, "solids": 9},
}


@pytest.mark.parametrize(("name", "values"), SHAPES)
def test_values_of_the_recipes_of_shapes(name, values):
    found = recipe(name, "shapes")
    assert {field.name: getattr(found, field.name) for field in fields(found)} == {
        "name": name,
        **values,
    }
    assert found.spec(3, 1).param_count == (641 if name == "udf" else 4_481)
    others = {name: value for name, value in values.items() if name != "solids"}
    of_file = recipe(name, "voxels:x.npz")
    assert {f.name: getattr(of_file, f.name) for f in fields(of_file)} == {"name": name, **others}


@pytest.mark.parametrize("name", [name for name, _ in SHAPES])
def test_flags_make_a_recipe_of_shapes_again(name):
    start = recipe(name, "shapes")
    assert flags(start, "shapes") == []
    others = {
        "init": "dws",
        "schedule": "constant" if start.schedule == "cosine" else "cosine",
        "signal": "udf" if start.signal == "sdf" else "sdf",
        "pool": "surface" if start.pool == "volume" else "volume",
    }
    every = SHAPE_CHANGES | others
    assert set(every) | set(OTHERS) == {field.name for field in fields(start)} - {"name"}
    for given in (every, *single(every)):
        changed = recipe(name, "shapes", **given)
        assert recipe(name, "shapes", **parse(flags(changed, "shapes"), start)) == changed
        assert recipe_from_json(json.loads(json.dumps(changed.to_json()))) == changed


# RECIPES.md, sections 2 and 3; the ranges there are ours.
VARIED = {
    **{"lr": "1e-4..1e-2", "weight_decay": "1e-8..1e-2", "optimiser": "adam,sgd,rmsprop"},
    **{"batch": "128,512", "init_scale": "0.5..2", "fraction": "0.1,0.25,0.5,1", "epochs": 20},
}
CLASSIFIERS = [
    (
        "binary",
        {
            **{"network": "mlp", "hidden": 64, "layers": 5, "networks": 5_000, "epochs": 2},
            **{"lr": "0.005", "batch": "128", "optimiser": "adam", "activation": "relu"},
        },
    ),
    (
        "fashion",
        {
            **{"network": "mlp", "hidden": 128, "layers": 4, "runs": 200, "epochs": 5},
            **{"lr": "0.005", "batch": "1024", "optimiser": "adam", "activation": "relu"},
            **{"checkpoints": "every", "interval": 2},
            **{"validation_share": 0.125, "test_share": 0.125},
        },
    ),
    ("nfn-mlp3", {**VARIED, "layers": 3, "hidden": 128, "runs": 2_000, "kept": 10}),
    ("nfn-mlp5", {**VARIED, "layers": 5, "hidden": 128, "runs": 2_000, "kept": 10}),
    (
        "small-cnn",
        {
            **VARIED,
            **{"network": "cnn", "hidden": 16, "layers": 4, "stride": 2, "runs": 1_000},
            **{"dropout": "0..0.5", "init": "glorot,he,orthogonal,normal"},
            **{"init_std": "1e-3..0.5", "checkpoints": "tenths"},
        },
    ),
]


@pytest.mark.parametrize(("name", "values"), CLASSIFIERS)
def test_values_of_the_classifiers_recipes(name, values):
    found = recipe(name, "fashion-mnist")
    assert {field: getattr(found, field) for field in values} == values
    assert recipe_from_json(json.loads(json.dumps(found.to_json()))) == found


def test_every_recipe_is_in_a_table():
    named = {name for name, _, _ in TABLE} | {name for name, _ in CLASSIFIERS}
    assert named | {name for name, _ in SHAPES} == set(RECIPES)


def test_specs_of_the_recipes():
    assert recipe("dws", "mnist").spec(2, 1) == NetworkSpec.mlp(
        [2, 32, 32, 1], output_offset=0.5, coord_order="xy"
    )
    assert recipe("nfn", "cifar10").spec(2, 3) == NetworkSpec.mlp(
        [2, 32, 32, 3], coord_order="ij", pixel_range=(-1.0, 1.0)
    )
    sine = recipe("sine-ssl", "sine", layers=5, hidden=7, omega=10.0).spec(1, 1)
    assert sine.widths == (1, 7, 7, 7, 7, 1)
    assert {layer.omega for layer in sine.layers[:-1]} == {10.0}
    assert sine.coord_order == "x"
    assert sine.coord_range == pytest.approx((-3.14159265358979, 3.14159265358979), abs=1e-14)


def test_target_psnr_is_an_error_for_the_pixel_range():
    assert recipe("dws", "mnist").target_mse == pytest.approx(1e-4)
    assert recipe("nfn", "mnist", target_psnr_db=30.0).target_mse == pytest.approx(4e-3)
    assert recipe("nfn", "mnist").target_mse is None


def test_defaults_by_source():
    assert default_recipe("sine") == "sine-ssl"
    assert default_recipe("mnist") == "dws"
    assert recipe(None, "fashion-mnist") == recipe("dws", "fashion-mnist")
    assert default_recipe("imagefolder:pets") == recipe(None, "imagefolder:pets").name == "fast"
    # What 324dc88 began by its default goes on by that.
    assert default_recipe("imagefolder:pets", "fit-inrs", "dws") == "dws"
    assert default_recipe("imagefolder:pets", "fit-inrs", "nfn") == "fast"
    assert default_recipe("sine", "fit-inrs", "dws") == "sine-ssl"
    assert default_recipe("imagefolder:pets", "fit-classifiers", "dws") == "binary"
    assert recipe(None, "sine").name == "sine-ssl"


# A value of each field that no named recipe has.
CHANGES = {
    **{"hidden": 17, "layers": 4, "omega": 12.5, "output_offset": 0.1, "shared_init": True},
    **{
        "lr": 3.3e-7,
        "lr_warmup": 3,
        "first_omega": 7.5,
        "weight_decay": 1e-5,
        "beta1": 0.8,
        "beta2": 0.99,
        "eps": 1e-9,
        "steps": 7,
    },
}
IMAGE_CHANGES = {
    **CHANGES,
    **{"black": -0.5, "white": 2.0, "target_psnr_db": 33.3, "min_psnr_db": 11.0},
    **{"views": 10, "size": "64x48", "fit": "pad"},
}
SINE_CHANGES = {
    **CHANGES,
    **{"waves": 12, "points": 34, "min_amplitude": 0.25, "max_amplitude": 2.0},
    **{"min_frequency": 0.1, "max_frequency": 3.0, "target_mse": 2e-5},
}


def parse(words: list[str], start: Recipe) -> dict[str, object]:
    """Options as a person's shell hands them over, with the types of the fields."""
    known = {flag(field.name): field for field in fields(start)}
    given: dict[str, object] = {}
    rest = iter(words)
    for word in rest:
        field = known[word]
        kind, _ = types_of(type(start))[field.name]
        if kind is bool:
            given[field.name] = True
            continue
        value = next(rest)
        given[field.name] = None if value == "none" else kind(value)
    return given


@pytest.mark.parametrize(("name", "source"), [(name, source) for name, source, _ in TABLE])
def test_flags_make_the_recipe_again(name, source):
    start = recipe(name, source)
    assert flags(start, source) == []
    image = isinstance(start, ImageRecipe)
    changes = IMAGE_CHANGES if image else SINE_CHANGES
    others = {"init": "nfn" if start.init == "dws" else "dws"}
    others["schedule"] = "constant" if start.schedule == "cosine" else "cosine"
    if image:
        others["coord_order"] = "ij" if start.coord_order == "xy" else "xy"
        others["split"] = "nfn" if start.split == "dws" else "dws"
    every = {**changes, **others}
    # Nothing is forgotten here when a field is added.
    assert set(every) | set(OTHERS) == {field.name for field in fields(start)} - {"name"}
    for given in (every, *single(every)):
        if "fit" in given:
            given["size"] = 20  # without a size there is nothing to fit into
        changed = recipe(name, source, **given)
        words = flags(changed, source)
        assert words
        assert recipe(name, source, **parse(words, start)) == changed


def test_flags_can_take_a_target_away():
    changed = recipe("dws", "mnist", target_psnr_db=None)
    assert flags(changed, "mnist") == ["--target-psnr", "none"]
    assert parse(flags(changed, "mnist"), changed) == {"target_psnr_db": None}


@pytest.mark.parametrize(("name", "source"), [(name, source) for name, source, _ in TABLE])
def test_json_round_trip(name, source):
    changed = recipe(name, source, lr=0.1, shared_init=True)
    plain = json.loads(json.dumps(changed.to_json()))
    assert plain["kind"] == ("sine" if source == "sine" else "image")
    assert plain["name"] == name
    assert recipe_from_json(plain) == changed


@pytest.mark.parametrize(
    ("given", "kept"),
    [(28, 28), ("28", 28), ("28x28", 28), ("64x48", "64x48"), ("64X48", "64x48"), (None, None)],
)
def test_sizes_have_one_form(given, kept):
    for name in ("dws", "fashion"):
        changed = recipe(name, "digits", size=given)
        assert changed.size == kept
        assert recipe_from_json(json.loads(json.dumps(changed.to_json()))) == changed


def test_what_is_newer_than_format_1_is_written_only_where_it_is_used():
    assert "fit" not in recipe("dws", "digits", size="64x48").to_json()
    assert recipe("dws", "digits", size="64x48", fit="pad").to_json()["fit"] == "pad"
    for name, source in (("dws", "digits"), ("sine-ssl", "sine")):
        plain = recipe(name, source, schedule="constant", lr_warmup=0).to_json()
        assert not {"schedule", "lr_warmup"} & set(plain)
        assert recipe_from_json(plain).schedule == "constant"
        assert recipe_format(plain) == 1
        used = recipe(name, source, schedule="cosine", lr_warmup=5).to_json()
        assert (used["schedule"], used["lr_warmup"]) == ("cosine", 5)
        assert recipe_format(used) == 2
        for given in ({"activation": "tanh"}, {"encoding": "fourier"}):
            used = recipe(name, source, **given).to_json()
            assert recipe_format(used) == 2
            assert recipe_from_json(used) == recipe(name, source, **given)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation": "relu", "omega": 20.0}, "omega is of sine layers, the activation is relu"),
        ({"activation": "relu", "first_omega": 9.0}, "first_omega is of sine layers, .* is relu"),
        ({"activation": "cosine"}, "activation must be one of sin, relu, tanh, gelu, got 'cosine'"),
        ({"init": "torch"}, "init 'torch' does not start sine layers well; take dws or nfn"),
        ({"frequencies": 64}, "frequencies is of an encoding, there is none: add --encoding four"),
        ({"scale": 10.0, "encoding": "none"}, "scale is of an encoding, there is none"),
        ({"encoding": "fourier", "frequencies": 0}, "frequencies must be from 1 to 1,024, got 0"),
        ({"encoding": "fourier", "scale": 0.0}, "scale must be in .*, got 0.0"),
    ],
    ids=str,
)
def test_activations_and_encodings_that_make_no_sense_are_named(changes, message):
    for name, source in (("dws", "mnist"), ("sine-ssl", "sine"), ("udf", "shapes")):
        with pytest.raises(ValueError, match=message):
            recipe(name, source, **changes)


def test_other_activations_start_as_torch_does_unless_told_otherwise():
    assert recipe("fast", "mnist", activation="relu").init == "torch"
    assert recipe("fast", "mnist", activation="relu", init="nfn").init == "nfn"
    assert flags(recipe("dws", "mnist", activation="relu"), "mnist") == ["--activation", "relu"]
    kept = recipe("dws", "mnist", activation="relu", init="dws")
    assert flags(kept, "mnist") == ["--activation", "relu", "--init", "dws"]
    spec = kept.spec(2, 1)
    assert [(layer.activation, layer.omega) for layer in spec.layers[:-1]] == [("relu", 1.0)] * 2


def test_frequencies_are_drawn_once_from_the_seed():
    """Box-Muller on the uniforms of Philox's stream 9, key (seed, 0), counter (0, 0, 9, block)."""
    chosen = recipe("dws", "mnist", encoding="fourier", frequencies=3, scale=2.0)
    spec = chosen.spec(2, 1, 7)
    counter = np.array([[0, 0, 9, block] for block in (0, 1)], np.uint64)
    u = (philox(counter, (7, 0)).ravel() >> np.uint32(8)) * 2.0**-24
    radius, angle = np.sqrt(-2 * np.log(1 - u[0::2])), 2 * np.pi * u[1::2]
    normal = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).ravel()[:6]
    expected = (2.0 * normal).astype(np.float32).reshape(3, 2)
    assert spec.frequencies == tuple(map(tuple, expected.astype(float).tolist()))
    assert (spec.inp, spec.inputs, spec.format) == (6, 2, 2)
    assert chosen.spec(2, 1, 8).frequencies != spec.frequencies
    assert chosen.spec_of({"shape": [28, 28, 1]}, 7) == spec
    with pytest.raises(ValueError, match="drawn from a zoo's seed: give it"):
        chosen.spec(2, 1)
    many = recipe("udf", "shapes", encoding="fourier", frequencies=1_000).spec(3, 1, 0)
    assert np.std(many.frequencies) == pytest.approx(0.5, rel=0.04)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": "64x"}, "size cannot be read: expected pixels as N or WxH, .*, got '64x'"),
        ({"size": "0x4"}, "size must be from 1 to 16,384, got 0 in '0x4'"),
        ({"size": 100_000}, "size must be from 1 to 16,384, got 100000"),
        ({"size": 4, "fit": "squeeze"}, "fit must be one of crop, pad, stretch, got 'squeeze'"),
        ({"fit": "pad"}, "fit 'pad' wants a size"),
    ],
    ids=str,
)
def test_sizes_that_make_no_sense_are_named(changes, message):
    for name in ("dws", "fashion"):
        with pytest.raises(ValueError, match=message):
            recipe(name, "digits", **changes)


def test_recipes_are_frozen():
    with pytest.raises(FrozenInstanceError):
        recipe("dws", "mnist").lr = 1.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (("dsw", "mnist"), "unknown recipe 'dsw'; known: dws, dws-paper, nfn, fast, sine-ssl"),
        (
            ("sine-ssl", "mnist"),
            "'sine-ssl' is not for mnist; those are: dws, dws-paper, nfn, fast$",
        ),
        (("dws", "sine"), "'dws' is not for sine; those are: sine-ssl, sine-regression$"),
    ],
)
def test_unknown_recipes_are_listed(call, message):
    with pytest.raises(ValueError, match=message):
        recipe(*call)


def test_unknown_fields_are_listed():
    with pytest.raises(ValueError, match=r"'dws' has no field 'rate'; it has: name, hidden, .*lr"):
        recipe("dws", "mnist", rate=1.0)
    with pytest.raises(ValueError, match="'sine-ssl' has no field 'views'"):
        recipe("sine-ssl", "sine", views=2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden": 0}, "hidden must be from 1 to 65,536, got 0"),
        ({"hidden": True}, "hidden must be a number, got True"),
        ({"steps": 10**21}, "steps must be from 1 to 2,147,483,647, got 10"),
        *(
            ({field: bad}, f"{field} must be a finite number, got {bad}")
            for field in ("omega", "output_offset", "lr", "eps", "weight_decay", "white", "black")
            for bad in (float("inf"), float("-inf"), float("nan"))
        ),
        ({"target_psnr_db": float("nan")}, "target_psnr_db must be a finite number, got nan"),
        ({"min_psnr_db": float("-inf")}, "min_psnr_db must be a finite number, got -inf"),
        ({"omega": -1.0}, "omega must be positive, got -1"),
        ({"lr": 0.0}, "lr must be positive, got 0"),
        ({"lr": float("nan")}, "lr must be a finite number, got nan"),
        ({"eps": 0.0}, "eps must be positive"),
        ({"schedule": "cosin"}, r"schedule must be one of constant, cosine, .*did you mean cosine"),
        ({"lr_warmup": -1}, "lr_warmup must be from 0 to 2,147,483,647, got -1"),
        ({"steps": 0}, "steps must be from 1 to .*, got 0"),
        ({"layers": 1}, "layers must be from 2 to 100, got 1"),
        ({"weight_decay": -1e-4}, "weight_decay must not be negative, got -0.0001"),
        ({"weight_decay": float("nan")}, "weight_decay must be a finite number, got nan"),
        ({"beta1": 1.0}, r"beta1 must be in \[0, 1\), got 1"),
        ({"beta2": -0.1}, r"beta2 must be in \[0, 1\), got -0.1"),
        ({"init": "he"}, "init must be one of dws, nfn, torch, got 'he'"),
        ({"views": 0}, "views must be from 1 to .*, got 0"),
        ({"coord_order": "x"}, "coord_order must be one of xy, ij, got 'x'"),
        ({"black": 1.0}, r"white \(1.0\) must be above black \(1.0\)"),
        ({"split": "80-10-10"}, "split must be one of dws, nfn, got '80-10-10'"),
        ({"size": 0}, "size must be from 1 to .*, got 0"),
    ],
    ids=str,
)
def test_values_that_make_no_sense_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        recipe("dws", "mnist", **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"waves": 0}, "waves must be from 1 to .*, got 0"),
        ({"points": 1}, "points must be from 2 to .*, got 1"),
        ({"min_amplitude": 11.0}, r"min_amplitude \(11.0\) is above max_amplitude \(10.0\)"),
        ({"max_frequency": -1.0}, r"min_frequency \(0.0\) is above max_frequency \(-1.0\)"),
        ({"hidden": 0}, "hidden must be from 1 to"),
    ],
    ids=str,
)
def test_waves_that_make_no_sense_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        recipe("sine-ssl", "sine", **changes)


def test_two_kinds():
    assert isinstance(recipe("nfn", "mnist"), ImageRecipe)
    assert isinstance(recipe("sine-ssl", "sine"), SineRecipe)
