"""A control that is no set: a network in as many bytes, trained on all images.

It says what the bytes hold when they need to train nobody. Its weights are rounded after training
to `BITS` bits each, see `projectors/files/compact.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from distill.evaluation.coded import SEARCH_SHARE
from distill.evaluation.confusion import Grade
from distill.evaluation.jobs import NETWORK, STUDENTS, StudentJob
from distill.run.context import Context
from distill.sets.coded_images import largest
from distill.sets.coded_set import best_coder
from projectors import Storage
from projectors.codecs.weights import Weights
from projectors.files.compact import pack_compact, unpack_compact
from projectors.files.entropy import CODERS

BITS = (4, 8)

# The width of the literature's ConvNet: where it fits, wider ones are not tried.
WIDEST = 128

# What a receiver must know besides the weights: the width, in a byte.
_WIDTH_BYTES = 1


def network_spec(width: int) -> str:
    """The spec of the control's network."""
    return f"convnet3:width={width}"


@dataclass(frozen=True)
class SmallNetwork:
    """A network whose rounded weights fit into a budget.

    Attributes:
        width: feature maps of each block of a ConvNet-3.
        bits: of each weight.
    """

    width: int
    bits: int


def round_weights(network: nn.Module, bits: int) -> int:
    """Round the weights of a network, in place, to what a receiver decodes; returns their bytes.

    The fewest bytes of the coders at hand; without the extra `compact`, the codec of teachers.

    Args:
        network: of floating-point weights.
        bits: 4 or 8.
    """
    state = network.state_dict()
    if best_coder() == "arithmetic":
        contents = [pack_compact(state, Storage(bits, coder)) for coder in CODERS]
        content = min(contents, key=len)
        found = unpack_compact(content, {name: value.shape for name, value in state.items()})
    else:
        content = Weights(bits).encode(state, {})
        found = Weights(bits).decode(content)[0]
    network.load_state_dict(found)
    return len(content) + _WIDTH_BYTES


def widest(context: Context, bits: int, budget: int) -> SmallNetwork:
    """The widest network that fits before it is trained; of width 1 where none does.

    Training makes weights unequal in size, so that they take fewer bytes, not more.

    Args:
        context: the form of its data.
        bits: of each weight.
        budget: bytes that the weights may take.
    """

    def size(width: int) -> int:
        return round_weights(context.network(network_spec(width), "evaluate", 0), bits)

    return SmallNetwork(max(1, largest(size, budget, WIDEST, tolerance=0.0)), bits)


def plan_bits(
    jobs: Sequence[StudentJob], epochs: int, offered: Mapping[str, Sequence[SmallNetwork]]
) -> list[tuple[StudentJob, SmallNetwork]]:
    """A short training of every candidate, for each label source.

    Args:
        jobs: of the evaluation; one of seed 0 on the set is taken up for each label source.
        epochs: of students on the whole data set.
        offered: candidates by label source.
    """
    short = max(1, epochs // SEARCH_SHARE)
    firsts = {job.labels: job for job in jobs if job.group == STUDENTS and job.seed == 0}
    return [
        (replace(_train(job, network), trial=True, epochs=short), network)
        for job in firsts.values()
        for network in offered[job.labels]
    ]


def best_bits(
    graded: Iterable[tuple[StudentJob, SmallNetwork, Grade]], budgets: Mapping[str, int]
) -> dict[str, SmallNetwork]:
    """The candidate of the best accuracy by label source; the first of equals.

    Those that fit come before those that do not.

    Args:
        graded: short trainings.
        budgets: bytes that weights may take, by label source.
    """
    best: dict[str, tuple[tuple[bool, float], SmallNetwork]] = {}
    for job, network, grade in graded:
        rank = (grade.bytes is not None and grade.bytes <= budgets[job.labels], grade.accuracy)
        if job.labels not in best or rank > best[job.labels][0]:
            best[job.labels] = (rank, network)
    return {source: network for source, (_, network) in best.items()}


def plan_networks(
    jobs: Sequence[StudentJob], chosen: Mapping[str, SmallNetwork]
) -> list[StudentJob]:
    """One network for every label source of the set, and seed."""
    own = {(job.labels, job.seed): job for job in jobs if job.group == STUDENTS}
    return [_train(job, chosen[source]) for (source, _), job in own.items()]


def _train(job: StudentJob, network: SmallNetwork) -> StudentJob:
    return replace(job, group=NETWORK, student=network_spec(network.width), bits=network.bits)


def describe_networks(
    controls: dict[str, Any],
    graded: Iterable[tuple[StudentJob, Grade]],
    chosen: Mapping[str, SmallNetwork],
    shared: int,
) -> None:
    """Add to each accuracy of the control its width, its bits and its bytes.

    Args:
        controls: accuracies by network and label source.
        graded: all students.
        chosen: what `plan_networks` took.
        shared: bytes of what reads the images.
    """
    for job, grade in graded:
        if job.group != NETWORK or grade.bytes is None:
            continue
        stats, network = controls[job.student][job.labels], chosen[job.labels]
        # The largest of the seeds.
        taken = max(stats.get("bytes", 0), shared + grade.bytes)
        stats |= {"width": network.width, "bits": network.bits, "bytes": taken}
