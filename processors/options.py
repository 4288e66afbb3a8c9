"""What every task can be told; each field is a flag of `wszoo train TASK`.

Apart from the tasks, so that the command line has its flags without loading torch.
"""

from dataclasses import dataclass

from processors.settings import describe

AUGMENTATIONS = ("move", "noise", "dropout", "permute", "sign", "phase", "scale")


@dataclass(frozen=True)
class Options:
    """What every task can be told."""

    augment: str = describe(
        "auto",
        f"Of {', '.join(AUGMENTATIONS)}, with commas; none; auto: as the model's paper, "
        "else noise and dropout, and move for pictures.",
    )
    noise: float = describe(0.1, "Of --augment noise, in deviations of each tensor's entries.")
    drop: float = describe(0.01, "Of --augment dropout, probability that an entry becomes 0.")


@dataclass(frozen=True)
class ClassifyOptions(Options):
    """What `classify` can be told."""

    target: str | None = describe(None, "Column of the class, if there are several.")


@dataclass(frozen=True)
class RegressOptions(Options):
    """What `regress` can be told."""

    target: str | None = describe(None, "Column of the number, if there are several.")


@dataclass(frozen=True)
class GeneralizeOptions(Options):
    """What `generalize` can be told."""

    target: str | None = describe(None, "Column of the accuracy.  [default: test_accuracy]")
    loss: str = describe("auto", "bce or mse; auto: mse for dws and its baselines on MLPs.")
    rescale: float = describe(
        0.0, "Evaluate also after scaling hidden ReLU neurons by U(1, 10^this)."
    )
    flip: bool = describe(
        False, "Evaluate also after flipping signs of hidden tanh or sine neurons at random."
    )


@dataclass(frozen=True)
class SslOptions(Options):
    """What `ssl` can be told."""

    noise: float = describe(0.2, "Of --augment noise, in deviations of each tensor's entries.")
    drop: float = describe(0.5, "Of --augment dropout, probability that an entry becomes 0.")
    dimension: int = describe(16, "Of the representation.")
    temperature: float = describe(0.1, "Of the NT-Xent loss.")
    projection: int = describe(0, "Width of a perceptron between representation and loss; 0: none.")
    views: int = describe(
        0, "Augmented views whose mean represents a network in evaluation; 0: the network itself."
    )
    targets: str | None = describe(
        None, "Real columns for the probe, with commas.  [default: all targets]"
    )


@dataclass(frozen=True)
class AdaptOptions(Options):
    """What `adapt` can be told."""

    strength: float = describe(1.7, "Of the corruption; 0 leaves pictures as they are.")
    variants: int = describe(
        8, "Corrupted copies of every training picture, flipped anew whenever one is drawn."
    )
    images: int = describe(128, "Pictures a network in an update.")
    eval_images: int = describe(400, "Pictures a network at most in an evaluation.")


@dataclass(frozen=True)
class EditOptions(Options):
    """What `edit` can be told."""

    augment: str = describe("auto", "As of other tasks, without move; auto: none.")
    edit: str = describe("dilate", "dilate (3 x 3) or contrast (in colour only).")
    points: int | None = describe(None, "Pixels of an update, drawn anew.  [default: all]")


@dataclass(frozen=True)
class TicketsOptions(Options):
    """What `tickets` can be told."""

    augment: str = describe("auto", "None fits this task.")
    sparsity: float = describe(0.95, "Share of the entries that a mask removes.")
    retrain_steps: int = describe(0, "Train with the masks for so many updates; 0: not at all.")
    retrain_networks: int = describe(20, "Networks of the test split that are trained then.")


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
