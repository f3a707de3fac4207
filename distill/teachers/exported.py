"""A teacher that comes as a program of torch.export, in a file."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from distill.errors import WorkError
from distill.recipes.build import one_line
from distill.teachers.given import GivenTeacher


def exported_teacher(
    channels: int, size: tuple[int, int], classes: int, *, file: str
) -> GivenTeacher:
    """The teacher of a file that `torch.export.save` wrote; it takes pixels in [0, 1].

    The file is unpickled, so only one that the user has allowed may come here.

    Args:
        channels: c of the images.
        size: (h, w) of the images in pixels.
        classes: k, the number of logits.
        file: its path.

    Raises:
        WorkError: if it cannot be loaded.
        ValueError: if the program does not take batches of any size of such images.
    """
    program = _load(Path(file).expanduser())
    for count in (3, 1):
        try:
            with torch.no_grad():
                logits = program(torch.zeros(count, channels, *size))
        except Exception as error:  # noqa: BLE001 - a program may raise anything
            raise ValueError(
                f"the program called with {count} images of {channels}x{size[0]}x{size[1]}: "
                f"{one_line(error)}; export it for this size, with a dynamic batch dimension"
            ) from None
        if getattr(logits, "shape", None) != (count, classes):
            found = getattr(logits, "shape", type(logits).__name__)
            raise ValueError(
                f"the program gives {found} for {count} images, but logits {(count, classes)} are "
                "needed, one for each class"
            )
    return GivenTeacher(program, channels, size, classes)


def _load(path: Path) -> nn.Module:
    if not path.is_file():
        raise WorkError(f"the program {path} is not there; name a file of torch.export.save")
    with _logged() as reasons:
        try:
            return torch.export.load(path).module()
        except Exception as error:  # noqa: BLE001 - a foreign file may fail in any way
            raise WorkError(
                f"the program {path} cannot be loaded ({one_line([*reasons, error][0])}); write it "
                "with torch.export.save, in this version of torch"
            ) from None


@contextmanager
def _logged() -> Iterator[list[BaseException]]:
    """What torch.export logs is not shown; the errors that it logs before it raises another."""
    logger, found = logging.getLogger("torch.export"), list[BaseException]()

    def keep(record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1] is not None:
            found.append(record.exc_info[1])
        return False

    logger.addFilter(keep)
    try:
        yield found
    finally:
        logger.removeFilter(keep)
