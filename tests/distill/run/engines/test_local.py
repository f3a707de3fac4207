import functools
import os
import shutil
import signal
import subprocess
import sys

import pytest

from distill import machine
from distill.__main__ import run
from distill.errors import DivergedRunError, InterruptedRunError, WorkError
from distill.run.engines import Load, Local
from distill.run.engines.local import LEAST_FLOPS, _Worker, run_jobs
from tests.distill.cases import TINY, outputs_of, write_recipe


def prepare_power(exponent):
    """Counts the preparations of a process: a result names its process and that count."""
    prepared.append(exponent)
    return lambda job: (job**exponent, os.getpid(), len(prepared))


prepared: list[int] = []


def prepare_threads():
    def threads(job):
        import torch

        return torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")

    return threads


def prepare_trouble(kind):
    def trouble(job):
        if job == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if job == "interrupt":
            # As a terminal does with all of its processes: workers leave that to the parent.
            os.kill(os.getpid(), signal.SIGINT)
            return "went on"
        if job == "terminate":
            # As what ends a job for its time does with all processes of its group.
            os.kill(os.getpid(), signal.SIGTERM)
            return "went on"
        if job == "strange":
            raise UnicodeDecodeError("utf-8", b"", 0, 1, "strange")
        raise {"diverged": DivergedRunError, "floating": FloatingPointError}[job](f"was {job}")

    return functools.partial(trouble)


@pytest.mark.parametrize("workers", [1, 3])
def test_every_job_has_its_result_and_each_process_prepares_once(workers):
    prepared.clear()
    found = dict(run_jobs(range(6), functools.partial(prepare_power, 2), workers))
    assert {job: result[0] for job, result in found.items()} == {n: n * n for n in range(6)}
    assert {result[2] for result in found.values()} == {1}
    processes = {result[1] for result in found.values()}
    assert (processes == {os.getpid()}) == (workers == 1)
    assert len(processes) <= workers


def test_no_jobs_need_no_preparation():
    prepared.clear()
    assert list(run_jobs([], functools.partial(prepare_power, 2), 1)) == []
    assert list(run_jobs([], functools.partial(prepare_power, 2), 2)) == []
    assert prepared == []


def test_threads_are_the_same_in_any_number_of_workers(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    here = dict(run_jobs([0], prepare_threads, 1, threads=1))
    there = dict(run_jobs([0, 1], prepare_threads, 2, threads=1))
    assert set(here.values()) == set(there.values()) == {(1, "1")}
    assert "OMP_NUM_THREADS" not in os.environ


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_job_raises_is_raised(workers):
    with pytest.raises(DivergedRunError, match="was diverged"):
        list(run_jobs(["diverged"] * 2, functools.partial(prepare_trouble, 0), workers))


def test_errors_travel_and_a_dead_worker_is_named():
    for job, kind, words in [
        ("floating", FloatingPointError, "was floating"),
        ("strange", RuntimeError, "UnicodeDecodeError: .*strange"),
        ("die", WorkError, "a worker process died .exit code -9.*fewer --workers"),
    ]:
        with pytest.raises(kind, match=words):
            list(run_jobs([job], functools.partial(prepare_trouble, 0), 2))


@pytest.mark.parametrize("request_to_stop", ["interrupt", "terminate"])
def test_workers_leave_requests_to_stop_to_the_parent(request_to_stop):
    found = run_jobs([request_to_stop], functools.partial(prepare_trouble, 0), 2)
    assert list(found) == [(request_to_stop, "went on")]


def test_a_worker_that_is_told_to_stop_while_it_starts_goes_on(monkeypatch):
    started = _Worker.__init__

    def told(worker, *arguments):
        started(worker, *arguments)
        os.kill(worker.process.pid, signal.SIGTERM)

    monkeypatch.setattr(_Worker, "__init__", told)
    found = dict(run_jobs(range(3), functools.partial(prepare_power, 2), 2))
    assert {job: result[0] for job, result in found.items()} == {0: 0, 1: 1, 2: 4}


@pytest.mark.parametrize("workers", [1, 2])
def test_check_ends_the_work(workers):
    def check():
        raise InterruptedRunError("interrupted")

    with pytest.raises(InterruptedRunError):
        list(run_jobs(range(3), functools.partial(prepare_power, 2), workers, check=check))


def test_numbers_below_one_are_refused():
    with pytest.raises(ValueError, match="workers is 0"):
        list(run_jobs([1], prepare_threads, 0))
    with pytest.raises(ValueError, match="threads 0"):
        list(run_jobs([1], prepare_threads, 1, threads=0))


def test_auto_takes_as_many_workers_as_cores_jobs_and_memory_allow(monkeypatch):
    def workers(jobs, flops=LEAST_FLOPS, need=100, gpu=False, cores=8, free=10**9):
        monkeypatch.setattr(machine, "core_count", lambda: cores)
        monkeypatch.setattr(machine, "available_bytes", lambda: free)
        return Local("auto").engine_for(jobs, lambda: Load(flops, need), gpu=gpu).workers

    assert workers(20) == 8
    assert workers(3) == 3
    assert workers(20, cores=1) == workers(1) == workers(20, flops=LEAST_FLOPS - 1e9) == 1
    assert workers(20, need=300_000_000) == 3
    assert workers(20, need=10**10) == workers(20, free=0) == 1
    assert workers(20, free=None) == 8
    # On a GPU, as many threads as torch is set to use serve it.
    assert workers(20, gpu=True) is None
    assert [Local(n).engine_for(20, pytest.fail).workers for n in (1, 3)] == [1, 3]


def prepare_place():
    import sys

    return lambda job: (
        os.getcwd(),
        os.environ.get("PLACE"),
        sys.path,
        os.environ["PYTHONSAFEPATH"],
    )


def test_workers_are_where_the_command_is_when_they_start(tmp_path, monkeypatch):
    import sys

    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        monkeypatch.setenv("PLACE", name)
        monkeypatch.syspath_prepend(str(tmp_path / name))
        found = dict(run_jobs([0], prepare_place, 2))[0]
        assert found == (str(tmp_path / name), name, sys.path, "1")


def prepare_siblings():
    def siblings(job):
        task = f"/proc/{os.getppid()}/task"
        return os.getppid(), len(os.listdir(task)) if os.path.isdir(task) else 1

    return siblings


def test_workers_are_forked_from_one_process_of_one_thread():
    found = {result for _ in range(2) for _, result in run_jobs([0, 1], prepare_siblings, 2)}
    assert len(found) == 1
    ((server, threads),) = found
    assert server != os.getpid()
    assert threads == 1


def test_a_server_that_was_killed_is_replaced():
    ((_, (server, _)),) = run_jobs([0], prepare_siblings, 2)
    os.kill(server, signal.SIGKILL)
    ((_, (other, _)),) = run_jobs([0], prepare_siblings, 2)
    assert other != server


SERVER_FAILS = """
import os
from distill.run.engines import server

def fail(names):
    raise MemoryError

server._import_modules = fail
server.own_process()
server.fork_server()
os.waitpid(server._Servers.running._pid, 0)
print("once")
"""


def test_a_server_that_cannot_load_ends_and_is_no_second_command():
    words = [sys.executable, "-c", SERVER_FAILS]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "once\n", "")


@pytest.fixture
def without_shared_memory():
    """Run `distill` where there is next to none, as in some containers."""
    program = 'mount -t tmpfs -o size=8k tmpfs /dev/shm && exec "$@"'
    apart = ["unshare", "--mount", "sh", "-c", program, "sh"]
    if shutil.which("unshare") is None or subprocess.run([*apart, "true"]).returncode:
        pytest.skip("this process may not mount a small /dev/shm")

    def call(*words):
        done = subprocess.run(
            [
                *apart,
                sys.executable,
                "-m",
                "distill",
                *map(str, words),
                "--workers",
                "2",
                "--quiet",
            ],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done

    return call


def test_workers_need_no_shared_memory(finished, without_shared_memory):
    short = ("--labels", "hard", "--epochs", "1", "--seeds", "2", "--json")
    assert without_shared_memory("evaluate", finished / "set.h5", *short).stderr == ""


@pytest.mark.slow
def test_a_run_whose_workers_share_the_steps_of_matching_needs_no_shared_memory(
    without_shared_memory, tmp_path
):
    recipe = write_recipe(tmp_path, TINY.replace("span = 1", "segments = 2\nspan = 1"))
    without_shared_memory("run", recipe, "--out", tmp_path / "run")
    alone = tmp_path / "alone"
    assert run(["run", str(recipe), "--out", str(alone), "--workers", "1", "--quiet"]) == 0
    assert outputs_of(tmp_path / "run") == outputs_of(alone)
