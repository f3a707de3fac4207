"""Task similarity from features."""

import itertools

import pytest
import torch
from scipy.stats import spearmanr

from synth.committee.features import head_inputs
from synth.committee.similarity import parc
from synth.networks import MLP

LABELS = torch.arange(12) % 4


def naive_parc(features, labels, classes):
    """PARC pair by pair, ranked by SciPy."""
    hard = torch.nn.functional.one_hot(labels, classes).double()

    def distances(rows):
        pairs = itertools.combinations(rows.double(), 2)
        return [float(1 - torch.corrcoef(torch.stack(pair))[0, 1]) for pair in pairs]

    rounded = [[round(value, 10) for value in distances(rows)] for rows in (features, hard)]
    return float(spearmanr(*rounded).statistic)


def test_parc_equals_a_naive_reference(generator):
    features = torch.randn(12, 5, generator=generator) + LABELS.view(-1, 1)
    found = parc(features, LABELS, 4)
    assert found == pytest.approx(naive_parc(features, LABELS, 4))
    assert -1 < found < 1


def test_parc_is_one_for_the_labels_themselves(generator):
    hard = torch.nn.functional.one_hot(LABELS, 4).float()
    assert parc(hard, LABELS, 4) == pytest.approx(1)
    noise = torch.randn(12, 50, generator=generator)
    assert abs(parc(noise, LABELS, 4)) < 0.4


def test_parc_grows_with_the_part_of_the_task_in_the_features(generator):
    hard = torch.nn.functional.one_hot(LABELS, 4).float()
    noise = torch.randn(12, 4, generator=generator)
    found = [parc(share * hard + noise, LABELS, 4) for share in (0, 2, 8)]
    assert found == sorted(found)


def test_parc_ignores_features_that_are_constant():
    assert parc(torch.ones(12, 3), LABELS, 4) == 0


def test_parc_refuses_too_little():
    with pytest.raises(ValueError, match="got 2 images of 2 classes; a similarity needs"):
        parc(torch.randn(2, 3), LABELS[:2], 4)
    with pytest.raises(ValueError, match="got 5 images of 1 classes"):
        parc(torch.randn(5, 3), torch.zeros(5, dtype=torch.long), 4)


def test_features_of_an_mlp_are_those_before_its_head(generator):
    network = MLP(1, (4, 4), 3, depth=1, width=6)
    assert head_inputs(network, torch.randn(2, 1, 4, 4, generator=generator)).shape == (2, 6)
