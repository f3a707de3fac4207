"""Crop boxes and what is cut out by them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms.functional import resized_crop

from synth.crops import crop_resized, draw_box


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(
    h=st.integers(1, 40),
    w=st.integers(1, 40),
    smallest=st.floats(0.01, 1),
    stretch=st.sampled_from([1.0, 4 / 3]),
    seed=st.integers(0, 10**6),
)
def test_box_lies_within_the_image(h, w, smallest, stretch, seed):
    top, left, height, width = draw_box((h, w), seeded(seed), smallest, stretch)
    assert 0 <= top <= top + height <= h
    assert 0 <= left <= left + width <= w
    assert height >= 1
    assert width >= 1
    if stretch == 1 and (height, width) != (h, w):
        assert height == width


def test_boxes_spread_over_area_ratio_and_place():
    generator = seeded(0)
    squares = torch.tensor([draw_box((60, 60), generator, 0.25, 1.0) for _ in range(2000)])
    areas = squares[:, 2].double() * squares[:, 3] / 3600
    assert areas.min() < 0.27
    assert areas.max() == 1
    assert float(areas.mean()) == pytest.approx(0.625, abs=0.02)
    boxes = torch.tensor([draw_box((60, 60), generator, 0.25) for _ in range(2000)]).double()
    ratios = boxes[:, 3] / boxes[:, 2]
    assert ratios.min() < 0.78
    assert ratios.max() > 1.28
    assert float(ratios.log().mean()) == pytest.approx(0, abs=0.02)
    for place in (0, 1):
        free = boxes[:, place + 2] < 60
        where = boxes[free, place] / (60 - boxes[free, place + 2])
        assert float(where.mean()) == pytest.approx(0.5, abs=0.03)
        assert where.min() == 0
        assert where.max() == 1


def test_whole_area_is_the_whole_image_and_draws_nothing(generator):
    before = generator.get_state()
    assert draw_box((9, 7), generator, 1.0) == (0, 0, 9, 7)
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize(("smallest", "stretch"), [(0, 1), (1.1, 1), (math.nan, 1), (0.5, 0.9)])
def test_box_that_cannot_be_is_refused(smallest, stretch, generator):
    with pytest.raises(ValueError, match="need a share above 0"):
        draw_box((8, 8), generator, smallest, stretch)


@pytest.mark.parametrize("box", [(1, 2, 3, 5), (0, 0, 12, 10), (4, 4, 1, 1)])
@pytest.mark.parametrize("size", [(12, 10), (3, 5), (5, 4)])
def test_crop_is_that_of_torchvision(box, size, generator):
    images = torch.rand(3, 2, 12, 10, generator=generator)
    wanted = resized_crop(images, *box, list(size), antialias=True)
    torch.testing.assert_close(crop_resized(images, box, size), wanted)
