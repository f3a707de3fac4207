"""Augmentation: drawing and applying views."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from synth.augment import DSA_FAMILIES, FAMILIES, Augmentation, View, dsa, parse_families

# What leaves an image of 6x8 as it is.
NEUTRAL = {
    "colour": [0.0, 1.0, 1.0],
    "crop": [0.0, 0.0],
    "flip": [0.0],
    "scale": [1.0, 1.0],
    "rotate": [0.0],
    "resize": [1.0, 1.0, 0.0, 0.0],
    "zoom": [1.0, 1.0, 0.0, 0.0],
}


@pytest.fixture
def images(generator):
    return torch.randn(4, 3, 6, 8, generator=generator)


def one_view(family: str, *rows: list[float]) -> View:
    return View((family,), (torch.tensor(rows),))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("family", FAMILIES)
def test_family_draws_its_parameters_in_half_precision(family, generator):
    (parameters,) = Augmentation((family,)).sample(50, (6, 8), generator).parameters
    assert parameters.shape == (50, FAMILIES[family].width)
    assert parameters.dtype == torch.float32
    assert torch.equal(parameters, parameters.half().float())
    assert len(parameters.unique(dim=0)) > 1


@pytest.mark.parametrize("family", FAMILIES)
def test_family_repeats_with_the_same_seed_and_differs_with_another(family, images):
    def augment(seed):
        return Augmentation((family,)).sample(4, (6, 8), seeded(seed)).apply(images)

    assert torch.equal(augment(1), augment(1))
    assert any(not torch.equal(augment(1), augment(seed)) for seed in (2, 3, 4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("family", FAMILIES)
def test_family_keeps_shape_and_dtype(family, dtype, images, generator):
    seen = Augmentation((family,)).sample(4, (6, 8), generator).apply(images.to(dtype))
    assert seen.shape == images.shape
    assert seen.dtype == dtype
    assert seen.isfinite().all()


@pytest.mark.parametrize("family", FAMILIES)
def test_family_acts_on_each_image_alone(family, images, generator):
    view = Augmentation((family,)).sample(4, (6, 8), generator)
    whole = view.apply(images)
    for place in range(4):
        part = slice(place, place + 1)
        torch.testing.assert_close(view.select(part).apply(images[part]), whole[part])


@pytest.mark.parametrize("family", FAMILIES)
def test_family_has_the_right_gradient_in_the_pixels(family, generator):
    pixels = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    view = Augmentation((family,)).sample(2, (4, 5), generator)
    assert torch.autograd.gradcheck(view.apply, (pixels.requires_grad_(),))


@pytest.mark.parametrize("family", NEUTRAL)
def test_family_with_neutral_parameters_changes_nothing(family, images):
    torch.testing.assert_close(one_view(family, *[NEUTRAL[family]] * 4).apply(images), images)


def test_flip_twice_is_the_identity(images):
    flip = one_view("flip", [1.0], [0.0], [1.0], [0.0])
    once = flip.apply(images)
    assert torch.equal(once[0], images[0].flip(2))
    assert torch.equal(once[1], images[1])
    assert torch.equal(flip.apply(once), images)


def test_crop_shifts_by_whole_pixels_and_fills_with_zero(images):
    moved = one_view("crop", [2.0, -1.0]).apply(images[:1])
    assert torch.equal(moved[:, :, :4, 1:], images[:1, :, 2:, :-1])
    assert float(moved[:, :, 4:].abs().max()) == 0
    assert float(moved[:, :, :, 0].abs().max()) == 0


def test_crop_reaches_an_eighth_of_each_side(generator):
    (shift,) = Augmentation(("crop",)).sample(500, (8, 32), generator).parameters
    assert sorted(set(shift[:, 0].tolist())) == [-1, 0, 1]
    assert sorted(set(shift[:, 1].tolist())) == list(range(-4, 5))


def test_cutout_zeroes_a_box_of_half_of_each_side():
    seen = one_view("cutout", [3.0, 4.0]).apply(torch.ones(1, 2, 6, 8))
    expected = torch.ones(6, 8)
    expected[2:5, 2:6] = 0
    assert torch.equal(seen, expected.expand(1, 2, 6, 8))


def test_cutout_at_a_corner_leaves_the_rest_of_its_box_outside():
    seen = one_view("cutout", [0.0, 0.0]).apply(torch.ones(1, 1, 8, 8))
    assert int((seen == 0).sum()) == 4
    assert float(seen[:, :, :2, :2].max()) == 0


def test_rotate_by_a_right_angle_turns_a_square_image(images):
    square = images[:1, :, :, :6]
    seen = one_view("rotate", [math.pi / 2]).apply(square)
    torch.testing.assert_close(seen, square.rot90(1, (2, 3)), atol=1e-4, rtol=0)


def test_scale_and_resize_agree_where_they_mean_the_same(images):
    scaled = one_view("scale", *[[0.5, 0.75]] * 4).apply(images)
    resized = one_view("resize", *[[0.75, 0.5, 0.0, 0.0]] * 4).apply(images)
    torch.testing.assert_close(scaled, resized)


def test_resize_to_a_corner_shows_that_corner(images):
    quarter = one_view("resize", *[[0.5, 0.5, -0.5, 0.5]] * 4).apply(images)
    torch.testing.assert_close(quarter[:, :, 0, -1], images[:, :, 0, -1])


@pytest.mark.parametrize(("family", "least"), [("resize", 0.5), ("zoom", 0.08)])
def test_resize_draws_boxes_inside_the_image(generator, family, least):
    (boxes,) = Augmentation((family,)).sample(500, (8, 8), generator).parameters
    height, width, y, x = boxes.unbind(dim=1)
    # Half precision moves an edge by up to 2^-11.
    assert float((y.abs() + height).max()) <= 1.001
    assert float((x.abs() + width).max()) <= 1.001
    # A side that is clipped to the image takes a little off the area.
    assert 0.98 * least <= float((height * width).min()) <= least + 0.05


def test_colour_shifts_brightness_first(images):
    brighter = one_view("colour", *[[0.25, 1.0, 1.0]] * 4).apply(images)
    torch.testing.assert_close(brighter, images + 0.25)


def test_colour_without_saturation_is_grey_and_without_contrast_flat(images):
    grey = one_view("colour", *[[0.0, 0.0, 1.0]] * 4).apply(images)
    torch.testing.assert_close(grey, images.mean(dim=1, keepdim=True).expand_as(images))
    flat = one_view("colour", *[[0.0, 1.0, 0.0]] * 4).apply(images)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(flat, mean.expand_as(images))


@given(
    families=st.lists(st.sampled_from(sorted(FAMILIES)), max_size=4),
    count=st.integers(1, 4),
    size=st.tuples(st.integers(2, 9), st.integers(2, 9)),
    seed=st.integers(0, 2**31),
    one_per_batch=st.booleans(),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_view_replays_exactly_from_two_bytes_a_parameter(
    families, count, size, seed, one_per_batch
):
    augmentation = Augmentation(tuple(families), one_per_batch)
    generator = seeded(seed)
    view = augmentation.sample(count, size, generator)
    images = torch.randn(count, 1, *size, generator=generator)
    stored = view.to_tensor(count).half()
    assert stored.shape == (count, sum(FAMILIES[family].width for family in view.families))
    back = View.from_tensor(view.families, stored.float())
    assert len(back.parameters) == len(view.parameters)
    assert torch.equal(back.apply(images), view.apply(images))


@given(seed=st.integers(0, 2**31), count=st.integers(1, 5))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_dsa_draws_one_family_per_batch_and_repeats(seed, count):
    first, again = (dsa().sample(count, (8, 8), seeded(seed)) for _ in range(2))
    assert len(first.families) == 1
    assert first.families[0] in DSA_FAMILIES
    assert first.families == again.families
    assert torch.equal(first.parameters[0], again.parameters[0])


def test_dsa_comes_to_every_family(generator):
    drawn = {dsa().sample(1, (8, 8), generator).families for _ in range(100)}
    assert drawn == {(family,) for family in DSA_FAMILIES}


def test_augmentation_applies_its_families_in_turn(images, generator):
    view = Augmentation(("flip", "crop")).sample(4, (6, 8), generator)
    assert view.families == ("flip", "crop")
    flip, crop = (View((view.families[i],), (view.parameters[i],)) for i in (0, 1))
    assert torch.equal(view.apply(images), crop.apply(flip.apply(images)))


def test_augmentation_without_families_changes_nothing(images, generator):
    view = Augmentation(()).sample(4, (6, 8), generator)
    assert view.to_tensor(4).shape == (4, 0)
    assert torch.equal(view.apply(images), images)


@pytest.mark.parametrize("index", [slice(1, 3), torch.tensor([3, 0])], ids=["slice", "tensor"])
def test_view_select_is_the_view_of_some_images(index, images, generator):
    view = Augmentation(tuple(FAMILIES)).sample(4, (6, 8), generator)
    whole = view.apply(images)
    torch.testing.assert_close(view.select(index).apply(images[index]), whole[index])


def test_augmentation_refuses_an_unknown_family():
    with pytest.raises(ValueError, match="unknown augmentation blur; choose from colour, crop"):
        Augmentation(("flip", "blur"))


def test_view_refuses_another_number_of_images(images, generator):
    view = Augmentation(("flip",)).sample(3, (6, 8), generator)
    with pytest.raises(ValueError, match="got 4 images for a view of 3; sample one view"):
        view.apply(images)


def test_view_refuses_a_tensor_of_another_width():
    with pytest.raises(ValueError, match="got 4 view parameters per image for families flip_crop"):
        View.from_tensor(("flip", "crop"), torch.zeros(2, 4))


@pytest.mark.parametrize(
    ("text", "families"),
    [
        ("", ()),
        ("none", ()),
        ("flip", ("flip",)),
        ("color_crop_flip", ("colour", "crop", "flip")),
    ],
)
def test_parse_families_reads_names_joined_by_underscores(text, families):
    assert parse_families(text) == families
