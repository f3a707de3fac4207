"""Write distill/data/glyphs.txt, the classes of `glyphs:K`: one character and its name a line.

The file is committed and fixed: published base models were trained on what is not in it. Run
this only to see how it was made, from the root of the repository:

    .venv/bin/python scripts/choose_glyphs.py > distill/data/glyphs.txt
"""

import sys

from distill.data.sources.characters import choose_classes, find_lookalikes, name_of


def main() -> None:
    """Print the list and say on stderr what it was chosen from."""
    lookalikes = find_lookalikes()
    chosen = choose_classes(lookalikes)
    for character in chosen:
        print(f"{ord(character):04X} {name_of(character)}")
    rest = sum(len(group) for group in lookalikes if min(group) not in set(chosen))
    print(
        f"{len(lookalikes)} drawings, {len(chosen)} classes, {rest} other characters",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
