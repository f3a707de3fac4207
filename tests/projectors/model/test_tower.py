import json
import os
import shutil

import pytest
import torch

import projectors
from projectors.model.tower import digest_of


def test_a_bundled_tower_is_the_same_for_the_same_seed_and_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    first = projectors.load_tower("config:tiny-vit", seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(5)
    assert projectors.load_tower("config:tiny-vit", seed=3).digest == first.digest
    assert projectors.load_tower("config:tiny-vit", seed=4).digest != first.digest


def test_the_bundled_tower_keeps_its_bytes(tower):
    # Projectors in the world name this digest: a change breaks every one of them.
    assert tower.digest[:16] == "154e600b0da481a0"


def test_a_tower_is_frozen_and_knows_its_own_preprocessing(tower, resnet):
    assert not any(p.requires_grad for p in tower.clip.parameters())
    assert not tower.clip.training
    assert (tower.embed_dim, tower.image_size, tower.mean) == (64, (16, 16), (0.5, 0.5, 0.5))
    assert (resnet.embed_dim, resnet.image_size, resnet.std) == (16, (32, 32), (0.2, 0.2, 0.2))


def test_prompts_become_features_of_length_one(tower):
    features = projectors.encode_text(tower, ["digit one", "digit two", "digit one"])
    assert features.shape == (3, 64)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(features[0], features[2])
    assert not torch.allclose(features[0], features[1])


def test_a_digest_sees_one_changed_number(tower):
    linear = torch.nn.Linear(3, 2)
    before = digest_of(linear)
    linear.weight.data[0, 0] += 1e-6
    assert digest_of(linear) != before


@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_a_pipe_among_the_weights_is_not_waited_for(name, resnet_folder, tmp_path):
    shutil.copytree(resnet_folder, tmp_path / "tower")
    (tmp_path / "tower" / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / "tower" / name)
    with pytest.raises(projectors.ProjectorError, match=f"{name} is a pipe or a device"):
        projectors.load_tower(f"folder:{tmp_path / 'tower'}")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("tiny-vit", "write glyphclip, config:NAME"),
        ("glyphclip:x", "write glyphclip, config:NAME"),
        ("config:tiny-vot", "did you mean tiny-vit"),
        ("open_clip:ViT-B-33:openai", "did you mean ViT-B-32"),
        ("open_clip:ViT-B-32", "names no weights"),
        ("open_clip:ViT-B-32:opanai", "neither a tag of ViT-B-32 nor a file"),
        ("folder:nowhere", "holds no open_clip_config.json"),
    ],
)
def test_a_spec_that_names_nothing_is_refused_in_one_line(spec, message):
    with pytest.raises(projectors.ProjectorError, match=message) as caught:
        projectors.load_tower(spec)
    assert "\n" not in str(caught.value)


def test_weights_that_cannot_be_fetched_are_refused_in_one_line(monkeypatch):
    import open_clip

    def no_network(*args, **kwargs):
        raise RuntimeError("no\nnetwork")

    monkeypatch.setattr(open_clip, "create_model", no_network)
    with pytest.raises(projectors.ProjectorError, match=r"no network.*fetch them again"):
        projectors.load_tower("open_clip:ViT-B-32:openai")


def test_a_weights_file_of_unknown_preprocessing_is_refused(tmp_path):
    weights = tmp_path / "weights.pt"
    weights.touch()
    with pytest.raises(projectors.ProjectorError, match="2 different preprocessings"):
        projectors.load_tower(f"open_clip:ViT-L-14:{weights}")


def test_a_folder_without_weights_is_refused(tmp_path, resnet_folder):
    shutil.copy(resnet_folder / "open_clip_config.json", tmp_path)
    with pytest.raises(projectors.ProjectorError, match="holds no weights"):
        projectors.load_tower(f"folder:{tmp_path}")


def test_a_folder_with_weights_of_another_model_is_refused(tmp_path, resnet_folder):
    shutil.copytree(resnet_folder, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "open_clip_config.json"
    document = json.loads(path.read_text())
    document["model_cfg"]["vision_cfg"]["width"] = 16
    path.write_text(json.dumps(document))
    with pytest.raises(projectors.ProjectorError, match="cannot be loaded"):
        projectors.load_tower(f"folder:{tmp_path}")


@pytest.mark.parametrize("name", ["mean", "std"])
@pytest.mark.parametrize("given", [[0.5, 0.5], [], "x", -1, {}, [0.5, None, 0.5], [1, 2, 1e999]])
def test_a_folder_that_normalises_by_no_three_numbers_is_refused(
    name, given, tmp_path, resnet_folder
):
    folder = shutil.copytree(resnet_folder, tmp_path / "tower")
    document = json.loads((folder / "open_clip_config.json").read_text())
    document["preprocess_cfg"][name] = given
    (folder / "open_clip_config.json").write_text(json.dumps(document))
    words = f"says that the {name} of its images is"
    with pytest.raises(projectors.ProjectorError, match=words) as raised:
        projectors.load_tower(f"folder:{folder}")
    assert "\n" not in str(raised.value)


def test_a_folder_that_divides_by_zero_is_refused(tmp_path, resnet_folder):
    folder = shutil.copytree(resnet_folder, tmp_path / "tower")
    text = (folder / "open_clip_config.json").read_text()
    (folder / "open_clip_config.json").write_text(text.replace("0.2", "0.0"))
    with pytest.raises(projectors.ProjectorError, match="each above 0"):
        projectors.load_tower(f"folder:{folder}")
