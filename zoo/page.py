"""Writes a zoo as one web page that needs no network: `wszoo show ZOO --html`.

The page (`page.html`) sorts and filters networks and draws them beside their originals, with
their weights; all data stand in it. Pictures are packed into two sheets, weights into 31
shades a value, of which zlib leaves about half a byte. What a foreign index says is shown as
text, and the page may load nothing.
"""

import base64
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from math import ceil, prod
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from zoo import machine, nets, png
from zoo.compare import rows_of, source_of
from zoo.errors import ZooError, safe_line
from zoo.hub.arrival import Found, files_of, find
from zoo.kinds import kind_of, look_of, objective
from zoo.reader import Row, open_zoo
from zoo.recipes import MEANINGS, MEASURES, RUN_KEY, recipe_from_json, told_recipes
from zoo.shards import Column, Index, read_stats, replacing
from zoo.table import read_names, shards_of
from zoo.weights import Weights

# Networks of a page unless told otherwise.
NETWORKS = 2_000
# Pixels of a picture's longer side, squares of a heat map's, points of a wave.
_SIDE, _SQUARES, _POINTS = 64, 64, 96
# Squares of all heat maps of a page; those of larger networks are made coarser.
_ALL_SQUARES = 2_500_000
_SHADES = 15  # on each side of zero
_BARS = 40
# Networks that are evaluated at a time.
_BLOCK = 64
_WORDS = 600
_SUMMARY = ("mean", "std", "min", "max")


@dataclass(frozen=True, eq=False)
class _Chosen:
    """Networks of a page, all splits in one.

    Attributes:
        splits: names; `split` numbers them for each network.
        row: of each network in its split.
        runs: first network and number of each run; None if networks are no runs.
    """

    splits: list[str]
    split: NDArray[np.int64]
    row: NDArray[np.int64]
    weights: Weights
    columns: dict[str, NDArray[Any]]
    runs: list[list[int]] | None


def write_page(
    path: str | Path,
    out: str | Path,
    *,
    split: str | None = None,
    count: int = NETWORKS,
    seed: int = 0,
    data_root: str | Path | None = None,
    source: str | None = None,
    revision: str | None = None,
) -> list[str]:
    """Write one HTML file with random networks of a zoo, see the module.

    Args:
        path: a folder, a URL or a repository, of which only what is shown is fetched.
        split: None takes all.
        count: networks at most; of trajectories whole runs, one at least.
        data_root, source: where the originals lie, as for `compare.original`.
        revision: branch, tag or commit of a repository.

    Returns:
        What the page could not show, in lines.

    Raises:
        ValueError: for an unknown split, or a count below 1.
        ZooError: if the zoo is not what it should be.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    machine.limit_torch()
    found = find(path, revision)
    for name in [split] if split else []:
        shards_of(found.index, name)
    splits = [split] if split else list(found.index.splits)
    chosen = _choose(found, splits, count, seed)
    root = Path(data_root) if data_root else None
    data, missing = _data(found, chosen, seed, root, source)
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    page = resources.files("zoo").joinpath("page.html").read_text(encoding="utf-8")
    # Inside of a script only this could end it.
    whole = page.replace("/*data*/", text.replace("<", "\\u003c"))
    with replacing(Path(out)) as temporary:
        temporary.write_text(whole, encoding="utf-8", newline="\n")
    return missing


# ---- which networks


def _choose(found: Found, splits: Sequence[str], count: int, seed: int) -> _Chosen:
    draw = np.random.default_rng(seed)
    if found.index.in_runs:
        rows, runs = _whole_runs(found, splits, count, draw)
    else:
        sizes = [sum(shard.rows for shard in shards_of(found.index, name)) for name in splits]
        total = sum(sizes)
        drawn = np.sort(draw.choice(total, min(count, total), replace=False))
        starts = np.cumsum([0, *sizes])
        rows = [
            drawn[(start <= drawn) & (drawn < start + size)] - start
            for start, size in zip(starts, sizes, strict=False)
        ]
        runs = None
    parts = []
    for name, some in zip(splits, rows, strict=True):
        if len(some):
            ordered = np.argsort(some, kind="stable")
            weights, columns = rows_of(found, name, some[ordered])
            back = np.argsort(ordered, kind="stable")
            named = {key: values.numpy()[back] for key, values in columns.items()}
            parts.append((weights[back], named))
    return _Chosen(
        splits=list(splits),
        split=np.repeat(np.arange(len(splits)), [len(some) for some in rows]),
        row=np.concatenate(rows),
        weights=Weights.cat([weights for weights, _ in parts]),
        columns={key: np.concatenate([named[key] for _, named in parts]) for key in parts[0][1]},
        runs=runs,
    )


def _whole_runs(
    found: Found, splits: Sequence[str], count: int, draw: np.random.Generator
) -> tuple[list[NDArray[np.int64]], list[list[int]]]:
    """Rows of random runs by split, each in step order, and where each run begins."""
    known: list[tuple[int, NDArray[np.int64]]] = []
    for number, name in enumerate(splits):
        networks = open_zoo(found.bring(files_of(found.index, name)), name)
        index, steps = networks.column("index"), networks.steps
        for run in np.unique(index):
            rows = np.flatnonzero(index == run)
            known.append((number, rows[np.argsort(steps[rows], kind="stable")]))
    taken: list[int] = []
    total = 0
    for place in draw.permutation(len(known)):
        total += len(known[place][1])
        if taken and total > count:
            break
        taken.append(int(place))
    rows_by_split: list[list[NDArray[np.int64]]] = [[] for _ in splits]
    runs, first = [], 0
    for place in sorted(taken):
        number, rows = known[place]
        rows_by_split[number].append(rows)
        runs.append([first, len(rows)])
        first += len(rows)
    none = np.zeros(0, np.int64)
    return [np.concatenate([none, *each]) for each in rows_by_split], runs


# ---- what the page is told


def _data(
    found: Found, chosen: _Chosen, seed: int, root: Path | None, source: str | None
) -> tuple[dict[str, Any], list[str]]:
    index = found.index
    columns = {name: index.columns[name] for name in chosen.columns}
    measure = next((each.column for each in MEASURES if each.column in columns), None)
    outputs, missing = _outputs(index, chosen, root, source)
    statistics, constant = _quality(index)
    tensors, packed = _tensors(found, chosen)
    data = {
        "title": safe_line(index.name, _WORDS),
        "lead": _lead(index, chosen, seed),
        "notes": [safe_line(each, _WORDS) for each in missing],
        "facts": _facts(index),
        "command": "wszoo show --html",
        "splits": chosen.splits,
        "measure": measure,
        "columns": _described(index, columns),
        "values": {
            "split": chosen.split.tolist(),
            "row": chosen.row.tolist(),
            **{name: _numbers(values) for name, values in chosen.columns.items()},
        },
        "files": _files(found, chosen),
        "runs": chosen.runs,
        **outputs,
        "curve": _curve(chosen, measure),
        "tensors": tensors,
        "weights": packed,
        "weighed": "the training networks" if index.stats else "these networks",
        "statistics": statistics,
        "constant": constant,
    }
    return data, missing


def _lead(index: Index, chosen: _Chosen, seed: int) -> str:
    count, total = len(chosen.row), sum(index.splits[name] for name in chosen.splits)
    look = look_of(index)
    done = look.done or ("imported from" if index.imported else "fitted to")
    title = str(index.source.get("title") or index.source["name"])
    named = f"{count:,} networks" if count == total else f"{count:,} of {total:,} networks"
    runs = f", {len(chosen.runs):,} whole runs," if chosen.runs else ""
    drawn = "" if count == total else f", drawn at random (seed {seed})"
    return safe_line(f"{named}{runs} {done} {title}{drawn}. {look.what}".strip(), _WORDS)


def _facts(index: Index) -> list[tuple[str, str]]:
    spec, source = index.spec, index.source
    layers = [layer.activation for layer in spec.layers if layer.activation != "identity"]
    kinds = ", ".join(dict.fromkeys(layers))
    sizes = f"{'-'.join(map(str, spec.widths))} {spec.encoding_words}".rstrip()
    facts = [
        ("source", f"{source.get('title', 'unknown')} ({source['name']})"),
        ("licence of the source", source.get("license") or "unknown"),
        ("network", f"{sizes}, {kinds}; {spec.param_count:,} parameters"),
        *[
            (name, ", ".join(f"{key} {value}" for key, value in part.items()))
            for name, part in (*told_recipes(index.recipe).items(), ("plan", index.plan))
        ],
        ("made by", index.command or "unknown"),
    ]
    return [(name, safe_line(words, _WORDS)) for name, words in facts]


def _described(index: Index, columns: Mapping[str, Column]) -> list[dict[str, Any]]:
    meanings = {**MEANINGS, **look_of(index).meanings}
    measures = {each.column: each for each in MEASURES}
    labels = {
        name: measures[name].label.partition(" [")[0]
        if name in measures
        else name.replace("_", " ")
        for name in columns
    }
    shorts = {name: each.short.partition("{")[0].strip() for name, each in measures.items()}
    return [
        {
            "name": name,
            "words": safe_line(labels[name], _WORDS),
            # Before a value in a tile, where its unit does not say what it is.
            "short": ""
            if column.kind == "class" or column.unit
            else shorts.get(name, safe_line(labels[name], _WORDS)),
            "log": name in measures and measures[name].log,
            "meaning": meanings.get(name, ""),
            "kind": column.kind,
            "unit": safe_line(column.unit or "", _WORDS),
            "names": [safe_line(each, _WORDS) for each in column.names] if column.names else None,
        }
        for name, column in columns.items()
    ]


def _numbers(values: NDArray[Any]) -> list[int | float | None]:
    """Numbers as JSON has them, six digits each; what is not finite is None."""
    if values.dtype.kind in "iu":
        return [int(value) for value in values]
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values]


def _files(found: Found, chosen: _Chosen) -> list[str | None] | None:
    """File names of the networks' pictures, if they came from a folder."""
    if found.index.names_file is None:
        return None
    known = read_names(found.bring(found.index.extras), found.index)
    names = [known.get(item) for item in chosen.columns["index"].tolist()]
    return [None if name is None else safe_line(name, _WORDS) for name in names]


def _quality(index: Index) -> tuple[list[dict[str, Any]], str]:
    """Summaries of all rows of the zoo, and in words those that do not vary."""
    names = [name for name, column in index.columns.items() if column.role == "quality"]
    rows, same = [], []
    for name in names:
        parts = {split: part[name] for split, part in index.quality.items() if name in part}
        ends = {part[end] for part in parts.values() for end in ("min", "max")}
        if len(ends) == 1:
            same.append(f"{name.replace('_', ' ')} {ends.pop():.6g}")
            continue
        rows += [
            {"column": name, "split": split, **{key: _short(part[key]) for key in _SUMMARY}}
            for split, part in parts.items()
        ]
    return rows, f"The same in every network: {', '.join(same)}." if same else ""


def _short(value: float) -> float | None:
    return float(f"{value:.6g}") if np.isfinite(value) else None


def _curve(chosen: _Chosen, measure: str | None) -> dict[str, Any] | None:
    """What is drawn of each run, and over which range."""
    if chosen.runs is None or measure is None:
        return None
    x, y = chosen.columns[RUN_KEY], chosen.columns[measure]
    finite = y[np.isfinite(y)] if np.isfinite(y).any() else np.zeros(1)
    ends = {"left": x.min(), "right": x.max(), "low": finite.min(), "high": finite.max()}
    return {"x": RUN_KEY, "y": measure, **{key: float(value) for key, value in ends.items()}}


# ---- pictures and waves


def _outputs(
    index: Index, chosen: _Chosen, root: Path | None, source: str | None
) -> tuple[dict[str, Any], list[str]]:
    """What networks of coordinates stand for, beside their originals, packed."""
    axes = len(index.spec.axes)
    if axes == 3:
        return _thumbnails(index, chosen, root, source)
    if not axes:
        return {}, []
    originals, missing = _originals(index, chosen, root, source)
    if axes == 1:
        points = int(index.source.get("points") or 1_000)
        at = np.linspace(0, points - 1, min(points, _POINTS)).round().astype(int)
        outputs = np.concatenate([part[:, at, 0] for part in _waves(index, chosen, points)])
        targets = None if originals is None else np.stack([each[at, 0] for each in originals])
        return {"waves": _packed_waves(outputs, targets)}, missing
    rendered = np.concatenate(list(_pictures(index, chosen)))
    return _sheets(originals, rendered), missing


def _thumbnails(
    index: Index, chosen: _Chosen, root: Path | None, source: str | None
) -> tuple[dict[str, Any], list[str]]:
    """What networks stand for that only their kind can draw, and with its source alone."""
    if index.imported:
        return {}, []
    try:
        opened = source_of(index, root, source)
    except ZooError as error:
        return {}, [f"Networks are not drawn: {error}"]
    recipe = recipe_from_json(index.recipe)
    goal = objective(recipe, opened, index.plan["seed"])
    drawn = kind_of(recipe).thumbnails(goal, opened, chosen.weights, chosen.columns["index"], _SIDE)
    return ({} if drawn is None else _sheets(*drawn)), []


def _sheets(
    originals: Sequence[NDArray[Any]] | NDArray[Any] | None, rendered: NDArray[np.uint8]
) -> dict[str, Any]:
    """Pictures of networks and of their originals, all of the size of the former."""
    sheets, across = {}, ceil(np.sqrt(len(rendered) * rendered.shape[1] / rendered.shape[2]))
    for name, pictures in (("original", originals), ("render", rendered)):
        if pictures is not None:
            small = np.stack([_thumbnail(each, rendered.shape[1:3]) for each in pictures])
            sheets[name] = base64.b64encode(_sheet(small, across)).decode()
    height, width = rendered.shape[1:3]
    return {"pictures": {"height": height, "width": width, "across": across, **sheets}}


def _originals(
    index: Index, chosen: _Chosen, root: Path | None, source: str | None
) -> tuple[list[NDArray[Any]] | None, list[str]]:
    """What each network was fitted to; None, and a line that says why, where it is not at hand."""
    look = look_of(index)
    about = index.source | ({"address": index.address} if index.address else {})
    found = []
    for at in range(len(chosen.row)):
        plain = {name: values[at].item() for name, values in chosen.columns.items()}
        row = Row(chosen.weights[at], plain, index.spec, about)
        try:
            found.append(look.original(row, root, source))
        except (ZooError, ValueError, OSError, KeyError, IndexError) as error:
            return None, [f"Originals are not shown: {error}"]
    return found, []


def _waves(index: Index, chosen: _Chosen, points: int) -> Iterator[NDArray[np.float32]]:
    x = torch.from_numpy(nets.line(index.spec, points))
    with torch.no_grad():
        for start in range(0, len(chosen.row), _BLOCK):
            yield nets.forward(index.spec, chosen.weights[start : start + _BLOCK], x).numpy()


def _pictures(index: Index, chosen: _Chosen) -> Iterator[NDArray[np.uint8]]:
    shape = index.source.get("shape") or (32, 32)
    rows, columns = int(shape[0]), int(shape[1])
    for start in range(0, len(chosen.row), _BLOCK):
        weights = chosen.weights[start : start + _BLOCK]
        pictures = nets.pictures(index.spec, weights, rows, columns)
        side = max(rows, columns) / _SIDE
        if side > 1:
            size = (max(1, round(rows / side)), max(1, round(columns / side)))
            pictures = np.stack([_thumbnail(each, size) for each in pictures])
        yield pictures


def _thumbnail(picture: NDArray[Any], size: Sequence[int]) -> NDArray[np.uint8]:
    """A picture `row column chan` of uint8 in another size, one or three channels."""
    if tuple(picture.shape[:2]) != tuple(size):
        small = cv2.resize(picture, (size[1], size[0]), interpolation=cv2.INTER_AREA)
        picture = small.reshape(*size, picture.shape[2])
    return picture if picture.shape[2] in (1, 3) else picture[:, :, :1]


def _sheet(pictures: NDArray[np.uint8], across: int) -> bytes:
    """A PNG of all pictures, so many in a line."""
    net, rows, columns, chan = pictures.shape
    down = ceil(net / across)
    whole = np.zeros((down * across, rows, columns, chan), np.uint8)
    whole[:net] = pictures
    sheet = whole.reshape(down, across, rows, columns, chan).swapaxes(1, 2)
    return png.encode(sheet.reshape(1, down * rows, across * columns, chan))[0]


def _packed_waves(
    outputs: NDArray[np.float32], targets: NDArray[np.floating[Any]] | None
) -> dict[str, Any]:
    """Waves `net point` in 256 steps of their common range."""
    drawn = {"render": outputs} | ({} if targets is None else {"original": targets})
    ends = np.concatenate([values[np.isfinite(values)] for values in drawn.values()])
    low, high = (float(ends.min()), float(ends.max())) if ends.size else (0.0, 1.0)
    packed = {}
    for name, values in drawn.items():
        share = np.nan_to_num((values - low) / ((high - low) or 1.0))
        packed[name] = _packed(np.rint(255 * share.clip(0, 1)).astype(np.uint8))
    return {"points": outputs.shape[1], "low": low, "high": high, **packed}


def _packed(values: NDArray[np.uint8]) -> str:
    return base64.b64encode(zlib.compress(values.tobytes(), 9)).decode()


# ---- weights


def _tensors(found: Found, chosen: _Chosen) -> tuple[list[dict[str, Any]], str]:
    """What is said of each tensor, and the shades of all, `square net`, packed."""
    tensors = {name: tensor.numpy() for name, tensor in chosen.weights.tensors().items()}
    spec, count = found.index.spec, len(chosen.row)
    shapes = {name: (shape[0], prod(shape[1:])) for name, shape in spec.tensors.items()}
    side = next(
        (side for side in range(_SQUARES, 4, -1) if _squares(shapes, side) * count <= _ALL_SQUARES),
        4,
    )
    stats = _moments(found, tensors)
    described, shades, start = [], [], 0
    for name, (rows, columns) in shapes.items():
        block = (ceil(rows / side), ceil(columns / side))
        pooled = _pooled(tensors[name].reshape(count, rows, columns), block)
        bound = float(np.quantile(np.abs(pooled), 0.995)) or float(np.abs(pooled).max()) or 1.0
        steps = np.rint(np.nan_to_num(pooled / bound) * _SHADES).clip(-_SHADES, _SHADES)
        shades.append((steps + _SHADES).astype(np.uint8).reshape(count, -1))
        mean, std = stats[name]
        ends = (mean - 4 * (std or 1), mean + 4 * (std or 1))
        described.append(
            {
                "name": name,
                "shape": " x ".join(map(str, spec.tensors[name])),
                "rows": pooled.shape[1],
                "columns": pooled.shape[2],
                "pooled": f"{block[0]} x {block[1]}" if block != (1, 1) else "",
                "start": start,
                "bound": bound,
                "mean": mean,
                "std": std,
                "counts": np.histogram(tensors[name], _BARS, ends)[0].tolist(),
            }
        )
        start += pooled.shape[1] * pooled.shape[2]
    return described, _packed(np.concatenate(shades, axis=1).T)


def _squares(shapes: Mapping[str, tuple[int, int]], side: int) -> int:
    return sum(prod(ceil(size / ceil(size / side)) for size in shape) for shape in shapes.values())


def _pooled(values: NDArray[np.float32], block: tuple[int, int]) -> NDArray[np.float32]:
    """`net row column`: of each block the value that is furthest from zero."""
    if block == (1, 1):
        return values
    net, rows, columns = values.shape
    down, across = ceil(rows / block[0]), ceil(columns / block[1])
    whole = np.zeros((net, down * block[0], across * block[1]), values.dtype)
    whole[:, :rows, :columns] = values
    parts = whole.reshape(net, down, block[0], across, block[1]).swapaxes(2, 3)
    parts = parts.reshape(net, down, across, -1)
    furthest = np.abs(parts).argmax(axis=-1)[..., None]
    return np.take_along_axis(parts, furthest, axis=-1)[..., 0]


def _moments(
    found: Found, tensors: Mapping[str, NDArray[np.float32]]
) -> dict[str, tuple[float, float]]:
    """Mean and deviation of each tensor: of the zoo's statistics, or else of these networks."""
    index = found.index
    if index.stats is None:
        return {name: (float(each.mean()), float(each.std())) for name, each in tensors.items()}
    stats = read_stats(found.bring(index.extras), index)
    return {
        name: (stats[f"tensor.mean.{name}"].item(), stats[f"tensor.std.{name}"].item())
        for name in tensors
    }
