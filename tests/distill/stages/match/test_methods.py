"""Every published method, and ours, beats random real images on digits."""

import json
import shutil

import pytest

from distill.__main__ import run

# Digits at their own size and a narrow network: seconds instead of minutes.
NETWORK = "convnet2:width=16"
SMALL = [
    f"experts.network={NETWORK}",
    "experts.count=3",
    "experts.epochs=6",
    "data.size=8",
    "match.iterations=40",
    "match.inner_steps=10",
    "match.max_start_epoch=3",
    "match.student_lr=0.1",
    f"evaluate.students={NETWORK}",
    "evaluate.seeds=2",
    "evaluate.epochs=150",
    "evaluate.whole_epochs=1",
]
METHODS = {
    "exact": [],
    "mtt": [],
    "tesla": [],
    "datm": ["match.grow_from=1", "match.grow_steps=20"],
    "ftd": [],
    "formation": [],
}


def distill(recipe: str, out, stages: list[str], *changes: str) -> None:
    # One name for all recipes: they share a folder's experts.
    settings = ["name=methods", *SMALL, *changes]
    words = [word for stage in stages for word in ("--stage", stage)]
    words += [word for value in settings for word in ("--set", value)]
    assert run(["run", recipe, "--out", str(out), *words]) == 0


@pytest.fixture(scope="session")
def small_experts(tmp_path_factory):
    """A run folder with experts that all methods but FTD share."""
    out = tmp_path_factory.mktemp("methods") / "experts"
    distill("digits-exact", out, ["experts"])
    return out


@pytest.mark.parametrize("method", METHODS)
def test_method_beats_random_images_on_digits(method, small_experts, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(small_experts, out)
    stages = ["experts", "match", "evaluate"]
    distill(f"digits-{method}", out, stages, *METHODS[method])
    found = json.loads((out / "evaluation.json").read_text())
    best = max(stats["mean"] for stats in found["students"][NETWORK].values())
    assert best > found["controls"]["random"][NETWORK]["hard"]["mean"] + 0.03
