"""A projector in one call: built, fitted to a teacher, and measured on held-out images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from projectors.errors import ProjectorError
from projectors.fitting.fidelity import Fidelity, measure_fidelity
from projectors.fitting.loop import FitSettings, FitState, FitStep, fit_projector
from projectors.model.preparation import Preprocessing
from projectors.model.projector import Projector, build_projector
from projectors.model.tower import GLYPHCLIP, Tower, load_tower

# One image of so many is held out.
_HELD_OUT = 10

_BATCH = 256


@dataclass(frozen=True, eq=False)
class Fitted:
    """What `fit` made.

    Attributes:
        projector: fitted; it takes pixels in [0, 1].
        fidelity: how close it comes to its teacher, on images that it was not fitted to.
        losses: one for each step, before it.
    """

    projector: Projector
    fidelity: Fidelity
    losses: tuple[float, ...]


def fit(
    images: Tensor,
    labels: Tensor,
    teacher: Callable[[Tensor], Tensor],
    classes: Sequence[str],
    *,
    tower: str | Tower = GLYPHCLIP,
    settings: FitSettings | None = None,
    view: Callable[[Tensor, Generator], Tensor] | None = None,
    progress: Callable[[FitStep], object] | None = None,
) -> Fitted:
    """Fit a projector to a teacher's soft labels, in one call.

    A tenth of the images is held out, to measure how close it comes. The same arguments give the
    same projector. `build_projector`, `FitState` and `fit_projector` are the parts of this call,
    for adapters, heads, stopping and resuming of your own.

    Args:
        images: [n, c, h, w] pixels in [0, 1], c of 1 or 3, n of 2 or more; on their device it is
            fitted.
        labels: [n] class indices.
        teacher: pixels [b, c, h, w] -> logits [b, k], such as a trained module in eval mode; called
            without gradients.
        classes: k names, from whose words the head starts.
        tower: the frozen image encoder, or a spec of it, see `load_tower`. The default knows
            characters; photos need another.
        settings: steps, batch size, learning rate and loss; None for those of `FitSettings`.
        view: pixels and a generator -> augmented pixels, which both see; None for images as they
            are.
        progress: called after every step; what it raises ends the fit.

    Raises:
        ProjectorError: if shapes do not agree, or the images are no pixels in [0, 1].
        DivergedError: if the loss grows without bound.
    """
    _check(images, labels, len(classes))
    held, kept = _split(len(images), images.device)
    projector = build_projector(
        load_tower(tower) if isinstance(tower, str) else tower,
        list(classes),
        Preprocessing((0.0,) * images.shape[1], (1.0,) * images.shape[1]),
    ).to(images.device)
    labels = labels.to(images.device)
    state = FitState(projector, settings or FitSettings(), Generator().manual_seed(0))
    losses = []
    for step in fit_projector(state, images[kept], teacher, labels[kept], view=view):
        losses.append(step.loss)
        if progress is not None:
            progress(step)
    wanted = _probabilities(teacher, images[held])
    fidelity = measure_fidelity(projector, images[held], wanted, labels[held])
    return Fitted(projector, fidelity, tuple(losses))


def _check(images: Tensor, labels: Tensor, classes: int) -> None:
    if images.ndim != 4 or len(images) < 2 or not images.is_floating_point():
        raise ProjectorError(
            f"got images {tuple(images.shape)} of {images.dtype}; give two or more, floats "
            "[n, c, h, w] in [0, 1]"
        )
    least, largest = float(images.min()), float(images.max())
    if not (least >= 0 and largest <= 1):
        raise ProjectorError(
            f"the images hold values from {least:g} to {largest:g}, but pixels in [0, 1] are "
            "needed; leave out their normalisation, and put it into the teacher"
        )
    if labels.shape != (len(images),) or labels.is_floating_point():
        raise ProjectorError(
            f"got labels {tuple(labels.shape)} of {labels.dtype} for {len(images)} images; give a "
            "class index for each"
        )
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise ProjectorError(
            f"labels go from {int(labels.min())} to {int(labels.max())}, but there are {classes} "
            "names of classes; give one for each class"
        )


def _split(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Places of the images that are held out, and of the others."""
    order = torch.randperm(count, generator=Generator().manual_seed(0)).to(device)
    held = max(1, count // _HELD_OUT)
    return order[:held], order[held:]


def _probabilities(teacher: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """The teacher's probabilities [n, k] of images [n, c, h, w]."""
    with torch.no_grad():
        return torch.cat([teacher(part).softmax(dim=-1) for part in images.split(_BATCH)])
