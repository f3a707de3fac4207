"""The gradients of matching by name. Imports no torch."""

from __future__ import annotations

from distill.recipes.names.entries import Entry

GRADIENTS: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry("adjoint", "exact, in memory that does not grow with the inner steps", "Limbeck"),
        Entry("frozen", "TESLA's: exact for one inner step only", "Cui et al. 2023"),
        Entry(
            "unrolled",
            "exact, by automatic differentiation of all inner steps",
            "MTT, through higher",
        ),
    )
}
