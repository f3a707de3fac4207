"""Matching by a team: the process that keeps the folder, and what it does when a team is lost."""

import json
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import torch.distributed

from distill.__main__ import run
from distill.run.engines.protocol import LostError, Rank
from distill.run.interrupt import Stop
from tests.distill.cases import TINY, CountingStop, copy_run, listen_with, outputs_of, write_recipe

TWO_SEGMENTS = TINY.partition("[committee]")[0].replace("span = 1", "span = 1\nsegments = 2")
CHANGES = ("--set", "match.checkpoint_every=4", "--quiet")


@dataclass
class TeamOfOne:
    """A team whose only member is in this process; it is lost at some of its steps."""

    engine: "OneMember"
    member: object
    size: int = 1

    def ask(self, method, *arguments):
        if method == "step":
            self.engine.steps += 1
            if self.engine.steps in self.engine.lost_at:
                raise LostError("a process was lost")
        return [getattr(self.member, method)(*arguments)]


@dataclass
class OneMember:
    """An engine that has room for one process of a team, and none after so many teams.

    Attributes:
        lost_at: steps, counted over all teams, at which a team is lost.
        most: teams that can be made.
    """

    lost_at: tuple[int, ...] = ()
    most: int = 100
    here: bool = True
    shared: bool = False
    threads: int = 1
    steps: int = 0
    asked: list[int] = field(default_factory=list)

    def get_ready(self):
        pass

    def engine_for(self, jobs, load, *, gpu=False):
        return self

    @contextmanager
    def team(self, size, open_member, check, *, gpu=False):
        self.asked.append(size)
        if len(self.asked) > self.most:
            yield None
            return
        try:
            yield TeamOfOne(self, open_member(Rank(0, 1, "127.0.0.1")))
        finally:
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two_segments(tmp_path_factory):
    return write_recipe(tmp_path_factory.mktemp("recipe"), TWO_SEGMENTS, "two")


@pytest.fixture(scope="module")
def experts(two_segments, tmp_path_factory, one_thread):
    """A run that has experts."""
    out = tmp_path_factory.mktemp("experts") / "run"
    assert run(["experts", str(two_segments), "--out", str(out), "--quiet"]) == 0
    return out


@pytest.fixture(scope="module")
def alone(two_segments, experts, tmp_path_factory):
    """The same run with a set that one process matched."""
    out = copy_run(experts, tmp_path_factory.mktemp("alone") / "run")
    assert run(["match", str(two_segments), "--out", str(out), *CHANGES]) == 0
    return out


@pytest.fixture
def matching(two_segments, experts, command, monkeypatch, tmp_path):
    """Match with an engine into a copy of the experts' run; returns what the command did."""
    out = copy_run(experts, tmp_path / "run")

    def match(engine, *changes, stop=None):
        monkeypatch.setattr("distill.run.engines.build_engine", lambda *arguments: engine)
        monkeypatch.setattr("distill.stages.run_recipe.listen", listen_with(stop or Stop()))
        return command("match", two_segments, "--out", out, *CHANGES, *changes)

    match.out = out
    return match


def rows_of(out):
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["stage"] == "match"]


def is_as(out, other):
    """Whether two runs have the same set, and the same steps to it."""
    found, wanted = rows_of(out), rows_of(other)
    # A team adds its distances up in single precision.
    distances = [[row.pop("distance") for row in rows] for rows in (found, wanted)]
    assert distances[0] == pytest.approx(distances[1], rel=1e-6)
    return outputs_of(out) == outputs_of(other) and found == wanted


@pytest.mark.parametrize("lost_at", [(), (1,), (3, 7), (1, 2, 3)])
def test_a_team_ends_where_one_process_does_however_often_it_is_lost(lost_at, matching, alone):
    engine = OneMember(lost_at)
    outcome = matching(engine)
    assert outcome.code == 0, outcome.err
    assert is_as(matching.out, alone)
    assert engine.asked == [2] * (1 + len(lost_at))


def test_this_process_goes_on_where_there_is_room_for_no_other_team(matching, alone):
    engine = OneMember(lost_at=(6,), most=1)
    assert matching(engine).code == 0
    assert is_as(matching.out, alone)
    assert engine.asked == [2, 2]


def test_teams_that_are_lost_again_and_again_are_given_up(matching, alone):
    outcome = matching(OneMember(lost_at=tuple(range(6, 12))))
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1
    assert "were lost 4 times in a row at outer step 4 (a process was lost)" in outcome.err
    assert [row["step"] for row in rows_of(matching.out)] == [0, 1, 2, 3]
    assert matching(OneMember()).code == 0
    assert is_as(matching.out, alone)


class AskedAt(Stop):
    """The user asks to stop while a step is under way; nothing is noticed before its end."""

    def __init__(self, engine, step):
        self.engine, self.step = engine, step

    @property
    def requested(self):
        return self.engine.steps >= self.step


@pytest.mark.parametrize(("lost_at", "kept"), [((), 6), ((6,), 4)])
def test_a_stopped_team_leaves_its_last_state_unless_it_is_lost(lost_at, kept, matching, alone):
    engine = OneMember(lost_at)
    outcome = matching(engine, "--set", "match.iterations=8", stop=AskedAt(engine, 6))
    assert outcome.code == 130
    assert len(engine.asked) == 1
    assert [row["step"] for row in rows_of(matching.out)] == list(range(kept))


def test_a_stopped_team_is_gone_on_with_by_one_process(matching, alone):
    engine = OneMember()
    assert matching(engine, stop=AskedAt(engine, 3)).code == 130
    assert matching(OneMember(most=0)).code == 0
    assert is_as(matching.out, alone)


def test_a_team_that_diverges_leaves_the_steps_before(matching):
    engine = OneMember()
    outcome = matching(engine, "--set", "match.threshold=0.0001", "--set", "match.patience=3")
    assert outcome.code == 3
    assert "match diverged at outer step 2" in outcome.err
    assert [row["step"] for row in rows_of(matching.out)] == [0, 1]
    assert len(engine.asked) == 1


def test_what_a_team_needs_is_asked_for_while_it_starts(matching, monkeypatch):
    stop = CountingStop(at=1)

    class Slow(OneMember):
        @contextmanager
        def team(self, size, open_member, check, *, gpu=False):
            check()
            yield None

    assert matching(Slow(), stop=stop).code == 130
    assert rows_of(matching.out) == []
