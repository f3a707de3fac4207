"""Ray shares the segments of matching: the bits that torchrun's processes, or one, give."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from distill.__main__ import run
from distill.errors import DivergedRunError
from distill.run.engines import build_engine
from distill.run.engines.protocol import LostError
from tests.distill.cases import (
    TINY,
    child,
    copy_run,
    descendants,
    outputs_of,
    read_json,
    write_recipe,
)

SHARED = TINY.partition("[committee]")[0].replace("span = 1", "span = 1\nsegments = 3")
ACTOR = "ray::_Actor"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A recipe of three segments an outer step."""
    return write_recipe(tmp_path_factory.mktemp("recipe"), SHARED, "shared")


@pytest.fixture(scope="module")
def experts(shared, tmp_path_factory, one_thread):
    out = tmp_path_factory.mktemp("experts") / "run"
    assert run(["experts", str(shared), "--out", str(out), "--quiet"]) == 0
    return out


@pytest.fixture(scope="module")
def by_ray(shared, experts, cluster, tmp_path_factory):
    """A run that two processes of the cluster have matched."""
    out = copy_run(experts, tmp_path_factory.mktemp("by_ray") / "run")
    assert run(match(shared, out)) == 0
    return out


def match(recipe, out, *words):
    return ["match", str(recipe), "--out", str(out), "--quiet", "--engine", "ray", *words]


def assert_same_set(out, other):
    assert outputs_of(out) == outputs_of(other)
    assert (out / "metrics.jsonl").read_text() == (other / "metrics.jsonl").read_text()


def test_two_processes_give_the_set_of_one(by_ray, shared, experts, tmp_path, command):
    alone = copy_run(experts, tmp_path / "run")
    assert command("match", shared, "--out", alone, "--quiet").code == 0
    assert_same_set(by_ray, alone)


def test_two_processes_give_the_bits_of_two_that_torchrun_starts(by_ray, shared, experts, tmp_path):
    out = copy_run(experts, tmp_path / "run")
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    done = subprocess.run(
        [sys.executable, *words, "distill", "match", str(shared), "--out", str(out), "--quiet"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert_same_set(out, by_ray)


def kill_member(out, place, killed):
    """Kill a process of the team once steps have been taken."""
    until = time.monotonic() + 60
    while time.monotonic() < until and not killed:
        members = descendants(ACTOR)
        if list(out.glob("checkpoints/match-*/state.safetensors")) and len(members) == 2:
            os.kill(sorted(members)[place], signal.SIGKILL)
            killed += members
        time.sleep(0.02)


@pytest.mark.parametrize("place", [0, 1])
def test_a_killed_process_changes_nothing(place, shared, experts, cluster, tmp_path):
    words = ("--set", "match.iterations=60")
    unbroken = copy_run(experts, tmp_path / "unbroken")
    assert run(match(shared, unbroken, *words)) == 0
    out, killed = copy_run(experts, tmp_path / "run"), []
    killer = threading.Thread(target=kill_member, args=(out, place, killed))
    killer.start()
    began = time.monotonic()
    assert run(match(shared, out, *words)) == 0
    assert time.monotonic() - began < 60
    killer.join()
    assert len(killed) == 2
    assert not set(killed) & set(descendants(ACTOR))
    assert_same_set(out, unbroken)


@dataclass
class Trouble:
    """A member that fails in the way that its name says."""

    rank: int

    def process(self):
        return self.rank, os.getpid()

    def diverge(self):
        raise DivergedRunError("it diverged")

    def die(self):
        if self.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)

    def fail(self):
        if self.rank == 1:
            raise UnicodeDecodeError("utf-8", b"", 0, 1, "strange")
        time.sleep(60)


def open_trouble(rank):
    assert rank.size == 2
    return Trouble(rank.rank)


@pytest.mark.parametrize(
    ("method", "error", "said"),
    [
        ("diverge", DivergedRunError, "it diverged"),
        ("die", LostError, "a process was lost"),
        ("fail", LostError, "a process could not go on .*strange"),
    ],
)
def test_what_a_process_of_a_team_meets_is_told_at_once(method, error, said, cluster):
    engine = build_engine("ray", None)
    began = time.monotonic()
    with engine.team(2, open_trouble, lambda: None) as team:
        found = team.ask("process")
        assert [rank for rank, _ in found] == [0, 1]
        assert len({os.getpid(), *(process for _, process in found)}) == 3
        with pytest.raises(error, match=said):
            team.ask(method)
    assert time.monotonic() - began < 30


def test_a_team_is_as_large_as_there_is_room(cluster, monkeypatch):
    monkeypatch.setattr("distill.run.engines.teams._PLACING_SECONDS", 2.0)
    for most, workers in ((8, None), (2, 2), (8, 2)):
        with build_engine("ray", workers).team(most, open_trouble, lambda: None) as team:
            assert team.size == 2
            with build_engine("ray", None).team(2, open_trouble, lambda: None) as other:
                assert other is None
    for most, workers, gpu in ((1, None, False), (8, 1, False), (8, None, True)):
        engine = build_engine("ray", workers)
        with engine.team(most, open_trouble, lambda: None, gpu=gpu) as team:
            assert team is None


def test_one_process_matches_where_the_cluster_is_too_small(
    shared, experts, cluster, tmp_path, command, monkeypatch
):
    monkeypatch.setattr("distill.run.engines.teams._PLACING_SECONDS", 2.0)
    alone, out = (copy_run(experts, tmp_path / name) for name in ("alone", "run"))
    assert command("match", shared, "--out", alone, "--quiet").code == 0
    with build_engine("ray", None).team(2, open_trouble, lambda: None):
        assert run(match(shared, out)) == 0
    assert outputs_of(out) == outputs_of(alone)


def group_of(leader):
    """Processes of a process group that are alive, besides its leader."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == leader and fields[0] != "Z" and folder.name != str(leader):
            found.append((folder / "cmdline").read_bytes().decode(errors="replace"))
    return found


@pytest.mark.parametrize("request_", [signal.SIGINT, signal.SIGTERM])
def test_a_group_that_is_told_to_stop_keeps_its_state_and_ends(request_, shared, experts, tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed; pip install 'limbeck[ray]'")
    out = copy_run(experts, tmp_path / "run")
    words = match(shared, out, "--workers", "2", "--set", "match.iterations=100000")
    process = child(*words, start_new_session=True)
    try:
        until = time.monotonic() + 60
        while not list(out.glob("checkpoints/match-*/state.safetensors")):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.1)
        os.killpg(process.pid, request_)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1].startswith("error: interrupted; what was done is kept")
    assert group_of(process.pid) == []
    assert "match" not in read_json(out / "manifest.json")["stages"]
