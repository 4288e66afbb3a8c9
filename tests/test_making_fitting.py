"""Diverged fits are tried again and then left out; what is kept lies beside its keys."""

import numpy as np
import pytest
import torch

from zoo import engines, nets, shards
from zoo.engines import Adam, Fit, reference
from zoo.kinds.objectives import Objective, fit_rows
from zoo.machine import Notice
from zoo.making.fitting import ATTEMPTS, Rows, split_params
from zoo.own import fit
from zoo.recipes import Recipe, recipe
from zoo.spec import NetworkSpec

SEED = 4
X = np.linspace(-1, 1, 5, dtype=np.float32)[:, None]
ROWS = Rows(np.array([3, 8, 8, 20, 21]), np.array([0, 0, 1, 0, 0]))


@pytest.fixture(autouse=True)
def one_core(monkeypatch):
    """Threads of torch that wait for each other crawl on a busy machine."""
    monkeypatch.setattr(engines, "available_cores", lambda: 1)


class FakeEngine:
    """Hands back the initial parameters; diverges for chosen (index, view, attempt)."""

    name = "fake"
    batch = 4
    pads = False
    ahead = 1

    def __init__(
        self,
        chosen: Recipe,
        diverge: set[tuple[int, int, int]] = frozenset(),
        how: str = "mse",
        mse: float = 0.01,
    ):
        self.diverge = diverge
        self.how = how
        self.mse = mse
        self.calls: list[list[tuple[int, int, int]]] = []
        self.known: dict[bytes, tuple[int, int, int]] = {}
        for index, view in zip(ROWS.index, ROWS.view, strict=True):
            start = 0 if chosen.shared_init else index
            for attempt in range(ATTEMPTS + 1):
                key = np.array([start]), np.array([view])
                init = nets.initialise(chosen.spec(1, 1), chosen.init, SEED, *key, attempt)
                self.known[init.tobytes()] = (int(start), int(view), attempt)

    def fit(self, spec, params, inputs, targets, adam, draws=None) -> Fit:
        assert len(targets) == len(params)
        keys = [self.known[row.tobytes()] for row in params]
        self.calls.append(keys)
        found = params.copy()
        # The mse tells which target the network got.
        mse = self.mse + targets[:, 0, 0].astype(np.float64)
        for row, key in enumerate(keys):
            if key in self.diverge and self.how == "mse":
                mse[row] = np.nan
            elif key in self.diverge:
                found[row, -1] = np.inf
        steps = np.array([key[2] for key in keys], np.int64)
        return Fit(found, mse, steps, np.zeros(len(keys), np.int64))


def run(engine: FakeEngine, chosen: Recipe):
    goal = Objective(chosen, X, 1)
    targets = np.zeros((5, 5, 1), np.float32)
    targets[:, 0, 0] = np.arange(5)
    labels = {"label": np.array([10, 11, 12, 13, 14])}
    return fit_rows(goal, engine, SEED, ROWS, targets, labels)


def small(**changes) -> Recipe:
    return recipe("dws", "tensors", hidden=3, steps=2, **changes)


def init_of(chosen: Recipe, index: int, view: int, attempt: int = 0) -> np.ndarray:
    key = np.array([index]), np.array([view])
    return nets.initialise(chosen.spec(1, 1), chosen.init, SEED, *key, attempt)[0]


def flat(arrays: dict[str, np.ndarray], row: int, spec: NetworkSpec) -> np.ndarray:
    return np.concatenate([arrays[name][row].ravel() for name in spec.tensors])


def test_every_network_starts_from_its_own_key():
    chosen = small()
    engine = FakeEngine(chosen)
    fitted = run(engine, chosen)
    assert engine.calls == [[(3, 0, 0), (8, 0, 0), (8, 1, 0), (20, 0, 0), (21, 0, 0)]]
    assert fitted.excluded == []
    spec = chosen.spec(1, 1)
    goal = Objective(chosen, X, 1)
    assert list(fitted.arrays) == list(shards.zoo_columns(spec, {"label": None, **goal.columns}))
    assert fitted.arrays["index"].tolist() == [3, 8, 8, 20, 21]
    assert fitted.arrays["view"].tolist() == [0, 0, 1, 0, 0]
    assert fitted.arrays["label"].tolist() == [10, 11, 12, 13, 14]
    for row in range(5):
        expected = init_of(chosen, ROWS.index[row], ROWS.view[row])
        assert np.array_equal(flat(fitted.arrays, row, spec), expected)


@pytest.mark.parametrize("how", ["mse", "params"])
def test_what_diverges_is_tried_again_with_its_own_target(how):
    chosen = small()
    diverge = {(8, 1, 0), (21, 0, 0), (21, 0, 1)}
    engine = FakeEngine(chosen, diverge, how)
    fitted = run(engine, chosen)
    assert engine.calls[1:] == [[(8, 1, 1), (21, 0, 1)], [(21, 0, 2)]]
    assert fitted.excluded == []
    # "steps" of the fake engine is the attempt, and its mse tells the target.
    assert fitted.arrays["steps"].tolist() == [0, 0, 1, 0, 2]
    np.testing.assert_allclose(fitted.arrays["mse"], 0.01 + np.arange(5), rtol=1e-6)
    spec = chosen.spec(1, 1)
    assert np.array_equal(flat(fitted.arrays, 2, spec), init_of(chosen, 8, 1, attempt=1))
    assert np.array_equal(flat(fitted.arrays, 4, spec), init_of(chosen, 21, 0, attempt=2))


@pytest.mark.parametrize("how", ["mse", "params"])
def test_after_three_attempts_a_network_is_left_out(how):
    chosen = small()
    engine = FakeEngine(chosen, {(8, 0, attempt) for attempt in range(9)}, how)
    fitted = run(engine, chosen)
    assert [len(call) for call in engine.calls] == [5, 1, 1]
    assert fitted.excluded == [(8, 0, "not finite after 3 attempts")]
    assert fitted.arrays["index"].tolist() == [3, 8, 20, 21]
    assert fitted.arrays["view"].tolist() == [0, 1, 0, 0]
    assert fitted.arrays["label"].tolist() == [10, 12, 13, 14]
    assert {len(array) for array in fitted.arrays.values()} == {4}
    assert all(np.isfinite(array).all() for array in fitted.arrays.values())


@pytest.mark.parametrize("mse", [np.inf, 1e39], ids=str)
def test_an_error_that_float32_cannot_hold_is_not_finite(mse):
    chosen = small()
    fitted = run(FakeEngine(chosen, mse=mse), chosen)
    assert [why for *_, why in fitted.excluded] == ["not finite after 3 attempts"] * 5


def test_all_left_out_is_no_rows():
    chosen = small()
    names = zip(ROWS.index.tolist(), ROWS.view.tolist(), strict=True)
    keys = {(*name, attempt) for name in names for attempt in range(ATTEMPTS)}
    fitted = run(FakeEngine(chosen, keys), chosen)
    assert len(fitted.excluded) == 5
    assert {len(array) for array in fitted.arrays.values()} == {0}


def test_min_psnr_leaves_out_without_trying_again():
    chosen = small(min_psnr_db=-3.5)
    engine = FakeEngine(chosen)  # mse 0.01 1.01 2.01 3.01 4.01
    fitted = run(engine, chosen)
    assert len(engine.calls) == 1
    assert fitted.excluded == [
        (20, 0, "PSNR -4.79 dB is below -3.5 dB"),
        (21, 0, "PSNR -6.03 dB is below -3.5 dB"),
    ]
    assert fitted.arrays["index"].tolist() == [3, 8, 8]


def test_shared_init_is_one_for_all_images_and_one_a_view():
    chosen = small(shared_init=True)
    engine = FakeEngine(chosen)
    fitted = run(engine, chosen)
    assert engine.calls == [[(0, 0, 0), (0, 0, 0), (0, 1, 0), (0, 0, 0), (0, 0, 0)]]
    assert fitted.arrays["index"].tolist() == [3, 8, 8, 20, 21]  # the rows keep their keys


def test_shared_init_tries_again_with_a_shared_one():
    chosen = small(shared_init=True)
    engine = FakeEngine(chosen, {(0, 1, 0)})
    fitted = run(engine, chosen)
    assert engine.calls[1:] == [[(0, 1, 1)]]
    assert fitted.arrays["steps"].tolist() == [0, 0, 1, 0, 0]


def test_parameters_are_split_in_storage_order():
    spec = NetworkSpec.mlp([2, 3, 1])
    params = np.arange(2 * spec.param_count, dtype=np.float32).reshape(2, -1)
    named = split_params(params, spec.tensors)
    assert list(named) == list(spec.tensors)
    assert named["weight_0"][0].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert named["bias_0"][0].tolist() == [6, 7, 8]
    assert named["weight_1"][1].tolist() == [[22, 23, 24]]


# --- fitting one's own tensors ---------------------------------------------------------------

GRID = torch.from_numpy(nets.coordinates(NetworkSpec.mlp([2, 1], coord_order="xy"), 6, 5))
PICTURES = torch.rand(7, 30, 3, generator=torch.Generator().manual_seed(0))
SHORT = recipe("dws", "tensors", steps=25, hidden=9, target_psnr_db=11.0)


@pytest.mark.parametrize("engine", ["cpu", "reference"])
def test_fit_gives_networks_of_the_pictures(engine):
    labels = torch.tensor([5, 4, 3, 2, 1, 0, 9])
    found = fit(GRID, PICTURES, SHORT, labels, seed=SEED, engine=engine)
    assert found.spec == SHORT.spec(2, 3)
    assert found.excluded == []
    assert len(found.weights) == 7
    assert list(found.columns) == ["index", "label", "psnr_db", "mse", "steps", "stop"]
    assert found.columns["index"].tolist() == list(range(7))
    assert torch.equal(found.columns["label"], labels)
    mse = (nets.forward(found.spec, found.weights, GRID) - PICTURES).square().mean(dim=(1, 2))
    torch.testing.assert_close(found.columns["mse"], mse, rtol=1e-4, atol=0)
    torch.testing.assert_close(found.columns["psnr_db"], -10 * mse.log10(), rtol=1e-4, atol=0)
    # Training helped, and some stopped early while others did not.
    start = nets.initialise(found.spec, "dws", SEED, np.arange(7), np.zeros(7, np.int64))
    begun = torch.from_numpy(start)
    assert not torch.equal(found.weights.flatten(), begun)
    assert set(found.columns["stop"].tolist()) == {0, 1}
    assert ((found.columns["psnr_db"] > 11.0) == (found.columns["stop"] == 1)).all()


@pytest.mark.parametrize("engine", ["cpu", "reference"])
def test_fit_is_the_same_in_every_batch(engine):
    together = fit(GRID, PICTURES, SHORT, seed=SEED, engine=engine)
    fewer = fit(GRID, PICTURES[:3], SHORT, seed=SEED, engine=engine)
    assert torch.equal(fewer.weights.flatten(), together.weights.flatten()[:3])
    for name, column in fewer.columns.items():
        assert torch.equal(column, together.columns[name][:3])
    again = fit(GRID, PICTURES, SHORT, seed=SEED, engine=engine)
    assert torch.equal(again.weights.flatten(), together.weights.flatten())
    other = fit(GRID, PICTURES[:3], SHORT, seed=SEED + 1, engine=engine)
    assert not torch.equal(other.weights.flatten(), fewer.weights.flatten())


def test_fit_takes_names_and_other_types():
    given = recipe("sine-ssl", "sine", steps=3)
    x = torch.linspace(-3, 3, 11, dtype=torch.float64, requires_grad=True)[:, None]
    y = torch.sin(2 * x.detach())[None].repeat(2, 1, 1)
    found = fit(x, y, given)
    assert list(found.columns) == ["index", "mse", "steps", "stop"]
    assert found.columns["steps"].tolist() == [3, 3]
    integers = (y > 0).long()  # a mask, say
    assert torch.equal(
        fit(x, integers, given).weights.flatten(), fit(x, integers.float(), given).weights.flatten()
    )


def test_fit_knows_recipes_by_name(monkeypatch):
    seen: list[Adam] = []
    plain = reference.ReferenceEngine.fit

    def one_step(self, spec, params, inputs, targets, adam, draws=None):
        seen.append(adam)
        return plain(self, spec, params, inputs, targets, Adam(lr=adam.lr, steps=1), draws)

    monkeypatch.setattr(reference.ReferenceEngine, "fit", one_step)
    fit(GRID, PICTURES, "nfn", engine="reference")
    fit(GRID[:, :1], PICTURES[..., :1], "sine-regression", engine="reference")
    assert [(adam.lr, adam.steps) for adam in seen] == [(5e-5, 5000), (1e-4, 1000)]
    with pytest.raises(ValueError, match="unknown recipe 'siren'"):
        fit(GRID, PICTURES, "siren")


def test_many_inputs_go_to_the_engine_that_can():
    x = torch.rand(6, 5, generator=torch.Generator().manual_seed(1))
    y = torch.rand(2, 6, 1, generator=torch.Generator().manual_seed(2))
    chosen = recipe("dws", "tensors", steps=2, hidden=4)
    with pytest.warns(Notice, match="'cpu' fits SIRENs of 1-4 plain .* fitted by 'reference'"):
        assert fit(x, y, chosen).spec.inp == 5
    with pytest.raises(ValueError, match="1-4 plain inputs and outputs only; use --engine refer"):
        fit(x, y, chosen, engine="cpu")


def put(tensor: torch.Tensor, place: tuple[int, ...], value: float) -> torch.Tensor:
    changed = tensor.clone()
    changed[place] = value
    return changed


@pytest.mark.parametrize(
    ("inputs", "targets", "labels", "message"),
    [
        (put(GRID, (3, 1), torch.nan), PICTURES, None, "inputs hold NaN or infinite values"),
        (
            GRID,
            put(put(PICTURES, (4, 2, 0), torch.inf), (6, 0, 0), torch.nan),
            None,
            r"targets hold NaN or infinite values for network 4 \(2 in all\)",
        ),
        (GRID[:-1], PICTURES, None, r"expected inputs .* got \(29, 2\) and \(7, 30, 3\)"),
        (GRID[:, 0], PICTURES, None, r"got \(30,\) and"),
        (GRID, PICTURES[0], None, r"got \(30, 2\) and \(30, 3\)"),
        (GRID, PICTURES, torch.zeros(6), r"expected labels \(7,\), got \(6,\)"),
        (GRID, PICTURES[:0], None, "at least one network and one point"),
        (GRID[:0], PICTURES[:, :0], None, "at least one network and one point"),
        (GRID, PICTURES.to(torch.complex64), None, "targets: expected .* real .*, got complex64"),
        (GRID.numpy().astype(object), PICTURES, None, "inputs: expected .* real .*, got object"),
        ([*GRID.tolist()[:-1], [0.0]], PICTURES, None, "inputs: expected an array of real numb"),
        (GRID, [["a"]], None, "targets: expected an array of real numbers, got <U1"),
        (GRID, np.ma.masked_array(PICTURES), None, "targets: .* real numbers, got MaskedArray"),
        (GRID, PICTURES.numpy().astype(float) * 1e300, None, "targets hold NaN or infinite"),
        (GRID, PICTURES.to("meta"), None, "targets: expected an array of real numbers"),
        (GRID, PICTURES, [float("nan")] * 7, "labels hold NaN or infinite values"),
    ],
)
def test_fit_refuses_what_it_cannot_use(inputs, targets, labels, message):
    with pytest.raises(ValueError, match=message):
        fit(inputs, targets, SHORT, labels)


def test_fit_takes_arrays_and_lists_as_tensors():
    labels = torch.arange(7)
    expected = fit(GRID, PICTURES, SHORT, labels)
    for change in (np.asarray, lambda tensor: tensor.tolist()):
        found = fit(change(GRID), change(PICTURES), SHORT, change(labels))
        assert torch.equal(found.weights.flatten(), expected.weights.flatten())
        assert found.columns["label"].tolist() == list(range(7))


def test_fit_refuses_devices_that_compute_nothing():
    for device in ("meta", "meta:0", "nonsense"):
        with pytest.raises(ValueError, match=f"device '{device}' c"):
            fit(GRID, PICTURES, SHORT, device=device)


@pytest.mark.parametrize("engine", ["cpu", "reference"])
def test_a_rate_that_explodes_leaves_every_network_out(engine):
    wild = recipe("dws", "tensors", steps=20, hidden=5, lr=1e30)
    found = fit(GRID, PICTURES[:2], wild, engine=engine)
    assert len(found.weights) == 0
    assert found.excluded == [(i, 0, "not finite after 3 attempts") for i in range(2)]
