"""Names that a stranger chose stay words in every export, message and table."""

import ast
import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import h5py
import pytest
import yaml
from markdown_it import MarkdownIt

import projectors
from distill.__main__ import run
from distill.report.writing import write_report
from distill.run.progress import Progress
from distill.sets.set_file import read_set, write_set
from distill.terminal import visible
from projectors.export import escapes
from projectors.export.card import model_card
from projectors.export.escapes import code, inline, yaml_text
from projectors.export.formats import Exported, write_about
from tests.distill.cases import copy_run, read_json, rewrite_manifest

ROOT = Path(__file__).resolve().parents[2]
NAME = (
    "=a\n\n## Measured accuracy\n\n99.9 %\n```\n````\n</details><script>alert(1)</script>"
    "\n---\nlicense: gpl\n| x | `y` | [l](https://e.invalid) ![i](x) www.e.invalid @you "
    "\x1b]0;owned\x07\x9b31m\u202egnp\u2028\udc80 *b* _i_ $m$ &lt; \x7f"
)
# What a terminal obeys, and what reorders text; a line break is printed by us alone.
OBEYED = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
FORMS = ("safetensors", "npz", "torch", "imagefolder", "hf", "ddranking", "avalanche")
PLAIN = "plain"


def renamed(value, name):
    """Plain values with `name` as every text but the keys, and as the keys of measured tables."""
    if isinstance(value, dict):
        return {key: renamed(item, name) for key, item in value.items()}
    if isinstance(value, list):
        return [renamed(item, name) for item in value]
    return name if isinstance(value, str) else value


def hostile_set(path, name):
    """A set of three colours whose every free text is `name`."""
    content = read_set(path)
    manifest = dict(content.manifest)
    manifest["class_names"] = [f"{name}{index}" for index in range(10)]
    manifest |= {key: name for key in ("augmentation", "network", "recipe_digest")}
    manifest["source"] = {
        "name": name, "digest": name, "imported": {"file": name, "layout": name},
    }  # fmt: skip
    manifest["recipe"] = renamed(manifest["recipe"], name)
    manifest["preprocess"] = {
        key: content.manifest["preprocess"][key] * 3 for key in ("mean", "std")
    }
    stats = next(iter(next(iter(content.measured["students"].values())).values()))
    measured = {
        **content.measured,
        "students": {name: {name: stats}},
        "controls": {name: {name: {name: stats}}},
    }
    colours = content.images.expand(-1, 3, -1, -1).contiguous()
    write_set(
        path,
        replace(content, images=colours, manifest=manifest, measured=measured, refined=None),
    )


@pytest.fixture(scope="module")
def sets(finished, tmp_path_factory):
    """A set of plain and one of hostile names."""
    folder, paths = tmp_path_factory.mktemp("sets"), {}
    for kind, name in (("plain", PLAIN), ("hostile", NAME.replace("\udc80", ""))):
        paths[kind] = copy_run(finished, folder / kind) / "set.h5"
        hostile_set(paths[kind], name)
    return paths


def structure(text):
    """The blocks of a Markdown text and the marks inside its lines, without its words."""
    kinds = []
    for token in MarkdownIt("commonmark").enable("table").parse(text.split("\n---\n", 1)[1]):
        kinds.append((token.type, token.tag))
        kinds += [(child.type, child.tag) for child in token.children or []]
        if token.type == "html_block":
            assert set(re.findall(r"<.*?>", token.content)) <= {
                "<details>", "<summary>", "</summary>", "</details>",
            }  # fmt: skip
    return [kind for kind in kinds if kind[0] != "text_special"]


def words_apart(kinds):
    """Runs of plain text as one: an escape may divide a text."""
    return [kind for index, kind in enumerate(kinds) if index == 0 or kind != kinds[index - 1]]


def check_card(hostile, plain):
    assert not OBEYED.search(hostile.replace("\n", ""))
    assert words_apart(structure(hostile)) == words_apart(structure(plain))
    assert hostile.startswith("---\n")
    fronts = [yaml.safe_load(text.split("---\n")[1]) for text in (hostile, plain)]
    assert fronts[0].keys() == fronts[1].keys()
    assert isinstance(fronts[0]["license"], str)


@pytest.mark.parametrize("form", [*FORMS, "parquet"])
def test_no_name_leaves_its_place_in_an_exported_set(form, sets, tmp_path):
    if form == "parquet":
        pytest.importorskip("pyarrow", reason="pip install 'limbeck[parquet]'")
    for kind, path in sets.items():
        out, licence = str(tmp_path / kind), NAME if kind == "hostile" else PLAIN
        words = ["export", "set", str(path), "--format", form, "--out", out]
        assert run([*words, "--license", licence.replace("\udc80", "")]) == 0
    cards = [(tmp_path / kind / "README.md").read_text() for kind in ("hostile", "plain")]
    check_card(*cards)
    if form == "hf":
        text = (tmp_path / "hostile" / "train" / "metadata.csv").read_text()
        assert not OBEYED.search(text)
        rows = list(csv.DictReader(text.splitlines()))
        assert len(rows) == len(read_set(sets["hostile"]).hard)
        assert all(row["class_name"].startswith("'=a") for row in rows)
    if form == "ddranking":
        # It has settings for the data that the benchmark knows, and no stranger's words in them.
        assert not (tmp_path / "hostile" / "demo.yaml").exists()


@pytest.mark.parametrize("form", ["peft", "merged", "onnx", "torch-export", "compact"])
def test_no_name_leaves_its_place_in_a_projectors_card(form, finished, tmp_path):
    projector, cards = projectors.load(finished / "projector"), []
    for name in (NAME, PLAIN):
        projector.classes = [f"{name}{index}" for index in range(10)]
        object.__setattr__(projector.tower, "spec", f"open_clip:{name}:{name}")
        cards.append(
            model_card(
                projector,
                Exported(0.0, [f"load({name!r})"], "`images`", False),
                {name: 1},
                form=form,
                fidelity={name: projectors.Fidelity(0.1, 0.2, 0.3)},
                licence=name,
            )
        )
    check_card(*cards)
    object.__setattr__(projector.tower, "spec", "config:tiny-vit")
    projector.classes = [f"{NAME}{index}" for index in range(10)]
    write_about(projector, tmp_path, NAME)
    assert not OBEYED.search((tmp_path / "about.json").read_text())


def printed(command, *arguments):
    """What a command prints, without a byte that a terminal obeys."""
    outcome = command(*arguments)
    assert not OBEYED.search(outcome.out + outcome.err), outcome
    return outcome


def test_no_name_reaches_the_terminal_as_it_is(sets, command, tmp_path):
    path = sets["hostile"]
    shown = printed(command, "show", path)
    assert len(shown.out.splitlines()) == len(
        printed(command, "show", sets["plain"]).out.splitlines()
    )
    assert json.loads(printed(command, "show", path, "--json").out)["network"].startswith("=a")
    printed(command, "verify", path)
    printed(command, "evaluate", path, "--quiet")
    foreign = tmp_path / "foreign.h5"
    with h5py.File(foreign, "w") as file:
        file.attrs["limbeck"] = NAME.replace("\udc80", "") * 50
    for words in (("show",), ("verify",), ("evaluate",), ("show", "--debug")):
        failed = printed(command, words[0], foreign, *words[1:])
        assert failed.code == 1
        assert failed.err.splitlines()[-1].startswith("error: ")
        assert len(failed.err.splitlines()[-1]) < 3000
    odd = tmp_path / "\x1b]0;x\x07.toml"
    odd.write_text("[data]\n")
    assert printed(command, "plan", odd).err.count("\n") == 1


def test_no_name_reaches_the_terminal_in_progress(capsys):
    progress = Progress()
    progress.say(NAME)
    with progress.task(NAME, 1) as advance:
        advance(NAME)
    assert not OBEYED.search(capsys.readouterr().err)


class Tags(HTMLParser):
    """Counts the tags of a page."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)


def test_no_name_is_a_tag_of_a_report(run_copy):
    counts, original = {}, (run_copy / "set.h5").read_bytes()
    for name in (PLAIN, NAME.replace("\udc80", "")):
        (run_copy / "set.h5").write_bytes(original)
        hostile_set(run_copy / "set.h5", name)
        manifest = read_json(run_copy / "manifest.json")
        manifest["recipe"]["summary"] = name
        rewrite_manifest(run_copy, manifest)
        page = Tags()
        page.feed(write_report(run_copy).read_text())
        counts[name] = {
            tag: page.seen.count(tag) for tag in ("script", "h2", "a", "img", "details")
        }
        hostile_set(run_copy / "set.h5", PLAIN)
    assert len({json.dumps(value) for value in counts.values()}) == 1


def test_words_stay_words():
    for text in ("plain words, 3 of 4", "n01440764", "convnet2:width=8", "Zoë 猫 می\u200cروم"):
        assert visible(text) == text
        assert inline(text) == text
        assert code(text) == f"`{text}`"
        assert yaml.safe_load(yaml_text(text)) == text
    assert visible("a\nb\x1b") == r"a\nb\u001b"


def test_commands_print_through_one_function():
    for path in sorted((ROOT / "distill").rglob("*.py")):
        if path.name in ("terminal.py", "completion.py"):
            continue
        calls = [
            ast.unparse(node.func)
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call)
        ]
        printing = {"click.echo", "click.secho", "sys.stderr.write", "sys.stdout.write", "print"}
        # The help of our own commands has many lines.
        allowed = {"click.echo"} if path.name == "__main__.py" else set()
        assert not (printing - allowed) & set(calls), path


@pytest.mark.parametrize("name", [NAME, PLAIN, "a\u200cb \u202e\x9b\u3000\t"])
def test_terminal_and_cards_show_the_same_text(name):
    """Each has the rule for itself: the terminal's imports no torch, which `projectors` does."""
    assert visible(name) == escapes.visible(name)
