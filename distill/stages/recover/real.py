"""What recovery takes from real images: their groups of difficulty, and anchors."""

from __future__ import annotations

import torch
from torch import Tensor

from distill.run.artefacts import RECOVER_STAGE
from distill.run.context import Context
from distill.stages.recover.recipe import eligible, recover_table
from distill.teachers.loading import load_committee, load_networks
from synth.images import images_at
from synth.recovery import difficulty_groups, precision_scores
from synth.selection import realism_loss

_GROUPS, _ANCHORS = "groups", "anchors"


def draw_candidates(context: Context, label: int, purpose: str) -> Tensor:
    """Places of recover.candidates real images of a class in the train split, in random order."""
    members = torch.nonzero(context.split("train")[1].cpu() == label).flatten()
    order = torch.randperm(len(members), generator=context.generator(RECOVER_STAGE, purpose, label))
    return members[order[: recover_table(context).candidates]]


def make_groups(context: Context) -> Tensor:
    """The group of difficulty [m] of each image of the train split, one for each IPC index.

    They are kept in the stage's checkpoint, where workers read them.

    Raises:
        ValueError: if a member keeps no statistics, or a class has too few images.
    """
    part = context.checkpoint(RECOVER_STAGE).part(_GROUPS)
    saved = part.load()
    if saved is not None:
        return saved[0][_GROUPS]
    images, labels = context.split("train")
    members, scores = load_networks(context), []
    for place, _ in eligible(context):
        context.stop.check()
        scores.append(precision_scores(members[place], images))
    ipc = recover_table(context).ipc
    groups = difficulty_groups(scores, labels.cpu(), context.classes, ipc)
    part.save({_GROUPS: groups}, {})
    return groups


def make_anchors(context: Context) -> Tensor:
    """Places [k * ipc * factor^2] in the train split of the anchors, in class order.

    Of each class the committee is asked about recover.candidates images, and those are anchors in
    which it recognises the class best, dealt to the images in order of rank. Source: CIM, whose
    selection is RDED's with whole images.
    """
    part, table = context.checkpoint(RECOVER_STAGE).part(_ANCHORS), recover_table(context)
    saved = part.load()
    if saved is not None:
        return saved[0][_ANCHORS]
    images, _ = context.split("train")
    committee, found = load_committee(context), []
    for label in range(context.classes):
        context.stop.check()
        drawn = draw_candidates(context, label, "anchors")
        with torch.no_grad():
            batches = drawn.split(100)
            losses = [
                realism_loss(committee.vote(images_at(images, batch)), label) for batch in batches
            ]
        order = torch.cat(losses).cpu().argsort(stable=True)[: table.ipc * table.factor**2]
        dealt = order.view(table.factor**2, table.ipc).t().reshape(-1)
        found.append(drawn[dealt])
    places = torch.cat(found)
    part.save({_ANCHORS: places}, {})
    return places
