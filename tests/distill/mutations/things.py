"""What is damaged, and the commands that read it."""

from dataclasses import dataclass
from typing import Literal

from tests.distill.cases import STUDENT

Answer = Literal["json", "out", "experts", "page", "place", "code", "verdict"]

SHORT = ("--students", STUDENT, "--seeds", "1", "--epochs", "1", "--quiet")


@dataclass(frozen=True)
class Reader:
    """A command on a thing.

    Attributes:
        words: of the command; IT is the thing, OUT a new place, and ESTATE/NAME what lies there
            as it was.
        answer: what must not change in silence: the JSON that is printed, what lies at OUT, its
            experts, the report in IT, all results in IT, nothing ("code"), or the word of `verify`.
        often: how many times as often it is drawn as others.
    """

    words: tuple[str, ...]
    answer: Answer = "code"
    often: int = 3


@dataclass(frozen=True)
class Thing:
    """A file or a folder that commands read.

    Attributes:
        place: in the estate.
        readers: commands.
        targets: files that are changed, as patterns, where it is a folder.
        often: how many times as often it is drawn as others.
        large: whether arrays lie on the disk as those that memory does not hold.
        variable: of the environment that names it, if any: the folder of a user's caches, say.
    """

    place: str
    readers: tuple[Reader, ...]
    targets: tuple[str, ...] = ("**/*",)
    often: int = 2
    large: bool = False
    variable: str = ""
