"""What a set gives away of the images that it was made from, for the command."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.errors import DivergedRunError, InterruptedRunError, WorkError
from distill.evaluation.checks.membership import Membership, attack_membership
from distill.evaluation.checks.neighbours import (
    Balance,
    Neighbours,
    find_neighbours,
    nearer_to_training,
)
from distill.evaluation.results import open_judged
from distill.recipes.build import with_place
from distill.recipes.checks import check_names, check_networks
from distill.recipes.loading import check_recipe, with_evaluation
from distill.run.context import Context
from distill.run.engines import Engine
from distill.run.interrupt import listen
from distill.run.scratch import scratch_context
from distill.sets.dataset import DistilledSet
from distill.sets.set_file import MEASURED, read_set, set_path
from synth.images import gather, images_at

# Test images that are compared with training images, as a measure of how near strangers come.
_MOST_COMPARED = 1000

# Label sources, the usual one first.
_USUAL = ("learned", "votes", "hard")


@dataclass(frozen=True)
class AuditOptions:
    """How a set is audited.

    Attributes:
        student: network spec; "" for the recipe's first.
        labels: of the attacked students; "" for learned ones, else votes, else hard.
        students: that are attacked together.
        references: networks they are compared with; 0 leaves the attack out.
        epochs: of students; None for the recipe's.
        place: where the real data lie now; None for where the recipe says.
    """

    student: str = ""
    labels: str = ""
    students: int = 4
    references: int = 8
    epochs: int | None = None
    place: str | None = None


@dataclass(frozen=True, eq=False)
class Audit:
    """What was found out about a set.

    Attributes:
        images: [n, c, h, w] of the set in [0, 1], as students see them.
        classes: int64 [n].
        class_names: in the order of the labels.
        neighbours: the nearest training images of each.
        strangers: the same of test images, at most 1,000.
        balance: how many images of the set are nearer to training than to test images.
        shown: [n, r, c, h, w], the neighbours in [0, 1].
        shown_classes: int64 [n, r].
        membership: the attack; None where it was left out.
    """

    images: Tensor
    classes: Tensor
    class_names: tuple[str, ...]
    neighbours: Neighbours
    strangers: Neighbours
    balance: Balance
    shown: Tensor
    shown_classes: Tensor
    membership: Membership | None

    def findings(self) -> list[str]:
        """What the numbers say, in sentences."""
        return [*_neighbour_sentences(self), *_membership_sentences(self.membership)]

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        own, strangers = self.neighbours, self.strangers
        return {
            "images": len(self.images),
            "neighbours": {
                "exact": int(own.exact.sum()),
                "near": int(own.near.sum()),
                "median_distance": own.median_distance,
                "nearer_to_training": {
                    "share": self.balance.share,
                    "interval": list(self.balance.interval),
                },
                "test_images": {
                    "images": len(strangers.exact),
                    "near": int(strangers.near.sum()),
                    "median_distance": strangers.median_distance,
                },
            },
            "membership": None if self.membership is None else self.membership.to_dict(),
            "findings": self.findings(),
        }


def audit_set(
    path: Path, options: AuditOptions, device: str | None, engine: Engine, *, quiet: bool = False
) -> Audit:
    """Compare a set with its real images, and attack students of it.

    Args:
        path: set.h5, or the folder of a run.
        options: of the attack.
        device: auto, cpu or cuda; None for the recipe's.
        engine: where students are trained.
        quiet: show no progress.

    Raises:
        LimbeckError: of the fitting kind.
    """
    engine.get_ready()
    set_file = set_path(path)
    content = read_set(set_file, (MEASURED,))
    if not content.manifest["source"]["digest"]:
        raise WorkError(
            f"{set_file} states no real data that it was made from; import or merge it with --data"
        )
    recipe = check_recipe(content.manifest["recipe"], f"recipe of {set_file}")
    recipe = with_evaluation(recipe, _changes(options))
    recipe = with_place(recipe, options.place, set_file.parent)
    check_names(recipe, only=("evaluate",))
    within = set_file.parent if engine.shared else None
    with tempfile.TemporaryDirectory(dir=within) as scratch, listen() as stop:
        context = scratch_context(Path(scratch), set_file.parent, recipe, device, quiet, stop)
        context.normalise_as(content.preprocess)
        context.engine = engine
        check_networks(recipe, context.data, only=("evaluate",))
        open_judged(context, set_file)
        membership = None
        if options.references:
            membership = _attack(context, set_file, options)
        return _compared(context, DistilledSet(content), membership)


def _changes(options: AuditOptions) -> dict[str, Any]:
    changes: dict[str, Any] = {"labels": [options.labels]} if options.labels else {}
    if options.student:
        changes["students"] = [options.student]
    if options.epochs is not None:
        changes |= {"epochs": options.epochs, "soft_epochs": options.epochs}
    return changes


def _attack(context: Context, set_file: Path, options: AuditOptions) -> Membership:
    judged, _ = open_judged(context, set_file)
    labels = options.labels or next(name for name in _USUAL if name in judged.available)
    student = context.recipe.table("evaluate").students[0]
    try:
        return attack_membership(
            context, set_file, student, labels, options.students, options.references
        )
    except FloatingPointError as error:
        raise DivergedRunError(f"a student of the audit diverged: {error}") from None
    except InterruptedRunError:
        raise InterruptedRunError("interrupted; run the same command to begin anew") from None


def _compared(context: Context, data: DistilledSet, membership: Membership | None) -> Audit:
    real = context.data
    images = data.preprocess.inverse(gather(data.images)).clamp(0, 1)
    own = find_neighbours(images, real.train.images)
    generator = context.generator("audit", "test images")
    drawn = torch.randperm(len(real.test), generator=generator)[:_MOST_COMPARED]
    strangers = find_neighbours(images_at(real.test.images, drawn), real.train.images)
    balance = nearer_to_training(images, real, context.generator("audit", "balance"))
    flat = own.indices.flatten()
    shown = images_at(real.train.images, flat).unflatten(0, own.indices.shape)
    return Audit(
        images,
        data.hard,
        real.class_names,
        own,
        strangers,
        balance,
        shown,
        real.train.labels[own.indices],
        membership,
    )


def _neighbour_sentences(audit: Audit) -> list[str]:
    own, strangers, total = audit.neighbours, audit.strangers, len(audit.images)
    exact, near = int(own.exact.sum()), int(own.near.sum())
    low, high = audit.balance.interval
    told = "more than" if low > 0.5 else "less than" if high < 0.5 else "no more than"
    return [
        f"exact copies of training images: {exact} of {total} ({exact / total:.1%}); near copies: "
        f"{near} ({near / total:.1%}), against {strangers.near.float().mean():.1%} of test images",
        f"nearest training image: median distance {own.median_distance:.4f} (root mean square of "
        f"pixels in [0, 1]), of test images {strangers.median_distance:.4f}",
        f"nearer to training than to as many test images: {audit.balance.share:.1%} "
        f"({low:.1%} to {high:.1%}), {told} chance",
    ]


def _membership_sentences(found: Membership | None) -> list[str]:
    if found is None:
        return []
    lines = []
    words = {
        "loss": "loss threshold on students of the set",
        "lira": "offline likelihood ratio on students of the set",
        "control": "control: references and training images that they never saw",
        "real": "yardstick: references and the real images that they were trained on",
    }
    for name, attack in found.attacks.items():
        rates = "; ".join(
            f"at {rate.allowed:.1%} false positives "
            + (
                "nothing can be said of so few test images"
                if rate.true_rate is None or rate.true_interval is None
                else f"{rate.true_rate:.2%} found ({rate.true_interval[0]:.2%} to "
                f"{rate.true_interval[1]:.2%})"
            )
            for rate in attack.rates
        )
        low, high = attack.auc_interval
        by = f"above chance by its {' and '.join(attack.evidence)}"
        verdict = by if attack.above_chance else "not above chance"
        lines.append(
            f"{words[name]}: {verdict}; area {attack.auc:.3f} ({low:.3f} to {high:.3f}); {rates}"
        )
    if found.control.above_chance:
        lines.append(
            "training and test images differ by themselves, so a part of what the attacks find is "
            "no leak"
        )
    return lines
