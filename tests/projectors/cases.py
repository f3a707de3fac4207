"""What several tests of projectors share."""

import json

import projectors
from projectors.files import storage

DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
GRAY = projectors.Preprocessing((0.3,), (0.4,))


def edit(folder, change):
    path = folder / storage.DESCRIPTION
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
