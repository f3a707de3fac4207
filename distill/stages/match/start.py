"""Where trajectory matching starts: the first images and the first soft labels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from distill.data import require_per_class
from distill.recipes.tables.match import MatchTable
from distill.run.artefacts import EXPERTS, MATCH_STAGE
from distill.run.context import Context
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
from synth.training.loop import predict, predict_classes


def starting_state(context: Context, table: MatchTable) -> MatchState:
    """The state before the first outer step, as the recipe's [match] table asks for it."""
    seen_per_class = table.ipc * table.factor**2
    images = _images(context, table, seen_per_class)
    hard = class_labels(context.classes, seen_per_class)
    labels: dict[str, Callable[[], Tensor]] = {
        "hard": lambda: starting_labels(hard, context.classes, HARD_LOGIT),
        "class": lambda: starting_labels(hard, context.classes, table.label_lead),
        "experts": lambda: expert_label_logits(
            _expert_logits(context, decode_images(images, table.factor)),
            hard,
            table.label_lead,
        ),
    }
    soft = labels[table.label_init]().to(context.device)
    return initial_state(images.to(context.device), soft, table.lr)


def _images(context: Context, table: MatchTable, seen_per_class: int) -> Tensor:
    """Stored images [n, c, h, w], in class order; real ones are tiled where factor > 1."""
    require_per_class(context.data.train, seen_per_class, context.data.class_names)
    real, labels = context.split("train")
    labels = labels.cpu()
    generator = context.generator(MATCH_STAGE, "init")
    shape = (context.classes * table.ipc, *real.shape[1:])

    def draw(candidates: Tensor) -> Tensor:
        drawn = draw_real(labels[candidates], context.classes, seen_per_class, generator)
        return encode_images(images_at(real, candidates[drawn]).cpu(), table.factor)

    def right() -> Tensor:
        predicted = _asked(context, lambda net: predict_classes(net, real))
        mask = correctly_predicted(predicted, labels, context.classes, seen_per_class)
        return torch.nonzero(mask).flatten()

    starts: dict[str, Callable[[], Tensor]] = {
        "real": lambda: draw(torch.arange(len(real))),
        "correct": lambda: draw(right()),
        "random": lambda: context.preprocess(draw_uniform(shape, generator)),
        "noise": lambda: draw_noise(shape, generator),
    }
    return starts[table.init]()


def _expert_logits(context: Context, images: Tensor) -> Tensor:
    """Logits [e, n, k] of every expert's last snapshot."""
    seen = images.to(context.device)
    return _asked(context, lambda network: predict(network, seen))


def _asked(context: Context, ask: Callable[[nn.Module], Tensor]) -> Tensor:
    """What the network of every expert's last snapshot answers, stacked on the CPU."""
    path = context.run.path / EXPERTS
    network = context.network(read_info(path).network, MATCH_STAGE).eval()
    found = []
    for snapshot in read_last_snapshots(path):
        load_vector(network, snapshot.to(context.device))
        found.append(ask(network).cpu())
    return torch.stack(found)
