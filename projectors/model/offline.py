"""Nothing is fetched unasked: a block in which this thread cannot reach the network.

A tower's files come from a hub or an address where they are not in its cache, and a folder's
configuration may name a repository that its author chose.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

# Events of Python's audit hooks by which every client begins.
_ASKING = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")

_offline: ContextVar[bool] = ContextVar("offline", default=False)

# How the hub's client says that it was not allowed to ask, and that its cache has no such file.
_REFUSALS = ("OfflineModeIsEnabled", "LocalEntryNotFoundError")


class NetworkRefusedError(RuntimeError):
    """Something asked the network inside `offline`.

    No OSError, as clients take those for a bad connection, and try again for a minute.
    """


@contextmanager
def offline() -> Iterator[None]:
    """Refuse connections and look-ups of names by this thread inside the block.

    The hub's client reads its cache; what asks nevertheless gets a `NetworkRefusedError`.
    """
    from huggingface_hub import constants

    _install()
    before, token = constants.HF_HUB_OFFLINE, _offline.set(True)
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
        _offline.reset(token)


def was_refused(error: BaseException | None) -> bool:
    """Whether an error came of a request that `offline` refuses, inside its block."""
    while error is not None and _offline.get():
        if isinstance(error, NetworkRefusedError) or type(error).__name__ in _REFUSALS:
            return True
        error = error.__cause__ or error.__context__
    return False


@cache
def _install() -> None:
    """Add the hook, once: Python cannot remove one."""
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _ASKING and _offline.get():
        raise NetworkRefusedError(f"the network was asked for {arguments[-1]!r}")
