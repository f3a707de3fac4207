"""What every way to keep images can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from synth.coding import symbols
from synth.coding.errors import CodingError
from synth.coding.symbols import Array, ContextOf

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
        """Parameters that decode to nearly these pixels [n, c, h, w]."""
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
            coder: "arithmetic", or "lzma", which takes a fifth more and needs no extra.
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
    """How the integers of a coding are laid out and coded.

    Attributes:
        lowest, highest: the range of the integers.
        centre: the integer that is expected.
        spreads: of each context, see `symbols.prior_counts`.
        context_of: works them out; it sees integers less `lowest`.
    """

    lowest: int
    highest: int
    centre: int
    spreads: Sequence[int]
    context_of: ContextOf

    @property
    def prior(self) -> Array:
        """Starting counts [contexts, integers]."""
        count = self.highest - self.lowest + 1
        return symbols.prior_counts(self.spreads, count, self.centre - self.lowest)

    def pack(self, values: Array, coder: str) -> bytes:
        """Bytes of integers [n, places]."""
        if coder == "lzma":
            return symbols.compress(values - self.lowest)
        return symbols.encode(values - self.lowest, self.prior, self.context_of)

    def unpack(self, body: bytes, shape: tuple[int, int], coder: str) -> Array:
        """The integers [n, places] of `pack`."""
        if coder == "lzma":
            found = symbols.expand(body, shape)
        elif coder == "arithmetic":
            found = symbols.decode(body, shape, self.prior, self.context_of)
        else:
            raise CodingError(f"images were coded by {coder}, which is unknown; upgrade")
        return found + self.lowest

    def bits(self, values: Tensor) -> Tensor:
        """The coded size of real numbers [n, places] that round to the integers; differentiable.

        The value is that of the rounded numbers. The slope is the cost of the next integer on the
        side where the number lies; what a symbol does to the contexts of later ones is left out.
        """
        rounded = values.detach().round()
        cost = symbols.lengths(
            rounded.cpu().numpy().astype("int64") - self.lowest,
            self.prior,
            self.context_of,
            around=1,
        )
        below, at, above = torch.from_numpy(cost).to(values)
        away = values - rounded
        side = away.detach().sign()
        slope = torch.where(side > 0, above - at, at - below)
        slope = torch.where(side == 0, (above - below) / 2, slope)
        linear = (slope * away).sum()
        return at.sum() + linear - linear.detach()


def round_through(values: Tensor) -> Tensor:
    """Rounded values whose gradient is that of the values themselves."""
    return values + (values.round() - values).detach()


def check_number(name: str, value: float, least: float, most: float) -> None:
    """Refuse a setting outside its range.

    Raises:
        CodingError: saying which and what is allowed.
    """
    if not least <= value <= most:
        raise CodingError(f"{name} is {value}; it must lie in [{least}, {most}]")
