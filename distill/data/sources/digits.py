"""The `digits` source: scikit-learn's real handwritten digits, embedded in its wheel."""

import torch

from distill.data.source_splits import Request, SourceSplits
from distill.data.splits import SourceError, Split

_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

_TEST = 597


def read_digits(request: Request) -> SourceSplits:
    """The 1,797 images of 8x8 pixels in 17 gray values.

    The test part is the last third (597 images) in file order. The file is ordered by writer, so
    a contiguous part has other writers than the 1,200 training images (only the cut itself may
    fall within one writer's images): a harder and more honest test than a shuffled one.

    Source: UCI "Optical Recognition of Handwritten Digits", test part, as in scikit-learn.

    Raises:
        SourceError: when the source has an argument.
    """
    if request.argument:
        raise SourceError(f"source {request.source!r} takes no path; write it as digits")
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).float().div_(16).unsqueeze(1)
    labels = torch.from_numpy(bunch.target).long()
    return SourceSplits(
        train=Split(images[:-_TEST], labels[:-_TEST]),
        test=Split(images[-_TEST:], labels[-_TEST:]),
        class_names=_NAMES,
    )
