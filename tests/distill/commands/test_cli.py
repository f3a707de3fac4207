import importlib.metadata
import json
import os
import re
import subprocess
import sys

import pytest
import torch

from distill import names as registry
from distill.commands.cli import COMMANDS
from distill.commands.export import EXPORTS
from distill.commands.ls import KINDS
from distill.recipes import build
from distill.recipes.checks import check_names
from distill.recipes.loading import load_recipe, recipe_text
from distill.recipes.specs import parse_network
from distill.recipes.tables.match import MatchTable
from distill.report.result_table import result_lines
from distill.report.verdict import find_verdict
from tests.distill.cases import STUDENT, contents


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_has_an_example(name, command):
    outcome = command(name, "--help")
    assert outcome.code == 0
    assert f"Usage: distill {name}" in outcome.out
    assert "Example:" in outcome.out
    assert f"distill {name} " in outcome.out.partition("Example:")[2]
    assert outcome.err == ""


def test_help_of_the_group_lists_every_command_with_an_example(command):
    for flag in ("--help", "-h"):
        outcome = command(flag)
        assert outcome.code == 0
        assert "Example:" in outcome.out
        listed = outcome.out.partition("Commands:")[2].split("\n")
        assert [line.split()[0] for line in listed if line.strip()] == list(COMMANDS)


def test_version_is_that_of_the_distribution(command):
    outcome = command("--version")
    assert outcome.code == 0
    assert outcome.out.startswith("distill, version ")


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["ls"], ["ls", "--json"]])
def test_help_and_ls_import_no_torch_and_are_quick(arguments):
    code = (
        "import json, sys, time\n"
        "from distill.__main__ import run\n"
        f"code = run({arguments!r})\n"
        "heavy = [name for name in ('torch', 'numpy', 'h5py') if name in sys.modules]\n"
        "print(json.dumps([code, heavy, time.process_time()]), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    exit_code, heavy, seconds = json.loads(done.stderr)
    assert exit_code == 0
    assert heavy == []
    # Seconds of the processor, so that a busy machine does not count.
    assert seconds < 1


def test_help_is_there_in_a_third_of_a_second():
    code = (
        "import json, sys, time\n"
        "from distill.__main__ import run\n"
        "code = run(['--help'])\n"
        "print(json.dumps([code, time.process_time(), sorted(sys.modules)]), file=sys.stderr)\n"
    )
    # A processor that needs more than 0.15 s for these imports is slow, or has other work to do.
    yardstick = (
        "import argparse, asyncio, http.client, logging.config, sys, time, unittest.mock\n"
        "import xml.dom.minidom\n"
        "print(time.process_time(), file=sys.stderr)\n"
    )

    def told(program):
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        )
        return json.loads(done.stderr)

    rounds = [(told(code), told(yardstick)) for _ in range(5)]
    runs = [run for run, _ in rounds]
    assert {code for code, _, _ in runs} == {0}
    # What takes the time is what is imported; 0.3 s is the promise, and caches may be cold.
    slowness = max(1.0, min(seconds for _, seconds in rounds) / 0.15)
    assert min(seconds for _, seconds, _ in runs) < 0.3 * slowness
    modules = runs[0][2]
    assert not {"torch", "numpy", "h5py", "pydantic", "scipy", "rich"} & set(modules)
    assert len(modules) < 220


def test_ls_json_has_a_list_of_entries_per_kind(command):
    outcome = command("ls", "--json")
    assert outcome.code == 0
    kinds = json.loads(outcome.out)
    making = ["recipes", "data", "networks", "teachers", "codecs", "codings", "strategies"]
    later = ["gradients", "protocols", "layouts", "formats", "loggers"]
    assert list(kinds) == [*making, *later, "projector-formats"]
    # Teachers come from packages alone.
    assert [kind for kind, entries in kinds.items() if not entries] == ["teachers"]
    for entries in kinds.values():
        for entry in entries:
            assert {"name", "summary", "source"} <= set(entry)
            assert all(isinstance(value, str) for value in entry.values())
            assert entry["summary"]
            assert entry["source"]
        assert len({entry["name"] for entry in entries}) == len(entries)
    assert "digits" in [entry["name"] for entry in kinds["recipes"]]


@pytest.mark.parametrize("kind", KINDS)
def test_ls_of_one_kind_shows_its_names(kind, command):
    shown = command("ls", kind).out
    listed = json.loads(command("ls", kind, "--json").out)
    assert list(listed) == [kind]
    assert all(entry["name"] in shown for entry in listed[kind])


def test_ls_networks_shows_their_options(command):
    assert "[depth=3:width=128:norm=instance" in command("ls", "networks").out


def test_every_name_becomes_an_object():
    with torch.device("meta"):
        for name in registry.NETWORKS:
            network = build.build_network(name, 3, (32, 32), 10, 0)
            assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    for name in registry.GRADIENTS:
        assert build.build_gradient(MatchTable(ipc=1, gradient=name))


def test_network_spec_overrides_the_defaults():
    entry, options = parse_network("convnet2:width=4:norm=batch")
    assert entry.name == "convnet2"
    assert options == {
        "depth": 2,
        "width": 4,
        "norm": "batch",
        "pooling": "avg",
        "activation": "relu",
        "padding": 1,
    }


def test_same_seed_gives_the_same_weights_and_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first, second, other = (build.build_network(STUDENT, 1, (8, 8), 10, s) for s in (5, 5, 6))
    assert torch.equal(torch.rand(2), expected)
    weights = [next(network.parameters()) for network in (first, second, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("name", registry.recipe_names())
def test_packaged_recipe_is_valid(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.summary
    check_names(recipe)


def test_cp_writes_a_recipe_that_runs(command, tmp_path):
    outcome = command("cp", "digits", tmp_path / "mine.toml")
    assert outcome.code == 0
    assert outcome.out == f"{tmp_path / 'mine.toml'}\n"
    assert load_recipe(str(tmp_path / "mine.toml")).data == load_recipe("digits").data


def test_a_copy_keeps_its_own_images_within_a_budget(command, tmp_path):
    assert command("cp", "digits", tmp_path / "mine.toml").code == 0
    text = (tmp_path / "mine.toml").read_text().replace("size = 16", "size = 12")
    (tmp_path / "mine.toml").write_text(text)
    found = load_recipe(str(tmp_path / "mine.toml"), budget=1900)
    assert (found.name, found.data.size, found.budget_bytes) == ("mine", 12, 1900)


def test_cp_into_a_folder_keeps_the_name(command, tmp_path):
    assert command("cp", "digits", tmp_path).code == 0
    (tmp_path / "copies").mkdir()
    assert command("cp", tmp_path / "digits.toml", tmp_path / "copies").code == 0
    assert set(contents(tmp_path)) == {"digits.toml", "copies/digits.toml"}


def test_cp_to_a_dash_prints_the_recipe(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command("cp", "digits-2kb", "-").out == recipe_text("digits-2kb")
    printed = command("cp", "digits", "-").out
    assert printed == recipe_text("digits").replace('within_bytes = "digits-2kb"\n', "")
    assert contents(tmp_path) == {}


def test_cp_makes_no_folders(refused, tmp_path):
    line = refused(1, "cp", "digits", tmp_path / "copies" / "mine.toml")
    assert f"the folder {tmp_path / 'copies'} is not there" in line
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script(shell, command):
    outcome = command("completion", shell)
    assert outcome.code == 0
    assert "_DISTILL_COMPLETE" in outcome.out


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("distill ev", "plain,evaluate"),
        ("distill run digits-act", "plain,digits-active"),
        ("distill plan digits-act", "plain,digits-active"),
        ("distill run mine", "file,mine"),
    ],
)
def test_completion_completes_commands_and_recipes_without_torch(words, completed):
    environment = {
        **os.environ,
        "_DISTILL_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-c", "from distill.__main__ import main; main()"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed in done.stdout.split()


def test_doctor_says_what_there_is(command):
    outcome = command("doctor", "--json")
    assert outcome.code == 0
    found = json.loads(outcome.out)
    assert found["versions"]["torch"] == importlib.metadata.version("torch")
    assert found["cpus"] == os.cpu_count()
    assert len(found["cuda devices"]) == torch.cuda.device_count()
    assert "fashion-mnist: " in command("doctor").out


def test_doctor_fails_where_a_package_is_missing(command, monkeypatch):
    monkeypatch.setattr("distill.run.folder.versions", lambda: {"peft": "not installed"})
    outcome = command("doctor", "--json")
    assert outcome.code == 1
    assert json.loads(outcome.out)["versions"] == {"peft": "not installed"}
    assert "error: not installed: peft;" in outcome.err


SHOWN = [
    ("", "run", {"recipe", "stages", "versions", "data", "seed", "device"}),
    ("set.h5", "set", {"images", "learned labels", "voted labels", "class_names", "measured"}),
    ("experts.h5", "experts", {"network", "experts", "epochs", "parameters"}),
    ("committee.h5", "committee", {"members", "class_names", "data"}),
    ("projector", "projector", {"tower", "classes", "adapter", "head", "files"}),
]


@pytest.mark.parametrize(("name", "kind", "keys"), SHOWN, ids=[kind for _, kind, _ in SHOWN])
def test_show_says_what_an_artefact_is(name, kind, keys, finished, command):
    outcome = command("show", finished / name, "--json")
    assert outcome.code == 0
    found = json.loads(outcome.out)
    assert found["kind"] == kind
    assert keys <= set(found)
    lines = command("show", finished / name).out.splitlines()
    assert lines[-1].startswith("Next: distill ")
    assert str(finished) in lines[-1]
    assert max(map(len, lines)) < 700


def test_show_gives_the_numbers_of_an_artefact(finished, command):
    experts = json.loads(command("show", finished / "experts.h5", "--json").out)
    assert (experts["network"], experts["experts"], experts["epochs"]) == (STUDENT, 2, 3)
    content = json.loads(command("show", finished / "set.h5", "--json").out)
    assert content["images"] == [10, 1, 8, 8]
    assert content["voted labels"] == [4, 10, 10]
    committee = json.loads(command("show", finished / "committee.h5", "--json").out)
    assert len(committee["members"]) == 3
    assert all(0.2 < accuracy <= 1 for accuracy in committee["members"].values())


def test_show_says_how_good_a_run_and_its_set_are(finished, command):
    verdict = find_verdict(json.loads((finished / "summary.json").read_text())).sentence
    run, content = (command("show", finished / name).out.splitlines() for name in ("", "set.h5"))
    assert run[0] == "A run of the recipe tiny on digits, seed 0."
    assert run[1].startswith("Done: experts, committee, project, match, relabel, evaluate, in ")
    assert run[2] == content[2] == verdict
    assert run[3] == f"Its report: {finished / 'report.html'}"
    assert content[0].startswith("10 distilled images of 1x8x8, which stand for the 10 classes of")
    assert content[1].startswith("Labels: hard, learned, votes of 4 epochs. Made with " + STUDENT)


def test_show_knows_a_recipe_and_says_of_others_what_they_are_for(
    recipe, command, refused, tmp_path
):
    lines = command("show", recipe).out.splitlines()
    assert lines[0].startswith("The recipe tiny")
    assert lines[1] == (
        "Data: digits. Stages: experts, committee, project, match, relabel, evaluate."
    )
    assert lines[2] == f"Next: distill plan {recipe}"
    assert json.loads(command("show", recipe, "--json").out)["kind"] == "recipe"
    for name in ("cat.jpg", "report.html"):
        (tmp_path / name).write_bytes(b"x")
        line = refused(1, "show", tmp_path / name)
        assert "is not a file of this program; name a set.h5" in line
        assert "damaged" not in line
    (tmp_path / "my photos" / "cat").mkdir(parents=True)
    line = refused(1, "show", tmp_path / "my photos")
    assert line.endswith(f"distill inspect '{tmp_path / 'my photos'}'\n")


def test_show_says_what_a_run_still_lacks(recipe, command, tmp_path):
    command("experts", recipe, "--out", tmp_path / "run", "--set", "experts.count=1", "--quiet")
    lines = command("show", tmp_path / "run").out.splitlines()
    assert lines[1].startswith("Done: experts, in ")
    assert lines[1].endswith(" Not done yet: committee, project, match, relabel, evaluate.")
    assert lines[2] == (f"Next: the command that began it, with --out {tmp_path / 'run'}, goes on.")


@pytest.mark.parametrize("name", ["", "set.h5", "experts.h5", "committee.h5", "projector"])
def test_verify_finds_what_is_whole(name, finished, command):
    outcome = command("verify", finished / name)
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith(f"{finished / name}: ")


def test_evaluate_prints_nothing_but_json(finished, command):
    before = contents(finished)
    outcome = command(
        "evaluate", finished / "set.h5", "--students", f"{STUDENT},mlp:width=8", "--seeds", "1",
        "--epochs", "2", "--whole-epochs", "1", "--json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert set(found) == {"students", "controls", "bytes", "protocol", "confusion"}
    for group in (found["students"], found["controls"]["random"], found["controls"]["whole"]):
        assert list(group) == [STUDENT, "mlp:width=8"]
    entry = found["students"]["mlp:width=8"]["votes"]
    assert entry.items() >= {"mean": entry["runs"][0], "std": 0.0, "interval": None}.items()
    assert len(entry["runs"]) == 1
    assert {"images", "labels", "projector", "external"} <= set(found["bytes"])
    assert found["protocol"]["hard"]["epochs"] == 2
    assert "evaluate" in outcome.err
    assert contents(finished) == before


def test_evaluate_gives_what_the_run_measured(finished, command):
    outcome = command("evaluate", finished, "--quiet", "--json")
    assert outcome.err == ""
    assert json.loads(outcome.out) == json.loads((finished / "evaluation.json").read_text())


def test_evaluate_shows_a_table_in_percent(finished, command):
    outcome = command("evaluate", finished, "--labels", "hard", "--seeds", "1", "--quiet")
    again = command("evaluate", finished, "--labels", "hard", "--seeds", "1", "--json")
    lines = outcome.out.splitlines()
    assert lines[0] == STUDENT
    assert [line.split()[0] for line in lines[1:4]] == ["this", "random", "whole"]
    assert all(re.search(r"\d\.\d\d %  1 seed\b", line) for line in lines[1:4])
    assert "±" not in outcome.out
    assert lines[4].startswith("bytes: images 2,560, labels")
    assert lines[5] == find_verdict(json.loads(again.out)).sentence


def test_evaluate_names_labels_that_are_left_out(finished, command, tmp_path):
    (tmp_path / "set.h5").write_bytes((finished / "set.h5").read_bytes())
    options = ("--seeds", "1", "--epochs", "1", "--whole-epochs", "0")
    for labels, words in (("hard,projector", "note: labels projector are left out"), ("hard", "")):
        outcome = command("evaluate", tmp_path / "set.h5", "--labels", labels, *options)
        assert outcome.code == 0, outcome.err
        assert words in outcome.err
        assert ("left out" in outcome.err) == bool(words)


def test_evaluate_without_the_control_of_all_images(finished, command):
    options = ("--whole-epochs", "0", "--labels", "hard", "--seeds", "1", "--epochs", "1", "-q")
    found = json.loads(command("evaluate", finished, *options, "--json").out)
    assert found["controls"]["whole"] == {}
    assert found["protocol"]["whole"]["seeds"] == 0


@pytest.mark.parametrize("what", EXPORTS)
def test_licence_is_taken_in_both_spellings(what, command):
    assert "--licence, --license" in command("export", what, "--help").out


def test_evaluate_without_teachers_has_no_control_that_needs_them(finished, command, tmp_path):
    (tmp_path / "set.h5").write_bytes((finished / "set.h5").read_bytes())
    outcome = command("evaluate", tmp_path / "set.h5", "--seeds", "1", "--quiet", "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert set(found["students"][STUDENT]) == {"hard", "learned", "votes"}
    assert set(found["controls"]["random"][STUDENT]) == {"hard"}
    assert found["bytes"]["projector"] == 0


def test_progress_is_shown_as_lines_without_a_terminal(recipe, command, tmp_path):
    outcome = command("experts", recipe, "--out", tmp_path / "run", "--set", "experts.count=1")
    assert outcome.code == 0
    assert outcome.out == ""
    assert outcome.err.startswith("experts    3/3 ")


@pytest.mark.parametrize("what", EXPORTS)
def test_help_of_every_export_has_an_example(what, command):
    outcome = command("export", what, "--help")
    assert outcome.code == 0
    assert f"distill export {what} " in outcome.out.partition("Example:")[2]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ls", "networs"], "'networs' is unknown; did you mean networks?"),
        (["export", "set", "x", "--out", "y", "--format", "npy"], "did you mean npz?"),
        (["import", "x", "--out", "y", "--from", "mmt"], "did you mean mtt?"),
        (["run", "digits", "--out", "y", "--stage", "evalute"], "did you mean evaluate?"),
    ],
)
def test_nearest_name_is_suggested_for_every_choice(arguments, words, refused):
    assert words in refused(2, *arguments)


def test_run_prints_what_its_folder_holds_as_json(run_copy, recipe, command):
    outcome = command("run", recipe, "--out", run_copy, "--quiet", "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert found["summary"] == json.loads((run_copy / "summary.json").read_text())
    assert "experts" in found["stages"]
    assert found["report"] == str(run_copy / "report.html")
    outcome = command("run", recipe, "--out", run_copy, "--quiet")
    assert outcome.out.splitlines() == result_lines(found["summary"])
    printed = json.loads(command("report", run_copy, "--json").out)
    assert printed == {"report": str(run_copy / "report.html")}


def test_download_fetches_before_the_run(recipe, command, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr("distill.stages.run_recipe.download", asked.append)
    monkeypatch.setattr("distill.stages.run_recipe.run_recipe", lambda *_, **__: None)
    outcome = command("run", recipe, "--out", tmp_path / "run", "--download")
    assert outcome.code == 0, outcome.err
    assert asked == ["digits"]


def test_no_color_reaches_even_a_terminal(monkeypatch):
    script = "import click; from distill.commands.cli import cli; cli(['ls', 'gradients'])"
    for value, coloured in (("1", False), ("", True)):
        leader, follower = os.openpty()
        environment = {**os.environ, "NO_COLOR": value}
        subprocess.run([sys.executable, "-c", script], stdout=follower, env=environment, check=True)
        os.close(follower)
        shown = os.read(leader, 10_000)
        os.close(leader)
        assert b"gradients" in shown
        assert (b"\x1b[" in shown) == coloured
