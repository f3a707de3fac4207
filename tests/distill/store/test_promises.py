"""Files that promise more than they hold, or lead elsewhere, are refused before memory is taken."""

import json
import resource
import struct
import tracemalloc
import zipfile
from io import BytesIO

import h5py
import numpy as np
import pytest
import torch

import projectors
from distill.errors import WorkError
from distill.recipes.loading import load_recipe
from distill.sets.exchange.arrays import from_safetensors
from distill.store.documents import parse_json, parse_toml, read_json
from distill.store.foreign import load_npz, load_torch
from distill.store.hdf5 import create_h5, open_h5, read_array
from projectors.model.tower_folder import least_parameters
from tests.distill.cases import read_json as json_of

DEEP = {"json": "[" * 60 + "]" * 60, "toml": "a = " + "[" * 60 + "]" * 60}


@pytest.mark.parametrize(
    ("parse", "text", "words"),
    [
        (parse_json, "[" * 10**5, "nested|char"),
        (parse_json, DEEP["json"], "nested more than 50 deep"),
        (parse_json, json.dumps(dict.fromkeys(map(str, range(1_000_001)))), "1,000,000 keys"),
        (parse_json, "1" * 5000, "digits"),
        (parse_toml, DEEP["toml"], "nested more than 50 deep"),
        (parse_toml, "a = " + "[" * 10**5, "nested|Invalid"),
        (parse_toml, "[" + ".".join("a" * 60) + "]", "nested more than 50 deep"),
        (parse_toml, "\n".join(f"a{index} = 1" for index in range(10_001)), "10,000 keys"),
        (parse_toml, "#" * (1 << 21), "at most 1,048,576 are read"),
    ],
)
def test_documents_have_limits(parse, text, words):
    with pytest.raises(ValueError, match=words):
        parse(text)


def test_a_large_document_is_not_read(tmp_path, monkeypatch, refused):
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    monkeypatch.setattr("distill.store.documents._JSON_BYTES", 1 << 20)
    with pytest.raises(ValueError, match="1,099,511,627,776 bytes, and at most 1,048,576"):
        read_json(path)
    recipe = tmp_path / "large.toml"
    path.rename(recipe)
    assert "at most 1,048,576 are read" in refused(2, "run", recipe, "--out", tmp_path / "run")


def test_commands_read_documents_with_limits(run_copy, refused, monkeypatch):
    monkeypatch.setattr("distill.store.documents._JSON_BYTES", 100)
    for name in ("show", "verify", "report"):
        assert "at most 100 are read" in refused(1, name, run_copy)
    assert "at most 100 are read" in refused(1, "show", run_copy / "projector")


def test_packaged_recipes_are_within_the_limits():
    assert load_recipe("digits")


def header_of(shape):
    file = BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "<f8", "fortran_order": False, "shape": shape}
    )
    return file.getvalue()


def test_an_array_of_terabytes_is_refused_by_its_header(tmp_path):
    path = tmp_path / "promise.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", header_of((10**12,)) + b"123")
    tracemalloc.start()
    try:
        with pytest.raises(WorkError, match="promises 8,000,000,000,000 bytes, but holds"):
            load_npz(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_pickle_that_asks_for_bytes_is_refused(tmp_path):
    torch.save({"a": torch.zeros(4)}, tmp_path / "good.pt")
    path = tmp_path / "promise.pt"
    with zipfile.ZipFile(tmp_path / "good.pt") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            asks = b"\x80\x02cbuiltins\nbytearray\nJ\x00\x00\x00\x70\x85R."
            new.writestr(name, asks if name.endswith("data.pkl") else old.read(name))
    with pytest.raises(WorkError, match="asks for bytes by their number"):
        load_torch(path)
    assert load_torch(tmp_path / "good.pt")["a"].shape == (4,)


@pytest.mark.parametrize("header", [{"shape": [10**13], "data_offsets": [0, 4 * 10**13]}, None])
def test_safetensors_that_promise_terabytes_are_refused(header, tmp_path):
    text = json.dumps({"images": {"dtype": "F32", **(header or {})}}).encode()
    path = tmp_path / "promise.safetensors"
    path.write_bytes(struct.pack("<Q", len(text) if header else 1 << 40) + text)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(WorkError, match="cannot be read as safetensors"):
        from_safetensors(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def artefact(path, fill):
    """A file that HDF5 itself wrote, as a stranger would."""
    with create_h5(path, "set"):
        pass
    with h5py.File(path, "r+") as file:
        fill(file)
    return path


def put_external_storage(file):
    file.create_dataset("x", (4,), "f4", external=[("/etc/hostname", 0, 16)])


def put_virtual(file):
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("/etc/hostname", "x", (4,))
    file.create_virtual_dataset("x", layout)


def put_filtered(file):
    # Numbers that do not compress, so that the file holds as many bytes as they take.
    noise = np.random.default_rng(0).integers(0, 256, 1000, dtype=np.uint8)
    file.create_dataset("x", data=noise, compression="gzip", chunks=(1000,))


def put_unknown_filter(file):
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((4,))
    plan.set_filter(32_000, h5py.h5z.FLAG_OPTIONAL)
    space = h5py.h5s.create_simple((4,))
    item = h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_FLOAT, space, plan)
    item.write(h5py.h5s.ALL, h5py.h5s.ALL, np.zeros(4, np.float32))


@pytest.mark.parametrize(
    ("fill", "words"),
    [
        (put_external_storage, "lie in another file"),
        (put_virtual, "lie in another file"),
        (put_filtered, "packed by filters"),
        (put_unknown_filter, "packed by filters"),
        (lambda file: file.create_dataset("x", (10**13,), "f4", chunks=(10**6,)), "promises"),
        (lambda file: file.create_dataset("x", (10**13,), "f4"), "promises"),
    ],
)
def test_numbers_that_lie_elsewhere_or_nowhere_are_refused(fill, words, tmp_path):
    path = artefact(tmp_path / "set.h5", fill)
    with pytest.raises(WorkError, match=words), open_h5(path, "set") as file:
        read_array(file, "x")


def put_large_attribute(file):
    space = h5py.h5s.create_simple((3 << 20,))
    h5py.h5a.create(file.id, b"limbeck2", h5py.h5t.NATIVE_DOUBLE, space)


@pytest.mark.parametrize(
    ("fill", "words"),
    [
        (put_large_attribute, "has 25165824 bytes"),
        (
            lambda file: file.__setitem__("x", h5py.ExternalLink("/etc/hostname", "x")),
            "x leads to another file",
        ),
    ],
)
def test_links_and_attributes_are_refused_when_a_file_is_opened(fill, words, tmp_path, refused):
    path = tmp_path / "set.h5"
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        file.attrs["limbeck"], file.attrs["format"] = "set", 1
        fill(file)
    with pytest.raises(WorkError, match=words), open_h5(path, "set"):
        pass
    assert str(path) in refused(1, "show", path)


def test_a_tower_larger_than_its_weights_is_refused(tmp_path):
    folder = tmp_path / "tower"
    folder.mkdir()
    own = projectors.model.tower.glyphclip_folder()
    (folder / "open_clip_model.safetensors").write_bytes(
        (own / "open_clip_model.safetensors").read_bytes()
    )
    for part, key in (("vision_cfg", "width"), ("text_cfg", "vocab_size")):
        config = json_of(own / "open_clip_config.json")
        config["model_cfg"][part][key] = 10**9
        (folder / "open_clip_config.json").write_text(json.dumps(config))
        with pytest.raises(projectors.ProjectorError, match=r"promises at least .* parameters"):
            projectors.load_tower(f"folder:{folder}")
    for text in ("3", "{}", '{"model_cfg": {"vision_cfg": {"width": "a"}}}', "[" * 10**5):
        (folder / "open_clip_config.json").write_text(text)
        with pytest.raises(projectors.ProjectorError, match="is no configuration of open_clip"):
            projectors.load_tower(f"folder:{folder}")


def test_no_known_tower_promises_more_than_it_has():
    import open_clip

    for name in ("RN50", "ViT-B-32"):
        config = open_clip.get_model_config(name)
        with torch.device("meta"):
            model = open_clip.CLIP(**config)
        assert 0 < least_parameters(config) < sum(p.numel() for p in model.parameters())
