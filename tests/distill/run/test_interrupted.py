"""Whatever stops a run, running it again gives what an unbroken run gives."""

import json
import shutil
import signal
import time
from dataclasses import replace

import pytest

from distill.errors import InterruptedRunError
from distill.run.interrupt import Stop, listen
from distill.sets.set_file import read_set, write_set
from distill.store.files import remove
from distill.store.seals import sealed
from tests.distill.cases import (
    RUN_FILES,
    STAGES,
    STUDENT,
    CountingStop,
    artefacts,
    child,
    contents,
    copy_run,
    listen_with,
    outputs_of,
    read_json,
    rewrite_manifest,
)

OUTPUT = {
    "experts": "experts.h5",
    "match": "set.h5",
    "committee": "committee.h5",
    "project": "projector",
    "evaluate": "evaluation.json",
}
# Stage; the check at which it is stopped; the checks that are left when it goes on.
# An expert has 3 epochs and a member 10, each kept when it is whole; the outer loop keeps every
# step that it has finished, and so does the projector; each voted epoch is kept; a student has 3
# epochs, and is kept when it was tested.
STOPS = [
    ("experts", 4, 3),
    ("match", 3, 3),
    ("committee", 12, 20),
    ("relabel", 2, 3),
    ("project", 3, 2),
    ("evaluate", 8, 44 - 6),
]


def unmake(run, stage):
    """Bring a finished run back to before one of its stages."""
    manifest = read_json(run / "manifest.json")
    del manifest["stages"][stage]
    rewrite_manifest(run, manifest)
    if stage == "relabel":
        content = read_set(run / "set.h5")
        write_set(run / "set.h5", replace(content, votes=None, measured=None))
    else:
        remove(run / OUTPUT[stage])


def checkpoints(run):
    return contents(run / "checkpoints")


@pytest.mark.parametrize(("stage", "at", "left"), STOPS, ids=[stop[0] for stop in STOPS])
def test_stopped_stage_goes_on_to_the_same_end(
    stage, at, left, run_copy, finished, recipe, command, refused, monkeypatch
):
    unmake(run_copy, stage)
    arguments = ("run", recipe, "--out", run_copy, "--quiet")
    monkeypatch.setattr("distill.stages.run_recipe.listen", listen_with(CountingStop(at)))
    line = refused(130, *arguments)
    assert line == (
        f"error: interrupted; what was done is kept in {run_copy}: run the same command to go on\n"
    )
    assert stage not in outputs_of(run_copy)

    counting = CountingStop()
    monkeypatch.setattr("distill.stages.run_recipe.listen", listen_with(counting))
    assert command(*arguments, "--stage", stage).code == 0
    assert counting.checks == left
    assert command(*arguments).code == 0
    assert outputs_of(run_copy) == outputs_of(finished)
    assert artefacts(run_copy) == artefacts(finished)
    assert not checkpoints(run_copy)


def test_metrics_of_a_stopped_run_are_those_of_an_unbroken_one(
    finished, recipe, command, monkeypatch, tmp_path
):
    arguments = ("run", recipe, "--out", tmp_path / "run", "--quiet")
    for at in (5, 4, 14):
        monkeypatch.setattr("distill.stages.run_recipe.listen", listen_with(CountingStop(at)))
        assert command(*arguments).code == 130
    monkeypatch.setattr("distill.stages.run_recipe.listen", listen_with(Stop()))
    assert command(*arguments).code == 0
    metrics = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert sorted(metrics.splitlines()) == sorted(
        (finished / "metrics.jsonl").read_text().splitlines()
    )
    assert artefacts(tmp_path / "run") == artefacts(finished)


def test_seconds_of_a_stopped_stage_are_counted_on(recipe, command, monkeypatch, tmp_path):
    arguments = ("experts", recipe, "--out", tmp_path / "run", "--quiet")
    monkeypatch.setattr("distill.stages.run_recipe.listen", listen_with(CountingStop(4)))
    assert command(*arguments).code == 130
    (kept,) = (tmp_path / "run" / "checkpoints").glob("experts-*/seconds.json")
    assert 0 < json.loads(kept.read_text()) < 1000
    kept.write_text("1000.5")
    monkeypatch.setattr("distill.stages.run_recipe.listen", listen_with(Stop()))
    assert command(*arguments).code == 0
    assert read_json(tmp_path / "run" / "manifest.json")["stages"]["experts"]["seconds"] > 1000.5
    assert not checkpoints(tmp_path / "run")


def stopped_evaluation(run, recipe, command, monkeypatch):
    """Evaluate a run until two students are finished; returns the log that has them."""
    monkeypatch.setattr("distill.stages.run_recipe.listen", listen_with(CountingStop(8)))
    assert command("run", recipe, "--out", run, "--quiet").code == 130
    (log,) = (run / "checkpoints").glob("evaluate-*/jobs.jsonl")
    return log


def test_evaluation_goes_on_from_the_students_that_were_judged(
    run_copy, recipe, command, monkeypatch
):
    unmake(run_copy, "evaluate")
    arguments = ("run", recipe, "--out", run_copy, "--quiet")
    log = stopped_evaluation(run_copy, recipe, command, monkeypatch)
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert [row["job"] for row in rows] == [
        f"students/{STUDENT}/hard/0",
        f"students/{STUDENT}/learned/0",
    ]
    rows[0] = sealed({**rows[0], "accuracy": 0.5})
    # As a process leaves it that was killed while it wrote.
    log.write_text("\n".join(map(json.dumps, rows)) + '\n{"job": "students/convn')
    counting = CountingStop(3)
    monkeypatch.setattr("distill.stages.run_recipe.listen", listen_with(counting))
    assert command(*arguments).code == 130
    monkeypatch.setattr("distill.stages.run_recipe.listen", listen_with(Stop()))
    assert command(*arguments).code == 0
    found = read_json(run_copy / "evaluation.json")["students"][STUDENT]
    assert found["hard"]["runs"][0] == 0.5
    assert found["learned"]["runs"][0] == rows[1]["accuracy"]


def test_students_that_are_finished_serve_an_evaluation_of_more_seeds(
    run_copy, recipe, command, monkeypatch, tmp_path
):
    unmake(run_copy, "evaluate")
    alone = tmp_path / "alone"
    shutil.copytree(run_copy, alone)
    more = ("--set", "evaluate.seeds=3", "--set", "evaluate.labels=hard")
    assert command("run", recipe, "--out", alone, "--quiet", *more).code == 0

    log = stopped_evaluation(run_copy, recipe, command, monkeypatch)
    row = json.loads(log.read_text().splitlines()[0])
    assert row["job"] == f"students/{STUDENT}/hard/0"
    log.write_text(json.dumps(sealed({**row, "accuracy": 0.5})) + "\n")
    monkeypatch.setattr("distill.stages.run_recipe.listen", listen_with(Stop()))
    assert command("run", recipe, "--out", run_copy, "--quiet", *more).code == 0
    found, wanted = (
        read_json(run / "evaluation.json")["students"][STUDENT]["hard"]["runs"]
        for run in (run_copy, alone)
    )
    assert found == [0.5, *wanted[1:]]


def test_students_of_another_protocol_are_trained_again(run_copy, recipe, command, monkeypatch):
    unmake(run_copy, "evaluate")
    log = stopped_evaluation(run_copy, recipe, command, monkeypatch)
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    log.write_text("".join(json.dumps(sealed({**row, "accuracy": 0.5})) + "\n" for row in rows))
    monkeypatch.setattr("distill.stages.run_recipe.listen", listen_with(Stop()))
    words = ("run", recipe, "--out", run_copy, "--quiet", "--set", "evaluate.epochs=2")
    assert command(*words).code == 0
    found = read_json(run_copy / "evaluation.json")["students"][STUDENT]
    assert 0.5 not in (found["hard"]["runs"][0], found["learned"]["runs"][0])


EVALUATE = ("--seeds", "1", "--labels", "hard,learned", "--json", "--quiet")


def test_stopped_evaluation_of_a_set_keeps_its_finished_students(
    run_copy, command, refused, monkeypatch, tmp_path
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = contents(run_copy)
    words = ("evaluate", run_copy / "set.h5", *EVALUATE)
    whole = command(*words)
    counting = CountingStop(7)
    monkeypatch.setattr("distill.evaluation.whole.listen", listen_with(counting))
    line = refused(130, *words)
    (log,) = (tmp_path / "cache" / "limbeck" / "evaluations").iterdir()
    assert line == (
        f"error: interrupted; the finished students (2) are kept in {log}: run the same command "
        "to go on\n"
    )
    # Others, and another device or recipe, have a file of their own.
    counting = CountingStop()
    monkeypatch.setattr("distill.evaluation.whole.listen", listen_with(counting))
    assert command(*words) == whole
    once = counting.checks
    assert contents(tmp_path / "cache") == {}
    assert contents(run_copy) == before
    assert command(*words) == whole
    assert counting.checks - once > once


def test_stopped_evaluation_says_where_nothing_was_kept(run_copy, refused, monkeypatch, tmp_path):
    (tmp_path / "cache").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("distill.evaluation.whole.listen", listen_with(CountingStop(7)))
    line = refused(130, "evaluate", run_copy / "set.h5", *EVALUATE)
    assert line == "error: interrupted; nothing was kept: run the same command again\n"


def flipped(raw):
    """One bit of the numbers at the end of a file."""
    return raw[:-9] + bytes([raw[-9] ^ 1]) + raw[-8:]


DAMAGES = {
    "cut": lambda raw: raw[:1000],
    "flipped": flipped,
    "zeros": lambda raw: raw[:-200] + bytes(200),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=list(DAMAGES))
@pytest.mark.parametrize(("stage", "at"), [("match", 4), ("experts", 4), ("project", 3)])
def test_damaged_checkpoint_is_made_again(
    stage, at, damage, run_copy, finished, recipe, command, monkeypatch
):
    unmake(run_copy, stage)
    arguments = ("run", recipe, "--out", run_copy)
    monkeypatch.setattr("distill.stages.run_recipe.listen", listen_with(CountingStop(at)))
    assert command(*arguments, "--quiet").code == 130
    (kept,) = (run_copy / "checkpoints").glob(f"{stage}-*/*.safetensors")
    kept.write_bytes(damage(kept.read_bytes()))
    monkeypatch.setattr("distill.stages.run_recipe.listen", listen_with(Stop()))
    outcome = command(*arguments)
    assert outcome.code == 0
    assert outcome.err.count(f"{kept} is damaged, and what it held is made again\n") == 1
    assert artefacts(run_copy) == artefacts(finished)
    assert metrics_of(run_copy, stage) == metrics_of(finished, stage)


def metrics_of(run, stage):
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [row for row in rows if row["stage"] == stage]


def test_matching_that_refuses_steps_goes_on_to_the_same_end(
    finished, run_copy, recipe, command, monkeypatch, tmp_path
):
    distances = sorted(row["distance"] for row in metrics_of(finished, "match"))
    change = ("--set", f"match.threshold={(distances[2] + distances[3]) / 2}", "--quiet")
    unbroken = copy_run(finished, tmp_path / "unbroken")
    assert command("match", recipe, "--out", unbroken, *change).code == 0
    assert {row["applied"] for row in metrics_of(unbroken, "match")} == {True, False}

    monkeypatch.setattr("distill.stages.run_recipe.listen", lambda: listen_with(CountingStop(1))())
    for _ in range(6):
        assert command("match", recipe, "--out", run_copy, *change).code == 130
    assert command("match", recipe, "--out", run_copy, *change).code == 0
    assert metrics_of(run_copy, "match") == metrics_of(unbroken, "match")
    assert artefacts(run_copy) == artefacts(unbroken)


class MovingStop(CountingStop):
    """Moves a run elsewhere at the n-th check."""

    def __init__(self, at, run, moved):
        super().__init__()
        self.moving_at, self.run, self.moved = at, run, moved

    def check(self):
        super().check()
        if self.checks == self.moving_at:
            self.run.rename(self.moved)


@pytest.mark.parametrize("stage", ["experts", "match", "project", "evaluate"])
def test_run_that_is_moved_stops_and_goes_on_where_it_is(
    stage, run_copy, finished, recipe, refused, command, monkeypatch, tmp_path
):
    moved = tmp_path / "moved"
    unmake(run_copy, stage)
    words = ("run", recipe, "--stage", stage, "--quiet", "--workers", "1", "--out")
    stop = MovingStop(2, run_copy, moved)
    monkeypatch.setattr("distill.stages.run_recipe.listen", listen_with(stop))
    assert f"{run_copy} was moved or removed" in refused(1, *words, run_copy)
    assert not run_copy.exists()
    monkeypatch.setattr("distill.stages.run_recipe.listen", listen_with(Stop()))
    assert command("run", recipe, "--quiet", "--out", moved).code == 0
    assert artefacts(moved) == artefacts(finished)


def test_leftovers_of_a_killed_process_are_swept_away(run_copy, finished, recipe, command):
    for name in (".set.h5.123.tmp", ".metrics.jsonl.123.tmp"):
        (run_copy / name).write_bytes(b"half")
    (run_copy / ".projector.0a1b2c3d").mkdir()
    (run_copy / ".projector.0a1b2c3d" / "head.safetensors").write_bytes(b"half")
    assert command("run", recipe, "--out", run_copy, "--quiet").code == 0
    assert set(contents(run_copy)) == set(contents(finished))


def test_run_that_was_killed_at_its_very_start_can_start_again(recipe, command, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / ".lock").touch()
    (out / ".manifest.json.123.tmp").write_text("{")
    outcome = command("experts", recipe, "--out", out, "--quiet")
    assert outcome.code == 0, outcome.err
    assert set(contents(out)) == {*RUN_FILES, "experts.h5"}


def rows_before(run, stage):
    """Rows of metrics.jsonl before the first of a stage."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return next(place for place, row in enumerate(rows) if row["stage"] == stage)


def wait_for_rows(run, count, process):
    """Wait until metrics.jsonl has `count` rows, or the process has ended."""
    metrics = run / "metrics.jsonl"
    while process.poll() is None:
        if metrics.is_file() and metrics.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.005)


def test_interrupt_signal_ends_with_one_line_and_goes_on(finished, recipe, command, tmp_path):
    run = tmp_path / "run"
    # Many outer steps, so that the signal comes while there is still work.
    process = child("run", str(recipe), "--out", str(run), "--set", "match.iterations=5000", "-q")
    wait_for_rows(run, rows_before(finished, "match") + 1, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == ""
    assert err == (
        f"error: interrupted; what was done is kept in {run}: run the same command to go on\n"
    )
    assert list(outputs_of(run)) == ["experts", "committee", "project"]
    assert list((run / "checkpoints").glob("match-*/state.safetensors"))
    assert command("run", recipe, "--out", run, "--quiet").code == 0
    assert outputs_of(run) == outputs_of(finished)


def test_signal_asks_to_stop_and_handlers_are_restored():
    before = signal.getsignal(signal.SIGINT)
    with listen() as stop:
        stop.check()
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(InterruptedRunError):
            stop.check()
        assert signal.getsignal(signal.SIGINT) is before
    assert signal.getsignal(signal.SIGINT) is before


def test_second_signal_interrupts_at_once():
    # A shell starts what runs in the background with SIGINT ignored, and this test with it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with listen():
            signal.raise_signal(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_run_folder_may_be_removed_and_made_again(run_copy, finished, recipe, command):
    shutil.rmtree(run_copy)
    assert command("experts", recipe, "--out", run_copy, "--quiet").code == 0
    assert outputs_of(run_copy)["experts"] == outputs_of(finished)["experts"]
    assert set(outputs_of(run_copy)) <= set(STAGES)
