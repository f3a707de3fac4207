"""Independent jobs over processes of this machine. Imports no torch until a job needs it."""

from __future__ import annotations

import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, Literal

from distill.errors import WorkError
from distill.run.engines.protocol import (
    POLL_SECONDS,
    Job,
    Load,
    OpenMember,
    Prepare,
    Result,
    Team,
    attempt,
)
from distill.run.engines.server import REQUESTS, fork_server, start_worker

# Where all jobs take less than this many operations, some five seconds of one core, they are done
# before workers that share them have gained what it takes to load the program once more.
LEAST_FLOPS = 3e11

# A worker that has nothing to do ends by itself within this time, or is ended.
_LEAVING_SECONDS = 5.0


@dataclass(frozen=True)
class Local:
    """This machine: this process, or so many worker processes with one thread each.

    Attributes:
        workers: processes; 1 is this one, on one thread; "auto" is as many as there are cores,
            jobs and memory for, or this one where the work is too short or on a GPU; None is this
            one too, with the threads that its work keeps busy, whose number may decide the last
            bits.
    """

    workers: int | Literal["auto"] | None = None

    @property
    def here(self) -> bool:
        """Whether jobs are done in this process, one after another."""
        return self.workers in (None, 1)

    def get_ready(self) -> None:
        """Fork what workers start from, see `Engine`."""
        if not self.here:
            fork_server()

    def engine_for(self, jobs: int, load: Callable[[], Load], *, gpu: bool = False) -> Local:
        """This machine with a number of workers, see `Engine`."""
        if self.workers != "auto":
            return self
        if gpu:
            return Local()
        from distill.machine import available_bytes, core_count

        most = min(jobs, core_count())
        if most < 2 or (asked := load()).flops < LEAST_FLOPS:
            return Local(1)
        free = available_bytes()
        room = most if free is None else free // max(asked.bytes, 1)
        return Local(max(1, min(most, room)))

    @property
    def shared(self) -> bool:
        """Whether other machines may do jobs: never."""
        return False

    @property
    def threads(self) -> int | None:
        """CPU threads of each job; None for as many as torch is set to use."""
        return None if self.workers is None else 1

    def run_jobs(
        self,
        jobs: Sequence[Job],
        prepare: Prepare[Job, Result],
        check: Callable[[], None],
        *,
        gpu: bool = False,
    ) -> Iterator[tuple[Job, Result]]:
        """Do the jobs, see `Engine`; the workers of a machine share its GPU."""
        workers = 1 if self.workers in (None, "auto") else int(self.workers)
        return run_jobs(jobs, prepare, workers, threads=self.threads, check=check)

    def team(
        self, size: int, open_member: OpenMember, check: Callable[[], None], *, gpu: bool = False
    ) -> AbstractContextManager[Team | None]:
        """None, see `Engine`: torchrun shares work between processes of a machine."""
        return nullcontext()


def run_jobs(
    jobs: Sequence[Job],
    prepare: Prepare[Job, Result],
    workers: int = 1,
    *,
    threads: int | None = None,
    check: Callable[[], None] = lambda: None,
) -> Iterator[tuple[Job, Result]]:
    """Do independent jobs; yields (job, result) as each is finished, begun in the order given.

    A result must depend on its job alone: then it is the same for any number of workers that
    compute with the same number of threads.

    Args:
        jobs: plain data, small: they travel to another process.
        prepare: called once in every worker, returns what does one job. It travels too, so it is
            a module's function, or `functools.partial` of one with plain data.
        workers: processes at once; with 1 the jobs are done in this process, one after another.
        threads: CPU threads of each worker; None for an equal share of the cores (with one
            worker: as torch is set).
        check: called several times a second while waiting, and before each job in this process;
            what it raises ends all workers.

    Raises:
        ValueError: if `workers` or `threads` is below 1.
        WorkError: if a worker died.
        Exception: what a job raised; the other jobs are given up.
    """
    if workers < 1 or (threads is not None and threads < 1):
        raise ValueError(f"workers is {workers} and threads {threads}; both must be at least 1")
    if workers == 1:
        yield from _in_this_process(jobs, prepare, threads, check)
    else:
        share = threads or max(1, (os.cpu_count() or 1) // workers)
        yield from _in_processes(jobs, prepare, min(workers, len(jobs)), share, check)


def _in_this_process(
    jobs: Sequence[Job],
    prepare: Prepare[Job, Result],
    threads: int | None,
    check: Callable[[], None],
) -> Iterator[tuple[Job, Result]]:
    with torch_threads(threads):
        work = prepare() if jobs else None
        for job in jobs:
            check()
            if work is not None:
                yield job, work(job)


@contextmanager
def torch_threads(threads: int | None) -> Iterator[None]:
    """So many threads in this process; what was set comes back."""
    if threads is None:
        yield
        return
    import torch

    before, named = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    torch.set_num_threads(threads)
    # Read by `distill.machine`, which would choose a number of its own.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        os.environ.pop("OMP_NUM_THREADS")
        if named is not None:
            os.environ["OMP_NUM_THREADS"] = named


class _Worker:
    """A process that does one job at a time, seen from its parent."""

    def __init__(self, prepare: Prepare[Any, Any], threads: int) -> None:
        self.pipe, far = Pipe()
        try:
            self.process = start_worker(_serve, far, threads)
        except (OSError, EOFError) as error:
            self.pipe.close()
            raise WorkError(
                f"no worker process can be started ({error or type(error).__name__}), perhaps for "
                "lack of memory; use --workers 1"
            ) from None
        finally:
            far.close()
        self.job: Any = None
        self.busy = False
        # Not an argument of the process: those are unpacked before the threads can be set.
        self._send(prepare)

    def give(self, waiting: deque[Any]) -> None:
        """Begin the next of the waiting jobs, if there is one."""
        self.busy = bool(waiting)
        if waiting:
            self.job = waiting.popleft()
            self._send(self.job)

    def take(self) -> Any:
        """The result of the job that was begun; raises what the job raised."""
        try:
            failed, value = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            raise self._death() from None
        if failed:
            raise value
        return value

    def end(self) -> None:
        """End the process; at once if it has a job, as it holds nothing that is not here too."""
        if self.busy:
            self.process.kill()
        self.pipe.close()
        # One that has no job sees that, and gives back what it took from the system.
        self.process.join(_LEAVING_SECONDS)
        self.process.kill()
        self.process.join()

    def _send(self, value: Any) -> None:
        try:
            self.pipe.send(value)
        except (BrokenPipeError, ConnectionResetError):
            raise self._death() from None

    def _death(self) -> WorkError:
        self.process.join(1)
        return WorkError(
            f"a worker process died (exit code {self.process.exitcode}), perhaps for lack of "
            "memory; use fewer --workers"
        )


def _in_processes(
    jobs: Sequence[Job],
    prepare: Prepare[Job, Result],
    workers: int,
    threads: int,
    check: Callable[[], None],
) -> Iterator[tuple[Job, Result]]:
    waiting = deque(jobs)
    pool: list[_Worker] = []
    try:
        for _ in range(workers):
            pool.append(_Worker(prepare, threads))
            pool[-1].give(waiting)
        while any(worker.busy for worker in pool):
            check()
            ready = wait([worker.pipe for worker in pool if worker.busy], POLL_SECONDS)
            for worker in pool:
                if worker.pipe in ready:
                    job, result = worker.job, worker.take()
                    worker.give(waiting)
                    yield job, result
    finally:
        for worker in pool:
            worker.end()


def _serve(pipe: Connection, threads: int) -> None:
    """A worker's life: the preparation, then jobs until the pipe closes."""
    # A terminal sends Ctrl-C to all of its processes, and what stops a job for its time or its
    # machine sends SIGTERM to all of a group; the parent decides what they mean.
    for request in REQUESTS:
        signal.signal(request, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, REQUESTS)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    try:
        prepare: Prepare[Any, Any] = pipe.recv()
        work: Callable[[Any], Any] | None = None

        def done(job: Any) -> Any:
            nonlocal work
            work = work or prepare()
            return work(job)

        while True:
            pipe.send(attempt(partial(done, pipe.recv())))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
