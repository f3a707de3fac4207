"""A run on packed data is the run on the same data in memory."""

import json

import h5py
import numpy as np
import pytest
import torch


@pytest.fixture
def packed(command, tmp_path):
    outcome = command("pack", "digits", "--size", 8, "--out", tmp_path / "packed", "--json")
    assert outcome.code == 0
    return tmp_path / "packed", json.loads(outcome.out)


def test_a_run_on_packed_data_gives_the_same_set_and_accuracies(
    command, packed, finished, recipe, tmp_path
):
    folder, made = packed
    out = tmp_path / "run"
    words = ("run", recipe, "--set", f"data.source=packed:{folder}", "--out", out, "--quiet")
    outcome = command(*words)
    assert outcome.code == 0, outcome.err
    assert made["images"] == {"train": 1080, "validation": 120, "test": 597}
    with h5py.File(finished / "set.h5") as expected, h5py.File(out / "set.h5") as found:
        for name in ("images", "hard", "labels/learned", "labels/full-fp16/logits"):
            np.testing.assert_array_equal(found[name][()], expected[name][()])
    for name in ("students", "controls"):
        summaries = [json.loads((run / "summary.json").read_text()) for run in (finished, out)]
        assert summaries[0][name] == summaries[1][name]


def test_packed_data_are_shown_and_verified(command, packed, tmp_path):
    folder, made = packed
    shown = json.loads(command("show", folder, "--json").out)
    assert shown["kind"] == "packed data"
    assert (shown["digest"], shown["images"]) == (made["digest"], made["images"])
    assert command("verify", folder).code == 0
    with h5py.File(folder / "test-0000.h5", "r+") as file:
        file["labels"][0] = 1 - min(int(file["labels"][0]), 1)
    outcome = command("verify", folder)
    assert outcome.code == 1
    assert "no longer those that were packed" in outcome.err


def test_a_plan_counts_no_packed_image_as_held(packed):

    from distill.plan.stage_memory import stage_memory
    from distill.plan.times import StageTime
    from distill.recipes.loading import load_recipe
    from distill.stages.units.networks import Units
    from distill.stages.units.shapes import data_shape

    recipe = load_recipe("digits", ["data.size=8"])
    held = []
    for source in ("digits", f"packed:{packed[0]}"):
        shape = data_shape(recipe.data.model_copy(update={"source": source}))
        units = Units(recipe, shape, torch.device("cpu"))
        held.append(stage_memory(units, {"evaluate": StageTime(())}, {"evaluate": 0}))
    read = 4 * 64 * (1080 + 120 + 597)
    assert held[0]["evaluate"].host == read
    assert (held[1]["evaluate"].host, held[1]["evaluate"].device) == (0, 0)


@pytest.mark.parametrize(
    ("source", "code", "message"),
    [("digit", 2, "did you mean 'digits'"), ("npz:/no/such.npz", 1, "cannot be read")],
)
def test_a_source_that_cannot_be_packed_is_refused(command, tmp_path, source, code, message):
    outcome = command("pack", source, "--out", tmp_path / "packed")
    assert outcome.code == code
    assert message in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1
    assert not (tmp_path / "packed").exists()
