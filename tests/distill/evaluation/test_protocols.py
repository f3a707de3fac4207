"""Protocols of the literature: what they prescribe, what wins over them, and what they refuse."""

import json

import pytest

from distill.errors import RecipeError, WorkError
from distill.evaluation.evaluated_set import EvaluatedSet
from distill.evaluation.jobs import StudentJob
from distill.evaluation.protocols import batch_size
from distill.evaluation.students import check_labels, student_settings
from distill.names import PROTOCOLS
from distill.recipes.loading import check_recipe, with_evaluation
from distill.recipes.specs import parse_codec
from distill.recipes.tables.evaluate import EvaluateTable
from distill.sets.label_encoding import encode_votes
from distill.sets.set_file import read_set
from tests.distill.cases import STUDENT

QUICK = ("--epochs", "2", "--whole-epochs", "1", "--seeds", "1", "--quiet", "--json")

RECIPE = {
    "name": "r",
    "data": {"source": "digits"},
    "select": {"ipc": 1, "method": "random"},
    "evaluate": {"students": ["mlp"], "epochs": 7, "lr_factors": [1.0, 3.0], "soft_eta": 2.0},
}


@pytest.fixture(scope="module")
def judged(finished):
    return EvaluatedSet(read_set(finished / "set.h5"))


@pytest.fixture
def evaluate(finished, command):
    def call(*arguments, of=finished):
        return command("evaluate", of, *arguments, *QUICK)

    return call


def settings_of(judged, protocol, labels, group="students"):
    table = EvaluateTable(students=[STUDENT], protocol=protocol)
    return student_settings(table, judged, StudentJob(group, STUDENT, labels, 0))


@pytest.mark.parametrize(("protocol", "epochs"), [("dc", 300), ("dsa", 1000)])
def test_dc_and_dsa_drop_the_rate_of_sgd_once(judged, protocol, epochs):
    for labels in ("hard", "learned"):
        how = settings_of(judged, protocol, labels)
        assert (how.optimizer, how.lr, how.momentum, how.weight_decay) == ("sgd", 0.01, 0.9, 5e-4)
        assert how.epochs == epochs
        assert [how.lr_at(epoch) for epoch in (0, epochs // 2 - 1, epochs // 2, epochs - 1)] == (
            pytest.approx([0.01, 0.01, 0.001, 0.001])
        )
        assert how.temperature == 1


@pytest.mark.parametrize(
    ("protocol", "epochs", "optimizer", "decay", "last"),
    [("rded", 300, "adamw", 0.01, 0.5), ("cda", 300, "adamw", 0.01, 0), ("rd3", 400, "adam", 0, 0)],
)
def test_decoupled_protocols_match_teachers_at_twenty(
    judged, protocol, epochs, optimizer, decay, last
):
    how = settings_of(judged, protocol, "votes")
    assert (how.optimizer, how.weight_decay, how.epochs) == (optimizer, decay, epochs)
    assert (how.loss, how.temperature) == ("soft", 20)
    assert how.lr_at(0) == pytest.approx(0.001)
    assert how.lr_at(epochs) == pytest.approx(0.001 * last)
    # One-hot labels at a temperature of 20 would be almost flat.
    for labels, group in [("hard", "students"), ("hard", "random"), ("votes", "coded")]:
        assert settings_of(judged, protocol, labels, group).temperature == 1


def test_batches_by_images_per_class_are_rdeds():
    auto = EvaluateTable(students=["mlp"], batch_size="auto")
    sizes = [batch_size(auto, 10 * ipc, 10) for ipc in (1, 9, 10, 49, 50, 200)]
    assert sizes == [10, 10, 50, 50, 100, 100]
    assert [batch_size(auto, 1000 * ipc, 1000) for ipc in (1, 10, 50)] == [20, 100, 200]
    assert batch_size(EvaluateTable(students=["mlp"]), 20, 10) == 20
    assert EvaluateTable(students=["mlp"], protocol="rd3").batch_size == 50


def test_a_key_beside_a_protocol_wins_and_a_command_wins_over_the_recipe():
    written = check_recipe({**RECIPE, "evaluate": {**RECIPE["evaluate"], "protocol": "cda"}}, "r")
    assert (written.evaluate.epochs, written.evaluate.soft_eta) == (7, 2.0)
    assert (written.evaluate.batch_size, written.evaluate.views) == (128, "zoom_flip")
    recipe = check_recipe(RECIPE, "r")
    named = with_evaluation(recipe, {"protocol": "cda"}).evaluate
    assert (named.epochs, named.soft_eta, named.lr_factors) == (300, 1.0, [])
    assert with_evaluation(recipe, {"protocol": "cda", "epochs": 2}).evaluate.epochs == 2
    assert with_evaluation(recipe, {"protocol": "kd"}).evaluate.epochs == 7


def test_another_protocol_takes_the_first_ones_keys_away():
    recipe = check_recipe(RECIPE, "r")
    back = with_evaluation(with_evaluation(recipe, {"protocol": "dc"}), {"protocol": "auto"})
    fresh = EvaluateTable(students=["mlp"], soft_eta=2.0)
    assert back.evaluate == fresh
    with pytest.raises(RecipeError, match=r"evaluate\.protocol: it should be 'auto', .* or 'rd3'"):
        with_evaluation(recipe, {"protocol": "mtt"})


def test_rded_asks_the_teachers_for_labels_of_mixed_views(evaluate):
    outcome = evaluate("--protocol", "rded", "--labels", "hard,votes,projector")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    for labels in ("votes", "projector"):
        words = found["protocol"][labels]
        assert (words["protocol"], words["mix"]) == ("rded", "cutmix")
        assert words["views"] == ["resize", "flip"]
        assert words["loss"] == "KL at temperature 20"
        assert words["batch_size"] == 10
        assert found["controls"]["random"][STUDENT][labels]["runs"]
    assert found["protocol"]["hard"]["loss"] == "KL at temperature 1"
    plain = json.loads(evaluate("--protocol", "kd", "--labels", "votes").out)
    runs = [part["students"][STUDENT]["votes"]["runs"] for part in (found, plain)]
    assert runs[0] != runs[1]


def test_dc_shows_images_as_they_are(evaluate):
    words = [
        json.loads(evaluate("--protocol", name, "--labels", "hard").out)["protocol"]["hard"]
        for name in ("dc", "dsa")
    ]
    assert [part["views"] for part in words] == [
        ["none"],
        ["colour", "crop", "cutout", "flip", "scale", "rotate"],
    ]
    assert words[0]["schedule"] == "step"
    assert words[0]["optimizer"] == "sgd, momentum 0.9"


def test_votes_without_teachers_are_refused_in_one_line(finished, tmp_path, evaluate):
    (tmp_path / "set.h5").write_bytes((finished / "set.h5").read_bytes())
    outcome = evaluate("--protocol", "rded", of=tmp_path / "set.h5")
    assert outcome.code != 0
    assert "protocol rded asks teachers for votes" in outcome.err
    assert outcome.err.count("\n") == 1


def test_labels_of_stored_views_are_refused(judged):
    encoded = EvaluatedSet(judged.content)
    votes = judged.content.votes
    labels = encode_votes(votes, parse_codec("topk:k=2"), 0, tuple(judged.content.images.shape[2:]))
    encoded.content.encoded["topk:k=2"] = labels
    try:
        table = EvaluateTable(students=["mlp"], protocol="cda", labels=["hard", "topk:k=2"])
        with pytest.raises(WorkError, match="topk:k=2, which label stored views, but students"):
            check_labels(table, encoded)
        check_labels(EvaluateTable(students=["mlp"], labels=["topk:k=2"]), encoded)
    finally:
        del encoded.content.encoded["topk:k=2"]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"mix": "cutmix"}, "set views, or leave out mix"),
        ({"protocol": "rded", "gift": 0.1}, "gift changes stored labels"),
    ],
)
def test_keys_that_cannot_go_together_are_refused(keys, said):
    with pytest.raises(ValueError, match=said):
        EvaluateTable(students=["mlp"], **keys)


def test_the_list_shows_what_every_protocol_sets(command):
    rows = json.loads(command("ls", "protocols", "--json").out)["protocols"]
    assert [row["name"] for row in rows] == list(PROTOCOLS)
    shown = {row["name"]: row for row in rows}
    assert "batch_size=50" in shown["rd3"]["options"]
    assert "2024" in shown["rded"]["source"]
    assert all(
        key in EvaluateTable.model_fields for entry in PROTOCOLS.values() for key in entry.sets
    )
