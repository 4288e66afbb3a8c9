"""Measures of shapes."""

import numpy as np
import pytest

from zoo.solidity import distance_error, iou


def test_iou_of_what_agrees_and_what_does_not():
    true = np.array([[1, 1, 0, 0]] * 4, bool)
    found = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 1, 1], [0, 0, 0, 0]], bool)
    assert iou(found, true).tolist() == [1, pytest.approx(1 / 3), 0, 0]


def test_two_empty_sets_agree():
    assert iou(np.zeros((1, 5), bool), np.zeros((1, 5), bool)).tolist() == [1]


def test_the_error_of_distances_is_a_mean_without_sign():
    found = np.array([[0.1, -0.2], [0, 0]], np.float32)
    true = np.array([[0.2, -0.1], [0, 0.5]], np.float32)
    np.testing.assert_allclose(distance_error(found, true), [0.1, 0.25], rtol=1e-6)
