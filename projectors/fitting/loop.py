"""Fit a projector to a teacher's soft labels on real images."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Generator, Tensor
from torch.nn import functional

from projectors.errors import DivergedError, ProjectorError
from projectors.model.projector import Projector

LOSSES = ("mse", "kl")

# A larger loss counts as divergence, even while it is finite.
MAX_LOSS = 1e8


class Images(Protocol):
    """Images [n, c, h, w] read in batches: a tensor, or a reader of files.

    `synth.images` has a protocol of the same name and meaning, which this package may not import.
    """

    @property
    def shape(self) -> torch.Size:
        """Number, channels, height and width: [n, c, h, w]."""
        ...

    @property
    def device(self) -> torch.device:
        """Device of the batches."""
        ...

    def __len__(self) -> int:
        """The number of images."""
        ...

    def __getitem__(self, index: Any, /) -> Tensor:
        """The images [b, c, h, w] at `index`, int64 [b] or a slice."""
        ...


@dataclass(frozen=True)
class FitSettings:
    """How a projector is fitted.

    Attributes:
        steps: number of optimiser steps.
        batch_size: images per step.
        lr: peak learning rate of AdamW; it falls to 0 along a cosine.
        weight_decay: of AdamW.
        ce_weight: weight of the cross-entropy with the hard labels.
        loss: "mse", the mean squared difference of logits, centred over the classes of each
            image; or "kl", the Kullback-Leibler divergence of probabilities at `temperature`,
            times its square.
        temperature: divides both logits in "kl"; > 0.
    """

    steps: int = 1000
    batch_size: int = 128
    lr: float = 3e-3
    weight_decay: float = 0.01
    ce_weight: float = 0.1
    loss: str = "mse"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ProjectorError(f"loss is {self.loss!r}; write one of {', '.join(LOSSES)}")
        for name in ("steps", "batch_size", "lr", "temperature"):
            if not getattr(self, name) > 0:
                raise ProjectorError(f"{name} is {getattr(self, name)}; it must be above 0")
        if self.ce_weight < 0 or self.weight_decay < 0:
            raise ProjectorError(
                f"ce_weight is {self.ce_weight} and weight_decay {self.weight_decay}; "
                "neither may be below 0"
            )


@dataclass(frozen=True)
class FitStep:
    """One step of a fit: its index from 0, the loss before it, and its learning rate."""

    index: int
    loss: float
    lr: float


class FitState:
    """The state of a fit: everything that a step changes.

    Restored from the tensors of an interrupted fit, it continues bitwise identically.

    Args:
        projector: is changed in place, and stays on its device.
        settings: the optimiser's numbers.
        generator: a CPU generator for batches and views; the same one gives the same fit.

    Attributes:
        step: index of the next step.

    Raises:
        ProjectorError: if nothing of the projector can be fitted.
    """

    def __init__(self, projector: Projector, settings: FitSettings, generator: Generator) -> None:
        self.projector, self.settings, self.generator = projector, settings, generator
        self.fitted = {name: p for name, p in projector.named_parameters() if p.requires_grad}
        if not self.fitted:
            raise ProjectorError(
                "the projector has no adapter and no trained head, so there is nothing to fit; "
                "raise the rank or set trained='all'"
            )
        self.optimiser = torch.optim.AdamW(
            self.fitted.values(), lr=settings.lr, weight_decay=settings.weight_decay
        )
        self.step = 0
        self._order = torch.empty(0, dtype=torch.long)
        self._position = 0

    def next_batch(self, num_images: int) -> Tensor:
        """Indices [b] of the next batch; each shuffled pass drops its last, smaller batch."""
        size = min(self.settings.batch_size, num_images)
        if self._position + size > len(self._order):
            self._order = torch.randperm(num_images, generator=self.generator)
            self._position = 0
        self._position += size
        return self._order[self._position - size : self._position]

    def weights(self) -> dict[str, Tensor]:
        """Copies of the fitted numbers, on the CPU."""
        return {name: value.detach().cpu().clone() for name, value in self.fitted.items()}

    def set_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Put fitted numbers back."""
        for name, value in self.fitted.items():
            value.data.copy_(weights[name])

    def tensors(self) -> dict[str, Tensor]:
        """Copies of all that a step changes, on the CPU; the input of `restore`."""
        tensors = {f"weight.{name}": value for name, value in self.weights().items()}
        for name, parameter in self.fitted.items():
            for key, value in self.optimiser.state[parameter].items():
                tensors[f"{key}.{name}"] = value.detach().cpu().clone()
        tensors["generator"] = self.generator.get_state()
        tensors["order"] = self._order.clone()
        tensors["place"] = torch.tensor([self._position, self.step])
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the state that `tensors` copied."""
        self.set_weights({name: tensors[f"weight.{name}"] for name in self.fitted})
        for name, parameter in self.fitted.items():
            # A step's count stays on the CPU, as the optimiser keeps it there.
            self.optimiser.state[parameter] = {
                key: value.clone() if key == "step" else value.to(parameter.device)
                for key in ("step", "exp_avg", "exp_avg_sq")
                if (value := tensors.get(f"{key}.{name}")) is not None
            }
        self.generator.set_state(tensors["generator"])
        self._order = tensors["order"]
        self._position, self.step = tensors["place"].tolist()


def fit_projector(
    state: FitState,
    images: Images,
    teacher: Callable[[Tensor], Tensor],
    hard: Tensor,
    *,
    view: Callable[[Tensor, Generator], Tensor] | None = None,
) -> Iterator[FitStep]:
    """Fit adapters and head, one step per item; the state's projector is changed in place.

    The loss is that of the settings plus ce_weight * cross-entropy with the hard labels. The
    teacher labels the very view that the projector sees.

    Args:
        state: the start of the fit, or a restored state.
        images: [n, c, h, w] real images, normalised for the projector and on its device.
        teacher: images [b, c, h, w] -> logits [b, k]; called without gradients.
        hard: [n] class indices.
        view: images and a generator -> augmented images; None for the images as they are.

    Yields:
        A step after it has been taken.

    Raises:
        ProjectorError: if shapes do not agree.
        DivergedError: if the loss is not finite or above `MAX_LOSS`, or a fitted number is
            not finite.

    Source: HeLlO, whose loss is "mse" with ce_weight * cross-entropy (its weight is not
    published).
    """
    projector, settings, optimiser = state.projector, state.settings, state.optimiser
    _check_data(projector, images, hard)
    while state.step < settings.steps:
        index = state.step
        lr = settings.lr * 0.5 * (1.0 + math.cos(math.pi * index / settings.steps))
        for group in optimiser.param_groups:
            group["lr"] = lr
        batch = state.next_batch(len(images)).to(images.device)
        seen = images[batch] if view is None else view(images[batch], state.generator)
        with torch.no_grad():
            teacher_logits = teacher(seen)
        loss = projector_loss(projector.logits(seen), teacher_logits, hard[batch], settings)
        if not (value := loss.item()) < MAX_LOSS:
            raise DivergedError(
                f"the loss became {value} at step {index}; lower lr (now {settings.lr})", index
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if not _all_finite(projector):
            raise DivergedError(
                f"a number is no longer finite after step {index}; lower lr (now {settings.lr})",
                index,
            )
        state.step += 1
        yield FitStep(index, value, lr)


def projector_loss(
    logits: Tensor, teacher_logits: Tensor, hard: Tensor, settings: FitSettings
) -> Tensor:
    """Distance between logits [n, k] and the teacher's, plus the weighted cross-entropy.

    Args:
        logits: [n, k] the projector's.
        teacher_logits: [n, k] the teacher's.
        hard: [n] class indices.
        settings: which distance, and the weight.

    Returns:
        A scalar, mean over the batch.

    Raises:
        ProjectorError: if the teacher knows another number of classes.
    """
    if teacher_logits.shape != logits.shape:
        raise ProjectorError(
            f"the teacher gives logits {tuple(teacher_logits.shape)}, but the projector "
            f"{tuple(logits.shape)}; use a teacher of the same classes"
        )
    if settings.loss == "mse":
        # A constant added to all logits of an image does not change its label. Gradients of the
        # cross-entropy never add one, but Adam does, until it dominates a teacher's logits.
        distance = functional.mse_loss(_centred(logits), _centred(teacher_logits))
    else:
        ours = (logits / settings.temperature).log_softmax(dim=-1)
        theirs = (teacher_logits / settings.temperature).log_softmax(dim=-1)
        distance = functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)
        distance = distance * settings.temperature**2
    return distance + settings.ce_weight * functional.cross_entropy(logits, hard)


def _centred(logits: Tensor) -> Tensor:
    return logits - logits.mean(dim=-1, keepdim=True)


def _all_finite(projector: Projector) -> bool:
    """Whether every fitted number is finite: an update can overflow after a finite loss."""
    finite = [p.detach().isfinite().all() for p in projector.parameters() if p.requires_grad]
    return bool(torch.stack(finite).all())


def _check_data(projector: Projector, images: Images, hard: Tensor) -> None:
    num_classes = len(projector.classes)
    if len(images) == 0 or hard.shape != images.shape[:1]:
        raise ProjectorError(
            f"got {len(images)} images and hard labels {tuple(hard.shape)}; give one per image"
        )
    if int(hard.min()) < 0 or int(hard.max()) >= num_classes:
        raise ProjectorError(
            f"hard labels run from {int(hard.min())} to {int(hard.max())}, but the projector has "
            f"{num_classes} classes; give indices below that"
        )
