"""Renders the data card of a zoo.

The card is a `README.md` that the Hub shows: a YAML header that `load_dataset` obeys,
then what a row is, how the networks were made and how to read them. All of it is taken
from the index, so a card never says what its zoo does not; the example that renders a
network from bare tensors is generated from the zoo's own conventions. The safetensors
are never named in the header: `datasets` cannot read them, its view is the Parquet.
"""

import json
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import ceil, isclose, pi, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from zoo.fidelity import Statistics, beside_the_published, of_weights
from zoo.fields import about
from zoo.figures import Samples, quality_histogram, sample_grid, wave_grid
from zoo.kinds import look_of, split_rule
from zoo.reached import SEEN, Reached, draw, told
from zoo.recipes import MEANINGS, MEASURES, REMARKS, fitted_by, recipe_class, told_recipes
from zoo.shards import INDEX_FILE, SPLITS, STATS_FILE, Index, replacing
from zoo.sources import SPLIT_RULES, split_items
from zoo.spec import ACTIVATIONS, Layer, NetworkSpec

if TYPE_CHECKING:
    from huggingface_hub import DatasetCardData

CARD_FILE = "README.md"
FIGURE_FOLDER = "figures"

SAMPLES_FILE = f"{FIGURE_FOLDER}/samples.png"
RESULTS_FILE = f"{FIGURE_FOLDER}/results-{{}}.png"
# Networks beside their originals: more would fill the first screen.
_SHOWN = 8

# Licences under which what is made of a work may be published under MIT.
_FREE = ("mit", "cc0-1.0", "unlicense", "pddl", "0bsd")

_WSZOO = """\
@software{wszoo,
  title = {wszoo: datasets of neural networks},
  year = {2026}
}"""

_NAVON = """\
@inproceedings{navon2023equivariant,
  title = {Equivariant Architectures for Learning in Deep Weight Spaces},
  author = {Navon, Aviv and Shamsian, Aviv and Achituve, Idan and Fetaya, Ethan and
            Chechik, Gal and Maron, Haggai},
  booktitle = {International Conference on Machine Learning},
  year = {2023}
}"""

_ZHOU = """\
@inproceedings{zhou2023permutation,
  title = {Permutation Equivariant Neural Functionals},
  author = {Zhou, Allan and Yang, Kaien and Burns, Kaylee and Cardace, Adriano and
            Jiang, Yiding and Sokota, Samuel and Kolter, J. Zico and Finn, Chelsea},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2023}
}"""

_SITZMANN = """\
@inproceedings{sitzmann2020implicit,
  title = {Implicit Neural Representations with Periodic Activation Functions},
  author = {Sitzmann, Vincent and Martel, Julien N. P. and Bergman, Alexander W. and
            Lindell, David B. and Wetzstein, Gordon},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2020}
}"""

_UNTERTHINER = """\
@article{unterthiner2020predicting,
  title = {Predicting Neural Network Accuracy from Weights},
  author = {Unterthiner, Thomas and Keysers, Daniel and Gelly, Sylvain and
            Bousquet, Olivier and Tolstikhin, Ilya},
  journal = {arXiv:2002.11448},
  year = {2020}
}"""

_TANCIK = """\
@inproceedings{tancik2020fourier,
  title = {Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional
           Domains},
  author = {Tancik, Matthew and Srinivasan, Pratul P. and Mildenhall, Ben and
            Fridovich-Keil, Sara and Raghavan, Nithin and Singhal, Utkarsh and
            Ramamoorthi, Ravi and Barron, Jonathan T. and Ng, Ren},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2020}
}"""

_ARXIV = {
    _NAVON: "2301.12780",
    _ZHOU: "2302.14040",
    _SITZMANN: "2006.09661",
    _TANCIK: "2006.10739",
    _UNTERTHINER: "2002.11448",
}

# The paper behind a recipe, by the recipe's name.
_PAPERS = {
    "dws": _NAVON,
    "dws-paper": _NAVON,
    "sine-ssl": _NAVON,
    "sine-regression": _NAVON,
    "nfn": _ZHOU,
    "binary": _NAVON,
    "fashion": _NAVON,
    "nfn-mlp3": _ZHOU,
    "nfn-mlp5": _ZHOU,
    "small-cnn": _UNTERTHINER,
}


def write_card(
    folder: Path,
    index: Index,
    quality: Mapping[str, Mapping[str, NDArray[Any]]],
    samples: Samples | None,
    reached: Sequence[Reached] = (),
    statistics: Statistics | None = None,
) -> None:
    """Write `figures/*.png`, then `README.md`, each whole or not at all.

    Args:
        quality: per split and column the values of all rows: of quality, and of what the
            kind draws. The first of `recipes.MEASURES` that is there is drawn, and the
            figure of the kind.
        samples: drawn as pictures, or as waves if they have `x`; None draws none.
        reached: what models reach on the zoo, task by task.
        statistics: of the training networks, which the card compares with published ones.
    """
    figures = {}
    for measure in MEASURES:
        column = measure.column
        values = {split: named[column] for split, named in quality.items() if column in named}
        if any(len(value) for value in values.values()):
            file = f"{FIGURE_FOLDER}/{column}.png"
            quality_histogram(folder / file, values, measure.label, log=measure.log)
            what = measure.label.partition(" [")[0]
            figures[file] = f"{what[0].upper()}{what[1:]} of the networks of each split"
            break
    look = look_of(index)
    drawn = {split: named for split, named in quality.items() if named}
    if look.drawn and drawn and all(set(look.drawn) <= named.keys() for named in drawn.values()):
        file = f"{FIGURE_FOLDER}/{look.figure_name}.png"
        look.figure(folder / file, drawn, index.columns, histogram=False)
        figures[file] = look.caption
    if samples is not None and len(samples.captions):
        file = SAMPLES_FILE
        samples = samples.first(_SHOWN)
        if samples.x is None:
            sample_grid(folder / file, samples.originals, samples.reconstructions, samples.captions)
            figures[file] = "Pairs of an original (left) and its network (right)"
        else:
            wave_grid(
                folder / file,
                samples.x,
                samples.originals,
                samples.reconstructions,
                samples.captions,
            )
            figures[file] = "Waves (grey, thick) and their networks (blue, thin)"
    for number, each in enumerate(reached, 1):
        if len(each.models) < 2:
            continue  # a dot says no more than its row
        file = RESULTS_FILE.format(number)
        draw(folder / file, each)
        what = f"{each.unit[0].upper()}{each.unit[1:]}, on the test split"
        figures[file] = f"{what}, of models trained by wszoo train {each.task}"
    with replacing(folder / CARD_FILE) as temporary:
        text = render_card(index, figures, reached, statistics)
        temporary.write_text(text, encoding="utf-8", newline="\n")
    for old in (folder / FIGURE_FOLDER).glob("results-*.png"):
        if f"{FIGURE_FOLDER}/{old.name}" not in figures:
            old.unlink()


def render_card(
    index: Index,
    figures: Mapping[str, str],
    reached: Sequence[Reached] = (),
    statistics: Statistics | None = None,
) -> str:
    """The whole README.md of a zoo.

    Args:
        figures: captions of the figures, by their path inside the folder.
        reached: what models reach on the zoo, task by task.
        statistics: of the training networks, which are compared with published ones.
    """
    shown = SAMPLES_FILE, f"{FIGURE_FOLDER}/{look_of(index).figure_name}.png"
    first = dict([(file, figures[file]) for file in shown if file in figures][:1])
    drawn = [RESULTS_FILE.format(number) for number in range(1, len(reached) + 1)]
    others = {file: cap for file, cap in figures.items() if file not in (*first, *drawn)}
    sections = [
        f"# {_plain(index.name)}",
        _introduction(index),
        _pictures(first),
        _section("In ten lines", _first_lines(index)),
        _section("What models reach", _reached(reached, figures)),
        _section("Beside the published zoo", _beside(index, statistics)),
        _section("Load it", _loading(index)),
        _section("What a row is", _row(index)),
        _section("Conventions", _conventions(index) + _inputs(index)),
        _section("Splits", _splits(index)),
        _section("What was read", _reading(index)),
        _section("Quality", _quality(index, others)),
        _section("What it is for", _uses(index)),
        _section("How it was made", _making(index)),
        _section("Normalisation statistics", _statistics(index)),
        _section("Licence", _licence_words(index)),
        _section("Citation", _citation(index)),
    ]
    body = "\n\n".join(section for section in sections if section)
    return f"---\n{_header(index).to_yaml()}\n---\n\n{body}\n"


# ---- the header


def _header(index: Index) -> "DatasetCardData":
    """The metadata of the card, as the Hub and `datasets` spell it."""
    from huggingface_hub import DatasetCardData

    licence, more = _licence(index)
    header = DatasetCardData(
        license=licence,
        pretty_name=f"{_title(index)} as networks ({index.recipe.get('name', index.name)})",
        size_categories=_size_category(index.rows),
        task_categories=["other"],
        tags=_tags(index),
        **more,
    )
    if index.shards and all(shard.parquet for shard in index.shards):
        from datasets import DatasetInfo, SplitDict, SplitInfo
        from datasets.info import DatasetInfosDict
        from datasets.utils.metadata import MetadataConfigs

        from zoo import table

        sizes = {split: _split_bytes(index, split) for split in index.splits}
        # `load_dataset` holds the number of examples against what it reads.
        splits = SplitDict(
            {
                split: SplitInfo(split, num_bytes=sizes[split], num_examples=rows)
                for split, rows in index.splits.items()
            }
        )
        info = DatasetInfo(
            features=table.view_features(index),
            splits=splits,
            download_size=sum(shard.parquet.bytes for shard in index.shards if shard.parquet),
            dataset_size=sum(sizes.values()),
        )
        files = [{"split": split, "path": f"data/{split}-*.parquet"} for split in index.splits]
        MetadataConfigs({"default": {"data_files": files}}).to_dataset_card_data(header)
        DatasetInfosDict({"default": info}).to_dataset_card_data(header)
    return header


def _split_bytes(index: Index, split: str) -> int:
    """Bytes of the rows of a split as `datasets` holds them.

    How large pictures are only the files know, which hold all values as they are.
    """
    tensors = index.splits[split] * _row_bytes(index)
    if not index.pictures:
        return tensors
    views = [each.parquet.bytes for each in index.shards if each.split == split and each.parquet]
    return max(tensors, sum(views))


def _row_bytes(index: Index) -> int:
    """Bytes of one row as `datasets` holds it: values, and the int32 offsets of its lists."""
    total = 0
    for name, column in index.columns.items():
        shape = index.spec.tensors.get(name, ())
        total += prod(shape) * np.dtype(column.dtype).itemsize
        if len(shape) > 1:  # a list of lists; a single axis has a fixed length, no offsets
            total += 4 * sum(prod(shape[:axis]) for axis in range(len(shape)))
    return total


def may_be_passed_on(index: Index) -> bool:
    """Whether the licence of a source allows to publish its items beside the networks."""
    return _licence(index)[0] != "other"


def _licence(index: Index) -> tuple[str, dict[str, Any]]:
    """The zoo's licence as the Hub names it, and further fields if it is "other".

    A zoo is derived from its source: where that is free, ours is MIT, where it asks for
    something (a name, the same licence) that licence holds for the zoo too, and where
    none is stated we cannot grant one.
    """
    licence = index.source.get("license") or "unknown"
    if licence in _FREE:
        return "mit", {}
    if licence not in ("unknown", "other"):
        return licence, {}
    more: dict[str, Any] = {"license_name": "terms-of-the-source"}
    if index.source.get("url"):
        more["license_link"] = index.source["url"]
    return "other", more


def _size_category(rows: int) -> str:
    """The Hub's name for a number of rows.

    >>> _size_category(70_000)
    '10K<n<100K'
    """
    bounds = ("1K", "10K", "100K", "1M", "10M", "100M", "1B")
    power = len(str(rows // 1_000)) if rows >= 1_000 else 0
    if power >= len(bounds):
        raise ValueError(f"expected fewer than 1e9 rows, got {rows}")
    return f"{bounds[power - 1]}<n<{bounds[power]}" if power else "n<1K"


def _tags(index: Index) -> list[str]:
    tags = ["weight-space-learning", "model-zoo", "neural-network-weights"]
    if index.spec.axes:
        tags.append("implicit-neural-representation")
    if any(layer.activation == "sin" for layer in index.spec.layers):
        tags.append("siren")
    if index.spec.frequencies:
        tags.append("fourier-features")
    tags += ["safetensors", "wszoo"]
    source = str(index.source.get("name", "")).partition(":")[0]
    tags += [source] if source else []
    # The Hub lists a data set with the papers that its tags name.
    papers = [entry for entry in _cited(index) if entry in _ARXIV]
    return tags + [f"arxiv:{_ARXIV[entry]}" for entry in papers]


# ---- the body


def _introduction(index: Index) -> str:
    spec = index.spec
    sizes = f"{'-'.join(map(str, spec.widths))} {spec.encoding_words}".rstrip()
    kind = "convolutional networks" if spec.layers[0].kind == "conv" else "multilayer perceptrons"
    if any(layer.activation == "sin" for layer in spec.layers):
        kind = "sine networks (SIREN)"
    look = look_of(index)
    done = look.done or ("imported from" if index.imported else "fitted to")
    url = index.source.get("url")
    source = f"[{_plain(_title(index))}]({url})" if url else _plain(_title(index))
    return (
        f"{index.rows:,} {kind} {sizes} with {spec.param_count:,} parameters each, {done} "
        f"{source}. {look.what}".strip()
        + " The networks themselves are the data: use them to learn from weights."
        + _part(index)
    )


def _part(index: Index) -> str:
    """That the zoo is smaller than its recipe makes it, if it is."""
    limit = index.plan.get("limit")
    if not limit:
        return ""
    return f" It is smaller than it could be: limited to {limit:,} {look_of(index).unit}."


def _first_lines(index: Index) -> str:
    """The shortest way from the zoo to a number: a linear model of the bare weights."""
    splits = list(index.splits)
    aims = (n for n, c in _targets(index).items() if c.kind in ("class", "real"))
    target, task = look_of(index).read or (next(aims, None), "")
    if not index.shards or "train" not in splits or len(splits) < 2 or target is None:
        return ""
    of_classes = index.columns[target].kind == "class"
    task = task or ("classify" if of_classes else "regress")
    model, score = ("RidgeClassifier", "accuracy") if of_classes else ("Ridge", "R^2")
    lines = [
        "import zoo",
        f"from sklearn.linear_model import {model}",
        "",
        "",
        "def read(split):",
        f"    rows = zoo.open_zoo({_quoted(index.name)}, split=split)[:5000]",
        "    weights, columns = rows.batch(range(len(rows)))",
        f'    return weights.flatten().numpy(), columns["{target}"].numpy()',
        "",
        "",
        f'model = {model}().fit(*read("train"))',
        f'print("{score}", model.score(*read("{splits[-1]}")))',
    ]
    told = target.replace("_", " ")
    names = index.columns[target].names
    chance = f"; chance is {_number(1 / len(names), 3)}" if of_classes and names else ""
    return "\n\n".join(
        [
            "`pip install .` in the source tree of wszoo gives `zoo` and `processors`. This reads "
            f"the {told} off the bare weights, linearly, which knows nothing of the order of "
            f"hidden neurons{chance}:",
            _fence("python", "\n".join(lines)),
            f"`wszoo train {task} {shlex.quote(index.name)} --model graded` "
            "trains a model that does know it; `wszoo models` lists others.",
        ]
    )


def _reached(reached: Sequence[Reached], figures: Mapping[str, str]) -> str:
    """A table and a figure for each task."""
    parts = []
    for number, each in enumerate(reached, 1):
        better = "higher" if each.higher else "lower"
        cells = [
            [_plain(line.model), _plain(line.reads), line.number, line.scale]
            for line in (*each.models, *each.ceilings)
        ]
        if each.chance is not None:
            name, value = each.chance
            words = f"without reading networks: {_plain(name)}"
            cells.append([words, "nothing", told(value), ""])
        parts += [
            f"`wszoo train {each.task}`: {each.unit}, on the test split; {better} is better.",
            _table(["model", "reads", each.unit, "trained on"], cells),
        ]
        file = RESULTS_FILE.format(number)
        if file in figures:
            parts.append(_pictures({file: figures[file]}))
    read = {line.reads for each in reached for line in each.models}
    if len(read) > 1:
        meant = [f"`{name}` means {what}" for name, (_, _, what) in SEEN.items() if name in read]
        parts.append(f"Of what a model reads of a network, {'; '.join(meant)}.")
    return "\n\n".join(parts)


def _beside(index: Index, statistics: Statistics | None) -> str:
    """The zoo that the recipe reproduces, number by number."""
    found = beside_the_published(index, statistics)
    if found is None:
        return ""
    original, rows = found
    parts = [
        f"The recipe follows the {original.title}.",
        _table(["", "published", "here", "published where"], rows),
    ]
    if any(of_weights(row) for row in rows):
        few = " Those of few networks scatter." if index.plan.get("limit") else ""
        parts.append(
            "Deviations and means are of each entry over the training networks, and then the mean "
            f"over the entries of the tensor.{few}"
        )
    return "\n\n".join([*parts, *filter(None, [original.remark])])


def _uses(index: Index) -> str:
    """What the networks are good for, and what they must not be taken for."""
    parts = [
        "To learn from weights: to classify, compare, edit or generate networks, and to test "
        "models that treat equal functions alike."
    ]
    if index.spec.axes:
        parts.append(
            "Not to measure how well networks compress their source, or how good a fit can be: all "
            "have one architecture and one recipe."
        )
    else:
        parts.append(
            "Not to solve the task that the networks were trained for: most are small, and many "
            "are poor on purpose."
        )
    parts.append(
        "Networks of one source item share it: keep the splits, or a model is tested on what it "
        "has seen."
    )
    return "\n\n".join(parts)


def _loading(index: Index) -> str:
    if not index.shards:
        return ""
    split = next(iter(index.splits))
    folder = shlex.quote(index.name)
    fetch = f"hf download USER/{folder} --repo-type dataset --local-dir {folder}"
    parts = ["Run these where the zoo's folder lies. This fetches it:", _fence("bash", fetch)]
    if all(shard.parquet for shard in index.shards):
        how = "With `datasets`, which also takes the repository's name instead of the folder"
        how += "; for the pictures it needs Pillow (`pip install datasets pillow`):"
        how = how if index.pictures else f"{how.partition(';')[0]}:"
        parts += [how, _fence("python", _datasets_example(index, split))]
    parts += [
        "With `zoo`, the package that made it:",
        _fence("python", _zoo_example(index, split)),
        "With plain safetensors, all conventions written out:",
        _fence("python", _tensor_example(index)),
    ]
    return "\n\n".join(parts)


def _datasets_example(index: Index, split: str) -> str:
    last = f"weight_{len(index.spec.layers) - 1}"
    lines = [
        "from datasets import load_dataset",
        "",
        f'rows = load_dataset({_quoted(index.name)}, split="{split}")',
    ]
    if index.pictures:
        lines += [
            'picture = rows[0]["image"]  # what the network renders, a Pillow image',
            "# Without pictures, which would be decoded again at every reading:",
            f"rows = rows.remove_columns({json.dumps(list(index.pictures))})",
        ]
    lines += [
        'net = rows.with_format("torch")[0]',
        f'print(len(rows), net["weight_0"].shape, net["{last}"].shape)',
    ]
    for name, column in _targets(index).items():
        if column.kind == "class" and column.names:
            names = f'rows.features["{name}"].int2str(int(net["{name}"]))'
            lines.append(f'print("{name}", {names})')
        else:
            lines.append(f'print("{name}", float(net["{name}"]))')
    return "\n".join(lines)


def _zoo_example(index: Index, split: str) -> str:
    lines = ["import zoo", "", f'rows = zoo.open_zoo({_quoted(index.name)}, split="{split}")']
    if len(index.spec.axes) == 2:
        lines.append("image = rows[0].render()  # row, column, channel; black 0, white 1")
    elif reading := look_of(index).reading(index.spec):
        lines.append(reading.render)
    elif index.spec.axes:
        lines.append("wave = rows[0].render()  # point, 1")
    else:
        lines.append("network = rows[0].to_module()  # a torch.nn.Module, conventions included")
    lines += [
        "weights, columns = rows.batch([0])  # zoo.Weights and a dict of columns",
        "print(weights.weights[0].shape, sorted(columns))",
    ]
    return "\n".join(lines)


def _tensor_example(index: Index) -> str:
    """Code that evaluates the first network of the zoo with torch alone."""
    spec, reading = index.spec, look_of(index).reading(index.spec)
    shape = [int(side) for side in index.source.get("shape") or (32, 32)]
    first, last = (float(end) for end in spec.coord_range)
    lines = [
        *(["import json", ""] if spec.frequencies else []),
        "import torch",
        "from safetensors.torch import load_file",
        "",
        f"shard = load_file({_quoted(f'{index.name}/{index.shards[0].file}')})",
        "net = {name: tensor[0] for name, tensor in shard.items()}  # the first row",
    ]
    if len(spec.axes) == 2:
        lines += [
            f"row = torch.linspace({first}, {last}, {shape[0]})",
            f"column = torch.linspace({first}, {last}, {shape[1]})",
            'row, column = torch.meshgrid(row, column, indexing="ij")',
            f"h = torch.stack([{', '.join(spec.axes)}], dim=-1)  "
            f"# the first input is the {spec.axes[0]}",
        ]
    elif reading:
        lines += reading.begin
    elif spec.axes:
        points = int(index.source.get("points") or index.recipe.get("points") or 1_000)
        lines.append(f"h = torch.linspace({first}, {last}, {points})[:, None]")
    elif spec.layers[0].kind == "conv":
        lines.append(f"h = torch.zeros(1, {spec.inp}, {shape[0]}, {shape[1]})  # your images")
    else:
        lines.append(f"h = torch.zeros(1, {spec.inputs})  # your inputs")
    if spec.frequencies:
        lines += _encoding_code(index)
    lines += _layers_code(spec)
    offset = f" + {spec.output_offset}" if spec.output_offset else ""
    if len(spec.axes) == 2:
        black, white = (float(end) for end in spec.pixel_range)
        scaled = "out" if (black, white) == (0, 1) else f"((out - {black}) / {white - black})"
        lines.append(f"out = h{offset}")
        lines.append(f"image = {scaled}.clip(0, 1)  # row, column, channel; black 0, white 1")
    elif reading:
        lines += reading.end
    else:
        lines.append(f"out = h{offset}")
    return "\n".join(lines)


def _encoding_code(index: Index) -> list[str]:
    """Of coordinates `h` what the first layer reads, by the index."""
    return [
        f"with open({_quoted(f'{index.name}/{INDEX_FILE}')}) as file:",
        '    frequencies = json.load(file)["spec"]["conventions"]["frequencies"]',
        "turns = h @ torch.tensor(frequencies).T",
        "h = torch.cat([(2 * torch.pi * turns).sin(), (2 * torch.pi * turns).cos()], dim=-1)",
    ]


def _layers_code(spec: NetworkSpec) -> list[str]:
    """One line a layer; a loop over hidden layers that are alike."""
    *hidden, last = spec.layers
    alike = {(layer.kind, layer.activation, layer.omega) for layer in hidden}
    if len(hidden) > 1 and len(alike) == 1 and hidden[0].kind == "linear":
        lines = [f"for layer in range({len(hidden)}):"]
        lines.append(
            "    h = " + _layer_code(hidden[0], '[f"weight_{layer}"]', '[f"bias_{layer}"]')
        )
        rest: Iterable[tuple[int, Layer]] = [(len(hidden), last)]
    else:
        lines, rest = [], enumerate(spec.layers)
    for number, layer in rest:
        if number and layer.kind == "linear" and spec.layers[number - 1].kind == "conv":
            lines.append("h = h.mean(dim=(-2, -1))")
        lines.append("h = " + _layer_code(layer, f'["weight_{number}"]', f'["bias_{number}"]'))
    return lines


# The others are in torch.nn.functional alone.
_OF_TORCH = ("relu", "tanh", "sigmoid")


def _layer_code(layer: Layer, weight: str, bias: str) -> str:
    if layer.kind == "conv":
        more = f", stride={layer.stride}, padding={layer.padding}"
        affine = f"torch.conv2d(h, net{weight}, net{bias}{more})"
    else:
        affine = f"h @ net{weight}.T + net{bias}"
    if layer.activation == "sin":
        return f"torch.sin({float(layer.omega)} * ({affine}))"
    where = "torch" if layer.activation in _OF_TORCH else "torch.nn.functional"
    return affine if layer.activation == "identity" else f"{where}.{layer.activation}({affine})"


def _row(index: Index) -> str:
    rows, look = [], look_of(index)
    meanings = {**MEANINGS, **look.meanings}
    for name, column in index.columns.items():
        shape = list(index.spec.tensors.get(name, ()))
        kind = column.storage or ("float32" if column.dtype is np.float32 else "int64")
        meaning = meanings.get(name, "")
        if column.role == "weight":
            meaning = f"weights of layer {name.rpartition('_')[2]}, {_axes(len(shape))}"
        elif column.role == "bias":
            meaning = f"biases of layer {name.rpartition('_')[2]}, [out]"
        elif column.kind == "class" and column.names:
            meaning = f"{meaning or 'class'}: {_names(column.names)}"
        kind += f" {shape}" if shape else ""
        rows.append([f"`{name}`", column.role, kind, column.unit or "", meaning])
    table = _table(["column", "role", "type", "unit", "meaning"], rows)
    reduced = next((c.storage for c in index.columns.values() if c.storage), None)
    text = (
        "One row is one network. Its tensors stand in `weights/*.safetensors` with the row as "
        "first axis, in PyTorch's order of axes. `zoo.json` describes every file and column."
    )
    if any(shard.parquet for shard in index.shards):
        text += " `data/*.parquet` holds the same rows in the same order."
        if index.pictures:
            begins = "`image`, what the network renders in 8 bits"
            begins += ", and `original`, what it was fitted to" if index.pictures[1:] else ""
            text += f" There a row begins with pictures: {begins}."
        text += " There the values are float32." if reduced else ""
    text += f" {look.rows_words}" if look.rows_words else ""
    if reduced:
        bits, error = {"float16": (11, "4.9e-4"), "bfloat16": (8, "3.9e-3")}[reduced]
        measured = index.quality.values()
        found = [part[look.rounding] for part in measured if look.rounding in part]
        text += (
            f"\n\nThe weights are kept as {reduced}: rounded to {bits} significant bits, a "
            f"relative error of at most {error} in every normal number"
        )
        if found:
            text += (
                f" (measured over whole networks: {_number(found[0]['mean'], 2)} in the mean, "
                f"{_number(max(part['max'] for part in found), 2)} at most)"
            )
        text += ". Loss and accuracy were measured after the rounding."
    return f"{text}\n\n{table}"


def _axes(count: int) -> str:
    return "[out, inp, kernel row, kernel column]" if count == 4 else "[out, inp]"


def _conventions(index: Index) -> str:
    spec = index.spec
    *hidden, last = spec.layers
    first, end = (_number(value) for value in spec.coord_range)
    points = []
    omegas = list(dict.fromkeys(layer.omega for layer in hidden if layer.activation == "sin"))
    if omegas:
        layers = "Every hidden layer" if len(omegas) == 1 else "A hidden layer"
        values = ", ".join(_number(omega) for omega in omegas)
        by_layer = "" if len(omegas) == 1 else " (layer by layer)"
        points.append(
            f"{layers} is sin(omega (W h + b)) with omega = {values}{by_layer}. Omega scales the "
            "bias too."
        )
    for name in ACTIVATIONS[2:]:
        if any(layer.activation == name for layer in hidden):
            points.append(f"The activation of hidden layers is {name}.")
    if spec.frequencies:
        points.append(
            f"The first layer reads {spec.inp} Fourier features of the input: the sines of 2 pi "
            f"B x, then the cosines. B is {len(spec.frequencies)} x {spec.inputs}, the same for "
            "all networks: `frequencies` among the conventions in `zoo.json`, in float32."
        )
    if any(layer.kind == "conv" for layer in spec.layers):
        points.append("The last layer reads the mean over positions (global average pooling).")
    points.append(
        "The last layer is linear."
        if last.activation == "identity"
        else f"The last layer ends in {last.activation}."
    )
    points.append(
        f"{_number(spec.output_offset)} is added to its output. This offset is not part of the "
        "stored biases."
        if spec.output_offset
        else "Nothing is added to its output."
    )
    if len(spec.axes) == 2:
        one, two = spec.axes
        black, white = (_number(value) for value in spec.pixel_range)
        points.append(
            f"The first input is the {one}, the second is the {two}. Rows count downwards, "
            "columns to the right."
        )
        points.append(
            f"Both run from {first} to {end}, ends included: the first pixel lies at {first}, "
            f"the last at {end}."
        )
        points.append(f"An output of {black} is black, {white} is white.")
        if spec.out == 3:
            points.append("The three outputs are red, green, blue.")
    elif reading := look_of(index).reading(spec):
        points += reading.sentences
    elif spec.axes:
        points.append(f"The one input is x. It runs from {first} to {end}, ends included.")
    return (
        "\n".join(f"- {point}" for point in points)
        + f"\n\nAs a formula:\n\n{_fence('', _formula(spec))}\n\n"
        + "Another order of the hidden neurons gives the same function, so weights of two "
        "networks cannot be compared entry by entry."
    )


def _inputs(index: Index) -> str:
    """How pictures enter a classifier."""
    words = look_of(index).inputs(index.spec)
    return f"\n\n{words}" if words else ""


def _formula(spec: NetworkSpec) -> str:
    """The network in a few lines.

    >>> print(_formula(NetworkSpec.mlp([2, 8, 1], output_offset=0.5)))
    h_0 = input
    h_1 = sin(30 (W_0 h_0 + b_0))
    output = W_1 h_1 + b_1 + 0.5
    >>> print(_formula(NetworkSpec.mlp([1, 8, 1], "relu", frequencies=[[0.5], [2.0]])))
    p = 2 pi B input
    h_0 = [sin(p), cos(p)]
    h_1 = relu(W_0 h_0 + b_0)
    output = W_1 h_1 + b_1
    """
    lines = ["h_0 = input"]
    if spec.frequencies:
        lines = ["p = 2 pi B input", "h_0 = [sin(p), cos(p)]"]
    for number, layer in enumerate(spec.layers):
        pooled = number and layer.kind == "linear" and spec.layers[number - 1].kind == "conv"
        product = "*" if layer.kind == "conv" else " "
        before = f"mean(h_{number})" if pooled else f"h_{number}"
        value = f"W_{number}{product}{before} + b_{number}"
        if layer.activation == "sin":
            value = f"sin({_number(layer.omega)} ({value}))"
        elif layer.activation != "identity":
            value = f"{layer.activation}({value})"
        if number == len(spec.layers) - 1:
            sign = "-" if spec.output_offset < 0 else "+"
            offset = f" {sign} {_number(abs(spec.output_offset))}" if spec.output_offset else ""
            lines.append(f"output = {value}{offset}")
        else:
            lines.append(f"h_{number + 1} = {value}")
    return "\n".join(lines)


def _splits(index: Index) -> str:
    items = _split_ranges(index)
    views = int(index.recipe.get("views") or 1)
    rows = []
    for split, count in index.splits.items():
        span = items.get(split, range(0))
        where = f"{span[0]:,} to {span[-1]:,}" if span else ""
        files = sum(shard.split == split for shard in index.shards)
        rows.append([split, f"{count:,}", where, str(files)])
    text = _table(["split", "rows", "source items", "shards"], rows)
    if items:
        text += (
            f"\n\nThe source was cut by rule `{split_rule(index)}` of `zoo.sources.split_items`; "
            "both ends of the items are included."
        )
    if index.source.get("validation_items"):
        text += "\n\nThe validation items are the source's own."
    if index.plan.get("limit"):
        text += (
            f"\n\nThe zoo was limited to {index.plan['limit']:,} {look_of(index).unit}, the first "
            "of each split."
        )
    if views > 1:
        text += f"\n\nTraining items have up to {views} views, all others one."
    return text


def _split_ranges(index: Index) -> dict[str, range]:
    """Items of the source that each split was cut from; empty if the index does not say."""
    total, rule = index.source.get("items"), split_rule(index)
    if not total or rule not in SPLIT_RULES:
        return {}
    left_out = Counter(row.split for row in index.excluded)
    own = int(index.source.get("validation_items") or 0)
    ranges = split_items(index.source.get("train_items") or total, total, rule, own)
    for split, rows in index.splits.items():
        # A limit takes the lowest items, all views of one before the next.
        copies = int(index.recipe.get("views") or 1) if split == "train" else 1
        ranges[split] = ranges[split][: ceil((rows + left_out[split]) / copies)]
    return ranges


def _reading(index: Index) -> str:
    """What of the source was read as what, and what was passed over, where the index says it."""
    read, passed = index.source.get("read"), index.source.get("passed_over")
    parts = []
    if isinstance(read, list) and read:
        parts.append("\n".join(f"- {_plain(line)}" for line in read))
    if isinstance(passed, dict) and passed:
        counts = ", ".join(f"{_value(count)} {_plain(reason)}" for reason, count in passed.items())
        parts.append(f"Files that were passed over: {counts}.")
    return "\n\n".join(parts)


def _quality(index: Index, figures: Mapping[str, str]) -> str:
    parts = []
    same = _unvaried(index)
    rows = [
        [split, f"`{name}`", index.columns[name].unit or "" if name in index.columns else ""]
        + [_number(summary[key], 4) for key in ("mean", "std", "min", "max")]
        for split, summaries in index.quality.items()
        for name, summary in summaries.items()
        if name not in same
    ]
    if rows:
        header = ["split", "column", "unit", "mean", "std", "min", "max"]
        parts += ["Measured on the stored weights.", _table(header, rows)]
        if same:
            each = ", ".join(f"`{name}` {_number(value)}" for name, value in same.items())
            parts.append(f"The same in every network: {each}.")
        for column, words in REMARKS.items():
            if any(
                column in summaries and column not in same for summaries in index.quality.values()
            ):
                parts.append(words)
    parts.append(_excluded(index))
    parts.append(_pictures(figures))
    return "\n\n".join(filter(None, parts))


def _unvaried(index: Index) -> dict[str, float]:
    """Quality columns that have one value in all networks, where others vary."""
    names = dict.fromkeys(name for part in index.quality.values() for name in part)
    ends = {
        name: {
            part[name][end] for part in index.quality.values() if name in part
            for end in ("min", "max")
        }
        for name in names
    }  # fmt: skip
    return {name: found.pop() for name, found in ends.items() if len(found) == 1 < len(names)}


def _pictures(figures: Mapping[str, str]) -> str:
    return "\n\n".join(
        f"![{_plain(caption)}]({file})\n\n{_plain(caption)}." for file, caption in figures.items()
    )


def _excluded(index: Index) -> str:
    if not index.excluded:
        return "No network was left out."
    # A reason may quote the network's own number; the card counts kinds of reasons.
    kinds = [(re.sub(r"^PSNR \S+ dB", "PSNR", r.reason), r.split) for r in index.excluded]
    shown = [reason for reason, _ in Counter(reason for reason, _ in kinds).most_common(8)]
    counts = Counter((r if r in shown else "other reasons", split) for r, split in kinds)
    rows = [
        [_plain(reason), *(f"{counts[reason, split]:,}" for split in SPLITS)]
        for reason in dict.fromkeys([*shown, *(reason for reason, _ in counts)])
    ]
    count = len(index.excluded)
    text = "1 network was" if count == 1 else f"{count:,} networks were"
    return f"{text} left out; `zoo.json` names each item.\n\n" + _table(["reason", *SPLITS], rows)


def _making(index: Index) -> str:
    parts = []
    if index.command:
        parts += ["This command makes the zoo again:", _fence("bash", index.command)]
    cpus = ", ".join(dict.fromkeys(shard.cpu for shard in index.shards))
    plan = {
        "seed": "key of all random numbers",
        "engine": "what fitted the networks",
    }
    rows = [[name, _value(index.plan.get(name)), what] for name, what in plan.items()]
    if cpus.startswith("cuda "):
        gpus = cpus.removeprefix("cuda ")
        rows.append(["GPU", _plain(gpus), "a refit gives the same quality, not the same bytes"])
    else:
        rows.append(["CPU", _plain(cpus), "same engine and CPU give the same bytes"])
    rows += [[_plain(name), _plain(version), "version"] for name, version in index.packages.items()]
    parts += [_table(["made with", "value", "meaning"], rows)]
    kind = recipe_class(fitted_by(index.recipe))
    meanings = {"kind": "what is fitted", "name": "name of the recipe"}
    meanings |= {name: each.words for name, each in about(kind).items()} if kind else {}
    for whose, recipe in told_recipes(index.recipe).items():
        rows = [
            [f"`{name}`", _value(value), meanings.get(name, "")] for name, value in recipe.items()
        ]
        words = "The recipe:" if whose == "recipe" else "Its networks were fitted by the recipe:"
        parts += [words, _table(["field", "value", "meaning"], rows)]
    facts = {key: index.source.get(key) for key in ("name", "items", "shape", "points", "sha256")}
    source = [[key, _value(value)] for key, value in facts.items() if value is not None]
    parts += ["The source:", _table(["field", "value"], source)]
    return "\n\n".join(parts)


def _statistics(index: Index) -> str:
    if index.stats is None:
        return ""
    return (
        f"`{STATS_FILE}` holds means and standard deviations (ddof 0) of the training split, in "
        "float64:\n\n"
        "- `entry.mean.weight_0`, `entry.std.weight_0`, `entry.mean.bias_0`, ...: one value for "
        "each entry, in the tensor's shape, over all networks.\n"
        "- `tensor.mean.weight_0`, `tensor.std.weight_0`, ...: one value for each tensor, shape "
        "[1], over networks and entries. Normalising with these commutes with any order of the "
        "neurons."
    )


def _licence_words(index: Index) -> str:
    theirs = index.source.get("license") or "unknown"
    ours, _ = _licence(index)
    title = _plain(_title(index))
    source = f"Of the source, {title}: {_plain(theirs)}. Of the networks: "
    if ours == "other":
        return source + (
            f"none is granted. They are derived from {title}, for which no licence is stated. "
            "wszoo claims no rights of its own in them; ask the owners of the source before you "
            "publish what you make of it."
        )
    if ours == theirs != "mit":
        return source + (
            f"{theirs} too, since they are derived from it: name the source as cited below."
        )
    return source + "MIT."


def _paper(index: Index) -> str | None:
    """The paper whose recipe fitted the networks, as BibTeX."""
    return _PAPERS.get(str(fitted_by(index.recipe).get("name")))


def _cited(index: Index) -> list[str]:
    """What is to be cited, as BibTeX: wszoo, the paper of the recipe, SIREN."""
    entries = [_WSZOO]
    paper = _paper(index)
    if paper:
        entries.append(paper)
    if any(layer.activation == "sin" for layer in index.spec.layers):
        entries.append(_SITZMANN)
    if index.spec.frequencies:
        entries.append(_TANCIK)
    return entries


def _citation(index: Index) -> str:
    entries, paper = _cited(index), _paper(index)
    what = "Please cite wszoo" + (", the paper behind the recipe" if paper else "")
    kinds = {_SITZMANN: "SIREN", _TANCIK: "Fourier features"}
    what += "".join(f" and {kinds[entry]}" for entry in entries if entry in kinds)
    parts = [f"{what}.", _fence("bibtex", "\n\n".join(entries))]
    if index.source.get("citation"):
        parts.insert(0, f"Source: {_plain(index.source['citation'])}.")
    return "\n\n".join(parts)


# ---- pieces of Markdown


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n{text}" if text else ""


def _fence(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _plain(text: object) -> str:
    """Text from outside, so that Markdown shows it as it is, on one line.

    >>> print(_plain("a*sin(b*x) | c"))
    a\\*sin(b\\*x) \\| c
    """
    return re.sub(r"([\\`*_\[\]<>|#$~])", r"\\\1", " ".join(str(text).split()))


def _quoted(text: str) -> str:
    """A Python string literal, in double quotes."""
    return json.dumps(text, ensure_ascii=False)


def _value(value: object) -> str:
    """A value of the recipe, as a table shows it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return _number(value)
    if isinstance(value, (list, tuple)):
        return _plain(" x ".join(str(part) for part in value))
    return _plain(value)


def _number(value: float, digits: int = 6) -> str:
    """A number to so many significant digits, without noise.

    >>> _number(30.0), _number(-3.141592653589793), _number(11000), _number(1e-3)
    ('30', '-pi', '11,000', '0.001')
    """
    if isclose(abs(value), pi, rel_tol=1e-12):
        return "-pi" if value < 0 else "pi"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.{digits}g}"


def _names(names: Sequence[str], shown: int = 20) -> str:
    text = ", ".join(f"{number} {_plain(name)}" for number, name in enumerate(names[:shown]))
    if all(str(number) == name for number, name in enumerate(names)):
        text = f"0 to {len(names) - 1}"
    return text + (f", ... ({len(names)} classes)" if len(names) > shown else "")


def _title(index: Index) -> str:
    return str(index.source.get("title") or index.source.get("name") or index.name)


def _targets(index: Index) -> dict[str, Any]:
    return {name: column for name, column in index.columns.items() if column.role == "target"}
