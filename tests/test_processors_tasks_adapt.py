import json

import pytest
import torch
from helpers import line_of, run, write_pets, write_zoo
from torchvision.transforms import functional

import processors
import zoo
from processors.options import AdaptOptions
from processors.rows import Rows
from processors.tasks.adapt import Adapt, Bank
from processors.tasks.corruptions import blend, corrupt, grey, rotate, turn_hue
from processors.train import evaluate, train


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoos") / "pairs"
    run("fit-classifiers", "digits", "--limit", 30, "--hidden", 12, "--layers", 3,
        "--epochs", 20, "--out", folder, "--no-parquet")  # fmt: skip
    return folder


def task(folder, split="test", **options):
    rows = Rows(zoo.open_zoo(folder, split))
    return Adapt({split: rows}, AdaptOptions(**options)), rows


def test_transforms_are_those_of_torchvision_for_each_picture():
    torch.manual_seed(0)
    x = torch.rand(6, 3, 9, 12)
    x[0] = 0.5
    degrees = torch.tensor([0.0, 10.0, -20.0, 45.0, 90.0, 170.0])
    factors = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 0.9])
    turns = factors / 4 - 0.25
    mean = grey(x).mean(dim=(1, 2, 3), keepdim=True)
    bilinear = functional.InterpolationMode.BILINEAR
    ours = {
        "rotate": rotate(x, degrees),
        "brightness": blend(x, torch.zeros(()), factors),
        "contrast": blend(x, mean, factors),
        "saturation": blend(x, grey(x), factors),
        "hue": turn_hue(x, turns),
    }
    for item, picture in enumerate(x):
        factor = float(factors[item])
        theirs = {
            "rotate": functional.rotate(picture, float(degrees[item]), bilinear, fill=None),
            "brightness": functional.adjust_brightness(picture, factor),
            "contrast": functional.adjust_contrast(picture, factor),
            "saturation": functional.adjust_saturation(picture, factor),
            "hue": functional.adjust_hue(picture, float(turns[item])),
        }
        for name, expected in theirs.items():
            torch.testing.assert_close(ours[name][item], expected, atol=1e-5, rtol=0, msg=name)


@pytest.mark.parametrize("chan", [1, 3])
def test_corruption_depends_on_seed_and_strength_alone(chan):
    images = torch.randint(256, (1200, 8, 8, chan), dtype=torch.uint8)
    torch.testing.assert_close(corrupt(images, 0.0, 0), images.permute(0, 3, 1, 2))
    found = corrupt(images, 1.5, 3)
    torch.rand(5)
    torch.testing.assert_close(corrupt(images, 1.5, 3), found, atol=0, rtol=0)
    # What comes after does not matter to what came before.
    torch.testing.assert_close(corrupt(images[:1000], 1.5, 3), found[:1000], atol=0, rtol=0)
    assert (corrupt(images, 1.5, 4) != found).any()
    with pytest.raises(ValueError, match="strength must not be negative, got -1"):
        corrupt(images, -1, 0)


def test_pictures_are_of_the_two_classes():
    labels = torch.arange(40) % 4
    # A picture is as bright as its class says.
    images = (labels * 60).to(torch.uint8)[:, None, None, None].expand(40, 2, 2, 1)
    bank = Bank(images, labels, 4, 0.0, (0, 1))
    pairs = torch.tensor([[0, 3], [1, 2]])
    for pixels, found in (bank.drawn(pairs, 50), bank.first(pairs, 8)):
        torch.testing.assert_close(pixels.flatten(2)[..., 0].long(), found * 60)
        for net, pair in enumerate(pairs):
            assert set(found[net].tolist()) == set(pair.tolist())
    # The first ones are as many of each, and different ones.
    assert bank.first(pairs, 8)[1].eq(pairs[:, :1]).sum(dim=1).tolist() == [4, 4]
    assert bank.first(pairs, 100)[1].shape == (2, 20)


def test_pictures_of_training_are_flipped_whenever_they_are_drawn():
    # Only the upper left quarter is bright, as no rotation, jitter or noise changes much.
    images = torch.zeros(30, 8, 8, 1, dtype=torch.uint8)
    images[:, :4, :4] = 255
    labels, pairs = torch.zeros(30, dtype=torch.long), torch.tensor([[0, 0]])
    quarters = {}
    for strength in (0.0, 0.2, 1.0):
        bank = Bank(images, labels, 1, strength, (0,), flips_later=True)
        pixels = bank.drawn(pairs, 4000)[0].float()
        sums = pixels[0, :, 0].unflatten(1, (2, 4)).unflatten(3, (2, 4)).sum(dim=(2, 4))
        quarters[strength] = sums.flatten(1).argmax(dim=1).bincount(minlength=4) / 4000
    torch.testing.assert_close(quarters[0.0], torch.tensor([1.0, 0, 0, 0]))
    expected = torch.tensor([0.81, 0.09, 0.09, 0.01])
    torch.testing.assert_close(quarters[0.2], expected, atol=0.03, rtol=0)
    torch.testing.assert_close(quarters[1.0], torch.full((4,), 0.25), atol=0.05, rtol=0)
    # For a measurement they are flipped too, alike every time.
    first, again = (bank.first(pairs, 40)[0] for _ in range(2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert (first != bank.pixels[0, :20].repeat(2, 1, 1, 1)).flatten(2).any(dim=2).any()
    # Those of validation and test are as they are.
    bank = Bank(images, labels, 1, 1.0, (0,))
    assert {tuple(x.tolist()) for x in bank.drawn(pairs, 200)[0][0].flatten(1)} == {
        tuple(x.tolist()) for x in bank.pixels[0].flatten(1)
    }


def test_clean_pictures_give_the_accuracy_in_the_index(classifiers):
    made, rows = task(classifiers, strength=0.0, eval_images=10_000)
    # Of its classes a pair may have some more of the one; ours takes as many of each.
    gap = made.before("test") - rows.column("test_accuracy")
    assert gap.abs().max() < 0.03


def test_validation_pictures_are_those_of_the_source(tmp_path):
    """What was not trained on is measured on: the folder's own `val`, and a tenth of `train`."""
    pets = write_pets(tmp_path / "pets", train=40, val=10)
    result = run("fit-classifiers", f"imagefolder:{pets}", "--limit", 10, "--hidden", 3,
                 "--layers", 2, "--out", tmp_path / "zoo", "--no-parquet")  # fmt: skip
    assert result.exit_code == 0, result.output
    made, rows = task(tmp_path / "zoo", strength=0.0)
    source = zoo.source_of(rows.zoo.index)
    expected = {"train": range(36), "validation": range(40, 50), "test": range(36, 40)}
    for part, items in expected.items():
        pixels = made.bank(part).pixels[0].permute(0, 2, 3, 1)
        images = torch.from_numpy(source.images[items.start : items.stop])
        assert {tuple(x.flatten().tolist()) for x in pixels} == {
            tuple(x.flatten().tolist()) for x in images
        }


class Unchanged(torch.nn.Module):
    def forward(self, weights):
        return weights.map(lambda tensor: tensor + 0)


def test_no_change_leaves_the_accuracy_and_noise_lowers_it(classifiers):
    made, _ = task(classifiers, eval_images=40)
    found = made.evaluate(Unchanged(), "test")
    assert found["accuracy"] == found["accuracy_before"]
    assert found["gain"] == 0
    clean, _ = task(classifiers, eval_images=40, strength=0.0)
    assert found["accuracy"] < clean.evaluate(Unchanged(), "test")["accuracy"] - 0.05


@pytest.mark.parametrize("model", ["dws", "mlp-align"])
def test_training_adapts_and_its_model_is_found_again(classifiers, tmp_path, model):
    small = {"dws": ["chan=8", "layers=2", "narrow=8"], "mlp-align": ["params=30000", "hidden=1"]}
    words = [word for size in small[model] for word in ("--set", size)]
    result = run(
        "train", "adapt", classifiers, "--model", model, "--out", tmp_path / "run", "--steps", 30,
        "--batch", 8, "--lr", 0.01, "--images", 32, "--evaluations", 2, *words,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "accuracy_before" in result.output
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    found = summary["test"]
    assert found["gain"] == pytest.approx(found["accuracy"] - found["accuracy_before"])
    assert found["gain"] != 0
    again = evaluate(tmp_path / "run", classifiers)
    assert again == pytest.approx(found, abs=1e-6)
    for name in ("before_after", "pictures", "curves"):
        assert (tmp_path / "run" / "figures" / f"{name}.png").is_file()


@pytest.mark.parametrize("name", ["dws", "monomial", "nfn-np"])
def test_narrow_models_are_in_the_units_that_are_asked_for(name, tmp_path):
    spec = zoo.NetworkSpec.mlp([20, 5, 4, 3], activation="relu")
    torch.manual_seed(0)
    weights = zoo.Weights.unflatten(1 + torch.randn(6, spec.param_count), spec)
    tensors = weights.tensors()
    stats = {
        f"{kind}.{part}.{key}": getattr(x, part)(dim=0 if kind == "entry" else None).view(
            spec.tensors[key] if kind == "entry" else 1
        )
        for kind in ("entry", "tensor") for part in ("mean", "std") for key, x in tensors.items()
    }  # fmt: skip
    entry = processors.build(name, spec, 2, stats, narrow=3)
    raw = name != "dws"
    assert entry.model.normalise.kind == ("none" if raw else "entry")
    model = processors.build(name, spec, 2, stats, narrow=3, statistics="tensor").eval()
    mean = model.model.normalise.mean_weight_0
    torch.testing.assert_close(mean, tensors["weight_0"].mean().view(1))
    model.save_pretrained(tmp_path / "tensor")
    torch.testing.assert_close(processors.load(tmp_path / "tensor").eval()(weights), model(weights))
    # One of before, which asked in vain.
    old = processors.Processor(
        name, spec.to_json(), 2, {"statistics": "tensor"}, stats, narrow=3, statistics="entry"
    ).eval()
    old.save_pretrained(tmp_path / "old")
    config = json.loads((tmp_path / "old" / "config.json").read_text())
    assert config.pop("statistics") == "entry"
    (tmp_path / "old" / "config.json").write_text(json.dumps(config))
    again = processors.load(tmp_path / "old").eval()
    torch.testing.assert_close(again(weights), old(weights))
    assert again.model.normalise.kind == "entry"


def test_narrow_models_keep_the_symmetry_and_baselines_edit():
    spec = zoo.NetworkSpec.mlp([20, 5, 4, 3], activation="relu")
    torch.manual_seed(0)
    weights = zoo.Weights.unflatten(torch.randn(6, spec.param_count, dtype=torch.float64), spec)
    element = zoo.symmetry.sample(spec, 6, ("permutation",))
    for name in ("dws", "nfn-np", "nfn-hnp", "monomial"):
        model = processors.build(name, spec, out=None, narrow=3).double().eval()
        with torch.no_grad():
            model.model.skip.fill_(0.1)
            edited, moved = model(weights), model(zoo.symmetry.apply(element, weights))
        expected = zoo.symmetry.apply(element, edited)
        torch.testing.assert_close(moved.flatten(), expected.flatten())
        assert (edited.weights[0] != weights.weights[0]).all()
        reader = processors.build(name, spec, out=2, narrow=3).double().eval()
        read = reader(weights)
        torch.testing.assert_close(reader(zoo.symmetry.apply(element, weights)), read)
        assert (read[1:] != read[0]).any(dim=1).all()
    for name in ("mlp", "inr2vec", "transformer"):
        model = processors.build(name, spec, out=None, params=20_000).double().eval()
        change = model(weights).flatten() - weights.flatten()
        with torch.no_grad():
            model.step.scale.mul_(2)
        # The scale multiplies what the baseline says.
        twice = model(weights).flatten() - weights.flatten()
        torch.testing.assert_close(twice, 2 * change)
        assert change.abs().max() > 0
    with pytest.raises(ValueError, match="narrow is for equivariant models: dws, nfn-np"):
        processors.build("mlp", spec, out=None, narrow=3)
    with pytest.raises(ValueError, match="narrow must be positive and below 20 inputs, got 20"):
        processors.build("dws", spec, out=None, narrow=20)
    with pytest.raises(ValueError, match="whose first layer is linear, not for CNNs"):
        processors.build("nfn-np", zoo.NetworkSpec.cnn([1, 4, 3], 2), out=1, narrow=16)


@pytest.mark.parametrize("name", ["dws", "nfn-np", "monomial", "mlp-align"])
def test_a_map_of_the_inputs_stands_beside_an_editor(name, tmp_path):
    """W_1 + W_1 A B is added to what the editor does, and moves with the neurons."""
    spec = zoo.NetworkSpec.mlp([20, 5, 4, 3], activation="relu")
    torch.manual_seed(0)
    weights = zoo.Weights.unflatten(torch.randn(6, spec.param_count, dtype=torch.float64), spec)
    small = {"params": 20_000} if name == "mlp-align" else {}
    model = processors.build(name, spec, out=None, input_rank=2, **small).double().eval()
    before = model(weights)
    with torch.no_grad():
        model.inputs.up.weight.normal_()
        edited = model(weights)
    a, b = model.inputs.down.weight.T, model.inputs.up.weight.T
    # Matching orders the neurons first.
    seen = model.model.order(weights) if name == "mlp-align" else weights
    added = edited.map(torch.sub, before)
    torch.testing.assert_close(added.weights[0], seen.weights[0] @ a @ b)
    assert all((x == 0).all() for x in (*added.weights[1:], *added.biases))
    if name != "mlp-align":
        element = zoo.symmetry.sample(spec, 6, ("permutation",))
        moved = model(zoo.symmetry.apply(element, weights))
        torch.testing.assert_close(moved.flatten(), zoo.symmetry.apply(element, edited).flatten())
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["input_rank"] == 2
    again = processors.load(tmp_path).double().eval()
    torch.testing.assert_close(
        again(weights).flatten(), model(weights).flatten(), rtol=1e-5, atol=1e-5
    )


def test_a_map_of_the_inputs_that_cannot_be():
    spec = zoo.NetworkSpec.mlp([20, 5, 3], activation="relu")
    with pytest.raises(ValueError, match="input_rank is for models that edit networks"):
        processors.build("dws", spec, out=2, input_rank=3)
    # Of a preset for wide inputs there may be fewer.
    assert processors.build("dws", spec, out=None, input_rank=21).config()["input_rank"] == 20
    with pytest.raises(ValueError, match="input_rank must be from 0 to 65,536, got -1"):
        processors.build("dws", spec, out=None, input_rank=-1)
    with pytest.raises(ValueError, match="input_rank is for networks whose first layer is linear"):
        processors.build("nfn-np", zoo.NetworkSpec.cnn([1, 4, 3], 2), out=None, input_rank=1)
    assert "input_rank" not in processors.build("dws", spec, out=None).config()


def test_other_zoos_and_models_are_refused(classifiers, tmp_path):
    write_zoo(tmp_path / "inrs", parquet=False)
    found = run("train", "adapt", tmp_path / "inrs", "--model", "dws", "--out", tmp_path / "run")
    assert "adapt needs classifiers of two classes each" in line_of(found, 2)
    with pytest.raises(ValueError, match="'statnn' cannot edit networks; known: dws"):
        train("adapt", "statnn", classifiers, tmp_path / "run")
    with pytest.raises(ValueError, match="eval_images must be from 2 to 1,048,576, got 1"):
        task(classifiers, eval_images=1)
