"""Conditions on the columns of a zoo, such as `psnr_db > 25 and label in (3, 8)`.

A condition is parsed and never evaluated as code: names of columns, numbers, names of
classes in quotes, comparisons, `in`, `not in`, `and`, `or`, `not` and brackets are all
that there is. It gives one truth value a row.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.shards import Column

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_LONGEST = 10_000
_ALLOWED = (
    "columns, numbers, class names in quotes, comparisons, in, not in, and, or, not and brackets"
)

Columns = Mapping[str, NDArray[Any]]


class Condition:
    """A condition on rows; calling it with columns, `row` each, gives `row` truth values.

    Attributes:
        text: as it was written.
        names: the columns that it reads.

    Raises:
        ValueError: if it cannot be read, or names what is no column; says which there are.
    """

    def __init__(self, text: str, columns: Mapping[str, Column]):
        self.text = text
        self._columns = {
            name: column for name, column in columns.items() if column.kind != "tensor"
        }
        self.names: set[str] = set()
        if len(text) > _LONGEST:
            raise ValueError(f"a condition has at most {_LONGEST:,} characters, got {len(text):,}")
        try:
            tree = ast.parse(text.strip(), mode="eval").body
            self._root = self._truth(tree)
        except (SyntaxError, RecursionError, MemoryError) as error:
            why = error.msg if isinstance(error, SyntaxError) else "too deeply nested"
            raise ValueError(
                f"{self._said()} cannot be read: {why}; it is written as in Python: "
                "label == 3 and psnr_db > 25, label in (3, 8)"
            ) from None

    def __call__(self, columns: Columns) -> NDArray[np.bool_]:
        return self._root(columns)

    def _said(self) -> str:
        plain = " ".join(self.text.split())
        return f"condition {plain[:80]!r}" + "..." * (len(plain) > 80)

    def _refuse(self, node: ast.AST) -> ValueError:
        part = ast.get_source_segment(self.text.strip(), node) or type(node).__name__
        return ValueError(
            f"{self._said()}: {part!r:.60} means nothing here; it may hold {_ALLOWED}"
        )

    def _truth(self, node: ast.expr) -> Callable[[Columns], NDArray[np.bool_]]:
        if isinstance(node, ast.BoolOp):
            parts = [self._truth(each) for each in node.values]
            join = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
            return lambda columns: join.reduce([part(columns) for part in parts])
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            inner = self._truth(node.operand)
            return lambda columns: ~inner(columns)
        if isinstance(node, ast.Compare):
            operands = [node.left, *node.comparators]
            links = [
                self._link(operands[number], each, operands[number + 1])
                for number, each in enumerate(node.ops)
            ]
            return lambda columns: np.logical_and.reduce([link(columns) for link in links])
        raise self._refuse(node)

    def _link(
        self, left: ast.expr, comparison: ast.cmpop, right: ast.expr
    ) -> Callable[[Columns], NDArray[np.bool_]]:
        """One comparison of a chain, in which one side is a column."""
        if isinstance(comparison, ast.In | ast.NotIn):
            name = self._column(left)
            if name is None:
                raise self._refuse(left)
            if not isinstance(right, ast.Tuple | ast.List | ast.Set):
                raise self._refuse(right)
            wanted = [self._value(each, name) for each in right.elts]
            inside = isinstance(comparison, ast.In)
            return lambda columns: np.isin(columns[name], wanted) == inside
        compare = _COMPARE.get(type(comparison))
        if compare is None:
            raise self._refuse(left)
        first, second = self._column(left), self._column(right)
        if first and second:
            return lambda columns: compare(columns[first], columns[second])
        if first:
            value = self._value(right, first)
            return lambda columns: compare(columns[first], value)
        if second:
            value = self._value(left, second)
            return lambda columns: compare(value, columns[second])
        raise self._refuse(left)

    def _column(self, node: ast.expr) -> str | None:
        if not isinstance(node, ast.Name):
            return None
        if node.id not in self._columns:
            raise ValueError(
                f"{self._said()}: no column {node.id!r}; there are {', '.join(self._columns)}"
            )
        self.names.add(node.id)
        return node.id

    def _value(self, node: ast.expr, name: str) -> float:
        """A number, or the number of a class by its name."""
        sign = 1
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            sign = -1 if isinstance(node.op, ast.USub) else 1
            node = node.operand
        if not isinstance(node, ast.Constant):
            raise self._refuse(node)
        if isinstance(node.value, str):
            names = self._columns[name].names or ()
            if node.value not in names:
                known = f"its classes: {', '.join(names)}" if names else "it has no classes"
                raise ValueError(f"{self._said()}: {node.value!r} is no class of {name!r}; {known}")
            return names.index(node.value)
        if isinstance(node.value, bool) or not isinstance(node.value, int | float):
            raise self._refuse(node)
        return sign * node.value
