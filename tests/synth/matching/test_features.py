"""Feature matching along expert trajectories, against everything in one graph."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from synth import Adjoint, Unrolled, matching_gradient
from synth.augment import Augmentation
from synth.errors import DivergedError
from synth.formation import decode_images
from synth.matching.features import FeatureSampler, FeatureTerm
from synth.matching.mean_gradient import MatchProblem, mean_gradient
from synth.matching.outer_loop import MatchSettings, match_trajectories
from synth.matching.rate import Rate
from synth.matching.segments import Segment, SegmentSampler, StartWindow
from synth.matching.start import class_labels
from synth.matching.state import initial_state
from synth.matching.view_labels import ViewLabels
from synth.networks import MLP, ConvNet, ResNet18
from synth.parameters import parameter_vector
from tests.synth.cases import near_snapshots, seeded, slow_features

CLASSES, SIZE = 3, (8, 8)
FAMILIES = Augmentation(("crop", "colour", "scale"), one_per_batch=True)


@pytest.fixture(scope="module")
def networks():
    return seeded(
        lambda: ConvNet(1, SIZE, CLASSES, width=4, depth=2),
        lambda: MLP(1, SIZE, CLASSES, depth=2, width=8),
        lambda: ResNet18(1, SIZE, CLASSES, width=2, norm="group"),
    )


@pytest.fixture(scope="module")
def real():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(24, 1, *SIZE, generator=generator, dtype=torch.float64)


@pytest.fixture
def make(networks, real):
    """A problem of two images a class, with real images of classes 0, 1, 2, 0, ... ."""
    starts, targets = near_snapshots(networks)

    def problem(count=6, segments=1, augmentation=FAMILIES, **changes):
        own = class_labels(CLASSES, count // CLASSES)
        sampler = FeatureSampler(
            [torch.arange(label, 24, CLASSES) for label in range(CLASSES)],
            [torch.nonzero(own == label).flatten() for label in range(CLASSES)],
            5,
            augmentation,
        )

        def choose(step):
            found = []
            for place in range(segments):
                network = (step * segments + place) % len(networks)
                generator = torch.Generator().manual_seed(10 * step + place)
                inner = SegmentSampler(1, StartWindow(0, 0), 3, 4, augmentation, network=network)
                choice = inner.draw(count, SIZE, generator)
                found.append(replace(choice, features=sampler.draw(SIZE, generator)))
            return found

        def read(choice):
            i = choice.network
            return Segment(starts[i], targets[i], networks[i])

        words = {"features": FeatureTerm(lambda places: real[places], alone=True), **changes}
        return MatchProblem(networks[0], choose, read, **words)

    return problem


@pytest.fixture
def state():
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(6, 1, *SIZE, generator=generator, dtype=torch.float64)
    labels = torch.randn(6, CLASSES, generator=generator, dtype=torch.float64)
    return initial_state(images, labels, 0.05)


@pytest.mark.parametrize("network", range(3))
@pytest.mark.parametrize("augmentation", [None, FAMILIES], ids=["plain", "views"])
def test_features_alone_equal_one_graph_of_everything(network, augmentation, make, state, real):
    problem = make(augmentation=augmentation)
    choices = problem.choose(network)
    found = mean_gradient(state.now, choices, problem, Adjoint())
    distance, entropy, slope = slow_features(
        problem.read(choices[0]), choices[0].features, state.images, state.labels, real
    )
    assert found.distance is None
    assert found.features == pytest.approx(distance, rel=1e-9)
    assert found.entropy == pytest.approx(entropy, rel=1e-9)
    torch.testing.assert_close(found.gradients[0], slope, rtol=1e-7, atol=1e-10)
    assert float(slope.abs().max()) > 1e-3
    assert not found.gradients[1].any()
    assert not found.gradients[2].any()


@pytest.mark.parametrize("later_weight", [0.0, 0.3])
def test_both_descend_the_distance_and_the_weighted_features(later_weight, make, state, real):
    term = FeatureTerm(lambda places: real[places], weight=0.2, later_weight=later_weight)
    problem = make(segments=3, features=term)
    choices = problem.choose(0)
    state = initial_state(state.images, state.labels, [0.05, 0.1, 0.2], networks=3)
    found = mean_gradient(state.now, choices, problem, Adjoint())
    images, features, distances, entropies = 0.0, 0.0, 0.0, 0.0
    for choice, rate in zip(choices, (0.05, 0.1, 0.2), strict=True):
        segment = problem.read(choice)
        inner = matching_gradient(
            segment.network,
            *(segment.start, segment.target, state.images, state.labels, torch.tensor(rate)),
            choice.batches,
            Unrolled(),
            choice.views,
        )
        distance, entropy, slope = slow_features(
            *(segment, choice.features, state.images, state.labels, real), later_weight=later_weight
        )
        images = images + (inner.images + 0.2 * slope) / 3
        distances += float(inner.distance) / 3
        features += distance / 3
        entropies += entropy / 3
    torch.testing.assert_close(found.gradients[0], images, rtol=1e-6, atol=1e-9)
    assert found.distance == pytest.approx(distances, rel=1e-6)
    assert found.features == pytest.approx(features, rel=1e-6)
    assert found.entropy == (pytest.approx(entropies, rel=1e-6) if later_weight else None)
    assert all(part.any() for part in found.gradients)


def test_the_gradient_goes_through_formation(make, state, real):
    problem = make(count=24, decode=lambda stored: decode_images(stored, 2))
    labels = torch.randn(24, CLASSES, generator=torch.Generator().manual_seed(7)).double()
    state = initial_state(state.images, labels, 0.05)
    choices = problem.choose(0)
    found = mean_gradient(state.now, choices, problem, Adjoint())
    stored = state.images.requires_grad_()
    seen = decode_images(stored, 2)
    _, _, slope = slow_features(problem.read(choices[0]), choices[0].features, seen, labels, real)
    (wanted,) = torch.autograd.grad(seen, stored, slope)
    torch.testing.assert_close(found.gradients[0], wanted, rtol=1e-7, atol=1e-10)


def test_teachers_label_the_very_views_whose_cross_entropy_is_taken(make, state, real):
    def teacher(views):
        return 3 * views.flatten(1)[:, 20 : 20 + CLASSES]

    votes = ViewLabels(teacher, class_labels(CLASSES, 2), temperature=2.0)
    problem = make(view_labels=votes)
    (choice,) = problem.choose(1)
    found = mean_gradient(state.now, [choice], problem, Adjoint())
    given = []
    for label, batch in enumerate(choice.features.batches):
        (view,) = choice.features.views[label : label + 1]
        given.append(torch.cat([teacher(view.apply(x[None])) for x in state.images[batch]]))
    _, entropy, slope = slow_features(
        problem.read(choice), choice.features, state.images, given, real, temperature=2.0
    )
    assert found.entropy == pytest.approx(entropy, rel=1e-9)
    torch.testing.assert_close(found.gradients[0], slope, rtol=1e-7, atol=1e-10)


def test_real_images_have_a_distance_of_nearly_none(make, state, real):
    """The classes' own real images, all of them, have the mean features of their class."""
    problem = make(count=24, augmentation=None, features=None)
    sampler = FeatureSampler(
        [torch.arange(label, 24, CLASSES) for label in range(CLASSES)],
        list(torch.arange(24).split(8)),
        100,
    )
    term = FeatureTerm(lambda places: real[places], later_weight=0.0, alone=True)
    choice = replace(problem.choose(0)[0], features=sampler.draw(SIZE, torch.Generator()))
    problem = replace(problem, features=term)
    own = torch.cat([real[torch.arange(label, 24, CLASSES)] for label in range(CLASSES)])
    state = initial_state(own, torch.zeros(24, CLASSES).double(), 0.05)
    found = mean_gradient(state.now, [choice], problem, Adjoint())
    assert found.features == pytest.approx(0, abs=1e-12)
    same = initial_state(own.mean(0).expand_as(own), torch.zeros(24, CLASSES).double(), 0.05)
    assert mean_gradient(same.now, [choice], problem, Adjoint()).features > 0.5


def test_steps_bring_features_nearer_and_leave_labels_and_rate(make, state, real):
    problem = make(augmentation=None)
    steps = list(
        match_trajectories(
            state, 30, problem, gradient=Adjoint(), settings=MatchSettings(image_lr=0.05)
        )
    )
    first, last = steps[0][1], steps[-3][1]
    assert first.features is not None
    assert last.features is not None
    assert last.features < 0.5 * first.features
    assert last.entropy < first.entropy
    assert all(step.applied and step.distance is None for _, step in steps)
    assert torch.equal(steps[-1][0].labels, state.labels)
    assert torch.equal(steps[-1][0].student_lr, state.student_lr)


def test_bits_are_descended_beside_features_alone(make, state):
    def bits(stored):
        return 100 * stored.abs().sum()

    budget = 0.5 * float(bits(state.images))
    problem = make(rate=Rate(bits, budget))
    *_, (last, step) = match_trajectories(
        state, 40, problem, gradient=Adjoint(), settings=MatchSettings(image_lr=0.05)
    )
    assert step.bits < 1.2 * budget
    assert float(last.now.multiplier) > 0


def test_features_that_are_not_finite_are_refused(make, state):
    problem = make(
        features=FeatureTerm(lambda places: torch.full((5, 1, *SIZE), torch.nan).double())
    )
    problem = replace(problem, features=replace(problem.features, alone=True))
    settings = MatchSettings(patience=2)
    said = r"features was nan after 2 refused updates in a row; lower match\.image_lr$"
    with pytest.raises(DivergedError, match=said):
        list(match_trajectories(state, 5, problem, gradient=Adjoint(), settings=settings))
    refused = match_trajectories(state, 2, problem, gradient=Adjoint(), settings=MatchSettings())
    for after, step in refused:
        assert not step.applied
        assert torch.equal(after.now.log_student_lr, state.now.log_student_lr)


def test_a_choice_without_images_and_a_network_without_a_head_are_refused(make, state):
    problem = make()
    choice = replace(problem.choose(0)[0], features=None)
    with pytest.raises(ValueError, match="names no images whose features"):
        mean_gradient(state.now, [choice], problem, Adjoint())
    convolution = nn.Sequential(nn.Conv2d(1, CLASSES, 8), nn.Flatten()).double()
    vector = parameter_vector(convolution)
    problem = replace(problem, read=lambda choice: Segment(vector, vector + 1, convolution))
    with pytest.raises(ValueError, match="no linear layer to take features from"):
        mean_gradient(state.now, problem.choose(0), problem, Adjoint())
