"""Worker processes that start loaded: forked from a server that has imported the program.

The server is a process that never works. The command `distill` forks it from itself as soon as it
is loaded, before it has read or computed anything; any other process has a new one started, as its
own threads and locks must not be copied. The server ends with the process that it belongs to.
"""

from __future__ import annotations

import atexit
import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any

from distill.run.allocator import keep_freed_memory

# What a terminal and a job system send to all processes of a group.
REQUESTS = (signal.SIGINT, signal.SIGTERM)

_OWN = ("distill", "synth", "projectors")

# What is imported at its first use and takes seconds.
_SLOW = (
    "torch",
    "torch._dynamo",
    "scipy.special",
    "sklearn.datasets",
    "torchvision",
    "open_clip",
    "peft",
)

_GONE = (OSError, EOFError)


@dataclass
class WorkerProcess:
    """A process that the server has forked."""

    pid: int
    server: _Server
    exitcode: int | None = None

    def join(self, seconds: float | None = None) -> None:
        """Wait until it has ended; not if the server is gone, which alone can tell."""
        if self.exitcode is None:
            with suppress(*_GONE):
                self.exitcode = self.server.ask("join", self.pid, seconds)

    def kill(self) -> None:
        """End it at once."""
        if self.exitcode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


class _Server:
    """The server, seen from the process that it belongs to."""

    def __init__(self, pipe: Connection, pid: int) -> None:
        self._pipe, self._pid = pipe, pid
        self._loaded: set[str] = set()
        # Threads of this process may each have workers; a question and its answer stay together.
        self._turn = threading.Lock()

    def ask(self, *request: Any) -> Any:
        """What the server answers."""
        with self._turn:
            self._pipe.send(request)
            return self._pipe.recv()

    def load(self, names: list[str]) -> None:
        """Have modules imported, unless they are."""
        if new := [name for name in names if name not in self._loaded]:
            self._loaded.update(new)
            self.ask("load", new)

    def start(self, target: Callable[..., None], far: Connection, threads: int) -> WorkerProcess:
        """Fork a worker that calls `target` with its end of a pipe and the number of threads."""
        place = _Place(os.getcwd(), dict(os.environ), sys.path)
        with self._turn:
            self._pipe.send(("start", target, threads, place))
            send_handle(self._pipe, far.fileno(), self._pid)
            return WorkerProcess(self._pipe.recv(), self)

    def end(self) -> None:
        """End it: it holds nothing, and its workers end by themselves."""
        self._pipe.close()
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)


class _Servers:
    """The server of this process, if there is one."""

    running: _Server | None = None
    owner = 0
    may_fork = False


def own_process() -> None:
    """Say that this process is the command's own: nothing else runs in it."""
    _Servers.may_fork = sys.platform == "linux"


def fork_server() -> None:
    """Fork the server from this process, where that may be done and there is none."""
    if not _Servers.may_fork or _Servers.running is not None:
        return
    _Servers.may_fork = False
    near, far = Pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    with interrupts_held(), warnings.catch_warnings():
        # Newer Pythons warn of threads: those of BLAS libraries, which let them be forked.
        warnings.simplefilter("ignore")
        pid = os.fork()
        if pid == 0:
            try:
                near.close()
                # Whatever trains needs it, and it is imported while the command reads its data.
                _import_modules(["torch._dynamo"])
                _serve_and_exit(far)
            finally:
                # For lack of memory, say: it must not go on as a second command.
                os._exit(1)
    far.close()
    _keep(_Server(near, pid))


def start_worker(target: Callable[..., None], far: Connection, threads: int) -> WorkerProcess:
    """Start a process that calls a module's function with its end of a pipe and its threads.

    SIGINT and SIGTERM are held in it until it lets them through.

    Raises:
        OSError, EOFError: if it cannot be started.
    """
    if _Servers.running is not None and _Servers.owner == os.getpid():
        try:
            return _started(_Servers.running, target, far, threads)
        except _GONE:
            _Servers.running.end()
    return _started(_new_server(), target, far, threads)


def _started(
    server: _Server, target: Callable[..., None], far: Connection, threads: int
) -> WorkerProcess:
    server.load(_loaded())
    return server.start(target, far, threads)


def _new_server() -> _Server:
    """A server that is started from nothing, and imports what this process has imported."""
    near, far = Pipe()
    code = f"from distill.run.engines.server import serve; serve({far.fileno()})"
    with interrupts_held(), safe_environment():
        process = subprocess.Popen(  # noqa: S603 - this Python, with our own code
            [sys.executable, "-c", code], stdin=subprocess.DEVNULL, pass_fds=[far.fileno()]
        )
    far.close()
    # Waited for by its number; the object would complain that it still runs.
    process.returncode = 0
    server = _Server(near, process.pid)
    _keep(server)
    return server


def _keep(server: _Server) -> None:
    _Servers.running, _Servers.owner = server, os.getpid()
    atexit.register(_end, server, os.getpid())


def _end(server: _Server, owner: int) -> None:
    if os.getpid() == owner:
        server.end()


def _loaded() -> list[str]:
    """What this process has imported of the program and of what it needs: workers need it too."""
    own = [name for name in sys.modules if name.split(".")[0] in _OWN]
    return [name for name in (*_SLOW, *own) if name in sys.modules and name != "distill.__main__"]


def serve(number: int) -> None:
    """The life of a server that was started from nothing; `number` is its end of the pipe."""
    _serve_and_exit(Connection(number))


def _serve_and_exit(pipe: Connection) -> None:
    """Answer until the pipe closes, and leave without touching what was inherited."""
    with suppress(*_GONE):
        started: dict[int, BaseProcess] = {}
        while True:
            _answer(pipe, started, *pipe.recv())
    os._exit(0)


def _answer(
    pipe: Connection, started: dict[int, BaseProcess], request: str, *arguments: Any
) -> None:
    if request == "load":
        _import_modules(arguments[0])
        pipe.send(None)
    elif request == "start":
        target, threads, place = arguments
        far = Connection(recv_handle(pipe))
        worker = multiprocessing.get_context("fork").Process(
            target=_work, args=(pipe, place, target, far, threads), name="distill worker"
        )
        worker.start()
        far.close()
        started[worker.pid or 0] = worker
        pipe.send(worker.pid)
    else:
        pid, seconds = arguments
        started[pid].join(seconds)
        pipe.send(started[pid].exitcode)


def _import_modules(names: list[str]) -> None:
    for name in names:
        with suppress(ImportError):
            importlib.import_module(name)


@dataclass(frozen=True)
class _Place:
    """What a worker shares with the process that it works for at the time when it starts."""

    folder: str
    environment: dict[str, str]
    path: list[str]


def _work(
    pipe: Connection, place: _Place, target: Callable[..., None], far: Connection, threads: int
) -> None:
    """The life of a worker."""
    pipe.close()
    keep_freed_memory()
    os.chdir(place.folder)
    os.environ.update(place.environment)
    sys.path[:] = place.path
    target(far, threads)


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
