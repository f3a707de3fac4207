"""Load real data by a source string, with the reader that `distill.names.DATA` has for its name."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from distill.data.batched import MappedImages
from distill.data.cutting import hold_out, keep_classes, keep_subset
from distill.data.pixels import check_channels, check_memory, check_size, resize_images, to_channels
from distill.data.source_splits import Request, SourceSplits
from distill.data.splits import DataError, RealData, SourceError, Split, build_real_data
from distill.errors import LimbeckError, RecipeError
from distill.names import Entry, find_source, resolve
from synth.images import Images


def load_data(
    source: str,
    *,
    size: int | None = None,
    channels: int | None = None,
    classes: Sequence[str | int] = (),
    subset: int | None = None,
    validation: float = 0.1,
    skip_damaged: bool = False,
) -> RealData:
    """Load real images from a named source and cut them into train, validation and test.

    Nothing here depends on a run's seed: the same source and options give the same splits, and
    so the same digest, in every run.

    Args:
        source: `digits`, `fashion-mnist`, `fashion-mnist:PATH`, `glyphs:K`, `folder:PATH`,
            `npz:PATH`, `packed:PATH` and so on.
        size: resize all images to size x size pixels (bilinear, antialiased; the central square
            of images that are not square). None keeps their size.
        channels: 1 for gray (luma) or 3 for RGB (gray repeated). None keeps their channels.
        classes: keep only these classes, by name or number, renumbered in this order; empty keeps
            all. Where classes are named by numbers, a number is a name.
        subset: keep at most this many training images, stratified, after validation was cut.
        validation: the fraction of each class's training images, in (0, 1), that is held out;
            at least one image of each class that has two. Not used where the source brings
            validation images of its own.
        skip_damaged: leave out pictures that cannot be read, and rows without one or a class,
            rather than refuse them all by name; their number is a note.

    Returns:
        The three splits, checked, on the CPU: in memory, but packed ones stay on the disk.

    Raises:
        SourceError: when the source string names no source.
        DataError: when an option is out of range, or the data cannot be read or used.
    """
    splits = load_splits(
        source,
        size=size,
        channels=channels,
        classes=classes,
        subset=subset,
        validation=validation,
        skip_damaged=skip_damaged,
    )
    train, held_out, test = splits.three
    if splits.packed:
        if splits.digest is not None:
            return RealData(
                train, held_out, test, splits.class_names, source, splits.digest, splits.notes
            )
    else:
        undecoded = [split for split in splits.three if not isinstance(split.images, Tensor)]
        if undecoded:
            check_memory(sum(map(len, undecoded)), undecoded[0].images.shape[1:])
        train, held_out, test = (split.gathered() for split in splits.three)
    return build_real_data(train, held_out, test, splits.class_names, source, splits.notes)


def load_splits(
    source: str,
    *,
    size: int | None = None,
    channels: int | None = None,
    classes: Sequence[str | int] = (),
    subset: int | None = None,
    validation: float = 0.1,
    skip_damaged: bool = False,
) -> SourceSplits:
    """The splits of `load_data`, with images not yet read or decoded.

    Args:
        source: as the other arguments, see `load_data`.
        size: in pixels.
        channels: 1 or 3.
        classes: to keep.
        subset: most training images.
        validation: fraction that is held out.
        skip_damaged: leave out what cannot be read.

    Returns:
        All three splits; images not in memory are decoded, or read, in batches.

    Raises:
        SourceError, DataError: see `load_data`.
    """
    check_size(size)
    check_channels(channels)
    if not 0 < validation < 1:
        raise DataError(
            f"validation={validation} came, a fraction above 0 and below 1 is needed; use for "
            "example 0.1"
        )
    whole = splits = _read(Request(source, source.partition(":")[2], size, channels, skip_damaged))
    if classes:
        splits = keep_classes(splits, classes)
    count = len(splits.class_names)
    train, held_out = splits.train, splits.validation
    if held_out is None:
        train, held_out = hold_out(train, count, validation, "validation")
    if subset is not None:
        train = keep_subset(train, count, subset)

    def shaped(split: Split) -> Split:
        return Split(_shaped(split.images, channels, size), split.labels)

    cut = SourceSplits(shaped(train), shaped(splits.test), splits.class_names, shaped(held_out))
    same = train is whole.train and cut.train.images is train.images
    # Notes of a pack count its images, which are now cut; those that matter are made anew.
    notes = whole.notes if same or not whole.packed else ()
    digest = whole.digest if same else None
    return replace(cut, packed=whole.packed, digest=digest, notes=notes, damaged=whole.damaged)


def _shaped(images: Images, channels: int | None, size: int | None) -> Images:
    """The images with these channels and this size; unchanged where they have them."""
    c, h, w = images.shape[1:]
    if channels in (None, c) and (size is None or (h, w) == (size, size)):
        return images

    def change(pixels: Tensor) -> Tensor:
        return resize_images(to_channels(pixels, channels), size)

    return change(images) if isinstance(images, Tensor) else MappedImages(images, change)


def _read(request: Request) -> SourceSplits:
    try:
        entry, argument = find_source(request.source)
    except RecipeError as error:
        raise SourceError(str(error)) from None
    splits = _call(entry, replace(request, argument=argument))
    if not isinstance(splits, SourceSplits):
        raise DataError(
            f"source {request.source!r} of {entry.package} gave a "
            f"{type(splits).__name__}, but distill.data.SourceSplits are needed; ask its authors "
            "for them"
        )
    return splits


def _call(entry: Entry, request: Request) -> Any:
    """What a source gives; a user's own code may raise anything."""
    read = resolve(entry)
    if not entry.code:
        return read(request)
    try:
        return read(request)
    except LimbeckError:
        raise
    except Exception as error:  # noqa: BLE001 - see above
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"source {request.source!r}: {type(error).__name__}: {reason}; mend {entry.package}"
        ) from None
