"""Peak memory of a stage."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch


def reset_peak(device: torch.device) -> None:
    """Start measuring anew, as far as the system lets us."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        # Not Linux, or not allowed: the peak is then that of the process so far.
        return


def peak_bytes(device: torch.device) -> int:
    """Peak bytes since `reset_peak`: allocated on a CUDA device, else resident."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    found = _status("VmHWM:")
    if found is not None:
        return found
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def resident_bytes() -> int:
    """Bytes of this process that are resident now; its peak where only that is known."""
    found = _status("VmRSS:")
    return peak_bytes(torch.device("cpu")) if found is None else found


def _status(field: str) -> int | None:
    """A field of Linux's own account of this process, in bytes."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None
