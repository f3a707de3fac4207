"""Write the digests of the golden cases: tests/golden/digests.json.

Run from the root of the repository, where results have changed on purpose, on any CPU:

    .venv/bin/python scripts/make_golden_digests.py [CASE ...]

Named cases are remade and all others kept; without names, all are remade. `git diff` then
shows which parts of which artefacts have changed.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.golden.cases import CASES  # noqa: E402
from tests.golden.workshop import DIGESTS, Workshop, machine  # noqa: E402


def main() -> None:
    """Make the named cases, or all, and print the time of each."""
    parser = argparse.ArgumentParser(description="Write the digests of the golden cases.")
    parser.add_argument("cases", nargs="*", metavar="CASE", help="default: all")
    parser.add_argument("--out", type=Path, default=DIGESTS)
    options = parser.parse_args()
    unknown = [name for name in options.cases if name not in CASES]
    if unknown:
        parser.error(f"there is no case {unknown[0]}; see tests/golden/cases.py")
    known = json.loads(DIGESTS.read_text(encoding="utf-8")) if options.cases else {}
    if known and known["machine"] != machine():
        parser.error("the digests are of another machine; make all of them")
    cases = known.get("cases", {})
    with TemporaryDirectory() as folder:
        workshop = Workshop(Path(folder))
        for name in options.cases or CASES:
            start = time.perf_counter()
            cases[name] = workshop.digests(name)
            print(f"{name}: {time.perf_counter() - start:.1f} s", flush=True)
    content = {
        "machine": machine(),
        "cases": {name: cases[name] for name in CASES if name in cases},
    }
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
