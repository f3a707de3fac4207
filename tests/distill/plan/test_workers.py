"""What workers share, what they remember, and how long their start and their compilations take."""

import time
from dataclasses import replace

import pytest
import torch

from distill.plan import Machines, _resolved, make_plan
from distill.plan.calibration import Calibration, Timed
from distill.plan.clock import QUICK, THOROUGH, Clock
from distill.plan.companions import Companions
from distill.plan.times import StageTime, timed_tasks
from distill.recipes import compiling
from distill.recipes.loading import load_recipe
from distill.run.dry_run import Cost
from distill.run.engines import Local
from distill.stages.units.shapes import DataShape, data_shape
from distill.stages.units.unit import Part, Task, Unit
from tests.distill.cases import write_recipe

SHAPE = DataShape(2, 1, (8, 8), 10, 1, 1)
CPU = torch.device("cpu")
LONG, SHORT = Timed("long", "", 1, 10.0), Timed("short", "", 1, 1.0)


class Watched:
    """Companions that start no process."""

    start_seconds = 0.5

    def __init__(self):
        self.asked = []

    def busy(self, count):
        self.asked.append(count)


def watched_clock():
    return Clock(SHAPE, CPU, companions=Watched())


def unit(what="step", flops=0, seconds=None, compiled=None):
    def work(size):
        return (lambda: time.sleep(seconds)) if seconds else (lambda: None), 1

    return Unit(what, 4, work, lambda size: Cost(flops, 8), compiled=compiled)


def test_workers_share_what_is_mapped_and_wait_for_the_rest():
    tasks = (Task(5, (Part(2, SHORT),), mapped=True), Task(3, (Part(1, LONG),)))
    assert StageTime(tasks).seconds == 40.0
    assert StageTime(tasks, workers=1).seconds == 40.0
    assert StageTime(tasks, workers=2, start_seconds=0.5).seconds == 30.0 + 0.5 + 6.0
    assert StageTime(tasks, workers=8, start_seconds=0.5).seconds == 30.0 + 0.5 + 2.0


def test_a_worker_does_once_what_it_remembers():
    """Two students of each of three seeds: labels are made once a seed by one process."""
    students = tuple(
        Task(3, (Part(1, Timed(name, "", 1, 2.0)), Part(1, LONG, "labels")), mapped=True)
        for name in ("first", "second")
    )
    assert StageTime(students, workers=1).seconds == 3 * (2 * 2.0 + 10.0)
    # With three processes each seed comes back to the one that has its labels; with two, none does.
    assert StageTime(students, workers=3).seconds == 2 * 2.0 + 10.0
    assert StageTime(students, workers=2).seconds == 3 * (2.0 + 10.0)
    other = (students[0], Task(3, (Part(1, LONG, "other labels"),), mapped=True))
    assert StageTime(other, workers=1).seconds == 3 * 2.0 + 6 * 10.0


def test_every_worker_compiles_once():
    step = Timed("step, compiled", "", 1, 1.0, compiling=7.0)
    tasks = (Task(4, (Part(2, step),), mapped=True),)
    assert StageTime(tasks, workers=1).seconds == 7.0 + 8.0
    assert StageTime(tasks, workers=2).seconds == 7.0 + 4.0


@pytest.mark.parametrize(
    ("workers", "flops", "count", "expected"),
    [
        ("auto", 1e12, 4, 3),
        ("auto", 1e12, 2, 2),
        ("auto", 1e3, 4, 1),
        (1, 1e12, 4, 1),
        (8, 1e3, 4, 4),
        (None, 1e12, 4, None),
    ],
)
def test_workers_are_those_of_a_run(workers, flops, count, expected, monkeypatch):
    monkeypatch.setattr("distill.machine.core_count", lambda: 3)
    monkeypatch.setattr("distill.machine.available_bytes", lambda: None)
    clock = watched_clock()
    tasks = [Task(count, (Part(1, unit(flops=int(flops))),), mapped=True)]
    found = timed_tasks(tasks, clock, Local(workers))
    assert found.workers == expected
    assert {part.unit.workers for part in found.parts} == {expected}
    assert max(clock.companions.asked) == (expected or 1) - 1
    assert clock.companions.asked[-1] == 0
    alone = timed_tasks([Task(1, (Part(1, unit("other")),))], clock, Local(workers))
    assert alone.workers is alone.parts[0].unit.workers is None


def test_workers_are_timed_on_one_thread_each(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    threads = []
    try:
        clock = watched_clock()

        def work(size):
            return lambda: threads.append(torch.get_num_threads()), 1

        counted = Unit("step", 10**6, work, lambda size: Cost(0, 8), parameters=10**6)
        clock.time(counted, 2)
        assert set(threads) == {1}
        threads.clear()
        clock.time(counted)
        assert set(threads) == {3}
    finally:
        torch.set_num_threads(before)


def test_companions_keep_busy_until_they_are_closed():
    companions = Companions()
    companions.busy(1)
    try:
        assert 0 < companions.start_seconds < 30
        (process, _) = companions._running[0]
        companions.busy(0)
        companions.busy(1)
        assert len(companions._running) == 1
    finally:
        companions.close()
    assert companions._running == []
    assert process.exitcode is not None


def test_compiled_work_is_timed_without_its_compilation():
    made = []

    def compiled(size):
        made.append(size)
        first = [True]

        def call():
            # What a compiler takes of the processor, at the first call.
            until = time.process_time() + (0.3 if first.pop() else 0.0) if first else 0
            while time.process_time() < until:
                pass

        return call, 1

    clock = watched_clock()
    found = clock.time(unit(seconds=0.01, compiled=compiled))
    assert found.what == "step, compiled"
    assert found.compiling == pytest.approx(0.3, abs=0.1)
    assert found.seconds < 0.005
    # Once for the cache on the disk, and once as a run will find it; never for a probe.
    assert made == [4, 4]


@pytest.fixture
def lasting(monkeypatch):
    """Work whose calls take so many seconds of a clock that nothing else moves."""
    now = [0.0]
    for name in ("perf_counter", "process_time"):
        monkeypatch.setattr(f"distill.plan.clock.time.{name}", lambda: now[0])

    def made(seconds):
        def call():
            now[0] += seconds

        return lambda size: (call, 1)

    return made


def test_a_quick_plan_compiles_nothing_and_takes_the_usual_share(lasting):
    def never(size):
        raise AssertionError

    clock = Clock(SHAPE, CPU, effort=QUICK, companions=Watched())
    found = clock.time(replace(unit(compiled=never), work=lasting(0.05)))
    assert found.seconds == pytest.approx(0.7 * 0.05)
    assert (found.basis, found.compiling) == ("scaled", 10.0)


def test_compilation_that_would_take_too_long_is_priced_by_what_others_gained(lasting):
    asked = []

    def compiled(size):
        asked.append(size)
        return lasting(0.01)(size)

    clock = Clock(SHAPE, CPU, effort=replace(THOROUGH, compiling=1e-9), companions=Watched())
    first = clock.time(replace(unit(compiled=compiled), work=lasting(0.05)))
    assert first.seconds == pytest.approx(0.01)
    other = clock.time(replace(unit("other", compiled=compiled), work=lasting(0.1)))
    assert other.seconds == pytest.approx(0.1 * 0.01 / 0.05)
    assert (other.basis, asked) == ("scaled", [4, 4])


def test_a_calibration_that_is_kept_is_thorough(tmp_path, monkeypatch):
    efforts = []

    def recorded(*given):
        clock = Clock(*given)
        efforts.append(clock.effort)
        return clock

    monkeypatch.setattr("distill.plan.Clock", recorded)
    recipe = load_recipe("digits-el2n")
    monkeypatch.setattr("distill.plan.stage_times", lambda *given: iter(()))
    make_plan(recipe)
    make_plan(recipe, Machines(calibrate=tmp_path / "c.json"))
    assert efforts == [QUICK, THOROUGH]


def test_a_call_has_overhead_that_is_not_scaled(monkeypatch):
    now = [0.0]
    for name in ("perf_counter", "process_time"):
        monkeypatch.setattr(f"distill.plan.clock.time.{name}", lambda: now[0])

    def work(size):
        def call():
            now[0] += 0.3 + 0.01 * size

        return call, 1

    found = watched_clock().time(Unit("fit", 64, work, lambda size: Cost(1, 1)))
    assert found.seconds == pytest.approx(0.3 + 0.64)
    assert (found.measured_batch, found.basis) == (16, "scaled")


def test_calibration_prefers_as_many_workers():
    alone = Timed("step", "x", 4, 1.0, 10, 0, 4, 3)
    two = Timed("step", "x", 4, 1.5, 10, 0, 4, 3, workers=2, compiling=9.0)
    calibration = Calibration("cpu", 2, (alone, two))
    assert calibration.price("step", "x", 4, Cost(10, 0), None).seconds == 1.0
    found = calibration.price("step", "x", 4, Cost(10, 0), 2)
    assert (found.seconds, found.compiling, found.workers) == (1.5, 9.0, 2)
    assert calibration.price("step", "x", 8, Cost(20, 0), 5).workers == 5


def test_a_plan_compiles_where_a_run_would(tmp_path, monkeypatch):
    recipe = load_recipe(str(write_recipe(tmp_path)))
    shape = data_shape(recipe.data)
    monkeypatch.setattr(compiling, "find_compiler", lambda: "g++")
    tables = ("experts", "match", "committee", "evaluate")

    def found(other=None):
        resolved = _resolved(recipe, shape, CPU, other)
        return {getattr(resolved, name).compile for name in tables}

    assert found() == {"off"}
    monkeypatch.setattr(compiling, "LEAST_COMPILED_FLOPS", 1.0)
    assert found() == {"on"}
    assert found(Calibration("NVIDIA H100", 4, ())) == {"off"}
    assert found(Calibration("cpu", 4, ())) == {"on"}


def test_the_plan_says_how_many_workers_a_stage_has(tmp_path, command):
    recipe = write_recipe(tmp_path)
    stages = make_plan(load_recipe(str(recipe)), Machines(workers=2))["time"]["stages"]
    assert {name: stage["workers"] for name, stage in stages.items()} == {
        "experts": 2, "match": None, "committee": 2, "relabel": 2, "project": None, "evaluate": 2
    }  # fmt: skip
    experts = stages["experts"]
    work = sum(part["times"] * part["seconds"] for part in experts["parts"])
    # Two equal tasks, and the start of two workers.
    assert experts["seconds"] > 0.99 * work / 2
    assert "experts, 2 workers" in command("plan", recipe, "--workers", "2").out
