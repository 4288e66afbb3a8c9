"""What originals themselves tell: rows of reports that are no part of the zoo."""

import hashlib
import shutil

import numpy as np
import pytest
import torch
from helpers import line_of, run

import zoo
from processors import ceiling, report, results


@pytest.fixture(scope="module")
def pictures(digits_zoo, tmp_path_factory):
    copy = tmp_path_factory.mktemp("ceiling") / "digits"
    shutil.copytree(digits_zoo, copy)
    return copy


@pytest.fixture(scope="module")
def measured(pictures):
    """The command's ceiling, and the hashes of the zoo's files before."""
    before = {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in pictures.rglob("*.*")}
    result = run("ceiling", pictures, "--epochs", 30, "--batch", 8, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert result.stderr.count("accuracy") == 2
    return before


def test_a_ceiling_lies_beside_the_zoo(pictures, measured):
    after = {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in pictures.rglob("*.*")}
    assert after.items() - measured.items() == {
        (pictures / ceiling.FILE, after[pictures / ceiling.FILE])
    }
    assert run("verify", pictures, "--refit", 0).exit_code == 0
    found = {r["config"]["model"]: r for r in results._kept(pictures / ceiling.FILE)}
    assert set(found) == {"originals", "renders"}
    for each in found.values():
        # 64 training pictures of ten classes: chance is 0.1.
        assert each["summary"]["test"]["accuracy"] > 0.3
        assert each["config"]["networks"]["train"] == len(zoo.open_zoo(pictures, "train"))
        assert each["config"]["command"] == f"wszoo ceiling {pictures} --epochs 30 --batch 8"


def test_it_stands_in_reports_of_runs_on_that_zoo_alone(pictures, measured, digits_zoo, tmp_path):
    out = tmp_path / "run"
    words = ["--model", "mlp", "--set", "width=8", "--epochs", 1, "--batch", 16, "--device", "cpu"]
    assert run("train", "classify", pictures, *words, "--out", out).exit_code == 0
    models = [record["config"]["model"] for _, record in report.collect([out])]
    assert models == ["mlp", "originals", "renders"]
    written = tmp_path / "report.md"
    report.write([out], written)
    results, *_ = written.read_text().partition("<details>")
    rows = [line.split(" | ")[:2] for line in results.splitlines() if line.startswith("| ")]
    reads = dict(rows)
    assert reads["| MLP"] == "weights"
    assert reads["| ceiling: small CNN on the originals"] == "data"
    assert reads["| ceiling: small CNN on the renders"] == "function"
    # Named as well, it counts once.
    assert len(report.collect([out, pictures / ceiling.FILE])) == 3
    elsewhere = tmp_path / "elsewhere"
    assert run("train", "classify", digits_zoo, *words, "--out", elsewhere).exit_code == 0
    assert [r["config"]["model"] for _, r in report.collect([elsewhere])] == ["mlp"]
    # Of another zoo that took the place, or damaged, it is left out.
    config = report.collect([out])[0][1]["config"]
    assert ceiling.beside([config]) == [pictures / ceiling.FILE]
    assert ceiling.beside([{**config, "zoo_sha256": "0" * 64}]) == []
    kept = (pictures / ceiling.FILE).read_text()
    for text in ("{", "[3]", "[]]"):
        (pictures / ceiling.FILE).write_text(text)
        assert ceiling.beside([config]) == []
    (pictures / ceiling.FILE).write_text(kept)


def test_each_half_is_kept_as_it_stands_and_the_same_call_goes_on(
    digits_zoo, tmp_path, monkeypatch
):
    folder = tmp_path / "digits"
    shutil.copytree(digits_zoo, folder)
    trained = []
    train = ceiling._train
    monkeypatch.setattr(ceiling, "_train", lambda *a: trained.append(0) or train(*a))

    def stop(rows, data_root):
        raise KeyboardInterrupt

    def measure(seed=0):
        trained.clear()
        told = []
        settings = {"epochs": 1, "batch": 32}
        found = ceiling.measure(folder, settings=settings, seed=seed, tell=told.append)
        return found, [line.partition(",")[0] for line in told], len(trained)

    with monkeypatch.context() as stopped:
        stopped.setattr(ceiling, "_renders", stop)
        with pytest.raises(KeyboardInterrupt):
            measure()
    (first,) = results._kept(folder / ceiling.FILE)
    assert first["config"]["model"] == "originals"
    found, told, trainings = measure()
    assert trainings == 1
    assert told[0] == "originals: kept"
    assert found["originals"] == first["summary"]["test"]
    kept = results._kept(folder / ceiling.FILE)
    assert [r["config"]["model"] for r in kept] == ["originals", "renders"]
    assert kept[0] == first
    before = (folder / ceiling.FILE).read_bytes()
    assert measure() == (found, ["originals: kept", "renders: kept"], 0)
    assert (folder / ceiling.FILE).read_bytes() == before
    # Another seed is another measurement; one half of it beside one of the old says so.
    assert measure(seed=1)[2] == 2
    assert {r["config"]["seed"] for r in results._kept(folder / ceiling.FILE)} == {1}
    # What is damaged is measured again.
    (folder / ceiling.FILE).write_bytes(before[:-40])
    assert measure()[2] == 2


def test_renders_are_those_of_the_networks_and_originals_those_of_the_source(pictures):
    z = zoo.open_zoo(pictures, "test")
    rows = ceiling.Rows(z)
    renders, originals = ceiling._renders(rows, None), ceiling._originals(rows, None)
    assert renders.shape == originals.shape == (len(z), 1, 8, 8)
    torch.testing.assert_close(renders[3, 0], z[3].render()[..., 0].clamp(0, 1))
    expected = torch.from_numpy(zoo.original(z[3])[..., 0] / 255).float()
    torch.testing.assert_close(originals[3, 0], expected)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """Balls and rods in 12^3, by voxels: two classes; two views of each that is trained on."""
    centre = (np.arange(12) + 0.5) / 6 - 1
    z, y, x = np.meshgrid(centre, centre, centre, indexing="ij")
    masks = [
        (x**2 + y**2 + z**2 if n % 2 else x**2 + y**2) < (0.5 + 0.02 * (n // 2)) ** 2
        for n in range(20)
    ]
    home = tmp_path_factory.mktemp("shapes")
    arrays = {}
    for name, part in (("train", slice(0, 12)), ("val", slice(12, 16)), ("test", slice(16, 20))):
        arrays[f"{name}_images"] = np.array(masks[part], np.uint8)
        arrays[f"{name}_labels"] = np.arange(20)[part, None] % 2
    np.savez(home / "rods.npz", **arrays)
    name = f"voxels:{home / 'rods.npz'}"
    made = zoo.recipe("udf", name, views=2, steps=40, hidden=12, pool_points=500, batch_points=200)
    zoo.build(made, name, home / "zoo", parquet=False)
    return home / "zoo"


def test_shapes_have_a_ceiling_in_space(shapes):
    found = ceiling.measure(shapes, settings={"epochs": 12, "batch": 6}, device="cpu")
    assert found["originals"]["accuracy"] == 1.0
    assert {"accuracy", "loss", "auc"} == set(found["originals"]) == set(found["renders"])
    kept = {r["config"]["model"]: r for r in results._kept(shapes / ceiling.FILE)}
    assert kept["originals"]["config"]["model_sizes"] == {"width": 16}
    assert kept["renders"]["config"]["networks"] == {"train": 24, "validation": 4, "test": 4}


def test_shapes_are_seen_where_the_grid_lies(shapes):
    """Originals and renders: 1 on the surface, 0 from the clipped distance on."""
    z = zoo.open_zoo(shapes, "train")
    rows = ceiling.Rows(z)
    renders, originals = ceiling._renders(rows, None), ceiling._originals(rows, None)
    assert renders.shape == originals.shape == (24, 1, 32, 32, 32)
    for seen, field in ((renders, z[5].render(32)), (originals, zoo.original(z[5]))):
        wanted = 1 - torch.as_tensor(field) / 0.1
        torch.testing.assert_close(seen[5, 0].float(), wanted, atol=1e-3, rtol=0)
    assert torch.equal(originals[4], originals[5])  # two views of a shape
    assert not torch.equal(renders[4], renders[5])
    assert originals[:, 0, 0, 0, 0].max() == 0


def test_shapes_are_moved_in_space():
    draw = torch.Generator().manual_seed(0)
    batch = torch.zeros(2, 1, 32, 32, 32)
    batch[..., 10, 12, 14] = 1
    places = {tuple(ceiling._moved(batch, draw)[1, 0].nonzero()[0].tolist()) for _ in range(60)}
    assert len(places) > 30
    assert all(abs(at - was) <= 2 for place in places for at, was in zip(place, (10, 12, 14),
                                                                         strict=True))  # fmt: skip


def test_moving_keeps_the_size_and_moves_all_alike():
    draw = torch.Generator().manual_seed(0)
    batch = torch.zeros(2, 1, 28, 28)
    batch[..., 10:12, 10:12] = 1
    places = {tuple(ceiling._moved(batch, draw)[0, 0].nonzero()[0].tolist()) for _ in range(60)}
    assert len(places) > 10
    assert all(8 <= row <= 12 and 8 <= column <= 12 for row, column in places)


def test_zoos_without_pictures_or_classes_are_refused(waves_zoo, trajectories_zoo, tmp_path):
    assert "is not of pictures or shapes" in line_of(run("ceiling", waves_zoo), 2)
    assert "is not of pictures or shapes" in line_of(run("ceiling", trajectories_zoo), 2)
    assert "pull the zoo first" in line_of(run("ceiling", tmp_path / "none"), 2)
