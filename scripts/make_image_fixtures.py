"""Make the files that coded images must decode for ever: tests/fixtures/images/NAME/v1/.

Run once for a new coding, from the root of the repository, on any CPU:

    .venv/bin/python scripts/make_image_fixtures.py

A folder that exists is left alone: its bytes are what shipped versions wrote.
"""

import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from synth.coding import ImageCoding, pack_images  # noqa: E402
from tests.synth.coding.checks import CASES, FIXTURES, started  # noqa: E402


def make(name: str, coding: ImageCoding) -> bool:
    """Write the fixture of one coding; False if it is already there."""
    folder = FIXTURES / name / "v1"
    if folder.exists():
        return False
    parameters = started(coding)
    folder.mkdir(parents=True)
    (folder / "payload.bin").write_bytes(pack_images(coding, parameters))
    np.save(folder / "decoded.npy", coding.decode(parameters).numpy(), allow_pickle=False)
    return True


def main() -> None:
    """Make what is missing and say what was done."""
    for name, coding in CASES.items():
        print(f"{name}: {'made' if make(name, coding) else 'kept'}")


if __name__ == "__main__":
    main()
