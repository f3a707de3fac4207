"""What an evaluation works with, opened from files: here, and again in every worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import projectors
from distill.context import Context
from distill.errors import WorkError
from distill.evaluation.confusion import Grade
from distill.evaluation.jobs import Job
from distill.evaluation.students import Judged, train_student
from distill.opening import Opening, open_context
from distill.stages.committee import has_committee, load_committee
from distill.stages.project import FOLDER as PROJECTOR
from distill.store.sets import read_set
from distill.tables import RelabelTable
from projectors import Projector


@dataclass(frozen=True)
class Desk:
    """Plain data from which a process opens what an evaluation needs.

    Attributes:
        opening: of a run that holds committee.h5 and the projector, where there are any; its
            recipe has a table [evaluate].
        set_path: the set.h5 that is judged.
    """

    opening: Opening
    set_path: Path


def open_desk(desk: Desk) -> Callable[[Job], Grade]:
    """What trains and tests the student of a job; a worker calls this once."""
    context = open_context(desk.opening)
    if context.recipe.evaluate is None:
        raise WorkError("the recipe has no [evaluate] table; add one with its students")
    judged, _ = open_judged(context, desk.set_path)
    return partial(train_student, context, context.recipe.evaluate, judged)


def open_judged(context: Context, path: Path) -> tuple[Judged, tuple[int, int]]:
    """The set at `path` with the committee and projector of the context's run.

    Returns:
        What is judged, and the projector's bytes: shipped, and to be fetched elsewhere.

    Raises:
        WorkError: if the set was made from other data, or the projector's folder is damaged.
    """
    content = read_set(path)
    data = content.manifest["source"]["digest"]
    if data != context.data.digest:
        raise WorkError(
            f"{path} was made from other data than {context.data.source} holds now; "
            "evaluate it with the data it was made from"
        )
    folder = context.run.path / PROJECTOR
    there = folder.is_dir()
    committee = load_committee(context) if has_committee(context) else None
    relabel = context.recipe.relabel or RelabelTable()
    opened = partial(_load_projector, context, folder) if there else None
    return Judged(content, committee, opened, relabel), _sizes(folder) if there else (0, 0)


def _load_projector(context: Context, folder: Path) -> Projector:
    with _named(folder):
        projector = projectors.load(folder, classes=context.data.class_names)
    return projector.to(context.device)


def _sizes(folder: Path) -> tuple[int, int]:
    with _named(folder):
        size = projectors.projector_bytes(folder)
    return size.shipped, size.external


@contextmanager
def _named(folder: Path) -> Iterator[None]:
    try:
        yield
    except projectors.ProjectorError as error:
        raise WorkError(f"projector {folder}: {error}") from None
