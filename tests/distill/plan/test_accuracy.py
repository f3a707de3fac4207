"""Plans against real runs, each in a process of its own."""

import json
import os
import subprocess
import sys

import pytest

from tests.distill.cases import TINY, read_json, write_recipe

# Enough work that every stage takes a second or more, and loads that are not the tiny run's.
SMALL = (
    TINY.replace("size = 8\nsubset = 100", "size = 16\nsubset = 600")
    .replace("epochs = 3\nbatch_size = 20", "epochs = 6\nbatch_size = 40")
    .replace('network = "convnet2:width=4"', 'network = "convnet3:width=32"')
    .replace("iterations = 6", "iterations = 60")
    .replace("inner_steps = 3", "inner_steps = 10")
    .replace("epochs = 4\nbatch_size = 10", "epochs = 200\nbatch_size = 10")
    .replace("steps = 5", "steps = 40")
    .replace("epochs = 3\nwhole_epochs = 1", "epochs = 60\nwhole_epochs = 3")
)
# On one thread, a stage's seconds are those that the processor spent on it: what other processes
# take from a shared machine is in neither the plan nor this. The machine's speed drifts too, so
# each stage is priced right before it runs and right after.
TIMES = """
import json, sys, time, torch
from pathlib import Path
from distill.stages.run_recipe import run_recipe
from distill.plan.clock import Clock
from distill.plan.times import stage_times
from distill.recipes.loading import load_recipe
from distill.stages.units.networks import Units
from distill.stages.units.shapes import data_shape
recipe, out = load_recipe(sys.argv[1]), Path(sys.argv[2])
def price(stage):
    shape, device = data_shape(recipe.data), torch.device("cpu")
    ((_, time),) = stage_times(Units(recipe, shape, device), Clock(shape, device), stage)
    return time.seconds
found = {}
for stage in ("experts", "match", "committee", "relabel", "project", "evaluate"):
    before = price(stage)
    started = time.process_time()
    run_recipe(recipe, out, (stage,), quiet=True)
    seconds = time.process_time() - started
    found[stage] = [before, seconds, price(stage)]
print(json.dumps(found))
"""
RUN = """
import sys
from pathlib import Path
from distill.stages.run_recipe import run_recipe
from distill.recipes.loading import load_recipe
run_recipe(load_recipe(sys.argv[1]), Path(sys.argv[2]), quiet=True)
print("{}")
"""


def child(*arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=True, env=environment
    )
    return json.loads(done.stdout)


def outside_a_quarter(ratios):
    return {stage: ratio for stage, ratio in ratios.items() if not 0.75 <= ratio <= 1.25}


@pytest.mark.slow
def test_seconds_of_every_stage_are_within_a_quarter(tmp_path):
    recipe = write_recipe(tmp_path, SMALL)
    found = child("-c", TIMES, str(recipe), str(tmp_path / "run"))
    ratios = {name: (before + after) / 2 / real for name, (before, real, after) in found.items()}
    assert not outside_a_quarter(ratios), found


@pytest.mark.slow
def test_peak_memory_of_every_stage_is_within_a_quarter(tmp_path):
    recipe = write_recipe(tmp_path, SMALL)
    plan = child("-m", "distill", "plan", str(recipe), "--json")
    child("-c", RUN, str(recipe), str(tmp_path / "run"))
    ratios = {
        name: plan["memory"]["stages"][name]["peak"] / stage["peak_memory_bytes"]
        for name, stage in read_json(tmp_path / "run" / "manifest.json")["stages"].items()
    }
    assert not outside_a_quarter(ratios), ratios
