"""What a user should know of data before trusting an accuracy on them, in sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

# The largest class over the smallest, from where on the classes are called uneven.
UNEVEN = 2


def uneven_note(labels: Tensor, class_names: Sequence[str]) -> str:
    """A sentence on training classes of different sizes, "" for even ones.

    Args:
        labels: int64 [n] of the training images.
        class_names: one name per class, in the order of the labels.
    """
    counts = torch.bincount(labels, minlength=len(class_names))
    most, fewest = int(counts.argmax()), int(counts.argmin())
    high, low = int(counts[most]), int(counts[fewest])
    if high < UNEVEN * low:
        return ""
    return (
        f"classes are uneven: {class_names[most]!r} has {high} training images, "
        f"{class_names[fewest]!r} has {low}; always naming the largest is right for "
        f"{high / len(labels):.1%} of them"
    )


def repeated_note(prints: Mapping[str, Iterable[bytes]]) -> str:
    """A sentence on held-out images that are also training images, to the last bit; "" for none.

    Args:
        prints: digests of the images of "train", "validation" and "test".
    """
    train, held = set(prints["train"]), list(prints["validation"])
    seen = train.union(held)
    test = list(prints["test"])
    leaked = {
        "test": (sum(image in seen for image in test), len(test)),
        "validation": (sum(image in train for image in held), len(held)),
    }
    parts = [f"{n} of {total} {name} images" for name, (n, total) in leaked.items() if n]
    if not parts:
        return ""
    return (
        f"{' and '.join(parts)} are also images that are trained on: accuracies are too high; "
        "remove the copies, or keep them in one part"
    )
