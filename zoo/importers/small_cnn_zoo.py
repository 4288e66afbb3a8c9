"""The Small CNN Zoo (Unterthiner et al. 2020): checkpoints of classifiers of grey pictures.

Layout, one folder a data set:

    weights.npy       rows x 4,970, float32; mapped, never read whole
    metrics.csv.gz    one row a checkpoint: config.*, step, test_accuracy, ..., modeldir
    layout.csv        varname, start_idx, end_idx, shape of each tensor in a row

Kernels are (kh, kw, in, out) and become (out, in, kh, kw), dense ones (in, out) become
(out, in); bits stay. Like NFN's loader this takes the checkpoints of step 86, and splits
them as its code does: the second half is the test split, a fifth of the first half, drawn
by Python's generator of seed 0, validation. NFN orders the rows first by a file of row
numbers in its repository (`predict_gen_data_splits/*_split.csv`): give it as --splits to
get NFN's very splits; else the order of the rows is taken, which is as good but not the
same. `index` is the row of weights.npy. A zoo has one activation, the data set two: choose
one by --activation.

Unverified: names of columns beyond `config.*`, `step`, accuracies, losses and `modeldir`,
so others are left out; that convolutions have stride 2 and no padding, and how pictures
are given (here: grey in [0, 1]). --check-against evaluates some networks again and
compares their test accuracy.
"""

import csv
import io
import random
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo import schema
from zoo.errors import ZooError
from zoo.importers.files import Unpacked
from zoo.importers.published import Arrays, Options, Published, Told, describe
from zoo.passed import Passed
from zoo.schema import safe
from zoo.shards import SPLITS, Column
from zoo.spec import ACTIVATIONS, Layer, NetworkSpec

OPTIONS = ("splits", "activation")
URL = "https://github.com/google-research/google-research/tree/master/dnn_predict_accuracy"
CITATION = (
    "Unterthiner et al. 2020, Predicting neural network accuracy from weights, "
    "arXiv:2002.11448 (the networks)"
)
FINAL_STEP = 86
STRIDE = 2
QUALITY = ("train_accuracy", "test_accuracy", "train_loss", "test_loss")
# Metrics are text: some 400 bytes a row, of 270,000 rows.
METRICS_BYTES = 1 << 20
ROW_BYTES = 4 << 10
LINE_BYTES = 64 << 10
LAYOUT_BYTES = 1 << 20
SOURCES = {
    "fashion": "Fashion-MNIST", "mnist": "MNIST", "cifar": "CIFAR-10", "svhn": "SVHN",
}  # fmt: skip


def find(path: Path, options: Options) -> Published:
    """The networks at `path`; ValueError or ZooError as `zoo.importers.find`."""
    needed = ("weights.npy", "metrics.csv.gz", "layout.csv")
    lacking = [name for name in needed if not (path / name).is_file()]
    if lacking:
        raise ValueError(f"{path}: no Small CNN Zoo, it lacks {', '.join(lacking)}")
    weights = _map(path / needed[0])
    layout = _layout(path / needed[2], weights.shape[1])
    rows, metrics = _metrics(path / needed[1], len(weights))
    activation = _activation(metrics, options.activation, path)
    order = _order(options.splits, len(weights))
    kept = set(rows[_chosen(metrics, activation)].tolist())
    refs = _split([row for row in order if row in kept])
    place = np.full(len(weights), -1, np.int64)
    place[rows] = np.arange(len(rows))
    told = _told(layout, activation, options)
    final = place[np.concatenate(list(refs.values()))]
    columns, values = _columns(metrics, final, path / needed[1], told)
    spec = _spec(layout, activation, path / needed[2])

    def read(split: str, start: int, stop: int) -> Arrays:
        chosen = refs[split][start:stop]
        flat = weights[chosen]
        arrays: Arrays = {"index": chosen, "view": np.zeros(len(chosen), np.int64)}
        arrays |= {name: column[place[chosen]] for name, column in values.items()}
        for name, (begin, shape) in layout.items():
            part = flat[:, begin : begin + prod(shape)].reshape(-1, *shape)
            # [net, kh, kw, in, out] -> [net, out, in, kh, kw]; [net, in, out] -> [net, out, in]
            axes = {5: (0, 4, 3, 1, 2), 3: (0, 2, 1)}.get(part.ndim, (0, 1))
            arrays[name] = np.ascontiguousarray(part.transpose(axes))
        return arrays

    name = path.resolve().name
    title = next((t for key, t in SOURCES.items() if key in name.lower()), name)
    passed = Passed()
    for file in path.iterdir():
        if file.name not in needed:
            passed.add(file.name)
    return Published(
        spec=spec,
        columns=columns,
        rows={split: len(part) for split, part in refs.items()},
        read=read,
        source=describe(name, title, CITATION, url=URL, kind="classifier", items=len(weights)),
        facts={
            "step": FINAL_STEP,
            "splits": "in the order of --splits" if options.splits else "in the order of rows",
        },
        told=told,
        passed=passed,
    )


def _told(layout: dict[str, Any], activation: str, options: Options) -> Told:
    told = Told()
    told.say(f"tensors by layout.csv: {', '.join(layout)}; kernels turned to (out, inp, kh, kw)")
    told.say(f"{activation} in hidden layers by metrics.csv.gz, checkpoints of step {FINAL_STEP}")
    told.say(
        f"the format says: stride {STRIDE}, no padding, mean over positions before the last layer"
    )
    order = options.splits.name if options.splits else "weights.npy"
    told.say(f"splits as NFN's code cuts them, rows in the order of {order}")
    return told


def _map(path: Path) -> NDArray[np.float32]:
    try:
        weights = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:
        # Its header is Python's syntax; damaged, it ends in whatever error that gives.
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ZooError(
            f"{path}: not a .npy file of numbers that can be mapped ({safe(first, 120)})"
        ) from error
    if not isinstance(weights, np.ndarray) or weights.ndim != 2 or weights.dtype != np.float32:
        got = f"{weights.dtype} {weights.shape}" if isinstance(weights, np.ndarray) else "other"
        raise ZooError(f"{path}: expected float32 (row, parameter), got {got}")
    if not weights.size:
        raise ZooError(f"{path}: no rows")
    return weights


def _layout(path: Path, width: int) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Start and published shape of each tensor, by our names weight_0, bias_0, ..."""
    try:
        text = schema.read_plain(path, LAYOUT_BYTES).decode("utf-8-sig")
        tensors = [
            (
                str(line["varname"]),
                int(line["start_idx"]),
                int(line["end_idx"]),
                tuple(int(side) for side in re.findall(r"[0-9]{1,9}", line["shape"])),
            )
            for line in csv.DictReader(text.splitlines())
        ]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ZooError(
            f"{path}: expected the columns varname, start_idx, end_idx, shape in all rows "
            f"({safe(error, 120)})"
        ) from error
    found: dict[str, tuple[int, tuple[int, ...]]] = {}
    counts: Counter[str] = Counter()
    for name, start, end, shape in tensors:
        kind = {"kernel:0": "weight", "bias:0": "bias"}.get(name.rpartition("/")[2])
        ranks = {"weight": (2, 4), "bias": (1,)}.get(kind or "", ())
        if kind is None or len(shape) not in ranks or end - start != prod(shape):
            raise ZooError(
                f"{path}: {safe(name, 60)}: {shape} at {start} to {end} is no kernel or bias"
            )
        found[f"{kind}_{counts[kind]}"] = (start, shape)
        counts[kind] += 1
    place = 0
    for _, start, end, _ in sorted(tensors, key=lambda tensor: tensor[1]):
        if start != place:
            raise ZooError(f"{path}: a tensor starts at {start}, expected {place}")
        place = end
    if place != width:
        raise ZooError(
            f"{path}: the tensors take {place} numbers, a row of weights.npy has {width}"
        )
    return found


def _spec(
    layout: dict[str, tuple[int, tuple[int, ...]]], activation: str, path: Path
) -> NetworkSpec:
    layers = []
    count = len(layout) // 2
    try:
        for number in range(count):
            (_, kernel), (_, bias) = layout[f"weight_{number}"], layout[f"bias_{number}"]
            *taps, inp, out = kernel
            if bias != (out,):
                raise ValueError(f"layer {number}: kernel {kernel} and bias {bias} do not fit")
            name = "identity" if number == count - 1 else activation
            layers.append(
                Layer("conv", inp, out, name, kernel=(taps[0], taps[1]), stride=STRIDE)
                if taps
                else Layer("linear", inp, out, name)
            )
        return NetworkSpec(tuple(layers))
    except (KeyError, ValueError) as error:
        raise ZooError(f"{path}: not a chain of layers ({error})") from error


def _lines(path: Path, rows: int) -> Iterator[str]:
    """The lines of the metrics, of which none is read beyond a bound."""
    left = METRICS_BYTES + ROW_BYTES * rows
    with io.TextIOWrapper(io.BufferedReader(Unpacked(path)), encoding="utf-8", newline="") as file:
        while line := file.readline(LINE_BYTES):
            left -= len(line)
            if left < 0 or len(line) == LINE_BYTES:
                what = f"a line of more than {LINE_BYTES:,} characters" if left >= 0 else (
                    f"unpacks to more than {ROW_BYTES:,} bytes for each of {rows:,} rows"
                )  # fmt: skip
                raise ZooError(f"{path}: {what}: damaged, or no table of metrics")
            yield line


def _metrics(path: Path, rows: int) -> tuple[NDArray[np.int64], dict[str, list[str]]]:
    """Row numbers of the final checkpoints, and their columns of interest as text."""
    numbers: list[int] = []
    total = 0
    try:
        reader = csv.reader(_lines(path, rows))
        header = next(reader, [])
        if "step" not in header or "config.activation" not in header:
            raise ZooError(
                f"{path}: expected columns step, config.activation and others, got "
                f"{safe(', '.join(header), 200) or 'nothing'}"
            )
        wanted = [n for n in header if n in QUALITY or n.startswith("config.")]
        places = [header.index(name) for name in wanted]
        texts: list[list[str]] = [[] for _ in wanted]
        step = header.index("step")
        for line in reader:
            if len(line) != len(header):
                raise ZooError(
                    f"{path}: row {total} has {len(line)} fields, expected {len(header)}"
                )
            if float(line[step]) == FINAL_STEP:
                numbers.append(total)
                for text, place in zip(texts, places, strict=True):
                    text.append(line[place])
            total += 1
            if total > rows:
                break
    except (OSError, EOFError, zlib.error, csv.Error, ValueError) as error:
        raise ZooError(f"{path}: damaged, or not a gzipped table ({safe(error, 120)})") from error
    if total != rows:
        more = "more than weights.npy, which" if total > rows else f"{total:,} rows, weights.npy"
        raise ZooError(f"{path}: {more} has {rows:,}")
    if not numbers:
        raise ZooError(f"{path}: no checkpoint of step {FINAL_STEP}")
    return np.array(numbers, np.int64), dict(zip(wanted, texts, strict=True))


def _activation(metrics: dict[str, list[str]], wanted: str | None, path: Path) -> str:
    there = Counter(metrics["config.activation"])
    if wanted is None and len(there) > 1:
        counts = ", ".join(f"{name} {count:,}" for name, count in sorted(there.items()))
        raise ValueError(
            f"{path}: the networks have several activations ({counts}) and a zoo has one: "
            "choose it by --activation"
        )
    chosen = wanted or next(iter(there))
    if chosen not in there:
        raise ValueError(f"no network has activation {chosen!r}; there are {', '.join(there)}")
    if chosen not in ACTIVATIONS:
        raise ValueError(f"unknown activation {chosen!r}; known: {', '.join(ACTIVATIONS)}")
    return chosen


def _chosen(metrics: dict[str, list[str]], activation: str) -> NDArray[np.bool_]:
    return np.array([name == activation for name in metrics["config.activation"]])


def _order(path: Path | None, rows: int) -> list[int]:
    """The order in which rows are split: as they stand, or by NFN's file of row numbers."""
    if path is None:
        return list(range(rows))
    if not path.is_file():
        raise ValueError(f"--splits {path}: there is no such file")
    try:
        content = schema.read_plain(path, 64 * (rows + 1))
        order = [int(float(text)) for text in content.decode("utf-8-sig").split()]
    except (OverflowError, ValueError) as error:
        raise ValueError(
            f"--splits {path}: expected one row number a line ({safe(error, 120)})"
        ) from error
    if sorted(order) != list(range(rows)):
        raise ZooError(
            f"{path}: expected each of the {rows:,} rows of weights.npy once, got {len(order):,} "
            "numbers that are not these"
        )
    return order


def _split(rows: list[int]) -> dict[str, NDArray[np.int64]]:
    """As the code of NFN does (`_split_indices_iid`); each split in the order of rows."""
    half = len(rows) // 2
    first = list(range(half))
    random.Random(0).shuffle(first)
    train = int(0.8 * half)
    found = {
        "train": [rows[place] for place in first[:train]],
        "validation": [rows[place] for place in first[train:]],
        "test": rows[half:],
    }
    return {s: np.array(sorted(found[s]), np.int64) for s in SPLITS if found[s]}


def _columns(
    metrics: dict[str, list[str]], kept: NDArray[np.int64], path: Path, told: Told
) -> tuple[dict[str, Column], Arrays]:
    """Qualities and hyper-parameters; what is text becomes classes, sorted by name."""
    columns: dict[str, Column] = {}
    values: Arrays = {}
    for source, texts in metrics.items():
        if source == "config.activation":
            continue
        name = re.sub(r"\W", "_", source.removeprefix("config."))
        if name in columns or name in ("index", "view") or re.match(r"(weight|bias)_\d+$", name):
            raise ZooError(
                f"{path}: the column {safe(source, 60)!r} would hide another, {safe(name, 60)!r}"
            )
        role = "quality" if source in QUALITY else "target"
        numbers = _numbers(texts)
        if role == "target" and (gaps := sum(not texts[row].strip() for row in kept)):
            # A hyper-parameter that some lack must not cost the networks.
            told.say(f"column {safe(name, 60)} left out: {gaps:,} of {len(kept):,} have none")
        elif numbers is not None:
            columns[name], values[name] = Column(role, "real"), numbers
            told.say(f"column {safe(name, 60)}: {'a quality' if source in QUALITY else 'numbers'}")
        elif role == "quality":
            raise ZooError(f"{path}: {source} holds what is no number")
        else:
            names = sorted({texts[row] for row in kept})
            number = {text: place for place, text in enumerate(names)}
            columns[name] = Column(role, "class", names=tuple(names))
            values[name] = np.array([number.get(text, -1) for text in texts], np.int64)
            told.say(f"column {safe(name, 60)}: {len(names)} classes of words")
    return columns, values


def _numbers(texts: list[str]) -> NDArray[Any] | None:
    try:
        with np.errstate(over="ignore"):
            return np.array([float(text) if text else np.nan for text in texts], np.float32)
    except ValueError:
        return None
