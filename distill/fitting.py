"""What the tables that make a set need of each other: one line for what does not fit, or None."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distill.tables import Recipe, RecoverTable, SelectTable


def match_problem(recipe: Recipe) -> str | None:
    """The segments that matching draws must lie within what the experts record."""
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
    return None


def recover_problem(recipe: Recipe) -> str | None:
    """Recovery can draw no more members than there are, and a background has pixels."""
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
    if table.background == "kept" and recipe.data.zca:
        return 'recover.background = "kept" reads pixels; set data.zca = false or drop it'
    return _candidates_problem("recover", table) if table.init == "mosaics" else None


def select_problem(recipe: Recipe) -> str | None:
    """Some selections need teachers."""
    table = recipe.select
    if table is None:
        return None
    if recipe.committee is None:
        if table.method == "mosaics":
            return 'select.method "mosaics" needs teachers; add a [committee] table'
        if table.features == "committee" and table.method != "random":
            return 'select.features "committee" needs teachers; add a [committee] table'
    return _candidates_problem("select", table) if table.method == "mosaics" else None


def _candidates_problem(name: str, table: RecoverTable | SelectTable) -> str | None:
    tiles = table.ipc * table.factor**2
    if table.candidates >= tiles:
        return None
    return (
        f"{name}.candidates is {table.candidates}, but ipc {table.ipc} with factor {table.factor} "
        f"needs {tiles} of each class; raise it, or lower ipc or the factor"
    )
