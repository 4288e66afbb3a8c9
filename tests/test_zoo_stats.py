"""One pass in pieces gives what numpy gives on everything at once."""

import numpy as np
import pytest

from zoo import stats

RNG = np.random.default_rng(5)


def moments_of(rows: np.ndarray, cuts: list[int]) -> stats.Moments:
    moments = stats.Moments()
    for part in np.split(rows, cuts):
        moments.add(part)
    return moments


@pytest.mark.parametrize("cuts", [[], [1], [50, 99], [0, 3, 3, 100]], ids=str)
def test_pieces_equal_the_whole(cuts):
    rows = RNG.normal(1.5, 2.0, (100, 4, 3)).astype(np.float32)
    moments = moments_of(rows, cuts)
    wide = rows.astype(np.float64)
    assert moments.count == 100
    np.testing.assert_allclose(moments.mean, wide.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.std, wide.std(axis=0), rtol=1e-12)  # ddof 0


def test_a_small_spread_far_from_zero_is_not_lost():
    rows = 1e6 + 1e-3 * RNG.standard_normal((1000, 2))
    moments = moments_of(rows, [100, 400])
    np.testing.assert_allclose(moments.std, rows.std(axis=0), rtol=1e-6)
    single = rows.astype(np.float32)  # all the same in float32, but for rounding
    assert np.all(moments_of(single[:1].repeat(50, 0), [7]).std == 0)


def test_rows_are_left_as_they_are():
    rows = RNG.standard_normal((6, 2))
    before = rows.copy()
    moments_of(rows, [2])
    assert np.array_equal(rows, before)


def test_no_rows_are_no_rows():
    moments = stats.Moments()
    moments.add(np.zeros((0, 3)))
    assert moments.count == 0
    assert np.array_equal(moments.std, np.zeros(()))
    moments.add(np.ones((2, 3)))
    moments.add(np.zeros((0, 3)))
    assert moments.count == 2
    assert moments.mean.tolist() == [1.0, 1.0, 1.0]


def test_normalisation_by_entry_and_by_tensor():
    arrays = {
        "weight_0": RNG.normal(0.3, 2.0, (40, 3, 2)) * [[1, 2], [3, 4], [5, 6]],
        "bias_0": RNG.normal(-1.0, 0.5, (40, 3)),
    }
    found = stats.normalisation({name: moments_of(a, [11, 30]) for name, a in arrays.items()})
    assert set(found) == {
        f"{over}.{kind}.{name}"
        for over in ("entry", "tensor")
        for kind in ("mean", "std")
        for name in arrays
    }
    assert {value.dtype for value in found.values()} == {np.dtype(np.float64)}
    for name, array in arrays.items():
        np.testing.assert_allclose(found[f"entry.mean.{name}"], array.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(found[f"entry.std.{name}"], array.std(axis=0), rtol=1e-12)
        np.testing.assert_allclose(found[f"tensor.mean.{name}"], [array.mean()], rtol=1e-12)
        np.testing.assert_allclose(found[f"tensor.std.{name}"], [array.std()], rtol=1e-12)


def test_summary_is_plain_numbers():
    values = np.array([1, 2, 4], np.float32)
    found = stats.summary(values)
    assert found == {"mean": 7 / 3, "std": pytest.approx(values.std()), "min": 1.0, "max": 4.0}
    assert all(type(value) is float for value in found.values())
    with pytest.raises(ValueError, match="no rows"):
        stats.summary(values[:0])
