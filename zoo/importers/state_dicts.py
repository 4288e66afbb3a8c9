"""Anyone's own state dicts of one architecture: a folder, an archive of it, or one file.

    networks/0.pth, networks/1.pth, ...    a state dict each, whatever wraps it
    labels.csv                             file,label,split,... one row a network

Files are known by their content (see `zoo.importers.contents`), state dicts become layers by
`zoo.importers.states`, and tables of labels are read by `zoo.importers.labels`. Every network
must be named in the table once. Its other columns are optional: `label` (the class), `split`
(train, validation or val, test), `index` and `view` (whole numbers; else the row, and 0),
`test_accuracy` and other qualities by wszoo's names, and any others as targets.

Without a column of splits, folders named train, validation and test are the splits; else the
last tenths of the items are validation and test. Files of one run, told by `epoch_3`,
`step=100` or `best` in their names, are one item and stay in one split: `index` is the run,
`view` the place in it. `--group folder` makes items of folders, `--group none` of every file.

A state dict does not say how its network computes: give --activation for multilayer
perceptrons (and --omega for sin), or --spec, a JSON file of `NetworkSpec.to_json` as it
stands in zoo.json.
"""

import re
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zoo import schema
from zoo.errors import ZooError
from zoo.importers import labels, states
from zoo.importers.contents import KNOWN, kind_of, load
from zoo.importers.files import Files, natural
from zoo.importers.labels import SPLIT_NAMES, Table
from zoo.importers.published import (
    Arrays,
    Options,
    Published,
    Ref,
    Told,
    by_split,
    describe,
    keys,
    stacked,
)
from zoo.schema import safe
from zoo.sources import split_items
from zoo.spec import ACTIVATIONS, NetworkSpec, spelled

OPTIONS = (
    "labels", "activation", "omega", "spec", "match", "key", "order", "norm", "norm_eps", "group",
    "column",
)  # fmt: skip
# What is nothing else; a file of such a name that holds no tensors is refused.
SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt")
SPEC_BYTES = 1 << 20
NORMS = ("before", "after")
GROUPS = ("folder", "none")
# What tells files of one run apart.
STEP = re.compile(
    r"[-_.=]*(?<![A-Za-z0-9])(?:epochs?|ep|steps?|iters?|iterations?|checkpoints?|ckpt)[-_=.]?[0-9]+"
    r"(?![A-Za-z0-9])",
    re.IGNORECASE,
)
MARK = re.compile(
    r"[-_.=]*(?<![A-Za-z0-9])(?:best|last|final|latest|initial|init)(?![A-Za-z0-9])(?=[^/]*$)",
    re.IGNORECASE,
)
FILLER = re.compile(
    r"[-_.=]*(?<![A-Za-z0-9])(?:model|net|network|weights|state|checkpoint|ckpt)(?![A-Za-z0-9])"
    r"(?=[^/]*$)",
    re.IGNORECASE,
)


def find(path: Path, options: Options) -> Published:
    """The networks at `path`; ValueError or ZooError as `zoo.importers.find`."""
    _check(options)
    files = Files(path)
    told = Told()
    names = _networks(files, options.match)
    table = (
        Table("the names of files", names, {})
        if options.labels is None
        else labels.read_table(options.labels, names, told)
    )
    kinds = labels.kinds_of(options.column, table)
    columns, values = labels.columns_of(table, kinds, told)
    refs = by_split(_splits(table, options, told), options.labels or path)
    row_of = {name: row for row, name in enumerate(table.files)}
    first = next(iter(refs.values()))[0]
    plan, spec = _plan(files, first.name, options, told)
    eps = states.NORM_EPS if options.norm_eps is None else options.norm_eps

    def read(split: str, start: int, stop: int) -> Arrays:
        chosen = refs[split][start:stop]
        rows = []
        for ref in chosen:
            where = files.where(ref.name)
            loaded, _ = load(files.read(ref.name), where)
            rows.append(states.normalised(loaded, plan, spec, where, told, eps))
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
        told=told,
        passed=files.passed,
    )


def _check(options: Options) -> None:
    """What can be known of the options before a file is looked at."""
    if options.norm not in (None, *NORMS):
        raise ValueError(f"--norm {options.norm!r}: expected {' or '.join(NORMS)}")
    if options.group not in (None, *GROUPS):
        raise ValueError(f"--group {options.group!r}: expected {' or '.join(GROUPS)}")
    if options.norm_eps is not None and not 0 <= options.norm_eps < 1:
        raise ValueError(f"--norm-eps {options.norm_eps}: expected a number from 0 to 1")
    if options.omega is not None and not 0 < options.omega < 1e6:
        raise ValueError(f"--omega {options.omega}: expected a positive number")
    if options.spec is not None:
        for name in ("activation", "omega"):
            if getattr(options, name) is not None:
                raise ValueError(f"--spec says the {name} already; leave out --{name}")
        return
    if options.activation is None:
        raise ValueError(
            "a state dict does not say its activation: give --activation "
            f"({', '.join(ACTIVATIONS)}), or --spec"
        )
    activation = spelled(options.activation)
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"unknown activation {options.activation!r}; known: {', '.join(ACTIVATIONS)}"
        )
    if activation == "sin" and options.omega is None:
        raise ValueError(
            "a state dict does not say the omega of its sine layers, sin(omega (W x + b)): give "
            "--omega (30 in SIREN, DWSNets and NFN)"
        )
    if activation != "sin" and options.omega is not None:
        raise ValueError(f"--omega is of sine layers, the activation is {options.activation}")


# ---- which files


def _networks(files: Files, match: str | None) -> list[str]:
    """Names of the files that hold tensors, by their content; the others are counted."""
    taken: list[str] = []
    strange: list[tuple[str, str]] = []
    others: dict[str, str] = {}
    for name in files.names:
        if match is not None and not _matches(name, match):
            files.passed.add(name, "not matched by --match")
            continue
        kind = kind_of(files.head(name))
        if kind in KNOWN:
            taken.append(name)
        elif name.lower().endswith(SUFFIXES) or match is not None:
            strange.append((name, kind))
        else:
            files.passed.add(name)
            others.setdefault(name.rpartition(".")[2], f"{files.where(name)}: {kind}")
    if strange:
        name, kind = strange[0]
        more = f" ({len(strange)} such files)" if len(strange) > 1 else ""
        raise ZooError(f"{files.where(name)}: {kind}{more}; --match PATTERN chooses files")
    if not taken:
        why = f"; {next(iter(others.values()))}" if others else ""
        passed = f", only {files.passed}" if len(files.passed) else ""
        raise ValueError(
            f"{files.path}: expected files of torch ({', '.join(SUFFIXES[1:])}), safetensors or "
            f".npz, there are none{passed}{why}"
        )
    return taken


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name.rpartition("/")[2], pattern)


# ---- which split


def _splits(table: Table, options: Options, told: Told) -> dict[str, list[Ref]]:
    """Every network in its split, with its keys."""
    index, view = (labels.whole_numbers(table, name) for name in ("index", "view"))
    named = labels.splits_of(table)
    rows = np.arange(len(table.files))
    if index is None:
        groups = _groups(table.files, options, named is None, told)
        index, place = groups if named is None or options.group else (rows, rows * 0)
        view = place if view is None else view
    view = rows * 0 if view is None else view
    refs = [Ref(int(n), int(v), name) for n, v, name in zip(index, view, table.files, strict=True)]
    if named is not None:
        told.say("splits by the column split of the labels")
    else:
        named = _folders(table.files)
        if named is not None:
            told.say("splits by folders named train, validation and test")
    found: dict[str, list[Ref]] = {"train": [], "validation": [], "test": []}
    if named is not None:
        for ref, split in zip(refs, named, strict=True):
            found[split].append(ref)
        return found
    ordered = sorted(refs)
    # By item, so that views of one never straddle two splits.
    items = sorted({ref.index for ref in ordered})
    spans = split_items(len(items), len(items), "80-10-10")
    of = {items[place]: split for split, span in spans.items() for place in span}
    told.say("no splits given: the last tenths of the items, in order, are validation and test")
    return {split: [ref for ref in ordered if of[ref.index] == split] for split in spans}


def _folders(names: list[str]) -> list[str] | None:
    """The split of each file by the folder it lies in; None if no folder is named so."""
    found = []
    for name in names:
        folders = [part.lower() for part in name.split("/")[:-1]]
        found.append(next((SPLIT_NAMES[part] for part in folders if part in SPLIT_NAMES), None))
    if not any(found):
        return None
    if None in found:
        inside = names[next(place for place, split in enumerate(found) if split)]
        raise ValueError(
            f"{safe(inside, 100)} lies in a folder named after a split, "
            f"{safe(names[found.index(None)], 100)} does not: give --labels with a column split, "
            "or choose files by --match"
        )
    return [split for split in found if split is not None]


def _groups(
    names: list[str], options: Options, said: bool, told: Told
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number of the item that each file belongs to, and its place in it."""
    if options.group == "folder":
        key_of = [name.rpartition("/")[0] for name in names]
        words = "files of one folder are one item, as --group says"
    elif options.group == "none":
        key_of = list(names)
        words = "every file was taken for an independent network, as --group says"
    else:
        key_of = [_run_of(name) for name in names]
        if len(set(key_of)) == len(names):
            words = (
                "every file was taken for an independent network; --group folder keeps the files "
                "of a folder in one split"
            )
        else:
            sizes = Counter(key_of)
            example = next(n for n, key in zip(names, key_of, strict=True) if sizes[key] > 1)
            words = (
                f"{len(set(key_of)):,} runs told by names such as {safe(example, 60)}: the files "
                "of a run stay in one split (--group folder or none takes others together)"
            )
    if said:
        told.say(words)
    numbers: dict[str, int] = {}
    places: dict[str, int] = {}
    item = np.zeros(len(names), np.int64)
    place = np.zeros(len(names), np.int64)
    for row in sorted(range(len(names)), key=lambda row: natural(names[row])):
        key = key_of[row]
        item[row] = numbers.setdefault(key, len(numbers))
        place[row] = places[key] = places.get(key, -1) + 1
    if len(numbers) == len(names):
        # Independent networks are numbered as they stand in the table.
        return np.arange(len(names)), place
    return item, place


def _run_of(name: str) -> str:
    """What files of one training run share of their names; others keep theirs whole.

    >>> _run_of("run0/epoch=3-step=120.ckpt") == _run_of("run0/last.ckpt")
    True
    >>> _run_of("run0/net_1.pth") == _run_of("run0/net_2.pth")
    False
    """
    short = MARK.sub("", STEP.sub("", name))
    return name if short == name else FILLER.sub("", short)


# ---- which architecture


def _plan(
    files: Files, first: str, options: Options, told: Told
) -> tuple[states.Plan, NetworkSpec]:
    """How the first file becomes layers, and what they are."""
    where = files.where(first)
    loaded, in_order = load(files.read(first), where)
    choices = states.Choices(
        options.key,
        options.order,
        options.norm,
        states.NORM_EPS if options.norm_eps is None else options.norm_eps,
    )
    spec = None if options.spec is None else _read_spec(options.spec)
    plan, shapes = states.plan_of(loaded, in_order, where, told, choices, spec, options.activation)
    if spec is not None:
        told.say(f"architecture from --spec {options.spec.name if options.spec else ''}")
        return plan, spec
    if any(len(shape) == 4 for shape in shapes.values()):
        raise ValueError(
            f"{where}: convolutions; a state dict does not say their stride and padding: give "
            "--spec"
        )
    widths = states.widths_of(shapes)
    assert options.activation is not None
    omega = 1.0 if options.omega is None else options.omega
    found = NetworkSpec.mlp(widths, activation=options.activation, omega=omega)
    hidden = f", {options.activation} behind all but the last" if len(shapes) > 1 else ""
    sine = f" with omega {options.omega:g}" if options.omega is not None else ""
    told.say(f"linear layers {'-'.join(map(str, widths))}{hidden}{sine}, weights (out, inp)")
    return plan, found


def _read_spec(path: Path) -> NetworkSpec:
    if not path.is_file():
        raise ValueError(f"--spec {path}: there is no such file")
    try:
        plain = schema.read_json(path, SPEC_BYTES)
        if isinstance(plain, dict) and isinstance(plain.get("spec"), dict):
            plain = plain["spec"]  # a whole zoo.json
        return NetworkSpec.from_json(plain)
    except (ZooError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"--spec {path}: expected a NetworkSpec as JSON, like `spec` in a zoo.json "
            f"({safe(error, 200)})"
        ) from error
