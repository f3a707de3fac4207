import json

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import distill
import projectors
from distill.__main__ import run
from distill.recipes.build import build_network
from distill.sets.set_file import read_set
from distill.store.hdf5 import get_json
from tests.distill.cases import (
    STAGES,
    STUDENT,
    artefacts,
    contents,
    copy_run,
    flip_byte,
    flip_data,
    outputs_of,
    read_json,
)

FILES = {
    ".lock",
    ".manifest.json",
    "manifest.json",
    "experts.h5",
    "committee.h5",
    "set.h5",
    "evaluation.json",
    "summary.json",
    "metrics.jsonl",
    "report.html",
    "projector/projector.json",
    "projector/adapter_config.json",
    "projector/adapter_model.safetensors",
    "projector/head.safetensors",
}


@pytest.fixture(scope="module")
def other_runs(recipe, tmp_path_factory):
    """The same recipe in another folder, and with another seed."""
    folder = tmp_path_factory.mktemp("others")
    for name, seed in (("again", "0"), ("seed1", "1")):
        arguments = ["run", str(recipe), "--out", str(folder / name), "--seed", seed, "--quiet"]
        assert run(arguments) == 0
    return folder


def test_run_leaves_its_files_and_no_others(finished):
    assert set(contents(finished)) == FILES


def test_manifest_says_what_was_done_with_what(finished):
    manifest = read_json(finished / "manifest.json")
    assert list(manifest["stages"]) == list(STAGES)
    assert manifest["recipe"]["name"] == "tiny"
    assert manifest["recipe"]["match"]["ipc"] == 1
    assert manifest["seed"] == 0
    assert manifest["device"] == str(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    assert manifest["data"]["source"] == "digits"
    assert len(manifest["data"]["digest"]) == 64
    assert {"python", "torch", "limbeck"} <= set(manifest["versions"])


def check_statistics(entry, seeds):
    assert set(entry) == {"mean", "std", "runs", "interval"}
    assert len(entry["runs"]) == seeds
    assert all(0 <= value <= 1 for value in entry["runs"])
    assert entry["mean"] == pytest.approx(np.mean(entry["runs"]))
    assert entry["std"] == pytest.approx(np.std(entry["runs"], ddof=1))


def test_summary_holds_students_beside_their_controls(finished):
    summary = read_json(finished / "summary.json")
    assert set(summary["students"]) == {STUDENT}
    assert set(summary["students"][STUDENT]) == {"hard", "learned", "votes", "projector"}
    assert set(summary["controls"]) == {"random", "whole"}
    assert set(summary["controls"]["random"][STUDENT]) == {"hard", "votes", "projector"}
    assert set(summary["controls"]["whole"][STUDENT]) == {"hard"}
    for group in (summary["students"], *summary["controls"].values()):
        for entry in group[STUDENT].values():
            check_statistics(entry, seeds=2)


def test_summary_counts_bytes_seconds_and_memory(finished):
    summary = read_json(finished / "summary.json")
    # 10 images of 8x8 floats; hard: 10 bytes; learned: 10x10 floats; votes: 4 epochs of 10 labels
    # of 10 halves, with an id (1 byte) and 2 + 2 + 1 view parameters (halves) each.
    votes = 4 * 10 * (10 * 2 + 1 + 5 * 2)
    assert summary["bytes"]["images"] == 10 * 64 * 4
    assert summary["bytes"]["sources"] == {"hard": 10, "learned": 400, "votes": votes}
    assert summary["bytes"]["labels"] == 410 + votes
    folder = finished / "projector"
    assert summary["bytes"]["projector"] == sum(p.stat().st_size for p in folder.iterdir())
    assert summary["bytes"]["external"] == 0
    assert list(summary["stages"]) == list(STAGES)
    for stage in summary["stages"].values():
        assert stage["seconds"] > 0
        assert stage["peak_memory_bytes"] > 1_000_000
    assert summary["protocol"]["test_images"] == 597
    assert summary["protocol"]["seeds"] == 2
    assert {"hard", "learned", "votes", "projector", "random", "whole"} <= set(summary["protocol"])


def test_summary_is_the_evaluation_with_the_stages(finished):
    summary = read_json(finished / "summary.json")
    del summary["stages"]
    assert summary == read_json(finished / "evaluation.json")
    # An attribute of HDF5 is small; the confusions stay in the run.
    assert set(summary.pop("confusion")) == {STUDENT}
    assert summary == read_set(finished / "set.h5").measured


def test_experts_file_has_one_checksummed_chunk_per_snapshot(finished):
    size = sum(p.numel() for p in build_network(STUDENT, 1, (8, 8), 10, 0).parameters())
    with h5py.File(finished / "experts.h5") as file:
        assert sorted(file["experts"]) == ["0000", "0001"]
        assert file.attrs["network"] == STUDENT
        assert file.attrs["data"] == read_json(finished / "manifest.json")["data"]["digest"]
        assert sum(int(np.prod(shape)) for _, shape in get_json(file, "parameters")) == size
        for expert in file["experts"].values():
            snapshots = expert["snapshots"]
            assert snapshots.shape == (4, size)
            assert snapshots.dtype == np.float32
            assert snapshots.chunks == (1, size)
            assert snapshots.fletcher32
            assert not np.array_equal(snapshots[0], snapshots[3])
            assert len(get_json(expert, "accuracies")) == 3


def test_set_file_says_all_that_a_consumer_needs(finished):
    with h5py.File(finished / "set.h5") as file:
        assert file["images"].dtype == np.float32
        assert file["images"].fletcher32
        assert file["hard"].dtype == np.uint8
        assert file["hard"][()].tolist() == list(range(10))
        assert file["labels/learned"].shape == (10, 10)
        assert file["labels/full-fp16/logits"].shape == (4, 10, 10)
        assert file["labels/full-fp16/logits"].dtype == np.float16
        assert file["labels/full-fp16"].attrs["batch_statistics"]
        assert file.attrs["limbeck"] == "set"
        attributes = {
            name: get_json(file, name) for name in file.attrs if name not in ("limbeck", "format")
        }
    assert attributes["class_names"][:2] == ["zero", "one"]
    assert attributes["seed"] == 0
    assert attributes["network"] == STUDENT
    assert attributes["augmentation"] == "colour_crop_cutout_scale_rotate"
    assert 0 < attributes["student_lr"] < 1
    assert attributes["recipe"]["match"]["iterations"] == 6
    assert len(attributes["recipe_digest"]) == 64
    assert attributes["source"]["name"] == "digits"
    assert STUDENT in attributes["measured"]["students"]


def test_loaded_set_is_a_dataset_of_images_and_soft_labels(finished):
    data = distill.load(finished / "set.h5")
    assert len(data) == 10
    image, label = data[3]
    assert torch.equal(image, data.images[3])
    assert torch.equal(label, data.labels[3])
    torch.testing.assert_close(data.labels.sum(dim=1), torch.ones(10))
    assert data.hard.tolist() == list(range(10))
    assert data.labels.argmax(dim=1).tolist() == data.hard.tolist()
    assert data.manifest["measured"]["students"]
    images, labels = next(iter(DataLoader(data, batch_size=4)))
    assert images.shape == (4, 1, 8, 8)
    assert labels.shape == (4, 10)


def test_loaded_set_goes_to_pixels_and_back(finished):
    data = distill.load(finished)
    pixels = data.preprocess.inverse(data.images)
    assert not torch.equal(pixels, data.images)
    torch.testing.assert_close(data.preprocess(pixels), data.images)


def test_projector_labels_the_loaded_images(finished):
    data = distill.load(finished)
    projector = projectors.load(finished / "projector")
    probabilities = projector(data.images)
    assert probabilities.shape == (10, 10)
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(10))
    assert projector.classes == data.manifest["class_names"]


def test_metrics_hold_a_row_for_every_step(finished):
    lines = (finished / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    counts = {stage: sum(row["stage"] == stage for row in rows) for stage in STAGES}
    assert counts["experts"] == 2 * 3
    assert counts["match"] == 6
    assert counts["committee"] == 3 * 10
    # Two steps, and what the nearest class mean would reach.
    assert counts["project"] == 3
    assert counts["evaluate"] == 2 * (4 + 3 + 1)


def test_report_stands_alone_and_names_the_students(finished):
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert STUDENT in page
    assert "data:image/png" in page
    assert "<script src" not in page


def test_same_recipe_and_seed_give_the_same_bytes_in_another_folder(finished, other_runs):
    assert outputs_of(other_runs / "again") == outputs_of(finished)
    assert artefacts(other_runs / "again") == artefacts(finished)
    assert len(artefacts(finished)) == 8


def test_another_seed_gives_other_artefacts(finished, other_runs):
    first, second = artefacts(finished), artefacts(other_runs / "seed1")
    # PEFT's config holds only settings.
    assert {name for name in first if first[name] == second[name]} == {
        "projector/adapter_config.json"
    }


def test_second_run_skips_every_stage(run_copy, recipe, command):
    before = artefacts(run_copy)
    times = {path: path.stat().st_mtime_ns for path in run_copy.rglob("*.h5")}
    outcome = command("run", recipe, "--out", run_copy)
    assert outcome.code == 0
    assert [line.split()[0] for line in outcome.err.splitlines()] == [*STAGES, "report:"]
    assert outcome.err.count("done before, inputs unchanged") == len(STAGES)
    assert artefacts(run_copy) == before
    assert {path: path.stat().st_mtime_ns for path in run_copy.rglob("*.h5")} == times


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ("evaluate.seeds=1", {"evaluate"}),
        ("match.iterations=2", {"match", "relabel", "evaluate"}),
        ("relabel.epochs=2", {"relabel", "evaluate"}),
        ("projector.steps=2", {"project", "evaluate"}),
    ],
)
def test_changed_key_reruns_only_what_depends_on_it(change, again, run_copy, recipe, command):
    before = outputs_of(run_copy)
    outcome = command("run", recipe, "--out", run_copy, "--set", change)
    assert outcome.code == 0, outcome.err
    skipped = {line.split()[0] for line in outcome.err.splitlines() if "done before" in line}
    assert skipped == set(STAGES) - again
    after = outputs_of(run_copy)
    assert {name for name in STAGES if after[name] != before[name]} == again
    assert command("verify", run_copy).code == 0
    assert not list((run_copy / "checkpoints").iterdir())


def test_changed_relabelling_drops_what_was_measured_before(run_copy, recipe, command):
    arguments = ("--set", "relabel.epochs=2", "--quiet")
    assert command("relabel", recipe, "--out", run_copy, *arguments).code == 0
    content = read_set(run_copy / "set.h5")
    assert len(content.votes.ids) == 2
    assert content.measured is None
    assert set(outputs_of(run_copy)) == set(STAGES) - {"evaluate"}


def test_damaged_set_is_made_again_whole(run_copy, finished, recipe, command):
    images = read_set(run_copy / "set.h5").images.numpy().tobytes()
    flip_data(run_copy / "set.h5", images)
    outcome = command("run", recipe, "--out", run_copy)
    assert outcome.code == 0, outcome.err
    skipped = {line.split()[0] for line in outcome.err.splitlines() if "done before" in line}
    assert skipped == {"experts", "committee", "project"}
    assert artefacts(run_copy) == artefacts(finished)


@pytest.mark.parametrize("name", ["experts.h5", "committee.h5", "projector/head.safetensors"])
def test_damaged_output_is_made_again(name, run_copy, finished, recipe, command):
    flip_byte(run_copy / name, (run_copy / name).stat().st_size // 2)
    assert command("run", recipe, "--out", run_copy, "--quiet").code == 0
    assert artefacts(run_copy) == artefacts(finished)


def test_missing_output_is_made_again(run_copy, finished, recipe, command):
    (run_copy / "evaluation.json").unlink()
    assert command("run", recipe, "--out", run_copy, "--quiet").code == 0
    assert artefacts(run_copy) == artefacts(finished)


def test_stages_one_by_one_give_the_whole_run(finished, recipe, command, tmp_path):
    run = tmp_path / "run"
    for verb in ("experts", "match", "relabel", "project"):
        assert command(verb, recipe, "--out", run, "--quiet").code == 0
        assert not (run / "summary.json").exists()
    assert command("run", recipe, "--out", run, "--stage", "evaluate", "--quiet").code == 0
    assert artefacts(run) == artefacts(finished)


def test_report_is_written_again(run_copy, finished, command):
    (run_copy / "report.html").unlink()
    outcome = command("report", run_copy)
    assert outcome.code == 0
    assert outcome.out.strip() == str(run_copy / "report.html")
    page = (run_copy / "report.html").read_text(encoding="utf-8")
    assert page == (finished / "report.html").read_text(encoding="utf-8")


def test_moved_run_goes_on(finished, recipe, command, tmp_path):
    moved = copy_run(finished, tmp_path / "elsewhere" / "run")
    outcome = command("run", recipe, "--out", moved)
    assert outcome.code == 0
    assert outcome.err.count("done before") == len(STAGES)
