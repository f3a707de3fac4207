"""Where trajectory matching starts: the values of match.init and of match.label_init."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from distill.data import require_per_class
from distill.names import choices, resolve
from distill.recipes.tables.match import MatchTable
from distill.run.artefacts import EXPERTS, MATCH_STAGE
from distill.run.context import Context
from distill.stages.budget import coded_images
from distill.stages.match.start_rate import starting_rates
from distill.store.experts import read_info, read_last_snapshots
from synth.formation import decode_images, encode_images
from synth.images import images_at
from synth.losses import HARD_LOGIT
from synth.matching.start import (
    class_labels,
    correctly_predicted,
    draw_noise,
    draw_real,
    draw_uniform,
    expert_label_logits,
    starting_labels,
)
from synth.matching.state import MatchState, initial_state
from synth.parameters import load_vector
from synth.training.prediction import predict, predict_classes


@dataclass(frozen=True)
class MatchStart:
    """What first images and labels are made from.

    Attributes:
        context: of the run.
        table: [match].
    """

    context: Context
    table: MatchTable

    @property
    def seen_per_class(self) -> int:
        """Images of a class that students see."""
        return self.table.ipc * self.table.factor**2

    @property
    def hard(self) -> Tensor:
        """Classes [n] of the images that students see."""
        return class_labels(self.context.classes, self.seen_per_class)

    @property
    def generator(self) -> Generator:
        """Draws the images."""
        return self.context.generator(MATCH_STAGE, "init")

    @property
    def shape(self) -> tuple[int, ...]:
        """[n, c, h, w] of the stored images."""
        real = self.context.split("train")[0]
        return (self.context.classes * self.table.ipc, *real.shape[1:])

    def draw(self, candidates: Tensor) -> Tensor:
        """Stored images of real ones, drawn among those at the places `candidates`."""
        real, labels = self.context.split("train")
        own = labels.cpu()[candidates]
        drawn = draw_real(own, self.context.classes, self.seen_per_class, self.generator)
        return encode_images(images_at(real, candidates[drawn]).cpu(), self.table.factor)

    def ask(self, ask: Callable[[nn.Module], Tensor]) -> Tensor:
        """What every finished expert of the set's own network answers, stacked on the CPU."""
        path = self.context.run.path / EXPERTS
        network = self.context.network(read_info(path).network, MATCH_STAGE).eval()
        found = []
        for snapshot in read_last_snapshots(path):
            load_vector(network, snapshot.to(self.context.device))
            found.append(ask(network).cpu())
        return torch.stack(found)


def starting_state(context: Context, table: MatchTable) -> MatchState:
    """The state before the first outer step, as the recipe's [match] table asks for it."""
    start = MatchStart(context, table)
    require_per_class(context.data.train, start.seen_per_class, context.data.class_names)
    images: Tensor = resolve(choices("match.init")[table.init])(start)
    soft: Tensor = resolve(choices("match.label_init")[table.label_init])(start, images)
    coded = coded_images(context, table)
    learned = images.to(context.device)
    learned = learned if coded is None else coded.start(learned)
    soft = soft.to(context.device)
    networks = len(context.recipe.table("experts").all_networks)
    if table.student_lr == "auto":
        return initial_state(learned, soft, starting_rates(context, table, learned, soft), networks)
    return initial_state(learned, soft, table.student_lr, networks)


def start_real(start: MatchStart) -> Tensor:
    """Real images [n, c, h, w] in class order; tiled where factor > 1. Source: MTT."""
    return start.draw(torch.arange(len(start.context.split("train")[0])))


def start_correct(start: MatchStart) -> Tensor:
    """Real images that finished experts get right. Source: DATM."""
    real, labels = start.context.split("train")
    predicted = start.ask(lambda network: predict_classes(network, real))
    right = correctly_predicted(
        predicted, labels.cpu(), start.context.classes, start.seen_per_class
    )
    return start.draw(torch.nonzero(right).flatten())


def start_random(start: MatchStart) -> Tensor:
    """Uniform pixels."""
    return start.context.preprocess(draw_uniform(start.shape, start.generator))


def start_noise(start: MatchStart) -> Tensor:
    """Normal noise in the normalised space. Source: MTT."""
    return draw_noise(start.shape, start.generator)


def label_hard(start: MatchStart, images: Tensor) -> Tensor:
    """Label logits [n, k] that are one-hot to the last digit."""
    return starting_labels(start.hard, start.context.classes, HARD_LOGIT)


def label_class(start: MatchStart, images: Tensor) -> Tensor:
    """Label logits [n, k] that put the class match.label_lead above the others."""
    return starting_labels(start.hard, start.context.classes, start.table.label_lead)


def label_experts(start: MatchStart, images: Tensor) -> Tensor:
    """Mean logits [n, k] of the finished experts that are right. Source: DATM."""
    seen = decode_images(images, start.table.factor).to(start.context.device)
    logits = start.ask(lambda network: predict(network, seen))
    return expert_label_logits(logits, start.hard, start.table.label_lead)
