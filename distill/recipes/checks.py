"""What a recipe asks for is checked before any work starts: names first, then against the data."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib.util import find_spec

import torch
from torch import nn

from distill.data import DataError, RealData, require_per_class
from distill.errors import RecipeError, WorkError
from distill.machine import available_bytes
from distill.recipes.build import build_data, build_network, build_views, one_line
from distill.recipes.early import augmentations, check_specs, specs_of
from distill.recipes.schema import Recipe
from distill.recipes.specs import find_network
from synth.committee.features import watch_head
from synth.formation import SMALLEST_CELL
from synth.recovery import running_statistics
from synth.whitening import LARGEST, whitening_bytes


def check_names(recipe: Recipe, *, only: Collection[str] | None = None) -> None:
    """Raise RecipeError for a network, augmentation or teacher that does not exist.

    Args:
        recipe: to be checked.
        only: of its networks, check those that these tables name; None for all. What a set was
            made with need not be at hand to evaluate it, or to label it anew.
    """
    check_specs(recipe, only)
    for families in augmentations(recipe):
        build_views(families, one_per_batch=False)


def missing_packages(recipe: Recipe, stages: Collection[str]) -> list[str]:
    """What stages of a recipe need and this machine lacks, a sentence for each package.

    Args:
        recipe: that is to run.
        stages: names of those that are still to be done.
    """
    needed: dict[str, tuple[str, str, str]] = {}
    if "relabel" in stages and recipe.relabel is not None:
        for method in {"glad", "mace"}.intersection(recipe.relabel.aggregate):
            needed["crowdkit"] = (f"relabel.aggregate = {method}", "crowd-kit", "crowd")
    table = recipe.projector
    if "project" in stages and table is not None and table.storage != "float32":
        key = f"projector.storage = {table.storage}"
        needed[table.coder] = (key, table.coder, "compact")
    return [
        f"{key} needs {package}, which is not installed: pip install 'limbeck[{extra}]', or change "
        "that key"
        for module, (key, package, extra) in needed.items()
        if find_spec(module) is None
    ]


def check_data(recipe: Recipe) -> RealData:
    """Load a recipe's data; raises RecipeError where the recipe does not fit them.

    Raises:
        RecipeError: for an unknown source, a single class, more images per class than there are,
            or a network that cannot take these images.
        WorkError: if the data are missing or wrong.
    """
    data = build_data(recipe.data)
    if data.classes < 2:
        raise WorkError(
            f"data {recipe.data.source} has one class, {data.class_names[0]!r}, at least two are "
            "needed; name the folder that holds the folders of classes, or add a class"
        )
    name = recipe.maker_name
    try:
        require_per_class(data.train, recipe.maker.real_per_class, data.class_names)
    except DataError as error:
        raise RecipeError(f"{name}.ipc: {error}") from None
    side = min(data.size) // recipe.maker.tiles
    if side < SMALLEST_CELL:
        raise RecipeError(
            f"{name}.factor cuts images of {data.size[0]}x{data.size[1]} into tiles of {side} "
            f"pixels a side, which need at least {SMALLEST_CELL}; lower the factor"
        )
    _check_measured(recipe, data)
    check_networks(recipe, data)
    if recipe.data.zca:
        _check_whitening(data)
    return data


def _check_whitening(data: RealData) -> None:
    """Raise RecipeError for images so large that their whitening matrices would not fit."""
    height, width = data.size
    values = data.channels * height * width
    needed, available = whitening_bytes(values), available_bytes()
    if values > LARGEST or (available is not None and needed > available):
        free = "" if available is None else f", {available / 1e9:.1f} GB are free"
        raise RecipeError(
            f"data.zca: images of {data.channels}x{height}x{width} have {values:,} values, and "
            f"whitening with {values:,} x {values:,} matrices takes {needed / 1e9:.1f} GB{free}, "
            f"at most {LARGEST:,} values are whitened; set a smaller data.size, or data.zca = false"
        )


def _check_measured(recipe: Recipe, data: RealData) -> None:
    """A measured vote trains its students on real images, of which there must be enough."""
    if recipe.committee is None or recipe.committee.vote != "measured":
        return
    try:
        require_per_class(data.train, recipe.committee.measure_ipc, data.class_names)
    except DataError as error:
        raise RecipeError(f"committee.measure_ipc: {error}") from None


def check_networks(recipe: Recipe, data: RealData, *, only: Collection[str] | None = None) -> None:
    """Raise RecipeError for a network that cannot be built for these images.

    Args:
        recipe: whose networks are built.
        data: of the images.
        only: see `check_names`.
    """
    # On the meta device, where weights have shapes and no memory.
    with torch.device("meta"):
        built = {
            spec: build_network(spec, data.channels, data.size, data.classes, 0)
            for spec in specs_of(recipe, only)
        }
    for spec in built:
        if find_network(spec).own:
            _check_own(spec, data)
    muon = recipe.evaluate is not None and recipe.evaluate.soft_optimizer == "muon"
    if muon and not hasattr(torch.optim, "Muon"):
        raise RecipeError(
            f"evaluate.soft_optimizer is muon, which PyTorch has from 2.9 on, and this is "
            f"{torch.__version__}; install a newer one, or choose adamw"
        )
    if only is not None:
        return
    _check_heads(recipe, built, data)
    if recipe.recover is not None and recipe.recover.reads_norms and recipe.committee:
        for spec in recipe.recover.members or recipe.committee.members:
            try:
                running_statistics(built[spec])
            except ValueError as error:
                raise RecipeError(f"recover.bn_weight, member {spec}: {error}") from None


def _check_heads(recipe: Recipe, built: Mapping[str, nn.Module], data: RealData) -> None:
    """Raise RecipeError for experts whose features cannot be compared."""
    if recipe.match is None or recipe.experts is None or not recipe.match.reads_features:
        return
    for spec in recipe.experts.all_networks:
        try:
            with watch_head(built[spec]), torch.device("meta"):
                built[spec](torch.empty(2, data.channels, *data.size))
        except ValueError as error:
            raise RecipeError(f"match.objective, network {spec}: {error}") from None


def _check_own(spec: str, data: RealData) -> None:
    """Raise RecipeError for a user's own network that gives no logits for two of these images."""
    network = build_network(spec, data.channels, data.size, data.classes, 0).eval()
    images = data.train.images[:2]
    try:
        with torch.no_grad():
            logits = network(images)
    except Exception as error:  # noqa: BLE001 - a user's own code may raise anything
        raise RecipeError(
            f"network {spec} called with images {tuple(images.shape)}: {one_line(error)}; make it "
            "take them"
        ) from None
    wanted, found = (len(images), data.classes), type(logits).__name__
    if isinstance(logits, torch.Tensor):
        found = f"a tensor {tuple(logits.shape)}"
        if tuple(logits.shape) == wanted and bool(logits.isfinite().all()):
            return
        if tuple(logits.shape) == wanted:
            found = "values that are not finite"
    raise RecipeError(
        f"network {spec} gives {found} for images {tuple(images.shape)}, but finite logits "
        f"{wanted} are needed, one for each class"
    )
