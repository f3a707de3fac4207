"""Worker processes that start loaded: forked from a process that has imported the program.

That process, Python's own fork server, has a single thread and never works, so that forking it is
safe; it ends with this one. No process that is started here imports anything from the current
folder.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.process import BaseProcess
from typing import Any

# What a terminal and a job system send to all processes of a group.
REQUESTS = (signal.SIGINT, signal.SIGTERM)

_OWN = ("distill", "synth", "projectors")

# What is imported at its first use and takes seconds.
_SLOW = ("torch", "scipy.special", "sklearn.datasets", "torchvision", "open_clip", "peft")


def start_worker(target: Callable[..., None], arguments: tuple[Any, ...]) -> BaseProcess:
    """Start a process that calls a module's function; requests to stop are held in it.

    Raises:
        OSError, EOFError: if it cannot be started.
    """
    # It lets requests through when it starts, so not while they are held.
    resource_tracker.ensure_running()
    with interrupts_held():
        with safe_environment():
            _start_server()
        process = multiprocessing.get_context("forkserver").Process(
            target=target, args=arguments, daemon=True, name="distill worker"
        )
        process.start()
    return process


def _start_server() -> None:
    """Start the process that workers are forked from, unless it runs."""
    multiprocessing.set_forkserver_preload(_loaded())
    forkserver.ensure_running()


def _loaded() -> list[str]:
    """What this process has imported of the program and of what it needs: workers need it too."""
    own = [
        name for name in sys.modules if name.split(".")[0] in _OWN and name != "distill.__main__"
    ]
    return [name for name in _SLOW if name in sys.modules] + own


@contextmanager
def safe_environment() -> Iterator[None]:
    """Processes that start here search for modules where this one does, on one thread.

    The current folder, which Python searches first, is left out: it may hold anything.
    """
    changes = {
        "PYTHONSAFEPATH": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        # A library that starts threads when it is loaded could not be forked.
        "OMP_NUM_THREADS": "1",
    }
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Requests to stop wait; a process that is started here begins with them held."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, REQUESTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
