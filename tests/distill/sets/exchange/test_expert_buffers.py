"""Replay buffers of MTT become experts.h5, which a run takes where it fits."""

import json
import re

import h5py
import pytest
import torch

from distill.recipes.build import build_network
from distill.store.experts import read_info, read_snapshots
from tests.distill.cases import read_json, write_recipe

NETWORK = "convnet2:width=4"
DATA = ("--data", "digits", "--size", "8")
EPOCHS = 4


def parameters(seed):
    return [p.detach() for p in build_network(NETWORK, 1, (8, 8), 10, seed).parameters()]


@pytest.fixture(scope="module")
def buffers(tmp_path_factory):
    """Three experts in two files; the tenth file comes after the second."""
    folder = tmp_path_factory.mktemp("buffers")
    for number, experts in ((2, (0, 1)), (10, (2,))):
        content = [[parameters(10 * e + epoch) for epoch in range(EPOCHS + 1)] for e in experts]
        torch.save(content, folder / f"replay_buffer_{number}.pt")
    return folder


@pytest.fixture
def imported(buffers, command, tmp_path):
    """experts.h5 of the buffers, with the data of the tiny recipe."""
    out = tmp_path / "given.h5"
    outcome = command(
        "import", buffers, "--from", "buffers", *DATA, "--network", NETWORK, "--space",
        "normalised", "--out", out, "--json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["notes"][0] == f"3 experts of {NETWORK}, {EPOCHS} epochs"
    return out


RECIPE = f"""
[data]
source = "digits"
size = 8

[experts]
network = "{NETWORK}"

[match]
ipc = 1
iterations = 2
inner_steps = 2
span = 2
max_start_epoch = 2
"""


@pytest.fixture
def match(command, tmp_path):
    """Match in a run of its own."""
    recipe = write_recipe(tmp_path, RECIPE)

    def call(*options):
        return command("match", recipe, "--out", tmp_path / "run", "--quiet", *options)

    return call


def test_buffers_keep_every_parameter(imported):
    info = read_info(imported)
    assert (info.count, info.epochs, info.given) == (3, EPOCHS, ("buffers", "normalised"))
    for expert in range(3):
        for epoch, snapshot in zip((1, 3), read_snapshots(imported, expert, (1, 3)), strict=True):
            wanted = torch.cat([p.flatten() for p in parameters(10 * expert + epoch)])
            assert torch.equal(snapshot, wanted)


def test_show_and_verify_know_imported_experts(imported, command):
    assert "Imported: buffers, normalised." in command("show", imported).out
    assert command("verify", imported).code == 0


REFUSED = [
    (2, ("--space", "pixels"), "give --network, --data and --space normalised, or --space zca"),
    (1, ("--network", "convnet2:width=8", "--space", "zca"), r"parameter 0 is \(4, 1, 3, 3\)"),
    (1, ("--network", "convnet1:width=4", "--space", "zca"), "10 parameters, not the 6 of"),
]


@pytest.mark.parametrize(("code", "options", "words"), REFUSED)
def test_experts_of_another_network_are_refused(code, options, words, buffers, refused, tmp_path):
    line = refused(
        code, "import", buffers, "--from", "buffers", *DATA, "--network", NETWORK, "--out",
        tmp_path / "a.h5", *options,
    )  # fmt: skip
    assert re.search(words, line), line
    assert not (tmp_path / "a.h5").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "holds no list of experts"),
        ({"a": 1}, "holds no list of experts"),
        ([[parameters(0)]], "an expert without epochs"),
        ([[parameters(0), 3]], "no lists of plain parameters"),
        ([[parameters(0), [p / 0 for p in parameters(0)]]], "diverged"),
    ],
)
def test_other_files_are_no_buffers(content, words, refused, tmp_path):
    path = tmp_path / "replay_buffer_0.pt"
    torch.save(content, path)
    line = refused(
        1, "import", path, "--from", "buffers", *DATA, "--network", NETWORK, "--space",
        "normalised", "--out", tmp_path / "a.h5",
    )  # fmt: skip
    assert words in line


def test_mtt_and_an_empty_folder_say_what_buffers_are(buffers, refused, tmp_path):
    (tmp_path / "empty").mkdir()
    asked = ("--out", tmp_path / "a.h5", *DATA, "--space", "zca")
    assert "--from buffers" in refused(1, "import", buffers, "--from", "mtt", *asked)
    line = refused(1, "import", tmp_path / "empty", "--from", "buffers", *asked)
    assert "holds no replay_buffer_N.pt" in line


def test_match_goes_on_from_given_experts(imported, match, tmp_path):
    outcome = match("--reuse", imported)
    assert outcome.code == 0, outcome.err
    entry = read_json(tmp_path / "run" / "manifest.json")["stages"]["experts"]
    assert entry["given"] == "given.h5"
    assert read_info(tmp_path / "run" / "experts.h5").given == ("buffers", "normalised")
    # They are now this run's own: no second stage, and no option.
    assert match("--set", "match.iterations=3").code == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--set", "data.zca=true"), "trained on normalised images, the recipe's are zca"),
        (("--set", "data.size=16"), "imported with other real data than digits"),
        (("--set", "experts.network=mlp"), f"holds experts of {NETWORK}, the recipe's are mlp"),
    ],
)
def test_experts_that_do_not_fit_are_refused(options, words, imported, match):
    outcome = match("--reuse", imported, *options)
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert words in outcome.err


def test_experts_of_a_run_are_given_by_its_folder(finished, match):
    outcome = match("--reuse", finished / "experts.h5")
    assert outcome.code == 1
    assert "give --reuse its folder" in outcome.err


def test_buffers_as_they_are_are_sent_to_import(buffers, match, tmp_path):
    for path in (buffers, buffers / "replay_buffer_2.pt"):
        outcome = match("--reuse", path)
        assert (outcome.code, outcome.err.count("\n")) == (1, 1)
        assert f"distill import {path} --from buffers" in outcome.err
        assert not (tmp_path / "run").exists()


def test_match_refuses_experts_that_are_not_those_of_the_run(imported, match, tmp_path):
    assert match("--reuse", imported).code == 0
    other = tmp_path / "run" / "experts.h5"
    content = other.read_bytes()
    other.unlink()
    other.write_bytes(content)
    with h5py.File(other, "r+") as file:
        file["experts/0000/snapshots"][0, 0] = 9
    outcome = match("--set", "match.iterations=3")
    assert outcome.code == 1
    assert "experts.h5 is not what the stage experts left: its digest differs" in outcome.err
    assert match("--set", "match.iterations=3", "--reuse", imported).code == 0
