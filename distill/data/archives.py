"""Zip archives, as npz and torch files are, are looked at before anything of them is unpacked."""

import zipfile
from pathlib import Path

# Real images shrink a few times, and blank ones some twenty; deflate makes a thousand of zeros.
_MOST_EXPANSION = 100
_ALWAYS_ALLOWED = 256 << 20


def check_expansion(path: Path) -> None:
    """Refuse an archive that would fill the memory; a file that is no archive passes.

    What the archive's directory promises is the most that a reader unpacks.

    Raises:
        ValueError: if it promises far more bytes than real arrays could have been packed to.
        zipfile.BadZipFile: if its directory is broken.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        promised = sum(entry.file_size for entry in archive.infolist())
    most = max(_ALWAYS_ALLOWED, _MOST_EXPANSION * path.stat().st_size)
    if promised > most:
        raise ValueError(f"it would unpack to {promised:,} bytes, a decompression bomb")
