"""The model card of a finished run: what it reaches, a figure, five lines that run it.

Everything is taken from the run's files, so the card is made anew whenever the run is pushed,
with the ceiling of its zoo if that was measured by then.
"""

import contextlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from processors.metrics import CEILINGS, metric
from processors.models import ACCESS
from processors.records import CEILING, same_zoo
from zoo import ZooError, schema

# Stands in a card until it is known where the model will lie.
HERE = "PATH or user/name"
# A card with this line is made anew when it is pushed; one without, as people write them, stays.
MARK = "<!-- Made by wszoo; without this line a push leaves the card as it is. -->"
_READS = {
    "weights": "the weights of networks alone",
    "function": "networks by their answers to inputs",
}
_CAPTIONS = {
    "confusion": "Test split: shares of each true class",
    "curves": "The training: its loss, and the metric of the validation split",
    "predicted": "Test split: what was predicted, and what is true",
    "tsne": "Test split: features in the plane (t-SNE)",
}


def card(
    config: Mapping[str, Any],
    summary: Mapping[str, Any],
    figures: Sequence[str],
    place: str = HERE,
    ceilings: Sequence[tuple[str, float]] | None = None,
) -> str:
    """The model card of a finished run, Markdown with the Hub's metadata.

    Args:
        figures: paths beside the card.
        place: where the model lies, for `processors.load`.
        ceilings: see `ceilings`; None looks for them where the run's zoo lies.
    """
    found = ceilings_of(config, summary) if ceilings is None else ceilings
    model, task, zoo = summary["model"], summary["task"], summary["zoo"]
    reads = _READS.get(ACCESS.get(model, ""), "networks")
    last = sorted(figures, key=lambda name: Path(name).stem == "curves")
    parts = [
        f"---\n{_header(config, summary)}\n---",
        f"# {model} for {task}",
        f"A model that reads {reads}, trained by `wszoo train {task}` on {summary['networks']:,} "
        f"networks of the zoo `{zoo}`. {_reached(config, summary, found)}",
        *(_picture(name) for name in last[:1]),
        "## Load it",
        _lines(config, summary, place),
        "## What it reaches",
        _results(summary, found),
        "## How it was trained",
        _training(config, summary),
        f"Made by `{config['command']}`, on the zoo whose index has the sha256 "
        f"`{config['zoo_sha256'][:16]}`. `model/` has the best weights on the validation split.",
        *(_picture(name) for name in last[1:]),
        MARK,
    ]
    return "\n\n".join(parts) + "\n"


def ceilings_of(config: Mapping[str, Any], summary: Mapping[str, Any]) -> list[tuple[str, float]]:
    """What pictures tell in the run's task and metric, in words; from beside its zoo, if there."""
    found: list[tuple[str, float]] = []
    with contextlib.suppress(ZooError, OSError, LookupError, TypeError):
        for record in schema.read_json(Path(config["zoo"]) / CEILING):
            about, theirs = record["config"], record["summary"]
            if about["task"] != config["task"] or summary["metric"] not in theirs["test"]:
                continue
            if same_zoo(config["zoo"], about["zoo_sha256"], config["zoo_sha256"]):
                found.append((CEILINGS[about["model"]], theirs["test"][summary["metric"]]))
    return found


def _header(config: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    """The metadata, as the Hub spells it: the zoo, and the metrics as its model index."""
    from huggingface_hub import EvalResult, ModelCardData

    zoo = summary["zoo"]
    named = re.fullmatch(r"([\w.-]+/[\w.-]+)(/[\w.-]+)?", zoo)
    dataset = named[1] if named and not Path(zoo).exists() else config["zoo_name"]
    results = [
        EvalResult(
            task_type="other",
            task_name=summary["task"],
            dataset_type=dataset,
            dataset_name=config["zoo_name"],
            dataset_split="test",
            metric_type=name,
            metric_name=metric(name).words,
            metric_value=value,
        )
        for name, value in summary["test"].items()
    ]
    return ModelCardData(
        library_name="wszoo",
        license="mit",
        tags=["weight-space", summary["task"], summary["model"]],
        datasets=[dataset],
        metrics=[summary["metric"]],
        model_name=f"{summary['model']} for {summary['task']}",
        eval_results=results,
    ).to_yaml()


def _number(name: str, value: float) -> str:
    """A value of a metric in its unit."""
    shown = metric(name)
    return f"{shown.factor * value:.4g} {shown.unit}".rstrip()


def _reached(
    config: Mapping[str, Any], summary: Mapping[str, Any], ceilings: Sequence[tuple[str, float]]
) -> str:
    """The result in a sentence, with what it is to be measured by."""
    name = summary["metric"]
    rows, told = config["networks"].get("test", 0), _number(name, summary["test"][name])
    parts = [f"On the {rows:,} of the test split: **{metric(name).words} {told}**"]
    if "constant" in summary:
        constant = summary["constant"]
        parts.append(f"{constant['name']} is {_number(name, constant['score'])}")
    for what, value in ceilings:
        parts.append(f"{what} reaches {_number(name, value)}")
    return "; ".join(parts) + "."


def _lines(config: Mapping[str, Any], summary: Mapping[str, Any], place: str) -> str:
    options = config["task_options"]
    told = ", ".join(
        f"{name}={options[name]!r}" for name in ("sparsity", "scope", "pick") if name in options
    )
    answers = {
        "tickets": f"model.masks(weights, {told})",
        "classify": "model(weights).argmax(dim=1)",
    }
    answer = answers.get(summary["task"], "model(weights)")
    return "\n".join(
        [
            "```python",
            "import processors, zoo",
            "",
            f'model = processors.load("{place}").eval()',
            f'rows = zoo.open_zoo("{summary["zoo"]}", split="test")',
            "weights, columns = rows.batch(range(8))",
            f"print({answer})",
            "```",
        ]
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _results(summary: Mapping[str, Any], ceilings: Sequence[tuple[str, float]]) -> str:
    """Every metric of both splits; chance and ceiling beside the first."""
    names = list(dict.fromkeys([*summary["test"], *summary["validation"]]))
    rows = [
        [metric(name).words]
        + [
            _number(name, summary[split][name]) if name in summary[split] else ""
            for split in ("test", "validation")
        ]
        for name in names
    ]
    first = summary["metric"]
    if "constant" in summary:
        constant = summary["constant"]
        words = f"{constant['name']}, without reading networks"
        rows.append([words, _number(first, constant["score"]), ""])
    rows += [[f"ceiling: {what}", _number(first, value), ""] for what, value in ceilings]
    return _table(["", "test", "validation"], rows)


def _training(config: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    rows = [
        ["networks", f"{summary['networks']:,}"],
        ["updates", f"{summary['steps']:,} of {config['settings']['batch']} networks"],
        ["parameters", f"{summary['parameters']:,}"],
        ["learning rate", f"{config['settings']['lr']:g}"],
        ["seed", str(summary["seed"])],
        ["device, minutes", f"{summary['device']}, {summary['minutes']:.1f}"],
    ]
    return _table(["trained with", ""], rows)


def _picture(name: str) -> str:
    stem = Path(name).stem
    caption = _CAPTIONS.get(stem, stem.replace("_", " ").capitalize())
    return f"![{caption}]({name})\n\n{caption}."
