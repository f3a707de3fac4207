"""Codec specs, and what a choice of codec does with them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.errors import RecipeError, WorkError
from distill.recipes.build import build_codec
from distill.recipes.specs import parse_codec
from distill.sets.codec_choice import choose_by_bytes, choose_by_loss
from projectors.codecs import Dense, Pruned, Roots, TopK


@pytest.mark.parametrize(
    ("text", "codec"),
    [
        ("dense", Dense()),
        ("full-fp16", Dense("float16")),
        ("topk:k=3", TopK(3)),
        ("seed+roots:step=0.2", Roots(0.2)),
        ("lpqld:ratio=0.5:k=2", Pruned(TopK(2), 0.5, "epoch", 7)),
        ("lpld", Pruned(Dense(), 0.975, "batch-to-epoch", 7)),
        ("seed+pruned:unit=batch+topk:tail=plain", Pruned(TopK(5, "plain"), 0.9, "batch", 7)),
    ],
)
def test_a_spec_names_a_codec(text, codec):
    assert build_codec(parse_codec(text), 7) == codec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("topl", "did you mean topk"),
        ("hard", "there is no codec 'hard'"),
        ("topk:kk=3", "no option 'kk'; did you mean k"),
        ("topk:k=3.5", "k is '3.5'; it must be a whole number"),
        ("quantised:step=x", "step is 'x'; it must be a number"),
        ("seed", "does not say how"),
        ("topk+pruned", "pruned cannot stand there"),
        ("topk+topk", "topk cannot stand there"),
        ("seed+teacher", "leave out seed and pool"),
        ("", "there is no codec ''"),
    ],
)
def test_a_wrong_spec_is_refused(text, message):
    with pytest.raises(RecipeError, match=message):
        parse_codec(text)


def test_an_option_out_of_range_is_refused_when_the_codec_is_built():
    with pytest.raises(RecipeError, match="codec topk:k=0: k=0"):
        build_codec(parse_codec("topk:k=0"), 10)


def test_the_first_candidate_that_fits_is_chosen():
    sizes = {"a": 100, "b": 50, "c": 20}
    assert choose_by_bytes("abc", sizes.__getitem__, 60) == ("b", 50)
    assert choose_by_bytes("abc", sizes.__getitem__, 100) == ("a", 100)
    with pytest.raises(WorkError, match="smallest of 3 codecs takes 20"):
        choose_by_bytes("abc", sizes.__getitem__, 19)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=12), st.integers(0, 50))
@settings(max_examples=60, deadline=None)
def test_the_last_candidate_within_the_loss_is_chosen(steps, limit):
    losses = torch.tensor(sorted(steps)).tolist()
    names = [str(index) for index in range(len(losses))]

    def choose():
        return choose_by_loss(names, lambda name: 100 - losses[int(name)], 100, limit)

    within = [loss for loss in losses if loss <= limit]
    if within:
        assert choose() == (str(len(within) - 1), within[-1])
    else:
        with pytest.raises(WorkError, match="already costs"):
            choose()
