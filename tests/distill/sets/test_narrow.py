"""Members of a committee that take their share of a budget, and no more."""

import pytest

from distill.recipes.loading import load_recipe
from distill.recipes.specs import network_width, with_width
from distill.sets.narrow import narrow_members
from distill.sets.network_labels import expected_bytes

FORM = (1, (16, 16), 10)
TWO = "committee.members=convnet3:width=20,resnet18:width=10:norm=batch"


def shared(budget, *keys):
    named = ("select.images=rounded:depth=2", "committee.budget_share=0.4")
    return load_recipe("digits-network", [*named, *keys], budget=budget)


def test_members_are_the_widest_that_fit():
    recipe = shared(3000, "committee.members=convnet3:width=64")
    found = narrow_members(recipe, *FORM)
    (spec,) = found.committee.members
    assert 1 < network_width(spec) < 64
    assert expected_bytes(found, *FORM) <= 0.4 * 3000
    wider = with_width(spec, network_width(spec) + 1)
    table = found.committee.model_copy(update={"members": [wider]})
    beyond = found.model_copy(update={"committee": table})
    assert expected_bytes(beyond, *FORM) > 0.4 * 3000


def test_several_keep_their_proportion_and_what_is_said_of_each():
    own = 'committee.recipes={"resnet18:width=10:norm=batch" = {epochs = 3}}'
    found = narrow_members(shared(9000, TWO, own), *FORM).committee
    first, second = (network_width(spec) for spec in found.members)
    assert first < 20
    assert second == 10 * first // 20
    assert found.members[1] == f"resnet18:width={second}:norm=batch"
    assert found.training(found.members[1]).epochs == 3
    assert expected_bytes(narrow_members(shared(9000, TWO), *FORM), *FORM) <= 0.4 * 9000


@pytest.mark.parametrize("keys", [(), ("committee.budget_share=",)])
def test_none_is_widened_and_none_narrowed_without_a_share(keys):
    recipe = shared(500_000, *keys)
    assert narrow_members(recipe, *FORM) == recipe


def test_a_width_is_an_option_of_a_spec():
    assert network_width("convnet3") == 128
    assert with_width("convnet3", 7) == "convnet3:width=7"
    assert with_width("vgg11:norm=batch:width=8", 7) == "vgg11:width=7:norm=batch"
