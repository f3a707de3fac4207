"""Labelled real images in three splits, checked once when they are built."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distill.data.batched import select_images
from distill.data.notes import repeated_note, uneven_note
from distill.errors import WorkError
from synth.images import Images, gather

# Images that are digested at a time.
_BATCH = 1000


class DataError(WorkError, ValueError):
    """Real data that cannot be used; the message is one line and says what to do.

    Images are decoded when they are indexed, so any stage may raise it.
    """


class SourceError(DataError):
    """A `source` string that names no known source, or names one wrongly."""


def check_images(images: Tensor, name: str = "images") -> None:
    """Check pixels.

    Args:
        images: must be float32 [n, c, h, w], not empty, every pixel finite and in [0, 1].
        name: their name in the error (a plural, or the name of an array).

    Raises:
        DataError: one line with the first fault found.
    """
    shape = tuple(images.shape)
    if len(shape) != 4:
        raise DataError(f"{name}: shape {shape} came, [n, c, h, w] is needed; add the missing axes")
    if images.dtype != torch.float32:
        raise DataError(f"{name}: {images.dtype} came, torch.float32 in [0, 1] is needed; convert")
    if images.numel() == 0:
        raise DataError(f"{name}: empty (shape {shape}), at least one image is needed; add images")
    low, high = (float(bound) for bound in torch.aminmax(images))
    if not (math.isfinite(low) and math.isfinite(high)):
        bad = int((~torch.isfinite(images)).sum())
        raise DataError(
            f"{name}: {bad} of {images.numel()} pixels are NaN or infinite, "
            "finite values in [0, 1] are needed; repair or remove those images"
        )
    if low < 0 or high > 1:
        raise DataError(
            f"{name}: pixels from {low:g} to {high:g} came, values in [0, 1] are needed; "
            "rescale them (for bytes: divide by 255)"
        )


def check_labels(labels: Tensor, count: int, name: str = "labels") -> None:
    """Check that labels are whole numbers, one for each image.

    Args:
        labels: must be int64 [n].
        count: the number of images, n.
        name: their name in the error.

    Raises:
        DataError: one line with the first fault found.
    """
    if labels.dtype != torch.int64:
        raise DataError(
            f"{name}: {labels.dtype} came, integers (torch.int64) are needed; "
            "store class numbers, not probabilities or names"
        )
    if labels.ndim != 1:
        raise DataError(
            f"{name}: shape {tuple(labels.shape)} came, [n] is needed; flatten to one per image"
        )
    if len(labels) != count:
        raise DataError(
            f"{name}: {len(labels)} labels came with {count} images, one label per image is "
            "needed; store both in the same order and length"
        )


def check_label_range(labels: Tensor, classes: int, name: str = "labels") -> None:
    """Check that every label lies in 0..classes-1.

    Raises:
        DataError: names the first label outside.
    """
    outside = labels[(labels < 0) | (labels >= classes)]
    if len(outside):
        raise DataError(
            f"{name}: label {int(outside[0])} is out of range, 0 to {classes - 1} is needed for "
            f"{classes} classes; correct the labels or the class names"
        )


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their classes.

    Attributes:
        images: float32 [n, c, h, w], pixels in [0, 1]; a tensor, or read by batches.
        labels: int64 [n], class numbers.

    Raises:
        DataError: when the images or labels are not of that form, or empty. Of images that are
            read in batches, only the shape is checked.
    """

    images: Images
    labels: Tensor

    def __post_init__(self) -> None:
        if isinstance(self.images, Tensor):
            check_images(self.images)
        check_labels(self.labels, len(self.images))

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Tensor) -> "Split":
        """A new split of the images at `indices` (int64 [m]), in that order; tensors are copied."""
        return Split(select_images(self.images, indices), self.labels[indices])

    def gathered(self) -> "Split":
        """The same split with its images in memory."""
        return Split(gather(self.images), self.labels)


def per_class_indices(labels: Tensor, classes: int) -> tuple[Tensor, ...]:
    """The indices of each class.

    Args:
        labels: int64 [n] in 0..classes-1.
        classes: the number of classes, k.

    Returns:
        k index tensors (int64, ascending); one is empty where a class has no image.

    Raises:
        DataError: when a label is out of range.
    """
    check_label_range(labels, classes)
    order = torch.argsort(labels, stable=True)
    counts: list[int] = torch.bincount(labels, minlength=classes).tolist()
    return torch.split(order, counts)


def require_per_class(split: Split, count: int, class_names: Sequence[str]) -> None:
    """Check that every class has at least `count` images.

    Args:
        split: the images to choose from.
        count: images per class (ipc) that are needed.
        class_names: one name per class, in the order of the labels.

    Raises:
        DataError: names the class that has the fewest images.
    """
    counts = [len(indices) for indices in per_class_indices(split.labels, len(class_names))]
    fewest = min(counts)
    if fewest < count:
        name = class_names[counts.index(fewest)]
        raise DataError(
            f"class {name!r} has {fewest} images, but ipc={count} needs {count} of each class; "
            f"lower ipc to {fewest} or less, raise subset, or add images"
            if fewest
            else f"class {name!r} has no images, but ipc={count} needs {count} of each class; "
            "add images or remove the class"
        )


@dataclass(frozen=True, eq=False)
class RealData:
    """A real data set; `build_real_data` makes one with its digest.

    Attributes:
        train: what experts, teachers and the synthetic set may see.
        validation: held out of train; for every choice made on the way.
        test: only for the accuracies that are reported.
        class_names: k different names, in the order of the labels.
        source: the string that `load_data` was given.
        digest: sha256 (hexadecimal) of all splits and class names.
        notes: sentences on files that were passed over, copies and the like.

    Raises:
        DataError: when splits differ in shape, a label is out of range, a class has no training
            image, or class names are missing, repeated or no valid text.
    """

    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]
    source: str
    digest: str
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_class_names(self.class_names)
        for name, split in _named(self.train, self.validation, self.test):
            check_label_range(split.labels, self.classes, f"{name} labels")
            if split.images.shape[1:] != self.train.images.shape[1:]:
                raise DataError(
                    f"{name} images are {_shape(split)}, but train images are {_shape(self.train)} "
                    "and all splits need one shape; set size and channels"
                )
        for name, indices in zip(
            self.class_names, per_class_indices(self.train.labels, self.classes), strict=True
        ):
            if not len(indices):
                raise DataError(
                    f"class {name!r} has no training images, at least one is needed; "
                    "add images or remove the class"
                )

    @property
    def channels(self) -> int:
        """Channels of every image, c."""
        return int(self.train.images.shape[1])

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of every image in pixels."""
        return int(self.train.images.shape[2]), int(self.train.images.shape[3])

    @property
    def classes(self) -> int:
        """The number of classes, k."""
        return len(self.class_names)


def build_real_data(
    train: Split,
    validation: Split,
    test: Split,
    class_names: tuple[str, ...],
    source: str,
    notes: tuple[str, ...] = (),
) -> RealData:
    """Put three splits together and compute their digest.

    To the notes come those on copies in several splits, and on uneven classes.

    The digest covers shapes, pixels, labels and class names, not `source`: the same data read
    from another place, or by batches, has the same digest.

    Raises:
        DataError: see `RealData`.
    """
    check_class_names(class_names)
    digest = DataDigest()
    for name, split in _named(train, validation, test):
        for _ in digest.passing(name, split, _BATCH):
            pass
    notes += data_notes(digest, train.labels, class_names)
    found = digest.finish(class_names)
    return RealData(train, validation, test, class_names, source, found, notes)


def data_notes(
    digest: "DataDigest", labels: Tensor, class_names: tuple[str, ...]
) -> tuple[str, ...]:
    """Notes on copies in several splits and on uneven classes.

    Args:
        digest: of all three splits.
        labels: int64 [n] of the training images.
        class_names: one name per class, in the order of the labels.
    """
    found = (repeated_note(digest.prints), uneven_note(labels, class_names))
    return tuple(note for note in found if note)


def check_class_names(class_names: Sequence[str]) -> None:
    """Check that there are class names, all different, all valid Unicode.

    Raises:
        DataError: names the first faulty one.
    """
    if not class_names:
        raise DataError("no class names came, at least one class is needed; add a class")
    seen: set[str] = set()
    for name in class_names:
        if name in seen:
            raise DataError(
                f"class name {name!r} stands twice, different names are needed; rename one"
            )
        seen.add(name)
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"class name {name!r} is not valid UTF-8, text is needed; rename it"
            ) from error


def _named(train: Split, validation: Split, test: Split) -> tuple[tuple[str, Split], ...]:
    return ("train", train), ("validation", validation), ("test", test)


def _shape(split: Split) -> str:
    return "x".join(str(extent) for extent in split.images.shape[1:])


class DataDigest:
    """Digest of real data, updated split by split as its images are read.

    Attributes:
        prints: split -> a short digest of each image.
    """

    def __init__(self) -> None:
        self.prints: dict[str, list[bytes]] = {}
        self._sha = hashlib.sha256()

    def passing(self, name: str, split: Split, size: int) -> Iterator[Tensor]:
        """The images of a split, `size` at a time, digested as they are read; read all of them."""
        # Shapes come first: two splits of equal bytes and other shapes must differ.
        shapes = f"{name} {tuple(split.images.shape)} {tuple(split.labels.shape)};"
        self._sha.update(shapes.encode())
        prints = self.prints[name] = []
        for images in split.images.split(size):
            pixels = images.detach().cpu().contiguous().numpy().astype("<f4", copy=False)
            self._sha.update(pixels.data)
            prints += [hashlib.blake2b(image.data, digest_size=16).digest() for image in pixels]
            yield images
        self._sha.update(split.labels.cpu().contiguous().numpy().astype("<i8", copy=False).data)

    def finish(self, class_names: tuple[str, ...]) -> str:
        """The digest (hexadecimal), after the last split."""
        for class_name in class_names:
            encoded = class_name.encode()
            self._sha.update(f"{len(encoded)}:".encode() + encoded)
        return self._sha.hexdigest()
