"""Small folders and archives in the formats that others publish, to be damaged."""

import csv
import gzip
import io
import itertools
import json
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Networks = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Sample:
    """One import: what the user says, and where it lies in the folder of the sample.

    Attributes:
        format: of `wszoo import`.
        path: of the networks.
        options: fields of `zoo.importers.published.Options`; names of files lie in the folder.
    """

    format: str
    path: str
    options: dict[str, str]


def draw(widths: list[int], seed: int) -> Networks:
    """A random network."""
    normal = np.random.default_rng(seed).standard_normal
    found: Networks = {}
    for n, (inp, out) in enumerate(itertools.pairwise(widths)):
        found[f"weight_{n}"] = normal((out, inp), np.float32) / 10
        found[f"bias_{n}"] = normal(out, np.float32) / 10
    return found


def _state(net: Networks, template: str, last: str | None = None) -> dict[str, Any]:
    import torch

    layers = len(net) // 2
    return {
        (last if last and n == layers - 1 else template).format(n=n, kind=kind): torch.from_numpy(
            net[f"{kind}_{n}"]
        )
        for n in range(layers)
        for kind in ("weight", "bias")
    }


def _save(path: Path, state: Any) -> None:
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)


def _packed(folder: Path, archive: Path) -> None:
    """The same as a .zip, .tar or .tar.gz beside it."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as out:
            for file in sorted(folder.rglob("*")):
                out.write(file, file.relative_to(folder.parent))
        return
    with tarfile.open(archive, "w:gz" if archive.suffix == ".gz" else "w") as tar:
        tar.add(folder, folder.name)


def dws_pictures(home: Path, archive: str | None = None) -> Sample:
    """Digits of DWSNets, with a file of splits beside them or packed."""
    root = home / "mnist-inrs"
    paths: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    labels: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for n in range(8):
        part = "testing" if n > 6 else "training"
        name = f"mnist_png_{part}_{n % 3}_{n}/checkpoints/model_final.pth"
        _save(root / name, _state(draw([2, 4, 4, 1], n), "seq.{n}.{kind}"))
        split = "test" if n > 6 else "val" if n > 4 else "train"
        paths[split].append(f"/home/them/mnist-inrs/{name}")
        labels[split].append(str(n % 3))
    if archive:
        _packed(root, home / archive)
        _clear(root)
        return Sample("dws", archive, {})
    splits = {name: {"path": paths[name], "label": labels[name]} for name in paths}
    (home / "splits.json").write_text(json.dumps(splits))
    return Sample("dws", root.name, {"splits": "splits.json"})


def dws_waves(home: Path) -> Sample:
    """Waves of DWSNets: the networks tell theirs, a sin(b x), and draw it."""
    x = np.arange(-np.pi, np.pi, np.pi / 100)
    for n in range(5):
        a, b = 1 + n / 2, 2 + n / 3
        net = {k: np.zeros_like(v) for k, v in draw([1, 4, 4, 1], n).items()}
        net["weight_0"][3, 0] = b / 30
        net["weight_1"][2, 3] = 0.01 / 30
        net["weight_2"][0, 2] = a / 0.01
        net["bias_2"] -= 0.5
        y = a * np.sin(x * 2 * np.pi / (1 / b * 2 * np.pi))
        state = {**_state(net, "seq.{n}.{kind}"), "coef": [a, b], "x": x, "y": y}
        _save(home / "sine" / f"model_{n}.pth", state)
    return Sample("dws", "sine", {})


def nfn(home: Path, archive: str | None = None) -> Sample:
    """SIRENs of NFN with an augmented copy."""
    root = home / "siren_mnist_wts"
    keys = [(0, 0, 0), (0, 0, 1), (12, 2, 0), (45_000, 5, 0), (50_000, 1, 0)]
    for seed, (index, label, view) in enumerate(keys):
        aug = f"aug{view - 1}_" if view else ""
        name = f"randinit_smaller_{aug}{label}s/net{index}.pth"
        state = _state(draw([2, 4, 4, 1], seed), "net.{n}.linear.{kind}", "net.{n}.{kind}")
        _save(root / name, state)
    if archive is None:
        return Sample("nfn", root.name, {})
    _packed(root, home / archive)
    _clear(root)
    return Sample("nfn", archive, {})


def small_cnn_zoo(home: Path) -> Sample:
    """Twelve checkpoints in the three files of the Small CNN Zoo."""
    root = home / "fashion_mnist"
    root.mkdir(parents=True)
    layout, place = [], 0
    for number, kernel in enumerate([(3, 3, 1, 16), (3, 3, 16, 16), (3, 3, 16, 16), (16, 10)]):
        stem = f"sequential/{'dense' if len(kernel) == 2 else 'conv2d'}_{number}"
        for name, shape in (("bias:0", kernel[-1:]), ("kernel:0", kernel)):
            end = place + int(np.prod(shape))
            layout.append((f"{stem}/{name}", place, end, str(shape)))
            place = end
    weights = np.random.default_rng(0).standard_normal((12, place), np.float32) / 4
    np.save(root / "weights.npy", weights)
    with (root / "layout.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("varname", "start_idx", "end_idx", "shape"), *layout])
    config = [f"config.{name}" for name in ("activation", "learning_rate", "optimizer", "w_init")]
    text = io.StringIO()
    writer = csv.writer(text)
    metrics = ("test_accuracy", "train_accuracy", "test_loss")
    writer.writerow([*config, "step", *metrics, "modeldir"])
    for row in range(12):
        step = 86 if row % 2 else row
        writer.writerow(["relu", 10.0**-row, "adam", "glorot", step, row / 12, 0.5, 1.5, "/x"])
    (root / "metrics.csv.gz").write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))
    return Sample("small-cnn-zoo", root.name, {"activation": "relu"})


def fit_a_nef(home: Path) -> Sample:
    """SIRENs of fit-a-nef: HDF5, flax's names and order."""
    import h5py

    root = home / "MNIST" / "SIREN"
    root.mkdir(parents=True)
    nef = {"name": "SIREN", "params": {"hidden_dim": 4, "num_layers": 3, "omega_0": 9.0}}
    (root / "nef.json").write_text(json.dumps(nef))
    (root / "cfg.json").write_text(json.dumps({"dataset": {"name": "MNIST", "path": "."}}))
    widths = [2, 4, 4, 1]
    config = []
    for number, (inp, out) in enumerate(itertools.pairwise(widths)):
        stem = "output_linear" if number == 2 else f"kernel_net_{number}.linear"
        config += [(f"{stem}.bias", [out]), (f"{stem}.kernel", [inp, out])]
    for start, end in ((0, 4), (54_998, 55_001), (69_998, 70_000)):
        rows = []
        for n in range(start, end):
            net = draw(widths, n)
            parts = [[net[f"bias_{k}"], net[f"weight_{k}"].T.ravel()] for k in range(3)]
            rows.append(np.concatenate([piece for pair in parts for piece in pair]))
        with h5py.File(root / f"nefs_{start}-{end}.hdf5", "w") as file:
            file.create_dataset("params", data=np.stack(rows))
            text = file.create_dataset("param_config", (1,), dtype=h5py.special_dtype(vlen=str))
            text[0] = json.dumps(config)
            file.create_dataset("labels", data=[n % 10 for n in range(start, end)])
    return Sample("fit-a-nef", "MNIST/SIREN", {})


def state_dicts(
    home: Path, suffix: str, archive: str | None = None, told: str = "activation"
) -> Sample:
    """State dicts with a table of labels, splits and numbers."""
    from safetensors.torch import save_file

    root = home / "networks"
    root.mkdir(parents=True)
    lines = ["file,label,split,index,rate,test_accuracy"]
    for n in range(6):
        state = _state(draw([3, 4, 2], n), "layers.{n}.{kind}")
        path = root / f"net{n}.{suffix}"
        if suffix == "safetensors":
            save_file(state, path)
        else:
            _save(path, {"state_dict": state, "epoch": 3} if n % 2 else state)
        split = ("train", "train", "train", "train", "val", "test")[n]
        lines.append(f"{path.name},{'ab'[n % 2]},{split},{n},{n / 8},0.{n}")
    options = {"activation": "tanh"}
    if told == "spec":
        from zoo import NetworkSpec

        spec = NetworkSpec.mlp([3, 4, 2], activation="relu").to_json()
        (home / "spec.json").write_text(json.dumps(spec))
        options = {"spec": "spec.json"}
    path = root.name
    if archive:
        _packed(root, home / archive)
        _clear(root)
        path = archive
        lines = [line if not n else f"networks/{line}" for n, line in enumerate(lines)]
    (home / "labels.csv").write_text("\n".join(lines) + "\n")
    return Sample("state-dicts", path, {**options, "labels": "labels.csv"})


def _clear(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder)


# Every importer, each way of packing, each kind of file.
SAMPLES = {
    "dws-folder": dws_pictures,
    "dws-tar": lambda home: dws_pictures(home, "mnist-inrs.tar"),
    "dws-waves": dws_waves,
    "nfn-folder": nfn,
    "nfn-tar": lambda home: nfn(home, "siren_mnist_wts.tar"),
    "nfn-tar-gz": lambda home: nfn(home, "siren_mnist_wts.tar.gz"),
    "nfn-zip": lambda home: nfn(home, "siren_mnist_wts.zip"),
    "small-cnn-zoo": small_cnn_zoo,
    "fit-a-nef": fit_a_nef,
    "state-dicts": lambda home: state_dicts(home, "safetensors"),
    "state-dicts-pth": lambda home: state_dicts(home, "pth", told="spec"),
    "state-dicts-tar": lambda home: state_dicts(home, "safetensors", "networks.tar"),
    "state-dicts-zip": lambda home: state_dicts(home, "pth", "networks.zip"),
}
