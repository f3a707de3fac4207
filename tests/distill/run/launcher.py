"""Processes of `distill` that are forked once everything is imported: a start takes no seconds."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# A line of standard input starts a process; its number and then its exit code are printed.
PROGRAM = """
import importlib, json, os, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
from distill.__main__ import run
from distill.run.engines.server import own_process

for line in sys.stdin:
    words, errors = json.loads(line)
    pid = os.fork()
    if pid == 0:
        nothing = os.open(os.devnull, os.O_RDWR)
        for number, opened in enumerate((nothing, nothing, os.open(errors, os.O_WRONLY))):
            os.dup2(opened, number)
        own_process()
        sys.exit(run(words))
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
# What a run imports at its first use.
MODULES = (
    "torch._dynamo", "torchvision", "open_clip", "peft", "sklearn.datasets", "scipy.special",
    "distill.stages.run_recipe", "distill.evaluation.whole", "distill.report.writing",
)  # fmt: skip


@dataclass
class Launched:
    """A process that was forked; as much of `subprocess.Popen` as is needed."""

    pid: int
    launcher: subprocess.Popen[str]
    errors: Path
    returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""
        if self.returncode is None and select.select([self.launcher.stdout], [], [], 0)[0]:
            self._wait()
        return self.returncode

    def kill(self) -> None:
        """End it at once, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def communicate(self) -> tuple[str, str]:
        """Wait until it has ended; returns what it printed as errors."""
        if self.returncode is None:
            self._wait()
        return "", self.errors.read_text()

    def _wait(self) -> None:
        assert self.launcher.stdout is not None
        self.returncode = int(self.launcher.stdout.readline())


class Launcher:
    """Starts one process after another."""

    def __init__(self, process: subprocess.Popen[str], errors: Path) -> None:
        self._process, self._errors = process, errors

    def __call__(self, *words: str) -> Launched:
        """Start `distill` with these words."""
        process, errors = self._process, self._errors
        assert process.stdin is not None
        assert process.stdout is not None
        errors.write_text("")
        process.stdin.write(json.dumps([words, str(errors)]) + "\n")
        process.stdin.flush()
        return Launched(int(process.stdout.readline()), process, errors)


@contextmanager
def launcher(folder: Path) -> Iterator[Launcher]:
    """A launcher; `folder` takes what processes print as errors."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *MODULES],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    with process:
        yield Launcher(process, folder / "errors.txt")
