"""Classes that arrive step by step: who is trained on what, tested on what, and what is said."""

import json

import pytest
import torch

from distill.errors import RecipeError, WorkError
from distill.evaluation import incremental
from distill.evaluation.confusion import Grade
from distill.evaluation.incremental import classes_after, judge_steps, plan_steps
from distill.evaluation.jobs import StudentJob
from distill.evaluation.known_classes import known_images, known_logits
from distill.evaluation.results import open_judged
from distill.evaluation.students import _batches, trained_student
from distill.report.step_table import step_lines
from tests.distill.cases import STUDENT

QUICK = ("--students", STUDENT, "--seeds", "2", "--epochs", "2", "--quiet")


def test_groups_differ_by_one_class_at_most():
    assert classes_after(10, 5) == [2, 4, 6, 8, 10]
    assert classes_after(10, 3) == [3, 6, 10]
    assert classes_after(3, 3) == [1, 2, 3]
    with pytest.raises(RecipeError, match="11 steps are asked for, but the set has 10 classes"):
        classes_after(10, 11)


def test_every_step_has_its_students_and_its_random_control():
    jobs = plan_steps(["a"], 2, ["hard", "learned", "votes"], ["hard", "learned", "votes"], [2, 4])
    assert [job.name for job in jobs[:6]] == [
        "students/a/hard/0/classes=2",
        "students/a/learned/0/classes=2",
        "random/a/hard/0/classes=2",
        "students/a/hard/0/classes=4",
        "students/a/learned/0/classes=4",
        "random/a/hard/0/classes=4",
    ]
    assert len({job.name for job in jobs}) == len(jobs) == 12
    with pytest.raises(RecipeError, match="give --labels hard"):
        plan_steps(["a"], 1, ["votes"], ["hard", "votes"], [2, 4])


def test_what_is_known_is_cut_from_images_and_from_soft_labels():
    labels, job = torch.tensor([0, 3, 1, 2]), StudentJob("students", "a", "learned", 0, classes=2)
    images = torch.arange(4.0).reshape(4, 1, 1, 1)
    kept, hard = known_images(job, images, labels)
    assert (kept.flatten().tolist(), hard.tolist()) == ([0.0, 2.0], [0, 1])
    logits = torch.arange(16.0).reshape(4, 4)
    assert known_logits(job, logits, labels).tolist() == [[0.0, 1.0], [8.0, 9.0]]
    whole = StudentJob("students", "a", "learned", 0)
    assert known_images(whole, images, labels) == (images, labels)
    assert known_logits(whole, logits, labels) is logits


@pytest.mark.parametrize(("group", "labels"), [("students", "learned"), ("random", "hard")])
def test_a_student_sees_no_image_and_no_label_of_later_classes(group, labels, context, finished):
    table = context.recipe.table("evaluate").model_copy(update={"epochs": 1})
    judged, _ = open_judged(context, finished / "set.h5")

    def seen(classes):
        job = StudentJob(group, STUDENT, labels, 0, views=False, classes=classes)
        parts = list(_batches(context, table, judged, job)(0))
        return torch.cat([part.images for part in parts]), torch.cat([p.labels for p in parts])

    (some, few), (every, all_labels) = seen(4), seen(None)
    assert (len(some), few.shape[1]) == (4 * len(every) // 10, 4)
    assert all_labels.shape[1] == 10
    # The same real images as before stay when classes arrive.
    whole = {image.numpy().tobytes() for image in every}
    assert {image.numpy().tobytes() for image in some} <= whole
    job = StudentJob(group, STUDENT, labels, 0, classes=4)
    assert trained_student(context, table, judged, job)(every).shape[1] == 4


def test_average_is_that_of_a_seed_over_steps(context, finished, tmp_path, monkeypatch):
    """Accuracies by hand: seed 0 has 0.9 and 0.7, seed 1 0.8 and 0.4, random images less."""
    given = {(5, 0): 0.9, (10, 0): 0.7, (5, 1): 0.8, (10, 1): 0.4}

    def measure(self, task, jobs):
        less = {"students": 0.0, "random": 0.3}
        return [(job, Grade(given[job.classes, job.seed] - less[job.group])) for job in jobs]

    monkeypatch.setattr(incremental.Evaluation, "measure", measure)
    table = context.recipe.table("evaluate")
    table = table.model_copy(update={"students": ["mlp"], "seeds": 2, "labels": ["hard"]})
    found = judge_steps(context, table, finished / "set.h5", tmp_path / "log", 2)
    own = found["students"]["mlp"]["hard"]
    assert [stats["mean"] for stats in own["steps"]] == pytest.approx([0.85, 0.55])
    assert own["average"]["runs"] == pytest.approx([0.8, 0.6])
    random = found["controls"]["random"]["mlp"]["hard"]
    assert random["average"]["mean"] == pytest.approx(0.4)
    assert [step["classes"] for step in found["steps"]] == [5, 10]
    assert found["steps"][1]["new"] == list(context.data.class_names[5:])
    assert found["steps"][0]["test_images"] < found["steps"][1]["test_images"] == 597
    assert step_lines(found) == [
        "classes arrive in 2 steps; accuracy in % on the test images of those so far",
        "mlp",
        "            classes  average              5     10",
        "  this set  hard     70.00 ± 14.14 %  85.00  55.00  2 seeds  "
        "+30.0 points against random images, more than noise",
        "  random    hard     40.00 ± 14.14 %  55.00  25.00  2 seeds",
    ]


def test_command_prints_a_table_and_json(finished, command):
    outcome = command("evaluate", finished, "--steps", "5", *QUICK, "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert set(found["students"][STUDENT]) == {"hard", "learned"}
    for entry in (found["students"][STUDENT], found["controls"]["random"][STUDENT]):
        assert len(entry["hard"]["steps"]) == 5
        assert all(len(stats["runs"]) == 2 for stats in entry["hard"]["steps"])
    assert found["steps"][0]["images"] == 2
    text = command("evaluate", finished, "--steps", "5", *QUICK, "--labels", "hard").out
    assert "average" in text
    assert "against random images" in text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--steps", "11"), "11 steps are asked for, but the set has 10 classes"),
        (("--steps", "5", "--labels", "votes"), "give --labels hard"),
        (("--steps", "5", "--equal-bytes"), "leave out --equal-bytes, or --steps"),
        (("--steps", "5", "--whole-epochs", "0"), "leave out --whole-epochs, or --steps"),
        (("--steps", "5", "--record"), "leave out --record, or --steps"),
        (("--steps", "1"), "--steps"),
    ],
)
def test_what_steps_cannot_have_is_refused(options, words, finished, refused):
    assert words in refused(2, "evaluate", finished, *options)


def test_a_group_without_images_is_named(context, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(incremental, "classes_after", lambda classes, steps: [4, 4, 10])
    table = context.recipe.table("evaluate")
    with pytest.raises(WorkError, match="the set has no image of classes 4 to 3"):
        judge_steps(context, table, finished / "set.h5", tmp_path / "log", 3)
