"""Sets in the layouts of other programs: each fixture in, each format out and back."""

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

import distill
from distill.commands import export_set, import_set
from distill.data import fit_preprocess, fit_zca, load_data
from distill.sets.exchange.card import data_card
from distill.sets.exchange.export_pictures import ordered_folders
from distill.sets.exchange.import_layouts import import_datm, import_dc
from distill.sets.set_file import read_set, write_set
from distill.store.content_digests import digest_content
from distill.store.seals import unsealed
from tests.distill.cases import contents

FIXTURES = Path(__file__).resolve().parents[3] / "fixtures" / "exchange"
PIXELS = torch.from_numpy(np.load(FIXTURES / "images.npy"))
STUDENT = "convnet1:width=4"


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Real images of two classes, as a source."""
    path = tmp_path_factory.mktemp("real") / "real.npz"
    images = np.random.default_rng(1).integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
    images[::2] //= 2
    labels = np.arange(60) % 2
    np.savez(path, images=images, labels=labels, class_names=np.array(["cat", "dog"]))
    return f"npz:{path}"


@pytest.fixture
def bring(command, tmp_path):
    """Import a fixture; returns the set."""

    def call(layout, name, *options):
        out = tmp_path / "set.h5"
        outcome = command("import", FIXTURES / name, "--from", layout, "--out", out, *options)
        assert outcome.code == 0, outcome.err
        assert outcome.out == f"{out}\n"
        return read_set(out)

    return call


def test_commands_offer_every_layout_and_format():
    offered = {
        option.name: set(option.type.choices)
        for command in (import_set.import_set, export_set.export_set)
        for option in command.params
        if option.name in ("layout", "form")
    }
    own = {"npz", "safetensors", "torch"}
    others = {"mtt", "dc", "datm", "idc", "rded", "folder", "buffers", "hub"}
    assert offered == {
        "layout": own | others,
        "form": own | {"imagefolder", "hf", "parquet", "ddranking", "avalanche"},
    }


CASES = [
    ("mtt", "mtt", ("--statistics", "cifar10")),
    ("mtt", "mtt-zca", ()),
    ("dc", "dc/res_DC_CIFAR10_ConvNet_2ipc.pt", ("--statistics", "cifar10")),
    ("datm", "datm", ("--space", "normalised", "--statistics", "cifar10")),
    ("idc", "idc", ()),
    ("rded", "rded", ()),
    ("npz", "npz/set.npz", ()),
    ("npz", "npz-soft/set.npz", ("--statistics", "cifar10")),
    ("folder", "folder", ()),
]


@pytest.mark.parametrize(("layout", "name", "options"), CASES, ids=[case[1] for case in CASES])
def test_every_layout_gives_the_same_pixels_and_classes(layout, name, options, bring):
    content = bring(layout, name, *options)
    torch.testing.assert_close(content.preprocess.inverse(content.images), PIXELS)
    assert content.hard.tolist() == [0, 0, 1, 1]
    expected = ["cat", "dog"] if layout == "folder" else ["0", "1"]
    assert content.manifest["class_names"] == expected
    assert content.manifest["source"]["imported"]["layout"] == layout


def test_datm_brings_its_labels_and_learning_rate(bring):
    content = bring("datm", "datm", "--space", "normalised", "--statistics", "cifar10")
    assert content.learned[0].tolist() == [4.0, 0.0]
    assert content.manifest["student_lr"] == pytest.approx(0.03)
    assert import_datm(FIXTURES / "datm").space == "zca"


def test_soft_labels_of_an_npz_are_probabilities(bring):
    learned = bring("npz", "npz-soft/set.npz", "--statistics", "cifar10").learned
    expected = torch.softmax(torch.tensor([[4.0, 0.0], [3, 1], [0.5, 2], [-1, 1]]), 1)
    torch.testing.assert_close(learned.softmax(1), expected)


def test_idc_keeps_its_factor(bring):
    content = bring("idc", "idc", "--factor", "2")
    assert content.seen_images.shape == (16, 3, 8, 8)
    assert content.seen_hard.tolist() == [0] * 8 + [1] * 8


def test_with_real_data_a_set_comes_into_their_space_and_is_judged(bring, real, command, tmp_path):
    content = bring("mtt", "mtt", "--statistics", "cifar10", "--data", real, "--network", STUDENT)
    data = load_data(real)
    expected = fit_preprocess(data.train.images)(PIXELS)
    torch.testing.assert_close(content.images, expected)
    assert content.manifest["class_names"] == ["cat", "dog"]
    quick = ("--epochs", "2", "--whole-epochs", "1", "--seeds", "2", "--quiet", "--json")
    out = tmp_path / "set.h5"
    outcome = command("evaluate", out, *quick, "--record")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert set(found["students"]) == {STUDENT}
    assert read_set(out).measured == {k: v for k, v in found.items() if k != "confusion"}


def test_whitened_images_are_unwhitened_by_the_real_data(bring, real, tmp_path):
    data = load_data(real)
    whole = fit_zca(torch.cat([data.train.images, data.validation.images]))
    for name in ("labels", "lr"):
        (tmp_path / f"{name}_best.pt").write_bytes((FIXTURES / f"datm/{name}_best.pt").read_bytes())
    torch.save(whole(PIXELS), tmp_path / "images_best.pt")
    content = bring("datm", tmp_path, "--data", real)
    assert content.whitening is not None
    torch.testing.assert_close(
        content.preprocess.inverse(content.images), PIXELS, atol=1e-4, rtol=0
    )
    assert content.manifest["recipe"]["data"]["zca"] is True


def test_folders_are_matched_to_the_classes_by_name(bring, real, tmp_path):
    for name, other in (("cat", "dog"), ("dog", "cat")):
        (tmp_path / "swapped" / f"{'01'[name == 'cat']}-{other}").mkdir(parents=True)
        for path in (FIXTURES / "folder" / other).iterdir():
            copy = tmp_path / "swapped" / f"{'01'[name == 'cat']}-{other}" / path.name
            copy.write_bytes(path.read_bytes())
    content = bring("folder", tmp_path / "swapped", "--data", real)
    pixels = content.preprocess.inverse(content.images)
    torch.testing.assert_close(pixels, PIXELS, atol=1e-6, rtol=1e-4)


REFUSED = [
    (1, ("mtt", "folder"), "holds no images_best.pt"),
    (1, ("dc", "mtt/images_best.pt"), "holds no .*data"),
    (1, ("idc", "objects"), "a file that needs code to be run is never loaded"),
    (1, ("npz", "objects/set.npz"), "cannot be read as plain arrays"),
    (1, ("safetensors", "npz/set.npz"), "cannot be read as safetensors"),
    (1, ("torch", "datm/images_best.pt"), "holds no dict of images and labels, but Tensor"),
    (1, ("mtt", "nowhere"), "is not there"),
    (1, ("npz", "npz/set.npz", "--class-names", "one"), "2 classes, but there are 1 class names"),
    (2, ("datm", "datm"), "whitened, which only the real data can undo; add --data"),
    (2, ("mtt", "mtt"), "give --statistics, one of data, mnist"),
    (2, ("mtt", "mtt", "--statistics", "cifar"), "did you mean cifar10"),
    (2, ("mtt", "mtt", "--statistics", "mnist"), "are for 1 channels, the images have 3"),
]


@pytest.mark.parametrize(("code", "arguments", "words"), REFUSED)
def test_what_cannot_be_imported_is_refused_in_one_line(code, arguments, words, refused, tmp_path):
    layout, name, *options = arguments
    out = tmp_path / "set.h5"
    line = refused(code, "import", FIXTURES / name, "--from", layout, "--out", out, *options)
    assert re.search(words, line), line
    assert not contents(tmp_path)


def test_import_never_replaces_a_file_and_evaluate_wants_the_data(bring, refused, tmp_path):
    bring("idc", "idc")
    out = tmp_path / "set.h5"
    line = refused(1, "import", FIXTURES / "idc", "--from", "idc", "--out", out)
    assert "set.h5 exists" in line
    assert "import it again with --data" in refused(1, "evaluate", out)


def test_last_experiment_of_dc_counts():
    assert import_dc(FIXTURES / "dc" / "res_DC_CIFAR10_ConvNet_2ipc.pt").images.std() > 0.5


@pytest.fixture(scope="module")
def digests(finished):
    return digest_content(finished / "set.h5", "set", ("images", "hard", "labels"), True)


@pytest.mark.parametrize("form", ["safetensors", "npz", "torch"])
def test_whole_set_travels_and_comes_back(form, finished, digests, command, tmp_path):
    outcome = command(
        "export", "set", finished, "--format", form, "--out", tmp_path / "out", "--json"
    )
    assert outcome.code == 0, outcome.err
    assert set(json.loads(outcome.out)["files"]) == set(contents(tmp_path / "out"))
    back = tmp_path / "back.h5"
    for source in (tmp_path / "out", next((tmp_path / "out").glob("set.*"))):
        back.unlink(missing_ok=True)
        outcome = command("import", source, "--from", form, "--out", back)
        assert outcome.code == 0, outcome.err
    assert digest_content(back, "set", ("images", "hard", "labels"), True) == digests
    assert read_set(back).measured == read_set(finished / "set.h5").measured


@pytest.mark.parametrize(
    ("seal", "words"),
    [("kept", "it is not as it was exported"), ("left out", "9 hard labels for 10 images")],
)
def test_damaged_export_is_refused_and_leaves_nothing(
    seal, words, finished, command, refused, tmp_path
):
    out = tmp_path / "out"
    assert command("export", "set", finished, "--format", "npz", "--out", out).code == 0
    arrays = dict(np.load(out / "set.npz", allow_pickle=False))
    arrays["hard"] = arrays["hard"][:-1]
    if seal == "left out":
        # As an older program exported it.
        arrays["limbeck"] = np.array(json.dumps(unsealed(json.loads(str(arrays["limbeck"])))))
    np.savez(out / "set.npz", **arrays)
    line = refused(1, "import", out, "--from", "npz", "--out", tmp_path / "new" / "back.h5")
    assert words in line
    assert os.listdir(tmp_path) == ["out"]


def test_any_flipped_bit_of_an_export_is_noticed(finished, command, refused, tmp_path):
    out = tmp_path / "out"
    assert command("export", "set", finished, "--format", "safetensors", "--out", out).code == 0
    path, back = out / "set.safetensors", tmp_path / "back.h5"
    whole = path.read_bytes()
    for place in range(8, len(whole), len(whole) // 40):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        refused(1, "import", out, "--from", "safetensors", "--out", back)
    path.write_bytes(whole)
    assert command("import", out, "--from", "safetensors", "--out", back).code == 0


def test_zca_set_travels_with_its_matrices(bring, real, command, tmp_path):
    data = load_data(real)
    folder = tmp_path / "whitened"
    shutil.copytree(FIXTURES / "mtt", folder)
    torch.save(fit_zca(data.train.images)(PIXELS), folder / "images_best.pt")
    content = bring("mtt", folder, "--space", "zca", "--data", real)
    out = tmp_path / "out"
    assert command("export", "set", tmp_path / "set.h5", "--format", "npz", "--out", out).code == 0
    assert command("import", out, "--from", "npz", "--out", tmp_path / "back.h5").code == 0
    back = read_set(tmp_path / "back.h5")
    assert torch.equal(back.whitening.inverse, content.whitening.inverse)
    assert "ZCA-whitened" in (out / "README.md").read_text()


def test_pictures_come_back_to_within_a_gray_value(finished, command, tmp_path):
    out = tmp_path / "out"
    command("export", "set", finished, "--format", "imagefolder", "--out", out)
    outcome = command(
        "import", out, "--from", "folder", "--out", tmp_path / "back.h5",
        "--data", "digits", "--size", "8",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    first, back = distill.load(finished), distill.load(tmp_path / "back.h5")
    pixels = first.preprocess.inverse(first.images).clamp(0, 1)
    near = back.preprocess.inverse(back.images)
    assert float((pixels - near).abs().max()) <= 0.5 / 255 + 1e-5
    assert torch.equal(first.hard, back.hard)
    assert back.manifest["class_names"] == first.manifest["class_names"]


@pytest.mark.parametrize("names", ["abcdefghij", "badcefghij"], ids=["sorted", "unsorted"])
def test_pictures_open_as_an_image_folder_with_soft_labels_beside(
    names, finished, command, tmp_path
):
    path, out = tmp_path / "set.h5", tmp_path / "out"
    content, names = read_set(finished / "set.h5"), [f"class {letter}" for letter in names]
    write_set(path, replace(content, manifest={**content.manifest, "class_names": names}))
    outcome = command("export", "set", path, "--format", "imagefolder", "--out", out)
    assert outcome.code == 0, outcome.err
    folder = torchvision.datasets.ImageFolder(out)
    shown = [name.partition("-")[2] or name for name in folder.classes]
    assert shown == names
    assert (folder.classes == names) == (names == sorted(names))
    assert folder.targets == content.seen_hard.tolist()
    soft = np.load(out / "labels.npy", allow_pickle=False)
    np.testing.assert_allclose(soft, distill.load(path).labels.numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("names", "kept"),
    [
        (["cat", "dog"], True),
        (["Cat", "cat"], False),
        (["dog", "cat"], False),
        (["a/b", "c"], False),
        ([".cat", "dog"], False),
        (["README.md", "cat"], False),
        (["cat", "croissant.json"], False),
        (["", "cat"], False),
        (["10", "9"], True),
    ],
)
def test_folders_of_classes_keep_names_that_sort_as_the_classes_do(names, kept):
    folders = ordered_folders(names)
    assert (folders == names) == kept
    assert folders == sorted(folders)
    assert len({folder.casefold() for folder in folders}) == len(names)


@pytest.mark.parametrize("form", ["safetensors", "npz", "torch", "imagefolder", "hf"])
def test_lines_of_the_card_train_a_student_as_it_was_measured(
    form, finished, command, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    command("export", "set", finished, "--format", form, "--out", out)
    blocks = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.S)
    assert len(blocks) == 2
    monkeypatch.chdir(out)
    if form == "hf":
        # Its lines on loading need the package `datasets`; those on training do not.
        blocks[0] = ""
    scope: dict = {}
    exec("\n".join(blocks), scope)
    stated = read_set(finished / "set.h5").measured["protocol"]
    lines = blocks[1]
    source = "learned" if "labels/learned" in lines or "soft" in lines else "hard"
    assert f"range({stated[source]['epochs']})" in lines
    assert f"lr={stated[source]['lr']:.6g}" in lines
    assert stated[source]["views"] in lines
    assert tuple(scope["images"].shape) == (10, 1, 8, 8)
    data = distill.load(finished)
    wanted = data.images
    if form == "imagefolder":
        wanted = data.preprocess(data.preprocess.inverse(wanted).clamp(0, 1))
    torch.testing.assert_close(scope["images"], wanted, atol=0.02, rtol=0)
    weights = torch.cat([part.flatten() for part in scope["network"].parameters()])
    assert bool(weights.isfinite().all())


def test_hf_repository_has_pictures_labels_and_exact_tensors(finished, command, tmp_path):
    out = tmp_path / "out"
    command("export", "set", finished, "--format", "hf", "--out", out, "--license", "cc-by-4.0")
    rows = (out / "train" / "metadata.csv").read_text().splitlines()
    assert rows[0] == "file_name,class,class_name,soft_label"
    data = distill.load(finished)
    assert len(rows) == 1 + len(data)
    soft = json.loads(rows[1].split(',"')[1].rstrip('"'))
    assert soft == pytest.approx(data.labels[0].tolist(), abs=1e-6)
    assert (out / "train" / rows[1].split(",")[0]).is_file()
    card = (out / "README.md").read_text()
    assert card.startswith('---\nlicense: "cc-by-4.0"\n')
    assert (out / "set.safetensors").is_file()


@pytest.mark.parametrize("form", ["safetensors", "npz", "imagefolder", "torch", "hf"])
def test_code_of_the_card_runs(form, finished, command, tmp_path, monkeypatch):
    if form == "hf":
        pytest.importorskip("datasets", reason="the extra hf is not installed")
    out = tmp_path / "out"
    command("export", "set", finished, "--format", form, "--out", out)
    code = re.search(r"```python\n(.*?)```", (out / "README.md").read_text(), re.S)[1]
    assert len(code.strip().splitlines()) <= 5
    monkeypatch.chdir(out)
    scope: dict = {}
    exec(code, scope)
    if "images" in scope:
        assert tuple(scope["images"].shape) == (10, 1, 8, 8)
    else:
        assert len(scope["data"]) == 10


def test_card_says_what_was_measured_and_whence_it_comes(finished, command, tmp_path):
    out = tmp_path / "out"
    command("export", "set", finished, "--format", "npz", "--out", out)
    card = (out / "README.md").read_text()
    stats = read_set(finished / "set.h5").measured["students"]["convnet2:width=4"]["votes"]
    assert f"| votes | {100 * stats['mean']:.1f} ± {100 * stats['std']:.1f} %" in card
    assert "| control: whole |" in card
    assert "- real data: digits" in card
    assert load_data("digits", size=8, subset=100).digest in card
    assert 'license: "unknown"' in card
    assert '"seed": 0' in card


def test_card_of_an_unmeasured_set_says_so(bring, tmp_path):
    bring("idc", "idc")
    card = data_card(distill.load(tmp_path / "set.h5"), "pass", {}, "mit")
    assert "Not measured." in card
    assert "imported from: idc (idc)" in card


def test_export_never_replaces_a_folder(finished, refused, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    line = refused(1, "export", "set", finished, "--format", "npz", "--out", tmp_path / "out")
    assert "is not an empty folder" in line
    assert set(contents(tmp_path)) == {"out/mine"}


def test_verify_says_whether_the_accuracy_holds(finished, command, tmp_path):
    path = tmp_path / "set.h5"
    path.write_bytes((finished / "set.h5").read_bytes())
    outcome = command("verify", path, "--accuracy", "--quiet", "--json")
    assert outcome.code == 0, outcome.err
    claims = json.loads(outcome.out)["accuracy"]
    checked = {claim["labels"]: claim["now"] == claim["stored"] for claim in claims}
    # The projector is not beside the copy.
    assert checked == {"hard": True, "learned": True, "votes": True, "projector": False}
    assert all(claim["holds"] for claim in claims)
    shown = command("verify", path, "--accuracy", "--quiet").out
    assert shown.count(": holds") == 3
    assert "projector   stored" in shown
    assert "not checked" in shown


def test_verify_fails_where_the_accuracy_does_not_hold(finished, command, tmp_path):
    from distill.sets.additions import add_measured

    path = tmp_path / "set.h5"
    path.write_bytes((finished / "set.h5").read_bytes())
    measured = read_set(path).measured
    entry = measured["students"]["convnet2:width=4"]
    entry["hard"] |= {"mean": entry["hard"]["mean"] + 0.5, "std": 0.0}
    add_measured(path, measured | {"students": {"convnet2:width=4": {"hard": entry["hard"]}}})
    outcome = command("verify", path, "--accuracy", "--quiet")
    assert outcome.code == 1
    assert "does not hold" in outcome.out
    assert "1 of 1 stored accuracies do not hold" in outcome.err
    assert command("verify", path, "--accuracy", "--tolerance", "0.6", "--quiet").code == 0


def test_verify_needs_a_stored_accuracy(bring, refused, tmp_path):
    bring("idc", "idc")
    assert "states no accuracy" in refused(1, "verify", tmp_path / "set.h5", "--accuracy")
