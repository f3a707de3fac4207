"""What is in the way of a file that may be whole: locks, permissions, a lost disk."""

from __future__ import annotations

import errno
import re

_BUSY = "is locked: another program is writing it; try again when that has closed it"

_FORBIDDEN = "may not be read by this user; change its permissions"

_UNREACHABLE = "cannot be reached (input/output error); try again when its disk or network is back"

# What may be in the way of a whole file, by the system's number.
_REFUSALS = {
    errno.EAGAIN: _BUSY,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EIO: _UNREACHABLE,
    errno.ESTALE: _UNREACHABLE,
    errno.ENOENT: "is no longer there; name a file that is",
    errno.ENOLCK: "cannot be locked, as its file system has no locks; set the environment variable "
    "HDF5_USE_FILE_LOCKING=FALSE, or copy the file to another disk",
    errno.EMFILE: "cannot be opened, as too many files are open; raise the limit (ulimit -n)",
}


def system_refusal(error: Exception) -> str | None:
    """Why the system does not let a file be read that may be whole, and what to do; or None.

    HDF5 states some numbers of errors only in its text.
    """
    if not isinstance(error, OSError):
        return None
    stated = re.search(r"errno = (\d+)", str(error))
    number = int(stated[1]) if stated else error.errno
    if number in _REFUSALS:
        return _REFUSALS[number]
    locking = "unable to lock file" in str(error)
    return _REFUSALS[errno.ENOLCK] if locking else None
