"""The units of work that stages are made of, done on random images by the stages' own code."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

import projectors
from distill.plan.calibration import Timed
from distill.plan.clock import Clock, Unit, exhaust, fixed_generator
from distill.plan.memory import inner_step_cost
from distill.plan.sizes import meta_network, parameter_count
from distill.recipes.build import (
    build_gradient,
    build_network,
    build_views,
    fit_settings,
    projector_parts,
    relabel_views,
    student_view,
)
from distill.recipes.recipe import Recipe
from distill.recipes.tables.match import MatchTable
from distill.recipes.tables.projector import ProjectorTable
from distill.recipes.tables.relabel import RelabelTable
from distill.run.dry_run import Cost, run_dry
from projectors import Projector
from synth.augment import Augmentation
from synth.committee.relabel import labelled_online, relabel_epoch
from synth.committee.vote import Committee
from synth.losses import soft_cross_entropy
from synth.matching.gradients import matching_gradient
from synth.parameters import parameter_vector
from synth.training.batches import Batch, shuffled_batches
from synth.training.loop import TrainSettings, predict, train
from synth.training.sharpness import Sharpness

# Steps in one call to time.
_STEPS = 2

# Repetitions of these in a call, on a GPU, which records what comes often: the first call, which is
# not timed, has enough for that.
_REPEATS_ON_GPU = 10

# A call to time and how many units it does, for a batch size.
Work = Callable[[int], tuple[Callable[[], object], int]]


@dataclass(frozen=True)
class Training:
    """How a network is trained, as far as time and memory depend on it.

    Attributes:
        families: of the augmentation.
        one_per_batch: whether one family is drawn for each batch (DSA), instead of all.
        optimizer: "sgd", "adam" or "adamw".
        sharp: whether gradients are sharpness-aware, which takes two of them.
    """

    families: str
    one_per_batch: bool = False
    optimizer: Literal["sgd", "adam", "adamw"] = "adamw"
    sharp: bool = False


@dataclass(frozen=True)
class Units:
    """Prices the units of work of one recipe."""

    recipe: Recipe
    clock: Clock

    def network(self, spec: str) -> nn.Module:
        """A fresh network of a spec, on the clock's device."""
        shape = self.clock.shape
        network = build_network(spec, shape.channels, shape.size, shape.classes, 0)
        return network.to(self.clock.device)

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
        channels = self.clock.shape.channels
        adapter, head = projector_parts(table, 0)
        names = [f"class {index}" for index in range(self.clock.shape.classes)]
        projector = projectors.build_projector(
            projectors.load_tower(table.tower),
            names,
            projectors.Preprocessing((0.5,) * channels, (0.25,) * channels),
            adapter=adapter,
            head=head,
        )
        return projector.to(self.clock.device)

    def step(self, spec: str, batch: int, how: Training) -> Timed:
        """One training step of a network, its views included."""
        views = build_views(how.families, one_per_batch=how.one_per_batch)
        sharpness = Sharpness(0.01, 0.3) if how.sharp else None
        # So small a rate that random labels can do no harm: only the time counts. A call is an
        # epoch of a training that never ends.
        settings = TrainSettings(sys.maxsize, 1e-6, how.optimizer, sharpness=sharpness)
        repeats = self._repeats

        def work(size: int) -> tuple[Callable[[], object], int]:
            network, generator = self.network(spec), fixed_generator()
            images, labels = self.clock.images(_STEPS * size), self.clock.labels(_STEPS * size)

            def batches(epoch: int) -> Iterator[Batch]:
                for _ in range(repeats):
                    yield from shuffled_batches(images, labels, size, views, generator)

            epochs = train(network, batches, settings)
            return lambda: next(epochs), _STEPS * repeats

        optimizers: dict[str, Callable[..., torch.optim.Optimizer]] = {
            "adam": torch.optim.Adam,
            "adamw": torch.optim.AdamW,
            "sgd": partial(torch.optim.SGD, momentum=0.9),
        }

        def dry(size: int) -> None:
            network = self.meta(spec)
            update = optimizers[how.optimizer](network.parameters())
            images, labels = self.meta_batch(size)
            for _ in range(2 if how.sharp else 1):
                soft_cross_entropy(network(_view(views, images)), labels).backward()
            update.step()

        name = f"training step of {spec}, {how.optimizer}, {how.families}"
        name += ", sharpness-aware" if how.sharp else ""
        return self.price(name, work, dry, batch, self.size([spec]))

    def forward(self, spec: str, batch: int) -> Timed:
        """Predictions of a network for `batch` images, up to 1000 at a time."""

        def work(size: int) -> tuple[Callable[[], object], int]:
            network, images = self.network(spec).eval(), self.clock.images(size)
            return lambda: predict(network, images), 1

        def dry(size: int) -> None:
            predict(self.meta(spec).eval(), self.meta_batch(size)[0])

        return self.price(f"prediction of {spec}", work, dry, batch, self.size([spec]))

    def inner_step(self, batch: int) -> Timed:
        """One inner step of matching with its share of the gradient."""
        recipe, clock = self.recipe, self.clock
        experts, table = recipe.matching()
        spec, gradient = experts.network, build_gradient(table)
        steps = min(table.inner_steps, _inner_steps(table)) * self._repeats
        views = build_views(recipe.data.augmentation, one_per_batch=True)

        def work(size: int) -> tuple[Callable[[], object], int]:
            network, generator = self.network(spec), fixed_generator()
            start = parameter_vector(network)
            move = torch.randn(len(start), generator=fixed_generator()).to(start.device)
            images, labels = clock.images(size), clock.labels(size)
            batches = [torch.arange(size) for _ in range(steps)]
            lr = torch.tensor(table.lr, device=clock.device)

            def call() -> None:
                drawn = None
                if views is not None:
                    drawn = [views.sample(size, clock.shape.size, generator) for _ in batches]
                matching_gradient(
                    network, start, start + 0.01 * move, images, labels, lr, batches, gradient,
                    drawn,
                )  # fmt: skip

            return call, steps

        name = f"inner step of {spec}, {table.gradient}, {recipe.data.augmentation}"
        cost = partial(inner_step_cost, recipe, clock.shape)
        return clock.time(Unit(name, work, cost, self.size([spec])), batch)

    def vote(self, table: RelabelTable, batch: int) -> Timed:
        """One batch of views voted for and rounded, as they are stored."""
        views, generator = relabel_views(table), fixed_generator()

        def work(size: int) -> tuple[Callable[[], object], int]:
            committee, images = self.committee, self.clock.images(size)
            own = table.bssl != "off" and committee.has_batch_norm

            def vote(batch: Tensor) -> Tensor:
                return committee.vote(batch, batch_statistics=own)

            def call() -> None:
                relabel_epoch(images, vote, len(images), views, generator, table.mix, table.parts)

            return call, 1

        name = f"stored vote of {self.listed}"
        return self.price(name, work, self._dry_vote(views), batch, self.size(self.members))

    def online(self, source: str, batch: int) -> Timed:
        """One batch of views labelled online by the committee ("votes") or the projector."""
        views, generator = relabel_views(self.recipe.relabel or RelabelTable()), fixed_generator()
        votes = source == "votes"
        if not votes:
            _ = self.projector  # its tower is missed here, not in the middle of a dry run

        def work(size: int) -> tuple[Callable[[], object], int]:
            ask = self.committee.vote if votes else _ask(self.projector)
            images = self.clock.images(size)
            return (
                lambda: exhaust(labelled_online(images, ask, len(images), views, generator)),
                1,
            )

        name = self.listed if votes else self._projector_name
        dry = self._dry_vote(views) if votes else self._dry_labels(views)
        parameters = self.size(self.members) if votes else parameter_count(self.projector.visual)
        return self.price(f"online labels of {name}", work, dry, batch, parameters)

    def fit_step(self, table: ProjectorTable, batch: int) -> Timed:
        """One step of fitting the projector, the committee's labels included."""
        projector = self.projector
        view = student_view(self.recipe)

        def work(size: int) -> tuple[Callable[[], object], int]:
            images = self.clock.images(_STEPS * size)
            hard = torch.arange(len(images), device=self.clock.device) % self.clock.shape.classes
            settings = replace(fit_settings(table, size), steps=_STEPS, lr=1e-6)

            def call() -> None:
                state = projectors.FitState(projector, settings, fixed_generator())
                exhaust(
                    projectors.fit_projector(state, images, self.committee.vote, hard, view=view)
                )

            return call, _STEPS

        def dry(size: int) -> None:
            images, _ = self.meta_batch(size)
            seen = images if view is None else view(images, fixed_generator())
            with torch.no_grad():
                wanted = self.meta_committee().vote(seen)
            fitted = copy.deepcopy(projector).to("meta")
            update = torch.optim.AdamW([p for p in fitted.parameters() if p.requires_grad])
            functional.mse_loss(fitted.logits(seen), wanted).backward()
            update.step()

        name = f"fitting step of {self._projector_name} by {self.listed}"
        return self.price(name, work, dry, batch, parameter_count(projector.visual))

    def price(
        self, what: str, work: Work, dry: Callable[[int], object], batch: int, parameters: int
    ) -> Timed:
        """The time of a unit: `work` does it on the device, `dry` once on the meta device."""

        def cost(size: int) -> Cost:
            return run_dry(lambda: dry(size))

        return self.clock.time(Unit(what, work, cost, parameters), batch)

    @property
    def _repeats(self) -> int:
        return _REPEATS_ON_GPU if self.clock.device.type == "cuda" else 1

    def size(self, specs: list[str]) -> int:
        """Parameters of all networks of `specs`."""
        return sum(parameter_count(self.meta(spec)) for spec in specs)

    @property
    def _projector_name(self) -> str:
        table = self.recipe.projector or ProjectorTable()
        return f"projector {table.tower}, rank {table.rank}"

    def meta(self, spec: str) -> nn.Module:
        """A network on the meta device."""
        return meta_network(spec, self.clock.shape)

    def meta_batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Images [size, c, h, w] and label logits [size, k] on the meta device."""
        shape = self.clock.shape
        images = torch.empty(size, *shape.image, device="meta")
        return images, torch.empty(size, shape.classes, device="meta")

    def meta_committee(self) -> Committee:
        """The committee on the meta device."""
        return _committee([self.meta(spec) for spec in self.members])

    def _dry_vote(self, views: Augmentation) -> Callable[[int], object]:
        return lambda size: self.meta_committee().vote(_view(views, self.meta_batch(size)[0]))

    def _dry_labels(self, views: Augmentation) -> Callable[[int], object]:
        def dry(size: int) -> None:
            asked = copy.deepcopy(self.projector).to("meta")
            _ask(asked)(_view(views, self.meta_batch(size)[0]))

        return dry


def _committee(networks: list[nn.Module]) -> Committee:
    members = tuple(network.eval().requires_grad_(False) for network in networks)
    return Committee(members, torch.full((len(members),), 1 / len(members)))


def _view(views: Augmentation | None, images: Tensor) -> Tensor:
    """A view of images [n, c, h, w], on their device."""
    if views is None:
        return images
    size = (images.shape[2], images.shape[3])
    return views.sample(len(images), size, fixed_generator()).apply(images)


def _inner_steps(table: MatchTable) -> int:
    """Enough steps for the mean: "sqrt" takes most of them twice only if there are several."""
    return 9 if table.snapshots == "sqrt" else 4


def _ask(projector: Projector) -> Callable[[Tensor], Tensor]:
    @torch.no_grad()
    def ask(images: Tensor) -> Tensor:
        return projector.logits(images)

    return ask
