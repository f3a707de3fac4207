"""A teacher that is given in Python: a trained module, or any function of pixels."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Self

import torch
from torch import Tensor, nn

from distill.errors import RecipeError
from distill.recipes.build import one_line

# Images by whose labels a function is known, as it has no weights.
_PROBES = 8


class GivenTeacher(nn.Module):
    """Calls a teacher with pixels, whatever the images that it gets are normalised by.

    A module's weights are its state, so that a committee can be stored. Of a function, the state
    holds its answers to a few noise images: another one is refused when a committee is read.

    Args:
        teacher: pixels [n, c, h, w] -> logits [n, k].
        channels: c of the images.
        size: (h, w) of the images in pixels.
        classes: k, the number of logits.

    Raises:
        RecipeError: if a function does not take such images.
    """

    mean: Tensor
    std: Tensor
    answers: Tensor

    def __init__(
        self,
        teacher: Callable[[Tensor], Tensor],
        channels: int,
        size: tuple[int, int],
        classes: int,
    ) -> None:
        super().__init__()
        # The user's own must not be frozen or moved.
        self.teacher = copy.deepcopy(teacher) if isinstance(teacher, nn.Module) else teacher
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("std", torch.ones(channels, 1, 1))
        if isinstance(teacher, nn.Module):
            return
        noise = torch.rand(_PROBES, channels, *size, generator=torch.Generator().manual_seed(0))
        try:
            with torch.no_grad():
                answers = teacher(noise).detach().float().cpu().clone()
        except Exception as error:  # noqa: BLE001 - a user's own code may raise anything
            raise RecipeError(
                f"the teacher called with pixels {tuple(noise.shape)}: {one_line(error)}; make it "
                "take them and give logits"
            ) from None
        self.register_buffer("answers", answers)
        own = self.answers.clone()
        self.register_load_state_dict_post_hook(lambda module, keys: _compare(module, own))

    def expect(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Take images that were normalised by these."""
        self.mean.copy_(torch.tensor(mean).view(-1, 1, 1))
        self.std.copy_(torch.tensor(std).view(-1, 1, 1))

    def train(self, mode: bool = True) -> Self:
        """Set the mode, except of a program of torch.export, which has one alone."""
        self.training = mode
        if isinstance(self.teacher, nn.Module):
            with suppress(NotImplementedError):
                self.teacher.train(mode)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Logits [n, k] of normalised images [n, c, h, w]."""
        logits: Tensor = self.teacher(images * self.std + self.mean)
        return logits


def _compare(module: Any, own: Tensor) -> None:
    """Refuse the state of another function."""
    found = module.answers.cpu()
    if found.shape != own.shape or not torch.allclose(found, own, rtol=1e-2, atol=1e-3):
        raise RuntimeError("it is another function than the one that was given before")
