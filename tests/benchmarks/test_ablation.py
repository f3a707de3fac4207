"""Ablations of several seeds: what is run, pooled and compared."""

import json

import pytest

SPEC = """
title = "parts"
recipe = "digits-exact"
stages = ["experts"]
seeds = [3, 4]
shared = ["match.iterations=2", "evaluate.seeds=2"]

[variants]
"first" = []
"other" = ["match.gradient=frozen"]
"""


def summary(runs, seconds):
    stats = {"runs": runs, "mean": sum(runs) / len(runs), "std": 0.0, "interval": None}
    return {
        "students": {"mlp": {"learned": stats}},
        "controls": {"random": {"mlp": {"hard": stats}}, "whole": {}},
        "bytes": {"images": 4},
        "stages": {"match": {"seconds": seconds}},
    }


FIRST = {"summaries": {"3": summary([0.5, 0.7], 1.0), "4": summary([0.6, 0.8], 2.0)}}
OTHER = {"summaries": {"3": summary([0.7, 0.7], 1.0), "4": summary([0.7, 0.9], 2.0)}}


@pytest.fixture
def tables(benchmark_module):
    return benchmark_module("ablation_tables")


def test_students_of_all_seeds_are_pooled(benchmark_module):
    pooled = benchmark_module("measured").summary_of(FIRST)
    stats = pooled["students"]["mlp"]["learned"]
    assert stats["runs"] == [0.5, 0.7, 0.6, 0.8]
    assert stats["mean"] == pytest.approx(0.65)
    assert pooled["controls"]["random"]["mlp"]["hard"]["runs"] == stats["runs"]
    assert pooled["stages"] == {"match": {"seconds": 3.0}}


def test_gains_are_paired_by_seed_with_students_t(tables):
    # Seed 3 gains 0.1 and seed 4 gains 0.1: means 0.6 and 0.7 against 0.7 and 0.8.
    means = tables.seed_means(OTHER, "mlp", "learned")
    assert means == {"3": pytest.approx(0.7), "4": pytest.approx(0.8)}
    assert tables.gain(means, FIRST, "mlp", None) == "+10.0 ± 0.0"
    # Gains of 5 and 15 points: standard error 5, and t at one degree of freedom is 12.706.
    assert tables.gain({"3": 0.65, "4": 0.85}, FIRST, "mlp", "learned") == "+10.0 ± 63.5"


def test_a_row_has_the_spread_of_the_seeds_means(tables):
    result = {"title": "parts", "seeds": [3, 4], "variants": {"first": FIRST, "other": OTHER}}
    head, _, first, other, _, legend = tables.ablation_table(result)
    assert head == "| parts | labels | `mlp` | gain | random real images |"
    assert first == "| first | learned soft labels | 65.0 ± 7.1 | – | 65.0 ± 12.9 |"
    assert other.split(" | ")[2:4] == ["75.0 ± 7.1", "+10.0 ± 0.0"]
    assert legend.startswith("Images made 2 times, 2 students each")


def test_all_is_made_for_each_seed_and_nothing_again(benchmark_module, monkeypatch, tmp_path):
    ablation = benchmark_module("ablation")
    spec, results = tmp_path / "parts.toml", tmp_path / "results"
    spec.write_text(SPEC, encoding="utf-8")
    results.mkdir()
    ran = []

    def run_recipe(recipe, folder, stages=(), *, quiet):
        ran.append((recipe.seed, recipe.match.gradient, tuple(stages), folder))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "summary.json").write_text(json.dumps(summary([0.5, recipe.seed / 10], 1.0)))

    monkeypatch.setattr(ablation, "run_recipe", run_recipe)
    monkeypatch.setattr(ablation, "RESULTS", results)
    monkeypatch.setattr(ablation, "same_code", lambda commit: True)
    words = ["ablation.py", str(spec), "--work", str(tmp_path / "work")]
    monkeypatch.setattr(ablation.sys, "argv", words)
    ablation.main()
    made = [(seed, gradient) for seed, gradient, stages, _ in ran if not stages]
    assert made == [(3, "adjoint"), (4, "adjoint"), (3, "frozen"), (4, "frozen")]
    assert len({folder for *_, stages, folder in ran if not stages}) == 4
    assert {seed for seed, _, stages, _ in ran if stages == ("experts",)} == {3, 4}
    result = json.loads((results / "parts.json").read_text(encoding="utf-8"))
    assert result["seeds"] == [3, 4]
    found = result["variants"]["other"]["summaries"]
    assert {seed: each["students"]["mlp"]["learned"]["runs"] for seed, each in found.items()} == {
        "3": [0.5, 0.3],
        "4": [0.5, 0.4],
    }
    ran.clear()
    ablation.main()
    assert ran == []
    spec.write_text(SPEC.replace("[3, 4]", "[3, 5]"), encoding="utf-8")
    ablation.main()
    assert len([1 for *_, stages, _ in ran if not stages]) == 4
