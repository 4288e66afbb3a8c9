import subprocess
import sys

import pytest
import torch
from torch import nn

from processors import attention
from processors.attention import DeepSets, SetAttention, TwoSet

BLOCKS = [(0, 0), (0, 1), (1, 0)]


def a_block_by_hand(x, query, key, value, mix, heads):
    """Lee et al.'s MAB, one head after the other; maps are (weight, bias)."""
    q, k, v = (x @ weight.T + bias for weight, bias in (query, key, value))
    outputs = []
    for part_q, part_k, part_v in zip(*(t.chunk(heads, -1) for t in (q, k, v)), strict=True):
        share = (part_q @ part_k.mT / q.shape[-1] ** 0.5).softmax(-1)
        outputs.append(part_q + share @ part_v)
    hidden = torch.cat(outputs, -1)
    return hidden + torch.relu(hidden @ mix[0].T + mix[1])


def maps_of(layer, group, block):
    """The q, k, v and o of one block, taken out of the joined parameters."""
    _, width, heads, targets = layer.groups[group]
    shape = (len(targets), heads, 3, width // heads)
    weight = layer.project[group].unflatten(0, shape)[block]
    bias = layer.project_bias[group][block]
    if not layer.key_bias:
        bias = torch.stack([bias[:, 0], 0 * bias[:, 0], bias[:, 1]], 1)
    maps = [(weight[:, i].reshape(width, -1), bias[:, i].reshape(width)) for i in range(3)]
    return (*maps, (layer.mix[group][block], layer.mix_bias[group][block, :, 0]), heads)


@pytest.mark.parametrize("key_bias", [False, True])
def test_joined_blocks_equal_blocks_by_hand(key_bias):
    torch.manual_seed(1)
    layer = SetAttention([6, 3], [16, 8], BLOCKS, key_bias=key_bias).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    sources = [torch.randn(5, 7, inp, dtype=torch.float64) for inp in (6, 3)]
    sums = [0, 0]
    for group, (s, _, _, targets) in enumerate(layer.groups):
        for block, target in enumerate(targets):
            sums[target] = sums[target] + a_block_by_hand(sources[s], *maps_of(layer, group, block))
    for got, expected in zip(layer(sources), sums, strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


def test_gradients_in_pieces_are_those_of_the_whole(monkeypatch):
    monkeypatch.setattr(attention, "_CHUNK", 3 * 5 * 5)
    packed = torch.randn(7, 3, 2, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: attention.attend(x, 0.7), packed)
    query, key, value = packed.unbind(1)
    expected = query + (0.7 * query.mT @ key).softmax(-1).matmul(value.mT).mT
    torch.testing.assert_close(attention.attend(packed, 0.7), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_attention_is_equivariant_to_permutations_of_its_set(dtype):
    layer = SetAttention([6, 3], [16, 8]).to(dtype)
    sources = [torch.randn(5, 9, inp, dtype=dtype) for inp in (6, 3)]
    order = torch.randperm(9)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    for there, back in zip(layer([x[:, order] for x in sources]), layer(sources), strict=True):
        torch.testing.assert_close(there, back[:, order], rtol=0, atol=tolerance)
    # Not if the two tensors are permuted differently.
    moved = layer([sources[0][:, order], sources[1]])[0]
    assert not torch.allclose(moved, layer(sources)[0][:, order], atol=1e-3)


def test_parameters_are_q_k_v_o_and_their_biases():
    def count(**options):
        return sum(p.numel() for p in SetAttention([6], [16], **options).parameters())

    maps = 3 * 6 * 16 + 16 * 16
    assert count(key_bias=True) == maps + 4 * 16  # DWSNets' released MAB
    assert count() == maps + 3 * 16


def test_a_bias_of_the_keys_changes_nothing():
    layer = SetAttention([6], [16], key_bias=True)
    x = [torch.randn(2, 5, 6)]
    before = layer(x)[0]
    nn.init.normal_(layer.project_bias[0][:, :, 1].detach())
    torch.testing.assert_close(layer(x)[0], before, rtol=1e-4, atol=1e-5)


def test_initial_maps_have_the_papers_spread():
    torch.manual_seed(0)
    layer = SetAttention([64], [128], mu=0.1)
    query, key, value, mix, _ = maps_of(layer, 0, 0)
    expected = 0.1 * (2 * 64 / 128) ** 0.5 * (2 / (64 + 128)) ** 0.5
    for weight, _ in (query, key, value):
        assert weight.std().item() == pytest.approx(expected, rel=0.05)
    assert mix[0].std().item() == pytest.approx(0.1 * 2**0.5 * (2 / 256) ** 0.5, rel=0.05)


def test_a_target_without_a_source_is_refused():
    with pytest.raises(ValueError, match=r"reach all 2 targets, got \[\(0, 0\)\]"):
        SetAttention([2], [2, 2], [(0, 0)])


def test_narrow_outputs_take_fewer_heads():
    assert SetAttention([4], [12]).groups[0][2] == 4
    assert SetAttention([4], [1])([torch.randn(2, 3, 4)])[0].shape == (2, 3, 1)


@pytest.mark.parametrize("pool", ["mean", "sum", "max"])
def test_deep_sets_and_two_sets_are_equivariant(pool):
    x = torch.randn(4, 5, 6, 3, dtype=torch.float64)
    rows, columns = torch.randperm(5), torch.randperm(6)
    one, two = DeepSets(3, 7, pool).double(), TwoSet(3, 7, pool).double()
    torch.testing.assert_close(one(x[:, :, columns]), one(x)[:, :, columns], rtol=0, atol=1e-12)
    torch.testing.assert_close(
        two(x[:, rows][:, :, columns]), two(x)[:, rows][:, :, columns], rtol=0, atol=1e-12
    )
    # Entries may not move on their own.
    order = torch.randperm(30)
    mixed = two(x.flatten(1, 2)[:, order].view_as(x)).flatten(1, 2)
    assert not torch.allclose(mixed, two(x).flatten(1, 2)[:, order], atol=1e-3)


def test_two_sets_equal_their_formula():
    layer, x = TwoSet(3, 7, "mean"), torch.randn(4, 5, 6, 3)
    each, rows, columns, every = (torch.einsum("nijc,dc->nijd", x, w) for w in layer.weight)
    expected = each + rows.mean(1, keepdim=True) + columns.mean(2, keepdim=True)
    expected = (expected + every.mean((1, 2), keepdim=True) + layer.bias) / 4
    torch.testing.assert_close(layer(x), expected)


def test_two_sets_take_pools_that_are_known_already():
    layer, x = TwoSet(3, 7, "max"), torch.randn(4, 5, 6, 3)
    known = layer(x, x.amax(1), x.amax(2), x.amax((1, 2)))
    torch.testing.assert_close(known, layer(x))


def test_an_unknown_pool_is_refused():
    with pytest.raises(ValueError, match="unknown pool 'median'; known: mean, sum, max"):
        DeepSets(2, 2, "median")(torch.ones(1, 2, 2))


def test_bfloat16_autocast_trains():
    layer = SetAttention([6, 3], [16, 8])
    with torch.autocast("cpu", torch.bfloat16):
        first, second = layer([torch.randn(5, 7, inp) for inp in (6, 3)])
    (first.float().square().sum() + second.float().square().sum()).backward()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters())


COMPILED = """
import torch
from processors.attention import SetAttention
layer, x = SetAttention([6], [8]), torch.randn(5, 7, 6)
compiled = torch.compile(lambda t: layer([t])[0], backend="aot_eager", fullgraph=True)
torch.testing.assert_close(compiled(x), layer([x])[0], rtol=1e-5, atol=1e-5)
"""


def test_the_compiled_layer_agrees():
    # On its own: here functions are wrapped to check their annotations.
    subprocess.run([sys.executable, "-c", COMPILED], check=True, timeout=120)
