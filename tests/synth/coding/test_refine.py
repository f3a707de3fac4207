"""Refined images come nearer in the same bytes, and never take more."""

import pytest
import torch

from synth.coding import CODINGS, Frequency, Rounded, pack_images, unpack_images
from synth.coding.refine import Refined, Refinement, nearest_that_fits, refine

pytest.importorskip("constriction", reason="pip install 'limbeck[compact]'")

SHAPE = (60, 1, 8, 8)


def smooth_images():
    """Images in which neighbours are alike, as in real ones, black at the border."""
    coarse = torch.rand(60, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    images = torch.nn.functional.interpolate(coarse, (8, 8), mode="bilinear")
    images[..., 0] = 0
    return images


def squared(images):
    return lambda decoded: (decoded - images).square().mean()


def body_bits(coding, images, limit):
    parameters = coding.start(images)
    return 8 * (limit - len(pack_images(coding, parameters)) + len(coding.pack(parameters)))


def refined(coding, images, limit, **settings):
    distance = squared(images)
    budget = body_bits(coding, images, limit)
    states = refine(coding, images, distance, budget, Refinement(**settings))
    return nearest_that_fits(coding, images, states, distance, limit)


def finest_that_fits(images, limit):
    steps = (0.1 * 1.02**power for power in range(200))
    codings = (Frequency(SHAPE, step=step) for step in steps)
    return next(
        coding for coding in codings if len(pack_images(coding, coding.start(images))) <= limit
    )


@pytest.mark.parametrize("limit", [350, 450])
def test_finer_steps_that_are_refined_beat_the_finest_that_fit(limit):
    images = smooth_images()
    plain = finest_that_fits(images, limit)
    coding = Frequency(SHAPE, step=0.85 * plain.step)
    assert len(pack_images(coding, coding.start(images))) > limit
    error, parameters, payload = refined(coding, images, limit)
    assert len(payload) <= limit
    assert error < 0.95 * float(squared(images)(plain.decode(plain.start(images))))
    pixels, found = unpack_images(payload)
    assert found == coding
    torch.testing.assert_close(pixels, coding.decode(parameters))
    assert float(squared(images)(pixels)) == pytest.approx(error, rel=1e-5)


@pytest.mark.parametrize("name", [name for name in CODINGS if name not in ("pixels", "bases")])
def test_every_coding_is_refined_into_fewer_bytes(name):
    images, coding = smooth_images(), CODINGS[name](SHAPE)
    start = coding.start(images)
    limit = int(0.85 * len(pack_images(coding, start)))
    distance = squared(images)
    states = list(refine(coding, images, distance, body_bits(coding, images, limit)))
    assert [state.step for state in states] == list(range(31))
    torch.testing.assert_close(states[0].parameters, start)
    assert states[0].distance == pytest.approx(float(distance(coding.decode(start))), rel=1e-5)
    assert states[0].bits == pytest.approx(float(coding.bits(start)))
    assert min(state.bits for state in states[10:]) < 0.95 * states[0].bits
    found = nearest_that_fits(coding, images, states, distance, limit)
    assert len(found[2]) <= limit


def test_what_a_state_leaves_of_the_bytes_brings_it_nearer():
    images, coding = smooth_images(), Frequency(SHAPE, step=0.3)
    distance, start = squared(images), coding.start(images)
    limit = len(pack_images(coding, start)) + 10
    shrunk = 0.8 * start
    state = Refined(0, shrunk, float(distance(coding.decode(shrunk))), 0.0)
    error, parameters, payload = nearest_that_fits(coding, images, [state], distance, limit)
    assert error < 0.8 * state.distance
    assert error == pytest.approx(float(distance(coding.decode(start))), rel=0.05)
    assert len(pack_images(coding, shrunk)) < len(payload) <= limit
    torch.testing.assert_close(parameters, start, atol=0.05, rtol=0.02)


def test_states_that_cannot_fit_give_none():
    images, coding = smooth_images(), Rounded(SHAPE)
    states = refine(coding, images, squared(images), 8000.0, Refinement(1))
    assert nearest_that_fits(coding, images, states, squared(images), 20) is None


def test_refinement_is_the_same_again():
    images, coding = smooth_images(), Frequency(SHAPE, step=0.2)
    first, second = (refined(coding, images, 600, steps=5) for _ in range(2))
    assert first[2] == second[2]


@pytest.mark.parametrize("settings", [{"steps": 0}, {"size": 0.0}, {"size": float("nan")}])
def test_no_steps_or_no_size_are_refused(settings):
    with pytest.raises(ValueError, match="both must be above 0, or do not refine"):
        Refinement(**settings)
