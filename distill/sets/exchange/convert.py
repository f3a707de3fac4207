"""Convert an imported set to set.h5: its space, classes and learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.data import AnyPreprocess, Preprocess, RealData, ZCAPreprocess, fit_preprocess, fit_zca
from distill.data.splits import check_class_names
from distill.errors import RecipeError, WorkError, suggestion
from distill.recipes.build import build_data, with_augmentation
from distill.recipes.loading import check_recipe
from distill.recipes.schema import Recipe
from distill.sets.exchange.batch_labels import in_set_order, read_batch_labels
from distill.sets.exchange.classes import are_digits, match_classes, shown_names
from distill.sets.exchange.import_layouts import ImportedSet
from distill.sets.exchange.labels import Labels, read_labels
from distill.sets.exchange.published import STATISTICS
from distill.sets.exchange.spaces import RANGES, pixels_of, space_of
from distill.sets.set_file import SetFile
from distill.store.files import digest_json
from synth.committee.relabel import StoredVotes
from synth.formation import decode_labels


@dataclass(frozen=True)
class ImportOptions:
    """What the imported files do not state.

    Attributes:
        data: source of the real images that the set was made from, "" if not available.
        size: of the real images, as in recipes.
        channels: of the real images, as in recipes.
        network: spec of the student that the set was made with.
        space: of the images, where it differs from the layout's usual one: that of `spaces.Space`.
        labels: what the labels' numbers mean, one of `labels.FORMS`; "" for what they tell.
        statistics: a name of `STATISTICS`, "data" for those of the real images, or "".
        class_names: in the order of the labels; empty for those of the files or the data.
        student_lr: the students' learning rate, where the files hold none.
        factor: each stored image is a grid of factor x factor images (IDC).
        augmentation: families that students of the set are trained under, joined by "_", or
            "none"; "" for the usual ones, without flips for digits.
        soft_labels: folder of SRe2L's labels by batches, which belong to a folder of pictures.
        temperature: at which students match those.
    """

    data: str = ""
    size: int | None = None
    channels: int | None = None
    network: str = "convnet3"
    space: str = ""
    labels: str = ""
    statistics: str = ""
    class_names: tuple[str, ...] = ()
    student_lr: float = 0.01
    factor: int = 1
    augmentation: str = ""
    soft_labels: Path | None = None
    temperature: float = 20.0


@dataclass(frozen=True)
class Converted:
    """A set in this package's form.

    Attributes:
        content: the set.
        notes: sentences on what was found out about the files that they do not state.
    """

    content: SetFile
    notes: tuple[str, ...]


def convert(imported: ImportedSet, options: ImportOptions, layout: str, path: Path) -> Converted:
    """Convert an imported set.

    With the real data, images are brought into their space and labels to their classes, so that
    `distill evaluate` can evaluate the set; else they stay as they are, which the set describes.

    Args:
        imported: what the files hold.
        options: what they do not state.
        layout: its name, for the set's provenance.
        path: where it was, for messages and the provenance.

    Raises:
        RecipeError: if it must be asked for what the numbers mean, or statistics are unknown.
        WorkError: if the set and the real data do not fit together.
    """
    labels = read_labels(imported.labels, path, options.labels, imported.signed)
    space, space_note = space_of(imported.images, path, options.space, imported.space)
    names = options.class_names or imported.class_names
    recipe = _recipe(imported, options, space, len(names) if names else labels.count)
    data = build_data(recipe.data) if options.data else None
    classes = _match(labels, names, data, path, len(imported.images))
    recipe, augmentation_note = _with_augmentation(recipe, options, classes.names)
    hard = classes.places[labels.classes()]
    preprocess, images = _in_set_space(imported.images, space, options, data)
    order = torch.argsort(hard, stable=True)
    learned = None if labels.soft is None else classes.columns(labels.soft)[order]
    content = SetFile(
        images=images[order].contiguous(),
        hard=hard[order],
        learned=None if learned is None else decode_labels(learned, options.factor),
        votes=_votes(options, images, classes, order),
        manifest={
            **_stated(recipe, options),
            "class_names": list(classes.names),
            "preprocess": preprocess.to_dict() if isinstance(preprocess, Preprocess) else "zca",
            "student_lr": float(imported.student_lr or options.student_lr),
            "source": {
                "name": options.data,
                "digest": data.digest if data is not None else "",
                "imported": {"layout": layout, "file": path.name},
            },
        },
        whitening=preprocess.whitening if isinstance(preprocess, ZCAPreprocess) else None,
    )
    notes = (
        "" if labels.soft is None else f"labels are taken as {labels.form}",
        imported.note if space == "zca" and not options.space else space_note,
        classes.note,
        augmentation_note,
        _counts_note(content),
    )
    return Converted(content, tuple(filter(None, notes)))


def _stated(recipe: Recipe, options: ImportOptions) -> dict[str, Any]:
    """The attributes of a set that its recipe and options state."""
    resolved = recipe.model_dump(mode="json")
    return {
        "augmentation": recipe.data.augmentation,
        "network": options.network,
        "seed": recipe.seed,
        "recipe": resolved,
        "recipe_digest": digest_json(resolved),
        "factor": options.factor,
    }


def _votes(
    options: ImportOptions, images: Tensor, classes: _Classes, order: Tensor
) -> StoredVotes | None:
    """Soft labels by batches, if they are given, for images that are put into another order."""
    if options.soft_labels is None:
        return None
    columns = classes.places.argsort()
    votes = read_batch_labels(options.soft_labels, images.shape, columns, options.temperature)
    return in_set_order(votes, order)


def _recipe(imported: ImportedSet, options: ImportOptions, space: str, classes: int) -> Recipe:
    """What `distill evaluate` needs to evaluate the set."""
    ipc = max(1, len(imported.images) // classes)
    return named_recipe(options, whitened=space == "zca", ipc=ipc)


def named_recipe(options: ImportOptions, *, whitened: bool, ipc: int = 1) -> Recipe:
    """The recipe of the data, network and images per class that an import names."""
    return check_recipe(
        {
            "name": "imported",
            "data": {
                "source": options.data or "unknown",
                "size": options.size,
                "channels": options.channels,
                "zca": whitened,
            },
            "experts": {"network": options.network},
            "match": {"ipc": ipc, "factor": options.factor},
        },
        "import",
    )


def _with_augmentation(
    recipe: Recipe, options: ImportOptions, names: Sequence[str]
) -> tuple[Recipe, str]:
    """The recipe with the views that students of the set see, and what to say about them.

    Raises:
        RecipeError: for a family that is not known.
    """
    augmentation, note = options.augmentation, ""
    if not augmentation and are_digits(names, options.data):
        families = [family for family in recipe.data.augmentation.split("_") if family != "flip"]
        augmentation = "_".join(families)
        note = "the classes are digits: students see no mirrored ones; see --augmentation"
    return (with_augmentation(recipe, augmentation) if augmentation else recipe), note


@dataclass(frozen=True)
class _Classes:
    """The classes of the converted set.

    Attributes:
        names: of all of them: those of the real data, if these are there.
        places: int64 [c], which of them each class of the labels is.
        note: on how they were matched.
    """

    names: tuple[str, ...]
    places: Tensor
    note: str = ""

    def columns(self, soft: Tensor) -> Tensor:
        """Label logits [n, k] in the order of the names."""
        return soft[:, self.places.argsort()]


def _match(
    labels: Labels, names: tuple[str, ...] | None, data: RealData | None, path: Path, images: int
) -> _Classes:
    """Which class of the real data, if any, each class of the labels is."""
    count = labels.count
    if names is None:
        if labels.soft is None and data is None and count > images:
            # Also bounds the list of names by the file.
            raise WorkError(
                f"the set has label {count - 1}, but only {images} images; number the classes from "
                "0 without gaps, or give --class-names"
            )
        known = data.class_names if data is not None else tuple(map(str, range(count)))
        _check_count(labels, len(known), data)
        return _Classes(known, torch.arange(len(known)))
    check_class_names(names)
    if data is None:
        _check_count(labels, len(names), None)
        return _Classes(names, torch.arange(len(names)))
    if labels.soft is not None or count > len(names) or len(names) > data.classes:
        _check_count(labels, len(names), data)
    places = match_classes(names, data.class_names)
    if places is None:
        raise WorkError(
            f"{path}: the classes {shown_names(names)} are not evidently those of the data, "
            f"{shown_names(data.class_names)}; give --class-names, the data's names in the order "
            "of the set's classes"
        )
    matched = [data.class_names[place] for place in places]
    note = ""
    if list(names) != matched:
        note = f"classes are matched as {names[0]}: {matched[0]}, {names[-1]}: {matched[-1]}"
    return _Classes(data.class_names, torch.tensor(places), note)


def _check_count(labels: Labels, names: int, data: RealData | None) -> None:
    count = labels.count
    fits = count == names if labels.soft is not None else count <= names
    if fits and (data is None or names == data.classes):
        return
    there = "" if data is None else f", the real data {data.classes}"
    raise WorkError(
        f"the set has {count} classes{there}, but there are {names} class names; give "
        "--class-names for all of them, or the data that the set was made from"
    )


def _counts_note(content: SetFile) -> str:
    """Classes that have fewer images than others, or none."""
    names = content.manifest["class_names"]
    counts = content.hard.bincount(minlength=len(names))
    missing = [name for name, count in zip(names, counts.tolist(), strict=True) if not count]
    if missing:
        return f"{len(missing)} of the {len(names)} classes have no image: {shown_names(missing)}"
    low, high = int(counts.min()), int(counts.max())
    return "" if low == high else f"classes have from {low} to {high} images"


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
        return (target := fit_zca(data.train.images)), target(whole.inverse(images.float()))
    target_plain = fit_preprocess(data.train.images)
    if space in RANGES:
        return target_plain, target_plain(pixels_of(images, space))
    return target_plain, target_plain(_statistics(images, options, data).inverse(images.float()))


def _own_space(images: Tensor, space: str, options: ImportOptions) -> tuple[AnyPreprocess, Tensor]:
    channels = images.shape[1]
    if space == "zca":
        raise RecipeError(
            "the images are whitened, which only the real data can undo; add --data, or --space "
            "normalised|pixels if they are not"
        )
    if space in RANGES:
        return Preprocess((0.0,) * channels, (1.0,) * channels), pixels_of(images, space)
    return _statistics(images, options, None), images.float()


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
