"""Damaged and foreign artefacts: every command says so in one line, and changes nothing."""

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

import distill
from distill.errors import WorkError
from distill.sets.set_file import read_set, write_set
from distill.store.committee import read_committee
from distill.store.experts import read_snapshots
from distill.store.seals import unsealed
from tests.distill.cases import contents, edited, flip_byte, flip_data, read_json, write_recipe

COMMANDS = ("audit", "evaluate", "show", "verify")


def truncated(folder, finished):
    path = folder / "set.h5"
    raw = (finished / "set.h5").read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    return path


def empty(folder, finished):
    path = folder / "set.h5"
    path.touch()
    return path


def text(folder, finished):
    path = folder / "set.h5"
    path.write_text("a set\n" * 1000)
    return path


def foreign(folder, finished):
    path = folder / "set.h5"
    with h5py.File(path, "w") as file:
        file["images"] = np.zeros((3, 1, 8, 8))
    return path


def folder_of_that_name(folder, finished):
    path = folder / "set.h5"
    path.mkdir()
    return path


def missing(folder, finished):
    return folder / "set.h5"


MAKERS = [truncated, empty, text, foreign, folder_of_that_name, missing]


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("make", MAKERS)
def test_file_that_is_no_set_is_refused(name, make, finished, refused, tmp_path):
    path = make(tmp_path, finished)
    line = refused(1, name, path)
    assert str(path) in line
    with pytest.raises(WorkError):
        distill.load(path)


@pytest.mark.parametrize("name", ["experts.h5", "committee.h5"])
def test_other_artefact_is_no_set(name, finished, refused):
    kind = name.removesuffix(".h5")
    line = refused(1, "evaluate", finished / name)
    assert f"holds {kind}, not set; name the set file of a run" in line


def test_folder_without_a_run_is_refused(refused, tmp_path):
    for name in ("show", "verify", "report", "evaluate", "audit"):
        assert str(tmp_path) in refused(1, name, tmp_path)


def test_run_without_evaluation_has_no_report(run_copy, refused):
    (run_copy / "summary.json").unlink()
    assert "run the stage evaluate first" in refused(1, "report", run_copy)


def corrupt(path, name, value):
    """Change values of a dataset as HDF5 itself does, with a checksum that fits."""
    with edited(path) as file:
        dataset = file[name]
        dataset[(0,) * dataset.ndim] = value


def attribute(path, name, text):
    with edited(path) as file:
        file.attrs[name] = text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: corrupt(p, "images", np.nan), "images hold NaN or infinite pixels"),
        (lambda p: corrupt(p, "images", np.inf), "images hold NaN or infinite pixels"),
        (lambda p: corrupt(p, "hard", 10), "a hard label lies outside the 10 classes"),
        (lambda p: corrupt(p, "labels/learned", np.nan), "learned labels hold NaN"),
        (lambda p: corrupt(p, "labels/full-fp16/logits", np.nan), "voted labels hold NaN"),
        (lambda p: corrupt(p, "labels/full-fp16/views", np.nan), "voted labels hold NaN"),
        (lambda p: corrupt(p, "labels/full-fp16/ids", 10), "do not fit the images"),
        (lambda p: attribute(p, "class_names", "[]"), "need a list of names"),
        (lambda p: attribute(p, "class_names", '["cat", "dog"]'), "outside the 2 classes"),
        (lambda p: attribute(p, "class_names", "["), "truncated or damaged"),
        (lambda p: attribute(p, "student_lr", "-1.0"), "need a number above 0"),
        (lambda p: attribute(p, "student_lr", "NaN"), "need a number above 0"),
        (lambda p: attribute(p, "seed", "[3]"), "seed is [3], need a whole number from 0"),
        (lambda p: attribute(p, "seed", "true"), "seed is True, need a whole number from 0"),
        (lambda p: attribute(p, "network", "{}"), "network is {}, need a text"),
        (lambda p: attribute(p, "preprocess", "{}"), "mean and std are needed"),
        (lambda p: attribute(p, "preprocess", "3"), "damaged or foreign"),
        (lambda p: attribute(p, "source", "3"), "lacks the digest"),
        (lambda p: attribute(p, "recipe", '"3"'), "recipe holds no tables"),
        (lambda p: attribute(p, "format", 2), "has format 2, this program reads 1"),
        (lambda p: attribute(p, "limbeck", "sets"), "holds sets, not set"),
    ],
)
def test_set_whose_parts_contradict_each_other_is_refused(change, words, run_copy, refused):
    path = run_copy / "set.h5"
    change(path)
    before = contents(run_copy)
    assert words in refused(1, "show", path)
    assert words in refused(1, "evaluate", path, "--json", "--quiet")
    assert contents(run_copy) == before
    with pytest.raises(WorkError, match=r"make it again|use the version|name the set file"):
        distill.load(path)


def test_set_with_a_missing_part_is_refused(run_copy, refused):
    with edited(run_copy / "set.h5") as file:
        del file["hard"]
    assert "the file is truncated or damaged: make it again" in refused(
        1, "show", run_copy / "set.h5"
    )


def test_set_whose_recipe_is_foreign_is_refused(run_copy, refused):
    attribute(run_copy / "set.h5", "recipe", '{"data": {}}')
    line = refused(2, "evaluate", run_copy)
    assert f"recipe of {run_copy / 'set.h5'}: data.source is missing" in line


def test_set_of_other_data_is_refused(run_copy, refused):
    attribute(run_copy / "set.h5", "source", '{"name": "digits", "digest": "0"}')
    line = refused(1, "evaluate", run_copy, "--quiet")
    assert "was made from other data than digits holds now" in line


def test_committee_of_other_data_is_refused(run_copy, refused):
    with edited(run_copy / "committee.h5") as file:
        file.attrs["data"] = "0"
    line = refused(1, "evaluate", run_copy, "--quiet")
    assert "was trained on other data or classes; run the stage committee" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--labels", "hard,soft"], "evaluate.labels: it should be 'hard', 'learned'"),
        (["--students", "convnet9"], "there is no network convnet9"),
        (["--students", "convnet2:norm=bacth"], "network convnet2:norm=bacth:"),
        (["--students", ","], "evaluate.students:"),
    ],
)
def test_wrong_evaluation_is_refused(arguments, words, finished, refused):
    assert words in refused(2, "evaluate", finished, *arguments)


def test_labels_that_a_set_lacks_are_refused(run_copy, refused):
    content = read_set(run_copy / "set.h5")
    write_set(run_copy / "set.h5", replace(content, votes=None, learned=None))
    line = refused(2, "evaluate", run_copy, "--labels", "votes,learned")
    assert "asks for votes, learned, but this set has hard, projector" in line


def test_flipped_byte_of_a_snapshot_is_found(run_copy, refused):
    path = run_copy / "experts.h5"
    snapshot, _ = read_snapshots(path, 1, (2, 3))
    flip_data(path, snapshot.numpy().tobytes())
    read_snapshots(path, 1, (1, 3))
    assert "make it again" in refused(1, "verify", path)
    with pytest.raises(WorkError, match="damaged"):
        read_snapshots(path, 1, (2, 3))


def test_flipped_byte_of_a_member_is_found(run_copy, refused):
    path = run_copy / "committee.h5"
    members, _, _ = read_committee(path)
    largest = max(members[0].state.values(), key=torch.numel)
    flip_data(path, largest.numpy().tobytes())
    assert "make it again" in refused(1, "verify", path)


@pytest.mark.parametrize("name", ["images", "labels/learned", "labels/full-fp16/logits"])
def test_flipped_byte_of_a_set_is_found(name, run_copy, refused):
    path = run_copy / "set.h5"
    with h5py.File(path) as file:
        data = file[name]
        # What is laid out in chunks is contiguous within each.
        first = data[: data.chunks[0]] if data.chunks else data[()]
    flip_data(path, first.tobytes())
    for command in COMMANDS:
        assert "make it again" in refused(1, command, path)


@pytest.mark.parametrize("name", ["head.safetensors", "adapter_model.safetensors"])
def test_flipped_byte_of_a_projector_is_found(name, run_copy, refused):
    folder = run_copy / "projector"
    flip_byte(folder / name, (folder / name).stat().st_size - 3)
    assert name in refused(1, "verify", folder)
    words = ("--students", "mlp", "--seeds", "1", "--epochs", "1", "--quiet")
    sweep = ("sweep", run_copy, "--codecs", "projector", "--out", run_copy / "sweep", *words)
    for command in (("evaluate", run_copy, "--quiet"), sweep):
        assert str(folder / name) in refused(1, *command)


@pytest.mark.parametrize("text", ["{", "3"])
def test_damaged_description_of_a_projector_is_found(text, run_copy, refused):
    (run_copy / "projector" / "projector.json").write_text(text)
    for command in ("show", "verify"):
        assert "projector.json cannot be read" in refused(1, command, run_copy / "projector")


def test_a_changed_text_of_a_projector_is_found(run_copy, refused):
    path = run_copy / "projector" / "projector.json"
    path.write_text(path.read_text().replace('"zero"', '"nero"'))
    for command in ("show", "verify"):
        line = refused(1, command, path.parent)
        assert "it is not what was written, by its digest" in line


def test_a_projector_from_before_it_held_a_digest_is_said_not_to_be_checked(run_copy, command):
    path = run_copy / "projector" / "projector.json"
    path.write_text(json.dumps(unsealed(read_json(path))))
    assert command("verify", path.parent).out.endswith("so its texts are not checked\n")


def test_what_lies_beside_a_projector_is_said_not_to_be_checked(run_copy, command):
    for name in ("README.md", "about.json"):
        (run_copy / "projector" / name).write_text("a card")
    line = command("verify", run_copy / "projector").out
    assert line.endswith("readable; not part of it, so not checked: README.md, about.json\n")


@pytest.mark.parametrize("name", ["experts.h5", "committee.h5", "evaluation.json"])
def test_run_with_a_flipped_byte_is_found(name, run_copy, refused):
    flip_byte(run_copy / name, (run_copy / name).stat().st_size // 2)
    line = refused(1, "verify", run_copy)
    assert f"{run_copy}: {name} changed since the run" in line


def test_run_with_a_changed_measurement_is_found(run_copy, refused):
    attribute(run_copy / "set.h5", "measured", "{}")
    assert "set.h5:measured" in refused(1, "verify", run_copy)


def test_random_damage_of_a_set_is_refused_or_harmless(finished, tmp_path):
    raw = (finished / "set.h5").read_bytes()
    with h5py.File(finished / "set.h5") as file:
        places = [file[name].id.get_chunk_info(0) for name in ("images", "labels/learned")]
    path = tmp_path / "set.h5"
    for chunk in places:
        for step in range(0, chunk.size, max(chunk.size // 20, 1)):
            path.write_bytes(raw)
            flip_byte(path, chunk.byte_offset + step)
            with pytest.raises(WorkError, match="make it again"):
                distill.load(path)
    for cut in range(0, len(raw), len(raw) // 40):
        path.write_bytes(raw[:cut])
        with pytest.raises(WorkError):
            distill.load(path)


def test_recipe_is_not_copied_over_a_file(refused, tmp_path):
    path = write_recipe(tmp_path, "mine = 1")
    assert f"{path} exists; name another file or remove it" in refused(1, "cp", "digits", path)
    assert path.read_text() == "mine = 1"
    assert "there is no recipe digit; did you mean digits?" in refused(2, "cp", "digit", tmp_path)
