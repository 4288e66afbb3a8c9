"""Which weights of a fresh network to keep: winning tickets, from its initialisation.

A conditional variational autoencoder learns masks given initial weights: the encoder reads
both, q(Z | U_0, M), and the decoder tells the mask, p(M | U_0, Z); the prior of Z is
standard normal. The masks it learns from are those of one step of magnitude pruning: the
largest entries after training.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from processors.models import load
from processors.options import TicketsOptions
from processors.rows import Batch, Rows
from processors.sizes import check_sizes
from processors.tasks import figures
from processors.tasks.task import Constant, Metrics, Task
from processors.vae import TicketVAE, largest, parts_of
from zoo import Weights, Zoo, ZooError, forward, source_of

SIZES = ("chan", "layers", "latent", "layer_norm", "positions")
SYMMETRIES = {"nfn-np": "np", "nfn-hnp": "hnp", "nfn-pt": "pointwise"}
# Of the training of tickets, Adam's rate and pictures of an update.
_LR, _BATCH = 1e-3, 128


class Runs(Rows):
    """The trainings of a zoo of trajectories: the first network, and in `last` the last one.

    `last` is a column of whole networks, `net param`; other columns are of the last too.

    Raises:
        ValueError: if the zoo has no trajectories, or these do not begin at step 0.
    """

    def __init__(
        self, zoo: Zoo, device: torch.device | str = "cpu", limit: int | None = None
    ) -> None:
        if not zoo.index.in_runs:
            raise ValueError(
                f"tickets needs trainings with their first network, as `wszoo fit-trajectories "
                f"--checkpoints tenths` keeps them; {zoo.folder.name} has no steps"
            )
        steps, runs = zoo.steps, zoo.column("index")
        order = np.lexsort((steps, runs))
        starts = np.unique(runs[order], return_index=True)[1]
        self._first = torch.from_numpy(order[starts])
        self._last = torch.from_numpy(order[np.append(starts[1:], len(order)) - 1])
        late = steps[self._first.numpy()]
        if late.any():
            raise ValueError(
                f"tickets needs networks from before their training, and the runs of "
                f"{zoo.folder.name} begin at step {late.max()}: make the zoo with --checkpoints "
                "tenths"
            )
        super().__init__(zoo, device, limit)

    def _total(self) -> int:
        return len(self._first)

    def column(self, name: str) -> Tensor:
        """One column of the last networks."""
        values = torch.from_numpy(self.zoo.column(name)[self._last.numpy()][: len(self)])
        return values.float() if values.is_floating_point() else values

    def _gather(self, rows: Tensor) -> Batch:
        weights, _ = super()._gather(self._first[rows])
        last, columns = super()._gather(self._last[rows])
        return weights, {**columns, "last": last.flatten()}


class Tickets(Task):
    """Masks that leave a few of the entries, biases included, for initial networks.

    Source: Zhou et al. 2023, Sec. 3.3 and App. D.2 (Table 5).
    """

    name, takes = "tickets", TicketsOptions
    metric, higher, title = "agreement", True, "share of a ticket that is found"
    out = None
    options: TicketsOptions

    def __init__(self, data: Mapping[str, Rows], options: TicketsOptions) -> None:
        super().__init__(data, options)
        if self.augment.names:
            raise ValueError("tickets has no use for --augment: the mask would not change along")

    @classmethod
    def rows(cls, zoo: Zoo, device: torch.device | str, limit: int | None) -> Rows:
        """Whole runs, not single networks."""
        return Runs(zoo, device, limit)

    def _auto(self) -> tuple[str, ...]:
        return ()

    @classmethod
    def check_model(cls, model: str, sizes: Mapping[str, Any]) -> None:
        """Models are names of symmetries here, and sizes those of the autoencoder."""
        if model not in SYMMETRIES:
            raise ValueError(
                f"tickets are predicted by NFN layers; known: {', '.join(SYMMETRIES)}, got {model}"
            )
        if unknown := [name for name in sizes if name not in SIZES]:
            raise ValueError(
                f"the autoencoder of tickets has no argument {unknown[0]!r}; known: "
                f"{', '.join(SIZES)}"
            )
        check_sizes(sizes)

    def fitting_sizes(self, model: str, sizes: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the autoencoder."""
        return {name: value for name, value in sizes.items() if name in SIZES}

    def unsaid(self, model: str) -> dict[str, Any]:
        """Nothing: the autoencoder is what it was."""
        return {}

    def module(self, model: str, stats: Mapping[str, Tensor] | None, sizes: dict[str, Any]) -> Any:
        """The autoencoder, with the statistics of initial networks alone."""
        own = self._initial if "train" in self.data else stats
        return TicketVAE(self.spec.to_json(), SYMMETRIES[model], **sizes, stats=own)

    @cached_property
    def _initial(self) -> Mapping[str, Tensor]:
        """Statistics of the initial networks, also where a model is only counted."""
        with torch.device("cpu"):
            return self.data["train"].stats()

    def processor(self, module: nn.Module) -> Any:
        """The autoencoder itself, which is no `Processor`."""
        return module

    def restore(self, folder: Path) -> Any:
        """The autoencoder of a run."""
        model = load(folder)
        if model.spec.tensors != self.spec.tensors:
            raise ValueError(f"{folder.parent.name} is for networks of another architecture")
        return model

    def ticket(self, columns: Mapping[str, Tensor]) -> Bool[Tensor, "net param"]:
        """The mask of one step of magnitude pruning: the largest entries after training."""
        return self._kept(columns["last"].abs())

    def _kept(self, values: Float[Tensor, "net param"]) -> Bool[Tensor, "net param"]:
        """The largest, as many as a ticket has."""
        parts = parts_of(self.spec, self.options.scope)
        return largest(values, self.options.sparsity, parts)

    def loss(self, module: Any, weights: Weights, columns: dict[str, Tensor]) -> Tensor:
        """The negative evidence lower bound, nats an entry."""
        return -module(weights, self.ticket(columns).float()).mean()

    @torch.no_grad()
    def _predict(self, module: Any, split: str) -> dict[str, Tensor]:
        """Of every network: bound, what masks are picked by, ticket, initial entries."""
        generator, pick = torch.Generator().manual_seed(0), self.options.pick
        latent = module.latent * self.spec.param_count
        parts: dict[str, list[Tensor]] = {"elbo": [], "scores": [], "ticket": [], "initial": []}
        for weights, columns in self.data[split].batches(16):
            ticket = self.ticket(columns)
            # Drawn on the CPU, so that every device sees the same. Runs of before drew both at
            # once, which gives other numbers than one after the other.
            shape = (2 if pick == "likeliest-by-draw" else 1, len(weights), latent)
            noise = torch.randn(shape, generator=generator).to(ticket.device)
            parts["elbo"].append(module(weights, ticket.float(), noise[0]))
            parts["scores"].append(
                module.decode(weights, noise[1]) if len(noise) > 1
                else module.scores(weights, pick, generator)
            )  # fmt: skip
            parts["ticket"].append(ticket)
            parts["initial"].append(weights.flatten())
        return {name: torch.cat(found) for name, found in parts.items()}

    def evaluate(self, module: Any, split: str) -> Metrics:
        """The bound, and how much of the tickets is found.

        `agreement` is of the predicted ones, `agreement_magnitude` of the largest entries of
        the initial networks. With --retrain-steps, for the test split: accuracies after
        training with each mask kept, of random ones and of dense networks too, their means over
        networks and, as a few masks cut a class off, medians; the standard error of the mean
        of predicted ones.
        """
        found = self._predict(module, split)
        sparsity = self.options.sparsity
        predicted = self._kept(found["scores"])
        masks = {"": predicted, "_magnitude": self._kept(found["initial"].abs())}
        kept = found["ticket"].sum().double()
        metrics: Metrics = {"elbo": float(found["elbo"].double().mean())}
        for name, mask in masks.items():
            metrics[f"agreement{name}"] = float((mask & found["ticket"]).sum() / kept)
        if self.options.retrain_steps and split == "test":
            nets = self.options.retrain_networks
            initial = found["initial"][:nets]
            generator = torch.Generator().manual_seed(1)
            chance = torch.rand(initial.shape, generator=generator).to(initial.device)
            kinds = {
                "imp": found["ticket"][:nets],
                "predicted": predicted[:nets],
                "magnitude": masks["_magnitude"][:nets],
                "random": chance < 1 - sparsity,
                "dense": torch.ones_like(initial, dtype=torch.bool),
            }
            accuracies = self.retrain(
                initial.repeat(len(kinds), 1), torch.cat(list(kinds.values()))
            ).view(len(kinds), -1)
            for name, of_each in zip(kinds, accuracies.double(), strict=True):
                metrics[f"accuracy_{name}"] = float(of_each.mean())
                metrics[f"accuracy_{name}_median"] = float(of_each.quantile(0.5))
                if name == "predicted" and len(of_each) > 1:
                    error = of_each.std() / len(of_each) ** 0.5
                    metrics["accuracy_predicted_error"] = float(error)
        return metrics

    def retrain(
        self, initial: Float[Tensor, "net param"], mask: Bool[Tensor, "net param"]
    ) -> Float[Tensor, " net"]:
        """Test accuracies after training from these entries with the rest at zero.

        --retrain-steps updates of Adam, 1e-3, on 128 pictures of the zoo's source, the same
        ones for all; accuracy on all of its test pictures.
        """
        source: Any = source_of(self.zoo.index, self.data_root)
        if source.labels is None:
            raise ZooError(f"the source of {self.zoo.index.name} has no classes")
        seen, tested = source.trained_on, list(source.cut()["test"])
        black, white = self.spec.pixel_range

        def pictures(items: Any) -> tuple[Tensor, Tensor]:
            chosen = torch.from_numpy(np.ascontiguousarray(source.images[items]))
            x = chosen.permute(0, 3, 1, 2).float().mul_((white - black) / 255).add_(black)
            x = x.flatten(1) if self.spec.layers[0].kind == "linear" else x
            labels = torch.from_numpy(source.labels[items])
            return x.to(initial.device), labels.to(initial.device)

        generator = torch.Generator().manual_seed(2)
        entries = (initial * mask).requires_grad_()
        optimiser = torch.optim.Adam([entries], lr=_LR)
        with torch.enable_grad():
            for _ in range(self.options.retrain_steps):
                # The items that the networks of the zoo were trained on.
                items = torch.randint(seen.start, seen.stop, (_BATCH,), generator=generator)
                x, labels = pictures(items.numpy())
                weights = Weights.unflatten(entries * mask, self.spec)
                logits = forward(self.spec, weights, x)
                # A sum over networks, so that each is trained as if alone.
                loss = cross_entropy(
                    logits.flatten(0, 1), labels.repeat(len(entries)), reduction="sum"
                )
                optimiser.zero_grad()
                (loss / _BATCH).backward()
                optimiser.step()
        with torch.no_grad():
            weights = Weights.unflatten(entries * mask, self.spec)
            right = torch.zeros(len(entries), device=initial.device)
            for start in range(0, len(tested), 500):
                x, labels = pictures(np.array(tested[start : start + 500]))
                found = forward(self.spec, weights, x).argmax(dim=2)
                right += (found == labels).sum(dim=1)
        return right / len(tested)

    def constant(self, split: str) -> Constant:
        """Masks by chance."""
        share, nets = 1 - self.options.sparsity, len(self.data[split])
        return Constant("chance", share, (share / (nets * self.spec.param_count)) ** 0.5)

    def figures(self, module: Any, split: str, folder: Path) -> None:
        """`shares.png`: what each tensor keeps, of the ticket and of the predicted mask.

        Where all keep the same: what inputs of weights keep, those that keep most first, means
        over networks.
        """
        found = self._predict(module, split)
        masks = {
            "IMP": found["ticket"],
            "predicted": self._kept(found["scores"]),
        }
        path, kept = folder / "shares.png", {}
        for name, mask in masks.items():
            kept[name] = Weights.unflatten(mask.float(), self.spec)
        if self.options.scope == "network":
            shares = {
                name: [float(tensor.mean()) for tensor in each.tensors().values()]
                for name, each in kept.items()
            }
            figures.shares(shares, list(self.spec.tensors), "share kept", path)
            return
        lines = {
            name: [_of_inputs(weight).cpu().numpy() for weight in each.weights]
            for name, each in kept.items()
        }
        names = [f"inputs of {name}" for name in self.spec.tensors if name.startswith("weight")]
        figures.ranked(lines, names, "share kept", path)


def _of_inputs(mask: Float[Tensor, "net out inp *tap"]) -> Float[Tensor, " inp"]:
    """Shares of each input of a layer, the largest first, means over networks."""
    shares = mask.flatten(3).mean(dim=3) if mask.ndim > 3 else mask
    return shares.mean(dim=1).sort(dim=1, descending=True).values.mean(dim=0)
