"""What is released: source and wheel that run without the repository, the image, the workflow."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("distill", "projectors", "synth")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOW = ROOT / ".github" / "workflows" / "release.yml"
# Few steps of every stage.
QUICK = {
    "data": {"subset": 100, "size": 8},
    "experts": {"network": "convnet2:width=4", "count": 1, "epochs": 3},
    "match": {"iterations": 2, "inner_steps": 2, "span": 1, "max_start_epoch": 1},
    "committee": {"members": "convnet2:width=8:norm=batch", "epochs": 10, "batch_size": 20},
    "relabel": {"epochs": 2},
    "projector": {"steps": 1, "rank": 2},
    "evaluate": {"students": "convnet2:width=4", "seeds": 1, "epochs": 1, "whole_epochs": 1},
}


def package_files():
    """What the packages hold, as a wheel should; caches of Python are nobody's files."""
    return {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def call(*words, **options):
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "PYTHONHOME", "PIP_REQUIRE_VIRTUALENV")
    }
    environment |= {"PIP_NO_INDEX": "1", "OMP_NUM_THREADS": "1", **options.pop("env", {})}
    done = subprocess.run(
        [str(word) for word in words],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        **options,
    )
    assert done.returncode == 0, f"{words}: {done.stdout[-2000:]} {done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """The source distribution, and the wheel that is built from it without the repository."""
    pytest.importorskip("setuptools", minversion="77")
    folder = tmp_path_factory.mktemp("released")
    # A copy: building writes beside the source.
    source = folder / "source"
    source.mkdir()
    for name in (*PACKAGES, "pyproject.toml", "README.md", "LICENSE"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    code = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    call(sys.executable, "-c", code, folder, cwd=source)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    options = ("--no-build-isolation", "--no-deps", "--quiet", "--wheel-dir", folder)
    call(*pip, "wheel", *options, unpacked, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def installed(released, tmp_path_factory):
    """The wheel in an empty folder, the only one that Python is told of."""
    target = tmp_path_factory.mktemp("installed")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    call(*pip, "install", "--no-deps", "--quiet", "--target", target, released[1])
    return target


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(released):
    with zipfile.ZipFile(released[1]) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        about = [name for name in archive.namelist() if ".dist-info/" in name]
        licence = [name for name in about if name.endswith("licenses/LICENSE")]
        metadata = archive.read(next(n for n in about if n.endswith("METADATA"))).decode()
    assert names == package_files()
    assert licence
    assert f"Version: {PROJECT['version']}\n" in metadata


@pytest.mark.slow
def test_the_source_holds_what_it_is_built_from(released):
    with tarfile.open(released[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert package_files() | {"pyproject.toml", "README.md", "LICENSE"} <= names


@pytest.mark.slow
def test_an_installed_wheel_distils_digits_without_the_repository(installed, tmp_path):
    environment = {"PYTHONPATH": str(installed), "HF_HUB_OFFLINE": "1"}
    where = "import distill, projectors, synth as s; print(distill.__file__, projectors.__file__, "
    found = call(sys.executable, "-c", where + "s.__file__)", cwd=tmp_path, env=environment)
    assert all(Path(place).is_relative_to(installed) for place in found.split())
    command = installed / "bin" / "distill"
    texts = [
        f"{table}.{key}={value}" for table, keys in QUICK.items() for key, value in keys.items()
    ]
    overrides = [word for text in texts for word in ("--set", text)]
    words = ("run", "digits", "--out", "run", "--quiet", "--workers", "1", *overrides)
    call(command, *words, cwd=tmp_path, env=environment)
    assert (tmp_path / "run" / "report.html").read_text().startswith("<!doctype html>")
    shown = call(command, "show", "run", "--json", cwd=tmp_path, env=environment)
    assert set(json.loads(shown)["stages"]) >= {"match", "project", "evaluate"}
    page = ("inspect", "digits", "--html", "page.html", "--quiet")
    call(command, *page, cwd=tmp_path, env=environment)
    assert "Health of data" in (tmp_path / "page.html").read_text()


def dockerfile():
    """The instructions of the Dockerfile, one a line."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def test_the_image_is_built_from_the_constraints_of_the_demo():
    lines = dockerfile()
    copied = [word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]]
    assert {"constraints.txt", "pyproject.toml", *PACKAGES} <= set(copied)
    assert all((ROOT / name).exists() for name in copied)
    installs = [line for line in lines if "pip install" in line]
    setup = (ROOT / "scripts" / "setup").read_text(encoding="utf-8")
    assert installs
    assert all("--constraint constraints.txt" in line for line in installs)
    assert setup.count("--constraint constraints.txt") == setup.count("pip install")
    minor = PROJECT["requires-python"].removeprefix(">=")
    base = re.fullmatch(r"FROM python:([\d.]+)-slim", lines[0])
    assert base
    assert tuple(map(int, base[1].split("."))) >= tuple(map(int, minor.split(".")))
    assert 'ENTRYPOINT ["distill"]' in lines


def test_the_image_and_the_workflow_name_no_host():
    for path in (ROOT / "Dockerfile", ROOT / ".dockerignore", WORKFLOW):
        assert not re.search(r"https?://|--index-url", path.read_text(encoding="utf-8")), path


def test_the_workflow_releases_what_was_tested_and_named():
    workflow = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    # YAML 1.1 reads the key `on` as true.
    assert workflow[True]["push"]["tags"] == ["v*"]
    jobs = workflow["jobs"]
    assert jobs["publish"]["needs"] == "build"
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    steps = jobs["build"]["steps"]
    runs = "\n".join(step.get("run", "") for step in steps)
    assert "tests/test_distribution.py" in runs
    assert runs.index("test_distribution") < runs.index("-m build")
    (check,) = [step["run"] for step in steps if "tomllib" in step.get("run", "")]
    code = check.split("<<'END'\n")[1].rsplit("END", 1)[0]
    ast.parse(code)
    for tag, code_of_exit in ((f"v{PROJECT['version']}", 0), ("v999", 1)):
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "GITHUB_REF_NAME": tag},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code_of_exit, done.stderr
