"""Random real images under the labels of a network that a set keeps: the control of its images."""

from dataclasses import replace

import pytest
import torch

from distill.evaluation.evaluated_set import EvaluatedSet
from distill.evaluation.jobs import RANDOM, STUDENTS, StudentJob
from distill.evaluation.students import trained_student
from distill.recipes.specs import parse_codec
from distill.recipes.tables.evaluate import EvaluateTable
from distill.sets.label_encoding import decode_votes, encode_votes
from distill.sets.network_labels import encode_network
from distill.sets.set_file import read_set
from distill.teachers.loading import find_label_sources
from synth.images import gather
from synth.training.loop import train
from tests.distill.cases import STUDENT

TEACHER, STORED = "teacher:bits=8", "topk:k=2"


@pytest.fixture
def judged(context, finished):
    """The run's set with its committee in 8 bits among its labels, and with the largest two."""
    content, seed = read_set(finished / "set.h5"), context.recipe.seed
    images, sources = gather(content.seen_images), find_label_sources(context)
    encoded = {
        TEACHER: encode_network(content.votes, parse_codec(TEACHER), seed, sources, images),
        STORED: encode_votes(content.votes, parse_codec(STORED), seed, tuple(images.shape[2:])),
    }
    return EvaluatedSet(replace(content, encoded=encoded))


@pytest.fixture
def epoch_of(context, judged, monkeypatch):
    """The batches of the first epoch of a job's student."""

    def call(group, **keys):
        seen = []

        def spied(network, batches, settings, discriminator=None):
            seen.extend(batches(0))
            return train(network, batches, settings, discriminator)

        monkeypatch.setattr("distill.evaluation.students.train", spied)
        table = EvaluateTable(students=[STUDENT], labels=[TEACHER], **keys)
        trained_student(context, table, judged, StudentJob(group, STUDENT, TEACHER, 0, epochs=1))
        return seen

    return call


def test_a_network_among_the_labels_labels_the_control_and_stored_labels_do_not(judged):
    assert judged.labellers == [TEACHER]


@pytest.mark.parametrize("keys", [{}, {"views": "crop"}])
def test_views_of_random_images_have_the_labels_of_the_network(epoch_of, judged, keys):
    batches = epoch_of(RANDOM, **keys)
    assert sum(len(batch.labels) for batch in batches) == len(judged.content.images)
    if not keys:
        assert {len(batch.labels) for batch in batches} == {judged.content.votes.batch_size}
    network = judged.network(TEACHER, gather(judged.content.seen_images))
    for batch in batches:
        torch.testing.assert_close(batch.labels, network(batch.images))


def test_stored_views_still_have_their_stored_labels(epoch_of, judged):
    stored = decode_votes(judged.content.encoded[TEACHER], gather(judged.content.seen_images))
    expected = list(stored.batches(judged.content.seen_images, 0))
    for batch, other in zip(epoch_of(STUDENTS), expected, strict=True):
        assert torch.equal(batch.images, other.images)
        assert torch.equal(batch.labels, other.labels)
