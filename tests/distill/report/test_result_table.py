"""The table that a run and an evaluation end with."""

import pytest

from distill.report.result_table import result_lines
from distill.report.verdict import Score, gain_of
from tests.distill.report.cases import entry

BYTES = {
    "images": 2_000,
    "labels": 80,
    "projector": 0,
    "external": 0,
    "totals": {"hard": 2_040, "learned": 2_080},
    "total": 2_040,
}


def result(learned=0.6, seeds=3):
    coded = {**entry(0.5, seeds=seeds), "bytes": 2_070, "images": 30, "coding": "dct", "factor": 1}
    return {
        "students": {"mlp": {"hard": entry(0.453), "learned": entry(learned, seeds=seeds)}},
        "controls": {
            "random": {"mlp": {"hard": entry(0.45)}},
            "whole": {"mlp": {"hard": entry(0.9, seeds=1)}},
            "coded": {"mlp": {"learned": coded}},
        },
        "bytes": BYTES,
    }


def test_set_controls_bytes_and_clear_gains_stand_in_columns():
    assert result_lines(result()) == [
        "mlp",
        "  this set  hard     45.30 ± 0.40 %  3 seeds  2,040 bytes  "
        "+0.3 points against random images, within noise",
        "  this set  learned  60.00 ± 0.40 %  3 seeds  2,080 bytes  "
        "+15.0 points against random images, more than noise",
        "  random    hard     45.00 ± 0.40 %  3 seeds",
        "  whole     hard     90.00 %          1 seed",
        "  coded     learned  50.00 ± 0.40 %  3 seeds  2,070 bytes  "
        "30 images as dct, the set: +10.0 points, more than noise",
        "bytes: images 2,000, labels 80, projector 0, external 0; 2,040 in all with the labels of "
        "the fewest bytes",
        "The best label source (learned soft labels) trains mlp to 60.0 ± 0.4 % over 3 seeds, "
        "15.0 points above random real images (hard labels, 45.0 ± 0.4 % over 3 seeds). In the "
        "same bytes, coded real images train mlp to 50.0 ± 0.4 % over 3 seeds, the set's learned "
        "soft labels to 60.0 ± 0.4 % over 3 seeds: a gain of +10.0 points, the least of 1; the "
        "set is ahead in 1.",
    ]


def test_a_row_stands_beside_random_images_under_the_same_labels():
    taught = result()
    taught["students"]["mlp"]["teacher:bits=4"] = entry(0.7)
    taught["controls"]["random"]["mlp"]["teacher:bits=4"] = entry(0.65)
    remarks = [
        line.partition("points against random images")[0][-6:] for line in result_lines(taught)
    ]
    # Learned labels, which label no other images, stand beside the best of the control.
    assert remarks[1:4] == [" +0.3 ", " -5.0 ", " +5.0 "]


def test_lines_fit_a_narrow_terminal_and_keep_their_words():
    narrow, wide = result_lines(result(), 60), result_lines(result())
    assert max(map(len, narrow)) <= 60
    assert " ".join(narrow).split() == " ".join(wide).split()


@pytest.mark.parametrize(
    ("mean", "seeds", "words"),
    [
        (0.46, 3, "+1.0 points, more than noise"),
        (0.44, 3, "-1.0 points, more than noise"),
        (0.453, 3, "+0.3 points, within noise"),
        (0.6, 1, "+15.0 points, noise unknown with one seed"),
    ],
)
def test_a_gain_says_whether_seeds_explain_it(mean, seeds, words):
    random = Score("mlp", "hard", 0.45, 0.004, 3)
    assert gain_of(Score("mlp", "hard", mean, 0.004, seeds), random).text() == words


def test_one_seed_has_no_spread():
    lines = result_lines(result(seeds=1))
    assert "  60.00 %          1 seed  2,080" in lines[2]
