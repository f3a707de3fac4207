"""Mixed batches against mixing by hand."""

import pytest
import torch

from synth.augment import draw_mix
from synth.images import HardLogits
from synth.losses import soft_cross_entropy
from synth.training.batches import mixed_batches, shuffled_batches

CLASSES = torch.tensor([0, 1, 2, 0, 1, 2, 1])


def batches(generator):
    images = torch.arange(7 * 16, dtype=torch.float32).reshape(7, 1, 4, 4)
    return list(shuffled_batches(images, HardLogits(CLASSES, 3), 4, None, generator))


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_images_and_classes_are_mixed_in_the_same_shares(kind):
    plain = batches(torch.Generator().manual_seed(3))
    found = list(mixed_batches(plain, kind, torch.Generator().manual_seed(5)))
    generator = torch.Generator().manual_seed(5)
    assert len(found) == len(plain) == 2
    for mixed, batch in zip(found, plain, strict=True):
        mix = draw_mix(kind, len(batch.images), (4, 4), generator)
        share = mix.own_share((4, 4))
        for place, partner in enumerate(mix.partners.tolist()):
            own, other = (int(CLASSES[batch.ids[index]]) for index in (place, partner))
            wanted = torch.zeros(3)
            wanted[own] += share
            wanted[other] += 1 - share
            torch.testing.assert_close(mixed.labels[place].softmax(0), wanted, atol=1e-5, rtol=0)
            logits = torch.tensor([[0.3, -1.0, 2.0]])
            by_hand = -(wanted * logits[0].log_softmax(0)).sum()
            loss = soft_cross_entropy(logits, mixed.labels[place, None], 1.0)
            torch.testing.assert_close(loss, by_hand, atol=1e-4, rtol=0)
        torch.testing.assert_close(mixed.images, mix.apply(batch.images))
        if kind == "mixup":
            other = batch.images[mix.partners]
            torch.testing.assert_close(mixed.images, share * batch.images + (1 - share) * other)
        assert torch.equal(mixed.ids, batch.ids)
