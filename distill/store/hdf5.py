"""HDF5 artefacts: a missing, foreign or damaged file gives a one-line error."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from distill.errors import WorkError
from distill.store.attributes import broken_attributes, seal_attributes, within
from distill.store.file_errors import system_refusal
from distill.store.files import atomic_path
from distill.store.foreign import foreign_file
from distill.store.heaps import check_heaps
from synth.errors import lacks_memory

FORMAT_VERSION = 1

# Most bytes of an attribute; what varies in length, as texts do, lies in heaps.
_ATTRIBUTE_BYTES = 1 << 24

# What reading a damaged file can raise: HDF5's own errors, and text or shapes gone wrong.
DAMAGE = (
    OSError,
    LookupError,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
    MemoryError,
)


@contextmanager
def open_h5(
    path: Path, kind: str, unread: Collection[str] = (), read: Collection[str] = ()
) -> Iterator[h5py.File]:
    """Open `path` for reading and check that it is an artefact of `kind`, its attributes too.

    The block should only read: an error of HDF5 inside it is reported as a damaged file.

    Args:
        path: of the file.
        kind: of artefact.
        unread: attributes, and objects with all below them, that the block does not read: as
            `distill.store.attributes` names them. What they hold need not fit its digest.
        read: exceptions from `unread`.

    Raises:
        WorkError: if the file is missing, is not HDF5, is damaged, or is something else.
    """
    with open_unchecked(path, kind) as file:
        broken = [
            name
            for name in broken_attributes(path) or ()
            if not within(name, unread) or within(name, read)
        ]
        if broken:
            raise OSError(f"{', '.join(broken)[:200]}: not what was written")
        yield file


@contextmanager
def open_unchecked(path: Path, kind: str) -> Iterator[h5py.File]:
    """As `open_h5`, for a caller that has a digest of its own of what it reads."""
    if not path.is_file():
        raise WorkError(f"{path} is not a file; name the {kind} file of a run")
    try:
        check_heaps(path)
        with _opened(path) as file:
            actual = file.attrs.get("limbeck", None)
            if actual != kind:
                raise WorkError(
                    f"{path} holds {actual or 'foreign HDF5'}, not {kind}; name the {kind} file "
                    "of a run"
                )
            version = int(file.attrs.get("format", 0))
            if version != FORMAT_VERSION:
                raise WorkError(
                    f"{path} has format {version}, this program reads {FORMAT_VERSION}; use the "
                    "version of the program that wrote it"
                )
            yield file
    except DAMAGE as error:
        raise damaged(path, error) from None


@contextmanager
def open_plain(path: Path) -> Iterator[h5py.File]:
    """Open a file for reading of which only arrays are read, no texts or attributes.

    So its heaps need no check, which would read all of a large file.

    Raises:
        WorkError: if the file is missing, is not HDF5, or is damaged.
    """
    if not path.is_file():
        raise WorkError(f"{path} is not a file; it is missing: make it again")
    try:
        with _opened(path) as file:
            yield file
    except DAMAGE as error:
        raise damaged(path, error) from None


def damaged(path: Path, error: Exception) -> WorkError | MemoryError:
    """The error for a file that cannot be read: damaged, unless the system refuses it.

    Nor is one of another program. For lack of memory it is a MemoryError: nobody may take the file
    for damaged and make it again.
    """
    if lacks_memory(error):
        return MemoryError(f"to read {path}")
    refused = system_refusal(error)
    if refused is not None:
        return WorkError(f"{path} {refused}")
    if (foreign := foreign_file(path)) is not None:
        return foreign
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return WorkError(
        f"{path} cannot be read ({reason}); the file is truncated or damaged: make it again"
    )


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """A file for reading that leads to no other file, and whose attributes are small."""
    with h5py.File(path, "r") as file:
        _refuse_foreign_links(file)
        _refuse_large_attributes(file)
        yield file


def _refuse_large_attributes(file: h5py.File) -> None:
    """Refuse attributes that would fill the memory: a sparse file can hold one of terabytes."""

    def look(name: bytes, info: Any) -> None:
        if not info.num_attrs:
            return
        item = h5py.h5o.open(file.id, name)
        for index in range(info.num_attrs):
            size = h5py.h5a.open(item, index=index).get_storage_size()
            if size > _ATTRIBUTE_BYTES:
                raise OSError(f"an attribute of {name.decode(errors='replace')} has {size} bytes")

    # A visit leaves out where it begins.
    look(b".", h5py.h5o.get_info(file.id))
    h5py.h5o.visit(file.id, look, info=True)


def _refuse_foreign_links(file: h5py.File) -> None:
    """Refuse links to other files, which could read any file of this machine."""

    def external(name: bytes, info: Any) -> bytes | None:
        return name if info.type == h5py.h5l.TYPE_EXTERNAL else None

    link = file.id.links.visit(external, info=True)
    if link is not None:
        raise OSError(f"{link.decode(errors='replace')} leads to another file")


def checked_dataset(group: h5py.Group, name: str) -> h5py.Dataset:
    """A dataset whose numbers lie uncompressed in this file, as `put` writes them.

    Memory is allocated by its header, so a forged one could ask for terabytes, and a virtual or
    external dataset could read other files.

    Raises:
        OSError: if it is none, or the file holds fewer bytes than the header states.
    """
    item = group[name]
    if not isinstance(item, h5py.Dataset) or item.dtype.kind not in "biuf":
        raise OSError(f"{name} holds no numbers")
    if item.is_virtual or item.external:
        raise OSError(f"the numbers of {name} lie in another file")
    plan = item.id.get_create_plist()
    filters = [plan.get_filter(index)[0] for index in range(plan.get_nfilters())]
    if set(filters) - {h5py.h5z.FILTER_FLETCHER32}:
        # HDF5 would look for a library that has it, and load that.
        raise OSError(f"the numbers of {name} are packed by filters ({filters}) of other programs")
    # A read also allocates a whole chunk, which may be larger than the dataset.
    chunk = math.prod(item.chunks or (0,)) * item.dtype.itemsize
    held = min(item.id.get_storage_size(), group.file.id.get_filesize())
    if max(item.nbytes, chunk) > held:
        raise OSError(f"{name} promises {max(item.nbytes, chunk)} bytes, but the file holds {held}")
    return item


def read_array(group: h5py.Group, name: str) -> np.ndarray:
    """All numbers of a dataset, see `checked_dataset`."""
    return np.asarray(checked_dataset(group, name)[()])


def read_kind(path: Path) -> str:
    """Which kind of artefact a file is.

    Raises:
        WorkError: if it is not there, not HDF5, or not of this program.
    """
    if not path.is_file():
        raise WorkError(f"{path} is not a file; name a file of a run")
    try:
        check_heaps(path)
        with _opened(path) as file:
            kind = file.attrs.get("limbeck")
    except DAMAGE as error:
        if lacks_memory(error) or system_refusal(error) is not None:
            raise damaged(path, error) from None
        kind = None
    if kind is None:
        foreign = foreign_file(path)
        if foreign is None:
            remedy = (
                ", or it is damaged; make it again"
                if path.suffix == ".h5"
                else "; name a set.h5, experts.h5, committee.h5, a recipe, or the folder of a run"
            )
            raise WorkError(f"{path} is not a file of this program{remedy}")
        raise foreign
    return str(kind)


@contextmanager
def create_h5(path: Path, kind: str) -> Iterator[h5py.File]:
    """A new artefact of `kind`, moved into place if the block succeeds.

    Its attributes get their digests last.
    """
    with new_h5(path) as file:
        file.attrs["limbeck"] = kind
        file.attrs["format"] = FORMAT_VERSION
        yield file
        seal_attributes(file)


@contextmanager
def new_h5(path: Path) -> Iterator[h5py.File]:
    """A new file, moved into place if the block succeeds.

    Pinned to the format of HDF5 1.10: its metadata have checksums, attributes may be long, and
    later libraries write the same bytes.
    """
    # Unbuffered, so that each error is raised by its own write.
    with atomic_path(path) as temporary, temporary.open("w+b", buffering=0) as raw:
        deferred = DeferredErrorFile(raw)
        try:
            with h5py.File(deferred, "w", libver=("v110", "v110")) as file:
                yield file
        except DAMAGE:
            # What was dropped cannot be read again, and that is not the first cause.
            if deferred.error is None:
                raise
        if deferred.error is not None:
            raise deferred.error


def put(group: h5py.Group, name: str, array: np.ndarray, chunks: tuple[int, ...] | None) -> None:
    """Store an array with a checksum on every chunk, and no time stamp."""
    chunked = chunks if chunks is not None else (array.shape or None)
    group.create_dataset(
        name,
        data=array,
        chunks=chunked if array.size else None,
        fletcher32=bool(array.size and array.shape),
        track_times=False,
    )


def put_json(group: h5py.Group, name: str, value: Any) -> None:
    """Store a JSON-able value as a text attribute."""
    group.attrs[name] = json.dumps(value, sort_keys=True)


def get_json(group: h5py.Group, name: str) -> Any:
    """Read a value stored with `put_json`."""
    return json.loads(group.attrs[name])


def smallest_unsigned(count: int) -> np.dtype[Any]:
    """The smallest unsigned integer type that can number `count` things."""
    return np.min_scalar_type(max(count - 1, 0))


class DeferredErrorFile:
    """A file whose first write error is kept in `error`; later writes are dropped.

    HDF5 cannot close a file on a full disk: it prints tracebacks, and may crash, when the process
    ends. So no write fails, and the caller raises `error` after HDF5 has closed.

    Attributes:
        error: the first error of the system, or None.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of any file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As of any file."""
        return self._file.tell()

    def read(self, size: int) -> bytes:
        """As `readinto`; h5py knows a file by its methods `seek` and `read`."""
        content = bytearray(size)
        self.readinto(memoryview(content))
        return bytes(content)

    def readinto(self, buffer: memoryview) -> int:
        """Fill the buffer, with zeros where the file has ended, as HDF5's own files do."""
        view = memoryview(buffer).cast("B")
        count = 0
        while count < len(view) and (read := self._file.readinto(view[count:])):  # type: ignore[attr-defined]
            count += read
        view[count:] = bytes(len(view) - count)
        return len(view)

    def write(self, content: memoryview) -> int:
        """Write all of it; after an error, nothing."""
        view = memoryview(content).cast("B")
        count = 0
        try:
            while self.error is None and count < len(view):
                count += self._file.write(view[count:])
        except OSError as error:
            self.error = error
        return len(view)

    def truncate(self, size: int) -> int:
        """Cut or lengthen the file; after an error, nothing."""
        try:
            if self.error is None:
                self._file.truncate(size)
        except OSError as error:
            self.error = error
        return size

    def flush(self) -> None:
        """Nothing is buffered."""
