"""The random numbers are Random123's, and a network's depend on its own key alone."""

from itertools import chain

import numpy as np
import pytest

from zoo import philox

ONE = np.array([5]), np.array([0])


def words_of(counter: list[int], key: tuple[int, int]) -> list[int]:
    return philox.philox(np.array(counter, np.uint64), key).tolist()


def slow_philox(counter: list[int], key: tuple[int, int]) -> list[int]:
    """Salmon et al. 2011 in Python's integers, written from the paper."""
    (r0, l0, r1, l1), (k0, k1) = counter, key
    for _ in range(10):
        high0, low0 = divmod(r0 * 0xD2511F53, 2**32)
        high1, low1 = divmod(r1 * 0xCD9E8D57, 2**32)
        r0, l0, r1, l1 = high1 ^ l0 ^ k0, low1, high0 ^ l1 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return [r0, l0, r1, l1]


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ([0] * 4, (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ([2**32 - 1] * 4, (2**32 - 1, 2**32 - 1), "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            (0xA4093822, 0x299F31D0),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_known_answers_of_random123(counter, key, expected):
    assert " ".join(f"{word:08x}" for word in words_of(counter, key)) == expected
    assert slow_philox(counter, key) == words_of(counter, key)


def test_words_count_index_view_stream_block_under_seed_attempt():
    found = philox.words(11, 2, np.array([7, 70_000]), np.array([3, 4]), philox.HYPER, 10)
    assert found.shape == (2, 10)
    for row, (index, view) in enumerate([(7, 3), (70_000, 4)]):
        blocks = (slow_philox([index, view, philox.HYPER, block], (11, 2)) for block in range(3))
        assert found[row].tolist() == list(chain(*blocks))[:10]


def test_streams_keep_their_numbers():
    assert (philox.INIT, philox.DATA_ORDER, philox.HYPER, philox.AUGMENT) == (0, 1, 2, 3)


@pytest.mark.parametrize("draw", [philox.words, philox.uniforms, philox.normals])
def test_a_network_is_the_same_in_every_batch(draw):
    index, view = np.arange(50), np.arange(50) % 3
    together = draw(1, 0, index, view, philox.INIT, 33)
    order = np.random.default_rng(0).permutation(50)
    assert np.array_equal(draw(1, 0, index[order], view[order], philox.INIT, 33), together[order])
    for row in (0, 17, 49):
        alone = draw(1, 0, index[row : row + 1], view[row : row + 1], philox.INIT, 33)
        assert np.array_equal(alone[0], together[row])
    # Asking for fewer numbers gives the first of them.
    assert np.array_equal(draw(1, 0, index, view, philox.INIT, 7), together[:, :7])


def test_every_part_of_the_key_counts():
    base = {"seed": 1, "attempt": 0, "index": 5, "view": 0, "stream": philox.INIT}
    others = [base] + [base | {name: base[name] + 1} for name in base]
    drawn = [
        philox.words(
            o["seed"], o["attempt"], np.array([o["index"]]), np.array([o["view"]]), o["stream"], 8
        )
        for o in others
    ]
    assert len(np.unique(np.concatenate(drawn, axis=1))) == 8 * len(others)


def test_uniforms_are_multiples_of_two_to_the_minus_24_below_one():
    raw = philox.words(0, 0, *ONE, philox.INIT, 1000)
    found = philox.uniforms(0, 0, *ONE, philox.INIT, 1000)
    assert np.array_equal(found * 2**24, raw // 256)
    assert found.min() >= 0
    assert found.max() < 1


def test_uniforms_have_the_right_moments():
    u = philox.uniforms(3, 0, np.arange(1000), np.zeros(1000, int), philox.INIT, 500).ravel()
    n = len(u)
    assert abs(u.mean() - 1 / 2) < 4 * np.sqrt(1 / 12 / n)
    assert abs(u.var() - 1 / 12) < 4 * np.sqrt(1 / 180 / n)
    cells, _ = np.histogram(u, bins=100, range=(0, 1))
    chi2 = (np.square(cells - n / 100) / (n / 100)).sum()
    assert abs(chi2 - 99) < 4 * np.sqrt(2 * 99)
    # Neighbouring numbers are unrelated.
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 4 / np.sqrt(n)


def test_normals_have_the_right_moments():
    z = philox.normals(3, 0, np.arange(1000), np.zeros(1000, int), philox.INIT, 500).ravel()
    n = len(z)
    assert abs(z.mean()) < 4 / np.sqrt(n)
    assert abs((z**2).mean() - 1) < 4 * np.sqrt(2 / n)
    assert abs((z**3).mean()) < 4 * np.sqrt(15 / n)
    assert abs((z**4).mean() - 3) < 4 * np.sqrt(96 / n)
    assert abs(np.corrcoef(z[::2], z[1::2])[0, 1]) < 4 / np.sqrt(n / 2)


def test_normals_are_box_muller_on_consecutive_pairs():
    u = philox.uniforms(9, 1, *ONE, philox.AUGMENT, 6)[0]
    z = philox.normals(9, 1, *ONE, philox.AUGMENT, 5)[0]
    expected = []
    for a, b in u.reshape(3, 2):
        radius = np.sqrt(-2 * np.log(1 - a))
        expected += [radius * np.cos(2 * np.pi * b), radius * np.sin(2 * np.pi * b)]
    np.testing.assert_allclose(z, expected[:5], rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"seed": -1}, "seed"),
        ({"seed": 2**32}, "seed"),
        ({"attempt": -1}, "attempt"),
        ({"index": np.array([0, -1])}, "index"),
        ({"index": np.array([2**32, 1])}, "index"),
        ({"view": np.array([0, -7])}, "view"),
    ],
)
def test_keys_outside_32_bits_are_refused(change, name):
    given = {"seed": 0, "attempt": 0, "index": np.arange(2), "view": np.zeros(2, int)} | change
    with pytest.raises(ValueError, match=rf"{name} must be in 0 .. 2\*\*32 - 1, got"):
        philox.words(**given, stream=0, count=4)
