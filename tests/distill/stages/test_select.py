"""Selection as a stage: every option, with and without teachers, refusals."""

import re

import pytest
import torch

import distill
from distill.__main__ import run
from distill.recipes.build import build_data, build_network
from distill.recipes.loading import load_recipe
from distill.recipes.tables.select import SelectTable
from distill.sets.cost import count_bytes
from distill.sets.set_file import read_set
from distill.store.committee import read_committee
from distill.teachers.loading import load_committee
from synth.coding import unpack_images
from tests.distill.cases import (
    CountingStop,
    artefacts,
    listen_with,
    outputs_of,
    read_json,
    reading_context,
    write_recipe,
)
from tests.distill.making_cases import MEMBERS, SELECT, SELECT_TAUGHT


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A recipe without teachers, as a file."""
    text = SELECT.replace("ipc = 1", 'ipc = 1\nmethod = "random"')
    return write_recipe(tmp_path_factory.mktemp("recipe"), text, "plain")


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A recipe with teachers, as a file."""
    return write_recipe(tmp_path_factory.mktemp("recipe"), SELECT_TAUGHT, "taught")


@pytest.fixture(scope="module")
def selected(taught, tmp_path_factory, one_thread):
    """A whole run with teachers, whose folder other selections may share."""
    out = tmp_path_factory.mktemp("selected") / "run"
    assert run(["run", str(taught), "--out", str(out), "--quiet"]) == 0
    return out


def real_places(images):
    """Where each of `images` stands among the training images of the recipe."""
    data = build_data(load_recipe("digits", ["data.size=8", "data.subset=100"]).data)
    distances = torch.cdist(images.flatten(1), data.train.images.flatten(1))
    nearest = distances.min(dim=1)
    assert float(nearest.values.max()) < 1e-3
    return data.train.labels[nearest.indices], nearest.indices


def test_whole_run_of_mosaics_is_evaluated(selected):
    stages = ["committee", "select", "relabel", "evaluate"]
    assert list(read_json(selected / "manifest.json")["stages"]) == stages
    content = read_set(selected / "set.h5")
    assert content.images.shape == (10, 1, 8, 8)
    assert content.manifest["network"] == ", ".join(MEMBERS)
    # Mosaics are real: their statistics are those that the teachers know.
    assert not content.votes.batch_statistics
    assert (selected / "report.html").is_file()


CHANGES = [
    ["select.method=random"],
    ["select.method=herding"],
    ["select.method=herding", "select.features=committee"],
    ["select.method=k-center"],
    ["select.method=k-center", "select.features=committee"],
    ["select.factor=1"],
    ["select.crops=1"],
    ["select.candidates=5"],
    ["select.crop_area=1"],
    ["select.method=random", "select.ipc=3"],
    ["select.images=rounded:depth=2"],
    ["select.images=rounded:depth=3", "select.budget_bytes=3000"],
    ["select.budget_bytes=3000", "select.search=images"],
    ["select.method=random", "select.labels=votes"],
    ["select.method=random", "select.labels=votes", "select.label_temperature=3"],
    [
        "select.images=rounded:depth=3",
        "select.method=random",
        "select.labels=votes",
        "select.budget_bytes=3000",
        "select.label_share=0.4",
    ],
]


@pytest.mark.usefixtures("short_search")
@pytest.mark.parametrize("changes", CHANGES, ids=[" ".join(change) for change in CHANGES])
def test_every_option_changes_the_set(changes, taught, selected, command):
    settings = [word for change in changes for word in ("--set", change)]
    before = outputs_of(selected)["select"]
    outcome = command("select", taught, "--out", selected, "--quiet", *settings)
    assert outcome.code == 0, outcome.err
    assert outputs_of(selected)["select"] != before
    content = read_set(selected / "set.h5")
    if changes[0] not in (
        "select.method=random",
        "select.method=herding",
        "select.method=k-center",
    ):
        return
    labels, places = real_places(content.preprocess.inverse(content.images))
    assert torch.equal(labels, content.hard)
    assert len(set(places.tolist())) == len(places)


def test_every_option_of_the_table_is_used_in_a_test():
    used = {change.partition("=")[0] for changes in CHANGES for change in changes}
    # Those of selection by difficulty are in test_difficulty.py.
    elsewhere = {"select.difficulty", "select.scored_epoch"}
    assert used | elsewhere == {f"select.{name}" for name in SelectTable.model_fields}


def test_whole_run_without_teachers(plain, command, tmp_path):
    out = tmp_path / "run"
    assert command("select", plain, "--out", out, "--quiet").code == 0
    assert list(read_json(out / "manifest.json")["stages"]) == ["select"]
    assert command("run", plain, "--out", out, "--quiet").code == 0
    assert set(read_json(out / "summary.json")["students"]["convnet2:width=4"]) == {"hard"}
    assert read_set(out / "set.h5").manifest["network"] == "none"
    assert command("verify", out).code == 0


def test_stopped_selection_goes_on_to_the_same_end(taught, selected, command, monkeypatch):
    arguments = ("run", taught, "--out", selected, "--quiet")
    assert command(*arguments).code == 0
    before = artefacts(selected)
    (selected / "set.h5").unlink()
    # The fourth class.
    monkeypatch.setattr("distill.stages.run_recipe.listen", listen_with(CountingStop(4)))
    assert command(*arguments).code == 130
    monkeypatch.undo()
    assert command(*arguments).code == 0
    assert artefacts(selected) == before


REFUSED = [
    ("select.method=mosaics", 'select.method "mosaics" needs teachers; add a [committee] table'),
    ("select.ipc=11", "select.ipc: class"),
    ("select.method=best", "select.method: it should be 'random', 'herding', 'k-center'"),
]


@pytest.mark.parametrize(("change", "words"), REFUSED, ids=[change for change, _ in REFUSED])
def test_recipe_is_refused_in_one_line(change, words, plain, refused, tmp_path):
    out = tmp_path / "out"
    assert words in refused(2, "select", plain, "--out", out, "--set", change)
    assert not out.exists()


def test_features_of_teachers_need_teachers(plain, refused, tmp_path):
    changes = ("--set", "select.method=herding", "--set", "select.features=committee")
    line = refused(2, "select", plain, "--out", tmp_path / "out", *changes)
    assert 'select.features "committee" needs teachers' in line


def test_fewer_candidates_than_tiles_are_refused(taught, refused, tmp_path):
    line = refused(2, "select", taught, "--out", tmp_path / "out", "--set", "select.candidates=3")
    assert "select.candidates is 3, but ipc 1 with factor 2 needs 4 of each class" in line


def with_network(text):
    """The recipe with coded images, and its committee as the label of every view."""
    text = text.replace("[select]\n", '[select]\nmethod = "random"\nimages = "rounded:depth=2"\n')
    text = text.replace("[relabel]\n", '[relabel]\nviews = "seed"\nbssl = "off"\n')
    text = re.sub("members = .*", 'members = ["convnet2:width=4:norm=batch"]', text)
    return text + '\n[encode]\ncodec = "teacher:bits=5"\n'


@pytest.fixture(scope="module")
def networked(tmp_path_factory):
    text = with_network(SELECT_TAUGHT).replace("ipc = 1", "ipc = 8")
    return write_recipe(tmp_path_factory.mktemp("recipe"), text, "networked")


def test_images_and_the_network_that_labels_them_fill_a_budget(networked, command, tmp_path):
    out = tmp_path / "run"
    words = ("run", networked, "--out", out, "--bytes", "1400", "--quiet")
    asked = ("--stage", "committee", "--stage", "select", "--stage", "relabel", "--stage", "encode")
    assert command(*words, *asked).code == 0
    content = read_set(out / "set.h5")
    totals = count_bytes(content)["totals"]
    assert content.coded is not None
    pixels, _ = unpack_images(content.coded)
    assert set(pixels.mul(3).round().unique().tolist()) <= {0.0, 1.0, 2.0, 3.0}
    torch.testing.assert_close(content.images, content.preprocess(pixels))
    # As many images as fit beside the labels, at most those that were asked for.
    ipc = read_json(out / "manifest.json")["recipe"]["select"]["ipc"]
    assert len(content.images) == 10 * ipc
    assert 1 < ipc < 8
    assert 0.9 * 1400 < totals["teacher:bits=5"] <= 1400


@pytest.mark.usefixtures("short_search")
def test_a_search_fills_a_budget_with_selected_images(networked, command, tmp_path):
    """As `--bytes` does where a recipe names no coding; more images a class are not refused."""
    path = tmp_path / "open.toml"
    text = networked.read_text().replace('images = "rounded:depth=2"\n', "")
    path.write_text(text.replace("ipc = 8", "ipc = 1000"))
    assert path.read_text() != networked.read_text()
    out, stages = tmp_path / "run", ("--stage", "committee", "--stage", "select")
    words = ("run", path, "--out", out, "--bytes", "1500", *stages)
    words = (*words, "--set", "evaluate.students=mlp")
    first = command(*words)
    assert first.code == 0, first.err
    tried = [line for line in first.err.splitlines() if line.startswith("search ")]
    assert len(tried) >= 4
    table = read_json(out / "manifest.json")["recipe"]["select"]
    assert table["images"] != "pixels"
    best = max(tried, key=lambda line: float(line.split()[-3]))
    assert f" {table['images']}, {table['ipc']} a class: " in best
    content = read_set(out / "set.h5")
    assert len(content.images) == 10 * table["ipc"]
    before = outputs_of(out)
    again = command(*words)
    assert again.code == 0, again.err
    assert "search " not in again.err
    assert outputs_of(out) == before
    # The coding is kept, and the number of images follows what is asked for now.
    assert command(*words, "--set", "select.ipc=2").code == 0
    fewer = read_json(out / "manifest.json")["recipe"]["select"]
    assert (fewer["images"], fewer["ipc"]) == (table["images"], 2)


def test_students_draw_views_of_their_own_under_a_network_that_the_set_keeps(
    networked, command, tmp_path
):
    out, name = tmp_path / "run", "teacher:bits=5"
    short = options(f"evaluate.labels={name}", "evaluate.seeds=1", "evaluate.epochs=1")
    words = ("run", networked, "--out", out, "--bytes", "1700", "--quiet", *short)

    def evaluated(*changes):
        outcome = command(*words, *options("evaluate.whole_epochs=1", *changes))
        assert outcome.code == 0, outcome.err
        found = read_json(out / "evaluation.json")
        ((_, labels),) = found["students"].items()
        return labels[name]["mean"], found["protocol"].get(name)

    own, said = evaluated("evaluate.views=crop|rotate", "evaluate.mix=mixup")
    stored, unsaid = evaluated()
    assert (said["views"], said["mix"], said["protocol"]) == (["crop|rotate"], "mixup", "kd")
    assert unsaid is None
    assert own != stored
    data = distill.load(out / "set.h5")
    views = data.images.flip(3)
    logits = data.labeller(views)
    (member,), _, _ = read_committee(out / "committee.h5")
    teacher = build_network(member.spec, 1, tuple(views.shape[2:]), 10, 0).eval()
    teacher.load_state_dict(member.state)
    near = teacher(views).detach()
    assert (logits.argmax(dim=1) == near.argmax(dim=1)).float().mean() > 0.9
    assert 0 < (logits - near).abs().mean() < 0.2 * near.abs().mean()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("evaluate.views=crop_flip|rotate", "unknown augmentation crop_flip"),
        ("relabel.augmentation=crop|flip", "relabel.augmentation is crop|flip, one family"),
    ],
)
def test_one_family_for_each_batch_is_refused_where_it_cannot_be(
    change, words, networked, refused, tmp_path
):
    out = tmp_path / "run"
    assert words in refused(2, "run", networked, "--out", out, "--set", change)
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--bytes", "500"), ["select.budget_bytes is 500", "labels and what reads the images"]),
        (("--set", "select.images=pixels", "--bytes", "1700"), ["name a coding as select.images"]),
        (("--set", "select.search=images"), ["select.search chooses within a budget"]),
        (
            ("--set", "committee.budget_share=0.02", "--bytes", "1400"),
            ["committee.budget_share leaves 28 of 1,400 bytes", "of width 1", "a larger share"],
        ),
        (("--set", "committee.budget_share=0.2"), ["share of a budget", "--bytes"]),
        (
            (
                "--set",
                "committee.budget_share=0.2",
                "--set",
                "encode.codec=topk:k=2",
                "--bytes=900",
            ),
            ["networks that the set keeps", "encode.codec"],
        ),
        (
            [
                *("--set", "committee.budget_share=0.2", "--bytes=900"),
                *("--set", "encode.codec=teacher:bits=4:residual=0.1+topk:k=2"),
            ],
            ["networks that the set keeps", "encode.codec"],
        ),
        (
            (
                "--set",
                "committee.budget_share=0.2",
                "--set",
                "committee.members=torchvision:resnet18",
                "--bytes=900",
            ),
            ["torchvision:resnet18 has none"],
        ),
        (("--set", "relabel.views=stored", "--bytes", "1700"), ["set relabel.views = seed"]),
        (
            ("--set", "committee.weight_bits=4", "--bytes", "1700"),
            ["codec teacher:bits=5 keeps weights of 5 bits", "committee.weight_bits 4"],
        ),
    ],
)
def test_a_budget_that_cannot_be_met_is_refused(options, words, networked, refused, tmp_path):
    line = refused(2, "run", networked, "--out", tmp_path / "run", *options)
    assert all(word in line for word in words), line
    assert not (tmp_path / "run").exists()


VOTED = ("select.method=random", "select.ipc=3", "select.labels=votes")
TIGHT = (*VOTED, "select.images=rounded:depth=2", "select.budget_bytes=1200")


def options(*changes):
    return [word for change in changes for word in ("--set", change)]


def test_votes_are_on_the_images_before_they_are_coded(taught, selected, command):
    """They are the committee's own, divided by the temperature, whatever keeps the images."""
    keys = (*VOTED, "select.label_temperature=2", "select.images=tones:tones=2")
    outcome = command("select", taught, "--out", selected, *options(*keys))
    assert outcome.code == 0, outcome.err
    content = read_set(selected / "set.h5")
    outcome = command(
        "select", taught, "--out", selected, *options("select.method=random", "select.ipc=3")
    )
    assert outcome.code == 0, outcome.err
    plain = read_set(selected / "set.h5")
    assert plain.learned is None
    recipe = load_recipe(str(taught), list(keys))
    votes = load_committee(reading_context(selected, recipe)).vote(plain.images) / 2
    torch.testing.assert_close(content.learned, votes)
    assert not torch.equal(content.images, plain.images), "these are coded"


def test_votes_take_their_share_of_a_budget_at_most(taught, selected, command):
    keys = (*VOTED, "select.images=rounded:depth=2", "select.budget_bytes=1200")
    outcome = command(
        "select", taught, "--out", selected, *options(*keys, "select.label_share=0.4")
    )
    assert outcome.code == 0, outcome.err
    content = read_set(selected / "set.h5")
    counted = count_bytes(content)
    assert len(content.coded_labels) == counted["sources"]["learned"] <= 480
    assert counted["totals"]["learned"] <= 1200
    # As coarse as they are kept, most of them name the same class.
    assert content.learned.shape == (len(content.hard), 10)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (
            (*TIGHT, "select.label_share=0.01"),
            "do not fit into 12 bytes",
        ),
        (("select.labels=votes",), "mosaics are of parts"),
    ],
)
def test_votes_that_cannot_be_kept_are_refused(keys, words, taught, selected, command):
    outcome = command("select", taught, "--out", selected, *options(*keys))
    assert outcome.code in (1, 2)
    assert words in outcome.err
    assert outcome.err.count("error: ") == 1


def test_votes_need_teachers(plain, refused, tmp_path):
    message = refused(2, "run", plain, "--out", tmp_path / "run", "--set", "select.labels=votes")
    assert "add a [committee] table" in message
