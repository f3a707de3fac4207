"""Jobs of a sweep whose results a file keeps, so that an interrupted sweep goes on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from distill.recipes.tables.evaluate import SELECTING, EvaluateTable
from distill.run.artefacts import COMMITTEE
from distill.run.context import Context
from distill.run.engines import Load
from distill.run.own_code import code_digests
from distill.store.files import digest_file, digest_json
from distill.store.jsonl import append_sealed, from_row, read_sealed

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class Named(Protocol):
    """A job of a sweep."""

    @property
    def name(self) -> str:
        """A name that is the same in every sweep."""
        ...


Job = TypeVar("Job", bound=Named)

Result = TypeVar("Result", bound="DataclassInstance")


@dataclass(frozen=True)
class Work(Generic[Job, Result]):
    """What is done for each of some jobs.

    Attributes:
        function: as of `Context.map`.
        load: of a job.
        kind: dataclass of plain values that `function` returns.
        note: what is said when a job is done.
    """

    function: Callable[[Context, Job], Result]
    load: Callable[[Job], Load]
    kind: type[Result]
    note: Callable[[Job, Result], str]


@dataclass(frozen=True)
class JobLog:
    """Does the jobs whose results are not known yet.

    Attributes:
        context: whose engine does them.
        path: a file that each result is appended to, as JSON.
        key: digest of all that decides a result besides the job; rows of others are not read.
    """

    context: Context
    path: Path
    key: str

    def results(self, task: str, jobs: Sequence[Job], work: Work[Job, Result]) -> dict[str, Result]:
        """The result of every job, by its name.

        Args:
            task: what progress is called.
            jobs: of different names.
            work: what is done for each.
        """
        known = self._read(work.kind)
        left = [job for job in jobs if job.name not in known]
        with self.context.progress.task(task, len(jobs), len(jobs) - len(left)) as advance:
            for job, result in self.context.map(work.function, left, work.load):
                known[job.name] = result
                append_sealed(self.path, {"key": self.key, "job": job.name, **asdict(result)})
                advance(work.note(job, result))
        return {job.name: known[job.name] for job in jobs}

    def _read(self, kind: type[Result]) -> dict[str, Result]:
        """Results by job; rows of other sweeps, and of other kinds, are left out."""
        found = {}
        for row in read_sealed(self.path):
            try:
                name, key = row.pop("job"), row.pop("key")
                if key == self.key:
                    found[str(name)] = from_row(kind, row)
            except (KeyError, ValueError):
                continue
        return found


def sweep_key(
    context: Context, set_file: Path, version: int, leave_out: Collection[str] = ()
) -> str:
    """Digest of all that decides the result of a sweep's job, besides the job itself.

    Args:
        context: data, committee and recipe.
        set_file: set.h5.
        version: of the sweep's code.
        leave_out: keys of [evaluate] that decide nothing, besides those that select students.
    """
    table: EvaluateTable = context.recipe.table("evaluate")
    committee = context.run.path / COMMITTEE
    evaluate = table.model_dump(mode="json", exclude={*SELECTING, *leave_out})
    relabel = context.recipe.relabel
    code = code_digests(context, ("evaluate",))
    return digest_json(
        {
            **({"code": code} if code else {}),
            "version": version,
            "set": digest_file(set_file),
            "committee": digest_file(committee) if committee.is_file() else None,
            "data": context.data.digest,
            "seed": context.recipe.seed,
            "evaluate": evaluate,
            "relabel": None if relabel is None else relabel.model_dump(mode="json"),
        }
    )
