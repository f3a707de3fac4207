"""Features along the experts: the values features and both of match.objective, and their cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from distill.recipes.build import build_views
from distill.recipes.tables.match import MatchTable
from distill.run.context import Context
from distill.run.dry_run import Cost, run_dry
from distill.stages.units.networks import Units
from distill.stages.units.shapes import synthetic_shape
from distill.stages.units.unit import Unit, fixed_generator
from synth.images import images_at
from synth.matching.features import FeatureChoice, FeatureSampler, FeatureTerm, feature_gradient
from synth.matching.inner_loop import make_inner_loop
from synth.matching.start import class_labels
from synth.parameters import parameter_vector


def feature_term(context: Context, table: MatchTable) -> FeatureTerm | None:
    """The term beside the parameter distance, or in its place; None where features do not count."""
    if not table.reads_features:
        return None
    real, _ = context.split("train")

    def read(places: Tensor) -> Tensor:
        return images_at(real, places).to(context.device)

    return FeatureTerm(
        read, table.feature_weight, table.later_weight, alone=not table.matches_parameters
    )


def feature_sampler(context: Context, table: MatchTable, count: int) -> FeatureSampler | None:
    """Draws whose features are compared; None where none are.

    Args:
        context: of a run.
        table: [match] of its recipe.
        count: images of the set as students see them.
    """
    if not table.reads_features:
        return None
    _, labels = context.split("train")
    hard, own = labels.cpu(), class_labels(context.classes, count // context.classes)
    return FeatureSampler(
        [torch.nonzero(hard == label).flatten() for label in range(context.classes)],
        [torch.nonzero(own == label).flatten() for label in range(context.classes)],
        table.real_batch,
        build_views(context.recipe.data.augmentation, one_per_batch=True),
    )


def class_images(units: Units, table: MatchTable) -> tuple[int, int]:
    """Real images of a class that a step reads, and images of the class in the set."""
    shape = units.shape
    seen = synthetic_shape(units.recipe, shape).seen
    return min(table.real_batch, -(-shape.train // shape.classes)), seen // shape.classes


def feature_step(units: Units, table: MatchTable, spec: str) -> Unit:
    """Features of one class at a snapshot of a network, with their gradient."""
    real, own = class_images(units, table)
    families = units.recipe.data.augmentation
    views = build_views(families, one_per_batch=True)

    def call(size: int, images: Tensor, labels: Tensor, meta: bool) -> Callable[[], None]:
        mine = max(1, size * own // (real + own))
        network = units.meta(spec) if meta else units.network(spec)
        start, generator = parameter_vector(network), fixed_generator()
        batches = [torch.arange(mine)]

        def work() -> None:
            drawn = None if views is None else [views.sample(1, units.shape.size, generator)]
            choice = FeatureChoice([torch.arange(max(1, size - mine))], batches, drawn)
            term = FeatureTerm(lambda places: images[mine : mine + len(places)])
            loop = make_inner_loop(network, images[:mine], labels[:mine], batches, choice.own_views)
            feature_gradient(loop, start, start, term.real(choice), table.later_weight)

        return work

    def work(size: int) -> tuple[Callable[[], object], int]:
        return call(size, units.images(size + 1), units.labels(size + 1), meta=False), 1

    def cost(size: int) -> Cost:
        images, labels = units.meta_batch(size + 1)
        found = run_dry(call(size, images, labels, meta=True))
        # The set and its gradient, and the two snapshots.
        kept = 4 * (2 * own * units.shape.classes * units.shape.pixels + 2 * units.size([spec]))
        return replace(found, peak_bytes=found.peak_bytes + kept)

    return Unit(f"feature step of {spec}, {families}", real + own, work, cost, units.size([spec]))
