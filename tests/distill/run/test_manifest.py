"""manifest.json: its digest, and its copy that takes its place."""

import json

import pytest

from distill.errors import WorkError
from distill.run.folder import open_run
from distill.run.manifest import find_manifest, read_manifest
from tests.distill.cases import read_json

DAMAGES = {
    "cut": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "seed": lambda text: text.replace('"seed": 7', '"seed": 8'),
    "seconds": lambda text: text.replace("1.5", "1.25"),
    "key": lambda text: text.replace("abc", "abd"),
    "list": lambda text: "[]",
}


@pytest.fixture
def place(tmp_path):
    with open_run(tmp_path / "run", {"name": "x", "seed": 7}) as run:
        run.record_stage("experts", {"key": "abc", "outputs": {}, "seconds": 1.5})
    return tmp_path / "run"


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_manifest_is_refused_and_its_copy_takes_its_place(damage, place):
    file = place / "manifest.json"
    text = file.read_text()
    assert DAMAGES[damage](text) != text
    file.write_text(DAMAGES[damage](text))
    with pytest.raises(WorkError, match="is whole: run the recipe again with --out"):
        read_manifest(file)
    said = []
    with open_run(place, {"name": "x", "seed": 7}, said.append) as run:
        assert run.manifest["stages"]["experts"]["key"] == "abc"
    assert said == [
        f"{file} is damaged or missing; its copy {place / '.manifest.json'} takes its place"
    ]
    assert file.read_text() == text


def test_lost_manifest_is_taken_from_its_copy(place):
    text = (place / "manifest.json").read_text()
    (place / "manifest.json").unlink()
    with open_run(place, {"name": "x", "seed": 7}):
        pass
    assert (place / "manifest.json").read_text() == text


def test_without_a_whole_copy_what_to_do_is_said(place):
    for name in ("manifest.json", ".manifest.json"):
        (place / name).write_text('{"recipe"')
    with pytest.raises(WorkError, match="name another folder for --out"):
        find_manifest(place, print)
    with pytest.raises(WorkError, match="name the folder of a run"):
        read_manifest(place / "manifest.json")
    assert find_manifest(place.parent, print) is None


def test_manifest_from_before_there_were_digests_is_read(place):
    content = read_json(place / "manifest.json")
    del content["digest"]
    (place / "manifest.json").write_text(json.dumps(content))
    assert read_manifest(place / "manifest.json") == content
