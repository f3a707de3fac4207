import unicodedata

import numpy as np
import pytest
import torch

from distill.data import DataError, SourceError, load_data
from distill.data.sources.characters import choose_classes, find_lookalikes, glyph_classes, name_of
from distill.data.sources.faces import (
    TEST_FACES,
    TRAIN_FACES,
    VALIDATION_FACES,
    code_points,
    draw_characters,
)
from distill.data.sources.glyphs import apply_jitter, draw_jitter


@pytest.fixture(scope="module")
def glyphs():
    return load_data("glyphs:12")


@pytest.fixture(scope="module")
def lookalikes():
    return find_lookalikes()


def per_class(split):
    return torch.bincount(split.labels).tolist()


def test_glyphs_have_their_own_splits(glyphs):
    assert (glyphs.channels, glyphs.size, glyphs.classes) == (1, (28, 28), 12)
    assert per_class(glyphs.train) == [60] * 12
    assert per_class(glyphs.validation) == [6] * 12
    assert per_class(glyphs.test) == [12] * 12
    assert glyphs.class_names[:3] == (
        "square with left half black",
        "greek capital letter eta with prosgegrammeni",
        "black smiling face",
    )


def test_no_face_stands_in_two_splits():
    assert not (set(TRAIN_FACES) | set(VALIDATION_FACES)) & set(TEST_FACES)
    assert not set(TRAIN_FACES) & set(VALIDATION_FACES)


def test_each_split_is_drawn_in_its_own_faces(monkeypatch):
    drawn = []

    def spy(face, characters, size):
        drawn.append(face)
        return draw_characters(face, characters, size)

    monkeypatch.setattr("distill.data.sources.glyphs.draw_characters", spy)
    load_data("glyphs:2")
    assert tuple(drawn) == TRAIN_FACES + VALIDATION_FACES + TEST_FACES


def test_the_same_glyphs_come_whatever_the_global_seed(glyphs):
    torch.manual_seed(5)
    np.random.seed(5)
    assert load_data("glyphs:12").digest == glyphs.digest


def test_fewer_classes_are_the_first_ones_with_the_same_images(glyphs):
    fewer = load_data("glyphs:5")
    assert fewer.class_names == glyphs.class_names[:5]
    for small, large in ((fewer.train, glyphs.train), (fewer.test, glyphs.test)):
        assert torch.equal(small.images, large.images[large.labels < 5])


def test_copies_of_a_glyph_differ_and_hold_ink(glyphs):
    images = glyphs.train.images
    assert len({image.numpy().tobytes() for image in images}) == len(images)
    assert images.sum(dim=(1, 2, 3)).min() > 1


def test_a_class_looks_more_like_itself_in_another_family_than_like_others(glyphs):
    train, test = glyphs.train, glyphs.test
    means = torch.stack([train.images[train.labels == k].mean(dim=0) for k in range(12)])
    nearest = torch.cdist(test.images.flatten(1), means.flatten(1)).argmin(dim=1)
    assert (nearest == test.labels).float().mean() > 0.5


def test_the_fonts_give_the_committed_classes(lookalikes):
    chosen = choose_classes(lookalikes)
    assert [(c, name_of(c)) for c in chosen] == list(glyph_classes())


def test_classes_have_different_drawings_in_every_face_and_are_no_spaces_or_marks():
    characters = [character for character, _ in glyph_classes()]
    assert len(characters) == len(set(characters)) == 1100
    assert not any(unicodedata.category(c)[0] in "CZM" or c.isascii() for c in characters)
    for face in TRAIN_FACES + VALIDATION_FACES + TEST_FACES:
        drawn = draw_characters(face, characters, 64)
        assert len({image.tobytes() for image in drawn}) == len(characters)


def test_letters_of_three_scripts_with_one_shape_are_lookalikes(lookalikes):
    (group,) = [group for group in lookalikes if "A" in group]
    assert group >= {"A", "\N{GREEK CAPITAL LETTER ALPHA}", "\N{CYRILLIC CAPITAL LETTER A}"}


def test_no_jitter_leaves_a_drawing_as_it_is():
    drawn = torch.from_numpy(draw_characters("DejaVuSans", "g", 56)).float()[None] / 255
    identity = torch.tensor([[[1.0, 0, 0], [0, 1, 0]]])
    torch.testing.assert_close(apply_jitter(drawn, identity), drawn, atol=1e-4, rtol=0)


def test_a_shift_moves_ink_by_its_share_of_half_the_image():
    drawn = torch.zeros(1, 1, 8, 8)
    drawn[0, 0, 4, 4] = 1
    shifted = apply_jitter(drawn, torch.tensor([[[1.0, 0, 0.25], [0, 1, -0.5]]]))
    assert shifted.flatten().argmax() == 6 * 8 + 3


def test_jitter_stays_small():
    maps = draw_jitter(1000, (1, 2))
    assert maps.shape == (1000, 2, 3)
    assert maps[:, :, 2].abs().max() <= 0.12
    determinant = maps[:, 0, 0] * maps[:, 1, 1] - maps[:, 0, 1] * maps[:, 1, 0]
    assert determinant.min() > 0.75
    assert determinant.max() < 1.3


def test_a_character_that_a_face_lacks_is_refused():
    assert ord("\N{SNOWMAN}") not in code_points("DejaVuSerif")
    with pytest.raises(DataError, match=r"DejaVuSerif lacks U\+2603"):
        draw_characters("DejaVuSerif", "a\N{SNOWMAN}", 16)


def test_a_font_that_matplotlib_lacks_is_refused():
    with pytest.raises(DataError, match=r"no font Nothing\.ttf .*install matplotlib"):
        draw_characters("Nothing", "a", 16)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("glyphs", "names no number of characters; write it as glyphs:K"),
        ("glyphs:ten", "names no number"),
        ("glyphs:-3", "names no number"),
        ("glyphs:²", "names no number"),
        ("glyphs:1", "the fonts hold 2 to 1100 characters"),
        ("glyphs:1101", "the fonts hold 2 to 1100 characters .*write glyphs:1100 or less"),
        ("glyphs:" + "9" * 5000, "the fonts hold 2 to 1100"),
    ],
)
def test_a_number_of_glyphs_out_of_range_is_refused_in_one_line(source, message):
    with pytest.raises(SourceError, match=message) as caught:
        load_data(source)
    assert "\n" not in str(caught.value)
