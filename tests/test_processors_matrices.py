"""What layers do with matrices, in pieces: the plain operations, and their gradients."""

import pytest
import torch

from processors import matrices
from processors.fourier import features, mixed
from processors.matrices import Lifted, joined, rectified


@pytest.fixture(autouse=True, params=["networks", "rows"])
def small_pieces(request, monkeypatch):
    """Several pieces in a batch, or in a network."""
    monkeypatch.setitem(matrices._PIECE, "cpu", 60 if request.param == "networks" else 20)
    monkeypatch.setattr(matrices, "_ROWS", 1)


def plainly(x, weight, first, second):
    y = x if weight is None else x @ weight.T
    y = y + (0 if first is None else first[:, :, None])
    y = (y + (0 if second is None else second[:, None])).relu()
    return y, y.sum(2), y.sum(1)


@pytest.mark.parametrize("shape", [(5, 2, 3), (3, 7, 2), (2, 5, 6), (0, 2, 3), (2, 3, 0)])
@pytest.mark.parametrize("wide", [1, 4, 100])
def test_pieces_are_every_row_of_every_network_once(shape, wide):
    pieces = matrices._pieces(torch.device("cpu"), shape, wide)
    seen = torch.zeros(shape[:2])
    for piece in pieces:
        seen[piece.place] += 1
        assert piece.shape == seen[piece.place].shape
        assert piece.shape[0] == 1 or piece.shape[1] == shape[1]
    assert (seen == 1).all()
    sizes = [piece.shape[0] * piece.shape[1] for piece in pieces]
    assert max(sizes, default=0) == (sizes or [0])[0]
    least = shape[2] * wide
    assert all(size * least <= matrices._PIECE["cpu"] or size == 1 for size in sizes)


def drawn(nets, rows, columns, inp=3, chan=4):
    torch.manual_seed(0)
    shapes = ((nets, rows, columns, inp), (chan, inp), (nets, rows, chan), (nets, columns, chan))
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


SHAPES = [(5, 2, 3), (3, 4, 1), (2, 5, 6), (0, 2, 3)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rows", [True, False])
@pytest.mark.parametrize("columns", [True, False])
@pytest.mark.parametrize("multiplied", [True, False])
def test_a_matrix_is_rectified_and_summed(shape, rows, columns, multiplied):
    x, weight, first, second = drawn(*shape, inp=4 if multiplied else 3)
    given = [
        x,
        None if multiplied else weight,
        first if rows else None,
        second if columns else None,
    ]
    inputs = [each for each in given if each is not None]
    found = []
    for run in (rectified, plainly):
        # Overwritten, if it is multiplied already.
        copies = [None if each is None else each.clone() for each in given]
        outputs = run(*copies)
        total = sum((each * each.detach().cos()).sum() for each in outputs)
        found.append([*outputs, *torch.autograd.grad(total, inputs)])
    for mine, expected in zip(*found, strict=True):
        torch.testing.assert_close(mine, expected)


@pytest.mark.parametrize("chosen", [(0,), (1,), (2,), (0, 2), (1, 2)])
def test_gradients_of_some_outputs_once_and_twice(chosen):
    given = drawn(2, 3, 2)

    def run(*given):
        found = rectified(*given)
        return tuple(found[place].square() for place in chosen)

    assert torch.autograd.gradcheck(run, given)
    assert torch.autograd.gradgradcheck(run, given)


def test_sums_alone_keep_a_mask():
    given = drawn(4, 5, 6)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append((t.shape, t.dtype)) or t, lambda t: t
    ):
        nothing, *sums = rectified(*given, whole=False)
    assert nothing is None
    assert ((4, 5, 6, 4), torch.bool) in kept
    assert not any(shape == (4, 5, 6, 4) and dtype != torch.bool for shape, dtype in kept)
    expected = plainly(*given)[1:]
    mine = torch.autograd.grad(sum(each.square().sum() for each in sums), given)
    theirs = torch.autograd.grad(sum(each.square().sum() for each in expected), given)
    torch.testing.assert_close((*sums, *mine), (*expected, *theirs))


@pytest.mark.parametrize("whole", [True, False])
def test_features_of_a_product_are_made_again(whole):
    _, _, first, second = drawn(5, 2, 3)
    entries, frequencies = torch.randn(5, 2, 3).double(), torch.randn(4).double()
    weight = torch.randn(4, 8, dtype=torch.float64, requires_grad=True)

    def run(weight, first, second):
        with torch.no_grad():
            multiplied = mixed(entries, frequencies, weight)[0]
        lifted = Lifted(entries, frequencies)
        found = rectified(multiplied, weight, first, second, whole, lifted)
        return tuple(each for each in found if each is not None)

    inputs = (weight, first, second)
    expected = plainly(features(entries[..., None], frequencies[None]), *inputs)
    for mine, theirs in zip(run(*inputs), expected if whole else expected[1:], strict=True):
        torch.testing.assert_close(mine, theirs)
    mine = torch.autograd.grad(sum(each.square().sum() for each in run(*inputs)[-2:]), inputs)
    theirs = torch.autograd.grad(sum(each.square().sum() for each in expected[1:]), inputs)
    torch.testing.assert_close(mine, theirs)
    # The product is worked out without the graph, so that its gradient is the formula's.
    again = torch.autograd.grad(
        sum(each.square().sum() for each in run(*inputs)[-2:]), inputs, create_graph=True
    )
    torch.testing.assert_close(again, theirs)
    assert all(each.requires_grad for each in again)


def test_no_gradient_of_the_matrix_is_as_large_as_the_batch():
    """But that of what is multiplied."""
    _, _, first, second = (each.float().detach() for each in drawn(64, 6, 6))
    entries, frequencies = torch.randn(64, 6, 6), torch.randn(4)
    weight = torch.randn(4, 8, requires_grad=True)
    multiplied = mixed(entries, frequencies, weight.detach())[0]
    _, *sums = rectified(multiplied, weight, first, second, False, Lifted(entries, frequencies))
    with torch.profiler.profile(profile_memory=True, record_shapes=True) as found:
        sums[0].sum().backward()
    largest = max(event.cpu_memory_usage for event in found.events())
    assert largest < 64 * 6 * 6 * 4 * 4


@pytest.mark.parametrize("lead", [(4,), (3, 5)])
@pytest.mark.parametrize("shift", [None, (), (1,)])
@pytest.mark.parametrize("out", [4, 1])
def test_tensors_side_by_side_are_never_joined(lead, shift, out):
    torch.manual_seed(0)
    widths, starts = (2, 3, 1), (0, 2, 6)  # a column between them is of none
    inputs = [torch.randn(*lead, wide).double().requires_grad_() for wide in widths]
    weight = torch.randn(out, 7, dtype=torch.float64, requires_grad=True)
    given = [weight, *inputs]
    if shift is not None:
        given.append(torch.randn(*shift, out, dtype=torch.float64, requires_grad=True))

    def run(weight, *given):
        return joined(given[:3], weight, starts, *given[3:])

    filled = torch.cat([*inputs[:2], inputs[0].new_zeros(*lead, 1), inputs[2]], dim=-1)
    expected = filled @ weight.T + (0 if shift is None else given[-1])
    torch.testing.assert_close(run(*given), expected)
    assert torch.autograd.gradcheck(run, given)
    assert torch.autograd.gradgradcheck(run, given)


def test_transforms_of_functions_see_plain_operations():
    x, weight, first, second = (each.detach() for each in drawn(3, 2, 4))
    each = torch.vmap(lambda x, a, b: rectified(x[None], weight, a[None], b[None])[1][0])(
        x, first, second
    )
    torch.testing.assert_close(each, rectified(x, weight, first, second)[1])
    slope = torch.func.grad(lambda weight: joined([x], weight, [0]).square().sum())(weight)
    assert slope.shape == weight.shape
    assert slope.abs().max() > 0
