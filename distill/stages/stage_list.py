"""The stages of a run in their order: what each needs, makes and depends on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.errors import WorkError
from distill.recipes.recipe import MAKERS, Recipe, kept_epochs
from distill.recipes.tables.committee import VOTE_KEYS
from distill.run.artefacts import COMMITTEE, ENCODING, EVALUATION, EXPERTS, PROJECTOR, SET
from distill.run.context import Context
from distill.sets.set_file import KIND as SET_KIND
from distill.stages import committee, encode, evaluate, experts, project, refine, relabel, select
from distill.stages.match import stage as match
from distill.stages.recover import stage as recover
from distill.store.files import digest_tree
from distill.store.hdf5 import digest_attribute, digest_content
from distill.teachers.pretrained import weights_digests


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name: as in `--stage`.
        tables: recipe tables that it reads, its own last; all must be there.
        inputs: stages whose outputs it reads, where they are part of the run.
        run: does the work and writes the outputs; takes the context and its own table.
        outputs: run folder -> digests of its outputs; raises if one is missing or damaged.
        also_inputs: recipe -> further inputs, where the recipe decides.
        derived: recipe -> what else decides the outputs, where only a part of another table does.
        ignored: keys of its tables that do not decide the outputs.
    """

    name: str
    tables: tuple[str, ...]
    inputs: tuple[str, ...]
    run: Callable[[Context, Any], None]
    outputs: Callable[[Path], dict[str, str]]
    derived: Callable[[Recipe], Any] = lambda recipe: None
    ignored: tuple[str, ...] = ()
    also_inputs: Callable[[Recipe], tuple[str, ...]] = lambda recipe: ()


def _file(name: str) -> Callable[[Path], dict[str, str]]:
    def outputs(folder: Path) -> dict[str, str]:
        if not (folder / name).exists():
            raise WorkError(f"{folder / name} is missing; run its stage again")
        return {name: digest_tree(folder / name)}

    return outputs


def _set_parts(label: str, *prefixes: str, attributes: bool) -> Callable[[Path], dict[str, str]]:
    """A part of set.h5 has a digest of its own, as later stages add to the file."""

    def outputs(folder: Path) -> dict[str, str]:
        path = folder / SET
        return {f"{SET}:{label}": digest_content(path, SET_KIND, prefixes, attributes)}

    return outputs


def _evaluation(folder: Path) -> dict[str, str]:
    """The evaluation stands in a file of its own and in the set, which may be made again."""
    measured = digest_attribute(folder / SET, SET_KIND, "measured")
    return {**_file(EVALUATION)(folder), f"{SET}:measured": measured}


def _vote(recipe: Recipe) -> Any:
    """How the committee votes, for a stage that asks it but does not read how it was trained."""
    return recipe.committee and recipe.committee.model_dump(mode="json", include=set(VOTE_KEYS))


def _encoding(folder: Path) -> dict[str, str]:
    """Only the labels that the stage chose: others may be added to the set by hand."""
    found = _file(ENCODING)(folder)
    part = f"labels/{encode.encoding_name(folder / ENCODING)}"
    return {**found, **_set_parts("encoded", part, attributes=False)(folder)}


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            "experts",
            ("data", "experts"),
            (),
            experts.run_experts,
            _file(EXPERTS),
            kept_epochs,
        ),
        Stage(
            "match",
            ("data", "experts", "match"),
            ("experts",),
            match.run_match,
            _set_parts("images", "images", "hard", "labels/learned", attributes=True),
        ),
        Stage(
            "committee",
            ("data", "committee"),
            (),
            committee.run_committee,
            _file(COMMITTEE),
            weights_digests,
            ignored=VOTE_KEYS,
        ),
        Stage(
            "recover",
            ("data", "committee", "recover"),
            ("committee",),
            recover.run_recover,
            _set_parts("images", "images", "hard", attributes=True),
        ),
        Stage(
            "select",
            ("data", "select"),
            ("committee",),
            select.run_select,
            _set_parts("images", "images", "hard", attributes=True),
            _vote,
        ),
        Stage(
            "refine",
            ("data", "refine"),
            ("match",),
            refine.run_refine,
            _set_parts("refined", "refined", attributes=False),
        ),
        Stage(
            "relabel",
            ("data", "committee", "relabel"),
            (*MAKERS, "refine", "committee"),
            relabel.run_relabel,
            _set_parts("votes", "labels/full-fp16", attributes=False),
        ),
        Stage(
            "project",
            ("data", "committee", "projector"),
            ("committee",),
            project.run_project,
            _file(PROJECTOR),
            project.view_recipe,
            also_inputs=project.fit_inputs,
        ),
        Stage(
            "encode",
            ("data", "encode"),
            (*MAKERS, "refine", "committee", "relabel", "project"),
            encode.run_encode,
            _encoding,
            lambda recipe: [encode.judging_students(recipe), _vote(recipe)],
        ),
        Stage(
            "evaluate",
            ("data", "evaluate"),
            (*MAKERS, "refine", "committee", "relabel", "project", "encode"),
            evaluate.run_evaluate,
            _evaluation,
            _vote,
        ),
    )
}


def planned(recipe: Recipe) -> list[Stage]:
    """The stages whose tables the recipe has."""
    return [
        stage
        for stage in STAGES.values()
        if all(getattr(recipe, table) is not None for table in stage.tables)
    ]


def check_stages(recipe: Recipe, names: Sequence[str]) -> None:
    """Raise WorkError for a stage whose tables the recipe lacks."""
    planned_names = [stage.name for stage in planned(recipe)]
    for name in names:
        if name not in planned_names:
            tables = ", ".join(STAGES[name].tables) if name in STAGES else ""
            raise WorkError(
                f"stage {name} is not part of this recipe, which needs the tables {tables}; add "
                f"them, or choose from {', '.join(planned_names)}"
            )
