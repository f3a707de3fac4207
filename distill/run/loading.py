"""Where the memory of this process is bounded, libraries are loaded only if they fit.

Those of C++ and Fortran that get no memory while they are loaded end the process, each in its own
way: torch aborts, is loaded by half, or never returns, and OpenBLAS exits. Imports no torch.
"""

from __future__ import annotations

import importlib
import mmap
import os
import resource
import sys
from collections.abc import Callable, Collection
from importlib.abc import MetaPathFinder
from typing import NoReturn

from distill.errors import WorkError

# What every command that works loads. How much that takes depends on what torch was built for.
_LIBRARIES = ("numpy", "torch", "h5py")

# Beside them, to begin to work.
_SPARE = 32 << 20

# Loading takes seconds of a processor; whoever has had this many asks for memory again and again.
_SECONDS = 60

# SciPy with what scikit-learn loads of it: two copies of OpenBLAS and their buffers.
_SCIPY = 192 << 20

# They fit into this for certain: torch for CUDA takes 3 GiB of addresses.
_PLENTY = 16 << 30


def check_before_loading() -> None:
    """Have this process check for memory before it first imports torch or SciPy.

    Where it lacks, that import raises WorkError. Without a limit on memory, and outside Linux,
    nothing is checked.
    """
    if _limit() is None or not sys.modules.keys().isdisjoint(_LIBRARIES):
        return
    sys.meta_path.insert(0, _Before(_LIBRARIES, _check_libraries))
    sys.meta_path.insert(0, _Before(("scipy",), _check_scipy))


class _Before(MetaPathFinder):
    """Calls a check before any of some modules is first imported; finds none itself."""

    def __init__(self, names: Collection[str], check: Callable[[], None]) -> None:
        self._names, self._check = names, check

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        """Called by Python for whatever is imported."""
        if fullname in self._names:
            sys.meta_path.remove(self)
            self._check()


def _limit() -> int | None:
    """Bytes that this process may have, or None where nothing bounds them, or they are plenty."""
    if sys.platform != "linux":
        return None
    limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    return min((x for x in limits if x != resource.RLIM_INFINITY and x < _PLENTY), default=None)


def _check_libraries() -> None:
    """Raise WorkError if torch and the others cannot be loaded: another process tries first."""
    pid = os.fork()
    if pid == 0:
        _try_libraries()
    if os.waitpid(pid, 0)[1] != 0:
        raise _too_little("torch")


def _try_libraries() -> NoReturn:
    """Load them, and end with 0 if that went well, or if the lack is not one of memory."""
    code = 1
    try:
        _bound(resource.RLIMIT_CORE, 0)
        _bound(resource.RLIMIT_CPU, _SECONDS)
        silence = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(silence, stream)
        for name in _LIBRARIES:
            importlib.import_module(name)
        code = 0 if _is_free(_SPARE) else 1
    except ModuleNotFoundError:
        code = 0
    finally:
        os._exit(code)


def _bound(kind: int, most: int) -> None:
    """Lower a limit of this process, for good."""
    hard = resource.getrlimit(kind)[1]
    least = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (least, least))


def _check_scipy() -> None:
    """Raise WorkError if SciPy cannot be loaded."""
    if not _is_free(_SCIPY):
        raise _too_little("SciPy")


def _is_free(size: int) -> bool:
    """Whether this process may have so many bytes more; none are taken."""
    try:
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except (OSError, MemoryError):
        return False
    return True


def _too_little(library: str) -> WorkError:
    return WorkError(
        f"there is too little memory to load {library}: a limit allows this process "
        f"{_limit() or 0:,} bytes in all; raise it (ulimit -v and -d)"
    )
