"""What encoded labels cost: their receiver in bytes, their maker in teacher passes."""

from __future__ import annotations

from distill.encoding.networks import Networks, is_network
from distill.store.encoded import EncodedVotes
from distill.store.hdf5 import smallest_unsigned
from distill.store.voted import Drawn
from projectors import FileBytes, file_bytes
from projectors.codecs import Pruned, get_codec, unpack
from projectors.codecs.container import unseal
from projectors.codecs.residual import unpack_residual
from synth.relabel import StoredVotes


def receiver_files(encoded: EncodedVotes, images: int) -> list[FileBytes]:
    """What a receiver needs besides the images, part by part, as stored and compressed.

    Args:
        encoded: the labels.
        images: n, images that students see.
    """
    found = [file_bytes("labels", encoded.payload)]
    if encoded.ids is None or encoded.views is None:
        digest = bytes.fromhex(encoded.views_digest)
        return [*found, file_bytes("seed of the views", bytes(8) + digest)]
    return found + _view_files((encoded.ids, encoded.views, encoded.mixes), images, encoded)


def full_files(votes: StoredVotes) -> list[FileBytes]:
    """What a receiver of the labels in full needs besides the images; see `receiver_files`."""
    found = [file_bytes("labels", votes.logits.numpy().astype("<f2").tobytes())]
    if votes.seed is not None:
        return found
    drawn = (votes.ids, votes.views, votes.mixes)
    return found + _view_files(drawn, votes.ids.shape[1], votes)


def _view_files(drawn: Drawn, images: int, of: EncodedVotes | StoredVotes) -> list[FileBytes]:
    ids, views, mixes = drawn
    order = ids.numpy().astype(smallest_unsigned(images)).tobytes()
    found = [
        file_bytes("order", order),
        file_bytes("views", views.half().numpy().astype("<f2").tobytes()),
    ]
    if mixes is not None:
        # The last batch may take in an image that was left over.
        partners = mixes.partners.numpy().astype(smallest_unsigned(of.batch_size + 1)).tobytes()
        parameters = mixes.parameters.half().numpy().astype("<f2").tobytes()
        found.append(file_bytes("mixes", partners + parameters))
    return found


def teacher_passes(encoded: EncodedVotes, votes: StoredVotes, networks: Networks) -> dict[str, int]:
    """Images that went through a network: once for the maker, and in every training of a student.

    A pool needs only the labels that it keeps. A network is asked anew by every receiver; a
    projector was fitted to teachers before, for as many steps as its recipe allows; what labels
    are stored besides is chosen among all of them.

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
            made = votes.ids.numel() * members
            document, _ = unseal(unpack_residual(encoded.payload)[0])
        if document["network"] == "projector":
            return {"maker": made + networks.fitted * members, "each student": votes.ids.numel()}
        return {"maker": made, "each student": votes.ids.numel() * members}
    container = unpack(encoded.payload)
    codec = get_codec(container.config)
    kept = codec.pool.spec(container.spec) if isinstance(codec, Pruned) else container.spec
    return {"maker": kept.labels * members, "each student": 0}
