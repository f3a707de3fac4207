"""The packaged recipe does not diverge, whatever the seed."""

import json

import pytest

from distill.__main__ import run
from distill.sets.set_file import read_set


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_digits_recipe_does_not_diverge(seed, tmp_path):
    out = tmp_path / "run"
    words = ["run", "digits", "--out", str(out), "--seed", str(seed), "--quiet"]
    assert run([*words, "--stage", "experts", "--stage", "match"]) == 0
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    distances = [row["distance"] for row in rows if row["stage"] == "match"]
    first, last = distances[:20], distances[-20:]
    assert sum(last) / len(last) < 0.9 * sum(first) / len(first)
    assert read_set(out / "set.h5").images.abs().max() < 20
