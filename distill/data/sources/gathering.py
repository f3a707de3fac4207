"""Splits of pictures and classes, decoded when they are indexed or one after another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor

from distill.data.batched import DecodedImages
from distill.data.cutting import hold_out
from distill.data.pixels import check_size
from distill.data.source_splits import Request, SourceSplits
from distill.data.sources.picture import Picture, PictureError
from distill.data.splits import DataError, Split

if TYPE_CHECKING:
    from PIL import Image

TEST_FRACTION = 0.2

VALIDATION_NAMES = ("validation", "val", "valid")

# Names in one message; a message is a line.
_NAMED = 40


@dataclass(frozen=True, eq=False)
class Part:
    """The pictures of a part, and their classes from 0."""

    pictures: Sequence[Picture]
    labels: Sequence[int]


class Parts(NamedTuple):
    """The roles that a source's own parts take; None where there is none."""

    train: str
    test: str | None
    validation: str | None


def choose_parts(labelled: Iterable[str], unlabelled: Iterable[str]) -> tuple[Parts, list[str]]:
    """Which part is the test, and which is held out for choices; and notes on it.

    A validation part is the test part where that has no classes or is not there, as in ImageNet.

    Args:
        labelled: names of parts with classes.
        unlabelled: names of the others.

    Raises:
        DataError: when there is no part "train", or two are for validation.
    """
    found, notes = list(labelled), []
    for name in unlabelled:
        notes.append(f"the part {name} has no classes and is passed over")
    if "train" not in found:
        raise DataError(f"the splits {', '.join(found) or 'none'} came, but train is needed")
    held = [name for name in found if name in VALIDATION_NAMES]
    if len(held) > 1:
        raise DataError(f"{' and '.join(held)} came, one validation part is needed; remove one")
    validation = held[0] if held else None
    if "test" in found:
        return Parts("train", "test", validation), notes
    if validation is not None:
        notes.append(f"the part {validation} is the test part, as no other one has classes")
    return Parts("train", validation, None), notes


def build_splits(
    parts: Mapping[str, Part],
    roles: Parts,
    names: tuple[str, ...],
    request: Request,
    *,
    squares: bool = False,
) -> SourceSplits:
    """The splits of a source of pictures, which are decoded when they are indexed.

    Images are gray if every picture is stored gray, else RGB, where the request does not say.

    Args:
        parts: by the source's own names.
        roles: of them.
        names: of the classes.
        request: its size and channels are applied to each picture; with `skip_damaged`, all are
            decoded once to find those that cannot be.
        squares: pictures that are not square need a size.

    Raises:
        DataError: when pictures cannot be read (all of them are named), or differ in size and
            `size` is not set; pictures raise it when they are decoded, too.
    """
    check_size(request.size)
    damaged: list[str] = []
    used = {name: parts[name] for name in roles if name is not None}
    if request.skip_damaged:
        used, damaged = _without_damaged(used, request)
    pictures = [picture for part in used.values() for picture in part.pictures]
    if not pictures:
        raise DataError(f"{request.source!r} holds no images; name another source")
    try:
        extent = _extent(pictures, request, squares=squares)
    except PictureError as error:
        raise damaged_error(error, pictures, request) from None

    def split(part: Part) -> Split:
        def decode(index: int) -> Tensor:
            try:
                image = part.pictures[index].read(request.size, extent[0])
            except PictureError as error:
                raise damaged_error(error, pictures, request) from None
            return image

        images = DecodedImages(len(part.pictures), extent, decode, part.pictures)
        return Split(images, torch.tensor(part.labels, dtype=torch.int64))

    splits = {name: split(part) for name, part in used.items()}
    train = splits[roles.train]
    if roles.test is None:
        train, test = hold_out(train, len(names), TEST_FRACTION, "test")
    else:
        test = splits[roles.test]
    held = None if roles.validation is None else splits[roles.validation]
    notes = (left_out_note(damaged),) if damaged else ()
    return SourceSplits(train, test, names, held, notes=notes, damaged=tuple(damaged))


def numbered_classes(labels: Tensor, name: str) -> tuple[str, ...]:
    """Names "0", "1" and so on of classes that have none.

    Args:
        labels: int64 [n] of training images.
        name: of the labels, in the error.

    Raises:
        DataError: where numbers are missing or below 0, as classes that begin at 1.
    """
    found: list[int] = labels.unique().tolist()
    if found and found == list(range(len(found))):
        return tuple(str(number) for number in found)
    known = set(found)
    low, high = (found[0], found[-1]) if found else (0, 0)
    missing = next(number for number in range(len(found) + 1) if number not in known)
    if low < 0:
        raise DataError(
            f"{name}: label {low} is out of range, classes are numbered from 0; remove the images "
            "without a class, or correct the labels"
        )
    if low > 0 and high - low + 1 == len(found):
        raise DataError(
            f"{name}: labels from {low} to {high} came, classes are numbered from 0; subtract "
            f"{low}, or name the classes"
        )
    raise DataError(
        f"{name}: labels from {low} to {high} came without {missing}, classes are numbered from 0 "
        "without gaps; renumber them"
    )


def damaged_error(first: PictureError, pictures: Sequence[Picture], request: Request) -> DataError:
    """An error that names all pictures that cannot be read, after decoding every one."""
    found = [_error(picture, request) for picture in pictures]
    errors = [error for error in found if error is not None] or [first]
    if len(errors) == 1:
        return DataError(f"{errors[0]}, or leave it out with skip_damaged")
    return DataError(
        f"{len(errors)} of {len(pictures)} pictures cannot be used: "
        f"{_listed([error.what for error in errors])}; repair or remove them, or leave them out "
        "with skip_damaged"
    )


def _error(picture: Picture, request: Request) -> PictureError | None:
    try:
        picture.read(request.size)
    except PictureError as error:
        return error
    return None


def _listed(texts: Sequence[str]) -> str:
    more = f"; and {len(texts) - _NAMED} more" if len(texts) > _NAMED else ""
    return "; ".join(texts[:_NAMED]) + more


def _without_damaged(
    parts: Mapping[str, Part], request: Request
) -> tuple[dict[str, Part], list[str]]:
    kept, left_out = {}, []
    for name, part in parts.items():
        errors = [_error(picture, request) for picture in part.pictures]
        left_out += [error.what for error in errors if error is not None]
        whole = [index for index, error in enumerate(errors) if error is None]
        pictures = [part.pictures[index] for index in whole]
        kept[name] = Part(pictures, [part.labels[index] for index in whole])
    return kept, left_out


def left_out_note(left_out: Sequence[str]) -> str:
    """A note on pictures, or rows, that were left out as damaged."""
    return f"{len(left_out)} damaged left out: {_listed(left_out)}"


def _extent(
    pictures: Sequence[Picture], request: Request, *, squares: bool
) -> tuple[int, int, int]:
    """(c, h, w) that all pictures are brought to; headers are read as far as they are needed."""
    channels, size = request.channels, request.size
    if size is None:
        height, width = _common_size(pictures, squares=squares)
    else:
        height = width = size
    if channels is None:
        channels = 1 if all(picture.is_gray() for picture in pictures) else 3
    return channels, height, width


def _common_size(pictures: Sequence[Picture], *, squares: bool) -> tuple[int, int]:
    """Height and width of all pictures, if they are the same."""
    first = pictures[0].shape()
    for picture in pictures:
        height, width = picture.shape()
        if squares and width != height:
            raise DataError(
                f"{picture.name} is {width}x{height} pixels and not square, squares of one size "
                "are needed; set size to resize and cut them"
            )
        if (height, width) != first:
            raise DataError(
                f"{picture.name} is {width}x{height} pixels but {pictures[0].name} is "
                f"{first[1]}x{first[0]}, one size is needed; set size to resize them"
            )
    return first


class Labelled(Protocol):
    """Pillow images and their classes by index."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __getitem__(self, index: int, /) -> tuple[Image.Image, int]:
        """An image and its class from 0."""
        ...


@dataclass(frozen=True, eq=False)
class EagerPart:
    """A part that was read at once, at its final size, and what was left out of it as damaged."""

    split: Split
    left_out: tuple[str, ...]


def read_eagerly(labelled: Labelled, request: Request) -> EagerPart:
    """Read images one after another; only their final sizes are all in memory.

    Args:
        labelled: images and classes from 0.
        request: its size and channels are applied to each image.

    Raises:
        DataError: when there are no images, they differ in size and `size` is not set, or some
            cannot be read, all of which are named.
    """
    images: list[Tensor] = []
    labels: list[int] = []
    damaged: list[str] = []
    for index in range(len(labelled)):
        classes: list[int] = []

        def content(index: int = index, classes: list[int] = classes) -> Image.Image:
            picture, label = labelled[index]
            classes.append(int(label))
            return picture

        try:
            name = f"image {index} of {request.source!r}"
            images.append(Picture(name, content).read(request.size, request.channels))
            labels += classes
        except PictureError as error:
            damaged.append(error.what)
    if damaged and not request.skip_damaged:
        raise DataError(
            f"{len(damaged)} of {len(labelled)} pictures cannot be used: {_listed(damaged)}; "
            "fetch the files again, or leave them out with skip_damaged"
        )
    if not images:
        raise DataError(f"{request.source!r} holds no images; name another source")
    split = Split(_stacked(images, request), torch.tensor(labels, dtype=torch.int64))
    return EagerPart(split, tuple(damaged))


def _stacked(images: Sequence[Tensor], request: Request) -> Tensor:
    """[n, c, h, w] of images [c, h, w]; gray ones beside colours become RGB."""
    first, channels = images[0], max(len(image) for image in images)
    for image in images:
        if image.shape[1:] != first.shape[1:]:
            raise DataError(
                f"{request.source!r} holds images of {_sides(first)} and of {_sides(image)}; set "
                "size to bring them to one shape"
            )
    return torch.stack([image.expand(channels, -1, -1) for image in images])


def _sides(image: Tensor) -> str:
    return "x".join(str(side) for side in image.shape)
