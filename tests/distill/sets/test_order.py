"""An ordered set: each prefix is nearer to the whole, and teaches more, than images drawn of it."""

from dataclasses import replace

import torch

from distill.data import fit_preprocess, load_data
from distill.sets.compress import code_set
from distill.sets.order import first_places, herded_places, order_set
from distill.sets.set_file import SetFile
from synth.coding import unpack_images
from synth.matching.start import draw_counts
from tests.distill.sets.cases import MANIFEST, make_set, make_votes

IPC = 20


def digits_sets(count):
    """Sets of 20 random training images of each digit, and the tests with their classes."""
    data = load_data("digits")
    preprocess = fit_preprocess(data.train.images)
    generator = torch.Generator().manual_seed(0)
    manifest = {
        **MANIFEST,
        "class_names": list(data.class_names),
        "preprocess": preprocess.to_dict(),
    }
    sets = []
    for _ in range(count):
        images, labels = data.train.images, data.train.labels
        places = draw_counts(labels, [IPC] * 10, generator)
        sets.append(SetFile(preprocess(images[places]), labels[places], manifest))
    return sets, preprocess(data.test.images).flatten(1), data.test.labels


def accuracy(images, labels, test_images, test_labels):
    """Of ridge regression on pixels, the student that trains in no time."""
    seen = torch.cat([images.flatten(1), torch.ones(len(images), 1)], dim=1).double()
    wanted = torch.nn.functional.one_hot(labels, 10).double()
    weights = torch.linalg.solve(seen.T @ seen + 10 * torch.eye(seen.shape[1]), seen.T @ wanted)
    tested = torch.cat([test_images, torch.ones(len(test_images), 1)], dim=1).double()
    return float(((tested @ weights).argmax(dim=1) == test_labels).double().mean())


def test_first_images_of_digits_teach_more_than_random_ones_of_the_set(generator):
    """On average over sets: of a single one, half the images may be worse than random ones."""
    sets, *test = digits_sets(5)
    ordered = [order_set(content)[0] for content in sets]
    for count in (1, 2, 5, 10, 15):
        ours, drawn = [], []
        for content, own in zip(sets, ordered, strict=True):
            first = first_places(own.hard, count)
            ours.append(accuracy(own.images[first], own.hard[first], *test))
            for _ in range(4):
                places = torch.randperm(len(content.hard), generator=generator)
                places = places[first_places(content.hard[places], count)]
                drawn.append(accuracy(content.images[places], content.hard[places], *test))
        assert sum(ours) / len(ours) >= sum(drawn) / len(drawn), count


def test_means_of_prefixes_are_near_to_those_of_all():
    (content,), *_ = digits_sets(1)
    ordered, _ = order_set(content)

    def distance(part, count):
        own = part.images.view(10, IPC, -1)
        return float((own[:, :count].mean(dim=1) - own.mean(dim=1)).norm(dim=1).mean())

    for count in (1, 2, 5, 10, 15):
        assert distance(ordered, count) < distance(content, count)


def test_every_image_keeps_its_labels_and_classes_come_in_order():
    content = make_set(ipc=4, votes=make_votes(n=12))
    content = replace(content, hard=content.hard.roll(5))
    ordered, notes = order_set(content)
    assert ordered.hard.tolist() == sorted(content.hard.tolist())
    assert ordered.votes is None
    assert any("labels of views" in note for note in notes)
    for image, label, logits in zip(ordered.images, ordered.hard, ordered.learned, strict=True):
        place = int((content.images == image).flatten(1).all(dim=1).nonzero())
        assert content.hard[place] == label
        assert torch.equal(content.learned[place], logits)


def test_a_prefix_is_the_start_of_the_whole_order():
    content = make_set(ipc=5)
    ordered, _ = order_set(content)
    for count in (1, 3, 9):
        prefix, _ = order_set(content, count)
        places = first_places(ordered.hard, count)
        assert torch.equal(prefix.images, ordered.images[places])
        assert torch.equal(prefix.learned, ordered.learned[places])
        again, _ = order_set(ordered, count)
        assert torch.equal(again.hard, prefix.hard)


def test_coded_images_stay_coded_with_the_same_pixels(generator):
    images = torch.randn(12, 1, 8, 8, generator=generator)
    for spec in ("rounded:depth=2", "palette:colours=4", "frequency:step=0.2:block=4"):
        content = code_set(replace(make_set(ipc=4), images=images), spec)
        ordered, notes = order_set(content, 2)
        assert notes == ()
        assert ordered.coded is not None
        assert len(ordered.coded) < len(content.coded)
        whole = herded_places(content)
        wanted = whole[first_places(content.hard[whole], 2)]
        assert not torch.equal(wanted, first_places(content.hard, 2))
        assert torch.equal(unpack_images(ordered.coded)[0], unpack_images(content.coded)[0][wanted])


def test_formation_orders_by_what_students_see(generator):
    content = replace(make_set(ipc=4), learned=None)
    content = replace(
        content,
        images=torch.randn(12, 1, 8, 8, generator=generator),
        manifest={**content.manifest, "factor": 2},
    )
    ordered, _ = order_set(content, 1)
    assert ordered.seen_images.shape == (12, 1, 8, 8)
    seen = content.seen_images.view(3, 4, 4, -1).mean(dim=2)
    nearest = (seen - seen.mean(dim=1, keepdim=True)).norm(dim=2).argmin(dim=1)
    wanted = content.images.view(3, 4, 1, 8, 8)[torch.arange(3), nearest]
    assert torch.equal(ordered.images, wanted)
