"""Ways to keep images on one curve: what is counted, what is best, and that a sweep goes on."""

import json
from dataclasses import replace

import pytest
import torch

from distill.errors import RecipeError
from distill.evaluation.sweep.images.jobs import (
    STORED,
    ImageOutcome,
    best_control,
    budgets,
    image_curve,
    plan_image_sweep,
    with_gains,
)
from distill.evaluation.sweep.images.kept import first_images, kept_file, labelled
from distill.evaluation.sweep.images.options import ImageSweepOptions
from distill.evaluation.sweep.images.plot import draw_image_curves
from distill.evaluation.sweep.images.run import LOG, PLOT, RESULT, TABLE
from distill.evaluation.sweep.images.table import table_lines
from distill.recipes.loading import check_recipe
from distill.run.interrupt import Stop
from distill.run.scratch import scratch_context
from distill.sets.coded_images import CODINGS as WAYS
from distill.sets.coded_set import pack_labels, unpack_labels
from distill.sets.compress import code_set
from distill.sets.cost import count_bytes
from distill.sets.network_labels import LabelSources
from distill.sets.order import first_places
from distill.sets.set_file import SetFile, read_set, write_set
from projectors.codecs import Labels, Quantised
from synth.coding import unpack_images
from synth.formation import decode_images
from tests.distill.cases import STUDENT, contents

CODINGS = "rounded:depth=2,frequency:step=0.4"
QUICK = ("--seeds", "2", "--epochs", "3", "--whole-epochs", "1", "--quiet", "--json")


def test_every_coding_with_every_number_of_images_and_the_set_as_it_is():
    options = ImageSweepOptions(["rounded", "pixels"], ["hard", "learned"], [1, 3])
    jobs = plan_image_sweep(options, 5, ["a", "b"], 2)
    assert len(jobs) == len({job.name for job in jobs}) == 5 * 2 * 2 * 2
    assert {(job.coding, job.ipc) for job in jobs} == {
        (STORED, 5), ("rounded", 1), ("pixels", 1), ("rounded", 3), ("pixels", 3),
    }  # fmt: skip


@pytest.fixture
def points():
    """A student's curve, bytes and accuracy by coding, and a worse student's single point."""
    values = {
        STORED: (900, 0.90),
        "rounded:depth=1": (100, 0.50),
        "rounded:depth=2": (200, 0.70),
        "rounded:depth=3": (300, 0.60),
        "palette": (200, 0.65),
        "pixels": (950, 0.90),
    }
    options = ImageSweepOptions([name for name in values if name != STORED], ["hard"], [2])
    jobs = plan_image_sweep(options, 2, ["a", "b"], 2)
    outcomes = {}
    for job in jobs:
        size, accuracy = values[job.coding] if job.student == "a" else (150, 0.4)
        accuracy += 0.02 * job.seed
        outcomes[job.name] = ImageOutcome(accuracy, 0.4, size - 20, 7, size, 0, 0.1)
    return image_curve(jobs, outcomes)


def test_curve_goes_from_the_fewest_bytes_and_what_others_beat_stays_in_it(points):
    own = [point for point in points if point.student == "a"]
    assert [point.bytes for point in own] == [100, 200, 200, 300, 900, 950]
    assert [point.coding for point in own[:3]] == ["rounded:depth=1", "rounded:depth=2", "palette"]
    assert own[1].mean == pytest.approx(0.71)
    assert own[1].std == pytest.approx(0.02 / 2**0.5)
    # As many bytes and less accurate; more bytes and less accurate; more and as accurate.
    assert [point.coding for point in own if point.dominated] == [
        "palette", "rounded:depth=3", "pixels",
    ]  # fmt: skip
    assert not any(point.dominated for point in points if point.student == "b")
    assert budgets(points, "all") == [100, 150, 200, 300, 900, 950]
    assert budgets(points, "ends") == [100, 950]


def shown(points):
    real = {
        "mean": 0.7,
        "std": 0.0,
        "runs": [0.7],
        "images": 20,
        "coding": "palette",
        "bytes": 97,
        "factor": 2,
    }
    coded = {student: {"100": real, "150": real, "200": real} for student in ("a", "b")}
    rows = [vars(point) for point in with_gains(points, coded)]
    return {"points": rows, "controls": {"coded": coded, "whole": {"a": {"hard": real}}}}


def test_table_has_every_point_beside_its_control(points):
    result = shown(points)
    gains = {row["coding"]: row["gain"] for row in result["points"] if row["student"] == "a"}
    assert gains["rounded:depth=1"] == pytest.approx(-0.19)
    assert gains["rounded:depth=2"] == pytest.approx(0.01)
    assert gains["pixels"] is None
    lines = list(table_lines(result))
    assert len({line.count("|") for line in lines[: 2 + len(points)]}) == 1
    first = [cell.strip() for cell in lines[2].split("|")]
    assert first[1:6] == ["a", "rounded:depth=1", "2", "hard", "100"]
    assert first[9:13] == ["51.00 ± 1.41", "70.00 (20 by palette, 4 in one)", "-19.00", "yes"]
    # Six of the second student's, which has the same bytes everywhere, and one of the first's.
    assert lines[-2:] == [
        "All real images, a: 70.00 %.",
        "8 of 12 points are no better than coded real images.",
    ]


def test_a_point_is_compared_with_the_best_control_in_no_more_bytes():
    coded = {"100": {"mean": 0.5}, "200": {"mean": 0.7}, "300": {"mean": 0.4}, "90": {"mean": 0.1}}
    assert best_control(coded, 300) is coded["200"]
    assert best_control(coded, 100) is coded["100"]
    assert best_control(coded, 90) is coded["90"]
    assert best_control(coded, 250) is None


def test_picture_is_the_same_for_the_same_points_and_says_what_they_are(points, tmp_path):
    result = shown(points)
    for name in ("a.svg", "b.svg", "a.png"):
        draw_image_curves(result, tmp_path / name)
    text = (tmp_path / "a.svg").read_text("utf-8")
    assert text == (tmp_path / "b.svg").read_text("utf-8")
    assert text.count("<title>") == len(points) + 6
    assert (
        "<title>rounded:depth=2, 2 a class, hard labels: 71.00 ± 1.41 %, 200 bytes (180 of images, "
        "7 of labels), on the Pareto front; +1.00 points to coded real images</title>"
    ) in text
    assert "<title>coded real images in 200 bytes: 70.00 (20 by palette, 4 in one)</title>" in text
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_the_first_of_each_class_in_the_order_of_the_set():
    hard = torch.tensor([2, 0, 2, 1, 0, 2, 0])
    assert first_places(hard, 1).tolist() == [0, 1, 3]
    assert first_places(hard, 2).tolist() == [0, 1, 2, 3, 4]
    assert first_places(hard, 9).tolist() == list(range(7))


@pytest.fixture
def three(finished):
    """A set of three images a class in no order, four formed in each, with learned labels."""
    content = read_set(finished / "set.h5")
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(30, generator=generator)
    hard = torch.arange(10).repeat(3)[order]
    images = torch.randn(30, *content.images.shape[1:], generator=generator)
    learned = torch.randn(120, 10, generator=generator)
    manifest = {**content.manifest, "factor": 2}
    return SetFile(images, hard, manifest, learned=learned)


def test_labels_go_with_their_images(three):
    part = first_images(three, 2)
    places = first_places(three.hard, 2)
    assert len(part.images) == 20
    assert torch.equal(part.images, three.images[places])
    assert torch.equal(part.hard, three.hard[places])
    assert torch.equal(part.learned[4:8], three.learned[4 * places[1] : 4 * places[1] + 4])
    payload = pack_labels(three.learned, 10**6)
    coded = replace(three, learned=unpack_labels(payload), coded_labels=payload)
    part = first_images(coded, 2)
    assert part.coded_labels == pack_labels(
        three.learned.view(30, 4, 10)[places].flatten(0, 1), 10**6
    )
    assert first_images(coded, 3).coded_labels == payload
    refined = first_images(replace(three, refined=three.images + 1), 1)
    assert torch.equal(refined.images, three.images[first_places(three.hard, 1)] + 1)
    assert refined.refined is None


def seen_error(made, before):
    """Mean squared error of what students see, by the payload itself."""
    pixels, _ = unpack_images(made.coded)
    original = before.preprocess.inverse(before.images)
    return float(decode_images(pixels - original, before.factor).square().mean())


@pytest.mark.parametrize("labels", ["hard", "learned", "learned+quantised:step=0.5"])
def test_everything_that_a_receiver_needs_is_counted(three, labels):
    part = first_images(three, 2)
    made = code_set(part, "rounded:depth=2")
    content, cost = labelled(made, labels, LabelSources(), part)
    assert cost.images == len(made.coded)
    # Twenty classes of unordered images, twice as many logits for eight bits each, or a container.
    sizes = {"hard": 20, "learned": 80 * 10 * 4}
    own = sizes.get(labels, 0) or len(content.coded_labels)
    assert cost.labels == own
    assert cost.bytes == cost.images + own + 13
    assert cost.error == pytest.approx(seen_error(made, part), rel=1e-4)
    assert cost.error > 0


@pytest.fixture
def sweep(run_copy, command, tmp_path):
    def call(out, *more, codecs="hard,learned+quantised:step=0.5,full-fp16,topk:k=2"):
        done = command(
            "sweep", run_copy, "--images", "--codings", CODINGS, "--codecs", codecs,
            "--out", tmp_path / out, *QUICK, *more,
        )  # fmt: skip
        assert done.code == 0, done.err
        return json.loads(done.out)

    return call


def by_kind(result):
    return {(row["coding"], row["labels"]): row for row in result["points"]}


def evaluate(command, run, labels, *more):
    outcome = command("evaluate", run, "--labels", labels, *QUICK, *more)
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def test_curve_of_a_tiny_set_is_what_evaluate_measures(sweep, run_copy, command, tmp_path):
    assert command("encode", run_copy, "--codec", "topk:k=2", "--quiet").code == 0
    found = sweep("out")
    rows = by_kind(found)
    assert len(rows) == len(found["points"]) == 3 * 4
    evaluated = evaluate(command, run_copy, "hard,votes,topk:k=2", "--equal-bytes")
    totals, measured = evaluated["bytes"]["totals"], evaluated["students"][STUDENT]
    for labels, source in (("hard", "hard"), ("full-fp16", "votes"), ("topk:k=2", "topk:k=2")):
        row = rows[STORED, labels]
        assert row["runs"] == measured[source]["runs"]
        assert row["bytes"] == totals[source]
    assert found["controls"]["whole"] == evaluated["controls"]["whole"]
    control = found["controls"]["coded"][STUDENT][str(totals["hard"])]
    assert control == evaluated["controls"]["coded"][STUDENT]["hard"]
    for row in found["points"]:
        others = [other for other in found["points"] if other["bytes"] <= row["bytes"]]
        best = max(other["mean"] for other in others)
        cheapest = min(other["bytes"] for other in found["points"] if other["mean"] >= row["mean"])
        assert row["dominated"] == (row["mean"] < best or row["bytes"] > cheapest)
        assert row["bytes"] == row["image_bytes"] + row["label_bytes"] + 13
        real = found["controls"]["coded"][STUDENT][str(row["bytes"])]
        coded = found["controls"]["coded"][STUDENT].items()
        best = max(stats["mean"] for size, stats in coded if int(size) <= row["bytes"])
        assert row["gain"] == row["mean"] - best
        assert real["bytes"] <= row["bytes"] or real["images"] == 10
        assert real["coding"] in (*WAYS, *CODINGS.split(","))
    coded = code_set(read_set(run_copy / "set.h5"), "rounded:depth=2")
    assert rows["rounded:depth=2", "hard"]["bytes"] == count_bytes(coded)["totals"]["hard"]
    assert rows["rounded:depth=2", "hard"]["error"] == pytest.approx(
        seen_error(coded, read_set(run_copy / "set.h5")), rel=1e-4
    )
    assert rows[STORED, "hard"]["error"] == 0
    table = (tmp_path / "out" / TABLE).read_text("utf-8").splitlines()
    assert len([line for line in table if line.startswith("| convnet2")]) == 12


def test_students_are_trained_on_the_images_and_labels_that_are_counted(sweep, run_copy, command):
    rows = by_kind(sweep("out", codecs="learned+quantised:step=2"))
    content = read_set(run_copy / "set.h5")
    payload = Quantised(2.0).encode(Labels(content.learned[None]))
    for coding in CODINGS.split(","):
        coded = replace(content, learned=unpack_labels(payload), coded_labels=payload)
        write_set(run_copy / "set.h5", code_set(coded, coding))
        evaluated = evaluate(command, run_copy, "learned")
        row = rows[coding, "learned+quantised:step=2"]
        assert row["runs"] == evaluated["students"][STUDENT]["learned"]["runs"]
        assert row["bytes"] == evaluated["bytes"]["total"]


def test_a_sweep_of_images_goes_on_and_does_not_depend_on_its_workers(sweep, tmp_path):
    one = sweep("one", codecs="hard,topk:k=2")
    folder = tmp_path / "one"
    before = contents(folder)
    log = folder / LOG
    rows = log.read_text("utf-8").splitlines()
    # Students on the set, and of the controls: trials, and searches for numbers of images.
    assert sum('"job": "set/' in row for row in rows) == 3 * 2 * 2
    half = len(rows) // 2
    for name in (RESULT, PLOT, TABLE):
        (folder / name).unlink()
    read_set(kept_file(folder, "rounded:depth=2", 1))
    kept_file(folder, "rounded:depth=2", 1).unlink()
    log.write_text("\n".join(rows[:half]) + "\n" + rows[half][:20], encoding="utf-8")
    assert sweep("one", codecs="hard,topk:k=2") == one
    after = contents(folder)
    assert {k: v for k, v in after.items() if k != LOG} == {
        k: v for k, v in before.items() if k != LOG
    }
    again = log.read_text("utf-8").splitlines()
    assert again[: half + 1] == [*rows[:half], rows[half][:20]]
    assert sorted(again[half + 1 :]) == sorted(rows[half:])
    assert sweep("two", "--workers", "2", codecs="hard,topk:k=2") == one
    two = contents(tmp_path / "two")
    assert {k: v for k, v in two.items() if k != LOG} == {
        k: v for k, v in before.items() if k != LOG
    }
    # Another sweep of the same set goes on from the same rows.
    count = len(again)
    more = sweep("one", "--controls", "ends", codecs="hard")
    assert by_kind(more)[STORED, "hard"]["runs"] == by_kind(one)[STORED, "hard"]["runs"]
    assert len(log.read_text("utf-8").splitlines()) == count
    assert [row["gain"] is None for row in more["points"]] == [False, True, False]


def test_parts_of_a_set_are_the_first_images_of_each_class(three, run_copy, command, tmp_path):
    write_set(run_copy / "set.h5", three)
    done = command(
        "sweep", run_copy, "--images", "--codings", "rounded:depth=1", "--images-per-class", "2,1",
        "--controls", "ends", "--out", tmp_path / "out", *QUICK,
    )  # fmt: skip
    assert done.code == 0, done.err
    found = json.loads(done.out)
    kinds = {(row["coding"], row["ipc"], row["labels"]) for row in found["points"]}
    assert kinds == {
        (coding, ipc, labels)
        for coding, ipc in ((STORED, 3), ("rounded:depth=1", 1), ("rounded:depth=1", 2))
        for labels in ("hard", "learned")
    }
    kept = read_set(kept_file(tmp_path / "out", "rounded:depth=1", 2))
    expected = code_set(first_images(three, 2), "rounded:depth=1")
    assert torch.equal(kept.images, expected.images)
    assert torch.equal(kept.learned, expected.learned)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--codings", "rounded"), "give SET, --images, --codings and --out"),
        (("--out", "o"), "with --images give SET, --codings and --out, and no --paper"),
        (("--codings", "rounded", "--out", "o", "--paper"), "and no --paper"),
        (("--codings", "roundet", "--out", "o"), "there is no coding 'roundet'"),
        (("--codings", "rounded:depth=99", "--out", "o"), "coding rounded:depth=99: depth is 99"),
        (("--codings", "rounded", "--images-per-class", "1,0", "--out", "o"), "'0' is no whole"),
        (("--codings", "rounded", "--images-per-class", "7", "--out", "o"), "stores at most 1 of"),
        (("--codings", "rounded", "--codecs", "topq", "--out", "o"), "no codec 'topq'"),
        (
            ("--codings", "rounded", "--codecs", "learned+seed+topk", "--out", "o"),
            "name a codec of labels alone",
        ),
        (("--codings", "rounded", "--codecs", "topk:k=11", "--out", "o"), "labels topk:k=11: "),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_trained(
    more, words, run_copy, refused, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert words in refused(2, "sweep", run_copy, "--images", *more)
    assert not contents(tmp_path / "o")


def test_labels_that_the_set_lacks_are_refused(run_copy, refused, tmp_path):
    content = read_set(run_copy / "set.h5")
    write_set(run_copy / "set.h5", replace(content, learned=None, votes=None, encoded={}))
    (run_copy / "committee.h5").unlink()
    call = ("sweep", run_copy, "--images", "--codings", "rounded", "--out", tmp_path / "o")
    assert "no learned labels" in refused(1, *call, "--codecs", "learned")
    assert "no committee.h5 beside" in refused(1, *call, "--codecs", "full-fp16")
    assert "need --images" in refused(2, "sweep", run_copy, "--codings", "rounded")
    with pytest.raises(RecipeError, match="from 1 on"):
        ImageSweepOptions(["rounded"], images_per_class=[0])


def test_students_of_a_part_do_not_see_votes_on_other_images(run_copy, sweep, tmp_path):
    """The committee votes on the images as they are decoded."""
    # Parts that were made without votes get them when they are asked for.
    sweep("out", "--controls", "ends", codecs="hard")
    sweep("out", "--controls", "ends", codecs="full-fp16")
    votes = {
        coding: read_set(kept_file(tmp_path / "out", coding, 1)).votes
        for coding in (STORED, "rounded:depth=2", "frequency:step=0.4")
    }
    own = read_set(run_copy / "set.h5").votes
    assert torch.equal(votes[STORED].whole, own.whole)
    assert torch.equal(votes["rounded:depth=2"].ids, own.ids)
    assert not torch.equal(votes["rounded:depth=2"].whole, own.whole)
    assert not torch.equal(votes["frequency:step=0.4"].whole, votes["rounded:depth=2"].whole)


def test_image_context_votes_as_the_run_did(finished, tmp_path):
    """A set as it is, without its votes, gets the same ones again."""
    from distill.evaluation.sweep.images.kept import make_kept

    content = read_set(finished / "set.h5")
    recipe = check_recipe(content.manifest["recipe"], "recipe")
    (tmp_path / "scratch").mkdir()
    context = scratch_context(tmp_path / "scratch", finished, recipe, "cpu", True, Stop())
    options = ImageSweepOptions([], ["full-fp16"])
    jobs = plan_image_sweep(options, 1, ["a"], 1)
    make_kept(context, replace(content, votes=None), tmp_path, jobs, "key")
    made = read_set(kept_file(tmp_path, STORED, 1))
    assert torch.equal(made.votes.whole, content.votes.whole)
