"""Every way to keep images against its contract."""

import hashlib
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from synth.coding import CodingError, Frequency, Palette, Rounded, pack_images
from tests.synth.coding import checks

EVERY = pytest.mark.parametrize("name", checks.CASES)


@EVERY
def test_start_decodes_within_the_stated_error(name):
    checks.check_error(checks.CASES[name])


@EVERY
@pytest.mark.parametrize("coder", ["arithmetic", "lzma"])
def test_a_receiver_gets_what_decode_shows(name, coder):
    coding = checks.CASES[name]
    checks.check_round_trip(coding, checks.started(coding), coder)


@EVERY
def test_any_parameters_are_kept(name):
    """Noise, far outside [0, 1]: clamped alike by both sides."""
    coding = checks.CASES[name]
    start = checks.started(coding)
    noise = torch.randn(start.shape, generator=torch.Generator().manual_seed(1))
    checks.check_round_trip(coding, 3 * noise)


@EVERY
def test_the_estimate_is_the_size(name):
    coding = checks.CASES[name]
    checks.check_size(coding, checks.started(coding))


@EVERY
def test_gradients_of_pixels_are_finite_and_there(name):
    checks.check_straight_through(checks.CASES[name])


def test_the_gradient_of_rounding_is_that_of_its_input():
    coding = checks.CASES["rounded-2-groups"]
    gradient, _, weights = checks.check_straight_through(coding)
    inside = checks.smooth_images(coding.shape) < 1
    torch.testing.assert_close(gradient[inside], weights[inside])


def test_the_gradient_of_frequencies_is_that_of_the_transform():
    """Behind the rounding decode is linear: a whole step moves it by exactly the gradient."""
    coding = Frequency((3, 3, 4, 6), step=0.02)
    parameters = coding.start(0.3 + 0.4 * checks.smooth_images(coding.shape)).requires_grad_()
    decoded = coding.decode(parameters)
    weights = torch.linspace(-1, 1, decoded.numel()).view(decoded.shape)
    (gradient,) = torch.autograd.grad((weights * decoded).sum(), parameters)
    for place in range(0, parameters.numel(), 7):
        moved = parameters.detach().clone()
        moved.view(-1)[place] += 1
        change = (weights * (coding.decode(moved) - decoded.detach())).sum()
        torch.testing.assert_close(gradient.view(-1)[place], change, rtol=1e-3, atol=1e-4)


@EVERY
def test_images_that_are_no_numbers_are_refused(name):
    coding = checks.CASES[name]
    parameters = checks.started(coding)
    parameters.view(-1)[3] = float("nan")
    with pytest.raises(CodingError, match="NaN or infinite"):
        coding.pack(parameters)


@EVERY
def test_damaged_payloads_get_one_error(name):
    coding = checks.CASES[name]
    checks.check_damage(pack_images(coding, checks.started(coding)))


@EVERY
def test_damaged_bodies_get_one_error(name):
    coding = checks.CASES[name]
    checks.check_damaged_body(coding, coding.pack(checks.started(coding)))


@EVERY
def test_older_payloads_decode_for_ever(name):
    checks.check_fixture(name)


def digests():
    """Of every payload, by this process."""
    found = []
    for name, coding in checks.CASES.items():
        if not name.startswith("bases"):  # their start is a decomposition, see below
            found.append(hashlib.sha256(pack_images(coding, checks.started(coding))).hexdigest())
    return found


def test_the_bytes_do_not_depend_on_threads_or_process():
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = digests()
        torch.set_num_threads(2)
        assert digests() == one
    finally:
        torch.set_num_threads(threads)
    script = "from tests.synth.coding.test_contract import digests; print(*digests())"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == one


shapes = st.tuples(st.integers(1, 9), st.sampled_from([1, 3]), st.integers(1, 7), st.integers(1, 7))


@settings(deadline=None, max_examples=40)
@given(shapes, st.integers(1, 8), st.integers(0, 99), st.floats(0.02, 2), st.booleans())
def test_any_shape_goes_there_and_back(shape, number, seed, step, grouped):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(shape, generator=generator) * 1.4 - 0.2
    groups = shape[0] if grouped else 1
    codings = [
        Rounded(shape, number, groups),
        Frequency(shape, step, largest=number, groups=groups),
        Palette(shape, number + 1, groups),
    ]
    for coding in codings:
        checks.check_round_trip(coding, coding.start(images))


@pytest.mark.parametrize("shape", [(3, 1, 28, 28), (3, 3, 16, 16)])
def test_fine_steps_clip_no_pixels_of_a_coding_that_reaches_them(shape):
    images = torch.stack([torch.zeros(shape[1:]), torch.ones(shape[1:]), torch.rand(shape[1:])])
    clipped = Frequency(shape, step=0.05)
    reaching = clipped.reaching()
    wrong, right = (
        (one.decode(one.start(images)) - images).abs().amax(dim=(1, 2, 3))
        for one in (clipped, reaching)
    )
    assert (wrong[:2] > 0.2).all()
    assert (right[:2] < 0.01).all()
    torch.testing.assert_close(
        reaching.unpack(reaching.pack(reaching.start(images))),
        reaching.decode(reaching.start(images)),
    )
    coarse = Frequency(shape, step=1.0)
    assert coarse.reaching() == coarse
    assert reaching.reaching() == reaching
