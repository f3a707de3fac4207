import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import projectors
from projectors.files import storage
from projectors.files.description import read_description, unsealed
from tests.projectors.cases import DIGITS, GRAY, edit


def contents(folder):
    return {item.name: item.read_bytes() for item in sorted(folder.iterdir())}


@pytest.mark.parametrize(
    ("trained", "rank"), [("all", 2), ("scale", 2), ("nothing", 2), ("all", 0), ("nothing", 0)]
)
def test_a_saved_projector_gives_the_same_probabilities(tmp_path, stirred, images, trained, rank):
    projector = stirred(trained, rank)
    projectors.save(projector, tmp_path / "projector")
    loaded = projectors.load(tmp_path / "projector")
    assert torch.equal(loaded(images), projector(images))
    assert (loaded.classes, loaded.adapter) == (projector.classes, projector.adapter)
    assert not loaded.training


def test_saving_a_loaded_projector_gives_the_same_bytes(tmp_path, stirred):
    projectors.save(stirred(), tmp_path / "one")
    projectors.save(projectors.load(tmp_path / "one"), tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_convolutional_projector_survives_saving(tmp_path, resnet, stirred, images):
    projector = stirred(on=resnet, init="random")
    projectors.save(projector, tmp_path / "projector")
    assert torch.equal(projectors.load(tmp_path / "projector")(images), projector(images))


def fit_and_save(path):
    """A short fit from fixed seeds."""
    tower = projectors.load_tower("config:tiny-vit", 0)
    adapter = projectors.AdapterSettings(rank=2)
    projector = projectors.build_projector(tower, DIGITS, GRAY, adapter=adapter)
    images = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    settings = projectors.FitSettings(steps=2, batch_size=4)
    state = projectors.FitState(projector, settings, torch.Generator().manual_seed(0))
    hard = torch.arange(8)
    steps = projectors.fit_projector(state, images, lambda seen: seen.flatten(1)[:, :10], hard)
    assert len(list(steps)) == 2
    projectors.save(projector, path)


def test_the_same_seed_gives_the_same_bytes_in_another_process(tmp_path):
    fit_and_save(tmp_path / "here")
    script = (
        "import sys; from tests.projectors.files.test_storage import fit_and_save; "
        "fit_and_save(sys.argv[1])"
    )
    environment = {
        **os.environ,
        "PYTHONHASHSEED": "1",
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[3]), *sys.path]),
    }
    command = [sys.executable, "-c", script, str(tmp_path / "there")]
    subprocess.run(command, check=True, env=environment, timeout=600)
    assert contents(tmp_path / "here") == contents(tmp_path / "there")


def test_peft_itself_loads_the_adapter(tmp_path, tower, stirred):
    import copy

    import peft

    projector = stirred()
    projectors.save(projector, tmp_path / "projector")
    model = peft.PeftModel.from_pretrained(
        copy.deepcopy(tower.clip.visual), tmp_path / "projector"
    ).eval()
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(model(images), projector.visual(images))


@pytest.mark.parametrize(
    ("trained", "rank", "names"),
    [
        ("nothing", 0, set()),
        ("all", 0, {storage.HEAD}),
        ("nothing", 2, {storage.ADAPTER, storage.ADAPTER_CONFIG}),
    ],
)
def test_only_what_was_fitted_is_stored(tmp_path, stirred, trained, rank, names):
    projectors.save(stirred(trained, rank), tmp_path / "projector")
    assert set(contents(tmp_path / "projector")) == names | {storage.DESCRIPTION}


def test_a_projector_is_replaced_as_a_whole(tmp_path, stirred):
    projectors.save(stirred(), tmp_path / "projector")
    projectors.save(stirred("nothing", 0), tmp_path / "projector")
    assert set(contents(tmp_path / "projector")) == {storage.DESCRIPTION}
    assert [item.name for item in tmp_path.iterdir()] == ["projector"]


@pytest.mark.parametrize("broken", ["write_durably", "_publish"])
def test_a_save_that_fails_leaves_the_old_projector(tmp_path, stirred, monkeypatch, broken):
    projectors.save(stirred(), tmp_path / "projector")
    before = contents(tmp_path / "projector")

    def full(*args):
        raise OSError("no space left")

    monkeypatch.setattr(storage, broken, full)
    with pytest.raises(OSError, match="no space"):
        projectors.save(stirred("nothing", 0), tmp_path / "projector")
    assert contents(tmp_path / "projector") == before
    assert [item.name for item in tmp_path.iterdir()] == ["projector"]


def test_a_rename_that_fails_brings_the_old_projector_back(tmp_path, stirred):
    projectors.save(stirred(), tmp_path / "projector")
    before = contents(tmp_path / "projector")
    with pytest.raises(OSError, match="nowhere"):
        storage._publish(tmp_path / "nowhere", tmp_path / "projector")
    assert contents(tmp_path / "projector") == before


def test_a_save_that_was_killed_between_its_renames_is_named(tmp_path, stirred):
    projectors.save(stirred(), tmp_path / "projector")
    (tmp_path / "projector").rename(tmp_path / ".projector.previous")
    with pytest.raises(projectors.ProjectorError, match=r"rename .*\.projector\.previous"):
        projectors.load(tmp_path / "projector")


def test_a_folder_that_is_no_projector_is_not_replaced(tmp_path, stirred):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(projectors.ProjectorError, match="is no projector"):
        projectors.save(stirred("nothing", 0), tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def cut(folder, name):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])


def cut_and_sign(folder):
    """A truncated file whose digest is right: the parser has to refuse it."""
    import hashlib

    cut(folder, storage.ADAPTER)
    digest = hashlib.sha256((folder / storage.ADAPTER).read_bytes()).hexdigest()
    edit(folder, lambda document: document["files"].update({storage.ADAPTER: digest}))


DAMAGE = {
    "no description": (lambda f: (f / storage.DESCRIPTION).unlink(), "holds no projector.json"),
    "empty description": (lambda f: (f / storage.DESCRIPTION).write_text(""), "no description"),
    "a list": (lambda f: (f / storage.DESCRIPTION).write_text("[]"), "no description"),
    "binary": (lambda f: (f / storage.DESCRIPTION).write_bytes(b"\xff\xfe"), "no description"),
    "other format": (lambda f: edit(f, lambda d: d.update(format="x")), "its format is 'x'"),
    "no tower": (lambda f: edit(f, lambda d: d.pop("tower")), "no 'tower'"),
    "rank of null": (lambda f: edit(f, lambda d: d["adapter"].update(rank=None)), "int"),
    "way out": (lambda f: edit(f, lambda d: d["files"].update({"../x": "0"})), "leads out"),
    "other seed": (lambda f: edit(f, lambda d: d["tower"].update(seed=1)), "same weights"),
    "no such tower": (lambda f: edit(f, lambda d: d["tower"].update(spec="folder:x")), "tower=..."),
    "fewer classes": (lambda f: edit(f, lambda d: d["classes"].pop()), "do not belong together"),
    "same class": (lambda f: edit(f, lambda d: d["classes"].append("one")), "each once"),
    "other rank": (lambda f: edit(f, lambda d: d["adapter"].update(rank=3)), "belong together"),
    "cut adapter": (lambda f: cut(f, storage.ADAPTER), "damaged or foreign"),
    "cut adapter, signed": (cut_and_sign, "damaged or foreign"),
    "cut head": (lambda f: cut(f, storage.HEAD), "damaged or foreign"),
    "no head": (lambda f: (f / storage.HEAD).unlink(), "is missing"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_projector_is_refused_in_one_line(tmp_path, stirred, damage):
    break_it, message = DAMAGE[damage]
    projectors.save(stirred(), tmp_path / "projector")
    break_it(tmp_path / "projector")
    with pytest.raises(projectors.ProjectorError, match=message) as caught:
        projectors.load(tmp_path / "projector")
    assert "\n" not in str(caught.value)


def test_a_tower_can_be_given_but_must_be_the_same(tmp_path, tower, resnet, stirred, images):
    projector = stirred()
    projectors.save(projector, tmp_path / "projector")
    loaded = projectors.load(tmp_path / "projector", tower=tower)
    assert torch.equal(loaded(images), projector(images))
    with pytest.raises(projectors.ProjectorError, match="fetch the same weights"):
        projectors.load(tmp_path / "projector", tower=resnet)


def test_every_flipped_bit_of_a_description_is_noticed(tmp_path, stirred):
    projectors.save(stirred(), tmp_path / "projector")
    path = tmp_path / "projector" / storage.DESCRIPTION
    raw = path.read_bytes()
    known = read_description(path.parent)
    for place in range(len(raw)):
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
        # Blanks between the values may differ, and so may the name of the digest.
        with contextlib.suppress(projectors.ProjectorError):
            assert read_description(path.parent) == known


def test_a_description_from_before_it_held_a_digest_is_read(tmp_path, stirred):
    projectors.save(stirred(), tmp_path / "projector")
    path = tmp_path / "projector" / storage.DESCRIPTION
    known, text = read_description(path.parent), path.read_text("utf-8")
    path.write_text(unsealed(text), "utf-8")
    assert path.read_bytes() != text.encode()
    assert read_description(path.parent) == known


def test_shipped_bytes_are_those_of_the_folder(tmp_path, stirred):
    projectors.save(stirred(), tmp_path / "projector")
    (tmp_path / "projector" / "notes.txt").write_text("not read by anyone")
    total = sum(len(content) for content in contents(tmp_path / "projector").values())
    counted = projectors.projector_bytes(tmp_path / "projector")
    assert counted == projectors.ProjectorBytes(shipped=total - 18, external=0)


def test_external_bytes_are_those_of_the_tower(tmp_path, resnet, resnet_folder, stirred):
    projectors.save(stirred(on=resnet, init="random"), tmp_path / "projector")
    external = projectors.projector_bytes(tmp_path / "projector").external
    weights = (resnet_folder / "open_clip_model.safetensors").stat().st_size
    assert 0 < weights - external < 0.1 * weights


def test_ranks_by_kind_and_a_low_rank_head_survive_saving(tmp_path, stirred, images):
    projector = stirred("low-rank", rank=2, ranks={"attention": 3}, head_rank=4)
    projectors.save(projector, tmp_path / "projector")
    loaded = projectors.load(tmp_path / "projector")
    assert torch.equal(loaded(images), projector(images))
    config = json.loads((tmp_path / "projector" / storage.ADAPTER_CONFIG).read_text())
    assert config["r"] == 3
    assert set(config["rank_pattern"].values()) == {2}


def test_peft_reads_the_ranks_of_the_kinds(tmp_path, tower, stirred):
    import copy

    import peft

    projector = stirred(ranks={"attention": 3})
    projectors.save(projector, tmp_path / "projector")
    base = copy.deepcopy(tower.clip.visual)
    model = peft.PeftModel.from_pretrained(base, tmp_path / "projector").eval()
    pictures = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(model(pictures), projector.visual(pictures))


def test_a_projector_of_other_classes_is_refused(tmp_path, stirred):
    projectors.save(stirred(), tmp_path / "projector")
    assert projectors.load(tmp_path / "projector", classes=DIGITS)
    for classes, message in (
        ([*DIGITS[:9], "ten"], "differ are 'ten' and 'nine'"),
        (DIGITS[::-1], "not the same in the same order"),
        (DIGITS[:4], "labels 10 classes, but the data have 4"),
    ):
        with pytest.raises(projectors.ProjectorError, match=message) as caught:
            projectors.load(tmp_path / "projector", classes=classes)
        assert "\n" not in str(caught.value)
        assert "fetch the projector of these data" in str(caught.value)


def test_a_tower_with_another_preprocessing_is_refused(tmp_path, tower, stirred):
    from dataclasses import replace

    projectors.save(stirred(), tmp_path / "projector")
    with pytest.raises(projectors.ProjectorError, match=r"whose mean is .*fetch its open_clip"):
        projectors.load(tmp_path / "projector", tower=replace(tower, mean=(0.1, 0.2, 0.3)))


def test_a_missing_tower_is_named_with_its_digest(tmp_path, resnet, stirred):
    projectors.save(stirred(on=resnet, init="random"), tmp_path / "projector")
    edit(tmp_path / "projector", lambda d: d["tower"].update(spec="folder:gone"))
    with pytest.raises(projectors.ProjectorError, match=resnet.digest[:12]) as caught:
        projectors.load(tmp_path / "projector")
    assert "fetch it" in str(caught.value)


def test_what_was_measured_is_in_the_description(tmp_path, stirred):
    from projectors.files.description import read_description

    measured = projectors.Fidelity(0.1, 0.9, 0.8)
    projectors.save(stirred(), tmp_path / "projector", fidelity=measured)
    assert read_description(tmp_path / "projector").fidelity == measured
