"""What recovery takes from real images: groups of difficulty, anchors, patches; stopped runs."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from distill.__main__ import run
from distill.recipes.build import build_data
from distill.recipes.loading import load_recipe
from distill.sets.set_file import read_set
from distill.store.jsonl import read_lines
from distill.teachers.loading import load_committee, load_networks
from synth.formation import decode_images, encode_images
from synth.recovery import edge_complexity, precision_scores, recover_images
from tests.distill.cases import CountingStop, artefacts, copy_run, listen_with, write_recipe
from tests.distill.making_cases import RECOVER
from tests.synth.recovery.test_aims import middle_outputs, slow_gradients

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


@pytest.fixture
def first_step(recipe, taught, command, tmp_path, monkeypatch):
    """Take a step, or several, with these keys.

    Gives each batch's problem and images with what was logged, the committee, and the real images
    with their classes; the last set is `make.content`.
    """

    def make(*keys, steps=1):
        seen, out = [], copy_run(taught, tmp_path / "out")

        def spied(state, steps, problem, settings):
            seen.append((problem, state.images.clone()))
            return recover_images(state, steps, problem, settings)

        def watched(context):
            networks.append(load_networks(context))
            return networks[-1]

        networks = []
        monkeypatch.setattr("distill.stages.recover.batch.recover_images", spied)
        monkeypatch.setattr("distill.stages.recover.batch.load_networks", watched)
        settings = [
            word for key in (*keys, f"iterations={steps}") for word in ("--set", f"recover.{key}")
        ]
        assert command("recover", recipe, "--out", out, "--quiet", *settings).code == 0
        rows = [row for row in read_lines(out / "metrics.jsonl") if "cross_entropy" in row]
        data = build_data(load_recipe(str(recipe)).data)
        make.content = read_set(out / "set.h5")
        real, rows = (
            make.content.preprocess(data.train.images),
            rows[:: max(1, len(rows) // len(seen))],
        )
        return list(zip(seen, rows, strict=True)), networks[0], real, data.train.labels

    return make


def slow_groups(networks, real, labels, group):
    """The images of every class that are in the easier or the harder half, by ranks."""
    scores, chosen = [precision_scores(network, real).tolist() for network in networks], []
    for label in range(10):
        own = torch.nonzero(labels == label).flatten().tolist()
        ranks = [sum(sum(s[other] < s[place] for other in own) for s in scores) for place in own]
        order = [place for _, place in sorted(zip(ranks, own, strict=True))]
        chosen += [place for rank, place in enumerate(order) if rank * 2 // len(order) == group]
    return real[chosen]


def slow_group_distance(network, images, view, own):
    layers = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    met = []
    handles = [
        layer.register_forward_pre_hook(lambda m, inputs: met.append(inputs[0].double()))
        for layer in layers
    ]
    network(view.apply(images))
    network(own)
    for handle in handles:
        handle.remove()
    total = 0.0
    for place, (found, wanted) in enumerate(
        zip(met[: len(layers)], met[len(layers) :], strict=True)
    ):
        gaps = [
            (part(found) - part(wanted)).norm()
            for part in (
                lambda values: values.mean((0, 2, 3)),
                lambda values: values.var((0, 2, 3), unbiased=False),
            )
        ]
        total += (10.0 if place == 0 else 1.0) * float(sum(gaps))
    return total


def slow_anchor_distance(network, images, view, anchors):
    gaps = []
    for cell, anchor in zip(decode_images(images, 2), anchors, strict=True):
        pair = [middle_outputs(network, view.apply(one[None])) for one in (cell, anchor)]
        gaps.append(float((pair[0] - pair[1]).abs().mean()))
    return sum(gaps) / len(gaps)


def slow_direction(matrix):
    """By a decomposition, whose values are taken to 1 as far as Newton-Schulz steps take them.

    Digits leave corners black, so that some directions are next to none.
    """
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    values = values / values.norm()
    for _ in range(20):
        values = 1.5 * values - 0.5 * values**3
    return left @ torch.diag(values) @ right


def slow_direction_distance(network, images, view, real):
    own, wanted = slow_gradients(network, view.apply(images)), slow_gradients(network, real)
    gaps = [slow_direction(a) - slow_direction(b) for a, b in zip(own, wanted, strict=True)]
    return sum(float(gap.square().sum()) for gap in gaps)


@pytest.mark.parametrize("aim", ["groups", "anchors", "directions"])
def test_the_first_step_on_digits_is_that_of_the_formulas(aim, first_step):
    keys = ["init=real", "members=convnet2:width=8:norm=batch", "drawn=1"]
    if aim == "groups":
        keys = ["init=real"]
    elif aim == "anchors":
        keys = ["init=anchors", "factor=2", "ipc=1"]
    seen, networks, real, labels = first_step(f"aim={aim}", *keys)
    assert len(seen) == (1 if aim == "anchors" else 2)
    for group, ((problem, images), row) in enumerate(seen):
        view, entropy, statistics = problem.view(0), 0.0, 0.0
        for teacher in problem.teachers:
            logits = teacher.network(view.apply(images))
            entropy += teacher.weight * float(cross_entropy(logits, problem.labels))
            if aim == "groups":
                own = slow_groups(networks, real, labels, group)
                distance = slow_group_distance(teacher.network, images, view, own)
            elif aim == "anchors":
                anchors = teacher.aim.anchors
                distance = slow_anchor_distance(teacher.network, images, view, anchors)
                torch.testing.assert_close(images, encode_images(anchors, 2), atol=1e-5, rtol=0)
            else:
                distance = slow_direction_distance(teacher.network, images, view, real)
            statistics += teacher.weight * distance
        assert row["cross_entropy"] == pytest.approx(entropy, rel=1e-4)
        assert row["statistics"] == pytest.approx(statistics, rel=1e-3)


@torch.no_grad()
def slow_features(images, teachers):
    """Features of each image by itself, of unit length from each teacher and by its weight."""
    found = [[] for _ in images]
    for teacher in teachers:
        network = copy.deepcopy(teacher.network)
        network.head = nn.Identity()
        for own, image in zip(found, images, strict=True):
            row = network(image[None]).flatten()
            own.append(teacher.weight**0.5 * row / row.norm())
    return [torch.cat(parts) for parts in found]


def slow_nearest(image, pool, teachers, weight):
    """The real image with the least of RETA's measure."""
    (own,), complexity = slow_features([image], teachers), edge_complexity(pool)
    measures = [
        (1 - weight) * float((own - features).square().sum())
        + weight * float(edges / complexity.mean())
        for features, edges in zip(slow_features(pool, teachers), complexity, strict=True)
    ]
    return pool[measures.index(min(measures))]


@pytest.mark.parametrize("patches", ["starts", "nearest"])
def test_a_blend_on_digits_is_that_of_a_slow_choice(patches, first_step):
    keys = ("init=noise", "lr=1e-30", "blends=1", "blend_kept=0.25", "patch_complexity=0.2")
    seen, _, real, labels = first_step(*keys, f"patches={patches}", steps=2)
    for group, ((problem, start), _) in enumerate(seen):
        moved = problem.constrain(start, start)
        blends = list(start)
        if patches == "nearest":
            blends = []
            for image, label in zip(moved, problem.labels, strict=True):
                pool = real[labels == label]
                blends.append(slow_nearest(image, pool, problem.teachers, 0.2))
        wanted = 0.25 * moved + 0.75 * torch.stack(blends)
        found = first_step.content.images[group::2]
        torch.testing.assert_close(found, problem.constrain(wanted, wanted), atol=1e-4, rtol=0)
