"""The adaptive coder against a plain loop, and the slope of its size."""

import math
import tracemalloc

import numpy as np
import pytest
import torch

from synth.coding import Frequency, Rounded, adaptive, range_coder
from synth.coding.adaptive import Coder
from synth.coding.alphabet import levels_alphabet
from synth.coding.contexts import PixelContexts
from synth.coding.errors import CodingError
from tests.synth.coding import checks

ONE = 1 << 16


def earlier_ranks(ranks, groups):
    """Of each rank, how many ranks were counted before its batch."""
    found, first, size = [], 0, max(1, 16 // groups)
    while first < ranks:
        found += [first] * min(size, ranks - first)
        first += size
        size = max(max(1, 16 // groups), min(first, max(1, 256 // groups)))
    return found


def predict(coder, counts, contexts, node):
    """The probability of 1 for one decision, in 2^-16, and the counts that it was made from."""
    share, slots = int(coder.alphabet.prior[node]), []
    for step, context in enumerate(contexts[int(coder.alphabet.is_sign[node])]):
        slots.append((step, int(context), int(node)))
        count, ones = counts.get(slots[-1], (0, 0))
        trust = 2 if step == 0 else 8
        share = (ones * ONE + trust * share) // (count + trust)
    return min(max(share, 16), ONE - 16), slots


def slow_lengths(coder, symbols):
    """Bits of each symbol, [n, places]: one image and place after another, counts in a dict."""
    n, places = symbols.shape
    groups, alphabet, model = coder.groups, coder.alphabet, coder.model
    ranks = n // groups
    order = [group * ranks + rank for rank in range(ranks) for group in range(groups)]
    size_of = earlier_ranks(ranks, groups)
    counts = {}
    found = np.zeros((n, places))
    for place in range(places):
        waiting, batch = [], 0
        for position, image in enumerate(order):
            rank, group = divmod(position, groups)
            if size_of[rank] != batch:
                batch = size_of[rank]
                tell(counts, waiting)
                waiting = []
            earlier = [symbols[group * ranks + r, place] - alphabet.centre for r in range(batch)]
            earlier = [max(-model.cap, min(model.cap, int(value))) for value in earlier]
            near = [
                0 if at == places else symbols[image, at] - alphabet.centre
                for at in model.neighbours[place]
            ]
            by_neighbours = model.by_neighbours(
                np.array(near, dtype=np.int64).reshape(1, 1, -1), np.array([place])
            )
            by_images = model.by_images(
                np.array([[batch]]),
                np.array([[sum(earlier)]], dtype=np.int64),
                np.array([[sum(map(abs, earlier))]], dtype=np.int64),
            )
            contexts = (by_neighbours + by_images)[:, :, 0, 0]
            symbol = symbols[image, place]
            path = zip(alphabet.nodes[symbol], alphabet.bits[symbol], strict=True)
            for node, bit in path:
                if node < 0:
                    break
                share, slots = predict(coder, counts, contexts, node)
                waiting += [(slot, int(bit)) for slot in slots]
                found[image, place] -= math.log2((share if bit else ONE - share) / ONE)
        tell(counts, waiting)
    return found


def tell(counts, waiting):
    for slot, bit in waiting:
        count, ones = counts.get(slot, (0, 0))
        counts[slot] = (count + 1, ones + bit)


def coder_and_symbols(coding, many=40):
    shape = (many, *coding.shape[1:])
    coding = type(coding)(**{**vars(coding), "shape": shape})
    parameters = coding.start(checks.smooth_images(shape))
    grid = coding._grid
    ordered = coding._ordered(parameters) if isinstance(coding, Frequency) else None
    if ordered is None:
        ordered = parameters.reshape(many, -1) * coding._top
    lowest = grid.lowest
    values = ordered.round().long().clamp(lowest, lowest + len(grid.coder.alphabet.nodes) - 1)
    return grid.coder, values.numpy() - lowest


CODERS = {
    "frequency": Frequency((40, 1, 4, 4), 0.1),
    "frequency-groups": Frequency((40, 1, 4, 4), 0.1, groups=5),
    "frequency-colour": Frequency((40, 3, 4, 6), 0.1, block=2, groups=20),
    "rounded": Rounded((40, 1, 4, 4), 2, groups=2),
    "rounded-colour": Rounded((40, 3, 3, 3), 4),
}


@pytest.mark.parametrize("name", CODERS)
def test_lengths_are_those_of_a_plain_loop(name):
    coder, symbols = coder_and_symbols(CODERS[name])
    np.testing.assert_allclose(coder.lengths(symbols), slow_lengths(coder, symbols), atol=1e-9)


@pytest.mark.parametrize("name", CODERS)
def test_the_stream_is_as_long_as_its_symbols_say(name):
    coder, symbols = coder_and_symbols(CODERS[name])
    bits, coded = coder.lengths(symbols).sum(), coder.encode(symbols)
    # The last word is left out where it is zero.
    assert bits - 33 <= 8 * len(coded) <= bits + 9
    np.testing.assert_array_equal(coder.decode(coded, symbols.shape), symbols)


@pytest.mark.parametrize("more", [-1, 1])
def test_a_stream_of_another_number_of_images_is_refused(more):
    coder, symbols = coder_and_symbols(CODERS["rounded-colour"])
    with pytest.raises(CodingError):
        coder.decode(coder.encode(symbols), (len(symbols) + more, symbols.shape[1]))


def test_bytes_behind_a_stream_are_refused():
    coder, symbols = coder_and_symbols(CODERS["rounded-colour"])
    with pytest.raises(CodingError, match="not what they decode to"):
        coder.decode(coder.encode(symbols) + bytes(4), symbols.shape)


def noisy_start(coding):
    noise = torch.randn(coding.shape, generator=torch.Generator().manual_seed(0))
    return coding.start(checks.smooth_images(coding.shape) + 0.1 * noise)


def recoded(coding, parameters, sides):
    """What the whole stream takes more when one parameter goes to the integer at its side."""
    rounded = parameters.detach().round()
    before = float(coding.bits(rounded))
    found = []
    for place, side in enumerate(sides.flatten()):
        moved = rounded.clone()
        moved.view(-1)[place] += side
        found.append(float(coding.bits(moved)) - before)
    return torch.tensor(found).view(parameters.shape) * sides


def test_the_slope_is_what_rounding_to_the_other_side_costs():
    """Against coding the whole set again with one coefficient moved, for each of them."""
    coding = Frequency((30, 1, 4, 4), step=0.2)
    parameters = noisy_start(coding)
    free = parameters.clone().requires_grad_()
    (slope,) = torch.autograd.grad(coding.bits(free), free)
    sides = torch.where(parameters < parameters.round(), -1.0, 1.0)
    wanted = recoded(coding, parameters, sides)
    clear = wanted.abs() > 2
    assert int(clear.sum()) > 200
    assert float((slope.sign() == wanted.sign())[clear].float().mean()) > 0.9
    assert float(torch.corrcoef(torch.stack([slope.flatten(), wanted.flatten()]))[0, 1]) > 0.9


def test_a_step_against_the_slope_needs_fewer_bytes():
    coding = Frequency((60, 1, 4, 4), step=0.2)
    parameters = noisy_start(coding)
    sizes = [len(coding.pack(parameters))]
    for _ in range(4):
        free = parameters.clone().requires_grad_()
        (slope,) = torch.autograd.grad(coding.bits(free), free)
        parameters = parameters - 0.05 * slope.sign()
        sizes.append(len(coding.pack(parameters)))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 0.9 * sizes[0]


def test_images_of_a_class_make_one_another_cheaper():
    coding = Frequency((40, 1, 8, 8), step=0.1)
    one, noise = checks.smooth_images((4, 1, 8, 8)), torch.Generator().manual_seed(0)
    images = one.repeat_interleave(10, dim=0) + 0.1 * torch.randn(40, 1, 8, 8, generator=noise)
    alone = len(coding.pack(coding.start(images)))
    grouped = Frequency(coding.shape, step=0.1, groups=4)
    assert len(grouped.pack(grouped.start(images))) < 0.95 * alone


@pytest.mark.parametrize("name", CODERS)
def test_how_many_symbols_are_worked_out_at_once_changes_nothing(name, monkeypatch):
    coder, symbols = coder_and_symbols(CODERS[name])
    sides = np.where(np.random.default_rng(0).random(symbols.shape) < 0.5, -1, 1)
    whole = coder.encode(symbols), *coder.lengths_and_moves(symbols, sides)
    # One place after another; and several, the last run shorter.
    for part in (1, 3 * len(symbols)):
        monkeypatch.setattr(adaptive, "_PART", part)
        monkeypatch.setattr(range_coder, "_PART", part)
        coded, lengths, moves = coder.encode(symbols), *coder.lengths_and_moves(symbols, sides)
        assert coded == whole[0]
        assert np.array_equal(lengths, whole[1])
        assert np.array_equal(moves, whole[2])


def test_memory_hangs_on_the_symbols_and_not_on_their_contexts():
    images = 1500
    pixels = np.random.default_rng(0).integers(0, 2, (images, 28 * 28))
    coder = Coder(levels_alphabet(2), PixelContexts(1, 28, 28, 2), 10)
    tracemalloc.start()
    try:
        coder.encode(pixels)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The symbols twice in another order, 16 bytes, what is coded of them, and one run of places.
    assert peak / pixels.size < 64
