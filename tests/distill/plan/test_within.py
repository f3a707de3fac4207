"""Which settings fit into a time."""

import pytest

from distill.plan.within import as_settings, find_settings, with_values
from distill.recipes.loading import load_recipe

RECIPE = load_recipe(
    "digits-exact",
    ["experts.count=10", "match.iterations=1000", "match.ipc=10", "evaluate.seeds=4",
     "evaluate.students=convnet3,mlp,vgg11"],
)  # fmt: skip


def price(recipe):
    """10 s for each expert, 1 s an iteration of 10 images a class, 30 s a student."""
    students = recipe.evaluate.seeds * len(recipe.evaluate.students)
    return (
        recipe.experts.count * 10 + recipe.match.iterations * recipe.match.ipc / 10 + 30 * students
    )


def test_each_setting_is_the_largest_that_fits_alone():
    found = find_settings(RECIPE, 900, price)
    assert (found.seconds, found.fits) == (1460, False)
    assert found.alone["match.iterations"] == 440
    assert found.alone["match.ipc"] == 4
    assert not {"experts.count", "evaluate.seeds", "evaluate.students"} & found.alone.keys()
    for key, value in found.alone.items():
        assert price(with_values(RECIPE, {key: value})) <= 900
        assert price(with_values(RECIPE, {key: value + 1})) > 900


def test_all_in_proportion_fit_and_little_more_would_not():
    found = find_settings(RECIPE, 900, price)
    assert found.together_seconds <= 900
    assert found.together_seconds > 750
    assert 1 <= found.together["experts.count"] < 10
    # What it says can be given to a run.
    settings = as_settings(RECIPE, found.together)
    changed = load_recipe("digits-exact", settings)
    assert changed.match.iterations == found.together["match.iterations"]


def test_students_are_named():
    found = find_settings(RECIPE, 1400, price)
    assert found.alone["evaluate.students"] == 2
    assert "evaluate.students=convnet3,mlp" in as_settings(RECIPE, found.alone)


@pytest.mark.parametrize(("limit", "fits"), [(1460, True), (1459, False)])
def test_a_recipe_that_fits_stays_as_it_is(limit, fits):
    found = find_settings(RECIPE, limit, price)
    assert found.fits is fits
    assert bool(found.alone) is not fits


def test_a_time_that_nothing_fits_or_is_not_known_gives_no_settings():
    assert find_settings(RECIPE, 10, price).together == {}
    assert find_settings(RECIPE, 10, price).alone == {}
    assert find_settings(RECIPE, 10, lambda recipe: None).seconds is None


def test_the_plan_says_what_fits(recipe, command, refused):
    line = refused(2, "plan", recipe, "--within", "15")
    assert "'15' is no time; write it as 90s, 15m, 2h or 1d" in line
    shown = command("plan", recipe, "--within", "0.1s", "--workers", "1")
    assert shown.code == 0, shown.err
    assert "\n\nto fit into 0.1 s, in place of" in shown.out
    assert "\n\nparameters\n" in shown.out
    assert "\\n" not in shown.out, "line ends, and not their names"
    shown = command("plan", recipe, "--within", "9d", "--workers", "1")
    assert "fits into 9.0 days" in shown.out
