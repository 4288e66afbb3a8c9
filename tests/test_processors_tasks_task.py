"""What all tasks do alike: augmentations are as strong as the options say."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from processors.options import Options
from processors.tasks.task import Augment
from zoo import NetworkSpec, Weights, render

SPEC = NetworkSpec.mlp([2, 6, 4, 1], omega=5.0, coord_order="xy")


def networks() -> Weights:
    generator = torch.Generator().manual_seed(0)
    return Weights.unflatten(torch.randn(8, SPEC.param_count, generator=generator), SPEC)


def test_pictures_move_as_far_as_they_are_told_to():
    weights = networks()
    for told in ({"degrees": 9.0}, {"shift": 0.07}, {"zoom": 0.08}):
        still = {"degrees": 0.0, "shift": 0.0, "zoom": 0.0}
        torch.manual_seed(0)
        options = Options(augment="move", **{**still, **told})
        moved = Augment(SPEC, options, ())(weights)
        # Whatever moves, moves the first layer alone.
        assert torch.equal(moved.weights[1], weights.weights[1])
        matrix = torch.linalg.lstsq(weights.weights[0], moved.weights[0]).solution
        scale = torch.linalg.det(matrix).sqrt()
        turn = torch.atan2(matrix[:, 0, 1], matrix[:, 0, 0]).rad2deg().abs()
        assert_close(scale, torch.ones(8), rtol=0, atol=0.12 if "zoom" in told else 1e-4)
        assert turn.max() <= (9.01 if "degrees" in told else 0.01)
        if "degrees" in told:
            assert turn.max() > 3
        if "zoom" in told:
            assert (scale - 1).abs().max() > 0.02
        middle = (moved.biases[0] - weights.biases[0]).abs().max()
        assert (middle > 0.01) == ("shift" in told)
        assert not torch.equal(render(SPEC, moved, 5, 5), render(SPEC, weights, 5, 5))


def test_encoded_pictures_do_not_move():
    spec = replace(SPEC, layers=NetworkSpec.mlp([4, 3, 1]).layers, frequencies=[[1, 0], [0, 1]])
    with pytest.raises(ValueError, match=r"'move' turns the coordinates .* read Fourier features"):
        Augment(spec, Options(augment="auto"), ("move", "noise"))
    assert Augment(spec, Options(augment="auto"), ("noise",)).names == ("noise",)


def test_without_telling_them_they_move_as_published():
    options = Options()
    assert (options.degrees, options.shift, options.zoom) == (45.0, 0.25, 0.2)
    torch.manual_seed(0)
    found = Augment(SPEC, Options(augment="move"), ())(networks())
    torch.manual_seed(0)
    told = Augment(SPEC, Options(augment="move", degrees=45.0, shift=0.25, zoom=0.2), ())(
        networks()
    )
    assert_close(found.tensors(), told.tensors(), rtol=0, atol=0)
