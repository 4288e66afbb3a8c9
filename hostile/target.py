"""The contract of what can be damaged: material, one thing done with it, a result."""

import os
import random
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from hostile.mutations import Elsewhere, Folder
from hostile.workers import Case, Result


class Material(Protocol):
    """Something whole, with the folder that it is damaged in."""

    folder: Folder


M = TypeVar("M", bound=Material)


class Target(ABC, Generic[M]):
    """Material of one kind, of which a case damages one, does one thing, and judges.

    Args:
        seed: of all cases, with their numbers.
        work: a folder, by preference in memory.
    """

    name: str
    # Whether what is done writes into the folder, so that all of it must be put back.
    writes = False

    def __init__(self, seed: int, work: Path):
        self.seed, self.work = seed, work
        self.materials: list[M] = []

    @abstractmethod
    def make(self, work: Path) -> list[M]:
        """The material, in a folder of this worker's own."""

    @abstractmethod
    def one(self, material: M, draw: random.Random) -> Result:
        """Damage it, do one thing with it, judge."""

    def prepare(self) -> Case:
        """In a worker: folders of its own."""
        work = self.work / f"{self.name}-{os.getpid()}"
        work.mkdir(parents=True)
        self.elsewhere = Elsewhere(work / "elsewhere")
        self.materials = self.make(work)
        return self.case

    def case(self, number: int) -> Result:
        """One case; the material is whole again afterwards."""
        draw = random.Random(f"{self.seed} {self.name} {number}")
        material = draw.choice(self.materials)
        try:
            result = self.one(material, draw)
        finally:
            if self.writes:
                material.folder.touched |= {*material.folder.files, *material.folder.folders}
            material.folder.restore()
        if spoiled := self.elsewhere.spoiled():
            return Result("spoiled", result.kind, spoiled, "written elsewhere")
        return result
