"""The tensors of a projector as files: safetensors, or the compact format."""

import hashlib
import os
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from projectors.errors import ProjectorError
from projectors.files.compact import unpack_compact


def safetensors_bytes(tensors: dict[str, Tensor]) -> bytes:
    """Named tensors as the bytes of a safetensors file."""
    contiguous = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    return safetensors.torch.save(contiguous, metadata={"format": "pt"})


def read_tensors(path: Path, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a safetensors file, which must have the expected names and shapes.

    Raises:
        ProjectorError: if the file is damaged, or does not hold them.
    """
    try:
        tensors = safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise ProjectorError(f"{path} is damaged or foreign ({error}); fetch it again") from error
    for name in sorted(set(tensors) | set(expected)):
        came = tuple(tensors[name].shape) if name in tensors else "no such tensor"
        need = tuple(expected[name].shape) if name in expected else "no such tensor"
        if came != need:
            raise ProjectorError(
                f"{path} holds {came} for {name}, but the classes and adapters in its "
                f"description need {need}; the files do not belong together, fetch the whole "
                "folder again"
            )
    return tensors


def read_compact(path: Path, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a compact file, of the expected names and shapes.

    Raises:
        ProjectorError: if the file is damaged, or holds other tensors.
    """
    shapes = {name: value.shape for name, value in expected.items()}
    try:
        return unpack_compact(path.read_bytes(), shapes)
    except OSError as error:
        raise ProjectorError(f"{path} cannot be read ({error.strerror}); fetch it again") from error
    except ProjectorError as error:
        if "not installed" in str(error):
            raise
        raise ProjectorError(f"{path}: {error}; fetch the whole folder again") from error


def check_file(path: Path, digest: str, description: str) -> None:
    """Raise ProjectorError unless a file is there with this SHA-256, in hex."""
    if not path.is_file():
        raise ProjectorError(f"{path} is missing; fetch the whole folder again")
    actual = hashlib.sha256(path.read_bytes()).hexdigest()
    if actual != digest:
        raise ProjectorError(
            f"{path} has the digest {actual[:12]}, but {description} names {digest[:12]}: it is "
            "damaged or foreign; fetch the whole folder again"
        )


def write_durably(path: Path, content: bytes) -> None:
    """Write a file and wait until it is on the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
