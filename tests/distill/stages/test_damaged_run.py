"""A run whose files are damaged goes on: what is damaged is made again, and all else is kept."""

import h5py
import numpy as np
import pytest

from distill.sets.additions import add_encoded
from distill.sets.set_file import read_set
from distill.stages.encode import encoding_name
from distill.store.files import remove
from tests.distill.cases import artefacts, edited, flip_data

ENCODED = ("--set", "encode.codec=topk:k=3")


def flip_votes(run):
    with h5py.File(run / "set.h5") as file:
        logits = file["labels/full-fp16/logits"]
        flip_data(run / "set.h5", logits[: logits.chunks[0]].tobytes())


def spoil_votes(run):
    """As an older program left votes that half precision does not hold."""
    with edited(run / "set.h5") as file:
        file["labels/full-fp16/logits"][0, 0, 0] = np.inf


DAMAGES = {
    "votes": (flip_votes, {"relabel", "evaluate"}),
    "mix": (lambda run: flip_data(run / "set.h5", b'["crop"'), {"relabel", "evaluate"}),
    "accuracies": (lambda run: flip_data(run / "set.h5", b'"controls"'), {"evaluate"}),
    "projector": (lambda run: remove(run / "projector" / "projector.json"), {"project"}),
    "projector file": (
        lambda run: (remove(run / "projector"), (run / "projector").write_text("x")),
        {"project"},
    ),
    "manifest": (lambda run: (run / "manifest.json").write_text("{"), set()),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_damaged_is_made_again(name, run_copy, finished, recipe, command):
    damage, made = DAMAGES[name]
    damage(run_copy)
    done = command("run", recipe, "--out", run_copy)
    assert done.code == 0, done.err
    kept = {line.split()[0] for line in done.err.splitlines() if "done before" in line}
    assert made.isdisjoint(kept)
    assert {"experts", "match", "committee"} <= kept
    assert artefacts(run_copy) == artefacts(finished)


def test_a_changed_recipe_goes_on_over_votes_that_are_not_finite(run_copy, recipe, command):
    spoil_votes(run_copy)
    words = ("run", recipe, "--out", run_copy, "--stage", "relabel", "--quiet")
    assert command(*words, "--set", "relabel.bssl=off").code == 0
    assert bool(read_set(run_copy / "set.h5").votes.logits.isfinite().all())


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b"\xff\xfe", b"[" * 9999, b"3"])
def test_a_damaged_encoding_is_made_again(content, run_copy, recipe, command, refused):
    words = ("run", recipe, "--out", run_copy, *ENCODED, "--stage", "encode", "--quiet")
    assert command(*words).code == 0
    path = run_copy / "encoding.json"
    whole = path.read_bytes()
    path.write_bytes(content)
    assert "encoding.json" in refused(1, "verify", run_copy)
    assert command(*words).code == 0
    assert path.read_bytes() == whole
    assert encoding_name(path) == "topk:k=3"


def test_damaged_labels_of_a_codec_are_encoded_again(run_copy, command):
    path, words = run_copy / "set.h5", ("encode", run_copy, "--codec", "topk:k=3", "--quiet")
    assert command(*words).code == 0
    encoded = read_set(path).encoded["topk:k=3"]
    flip_data(path, encoded.payload)
    assert command("verify", path).code == 1
    assert command(*words).code == 0
    assert read_set(path).encoded["topk:k=3"].payload == encoded.payload
    add_encoded(path, "topk:k=2", encoded)
    assert set(read_set(path).encoded) == {"topk:k=3", "topk:k=2"}


def test_another_codec_is_chosen_over_damaged_labels_of_the_one_before(
    run_copy, recipe, command, refused
):
    path, words = run_copy / "set.h5", ("run", recipe, "--out", run_copy, "--stage", "encode")
    assert command("encode", run_copy, "--codec", "roots", "--quiet").code == 0
    assert command(*words, *ENCODED, "--quiet").code == 0
    whole = read_set(path).encoded
    assert set(whole) == {"roots", "topk:k=3"}
    flip_data(path, whole["topk:k=3"].payload)
    assert "labels/topk:k=3, which can be encoded again" in refused(1, "verify", path)
    assert command(*words, "--set", "encode.codec=topk:k=2", "--quiet").code == 0
    assert set(read_set(path).encoded) == {"roots", "topk:k=2"}
    assert read_set(path).encoded["roots"].payload == whole["roots"].payload
