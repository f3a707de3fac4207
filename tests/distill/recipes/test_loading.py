import json
import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.errors import RecipeError, suggestion
from distill.recipes.loading import check_recipe, load_recipe, recipe_text
from distill.recipes.schema import TABLES
from distill.recipes.tables.evaluate import EvaluateTable
from tests.distill.cases import TINY, write_recipe

PLAIN = st.text("abcxyzABC0189:/._,- äß", min_size=1).map(lambda text: f"q{text.strip()}z")
STRINGS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x7f"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return str(write_recipe(tmp_path_factory.mktemp("recipes")))


def test_recipe_of_a_file_is_named_after_it(tiny):
    recipe = load_recipe(tiny)
    assert recipe.name == "tiny"
    assert recipe.match.iterations == 6
    assert recipe.projector.tower == "config:tiny-vit"


def test_keys_have_defaults_and_tables_may_be_missing(tmp_path):
    text = '[data]\nsource = "digits"\n[experts]\n[match]\nipc = 1\n'
    recipe = load_recipe(str(write_recipe(tmp_path, text, "small")))
    assert recipe.seed == 0
    assert recipe.experts.network == "convnet3"
    assert recipe.match.gradient == "adjoint"
    assert recipe.committee is recipe.relabel is recipe.projector is recipe.evaluate is None


def test_recipe_survives_json(tiny):
    recipe = load_recipe(tiny)
    plain = json.loads(json.dumps(recipe.model_dump(mode="json")))
    assert check_recipe(plain, "again") == recipe


def test_stored_recipe_of_an_earlier_version_is_read_by_its_new_names(tiny):
    recipe = load_recipe(tiny, ["match.student_lr=0.07", "match.student_lr_lr=0.5"])
    plain = recipe.model_dump(mode="json")
    plain["match"]["lr"] = plain["match"].pop("student_lr")
    plain["match"]["log_lr_lr"] = plain["match"].pop("student_lr_lr")
    assert check_recipe(plain, "stored") == recipe


def test_stored_recipe_has_no_key_under_two_names(tiny):
    plain = load_recipe(tiny).model_dump(mode="json")
    plain["match"]["lr"] = 0.1
    with pytest.raises(RecipeError, match=r"^stored: match\.lr is called match\.student_lr now"):
        check_recipe(plain, "stored")


def test_old_names_lead_to_keys_that_exist():
    for table in TABLES.values():
        assert set(table.renamed.values()) <= set(table.model_fields)
        assert not set(table.renamed) & set(table.model_fields)


def test_recipe_cannot_be_changed(tiny):
    with pytest.raises(ValueError, match="frozen"):
        load_recipe(tiny).match.ipc = 2


def test_seed_replaces_the_seed(tiny):
    assert load_recipe(tiny, ["seed=3"]).seed == 3
    assert load_recipe(tiny, ["seed=3"], seed=4).seed == 4


def test_a_recipe_names_the_one_that_is_better_within_a_budget(tmp_path):
    found = load_recipe("digits", ["seed=3", "match.iterations=7"], budget=1900)
    other = load_recipe("digits-2kb", ["seed=3", "match.iterations=7"], budget=1900)
    assert found == other
    assert found.budget_bytes == 1900
    assert (found.name, found.match.iterations) == ("digits-2kb", 7)
    assert load_recipe("digits").name == "digits"
    assert load_recipe("digits", ["within_bytes="], budget=1900).name == "digits"
    other = load_recipe("digits", ["within_bytes=digits-exact"], budget=1900)
    assert other.name == "digits-exact"

    text = f'within_bytes = "no-such-recipe"\n{TINY}'
    (tmp_path / "lost.toml").write_text(text)
    assert load_recipe(str(tmp_path / "lost.toml")).within_bytes == "no-such-recipe"
    with pytest.raises(RecipeError, match="no-such-recipe"):
        load_recipe(str(tmp_path / "lost.toml"), budget=1900)


def test_lists_may_be_given_with_commas(tiny):
    change = ["evaluate.students=mlp, resnet18,", "evaluate.labels=hard,votes"]
    table = load_recipe(tiny, change).evaluate
    assert table.students == ["mlp", "resnet18"]
    assert table.labels == ["hard", "votes"]
    assert EvaluateTable(students="mlp").students == ["mlp"]
    assert load_recipe(tiny, ['evaluate.students=["mlp"]']).evaluate.students == ["mlp"]


def test_last_override_wins_and_spaces_do_not_matter(tiny):
    assert load_recipe(tiny, ["match.ipc=2", " match.ipc = 3 "]).match.ipc == 3


def test_override_adds_a_missing_table(tmp_path):
    text = TINY.partition("[evaluate]")[0]
    path = str(write_recipe(tmp_path, text, "small"))
    assert load_recipe(path).evaluate is None
    assert load_recipe(path, ["evaluate.students=mlp"]).evaluate.seeds == 3


def test_override_without_a_value_leaves_a_key_or_a_table_out(tiny):
    recipe = load_recipe(tiny, ["data.size=", "evaluate=", "select.ipc="])
    assert recipe.data.size is None
    assert recipe.evaluate is recipe.select is None
    with pytest.raises(RecipeError, match=r"to leave it out, give no value: --set data\.size=$"):
        load_recipe(tiny, ["data.size=none"])


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("ipc=3", "unknown key ipc; did you mean match.ipc, recover.ipc or select.ipc?"),
        ("zca=true", "unknown key zca; did you mean data.zca?"),
        ("sed=3", "unknown key sed; did you mean seed?"),
    ],
)
def test_key_without_its_table_is_found(override, words, tiny):
    with pytest.raises(RecipeError) as caught:
        load_recipe(tiny, [override])
    assert str(caught.value).endswith(words)


@given(value=st.integers(1, 10**9))
def test_whole_numbers_survive_an_override(tiny, value):
    assert load_recipe(tiny, [f"match.ipc={value}"]).match.ipc == value


@given(value=st.floats(min_value=1e-30, max_value=1e30))
def test_numbers_survive_an_override(tiny, value):
    found = load_recipe(tiny, [f"match.student_lr={value!r}"]).match.student_lr
    assert math.isclose(found, value, rel_tol=0, abs_tol=0)


@given(value=PLAIN)
def test_plain_text_survives_an_override_without_quotes(tiny, value):
    assert load_recipe(tiny, [f"data.source={value}"]).data.source == value


@given(value=STRINGS)
def test_any_text_survives_an_override_in_quotes(tiny, value):
    quoted = json.dumps(value, ensure_ascii=False)
    assert load_recipe(tiny, [f"summary={quoted}"]).summary == value


@pytest.mark.parametrize(
    "value", ["2024-01-01", "07:30:00", "a=b", "x\ny = 2", "1\n[match]\nipc = 7", "#1", "[a", ""]
)
def test_text_that_looks_like_toml_stays_text(tiny, value):
    recipe = load_recipe(tiny, [f"summary={value}"])
    assert recipe.summary == value
    assert recipe.match.ipc == 1


@given(key=st.text(max_size=12), value=st.text(max_size=12))
def test_any_override_is_taken_or_refused(tiny, key, value):
    with suppress(RecipeError):
        load_recipe(tiny, [f"{key}={value}"])


def test_problems_are_named_with_their_keys(tiny):
    with pytest.raises(RecipeError) as caught:
        load_recipe(tiny, ["match.ipc=0", "match.wide=1", "data.channels=2", "seed=x", "foo=1"])
    message = str(caught.value)
    assert message.startswith(f"recipe {tiny}: seed: it should be a valid integer")
    assert "data.channels: it should be 1 or 3" in message
    assert message.endswith("; and 2 more")


def test_packaged_recipe_is_text():
    assert "[match]" in recipe_text("digits")


@pytest.mark.parametrize(
    ("name", "words"),
    [("digit", "did you mean digits?"), ("zzz", "choose one of digits, glyphs")],
)
def test_suggestion_is_the_nearest_name_or_all(name, words):
    assert suggestion(name, ["digits", "glyphs"]) == words
