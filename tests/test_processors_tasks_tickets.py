import functools
import json

import pytest
import torch
from helpers import line_of, run, write_pets, write_zoo
from torch.distributions import Independent, Normal, kl_divergence

import zoo
from processors.options import TicketsOptions
from processors.runs import load_model
from processors.tasks import figures
from processors.tasks.tickets import Tickets, _of_inputs
from processors.train import evaluate
from processors.vae import TicketVAE, divergence, largest, parts_of

SPECS = [
    zoo.NetworkSpec.mlp([5, 4, 3], activation="relu"),
    zoo.NetworkSpec.cnn([1, 4, 3], 2),
]


def fitted(folder, *words):
    run("fit-trajectories", "digits", "--recipe", "nfn-mlp3", "--limit", 12, "--hidden", 6,
        "--epochs", 10, "--validation-share", 0.25, "--test-share", 0.25, "--fraction", 0.25,
        "--optimiser", "adam", "--out", folder, "--no-parquet", *words)  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return fitted(tmp_path_factory.mktemp("zoos") / "runs", "--checkpoints", "tenths")


def task(folder, split="train", **options):
    rows = Tickets.rows(zoo.open_zoo(folder, split), "cpu", None)
    return Tickets({split: rows}, TicketsOptions(**options)), rows


def networks(spec, count=4, dtype=torch.float64):
    torch.manual_seed(0)
    return zoo.Weights.unflatten(torch.randn(count, spec.param_count, dtype=dtype), spec)


def test_a_row_is_a_run_with_its_first_and_last_network(runs):
    made, rows = task(runs, sparsity=0.9)
    assert len(rows) == len(rows.zoo.runs)
    weights, columns = rows.batch(torch.tensor([2, 0]))
    for net, place in enumerate((2, 0)):
        all_of_it, steps = rows.zoo.run(rows.zoo.runs[place])
        assert steps["step"][0] == 0
        torch.testing.assert_close(weights.flatten()[net], all_of_it.flatten()[0])
        torch.testing.assert_close(columns["last"][net], all_of_it.flatten()[-1])
    accuracy = rows.column("test_accuracy")
    torch.testing.assert_close(accuracy[[2, 0]], columns["test_accuracy"])
    ticket = made.ticket(columns)
    count = made.spec.param_count
    assert ticket.sum(dim=1).tolist() == [round(0.1 * count)] * 2
    for kept, last in zip(ticket, columns["last"].abs(), strict=True):
        assert last[kept].min() >= last[~kept].max()


def test_masks_have_the_right_count():
    values = torch.randn(3, 200)
    mask = largest(values, 0.95, [200])
    assert mask.sum(dim=1).tolist() == [10, 10, 10]
    assert mask[0, values[0].argmax()]


def test_masks_of_each_tensor_keep_its_largest():
    values = torch.arange(60.0).view(2, 30)
    mask = largest(values, 0.9, [20, 9, 1])
    assert [row.nonzero().flatten().tolist() for row in mask] == [[18, 19, 28, 29]] * 2
    spec = SPECS[0]
    assert parts_of(spec, "network") == [spec.param_count]
    parts = parts_of(spec, "tensor")
    assert sum(parts) == spec.param_count
    assert len(parts) == len(spec.tensors)
    weights = networks(spec)
    model = TicketVAE(spec.to_json(), "np", chan=4, layers=2).double()
    masks = model.masks(weights, 0.5, "tensor")
    for part in masks.split(parts, dim=1):
        assert (part.sum(dim=1) == max(1, round(0.5 * part.shape[1]))).all()


def test_drawn_masks_keep_entries_by_their_odds(monkeypatch):
    spec = zoo.NetworkSpec.mlp([2, 1, 1], activation="relu")
    model = TicketVAE(spec.to_json(), "pointwise", chan=2, layers=2, latent=1)
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0, 0.5])
    assert len(logits) == spec.param_count
    monkeypatch.setattr(model, "decode", lambda weights, latent: logits.expand(len(weights), -1))
    weights = networks(spec, 20_000, torch.float32)
    draw = torch.Generator().manual_seed(0)
    masks = model.masks(weights, 0.8, pick="drawn", generator=draw)
    assert (masks.sum(dim=1) == 1).all()
    torch.testing.assert_close(
        masks.float().mean(dim=0), logits.softmax(dim=0), atol=0.012, rtol=0.0
    )
    assert model.masks(weights, 0.8)[:, 3].all()
    again = model.masks(weights, 0.8, pick="drawn", generator=torch.Generator().manual_seed(0))
    assert torch.equal(masks, again)
    with pytest.raises(ValueError, match="unknown pick 'best'; known: likeliest, drawn, l"):
        model.scores(weights, "best")
    with pytest.raises(ValueError, match="unknown scope 'layer'; known: network, tensor"):
        model.masks(weights, scope="layer")


def test_a_draw_is_by_a_z_of_the_prior():
    spec = SPECS[0]
    model = TicketVAE(spec.to_json(), "np", chan=8, layers=2, latent=3).double()
    weights = networks(spec, 2)
    normal = torch.randn(2, 3 * spec.param_count, generator=torch.Generator().manual_seed(4))
    noise = model.scores(weights, "drawn", torch.Generator().manual_seed(4)) - model.decode(
        weights, normal.double()
    )
    by_draw = model.scores(weights, "likeliest-by-draw", torch.Generator().manual_seed(4))
    torch.testing.assert_close(by_draw, model.decode(weights, normal.double()))
    # Gumbel's distribution has a mean of .577 and a deviation of 1.28.
    assert 0.2 < noise.mean() < 0.95
    assert 0.9 < noise.std() < 1.7


def test_divergence_and_bound_are_those_of_torch_distributions():
    torch.manual_seed(0)
    mean, log_variance = torch.randn(3, 7), torch.randn(3, 7)
    own = Independent(Normal(mean, (log_variance / 2).exp()), 1)
    standard = Independent(Normal(torch.zeros(3, 7), torch.ones(3, 7)), 1)
    torch.testing.assert_close(divergence(mean, log_variance), kl_divergence(own, standard))
    spec = SPECS[0]
    model = TicketVAE(spec.to_json(), "np", chan=4, layers=2, latent=2).double()
    weights = networks(spec)
    mask = (torch.rand(4, spec.param_count) < 0.3).double()
    mean, log_variance = model.encode(weights, mask)
    noise = torch.randn_like(mean)
    chance = model.decode(weights, mean + noise * (log_variance / 2).exp()).sigmoid()
    likelihood = (mask * chance.log() + (1 - mask) * (1 - chance).log()).sum(dim=1)
    expected = (likelihood - divergence(mean, log_variance)) / spec.param_count
    torch.testing.assert_close(model(weights, mask, noise), expected)


@pytest.mark.parametrize("symmetry", ["np", "hnp", "pointwise"])
@pytest.mark.parametrize("spec", SPECS, ids=["mlp", "cnn"])
def test_masks_move_with_the_neurons(spec, symmetry):
    model = TicketVAE(spec.to_json(), symmetry, chan=4, layers=2, latent=1).double()
    weights = networks(spec)
    mask = (torch.rand(4, spec.param_count) < 0.3).double()
    element = zoo.symmetry.sample(spec, 4, ("permutation",))

    def moved(flat):
        return zoo.symmetry.apply(element, zoo.Weights.unflatten(flat, spec)).flatten()

    # With one latent number an entry, the latent is laid out as a network.
    mean, log_variance = model.encode(weights, mask)
    other = zoo.symmetry.apply(element, weights)
    for found, expected in zip(model.encode(other, moved(mask)), (mean, log_variance), strict=True):
        torch.testing.assert_close(found, moved(expected))
    noise = torch.randn_like(mean)
    torch.testing.assert_close(
        model.decode(other, moved(noise)), moved(model.decode(weights, noise))
    )


@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "learned-each"])
def test_positions_tell_inputs_and_outputs_apart_and_no_hidden_neurons(positions):
    spec = SPECS[0]

    def moved(flat, orders):
        w = zoo.Weights.unflatten(flat, spec)
        inp, hid, out = orders
        return zoo.Weights(
            (w.weights[0][:, hid][:, :, inp], w.weights[1][:, out][:, :, hid]),
            (w.biases[0][:, hid], w.biases[1][:, out]),
        ).flatten()

    weights = networks(spec)
    latent = torch.randn(4, spec.param_count, dtype=torch.float64)
    stay = [list(range(n)) for n in (5, 4, 3)]
    inputs, hidden, outputs = [1, 2, 3, 4, 0], [2, 0, 3, 1], [2, 0, 1]
    for name, same in (("none", True), (positions, False)):
        model = TicketVAE(spec.to_json(), "np", 4, 3, 1, positions=name).double()
        scores = model.decode(weights, latent)
        for orders, kept in (
            ([stay[0], hidden, stay[2]], True),
            ([inputs, *stay[1:]], same),
            ([*stay[:2], outputs], same),
        ):
            other = zoo.Weights.unflatten(moved(weights.flatten(), orders), spec)
            found = model.decode(other, moved(latent, orders))
            assert torch.allclose(found, moved(scores, orders)) is kept


def test_retraining_sees_what_the_networks_were_trained_on(tmp_path, monkeypatch):
    """Not the folder's own `val`, and not the tenth of `train` that tests."""
    pets = write_pets(tmp_path / "pets", train=40, val=10)
    result = run("fit-trajectories", f"imagefolder:{pets}", "--recipe", "nfn-mlp3", "--limit", 3,
                 "--hidden", 3, "--epochs", 1, "--checkpoints", "tenths", "--batch", 8,
                 "--out", tmp_path / "zoo", "--no-parquet")  # fmt: skip
    assert result.exit_code == 0, result.output
    made, rows = task(tmp_path / "zoo", retrain_steps=2)
    drawn, real = [], torch.randint

    def randint(low, high, size, **more):
        drawn.append((low, high))
        return real(low, high, size, **more)

    monkeypatch.setattr(torch, "randint", randint)
    initial = rows.batch(torch.tensor([0]))[0].flatten()
    accuracy = made.retrain(initial, torch.ones_like(initial, dtype=torch.bool))
    assert drawn == [(0, 36)] * 2
    # Four pictures test.
    assert (4 * accuracy).tolist() == (4 * accuracy).round().tolist()


def test_retraining_keeps_what_is_pruned_at_zero_and_learns(runs):
    made, rows = task(runs, "test", retrain_steps=300)
    initial = rows.batch(torch.arange(2))[0].flatten()
    nothing, everything = torch.zeros_like(initial).bool(), torch.ones_like(initial).bool()
    accuracy = made.retrain(initial.repeat(2, 1), torch.cat([nothing, everything]))
    # A network of zeros answers one class for all.
    assert (accuracy[:2] < 0.2).all()
    assert (accuracy[2:] > 0.35).all()
    # Whoever is trained beside it does not matter.
    torch.testing.assert_close(made.retrain(initial[:1], everything[:1]), accuracy[2:3])


def test_training_finds_tickets_and_its_model_is_found_again(runs, tmp_path):
    result = run(
        "train", "tickets", runs, "--model", "nfn-pt", "--out", tmp_path / "run", "--epochs", 100,
        "--set", "chan=8", "--set", "layers=2", "--evaluations", 2, "--retrain-steps", 2,
        "--retrain-networks", 2, "--sparsity", 0.8, "--preset", "paper", "--scope", "network",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "run" / "summary.json").read_text())
    # A ticket is a fifth of the entries, and so much is found by chance.
    assert found["test"]["agreement"] > 0.3
    for name in ("imp", "predicted", "magnitude", "random", "dense"):
        # Of two networks.
        assert 0 <= found["test"][f"accuracy_{name}"] <= 1
        assert found["test"][f"accuracy_{name}_median"] == found["test"][f"accuracy_{name}"]
    assert 0 <= found["test"]["accuracy_predicted_error"] < 0.5
    assert "accuracy_imp" not in found["validation"]
    assert evaluate(tmp_path / "run", runs) == pytest.approx(found["test"], abs=1e-6)
    model = load_model(tmp_path / "run")
    weights, _ = zoo.open_zoo(runs, "test").batch([0])
    assert model.masks(weights).sum() == round(0.05 * weights.flatten().shape[1])
    words = "model.masks(weights, sparsity=0.8, scope='network', pick='likeliest')"
    assert words in (tmp_path / "run" / "README.md").read_text()
    assert (tmp_path / "run" / "figures" / "shares.png").is_file()


def test_of_whole_networks_tensors_are_drawn_and_of_tensors_the_inputs(runs, tmp_path, monkeypatch):
    drawn = {}
    for name in ("shares", "ranked"):
        keep = functools.partial(drawn.__setitem__, name)
        monkeypatch.setattr(figures, name, lambda *words, keep=keep: keep(words))
    for scope, name in (("network", "shares"), ("tensor", "ranked")):
        made, _ = task(runs, "test", sparsity=0.8, scope=scope)
        made.figures(TicketVAE(made.spec.to_json(), "np", 4, 2, 1), "test", tmp_path)
        assert drawn.keys() == {name}
        values, names, *_ = drawn.pop(name)
        assert values.keys() == {"IMP", "predicted"}
        for row in values.values():
            assert len(row) == len(names)
    assert names == ["inputs of weight_0", "inputs of weight_1", "inputs of weight_2"]
    for line, layer in zip(values["IMP"], made.spec.layers, strict=True):
        assert len(line) == layer.inp
        assert (line[:-1] >= line[1:]).all()
        assert line.mean() == pytest.approx(0.2, abs=0.02)
    masks = torch.rand(2, 3, 4, 5) < 0.5
    of_taps = _of_inputs(masks.float())
    assert of_taps.shape == (4,)
    torch.testing.assert_close(of_taps.mean(), masks.float().mean())


def test_other_zoos_and_models_are_refused(runs, tmp_path):
    words = ("--out", tmp_path / "run")
    message = line_of(run("train", "tickets", runs, "--model", "dws", *words), 2)
    assert "predicted by NFN layers; known: nfn-np, nfn-hnp, nfn-pt, got dws" in message
    write_zoo(tmp_path / "inrs", parquet=False)
    message = line_of(run("train", "tickets", tmp_path / "inrs", "--model", "nfn-np", *words), 2)
    assert "inrs has no steps" in message
    fitted(tmp_path / "late", "--checkpoints", "every", "--interval", 3, "--batch", 128)
    message = line_of(run("train", "tickets", tmp_path / "late", "--model", "nfn-np", *words), 2)
    assert "the runs of late begin at step 3: make the zoo with --checkpoints tenths" in message
    flags = ("--model", "nfn-np", "--sparsity", 1, *words)
    assert "Invalid value for '--sparsity': must be in (0, 1), got 1.0" in line_of(
        run("train", "tickets", runs, *flags), 2
    )
