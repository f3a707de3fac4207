"""Convert an imported set to set.h5: its space, classes and learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from distill.data import AnyPreprocess, Preprocess, RealData, ZCAPreprocess, fit_preprocess, fit_zca
from distill.errors import RecipeError, WorkError, suggestion
from distill.recipes.build import build_data
from distill.recipes.loading import check_recipe
from distill.recipes.schema import Recipe
from distill.sets.exchange.import_layouts import ImportedSet
from distill.sets.exchange.published import STATISTICS
from distill.sets.set_file import SetFile
from distill.store.files import digest_json
from synth.formation import decode_labels


@dataclass(frozen=True)
class ImportOptions:
    """What the imported files do not state.

    Attributes:
        data: source of the real images that the set was made from, "" if not available.
        size: of the real images, as in recipes.
        channels: of the real images, as in recipes.
        network: spec of the student that the set was made with.
        space: of the images, where it differs from the layout's usual one.
        statistics: a name of `STATISTICS`, "data" for those of the real images, or "".
        class_names: in the order of the labels; empty for those of the files or the data.
        student_lr: the students' learning rate, where the files hold none.
        factor: each stored image is a grid of factor x factor images (IDC).
    """

    data: str = ""
    size: int | None = None
    channels: int | None = None
    network: str = "convnet3"
    space: str = ""
    statistics: str = ""
    class_names: tuple[str, ...] = ()
    student_lr: float = 0.01
    factor: int = 1


def convert(imported: ImportedSet, options: ImportOptions, layout: str, path: Path) -> SetFile:
    """Convert an imported set.

    With the real data, images are brought into their space, so that `distill evaluate` can
    evaluate the set; else they stay in their own, which the set describes.

    Args:
        imported: what the files hold.
        options: what they do not state.
        layout: its name, for the set's provenance.
        path: where it was, for messages and the provenance.

    Raises:
        RecipeError: if statistics are unknown or missing.
        WorkError: if the set and the real data do not fit together.
    """
    space = options.space or imported.space
    names = options.class_names or imported.class_names
    recipe = _recipe(imported, options, space, names)
    data = build_data(recipe.data) if options.data else None
    class_names = _class_names(imported, options, data)
    hard = _hard(imported, class_names, data)
    preprocess, images = _in_set_space(imported.images, space, options, data)
    order = torch.argsort(hard, stable=True)
    learned = None if imported.soft is None else imported.soft[order]
    if learned is not None and len(learned) == len(order):
        learned = decode_labels(learned, options.factor)
    resolved = recipe.model_dump(mode="json")
    return SetFile(
        images=images[order].contiguous(),
        hard=hard[order],
        learned=learned,
        manifest={
            "class_names": list(class_names),
            "preprocess": preprocess.to_dict() if isinstance(preprocess, Preprocess) else "zca",
            "student_lr": float(imported.student_lr or options.student_lr),
            "augmentation": recipe.data.augmentation,
            "network": options.network,
            "seed": recipe.seed,
            "recipe": resolved,
            "recipe_digest": digest_json(resolved),
            "source": {
                "name": options.data,
                "digest": data.digest if data is not None else "",
                "imported": {"layout": layout, "file": path.name},
            },
            "factor": options.factor,
        },
        whitening=preprocess.whitening if isinstance(preprocess, ZCAPreprocess) else None,
    )


def _recipe(
    imported: ImportedSet, options: ImportOptions, space: str, names: Sequence[str] | None
) -> Recipe:
    """What `distill evaluate` needs to evaluate the set."""
    classes = len(names) if names else _count_classes(imported)
    return check_recipe(
        {
            "name": "imported",
            "data": {
                "source": options.data or "unknown",
                "size": options.size,
                "channels": options.channels,
                "zca": space == "zca",
            },
            "experts": {"network": options.network},
            "match": {"ipc": max(1, len(imported.images) // classes), "factor": options.factor},
        },
        "import",
    )


def _count_classes(imported: ImportedSet) -> int:
    if imported.soft is not None:
        return int(imported.soft.shape[1])
    return 1 if imported.hard is None else int(imported.hard.max()) + 1


def _class_names(
    imported: ImportedSet, options: ImportOptions, data: RealData | None
) -> tuple[str, ...]:
    count = _count_classes(imported)
    names = options.class_names
    if not names and data is not None:
        names = data.class_names
    if not names and not imported.class_names and imported.soft is None:
        # Also bounds the list of names by the file.
        _check_gaps(count, len(imported.images))
    if not names:
        names = imported.class_names or tuple(str(label) for label in range(count))
    too_few = count > len(names) or (imported.soft is not None and count != len(names))
    if too_few or (data is not None and len(names) != data.classes):
        there = "" if data is None else f", the real data {data.classes}"
        raise WorkError(
            f"the set has {count} classes{there}, but there are {len(names)} class names; give "
            "--class-names for all of them, or the data that the set was made from"
        )
    return names


def _check_gaps(count: int, images: int) -> None:
    if count > images:
        raise WorkError(
            f"the set has label {count - 1}, but only {images} images; number the classes from 0 "
            "without gaps, or give --class-names"
        )


def _hard(imported: ImportedSet, names: tuple[str, ...], data: RealData | None) -> Tensor:
    """Classes by number; folders that are named like the data's classes are matched by name."""
    if imported.hard is None:
        return _classes_of_logits(imported)
    own = imported.class_names
    if data is None or own is None or set(own) - set(names):
        return imported.hard
    return torch.tensor([names.index(own[int(label)]) for label in imported.hard])


def _classes_of_logits(imported: ImportedSet) -> Tensor:
    """The argmax classes, or equal blocks as in DATM where those are unbalanced."""
    if imported.soft is None:
        raise WorkError("the set has neither classes nor soft labels; one of them is needed")
    n, classes = imported.soft.shape
    likeliest = imported.soft.argmax(dim=1)
    if n % classes or bool((likeliest.bincount(minlength=classes) == n // classes).all()):
        return likeliest
    return torch.arange(classes).repeat_interleave(n // classes)


def _in_set_space(
    images: Tensor, space: str, options: ImportOptions, data: RealData | None
) -> tuple[AnyPreprocess, Tensor]:
    """The set's preprocessing, and its images in that space."""
    if data is None:
        return _own_space(images, space, options)
    if tuple(images.shape[1:]) != (data.channels, *data.size):
        raise WorkError(
            f"the set's images are {tuple(images.shape[1:])}, those of {options.data} "
            f"{(data.channels, *data.size)}; set --size and --channels, or name other data"
        )
    if space == "zca":
        # Public code whitens with all training images, including those held out here.
        whole = fit_zca(data.train.images, data.validation.images)
        return (target := fit_zca(data.train.images)), target(whole.inverse(images))
    target_plain = fit_preprocess(data.train.images)
    pixels = images if space == "pixels" else _statistics(images, options, data).inverse(images)
    return target_plain, target_plain(pixels)


def _own_space(images: Tensor, space: str, options: ImportOptions) -> tuple[AnyPreprocess, Tensor]:
    channels = images.shape[1]
    if space == "zca":
        raise RecipeError(
            "the images are whitened, which only the real data can undo; add --data, or --space "
            "normalised|pixels if they are not"
        )
    if space == "pixels":
        return Preprocess((0.0,) * channels, (1.0,) * channels), images
    return _statistics(images, options, None), images


def _statistics(images: Tensor, options: ImportOptions, data: RealData | None) -> Preprocess:
    """The channel statistics that the images were normalised with."""
    name = options.statistics or _guess(options.data)
    if name == "data" and data is not None:
        return fit_preprocess(data.train.images, data.validation.images)
    if not name or name not in STATISTICS:
        known = ["data", *STATISTICS]
        came = (
            f"there are no statistics {name}; {suggestion(name, known)}"
            if name
            else (
                f"the images are normalised, but with what is not known; give --statistics, one of "
                f"{', '.join(known)} (data: those of --data)"
            )
        )
        raise RecipeError(came)
    preprocess = STATISTICS[name]
    if len(preprocess.mean) != images.shape[1]:
        raise RecipeError(
            f"statistics {name} are for {len(preprocess.mean)} channels, the images have "
            f"{images.shape[1]}; give --statistics for these images"
        )
    return preprocess


def _guess(source: str) -> str:
    """`torchvision:CIFAR10` and `fashion-mnist` have published statistics."""
    name = source.partition(":")[2] if source.startswith("torchvision:") else source
    name = name.partition("@")[0].partition(":")[0].lower()
    return {"fashionmnist": "fashion-mnist"}.get(name, name if name in STATISTICS else "")
