"""What a set costs: its receiver in bytes, the maker of encoded labels in teacher passes."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import numpy as np
from torch import Tensor

from distill.sets.encoded_labels import EncodedVotes
from distill.sets.network_labels import LabelSources, is_network
from distill.sets.own_codecs import register_own
from distill.sets.set_file import SetFile
from distill.sets.soft_labels import stored_views, view_bytes
from distill.store.hdf5 import smallest_unsigned
from projectors import FileBytes, file_bytes
from projectors.codecs import Pruned, get_codec, unpack
from projectors.codecs.container import unseal
from projectors.codecs.residual import unpack_residual
from synth.committee.relabel import StoredVotes

# The learning rate of the students as float32, and the formation factor.
_SETTINGS = 4 + 1


def count_bytes(
    content: SetFile,
    projector: tuple[int, int] = (0, 0),
    reported: Collection[str] = ("hard",),
) -> dict[str, Any]:
    """Bytes that a receiver needs; see `docs/methods/bytes.md` for what is counted.

    Args:
        content: the set.
        projector: bytes of the projector, shipped and to be fetched elsewhere.
        reported: label sources of which `total` takes the one of the fewest bytes.

    Returns:
        `images`, `preprocess` (whitening matrices), `settings` (normalisation, learning rate,
        factor), `labels` (all of them, as stored), `projector`, `external`, `sources` (the labels
        of each source, as stored), `totals` (by source, everything that a receiver needs to train
        a student with it) and `total`.
    """
    sources = _source_bytes(content)
    whitening = content.whitening
    matrices = () if whitening is None else (whitening.mean, whitening.transform, whitening.inverse)
    channels = 0 if matrices else content.images.shape[1]
    found: dict[str, Any] = {
        "images": _image_bytes(content),
        "preprocess": sum(part.numel() * 4 for part in matrices),
        "settings": _SETTINGS + 8 * channels,
        "labels": sum(sources.values()),
        "projector": projector[0],
        "external": projector[1],
        "sources": sources,
    }
    shared = found["images"] + found["preprocess"] + found["settings"]
    classes = len(content.manifest["class_names"])
    needed = {**sources, "hard": hard_bytes(content.hard, classes)}
    if projector[0]:
        needed["projector"] = projector[0]
    totals = {source: shared + own for source, own in needed.items()}
    return {**found, "totals": totals, "total": min(totals[name] for name in reported)}


def _image_bytes(content: SetFile) -> int:
    """The images that students see are made of: refined ones are stored as float32."""
    if content.coded is not None and content.refined is None:
        return len(content.coded)
    return math.prod(content.images.shape) * 4


def _source_bytes(content: SetFile) -> dict[str, int]:
    """What each label source takes in the file."""
    classes = len(content.manifest["class_names"])
    sources = {"hard": content.hard.numel() * smallest_unsigned(classes).itemsize}
    if content.coded_labels is not None:
        sources["learned"] = len(content.coded_labels)
    elif content.learned is not None:
        sources["learned"] = content.learned.numel() * 4
    if content.votes is not None:
        sources["votes"] = math.prod(content.votes.logits.shape) * 2 + view_bytes(content.votes)
    for name, encoded in content.encoded.items():
        views = encoded.view_bytes(len(content.seen_hard))
        sources[name] = len(encoded.payload) + views
    return sources


def hard_bytes(hard: Tensor, classes: int) -> int:
    """What tells a receiver the classes [n]: of images in class order, counts per class do."""
    listed = hard.numel() * smallest_unsigned(classes).itemsize
    if bool((hard[1:] < hard[:-1]).any()):
        return listed
    most = int(hard.bincount(minlength=classes).max())
    return min(listed, classes * smallest_unsigned(most + 1).itemsize)


def receiver_files(encoded: EncodedVotes, images: int) -> list[FileBytes]:
    """What a receiver needs besides the images, part by part, as stored and compressed.

    Args:
        encoded: the labels.
        images: n, images that students see.
    """
    files = [file_bytes("labels", encoded.payload)]
    if encoded.ids is None:
        digest = bytes.fromhex(encoded.views_digest)
        return [*files, file_bytes("seed of the views", bytes(8) + digest)]
    return files + _view_files(encoded.view_arrays(images))


def full_files(votes: StoredVotes) -> list[FileBytes]:
    """What a receiver of the labels in full needs besides the images; see `receiver_files`."""
    files = [file_bytes("labels", votes.whole.numpy().astype("<f2").tobytes())]
    if votes.seed is not None:
        return files
    return files + _view_files(stored_views(votes))


def _view_files(arrays: dict[str, np.ndarray]) -> list[FileBytes]:
    contents = {name: array.tobytes() for name, array in arrays.items()}
    files = [file_bytes("order", contents["ids"]), file_bytes("views", contents["views"])]
    if "mixes" in contents:
        files.append(file_bytes("mixes", contents["partners"] + contents["mixes"]))
    return files


def teacher_passes(
    encoded: EncodedVotes, votes: StoredVotes, networks: LabelSources
) -> dict[str, int]:
    """Images that passed through a network: once for the maker, and in every training of a student.

    A pool needs only the labels that it keeps, at most those that were queried. A network labels
    anew for every receiver; a projector was fitted to the teachers before, for all steps of its
    recipe; labels stored beside a network are chosen among all of them.

    Args:
        encoded: the labels.
        votes: the labels in full.
        networks: teachers and projector that they came from.
    """
    members = max(len(networks.members), 1)
    if is_network(encoded.payload):
        document, _ = unseal(encoded.payload)
        made, residual = 0, document["network"] == "residual"
        if residual:
            made = (votes.ids.numel() if votes.queried is None else votes.queried) * members
            document, _ = unseal(unpack_residual(encoded.payload)[0])
        if document["network"] == "projector":
            return {"maker": made + networks.fitted * members, "each student": votes.ids.numel()}
        return {"maker": made, "each student": votes.ids.numel() * members}
    container = unpack(encoded.payload)
    register_own(container.config)
    codec = get_codec(container.config)
    kept = codec.pool.spec(container.spec) if isinstance(codec, Pruned) else container.spec
    labelled = kept.labels if votes.queried is None else min(kept.labels, votes.queried)
    return {"maker": labelled * members, "each student": 0}
