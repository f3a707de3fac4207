"""Tensors stay on the device they came on: checked with the meta device, and on CUDA if any.

Mixing a meta tensor with one left on the CPU raises an error, so the meta device stands in for
a GPU wherever no value has to be read.
"""

import pytest
import torch
from torch import nn

from distill.__main__ import run
from synth import Adjoint, Unrolled, matching_gradient
from synth.augment import FAMILIES, Augmentation, dsa
from synth.formation import decode_images
from synth.losses import hard_logits
from synth.matching.directional import double_backward
from synth.matching.inner_loop import draw_batches, make_inner_loop
from synth.networks import MLP, VGG11, AlexNet, ConvNet, ResNet18
from synth.parameters import parameter_vector
from synth.updates import Moments, Momentum, adam

CUDA = torch.device("cuda")


@pytest.mark.parametrize("family", FAMILIES)
def test_augmentation_stays_on_the_device_of_the_images(family, generator):
    images = torch.zeros(4, 3, 16, 16, device="meta")
    view = Augmentation((family,)).sample(4, (16, 16), generator)
    assert view.apply(images).device.type == "meta"


@pytest.mark.parametrize("kind", [ConvNet, ResNet18, VGG11, AlexNet, MLP])
def test_inner_gradients_stay_on_the_device_of_the_parameters(kind):
    options = {"norm": "instance"} if kind in (ConvNet, ResNet18, VGG11) else {}
    network = kind(1, (16, 16), 10, width=8, **options).to("meta")
    images = torch.zeros(4, 1, 16, 16, device="meta")
    labels = hard_logits(torch.zeros(4, dtype=torch.long), 10).to("meta")
    loop = make_inner_loop(network, images, labels, [torch.arange(4)], None)
    vector = parameter_vector(network)
    assert loop.gradient(0, vector).device.type == "meta"
    for tensor in double_backward(loop, 0, vector, torch.ones_like(vector), True).tensors():
        assert tensor.device.type == "meta"


@pytest.mark.parametrize("rule", [adam, Momentum(0.5)])
def test_updates_and_decoding_stay_on_the_device(rule):
    images = torch.zeros(2, 1, 8, 8, device="meta")
    value, moments = rule(images, images, Moments.zeros(images), 0.1, 1)
    assert value.device.type == moments.mean.device.type == "meta"
    assert decode_images(images, 2).device.type == "meta"


def need_cuda() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")


@pytest.mark.cuda
def test_gradient_on_cuda_equals_that_on_the_cpu(generator):
    need_cuda()
    network: nn.Module = ConvNet(1, (16, 16), 10, width=16)
    start = parameter_vector(network)
    target = start + 0.01 * torch.randn(len(start), generator=generator)
    images = torch.randn(20, 1, 16, 16, generator=generator)
    labels = torch.randn(20, 10, generator=generator)
    batches = draw_batches(20, 10, 5, generator)
    views = [dsa().sample(10, (16, 16), generator) for _ in batches]

    def solve(device, method):
        parts = [part.to(device) for part in (start, target, images, labels)]
        found = [batch.to(device) for batch in batches]
        lr = torch.tensor(0.01, device=device)
        return matching_gradient(network.to(device), *parts, lr, found, method, views)

    exact = solve(torch.device("cpu"), Unrolled())
    for method in (Adjoint(), Adjoint("sqrt"), Adjoint("offload"), Unrolled()):
        result = solve(CUDA, method)
        for name in ("distance", "images", "labels", "lr", "end"):
            found, wanted = getattr(result, name), getattr(exact, name)
            assert found.device.type == "cuda"
            assert (found.cpu() - wanted).norm() <= 1e-3 * wanted.norm()


@pytest.mark.cuda
def test_whole_run_passes_on_cuda(tmp_path):
    need_cuda()
    small = [
        "match.iterations=4",
        "experts.count=2",
        "experts.epochs=7",
        "committee.epochs=6",
        "relabel.epochs=3",
        "projector.steps=5",
        "evaluate.seeds=1",
        "evaluate.epochs=3",
        "evaluate.whole_epochs=1",
    ]
    words = [word for value in small for word in ("--set", value)]
    out = tmp_path / "run"
    assert run(["run", "digits", "--out", str(out), "--device", "cuda", *words]) == 0
    assert (out / "report.html").is_file()
