"""Which class of the real data each class of an imported set is, by the best evidence."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence

Names = Sequence[str]

_DIGITS = {"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"}


def match_classes(own: Names, known: Names) -> tuple[int, ...] | None:
    """The place among `known` of each of `own`, or None where names do not tell.

    Names are compared as they are; then without case and punctuation, and numbers as numbers; then
    without numbers, WordNet identifiers, synonyms, or a prefix that all of them have. Names that
    are numbers alone mean places, from 0, or from 1 if the last place is among them and 0 is not.

    Args:
        own: names of the set's classes, all different.
        known: names of the data's classes.
    """
    for kind in (str, plain, _unnumbered, _first_synonym):
        places = _places([kind(name) for name in own], [kind(name) for name in known])
        if places is not None:
            return places
    own_plain, known_plain = [plain(name) for name in own], [plain(name) for name in known]
    for prefix in _prefixes(own_plain, known_plain):
        places = _places(own_plain, [prefix + name for name in known_plain])
        if places is not None:
            return places
    for prefix in _prefixes(known_plain, own_plain):
        places = _places([prefix + name for name in own_plain], known_plain)
        if places is not None:
            return places
    return _numbered_places(own, known)


def shared_classes(
    first: Names, second: Names, given: Mapping[str, str], *, numbers_tell: bool
) -> tuple[dict[str, str], list[str]]:
    """The class of the first set, or a new one, that each class of a second set is.

    Names that are equal, but for case and punctuation, are one class; others are different ones.

    Args:
        first: names of the first set's classes, all different.
        second: names of the second's.
        given: what the user states for some of the second: a name of the first, or of a new class.
        numbers_tell: whether equal numbers as names mean the same, as in sets of one source.

    Returns:
        The name that each class of the second has from now on, and those of its classes whose
        name that changes though nobody said so.

    Raises:
        ValueError: where names do not tell, saying which.
    """
    open_names = [name for name in second if name not in given]
    if open_names and not numbers_tell and (numbers_of(first) or numbers_of(second)):
        raise ValueError(
            f"the classes are {shown_names(first)} in one set and {shown_names(second)} in the "
            "other, and numbers of different data do not tell which are the same"
        )
    names = {name: given.get(name) or _named_in(first, second, name) for name in second}
    if len(set(names.values())) < len(names):
        raise ValueError(f"two of the classes {shown_names(second)} would become one")
    return names, [name for name in open_names if names[name] != name]


def _named_in(first: Names, second: Names, name: str) -> str:
    """The name among `first` of a class of `second`, or its own where it is a new class."""
    if name in first:
        return name
    same = [other for other in first if plain(other) == plain(name) and plain(name)]
    if len(same) == 1 and same[0] not in second:
        return same[0]
    word = _first_synonym(name)
    near = same or [other for other in first if word and _first_synonym(other) == word]
    if near:
        raise ValueError(f"class {name!r} may be {near[0]!r} or a class of its own")
    return name


def shown_names(names: Names) -> str:
    """The first few of some names."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def plain(name: str) -> str:
    """A name without case, punctuation and leading zeros of a number."""
    kept = "".join(c for c in unicodedata.normalize("NFKC", name).casefold() if c.isalnum())
    return str(int(kept)) if re.fullmatch(r"[0-9]+", kept) else kept


def numbers_of(names: Names) -> list[int] | None:
    """The numbers that names are, but for a prefix of letters that all share, such as new00003.

    WordNet identifiers are names, and no numbers.
    """
    matches = [re.fullmatch(r"(\D*?)[-_. ]*([0-9]{1,9})", name) for name in names]
    if not names or not all(matches) or all(re.fullmatch(r"n\d{8}", name) for name in names):
        return None
    if len({match[1].casefold() for match in matches if match}) > 1:
        return None
    numbers = [int(match[2]) for match in matches if match]
    return numbers if len(set(numbers)) == len(numbers) else None


def are_digits(names: Names, source: str) -> bool:
    """Whether classes are the digits, by their names and source: mirrored, these are no digits."""
    words = {_unnumbered(name) for name in names}
    numbered = words == {str(digit) for digit in range(10)}
    return words == _DIGITS or (numbered and bool(re.search(r"(?i)svhn|(?<!fashion)mnist", source)))


def _unnumbered(name: str) -> str:
    """Without the number, or the WordNet identifier, before it: 00003-cat, n02123045 tabby."""
    return plain(re.sub(r"^(\d+|n\d{8})[-_.:, ]+(?=.*\w)", "", name))


def _first_synonym(name: str) -> str:
    return _unnumbered(name.partition(",")[0])


def _places(own: Names, known: Names) -> tuple[int, ...] | None:
    """The place of each of `own`; None if one is not there, empty, or stands for two."""
    if len(set(own)) < len(own) or len(set(known)) < len(known) or "" in own:
        return None
    by_name = {name: place for place, name in enumerate(known)}
    places = tuple(by_name.get(name, -1) for name in own)
    return None if -1 in places else places


def _prefixes(longer: Names, shorter: Names) -> Iterator[str]:
    """What may stand before all of the longer names: the first of them, less a shorter one."""
    for name in shorter:
        if name and longer[0].endswith(name) and len(name) < len(longer[0]):
            yield longer[0].removesuffix(name)


def _numbered_places(own: Names, known: Names) -> tuple[int, ...] | None:
    """Numbers as places among classes that are not named by numbers themselves."""
    numbers, count = numbers_of(own), len(known)
    if numbers is None:
        return None
    named = numbers_of(known)
    if named is not None:
        return _places([str(number) for number in numbers], [str(number) for number in named])
    if min(numbers) == 0 and max(numbers) < count:
        return tuple(numbers)
    if min(numbers) >= 1 and max(numbers) == count:
        return tuple(number - 1 for number in numbers)
    return None
