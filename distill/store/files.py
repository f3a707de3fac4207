"""Atomic writes and digests."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from distill.errors import WorkError

_BLOCK = 1 << 20

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to `path` if the block succeeds."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    # A link that lies there would be written through.
    remove(temporary)
    try:
        with _parents_of(path), _removed_after(temporary):
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    except Exception as error:
        if is_full(error):
            raise WorkError(full_message(path)) from None
        raise


@contextmanager
def _removed_after(path: Path) -> Iterator[None]:
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def refuse_links(folder: Path) -> None:
    """Refuse a folder that holds links which lead out of it: nothing is read or written there.

    Nor is a pipe or a device waited for.

    Raises:
        WorkError: if there is one, at any depth.
    """
    home = folder.resolve()
    for place, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(place, name)
            if path.is_symlink() and not path.resolve().is_relative_to(home):
                raise WorkError(
                    f"{path} is a link that leads out of {folder}; put the file or folder itself "
                    "there, or remove the link"
                )
            if name in names and path.exists() and not path.is_file():
                raise WorkError(f"{path} is a pipe or a device; remove it")


def open_beside(path: Path) -> BinaryIO:
    """Open a file of ours to read it and to append to it, or make it; never through a link.

    Raises:
        OSError: if it is a link, a pipe or a device, or cannot be opened.
    """
    opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise OSError(errno.EINVAL, "it is a pipe or a device; remove it", str(path))
    return os.fdopen(opened, "a+b")


@contextmanager
def new_folder(path: Path, is_own: Callable[[Path], bool] = lambda folder: False) -> Iterator[Path]:
    """A temporary folder beside `path`, renamed to `path` if the block succeeds.

    Args:
        path: not there, an empty folder, or one that may be replaced as a whole; that one stays
            until the block has succeeded.
        is_own: whether a folder that is not empty may be replaced.

    Raises:
        OSError: if it cannot be made, or `path` is something else, or a link.
        WorkError: if the disk is full.
    """
    if path.is_symlink():
        raise OSError(errno.ELOOP, "it is a link; name the folder itself", str(path))
    path = path.resolve()
    replaced = path.is_dir() and any(path.iterdir())
    if replaced and not is_own(path):
        raise FileExistsError(errno.EEXIST, "it is not an empty folder", str(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    earlier = path.with_name(f".{path.name}.{os.getpid()}.earlier")
    remove(temporary)
    with _parents_of(path):
        try:
            temporary.mkdir()
            yield temporary
            _share_as_folder(temporary)
            if replaced:
                os.replace(path, earlier)
            os.replace(temporary, path)
        except Exception as error:
            if is_full(error):
                raise WorkError(full_message(path)) from None
            raise
        finally:
            if earlier.is_dir() and not path.exists():
                os.replace(earlier, path)
            shutil.rmtree(earlier, ignore_errors=True)
            shutil.rmtree(temporary, ignore_errors=True)


def _share_as_folder(folder: Path) -> None:
    """Let whoever may read a new folder read its files: safetensors makes them for the owner alone.

    The folder itself has the permissions that the user gives to what he makes.
    """
    shared = stat.S_IMODE(folder.stat().st_mode) & 0o666
    for file in folder.rglob("*"):
        if not file.is_symlink() and file.is_file() and stat.S_IMODE(file.stat().st_mode) == 0o600:
            file.chmod(shared)


@contextmanager
def _parents_of(path: Path) -> Iterator[None]:
    """The folders above `path`; those that were made for it go again if the block fails."""
    made = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with suppress(OSError):
            for folder in made:
                folder.rmdir()
        raise


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


def digest_if_file(path: Path) -> str:
    """The digest of a file, whose path may begin with a home folder; "" where it is none."""
    path = path.expanduser()
    return digest_file(path) if path.is_file() else ""


def remove(path: Path) -> None:
    """Delete a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
