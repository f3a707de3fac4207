"""How the bundled base was trained: the parts of scripts/train_glyphclip.py."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Generator

sys.path.append(str(Path(__file__).parents[2] / "scripts"))

import train_glyphclip
from glyphclip import model, pens, pictures, prompts, tokens, views

from distill.data.sources.characters import glyph_classes
from distill.data.sources.faces import TEST_FACES, VALIDATION_FACES
from projectors.model.tower import glyphclip_folder

OTHERS = "ßðħłøŧαγθλ"


@pytest.fixture(scope="module")
def found():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "FACES", ("DejaVuSans", "STIXGeneral"))
        characters = sorted(pictures.LETTERS) + list(OTHERS)
        return pictures.draw_training([[c] for c in characters])


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(train_glyphclip, "CLASSES", 16)
    monkeypatch.setattr(train_glyphclip, "COPIES", 2)
    monkeypatch.setattr(train_glyphclip, "LETTERS", 3)
    monkeypatch.setattr(train_glyphclip, "SAVE_EVERY", 1)


def test_glyphclip_has_seen_no_class_of_glyphs():
    codes = (glyphclip_folder() / "characters.txt").read_text().split()
    seen = {chr(int(code, 16)) for code in codes}
    assert len(seen) > 4000
    assert seen >= set(pictures.LETTERS)
    assert not seen & {character for character, _ in glyph_classes()}


def test_the_base_keeps_lookalikes_of_classes_out_and_drops_styles_of_plain_letters(monkeypatch):
    monkeypatch.setattr(pictures, "choose_classes", lambda lookalikes: ["Γ"])
    lookalikes = [{"é"}, {"A", "Α", "\N{MATHEMATICAL SANS-SERIF CAPITAL A}"}, {"Γ", "Г"}]
    assert pictures.base_characters([frozenset(group) for group in lookalikes]) == [
        ["A", "Α"],
        ["é"],
    ]


def test_the_base_is_drawn_in_no_face_that_glyphs_holds_out():
    assert not set(pictures.FACES) & {*VALIDATION_FACES, *TEST_FACES}


def test_every_digit_has_printed_thinned_and_penned_forms(found):
    for digit in "0123456789":
        label = found.characters.index([digit])
        assert (found.classes == label).sum() > 30
    assert {digit for digit, _ in pens.draw_digits(32, 0.06)} == set("0123456789")


def test_boxes_hold_the_ink(found):
    drawn, (x, y, wide, high) = found.drawn[0], found.boxes[0]
    rows, columns = np.nonzero(drawn.numpy() > 32)
    scale = pictures.SIZE / 2
    assert round(float((y + 1 - high) * scale)) == rows.min()
    assert round(float((x + 1 + wide) * scale)) == columns.max() + 1


def test_thinning_leaves_a_line_of_a_thick_bar_and_a_line_as_it_is():
    bar = np.zeros((1, 12, 30), dtype=np.uint8)
    bar[0, 3:8, 4:26] = 255
    line = pens.thin(bar)
    assert (line[0, :, 8:22] > 0).sum(axis=0).tolist() == [1] * 14
    np.testing.assert_array_equal(pens.thin(line), line)


def test_plain_views_show_the_drawing(found):
    drawn, boxes = found.drawn[::200], found.boxes[::200]
    seen = views.apply_views(drawn, boxes, views.plain_views(len(drawn)), 48, Generator())
    assert (seen[:, 0] - drawn.float() / 255).abs().mean() < 0.05


def test_views_are_pixels_and_come_back_with_the_same_seed(found):
    def seen(seed):
        generator = Generator().manual_seed(seed)
        drawn = views.draw_views(50, generator)
        return views.apply_views(found.drawn[:50], found.boxes[:50], drawn, 64, generator)

    first = seen(1)
    assert first.shape == (50, 1, 64, 64)
    assert first.min() >= 0
    assert first.max() <= 1
    assert torch.equal(seen(1), first)
    assert not torch.equal(seen(2), first)


def test_widening_strokes_adds_ink_and_narrowing_takes_it(found):
    drawn, boxes = found.drawn[:1], found.boxes[:1]
    ink = []
    for width in (-0.7, 0.0, 0.8, 1.6):
        view = views.plain_views(1)
        view.width[:] = width
        ink.append(views.apply_views(drawn, boxes, view, 32, Generator()).sum().item())
    assert ink == sorted(ink)
    assert len(set(ink)) == 4


def test_the_loss_is_the_mean_over_prompts_and_over_images():
    scores, classes = torch.randn(5, 3), torch.tensor([0, 2, 1, 0, 1])
    prompts_given = -sum(scores[i].log_softmax(0)[k] for i, k in enumerate(classes)) / 5
    columns = scores.log_softmax(dim=0)
    images_given = sum(-columns[classes == k, k].mean() for k in range(3)) / 3
    loss = model.contrastive_loss(scores, classes)
    torch.testing.assert_close(loss, (prompts_given + images_given) / 2)


def test_the_end_of_a_text_is_its_highest_token():
    tokenizer = tokens.train_tokenizer(["digit seven", "latin small letter a"])
    end = tokenizer.token_to_id("<end>")
    assert end == tokenizer.get_vocab_size() - 1
    assert tokenizer.encode("Digit Séven").ids == tokenizer.encode("digit seven").ids
    assert tokenizer.encode("").ids == [tokenizer.token_to_id("<start>"), end]


def test_a_tokenizer_that_is_there_is_kept(found, tmp_path):
    first = train_glyphclip.open_tokenizer(tmp_path, found)
    before = (tmp_path / "tokenizer.json").read_bytes()
    again = train_glyphclip.open_tokenizer(tmp_path, found)
    assert (tmp_path / "tokenizer.json").read_bytes() == before
    assert again.encode("digit seven").ids == first.encode("digit seven").ids
    assert len(first.encode("x" * 100).ids) == tokens.CONTEXT


def test_names_are_ordinary_english():
    assert {"digit seven", "seven", "number seven"} <= set(prompts.names_of("7"))
    assert "capital letter q" in prompts.names_of("Q")
    assert prompts.names_of("ß") == ["latin small letter sharp s", "small letter sharp s"]


def test_a_batch_has_all_digits_and_drawings_of_its_classes(found, small):
    chosen, drawings = train_glyphclip.draw_batch(found, Generator().manual_seed(0))
    assert len(set(chosen)) == len(chosen) == 16
    assert [found.characters[k][0] for k in chosen[:10]] == list("0123456789")
    assert found.classes[drawings].tolist() == [k for k in chosen for _ in range(2)]


def test_an_untrained_model_reads_nothing(found):
    tokenizer = tokens.load_tokenizer(glyphclip_folder())
    clip = model.build(tokenizer.get_vocab_size(), 0)
    measured = train_glyphclip.measure(clip, tokenizer, found)
    assert measured["digits_validation"] < 0.4
    assert measured["held_out_faces"] < 0.2
    assert clip.training


def test_a_resumed_training_ends_where_an_unbroken_one_does(found, small, tmp_path, monkeypatch):
    monkeypatch.setattr(train_glyphclip, "measure", lambda *_: {})
    tokenizer = tokens.load_tokenizer(glyphclip_folder())
    whole = train_glyphclip.train(found, found, tokenizer, tmp_path, 3, 0)
    broken = tmp_path / "broken"
    broken.mkdir()
    step = train_glyphclip.train_step
    calls = iter([False, False, True])

    def stop(*args):
        if next(calls):
            raise KeyboardInterrupt
        return step(*args)

    monkeypatch.setattr(train_glyphclip, "train_step", stop)
    with pytest.raises(KeyboardInterrupt):
        train_glyphclip.train(found, found, tokenizer, broken, 3, 0)
    monkeypatch.setattr(train_glyphclip, "train_step", step)
    resumed = train_glyphclip.train(found, found, tokenizer, broken, 3, 0)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    rows = [json.loads(line) for line in (broken / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2, 2, 3]
