"""How students are trained is chosen on validation, for sets and controls, and kept in the set."""

import json
import shutil

import pytest

from distill.errors import WorkError
from distill.evaluation.confusion import Grade
from distill.evaluation.evaluated_set import EvaluatedSet
from distill.evaluation.jobs import StudentJob, Way, plan_jobs
from distill.evaluation.students import student_settings
from distill.evaluation.tuning import (
    choose_ways,
    describe_ways,
    plan_trials,
    stated_ways,
    with_ways,
)
from distill.recipes.tables.evaluate import EvaluateTable
from distill.sets.set_file import read_set
from tests.distill.cases import STUDENT

QUICK = ("--seeds", "1", "--epochs", "2", "--whole-epochs", "1", "--quiet", "--json")
EVERY = ["hard", "learned", "votes", "projector"]
LISTS = {
    "optimizers": ["trajectory", "adamw"],
    "lr_factors": [1.0, 3.0],
    "temperatures": [2.0],
    "hard_weights": [0.5],
}


def table_of(**keys):
    return EvaluateTable(students=["a"], **keys)


@pytest.fixture
def measured():
    """The tasks that were measured, with their jobs, and a function that grades by ways."""
    asked = []

    def grade(job):
        value = {"trajectory": 0.3, "adamw": 0.2}.get(job.way.optimizer, 0.1)
        value += 0.01 * job.way.lr_factor if job.group == "random" else -0.01 * job.way.lr_factor
        value += 0.05 if job.way.temperature == 2 else 0
        value += 0.05 if job.way.hard_weight and job.labels == "learned" else 0
        return Grade(value)

    def measure(task, jobs):
        asked.append((task, list(jobs)))
        return [(job, grade(job)) for job in jobs]

    return asked, measure


def test_trials_cover_every_kind_once_and_the_first_of_the_best_is_taken():
    jobs = plan_jobs(["a"], 2, ["hard"], EVERY, [])
    asked = []

    def measure(task, trials):
        asked.extend(job.name for job in trials)
        values = [0.3, 0.4, 0.6, 0.6, 0.9, 0.1]
        return [(job, Grade(value)) for job, value in zip(trials, values, strict=True)]

    ways = choose_ways(table_of(lr_factors=[0.5, 2.0]), jobs, measure, {})
    groups = ("students", "random", "whole")
    assert asked == [
        f"{group}/a/hard/0/lr={factor}/trial" for group in groups for factor in (0.5, 2)
    ]
    factors = {kind: way.lr_factor for kind, way in ways.items()}
    assert factors == {"students/a/hard": 2.0, "random/a/hard": 0.5, "whole/a/hard": 0.5}
    final = with_ways(jobs, ways)
    assert [job.way.lr_factor for job in final] == [2.0, 0.5, 0.5] * 2
    assert not any(job.trial for job in final)


def test_each_kind_chooses_by_itself_and_from_the_same_candidates(measured):
    asked, measure = measured
    jobs = plan_jobs(["a"], 2, ["hard", "learned", "votes"], EVERY, ["votes"])
    jobs.append(StudentJob("coded", "a", "votes", 0, ipc=3, coding="rounded:depth=1"))
    ways = choose_ways(table_of(**LISTS), jobs, measure, {})
    assert [task for task, _ in asked] == [
        "choose lr",
        "choose temperature",
        "choose class weight",
    ]
    tried = {}
    for job in asked[0][1]:
        tried.setdefault(job.kind, []).append((job.way.optimizer, job.way.lr_factor))
    pairs = [("trajectory", 1.0), ("trajectory", 3.0), ("adamw", 1.0), ("adamw", 3.0)]
    assert set(tried) == {job.kind for job in jobs}
    assert all(candidates == pairs for candidates in tried.values())
    assert ways == {
        "students/a/hard": Way("trajectory", 1.0),
        "students/a/learned": Way("trajectory", 1.0, hard_weight=0.5),
        "students/a/votes": Way("trajectory", 1.0, 2.0),
        "random/a/hard": Way("trajectory", 3.0),
        "random/a/votes": Way("trajectory", 3.0, 2.0),
        "whole/a/hard": Way("trajectory", 1.0),
        "coded/a/votes": Way("trajectory", 1.0),
    }
    assert all(job.trial and job.seed == 0 for _, trials in asked for job in trials)


def test_views_of_the_students_own_are_mixed_as_validation_finds_best():
    jobs = plan_jobs(["a"], 1, ["hard", "learned", "votes"], EVERY, ["votes"])
    best = {"hard": "cutmix", "votes": "mixup"}
    asked = []

    def measure(task, trials):
        asked.append((task, [job.name for job in trials]))
        return [(job, Grade(float(best[job.labels] == job.way.mix))) for job in trials]

    table = table_of(views="crop", mixes=["none", "mixup", "cutmix"])
    ways = choose_ways(table, jobs, measure, {})
    ((task, names),) = asked
    assert task == "choose mix"
    assert "students/a/hard/0/mix=cutmix/trial" in names
    assert len(names) == len(set(names)) == 3 * len(ways)
    assert {kind: way.mix for kind, way in ways.items()} == {
        "students/a/hard": "cutmix",
        "students/a/votes": "mixup",
        "random/a/hard": "cutmix",
        "random/a/votes": "mixup",
        "whole/a/hard": "cutmix",
    }
    described = json.loads(json.dumps(describe_ways(table, ways, 7)))
    assert stated_ways({"protocol": {"tuned": described}}) == ways
    with pytest.raises(ValueError, match=r"evaluate\.mixes mixes the views"):
        table_of(mixes=["mixup"])


def test_hard_labels_are_mixed_where_that_was_chosen(run_copy, recipe, command):
    def chosen(mix):
        keys = ("labels=hard", "views=crop", f"mixes={mix}", "seeds=1", "epochs=3")
        words = (word for key in keys for word in ("--set", f"evaluate.{key}"))
        assert command("run", recipe, "--out", run_copy, "--quiet", *words).code == 0
        return json.loads((run_copy / "evaluation.json").read_text())

    plain, mixed = chosen("none"), chosen("mixup")
    for found, mix in ((plain, "none"), (mixed, "mixup")):
        assert {way["mix"] for way in found["protocol"]["tuned"]["chosen"].values()} == {mix}
    assert plain["students"] != mixed["students"]
    assert plain["controls"]["random"] != mixed["controls"]["random"]


def test_the_plan_counts_the_trainings_that_a_choice_takes(measured):
    asked, measure = measured
    jobs = plan_jobs(["a"], 2, ["hard", "learned", "votes"], EVERY, ["votes"])
    for keys in (LISTS, {"temperatures": [2.0, 3.0]}, {"hard_weights": [0.5]}, {}):
        asked.clear()
        choose_ways(table_of(**keys), jobs, measure, {})
        taken = {job.name for _, trials in asked for job in trials}
        assert len(plan_trials(table_of(**keys), jobs)) == len(taken)


def test_what_is_known_is_not_searched_for(measured):
    asked, measure = measured
    jobs = plan_jobs(["a", "b"], 1, ["hard"], EVERY, [], whole_seeds=0)
    known = {"students/a/hard": Way("muon"), "students/z/hard": Way("sgd")}
    ways = choose_ways(table_of(**LISTS), jobs, measure, known)
    assert ways["students/a/hard"] == Way("muon")
    assert "students/z/hard" not in ways
    assert {job.kind for _, trials in asked for job in trials} == set(ways) - {"students/a/hard"}
    described = describe_ways(table_of(**LISTS), ways, 5)
    assert described["tried"] == LISTS
    assert stated_ways({"protocol": json.loads(json.dumps({"tuned": described}))}) == ways
    assert stated_ways(None) == stated_ways({"protocol": {}}) == {}


@pytest.mark.parametrize(
    "way",
    [{"optimizer": "lion"}, {"lr_factor": -1.0}, {"temperature": "hot"}, {"speed": 1}, [1.0]],
)
def test_a_way_that_no_student_can_be_trained_in_is_refused(way):
    measured = {"protocol": {"tuned": {"chosen": {"students/a/hard": way}}}}
    with pytest.raises(WorkError, match=r"students/a/hard .* choose it again with --anew"):
        stated_ways(measured)


def test_controls_may_have_every_rate_of_the_sets_students(finished):
    judged = EvaluatedSet(read_set(finished / "set.h5"))
    learned = judged.content.manifest["student_lr"]
    table = EvaluateTable(students=[STUDENT], lr=0.03, soft_lr=0.004)

    def how(group, optimizer, labels="hard"):
        job = StudentJob(group, STUDENT, labels, 0, way=Way(optimizer, 2.0), ipc=1)
        return student_settings(table, judged, job)

    own = student_settings(table, judged, StudentJob("students", STUDENT, "learned", 0))
    assert own.lr == pytest.approx(learned)
    for group in ("students", "random", "coded", "herded", "whole"):
        same = how(group, "trajectory")
        assert same.lr == pytest.approx(2 * learned)
        assert (same.momentum, same.weight_decay, same.schedule) == (0, 0, own.schedule)
        assert (how(group, "sgd").lr, how(group, "sgd").momentum) == (0.06, 0.9)
        assert (how(group, "muon").lr, how(group, "muon").optimizer) == (0.008, "muon")
    # An optimiser changes neither the loss nor the temperature of a label source.
    assert how("students", "sgd", "votes").temperature == 4
    warm = StudentJob("students", STUDENT, "votes", 0, way=Way(temperature=9.0))
    assert student_settings(table, judged, warm).temperature == 9


def test_the_protocol_is_stored_in_the_set_and_used_again(finished, tmp_path, command, asked):
    for name in ("set.h5", "committee.h5", "manifest.json"):
        shutil.copy(finished / name, tmp_path / name)

    def evaluate(*arguments):
        asked.clear()
        outcome = command("evaluate", tmp_path, *arguments, *QUICK)
        assert outcome.code == 0, outcome.err
        return json.loads(outcome.out)

    lists = ("--optimizers", "trajectory,adamw", "--temperatures", "2", "--hard-weights", "0.5")
    first = evaluate("--labels", "hard,votes", *lists, "--record")
    assert "validation" not in asked[asked.index("test") :]
    # Two optimisers for each of the five kinds, then a temperature and a weight for votes' two.
    assert asked.count("validation") == 5 * 2 + 2 * 2
    tuned = first["protocol"]["tuned"]
    stored = read_set(tmp_path / "set.h5").measured["protocol"]["tuned"]
    assert stored == tuned
    assert set(tuned["chosen"]) == {
        f"{group}/{STUDENT}/{labels}"
        for group, labels in [
            ("students", "hard"),
            ("students", "votes"),
            ("random", "hard"),
            ("random", "votes"),
            ("whole", "hard"),
        ]
    }

    again = evaluate("--labels", "hard,votes")
    assert "validation" not in asked
    assert again["students"] == first["students"]
    assert again["controls"] == first["controls"]
    assert again["protocol"]["tuned"]["chosen"] == tuned["chosen"]

    # The recipe of this set searches for nothing.
    assert "tuned" not in evaluate("--labels", "hard,votes", "--anew")["protocol"]
    assert "tuned" not in evaluate("--labels", "hard", "--protocol", "hard")["protocol"]


def test_rules_that_both_change_labels_are_refused():
    with pytest.raises(ValueError, match=r"hard_weight and evaluate\.gift both change labels"):
        table_of(hard_weight=0.1, gift=0.1)
    with pytest.raises(ValueError, match=r"evaluate\.anneal moves temperatures"):
        table_of(hard_weights=[0.1], anneal="cosine")
