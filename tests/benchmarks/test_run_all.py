"""Every result file can be made again: by whom, from what, and what is kept."""

import json
import shlex
import subprocess
import sys
import tomllib

import pytest

from tests.benchmarks.conftest import BENCHMARKS

SCRIPT = """
import json, pathlib, subprocess, sys
count = pathlib.Path("runs/count")
count.write_text(str(int(count.read_text()) + 1 if count.exists() else 1))
if pathlib.Path("broken").exists():
    sys.exit(3)
head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
result = {"command": "python make.py", "commit": head, "machine": {"cpu": "any", "cores": 1}}
pathlib.Path("results/one.json").write_text(json.dumps(result))
"""


@pytest.fixture
def run_all(benchmark_module):
    return benchmark_module("run_all")


def git(folder, *words):
    who = ("-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


def commit_code(folder, text):
    (folder / "synth" / "code.py").write_text(text)
    git(folder, "add", "synth")
    git(folder, "commit", "-m", text)


@pytest.fixture
def small(run_all, tmp_path, monkeypatch):
    """A repository of one script that makes one result, and run_all on it."""
    for name in ("synth", "results", "runs"):
        (tmp_path / name).mkdir()
    (tmp_path / "make.py").write_text(SCRIPT)
    git(tmp_path, "init")
    commit_code(tmp_path, "one")
    monkeypatch.setattr(sys.modules["code_state"], "ROOT", tmp_path)
    monkeypatch.setattr(run_all, "ROOT", tmp_path)
    monkeypatch.setattr(run_all, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(run_all, "ENTRIES", (run_all.Entry("one", ("python make.py",)),))
    return tmp_path


def times_made(folder):
    return int((folder / "runs" / "count").read_text())


def test_commands_of_files_are_those_that_were_called(benchmark_module):
    """An empty way, "as the recipe has it", is a word of its own."""
    script, found = benchmark_module("student_ways"), 0
    for path in (BENCHMARKS / "results").glob("*.json"):
        result = json.loads(path.read_text("utf-8"))
        words = shlex.split(result.get("command", ""))
        if "benchmarks/student_ways.py" in words:
            options = script.parse(words[2:])
            ways = {row["way"] for run in result["runs"].values() for row in run["rows"]}
            assert (options.name, set(options.way)) == (path.stem, ways)
            found += 1
    assert found


def test_a_call_is_recorded_as_a_shell_reads_it(benchmark_module, monkeypatch):
    words = ["a-name", "--way", "", "--way", "views=crop|flip"]
    monkeypatch.setattr(sys, "argv", ["/any/where/student_ways.py", *words])
    found = shlex.split(benchmark_module("record").this_call())
    assert found == ["python", "benchmarks/student_ways.py", *words]


def test_every_result_file_has_an_entry(run_all):
    files = {path.stem for path in (BENCHMARKS / "results").glob("*.json")}
    names = [entry.name for entry in run_all.ENTRIES]
    assert files <= set(names)
    assert len(names) == len(set(names))


def test_commands_are_those_that_programs_understand(run_all):
    from tests.test_docs import check_command

    for entry in run_all.ENTRIES:
        steps = list(run_all.steps_of(entry))
        assert steps, entry.name
        for words in steps:
            assert words[0] in ("distill", "python"), shlex.join(words)
            if words[0] == "distill":
                check_command(words)
            else:
                assert (BENCHMARKS.parent / words[1]).is_file(), shlex.join(words)


def test_folders_of_runs_are_not_shared_by_different_commands(run_all):
    """A run in the folder of another recipe would be refused, or take its place."""
    made_by = {}
    for entry in run_all.ENTRIES:
        for words in run_all.steps_of(entry):
            if words[0] == "distill":
                folder = words[words.index("--out") + 1]
                assert made_by.setdefault(folder, words) == words
                assert folder.startswith("runs/")


def test_ablations_are_those_that_were_measured():
    for path in (BENCHMARKS / "ablations").glob("*.toml"):
        spec = tomllib.loads(path.read_text(encoding="utf-8"))
        result = json.loads((BENCHMARKS / "results" / f"{path.stem}.json").read_text())
        measured = {name: variant["overrides"] for name, variant in result["variants"].items()}
        assert (result["shared"], measured) == (spec["shared"], spec["variants"]), path.name


def test_minutes_are_those_of_the_files(run_all):
    entries = {entry.name: entry for entry in run_all.ENTRIES}
    digits = run_all.result_of(entries["digits"])
    stages = digits["summary"]["stages"].values()
    assert run_all.seconds_of(digits) == pytest.approx(sum(stage["seconds"] for stage in stages))
    # Experts were trained once for the variants of this one.
    ablation = run_all.result_of(entries["fashion-mnist-ipc1-matching"])
    runs = [variant["summary"]["stages"] for variant in ablation["variants"].values()]
    own = sum(run[name]["seconds"] for run in runs for name in ("match", "evaluate"))
    expected = own + runs[0]["experts"]["seconds"]
    assert run_all.seconds_of(ablation) == pytest.approx(expected)
    assert run_all.seconds_of({**digits, "made_in_seconds": 5}) == 5
    assert run_all.seconds_of({}) is None


def test_a_result_is_kept_until_the_code_changes(small, run_all):
    run_all.main([])
    assert json.loads((small / "results" / "one.json").read_text())["made_in_seconds"] >= 0
    git(small, "commit", "--allow-empty", "-m", "words alone")
    run_all.main([])
    assert times_made(small) == 1
    first = json.loads((small / "results" / "one.json").read_text())["commit"]
    commit_code(small, "two")
    with pytest.raises(SystemExit, match="the code has changed since"):
        run_all.main([])
    run_all.main(["--since", first])
    assert times_made(small) == 1
    for name in ("run_all.json", "count"):
        (small / "runs" / name).unlink()
    run_all.main([])
    assert times_made(small) == 1
    assert json.loads((small / "results" / "one.json").read_text())["commit"] != first


def test_what_failed_is_gone_on_with(small, run_all):
    run_all.main([])
    made = (small / "results" / "one.json").read_text()
    (small / "runs" / "run_all.json").unlink()
    (small / "runs" / "count").unlink()
    commit_code(small, "two")
    (small / "broken").touch()
    with pytest.raises(SystemExit, match="not made: one"):
        run_all.main([])
    assert (small / "results" / "one.json").read_text() == made
    (small / "broken").unlink()
    # Seconds of both attempts are counted.
    state = small / "runs" / "run_all.json"
    begun = json.loads(state.read_text())
    begun["seconds"]["one"] += 1000
    state.write_text(json.dumps(begun))
    run_all.main([])
    assert json.loads((small / "results" / "one.json").read_text())["made_in_seconds"] >= 1000
    assert json.loads(state.read_text())["seconds"] == {}


def test_results_of_uncommitted_code_and_runs_of_others_are_refused(small, run_all):
    (small / "runs" / "mine").touch()
    with pytest.raises(SystemExit, match="did not begin"):
        run_all.main([])
    (small / "runs" / "mine").unlink()
    (small / "synth" / "code.py").write_text("three")
    with pytest.raises(SystemExit, match="commit first"):
        run_all.main([])
    assert not (small / "results" / "one.json").exists()


def test_lists_and_dry_runs_make_nothing(small, run_all, capsys):
    run_all.main(["--list"])
    assert "| one | to make | – |" in capsys.readouterr().out
    run_all.main(["--dry-run", "--only", "one"])
    assert capsys.readouterr().out == "python make.py\n"
    assert list((small / "runs").iterdir()) == []


def test_variants_of_other_code_or_settings_are_measured_again(benchmark_module, monkeypatch):
    ablation = benchmark_module("ablation")
    monkeypatch.setattr(ablation, "same_code", lambda commit: commit == "now")
    variants = {
        "a": {"overrides": ["x=1"]},
        "b": {"overrides": ["x=2"], "commit": "before"},
        "c": {"overrides": ["x=3"]},
    }
    result = {"commit": "now", "shared": ["y=1"], "variants": variants}
    spec = {"shared": ["y=1"], "variants": {"a": ["x=1"], "b": ["x=2"], "c": ["x=4"]}}
    kept = {"a": {"overrides": ["x=1"], "commit": "now"}}
    assert ablation.measured(result, spec) == kept
    assert ablation.measured(result, {**spec, "shared": []}) == {}
