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
from distill.recipes.specs import parse_codec
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
        problem = (
            check_match(self) or check_recover(self) or check_select(self) or check_encode(self)
        )
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


def check_match(recipe: Recipe) -> str | None:
    """The segments that matching draws must lie within what the experts record.

    What labels the views of its inner steps must be there.
    """
    if recipe.experts is None or recipe.match is None:
        return None
    table = recipe.match
    needed = table.max_start_epoch + table.span
    if needed > recipe.experts.epochs:
        return (
            f"match.max_start_epoch + match.span is {needed}, but experts.epochs is "
            f"{recipe.experts.epochs}; lower the former or record more epochs"
        )
    grown = table.max_start_epoch if table.grow_from is None else table.grow_from
    if not table.min_start_epoch <= grown <= table.max_start_epoch:
        return "match.min_start_epoch, grow_from and max_start_epoch must not fall in this order"
    if table.labels == "votes" and recipe.committee is None:
        return 'match.labels "votes" needs teachers; add a [committee] table'
    if table.labels == "projector" and recipe.projector is None:
        return 'match.labels "projector" needs a projector; add a [projector] table'
    return None


def check_recover(recipe: Recipe) -> str | None:
    """Recovery can draw no more members than there are; a kept background needs pixels."""
    table, committee = recipe.recover, recipe.committee
    if table is None or committee is None:
        return None
    pool = table.members or committee.members
    unknown = [name for name in pool if name not in committee.members]
    if unknown:
        return (
            f"recover.members names {unknown[0]}, which committee.members lacks; name some of "
            f"{', '.join(committee.members)}"
        )
    if table.drawn > len(pool):
        return (
            f"recover.drawn asks for {table.drawn} members at once, but {len(pool)} may be drawn; "
            "lower it or add members"
        )
    return _recover_keys_problem(recipe, table)


def _recover_keys_problem(recipe: Recipe, table: RecoverTable) -> str | None:
    """Keys that ask for something that others rule out, or do not ask for."""
    if recipe.data.zca:
        reads = {"background": table.background == "kept", "anchors": table.reads_anchors}
        for name in (name for name, there in reads.items() if there):
            key = 'background = "kept"' if name == "background" else 'aim or init = "anchors"'
            return f"recover.{key} reads pixels; set data.zca = false or drop it"
    if table.aim != "statistics" and table.batches == "within":
        return (
            f'recover.aim = "{table.aim}" needs an image of every class in a batch; set '
            'recover.batches = "across"'
        )
    if table.aim != "statistics" and not table.bn_weight:
        return f'recover.aim = "{table.aim}" has no weight; set recover.bn_weight'
    if table.patches == "nearest" and not table.blends:
        return 'recover.patches = "nearest" is for blends; set recover.blends'
    tiled = table.init == "mosaics" or table.reads_anchors
    return _candidates_problem("recover", table) if tiled else None


def check_select(recipe: Recipe) -> str | None:
    """Some selections need teachers."""
    table = recipe.select
    if table is None:
        return None
    if recipe.experts is not None and table.scored_epoch > recipe.experts.epochs:
        return (
            f"select.scored_epoch is {table.scored_epoch}, but experts.epochs is "
            f"{recipe.experts.epochs}; lower the former or record more epochs"
        )
    if recipe.committee is None:
        if table.labels == "votes":
            return 'select.labels "votes" needs teachers; add a [committee] table'
        reads = selection(table.method).reads
        if reads == "teachers":
            return f'select.method "{table.method}" needs teachers; add a [committee] table'
        if table.features == "committee" and reads == "features":
            return 'select.features "committee" needs teachers; add a [committee] table'
    return _candidates_problem("select", table) if table.method == "mosaics" else None


def check_encode(recipe: Recipe) -> str | None:
    """Teachers that were trained with rounded weights are kept with as many bits."""
    committee, codec = recipe.committee, None if recipe.encode is None else recipe.encode.codec
    network = None if codec is None else parse_codec(codec).parts.get("network")
    if committee is None or network is None or network.entry.name != "teacher":
        return None
    kept = network.options["bits"]
    for spec in committee.members:
        bits = committee.training(spec).weight_bits
        if bits is not None and bits != kept:
            return (
                f"encode.codec {codec} keeps weights of {kept} bits, but {spec} is trained for "
                f"committee.weight_bits {bits}; give both as many"
            )
    return None


def _candidates_problem(name: str, table: RecoverTable | SelectTable) -> str | None:
    tiles = table.ipc * table.factor**2
    if table.candidates >= tiles:
        return None
    return (
        f"{name}.candidates is {table.candidates}, but ipc {table.ipc} with factor {table.factor} "
        f"needs {tiles} of each class; raise it, or lower ipc or the factor"
    )


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
