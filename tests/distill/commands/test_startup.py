"""What is wrong with a recipe is told before torch is imported, which takes seconds."""

import os
import subprocess
import sys

import pytest

from distill.names import FAMILIES
from synth.augment.views import FAMILIES as KNOWN

PROGRAM = """
import sys
from distill.__main__ import run

code = run(sys.argv[1:])
sys.exit(100 if "torch" in sys.modules else code)
"""

WRONG = [
    "run digit --out {out}",
    "run digits --out {out} --set match.ipk=1",
    "run digits --out {out} --set match.ipc=0",
    "run digits --out {out} --set experts.network=convnat",
    "run digits --out {out} --set evaluate.students=mlp:depht=2",
    "run digits --out {out} --set data.source=folders:x",
    "run digits --out {out} --set data.source=my_code:read",
    "run digits --out {out} --set relabel.augmentation=flap",
    "run digits --out {out} --set projector.teacher=experts:999",
    "run digits --out {out} --set encode.codec=topp",
    "match digits --out {out} --set match.gradient=none",
    "plan digits --set evaluate.students=convnat",
    "extend {out} --data digits --recipe digit --out {out}",
]


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_recipe_is_refused_without_torch(words, tmp_path):
    arguments = words.format(out=tmp_path / "run").split()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2, done
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_families_are_those_that_views_have():
    assert tuple(KNOWN) == FAMILIES
