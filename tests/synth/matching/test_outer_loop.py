"""The outer loop: progress, going on from a stored state, and the guards."""

import math
from dataclasses import fields, is_dataclass

import pytest
import torch
from torch import nn
from torch.nn import functional

from synth import Adjoint, FrozenAdjoint, MatchingGradient
from synth.augment import Augmentation
from synth.errors import DivergedError
from synth.matching.mean_gradient import MatchProblem
from synth.matching.outer_loop import MatchSettings, match_trajectories
from synth.matching.segments import Segment, SegmentChoice, SegmentSampler, StartWindow
from synth.matching.start import class_labels, starting_labels
from synth.matching.state import initial_state
from synth.networks import MLP
from synth.parameters import load_vector, parameter_vector

CLASSES = 3
SIZE = (4, 4)


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MLP(1, SIZE, CLASSES, depth=1, width=8)


@pytest.fixture(scope="module")
def expert(network) -> list[torch.Tensor]:
    """Snapshots of a network trained on three separable heaps of noise."""
    generator = torch.Generator().manual_seed(1)
    centres = torch.randn(CLASSES, 1, *SIZE, generator=generator)
    labels = class_labels(CLASSES, 20)
    images = centres[labels] + 0.3 * torch.randn(60, 1, *SIZE, generator=generator)
    first = parameter_vector(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    snapshots = [first]
    for _ in range(4):
        for _ in range(10):
            optimizer.zero_grad()
            functional.cross_entropy(network(images), labels).backward()
            optimizer.step()
        snapshots.append(parameter_vector(network))
    network.zero_grad()
    load_vector(network, first)
    return snapshots


@pytest.fixture
def beginning(generator):
    labels = class_labels(CLASSES, 2)
    images = torch.randn(6, 1, *SIZE, generator=generator)
    return initial_state(images, starting_labels(labels, CLASSES, 2.0), 0.05)


SAMPLER = SegmentSampler(
    1, StartWindow(0, 2), 5, batch_size=4, augmentation=Augmentation(("crop",))
)


def choose(index: int) -> list[SegmentChoice]:
    """Two segments of one outer step; they depend on its index alone."""
    generator = torch.Generator().manual_seed(index)
    return [SAMPLER.draw(6, SIZE, generator) for _ in range(2)]


@pytest.fixture
def run(network, expert):
    """A function that takes outer steps and returns what each yielded."""

    def read(choice):
        return Segment(expert[choice.start_epoch], expert[choice.start_epoch + 2])

    def take(state, steps, settings=None, **changes):
        parts = {"network": network, "choose": choose, "read": read}
        gradient = changes.pop("gradient", Adjoint())
        problem = MatchProblem(**{**parts, **changes})
        settings = settings or MatchSettings()
        return list(match_trajectories(state, steps, problem, gradient=gradient, settings=settings))

    return take


def numbers(value) -> list[torch.Tensor | int]:
    """Everything in a state, flat."""
    if is_dataclass(value):
        return [x for field in fields(value) for x in numbers(getattr(value, field.name))]
    if isinstance(value, tuple):
        return [x for part in value for x in numbers(part)]
    return [value]


def check_equal(one, other) -> None:
    for a, b in zip(numbers(one), numbers(other), strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


class Scripted:
    """A gradient method that returns what it is told: (distance, gradient of every number)."""

    def __init__(self, *script: tuple[float, float]):
        self.script = list(script)

    def __call__(self, loop, start, target, lr):
        distance, slope = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        return MatchingGradient(
            torch.tensor(distance),
            torch.full_like(loop.images, slope),
            torch.full_like(loop.labels, slope),
            torch.full_like(lr, slope),
            start,
        )


def one_segment(index: int) -> list[SegmentChoice]:
    return choose(index)[:1]


@pytest.mark.parametrize("gradient", [Adjoint(), FrozenAdjoint()], ids=repr)
def test_matching_lowers_the_parameter_distance(run, beginning, gradient):
    state = initial_state(0.3 * beginning.images, beginning.labels, 0.2)
    steps = [step for _, step in run(state, 60, gradient=gradient)]
    assert [step.index for step in steps] == list(range(60))
    assert all(step.applied for step in steps)
    first = sum(step.distance for step in steps[:10]) / 10
    last = sum(step.distance for step in steps[-10:]) / 10
    assert last < 0.85 * first


def test_matching_learns_images_labels_and_lr(run, beginning):
    (state, step), *_ = run(beginning, 1)
    assert not torch.equal(state.images, beginning.images)
    assert not torch.equal(state.labels, beginning.labels)
    assert float(state.student_lr) != float(beginning.student_lr)
    assert step.student_lr == float(state.student_lr)
    assert state.step == 1


def test_matching_leaves_the_state_it_began_with(run, beginning):
    before = [x.clone() if isinstance(x, torch.Tensor) else x for x in numbers(beginning)]
    run(beginning, 3)
    check_equal(tuple(numbers(beginning)), tuple(before))


@pytest.mark.parametrize("pause", [1, 4, 9])
def test_matching_goes_on_from_a_stored_state_as_if_unbroken(run, beginning, pause):
    # The third measured distance is refused, so that a restored state is stored as well.
    script = [(0.5, 0.1), (0.5, -0.2), (9.0, 0.1), *[(0.5, 0.3)] * 9]

    def scripted(done: int):
        return {"gradient": Scripted(*script[done:]), "choose": one_segment}

    unbroken = run(beginning, 10, **scripted(0))
    stored, _ = run(beginning, pause, **scripted(0))[-1]
    resumed = run(stored, 10, **scripted(pause))
    assert len(resumed) == 10 - pause
    check_equal(resumed[-1][0], unbroken[-1][0])
    assert [step for _, step in resumed] == [step for _, step in unbroken[pause:]]


def test_matching_with_real_gradients_goes_on_bit_for_bit(run, beginning):
    unbroken = run(beginning, 8)
    stored, _ = run(beginning, 3)[-1]
    check_equal(run(stored, 8)[-1][0], unbroken[-1][0])


def test_matching_does_nothing_when_all_steps_are_taken(run, beginning):
    state, _ = run(beginning, 2)[-1]
    assert run(state, 2) == []


def test_matching_chooses_by_the_index_of_the_outer_step_only(run, beginning):
    asked = []

    def spy(*arguments, **named):
        asked.append((arguments, named))
        return choose(*arguments)

    run(beginning, 4, choose=spy)
    assert asked == [((index,), {}) for index in range(4)]


def test_matching_averages_its_segments(run, beginning):
    pair = run(beginning, 1, gradient=Scripted((0.2, 1.0), (0.6, 3.0)))[0]
    single = run(beginning, 1, gradient=Scripted((0.4, 2.0)), choose=one_segment)[0]
    assert pair[1].distance == pytest.approx(0.4)
    assert torch.equal(pair[0].now.moments[0].mean, single[0].now.moments[0].mean)


def test_matching_updates_as_adam_does(run, beginning):
    slopes = [0.3, -0.1, 0.7, 0.2, -0.5]
    settings = MatchSettings(image_lr=0.03, label_lr=0.05, student_lr_lr=0.01)
    gradient = Scripted(*[(0.5, slope) for slope in slopes])
    state, _ = run(beginning, 5, settings, gradient=gradient, choose=one_segment)[-1]
    starts = (beginning.images, beginning.labels, beginning.now.log_student_lr)
    values = [start.clone().requires_grad_() for start in starts]
    sizes = (0.03, 0.05, 0.01)
    groups = [{"params": [v], "lr": size} for v, size in zip(values, sizes, strict=True)]
    adam = torch.optim.Adam(groups, betas=(0.9, 0.999), eps=1e-12)
    for slope in slopes:
        for value in values:
            value.grad = torch.full_like(value, slope)
        values[2].grad = slope * values[2].detach().exp()
        adam.step()
    for found, expected in zip(
        (state.images, state.labels, state.now.log_student_lr), values, strict=True
    ):
        torch.testing.assert_close(found, expected.detach())


def test_matching_keeps_labels_and_lr_whose_step_is_zero(run, beginning):
    settings = MatchSettings(label_lr=0.0, student_lr_lr=0.0)
    state, _ = run(beginning, 5, settings)[-1]
    assert torch.equal(state.labels, beginning.labels)
    assert torch.equal(state.student_lr, beginning.student_lr)
    assert not torch.equal(state.images, beginning.images)


@pytest.mark.parametrize("slope", [1.0, -1.0])
def test_matching_keeps_the_lr_between_its_bounds(run, beginning, slope):
    settings = MatchSettings(student_lr_lr=1.0, smallest_student_lr=0.01, largest_student_lr=0.1)
    steps = run(beginning, 6, settings, gradient=Scripted((0.5, slope)))
    assert steps[-1][1].student_lr == pytest.approx(0.01 if slope > 0 else 0.1)


@pytest.mark.parametrize("distance", [9.0, float("nan"), float("inf")])
def test_matching_refuses_a_bad_distance_and_restores_the_last_good_state(run, beginning, distance):
    gradient = Scripted((0.5, 0.1), (0.5, 0.1), (distance, 0.1), (0.5, 0.1))
    found = run(beginning, 5, gradient=gradient, choose=one_segment)
    assert [step.applied for _, step in found] == [True, True, False, True, True]
    (good, _), (suspect, _), (restored, _), (after, _), _ = found
    # The update before the bad distance was never measured as good: it goes as well.
    assert not torch.equal(suspect.images, good.images)
    assert torch.equal(restored.images, good.images)
    assert torch.equal(restored.labels, good.labels)
    assert float(restored.student_lr) == pytest.approx(float(good.student_lr) * math.exp(-0.1))
    assert all(float(moments.mean.abs().max()) == 0 for moments in restored.now.moments)
    assert (restored.step, restored.refusals) == (3, 1)
    assert (after.step, after.refusals) == (4, 0)


@pytest.mark.parametrize("slope", [float("nan"), float("inf"), 1e30])
def test_matching_refuses_a_gradient_that_is_not_finite_or_overflows(run, beginning, slope):
    gradient = Scripted((0.5, 0.1), (0.5, slope), (0.5, 0.1))
    found = run(beginning, 3, gradient=gradient, choose=one_segment)
    assert [step.applied for _, step in found] == [True, False, True]
    for state, _ in found:
        assert all(x.isfinite().all() for x in numbers(state) if isinstance(x, torch.Tensor))


@pytest.mark.parametrize("poison", [float("nan"), 1e30], ids=["nan", "huge"])
def test_matching_survives_a_poisoned_read(run, beginning, expert, poison):
    reads = []

    def read(choice):
        reads.append(choice)
        start = expert[0]
        bad = len(reads) == 3
        return Segment(start, torch.full_like(start, poison) if bad else expert[2])

    found = run(beginning, 5, read=read, choose=one_segment)
    assert [step.applied for _, step in found] == [True, True, False, True, True]
    assert torch.equal(found[2][0].images, found[0][0].images)
    assert found[-1][0].images.isfinite().all()


def test_matching_stops_after_as_many_refusals_as_it_has_patience(run, network, beginning):
    loop = match_trajectories(
        beginning,
        100,
        MatchProblem(
            network, one_segment, lambda choice: Segment(torch.zeros(163), torch.ones(163))
        ),
        gradient=Scripted((0.5, 0.1), (3.0, 0.1)),
        settings=MatchSettings(patience=4),
    )
    taken = [next(loop)[1].applied for _ in range(4)]
    assert taken == [True, False, False, False]
    message = r"distance was 3 after 4 refused updates in a row; lower match\.image_lr"
    with pytest.raises(DivergedError, match=message) as caught:
        next(loop)
    assert caught.value.step == 4


def test_matching_lowers_the_lr_at_refusals_but_not_below_its_bound(run, beginning):
    settings = MatchSettings(patience=20, smallest_student_lr=0.04)
    found = run(beginning, 10, settings, gradient=Scripted((3.0, 0.1)))
    assert not any(step.applied for _, step in found)
    assert found[0][1].student_lr == pytest.approx(0.05 * math.exp(-0.1))
    assert found[-1][1].student_lr == pytest.approx(0.04)


@pytest.mark.parametrize("lr", [0.0, -1.0, float("nan")])
def test_initial_state_refuses_an_lr_that_is_not_above_zero(beginning, lr):
    with pytest.raises(ValueError, match=r"student learning rate is .*; it must be above 0"):
        initial_state(beginning.images, beginning.labels, lr)


def test_initial_state_is_a_copy(beginning):
    images = beginning.images.clone().requires_grad_()
    state = initial_state(images, beginning.labels, 0.05)
    assert not state.images.requires_grad
    assert state.images.data_ptr() != images.data_ptr()
    assert float(state.student_lr) == pytest.approx(0.05)


def test_segment_sampler_draws_within_its_limits(generator):
    sampler = SegmentSampler(
        3, StartWindow(0, 2), 4, batch_size=5, augmentation=Augmentation(("flip",))
    )
    choices = [sampler.draw(12, (8, 8), generator) for _ in range(100)]
    assert {choice.expert for choice in choices} == {0, 1, 2}
    assert {choice.start_epoch for choice in choices} == {0, 1, 2}
    for choice in choices:
        assert [len(batch) for batch in choice.batches] == [5] * 4
        assert [len(view.parameters[0]) for view in choice.views] == [5] * 4


def test_segment_sampler_draws_no_views_without_augmentation(generator):
    choice = SegmentSampler(1, StartWindow(0, 0), 3).draw(4, (8, 8), generator)
    assert choice.views is None
    assert [len(batch) for batch in choice.batches] == [4] * 3


def test_matching_takes_any_network(beginning):
    linear = nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES))
    start = parameter_vector(linear)
    steps = match_trajectories(
        beginning,
        2,
        MatchProblem(linear, one_segment, lambda choice: Segment(start, start + 0.1)),
        gradient=Adjoint(),
        settings=MatchSettings(),
    )
    assert all(step.applied for _, step in steps)
