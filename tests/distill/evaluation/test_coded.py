"""The control at equal bytes: coded real images, as many as fit, their coding chosen aside."""

import json

import pytest
import torch

from distill.evaluation import students
from distill.evaluation.coded import (
    CANDIDATES,
    CodedReal,
    best_codings,
    candidates,
    fit,
    largest,
    plan_coded,
    plan_search,
    real_images,
)
from distill.evaluation.jobs import plan_jobs
from distill.recipes.build import build_coding
from distill.recipes.loading import check_recipe
from distill.run.context import scratch_context
from distill.run.interrupt import Stop
from distill.sets.cost import hard_bytes
from distill.sets.set_file import read_set
from synth.coding import pack_images
from tests.distill.cases import STUDENT

QUICK = ("--epochs", "5", "--whole-epochs", "1", "--quiet", "--json")


@pytest.fixture
def context(finished, tmp_path):
    recipe = check_recipe(read_set(finished / "set.h5").manifest["recipe"], "recipe")
    return scratch_context(tmp_path, finished, recipe, "cpu", True, Stop())


@pytest.mark.parametrize("each", [3.0, 17.5, 400.0])
@pytest.mark.parametrize("fixed", [0, 50])
@pytest.mark.parametrize("most", [1, 5, 10_000])
@pytest.mark.parametrize("budget", [40, 700, 90_000])
def test_largest_count_is_that_of_a_search_one_by_one(each, fixed, most, budget):
    tried = []

    def size(count):
        tried.append(count)
        return int(fixed + each * count)

    found = largest(size, budget, most, first=8, tolerance=0.0)
    fitting = [count for count in range(1, most + 1) if int(fixed + each * count) <= budget]
    assert found == (fitting[-1] if fitting else 1)
    assert len(tried) <= 30
    near = largest(size, budget, most, first=8, tolerance=0.05)
    assert 0.95 * found - 1 <= near <= found


def packed(context, real, seed, shared):
    generator = context.generator("evaluate", "random images", seed)
    images, labels = context.random_real(real.ipc, generator)
    pixels = context.preprocess.inverse(images).clamp(0, 1)
    coding = build_coding(real.coding, tuple(pixels.shape), groups=10)
    return shared + len(pack_images(coding, coding.start(pixels))) + hard_bytes(labels, 10)


def test_as_many_images_as_fit_for_every_seed(context):
    real = fit(context, CodedReal("frequency:step=0.4", 8, 0), 300, 13, seeds=3)
    sizes = [packed(context, real, seed, 13) for seed in range(3)]
    assert max(sizes) == real.bytes <= 300
    more = CodedReal(real.coding, real.ipc + 1, 0)
    assert max(packed(context, more, seed, 13) for seed in range(3)) > 300


def test_candidates_fit_and_the_smallest_stands_where_none_does(context):
    offered = candidates(context, 700, 13)
    assert 1 < len(offered) <= len(CANDIDATES) <= 6
    assert all(real.bytes <= 700 and real.ipc >= 1 for real in offered)
    (only,) = candidates(context, 20, 13)
    assert only.ipc == 1
    assert only.bytes > 20


def test_real_images_are_what_a_receiver_gets(context):
    def draw(spec, ipc=2):
        return real_images(context, ipc, context.generator("a"), spec)

    plain, labels = draw("")
    coded, same = draw("rounded:depth=1")
    assert torch.equal(labels, same)
    pixels = context.preprocess.inverse(coded)
    torch.testing.assert_close(pixels, context.preprocess.inverse(plain).clamp(0, 1).round())
    assert torch.equal(draw("", 1)[0], plain[::2])


def test_search_is_short_and_one_for_each_student_and_source():
    jobs = plan_jobs(["a", "b"], 3, ["hard", "learned"], ["hard", "learned"], [])
    offered = {
        "hard": [CodedReal("x", 2, 50), CodedReal("y", 1, 60)],
        "learned": [CodedReal("x", 4, 90)],
    }
    search = plan_search(jobs, 100, offered)
    names = [job.name for job, _ in search]
    assert names[:3] == [
        "coded/a/hard/0/x/2/epochs=20/trial",
        "coded/a/hard/0/y/1/epochs=20/trial",
        "coded/a/learned/0/x/4/epochs=20/trial",
    ]
    assert len(names) == len(set(names)) == 6
    values = [0.5, 0.6, 0.1, 0.5, 0.5, 0.2]
    graded = [(job, real, value) for (job, real), value in zip(search, values, strict=True)]
    best = best_codings(graded)
    assert {key: real.coding for key, real in best.items()} == {
        ("a", "hard"): "y", ("a", "learned"): "x", ("b", "hard"): "x", ("b", "learned"): "x",
    }  # fmt: skip
    coded = plan_coded(jobs, best)
    assert len(coded) == 12
    assert not any(job.trial or job.epochs for job in coded)
    assert {(job.student, job.coding, job.ipc) for job in coded if job.labels == "hard"} == {
        ("a", "y", 1), ("b", "x", 2),
    }  # fmt: skip


def test_control_has_the_form_of_random_and_the_test_images_choose_nothing(
    finished, command, monkeypatch
):
    asked = []
    plain = students.Context.split

    def split(self, name):
        asked.append(name)
        return plain(self, name)

    monkeypatch.setattr(students.Context, "split", split)
    outcome = command(
        "evaluate", finished, "--equal-bytes", "--labels", "hard,learned", "--seeds", "2", *QUICK
    )
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    first = asked.index("test")
    assert "validation" in asked[:first]
    assert "validation" not in asked[first:]
    controls, counted = found["controls"], found["bytes"]
    assert set(controls) == {"random", "whole", "coded"}
    entries = controls["coded"][STUDENT]
    assert set(entries) == {"hard", "learned"}
    for source, stats in entries.items():
        assert set(controls["random"][STUDENT]["hard"]) <= set(stats)
        assert len(stats["runs"]) == 2
        assert stats["coding"] in CANDIDATES
        assert 0 < stats["bytes"] <= counted["totals"][source]
        assert stats["images"] % 10 == 0
    said = found["protocol"]["coded"]
    assert said["candidates"] == list(CANDIDATES)
    assert said["on"].endswith("1 epochs")


def test_table_and_report_show_the_control(run_copy, command):
    shown = command(
        "evaluate", run_copy, "--equal-bytes", "--labels", "hard", "--seeds", "1",
        "--epochs", "1", "--whole-epochs", "1", "--quiet",
    )  # fmt: skip
    assert "control: coded    convnet2:width=4" in shown.out
    assert " in all with the labels of the fewest bytes" in shown.out
    outcome = command(
        "evaluate", run_copy, "--equal-bytes", "--labels", "hard", "--seeds", "1", *QUICK
    )
    summary = json.loads((run_copy / "summary.json").read_text())
    (run_copy / "summary.json").write_text(json.dumps({**summary, **json.loads(outcome.out)}))
    assert command("report", run_copy).code == 0
    page = (run_copy / "report.html").read_text()
    assert "Coded real images at the bytes of hard labels" in page
