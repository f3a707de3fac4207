"""bfloat16 on a processor without instructions for it is called slow, with what to set."""

import pytest
import torch

from distill.recipes import slow_precision
from distill.recipes.loading import check_recipe, load_recipe
from distill.recipes.slow_precision import precision_note

OLD = {"architecture": "x86_64", "avx2": True, "avx512_bw": False, "avx_ne_convert": False}
CPU = torch.device("cpu")


def recipe_with(*overrides):
    return load_recipe("digits", list(overrides))


@pytest.mark.parametrize(
    ("processor", "device", "noted"),
    [
        (OLD, "cpu", True),
        ({**OLD, "avx512_bw": True}, "cpu", False),
        ({**OLD, "avx_ne_convert": True}, "cpu", False),
        ({"architecture": "aarch64"}, "cpu", False),
        ({}, "cpu", False),
        (OLD, "cuda", False),
    ],
)
def test_note_is_for_processors_that_are_known_to_lack_it(processor, device, noted):
    recipe = recipe_with("evaluate.precision=bfloat16")
    assert bool(precision_note(recipe, torch.device(device), processor)) is noted


def test_note_names_each_key_that_asks_for_it_and_the_settings_that_help():
    assert precision_note(recipe_with(), CPU, OLD) == ""
    one = precision_note(recipe_with("evaluate.precision=bfloat16"), CPU, OLD)
    assert one.startswith("evaluate.precision is bfloat16")
    assert one.endswith("--set evaluate.precision=float32")
    both = precision_note(
        recipe_with("evaluate.precision=bfloat16", "committee.precision=bfloat16"), CPU, OLD
    )
    assert both.startswith("committee.precision and evaluate.precision are bfloat16")
    settings = both.split("; add ")[1].split(" --set ")
    settings[0] = settings[0].removeprefix("--set ")
    assert settings == ["committee.precision=float32", "evaluate.precision=float32"]
    # What is advised is accepted, and silences the note.
    assert precision_note(recipe_with("evaluate.precision=bfloat16", *settings), CPU, OLD) == ""


def test_storage_of_snapshots_in_bfloat16_is_not_meant():
    assert precision_note(recipe_with("experts.storage=bfloat16"), CPU, OLD) == ""


def test_recipe_without_these_tables_needs_no_note():
    recipe = check_recipe(
        {"data": {"source": "digits"}, "select": {"ipc": 1, "method": "random"}}, "the recipe"
    )
    assert precision_note(recipe, CPU, OLD) == ""


def test_plan_and_run_say_so(command, monkeypatch, tmp_path):
    estimate = {"data": {"channels": 1}}
    monkeypatch.setattr("distill.plan.make_plan", lambda *given, **named: estimate)
    monkeypatch.setattr(slow_precision.torch.cpu, "get_capabilities", lambda: OLD, raising=False)
    words = ("digits", "--device", "cpu", "--set", "evaluate.precision=bfloat16")
    assert "note: evaluate.precision is bfloat16" in command("plan", *words, "--json").err
    stored = tmp_path / "times.json"
    elsewhere = command("plan", *words, "--json", "--calibration", stored)
    assert "bfloat16" not in elsewhere.err
    ran = command("run", *words, "--out", tmp_path / "run", "--stage", "relabel")
    assert "note: evaluate.precision is bfloat16" in ran.err
