"""ZCA whitening: against kornia, against its definition, streamed, and undone."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from synth.whitening import Whitening, fit_whitening

SHAPE = (3, 4, 5)


def correlated(n: int, shape=SHAPE, seed: int = 0) -> torch.Tensor:
    """Images [n, *shape] whose pixels depend on each other, around 0.5 (float32)."""
    generator = torch.Generator().manual_seed(seed)
    d = int(np.prod(shape))
    mixing = torch.randn(d, d, generator=generator) / d**0.5
    return (torch.randn(n, d, generator=generator) @ mixing * 0.3 + 0.5).reshape(n, *shape)


def by_definition(images: torch.Tensor, eps: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, transform and inverse from the singular values of the centred data."""
    flat = images.flatten(1).double().numpy()
    mean = flat.mean(0)
    _, singular, rows = np.linalg.svd(flat - mean, full_matrices=True)
    variance = np.zeros(flat.shape[1])
    variance[: len(singular)] = singular**2 / (len(flat) - 1)
    root = np.sqrt(variance + eps)
    return mean, rows.T @ np.diag(1 / root) @ rows, rows.T @ np.diag(root) @ rows


@pytest.mark.parametrize("eps", [0.1, 1e-3])
def test_whitening_equals_kornia(eps):
    kornia = pytest.importorskip("kornia")
    images = correlated(200)
    oracle = kornia.enhance.ZCAWhitening(eps=eps, compute_inv=True).fit(images.double())
    whitening = fit_whitening([images], eps)
    tight = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(whitening.mean.double(), oracle.mean_vector[0], **tight)
    torch.testing.assert_close(whitening.transform.double(), oracle.transform_matrix, **tight)
    torch.testing.assert_close(whitening.inverse.double(), oracle.transform_inv, **tight)
    white = oracle(images.double())
    torch.testing.assert_close(whitening.apply(images).double(), white, rtol=1e-4, atol=1e-4)
    back = whitening.invert(white.float())
    torch.testing.assert_close(back.double(), oracle.inverse_transform(white), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n", [2, 30, 200], ids=["two images", "fewer than d", "more than d"])
def test_whitening_follows_its_definition(n):
    images = correlated(n)
    whitening = fit_whitening([images], eps=0.1)
    for got, wanted in zip(
        (whitening.mean, whitening.transform, whitening.inverse),
        by_definition(images, 0.1),
        strict=True,
    ):
        assert got.dtype == torch.float32
        np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-5, atol=1e-6)


def test_whitened_images_have_identity_covariance_for_a_small_eps():
    images = correlated(400, shape=(1, 3, 4))
    white = fit_whitening([images], eps=1e-8).apply(images.double()).flatten(1)
    torch.testing.assert_close(white.mean(0), torch.zeros(12).double(), rtol=0, atol=1e-4)
    torch.testing.assert_close(torch.cov(white.T), torch.eye(12).double(), rtol=0, atol=1e-3)


@settings(max_examples=20, deadline=None)
@given(
    st.integers(2, 12),
    st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)),
    st.integers(0, 1000),
    st.floats(1e-2, 1.0),
)
def test_invert_undoes_apply(n, shape, seed, eps):
    images = correlated(n, shape, seed)
    whitening = fit_whitening([images], eps)
    white = whitening.apply(images)
    assert white.shape == images.shape
    torch.testing.assert_close(whitening.invert(white), images, rtol=1e-4, atol=1e-4)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=6))
def test_batches_give_what_one_batch_gives(sizes):
    images = correlated(sum(sizes) + 2)
    whole = fit_whitening([images])
    parts = fit_whitening(iter(images.split([*sizes, 2])))
    torch.testing.assert_close(parts.mean, whole.mean, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(parts.transform, whole.transform, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(parts.inverse, whole.inverse, rtol=1e-5, atol=1e-6)


def test_small_variance_on_a_large_mean_survives_streaming():
    images = correlated(60).double()
    far = fit_whitening((images + 1e6).split(7), eps=1e-2)
    near = fit_whitening([images], eps=1e-2)
    torch.testing.assert_close(far.transform, near.transform, rtol=1e-5, atol=1e-5)


def test_constant_pixels_are_only_shifted_and_scaled():
    images = correlated(50)
    images[:, 0, 0, 0] = 0.25
    white = fit_whitening([images], eps=0.1).apply(images)
    assert white.isfinite().all()
    torch.testing.assert_close(white[:, 0, 0, 0], torch.zeros(50), rtol=0, atol=1e-5)
    still = fit_whitening([torch.full((4, *SHAPE), 0.7)], eps=0.1)
    torch.testing.assert_close(still.transform, torch.eye(60) / 0.1**0.5)


def test_apply_and_invert_are_differentiable():
    whitening = fit_whitening([correlated(20, shape=(1, 2, 3))])
    images = correlated(2, shape=(1, 2, 3)).double().requires_grad_()
    assert torch.autograd.gradcheck(whitening.apply, images)
    assert torch.autograd.gradcheck(whitening.invert, images)


def test_half_precision_images_are_whitened_in_float32():
    images = correlated(20).half()
    whitening = fit_whitening([images])
    white = whitening.apply(images)
    assert white.dtype == torch.float16
    assert torch.equal(white, whitening.apply(images.float()).half())


def test_whitening_moves_to_a_device():
    whitening = fit_whitening([correlated(20)]).to("meta")
    images = torch.empty(2, *SHAPE, device="meta")
    assert whitening.apply(images).device.type == "meta"
    assert whitening.invert(images).shape == images.shape


def test_fitting_refuses_images_whose_matrix_would_be_too_large():
    with pytest.raises(ValueError, match=r"150,528 values.* 181,\d{3},\d{3},\d{3} bytes.*shrink"):
        fit_whitening([torch.zeros(1, 3, 224, 224)])
    with pytest.raises(ValueError, match=r"limited to 59 values"):
        fit_whitening([correlated(3)], largest=59)
    assert fit_whitening([correlated(3)], largest=60).shape == SHAPE


@pytest.mark.parametrize("batches", [[], [correlated(1)], [correlated(1), correlated(0)]])
def test_fitting_refuses_fewer_than_two_images(batches):
    with pytest.raises(ValueError, match="at least 2"):
        fit_whitening(batches)


def test_fitting_refuses_what_it_cannot_use():
    with pytest.raises(ValueError, match="eps is 0"):
        fit_whitening([correlated(3)], eps=0)
    with pytest.raises(ValueError, match="one shape"):
        fit_whitening([correlated(3), correlated(3, shape=(1, 4, 5))])
    with pytest.raises(ValueError, match="m, c, h, w"):
        fit_whitening([torch.zeros(3, 8)])
    with pytest.raises(TypeError, match=r"uint8.*divide by 255"):
        fit_whitening([torch.zeros(3, *SHAPE, dtype=torch.uint8)])
    broken = correlated(3)
    broken[1, 0, 2, 2] = torch.nan
    with pytest.raises(ValueError, match="nan or infinite"):
        fit_whitening([broken])


def test_whitening_refuses_other_shapes():
    whitening = fit_whitening([correlated(3)])
    with pytest.raises(ValueError, match="fitted on"):
        whitening.apply(torch.zeros(2, 3, 5, 4))
    with pytest.raises(ValueError, match="fitted on"):
        whitening.invert(torch.zeros(*SHAPE))
    with pytest.raises(TypeError, match="floats"):
        whitening.apply(torch.zeros(2, *SHAPE, dtype=torch.uint8))
    with pytest.raises(ValueError, match="need 60 values"):
        Whitening(torch.zeros(59), whitening.transform, whitening.inverse, SHAPE)
