"""The stages project and refine, and exports of what they made."""

import json
from dataclasses import replace

import pytest
import torch

import distill
import projectors
from distill.errors import RecipeError
from distill.recipes.build import generator_for
from distill.recipes.checks import check_names
from distill.recipes.loading import load_recipe
from distill.recipes.tables.projector import ProjectorTable
from distill.sets.set_file import read_set
from distill.store.seals import sealed
from tests.distill.cases import TINY, outputs_of, read_json, write_recipe

PROJECT = ("--stage", "project", "--quiet")


def project(command, recipe, run, *changes):
    pairs = [part for change in changes for part in ("--set", f"projector.{change}")]
    outcome = command("run", recipe, "--out", run, *pairs, *PROJECT)
    assert outcome.code == 0, outcome.err
    return projectors.load(run / "projector"), read_json(run / "projector" / "projector.json")


def test_a_projector_is_saved_with_its_held_out_fidelity(finished):
    found = read_json(finished / "projector" / "projector.json")
    rows = [
        row
        for line in (finished / "metrics.jsonl").read_text().splitlines()
        if (row := json.loads(line))["stage"] == "project" and "kl" in row
    ]
    assert found["fidelity"] == {name: rows[-1][name] for name in ("kl", "agreement", "accuracy")}
    assert rows[-1]["step"] == 5


def test_a_fit_is_compared_with_the_nearest_class_mean(finished):
    rows = map(json.loads, (finished / "metrics.jsonl").read_text().splitlines())
    (row,) = (row for row in rows if row["stage"] == "project" and "nearest_mean" in row)
    fidelity = read_json(finished / "projector" / "projector.json")["fidelity"]
    assert row["held_out_agreement"] == fidelity["agreement"]
    # Digits are near the mean of their class.
    assert 0.5 < row["nearest_mean"] <= 1
    noted = "nearest class mean of their pixels" in (finished / "report.html").read_text("utf-8")
    assert noted is (row["held_out_agreement"] <= row["nearest_mean"])


def test_every_key_of_a_projector_reaches_it(run_copy, recipe, command):
    loaded, found = project(
        command,
        recipe,
        run_copy,
        "teacher=experts:1",
        "ranks={attention=3, head=4}",
        "trained=low-rank",
        "storage=int4",
        "coder=constriction",
        "check_every=2",
        "stop_on=accuracy",
        "patience=1",
        "augmentation=flip",
    )
    assert found["adapter"]["ranks"] == {"attention": 3}
    assert (found["head"]["trained"], found["head"]["rank"]) == ("low-rank", 4)
    assert found["storage"] == {"bits": 4, "coder": "constriction"}
    assert set(found["files"]) == {"fitted.bin"}
    assert loaded.head.up.shape == (10, 4)
    assert "experts" in outputs_of(run_copy)


def test_a_weak_teacher_teaches_otherwise(run_copy, recipe, command):
    first, _ = project(command, recipe, run_copy, "teacher=experts:1")
    second, _ = project(command, recipe, run_copy, "teacher=experts:3")
    assert not torch.equal(first.head.weight, second.head.weight)


def test_a_rank_of_zero_is_a_linear_probe(run_copy, recipe, command):
    _, found = project(command, recipe, run_copy, "rank=0")
    assert found["adapter"]["targets"] == []
    assert set(found["files"]) == {"head.safetensors"}


def test_patience_ends_the_fit_and_the_best_is_kept(run_copy, recipe, command):
    project(
        command, recipe, run_copy, "steps=400", "check_every=1", "patience=2", "lr=5.0",
        "stop_on=kl",
    )  # fmt: skip
    rows = [json.loads(line) for line in (run_copy / "metrics.jsonl").read_text().splitlines()]
    checks = [row["kl"] for row in rows if row["stage"] == "project" and "kl" in row]
    assert len(checks) < 400
    kept = read_json(run_copy / "projector" / "projector.json")["fidelity"]["kl"]
    assert kept == pytest.approx(min(checks), rel=1e-5)
    assert min(checks) == checks[-3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("projector.teacher=experts:9", r"experts:EPOCH with an epoch that is kept \(0, 1, 2, 3\)"),
        ("projector.teacher=nobody", "write committee, one of its members"),
        ("projector.ranks={head=2}", "trained = "),
        ("projector.ranks={attn=2}", "attn"),
    ],
)
def test_keys_that_make_no_sense_are_refused(recipe, change, message):
    with pytest.raises(RecipeError, match=message):
        check_names(load_recipe(str(recipe), [change]))


def test_the_views_are_those_of_the_students_unless_others_are_named():
    from distill.recipes.build import student_view

    images = torch.rand(4, 1, 8, 8, generator=generator_for(0, "images"))
    recipe = load_recipe("digits")
    borrowed = student_view(recipe)
    named = student_view(
        recipe.model_copy(update={"projector": ProjectorTable(augmentation="crop_scale_rotate")})
    )
    pair = [view(images, generator_for(0)) for view in (borrowed, named)]
    assert torch.equal(*pair)
    assert not torch.equal(pair[0], images)
    none = recipe.model_copy(update={"projector": ProjectorTable(augmentation="none")})
    assert student_view(none) is None


REFINED = TINY + '\n[refine]\ntower = "config:tiny-vit"\nsteps = 3\nlr = 0.02\n'


def test_refined_images_are_what_students_see(run_copy, recipe, command, tmp_path):
    refining = write_recipe(tmp_path / "refined", REFINED)
    before = read_set(run_copy / "set.h5")
    outcome = command("refine", refining, "--out", run_copy, "--quiet")
    assert outcome.code == 0, outcome.err
    after = read_set(run_copy / "set.h5")
    assert torch.equal(after.images, before.images)
    assert torch.equal(after.seen_images, after.refined)
    assert 0 < float((after.refined - after.images).abs().max()) <= 3 * 0.02 * 1.1
    assert after.votes is None
    assert torch.equal(distill.load(run_copy / "set.h5").images, after.refined)
    # Another stage of the same recipe starts from the refined images, and leaves them there.
    assert command("relabel", refining, "--out", run_copy, "--quiet").code == 0
    relabelled = read_set(run_copy / "set.h5")
    assert torch.equal(relabelled.refined, after.refined)
    assert not torch.equal(relabelled.votes.logits, before.votes.logits)
    assert command("verify", run_copy).code == 0
    # Without the table the set has its own images again, and what hung on the others is made anew.
    assert command("relabel", recipe, "--out", run_copy, "--quiet").code == 0
    restored = read_set(run_copy / "set.h5")
    assert restored.refined is None
    assert torch.equal(restored.votes.logits, before.votes.logits)
    assert "refine" not in outputs_of(run_copy)


def test_a_refinement_that_diverges_leaves_the_set_alone(run_copy, refused, tmp_path, monkeypatch):
    def diverge(images, *others, **settings):
        images.fill_(torch.nan)
        raise projectors.DivergedError("the loss became nan at step 0; lower lr", 0)

    monkeypatch.setattr(projectors, "refine_images", diverge)
    before = (run_copy / "set.h5").read_bytes()
    refining = write_recipe(tmp_path / "refined", REFINED)
    line = refused(3, "refine", refining, "--out", run_copy, "--quiet")
    assert "lower lr" in line
    assert (run_copy / "set.h5").read_bytes() == before


def test_a_projector_of_other_classes_labels_nothing(run_copy, refused):
    path = run_copy / "projector" / "projector.json"
    found = read_json(path)
    found["classes"][0] = "nil"
    path.write_text(json.dumps(sealed(found)), encoding="utf-8")
    line = refused(1, "evaluate", run_copy / "set.h5", "--quiet")
    assert "fetch the projector of these data" in line
    assert "'nil'" in line


def test_a_projector_on_another_base_labels_nothing(run_copy, refused):
    path = run_copy / "projector" / "projector.json"
    found = read_json(path)
    found["tower"]["digest"] = "0" * 64
    path.write_text(json.dumps(sealed(found)), encoding="utf-8")
    line = refused(1, "evaluate", run_copy / "set.h5", "--quiet")
    assert "fetch the same weights as 'config:tiny-vit' (SHA-256 of its tensors 0000" in line


def export(command, path, out, *words):
    return command("export", "projector", path, "--out", out, *words)


def test_export_writes_a_folder_with_its_card(finished, command, tmp_path):
    out = tmp_path / "exported"
    outcome = export(command, finished, out, "--format", "merged", "--licence", "cc0-1.0", "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert found["format"] == "merged"
    files = {str(p.relative_to(out)): p.stat().st_size for p in out.rglob("*") if p.is_file()}
    assert files.pop("README.md")
    assert found["files"] == files
    assert found["bytes"] == sum(files.values())
    assert found["largest difference"] < 1e-4
    card = (out / "README.md").read_text()
    assert card.startswith("---\nlicense: cc0-1.0\n")
    assert "the teacher, when it was fitted" in card
    assert str(tmp_path) not in card
    assert [item.name for item in tmp_path.iterdir()] == ["exported"]


@pytest.mark.parametrize("bits", [8, 4])
def test_a_compact_export_prints_its_fidelity(finished, command, tmp_path, bits):
    out = tmp_path / "small"
    outcome = export(command, finished, out, "--format", "compact", "--bits", str(bits))
    assert outcome.code == 0, outcome.err
    assert "against the projector before the round trip: KL 0.0" in outcome.out
    small = sum(path.stat().st_size for path in out.iterdir() if path.name != "README.md")
    whole = sum(path.stat().st_size for path in (finished / "projector").iterdir())
    assert small < whole / 2
    projectors.load(out)


def test_a_compact_export_outside_a_run_needs_images(finished, command, refused, tmp_path):
    projectors.save(projectors.load(finished / "projector"), tmp_path / "alone")
    words = ("--format", "compact", "--out", tmp_path / "small")
    line = refused(1, "export", "projector", tmp_path / "alone", *words)
    assert "give --images SET.h5" in line
    given = (*words, "--images", finished / "set.h5")
    assert command("export", "projector", tmp_path / "alone", *given).code == 0


def test_an_export_replaces_nothing(finished, refused, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    line = refused(1, "export", "projector", finished, "--format", "merged", "--out", tmp_path)
    assert "is not empty; name a new folder" in line
    assert [item.name for item in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_export_of_something_else_is_refused(refused, tmp_path):
    line = refused(1, "export", "projector", tmp_path, "--format", "peft", "--out", tmp_path / "x")
    assert "holds no projector.json" in line


def test_refined_images_that_do_not_fit_are_refused(finished, tmp_path):
    from distill.errors import WorkError
    from distill.sets.set_file import write_set

    content = read_set(finished / "set.h5")
    write_set(tmp_path / "set.h5", replace(content, refined=content.images[:2]))
    with pytest.raises(WorkError, match="unlike the images"):
        read_set(tmp_path / "set.h5")
