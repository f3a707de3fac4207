"""The last layer: one direction per class, initialised from the class names."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from projectors.errors import ProjectorError
from projectors.model.tower import Tower, encode_text

INITS = ("text", "random")

TRAINED = ("nothing", "scale", "low-rank", "all")


@dataclass(frozen=True)
class HeadSettings:
    """How a head starts and which part of it is fitted.

    What is fitted has to be shipped; the rest costs no bytes, as the receiver rebuilds it.

    Attributes:
        templates: prompts with one `{}` each, where the class name goes; a class's direction is
            the mean over them.
        init: "text", the directions of the prompts minus their mean, which changes no
            probability; or "random".
        trained: "all" fits the directions, the scale and the biases; "low-rank" fits a change of
            the directions of rank `rank`, r (k + d) numbers, with scale and biases; "scale" the
            scale and the biases, k + 1 numbers; "nothing" leaves the head as it starts.
        seed: seed of the random directions, and of where a low-rank change starts.
        rank: r of "low-rank", at least 1.
    """

    templates: tuple[str, ...] = ("a photo of a {}.",)
    init: str = "text"
    trained: str = "all"
    seed: int = 0
    rank: int = 8

    def __post_init__(self) -> None:
        if self.init not in INITS:
            raise ProjectorError(f"init is {self.init!r}; write one of {', '.join(INITS)}")
        if self.trained not in TRAINED:
            raise ProjectorError(f"trained is {self.trained!r}; write one of {', '.join(TRAINED)}")
        if self.rank < 1:
            raise ProjectorError(f"the head's rank is {self.rank}; it must be at least 1")
        for template in self.templates:
            if template.count("{}") != 1:
                raise ProjectorError(f"template {template!r} needs exactly one {{}}; add it")
        if not self.templates:
            raise ProjectorError("no templates were given, but a head needs one; add one")


class Head(nn.Module):
    """Logits from image features: scale * <normalised feature, weight + up down> + bias.

    The product `up` [k, r] `down` [r, d] is there in a low-rank head only; it starts at zero.

    Args:
        weight: [k, d] one direction per class.
        scale: > 0, at the start.
        settings: which parameters take gradients, and the rank.
    """

    def __init__(self, weight: Tensor, scale: float, settings: HeadSettings) -> None:
        super().__init__()
        trained = settings.trained
        self.weight = nn.Parameter(weight.clone(), requires_grad=trained == "all")
        # A logarithm, so that no step can make the scale negative.
        log_scale = torch.tensor(scale).log()
        self.log_scale = nn.Parameter(log_scale, requires_grad=trained != "nothing")
        bias = torch.zeros(len(weight))
        self.bias = nn.Parameter(bias, requires_grad=trained != "nothing")
        self.up: nn.Parameter | None = None
        if trained == "low-rank":
            num_classes, dim = weight.shape
            # Another seed than that of the directions, or `down` would equal the first of them.
            down = random_directions(settings.rank, dim, settings.seed + 1)
            self.down = nn.Parameter(down)
            self.up = nn.Parameter(torch.zeros(num_classes, settings.rank))

    def forward(self, features: Tensor) -> Tensor:
        """Logits [n, k] of features [n, d]."""
        directions = functional.normalize(features, dim=-1)
        return self.log_scale.exp() * functional.linear(directions, self.directions()) + self.bias

    def directions(self) -> Tensor:
        """[k, d]: what a normalised feature is multiplied with for each class."""
        return self.weight if self.up is None else self.weight + self.up @ self.down


def build_head(tower: Tower, classes: list[str], settings: HeadSettings) -> Head:
    """A head as it is before any fitting; the same arguments give the same head."""
    if settings.init == "text":
        directions = text_directions(tower, classes, settings.templates)
        # The mean direction adds a constant to all logits of an image: softmax ignores it, but a
        # fit to a teacher's logits would spend its steps on removing it.
        weight = directions - directions.mean(dim=0)
    else:
        weight = random_directions(len(classes), tower.embed_dim, settings.seed)
    scale = float(tower.clip.logit_scale.detach().exp())
    return Head(weight.cpu(), scale, settings)


def text_directions(tower: Tower, classes: list[str], templates: tuple[str, ...]) -> Tensor:
    """The direction [k, d], of length 1, of every class: the mean over its prompts.

    Source: Radford et al. 2021 (CLIP), prompt ensembling.
    """
    total = torch.zeros(len(classes), tower.embed_dim)
    for template in templates:
        prompts = [template.replace("{}", name) for name in classes]
        total += encode_text(tower, prompts).cpu()
    return functional.normalize(total, dim=-1)


def random_directions(num_classes: int, dim: int, seed: int) -> Tensor:
    """Directions [k, d] of length 1, drawn from a seed."""
    noise = torch.rand(num_classes, dim, generator=Generator().manual_seed(seed)) - 0.5
    return functional.normalize(noise, dim=-1)
