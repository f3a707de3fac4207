"""What label numbers mean: told by the numbers, known from the layout, or asked for."""

from pathlib import Path

import pytest
import torch

from distill.errors import RecipeError, WorkError
from distill.sets.exchange.labels import read_labels

ORIGIN = Path("labels.pt")
PROBABILITIES = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]])
SIGNED = torch.tensor([[4.0, -1.0, 0.5], [-1.0, 2.0, 0.0]])
ONE_HOT = torch.eye(3)[[2, 0, 1]]


@pytest.mark.parametrize(
    "values",
    [
        torch.tensor([2, 0, 1]),
        torch.tensor([[2], [0], [1]]),
        torch.tensor([2.0, 0.0, 1.0]),
        torch.tensor([[2.0], [0.0], [1.0]]).half(),
        ONE_HOT,
        ONE_HOT.long(),
        ONE_HOT.bool(),
    ],
    ids=["whole", "column", "floats", "column of halves", "one-hot", "one-hot ints", "bools"],
)
def test_classes_however_they_are_stored(values):
    labels = read_labels(values, ORIGIN)
    assert labels.form == "classes"
    assert labels.classes().tolist() == [2, 0, 1]
    assert labels.soft is None


@pytest.mark.parametrize(
    "values", [PROBABILITIES, PROBABILITIES.half(), PROBABILITIES.log(), PROBABILITIES.double()]
)
def test_probabilities_and_their_logarithms_are_told_by_their_sums(values):
    soft = read_labels(values, ORIGIN).soft
    torch.testing.assert_close(soft.softmax(1), PROBABILITIES, atol=1e-3, rtol=0)
    assert read_labels(values, ORIGIN).count == 3


def test_the_logarithm_of_zero_is_a_probability_of_zero():
    values = torch.tensor([[0.0, -torch.inf, -torch.inf], [0.5, 0.25, 0.25]])
    values[1] = values[1].log()
    soft = read_labels(values, ORIGIN).soft
    assert bool(soft.isfinite().all())
    torch.testing.assert_close(soft.softmax(1)[0], torch.tensor([1.0, 0, 0]), atol=1e-6, rtol=0)


def test_signed_numbers_are_asked_for_unless_the_layout_knows():
    with pytest.raises(RecipeError, match=r"from -1 to 4, .* --labels logits or --labels centred"):
        read_labels(SIGNED, ORIGIN)
    assert torch.equal(read_labels(SIGNED, ORIGIN, signed="logits").soft, SIGNED)
    assert torch.equal(read_labels(SIGNED, ORIGIN, asked="logits").soft, SIGNED)


def test_centred_labels_are_probabilities_less_their_mean():
    soft = read_labels(PROBABILITIES - 1 / 3, ORIGIN, asked="centred").soft
    torch.testing.assert_close(soft.softmax(1), PROBABILITIES)


def test_unnormalised_rows_are_asked_for_too():
    with pytest.raises(RecipeError, match="rows sum to 2 to 2"):
        read_labels(2 * PROBABILITIES, ORIGIN)


@pytest.mark.parametrize(
    ("values", "asked", "words"),
    [
        (SIGNED, "probabilities", "holds no probabilities: they lie from -1 to 4"),
        (PROBABILITIES, "classes", "not one-hot"),
        (torch.tensor([0, 1]), "logits", "one number per image, not logits"),
        (torch.tensor([0.5, 1.0]), "", "not classes"),
        (torch.tensor([-1, 1]), "", "not classes"),
        (torch.full((2, 3), torch.nan), "", "NaN or infinite"),
        (torch.full((2, 3), -torch.inf), "", "minus infinity alone"),
        (torch.zeros(0), "", r"labels \(0,\)"),
        (torch.zeros(2, 3, 4), "", r"labels \(2, 3, 4\)"),
    ],
)
def test_what_cannot_be_labels_is_refused(values, asked, words):
    with pytest.raises(WorkError, match=words):
        read_labels(values, ORIGIN, asked)


def test_classes_of_learned_labels_are_blocks_only_where_most_rows_agree():
    blocks = torch.tensor([0, 0, 0, 1, 1, 1])
    soft = torch.eye(2)[blocks] * 3 - 1
    soft[2] = soft[2].flip(0)
    assert torch.equal(read_labels(soft, ORIGIN, signed="logits").classes(), blocks)
    shuffled = torch.tensor([1, 0, 1, 0, 1, 1])
    soft = torch.eye(2)[shuffled] * 3 - 1
    assert torch.equal(read_labels(soft, ORIGIN, signed="logits").classes(), shuffled)
