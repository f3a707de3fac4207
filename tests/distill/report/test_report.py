import json
import math
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from distill.report import render_report
from distill.report.charts import LineChart, Series, line_chart
from distill.report.images import png_data_uri, shown_size
from distill.report.scales import Scale, fit_scale, tick_labels, ticks
from distill.report.tables import plain_text, receiver_bytes
from distill.report.verdict import find_verdict
from tests.distill.report.cases import (
    MARKUP,
    Page,
    entry,
    make_metrics,
    make_minimal,
    make_report,
    make_summary,
)


@pytest.fixture(scope="module")
def text():
    return render_report(make_report())


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


@pytest.mark.parametrize("report", [make_report(), make_minimal()], ids=["full", "minimal"])
def test_report_is_balanced_html_with_ordered_headings_and_described_images(report):
    page = Page(render_report(report))
    assert (page.open, page.faults) == ([], [])
    assert all(image.get("alt") for image in page.all("img"))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = [a["href"][1:] for a in page.all("a")]
    targets += [i for _, a in page.tags for i in a.get("aria-labelledby", "").split()]
    assert set(targets) <= set(ids)
    assert page.all("html") == [{"lang": "en"}]
    assert page.tags.count(("caption", {})) == len(page.all("table"))


def test_report_makes_no_request(text, page):
    assert "http://" not in text
    assert "https://" not in text
    assert not page.all("link")
    assert not [script for script in page.all("script") if "src" in script]
    assert not re.search(r"@import|url\(", text)
    assert all(image["src"].startswith("data:image/png;base64,") for image in page.all("img"))
    policy = next(meta for meta in page.all("meta") if "http-equiv" in meta)
    assert "default-src 'none'" in policy["content"]


def test_a_projector_below_class_means_is_called_weak_at_the_top(text):
    assert "Weak projector" not in text
    fit = {"stage": "project", "held_out_agreement": 0.226, "nearest_mean": 0.274}
    report = replace(make_report(), metrics=[*make_metrics(), fit])
    head = render_report(report).partition("<main")[0]
    assert "Weak projector:</strong> the projector has its teacher’s class on 22.6%" in (
        head.replace("&#39;", "’")
    )


def test_report_is_deterministic(text):
    assert render_report(make_report()) == text


def test_report_shows_every_student_source_control_and_byte_count(text, page):
    visible = " ".join(page.texts)
    for student in ("convnet3", "resnet18"):
        assert student in visible
    for source in ("Hard labels", "Learned soft labels", "Committee votes", "Projector labels"):
        assert source in visible
    assert "Random images, committee votes" in visible
    assert "Whole data set, hard labels" in visible
    assert visible.count("control ") >= 3
    for count in ("78,500", "80,400", "678,400", "388,400", "351,000,000"):
        assert f">{count}<" in text
    for section in ("Images", "Soft labels", "Curves", "Stages", "Protocol", "Recipe"):
        assert section in visible
    assert "1 of 900 updates was not applied." in visible
    assert "2.6.0" in visible
    assert "ef" * 32 in visible


def test_minimal_report_leaves_empty_sections_out():
    page = Page(render_report(make_minimal()))
    assert not page.all("h2")
    assert not page.all("script")
    assert not page.all("table")
    assert "No student of this run" in " ".join(page.texts)


def test_report_escapes_markup_everywhere():
    report = make_report(ipc=1)
    names = [f"{MARKUP}{k}</script><b>" for k in range(10)]
    metrics = [{"stage": "committee", "member": MARKUP, "epoch": 1, "accuracy": 0.5}] * 2
    metrics.append({**metrics[0], "member": f"{MARKUP} 2"})
    evil = replace(
        report,
        title=MARKUP,
        class_names=names,
        metrics=metrics,
        recipe={MARKUP: {MARKUP: MARKUP}},
        manifest={
            "created": MARKUP,
            "versions": {MARKUP: MARKUP},
            "stages": {MARKUP: {"key": "<"}},
        },
        summary={"students": {MARKUP: {MARKUP: entry(0.5)}}, "protocol": {MARKUP: [MARKUP]}},
        soft_labels={MARKUP: report.soft_labels["votes"]},
    )
    text = render_report(evil)
    page = Page(text)
    assert (page.open, page.faults) == ([], [])
    assert MARKUP not in text
    assert "&lt;img src=x" in text
    assert not page.all("b")
    assert not [image for image in page.all("img") if "onerror" in image]
    data = re.search(r'id="soft-label-data">(.*?)</script>', text).group(1)
    assert "<" not in data
    assert "\\u003cimg" in data
    assert names[0] in {row[0] for row in json.loads(data)[0]["rows"]}


def test_verdict_says_that_the_run_beats_random():
    verdict = find_verdict(make_summary())
    assert verdict.outcome == "beats"
    assert "committee votes) trains convnet3 to 78.3 ± 0.4 % over 3 seeds" in verdict.sentence
    assert "14.2 points above random real images (committee votes, 64.1" in verdict.sentence
    assert "ahead of random on 2 of 2 students" in verdict.sentence


@pytest.mark.parametrize(
    ("mean", "std", "seeds", "outcome", "words"),
    [
        (0.60, 0.004, 3, "below", "does not beat its random control"),
        (0.641, 0.004, 3, "below", "no better than"),
        (0.645, 0.004, 3, "unclear", "within the spread of the seeds"),
        (0.70, 0.0, 1, "beats", "with a single seed the spread is unknown"),
        (math.nan, 0.0, 3, "unknown", "No student"),
    ],
)
def test_verdict_is_honest_when_the_gain_is_not_shown(mean, std, seeds, outcome, words):
    random = {"a": {"votes": entry(0.641)}}
    students = {"a": {"votes": entry(mean, std, seeds)}}
    verdict = find_verdict({"students": students, "controls": {"random": random}})
    assert verdict.outcome == outcome
    assert words in verdict.sentence


def test_verdict_states_the_least_gain_at_equal_bytes():
    students = {"a": {"hard": entry(0.9)}, "b": {"hard": entry(0.8)}}
    controls = {
        "random": {"a": {"hard": entry(0.5)}, "b": {"hard": entry(0.5)}},
        "coded": {"a": {"hard": entry(0.85)}, "b": {"hard": entry(0.79)}},
        "herded": {"a": {"hard": entry(0.8)}, "b": {"hard": entry(0.812)}},
    }
    verdict = find_verdict({"students": students, "controls": controls})
    assert verdict.outcome == "beats"
    assert "coded real images train b to 81.2" in verdict.sentence
    assert "a gain of -1.2 points, the least of 2; the set is ahead in 1." in verdict.sentence


def test_verdict_says_when_there_is_no_control():
    verdict = find_verdict({"students": {"a": {"votes": entry(0.9)}}})
    assert verdict.outcome == "unknown"
    assert "no random control was evaluated" in verdict.sentence


def chart(*series, percent=False):
    return line_chart(LineChart("c", "Title", "", "step", "value", series, percent))


def test_chart_without_points_is_empty():
    assert chart() == ""
    assert chart(Series("a", [])) == ""
    assert chart(Series("a", [(math.nan, 1.0)])) == ""


def test_chart_draws_one_point_as_a_dot():
    drawn = chart(Series("a", [(3.0, 0.5)]))
    assert drawn.count("<circle") == 1
    assert "nan" not in drawn


def test_chart_draws_a_constant_as_a_level_line():
    drawn = chart(Series("a", [(i, 0.25) for i in range(20)]))
    heights = {point.split()[1] for point in re.findall(r"[ML]([\d.]+ [\d.]+)", drawn)}
    assert len(heights) == 1


def test_chart_breaks_a_line_where_a_value_is_not_finite():
    points = [(i, math.nan if i == 10 else float(i)) for i in range(20)]
    drawn = chart(Series("a", [*points, (20, math.inf), (21, None)]))
    assert len(re.findall(r"M[\d.]", drawn)) == 2
    assert "inf" not in drawn


def test_chart_says_that_nothing_was_finite():
    drawn = chart(Series("a", [(i, math.nan) for i in range(3)]))
    assert "No finite value was recorded." in drawn


def test_chart_keeps_a_spike_when_it_thins_a_long_series():
    points = [(i, 100.0 if i == 777 else 1.0) for i in range(5000)]
    drawn = chart(Series("a", points))
    assert "highest 100" in drawn
    assert drawn.count(" L") < 420
    assert "log scale" in drawn


def test_chart_has_title_description_and_percent_ticks():
    drawn = chart(Series("a", [(0, 0.2), (9, 0.9)]), Series("<b>", [(0, 0.1)]), percent=True)
    page = Page(drawn)
    assert (page.open, page.faults) == ([], [])
    assert page.all("title")
    assert page.all("desc")
    assert "a: from 20 % at 0 to 90 % at 9" in " ".join(page.texts)
    assert ">80<" in drawn


@pytest.mark.parametrize(("low", "high"), [(0, 1), (1e-7, 3e-7), (-5, 3), (0, 12345), (1e8, 1e9)])
def test_ticks_are_inside_and_told_apart(low, high):
    values = ticks(Scale(low, high, 0, 100))
    assert 3 <= len(values) <= 7
    assert all(low - 1e-9 * abs(high) <= value <= high * (1 + 1e-9) for value in values)
    assert len(set(tick_labels(values))) == len(values)


def test_scale_never_suggests_a_negative_value_of_a_positive_quantity():
    assert fit_scale([0.01, 0.3], (0, 1)).low == 0.0


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_clipped_and_survive_values_that_are_not_finite(channels):
    image = np.full((4, 4, channels), 1.3)
    image[0, 0] = np.nan
    image[1, 1] = -np.inf
    assert png_data_uri(image).startswith("data:image/png;base64,iVBOR")


def test_image_sizes_are_whole_multiples_of_their_pixels():
    assert shown_size(28, 28) == (56, 56)
    assert shown_size(32, 32) == (64, 64)
    assert shown_size(64, 64) == (64, 64)
    assert shown_size(224, 224) == (96, 96)


def test_report_with_numbers_that_are_not_finite_renders():
    report = make_report(channels=3)
    nan = math.nan
    bad = {"mean": nan, "std": nan, "runs": [nan, 0.5]}
    broken = replace(
        report,
        summary={"students": {"a": {"votes": bad}}, "bytes": {"images": nan, "labels": None}},
        metrics=[{"stage": "match", "step": i, "distance": nan, "student_lr": 1} for i in range(3)],
        soft_labels={"votes": np.full((20, 10), nan)},
        manifest={"stages": {"match": {"seconds": nan, "peak_memory_bytes": None}}},
    )
    text = render_report(broken)
    assert "not finite" in text
    assert "NaN" not in re.search(r"soft-label-data.*", text).group(0)


def test_many_classes_and_images_are_cut_and_the_page_says_so():
    text = render_report(make_report(classes=40, ipc=12))
    assert "The first 20 of 40 classes are shown." in text
    assert "(10 of 12)" in text
    assert "32 other classes" in text


def test_label_bytes_may_be_one_number():
    bytes_ = {"images": 10, "labels": 5, "projector": 7, "external": 9}
    assert receiver_bytes(bytes_, "votes") == ("15", "0")
    assert receiver_bytes(bytes_, "projector") == ("17", "9")
    assert receiver_bytes({}, "votes")[0] == "–"


def test_plain_text_cuts_long_lists():
    assert plain_text(list(range(100))).endswith("11, … (100 in all)")
    assert plain_text([True, None, 0.1 + 0.2]) == "yes, –, 0.3"


def test_input_that_does_not_fit_is_refused():
    report = make_report()
    with pytest.raises(ValueError, match="give one label for each image"):
        replace(report, synthetic_labels=[0])
    with pytest.raises(ValueError, match="move the channels last"):
        replace(report, real=np.zeros((20, 1, 8, 8)))
    with pytest.raises(ValueError, match="give one row of probabilities"):
        replace(report, soft_labels={"votes": np.zeros((3, 10))})


def test_the_protocol_is_that_of_the_sources_that_were_measured():
    report = make_report()
    protocol = {name: {"epochs": 7} for name in ("hard", "votes", "projector", "whole")}
    students = {"mlp": {"hard": entry(0.5)}}
    summary = {**report.summary, "protocol": protocol, "students": students, "controls": {}}
    text = render_report(replace(report, summary=summary))
    assert "hard.epochs" in text
    assert "whole.epochs" in text
    assert "votes.epochs" not in text
    assert "projector.epochs" not in text
