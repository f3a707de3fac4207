"""What every way to keep images can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from synth.coding import lzma_symbols
from synth.coding.adaptive import Coder
from synth.coding.errors import CodingError
from synth.coding.lzma_symbols import Array

Shape = tuple[int, int, int, int]

CODERS = ("arithmetic", "lzma")


class ImageCoding(Protocol):
    """A way to keep images: numbers that are learned, and the bytes that they become.

    A coding is a frozen dataclass: its fields are its configuration, `shape` among them. Pixels
    lie in [0, 1] and come in [n, c, h, w]; `parameters` is one float tensor whose form the coding
    chooses.
    """

    @property
    def shape(self) -> Shape:
        """[n, c, h, w] of the images."""
        ...

    def start(self, images: Tensor) -> Tensor:
        """Parameters that decode to nearly these pixels [n, c, h, w].

        Pixels outside [0, 1] are clamped by `decode`, not here (`Pixels` keeps them).
        """
        ...

    def decode(self, parameters: Tensor) -> Tensor:
        """The pixels [n, c, h, w] that a receiver of `pack` gets, for any parameters.

        Rounding passes gradients straight through (Bengio et al. 2013).
        """
        ...

    def bits(self, parameters: Tensor) -> Tensor:
        """The size that `pack` gives, in bits: a scalar, without the header, differentiable."""
        ...

    def pack(self, parameters: Tensor, coder: str = "arithmetic") -> bytes:
        """The parameters in as few bytes as the coding can, without a header.

        Args:
            parameters: as from `start`.
            coder: "arithmetic", or "lzma", which takes a third more and needs no extra.

        Raises:
            CodingError: if a parameter is NaN or infinite, the coder is unknown, or its library
                is not installed.
        """
        ...

    def unpack(self, body: bytes, coder: str = "arithmetic") -> Tensor:
        """The pixels [n, c, h, w] of `pack`.

        Raises:
            CodingError: if the bytes are damaged, or a library is not installed.
        """
        ...


@dataclass(frozen=True)
class Grid:
    """How the integers of a coding are coded.

    Attributes:
        coder: of symbols from 0.
        lowest: the integer that the symbol 0 stands for.
    """

    coder: Coder
    lowest: int = 0

    def pack(self, values: Array, coder: str) -> bytes:
        """Bytes of integers [n, places]."""
        if coder == "lzma":
            return lzma_symbols.compress(values - self.lowest)
        if coder != "arithmetic":
            raise CodingError(f"no coder {coder!r}; there are {', '.join(CODERS)}")
        return self.coder.encode(values - self.lowest)

    def unpack(self, body: bytes, shape: tuple[int, int], coder: str) -> Array:
        """The integers [n, places] of `pack`."""
        if coder == "lzma":
            found = lzma_symbols.expand(body, shape, len(self.coder.alphabet.nodes))
        elif coder == "arithmetic":
            found = self.coder.decode(body, shape)
        else:
            raise CodingError(f"images were coded by {coder!r}, which is unknown; upgrade")
        return found + self.lowest

    def bits(self, values: Tensor) -> Tensor:
        """The coded size of real numbers [n, places] that round to the integers; differentiable.

        The value is that of the rounded numbers. The slope is what the next integer costs more, on
        the side where the number lies (above, for a whole number), by the counts of all numbers.
        """
        integers = whole(values)
        rounded = torch.from_numpy(integers).to(values)
        away = values - rounded
        side = torch.where(away.detach() < 0, -1, 1).cpu().numpy()
        at, moved = self.coder.lengths_and_moves(integers - self.lowest, side)
        slope = torch.from_numpy(moved * side).to(values)
        linear = (slope * away).sum()
        return values.new_tensor(at.sum()) + linear - linear.detach()


def round_through(values: Tensor) -> Tensor:
    """Rounded values whose gradient is that of the values themselves."""
    return values + (values.round() - values).detach()


def whole(values: Tensor) -> Array:
    """The integers, int64, that real numbers round to.

    Raises:
        CodingError: if a value is not a finite number.
    """
    check_finite(values)
    return values.detach().round().cpu().numpy().astype(np.int64)


def check_finite(values: Tensor) -> None:
    """Refuse values that are no finite numbers.

    Raises:
        CodingError: if there is one.
    """
    if not bool(values.isfinite().all()):
        raise CodingError("a value is NaN or infinite; coded images must be finite numbers")


def check_shape(shape: Shape) -> None:
    """Refuse what is not the shape of images.

    Raises:
        CodingError: saying what came.
    """
    if len(shape) != 4 or not all(type(side) is int and side >= 1 for side in shape):
        raise CodingError(f"the shape of images is {shape}; it must be four integers above 0")


def check_groups(groups: int, shape: Shape) -> None:
    """Refuse groups that do not divide the images.

    Raises:
        CodingError: saying what came.
    """
    check_integer("groups", groups, 1, shape[0])
    if shape[0] % groups:
        raise CodingError(f"{shape[0]} images are no {groups} groups of equal length")


def check_integer(name: str, value: int, least: int, most: int) -> None:
    """Refuse a setting that is no integer, or out of its range.

    Raises:
        CodingError: saying which and what is allowed.
    """
    if type(value) is not int or not least <= value <= most:
        raise CodingError(f"{name} is {value!r}; it must be an integer in [{least}, {most}]")


def check_number(name: str, value: float, least: float, most: float) -> None:
    """Refuse a setting that is no number, or out of its range.

    Raises:
        CodingError: saying which and what is allowed.
    """
    if type(value) not in (int, float) or not least <= value <= most:
        raise CodingError(f"{name} is {value!r}; it must be a number in [{least}, {most}]")
