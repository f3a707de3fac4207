"""Where memory is too small, each stage says so in one line, or is killed, and can be run again."""

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
    contents,
    copy_run,
    outputs_of,
    read_json,
    rewrite_manifest,
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

ENCODED = ("--set", "encode.codec=topk:k=3")

# Down to where a library of C++ cannot even be loaded.
LESS = (16, 60, 150, 300)


def started(words, bound=None):
    """Run `distill` as a process of its own; `bound` is called in it first."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, words)],
        capture_output=True,
        text=True,
        preexec_fn=bound,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )


def at_most(limit):
    def bound():
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    return bound


def check_line(said):
    assert said.startswith("error: there is too little memory"), said
    assert said.count("\n") == 1, said


def each_with_less(words, prepare):
    """Run a command with ever less address space; yields after each failure, which is checked.

    A library of Rust that gets no memory ends the process itself.
    """
    prepare()
    whole = started(words)
    assert whole.returncode == 0, whole.stderr
    peak = int(re.search(r"VmPeak:\s+(\d+)", whole.stderr)[1]) << 10
    failed = 0
    for less in LESS:
        prepare()
        done = started(words, at_most(peak - (less << 20)))
        if done.returncode == 0:
            continue
        if done.returncode != -signal.SIGABRT or "memory allocation of" not in done.stderr:
            failed += 1
            assert done.returncode == 1, done.stderr
            check_line(re.sub(r"VmPeak:.*\n", "", done.stderr))
        assert done.stdout == ""
        yield
    assert failed


@pytest.fixture(scope="module")
def encoded(finished, recipe, tmp_path_factory):
    """The finished run with a stage more."""
    run = copy_run(finished, tmp_path_factory.mktemp("encoded") / "run")
    done = started(("run", recipe, "--out", run, *ENCODED, "--quiet"))
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
def test_too_little_memory_is_one_line_in_every_stage(stage, encoded, recipe, command, tmp_path):
    run = copy_run(encoded, tmp_path / "run")
    words = ("run", recipe, "--out", run, *ENCODED, "--stage", stage, "--workers", "1", "--quiet")
    for _ in each_with_less(words, lambda: unmake_any(run, stage)):
        others = set(STAGES) - {stage}
        kept = outputs_of(run)
        assert {name: kept[name] for name in kept if name in others}.items() <= outputs_of(
            encoded
        ).items()
        assert command(*words).code == 0
        assert outputs_of(run)[stage] == outputs_of(encoded)[stage]


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
    words += () if name == "evaluate" else ("--out", out)
    words += ("--quiet",) if name in ("evaluate", "encode") else ()
    before = contents(run_copy)
    for _ in each_with_less(words, lambda: out.unlink(missing_ok=True)):
        assert {path.name for path in tmp_path.iterdir()} == {"run"}
        assert contents(run_copy) == before


V1, V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


@pytest.fixture
def group():
    """A control group whose memory can be bounded, where the system lets us have one."""
    home, names = (V1, ("memory.limit_in_bytes", "memory.max_usage_in_bytes", "-1"))
    if not V1.is_dir():
        home, names = (V2, ("memory.max", "memory.peak", "max"))
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
    killed = 0
    # From where no stage has begun to where all of them end.
    for room in range(0, 400, 40):
        done, _ = group.run(words, least + (room << 20))
        if done.returncode == 0:
            break
        killed += 1
        if done.returncode == 1:
            said = re.sub(r"VmPeak:.*\n", "", done.stderr)
            assert "for lack of memory" in said or "too little memory" in said, said
            assert said.count("\n") == 1, said
        else:
            assert done.returncode == -signal.SIGKILL, done.stderr
        for name in ("manifest.json", "evaluation.json", "summary.json"):
            if (run / name).is_file():
                read_json(run / name)
    assert killed
    assert started(words).returncode == 0
    assert outputs_of(run) == outputs_of(finished)
    assert set(contents(run)) == set(contents(finished))
