"""What rows and experiments are called, in words.

A row is called by its model, by what it is made of where that is not the paper's, and by what
tells it from the other rows of its table; by nothing else.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from processors.presets import Situation, chosen, plain_source
from processors.published import Table
from processors.results import Row, Section, power
from zoo import fitted_by

# Of runs of before there were presets.
BEFORE = "†"
_MODELS = {
    "dws": "DWSNets", "nfn-np": "NFN-NP", "nfn-hnp": "NFN-HNP", "nfn-pt": "NFN-PT",
    "monomial": "Monomial-NFN", "mlp": "MLP", "mlp-aug": "MLP + permutations",
    "mlp-align": "MLP + weight matching", "inr2vec": "INR2Vec", "transformer": "Transformer",
    "statnn": "StatNN", "graded": "graded", "probe": "probe",
    "originals": "small CNN on the originals", "renders": "small CNN on the renders",
}  # fmt: skip
# Readers of functions that only papers have.
_FUNCTION = ("ProbeGen", "probe")
_SOURCES = {
    "mnist": "MNIST", "fashion-mnist": "Fashion-MNIST", "cifar10": "CIFAR-10", "digits": "digits",
    "sine": "sine wave", "shapes": "solid", "adrenalmnist3d_64.npz": "AdrenalMNIST3D",
}  # fmt: skip
_TASKS = {
    "classify": "the class of {source} networks",
    "regress": "{target} of {source} networks",
    "ssl": "a representation of {source} networks",
    "adapt": "{source} classifiers adapted to corrupted pictures",
    "generalize": "the accuracy of {source} networks",
    "edit": "{source} networks edited: {edit}",
    "tickets": "winning tickets of {source} networks",
}
# What an experiment on parts of a model is about.
_PARTS = {
    "blocks": "blocks", "norm": "augmentation and batch norm", "positions": "positions",
    "channels": "depth",
}  # fmt: skip
# What a model is made of, and what the paper's class has where no preset says it.
_MADE_OF = ("variant", "channels", "chan", "input_rank")
_USUAL: dict[str, dict[str, Any]] = {"dws": {"variant": "attention", "chan": 32}}


def model_words(name: str) -> str:
    """A model in words; one of a user's own by its name."""
    return _MODELS.get(name, name)


def reads(name: str) -> str:
    """What a published row sees of networks."""
    if name in ("dense", "random") or name.startswith("magnitude"):
        return ""
    return "function" if name.partition(" ")[0] in _FUNCTION else "weights"


def published_words(name: str) -> str:
    """A row of a paper's table in words.

    >>> published_words("dws norm=false augment=none")
    'DWSNets, without batch norm, without augmentation'
    >>> published_words("nfn-np, one copy")
    'NFN-NP, one copy'
    """
    head, comma, rest = name.partition(",")
    first, *words = head.split(" ")
    if first not in _MODELS:
        return name
    told = [_phrase(*_split(word)) for word in words]
    return ", ".join([_MODELS[first], *told]) + comma + rest


def _split(word: str) -> tuple[str, Any]:
    key, _, value = word.partition("=")
    return key, {"false": False, "true": True}.get(value, value)


def source_words(source: str) -> str:
    """A source in words; a folder by its own name."""
    plain = plain_source(source)
    return _SOURCES.get(plain, plain)


def subject(section: Section) -> str:
    """What a section is about, in words."""
    config = section.config
    recipe, options = config["recipe"], config["task_options"]
    source = source_words(config["source"])
    told = {"source": source, "target": options.get("target") or "targets"}
    pattern = _TASKS.get(config["task"], f"{config['task']} on {{source}} networks")
    text = pattern.format(**told, edit=options.get("edit", ""))
    if section.part:
        (table,) = section.tables
        text = f"{_PARTS[table.varies[0]]} of {model_words(table.of)}, {text}"
    made = fitted_by(recipe)
    name = " ".join(word for word in (made.get("name", ""), made.get("activation", "")) if word)
    text = f"{text}, recipe {name}" if name else text
    return f"{text}, where {condition(recipe['where'])}" if recipe.get("where") else text


# Headings are linked to, and renderers do not agree on what is left of such signs.
_SIGNS = {
    "<=": "at most", ">=": "at least", "==": "is", "!=": "is not", "<": "below", ">": "above",
}  # fmt: skip


def condition(where: str) -> str:
    """A condition of `wszoo select` in words.

    >>> condition("view < 2 and psnr_db >= 25")
    'view below 2 and psnr_db at least 25'
    """
    signs = "|".join(map(re.escape, _SIGNS))
    return re.sub(rf"\s*({signs})\s*", lambda found: f" {_SIGNS[found[1]]} ", where)


def heading(section: Section) -> str:
    """The title of a section, in one line."""
    config = section.config
    identity = f"{section.identity}: " if section.identity else ""
    text = subject(section)
    # Names of users' own stay as they are.
    if not identity and ":" not in config["task"]:
        text = text[:1].upper() + text[1:]
    return f"{identity}{text}; {section.networks:,} for training"


# ---- what tells rows apart


def _several(value: Any, words: str) -> str:
    """Channels of all layers, as one number where they are alike but for the last."""
    if not isinstance(value, list | tuple):
        return f"{value} {words}"
    if len(set(value[:-1] or value)) == 1:
        return f"{value[0]} {words}"
    return f"{', '.join(map(str, value))} {words}"


def _flag(yes: str, no: str) -> Callable[[Any], str]:
    return lambda value: yes if value else no


_PHRASES: dict[str, Callable[[Any], str]] = {
    "variant": lambda value: "DeepSets" if value == "deepsets" else str(value),
    "positions": lambda v: "without positions" if v == "none" else f"{v} positions",
    "norm": _flag("with batch norm", "without batch norm"),
    "blocks": lambda value: {
        "b2b": "bias to bias", "w2w": "weight to weight", "both": "bias and weight to themselves",
        "diagonal": "with the diagonal ones", "all": "all blocks",
    }.get(value, str(value)),
    "augment": lambda value: (
        "without augmentation" if value == "none"
        else f"augmented by {', '.join(str(value).split(','))}"
    ),
    "channels": lambda value: _several(value, "channels"),
    "base_channels": lambda value: _several(value, "channels in its base"),
    "chan": lambda value: f"{value} channels",
    "views": lambda value: f"mean of {value} views" if value != 1 else "of one view",
    "input_rank": lambda value: f"a map of inputs of rank {value}" if value else "",
    "hidden": lambda value: "hidden features" if value is True else f"{value} hidden layers",
    "canonical": lambda value: {
        True: "canonical weights", False: "weights as they are",
    }.get(value, f"canonical {value}"),
    "kind": lambda value: "as published" if value == "editing" else str(value),
    "rescale": lambda value: f"neurons scaled by up to {power(value)}",
    "flip": _flag("flipped", "not flipped"),
    "target": str,
    "edit": str,
    "epochs": lambda value: f"{value:,} epochs" if value != 1 else "1 epoch",
    "steps": lambda value: f"{value:,} updates",
    "lr": lambda value: f"rate {value:g}",
    "target_psnr_db": lambda value: f"networks of {value:g} dB" if value else "no aim in dB",
    "shared_init": _flag("one shared start", "independent starts"),
}  # fmt: skip


def _phrase(name: str, value: Any) -> str:
    """What is otherwise, in words."""
    if value is None:
        return ""
    if name in _PHRASES:
        return _PHRASES[name](value)
    words = name.replace("_", " ")
    if isinstance(value, bool):
        return words if value else f"no {words}"
    if isinstance(value, list | tuple):
        value = ", ".join(map(str, value))
    return f"{words} {value:g}" if isinstance(value, float) else f"{words} {value}"


def _made_of(row: Row) -> dict[str, Any]:
    """What a model is made of, where that is not what its paper does."""
    config = row.configs[0]
    model, recipe = config["model"], str(fitted_by(config["recipe"]).get("name", ""))
    of = Situation(config["task"], model, recipe, config["source"], recipe == "small-cnn")
    usual = {"input_rank": 0, **_USUAL.get(model, {}), **chosen(of, "paper").sizes}
    sizes = {**config["model_sizes"], **config["sizes"]}
    return {
        name: sizes[name]
        for name in _MADE_OF
        if name in sizes and name in usual and sizes[name] != usual[name]
    }


def _differing(facts: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names that do not say the same in all of these."""
    names = dict.fromkeys(name for each in facts for name in each)
    return [n for n in names if any(each.get(n) != facts[0].get(n) for each in facts)]


# Told of every row that has it, whatever other rows there are.
_ALWAYS = ("views",)
# What rows of one model may differ by beside what was asked for, in the order in which it is
# looked at: told only where rows would have one name else.
_MORE: tuple[Callable[[Row], Mapping[str, Any]], ...] = (
    lambda row: {k: row.configs[0]["settings"].get(k) for k in ("epochs", "steps")},
    lambda row: {"lr": row.summaries[0]["lr"]},
    lambda row: row.configs[0]["settings"],
    lambda row: row.configs[0]["recipe"],
    lambda row: {"on": row.summaries[0]["device"]},
)


def names(rows: Sequence[Row], tables: Sequence[Table] = ()) -> list[str]:
    """What each row of a table is called; no two alike.

    Args:
        tables: of papers, that stand beside.
    """
    words: dict[int, list[str]] = {}
    alike: dict[tuple[str, bool], list[int]] = {}
    for number, row in enumerate(rows):
        alike.setdefault((row.model, row.before), []).append(number)
    for numbers in alike.values():
        made = [_made_of(rows[n]) for n in numbers]
        asked = [{**rows[n].configs[0]["sizes"], **rows[n].configs[0]["options"]} for n in numbers]
        told = [{**a, **m} for a, m in zip(asked, made, strict=True)]
        shown = {*_differing(told), *(name for each in made for name in each)}
        for n, each in zip(numbers, told, strict=True):
            words[n] = [
                _phrase(name, value)
                for name, value in each.items()
                if name in shown or (name in _ALWAYS and value)
            ]
        for more in _MORE:
            same = _twice(numbers, words)
            for group in same:
                facts = [more(rows[n]) for n in group]
                for n, fact in zip(group, facts, strict=True):
                    words[n] += [_phrase(name, fact.get(name)) for name in _differing(facts)]
        for group in _twice(numbers, words):
            for place, n in enumerate(group, 1):
                words[n].append(f"training {place}")
    varied = {name for table in tables for name in table.varies}
    return [_name(row, [word for word in words[n] if word], varied) for n, row in enumerate(rows)]


def _name(row: Row, words: Sequence[str], varied: set[str]) -> str:
    whole = "the whole" if varied and not words else ""
    text = ", ".join(word for word in (model_words(row.model), whole, *words) if word)
    return f"{text} {BEFORE}" if row.before else text


def _twice(numbers: Sequence[int], words: Mapping[int, Sequence[str]]) -> list[list[int]]:
    """Rows that have one name so far."""
    found: dict[tuple[str, ...], list[int]] = {}
    for n in numbers:
        found.setdefault(tuple(word for word in words[n] if word), []).append(n)
    return [group for group in found.values() if len(group) > 1]
