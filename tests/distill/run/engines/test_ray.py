"""Engines give the same bytes: this process, worker processes, and a Ray cluster that loses one."""

import functools
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest

from distill.__main__ import run
from distill.errors import DivergedRunError, InterruptedRunError, RecipeError, WorkError
from distill.run.engines import ENGINES, Engine, build_engine, in_turn
from distill.run.engines.protocol import Rank
from tests.distill.cases import TINY, descendants, outputs_of, write_recipe
from tests.distill.making_cases import RECOVER

MEMBERS = 'members = ["convnet2:width=8:norm=batch", "convnet2:width=6:norm=batch"]\n'


def small(text: str) -> str:
    """A recipe with a committee of two small members, and little to evaluate."""
    lines = [MEMBERS.strip() if line.startswith("members") else line for line in text.splitlines()]
    return "\n".join(lines).replace("seeds = 2", "seeds = 1")


@dataclass(frozen=True)
class Backwards:
    """Does jobs as if far away, from plain data, but in this process and the last one first."""

    here: bool = False
    shared: bool = False
    threads: int = 1
    most: int = 1000

    def get_ready(self):
        pass

    def engine_for(self, jobs, load, *, gpu=False):
        return self

    def run_jobs(self, jobs, prepare, check, *, gpu=False):
        work = prepare()
        for count, job in enumerate(reversed(jobs)):
            check()
            if count == self.most:
                raise InterruptedRunError("interrupted")
            yield job, work(job)

    def team(self, size, open_member, check, *, gpu=False):
        return nullcontext()


@pytest.fixture(scope="module")
def recipes(tmp_path_factory):
    """A recipe that matches, and one that recovers, as files."""
    folder = tmp_path_factory.mktemp("recipes")
    return {
        "match": write_recipe(folder, TINY.partition("[committee]")[0], "match"),
        "recover": write_recipe(folder, small(RECOVER), "recover"),
    }


@pytest.fixture(scope="module")
def wanted(recipes, tmp_path_factory, one_thread):
    """By recipe, the digests that the local engine gives with one worker."""

    @functools.cache
    def digests(name):
        out = tmp_path_factory.mktemp(name) / "run"
        words = ["run", str(recipes[name]), "--out", str(out), "--quiet", "--workers", "1"]
        assert run(words) == 0
        return outputs_of(out)

    return digests


def prepare_square(word):
    return functools.partial(square, word)


def square(word, job):
    if job == "diverged":
        raise DivergedRunError("it was diverged")
    return job * job, word, os.getpid()


def prepare_death(marks: Path, always: bool):
    return functools.partial(die, marks, always)


def die(marks, always, job):
    """Kills its own process at the first attempt of a job, or at each."""
    mark = marks / str(job)
    if always or not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return job


@pytest.mark.parametrize("workers", [1, 2])
def test_the_local_engine_keeps_the_protocol(workers):
    engine = build_engine("local", workers)
    assert engine.here == (workers == 1)
    assert engine.threads == 1
    assert not engine.shared
    with engine.team(2, Rank, lambda: None) as team:
        assert team is None
    found = dict(engine.run_jobs([1, 2, 3], functools.partial(prepare_square, "a"), lambda: None))
    assert {job: result[:2] for job, result in found.items()} == {
        1: (1, "a"),
        2: (4, "a"),
        3: (9, "a"),
    }


def test_results_come_in_turn():
    assert list(in_turn([(2, "c"), (0, "a"), (1, "b")])) == [(0, "a"), (1, "b"), (2, "c")]


def test_ray_and_addresses_are_refused_in_one_line(monkeypatch, refused, tmp_path):
    with pytest.raises(RecipeError, match="add --engine ray"):
        build_engine("local", None, "10.0.0.1:6379")
    line = refused(2, "run", "digits", "--out", tmp_path / "run", "--engine", "rai")
    assert "'ray'" in line or "ray" in line
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(WorkError, match=r"not installed; `pip install 'limbeck\[ray\]'`"):
        build_engine("ray", None)
    assert set(ENGINES) == {"local", "ray"}


@pytest.mark.slow
def test_ray_does_jobs_and_raises_what_they_raise(cluster):
    engine = build_engine("ray", None)
    assert not engine.here
    prepare = functools.partial(prepare_square, "a")
    found = dict(engine.run_jobs([1, 2, 3], prepare, lambda: None))
    assert {job: result[0] for job, result in found.items()} == {1: 1, 2: 4, 3: 9}
    assert os.getpid() not in {result[2] for result in found.values()}
    with pytest.raises(DivergedRunError, match="it was diverged"):
        list(engine.run_jobs(["diverged"], prepare, lambda: None))


@pytest.mark.slow
def test_a_lost_task_is_begun_again_but_not_for_ever(cluster, tmp_path):
    engine = build_engine("ray", 2)
    found = engine.run_jobs([1, 2], functools.partial(prepare_death, tmp_path, False), lambda: None)
    assert sorted(found) == [(1, 1), (2, 2)]
    with pytest.raises(WorkError, match="a Ray task was lost 4 times"):
        list(engine.run_jobs([3], functools.partial(prepare_death, tmp_path, True), lambda: None))


def use(monkeypatch, engine: Engine) -> None:
    monkeypatch.setattr("distill.run.engines.build_engine", lambda *arguments: engine)


@pytest.mark.parametrize("name", ["match", "recover"])
def test_every_stage_gives_the_same_bytes_far_away(name, recipes, wanted, monkeypatch, tmp_path):
    use(monkeypatch, Backwards())
    out = tmp_path / "run"
    assert run(["run", str(recipes[name]), "--out", str(out), "--quiet"]) == 0
    assert outputs_of(out) == wanted(name)


def test_work_that_was_done_far_away_is_gone_on_with_here(
    recipes, wanted, monkeypatch, tmp_path, command
):
    out = tmp_path / "run"
    arguments = ["run", recipes["recover"], "--out", out, "--quiet"]
    assert command(*arguments, "--stage", "committee", "--workers", "1").code == 0
    with monkeypatch.context() as patch:
        # Stopped after one of the two batches, which is the second in its turn.
        use(patch, Backwards(most=1))
        assert command(*arguments).code == 130
    kept = sorted(path.name for path in out.glob("checkpoints/recover-*/0*.safetensors"))
    assert kept == ["00001.safetensors"]
    assert command(*arguments, "--workers", "1").code == 0
    assert outputs_of(out) == wanted("recover")


def kill_one(folder: Path, killed: list[int]) -> None:
    """Kill a busy worker of the cluster once a stage has begun in `folder`."""
    until = time.monotonic() + 60
    while time.monotonic() < until and not killed:
        busy = descendants("ray::_do") if list(folder.glob("checkpoints/*")) else []
        if busy:
            os.kill(busy[0], signal.SIGKILL)
            killed.append(busy[0])
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["match", "recover"])
def test_ray_gives_the_same_bytes_though_a_worker_is_killed(
    name, cluster, recipes, wanted, tmp_path
):
    out, killed = tmp_path / "run", []
    killer = threading.Thread(target=kill_one, args=(out, killed))
    killer.start()
    arguments = ["run", str(recipes[name]), "--out", str(out), "--quiet", "--engine", "ray"]
    assert run(arguments) == 0
    killer.join()
    assert len(killed) == 1
    assert outputs_of(out) == wanted(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["match", "recover"])
def test_two_processes_give_the_same_bytes(name, recipes, wanted, tmp_path):
    out = tmp_path / "run"
    assert run(["run", str(recipes[name]), "--out", str(out), "--quiet", "--workers", "2"]) == 0
    assert outputs_of(out) == wanted(name)


LISTENERS = """
import os
from pathlib import Path

from distill.run.engines.cluster import Ray


def listening():
    found = set()
    for name in ("tcp", "tcp6"):
        for line in Path("/proc/net", name).read_text().splitlines()[1:]:
            place, _, state, *_, inode = line.split()[1:10]
            if state == "0A":
                found.add((place.partition(":")[0], inode))
    return found


before = listening()
engine = Ray(1)
engine._connect()
print(*sorted({address for address, _ in listening() - before}))
"""
# 127.0.0.1, plain and as an address of IPv6, and ::1, as the kernel writes them.
LOOPBACK = {
    "0100007F",
    "0000000000000000FFFF00000100007F",
    "00000000000000000000000001000000",
}


def test_a_cluster_of_ones_own_listens_on_this_machine_alone():
    pytest.importorskip("ray", reason="Ray is not installed; pip install 'limbeck[ray]'")
    words = [sys.executable, "-c", LISTENERS]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    addresses = set(done.stdout.split())
    assert addresses
    assert addresses <= LOOPBACK


@pytest.mark.parametrize(("address", "told"), [(None, "0"), ("10.0.0.1:6379", None)])
def test_ray_is_told_to_keep_to_this_machine_before_it_is_imported(address, told, monkeypatch):
    variable = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.delenv(variable, raising=False)
    build_engine("ray", 1, address)
    assert os.environ.get(variable) == told
    monkeypatch.delenv(variable, raising=False)
