"""The report's confusion matrices, the plot of bytes against accuracy, and comparisons."""

import json
import re
from dataclasses import replace

import pytest

from distill.report import render_comparison, render_report
from distill.report.confusion import confusion_tables
from distill.report.rate_chart import rate_chart, rate_scales
from distill.report.rates import rate_points
from distill.store.seals import sealed
from tests.distill.cases import copy_run, read_json
from tests.distill.report.cases import MARKUP, Page, entry, make_report, make_summary, make_sweep


def test_confusion_table_shows_the_best_label_source_and_its_worst_mistakes():
    summary = make_summary()
    summary["confusion"]["convnet3"]["hard"] = [[1] * 10] * 10
    names = [f"digit {k}" for k in range(10)]
    (first, _) = confusion_tables(summary, names)
    assert (first.student, first.source) == ("convnet3", "committee votes")
    assert first.mistakes[0] == "40.0 % of digit 1 are taken for digit 2"
    assert first.mistakes[1] == "10.0 % of digit 0 are taken for digit 1"
    cell = first.rows[1][1]
    assert (cell.count, cell.share, cell.right) == ("9", 60, True)
    assert first.rows[0][5].count == ""


def test_confusion_table_survives_a_class_without_test_images():
    summary = {"students": {"a": {"hard": entry(0.5)}}, "confusion": {"a": {"hard": [[0, 0]] * 2}}}
    (table,) = confusion_tables(summary, [])
    assert table.classes == ["class 0", "class 1"]
    assert table.mistakes == []


def test_points_of_a_run_have_the_bytes_of_their_labels():
    points = rate_points(make_summary(), [])["convnet3"]
    found = {(point.name, point.control): point for point in points}
    assert found["committee votes", False].bytes == 600_000
    assert found["projector labels", False].bytes == 310_000
    assert found["projector labels", False].external == 351_000_000
    assert "351 MB from elsewhere" in found["projector labels", False].text
    assert "on random real images" in found["committee votes", True].text
    assert [point.bytes for point in points] == sorted(point.bytes for point in points)
    assert not found["committee votes", False].dominated


def test_points_of_a_sweep_replace_the_runs_and_mark_what_is_dominated():
    (points,) = rate_points(make_summary(), make_sweep()).values()
    own = {point.name: point.dominated for point in points if not point.control}
    assert own == {"hard labels": False, "topk:k=1": True, "roots": False, "full": False}
    assert len(points) == 8


def test_a_single_point_makes_no_plot():
    summary = {"students": {"a": {"hard": entry(0.5)}}, "bytes": {"labels": {"hard": 10}}}
    assert rate_points(summary, []) == {}


def test_rate_chart_has_a_focusable_described_mark_for_every_point():
    (points,) = rate_points({}, make_sweep()).values()
    page = Page(rate_chart("rate", "Title", points, rate_scales(points)))
    assert (page.open, page.faults) == ([], [])
    marks = [attrs for attrs in page.all("g") if "point" in attrs.get("class", "")]
    assert [mark["aria-label"] for mark in marks] == [point.text for point in points]
    assert all(mark["tabindex"] == "0" for mark in marks)
    assert page.all("svg")[0]["role"] == "group"
    circles = [float(circle["cx"]) for circle in page.all("circle")]
    assert circles == sorted(circles)
    # Four decades and a half: the axis is logarithmic, so equal ratios are equal distances.
    hard, roots, full = (
        next(float(c["cx"]) for c, p in zip(page.all("circle"), points, strict=True) if p.name == n)
        for n in ("hard labels", "roots", "full")
    )
    assert (roots - hard) / (full - hard) == pytest.approx(2.0 / 3.653, abs=0.01)


def test_report_allows_exactly_its_own_scripts():
    text = render_report(make_report())
    policy = next(m["content"] for m in Page(text).all("meta") if "http-equiv" in m)
    assert policy.count("sha256-") == 2
    assert len(re.findall(r"<script>", text)) == 2
    assert "Most often: 40.0 % of digit 1 are taken for digit 2" in text


def test_comparison_puts_runs_side_by_side_and_says_what_differs():
    first = make_report()
    other = replace(
        first,
        recipe={**first.recipe, "match": {"ipc": 2, "gradient": "frozen"}},
        summary=make_summary(votes=0.6),
    )
    text = render_comparison({"exact": first, "tesla": other})
    page = Page(text)
    assert (page.open, page.faults) == ([], [])
    assert page.tags.count(("caption", {})) == len(page.all("table"))
    assert "match.gradient</th><td>adjoint</td><td>frozen</td>" in text
    assert "match.ipc" not in text
    assert '<strong>78.3 ± 0.4</strong></td><td class="num">60.0 ± 0.4</td>' in text
    assert "Compare with care" not in text
    assert "exact: committee votes" in text


def test_comparison_warns_of_other_data_and_other_protocols():
    first = make_report()
    other = replace(
        first,
        manifest={**first.manifest, "data": {"source": "glyphs:10", "digest": "00"}},
        summary={**first.summary, "protocol": {"steps": 1}},
    )
    text = render_comparison({"a": first, "b": other})
    assert "made from different data" in text
    assert "not trained or tested in the same way" in text


def test_comparison_escapes_markup_and_makes_no_request():
    report = make_report(ipc=1)
    evil = replace(report, class_names=[MARKUP] * 10, sweep=make_sweep())
    text = render_comparison({MARKUP: evil, "b": replace(evil, recipe={MARKUP: MARKUP})})
    page = Page(text)
    assert MARKUP not in text
    assert (page.open, page.faults) == ([], [])
    assert "http://" not in text
    assert "https://" not in text
    with pytest.raises(ValueError, match="at least two"):
        render_comparison({"a": evil})


def test_command_reports_confusions_and_a_sweep_that_lies_in_the_run(run_copy, command):
    summary = read_json(run_copy / "summary.json")
    matrices = summary["confusion"]["convnet2:width=4"]
    # Two seeds, each tested on all test images.
    assert {sum(map(sum, matrix)) for matrix in matrices.values()} == {
        2 * summary["protocol"]["test_images"]
    }
    hard = summary["students"]["convnet2:width=4"]["hard"]["mean"]
    right = sum(row[k] for k, row in enumerate(matrices["hard"]))
    assert right / (2 * summary["protocol"]["test_images"]) == pytest.approx(hard)

    (run_copy / "sweep").mkdir()
    (run_copy / "sweep" / "sweep.json").write_text(json.dumps({"points": make_sweep()}))
    assert command("report", run_copy).code == 0
    text = (run_copy / "report.html").read_text(encoding="utf-8")
    assert "Confusion matrix of convnet2:width=4" in text
    assert 'aria-label="roots: 70.0' in text


def flip_digit(path, place):
    """Change a digit after some text of a file."""
    text = path.read_text()
    at = next(i for i in range(text.index(place), len(text)) if text[i].isdigit())
    path.write_text(f"{text[:at]}{(int(text[at]) + 1) % 10}{text[at + 1 :]}")


def test_a_report_shows_no_number_that_was_changed_since_the_run(run_copy, command, refused):
    assert command("report", run_copy).code == 0
    page = (run_copy / "report.html").read_bytes()
    # What it says is made of the evaluation and the manifest, which are under digests.
    flip_digit(run_copy / "summary.json", '"mean"')
    assert command("report", run_copy).code == 0
    assert (run_copy / "report.html").read_bytes() == page
    flip_digit(run_copy / "metrics.jsonl", '"distance"')
    outcome = command("report", run_copy)
    assert outcome.code == 0
    assert "no curves of match are drawn: their rows in" in outcome.err
    flip_digit(run_copy / "evaluation.json", '"mean"')
    assert "evaluation.json is not as the run left it" in refused(1, "report", run_copy)


def test_a_changed_table_of_a_sweep_is_not_drawn(run_copy, command, refused):
    (run_copy / "sweep").mkdir()
    path = run_copy / "sweep" / "sweep.json"
    path.write_text(json.dumps(sealed({"points": make_sweep()})))
    assert command("report", run_copy).code == 0
    flip_digit(path, '"mean"')
    assert "sweep.json is not as the sweep left it" in refused(1, "report", run_copy)


def test_command_compares_runs_and_refuses_what_is_none(
    run_copy, finished, tmp_path, command, refused
):
    other = copy_run(finished, tmp_path / "other" / "run")
    page = tmp_path / "both.html"
    assert command("report", run_copy, other, "--out", page, "--json").code == 0
    text = page.read_text(encoding="utf-8")
    assert ">other/run</th>" in text
    assert "twice" in refused(1, "report", run_copy, run_copy, "--out", page)
    assert "manifest" in refused(1, "report", run_copy, tmp_path, "--out", page)
    assert "one run" in refused(2, "report", run_copy, other, "--sweep", tmp_path)
    assert "distill sweep" in refused(1, "report", run_copy, "--sweep", tmp_path)
