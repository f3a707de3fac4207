"""What DD-Ranking 0.2.0 is given: its own statistics, and settings that it runs with."""

import numpy as np
import pytest
import torch
import yaml

import distill
from distill.sets.exchange.published import DDRANKING, ddranking_name
from tests.distill.cases import contents

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]

# What LabelRobustScoreSoft of 0.2.0 reads from a Config, which gives None for what it lacks.
READ = """
dataset real_data_path ipc model_name soft_label_criterion data_aug_func aug_params
soft_label_mode optimizer lr_scheduler loss_fn_kwargs weight_decay momentum num_eval im_size
num_epochs use_zca use_aug_for_hard random_data_format random_data_path real_batch_size
syn_batch_size step_size save_path eval_full_data num_workers stu_use_torchvision
tea_use_torchvision custom_train_trans custom_val_trans teacher_dir teacher_model_names device dist
"""

MAY_BE_NONE = {"random_data_path", "custom_train_trans", "custom_val_trans"}


@pytest.fixture
def exported(command, tmp_path):
    """Export a set of real images of some classes; returns the folder and the set."""

    def call(source, names, *options):
        images = np.random.default_rng(1).integers(0, 256, (4 * len(names), 8, 8, 3), np.uint8)
        labels = np.arange(4 * len(names)) % len(names)
        path = tmp_path / source
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, images=images, labels=labels, class_names=np.array(names))
        soft = np.eye(len(names))[labels[: len(names)]] * 0.8 + 0.2 / len(names)
        np.savez(tmp_path / "set.npz", images=images[: len(names)], labels=soft)
        made, out = tmp_path / "set.h5", tmp_path / "out"
        outcome = command(
            "import", tmp_path / "set.npz", "--from", "npz", "--data", f"npz:{path}", "--out", made
        )
        assert outcome.code == 0, outcome.err
        outcome = command("export", "set", made, "--format", "ddranking", "--out", out)
        assert outcome.code == 0, outcome.err
        return out, distill.load(made)

    return call


@pytest.mark.parametrize(
    ("source", "classes", "name"),
    [
        ("torchvision:CIFAR10", 10, "CIFAR10"),
        ("torchvision:CIFAR100", 100, "CIFAR100"),
        ("hf:uoft-cs/cifar100", 100, "CIFAR100"),
        ("npz:/data/cifar-10.npz", 10, "CIFAR10"),
        ("folder:tiny-imagenet-200", 200, "TinyImageNet"),
        ("packed:/fast/imagenet-1k", 1000, "ImageNet1K"),
        ("torchvision:CIFAR100", 20, ""),
        ("folder:imagenette", 10, ""),
        ("", 10, ""),
    ],
)
def test_data_are_known_however_their_source_is_named(source, classes, name):
    assert ddranking_name(source, [str(number) for number in range(classes)]) == name


def test_data_are_known_by_their_classes():
    assert ddranking_name("npz:mine.npz", CIFAR10) == "CIFAR10"


def test_cifar100_has_the_statistics_of_cifar10_there(exported):
    out, data = exported("cifar100.npz", [f"class {number}" for number in range(100)])
    images = torch.load(out / "images.pt", weights_only=True)
    pixels = data.preprocess.inverse(data.images)
    mean, std = (
        torch.tensor(v).view(3, 1, 1) for v in ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
    )
    torch.testing.assert_close(images, (pixels - mean) / std)
    assert "DD-Ranking's statistics of CIFAR100" in (out / "README.md").read_text()
    assert DDRANKING["CIFAR100"] is DDRANKING["CIFAR10"]


def test_settings_are_complete_and_name_no_path_of_this_machine(exported, tmp_path):
    out, _ = exported("secret/cifar10/real.npz", CIFAR10)
    text = (out / "demo.yaml").read_text()
    settings = yaml.safe_load(text)
    assert set(settings) == set(READ.split())
    assert {name for name, value in settings.items() if value is None} == MAY_BE_NONE
    assert (settings["dataset"], settings["ipc"], settings["im_size"]) == ("CIFAR10", 1, [8, 8])
    assert settings["random_data_format"] == "tensor"
    assert "secret" not in text
    assert str(tmp_path) not in text
    compile((out / "demo.py").read_text(), "demo.py", "exec")


def test_data_that_it_does_not_know_get_no_settings(exported):
    out, data = exported("mine.npz", ["cat", "dog"])
    assert set(contents(out)) == {
        "README.md",
        "croissant.json",
        "images.pt",
        "labels.pt",
        "lr.pt",
    }
    assert torch.equal(torch.load(out / "images.pt", weights_only=True), data.images)


def test_an_export_comes_back(exported, command, tmp_path):
    out, data = exported("mine.npz", ["cat", "dog"])
    outcome = command(
        "import", out, "--from", "datm", "--space", "normalised", "--data",
        f"npz:{tmp_path / 'mine.npz'}", "--statistics", "data", "--out", tmp_path / "back.h5",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    back = distill.load(tmp_path / "back.h5")
    torch.testing.assert_close(back.labels, data.labels, atol=1e-5, rtol=1e-4)
    assert back.manifest["student_lr"] == pytest.approx(data.manifest["student_lr"])


def test_gray_images_are_refused(finished, refused, tmp_path):
    line = refused(1, "export", "set", finished, "--format", "ddranking", "--out", tmp_path / "out")
    assert "DD-Ranking needs 3 channels" in line
    assert not contents(tmp_path)
