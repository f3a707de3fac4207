"""Networks of one's own on the command line: only where the command says so."""

import sys
from contextvars import copy_context
from dataclasses import replace

import pytest
import torch

from distill.errors import RecipeError
from distill.names import allowed_code
from distill.recipes.loading import load_recipe
from distill.run.context import Context, handle_of, open_context
from distill.run.folder import Run
from distill.run.interrupt import Stop
from distill.run.progress import Progress

MODULE = """
from torch import nn


def small(channels, size, classes, width=16):
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(16 * width, classes),
    )
"""
RECIPE = """
[data]
source = "digits"
subset = 100

[select]
ipc = 1
method = "random"

[evaluate]
students = ["{spec}"]
labels = "hard"
seeds = 1
epochs = 1
whole_seeds = 0
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A recipe whose student is code of a module on the path; its name."""
    name = f"allowed_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "mine.toml"
    path.write_text(RECIPE.format(spec=f"{name}:small:width=4"))
    yield path, name
    sys.modules.pop(name, None)


def test_recipe_runs_no_code_unless_the_command_allows_it(recipe, refused, command, tmp_path):
    path, name = recipe
    run = tmp_path / "run"
    said = refused(2, "run", path, "--out", run)
    assert f"add --allow-code {name}" in said
    assert name not in sys.modules
    assert not run.exists()
    assert command("run", path, "--out", run, "--allow-code", name, "-q").code == 0
    said = refused(2, "evaluate", run)
    assert f"add --allow-code {name}" in said
    arguments = ("--students", f"{name}:small:width=2", "--seeds", "1", "--epochs", "1", "-q")
    outcome = command("evaluate", run, *arguments, "--allow-code", name)
    assert outcome.code == 0
    assert f"{name}:small:width=2" in outcome.out
    # The student of a recipe is not needed by those who name others.
    assert command("evaluate", run, "--students", "mlp", "--epochs", "1", "-q").code == 0


def test_no_key_of_a_recipe_allows_code(recipe, refused, tmp_path):
    path, name = recipe
    path.write_text(f'allow_code = ["{name}"]\n{path.read_text()}')
    assert "unknown key allow_code" in refused(2, "run", path, "--out", tmp_path / "run")
    assert name not in sys.modules


def test_changed_code_runs_again(recipe, command, tmp_path):
    path, name = recipe
    arguments = ("run", path, "--out", tmp_path / "run", "--allow-code", name)
    assert command(*arguments).code == 0
    assert command(*arguments).err.count("done before") == 2
    module = tmp_path / f"{name}.py"
    module.write_text(module.read_text().replace("nn.ReLU()", "nn.LeakyReLU()"))
    sys.modules.pop(name)
    found = command(*arguments).err
    assert f"the code or weights of {name}:small:width=4 have changed" in found
    assert found.count("done before") == 1


def test_workers_may_import_what_the_command_allows(recipe, tmp_path):
    path, name = recipe
    spec = f"{name}:small:width=4"
    with allowed_code([name]):
        resolved = load_recipe(str(path))
        context = Context(
            Run(tmp_path), resolved, torch.device("cpu"), Progress(quiet=True), Stop()
        )
        handle = handle_of(context)

    def work() -> int:
        return len(list(open_context(handle).network(spec).parameters()))

    # A worker is a process, which keeps what it was allowed.
    assert copy_context().run(work) == 4
    with pytest.raises(RecipeError, match="add --allow-code"):
        open_context(replace(handle, code=())).network(spec)
