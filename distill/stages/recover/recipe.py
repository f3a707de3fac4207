"""What the recipe of a run says of its recovery."""

from __future__ import annotations

from distill.recipes.tables.recover import RecoverTable
from distill.run.context import Context
from synth.recovery import RecoverBatch, plan_batches


def set_shape(context: Context) -> tuple[int, ...]:
    """[n, c, h, w] of the recipe's set."""
    table = recover_table(context)
    return (context.classes * table.ipc, context.data.channels, *context.data.size)


def recover_table(context: Context) -> RecoverTable:
    """[recover] of the recipe."""
    table: RecoverTable = context.recipe.table("recover")
    return table


def planned_batches(context: Context) -> list[RecoverBatch]:
    """All batches of the recipe's set."""
    table = recover_table(context)
    return plan_batches(
        context.classes, table.ipc, table.batch_size, within_class=table.batches == "within"
    )


def eligible(context: Context) -> list[tuple[int, str]]:
    """The members that may be drawn: (place in the committee, spec)."""
    members = context.recipe.table("committee").members
    pool = recover_table(context).members or members
    return [(place, spec) for place, spec in enumerate(members) if spec in pool]
