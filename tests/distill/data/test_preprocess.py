import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.data import DataError, Preprocess, fit_preprocess

channel = st.tuples(st.floats(0, 1), st.floats(1e-3, 0.6))


@settings(deadline=None)
@given(st.lists(channel, min_size=1, max_size=4), st.integers(0, 1000))
def test_inverse_undoes_the_call(channels, seed):
    preprocess = Preprocess(*map(tuple, zip(*channels, strict=True)))
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.rand(3, len(channels), 4, 5, generator=generator)
    torch.testing.assert_close(preprocess.inverse(preprocess(pixels)), pixels, atol=1e-6, rtol=0)


@settings(deadline=None)
@given(st.lists(channel, min_size=1, max_size=4))
def test_json_round_trip_is_exact(channels):
    preprocess = Preprocess(*map(tuple, zip(*channels, strict=True)))
    assert Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict()))) == preprocess


def test_fit_gives_mean_zero_and_deviation_one_per_channel():
    images = torch.rand(50, 3, 6, 6) * torch.tensor([0.2, 0.5, 1.0]).reshape(3, 1, 1)
    normalised = fit_preprocess(images)(images)
    flat = normalised.transpose(0, 1).flatten(1)
    torch.testing.assert_close(flat.mean(1), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(flat.std(1, correction=0), torch.ones(3), atol=1e-5, rtol=0)


def test_fit_of_a_constant_channel_uses_the_floor():
    preprocess = fit_preprocess(torch.full((4, 1, 3, 3), 0.25))
    assert preprocess == Preprocess((0.25,), (0.001,))


def test_fit_refuses_images_outside_the_range():
    with pytest.raises(DataError, match="pixels from 2 to 2 came"):
        fit_preprocess(torch.full((4, 1, 3, 3), 2.0))


def test_call_takes_one_image_and_keeps_the_dtype():
    image = torch.rand(3, 4, 4, dtype=torch.float64)
    preprocess = Preprocess((0.1, 0.2, 0.3), (0.5, 0.5, 0.5))
    assert preprocess(image).dtype == torch.float64
    torch.testing.assert_close(preprocess(image)[2], (image[2] - 0.3) / 0.5)


def test_inverse_does_not_clamp():
    assert Preprocess((0.5,), (0.5,)).inverse(torch.full((1, 1, 1, 1), 3.0)).item() == 2.0


def test_call_works_on_another_device():
    pixels = torch.empty(2, 1, 4, 4, device="meta")
    assert Preprocess((0.5,), (0.5,))(pixels).device.type == "meta"


def test_gradients_flow_even_after_a_first_use_in_inference_mode():
    preprocess = Preprocess((0.123,), (0.456,))
    with torch.inference_mode():
        preprocess(torch.rand(1, 1, 2, 2))
    pixels = torch.rand(1, 1, 2, 2, requires_grad=True)
    preprocess(pixels).sum().backward()
    assert pixels.grad is not None
    torch.testing.assert_close(pixels.grad, torch.full((1, 1, 2, 2), 1 / 0.456))


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ((), (), "mean has 0 and std 0 numbers"),
        ((0.5,), (0.5, 0.5), "mean has 1 and std 2 numbers"),
        ((float("nan"),), (0.5,), "finite numbers are needed"),
        ((0.5,), (0.0,), "numbers above 0 are needed"),
    ],
)
def test_preprocess_refuses_faulty_numbers(mean, std, message):
    with pytest.raises(DataError, match=message):
        Preprocess(mean, std)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 3, 4, 4), r"shape \(2, 3, 4, 4\) came, \[..., 1, h, w\] is needed"),
        (torch.zeros(4, 4), r"shape \(4, 4\) came"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), "torch.uint8 came, floating"),
    ],
)
def test_preprocess_refuses_faulty_images(images, message):
    preprocess = Preprocess((0.5,), (0.5,))
    for direction in (preprocess, preprocess.inverse):
        with pytest.raises(DataError, match=message):
            direction(images)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"mean": [0.5]}, r"keys \['mean'\], mean and std are needed"),
        ({"mean": [0.5], "std": [0.5], "zca": 1}, "mean and std are needed"),
        ({"mean": "0.5", "std": [0.5]}, "preprocess mean is '0.5', a list of numbers"),
        ({"mean": [0.5], "std": [True]}, "preprocess std is"),
    ],
)
def test_from_dict_refuses_other_forms(stored, message):
    with pytest.raises(DataError, match=message):
        Preprocess.from_dict(stored)
