"""A folder of pictures, in folders by class or flat.

What lies there and is not taken is counted by suffix or reason, never passed over in
silence; names that systems leave behind are counted too.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from zoo.errors import ZooError
from zoo.passed import LEFT_BEHIND, Passed, left_behind
from zoo.sources import formats
from zoo.sources.base import ImageSource, Request, listed
from zoo.sources.pictures import image_source, read_pictures

TRAIN, VALIDATION, TEST = "train", "validation", "test"
# What the folders of the parts may be called, in any case.
PARTS = {
    TRAIN: ("train", "training"),
    VALIDATION: ("val", "valid", "validation"),
    TEST: ("test", "testing"),
}


def folder_of(address: str) -> Path:
    """The folder that an imagefolder:PATH names; costs no look at what is in it.

    Raises:
        ValueError: if there is no path.
        ZooError: if there is no such folder.
    """
    if not address:
        raise ValueError("imagefolder: needs a path, as in imagefolder:my/pictures")
    root = Path(address).expanduser()
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise ZooError(
            f"imagefolder: {root} {what}; expected a folder of pictures, or with one folder per "
            "class"
        )
    return root


def open_folder(request: Request) -> ImageSource:
    """The pictures of PATH/train, then of PATH/val, then of PATH/test, or all of PATH.

    In each of these lie folders by class, or pictures alone, which are one class then, named
    after PATH. The names of the three are in `PARTS`; validation and test may be absent, and
    may lack classes of train. Classes are numbered by name, as torchvision's
    `ImageFolder` does. So that a prefix or suffix of the order has nearly the class
    proportions, the images of a class, by file name, stand at (rank + 0.5) / class size, and
    positions are sorted, ties by class; train, validation and test separately.

    Raises:
        ValueError: if there is no path, or pictures differ in size and no size is given.
        ZooError: if the folder or a picture is missing, damaged, or holds no pictures.
    """
    root = folder_of(request.address)
    passed = Passed()
    gather = _Gatherer(root, passed, request.older)
    parts = _parts(root, request.older)
    if parts:
        _count_others(root, parts, passed)
        train = gather.part(parts[TRAIN])
        others = [gather.further(train, parts[name]) for name in parts if name != TRAIN]
    else:
        train, others = gather.part(root), []
    paths = [path for part in (train, *others) for path in part.paths]
    labels = np.concatenate([part.labels for part in (train, *others)])
    images, read = read_pictures(paths, request.frame, request.older)
    sizes = {name: len(part.paths) for name, part in zip(parts, (train, *others), strict=False)}
    return image_source(
        request,
        images,
        labels,
        len(train.paths),
        title=f"Image folder {root.resolve().name}",
        license="unknown",
        url="",
        citation="",
        class_names=train.class_names,
        path=root,
        files=tuple(path.relative_to(root).as_posix() for path in paths),
        validation_items=sizes.get(VALIDATION, 0),
        passed_over={} if request.older else passed.to_json(),
        read=() if request.older else read,
    )


def _parts(root: Path, older: bool) -> dict[str, Path]:
    """The folders of train, validation and test, in this order; empty without train."""
    names = [path.name for path in _folders(root)]
    if older:
        return {part: root / part for part in (TRAIN, TEST) if part in names and TRAIN in names}
    found = {part: [n for n in names if n.lower() in known] for part, known in PARTS.items()}
    for part, same in found.items():
        if len(same) > 1:
            raise ZooError(
                f"imagefolder: {root} has {' and '.join(same)}, which both stand for the {part} "
                "pictures; keep one"
            )
    parts = {part: root / same[0] for part, same in found.items() if same}
    if TRAIN in parts:
        # There are trains among vehicles: a folder without classes, beside others, is a class.
        alone = not _folders(parts[TRAIN])
        return {} if alone and len(names) > len(parts) else parts
    if parts and len(names) == len(parts):
        raise ZooError(
            f"imagefolder: {root} has {listed(names)} but no folder {TRAIN} beside it; expected "
            f"{TRAIN}, or folders named by class"
        )
    return {}


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder but those that systems leave behind."""
    return [path for path in _entries(folder) if path.is_dir() and not left_behind(path.name)]


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError as error:
        raise ZooError(f"imagefolder: {folder} cannot be read: {error.strerror}") from error


def _count_others(root: Path, parts: dict[str, Path], passed: Passed) -> None:
    """Count what lies beside the folders of the parts."""
    for path in _entries(root):
        if path in parts.values():
            continue
        words = f"in {path.name}, beside {TRAIN}" if path.is_dir() else f"beside {TRAIN}"
        for file in _files(path) if path.is_dir() else [path]:
            passed.add(file.name, LEFT_BEHIND if _hidden(file, root) else words)


def _hidden(file: Path, root: Path) -> bool:
    return left_behind(file.relative_to(root).as_posix())


def _files(folder: Path) -> list[Path]:
    """All files in a folder and in the folders in it, in a fixed order."""
    # torchvision's order, which the positions of older zoos stand for: folders by their path.
    walked = sorted(_walk(folder, frozenset()), key=lambda place: str(place[0]))
    return [path for _, files in walked for path in files]


def _walk(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[tuple[Path, list[Path]]]:
    """Every folder with its files; links are followed, but not round in a circle."""
    about = folder.stat()
    here = (about.st_dev, about.st_ino)
    if here in above:
        return
    entries = _entries(folder)
    yield folder, [path for path in entries if not path.is_dir()]
    for path in entries:
        if path.is_dir():
            yield from _walk(path, above | {here})


@dataclass(frozen=True)
class _Part:
    """The pictures of one part, classes interleaved in proportion."""

    class_names: tuple[str, ...]
    paths: list[Path]
    labels: Int64[np.ndarray, " item"]


class _Gatherer:
    """Lists pictures, and counts what is passed over."""

    def __init__(self, root: Path, passed: Passed, older: bool):
        self.root = root
        self.passed = passed
        self.older = older
        self.unreadable = _unreadable_suffixes()

    def part(self, folder: Path, class_names: tuple[str, ...] = ()) -> _Part:
        """The pictures of a folder, of these classes or of those that it has folders of."""
        folders, loose = self._entries(folder)
        found = {name: self._pictures(folder / name) for name in folders}
        alone = [path for path in loose if self._takes(path)]
        if alone and not any(found.values()):
            name = (self.root.resolve().name,)
            return _Part(name, alone, np.zeros(len(alone), np.int64))
        for path in alone:
            self.passed.add(path.name, "beside the class folders")
        if not any(found.values()):
            raise ZooError(
                f"imagefolder: {folder} has no pictures"
                + (f" that can be read (left out: {self.passed})" if self.passed else "")
                + f"; expected {folder}/<class>/<picture>, or {folder}/<picture> if there are no "
                "classes"
            )
        known = class_names or tuple(folders)
        empty = [name for name in folders if not found[name]]
        if empty and not class_names:
            raise ZooError(
                f"imagefolder: no pictures in {folder} for {listed(empty)}; expected pictures in "
                "every class folder, so fill or remove the empty ones"
                + (f" (left out: {self.passed})" if self.passed else "")
            )
        strange = [name for name in folders if name not in known]
        if strange:
            raise ZooError(
                f"imagefolder: {folder} has class folders that {TRAIN} lacks: {listed(strange)}"
            )
        paths = [path for name in known for path in found.get(name, [])]
        sizes = np.array([len(found.get(name, [])) for name in known])
        labels = np.repeat(np.arange(len(known)), sizes)
        # `paths` is sorted by class, so an item's rank is its distance from its class's first.
        rank = np.arange(len(labels)) - (np.cumsum(sizes) - sizes)[labels]
        order = np.lexsort((labels, (rank + 0.5) / sizes[labels]))
        return _Part(known, [paths[item] for item in order], labels[order])

    def further(self, train: _Part, folder: Path) -> _Part:
        """The pictures of the validation or test folder, of the classes of train."""
        folders, loose = self._entries(folder)
        flat = not folders and any(self._takes(path, count=False) for path in loose)
        if flat and len(train.class_names) > 1:
            # Their classes are not known, as those of many a competition's test pictures.
            for path in loose:
                self.passed.add(path.name, f"in {folder.name}, which has no class folders")
            return _Part(train.class_names, [], np.zeros(0, np.int64))
        return self.part(folder, train.class_names)

    def _entries(self, folder: Path) -> tuple[list[str], list[Path]]:
        """Names of the class folders in a folder, and its files; hidden ones are counted."""
        folders, files = [], []
        for path in _entries(folder):
            if path.name.startswith(".") if self.older else left_behind(path.name):
                for _ in _files(path) if path.is_dir() else [path]:
                    self.passed.add(path.name, LEFT_BEHIND)
            elif path.is_dir():
                folders.append(path.name)
            else:
                files.append(path)
        return folders, files

    def _pictures(self, folder: Path) -> list[Path]:
        return [path for path in _files(folder) if self._takes(path)]

    def _takes(self, path: Path, count: bool = True) -> bool:
        """Whether a file is taken for a picture; if not, it is counted."""
        reason = self._refusal(path)
        if reason is not None and count:
            self.passed.add(path.name, reason or None)
        return reason is None

    def _refusal(self, path: Path) -> str | None:
        """Why a file is no picture: None if it is one, empty if its suffix says enough."""
        suffix = path.suffix.lower()
        if self.older:
            hidden = path.name.startswith(".")
            return "" if hidden or suffix not in formats.OLDER_SUFFIXES else None
        if _hidden(path, self.root):
            return LEFT_BEHIND
        if path.exists() and not path.is_file():
            return "not a plain file"
        if suffix in self.unreadable:
            return f"{suffix}, which this version of OpenCV does not read"
        if suffix in formats.SUFFIXES:
            return None
        if suffix and suffix not in formats.FOREIGN_SUFFIXES:
            return ""
        try:
            with path.open("rb") as stream:
                head = stream.read(formats.HEAD_BYTES)
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        return None if formats.format_of(head) else ""


def _unreadable_suffixes() -> tuple[str, ...]:
    """Suffixes of formats that this build of OpenCV lacks."""
    import cv2

    # There is no such question for reading; builds have both or neither.
    return tuple(
        suffix for suffix in formats.OPTIONAL_SUFFIXES if not cv2.haveImageWriter(f"x{suffix}")
    )
