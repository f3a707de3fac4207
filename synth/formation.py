"""Several images in one: each stored image is a grid of small cells, enlarged when used.

The multi-formation of IDC (Kim et al. 2022). Where a side h is not a multiple of the factor f,
IDC cuts cells of ceil(h / f) pixels from an image padded with grey, while its initialisation
writes cells of two sizes. Here both directions use the same cut without padding: the first h % f
rows of cells are one pixel higher than the others (columns alike), so each stored pixel belongs
to one cell and nothing is padded. For multiples of f this is IDC's cut.
"""

from __future__ import annotations

from itertools import accumulate, pairwise, product

import torch
from torch import Tensor
from torch.nn.functional import interpolate

SMALLEST_CELL = 2


def decode_images(images: Tensor, factor: int) -> Tensor:
    """Cut each image into factor x factor cells and enlarge each to the whole size.

    Bilinear with `align_corners=False`, as IDC; differentiable. The factor^2 images of stored
    image 0 come first, row by row of its grid, then those of image 1. IDC orders by cell first.

    Args:
        images: [n, c, h, w] floats.
        factor: f, cells along a side; 1 returns `images` themselves.

    Returns:
        [n * f * f, c, h, w].

    Raises:
        ValueError: for a factor below 1 or cells of less than 2 pixels a side.
    """
    cells = _cells(images, factor)
    if factor == 1:
        return images
    size = images.shape[-2:]
    large = [
        interpolate(images[:, :, rows, columns], size, mode="bilinear", align_corners=False)
        for rows, columns in cells
    ]
    return torch.stack(large, dim=1).flatten(0, 1)


def decode_labels(labels: Tensor, factor: int) -> Tensor:
    """Labels [n * f * f, ...] of the decoded images: each of `labels` [n, ...] f * f times.

    Args:
        labels: one row or number for each stored image.
        factor: f, as in `decode_images`.

    Raises:
        ValueError: for a factor below 1.
    """
    _check_factor(factor)
    return labels.repeat_interleave(factor**2, dim=0)


def encode_images(images: Tensor, factor: int) -> Tensor:
    """Shrink each image to a cell and tile factor x factor of them, to start from real images.

    Bilinear with antialiasing. The first f * f images fill image 0, row by row; those that share
    an image share its label, so give them class by class.

    Args:
        images: [n * f * f, c, h, w] floats.
        factor: f, cells along a side; 1 returns a copy.

    Returns:
        [n, c, h, w], never a view of `images`.

    Raises:
        ValueError: for a factor below 1, cells of less than 2 pixels a side, or a number of images
            that is not a multiple of f * f.
    """
    cells = _cells(images, factor)
    if factor == 1:
        return images.clone()
    if len(images) % factor**2:
        raise ValueError(
            f"got {len(images)} images, but factor {factor} tiles {factor**2} in one; give a "
            f"multiple of {factor**2}"
        )
    stored = images.new_empty(len(images) // factor**2, *images.shape[1:])
    for cell, (rows, columns) in enumerate(cells):
        size = rows.stop - rows.start, columns.stop - columns.start
        stored[:, :, rows, columns] = interpolate(
            images[cell :: factor**2], size, mode="bilinear", align_corners=False, antialias=True
        )
    return stored


def _cells(images: Tensor, factor: int) -> list[tuple[slice, slice]]:
    """Rows and columns of each of the factor^2 cells, row by row of the grid."""
    _check_factor(factor)
    if images.ndim != 4:
        raise ValueError(
            f"images are {tuple(images.shape)}, but a formation needs [n, c, h, w]; add the "
            "missing axes"
        )
    h, w = images.shape[-2:]
    if factor > 1 and min(h, w) // factor < SMALLEST_CELL:
        raise ValueError(
            f"factor {factor} cuts images of {h}x{w} into cells of {h // factor}x{w // factor} "
            f"pixels, but a cell needs at least {SMALLEST_CELL} a side; lower the factor to "
            f"{max(1, min(h, w) // SMALLEST_CELL)}"
        )
    return list(product(_pieces(h, factor), _pieces(w, factor)))


def _pieces(length: int, factor: int) -> list[slice]:
    """`length` pixels in `factor` pieces, the first `length % factor` one pixel longer."""
    small, longer = divmod(length, factor)
    borders = accumulate((small + (i < longer) for i in range(factor)), initial=0)
    return [slice(start, stop) for start, stop in pairwise(borders)]


def _check_factor(factor: int) -> None:
    if factor < 1:
        raise ValueError(f"factor is {factor}, which must be at least 1; 1 stores plain images")
