"""Networks of pictures, changed so that their picture is edited.

A model changes the weights; the loss compares the picture that the changed network
renders with the original after an image operation of OpenCV, pixel by pixel.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import mse_loss

from processors.options import EditOptions
from processors.rows import Rows
from processors.tasks import figures
from processors.tasks.task import Constant, Metrics, Task
from zoo import Weights, coordinates, forward, original

Picture = NDArray[np.uint8]
# Pictures in a figure, and networks at once in an evaluation.
_SHOWN, _NETS = 10, 128


def dilate(picture: Picture) -> Picture:
    """Every pixel the brightest of the 3 x 3 around it, in each channel.

    Source: Zhou et al. 2023, Sec. 3.4; the kernel is that of the released code.
    """
    import cv2

    found = cv2.dilate(picture, np.ones((3, 3), np.uint8))
    return found.reshape(picture.shape)


def contrast(picture: Picture) -> Picture:
    """Contrast-limited equalisation of the lightness, clip limit 1, 3 x 3 tiles.

    Source: as `dilate`.
    """
    import cv2

    lab = cv2.cvtColor(picture, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(clipLimit=1.0, tileGridSize=(3, 3)).apply(lab[..., 0])
    found: Picture = cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)
    return found


EDITS: dict[str, Callable[[Picture], Picture]] = {"dilate": dilate, "contrast": contrast}


class Edit(Task):
    """INRs of pictures, to be dilated or given more contrast by their weights.

    The error is that of pixels from -1 to 1, whatever range the networks put out.

    Source: Zhou et al. 2023, Sec. 3.4 and App. D.4 (Table 6); Tran et al. 2024 (Table 4).
    """

    name, takes = "edit", EditOptions
    metric, higher, title = "mse", False, "MSE on pixels from -1 to 1"
    out = None
    options: EditOptions

    def __init__(self, data: Mapping[str, Rows], options: EditOptions) -> None:
        super().__init__(data, options)
        name = self.zoo.folder.name
        if len(self.spec.axes) != 2:
            raise ValueError(
                f"edit needs networks of pictures, as `wszoo fit-inrs mnist` makes them; {name} "
                f"has networks of {self.spec.inputs} inputs that are no coordinates of pixels"
            )
        if options.edit == "contrast" and self.spec.out != 3:
            raise ValueError(
                f"edit contrast is for pictures in colour, as of cifar10; those of {name} have "
                f"{self.spec.out} channel: choose --edit dilate"
            )
        if "move" in self.augment.names:
            raise ValueError("edit has no use for --augment move: the target would not move along")
        # Fails now, not after the first batch, where a zoo came without its pictures.
        self.shape: tuple[int, int, int] = self._original(int(self.zoo[0].columns["index"])).shape
        self._points = torch.from_numpy(coordinates(self.spec, *self.shape[:2]))
        self._wanted: dict[str, tuple[Tensor, Tensor]] = {}
        self._before: dict[str, float] = {}

    def _auto(self) -> tuple[str, ...]:
        return ()

    def _original(self, number: int) -> Picture:
        row = replace(self.zoo[0], columns={"index": number})
        found: Picture = original(row, self.data_root)
        return found

    def targets(self, columns: Mapping[str, Tensor], split: str) -> Float[Tensor, "net point chan"]:
        """The edited originals of these networks, pixels from -1 to 1."""
        if split not in self._wanted:
            rows = self.data[split]
            numbers = rows.column("index").unique()
            edited = np.stack([EDITS[self.options.edit](self._original(int(n))) for n in numbers])
            flat = torch.from_numpy(edited).flatten(1, 2)
            self._wanted[split] = numbers.to(rows.device), flat.to(rows.device)
        numbers, pictures = self._wanted[split]
        places = torch.searchsorted(numbers, columns["index"])
        return pictures[places].float() / 127.5 - 1

    def render(
        self, weights: Weights, points: Tensor | None = None
    ) -> Float[Tensor, "net point chan"]:
        """The pictures of networks at these points, or all, pixels from -1 to 1."""
        inputs = self._points.to(weights.biases[0])
        black, white = self.spec.pixel_range
        values = forward(self.spec, weights, inputs if points is None else inputs[points])
        return (values - black) * (2 / (white - black)) - 1

    def loss(self, module: Any, weights: Weights, columns: dict[str, Tensor]) -> Tensor:
        """Mean squared error of --points pixels, the same ones for all networks."""
        wanted = self.targets(columns, "train")
        points = None
        if self.options.points is not None and self.options.points < wanted.shape[1]:
            points = torch.randperm(wanted.shape[1])[: self.options.points].to(wanted.device)
            wanted = wanted[:, points]
        return mse_loss(self.render(module(self.augment(weights)), points), wanted)

    @torch.no_grad()
    def error(self, module: Any, split: str) -> float:
        """Mean squared error over all networks of a split; `None` changes nothing."""
        total = 0.0
        for weights, columns in self.data[split].batches(_NETS):
            found = self.render(weights if module is None else module(weights))
            wanted = self.targets(columns, split)
            total += len(weights) * float(mse_loss(found.double(), wanted.double()))
        return total / len(self.data[split])

    def evaluate(self, module: Any, split: str) -> Metrics:
        """Mean squared errors of the edited networks, and of those as they are."""
        if split not in self._before:
            self._before[split] = self.error(None, split)
        return {"mse": self.error(module, split), "mse_before": self._before[split]}

    def constant(self, split: str) -> Constant:
        """The networks as they are."""
        if split not in self._before:
            self._before[split] = self.error(None, split)
        return Constant("unedited", self._before[split], 0.0)

    @torch.no_grad()
    def figures(self, module: Any, split: str, folder: Path) -> None:
        """`edited.png`: originals, and what networks render before and after."""
        rows = self.data[split]
        weights, columns = rows.batch(torch.arange(min(_SHOWN, len(rows))))
        pictures = {
            "rendered": self.render(weights),
            "edited": self.render(module(weights)),
            "target": self.targets(columns, split),
        }
        shown = {"original": [self._original(int(n)) / 255 for n in columns["index"]]}
        for name, values in pictures.items():
            scaled = (values.cpu().float() + 1) / 2
            shown[name] = list(scaled.unflatten(1, self.shape[:2]).numpy())
        figures.pictures(shown, folder / "edited.png")
