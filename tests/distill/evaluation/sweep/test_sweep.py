"""Sweeps: the table, what dominates, resuming, and any number of workers."""

import json
from dataclasses import replace

import pytest

from distill.errors import RecipeError
from distill.evaluation.sweep.images.work import Offers
from distill.evaluation.sweep.jobs import Outcome, SweepOptions, curve, plan_sweep
from distill.evaluation.sweep.paper import paper_table
from distill.evaluation.sweep.plot import draw_curves
from distill.store.jsonl import from_row
from distill.store.seals import fits, unsealed
from tests.distill.cases import STUDENT


def outcome(accuracy, payload, views=0):
    return Outcome(accuracy, accuracy, payload, views)


def test_full_and_hard_labels_and_random_images_are_always_there():
    jobs = plan_sweep(SweepOptions(["topk:k=2"]), ["a"], 2, labelled=True)
    names = [job.name for job in jobs if job.seed == 0]
    assert names == [
        f"{images}/{codec}/a/0"
        for images in ("set", "random")
        for codec in ("full-fp16", "topk:k=2", "hard")
    ]
    assert len(jobs) == 12
    ends = plan_sweep(SweepOptions(["topk:k=2"], "ends"), ["a"], 1, labelled=True)
    assert [job.codec for job in ends if job.images == "random"] == ["full-fp16", "hard"]
    assert [job.name for job in ends if job.images == "set"] == names[:3]
    bare = plan_sweep(SweepOptions(["hard"]), ["a"], 1, labelled=False)
    assert [job.name for job in bare] == ["set/full-fp16/a/0", "set/hard/a/0", "random/hard/a/0"]
    with pytest.raises(RecipeError, match="no codec"):
        SweepOptions(["topq"])


def points():
    jobs = plan_sweep(SweepOptions(["topk:k=2", "topk:k=1", "dense"]), ["a"], 2, labelled=True)
    values = {
        "full-fp16": (0.9, 1000, 200),
        "topk:k=2": (0.8, 400, 200),
        "topk:k=1": (0.7, 600, 0),
        "dense": (0.9, 1000, 0),
        "hard": (0.5, 10, 0),
    }
    found = {}
    for job in jobs:
        accuracy, payload, views = values[job.codec]
        found[job.name] = outcome(accuracy + 0.02 * job.seed, payload, views)
        if job.codec == "topk:k=1":
            found[job.name] = replace(found[job.name], external=3 << 20)
    return curve(jobs, found)


def test_points_are_counted_and_dominated_ones_marked():
    by_codec = {point.codec: point for point in points() if point.images == "set"}
    top = by_codec["topk:k=2"]
    assert top.mean == pytest.approx(0.81)
    assert top.std == pytest.approx(0.02 / 2**0.5)
    assert (top.bytes, top.ratio) == (600, 2.0)
    dominated = {codec for codec, point in by_codec.items() if point.dominated}
    # As many bytes and less accurate; as accurate and more bytes.
    assert dominated == {"topk:k=1", "full-fp16"}


def test_the_plot_is_the_same_for_the_same_points(tmp_path):
    for name in ("a.svg", "b.svg", "a.png"):
        draw_curves(points(), tmp_path / name)
    text = (tmp_path / "a.svg").read_text("utf-8")
    assert text == (tmp_path / "b.svg").read_text("utf-8")
    for words in ("random real images, same labels", "synthetic set, hard labels"):
        assert words in text
    assert "topk:k=1 (and 3.0 MiB to fetch)" in text
    assert "topk:k=2" in text
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_sweep_goes_on_and_does_not_depend_on_its_workers(run_copy, command, tmp_path):
    def sweep(out, *more):
        done = command(
            "sweep", run_copy, "--codecs", "topk:k=3,seed+roots", "--students", STUDENT,
            "--seeds", "1", "--epochs", "2", "--out", out, "--json", "--quiet", *more,
        )  # fmt: skip
        assert done.code == 0, done.err
        return json.loads(done.out)

    one = sweep(tmp_path / "one")
    log = tmp_path / "one" / "jobs.jsonl"
    rows = log.read_text("utf-8").splitlines()
    assert len(rows) == len(one["points"]) == 8
    costs = {(p["images"], p["codec"]): p for p in one["points"]}
    full, coded = costs["set", "full-fp16"], costs["set", "seed+roots"]
    # Three members voted on 4 epochs of 10 images of 10 classes.
    assert (full["made"], full["asked"], full["payload"]) == (3 * 4 * 10, 0, 4 * 10 * 10 * 2)
    assert full["shipped"] < full["bytes"]
    assert coded["views"] == 40
    assert coded["payload"] < coded["shipped"] <= coded["bytes"]
    assert costs["random", "hard"]["payload"] == 10
    assert costs["random", "hard"]["made"] == 0
    assert {"one", "two"} > {path.name for path in tmp_path.iterdir() if path.name == "one"}
    log.write_text("\n".join(rows[:5]) + "\n" + rows[5][:20], encoding="utf-8")
    assert sweep(tmp_path / "one") == one
    # What was there stays, the row that was cut short is ended, and only three jobs are done anew.
    after = log.read_text("utf-8").splitlines()
    assert after[:6] == [*rows[:5], rows[5][:20]]
    assert len(after) == 9
    assert sweep(tmp_path / "two", "--workers", "2") == one
    svg = [(tmp_path / name / "curve.svg").read_bytes() for name in ("one", "two")]
    assert svg[0] == svg[1]
    table = json.loads((tmp_path / "one" / "sweep.json").read_text("utf-8"))
    assert fits(table)
    assert unsealed(table) == one


def test_a_sweep_without_a_set_is_refused(refused):
    assert "give SET, --codecs and --out, or --paper" in refused(2, "sweep", "--codecs", "dense")


def test_imagenet_on_paper_takes_the_published_sizes(command):
    rows = {(row["codec"], row["ipc"]): row for row in paper_table()}
    gibibytes = {ipc: rows["full-fp16", ipc]["labels"] / 2**30 for ipc in (10, 50, 200)}
    assert {ipc: f"{size:.4g}" for ipc, size in gibibytes.items()} == {
        10: "5.588",
        50: "27.94",
        200: "111.8",
    }
    assert rows["lpld:ratio=0.975", 10]["labels"] / 2**30 == pytest.approx(0.14, rel=0.01)
    assert rows["lpqld:ratio=0.9:k=25", 50]["ratio"] == pytest.approx(200, rel=0.01)
    assert rows["topk:k=5", 10]["labels"] == pytest.approx(20 * 3e6, rel=1e-4)
    assert rows["topk:k=5", 10]["views"] == 3_000_000 * 12
    assert rows["seed+pruned:ratio=0.9+topk:k=5", 200]["views"] == 40
    assert rows["seed+roots", 50]["labels"] is None
    assert rows["teacher:bits=4", 50]["labels"] / 2**20 == pytest.approx(5.6, rel=0.01)
    shown = command("sweep", "--paper", "--codecs", "full-fp16")
    assert "29,999,999" not in shown.out
    assert f"{rows['full-fp16', 50]['labels']:,}" in shown.out


@pytest.mark.parametrize("reals", [[["pixels"]], [[["pixels"], 1, 100, 1]], [["pixels", 1, {}, 1]]])
def test_a_row_of_offers_with_other_values_is_none(reals):
    assert from_row(Offers, {"reals": [["pixels", 1, 100, 1]]}) == Offers([("pixels", 1, 100, 1)])
    with pytest.raises(ValueError, match="reals"):
        from_row(Offers, {"reals": reals})
