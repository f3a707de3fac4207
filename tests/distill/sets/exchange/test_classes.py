"""Classes of a foreign set are matched to those of the data by the best evidence, or not at all."""

import pytest

from distill.sets.exchange.classes import are_digits, match_classes, numbers_of

DIGITS = ("zero", "one", "two")
ANIMALS = ("cat", "sea_lion", "dog/wolf")


@pytest.mark.parametrize(
    ("own", "known", "places"),
    [
        (("two", "zero"), DIGITS, (2, 0)),
        (("Two", "Zero", "One"), DIGITS, (2, 0, 1)),
        (("sea lion", "Dog_Wolf", "CAT"), ANIMALS, (1, 2, 0)),
        (("class_two", "class_zero"), DIGITS, (2, 0)),
        (("two", "one", "zero"), ("no. zero", "no. one", "no. two"), (2, 1, 0)),
        (("0-dog", "1-cat"), ("cat", "dog"), (1, 0)),
        (("zero", "two"), ("0 - zero", "1 - one", "2 - two"), (0, 2)),
        (("tabby", "tench"), ("n01440764 tench", "n02123045 tabby"), (1, 0)),
        (("tench", "tabby"), ("tabby, tabby cat", "tench, Tinca tinca"), (1, 0)),
        (("n02123045", "n01440764"), ("n01440764", "n02123045"), (1, 0)),
        (("00002", "00000"), DIGITS, (2, 0)),
        (("new001", "new000"), DIGITS, (1, 0)),
        (("1", "2", "3"), DIGITS, (0, 1, 2)),
        (("10", "9"), tuple(map(str, range(11))), (10, 9)),
        (("010", "2"), ("2", "10"), (1, 0)),
        (("class 3", "class 1"), ("1", "3"), (1, 0)),
    ],
)
def test_classes_are_matched(own, known, places):
    assert match_classes(own, known) == places


@pytest.mark.parametrize(
    ("own", "known"),
    [
        (("cat", "horse"), ("cat", "dog")),
        (("1", "2"), DIGITS),
        (("0", "3"), DIGITS),
        (("0", "1", "2"), ("1", "2", "3")),
        (("a one", "b two"), ("one", "two")),
        (("Cat", "cat"), ("cat", "dog")),
        (("cat", "!"), ("cat", "dog")),
        (("n01440764", "n02123045"), DIGITS),
    ],
)
def test_classes_without_evidence_are_not_matched(own, known):
    assert match_classes(own, known) is None


def test_wordnet_identifiers_are_no_numbers():
    assert numbers_of(("n01440764", "n02123045")) is None
    assert numbers_of(("new3", "new10")) == [3, 10]


WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.mark.parametrize(
    ("names", "source", "digits"),
    [
        (WORDS, "", True),
        ([f"{number} - {word}" for number, word in enumerate(WORDS)], "", True),
        (list("0123456789"), "torchvision:SVHN", True),
        (list("0123456789"), "torchvision:FashionMNIST", False),
        (list("0123456789"), "npz:ten.npz", False),
        (DIGITS, "digits", False),
    ],
)
def test_digits_are_told_by_their_names(names, source, digits):
    assert are_digits(names, source) is digits
