"""Atomic writes and digests."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distill.errors import WorkError

_BLOCK = 1 << 20

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to `path` if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except Exception as error:
        if is_full(error):
            raise WorkError(full_message(path)) from None
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`, renamed to `path` if the block succeeds.

    Raises:
        OSError: if it cannot be made, or `path` is no empty folder.
        WorkError: if the disk is full.
    """
    path = path.resolve()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        os.replace(temporary, path)
    except Exception as error:
        if is_full(error):
            raise WorkError(full_message(path)) from None
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_full(error: Exception) -> bool:
    """Whether a write failed because the disk, a quota or a size limit allows no more.

    HDF5 and safetensors only say so in their text.
    """
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    return any(sign in str(error) for number in _FULL for sign in _error_texts(number))


def _error_texts(number: int) -> tuple[str, str, str]:
    return f"errno = {number},", f"os error {number})", os.strerror(number)


def full_message(path: Path) -> str:
    """The message for a path that cannot take more bytes."""
    return (
        f"{path} cannot be written whole: no space is left, or a quota or size limit is reached; "
        "free some and run the same command to go on"
    )


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, indented by two spaces, keys in the order given."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def digest_bytes(data: bytes) -> str:
    """sha256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def digest_json(value: Any) -> str:
    """Digest of a JSON-able value, whatever the order of its keys."""
    return digest_bytes(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


def digest_file(path: Path) -> str:
    """sha256 of a file, in blocks."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            total.update(block)
    return total.hexdigest()


def digest_tree(path: Path) -> str:
    """Digest of a file, or of a folder's file names and contents."""
    if path.is_file():
        return digest_file(path)
    digests = {
        str(file.relative_to(path)): digest_file(file)
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }
    return digest_json(digests)


def remove(path: Path) -> None:
    """Delete a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
