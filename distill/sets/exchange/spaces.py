"""Which space another program's images are in, checked against their values."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from torch import Tensor

from distill.errors import RecipeError, WorkError

Space = Literal["normalised", "pixels", "bytes", "signed", "zca"]

# The lowest and highest value of pixels in each of the ways to store them.
RANGES: dict[str, tuple[float, float]] = {
    "pixels": (0.0, 1.0),
    "bytes": (0.0, 255.0),
    "signed": (-1.0, 1.0),
}

# Learned pixels overshoot: this far, in some of the images.
_OVERSHOOT, _FEW = 0.5, 0.1

_ROUNDING = 1e-3

# Normalised images stay far below this, and bytes reach far above.
_BYTES_FROM = 16.0

# No space has values beyond this: learned images that overshoot stay far below.
_FARTHEST = 300.0

_WORDS = {
    "bytes": "bytes do (0 to 255)",
    "pixels": "pixels do (0 to 1)",
    "signed": "pixels from -1 to 1 do",
    "normalised": "normalised images do",
}


def space_of(images: Tensor, origin: Path, asked: str, usual: str) -> tuple[Space, str]:
    """The space of some images, and what the user should know about how it was found.

    Args:
        images: [n, c, h, w], of any real type.
        origin: where they come from, for messages.
        asked: the space that was asked for, which the values must allow; "" for none.
        usual: the space that the layout states or usually has.

    Returns:
        The space, and a sentence, "" where it is the asked or usual one.

    Raises:
        RecipeError: if the values are not those of the space, or it must be asked for.
        WorkError: if the values cannot be images.
    """
    numbers = images.detach()
    if not numbers.is_floating_point():
        return _space_of_integers(numbers, origin, asked)
    values = numbers.float()
    if not bool(values.isfinite().all()):
        raise WorkError(f"{origin} holds NaN or infinite pixels; name another file")
    told, low, high = _told(values), float(values.min()), float(values.max())
    if max(-low, high) > _FARTHEST:
        raise WorkError(
            f"{origin} holds images with values from {low:.3g} to {high:.3g}, which are those of "
            "no images; name another file"
        )
    problem = f"{origin}: the images' values lie from {low:.3g} to {high:.3g}, as"
    if asked:
        if told and not _agree(asked, told):
            raise RecipeError(f"{problem} {_WORDS[told]}, not those of {asked}; {_advice(told)}")
        if asked == "bytes" and told != "bytes":
            raise RecipeError(f"{problem} no bytes do; give another --space")
        return _named(asked), ""
    if told == "signed" and usual != "zca":
        raise RecipeError(f"{problem} {_WORDS[told]}; give --space signed or --space normalised")
    if told in ("bytes", "pixels") and told != usual:
        return _named(told), f"images are taken as {told}: their values lie as {_WORDS[told]}"
    if usual == "pixels" and told == "normalised":
        raise RecipeError(f"{problem} {_WORDS[told]}, not those of pixels; {_advice(told)}")
    return _named(usual or "normalised"), ""


def pixels_of(images: Tensor, space: str) -> Tensor:
    """Pixels in [0, 1], float32, of images in a space of `RANGES`."""
    low, high = RANGES[space]
    values = images.detach().float()
    if space == "pixels":
        return values
    return values / high if not low else (values - low) / (high - low)


def _space_of_integers(numbers: Tensor, origin: Path, asked: str) -> tuple[Space, str]:
    low, high = int(numbers.min()), int(numbers.max())
    if low < 0 or high > 255:
        raise WorkError(
            f"{origin} holds whole numbers from {low} to {high} as images; bytes from 0 to 255, or "
            "floats, are needed"
        )
    if asked not in ("", "pixels", "bytes"):
        raise RecipeError(
            f"{origin}: the images are whole numbers from 0 to 255, as {_WORDS['bytes']}, not "
            f"those of {asked}; {_advice('bytes')}"
        )
    if high <= 1:
        return "pixels", "images are taken as black and white: their values are 0 and 1"
    return "bytes", ""


def _told(values: Tensor) -> str:
    """The space that the values show, or ""."""
    low, high = float(values.min()), float(values.max())
    if low >= -1 and high > _BYTES_FROM and float(values.mean()) > 1:
        return "bytes"
    if low >= 0 and high <= 1 + _ROUNDING:
        return "pixels"
    if low >= -1 - _ROUNDING and high <= 1 + _ROUNDING and low < -_OVERSHOOT:
        return "signed"
    outside = (values < -_OVERSHOOT) | (values > 1 + _OVERSHOOT)
    return "normalised" if float(outside.float().mean()) > _FEW else ""


def _agree(asked: str, told: str) -> bool:
    if asked == told:
        return True
    # Images of little contrast may be normalised, or whitened, to within -1 to 1.
    return asked in ("normalised", "zca") and told in ("normalised", "signed")


def _advice(told: str) -> str:
    return f"give --space {told}"


def _named(space: str) -> Space:
    names: dict[str, Space] = {
        "normalised": "normalised",
        "pixels": "pixels",
        "bytes": "bytes",
        "signed": "signed",
        "zca": "zca",
    }
    return names[space]
