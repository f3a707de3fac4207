"""Nothing that lies in the current folder is run, whatever it is called."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]

# Of the standard library, of what Limbeck needs, and of Limbeck; each is imported by a worker.
PLANTED = (
    "multiprocessing", "socket", "tempfile", "random", "signal", "subprocess", "sitecustomize",
    "usercustomize", "torch", "numpy", "h5py", "sklearn", "scipy", "distill", "synth", "projectors",
)  # fmt: skip

MAIN = "from distill.__main__ import main; main({!r})"

# A process that is not the command's own has a server started, and not forked.
LIBRARY = """
import sys
from distill.evaluation.whole import evaluate_set
from distill.run.engines import Local
from pathlib import Path
evaluate_set(Path(sys.argv[1]), {"epochs": 1, "whole_epochs": 1, "seeds": 1, "labels": "hard"},
             "cpu", True, Local(2))
"""


@pytest.fixture
def trap(tmp_path):
    """A folder of modules that leave a trace when they are run."""
    folder = tmp_path / "trap"
    folder.mkdir()
    code = f"open({str(tmp_path / 'trace')!r}, 'a').write(__file__ + '\\n')\nraise SystemExit(9)\n"
    for name in PLANTED:
        (folder / f"{name}.py").write_text(code, encoding="utf-8")
    return folder


def environment():
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(
            os.pathsep
        ),
        "OMP_NUM_THREADS": "1",
    }


def start(trap, *arguments):
    # Without the current folder in its own search path, as an installed command has none.
    return subprocess.run(
        [sys.executable, "-P", *arguments],
        cwd=trap,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.mark.parametrize("how", ["command", "library", "ray"])
def test_workers_run_nothing_from_the_current_folder(finished, trap, tmp_path, how):
    if how == "ray":
        pytest.importorskip("ray")
    words = ["evaluate", str(finished / "set.h5"), "--epochs", "1", "--whole-epochs", "1",
             "--seeds", "1", "--labels", "hard", "--workers", "2", "--quiet"]  # fmt: skip
    words += ["--engine", "ray"] if how == "ray" else []
    code = LIBRARY if how == "library" else MAIN.format(words)
    done = start(trap, "-c", code, str(finished / "set.h5"))
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "trace").exists(), (tmp_path / "trace").read_text(encoding="utf-8")
    assert "leaked" not in done.stderr


def test_the_trap_works(trap, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", "import random"], cwd=trap, env=environment(), check=False
    )
    assert done.returncode == 9
    assert (tmp_path / "trace").read_text(encoding="utf-8").strip().endswith("random.py")
