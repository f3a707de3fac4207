"""Plans of recipes whose inner steps are labelled by teachers."""

import pytest
import torch

from distill.evaluation.jobs import RANDOM, StudentJob
from distill.plan.sizes import label_bytes
from distill.recipes.loading import load_recipe
from distill.stages.evaluate import evaluate_units, student_parts
from distill.stages.match.units import match_units
from distill.stages.units.networks import Units
from distill.stages.units.shapes import data_shape
from tests.distill.cases import TINY, write_recipe

TEXT = TINY.replace("span = 1", 'span = 1\nsegments = 2\nlabels = "votes"')


@pytest.fixture
def units_of(tmp_path):
    def units(*changes):
        recipe = load_recipe(str(write_recipe(tmp_path, TEXT)), list(changes))
        return Units(recipe, data_shape(recipe.data), torch.device("cpu"))

    return units


@pytest.mark.parametrize(
    ("labels", "name"),
    [
        ("votes", "convnet2:width=8:norm=batch + vgg11:width=4:norm=batch + resnet18:width=4"),
        ("projector", "projector config:tiny-vit, rank 2"),
    ],
)
def test_a_plan_counts_a_pass_of_the_teachers_for_each_inner_step(labels, name, units_of):
    units = units_of(f"match.labels={labels}")
    (task,) = match_units(units, units.recipe.match)
    step, asked = task.parts
    assert task.count == 2
    assert step.times == asked.times == 6 * 3
    families = "colour_crop_cutout_scale_rotate"
    assert asked.unit.what == f"online labels of {name}, {families}"
    assert asked.unit.batch == step.unit.batch == 10
    assert asked.unit.cost(10).flops > 0
    call, count = asked.unit.work(10)
    call()
    assert count == 1


def test_teachers_and_labels_are_kept_beside_an_inner_step(units_of):
    plain, voted = units_of("match.labels=fixed"), units_of()
    (without,) = match_units(plain, plain.recipe.match)[0].parts
    step, asked = match_units(voted, voted.recipe.match)[0].parts
    labels = 4 * 3 * 10 * 10
    kept = step.unit.cost(10).peak_bytes - without.unit.cost(10).peak_bytes
    assert kept == 4 * voted.size(voted.members) + labels
    assert asked.unit.cost(10).peak_bytes > 4 * voted.size(voted.members) + labels


def test_a_voted_set_has_no_learned_labels_to_store_or_to_train_on(units_of):
    units = units_of()
    assert label_bytes(units.recipe, units.shape)["learned"] == 0

    def trajectories(units):
        tasks = evaluate_units(units, units.recipe.evaluate)
        words = [part.unit.what for task in tasks for part in task.parts]
        return sum(
            word.startswith("training step of convnet2:width=4, sgd, colour") for word in words
        )

    learned = units_of("match.labels=learned")
    assert trajectories(learned) > trajectories(units)


@pytest.mark.parametrize(("codec", "control"), [("teacher:bits=4", 1), ("seed+topk:k=2", 0)])
def test_a_kept_network_labels_random_images_too(codec, control, units_of):
    def students(labels):
        asked = f"evaluate.labels={labels}"
        units = units_of("relabel.views=seed", f"encode.codec={codec}", asked)
        tasks = evaluate_units(units, units.recipe.evaluate)
        return sum(task.count for task in tasks if task.mapped)

    seeds = len(units_of().recipe.evaluate.students) * units_of().recipe.evaluate.seeds
    assert students(f"hard,{codec}") - students("hard") == (1 + control) * seeds


@pytest.mark.parametrize(("labels", "batch"), [("hard", 5), ("votes", 10), ("projector", 5)])
def test_random_images_are_batched_as_the_stored_labels_are(labels, batch, units_of):
    units = units_of("evaluate.batch_size=5", "relabel.batch_size=10")
    job = StudentJob(RANDOM, "mlp", labels, 0)
    assert student_parts(units, units.recipe.evaluate, job)[0].unit.batch == batch
