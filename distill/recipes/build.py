"""Builds what a recipe names, as the algorithms take it: modules, generators and settings."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

import projectors
from distill.data import DataError, RealData, SourceError, load_data
from distill.data.places import source_at, source_near
from distill.errors import LimbeckError, RecipeError, WorkError
from distill.names import (
    GRADIENTS,
    CodecEntry,
    NetworkEntry,
    OptionValue,
    arguments,
    resolve,
    sign_of,
    spelt_families,
)
from distill.recipes.schema import Recipe
from distill.recipes.specs import CodecSpec, find_network, parse_coding, parse_network
from distill.recipes.tables.data import DataTable
from distill.recipes.tables.match import MatchTable
from distill.recipes.tables.projector import ProjectorTable
from distill.recipes.tables.relabel import RelabelTable
from projectors.codecs import CodecError, LabelCodec, register
from synth.augment import Augmentation, parse_families
from synth.coding import CodingError, Frequency, ImageCoding, Shape
from synth.matching.gradients import GradientMethod
from synth.updates import Momentum, UpdateRule, adam


def seed_of(seed: int, *keys: int | str) -> int:
    """A seed for one purpose, from the run's seed and what it is for."""
    text = "/".join(str(key) for key in (seed, *keys))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


def generator_for(seed: int, *keys: int | str) -> Generator:
    """A CPU generator for one purpose, the same for the same seed and keys."""
    return torch.Generator().manual_seed(seed_of(seed, *keys))


def build_network(
    spec: str, channels: int, size: tuple[int, int], classes: int, seed: int
) -> nn.Module:
    """The network of a spec, with weights drawn from `seed`; the global generator is untouched.

    Raises:
        RecipeError: for an unknown network, option or value.
    """
    entry, options = parse_network(spec)
    if entry.own:
        return _build_own(entry, options, (channels, size, classes), seed)
    family, device = resolve(entry), torch.get_default_device()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            # A teacher reads its weights, so it cannot be built on the meta device.
            with torch.device("cpu" if entry.trained else device):
                network: nn.Module = family(channels, size, classes, **options)
        except ValueError as error:
            raise RecipeError(f"network {spec}: {error}") from None
    if entry.package and not isinstance(network, nn.Module):
        raise WorkError(
            f"network {spec} of the package {entry.package} gave a {type(network).__name__}, but a "
            "torch.nn.Module is needed; ask its authors for one"
        )
    return network.to(device) if entry.trained else network


def _build_own(
    entry: NetworkEntry,
    options: Mapping[str, OptionValue],
    shape: tuple[int, tuple[int, int], int],
    seed: int,
) -> nn.Module:
    """A network of a user's own code, which may do anything but give a module that fits.

    Raises:
        RecipeError: if it raises, or gives something else.
    """
    family = resolve(entry)
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(seed)
        try:
            network = family(*shape, **options)
        except LimbeckError:
            raise
        except Exception as error:  # noqa: BLE001 - a user's own code may raise anything
            raise RecipeError(
                f"network {entry.name} called as (channels, size, classes) = {shape}: "
                f"{one_line(error)}; give a class or a function that takes these"
            ) from None
    if not isinstance(network, nn.Module):
        raise RecipeError(
            f"network {entry.name} gave a {type(network).__name__}, but a torch.nn.Module is "
            "needed; return one"
        )
    return network.to(torch.get_default_device())


def one_line(error: BaseException) -> str:
    """The type and the beginning of the message of another's error."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def is_torchvision(spec: str) -> bool:
    """Whether a spec names a model of torchvision, which has published weights."""
    return find_network(spec).name == "torchvision"


def is_trained(spec: str) -> bool:
    """Whether a spec names a teacher, which comes with its weights."""
    return find_network(spec).trained


def build_gradient(table: MatchTable) -> GradientMethod:
    """The gradient method that a recipe names."""
    entry = GRADIENTS[table.gradient]
    method: GradientMethod = resolve(entry)(**arguments(entry, table))
    return method


def build_update(name: str, momentum: float) -> UpdateRule:
    """The outer loop's update rule called "adam" or "sgd" (with this momentum)."""
    rules: dict[str, UpdateRule] = {"adam": adam, "sgd": Momentum(momentum)}
    return rules[name]


def build_views(families: str, *, one_per_batch: bool) -> Augmentation | None:
    """The augmentation of families as a recipe writes them; None for "none".

    Args:
        families: names joined by underscores, or by bars: one of these for each batch.
        one_per_batch: draw one for each batch, even of names that are joined by underscores.

    Raises:
        RecipeError: for an unknown family.
    """
    try:
        names = parse_families(families, sign_of(families))
        if not names:
            return None
        return Augmentation(names, one_per_batch or sign_of(families) == "|")
    except ValueError as error:
        raise RecipeError(f"augmentation {families}: {error}") from None


def with_augmentation(recipe: Recipe, families: str) -> Recipe:
    """The recipe with other views of images whose labels do not depend on the view.

    Raises:
        RecipeError: for an unknown family.
    """
    families = spelt_families(families)
    build_views(families, one_per_batch=True)
    table = recipe.data.model_copy(update={"augmentation": families})
    return recipe.model_copy(update={"data": table})


def build_codec(spec: CodecSpec, batch_size: int) -> LabelCodec:
    """The label codec of a spec, for labels in batches of `batch_size`.

    Raises:
        RecipeError: for an option out of its range.
    """
    labels, pool = spec.parts["labels"], spec.parts.get("pool")
    try:
        codec: LabelCodec = _codec_class(labels.entry)(**labels.options)
        if pool is not None:
            # A pool of batches keeps each of them whole.
            codec = resolve(pool.entry)(codec, batch_size=batch_size, **pool.options)
    except CodecError as error:
        raise RecipeError(f"codec {spec.text}: {error}") from None
    return codec


def _codec_class(entry: CodecEntry) -> Any:
    """The class of a codec; another package's must have the `codec_id` of its name.

    A user's own is registered, so that what it encodes can be decoded.
    """
    codec = resolve(entry)
    if entry.code:
        named = isinstance(getattr(codec, "codec_id", None), str)
        if not (named and isinstance(codec, type) and is_dataclass(codec)):
            raise RecipeError(
                f"codec {entry.name} is a {type(codec).__name__} and no codec; write a dataclass "
                "with a codec_id, as the page on own codecs does"
            )
        return register(codec)
    if entry.package and getattr(codec, "codec_id", None) != entry.name:
        raise WorkError(
            f"the package {entry.package} brings a codec {entry.name}, whose codec_id is "
            f"{getattr(codec, 'codec_id', None)!r}; ask its authors for the same name"
        )
    return codec


def build_coding(spec: str, shape: Shape, groups: int = 1) -> ImageCoding:
    """The way to keep images that a spec names.

    Args:
        spec: e.g. "frequency:step=0.3".
        shape: [n, c, h, w] of the images.
        groups: runs of equal length whose images are alike, such as classes; a divisor of n.

    Raises:
        RecipeError: for an unknown name or option, or one that these images do not allow.
    """
    entry, options = parse_coding(spec)
    family = resolve(entry)
    # Runs of one image have nothing to give to each other.
    if groups < shape[0] and any(field.name == "groups" for field in fields(family)):
        options["groups"] = groups
    try:
        coding: ImageCoding = family(shape, **options)
    except CodingError as error:
        raise RecipeError(f"coding {spec}: {error}") from None
    if isinstance(coding, Frequency) and ":largest=" not in spec:
        coding = coding.reaching()
    return coding


def build_data(table: DataTable) -> RealData:
    """Load the real data that a recipe names.

    Raises:
        RecipeError: for an unknown source.
        WorkError: if the data are missing or wrong.
    """
    try:
        return load_data(table.source, **data_options(table))
    except SourceError as error:
        raise RecipeError(f"data.source: {error}") from None
    except (DataError, OSError) as error:
        raise WorkError(f"data {table.source}: {error}") from None


def data_options(table: DataTable) -> dict[str, Any]:
    """The arguments of `load_data` and `load_splits`, beside the source, that a recipe gives."""
    names = ("size", "channels", "classes", "subset", "validation", "skip_damaged")
    return {name: getattr(table, name) for name in names}


def with_place(recipe: Recipe, place: str | None, near: Path) -> Recipe:
    """The recipe with its data at another place.

    Args:
        recipe: whose data.source may lie elsewhere now.
        place: a path, or a source string; None for where the recipe says, or, if nothing is there,
            where its relative path leads from a folder above `near`, see `source_near`.
        near: the folder of the run.

    Raises:
        RecipeError: for data that have no place.
    """
    try:
        source = (
            source_near(recipe.data.source, near)
            if place is None
            else source_at(recipe.data.source, place)
        )
    except SourceError as error:
        raise RecipeError(f"--data {place}: {error}") from None
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"source": source})})


def choose_device(name: str) -> torch.device:
    """The device called auto, cpu or cuda.

    Raises:
        WorkError: if cuda is asked for and there is none.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise WorkError("--device cuda, but no CUDA device is at hand; use --device cpu or auto")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and available) else "cpu")


ViewFunction = Callable[[Tensor, Generator], Tensor]


def fit_settings(table: ProjectorTable, batch_size: int) -> projectors.FitSettings:
    """The settings of a projector's fit."""
    return projectors.FitSettings(
        steps=table.steps,
        batch_size=batch_size,
        lr=table.lr,
        ce_weight=table.ce_weight,
        loss=table.loss,
        temperature=table.temperature,
    )


def projector_parts(
    table: ProjectorTable, seed: int
) -> tuple[projectors.AdapterSettings, projectors.HeadSettings]:
    """How a recipe's adapters and its head are made."""
    ranks = {str(kind): rank for kind, rank in table.ranks.items() if kind != "head"}
    adapter = projectors.AdapterSettings(table.rank, table.alpha, seed=seed, ranks=ranks)
    head = projectors.HeadSettings(
        templates=tuple(table.templates),
        init=table.head,
        trained=table.trained,
        seed=seed,
        rank=table.head_rank,
    )
    return adapter, head


def student_view(recipe: Recipe) -> ViewFunction | None:
    """The views that a projector is fitted on: its own, or those of [relabel]."""
    table = recipe.projector or ProjectorTable()
    views = relabel_views(recipe.relabel or RelabelTable())
    if table.augmentation is not None:
        chosen = build_views(table.augmentation, one_per_batch=False)
        if chosen is None:
            return None
        views = chosen
    if not views.families:
        return None

    def view(images: Tensor, generator: Generator) -> Tensor:
        size = (images.shape[2], images.shape[3])
        return views.sample(len(images), size, generator).apply(images)

    return view


def relabel_views(table: RelabelTable) -> Augmentation:
    """The augmentation of the labelled views; without families, the images as they are."""
    return build_views(table.augmentation, one_per_batch=False) or Augmentation(())
