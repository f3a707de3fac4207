"""Selection by difficulty as a stage, against scores from the snapshots one by one."""

import itertools

import pytest
import torch

from distill.recipes.build import build_data, build_network
from distill.recipes.loading import load_recipe
from distill.sets.set_file import read_set
from distill.store.experts import read_snapshots
from synth.parameters import load_vector
from tests.distill.cases import TINY, outputs_of, read_json, write_recipe
from tests.distill.making_cases import DATA, EVALUATE

EXPERTS = "[experts]" + TINY.partition("[experts]")[2].partition("[match]")[0]

SELECT = DATA + EXPERTS + '[select]\nipc = 2\nmethod = "el2n"\n\n' + EVALUATE


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return write_recipe(tmp_path_factory.mktemp("recipe"), SELECT, "hard")


@pytest.fixture(scope="module")
def chosen(recipe, tmp_path_factory, one_thread):
    """A folder with experts, and the set by EL2N."""
    from distill.__main__ import run

    out = tmp_path_factory.mktemp("chosen") / "run"
    assert run(["select", str(recipe), "--out", str(out), "--quiet"]) == 0
    return out


def places(content, data):
    """Where each image of a set stands among the training images."""
    pixels = content.preprocess.inverse(content.images).flatten(1)
    nearest = torch.cdist(pixels, data.train.images.flatten(1)).min(dim=1)
    assert float(nearest.values.max()) < 1e-3
    return nearest.indices


def asked(out, content, data):
    """Logits [experts, epochs + 1, m, k] of every snapshot."""
    network = build_network("convnet2:width=4", data.channels, data.size, data.classes, 0).eval()
    images = content.preprocess(data.train.images)
    found = []
    for expert in range(2):
        rows = []
        for epoch in range(4):
            load_vector(network, read_snapshots(out / "experts.h5", expert, (epoch, epoch))[0])
            with torch.no_grad():
                rows.append(network(images))
        found.append(torch.stack(rows))
    return torch.stack(found)


def slow_el2n(logits, labels):
    away = logits[:, 2].softmax(dim=2) - torch.eye(10)[labels]
    return away.square().sum(dim=2).sqrt().mean(dim=0)


def slow_forgetting(logits, labels):
    right = logits[:, 1:].argmax(dim=3) == labels
    counts = torch.zeros(len(labels))
    for expert in right:
        for image in range(len(labels)):
            looks = expert[:, image].tolist()
            pairs = itertools.pairwise(looks)
            counts[image] += sum(a and not b for a, b in pairs) if any(looks) else len(looks)
    return counts / len(right)


@pytest.mark.parametrize("difficulty", ["easy", "hard"])
@pytest.mark.parametrize(("method", "slow"), [("el2n", slow_el2n), ("forgetting", slow_forgetting)])
def test_chosen_images_are_those_of_a_slow_ranking(
    method, slow, difficulty, recipe, chosen, command
):
    words = ("--set", f"select.method={method}", "--set", f"select.difficulty={difficulty}")
    assert command("select", recipe, "--out", chosen, "--quiet", *words).code == 0
    content = read_set(chosen / "set.h5")
    data = build_data(load_recipe(str(recipe)).data)
    found, labels = places(content, data), data.train.labels
    assert torch.equal(labels[found], content.hard)
    scores = slow(asked(chosen, content, data), labels)
    for label in range(10):
        own = scores[labels == label].sort(descending=difficulty == "hard").values[:2]
        picked = scores[found[content.hard == label]].sort(descending=difficulty == "hard").values
        torch.testing.assert_close(picked, own, atol=1e-5, rtol=0)
    assert content.manifest["network"] == "convnet2:width=4"


@pytest.mark.parametrize(
    "change", ["select.difficulty=middle", "select.difficulty=spread", "select.scored_epoch=3"]
)
def test_every_option_changes_the_set(change, recipe, chosen, command):
    assert command("select", recipe, "--out", chosen, "--quiet").code == 0
    before = outputs_of(chosen)["select"]
    outcome = command("select", recipe, "--out", chosen, "--quiet", "--set", change)
    assert outcome.code == 0, outcome.err
    assert outputs_of(chosen)["select"] != before
    assert list(read_json(chosen / "manifest.json")["stages"]) == ["experts", "select"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("select.scored_epoch=4", "select.scored_epoch is 4, but experts.epochs is 3; lower"),
        ("select.method=random", "[experts] and [match] go together, unless select.method"),
        ("experts=", "[experts] and [match] go together, unless select.method"),
    ],
)
def test_recipe_is_refused_in_one_line(change, words, recipe, refused, tmp_path):
    assert words in refused(2, "select", recipe, "--out", tmp_path / "out", "--set", change)


def test_matching_may_start_from_easy_images(tmp_path, command):
    path = write_recipe(tmp_path, TINY, "match")
    words = ("--set", "match.init=easy", "--set", "experts.keep=window", "--set", "match.ipc=2")
    out = tmp_path / "run"
    once = ("--set", "match.iterations=1", "--set", "match.image_lr=1e-30")
    for verb in ("experts", "match"):
        outcome = command(verb, path, "--out", out, "--quiet", *words, *once)
        assert outcome.code == 0, outcome.err
    content = read_set(out / "set.h5")
    data = build_data(load_recipe(str(path)).data)
    network = build_network("convnet2:width=4", data.channels, data.size, data.classes, 0).eval()
    found, labels, scores = places(content, data), data.train.labels, 0
    for expert in range(2):
        load_vector(network, read_snapshots(out / "experts.h5", expert, (3, 3))[0])
        with torch.no_grad():
            away = network(content.preprocess(data.train.images)).softmax(dim=1)
        scores = scores + (away - torch.eye(10)[labels]).norm(dim=1) / 2
    for label in range(10):
        own = scores[labels == label].sort().values[:2]
        picked = scores[found[content.hard == label]].sort().values
        torch.testing.assert_close(picked, own, atol=1e-5, rtol=0)
