"""New soft labels for a set that exists, outside its run."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from distill.errors import InterruptedRunError, RecipeError, WorkError
from distill.recipes.build import with_place
from distill.recipes.checks import check_names, check_networks, missing_packages
from distill.recipes.given import relabelled
from distill.recipes.loading import check_recipe
from distill.recipes.specs import find_network
from distill.run.artefacts import COMMITTEE, RELABEL_STAGE, SET
from distill.run.interrupt import listen
from distill.run.scratch import scratch_context
from distill.sets.additions import BEFORE_VOTES
from distill.sets.set_file import SetFile, read_set, set_path, write_set
from distill.stages.committee import run_committee
from distill.stages.relabel import run_relabel
from distill.store.files import digest_json

# The tables whose networks label; those that made the images need not be at hand.
_LABELLING = ("committee", "relabel")


def relabel_set(
    path: Path,
    teachers: Sequence[str],
    changes: Mapping[str, Any],
    device: str | None,
    quiet: bool,
    *,
    place: str | None = None,
) -> SetFile:
    """The set with a new soft label for every view; the file stays as it is.

    Hard and learned labels stay. Encoded labels and measured accuracies belonged to the former
    ones, and are left out.

    Args:
        path: set.h5, or the folder of a run; the committee is looked for beside it.
        teachers: specs of the members that vote, with equal weights; empty for that committee.
        changes: keys of the recipe's table [relabel] to replace.
        device: auto, cpu or cuda; None for the recipe's.
        quiet: show no progress.
        place: where the real data lie now, a path or a source; None for where the recipe says.

    Raises:
        LimbeckError: of the fitting kind; the teachers are measured on held-out real images, and
            those near chance are refused.
    """
    set_file = set_path(path)
    content = read_set(set_file, BEFORE_VOTES)
    if not content.manifest["source"]["digest"]:
        raise WorkError(
            f"{set_file} names no real data, on which its teachers are measured; import or merge "
            "it again with --data"
        )
    recipe = check_recipe(content.manifest["recipe"], f"recipe of {set_file}")
    recipe = relabelled(recipe, list(teachers), changes)
    for sentence in missing_packages(recipe, (RELABEL_STAGE,)):
        raise WorkError(sentence)
    beside = set_file.parent / COMMITTEE
    if not teachers and (recipe.committee is None or not beside.is_file()):
        raise WorkError(f"no teachers were given, and there is no {beside}; give teachers")
    if content.whitening is not None and any(find_network(spec).trained for spec in teachers):
        raise RecipeError(
            f"teachers that are given read pixels, but the images of {set_file} are whitened; make "
            "the set with data.zca = false"
        )
    resolved = recipe.model_dump(mode="json")
    manifest = {**content.manifest, "recipe": resolved, "recipe_digest": digest_json(resolved)}
    recipe = with_place(recipe, place, set_file.parent)
    check_names(recipe, only=_LABELLING)
    with tempfile.TemporaryDirectory() as scratch, listen() as stop:
        context = scratch_context(Path(scratch), set_file.parent, recipe, device, quiet, stop)
        context.normalise_as(content.preprocess)
        if context.data.digest != manifest["source"]["digest"]:
            raise WorkError(
                f"{set_file} was made from other data than {context.data.source}; their digests "
                "differ: give the same data"
            )
        check_networks(recipe, context.data, only=_LABELLING)
        write_set(Path(scratch) / SET, replace(content, manifest=manifest))
        try:
            if teachers:
                Path(scratch, COMMITTEE).unlink(missing_ok=True)
                run_committee(context, context.recipe.table("committee"))
            run_relabel(context, context.recipe.table("relabel"))
        except InterruptedRunError:
            raise InterruptedRunError("interrupted; nothing was kept: call relabel again") from None
        return read_set(Path(scratch) / SET)
