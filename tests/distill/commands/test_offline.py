"""Nothing asks the network unasked: every command runs with connections refused."""

import json
import shutil
import socket
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

import distill
import projectors
from distill.commands.cli import COMMANDS
from distill.errors import WorkError
from distill.names import FORMATS, PROJECTOR_FORMATS
from distill.store.seals import sealed
from projectors.model.offline import NetworkRefusedError, offline
from tests.distill.cases import TINY, copy_run, write_recipe
from tests.distill.making_cases import RECOVER
from tests.distill.mutations.foreign import REFINED

LOOPBACK = ("127.0.0.1", "::1", "localhost")
TAG = "open_clip:ViT-B-32:laion2b_s34b_b79k"
BASE = {"embed_dim": 8, "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 8}}
TEXT = {"context_length": 8, "vocab_size": 16, "width": 16, "heads": 1, "layers": 1}
# What a plan measures takes seconds a stage.
SMALL = TINY.partition("[committee]")[0] + TINY[TINY.index("[evaluate]") :]
# Command that the recipe has no table for -> a recipe, and the stages that come before.
MAKING = {
    "select": (REFINED, ()),
    "refine": (REFINED, ("select",)),
    "recover": (RECOVER, ("committee",)),
}
# A run's folder is no file to import; others read what was exported.
REFUSED = {"import": 1}
SPACE = {"mean": [0.5] * 3, "std": [0.5] * 3}


@pytest.fixture
def asked(monkeypatch):
    """What asked the network: other machines, or the address of one."""
    seen = []

    class Refusing(socket.socket):
        def connect(self, address):
            self._look(address)
            return super().connect(address)

        def connect_ex(self, address):
            self._look(address)
            return super().connect_ex(address)

        def _look(self, address):
            if isinstance(address, tuple) and address[0] not in LOOPBACK:
                seen.append(address)
                raise OSError(f"refused: {address}")

    real = socket.getaddrinfo

    def look_up(host, *rest, **more):
        if host not in LOOPBACK:
            seen.append(host)
            raise socket.gaierror(f"refused: {host}")
        return real(host, *rest, **more)

    monkeypatch.setattr(socket, "socket", Refusing)
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    # As for a user, who has not set it.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    return seen


def work(name, run, recipe, out):
    """The words of a command that works on a run, its recipe or a new place."""
    new, made = str(out / "new"), str(run / "set.h5")
    return {
        "run": [str(recipe), "--out", str(run), "--quiet"],
        "evaluate": [made, "--quiet", "--epochs", "1", "--seeds", "1", "--workers", "1"],
        "encode": [made, "--codec", "seed+topk:k=2", "--out", new, "--quiet"],
        "compress": [made, "--bytes", "100000", "--out", new],
        "order": [made, "--out", new],
        "merge": [made, made, "--out", new],
        "extend": [
            made,
            "--data",
            "digits",
            "--recipe",
            str(write_recipe(out, SMALL, "small")),
            "--out",
            new,
            "--quiet",
        ],
        "sweep": [made, "--codecs", "topk:k=2", "--epochs", "1", "--seeds", "1", "--out", new],
        "report": [str(run)],
        "inspect": ["digits", "--experts", str(run), "--html", new, "--quiet"],
        "audit": [made, "--epochs", "1", "--students", "1", "--references", "3", "--quiet"],
        "plan": [str(write_recipe(out, SMALL, "small"))],
        "show": [str(run)],
        "verify": [str(run)],
        "pack": ["digits", "--size", "8", "--out", new],
        "import": [str(run), "--from", "npz", "--out", new],
        "export": ["set", str(run), "--format", "npz", "--out", new],
        "ls": [],
        "cp": ["digits", str(out / "mine.toml")],
        "doctor": [],
        "completion": ["bash"],
    }.get(name, [str(recipe), "--out", str(run), "--quiet"])


# What a plan measures takes long; tests/test_safety.py runs a small one.
SLOW = {"plan": (pytest.mark.slow,)}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=SLOW.get(name, ())) for name in COMMANDS if name not in MAKING],
)
def test_no_command_asks_the_network(name, run_copy, recipe, command, asked, tmp_path):
    outcome = command(name, *work(name, run_copy, recipe, tmp_path))
    assert asked == []
    assert outcome.code == REFUSED.get(name, 0), outcome.err


@pytest.mark.parametrize("name", MAKING)
def test_no_command_that_makes_a_set_asks_the_network(name, command, asked, tmp_path):
    text, before = MAKING[name]
    words = (write_recipe(tmp_path, text, name), "--out", tmp_path / "run", "--quiet")
    for stage in before:
        assert command("run", *words, "--stage", stage).code == 0
    outcome = command(name, *words)
    assert asked == []
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "run" / "set.h5").is_file()


# Gray sets have no form of that benchmark; the other needs a package.
LACKING = {"ddranking", "parquet"}
SLOWER = ("onnx", "torch-export")


@pytest.mark.parametrize(
    ("what", "form"),
    [
        *(("set", form) for form in FORMATS),
        *(
            pytest.param("projector", form, marks=[pytest.mark.slow] * (form in SLOWER))
            for form in PROJECTOR_FORMATS
        ),
    ],
)
def test_no_export_asks_the_network(what, form, finished, command, asked, tmp_path):
    outcome = command("export", what, finished, "--format", form, "--out", tmp_path / "out")
    assert asked == []
    assert outcome.code == 0 or form in LACKING, outcome.err


def test_steps_and_imports_ask_nothing(run_copy, command, asked, tmp_path):
    steps = ("--steps", "2", "--epochs", "1", "--seeds", "1", "--workers", "1", "--quiet")
    assert command("evaluate", run_copy / "set.h5", *steps).code == 0
    for form in ("npz", "torch", "safetensors"):
        out = tmp_path / form
        assert command("export", "set", run_copy, "--format", form, "--out", out).code == 0
        (file,) = (path for path in out.iterdir() if path.stem == "set")
        assert command("import", file, "--from", form, "--out", tmp_path / f"{form}.h5").code == 0
    assert asked == []


def test_a_set_of_a_hub_is_fetched_only_where_that_is_allowed(
    refused, asked, tmp_path, monkeypatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    words = ("import", "hf://stranger/set", "--from", "hub", "--out", tmp_path / "out")
    assert "nothing is fetched unasked; add --download" in refused(1, *words)
    with pytest.raises(WorkError, match="nothing is fetched unasked"):
        distill.load("hf://stranger/set")
    assert asked == []
    assert "nothing was fetched from hf://stranger/set" in refused(1, *words, "--download")
    assert set(asked) == {"huggingface.co"}


@pytest.mark.parametrize("verb", ["pack", "run", "inspect"])
def test_data_of_a_hub_are_fetched_only_where_that_is_allowed(verb, refused, monkeypatch, tmp_path):
    """With a package `datasets` that asks at once, though only this machine."""
    package = SimpleNamespace(
        load_dataset=lambda *_: socket.create_connection(("127.0.0.1", 9)),
        are_progress_bars_disabled=lambda: True,
        disable_progress_bars=lambda: None,
    )
    monkeypatch.setitem(sys.modules, "datasets", package)
    recipe = write_recipe(tmp_path, SMALL.replace('"digits"', '"hf:stranger/set"'), "hub")
    first = (recipe,) if verb == "run" else ("hf:stranger/set",)
    out = () if verb == "inspect" else ("--out", tmp_path / "out")
    line = refused(1, verb, *first, *out, "--quiet")
    assert "NetworkRefusedError: the network was asked for" in line
    assert "or add --download where there is a network" in line


def folder_tower(path, config):
    path.mkdir()
    (path / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": SPACE})
    )
    shutil.copy(projectors.model.tower.glyphclip_folder() / "open_clip_model.safetensors", path)
    return f"folder:{path}"


TOWERS = {
    "tag": lambda path: TAG,
    "address": lambda path: "open_clip:RN50:yfcc15m",
    "text of the hub": lambda path: folder_tower(
        path / "a", {**BASE, "text_cfg": {"hf_model_name": "stranger/text"}}
    ),
    "images of the hub": lambda path: folder_tower(
        path / "c",
        {
            "embed_dim": 8,
            "vision_cfg": {
                "timm_model_name": "hf-hub:stranger/images",
                "timm_model_pretrained": True,
                "image_size": 32,
            },
            "text_cfg": TEXT,
        },
    ),
}


@pytest.mark.parametrize("kind", TOWERS)
def test_a_tower_is_fetched_only_where_that_is_allowed(kind, asked, tmp_path):
    spec, started = TOWERS[kind](tmp_path), time.monotonic()
    with pytest.raises(projectors.ProjectorError, match=r"nothing is fetched unasked.*--download"):
        projectors.load_tower(spec)
    assert asked == []
    assert time.monotonic() - started < 30


def test_a_tokenizer_is_fetched_only_where_that_is_allowed(asked):
    tower = replace(
        projectors.load_tower("config:tiny-vit"), spec="open_clip:ViT-B-16-SigLIP:webli"
    )
    with pytest.raises(projectors.ProjectorError, match=r"the tokenizer .* nothing is fetched"):
        projectors.encode_text(tower, ["a word"])
    assert asked == []


def test_a_download_does_ask(asked, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(projectors.ProjectorError, match="cannot be loaded"):
        projectors.load_tower("open_clip:RN50:yfcc15m", download=True)
    assert asked


@pytest.mark.parametrize(
    "words",
    [
        ("verify", "projector"),
        ("verify", "."),
        ("evaluate", ".", "--quiet"),
        ("export", "projector", ".", "--format", "compact", "--out", "new"),
    ],
)
def test_a_strangers_projector_is_refused_in_one_line(words, run_copy, refused, asked, monkeypatch):
    path = run_copy / "projector" / "projector.json"
    document = json.loads(path.read_text())
    document["tower"]["spec"] = TAG
    path.write_text(json.dumps(sealed(document)))
    monkeypatch.chdir(run_copy)
    refused(1, *words)
    assert asked == []


def test_the_tower_of_a_recipe_is_refused_in_one_line(finished, refused, asked, tmp_path):
    out = copy_run(finished, tmp_path / "run")
    recipe = write_recipe(tmp_path, TINY.replace("config:tiny-vit", TAG))
    line = refused(1, "run", recipe, "--out", out, "--quiet")
    assert "`distill run RECIPE --download`" in line
    assert asked == []


def test_verify_fetches_the_tower_that_it_is_asked_to(run_copy, command, monkeypatch):
    fetched = []
    monkeypatch.setattr(
        "distill.sets.towers.fetch_tower", lambda spec, seed: fetched.append((spec, seed))
    )
    assert command("verify", run_copy, "--download").code == 0
    assert fetched == [("config:tiny-vit", 0)]


def test_the_block_ends_with_its_block():
    with offline(), pytest.raises(NetworkRefusedError, match="asked for"):
        socket.create_connection(("127.0.0.1", 9))
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", 9), timeout=1)
