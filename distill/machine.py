"""Memory, CPU threads and the compiler of this machine."""

from __future__ import annotations

import math
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch


def reset_peak(device: torch.device) -> None:
    """Reset the peak, where the system allows it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        # Not Linux, or not allowed: the peak is then that of the process so far.
        return


def core_count() -> int:
    """Processor cores that this process may keep busy, at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = allowed or 1
    for folder in _control_groups():
        quota = (_words(folder / "cpu.max") or ["max"])[:2]
        if len(quota) == 2 and quota[0] != "max":
            cores = min(cores, int(quota[0]) // int(quota[1]))
    return max(1, cores)


def available_bytes() -> int | None:
    """Memory available without swapping, or None where unknown."""
    found = []
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
    except OSError:
        pass
    for folder in _control_groups():
        most, used = _words(folder / "memory.max"), _words(folder / "memory.current")
        if most and used and most[0] != "max":
            # Files that the kernel keeps for later count as used, and are given up when needed.
            kept = dict(zip(*[iter(_words(folder / "memory.stat"))] * 2, strict=False))
            found.append(int(most[0]) - int(used[0]) + int(kept.get("inactive_file", 0)))
    return max(0, min(found)) if found else None


def _control_groups() -> list[Path]:
    """Folders of the Linux control groups (version 2) that bound this process, inner ones first."""
    root = Path("/sys/fs/cgroup")
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    own = next((line[3:] for line in lines if line.startswith("0::")), None)
    if own is None:
        return []
    place = root / own.lstrip("/")
    return [folder for folder in (place, *place.parents) if folder.is_relative_to(root)]


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split()
    except OSError:
        return []


def peak_bytes(device: torch.device) -> int:
    """Peak bytes since `reset_peak`: allocated on a CUDA device, else resident."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = _status("VmHWM:")
    if peak is not None:
        return peak
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def resident_bytes() -> int:
    """Resident bytes of this process; its peak where only that is known."""
    resident = _status("VmRSS:")
    return peak_bytes(torch.device("cpu")) if resident is None else resident


def _status(field: str) -> int | None:
    """A field of /proc/self/status in bytes, or None."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


# Below this much work per batch and thread, waking a second thread costs more than it gives: on
# 16x16 digits in batches of ten, two threads took twice the time of one on a narrow network.
WORK_PER_THREAD = 4_000_000


@contextmanager
def threads_for(pixels: int, parameters: int, device: torch.device) -> Iterator[None]:
    """Use as many CPU threads as a batch keeps busy.

    Work is estimated as pixels times the square root of the parameters: a layer's share of the
    time grows with its width, its parameters with the square of it.

    OMP_NUM_THREADS, if set, takes precedence. Nothing is measured, so the same machine gives
    the same bits.

    Args:
        pixels: values of one batch of images, n * c * h * w.
        parameters: of the network.
        device: where the work is done; only the CPU is affected.
    """
    if device.type != "cpu" or "OMP_NUM_THREADS" in os.environ:
        yield
        return
    before = torch.get_num_threads()
    work = pixels * math.isqrt(parameters)
    torch.set_num_threads(max(1, min(before, work // WORK_PER_THREAD)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def cache_folder(name: str) -> Path | None:
    """A folder for what may be thrown away, that only this user can write; None if there is none.

    It lies in `$XDG_CACHE_HOME`, or `~/.cache`.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = home / "limbeck" / name
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def prepare_compiler() -> None:
    """Set the cache of PyTorch's compiler to a folder that only this user can write.

    Its default lies in the shared temporary folder, where another user may have created it first.
    Workers inherit both settings; each compiles on one core.
    """
    folder = cache_folder("compiled")
    if folder is None:
        return
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
