"""What the gradients hold in memory, as the number of inner steps grows."""

import weakref
from types import SimpleNamespace

import pytest
import torch

from synth import Adjoint, FrozenAdjoint, Unrolled
from synth.matching.directional import Eager, double_backward
from synth.matching.parameter_path import InnerPath
from tests.synth.cases import build_registered, make_problem


class Held:
    """A tensor that a graph keeps for its backward pass."""

    def __init__(self, tensor):
        self.tensor = tensor


class Ledger:
    """Bytes that all live graphs keep, now and at most."""

    def __init__(self):
        self.now = 0
        self.peak = 0

    def pack(self, tensor):
        held = Held(tensor)
        self._add(tensor.nbytes)
        weakref.finalize(held, self._add, -tensor.nbytes)
        return held

    def _add(self, count):
        self.now += count
        self.peak = max(self.peak, self.now)


def peak_held_bytes(gradient, steps: int) -> int:
    # One family for all steps: families keep different amounts, which is not what is measured.
    problem = make_problem(build_registered("convnet2"), steps, families=("rotate",))
    ledger = Ledger()
    with torch.autograd.graph.saved_tensors_hooks(ledger.pack, lambda held: held.tensor):
        problem.solve(gradient)
    assert ledger.now == 0
    return ledger.peak


@pytest.mark.parametrize("snapshots", ["all", "sqrt"])
@pytest.mark.parametrize("method", [Adjoint, FrozenAdjoint])
def test_adjoint_memory_does_not_grow_with_inner_steps(method, snapshots):
    few = peak_held_bytes(method(snapshots=snapshots), 2)
    assert few > 0
    assert peak_held_bytes(method(snapshots=snapshots), 32) == few


def test_unrolled_memory_grows_with_inner_steps():
    assert peak_held_bytes(Unrolled(), 32) > 4 * peak_held_bytes(Unrolled(), 2)


def test_adjoint_holds_less_than_unrolled():
    assert 4 * peak_held_bytes(Adjoint(), 32) < peak_held_bytes(Unrolled(), 32)


class CountingLoop:
    """An inner loop with gradient 1 that counts how many parameter vectors are alive."""

    def __init__(self, steps: int):
        self.batches = [SimpleNamespace()] * steps
        self.calls = 0
        self.peak = 0
        self._seen = weakref.WeakValueDictionary()

    def gradient(self, step, parameters):
        self.calls += 1
        self.watch(parameters)
        return torch.ones_like(parameters)

    def watch(self, parameters):
        self._seen[id(parameters)] = parameters
        self.peak = max(self.peak, len(self._seen))


def walk(steps: int, snapshots: str):
    """Walk there and back; what was counted, and the pairs (step, theta_step)."""
    loop = CountingLoop(steps)
    path = InnerPath(loop, torch.tensor(0.5), snapshots, Eager(double_backward))
    end = path.run(torch.zeros(3))
    pairs = []
    for step, parameters in path.backwards():
        loop.watch(parameters)
        pairs.append((step, float(parameters[0])))
    return loop, float(end[0]), pairs


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 9, 10, 50])
@pytest.mark.parametrize("snapshots", ["all", "sqrt", "offload"])
def test_inner_path_walks_back_over_every_step(snapshots, steps):
    _, end, pairs = walk(steps, snapshots)
    assert end == -0.5 * steps
    assert pairs == [(step, -0.5 * step) for step in reversed(range(steps))]


@pytest.mark.parametrize("steps", [16, 100, 400])
def test_inner_path_keeps_about_twice_the_root_of_its_vectors(steps):
    loop, _, _ = walk(steps, "sqrt")
    root = round(steps**0.5)
    assert 2 * root - 2 <= loop.peak <= 2 * root + 2
    assert loop.calls <= 2 * steps


def test_inner_path_that_keeps_all_computes_nothing_twice():
    loop, _, _ = walk(100, "all")
    assert loop.peak == 100
    assert loop.calls == 100
