"""A whole run, or an evaluation, in one call from Python."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from distill.data import DataError, SourceError
from distill.data.given import given_source
from distill.errors import RecipeError, WorkError
from distill.evaluation.whole import evaluate_set
from distill.names import FORMATS, NetworkEntry, given_parts
from distill.recipes.given import Parts, python_recipe
from distill.report.writing import write_report
from distill.run.artefacts import EVALUATION, GIVEN_DATA, METRICS, SET
from distill.run.progress import Event, Progress
from distill.sets.dataset import DistilledSet, open_set
from distill.sets.exchange.exchange import export_set
from distill.sets.set_file import write_set
from distill.stages.relabel_set import relabel_set
from distill.stages.run_recipe import run_recipe
from distill.store.documents import read_json
from distill.store.files import atomic_path
from distill.store.jsonl import read_lines
from distill.teachers.given import GivenTeacher

# A spec, or what is called as (channels, size, classes) -> module.
Network = str | Callable[[int, tuple[int, int], int], nn.Module]

# A spec, or what gives logits [n, k] of pixels [n, c, h, w]: a trained module, or a function.
Teacher = str | Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Distilled:
    """What `distill.distill` made.

    Attributes:
        folder: of the run, as `distill run` leaves it; a temporary one, which goes with this
            object, where no `out` was named.
        set: the set as a torch Dataset of (image, soft label).
    """

    folder: Path
    _entries: tuple[NetworkEntry, ...] = field(default=(), repr=False)

    @cached_property
    def set(self) -> DistilledSet:
        """The set, read at the first use."""
        return open_set(self.folder)

    @property
    def images(self) -> Any:
        """[n, c, h, w] float32 in the normalised space, see `DistilledSet`."""
        return self.set.images

    @property
    def labels(self) -> Tensor:
        """[n, k] soft labels; rows sum to 1."""
        return self.set.labels

    @property
    def curves(self) -> dict[str, dict[str, list[Any]]]:
        """Stage -> column -> values, one for each step or epoch, None where there is none.

        `pandas.DataFrame(made.curves["match"])` is a table of it.
        """
        rows: dict[str, list[dict[str, Any]]] = {}
        for row in read_lines(self.folder / METRICS):
            rows.setdefault(str(row.pop("stage", "")), []).append(row)
        return {stage: _columns(found) for stage, found in rows.items()}

    @property
    def measured(self) -> dict[str, Any]:
        """The run's evaluation: students, controls, bytes, as `distill evaluate --json` has it.

        Raises:
            WorkError: if the recipe has no [evaluate].
        """
        path = self.folder / EVALUATION
        if not path.is_file():
            raise WorkError("the recipe has no [evaluate] table; call evaluate(), or add one")
        found: dict[str, Any] = read_json(path)
        return found

    def evaluate(
        self, network: Network | Sequence[Network] | None = None, **settings: Any
    ) -> dict[str, Any]:
        """Train fresh students on the set and on its controls, see `distill.evaluate`."""
        with given_parts(self._entries):
            return evaluate(self.folder, network=network, **settings)

    def report(self) -> Path:
        """Write the page report.html of the run; returns its path."""
        return write_report(self.folder)

    def save(self, path: str | Path) -> None:
        """Write the set as set.h5, which `distill.load` and all commands read."""
        with atomic_path(Path(path)) as temporary:
            temporary.write_bytes((self.folder / SET).read_bytes())

    def export(self, form: str, out: str | Path, license: str = "unknown") -> Path:
        """Write the set for other programs, with a data card.

        Args:
            form: safetensors, npz, torch, imagefolder, hf, parquet, ddranking or avalanche.
            out: the folder to make.
            license: SPDX identifier for the card.

        Raises:
            RecipeError: for an unknown format.
            WorkError: if the set does not fit the format, or `out` is taken.
        """
        if form not in FORMATS:
            raise RecipeError(f"there is no format {form}; choose one of {', '.join(FORMATS)}")
        export_set(self.folder, form, Path(out), license)
        return Path(out)


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def distil(
    data: object,
    recipe: str | Mapping[str, Any] | None = None,
    *,
    network: Network | None = None,
    teachers: Sequence[Teacher] = (),
    ipc: int | None = None,
    budget_bytes: int | None = None,
    out: str | Path | None = None,
    progress: Callable[[Event], object] | None = None,
) -> Distilled:
    """Make a set; see `distill.distill`."""
    parts = Parts()
    spec = None if network is None else _add_network(parts, network)
    voters = [_add_teacher(parts, teacher) for teacher in _each(teachers)]
    own = any(entry.trained for entry in parts.entries)
    # What is wrong with the recipe is said before the data are written.
    if python_recipe(recipe, "digits", spec, voters, ipc, budget_bytes).data.zca and own:
        raise RecipeError("teachers that are given read pixels; set data.zca = false")
    folder = Path(tempfile.mkdtemp(prefix="distill-") if out is None else out)
    made = Distilled(folder, tuple(parts.entries))
    if out is None:
        # With the result goes its folder, also where the run fails.
        weakref.finalize(made, shutil.rmtree, folder, ignore_errors=True)
    source = _source(data, folder / GIVEN_DATA)
    with given_parts(parts.entries):
        resolved = python_recipe(recipe, source, spec, voters, ipc, budget_bytes)
        run_recipe(resolved, folder, progress=Progress(tell=progress))
    return made


def evaluate(
    set: str | Path | DistilledSet | Distilled,
    *,
    network: Network | Sequence[Network] | None = None,
    teachers: Sequence[Teacher] = (),
    data: object = None,
    device: str | None = None,
    quiet: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Evaluate a set; see `distill.evaluate`."""
    parts = Parts()
    changes = dict(settings)
    if network is not None:
        networks = [network] if isinstance(network, str) or callable(network) else network
        changes["students"] = [_add_network(parts, one) for one in networks]
    for teacher in _each(teachers):
        _add_teacher(parts, teacher)
    with ExitStack() as stack:
        path, place = _opened("evaluate", set, data, parts, stack)
        found: dict[str, Any] = evaluate_set(path, changes, device, quiet, place=place)
        return found


def relabel(
    set: str | Path | DistilledSet | Distilled,
    teachers: Sequence[Teacher] | Teacher = (),
    *,
    data: object = None,
    device: str | None = None,
    quiet: bool = False,
    **settings: Any,
) -> DistilledSet:
    """Label a set anew; see `distill.relabel`."""
    parts = Parts()
    specs = [_add_teacher(parts, teacher) for teacher in _each(teachers)]
    with ExitStack() as stack:
        path, place = _opened("relabel", set, data, parts, stack)
        return DistilledSet(relabel_set(path, specs, settings, device, quiet, place=place))


def _opened(
    call: str,
    set: str | Path | DistilledSet | Distilled,
    data: object,
    parts: Parts,
    stack: ExitStack,
) -> tuple[Path, str | None]:
    """Where a set lies, and where its data do if they are given, until the stack is closed.

    Until then, specs may name what was given now, and when the set was made.
    """
    scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="distill-")))
    if isinstance(set, Distilled):
        stack.enter_context(given_parts(set._entries))
        path = set.folder
    elif isinstance(set, DistilledSet):
        path = scratch / SET
        write_set(path, set.content)
    elif isinstance(set, str | Path):
        path = Path(set)
    else:
        raise WorkError(
            f"{call} got a {type(set).__name__}; give a set.h5, the folder of a run, or what "
            "distill.load or distill.distill gave"
        )
    place = None if data is None else _source(data, scratch / GIVEN_DATA)
    stack.enter_context(given_parts(parts.entries))
    return path, place


def _source(data: object, file: Path) -> str:
    try:
        return given_source(data, file)
    except SourceError as error:
        raise RecipeError(str(error)) from None
    except (DataError, OSError) as error:
        raise WorkError(str(error)) from None


def _each(teachers: Sequence[Teacher] | Teacher) -> Sequence[Teacher]:
    """The teachers; a single one counts as a list of one."""
    return [teachers] if isinstance(teachers, str) or callable(teachers) else teachers


def _add_network(parts: Parts, network: Network) -> str:
    if isinstance(network, nn.Module):
        raise RecipeError(
            f"network is a {type(network).__name__} with weights, but many are trained anew; give "
            "its class or a function, called as (channels, size, classes)"
        )
    return parts.add(network)


def _add_teacher(parts: Parts, teacher: Teacher) -> str:
    if isinstance(teacher, str):
        return teacher
    if isinstance(teacher, type):
        raise RecipeError(f"the teacher {teacher.__name__} is a class; give a trained module of it")
    return parts.add(teacher, made=partial(GivenTeacher, teacher))
