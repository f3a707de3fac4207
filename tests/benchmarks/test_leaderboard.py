"""The leaderboard: what a row says is what its result file says."""

import csv
import io
import json

import pytest

from tests.benchmarks.conftest import BENCHMARKS


@pytest.fixture
def leaderboard(benchmark_module):
    return benchmark_module("leaderboard")


def result_of(name):
    return json.loads((BENCHMARKS / "results" / f"{name}.json").read_text(encoding="utf-8"))


def read(leaderboard, name):
    rows = leaderboard.rows_of(name, result_of(name))
    return list(csv.DictReader(io.StringIO(leaderboard.leaderboard_csv(rows))))


def row_of(rows, **wanted):
    (found,) = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    return found


def test_a_run_has_a_row_of_each_student_and_label_with_all_controls(leaderboard):
    name = "fashion-mnist-30kb-network"
    result, rows = result_of(name), read(leaderboard, name)
    assert len(rows) == sum(map(len, result["summary"]["students"].values()))
    row = row_of(rows, student="mlp")
    controls, labels = result["summary"]["controls"], row["labels"]
    assert float(row["accuracy"]) == pytest.approx(
        result["summary"]["students"]["mlp"][labels]["mean"], abs=5e-5
    )
    network = next(iter(controls["network"].values()))
    for control, by_label in (
        ("random", controls["random"]["mlp"]),
        ("coded", controls["coded"]["mlp"]),
        ("herded", controls["herded"]["mlp"]),
        ("whole", controls["whole"]["mlp"]),
        ("network", network),
    ):
        stats = by_label.get(labels) or by_label["hard"]
        assert float(row[control]) == pytest.approx(stats["mean"], abs=5e-5), control
    assert int(row["bytes"]) == result["summary"]["bytes"]["totals"][labels]
    assert (row["commit"], row["date"]) == (result["commit"], result["date"])
    assert (row["set"], row["machine"]) == ("fashion-mnist", "2 x AMD EPYC")


def test_ablations_curves_and_projectors_have_rows(leaderboard):
    name = "fashion-mnist-committee"
    variants = result_of(name)["variants"]
    rows = read(leaderboard, name)
    assert {row["variant"] for row in rows} == set(variants)
    title = "IPC 10, from noise"
    stages = variants[title]["summary"]["stages"].values()
    seconds = sum(stage["seconds"] for stage in stages)
    assert float(row_of(rows, variant=title)["seconds"]) == pytest.approx(seconds, abs=0.5)

    row = row_of(read(leaderboard, "glyphs-labels"), labels="seed+roots")
    assert (row["set"], row["label_bytes"], row["bytes"]) == ("glyphs:1000", "2282627", "")
    rows = read(leaderboard, "projector-glyphs-1000")
    assert row_of(rows, labels="stored")["label_bytes"] == "201200000"
    assert row_of(rows, labels="hard")["label_bytes"] == ""


def test_what_holds_no_accuracy_of_students_has_no_row(leaderboard):
    assert leaderboard.rows_of("workers", result_of("workers")) == []
