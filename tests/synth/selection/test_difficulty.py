"""How difficult images are, against definitions in plain Python."""

import math

import pytest
import torch

from synth.selection import by_difficulty, el2n, forgetting_counts


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_el2n_equals_its_definition():
    logits = torch.randn(9, 4, generator=seeded(0), dtype=torch.float64)
    labels = torch.arange(9) % 4
    wanted = []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        total = sum(math.exp(value) for value in row)
        away = [math.exp(value) / total - (place == label) for place, value in enumerate(row)]
        wanted.append(math.sqrt(sum(value**2 for value in away)))
    assert el2n(logits, labels).tolist() == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("looks", "count"),
    [
        ([1, 1, 1, 1], 0),
        ([0, 0, 1, 1], 0),
        ([1, 0, 1, 0], 2),
        ([0, 1, 0, 0], 1),
        ([0, 0, 0, 0], 4),
    ],
)
def test_forgetting_is_counted_from_right_to_wrong(looks, count):
    masks = (torch.tensor([bool(look), True]) for look in looks)
    assert forgetting_counts(masks).tolist() == [count, 0]


def test_forgetting_needs_a_look():
    with pytest.raises(ValueError, match="no epochs to count forgetting over"):
        forgetting_counts([])


def test_choices_by_difficulty_are_ranges_of_the_order():
    scores = torch.tensor([5.0, 1.0, 4.0, 0.0, 3.0, 2.0, 6.0])

    def chosen(difficulty, count=3):
        return scores[by_difficulty(scores, count, difficulty, seeded(0))].tolist()

    assert chosen("easy") == [0, 1, 2]
    assert chosen("middle") == [2, 3, 4]
    assert chosen("hard") == [4, 5, 6]
    assert chosen("spread", 7) == [0, 1, 2, 3, 4, 5, 6]


def test_a_spread_choice_has_one_image_of_every_group():
    scores = torch.randperm(40, generator=seeded(0)).float()
    draws = [
        scores[by_difficulty(scores, 8, "spread", seeded(seed))].div(5).floor().tolist()
        for seed in range(5)
    ]
    assert draws == [list(range(8))] * 5
    found = [by_difficulty(scores, 8, "spread", seeded(seed)).tolist() for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


def test_equal_scores_are_drawn_at_random():
    found = {tuple(by_difficulty(torch.zeros(6), 2, "easy", seeded(s)).tolist()) for s in range(20)}
    assert len(found) > 5
