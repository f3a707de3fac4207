"""The `npz` source: NumPy arrays of images and labels in one file."""

import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from distill.data.batched import pixels_of_bytes
from distill.data.cutting import hold_out
from distill.data.source_splits import Request, SourceSplits
from distill.data.sources.gathering import TEST_FRACTION, choose_parts, numbered_classes
from distill.data.sources.listing import shown
from distill.data.splits import DataError, Split, check_images, check_labels
from distill.store.foreign import check_expansion
from synth.images import Images


class _Arrays(NamedTuple):
    """Names of the arrays of a part, in lower case."""

    images: str
    labels: str


# All in one part, in the forms that are met, the plainest first.
_WHOLE = (
    _Arrays("images", "labels"),
    _Arrays("x", "y"),
    _Arrays("data", "target"),
    _Arrays("data", "labels"),
    _Arrays("arr_0", "arr_1"),
)

# In parts: Keras' names, and those of MedMNIST.
_CUT = tuple(
    {
        part: _Arrays(images.format(short), labels.format(short))
        for part, short in (("train", "train"), ("validation", "val"), ("test", "test"))
    }
    for images, labels in (("x_{}", "y_{}"), ("{}_images", "{}_labels"))
)

_SINGLE = b"\x93NUMPY"

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

    Other names of the first form are x and y, data and target (or labels), and arr_0 and arr_1;
    of the second MedMNIST's `train_images`, `train_labels` and so on. Parts called val are
    validation images, or the test part where there is none. Names may be in capitals.

    Images are uint8 (divided by 255) or floats in [0, 1], of shape [n, h, w], [n, h, w, c] or
    [n, c, h, w] with c of 1 or 3. Labels are integers [n] or [n, 1] from 0 upwards. An array
    `class_names` of strings may name the classes, else they are named "0", "1" and so on. In the
    first form a stratified fifth is the test part, the same in every run. Other arrays are passed
    over, and named in the notes.

    Raises:
        DataError: when the file cannot be read, or lacks an array, or an array has another form.
    """
    arrays = _load(request.path())
    form = _form(request, arrays)
    train = _split(arrays, form["train"])
    names = _class_names(arrays, train, form["train"].labels)
    used = {"class_names", *(name for pair in form.values() for name in pair)}
    others = sorted(map(shown, set(arrays) - used))
    notes = [f"arrays passed over: {', '.join(others)}"] if others else []
    if len(form) == 1:
        train, test = hold_out(train, len(names), TEST_FRACTION, "test")
        return SourceSplits(train, test, names, notes=tuple(notes))
    roles, said = choose_parts(form, ())
    test = _split(arrays, form[roles.test or "test"])
    held = None if roles.validation is None else _split(arrays, form[roles.validation])
    return SourceSplits(train, test, names, held, notes=(*said, *notes))


def _form(request: Request, arrays: Iterable[str]) -> dict[str, _Arrays]:
    """The arrays of each part; only "train" where a test part must be cut from it."""
    present = set(arrays)
    forms = [{"train": names} for names in _WHOLE if present.issuperset(names)]
    for cut in _CUT:
        parts = {part: names for part, names in cut.items() if present.issuperset(names)}
        if "train" in parts and len(parts) > 1:
            forms.append(parts)
    # Half of the plainest form beside another is a mistake, not an array to ignore.
    stray = [{"train": _WHOLE[0]}] if forms and present & {*_WHOLE[0]} else []
    forms += [form for form in stray if form not in forms and len(forms[0]) > 1]
    if len(forms) > 1:
        first, second = (" and ".join(form["train"]) for form in forms[:2])
        raise DataError(
            f"{request.source!r} holds {first} beside {second}, one form is needed; store only one"
        )
    if not forms:
        raise DataError(
            f"{request.source!r} holds the arrays {sorted(present)}, but images and labels, or "
            "x_train, y_train, x_test, y_test are needed (or MedMNIST's names); store them under "
            "these names"
        )
    return forms[0]


def _load(path: Path) -> dict[str, np.ndarray]:
    """All known arrays of the file, and the names of the others with empty arrays."""
    known = {"class_names", *(name for pair in _WHOLE for name in pair)}
    known.update(name for form in _CUT for pair in form.values() for name in pair)
    try:
        check_expansion(path)
        with path.open("rb") as file:
            head = file.read(16)
            if head.startswith(_SINGLE):
                raise DataError(
                    f"{str(path)!r} is a single array, an npz file of images and labels is needed; "
                    "store it with numpy.savez"
                )
            if not head.startswith(b"PK"):
                raise ValueError(f"it begins with {head!r}, which no npz file does")
            file.seek(0)
            # Objects would be pickles, and a pickle can run any code.
            with np.load(file, allow_pickle=False) as archive:
                return {
                    name.lower(): archive[name] if name.lower() in known else np.empty(0)
                    for name in archive.files
                }
    except DataError:
        raise
    except _READ_ERRORS as error:
        raise DataError(
            f"{str(path)!r} cannot be read ({_reason(error)}), an npz file of plain arrays is "
            "needed; store it with numpy.savez, or fetch it again"
        ) from error


def _reason(error: BaseException) -> str:
    reason = " ".join(str(error).split())
    # NumPy would advise to load objects, which are pickles.
    return "Object arrays are pickles, which can run any code" if "pickle" in reason else reason


def _split(arrays: dict[str, np.ndarray], names: _Arrays) -> Split:
    images, labels = names
    pixels = _images(arrays[images], images)
    numbers = arrays[labels]
    if numbers.dtype.kind not in "iu":
        raise DataError(
            f"{labels}: {numbers.dtype} came, integers are needed; store class numbers from 0"
        )
    if numbers.ndim == 2 and numbers.shape[1] == 1:
        numbers = numbers[:, 0]
    if numbers.ndim == 2:
        raise DataError(
            f"{labels}: shape {numbers.shape} came, one class number for each image is needed; of "
            "rows with a 1 at their class store labels.argmax(axis=1)"
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
        return numbered_classes(train.labels, labels)
    names = arrays["class_names"]
    if names.dtype.kind != "U" or names.ndim != 1:
        raise DataError(
            f"class_names: {names.dtype} of shape {names.shape} came, a one-dimensional array of "
            "strings is needed; store numpy.array([...], dtype=str)"
        )
    return tuple(str(name) for name in names)
