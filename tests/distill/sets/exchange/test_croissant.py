"""Metadata in Croissant, and the table of pictures that `datasets` and Croissant's reader open."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

import distill
from distill.sets.set_file import read_set, write_set
from distill.store.files import digest_file

FORMS = ["npz", "torch", "imagefolder", "hf"]


@pytest.fixture
def exported(finished, command, tmp_path):
    """Exports the finished run; returns the folder and its metadata."""

    def call(form, *options, path=finished):
        if form == "parquet":
            pytest.importorskip("pyarrow", reason="pip install 'limbeck[parquet]'")
        out = tmp_path / form
        outcome = command("export", "set", path, "--format", form, "--out", out, *options)
        assert outcome.code == 0, outcome.err
        return out, json.loads((out / "croissant.json").read_text(encoding="utf-8"))

    return call


def test_a_table_tells_classes_of_one_name_apart(exported, run_copy):
    path = run_copy / "set.h5"
    content = read_set(path)
    names = ["crane", "crane", *content.manifest["class_names"][2:]]
    write_set(path, replace(content, manifest={**content.manifest, "class_names": names}))
    out, _ = exported("parquet", path=path)
    from pyarrow import parquet

    stated = parquet.read_schema(out / "data" / "train-00000-of-00001.parquet").metadata
    features = json.loads(stated[b"huggingface"])["info"]["features"]
    assert features["label"]["names"][:3] == ["0 crane", "1 crane", "2 two"]


@pytest.mark.parametrize("form", [*FORMS, "parquet"])
def test_every_file_is_named_with_its_digest_or_among_the_pictures(form, exported):
    out, metadata = exported(form)
    objects = {one["@id"]: one for one in metadata["distribution"] if "sha256" in one}
    others = {one["includes"] for one in metadata["distribution"] if "includes" in one}
    files = {path.relative_to(out) for path in out.rglob("*") if path.is_file()}
    plain = {path.as_posix() for path in files if path.suffix != ".png"}
    assert set(objects) == plain - {"README.md", "croissant.json"}
    for name, one in objects.items():
        assert one["sha256"] == digest_file(out / name)
        assert one["contentSize"] == f"{(out / name).stat().st_size} B"
    pictures = {path for path in files if path.suffix == ".png"}
    assert {path for pattern in others for path in files if path.match(pattern)} == pictures
    assert bool(pictures) == (form in ("imagefolder", "hf"))


def test_classes_and_licence_are_told(exported, finished):
    _, metadata = exported("npz", "--license", "cc-by-4.0")
    assert metadata["license"] == "cc-by-4.0"
    assert "digits" in metadata["description"]
    names = distill.load(finished).manifest["class_names"]
    (classes,) = metadata["recordSet"]
    assert [row["classes/name"] for row in classes["data"]] == names
    assert "license" not in exported("torch")[1]


def test_the_same_set_gives_the_same_metadata(exported, finished, command, tmp_path):
    out, _ = exported("npz")
    command("export", "set", finished, "--format", "npz", "--out", tmp_path / "again")
    first, second = (path / "croissant.json" for path in (out, tmp_path / "again"))
    assert first.read_bytes() == second.read_bytes()


def test_a_table_without_pyarrow_is_one_line(finished, refused, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    words = ("export", "set", finished, "--format", "parquet", "--out", tmp_path / "out")
    assert "install limbeck[parquet]" in refused(1, *words)
    assert not (tmp_path / "out").exists()


def test_a_table_holds_pictures_classes_and_soft_labels(exported, finished):
    out, _ = exported("parquet")
    from pyarrow import parquet

    table = parquet.read_table(out / "data" / "train-00000-of-00001.parquet")
    data = distill.load(finished)
    assert table.column("label").to_pylist() == data.hard.tolist()
    np.testing.assert_allclose(table.column("soft_label").to_pylist(), data.labels, atol=1e-6)
    first = table.column("image")[0].as_py()
    assert first["bytes"].startswith(b"\x89PNG")
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert features["label"]["names"] == data.manifest["class_names"]


@pytest.mark.filterwarnings("ignore")
def test_datasets_shows_pictures_and_named_classes(exported, finished, tmp_path):
    datasets = pytest.importorskip("datasets", reason="the extra hf is not installed")
    out, _ = exported("parquet")
    table = str(out / "data" / "train-00000-of-00001.parquet")
    cache = str(tmp_path / "cache")
    found = datasets.load_dataset("parquet", data_files=table, split="train", cache_dir=cache)
    data = distill.load(finished)
    pixels = data.preprocess.inverse(data.images).clamp(0, 1)
    assert found.features["label"].names == data.manifest["class_names"]
    np.testing.assert_allclose(
        np.asarray(found[3]["image"]) / 255, pixels[3, 0].numpy(), atol=0.5 / 255 + 1e-6
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", [*FORMS, "parquet"])
def test_the_reader_of_croissant_finds_no_error(form, exported):
    mlcroissant = pytest.importorskip("mlcroissant", reason="pip install mlcroissant")
    out, _ = exported(form, "--license", "cc-by-4.0")
    dataset = mlcroissant.Dataset(jsonld=str(out / "croissant.json"))
    assert not dataset.metadata.ctx.issues.errors
    assert len(list(dataset.records("classes"))) == 10
    if form == "parquet":
        rows = list(dataset.records("images"))
        assert len(rows) == 10
        assert rows[0]["images/image"].size == (8, 8)
        assert len(rows[0]["images/soft_label"]) == 10


def test_names_of_strangers_stay_words(run_copy, exported):
    path = run_copy / "set.h5"
    content = read_set(path)
    names = ['"</script>', "a\x1b[31m", "\u202eback", *content.manifest["class_names"][3:]]
    content.manifest["class_names"] = names
    write_set(path, content)
    out, metadata = exported("npz", path=path)
    assert [row["classes/name"] for row in metadata["recordSet"][0]["data"]] == names
    text = (out / "croissant.json").read_text(encoding="ascii")
    assert text.replace("\n", "").isprintable()
