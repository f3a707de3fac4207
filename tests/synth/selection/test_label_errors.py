import torch

from synth.selection import confident_errors


def planted(count=600, classes=4, wrong=40, sharpness=4.0):
    """Probabilities of a fair network, labels of which some were changed, and which those are."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(count) % classes
    logits = sharpness * torch.nn.functional.one_hot(truth, classes)
    logits = logits + torch.randn(count, classes, generator=generator)
    changed = torch.randperm(count, generator=generator)[:wrong]
    labels = truth.clone()
    labels[changed] = (truth[changed] + 1) % classes
    return logits.softmax(dim=1), labels, truth, changed


def test_changed_labels_are_found_with_their_true_class():
    probabilities, labels, truth, changed = planted()
    found = confident_errors(probabilities, labels)
    right = set(changed.tolist()) & set(found.indices.tolist())
    assert len(right) >= 0.85 * len(changed)
    assert len(found.indices) <= 1.2 * len(changed)
    agree = found.suggested == truth[found.indices]
    assert float(agree.float().mean()) > 0.9


def test_the_most_evident_come_first():
    probabilities, labels, _, changed = planted()
    found = confident_errors(probabilities, labels)
    margins = found.own - found.other
    assert bool((margins[1:] >= margins[:-1]).all())
    assert set(found.indices[:20].tolist()) <= set(changed.tolist())
    assert torch.equal(found.own, probabilities[found.indices, labels[found.indices]])


def test_networks_that_agree_with_all_labels_find_none():
    labels = torch.arange(30) % 3
    probabilities = (5.0 * torch.nn.functional.one_hot(labels, 3)).softmax(dim=1)
    assert len(confident_errors(probabilities, labels).indices) == 0


def test_a_class_without_images_is_never_suggested():
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    probabilities = torch.tensor([[0.2, 0.2, 0.6]] * 3 + [[0.1, 0.8, 0.1]] * 3)
    assert len(confident_errors(probabilities, labels).indices) == 0
