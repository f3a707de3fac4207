"""Where memory is too small, each stage says so in one line, or is killed, and can be run again.

A limit that is not reached changes nothing: what ends well has the result of an unlimited run.
"""

import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.distill.cases import (
    STAGES,
    STUDENT,
    TINY,
    contents,
    copy_run,
    outputs_of,
    read_json,
    rewrite_manifest,
    write_recipe,
)
from tests.distill.run.test_interrupted import unmake

# Prints the most address space that it needed.
PROGRAM = """
import atexit, re, sys
from pathlib import Path
from distill.__main__ import main

def tell():
    status = Path("/proc/self/status").read_text()
    sys.stderr.write(re.search(r"VmPeak:.*", status)[0] + "\\n")

atexit.register(tell)
main()
"""

# How libraries of Rust say that they end the process themselves.
ENDED = "memory allocation of"

# Down to where a library of C++ cannot even be loaded.
LESS = (16, 60, 150, 300)

# Of commands on a set torch is the most that they load. With these it aborted, was loaded by half,
# or wrote a traceback.
LESS_THAN_TORCH = (16, 116, 125, 137, 140, 150)


def started(words, bound=None):
    """Run `distill` as a process of its own; `bound` is called in it first."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, words)],
        capture_output=True,
        text=True,
        preexec_fn=bound,
        timeout=600,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )


def at_most(limit):
    def bound():
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    return bound


def said(done):
    """What a command printed as errors."""
    return re.sub(r"VmPeak:.*\n", "", done.stderr)


def each_with_less(words, prepare, less=LESS):
    """Run a command with ever less address space, first with all; yields what each run printed.

    None stands for a run that failed, which is checked.
    """
    prepare()
    whole = started(words)
    assert whole.returncode == 0, whole.stderr
    yield whole.stdout
    peak = int(re.search(r"VmPeak:\s+(\d+)", whole.stderr)[1]) << 10
    failed = 0
    for megabytes in less:
        prepare()
        done = started(words, at_most(peak - (megabytes << 20)))
        if done.returncode == 0:
            yield done.stdout
            continue
        if ENDED not in done.stderr:
            failed += 1
            assert done.returncode == 1, done.stderr
            assert said(done).startswith("error: there is too little memory"), said(done)
            assert said(done).count("\n") == 1, said(done)
        assert done.stdout == ""
        yield None
    assert failed


@pytest.fixture(scope="module")
def encoding(tmp_path_factory):
    """The recipe with a stage more."""
    text = TINY.replace("[evaluate]", '[encode]\ncodec = "topk:k=3"\n\n[evaluate]')
    return write_recipe(tmp_path_factory.mktemp("encoding"), text)


@pytest.fixture(scope="module")
def encoded(encoding, tmp_path_factory):
    """A finished run of that recipe."""
    run = tmp_path_factory.mktemp("encoded") / "run"
    done = started(("run", encoding, "--out", run, "--quiet"))
    assert done.returncode == 0, done.stderr
    return run


def unmake_any(run, stage):
    if stage != "encode":
        unmake(run, stage)
        return
    manifest = read_json(run / "manifest.json")
    del manifest["stages"][stage]
    rewrite_manifest(run, manifest)
    (run / "encoding.json").unlink()


@pytest.mark.slow
@pytest.mark.parametrize("stage", [*STAGES, "encode"])
def test_too_little_memory_is_one_line_in_every_stage(stage, encoding, encoded, command, tmp_path):
    run = copy_run(encoded, tmp_path / "run")
    words = ("run", encoding, "--out", run, "--stage", stage, "--workers", "1", "--quiet")
    wanted = outputs_of(encoded)
    for printed in each_with_less(words, lambda: unmake_any(run, stage)):
        if printed is None:
            kept = outputs_of(run)
            assert kept == {name: wanted[name] for name in kept}
            assert command(*words).code == 0
        assert outputs_of(run)[stage] == wanted[stage]


COMMANDS = {
    "evaluate": ("--labels", "hard", "--students", STUDENT, "--seeds", "1", "--epochs", "1"),
    "encode": ("--codec", "topk:k=3"),
    "compress": ("--bytes", "2000"),
    "order": (),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_commands_on_a_set_leave_nothing_where_memory_is_too_small(name, run_copy, tmp_path):
    out = tmp_path / "out.h5"
    words = (name, run_copy / "set.h5", *COMMANDS[name])
    words += ("--json",) if name == "evaluate" else ("--out", out)
    words += ("--quiet",) if name in ("evaluate", "encode") else ()
    less = (16, 150) if name == "evaluate" else LESS_THAN_TORCH
    before, made = contents(run_copy), []
    for printed in each_with_less(words, lambda: out.unlink(missing_ok=True), less):
        assert contents(run_copy) == before
        left = contents(tmp_path).keys() - {f"run/{path}" for path in before}
        assert left == (set() if printed is None or name == "evaluate" else {"out.h5"})
        if printed is not None:
            made.append((printed, contents(tmp_path).get("out.h5")))
    assert len(set(made)) == 1


V1, V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


@pytest.fixture
def group():
    """A control group whose memory can be bounded, where the system lets us have one."""
    home, names = V1, ("memory.limit_in_bytes", "memory.max_usage_in_bytes", "-1")
    if not V1.is_dir():
        home, names = V2, ("memory.max", "memory.peak", "max")
    place = home / f"limbeck-{os.getpid()}"
    try:
        place.mkdir()
    except OSError:
        pytest.skip("this process may not make a control group")
    try:
        if not all((place / name).exists() for name in names[:2]):
            pytest.skip("control groups do not bound memory here")
        yield Group(place, *names)
    finally:
        place.rmdir()


class Group:
    """A control group of one process after another."""

    def __init__(self, place, limit, peak, none):
        self.place, self._limit, self._peak, self._none = place, limit, peak, none

    def run(self, words, limit=None):
        """Run a command inside; returns it, and the most bytes that the group held."""
        (self.place / self._limit).write_text(self._none if limit is None else str(limit))
        done = started(words, self._enter)
        return done, int((self.place / self._peak).read_text())

    def _enter(self):
        (self.place / "cgroup.procs").write_text(str(os.getpid()))


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_run_that_is_killed_for_its_memory_goes_on(workers, group, recipe, finished, tmp_path):
    run = tmp_path / "run"
    words = ("run", recipe, "--out", run, "--workers", workers, "--quiet")
    bare, least = group.run(("show", finished))
    assert bare.returncode == 0, bare.stderr
    killed = set()
    # From where no stage has begun to where all of them end.
    for room in range(0, 400, 25):
        done, _ = group.run(words, least + (room << 20))
        if done.returncode == 0:
            break
        killed.add(len(read_json(run / "manifest.json")["stages"]) if run.exists() else -1)
        if done.returncode == 1:
            assert re.search(r"for lack of memory|too little memory", said(done)), said(done)
            assert said(done).count("\n") == 1, said(done)
        else:
            assert done.returncode == -signal.SIGKILL, done.stderr
        for name in ("manifest.json", "evaluation.json", "summary.json"):
            if (run / name).is_file():
                read_json(run / name)
    assert killed
    assert started(words).returncode == 0
    assert outputs_of(run) == outputs_of(finished)
    assert set(contents(run)) == set(contents(finished))
