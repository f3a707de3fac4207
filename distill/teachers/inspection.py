"""Teachers that come trained are looked at before the first stage, not after hours of others."""

from __future__ import annotations

from distill.errors import WorkError
from distill.recipes.build import is_torchvision, is_trained
from distill.recipes.tables.committee import CommitteeTable
from distill.run.context import Context
from distill.teachers.pretrained import comes_trained, member_network
from synth.training.prediction import accuracy

# A difference of accuracies counts from so many standard errors, and so many points, on.
_ERRORS, _POINTS = 3.0, 0.05


def comes_whole(table: CommitteeTable, spec: str) -> bool:
    """Whether a member is known to need no training; of torchvision's, the file decides."""
    named = table.training(spec).weights is not None
    return is_trained(spec) or (named and not is_torchvision(spec))


def inspect_teachers(context: Context, table: CommitteeTable) -> None:
    """Measure the members that come trained; say of which their held-out accuracy is too good.

    A teacher that was trained on the images that are held out is better on them than on the test
    images, which are read here for that warning alone.

    Raises:
        WorkError: for a member near chance, or whose weights cannot be read.
    """
    for index, spec in enumerate(table.members):
        if not comes_whole(table, spec) and not is_torchvision(spec):
            continue
        network = member_network(context, spec, index)
        if not comes_trained(context, spec, table.training(spec).weights, network):
            continue
        shown = {}
        for part in ("validation", "test"):
            images, labels = context.split(part)
            with context.threads(len(labels), network):
                shown[part] = accuracy(network, images, labels)
            context.stop.check()
            if part == "validation":
                refuse_chance(spec, shown[part], context.classes, trained=False)
        counts = (len(context.data.validation), len(context.data.test))
        if has_seen(shown["validation"], shown["test"], *counts):
            weighed = (
                ""
                if table.vote == "equal"
                else "; the vote would trust it too much: state what it reaches as "
                "committee.priors, or set committee.vote = equal"
            )
            context.progress.say(
                f"note: teacher {spec} is right on {shown['validation']:.1%} of the held-out and "
                f"on {shown['test']:.1%} of the test images, so it was probably trained on the "
                f"held-out ones{weighed}"
            )


def has_seen(held_out: float, tested: float, held_count: int, test_count: int) -> bool:
    """Whether a teacher is better on held-out images than on test images by more than chance.

    Args:
        held_out: its accuracy on the former, a fraction.
        tested: on the latter.
        held_count: images of the former.
        test_count: of the latter.
    """
    mean = (held_out * held_count + tested * test_count) / (held_count + test_count)
    error = (mean * (1 - mean) * (1 / held_count + 1 / test_count)) ** 0.5
    return held_out - tested > max(_ERRORS * error, _POINTS)


def refuse_chance(spec: str, found: float, classes: int, *, trained: bool) -> None:
    """Refuse a member that is near chance: its labels would be noise.

    Args:
        spec: of the member.
        found: its held-out accuracy, a fraction.
        classes: k.
        trained: whether it was trained here, and did not come with its weights.

    Raises:
        WorkError: for such a member.
    """
    if found < 2 / classes and classes > 2:
        remedy = "its weights may be of other classes, or of the same in another order"
        if trained:
            remedy = "raise committee.epochs, choose another network, or leave it out"
        raise WorkError(
            f"committee member {spec} has held-out accuracy {found:.3f}, near the chance of "
            f"{1 / classes:.3f}; {remedy}"
        )
