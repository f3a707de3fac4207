"""match.student_lr = "auto" on the tiny run's experts."""

import pytest
import torch

from distill.recipes.loading import load_recipe
from distill.stages.match.problem import match_problem
from distill.stages.match.start import starting_state
from synth import Adjoint
from synth.matching.mean_gradient import mean_gradient
from synth.matching.start_rate import BEARABLE
from tests.distill.cases import TINY, reading_context, write_recipe


@pytest.fixture
def opened(finished, tmp_path):
    """The context of the tiny recipe with changes, on its run."""
    recipe_file = write_recipe(tmp_path, TINY)

    def open_with(*changes):
        return reading_context(finished, load_recipe(str(recipe_file), list(changes)))

    return open_with


@pytest.mark.parametrize("labels", ["learned", "target"])
def test_matching_begins_at_a_rate_that_hardly_moves_a_student_away_from_its_target(labels, opened):
    changes = ("match.student_lr=auto", "match.ipc=2", f"match.labels={labels}")
    context = opened(*changes)
    table = context.recipe.match
    state = starting_state(context, table)
    assert 1e-5 <= float(state.student_lr) <= 1
    assert torch.equal(starting_state(context, table).student_lr, state.student_lr)
    problem = match_problem(context, table, len(state.labels), None)
    choices = [choice for step in range(3) for choice in problem.choose(step)]
    distance = mean_gradient(state.now, choices, problem, Adjoint()).distance
    assert distance <= BEARABLE + 1e-3
