"""Multi-formation: several small images in one stored image."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from synth.formation import decode_images, decode_labels, encode_images

# Factor and sides with cells of at least 2 pixels, multiples and not.
FACTORS = st.integers(1, 4)
SIDES = st.integers(8, 13)


@pytest.mark.parametrize(("h", "w"), [(28, 28), (32, 32), (9, 14)])
@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_formation_has_the_shapes_that_it_promises(factor, h, w):
    stored = encode_images(torch.rand(2 * factor**2, 3, h, w), factor)
    assert stored.shape == (2, 3, h, w)
    assert decode_images(stored, factor).shape == (2 * factor**2, 3, h, w)


def test_factor_one_changes_nothing(generator):
    images = torch.randn(3, 2, 5, 7, generator=generator)
    assert torch.equal(decode_images(images, 1), images)
    assert torch.equal(encode_images(images, 1), images)
    assert torch.equal(decode_labels(torch.arange(3), 1), torch.arange(3))


def test_encode_gives_a_tensor_of_its_own():
    images = torch.zeros(4, 1, 4, 4)
    for factor in (1, 2):
        encode_images(images, factor).add_(1)
    assert not images.any()


@settings(max_examples=25, deadline=None)
@given(FACTORS, SIDES, SIDES, st.integers(1, 3), st.integers(0, 1000))
def test_constant_images_survive_encode_and_decode(factor, h, w, n, seed):
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(n * factor**2, 2, 1, 1, generator=generator, dtype=torch.float64)
    images = values.expand(-1, -1, h, w)
    torch.testing.assert_close(
        decode_images(encode_images(images, factor), factor), images, rtol=0, atol=1e-14
    )


@pytest.mark.parametrize(("h", "w"), [(8, 8), (9, 11)])
def test_each_cell_becomes_the_image_of_its_place(h, w):
    # Sides of 9 and 11 with factor 2 cut into 5 + 4 rows and 6 + 5 columns.
    rows, columns = (h + 1) // 2, (w + 1) // 2
    stored = torch.zeros(2, 1, h, w)
    for image in range(2):
        stored[image, :, :rows, :columns] = 4 * image
        stored[image, :, :rows, columns:] = 4 * image + 1
        stored[image, :, rows:, :columns] = 4 * image + 2
        stored[image, :, rows:, columns:] = 4 * image + 3
    places = torch.arange(8.0).reshape(8, 1, 1, 1).expand(8, 1, h, w)
    torch.testing.assert_close(decode_images(stored, 2), places)
    torch.testing.assert_close(encode_images(places, 2), stored)


def test_every_stored_pixel_is_used():
    stored = torch.ones(1, 1, 11, 8, requires_grad=True)
    decode_images(stored, 3).sum().backward()
    assert (stored.grad > 0).all()


def test_decode_of_a_multiple_is_bilinear_upsampling_of_the_quarters(generator):
    stored = torch.randn(2, 3, 8, 6, generator=generator)
    quarter = interpolate(stored[1:, :, 4:, :3], (8, 6), mode="bilinear")
    assert torch.equal(decode_images(stored, 2)[4 + 2], quarter[0])


def test_encode_averages_and_does_not_skip_pixels():
    # One bright column in four lies outside the two that plain bilinear sampling reads.
    columns = torch.zeros(16, 1, 16, 16)
    columns[..., ::4] = 1
    interior = encode_images(columns, 4)[..., 1:3]
    torch.testing.assert_close(interior, torch.full_like(interior, 0.25), rtol=0, atol=1e-6)


def test_labels_follow_their_images():
    hard = decode_labels(torch.tensor([3, 5]), 2)
    assert hard.tolist() == [3, 3, 3, 3, 5, 5, 5, 5]
    soft = torch.tensor([[0.2, 0.8], [0.6, 0.4]], requires_grad=True)
    repeated = decode_labels(soft, 3)
    assert repeated.shape == (18, 2)
    assert torch.equal(repeated[8:10], soft)
    repeated.sum().backward()
    assert (soft.grad == 9).all()


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_decode_is_differentiable(factor, generator):
    images = torch.randn(1, 1, 6, 7, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: decode_images(x, factor), images)
    assert torch.autograd.gradgradcheck(lambda x: decode_images(x, factor).square(), images)


def test_formation_stays_on_the_device():
    images = torch.empty(4, 1, 9, 9, device="meta")
    assert decode_images(images, 2).device.type == "meta"
    assert encode_images(images, 2).device.type == "meta"


@pytest.mark.parametrize("factor", [0, -2])
def test_formation_refuses_a_factor_below_one(factor):
    images = torch.zeros(4, 1, 8, 8)
    for formation in (decode_images, encode_images, decode_labels):
        with pytest.raises(ValueError, match="at least 1"):
            formation(images, factor)


def test_formation_refuses_cells_below_two_pixels():
    images = torch.zeros(16, 1, 8, 7)
    assert decode_images(images, 3).shape == (144, 1, 8, 7)
    for formation in (decode_images, encode_images):
        with pytest.raises(ValueError, match=r"cells of 2x1 pixels.*lower the factor to 3"):
            formation(images, 4)


def test_formation_refuses_other_shapes_and_incomplete_grids():
    with pytest.raises(ValueError, match="n, c, h, w"):
        decode_images(torch.zeros(8, 8), 2)
    with pytest.raises(ValueError, match="multiple of 4"):
        encode_images(torch.zeros(6, 1, 8, 8), 2)
