"""What a worker process of a sweep does: train one student at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from distill.evaluation.jobs import STUDENTS, StudentJob
from distill.evaluation.students import EvaluatedSet, trained_student
from distill.evaluation.sweep.jobs import FULL, HARD, SET, Outcome, SweepJob
from distill.recipes.tables.evaluate import EvaluateTable
from distill.run.context import RunHandle, open_context
from distill.sets.cost import full_files, receiver_files, teacher_passes
from distill.sets.encode import encode_one, full_votes
from distill.sets.network_labels import LabelSources
from distill.sets.set_file import SetFile, read_set
from distill.store.hdf5 import smallest_unsigned
from distill.teachers.loading import find_label_sources
from projectors import file_bytes
from synth.training.loop import accuracy


@dataclass(frozen=True)
class SweepHandle:
    """All that a worker needs besides its jobs; plain values, so that they travel.

    Attributes:
        opening: of a run with committee and projector; its recipe is that of the set, with the
            [evaluate] table of the sweep.
        place: set.h5.
        folder: of the sweep, which holds the random images.
    """

    opening: RunHandle
    place: Path
    folder: Path


def random_file(folder: Path, seed: int) -> Path:
    """The random real images of a seed, with the committee's votes where there is one."""
    return folder / f"random-{seed}.h5"


class Worker:
    """Trains the students of jobs; what it read and encoded last is kept for the next job."""

    def __init__(self, bench: SweepHandle) -> None:
        self._bench = bench
        self._context = open_context(bench.opening)
        self._networks = find_label_sources(self._context)
        self._last: tuple[tuple[Path, str], SetFile, Outcome] | None = None

    def run(self, job: SweepJob) -> Outcome:
        """Train and test the student of a job. The same job gives the same outcome anywhere."""
        context = self._context
        table = context.recipe.evaluate
        if table is None:
            table = EvaluateTable(students=[job.student])
        content, cost = self._content(job)
        source = {HARD: "hard", FULL: "votes"}.get(job.codec, job.codec)
        student = StudentJob(STUDENTS, job.student, source, job.seed)
        network = trained_student(context, table, EvaluatedSet(content), student)
        test, held_out = (accuracy(network, *context.split(n)) for n in ("test", "validation"))
        return replace(cost, accuracy=test, held_out=held_out)

    def _content(self, job: SweepJob) -> tuple[SetFile, Outcome]:
        bench = self._bench
        path = bench.place if job.images == SET else random_file(bench.folder, job.seed)
        if self._last is None or self._last[0] != (path, job.codec):
            content = replace(read_set(path), encoded={})
            if job.codec not in (HARD, FULL):
                encoded = encode_one(content, job.codec, self._networks)
                content = replace(content, encoded={job.codec: encoded})
            self._last = ((path, job.codec), content, _cost(content, job.codec, self._networks))
        return self._last[1:]


def _cost(content: SetFile, codec: str, networks: LabelSources) -> Outcome:
    """What the labels of a codec cost; its accuracies are still to be found."""
    blank = Outcome(0.0, 0.0, 0, 0)
    if codec == HARD:
        hard = content.hard.numpy().astype(smallest_unsigned(len(content.manifest["class_names"])))
        return replace(blank, payload=hard.nbytes, shipped=file_bytes(HARD, hard.tobytes()).shipped)
    votes = full_votes(content)
    coded = content.encoded.get(codec)
    if coded is None:
        files = full_files(votes)
        members = max(len(networks.members), 1)
        passes = {"maker": votes.ids.numel() * members, "each student": 0}
    else:
        files = receiver_files(coded, len(content.seen_hard))
        passes = teacher_passes(coded, votes, networks)
    return replace(
        blank,
        payload=files[0].stored,
        views=sum(part.stored for part in files[1:]),
        external=coded.external if coded else 0,
        shipped=sum(part.shipped for part in files),
        made=passes["maker"],
        asked=passes["each student"],
    )


def open_sweep(bench: SweepHandle) -> Callable[[SweepJob], Outcome]:
    """What does the jobs of a sweep; every worker process calls this once."""
    return Worker(bench).run
