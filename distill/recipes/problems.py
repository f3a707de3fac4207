"""What the tables of a recipe ask of one another. Imports no torch."""

from __future__ import annotations

from typing import Protocol

from distill.names import selection
from distill.recipes.specs import parse_codec, parse_network
from distill.recipes.tables.committee import CommitteeTable
from distill.recipes.tables.data import DataTable
from distill.recipes.tables.encode import EncodeTable
from distill.recipes.tables.experts import ExpertsTable
from distill.recipes.tables.match import MatchTable
from distill.recipes.tables.projector import ProjectorTable
from distill.recipes.tables.recover import RecoverTable
from distill.recipes.tables.select import SelectTable


class Tables(Protocol):
    """The tables of a recipe; None for those that it does not have."""

    data: DataTable
    experts: ExpertsTable | None
    match: MatchTable | None
    committee: CommitteeTable | None
    recover: RecoverTable | None
    select: SelectTable | None
    projector: ProjectorTable | None
    encode: EncodeTable | None

    @property
    def budget_bytes(self) -> int | None:
        """Bytes that the set may take; None without a budget."""
        ...


def problem_between_tables(recipe: Tables) -> str | None:
    """The first thing in which one table rules out another, in a sentence; None for none."""
    return (
        _match_problem(recipe)
        or _recover_problem(recipe)
        or _select_problem(recipe)
        or _encode_problem(recipe)
        or _share_problem(recipe)
    )


def _match_problem(recipe: Tables) -> str | None:
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


def _recover_problem(recipe: Tables) -> str | None:
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


def _recover_keys_problem(recipe: Tables, table: RecoverTable) -> str | None:
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


def _select_problem(recipe: Tables) -> str | None:
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


def _encode_problem(recipe: Tables) -> str | None:
    """Teachers that were trained with rounded weights are kept with as many bits."""
    committee, codec = recipe.committee, None if recipe.encode is None else recipe.encode.codec
    kept = None if codec is None else parse_codec(codec).teacher_bits
    if committee is None or kept is None:
        return None
    for spec in committee.members:
        bits = committee.training(spec).weight_bits
        if bits is not None and bits != kept:
            return (
                f"encode.codec {codec} keeps weights of {kept} bits, but {spec} is trained for "
                f"committee.weight_bits {bits}; give both as many"
            )
    return None


def _share_problem(recipe: Tables) -> str | None:
    """Members have a share of a budget where there is one, and where the set keeps them."""
    committee = recipe.committee
    if committee is None or committee.budget_share is None:
        return None
    if recipe.budget_bytes is None:
        return "committee.budget_share is a share of a budget; set one by --bytes, or leave it out"
    codec = None if recipe.encode is None else recipe.encode.codec
    if codec is None or not parse_codec(codec).keeps_teachers_alone:
        return (
            "committee.budget_share is of networks that the set keeps to label every view; set "
            "encode.codec to teacher:bits=4, or leave it out"
        )
    fixed = [spec for spec in committee.members if "width" not in parse_network(spec)[1]]
    if fixed:
        return (
            f"committee.budget_share narrows members by their width, and {fixed[0]} has none; "
            "name others, or leave it out"
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
