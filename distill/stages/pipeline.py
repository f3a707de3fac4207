"""The stages of a run in order: skipped when their inputs have not changed, resumed otherwise."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distill.errors import DivergedRunError, InterruptedRunError, LimbeckError, WorkError
from distill.machine import peak_bytes, reset_peak
from distill.recipes.stages import MAKERS, STAGE_ENTRIES
from distill.recipes.tables.data import READING_KEYS
from distill.run.artefacts import (
    EVALUATE_STAGE,
    EXPERTS_STAGE,
    MANIFEST,
    REFINE_STAGE,
    REPORT,
    SET,
    SUMMARY,
)
from distill.run.context import Context
from distill.run.folder import StageTimer
from distill.run.keys import MADE_FROM, differences
from distill.run.manifest import read_manifest
from distill.run.own_code import code_digests
from distill.run.reuse import REUSED, take_outputs
from distill.sets.additions import BEFORE_REFINED, add_refined
from distill.sets.set_file import read_set, write_set
from distill.stages.given_experts import take_experts
from distill.stages.loading import STAGES, planned
from distill.stages.stage import Stage
from distill.store.files import digest_json, remove

# 2: the data's digest alone stands for the data.
KEY_VERSION = 2


def run_stages(context: Context, names: Sequence[str] | None = None) -> None:
    """Run the planned stages, or those of `names`, in order.

    Raises:
        WorkError: if an input was never made.
        DivergedRunError: if a training diverges.
    """
    context.run.manifest.update(_provenance(context))
    context.run.save()
    _forget_other_makers(context)
    _undo_refine(context)
    asked = [stage for stage in planned(context.recipe) if not names or stage.name in names]
    _take_given(context)
    _check_inputs(context, asked)
    for place, stage in enumerate(asked):
        coming = f"Next: {asked[place + 1].name}." if place + 1 < len(asked) else "The last stage."
        does = STAGE_ENTRIES[stage.name].summary
        words = f"stage {place + 1} of {len(asked)}: {does} {coming}" if len(asked) > 1 else ""
        _run_stage(context, stage, words)


def _provenance(context: Context) -> dict[str, Any]:
    data: dict[str, Any] = {
        "source": context.data.source,
        "digest": context.data.digest,
        "classes": list(context.data.class_names),
    }
    if context.data.notes:
        data["notes"] = list(context.data.notes)
    return {"seed": context.recipe.seed, "device": str(context.device), "data": data}


def _take_given(context: Context) -> None:
    """Take experts.h5 files that are given by themselves, as another program's experts are."""
    for path in context.reuse:
        if path.is_dir():
            continue
        if context.recipe.experts is None:
            raise WorkError(f"the recipe trains no experts; leave out --reuse {path}")
        take_experts(context, path)
        stage = STAGES[EXPERTS_STAGE]
        made_from = _made_from(context, stage)
        made = {
            "key": digest_json(made_from),
            MADE_FROM: made_from,
            "outputs": stage.outputs(context.run.path),
            "seconds": 0.0,
            "peak_memory_bytes": 0,
            "given": path.name,
        }
        _record(context, stage, context.run.manifest["stages"].get(stage.name), made)


def _check_inputs(context: Context, asked: Sequence[Stage]) -> None:
    """Refuse what other stages left if it has changed since: those of `asked` check their own.

    Raises:
        WorkError: if an input was never made, is damaged, or was replaced by another file.
    """
    names = {stage.name for stage in asked}
    readers: dict[str, str] = {}
    for stage in asked:
        for name in _inputs(context, stage):
            readers.setdefault(name, stage.name)
    for name, reader in readers.items():
        if name in names:
            continue
        entry = context.run.manifest["stages"].get(name)
        if entry is None:
            raise _lacks(reader, name)
        changed = _changed(STAGES[name], context.run.path, entry["outputs"])
        if changed:
            raise WorkError(
                f"{', '.join(changed)} is not what the stage {name} left: its digest differs; run "
                "that stage again, or give experts of another program with --reuse FILE"
            )


def _inputs(context: Context, stage: Stage) -> list[str]:
    """The stages whose outputs a stage reads: those that the recipe plans, or that are there."""
    there = {planned_stage.name for planned_stage in planned(context.recipe)}
    there |= context.run.manifest["stages"].keys()
    read = (*stage.inputs, *stage.also_inputs(context.recipe))
    return [name for name in read if name in there]


def _lacks(stage: str, name: str) -> WorkError:
    return WorkError(f"stage {stage} needs the outputs of {name}; run it first")


def _run_stage(context: Context, stage: Stage, words: str) -> None:
    """Run a stage, unless its outputs are there; `words` are shown before it, if any."""
    run, made_from = context.run, _made_from(context, stage)
    key, context.key = digest_json(made_from), _checkpoint_key(stage, made_from)
    before = run.manifest["stages"].get(stage.name)
    changed = _changed(stage, run.path, before["outputs"]) if before else []
    if before and before["key"] == key and not changed:
        context.progress.say(f"{stage.name:<10} done before, inputs unchanged")
        remove(context.checkpoint(stage.name).folder)
        return
    taken = _take(context, stage, made_from, key)
    if taken is not None:
        context.progress.say(f"{stage.name:<10} taken from another run")
        _record(context, stage, before, taken)
        return
    if before:
        reason = f"{', '.join(changed)} is missing or not as it was left"
        reason = differences(before, made_from) if before["key"] != key else reason
        context.progress.say(f"{stage.name:<10} runs again, and replaces what it made: {reason}")
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
        MADE_FROM: made_from,
        "outputs": stage.outputs(run.path),
        "seconds": round(run.timer.seconds, 3),
        "peak_memory_bytes": peak_bytes(context.device),
    }
    _record(context, stage, before, made)


def _take(
    context: Context, stage: Stage, made_from: dict[str, Any], key: str
) -> dict[str, Any] | None:
    """The stage's entry in another run, its files now in this one's folder; says why not."""
    if stage.name not in REUSED:
        return None
    for run in (path for path in context.reuse if path.is_dir()):
        entry = read_manifest(run / MANIFEST)["stages"].get(stage.name)
        if entry is None:
            reason = "it has not finished that stage"
        elif entry["key"] != key:
            reason = differences(entry, made_from)
        elif not _is_whole(stage, run, entry["outputs"]):
            reason = f"{', '.join(entry['outputs'])} is not there, or not as that run left it"
        elif not _take_outputs(run, stage, entry, context):
            reason = f"{', '.join(entry['outputs'])} is damaged"
        elif _changed(stage, context.run.path, entry["outputs"]):
            reason = f"{', '.join(entry['outputs'])} is not the same once it is here"
        else:
            return dict(entry)
        context.progress.say(f"{stage.name:<10} not reused from {run}: {reason}")
    return None


def _take_outputs(run: Path, stage: Stage, entry: Mapping[str, Any], context: Context) -> bool:
    """Put the outputs of another run's stage into this one's folder; of its set, the images."""
    if stage.name not in MAKERS:
        take_outputs(run, entry["outputs"], context.run.path)
        return True
    try:
        write_set(context.run.path / SET, read_set(run / SET, BEFORE_REFINED))
    except WorkError:
        return False
    return True


def _record(
    context: Context, stage: Stage, before: dict[str, Any] | None, made: dict[str, Any]
) -> None:
    """Note that a stage is finished, with the digest of its metric rows."""
    made = {**made, "metrics": context.run.digest_metrics(stage.name)}
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
            _drop_refined(context)
        del context.run.manifest["stages"][REFINE_STAGE]
        _forget_dependents(context, REFINE_STAGE)


def _drop_refined(context: Context) -> None:
    """Drop the refined images of the set; one that cannot be read is made again."""
    path = context.run.path / SET
    try:
        read_set(path, BEFORE_REFINED)
    except WorkError:
        for name in MAKERS:
            context.run.manifest["stages"].pop(name, None)
    else:
        add_refined(path, None)


def _made_from(context: Context, stage: Stage) -> dict[str, Any]:
    """Everything that decides a stage's outputs, in plain values; its digest is the stage's key.

    The data's digest stands for where they lie and how they are read.
    """
    recipe = context.recipe.model_dump(mode="json")
    inputs = {}
    for name in _inputs(context, stage):
        finished = context.run.manifest["stages"].get(name)
        if finished is None:
            raise _lacks(stage.name, name)
        inputs[name] = finished["outputs"]
    made_from = {
        "version": KEY_VERSION,
        "stage": stage.name,
        "seed": context.recipe.seed,
        "data": context.data.digest,
        "tables": {
            table: _deciding(recipe[table], stage, READING_KEYS if table == "data" else ())
            for table in stage.tables
        },
        "derived": stage.derived(context.recipe),
        "inputs": inputs,
    }
    code = code_digests(context, stage.tables)
    if code:
        made_from["code"] = code
    # As the manifest has it: what is derived may hold tuples.
    plain: dict[str, Any] = json.loads(json.dumps(made_from))
    return plain


def _deciding(table: dict[str, Any], stage: Stage, reading: Sequence[str]) -> dict[str, Any]:
    left_out = {*stage.ignored, *reading}
    return {key: value for key, value in table.items() if key not in left_out}


def _checkpoint_key(stage: Stage, made_from: dict[str, Any]) -> str:
    """Digest of all that decides the finished parts of a stage, whichever of them are asked for."""
    own = stage.entry.table
    table = {k: v for k, v in made_from["tables"][own].items() if k not in stage.selecting}
    return digest_json({**made_from, "tables": {**made_from["tables"], own: table}})


def _changed(stage: Stage, folder: Path, recorded: dict[str, str]) -> list[str]:
    """Which of a stage's recorded outputs differ now; all of them where one cannot be read."""
    try:
        outputs = stage.outputs(folder)
    except WorkError:
        return list(recorded)
    return [name for name, digest in recorded.items() if outputs.get(name) != digest]


def _is_whole(stage: Stage, folder: Path, recorded: Mapping[str, str]) -> bool:
    """Whether a folder holds what is recorded of a stage, and nothing else is recorded of it.

    The names in a stranger's manifest are paths that would be written to: only those that the
    stage makes are good.
    """
    try:
        return stage.outputs(folder) == recorded
    except WorkError:
        return False


def changed_outputs(folder: Path, stages: Mapping[str, Any]) -> list[str]:
    """Outputs of a run's finished stages that are missing, damaged or no longer the same.

    Args:
        folder: of the run.
        stages: the entries of its manifest.
    """
    changed: list[str] = []
    for name, entry in stages.items():
        outputs = entry["outputs"]
        changed += _changed(STAGES[name], folder, outputs) if name in STAGES else list(outputs)
    return changed
