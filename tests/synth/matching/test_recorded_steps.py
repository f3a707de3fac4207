"""Inner steps that are recorded give the gradients of steps that are not."""

from dataclasses import replace

import pytest
import torch

from synth import Adjoint
from synth.augment import dsa
from synth.matching.directional import Eager, double_backward, forward_over_reverse
from synth.matching.gradients import replay
from synth.matching.recorded_steps import RecordedSteps
from synth.precision import full_float32
from synth.training import loop as training
from synth.training.batches import shuffled_batches
from synth.training.loop import TrainSettings, train
from tests.synth.cases import ALL_FAMILIES, Tape, build, check_same, make_problem

FORMS = [double_backward, forward_over_reverse]


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
    with pytest.warns(RuntimeWarning, match="kernel by kernel.*not permitted"):
        found = solve(problem, RecordedSteps(double_backward, refuse))
    check_same(found, solve(problem, Eager(double_backward)), 0)
    # Once there and once back, not at every step.
    assert len(calls) == 2


SETTINGS = {
    "sgd": {},
    "adamw": {"optimizer": "adamw", "average": 0.9},
    "cosine": {"loss": "cosine", "temperature": 2.0},
    "bfloat16": {"precision": "bfloat16"},
}


def trained(device, parts, options):
    """Weights and losses of a network with BatchNorm after 24 batches of two sizes."""
    generator = torch.Generator().manual_seed(1)
    network = build("ConvNet", width=4, depth=2, norm="batch").to(device)
    images = torch.randn(22, 1, 16, 16, generator=generator).to(device)
    labels = torch.randn(22, 10, generator=generator).to(device)

    def batches(epoch):
        for batch in shuffled_batches(images, labels, 8, dsa(), generator):
            yield replace(batch, parts=parts)

    losses = [epoch.loss for epoch in train(network, batches, TrainSettings(8, 0.05, **options))]
    return network.state_dict(), losses


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("name", SETTINGS)
def test_recorded_training_gives_the_same_bits(monkeypatch, name, parts):
    wanted, losses = trained("cpu", parts, SETTINGS[name])
    tape = Tape()
    monkeypatch.setattr(training, "_can_be_recorded", lambda *about: True)
    monkeypatch.setattr(training, "GraphRecorder", lambda: tape)
    found, again = trained("cpu", parts, SETTINGS[name])
    assert tape.replayed > 0
    assert again == losses
    for key, value in wanted.items():
        # Recording runs the work, which a tape does once more and a graph does not.
        if "running" not in key and "tracked" not in key:
            assert torch.equal(found[key], value), key


def need_cuda():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")


@pytest.mark.cuda
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("name", SETTINGS)
def test_training_by_graphs_on_cuda_is_training_without(monkeypatch, name, parts):
    need_cuda()
    found, losses = trained("cuda", parts, SETTINGS[name])
    monkeypatch.setattr(training, "_can_be_recorded", lambda *about: False)
    wanted, without = trained("cuda", parts, SETTINGS[name])
    assert losses == pytest.approx(without, rel=1e-2)
    for key, value in wanted.items():
        error = (found[key] - value).float().norm()
        assert error <= 1e-2 * value.float().norm() + 1e-3, key


def on_cuda(problem):
    names = ("start", "target", "images", "labels", "lr")
    moved = {name: getattr(problem, name).to("cuda") for name in names}
    return replace(problem, network=problem.network.to("cuda"), **moved)


@pytest.mark.cuda
@pytest.mark.parametrize("snapshots", ["all", "sqrt", "offload"])
def test_graphs_on_cuda_give_the_gradient_of_eager_steps(snapshots):
    need_cuda()
    problem = make_problem(build("ConvNet", width=16), 3 * len(ALL_FAMILIES))
    problem = on_cuda(problem)
    method = Adjoint(snapshots)
    for _ in range(3):
        with full_float32():
            wanted = solve(problem, Eager(forward_over_reverse), snapshots=snapshots)
        check_same(problem.solve(method), wanted, 1e-4)
        problem = replace(problem, images=problem.images + 0.1, start=problem.start * 0.99)
