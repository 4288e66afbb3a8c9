"""DWSNets' INRs (Navon et al. 2023): MNIST, Fashion-MNIST and sine waves.

Layouts, found by their names anywhere below the folder or in a .zip or .tar of it:

    mnist_png_{training,testing}_{label}_{id}/checkpoints/model_final.pth    MNIST
    fmnist_inrs/{train,test}/model_{id}.pth, splits.json                     Fashion-MNIST
    model_{seed}.pth with coef, x and y inside                               sine waves

Keys `seq.0.weight` (out, inp), `seq.0.bias`, ... Conventions: recipe `dws`, that is omega
30 in both sine layers, +0.5 on the output, (x = column, y = row), pixels in [0, 1].

Splits are read from a JSON file of the authors' form, `{split: {"path": [...], "label":
[...]}}` or `{split: [paths]}`: the one given by --splits, or one that lies beside the
networks. Its paths are the authors' own, so only their last parts are compared; networks
that it does not name are left out. Without one the last 5,000 training items (at most a
tenth) are the validation split, and of waves the last tenths validation and test. The
authors drew MNIST's and the waves' splits at random and published no files.

Unverified: that `id` is the item's position in its part of the data set, as the folder
names suggest; `index` is taken from it, test items after the training items, and
--check-against holds labels and pictures against that. The layout of the CIFAR-10
classifiers' archive is unverified too, and not read.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo import schema
from zoo.errors import ZooError
from zoo.importers import states
from zoo.importers.contents import load_dict
from zoo.importers.files import Files
from zoo.importers.labels import SPLIT_NAMES
from zoo.importers.published import (
    PICTURES,
    Arrays,
    Options,
    Published,
    Ref,
    Told,
    by_split,
    describe,
    describe_pictures,
    keys,
    stacked,
)
from zoo.schema import safe
from zoo.shards import Column
from zoo.sources import split_items
from zoo.spec import NetworkSpec

OPTIONS = ("splits",)
URL = "https://github.com/AvivNavon/DWSNets"
CITATION = (
    "Navon et al. 2023, Equivariant architectures for learning in deep weight spaces, ICML "
    "(the networks)"
)
MNIST = re.compile(
    r"(?:^|/)(mnist_png_(training|testing)_([0-9])_([0-9]{1,9}))/checkpoints/model_final\.pth$"
)
FASHION = re.compile(r"(?:^|/)((train|test)/model_([0-9]{1,9})\.pth)$")
SINE = re.compile(r"(?:^|/)(model_([0-9]{1,9})\.pth)$")
SPLIT_FILE_BYTES = 64 << 20
# A wave is computed from coefficients in float64; its file rounds nothing.
WAVE_TOLERANCE = 1e-6


def find(path: Path, options: Options) -> Published:
    """The networks at `path`; ValueError or ZooError as `zoo.importers.find`."""
    files = Files(path)
    if any(MNIST.search(name) for name in files.names):
        return _pictures(files, "mnist", options)
    if any(FASHION.search(name) for name in files.names):
        return _pictures(files, "fashion-mnist", options)
    if any(SINE.search(name) for name in files.names):
        return _waves(files, options)
    raise ValueError(
        f"{path}: no networks of DWSNets' layouts; expected "
        "mnist_png_training_LABEL_ID/checkpoints/model_final.pth, train/model_ID.pth or "
        "model_SEED.pth"
    )


def _pictures(files: Files, source: str, options: Options) -> Published:
    train_items, items = PICTURES[source][3:]
    named: dict[str, Ref] = {}
    for name in files.names:
        if source == "mnist" and (match := MNIST.search(name)):
            key, part, label, number = match.groups()
        elif source != "mnist" and (match := FASHION.search(name)):
            (key, part, number), label = match.groups(), -1
        else:
            files.passed.add(name)
            continue
        index = int(number) + (0 if part.startswith("train") else train_items)
        if index >= items or (part.startswith("train") and index >= train_items):
            raise ZooError(f"{files.where(name)}: there is no such item in {source}")
        if key in named:
            raise ZooError(f"{files.where(name)}: {safe(key, 100)} is there twice")
        named[key] = Ref(index, 0, name, int(label))
    published = _read_splits(files, options.splits)
    if published is None:
        inside = [ref.index for ref in named.values() if ref.index < train_items]
        train = split_items(max(1, len(inside)), max(1, len(inside)) + 1, "dws")["train"]
        bound = sorted(inside)[len(train) - 1] if inside else 0
        found = {
            "train": [r for r in named.values() if r.index <= bound and inside],
            "validation": [r for r in named.values() if bound < r.index < train_items],
            "test": [r for r in named.values() if r.index >= train_items],
        }
    else:
        found = _take(files, published, named, 3 if source == "mnist" else 2)
    refs = by_split(found, files.path)
    first = next(iter(refs.values()))[0]
    state, _ = _label(load_dict(files.read(first.name), files.where(first.name)), files, first)
    plan, widths = _plan(state, files.where(first.name), 2)
    spec = NetworkSpec.mlp(widths, omega=30.0, output_offset=0.5, coord_order="xy")
    told = Told()
    layout = "mnist-inrs" if source == "mnist" else "fmnist_inrs"
    told.say(f"{layout} of DWSNets: SIRENs {_dashes(widths)}, weights (out, inp), omega 30")
    told.say("the format says: (x = column, y = row), 0.5 added to the output, pixels 0 to 1")
    told.say(
        "index and label by the names of folders" if source == "mnist"
        else "index by the names of files, label as it stands in them"
    )  # fmt: skip
    _say_splits(told, published, "the last 5,000 training items (at most a tenth) are validation")

    def read(split: str, start: int, stop: int) -> Arrays:
        rows, labels = [], []
        for ref in refs[split][start:stop]:
            where = files.where(ref.name)
            state, label = _label(load_dict(files.read(ref.name), where), files, ref)
            _check_keys(state, where)
            rows.append(states.normalised(state, plan, spec, where, told))
            labels.append(label)
        chosen = refs[split][start:stop]
        return {**keys(chosen), "label": np.array(labels, np.int64), **stacked(rows)}

    return Published(
        spec=spec,
        columns={"label": Column("target", "class", names=PICTURES[source][1])},
        rows={split: len(part) for split, part in refs.items()},
        read=read,
        source=describe_pictures(source, CITATION, URL),
        pictures=source,
        facts={"splits": "published" if published is not None else "dws"},
        told=told,
        passed=files.passed,
    )


def _dashes(widths: Sequence[int]) -> str:
    return "-".join(str(width) for width in widths)


def _say_splits(told: Told, published: object, rule: str) -> None:
    told.say(f"no split file: {rule}" if published is None else "splits by a split file")


def _label(state: dict[str, Any], files: Files, ref: Ref) -> tuple[dict[str, Any], int]:
    """The state without its label, and the label; checked against the file's name."""
    state = dict(state)
    where = files.where(ref.name)
    inside = state.pop("label", ref.label)
    try:
        label = int(inside)
    except (TypeError, ValueError, RuntimeError):
        raise ZooError(f"{where}: the label is no number, but {schema.shown(inside)}") from None
    if not 0 <= label <= 9:
        raise ZooError(f"{where}: expected a label of 0 to 9, got {label}")
    if ref.label not in (-1, label):
        raise ZooError(
            f"{where}: labelled {label} in the file, {ref.label} in its name or the split file"
        )
    return state, label


def _check_keys(state: Mapping[str, Any], where: str) -> None:
    layers = len(state) // 2
    expected = [f"seq.{n}.{kind}" for n in range(layers) for kind in ("weight", "bias")]
    if list(state) != expected:
        raise ZooError(
            f"{where}: expected the keys {safe(', '.join(expected), 200)}, got "
            f"{safe(', '.join(state), 200)}"
        )


def _plan(state: Mapping[str, Any], where: str, inputs: int) -> tuple[states.Plan, list[int]]:
    """How the first network's state becomes layers, and their widths."""
    _check_keys(state, where)
    plan, shapes = states.plan_of(state, True, where, Told())
    widths = states.widths_of(shapes)
    if widths[0] != inputs or any(len(shape) != 2 for shape in shapes.values()):
        raise ZooError(f"{where}: expected linear layers of {inputs} inputs, got {widths}")
    return plan, widths


def _read_splits(
    files: Files, given: Path | None
) -> dict[str, list[tuple[str, str | None]]] | None:
    """Paths and labels of each split, from the file given or found; None without one."""
    if given is not None:
        if not given.is_file():
            raise ValueError(f"--splits {given}: there is no such file")
        where, content = str(given), schema.read_plain(given, SPLIT_FILE_BYTES)
    else:
        beside = [n for n in files.names if PurePosixPath(n).name.endswith("splits.json")]
        if not beside:
            return None
        if len(beside) > 1:
            raise ValueError(
                f"{files.path}: {' and '.join(beside[:2])} are both split files; choose one by "
                "--splits"
            )
        where, content = files.where(beside[0]), files.read(beside[0], SPLIT_FILE_BYTES)
    plain = schema.parse(content, where)
    if not isinstance(plain, dict) or not plain or set(plain) - set(SPLIT_NAMES):
        got = schema.shown(sorted(plain) if isinstance(plain, dict) else plain)
        raise ZooError(f"{where}: expected the splits train, val and test, got {got}")
    found: dict[str, list[tuple[str, str | None]]] = {}
    for split, part in plain.items():
        paths = part.get("path") if isinstance(part, dict) else part
        labels = part.get("label") if isinstance(part, dict) else None
        if not isinstance(paths, list) or not all(isinstance(p, str) for p in paths):
            raise ZooError(f"{where}: {split}: expected a list of paths")
        if labels is None:
            labels = [None] * len(paths)
        if not isinstance(labels, list) or len(labels) != len(paths):
            raise ZooError(f"{where}: {split}: expected a label for each of {len(paths)} paths")
        found[SPLIT_NAMES[split]] = [
            (path, None if label is None else str(label))
            for path, label in zip(paths, labels, strict=True)
        ]
    return found


def _take(
    files: Files,
    published: Mapping[str, Sequence[tuple[str, str | None]]],
    named: Mapping[str, Ref],
    parts: int,
) -> dict[str, list[Ref]]:
    """The networks that a split file names; `parts` of a path's end tell them apart."""
    found: dict[str, list[Ref]] = {}
    for split, entries in published.items():
        found[split] = []
        for path, label in entries:
            end = PurePosixPath(path.replace("\\", "/")).parts[-parts:]
            # A path that is empty names nothing.
            key = "/".join(end[:1] if parts == 3 else end)
            if key not in named:
                raise ZooError(
                    f"{files.path}: the split file names {safe(path, 100)}, which is not there"
                )
            ref = named[key]
            if label is not None:
                if not label.isdecimal() or ref.label not in (-1, int(label)):
                    raise ZooError(
                        f"{files.where(ref.name)}: labelled {safe(label, 40)} in the split file, "
                        f"{ref.label} in its name"
                    )
                ref = Ref(ref.index, ref.view, ref.name, int(label))
            found[split].append(ref)
    taken = {ref.name for part in found.values() for ref in part}
    for ref in named.values():
        if ref.name not in taken:
            files.passed.add(ref.name, "not in the split file")
    return found


def _waves(files: Files, options: Options) -> Published:
    named: dict[str, Ref] = {}
    for name in files.names:
        if match := SINE.search(name):
            if match[1] in named:
                raise ZooError(f"{files.where(name)}: {match[1]} is there twice")
            named[match[1]] = Ref(int(match[2]), 0, name)
        else:
            files.passed.add(name)
    published = _read_splits(files, options.splits)
    if published is None:
        ordered = sorted(named.values())
        ranges = split_items(len(ordered), len(ordered), "80-10-10")
        found = {split: [ordered[i] for i in span] for split, span in ranges.items()}
    else:
        found = _take(files, published, named, 1)
    refs = by_split(found, files.path)
    first = next(iter(refs.values()))[0]
    state, x, _ = _wave(files, first)
    plan, widths = _plan(state, files.where(first.name), 1)
    spec = NetworkSpec.mlp(
        widths,
        omega=30.0,
        output_offset=0.5,
        coord_order="x",
        coord_range=(float(x[0]), float(x[-1])),
    )

    told = Told()
    told.say(f"sine waves of DWSNets: SIRENs {_dashes(widths)}, weights (out, inp), omega 30")
    told.say(
        f"the format says: 0.5 added to the output; x from {x[0]:.4g} to {x[-1]:.4g} by the files"
    )
    told.say("index by the names of files; amplitude and frequency are coef of the files")
    _say_splits(told, published, "the last tenths, in order of index, are validation and test")

    def read(split: str, start: int, stop: int) -> Arrays:
        chosen = refs[split][start:stop]
        rows, coefs = [], []
        for ref in chosen:
            state, here, coef = _wave(files, ref)
            if not np.array_equal(here, x):
                raise ZooError(f"{files.where(ref.name)}: x is not that of the first network")
            _check_keys(state, files.where(ref.name))
            where = files.where(ref.name)
            rows.append(states.normalised(state, plan, spec, where, told))
            coefs.append(coef)
        columns = np.array(coefs, np.float32)
        return {
            **keys(chosen),
            "amplitude": columns[:, 0],
            "frequency": columns[:, 1],
            **stacked(rows),
        }

    def targets(arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        a, b = (arrays[n].astype(np.float64)[:, None] for n in ("amplitude", "frequency"))
        return (a * np.sin(b * x)).astype(np.float32)[..., None]

    return Published(
        spec=spec,
        columns={
            "amplitude": Column("target", "real"),
            "frequency": Column("target", "real", unit="rad per unit"),
        },
        rows={split: len(part) for split, part in refs.items()},
        read=read,
        source=describe(
            "sine", "Sine waves a*sin(b*x)", CITATION, url=URL, kind="sine", points=len(x),
            items=len(named),
        ),
        targets=targets,
        points=len(x),
        facts={"splits": "published" if published is not None else "80-10-10"},
        told=told,
        passed=files.passed,
    )  # fmt: skip


def _wave(
    files: Files, ref: Ref
) -> tuple[dict[str, Any], NDArray[np.float64], tuple[float, float]]:
    """A wave's state dict, its x, and its (amplitude, frequency), checked against its y."""
    where = files.where(ref.name)
    state = load_dict(files.read(ref.name), where)
    missing = {"coef", "x", "y"} - set(state)
    if missing:
        raise ZooError(f"{where}: expected coef, x and y beside the weights, {missing} lacks")
    coef, x, y = (state.pop(name) for name in ("coef", "x", "y"))
    if not isinstance(coef, list | tuple) or [type(c) in (int, float) for c in coef] != [True] * 2:
        raise ZooError(f"{where}: expected coef to be two numbers, got {schema.shown(coef)}")
    for name, values in (("x", x), ("y", y)):
        if not isinstance(values, Tensor) or values.ndim != 1 or values.dtype != torch.float64:
            raise ZooError(f"{where}: expected {name} to be an array of float64 along one axis")
    x, y = x.detach().numpy(), y.detach().numpy()
    if len(x) != len(y) or len(x) < 2:
        raise ZooError(f"{where}: x has {len(x)} points, y {len(y)}")
    even = np.linspace(x[0], x[-1], len(x))
    if not np.allclose(x, even, rtol=0, atol=1e-9):
        raise ZooError(f"{where}: the points x are not evenly spaced")
    # The authors write the frequency as 2 pi / (2 pi / b).
    if not np.allclose(y, coef[0] * np.sin(coef[1] * x), rtol=0, atol=WAVE_TOLERANCE * 10):
        raise ZooError(f"{where}: y is not coef[0] sin(coef[1] x)")
    return state, x, (float(coef[0]), float(coef[1]))
