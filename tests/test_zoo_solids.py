"""Solids: exact distances, held against surfaces made another way."""

import numpy as np
import pytest

from zoo import solids
from zoo.recipes import SOLID_TARGETS

COUNT = 2 * len(solids.FAMILIES)
INDEX = np.arange(COUNT)
NAMES = [f"{solids.FAMILIES[i % 10]}-{i}" for i in INDEX]


@pytest.fixture(scope="module")
def params():
    return solids.draw(7, INDEX)


@pytest.fixture(scope="module")
def clouds(params):
    return solids.cloud(params, 7, INDEX, 4_000)


def test_ten_families_come_in_turn_and_a_solid_depends_on_its_index_alone(params):
    assert params[:, 0].tolist() == [i % 10 for i in INDEX]
    assert np.array_equal(solids.draw(7, INDEX[[13, 4]]), params[[13, 4]])
    assert not np.array_equal(solids.draw(8, INDEX), params)
    assert np.unique(params[:, 1:5] @ [1, 2, 3, 4]).size == COUNT


@pytest.mark.parametrize("which", INDEX, ids=NAMES)
def test_the_surface_has_distance_zero_and_lies_within_reach(params, clouds, which):
    here = solids.distance(params[which, None], clouds[which, None])
    assert np.abs(here).max() < 2e-6
    assert np.linalg.norm(clouds[which], axis=1).max() <= solids.REACH + 1e-5


@pytest.mark.parametrize("which", INDEX[:10], ids=NAMES[:10])
def test_distances_are_those_to_the_nearest_point_of_the_surface(params, which):
    # Random points, inside and outside, against a dense cloud: never further than it says.
    row = params[which]
    points = np.random.default_rng(which).uniform(-1, 1, (60, 3)).astype(np.float32)
    points[:30] *= 0.4
    near = solids.cloud(row[None], 7, INDEX[which, None], 60_000)[0].astype(np.float64)
    sampled = np.array([np.linalg.norm(near - point, axis=1).min() for point in points])
    exact = np.abs(solids.distance(row[None], points[None]))[0]
    assert (exact <= sampled + 1e-6).all()
    assert np.abs(exact - sampled).max() < 0.02


@pytest.mark.parametrize("which", INDEX, ids=NAMES)
def test_distances_grow_as_one_goes_away(params, which):
    # |grad| = 1 wherever there is one nearest point: what is too small or too large shows.
    points = np.random.default_rng(which).uniform(-1, 1, (2_000, 3))
    row = params[which]
    slopes = [
        (solids._distance(row, points + step) - solids._distance(row, points - step)) / 2e-5
        for step in 1e-5 * np.eye(3)
    ]
    length = np.linalg.norm(slopes, axis=0)
    assert np.mean(np.abs(length - 1) < 1e-4) > 0.995
    assert length.max() < 1 + 1e-4


@pytest.mark.parametrize("which", INDEX, ids=NAMES)
def test_inside_is_what_the_surface_encloses(params, which):
    # The formula, and points that lie inside.
    volume = solids.columns(params[which, None])["volume"][0]
    side = (np.arange(48) + 0.5) / 24 - 1
    grid = np.stack(np.meshgrid(side, side, side, indexing="ij"), -1).reshape(1, -1, 3)
    inside = solids.distance(params[which, None], grid.astype(np.float32)) < 0
    assert inside.mean() * 8 == pytest.approx(volume, rel=0.02)
    assert volume > 0.05  # of 32,768 points in the cube hundreds are inside


def test_an_ellipsoid_with_equal_axes_is_a_ball():
    row = np.zeros((1, len(solids.PARAMETERS)))
    row[0, :6] = 0, 0.5, 0.5, 0.5, 0, 1
    points = np.random.default_rng(0).uniform(-1, 1, (1, 500, 3)).astype(np.float32)
    points[0, :3] = 0, 0.25, 0.5  # the middle and the diagonal
    expected = np.linalg.norm(points.astype(np.float64), axis=2) - 0.5
    np.testing.assert_allclose(solids.distance(row, points), expected, atol=1e-6)


def test_points_on_planes_of_symmetry_are_exact():
    # Of an ellipsoid with axes .5, .4, .2: by hand.
    row = np.zeros((1, len(solids.PARAMETERS)))
    row[0, :6] = 0, 0.5, 0.4, 0.2, 0, 1
    points = np.array([[[0, 0, 0], [0, 0, 0.5], [0.9, 0, 0], [0, -0.7, 0]]], np.float32)
    np.testing.assert_allclose(solids.distance(row, points), [[-0.2, 0.3, 0.4, 0.3]], atol=1e-6)


def test_points_of_the_surface_are_uniform_by_area(clouds, params):
    # A box: the share of each face is that of its area.
    which = 1
    a, b, c = params[which, 1:4]
    own = (clouds[which] - params[which, 9:]) @ solids._rotation(params[which])
    areas = np.array([b * c, a * c, a * b])
    on = np.abs(np.abs(own) / [a, b, c] - 1).argmin(axis=1)
    shares = np.bincount(on, minlength=3) / len(own)
    np.testing.assert_allclose(shares, areas / areas.sum(), atol=0.03)


def test_columns_are_what_can_be_known(params):
    found = solids.columns(params)
    assert found["label"].tolist() == [i % 10 for i in INDEX]
    assert set(found) == {"label", *SOLID_TARGETS}
    sizes = np.stack([found[f"size_{k}"] for k in (1, 2, 3)])
    assert (np.diff(sizes, axis=0) <= 0).all()
    assert (found["volume"] < sizes.prod(axis=0)).sum() >= COUNT - 2  # but for boxes
    assert all(found[name].dtype == np.float32 for name in SOLID_TARGETS)
