"""Whether networks are compiled is decided once, and kept by the run."""

import json

import pytest
import torch

from distill.recipes import compiling
from distill.recipes.build import build_data
from distill.recipes.loading import load_recipe
from tests.distill.cases import TINY, edited, read_json, write_recipe

CPU = torch.device("cpu")
TABLES = ("experts", "match", "committee", "evaluate")


@pytest.fixture
def tiny(tmp_path):
    recipe = load_recipe(str(write_recipe(tmp_path)), [])
    return recipe, build_data(recipe.data)


def resolved(tiny, earlier=None, lines=None):
    recipe, data = tiny
    say = (lines if lines is not None else []).append
    found = compiling.resolve_compile(recipe, data, CPU, earlier or {}, say)
    return {name: getattr(found, name).compile for name in TABLES}


def test_short_work_is_not_compiled_and_long_work_is(tiny, monkeypatch):
    monkeypatch.setattr(compiling, "find_compiler", lambda: "g++")
    assert set(resolved(tiny).values()) == {"off"}
    monkeypatch.setattr(compiling, "LEAST_COMPILED_FLOPS", 1.0)
    assert set(resolved(tiny).values()) == {"on"}


def test_a_run_keeps_what_it_decided(tiny, monkeypatch):
    monkeypatch.setattr(compiling, "find_compiler", lambda: "g++")
    earlier = {"experts": {"compile": "on"}, "committee": None}
    assert resolved(tiny, earlier) == {**dict.fromkeys(TABLES, "off"), "experts": "on"}


def test_a_machine_without_a_compiler_says_so(tiny, monkeypatch):
    monkeypatch.setattr(compiling, "find_compiler", lambda: None)
    lines = []
    assert resolved(tiny, {"experts": {"compile": "on"}}, lines)["experts"] == "off"
    assert lines == ["experts.compile is on, but there is no C++ compiler; going on without"]


def test_the_manifest_says_what_was_decided(command, tmp_path):
    path = write_recipe(tmp_path)
    assert "compile" not in TINY
    out = tmp_path / "run"
    assert command("experts", path, "--out", out, "--quiet").code == 0
    recipe = read_json(out / "manifest.json")["recipe"]
    assert recipe["experts"]["compile"] == "off"


def test_a_set_that_was_compiled_elsewhere_is_evaluated_without_a_compiler(
    command, run_copy, monkeypatch
):
    with edited(run_copy / "set.h5") as file:
        recipe = json.loads(file.attrs["recipe"])
        recipe["evaluate"]["compile"] = "on"
        file.attrs["recipe"] = json.dumps(recipe)
    monkeypatch.setattr(compiling, "find_compiler", lambda: None)
    monkeypatch.setattr(torch, "compile", lambda *arguments, **options: pytest.fail("compiled"))
    outcome = command("evaluate", run_copy / "set.h5", "--json", "--workers", "1")
    assert outcome.code == 0, outcome.err
    assert "evaluate.compile is on, but there is no C++ compiler" in outcome.err
