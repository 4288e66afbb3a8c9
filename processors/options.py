"""What every task can be told; each field is a flag of `wszoo train TASK`.

Apart from the tasks, so that the command line has its flags, and checks what it is given,
without loading torch.
"""

from dataclasses import dataclass
from typing import Any

from processors.own import is_own
from zoo.fields import check, described

AUGMENTATIONS = ("move", "noise", "dropout", "permute", "sign", "phase", "scale")
# As `zoo.symmetry.KINDS`, which comes with torch.
SYMMETRIES = ("permutation", "sign", "scale", "phase")
LOSSES = ("auto", "bce", "mse")
EDITS = ("dilate", "contrast")
VIEWS = ("clean", "augmented")
SELECTS = ("loss", "metric")
# Of tickets: what keeps a share of its entries, and how a mask follows from scores.
SCOPES, PICKS = ("network", "tensor"), ("likeliest", "drawn", "likeliest-by-draw")
# Fields that the first runs were without, and what those did.
LATER: dict[str, Any] = {
    "pair": "augmented,augmented", "select": "metric", "degrees": 45.0, "shift": 0.25, "zoom": 0.2,
    "scope": "network", "pick": "likeliest-by-draw",
}  # fmt: skip


def augmentations(text: str) -> tuple[str, ...]:
    """The augmentations of a text: names with commas, "auto" or "none".

    >>> augmentations("noise, dropout"), augmentations("none"), augmentations("auto")
    (('noise', 'dropout'), (), ('auto',))

    Raises:
        ValueError: for a name that is neither known nor an import path.
    """
    names = () if text == "none" else tuple(name.strip() for name in text.split(","))
    unknown = [n for n in names if n not in (*AUGMENTATIONS, "auto") and not is_own(n)]
    if unknown:
        raise ValueError(
            f"unknown augmentation {unknown[0]!r}; known: auto, none, {', '.join(AUGMENTATIONS)}, "
            "or package.module:function"
        )
    return names


def symmetries(text: str) -> tuple[str, ...]:
    """Kinds of symmetry of a text, with commas.

    >>> symmetries("permutation,sign")
    ('permutation', 'sign')

    Raises:
        ValueError: for an unknown kind, or one that stands twice.
    """
    kinds = tuple(word.strip() for word in text.split(","))
    wrong = [kind for kind in kinds if kind not in SYMMETRIES]
    if wrong or len(set(kinds)) < len(kinds):
        raise ValueError(f"takes different ones of {', '.join(SYMMETRIES)}, got {text!r}")
    return kinds


def views(text: str) -> tuple[str, ...]:
    """The two views of a network that `ssl` compares.

    >>> views("clean,augmented")
    ('clean', 'augmented')

    Raises:
        ValueError: for anything but two of "clean" and "augmented", or two clean ones.
    """
    names = tuple(name.strip() for name in text.split(","))
    if len(names) != 2 or set(names) - set(VIEWS) or set(names) == {"clean"}:
        raise ValueError(f"takes clean,augmented or augmented,augmented, got {text!r}")
    return names


@dataclass(frozen=True)
class Options:
    """What every task can be told.

    Raises:
        ValueError: for an unknown name, or a number out of its range.
    """

    augment: str = described(
        "auto",
        f"of {', '.join(AUGMENTATIONS)}, or package.module:function, with commas; none; auto: as "
        "the preset, see `wszoo models NAME`",
        values=augmentations,
    )
    noise: float = described(
        0.1, "of --augment noise, in deviations of each tensor's entries", least=0, most=1e6
    )
    drop: float = described(
        0.01, "of --augment dropout, probability that an entry becomes 0", least=0, below=1
    )
    degrees: float = described(
        45.0,
        "of --augment move, pictures or shapes are turned by so many at most",
        least=0,
        most=180,
    )
    shift: float = described(
        0.25, "of --augment move, they are shifted by so much at most, in coordinates",
        least=0, most=1e3,
    )  # fmt: skip
    zoom: float = described(
        0.2, "of --augment move, they are scaled by 1 +- so much at most", least=0, below=1
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class ClassifyOptions(Options):
    """What `classify` can be told."""

    target: str | None = described(None, "column of the class, if there are several")
    select: str | None = described(
        None,
        "what the best weights are chosen by on the validation split.  [default: metric]",
        choices=SELECTS,
    )


@dataclass(frozen=True)
class RegressOptions(Options):
    """What `regress` can be told."""

    target: str | None = described(None, "column of the number, if there are several")


@dataclass(frozen=True)
class GeneralizeOptions(Options):
    """What `generalize` can be told."""

    target: str | None = described(None, "column of the accuracy.  [default: test_accuracy]")
    loss: str = described(
        "auto", "bce or mse; auto: mse for dws and its baselines on MLPs", choices=LOSSES
    )
    rescale: float = described(
        0.0, "evaluate also after scaling hidden ReLU neurons by U(1, 10^this)", least=0, most=30
    )
    flip: bool = described(
        False, "evaluate also after flipping signs of hidden tanh or sine neurons at random"
    )


@dataclass(frozen=True)
class SslOptions(Options):
    """What `ssl` can be told."""

    noise: float = described(
        0.2, "of --augment noise, in deviations of each tensor's entries", least=0, most=1e6
    )
    drop: float = described(
        0.5, "of --augment dropout, probability that an entry becomes 0", least=0, below=1
    )
    dimension: int = described(16, "length of the representation", least=1, most=1 << 16)
    temperature: float = described(0.1, "of the NT-Xent loss", above=0, most=1e6)
    projection: int | None = described(
        None,
        "width of a perceptron between representation and loss; 0: none.  [default: 16]",
        least=0,
        most=1 << 20,
    )
    pair: str | None = described(
        None,
        "views of a network that are pulled together: clean,augmented or augmented,augmented.  "
        "[default: clean,augmented]",
        values=views,
    )
    select: str | None = described(
        None,
        "what the best weights are chosen by on the validation split: the contrastive loss, or "
        "the probe's error, which sees targets.  [default: loss]",
        choices=SELECTS,
    )
    views: int = described(
        0,
        "augmented views whose mean represents a network in evaluation; 0: the network itself",
        least=0,
        most=1 << 20,
    )
    targets: str | None = described(
        None, "real columns for the probe, with commas.  [default: all targets]"
    )


@dataclass(frozen=True)
class AdaptOptions(Options):
    """What `adapt` can be told."""

    strength: float = described(
        1.7, "of the corruption; 0 leaves pictures as they are", least=0, most=1000
    )
    variants: int = described(
        8,
        "corrupted copies of every training picture, flipped anew whenever one is drawn",
        least=1,
        most=10_000,
    )
    images: int = described(128, "pictures a network in an update", least=1, most=1 << 20)
    eval_images: int = described(
        400, "pictures a network at most in an evaluation", least=2, most=1 << 20
    )


@dataclass(frozen=True)
class EditOptions(Options):
    """What `edit` can be told."""

    augment: str = described(
        "auto", "as of other tasks, without move; auto: none", values=augmentations
    )
    edit: str = described("dilate", "dilate (3 x 3) or contrast (in colour only)", choices=EDITS)
    points: int | None = described(
        None, "pixels of an update, drawn anew.  [default: all]", least=1, most=1 << 31
    )


@dataclass(frozen=True)
class TicketsOptions(Options):
    """What `tickets` can be told."""

    augment: str = described("auto", "none fits this task", values=augmentations)
    sparsity: float = described(0.95, "share of the entries that a mask removes", above=0, below=1)
    scope: str = described(
        "network",
        "what keeps so large a share: each tensor by itself, or the network",
        choices=SCOPES,
    )
    pick: str = described(
        "likeliest",
        "the entries of the highest scores, or masks drawn from what the model learnt; "
        "likeliest-by-draw: as runs of before were measured",
        choices=PICKS,
    )
    retrain_steps: int = described(
        0, "train with the masks for so many updates; 0: not at all", least=0, most=10**9
    )
    retrain_networks: int = described(
        20, "networks of the test split that are trained then", least=1, most=10**9
    )


# The names are those of `tasks.TASKS`.
OPTIONS: dict[str, type[Options]] = {
    "classify": ClassifyOptions,
    "regress": RegressOptions,
    "generalize": GeneralizeOptions,
    "ssl": SslOptions,
    "adapt": AdaptOptions,
    "edit": EditOptions,
    "tickets": TicketsOptions,
}
