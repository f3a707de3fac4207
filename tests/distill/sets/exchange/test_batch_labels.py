"""SRe2L's soft labels by batches belong to the images and views that they were made for."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import RandomSampler
from torchvision.transforms import functional

from distill.sets.set_file import read_set

EPOCHS, BATCH, COUNT = 3, 4, 6


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Three pictures of each of two classes; the pixels [6, 3, 8, 8] in ImageFolder's order."""
    folder = tmp_path_factory.mktemp("pictures")
    values = np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8, 3), dtype=np.uint8)
    for number, image in enumerate(values):
        path = folder / f"new{number // 3:03}" / f"class_{number}.jpg.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)
    return folder, torch.from_numpy(values).permute(0, 3, 1, 2).float() / 255


def label_of(image):
    """Logits that tell the image."""
    return torch.tensor([float(image), -float(image)])


def store(folder, mixed=None):
    """Labels as relabel/generate_soft_label.py leaves them; returns crops and flips by epoch."""
    generator = torch.Generator().manual_seed(42)
    sampler = RandomSampler(range(COUNT), generator=generator)
    drawn = torch.Generator().manual_seed(1)
    kept = []
    for epoch in range(EPOCHS):
        (folder / f"epoch_{epoch}").mkdir(parents=True)
        order = list(sampler)
        for number, start in enumerate(range(0, COUNT, BATCH)):
            own = order[start : start + BATCH]
            pixels = torch.stack(
                [torch.randint(0, 4, (len(own),), generator=drawn) for _ in range(2)]
                + [torch.randint(4, 5, (len(own),), generator=drawn) for _ in range(2)],
                dim=1,
            )
            flips = torch.rand(len(own), generator=drawn) < 0.5
            mix = (None, None, None)
            if mixed is not None:
                mix = (torch.arange(len(own)).flip(0), *mixed)
            logits = torch.stack([label_of(image) for image in own]).half()
            torch.save(
                [pixels / 8, flips, *mix, logits], folder / f"epoch_{epoch}" / f"batch_{number}.tar"
            )
            kept.append((epoch, own, pixels, flips))
    return kept


@pytest.fixture
def bring(command, tmp_path, pictures):
    def call(labels, *options):
        out = tmp_path / "set.h5"
        outcome = command(
            "import", pictures[0], "--from", "rded", "--soft-labels", labels, "--out", out, *options
        )
        assert outcome.code == 0, outcome.err
        return read_set(out)

    return call


def seen(content):
    """Every batch of every epoch, as students see them."""
    return [
        batch for epoch in range(EPOCHS) for batch in content.votes.batches(content.images, epoch)
    ]


def test_each_view_has_its_own_label(pictures, bring, tmp_path):
    kept = store(tmp_path / "fkd")
    content = bring(tmp_path / "fkd", "--temperature", "3")
    assert content.votes.temperature == 3
    for (_, own, pixels, flips), batch in zip(kept, seen(content), strict=True):
        wanted = torch.stack([label_of(image) for image in own])
        torch.testing.assert_close(batch.labels, wanted)
        for image, (top, left, high, wide), flip, view in zip(
            own, pixels.tolist(), flips, batch.images, strict=True
        ):
            crop = functional.resized_crop(
                pictures[1][image], top, left, high, wide, [8, 8], antialias=False
            )
            crop = functional.hflip(crop) if flip else crop
            # The border is interpolated with what lies beyond the crop.
            torch.testing.assert_close(view[:, 1:-1, 1:-1], crop[:, 1:-1, 1:-1], atol=0.02, rtol=0)


def test_mixes_come_from_their_partners(bring, tmp_path):
    store(tmp_path / "plain")
    plain = seen(bring(tmp_path / "plain"))
    (tmp_path / "set.h5").unlink()
    box = [np.int64(2), np.int64(0), np.int64(5), np.int64(7)]
    store(tmp_path / "cutmix", (np.float64(0.5), box))
    for before, batch in zip(plain, seen(bring(tmp_path / "cutmix")), strict=True):
        wanted = before.images.clone()
        wanted[:, :, 2:5, 0:7] = before.images.flip(0)[:, :, 2:5, 0:7]
        assert torch.equal(batch.images, wanted)
    (tmp_path / "set.h5").unlink()
    store(tmp_path / "mixup", (np.float64(0.25), None))
    for before, batch in zip(plain, seen(bring(tmp_path / "mixup")), strict=True):
        wanted = 0.25 * before.images + 0.75 * before.images.flip(0)
        torch.testing.assert_close(batch.images, wanted)


def test_labels_that_do_not_fit_into_memory_are_the_same(bring, tmp_path, monkeypatch):
    from distill.sets.exchange import batch_labels

    store(tmp_path / "fkd")
    first = bring(tmp_path / "fkd").votes.whole
    (tmp_path / "set.h5").unlink()
    monkeypatch.setattr(batch_labels, "is_large", lambda shape, size: True)
    monkeypatch.setattr("distill.store.large_arrays.HELD_BYTES", 1)
    assert torch.equal(bring(tmp_path / "fkd").votes.whole, first)


def test_labels_follow_classes_that_are_matched(pictures, command, tmp_path):
    images = np.random.default_rng(1).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    real = tmp_path / "real.npz"
    np.savez(real, images=images, labels=np.arange(20) % 2, class_names=np.array(["1", "0"]))
    store(tmp_path / "fkd")
    out = tmp_path / "set.h5"
    outcome = command(
        "import", pictures[0], "--from", "rded", "--soft-labels", tmp_path / "fkd", "--data",
        f"npz:{real}", "--out", out,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    content = read_set(out)
    whole, ids = content.votes.whole, content.votes.ids
    assert content.hard.tolist() == [0, 0, 0, 1, 1, 1]
    # The first three images of the set were the last three of the folder.
    wanted = torch.stack([label_of((int(image) + 3) % 6).flip(0) for image in ids.flatten()])
    assert torch.equal(whole.view(-1, 2).float(), wanted)


def spoil(folder, change):
    path = folder / "epoch_1" / "batch_0.tar"
    content = torch.load(path, weights_only=False)
    torch.save(change(content), path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c[:2], "no list of crops, flips and logits"),
        (lambda c: [c[0][:2], *c[1:]], r"no crops \[b, 4\]"),
        (lambda c: [*c[:-1], c[-1] / 0], r"no crops \[b, 4\]"),
        (lambda c: [*[part[:3] for part in c[:2]], *c[2:-1], c[-1][:3]], "the set 6 images"),
        (lambda c: [*c[:2], torch.tensor([0, 1, 2, 9]), 0.5, None, c[-1]], "holds no mix of"),
        (lambda c: [*c[:2], torch.arange(4), 0.5, [1, 2], c[-1]], "holds no mix of"),
        (lambda c: [*c[:2], torch.arange(4), 0.5, None, c[-1]], "the set 6 images"),
    ],
)
def test_damaged_labels_are_refused(change, words, pictures, command, tmp_path):
    import re

    store(tmp_path / "fkd")
    spoil(tmp_path / "fkd", change)
    outcome = command(
        "import", pictures[0], "--from", "rded", "--soft-labels", tmp_path / "fkd", "--out",
        tmp_path / "set.h5",
    )  # fmt: skip
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert re.search(words, outcome.err), outcome.err
    assert not (tmp_path / "set.h5").exists()


def test_labels_without_pictures_or_epochs_are_refused(pictures, refused, tmp_path):
    store(tmp_path / "fkd")
    out = ("--out", tmp_path / "set.h5")
    line = refused(1, "import", tmp_path / "fkd", "--from", "rded", *out)
    assert f"import the folder of these, with --soft-labels {tmp_path / 'fkd'}" in line
    (tmp_path / "fkd" / "epoch_1").rename(tmp_path / "fkd" / "epoch_7")
    asked = ("import", pictures[0], "--from", "rded", *out, "--soft-labels")
    assert "lacks epoch_1" in refused(1, *asked, tmp_path / "fkd")
    assert "holds no epoch_0/batch_0.tar" in refused(1, *asked, tmp_path)
