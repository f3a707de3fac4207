"""What recovery takes from real images: groups of difficulty, anchors, patches; stopped runs."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from distill.__main__ import run
from distill.recipes.build import build_data
from distill.recipes.loading import load_recipe
from distill.sets.set_file import read_set
from distill.teachers.loading import load_committee, load_networks
from synth.formation import encode_images
from synth.recovery import precision_scores
from tests.distill.cases import CountingStop, artefacts, copy_run, listen_with, write_recipe
from tests.distill.making_cases import RECOVER

# Steps so small that images stay what they started from.
STILL = ("recover.lr=1e-30", "recover.iterations=2")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    text = RECOVER.replace("candidates = 4", "candidates = 20")
    return write_recipe(tmp_path_factory.mktemp("recipe"), text, "real")


@pytest.fixture(scope="module")
def taught(recipe, tmp_path_factory, one_thread):
    """A run folder with the committee. Change only a copy."""
    out = tmp_path_factory.mktemp("taught") / "run"
    assert run(["run", str(recipe), "--out", str(out), "--quiet", "--stage", "committee"]) == 0
    return out


@pytest.fixture
def recovered(recipe, taught, command, tmp_path, monkeypatch):
    """Recover with these keys; returns the set, the real data and the run's committee."""
    found = []

    def watched(context):
        found.append(load_committee(context))
        return load_networks(context)

    monkeypatch.setattr("distill.stages.recover.batch.load_networks", watched)

    def make(*keys):
        out = copy_run(taught, tmp_path / "out")
        settings = [word for key in keys for word in ("--set", key)]
        outcome = command("recover", recipe, "--out", out, "--quiet", *settings)
        assert outcome.code == 0, outcome.err
        return read_set(out / "set.h5"), build_data(load_recipe(str(recipe)).data), found[0]

    return make


def places(images, content, data):
    """Where each of these images stands among the training images."""
    wanted = content.preprocess(data.train.images).flatten(1)
    nearest = torch.cdist(images.flatten(1), wanted).min(dim=1)
    # A distance of equal images, as cdist computes it, is below this; of different ones, above 1.
    assert float(nearest.values.max()) < 0.05
    return nearest.indices


def test_each_image_starts_from_its_own_group_of_difficulty(recovered):
    content, data, committee = recovered("recover.init=groups", *STILL)
    found, labels = places(content.images, content, data), data.train.labels
    assert torch.equal(labels[found], content.hard)
    real = content.preprocess(data.train.images)
    scores = [precision_scores(member, real) for member in committee.members]
    for label in range(10):
        own = torch.nonzero(labels == label).flatten().tolist()
        ranks = {
            place: sum(sum(float(s[other]) < float(s[place]) for other in own) for s in scores)
            for place in own
        }
        order = sorted(own, key=ranks.get)
        half = -(-len(order) // 2)
        easy, hard = (found[content.hard == label]).tolist()
        assert ranks[easy] <= ranks[order[half - 1]]
        assert ranks[hard] >= ranks[order[half]]


def test_anchors_are_the_real_images_that_the_committee_knows_best(recovered):
    keys = ("recover.init=anchors", "recover.aim=anchors", "recover.factor=2", "recover.ipc=1")
    content, data, committee = recovered(*keys, *STILL)
    assert content.images.shape == (10, 1, 8, 8)
    labels, real = data.train.labels, content.preprocess(data.train.images)
    losses = cross_entropy(committee.vote(real), labels, reduction="none")
    for label, image in enumerate(content.images):
        own = torch.nonzero(labels == label).flatten()
        # With candidates for all images of a class, the chosen ones are its best.
        best = own[losses[own].argsort()[:4]]
        wanted = encode_images(real[best], 2)[0]
        tiles = wanted.unfold(1, 4, 4).unfold(2, 4, 4).reshape(4, 16)
        found = image.unfold(1, 4, 4).unfold(2, 4, 4).reshape(4, 16)
        torch.testing.assert_close(found, tiles, atol=1e-4, rtol=0)


@pytest.mark.parametrize("patches", ["starts", "nearest"])
def test_blends_mix_images_with_real_ones_of_their_class(patches, recovered):
    keys = ("recover.init=noise", "recover.blends=1", "recover.blend_kept=0")
    if patches == "starts":
        keys = ("recover.init=real", *keys[1:])
    content, data, _ = recovered(*keys, f"recover.patches={patches}", *STILL)
    found = places(content.images, content, data)
    assert torch.equal(data.train.labels[found], content.hard)


@pytest.mark.parametrize("at", [3, 7, 9])
def test_stopped_recovery_with_groups_and_blends_goes_on_to_the_same_end(
    at, recipe, taught, command, tmp_path, monkeypatch
):
    keys = ("init=groups", "aim=groups", "blends=2", "patches=nearest")
    settings = [word for key in keys for word in ("--set", f"recover.{key}")]
    whole, stopped = (copy_run(taught, tmp_path / name) for name in ("whole", "stopped"))
    arguments = [
        ("recover", recipe, "--out", out, "--quiet", *settings) for out in (whole, stopped)
    ]
    assert command(*arguments[0]).code == 0
    monkeypatch.setattr("distill.stages.run_recipe.listen", listen_with(CountingStop(at)))
    assert command(*arguments[1]).code == 130
    monkeypatch.undo()
    assert command(*arguments[1]).code == 0
    assert artefacts(stopped) == artefacts(whole)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (("aim=groups", "batches=within"), 'set recover.batches = "across"'),
        (("aim=directions", "bn_weight=0"), 'recover.aim = "directions" has no weight'),
        (("aim=anchors", "candidates=1"), "recover.candidates is 1, but ipc 2"),
    ],
)
def test_keys_that_rule_each_other_out_are_refused(keys, words, recipe, refused, tmp_path):
    settings = [word for key in keys for word in ("--set", f"recover.{key}")]
    assert words in refused(2, "recover", recipe, "--out", tmp_path / "out", *settings)


def test_anchors_of_whitened_images_are_refused(recipe, refused, tmp_path):
    changes = ("--set", "recover.aim=anchors", "--set", "data.zca=true")
    line = refused(2, "recover", recipe, "--out", tmp_path / "out", *changes)
    assert 'recover.aim or init = "anchors" reads pixels; set data.zca = false' in line
