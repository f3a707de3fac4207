"""Encoded labels in set.h5: a codec's container, and the views that its labels belong to.

/labels/<spec>/payload holds the container (see `projectors.codecs`). Views that are stored lie
beside it as `ids` and `views`, and for mixed ones `partners` and `mixes`, cut to the labels that
are kept; those that are drawn again are named by the attribute `seed` and checked by
`views_digest`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import h5py
import numpy as np
import torch
from torch import Tensor

from distill.errors import WorkError
from distill.machine import available_bytes
from distill.sets.soft_labels import ViewPlan, drawn_arrays, read_drawn
from distill.store.hdf5 import get_json, put, put_json, read_array
from synth.augment import MixKind
from synth.committee.relabel import StoredMixes

# What views that are drawn again take: a seed, and the digest of what it must give.
SEED_BYTES = 8 + 32

# Peak bytes while labels are decoded, over those of their logits in float16.
_DECODING = 9


@dataclass(frozen=True)
class EncodedVotes:
    """Labels of views, encoded.

    Attributes:
        payload: container of a codec.
        families: augmentation families of the views.
        batch_size: views labelled together; students must train on the same batches.
        batch_statistics: whether the teachers' BatchNorm used each part's own statistics.
        by_image: whether an epoch's labels are in the order of the images, not of its positions.
        ids: image at each kept position, or None for views from a seed.
        views: float16 augmentation parameters of the kept part, or None.
        seed: of the run that drew the views, or None for stored ones.
        views_digest: sha256 of all ids and views; "" for stored ones, and for a network, which
            can label any.
        external: bytes that a receiver must fetch elsewhere.
        parts: parts that a batch was labelled in; students must train on the same parts.
        mix: how the views of a batch were mixed before they were labelled.
        mixes: the mixes of the kept part, or None for views from a seed or that are not mixed. A
            pool of batches has one row of labels, and with it one of mixes.
    """

    payload: bytes
    families: tuple[str, ...]
    batch_size: int
    batch_statistics: bool
    by_image: bool
    ids: Tensor | None = None
    views: Tensor | None = None
    seed: int | None = None
    views_digest: str = ""
    external: int = 0
    parts: int = 1
    mix: MixKind = "none"
    mixes: StoredMixes | None = None

    def plan(self, images: int, size: tuple[int, int]) -> ViewPlan:
        """All that determines, with the seed, the views of `images` images of `size` (h, w)."""
        return ViewPlan(images, size, self.families, self.batch_size, self.mix)

    def view_bytes(self, images: int) -> int:
        """Uncompressed bytes that the views of `images` images take."""
        if self.ids is None:
            return SEED_BYTES
        return sum(array.nbytes for array in self.view_arrays(images).values())

    def view_arrays(self, images: int) -> dict[str, np.ndarray]:
        """The arrays that store the views, see `drawn_arrays`; none for views from a seed."""
        if self.ids is None or self.views is None:
            return {}
        return drawn_arrays((self.ids, self.views, self.mixes), images, self.batch_size + 1)


def check_memory(labels: int, classes: int) -> None:
    """Refuse labels that would not fit in memory: a small header can state any number of them.

    Raises:
        WorkError: if they would not.
    """
    needed, free = _DECODING * 2 * labels * classes, available_bytes()
    if free is not None and needed > free:
        raise WorkError(
            f"encoded labels take {needed / 1e9:.1f} GB to decode and {free / 1e9:.1f} GB are "
            "free; free some, or encode fewer epochs"
        )


def digest_views(ids: Tensor, views: Tensor, mixes: StoredMixes | None) -> str:
    """Digest of the order, the augmentation parameters and the mixes of all views."""
    total = hashlib.sha256(ids.to(torch.int32).numpy().astype("<i4").tobytes())
    total.update(views.half().numpy().astype("<f2").tobytes())
    if mixes is not None:
        total.update(mixes.partners.to(torch.int32).numpy().astype("<i4").tobytes())
        total.update(mixes.parameters.half().numpy().astype("<f2").tobytes())
    return total.hexdigest()


def put_encoded(group: h5py.Group, encoded: EncodedVotes, images: int) -> None:
    """Write encoded labels of `images` images into a group."""
    put(group, "payload", np.frombuffer(encoded.payload, np.uint8), None)
    put_json(group, "families", list(encoded.families))
    group.attrs["batch_size"] = encoded.batch_size
    group.attrs["batch_statistics"] = encoded.batch_statistics
    group.attrs["by_image"] = encoded.by_image
    group.attrs["external"] = encoded.external
    group.attrs["parts"] = encoded.parts
    group.attrs["mix"] = encoded.mix
    for name, array in encoded.view_arrays(images).items():
        put(group, name, array, None)
    if encoded.ids is None:
        put_json(group, "seed", encoded.seed)
        group.attrs["views_digest"] = encoded.views_digest


def read_encoded(group: h5py.Group) -> EncodedVotes:
    """Read what `put_encoded` wrote; a missing part raises KeyError, as HDF5 does."""
    stored = "ids" in group
    kind: MixKind = str(group.attrs.get("mix", "none"))  # type: ignore[assignment]
    ids, views, mixes = read_drawn(group, kind) if stored else (None, None, None)
    return EncodedVotes(
        payload=read_array(group, "payload").tobytes(),
        families=tuple(get_json(group, "families")),
        batch_size=int(group.attrs["batch_size"]),
        batch_statistics=bool(group.attrs["batch_statistics"]),
        by_image=bool(group.attrs["by_image"]),
        ids=ids,
        views=views,
        seed=None if stored else int(get_json(group, "seed")),
        views_digest="" if stored else str(group.attrs["views_digest"]),
        external=int(group.attrs["external"]),
        parts=int(group.attrs.get("parts", 1)),
        mix=kind,
        mixes=mixes,
    )
