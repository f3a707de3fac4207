"""Training of any network on batches with soft labels: experts, teachers and students."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from synth.compiling import CompiledNetwork, Network
from synth.cuda_graphs import GraphCache, GraphRecorder, Record
from synth.losses import MAX_LOSS, cosine_loss, soft_cross_entropy
from synth.precision import Precision, forward
from synth.training.batches import Batch, split_parts
from synth.training.discriminator import Discriminator, discriminator_loss
from synth.training.optimizers import OptimizerName, make_optimizer
from synth.training.sharpness import Sharpness, sharpness_aware_backward
from synth.training.temperatures import Annealing, calibrated_temperature

# Eager batches before a capture: every training captures its own graphs.
_EAGER_RUNS = 10


@dataclass(frozen=True)
class TrainSettings:
    """How a network is trained.

    Attributes:
        epochs: passes over the data.
        lr: peak learning rate.
        optimizer: "sgd", "adam", "adamw" or "muon", see `synth.training.optimizers`.
        momentum: of SGD.
        weight_decay: decoupled for AdamW and Muon, L2 for SGD and Adam; never on biases and norms.
        schedule: "constant", "cosine" (one step per epoch) or "step" (a tenth from half of the
            epochs on).
        eta: length of half the cosine over that of the training, at least 1. Source: CV-DD.
        temperature: of the soft cross-entropy.
        sharpness: sharpness-aware gradients, at twice the cost; None for plain ones.
        loss: "soft" (cross-entropy at the temperature) or "cosine" (one minus the cosine
            similarity of logits and soft labels, GIFT).
        average: decay of a moving average of the weights after every step, which the network
            holds after the last epoch; 0 keeps the weights themselves.
        annealing: schedule of the labels' temperature; None keeps it constant.
        calibrated: the student has a temperature of its own: 1 at first, then after each epoch
            the one that brings the last batch's outputs nearest to their labels.
        precision, compiled: of both passes, see `synth.precision` and `synth.compiling`.
    """

    epochs: int
    lr: float
    optimizer: OptimizerName = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Literal["constant", "cosine", "step"] = "cosine"
    temperature: float = 1.0
    sharpness: Sharpness | None = None
    eta: float = 1.0
    average: float = 0.0
    loss: Literal["soft", "cosine"] = "soft"
    annealing: Annealing | None = None
    calibrated: bool = False
    precision: Precision = "float32"
    compiled: bool = False

    def __post_init__(self) -> None:
        if self.calibrated and (self.loss != "soft" or self.sharpness is not None):
            raise ValueError("calibrated temperatures go with the soft loss and plain gradients")
        if not self.eta >= 1:
            raise ValueError(f"eta is {self.eta}; the cosine must last as long as the training")
        if not 0 <= self.average < 1:
            raise ValueError(f"average is {self.average}; a decay must be in [0, 1)")

    def temperature_at(self, epoch: int) -> float:
        """The labels' temperature in an epoch, counted from 0."""
        if self.annealing is None:
            return self.temperature
        return self.annealing.at(self.temperature, epoch, self.epochs)

    def lr_at(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0."""
        if self.schedule == "constant":
            return self.lr
        if self.schedule == "step":
            return self.lr if 2 * epoch < self.epochs else self.lr / 10
        return self.lr * 0.5 * (1 + math.cos(math.pi * epoch / (self.epochs * self.eta)))


@dataclass(frozen=True)
class Epoch:
    """One finished epoch of training: its number from 1, and its mean loss."""

    index: int
    loss: float


def train(
    network: nn.Module,
    batches: Callable[[int], Iterable[Batch]],
    settings: TrainSettings,
    discriminator: Discriminator | None = None,
) -> Iterator[Epoch]:
    """Train `network` in place; yields after each epoch.

    With `settings.average`, the network holds the trained weights until the generator ends, and
    their moving average from then on.

    Args:
        network: images -> logits.
        batches: epoch number (from 0) -> the batches of that epoch.
        settings: optimiser and schedule.
        discriminator: trained beside the network, by the same optimiser, on the sum of both
            losses; None for none.

    Raises:
        FloatingPointError: if the loss of an epoch is not finite or above `MAX_LOSS`, or its
            last update left a weight that is not finite.
        ValueError: for a discriminator with sharpness-aware gradients.
    """
    if discriminator is not None and settings.sharpness is not None:
        raise ValueError("a discriminator goes with plain gradients; leave out the sharpness")
    trained = nn.ModuleList([network] if discriminator is None else [network, discriminator])
    optimizer = make_optimizer(
        trained, settings.optimizer, settings.lr, settings.momentum, settings.weight_decay
    )
    average = _MovingAverage(network, settings.average) if settings.average else None
    batch_loss = _BatchLoss(settings, discriminator)
    call: Network = CompiledNetwork(network) if settings.compiled else network
    backward = _backward
    if _can_be_recorded(network, settings, discriminator):
        backward = RecordedBackward(GraphRecorder())
    for epoch in range(settings.epochs):
        trained.train()
        batch_loss.begin(epoch)
        for group in optimizer.param_groups:
            group["lr"] = settings.lr_at(epoch)
        total, count = torch.zeros(()), 0
        for batch in batches(epoch):
            optimizer.zero_grad(set_to_none=True)
            loss = backward(network, call, batch, settings.sharpness, batch_loss)
            optimizer.step()
            if average is not None:
                average.follow(network)
            # Summed on the device: reading it here would synchronise at every step.
            total = total.to(loss.device, non_blocking=True) + loss * len(batch.images)
            count += len(batch.images)
        batch_loss.end()
        mean = float(total) / max(count, 1)
        bounded = mean < MAX_LOSS
        if not bounded or not _all_finite(network):
            what = f"the training loss is {mean:.3g}" if not bounded else "a weight is not finite"
            raise FloatingPointError(
                f"{what} in epoch {epoch + 1}; lower the learning rate ({settings.lr})"
            )
        yield Epoch(epoch + 1, mean)
    if average is not None:
        network.load_state_dict(average.state)


class _BatchLoss:
    """The loss of a batch, with the temperatures of the epoch."""

    def __init__(self, settings: TrainSettings, discriminator: Discriminator | None) -> None:
        self.settings, self.discriminator = settings, discriminator
        self.temperature = settings.temperature
        self.student_temperature: float | None = 1.0 if settings.calibrated else None
        self.last: list[tuple[Tensor, Tensor]] = []

    def begin(self, epoch: int) -> None:
        """Set the labels' temperature of an epoch."""
        self.temperature = self.settings.temperature_at(epoch)

    def start_batch(self) -> None:
        """Drop the parts of the previous batch."""
        self.last.clear()

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Loss of logits [b, k] against label logits [b, k], mean over them."""
        if self.settings.calibrated:
            self.last.append((logits.detach(), labels))
        if self.settings.loss == "cosine":
            loss = cosine_loss(logits, labels, self.temperature)
        else:
            loss = soft_cross_entropy(logits, labels, self.temperature, self.student_temperature)
        if self.discriminator is None:
            return loss
        adversarial = discriminator_loss(self.discriminator, logits, labels)
        return loss + self.discriminator.weight * adversarial

    def end(self) -> None:
        """Calibrate the student's temperature on the last batch."""
        if self.last:
            logits, labels = (torch.cat(parts) for parts in zip(*self.last, strict=True))
            self.student_temperature = calibrated_temperature(logits, labels, self.temperature)


def _all_finite(network: nn.Module) -> bool:
    """Whether every weight is finite: an update can overflow although its loss was finite."""
    finite = [weight.detach().isfinite().all() for weight in network.parameters()]
    return not finite or bool(torch.stack(finite).all())


class _MovingAverage:
    """Follows a network's state: decay * average + (1 - decay) * state, after every step.

    The decay grows with the number of steps t as (1 + t) / (10 + t) up to its limit, so that the
    initial weights do not dominate a short training. Counters are copied. Source: the "num_updates"
    of TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.state = {name: value.clone() for name, value in network.state_dict().items()}

    @torch.no_grad()
    def follow(self, network: nn.Module) -> None:
        """Update the average after one more step."""
        self.steps += 1
        share = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                self.state[name].lerp_(value, share)
            else:
                self.state[name].copy_(value)


def _backward(
    network: nn.Module,
    call: Network,
    batch: Batch,
    sharpness: Sharpness | None,
    batch_loss: _BatchLoss,
) -> Tensor:
    """Set the gradients of one batch; returns its loss, detached. `call` computes the network."""
    count = len(batch.images)
    batch_loss.start_batch()

    def loss(part: slice) -> Tensor:
        images, labels = batch.images[part], batch.labels[part]
        logits = forward(call, images, batch_loss.settings.precision)
        mean = batch_loss(logits, labels)
        return mean if len(images) == count else mean * (len(images) / count)

    parts = split_parts(count, batch.parts)
    if sharpness is not None:
        return sharpness_aware_backward(
            list(network.parameters()),
            lambda: torch.stack([loss(part) for part in parts]).sum(),
            sharpness,
        )
    values = []
    for part in parts:
        value = loss(part)
        value.backward()
        values.append(value.detach())
    return values[0] if len(values) == 1 else torch.stack(values).sum()


def _can_be_recorded(
    network: nn.Module, settings: TrainSettings, discriminator: Discriminator | None
) -> bool:
    """Whether a batch's gradients are on a GPU, and depend on weights and the batch alone."""
    first = next(network.parameters(), None)
    plain = settings.sharpness is None and settings.annealing is None and not settings.calibrated
    return plain and discriminator is None and first is not None and first.device.type == "cuda"


class RecordedBackward:
    """`_backward` as captured graphs, for one network and one loss with fixed temperatures.

    Args:
        record: captures a graph, see `GraphCache`.
    """

    def __init__(self, record: Record) -> None:
        self._graphs = GraphCache(record, _EAGER_RUNS)
        self._reached: list[nn.Parameter] = []

    def __call__(
        self,
        network: nn.Module,
        call: Network,
        batch: Batch,
        sharpness: Sharpness | None,
        batch_loss: _BatchLoss,
    ) -> Tensor:
        """As `_backward`."""

        def work(inputs: Sequence[Tensor]) -> list[Tensor]:
            network.zero_grad(set_to_none=True)
            copied = Batch(inputs[0], inputs[1], batch.parts)
            loss = _backward(network, call, copied, sharpness, batch_loss)
            self._reached = [p for p in network.parameters() if p.grad is not None]
            return [loss, *(p.grad for p in self._reached if p.grad is not None)]

        loss, *gradients = self._graphs.run(batch.parts, work, [batch.images, batch.labels])
        for parameter, gradient in zip(self._reached, gradients, strict=True):
            parameter.grad = gradient
        return loss
