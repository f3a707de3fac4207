"""The `npz` source: NumPy arrays of images and labels in one file."""

import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distill.data.batched import pixels_of_bytes
from distill.data.cutting import hold_out
from distill.data.source_splits import Request, SourceSplits
from distill.data.splits import DataError, Split, check_images, check_labels
from distill.store.foreign import check_expansion
from synth.images import Images

_WHOLE = ("images", "labels")

_CUT = ("x_train", "y_train", "x_test", "y_test")

_TEST_FRACTION = 0.2

# RuntimeError: encrypted archives. MemoryError: headers that promise more than there is.
_READ_ERRORS = (
    OSError,
    ValueError,
    EOFError,
    RuntimeError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
    # NotImplementedError (a RuntimeError) and these: a damaged directory or header.
    LookupError,
    TypeError,
    SyntaxError,
    struct.error,
)


def read_npz(request: Request) -> SourceSplits:
    """Read `images` and `labels`, or `x_train`, `y_train`, `x_test` and `y_test`.

    Images are uint8 (divided by 255) or floats in [0, 1], of shape [n, h, w], [n, h, w, c] or
    [n, c, h, w] with c of 1 or 3. Labels are integers [n] from 0 upwards. An array `class_names`
    of strings may name the classes, else they are named "0", "1" and so on. In the first form a
    stratified fifth is the test part, the same in every run. Other arrays are ignored.

    Raises:
        DataError: when the file cannot be read, or lacks an array, or an array has another form.
    """
    arrays = _load(request.path())
    if all(name in arrays for name in _CUT):
        if any(name in arrays for name in _WHOLE):
            raise DataError(
                f"{request.source!r} holds images or labels beside x_train, one form is needed; "
                "store only one"
            )
        train = _split(arrays, "x_train", "y_train")
        test = _split(arrays, "x_test", "y_test")
        return SourceSplits(train, test, _class_names(arrays, train, "y_train"))
    if all(name in arrays for name in _WHOLE):
        whole = _split(arrays, *_WHOLE)
        names = _class_names(arrays, whole, "labels")
        train, test = hold_out(whole, len(names), _TEST_FRACTION, "test")
        return SourceSplits(train, test, names)
    raise DataError(
        f"{request.source!r} holds the arrays {sorted(arrays)}, but {' and '.join(_WHOLE)}, or "
        f"{', '.join(_CUT)} are needed; store them under these names"
    )


def _load(path: Path) -> dict[str, np.ndarray]:
    """All known arrays of the file, and the names of the others with empty arrays."""
    known = {*_WHOLE, *_CUT, "class_names"}
    try:
        check_expansion(path)
        # Opened here, because numpy.load leaves a file open when it is no archive.
        with path.open("rb") as file:
            # Objects would be pickles, and a pickle can run any code.
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.lib.npyio.NpzFile):
                return {
                    name: archive[name] if name in known else np.empty(0) for name in archive.files
                }
    except _READ_ERRORS as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{str(path)!r} cannot be read ({reason}), an npz file of plain arrays is needed; "
            "store it with numpy.savez"
        ) from error
    raise DataError(
        f"{str(path)!r} is a single array, an npz file of images and labels is needed; store it "
        "with numpy.savez"
    )


def _split(arrays: dict[str, np.ndarray], images: str, labels: str) -> Split:
    pixels = _images(arrays[images], images)
    numbers = arrays[labels]
    if numbers.dtype.kind not in "iu":
        raise DataError(
            f"{labels}: {numbers.dtype} came, integers are needed; store class numbers from 0"
        )
    classes = torch.from_numpy(numbers.astype(np.int64))
    check_labels(classes, len(pixels), labels)
    return Split(pixels, classes)


def _images(array: np.ndarray, name: str) -> Images:
    """Float32 [n, c, h, w] in [0, 1] from any of the allowed forms; bytes stay bytes."""
    if array.dtype == np.uint8:
        values = _channels_first(torch.from_numpy(array), name)
        if not array.size:
            check_images(values.float(), name)
        return pixels_of_bytes(values)
    if array.dtype.kind == "f":
        # Values beyond float32 become infinite, which the check below refuses by name.
        with np.errstate(over="ignore"):
            pixels = torch.from_numpy(array.astype(np.float32))
    else:
        raise DataError(
            f"{name}: {array.dtype} came, uint8 or floats in [0, 1] are needed; convert"
        )
    pixels = _channels_first(pixels, name)
    check_images(pixels, name)
    return pixels


def _channels_first(pixels: Tensor, name: str) -> Tensor:
    shape = tuple(pixels.shape)
    if pixels.ndim == 3:
        return pixels.unsqueeze(1)
    first, last = (pixels.ndim == 4 and shape[axis] in (1, 3) for axis in (1, 3))
    if first and last:
        raise DataError(
            f"{name}: shape {shape} can be [n, c, h, w] or [n, h, w, c], one meaning is needed; "
            "store gray images as [n, h, w]"
        )
    if first:
        return pixels
    if last:
        return pixels.permute(0, 3, 1, 2).contiguous()
    raise DataError(
        f"{name}: shape {shape} came, [n, h, w], [n, h, w, c] or [n, c, h, w] with c of 1 or 3 is "
        "needed; reshape"
    )


def _class_names(arrays: dict[str, np.ndarray], train: Split, labels: str) -> tuple[str, ...]:
    if "class_names" not in arrays:
        highest = int(train.labels.max())
        # Each class needs a training image; this also bounds the list of names by the file.
        if highest >= len(train):
            raise DataError(
                f"{labels}: label {highest} is out of range for {len(train)} images, classes "
                "numbered from 0 without gaps are needed; renumber them"
            )
        return tuple(str(label) for label in range(highest + 1))
    names = arrays["class_names"]
    if names.dtype.kind != "U" or names.ndim != 1:
        raise DataError(
            f"class_names: {names.dtype} of shape {names.shape} came, a one-dimensional array of "
            "strings is needed; store numpy.array([...], dtype=str)"
        )
    return tuple(str(name) for name in names)
