"""Tasks by name: what models are trained for. `TASKS` is the only list of them."""

from processors.tasks.adapt import Adapt
from processors.tasks.classify import Classify
from processors.tasks.edit import Edit
from processors.tasks.generalize import Generalize
from processors.tasks.regress import Regress
from processors.tasks.ssl import Ssl
from processors.tasks.task import Task

TASKS: dict[str, type[Task]] = {
    "classify": Classify,
    "regress": Regress,
    "generalize": Generalize,
    "ssl": Ssl,
    "adapt": Adapt,
    "edit": Edit,
}

__all__ = ["TASKS", "Task"]
