"""How models are trained where nothing else is asked for: settings, sizes and options, as data.

`TABLE` has one entry for each thing that a paper does, with its source: the paper, its table,
or the file of the code it released. All entries that fit are laid over each other, in order, so
what is special stands below what is general. Preset "paper" is what papers do; "small" lays
over it what learns from few networks in minutes.

    chosen(Situation("classify", "nfn-np", recipe="nfn", source="mnist"), "paper").settings

Where released code and paper differ, the code is followed, as it made the published numbers;
where wszoo differs from both on purpose, `note` says why. Only the standard library is loaded.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from processors.settings import Settings

PRESETS = ("paper", "small")
# From so many training networks on "paper" is taken if nothing is asked for.
PAPER_NETWORKS = 20_000
# Of these tasks it is not: of 55,000 MNIST INRs DWSNets have 94.5% by "small", 85.7 in their paper.
SMALL_TASKS = ("classify",)

NFN = ("nfn-np", "nfn-hnp", "nfn-pt")
# Models beyond the three papers.
READERS = ("graded", "probe")
# Theirs: what they do with many networks was measured from so many on.
READERS_NETWORKS = 8_000
# What other models do with more than few was measured from as many on.
MANY_NETWORKS = 8_000
# Perceptrons and others whose width is solved for a number of parameters.
BASELINES = ("mlp", "mlp-aug", "mlp-align", "inr2vec", "transformer")
# Where StatNN's width is solved for as well, and is not its own 1,000.
SOLVED = (*BASELINES, "statnn")


@dataclass(frozen=True)
class Situation:
    """What a training is of, as far as a paper would do something else there.

    Attributes:
        task, model: by name.
        recipe, source: of the zoo, such as "nfn" and "mnist".
        conv: whether its networks are convolutional.
        inputs: of its networks.
        picture: whether their first layer reads coordinates of a picture.
        space: whether it reads those of space.
        networks: for training.
    """

    task: str
    model: str
    recipe: str = ""
    source: str = ""
    conv: bool = False
    inputs: int = 2
    picture: bool = True
    space: bool = False
    networks: int = 0


@dataclass(frozen=True)
class Entry:
    """What is done in one experiment, for some models.

    Attributes:
        task: it is for.
        about: the experiment, as EXPERIMENTS of the papers are numbered, or "".
        source: paper and table, or the released file.
        models, recipes, sources: it is for; empty for any.
        but: models it is not for.
        conv: True for convolutional networks alone, False for others, None for any.
        wide: whether it is for networks of more than 64 inputs alone.
        least: training networks that it is for.
        settings, sizes, options: what is taken of `Settings`, of the model's class, of the task.
        note: where it differs from the source, or the paper from the code, and why.
        preset: it belongs to.
    """

    task: str
    about: str
    source: str
    models: tuple[str, ...] = ()
    but: tuple[str, ...] = ()
    recipes: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    conv: bool | None = None
    wide: bool = False
    least: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    sizes: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    preset: str = "paper"

    def fits(self, of: Situation) -> bool:
        """Whether it is for this."""
        return (
            self.task == of.task
            and (not self.models or of.model in self.models)
            and of.model not in self.but
            and (not self.recipes or of.recipe in self.recipes)
            and (not self.sources or plain_source(of.source) in self.sources)
            and self.conv in (None, of.conv)
            and (not self.wide or of.inputs > _WIDE)
            and of.networks >= self.least
        )


_WIDE = 64


def plain_source(name: str) -> str:
    """A source's name without a path; an image folder's is that of its last folder.

    >>> plain_source("mnist"), plain_source("imagefolder:/data/cifar10")
    ('mnist', 'cifar10')
    """
    return name.rpartition(":")[2].rpartition("/")[2]


_DWS, _NFN = "Navon et al. 2023", "Zhou et al. 2023"
_MONOMIAL, _PROBE = "Tran et al. 2024", "Kahana et al. 2025"
_OURS = "wszoo"
# Adam without weight decay, as NFN and Monomial-NFN have it.
_ADAM: dict[str, Any] = {"optimiser": "adam", "weight_decay": 0.0}
_CLASSIFY: dict[str, Any] = {
    "epochs": None, "steps": 200_000, "batch": 32, "lr": 1e-4, "warmup": 10_000, **_ADAM,
}  # fmt: skip
# Ours: of waves, which NFN's papers do not have.
_WAVES: dict[str, Any] = {
    "fourier": 32, "fourier_scale": 0.2, "max_freq": 3.0, "bands": 3, "statistics": "entry",
}  # fmt: skip
_WAVES_NOTE = (
    "entries are normalised, so that a scale of .2 is for all of them; by 3 the representation "
    "of waves was no better than a constant"
)
_GENERALISE: dict[str, Any] = {
    "channels": [16, 16, 5], "fourier": 0, "positions": "none", "head_dropout": 0.0,
}  # fmt: skip
_EDITING: dict[str, Any] = {
    "epochs": None, "steps": 50_000, "batch": 32, "lr": 1e-3, "warmup": 1_000, **_ADAM,
}  # fmt: skip
_GRADED: dict[str, Any] = {
    "epochs": 30, "batch": 64, "lr": 2e-3, "weight_decay": 1e-2, "schedule": "cosine",
    "warmup": 100, "clip": 1.0,
}  # fmt: skip
_PROBES: dict[str, Any] = {
    "epochs": 40, "batch": 32, "lr": 1e-3, "weight_decay": 0.0, "schedule": "cosine",
}  # fmt: skip
# Zoos of shapes, and how these are moved: solids lie in any direction, and so may others.
_SPACE = ("udf", "occupancy", "sdf")
_MOVED: dict[str, Any] = {"degrees": 180.0, "shift": 0.05, "zoom": 0.05}
_MOVED_NOTE = "from 400 networks of solids 89% moved, 82% not"
_READERS_NOTE = "they learn faster without augmentation, on few networks too"


def _readers(task: str, **more: Any) -> tuple[Entry, ...]:
    """How the models beyond the papers are trained, whatever the task."""
    options = {} if task in ("adapt", "edit", "tickets") else {"augment": "none"}
    options |= more.pop("options", {})
    return (
        Entry(
            task, "", _OURS, ("graded",), settings={**_GRADED, **more}, options=options,
            note=_READERS_NOTE,
        ),
        Entry(
            task, "", f"{_PROBE}, Sec. 5 and App.", ("probe",), settings={**_PROBES, **more},
            options=options, note=f"rate and length are wszoo's; {_READERS_NOTE}",
        ),
    )  # fmt: skip


TABLE: tuple[Entry, ...] = (
    # ---- classify: the class of an INR's picture
    Entry(
        "classify", "D2", f"{_DWS}, Sec. 7.1 and App. J", settings={"epochs": 100, "batch": 512},
        options={"augment": "move,noise,dropout"},
        note="noise is Gaussian, as in the paper; the released code adds one constant a tensor. "
        "The rate is chosen on the validation split: `--lr-grid`, and in `reproduce`",
    ),
    Entry("classify", "D2", f"{_DWS}, App. J", BASELINES, sizes={"params": 550_000}),
    Entry(
        "classify", "N2", f"{_NFN}, Sec. 3.2 and App. D; classify_siren_configs/nfnet/inv_ff.yaml",
        NFN, settings=_CLASSIFY, options={"augment": "none"},
        sizes={
            "statistics": "none", "channels": [512] * 3, "fourier": 256, "fourier_scale": 10.0,
            "head": 1000, "head_dropout": 0.5,
        },
        note="of MNIST as in the command of the README that was released; inv_ff_mnist.yaml has "
        "Fourier scale 3, positions 3 and 3, dropout 0.1",
    ),
    Entry(
        "classify", "N2", "classify_siren_configs/nfnet/inv_ff_io.yaml, pos_enc_cls/sin.yaml",
        ("nfn-np", "nfn-pt"),
        sizes={"positions": "sinusoidal", "max_freq": 10.0, "bands": 6, "layers": False},
    ),
    Entry(
        "classify", "N3", f"{_NFN}, App. D.3", NFN, recipes=_SPACE, settings=_CLASSIFY,
        sizes={"channels": [512] * 3, "head": 1000, "head_dropout": 0.5},
        options={"augment": "none"},
        note="the reader of pictures again; how many networks it was trained on is not said",
    ),
    Entry(
        "classify", "N3", _OURS, but=NFN, recipes=_SPACE, options={"augment": "noise,dropout"},
    ),
    Entry(
        "classify", "N2", f"{_NFN}, Sec. 3.2: no augmentation", recipes=("nfn",),
        options={"augment": "none"},
    ),
    Entry(
        "classify", "N2", f"{_NFN}, App. D; classify_siren_configs/nfnet/mlp.yaml",
        ("mlp", "mlp-aug"), recipes=("nfn",), settings=_CLASSIFY,
        sizes={"hidden": 3, "width": 1000, "norm": False, "statistics": "none"},
        note="without the sigmoid before the cross-entropy that the released one has",
    ),
    Entry(
        "classify", "M3", f"{_MONOMIAL}, App. D; inv_ff_hnps_mnist.yaml", ("monomial",),
        settings=_CLASSIFY, options={"augment": "none"},
        sizes={
            "statistics": "none", "channels": [64, 64, 1], "base": "hnp", "fourier_scale": 3.0,
            "head": 1000, "dropout": 0.1, "head_dropout": 0.1, "initial": "xavier",
        },
        note="the rate of the released code; the paper has 7.5e-5",
    ),
    Entry(
        "classify", "M3", "inv_ff_hnps_fashion.yaml (20.49M parameters)", ("monomial",),
        sources=("fashion-mnist",), settings={"warmup": 20_000},
        sizes={"fourier_scale": 10.0, "head": 500, "dropout": 0.0, "head_dropout": 0.5},
    ),
    Entry(
        "classify", "M3", "inv_ff_hnps_cifar.yaml (16.25M parameters)", ("monomial",),
        sources=("cifar10",), settings={"warmup": 20_000},
        sizes={
            "channels": [16, 16, 1], "base": "np", "fourier_scale": 10.0, "max_freq": 10.0,
            "bands": 6, "layers": False, "dropout": 0.0, "head_dropout": 0.5, "initial": "fan-in",
        },
    ),
    *_readers("classify"),
    Entry(
        "classify", "", _OURS, ("graded",), settings={"epochs": 40},
        options={
            "augment": "move,noise", "noise": 0.03, "degrees": 9.0, "shift": 0.07, "zoom": 0.08,
        },
        note="91.8% from 11,000 MNIST INRs, where its training loss is 0 without; on few "
        "networks moving costs more than it gives, see preset small",
    ),
    Entry(
        "classify", "N3", _OURS, ("graded",), recipes=_SPACE,
        options={"augment": "move,noise", "noise": 0.03, **_MOVED}, note=_MOVED_NOTE,
    ),
    Entry(
        "classify", "N3", _OURS, ("probe",), recipes=_SPACE, sizes={"lattice": 12, "layers": 1},
        options={"augment": "move", **_MOVED},
        note="from 400 networks 85% on a lattice, moved, 59% not moved, 33% at 128 learned points",
    ),
    # ---- regress: the frequency of a wave
    Entry(
        "regress", "D1", f"{_DWS}, Sec. 7.1 and App. J", settings={"epochs": 100, "batch": 32},
        options={"augment": "noise,dropout"},
    ),
    Entry("regress", "D1", f"{_DWS}, App. J", ("dws",), sizes={"chan": 8, "layers": 3}),
    Entry("regress", "D1", f"{_DWS}, App. J", SOLVED, sizes={"params": 15_000, "hidden": 2}),
    Entry(
        "regress", "D1", _OURS, NFN, note=_WAVES_NOTE,
        sizes={"channels": [8] * 3, "head": 32, "head_dropout": 0.0, **_WAVES},
    ),
    Entry(
        "regress", "D1", _OURS, ("monomial",),
        sizes={
            "channels": [16, 16, 1], "base_channels": [8] * 3, "fourier": 32, "head": 64,
            "statistics": "tensor",
        },
    ),
    *_readers("regress"),
    # ---- ssl: a dense representation of waves
    Entry(
        "ssl", "D3", f"{_DWS}, Sec. 7.3 and App. J; experiments of the released code",
        settings={"epochs": 500, "batch": 512},
        options={
            "augment": "noise,dropout", "pair": "clean,augmented", "projection": 16,
            "select": "loss",
        },
        note="the pair, the perceptron and the selection are the code's: the paper has random "
        "views. Noise is Gaussian, as in the paper",
    ),
    Entry("ssl", "D3", f"{_DWS}, App. J", ("dws",), sizes={"chan": 16, "layers": 5}),
    Entry("ssl", "D3", f"{_DWS}, App. J", SOLVED, sizes={"params": 100_000}),
    Entry(
        "ssl", "D3", _OURS, NFN, note=_WAVES_NOTE,
        sizes={"channels": [24] * 3, "head": 96, "head_dropout": 0.0, **_WAVES},
    ),
    Entry(
        "ssl", "D3", _OURS, ("monomial",),
        sizes={
            "channels": [32, 32, 1], "base_channels": [32] * 3, "fourier": 32, "head": 96,
            "statistics": "tensor",
        },
    ),
    *_readers("ssl", epochs=30, batch=512, options={"augment": "noise"}),
    # ---- generalize: the accuracy of a classifier
    Entry(
        "generalize", "D6", f"{_DWS}, App. K.1 and J", conv=False,
        settings={"epochs": 15, "batch": 32}, options={"augment": "noise,dropout"},
    ),
    Entry("generalize", "D6", f"{_DWS}, App. J", SOLVED[:-1], conv=False,
          sizes={"params": 4_000_000}),
    Entry(
        "generalize", "N1", f"{_NFN}, Sec. 3.1 and App. D; predict_gen_configs/main.yaml",
        conv=True, settings={"epochs": 50, "batch": 8, "lr": 1e-3, **_ADAM},
        options={"augment": "none"},
    ),
    Entry("generalize", "N1", _OURS, SOLVED[:-1], conv=True, sizes={"params": 1_000_000}),
    Entry("generalize", "D6", f"{_DWS}, App. J", ("dws",), sizes={"chan": 16, "layers": 5}),
    Entry(
        "generalize", "N7", f"{_NFN}, App. E (Table 19)", recipes=("nfn-mlp3", "nfn-mlp5"),
        settings={"epochs": 50, "batch": 8, "lr": 1e-3, **_ADAM}, options={"augment": "none"},
    ),
    Entry(
        "generalize", "N1", f"{_NFN}, App. D; predict_gen_configs/nfnet/hnp_inv.yaml", NFN,
        sizes={**_GENERALISE, "statistics": "none"},
    ),
    Entry(
        "generalize", "N1", "predict_gen_configs/nfnet/np_inv.yaml (NP-PosEmb)", ("nfn-np",),
        sizes={"statistics": "entry", "positions": "learned-each"},
    ),
    Entry(
        "generalize", "N1", "predict_gen_configs/nfnet/stat.yaml", ("statnn",),
        sizes={"statistics": "none"},
    ),
    Entry(
        "generalize", "M1, M2", f"{_MONOMIAL}, Sec. 5.1; hnps_inv.yaml", ("monomial",),
        sizes={"statistics": "none", "initial": "xavier"},
        note="of tanh networks |x|, the mean pool and head 1000, as in the paper; the released "
        "command has an L2 norm with gamma and beta, and head 200",
    ),
    *_readers("generalize"),
    Entry(
        "generalize", "", _OURS, ("graded",), settings=_ADAM,
        options={"augment": "noise", "noise": 0.1},
        note="by AdamW with amsgrad, which divides by the largest gradients so far, tau stays at "
        ".83 on 4,160 tanh CNNs; by Adam it is .89, with noise .90",
    ),
    # ---- adapt: classifiers of another domain
    Entry(
        "adapt", "D4", f"{_DWS}, Sec. 7.2 and App. J",
        settings={"epochs": None, "steps": 10_000, "batch": 32, "evaluations": 20},
        options={"augment": "noise,dropout"},
    ),
    Entry("adapt", "D4", f"{_DWS}, App. J", BASELINES, sizes={"params": 4_000_000}),
    Entry(
        "adapt", "D4", f"{_DWS}, App. J", ("dws",), wide=True, sizes={"narrow": 16},
        note="wide inputs are reduced once for the whole model; with narrow=0 in every layer, "
        "which then works on fifteen times as many entries",
    ),
    Entry("adapt", "D4", f"{_DWS}, App. J", ("dws",), sizes={"chan": 16, "layers": 5}),
    Entry("adapt", "D4", _OURS, NFN, sizes={"channels": [32] * 3, **_WAVES}, note=_WAVES_NOTE),
    Entry("adapt", "D4", _OURS, ("monomial",),
          sizes={"base_channels": [32] * 3, "statistics": "tensor"}),
    Entry("adapt", "D4", _OURS, (*NFN, "monomial"), wide=True, sizes={"narrow": 64}),
    Entry("adapt", "D4", _OURS, ("monomial",), wide=True, sizes={"statistics": "entry"}),
    # ---- edit: INRs whose picture is changed
    Entry(
        "edit", "N5", f"{_NFN}, Sec. 3.4 and App. D.4; stylize_configs/main.yaml",
        settings=_EDITING, options={"augment": "none"},
        note="the test pictures are those of the test split; the released code takes items "
        "50,000 to 59,999 of training",
    ),
    Entry("edit", "N5", _OURS, BASELINES, sizes={"params": 550_000}),
    Entry("edit", "N5", _OURS, ("dws",), sizes={"chan": 32, "layers": 5}),
    Entry(
        "edit", "N5", "stylize_configs/nfnet/equiv.yaml, equiv_io.yaml, pos_enc_cls/sin.yaml", NFN,
        sizes={"statistics": "none", "channels": [128] * 3, "fourier_scale": 3.0},
    ),
    Entry(
        "edit", "N5", "stylize_configs/nfnet/pos_enc_cls/sin.yaml", ("nfn-np", "nfn-pt"),
        sizes={"positions": "sinusoidal", "max_freq": 3.0, "bands": 3, "layers": False},
    ),
    Entry(
        "edit", "M4", f"{_MONOMIAL}, App. D; equiv_io_hnps.yaml", ("monomial",),
        sizes={"statistics": "none", "initial": "xavier"},
        note="kind=editing is as published, and not equivariant; without it the model is "
        "wszoo's, equivariant end to end, in the same size",
    ),
    # ---- tickets: which weights to keep
    Entry(
        "tickets", "N4", f"{_NFN}, Sec. 3.3 and App. D.2",
        settings={"epochs": 200, "batch": 8, "lr": 1e-3, "evaluations": 20, **_ADAM},
        options={"augment": "none", "scope": "tensor"},
        note="what a mask of 95% is of is not said; of whole networks the largest initial entries "
        "leave no first layer, and an accuracy of .117",
    ),
    Entry(
        "tickets", "N4", f"{_NFN}, Sec. 3", ("nfn-np",),
        sizes={"positions": "learned-each"}, options={"pick": "drawn"},
        note="positions as the released code has them for generalisation; the paper does not say "
        "whether here, but without them NP layers cannot tell pixels apart; the likeliest entries "
        "are those of a few whole neurons or pixels, and train worse than random ones",
    ),
)  # fmt: skip


_WAVES_SMALL = "wszoo, on the 4,000 waves of `wszoo fit-inrs sine`"
_EDIT_SMALL = "wszoo, on 11,000 MNIST INRs"
_ADAPT_SMALL = "wszoo, on the 4,000 classifiers of `wszoo fit-classifiers imagefolder:cifar10`"
_TICKETS_SMALL = "wszoo, on 400 MLPs that are trained alike, see `wszoo reproduce tickets`"
_TUNED = "wszoo, tuned on the 1,457 digits of `make demo`"
_MANY_SMALL = "wszoo, on 11,000 MNIST INRs of recipe dws"
# Over what papers do. What tells few networks apart: neurons whose signs are settled, means
# instead of maxima, and pooled features that are normalised, as they hardly differ.
SMALL: tuple[Entry, ...] = (
    Entry(
        "classify", "", _TUNED, but=READERS, preset="small",
        settings={"epochs": 30, "steps": None, "batch": 32, "lr": 1e-3, "warmup": 0},
        options={"augment": "none"},
    ),
    Entry(
        "classify", "", _TUNED, ("dws", *NFN, "monomial"), preset="small",
        settings={
            "batch": 16, "lr": 3e-3, "weight_decay": 1e-2, "warmup": 50, "schedule": "cosine",
        },
    ),
    Entry(
        "classify", "", _TUNED, ("dws",), preset="small",
        sizes={"variant": "deepsets", "chan": 24, "pool": "mean", "canonical": True},
        options={"augment": "noise"},
        note="with max pools and random signs, 10 epochs end at 28%, by these at 45%",
    ),
    Entry(
        "classify", "", _TUNED, NFN, preset="small", settings=_ADAM,
        sizes={
            "statistics": "entry", "fourier": 32, "fourier_scale": 0.3, "channels": [32, 32],
            "head": 128, "head_dropout": 0.0, "head_norm": True, "canonical": True,
        },
        note="raw weights, a scale of 3 and no norm in the head are at 12% after 15 epochs",
    ),
    Entry(
        "classify", "", _TUNED, ("nfn-np", "nfn-pt"), preset="small",
        sizes={"fourier": 64, "channels": [64, 64], "head": 256}, options={"augment": "noise"},
    ),
    Entry(
        "classify", "", _TUNED, ("monomial",), preset="small", settings=_ADAM,
        sizes={
            "channels": [16, 16, 4], "base": "hnp", "base_channels": [32, 32], "fourier": 32,
            "fourier_scale": 3.0, "head": 128, "dropout": 0.0, "head_dropout": 0.0,
            "head_norm": True,
        },
        options={"augment": "noise"},
    ),
    Entry(
        "classify", "", _MANY_SMALL, NFN, recipes=("dws", "nfn"), least=MANY_NETWORKS,
        preset="small", settings={"lr": 1e-3}, sizes={"fourier": 64, "fourier_scale": 1.0},
        note="3 epochs of 11,000: NFN-NP .62 on validation, NFN-HNP .65, without .56 and .65; on "
        "the 1,457 digits NFN-HNP has .39 instead of .45",
    ),
    Entry(
        "classify", "", _MANY_SMALL, ("monomial",), recipes=("dws", "nfn"), least=MANY_NETWORKS,
        preset="small", settings={"lr": 1e-3}, sizes={"fourier": 64, "fourier_scale": 10.0},
        note="3 epochs of 11,000: .71 on validation, without .68",
    ),
    Entry(
        "classify", "N2", "wszoo, on 22,500 MNIST INRs of recipe nfn", NFN, recipes=("nfn",),
        least=MANY_NETWORKS, preset="small", sizes={"fourier_scale": 2.0},
        options={"augment": "none"},
        note="their first weights vary more than those of dws and have to be known more finely: "
        "NFN-NP has .60 after 20 epochs, by a scale of .3 and a rate of 3e-3 .36",
    ),
    Entry(
        "classify", "M3", "wszoo, on 22,500 MNIST INRs of recipe nfn", ("monomial",),
        recipes=("nfn",), least=MANY_NETWORKS, preset="small",
        sizes={"channels": [32], "statistics": "tensor", "fourier_scale": 0.6},
        options={"augment": "none"},
        note="three monomial layers fold entries over each other before Fourier features tell "
        "them apart: after 3 epochs .32 on validation by a scale of 1, by one layer .42; by .6 "
        ".44, and after 20 epochs .57",
    ),
    Entry(
        "classify", "", _TUNED, BASELINES, preset="small", sizes={"params": 100_000, "width": None},
    ),
    Entry(
        "classify", "", _TUNED, ("graded",), preset="small", settings={"epochs": 30},
        options={"augment": "none"}, note=_READERS_NOTE,
    ),
    Entry(
        "classify", "N3", _OURS, ("graded",), recipes=_SPACE, preset="small",
        options={"augment": "move,noise", "noise": 0.03, **_MOVED}, note=_MOVED_NOTE,
    ),
    Entry(
        "ssl", "", _WAVES_SMALL, but=READERS, preset="small",
        settings={"epochs": 40, "batch": 128, "lr": 1e-3, "warmup": 50, "schedule": "cosine"},
    ),
    Entry(
        "ssl", "", _WAVES_SMALL, ("mlp", "mlp-aug"), preset="small",
        settings={"epochs": 20, "batch": 512},
        note="they overfit sooner: 9.2 after 1,240 updates, where the mean has 8.0",
    ),
    Entry("ssl", "", _WAVES_SMALL, ("dws", *NFN), preset="small", settings={"lr": 3e-3}),
    Entry(
        "ssl", "", _WAVES_SMALL, ("monomial",), preset="small", settings={"epochs": 20},
        note="2.3 after 20 epochs by 1e-3 (validation 2.8), 3.8 after 40 by 3e-3 (4.1)",
    ),
    Entry(
        "ssl", "", _WAVES_SMALL, ("dws",), preset="small",
        sizes={"variant": "deepsets", "pool": "mean", "canonical": True},
        note="1.08 after 40 epochs; with attention, max pools and random signs 1.90",
    ),
    Entry("ssl", "", _WAVES_SMALL, NFN, preset="small", sizes={"canonical": True}),
    Entry(
        "generalize", "", "wszoo, on small CNNs of 80 runs", ("monomial",), conv=True,
        preset="small", sizes={"statistics": "tensor"},
        note="of 832 tanh CNNs tau is .92 (validation .92), by raw weights .82 (.915); of ReLU "
        "ones .72 and .69",
    ),
    Entry(
        "edit", "", "wszoo", preset="small",
        settings={"steps": 3_000, "warmup": 100, "schedule": "cosine"},
    ),
    Entry(
        "edit", "", _EDIT_SMALL, NFN, preset="small", settings={"batch": 16, "lr": 2e-3},
        sizes={"channels": [64] * 3, "fourier": 64, "canonical": True},
        note="after 1,500 updates the digits' error is .150 with random signs, .134 with settled "
        "ones, .131 with 64 channels instead of 32",
    ),
    Entry(
        "adapt", "", _ADAPT_SMALL, preset="small",
        settings={"steps": 5_000, "lr": 1e-3, "schedule": "cosine"},
    ),
    Entry(
        "adapt", "", _ADAPT_SMALL, ("dws", *NFN, "monomial"), wide=True, preset="small",
        sizes={"input_rank": 256},
        note="such a map alone, of rank 512, gains 12.5 points in 1,000 updates, DWSNets that read "
        "16 reduced inputs 12.7 in 10,000; with it 14.0 in 5,000; not tried beside NFN and "
        "Monomial-NFN",
    ),
    Entry("adapt", "", _ADAPT_SMALL, ("dws",), preset="small", sizes={"variant": "deepsets"}),
    Entry("adapt", "", _ADAPT_SMALL, NFN, preset="small", sizes={"channels": [16] * 3}),
    Entry("adapt", "", _OURS, ("monomial",), preset="small", sizes={"base_channels": [16] * 3}),
    Entry("edit", "", "wszoo", ("monomial",), preset="small", sizes={"base_channels": [32] * 3}),
    Entry(
        "tickets", "", _TICKETS_SMALL, preset="small",
        settings={
            "epochs": 55, "batch": 4, "lr": 3e-3, "warmup": 50, "schedule": "cosine",
            "evaluations": 11,
        },
        sizes={"chan": 32, "layers": 3},
        note="by the paper's size and rate NFN-NP, without positions, knows tensors alone for 400 "
        "updates of 8; by these, with them, its masks train to .924 after 40 epochs, NFN-PT's to "
        ".903 after 15; random ones to .891",
    ),
    Entry(
        "edit", "", "wszoo", ("dws",), preset="small", sizes={"variant": "deepsets", "chan": 16},
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Chosen:
    """What is taken where nothing else is asked for.

    Attributes:
        preset: whose it is.
        settings: of the training; warm-up and patience for a run of `settings`' length.
        sizes: arguments of the model's class.
        options: of the task.
        entries: it comes from, those that say most last.
    """

    preset: str
    settings: Settings
    sizes: Mapping[str, Any]
    options: Mapping[str, Any]
    entries: tuple[Entry, ...]


def least_networks(task: str, model: str) -> int | None:
    """From so many training networks on a model takes "paper" if no preset is asked for.

    None where it is never taken unasked.
    """
    if model in READERS:
        return READERS_NETWORKS
    return None if task in SMALL_TASKS else PAPER_NETWORKS


def default_preset(networks: int, task: str, model: str) -> str:
    """What is taken for so many training networks if no preset is asked for."""
    least = least_networks(task, model)
    return "small" if least is None or networks < least else "paper"


def chosen(of: Situation, preset: str) -> Chosen:
    """What a preset does there.

    Raises:
        ValueError: for an unknown preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}; known: {', '.join(PRESETS)}")
    layers = ("paper",) if preset == "paper" else PRESETS
    entries = tuple(e for layer in layers for e in (*TABLE, *SMALL) if e.preset == layer)
    entries = tuple(entry for entry in entries if entry.fits(of))
    settings: dict[str, Any] = {}
    sizes: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for entry in entries:
        settings |= entry.settings
        sizes |= entry.sizes
        options |= entry.options
    if sizes.get("width"):
        sizes.pop("params", None)
    if "augment" in options and not (of.picture or of.space):
        names = [name for name in options["augment"].split(",") if name != "move"]
        options["augment"] = ",".join(names) or "none"
    made = Settings(**{**asdict(Settings()), **settings})
    return Chosen(preset, made, sizes, options, entries)


def fitted(usual: Settings, asked: Settings, given: frozenset[str], per_epoch: int) -> Settings:
    """The settings with a warm-up and a patience that fit the run, where they were not asked for.

    Args:
        usual: of the preset, whose warm-up is for a run of its length.
        asked: the same with what is asked for.
        given: names of what is asked for.
        per_epoch: updates of an epoch.

    >>> usual = Settings(epochs=None, steps=200_000, warmup=10_000)
    >>> fitted(usual, replace(usual, steps=None, epochs=30), frozenset({"epochs"}), 46).warmup
    69
    """
    total, meant = asked.total(per_epoch), usual.total(per_epoch)
    changes: dict[str, Any] = {}
    if "warmup" not in given and total < meant:
        changes["warmup"] = round(asked.warmup * total / meant)
    if "patience" not in given and asked.patience is not None:
        changes["patience"] = min(asked.patience, max(1, asked.evaluations - 1))
    return replace(asked, **changes)


def too_long(settings: Settings, per_epoch: int) -> list[str]:
    """What of a run never comes to its end, in lines."""
    total = settings.total(per_epoch)
    lines = []
    if settings.warmup >= total:
        lines.append(
            f"--warmup {settings.warmup:,} is longer than the run of {total:,} updates: the "
            f"learning rate ends at {settings.lr * total / settings.warmup:.2g}, not at "
            f"{settings.lr:g}"
        )
    validations = settings.validations(per_epoch)
    if settings.patience is not None and settings.patience >= validations:
        lines.append(
            f"--patience {settings.patience:,} never runs out: there are {validations:,} "
            "validations in all"
        )
    return lines


def before(task: str, model: str, usual: tuple[str, ...]) -> tuple[str, ...]:
    """What `--augment auto` stood for in runs of before there were presets."""
    if model not in READERS:
        return usual
    return ("noise",) if task == "ssl" else ()
