"""Processes that keep the other cores busy while a unit of work is timed, as other workers would.

Two workers on two cores take longer over their work than one alone does: they share caches, the
path to memory, and often the core itself.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe

import torch

from distill.errors import WorkError
from distill.run.engines.server import WorkerProcess, start_worker
from synth.networks import ConvNet

_READY, _WORK, _REST = "ready", "work", "rest"

# A companion that is not ready within this time will not help.
_STARTING_SECONDS = 30.0

# Images of a companion's batch, and their sides.
_BATCH, _SIDE = 32, 16


@dataclass
class Companions:
    """Workers that train a small network while they are told to, and wait otherwise.

    Attributes:
        start_seconds: what it took to start the last one.
    """

    start_seconds: float = 0.0
    _running: list[tuple[WorkerProcess, Connection]] = field(default_factory=list)

    def busy(self, count: int) -> None:
        """Have so many work from now on; more are started where that takes them.

        Raises:
            WorkError: if one cannot be started.
        """
        while len(self._running) < count:
            self._start()
        for place, (_, pipe) in enumerate(self._running):
            pipe.send(_WORK if place < count else _REST)

    def close(self) -> None:
        """End them."""
        for process, pipe in self._running:
            pipe.close()
            process.kill()
            process.join()
        self._running.clear()

    def _start(self) -> None:
        near, far = Pipe()
        started = time.perf_counter()
        try:
            process = start_worker(_accompany, far, 1)
            ready = near.poll(_STARTING_SECONDS) and near.recv() == _READY
        except (OSError, EOFError):
            ready = False
        finally:
            far.close()
        if not ready:
            near.close()
            raise WorkError("no worker process can be started; plan with --workers 1")
        self.start_seconds = time.perf_counter() - started
        self._running.append((process, near))


def _accompany(pipe: Connection, threads: int) -> None:
    """A companion's life: steps while it is told to work, until the pipe closes."""
    torch.set_num_threads(threads)
    network = ConvNet(1, (_SIDE, _SIDE), 10, depth=3, width=32)
    images = torch.ones(_BATCH, 1, _SIDE, _SIDE)
    word = _REST
    with suppress(EOFError, OSError):
        pipe.send(_READY)
        while True:
            if word == _REST or pipe.poll():
                word = pipe.recv()
            if word == _WORK:
                network.zero_grad(set_to_none=True)
                network(images).square().sum().backward()
