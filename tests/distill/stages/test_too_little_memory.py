"""Each stage says in one line that the address space is too small, and can be run again."""

import os
import re
import resource
import subprocess
import sys

import pytest

from tests.distill.cases import STAGES, outputs_of
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


def started(words, limit=None):
    def bound():
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, words)],
        capture_output=True,
        text=True,
        preexec_fn=bound,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_too_little_memory_is_one_line_in_every_stage(stage, run_copy, finished, recipe, command):
    unmake(run_copy, stage)
    words = ("run", recipe, "--out", run_copy, "--stage", stage, "--workers", "1", "--quiet")
    whole = started(words)
    assert whole.returncode == 0, whole.stderr
    peak = int(re.search(r"VmPeak:\s+(\d+)", whole.stderr)[1]) << 10
    failed = 0
    # Down to where a library of C++ cannot even be loaded, and ends the process itself.
    for less in (16, 60, 150, 300):
        unmake(run_copy, stage)
        done = started(words, peak - (less << 20))
        said = re.sub(r"VmPeak:.*\n", "", done.stderr)
        if done.returncode == 0:
            continue
        failed += 1
        assert done.returncode == 1, said
        assert said.startswith("error: there is too little memory"), said
        assert said.count("\n") == 1, said
        assert command(*words).code == 0
        assert outputs_of(run_copy)[stage] == outputs_of(finished)[stage]
    assert failed
