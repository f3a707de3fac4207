"""The stored images of one or several sets at given places, as one set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from distill.sets.coded_set import (
    best_coder,
    class_runs,
    decode_coded,
    pack_like,
    unpack_labels,
)
from distill.sets.set_file import SetFile
from projectors.codecs import unpack
from synth.coding import (
    Frequency,
    ImageCoding,
    Palette,
    Pixels,
    Rounded,
    Tones,
    open_images,
    pack_images,
    unpack_images,
)
from synth.images import gather

# What decoding may differ by where the same numbers are kept, in normalised units.
_SAME = 1e-4

# Learned labels that are encoded again may move by this many logits.
_LABELS_MOVE = 1e-2

_MOST_COLOURS = 256

# What is said of votes and encoded labels.
VIEWS_LEFT_OUT = "labels of views belong to all images of one set, and are left out"


def take_images(parts: Sequence[SetFile], places: Tensor) -> tuple[SetFile, tuple[str, ...]]:
    """One set of the stored images at `places`.

    Hard and learned labels go with their images. Voted and encoded labels belong to views of all
    images of one set, and are left out, as are measured accuracies. Images that a tower refined
    take the place of the stored ones. Coded images stay coded where their coding keeps them
    exactly, and are else kept as pixels.

    Args:
        parts: sets of the same classes, preprocessing, formation factor and shape of images; all
            have learned labels, or none.
        places: int64 [m], numbering the stored images of all parts in turn.

    Returns:
        The set, with the manifest of the first part, and sentences on what was left out.
    """
    first = parts[0]
    hard = torch.cat([part.hard for part in parts])[places]
    images = torch.cat([gather(_stored(part)) for part in parts])[places].contiguous()
    content = replace(
        first,
        images=images,
        hard=hard,
        learned=None,
        coded_labels=None,
        coded=None,
        refined=None,
        votes=None,
        encoded={},
        measured=None,
    )
    content, label_note = _with_labels(content, parts, places)
    content, image_note = _with_coding(content, parts, places)
    voted = any(part.votes is not None or part.encoded for part in parts)
    left_out = VIEWS_LEFT_OUT if voted else ""
    return content, tuple(filter(None, (image_note, label_note, left_out)))


def _stored(part: SetFile) -> Tensor:
    images = part.images if part.refined is None else part.refined
    return gather(images).cpu()


def _with_labels(content: SetFile, parts: Sequence[SetFile], places: Tensor) -> tuple[SetFile, str]:
    """The set with the learned labels of its images, in their codec if all parts have the same."""
    rows = [
        part.learned.view(len(part.hard), -1, part.learned.shape[1])
        for part in parts
        if part.learned is not None
    ]
    if not rows:
        return content, ""
    learned = torch.cat(rows)[places].flatten(0, 1).contiguous()
    payloads = [part.coded_labels for part in parts]
    if not any(payloads):
        return replace(content, learned=learned), ""
    payload = payloads[0]
    if payload is not None and all(
        other is not None and unpack(other).config == unpack(payload).config for other in payloads
    ):
        packed = pack_like(payload, learned)
        again = unpack_labels(packed)
        if float((again - learned).abs().max()) <= _LABELS_MOVE:
            return replace(content, learned=again, coded_labels=packed), ""
    return (
        replace(content, learned=learned),
        "learned labels are kept as float32, as their codec would move them; `distill compress` "
        "encodes them again",
    )


def _with_coding(content: SetFile, parts: Sequence[SetFile], places: Tensor) -> tuple[SetFile, str]:
    """The set with its images coded as those of all parts were, if that keeps them exactly."""
    payloads = [part.coded if part.refined is None else None for part in parts]
    known = [payload for payload in payloads if payload is not None]
    if not known:
        return content, ""
    if len(known) == len(payloads):
        groups = class_runs(content.hard, len(content.manifest["class_names"]))
        packed = pack_rows(known, places, groups)
        if packed is not None:
            decoded = decode_coded(packed, content.preprocess, len(content.hard))
            if float((decoded - gather(content.images)).abs().max()) <= _SAME:
                return replace(content, images=decoded, coded=packed), ""
    return content, (
        "images are kept as pixels, as no coding of theirs keeps all of them as they are; "
        "`distill compress` keeps the new set in few bytes"
    )


def pack_rows(payloads: Sequence[bytes], places: Tensor, groups: int) -> bytes | None:
    """Coded images at places, in the coding that they have; None where that is not exact.

    Args:
        payloads: of `synth.coding.pack_images`, images of one shape.
        places: int64 [m], numbering the images of all payloads in turn.
        groups: runs of images that are alike, see `ImageCoding`.
    """
    opened = [open_images(payload) for payload in payloads]
    _, *image = opened[0][0].shape
    shape = (len(places), image[0], image[1], image[2])
    alike = {_of_shape(coding, shape, groups) for coding, _, _ in opened}
    coding = next(iter(alike))
    if len(alike) > 1 and not all(isinstance(other, Palette) for other in alike):
        return None
    if isinstance(coding, Frequency):
        # The numbers themselves: pixels were clamped, and would give others.
        rows = [
            own.unpack_parameters(body, coder)
            for own, coder, body in opened
            if isinstance(own, Frequency)
        ]
        return pack_images(coding, torch.cat(rows)[places], best_coder())
    pixels = torch.cat([unpack_images(payload)[0] for payload in payloads])[places]
    if isinstance(coding, Palette):
        return _pack_colours(coding, pixels)
    if isinstance(coding, Tones):
        return _pack_tones(coding, pixels)
    if isinstance(coding, (Rounded, Pixels)):
        return pack_images(coding, pixels, best_coder())
    return None


def _of_shape(coding: ImageCoding, shape: tuple[int, int, int, int], groups: int) -> ImageCoding:
    if isinstance(coding, Pixels):
        return replace(coding, shape=shape)
    if isinstance(coding, (Rounded, Palette, Tones, Frequency)):
        return replace(coding, shape=shape, groups=groups)
    return coding


def _pack_colours(coding: Palette, pixels: Tensor) -> bytes | None:
    """Pixels that have few colours, with these as the palette."""
    colours = pixels.permute(0, 2, 3, 1).reshape(-1, pixels.shape[1]).unique(dim=0)
    if len(colours) > _MOST_COLOURS:
        return None
    if len(colours) < 2:
        colours = colours.repeat(2, 1)
    fitted = replace(coding, colours=len(colours))
    return pack_images(fitted, torch.cat([pixels.flatten(), colours.flatten()]), best_coder())


def _pack_tones(coding: Tones, pixels: Tensor) -> bytes:
    """Pixels whose images have few colours each, with these as the tones."""
    found = []
    for image in pixels.flatten(2).movedim(1, 2):
        colours = image.unique(dim=0)
        found.append(torch.cat([colours, colours[-1:].repeat(coding.tones - len(colours), 1)]))
    parameters = torch.cat([pixels.flatten(), torch.cat(found).flatten()])
    return pack_images(coding, parameters, best_coder())
