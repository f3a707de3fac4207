"""Voted labels inside a set: /labels/full-fp16.

Its datasets are logits [e, n, k] and, unless they come from the seed of the run, ids [e, n],
views [e, n, v] and, for mixed views, partners [e, n] and mixes [e, b, m]. Its attributes are
families, batch_size, temperature, batch_statistics, parts, mix and, for views that come from the
seed, seed and drawn: a digest of what it must draw. asked is there if the teachers labelled only
some.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import h5py
import numpy as np
import torch
from torch import Tensor

from distill.errors import WorkError
from distill.recipes.build import generator_for
from distill.store.hdf5 import get_json, put, put_json, read_array, smallest_unsigned
from distill.store.large_arrays import put_large, read_large
from synth.augment import Augmentation, MixKind
from synth.augment.mix import MIX_WIDTHS
from synth.committee.relabel import StoredMixes, StoredVotes, draw_mixes, draw_views
from synth.training.batches import split_batches

DrawnViews = tuple[Tensor, Tensor, StoredMixes | None]

# Key, with the epoch, of the generators of labelled views.
RELABEL = "relabel"

_CHUNK_VALUES = 1 << 26


@dataclass(frozen=True)
class ViewPlan:
    """All that determines, with the seed of a run, the ids, views and mixes of its labels.

    Attributes:
        images: n, that students see.
        size: (h, w) of them in pixels.
        families: augmentation families.
        batch_size: images that are mixed together.
        mix: how.
    """

    images: int
    size: tuple[int, int]
    families: tuple[str, ...]
    batch_size: int
    mix: MixKind

    def draw(self, seed: int, epochs: int) -> DrawnViews:
        """Ids [e, n], float16 views [e, n, v] and mixes, as the stage relabel draws them."""
        slices = split_batches(self.images, self.batch_size)
        ids, views, mixes = [], [], []
        for epoch in range(epochs):
            generator = generator_for(seed, RELABEL, epoch)
            order, view = draw_views(self.images, self.size, Augmentation(self.families), generator)
            ids.append(order)
            views.append(view.to_tensor(self.images).half())
            mixes.append(draw_mixes(self.mix, slices, self.size, generator))
        return torch.stack(ids), torch.stack(views), StoredMixes.stack(mixes)


def put_votes(group: h5py.Group, votes: StoredVotes) -> None:
    """Write voted labels into their group; ids, views and mixes only if no seed draws them."""
    put_json(group, "families", list(votes.families))
    group.attrs["batch_size"] = votes.batch_size
    group.attrs["temperature"] = votes.temperature
    group.attrs["batch_statistics"] = votes.batch_statistics
    group.attrs["parts"] = votes.parts
    group.attrs["mix"] = "none" if votes.mixes is None else votes.mixes.kind
    if votes.queried is not None:
        group.attrs["asked"] = votes.queried
    _, n, k = votes.logits.shape
    # An epoch per chunk, or part of one: HDF5 chunks are smaller than 4 GB.
    chunks = (1, max(1, min(n, _CHUNK_VALUES // max(k, 1))), k)
    put_large(group, "logits", votes.logits, np.float16, chunks)
    if votes.seed is not None:
        group.attrs["seed"] = votes.seed
        group.attrs["drawn"] = _digest((votes.ids, votes.views, votes.mixes))
        return
    for name, array in stored_views(votes).items():
        put(group, name, array, None)


def view_bytes(votes: StoredVotes) -> int:
    """Bytes of ids, views and mixes as stored: none where they come from the seed."""
    if votes.seed is not None:
        return 0
    return sum(array.nbytes for array in stored_views(votes).values())


def stored_views(votes: StoredVotes) -> dict[str, np.ndarray]:
    """Ids, views and mixes as they are stored where no seed draws them, see `drawn_arrays`."""
    images = votes.ids.shape[1]
    largest = max(
        batch_slice.stop - batch_slice.start
        for batch_slice in split_batches(images, votes.batch_size)
    )
    return drawn_arrays((votes.ids, votes.views, votes.mixes), images, largest)


def drawn_arrays(drawn: DrawnViews, images: int, largest_batch: int) -> dict[str, np.ndarray]:
    """Ids, views, partners and mixes as they are stored, by their datasets' names.

    Args:
        drawn: ids [e, n], float16 views [e, n, v] and mixes, or a part of them.
        images: that the ids number.
        largest_batch: images of one; the last batch may take in an image that was left over.
    """
    ids, views, mixes = drawn
    arrays = {"ids": ids.numpy().astype(smallest_unsigned(images)), "views": views.numpy()}
    if mixes is not None:
        arrays["partners"] = mixes.partners.numpy().astype(smallest_unsigned(largest_batch))
        arrays["mixes"] = mixes.parameters.numpy()
    return arrays


def read_votes(group: h5py.Group, size: Sequence[int]) -> StoredVotes:
    """Read voted labels.

    Args:
        group: /labels/full-fp16.
        size: (h, w) of the images.

    Raises:
        WorkError: if a seed does not draw here what it drew when the labels were made.
    """
    logits = read_large(group, "logits", np.float16)
    families = tuple(get_json(group, "families"))
    batch_size = int(group.attrs["batch_size"])
    kind: MixKind = str(group.attrs.get("mix", "none"))  # type: ignore[assignment]
    seed = int(group.attrs["seed"]) if "seed" in group.attrs else None
    if seed is None:
        drawn = read_drawn(group, kind)
    else:
        height, width = size
        plan = ViewPlan(logits.shape[1], (height, width), families, batch_size, kind)
        drawn = plan.draw(seed, logits.shape[0])
        if _digest(drawn) != group.attrs["drawn"]:
            raise WorkError(
                f"{group.file.filename}: seed {seed} does not draw the views of its labels on "
                "this machine; use the version of torch that made them, or make them again with "
                "relabel.views = stored"
            )
    return StoredVotes(
        *drawn[:2],
        logits,
        families,
        batch_size,
        float(group.attrs["temperature"]),
        bool(group.attrs["batch_statistics"]),
        drawn[2],
        int(group.attrs.get("parts", 1)),
        seed,
        int(group.attrs["asked"]) if "asked" in group.attrs else None,
    )


def read_drawn(group: h5py.Group, kind: MixKind) -> DrawnViews:
    """Ids, views and mixes that lie beside labels."""
    ids = torch.from_numpy(read_array(group, "ids").astype(np.int64))
    views = torch.from_numpy(read_array(group, "views"))
    if kind == "none":
        return ids, views, None
    partners = torch.from_numpy(read_array(group, "partners").astype(np.int64))
    return ids, views, StoredMixes(kind, partners, torch.from_numpy(read_array(group, "mixes")))


def votes_problem(votes: StoredVotes, images: int, classes: int) -> str | None:
    """What is wrong with voted labels of so many images and classes, or None."""
    epochs = len(votes.ids)
    if (
        not epochs
        or votes.logits.shape != (epochs, images, classes)
        or votes.ids.shape != (epochs, images)
        or votes.views.shape[:2] != (epochs, images)
        or int(votes.ids.max()) >= images
        or not _mixes_fit(votes, epochs, images)
    ):
        return "the voted labels do not fit the images"
    # Logits that are read in blocks have checksums, and were checked when written.
    in_memory = votes.logits if isinstance(votes.logits, Tensor) else votes.views
    if not bool(in_memory.isfinite().all() and votes.views.isfinite().all()):
        return "the voted labels hold NaN or infinite values"
    return None


def _mixes_fit(votes: StoredVotes, epochs: int, images: int) -> bool:
    if votes.mixes is None:
        return True
    slices = split_batches(images, votes.batch_size)
    shape = (epochs, len(slices), MIX_WIDTHS.get(votes.mixes.kind, 0))
    if votes.mixes.partners.shape != (epochs, images) or votes.mixes.parameters.shape != shape:
        return False
    sizes = torch.tensor([batch_slice.stop - batch_slice.start for batch_slice in slices])
    largest = torch.stack(
        [votes.mixes.partners[:, batch_slice].amax(dim=1) for batch_slice in slices], dim=1
    )
    return bool((largest < sizes).all() and votes.mixes.parameters.isfinite().all())


def _digest(drawn: DrawnViews) -> str:
    ids, views, mixes = drawn
    total = hashlib.sha256()
    for tensor in (ids, views, *(() if mixes is None else (mixes.partners, mixes.parameters))):
        total.update(tensor.contiguous().numpy().tobytes())
    return total.hexdigest()
