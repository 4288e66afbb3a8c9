"""INRs of shapes: solids that a seed draws, and voxels of a file.

Each shape has a pool of queries of its own, from which the points of every step are drawn, and
points all over space, never fitted, by which its quality is told. Both depend on the seed and
the shape's index alone, so the views of a shape share them.
"""

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from zoo import nets, pools, solidity, solids, sources, surfaces, voxels
from zoo.engines import Engine, Fit
from zoo.errors import ZooError
from zoo.figures import Samples
from zoo.kinds.checks import Arrays, Check, Made, weights_of
from zoo.kinds.looks import Reading
from zoo.kinds.objectives import Objective
from zoo.kinds.regression import Inrs
from zoo.making.fitting import Fitted, Rows, split_params
from zoo.reader import Row
from zoo.recipes import SOLID_TARGETS, ShapeRecipe
from zoo.shards import Index
from zoo.sources import Source
from zoo.spec import NetworkSpec
from zoo.weights import Weights

# Points by which quality is told; a shape of a hundredth of space has some 300 of them inside.
TESTED = 1 << 15
# Part of a shape's pool that lies on its surface; what is near is near one of these.
_ON_SURFACE = 6
# Points a side of the grid that pictures are made on.
_SIDE, _COARSE = 64, 40
# Points a side of what `Row.render` gives, and originals beside it.
_GRID = 32
# Shapes that are fitted at once: their pools are the memory that a fit takes.
_CHUNK, _POOL_BYTES = 64, 1 << 28
# Across engines and machines the same start ends a little apart.
IOU_TOLERANCE, DISTANCE_TOLERANCE = 1e-3, 1e-5
REFIT_TOLERANCE = 0.1
# What follows from v, see `NetworkSpec`, and what that is.
_MEANT = {
    "udf": ("{clip} * (1 - v)", "the distance to the surface, cut off there"),
    "sdf": ("{clip} * (1 - 2 * v)", "the distance to the surface, negative inside, cut off there"),
    "occupancy": ("v", "the chance that the point is inside"),
}
Points: TypeAlias = NDArray[np.float32]


@runtime_checkable
class Forms(Protocol):
    """A few shapes, one each row: their surfaces, and distances to them."""

    def cloud(self, row: int, seed: int, index: NDArray[np.int64], count: int) -> Points:
        """`1 point 3` on the surface of one of them, keyed by seed and index `1`."""

    def distance(self, row: int, points: Points) -> NDArray[np.float32]:
        """Signed distances of `point 3` to one of them, negative inside."""


class Solids:
    """Solids given by their parameters."""

    def __init__(self, params: NDArray[np.float64]):
        self.params = params

    def cloud(self, row: int, seed: int, index: NDArray[np.int64], count: int) -> Points:
        return solids.cloud(self.params[row : row + 1], seed, index, count)

    def distance(self, row: int, points: Points) -> NDArray[np.float32]:
        return solids.distance(self.params[row : row + 1], points[None])[0]


class Volumes:
    """Volumes given by their masks; the field of distances is computed once for all views."""

    def __init__(self, masks: NDArray[np.uint8]):
        self.masks = masks
        self.fields: list[NDArray[np.float32]] = []
        for row, mask in enumerate(masks):
            # Views of a shape stand together.
            same = row and np.array_equal(mask, masks[row - 1])
            self.fields.append(self.fields[-1] if same else voxels.field(mask))

    def cloud(self, row: int, seed: int, index: NDArray[np.int64], count: int) -> Points:
        return voxels.cloud(self.masks[row : row + 1], seed, index, count)

    def distance(self, row: int, points: Points) -> NDArray[np.float32]:
        return voxels.sample(self.fields[row], points)


def _labels(spec: NetworkSpec, signed: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the networks' v shall be, see `NetworkSpec`, for signed distances."""
    share: NDArray[np.float32] = nets.from_field(spec, _told(spec, signed)).astype(np.float32)
    return share


def _told(spec: NetworkSpec, signed: NDArray[np.float32]) -> NDArray[np.float32]:
    """What `nets.field` is to say where these are the signed distances."""
    if spec.signal == "occupancy":
        return (signed < 0).astype(np.float32)
    if spec.signal == "udf":
        return np.minimum(np.abs(signed), np.float32(spec.clip))
    return np.clip(signed, np.float32(-spec.clip), np.float32(spec.clip))


class ShapeObjective(Objective):
    """Shapes, as labels of points in pools of their own."""

    def __init__(
        self,
        recipe: ShapeRecipe,
        classes: tuple[str, ...],
        forms: Callable[[Any], Forms],
        seed: int | None = None,
    ):
        super().__init__(recipe, np.empty((0, 3), np.float32), 1, classes, seed)
        self.forms = forms
        self.pool, self.mix = recipe.pool_points, recipe.pool

    @property
    def points(self) -> int:
        return self.pool

    @property
    def plain(self) -> bool:
        return False

    def chunk(self, engine: Engine) -> tuple[int, int]:
        fits = _POOL_BYTES // (self.pool * 4 * (self.spec.inputs + self.spec.out))
        # While one chunk is fitted, the pools of the next are drawn.
        return max(1, min(_CHUNK, engine.batch, fits)), 2

    def fit(self, engine: Engine, seed: int, rows: Rows, *given: Any) -> Fitted:
        """Fit shapes; those that are none, such as empty volumes, are left out by what they are."""
        raw, others = given
        flaws = [voxels.flaw(item) if item.ndim == 3 else None for item in raw]
        good = np.array([flaw is None for flaw in flaws], bool)
        kept = {name: values[good] for name, values in others.items()}
        fitted = (
            super().fit(engine, seed, rows[good], raw[good], kept)
            if good.any()
            else self._none(rows[good], kept)
        )
        bad = [
            (int(index), int(view), f"the volume is {flaw}")
            for (index, view), flaw in zip(rows.pairs(), flaws, strict=True)
            if flaw is not None
        ]
        return Fitted(fitted.arrays, sorted([*fitted.excluded, *bad]))

    def _none(self, rows: Rows, others: Mapping[str, NDArray[Any]]) -> Fitted:
        """No row, with all that rows have."""
        arrays: Arrays = {"index": rows.index, "view": rows.view, **others}
        left = {name: each for name, each in self.columns.items() if name not in arrays}
        arrays |= {name: np.empty(0, column.dtype) for name, column in left.items()}
        empty = np.empty((0, self.spec.param_count), np.float32)
        return Fitted(arrays | split_params(empty, self.spec.tensors), [])

    def prepared(self, raw: NDArray[Any]) -> Forms:
        return self.forms(raw)

    def data(self, seed: int, rows: Rows, known: Any) -> tuple[Points, NDArray[np.float32]]:
        inputs = np.empty((len(rows), self.pool, 3), np.float32)
        targets = np.empty((len(rows), self.pool, 1), np.float32)
        # Views of a shape stand together.
        for row, number in enumerate(rows.index):
            if row and rows.index[row - 1] == number:
                inputs[row], targets[row] = inputs[row - 1], targets[row - 1]
                continue
            inputs[row] = self._queries(known, row, seed, number)
            targets[row, :, 0] = _labels(self.spec, known.distance(row, inputs[row]))
        return inputs, targets

    def _queries(self, known: Forms, row: int, seed: int, number: np.int64) -> Points:
        """`point 3`: the pool of one shape."""
        index = np.array([number])
        cloud = known.cloud(row, seed, index, max(1, self.pool // _ON_SURFACE))
        return pools.queries(cloud, seed, index, self.pool, mix=self.mix)[0]

    def quality(
        self, fit: Fit, seed: int, rows: Rows, known: Any
    ) -> dict[str, NDArray[np.generic]]:
        weights = Weights.unflatten(torch.from_numpy(fit.params), self.spec)
        with np.errstate(over="ignore"):
            loss = fit.mse.astype(np.float32)
        return {"train_loss": loss, **self.measured(weights, seed, rows, known)}

    def measured(
        self, weights: Weights, seed: int, rows: Rows, known: Forms
    ) -> dict[str, NDArray[np.float32]]:
        """IoU and error of distances of every network, on points that none is fitted to."""
        spec, half = self.spec, self.spec.clip / 2
        overlap, error = np.empty(len(rows), np.float32), np.empty(len(rows), np.float32)
        for row, number in enumerate(rows.index):
            points = pools.uniform(seed, np.array([number]), TESTED)[0]
            signed = known.distance(row, points)[None]
            with torch.no_grad():
                answer = nets.field(spec, weights[row : row + 1], torch.from_numpy(points)).numpy()
            true = _told(spec, signed)
            if spec.signal == "udf":
                inside, within = answer < half, true < half
            else:
                inside = answer > 0.5 if spec.signal == "occupancy" else answer < 0
                within = signed < 0
            overlap[row] = solidity.iou(inside, within)[0]
            error[row] = solidity.distance_error(answer, true)[0]
        found = {"iou": overlap, "distance_error": error}
        return {name: values for name, values in found.items() if name in self.columns}

    def flaw(self, quality: dict[str, NDArray[np.generic]], row: int) -> str | None:
        floor = self.recipe.min_iou  # type: ignore[union-attr]
        overlap = float(quality["iou"][row])  # type: ignore[arg-type]
        if floor is not None and overlap < floor:
            return f"IoU {overlap:.3f} is below {floor:g}"
        return None


def fields(
    goal: ShapeObjective, raw: NDArray[Any], weights: Weights, side: int
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float64]]]:
    """Of each shape what it is and what its network says: `z y x`, negative inside, for pictures.

    Unsigned distances know no inside: what is nearer than half of what they tell counts as it.
    """
    spec, points = goal.spec, surfaces.centres(side)
    for row, item in enumerate(raw):
        true = goal.forms(item[None]).distance(0, points)
        true = np.abs(true) - np.float32(spec.clip / 2) if spec.signal == "udf" else true
        with torch.no_grad():
            found = nets.depth(spec, weights[row : row + 1], torch.from_numpy(points)).numpy()
        yield true.reshape(side, side, side), surfaces.evened(found.reshape(side, side, side))


class ValueObjective(Objective):
    """Points and labels of the user's own, by a recipe of shapes."""

    def __init__(self, recipe: ShapeRecipe, inputs: Points, out: int, seed: int | None = None):
        super().__init__(recipe, inputs, out, seed=seed)
        self.columns = {
            name: column
            for name, column in self.columns.items()
            if name not in ("iou", "distance_error", *SOLID_TARGETS)
        }

    def quality(
        self, fit: Fit, seed: int, rows: Rows, known: Any
    ) -> dict[str, NDArray[np.generic]]:
        with np.errstate(over="ignore"):
            return {"train_loss": fit.mse.astype(np.float32)}

    def flaw(self, quality: dict[str, NDArray[np.generic]], row: int) -> str | None:
        return None


class Shapes(Inrs):
    """One network a shape and view; only training shapes have more than view 0."""

    what: ClassVar[str] = (
        "Each one is a shape: it maps a point of space to what it says of the shape there."
    )
    meanings: ClassVar[Mapping[str, str]] = {
        "train_loss": "loss of the stored network on the points that one more step would take"
    }

    def resembles(self, columns: Collection[str], spec: NetworkSpec) -> bool:
        return spec.signal is not None

    def reading(self, spec: NetworkSpec) -> Reading:
        first, last = (float(end) for end in spec.coord_range)
        number = "the sigmoid of the output" if spec.logits else "the output"
        formula, meaning = _MEANT[str(spec.signal)]
        value = formula.format(clip=f"{spec.clip:g}")
        offset = f" + {spec.output_offset}" if spec.output_offset else ""
        v = f"torch.sigmoid(h{offset})" if spec.logits else f"(h{offset})"
        return Reading(
            (
                f"The inputs are x, y, z of a point. All three run from {first:g} to {last:g}.",
                f"With v for {number}, {value} is {meaning}.",
            ),
            (
                f"along = torch.linspace({first}, {last}, {_GRID})",
                'h = torch.stack(torch.meshgrid(along, along, along, indexing="ij"), dim=-1)  '
                "# x, y, z",
            ),
            (f"v = {v}[..., 0]", f"{spec.signal} = {formula.format(clip=spec.clip)}"),
            f"{spec.signal} = rows[0].render({_GRID})  # x, y, z",
        )

    def original(self, row: Row, data_root: Path | None, source: str | None) -> NDArray[Any]:
        about = row.source
        if not about.get("sha256"):
            return super().original(row, data_root, source)
        name = source or about.get("address") or about["name"]
        try:
            found = self.reopened(row, name, data_root)
        except ValueError as error:
            raise ZooError(f"the source of this row cannot be opened: {error}") from None
        if found.sha256 != about["sha256"]:
            raise ZooError(
                f"source {found.name} is not what this row was fitted to: it has changed"
            )
        shape = self.forms(found.items(np.array([row.columns["index"]])))
        points = nets.space(row.spec, _GRID).numpy()
        return _told(row.spec, shape.distance(0, points)).reshape(_GRID, _GRID, _GRID)

    @abstractmethod
    def reopened(self, row: Row, name: str, data_root: Path | None) -> Source:
        """The source that a row was fitted to, kept open."""

    @abstractmethod
    def forms(self, raw: NDArray[Any]) -> Forms:
        """Items of the source as shapes."""

    def views(self, recipe: Any) -> int:
        return int(recipe.views)

    def values_goal(
        self, recipe: Any, inputs: NDArray[np.float32], out: int, seed: int | None = None
    ) -> Objective:
        return ValueObjective(recipe, inputs, out, seed)

    def samples(self, goal: Any, source: Any, arrays: Mapping[str, NDArray[Any]]) -> Samples:
        """Surface and slices of each shape, by what it is and by its network."""
        weights = weights_of(goal.spec, dict(arrays))
        pairs = []
        for true, found in fields(goal, source.items(arrays["index"]), weights, _SIDE):
            frame = surfaces.frame_of(true)
            pairs.append([surfaces.picture(each, frame) for each in (true, found)])
        originals, reconstructions = np.stack(pairs, axis=1)
        captions = [f"IoU {value:.3f}" for value in arrays["iou"]]
        if len(source.class_names):
            names = [source.class_names[label] for label in arrays["label"]]
            captions = [f"{name}\n{told}" for name, told in zip(names, captions, strict=True)]
        return Samples(originals, reconstructions, captions)

    def thumbnails(
        self, goal: Any, source: Any, weights: Weights, index: NDArray[np.int64], side: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        pairs = []
        for true, found in fields(goal, source.items(index), weights, _COARSE):
            frame = surfaces.frame_of(true)
            pairs.append([surfaces.small(each, frame, side) for each in (true, found)])
        originals, rendered = np.stack(pairs, axis=1)
        return originals, rendered

    def shortfall(self, recipe: Any, index: Index) -> list[str]:
        lines = []
        if recipe.min_iou is not None:
            below = sum(row.reason.startswith("IoU") for row in index.excluded)
            whole = index.rows + below
            lines.append(f"left out by --min-iou {recipe.min_iou:g}: {below:,} of {whole:,}")
        none = sum(row.reason.startswith("the volume is") for row in index.excluded)
        if none:
            lines.append(f"left out for being empty, full or not binary: {none:,}")
        return lines

    def check_quality(self, made: Made, arrays: Arrays) -> Check:
        goal, rows = made.goal, Rows(arrays["index"], arrays["view"])
        known = goal.forms(made.source.items(rows.index))
        seed = made.index.plan["seed"]
        found = goal.measured(weights_of(goal.spec, arrays), seed, rows, known)
        allowed = {"iou": IOU_TOLERANCE, "distance_error": DISTANCE_TOLERANCE}
        for name, values in found.items():
            apart = np.abs(values - arrays[name])
            worst = int(apart.argmax())
            if apart[worst] > allowed[name]:
                key = f"index {rows.index[worst]} view {rows.view[worst]}"
                return Check(
                    "quality", False, f"{key} has {name} {values[worst]:.4f}, not as recorded"
                )
        return Check("quality", True, f"{len(rows)} rows measured again, as recorded")

    def agreement(self, goal: Objective, found: Arrays, arrays: Arrays) -> tuple[bool, str]:
        apart = found["iou"] - arrays["iou"]
        passed = abs(apart.mean()) < REFIT_TOLERANCE / 4 and np.abs(apart).max() < REFIT_TOLERANCE
        return bool(passed), (
            f"IoU {apart.mean():+.4f} in the mean, {np.abs(apart).max():.4f} apart at most"
        )


class SolidShapes(Shapes):
    """INRs of parametric solids."""

    def resembles(self, columns: Collection[str], spec: NetworkSpec) -> bool:
        return super().resembles(columns, spec) and set(SOLID_TARGETS) <= set(columns)

    def reopened(self, row: Row, name: str, data_root: Path | None) -> Source:
        return _drawn(row.source["items"], row.seed or 0)

    def forms(self, raw: NDArray[Any]) -> Forms:
        return Solids(raw)

    def open_source(
        self, recipe: Any, name: str, seed: int, data_root: Path | None, expect: str | None
    ) -> Source:
        return sources.load_solids(recipe.solids, seed)

    def facts(self, recipe: Any, source: Any) -> dict[str, Any]:
        return {"kind": "solid", "class_names": list(source.class_names)}

    def objective(self, recipe: Any, source: Any, seed: int | None = None) -> ShapeObjective:
        return ShapeObjective(recipe, source.class_names, Solids, seed)


_drawn = lru_cache(maxsize=2)(sources.load_solids)


class VoxelShapes(Shapes):
    """INRs of what is filled in volumes of voxels."""

    def reopened(self, row: Row, name: str, data_root: Path | None) -> Source:
        return _opened(name, data_root)

    def forms(self, raw: NDArray[Any]) -> Forms:
        if wrong := voxels.flaw(raw[0]):
            raise ZooError(f"the volume that this row was fitted to is {wrong}")
        return Volumes(raw)

    def open_source(
        self, recipe: Any, name: str, seed: int, data_root: Path | None, expect: str | None
    ) -> Source:
        return sources.load_voxels(sources.resolve(name), data_root)

    def rule(self, split: str, source: str) -> str:
        return "dws"

    def facts(self, recipe: Any, source: Any) -> dict[str, Any]:
        return {
            "kind": "shape",
            "shape": list(source.masks.shape[1:]),
            "train_items": source.train_items,
            "validation_items": source.validation_items,
            "class_names": list(source.class_names),
        }

    def objective(self, recipe: Any, source: Any, seed: int | None = None) -> ShapeObjective:
        return ShapeObjective(recipe, source.class_names, Volumes, seed)


_opened = lru_cache(maxsize=2)(sources.load_voxels)
