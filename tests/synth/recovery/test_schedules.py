"""What recovery draws: shared views, members, batches."""

from collections import Counter
from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from synth.crops import crop_resized
from synth.recovery import (
    SharedView,
    SharedViews,
    draw_members,
    drawn_anew,
    every_set_in_turn,
    largest_priors,
    plan_batches,
)

PRIORS = [0.6, 0.9, 0.7, 0.8, 0.65]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_view_is_the_same_for_all_images_and_drawn_once(generator):
    images = torch.rand(5, 1, 8, 8, generator=generator)
    view = SharedViews(0.3).sample((8, 8), seeded(3))
    seen = view.apply(images)
    for index in range(5):
        torch.testing.assert_close(seen[index], view.apply(images[index : index + 1])[0])
    assert view == SharedViews(0.3).sample((8, 8), seeded(3))
    assert view != SharedViews(0.3).sample((8, 8), seeded(4))


def test_view_crops_flips_and_rolls_in_this_order(generator):
    images = torch.rand(2, 3, 6, 7, generator=generator)
    cut = crop_resized(images, (1, 2, 4, 3), (6, 7))
    wanted = torch.roll(cut.flip(3), (2, 1), dims=(2, 3))
    assert torch.equal(SharedView((1, 2, 4, 3), True, (2, 1)).apply(images), wanted)
    whole = SharedView((0, 0, 6, 7), False, (0, 0))
    assert torch.equal(whole.apply(images), images)


def test_views_draw_what_they_are_told():
    many = [SharedViews(0.5, True, 2).sample((16, 16), seeded(i)) for i in range(300)]
    assert {view.flipped for view in many} == {True, False}
    # One-sided: from 0 up to the largest roll.
    assert {shift for view in many for shift in view.shift} == {0, 1, 2}
    assert len({view.box for view in many}) > 100
    plain = [SharedViews(1.0, False, 0).sample((16, 16), seeded(i)) for i in range(20)]
    assert set(plain) == {SharedView((0, 0, 16, 16), False, (0, 0))}


def test_view_lets_gradients_through(generator):
    images = torch.rand(2, 1, 6, 6, generator=generator, dtype=torch.float64).requires_grad_()
    view = SharedView((1, 1, 4, 4), True, (1, 2))
    assert torch.autograd.gradcheck(view.apply, (images,))


def test_pairs_take_every_set_in_turn_and_begin_again(generator):
    found = [draw_members(every_set_in_turn, PRIORS, 2, call, generator) for call in range(11)]
    assert found[:10] == list(combinations(range(5), 2))
    assert found[10] == found[0]
    triples = [draw_members(every_set_in_turn, PRIORS, 3, call, generator) for call in range(10)]
    assert triples == list(combinations(range(5), 3))


def test_fixed_takes_the_largest_priors_every_time(generator):
    assert {draw_members(largest_priors, PRIORS, 2, call, generator) for call in range(4)} == {
        (1, 3)
    }
    assert draw_members(largest_priors, [0.5, 0.5, 0.5], 2, 0, generator) == (0, 1)


def test_random_takes_different_members_and_all_sets_alike():
    found = [draw_members(drawn_anew, PRIORS, 2, 0, seeded(i)) for i in range(600)]
    assert all(a != b for a, b in found)
    counts = Counter(tuple(sorted(pair)) for pair in found)
    assert set(counts) == set(combinations(range(5), 2))
    assert min(counts.values()) > 30
    assert found[0] == draw_members(drawn_anew, PRIORS, 2, 7, seeded(0))


@pytest.mark.parametrize("schedule", [drawn_anew, every_set_in_turn, largest_priors])
@pytest.mark.parametrize("count", [0, 6])
def test_schedule_longer_than_the_committee_is_refused(schedule, count, generator):
    with pytest.raises(ValueError, match=f"asks for {count} members at once, but 5 may be drawn"):
        draw_members(schedule, PRIORS, count, 0, generator)


@given(
    classes=st.integers(1, 12),
    ipc=st.integers(1, 6),
    batch_size=st.none() | st.integers(1, 20),
    within=st.booleans(),
)
def test_batches_hold_every_image_once(classes, ipc, batch_size, within):
    batches = plan_batches(classes, ipc, batch_size, within_class=within)
    places = torch.cat([batch.places for batch in batches])
    assert sorted(places.tolist()) == list(range(classes * ipc))
    for batch in batches:
        assert batch.labels.tolist() == [place // ipc for place in batch.places.tolist()]
        # A last batch of one image joins the one before it.
        assert len(batch.places) <= (batch_size or classes * ipc) + 1
        if within:
            assert set(batch.labels.tolist()) == {batch.call}
        else:
            assert set((batch.places % ipc).tolist()) == {batch.call}
            assert len(set(batch.labels.tolist())) == len(batch.labels)
