"""What the numbers in another program's labels mean.

The numbers tell classes, one-hot rows, probabilities and log-probabilities apart. Others may be
logits, or centred as in FRePo: these must be asked for, or be known from the layout.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distill.errors import RecipeError, WorkError

CLASSES, PROBABILITIES, LOGITS, CENTRED = "classes", "probabilities", "logits", "centred"

# What `--labels` takes.
FORMS = (CLASSES, PROBABILITIES, LOGITS, CENTRED)

# The sum of a row of probabilities may be off by rounding to 16 bits.
_SUM_TOLERANCE = 5e-3

_ROUNDING = 1e-5

# Probabilities are taken to be at least this, so that their logarithms are finite.
_LEAST = 1e-8


@dataclass(frozen=True)
class Labels:
    """The labels of a set, understood.

    Attributes:
        form: one of `FORMS`, what the numbers were.
        hard: [n] int64 classes; None where there are soft labels.
        soft: [n, k] float32 label logits, or None.
    """

    form: str
    hard: Tensor | None = None
    soft: Tensor | None = None

    @property
    def count(self) -> int:
        """The number of classes that the labels speak of."""
        if self.soft is not None:
            return self.soft.shape[1]
        return 0 if self.hard is None else int(self.hard.max()) + 1

    def classes(self) -> Tensor:
        """The class [n] of each image.

        Of soft labels the likeliest, or equal blocks of classes as DATM's images lie, where most
        rows agree with them: a learned label may favour another class than that of its image.
        """
        if self.hard is not None:
            return self.hard
        if self.soft is None:
            raise ValueError("there are neither classes nor soft labels")
        n, k = self.soft.shape
        likeliest = self.soft.argmax(dim=1)
        if n % k:
            return likeliest
        blocks = torch.arange(k).repeat_interleave(n // k)
        return blocks if float((blocks == likeliest).float().mean()) > 0.5 else likeliest


def read_labels(values: Tensor, origin: Path, asked: str = "", signed: str = "") -> Labels:
    """Understand labels by their numbers.

    Args:
        values: [n], [n, 1] or [n, k] real numbers.
        origin: where they come from, for messages.
        asked: one of `FORMS`, which the numbers must allow; "" for what they say themselves.
        signed: what numbers mean in this layout that say nothing themselves; "" if not known.

    Raises:
        RecipeError: if it must be asked for what the numbers mean.
        WorkError: if they are no labels, or not what was asked for.
    """
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim not in (1, 2) or not values.numel():
        raise WorkError(
            f"{origin} holds labels {tuple(values.shape)}; classes [n] or rows [n, k] are needed"
        )
    if values.ndim == 1:
        if asked not in ("", CLASSES):
            raise WorkError(f"{origin} holds one number per image, not {asked}; leave out --labels")
        return Labels(CLASSES, hard=_classes(values, origin))
    numbers = values.detach().double()
    _check_numbers(numbers, origin)
    told = _told(numbers)
    form = asked or told or signed
    if not form:
        raise RecipeError(f"{origin}: {_question(numbers)}")
    if form == CLASSES and told != CLASSES:
        raise WorkError(f"{origin} holds rows that are not one-hot; give another --labels")
    if form == PROBABILITIES and told not in (PROBABILITIES, CLASSES):
        raise WorkError(
            f"{origin} holds no probabilities: {_range(numbers)}; give another --labels"
        )
    if form == CLASSES:
        return Labels(CLASSES, hard=numbers.argmax(dim=1))
    return Labels(form, soft=_as_logits(values, form))


def _classes(values: Tensor, origin: Path) -> Tensor:
    """Classes [n], also where they are stored as floats."""
    numbers = values.detach().double()
    if not bool((numbers.isfinite() & (numbers == numbers.round()) & (numbers >= 0)).all()):
        raise WorkError(
            f"{origin} holds labels {tuple(values.shape)} of {values.dtype}, not classes: whole "
            "numbers from 0 on are needed"
        )
    return values.long()


def _check_numbers(numbers: Tensor, origin: Path) -> None:
    # The logarithm of a probability of zero is minus infinity.
    if not bool((numbers.isfinite() | (numbers == -torch.inf)).all()):
        raise WorkError(f"{origin} holds labels that are NaN or infinite; name another file")
    if bool((numbers == -torch.inf).all(dim=1).any()):
        raise WorkError(f"{origin} holds a label that is minus infinity alone; name another file")


def _told(numbers: Tensor) -> str:
    """What the numbers [n, k] say that they are, or ""."""
    sums = numbers.sum(dim=1)
    if float(numbers.min()) >= -_ROUNDING and float((sums - 1).abs().max()) < _SUM_TOLERANCE:
        one_hot = bool(((numbers - numbers.round()).abs() < _ROUNDING).all())
        return CLASSES if one_hot else PROBABILITIES
    total = numbers.logsumexp(dim=1)
    if float(numbers.max()) <= _ROUNDING and float(total.abs().max()) < _SUM_TOLERANCE:
        return LOGITS
    return ""


def _question(numbers: Tensor) -> str:
    return (
        f"the labels may be logits, or probabilities less 1/k: {_range(numbers)}; give --labels "
        f"{LOGITS} or --labels {CENTRED}"
    )


def _range(numbers: Tensor) -> str:
    low, high = float(numbers.min()), float(numbers.max())
    sums = numbers.sum(dim=1)
    return (
        f"they lie from {low:.3g} to {high:.3g}, and their rows sum to {float(sums.min()):.3g} to "
        f"{float(sums.max()):.3g}"
    )


def _as_logits(values: Tensor, form: str) -> Tensor:
    """Label logits [n, k] float32 of rows in a form."""
    rows = values.detach().float()
    if form == LOGITS:
        # log(0) of log-probabilities.
        return rows.clamp(min=float(np.log(np.float32(_LEAST)))) if rows.isinf().any() else rows
    if form == CENTRED:
        rows = (rows + 1 / rows.shape[1]).clamp(min=_LEAST)
        rows = rows / rows.sum(dim=1, keepdim=True)
    # NumPy's logarithm, whose bits do not depend on the number of threads.
    return torch.from_numpy(np.asarray(np.log(np.clip(rows.numpy(), _LEAST, None))))
