"""Train one student of an evaluation and test it once, after its last epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Generator, Tensor, nn

from distill.errors import WorkError
from distill.evaluation.coded import coded_real, herded_draw, random_draw
from distill.evaluation.confusion import Grade, grade
from distill.evaluation.evaluated_set import EvaluatedSet
from distill.evaluation.jobs import CODED_REAL, HERDED, RANDOM, STUDENTS, StudentJob
from distill.evaluation.known_classes import class_count, known_images, known_logits
from distill.evaluation.protocols import (
    batch_size,
    batched_as_labels,
    job_settings,
    on_whole,
    protocol_name,
    trained_labels,
)
from distill.evaluation.small_network import round_weights
from distill.recipes.build import build_views, relabel_views
from distill.recipes.tables.evaluate import EvaluateTable
from distill.run.context import Context
from distill.run.engines import Load
from distill.run.load import step_count
from distill.sets.network_labels import labels_any_view
from synth.augment import Augmentation, MixKind
from synth.committee.relabel import StoredVotes, labelled_online
from synth.committee.strategies.stored import refined, self_mixed, soft_hard_soft, with_classes
from synth.images import HardLogits, Images, LabelLogits, images_at
from synth.training.batches import Batch, mixed_batches, shuffled_batches
from synth.training.discriminator import Discriminator
from synth.training.loop import TrainSettings, train

Epochs = Callable[[int], Iterable[Batch]]


def grade_student(
    context: Context, table: EvaluateTable, judged: EvaluatedSet, job: StudentJob
) -> Grade:
    """The test of one fresh student after its last epoch.

    A trial, which chooses for others, is tested on the validation split: 0 if it diverged. Any
    other is tested on the test split, once.

    Raises:
        FloatingPointError: if a student that is no trial diverges.
    """
    try:
        network = trained_student(context, table, judged, job)
    except FloatingPointError:
        if job.trial:
            return Grade(0.0)
        raise
    size = None if job.bits is None else round_weights(network, job.bits)
    tested = known_images(job, *context.split("validation" if job.trial else "test"))
    return replace(grade(network, *tested, class_count(job, context.classes)), bytes=size)


def trained_student(
    context: Context, table: EvaluateTable, judged: EvaluatedSet, job: StudentJob
) -> nn.Module:
    """The student of a job after its last epoch."""
    # The same weights for all label sources of a seed: they are compared in pairs.
    network = context.network(job.student, "evaluate", job.seed, classes=job.classes)
    settings = student_settings(table, judged, job)
    batches = _batches(context, table, judged, job)
    batch = batch_size(table, _image_count(context, judged, job), context.classes)
    discriminator = _discriminator(context, table, job)
    with context.threads(batch, network):
        for _ in train(network, batches, settings, discriminator):
            context.stop.check()
    return network


def student_load(
    context: Context, table: EvaluateTable, judged: EvaluatedSet, job: StudentJob
) -> Load:
    """The load of training the student of a job."""
    count = _image_count(context, judged, job)
    if job.group == STUDENTS:
        count *= judged.content.factor**2
    batch = batch_size(table, count, context.classes)
    if batched_as_labels(table, job):
        batch = min(label_batches(judged)[0], count)
    epochs = student_settings(table, judged, job).epochs
    return context.training_load(job.student, batch, epochs * step_count(count, batch))


def _image_count(context: Context, judged: EvaluatedSet, job: StudentJob) -> int:
    """Images that a job's student is trained on; of the set, those that it stores."""
    if on_whole(job):
        return len(context.data.train)
    if job.ipc is None:
        return len(judged.content.images)
    return job.ipc * job.factor**2 * context.classes


def _discriminator(context: Context, table: EvaluateTable, job: StudentJob) -> Discriminator | None:
    """MEAL V2's discriminator, for soft labels only; the same for all sources of a seed."""
    if not table.discriminator or protocol_name(table, job) != "kd":
        return None
    generator = context.generator("evaluate", "discriminator", job.seed)
    return Discriminator(context.classes, table.discriminator, generator).to(context.device)


def student_settings(table: EvaluateTable, judged: EvaluatedSet, job: StudentJob) -> TrainSettings:
    """How the student of a job is trained; see `evaluation.stated` for the words."""
    learned = float(judged.content.manifest["student_lr"])
    return job_settings(table, job, temperature=label_temperature(judged), student_lr=learned)


def label_temperature(judged: EvaluatedSet) -> float:
    """The temperature at which students match votes and projector."""
    votes = judged.content.votes
    return votes.temperature if votes is not None else judged.relabel.temperature


def label_batches(judged: EvaluatedSet) -> tuple[int, int, MixKind]:
    """Batch size, parts and mix of the labelled views, and so of their control."""
    votes = judged.content.votes
    if votes is None:
        return judged.relabel.batch_size, judged.relabel.parts, judged.relabel.mix
    mix: MixKind = "none" if votes.mixes is None else votes.mixes.kind
    return votes.batch_size, votes.parts, mix


def _batches(
    context: Context, table: EvaluateTable, judged: EvaluatedSet, job: StudentJob
) -> Epochs:
    """The batches of every epoch, with soft labels mixed with the class where that is asked for."""
    images, hard = known_images(job, *_images(context, judged, job))
    epochs = _labelled(context, table, judged, job, (images, hard))
    weight = table.hard_weight if job.way.hard_weight is None else job.way.hard_weight
    if not weight or trained_labels(job) == "hard":
        return epochs
    temperature = student_settings(table, judged, job).temperature
    return lambda epoch: with_classes(epochs(epoch), hard, weight, temperature)


def _labelled(
    context: Context,
    table: EvaluateTable,
    judged: EvaluatedSet,
    job: StudentJob,
    seen: tuple[Images, Tensor],
) -> Epochs:
    """The batches of every epoch, of images and their classes."""
    generator = context.generator("evaluate", job.group, job.labels, job.seed)
    (images, hard), classes = seen, class_count(job, context.classes)
    size = batch_size(table, len(images), classes)
    votes = _stored_labels(table, judged, job)
    if votes is not None:
        return _stored(table, votes, images, hard, generator)
    labeller = _labeller(table, judged, job, images)
    if labeller is not None:
        drawn, parts = _own_views(table, job) or relabel_views(judged.relabel), 1
        mix = job.way.mix or table.mix
        if batched_as_labels(table, job):
            size, parts, mix = label_batches(judged)
        if not job.views:
            drawn, mix = Augmentation(()), "none"
        return lambda epoch: labelled_online(images, labeller, size, drawn, generator, mix, parts)
    soft: LabelLogits = HardLogits(hard, classes)
    content = judged.content
    if job.labels == "learned" and content.learned is not None and job.group == STUDENTS:
        soft = known_logits(job, content.learned, content.seen_hard).to(context.device)
    views, kind = _views(context, table, judged, job), job.way.mix or "none"

    def batches(epoch: int) -> Iterable[Batch]:
        plain = shuffled_batches(images, soft, size, views, generator)
        return plain if kind == "none" else mixed_batches(plain, kind, generator)

    return batches


def check_labels(table: EvaluateTable, judged: EvaluatedSet) -> None:
    """Raise WorkError for a label source that the students' own views cannot have."""
    if table.views is None:
        return
    for labels in table.labels:
        encoded = judged.content.encoded.get(labels)
        if encoded is not None and not labels_any_view(encoded):
            raise WorkError(
                f"evaluate.labels has {labels}, which label stored views, but students draw views "
                f"anew under protocol {table.protocol}; leave them out, or take protocol auto"
            )
        if labels == "votes" and judged.content.votes is not None and judged.committee is None:
            raise WorkError(
                f"protocol {table.protocol} asks teachers for votes on the students' own views, "
                "but no committee lies beside the set; evaluate it in its run's folder, or leave "
                "votes out of the labels"
            )


def _stored_labels(
    table: EvaluateTable, judged: EvaluatedSet, job: StudentJob
) -> StoredVotes | None:
    """The stored labels that a job's student is trained on, if any."""
    if job.group != STUDENTS:
        return None
    if table.views is None:
        return judged.stored(job.labels)
    check_labels(table.model_copy(update={"labels": [job.labels]}), judged)
    return None


def _own_views(table: EvaluateTable, job: StudentJob) -> Augmentation | None:
    """The augmentation of evaluate.views; None where views are those of the labels."""
    if table.views is None:
        return None
    one = protocol_name(table, job) != "kd"
    return build_views(table.views, one_per_batch=one) or Augmentation(())


def _views(
    context: Context, table: EvaluateTable, judged: EvaluatedSet, job: StudentJob
) -> Augmentation | None:
    """The augmentation of images whose labels do not depend on the view."""
    if not job.views:
        return None
    own = None if on_whole(job) else _own_views(table, job)
    if own is not None:
        return own if own.families else None
    if protocol_name(table, job) == "kd":
        return relabel_views(judged.relabel)
    return build_views(context.recipe.data.augmentation, one_per_batch=True)


def _stored(
    table: EvaluateTable, votes: StoredVotes, images: Images, hard: Tensor, generator: Generator
) -> Epochs:
    """Batches of stored labels; refined, mixed or with hard stages where the recipe says so."""
    classes = hard.cpu()
    if table.gift:
        votes = refined(votes, classes, table.gift)
    if table.self_mix:
        try:
            return self_mixed(votes, images, generator)
        except ValueError as error:
            raise WorkError(
                f"evaluate.self_mix: {error}; make them with relabel.mix = none, or leave out "
                "self_mix"
            ) from None
    if table.hard_share:
        return soft_hard_soft(
            votes, images, classes, table.view_epochs, table.hard_share, table.hard_smoothing
        )
    return lambda epoch: votes.batches(images, epoch)


def _images(context: Context, judged: EvaluatedSet, job: StudentJob) -> tuple[Images, Tensor]:
    if job.group == STUDENTS:
        content = judged.content
        return context.on_device(content.seen_images), content.seen_hard.to(context.device)
    if job.group == RANDOM:
        generator = context.generator("evaluate", "random images", job.seed)
        return context.random_like(judged.content.hard, generator)
    if job.group in CODED_REAL:
        herded = job.group == HERDED
        draw = herded_draw(context) if herded else random_draw(context, job.seed)
        return coded_real(context, draw, job)
    return context.split("train")


def _labeller(
    table: EvaluateTable, judged: EvaluatedSet, job: StudentJob, images: Images
) -> Callable[[Tensor], Tensor] | None:
    """What labels views online: projector, committee, or a network among the set's labels."""
    if on_whole(job) or job.group in CODED_REAL:
        return None
    if job.labels in judged.content.encoded:
        return judged.network(job.labels, images_at(images, torch.arange(1)))
    if job.labels == "projector" and judged.open_projector is not None:
        return judged.online
    if job.labels == "votes" and judged.committee is not None:
        # Real images have the statistics that the teachers were trained on: no BSSL.
        return judged.voting
    return None
