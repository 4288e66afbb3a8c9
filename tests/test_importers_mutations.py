"""What importers read, damaged by the hundred: a refusal that names the file, or the truth.

The damage and its judgement are those of `make fuzz`; here also what people save otherwise.
"""

import json
import lzma
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import draw, state_of
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from hostile.imports import Imports
from hostile.published import SAMPLES, Sample
from hostile.target import Target

RELU = {"activation": "relu"}


def wrapped(home: Path) -> Sample:
    """Checkpoints of a training, in torch's older files, with a batch norm."""
    (home / "networks").mkdir()
    for n in range(4):
        torch.manual_seed(n)
        net = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1))
        state = {"epoch": n, "model": net.double().state_dict(), "optimizer": {"lr": 0.1}}
        path = home / "networks" / f"epoch_{n}.ckpt"
        torch.save(state, path, _use_new_zipfile_serialization=bool(n % 2))
    return Sample("state-dicts", "networks", RELU)


def arrays(home: Path) -> Sample:
    """Networks of NumPy, and labels in JSON."""
    (home / "networks").mkdir()
    for n in range(4):
        state = state_of(draw([2, 4, 1], n), "fc{n}.{kind}")
        np.savez(home / "networks" / f"{n}.npz", **{k: v.numpy() for k, v in state.items()})
    labels = {f"{n}.npz": {"label": n, "rate": n / 4, "split": "train"} for n in range(4)}
    (home / "labels.json").write_text(json.dumps(labels))
    return Sample("state-dicts", "networks", {**RELU, "labels": "labels.json"})


def one_file(home: Path) -> Sample:
    """A single file."""
    torch.save(state_of(draw([2, 4, 1], 0), "{n}.{kind}"), home / "net.pth")
    return Sample("state-dicts", "net.pth", RELU)


def packed(home: Path) -> Sample:
    """A tar packed by xz."""
    sample = SAMPLES["state-dicts-tar"](home)
    whole = home / sample.path
    (home / "networks.tar.xz").write_bytes(lzma.compress(whole.read_bytes()))
    whole.unlink()
    return Sample(sample.format, "networks.tar.xz", sample.options)


MORE: dict[str, Callable[[Path], Sample]] = {
    "wrapped": wrapped, "arrays": arrays, "one-file": one_file, "packed": packed,
}  # fmt: skip


class Chosen(Imports):
    """Only some of the samples."""

    def __init__(self, seed: int, home: Path, work: Path, samples: dict[str, Callable]):
        Target.__init__(self, seed, work)
        self.samples = {}
        for name, write in samples.items():
            folder = home / f"more-{name}"
            folder.mkdir(parents=True)
            self.samples[name] = write(folder), folder


@pytest.mark.parametrize("name", [*SAMPLES, *MORE])
def test_damage_is_refused_by_name_or_changes_nothing(name: str, tmp_path: Path):
    if name == "fit-a-nef":
        pytest.importorskip("h5py", reason="wszoo[hdf5] is not installed")
    samples = {name: {**SAMPLES, **MORE}[name]}
    target = Chosen(1, tmp_path / "home", tmp_path / "work", samples)
    case = target.prepare()
    results = [case(number) for number in range(25)]
    faults = [result for result in results if result.fault]
    assert not faults, faults[0]
    assert {"refused", "same"} & {result.outcome for result in results}
