"""Protocols by name, learning rates chosen on validation, scores, and workers."""

import json
import math
import signal
import time
from pathlib import Path

import pytest

from distill.evaluation import students
from distill.evaluation.evaluated_set import EvaluatedSet
from distill.evaluation.jobs import StudentJob, Way, plan_jobs, plan_plain, summarise
from distill.evaluation.protocols import protocol_name
from distill.evaluation.scores import augmentation_robust_score, label_robust_score, score_students
from distill.evaluation.students import student_settings
from distill.recipes.tables.evaluate import EvaluateTable
from distill.sets.set_file import read_set
from tests.distill.cases import STUDENT, child, contents

QUICK = ("--epochs", "2", "--whole-epochs", "1", "--quiet", "--json")
EVERY = ["hard", "learned", "votes", "projector"]


@pytest.fixture(scope="module")
def content(finished):
    return read_set(finished / "set.h5")


@pytest.fixture
def evaluate(finished, command):
    def call(*arguments):
        outcome = command("evaluate", finished, *arguments, *QUICK)
        assert outcome.code == 0, outcome.err
        return json.loads(outcome.out)

    return call


def test_each_label_source_has_its_protocol_and_a_recipe_may_name_one():
    def name(labels, group="students", **keys):
        return protocol_name(
            EvaluateTable(students=["mlp"], **keys), StudentJob(group, "mlp", labels, 0)
        )

    named = {labels: name(labels) for labels in EVERY}
    assert named == {"hard": "hard", "learned": "trajectory", "votes": "kd", "projector": "kd"}
    assert name("hard", protocol="trajectory") == name("votes", protocol="trajectory")
    assert name("hard", "random", protocol="kd") == "kd"
    assert name("hard", "whole", protocol="kd") == name("votes", "coded") == "hard"


def test_protocols_train_as_they_say(content):
    judged = EvaluatedSet(content)

    def settings(protocol, job):
        table = EvaluateTable(students=[STUDENT], epochs=7, lr=0.03, protocol=protocol)
        return student_settings(table, judged, job)

    job = StudentJob("students", STUDENT, "hard", 0, way=Way(lr_factor=3.0))
    trajectory = settings("trajectory", job)
    assert trajectory.lr == pytest.approx(3 * content.manifest["student_lr"])
    assert (trajectory.optimizer, trajectory.momentum) == ("sgd", 0.0)
    assert settings("kd", job).optimizer == "adamw"
    assert settings("hard", job).lr == pytest.approx(0.09)


def test_other_protocols_are_run_and_said(evaluate):
    found = evaluate("--protocol", "trajectory", "--labels", "hard,projector", "--seeds", "1")
    words = found["protocol"]["hard"]
    assert words["protocol"] == found["protocol"]["projector"]["protocol"] == "trajectory"
    assert (words["optimizer"], words["schedule"]) == ("sgd", "constant")
    usual = evaluate("--labels", "hard", "--seeds", "1")["protocol"]
    assert (usual["hard"]["protocol"], usual["hard"]["optimizer"]) == ("hard", "sgd, momentum 0.9")
    soft = evaluate("--protocol", "kd", "--labels", "hard", "--seeds", "1")
    assert soft["protocol"]["hard"]["loss"] == "KL at temperature 4"
    runs = [part["students"][STUDENT]["hard"]["runs"] for part in (found, soft)]
    assert runs[0] != runs[1]


def test_learning_rates_are_chosen_without_the_test_images(evaluate, finished, asked):
    found = evaluate("--lr-factors", "0.01,1", "--labels", "hard", "--seeds", "1")
    # Each of the three kinds is tried twice before the test images are touched for the first time.
    first = asked.index("test")
    assert asked[:first].count("validation") == 6
    assert "validation" not in asked[first:]
    assert asked.count("test") == 3
    tuned = found["protocol"]["tuned"]
    assert tuned["tried"] == {"lr_factors": [0.01, 1.0]}
    assert set(tuned["chosen"]) == {
        f"{group}/{STUDENT}/hard" for group in ("students", "random", "whole")
    }
    assert {way["lr_factor"] for way in tuned["chosen"].values()} <= {0.01, 1.0}


def test_diverged_trial_loses_and_does_not_end_the_evaluation(evaluate, monkeypatch):
    plain = students.train

    def train(network, batches, settings, *rest):
        if settings.lr > 1e20:
            raise FloatingPointError("the training loss is inf")
        return plain(network, batches, settings, *rest)

    monkeypatch.setattr(students, "train", train)
    found = evaluate("--lr-factors", "1e30,1", "--labels", "learned", "--seeds", "1")
    chosen = found["protocol"]["tuned"]["chosen"].values()
    assert [way["lr_factor"] for way in chosen] == [1.0] * 3


def test_scores_by_hand():
    # alpha = 0.5 * 0.2 - 0.5 * 0.3 = -0.05; (e^-0.05 - e^-1) / (e - e^-1) = 0.24819.
    found = label_robust_score(0.8, 0.5, 0.6, 0.4)
    assert found == pytest.approx({"gap": 0.3, "gain": 0.2, "score": 0.24819}, abs=1e-5)
    assert label_robust_score(0.0, 1.0, 1.0, 0.0)["score"] == pytest.approx(1)
    assert label_robust_score(1.0, 0.0, 0.0, 1.0)["score"] == pytest.approx(0)
    # beta = 0.5 * 0.2 + 0.5 * 0.1 = 0.15.
    robust = augmentation_robust_score(0.6, 0.4, 0.5, 0.4)
    assert robust["score"] == pytest.approx((math.exp(0.15) - math.exp(-1)) / 2 / math.sinh(1))
    assert (robust["gain"], robust["plain_gain"]) == pytest.approx((0.2, 0.1))


def test_published_label_robust_scores_are_met():
    # DD-Ranking's board, CIFAR-10, ten images per class: gap and gain in points -> our fractions.
    for gap, gain, score in [(0.2684, 0.3505, 0.287), (0.2373, 0.3090, 0.284)]:
        assert label_robust_score(gap, 0.0, gain, 0.0)["score"] == pytest.approx(score, abs=5e-4)


def test_scores_compare_with_the_same_labels_or_the_harder_control():
    jobs = plan_jobs(["a"], 1, ["hard", "learned", "votes"], EVERY, ["votes"])
    values = {"students/hard": 0.5, "students/learned": 0.6, "students/votes": 0.7,
              "random/hard": 0.3, "random/votes": 0.4, "whole/hard": 0.9}  # fmt: skip
    found = summarise((job, values[f"{job.group}/{job.labels}"]) for job in jobs)
    plain = summarise((job, 0.25) for job in plan_plain(jobs))
    scores = score_students(found, plain)["a"]
    gains = {labels: part["label_robust"]["gain"] for labels, part in scores.items()}
    assert gains == pytest.approx({"hard": 0.2, "learned": 0.2, "votes": 0.3})
    assert "augmentation_robust" not in scores["votes"]
    assert scores["learned"]["augmentation_robust"] == pytest.approx(
        augmentation_robust_score(0.6, 0.3, 0.25, 0.25)
    )


def test_any_number_of_workers_gives_the_same_bits(finished, command, tmp_path):
    # Without the committee beside it, which every worker would load.
    (tmp_path / "set.h5").write_bytes((finished / "set.h5").read_bytes())

    def evaluate(workers):
        asked = ("--labels", "hard,learned", "--seeds", "1", "--workers", workers, *QUICK)
        outcome = command("evaluate", tmp_path / "set.h5", *asked)
        assert outcome.code == 0, outcome.err
        return json.loads(outcome.out)

    assert evaluate("2") == evaluate("1") == evaluate("auto")
    assert set(contents(tmp_path)) == {"set.h5"}


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts processes under /proc")
def test_interrupt_ends_all_workers_with_one_line(finished):
    process = child("evaluate", str(finished), "--epochs", "1000000", "--workers", "2", "--quiet")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    # Workers are children of the server that they are forked from.
    begun: list[str] = []
    while process.poll() is None and len(begun) < 3:
        time.sleep(0.05)
        begun = children.read_text().split()
        for server in list(begun):
            begun += Path(f"/proc/{server}/task/{server}/children").read_text().split()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert out == ""
    assert err == "error: interrupted; nothing was kept: run the same command again\n"
    # The server ends by itself once nobody holds its pipe.
    deadline = time.monotonic() + 10
    while (left := [pid for pid in begun if Path(f"/proc/{pid}/task").exists()]) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.05)
    assert left == []


def test_table_shows_intervals_and_scores(finished, command):
    outcome = command(
        "evaluate", finished, "--labels", "hard", "--seeds", "2", "--scores", "--epochs", "1",
        "--whole-epochs", "1", "--quiet",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert "projector" not in outcome.out.partition("bytes:")[0]
    assert "2 seeds" in outcome.out
    assert "label-robust 0." in outcome.out
    assert "augmentation-robust 0." in outcome.out
