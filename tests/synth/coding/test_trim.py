"""Coded images are made to fit, and little of them is lost where little is asked."""

import pytest
import torch

from synth.coding import CODINGS, CodingError, Pixels, pack_images, unpack_images
from synth.coding.trim import trim

pytest.importorskip("constriction", reason="pip install 'limbeck[compact]'")

SHAPE = (60, 1, 8, 8)


def smooth_images():
    """Images in which neighbours are alike, as in real ones."""
    coarse = torch.rand(60, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, (8, 8), mode="bilinear")


@pytest.mark.parametrize("name", [name for name in CODINGS if name != "pixels"])
def test_images_fit_afterwards_and_are_what_a_receiver_gets(name):
    images, coding = smooth_images(), CODINGS[name](SHAPE)
    start = coding.start(images)
    first = len(pack_images(coding, start))
    parameters, payload = trim(coding, start, int(0.9 * first))
    assert len(payload) <= 0.9 * first
    assert len(payload) > 0.6 * first, "far more was taken than asked for"
    torch.testing.assert_close(unpack_images(payload)[0], coding.decode(parameters))


def test_what_fits_is_left_as_it_is():
    coding = CODINGS["frequency"](SHAPE)
    start = coding.start(smooth_images())
    parameters, payload = trim(coding, start, 10_000)
    assert parameters is start
    assert payload == pack_images(coding, start)


def test_a_tenth_less_costs_less_of_the_images_than_coarser_steps_do():
    images, coding = smooth_images(), CODINGS["frequency"](SHAPE, step=0.2)
    start = coding.start(images)
    limit = int(0.9 * len(pack_images(coding, start)))
    steps = (0.2 * 1.01**power for power in range(100))
    coarser = next(
        found
        for found in (CODINGS["frequency"](SHAPE, step=step) for step in steps)
        if len(pack_images(found, found.start(images))) <= limit
    )

    def error(kept, parameters):
        return float((kept.decode(parameters) - images).square().mean())

    parameters, _ = trim(coding, start, limit)
    assert error(coding, start) < error(coding, parameters) < error(coarser, coarser.start(images))


@pytest.mark.parametrize("coding", [Pixels(SHAPE), CODINGS["rounded"](SHAPE)], ids=str)
def test_what_cannot_fit_is_refused(coding):
    start = coding.start(smooth_images())
    with pytest.raises(CodingError, match="do not fit into 20: allow more bytes"):
        trim(coding, start, 20)


def test_tones_keep_their_values_while_pixels_move_between_them():
    images, coding = smooth_images(), CODINGS["tones"](SHAPE)
    start = coding.start(images)
    parameters, _ = trim(coding, start, int(0.9 * len(pack_images(coding, start))))
    count = images.numel()
    assert torch.equal(parameters[count:], start[count:])
    assert not torch.equal(parameters[:count], start[:count])
