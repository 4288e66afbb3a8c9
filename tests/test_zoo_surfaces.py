"""Pictures of shapes: what they show, from where, and what they do with odd fields."""

import numpy as np
import pytest

from zoo import solids, surfaces
from zoo.surfaces import Frame


def grid(side=32):
    return surfaces.centres(side).reshape(side, side, side, 3)


def ball(middle=(0, 0, 0), radius=0.5):
    return np.linalg.norm(grid() - middle, axis=-1) - radius


def drawn(picture):
    """Pixels that are not background."""
    return picture.min(axis=-1) < 200


def test_a_ball_is_a_disc_of_its_size_lit_from_above():
    found = surfaces.picture(ball(), Frame())[: surfaces.WIDE]
    covered = drawn(found)
    assert covered.mean() * 4 == pytest.approx(np.pi / 4, rel=0.03)
    rows, columns = np.nonzero(covered)
    middle = (surfaces.WIDE - 1) / 2
    assert [rows.mean(), columns.mean()] == pytest.approx([middle, middle], abs=0.5)
    light = found.sum(-1, dtype=int)
    quarter = surfaces.WIDE // 8
    centre = surfaces.WIDE // 2
    assert light[centre - quarter, centre] > light[centre + quarter, centre] + 50
    # The edge is smooth: some pixels are half covered.
    assert ((found[..., 0] > 120) & (found[..., 0] < 240)).sum() > 40


@pytest.mark.parametrize(
    ("towards", "row", "column"),
    [((0, 0, 0.5), -1, 0), ((0.5, 0, 0), 0, 1), ((0, 0.5, 0), 0, 1), ((0, -0.5, 0), 0, -1)],
)
def test_z_is_up_and_x_to_the_right(towards, row, column):
    rows, columns = np.nonzero(
        drawn(surfaces.picture(ball(towards, 0.2), Frame())[: surfaces.WIDE])
    )
    middle = (surfaces.WIDE - 1) / 2
    for sign, place in ((row, rows.mean() - middle), (column, columns.mean() - middle)):
        if sign:
            assert place * sign > 8


def test_what_is_in_front_hides_what_is_behind():
    # Towards the viewer is mostly -y: the near ball covers a part of the far one.
    near, far = ball((0, -0.4, 0), 0.3), ball((0, 0.4, 0), 0.3)
    both = surfaces.picture(np.minimum(near, far), Frame())
    alone = surfaces.picture(near, Frame())
    sides = slice(0, surfaces.WIDE)
    shown = drawn(alone[sides])
    inner = shown & (np.abs(both[sides].astype(int) - alone[sides]).max(-1) < 8)
    assert inner.sum() > 0.95 * shown.sum()


def test_slices_are_seen_along_x_y_and_z():
    field = ball((0.5, 0, 0), 0.3)
    below = surfaces.picture(field, Frame())[surfaces.WIDE + 3 :]
    parts = [below[:, start : start + 37] for start in (0, 40, 80)]
    assert [drawn(part).any() for part in parts] == [False, True, True]
    for part in parts[1:]:
        assert np.nonzero(drawn(part))[1].mean() > 24  # x is to the right
    line = ball((0, 0, 0.5), 0.3)
    beside = surfaces.picture(line, Frame())[surfaces.WIDE + 3 :]
    assert np.nonzero(drawn(beside[:, :37]))[0].mean() < 12  # z is up


def test_the_frame_holds_the_shape_wherever_it_lies():
    frame = surfaces.frame_of(ball((0.5, -0.3, 0.2), 0.25))
    assert frame.middle == pytest.approx((0.5, -0.3, 0.2), abs=0.05)
    assert 0.25 < frame.half < 0.4
    assert surfaces.frame_of(ball(radius=-1)) == Frame()
    small = surfaces.picture(ball((0.5, -0.3, 0.2), 0.25))[: surfaces.WIDE]
    assert drawn(small).mean() > 0.4
    assert not drawn(small)[[0, -1]].any()


@pytest.mark.parametrize("steep", [lambda d: 300 * d, lambda d: np.tanh(12 * d)])
def test_uneven_fields_become_about_distances(steep):
    exact = ball()
    found = surfaces.evened(steep(exact))
    near = np.abs(exact) < 1 / 32
    np.testing.assert_allclose(found[near], exact[near], atol=1 / 32)  # half a cell
    # Smoothing takes a little off a ball, nothing else.
    assert np.mean((found < 0) == (exact < 0)) > 0.99
    odd = steep(exact)
    odd[0, 0, 0] = np.nan
    assert np.isfinite(surfaces.evened(odd)).all()


def test_a_small_picture_is_the_surface_alone():
    whole = surfaces.picture(ball(), Frame())
    assert np.array_equal(surfaces.small(ball(), Frame(), surfaces.WIDE), whole[: surfaces.WIDE])
    assert drawn(surfaces.small(ball(), Frame(), 20)).mean() == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1.0])
def test_nothing_inside_is_a_white_picture(value):
    found = surfaces.picture(np.full((8, 8, 8), value))
    assert found.shape == (surfaces.TALL, surfaces.WIDE, 3)
    assert (found[: surfaces.WIDE] == 255).all()


def test_all_inside_is_the_cube():
    found = drawn(surfaces.picture(np.full((8, 8, 8), -1.0)))[: surfaces.WIDE]
    assert 0.2 < found.mean() < 0.7


def test_what_reaches_the_side_of_the_grid_ends_there():
    # A bar along z, in a grid that is half as tall as wide: seen as if the rest were empty.
    bar = np.maximum(*np.abs(grid()[..., :2] - [0.2, 0]).transpose(3, 0, 1, 2)) - 0.2
    cut = np.maximum(bar, np.abs(grid()[..., 2]) - 0.5)
    assert np.array_equal(cut[8:24] < 0, bar[8:24] < 0)
    low, whole = (drawn(surfaces.picture(field, Frame())) for field in (bar[8:24], cut))
    assert np.mean(low == whole) > 0.99


def test_every_family_has_a_picture_of_its_own():
    points = np.broadcast_to(grid(24).reshape(-1, 3), (10, 24**3, 3)).astype(np.float32)
    fields = solids.distance(solids.draw(0, np.arange(10)), points).reshape(10, 24, 24, 24)
    found = np.stack([surfaces.picture(field) for field in fields]).astype(int)
    apart = np.abs(found[:, None] - found).mean((2, 3, 4))
    assert apart[~np.eye(10, dtype=bool)].min() > 5
    assert np.array_equal(surfaces.picture(fields[3]), found[3])
