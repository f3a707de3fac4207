"""Derivatives of a convolution on a CPU."""

import pytest
import torch

from synth.convolution_backward import convolution_backward

KERNEL = torch.ops.aten.convolution_backward


@pytest.mark.parametrize("mask", [(True, False, False), (True, True, True), (False, True, True)])
@pytest.mark.parametrize(
    ("channels", "size", "kernel", "padding", "stride"),
    [
        (1, (8, 8), (3, 3), (1, 1), 1),
        (3, (9, 7), (5, 3), (2, 1), 1),
        (3, (9, 7), (3, 3), (0, 0), 1),
        (3, (8, 8), (3, 3), (2, 2), 1),
        (3, (8, 8), (3, 3), (1, 1), 2),
        (6, (8, 8), (3, 3), (1, 1), 1),
    ],
)
def test_derivatives_are_those_of_the_kernel(
    channels: int,
    size: tuple[int, int],
    kernel: tuple[int, int],
    padding: tuple[int, int],
    stride: int,
    mask: tuple[bool, bool, bool],
) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, channels, *size, generator=generator, dtype=torch.float64)
    weight = torch.randn(5, channels, *kernel, generator=generator, dtype=torch.float64)
    output = torch.nn.functional.conv2d(images, weight, stride=stride, padding=padding)
    grad = torch.randn(output.shape, generator=generator, dtype=torch.float64)
    shape = ([5], [stride, stride], list(padding), [1, 1], False, [0, 0], 1, list(mask))
    expected = KERNEL(grad, images, weight, *shape)
    found = convolution_backward(grad, images, weight, *shape)
    if found is NotImplemented:
        # The kernel itself: no bias is asked for, and the product does not apply.
        assert mask == (True, False, False) and (channels, stride) in {(3, 2), (6, 1)}
        return
    for wanted, ours, reference in zip(mask, found, expected, strict=True):
        if wanted:
            torch.testing.assert_close(ours, reference)
        else:
            assert ours is None
