"""The stages of a run in order: skipped when their inputs have not changed, resumed otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.context import Context
from distill.errors import DivergedRunError, InterruptedRunError, WorkError
from distill.memory import peak_bytes, reset_peak
from distill.reporting import FILE as REPORT
from distill.reuse import take_stage
from distill.stages import (
    committee,
    encode,
    evaluate,
    experts,
    match,
    project,
    recover,
    refine,
    relabel,
    select,
)
from distill.stages.pretrained import weights_digests
from distill.stages.synthetic import FILE as SET
from distill.store.files import digest_json, digest_tree, remove
from distill.store.hdf5 import digest_attribute, digest_content
from distill.store.run import MANIFEST, read_manifest
from distill.store.sets import KIND as SET_KIND
from distill.store.sets import add_refined
from distill.store.watch import Watch
from distill.summary import FILE as SUMMARY
from distill.tables import MAKERS, VOTE_KEYS, Recipe

KEY_VERSION = 1


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name: as in `--stage`.
        tables: recipe tables that it reads; all must be there.
        inputs: stages whose outputs it reads, where they are part of the run.
        run: does the work and writes the outputs.
        outputs: run folder -> digests of its outputs; raises if one is missing or damaged.
        also_inputs: recipe -> further inputs, where the recipe decides.
        derived: recipe -> what else decides the outputs, where only a part of another table does.
        ignored: keys of its tables that do not decide the outputs.
    """

    name: str
    tables: tuple[str, ...]
    inputs: tuple[str, ...]
    run: Callable[[Context], None]
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
    return {**_file(evaluate.FILE)(folder), f"{SET}:measured": measured}


def _vote(recipe: Recipe) -> Any:
    """How the committee votes, for a stage that asks it but does not read how it was trained."""
    return recipe.committee and recipe.committee.model_dump(mode="json", include=set(VOTE_KEYS))


def _encoding(folder: Path) -> dict[str, str]:
    """Only the labels that the stage chose: others may be added to the set by hand."""
    found = _file(encode.FILE)(folder)
    part = f"labels/{encode.encoding_name(folder / encode.FILE)}"
    return {**found, **_set_parts("encoded", part, attributes=False)(folder)}


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            "experts",
            ("data", "experts"),
            (),
            experts.run_experts,
            _file(experts.FILE),
            experts.kept_epochs,
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
            _file(committee.FILE),
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
            _file(project.FOLDER),
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


def run_stages(context: Context, names: Sequence[str] | None = None) -> None:
    """Run the planned stages, or those of `names`, in order.

    Raises:
        WorkError: if an input was never made.
        DivergedRunError: if a training diverges.
    """
    context.run.manifest.update(_provenance(context))
    _forget_other_makers(context)
    _undo_refine(context)
    for stage in planned(context.recipe):
        if names and stage.name not in names:
            continue
        _run_stage(context, stage)


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


def _provenance(context: Context) -> dict[str, Any]:
    return {
        "seed": context.recipe.seed,
        "device": str(context.device),
        "data": {
            "source": context.data.source,
            "digest": context.data.digest,
            "classes": list(context.data.class_names),
        },
    }


def _run_stage(context: Context, stage: Stage) -> None:
    run, key = context.run, _key(context, stage)
    context.key = key
    before = run.manifest["stages"].get(stage.name)
    if before and before["key"] == key and not _changed(stage, run.path, before["outputs"]):
        context.progress.say(f"{stage.name:<10} done before, inputs unchanged")
        remove(context.checkpoint(stage.name))
        return
    taken = take_stage(context.reuse, stage.name, key, run.path)
    if taken is not None and not _changed(stage, run.path, taken["outputs"]):
        context.progress.say(f"{stage.name:<10} taken from another run")
        _record(context, stage, before, taken)
        return
    reset_peak(context.device)
    run.watch = Watch(context.checkpoint(stage.name))
    try:
        stage.run(context)
    except InterruptedRunError:
        run.watch.note(at_most_every=0)
        raise
    except FloatingPointError as error:
        raise DivergedRunError(f"{stage.name} diverged: {error}") from None
    made = {
        "key": key,
        "outputs": stage.outputs(run.path),
        "seconds": round(run.watch.seconds, 3),
        "peak_memory_bytes": peak_bytes(context.device),
    }
    _record(context, stage, before, made)


def _record(
    context: Context, stage: Stage, before: dict[str, Any] | None, made: dict[str, Any]
) -> None:
    """Note that a stage is finished."""
    if before is None or before["outputs"] != made["outputs"]:
        _forget_dependents(context, stage.name)
    context.run.record_stage(stage.name, made)
    remove(context.checkpoint(stage.name))


def _forget_dependents(context: Context, name: str) -> None:
    """What was made from older outputs of a stage no longer counts as finished."""
    for stage in STAGES.values():
        inputs = (*stage.inputs, *stage.also_inputs(context.recipe))
        if name in inputs and stage.name in context.run.manifest["stages"]:
            del context.run.manifest["stages"][stage.name]
            if stage.name == evaluate.STAGE:
                # They describe a set that is no longer there.
                remove(context.run.path / SUMMARY)
                remove(context.run.path / REPORT)
            _forget_dependents(context, stage.name)


def _forget_other_makers(context: Context) -> None:
    """A set that an earlier form of the recipe made in another way is no longer part of the run."""
    for name in MAKERS:
        if getattr(context.recipe, name) is None:
            context.run.manifest["stages"].pop(name, None)


def _undo_refine(context: Context) -> None:
    """A set that an earlier form of the recipe refined has its own images back."""
    if context.recipe.refine is None and refine.STAGE in context.run.manifest["stages"]:
        if (context.run.path / SET).is_file():
            add_refined(context.run.path / SET, None)
        del context.run.manifest["stages"][refine.STAGE]
        _forget_dependents(context, refine.STAGE)


def _key(context: Context, stage: Stage) -> str:
    """Digest of everything that decides a stage's outputs."""
    recipe = context.recipe.model_dump(mode="json")
    inputs = {}
    for name in (*stage.inputs, *stage.also_inputs(context.recipe)):
        found = context.run.manifest["stages"].get(name)
        if found is not None:
            inputs[name] = found["outputs"]
        elif name in [planned_stage.name for planned_stage in planned(context.recipe)]:
            raise WorkError(f"stage {stage.name} needs the outputs of {name}; run it first")
    return digest_json(
        {
            "version": KEY_VERSION,
            "stage": stage.name,
            "seed": context.recipe.seed,
            "data": context.data.digest,
            "tables": {table: _deciding(recipe[table], stage) for table in stage.tables},
            "derived": stage.derived(context.recipe),
            "inputs": inputs,
        }
    )


def _deciding(table: dict[str, Any], stage: Stage) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key not in stage.ignored}


def _changed(stage: Stage, folder: Path, recorded: dict[str, str]) -> list[str]:
    """Which of a stage's recorded outputs differ now; all of them where one cannot be read."""
    try:
        found = stage.outputs(folder)
    except WorkError:
        return list(recorded)
    return [name for name, digest in recorded.items() if found.get(name) != digest]


def changed_outputs(folder: Path) -> list[str]:
    """Outputs of a run's finished stages that are missing, damaged or no longer the same."""
    changed: list[str] = []
    for name, entry in read_manifest(folder / MANIFEST)["stages"].items():
        outputs = entry["outputs"]
        changed += _changed(STAGES[name], folder, outputs) if name in STAGES else list(outputs)
    return changed
