"""NFN's SIRENs (Zhou et al. 2023), which Monomial-NFN uses too.

Layout, below a folder `siren_{mnist,fashion,cifar}_wts` or in a .tar or .zip of it:

    randinit_smaller_{label}s/net{idx}.pth            each picture once: view 0
    randinit_smaller_aug{k}_{label}s/net{idx}.pth     copies of training pictures: view k + 1

Folder names are matched whole, as `prefix_*` would take the copies for the networks. Keys
`net.0.linear.weight` (out, inp), `net.0.linear.bias`, ..., `net.N.weight`, `net.N.bias`.
`idx` counts torchvision's train, then test pictures: below 45,000 train, below 50,000
validation, the rest test. Conventions: recipe `nfn`, that is omega 30, no offset, (row,
column), pixels in [-1, 1].
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import ZooError
from zoo.importers import states
from zoo.importers.contents import load_dict
from zoo.importers.files import Files
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
from zoo.spec import NetworkSpec

OPTIONS: tuple[str, ...] = ()
URL = "https://github.com/AllanYangZhou/nfn"
CITATION = "Zhou et al. 2023, Permutation equivariant neural functionals, NeurIPS (the networks)"
NETWORK = re.compile(r"(?:^|/)randinit_smaller(?:_aug([0-9]{1,3}))?_([0-9])s/net([0-9]{1,9})\.pth$")
SOURCE = re.compile(r"siren_(mnist|fashion|cifar)_wts")
SOURCES = {"mnist": "mnist", "fashion": "fashion-mnist", "cifar": "cifar10"}
TRAIN, VALIDATION = 45_000, 50_000


def find(path: Path, options: Options) -> Published:
    """The networks at `path`; ValueError or ZooError as `zoo.importers.find`."""
    files = Files(path)
    found: dict[str, list[Ref]] = {"train": [], "validation": [], "test": []}
    views = 1
    for name in files.names:
        match = NETWORK.search(name)
        if not match:
            files.passed.add(name)
            continue
        index, view = int(match[3]), int(match[1]) + 1 if match[1] else 0
        if view and index >= TRAIN:
            raise ZooError(
                f"{files.where(name)}: an augmented copy of item {index}; there are such copies "
                f"of training items only, below {TRAIN:,}"
            )
        split = "train" if index < TRAIN else "validation" if index < VALIDATION else "test"
        found[split].append(Ref(index, view, name, int(match[2])))
        views = max(views, view + 1)
    if not any(found.values()):
        raise ValueError(
            f"{path}: no networks of NFN's layout; expected randinit_smaller_0s/net0.pth and so on"
        )
    refs = by_split(found, path)
    first = next(iter(refs.values()))[0]
    where = files.where(first.name)
    plan, shapes = states.plan_of(_state(files, first), True, where, Told())
    widths = states.widths_of(shapes)
    if widths[0] != 2 or any(len(shape) != 2 for shape in shapes.values()):
        raise ZooError(f"{where}: expected linear layers of 2 inputs, got {widths}")
    spec = NetworkSpec.mlp(widths, omega=30.0, coord_order="ij", pixel_range=(-1.0, 1.0))
    named = {*SOURCE.findall(path.resolve().name), *SOURCE.findall(first.name)}
    if len(named) > 1:
        raise ZooError(f"{where}: the folders' names say {' and '.join(sorted(named))}")
    source = SOURCES[named.pop()] if named else None
    if source is not None:
        channels, items = PICTURES[source][2][2], PICTURES[source][4]
        if widths[-1] != channels:
            raise ZooError(f"{where}: {widths[-1]} outputs, but {source} has {channels} channels")
        beyond = [ref for part in refs.values() for ref in part if ref.index >= items]
        if beyond:
            raise ZooError(f"{files.where(beyond[0].name)}: {source} has only {items:,} items")
    about = (
        describe(path.resolve().name, f"pictures of {path.resolve().name}", CITATION, url=URL,
                 kind="image", class_names=[str(label) for label in range(10)])
        if source is None
        else describe_pictures(source, CITATION, URL)
    )  # fmt: skip

    told = Told()
    told.say(f"SIRENs of NFN: {'-'.join(map(str, widths))}, weights (out, inp), omega 30")
    told.say("the format says: (row, column), nothing added to the output, pixels -1 to 1")
    told.say("index, label and view by the names of folders and files; splits by index as NFN's")
    if source is None:
        told.say(
            "which pictures these are is told by no name; --check-against holds them against one"
        )

    def read(split: str, start: int, stop: int) -> Arrays:
        chosen = refs[split][start:stop]
        rows = [
            states.normalised(_state(files, ref), plan, spec, files.where(ref.name), told)
            for ref in chosen
        ]
        labels = np.array([ref.label for ref in chosen], np.int64)
        return {**keys(chosen), "label": labels, **stacked(rows)}

    return Published(
        spec=spec,
        columns={"label": Column("target", "class", names=tuple(about["class_names"]))},
        rows={split: len(part) for split, part in refs.items()},
        read=read,
        source=about,
        pictures=source,
        facts={"views": views},
        told=told,
        passed=files.passed,
    )


def _state(files: Files, ref: Ref) -> Mapping[str, Any]:
    """A network's state dict, its keys as the format has them, in their strict order."""
    where = files.where(ref.name)
    state = load_dict(files.read(ref.name), where)
    last = len(state) // 2 - 1
    expected = [
        f"net.{n}.{'linear.' if n < last else ''}{kind}"
        for n in range(last + 1)
        for kind in ("weight", "bias")
    ]
    if list(state) != expected:
        raise ZooError(
            f"{where}: expected the keys {safe(', '.join(expected), 200)}, got "
            f"{safe(', '.join(state), 200)}"
        )
    return state
