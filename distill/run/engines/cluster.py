"""Independent jobs as tasks of a Ray cluster, begun again where a process or a machine is lost."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import signal
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from distill.errors import WorkError
from distill.run.engines.local import torch_threads
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
from distill.run.engines.server import interrupts_held, safe_environment
from distill.run.engines.teams import gathered

# A job that has cost so many processes is at fault itself.
_RETRIES = 3

# What this process has prepared, by the token of its `run_jobs`: Ray hands a process one task
# after another, and reading the data for each would cost more than many a task.
_prepared: dict[str, Callable[[Any], Any]] = {}


@dataclass(frozen=True)
class Ray:
    """A Ray cluster. The run's folder and the data must be at the same paths on all machines.

    Attributes:
        workers: tasks at once; None for as many as the cluster has CPUs.
        address: of a running cluster; None starts one on this machine, which ends with this
            process.

    Raises:
        WorkError: if ray is not installed.
    """

    workers: int | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        if importlib.util.find_spec("ray") is None:
            raise WorkError(
                "--engine ray needs Ray, which is not installed; `pip install 'limbeck[ray]'`"
            )
        if self.address is None:
            # Else Ray listens on every interface, and runs the code of whoever reaches it. It
            # reads this when it is imported, which is later than here.
            os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"

    @property
    def here(self) -> bool:
        """Whether jobs are done in this process: never."""
        return False

    @property
    def shared(self) -> bool:
        """Whether other machines may do jobs: those of a cluster that has an address."""
        return self.address is not None

    @property
    def threads(self) -> int:
        """CPU threads of each job: one, so that bits do not depend on the machine."""
        return 1

    def get_ready(self) -> None:
        """Nothing, see `Engine`: a cluster starts its processes itself."""

    def engine_for(self, jobs: int, load: Callable[[], Load], *, gpu: bool = False) -> Ray:
        """This cluster: it finds room itself."""
        return self

    def run_jobs(
        self,
        jobs: Sequence[Job],
        prepare: Prepare[Job, Result],
        check: Callable[[], None],
        *,
        gpu: bool = False,
    ) -> Iterator[tuple[Job, Result]]:
        """Do the jobs, see `Engine`.

        Raises:
            WorkError: if the cluster cannot be reached, or a job killed its process again and
                again.
            Exception: what a job raised; the other jobs are given up.
        """
        if not jobs:
            return
        import ray

        self._connect()
        task = ray.remote(_do).options(
            num_cpus=self.threads, num_gpus=int(gpu), max_retries=_RETRIES
        )
        begin = partial(task.remote, uuid.uuid4().hex, ray.put(prepare), self.threads, self._folder)
        waiting, pending = deque(jobs), dict[Any, Job]()
        try:
            while waiting or pending:
                while waiting and len(pending) < (self.workers or len(jobs)):
                    job = waiting.popleft()
                    pending[begin(job)] = job
                check()
                ready, _ = ray.wait(list(pending), timeout=POLL_SECONDS)
                for reference in ready:
                    yield pending.pop(reference), _result(reference)
        finally:
            for reference in pending:
                ray.cancel(reference, force=True)

    def team(
        self, size: int, open_member: OpenMember, check: Callable[[], None], *, gpu: bool = False
    ) -> AbstractContextManager[Team | None]:
        """A team of actors, see `Engine`, on one CPU each.

        Raises:
            WorkError: if the cluster cannot be reached.
        """
        most = min(size, self.workers or size)
        if most < 2:
            return nullcontext()
        self._connect()
        return gathered(most, open_member, self.threads, check, gpu=gpu, folder=self._folder)

    @property
    def _folder(self) -> str | None:
        """Where tasks find files by relative paths: as this process does, on this machine."""
        return None if self.address else os.getcwd()

    def _connect(self) -> None:
        import ray

        if ray.is_initialized():
            return
        # Nothing leaves the machine unasked; and which devices a task may use is our decision.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        # Ray's own 15 lets its processes starve, for minutes, where anything else is running.
        os.environ.setdefault("RAY_worker_niceness", "0")
        options: dict[str, Any] = {"address": self.address or "local"}
        if self.address is None:
            options |= {"num_cpus": self.workers, "include_dashboard": False}
        before = signal.getsignal(signal.SIGTERM)
        try:
            # What stops a machine's job sends SIGTERM to all of a group: the cluster stays until
            # this process has what it needs of it.
            # Ray has its processes import from the folder that is current here, before all others.
            with interrupts_held(), safe_environment(), contextlib.chdir(os.sep):
                ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            where = f"at --address {self.address}" if self.address else "on this machine"
            raise WorkError(
                f"no Ray cluster {where} ({error}); start one with `ray start --head`, or use "
                "--engine local"
            ) from None
        finally:
            # Ray answers SIGTERM by exiting at once; a run stops between two steps instead.
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)


def _do(
    token: str, prepare: Prepare[Any, Any], threads: int, folder: str | None, job: Any
) -> tuple[bool, Any]:
    """One job, in a process of the cluster."""

    def work() -> Any:
        if folder is not None:
            os.chdir(folder)
        if token not in _prepared:
            _prepared.clear()
            _prepared[token] = prepare()
        return _prepared[token](job)

    with torch_threads(threads):
        return attempt(work)


def _result(reference: Any) -> Any:
    """What a task returned; raises what its job raised."""
    import ray

    try:
        failed, value = ray.get(reference)
    except ray.exceptions.RayError as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise WorkError(
            f"a Ray task was lost {_RETRIES + 1} times ({lines[0]}), perhaps for lack of memory; "
            "use fewer --workers"
        ) from None
    if failed:
        raise value
    return value
