"""The stages of a run in order: skipped when their inputs have not changed, resumed otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill.errors import DivergedRunError, InterruptedRunError, LimbeckError, WorkError
from distill.machine import peak_bytes, reset_peak
from distill.recipes.stages import MAKERS, STAGE_ENTRIES
from distill.run.artefacts import EVALUATE_STAGE, MANIFEST, REFINE_STAGE, REPORT, SET, SUMMARY
from distill.run.context import Context
from distill.run.folder import StageTimer, read_manifest
from distill.run.reuse import take_stage
from distill.sets.set_file import add_refined
from distill.stages.loading import STAGES, planned
from distill.stages.stage import Stage
from distill.store.files import digest_json, remove

KEY_VERSION = 1


def run_stages(context: Context, names: Sequence[str] | None = None) -> None:
    """Run the planned stages, or those of `names`, in order.

    Raises:
        WorkError: if an input was never made.
        DivergedRunError: if a training diverges.
    """
    context.run.manifest.update(_provenance(context))
    _forget_other_makers(context)
    _undo_refine(context)
    asked = [stage for stage in planned(context.recipe) if not names or stage.name in names]
    for place, stage in enumerate(asked):
        coming = f"Next: {asked[place + 1].name}." if place + 1 < len(asked) else "The last stage."
        does = STAGE_ENTRIES[stage.name].summary
        words = f"stage {place + 1} of {len(asked)}: {does} {coming}" if len(asked) > 1 else ""
        _run_stage(context, stage, words)


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


def _run_stage(context: Context, stage: Stage, words: str) -> None:
    """Run a stage, unless its outputs are there; `words` are shown before it, if any."""
    run, key = context.run, _key(context, stage)
    context.key = key
    before = run.manifest["stages"].get(stage.name)
    if before and before["key"] == key and not _changed(stage, run.path, before["outputs"]):
        context.progress.say(f"{stage.name:<10} done before, inputs unchanged")
        remove(context.checkpoint(stage.name).folder)
        return
    taken = take_stage(context.reuse, stage.name, key, run.path)
    if taken is not None and not _changed(stage, run.path, taken["outputs"]):
        context.progress.say(f"{stage.name:<10} taken from another run")
        _record(context, stage, before, taken)
        return
    if words:
        context.progress.say(f"{stage.name:<10} {words}")
    reset_peak(context.device)
    run.timer = StageTimer(context.checkpoint(stage.name).folder)
    try:
        stage.run(context, context.recipe.table(stage.entry.table))
    except InterruptedRunError:
        run.timer.note(at_most_every=0)
        raise
    except FloatingPointError as error:
        raise DivergedRunError(f"{stage.name} diverged: {error}") from None
    except LimbeckError:
        raise
    except ValueError as error:
        # What algorithms, codecs and projectors refuse, each with what to do.
        raise WorkError(f"{stage.name}: {error}") from error
    finally:
        context.forget()
    made = {
        "key": key,
        "outputs": stage.outputs(run.path),
        "seconds": round(run.timer.seconds, 3),
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
    remove(context.checkpoint(stage.name).folder)


def _forget_dependents(context: Context, name: str) -> None:
    """Stages that read older outputs of this one no longer count as finished."""
    for stage in STAGES.values():
        inputs = (*stage.inputs, *stage.also_inputs(context.recipe))
        if name in inputs and stage.name in context.run.manifest["stages"]:
            del context.run.manifest["stages"][stage.name]
            if stage.name == EVALUATE_STAGE:
                # They describe a set that is no longer there.
                remove(context.run.path / SUMMARY)
                remove(context.run.path / REPORT)
            _forget_dependents(context, stage.name)


def _forget_other_makers(context: Context) -> None:
    """Forget the stage that made the set if the recipe now makes it in another way."""
    for name in MAKERS:
        if getattr(context.recipe, name) is None:
            context.run.manifest["stages"].pop(name, None)


def _undo_refine(context: Context) -> None:
    """Drop the refined images of a set that the recipe no longer refines."""
    if context.recipe.refine is None and REFINE_STAGE in context.run.manifest["stages"]:
        if (context.run.path / SET).is_file():
            add_refined(context.run.path / SET, None)
        del context.run.manifest["stages"][REFINE_STAGE]
        _forget_dependents(context, REFINE_STAGE)


def _key(context: Context, stage: Stage) -> str:
    """Digest of everything that decides a stage's outputs."""
    recipe = context.recipe.model_dump(mode="json")
    inputs = {}
    for name in (*stage.inputs, *stage.also_inputs(context.recipe)):
        finished = context.run.manifest["stages"].get(name)
        if finished is not None:
            inputs[name] = finished["outputs"]
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
        outputs = stage.outputs(folder)
    except WorkError:
        return list(recorded)
    return [name for name, digest in recorded.items() if outputs.get(name) != digest]


def changed_outputs(folder: Path) -> list[str]:
    """Outputs of a run's finished stages that are missing, damaged or no longer the same."""
    changed: list[str] = []
    for name, entry in read_manifest(folder / MANIFEST)["stages"].items():
        outputs = entry["outputs"]
        changed += _changed(STAGES[name], folder, outputs) if name in STAGES else list(outputs)
    return changed
