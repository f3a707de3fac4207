"""Writes the synthetic set of a run, in the same way for all stages that make one."""

from __future__ import annotations

import torch
from torch import Tensor

from distill.data import MappedImages, Preprocess, ZCAPreprocess
from distill.errors import WorkError
from distill.recipes.tables.evaluate import EvaluateTable
from distill.run.artefacts import SET
from distill.run.context import Context
from distill.sets.additions import code_images
from distill.sets.set_file import SetFile, write_set
from distill.store.files import digest_json
from synth.images import Images
from synth.matching.start import class_labels


def write_synthetic(
    context: Context,
    images: Images,
    *,
    network: str,
    learned: Tensor | None = None,
    student_lr: float | None = None,
    factor: int = 1,
    coded: bytes | None = None,
    coded_labels: bytes | None = None,
) -> None:
    """Write set.h5.

    Args:
        context: of the run.
        images: [n, c, h, w] in class order.
        network: what the set was made with, for people.
        learned: label logits of the images, if they have any.
        student_lr: the learned one; where there is none, that of students with hard labels.
        factor: each stored image decodes to factor^2 images.
        coded: the pixels of the images as `synth.coding.pack_images` keeps them, to be stored in
            place of the images.
        coded_labels: container of `learned`, to be stored in their place.

    Raises:
        WorkError: if an image is not finite.
        CodingError: if `coded` is of other images.
    """
    recipe = context.recipe
    resolved = recipe.model_dump(mode="json")
    preprocess = context.preprocess
    hard_lr = (recipe.evaluate or EvaluateTable.model_construct()).lr
    content = SetFile(
        images=_finite(images),
        hard=class_labels(context.classes, recipe.maker.ipc),
        learned=learned,
        manifest={
            "class_names": list(context.data.class_names),
            "preprocess": preprocess.to_dict() if isinstance(preprocess, Preprocess) else "zca",
            "student_lr": hard_lr if student_lr is None else student_lr,
            "augmentation": recipe.data.augmentation,
            "network": network,
            "seed": recipe.seed,
            "recipe": resolved,
            "recipe_digest": digest_json(resolved),
            "source": {"name": context.data.source, "digest": context.data.digest},
            "factor": factor,
        },
        whitening=preprocess.whitening if isinstance(preprocess, ZCAPreprocess) else None,
        coded_labels=coded_labels,
    )
    content = content if coded is None else code_images(content, coded)
    write_set(context.run.path / SET, content)


def _finite(images: Images) -> Images:
    """The images, checked to be finite: now, or by batches as they are read."""

    def checked(part: Tensor) -> Tensor:
        if not bool(part.isfinite().all()):
            raise WorkError("the synthetic images hold NaN; lower the step size of the images")
        return part

    if isinstance(images, Tensor):
        return checked(images)
    return MappedImages(images, checked, torch.device("cpu"))
