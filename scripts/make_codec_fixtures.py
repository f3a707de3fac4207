"""Make the files that label codecs must decode for ever: tests/fixtures/codecs/NAME/v1/.

Run once for a new codec, from the root of the repository, on any CPU:

    .venv/bin/python scripts/make_codec_fixtures.py

A folder that exists is left alone: its bytes are what shipped versions wrote.
"""

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from projectors import codecs  # noqa: E402
from tests.projectors.codecs.checks import CASES, FIXTURES, fixture_labels  # noqa: E402
from tests.projectors.codecs.network_cases import NETWORKS  # noqa: E402


def make(name: str, codec: codecs.LabelCodec) -> bool:
    """Write the fixture of one codec; False if it is already there."""
    folder = FIXTURES / name / "v1"
    if folder.exists():
        return False
    payload = codec.encode(fixture_labels())
    decoded = codec.decode(payload).logits.float().numpy()
    folder.mkdir(parents=True)
    text = json.dumps(codec.config(), indent=2, sort_keys=True) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    (folder / "encoded.bin").write_bytes(payload)
    np.save(folder / "decoded.npy", decoded, allow_pickle=False)
    return True


def make_network(name: str) -> bool:
    """Write the fixture of a payload that holds a network; False if it is already there."""
    folder = FIXTURES / name / "v1"
    if folder.exists():
        return False
    write, read = NETWORKS[name]
    with TemporaryDirectory() as work:
        payload = write(Path(work))
    folder.mkdir(parents=True)
    (folder / "encoded.bin").write_bytes(payload)
    arrays = {key: value.numpy() for key, value in read(payload).items()}
    np.savez(folder / "decoded.npz", allow_pickle=False, **arrays)
    return True


def main() -> None:
    """Make what is missing and say what was done."""
    for name, codec in CASES.items():
        print(f"{name}: {'made' if make(name, codec) else 'kept'}")
    for name in NETWORKS:
        print(f"{name}: {'made' if make_network(name) else 'kept'}")


if __name__ == "__main__":
    main()
