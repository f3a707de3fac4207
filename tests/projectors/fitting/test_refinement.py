import pytest
import torch

import projectors
from projectors.fitting.refinement import down_up
from tests.projectors.cases import GRAY


@pytest.fixture
def encode(tower):
    return projectors.image_encoder(tower, GRAY)


def inconsistency(images, encode):
    small = tuple(side // 2 for side in images.shape[-2:])
    with torch.no_grad():
        return float((encode(images) - encode(down_up(images, small))).square().mean())


def refine(images, encode, **settings):
    chosen = projectors.RefineSettings(**settings)
    return list(projectors.refine_images(images, encode, chosen, batch_size=2))


def test_refinement_makes_the_encoder_see_the_same_after_down_and_up(images, encode):
    before = inconsistency(images, encode)
    refined = images.clone()
    steps = refine(refined, encode, steps=8, lr=0.02)
    assert [step.index for step in steps] == list(range(8))
    assert steps[0].loss == pytest.approx(before, rel=1e-4)
    assert inconsistency(refined, encode) < 0.7 * before
    assert 0 < float((refined - images).abs().max()) < 8 * 0.02 * 1.1


def test_the_first_update_is_a_step_of_adam(images, encode):
    refined = images.clone()
    refine(refined, encode, steps=3, lr=0.01)
    pixels = images.clone().requires_grad_(True)
    optimiser = torch.optim.Adam([pixels], lr=0.01)
    for _ in range(3):
        optimiser.zero_grad()
        difference = encode(pixels) - encode(down_up(pixels, (4, 4)))
        difference.square().mean(dim=1).sum().backward()
        optimiser.step()
    torch.testing.assert_close(refined, pixels.detach(), rtol=0, atol=2e-3)


def test_refined_images_stay_within_their_bounds(encode, images):
    low, high = (torch.full((1, 1, 1, 1), value) for value in (-0.5, 0.5))
    bounded = images.clamp(-0.5, 0.5)
    settings = projectors.RefineSettings(steps=3, lr=0.5)
    list(projectors.refine_images(bounded, encode, settings, bounds=(low, high)))
    assert float(bounded.min()) >= -0.5
    assert float(bounded.max()) <= 0.5


def test_stored_images_are_refined_through_what_students_see(encode, images):
    stored = images.clone()
    settings = projectors.RefineSettings(steps=1)
    seen = []

    def decode(part):
        seen.append(part.shape)
        return part[:, :, :4].repeat_interleave(2, dim=2)

    list(projectors.refine_images(stored, encode, settings, decode=decode))
    assert len(seen) == 1
    # The lower half of a stored image is never seen, and does not move.
    assert torch.equal(stored[:, :, 4:], images[:, :, 4:])
    assert not torch.equal(stored[:, :, :4], images[:, :, :4])


def test_settings_and_images_that_make_no_sense_are_refused(encode, images):
    with pytest.raises(projectors.ProjectorError, match="above 1"):
        projectors.RefineSettings(factor=1.0)
    with pytest.raises(projectors.ProjectorError, match="raise factor"):
        refine(images, encode, factor=1.01)
    with pytest.raises(projectors.DivergedError, match="lower lr"):
        refine(images.clone(), lambda x: encode(x) * torch.nan, steps=1)
