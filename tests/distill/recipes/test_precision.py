"""The key `precision` of each table reaches the networks of its stage, and no others."""

import json

import pytest
import torch

from synth import precision

RECIPE = """
[data]
source = "digits"
size = 8
subset = 100
augmentation = "crop"

[committee]
members = ["convnet2:width=4:norm=batch"]
epochs = 8
batch_size = 20
lr = 0.01

[recover]
ipc = 1
iterations = 2
init = "noise"
drawn = 1

[evaluate]
students = ["convnet2:width=4"]
labels = ["hard"]
seeds = 1
epochs = 2
whole_epochs = 1
"""


@pytest.fixture
def counted(monkeypatch):
    """How often a network was asked in bfloat16."""
    calls = []
    autocast = torch.autocast

    def counting(*arguments):
        calls.append(arguments)
        return autocast(*arguments)

    monkeypatch.setattr(precision.torch, "autocast", counting)
    return calls


def test_each_stage_computes_in_the_precision_of_its_table(command, counted, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE, encoding="utf-8")
    stages = ("committee", "recover", "evaluate")
    for chosen in (None, *stages):
        out, found = tmp_path / f"run-{chosen}", {}
        words = () if chosen is None else ("--set", f"{chosen}.precision=bfloat16")
        for stage in stages:
            counted.clear()
            done = command("run", recipe, "--out", out, "--stage", stage, "--quiet", *words)
            assert done.code == 0, done.err
            found[stage] = bool(counted)
        assert found == {stage: stage == chosen for stage in stages}
    protocols = [
        json.loads((tmp_path / f"run-{name}" / "summary.json").read_text("utf-8"))["protocol"]
        for name in ("evaluate", "recover")
    ]
    assert [protocol["hard"].get("precision") for protocol in protocols] == ["bfloat16", None]
