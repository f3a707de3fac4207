"""Matching where images are kept in few bytes, and within a budget of all bytes."""

import json

import pytest
import torch

from distill.sets.cost import count_bytes
from distill.sets.set_file import read_set
from synth.coding import unpack_images
from tests.distill.cases import (
    TINY,
    CountingStop,
    artefacts,
    listen_with,
    outputs_of,
    read_json,
    write_recipe,
)

pytest.importorskip("constriction", reason="pip install 'limbeck[compact]'")

# Experts and matching alone.
SMALL = TINY.partition("[committee]")[0].replace("ipc = 1", "ipc = 2")
CODINGS = (
    "rounded:depth=2",
    "frequency:step=0.3:slope=0.5",
    "palette:colours=4",
    "bases:count=4:step=0.3",
    "tones:tones=3",
)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write_recipe(tmp_path_factory.mktemp("small"), SMALL, "small")


@pytest.fixture(scope="module")
def experts(small, tmp_path_factory):
    """A run with experts, for others to take."""
    from distill.__main__ import run

    out = tmp_path_factory.mktemp("experts") / "run"
    assert run(["run", str(small), "--out", str(out), "--stage", "experts", "--quiet"]) == 0
    return out


@pytest.fixture
def matched(small, experts, command, tmp_path):
    """Run the small recipe with some keys of [match]; returns its folder."""

    def call(*options, name="run"):
        out = tmp_path / name
        words = ("run", small, "--out", out, "--reuse", experts, "--quiet", *options)
        outcome = command(*words)
        assert outcome.code == 0, outcome
        return out

    return call


def set_options(**keys):
    return [word for key, value in keys.items() for word in ("--set", f"match.{key}={value}")]


def rows(out):
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [row for row in found if row["stage"] == "match"]


@pytest.mark.parametrize("coding", CODINGS)
def test_a_set_is_kept_as_coded_and_students_see_what_a_receiver_decodes(coding, matched):
    content = read_set(matched(*set_options(images=coding)) / "set.h5")
    assert content.coded is not None
    pixels, found = unpack_images(content.coded)
    assert type(found).__name__.lower() == coding.partition(":")[0]
    torch.testing.assert_close(content.images, content.preprocess(pixels))
    assert content.learned is not None


@pytest.mark.parametrize("coding", CODINGS)
def test_a_budget_is_kept(coding, matched):
    room = {"rounded": 350, "frequency": 220, "palette": 350, "bases": 235, "tones": 330}
    budget = room[coding.partition(":")[0]]
    out = matched(*set_options(images=coding, budget_bytes=budget))
    content = read_set(out / "set.h5")
    counted = count_bytes(content)
    # Labels are hard: learned ones alone would take 800 bytes.
    assert content.learned is None
    assert counted["total"] <= budget
    assert counted["total"] > 0.8 * budget, "bytes are left that nobody uses"
    for row in rows(out):
        assert (row["bits"] > 0) is (row["multiplier"] > 0) is row["applied"] is True


def test_learned_labels_count(matched):
    keys = set_options(images="frequency:step=0.3", budget_bytes=1100, labels="learned")
    content = read_set(matched(*keys) / "set.h5")
    assert content.learned is not None
    totals = count_bytes(content)["totals"]
    assert totals["hard"] + 700 < totals["learned"] <= 1100


def test_formation_composes_with_a_coding(matched):
    keys = set_options(images="frequency:step=0.3", budget_bytes=500, factor=2)
    content = read_set(matched(*keys) / "set.h5")
    assert (len(content.images), len(content.seen_images)) == (20, 80)
    assert count_bytes(content)["total"] <= 500


def test_stopped_matching_goes_on_to_the_same_set(matched, small, experts, refused, monkeypatch):
    keys = set_options(images="frequency:step=0.3", budget_bytes=220)
    unbroken = matched(*keys, name="unbroken")
    broken = unbroken.parent / "broken"
    monkeypatch.setattr("distill.stages.run_recipe.listen", listen_with(CountingStop(3)))
    words = ("run", small, "--out", broken, "--reuse", experts, "--quiet", *keys)
    assert "interrupted" in refused(130, *words)
    assert "match" not in outputs_of(broken)
    monkeypatch.setattr("distill.stages.run_recipe.listen", listen_with(CountingStop()))
    matched(*keys, name="broken")
    assert artefacts(broken) == artefacts(unbroken)
    assert rows(broken) == rows(unbroken)


@pytest.mark.usefixtures("short_search")
def test_a_search_fills_the_budget_and_is_kept(small, experts, command, tmp_path):
    out = tmp_path / "run"
    words = ("run", small, "--out", out, "--reuse", experts, "--bytes", "400")
    first = command(*words)
    assert first.code == 0, first
    tried = [line for line in first.err.splitlines() if line.startswith("search ")]
    assert len(tried) >= 4
    table = read_json(out / "manifest.json")["recipe"]["match"]
    assert table["budget_bytes"] == 400
    assert table["images"] != "pixels"
    found = f"{table['images']}, {table['ipc']} a class, factor {table['factor']}: "
    best = max(tried, key=lambda line: float(line.split()[-3]))
    assert found in best
    assert 0.7 * 400 < count_bytes(read_set(out / "set.h5"))["total"] <= 400
    before = outputs_of(out)
    again = command(*words)
    assert again.code == 0
    assert "search " not in again.err
    assert outputs_of(out) == before


@pytest.mark.usefixtures("short_search")
def test_what_is_given_is_not_searched(small, experts, command, tmp_path):
    words = ("run", small, "--reuse", experts, "--quiet", "--bytes", "400", "--out")
    keys = set_options(ipc=3, factor=1)
    assert command(*words, tmp_path / "ipc", *keys).code == 0
    table = read_json(tmp_path / "ipc" / "manifest.json")["recipe"]["match"]
    assert (table["search"], table["ipc"], table["factor"]) == (["images"], 3, 1)
    keys = set_options(images="rounded:depth=1")
    assert command(*words, tmp_path / "images", *keys).code == 0
    table = read_json(tmp_path / "images" / "manifest.json")["recipe"]["match"]
    assert (table["search"], table["images"]) == (["ipc", "factor"], "rounded:depth=1")
    assert table["ipc"] > 2


@pytest.mark.usefixtures("short_search")
def test_pixels_are_searched_as_students_see_them(small, experts, command, tmp_path):
    words = ("run", small, "--reuse", experts, "--bytes", "6000", "--out", tmp_path / "run")
    outcome = command(*words, *set_options(images="pixels"))
    assert outcome.code == 0, outcome
    tried = [line.split() for line in outcome.err.splitlines() if line.startswith("search ")]
    # 10 images of 8x8 float32 take 2,560 bytes.
    assert [line[1:6] for line in tried] == [
        ["pixels,", "2", "a", "class,", "factor"], ["pixels,", "2", "a", "class,", "factor"],
    ]  # fmt: skip
    assert count_bytes(read_set(tmp_path / "run" / "set.h5"))["total"] <= 6000


REFUSED = [
    (["--bytes", "10"], ["match.budget_bytes is 10", "allow more bytes"]),
    (["--bytes", "0"], ["--bytes"]),
    (["--set", "match.images=fourier"], ["coding fourier: there is no coding 'fourier'; choose"]),
    (
        ["--set", "match.images=rounded:deep=2"],
        ["rounded has no option 'deep'; did you mean depth"],
    ),
    (["--set", "match.images=rounded:depth=2.5"], ["depth is '2.5'; it must be a whole number"]),
    (["--set", "match.images=rounded:depth=20"], ["coding rounded:depth=20: depth is 20"]),
    (["--set", "match.images=frequency:block=3"], ["blocks of side 3 do not tile 8x8"]),
    (["--set", "match.budget_bytes=2000"], ["float32 pixels take 5,120", "name a coding"]),
    (
        ["--set", "match.budget_bytes=50", "--set", "match.images=rounded"],
        ["match.budget_bytes leaves", "grey ones take", "lower match.ipc"],
    ),
    (
        ["--bytes", "700", "--set", "match.labels=learned", "--set", "match.ipc=2"],
        ["match.budget_bytes is 700", "allow more bytes"],
    ),
    (["--set", "match.search=ipc"], ["match.search chooses within a budget"]),
    (["--set", "match.budget_bytes=300", "--set", "match.search=lr"], ["match.search"]),
]


@pytest.mark.parametrize(("options", "words"), REFUSED, ids=[" ".join(o) for o, _ in REFUSED])
def test_what_cannot_be_is_refused_in_one_line_before_anything_is_written(
    options, words, small, refused, tmp_path
):
    line = refused(2, "run", small, "--out", tmp_path / "out", *options)
    for word in words:
        assert word in line
    assert not (tmp_path / "out").exists()


def test_a_recipe_that_matches_nothing_has_no_budget(refused, tmp_path):
    line = refused(2, "run", "digits-recover", "--out", tmp_path / "out", "--bytes", "2000")
    assert "neither matches trajectories nor selects real images" in line
    assert "distill compress" in line
