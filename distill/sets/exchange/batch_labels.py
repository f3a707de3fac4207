"""Soft labels that SRe2L, CV-DD and others store by batches: epoch_E/batch_B.tar.

A file is [crops, flips, partners, share, box, logits] of the views of one batch. Which images they
are follows from the order in which torch's RandomSampler draws them from a seed, 42 by default, out
of torchvision's ImageFolder. Source: SRe2L, relabel/generate_soft_label.py and utils_fkd.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, SupportsFloat

import torch
from torch import Tensor
from torch.utils.data import RandomSampler

from distill.errors import WorkError
from distill.store.foreign import is_plain, load_torch
from distill.store.large_arrays import is_large
from synth.augment import Mix
from synth.committee.relabel import StoredMixes, StoredVotes, VotedLogits
from synth.training.batches import split_batches

SEED = 42

# A crop is warped back to the size of the image, and then mirrored or not.
_FAMILIES = ("resize", "flip")

_NUMBERED = re.compile(r"(?:epoch|batch)_(\d+)(?:\.tar)?")


@dataclass(frozen=True)
class _Batch:
    """The views of a batch of b images.

    Attributes:
        crops: [b, 4] float32 top, left, height and width as fractions of the image.
        flips: [b] float32, 1 for a mirrored view.
        mix: of the batch, or None.
        logits: [b, k] float16.
    """

    crops: Tensor
    flips: Tensor
    mix: Mix | None
    logits: Tensor

    def views(self, size: Sequence[int]) -> Tensor:
        """Parameters [b, 5] float16 of `_FAMILIES` for images of (h, w) pixels.

        From the crop's corner to its centre, in coordinates from -1 to 1 between the middles of the
        outermost pixels.
        """
        top, left, height, width = self.crops.unbind(dim=1)
        centres = [
            (2 * start * side + extent * side - 1) / (side - 1) - 1
            for start, extent, side in zip((top, left), (height, width), size, strict=True)
        ]
        return torch.stack([height, width, *centres, self.flips], dim=1).half()


@dataclass(frozen=True)
class _FiledLogits:
    """Logits [e, n, k] of more than fit into memory, read by epochs from their files."""

    files: tuple[tuple[Path, ...], ...]
    shape: torch.Size
    order: Tensor

    def __getitem__(self, index: Any, /) -> Tensor:
        row, rows = index if isinstance(index, tuple) else (index, slice(None))
        logits = torch.cat([_read_batch(file).logits for file in self.files[row]])
        return logits[rows][:, self.order]


def holds_batch_labels(path: Path) -> bool:
    """Whether a folder holds soft labels by batches."""
    return (path / "epoch_0" / "batch_0.tar").is_file()


def read_batch_labels(
    folder: Path, shape: Sequence[int], columns: Tensor, temperature: float, seed: int = SEED
) -> StoredVotes:
    """The soft labels of a folder; ids number the images as torchvision's ImageFolder does.

    Args:
        folder: that holds epoch_0, epoch_1 and so on.
        shape: [n, c, h, w] of the set's images, of at least 2x2 pixels.
        columns: int64 [k], for each class of the set which of the labels' columns it is.
        temperature: at which students match the logits.
        seed: of the sampler.

    Raises:
        WorkError: if files are missing or damaged, or are labels of another set.
    """
    epochs = _numbered(folder, "epoch_*")
    files = tuple(tuple(_numbered(epoch, "batch_*.tar")) for epoch in epochs)
    if not files or not all(files):
        raise WorkError(f"{folder} holds no epoch_0/batch_0.tar; name the folder of soft labels")
    first = _read_batch(files[0][0])
    size, classes = first.logits.shape
    if classes != len(columns):
        raise WorkError(
            f"{folder} holds labels of {classes} classes, the set has {len(columns)}; name others"
        )
    views, mixes, logits = [], [], []
    images, _, *sides = shape
    stored = torch.Size((len(files), images, classes))
    large = is_large(stored, 2)
    for own in files:
        batches = [_read_batch(file) for file in own]
        _check_epoch(own[0].parent, batches, images, size)
        views.append(torch.cat([batch.views(sides) for batch in batches]))
        mixes.append([batch.mix for batch in batches if batch.mix is not None])
        if not large:
            logits.append(torch.cat([batch.logits for batch in batches])[:, columns])
    held: VotedLogits = _FiledLogits(files, stored, columns) if large else torch.stack(logits)
    return StoredVotes(
        _drawn(images, len(files), seed),
        torch.stack(views),
        held,
        _FAMILIES,
        size,
        temperature,
        batch_statistics=False,
        mixes=StoredMixes.stack(mixes),
    )


def in_set_order(votes: StoredVotes, order: Tensor) -> StoredVotes:
    """The labels of a set whose images [n] were put into another order, by their old places."""
    return replace(votes, ids=order.argsort()[votes.ids])


def _numbered(folder: Path, pattern: str) -> list[Path]:
    """Files or folders 0, 1, 2 and so on; raises WorkError if one is missing."""
    by_number = {int(m[1]): p for p in folder.glob(pattern) if (m := _NUMBERED.fullmatch(p.name))}
    missing = set(range(len(by_number))) - set(by_number)
    if missing:
        raise WorkError(
            f"{folder} lacks {pattern.replace('*', str(min(missing)))}; the order of images is "
            "drawn for all epochs: get the whole folder"
        )
    return [by_number[number] for number in range(len(by_number))]


def _drawn(images: int, epochs: int, seed: int) -> Tensor:
    """The image [e, n] at each position of each epoch."""
    generator = torch.Generator().manual_seed(seed)
    sampler = RandomSampler(range(images), generator=generator)
    return torch.stack([torch.tensor(list(sampler)) for _ in range(epochs)])


def _check_epoch(folder: Path, batches: Sequence[_Batch], images: int, size: int) -> None:
    counts = [len(batch.logits) for batch in batches]
    wanted = [min(size, images - start) for start in range(0, images, size)]
    mixed = {None if batch.mix is None else batch.mix.kind for batch in batches}
    if counts != wanted or len(mixed) > 1:
        raise WorkError(
            f"{folder} holds {sum(counts)} labels in batches of {size}, the set {images} images; "
            "name the labels of these images"
        )
    if len(split_batches(images, size)) != len(batches) and None not in mixed:
        raise WorkError(f"{folder} ends in a batch of one mixed image, which students cannot have")


def _read_batch(file: Path) -> _Batch:
    content = load_torch(file)
    if not isinstance(content, list | tuple) or len(content) < 3:
        raise WorkError(f"{file} is no list of crops, flips and logits; name labels of SRe2L")
    crops, flips, logits = content[0], content[1], content[-1]
    count = len(logits) if is_plain(logits) and logits.ndim == 2 else 0
    if (
        not count
        or not is_plain(crops)
        or crops.shape != (count, 4)
        or not is_plain(flips)
        or flips.shape != (count,)
        or not bool(logits.isfinite().all() and crops.isfinite().all())
    ):
        raise WorkError(f"{file} holds no crops [b, 4], flips [b] and logits [b, k]; get it again")
    return _Batch(
        crops.detach().float(),
        flips.detach().float(),
        _mix(file, content[2:-1], count),
        logits.detach().half(),
    )


def _mix(file: Path, stated: Sequence[Any], count: int) -> Mix | None:
    """The mix of [partners, share, box]; all None where nothing was mixed."""
    partners = next((value for value in stated if isinstance(value, Tensor)), None)
    box = next((value for value in stated if isinstance(value, list | tuple)), None)
    share = next((value for value in stated if isinstance(value, float)), None)
    if partners is None:
        return None
    kind: Literal["cutmix", "mixup"] = "mixup" if box is None else "cutmix"
    given = box or ([] if share is None else [share])
    # NumPy's numbers are numbers too.
    numbers = [float(value) for value in given if isinstance(value, SupportsFloat)]
    fits = is_plain(partners) and partners.shape == (count,) and not partners.is_floating_point()
    if (
        not fits
        or len(numbers) != {"mixup": 1, "cutmix": 4}[kind]
        or not 0 <= int(partners.min()) <= int(partners.max()) < count
    ):
        raise WorkError(f"{file} holds no mix of its {count} views; get it again")
    if kind == "cutmix":
        top, left, bottom, right = numbers
        numbers = [top, bottom, left, right]
    return Mix(kind, partners.long(), torch.tensor(numbers))
