"""Anyone's own folder of `.safetensors` or `.pth` state dicts of one architecture.

    networks/0.pth, networks/1.pth, ...    a state dict each (or {"state_dict": ...})
    labels.csv                             file,label,split,... one row a network

`file` is the path inside the folder (or archive); every network must be named once. All
other columns are optional: `label` (the class), `split` (train, validation or val, test),
`index` and `view` (whole numbers; else the row, and 0), `test_accuracy` and other
qualities by wszoo's names, and any others as targets: numbers as they are, words as
classes. Without a split column the last tenths of the rows are validation and test.

Weights are (out, inp) or (out, inp, kh, kw), in PyTorch's order; the order of layers is
that of the .pth, and in safetensors, which has none, that of the names with numbers
counted as such. Pickles are read by torch's weights-only reader: nothing in them is run.

A state dict does not say how its network computes: give --activation for multilayer
perceptrons, or --spec, a JSON file of `NetworkSpec.to_json` as it stands in zoo.json.
"""

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import ZooError
from zoo.importers.files import Files, layer_tensors, load_state, mlp_widths, network
from zoo.importers.published import (
    Arrays,
    Options,
    Published,
    Ref,
    by_split,
    describe,
    keys,
    stacked,
)
from zoo.shards import Column
from zoo.sources import split_items
from zoo.spec import ACTIVATIONS, NetworkSpec

OPTIONS = ("labels", "activation", "spec")
SUFFIXES = (".safetensors", ".pth", ".pt")
SPLIT_NAMES = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
QUALITY = {"psnr_db": "dB", "mse": None, "train_loss": None, "test_loss": None,
           "test_accuracy": None, "train_accuracy": None}  # fmt: skip
LABELS_BYTES = 1 << 30
SPEC_BYTES = 1 << 20


def find(path: Path, options: Options) -> Published:
    """The networks at `path`; ValueError or ZooError as `zoo.importers.find`."""
    files = Files(path)
    names = [name for name in files.names if name.endswith(SUFFIXES)]
    if not names:
        raise ValueError(f"{path}: no {', '.join(SUFFIXES)} file lies there")
    table = {"file": names} if options.labels is None else _table(options.labels, names)
    columns, values = _columns(table, options.labels)
    number = _whole(table, "index", options.labels, np.arange(len(table["file"])))
    view = _whole(table, "view", options.labels, np.zeros(len(table["file"]), np.int64))
    refs = by_split(_splits(table, number, view, options.labels), options.labels or path)
    row_of = {name: row for row, name in enumerate(table["file"])}
    first = next(iter(refs.values()))[0]
    spec = _spec(files, first, options)

    def read(split: str, start: int, stop: int) -> Arrays:
        chosen = refs[split][start:stop]
        rows = []
        for ref in chosen:
            where = files.where(ref.name)
            rows.append(network(load_state(files.read(ref.name), where), spec, where))
        places = [row_of[ref.name] for ref in chosen]
        picked = {name: column[places] for name, column in values.items()}
        return {**keys(chosen), **picked, **stacked(rows)}

    name = path.resolve().name
    return Published(
        spec=spec,
        columns=columns,
        rows={split: len(part) for split, part in refs.items()},
        read=read,
        source=describe(name, name, "", kind="state-dicts", items=len(names)),
    )


def _table(path: Path, names: list[str]) -> dict[str, list[str]]:
    """labels.csv by columns; every file of the folder in it once."""
    if not path.is_file():
        raise ValueError(f"--labels {path}: there is no such file")
    if path.stat().st_size > LABELS_BYTES:
        raise ZooError(f"{path}: larger than {LABELS_BYTES:,} bytes")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            lines = [line for line in reader if line]
    except (ValueError, csv.Error) as error:
        raise ZooError(f"{path}: not a table of comma-separated text ({error})") from error
    if "file" not in header or len(set(header)) != len(header):
        raise ZooError(
            f"{path}: expected a first line of different names, `file` among them, got "
            f"{', '.join(header)[:120] or 'nothing'}"
        )
    for row, line in enumerate(lines):
        if len(line) != len(header):
            raise ZooError(f"{path}: row {row + 1} has {len(line)} fields, expected {len(header)}")
    table = {name: [line[place].strip() for line in lines] for place, name in enumerate(header)}
    listed = table["file"]
    if len(set(listed)) != len(listed):
        twice = next(name for name in listed if listed.count(name) > 1)
        raise ZooError(f"{path}: {twice} is there twice")
    if lost := sorted(set(listed) - set(names)):
        raise ZooError(f"{path}: names {lost[0]}, which is not there ({len(lost)} such)")
    if bare := sorted(set(names) - set(listed)):
        raise ZooError(f"{path}: does not name {bare[0]} ({len(bare)} such): it has no label")
    return table


def _whole(
    table: dict[str, list[str]], name: str, path: Path | None, default: NDArray[Any]
) -> NDArray[np.int64]:
    if name not in table:
        return default.astype(np.int64)
    texts = table[name]
    bad = next((text for text in texts if not re.fullmatch(r"[0-9]{1,18}", text)), None)
    if bad is not None:
        raise ZooError(f"{path}: {name}: expected whole numbers from 0, got {bad!r}")
    return np.array([int(text) for text in texts], np.int64)


def _splits(
    table: dict[str, list[str]],
    number: NDArray[np.int64],
    view: NDArray[np.int64],
    path: Path | None,
) -> dict[str, list[Ref]]:
    refs = [
        Ref(int(n), int(v), name) for n, v, name in zip(number, view, table["file"], strict=True)
    ]
    if "split" in table:
        found: dict[str, list[Ref]] = {"train": [], "validation": [], "test": []}
        for ref, split in zip(refs, table["split"], strict=True):
            if split not in SPLIT_NAMES:
                raise ZooError(
                    f"{path}: {ref.name}: unknown split {split!r}; known: {', '.join(SPLIT_NAMES)}"
                )
            found[SPLIT_NAMES[split]].append(ref)
        return found
    ordered = sorted(refs)
    # By item, so that views of one never straddle two splits.
    items = sorted({ref.index for ref in ordered})
    spans = split_items(len(items), len(items), "80-10-10")
    of = {items[place]: split for split, span in spans.items() for place in span}
    return {split: [ref for ref in ordered if of[ref.index] == split] for split in spans}


def _columns(table: dict[str, list[str]], path: Path | None) -> tuple[dict[str, Column], Arrays]:
    columns: dict[str, Column] = {}
    values: Arrays = {}
    for name, texts in table.items():
        if name in ("file", "split", "index", "view"):
            continue
        if not re.fullmatch(r"[A-Za-z]\w{0,60}", name) or re.fullmatch(r"(weight|bias)_\d+", name):
            raise ZooError(f"{path}: {name!r} cannot be the name of a column")
        numbers = None if name == "label" else _numbers(texts)
        if name in QUALITY:
            if numbers is None:
                raise ZooError(f"{path}: {name}: expected numbers, finite ones")
            columns[name] = Column("quality", "real", unit=QUALITY[name])
            values[name] = numbers
        elif numbers is not None:
            columns[name], values[name] = Column("target", "real"), numbers
        else:
            if "" in texts:
                row = texts.index("")
                raise ZooError(f"{path}: {table['file'][row]} has no {name}")
            names = _classes(texts)
            place = {text: at for at, text in enumerate(names)}
            columns[name] = Column("target", "class", names=names)
            values[name] = np.array([place[text] for text in texts], np.int64)
    return columns, values


def _classes(texts: list[str]) -> tuple[str, ...]:
    """Class names in label order: numbers 0 to n keep theirs, words are sorted."""
    if all(re.fullmatch(r"[0-9]{1,4}", text) for text in texts):
        # Equal numbers written differently must not be two classes.
        if any(text != str(int(text)) for text in texts):
            raise ZooError("labels.csv: write numbers of classes without leading zeros")
        return tuple(str(number) for number in range(max(int(t) for t in texts) + 1))
    return tuple(sorted(set(texts)))


def _numbers(texts: list[str]) -> NDArray[np.float32] | None:
    try:
        numbers = np.array([float(text) for text in texts], np.float32)
    except ValueError:
        return None
    return numbers if np.isfinite(numbers).all() else None


def _spec(files: Files, first: Ref, options: Options) -> NetworkSpec:
    """The architecture: as the user says it, or linear layers from the first file."""
    if options.spec is not None:
        if options.activation is not None:
            raise ValueError("--spec says the activation already; leave out --activation")
        try:
            with options.spec.open("rb") as file:
                return NetworkSpec.from_json(json.loads(file.read(SPEC_BYTES)))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"--spec {options.spec}: expected a NetworkSpec as JSON, like `spec` in a zoo.json "
                f"({error})"
            ) from error
    where = files.where(first.name)
    state = load_state(files.read(first.name), where)
    if any(tensor.ndim == 4 for tensor in layer_tensors(state, where).values()):
        raise ValueError(
            f"{where}: convolutions; a state dict does not say their stride and padding: give "
            "--spec"
        )
    if options.activation is None:
        raise ValueError(
            "a state dict does not say its activation: give --activation "
            f"({', '.join(ACTIVATIONS)}; sin has omega 30), or --spec"
        )
    if options.activation not in ACTIVATIONS:
        raise ValueError(
            f"unknown activation {options.activation!r}; known: {', '.join(ACTIVATIONS)}"
        )
    return NetworkSpec.mlp(mlp_widths(state, where), activation=options.activation)
