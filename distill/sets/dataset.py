"""A distilled set as a torch Dataset."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from distill.sets.label_encoding import decode_votes
from distill.sets.network_labels import labels_any_view, network_labeller
from distill.sets.set_file import SetFile, read_set, set_path, write_set
from synth.committee.relabel import StoredVotes
from synth.images import Images, gather, images_at


class DistilledSet(Dataset[tuple[Tensor, Tensor]]):
    """A distilled set; item i is (image [c, h, w], soft label [k]).

    Attributes:
        images: [n, c, h, w] float32 in the normalised space that students are trained in,
            decoded where the file stores several images in one; of a set of more than 256 MB, a
            reader that is indexed like a tensor.
        labels: [n, k] soft labels, rows sum to 1: the learned ones, else the mean vote over
            views, else one-hot.
        hard: [n] int64 classes.
        preprocess: pixels in [0, 1] -> normalised; `preprocess.inverse` goes back.
        votes: the voted label of every view, in full or decoded from the first codec of the set,
            or None.
        manifest: class names, student lr, augmentation, seed, recipe, measured accuracy.
        content: what the file holds, as it is stored.
    """

    def __init__(self, content: SetFile) -> None:
        self.content = content
        self.images: Images = content.seen_images
        self.hard = content.seen_hard
        self.votes: StoredVotes | None = _votes(content)
        self.labels = _soft_labels(content, self.votes)
        self.preprocess = content.preprocess
        self.manifest: dict[str, Any] = {**content.manifest, "measured": content.measured}

    def __repr__(self) -> str:
        shown = "x".join(map(str, self.images.shape[1:]))
        labels = ["hard"] + (["learned"] if self.content.learned is not None else [])
        labels += (["votes"] if self.content.votes is not None else []) + list(self.content.encoded)
        return (
            f"DistilledSet({len(self)} images of {shown}, {len(self.manifest['class_names'])} "
            f"classes, labels: {', '.join(labels)})"
        )

    def save(self, path: str | Path) -> None:
        """Write it as set.h5, which `distill.load` and all commands read."""
        write_set(Path(path), self.content)

    @cached_property
    def labeller(self) -> Callable[[Tensor], Tensor] | None:
        """What labels any view: normalised images [b, c, h, w] -> label logits [b, k].

        It is the first network that the set keeps among its labels (`teacher:bits=4`); None
        without one. Students match `softmax(logits / data.votes.temperature)`.
        """
        for encoded in self.content.encoded.values():
            if labels_any_view(encoded):
                return network_labeller(encoded, images_at(self.images, torch.arange(1)))
        return None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index], self.labels[index]


def open_set(path: str | Path) -> DistilledSet:
    """Read set.h5, or that of a run's folder; raises as `distill.load`."""
    return DistilledSet(read_set(set_path(Path(path))))


def _votes(content: SetFile) -> StoredVotes | None:
    if content.votes is not None or not content.encoded:
        return content.votes
    first = next(iter(content.encoded.values()))
    return decode_votes(first, gather(content.seen_images))


def _soft_labels(content: SetFile, votes: StoredVotes | None) -> Tensor:
    if content.learned is not None:
        return content.learned.softmax(dim=1)
    if votes is not None:
        return votes.mean_probabilities()
    return torch.nn.functional.one_hot(
        content.seen_hard, len(content.manifest["class_names"])
    ).float()
