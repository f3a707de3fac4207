"""Towers that see too little in the images are called so, with what to do."""

import pytest

from distill.recipes.loading import check_recipe
from distill.recipes.weak_towers import agreement_note, agreement_note_of, tower_note

RECIPE = {
    "data": {"source": "digits"},
    "select": {"ipc": 1, "method": "random"},
    "committee": {"members": ["mlp"]},
}


@pytest.mark.parametrize(
    ("tower", "channels", "noted"),
    [
        ("glyphclip", 3, True),
        ("glyphclip", 1, False),
        ("config:tiny-vit", 3, False),
    ],
)
def test_tower_of_characters_is_called_weak_for_colour_images_alone(tower, channels, noted):
    recipe = check_recipe({**RECIPE, "projector": {"tower": tower}}, "the recipe")
    note = tower_note(recipe, channels)
    assert bool(note) is noted
    assert ("knows characters" in note and "config:tiny-vit" in note) is noted


def test_plan_says_that_a_tower_does_not_fit_colour_images(command, monkeypatch):
    estimate = {"data": {"channels": 3}}
    monkeypatch.setattr("distill.plan.make_plan", lambda *given, **named: estimate)
    outcome = command("plan", "digits", "--json")
    assert "note: projector.tower = glyphclip knows characters" in outcome.err
    estimate["data"]["channels"] = 1
    assert command("plan", "digits", "--json").err == ""


def test_recipe_without_a_projector_needs_no_note():
    assert tower_note(check_recipe(RECIPE, "the recipe"), 3) == ""


def test_projector_below_class_means_of_pixels_is_called_weak():
    note = agreement_note(0.226, 0.274, "glyphclip")
    assert "22.6% of the held-out images" in note
    assert "27.4%" in note
    assert agreement_note(0.274, 0.274, "glyphclip")
    assert agreement_note(0.5, 0.274, "glyphclip") == ""


def test_a_tower_is_not_advised_to_who_has_it():
    assert 'projector.tower to "open_clip' in agreement_note(0.2, 0.3, "glyphclip")
    assert '"config:tiny-vit" with' in agreement_note(0.2, 0.3, "glyphclip")
    note = agreement_note(0.2, 0.3, "config:tiny-vit")
    assert "config:tiny-vit" not in note
    assert "raise projector.steps or projector.rank" in note


def test_last_fit_of_a_run_counts():
    rows = [
        {"stage": "project", "held_out_agreement": 0.1, "nearest_mean": 0.3},
        {"stage": "project", "step": 1, "agreement": 0.4},
        {"stage": "project", "held_out_agreement": 0.2, "nearest_mean": 0.4},
    ]
    recipe = {"projector": {"tower": "config:tiny-vit"}}
    assert agreement_note_of(rows, recipe) == agreement_note(0.2, 0.4, "config:tiny-vit")
    assert agreement_note_of([*rows, {**rows[0], "held_out_agreement": 0.9}], recipe) == ""
    assert agreement_note_of([], {}) == ""
