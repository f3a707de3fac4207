"""The benchmark of the objective judges the sets that matching passes through."""

import argparse
import json

import pytest

from distill.recipes.loading import load_recipe
from distill.sets.set_file import read_set
from distill.stages.run_recipe import run_recipe
from tests.distill.cases import write_recipe


@pytest.fixture
def rank(benchmark_module):
    return benchmark_module("objective_rank")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rank")
    recipe = load_recipe(str(write_recipe(folder)))
    run_recipe(recipe, folder / "run", ("experts", "match"), quiet=True)
    return folder / "run"


def test_every_checkpoint_has_a_distance_and_students(rank, run):
    students = ["convnet2:width=4", "mlp"]
    options = argparse.Namespace(every=4, draws=2, seeds=2, students=students)
    found = json.loads(json.dumps(rank.measure(run, options)))
    assert [point["step"] for point in found["points"]] == [0, 4, 6]
    distances = [point["distance"] for point in found["points"]]
    # Its segments are the same each time, and matching lowers their distance.
    assert distances[2] < distances[0]
    assert distances == [point["distance"] for point in rank.measure(run, options)["points"]]
    for student in students:
        assert all(len(point["students"][student]["runs"]) == 2 for point in found["points"])
        assert set(found["spearman"][student]) == {"distance", "step"}


def test_ranks_are_spearmans(rank):
    points = [
        {"step": step, "distance": distance, "students": {"a": {"mean": mean}}}
        for step, distance, mean in ((0, 1.0, 0.1), (1, 0.7, 0.3), (2, 0.9, 0.2), (3, 0.2, 0.9))
    ]
    found = rank.ranks(points, "a")
    assert found["distance"]["correlation"] == pytest.approx(-1)
    # 1 - 6 * sum of d^2 / (n * (n^2 - 1)), with ranks 1 3 2 4 beside 1 2 3 4.
    assert found["step"]["correlation"] == pytest.approx(1 - 6 * 2 / 60)


def test_the_last_checkpoint_is_the_set_that_the_run_made(rank, run, monkeypatch):
    states = []

    def watched(context, content, state, *rest):
        states.append(state)
        return {"mean": 0.5}

    monkeypatch.setattr(rank, "accuracy_of", watched)
    monkeypatch.setattr(rank, "ranks", lambda *_: {})
    rank.measure(run, argparse.Namespace(every=6, draws=1, seeds=1, students=["mlp"]))
    assert states[-1].images.equal(read_set(run / "set.h5").images)
