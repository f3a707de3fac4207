"""The space of images, checked against their values."""

from pathlib import Path

import pytest
import torch

from distill.errors import RecipeError, WorkError
from distill.sets.exchange.spaces import pixels_of, space_of

ORIGIN = Path("images.pt")
PIXELS = torch.linspace(0, 1, 2 * 3 * 4 * 4).view(2, 3, 4, 4)
NORMALISED = (PIXELS - 0.45) / 0.22
BYTES = (255 * PIXELS).round()
SIGNED = 2 * PIXELS - 1


@pytest.mark.parametrize(
    ("images", "asked", "usual", "space"),
    [
        (NORMALISED, "", "normalised", "normalised"),
        (NORMALISED, "", "zca", "zca"),
        (NORMALISED, "", "", "normalised"),
        (NORMALISED, "zca", "normalised", "zca"),
        (PIXELS, "", "pixels", "pixels"),
        (1.6 * PIXELS - 0.3, "pixels", "", "pixels"),
        (PIXELS, "", "normalised", "pixels"),
        (PIXELS, "", "zca", "pixels"),
        (BYTES, "", "normalised", "bytes"),
        (BYTES.byte(), "", "normalised", "bytes"),
        (BYTES.byte(), "pixels", "normalised", "bytes"),
        (BYTES.long(), "", "pixels", "bytes"),
        (BYTES, "bytes", "", "bytes"),
        (SIGNED, "signed", "", "signed"),
        (SIGNED, "normalised", "", "normalised"),
        (PIXELS.round().byte(), "", "", "pixels"),
    ],
)
def test_space_is_found(images, asked, usual, space):
    assert space_of(images, ORIGIN, asked, usual)[0] == space


@pytest.mark.parametrize(
    ("images", "asked", "usual", "note"),
    [
        (PIXELS, "", "normalised", "images are taken as pixels: their values lie as pixels do"),
        (BYTES, "", "pixels", "images are taken as bytes"),
        (PIXELS, "pixels", "normalised", ""),
        (PIXELS, "", "pixels", ""),
        (NORMALISED, "", "normalised", ""),
    ],
)
def test_a_space_that_nobody_stated_is_said(images, asked, usual, note):
    said = space_of(images, ORIGIN, asked, usual)[1]
    assert said.startswith(note)
    assert bool(said) == bool(note)


@pytest.mark.parametrize(
    ("images", "space"),
    [(BYTES, "bytes"), (BYTES.byte(), "bytes"), (SIGNED, "signed"), (PIXELS, "pixels")],
)
def test_pixels_of_every_way_to_store_them(images, space):
    torch.testing.assert_close(pixels_of(images, space), PIXELS, atol=0.5 / 255, rtol=0)


@pytest.mark.parametrize(
    ("images", "asked", "usual", "words"),
    [
        (BYTES, "pixels", "", "0 to 255, as bytes do .*, not those of pixels; give --space bytes"),
        (BYTES, "normalised", "", "give --space bytes"),
        (BYTES, "zca", "", "give --space bytes"),
        (BYTES.byte(), "zca", "", "give --space bytes"),
        (PIXELS, "normalised", "", "0 to 1, as pixels do .*; give --space pixels"),
        (PIXELS, "signed", "", "give --space pixels"),
        (PIXELS, "bytes", "", "give --space pixels"),
        (SIGNED, "pixels", "", "-1 to 1, .* give --space signed"),
        (SIGNED, "", "normalised", "give --space signed or --space normalised"),
        (SIGNED, "", "pixels", "give --space signed or --space normalised"),
        (NORMALISED, "pixels", "", "normalised images do, .* give --space normalised"),
        (NORMALISED, "", "pixels", "normalised images do"),
        (3 * NORMALISED, "bytes", "", "normalised images do"),
    ],
)
def test_values_of_another_space_are_refused(images, asked, usual, words):
    with pytest.raises(RecipeError, match=words):
        space_of(images, ORIGIN, asked, usual)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (1000 * PIXELS.round().long(), "from 0 to 1000"),
        (BYTES.long() - 128, "from -128"),
        (PIXELS / 0, "NaN or infinite"),
        (1e30 * PIXELS, "to 1e\\+30, which are those of no images"),
    ],
)
def test_what_cannot_be_images_is_refused(images, words):
    with pytest.raises(WorkError, match=words):
        space_of(images, ORIGIN, "", "pixels")
