"""The benchmark of refinement compares features as it says."""

import pytest
import torch

from tests.distill.sets.cases import make_set


@pytest.fixture
def refinement(benchmark_module):
    return benchmark_module("refinement")


def test_features_are_compared_image_by_image(refinement):
    content = make_set(classes=5, ipc=4)
    pixels = content.preprocess.inverse(content.images)
    error = refinement.feature_error(content, 2, 0)(pixels, 1)
    assert float(error(pixels)) == pytest.approx(0, abs=1e-10)
    # Two draws differ by twice their variance.
    assert float(error(pixels.flip(0))) == pytest.approx(2, rel=0.3)
    near = (
        pixels + 0.01 * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
    ).requires_grad_()
    value = error(near)
    (slope,) = torch.autograd.grad(value, near)
    assert 0 < float(value.detach()) < 0.5
    assert float(slope.abs().max()) > 0


def test_networks_are_those_of_the_seed(refinement):
    content = make_set(classes=5, ipc=4)
    pixels = content.preprocess.inverse(content.images)
    first, again, other = (
        float(refinement.feature_error(content, 2, seed)(pixels, 1)(pixels.flip(0)))
        for seed in (0, 0, 1)
    )
    assert first == again != other
