"""ZCA whitening of images: fitted in one pass over batches, applied and undone."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

LARGEST = 3 * 64 * 64


@dataclass(frozen=True, eq=False)
class Whitening:
    """An affine map that decorrelates pixels and stays as close to the image as it can (ZCA).

    With covariance U diag(s) U^T of the real images: transform = U diag((s + eps)^-1/2) U^T and
    inverse = U diag((s + eps)^1/2) U^T, both symmetric.

    Attributes:
        mean: [d] float32, per-pixel mean of the real images, d = c * h * w.
        transform: [d, d] float32.
        inverse: [d, d] float32, undoes `transform`.
        shape: (c, h, w) of the images.

    Raises:
        ValueError: if the sizes do not fit together.
    """

    mean: Tensor
    transform: Tensor
    inverse: Tensor
    shape: tuple[int, int, int]

    def __post_init__(self) -> None:
        d = math.prod(self.shape)
        sizes = tuple(self.mean.shape), tuple(self.transform.shape), tuple(self.inverse.shape)
        if sizes != ((d,), (d, d), (d, d)):
            raise ValueError(
                f"mean, transform and inverse are {sizes}, but images of {self.shape} need {d} "
                f"values and two {d} x {d} matrices; fit the whitening on images of that shape"
            )

    def apply(self, images: Tensor) -> Tensor:
        """Whitened `images` [n, c, h, w], same shape and dtype; differentiable.

        The arithmetic is at least float32, whatever the dtype of the images.

        Args:
            images: floats in the scale that the whitening was fitted on, on the same device.

        Raises:
            ValueError: for images of another shape.
            TypeError: for images that are not floats.
        """
        flat = self._flatten(images)
        mean, transform = self.mean.to(flat.dtype), self.transform.to(flat.dtype)
        return ((flat - mean) @ transform).to(images.dtype).reshape(images.shape)

    def invert(self, images: Tensor) -> Tensor:
        """Images [n, c, h, w] whose whitened form is `images`; differentiable.

        Args:
            images: [n, c, h, w] whitened floats, on the device of the whitening.

        Raises:
            ValueError: for images of another shape.
            TypeError: for images that are not floats.
        """
        flat = self._flatten(images)
        mean, inverse = self.mean.to(flat.dtype), self.inverse.to(flat.dtype)
        return (flat @ inverse + mean).to(images.dtype).reshape(images.shape)

    def to(self, device: torch.device | str) -> Whitening:
        """The same whitening with its tensors on `device`."""
        return Whitening(
            self.mean.to(device), self.transform.to(device), self.inverse.to(device), self.shape
        )

    def _flatten(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or tuple(images.shape[1:]) != self.shape:
            raise ValueError(
                f"images are {tuple(images.shape)}, but the whitening was fitted on (n, "
                f"{', '.join(map(str, self.shape))}); fit it again on images of this shape"
            )
        _check_floating(images)
        return images.flatten(1).to(torch.promote_types(images.dtype, self.mean.dtype))


def fit_whitening(
    batches: Iterable[Tensor], eps: float = 0.1, *, largest: int = LARGEST
) -> Whitening:
    """Fit ZCA whitening on real images in one pass.

    Mean and covariance (divided by n - 1) are accumulated in float64 on the device of the
    batches; memory is a few [d, d] matrices and one batch, however many images come. Source:
    `kornia.enhance.ZCAWhitening` as MTT uses it; the merging of batches is Chan et al. 1979.

    Args:
        batches: tensors [m, c, h, w] of one shape but for m, usually images in [0, 1].
        eps: added to the eigenvalues of the covariance, > 0; MTT uses 0.1.
        largest: most values d = c * h * w that an image may have.

    Raises:
        ValueError: if an image has more than `largest` values, the batches differ in shape, they
            hold fewer than 2 images or a value that is not finite, or `eps` is not positive.
        TypeError: for images that are not floats.
    """
    if not eps > 0:
        raise ValueError(f"eps is {eps}, which must be above 0; use 0.1 as MTT does")
    moments: _Moments | None = None
    for batch in batches:
        if moments is None:
            moments = _Moments.of(_checked_shape(batch, largest), batch.device)
        moments.add(batch.detach())
    if moments is None or moments.count < 2:
        count = 0 if moments is None else moments.count
        raise ValueError(f"got {count} images, but a covariance needs at least 2; give more images")
    return _from_moments(moments, eps)


def whitening_bytes(values: int) -> int:
    """Peak bytes of fitting on images of d = `values` values.

    In float64: the covariance, its eigenvectors, the eigensolver's workspace of about two more,
    and one product; then the two float32 matrices that stay.
    """
    return values**2 * (5 * 8 + 2 * 4)


def _checked_shape(batch: Tensor, largest: int) -> tuple[int, int, int]:
    if batch.ndim != 4:
        raise ValueError(
            f"a batch is {tuple(batch.shape)}, but whitening needs [m, c, h, w]; add the "
            "missing axes"
        )
    _check_floating(batch)
    c, h, w = batch.shape[1:]
    d = c * h * w
    if d > largest:
        matrix = 8 * d * d
        raise ValueError(
            f"images of {c}x{h}x{w} have {d:,} values, and each {d:,} x {d:,} float64 matrix "
            f"would take {matrix:,} bytes ({matrix / 1e9:.1f} GB), but whitening is limited to "
            f"{largest:,} values; shrink the images, normalise per channel or raise `largest`"
        )
    return c, h, w


def _check_floating(images: Tensor) -> None:
    if not images.is_floating_point():
        raise TypeError(f"images are {images.dtype}, but whitening needs floats; divide by 255")


@dataclass
class _Moments:
    """Running mean [d] and scatter [d, d] (sum of outer products around the mean), float64."""

    shape: tuple[int, int, int]
    mean: Tensor
    scatter: Tensor
    count: int = 0

    @classmethod
    def of(cls, shape: tuple[int, int, int], device: torch.device) -> _Moments:
        d = math.prod(shape)
        mean = torch.zeros(d, dtype=torch.float64, device=device)
        return cls(shape, mean, torch.zeros(d, d, dtype=torch.float64, device=device))

    def add(self, batch: Tensor) -> None:
        if tuple(batch.shape[1:]) != self.shape:
            raise ValueError(
                f"a batch is {tuple(batch.shape)} after images of {self.shape}; "
                "give images of one shape"
            )
        added = len(batch)
        if added == 0:
            return
        flat = batch.flatten(1).to(torch.float64)
        mean = flat.mean(0)
        centred = flat - mean
        total = self.count + added
        step = mean - self.mean
        # Each batch is centred on its own mean: a sum of raw squares would lose a small variance
        # on top of a large mean.
        self.scatter.addmm_(centred.T, centred)
        self.scatter.addr_(step, step, alpha=self.count * added / total)
        self.mean += step * (added / total)
        self.count = total


def _from_moments(moments: _Moments, eps: float) -> Whitening:
    if not moments.scatter.diagonal().isfinite().all():
        raise ValueError("the images hold nan or infinite values; remove them before whitening")
    covariance = moments.scatter.div_(moments.count - 1)
    spectrum, basis = torch.linalg.eigh(covariance)
    # Rounding leaves the zero eigenvalues of constant pixels slightly negative.
    deviation = (spectrum.clamp(min=0) + eps).sqrt()
    return Whitening(
        mean=moments.mean.float(),
        transform=((basis / deviation) @ basis.T).float(),
        inverse=((basis * deviation) @ basis.T).float(),
        shape=moments.shape,
    )
