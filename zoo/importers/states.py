"""Turns a state dict as people save it into the tensors of a chain of layers.

One normalising step for every format that holds state dicts. It finds the one mapping of
tensors inside whatever wraps it, sets prefixes of wrappers aside, pairs each bias with the
weight of the same module, puts zeros for biases that are absent, folds batch norm into the
layer beside it, and makes float32 of other floats. Nothing that the tensors leave open is
guessed: the order of layers is that of numbers in their names or of the file, as far as the
shapes allow it, or the only one that the shapes allow; where a batch norm stands is told by
the numbers of a Sequential. Else an option decides (`--key`, `--order`, `--norm`), and the
message names it. All that was done is noted in a `Told`.

The first file settles a `Plan`; every other file is held against it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.errors import ZooError
from zoo.importers.contents import FILE_BYTES
from zoo.importers.files import natural
from zoo.importers.published import Told
from zoo.schema import safe
from zoo.spec import NetworkSpec

MAX_PARAMS = FILE_BYTES // 4
# Containers that are looked into for a state dict; a checkpoint has a few hundred.
MAX_CONTAINERS = 20_000
MAX_DEPTH = 8
# Steps in search of an order that the shapes allow; beyond it they are taken to allow several.
MAX_STEPS = 20_000
NORM_EPS = 1e-5  # of torch.nn.BatchNorm*
FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
NORM_LEAVES = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
# Names of parameters that stand for a weight, and what to do first.
REMEDIES = (
    (r"weight_[gv]$|parametrizations\.", "torch.nn.utils.parametrize.remove_parametrizations"),
    (r"weight_(orig|mask)$", "torch.nn.utils.prune.remove, or remove_spectral_norm"),
    (r"_l[0-9]+(_reverse)?$", None),
    (r"in_proj_|bias_[kv]$", None),
)


@dataclass(frozen=True)
class Choices:
    """What the user decides where the tensors leave it open; see `Options`."""

    key: str | None = None
    order: tuple[str, ...] | None = None
    norm: str | None = None
    norm_eps: float = NORM_EPS


@dataclass(frozen=True)
class Module:
    """A layer or a batch norm of a state dict, by the name of its module."""

    name: str
    weight: Tensor | None
    bias: Tensor | None
    mean: Tensor | None = None
    var: Tensor | None = None

    @property
    def out(self) -> int:
        """Neurons or channels that it gives."""
        tensor = self.mean if self.weight is None else self.weight
        assert tensor is not None
        return int(tensor.shape[0])

    @property
    def inp(self) -> int:
        """Neurons or channels that a layer takes."""
        assert self.weight is not None
        return int(self.weight.shape[1])

    @property
    def shape(self) -> tuple[int, ...]:
        assert self.weight is not None
        return tuple(self.weight.shape)


@dataclass(frozen=True)
class Fold:
    """A batch norm and the layer that takes it in: the one before it, or the one behind."""

    norm: str
    layer: str
    behind: bool


@dataclass(frozen=True)
class Plan:
    """How the state dicts of one architecture become layers.

    Attributes:
        key: what the user says of where the state dict lies; None where a file has one only.
        layers: names of modules, in the order in which they compute.
        folds: batch norms, in the order in which they are folded.
    """

    key: str | None
    layers: tuple[str, ...]
    folds: tuple[Fold, ...] = field(default=())


# ---- finding the state dict


def _is_layer(name: object, value: object) -> bool:
    leaf = name.rpartition(".")[2] if isinstance(name, str) else ""
    return leaf == "weight" and isinstance(value, Tensor) and value.ndim >= 2


def _mappings(loaded: Any, where: str) -> dict[str, Mapping[str, Any]]:
    """Every mapping in a file that holds weights by name, by the path to it."""
    found: dict[str, Mapping[str, Any]] = {}
    seen: set[int] = set()
    queue: list[tuple[str, Any, int]] = [("", loaded, 0)]
    while queue:
        path, value, depth = queue.pop(0)
        if id(value) in seen or depth > MAX_DEPTH:
            continue
        seen.add(id(value))
        if len(seen) > MAX_CONTAINERS:
            raise ZooError(f"{where}: more than {MAX_CONTAINERS:,} containers in one file")
        if isinstance(value, Mapping):
            inner: list[tuple[Any, Any]] = list(value.items())
            if any(_is_layer(name, part) for name, part in inner):
                found[path] = value
        else:
            inner = list(enumerate(value))
        queue += [
            (f"{path}.{name}" if path else str(name), part, depth + 1)
            for name, part in inner
            if isinstance(part, Mapping | list)
        ]
    return found


def _state(loaded: Any, key: str | None, where: str) -> tuple[dict[str, Any], str]:
    """The state dict that a file holds, and in words where it lies there."""
    if not isinstance(loaded, Mapping | list):
        raise ZooError(f"{where}: expected a state dict, got {type(loaded).__name__}")
    found = _mappings(loaded, where)
    path, prefix = _choose(found, key, loaded, where)
    words = safe(path, 60) or "the whole file"
    words += f", of it {safe(prefix, 60)}*" if prefix else ""
    return _entries(found[path], prefix, where), words


def _choose(
    found: Mapping[str, Mapping[str, Any]], key: str | None, loaded: Any, where: str
) -> tuple[str, str]:
    """Path of the state dict and prefix of the names in it that are meant."""
    listed = ", ".join(
        f"{safe(path, 60) or 'the top'} ({sum(isinstance(v, Tensor) for v in m.values())} tensors)"
        for path, m in list(found.items())[:8]
    )
    if not found:
        holds = ", ".join(safe(name, 40) for name in list(loaded)[:8]) or "nothing"
        raise ZooError(
            f"{where}: expected a state dict, tensors named ....weight and ....bias, got {holds}"
        )
    if key is None:
        if len(found) > 1:
            raise ValueError(
                f"{where}: several state dicts could be meant, {listed}: choose by --key"
            )
        return next(iter(found)), ""
    if key in found:
        return key, ""
    # Or a part of a network: a module's name, behind the path of its state dict if any.
    matches = []
    for path, mapping in found.items():
        inside = key.removeprefix(f"{path}.") if path else key
        if any(str(name).startswith(f"{inside}.") for name in mapping):
            matches.append((path, f"{inside}."))
    if len(matches) == 1:
        return matches[0]
    what = "is in several state dicts" if matches else "is no state dict, and no module of one,"
    raise ValueError(f"{where}: --key {key!r} {what}; there are {listed}")


def _entries(mapping: Mapping[str, Any], prefix: str, where: str) -> dict[str, Any]:
    """Names and values without prefixes of wrappers, in the order of the mapping."""
    named = {}
    for name, value in mapping.items():
        if not isinstance(name, str):
            raise ZooError(f"{where}: expected names of tensors, got {safe(repr(name), 40)}")
        if name.startswith(prefix):
            named[name.removeprefix(prefix)] = value
    named = {".".join(p for p in n.split(".") if p != "_orig_mod"): v for n, v in named.items()}
    while True:
        parts = [n.split(".") for n, v in named.items() if n.rpartition(".")[2] in NORM_LEAVES]
        first = parts[0][0] if parts else ""
        # A prefix that all share tells nothing; the last name before `weight` stays.
        if not parts or any(len(part) < 3 or part[0] != first for part in parts):
            return named
        named = {n.removeprefix(f"{first}."): v for n, v in named.items()}


# ---- modules


def modules_of(state: Mapping[str, Any], where: str, told: Told) -> dict[str, Module]:
    """The layers and batch norms of a state dict, in its order.

    Raises:
        ZooError: for parameters of other kinds of layers, or tensors that are no dense
            floating-point numbers.
    """
    grouped: dict[str, dict[str, Any]] = {}
    for name, value in state.items():
        module, _, leaf = name.rpartition(".")
        if leaf in NORM_LEAVES:
            grouped.setdefault(module, {})[leaf] = value
        elif isinstance(value, Tensor) and re.search(r"weight|bias|parametrizations", name):
            raise ZooError(f"{where}: {_unknown(name)}")
        else:
            shape = list(value.shape) if isinstance(value, Tensor) else ""
            told.add(f"left out: {safe(name, 60)} {shape}".rstrip() + ", which no layer needs")
    found = {}
    for name, leaves in grouped.items():
        tensors = {
            leaf: _dense(value, f"{name}.{leaf}".lstrip("."), where)
            for leaf, value in leaves.items()
            if leaf != "num_batches_tracked"
        }
        found[name] = _module(name, tensors, where)
    return found


def _unknown(name: str) -> str:
    """Why a parameter is refused, and what to do first."""
    shown = safe(name, 80)
    for pattern, remedy in REMEDIES:
        if re.search(pattern, name):
            kind = f"remove what wraps the weight first ({remedy})" if remedy else (
                "recurrent layers and attention are no chain of linear and conv layers"
            )  # fmt: skip
            return f"{shown}: {kind}"
    return f"expected names ending in weight or bias, got {shown!r}"


def _dense(value: Any, name: str, where: str) -> Tensor:
    if (
        not isinstance(value, Tensor)
        or value.layout != torch.strided
        or value.device.type != "cpu"
        or value.dtype not in FLOATS
        or value.is_quantized
    ):
        got = f"{value.dtype} {value.layout}" if isinstance(value, Tensor) else type(value).__name__
        raise ZooError(
            f"{where}: {safe(name, 80)}: expected a dense tensor of floating-point numbers, got "
            f"{got}; convert others by .float() first, a zoo holds float32"
        )
    if value.numel() > MAX_PARAMS:
        raise ZooError(f"{where}: {safe(name, 80)}: {value.numel():,} entries are too many")
    return value.detach()


def _module(name: str, tensors: Mapping[str, Tensor], where: str) -> Module:
    """A layer or a batch norm; ZooError for anything else."""
    shown = safe(name, 80) or "the module"
    weight, bias = tensors.get("weight"), tensors.get("bias")
    mean, var = tensors.get("running_mean"), tensors.get("running_var")
    if (mean is None) != (var is None):
        raise ZooError(f"{where}: {shown}: running_mean and running_var belong together")
    size = mean.shape if mean is not None else weight.shape[:1] if weight is not None else None
    if size is None:
        raise ZooError(f"{where}: {shown}: a bias without a weight of the same module")
    others = [tensor for tensor in (bias, mean, var) if tensor is not None]
    if mean is not None and weight is not None:
        others.append(weight)
    if any(tensor.shape != size for tensor in others):
        shapes = ", ".join(f"{leaf} {tuple(tensor.shape)}" for leaf, tensor in tensors.items())
        raise ZooError(
            f"{where}: {shown}: expected weight (out, inp) and bias (out,), got {shapes}"
        )
    if mean is None and weight is not None and weight.ndim not in (2, 4):
        kinds = {
            0: "a learned number", 1: "a norm without running statistics, or PReLU: it cannot be "
            "folded", 3: "a convolution along one axis", 5: "a convolution along three axes",
        }  # fmt: skip
        what = kinds.get(weight.ndim, f"a weight of {weight.ndim} axes")
        raise ZooError(
            f"{where}: {shown}: {what}; a zoo holds linear layers, weight (out, inp), and "
            f"convolutions (out, inp, kh, kw), got {tuple(weight.shape)}"
        )
    if min(tensor.numel() for tensor in tensors.values()) == 0:
        raise ZooError(f"{where}: {shown}: a layer of width 0")
    return Module(name, weight, bias, mean, var)


# ---- the order of layers


def numbered(names: Sequence[str]) -> list[str] | None:
    """The names in the order of the numbers in them; None where other parts differ.

    >>> numbered(["net.2", "net.10.linear", "net.1.linear"])
    ['net.1.linear', 'net.2', 'net.10.linear']
    >>> numbered(["encoder", "head"]) is None
    True
    """
    if len(names) < 2:
        return list(names)
    tokens = {name: re.split(r"([0-9]{1,18})", name) for name in names}
    shortest = min(len(token) for token in tokens.values())
    place = next((i for i in range(shortest) if len({t[i] for t in tokens.values()}) > 1), None)
    # Every other token is a number.
    if place is None or place % 2 == 0:
        return None
    groups: dict[int, list[str]] = {}
    for name in names:
        groups.setdefault(int(tokens[name][place]), []).append(name)
    if len(groups) == 1:
        return None
    ordered: list[str] = []
    for number in sorted(groups):
        part = numbered(groups[number])
        if part is None:
            return None
        ordered += part
    return ordered


def _fits(before: Module, after: Module) -> bool:
    """Whether one layer can stand behind another: linear never before a convolution."""
    assert before.weight is not None
    assert after.weight is not None
    return before.out == after.inp and not (before.weight.ndim == 2 and after.weight.ndim == 4)


def _chains(order: Sequence[str], found: Mapping[str, Module]) -> bool:
    return all(_fits(found[a], found[b]) for a, b in pairwise(order))


def _orders(found: Mapping[str, Module], names: Sequence[str]) -> list[list[str]]:
    """Up to two orders in which the shapes chain; two if it takes long to tell."""
    behind = {a: [b for b in names if b != a and _fits(found[a], found[b])] for a in names}
    left = [MAX_STEPS]

    def walk(path: list[str]) -> Iterator[list[str]]:
        left[0] -= 1
        if left[0] < 0:
            return
        if len(path) == len(names):
            yield list(path)
            return
        for name in behind[path[-1]] if path else names:
            if name not in path:
                yield from walk([*path, name])

    complete: list[list[str]] = []
    for order in walk([]):
        complete.append(order)
        if len(complete) == 2:
            break
    return complete if left[0] >= 0 else [list(names), list(names)]


def _shapes(found: Mapping[str, Module], names: Sequence[str]) -> str:
    shown = [f"{safe(name, 40) or 'the layer'} {found[name].shape}" for name in names[:12]]
    return ", ".join(shown) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _order(
    found: Mapping[str, Module],
    in_order: bool,
    wanted: Sequence[str] | None,
    where: str,
    told: Told,
) -> list[str]:
    """Names of the layers in the order in which they compute."""
    layers = [name for name, module in found.items() if module.mean is None]
    if not layers:
        raise ZooError(f"{where}: no layer, only batch norms")
    if wanted is not None:
        # With or without the prefix that was set aside.
        wanted = [next((f for f in found if f"{w}".endswith(f".{f}")), w) if w not in found else w
                  for w in wanted]  # fmt: skip
        order = [name for name in wanted if name in layers]
        if sorted(order) != sorted(layers) or set(wanted) - set(found):
            raise ValueError(
                f"--order {','.join(wanted)}: {where} has the layers "
                f"{', '.join(safe(name, 40) for name in layers)}; name each once"
            )
        if not _chains(order, found):
            raise ValueError(
                f"--order: {where}: {_shapes(found, order)} do not chain in this order"
            )
        told.say(f"layers in the order of --order: {_names(order)}")
        return order
    by_number = numbered(layers)
    evidence = {
        "of the numbers in their names": by_number,
        "of the file": layers if in_order else None,
    }
    fitting = {how: order for how, order in evidence.items() if order and _chains(order, found)}
    if fitting:
        orders = list(fitting.values())
        if any(order != orders[0] for order in orders):
            raise ValueError(
                f"{where}: the file has the layers in the order {_names(layers)}, numbers in their "
                f"names say {_names(by_number or [])}, and the shapes allow both: give --order"
            )
        if len(layers) > 1:
            told.say(f"layers in the order {next(iter(fitting))}: {_names(orders[0])}")
        return orders[0]
    possible = _orders(found, layers)
    if len(possible) > 1:
        raise ValueError(
            f"{where}: the shapes {_shapes(found, layers)} allow several orders of the layers, and "
            "neither their names nor the file tell which: give --order NAME,NAME,..."
        )
    if not possible:
        number = next(
            n for n, (a, b) in enumerate(pairwise(layers)) if not _fits(found[a], found[b])
        )
        before, after = (found[name] for name in layers[number : number + 2])
        raise ZooError(
            f"{where}: layer {number + 1} ({safe(after.name, 40)}): expected weight (out, "
            f"{before.out}), got {after.shape}; the layers do not chain in any order"
        )
    told.say(f"layers in the only order that their shapes allow: {_names(possible[0])}")
    return possible[0]


def _names(order: Sequence[str]) -> str:
    shown = [safe(name, 40) for name in (order if len(order) <= 12 else [*order[:11], "..."])]
    return ", ".join(shown)


# ---- batch norm


def _container(name: str) -> tuple[str, int] | None:
    """Of a module of a Sequential: its container, and its number in it."""
    match = re.fullmatch(r"((?:.*\.)?)([0-9]{1,9})", name)
    return (match[1], int(match[2])) if match else None


def _before(
    norm: Module, found: Mapping[str, Module], layers: Sequence[str], in_order: bool, where: str
) -> str | None:
    """The layer that a batch norm stands behind; None if it stands before all of them."""
    place = _container(norm.name)
    if place is not None:
        numbers = {n: p[1] for n in layers if (p := _container(n)) and p[0] == place[0]}
        if numbers:
            lower = [name for name, number in numbers.items() if number < place[1]]
            return max(lower, key=lambda name: numbers[name], default=None)
    digits = re.findall(r"[0-9]+", norm.name)
    parent = norm.name.rpartition(".")[0]
    same_number = [name for name in layers if digits and re.findall(r"[0-9]+", name) == digits]
    same_parent = [name for name in layers if parent and name.rpartition(".")[0] == parent]
    every = list(found)
    earlier = [name for name in every[: every.index(norm.name)] if name in layers]
    evidence = [names[0] for names in (same_number, same_parent) if len(names) == 1]
    evidence += earlier[-1:] if in_order else []
    evidence = [name for name in dict.fromkeys(evidence) if found[name].out == norm.out]
    if not evidence and not in_order:
        evidence = [name for name in layers if found[name].out == norm.out]
    if len(evidence) == 1:
        return evidence[0]
    if in_order and not earlier and not evidence and found[layers[0]].inp == norm.out:
        return None
    shown = safe(norm.name, 40)
    raise ValueError(
        f"{where}: which layer the batch norm {shown} ({norm.out} channels) stands behind is not "
        f"told by {_shapes(found, layers)}: give --order with the batch norms in it"
    )


def _gap(one: str, other: str) -> bool | None:
    """Whether something stands between two modules of a Sequential; None if that is not told."""
    a, b = _container(one), _container(other)
    return b[1] - a[1] > 1 if a and b and a[0] == b[0] else None


def _direction(norm: str, before: str, after: str, choice: str | None, where: str) -> bool:
    """Whether a batch norm stands behind the activation of the layer before it."""
    if choice is not None:
        return choice == "after"
    first, second = _gap(before, norm), _gap(norm, after)
    # The activation stands in the one gap that there is.
    if first is not None and second is not None and first != second:
        return first
    raise ValueError(
        f"{where}: a state dict does not say whether the batch norm {safe(norm, 40)} stands before "
        f"or after the activation of {safe(before, 40)}: give --norm before or --norm after"
    )


def _folds(
    found: Mapping[str, Module],
    layers: list[str],
    in_order: bool,
    choices: Choices,
    spec: NetworkSpec | None,
    activation: str | None,
    where: str,
) -> tuple[Fold, ...]:
    """Where each batch norm goes, in the order in which they stand."""
    norms = [module for module in found.values() if module.mean is not None]
    if choices.order is not None and set(choices.order) == set(found):
        sequence = list(choices.order)
        places = {
            norm.name: max(
                (n for n in layers if sequence.index(n) < sequence.index(norm.name)),
                key=sequence.index,
                default=None,
            )
            for norm in norms
        }
    else:
        places = {n.name: _before(n, found, layers, in_order, where) for n in norms}
    folds = []
    for norm in norms:
        before = places[norm.name]
        number = layers.index(before) if before is not None else -1
        after = layers[number + 1] if number + 1 < len(layers) else None
        plain = activation == "identity" or (
            spec is not None and number >= 0 and spec.layers[number].activation == "identity"
        )
        if before is None:
            behind = True
        elif after is None or plain:
            behind = False
        else:
            behind = _direction(norm.name, before, after, choices.norm, where)
        layer = after if behind else before
        assert layer is not None
        size = found[layer].inp if behind else found[layer].out
        if size != norm.out:
            raise ZooError(
                f"{where}: the batch norm {safe(norm.name, 40)} has {norm.out} channels, "
                f"{safe(layer, 40)} beside it {size}"
            )
        padded = spec is not None and spec.layers[layers.index(layer)].padding > 0
        if behind and padded:
            raise ValueError(
                f"{where}: the batch norm {safe(norm.name, 40)} stands between an activation and "
                f"{safe(layer, 40)}, whose padding is zeros: it cannot be folded exactly"
            )
        folds.append(Fold(norm.name, layer, behind))
    return tuple(folds)


def _fold(
    weight: NDArray[np.float64], bias: NDArray[np.float64], norm: Module, behind: bool, eps: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A layer that computes what it and the batch norm beside it compute, evaluated."""
    assert norm.mean is not None
    assert norm.var is not None
    mean, var = norm.mean.double().numpy(), norm.var.double().numpy()
    with np.errstate(all="ignore"):  # a network that is not finite is left out later
        scale = 1 / np.sqrt(var + eps)
        if norm.weight is not None:
            scale = scale * norm.weight.double().numpy()
        shift = -mean * scale
        if norm.bias is not None:
            shift = shift + norm.bias.double().numpy()
        if not behind:
            axes = (slice(None), *[None] * (weight.ndim - 1))
            return weight * scale[axes], bias * scale + shift
        added = np.einsum("oi...,i->o...", weight, shift).reshape(len(bias), -1).sum(axis=1)
        axes = (None, slice(None), *[None] * (weight.ndim - 2))
        return weight * scale[axes], bias + added


# ---- the step as a whole


def plan_of(
    loaded: Any,
    in_order: bool,
    where: str,
    told: Told,
    choices: Choices = Choices(),
    spec: NetworkSpec | None = None,
    activation: str | None = None,
) -> tuple[Plan, dict[str, tuple[int, ...]]]:
    """How a file's state dict becomes layers, and the shape of each layer's weight.

    Args:
        loaded: what the file holds.
        in_order: whether its order is that in which the tensors were saved.
        spec: the architecture, where it is known.
        activation: of the hidden layers, where it is known.

    Raises:
        ValueError: where an option has to decide.
        ZooError: if it holds no chain of layers.
    """
    state, words = _state(loaded, choices.key, where)
    found = modules_of(state, where, Told())
    if not in_order:
        found = {name: found[name] for name in sorted(found, key=natural)}
    layers = _order(found, in_order, choices.order, where, told)
    if spec is not None and len(spec.layers) != len(layers):
        raise ZooError(f"{where}: {len(layers)} layers, the spec has {len(spec.layers)}")
    folds = _folds(found, layers, in_order, choices, spec, activation, where)
    if words != "the whole file":
        told.say(f"the state dict is {words}")
    for fold in folds:
        told.say(
            f"batch norm {safe(fold.norm, 40)} folded into {safe(fold.layer, 40)} "
            f"{'behind' if fold.behind else 'before'} it, as it is evaluated, with eps "
            f"{choices.norm_eps:g}"
        )
    shapes = {name: found[name].shape for name in layers}
    return Plan(choices.key, tuple(layers), folds), shapes


def widths_of(shapes: Mapping[str, tuple[int, ...]]) -> list[int]:
    """Inputs, hidden widths and outputs of linear layers, from the shapes of `plan_of`."""
    weights = list(shapes.values())
    return [weights[0][1], *(shape[0] for shape in weights)]


def normalised(
    loaded: Any,
    plan: Plan,
    spec: NetworkSpec,
    where: str,
    told: Told,
    eps: float = NORM_EPS,
) -> dict[str, NDArray[np.float32]]:
    """One network's tensors as float32 arrays of the spec's shapes, by their names in a shard.

    Raises:
        ZooError: if the file does not hold a network of this plan and spec.
    """
    state, _ = _state(loaded, plan.key, where)
    found = modules_of(state, where, told)
    expected = {*plan.layers, *(fold.norm for fold in plan.folds)}
    if set(found) != expected:
        raise ZooError(
            f"{where}: expected the layers {_names(sorted(expected, key=natural))}, as in the "
            f"first network, got {_names(sorted(found, key=natural))}"
        )
    arrays: dict[str, NDArray[np.float32]] = {}
    kinds = {t.dtype for m in found.values() for t in (m.weight, m.bias) if t is not None}
    if torch.float64 in kinds:
        told.add("float64, rounded to float32")
    for kind in (torch.float16, torch.bfloat16):
        if kind in kinds:
            told.add(f"{str(kind).removeprefix('torch.')}, widened to float32")
    bare = [name for name in plan.layers if found[name].bias is None]
    if bare:
        told.add(f"no bias in {_names(bare)}: zeros stand for it")
    for number, name in enumerate(plan.layers):
        module = found[name]
        for tensor, shape in (
            (f"weight_{number}", module.shape),
            (f"bias_{number}", (module.out,)),
        ):
            if shape != spec.tensors[tensor]:
                raise ZooError(
                    f"{where}: {tensor}: expected {spec.tensors[tensor]}, as in the first network, "
                    f"got {shape} ({safe(name, 40)})"
                )
        arrays |= _layer(number, module, [f for f in plan.folds if f.layer == name], found, eps)
    return arrays


def _layer(
    number: int, module: Module, folds: Sequence[Fold], found: Mapping[str, Module], eps: float
) -> dict[str, NDArray[np.float32]]:
    assert module.weight is not None
    bias = module.weight.new_zeros(module.out) if module.bias is None else module.bias
    if not folds:
        with np.errstate(over="ignore"):
            return {
                f"weight_{number}": module.weight.float().contiguous().numpy(),
                f"bias_{number}": bias.float().contiguous().numpy(),
            }
    weight, shift = module.weight.double().numpy(), bias.double().numpy()
    # The one nearest to the layer first.
    before = [fold for fold in folds if not fold.behind]
    for fold in [*before, *reversed([fold for fold in folds if fold.behind])]:
        weight, shift = _fold(weight, shift, found[fold.norm], fold.behind, eps)
    with np.errstate(over="ignore"):
        return {
            f"weight_{number}": np.ascontiguousarray(weight, np.float32),
            f"bias_{number}": np.ascontiguousarray(shift, np.float32),
        }
