"""What the outer loop can be asked to do: averages, schedules, decoded images, given labels."""

from itertools import pairwise

import pytest
import torch

from synth import Adjoint
from synth.formation import decode_images
from synth.matching.mean_gradient import MatchProblem
from synth.matching.outer_loop import MatchSettings, match_trajectories
from synth.matching.segments import Segment, SegmentChoice, SegmentSampler, StartWindow
from synth.matching.start import class_labels, starting_labels
from synth.matching.state import initial_state
from synth.networks import MLP
from synth.parameters import parameter_vector
from synth.updates import Moments, Momentum, adam

CLASSES, SIZE = 3, (4, 4)


def make_problem(**options) -> MatchProblem:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MLP(1, SIZE, CLASSES, depth=1, width=8)
    start = parameter_vector(network)
    generator = torch.Generator().manual_seed(3)
    target = start + 0.05 * torch.randn(len(start), generator=generator)
    count = options.pop("count", 3)

    def choose(index: int) -> list[SegmentChoice]:
        generator = torch.Generator().manual_seed(index)
        return [SegmentSampler(1, StartWindow(0, 0), 3).draw(count, SIZE, generator)]

    return MatchProblem(network, choose, lambda choice: Segment(start, target), **options)


def beginning(labels: int = 1):
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(CLASSES, 1, *SIZE, generator=generator)
    hard = class_labels(CLASSES, labels)
    return initial_state(images, starting_labels(hard, CLASSES, 2.0), 0.05)


def run(problem, steps=4, start=None, **settings):
    found = match_trajectories(
        start or beginning(),
        steps,
        problem,
        gradient=Adjoint(),
        settings=MatchSettings(**settings),
    )
    return [state for state, _ in found]


def test_images_average_follows_its_recursion():
    plain = run(make_problem())
    averaged = run(make_problem(), image_average=0.9)
    wanted = beginning().images
    for step, state in zip(plain, averaged, strict=True):
        assert torch.equal(step.now.images, state.now.images)
        wanted = 0.9 * wanted + 0.1 * state.now.images
        torch.testing.assert_close(state.images, wanted)


def test_images_are_their_own_average_without_one():
    state = run(make_problem())[-1]
    assert torch.equal(state.images, state.now.images)


def test_cosine_schedule_ends_with_smaller_steps():
    def lengths(**settings):
        states = [beginning(), *run(make_problem(), 8, **settings)]
        pairs = pairwise(states)
        return [float((b.images - a.images).norm()) for a, b in pairs]

    flat, cosine = lengths(), lengths(cosine=True)
    assert cosine[0] == pytest.approx(flat[0])
    assert cosine[-1] < 0.2 * flat[-1]


def test_a_decoded_set_is_matched_through_its_decoder():
    problem = make_problem(count=12, decode=lambda images: decode_images(images, 2))
    state = run(problem, 2, beginning(labels=4))[-1]
    assert state.images.shape == (3, 1, *SIZE)
    assert state.labels.shape == (12, CLASSES)
    assert not torch.equal(state.images, beginning().images)


def test_gradient_of_a_decoded_set_agrees_with_finite_differences():
    problem = make_problem(count=12, decode=lambda images: decode_images(images, 2))
    start = beginning(labels=4)
    settings = {"image_rule": Momentum(0.0), "image_lr": 1.0, "label_lr": 0.0, "student_lr_lr": 0.0}
    stepped = run(problem, 1, start, **settings)[0]
    gradient = start.images - stepped.images

    def distance(images):
        state = initial_state(images, start.labels, 0.05)
        loop = match_trajectories(
            state, 1, problem, gradient=Adjoint(), settings=MatchSettings(**settings)
        )
        return next(iter(loop))[1].distance

    place = int(gradient.abs().argmax())
    nudge = torch.zeros(gradient.numel())
    nudge[place] = 0.02
    nudge = nudge.view_as(gradient)
    slope = (distance(start.images + nudge) - distance(start.images - nudge)) / 0.04
    assert slope == pytest.approx(float(gradient.flatten()[place]), rel=0.05)


def test_labels_taken_anew_replace_those_of_the_set():
    seen = []

    def label(segment, images):
        seen.append(images)
        return torch.full((3, CLASSES), float(len(seen)))

    state = run(make_problem(label=label), 3, label_lr=0.0)[-1]
    assert len(seen) == 3
    assert (state.labels == 3).all()


def test_momentum_equals_sgd_of_torch():
    value = torch.randn(4, generator=torch.Generator().manual_seed(0))
    parameter = torch.nn.Parameter(value.clone())
    sgd = torch.optim.SGD([parameter], lr=0.1, momentum=0.5)
    moments = Moments.zeros(value)
    for count in (1, 2, 3):
        gradient = torch.full((4,), float(count))
        parameter.grad = gradient.clone()
        sgd.step()
        value, moments = Momentum(0.5)(value, gradient, moments, 0.1, count)
    torch.testing.assert_close(value, parameter.detach())


def test_adam_steps_do_not_depend_on_the_scale_of_the_gradient():
    value, gradient = torch.zeros(3), torch.tensor([1.0, -2.0, 3.0])
    small, _ = adam(value, 1e-6 * gradient, Moments.zeros(value), 0.1, 1)
    large, _ = adam(value, 1e6 * gradient, Moments.zeros(value), 0.1, 1)
    torch.testing.assert_close(small, large, rtol=1e-4, atol=0)


def test_start_window_grows_to_its_end():
    window = StartWindow(1, 9, grow_from=3, grow_steps=60)
    assert [window.last_at(step) for step in (0, 10, 30, 59, 60, 1000)] == [3, 4, 6, 8, 9, 9]
    assert StartWindow(0, 4).last_at(0) == 4


def test_sampler_draws_start_epochs_of_its_window_only():
    sampler = SegmentSampler(2, StartWindow(2, 5, grow_from=3, grow_steps=10), 1)
    drawn = {
        step: {
            sampler.draw(3, SIZE, torch.Generator().manual_seed(seed), step).start_epoch
            for seed in range(60)
        }
        for step in (0, 10)
    }
    assert drawn == {0: {2, 3}, 10: {2, 3, 4, 5}}


@pytest.mark.parametrize("window", [(-1, 3), (4, 3), (2, 5, 1), (0, 3, 4)])
def test_start_window_refuses_an_order_that_does_not_rise(window):
    with pytest.raises(ValueError, match="must rise"):
        StartWindow(*window)
