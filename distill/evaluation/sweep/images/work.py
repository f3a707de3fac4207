"""Trains and tests the student of a job, on a kept part of a set or as a control."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from distill.evaluation.coded import CodedReal, candidates, fit, random_draw
from distill.evaluation.evaluated_set import EvaluatedSet
from distill.evaluation.jobs import STUDENTS, StudentJob
from distill.evaluation.students import grade_student
from distill.evaluation.sweep.images.jobs import STORED, ImageJob, ImageOutcome
from distill.evaluation.sweep.images.kept import first_images, kept_file, labelled
from distill.evaluation.sweep.images.options import label_source
from distill.evaluation.sweep.work import measure_student
from distill.recipes.tables.relabel import RelabelTable
from distill.run.context import Context
from distill.sets.set_file import SetFile, read_set
from distill.teachers.loading import find_label_sources


def train_kept(set_file: Path, folder: Path, context: Context, job: ImageJob) -> ImageOutcome:
    """Train and test the student of a job. The same job gives the same outcome anywhere.

    Args:
        set_file: set.h5.
        folder: of the sweep, which holds the kept parts.
        context: of a run with its committee; its recipe is that of the set, with the [evaluate]
            table of the sweep.
        job: what to train.
    """
    # What was read and encoded last often serves the next job.
    judged, cost = context.once(
        "kept", partial(_judged, context, set_file, folder, job), (job.coding, job.ipc, job.labels)
    )
    student = StudentJob(STUDENTS, job.student, label_source(job.labels), job.seed)
    test, held_out = measure_student(context, judged, student)
    return replace(cost, accuracy=test, held_out=held_out)


def _judged(
    context: Context, set_file: Path, folder: Path, job: ImageJob
) -> tuple[EvaluatedSet, ImageOutcome]:
    sources = context.once("label sources", partial(find_label_sources, context))
    content = read_set(set_file)
    original = content if job.coding == STORED else first_images(content, job.ipc)
    kept = read_set(kept_file(folder, job.coding, job.ipc))
    made, cost = labelled(kept, job.labels, sources, original)
    return judged_set(context, made), cost


def judged_set(context: Context, content: SetFile) -> EvaluatedSet:
    """A set as students are trained on it, without teachers beside it."""
    return EvaluatedSet(content, relabel=context.recipe.relabel or RelabelTable())


@dataclass(frozen=True)
class Budget:
    """Bytes that coded real images must fit into.

    Attributes:
        bytes: of everything.
        shared: of what reads the images.
        own: the coding and the formation factor of the set's images in as many bytes, which real
            ones may have too; None where they are not coded.
    """

    bytes: int
    shared: int
    own: tuple[str, int] | None = None

    @property
    def name(self) -> str:
        """A name that is the same in every sweep."""
        coding, factor = self.own or ("", 1)
        return f"offers/{self.bytes}/{self.shared}/{coding}/{factor}"


@dataclass(frozen=True)
class Offers:
    """Ways to keep real images in a budget: the fields of each `CodedReal`."""

    reals: list[tuple[str, int, int, int]]


def find_offers(context: Context, budget: Budget) -> Offers:
    """As many real images as fit into a budget under each coding of the control."""
    found = candidates(context, budget.bytes, budget.shared, budget.own)
    return Offers([(real.coding, real.ipc, real.bytes, real.factor) for real in found])


@dataclass(frozen=True)
class Fit:
    """Coded real images of several seeds that must fit into a budget.

    Attributes:
        budget: bytes.
        first: the way to keep them, and stored images per class to try first.
        seeds: draws of images.
    """

    budget: Budget
    first: CodedReal
    seeds: int

    @property
    def name(self) -> str:
        """A name that is the same in every sweep."""
        first = self.first
        return (
            f"fit/{self.budget.bytes}/{self.budget.shared}/{first.coding}/{first.factor}/"
            f"{first.ipc}/{self.seeds}"
        )


def fit_seeds(context: Context, job: Fit) -> CodedReal:
    """As many real images as fit for every seed."""
    draws = [random_draw(context, seed) for seed in range(job.seeds)]
    return fit(context, draws, job.first, job.budget.bytes, job.budget.shared)


@dataclass(frozen=True)
class Graded:
    """The accuracy of a control's student, a fraction: of a trial on the validation split."""

    accuracy: float


def train_control(set_file: Path, context: Context, job: StudentJob) -> Graded:
    """Train and test the student of a control; the set says how students are trained."""
    judged = context.once("set", lambda: judged_set(context, read_set(set_file)), set_file)
    return Graded(grade_student(context, context.recipe.table("evaluate"), judged, job).accuracy)
