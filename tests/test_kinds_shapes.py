"""Shapes become zoos: what is stored is right, the same whatever the batch, and told as it is."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import zoo
from cli.main import wszoo
from processors import encode, fit_model
from zoo import kinds, nets, pools, solids, surfaces, voxels
from zoo.compare import draw
from zoo.engines import load
from zoo.kinds.shapes import TESTED
from zoo.making.fitting import Rows
from zoo.recipes import SOLID_TARGETS, recipe
from zoo.shards import read_index
from zoo.verification import verify

SMALL = {"steps": 30, "hidden": 16, "pool_points": 600, "batch_points": 100}


@pytest.fixture(scope="module")
def balls(tmp_path_factory):
    """A file of MedMNIST's layout: balls and rods in 16^3; number 3 is empty, number 5 full."""
    centre = (np.arange(16) + 0.5) / 8 - 1
    z, y, x = np.meshgrid(centre, centre, centre, indexing="ij")
    masks = []
    for number in range(24):
        radius = 0.4 + 0.02 * number
        round_ = x**2 + y**2 + (z if number % 2 else 0 * z) ** 2 < radius**2
        masks.append(255 * (round_ & (np.abs(z) < 0.8)))
    whole = np.array(masks, np.uint8)
    whole[3], whole[5] = 0, 255
    labels = (np.arange(24) % 2)[:, None].astype(np.uint8)
    path = tmp_path_factory.mktemp("voxels") / "balls_16.npz"
    cut = {"train": slice(0, 16), "val": slice(16, 20), "test": slice(20, 24)}
    arrays = {f"{name}_images": whole[part] for name, part in cut.items()}
    np.savez(path, **arrays, **{f"{name}_labels": labels[part] for name, part in cut.items()})
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A zoo of 24 solids, by signed distances."""
    out = tmp_path_factory.mktemp("zoo") / "solids"
    zoo.build(recipe("sdf", "shapes", solids=24, views=2, **SMALL), "shapes", out)
    return out


def test_a_zoo_of_solids_says_what_its_networks_are(made):
    index = read_index(made)
    assert (index.format, index.splits) == (2, {"train": 38, "validation": 2, "test": 3})
    assert (index.spec.signal, index.spec.clip, index.spec.logits) == ("sdf", 0.1, True)
    assert index.spec.axes == ("x", "y", "z")
    assert index.columns["label"].names == solids.FAMILIES
    rows = zoo.open_zoo(made)
    params = solids.draw(0, rows.table["index"])
    for name in SOLID_TARGETS:
        assert (rows.table[name] == solids.columns(params)[name]).all()


def test_quality_is_measured_on_points_that_no_pool_has(made):
    """IoU and distance error again, by hand, with plain torch modules."""
    rows = zoo.open_zoo(made, split="test")
    for row in rows:
        index = np.array([row.index])
        points = pools.uniform(0, index, TESTED)
        signed = solids.distance(solids.draw(0, index), points)[0]
        with torch.no_grad():
            v = torch.sigmoid(row.to_module()(torch.from_numpy(points[0])))[:, 0].numpy()
        found = 0.1 * (1 - 2 * v)
        iou = ((found < 0) & (signed < 0)).sum() / ((found < 0) | (signed < 0)).sum()
        assert row.iou == pytest.approx(iou, abs=1e-3)
        assert row.distance_error == pytest.approx(
            np.abs(found - np.clip(signed, -0.1, 0.1)).mean(), abs=1e-6
        )


def test_verify_measures_and_refits_to_the_byte(made):
    checks = list(verify(made, samples=8, refit=6))
    assert [check.name for check in checks][-3:] == ["plan", "quality", "refit"]
    assert all(check.passed for check in checks), checks
    assert "equal to the byte" in checks[-1].detail


def test_networks_do_not_depend_on_their_batch_or_on_other_views(made):
    chosen = recipe("sdf", "shapes", solids=24, views=2, **SMALL)
    source = kinds.open_source(chosen, "shapes", 0)
    goal = kinds.objective(chosen, source)
    rows = zoo.open_zoo(made)
    few = Rows(np.array([7, 2]), np.array([1, 0]))
    fitted = goal.fit(load("cpu", threads=2), 0, few, source.items(few.index), {})
    for place, (index, view) in enumerate(few.pairs()):
        at = np.flatnonzero((rows.table["index"] == index) & (rows.table["view"] == view))
        kept, _ = rows.batch(at)
        for name, tensor in kept.tensors().items():
            assert (fitted.arrays[name][place] == tensor[0].numpy()).all()
    first, second = (rows.batch([number])[0].flatten() for number in (0, 1))
    assert not torch.equal(first, second)


def test_a_zoo_of_solids_grows(made, tmp_path):
    small, whole = recipe("udf", "shapes", solids=20, **SMALL), tmp_path / "whole"
    zoo.build(small, "shapes", tmp_path / "z", limit=10)
    zoo.build(small, "shapes", tmp_path / "z")
    zoo.build(small, "shapes", whole)
    for part in ("train", "validation", "test"):
        grown, fresh = (zoo.open_zoo(folder, split=part) for folder in (tmp_path / "z", whole))
        assert torch.equal(grown.batch(range(len(grown)))[0].flatten(),
                           fresh.batch(range(len(fresh)))[0].flatten())  # fmt: skip


@pytest.mark.parametrize("signal", ["udf", "occupancy", "sdf"])
def test_every_signal_learns_its_shape(signal):
    """A few hundred steps on one solid: far better than at the start, in its own terms."""
    chosen = recipe(signal, "shapes", solids=4, hidden=48, layers=3, steps=300, lr=3e-3, omega=10.0,
                    batch_points=500, pool_points=20_000, schedule="cosine")  # fmt: skip
    source = kinds.open_source(chosen, "shapes", 0)
    goal = kinds.objective(chosen, source)
    index = np.array([1, 2])
    fitted = goal.fit(load("cpu"), 0, Rows(index, index * 0), source.items(index), {})
    assert fitted.arrays["iou"].min() > (0.4 if signal == "udf" else 0.85)
    weights = zoo.Weights.from_tensors(
        {name: torch.from_numpy(fitted.arrays[name].copy()) for name in goal.spec.tensors}
    )
    points = pools.uniform(1, index, 2000)
    signed = solids.distance(source.items(index), points)
    answers = nets.field(goal.spec, weights, torch.from_numpy(points)).numpy()
    outside, inside = answers[signed > 0.1].mean(), answers[signed < -0.1].mean()
    bounds = {"udf": (0.06, 0.1, 0.06, 0.1), "occupancy": (0, 0.2, 0.8, 1)}
    low, high, least, most = bounds.get(signal, (0.08, 0.1, -0.1, -0.08))
    assert low < outside < high
    assert least < inside < most
    volume = nets.volume(goal.spec, weights, 9)
    grid = nets.space(goal.spec, 9)
    assert grid[9].tolist() == [-1, -0.75, -1]
    torch.testing.assert_close(volume.reshape(2, -1), nets.field(goal.spec, weights, grid))


def test_voxels_that_hold_no_shape_are_left_out_and_told(balls, tmp_path):
    name, out = f"voxels:{balls}", tmp_path / "z"
    said = CliRunner().invoke(
        wszoo,
        ["fit-inrs", name, "--recipe", "occupancy", "--out", str(out), "--no-parquet"]
        + [
            word
            for key, value in SMALL.items()
            for word in (f"--{key.replace('_', '-')}", f"{value}")
        ],
    )
    assert said.exit_code == 0, said.output
    assert "left out for being empty, full or not binary: 2" in said.output
    index = read_index(out)
    assert index.splits == {"train": 14, "validation": 4, "test": 4}
    assert {(row.index, row.reason) for row in index.excluded} == {
        (3, "the volume is empty"),
        (5, "the volume is full"),
    }
    assert index.source["name"] == "voxels:balls_16.npz"
    assert "distance_error" not in index.columns
    assert all(check.passed for check in verify(out, refit=3)), list(verify(out, refit=3))


def test_volumes_that_are_no_shapes_are_told_where_they_stand_together(balls):
    """A chunk of nothing but them is none of an engine's business."""
    chosen = recipe("sdf", f"voxels:{balls}", **SMALL)
    source = kinds.open_source(chosen, f"voxels:{balls}", 0)
    goal, rows = kinds.objective(chosen, source), Rows(np.array([3, 5]), np.array([0, 0]))
    fitted = goal.fit(load("cpu"), 0, rows, source.items(rows.index), source.columns(rows.index))
    assert fitted.excluded == [(3, 0, "the volume is empty"), (5, 0, "the volume is full")]
    assert fitted.arrays.keys() == {"index", "view", *goal.columns, *goal.spec.tensors}
    assert {len(values) for values in fitted.arrays.values()} == {0}


def test_labels_of_cross_entropy_are_numbers_from_0_to_1():
    points, chosen = np.zeros((2, 5, 3)), recipe("sdf", "tensors", hidden=4, steps=1)
    labels = np.full((2, 5, 1), 0.5)
    labels[1, 2] = -0.2
    with pytest.raises(
        ValueError, match=r"from 0 to 1, got -0.2 to 0.5 for network 1 \(1 in all\)"
    ):
        zoo.fit(points, labels, chosen)


def test_networks_of_low_iou_are_left_out(balls, tmp_path):
    chosen = recipe("occupancy", f"voxels:{balls}", min_iou=1.0, **{**SMALL, "steps": 1})
    with pytest.raises(zoo.ZooError, match="IoU"):
        zoo.build(chosen, f"voxels:{balls}", tmp_path / "z", parquet=False)


def test_distances_of_voxels_are_those_of_their_field(balls):
    """Labels of a pool follow from the exact field of the mask, in each signal's way."""
    index = np.array([0, 1])
    for signal in ("udf", "occupancy", "sdf"):
        chosen = recipe(signal, f"voxels:{balls}", pool_points=300)
        source = kinds.open_source(chosen, f"voxels:{balls}", 0)
        goal = kinds.objective(chosen, source)
        masks = source.items(index)
        points, labels = goal.data(0, Rows(index, index * 0), goal.prepared(masks))
        signed = voxels.distance(masks, points)
        wanted = {
            "udf": 1 - np.minimum(np.abs(signed), 0.1) / 0.1,
            "occupancy": signed < 0,
            "sdf": 0.5 - np.clip(signed, -0.1, 0.1) / 0.2,
        }[signal]
        np.testing.assert_allclose(labels[..., 0], wanted, atol=1e-6)


def test_own_points_take_a_recipe_of_shapes():
    """`zoo.fit` draws points of each network's own, and minimises the cross-entropy of labels."""
    draw = np.random.default_rng(0)
    points = draw.uniform(-1, 1, (3, 400, 3))
    labels = (
        np.linalg.norm(points, axis=2, keepdims=True) < np.array([0.5, 0.6, 0.7])[:, None, None]
    )
    chosen = recipe("occupancy", "tensors", hidden=16, steps=300, batch_points=100)
    found = zoo.fit(points, labels, chosen)
    assert (found.spec.signal, sorted(found.columns)) == ("occupancy", ["index", "train_loss"])
    assert found.columns["train_loss"].max() < 0.3
    again = zoo.fit(points, labels, chosen, engine="reference")
    torch.testing.assert_close(
        again.columns["train_loss"], found.columns["train_loss"], rtol=0.3, atol=0.05
    )


def test_rows_render_and_cards_say_how_to_read_them(made, tmp_path, monkeypatch):
    row = zoo.open_zoo(made)[0]
    found = row.render(32)
    assert found.shape == (32, 32, 32)
    card = (made / "README.md").read_text()
    assert "The inputs are x, y, z of a point." in card
    assert "With v for the sigmoid of the output, 0.1 * (1 - 2 * v) is the distance" in card
    code = card.partition("from safetensors.torch import load_file")[2].partition("```")[0]
    monkeypatch.chdir(made.parent)
    names: dict[str, torch.Tensor] = {}
    exec("import torch\nfrom safetensors.torch import load_file" + code, names)
    torch.testing.assert_close(names["sdf"], found)
    with pytest.raises(ValueError, match="no columns"):
        row.render(4, 4)


TINY = {
    "nfn-np": {"channels": [4], "fourier": 4, "head": 8, "head_norm": False},
    "nfn-hnp": {"channels": [4], "fourier": 4, "head": 8, "head_norm": False},
    "dws": {"chan": 4, "layers": 2, "variant": "deepsets"},
    "graded": {"chan": 4, "width": 8},
    "probe": {"lattice": 4, "layers": 1},
    "mlp": {"width": 8},
    "statnn": {"width": 8},
}


@pytest.mark.parametrize(
    ("model", "preset"),
    [*((model, "small") for model in TINY), ("graded", "paper"), ("probe", "paper")],
)
def test_every_reader_of_n3_reads_shapes(made, tmp_path, model, preset):
    settings = {"steps": 2, "epochs": None, "batch": 8, "warmup": 0}
    summary = fit_model("classify", model, made, tmp_path / "run", settings=settings,
                        sizes=TINY[model], preset=preset, device="cpu")  # fmt: skip
    assert set(summary["test"]) == {"accuracy", "loss"}


@pytest.mark.parametrize("task", ["regress", "ssl"])
def test_what_is_measured_of_solids_is_learned(made, task, tmp_path):
    """A target is one of size_1, size_2, size_3 and volume; the probe of ssl takes all."""
    options = {"target": "volume"} if task == "regress" else {"dimension": 4}
    if task == "regress":
        with pytest.raises(ValueError, match="size_1 and size_2 and size_3 and volume: choose one"):
            fit_model(task, "statnn", made, tmp_path / "none", device="cpu")
    found = fit_model(task, "probe", made, tmp_path / "run", options=options, device="cpu",
                      settings={"steps": 40, "epochs": None, "batch": 8},
                      sizes={"lattice": 6, "layers": 1})  # fmt: skip
    if task == "regress":
        assert found["test"]["mse"] < found["constant"]["score"]
    else:
        assert {f"mse_{name}" for name in SOLID_TARGETS} <= set(found["test"])


@pytest.mark.parametrize("signal", ["udf", "occupancy", "sdf"])
def test_originals_are_what_networks_should_render(signal, balls, tmp_path):
    """Of solids and of volumes, on the points of `render`, in the zoo's own terms."""
    clipped = {
        "udf": lambda signed: np.minimum(np.abs(signed), 0.1),
        "occupancy": lambda signed: signed < 0,
        "sdf": lambda signed: np.clip(signed, -0.1, 0.1),
    }[signal]
    for name, more in (("shapes", {"solids": 12}), (f"voxels:{balls}", {})):
        out = tmp_path / name.partition(":")[0]
        made = recipe(signal, name, **more, **SMALL | {"steps": 1})
        zoo.build(made, name, out, seed=3, limit=4, parquet=False)
        row = zoo.open_zoo(out)[2]
        found, points = zoo.original(row), nets.space(row.spec, 32).numpy()
        if more:
            signed = solids.distance(solids.draw(3, np.array([row.index])), points[None])[0]
        else:
            signed = voxels.distance(voxels.read(balls).masks[[row.index]], points[None])[0]
        assert (found.dtype, found.shape) == (np.float32, tuple(row.render().shape))
        np.testing.assert_allclose(found.ravel(), clipped(signed), atol=1e-6)
    moved = tmp_path / "moved.npz"
    kept = replace(row, source=row.source | {"address": f"voxels:{tmp_path / 'gone.npz'}"})
    with pytest.raises(zoo.ZooError, match="there is no file"):
        zoo.original(kept)
    moved.write_bytes(balls.read_bytes())
    assert (zoo.original(kept, source=f"voxels:{moved}") == found).all()
    with np.load(balls) as arrays:
        np.savez(moved, **{**arrays, "test_images": arrays["test_images"][::-1]})
    other = tmp_path / "other.npz"
    moved.rename(other)
    with pytest.raises(zoo.ZooError, match="has changed"):
        zoo.original(kept, source=f"voxels:{other}")


def test_shapes_move_in_space(made):
    row = zoo.open_zoo(made)[0]
    shift = torch.tensor([[0.25, -0.5, 0.125]])
    moved = encode.move_picture(row.spec, row.weights, shift=shift, zoom=2.0)
    points = torch.rand(50, 3) - 0.5
    expected = nets.field(row.spec, row.weights, (points - shift) / 2)
    torch.testing.assert_close(nets.field(row.spec, moved, points), expected, atol=1e-4, rtol=1e-3)
    with pytest.raises(ValueError, match="networks of 3 coordinates cannot be turned by degrees"):
        encode.move_picture(row.spec, row.weights, degrees=10.0)
    step = encode.MovePicture(row.spec).train()
    assert not torch.equal(step(row.weights).flatten(), row.weights.flatten())
    # A quarter about z brings x to y: the shape at (0, 1, 0) is what it was at (1, 0, 0).
    quarter = torch.tensor([[[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]])
    turned = encode.move_picture(row.spec, row.weights, turn=quarter)
    x, y, z = points.unbind(1)
    torch.testing.assert_close(
        nets.field(row.spec, turned, torch.stack([-y, x, z], 1)),
        nets.field(row.spec, row.weights, points), atol=1e-4, rtol=1e-3,
    )  # fmt: skip


def test_any_turn_shift_and_zoom_of_shapes_is_exact(made):
    """The field of the moved network at moved points is that of the network at the points."""
    weights, _ = zoo.open_zoo(made).batch(range(6))
    spec, draw = zoo.open_zoo(made).spec, torch.Generator().manual_seed(1)
    weights = weights.map(torch.Tensor.double)
    turn = encode.random_turns(6, generator=draw)
    shift = torch.rand(6, 3, generator=draw, dtype=torch.float64) - 0.5
    zoom = torch.rand(6, generator=draw, dtype=torch.float64) + 0.5
    moved = encode.move_picture(spec, weights, shift=shift, zoom=zoom, turn=turn)
    points = torch.rand(6, 40, 3, generator=draw, dtype=torch.float64) - 0.5
    there = zoom[:, None, None] * points @ turn.transpose(1, 2) + shift[:, None]
    torch.testing.assert_close(nets.field(spec, moved, there), nets.field(spec, weights, points))
    # As it is drawn in training, too: some rotation of it fits, no reflection.
    step = encode.MovePicture(spec, 60.0, shift=0.0, zoom=0.0).train()
    drawn = step(weights, torch.Generator().manual_seed(2))
    torch.testing.assert_close(
        drawn.weights[0].norm(dim=2), weights.weights[0].norm(dim=2), atol=1e-6, rtol=1e-6
    )
    assert torch.equal(drawn.biases[0], weights.biases[0])
    again = encode.MovePicture(spec, 0.0, shift=0.0, zoom=0.0).train()(weights)
    torch.testing.assert_close(again.flatten(), weights.flatten())


def test_random_turns_are_rotations_and_uniform():
    turns = encode.random_turns(20_000, generator=torch.Generator().manual_seed(0))
    unit = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(turns @ turns.transpose(1, 2), unit.expand_as(turns))
    torch.testing.assert_close(turns.det(), torch.ones(len(turns), dtype=torch.float64))
    # Of a uniform one every entry has mean 0 and variance 1/3, and so has each power's mean.
    assert turns.mean(0).abs().max() < 0.02
    assert (turns.square().mean(0) - 1 / 3).abs().max() < 0.01
    small = encode.random_turns(5_000, 30.0, torch.Generator().manual_seed(0))
    angles = torch.acos((small.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).rad2deg()
    assert angles.max() <= 30 + 1e-6
    # Haar's measure: half of those within 30 degrees are further than 23.8.
    assert (angles > 23.8).double().mean().item() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("signal", ["udf", "occupancy"])
def test_shapes_are_shown_as_surfaces_beside_their_originals(signal, tmp_path):
    made = recipe(signal, "shapes", solids=10, **SMALL | {"steps": 200, "hidden": 24})
    zoo.build(made, "shapes", tmp_path / "solids")
    source = zoo.source_of(read_index(tmp_path / "solids"))
    goal = kinds.objective(made, source)
    rows = zoo.open_zoo(tmp_path / "solids")
    arrays = {name: values.numpy() for name, values in rows.batch(range(8))[1].items()}
    arrays |= {name: t.numpy() for name, t in rows.batch(range(8))[0].tensors().items()}
    shown = kinds.kind_of(made).samples(goal, source, arrays)
    assert shown.originals.shape == (8, surfaces.TALL, surfaces.WIDE, 3)
    assert shown.captions[5] == f"torus\nIoU {arrays['iou'][5]:.3f}"
    points = surfaces.centres(64)
    signed = solids.distance(source.params[5:6], points[None])[0].reshape(64, 64, 64)
    true = np.abs(signed) - 0.05 if signal == "udf" else signed
    assert np.array_equal(shown.originals[5], surfaces.picture(true))
    written = tmp_path / "shapes.png"
    draw(tmp_path / "solids", written, split="train", count=3)
    assert written.stat().st_size > 10_000


@pytest.mark.parametrize("logits", [True, False])
@pytest.mark.parametrize("signal", ["udf", "occupancy", "sdf"])
def test_the_depth_of_a_field_is_negative_where_it_says_inside(signal, logits):
    spec = zoo.NetworkSpec.mlp([3, 8, 1], coord_order="xyz")
    spec = replace(spec, signal=signal, clip=0.1, logits=logits)
    init = nets.initialise(spec, "nfn", 0, np.arange(3), np.zeros(3, np.int64))
    weights = zoo.Weights.unflatten(torch.from_numpy(init), spec)
    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    told, depth = (of(spec, weights, points) for of in (nets.field, nets.depth))
    inside = {"udf": told < 0.05, "occupancy": told > 0.5, "sdf": told < 0}[signal]
    assert torch.equal(depth < 0, inside)
