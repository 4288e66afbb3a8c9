"""Networks as others save them: state dicts, and the published layouts in small."""

import csv
import gzip
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from zoo.spec import NetworkSpec

Numpy = dict[str, np.ndarray]
# Kernels of the Small CNN Zoo.
LAYERS = [(3, 3, 1, 16), (3, 3, 16, 16), (3, 3, 16, 16), (16, 10)]


def draw(widths: list[int], seed: int) -> Numpy:
    """A random network as the tensors of a shard."""
    spec = NetworkSpec.mlp(widths)
    normal = np.random.default_rng(seed).standard_normal
    return {name: normal(shape, np.float32) / 10 for name, shape in spec.tensors.items()}


def state_of(net: Numpy, template: str, last: str | None = None) -> dict[str, Any]:
    """The tensors under published names, a weight before its bias."""
    layers = len(net) // 2
    return {
        (last if last and n == layers - 1 else template).format(n=n, kind=kind): torch.from_numpy(
            net[f"{kind}_{n}"].copy()
        )
        for n in range(layers)
        for kind in ("weight", "bias")
    }


def save(path: Path, state: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)


def write_dws_mnist(root: Path, nets: dict[tuple[str, int, int], Numpy]) -> None:
    for (part, label, number), net in nets.items():
        folder = root / "mnist-inrs" / f"mnist_png_{part}_{label}_{number}" / "checkpoints"
        save(folder / "model_final.pth", state_of(net, "seq.{n}.{kind}"))


def wave_state(net: Numpy, coef: list[float]) -> dict[str, Any]:
    """As the authors' trainer saves it: the upper end of x is left out."""
    x = np.arange(-np.pi, np.pi, np.pi / 1000)
    y = coef[0] * np.sin(x * 2 * np.pi / (1 / coef[1] * 2 * np.pi))
    return {**state_of(net, "seq.{n}.{kind}"), "coef": coef, "x": x, "y": y}


def nfn_name(index: int, label: int, view: int) -> str:
    aug = f"aug{view - 1}_" if view else ""
    return f"siren_mnist_wts/randinit_smaller_{aug}{label}s/net{index}.pth"


def write_small_cnn_zoo(root: Path, rows: int = 60, activation: str = "relu") -> np.ndarray:
    """Bias before kernel, every third row final, configuration as words and numbers."""
    root.mkdir(parents=True)
    layout, place = [], 0
    for number, kernel in enumerate(LAYERS):
        stem = f"sequential/{'dense' if len(kernel) == 2 else 'conv2d'}_{number}"
        for name, shape in (("bias:0", kernel[-1:]), ("kernel:0", kernel)):
            end = place + int(np.prod(shape))
            layout.append((f"{stem}/{name}", place, end, str(shape)))
            place = end
    assert place == 4970
    weights = np.random.default_rng(0).standard_normal((rows, place), np.float32) / 4
    np.save(root / "weights.npy", weights)
    with (root / "layout.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("varname", "start_idx", "end_idx", "shape"), *layout])
    config = [f"config.{name}" for name in ("activation", "learning_rate", "optimizer", "w_init")]
    metrics = ["test_accuracy", "train_accuracy", "test_loss"]
    header = [*config, "step", *metrics, "modeldir", "other"]
    with gzip.open(root / "metrics.csv.gz", "wt", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for row in range(rows):
            step = 86 if row % 3 == 2 else row % 3
            kind = activation if row % 2 else "relu"
            name = ("adam", "sgd")[row % 2]
            writer.writerow(
                [kind, 10.0 ** -(row % 4), name, "glorot", step, row / rows, 0.5, 1.5, "/x", "y"]
            )
    return weights


def nef_config(widths: list[int]) -> list[tuple[str, list[int]]]:
    config: list[tuple[str, list[int]]] = []
    for number, (inp, out) in enumerate(itertools.pairwise(widths)):
        stem = "output_linear" if number == len(widths) - 2 else f"kernel_net_{number}.linear"
        config += [(f"{stem}.bias", [out]), (f"{stem}.kernel", [inp, out])]
    return config


def nef_params(net: Numpy) -> np.ndarray:
    """Bias before kernel, kernels (in, out), flat."""
    parts = []
    for number in range(len(net) // 2):
        parts += [net[f"bias_{number}"], np.ascontiguousarray(net[f"weight_{number}"].T).ravel()]
    return np.concatenate(parts)


def write_nefs(
    root: Path, spans: list[tuple[int, int]], fields: dict[int, Numpy], labels: dict[int, int]
) -> None:
    h5py = pytest.importorskip("h5py", reason="wszoo[hdf5] is not installed")
    root.mkdir(parents=True, exist_ok=True)
    first = next(iter(fields.values()))
    widths = [first["weight_0"].shape[1]] + [
        len(first[f"bias_{n}"]) for n in range(len(first) // 2)
    ]
    nef = {"name": "SIREN", "params": {"hidden_dim": widths[1], "num_layers": 3, "omega_0": 9.0}}
    (root / "nef.json").write_text(json.dumps(nef))
    name = "CIFAR10" if widths[-1] == 3 else "MNIST"
    (root / "cfg.json").write_text(json.dumps({"dataset": {"name": name, "path": "."}}))
    for start, end in spans:
        with h5py.File(root / f"nefs_{start}-{end}.hdf5", "w") as file:
            params = np.stack([nef_params(fields[n]) for n in range(start, end)])
            file.create_dataset("params", data=params)
            text = file.create_dataset("param_config", (1,), dtype=h5py.special_dtype(vlen=str))
            text[0] = json.dumps(nef_config(widths))
            file.create_dataset("labels", data=[labels[n] for n in range(start, end)])


def write_table(path: Path, rows: list[tuple[Any, ...]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path
