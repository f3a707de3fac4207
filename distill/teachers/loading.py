"""The trained committee of a run, and the networks and files that label in its place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

import projectors
from distill.errors import WorkError
from distill.recipes.specs import program_digest
from distill.run.artefacts import COMMITTEE, PROJECTOR
from distill.run.context import Context
from distill.sets.network_labels import LabelSources
from distill.store.committee import Member, read_committee
from distill.teachers.pretrained import member_network
from distill.teachers.priors import make_weighting
from projectors import Projector, ProjectorBytes
from synth.committee.vote import Committee
from synth.committee.weights import VoteWeighting


def has_committee(context: Context) -> bool:
    """Whether this run has a committee."""
    return context.recipe.committee is not None and (context.run.path / COMMITTEE).is_file()


def load_committee(context: Context, only: str | None = None) -> Committee:
    """The committee of this run with the votes of its recipe, or one member alone.

    Raises:
        WorkError: if it was trained on other data or classes, or has no such member.
    """
    if only is not None:
        members = [member for member in _read_members(context) if member.spec == only]
        if not members:
            raise WorkError(
                f"{context.run.path / COMMITTEE} has no member {only}; name one of "
                "committee.members"
            )
        return Committee(_networks(context, members), torch.full((len(members),), 1 / len(members)))
    networks, weighting = load_members(context)
    temperature = context.recipe.table("committee").vote_temperature
    return Committee(networks, weighting.weights(temperature, context.generator("vote")))


def load_networks(context: Context) -> tuple[nn.Module, ...]:
    """The members of this run in the order of the recipe, frozen; read once for a stage.

    Raises:
        WorkError: if they were trained on other data or classes.
    """
    return context.once("networks", lambda: _networks(context, _read_members(context)))


def load_members(context: Context) -> tuple[tuple[nn.Module, ...], VoteWeighting]:
    """The members of this run in the order of the recipe, frozen, and the weighting of their votes.

    Raises:
        WorkError: if they were trained on other data or classes.
    """
    members = _read_members(context)
    networks = context.once("networks", lambda: _networks(context, members))
    return networks, make_weighting(context, context.recipe.table("committee"), members, networks)


def _read_members(context: Context) -> list[Member]:
    path = _artefact(context, COMMITTEE)
    members, data, class_names = read_committee(path)
    if data != context.data.digest or class_names != list(context.data.class_names):
        raise WorkError(f"{path} was trained on other data or classes; run the stage committee")
    specs, wanted = [member.spec for member in members], context.recipe.table("committee").members
    if specs != wanted:
        raise WorkError(
            f"{path} holds the members {', '.join(specs)}, but committee.members is "
            f"{', '.join(wanted)}; run the stage committee"
        )
    return members


def _networks(context: Context, members: list[Member]) -> tuple[nn.Module, ...]:
    networks = []
    for index, member in enumerate(members):
        if member.program and member.program != program_digest(member.spec):
            raise WorkError(
                f"{context.run.path / COMMITTEE}: the file of member {member.spec} is another than "
                "it was; put that back, or run the stage committee again"
            )
        network = member_network(context, member.spec, index)
        try:
            network.load_state_dict(member.state)
        except (RuntimeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise WorkError(
                f"{context.run.path / COMMITTEE}: member {member.spec} does not fit its network "
                f"({reason}); run the stage committee again"
            ) from None
        networks.append(network.eval().requires_grad_(False))
    return tuple(networks)


def load_projector(context: Context) -> Projector:
    """The projector of this run, on the device.

    Raises:
        WorkError: if its folder is damaged, or it was fitted to other classes.
    """
    folder = _artefact(context, PROJECTOR)
    try:
        projector = projectors.load(folder, classes=context.data.class_names)
    except projectors.ProjectorError as error:
        raise WorkError(f"projector {folder}: {error}") from None
    return projector.to(context.device)


def projector_sizes(context: Context) -> ProjectorBytes | None:
    """Bytes of this run's projector, whose files are checked; None where it has none.

    Raises:
        WorkError: if its folder is damaged.
    """
    folder = _artefact(context, PROJECTOR)
    if not folder.is_dir():
        return None
    try:
        return projectors.projector_bytes(folder)
    except projectors.ProjectorError as error:
        raise WorkError(f"projector {folder}: {error}") from None


def _artefact(context: Context, name: str) -> Path:
    """A file or folder of the run; its own place, where the run only borrows it, see `scratch`."""
    path = context.run.path / name
    return path.resolve() if path.is_symlink() else path


def find_label_sources(context: Context) -> LabelSources:
    """Committee and projector of the context's run, where there are any.

    Raises:
        WorkError: if one of them is damaged.
    """
    folder = context.run.path
    sources, sizes = LabelSources(), projector_sizes(context)
    if has_committee(context):
        members, _, _ = read_committee(folder / COMMITTEE)
        weights = load_committee(context).weights
        sources = replace(sources, members=tuple(members), weights=tuple(weights.tolist()))
    if sizes is None:
        return sources
    fit = context.recipe.projector
    return replace(
        sources,
        projector=folder / PROJECTOR,
        external=sizes.external,
        fitted=0 if fit is None else fit.steps * fit.batch_size,
    )
