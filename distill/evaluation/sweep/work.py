"""Trains and tests the student of a sweep's job."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from distill.evaluation.evaluated_set import EvaluatedSet
from distill.evaluation.jobs import STUDENTS, StudentJob
from distill.evaluation.students import trained_student
from distill.evaluation.sweep.jobs import FULL, HARD, SYNTHETIC, Outcome, SweepJob
from distill.run.context import Context
from distill.sets.cost import full_files, receiver_files, teacher_passes
from distill.sets.label_encoding import encode_one, full_votes
from distill.sets.network_labels import LabelSources
from distill.sets.set_file import SetFile, read_set
from distill.store.hdf5 import smallest_unsigned
from distill.teachers.loading import find_label_sources
from projectors import file_bytes
from synth.training.prediction import accuracy


def random_file(folder: Path, seed: int) -> Path:
    """The random real images of a seed, with the committee's votes where there is one."""
    return folder / f"random-{seed}.h5"


def train_and_test(set_file: Path, folder: Path, context: Context, job: SweepJob) -> Outcome:
    """Train and test the student of a job. The same job gives the same outcome anywhere.

    Args:
        set_file: set.h5.
        folder: of the sweep, which holds the random images.
        context: of a run with committee and projector; its recipe is that of the set, with the
            [evaluate] table of the sweep.
        job: what to train.
    """
    path = set_file if job.images == SYNTHETIC else random_file(folder, job.seed)
    # What was read and encoded last often serves the next job.
    content, cost = context.once(
        "sweep", partial(_encoded, context, path, job.codec), (path, job.codec)
    )
    source = {HARD: "hard", FULL: "votes"}.get(job.codec, job.codec)
    student = StudentJob(STUDENTS, job.student, source, job.seed)
    test, held_out = measure_student(context, EvaluatedSet(content), student)
    return replace(cost, accuracy=test, held_out=held_out)


def measure_student(
    context: Context, judged: EvaluatedSet, student: StudentJob
) -> tuple[float, float]:
    """Accuracy of a student after its last epoch, on the test and on the validation split."""
    network = trained_student(context, context.recipe.table("evaluate"), judged, student)
    test, held_out = (accuracy(network, *context.split(name)) for name in ("test", "validation"))
    return test, held_out


def _encoded(context: Context, path: Path, codec: str) -> tuple[SetFile, Outcome]:
    """A set with its labels under a codec, and what these cost."""
    sources = context.once("label sources", partial(find_label_sources, context))
    content = replace(read_set(path), encoded={})
    if codec not in (HARD, FULL):
        content = replace(content, encoded={codec: encode_one(content, codec, sources)})
    return content, _cost(content, codec, sources)


def _cost(content: SetFile, codec: str, sources: LabelSources) -> Outcome:
    """What the labels of a codec cost; accuracies are filled in later."""
    unmeasured = Outcome(0.0, 0.0, 0, 0)
    if codec == HARD:
        hard = content.hard.numpy().astype(smallest_unsigned(len(content.manifest["class_names"])))
        return replace(
            unmeasured, payload=hard.nbytes, shipped=file_bytes(HARD, hard.tobytes()).shipped
        )
    votes = full_votes(content)
    coded = content.encoded.get(codec)
    if coded is None:
        files = full_files(votes)
        members = max(len(sources.members), 1)
        passes = {"maker": votes.ids.numel() * members, "each student": 0}
    else:
        files = receiver_files(coded, len(content.seen_hard))
        passes = teacher_passes(coded, votes, sources)
    return replace(
        unmeasured,
        payload=files[0].stored,
        views=sum(part.stored for part in files[1:]),
        external=coded.external if coded else 0,
        shipped=sum(part.shipped for part in files),
        made=passes["maker"],
        asked=passes["each student"],
    )
