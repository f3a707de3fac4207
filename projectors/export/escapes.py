"""Text of others inside Markdown and YAML: shown as it is, and never markup.

Names of classes, recipes and students come from whoever made a set, and may hold anything.
"""

import json
import re
import unicodedata
from collections.abc import Iterable

# Whatever CommonMark or GitHub's tables, links, mentions and formulas give a meaning inside a line.
# An underscore within a word has none.
_MARKUP = re.compile(
    r"[\\`*{}\[\]<>|~&#!@$]|(?<![^\W_])_|_(?![^\W_])|(?<=:)/(?=/)|(?<=www)\.", re.IGNORECASE
)

# What YAML reads as a text without quotes, but for its words for other values.
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./+-]*")

_YAML_WORDS = ("true", "false", "yes", "no", "on", "off", "null", "y", "n")

# Invisible, but part of words: they join letters of Persian and Indic scripts, and of emoji.
_JOINERS = "\u200c\u200d"


def visible(text: str) -> str:
    r"""Text on one line: control characters and marks of direction are written as \u001b."""
    if text.isprintable():
        return text
    return "".join(c if _is_shown(c) else json.dumps(c)[1:-1] for c in text)


def _is_shown(character: str) -> bool:
    joins = character in _JOINERS or unicodedata.category(character) == "Zs"
    return character.isprintable() or joins


def inline(text: str) -> str:
    """Text within a paragraph, a heading, an item of a list or a cell of a table of Markdown."""
    return _MARKUP.sub(lambda match: "\\" + match[0], visible(text))


def code(text: str, *, in_table: bool = False) -> str:
    """A code span; `in_table` where it stands in a cell, whose borders no code hides."""
    shown = visible(text)
    ticks = "`" * (_longest_run(shown) + 1)
    pad = " " if not shown.strip() or shown[0] == "`" or shown[-1] == "`" else ""
    span = f"{ticks}{pad}{shown}{pad}{ticks}"
    return span.replace("|", "\\|") if in_table else span


def code_block(lines: Iterable[str], language: str) -> str:
    """A fenced block of lines, without a line break at its end."""
    shown = [visible(line) for line in lines]
    ticks = "`" * max(3, _longest_run("\n".join(shown)) + 1)
    return "\n".join([f"{ticks}{language}", *shown, ticks])


def yaml_text(text: str, *, quoted: bool = False) -> str:
    """A scalar of YAML on one line, in quotes where it needs them, or always with `quoted`."""
    if not quoted and _PLAIN.fullmatch(text) and text.lower() not in _YAML_WORDS:
        return text
    return json.dumps(visible(text), ensure_ascii=False)


def _longest_run(text: str) -> int:
    """The length of the longest run of backticks."""
    return max((len(run) for run in re.findall("`+", text)), default=0)
