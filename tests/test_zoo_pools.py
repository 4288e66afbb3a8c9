"""Pools of points: inr2vec's shares, keyed by seed and index."""

from itertools import pairwise

import numpy as np
import pytest

from zoo import pools

INDEX = np.array([3, 8])


def test_pools_have_the_published_shares():
    surface = np.zeros((2, 5, 3), np.float32) + np.arange(5, dtype=np.float32)[:, None] / 10
    found = pools.queries(surface, 0, INDEX, 6_000)
    assert found.shape == (2, 6_000, 3)
    assert found.dtype == np.float32
    assert np.abs(found).max() <= 1
    ends = [0, 1_000, 3_500, 5_500, 5_750, 6_000]
    nearest = np.abs(found[:, :, None] - surface[:, None]).sum(3).argmin(2)
    taken = np.take_along_axis(surface, nearest[..., None], 1)
    spread = [(found - taken)[:, a:b].std() for a, b in pairwise(ends)]
    assert spread[0] == 0
    np.testing.assert_allclose(spread[1:3], [0.003, 0.01], rtol=0.05)
    assert 0.03 < spread[3] < 0.11  # the nearest may be another than the one it came from
    assert found[:, 5_750:].std() == pytest.approx(1 / np.sqrt(3), rel=0.05)
    # Every point of the surface is taken about as often.
    assert np.bincount(nearest[0, :1_000], minlength=5).min() > 150


def test_a_pool_depends_on_seed_and_index_alone():
    surface = np.random.default_rng(0).uniform(-1, 1, (2, 50, 3)).astype(np.float32)
    both = pools.queries(surface, 5, INDEX, 100)
    assert np.array_equal(pools.queries(surface[1:], 5, INDEX[1:], 100)[0], both[1])
    assert not np.array_equal(pools.queries(surface, 6, INDEX, 100), both)
    assert np.array_equal(pools.uniform(5, INDEX[1:], 9)[0], pools.uniform(5, INDEX, 9)[1])


def test_noise_is_normal_and_stays_in_the_cube():
    surface = np.full((1, 1, 3), 0.999, np.float32)
    found = pools.queries(surface, 0, np.array([0]), 60_000)[0]
    assert found.max() == 1
    inner = pools.queries(np.zeros_like(surface), 0, np.array([0]), 60_000)[0, 10_000:35_000]
    scaled = inner / 0.003
    assert abs(scaled.mean()) < 0.02
    np.testing.assert_allclose((scaled**4).mean(), 3, rtol=0.05)
    np.testing.assert_allclose(np.corrcoef(scaled.T), np.eye(3), atol=0.02)


@pytest.mark.parametrize("count", [0, 1, 7, 601])
def test_any_number_of_points(count):
    assert pools.queries(np.zeros((1, 1, 3), np.float32), 0, INDEX[:1], count).shape[1] == count


def test_a_pool_of_the_volume_is_wide():
    found = pools.queries(np.zeros((1, 1, 3), np.float32), 0, INDEX[:1], 10_000, "volume")[0]
    spread = [found[a:b].std() for a, b in pairwise([0, 3_500, 7_000, 10_000])]
    np.testing.assert_allclose(spread, [0.02, 0.1, 1 / np.sqrt(3)], rtol=0.05)
    with pytest.raises(ValueError, match="unknown mix of points 'volumes'; known: surface, volume"):
        pools.queries(np.zeros((1, 1, 3), np.float32), 0, INDEX[:1], 10, "volumes")


def test_a_surface_has_points():
    with pytest.raises(ValueError, match="at least one point"):
        pools.queries(np.zeros((2, 0, 3), np.float32), 0, INDEX, 10)


def test_points_of_quality_are_all_over_the_cube():
    found = pools.uniform(1, INDEX, 4_000)
    assert found.dtype == np.float32
    assert found.min() < -0.99
    assert found.max() > 0.99
    np.testing.assert_allclose(found.mean((0, 1)), 0, atol=0.03)
