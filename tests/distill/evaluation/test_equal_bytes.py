"""The controls in as many bytes as the set, from the command to the page."""

import json
import re

from distill.evaluation.small_network import BITS
from distill.sets.coded_images import CODINGS
from distill.store.files import digest_file
from tests.distill.cases import STUDENT, read_json, rewrite_manifest

QUICK = ("--epochs", "5", "--whole-epochs", "1", "--quiet", "--json")


def test_controls_have_the_form_of_random_and_the_test_images_choose_nothing(
    finished, command, asked
):
    outcome = command(
        "evaluate", finished, "--equal-bytes", "--labels", "hard,learned", "--seeds", "2", *QUICK
    )
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    first = asked.index("test")
    assert "validation" in asked[:first]
    assert "validation" not in asked[first:]
    controls, counted = found["controls"], found["bytes"]
    assert set(controls) == {"random", "whole", "coded", "herded", "network"}
    random, herded = controls["coded"][STUDENT], controls["herded"][STUDENT]
    assert set(random) == set(herded) == {"hard", "learned"}
    for source, stats in [*random.items(), *herded.items()]:
        assert set(controls["random"][STUDENT]["hard"]) <= set(stats)
        assert len(stats["runs"]) == 2
        assert stats["coding"] in CODINGS
        assert 0 < stats["bytes"] <= counted["totals"][source]
        assert stats["images"] % (10 * stats["factor"] ** 2) == 0
    for source, stats in random.items():
        assert all(stats[key] == herded[source][key] for key in ("coding", "factor"))
        assert len(set(herded[source]["runs"])) == 2, "the students differ in their seeds"
    networks = {
        source: (name, stats)
        for name, sources in controls["network"].items()
        for source, stats in sources.items()
    }
    assert set(networks) == {"hard", "learned"}
    for source, (name, stats) in networks.items():
        assert name == f"convnet3:width={stats['width']}"
        assert len(stats["runs"]) == 2
        assert stats["bits"] in BITS
        assert 0.7 * counted["totals"][source] < stats["bytes"] <= counted["totals"][source]
    said = found["protocol"]
    assert said["coded"]["candidates"] == list(CODINGS)
    assert said["coded"]["factors"] == [1, 2]
    assert said["coded"]["on"].endswith("1 epochs; the best 5 again, 5 epochs")
    assert said["network"]["images"] == said["whole"]["images"]


def _put_evaluation(folder, evaluation):
    """Let a run have an evaluation, as if its own stage had made it."""
    path, manifest = folder / "evaluation.json", read_json(folder / "manifest.json")
    path.write_text(json.dumps({**read_json(path), **evaluation}))
    manifest["stages"]["evaluate"]["outputs"]["evaluation.json"] = digest_file(path)
    rewrite_manifest(folder, manifest)


def test_table_and_report_show_the_controls(run_copy, command):
    shown = command(
        "evaluate", run_copy, "--equal-bytes", "--labels", "hard", "--seeds", "1",
        "--epochs", "1", "--whole-epochs", "1", "--quiet",
    )  # fmt: skip
    for line in (
        r"\n  coded .* [\d,]+ bytes  [\d,]+ images as \w+.*, the set: [+-][\d.]+ points",
        r"\n  herded .* [\d,]+ bytes  [\d,]+ images as \w+.*, the set: [+-][\d.]+ points, noise",
        r"convnet3:width=\d+\n  network .* [\d,]+ bytes  of all images, [48] bits a weight",
    ):
        assert re.search(line, shown.out)
    assert " in all with the labels of the fewest bytes" in shown.out
    outcome = command(
        "evaluate", run_copy, "--equal-bytes", "--labels", "hard", "--seeds", "1", *QUICK
    )
    _put_evaluation(run_copy, json.loads(outcome.out))
    assert command("report", run_copy).code == 0
    page = (run_copy / "report.html").read_text()
    assert "Coded real images at the bytes of hard labels" in page
    assert "Coded herded images at the bytes of hard labels" in page
    assert re.search(r"In the bytes of hard labels, convnet3:width=\d+ with [48] bits", page)
    assert '<th scope="col" class="num">convnet3' not in page
