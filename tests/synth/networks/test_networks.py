"""Networks and their layers."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call

from distill.names import NETWORKS
from synth import Adjoint, FrozenAdjoint, Unrolled
from synth.networks import GroupNorm
from synth.networks.layers import make_activation, make_norm, make_pooling
from tests.synth.cases import build, build_registered, make_problem

SIZES = [(8, 8), (16, 16), (28, 28), (32, 32), (8, 12), (28, 10)]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_network_gives_logits_for_every_image_size(name, channels, generator):
    for size in SIZES:
        network = build_registered(name, channels, size)
        images = torch.randn(2, channels, *size, generator=generator)
        logits = network(images).detach()
        assert logits.shape == (2, 10), size
        assert logits.isfinite().all(), size
        # A norm over a single pixel would forget the image.
        assert float((logits[0] - logits[1]).abs().max()) > 1e-6, size


@pytest.mark.parametrize("norm", ["none", "instance", "batch", "layer", "group"])
@pytest.mark.parametrize(
    "kind",
    ["ConvNet", "VGG11", "ResNet18", "ResNet50", "ShuffleNetV2", "MobileNetV2", "DenseNet121"],
)
def test_network_takes_every_norm(kind, norm, generator):
    # Group norm makes groups of eight maps: a width whose every part can be divided so.
    width = 48 if norm == "group" else 8
    network = build(kind, size=(8, 8), width=width, norm=norm)
    logits = network(torch.randn(3, 1, 8, 8, generator=generator))
    assert logits.shape == (3, 10)
    assert logits.isfinite().all()


@pytest.mark.parametrize("pooling", ["none", "avg", "max"])
def test_convnet_takes_every_pooling(pooling):
    side = 16 if pooling == "none" else 4
    network = build("ConvNet", depth=2, width=4, pooling=pooling)
    assert network.head.in_features == 4 * side**2


def test_convnet3_of_the_literature_has_its_number_of_parameters():
    network = build("ConvNet", channels=3, size=(32, 32), depth=3, width=128)
    # MTT, TESLA and DATM count 320,010 for CIFAR-10.
    assert sum(parameter.numel() for parameter in network.parameters()) == 320_010


def test_convnet_with_the_padding_of_published_gray_results_sees_32_pixels(generator):
    padded = build("ConvNet", size=(28, 28), width=4, padding=3)
    plain = build("ConvNet", size=(32, 32), width=4)
    assert padded.head.in_features == plain.head.in_features
    plain.load_state_dict(padded.state_dict())
    images = torch.randn(2, 1, 28, 28, generator=generator)
    around = torch.nn.functional.pad(images, (2, 2, 2, 2))
    torch.testing.assert_close(padded(images), plain(around))


@pytest.mark.parametrize(
    ("kind", "options", "parameters"),
    [
        # Those of torchvision's networks, less what a 3x3 stem saves: 64 * 3 * (49 - 9).
        ("ResNet18", {}, 11_181_642 - 7_680),
        ("ResNet50", {}, 23_528_522 - 7_680),
        # Its stem has no norm here: the first dense layer begins with one.
        ("DenseNet121", {}, 6_964_106 - 7_680 - 128),
        ("ShuffleNetV2", {"width": 48}, 352_042),
        ("ShuffleNetV2", {"width": 116}, 1_263_854),
        ("MobileNetV2", {}, 2_236_682),
    ],
)
def test_network_has_its_papers_number_of_parameters(kind, options, parameters):
    with torch.device("meta"):
        network = build(kind, channels=3, size=(32, 32), **options)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def test_vision_transformer_is_the_tiny_one_of_deit():
    with torch.device("meta"):
        network = build("VisionTransformer", channels=3, size=(224, 224), patch=16)
    # DeiT-Ti has 5,717,416 with 1,000 classes; 990 rows of the head fewer here.
    assert sum(p.numel() for p in network.parameters()) == 5_717_416 - 990 * 193


def test_vision_transformer_attends_as_the_native_kernels_do(generator):
    network = build("VisionTransformer", size=(8, 8), width=128, depth=1)
    attention = network.blocks[0].attention
    tokens = torch.randn(2, 5, 128, generator=generator)
    native = nn.MultiheadAttention(128, 2, batch_first=True)
    weights = attention.state_dict()
    native.load_state_dict(
        {
            "in_proj_weight": weights["inputs.weight"],
            "in_proj_bias": weights["inputs.bias"],
            "out_proj.weight": weights["outputs.weight"],
            "out_proj.bias": weights["outputs.bias"],
        }
    )
    expected = native(tokens, tokens, tokens, need_weights=False)[0]
    torch.testing.assert_close(attention(tokens), expected)
    norm = nn.LayerNorm(128)
    torch.testing.assert_close(network.norm(tokens), norm(tokens), atol=1e-5, rtol=1e-5)


def test_shuffle_block_mixes_its_halves(generator):
    block = build("ShuffleNetV2", size=(8, 8), width=8).stages[1].eval()
    features = torch.randn(1, 8, 2, 2, generator=generator)
    out = block(features)
    # Channels 0, 2, 4, 6 of the outputs are the first half of the inputs, untouched.
    assert torch.equal(out[:, ::2], features[:, :4])
    assert not torch.isclose(out[:, 1::2], features[:, 4:]).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_network_is_the_same_on_every_call(name, generator):
    network = build_registered(name)
    images = torch.randn(2, 1, 16, 16, generator=generator)
    assert torch.equal(network(images), network(images))


def called_functionally(norm: nn.Module):
    """`norm` as inner steps call it, with parameters that are not its own."""
    values = {name: parameter.detach().clone() for name, parameter in norm.named_parameters()}
    return lambda images: functional_call(norm, values, (images,))


@pytest.mark.parametrize("call", [lambda norm: norm, called_functionally], ids=["own", "given"])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_group_norm_equals_the_native_one(groups, call, generator):
    ours, native = GroupNorm(groups, 6), nn.GroupNorm(groups, 6)
    with torch.no_grad():
        ours.weight.copy_(torch.randn(6, generator=generator))
        ours.bias.copy_(torch.randn(6, generator=generator))
    native.load_state_dict(ours.state_dict())
    images = 1 + 2 * torch.randn(3, 6, 5, 4, generator=generator)
    torch.testing.assert_close(call(ours)(images), native(images), atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")
def test_group_norm_has_right_derivatives_of_both_orders_in_inner_steps(generator):
    norm = called_functionally(GroupNorm(2, 4).double())
    images = torch.randn(2, 4, 2, 2, generator=generator, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(norm, (images,), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(norm, (images,), check_fwd_over_rev=True)


def test_inner_steps_never_reach_the_native_group_norm(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("the kernel's mixed derivative is wrong")

    problem = make_problem(build("ConvNet", width=4), 2)
    monkeypatch.setattr(torch.nn.functional, "group_norm", refuse)
    for gradient in (Adjoint(), FrozenAdjoint(), Unrolled()):
        problem.solve(gradient)


def test_resnet_keeps_two_pixels_for_its_norms(generator):
    network = build("ResNet18", size=(8, 8), width=4, norm="instance")
    features = torch.randn(1, 4, 8, 8, generator=generator)
    assert network.stages(features).shape[2:] == (2, 2)


def test_vgg_works_in_eval_mode_as_in_training_mode(generator):
    network = build("VGG11", size=(8, 8), width=4)
    images = torch.randn(2, 1, 8, 8, generator=generator)
    assert torch.equal(network(images), copy.deepcopy(network).eval()(images))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("ConvNet", {"depth": 0}, "got depth 0 and width 128; both must be at least 1"),
        ("ConvNet", {"width": 0}, "got depth 3 and width 0"),
        ("ConvNet", {"padding": 0}, "got padding 0; it must be at least 1"),
        ("ConvNet", {"norm": "weight"}, "norm is 'weight'; choose one of none, instance, batch"),
        ("ConvNet", {"pooling": "sum"}, "pooling is 'sum'; choose one of none, avg, max"),
        ("ConvNet", {"activation": "tanh"}, "activation is 'tanh'; choose one of relu, leaky"),
        ("ConvNet", {"norm": "group", "width": 28}, "got 3 groups for 28 channels"),
        ("ResNet18", {"width": 0}, "got width 0; it must be at least 1"),
        ("ResNet18", {"norm": "x"}, "norm is 'x'"),
        ("ResNet50", {"width": 0}, "got width 0; it must be at least 1"),
        ("ShuffleNetV2", {"width": 5}, "got width 5; it must be even"),
        ("MobileNetV2", {"width": 0}, "got width 0; it must be at least 1"),
        ("DenseNet121", {"width": 0}, "got width 0; it must be at least 1"),
        ("VisionTransformer", {"depth": 0}, "got depth 0, width 192 and patch 4"),
        ("VisionTransformer", {"width": 200}, "the width a multiple of its 3 heads"),
        ("VGG11", {"width": 0}, "got width 0; it must be at least 1"),
        ("AlexNet", {"width": 1}, "got width 1; it must be at least 2"),
        ("MLP", {"depth": 0}, "got depth 0 and width 128"),
    ],
)
def test_network_refuses_options_that_cannot_be(kind, options, message):
    with pytest.raises(ValueError, match=message):
        build(kind, **options)


@pytest.mark.parametrize("groups", [0, 4])
def test_group_norm_refuses_groups_that_do_not_divide(groups):
    with pytest.raises(ValueError, match=f"got {groups} groups for 6 channels"):
        GroupNorm(groups, 6)


def test_layers_by_name_are_what_they_say():
    assert isinstance(make_norm("none", 4), nn.Identity)
    assert make_norm("instance", 4).groups == 4
    assert make_norm("layer", 4).groups == 1
    assert make_norm("group", 16).groups == 2
    assert isinstance(make_pooling("max"), nn.MaxPool2d)
    assert make_activation("leaky").negative_slope == 0.01
