"""Pretrained committee members; torchvision's weights are downloaded on request only."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from distill.data import Preprocess
from distill.errors import RecipeError, WorkError, suggestion
from distill.recipes.build import is_torchvision, is_trained
from distill.recipes.specs import find_network, parse_network, program_digest
from distill.run.artefacts import COMMITTEE_STAGE
from distill.store.files import digest_if_file
from distill.store.foreign import load_safetensors, load_torch
from synth.networks import TorchvisionNetwork
from synth.networks.pretrained import HEADS

if TYPE_CHECKING:
    from distill.recipes.schema import Recipe
    from distill.recipes.tables.committee import TrainingTable
    from distill.run.context import Context


def weights_digests(recipe: Recipe) -> Mapping[str, str] | None:
    """What identifies the weights of pretrained members, by spec; None without such members.

    The digest of the file where there is one, the version of the package for teachers.
    """
    table = recipe.committee
    if table is None:
        return None
    digests = {}
    for spec in table.members:
        named = table.training(spec).weights
        if is_trained(spec):
            digests[spec] = program_digest(spec) or find_network(spec).package
        elif named is not None or is_torchvision(spec):
            digests[spec] = digest_if_file(weights_path(spec, named))
    return digests or None


def weights_path(spec: str, named: str | None) -> Path:
    """The file of a member's weights: the named one, or that in torch's cache."""
    if named is not None:
        return Path(named).expanduser()
    return Path(torch.hub.get_dir()) / "checkpoints" / _url(spec).rpartition("/")[2]


def comes_trained(context: Context, spec: str, named: str | None, network: nn.Module) -> bool:
    """Whether a member needs no training; loads its published weights where there are any.

    A teacher comes with its weights; for torchvision's models see `load_pretrained`. Any other
    network takes them from the file that is named.

    Args:
        context: of the run.
        spec: of the member.
        named: a file of weights; None for that of torchvision in torch's cache, or for none.
        network: the member, of the data's classes, as `member_network` makes it.
    """
    if is_trained(spec):
        _expect(context, network)
        return True
    if is_torchvision(spec):
        return load_pretrained(context, spec, named, network)
    if named is None:
        return False
    _load_whole(spec, Path(named).expanduser(), network)
    _expect(context, network)
    return True


class Renormalised(nn.Module):
    """A network whose weights were trained on images that were normalised in another way.

    Args:
        network: takes images by its own normalisation.
        mean: of each channel, or one for all, of pixels in [0, 1].
        std: as many, above 0.
        channels: c of the images.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self, network: nn.Module, mean: Sequence[float], std: Sequence[float], channels: int
    ) -> None:
        super().__init__()
        self.network, self._own = network, (list(mean), list(std))
        self.register_buffer("scale", torch.ones(channels, 1, 1))
        self.register_buffer("shift", torch.zeros(channels, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Logits [n, k] of images [n, c, h, w]."""
        logits: Tensor = self.network(images * self.scale + self.shift)
        return logits

    def expect(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Take images that were normalised by these."""
        own_mean, own_std, mean_now, std_now = (
            torch.tensor(values).view(-1, 1, 1).expand_as(self.scale).to(self.scale)
            for values in (*self._own, mean, std)
        )
        self.scale.copy_(std_now / own_std)
        self.shift.copy_((mean_now - own_mean) / own_std)


def member_network(context: Context, spec: str, index: int) -> nn.Module:
    """The network of a member of the committee, with fresh weights, on the device."""
    network = context.network(spec, COMMITTEE_STAGE, index)
    own: TrainingTable = context.recipe.table("committee").training(spec)
    if own.mean is None or own.std is None:
        return network
    channels = context.data.channels
    if len(own.mean) not in (1, channels):
        raise RecipeError(
            f"committee member {spec}: mean has {len(own.mean)} numbers for images of {channels} "
            "channels; give one for each, or one for all"
        )
    return Renormalised(network, own.mean, own.std, channels).to(context.device)


def _load_whole(spec: str, path: Path, network: nn.Module) -> None:
    """Load a state dict of all of a network's weights.

    Raises:
        WorkError: if the file is missing, unreadable, or of another network.
    """
    if not path.is_file():
        raise WorkError(
            f"committee member {spec}: its weights {path} are missing; put the file there, or name "
            "one as weights in its table of committee.recipes"
        )
    target = network.network if isinstance(network, Renormalised) else network
    try:
        target.load_state_dict(_state_of(path))
    except (RuntimeError, ValueError) as error:
        raise WorkError(
            f"committee member {spec}: {path} holds other weights "
            f"({' '.join(str(error).split())[:200]}); name a state dict of this network, with its "
            "options and the classes of the data"
        ) from None


def _state_of(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of weights, also where training code put them beside other things."""
    state: Any = load_safetensors(path) if path.suffix == ".safetensors" else load_torch(path)
    if isinstance(state, Mapping):
        for name in ("state_dict", "model"):
            state = state[name] if isinstance(state.get(name), Mapping) else state
    tensors = _tensors(state)
    # As DataParallel names them.
    if all(name.startswith("module.") for name in tensors):
        return {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def load_pretrained(context: Context, spec: str, named: str | None, network: nn.Module) -> bool:
    """Load the published weights of a torchvision member, and tell it how images are normalised.

    Args:
        context: of the run.
        spec: of the member.
        named: a file of its weights; None for that in torch's cache.
        network: the member, of the data's classes.

    Returns:
        Whether its head was loaded too, so that nothing is left to train.

    Raises:
        WorkError: if the file is missing, unreadable or of another model.
    """
    path = weights_path(spec, named)
    if not path.is_file():
        raise WorkError(
            f"committee member {spec}: its weights {path} are missing; put the file there, name "
            "one as committee.weights, or add --download where there is a network"
        )
    if not isinstance(network, TorchvisionNetwork):
        raise TypeError(f"{spec} is a {type(network).__name__}, but torchvision's are needed")
    try:
        taken = network.load_weights(_state_of(path))
    except ValueError as error:
        raise WorkError(
            f"committee member {spec}: {path} holds other weights ({error}); name a state dict of "
            "this model as committee.weights"
        ) from None
    _expect(context, network)
    return taken


def _expect(context: Context, network: nn.Module) -> None:
    """Tell a network that has a method `expect` how images are normalised."""
    expect = getattr(network, "expect", None)
    if expect is not None and isinstance(context.preprocess, Preprocess):
        expect(context.preprocess.mean, context.preprocess.std)


def fetch_weights(recipe: Recipe) -> None:
    """Download the weights of torchvision's members that name no file and are not there yet.

    Raises:
        WorkError: if they cannot be fetched.
    """
    table = recipe.committee
    for spec in table.members if table else []:
        if table is None or not is_torchvision(spec) or table.training(spec).weights is not None:
            continue
        path = weights_path(spec, None)
        if path.is_file():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        # The published names end in the first digits of the file's digest.
        digest = path.stem.rpartition("-")[2]
        try:
            torch.hub.download_url_to_file(_url(spec), str(part), digest, progress=False)
        except (OSError, RuntimeError) as error:
            raise WorkError(
                f"committee member {spec}: its weights cannot be fetched ({error}); put them at "
                f"{path}, or name a file as committee.weights"
            ) from None
        os.replace(part, path)


def _url(spec: str) -> str:
    import torchvision.models

    model = str(parse_network(spec)[1]["model"])
    if model not in HEADS:
        raise RecipeError(f"network {spec}: there is no model {model}; {suggestion(model, HEADS)}")
    weights: Any = torchvision.models.get_model_weights(model)
    return str(weights.IMAGENET1K_V1.url)


def _tensors(state: Any) -> dict[str, Tensor]:
    """The tensors of a state dict, by name; raises ValueError where it is no state dict."""
    if not isinstance(state, Mapping) or not state:
        raise ValueError(f"a {type(state).__name__} came, a state dict is needed")
    odd = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if odd:
        raise ValueError(f"{odd[0]} is no tensor")
    return {str(name): value for name, value in state.items()}
