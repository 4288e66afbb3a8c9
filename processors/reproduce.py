"""The papers' experiments from one name, as campaigns: zoo, then runs, then report.

    steps = plan("sine-ssl", "quick", "reproduced")
    campaign.perform(steps, "reproduced")

makes `reproduced/zoos/...`, `reproduced/runs/...` and `reproduced/report-sine-ssl-quick.md`.
"paper" is the published scale, by the preset of that name. "cpu" is what a night of one core
does with the preset "small", and "quick" some minutes on a laptop; their numbers are not
comparable with published ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zoo as zoos
from processors import tasks
from processors.campaign import RUNS, Step
from processors.config import Request
from processors.evaluation import find_device
from processors.presets import plain_source

SCALES = ("paper", "cpu", "quick")
# By validation, on the first seed (Navon et al. 2023, App. J).
RATES = (5e-3, 1e-3, 5e-4, 1e-4)
BASELINES = ("mlp", "mlp-aug", "mlp-align", "inr2vec", "transformer")
NFNS = ("nfn-np", "nfn-hnp", "nfn-pt")
# Beyond the papers.
READERS = ("graded", "probe")
# What DWSNets are compared with, of their paper and since.
EXTENDED = (*BASELINES, *NFNS, "monomial", "statnn", *READERS)


@dataclass(frozen=True)
class Variant:
    """One row of an experiment: a model, what is changed of it, of its task, of its training."""

    model: str
    sizes: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        changes = {**self.sizes, **self.options, **self.settings}
        words = [f"{k}={v}" for k, v in changes.items()]
        text = "-".join([self.model, *words])
        return "".join(c if c.isalnum() or c in "-=." else "_" for c in text)


@dataclass(frozen=True)
class Experiment:
    """One experiment of a paper.

    Attributes:
        identity: in the list of the papers' experiments, such as D3.
        text: one line.
        command, source, recipe: of the zoo, see `zoo.recipe`.
        recipe_changes: of the recipe at paper scale.
        variants: what is compared.
        options: of the task, for all variants.
        rates: tried on the first seed.
        seeds: at paper scale.
        limit, quick: networks (or runs) of the zoo, and settings, at quick scale.
        quick_recipe, quick_sizes: more changes of the recipe there, and of all models.
        cpu_limit, cpu: the same as `limit` and `quick` at the scale of a CPU.
    """

    identity: str
    text: str
    command: str
    source: str
    recipe: str
    task: str
    variants: tuple[Variant, ...]
    recipe_changes: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    rates: tuple[float, ...] = RATES
    seeds: tuple[int, ...] = (0, 1, 2)
    limit: int = 700
    quick: Mapping[str, Any] = field(default_factory=lambda: {"epochs": 5, "batch": 64})
    quick_recipe: Mapping[str, Any] = field(default_factory=dict)
    quick_sizes: Mapping[str, Any] = field(default_factory=dict)
    cpu_limit: int | None = None
    cpu: Mapping[str, Any] = field(default_factory=dict)

    def count(self, scale: str) -> int | None:
        """Networks, or runs, of the zoo; None for all."""
        return {"quick": self.limit, "cpu": self.cpu_limit}.get(scale)

    def recipe_at(self, scale: str) -> dict[str, Any]:
        """What is changed of the recipe."""
        smaller = scale == "quick" or (scale == "cpu" and "views" in self.quick_recipe)
        return {**self.recipe_changes, **(self.quick_recipe if smaller else {})}

    def made_by(self, scale: str) -> Any:
        """The recipe of its zoo.

        Raises:
            ValueError: for a recipe that cannot be.
        """
        changes = self.recipe_at(scale)
        return zoos.recipe(self.recipe, self.source, self.command, **changes)

    def settings_at(self, scale: str) -> Mapping[str, Any]:
        """What is changed of the preset's settings."""
        return {"quick": self.quick, "cpu": self.cpu}.get(scale, {})


def _models(*names: str) -> tuple[Variant, ...]:
    return tuple(Variant(name) for name in names)


def _copies(views: int, text: str) -> Experiment:
    """So many networks of each Fashion-MNIST picture: of the same pictures, however many."""
    # A zoo's limit counts networks. Of 14 pictures 11 are for training, which alone have views.
    per_14 = 11 * views + 3
    return Experiment(
        "D5", text, "fit-inrs", "fashion-mnist", "dws", "classify", _models("dws"),
        recipe_changes={"views": views}, limit=10 * per_14, cpu_limit=200 * per_14,
        quick_recipe={"steps": 3000},
    )  # fmt: skip


def _mlps(text: str, recipe: str) -> Experiment:
    """The accuracy of MLPs on MNIST, from their weights."""
    return Experiment(
        "N7", text, "fit-trajectories", "mnist", recipe, "generalize",
        _models("nfn-hnp", "nfn-np", "statnn"),
        rates=(), recipe_changes={"validation_share": 0.1}, options={"loss": "bce"}, limit=12,
        quick={"epochs": 1, "batch": 8}, quick_recipe={"epochs": 1}, cpu_limit=100,
        cpu={"epochs": 10},
    )  # fmt: skip


def _cnns(
    identity: str,
    text: str,
    activation: str,
    variants: tuple[Variant, ...],
    options: Mapping[str, Any] | None = None,
) -> Experiment:
    """One on small CNNs of that activation."""
    return Experiment(
        identity, text, "fit-trajectories", "cifar10", "small-cnn", "generalize", variants,
        recipe_changes={"activation": activation, "validation_share": 0.1}, options=options or {},
        rates=(), limit=12, quick={"epochs": 3, "batch": 8}, quick_recipe={"epochs": 1},
        cpu_limit=80,
    )  # fmt: skip


# Monomial-NFN as published, which is not equivariant to signs, and as wszoo has it, which is.
_EDITORS = (
    *_models(*NFNS), Variant("monomial", {"kind": "editing"}), Variant("monomial"),
    *_models("mlp"),
)  # fmt: skip
_STEPS = {"steps": 100, "batch": 32, "warmup": 0}
_SHAPES = _models("nfn-np", "nfn-hnp", "dws", *READERS, "mlp", "statnn")
# About the scale of docs/results.md, where the parts of a layer are told apart.
_PARTS: dict[str, Any] = {
    "limit": 5000,
    "cpu_limit": 14_000,
    "quick": {"epochs": 15, "batch": 128, "lr": 2e-3, "schedule": "cosine", "evaluations": 5},
    "quick_sizes": {"variant": "deepsets"},
}
EXPERIMENTS: dict[str, Experiment] = {
    "sine-regression": Experiment(
        "D1", "The frequency of sine waves (DWSNets, Figure 3).",
        "fit-inrs", "sine", "sine-regression", "regress",
        _models("dws", *NFNS, "monomial", *BASELINES, "statnn", *READERS),
        options={"target": "frequency"}, limit=200,
    ),
    "mnist-classification": Experiment(
        "D2", "The digit of an INR (DWSNets, Table 1).",
        "fit-inrs", "mnist", "dws", "classify", _models("dws", *EXTENDED),
        cpu_limit=14_000,
    ),
    "fashion-classification": Experiment(
        "D2", "The class of a Fashion-MNIST INR (DWSNets, Table 1).",
        "fit-inrs", "fashion-mnist", "dws", "classify", _models("dws", *EXTENDED), limit=300,
        cpu_limit=14_000,
    ),
    "sine-ssl": Experiment(
        "D3", "A dense representation of sine waves (DWSNets, Table 2).",
        "fit-inrs", "sine", "sine-ssl", "ssl",
        _models("dws", *EXTENDED), limit=300, cpu={"epochs": 40},
    ),
    "adaptation": Experiment(
        "D4", "Classifiers adapted to corrupted pictures (DWSNets, Table 3).",
        "fit-classifiers", "cifar10", "binary", "adapt", _models("dws", *BASELINES),
        limit=40, quick={"steps": 20, "batch": 8},
    ),
    "views": _copies(10, "Several networks of each Fashion-MNIST picture (DWSNets, Table 4)."),
    **{
        f"views-{views}": _copies(
            views, f"{views} network{'s' * (views > 1)} of each Fashion-MNIST picture (Table 4)."
        )
        for views in (1, 2, 4, 6, 8)
    },
    "trajectories": Experiment(
        "D6", "The accuracy of Fashion-MNIST classifiers (DWSNets, Figure 7).",
        "fit-trajectories", "fashion-mnist", "fashion", "generalize",
        _models("dws", "nfn-np", *BASELINES, "statnn", *READERS), limit=8,
        quick={"epochs": 1, "batch": 32},
    ),
    "blocks": Experiment(
        "D7", "Parts of the DWSNets layer (DWSNets, Table 10).",
        "fit-inrs", "mnist", "dws", "classify",
        tuple(Variant("dws", sizes={"blocks": b}) for b in ("b2b", "w2w", "both", "diagonal"))
        + _models("dws"),
        **_PARTS,
    ),
    "augmentation": Experiment(
        "D8", "Augmentation and batch norm (DWSNets, Table 11).",
        "fit-inrs", "mnist", "dws", "classify",
        (
            Variant("dws", sizes={"norm": False}, options={"augment": "none"}),
            Variant("dws", sizes={"norm": False}),
            Variant("dws", options={"augment": "none"}),
            Variant("dws"),
        ),
        **_PARTS,
    ),
    "cnn-generalization": _cnns(
        "N1", "The accuracy of small CNNs (NFN, Table 2), on a zoo of our own.", "relu",
        _models("nfn-hnp", "nfn-np", "monomial", "statnn", *READERS), {"rescale": 2.0},
    ),
    "cnn-generalization-tanh": _cnns(
        "M2", "The accuracy of small tanh CNNs, also with random signs (Monomial-NFN, Table 2).",
        "tanh", _models("nfn-hnp", "nfn-np", "monomial", "statnn", *READERS), {"flip": True},
    ),
    "mnist-nfn": Experiment(
        "N2", "The digit of an INR of NFN's recipe, ten views (NFN, Table 3).",
        "fit-inrs", "mnist", "nfn", "classify",
        (
            *_models("nfn-np", "nfn-hnp", "dws", "mlp", "mlp-aug"),
            # As the released inv_ff_io_mnist.yaml has it, against the command of its README.
            Variant(
                "nfn-np",
                {"fourier_scale": 3.0, "max_freq": 3.0, "bands": 3, "head_dropout": 0.1},
            ),
        ),
        recipe_changes={"views": 10}, rates=(), limit=300, quick=_STEPS,
        quick_recipe={"views": 1}, cpu_limit=14_000,
    ),
    **{
        f"{name}-one-copy": Experiment(
            "M3", f"The class of an INR of {title}, one copy (Monomial-NFN, Table 3).",
            "fit-inrs", source, "nfn", "classify",
            _models("monomial", "nfn-np", "nfn-hnp", *READERS),
            rates=(), limit=300, quick=_STEPS, cpu_limit=14_000,
        )
        for name, source, title in (
            ("mnist", "mnist", "MNIST"), ("fashion", "fashion-mnist", "Fashion-MNIST"),
            ("cifar", "cifar10", "CIFAR-10"),
        )
    },
    "solids": Experiment(
        "N3", "The family of a solid (in the place of ShapeNet-10 of NFN, App. D.3).",
        "fit-inrs", "shapes", "udf", "classify", _SHAPES, recipe_changes={"views": 2}, rates=(),
        limit=300, quick={"epochs": 20, "batch": 32},
    ),
    "adrenal": Experiment(
        "N3", "Adrenal glands, normal or hyperplastic (AdrenalMNIST3D at 64^3 in the place of "
        "ScanNet-10 of NFN, App. D.3).",
        "fit-inrs", "voxels:adrenalmnist3d_64.npz", "udf", "classify", _SHAPES, rates=(),
        limit=300, quick={"epochs": 20, "batch": 32},
    ),
    **{
        f"{name}-nfn": Experiment(
            "N2", f"The class of an INR of {title}, of NFN's recipe (NFN, Table 3).",
            "fit-inrs", source, "nfn", "classify",
            _models("nfn-np", "nfn-hnp", "dws", "mlp", "mlp-aug"),
            recipe_changes={"views": views}, rates=(), limit=300, quick=_STEPS,
            quick_recipe={"views": 1}, cpu_limit=14_000,
        )
        for name, source, title, views in (
            ("fashion", "fashion-mnist", "Fashion-MNIST, ten views", 10),
            ("cifar", "cifar10", "CIFAR-10, twenty views", 20),
        )
    },
    "tickets": Experiment(
        "N4", "Winning tickets of MNIST MLPs (NFN, Table 5).",
        "fit-trajectories", "mnist", "nfn-mlp3", "tickets", _models("nfn-np", "nfn-pt"),
        # 400 pairs and 50 as published, 50 more to choose by; all trained alike, as what is left
        # of networks that learnt nothing is no ticket.
        recipe_changes={
            "runs": 500, "checkpoints": "tenths", "validation_share": 0.1, "optimiser": "adam",
            "lr": "1e-3", "batch": "128", "fraction": "1", "init_scale": "1", "weight_decay": "0",
            "epochs": 5,
        },
        options={"retrain_steps": 2345, "retrain_networks": 50},
        rates=(), limit=10,
        quick={"epochs": 3}, quick_recipe={"epochs": 1},
    ),
    "dilate": Experiment(
        "N5", "Digits made thicker in their weights (NFN, Table 6).",
        "fit-inrs", "mnist", "nfn", "edit", _EDITORS,
        options={"edit": "dilate"}, rates=(), limit=200, quick=_STEPS, cpu_limit=14_000,
    ),
    "contrast": Experiment(
        "N5", "CIFAR-10 pictures with more contrast (NFN, Table 6).",
        "fit-inrs", "cifar10", "nfn", "edit", _EDITORS,
        options={"edit": "contrast"}, rates=(), limit=100, quick=_STEPS, cpu_limit=14_000,
    ),
    "io-encoding": Experiment(
        "N6", "NFN with and without positions of inputs and outputs (NFN, Table 17).",
        "fit-inrs", "mnist", "nfn", "classify",
        (Variant("nfn-np"), Variant("nfn-np", sizes={"positions": "none"})),
        recipe_changes={"views": 10}, rates=(), limit=300, quick=_STEPS,
        quick_recipe={"views": 1}, cpu_limit=14_000,
    ),
    "mlp-generalization": _mlps("The accuracy of MNIST MLPs (NFN, Table 19).", "nfn-mlp3"),
    "mlp-generalization-5": _mlps("The same of MLPs of five layers (NFN, Table 19).", "nfn-mlp5"),
    "monomial-depth": _cnns(
        "M5", "Depth of Monomial-NFN (Tran et al. 2024, Table 24).", "relu",
        (
            Variant("monomial"),
            Variant("monomial", sizes={"channels": [16, 5]}),
            Variant("monomial", sizes={"channels": [5]}),
        ),
    ),
}  # fmt: skip


def known(name: str) -> Experiment:
    """The experiment of that name.

    Raises:
        ValueError: if there is none; lists those there are.
    """
    if name not in EXPERIMENTS:
        raise ValueError(f"unknown experiment {name!r}; known: {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]


@dataclass(frozen=True)
class Changes:
    """What is otherwise than an experiment's scale says.

    Attributes:
        models: only these of the experiment's.
        seeds: instead of the scale's.
        limit: networks, or runs, of the zoo; instead of the scale's.
        settings: over the scale's, see `Settings`.
        device, data_root: of all commands.
    """

    models: Sequence[str] = ()
    seeds: Sequence[int] = ()
    limit: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    device: str = "auto"
    data_root: str | Path | None = None

    def seeds_of(self, experiment: Experiment, scale: str) -> tuple[int, ...]:
        """The seeds of each row."""
        return tuple(self.seeds) or (experiment.seeds if scale == "paper" else (0,))

    def count_of(self, experiment: Experiment, scale: str) -> int | None:
        """Networks, or runs, of the zoo; None for all."""
        return self.limit if self.limit is not None else experiment.count(scale)

    def variants_of(self, experiment: Experiment) -> list[Variant]:
        """The rows that are made."""
        return [v for v in experiment.variants if not self.models or v.model in self.models]

    @property
    def words(self) -> tuple[str, ...]:
        """The options of a training that say where it finds what it needs."""
        device = ("--device", self.device) if self.device != "auto" else ()
        root = ("--data-root", str(self.data_root)) if self.data_root is not None else ()
        return *device, *root


def plan(
    name: str, scale: str, out: str | Path, changes: Changes = Changes()
) -> list[Step]:  # fmt: skip
    """The commands of an experiment: its zoo, its trainings, its report.

    All of them are checked as far as they can be before the zoo is there.

    Args:
        scale: "paper", "cpu" or "quick".
        out: folder of zoos, runs and report.

    Raises:
        ValueError: for an unknown experiment, scale or model, or settings that cannot be.
    """
    experiment = known(name)
    if scale not in SCALES:
        raise ValueError(f"unknown scale {scale!r}; known: {', '.join(SCALES)}")
    missing = sorted(set(changes.models) - {v.model for v in experiment.variants})
    if missing:
        raise ValueError(
            f"experiment {name!r} does not compare {missing[0]!r}, but "
            f"{', '.join(dict.fromkeys(v.model for v in experiment.variants))}"
        )
    if not str(out):
        raise ValueError("out must name a folder, got ''")
    find_device(changes.device)
    folder = Path(out)
    fit, made = _fit(experiment, scale, folder / "zoos", changes)
    seeds = changes.seeds_of(experiment, scale)
    steps = [fit]
    for variant in changes.variants_of(experiment):
        home = folder / "runs" / f"{name}-{scale}"
        first = home / f"{variant.name}-{seeds[0]}"
        for seed in seeds:
            request = asked(experiment, variant, scale, seed, made, changes.settings)
            run = home / f"{variant.name}-{seed}"
            # The rate is chosen on the first seed and kept for the others.
            rate = request.lr_grid and seed != seeds[0]
            steps.append(_training(request, run, f"{{lr:{first}}}" if rate else "", changes))
    report = str(folder / f"report-{name}-{scale}.md")
    return [*steps, Step(("report", RUNS, "--out", report))]


def _fit(experiment: Experiment, scale: str, folder: Path, changes: Changes) -> tuple[Step, Path]:
    """The command that makes the zoo, and where that lies.

    Raises:
        ValueError: for a recipe that cannot be.
    """
    recipe = experiment.recipe_at(scale)
    experiment.made_by(scale)
    count = changes.count_of(experiment, scale)
    # Experiments on the same networks share them.
    source = plain_source(experiment.source)
    name = [source, experiment.recipe, *(f"{k}={v}" for k, v in recipe.items())]
    made = folder / "-".join([*name, *([str(count)] if count is not None else [])])
    words = [experiment.command, experiment.source, "--recipe", experiment.recipe]
    for field_name, value in recipe.items():
        words += [f"--{field_name.replace('_', '-')}", str(value)]
    words += ["--limit", str(count)] if count is not None else []
    words += ["--device", "cuda"] if changes.device.startswith("cuda") else []
    words += ["--data-root", str(changes.data_root)] if changes.data_root is not None else []
    return Step((*words, "--no-parquet", "--out", str(made))), made


def _training(request: Request, run: Path, rate: str, changes: Changes) -> Step:
    """The command of a run, with a rate that another one chose where that is given."""
    words = request.words(run)
    if rate:
        at = words.index("--lr-grid")
        words[at : at + 2] = ["--lr", rate]
    return Step((*words, *changes.words))


def asked(
    experiment: Experiment,
    variant: Variant,
    scale: str,
    seed: int,
    zoo: Path,
    settings: Mapping[str, Any],
) -> Request:
    """What is asked of one run, checked as far as it can be without the zoo.

    Raises:
        ValueError: for settings that cannot be.
    """
    changed = {**variant.settings, **experiment.settings_at(scale)}
    # Whoever says how long means that alone.
    if settings.keys() & {"epochs", "steps"}:
        changed = {k: v for k, v in changed.items() if k not in ("epochs", "steps")}
    changed |= settings
    request = Request(
        experiment.task, variant.model, str(zoo), changed,
        {**experiment.options, **variant.options},
        {**variant.sizes, **(experiment.quick_sizes if scale == "quick" else {})},
        seed, None, experiment.rates if scale == "paper" and "lr" not in changed else (),
        "paper" if scale == "paper" else "small",
    )  # fmt: skip
    tasks.known(request.task).check_model(request.model, request.sizes)
    return request
