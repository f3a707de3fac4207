"""Members with their own recipes, early stopping, and every way to vote."""

import json

import pytest
import torch

from distill.data import fit_preprocess
from distill.errors import RecipeError
from distill.recipes.build import build_data, build_network
from distill.recipes.loading import check_recipe, load_recipe
from distill.recipes.tables.committee import VOTE_KEYS, CommitteeTable
from distill.sets.set_file import read_set
from distill.store.committee import read_committee
from distill.store.seals import unsealed
from distill.teachers import priors as votes
from projectors.codecs import Weights
from synth.training.prediction import accuracy
from tests.distill.cases import TINY, contents, edited, outputs_of, read_json, write_recipe

MEMBERS = ["convnet2:width=8:norm=batch", "vgg11:width=4:norm=batch", "resnet18:width=4"]
MEASURED = ("measure_student=convnet2:width=4", "measure_ipc=4", "measure_epochs=8")


def logits_of(run):
    return read_set(run / "set.h5").votes.logits


def relabelled(command, recipe, run, *changes):
    """The run's votes after `distill relabel` with other keys of [committee]."""
    words = [word for change in changes for word in ("--set", f"committee.{change}")]
    outcome = command(
        "run", recipe, "--out", run, "--stage", "committee", "--stage", "relabel", *words
    )
    assert outcome.code == 0, outcome.err
    return outcome, logits_of(run)


def member_rows(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = {}
    for row in rows:
        if row["stage"] == "committee":
            found.setdefault(row["member"], []).append(row["accuracy"])
    return found


@pytest.mark.parametrize(
    "vote",
    [
        ("vote=equal",),
        ("vote=random",),
        ("priors=[10, 20, 90]", "vote_temperature=5"),
        ("vote=similarity", "similarity_power=nearest"),
        ("vote=similarity", "similarity_power=3", "similarity_images=10"),
        ("vote=measured", *MEASURED),
    ],
    ids=lambda vote: "-".join(vote[:2]),
)
def test_another_vote_changes_the_labels_and_trains_no_member(vote, run_copy, recipe, command):
    before, members = logits_of(run_copy), (run_copy / "committee.h5").read_bytes()
    outcome, after = relabelled(command, recipe, run_copy, *vote)
    assert not torch.equal(before, after)
    assert "committee  done before, inputs unchanged" in outcome.err
    assert (run_copy / "committee.h5").read_bytes() == members
    assert "evaluate" not in outputs_of(run_copy)


def test_similarity_to_the_power_of_zero_is_the_equal_vote(run_copy, recipe, command):
    _, equal = relabelled(command, recipe, run_copy, "vote=equal")
    _, zero = relabelled(command, recipe, run_copy, "vote=similarity", "similarity_power=0")
    torch.testing.assert_close(zero, equal, atol=1e-2, rtol=1e-2)


def test_nearest_member_votes_alone(run_copy, recipe, command):
    _, nearest = relabelled(
        command, recipe, run_copy, "vote=similarity", "similarity_power=nearest"
    )
    alone = [
        relabelled(command, recipe, run_copy, f"priors={priors}", "vote_temperature=0.1")[1]
        for priors in ([100, 0, 0], [0, 100, 0], [0, 0, 100])
    ]
    assert sum(torch.equal(nearest, logits) for logits in alone) == 1


@pytest.fixture
def asked(monkeypatch):
    """Members that a prior was measured for; the measurement itself is a made-up number."""
    found = []

    def measure(context, table, network):
        found.append(network)
        return 0.1 * len(found)

    monkeypatch.setattr(votes, "_distil_alone", measure)
    return found


def test_measured_priors_are_kept_by_digest(run_copy, recipe, command, asked):
    _, first = relabelled(command, recipe, run_copy, "vote=measured")
    known = unsealed(read_json(run_copy / "votes.json"))
    assert list(known.values()) == pytest.approx([0.1, 0.2, 0.3])
    # Another temperature votes otherwise with what was measured before.
    _, second = relabelled(command, recipe, run_copy, "vote=measured", "vote_temperature=50")
    assert not torch.equal(first, second)
    assert len(asked) == 3
    # The made-up numbers are used: they are the priors of the same vote.
    _, typed = relabelled(command, recipe, run_copy, "priors=[10, 20, 30]", "vote_temperature=50")
    assert torch.equal(second, typed)
    # Longer students are another measurement, beside the first.
    relabelled(command, recipe, run_copy, "vote=measured", "measure_epochs=4")
    later = unsealed(read_json(run_copy / "votes.json"))
    assert (len(asked), len(later)) == (6, 6)
    assert known.items() <= later.items()


def test_measured_priors_that_cannot_be_read_are_measured_anew(run_copy, recipe, command, asked):
    (run_copy / "votes.json").write_text("[1, 2")
    relabelled(command, recipe, run_copy, "vote=measured")
    assert len(unsealed(read_json(run_copy / "votes.json"))) == len(asked) == 3


def test_evaluation_by_itself_uses_measured_priors_and_leaves_no_trace(
    run_copy, recipe, command, asked
):
    relabelled(command, recipe, run_copy, "vote=measured")
    before = contents(run_copy)
    outcome = command("evaluate", run_copy, "--labels", "votes", "--json", "--quiet")
    assert outcome.code == 0, outcome.err
    assert len(asked) == 3
    assert contents(run_copy) == before


@pytest.fixture(scope="module")
def own_recipes(tmp_path_factory):
    """The tiny recipe with other trainings for two of its members."""
    text = TINY.replace(
        "[relabel]",
        """[committee.recipes."convnet2:width=8:norm=batch"]
epochs = 6
optimizer = "sgd"
lr = 0.05

[committee.recipes."resnet18:width=4"]
epochs = 40
patience = 2

[relabel]""",
    )
    return write_recipe(tmp_path_factory.mktemp("own"), text, "own")


def test_members_are_trained_by_their_own_recipes(own_recipes, command, tmp_path):
    outcome = command("run", own_recipes, "--out", tmp_path / "run", "--stage", "committee")
    assert outcome.code == 0, outcome.err
    curves = member_rows(tmp_path / "run")
    assert len(curves[MEMBERS[0]]) == 6
    assert len(curves[MEMBERS[1]]) == 10
    stopped = curves[MEMBERS[2]]
    assert len(stopped) < 40
    members, _, _ = read_committee(tmp_path / "run" / "committee.h5")
    best = members[2]
    # Two epochs after the best one, which is kept, the training ended.
    assert best.epoch == len(stopped) - 2
    assert best.accuracy == max(stopped) == stopped[best.epoch - 1]
    assert [member.epoch for member in members[:2]] == [6, 10]

    # What is kept is what was measured.
    data = build_data(load_recipe(str(own_recipes)).data)
    images = fit_preprocess(data.train.images)(data.validation.images)
    for member in members:
        network = build_network(member.spec, 1, (8, 8), 10, 0)
        network.load_state_dict(member.state)
        assert accuracy(network, images, data.validation.labels) == member.accuracy


def test_a_members_recipe_takes_what_it_leaves_out_from_the_committee(own_recipes):
    table = load_recipe(str(own_recipes)).committee
    own = table.training(MEMBERS[0])
    assert (own.epochs, own.optimizer, own.lr) == (6, "sgd", 0.05)
    assert (own.batch_size, own.augmentation, own.patience) == (20, "crop", None)
    assert table.training(MEMBERS[1]) is table
    # And so it stays when the resolved recipe is read back.
    again = check_recipe(load_recipe(str(own_recipes)).model_dump(mode="json"), "again")
    assert again.committee == table


def test_members_of_few_bits_are_kept_as_they_were_measured(command, tmp_path):
    # Small members that learn well: a deep one may end near chance, and be refused, by the
    # rounding of one processor's sums and not by another's.
    members = ["convnet2:width=8:norm=batch", "mlp"]
    bits = ("--set", "committee.weight_bits=4")
    text = TINY.replace("[relabel]", '[relabel]\nviews = "seed"')
    text = text.replace(json.dumps(MEMBERS), json.dumps(members))
    recipe = write_recipe(tmp_path, text + '\n[encode]\ncodec = "teacher:bits=4"\n', "rounded")
    words = ("run", recipe, "--out", tmp_path / "run", "--stage", "committee", *bits)
    outcome = command(*words)
    assert outcome.code == 0, outcome.err
    curves = member_rows(tmp_path / "run")
    assert list(curves) == members
    assert {len(curve) for curve in curves.values()} == {10}
    members, _, _ = read_committee(tmp_path / "run" / "committee.h5")
    data = build_data(load_recipe(str(recipe)).data)
    images = fit_preprocess(data.train.images)(data.validation.images)
    for member in members:
        back, _ = Weights(4).decode(Weights(4).encode(member.state, {}))
        for name, value in member.state.items():
            assert value.dim() < 2 or torch.equal(back[name], value)
        network = build_network(member.spec, 1, (8, 8), 10, 0)
        network.load_state_dict(member.state)
        assert accuracy(network, images, data.validation.labels) == member.accuracy


def test_vote_keys_are_no_training_keys():
    assert "vote" in VOTE_KEYS
    assert not {"members", "recipes", "epochs", "patience"} & set(VOTE_KEYS)
    assert set(VOTE_KEYS) < set(CommitteeTable.model_fields)


REFUSED = [
    (
        'committee.recipes={"resnet50" = {epochs = 2}}',
        ["recipes names resnet50, which is no member"],
    ),
    (
        'committee.recipes={"resnet18:width=4" = {epohcs = 2}}',
        ["unknown key committee.recipes.resnet18:width=4.epohcs; did you mean epochs?"],
    ),
    ('committee.recipes={"resnet18:width=4" = {epochs = 0}}', ["epochs: it should be greater"]),
    (
        'committee.recipes={"resnet18:width=4" = {augmentation = "flap"}}',
        ["augmentation flap:"],
    ),
    ("committee.recipes=3", ["committee.recipes: it should be a valid dict"]),
    ("committee.vote=majority", ["committee.vote: it should be 'prior', 'measured', 'equal'"]),
    ("committee.priors=[60, 70]", ["got 2 priors for 3 members"]),
    (
        "committee.priors=[60, 70, 170]",
        ["committee.priors: it should be less than or equal to 100"],
    ),
    ("committee.similarity_power=-1", ["committee.similarity_power"]),
    ("committee.weight_bits=9", ["weight_bits: it should be less than or equal to 8"]),
    ('committee={"members" = ["mlp"], epochs = 1, weight_bits = 4}', ["at least 2 epochs"]),
    ('committee={"members" = ["mlp"], patience = 2, weight_bits = 4}', ["neither patience"]),
    ("committee.patience=0", ["committee.patience: it should be greater than or equal to 1"]),
]


@pytest.mark.parametrize(("change", "words"), REFUSED, ids=[change for change, _ in REFUSED])
def test_wrong_committee_is_refused(change, words, recipe, refused, tmp_path):
    line = refused(2, "run", recipe, "--out", tmp_path / "out", "--set", change)
    for word in words:
        assert word in line
    assert not (tmp_path / "out").exists()


def test_priors_of_another_vote_are_refused():
    with pytest.raises(RecipeError, match="priors are read by vote = prior, not equal"):
        load_recipe("digits", ["committee.priors=[1, 2, 3]", "committee.vote=equal"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("committee.measure_ipc=12", "committee.measure_ipc: class"),
        ("committee.measure_student=convnet9", "there is no network convnet9"),
    ],
)
def test_measured_vote_that_cannot_be_measured_is_refused(change, words, recipe, refused, tmp_path):
    changes = ("--set", "committee.vote=measured", "--set", change)
    assert words in refused(2, "run", recipe, "--out", tmp_path / "out", *changes)


def test_committee_of_other_classes_is_refused(run_copy, recipe, refused):

    with edited(run_copy / "committee.h5") as file:
        names = json.loads(file.attrs["class_names"])
        file.attrs["class_names"] = json.dumps(names[::-1])
    line = refused(1, "evaluate", run_copy, "--labels", "votes", "--quiet", "--json")
    assert "committee.h5 was trained on other data or classes; run the stage committee" in line


def test_committee_of_other_members_is_refused(run_copy, recipe, refused):

    with edited(run_copy / "committee.h5") as file:
        del file["members/0002"]
    line = refused(1, "evaluate", run_copy, "--labels", "votes", "--quiet", "--json")
    assert "but committee.members is" in line
    assert "run the stage committee" in line
