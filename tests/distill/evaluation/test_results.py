import pytest
import torch

from distill.errors import RecipeError
from distill.evaluation.evaluated_set import EvaluatedSet
from distill.evaluation.jobs import StudentJob, plan_jobs, statistics_of, summarise
from distill.evaluation.students import label_temperature, student_settings
from distill.recipes.build import generator_for, seed_of
from distill.recipes.tables.evaluate import EvaluateTable
from distill.sets.cost import count_bytes
from distill.sets.set_file import read_set
from synth.committee.vote import Committee
from tests.distill.cases import STUDENT

EVERY = ["hard", "learned", "votes", "projector"]


def test_statistics_by_hand():
    found = statistics_of([0.5, 0.7, 0.9])
    assert found["mean"] == pytest.approx(0.7)
    assert found["std"] == pytest.approx(0.2)
    assert found["runs"] == [0.5, 0.7, 0.9]
    # 4.303 is Student's t for two degrees of freedom, from the table of any textbook.
    half = 4.303 * 0.2 / 3**0.5
    assert found["interval"] == pytest.approx([0.7 - half, 1.0], abs=1e-4)


def test_statistics_of_one_run_have_no_spread():
    expected = {"mean": 0.25, "std": 0.0, "runs": [0.25], "interval": None}
    assert statistics_of([0.25]) == expected


def test_plan_puts_controls_beside_every_student():
    jobs = plan_jobs(["a", "b"], 2, EVERY, ["hard", "votes"], ["votes"])
    names = [job.name for job in jobs]
    assert names[:5] == [
        "students/a/hard/0",
        "students/a/votes/0",
        "random/a/hard/0",
        "random/a/votes/0",
        "whole/a/hard/0",
    ]
    assert names[5].endswith("/1")
    assert len(names) == len(set(names)) == 2 * 2 * 5


def test_plan_keeps_the_order_that_was_asked_for():
    jobs = plan_jobs(["a"], 1, ["learned", "hard"], EVERY, ["votes", "projector"])
    assert [job.name for job in jobs] == [
        "students/a/learned/0",
        "students/a/hard/0",
        "random/a/hard/0",
        "whole/a/hard/0",
    ]


def test_random_images_are_labelled_only_by_what_can_label_them():
    jobs = plan_jobs(["a"], 1, EVERY, EVERY, ["projector"])
    random = [job.labels for job in jobs if job.group == "random"]
    assert random == ["hard", "projector"]


def test_fewer_students_may_see_the_whole_data_set():
    jobs = plan_jobs(["a"], 3, ["hard"], EVERY, [], whole_seeds=1)
    assert [job.seed for job in jobs if job.group == "whole"] == [0]
    assert not [job for job in plan_jobs(["a"], 3, ["hard"], EVERY, [], 0) if job.group == "whole"]


def test_plan_without_any_label_source_is_refused():
    with pytest.raises(RecipeError, match="asks for votes, but this set has hard, learned"):
        plan_jobs(["a"], 1, ["votes"], ["hard", "learned"], [])


def test_summary_groups_runs_by_student_and_labels():
    jobs = [
        (StudentJob("students", "a", "hard", 0), 0.2),
        (StudentJob("random", "a", "hard", 0), 0.1),
        (StudentJob("students", "a", "hard", 1), 0.4),
        (StudentJob("whole", "b", "hard", 0), 0.9),
    ]
    found = summarise(iter(jobs))
    assert found["students"]["a"]["hard"]["runs"] == [0.2, 0.4]
    assert found["controls"]["random"]["a"]["hard"]["mean"] == 0.1
    assert found["controls"]["whole"] == {"b": {"hard": statistics_of([0.9])}}


@pytest.fixture(scope="module")
def content(finished):
    return read_set(finished / "set.h5")


def test_label_sources_are_those_that_there_are(content):
    assert EvaluatedSet(content).available == ["hard", "learned", "votes"]
    assert EvaluatedSet(content).labellers == []
    committee = Committee((torch.nn.Flatten(),), torch.ones(1))
    assert EvaluatedSet(content, committee).labellers == ["votes"]


def test_students_are_trained_as_their_labels_ask(content):
    table = EvaluateTable(students=[STUDENT], epochs=7, whole_epochs=2, lr=0.03, soft_lr=0.004)
    judged = EvaluatedSet(content)

    def settings(group, labels):
        return student_settings(table, judged, StudentJob(group, STUDENT, labels, 0))

    whole, hard = settings("whole", "hard"), settings("students", "hard")
    assert (whole.epochs, whole.lr, hard.epochs, hard.lr) == (2, 0.03, 7, 0.03)
    learned = settings("students", "learned")
    assert learned.lr == content.manifest["student_lr"]
    assert (learned.momentum, learned.schedule) == (0.0, "constant")
    votes = settings("random", "votes")
    assert (votes.optimizer, votes.lr, votes.temperature) == ("adamw", 0.004, 4.0)
    assert votes == settings("students", "projector")
    assert label_temperature(judged) == content.votes.temperature


def test_bytes_are_those_of_the_stored_values(content):
    found = count_bytes(content, (123, 456))
    assert found["images"] == 4 * content.images.numel()
    assert found["sources"]["hard"] == 10
    assert found["sources"]["learned"] == 4 * 10 * 10
    assert found["labels"] == sum(found["sources"].values())
    assert (found["projector"], found["external"]) == (123, 456)


def test_seeds_depend_on_everything_that_they_are_for():
    seeds = {seed_of(0), seed_of(1), seed_of(0, "a"), seed_of(0, "a", 1), seed_of(0, "a", 2)}
    assert len(seeds) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seed_of(0, "a", 1) == seed_of(0, "a", 1)
    drawn = [torch.rand(3, generator=generator_for(0, "a")) for _ in range(2)]
    assert torch.equal(*drawn)
