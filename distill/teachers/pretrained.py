"""Pretrained committee members; torchvision's weights are downloaded on request only."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from distill.data import Preprocess
from distill.errors import RecipeError, WorkError, suggestion
from distill.recipes.build import is_torchvision, is_trained
from distill.recipes.specs import find_network, parse_network
from distill.store.files import digest_tree
from distill.store.foreign import load_torch
from synth.networks import TorchvisionNetwork
from synth.networks.pretrained import HEADS

if TYPE_CHECKING:
    from distill.recipes.schema import Recipe
    from distill.run.context import Context


def weights_digests(recipe: Recipe) -> Mapping[str, str] | None:
    """What identifies the weights of pretrained members, by spec; None without such members.

    The digest of the file for torchvision's models, the version of the package for teachers.
    """
    table = recipe.committee
    if table is None:
        return None
    digests = {spec: find_network(spec).package for spec in table.members if is_trained(spec)}
    for spec in filter(is_torchvision, table.members):
        path = weights_path(spec, table.training(spec).weights)
        digests[spec] = digest_tree(path) if path.is_file() else ""
    return digests or None


def weights_path(spec: str, named: str | None) -> Path:
    """The file of a member's weights: the named one, or that in torch's cache."""
    if named is not None:
        return Path(named).expanduser()
    return Path(torch.hub.get_dir()) / "checkpoints" / _url(spec).rpartition("/")[2]


def comes_trained(context: Context, spec: str, named: str | None, network: nn.Module) -> bool:
    """Whether a member needs no training; loads its published weights where there are any.

    A teacher comes with its weights; for torchvision's models see `load_pretrained`.

    Args:
        context: of the run.
        spec: of the member.
        named: a file of torchvision's weights; None for that in torch's cache.
        network: the member, of the data's classes.
    """
    if is_trained(spec):
        _expect(context, network)
        return True
    return is_torchvision(spec) and load_pretrained(context, spec, named, network)


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
    state = load_torch(path)
    if not isinstance(network, TorchvisionNetwork):
        raise TypeError(f"{spec} is a {type(network).__name__}, but torchvision's are needed")
    try:
        taken = network.load_weights(_tensors(state))
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
