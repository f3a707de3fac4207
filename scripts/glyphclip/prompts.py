"""What glyphclip reads: names of characters in ordinary English, in ordinary sentences."""

import string

from torch import Generator, randint

from distill.data.sources.characters import name_of

TEMPLATES = (
    "{}",
    "{}.",
    "a {}",
    "the {}",
    "a photo of a {}",
    "a photo of a {}.",
    "a photo of the {}",
    "a photo of the {}.",
    "an image of a {}",
    "a picture of the {}",
    "a drawing of a {}",
    "a handwritten {}",
    "a photo of a handwritten {}",
    "a printed {}",
    "a blurry photo of a {}",
    "the character {}",
    "a photo of the character {}",
    "the symbol {}",
)
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# Forms of a name by the kind of character; the plain Unicode name is always one of them.
_DIGIT_FORMS = ("digit {}", "digit {}", "{}", "{}", "number {}", "numeral {}", "figure {}")
_SMALL_FORMS = ("small letter {}", "lower case letter {}", "letter {}", "small {}")
_CAPITAL_FORMS = ("capital letter {}", "upper case letter {}", "letter {}", "capital {}")


def names_of(character: str) -> list[str]:
    """The names that a character goes by; the Unicode name in lower case first."""
    names = [name_of(character)]
    if character in string.digits:
        names += [form.format(_DIGITS[int(character)]) for form in _DIGIT_FORMS]
        names += [character, f"digit {character}"]
    elif character in string.ascii_lowercase:
        names += [form.format(character) for form in _SMALL_FORMS]
    elif character in string.ascii_uppercase:
        names += [form.format(character.lower()) for form in _CAPITAL_FORMS]
    elif names[0].startswith("latin "):
        names.append(names[0].removeprefix("latin "))
    return names


def draw_prompt(characters: list[str], generator: Generator) -> str:
    """A prompt for one of several characters that look the same.

    One in two names the first, most common character.
    """

    def pick(count: int) -> int:
        return int(randint(count, (1,), generator=generator))

    character = characters[0] if pick(2) else characters[pick(len(characters))]
    names = names_of(character)
    return TEMPLATES[pick(len(TEMPLATES))].format(names[pick(len(names))])
