"""Damaged zoos: every file and field of them, then opened and read in one of many ways."""

import json
import math
import random
import struct
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from hostile.answers import command, judge
from hostile.mutations import (
    ALL,
    DATA,
    NOTHING,
    SPEC,
    TEXT,
    Damage,
    Elsewhere,
    Folder,
    change_files,
    change_json,
    change_text,
    cut,
    flip,
    smear,
    stretch,
    written,
)
from hostile.target import Target
from hostile.workers import Result

# What is done with a damaged zoo, and how often: most is opened and read whole.
ACTIONS = {
    "read": 60, "read, hashes": 24, "stats": 6, "info": 5, "verify": 2, "row": 2, "dry run": 1,
}  # fmt: skip
INDEX = "zoo.json"


class Material:
    """A whole zoo, what reading it gives, and a folder in which it is damaged."""

    def __init__(self, name: str, source: Path, work: Path):
        self.name = name
        self.folder = Folder.of(source, work / "zoos" / name)
        for extra in [n for n in self.folder.files if n.startswith("figures/")]:
            # Nothing reads them but a push.
            self.folder.remove(extra)
            del self.folder.files[extra]
        self.index = json.loads(self.folder.files[INDEX])
        self.splits = list(self.index["splits"])
        self.known = {split: self.read(split, True) for split in self.splits}
        self.known_stats = self.stats()
        self.info = command("info", self.folder.path)

    @cached_property
    def names(self) -> list[str]:
        """What a refusal can name: files, and fields of the index."""
        fields: set[str] = set()

        def collect(plain: Any) -> None:
            if isinstance(plain, dict):
                fields.update(map(str, plain))
            for value in plain.values() if isinstance(plain, dict) else plain:
                if isinstance(value, dict | list):
                    collect(value)

        collect(self.index)
        files = {Path(name).name for name in self.folder.files}
        return sorted({*files, *fields, self.name})

    @cached_property
    def shards(self) -> list[str]:
        """Files of tensors."""
        return [name for name in self.folder.files if name.endswith(".safetensors")]

    # ---- what is done with it

    def read(self, split: str, hashes: bool) -> dict[str, Any]:
        """All that reading a split gives: values, and what they mean."""
        import zoo

        z = zoo.open_zoo(self.folder.path, split, check_hashes=hashes)
        weights, columns = z.batch(range(len(z)))
        meaning = {
            name: (column.role, column.kind, column.names, column.unit)
            for name, column in z.columns.items()
        }
        return {
            "data": (len(z), *(t.numpy().tobytes() for t in (*weights.weights, *weights.biases)),
                     *((name, columns[name].numpy().tobytes()) for name in sorted(columns))),
            "spec": z.spec,
            "columns": {name: (role, kind) for name, (role, kind, _, _) in meaning.items()},
            "text": {name: (names, unit) for name, (_, _, names, unit) in meaning.items()},
            "splits": z.index.splits,
            "names": z.names,
        }  # fmt: skip

    def stats(self) -> dict[str, bytes]:
        """The statistics, by name."""
        import zoo

        found = zoo.open_zoo(self.folder.path, self.splits[0]).stats()
        return {name: tensor.numpy().tobytes() for name, tensor in found.items()}

    def row(self, draw: random.Random) -> None:
        """What a user does with one network."""
        import zoo

        z = zoo.open_zoo(self.folder.path, draw.choice(self.splits))
        row = z[draw.randrange(len(z))]
        repr(z), repr(row), row.to_module()
        for name in z.columns:
            z.column(name)
        if z.spec.coord_order is not None:
            row.render(3, 3) if z.spec.coord_order != "x" else row.render(3)
        if "step" in z.columns:
            z.run(z.runs[0])

    def verify(self) -> None:
        """Every check that does not need the source."""
        import zoo

        failed = [c for c in zoo.verify(self.folder.path, samples=0) if not c.passed]
        if failed:
            raise zoo.ZooError(failed[0].detail)

    # ---- damage

    def damage(self, draw: random.Random, elsewhere: Elsewhere) -> Damage:
        """One thing that is wrong now."""
        ways: tuple[Callable[[random.Random], Damage], ...] = (
            self.change_index, self.change_index, self.change_index, self.change_header,
            self.change_bytes, self.change_bytes, self.change_index_text,
            lambda draw: self.change_files(draw, elsewhere),
            self.forge,
        )  # fmt: skip
        return draw.choice(ways)(draw)

    def change_index(self, draw: random.Random) -> Damage:
        """One field of zoo.json."""
        done, content, path = change_json(self.index, draw)
        self.folder.write(INDEX, content)
        # Names of classes and units stand in no other place of an import.
        free = len(path) > 2 and path[0] == "columns" and path[2] in ("names", "unit")
        allows = TEXT if free else NOTHING
        # How an imported network computes is said here alone, and was by a person.
        if self.index["recipe"]["kind"] == "import" and path[:1] == ("spec",):
            allows = SPEC
        return Damage("index: field", f"{INDEX}: {done}", allows)

    def change_files(self, draw: random.Random, elsewhere: Elsewhere) -> Damage:
        """Files that are others, gone, or no files."""
        done = change_files(self.folder, draw, list(self.folder.files), elsewhere)
        # Another shard of the same size is other data.
        alike = done.kind in ("files: swap", "files: instead", "files: link")
        return Damage(done.kind, done.what, DATA if alike else NOTHING)

    def change_index_text(self, draw: random.Random) -> Damage:
        """The text of zoo.json."""
        self.folder.write(INDEX, change_text(self.folder.files[INDEX], draw))
        return Damage("index: text", f"{INDEX}: other text", TEXT)

    def change_bytes(self, draw: random.Random) -> Damage:
        """Bytes of any file, which keeps its length or not."""
        names = list(self.folder.files)
        # What is read most is damaged most.
        often = [1 + 4 * (n == INDEX) + 2 * (n in self.shards) for n in names]
        name = draw.choices(names, often)[0]
        content = self.folder.files[name]
        way = draw.choice(("flip", "flip", "smear", "cut", "stretch"))
        places: list[int] = []
        if way == "flip":
            changed, places = flip(content, draw)
        elif way == "smear":
            changed, place = smear(content, draw)
            places = [place]
        else:
            changed = (cut if way == "cut" else stretch)(content, draw)
        self.folder.write(name, changed)
        allows = NOTHING
        if name in self.shards and places:
            header = 8 + struct.unpack("<Q", content[:8])[0]
            allows = DATA if max(places) >= header else NOTHING
        elif name == INDEX:
            allows = TEXT
        return Damage(f"bytes: {way}", f"{name}: {way} {places[:3]}", allows)

    def change_header(self, draw: random.Random) -> Damage:
        """The description of tensors in a shard, or its length."""
        name = draw.choice(self.shards)
        content = self.folder.files[name]
        self.folder.write(name, done := _header(content, draw))
        return Damage("header", f"{name}: {done[:60]!r}", DATA)

    def forge(self, draw: random.Random) -> Damage:
        """A shard or the statistics changed, and the index made to agree."""
        import hashlib

        name = draw.choice(self.shards)
        content = self.folder.files[name]
        way = draw.choice(("header", "flip", "cut", "stretch", "values"))
        if way == "header":
            changed = _header(content, draw)
        elif way == "flip":
            changed = flip(content, draw)[0]
        elif way == "values":
            end = 8 + struct.unpack("<Q", content[:8])[0]
            odd = struct.pack("<f", draw.choice((math.nan, math.inf, -math.inf, 3e38, 1e-45)))
            changed = content[:end] + odd * ((len(content) - end) // 4)
            changed += content[len(changed) :]
        else:
            changed = (cut if way == "cut" else stretch)(content, draw)
        self.folder.write(name, changed)
        index = json.loads(self.folder.files[INDEX])
        for file in [*index["shards"], index["stats"]]:
            if file["file"] == name:
                file |= {"bytes": len(changed), "sha256": hashlib.sha256(changed).hexdigest()}
        self.folder.write(INDEX, written(index))
        return Damage(f"forged: {way}", f"{name}: {way}, and its hash", ALL)


def _header(content: bytes, draw: random.Random) -> bytes:
    """A safetensors file with another header; half of them keep the length of the file."""
    (length,) = struct.unpack("<Q", content[:8])
    header, data = content[8 : 8 + length], content[8 + length :]
    way = draw.random()
    if way < 0.1:
        odd = draw.choice((0, 1, length + 8, length - 8, len(content), 2**31, 2**63, 2**64 - 1))
        return struct.pack("<Q", odd) + header + data
    if way < 0.2:
        changed = change_text(header, draw)
    else:
        _, changed, _ = change_json(json.loads(header), draw)
        if draw.random() < 0.5:
            changed = json.dumps(_loaded(changed), separators=(",", ":")).encode()
    if draw.random() < 0.7:
        changed += b" " * (-len(changed) % 8)
    if draw.random() < 0.5 and len(changed) <= length:
        changed += b" " * (length - len(changed))
    return struct.pack("<Q", len(changed)) + changed + data


def _loaded(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return {}


class Zoos(Target[Material]):
    """Zoos of every kind, each damaged in one to three ways."""

    name = "zoos"

    def __init__(self, seed: int, sources: dict[str, Path], work: Path):
        super().__init__(seed, work)
        self.sources = sources

    def make(self, work: Path) -> list[Material]:
        """The zoos, read once."""
        return [Material(name, path, work) for name, path in self.sources.items()]

    def one(self, material: Material, draw: random.Random) -> Result:
        """Damage a zoo, and open it in some way."""
        action = draw.choices(list(ACTIONS), list(ACTIONS.values()))[0]
        damage = self.apply(draw, material)
        # Mostly the split that was damaged.
        hit = [split for split in material.splits if f"/{split}-" in damage.what]
        split = draw.choice(hit if hit and draw.random() < 0.9 else material.splits)
        return self.act(draw, material, action, split, damage)

    def apply(self, draw: random.Random, material: Material) -> Damage:
        """Several kinds of damage count as the last of them, and are excused for each."""
        done = material.damage(draw, self.elsewhere)
        for _ in range(draw.choice((0, 0, 0, 0, 1, 2))):
            try:
                more = material.damage(draw, self.elsewhere)
            except OSError:  # what it would change has become a pipe, or a link
                break
            done = Damage(more.kind, f"{done.what}; {more.what}", done.allows | more.allows)
        return done

    def act(
        self, draw: random.Random, material: Material, action: str, split: str, damage: Damage
    ) -> Result:
        """Do one thing with a damaged zoo."""
        path = material.folder.path
        names = [*material.names, str(path)]
        if action.startswith("read"):
            known, hashes = material.known[split], action != "read"
            if hashes and "all" not in damage.allows:
                # Then nothing is excused but what has no hash.
                damage = Damage(damage.kind, damage.what, damage.allows & (TEXT | SPEC))
            return judge(
                damage,
                lambda: material.read(split, hashes),
                names,
                lambda found: {part for part in known if found[part] != known[part]},
            )
        if action == "stats":
            return judge(
                damage,
                material.stats,
                names,
                lambda found: {"data"} if found != material.known_stats else set(),
            )
        do: dict[str, Callable[[], Any]] = {
            "info": lambda: command("info", path),
            "verify": material.verify,
            "row": lambda: material.row(draw),
            "dry run": lambda: command("push", path, "user/name", "--dry-run"),
        }
        return judge(damage, do[action], names, lambda found: set())
