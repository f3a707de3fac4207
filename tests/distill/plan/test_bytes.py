"""Plans of recipes that keep images in few bytes: the search, matching, and the control."""

import json
from dataclasses import replace

import pytest
import torch

from distill.evaluation.coded import FINALISTS
from distill.evaluation.jobs import RANDOM, STUDENTS, StudentJob
from distill.plan import make_plan
from distill.plan.clock import QUICK, Clock
from distill.recipes.build import build_coding, build_data
from distill.recipes.loading import load_recipe
from distill.recipes.tables.match import MatchTable
from distill.sets.coded_images import CODINGS, FACTORS
from distill.sets.coded_set import best_coder
from distill.stages.evaluate import evaluate_units, student_parts
from distill.stages.match.units import match_units
from distill.stages.search import searched_factors
from distill.stages.units.coded import fitting_ipc, packing, set_bytes
from distill.stages.units.networks import Units
from distill.stages.units.search import planned_search, search_units
from distill.stages.units.shapes import DataShape, data_shape
from synth.coding import pack_images
from tests.distill.cases import TINY, write_recipe

BUDGET = TINY[: TINY.index("[committee]")] + (
    '[evaluate]\nstudents = ["convnet2:width=4", "mlp"]\nseeds = 2\nepochs = 10\n'
    'whole_epochs = 1\nlabels = ["hard"]\nequal_bytes = true\n'
)
CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def hurry():
    """The calibration with as few repetitions as there can be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distill.plan.QUICK", replace(QUICK, repeated=0.0))
        yield


def units_of(recipe):
    return Units(recipe, data_shape(recipe.data), CPU)


@pytest.mark.parametrize("spec", CODINGS)
def test_images_that_fit_are_about_those_of_real_data(spec):
    table = load_recipe("digits").data
    data, shape = build_data(table), data_shape(table)
    first = [torch.nonzero(data.train.labels == label).flatten()[:20] for label in range(10)]
    pixels = data.train.images[torch.cat(first)]
    coding = build_coding(spec, tuple(pixels.shape), data.classes)
    size = len(pack_images(coding, coding.start(pixels), best_coder()))
    assert fitting_ipc(spec, size, shape) == pytest.approx(20, rel=0.3)


def test_images_that_fit_are_at_least_one_and_at_most_what_there_is():
    shape = DataShape(10, 1, (16, 16), 1000, 10, 10)
    assert fitting_ipc("rounded:depth=1", 1, shape) == 1
    assert fitting_ipc("rounded:depth=1", 10**9, shape) == 100
    assert fitting_ipc("rounded:depth=1", 10**9, shape, tiles=4) == 25
    assert fitting_ipc("bases:count=3", 3200, shape) == 20


def test_a_set_is_as_large_as_its_budget_or_its_images_and_labels(tmp_path):
    path = str(write_recipe(tmp_path))
    recipe = load_recipe(path)
    shape = data_shape(recipe.data)
    assert set_bytes(recipe, shape, "hard") == 10 * 64 * 4 + 10
    assert set_bytes(recipe, shape, "learned") == 10 * 64 * 4 + 10 * 10 * 4
    coded = load_recipe(path, ["match.images=rounded:depth=1"])
    assert set_bytes(coded, shape, "hard") == int(10 * 64 * 0.24 / 8) + 10
    budget = load_recipe(path, ["match.budget_bytes=500"])
    assert set_bytes(budget, shape, "hard") == 500


def test_a_search_trains_a_student_for_each_way_that_it_tries(tmp_path):
    recipe = load_recipe(str(write_recipe(tmp_path, BUDGET)), ["data.size=16"], budget=1000)
    (task,) = search_units(units_of(recipe), recipe.match)
    trainings = [part for part in task.parts if part.unit.what.startswith("training step")]
    packed = [part for part in task.parts if part.unit.what.startswith("packing")]
    factors = searched_factors(recipe.match, (16, 16))
    assert len(trainings) == len(packed) == len(CODINGS) * len(factors)
    for part in trainings:
        # 400 batches of 100 images, or so many epochs of fewer images.
        assert part.times == 400 if part.unit.batch < 100 else 200 <= part.times <= 400
    assert not task.mapped


def test_a_search_leaves_one_of_its_candidates():
    shape = DataShape(10, 1, (16, 16), 1000, 10, 10)
    recipe = load_recipe("digits", ["within_bytes="], budget=2000)
    table = MatchTable(ipc=1, budget_bytes=2000, search=["images", "ipc", "factor"])
    found = planned_search(recipe, table, shape)
    assert found.images in CODINGS
    assert found.ipc == fitting_ipc(found.images, 2000, shape, found.factor**2)
    assert found.batch_size == 100
    given = MatchTable(ipc=3, budget_bytes=2000, search=["images"])
    assert planned_search(recipe, given, shape).ipc == 3


def test_matching_pays_for_its_coding_at_every_outer_step(tmp_path):
    keys = ["match.images=rounded:depth=2", "match.budget_bytes=600"]
    path = str(write_recipe(tmp_path, BUDGET))
    recipe = load_recipe(path, keys)
    units = units_of(recipe)
    inner, coded = match_units(units, recipe.match)
    assert coded.parts[0].times == recipe.match.iterations == 6
    assert inner.parts[0].times == 6 * 3
    assert Clock(units.shape, CPU).time(coded.parts[0].unit).seconds > 0
    plain = load_recipe(path)
    assert len(match_units(units_of(plain), plain.match)) == 1


def test_the_controls_at_equal_bytes_have_a_search_and_students_of_every_seed(tmp_path):
    recipe = load_recipe(str(write_recipe(tmp_path, BUDGET)))
    units = units_of(recipe)
    with_control = evaluate_units(units, recipe.evaluate)
    plain = recipe.evaluate.model_copy(update={"equal_bytes": False})
    before = sum(task.count for task in evaluate_units(units, plain) if task.mapped)
    mapped = sum(task.count for task in with_control if task.mapped)
    # For each student a short training in each way, whole ones of the best, and coded images,
    # random and herded, of both seeds; a short training for either number of bits, and both
    # networks.
    ways = len(CODINGS) * len(FACTORS)
    assert mapped - before == 2 * (ways + FINALISTS + 2 * 2) + 2 + 2
    packed = [task for task in with_control if not task.mapped]
    assert len(packed) == ways + 1
    assert all(task.parts[0].unit.what.startswith("packing of") for task in packed)


def test_random_images_are_as_many_as_are_stored(tmp_path):
    recipe = load_recipe(str(write_recipe(tmp_path, BUDGET)), ["match.factor=2", "match.ipc=2"])
    units = units_of(recipe)
    batches = {
        group: student_parts(units, recipe.evaluate, StudentJob(group, "mlp", "hard", 0))[0].unit
        for group in (STUDENTS, RANDOM)
    }
    assert batches[STUDENTS].batch == 2 * 10 * 4
    assert batches[RANDOM].batch == 2 * 10


def test_images_are_packed_to_be_timed():
    units = units_of(load_recipe("digits"))
    found = Clock(units.shape, CPU).time(packing(units, "frequency:step=0.4", 30))
    assert 0 < found.seconds < 5
    assert found.flops == 0


def test_the_plan_says_the_budget_and_prices_the_search(tmp_path, command):
    path = write_recipe(tmp_path, BUDGET)
    plan = make_plan(load_recipe(str(path), budget=1000))
    assert plan["budget"]["bytes"] == 1000
    assert plan["budget"]["searched"] == ["images", "ipc", "factor"]
    times = plan["time"]
    assert times["search"]["seconds"] > 0
    stages = sum(stage["seconds"] for stage in times["stages"].values())
    assert times["seconds"] == pytest.approx(stages + times["search"]["seconds"])
    text = command("plan", path, "--bytes", "1000").out
    for words in ("1,000 bytes is the budget", "images, ipc, factor here as a search", "search"):
        assert words in text
    given = json.loads(command("plan", path, "--json", "--set", "match.budget_bytes=3000").out)
    assert given["budget"]["images"] == "pixels"
    assert "search" not in given["time"]
    assert make_plan(load_recipe(str(path)))["budget"] is None
