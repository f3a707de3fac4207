"""A set that is read and written by parts is the set that is held whole."""

import pickle

import h5py
import numpy as np
import pytest
import torch

import distill
from distill.errors import WorkError
from distill.sets.set_file import read_set
from distill.store.content_digests import digest_content
from distill.store.hdf5 import create_h5
from distill.store.large_arrays import StoredArray, put_large, read_large
from synth.images import gather
from tests.distill.cases import read_json
from tests.distill.making_cases import RECOVER, SELECT_TAUGHT

RANDOM = SELECT_TAUGHT.replace("[select]\n", '[select]\nmethod = "random"\n')
MOSAICS = SELECT_TAUGHT.replace("[select]\n", '[select]\nmethod = "mosaics"\n')
PACKED = RANDOM.replace('source = "digits"', 'source = "packed:PACK"')
REAL = RECOVER.replace("[recover]\n", '[recover]\ninit = "real"\n')
RECIPES = {
    "random": RANDOM,
    "mosaics": MOSAICS,
    "recover": RECOVER,
    "recover from real": REAL,
    "packed": PACKED,
}


def ran(command, folder, text):
    path = folder / "made.toml"
    folder.mkdir()
    path.write_text(text)
    outcome = command("run", path, "--out", folder / "run", "--quiet")
    assert outcome.code == 0, outcome.err
    return folder / "run"


@pytest.mark.parametrize("name", RECIPES)
def test_a_run_by_parts_finds_what_a_run_in_memory_finds(name, by_parts, command, tmp_path):
    text = RECIPES[name]
    if name == "packed":
        assert command("pack", "digits", "--size", "8", "--out", tmp_path / "pack").code == 0
        text = text.replace("PACK", str(tmp_path / "pack"))
    whole = ran(command, tmp_path / "whole", text)
    by_parts()
    parts = ran(command, tmp_path / "parts", text)
    wanted, found = (read_set(run / "set.h5") for run in (whole, parts))
    assert isinstance(found.images, StoredArray)
    assert isinstance(found.votes.logits, StoredArray)
    assert torch.equal(gather(found.images), gather(wanted.images))
    for field in ("ids", "views", "whole"):
        assert torch.equal(getattr(found.votes, field), getattr(wanted.votes, field))
    for field in ("students", "controls", "bytes"):
        results = [read_json(run / "summary.json")[field] for run in (whole, parts)]
        assert results[0] == results[1]
    digests = [
        digest_content(run / "set.h5", "set", ("images", "labels/full-fp16/logits"), False)
        for run in (whole, parts)
    ]
    assert digests[0] == digests[1]
    for arguments in (("verify", parts), ("show", parts / "set.h5"), ("report", parts)):
        assert command(*arguments).code == 0
    assert command("run", tmp_path / "parts" / "made.toml", "--out", parts).err.count("done") >= 4


def test_a_loaded_set_hands_out_what_it_does_in_memory(finished, by_parts, tmp_path, command):
    wanted = distill.load(finished / "set.h5")
    by_parts()
    found = distill.load(finished / "set.h5")
    assert isinstance(found.images, StoredArray)
    assert torch.equal(found.labels, wanted.labels)
    for index in (0, len(wanted) - 1):
        assert torch.equal(found[index][0], wanted[index][0])
    again = pickle.loads(pickle.dumps(found.images))
    assert torch.equal(again[torch.tensor([1, 0])], wanted.images[torch.tensor([1, 0])])
    for form in ("safetensors", "npz", "imagefolder"):
        out = tmp_path / form
        assert command("export", "set", finished, "--format", form, "--out", out).code == 0


def test_voted_epochs_are_found_after_an_interruption(by_parts, command, tmp_path, monkeypatch):
    by_parts()
    whole = ran(command, tmp_path / "whole", RANDOM)
    calls = []
    vote = distill.teachers.voting.aggregated_vote

    def failing(*arguments):
        calls.append(1)
        if len(calls) == stop:
            raise WorkError("interrupted")
        return vote(*arguments)

    monkeypatch.setattr("distill.teachers.voting.aggregated_vote", failing)
    (tmp_path / "again").mkdir()
    path = tmp_path / "again" / "made.toml"
    path.write_text(RANDOM)
    stop = 0
    assert command("run", path, "--out", tmp_path / "all", "--quiet").code == 0
    asked = len(calls)
    calls.clear()
    stop = asked - 1
    assert command("run", path, "--out", tmp_path / "run", "--quiet").code == 1
    kept = len(calls)
    calls.clear()
    stop = 0
    assert command("run", path, "--out", tmp_path / "run", "--quiet").code == 0
    assert kept == asked - 1
    assert len(calls) <= asked // 2
    assert (tmp_path / "run" / "set.h5").read_bytes() == (whole / "set.h5").read_bytes()


def test_damaged_rows_are_told_when_they_are_read(by_parts, tmp_path):
    by_parts()
    path = tmp_path / "rows.h5"
    images = torch.arange(5 * 1 * 8 * 8, dtype=torch.float32).view(5, 1, 8, 8)
    with create_h5(path, "set") as file:
        put_large(file, "images", images, np.float32)
    with h5py.File(path) as file:
        assert file["images"].chunks == (2, 1, 8, 8)
        stored = read_large(file, "images", np.float32)
    assert torch.equal(gather(stored), images)
    assert torch.equal(stored[3], images[3])
    place = path.read_bytes().index(images[3].numpy().tobytes())
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    damaged = tmp_path / "damaged.h5"
    damaged.write_bytes(content)
    fresh = StoredArray(damaged, "/images", images.shape)
    assert torch.equal(fresh[0], images[0])
    with pytest.raises(WorkError, match="damaged"):
        fresh[3]
