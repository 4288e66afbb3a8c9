"""How the networks of a kind are shown: in words, in figures, beside what they stand for.

A look needs nothing but columns and conventions, so that imported networks, which no recipe
made, have one too.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from zoo.errors import ZooError
from zoo.reader import Row
from zoo.shards import Column
from zoo.spec import NetworkSpec


@dataclass(frozen=True)
class Reading:
    """What inputs and outputs of networks mean, as cards say it.

    Attributes:
        sentences: one each.
        begin: lines of Python that make `h`, the inputs, before the layers.
        end: lines that make something of `h` after them.
        render: the line that does all of it for the first of `rows`.
    """

    sentences: tuple[str, ...]
    begin: tuple[str, ...]
    end: tuple[str, ...]
    render: str


class Look:
    """What is said and drawn of networks; the defaults are for those of unknown kind.

    Attributes:
        what: a sentence on what one of them is.
        done: how they came about, before the name of the source; "" if fitting or an import
            is all that there is to say.
        meanings: columns that hold something else than `recipes.MEANINGS` says.
        rows_words: a sentence on how rows belong together.
        rounding: quality column with the error that the storage type made, if there is one.
        drawn: columns of the `figure`; there is none without them.
        figure_name, caption: its file's name, and what stands below it.
        read: column that models are to tell from the weights, and the task that trains them; None
            where it is the first target.
        unit: what a limit of the zoo counts, in the plural.
        by_formula: whether an original follows from the columns alone.
    """

    what: ClassVar[str] = ""
    done: ClassVar[str] = ""
    meanings: ClassVar[Mapping[str, str]] = {}
    rows_words: ClassVar[str] = ""
    rounding: ClassVar[str | None] = None
    drawn: ClassVar[tuple[str, ...]] = ()
    figure_name: ClassVar[str] = ""
    caption: ClassVar[str] = ""
    read: ClassVar[tuple[str, str] | None] = None
    unit: ClassVar[str] = "networks"
    by_formula: ClassVar[bool] = False

    def resembles(self, columns: Collection[str], spec: NetworkSpec) -> bool:
        """Whether networks with these columns and conventions are shown so."""
        return False

    def inputs(self, spec: NetworkSpec) -> str:
        """How an item of the source enters a network, where coordinates do not say it."""
        return ""

    def reading(self, spec: NetworkSpec) -> Reading | None:
        """What inputs and outputs mean; None where the conventions that all share say it."""
        return None

    def figure(
        self,
        path: Path,
        values: Mapping[str, Mapping[str, NDArray[Any]]],
        columns: Mapping[str, Column],
        histogram: bool = True,
    ) -> None:
        """Draw the `drawn` columns, which are given for each split; without a figure nothing.

        Args:
            columns: of the index, for names of classes.
            histogram: also draw how the quality is spread.
        """

    def original(self, row: Row, data_root: Path | None, source: str | None) -> NDArray[Any]:
        """What a row was fitted to, see `compare.original`."""
        raise ZooError(
            f"{row.source['name']} was imported without its originals; import it again with "
            "--check-against"
        )
