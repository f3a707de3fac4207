"""The tables of a recipe and their keys. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, model_validator

from distill.errors import RecipeError, WorkError
from distill.names import selection
from distill.recipes.key_types import (
    LABEL_SOURCES as LABEL_SOURCES,
)
from distill.recipes.key_types import (
    LabelSource as LabelSource,
)
from distill.recipes.key_types import (
    MakerTable,
    Table,
)
from distill.recipes.problems import problem_between_tables
from distill.recipes.stages import MAKERS, STAGE_ENTRIES, StageEntry
from distill.recipes.tables.committee import (
    VOTE_KEYS as VOTE_KEYS,
)
from distill.recipes.tables.committee import (
    CommitteeTable as CommitteeTable,
)
from distill.recipes.tables.data import DataTable
from distill.recipes.tables.encode import EncodeTable
from distill.recipes.tables.evaluate import EvaluateTable as EvaluateTable
from distill.recipes.tables.experts import ExpertsTable
from distill.recipes.tables.match import MatchTable
from distill.recipes.tables.projector import ProjectorTable
from distill.recipes.tables.recover import RecoverTable
from distill.recipes.tables.refine import RefineTable
from distill.recipes.tables.relabel import RelabelTable as RelabelTable
from distill.recipes.tables.select import SelectTable


class Recipe(Table):
    """A whole recipe. The stages whose table is missing are left out of the run."""

    name: str = "recipe"
    summary: str = ""
    origin: str = "Limbeck"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    within_bytes: str | None = None
    data: DataTable
    experts: ExpertsTable | None = None
    match: MatchTable | None = None
    committee: CommitteeTable | None = None
    recover: RecoverTable | None = None
    select: SelectTable | None = None
    refine: RefineTable | None = None
    relabel: RelabelTable | None = None
    projector: ProjectorTable | None = None
    encode: EncodeTable | None = None
    evaluate: EvaluateTable | None = None

    @property
    def maker(self) -> MakerTable:
        """The table that says how the set is made."""
        for name in MAKERS:
            table: MakerTable | None = getattr(self, name)
            if table is not None:
                return table
        *others, last = (f"[{name}]" for name in MAKERS)
        raise RecipeError(f"the recipe makes no set; add {', '.join(others)} or {last}")

    @property
    def keeps_labels(self) -> bool:
        """Whether the set holds label logits of its images."""
        return any(table is not None and table.keeps_labels for table in (self.match, self.select))

    @property
    def maker_name(self) -> str:
        """The name of that table."""
        return next(name for name in MAKERS if getattr(self, name) is not None)

    @property
    def budget_bytes(self) -> int | None:
        """Bytes that the set may take; None without a budget."""
        budget: int | None = getattr(self.maker, "budget_bytes", None)
        return budget

    def table(self, name: str) -> Any:
        """The table [name].

        Raises:
            WorkError: where the recipe lacks it.
        """
        table = getattr(self, name)
        if table is None:
            raise WorkError(f"the recipe has no [{name}] table; add one")
        return table

    def matching(self) -> tuple[ExpertsTable, MatchTable]:
        """[experts] and [match]; raises RecipeError where the set is made in another way."""
        if self.experts is None or self.match is None:
            raise RecipeError(
                "the recipe matches no trajectories; add the tables [experts] and [match]"
            )
        return self.experts, self.match

    @model_validator(mode="before")
    @classmethod
    def _choose_by_ipc(cls, raw: Any) -> Any:
        """Any key of [relabel] and [evaluate] may be a table of values by images per class."""
        ipc = ipc_of(raw, MAKERS)
        if ipc is None:
            return raw
        chosen = {
            name: {key: at_ipc(f"{name}.{key}", value, ipc) for key, value in raw[name].items()}
            for name in ("relabel", "evaluate")
            if isinstance(raw.get(name), dict)
        }
        return {**raw, **chosen}

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        made_by = [name for name in MAKERS if getattr(self, name) is not None]
        if len(made_by) != 1:
            given = ", ".join(f"[{name}]" for name in made_by) or "none of them"
            *others, last = (f"[{name}]" for name in MAKERS)
            raise ValueError(
                f"a set is made by one of {', '.join(others)} and {last}, but there is {given}"
            )
        if (self.experts is None) != (self.match is None and not scores_images(self)):
            raise ValueError(
                "[experts] and [match] go together, unless select.method is el2n or forgetting, "
                "which need [experts] alone; add or drop one of them"
            )
        for stage in STAGE_ENTRIES.values():
            if getattr(self, stage.table) is not None:
                self._check_needs(stage)
        problem = problem_between_tables(self)
        if problem:
            raise ValueError(problem)
        if self.encode is not None and self.encode.max_loss is not None and self.evaluate is None:
            raise ValueError("encode.max_loss needs students; add an [evaluate] table")
        return self

    def _check_needs(self, stage: StageEntry) -> None:
        """Raise ValueError where a stage of this recipe lacks a table, or pixels."""
        if stage.reads_pixels and self.data.zca:
            raise ValueError(
                f"{stage.reads_pixels} reads pixels: set data.zca = false or drop [{stage.table}]"
            )
        for needed in (*stage.tables, *stage.needs):
            if getattr(self, needed) is None:
                what = next(
                    other.gives for other in STAGE_ENTRIES.values() if other.table == needed
                )
                raise ValueError(f"[{stage.table}] needs {what}; add a [{needed}] table")


def _tables() -> dict[str, type[Table]]:
    """The fields of a recipe that are tables, by name and in order."""
    tables = {}
    for name, field in Recipe.model_fields.items():
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, Table):
                tables[name] = kind
    return tables


TABLES: dict[str, type[Table]] = _tables()


def ipc_of(raw: Any, makers: Sequence[str]) -> int | None:
    """Images per class of a recipe that is not yet checked; None where it does not say.

    Args:
        raw: tables and keys, as TOML gives them.
        makers: tables of which one makes the set, and says how many images.
    """
    made = [raw.get(name) for name in makers] if isinstance(raw, dict) else []
    counts = [table.get("ipc") for table in made if isinstance(table, dict)]
    return counts[0] if len(counts) == 1 and isinstance(counts[0], int) else None


def at_ipc(key: str, value: Any, ipc: int) -> Any:
    """A value, or that of a table by images per class: {1 = 10, 10 = 16} is 10 up to 9, then 16.

    Below its first entry, a table holds that entry.
    """
    if not isinstance(value, dict):
        return value
    if not value or not all(str(start).isdecimal() for start in value):
        raise ValueError(
            f"{key} is a table, whose keys must be images per class, as in {{ 1 = 10, 10 = 16 }}; "
            f"got {', '.join(map(str, value)) or 'none'}"
        )
    starts = sorted(value, key=int)
    reached = [start for start in starts if int(start) <= ipc]
    return value[reached[-1] if reached else starts[0]]


def kept_epochs(recipe: Recipe) -> tuple[int, ...]:
    """The epochs (0: untrained) whose snapshots are kept.

    With experts.keep "window" these are the starts and the targets of the segments that matching
    can draw, and the last one where it starts from finished experts; where images are selected by
    difficulty, those at which it is measured. All others would never be read.
    """
    table: ExpertsTable = recipe.table("experts")
    if table.keep == "all":
        return tuple(range(table.epochs + 1))
    if recipe.match is None:
        return scored_epochs(recipe)
    match = recipe.match
    finished = match.init in ("correct", "easy") or match.label_init == "experts"
    last = {table.epochs} if finished else set()
    return tuple(sorted(window_epochs(match) | last))


def window_epochs(match: MatchTable) -> set[int]:
    """The starts and the targets of the segments that matching can draw."""
    starts = range(match.min_start_epoch, match.max_start_epoch + 1)
    return {*starts, *(start + match.span for start in starts)}


def scores_images(recipe: Recipe) -> bool:
    """Whether images are selected by how difficult experts find them."""
    return recipe.select is not None and selection(recipe.select.method).reads == "experts"


def scored_epochs(recipe: Recipe) -> tuple[int, ...]:
    """The epochs after which experts say how difficult images are, for select.method."""
    table: SelectTable = recipe.table("select")
    if table.method == "el2n":
        return (table.scored_epoch,)
    return tuple(range(1, recipe.table("experts").epochs + 1))
