"""A recipe's networks on random images, and the units of work that several stages share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor, nn

import projectors
from distill.recipes.build import build_network, build_views, projector_parts
from distill.recipes.schema import Recipe
from distill.recipes.tables.projector import ProjectorTable
from distill.run.dry_run import Cost, run_dry
from distill.run.load import step_count
from distill.stages.units.shapes import DataShape, meta_network, parameter_count
from distill.stages.units.unit import Part, Unit, Work, fixed_generator
from projectors import Deployed, Projector
from synth.augment import Augmentation
from synth.committee.vote import Committee
from synth.losses import soft_cross_entropy
from synth.training.batches import Batch, shuffled_batches
from synth.training.loop import TrainSettings, train
from synth.training.optimizers import Optimizer, make_optimizer
from synth.training.prediction import predict

# Steps in one call to time.
STEPS = 2

# Repetitions of these in a call on a GPU, where repeated steps are recorded as a graph: the first
# call, which is not timed, has enough of them to be recorded.
_REPEATS_ON_GPU = 10

# What is built once for a recipe's units, see `Units.with_recipe`.
_BUILT = ("committee", "projector", "deployed")

# Images of one batch of predictions.
_PREDICTED = 1000


@dataclass(frozen=True)
class Units:
    """Makes a recipe's units of work from untrained networks and random images.

    Attributes:
        recipe: whose stages are priced.
        shape: of its data.
        device: where the work is done.
    """

    recipe: Recipe
    shape: DataShape
    device: torch.device

    def with_recipe(self, recipe: Recipe) -> Units:
        """The same for a recipe with the same networks; those that are built are shared."""
        other = Units(recipe, self.shape, self.device)
        vars(other).update({name: value for name, value in vars(self).items() if name in _BUILT})
        return other

    def images(self, count: int) -> Tensor:
        """Random images [count, c, h, w] on the device."""
        return torch.randn(count, *self.shape.image, generator=fixed_generator()).to(self.device)

    def labels(self, count: int) -> Tensor:
        """Random label logits [count, k] on the device."""
        return torch.randn(count, self.shape.classes, generator=fixed_generator()).to(self.device)

    def network(self, spec: str) -> nn.Module:
        """A fresh network of a spec, on the device."""
        shape = self.shape
        network = build_network(spec, shape.channels, shape.size, shape.classes, 0)
        return network.to(self.device)

    @property
    def members(self) -> list[str]:
        """The committee's specs."""
        return self.recipe.committee.members if self.recipe.committee else []

    @property
    def listed(self) -> str:
        """The committee in words."""
        return " + ".join(self.members)

    @cached_property
    def committee(self) -> Committee:
        """An untrained committee of the recipe's members."""
        return _committee([self.network(spec) for spec in self.members])

    @cached_property
    def projector(self) -> Projector:
        """An unfitted projector; raises ProjectorError where its tower cannot be loaded."""
        table = self.recipe.projector or ProjectorTable()
        channels = self.shape.channels
        adapter, head = projector_parts(table, 0)
        projector = projectors.build_projector(
            projectors.load_tower(table.tower),
            [f"class {index}" for index in range(self.shape.classes)],
            projectors.Preprocessing((0.5,) * channels, (0.25,) * channels),
            adapter=adapter,
            head=head,
        )
        return projector.to(self.device)

    @cached_property
    def deployed(self) -> Deployed:
        """The same projector as it labels for students, its adapters merged."""
        return Deployed(self.projector)

    @property
    def projector_name(self) -> str:
        """The projector in words."""
        table = self.recipe.projector or ProjectorTable()
        return f"projector {table.tower}, rank {table.rank}"

    def training_step(
        self,
        spec: str,
        batch: int,
        families: str,
        settings: TrainSettings,
        *,
        one_per_batch: bool = False,
    ) -> Unit:
        """One training step of a network, its views included.

        Args:
            spec: of the network.
            batch: images.
            families: of the augmentation.
            settings: those that the stage trains it with; rates and lengths make no difference.
            one_per_batch: whether one family is drawn for each batch (DSA), instead of all.
        """
        views = build_views(families, one_per_batch=one_per_batch)
        # A rate at which random labels do not diverge: only the time counts. A call is one
        # epoch of an endless training.
        endless = replace(settings, epochs=sys.maxsize, lr=1e-6, annealing=None)

        def work(size: int, *, compiled: bool = False) -> tuple[Callable[[], object], int]:
            network, generator = self.network(spec), fixed_generator()
            images, labels = self.images(STEPS * size), self.labels(STEPS * size)

            def batches(epoch: int) -> Iterator[Batch]:
                for _ in range(self.repeats):
                    yield from shuffled_batches(images, labels, size, views, generator)

            epochs = train(network, batches, replace(endless, compiled=compiled))
            return lambda: next(epochs), STEPS * self.repeats

        def dry(size: int) -> None:
            network = self.meta(spec)
            update = _optimizer(network, settings)
            images, labels = self.meta_batch(size)
            for _ in range(2 if settings.sharpness is not None else 1):
                soft_cross_entropy(network(seen_by(views, images)), labels).backward()
            update.step()

        name = f"training step of {spec}, {settings.optimizer}, {families}"
        name += ", sharpness-aware" if settings.sharpness is not None else ""
        name += f", {settings.precision}" if settings.precision != "float32" else ""
        unit = self.unit(name, batch, work, dry, self.size([spec]))
        return replace(unit, compiled=partial(work, compiled=True)) if settings.compiled else unit

    def predictions(self, spec: str, count: int, times: int = 1) -> Part[Unit]:
        """Predictions of a network for `count` images, `times` over."""
        batch = min(count, _PREDICTED)

        def work(size: int) -> tuple[Callable[[], object], int]:
            network, images = self.network(spec).eval(), self.images(size)
            return lambda: predict(network, images), 1

        def dry(size: int) -> None:
            predict(self.meta(spec).eval(), self.meta_batch(size)[0])

        unit = self.unit(f"prediction of {spec}", batch, work, dry, self.size([spec]))
        return Part(times * step_count(count, batch), unit)

    def unit(
        self, what: str, batch: int, work: Work, dry: Callable[[int], object], parameters: int
    ) -> Unit:
        """A unit timed by `work` on the device, whose cost `dry` gives on the meta device."""

        def cost(size: int) -> Cost:
            return run_dry(lambda: dry(size))

        return Unit(what, batch, work, cost, parameters)

    @property
    def repeats(self) -> int:
        """How often a call repeats its steps."""
        return _REPEATS_ON_GPU if self.device.type == "cuda" else 1

    def size(self, specs: list[str]) -> int:
        """Parameters of all networks of `specs`."""
        return sum(parameter_count(self.meta(spec)) for spec in specs)

    def meta(self, spec: str) -> nn.Module:
        """A network on the meta device."""
        return meta_network(spec, self.shape)

    def meta_batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Images [size, c, h, w] and label logits [size, k] on the meta device."""
        images = torch.empty(size, *self.shape.image, device="meta")
        return images, torch.empty(size, self.shape.classes, device="meta")

    def meta_committee(self) -> Committee:
        """The committee on the meta device."""
        return _committee([self.meta(spec) for spec in self.members])


def seen_by(views: Augmentation | None, images: Tensor) -> Tensor:
    """A view of images [n, c, h, w], on their device."""
    if views is None:
        return images
    size = (images.shape[2], images.shape[3])
    return views.sample(len(images), size, fixed_generator()).apply(images)


def _optimizer(network: nn.Module, settings: TrainSettings) -> Optimizer:
    if settings.optimizer == "muon":
        return make_optimizer(network, "muon", settings.lr, 0.0, settings.weight_decay)
    kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "sgd": partial(torch.optim.SGD, momentum=settings.momentum),
    }
    return kinds[settings.optimizer](network.parameters())


def _committee(networks: list[nn.Module]) -> Committee:
    members = tuple(network.eval().requires_grad_(False) for network in networks)
    return Committee(members, torch.full((len(members),), 1 / len(members)))
