"""Experts of several networks in one matching: whose gradient it is, and whose learning rate."""

from dataclasses import replace

import pytest
import torch

from synth import Adjoint, Unrolled, matching_gradient
from synth.matching.mean_gradient import MatchProblem, mean_gradient
from synth.matching.outer_loop import MatchSettings, match_trajectories
from synth.matching.segments import Segment, SegmentChoice, SegmentSampler, StartWindow
from synth.matching.start import class_labels, starting_labels
from synth.matching.state import initial_state, pack_state, unpack_state
from synth.networks import MLP, ConvNet
from tests.synth.cases import near_snapshots, seeded

CLASSES, SIZE, RATES = 3, (8, 8), (0.05, 0.2)


@pytest.fixture(scope="module")
def networks():
    return seeded(
        lambda: ConvNet(1, SIZE, CLASSES, width=4, depth=2),
        lambda: MLP(1, SIZE, CLASSES, depth=1, width=8),
    )


@pytest.fixture(scope="module")
def problem(networks):
    starts, targets = near_snapshots(networks)
    samplers = [
        SegmentSampler(2, StartWindow(0, 0), 3, first_expert=2 * i, network=i) for i in range(2)
    ]

    def choose(step: int) -> list[SegmentChoice]:
        generators = [torch.Generator().manual_seed(10 * step + i) for i in range(2)]
        return [s.draw(CLASSES, SIZE, g) for s, g in zip(samplers, generators, strict=True)]

    def read(choice: SegmentChoice) -> Segment:
        i = choice.network
        assert choice.expert in {2 * i, 2 * i + 1}
        return Segment(starts[i], targets[i], networks[i])

    return MatchProblem(networks[0], choose, read)


@pytest.fixture(scope="module")
def state():
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(CLASSES, 1, *SIZE, generator=generator, dtype=torch.float64)
    labels = starting_labels(class_labels(CLASSES, 1), CLASSES, 2.0).double()
    state = initial_state(images, labels, RATES[0], networks=2)
    now = replace(state.now, log_student_lr=torch.tensor(RATES, dtype=torch.float64).log())
    return replace(state, now=now, good=now)


def test_the_gradient_is_the_mean_of_those_of_each_network(networks, problem, state):
    choices = problem.choose(0)
    found = mean_gradient(state.now, choices, problem, Adjoint())
    alone = [
        matching_gradient(
            network,
            *(problem.read(choice).start, problem.read(choice).target),
            state.images,
            state.labels,
            torch.tensor(rate),
            choice.batches,
            Unrolled(),
        )
        for network, choice, rate in zip(networks, choices, RATES, strict=True)
    ]
    images = (alone[0].images + alone[1].images) / 2
    torch.testing.assert_close(found.gradients[0], images, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(found.gradients[1], (alone[0].labels + alone[1].labels) / 2)
    torch.testing.assert_close(found.gradients[2], torch.stack([part.lr for part in alone]) / 2)
    assert found.distance == pytest.approx(float(alone[0].distance + alone[1].distance) / 2)


def test_each_network_learns_a_rate_of_its_own(problem, state):
    loop = match_trajectories(
        state, 3, problem, gradient=Adjoint(), settings=MatchSettings(student_lr_lr=0.1)
    )
    last, step = list(loop)[-1]
    moved = last.now.log_student_lr.exp() / torch.tensor(RATES)
    assert moved.shape == (2,)
    assert float(moved[0]) != pytest.approx(float(moved[1]))
    assert step.student_lr == pytest.approx(float(last.now.log_student_lr.exp()[0]))
    again = unpack_state(*pack_state(last), device=torch.device("cpu"))
    assert torch.equal(again.now.log_student_lr, last.now.log_student_lr)
