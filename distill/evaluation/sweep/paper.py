"""Label bytes of a distilled ImageNet-1K by the codecs' formulas; no label is made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distill.errors import RecipeError
from distill.recipes.build import build_codec
from distill.recipes.specs import CodecSpec, parse_codec
from distill.store.hdf5 import smallest_unsigned
from projectors.codecs import CodecError, LabelSpec, Pruned, encoded_bytes

CLASSES, EPOCHS, BATCH = 1000, 300, 100

IPCS = (10, 50, 200)

# Crop (4 numbers) and flip of every view in half precision, as FKD stores them.
_VIEW_NUMBERS = 5

_RESNET18_WEIGHTS = 11_689_512

PAPER_CODECS = (
    "full-fp16",
    "dense:dtype=int8",
    "topk:k=5",
    "topk:k=10",
    "two-scalars",
    "top1",
    "low-rank:rank=64",
    "lpld:ratio=0.9",
    "lpld:ratio=0.975",
    "lpqld:ratio=0.9:k=125",
    "lpqld:ratio=0.9:k=62",
    "lpqld:ratio=0.9:k=25",
    "seed+pruned:ratio=0.9+topk:k=5",
    "seed+pruned:ratio=0.975+topk:k=5",
    "seed+roots",
    "teacher:bits=8",
    "teacher:bits=4",
)


def paper_table(codecs: Sequence[str] = PAPER_CODECS) -> list[dict[str, Any]]:
    """Bytes of each codec for ImageNet-1K at 10, 50 and 200 images per class, 300 label epochs.

    `labels` is None where the labels themselves decide; a teacher is one ResNet-18, counted before
    entropy coding.

    Raises:
        RecipeError: for a codec that does not exist or does not fit.
    """
    return [_row(parse_codec(codec), ipc) for codec in codecs for ipc in IPCS]


def _row(spec: CodecSpec, ipc: int) -> dict[str, Any]:
    shape = LabelSpec(EPOCHS, ipc * CLASSES, CLASSES)
    labels, views = _network_bytes(spec), 8
    if "network" not in spec.parts:
        labels, views = _label_bytes(spec, shape)
    full = shape.labels * CLASSES * 2
    return {
        "codec": spec.text,
        "ipc": ipc,
        "labels": labels,
        "views": views,
        "ratio": None if labels is None else full / labels,
    }


def _network_bytes(spec: CodecSpec) -> int | None:
    part = spec.parts.get("network")
    if part is None or part.entry.name != "teacher" or "labels" in spec.parts:
        return None
    return _RESNET18_WEIGHTS * int(part.options["bits"]) // 8


def _label_bytes(spec: CodecSpec, shape: LabelSpec) -> tuple[int | None, int]:
    codec = build_codec(spec, BATCH)
    kept = codec.pool.spec(shape).labels if isinstance(codec, Pruned) else shape.labels
    index = smallest_unsigned(shape.images).itemsize
    views = 40 if spec.seeded else kept * (index + 2 * _VIEW_NUMBERS)
    try:
        if codec.body_bytes(shape) is None:
            return None, views
        return encoded_bytes(codec, shape), views
    except CodecError as error:
        raise RecipeError(f"codec {spec.text}: {error}") from None
