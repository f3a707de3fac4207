"""Sizes of a recipe's networks and files, counted on the meta device without the data."""

from __future__ import annotations

import json
from typing import Any

from distill.recipes.schema import Recipe, kept_epochs
from distill.stages.units.coded import label_network_bytes
from distill.stages.units.shapes import (
    DataShape,
    meta_network,
    parameter_count,
    synthetic_shape,
    vote_bytes,
)
from distill.store.hdf5 import smallest_unsigned
from distill.store.snapshot_storage import share_of_mtt, trajectory_bytes

# HDF5's overhead, measured on files of 1 to 20 experts and of 203 and 196 tensors: of a file, of
# (an expert, each of its snapshots), and of a tensor.
_FILE_BYTES = 4_700

_EXPERT_BYTES = {
    "float32": (610, 26),
    "float16": (1_460, 26),
    "bfloat16": (1_460, 26),
    "int4": (1_800, 44),
}

_TENSOR_BYTES = 410

_SET_BYTES = 10_000

# What an evaluation writes into the set for each student.
_MEASURED_BYTES = 1_000


def network_specs(recipe: Recipe) -> list[str]:
    """The distinct networks of a recipe."""
    specs = list(recipe.experts.all_networks) if recipe.experts else []
    specs += recipe.committee.members if recipe.committee else []
    specs += recipe.evaluate.students if recipe.evaluate else []
    return list(dict.fromkeys(specs))


def expert_buffer(recipe: Recipe, shape: DataShape) -> dict[str, Any]:
    """Bytes of experts.h5, and of its snapshots as a fraction of MTT's buffer."""
    table, kept = recipe.table("experts"), kept_epochs(recipe)
    counts = [parameter_count(meta_network(spec, shape)) for spec in table.all_networks]
    payload = table.count * sum(
        trajectory_bytes(count, len(kept), table.storage) for count in counts
    )
    own, each = _EXPERT_BYTES[table.storage]
    experts = table.count * len(counts)
    return {
        "bytes": payload + _FILE_BYTES + experts * (own + each * len(kept)),
        "arrays": payload,
        "experts": experts,
        "snapshots": len(kept),
        "storage": table.storage,
        "share_of_mtt": share_of_mtt(
            len(kept), table.storage, sum(counts) // len(counts), table.count
        ),
    }


def committee_file(recipe: Recipe, shape: DataShape) -> int:
    """Bytes of committee.h5; 0 without a committee."""
    if recipe.committee is None:
        return 0
    states = [meta_network(spec, shape).state_dict() for spec in recipe.committee.members]
    tensors = [tensor for state in states for tensor in state.values()]
    return sum(t.nbytes + _TENSOR_BYTES for t in tensors) + _FILE_BYTES


def label_bytes(recipe: Recipe, shape: DataShape) -> dict[str, int]:
    """Bytes of each label source that is stored, as arrays: hard, learned and votes."""
    synthetic = synthetic_shape(recipe, shape)
    sizes = {
        "hard": synthetic.stored * smallest_unsigned(shape.classes).itemsize,
        "learned": 0,
    }
    if recipe.keeps_labels:
        own: int | None = getattr(recipe.maker, "label_bytes", None)
        sizes["learned"] = synthetic.seen * shape.classes * 4 if own is None else own
    if recipe.relabel is not None:
        sizes["votes"] = vote_bytes(recipe.relabel, synthetic.seen, shape.classes)
    return sizes


def image_bytes(recipe: Recipe, shape: DataShape) -> dict[str, int]:
    """Bytes of the synthetic images, and of the whitening matrices that go with them.

    Within a budget images take what labels and matrices leave of it, and at most float32; what a
    coding takes without a budget is not known before, so float32 stands for it.
    """
    pixels = shape.pixels
    whitening = 4 * (pixels + 2 * pixels**2) if recipe.data.zca else 0
    images = 4 * pixels * synthetic_shape(recipe, shape).stored
    budget = recipe.budget_bytes
    if budget is not None:
        labels = label_bytes(recipe, shape)["learned"] + label_network_bytes(recipe, shape)
        images = max(0, min(images, budget - whitening - labels))
    return {"images": images, "preprocess": whitening}


def set_file(recipe: Recipe, shape: DataShape) -> int:
    """Bytes of set.h5 after the whole run."""
    arrays = sum(image_bytes(recipe, shape).values()) + sum(label_bytes(recipe, shape).values())
    # The original images are stored beside the refined ones.
    arrays += (
        0 if recipe.refine is None else 4 * shape.pixels * synthetic_shape(recipe, shape).stored
    )
    attributes = len(json.dumps(recipe.model_dump(mode="json")))
    students = len(recipe.evaluate.students) if recipe.evaluate else 0
    return arrays + _SET_BYTES + attributes + _MEASURED_BYTES * (1 + students)
