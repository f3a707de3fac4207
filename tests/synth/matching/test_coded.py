"""The gradient in the numbers of a coding is exact, whatever method takes it."""

import pytest
import torch

from synth import Adjoint, Unrolled
from synth.coding import CODINGS
from synth.formation import decode_images
from synth.matching.mean_gradient import MatchProblem, mean_gradient
from synth.matching.segments import Segment, SegmentChoice
from synth.matching.state import initial_state
from synth.parameters import parameter_vector
from tests.synth.cases import build, relative

SHAPE = (20, 1, 16, 16)


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("name", CODINGS)
def test_gradient_through_decoding_equals_the_unrolled_one(name, factor):
    generator = torch.Generator().manual_seed(0)
    coding, network = CODINGS[name](SHAPE), build("ConvNet", width=4)
    start = parameter_vector(network)
    target = start + 0.02 * torch.randn(len(start), generator=generator)
    count = 20 * factor**2
    batches = list(torch.randint(count, (4, 10), generator=generator))
    problem = MatchProblem(
        network,
        choose=lambda step: [SegmentChoice(0, 0, batches, None)],
        read=lambda choice: Segment(start, target),
        decode=lambda parameters: decode_images((coding.decode(parameters) - 0.3) / 0.4, factor),
    )
    labels = torch.randn(count, 10, generator=generator)
    state = initial_state(coding.start(torch.rand(SHAPE, generator=generator)), labels, 0.01)
    exact = mean_gradient(state.now, problem.choose(0), problem, Adjoint())
    plain = mean_gradient(state.now, problem.choose(0), problem, Unrolled())
    assert exact.distance == pytest.approx(plain.distance, rel=1e-5)
    assert exact.gradients[0].shape == state.images.shape
    assert float(plain.gradients[0].norm()) > 0
    for mine, others in zip(exact.gradients, plain.gradients, strict=True):
        assert relative(mine, others) < 1e-5
