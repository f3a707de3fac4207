"""Inner steps that are recorded give the gradients of steps that are not."""

from dataclasses import replace

import pytest
import torch
from synth_cases import ALL_FAMILIES, build, check_same, make_problem

from synth import Adjoint
from synth.directional import Eager, double_backward, forward_over_reverse
from synth.gradients import replay
from synth.precision import full_float32
from synth.recording import RecordedSteps

FORMS = [double_backward, forward_over_reverse]


class Tape:
    """Stands in for a graph: the recorded work runs again, on the tensors it was recorded with."""

    def __init__(self):
        self.recorded = 0
        self.replayed = 0

    def __call__(self, work, inputs):
        self.recorded += 1
        kept = [tensor.clone() for tensor in inputs]

        def again(inputs):
            self.replayed += 1
            for own, given in zip(kept, inputs, strict=True):
                own.copy_(given)
            return [output.clone() for output in work(kept)]

        return again


def solve(problem, passes, damping=1.0, snapshots="all"):
    return replay(
        problem.loop(),
        problem.start,
        problem.target,
        problem.lr,
        snapshots=snapshots,
        damping=damping,
        passes=passes,
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("snapshots", ["all", "sqrt", "offload"])
@pytest.mark.parametrize("damping", [0.0, 1.0])
def test_recorded_steps_give_the_same_bits(damping, snapshots, form):
    problem = make_problem(build("ConvNet", width=4, depth=2), 3 * len(ALL_FAMILIES))
    tape = Tape()
    steps = RecordedSteps(form, tape)
    for _ in range(2):
        wanted = solve(problem, Eager(form), damping, snapshots)
        found = solve(problem, steps, damping, snapshots)
        for name in ("distance", "images", "labels", "lr", "end"):
            assert torch.equal(getattr(found, name), getattr(wanted, name))
        problem = replace(problem, images=problem.images + 1, start=problem.start * 0.9)
    assert tape.replayed > len(problem.batches)


def test_a_kind_of_step_is_recorded_once():
    problem = make_problem(build("ConvNet", width=4, depth=2), 4 * len(ALL_FAMILIES))
    tape = Tape()
    steps = RecordedSteps(double_backward, tape)
    for _ in range(2):
        solve(problem, steps)
    # There and back, for each family.
    assert tape.recorded == 2 * len(ALL_FAMILIES)
    assert tape.replayed == 4 * len(problem.batches) - 4 * len(ALL_FAMILIES)


def test_work_that_cannot_be_recorded_is_done_step_by_step():
    def refuse(work, inputs):
        calls.append(1)
        raise RuntimeError("operation not permitted when stream is capturing")

    calls = []
    problem = make_problem(build("ConvNet", width=4, depth=2), 6, families=("flip",))
    found = solve(problem, RecordedSteps(double_backward, refuse))
    check_same(found, solve(problem, Eager(double_backward)), 0)
    # Once there and once back, not at every step.
    assert len(calls) == 2


def on_cuda(problem):
    names = ("start", "target", "images", "labels", "lr")
    moved = {name: getattr(problem, name).to("cuda") for name in names}
    return replace(problem, network=problem.network.to("cuda"), **moved)


@pytest.mark.cuda
@pytest.mark.parametrize("snapshots", ["all", "sqrt", "offload"])
def test_graphs_on_cuda_give_the_gradient_of_eager_steps(snapshots):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    problem = make_problem(build("ConvNet", width=16), 3 * len(ALL_FAMILIES))
    problem = on_cuda(problem)
    method = Adjoint(snapshots)
    for _ in range(3):
        with full_float32():
            wanted = solve(problem, Eager(forward_over_reverse), snapshots=snapshots)
        check_same(problem.solve(method), wanted, 1e-4)
        problem = replace(problem, images=problem.images + 0.1, start=problem.start * 0.99)
