"""The benchmark of a recipe's stages counts what they compute."""

import argparse

import pytest

from distill.recipes.loading import load_recipe
from distill.stages.loading import planned
from tests.distill.cases import write_recipe


@pytest.fixture
def pipeline(benchmark_module):
    return benchmark_module("pipeline")


@pytest.fixture
def recipe(tmp_path):
    return write_recipe(tmp_path)


def test_operations_of_a_stage_grow_with_its_epochs(pipeline, recipe, tmp_path):
    counts = []
    for epochs in (3, 6):
        settings = load_recipe(str(recipe), [f"experts.epochs={epochs}", "experts.count=1"])
        counts.append(pipeline.counted(settings, "experts", tmp_path / str(epochs)))
    assert counts[0] > 1e6
    assert counts[1] == 2 * counts[0]


def test_a_stage_is_timed_in_a_process_of_its_own(pipeline, recipe, tmp_path):
    found = pipeline.timed([str(recipe), "--set", "experts.count=1"], "experts", tmp_path / "r", 1)
    assert found["seconds"] > 0
    assert found["peak_memory_bytes"] > 1e6


def test_every_stage_of_a_recipe_is_measured(pipeline, recipe, tmp_path, monkeypatch):
    entry = {"seconds": 1.0, "peak_memory_bytes": 1}
    monkeypatch.setattr(pipeline, "timed", lambda words, stage, folder, threads: entry)
    monkeypatch.setattr(pipeline, "counted", lambda recipe, stage, folder: 1)
    monkeypatch.setattr(pipeline, "product_rate", lambda device: 1.0)
    options = argparse.Namespace(recipe=str(recipe), set=["seed=0"], device="cpu", threads=1)
    found = pipeline.measure(options, tmp_path)
    assert list(found["stages"]) == [stage.name for stage in planned(load_recipe(str(recipe)))]
