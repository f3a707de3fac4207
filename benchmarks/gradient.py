"""Time, peak memory and error of every matching gradient.

    python benchmarks/gradient.py --out benchmarks/results/gradient.json
    python benchmarks/gradient.py --device cuda --out benchmarks/results/gradient-cuda.json
    python benchmarks/gradient.py --parts peak_bytes --out benchmarks/results/gradient.json

`mtt-style` is the anchor: what the published program of MTT does (Cazenavette et al. 2022), plain
automatic differentiation through all inner steps of a network with PyTorch's own norm kernels.
`unrolled` does the same through the library higher, on our network.

One process measures all times, interleaved, so that a slow minute hits every method alike, and
keeps the memory that a method frees, as `distill` does, so that none pays for what another left.
Medians are reported, for all threads and for one. Parts can be measured one at a time, since only
times need a quiet machine: a file that is there keeps its other parts. Peak memory is what the
allocator reserved at most on CUDA, and on the CPU the growth of a child process during one
gradient, after a short one for which all is loaded and compiled; what a compiler itself keeps in
memory is not in it. The error is against automatic differentiation through all inner steps in
float64. The problem: a ConvNet on 3x32x32 images, DSA on, a batch of 50, learned labels.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from record import provenance, this_call
from torch import nn

from distill.run.allocator import keep_freed_memory
from synth import Adjoint, FrozenAdjoint, MatchingGradient, Unrolled
from synth.augment import dsa
from synth.compiling import find_compiler
from synth.matching.directional import Eager, double_backward, forward_over_reverse
from synth.matching.gradients import GradientMethod, parameter_distance, replay
from synth.matching.inner_loop import InnerLoop, draw_batches, make_inner_loop
from synth.networks import ConvNet
from synth.networks.layers import AveragePooling, GroupNorm
from synth.parameters import call_with_vector, parameter_vector
from synth.precision import full_float32

BATCH = 50
LONGEST_REPEATED = 20  # beyond, one turn takes minutes and averages over its own inner steps
MTT = "mtt-style"
COMPILED = "adjoint, compiled"
MEMORY_METHODS = (MTT, "adjoint", COMPILED, "adjoint, sqrt", "adjoint, offload", "unrolled")
PLOTTED = (MTT, COMPILED, "adjoint", "adjoint, sqrt", "unrolled")
UNROLLED = (MTT, "unrolled")  # their memory grows with every inner step
GRAPHS = "adjoint, graphs"  # what Adjoint() is on CUDA; the others start each kernel by itself
# A kind of inner step is recorded when it comes for the third time.
WARM_UPS = 3
Problem = tuple[InnerLoop, torch.Tensor, torch.Tensor, torch.Tensor]


def make_problem(
    steps: int, width: int, device: str, dtype: torch.dtype, activation: str = "relu"
) -> Problem:
    """An inner loop of `steps` steps on 100 random images of ten classes."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    network = ConvNet(3, (32, 32), 10, width=width, activation=activation).to(device, dtype)
    images = torch.randn(100, 3, 32, 32, generator=generator).to(device, dtype)
    labels = torch.randn(100, 10, generator=generator).to(device, dtype)
    start = parameter_vector(network)
    move = torch.randn(len(start), generator=generator).to(device, dtype)
    batches = draw_batches(100, BATCH, steps, generator)
    views = [dsa().sample(BATCH, (32, 32), generator) for _ in range(steps)]
    loop = make_inner_loop(network, images, labels, [b.to(device) for b in batches], views)
    lr = torch.tensor(0.01, dtype=dtype, device=device)
    return loop, start, start + 0.01 * move, lr


def adjoint(form: str, damping: float = 1.0, snapshots: str = "all") -> GradientMethod:
    """The replay with a fixed form of the directional derivatives, without CUDA graphs."""
    passes = Eager({"forward": forward_over_reverse, "double": double_backward}[form])

    def method(
        loop: InnerLoop, start: torch.Tensor, target: torch.Tensor, lr: torch.Tensor
    ) -> MatchingGradient:
        return replay(loop, start, target, lr, snapshots=snapshots, damping=damping, passes=passes)

    return method


def native(network: nn.Module) -> nn.Module:
    """`network` with PyTorch's own layers in the place of ours; the parameters are as they were."""
    copied = copy.deepcopy(network)
    for name, layer in list(copied.named_modules()):
        if isinstance(layer, GroupNorm):
            copied.set_submodule(name, nn.GroupNorm(layer.groups, len(layer.weight), layer.eps))
        elif isinstance(layer, AveragePooling):
            copied.set_submodule(name, nn.AvgPool2d(2))
    return copied


def mtt_style(
    loop: InnerLoop, start: torch.Tensor, target: torch.Tensor, lr: torch.Tensor
) -> MatchingGradient:
    """Plain automatic differentiation through all inner steps, as in MTT's published program."""
    network = native(loop.network)
    images, labels, lr = (
        given.detach().clone().requires_grad_() for given in (loop.images, loop.labels, lr)
    )
    parameters = start.detach().clone().requires_grad_()
    for step, batch in enumerate(loop.batches):

        def student(seen: torch.Tensor, parameters: torch.Tensor = parameters) -> torch.Tensor:
            return call_with_vector(network, loop.layout, parameters, seen)

        loss = loop.loss(step, student, images[batch], labels[batch])
        (gradient,) = torch.autograd.grad(loss, parameters, create_graph=True)
        parameters = parameters - lr * gradient
    distance = parameter_distance(parameters, start, target)
    gradients = torch.autograd.grad(distance, (images, labels, lr))
    return MatchingGradient(distance.detach(), *gradients, parameters.detach())


METHODS: dict[str, GradientMethod] = {
    MTT: mtt_style,
    "adjoint": adjoint("forward"),
    "adjoint, double backward": adjoint("double"),
    "adjoint, sqrt": adjoint("forward", snapshots="sqrt"),
    "adjoint, offload": adjoint("forward", snapshots="offload"),
    "frozen adjoint": adjoint("forward", damping=0.0),
    "frozen adjoint, double backward": adjoint("double", damping=0.0),
    "unrolled": Unrolled(),
}
if torch.cuda.is_available():
    METHODS[GRAPHS] = Adjoint()
elif find_compiler() is not None:
    METHODS[COMPILED] = Adjoint(compiled=True)
    METHODS["frozen adjoint, compiled"] = FrozenAdjoint(compiled=True)


def seconds(work: Callable[[], Any], device: str) -> float:
    """Seconds that `work` takes, device included."""
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def measure_times(steps: int, options: argparse.Namespace) -> dict[str, float]:
    """Median seconds of each method at `steps` inner steps, interleaved."""
    problem = make_problem(steps, options.width, options.device, torch.float32)
    chosen = {
        name: method
        for name, method in METHODS.items()
        if name not in UNROLLED or steps <= options.longest_unrolled
    }
    times: dict[str, list[float]] = {name: [] for name in chosen}
    short = steps <= LONGEST_REPEATED
    warm_ups = WARM_UPS if options.device == "cuda" else int(short)
    for turn in range(warm_ups + (options.repeats if short else 1)):
        for name, method in chosen.items():
            taken = seconds(lambda method=method: method(*problem), options.device)
            if turn >= warm_ups:
                times[name].append(taken)
    return {name: statistics.median(values) for name, values in times.items()}


def peak_bytes(name: str, steps: int, options: argparse.Namespace) -> int:
    """Peak bytes of one gradient; on the CPU measured in a child process."""
    if options.device == "cuda":
        return peak_reserved(name, steps, options)
    command = [sys.executable, __file__, "--child", name, "--steps", str(steps)]
    command += ["--width", str(options.width)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout)


def peak_reserved(name: str, steps: int, options: argparse.Namespace) -> int:
    """What the allocator reserves at most: it counts what graphs keep for their next replay."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    problem = make_problem(steps, options.width, options.device, torch.float32)
    for _ in range(WARM_UPS):
        METHODS[name](*problem)
    return torch.cuda.max_memory_reserved()


def child(name: str, options: argparse.Namespace) -> None:
    """Print by how much one gradient raises the resident memory at most."""
    problem = make_problem(options.steps[0], options.width, "cpu", torch.float32)
    loop = problem[0]
    METHODS[name](replace(loop, batches=loop.batches[:1], views=loop.views[:1]), *problem[1:])
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    METHODS[name](*problem)
    print(resident("VmHWM") - before)


def resident(field: str) -> int:
    """Resident bytes of this process, now (VmRSS) or at their peak (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def errors(
    steps: int, options: argparse.Namespace, activation: str = "relu"
) -> dict[str, dict[str, float]]:
    """Relative error of each method in float32 against unrolled float64, on a narrow network."""
    exact = Unrolled()(*make_problem(steps, 16, options.device, torch.float64, activation))
    problem = make_problem(steps, 16, options.device, torch.float32, activation)
    by_method = {}
    for name, method in METHODS.items():
        result = method(*problem)
        by_method[name] = {
            part: float((getattr(result, part).double() - getattr(exact, part)).norm())
            / float(getattr(exact, part).norm())
            for part in ("images", "labels", "lr")
        }
    return by_method


def plot(result: dict[str, Any], path: Path) -> None:
    """Peak memory and time against N, for docs/results.md."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for axis, part, unit, label in (
        (axes[0], "peak_bytes", 2**20, "peak memory, MiB"),
        (axes[1], "seconds", 1, "seconds"),
    ):
        for name in (GRAPHS, *PLOTTED):
            points = [
                (int(steps), values[name] / unit)
                for steps, values in result[part].items()
                if name in values
            ]
            axis.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
        axis.set(xlabel="inner steps N", ylabel=label, xscale="log", yscale="log")
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)


def all_errors(options: argparse.Namespace) -> dict[str, Any]:
    """Errors by number of inner steps, method and part."""
    return {str(n): errors(n, options) for n in options.error_steps}


def all_smooth_errors(options: argparse.Namespace) -> dict[str, Any]:
    """As `all_errors`, with sigmoids: rounding over a rectifier's kink is 1e-4, by chance."""
    return {str(n): errors(n, options, "sigmoid") for n in options.error_steps}


def all_peaks(options: argparse.Namespace) -> dict[str, Any]:
    """Peak bytes by number of inner steps and method."""
    return {
        str(n): {
            name: peak_bytes(name, n, options)
            for name in (*MEMORY_METHODS, GRAPHS)
            if name in METHODS and (name not in UNROLLED or n <= options.longest_unrolled)
        }
        for n in options.steps
    }


def all_times(options: argparse.Namespace) -> dict[str, Any]:
    """Median seconds by number of inner steps and method."""
    times = {}
    for n in options.time_steps:
        times[str(n)] = measure_times(n, options)
        print(n, times[str(n)], file=sys.stderr, flush=True)
    return times


def one_thread_times(options: argparse.Namespace) -> dict[str, Any]:
    """As `all_times`, by a single thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    times = all_times(options)
    torch.set_num_threads(before)
    return times


MEASURES = {
    "seconds": all_times,
    "seconds_one_thread": one_thread_times,
    "peak_bytes": all_peaks,
    "errors": all_errors,
    "errors_smooth": all_smooth_errors,
}


def made(part: str, options: argparse.Namespace) -> dict[str, Any]:
    """What made a part: command, commit, date, machine class, threads, problem."""
    origin = provenance(this_call())
    return {
        **origin,
        "machine": {**origin["machine"], "device": options.device},
        "versions": {"torch": torch.__version__},
        "threads": 1 if part == "seconds_one_thread" else torch.get_num_threads(),
        "problem": {"width": options.width, "batch": BATCH, "images": [100, 3, 32, 32], "seed": 0},
    }


def main() -> None:
    """Measure everything and write the JSON and the plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--parts", nargs="+", choices=MEASURES, default=list(MEASURES))
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 5, 20, 50, 100, 200])
    parser.add_argument("--time-steps", type=int, nargs="+", default=[1, 5, 10, 20, 50, 100, 200])
    parser.add_argument("--error-steps", type=int, nargs="+", default=[1, 5, 20, 50])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--longest-unrolled", type=int, default=50, help="memory grows with N")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options)
        return
    keep_freed_memory()
    for name in METHODS.keys() - set(options.methods):
        del METHODS[name]
    result = json.loads(options.out.read_text()) if options.out and options.out.exists() else {}
    for part in options.parts:
        with full_float32():
            result[part] = MEASURES[part](options)
        result.setdefault("made", {})[part] = made(part, options)
        if options.out:
            options.out.write_text(json.dumps(result, indent=1) + "\n")
    if options.out and {"seconds", "peak_bytes"} <= set(result):
        plot(result, options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
