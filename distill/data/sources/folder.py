"""The `folder` source: one folder of images per class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from distill.data.source_splits import Request, SourceSplits
from distill.data.sources.gathering import (
    VALIDATION_NAMES,
    Parts,
    build_splits,
    choose_parts,
)
from distill.data.sources.listing import (
    ANNOTATIONS,
    Listing,
    folders_in,
    heif_remedy,
    list_annotated,
    list_classes,
    passed_note,
    read_suffixes,
    visible,
)
from distill.data.splits import DataError, Split

_KNOWN = ("train", "test", *VALIDATION_NAMES)


def read_folder(request: Request) -> SourceSplits:
    """Read PATH with one folder per class, or PATH/train and PATH/test (and PATH/val) so.

    The second form is taken when PATH/train holds folders. The validation part may be called val,
    valid or validation. Without a test folder it is the test part, as in ImageNet; without either a
    stratified fifth of the training images is, the same in every run. Tiny ImageNet is read as it
    is unpacked: classes of val stand in `val_annotations.txt`, and a test part without class
    folders is passed over.

    Classes and images are in the order of their names; a class is named like its folder (which
    may be a link), and its images may lie in folders below it. Hidden files are ignored, files
    that are no pictures by their suffix (without one: by their content) are passed over and
    counted in the notes. Transparency is dropped, a picture is turned as its EXIF orientation says,
    and an animation gives its first frame. Images are decoded when they are indexed.

    Args:
        request: `channels` None means gray if every image is stored gray, else RGB. `size` may
            be None only if all images are squares of one size.

    Raises:
        DataError: when folders or images are missing or do not fit, or images cannot be read.
    """
    root = request.path()
    if not root.is_dir():
        near = get_close_matches(root.name, _names_beside(root), n=1)
        remedy = f"did you mean {str(root.parent / near[0])!r}?" if near else "correct it"
        raise DataError(f"{str(root)!r} is no folder, one folder per class is needed; {remedy}")
    folders = _part_folders(root)
    names = _class_names(folders["train"])
    labelled = [part for part in folders if part == "train" or _has_classes(folders[part])]
    roles, notes = choose_parts(labelled, sorted(folders.keys() - set(labelled)))
    listings = {part: _list_part(folders[part], names) for part in roles if part is not None}
    passed = passed_note(listings.values(), _beside(root, folders))
    parts = {name: listing.part for name, listing in listings.items()}
    splits = build_splits(parts, roles, names, request, squares=True)
    count = sum(len(part.pictures) for part in parts.values())
    notes += [f"{count} pictures are read; {passed}"] if passed else []
    return replace(splits, notes=(*notes, *splits.notes))


def read_pictures(request: Request) -> tuple[Split, tuple[str, ...]]:
    """Read PATH with one folder per class as a single split, and the folders' names.

    Raises:
        DataError: as `read_folder`.
    """
    root = request.path()
    names = _class_names(root)
    part = _list_part(root, names).part
    roles = Parts("train", "train", None)
    return build_splits({"train": part}, roles, names, request, squares=True).train, names


def _part_folders(root: Path) -> dict[str, Path]:
    """The folder of each part that is there; always "train"."""
    train = root / "train"
    # A class may itself be called "train": then its folder holds images, not folders.
    if not train.is_dir() or not folders_in(train):
        return {"train": root}
    folders = {path.name: path for path in folders_in(root)}
    for name in folders:
        if name not in _KNOWN:
            raise DataError(
                f"{str(root)!r} holds {name!r} beside 'train', only {', '.join(_KNOWN)} are known "
                "there; rename or move it"
            )
    return folders


def _class_names(folder: Path) -> tuple[str, ...]:
    folders = folders_in(folder)
    if not folders:
        raise DataError(
            f"{str(folder)!r} holds no folders, one folder per class is needed; "
            "sort the images into class folders"
        )
    return tuple(path.name for path in folders)


def _has_classes(folder: Path) -> bool:
    """Whether a part says what its pictures are: in folders of classes, or in a table of files."""
    if (folder / ANNOTATIONS).is_file():
        return True
    return [path.name for path in folders_in(folder)] not in ([], ["images"])


def _list_part(folder: Path, names: tuple[str, ...]) -> Listing:
    """List the pictures of one part, of which there must be some."""
    annotated = (folder / ANNOTATIONS).is_file() and folders_in(folder) == [folder / "images"]
    if annotated:
        listing = list_annotated(folder, names)
    else:
        listing = list_classes(folders_in(folder), names)
    if not listing.part.pictures:
        remedy = f"add files that end in {', '.join(sorted(read_suffixes()))}"
        raise DataError(
            f"{str(folder)!r} holds no images in its class folders, at least one is needed; "
            f"{heif_remedy(listing.passed) or remedy}"
        )
    return listing


def _names_beside(root: Path) -> list[str]:
    """Names of the folders beside a place where there is none."""
    try:
        return [path.name for path in folders_in(root.parent)]
    except DataError:
        return []


def _beside(root: Path, folders: Mapping[str, Path]) -> int:
    """How many pictures lie where only folders are looked at."""
    places = {root, *(folder for folder in folders.values() if _has_classes(folder))}
    files = (path for place in places for path in visible(place))
    suffixes = read_suffixes()
    return sum(path.suffix.lower() in suffixes and path.is_file() for path in files)
