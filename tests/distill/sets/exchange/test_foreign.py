"""Files of other programs, as people met them: each gives the right values, or one line."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import distill
from distill.commands.show import describe
from distill.data import fit_preprocess, fit_zca, load_data
from distill.sets.set_file import read_set

NAMES = ("night", "day", "grey sky")
FORMS = ("mtt", "npz", "torch", "safetensors")


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """The path of a source of three classes."""
    path = tmp_path_factory.mktemp("real") / "real.npz"
    images = np.random.default_rng(1).integers(0, 256, (90, 8, 8, 1), dtype=np.uint8)
    images[::3] //= 3
    images[1::3] = 255 - images[1::3] // 3
    np.savez(path, images=images, labels=np.arange(90) % 3, class_names=np.array(NAMES))
    return f"npz:{path}"


@pytest.fixture(scope="module")
def pixels(real):
    """One real image of each class, in class order, with all of the range of values."""
    train = load_data(real).train
    first = [int((train.labels == label).nonzero()[0]) for label in range(3)]
    chosen = train.images[first].clone()
    chosen[:, :, 0, 0], chosen[:, :, 0, 1] = 0, 1
    return chosen


@pytest.fixture(scope="module")
def normalised(real, pixels):
    data = load_data(real)
    return fit_preprocess(data.train.images, data.validation.images)(pixels)


SOFT = torch.full((3, 3), 0.05).fill_diagonal_(0.9)


def write(folder, layout, images, labels):
    """A set in a layout; returns the path to import."""
    folder.mkdir(parents=True, exist_ok=True)
    if layout == "mtt":
        torch.save(images, folder / "images_best.pt")
        torch.save(labels, folder / "labels_best.pt")
        return folder
    path = folder / f"plain.{layout}"
    if layout == "npz":
        np.savez(path, images=images.numpy(), labels=labels.numpy())
    elif layout == "torch":
        torch.save({"images": images, "labels": labels}, path)
    else:
        save_file({"images": images.contiguous(), "labels": labels.contiguous()}, path)
    return path


@pytest.fixture
def bring(command, tmp_path, real):
    """Import with the real data; returns the set as a user loads it, and the notes."""

    def call(path, layout, *options):
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}.h5"
        outcome = command(
            "import", path, "--from", layout, "--data", real, "--network", "mlp", "--out", out,
            "--statistics", "data", "--json", *options,
        )  # fmt: skip
        assert outcome.code == 0, outcome.err
        return distill.load(out), json.loads(outcome.out)["notes"]

    return call


def pixels_of(data):
    return data.preprocess.inverse(data.images)


@pytest.mark.parametrize("layout", FORMS)
@pytest.mark.parametrize("labels", [SOFT, SOFT.log(), SOFT.half()], ids=["p", "log p", "half"])
def test_probabilities_come_out_as_probabilities(layout, labels, normalised, bring, tmp_path):
    data, notes = bring(write(tmp_path / "a", layout, normalised, labels), layout)
    torch.testing.assert_close(data.labels, SOFT, atol=1e-3, rtol=0)
    assert any(note.startswith("labels are taken as ") for note in notes)


@pytest.mark.parametrize("layout", ["dc", "idc", "datm"])
@pytest.mark.parametrize("labels", [SOFT, SOFT.log()], ids=["p", "log p"])
def test_no_layout_takes_probabilities_for_logits(
    layout, labels, normalised, pixels, bring, tmp_path
):
    images = pixels if layout == "idc" else normalised
    path, options = tmp_path / "data.pt", ()
    if layout == "datm":
        path, options = write(tmp_path / "a", "mtt", images, labels), ("--space", "normalised")
    else:
        torch.save([images, labels] if layout == "idc" else {"data": [[images, labels]]}, path)
    data, notes = bring(path, layout, *options)
    torch.testing.assert_close(data.labels, SOFT, atol=1e-3, rtol=0)
    assert any(note.startswith("labels are taken as ") for note in notes)


@pytest.mark.parametrize("layout", FORMS)
@pytest.mark.parametrize("form", ["logits", "centred"])
def test_signed_labels_are_asked_for(layout, form, normalised, bring, refused, real, tmp_path):
    labels = 2 + SOFT.log() if form == "logits" else SOFT - 1 / 3
    path = write(tmp_path / "a", layout, normalised, labels)
    line = refused(
        2, "import", path, "--from", layout, "--data", real, "--out", tmp_path / "b.h5",
        "--statistics", "data",
    )  # fmt: skip
    assert "give --labels logits or --labels centred" in line
    data, _ = bring(path, layout, "--labels", form)
    torch.testing.assert_close(data.labels, SOFT, atol=1e-3, rtol=0)


@pytest.mark.parametrize("layout", FORMS)
@pytest.mark.parametrize("labels", [torch.arange(3)[:, None], torch.arange(3).float()])
def test_columns_and_floats_are_classes(layout, labels, normalised, bring, tmp_path):
    data, notes = bring(write(tmp_path / "a", layout, normalised, labels), layout)
    assert data.hard.tolist() == [0, 1, 2]
    assert not notes


@pytest.mark.parametrize("layout", FORMS)
@pytest.mark.parametrize(
    ("change", "options"),
    [
        (lambda x: (255 * x).round().byte(), ()),
        (lambda x: (255 * x).round().byte(), ("--space", "pixels")),
        (lambda x: 255 * x, ()),
        (lambda x: 2 * x - 1, ("--space", "signed")),
        (lambda x: x, ()),
        (lambda x: x.half(), ("--space", "pixels")),
    ],
    ids=["bytes", "bytes as pixels", "float bytes", "signed", "pixels", "half"],
)
def test_pixels_come_out_as_pixels(layout, change, options, pixels, bring, tmp_path):
    path = write(tmp_path / "a", layout, change(pixels), torch.arange(3))
    data, _ = bring(path, layout, *options)
    torch.testing.assert_close(pixels_of(data), pixels, atol=2e-3, rtol=0)


def test_bytes_in_a_file_of_idc_are_no_pixels_of_255(pixels, bring, tmp_path):
    torch.save([(255 * pixels).byte(), torch.arange(3)], tmp_path / "data.pt")
    data, _ = bring(tmp_path / "data.pt", "idc")
    assert float(pixels_of(data).max()) == pytest.approx(1, abs=1e-5)


def test_signed_pixels_are_asked_for(pixels, refused, real, tmp_path):
    path = write(tmp_path / "a", "mtt", 2 * pixels - 1, torch.arange(3))
    asked = ("import", path, "--from", "mtt", "--data", real, "--out", tmp_path / "b.h5")
    assert "give --space signed or --space normalised" in refused(2, *asked)
    assert "give --space signed" in refused(2, *asked, "--space", "pixels")


def test_images_beside_their_unwhitened_selves_are_whitened(pixels, bring, real, tmp_path):
    data = load_data(real)
    whitened = fit_zca(data.train.images, data.validation.images)(pixels)
    folder = write(tmp_path / "a", "mtt", whitened, torch.arange(3))
    torch.save(pixels, folder / "images_zca_500.pt")
    for path in (folder, folder / "images_best.pt"):
        read, notes = bring(path, "mtt")
        torch.testing.assert_close(pixels_of(read), pixels, atol=1e-4, rtol=0)
        assert notes == [
            "images are whitened: images_zca_500.pt beside them is what MTT writes with --zca"
        ]


def test_labels_are_found_by_the_names_of_dc_benchmark(normalised, bring, tmp_path):
    torch.save(normalised, tmp_path / "CIFAR10_IPC1_images.pt")
    torch.save(torch.arange(3).float(), tmp_path / "CIFAR10_IPC1_labels.pt")
    for path in (tmp_path, tmp_path / "CIFAR10_IPC1_images.pt"):
        assert bring(path, "mtt")[0].hard.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "names",
    [
        ("NIGHT", "Day", "Grey Sky"),
        ("class_night", "class_day", "class_grey sky"),
        ("0-night", "1-day", "2-grey_sky"),
        ("0", "1", "2"),
        ("1", "2", "3"),
        ("new000", "new001", "new002"),
    ],
    ids=str,
)
def test_folders_are_matched_by_the_best_evidence(names, pixels, bring, tmp_path):
    for name, image in zip(names, pixels, strict=True):
        (tmp_path / "set" / name).mkdir(parents=True)
        shown = (255 * image[0]).round().byte().numpy()
        Image.fromarray(shown).save(tmp_path / "set" / name / "0.png")
    data, _ = bring(tmp_path / "set", "rded")
    torch.testing.assert_close(pixels_of(data), pixels, atol=1e-3, rtol=0)
    assert data.manifest["class_names"] == list(NAMES)


def test_folders_of_other_classes_are_refused(pixels, refused, real, tmp_path):
    for name in ("cat", "dog", "owl"):
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.fromarray((255 * pixels[0, 0]).byte().numpy()).save(tmp_path / "set" / name / "0.png")
    line = refused(
        1, "import", tmp_path / "set", "--from", "folder", "--data", real, "--out",
        tmp_path / "b.h5",
    )  # fmt: skip
    assert "the classes cat, dog, owl are not evidently those of the data, night, day" in line


def test_class_names_put_labels_in_the_order_of_the_data(normalised, bring, tmp_path):
    path = write(tmp_path / "a", "torch", normalised.roll(1, 0), SOFT.log())
    data, notes = bring(path, "torch", "--class-names", "Grey-sky,night,day")
    torch.testing.assert_close(data.labels, SOFT, atol=1e-4, rtol=0)
    assert data.hard.tolist() == [0, 1, 2]
    assert "classes are matched as Grey-sky: grey sky, day: day" in notes


def test_numbered_folders_without_data_are_in_the_order_of_their_numbers(command, tmp_path):
    for number in range(12):
        (tmp_path / "set" / str(number)).mkdir(parents=True)
        image = np.full((8, 8), 20 * number, dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / "set" / str(number) / "0.png")
    out = tmp_path / "set.h5"
    assert command("import", tmp_path / "set", "--from", "rded", "--out", out).code == 0
    content = read_set(out)
    assert content.manifest["class_names"] == [str(number) for number in range(12)]
    assert content.images[:, 0, 0, 0].tolist() == pytest.approx([n * 20 / 255 for n in range(12)])


QUICK = ("--seeds", "1", "--epochs", "1", "--whole-epochs", "1", "--labels", "hard", "--quiet")


@pytest.mark.parametrize(
    ("counts", "note"),
    [
        ([2, 0, 0], "2 of the 3 classes have no image: day, grey sky"),
        ([3, 3, 1], "classes have from 1 to 3 images"),
    ],
)
def test_sets_of_uneven_classes_have_a_control_as_uneven(
    counts, note, normalised, command, real, tmp_path, monkeypatch
):
    from distill.run import context

    drawn = []
    monkeypatch.setattr(
        context,
        "draw_counts",
        lambda labels, counts, generator: drawn.append(list(counts)) or torch.arange(sum(counts)),
    )
    hard = torch.arange(3).repeat_interleave(torch.tensor(counts))
    path, out = write(tmp_path / "a", "npz", normalised[hard], hard), tmp_path / "set.h5"
    outcome = command(
        "import", path, "--from", "npz", "--data", real, "--network", "convnet1:width=4", "--out",
        out, "--statistics", "data",
    )  # fmt: skip
    assert outcome.err == f"{note}\n"
    outcome = command("evaluate", out, *QUICK)
    assert outcome.code == 0, outcome.err
    assert drawn == [counts]


def test_students_see_the_views_that_are_asked_for(normalised, command, real, tmp_path):
    path, out = write(tmp_path / "a", "npz", normalised, torch.arange(3)), tmp_path / "set.h5"
    outcome = command(
        "import", path, "--from", "npz", "--data", real, "--network", "convnet1:width=4", "--out",
        out, "--statistics", "data", "--augmentation", "crop_scale",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert describe(out)["augmentation"] == "crop_scale"
    for options, views in (((), "crop_scale"), (("--augmentation", "flip"), "flip")):
        outcome = command("evaluate", out, *QUICK, "--record", "--json", *options)
        assert json.loads(outcome.out)["protocol"]["hard"]["views"] == views
    assert "holds" in command("verify", out, "--accuracy", "--tolerance", "0", "--quiet").out


def test_digits_are_not_mirrored(command, tmp_path):
    data = load_data("digits", size=8)
    images = data.train.images[:10]
    path, out = write(tmp_path / "a", "npz", images, data.train.labels[:10]), tmp_path / "set.h5"
    outcome = command(
        "import", path, "--from", "npz", "--data", "digits", "--size", "8", "--out", out
    )
    assert outcome.code == 0, outcome.err
    assert describe(out)["augmentation"] == "colour_crop_cutout_scale_rotate"
    assert "the classes are digits: students see no mirrored ones" in outcome.err


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("replay_buffer_0.pt", "buffers"),
        ("images_best.pt", "mtt"),
        ("CIFAR10_IPC1_images.pt", "mtt"),
        ("res_DC_CIFAR10_ConvNet_1ipc.pt", "dc"),
        ("other.pt", "torch"),
        ("other.npz", "npz"),
        ("other.safetensors", "safetensors"),
    ],
)
def test_commands_send_foreign_files_to_import(name, layout, refused, tmp_path):
    path = tmp_path / name
    if name.endswith("npz"):
        np.savez(path, a=np.zeros(2))
    elif name.endswith("safetensors"):
        save_file({"a": torch.zeros(2)}, path)
    else:
        torch.save(torch.zeros(2), path)
    exporting = ("export", "set", path, "--format", "npz", "--out", tmp_path / "out")
    for words in (("show", path), ("verify", path), ("evaluate", path), exporting):
        line = refused(1, *words)
        assert (
            f"a file of another program; read it with `distill import {path} --from {layout}"
            in line
        )
        assert "damaged" not in line


def test_a_file_that_is_nothing_known_is_not_sent_to_import(refused, tmp_path):
    (tmp_path / "set.h5").write_bytes(b"no file of anything")
    assert "or it is damaged" in refused(1, "show", tmp_path / "set.h5")
