"""The engine that says what is right: torch autograd and torch.optim.Adam, batched.

Networks lie side by side in the same tensors; nothing but the batch dimension joins
them, so each gets the gradient and the Adam state it would have alone. Runs any spec
that `zoo.nets.forward` runs, on any torch device.

Every call works on batches of one fixed size, padded, because torch picks its kernels by
shape and would else round a network differently with its neighbours. Points and hidden
neurons are padded too, by zeros that stay zero: matrix products round differently where a
matrix does not start on a cache line, so a network's place in the batch would show in its
bytes. Convolutions are not padded: networks with them may differ in the last digit.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import binary_cross_entropy_with_logits, pad

from zoo import nets, stopping
from zoo.engines import CAP, TARGET, Adam, Draws, Fit
from zoo.spec import NetworkSpec
from zoo.weights import Weights

_LINE = 16  # floats of a cache line


def _widen(spec: NetworkSpec) -> NetworkSpec:
    """The network with hidden layers of whole cache lines, where padding stays 0: f(0) = 0."""
    if any(layer.kind != "linear" or layer.activation == "sigmoid" for layer in spec.layers):
        return spec
    hidden = [layer.out + -layer.out % _LINE for layer in spec.layers[:-1]]
    widths = zip([spec.inp, *hidden], [*hidden, spec.out], spec.layers, strict=True)
    return replace(
        spec, layers=tuple(replace(layer, inp=inp, out=out) for inp, out, layer in widths)
    )


def _zero_padded(tensor: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """A copy of `net out [inp]` with zeros up to the sizes of `shape`."""
    whole = tensor.new_zeros(len(tensor), *shape[:2], *tensor.shape[3:])
    whole[(slice(None), *map(slice, tensor.shape[1:3]))] = tensor
    return whole


class ReferenceEngine:
    """Batched torch; `dtype` float64 gives the yardstick for the other engines."""

    name = "reference"
    batch = 64
    pads = True
    ahead = 1

    def __init__(self, device: str = "cpu", threads: int = 1, dtype: torch.dtype = torch.float32):
        try:
            self.device = torch.device(device)
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"device {device!r} cannot be used: {reason}") from None
        self.dtype = dtype
        if self.device.type == "cpu":
            torch.set_num_threads(threads)

    def fit(
        self,
        spec: NetworkSpec,
        params: NDArray[np.float32],
        inputs: NDArray[np.float32],
        targets: NDArray[np.float32],
        adam: Adam,
        draws: Draws | None = None,
    ) -> Fit:
        """See `zoo.engines`."""
        if draws is not None:
            draws.check(inputs, adam.steps)
        parts = []
        for start in range(0, len(params), self.batch):
            part = slice(start, start + self.batch)
            count = len(params[part])
            rows = np.arange(start, start + self.batch)
            rows[count:] = start
            own = inputs if inputs.ndim == 2 else inputs[rows]
            drawn = None if draws is None else draws[rows]
            fit = self._fit_batch(spec, params[rows], own, targets[rows], adam, drawn)
            parts.append([column[:count] for column in fit])
        whole = [np.concatenate(columns) for columns in zip(*parts, strict=True)]
        return Fit(*whole)

    def _fit_batch(
        self,
        spec: NetworkSpec,
        params: NDArray[np.float32],
        inputs: NDArray[np.float32],
        targets: NDArray[np.float32],
        adam: Adam,
        draws: Draws | None,
    ) -> Fit:
        place: dict[str, Any] = {"device": self.device, "dtype": self.dtype}
        whole_x, whole_y = (torch.from_numpy(each).to(**place) for each in (inputs, targets))
        points = inputs.shape[-2] if draws is None else draws.points

        def padded(x: torch.Tensor) -> torch.Tensor:
            return pad(x, (0, 0, 0, -points % _LINE))

        def drawn(step: int) -> tuple[torch.Tensor, torch.Tensor]:
            assert draws is not None
            chosen = torch.from_numpy(draws.at(step, inputs.shape[-2])).to(self.device)[..., None]
            taken = (
                each.gather(1, chosen.expand(-1, -1, each.shape[2])) for each in (whole_x, whole_y)
            )
            return next(taken), next(taken)

        wide = replace(_widen(spec), frequencies=())
        # What all steps share is encoded once.
        x, y = nets.encode(spec, padded(whole_x)) if draws is None else whole_x, whole_y
        start = Weights.unflatten(torch.from_numpy(params).to(**place), spec)
        free = Weights.from_tensors(
            {
                name: _zero_padded(tensor, wide.tensors[name]).requires_grad_()
                for name, tensor in start.tensors().items()
            }
        )

        def narrow() -> torch.Tensor:
            sizes = [shape[:2] for shape in spec.tensors.values()]
            parts = zip(free.tensors().values(), sizes, strict=True)
            cut = [tensor.detach()[(slice(None), *map(slice, size))] for tensor, size in parts]
            return torch.cat([tensor.flatten(1) for tensor in cut], dim=1)

        tensors = list(free.tensors().values())
        optimiser = torch.optim.Adam(
            tensors,
            lr=adam.lr,
            betas=(adam.beta1, adam.beta2),
            eps=adam.eps,
            weight_decay=adam.weight_decay,
            foreach=True,
        )
        target = -1.0 if adam.target_mse is None else adam.target_mse
        running = torch.ones(len(params), dtype=torch.bool, device=self.device)
        kept = narrow()
        kept_mse = torch.full((len(params),), torch.nan, dtype=torch.float64, device=self.device)
        steps = torch.full((len(params),), adam.steps, device=self.device)
        for step in range(adam.steps + 1):
            stopping.check()
            if draws is not None:
                fresh, y = drawn(step)
                x = nets.encode(spec, padded(fresh))
            outputs = nets.forward(wide, free, x)[:, :points]
            if adam.loss == "bce":
                each = binary_cross_entropy_with_logits(outputs, y, reduction="none")
            else:
                each = (outputs - y).square()
            mse = each.mean(dim=(1, 2))
            over = (mse < target) | ~mse.isfinite()
            ending = running & (over if step < adam.steps else torch.ones_like(over))
            if ending.any():
                # A network that ends keeps these parameters while its neighbours go on.
                kept[ending] = narrow()[ending]
                kept_mse[ending] = mse.detach().double()[ending]
                steps[ending] = step
                running &= ~ending
            if not running.any():
                break
            optimiser.zero_grad()
            optimiser.param_groups[0].update(lr=adam.rates(step).item())
            mse.sum().backward()
            optimiser.step()
        reached = kept_mse < target
        return Fit(
            kept.float().cpu().numpy(),
            kept_mse.cpu().numpy(),
            steps.cpu().numpy(),
            torch.where(reached, TARGET, CAP).cpu().numpy(),
        )
