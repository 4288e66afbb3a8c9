"""What classifiers are trained on, and how one run of a recipe is drawn and carried out.

A unit is one classifier, or one run of a trajectory recipe; it gives a known number of
rows. Everything random about it (classes, settings, initial weights, order, dropout,
checkpoints) comes from the seed and the unit's index, see `zoo.philox`; a run whose
numbers overflow is tried again with other initial weights and order, its settings stay.
"""

from dataclasses import dataclass
from math import ceil, exp, log, prod, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo import philox
from zoo.engines import classifiers
from zoo.engines.classifiers import (
    ClassifierEngine,
    Data,
    Run,
    Trained,
    chosen_items,
    layer_sizes,
    random_words,
)
from zoo.kinds.base import Goal
from zoo.making.fitting import ATTEMPTS, Arrays, Fitted, Rows, split_params
from zoo.recipes import Classified, bounds, choices
from zoo.shards import STORAGE, Column, round_to
from zoo.sources import ImageSource
from zoo.spec import NetworkSpec

# Places of the settings in a unit's HYPER stream; part of format 1, never renumbered.
_DRAWS = {
    "lr": 0, "weight_decay": 1, "batch": 2, "optimiser": 3, "init_scale": 4, "fraction": 5,
    "init": 6, "init_std": 7, "dropout": 8, "class_a": 9, "class_b": 10,
}  # fmt: skip
CHUNK_BYTES = 16e6  # of a chunk of classifiers; a run may be larger
_CHECKPOINT_BLOCK = 16  # words from here on choose random checkpoints


@dataclass(frozen=True)
class Unit:
    """One classifier or run: its settings, as drawn.

    Attributes:
        classes: the pair of a classifier, lower first; None stands for all classes.
    """

    index: int
    settings: dict[str, float | str]
    classes: tuple[int, int] | None


class Classification(Goal):
    """A recipe of classifiers on a source of pictures.

    Attributes:
        storage: type that the networks are kept in; they are rounded before they are evaluated.

    Raises:
        ValueError: if the source has too few classes, or the pictures or runs are too small.
    """

    def __init__(self, recipe: Classified, source: ImageSource, storage: str = "float32"):
        if storage not in STORAGE:
            raise ValueError(f"unknown dtype {storage!r}; known: {', '.join(STORAGE)}")
        self.storage = storage
        if len(source.class_names) < 2:
            raise ValueError(
                f"recipe {recipe.name!r} wants at least two classes, {source.name} has "
                f"{len(source.class_names)}"
            )
        self.recipe = recipe
        self.class_names = source.class_names
        self.spec: NetworkSpec = recipe.spec(source.shape, len(source.class_names))
        layer_sizes(self.spec, source.shape)
        self.test = source.cut()["test"]
        if not len(self.test):
            raise ValueError(f"{source.name} has too few items to set some aside for testing")
        images = source.images
        if recipe.network == "mlp":
            images = images.transpose(0, 3, 1, 2)  # the order of torch's images: chan row col
        self.data = Data(
            np.ascontiguousarray(images).reshape(len(source), -1),
            source.labels,
            source.shape,
            (recipe.white - recipe.black) / 255,
            recipe.black,
        )
        train = np.array(source.trained_on, dtype=np.int64)
        self._by_class = [train[source.labels[train] == k] for k in range(len(self.class_names))]
        self._test_by_class = [
            part[source.labels[part] == k]
            for part in [np.array(self.test, np.int64)]
            for k in range(len(self.class_names))
        ]
        self._train = train
        for items, what in ((self._by_class, "training"), (self._test_by_class, "test")):
            lacking = [n for n, part in zip(self.class_names, items, strict=True) if not len(part)]
            if lacking:
                raise ValueError(f"{source.name} has no {what} pictures of class {lacking[0]!r}")
        self.columns = {
            name: Column(**each)
            for name, each in recipe.columns(source.class_names, storage).items()
        }
        recipe.refuse_short_runs(len(train))
        self.unit_rows = len(self.steps(0, self.unit(0, 0)))

    # -- what a unit is ------------------------------------------------------------------

    def unit(self, seed: int, index: int) -> Unit:
        """The settings of a unit."""
        recipe = self.recipe
        words = random_words((seed, 0, index, 0), philox.HYPER, len(_DRAWS))
        draws = (words >> np.uint32(8)).astype(np.float64) * 2.0**-24
        uniform = {name: float(draws[place]) for name, place in _DRAWS.items()}
        settings: dict[str, float | str] = {}
        for name in ("lr", "weight_decay", "init_scale", "init_std", "dropout"):
            low, high = bounds(getattr(recipe, name))
            if low == high:
                settings[name] = low
            elif name == "dropout":
                settings[name] = low + uniform[name] * (high - low)
            else:
                settings[name] = exp(log(low) + uniform[name] * (log(high) - log(low)))
        for name in ("batch", "optimiser", "fraction", "init"):
            listed = choices(getattr(recipe, name))
            word = listed[int(uniform[name] * len(listed))]
            settings[name] = word if name in ("optimiser", "init") else float(word)
        pair = recipe.pair(len(self.class_names), uniform["class_a"], uniform["class_b"])
        return Unit(index, settings, pair)

    def _items(self, unit: Unit, seed: int) -> NDArray[np.int64]:
        items = self._train
        if unit.classes is not None:
            items = np.sort(np.concatenate([self._by_class[k] for k in unit.classes]))
        wanted = ceil(float(unit.settings["fraction"]) * len(items))
        return chosen_items((seed, 0, unit.index, 0), items, wanted)

    def steps(self, seed: int, unit: Unit, items: int | None = None) -> tuple[int, ...]:
        """After which updates networks of a unit are kept."""
        recipe = self.recipe
        if items is None:
            items = len(self._items(unit, seed))
        epoch = ceil(items / int(unit.settings["batch"]))

        def shuffled(total: int) -> list[int]:
            key = (seed, 0, unit.index, 0)
            words = random_words(key, philox.HYPER, total, _CHECKPOINT_BLOCK)
            return [int(place) for place in np.argsort(words, kind="stable")]

        return recipe.steps_kept(epoch, shuffled)

    def run(self, seed: int, index: int, attempt: int = 0) -> Run:
        """A unit's run."""
        recipe, unit = self.recipe, self.unit(seed, index)
        items = self._items(unit, seed)
        test = np.array(self.test, np.int64)
        if unit.classes is not None:
            test = np.sort(np.concatenate([self._test_by_class[k] for k in unit.classes]))
        measured = items
        if recipe.loss_items is not None and recipe.loss_items < len(items):
            measured = items[np.arange(recipe.loss_items) * len(items) // recipe.loss_items]
        return Run(
            key=(seed, attempt, index, 0),
            train_items=items,
            loss_items=measured,
            test_items=test,
            steps=self.steps(seed, unit, len(items)),
            batch=int(unit.settings["batch"]),
            optimiser=str(unit.settings["optimiser"]),
            lr=float(unit.settings["lr"]),
            weight_decay=float(unit.settings["weight_decay"]),
            beta1=recipe.beta1,
            beta2=recipe.beta2,
            eps=recipe.eps,
            dropout=float(unit.settings["dropout"]),
            storage=self.storage,
        )

    def initial(self, seed: int, index: int, attempt: int = 0) -> NDArray[np.float32]:
        """`param`: a unit's network before training."""
        settings = self.unit(seed, index).settings
        return initial_weights(
            self.spec,
            str(settings["init"]),
            (seed, attempt, index, 0),
            float(settings["init_scale"]),
            float(settings["init_std"]),
        )

    def target_columns(self, seed: int, index: NDArray[np.int64]) -> Arrays:
        """Columns that the draws alone decide, of rows with these unit indices."""
        named: dict[str, list[float]] = {
            name: [] for name, column in self.columns.items() if column.role == "target"
        }
        wanted, back = np.unique(index, return_inverse=True)
        for number in wanted:
            unit = self.unit(seed, int(number))
            for name, values in named.items():
                if name in ("class_a", "class_b"):
                    assert unit.classes is not None
                    values.append(unit.classes[name == "class_b"])
                elif (names := self.columns[name].names) is not None:
                    values.append(names.index(str(unit.settings[name])))
                else:
                    values.append(float(unit.settings[name]))
        return {
            name: np.array(values, self.columns[name].dtype)[back] for name, values in named.items()
        }

    # -- carrying it out -------------------------------------------------------------------

    def load(self, engine: str, device: str, threads: int | None = None) -> ClassifierEngine:
        return classifiers.load(engine, device, threads)

    def chunk(self, engine: ClassifierEngine) -> tuple[int, int]:
        rows = int(np.clip(CHUNK_BYTES // (4 * self.spec.param_count * self.unit_rows), 1, 64))
        return max(rows, engine.batch), engine.threads

    def fit(self, engine: ClassifierEngine, seed: int, rows: Rows, *given: Any) -> Fitted:
        return self.train(engine, seed, rows)

    def train(self, engine: ClassifierEngine, seed: int, rows: Rows) -> Fitted:
        """Train units, each `unit_rows` rows; those that overflow are tried again."""
        trained: dict[int, Trained] = {}
        runs: dict[int, Run] = {}
        left = [int(index) for index in rows.index]
        for attempt in range(ATTEMPTS):
            if not left:
                break
            fresh = [self.run(seed, index, attempt) for index in left]
            params = np.stack([self.initial(seed, index, attempt) for index in left])
            found = engine.train(self.spec, self.data, params, fresh)
            for index, run, result in zip(left, fresh, found, strict=True):
                stored = round_to(result.params, self.storage)
                if np.isfinite(stored).all() and all(np.isfinite(v).all() for v in result[1:]):
                    trained[index], runs[index] = result, run
            left = [index for index in left if index not in trained]
        kept = [int(index) for index in rows.index if int(index) in trained]
        number = np.repeat(np.array(kept, np.int64), self.unit_rows)
        arrays: Arrays = {"index": number, "view": np.zeros_like(number)}
        if "step" in self.columns:
            parts = [np.array(runs[unit].steps, np.int64) for unit in kept]
            arrays["step"] = np.concatenate([*parts, np.empty(0, np.int64)])
            epochs = [part / runs[unit].epoch_steps for part, unit in zip(parts, kept, strict=True)]
            arrays["epoch"] = np.concatenate([*epochs, np.empty(0)]).astype(np.float32)
        arrays |= self.target_columns(seed, number)
        for name in ("train_loss", "test_loss", "test_accuracy"):
            values = [getattr(trained[unit], name) for unit in kept]
            arrays[name] = np.concatenate([*values, np.empty(0)]).astype(np.float32)
        empty = np.empty((0, self.spec.param_count), np.float32)
        flat = [trained[unit].params for unit in kept]
        params = flat[0] if len(flat) == 1 else np.concatenate([*flat, empty])
        if self.storage != "float32":
            exact, params = params, round_to(params, self.storage)
            arrays["rounding"] = _relative_error(params, exact)
        arrays |= split_params(params, self.spec.tensors)
        reason = f"not finite after {ATTEMPTS} attempts"
        return Fitted(arrays, [(unit, 0, reason) for unit in left])


def _relative_error(params: NDArray[np.float32], exact: NDArray[np.float32]) -> NDArray[np.float32]:
    """Root of the mean squared difference over that of the exact parameters, `net`."""
    error = np.square(params - exact, dtype=np.float64).mean(axis=1)
    size = np.square(exact, dtype=np.float64).mean(axis=1)
    # A network of zeros has no error either.
    relative: NDArray[np.float32] = np.sqrt(error / np.maximum(size, 1e-300)).astype(np.float32)
    return relative


def initial_weights(
    spec: NetworkSpec, scheme: str, key: tuple[int, int, int, int], scale: float, std: float
) -> NDArray[np.float32]:
    """`param`: a fresh network; weights are multiplied by `scale`, biases are not.

    Schemes:
        "torch": W and b uniform in +-1/sqrt(fan_in), the default of torch.nn.
        "glorot": W uniform in +-sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010).
        "he": W normal with variance 2 / fan_in (He et al. 2015).
        "orthogonal": W (out, fan_in) with orthonormal rows, or columns if these are
            fewer (Saxe et al. 2014).
        "normal": W normal with standard deviation `std`.

    In all but the first b = 0. Entry e takes the e-th draw of the stream.
    """
    count = spec.param_count
    if scheme in ("torch", "glorot"):
        words = random_words(key, philox.INIT, count)
        draws = (words >> np.uint32(8)).astype(np.float64) * 2.0**-23 - 1.0
    else:
        seed, attempt, index, view = key
        place = np.array([index]), np.array([view])
        draws = philox.normals(seed, attempt, *place, philox.INIT, count)[0]
    start = 0
    for layer in spec.layers:
        size = prod(layer.weight_shape)
        weight = draws[start : start + size]
        bias = draws[start + size : start + size + layer.out]
        if scheme == "torch":
            weight *= scale / sqrt(layer.fan_in)
            bias *= 1 / sqrt(layer.fan_in)
        else:
            bias[:] = 0.0
            fan_out = layer.out * prod(layer.kernel)
            if scheme == "glorot":
                weight *= scale * sqrt(6 / (layer.fan_in + fan_out))
            elif scheme == "he":
                weight *= scale * sqrt(2 / layer.fan_in)
            elif scheme == "normal":
                weight *= scale * std
            else:
                matrix = weight.reshape(layer.out, layer.fan_in)
                tall = matrix if layer.out <= layer.fan_in else matrix.T
                _orthonormalise(tall)
                weight *= scale
        start += size + layer.out
    return draws.astype(np.float32)


def _orthonormalise(rows: NDArray[np.float64]) -> None:
    """Gram-Schmidt in place, twice for accuracy; no LAPACK, whose bytes vary by version."""
    for number in range(len(rows)):
        for _ in range(2):
            for before in range(number):
                rows[number] -= (rows[number] * rows[before]).sum() * rows[before]
        rows[number] /= sqrt((rows[number] * rows[number]).sum())
