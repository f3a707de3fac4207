"""Digits in 2,000 bytes of everything: within the budget, and above coded real images."""

import json

import pytest

from distill.sets.cost import count_bytes
from distill.sets.set_file import read_set

pytestmark = pytest.mark.slow

pytest.importorskip("constriction", reason="pip install 'limbeck[compact]'")


def test_the_recipe_beats_coded_real_images_on_both_students(command, tmp_path):
    out = tmp_path / "run"
    outcome = command("run", "digits-2kb", "--out", out, "--quiet", "--json")
    assert outcome.code == 0, outcome
    summary = json.loads(outcome.out)["summary"]
    assert count_bytes(read_set(out / "set.h5"))["total"] <= 2000
    assert summary["bytes"]["total"] <= 2000
    for student, sources in summary["students"].items():
        control = summary["controls"]["coded"][student]["hard"]
        assert len(sources["hard"]["runs"]) == len(control["runs"]) == 5
        assert control["bytes"] <= 2000
        assert sources["hard"]["mean"] > control["mean"], student
