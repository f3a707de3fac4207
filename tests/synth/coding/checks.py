"""What every way to keep images must pass, and the codings that are checked."""

from pathlib import Path

import numpy as np
import pytest
import torch

from synth.coding import (
    Bases,
    CodingError,
    Frequency,
    Palette,
    Pixels,
    Rounded,
    Tones,
    pack_images,
    unpack_images,
)

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "images"

GRAY, COLOUR = (12, 1, 8, 8), (6, 3, 6, 9)

CASES = {
    "pixels": Pixels(COLOUR),
    "rounded-1": Rounded(GRAY, 1),
    "rounded-2-groups": Rounded(GRAY, 2, groups=3),
    "rounded-3-colour": Rounded(COLOUR, 3),
    "rounded-8": Rounded(GRAY, 8),
    "frequency": Frequency(GRAY, step=0.3),
    "frequency-groups": Frequency(GRAY, step=0.1, groups=4),
    "frequency-blocks": Frequency(GRAY, step=0.2, block=4, slope=0.0),
    "frequency-colour-oblong": Frequency(COLOUR, step=0.1),
    "frequency-colour-blocks": Frequency(COLOUR, step=0.1, block=3, chroma=1.5),
    "frequency-clipped": Frequency(GRAY, step=0.05, largest=2),
    "palette": Palette(GRAY, 4),
    "palette-colour-groups": Palette(COLOUR, 5, groups=2),
    "tones": Tones(GRAY),
    "tones-colour-groups": Tones(COLOUR, 3, depth=5, groups=2),
    "bases": Bases(GRAY, 4),
    "bases-colour-groups": Bases(COLOUR, 3, groups=2),
}


def smooth_images(shape):
    """Images [n, c, h, w] in [0, 1] like blurred spots, without a library's random numbers."""
    n, c, h, w = shape
    image, channel = torch.arange(n).view(-1, 1, 1, 1), torch.arange(c).view(1, -1, 1, 1)
    down, across = torch.arange(h).view(1, 1, -1, 1) / h, torch.arange(w).view(1, 1, 1, -1) / w
    left, top = (image * 0.37 + 0.2 * channel) % 1, (image * image * 0.21) % 1
    away = (down - top).square() + (across - left).square()
    return torch.exp(-6 * away).clamp(0, 1)


def started(coding):
    return coding.start(smooth_images(coding.shape))


def error_bound(coding, images, parameters):
    """Root of the summed squared errors that a coding states, for pixels in [0, 1]."""
    if isinstance(coding, Pixels):
        return 0.0
    if isinstance(coding, Rounded):
        return images.numel() ** 0.5 / (2 * (2**coding.depth - 1))
    if isinstance(coding, Frequency):
        rest = (parameters.abs() - coding.largest).clamp_min(0.5)
        steps = coding._join(coding._steps.expand_as(coding._cut(parameters)))
        return float((rest * steps).norm())
    if isinstance(coding, Palette):
        colours = parameters[images.numel() :].view(coding.colours, -1)
        pixels = images.movedim(1, -1).reshape(-1, images.shape[1])
        return float(torch.cdist(pixels, colours).amin(dim=1).norm())
    if isinstance(coding, Tones):
        tones = parameters[images.numel() :].view(len(images), coding.tones, -1)
        tones = (tones * (2**coding.depth - 1)).round() / (2**coding.depth - 1)
        pixels = images.permute(0, 2, 3, 1).flatten(1, 2)
        return float(torch.cdist(pixels, tones).amin(dim=2).norm())
    flat = images.flatten(1) - 0.5
    left = torch.linalg.svdvals(flat)[coding.count :].norm()
    return float(left) + 0.5 * images.numel() ** 0.5 * (coding.step + coding.scale_step)


def check_error(coding):
    images = smooth_images(coding.shape)
    parameters = coding.start(images)
    decoded = coding.decode(parameters)
    assert decoded.shape == images.shape
    assert float((decoded - images).norm()) <= error_bound(coding, images, parameters) + 1e-4


def check_round_trip(coding, parameters, coder="arithmetic"):
    expected = coding.decode(parameters)
    assert torch.equal(coding.unpack(coding.pack(parameters, coder), coder), expected)
    decoded, found = unpack_images(pack_images(coding, parameters, coder))
    assert found == coding
    assert torch.equal(decoded, expected)


def check_size(coding, parameters):
    """The estimate against the bytes; the coder may round up to the next one."""
    coded = 8 * len(coding.pack(parameters))
    assert float(coding.bits(parameters)) == pytest.approx(coded, rel=0.03)


def check_straight_through(coding):
    """Rounding passes gradients on: for pixels inside (0, 1) decode's are those without it."""
    parameters = started(coding).requires_grad_()
    decoded = coding.decode(parameters)
    weights = torch.linspace(-1, 1, decoded.numel()).view(decoded.shape)
    (gradient,) = torch.autograd.grad((weights * decoded).sum(), parameters)
    assert bool(gradient.isfinite().all())
    assert float(gradient.norm()) > 0
    return gradient, decoded.detach(), weights


def check_damage(payload):
    """Every truncation, every bit, anything added: one error of one line."""
    cut = [payload[:length] for length in range(len(payload))]
    flipped = [
        payload[:place] + bytes([payload[place] ^ 1 << bit]) + payload[place + 1 :]
        for place in range(len(payload))
        for bit in (0, 7)
    ]
    for broken in (*cut, *flipped, payload + b"\0", payload + payload):
        with pytest.raises(CodingError) as caught:
            unpack_images(broken)
        assert "\n" not in str(caught.value)


def check_damaged_body(coding, body):
    """Bytes behind no checksum: an error, or images of the right shape; nothing else."""
    bodies = [body[:length] for length in range(0, len(body), max(1, len(body) // 12))]
    for place in range(0, len(body), max(1, len(body) // 12)):
        bodies.append(body[:place] + bytes([body[place] ^ 0x55]) + body[place + 1 :])
    for broken in (*bodies, body + b"\1"):
        assert refuses(coding, broken) or coding.unpack(broken).shape == coding.shape


def refuses(coding, body):
    try:
        coding.unpack(body)
    except CodingError:
        return True
    return False


def check_fixture(name):
    """What an older version wrote still decodes to what it meant."""
    folder = FIXTURES / name / "v1"
    decoded, coding = unpack_images((folder / "payload.bin").read_bytes())
    assert coding == CASES[name]
    expected = torch.from_numpy(np.load(folder / "decoded.npy", allow_pickle=False))
    # Sums of products may round differently in another library of linear algebra.
    torch.testing.assert_close(decoded, expected, rtol=0, atol=1e-5)
