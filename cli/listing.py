"""Commands that list what there is: `sources`, `recipes`, `models`, `tasks`.

Tables of at most 100 columns, printed without loading torch; only the arguments of one model
need its class.
"""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import fields

import click

from cli.options import Word
from cli.output import say

WIDTH = 100

_DWS = "Navon et al. 2023"
_NFN = "Zhou et al. 2023"
_OURS = "ours"

# The paper and a line of each model.
MODELS = {
    "dws": (_DWS, "DWSNets: every linear map that commutes with permuting hidden neurons."),
    "nfn-np": (_NFN, "NFN-NP: also the neurons of input and output permuted; positions tell them."),
    "nfn-hnp": (_NFN, "NFN-HNP: hidden neurons alone."),
    "nfn-pt": (_NFN, "NFN-PT: pointwise, the same map for every entry; the control."),
    "monomial": ("Tran et al. 2024", "Monomial-NFN: also scales (ReLU) and signs (sine, tanh)."),
    "graded": (_OURS, "Exact for permutations, signs and phases of hidden neurons, at any depth."),
    "probe": ("Kahana et al. 2025", "Reads what networks answer to learned inputs, not weights."),
    "mlp": (_DWS, "A perceptron on the flat vector of weights."),
    "mlp-aug": (_DWS, "`mlp`, trained on randomly permuted networks."),
    "mlp-align": (_DWS, "`mlp` on networks after weight matching to a reference."),
    "inr2vec": ("De Luigi et al. 2023", "Rows of weights as a set: perceptron, max pool."),
    "transformer": (_DWS, "Rows of weights as tokens."),
    "statnn": ("Unterthiner et al. 2020", "A perceptron on statistics of every tensor."),
}
# The paper and a line of each task.
TASKS = {
    "classify": (f"{_DWS}, {_NFN}", "The class of a network's picture."),
    "regress": (_DWS, "A number that a network's signal was made with."),
    "generalize": (_NFN, "The test accuracy of a classifier, from its weights."),
    "ssl": (_DWS, "A dense representation without labels, by SimCLR."),
    "adapt": (_DWS, "Classifiers changed so that they read corrupted pictures."),
    "edit": (_NFN, "INRs changed so that their picture is dilated or has more contrast."),
    "tickets": (_NFN, "Which weights of an untrained network to keep, by a variational encoder."),
}  # fmt: skip


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of at most `WIDTH` columns; the last column is broken into as many as it takes."""
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:-1]]
    indent = sum(widths) + 2 * len(widths)
    for *cells, text in rows:
        start = "".join(f"{cell:<{width}}  " for cell, width in zip(cells, widths, strict=True))
        lines = textwrap.wrap(text, max(20, WIDTH - indent), break_on_hyphens=False) or [""]
        yield (start + lines[0]).rstrip()
        yield from (" " * indent + line for line in lines[1:])


def _known(kind: str, name: str, names: Sequence[str]) -> str:
    if name not in names:
        raise ValueError(f"unknown {kind} {name!r}; known: {', '.join(names)}")
    return name


@click.command()
def sources() -> None:
    """List what networks can be fitted to."""
    from zoo.sources import SOURCES

    for line in table([(name, entry.about) for name, entry in SOURCES.items()]):
        say(line)


@click.command()
@click.argument("name", required=False)
@click.option(
    "--source", type=Word("the name of a source"), default="mnist", show_default=True,
    help="Some recipes differ by it.",
)  # fmt: skip
def recipes(name: str | None, source: str) -> None:
    """List the recipes, or the fields of the one called NAME."""
    from zoo.recipes import RECIPES, command_of, flag

    if name is None:
        rows = [
            (known, f"wszoo {command_of(known)}", _first_line(make.__doc__))
            for known, make in RECIPES.items()
        ]
        for line in table(rows):
            say(line)
        say()
        say("`wszoo recipes NAME` prints the fields of one, each of which is a flag.")
        return
    make = RECIPES[_known("recipe", name, list(RECIPES))]
    for line in table([(f"{name}:", _first_line(make.__doc__))]):
        say(line)
    say(f"  wszoo {command_of(name)}")
    chosen = make(source)
    for field in fields(chosen):
        if field.name != "name":
            value = getattr(chosen, field.name)
            say(f"  {flag(field.name):<18} {'none' if value is None else value}")


def _first_line(text: str | None) -> str:
    return (text or "").strip().splitlines()[0]


@click.command()
@click.argument("name", required=False)
def models(name: str | None) -> None:
    """List the models that read networks, or what is to be known of the one called NAME.

    Of one it prints the arguments of its class, for --set, and for each task what is taken
    where nothing else is asked for, with the paper or file that it comes from.
    """
    if name is None:
        for line in table([(known, *about) for known, about in MODELS.items()]):
            say(line)
        say()
        say("`wszoo models NAME` prints the arguments of one, and its settings by task and preset.")
        return
    paper, about = MODELS[_known("model", name, list(MODELS))]
    for line in table([(f"{name}:", f"{about} {'' if paper == _OURS else paper + '.'}")]):
        say(line)
    say()
    say("arguments, by --set NAME=VALUE:")
    for line in table([("", argument, value) for argument, value in _arguments(name)]):
        say(line)
    say()
    say("what is taken where nothing else is asked for, by --preset; each line over those above:")
    for line in table([("", *each) for each in _taken(name)]):
        say(line)


def _arguments(name: str) -> Iterator[tuple[str, str]]:
    """What --set takes of a model, with defaults."""
    from inspect import Parameter

    from processors.models import sizes_of

    for argument, default in sizes_of(name).items():
        yield argument, "needed" if default is Parameter.empty else f"{default}"


def _taken(name: str) -> Iterator[tuple[str, str, str]]:
    """The entries of the presets for a model: preset, task with its zoos, what they say."""
    from processors.presets import SMALL, TABLE

    for entry in (*TABLE, *SMALL):
        if (entry.models and name not in entry.models) or name in entry.but:
            continue
        if not any((entry.settings, entry.sizes, entry.options)):
            continue
        kind = {None: "", True: "CNNs", False: "MLPs"}[entry.conv]
        wide = "wide inputs" if entry.wide else ""
        many = f"from {entry.least:,} networks on" if entry.least else ""
        zoos = ", ".join([*entry.recipes, *entry.sources, *filter(None, (kind, wide, many))])
        words = [
            f"{key.replace('_', '-')} {'none' if value is None else value}"
            for key, value in {**entry.settings, **entry.options}.items()
        ]
        words += [f"{key}={value}" for key, value in entry.sizes.items()]
        about = f"{entry.about}, {entry.source}" if entry.about else entry.source
        note = f"; {entry.note}" if entry.note else ""
        where = f"{entry.task} ({zoos})" if zoos else entry.task
        yield entry.preset, where, f"{', '.join(words)} [{about}{note}]"


@click.command()
def tasks() -> None:
    """List what models can be trained for; `wszoo train TASK --help` has the flags of one."""
    for line in table([(name, *about) for name, about in TASKS.items()]):
        say(line)
