"""Sets and projectors go to the hub and come back as they were, where a person asks for it."""

import inspect
import shutil
from dataclasses import replace
from fnmatch import fnmatch
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch

import distill
import projectors
from distill.errors import RecipeError, WorkError
from distill.sets.exchange.hub import HubAddress, parse_address
from distill.sets.set_file import read_set, write_set
from tests.distill.cases import contents, flip_byte

REAL = {
    "create_repo": huggingface_hub.HfApi.create_repo,
    "upload_folder": huggingface_hub.HfApi.upload_folder,
    "snapshot_download": huggingface_hub.snapshot_download,
}


class Hub:
    """Stands in for the hub: folders of repositories, and this machine's cache of them.

    A call is refused that the package's own function would not take.
    """

    def __init__(self, root):
        self.remote, self.cache, self.private = root / "remote", root / "cache", {}

    def create_repo(self, *arguments, **words):
        given = self._given("create_repo", None, *arguments, **words)
        assert (given["repo_type"], given["exist_ok"]) == ("dataset", True)
        if not (self.remote / given["repo_id"]).is_dir():
            (self.remote / given["repo_id"]).mkdir(parents=True)
            self.private[given["repo_id"]] = given["private"]

    def upload_folder(self, **words):
        given = self._given("upload_folder", None, **words)
        assert given["repo_type"] == "dataset"
        there = self.remote / given["repo_id"]
        for name in contents(there):
            if any(fnmatch(name, pattern) for pattern in given["delete_patterns"]):
                (there / name).unlink()
        shutil.copytree(given["folder_path"], there, dirs_exist_ok=True)
        return SimpleNamespace(oid="c0ffee")

    def snapshot_download(self, *arguments, **words):
        given = self._given("snapshot_download", *arguments, **words)
        assert given["repo_type"] == "dataset"
        there, here = self.remote / given["repo_id"], self.cache / given["repo_id"]
        if given["local_files_only"]:
            if not here.is_dir():
                raise huggingface_hub.errors.LocalEntryNotFoundError("not in the cache")
            return str(here)
        if not there.is_dir():
            raise ConnectionError("404 Client Error\nRepository Not Found")
        for name in contents(there):
            if any(fnmatch(name, pattern) for pattern in given["allow_patterns"]):
                # In the hub's cache, names are links.
                (here / name).parent.mkdir(parents=True, exist_ok=True)
                (here / name).unlink(missing_ok=True)
                (here / name).symlink_to(there / name)
        return str(here)

    def _given(self, name, *arguments, **words):
        return inspect.signature(REAL[name]).bind(*arguments, **words).arguments


@pytest.fixture
def hub(monkeypatch, tmp_path):
    stand_in = Hub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: stand_in)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", stand_in.snapshot_download)
    return stand_in


@pytest.fixture
def pushed(finished, hub, command):
    outcome = command("export", "hub", finished, "hf://me/small", "--license", "cc-by-4.0")
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("hf://me/small: the set and its projector, ")
    return hub.remote / "me" / "small"


def test_a_set_comes_back_as_it_was(finished, pushed):
    data, before = distill.load("hf://me/small", download=True), distill.load(finished)
    assert torch.equal(data.images, before.images)
    assert torch.equal(data.labels, before.labels)
    assert torch.equal(data.hard, before.hard)
    assert torch.equal(data.votes.whole, before.votes.whole)
    assert data.manifest == before.manifest


def test_nothing_is_fetched_unasked(pushed, command, refused, tmp_path):
    with pytest.raises(WorkError, match=r"hf://me/small is not on this machine, .*download=True"):
        distill.load("hf://me/small")
    words = ("import", "hf://me/small", "--from", "hub", "--out", tmp_path / "mine")
    assert "add --download" in refused(1, *words)
    assert not (tmp_path / "mine").exists()
    assert command(*words, "--download").code == 0
    # What was fetched once is read from this machine.
    assert len(distill.load("hf://me/small")) == 10


def test_set_and_projector_come_into_a_folder(finished, pushed, command, tmp_path):
    out = tmp_path / "mine"
    outcome = command("import", "hf://me/small", "--from", "hub", "--download", "--out", out)
    assert outcome.code == 0, outcome.err
    assert outcome.err == "set.h5 and projector/\n"
    assert command("verify", out).out == f"{out}: set, whole and readable\n"
    assert contents(out / "projector") == contents(finished / "projector")
    assert not any(path.is_symlink() for path in out.rglob("*"))
    images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    one, other = (projectors.load(path / "projector") for path in (finished, out))
    assert torch.equal(one(images), other(images))


def test_the_repository_has_card_pictures_and_no_more_than_that(finished, pushed):
    card = (pushed / "README.md").read_text(encoding="utf-8")
    assert card.startswith('---\nlicense: "cc-by-4.0"\n')
    assert 'data = distill.load("hf://me/small", download=True)' in card
    files = contents(pushed)
    assert len([name for name in files if name.endswith(".png")]) == 10
    others = {name for name in files if not name.startswith(("train/", "projector/"))}
    assert others == {"README.md", "croissant.json", "set.safetensors"}
    own = {name.partition("/")[2] for name in files if name.startswith("projector/")}
    assert own == set(contents(finished / "projector"))


def test_a_push_replaces_the_one_before_it(finished, pushed, hub, command, tmp_path):
    (pushed / "LICENSE").write_text("mine")
    few = tmp_path / "few.h5"
    content = read_set(finished / "set.h5")
    names = [*content.manifest["class_names"][:-1], "another"]
    write_set(few, replace(content, manifest={**content.manifest, "class_names": names}))
    outcome = command("export", "hub", few, "hf://me/small", "--public", "--json")
    assert outcome.code == 0, outcome.err
    files = contents(pushed)
    assert (pushed / "LICENSE").read_text() == "mine"
    assert not [name for name in files if name.startswith("projector/")]
    folders = {name.split("/")[1] for name in files if name.endswith(".png")}
    assert len(folders) == 10
    assert "00009-another" in folders
    # What it was when it was made.
    assert hub.private == {"me/small": True}


def test_a_public_repository_is_asked_for(finished, hub, command):
    assert command("export", "hub", finished, "hf://me/open", "--public").code == 0
    assert hub.private == {"me/open": False}


def test_a_projector_of_other_classes_is_not_sent(run_copy, hub, command):
    content = read_set(run_copy / "set.h5")
    lone = run_copy.parent / "lone"
    shutil.copytree(run_copy / "projector", lone / "projector")
    names = [f"class {number}" for number in range(10)]
    write_set(
        lone / "set.h5", replace(content, manifest={**content.manifest, "class_names": names})
    )
    outcome = command("export", "hub", lone, "hf://me/small")
    assert "the set, without a projector" in outcome.out


def test_a_damaged_projector_is_neither_sent_nor_taken(
    run_copy, pushed, hub, command, refused, tmp_path
):
    file = max((run_copy / "projector").glob("*.safetensors"), key=lambda path: path.stat().st_size)
    flip_byte(file, file.stat().st_size // 2)
    line = refused(1, "export", "hub", run_copy, "hf://me/other")
    assert f"{file.name} is not what was written" in line
    assert not (hub.remote / "me" / "other").exists()
    flip_byte(pushed / "projector" / file.name, file.stat().st_size // 2)
    out = tmp_path / "mine"
    words = ("import", "hf://me/small", "--from", "hub", "--download", "--out", out)
    assert f"{file.name} is not what was written" in refused(1, *words)
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("hf://me/a.b-c_d", HubAddress("me/a.b-c_d")),
        ("hf:/me/small", HubAddress("me/small")),
        ("hf://me/small@v1.0", HubAddress("me/small", "v1.0")),
    ],
)
def test_addresses(text, found):
    assert parse_address(text) == found


@pytest.mark.parametrize(
    "text", ["hf://me", "hf://me/a/b", "hf://../a", "me/small", "hf://me/a b", "hf:///a/b"]
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(RecipeError, match="is no address of the hub; write hf://OWNER/NAME"):
        parse_address(text)


REFUSED = [
    (2, ("export", "hub", "RUN", "hf://me/small@v1"), "a push goes to the main branch"),
    (2, ("export", "hub", "RUN", "small"), "is no address of the hub"),
    (1, ("export", "hub", "OUT", "hf://me/small"), "out is not a file; name the set file"),
    (2, ("import", "RUN", "--from", "npz", "--download", "--out", "OUT"), "is for --from hub"),
    (
        2,
        ("import", "hf://me/small", "--from", "hub", "--size", "8", "--out", "OUT"),
        "--size is for files that do not state it",
    ),
    (
        1,
        ("import", "hf://me/none", "--from", "hub", "--download", "--out", "OUT"),
        "nothing was fetched from hf://me/none (ConnectionError: 404 Client Error)",
    ),
]


@pytest.mark.parametrize(("code", "words", "line"), REFUSED)
def test_what_cannot_be_is_one_line(code, words, line, finished, hub, refused, tmp_path):
    places = {"RUN": finished, "OUT": tmp_path / "out"}
    assert line in refused(code, *(places.get(word, word) for word in words))
    assert not hub.remote.exists()
    assert not (tmp_path / "out").exists()


def test_a_repository_of_others_and_a_folder_that_is_taken_are_refused(hub, refused, tmp_path):
    (hub.remote / "me" / "text").mkdir(parents=True)
    (hub.remote / "me" / "text" / "set.safetensors").write_bytes(b"no tensors")
    words = ("import", "hf://me/text", "--from", "hub", "--download", "--out")
    assert "set.safetensors" in refused(1, *words, tmp_path / "mine")
    (hub.remote / "me" / "text" / "set.safetensors").unlink()
    (hub.cache / "me" / "text" / "set.safetensors").unlink()
    assert "hf://me/text holds no set.safetensors" in refused(1, *words, tmp_path / "mine")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious").write_text("mine")
    assert "it is not an empty folder" in refused(1, *words, tmp_path / "mine")
