"""`fit-classifiers` and `fit-trajectories`, as a user meets them."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import line_of, run

import zoo
from cli.options import TRAINED, recipe_fields


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> str:
    """Three classes of colour pictures: a bright left, right or middle."""
    root = tmp_path_factory.mktemp("pictures")
    draw = np.random.default_rng(0)
    for part, count in (("train", 40), ("test", 15)):
        for number, name in enumerate(("left", "middle", "right")):
            folder = root / part / name
            folder.mkdir(parents=True)
            for item in range(count):
                picture = draw.integers(0, 120, (9, 9, 3), dtype=np.uint8)
                picture[:, 3 * number : 3 * number + 3] += 90
                cv2.imwrite(str(folder / f"{item}.png"), picture)
    return f"imagefolder:{root}"


def test_every_field_has_an_option_with_help():
    assert all(each.help for each in recipe_fields(TRAINED).values())
    for command, kind in zip(("fit-classifiers", "fit-trajectories"), TRAINED, strict=True):
        text = run(command, "--help").stdout
        for field in recipe_fields([kind]):
            assert "--" + field.replace("_", "-") in text


def test_recipes_are_listed_with_their_command():
    text = run("recipes", "small-cnn").stdout
    assert "wszoo fit-trajectories" in text
    assert re.search(r"--lr +1e-4\.\.1e-2", text)


def test_classifiers_of_a_folder(pictures, tmp_path):
    out = tmp_path / "zoo"
    words = (
        "fit-classifiers", pictures, "--networks", 20, "--hidden", 12, "--epochs", 6,
        "--batch", 16, "--out", out, "--shard-rows", 7,
    )  # fmt: skip
    result = run(*words)
    assert result.exit_code == 0, result.output
    assert "20 networks (train 16, validation 2, test 2)" in result.stdout
    found = re.search(r"mean test accuracy (\d\.\d+)", result.stdout)
    assert found
    assert float(found[1]) > 0.9
    assert "20 networks" in run(*words).stdout
    assert "test_accuracy" in run("info", out).stdout
    checked = run("verify", out, "--samples", 5, "--refit", 2)
    assert checked.exit_code == 0, checked.output
    assert "2 networks trained again, equal to the byte" in checked.stdout
    shown = run("show", out, "--out", tmp_path / "show.png", "--split", "train")
    assert shown.exit_code == 0
    assert (tmp_path / "show.png").stat().st_size > 5_000
    card = (out / "README.md").read_text()
    assert "accuracy_pairs.png" in card
    assert "trained to tell two classes apart" in card
    assert "fit-classifiers" in card
    assert zoo.open_zoo(out).columns["class_a"].names == ("left", "middle", "right")


def test_trajectories_of_a_folder(pictures, tmp_path):
    out = tmp_path / "zoo"
    result = run(
        "fit-trajectories", pictures, "--recipe", "small-cnn", "--runs", 10, "--epochs", 10,
        "--hidden", 8, "--layers", 3, "--batch", "16,32", "--validation-share", 0.1,
        "--out", out, "--dtype", "bfloat16", "--activation", "tanh", "--fraction", "0.5,1",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    # Kept after 0, 1, 2, 3 epochs and every tenth of 10: 11 networks a run.
    assert "(train 88, validation 11, test 11)" in result.stdout
    assert "10 runs trained again, equal" in run("verify", out, "--refit", 10).stdout
    assert run("show", out, "--out", tmp_path / "show.png").exit_code == 0
    card = (out / "README.md").read_text()
    assert "accuracy_steps.png" in card
    assert "--dtype bfloat16" in card
    _, columns = zoo.open_zoo(out, "test").run(9)
    assert columns["epoch"].tolist() == list(range(11))


def test_no_view(pictures, tmp_path):
    out = tmp_path / "zoo"
    words = ("fit-classifiers", pictures, "--limit", 4, "--hidden", 4, "--out", out)
    assert run(*words, "--no-parquet", "--engine", "reference").exit_code == 0
    assert not (out / "data").exists()
    assert "dtype 'float32' there, 'float16' asked for" in line_of(
        run(*words, "--no-parquet", "--engine", "reference", "--dtype", "float16"), 2
    )


def test_misuse(tmp_path: Path):
    out = ("--out", tmp_path / "zoo")
    for words, code, message in (
        (("fit-inrs", "digits", "--recipe", "nfn-mlp3"), 2, "`wszoo fit-trajectories`"),
        (("fit-classifiers", "digits", "--recipe", "dws"), 2, "`wszoo fit-inrs`"),
        (("fit-classifiers", "digits", "--recipe", "x"), 2, "known: binary"),
        (("fit-trajectories", "sine"), 2, "is not for sine"),
        (("fit-trajectories", "digits", "--lr", "fast"), 2, "'--lr': cannot be read"),
        (("fit-trajectories", "digits", "--engine", "jax"), 2, "known: auto, cpu,"),
        (("fit-trajectories", "digits", "--engine", "cuda"), 2, "known: auto, cpu, torch"),
        (("fit-trajectories", "digits", "--device", "cuda:9"), 2, "cannot be used"),
        (("fit-trajectories", "digits", "--recipe", "small-cnn"), 2, "is too small for a kernel"),
    ):
        assert message in line_of(run(*words, *out), code)
