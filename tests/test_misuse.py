"""Every parameter of every command, times the classes of bad value: exit 2 and one line.

The table is made by walking the commands, so that a new parameter without a line in `KINDS`
fails. All of it runs in one process that has not loaded torch, in which a line that needs no
torch must not load it.
"""

import json
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from cli.main import COMMANDS, wszoo

ROOT = Path(__file__).parents[1]
AGAIN = 77
HUGE = "1000000000000000000000"

# Bad values of each kind of parameter. A value in braces is a path that the test makes.
NOT_A_NUMBER = ("", "x", "nan", "inf", "-inf", "1e400", "1,5", "0x10")
NOT_WHOLE = (*NOT_A_NUMBER, "1.5", "1e3")
MISSING_FILE, A_FILE, UNDER_A_FILE = "{missing}", "{file}", "{file}/x"
KINDS: dict[str, tuple[str, ...]] = {
    "count": (*NOT_WHOLE, "0", "-1", HUGE),
    "some": (*NOT_WHOLE, "0", "-1"),  # more than there are means all
    "some or none": (*NOT_WHOLE, "-1"),
    "whole": (*NOT_WHOLE, "-1", HUGE),
    "positive": (*NOT_A_NUMBER, "0", "-1"),
    "not negative": (*NOT_A_NUMBER, "-1"),
    "number": NOT_A_NUMBER,
    "share": (*NOT_A_NUMBER, "-0.1", "1", "2"),
    "probability": (*NOT_A_NUMBER, "-0.1", "1.5"),
    "between": (*NOT_A_NUMBER, "-0.1", "0", "1", "2"),
    "range": ("", "x", "nan", "inf", "-1", "0", "1e400", "1..0", "1e-2..", "..1", "1..2..3"),
    "range from 0": ("", "x", "nan", "inf", "-1", "1e400", "1..0", "1e-2..", "0..1"),
    "dropout": ("", "x", "nan", "inf", "-1", "1", "0..1", "0.5..0.1"),
    "counts": (*NOT_A_NUMBER[:-2], "0", "-1", "1.5", "1,,2", "1,0", HUGE),
    "fractions": (*NOT_A_NUMBER[:-2], "0", "-0.1", "1.5", "0.5,,1", "0.5,2"),
    "rates": ("", "x", "nan", "inf", "0", "-1", "1e-3,", "1e-3,x", "1e-3,0"),
    "word": ("", "xyz", "nan", "0", "--", "Î"),
    "words": ("", "xyz", "adam,,sgd", "xyz,adam", ","),
    "source": ("", "mnits", "nan", "imagefolder:", "imagefolder:{missing}", "digits:x",
               "voxels:", "voxels:{missing}"),
    "recipe": ("", "xyz", "dsw", "fashion-mnist"),
    "other recipe": ("", "xyz", "dsw", "dws"),
    "part": ("", "x", "1", "1/0", "2/2", "3-1/4", "-1/4", "1-/4", "0/999999", "1.5/2", "nan"),
    "cluster": ("", "xyz", "http://host", "ray:"),
    "device": ("", "xyz", "meta", "cuda:x", "cuda:99", "nan"),
    "out": ("", A_FILE, UNDER_A_FILE),
    "report": ("", UNDER_A_FILE, "{empty}"),  # a file is replaced
    "zoo": ("", "{missing}", "nowhere/at/all", "{file}", "{empty}"),
    "run": ("", "{missing}", "{file}", "{empty}", "{zoo}"),
    "file": ("", "{missing}", "{empty}"),
    "folder": ("", "{file}"),
    "split": ("", "val", "xyz", "TRAIN", "nan"),
    "limits": ("", "x", "0", "-1", "1.5", "nan", "train=", "train=0", "xyz=5", "train=5,train=6",
               "train=5,", "5,6"),
    "sizes": ("", "width", "=3", "wdith=3", "width=x", "width=0", "width=-1", "width=null=3",
              "width=1e99", f"width={HUGE}", "params=0", "hidden=-1", "1=2"),
    "options": ("", "rescale", "=3", "nois=1", "noise=x", "noise=-1", "noise=NaN", "flip=3"),
    "model": ("", "mpl", "MLP", "nan"),
    "models": ("", "mpl", "dws,mpl", ",", "dws,,mlp"),
    "seeds": ("", "x", "-1", "1.5", "0,", "0,x", "nan", HUGE),
    "column": ("", "labels", "nan"),
    "columns": ("", "labels", "nan", "amplitude,,frequency", "amplitude,x"),
    "tracker": ("", "xyz", "nan"),
    "symmetries": ("", "x", "sign,sign", "sign,", ",", "nan", "SIGN"),
    "augment": ("", "mix", "noise,mix", "noise,,move", "nan"),
    "repository": ("", "name", "a/b/c/d", "../x", "user/na me", "user/", "/name", "user/..",
                   "-x/y"),
    "folder name": ("", "a/b", "../x", ".x", "a b", "data", "sample", "default"),
    "revision": ("", "a b", "../x", "-x", "a..b"),
    "text": ("",),
    "own": ("", "xyz", "json:Nothing", "nowhere:Task", "json:", ":Task", "json:dumps", "os.path"),
    "where": ("", "x", "psnr_db >", "psnr_db > x", "psnr > 8", "psnr_db = 8", "psnr_db > 8 and",
              "__import__('os')", "psnr_db > 1e400", "label in ()", "label in (x)", "weight_0 > 1",
              "psnr_db > 8)", "(" * 500, "nan", "psnr_db > 9999"),
    "format": ("", "xyz", "NFN", "state_dicts"),
    "size": ("", "x", "0", "-1", "1.5", "nan", "inf", "8x", "x8", "0x8", "8x8x8", "100000", HUGE),
}  # fmt: skip

# The kind of each parameter, by its name; by command and name where it differs.
PARAMETERS: dict[str, str] = {
    "source": "source", "recipe": "recipe", "out": "out", "limit": "some", "seed": "whole",
    "shard_rows": "some", "workers": "count", "engine": "word", "device": "device",
    "threads": "count", "data_root": "folder", "part": "part", "cluster": "cluster",
    "cpus_per_task": "positive", "gpus_per_task": "not negative", "in_flight": "some",
    # recipes
    "hidden": "count", "layers": "count", "omega": "positive", "output_offset": "number",
    "init": "words", "lr": "positive", "weight_decay": "not negative", "beta1": "share",
    "beta2": "share", "eps": "positive", "steps": "count", "coord_order": "word",
    "black": "number", "white": "number", "target_psnr_db": "number", "min_psnr_db": "number",
    "views": "count", "split": "word", "size": "size", "waves": "count", "points": "count",
    "fit": "word", "lr_warmup": "whole", "first_omega": "positive", "signal": "word",
    "pool": "word", "batch_points": "count", "pool_points": "count", "solids": "count",
    "min_iou": "probability", "encoding": "word", "frequencies": "count",
    "fit-inrs.scale": "positive", "plan.scale": "positive",
    "min_amplitude": "number", "max_amplitude": "number", "min_frequency": "number",
    "max_frequency": "number", "target_mse": "number", "network": "word",
    "activation": "word", "stride": "count", "epochs": "count", "optimiser": "words",
    "batch": "counts", "init_scale": "range", "init_std": "range", "fraction": "fractions",
    "dropout": "dropout", "loss_items": "count", "networks": "count", "runs": "count",
    "checkpoints": "word", "interval": "count", "kept": "count",
    "validation_share": "share", "test_share": "share", "dtype": "word",
    "fit-classifiers.lr": "range", "fit-classifiers.weight_decay": "range from 0",
    "fit-trajectories.lr": "range", "fit-trajectories.weight_decay": "range from 0",
    "models.name": "model", "own_task": "own",
    "recipes.name": "recipe", "recipes.source": "text",
    # merge, import
    "merge.parts": "zoo", "format": "format", "import.path": "zoo", "labels": "file",
    "splits": "file", "import.activation": "word", "import.omega": "positive", "spec": "file",
    "match": "text", "key": "text", "order": "text", "norm": "word", "norm_eps": "positive",
    "group": "word", "import.column": "text", "check_against": "source",
    "select.where": "where", "zoos": "zoo", "zoo.source": "source",
    # looking
    "path": "zoo", "revision": "revision", "samples": "some or none",
    "refit": "some or none",
    "count": "some", "show.split": "split", "show.out": "report", "show.html": "report",
    "report.out": "report",
    # training
    "zoo": "zoo", "model": "model", "sizes": "sizes", "lr_grid": "rates",
    "split_limit": "limits", "log_with": "tracker", "augment": "augment",
    "noise": "not negative", "drop": "share", "degrees": "not negative", "shift": "not negative",
    "zoom": "share", "strength": "not negative", "variants": "count",
    "images": "count", "eval_images": "count", "train.batch": "count", "warmup": "whole",
    "schedule": "word", "clip": "positive", "accumulate": "count", "precision": "word",
    "evaluations": "count", "patience": "count", "target": "column", "edit": "word",
    "loss": "word", "rescale": "not negative", "dimension": "count", "temperature": "positive",
    "projection": "whole", "train.views": "whole", "targets": "columns", "preset": "word",
    "pair": "word", "train.select": "word",
    "sparsity": "between", "retrain_steps": "whole", "retrain_networks": "some",
    "train.scope": "word",
    "train.pick": "word",
    "train.optimiser": "word", "task": "word",
    "eval.run": "run", "eval.split": "split", "options": "options", "keep": "report",
    "report.runs": "run", "card.runs": "run", "report.keep": "report", "experiment": "word",
    "scale": "word",
    "models": "models", "seeds": "seeds", "reproduce.limit": "some", "reproduce.epochs": "count",
    "campaign.file": "file", "randomise": "symmetries", "ceiling.batch": "count",
    # the Hub
    "repo_id": "repository", "within": "folder name", "message": "text", "pull.split": "split",
}  # fmt: skip

# What makes each command right but for the one bad value; by parameter.
FIT = {"limit": "2", "out": "made", "no_parquet": None}
TRAIN = {"model": "mlp", "out": "made", "sizes": "width=4", "steps": "1", "device": "cpu"}
BASE: dict[str, dict[str, str | None]] = {
    "fit-inrs": {"source": "digits", "steps": "1", "hidden": "4", **FIT},
    "fit-classifiers": {"source": "digits", "hidden": "4", "layers": "2", **FIT},
    "fit-trajectories": {"source": "digits", "hidden": "4", "layers": "2", "epochs": "1", **FIT},
    "plan": {"source": "digits", "steps": "1", "hidden": "4", "limit": "2"},
    "merge": {"parts": "{part-0} {part-1}", "out": "made"},
    "import": {"format": "state-dicts", "path": "{nets}", "activation": "relu", "out": "made"},
    "recipes": {},
    "sources": {}, "models": {}, "tasks": {},
    "select": {"zoo": "{zoo}", "where": "psnr_db > 8", "out": "made", "no_parquet": None},
    "concat": {"zoos": "{zoo} {zoo}", "out": "made", "equal_keys": None, "no_parquet": None},
    "view": {"zoo": "{copy}"},
    "card": {"zoo": "{copy}"},
    "info": {"path": "{zoo}"},
    "verify": {"path": "{zoo}"},
    "show": {"path": "{zoo}", "out": "made.png"},
    "train adapt": {"zoo": "{classifiers}", **TRAIN},
    "train classify": {"zoo": "{zoo}", **TRAIN},
    "train edit": {"zoo": "{zoo}", **TRAIN},
    "train generalize": {"zoo": "{classifiers}", **TRAIN},
    "train regress": {"zoo": "{waves}", **TRAIN, "target": "frequency"},
    "train ssl": {"zoo": "{waves}", **TRAIN},
    "train tickets": {"zoo": "{runs}", **TRAIN, "model": "nfn-np", "sizes": "chan=2"},
    "eval": {"run": "{run}", "zoo": "{waves}", "device": "cpu"},
    "ceiling": {"zoo": "{zoo}", "epochs": "1", "device": "cpu"},
    "report": {"runs": "{run}", "out": "made.md"},
    "reproduce": {"experiment": "sine-regression", "limit": "20", "out": "made",
                  "models": "statnn", "epochs": "1", "seeds": "0"},
    "campaign": {"file": "{list}", "out": "made", "dry_run": None},
    "push": {"path": "{zoo}", "repo_id": "user/name", "dry_run": None},
    "pull": {"repo_id": "user/name", "out": "made"},
}  # fmt: skip
# Where another parameter has to be given, or left out, for one to mean something.
WITH: dict[str, dict[str, str | None]] = {
    "fit-inrs.waves": {"source": "sine"}, "fit-inrs.points": {"source": "sine"},
    "fit-inrs.min_amplitude": {"source": "sine"}, "fit-inrs.max_amplitude": {"source": "sine"},
    "fit-inrs.min_frequency": {"source": "sine"}, "fit-inrs.max_frequency": {"source": "sine"},
    "fit-inrs.target_mse": {"source": "sine"},
    "plan.waves": {"source": "sine"}, "plan.points": {"source": "sine"},
    "plan.min_amplitude": {"source": "sine"}, "plan.max_amplitude": {"source": "sine"},
    "plan.min_frequency": {"source": "sine"}, "plan.max_frequency": {"source": "sine"},
    "plan.target_mse": {"source": "sine"},
    **{f"{command}.{name}": {"source": "shapes"} for command in ("fit-inrs", "plan")
       for name in ("signal", "clip", "loss", "pool", "batch_points", "pool_points", "solids",
                    "min_iou")},
    **{f"{command}.{name}": {"encoding": "fourier"} for command in ("fit-inrs", "plan")
       for name in ("frequencies", "scale")},
    "cpus_per_task": {"cluster": "local"}, "gpus_per_task": {"cluster": "local"},
    "in_flight": {"cluster": "local"}, "device": {"engine": "reference"},
    "import.norm_eps": {"norm": "after"}, "import.omega": {"activation": "sin"},
    "fit-trajectories.interval": {"checkpoints": "every"},
    "fit-trajectories.kept": {"checkpoints": "random"},
    "card.runs": {"results": None},
    "train.epochs": {"steps": ""}, "reproduce.seeds": {},
}  # fmt: skip

# Things that are right alone and wrong together.
CONTRADICTIONS: list[tuple[str, str]] = [
    ("fit-inrs digits --black 1 --white 0", "--white|--black"),
    ("fit-inrs digits --black 0.5 --white 0.5", "--white|--black"),
    ("fit-inrs sine --min-amplitude 2 --max-amplitude 1", "--min-amplitude|--max-amplitude"),
    ("fit-inrs sine --min-frequency 2 --max-frequency 1", "--min-frequency|--max-frequency"),
    ("fit-inrs sine --recipe dws", "recipe"),
    ("fit-inrs digits --recipe sine-ssl", "recipe"),
    ("fit-inrs digits --recipe binary", "recipe"),
    ("fit-inrs digits --waves 5", "--waves|waves"),
    ("fit-inrs digits --solids 5", "--solids|solids"),
    ("fit-inrs digits --recipe udf", "recipe"),
    ("fit-inrs shapes --recipe dws", "recipe"),
    ("fit-inrs shapes --hidden auto", "shapes"),
    ("fit-inrs shapes --size 8", "size"),
    ("fit-inrs voxels:{missing}", "file"),
    ("fit-inrs digits --activation relu --omega 20", "omega"),
    ("fit-inrs digits --activation tanh --first-omega 20", "first_omega|--first-omega"),
    ("fit-inrs digits --init torch", "init"),
    ("fit-inrs digits --frequencies 64", "--encoding"),
    ("plan shapes --encoding none --scale 3", "--encoding"),
    ("fit-inrs digits --activation gelu --engine cpu --out made", "--engine"),
    ("fit-inrs sine --encoding fourier --engine cpu --out made", "--engine"),
    ("fit-classifiers shapes", "shapes"),
    ("fit-inrs sine --views 2", "--views|views"),
    ("fit-inrs digits --recipe nfn --hidden auto", "--target-psnr"),
    ("plan digits --target-psnr none --steps auto", "--target-psnr"),
    ("plan digits --recipe binary", "recipe"),
    ("fit-inrs digits --workers 2 --cluster local", "--workers"),
    ("fit-inrs digits --shards 0/2 --cluster local", "--shards"),
    ("fit-inrs digits --in-flight 2", "--in-flight"),
    ("fit-inrs digits --out s3://bucket/zoo", "--cluster"),
    ("fit-inrs digits --engine cpu --device cuda", "--device|--engine"),
    ("fit-classifiers digits --engine cuda", "--engine"),
    ("fit-classifiers digits --recipe dws", "recipe"),
    ("fit-classifiers digits --network mlp --stride 3 --runs 4", "--runs"),
    ("fit-trajectories digits --validation-share 0.6 --test-share 0.6", "share"),
    ("fit-trajectories digits --checkpoints every --batch 64,128", "--checkpoints|--batch"),
    ("fit-trajectories digits --checkpoints every --fraction 0.5,1", "--checkpoints|--fraction"),
    ("fit-trajectories digits --recipe binary", "recipe"),
    ("import nfn {nets} --labels {file}", "--labels"),
    ("import dws {nets} --activation relu", "--activation"),
    ("import state-dicts {nets} --activation relu --spec {file}", "--activation"),
    ("import small-cnn-zoo {nets} --spec {file}", "--spec"),
    ("train classify {zoo} --model mlp --epochs 2 --steps 2", "--epochs|--steps"),
    ("train classify {zoo} --model mlp --set width=4 --set width=5", "width"),
    ("train classify {zoo} --model mlp --set chan=4", "chan"),
    ("train classify {zoo} --model transformer --set width=3", "multiple of heads, got 3 and 8"),
    ("train classify {zoo} --model mlp --split-limit 0", "--split-limit"),
    ("train classify {waves} --model mlp", "--target|class"),
    ("train regress {zoo} --model mlp", "real|--target"),
    ("train regress {waves} --model mlp", "--target"),
    ("train generalize {zoo} --model mlp", "accuracy"),
    ("train edit {zoo} --model statnn", "statnn"),
    ("train tickets {runs} --model mlp", "mlp"),
    ("train adapt {zoo} --model mlp", "classifiers"),
    ("train classify {zoo} --model mlp --augment scale", "scale"),
    ("train classify {zoo} --model mlp --lr 1e-3 --lr-grid 1e-3,1e-2", "--lr-grid"),
    ("eval {run} {zoo}", "frequency"),
    ("eval {run} {waves} --split train --keep kept.json", "--keep|kept"),
    ("eval {run} {waves} --option noise=1 --option noise=2", "noise"),
    ("eval {run} {waves} --randomise scale", "scale"),
    ("ceiling {waves}", "pictures"),
    ("report {run} --out {run}", "--out"),
    ("info {zoo} --revision main", "revision"),
    ("verify {zoo} --samples 0 --refit 0 --seed -1", "--seed"),
    ("merge {zoo} {zoo} --out {zoo}", "part"),
]  # fmt: skip
# Parameters whose bad values only torch, or what it opens, can tell.
HEAVY = {
    "where", "zoos", "own_task", "experiment",
    "device", "sizes", "options", "log_with", "target", "targets", "zoo", "run", "runs", "path",
    "parts", "split", "revision", "augment", "model", "models", "out", "keep", "labels", "splits",
    "spec", "key", "match", "order", "group", "column", "split_limit",
}  # fmt: skip


def parameters() -> Iterator[tuple[str, click.Parameter]]:
    """Command and parameter, all of them."""
    context = click.Context(wszoo)

    def walk(path: str, command: click.Command | None) -> Iterator[tuple[str, click.Parameter]]:
        assert command is not None
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                yield from walk(f"{path} {name}", command.get_command(context, name))
        else:
            yield from ((path, parameter) for parameter in command.params)

    for name in COMMANDS:
        yield from walk(name, wszoo.get_command(context, name))


def kind_of(command: str, name: str) -> str:
    """Of a parameter, most specific first."""
    for key in (f"{command}.{name}", f"{command.partition(' ')[0]}.{name}", name):
        if key in PARAMETERS:
            return PARAMETERS[key]
    raise KeyError(f"{command} {name}: say in PARAMETERS what kind of value it takes")


def words_of(command: str, changes: dict[str, str | None], but: str = "") -> list[str]:
    """A command line: the right values with changes; `but` one, which is to come last."""
    known = {p.name: p for c, p in parameters() if c == command}
    values = {**BASE[command], **changes}
    words, places = command.split(), []
    for name, parameter in known.items():
        if name not in values or name == but:
            continue
        value = values[name]
        if isinstance(parameter, click.Argument):
            places += str(value).split() or [""]
        elif value is None:
            words.append(parameter.opts[0])
        else:
            words += [parameter.opts[0], value]
    # Before an option that comes last, places are not marked off.
    return [*words, *["--"][: bool(places) and not but], *places]


def table() -> Iterator[dict[str, Any]]:
    """Every line: the words, what the error must name, whether torch may be loaded."""
    seen: set[tuple[str, str]] = set()
    for command, parameter in parameters():
        name = str(parameter.name)
        if getattr(parameter, "is_flag", False):
            continue
        base = BASE[command]
        kind = kind_of(command, name)
        # What several commands share is tried with every value in the first of them.
        shown = parameter.opts[0] if isinstance(parameter, click.Option) else name
        # A flag, or what it is called in words; of an argument its value, too.
        word = shown.lstrip("-").replace("-", "[-_ ]")
        names = [rf"\b{word}"]
        if kind in ("out", "report"):
            names = ["--out|--keep|--html"]
        if kind == "where":
            names += ["condition", "no network"]
        if kind in ("column", "own"):
            names += ["column", "module"]
        if shown == name:
            names += [name.upper(), "is (not|no) ", "known: ", "expected ", ": no "]
            names += ["needs ", "neither "]
        values = KINDS[kind][1:3] if (name, kind) in seen else KINDS[kind]
        seen.add((name, kind))
        # What another zoo has, or what lies on the disk, may have to be looked at.
        odd = ("{missing}", "999999")
        more: dict[str, str | None] = {}
        for key in (name, f"{command.partition(' ')[0]}.{name}", f"{command}.{name}"):
            more |= WITH.get(key, {})
        less = {key for key, value in more.items() if value == ""}
        for value in values:
            changes = {**{k: v for k, v in more.items() if k not in less}, name: value}
            line = words_of(command, changes)
            for gone in less:
                flag = f"--{gone}"
                if flag in line:
                    del line[line.index(flag) : line.index(flag) + 2]
            yield {
                "id": f"{command} {shown} {value or 'empty'}",
                "words": line,
                # Of NAME=VALUE what is called NAME.
                "names": [*names, *(re.escape(v) for v in value.split("=")[:-1] if v)],
                "light": name not in HEAVY and not any(word in value for word in odd),
                # That a zoo or run is not there is a failure, not misuse of the command.
                "codes": [1, 2] if kind in ("zoo", "run") or "{missing}" in value else [2],
            }
        if isinstance(parameter, click.Option):
            yield {
                "id": f"{command} {shown} at the end",
                "words": [*words_of(command, {}, but=name), shown],
                "names": [shown],
                "light": True,
                "codes": [2],
            }
        if parameter.required:
            kept = {k: v for k, v in base.items() if k != name}
            words = command.split()
            for other in [p.name for c, p in parameters() if c == command and p.name in kept]:
                found = next(p for c, p in parameters() if c == command and p.name == other)
                value_ = kept[other]
                if isinstance(found, click.Argument):
                    words += str(value_).split()
                else:
                    words += [found.opts[0]] if value_ is None else [found.opts[0], value_]
            yield {
                "id": f"{command} without {shown}",
                "words": words,
                "names": [shown, "Missing argument"],
                "light": True,
                "codes": [2],
            }
    for line_, names_ in CONTRADICTIONS:
        words = line_.split()
        names = [names_.replace("--", "").replace("-", "[-_ ]")]
        yield {"id": line_, "words": words, "names": names, "light": False, "codes": [2]}
    for command in sorted({command for command, _ in parameters()}):
        words = words_of(command, {})
        at = words.index("--") if "--" in words else len(words)
        yield {
            "id": f"{command} --nonsense",
            "words": [*words[:at], "--nonsense", "1", *words[at:]],
            "names": ["--nonsense"],
            "light": True,
            "codes": [2],
        }
    words = ["fitinrs"]
    yield {"id": "no such command", "words": words, "names": words, "light": True, "codes": [2]}


def run_table(home: Path) -> None:
    """In a process of its own: lines of the table on stdin, what came of each on stdout."""
    import signal

    from click.testing import CliRunner

    def ring(*_: object) -> None:
        raise TimeoutError("10 s")

    class Ray(types.ModuleType):
        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            raise RuntimeError(f"ray.{name} was asked for")

    sys.modules["ray"] = Ray("ray")
    signal.signal(signal.SIGALRM, ring)
    lines = json.load(sys.stdin)
    real = os.dup(1)
    os.dup2(2, 1)
    before = listing(home)
    for line in lines:
        if not line["light"]:
            # Slow on a busy machine, and broken for good if it is interrupted.
            import processors.train  # noqa: F401
        loaded = "torch" in sys.modules
        signal.alarm(10)
        began = time.perf_counter()
        try:
            result = CliRunner().invoke(wszoo, line["words"])
            found = {"code": result.exit_code, "stderr": result.stderr,
                     "exception": "" if isinstance(result.exception, SystemExit | None)
                     else repr(result.exception)}  # fmt: skip
        except BaseException as error:
            found = {"code": None, "stderr": "", "exception": repr(error)}
        signal.alarm(0)
        after = listing(home)
        found |= {
            "id": line["id"],
            "seconds": time.perf_counter() - began,
            "torch": not loaded and "torch" in sys.modules,
            "written": sorted({*after} - {*before}),
        }
        for name in found["written"]:
            path = home / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        os.write(real, json.dumps(found).encode() + b"\n")
        if found["torch"] and line["light"]:
            sys.exit(AGAIN)  # the next one could not be seen to load it


def listing(home: Path) -> set[str]:
    """Everything below a folder."""
    return {str(path.relative_to(home)) for path in home.rglob("*")}


TABLE = list(table())


@pytest.fixture(scope="session")
def outcomes(request, tmp_path_factory) -> dict[str, dict[str, Any]]:
    """What came of each line that is asked for, by its id."""
    import tarfile

    home = tmp_path_factory.mktemp("misuse")
    stored = home / "stored"
    with tarfile.open(ROOT / "tests" / "fixtures" / "324dc88.tar.xz") as tar:
        tar.extractall(stored, filter="data")
    (home / "file").write_text("a file")
    (home / "list").write_text('{"steps": ["sources"]}')
    (home / "empty").mkdir()
    nets = home / "nets"
    nets.mkdir()
    import numpy as np
    from safetensors.numpy import save_file

    for number in range(3):
        save_file(
            {"0.weight": np.ones((2, 3), np.float32), "0.bias": np.ones(2, np.float32)},
            nets / f"{number}.safetensors",
        )
    shutil.copytree(stored / "pictures-dws", home / "copy")
    places = {
        "missing": "missing", "file": "file", "list": "list", "empty": "empty", "nets": "nets",
        "zoo": "stored/pictures-dws", "copy": "copy", "waves": "stored/waves-ssl",
        "classifiers": "stored/classifiers", "runs": "stored/trajectories-tenths",
        "run": "stored/regress", "part-0": "stored/part-0", "part-1": "stored/part-1",
    }  # fmt: skip
    calls = [getattr(item, "callspec", None) for item in request.session.items]
    asked = {call.params["line"]["id"] for call in calls if call and "line" in call.params}
    lines = [
        {**line, "words": [_filled(word, places) for word in line["words"]]}
        for line in TABLE
        if line["id"] in asked
    ]
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]);"
        "from test_misuse import run_table; run_table(Path.cwd())"
    )
    found: dict[str, dict[str, Any]] = {}
    # Light lines first, so that a load of torch is seen at the line that caused it.
    lines = sorted(lines, key=lambda line: not line["light"])
    while lines:
        done = subprocess.run(
            [sys.executable, "-c", script, str(ROOT / "tests")],
            input=json.dumps(lines), cwd=home, capture_output=True, text=True, timeout=600,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
                 "WSZOO_DATA": str(home / "data"), "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        found |= {line["id"]: line for line in map(json.loads, done.stdout.splitlines())}
        lines = [line for line in lines if line["id"] not in found]
        if lines and done.returncode != AGAIN:  # the process died at the first of them
            died = {"id": lines[0]["id"], "code": done.returncode, "stderr": done.stderr[-300:]}
            found[lines[0]["id"]] = {**died, "exception": "died", "written": [], "torch": False}
            del lines[0]
    return found


def _filled(word: str, places: dict[str, str]) -> str:
    for name, path in places.items():
        word = word.replace(f"{{{name}}}", path)
    return word


def test_the_table_has_every_parameter():
    assert len(TABLE) >= 400
    assert len({line["id"] for line in TABLE}) == len(TABLE)
    assert {command for command, _ in parameters()} <= set(BASE)


def problem(line: dict[str, Any], found: dict[str, Any]) -> str | None:
    """What is wrong with the answer to a line of the table."""
    errors = [text for text in found["stderr"].splitlines() if text.startswith("Error: ")]
    others = [
        text for text in found["stderr"].splitlines()
        if text.strip() and not text.startswith("Error: ")
    ]  # fmt: skip
    if found["exception"]:
        return f"ends in {found['exception']}"
    if found["code"] not in line["codes"]:
        return f"exit {found['code']}: {' '.join(errors) or 'no error'}"
    if len(errors) != 1 or others or len(errors[0]) > 1000:
        return f"not one line: {found['stderr']}"
    if not any(re.search(name, errors[0]) for name in line["names"]):
        return f"names none of {', '.join(line['names'])}: {errors[0]}"
    if found["written"]:
        return f"wrote {', '.join(found['written'])}"
    if line["light"] and found["torch"]:
        return "loads torch to say it"
    return None


@pytest.mark.parametrize("line", TABLE, ids=[line["id"] for line in TABLE])
def test_misuse_is_one_line(line, outcomes):
    wrong = problem(line, outcomes[line["id"]])
    assert wrong is None, f"wszoo {' '.join(line['words'])}: {wrong}"


def _children() -> float:
    """Processor time of the processes that ended, in seconds."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def test_an_unknown_source_is_told_at_once():
    """No library that takes long to load is asked."""
    best = 9.9
    for _ in range(5):
        # Of processor time: what else runs on the machine is not the command's fault.
        began = _children()
        done = subprocess.run(
            [sys.executable, "-c", "from cli.main import main; main()", "fit-inrs", "mnits"],
            capture_output=True, text=True, cwd=ROOT, check=False,
        )  # fmt: skip
        best = min(best, _children() - began)
        assert done.returncode == 2
        assert "unknown source 'mnits'" in done.stderr
    assert best < 0.5


# Command lines that 324dc88 took, or met with an error of a library: the flag that is named.
TAKEN = [
    ("reproduce sine-ssl --epochs 0", "--epochs"),
    ("fit-inrs digits --lr inf --overwrite", "--lr"),
    ("fit-inrs digits --steps 1000000000000000000000", "--steps"),
    ("fit-inrs digits --layers 999999999", "--layers"),
    ("fit-inrs digits --size 100000", "--size"),
    ("fit-inrs digits --out ''", "--out"),
    ("train classify zoo --model dws --device meta", "--device"),
    ("train classify zoo --model dws --lr 1e38", "--lr"),
    ("train classify zoo --model mlp --set width=0", "width"),
    ("train classify zoo --model inr2vec --set hidden=0", "hidden"),
    ("train classify zoo --model dws --set norm=maybe", "norm"),
    ("train classify zoo --model nfn-np --set channels=[]", "channels"),
    ("train classify zoo --model dws --noise -1", "--noise"),
    ("train classify zoo --model dws --split-limit train=5,train=6", "--split-limit"),
    ("train adapt zoo --model dws --strength nan", "--strength"),
    ("verify zoo --samples -1 --refit -5", "--samples"),
]


@pytest.mark.parametrize(("words", "name"), TAKEN, ids=[words for words, _ in TAKEN])
def test_what_was_taken_is_refused_by_its_name(words, name, tmp_path, monkeypatch, digits_zoo):
    from helpers import line_of, run

    monkeypatch.chdir(tmp_path)
    (tmp_path / "zoo").symlink_to(digits_zoo)
    line = line_of(run(*shlex.split(words)), 2)
    assert name in line
    assert [path.name for path in tmp_path.iterdir()] == ["zoo"]
