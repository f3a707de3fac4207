import math

import pytest
import torch

from synth.membership import offline_scores, scaled_confidence


def test_confidence_is_the_log_odds_of_the_true_class():
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 0.0, 0.0]])
    labels = torch.tensor([0, 2])
    p = logits.softmax(dim=1)[torch.arange(2), labels]
    expected = (p / (1 - p)).log()
    assert torch.allclose(scaled_confidence(logits, labels), expected, atol=1e-6)
    # A certain network has finite scores, where log(p / (1 - p)) of rounded p has none.
    assert math.isclose(
        float(scaled_confidence(torch.tensor([[90.0, 0.0]]), torch.tensor([0]))), 90
    )


def test_images_are_compared_with_networks_that_never_saw_them():
    references = torch.tensor([[1.0, 5.0], [3.0, 9.0], [9.0, 1.0]])
    unseen = torch.tensor([[True, True], [True, False], [False, True]])
    found = offline_scores(torch.tensor([4.0, 2.0]), references, unseen)
    assert torch.equal(found, torch.tensor([2.0, -1.0]))


def test_an_image_that_every_reference_saw_is_refused():
    with pytest.raises(ValueError, match="all references were trained on 1 of the images"):
        offline_scores(torch.zeros(2), torch.zeros(2, 2), torch.tensor([[True, False]] * 2))
