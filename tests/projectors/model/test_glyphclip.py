"""The bundled base: what is shipped, and what it knows without any fitting."""

import hashlib
import json

import numpy as np
import open_clip
import pytest
import torch

import projectors
from projectors.export.open_clip_folder import write_base
from projectors.model.tower import glyphclip_folder
from tests.projectors.cases import edit

MOST_BYTES = 4_000_000


@pytest.fixture(scope="module")
def glyphclip():
    return projectors.load_tower("glyphclip")


def zero_shot(tower, images, names, template):
    """Classes of pixels [n, 1, h, w] in [0, 1] by the nearest prompt."""
    projector = projectors.build_projector(
        tower,
        list(names),
        projectors.Preprocessing((0.0,), (1.0,)),
        adapter=projectors.AdapterSettings(rank=0),
        head=projectors.HeadSettings(templates=(template,), trained="nothing"),
    )
    with torch.no_grad():
        return projector(images).argmax(dim=1)


def test_glyphclip_is_small():
    assert sum(path.stat().st_size for path in glyphclip_folder().iterdir()) <= MOST_BYTES


def test_glyphclip_keeps_its_bytes(glyphclip):
    # Projectors in the world name this digest: a change breaks every one of them.
    assert glyphclip.digest[:16] == "a0a70b099c252957"


def test_glyphclip_is_a_frozen_tower_whose_bytes_count(glyphclip):
    assert not any(p.requires_grad for p in glyphclip.clip.parameters())
    assert (glyphclip.embed_dim, glyphclip.image_size) == (128, (64, 64))
    weights = glyphclip_folder() / "open_clip_model.safetensors"
    assert 0.98 < glyphclip.external_bytes / weights.stat().st_size < 1


def test_glyphclip_loads_in_plain_open_clip(glyphclip):
    import open_clip

    name = f"local-dir:{glyphclip_folder()}"
    clip, _, preprocess = open_clip.create_model_and_transforms(name)
    tokenizer = open_clip.get_tokenizer(name)
    clip.eval()
    with torch.no_grad():
        text = clip.encode_text(tokenizer(["digit seven"]), normalize=True)
        torch.testing.assert_close(text, projectors.encode_text(glyphclip, ["digit seven"]))
        images = torch.rand(2, 3, 64, 64)
        torch.testing.assert_close(clip.encode_image(images), glyphclip.clip.encode_image(images))
    assert preprocess.transforms[-1].mean == list(glyphclip.mean)


@pytest.mark.parametrize("text", ["", "x" * 1000, "日本 \x00 é", "A PHOTO of a Seven", "t-shirt"])
def test_any_text_becomes_a_feature(glyphclip, text):
    feature = projectors.encode_text(glyphclip, [text])
    torch.testing.assert_close(feature.norm(), torch.tensor(1.0))


def test_case_does_not_matter(glyphclip):
    loud, quiet = projectors.encode_text(glyphclip, ["A Photo of a SEVEN", "a photo of a seven"])
    assert torch.equal(loud, quiet)


def test_glyphclip_reads_handwriting_that_it_has_never_seen(glyphclip):
    # Not of the last third, the test part of the application's `digits`: it chooses nothing, not
    # even whether a base is shipped.
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(bunch.images[:1200:5]).float()[:, None] / 16
    labels = torch.from_numpy(bunch.target[:1200:5])
    names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    found = zero_shot(glyphclip, images, names, "a photo of a {}")
    assert (found == labels).float().mean() > 0.8


def test_glyphclip_tells_letters_apart_by_words(glyphclip):
    from PIL import Image, ImageDraw, ImageFont

    names = [f"latin small letter {letter}" for letter in "abdeghkmrtxz"]
    images = []
    for name in names:
        image = Image.new("L", (64, 64))
        font = ImageFont.load_default(48)
        ImageDraw.Draw(image).text((32, 32), name[-1], fill=255, font=font, anchor="mm")
        images.append(torch.from_numpy(np.array(image)[None] / np.float32(255)))
    found = zero_shot(glyphclip, torch.stack(images), names, "{}")
    assert (found == torch.arange(len(names))).float().mean() > 0.8


def test_a_projector_on_glyphclip_survives_saving(glyphclip, tmp_path):
    projector = projectors.build_projector(
        glyphclip, ["zero", "one"], projectors.Preprocessing((0.5,), (0.5,))
    )
    projectors.save(projector, tmp_path / "projector")
    document = json.loads((tmp_path / "projector" / "projector.json").read_text())
    assert document["tower"]["spec"] == "glyphclip"
    assert document["tower"]["digest"] == glyphclip.digest
    images = torch.rand(2, 1, 28, 28)
    again = projectors.load(tmp_path / "projector")
    torch.testing.assert_close(again(images), projector(images))


def test_another_glyphclip_is_refused(glyphclip, tmp_path):
    projector = projectors.build_projector(
        glyphclip, ["zero", "one"], projectors.Preprocessing((0.5,), (0.5,))
    )
    projectors.save(projector, tmp_path / "projector")
    digest = hashlib.sha256(b"other").hexdigest()
    edit(tmp_path / "projector", lambda document: document["tower"].update(digest=digest))
    with pytest.raises(projectors.ProjectorError, match="'glyphclip' has"):
        projectors.load(tmp_path / "projector")


def test_it_is_written_anew_in_open_clips_layout(glyphclip, tmp_path):
    write_base(glyphclip, tmp_path / "base")
    clip = open_clip.create_model(f"local-dir:{tmp_path / 'base'}").eval()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(clip.visual(images), glyphclip.clip.visual(images))
