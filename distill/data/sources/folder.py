"""The `folder` source: one folder of images per class."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from distill.data.batched import DecodedImages
from distill.data.cutting import hold_out
from distill.data.pixels import check_size, resize_images, to_channels
from distill.data.source_splits import Request, SourceSplits
from distill.data.sources.picture import ImageHeader, read_header, read_image
from distill.data.splits import DataError, Split

_SUFFIXES = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)

_TEST_FRACTION = 0.2


@dataclass(frozen=True)
class _Listing:
    """The image files of one split and their labels, in the order of class and file names."""

    pictures: tuple[ImageHeader, ...]
    labels: tuple[int, ...]


def read_folder(request: Request) -> SourceSplits:
    """Read PATH with one folder per class, or PATH/train and PATH/test (and PATH/validation) so.

    The second form is taken when PATH/train holds folders. Without a test folder a stratified
    fifth of the training images is the test part, the same in every run. Classes and images
    are in the order of their names; a class is named like its folder (which may be a link).
    Hidden files and files without an image suffix are ignored; transparency is dropped,
    EXIF rotation is not applied, and an animation gives its first frame. Images are decoded when
    they are indexed.

    Args:
        request: `channels` None means gray if every image is stored gray, else RGB. `size` may
            be None only if all images are squares of one size.

    Raises:
        DataError: when folders or images are missing or do not fit, or an image cannot be read.
    """
    root = request.path()
    if not root.is_dir():
        raise DataError(f"{str(root)!r} is no folder, one folder per class is needed; correct it")
    folders = _split_folders(root)
    names = tuple(path.name for path in _class_folders(folders["train"]))
    listings = {split: _list_images(folder, names) for split, folder in folders.items()}
    pictures = [picture for listing in listings.values() for picture in listing.pictures]
    channels = request.channels or (1 if all(picture.gray for picture in pictures) else 3)
    size = request.size if request.size is not None else _common_size(pictures)
    splits = {name: _read(listing, channels, size) for name, listing in listings.items()}
    train, test = splits["train"], splits.get("test")
    if test is None:
        train, test = hold_out(train, len(names), _TEST_FRACTION, "test")
    return SourceSplits(train, test, names, splits.get("validation"))


def read_pictures(request: Request) -> tuple[Split, tuple[str, ...]]:
    """Read PATH with one folder per class as a single split, and the folders' names.

    Raises:
        DataError: as `read_folder`.
    """
    root = request.path()
    names = tuple(path.name for path in _class_folders(root))
    listing = _list_images(root, names)
    channels = request.channels or (1 if all(p.gray for p in listing.pictures) else 3)
    size = request.size if request.size is not None else _common_size(list(listing.pictures))
    return _read(listing, channels, size), names


def _split_folders(root: Path) -> dict[str, Path]:
    """The folder of each split that is there; always "train"."""
    train = root / "train"
    # A class may itself be called "train": then its folder holds images, not folders.
    if not train.is_dir() or not any(_folders(train)):
        return {"train": root}
    folders = {path.name: path for path in _folders(root)}
    for name in folders:
        if name not in ("train", "test", "validation"):
            raise DataError(
                f"{str(root)!r} holds {name!r} beside 'train', only train, test and validation "
                "are known there; rename or move it"
            )
    return folders


def _folders(folder: Path) -> Iterator[Path]:
    return (path for path in _visible(folder) if path.is_dir())


def _visible(folder: Path) -> Iterable[Path]:
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise DataError(
            f"{str(folder)!r} cannot be listed ({error.strerror}), a readable folder is needed; "
            "correct its permissions"
        ) from error
    return [folder / name for name in names if not name.startswith(".")]


def _class_folders(folder: Path) -> list[Path]:
    folders = list(_folders(folder))
    if not folders:
        raise DataError(
            f"{str(folder)!r} holds no folders, one folder per class is needed; "
            "sort the images into class folders"
        )
    return folders


def _list_images(folder: Path, names: tuple[str, ...]) -> _Listing:
    """List and survey the images of one split; every class folder must be in `names`."""
    pictures, labels = [], []
    for class_folder in _class_folders(folder):
        if class_folder.name not in names:
            raise DataError(
                f"{str(folder)!r} holds class {class_folder.name!r}, which has no training "
                "folder; add training images or remove it"
            )
        label = names.index(class_folder.name)
        for path in _visible(class_folder):
            # A broken link is kept: it fails with its name when read, rather than vanish.
            if path.suffix.lower() in _SUFFIXES and not path.is_dir():
                pictures.append(read_header(path))
                labels.append(label)
    if not pictures:
        raise DataError(
            f"{str(folder)!r} holds no images in its class folders, at least one is needed; "
            f"add files that end in {', '.join(sorted(_SUFFIXES))}"
        )
    return _Listing(tuple(pictures), tuple(labels))


def _common_size(pictures: list[ImageHeader]) -> int:
    """Side of all pictures in pixels, if they are squares of one size."""
    first = pictures[0]
    for picture in pictures:
        extent = f"{picture.width}x{picture.height}"
        if picture.width != picture.height:
            raise DataError(
                f"{str(picture.path)!r} is {extent} pixels and not square, squares of one size "
                "are needed; set size to resize and cut them"
            )
        if picture.width != first.width:
            raise DataError(
                f"{str(picture.path)!r} is {extent} pixels but {str(first.path)!r} is "
                f"{first.width}x{first.height}, one size is needed; set size to resize them"
            )
    return first.width


def _read(listing: _Listing, channels: int, size: int) -> Split:
    check_size(size)

    def decode(index: int) -> Tensor:
        pixels = to_channels(read_image(listing.pictures[index].path).unsqueeze(0), channels)
        return resize_images(pixels, size)[0]

    images = DecodedImages(len(listing.pictures), (channels, size, size), decode)
    return Split(images, torch.tensor(listing.labels, dtype=torch.int64))
