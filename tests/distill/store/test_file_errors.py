"""Files that may be whole are told apart from damaged ones; nobody is told to make them again."""

import errno
import fcntl

import h5py
import pytest

from distill.errors import WorkError
from distill.store.file_errors import system_refusal
from distill.store.hdf5 import create_h5, open_h5, open_plain, read_kind
from tests.distill.cases import contents

READERS = {
    "open_h5": lambda path: open_h5(path, "set").__enter__(),
    "open_plain": lambda path: open_plain(path).__enter__(),
    "read_kind": read_kind,
}


@pytest.fixture
def artefact(tmp_path):
    path = tmp_path / "set.h5"
    with create_h5(path, "set"):
        pass
    return path


@pytest.mark.parametrize("reader", READERS)
def test_a_locked_file_is_locked(reader, artefact, monkeypatch):
    monkeypatch.delenv("HDF5_USE_FILE_LOCKING", raising=False)

    def locked(*arguments):
        raise BlockingIOError(
            errno.EAGAIN,
            "Unable to synchronously open file (unable to lock file, errno = 11, error message = "
            "'Resource temporarily unavailable')",
        )

    monkeypatch.setattr(h5py, "File", locked)
    with pytest.raises(WorkError, match=r"set.h5 is locked: another program is writing it") as told:
        READERS[reader](artefact)
    assert "make it again" not in str(told.value)
    assert "damaged" not in str(told.value)


@pytest.mark.parametrize("verb", ["show", "verify", "evaluate", "export"])
def test_commands_say_that_a_set_which_is_being_written_is_locked(
    verb, artefact, refused, tmp_path, monkeypatch
):
    monkeypatch.delenv("HDF5_USE_FILE_LOCKING", raising=False)
    words = [verb, artefact]
    if verb == "export":
        words = [verb, "set", artefact, "--format", "npz", "--out", tmp_path / "out"]
    with artefact.open("r+b") as writing:
        fcntl.flock(writing, fcntl.LOCK_EX)
        line = refused(1, *words)
    assert "set.h5 is locked: another program is writing it" in line
    assert "damaged" not in line
    assert "make it again" not in line


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError("unable to lock file, errno = 37, error message = 'No locks'"), "has no locks"),
        (OSError("unable to lock file"), "HDF5_USE_FILE_LOCKING"),
        (PermissionError(errno.EACCES, "Permission denied"), "change its permissions"),
        (OSError(errno.EIO, "Input/output error"), "cannot be reached"),
        (
            OSError("Unable to open (errno = 13, error message = 'Denied')"),
            "permissions",
        ),
        (OSError("Unable to open file (file signature not found)"), None),
        (OSError("Unable to open file (truncated file: eof = 96)"), None),
        (KeyError("errno = 11"), None),
    ],
)
def test_what_is_in_the_way_is_named(error, words):
    refusal = system_refusal(error)
    assert (refusal is None) if words is None else (words in refusal)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 1.0 TiB"),
        OSError("Can't synchronously read data (memory allocation failed for chunk)"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
@pytest.mark.parametrize("reader", READERS)
def test_a_file_that_memory_is_lacking_for_is_not_called_damaged(
    reader, error, artefact, monkeypatch
):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(h5py, "File", fail)
    with pytest.raises(MemoryError, match=r"to read .*set.h5"):
        READERS[reader](artefact)


def test_a_run_keeps_the_stages_that_memory_is_lacking_to_check(
    run_copy, recipe, refused, monkeypatch
):
    """They were made again, which may take days, as if their file were damaged."""
    before = contents(run_copy)

    def fail(*arguments):
        raise MemoryError

    monkeypatch.setattr("distill.store.hdf5.h5py.Dataset.__getitem__", fail)
    assert "there is too little memory" in refused(1, "run", recipe, "--out", run_copy, "--quiet")
    assert contents(run_copy) == before
