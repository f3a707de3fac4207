"""Symbols as paths of yes-or-no decisions, so that few counts learn them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from synth.coding.lzma_symbols import Array

# Probabilities are integers in units of 2^-16: this many bits, and a probability of 1.
PROBABILITY_BITS = 16
CERTAIN = 1 << PROBABILITY_BITS

_HALF = CERTAIN // 2

_THIRD = 3 * CERTAIN // 10


@dataclass(frozen=True, eq=False)
class Alphabet:
    """The decisions that tell the symbols 0 to s - 1 apart.

    Attributes:
        nodes: [s, d] the number of each decision of a symbol, -1 behind its last one; a number
            stands in one column only.
        bits: [s, d] how it is decided, 0 or 1.
        following: [states, 2] of a walk from state 0: the next state, or -1 - symbol; symbol s
            where there is none.
        node_of: [states] the decision that a state asks for.
        prior: [nodes] of each decision, the probability of 1 before anything is counted.
        is_sign: [nodes] decisions that are about a sign.
        centre: the symbol that stands for 0.
    """

    nodes: Array
    bits: Array
    following: Array
    node_of: Array
    prior: Array
    is_sign: Array
    centre: int


@lru_cache(maxsize=8)
def levels_alphabet(count: int) -> Alphabet:
    """Symbols from 0 to count - 1, by their binary digits from the highest."""
    digits = max(1, (count - 1).bit_length())
    paths = []
    for symbol in range(count):
        shifts = range(digits - 1, -1, -1)
        paths.append([((1 << digits - 1 - s) | symbol >> s + 1, symbol >> s & 1) for s in shifts])
    nodes = 1 << digits
    return _alphabet(paths, np.full(nodes, 2 * CERTAIN // 5), set(), 0)


@lru_cache(maxsize=8)
def signed_alphabet(largest: int) -> Alphabet:
    """Integers from -largest to largest, the symbol 0 being -largest.

    Decisions: how many binary digits the magnitude has, one by one; its digits behind the first;
    the sign, counted apart for each number of digits (Elias 1975, gamma code).
    """
    digits = largest.bit_length()
    first_digit = digits + 1
    first_sign = first_digit + digits * digits
    paths = []
    for value in range(-largest, largest + 1):
        size = abs(value)
        length = size.bit_length()
        path = [(place, 1) for place in range(length)]
        if length < digits:
            path.append((length, 0))
        for place in range(length - 2, -1, -1):
            path.append((first_digit + (length - 1) * digits + place, size >> place & 1))
        if value:
            path.append((first_sign + length - 1, int(value > 0)))
        paths.append(path)
    signs = set(range(first_sign, first_sign + digits))
    prior = np.full(first_sign + digits, _HALF)
    prior[:first_digit] = _THIRD
    return _alphabet(paths, prior, signs, largest)


def _alphabet(
    paths: list[list[tuple[int, int]]], prior: Array, signs: set[int], centre: int
) -> Alphabet:
    depth = max(len(path) for path in paths)
    nodes = np.full((len(paths), depth), -1)
    bits = np.zeros((len(paths), depth), np.int64)
    none = -1 - len(paths)
    following, node_of = [[none, none]], [paths[0][0][0]]
    for symbol, path in enumerate(paths):
        nodes[symbol, : len(path)] = [node for node, _ in path]
        bits[symbol, : len(path)] = [bit for _, bit in path]
        state = 0
        for place, (_, bit) in enumerate(path):
            if place == len(path) - 1:
                following[state][bit] = -1 - symbol
            elif following[state][bit] == none:
                following[state][bit] = len(following)
                following.append([none, none])
                node_of.append(path[place + 1][0])
            state = following[state][bit]
    is_sign = np.isin(np.arange(len(prior)), list(signs))
    walk = np.array(following)
    return Alphabet(nodes, bits, walk, np.array(node_of), prior, is_sign, centre)
