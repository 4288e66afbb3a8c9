"""The CUDA engine: its kernel on a GPU or, where there is none, in Triton's interpreter."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_engines import (
    STOPPING,
    Adam,
    assert_same_bytes,
    evaluate,
    exact,
    problem,
    relative,
)

from zoo import engines, kinds, nets, verification
from zoo.engines import CAP, TARGET
from zoo.machine import Notice
from zoo.recipes import recipe
from zoo.spec import NetworkSpec

triton = pytest.importorskip("triton", reason="Triton is not installed here")

import triton.language as tl  # noqa: E402

from zoo.engines import cuda  # noqa: E402
from zoo.engines.cuda import CudaEngine, Plan  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROOT = Path(__file__).parents[1]


def engine(plan: Plan | None = None) -> CudaEngine:
    return CudaEngine(DEVICE, plan)


# --- against the float64 reference ------------------------------------------------------------

# widths, points, omega, weight decay, plan
SMALL = Plan(tile=16, warps=4, carry=False, stream=True)
CASES = [
    ([2, 32, 32, 1], 70, 30.0, 1e-4, None),
    ([2, 32, 32, 1], 70, 30.0, 1e-4, SMALL),
    ([1, 5, 1], 7, 1.0, 0.0, None),
    ([3, 33, 19, 2], 40, 5.0, 0.1, None),
    ([4, 9, 31, 7, 4], 65, 10.0, 0.0, None),
    ([1, 16, 3], 64, 30.0, 0.0, Plan(tile=32, warps=2, carry=True, stream=False)),
    ([2, 20, 12, 1], 33, 30.0, 1e-3, Plan(32, 4, carry=True, stream=True, precision="ieee")),
    ([2, 128, 100, 1], 20, 30.0, 0.0, None),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_agrees_with_float64(case):
    widths, points, omega, decay, plan = case
    spec = NetworkSpec.mlp(widths, omega=omega, output_offset=0.5)
    params, inputs, targets = problem(spec, points, net=2, seed=len(widths))
    adam = Adam(1e-3, 3, weight_decay=decay, beta1=0.8, schedule="cosine", warmup=1)
    found = engine(plan).fit(spec, params, inputs, targets, adam)
    expected = exact().fit(spec, params, inputs, targets, adam)
    ratios = relative(spec, params, found.params, expected.params)
    assert max(ratios.values()) < 1e-3, ratios
    np.testing.assert_allclose(found.mse, expected.mse, rtol=1e-4)
    assert found.steps.tolist() == [3, 3]


def test_the_measure_sees_a_wrong_update():
    """The rejected case of the test above: other decay rates of Adam, another schedule."""
    spec = NetworkSpec.mlp([1, 5, 1], omega=1.0)
    params, inputs, targets = problem(spec, 7, net=2)
    found = engine().fit(spec, params, inputs, targets, Adam(1e-3, 3))
    for other in (Adam(1e-3, 3, beta1=0.8), Adam(1e-3, 3, schedule="cosine")):
        expected = exact().fit(spec, params, inputs, targets, other)
        assert max(relative(spec, params, found.params, expected.params).values()) > 1e-3


@triton.jit
def sine_kernel(turns, sines, cosines, COUNT: tl.constexpr):
    place = tl.arange(0, COUNT)
    sine, cosine = cuda._sine_cosine(tl.load(turns + place))
    tl.store(sines + place, sine)
    tl.store(cosines + place, cosine)


def test_sine_and_cosine_in_half_turns():
    draw = np.random.default_rng(0)
    values = np.concatenate(
        [draw.uniform(-2, 2, 3000), draw.uniform(-1e4, 1e4, 1080), np.arange(16)]
    )
    turns = torch.tensor(values, dtype=torch.float32, device=DEVICE)
    sines, cosines = torch.empty_like(turns), torch.empty_like(turns)
    sine_kernel[(1,)](turns, sines, cosines, len(values))
    # Reduced to [0, 2) first, which is exact in float64.
    angle = np.pi * np.mod(turns.double().cpu().numpy(), 2)
    np.testing.assert_allclose(sines.double().cpu(), np.sin(angle), rtol=0, atol=3e-7)
    np.testing.assert_allclose(cosines.double().cpu(), np.cos(angle), rtol=0, atol=3e-7)


def test_final_quality_of_whole_fits_agrees():
    """Chaotic in its digits, not in its quality: four of the digits."""
    chosen = recipe("dws", "digits", steps=60, hidden=16, lr=3e-3, target_psnr_db=None)
    digits = kinds.open_source(chosen, "digits", seed=0)
    goal = kinds.objective(chosen, digits)
    items = np.arange(4)
    targets = goal.targets(digits.items(items))
    params = nets.initialise(goal.spec, chosen.init, 0, items, items * 0)
    means = []
    for one in (engine(), exact()):
        fit = one.fit(goal.spec, params, goal.inputs, targets, goal.adam)
        means.append(goal.psnr_db(fit.mse).mean())
    print(f"mean PSNR in dB: {means}")
    assert means[0] > 15
    assert abs(means[0] - means[1]) < 0.1


# --- when a network ends ----------------------------------------------------------------------


def test_networks_stop_alike_and_at_their_own_step():
    params, inputs, targets = problem(STOPPING, 40, net=6)
    adam = Adam(2e-3, 12, target_mse=0.05)
    found = engine().fit(STOPPING, params, inputs, targets, adam)
    expected = exact().fit(STOPPING, params, inputs, targets, adam)
    assert set(found.stop) == {CAP, TARGET}  # the case holds both kinds
    assert len(set(found.steps)) > 2
    assert found.steps.tolist() == expected.steps.tolist()
    assert found.stop.tolist() == expected.stop.tolist()
    np.testing.assert_allclose(found.mse, evaluate(STOPPING, found, inputs, targets), rtol=1e-4)
    # Bytes are a network's own, whatever runs beside it and when that ends.
    order = np.array([4, 1])
    part = engine().fit(STOPPING, params[order], inputs, targets[order], adam)
    assert_same_bytes(part, found, order)


@pytest.mark.parametrize("adam", [Adam(1e-3, 0), Adam(1e-3, 9, target_mse=1e9)], ids=["0", "met"])
def test_no_step_changes_nothing(adam):
    params, inputs, targets = problem(STOPPING, 40, net=2)
    given = [array.copy() for array in (params, inputs, targets)]
    found = engine().fit(STOPPING, params, inputs, targets, adam)
    assert np.array_equal(found.params, params)
    assert found.steps.tolist() == [0, 0]
    assert found.stop.tolist() == [CAP if adam.target_mse is None else TARGET] * 2
    assert [column.dtype for column in found] == [np.float32, np.float64, np.int64, np.int64]
    assert all(column.flags.writeable for column in found)
    for array, before in zip((params, inputs, targets), given, strict=True):
        assert np.array_equal(array, before)  # engines leave their arguments alone


def test_the_target_is_compared_exactly():
    """An error that float32 holds is not below a target that rounds to the same float32."""
    params, inputs, targets = problem(STOPPING, 40, net=1)
    mse = engine().fit(STOPPING, params, inputs, targets, Adam(1e-3, 0)).mse[0]
    for target, stop in ((mse * (1 + 1e-12), TARGET), (mse, CAP), (mse * (1 - 1e-12), CAP)):
        fit = engine().fit(STOPPING, params, inputs, targets, Adam(1e-3, 1, target_mse=target))
        assert fit.steps[0] == (0 if stop == TARGET else 1)


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # the interpreter is numpy
def test_one_that_diverges_does_not_touch_its_neighbours():
    params, inputs, targets = problem(STOPPING, 40, net=3)
    alone = engine().fit(STOPPING, params, inputs, targets, Adam(1e-3, 3))
    params[1, 3] = np.inf
    found = engine().fit(STOPPING, params, inputs, targets, Adam(1e-3, 3))
    assert not np.isfinite(found.mse[1])
    assert found.steps.tolist() == [3, 0, 3]
    assert found.stop.tolist() == [CAP] * 3
    for net in (0, 2):
        assert np.array_equal(found.params[net], alone.params[net])
    exploded = engine().fit(STOPPING, params[:1], inputs, targets[:1], Adam(1e30, 9))
    assert not np.isfinite(exploded.mse).any()
    assert exploded.steps[0] < 9


def test_no_networks():
    params, inputs, targets = problem(STOPPING, 40, net=1)
    found = engine().fit(STOPPING, params[:0], inputs, targets[:0], Adam(1e-3, 3))
    assert [len(column) for column in found] == [0] * 4


# --- choosing, refusing -----------------------------------------------------------------------


def test_auto_takes_it_on_cuda_where_it_can():
    assert engines.choose("auto", "cuda", STOPPING) == "cuda"
    assert engines.choose("auto", "cuda:1", STOPPING) == "cuda"
    for other in (
        NetworkSpec.mlp([2, 8, 5]),
        NetworkSpec.mlp([2, 8, 1], activation="relu"),
        NetworkSpec.mlp([2, 129, 1]),
        NetworkSpec.mlp([2, 8, 8, 8, 8, 1]),
        NetworkSpec.cnn([1, 4], 2),
    ):
        with pytest.warns(Notice, match="fitted by 'reference', batched torch"):
            assert engines.choose("auto", "cuda", other) == "reference"
        with pytest.raises(ValueError, match="at most 128 neurons only; use --engine reference"):
            engines.choose("cuda", "cuda", other)
    with pytest.raises(ValueError, match="does not run on device 'cpu'; give --device cuda"):
        engines.choose("cuda", "cpu", STOPPING)
    with pytest.raises(ValueError, match=r"cannot fit \(2, 129, 1\) networks"):
        engine().fit(NetworkSpec.mlp([2, 129, 1]), *problem(STOPPING, 4, 1), Adam(1e-3, 1))


def test_without_triton_all_else_works(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    assert engines.choose("auto", "cuda", STOPPING) == "reference"
    with pytest.raises(ValueError, match=r"^engine 'cuda' needs Triton: .*; use --engine refer"):
        engines.choose("cuda", "cuda", STOPPING)
    with pytest.raises(ValueError, match=r"^engine 'cuda' needs Triton: .*; use --engine refer"):
        engines.load("cuda", "cuda")


def test_devices_that_are_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match="'cuda' is not there: torch sees no GPU; use --device c"):
        engines.load("cuda", "cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="'cuda:2' is not there: torch sees 2 GPUs"):
        engines.load("cuda", "cuda:2")
    with pytest.raises(ValueError, match=r"^device 'cuda:one' cannot be used: .*cuda:one"):
        engines.load("cuda", "cuda:one")
    assert engines.load("cuda", "cuda:1").device == torch.device("cuda:1")
    assert engines.devices("cuda") == ["cuda:0", "cuda:1"]
    assert engines.devices("cuda:1") == ["cuda:1"]
    assert engines.devices("cpu") == ["cpu"]


def test_the_next_plan_where_memory_is_short(monkeypatch):
    """A device that refuses the first plan gets the second; one that refuses all, an error."""
    used = []

    class Kernel:
        def __init__(self, most: int):
            self.most = most

        def __getitem__(self, grid):
            def launch(*arrays, TILE, **options):
                if self.most < TILE:
                    raise cuda.OutOfResources(300_000, 232_448, "shared memory")
                used.append((grid, TILE))

            return launch

    arrays = problem(STOPPING, 40, net=3)
    runner = engine()
    monkeypatch.setattr(cuda, "_fit", Kernel(16))
    runner.fit(STOPPING, *arrays, Adam(1e-3, 1))
    assert used == [((3,), 16)]
    monkeypatch.setattr(cuda, "_fit", Kernel(0))
    with pytest.raises(ValueError, match=r"too small for .* \(out of resource.*use --engine ref"):
        runner.fit(STOPPING, *arrays, Adam(1e-3, 1))


# --- zoos -------------------------------------------------------------------------------------


def test_a_zoo_of_another_machines_gpu_is_verified_by_quality(tmp_path, monkeypatch):
    """Built with the kernel, as on a GPU; refitted here, where the CPU's engine takes over."""
    from zoo import build
    from zoo.making import chunks

    monkeypatch.setattr(engines, "choose", lambda name, device, spec, plain: "cuda")
    monkeypatch.setattr(chunks, "processor", lambda device: "cuda NVIDIA H200")
    monkeypatch.setattr(CudaEngine, "__init__", lambda self, device: None)
    monkeypatch.setattr(CudaEngine, "device", torch.device(DEVICE), raising=False)
    monkeypatch.setattr(CudaEngine, "plan", None, raising=False)
    few = recipe("dws", "digits", steps=8, hidden=16, target_psnr_db=None)
    index = build(few, "digits", tmp_path / "zoo", limit=6, parquet=False)
    assert index.plan["engine"] == "cuda"
    assert {shard.cpu for shard in index.shards} == {"cuda NVIDIA H200"}
    card = (tmp_path / "zoo" / "README.md").read_text()
    assert "| GPU | cuda" not in card
    assert "| GPU | NVIDIA H200 | a refit gives the same quality, not the same bytes |" in card
    monkeypatch.undo()
    checks = list(verification.verify(tmp_path / "zoo", samples=6, refit=4))
    assert all(check.passed for check in checks), checks
    assert any("fitted again on a GPU, another CPU or version" in c.detail for c in checks)


def test_every_gpu_gets_a_worker_of_its_own(tmp_path, monkeypatch):
    from zoo import build
    from zoo.making import chunks, workers

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(chunks, "processor", lambda device: "cuda NVIDIA H200")
    asked = []

    def run(prepare, arguments, tasks, count, threads, own):
        asked.append((count, own))
        raise KeyboardInterrupt

    monkeypatch.setattr(workers, "run", run)
    few = recipe("dws", "digits", steps=2, hidden=16)
    for number, (device, count, own) in enumerate(
        [
            ("cuda", 1, ["cuda:0", "cuda:1", "cuda:2"]),
            ("cuda", 5, ["cuda:0", "cuda:1", "cuda:2", "cuda:0", "cuda:1"]),
            ("cuda:1", 1, ["cuda:1"]),
            ("cuda:1", 2, ["cuda:1", "cuda:1"]),
        ]
    ):
        out = tmp_path / str(number)
        with pytest.raises(KeyboardInterrupt):
            build(few, "digits", out, limit=4, device=device, workers=count)
        assert asked.pop() == (len(own), own)


# --- the benchmark ----------------------------------------------------------------------------


def test_the_benchmark_runs_with_tiny_sizes():
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--quick", "--interpret"],
        capture_output=True,
        text=True,
        env=os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert "FAILED" not in done.stdout, done.stdout
    for section in (
        *("machine", "correctness", "baselines", "variants", "mnist", "growth"),
        *("readers", "tickets"),
    ):
        assert f"## {section}\n" in done.stdout
    assert "Bytes independent of neighbours: True." in done.stdout
    assert done.stdout.count("zoo.build of 2 networks of digits") == 3
    assert "| 1 networks | " in done.stdout


# --- compiled and bound, without a GPU --------------------------------------------------------

COMPILE = """
import sys
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from zoo.engines.cuda import _fit, constants, options, plans
from zoo.spec import NetworkSpec

spec = NetworkSpec.mlp([int(width) for width in sys.argv[1:]])
plan = plans(spec)[0]
fixed = constants(spec, 784, plan)
kinds = {"steps": "i32", "taken": "*i32"} | dict.fromkeys(fixed, "constexpr")
arrays = ("entries", "mean", "square", "inputs", "targets", "schedule", "errors")
kinds |= dict.fromkeys(arrays, "*fp32")
names = _fit.arg_names
source = ASTSource(
    _fit,
    {name: kinds.get(name, "fp32") for name in names},
    {(names.index(name),): value for name, value in fixed.items()},
)
made = compile(source, target=GPUTarget("cuda", 90, 32), options=options(plan))
print(len(made.asm["cubin"]), made.metadata.shared)
"""


@pytest.mark.parametrize("widths", [(2, 32, 32, 1), (3, 16, 4)], ids=str)
def test_it_compiles_for_hopper(widths):
    """And a program takes no more than the 227 KiB of shared memory that it may have there.

    The interpreter takes code that the compiler refuses, such as a variable whose type changes.
    """
    compiling = {name: text for name, text in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, *map(str, widths)],
        capture_output=True, text=True, cwd=ROOT, env=compiling,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    cubin_bytes, shared_bytes = map(int, done.stdout.split())
    assert cubin_bytes > 0
    assert shared_bytes <= 227 * 1024


BIND = """
import sys
import numpy as np
import torch
import triton
from triton.backends.compiler import GPUTarget
from zoo import nets
from zoo.engines import Adam, cuda
from zoo.spec import NetworkSpec


class Driver:
    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)


triton.runtime.driver.set_active(Driver())
run, made = cuda._fit.run, []
cuda._fit.run = lambda *args, **more: made.append(run(*args, **{**more, "warmup": True}))
engine = object.__new__(cuda.CudaEngine)
engine.device, engine.plan = torch.device("cpu"), None
spec = NetworkSpec.mlp([2, 16, 16, 1])
params = nets.initialise(spec, "dws", 0, np.arange(2), np.arange(2) * 0)
for steps in (1, 5, 160, 1500):
    inputs, targets = np.zeros((20, 2), np.float32), np.zeros((2, 20, 1), np.float32)
    engine.fit(spec, params, inputs, targets, Adam(1e-3, steps))
print(made[0].src.signature["entries"], len({id(kernel) for kernel in made}), len(made))
"""


def test_a_launch_binds_its_arguments_and_compiles_once():
    """Triton's own launching, up to the launch itself, on a driver without a GPU.

    An argument of the name `params` was taken for what Triton calls so: no fit could begin.
    Other numbers of steps need no other kernel.
    """
    compiling = {name: text for name, text in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", BIND], capture_output=True, text=True, cwd=ROOT, env=compiling
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["*fp32", "1", "4"]
