import pytest
import torch

from synth.images import HardLogits
from synth.networks import ConvNet, ResNet18, VisionTransformer
from synth.precision import forward
from synth.recovery import (
    NormAim,
    RecoverProblem,
    RecoverSettings,
    SharedViews,
    Teacher,
    class_statistics,
    first_state,
    recover_images,
)
from synth.training.batches import shuffled_batches
from synth.training.loop import TrainSettings, train
from synth.training.prediction import accuracy

SIZE = (12, 12)


def task(count, generator):
    """Two classes of noisy images: one bright above, one below."""
    labels = torch.arange(count) % 2
    images = torch.randn(count, 1, *SIZE, generator=generator)
    images[labels == 0, :, :6] += 1
    images[labels == 1, :, 6:] += 1
    return images, labels


def trained(precision, network, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images, labels = task(80, generator)
    settings = TrainSettings(4, 0.05, precision=precision)

    def batches(epoch):
        return shuffled_batches(images, HardLogits(labels, 2), 16, None, generator)

    losses = [epoch.loss for epoch in train(network, batches, settings)]
    return losses, accuracy(network, *task(100, generator))


@pytest.mark.parametrize("kind", [ConvNet, ResNet18, VisionTransformer])
def test_bfloat16_gives_nearly_the_same_logits_in_float32(kind, generator):
    torch.manual_seed(0)
    network = kind(1, SIZE, 10, **({} if kind is VisionTransformer else {"width": 8})).eval()
    images = torch.randn(8, 1, *SIZE, generator=generator)
    full, half = (forward(network, images, name) for name in ("float32", "bfloat16"))
    assert torch.equal(full, network(images))
    assert half.dtype == torch.float32
    # 8 bits of mantissa: not equal, and not far.
    error = (half - full).norm() / full.norm()
    assert 1e-4 < error < 0.05


def test_training_in_bfloat16_learns_and_keeps_float32_weights():
    found = {}
    for precision in ("float32", "bfloat16"):
        torch.manual_seed(0)
        network = ConvNet(1, SIZE, 2, width=8, depth=2)
        found[precision] = trained(precision, network)
        assert {p.dtype for p in network.parameters()} == {torch.float32}
        assert {p.grad.dtype for p in network.parameters()} == {torch.float32}
    assert found["bfloat16"] != found["float32"]
    assert found["bfloat16"][0] == pytest.approx(found["float32"][0], rel=0.1, abs=0.02)
    assert found["bfloat16"][1] > 0.9


def test_recovery_in_bfloat16_follows_that_in_float32(generator):
    torch.manual_seed(0)
    network = ConvNet(1, SIZE, 2, width=8, depth=2, norm="batch")
    trained("float32", network)
    images, labels = task(40, generator)
    targets = class_statistics(network, images, torch.zeros_like(labels), 1)
    teacher = Teacher(network, 1.0, NormAim([layer.of_class(0) for layer in targets]))
    start = first_state(torch.randn(4, 1, *SIZE, generator=generator))

    def recovered(precision):
        def view(step):
            return SharedViews().sample(SIZE, torch.Generator().manual_seed(step))

        problem = RecoverProblem([teacher], labels[:4], view, lambda kept, before: kept)
        settings = RecoverSettings(lr=0.1, precision=precision)
        return [step for _, step in recover_images(start, 12, problem, settings)]

    full, half = recovered("float32"), recovered("bfloat16")
    assert half != full
    for name in ("cross_entropy", "statistics"):
        pairs = [[getattr(step, name) for step in steps] for steps in (half, full)]
        assert pairs[0] == pytest.approx(pairs[1], rel=0.1, abs=0.05)
    assert half[-1].statistics < half[0].statistics


@pytest.mark.cuda
def test_bfloat16_on_cuda_is_that_of_the_cpu(generator):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    torch.manual_seed(0)
    network = ConvNet(3, SIZE, 10, width=8).eval()
    images = torch.randn(8, 3, *SIZE, generator=generator)
    full = forward(network, images, "float32")
    half = forward(network.to("cuda"), images.to("cuda"), "bfloat16").cpu()
    assert (half - full).norm() < 0.05 * full.norm()
