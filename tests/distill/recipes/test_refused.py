"""What a recipe or a command line may not ask for: one line, exit code 2, nothing written."""

import fcntl

import numpy as np
import pytest
import torch

from distill.recipes.checks import missing_packages
from distill.recipes.loading import load_recipe
from tests.distill.cases import TINY, contents, outputs_of, read_json, write_recipe

MAKERLESS = TINY.partition("[experts]")[0]


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


REFUSED_CHANGES = [
    ("match.iteration=3", ["unknown key match.iteration;", "did you mean iterations?"]),
    ("mach.ipc=3", ["unknown key mach;", "did you mean match?"]),
    ("match.lr=0.1", ["match.lr is called match.student_lr now; rename it"]),
    ("match.log_lr_lr=0.1", ["match.log_lr_lr is called match.student_lr_lr now"]),
    ("match.colour=3", ["unknown key match.colour;", "choose one of ipc, iterations"]),
    ("match.ipc=one", ["match.ipc: it should be a valid integer"]),
    ("match.ipc=1.5", ["match.ipc: it should be a valid integer"]),
    ("match.ipc=0", ["match.ipc: it should be greater than or equal to 1"]),
    ("match.ipc=11", ["match.ipc: class", "but ipc=11 needs 11", "lower ipc to"]),
    ("match.student_lr=nan", ["match.student_lr: it should be"]),
    ("match.student_lr=-1", ["match.student_lr: it should be greater than 0"]),
    ("match.gradient=exact", ["match.gradient: it should be 'adjoint', 'frozen' or 'unrolled'"]),
    ("match.max_start_epoch=3", ["match.max_start_epoch + match.span is 4", "epochs is 3"]),
    ("seed=-1", ["seed: it should be greater than or equal to 0"]),
    ("data.validation=1", ["data.validation: it should be less than 1"]),
    ("data.source=digitz", ["data.source:", "'digitz' is unknown", "did you mean 'digits'?"]),
    ("data.source=digits:8", ["data.source:", "takes no path"]),
    ("data.source=npz", ["data.source:", "lacks a path"]),
    ("data.augmentation=crop_flap", ["augmentation crop_flap:", "flap"]),
    ("relabel.augmentation=flap", ["augmentation flap:"]),
    ("experts.network=convnet9", ["there is no network convnet9; did you mean convnet"]),
    ("experts.network=convnet2:widht=4", ["unknown option widht; did you mean width?"]),
    ("experts.network=convnet2:width=0", ["width is '0'", "whole number above 0"]),
    ("experts.network=convnet2:width", ["convnet2:width: unknown option width"]),
    ("committee.members=resnet18,resnet81", ["there is no network resnet81"]),
    ("committee.members=[]", ["committee.members:", "at least 1 item"]),
    ("committee.members=", ["committee.members is missing"]),
    ("evaluate.students=convnet2:norm=bacth", ["network convnet2:norm=bacth:", "batch"]),
    ("evaluate.labels=votes,hards", ["evaluate.labels: it should be 'hard', 'learned'"]),
    ("projector.teacher=resnet18", ["projector.teacher is resnet18;", "convnet2:width=8"]),
    ("ipc", ["--set got 'ipc'; write table.key=value"]),
    ("a.b.c=1", ["--set got 'a.b.c=1'; write table.key=value"]),
    ("seed.x=1", ["--set got 'seed.x=1', but seed is not a table"]),
]


@pytest.mark.parametrize(("change", "words"), REFUSED_CHANGES, ids=[c for c, _ in REFUSED_CHANGES])
def test_recipe_is_refused_in_one_line_before_anything_is_written(
    change, words, recipe, refused, out
):
    line = refused(2, "run", recipe, "--out", out, "--set", change)
    for word in words:
        assert word in line
    assert not out.exists()


@pytest.mark.parametrize("name", ["digitz", "missing.toml", "../digits"])
def test_unknown_recipe_is_refused(name, refused, out):
    line = refused(2, "run", name, "--out", out)
    assert name in line
    assert not out.exists()


def test_unknown_recipe_brings_a_suggestion(refused, out):
    assert "there is no recipe digit; did you mean digits?" in refused(
        2, "run", "digit", "--out", out
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed = = 1", "is not TOML"),
        ("", "data is missing"),
        (TINY.replace("[match]", "[matching]"), "unknown key matching; did you mean match?"),
        (MAKERLESS, "made by one of [match], [recover] and [select], but there is none of them"),
        (MAKERLESS + "[experts]\n[select]\nipc = 1\n", "[experts] and [match] go together"),
        (TINY + "[select]\nipc = 1\n", "but there is [match], [select]"),
        (MAKERLESS + "[match]\nipc = 1\n", "[experts] and [match] go together"),
        (TINY.replace("ipc = 1\n", ""), "match.ipc is missing"),
        (TINY.partition("[committee]")[0] + "[relabel]\n", "[relabel] needs teachers"),
        ("data = 3\nexperts = 4\nmatch = 5\nx = 6\ny = 7", "and 2 more"),
    ],
)
def test_file_that_is_no_recipe_is_refused(text, words, refused, tmp_path, out):
    path = write_recipe(tmp_path / "recipes", text)
    assert words in refused(2, "run", path, "--out", out)
    assert not out.exists()


def test_recipe_that_is_not_text_is_refused(refused, tmp_path, out):
    path = tmp_path / "raw.toml"
    path.write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in refused(2, "run", path, "--out", out)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rum"], ["there is no command rum; did you mean run?", "see `distill --help`"]),
        (["run", "digits"], ["Missing option '--out'", "see `distill run --help`"]),
        (["run"], ["Missing argument 'RECIPE'"]),
        (["run", "digits", "--out", "x", "--sed", "1"], ["No such option", "--se"]),
        (["run", "digits", "--out", "x", "--device", "tpu"], ["'tpu' is unknown; "]),
        (["run", "digits", "--out", "x", "--seed", "one"], ["'one' is not a valid integer"]),
        (["run", "digits", "--out", "x", "--stage", "cook"], ["'cook' is unknown; "]),
        (["evaluate", "x.h5", "--seeds", "0"], ["0 is not in the range"]),
        (["ls", "colours"], ["'colours' is unknown; "]),
        (["completion", "tcsh"], ["'tcsh' is unknown; "]),
        (["--frobnicate"], ["No such option"]),
    ],
)
def test_wrong_command_line_is_refused(arguments, words, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = refused(2, *arguments)
    for word in words:
        assert word in line
    assert not list(tmp_path.iterdir())


def test_command_alone_shows_its_help(command):
    outcome = command()
    assert outcome.code == 2
    assert "Usage: distill" in outcome.err


def test_out_that_is_a_file_is_refused(recipe, refused, out):
    out.write_text("mine")
    assert f"--out {out} is a file; name a folder" in refused(2, "run", recipe, "--out", out)
    assert out.read_text() == "mine"


def test_out_below_a_file_is_refused(recipe, refused, out):
    out.write_text("mine")
    line = refused(1, "run", recipe, "--out", out / "run")
    assert "cannot be written: Not a directory" in line


def test_out_with_foreign_files_is_refused(recipe, refused, out):
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    line = refused(2, "run", recipe, "--out", out)
    assert "holds files that are not a run's (thesis.txt); name a new or empty folder" in line
    assert set(contents(out)) == {"thesis.txt"}


def test_out_with_another_recipes_run_is_refused(run_copy, refused, tmp_path):
    before = contents(run_copy)
    other = write_recipe(tmp_path / "recipes", name="other")
    line = refused(2, "run", other, "--out", run_copy)
    assert "holds a run of recipe tiny, not other; to go on with what it has, add" in line
    assert "--set name=tiny, or name another folder" in line
    assert contents(run_copy) == before


@pytest.mark.parametrize("text", ["{", "[]", "3", '{"recipe": 1, "stages": 2}', "{}"])
def test_out_with_a_damaged_manifest_is_refused(text, recipe, refused, out):
    out.mkdir()
    (out / "manifest.json").write_text(text)
    assert "name another folder for --out" in refused(1, "run", recipe, "--out", out)
    assert set(contents(out)) == {"manifest.json"}


def test_out_that_another_process_uses_is_refused(run_copy, recipe, refused):
    before = contents(run_copy)
    with (run_copy / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        line = refused(1, "run", recipe, "--out", run_copy, "--set", "seed=5")
    assert "is in use by another process; wait for it" in line
    assert contents(run_copy) == before


def test_cuda_is_refused_where_there_is_none(recipe, refused, out, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    line = refused(1, "run", recipe, "--out", out, "--device", "cuda")
    assert "no CUDA device is at hand; use --device cpu or auto" in line
    assert not out.exists()


def test_stage_without_its_table_is_refused(refused, tmp_path, out):
    path = write_recipe(tmp_path / "recipes", TINY.partition("[committee]")[0])
    line = refused(1, "run", path, "--out", out, "--stage", "relabel")
    assert "stage relabel is not part of this recipe, which needs the tables" in line
    assert not out.exists()


def test_stage_before_its_inputs_is_refused(recipe, refused, out):
    line = refused(1, "match", recipe, "--out", out)
    assert "stage match needs the outputs of experts; run it first" in line
    assert outputs_of(out) == {}


def test_a_stage_that_is_left_out_is_missed_before_the_first_one_runs(recipe, refused, out):
    line = refused(1, "run", recipe, "--out", out, "--stage", "experts", "--stage", "evaluate")
    assert "stage evaluate needs the outputs of match; run it first" in line
    assert outputs_of(out) == {}


@pytest.mark.parametrize("source", ["npz:nowhere.npz", "folder:nowhere", "fashion-mnist:nowhere"])
def test_missing_data_are_refused(source, recipe, refused, out, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = refused(1, "run", recipe, "--out", out, "--set", f"data.source={source}")
    assert f"data {source}:" in line
    assert "nowhere" in line
    assert not out.exists()


def npz(path, *, pixel=0.5, label=0, names=("cat", "dog")):
    images = np.full((40, 8, 8), 0.5, dtype=np.float32)
    images[3, 2, 1] = pixel
    labels = np.arange(40) % 2
    labels[5] = label
    np.savez(path, images=images, labels=labels, class_names=np.array(names))
    return path


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        ({"pixel": np.nan}, "1 of 2560 pixels are NaN or infinite"),
        ({"pixel": 255.0}, "pixels from 0.5 to 255 came"),
        ({"label": 2}, "label 2 is out of range"),
        ({"label": -1}, "label -1 is out of range"),
        ({"names": ("cat", "dog", "emu")}, "class 'emu' has no"),
    ],
)
def test_wrong_data_are_refused(faults, words, recipe, refused, out, tmp_path):
    path = npz(tmp_path / "data.npz", **faults)
    line = refused(1, "run", recipe, "--out", out, "--set", f"data.source=npz:{path}")
    assert words in line
    assert not out.exists()


def test_images_per_class_may_be_all_that_a_class_has(recipe, command, tmp_path, out):
    path = npz(tmp_path / "data.npz")
    changes = [f"data.source=npz:{path}", "data.subset=20", "experts.count=1", "match.ipc=9"]
    arguments = [word for change in changes for word in ("--set", change)]
    outcome = command("experts", recipe, "--out", out, "--quiet", *arguments)
    assert outcome.code == 0, outcome.err
    assert read_json(out / "manifest.json")["recipe"]["match"]["ipc"] == 9


def test_committee_member_near_chance_is_refused(recipe, refused, out):
    changes = ("--set", "committee.epochs=1", "--set", "committee.lr=1e-9")
    line = refused(1, "run", recipe, "--out", out, "--stage", "committee", "--quiet", *changes)
    assert "committee member convnet2:width=8:norm=batch has held-out accuracy" in line
    assert "near the chance of 0.100; raise committee.epochs, choose another" in line
    assert not (out / "committee.h5").exists()
    assert outputs_of(out) == {}


def test_matching_that_diverges_ends_with_code_3_and_keeps_the_last_state(
    run_copy, recipe, refused
):
    before = contents(run_copy)
    changes = ("--set", "match.threshold=1e-9", "--set", "match.patience=3", "--quiet")
    arguments = ("match", recipe, "--out", run_copy, *changes)
    line = refused(3, *arguments)
    assert "match diverged at outer step 2: the parameter distance was" in line
    assert "lower match.image_lr or match.student_lr" in line
    after = contents(run_copy)
    assert after["set.h5"] == before["set.h5"]
    assert list((run_copy / "checkpoints").glob("match-*/state.safetensors"))
    # It goes on from the last state, and so diverges at the same step again.
    assert refused(3, *arguments) == line


@pytest.mark.parametrize(
    ("stage", "change"), [("experts", "experts.lr=1e30"), ("committee", "committee.lr=1e30")]
)
def test_training_that_diverges_ends_with_code_3(stage, change, recipe, refused, out):
    line = refused(3, "run", recipe, "--out", out, "--stage", stage, "--quiet", "--set", change)
    assert f"{stage} diverged: the training loss is" in line
    assert "lower the learning rate (1e+30)" in line
    assert not list(out.glob("*.h5"))


def test_student_that_diverges_ends_with_code_3(run_copy, refused):
    before = contents(run_copy)
    line = refused(3, "evaluate", write_lr(run_copy), "--labels", "hard", "--quiet", "--json")
    assert "evaluate diverged: the training loss is" in line
    assert {**contents(run_copy), "set.h5": ""} == {**before, "set.h5": ""}


def write_lr(run):
    """Let the set's recipe train its students far too fast."""
    from dataclasses import replace

    from distill.sets.set_file import read_set, write_set

    content = read_set(run / "set.h5")
    recipe = content.manifest["recipe"]
    recipe["evaluate"] = {**recipe["evaluate"], "lr": 1e30}
    write_set(run / "set.h5", replace(content, manifest={**content.manifest, "recipe": recipe}))
    return run


def test_debug_shows_the_traceback(recipe, command, out):
    outcome = command("run", recipe, "--out", out, "--set", "match.ipc=0", "--debug")
    assert outcome.code == 2
    assert "Traceback" in outcome.err
    assert outcome.err.splitlines()[-1].startswith("error: ")


def test_a_key_in_place_of_an_option_is_told(recipe, refused, out):
    line = refused(2, "run", recipe, "--out", out, "--inner-steps", "3")
    assert "no such option --inner-steps; write --set match.inner_steps=VALUE; see" in line
    line = refused(2, "run", recipe, "--out", out, "--ipc", "3")
    assert "write --set match.ipc=VALUE (match, recover, select" in line
    assert "No such option '--nothing'" in refused(2, "run", recipe, "--out", out, "--nothing")
    assert "No such option '--ipc'" in refused(2, "show", out, "--ipc")


def test_a_folder_in_place_of_a_recipe_is_told(refused, out, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    line = refused(2, "run", "photos", "--out", out)
    assert "photos is a folder, not a recipe" in line
    assert "--set data.source=folder:photos" in line


def test_a_missing_extra_is_found_before_the_first_stage(recipe, refused, out, monkeypatch):
    monkeypatch.setattr("distill.recipes.checks.find_spec", lambda module: None)
    for key, words in (
        ("relabel.aggregate=glad", "relabel.aggregate = glad needs crowd-kit, which is not"),
        ("projector.storage=int8", "projector.storage = int8 needs zstandard, which is not"),
    ):
        line = refused(1, "run", recipe, "--out", out, "--set", key)
        assert words in line
        assert "pip install 'limbeck[" in line
        assert not out.exists()


@pytest.mark.parametrize(
    ("tower", "words"),
    [
        ("ViT-B-32", "tower 'ViT-B-32' is not known; write glyphclip, config:NAME, open_clip"),
        ("config:tiny-vot", "no bundled tower 'tiny-vot'"),
        ("open_clip:ViT-B-32:laion", "neither a tag of ViT-B-32 nor a file (did you mean laion2b"),
        ("open_clip:ViT-B-32", "open_clip:ViT-B-32 names no weights"),
        ("open_clip:ViT-B-32:laion2b_s34b_b79k", "nothing is fetched unasked"),
        ("folder:nowhere", "nowhere"),
    ],
)
def test_a_tower_that_cannot_be_had_is_found_before_the_first_stage(
    tower, words, recipe, refused, out
):
    line = refused(1, "run", recipe, "--out", out, "--set", f"projector.tower={tower}")
    assert line.startswith("error: projector.tower: ")
    assert words in line
    assert not out.exists()


def test_a_finished_stage_needs_no_extra(monkeypatch):
    monkeypatch.setattr("distill.recipes.checks.find_spec", lambda module: None)
    recipe = load_recipe("digits-crowd", ["relabel.aggregate=glad"])
    assert len(missing_packages(recipe, ["relabel", "evaluate"])) == 1
    assert missing_packages(recipe, ["evaluate"]) == []
