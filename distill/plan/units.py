"""The units of work that stages are made of, done on random images by the stages' own code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Generator, Tensor, nn

import projectors
from distill.build import build_gradient, build_network, build_views
from distill.plan.clock import Clock, Timed, Work, exhaust
from distill.stages.relabel import relabel_views
from distill.tables import MatchTable, ProjectorTable, Recipe, RelabelTable
from projectors import Projector
from synth.committee import Committee
from synth.gradients import matching_gradient
from synth.parameters import parameter_vector
from synth.relabel import labelled_online, relabel_epoch
from synth.training import TrainSettings, predict, shuffled_batches, train

# Training steps in one call to time.
_STEPS = 2


@dataclass(frozen=True)
class Units:
    """Measures the units of work of one recipe."""

    recipe: Recipe
    clock: Clock

    def network(self, spec: str) -> nn.Module:
        """A fresh network of a spec, on the clock's device."""
        shape = self.clock.shape
        network = build_network(spec, shape.channels, shape.size, shape.classes, 0)
        return network.to(self.clock.device)

    @cached_property
    def committee(self) -> Committee:
        """An untrained committee of the recipe's members."""
        members = self.recipe.committee.members if self.recipe.committee else []
        networks = tuple(self.network(spec).eval().requires_grad_(False) for spec in members)
        return Committee(networks, torch.full((len(networks),), 1 / len(networks)))

    @cached_property
    def projector(self) -> Projector:
        """An unfitted projector; raises ProjectorError where its tower cannot be loaded."""
        table = self.recipe.projector or ProjectorTable()
        channels = self.clock.shape.channels
        names = [f"class {index}" for index in range(self.clock.shape.classes)]
        projector = projectors.build_projector(
            projectors.load_tower(table.tower),
            names,
            projectors.Preprocessing((0.5,) * channels, (0.25,) * channels),
            adapter=projectors.AdapterSettings(rank=table.rank, alpha=table.alpha),
            head=projectors.HeadSettings(
                templates=tuple(table.templates), init=table.head, trained=table.trained
            ),
        )
        return projector.to(self.clock.device)

    def step(self, spec: str, batch: int, families: str, *, dsa: bool, adamw: bool) -> Timed:
        """One training step of a network, its views included."""
        network = self.network(spec)
        views = build_views(families, one_per_batch=dsa)
        optimizer = "adamw" if adamw else "sgd"
        # So small a rate that random labels can do no harm: only the time counts.
        settings = TrainSettings(1, 1e-6, "adamw" if adamw else "sgd")
        generator = torch.Generator().manual_seed(0)

        def work(size: int) -> tuple[Callable[[], object], int]:
            images, labels = self.clock.images(_STEPS * size), self.clock.labels(_STEPS * size)

            def call() -> None:
                exhaust(
                    train(
                        network,
                        lambda epoch: shuffled_batches(images, labels, size, views, generator),
                        settings,
                    )
                )

            return call, _STEPS

        what = f"training step of {spec}, {optimizer}, {families}"
        return self.clock.time(what, batch, work, network)

    def forward(self, spec: str, batch: int) -> Timed:
        """Predictions of a network for `batch` images, up to 1000 at a time."""
        network = self.network(spec).eval()
        work = self._once(lambda images: predict(network, images))
        return self.clock.time(f"prediction of {spec}", batch, work, network)

    def inner_step(self, batch: int) -> Timed:
        """One inner step of matching with its share of the gradient."""
        recipe, clock = self.recipe, self.clock
        experts, table = recipe.matching()
        network = self.network(experts.network)
        start = parameter_vector(network)
        target = start + 0.01 * torch.randn(len(start), generator=_generator()).to(start.device)
        gradient = build_gradient(table)
        steps = min(table.inner_steps, _inner_steps(table))
        views = build_views(recipe.data.augmentation, one_per_batch=True)
        generator = _generator()

        def work(size: int) -> tuple[Callable[[], object], int]:
            images, labels = clock.images(size), clock.labels(size)
            batches = [torch.arange(size) for _ in range(steps)]
            lr = torch.tensor(table.lr, device=clock.device)

            def call() -> None:
                drawn = None
                if views is not None:
                    drawn = [views.sample(size, clock.shape.size, generator) for _ in batches]
                matching_gradient(
                    network, start, target, images, labels, lr, batches, gradient, drawn
                )

            return call, steps

        return clock.time(f"inner step of {experts.network}", batch, work, network)

    def vote(self, table: RelabelTable, batch: int) -> Timed:
        """One batch of views voted for and rounded, as they are stored."""
        committee, views, generator = self.committee, relabel_views(table), _generator()
        statistics = table.bssl != "off" and committee.has_batch_norm

        def vote(images: Tensor) -> Tensor:
            return committee.vote(images, batch_statistics=statistics)

        work = self._once(lambda images: relabel_epoch(images, vote, len(images), views, generator))
        return self.clock.time("stored vote of the committee", batch, work, *committee.members)

    def online(self, source: str, batch: int) -> Timed:
        """One batch of views labelled online by the committee ("votes") or the projector."""
        views, generator = relabel_views(self.recipe.relabel or RelabelTable()), _generator()
        votes = source == "votes"
        networks = self.committee.members if votes else (self.projector.visual,)
        ask = self.committee.vote if votes else _ask(self.projector)
        work = self._once(
            lambda images: exhaust(labelled_online(images, ask, len(images), views, generator))
        )
        return self.clock.time(f"labels of a batch by {source}", batch, work, *networks)

    def fit_step(self, table: ProjectorTable, batch: int) -> Timed:
        """One step of fitting the projector, the committee's labels included."""
        projector, committee = self.projector, self.committee
        views, generator = build_views(table.augmentation, one_per_batch=False), _generator()

        def view(images: Tensor, generator: Generator) -> Tensor:
            size = self.clock.shape.size
            return views.sample(len(images), size, generator).apply(images) if views else images

        def work(size: int) -> tuple[Callable[[], object], int]:
            images = self.clock.images(_STEPS * size)
            hard = torch.arange(len(images), device=self.clock.device) % self.clock.shape.classes
            settings = projectors.FitSettings(
                steps=_STEPS, batch_size=size, lr=1e-6, loss=table.loss
            )

            def call() -> None:
                exhaust(
                    projectors.fit_projector(
                        projector,
                        images,
                        committee.vote,
                        hard,
                        settings=settings,
                        view=view,
                        generator=generator,
                    )
                )

            return call, _STEPS

        return self.clock.time("fitting step of the projector", batch, work, projector.visual)

    def _once(self, act: Callable[[Tensor], object]) -> Work:
        def work(size: int) -> tuple[Callable[[], object], int]:
            images = self.clock.images(size)
            return lambda: act(images), 1

        return work


def _inner_steps(table: MatchTable) -> int:
    """Enough steps for the mean: "sqrt" takes most of them twice only if there are several."""
    return 9 if table.snapshots == "sqrt" else 4


def _ask(projector: Projector) -> Callable[[Tensor], Tensor]:
    @torch.no_grad()
    def ask(images: Tensor) -> Tensor:
        return projector.logits(images)

    return ask


def _generator() -> Generator:
    return torch.Generator().manual_seed(0)
