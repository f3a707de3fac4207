"""The stages of a run in their order: the one list that everything else reads. Imports no torch.

What a stage does, and what it costs, is said in its module, see `distill.stages.stage`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StageEntry:
    """The description of a stage, without its code.

    Attributes:
        name: as in `--stage`.
        summary: what it does, as a line of help.
        tables: recipe tables that it reads, its own last; all must be there.
        module: below distill.stages; it has the stage's code as `STAGE`.
        inputs: stages whose outputs it reads, where they are part of the run.
        makes_set: whether it makes the images of the set; a run has one such stage.
        needs: further tables that must be there, though the stage does not read them.
        gives: in words, what its table provides to other tables that need it.
        reads_pixels: what in it reads pixels and so no whitened images, in words; "" for nothing.
        verb: the stages that `distill NAME RECIPE` runs; none where there is no such command, or
            where it takes a finished set.
        after: verbs that make what this one reads, for the example in its help.
        example: a packaged recipe for that example.
    """

    name: str
    summary: str
    tables: tuple[str, ...]
    module: str
    inputs: tuple[str, ...] = ()
    makes_set: bool = False
    needs: tuple[str, ...] = ()
    gives: str = ""
    reads_pixels: str = ""
    verb: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    example: str = "digits"

    @property
    def table(self) -> str:
        """Its own table, which asks for the stage."""
        return self.tables[-1]


# The stages up to the images of the set: those that make them, of which a run has exactly one, each
# named like its table, and those whose outputs these read.
_IMAGE_STAGES: tuple[StageEntry, ...] = (
    StageEntry(
        "experts",
        "Train experts and record their trajectories.",
        ("data", "experts"),
        "experts",
        gives="trajectories",
        verb=("experts",),
    ),
    StageEntry(
        "committee",
        "Train the committee of teachers.",
        ("data", "committee"),
        "committee",
        gives="teachers",
    ),
    StageEntry(
        "project",
        "Fit the projector.",
        ("data", "committee", "projector"),
        "project",
        inputs=("committee",),
        reads_pixels="a projector",
        verb=("committee", "project"),
    ),
    StageEntry(
        "match",
        "Match the experts' trajectories.",
        ("data", "experts", "match"),
        "match.stage",
        inputs=("experts",),
        makes_set=True,
        verb=("match",),
        after=("experts",),
    ),
    StageEntry(
        "recover",
        "Optimise images until the committee recognises them.",
        ("data", "committee", "recover"),
        "recover.stage",
        inputs=("committee",),
        makes_set=True,
        verb=("committee", "recover"),
        example="digits-recover",
    ),
    StageEntry(
        "select",
        "Select real images, or mosaics of them.",
        ("data", "select"),
        "select",
        inputs=("experts", "committee"),
        makes_set=True,
        verb=("experts", "committee", "select"),
        example="digits-rded",
    ),
)

MAKERS = tuple(entry.name for entry in _IMAGE_STAGES if entry.makes_set)

# The stages whose images later stages read.
_IMAGES = (*MAKERS, "refine")

_LATER_STAGES: tuple[StageEntry, ...] = (
    StageEntry(
        "refine",
        "Refine the images in a tower's space.",
        ("data", "refine"),
        "refine",
        inputs=MAKERS,
        reads_pixels="a tower",
        verb=("refine",),
        after=("select",),
        example="digits-hello",
    ),
    StageEntry(
        "relabel",
        "Vote a soft label for every view.",
        ("data", "committee", "relabel"),
        "relabel",
        inputs=(*_IMAGES, "committee"),
        gives="voted labels",
        verb=("committee", "relabel"),
        after=("experts", "match"),
    ),
    StageEntry(
        "encode",
        "Encode the voted labels in fewer bytes.",
        ("data", "encode"),
        "encode",
        inputs=(*_IMAGES, "committee", "relabel", "project"),
        needs=("relabel",),
    ),
    StageEntry(
        "evaluate",
        "Judge the set by fresh students, with controls.",
        ("data", "evaluate"),
        "evaluate",
        inputs=(*_IMAGES, "committee", "relabel", "project", "encode"),
    ),
)

STAGE_ENTRIES: dict[str, StageEntry] = {
    entry.name: entry for entry in (*_IMAGE_STAGES, *_LATER_STAGES)
}
