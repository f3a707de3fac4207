"""Every format is loaded by the lines of its own card, outside our classes."""

import json
import re

import pytest
import torch

import projectors
from projectors.export import deployment
from projectors.export.card import model_card
from projectors.export.formats import (
    Exported,
    export_as_onnx,
    export_as_program,
    export_compact,
    export_merged,
    export_peft,
    write_about,
)


def card_of(projector, folder, exported, form):
    sizes = {str(p.relative_to(folder)): p.stat().st_size for p in folder.rglob("*") if p.is_file()}
    card = model_card(projector, exported, sizes, form=form, fidelity={}, licence="mit")
    (folder / "README.md").write_text(card)
    return card


def run_card(card, folder, images, monkeypatch):
    """Run a card's lines in its folder, with nothing at hand but `images`."""
    (lines,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    assert "projectors" not in lines
    names = {"images": images}
    monkeypatch.chdir(folder)
    with torch.no_grad():
        exec(lines, names)
    return torch.as_tensor(names["probabilities"])


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "exported"
    place.mkdir()
    return place


def test_a_peft_folder_is_loaded_by_the_six_lines_of_its_card(folder, stirred, images, monkeypatch):
    projector = stirred()
    exported = export_peft(projector, folder)
    card = card_of(projector, folder, exported, "peft")
    assert len(exported.lines) == 6
    found = run_card(card, folder, projector.prepare(images), monkeypatch)
    torch.testing.assert_close(found, projector(images).detach(), rtol=0, atol=1e-4)
    assert exported.gap < 1e-4
    assert exported.has_base


def test_merged_weights_are_loaded_by_open_clip_alone(folder, stirred, images, monkeypatch):
    projector = stirred("low-rank")
    exported = export_merged(projector, folder)
    card = card_of(projector, folder, exported, "merged")
    assert "peft" not in "".join(exported.lines)
    found = run_card(card, folder, projector.prepare(images), monkeypatch)
    torch.testing.assert_close(found, projector(images).detach(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("export", [export_as_onnx, export_as_program])
def test_a_program_runs_without_this_package(folder, stirred, images, export, monkeypatch):
    projector = stirred()
    exported = export(projector, folder)
    card = card_of(projector, folder, exported, "onnx")
    found = run_card(card, folder, images, monkeypatch)
    torch.testing.assert_close(found, projector(images).detach(), rtol=0, atol=1e-4)


def test_a_convolutional_projector_is_exported_with_its_ranks(folder, stirred, resnet, images):
    projector = stirred(on=resnet, init="random", ranks={"conv": 3})
    exported = export_peft(projector, folder, base=False)
    assert not exported.has_base
    assert not (folder / "base").exists()
    assert "fetch elsewhere" in card_of(projector, folder, exported, "peft")


@pytest.mark.parametrize("bits", [8, 4])
def test_a_compact_folder_gives_nearly_the_same_labels(folder, stirred, images, bits):
    projector = stirred()
    exported = export_compact(projector, folder, projectors.Storage(bits))
    loaded = projectors.load(folder)
    with torch.no_grad():
        gap = float((loaded(images) - projector(images)).abs().max())
    assert 0 < gap < {8: 0.05, 4: 0.5}[bits]
    assert exported.gap > 0


def test_an_export_that_gives_other_labels_is_refused(stirred):
    projector = stirred()
    with pytest.raises(projectors.ProjectorError, match="as a riddle gives probabilities"):
        deployment.check_export(projector, lambda x: projector(x) + 2e-4, "a riddle")


def test_a_probe_has_nothing_for_peft(folder, stirred):
    with pytest.raises(projectors.ProjectorError, match="no adapter for PEFT"):
        export_peft(stirred(rank=0), folder)


def test_the_card_names_bytes_base_classes_and_licence(folder, stirred):
    projector = stirred()
    exported = Exported(1e-6, ["pass"], "`images`", False)
    fidelity = {"the teacher": projectors.Fidelity(0.25, 0.5, 0.75), "nobody": None}
    card = model_card(
        projector, exported, {"a.bin": 1234}, form="peft", fidelity=fidelity, licence="mit"
    )
    assert card.startswith("---\nlicense: mit\n")
    for part in ("zero, one", "1,234", projector.tower.digest, "| the teacher | 0.25000 | 50.00 %"):
        assert part in card
    assert "nobody" not in card
    write_about(projector, folder, "mit")
    about = json.loads((folder / "about.json").read_text())
    assert about["classes"] == projector.classes
    assert about["licence"] == "mit"


def test_a_missing_package_for_onnx_is_named(folder, stirred, monkeypatch):
    monkeypatch.setattr(deployment, "_ONNX_PACKAGES", ("no_such_package",))
    with pytest.raises(projectors.ProjectorError, match=r"pip install 'limbeck\[onnx\]'"):
        export_as_onnx(stirred(), folder)
