import json

import cv2
import numpy as np
import pytest
import torch
from helpers import line_of, run
from PIL import Image

import zoo
from processors.options import EditOptions
from processors.rows import Rows
from processors.tasks.edit import EDITS, Edit
from processors.train import evaluate


def fitted(folder, source, *words):
    run("fit-inrs", source, "--limit", 30, "--hidden", 8, "--steps", 60, "--out", folder,
        "--no-parquet", *words)  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return fitted(tmp_path_factory.mktemp("zoos") / "digits", "digits")


@pytest.fixture(scope="module")
def colour(tmp_path_factory):
    """Twelve pictures in colour, by recipe nfn: pixels from -1 to 1, row before column."""
    folder = tmp_path_factory.mktemp("pictures")
    draw = np.random.default_rng(0)
    for number in range(30):
        pixels = draw.integers(0, 256, (9, 12, 3), dtype=np.uint8)
        path = folder / "ab"[number % 2] / f"{number:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
    out = tmp_path_factory.mktemp("zoos") / "colour"
    return fitted(out, f"imagefolder:{folder}", "--recipe", "nfn")


def task(folder, **options):
    rows = Rows(zoo.open_zoo(folder, "test"))
    return Edit({"test": rows, "train": rows}, EditOptions(**options)), rows


def test_edits_are_those_of_opencv():
    picture = np.zeros((7, 8, 1), np.uint8)
    picture[3, 4] = 200
    expected = np.zeros_like(picture)
    expected[2:5, 3:6] = 200
    np.testing.assert_array_equal(EDITS["dilate"](picture), expected)
    colours = np.random.default_rng(0).integers(60, 120, (32, 32, 3), dtype=np.uint8)
    found = EDITS["contrast"](colours)
    light, a, b = cv2.split(cv2.cvtColor(colours, cv2.COLOR_RGB2LAB))
    equal = cv2.createCLAHE(1.0, (3, 3)).apply(light)
    by_hand = cv2.cvtColor(cv2.merge([equal, a, b]), cv2.COLOR_LAB2RGB)
    np.testing.assert_array_equal(found, by_hand)
    assert found.astype(int).std() > colours.astype(int).std()
    # Red is the first channel: OpenCV's own order would see other lightness.
    other = EDITS["contrast"](colours[..., ::-1].copy())[..., ::-1]
    assert (found != other).any()


@pytest.mark.parametrize("edit", ["dilate", "contrast"])
def test_error_is_that_of_the_rendered_pictures(colour, edit):
    made, rows = task(colour, edit=edit)
    errors = []
    for row in rows.zoo:
        target = EDITS[edit](zoo.original(row)).astype(np.float64) / 127.5 - 1
        errors.append(np.square(2 * row.render().double().numpy() - 1 - target).mean())
    assert made.error(None, "test") == pytest.approx(np.mean(errors), rel=1e-5)


def test_pixels_of_any_range_count_alike(digits):
    made, rows = task(digits)
    assert made.spec.pixel_range == (0.0, 1.0)
    target = np.stack([EDITS["dilate"](zoo.original(row)) for row in rows.zoo]) / 127.5 - 1
    rendered = np.stack([2 * row.render().numpy() - 1 for row in rows.zoo])
    expected = np.square(rendered - target).mean()
    assert made.error(None, "test") == pytest.approx(expected, rel=1e-5)
    # A network and its target are matched by their index, in whatever order they come.
    columns = rows.batch(torch.tensor([2, 0]))[1]
    torch.testing.assert_close(
        made.targets(columns, "test").numpy().astype(np.float64),
        target[[2, 0]].reshape(2, -1, 1),
        atol=1e-6, rtol=0,
    )  # fmt: skip


class Unchanged(torch.nn.Module):
    def forward(self, weights):
        return weights.map(lambda tensor: tensor + 0)


def test_fewer_points_are_a_draw_from_all(digits):
    made, rows = task(digits, points=16)
    weights, columns = rows.batch(torch.arange(len(rows)))
    torch.manual_seed(0)
    draws = torch.stack([made.loss(Unchanged(), weights, columns) for _ in range(300)])
    assert draws.std() > 0
    assert float(draws.mean()) == pytest.approx(made.error(None, "test"), rel=0.05)


@pytest.mark.parametrize("model", ["nfn-np", "mlp"])
def test_training_edits_and_its_model_is_found_again(digits, tmp_path, model):
    sizes = {"nfn-np": ["channels=[8]", "fourier=8"], "mlp": ["params=20000", "hidden=1"]}
    words = [word for size in sizes[model] for word in ("--set", size)]
    result = run(
        "train", "edit", digits, "--model", model, "--out", tmp_path / "run", "--steps", 60,
        "--batch", 8, "--warmup", 0, "--lr", 0.003, "--evaluations", 2, *words,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert found["validation"]["mse"] < 0.97 * found["validation"]["mse_before"]
    assert evaluate(tmp_path / "run", digits) == pytest.approx(found["test"], rel=1e-5)
    assert (tmp_path / "run" / "figures" / "edited.png").is_file()


def test_other_zoos_and_edits_are_refused(digits, tmp_path):
    words = ("train", "edit", digits, "--model", "mlp", "--out", tmp_path / "run")
    message = line_of(run(*words, "--edit", "contrast"), 2)
    assert "edit contrast is for pictures in colour" in message
    assert "choose --edit dilate" in message
    message = line_of(run(*words, "--edit", "blur"), 2)
    assert "must be one of dilate, contrast, got 'blur'" in message
    assert "would not move along" in line_of(run(*words, "--augment", "move"), 2)
    assert "must be from 1 to" in line_of(run(*words, "--points", 0), 2)
    run("fit-classifiers", "digits", "--limit", 12, "--hidden", 4, "--layers", 2, "--epochs", 1,
        "--out", tmp_path / "pairs", "--no-parquet")  # fmt: skip
    message = line_of(run("train", "edit", tmp_path / "pairs", "--model", "nfn-np",
                          "--out", tmp_path / "run"), 2)  # fmt: skip
    assert "edit needs networks of pictures, as `wszoo fit-inrs mnist` makes them" in message
