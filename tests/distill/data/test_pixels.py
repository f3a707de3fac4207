import pytest
import torch

from distill.data import DataError, resize_images, to_channels


def test_gray_becomes_three_equal_channels():
    gray = torch.rand(2, 1, 4, 4)
    colours = to_channels(gray, 3)
    assert colours.shape == (2, 3, 4, 4)
    assert all(torch.equal(colours[:, [channel]], gray) for channel in range(3))


def test_colours_become_luma():
    primaries = torch.eye(3).reshape(3, 3, 1, 1)
    assert to_channels(primaries, 1).flatten().tolist() == pytest.approx([0.299, 0.587, 0.114])


def test_white_stays_within_the_range():
    gray = to_channels(torch.ones(1, 3, 8, 8), 1)
    assert gray.max() <= 1
    assert torch.allclose(gray, torch.ones_like(gray))


@pytest.mark.parametrize("channels", [None, 3])
def test_unchanged_channels_are_not_copied(channels):
    images = torch.rand(2, 3, 4, 4)
    assert to_channels(images, channels) is images


@pytest.mark.parametrize("channels", [0, 2, 4])
def test_other_channels_are_refused(channels):
    with pytest.raises(DataError, match=f"channels={channels} came, 1 .*or 3"):
        to_channels(torch.rand(1, 1, 2, 2), channels)


def test_images_of_two_channels_are_refused():
    with pytest.raises(DataError, match="images of 2 channels came, 1 or 3"):
        to_channels(torch.rand(1, 2, 2, 2), 3)


@pytest.mark.parametrize("size", [3, 8, 20])
def test_resize_gives_squares_within_the_range(size):
    images = resize_images(torch.rand(3, 1, 9, 9).round(), size)
    assert images.shape == (3, 1, size, size)
    assert images.min() >= 0
    assert images.max() <= 1


def test_resize_is_antialiased():
    # Stripes of one pixel: without antialiasing, a quarter of the size would show stripes.
    stripes = torch.tensor([0.0, 1.0]).repeat(16).expand(1, 1, 32, 32)
    small = resize_images(stripes, 8)[..., 1:-1]
    assert torch.allclose(small, torch.full_like(small, 0.5), atol=0.02)


def test_resize_of_a_constant_stays_constant():
    assert torch.allclose(resize_images(torch.full((1, 3, 7, 7), 0.3), 5), torch.tensor(0.3))


@pytest.mark.parametrize("shape", [(4, 10), (10, 4)])
def test_resize_keeps_the_central_square(shape):
    images = torch.zeros(1, 1, *shape)
    images[..., shape[0] // 2 - 2 : shape[0] // 2 + 2, shape[1] // 2 - 2 : shape[1] // 2 + 2] = 1
    assert torch.equal(resize_images(images, 4), torch.ones(1, 1, 4, 4))
    assert torch.allclose(resize_images(images, 2), torch.ones(1, 1, 2, 2))


def test_resize_of_none_and_of_the_same_size_changes_nothing():
    images = torch.rand(2, 1, 6, 6)
    assert resize_images(images, None) is images
    assert torch.equal(resize_images(images, 6), images)


@pytest.mark.parametrize("size", [0, -3])
def test_resize_refuses_sizes_below_one(size):
    with pytest.raises(DataError, match=f"size={size} came, at least 1 pixel"):
        resize_images(torch.rand(1, 1, 2, 2), size)
