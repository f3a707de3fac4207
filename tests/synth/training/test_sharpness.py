"""Sharpness-aware gradients against their formula, by hand."""

import pytest
import torch

from synth.networks import MLP
from synth.training.batches import Batch
from synth.training.loop import TrainSettings, train
from synth.training.sharpness import Sharpness, sharpness_aware_backward


def quadratic(parameter):
    weights = torch.tensor([1.0, 4.0])
    return lambda: (weights * parameter.square()).sum() / 2


def test_gradient_equals_the_formula_on_a_quadratic():
    start = torch.tensor([1.0, -0.5])
    parameter = torch.nn.Parameter(start.clone())
    loss = sharpness_aware_backward([parameter], quadratic(parameter), Sharpness(0.1, 0.3))
    weights = torch.tensor([1.0, 4.0])
    clean = weights * start
    moved = start + 0.1 * start.square() * clean / (start * clean).norm()
    perturbed = weights * moved
    along = (clean @ perturbed) / (perturbed @ perturbed) * perturbed
    torch.testing.assert_close(parameter.grad, perturbed - 0.3 * (clean - along))
    torch.testing.assert_close(parameter.detach(), start)
    assert float(loss) == pytest.approx(float((weights * start.square()).sum() / 2))


def test_orthogonal_part_does_nothing_where_there_is_none():
    parameter = torch.nn.Parameter(torch.tensor([2.0]))
    loss = lambda: parameter.square().sum()  # noqa: E731
    sharpness_aware_backward([parameter], loss, Sharpness(0.1, 1.0))
    one = parameter.grad.clone()
    sharpness_aware_backward([parameter], loss, Sharpness(0.1, 0.0))
    torch.testing.assert_close(one, parameter.grad)


def test_training_takes_sharpness_into_account():
    generator = torch.Generator().manual_seed(0)
    batch = Batch(
        torch.randn(8, 1, 4, 4, generator=generator), 5 * torch.eye(2)[torch.arange(8) % 2]
    )

    def trained(sharpness):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = MLP(1, (4, 4), 2, depth=1, width=8)
        settings = TrainSettings(20, 0.1, weight_decay=0.0, sharpness=sharpness)
        losses = [epoch.loss for epoch in train(network, lambda _: [batch], settings)]
        return losses, torch.cat([p.detach().flatten() for p in network.parameters()])

    plain, sharp = trained(None), trained(Sharpness(0.05, 0.3))
    assert sharp[0][-1] < 0.5 * sharp[0][0]
    assert not torch.equal(plain[1], sharp[1])


@pytest.mark.parametrize(("rho", "alpha"), [(0.0, 0.3), (-1.0, 0.3), (0.1, -0.1)])
def test_sharpness_refuses_what_has_no_meaning(rho, alpha):
    with pytest.raises(ValueError, match="need rho > 0"):
        Sharpness(rho, alpha)
