"""Libraries are loaded where memory is bounded only if they fit, and whoever cannot is told."""

import resource
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits bound addresses on Linux")

LIMIT = 4 << 30

# Libraries are stood in for by modules of the same names in a folder that is searched first.
PROGRAM = f"""
import resource, sys
from distill.errors import WorkError
from distill.run import loading

resource.setrlimit(resource.RLIMIT_AS, ({LIMIT}, {LIMIT}))
sys.path.insert(0, sys.argv[1])
loading._SECONDS = 1
loading.check_before_loading()
before = len(sys.meta_path)
try:
    import torch
    print("loaded", before - len(sys.meta_path))
except WorkError as error:
    print(error)
except ModuleNotFoundError as error:
    print("missing", error.name)
"""

SAID = (
    f"there is too little memory to load torch: a limit allows this process {LIMIT:,} bytes in "
    "all; raise it (ulimit -v and -d)\n"
)


def program(text, *words):
    return subprocess.run(
        [sys.executable, "-c", text, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("torch", "said"),
    [
        ("import os; os.write(2, b'terminate called'); os.abort()", SAID),
        ("import os; os.kill(os.getpid(), 11)", SAID),
        ("print('OpenBLAS error'); raise SystemExit(1)", SAID),
        ("raise RuntimeError('Unable to create type object!')", SAID),
        ("raise MemoryError", SAID),
        ("while True: pass", SAID),
        ("held = bytearray(5 << 30)", SAID),
        ("import what_is_not_there", "missing what_is_not_there\n"),
        ("", "loaded 1\n"),
    ],
)
def test_a_library_that_ends_its_process_is_said_instead(torch, said, tmp_path):
    for name in ("numpy", "h5py"):
        (tmp_path / f"{name}.py").write_text("")
    (tmp_path / "torch.py").write_text(torch)
    done = program(PROGRAM, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, said, "")


def test_without_a_limit_nothing_is_checked(tmp_path):
    (tmp_path / "torch.py").write_text("")
    done = program(PROGRAM.replace(f"({LIMIT}, {LIMIT})", f"({1 << 36}, {1 << 36})"), tmp_path)
    assert (done.stdout, done.stderr) == ("loaded 0\n", "")


def test_scipy_is_loaded_where_it_fits(tmp_path):
    for name in ("numpy", "h5py", "torch", "scipy"):
        (tmp_path / f"{name}.py").write_text("import numpy")
    text = PROGRAM.replace("import torch", "import scipy").replace("_SECONDS = 1", "_SCIPY = {}")
    for size, said in ((1 << 20, "loaded 2\n"), (1 << 40, SAID.replace("torch", "SciPy"))):
        done = program(text.format(size), tmp_path)
        assert (done.stdout, done.stderr) == (said, "")


def test_a_command_says_it_and_help_needs_no_memory(tmp_path):
    def bound():
        resource.setrlimit(resource.RLIMIT_AS, (160 << 20, 160 << 20))

    def started(*words):
        command = [sys.executable, "-m", "distill", *words]
        return subprocess.run(
            command, capture_output=True, text=True, preexec_fn=bound, timeout=60, check=False
        )

    out = tmp_path / "small.h5"
    done = started("compress", "set.h5", "--bytes", "2000", "--out", str(out))
    said = SAID.replace(f"{LIMIT:,}", f"{160 << 20:,}")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"error: {said}")
    assert started("compress", "--help").returncode == 0
