"""Per-channel normalisation of pixels, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from distill.data.splits import DataError, check_images
from synth.images import Images
from synth.whitening import Whitening, fit_whitening

# A channel that never changes would be divided by zero.
_STD_FLOOR = 1e-3

# Values of all channels that are read at once: 8 MB.
_BATCH_VALUES = 1 << 21


@dataclass(frozen=True)
class Preprocess:
    """(pixels - mean) / std for each channel; differentiable, on the images' device and dtype.

    Attributes:
        mean: one finite number per channel, in pixel units ([0, 1]).
        std: one finite number above 0 per channel, in pixel units.

    Raises:
        DataError: when the lengths differ or a number is not of that kind.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.mean or len(self.mean) != len(self.std):
            raise DataError(
                f"mean has {len(self.mean)} and std {len(self.std)} numbers, "
                "one of each per channel is needed; give both the same length"
            )
        if not all(math.isfinite(value) for value in (*self.mean, *self.std)):
            raise DataError(
                f"mean {self.mean} and std {self.std} came, finite numbers are needed; fit again"
            )
        if min(self.std) <= 0:
            raise DataError(f"std {self.std} came, numbers above 0 are needed; fit again")

    def __call__(self, pixels: Tensor) -> Tensor:
        """Normalise.

        Args:
            pixels: floating [..., c, h, w] in [0, 1].

        Returns:
            Images of the same shape, about mean 0 and standard deviation 1.

        Raises:
            DataError: when the pixels are not floating or c is another number of channels.
        """
        mean, std = self._columns(pixels)
        return (pixels - mean) / std

    def inverse(self, images: Tensor) -> Tensor:
        """Turn normalised images [..., c, h, w] into pixels; not clamped to [0, 1].

        Raises:
            DataError: when the images are not floating or c is another number of channels.
        """
        mean, std = self._columns(images)
        return images * std + mean

    def bounds(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Black and white [c, 1, 1] as normalised, float32 on the device."""
        pixel = torch.ones(len(self.mean), 1, 1, device=device)
        return self(0 * pixel), self(pixel)

    def to_dict(self) -> dict[str, list[float]]:
        """A form for JSON; `from_dict` reads it back exactly."""
        return {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, stored: Mapping[str, object]) -> Preprocess:
        """Read what `to_dict` wrote.

        Raises:
            DataError: when a key is missing or unknown, or a value is no list of numbers.
        """
        if set(stored) != {"mean", "std"}:
            raise DataError(
                f"preprocess has the keys {sorted(stored)}, mean and std are needed; store both"
            )
        return cls(_numbers("mean", stored["mean"]), _numbers("std", stored["std"]))

    def _columns(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if not images.is_floating_point():
            raise DataError(
                f"images of {images.dtype} came, floating values are needed; divide bytes by 255"
            )
        if images.ndim < 3 or images.shape[-3] != len(self.mean):
            raise DataError(
                f"images of shape {tuple(images.shape)} came, [..., {len(self.mean)}, h, w] is "
                "needed; change the channels or fit again"
            )
        return (
            _column(self.mean, images.dtype, images.device),
            _column(self.std, images.dtype, images.device),
        )


def fit_preprocess(*sources: Images) -> Preprocess:
    """Mean and (population) standard deviation of each channel; std is at least 0.001.

    Args:
        sources: training images, float32 [n, c, h, w] in [0, 1]; of several, all together. They
            are read once, in batches.

    Raises:
        DataError: when the images are not of that form.
    """
    channels: list[_Moments] = []
    for images in sources:
        for batch in images.split(max(1, _BATCH_VALUES // math.prod(images.shape[1:]))):
            check_images(batch)
            channels = channels or [_Moments() for _ in range(batch.shape[1])]
            for moments, channel in zip(channels, batch.detach().unbind(dim=1), strict=True):
                moments.add(channel)
    stds = tuple(max(moments.std, _STD_FLOOR) for moments in channels)
    return Preprocess(tuple(moments.mean for moments in channels), stds)


class _Moments:
    """Mean and spread of the values of one channel; batches are merged as in Chan et al. 1979."""

    def __init__(self) -> None:
        self.count, self.mean, self._scatter = 0, 0.0, 0.0

    def add(self, values: Tensor) -> None:
        """Add values [n, h, w]; float64 sums are accurate enough for any number of pixels."""
        std, own = torch.std_mean(values.double(), correction=0)
        added = values.numel()
        step, total = float(own) - self.mean, self.count + added
        self._scatter += float(std) ** 2 * added + step**2 * self.count * added / total
        self.mean += step * added / total
        self.count = total

    @property
    def std(self) -> float:
        """The population standard deviation."""
        return math.sqrt(self._scatter / self.count)


@lru_cache(maxsize=64)
def _column(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """[c, 1, 1]; cached, as a copy from the host in each call would synchronise the device."""
    # A tensor first made inside inference mode could not be used for gradients afterwards.
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device).reshape(-1, 1, 1)


def _numbers(key: str, stored: object) -> tuple[float, ...]:
    if not isinstance(stored, list | tuple) or not all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in stored
    ):
        raise DataError(f"preprocess {key} is {stored!r}, a list of numbers is needed; fit again")
    return tuple(float(value) for value in stored)


_WHITENING_BATCH = 2000


@dataclass(frozen=True)
class ZCAPreprocess:
    """Pixels in [0, 1] -> whitened images, and back; see `synth.whitening`."""

    whitening: Whitening

    def __call__(self, pixels: Tensor) -> Tensor:
        """Whiten pixels [n, c, h, w]."""
        return self.whitening.to(pixels.device).apply(pixels)

    def inverse(self, images: Tensor) -> Tensor:
        """Pixels [n, c, h, w] of whitened images; not clamped to [0, 1]."""
        return self.whitening.to(images.device).invert(images)


AnyPreprocess = Preprocess | ZCAPreprocess


def fit_zca(*sources: Images) -> ZCAPreprocess:
    """Fit on training pixels [n, c, h, w], of all sources, as MTT does with kornia (eps 0.1).

    Raises:
        ValueError: if the images are so large that the matrix would not fit.
    """
    batches = (batch for images in sources for batch in images.split(_WHITENING_BATCH))
    return ZCAPreprocess(fit_whitening(batches))
