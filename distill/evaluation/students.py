"""Train one student of an evaluation and test it once, after its last epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from torch import Generator, Tensor, nn

from distill.errors import WorkError
from distill.evaluation.coded import coded_real, herded_draw, random_draw
from distill.evaluation.confusion import Grade, grade
from distill.evaluation.jobs import CODED_REAL, HERDED, RANDOM, STUDENTS, StudentJob
from distill.evaluation.protocols import job_settings, on_whole, protocol_name
from distill.evaluation.small_network import round_weights
from distill.recipes.build import build_views, relabel_views
from distill.recipes.tables.evaluate import EvaluateTable
from distill.recipes.tables.relabel import RelabelTable
from distill.run.context import Context
from distill.run.engines import Load
from distill.run.load import step_count
from distill.sets.label_encoding import decode_votes
from distill.sets.set_file import SetFile
from projectors import Deployed, OnlineLabels, Projector
from synth.augment import Augmentation, MixKind
from synth.committee.relabel import StoredVotes, labelled_online
from synth.committee.strategies.stored import refined, self_mixed, soft_hard_soft
from synth.committee.vote import Committee
from synth.images import HardLogits, Images, LabelLogits, gather
from synth.training.batches import Batch, shuffled_batches
from synth.training.discriminator import Discriminator
from synth.training.loop import TrainSettings, train

_LOSSES = {"soft": "KL", "cosine": "cosine, with refined labels (GIFT),"}

Epochs = Callable[[int], Iterable[Batch]]

_SOURCES = ("hard", "learned", "votes", "projector")


@dataclass(frozen=True)
class EvaluatedSet:
    """The set that is evaluated, and the label sources that go with it.

    Attributes:
        content: the synthetic set.
        committee: the teachers, or None where there are none.
        open_projector: reads the projector, which takes seconds; None where there is none.
        relabel: how views are labelled online, and where the set has no votes their temperature.
    """

    content: SetFile
    committee: Committee | None = None
    open_projector: Callable[[], Projector] | None = None
    relabel: RelabelTable = field(default_factory=RelabelTable)
    _decoded: dict[str, StoredVotes] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def online(self) -> OnlineLabels:
        """The projector's labels; one for all students, as those of a seed see the same views.

        Raises:
            WorkError: if the projector cannot be read.
        """
        if self.open_projector is None:
            raise ValueError("there is no projector to ask for labels")
        return OnlineLabels(Deployed(self.open_projector()).logits)

    @cached_property
    def voting(self) -> OnlineLabels:
        """The committee's labels, remembered in the same way."""
        if self.committee is None:
            raise ValueError("there is no committee to ask for labels")
        return OnlineLabels(self.committee.vote)

    @property
    def available(self) -> list[str]:
        """The label sources that there are."""
        sources = {
            "hard": True,
            "learned": self.content.learned is not None,
            "votes": self.content.votes is not None,
            "projector": self.open_projector is not None,
        }
        return [name for name, there in sources.items() if there] + list(self.content.encoded)

    def stored(self, labels: str) -> StoredVotes | None:
        """The stored label of every view, as votes or encoded; None for other sources."""
        if labels == "votes":
            return self.content.votes
        encoded = self.content.encoded.get(labels)
        if encoded is None:
            return None
        if labels not in self._decoded:
            # One source at a time: in full they may take gigabytes.
            self._decoded.clear()
            self._decoded[labels] = decode_votes(encoded, gather(self.content.seen_images))
        return self._decoded[labels]

    @property
    def labellers(self) -> list[str]:
        """The label sources that can label other images: a set's stored votes cannot."""
        sources = {
            "votes": self.committee is not None,
            "projector": self.open_projector is not None,
        }
        return [name for name, there in sources.items() if there]


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
    images, labels = context.split("validation" if job.trial else "test")
    return replace(grade(network, images, labels, context.classes), bytes=size)


def trained_student(
    context: Context, table: EvaluateTable, judged: EvaluatedSet, job: StudentJob
) -> nn.Module:
    """The student of a job after its last epoch."""
    # The same weights for all label sources of a seed: they are compared in pairs.
    network = context.network(job.student, "evaluate", job.seed)
    settings = student_settings(table, judged, job)
    batches = _batches(context, table, judged, job)
    batch = min(_image_count(context, judged, job), table.batch_size)
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
    stored = job.group == STUDENTS and job.labels == "votes"
    batch = min(_vote_batches(judged)[0] if stored else table.batch_size, count)
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
    """How the student of a job is trained; see `protocol` for the words."""
    learned = float(judged.content.manifest["student_lr"])
    return job_settings(table, job, temperature=label_temperature(judged), student_lr=learned)


def label_temperature(judged: EvaluatedSet) -> float:
    """The temperature at which students match votes and projector."""
    votes = judged.content.votes
    return votes.temperature if votes is not None else judged.relabel.temperature


def protocol(context: Context, table: EvaluateTable, judged: EvaluatedSet) -> dict[str, Any]:
    """How students are trained, in plain values."""
    unlearned = judged.content.learned is None
    sources = [source for source in _SOURCES if source != "learned" or not unlearned]
    return {
        "test_images": len(context.data.test),
        "tested": "once, after the last epoch",
        "seeds": table.seeds,
        "interval": "95 %, Student's t over the seeds",
        **{source: _words(context, table, judged, source) for source in sources},
        "random": "real training images, drawn anew for each seed, at the same images per class",
        "whole": {
            "epochs": table.whole_epochs,
            "seeds": table.seeds if table.whole_seeds is None else table.whole_seeds,
            "images": len(context.data.train),
            "as": "hard",
        },
    }


def _words(
    context: Context, table: EvaluateTable, judged: EvaluatedSet, source: str
) -> dict[str, Any]:
    """The protocol of a label source in plain values."""
    job = StudentJob(STUDENTS, "", source, 0)
    name, settings = protocol_name(table, job), student_settings(table, judged, job)
    momentum = f", momentum {settings.momentum:g}" if settings.momentum else ""
    described: dict[str, Any] = {
        "protocol": name,
        "epochs": settings.epochs,
        "batch_size": table.batch_size,
        "optimizer": f"sgd{momentum}" if settings.optimizer == "sgd" else settings.optimizer,
        "lr": settings.lr,
        "schedule": settings.schedule + (f", eta {settings.eta:g}" if settings.eta != 1 else ""),
    }
    if table.precision != "float32":
        described["precision"] = table.precision
    if name == "kd":
        described["weight_decay"] = settings.weight_decay
        described["average"] = settings.average
        described["loss"] = f"{_LOSSES[settings.loss]} at temperature {settings.temperature:g}"
        if settings.annealing is not None:
            last = settings.temperature_at(settings.epochs - 1)
            described["loss"] += f", {settings.annealing.kind} to {last:.3g}"
        if settings.calibrated:
            described["loss"] += ", the student's calibrated"
        if table.discriminator:
            described["discriminator"] = table.discriminator
    if source == "votes":
        size, parts, mix = _vote_batches(judged)
        return {**described, "batch_size": size, "parts": parts, "mix": mix, "views": "as stored"}
    online = source == "projector" or name == "kd"
    views = relabel_views(judged.relabel).families if online else context.recipe.data.augmentation
    return {**described, "views": views}


def _vote_batches(judged: EvaluatedSet) -> tuple[int, int, MixKind]:
    """Batch size, parts and mix of the labelled views, and so of their control."""
    votes = judged.content.votes
    if votes is None:
        return judged.relabel.batch_size, judged.relabel.parts, judged.relabel.mix
    mix: MixKind = "none" if votes.mixes is None else votes.mixes.kind
    return votes.batch_size, votes.parts, mix


def _batches(
    context: Context, table: EvaluateTable, judged: EvaluatedSet, job: StudentJob
) -> Epochs:
    generator = context.generator("evaluate", job.group, job.labels, job.seed)
    images, hard = _images(context, judged, job)
    size = table.batch_size
    votes = judged.stored(job.labels) if job.group == STUDENTS else None
    if votes is not None:
        return _stored(table, votes, images, hard, generator)
    labeller = _labeller(judged, job)
    if labeller is not None:
        drawn = relabel_views(judged.relabel) if job.views else Augmentation(())
        # Random images with votes are the control of the stored ones: batched and mixed alike.
        size, parts, mix = _vote_batches(judged) if job.labels == "votes" else (size, 1, "none")
        kind = mix if job.views else "none"
        return lambda epoch: labelled_online(images, labeller, size, drawn, generator, kind, parts)
    soft: LabelLogits = HardLogits(hard, context.classes)
    if job.labels == "learned" and judged.content.learned is not None and job.group == STUDENTS:
        soft = judged.content.learned.to(context.device)
    views = _views(context, table, judged, job)
    return lambda epoch: shuffled_batches(images, soft, size, views, generator)


def _views(
    context: Context, table: EvaluateTable, judged: EvaluatedSet, job: StudentJob
) -> Augmentation | None:
    """The augmentation of images whose labels do not depend on the view."""
    if not job.views:
        return None
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
        return context.random_real(len(judged.content.images) // context.classes, generator)
    if job.group in CODED_REAL:
        herded = job.group == HERDED
        draw = herded_draw(context) if herded else random_draw(context, job.seed)
        return coded_real(context, draw, job)
    return context.split("train")


def _labeller(judged: EvaluatedSet, job: StudentJob) -> Callable[[Tensor], Tensor] | None:
    """What labels views online: the projector, or the committee for random real images."""
    if on_whole(job) or job.group in CODED_REAL:
        return None
    if job.labels == "projector" and judged.open_projector is not None:
        return judged.online
    if job.labels == "votes" and judged.committee is not None:
        # Real images have the statistics that the teachers were trained on: no BSSL.
        return judged.voting
    return None
