"""Labels that teachers give to the views of inner steps, and the gradient through such steps."""

import math
from dataclasses import replace

import pytest
import torch
from torch.func import functional_call

from synth import Adjoint, FrozenAdjoint, MatchingGradient, StepLabels, Unrolled
from synth.augment import Augmentation
from synth.committee.vote import Committee
from synth.compiling import find_compiler
from synth.matching.directional import FormChooser, double_backward
from synth.matching.gradients import replay
from synth.matching.recorded_steps import CompiledSteps, RecordedSteps
from synth.matching.view_labels import ViewLabels
from tests.synth.cases import Tape, build, build_registered, check_same, make_problem, relative

STEPS = 6
MIXES = [(1.0, 0.0), (4.0, 0.0), (1.0, 0.3), (2.5, 0.6)]


def committee(dtype):
    """Two teachers, one of them with BatchNorm."""
    members = (build("ConvNet", depth=2, width=4, norm="batch"), build_registered("mlp"))
    frozen = tuple(member.to(dtype).eval().requires_grad_(False) for member in members)
    return Committee(frozen, torch.tensor([0.7, 0.3], dtype=dtype))


def teachers(dtype, temperature=4.0, class_share=0.0):
    """Teachers of the twelve images of `make_problem`."""
    voting = committee(dtype)

    def vote(views):
        return voting.vote(views, batch_statistics=True)

    return ViewLabels(vote, torch.arange(12) % 10, temperature, class_share)


def taught(problem, labels):
    """The problem with labels of the views of its steps."""
    given = labels.of_steps(problem.images, problem.batches, problem.views)
    return replace(problem, labels=given)


def slow_reference(problem, labels):
    """One formula through all steps, each of which asks the teachers; shares no code with synth."""
    images = problem.images.clone().requires_grad_()
    lr = problem.lr.clone().requires_grad_()
    shapes = {name: p.shape for name, p in problem.network.named_parameters()}
    current = problem.start.clone().requires_grad_()
    share, temperature = labels.class_share, labels.temperature
    for step, batch in enumerate(problem.batches):
        named, place = {}, 0
        for name, shape in shapes.items():
            named[name] = current[place : place + shape.numel()].reshape(shape)
            place += shape.numel()
        seen = problem.views[step].apply(images[batch])
        vote = labels.label(seen.detach())
        one_hot = torch.nn.functional.one_hot(labels.classes[batch], vote.shape[1]).to(vote)
        wanted = (1 - share) * (vote / temperature).softmax(1) + share * one_hot
        own = functional_call(problem.network, named, (seen,)) / temperature
        loss = -temperature * temperature * (wanted * own.log_softmax(1)).sum(1).mean()
        (slope,) = torch.autograd.grad(loss, current, create_graph=True)
        current = current - lr * slope
    left = (current - problem.target).square().sum()
    distance = left / (problem.start - problem.target).square().sum()
    found = torch.autograd.grad(distance, (images, lr))
    nothing = torch.zeros(12, 10, dtype=images.dtype)
    return MatchingGradient(distance.detach(), found[0], nothing, found[1], current.detach())


def check_equal(found, expected, tolerance):
    """As `check_same`, with labels that have no gradient."""
    assert torch.equal(found.labels, torch.zeros_like(found.labels))
    assert torch.equal(expected.labels, torch.zeros_like(expected.labels))
    ones = torch.ones_like(found.labels)
    check_same(replace(found, labels=ones), replace(expected, labels=ones), tolerance)


@pytest.mark.parametrize(("temperature", "class_share"), MIXES)
@pytest.mark.parametrize("name", ["convnet2", "mlp"])
def test_adjoint_through_voted_steps_equals_unrolled(name, temperature, class_share):
    problem = make_problem(build_registered(name), STEPS)
    problem = taught(problem, teachers(torch.float32, temperature, class_share))
    check_equal(problem.solve(Adjoint()), problem.solve(Unrolled()), 1e-5)


@pytest.mark.parametrize(("temperature", "class_share"), MIXES)
@pytest.mark.parametrize("gradient", [Adjoint(), Unrolled()], ids=["adjoint", "unrolled"])
def test_gradients_equal_a_slow_reference_that_votes_in_every_step(
    gradient, temperature, class_share
):
    problem = make_problem(build_registered("convnet2"), STEPS, dtype=torch.float64)
    labels = teachers(torch.float64, temperature, class_share)
    found = taught(problem, labels).solve(gradient)
    check_equal(found, slow_reference(problem, labels), 1e-9)


def test_frozen_adjoint_is_exact_for_one_voted_step_and_not_for_several():
    labels, double = teachers(torch.float64), torch.float64
    one = taught(make_problem(build_registered("convnet2"), 1, dtype=double), labels)
    check_equal(one.solve(FrozenAdjoint()), one.solve(Unrolled()), 1e-9)
    several = taught(make_problem(build_registered("convnet2"), STEPS, dtype=double), labels)
    frozen, exact = several.solve(FrozenAdjoint()), several.solve(Unrolled())
    assert relative(frozen.end, exact.end) <= 1e-9
    assert relative(frozen.images, exact.images) > 1e-3


@pytest.mark.parametrize("snapshots", ["sqrt", "offload"])
def test_a_replayed_step_reads_the_same_votes(snapshots):
    problem = taught(make_problem(build_registered("convnet2"), STEPS), teachers(torch.float32))
    found, wanted = problem.solve(Adjoint(snapshots)), problem.solve(Adjoint())
    for name in ("distance", "images", "lr", "end"):
        assert torch.equal(getattr(found, name), getattr(wanted, name)), name


def test_labels_of_a_set_given_to_each_step_are_those_of_the_set():
    problem = make_problem(build_registered("convnet2"), STEPS)
    given = StepLabels([problem.labels[batch] for batch in problem.batches])
    found, wanted = replace(problem, labels=given).solve(), problem.solve()
    for name in ("distance", "images", "lr", "end"):
        assert torch.equal(getattr(found, name), getattr(wanted, name)), name


def with_passes(problem, passes):
    return replay(
        problem.loop(),
        problem.start,
        problem.target,
        problem.lr,
        snapshots="all",
        damping=1.0,
        passes=passes,
    )


def both_temperatures(passes):
    """The same steps at two temperatures, one after the other, by the same passes."""
    network = build("ConvNet", width=4, depth=2)
    for temperature in (1.0, 4.0):
        problem = taught(make_problem(network, STEPS), teachers(torch.float32, temperature))
        yield with_passes(problem, passes), problem.solve(Unrolled())


def test_recorded_steps_read_the_votes_and_the_temperature_of_each_loop():
    tape = Tape()
    for found, wanted in both_temperatures(RecordedSteps(double_backward, tape, eager_runs=0)):
        check_equal(found, wanted, 1e-5)
    assert tape.replayed == 4 * STEPS


def test_compiled_steps_read_the_votes_and_the_temperature_of_each_loop():
    tape = Tape()
    for found, wanted in both_temperatures(CompiledSteps(FormChooser(), tape)):
        check_equal(found, wanted, 1e-5)
    # There and back, at each temperature: views are no part of a program.
    assert tape.recorded == 4


@pytest.mark.slow
def test_programs_of_voted_steps_give_their_gradient():
    if find_compiler() is None:
        pytest.skip("no C++ compiler on this machine")
    problem = make_problem(build("ConvNet", width=4, depth=2), STEPS)
    problem = taught(problem, teachers(torch.float32, 4.0, 0.3))
    check_equal(problem.solve(Adjoint(compiled=True)), problem.solve(Unrolled()), 1e-4)


def test_a_voted_label_has_the_shares_that_are_asked_for():
    problem = make_problem(build_registered("mlp"), 2)
    plain, mixed = (teachers(torch.float32, 2.0, share) for share in (0.0, 0.4))
    votes, labels = (
        one.of_steps(problem.images, problem.batches, problem.views) for one in (plain, mixed)
    )
    assert votes.temperature == labels.temperature == 2.0
    for batch, vote, label in zip(problem.batches, votes.logits, labels.logits, strict=True):
        one_hot = torch.nn.functional.one_hot(mixed.classes[batch], 10)
        wanted = 0.6 * (vote / 2).softmax(1) + 0.4 * one_hot
        torch.testing.assert_close((label / 2).softmax(1), wanted)


def test_the_votes_are_on_the_very_views_of_the_steps(generator):
    seen = []

    def look(views):
        seen.append(views)
        return torch.zeros(len(views), 10)

    problem = make_problem(build_registered("mlp"), 3)
    labels = ViewLabels(look, torch.zeros(12, dtype=torch.int64))
    labels.of_steps(problem.images, problem.batches, problem.views)
    for step, batch in enumerate(problem.batches):
        assert torch.equal(seen[step], problem.views[step].apply(problem.images[batch]))
    seen.clear()
    labels.of_steps(problem.images, problem.batches, None)
    assert torch.equal(seen[0], problem.images[problem.batches[0]])


def test_votes_carry_no_gradient_and_leave_the_teachers_as_they_were():
    voting = committee(torch.float32)
    before = [value.clone() for member in voting.members for value in member.state_dict().values()]
    problem = make_problem(build_registered("mlp"), 2)
    images = problem.images.clone().requires_grad_()

    def vote(views):
        return voting.members[0](views)

    labels = ViewLabels(vote, torch.arange(12) % 10, 2.0, 0.5)
    given = labels.of_steps(images, problem.batches, problem.views)
    assert not any(logits.requires_grad for logits in given.logits)
    after = [value for member in voting.members for value in member.state_dict().values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("share", [-0.1, 1.0, math.nan])
def test_a_share_that_leaves_teachers_nothing_to_say_is_refused(share):
    with pytest.raises(ValueError, match="class_share is"):
        ViewLabels(lambda views: views, torch.zeros(3, dtype=torch.int64), 1.0, share)


def test_labels_that_do_not_fit_the_steps_are_refused():
    problem = make_problem(build_registered("mlp"), 2)
    rows = torch.zeros(5, 10)
    for logits in ([rows], [rows, rows[:4]]):
        with pytest.raises(ValueError, match="need one label for each image of each step"):
            replace(problem, labels=StepLabels(logits)).solve()
    with pytest.raises(ValueError, match=r"the temperature is 0\.0; it must be above 0"):
        replace(problem, labels=StepLabels([rows, rows], 0.0)).solve()


def test_views_may_be_augmented_by_every_family_at_once(generator):
    problem = make_problem(build_registered("mlp"), 2)
    views = [Augmentation(("crop", "flip")).sample(5, (16, 16), generator) for _ in range(2)]
    problem = taught(replace(problem, views=views), teachers(torch.float32))
    check_equal(problem.solve(Adjoint()), problem.solve(Unrolled()), 1e-5)
