"""Networks of one's own on the command line: only where the command says so."""

import re
import sys
from contextvars import copy_context
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import distill
from distill.errors import RecipeError, WorkError
from distill.names import allowed_code
from distill.recipes.loading import load_recipe
from distill.run.context import Context, handle_of, open_context
from distill.run.folder import Run
from distill.run.interrupt import Stop
from distill.run.progress import Progress
from projectors.codecs import registry

DOCS = Path(__file__).resolve().parents[3] / "docs"

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


SHADES = """
import torch

from distill.data import DataError, SourceSplits, Split


def shades(request):
    if not request.argument:
        raise ValueError("how many?")
    labels = torch.arange(int(request.argument)).repeat_interleave(12)
    light = (labels + 1) / (len(labels) / 12 + 1)
    noise = torch.rand(len(labels), 1, 8, 8, generator=torch.Generator().manual_seed(0))
    images = (light.view(-1, 1, 1, 1) + 0.1 * noise).clamp(0, 1)
    names = tuple(f"shade {n}" for n in range(int(request.argument)))
    return SourceSplits(Split(images, labels), Split(images, labels), names)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Writes a module of one's own on the path; its name."""
    made = []

    def write(text):
        name = f"own_{tmp_path.name.replace('-', '_')}{len(made)}"
        made.append(name)
        (tmp_path / f"{name}.py").write_text(text)
        return name

    monkeypatch.syspath_prepend(tmp_path)
    yield write
    for name in made:
        sys.modules.pop(name, None)


def test_data_of_own_code_are_read_where_the_command_allows_it(own, refused, command, tmp_path):
    name = own(SHADES)
    path = tmp_path / "shades.toml"
    text = RECIPE.format(spec="mlp").replace("subset = 100", "")
    path.write_text(text.replace('"digits"', f'"{name}:shades:4"'))
    run = tmp_path / "run"
    said = refused(2, "run", path, "--out", run)
    assert f"for code of a module of your own, add --allow-code {name}" in said
    assert name not in sys.modules
    allowed = ("--allow-code", name)
    assert command("run", path, "--out", run, *allowed, "-q").code == 0
    # Every command that reads the data has the option.
    assert "--allow-code" in refused(2, "evaluate", run, "--epochs", "1", "-q")
    assert command("report", run, *allowed).code == 0
    assert command("pack", f"{name}:shades:3", "--out", tmp_path / "pack", *allowed, "-q").code == 0
    line = refused(1, "run", path, "--out", run, *allowed, "--set", f"data.source={name}:shades")
    assert f"ValueError: how many?; mend {name}" in line
    assert "did you mean 'folder'" in refused(2, "run", path, "--out", run, "--set",
                                             "data.source=folders:photos")  # fmt: skip


def test_labels_are_encoded_by_an_own_codec_and_read_again(own, refused, command, tmp_path):
    page = (DOCS / "how-to" / "own-codec.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    codec = next(block for block in blocks if "class Signs" in block)
    name = own(codec.replace('"signs"', '"own-signs"'))
    path = tmp_path / "mine.toml"
    teacher = '[committee]\nmembers = ["mlp"]\nepochs = 15\n[relabel]\nepochs = 2\n'
    path.write_text(teacher + RECIPE.format(spec="mlp").replace('"hard"', '"votes"'))
    run, small, allowed = tmp_path / "run", tmp_path / "small.h5", ("--allow-code", name)
    assert command("run", path, "--out", run, "-q").code == 0
    spec = f"seed+{name}:Signs"
    said = refused(2, "encode", run, "--codec", spec, "--out", small, "-q")
    assert f"add --allow-code {name}" in said
    assert name not in sys.modules
    encoded = command("encode", run, "--codec", spec, "--out", small, *allowed, "-q")
    assert encoded.code == 0, encoded.err
    # Another process knows the codec by the module alone.
    assert registry.CODECS.pop("own-signs") is sys.modules[name].Signs
    words = ("evaluate", small, "--labels", spec, "--seeds", "1", "--epochs", "1", "-q")
    assert f"add --allow-code {name}" in refused(2, *words)
    assert command(*words, *allowed).code == 0
    with allowed_code([name]):
        assert distill.load(small).votes is not None
    registry.CODECS.pop("own-signs")
    with pytest.raises(WorkError, match="register it with projectors"):
        distill.load(small)


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
