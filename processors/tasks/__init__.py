"""Tasks by name: what models are trained for. `TASKS` is the only list of them."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from processors import own
from processors.options import Options
from processors.rows import Rows
from processors.tasks.adapt import Adapt
from processors.tasks.classify import Classify
from processors.tasks.edit import Edit
from processors.tasks.generalize import Generalize
from processors.tasks.regress import Regress
from processors.tasks.ssl import Ssl
from processors.tasks.task import Task
from processors.tasks.tickets import Tickets

TASKS: dict[str, type[Task]] = {
    "classify": Classify,
    "regress": Regress,
    "generalize": Generalize,
    "ssl": Ssl,
    "adapt": Adapt,
    "edit": Edit,
    "tickets": Tickets,
}

__all__ = ["TASKS", "Task", "known", "make", "name_of", "options_of"]


def known(task: str) -> type[Task]:
    """The task of that name, or one's own that was given or allowed (see `processors.own`).

    Raises:
        ValueError: if there is none; lists those there are.
    """
    if own.is_own(task):
        return _checked(own.find(task), task)
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}; known: {', '.join(TASKS)}")
    return TASKS[task]


def _checked(kind: Any, path: str) -> type[Task]:
    if not isinstance(kind, type) or not issubclass(kind, Task):
        raise ValueError(f"{path} is no task: expected a subclass of processors.Task")
    return kind


def name_of(task: str | type[Task]) -> str:
    """The name of a task, or the import path of one's own, given or named.

    A class that is named is imported.

    Raises:
        ValueError: if there is none of that name; lists those there are.
    """
    if not isinstance(task, str):
        listed = [name for name, kind in TASKS.items() if kind is task]
        return listed[0] if listed else own.give(_checked(task, str(task)))
    if own.is_own(task):
        own.allow(task)
    known(task)
    return task


def options_of(task: str, given: Mapping[str, Any]) -> Options:
    """What a task is told.

    Raises:
        ValueError: for an unknown option, or a value that cannot be.
    """
    kind = known(task).takes
    names = [each.name for each in fields(kind)]
    if unknown := [name for name in given if name not in names]:
        raise ValueError(f"task {task!r} has no option {unknown[0]!r}; known: {', '.join(names)}")
    return kind(**given)


def make(
    task: str, splits: Mapping[str, Rows], options: Mapping[str, Any], model: str | None = None
) -> Task:
    """A task on these splits, augmented as it is for the model, if one is named.

    Raises:
        ValueError: for an unknown task or option, or a zoo that does not fit.
    """
    made = known(task)(splits, options_of(task, options))
    if model is not None:
        made.augment_as(model)
    return made
