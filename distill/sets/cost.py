"""What encoded labels cost: bytes for the receiver, teacher passes for the maker."""

from __future__ import annotations

import numpy as np

from distill.sets.encoded import EncodedVotes
from distill.sets.network_labels import LabelSources, is_network
from distill.sets.votes import stored_views
from projectors import FileBytes, file_bytes
from projectors.codecs import Pruned, get_codec, unpack
from projectors.codecs.container import unseal
from projectors.codecs.residual import unpack_residual
from synth.committee.relabel import StoredVotes


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
    codec = get_codec(container.config)
    kept = codec.pool.spec(container.spec) if isinstance(codec, Pruned) else container.spec
    labelled = kept.labels if votes.queried is None else min(kept.labels, votes.queried)
    return {"maker": labelled * members, "each student": 0}
