"""What several tests of projectors share."""

import json

import projectors
from projectors.files import storage
from projectors.files.description import sealed

DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
GRAY = projectors.Preprocessing((0.3,), (0.4,))


def edit(folder, change):
    """Change a description as a program could that means harm: its digest fits."""
    path = folder / storage.DESCRIPTION
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(sealed(document)))
