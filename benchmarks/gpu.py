"""All figures of a GPU, in one call: correctness, variants, baselines, whole zoos, readers.

    python benchmarks/gpu.py [--data-root FOLDER] [--budget 540]
    TRITON_INTERPRET=1 python benchmarks/gpu.py --quick --interpret

Prints Markdown. A section that fails prints its error and the next one runs; one that no
longer fits into the budget of seconds is left out by name. Without MNIST or CIFAR-10 in
`--data-root`, smooth random pictures of the same sizes stand in, and the text says so:
times hold for them too, PSNR and accuracy do not.

GPU work is timed by the host's clock up to a synchronisation, after a call that compiles.
TFLOP/s count the fit's matrix products alone, 2 * point * (3 * weights, less those of the
first layer), against the fp32 peak: multiprocessors * 128 lanes * 2 * clock.

`--interpret` runs every section on the CPU in Triton's interpreter, with tiny sizes: it
tests this script, its times mean nothing.
"""

import argparse
import copy
import inspect
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

# Beside this file lies one with the name of a package.
sys.path[0] = str(Path(__file__).parents[1])

import zoo  # noqa: E402
from zoo import nets  # noqa: E402
from zoo.engines import Adam, Engine  # noqa: E402
from zoo.engines.cuda import CudaEngine, Plan, plans  # noqa: E402
from zoo.engines.reference import ReferenceEngine  # noqa: E402
from zoo.sources import ImageSource, load_images  # noqa: E402

MNIST = zoo.NetworkSpec.mlp([2, 32, 32, 1], output_offset=0.5, coord_order="xy")
STEPS = 1500
CORES = 128  # fp32 lanes of a multiprocessor, from Ada and Hopper on

CHECKED = [
    ([2, 32, 32, 1], 784, 1e-4),
    ([1, 32, 32, 1], 1000, 0.0),
    ([2, 32, 32, 3], 1024, 0.0),
    ([3, 33, 19, 2], 301, 1e-2),
    ([4, 9, 31, 7, 4], 113, 0.0),
    ([1, 16, 1], 7, 0.0),
    ([2, 64, 64, 1], 784, 0.0),
    ([2, 128, 128, 1], 784, 0.0),
]
VARIANTS = [
    Plan(64, 4, carry=True, stream=False),
    Plan(64, 4, carry=True, stream=False, registers=168),
    Plan(64, 8, carry=True, stream=False, registers=128),
    Plan(64, 4, carry=False, stream=False, registers=168),
    Plan(32, 4, carry=True, stream=False, registers=168),
    Plan(32, 2, carry=True, stream=False),
    Plan(16, 1, carry=True, stream=False),
    Plan(16, 4, carry=False, stream=True, registers=128),
    Plan(64, 4, carry=True, stream=False, precision="bf16x3"),
    Plan(64, 4, carry=True, stream=False, precision="bf16x3", registers=168),
    Plan(64, 4, carry=True, stream=False, precision="tf32"),
    Plan(64, 4, carry=True, stream=False, precision="ieee"),
]


class Setting:
    """What the sections share: device, sizes, time left, pictures."""

    def __init__(self, given: argparse.Namespace):
        self.begun = time.perf_counter()
        self.budget: float = given.budget
        self.quick: bool = given.quick
        self.tiny: bool = given.interpret
        self.device = "cpu" if given.interpret else "cuda"
        self.data_root: Path | None = given.data_root
        self.best: Plan | None = None
        self.peak = float("nan")

    def left(self) -> float:
        return self.budget - (time.perf_counter() - self.begun)

    def size(self, full: int, quick: int, tiny: int) -> int:
        return tiny if self.tiny else quick if self.quick else full

    def synchronise(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def timed(self, run: Callable[[], Any]) -> float:
        """Seconds of a call, its GPU work included."""
        self.synchronise()
        begun = time.perf_counter()
        run()
        self.synchronise()
        return time.perf_counter() - begun


def work(spec: zoo.NetworkSpec, networks: int, side: int) -> tuple[np.ndarray, ...]:
    """Initial networks, coordinates and smooth random targets of any spec."""
    index = np.arange(networks)
    params = nets.initialise(spec, "dws", 0, index, index * 0)
    draw = np.random.default_rng(0)
    if len(spec.axes) == 2:
        inputs = nets.coordinates(spec, side, side)
    else:
        inputs = draw.uniform(-1, 1, (side, spec.inp)).astype(np.float32)
    waves = draw.uniform(-4, 4, (networks, spec.inp, spec.out)).astype(np.float32)
    targets = 0.5 + 0.5 * np.sin(np.einsum("pc,nco->npo", inputs, waves))
    return params, inputs, targets.astype(np.float32)


def stand_in(name: str, side: int, chan: int, train: int, test: int) -> ImageSource:
    """Pictures of noise on a gradient, where the real ones are missing."""
    draw = np.random.default_rng(0)
    count = train + test
    ramp = np.linspace(0, 128, side, dtype=np.float32)[None, :, None, None]
    shift = draw.uniform(0, 120, (count, 1, side, chan)).astype(np.float32)
    images = (ramp + shift).astype(np.uint8)
    labels = np.arange(count, dtype=np.int64) % 10
    names = tuple(map(str, range(10)))
    title = f"stand-in for {name}"
    return ImageSource(name, title, "unknown", "", "", images, labels, names, train, "0" * 64)


def pictures(setting: Setting, name: str) -> tuple[ImageSource, str]:
    """The source, and what to say of it."""
    if setting.tiny:
        return load_images("digits"), "digits"
    try:
        return load_images(name, setting.data_root, download=False), name
    except Exception as error:  # absent, or a package that reads it is
        chan, side = (3, 32) if name == "cifar10" else (1, 28)
        train = 50_000 if name == "cifar10" else 60_000
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return stand_in(name, side, chan, train, 10_000), f"random pictures ({reason})"


def gflop(spec: zoo.NetworkSpec, points: int) -> float:
    """1e9 floating-point operations of the matrix products of one network and step."""
    products = [layer.inp * layer.out for layer in spec.layers]
    return 2 * points * (3 * sum(products) - products[0]) / 1e9


def psnr(mse: np.ndarray) -> float:
    """Mean PSNR in dB of values in [0, 1]."""
    return float((-10 * np.log10(np.maximum(mse, 1e-12))).mean())


def rate(
    setting: Setting, engine: Engine, spec: zoo.NetworkSpec, networks: int, side: int, steps: int
) -> float:
    """Seconds per network and step, once compiled: the median of three."""
    params, inputs, targets = work(spec, networks, side)
    engine.fit(spec, params[:1], inputs, targets[:1], Adam(lr=1e-3, steps=1))
    adam = Adam(lr=1e-3, steps=steps, weight_decay=1e-4)
    runs = [
        setting.timed(lambda: engine.fit(spec, params, inputs, targets, adam)) for _ in range(3)
    ]
    return statistics.median(runs) / networks / steps


# ---- sections


def machine(setting: Setting) -> None:
    """Names and versions."""
    import triton

    print(f"torch {torch.__version__}, triton {triton.__version__}, {zoo.__name__}")
    if setting.device == "cuda":
        found = torch.cuda.get_device_properties(0)
        clock = getattr(found, "clock_rate", 1_980_000) * 1e3
        setting.peak = found.multi_processor_count * CORES * 2 * clock / 1e12
        print(
            f"{found.name}, {found.multi_processor_count} multiprocessors, "
            f"{clock / 1e9:.2f} GHz, fp32 peak {setting.peak:.0f} TFLOP/s"
        )


def correctness(setting: Setting) -> None:
    """Worst relative error of ten updates over tensors and networks, against float64."""
    steps = setting.size(10, 10, 1)
    exact = ReferenceEngine(setting.device, dtype=torch.float64)
    precisions = ("tf32x3", "bf16x3", "tf32", "ieee")
    print(f"| spec | points | {' | '.join(precisions)} |\n|---|---|{'---|' * len(precisions)}")
    for place, (widths, points, decay) in enumerate(CHECKED[: setting.size(8, 8, 1)]):
        # Each precision is compiled for a second or two.
        kinds = precisions if not setting.quick or place in (0, 6) else precisions[:1]
        points = setting.size(points, points, 9)
        spec = zoo.NetworkSpec.mlp(widths, output_offset=0.5)
        params, inputs, targets = work(spec, 4, points)
        inputs, targets = inputs[:points], targets[:, :points]
        adam = Adam(1e-3, steps, weight_decay=decay)
        expected = exact.fit(spec, params, inputs, targets, adam)
        cells = []
        for precision in kinds:
            plan = Plan(**{**vars(plans(spec)[0]), "precision": precision})
            try:
                found = CudaEngine(setting.device, plan).fit(spec, params, inputs, targets, adam)
            except Exception as error:  # a variant that the device cannot hold
                cells.append(type(error).__name__)
                continue
            worst, start = 0.0, 0
            for shape in spec.tensors.values():
                part = slice(start, start + int(np.prod(shape)))
                start = part.stop
                a, b, c = (v[:, part] for v in (found.params, expected.params, params))
                gap = np.linalg.norm(a.astype(float) - b, axis=1)
                worst = max(worst, float((gap / np.linalg.norm(b - c.astype(float), axis=1)).max()))
            error = float(np.abs(found.mse / expected.mse - 1).max())
            cells.append(f"{worst:.1e}, mse {error:.1e}")
        cells += [""] * (len(precisions) - len(cells))
        print(f"| {'-'.join(map(str, widths))} | {points} | {' | '.join(cells)} |", flush=True)

    params, inputs, targets = work(MNIST, setting.size(8, 8, 2), setting.size(28, 28, 3))
    adam = Adam(2e-3, setting.size(300, 300, 2), target_mse=1e-3)
    engine = CudaEngine(setting.device)
    whole = engine.fit(MNIST, params, inputs, targets, adam)
    again = engine.fit(MNIST, params[1:], inputs, targets[1:], adam)
    equal = all(np.array_equal(a[1:], b) for a, b in zip(whole, again, strict=True))
    expected = exact.fit(MNIST, params, inputs, targets, adam)
    print(f"\nBytes independent of neighbours: {equal}.", end=" ")
    print(f"Steps {whole.steps.tolist()}, of float64 {expected.steps.tolist()}.")


def batched(
    setting: Setting, networks: int, steps: int, compiled: bool
) -> tuple[Callable[[], float], Callable[[], np.ndarray]]:
    """Batched torch, autograd and fused Adam: seconds per network-step; the errors."""
    params, inputs, targets = work(MNIST, networks, setting.size(28, 28, 3))
    x = torch.from_numpy(inputs).to(setting.device)
    y = torch.from_numpy(targets).to(setting.device)
    start = zoo.Weights.unflatten(torch.from_numpy(params).to(setting.device), MNIST)
    free = [t.clone().requires_grad_() for t in start.tensors().values()]
    adam = torch.optim.Adam(free, lr=1e-3, weight_decay=1e-4, foreach=True)

    def errors(*tensors: torch.Tensor) -> torch.Tensor:
        weights = zoo.Weights(tensors[0::2], tensors[1::2])
        return (zoo.forward(MNIST, weights, x) - y).square().mean(dim=(1, 2))

    function = torch.compile(errors) if compiled else errors

    def train() -> None:
        for _ in range(steps):
            adam.zero_grad()
            function(*free).sum().backward()
            adam.step()

    return (
        lambda: setting.timed(train) / steps / networks,
        lambda: errors(*free).detach().double().cpu().numpy(),
    )


def baselines(setting: Setting) -> None:
    """The MNIST spec: one at a time, batched torch eager and compiled, the kernel."""
    networks, steps = setting.size(4096, 1024, 2), setting.size(30, 20, 1)
    rows: dict[str, float] = {}
    engine = CudaEngine(setting.device)
    side = setting.size(28, 28, 3)
    rows[f"cuda engine, {networks}"] = rate(setting, engine, MNIST, networks, side, 10 * steps)
    run, _ = batched(setting, networks, steps, compiled=False)
    run()
    rows[f"batched torch, {networks}"] = run()
    try:
        run, _ = batched(setting, networks, steps, compiled=not setting.tiny)
        run()
        rows[f"batched torch compiled, {networks}"] = run()
    except Exception as error:  # the compiler's are of many kinds
        print(f"batched torch compiled failed: {type(error).__name__}\n")
    params, inputs, targets = work(MNIST, 1, side)
    x = torch.from_numpy(inputs).to(setting.device)
    y = torch.from_numpy(targets[0]).to(setting.device)
    start = zoo.Weights.unflatten(torch.from_numpy(params), MNIST)
    module = zoo.to_module(MNIST, start).to(setting.device)
    adam = torch.optim.Adam(module.parameters(), lr=1e-3, weight_decay=1e-4)

    def train() -> None:
        for _ in range(10 * steps):
            adam.zero_grad()
            nn.functional.mse_loss(module(x), y).backward()
            adam.step()

    train()
    rows["one at a time, torch.nn"] = setting.timed(train) / (10 * steps)
    best = next(iter(rows.values()))
    print("| 2-32-32-1, 784 points | us per network-step | TFLOP/s | of peak | kernel faster by |")
    print("|---|---|---|---|---|")
    for name, seconds in rows.items():
        speed = gflop(MNIST, 784) / seconds / 1e3
        print(
            f"| {name} | {seconds * 1e6:.3f} | {speed:.2f} | {speed / setting.peak:.1%} | "
            f"{seconds / best:.1f}x |"
        )
    # At equal quality: whole fits of the same networks.
    few, whole = setting.size(264, 132, 2), setting.size(STEPS, STEPS, 3)
    params, inputs, targets = work(MNIST, few, side)
    fit = engine.fit(MNIST, params, inputs, targets, Adam(1e-3, whole, weight_decay=1e-4))
    run, errors = batched(setting, few, whole, compiled=False)
    run()
    print(
        f"\n{few} whole fits of {whole} steps: kernel {psnr(fit.mse):.2f} dB, batched torch "
        f"{psnr(errors()):.2f} dB."
    )


def variants(setting: Setting) -> None:
    """Precisions, tiles, warps, register limits: speed, then PSNR of whole fits on pictures."""
    source, named = pictures(setting, "mnist")
    recipe = zoo.recipe("dws", "mnist", steps=setting.size(STEPS, STEPS, 2))
    from zoo.kinds.objectives import ImageObjective

    goal = ImageObjective(recipe, source.shape, source.class_names)
    count = setting.size(1056, 528, 2)
    items = np.arange(count)
    targets = goal.targets(source.images[items])
    params = nets.initialise(goal.spec, recipe.init, 0, items, items * 0)
    if setting.tiny:
        targets, goal.inputs = targets[:, :9], goal.inputs[:9]
    print(
        f"{count} networks of {named}, recipe dws. Spread: of single networks to the first row.\n"
    )
    print("| tile | warps | carry | stream | precision | registers | networks/s | PSNR | spread |")
    print("|---|---|---|---|---|---|---|---|---|")
    quickest, first = 0.0, None
    for plan in VARIANTS[: setting.size(12, 12, 1)]:
        cells = [*vars(plan).values()]
        line = "| " + " | ".join(str(cells[i]) for i in (0, 1, 2, 3, 4, 5))
        try:
            engine = CudaEngine(setting.device, plan)
            engine.fit(goal.spec, params[:1], goal.inputs, targets[:1], Adam(1e-3, 1))
            begun = time.perf_counter()
            fit = engine.fit(goal.spec, params, goal.inputs, targets, goal.adam)
            seconds = time.perf_counter() - begun
        except Exception as error:  # a variant that the device cannot hold
            print(f"{line} | {type(error).__name__} | | |", flush=True)
            continue
        decibels = goal.psnr_db(fit.mse)
        first = decibels if first is None else first
        spread = float(np.abs(decibels - first).mean())
        print(
            f"{line} | {count / seconds:.0f} | {decibels.mean():.3f} | {spread:.3f} |", flush=True
        )
        if decibels.mean() > first.mean() - 0.02 and count / seconds > quickest:
            quickest, setting.best = count / seconds, plan
    print(f"\nFastest within 0.02 dB of the first: {setting.best}")


def mnist(setting: Setting) -> None:
    """All of MNIST: the kernel alone, then a whole zoo."""
    source, named = pictures(setting, "mnist")
    recipe = zoo.recipe("dws", "mnist", steps=setting.size(STEPS, STEPS, 2))
    from zoo.kinds.objectives import ImageObjective

    goal = ImageObjective(recipe, source.shape, source.class_names)
    count = min(setting.size(70_000, 10_000, 2), len(source))
    items = np.arange(count)
    begun = time.perf_counter()
    params = nets.initialise(goal.spec, recipe.init, 0, items, items * 0)
    targets = goal.targets(source.images[items])
    ready = time.perf_counter() - begun
    for name, plan in (("default", None), ("fastest variant", setting.best)):
        if name != "default" and plan in (None, plans(goal.spec)[0]):
            continue
        engine = CudaEngine(setting.device, plan)
        engine.fit(goal.spec, params[:1], goal.inputs, targets[:1], Adam(1e-3, 1))
        begun = time.perf_counter()
        fit = engine.fit(goal.spec, params, goal.inputs, targets, goal.adam)
        seconds = time.perf_counter() - begun
        speed = gflop(goal.spec, len(goal.inputs)) * count * recipe.steps / seconds / 1e3
        print(
            f"{count} networks of {named} ({name} plan): {seconds:.1f} s, {count / seconds:.0f} "
            f"networks/s, {speed:.1f} TFLOP/s, {speed / setting.peak:.0%} of peak, "
            f"{goal.psnr_db(fit.mse).mean():.2f} dB; targets and initialisation {ready:.1f} s.",
            flush=True,
        )
    whole(setting, recipe, source, count, named, "auto")


def whole(
    setting: Setting, recipe: Any, source: ImageSource, limit: int, named: str, engine: str
) -> None:
    """`zoo.build` of a source in memory."""
    for parquet in (True, False):
        with tempfile.TemporaryDirectory() as folder:
            begun = time.perf_counter()
            try:
                index = zoo.build(
                    recipe, source, Path(folder) / "zoo", limit=limit, device=setting.device,
                    engine=engine, parquet=parquet,
                )  # fmt: skip
            except ImportError as error:
                print(f"zoo.build, parquet {parquet}: {error}")
                continue
            seconds = time.perf_counter() - begun
        quality = {
            f"{split} {column}": round(part[column]["mean"], 4)
            for split, part in index.quality.items()
            for column in ("psnr_db", "test_accuracy")
            if column in part
        }
        print(
            f"zoo.build of {index.rows} networks of {named}, engine {index.plan['engine']}, "
            f"parquet {parquet}: {seconds:.1f} s, {quality}",
            flush=True,
        )
        return


def classifiers(setting: Setting) -> None:
    """All 5,000 classifiers of recipe `binary`."""
    source, named = pictures(setting, "cifar10")
    count = setting.size(5000, 320, 2)
    changes: dict[str, Any] = {"hidden": 8, "epochs": 1} if setting.tiny else {}
    whole(setting, zoo.recipe("binary", "cifar10", **changes), source, count, named, "torch")


def trajectories(setting: Setting) -> None:
    """All 200 runs of recipe `fashion`."""
    source, named = pictures(setting, "fashion-mnist")
    count = setting.size(200, 32, 2)
    changes: dict[str, Any] = {}
    if setting.tiny:
        changes = {"hidden": 8, "epochs": 1, "runs": 2, "validation_share": 0.0, "test_share": 0.5}
    whole(setting, zoo.recipe("fashion", "fashion-mnist", **changes), source, count, named, "torch")


def growth(setting: Setting) -> None:
    """Cost as networks, width and pixels grow."""
    engine = CudaEngine(setting.device)
    side, many = setting.size(28, 28, 3), setting.size(1056, 528, 1)
    sizes: dict[str, tuple[zoo.NetworkSpec, int, int]] = {}
    for count in (1, 132, 528, 4224, 16_896)[: setting.size(5, 4, 1)]:
        sizes[f"{count} networks"] = MNIST, count, side
    for width in (16, 32, 64, 128)[: setting.size(4, 4, 1)]:
        spec = zoo.NetworkSpec.mlp([2, width, width, 1], output_offset=0.5, coord_order="xy")
        sizes[f"width {width}"] = spec, many, side
    for wide in (14, 28, 56, 128)[: setting.size(4, 3, 0)]:
        sizes[f"{wide * wide} points"] = MNIST, many, wide
    print("| | us per network-step | TFLOP/s | of peak |\n|---|---|---|---|")
    for name, (spec, count, points) in sizes.items():
        # About as much work in each, a quarter of a second at 10 TFLOP/s.
        steps = max(2, min(2000, int(2500 / gflop(spec, points**2) / count)))
        seconds = rate(setting, engine, spec, count, points, setting.size(steps, steps, 1))
        speed = gflop(spec, points**2) / seconds / 1e3
        print(
            f"| {name} | {seconds * 1e6:.3f} | {speed:.2f} | {speed / setting.peak:.1%} |",
            flush=True,
        )


def updates(
    setting: Setting, module: nn.Module, loss: Callable[[], torch.Tensor], times: int
) -> str:
    """Cells of a table: ms of an update in float32, tf32 and bf16, and MB at most in float32."""
    adam = torch.optim.Adam(module.parameters(), fused=True)
    precision = "float32"

    def update() -> None:
        with torch.autocast(setting.device, torch.bfloat16, enabled=precision == "bf16"):
            found = loss()
        found.backward()
        adam.step()
        adam.zero_grad(set_to_none=True)

    def several() -> None:
        for _ in range(times):
            update()

    cells, peak = [], 0.0
    if setting.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for precision in ("float32", "tf32", "bf16"):  # read by `update`
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        for _ in range(setting.size(3, 3, 1)):
            update()
        cells.append(f"{1e3 * setting.timed(several) / times:.1f}")
        if setting.device == "cuda" and precision == "float32":
            peak = torch.cuda.max_memory_allocated() / 1e6
    torch.backends.cuda.matmul.allow_tf32 = False
    return " | ".join([*cells, f"{peak:.0f}"])


def readers(setting: Setting) -> None:
    """Every reader: its answers beside the CPU's in float64, and what an update takes.

    Preset "paper", MNIST INRs and its batch; forward, backward and the optimiser's step. Then
    each is trained by `fit_model` for a few updates, which is tested and measured on.
    """
    from processors import models
    from processors.rows import Rows

    source, named = pictures(setting, "mnist")
    device = torch.device(setting.device)
    print(f"Networks of {named}. Errors are of logits and of all gradients together.\n")
    print("| model | batch | logits | gradients | ms | tf32 | bf16 | MB | trained |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        recipe = zoo.recipe("dws", "digits" if setting.tiny else "mnist", steps=20)
        folder = Path(name) / "zoo"
        count = setting.size(4000, 2000, 60)
        zoo.build(recipe, source, folder, limit=count, device=setting.device, parquet=False)
        here = {s: Rows(zoo.open_zoo(folder, s), device) for s in ("train", "validation", "test")}
        there = {s: Rows(zoo.open_zoo(folder, s)) for s in here}
        stats = there["train"].stats()
        for model in list(models.MODELS)[: setting.size(99, 99, 2)]:
            if models.preparation(model) is not None:
                continue
            try:
                line = _reader(setting, model, here, there, stats)
                line += " | " + _trained(setting, model, folder, Path(name) / model)
            except Exception as error:  # the next one is another
                print(f"| {model} | {type(error).__name__}: {str(error)[:300]} |")
                traceback.print_exc()
                continue
            print(f"| {model} | {line} |", flush=True)


def _reader(setting: Setting, model: str, here: Any, there: Any, stats: Any) -> str:
    """Its batch, the errors of a few networks, and `updates`."""
    from processors import tasks

    on_gpu = tasks.make("classify", here, {"augment": "none"})
    on_cpu = tasks.make("classify", there, {"augment": "none"})
    usual = on_gpu.chosen(model)
    torch.manual_seed(0)
    module = on_gpu.module(model, stats, on_gpu.fitting_sizes(model, usual.sizes))
    exact = copy.deepcopy(module).double()
    module.to(setting.device)
    few = torch.arange(setting.size(16, 16, 4))
    found: list[torch.Tensor] = []
    wanted: list[torch.Tensor] = []
    for task, made, out in ((on_gpu, module, found), (on_cpu, exact, wanted)):
        weights, columns = task.data["train"].batch(few)
        if made is exact:
            weights = weights.map(torch.Tensor.double)
        made.eval()
        logits = made(weights)
        nn.functional.cross_entropy(logits, columns["label"]).backward()
        grads = [p.grad.flatten() for p in made.parameters() if p.grad is not None]
        out += [logits.detach().double().cpu().flatten(), torch.cat(grads).double().cpu()]
    errors = [float((a - b).norm() / b.norm()) for a, b in zip(found, wanted, strict=True)]
    batch = min(setting.size(9999, 9999, 4), usual.settings.batch, len(here["train"]))
    weights, columns = here["train"].batch(torch.arange(batch))
    module.train()

    def loss() -> torch.Tensor:
        return nn.functional.cross_entropy(module(weights).float(), columns["label"])

    cells = updates(setting, module, loss, setting.size(20, 10, 1))
    return f"{batch} | {errors[0]:.1e} | {errors[1]:.1e} | {cells}"


def _trained(setting: Setting, model: str, folder: Path, out: Path) -> str:
    """A short run by the one loop: what it came to, and how long it took in all."""
    from processors.train import fit_model

    begun = time.perf_counter()
    summary = fit_model(
        "classify", model, folder, out, device=setting.device,
        settings={"epochs": None, "steps": setting.size(20, 10, 2), "evaluations": 1},
    )  # fmt: skip
    return f"{summary['test']['accuracy']:.3f} in {time.perf_counter() - begun:.1f} s"


def tickets(setting: Setting) -> None:
    """The autoencoder of winning tickets at its published size, an update of 8 networks."""
    from processors.vae import TicketVAE

    spec = zoo.NetworkSpec.mlp([setting.size(784, 784, 9), 128, 128, 10], "relu")
    batch = setting.size(8, 8, 2)
    entries = torch.randn(batch, spec.param_count, device=setting.device) * 0.05
    weights = zoo.Weights.unflatten(entries, spec)
    mask = (torch.rand_like(entries) < 0.05).float()
    print("| symmetry | ms | tf32 | bf16 | MB |\n|---|---|---|---|---|")
    # HNP would mix the features of 784 inputs: billions of parameters.
    for symmetry in ("np", "pointwise"):
        module = TicketVAE(spec.to_json(), symmetry).to(setting.device)

        def loss(module: nn.Module = module) -> torch.Tensor:
            return -module(weights, mask).mean()

        cells = updates(setting, module, loss, setting.size(10, 5, 1))
        print(f"| {symmetry} | {cells} |", flush=True)


# Seconds that each is expected to take at most.
SECTIONS: dict[Callable[[Setting], None], float] = {
    machine: 1, correctness: 60, baselines: 60, variants: 90, mnist: 100, classifiers: 100,
    trajectories: 70, growth: 60, readers: 90, tickets: 30,
}  # fmt: skip


def main() -> None:
    """Print every section."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer networks and sizes")
    parser.add_argument("--interpret", action="store_true", help="tiny sizes on the CPU")
    parser.add_argument("--data-root", type=Path, help="folder of the sources")
    parser.add_argument("--budget", type=float, default=540, help="seconds in all")
    parser.add_argument("--only", help="names of sections, by commas")
    given = parser.parse_args()
    setting = Setting(given)
    for section, expected in SECTIONS.items():
        if given.only and section.__name__ not in given.only.split(","):
            continue
        words = inspect.getdoc(section)
        print(f"\n## {section.__name__}\n\n{words}\n", flush=True)
        if setting.left() < expected:
            print(f"Left out: {setting.left():.0f} s are left, it may take {expected:.0f}.")
            continue
        begun = time.perf_counter()
        try:
            section(setting)
        except Exception:
            print(f"FAILED\n\n{traceback.format_exc()}")
        print(f"\n*{time.perf_counter() - begun:.1f} s*", flush=True)


if __name__ == "__main__":
    main()
