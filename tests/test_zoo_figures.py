"""Figures of cards: exact pixels, any size, equal bytes."""

import io
from pathlib import Path

import numpy as np
import pytest
from helpers import pixels
from PIL import Image

from zoo import drawing, figures
from zoo.figures import Samples


def test_sample_grid_shows_exact_pixels_beside_each_other(tmp_path: Path) -> None:
    left = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), np.uint8)
    right = left[:, ::-1] / 255
    figures.sample_grid(tmp_path / "grid.png", left, right, ["a", "b", "c"])
    array = pixels(tmp_path / "grid.png")
    big = left[0].repeat(3, 0).repeat(3, 1).repeat(3, 2)
    rows, columns = np.nonzero((array == big[0, 0]).all(axis=-1))
    places = [
        (r, c)
        for r, c in zip(rows, columns, strict=True)
        if array[r : r + 84, c : c + 84].shape == big.shape
        and np.abs(array[r : r + 84, c : c + 84].astype(int) - big).max() <= 1
    ]
    assert len(places) == 1
    r, c = places[0]
    beside = array[r : r + 84, c + 88 : c + 172].astype(int)
    assert np.abs(beside - big[::-1]).max() <= 1


@pytest.mark.parametrize(
    ("count", "shape"),
    [(1, (8, 8, 1)), (16, (32, 32, 3)), (9, (20, 40, 3)), (2, (300, 200, 3)), (3, (28, 28))],
)
def test_sample_grid_takes_any_size(tmp_path: Path, count: int, shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).uniform(-0.2, 1.2, (count, *shape))
    figures.sample_grid(tmp_path / "grid.png", images, images, ["long name $x$\n20.0 dB"] * count)
    assert pixels(tmp_path / "grid.png").shape[1] <= 1600


def test_histogram_takes_odd_values(tmp_path: Path) -> None:
    path = tmp_path / "h.png"
    for values in (
        {"train": np.array([25.0]), "test": np.zeros(0)},
        {"train": np.array([np.inf, np.nan])},
        {"train": np.full(10, 120.0), "test": np.full(3, 120.0)},
    ):
        for log in (False, True):
            figures.quality_histogram(path, values, "PSNR [dB]", log=log)
            pixels(path)


def test_figures_are_equal_bytes(tmp_path: Path) -> None:
    values = {"train": np.random.default_rng(0).normal(26, 2, 500)}
    for name in ("a", "b"):
        figures.quality_histogram(tmp_path / name, values, "PSNR [dB]")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert Image.open(io.BytesIO((tmp_path / "a").read_bytes())).format == "PNG"


def test_samples_must_agree() -> None:
    images = np.zeros((2, 4, 4, 1))
    with pytest.raises(ValueError, match=r"as many originals .* 3 captions"):
        Samples(images, images, ["a", "b", "c"])
    with pytest.raises(ValueError, match="row, column, 1 or 3"):
        figures.sample_grid(Path("unused.png"), images[..., [0, 0]], images, ["a", "b"])


def test_splits_are_told_apart_in_grey() -> None:
    """By brightness, as a printer or an eye without colour has it, and by dashes."""
    found = []
    for colour, _ in drawing.SPLITS.values():
        red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
        found.append(0.299 * red + 0.587 * green + 0.114 * blue)
    assert min(np.diff(sorted(found))) > 0.1
    assert max(found) < 0.75  # seen on white
    assert len({str(dashes) for _, dashes in drawing.SPLITS.values()}) == len(found)


def test_runs_of_steps_of_their_own_all_count_at_every_step() -> None:
    """A short run counts on with its last accuracy, and no step is told by one run alone."""
    run = np.repeat([0, 1, 2], [3, 3, 4])
    step = np.array([0, 10, 20, 0, 100, 200, 0, 5, 30, 1000])
    accuracy = np.array([0.1, 0.2, 0.3, 0.1, 0.5, 0.6, 0.1, 0.1, 0.1, 0.1])
    at, quantiles = figures.middle_of_runs(run, step, accuracy)
    assert at[0] == 0
    assert at[-1] == 1000
    found = dict(zip(at, quantiles[:, 1], strict=True))
    assert found[0] == pytest.approx(0.1)
    assert found[1000] == pytest.approx(0.3)  # of .3, .6 and .1
    place = at[np.searchsorted(at, 100) - 1]
    assert found[place] == pytest.approx(min(0.3, 0.1 + 0.4 * place / 100))
    # Where most runs have not begun, nothing is told.
    at, _ = figures.middle_of_runs(
        np.repeat([0, 1, 2], 2), np.array([0, 5, 3, 6, 4, 7]), accuracy[:6]
    )
    assert at[0] >= 3
    # Kept at the same steps, it is the median at each.
    same = np.tile([2, 4], 3)
    at, quantiles = figures.middle_of_runs(np.repeat([0, 1, 2], 2), same, np.arange(6) / 10)
    assert at.tolist() == [2, 4]
    np.testing.assert_allclose(quantiles[:, 1], [0.2, 0.3])
