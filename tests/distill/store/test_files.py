"""Files are written whole or not at all, and digested."""

import pytest

from distill.store.files import (
    atomic_path,
    digest_json,
    digest_tree,
    new_folder,
    remove,
    write_json,
    write_text,
)
from tests.distill.cases import contents


def write_half(path, error):
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error


def test_atomic_path_writes_the_whole_file_or_nothing(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError, match="half way"):
        write_half(path, RuntimeError("half way"))
    assert path.read_text() == "old"
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert set(contents(tmp_path)) == {"deep/file.txt"}


def test_atomic_path_leaves_nothing_where_nothing_was(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write_half(tmp_path / "file.txt", KeyboardInterrupt())
    assert contents(tmp_path) == {}


def test_json_is_text_that_people_can_read(tmp_path):
    write_json(tmp_path / "a.json", {"b": "ä", "a": [1]})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert text == '{\n  "b": "ä",\n  "a": [\n    1\n  ]\n}\n'


def test_digests_depend_on_names_and_contents_only(tmp_path):
    assert digest_json({"a": 1, "b": 2}) == digest_json({"b": 2, "a": 1})
    for folder in ("x", "y"):
        write_text(tmp_path / folder / "a.txt", "1")
        write_text(tmp_path / folder / "sub" / "b.txt", "22")
    assert digest_tree(tmp_path / "x") == digest_tree(tmp_path / "y")
    (tmp_path / "y" / "a.txt").rename(tmp_path / "y" / "c.txt")
    assert digest_tree(tmp_path / "x") != digest_tree(tmp_path / "y")
    remove(tmp_path / "y")
    remove(tmp_path / "y")
    assert set(contents(tmp_path)) == {"x/a.txt", "x/sub/b.txt"}


def test_files_of_a_new_folder_are_as_readable_as_the_folder(tmp_path):
    with new_folder(tmp_path / "out") as folder:
        (folder / "below").mkdir()
        for name in ("own", "below/own"):
            (folder / name).touch()
            # As safetensors leaves its files.
            (folder / name).chmod(0o600)
        (folder / "tool").touch()
        (folder / "tool").chmod(0o700)
    out = tmp_path / "out"
    shared = out.stat().st_mode & 0o666
    assert (out / "own").stat().st_mode & 0o777 == shared
    assert (out / "below" / "own").stat().st_mode & 0o777 == shared
    assert (out / "tool").stat().st_mode & 0o777 == 0o700
