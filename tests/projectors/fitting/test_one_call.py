"""A projector in one call."""

import pytest
import torch

import projectors
from tests.projectors.cases import DIGITS, GRAY

QUICK = projectors.FitSettings(steps=60, batch_size=64, lr=1e-2, loss="kl")


@pytest.fixture(scope="module")
def pixels(digits):
    """Pixels in [0, 1], labels, and a teacher that knows them."""
    images, labels = digits
    shown = (images * GRAY.std[0] + GRAY.mean[0]).clamp(0, 1)
    means = torch.stack([shown[labels == k].mean(dim=0) for k in range(10)])

    def teacher(seen):
        return -(seen[:, None] - means).square().sum(dim=(2, 3, 4))

    return shown, labels, teacher


def test_one_call_fits_and_measures_on_images_that_it_has_not_seen(pixels, tower, tmp_path):
    shown, labels, teacher = pixels
    seen, steps = [], []

    def watched(images):
        seen.append(images)
        return teacher(images)

    made = projectors.fit(
        shown, labels, watched, DIGITS, tower=tower, settings=QUICK, progress=steps.append
    )
    assert len(made.losses) == len(steps) == 60
    assert made.losses[-1] < made.losses[0]
    assert made.fidelity.agreement > 0.3
    held = {image.numpy().tobytes() for image in seen[-1]}
    fitted = {image.numpy().tobytes() for batch in seen[:-1] for image in batch}
    assert len(seen[-1]) == 179
    assert not held & fitted
    # It takes pixels, and is saved as every projector.
    projectors.save(made.projector, tmp_path / "projector", fidelity=made.fidelity)
    again = projectors.load(tmp_path / "projector")
    torch.testing.assert_close(again(shown[:4]), made.projector(shown[:4]).detach())


def test_same_arguments_give_the_same_projector(pixels, tower):
    shown, labels, teacher = pixels
    few = projectors.FitSettings(steps=2, batch_size=8)
    first, second = (
        projectors.fit(shown[:50], labels[:50], teacher, DIGITS, tower=tower, settings=few)
        for _ in range(2)
    )
    assert first.losses == second.losses
    assert first.fidelity == second.fidelity


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x, y: (x * 255, y), r"values from 0 to 255, but pixels in \[0, 1\] are needed"),
        (lambda x, y: ((x * 255).byte(), y), "of torch.uint8; give two or more, floats"),
        (lambda x, y: (x[:, 0], y), r"give two or more, floats \[n, c, h, w\]"),
        (lambda x, y: (x, y[:-1]), "give a class index for each"),
        (lambda x, y: (x, y + 1), "labels go from 1 to 10, but there are 10 names"),
    ],
)
def test_what_cannot_be_fitted_is_refused_in_one_line(pixels, tower, change, said):
    shown, labels, teacher = pixels
    images, classes = change(shown, labels)
    with pytest.raises(projectors.ProjectorError, match=said) as error:
        projectors.fit(images, classes, teacher, DIGITS, tower=tower, settings=QUICK)
    assert "\n" not in str(error.value)
