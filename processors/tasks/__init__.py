"""Tasks by name: what models are trained for. `TASKS` is the only list of them."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_type_hints

from processors.options import OPTIONS
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

__all__ = ["TASKS", "Task", "known", "make"]


def known(task: str) -> type[Task]:
    """The task of that name.

    Raises:
        ValueError: if there is none; lists those there are.
    """
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}; known: {', '.join(TASKS)}")
    return TASKS[task]


def make(
    task: str, splits: Mapping[str, Rows], options: Mapping[str, Any], model: str | None = None
) -> Task:
    """A task on these splits, augmented as it is for the model, if one is named.

    Raises:
        ValueError: for an unknown task or option, or a zoo that does not fit.
    """
    kind = known(task)
    names = [each.name for each in fields(OPTIONS[task])]
    if unknown := sorted(set(options) - set(names)):
        raise ValueError(f"task {task!r} has no option {unknown[0]!r}; known: {', '.join(names)}")
    hints = get_type_hints(OPTIONS[task])
    for name, value in options.items():
        # JSON and Python have whole numbers where fractions would do.
        wanted = hints[name] | int if hints[name] is float else hints[name]
        if not isinstance(value, wanted):
            raise ValueError(
                f"option {name} of task {task!r} must be of type "
                f"{getattr(hints[name], '__name__', hints[name])}, got {value!r}"
            )
    made = kind(splits, OPTIONS[task](**options))
    if model is not None:
        made.augment_as(model)
    return made
