import pytest
import torch

import projectors


@pytest.fixture
def asked():
    return []


@pytest.fixture
def ask(asked):
    def call(views):
        asked.append(len(views))
        return views.flatten(1)[:, :3] * 2

    return call


def test_labels_are_those_of_the_views_in_bounded_pieces(ask, asked, generator):
    views = torch.rand(7, 1, 2, 2, generator=generator)
    labels = projectors.OnlineLabels(ask, batch_size=3)
    assert torch.equal(labels(views), views.flatten(1)[:, :3] * 2)
    assert asked == [3, 3, 1]


def test_a_batch_that_comes_again_is_not_asked_for(ask, asked, generator):
    labels = projectors.OnlineLabels(ask)
    views = torch.rand(2, 4, 1, 2, 2, generator=generator)
    first = [labels(batch) for batch in views]
    again = [labels(batch.clone()) for batch in views]
    assert asked == [4, 4]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert (labels.computed, labels.cached) == (8, 8)
    labels(views[0].view(4, 1, 4, 1))
    assert asked == [4, 4, 4]


def test_what_does_not_fit_is_asked_for_each_time(ask, asked, generator):
    views = torch.rand(2, 4, 1, 2, 2, generator=generator)
    labels = projectors.OnlineLabels(ask, cache_bytes=4 * 3 * 4)
    for _ in range(2):
        for batch in views:
            labels(batch)
    assert asked == [4, 4, 4]
    uncached = projectors.OnlineLabels(ask, cache_bytes=0)
    uncached(views[0])
    uncached(views[0])
    assert uncached.cached == 0


def test_a_projector_is_asked_without_gradients(stirred, images):
    projector = stirred()
    logits = projectors.OnlineLabels(projector.logits)(images)
    assert not logits.requires_grad
    torch.testing.assert_close(logits, projector.logits(images).detach())


def test_sizes_that_make_no_sense_are_refused(ask):
    with pytest.raises(projectors.ProjectorError, match="at least 1 and 0"):
        projectors.OnlineLabels(ask, batch_size=0)
