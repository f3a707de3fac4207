"""What the label codecs encode: the logits of every label epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from projectors.codecs.errors import CodecError

DTYPES = {"float16": torch.float16, "float32": torch.float32}

# The decoded probability of a class that is not stored: for a student the same as 0. All such
# classes together take at most k * 2^-26 from the others.
FLOOR = 2.0**-26

# Above it, temperature * log(FLOOR) would exceed float16.
MAX_TEMPERATURE = 1000.0

_REPEATED = "these labels repeat a pruned pool; encode the labels that it was made of"


@dataclass(frozen=True)
class LabelSpec:
    """The shape of `Labels`, without the numbers.

    Attributes:
        epochs: e >= 1, label epochs.
        images: n >= 1, labelled views of an epoch.
        classes: k >= 2.
        dtype: "float16" or "float32", of the logits.
        temperature: softmax divisor at which students read the logits, in (0, 1000].
    """

    epochs: int
    images: int
    classes: int
    dtype: str = "float16"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("images", 1), ("classes", 2)):
            value = getattr(self, name)
            if type(value) is not int or not least <= value < 2**31:
                raise CodecError(f"{name}={value!r}, but labels need an int of at least {least}")
        if self.dtype not in DTYPES:
            raise CodecError(f"logits are {self.dtype}; convert them to float16 or float32")
        if (
            type(self.temperature) not in (int, float)
            or not 0 < self.temperature <= MAX_TEMPERATURE
        ):
            raise CodecError(f"temperature={self.temperature!r}, but it must lie in (0, 1000]")

    @property
    def labels(self) -> int:
        """The number of labels, e * n."""
        return self.epochs * self.images

    @property
    def decoded_bytes(self) -> int:
        """Bytes of the logits in memory."""
        return self.labels * self.classes * DTYPES[self.dtype].itemsize


@dataclass(frozen=True, eq=False)
class Sources:
    """Where each label of a pruned pool came from, and so the view that it belongs to.

    The label at [t, i] is that of the view at position `places[t, i]` of label epoch
    `epochs[t, i]`, so training epoch t shows that view at position i.

    Attributes:
        epochs: [e, n] int64, label epochs.
        places: [e, n] int64, positions within that label epoch.
    """

    epochs: Tensor
    places: Tensor


@dataclass(frozen=True, eq=False)
class Labels:
    """The soft labels of n views in each of e label epochs.

    Attributes:
        logits: [e, n, k] finite, float16 or float32, views in the order of the set's ids.
        temperature: softmax divisor at which students read them, in (0, 1000].
        sources: None if each label belongs to the view at its own position, else its origin.

    Raises:
        CodecError: for another shape, dtype or temperature, or a logit that is not finite.
    """

    logits: Tensor
    temperature: float = 1.0
    sources: Sources | None = None

    def __post_init__(self) -> None:
        if self.logits.dim() != 3:
            raise CodecError(
                f"logits have shape {list(self.logits.shape)}, but labels need [e, n, k]; "
                "add the dimension of the label epochs"
            )
        _ = self.spec
        if not bool(torch.isfinite(self.logits).all()):
            raise CodecError("logits hold NaN or infinity; clamp them or label the images again")

    @property
    def spec(self) -> LabelSpec:
        """Shape, dtype and temperature."""
        epochs, images, classes = self.logits.shape
        dtype = str(self.logits.dtype).removeprefix("torch.")
        return LabelSpec(epochs, images, classes, dtype, self.temperature)

    def probabilities(self) -> Tensor:
        """[e, n, k] float32 soft labels at the labels' temperature; rows sum to 1."""
        return torch.softmax(self.logits.float() / self.temperature, dim=-1)


def from_rows(rows: Tensor, spec: LabelSpec) -> Labels:
    """Labels of decoded logits [e * n, k], rounded to their dtype and clamped to its range.

    Raises:
        CodecError: if a number is NaN.
    """
    dtype = DTYPES[spec.dtype]
    largest = torch.finfo(dtype).max
    logits = rows.clamp(-largest, largest).to(dtype)
    return Labels(logits.reshape(spec.epochs, spec.images, spec.classes), spec.temperature)


def from_probabilities(rows: Tensor, spec: LabelSpec) -> Labels:
    """Labels whose probabilities are `rows` [e * n, k], each at least 2^-26 before normalising."""
    return from_rows(spec.temperature * rows.clamp_min(FLOOR).log(), spec)


def epochs_of(labels: Labels) -> Iterator[Labels]:
    """The labels of one epoch after the other, so that float64 copies of them stay small."""
    if labels.sources is not None:
        raise CodecError(_REPEATED)
    for epoch in labels.logits:
        yield Labels(epoch[None], labels.temperature)


def log_probability_rows(labels: Labels) -> Tensor:
    """Log probabilities [e * n, k] in float64 at the labels' temperature, on the CPU."""
    rows = logit_rows(labels).double() / labels.temperature
    return torch.log_softmax(rows, dim=-1)


def logit_rows(labels: Labels) -> Tensor:
    """Logits [e * n, k] in float32 on the CPU.

    Raises:
        CodecError: for labels decoded from a pruned pool: the pool itself is to be encoded.
    """
    if labels.sources is not None:
        raise CodecError(_REPEATED)
    return labels.logits.detach().cpu().float().flatten(0, 1)


def check_integer(name: str, value: Any, least: int) -> None:
    """Refuse a codec's field that is no int of at least `least`.

    Raises:
        CodecError: naming the field.
    """
    # A generator takes no larger seed.
    if type(value) is not int or not least <= value < 2**63:
        raise CodecError(f"{name}={value!r}, but it must be an int of at least {least}")


def check_real(name: str, value: Any, low: float, high: float, *, closed: bool = False) -> None:
    """Refuse a codec's field outside (low, high), or outside [low, high) if `closed`.

    Raises:
        CodecError: naming the field.
    """
    right = type(value) in (int, float) and math.isfinite(value)
    if not right or not (low < value < high or (closed and value == low)):
        raise CodecError(
            f"{name}={value!r}, but it must lie in {'[' if closed else '('}{low}, {high})"
        )


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Refuse a codec's field that is none of `choices`.

    Raises:
        CodecError: naming the field and the choices.
    """
    if value not in choices:
        raise CodecError(f"{name}={value!r}; choose one of {', '.join(choices)}")
