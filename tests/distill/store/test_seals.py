"""Digests that values, pages, rows and attributes hold of themselves."""

import json

import h5py
import numpy as np
import pytest

from distill.errors import WorkError
from distill.store.attributes import broken_attributes
from distill.store.hdf5 import create_h5, get_json, open_h5, put, put_json
from distill.store.jsonl import append_sealed, read_sealed
from distill.store.seals import fits, page_fits, sealed, sealed_page, unsealed
from tests.distill.cases import flip_data

VALUE = {"a": 1.5, "b": ["x", None], "c": {"d": True}}


def test_a_value_knows_whether_it_was_changed():
    value = json.loads(json.dumps(sealed(VALUE)))
    assert fits(value)
    assert unsealed(value) == VALUE
    assert sealed(value) == value
    assert fits({**value, "a": 1.25}) is False
    assert fits({**value, "e": 0}) is False
    assert fits(VALUE) is None


def test_every_changed_letter_of_a_page_is_noticed():
    page = "<p>\u00e4 65.9 %</p>\n"
    whole = sealed_page(page)
    assert page_fits(whole)
    assert page_fits(page) is None
    for place in range(len(page)):
        assert page_fits(whole[:place] + "#" + whole[place + 1 :]) is False


def test_rows_with_a_flipped_bit_are_left_out(tmp_path):
    path = tmp_path / "rows.jsonl"
    for number in range(3):
        append_sealed(path, {"job": f"j{number}", "accuracy": 0.25 * number})
    assert [row["accuracy"] for row in read_sealed(path)] == [0.0, 0.25, 0.5]
    line = path.read_bytes().splitlines()[1]
    for place in range(len(line)):
        changed = bytearray(line)
        changed[place] ^= 1 << place % 7
        path.write_bytes(bytes(changed) + b"\n")
        for row in read_sealed(path):
            # Blanks may differ, and a name of no key of ours is refused by whoever reads the row.
            assert row == {"job": "j1", "accuracy": 0.25} or not row.keys() <= {"job", "accuracy"}


@pytest.fixture
def artefact(tmp_path):
    path = tmp_path / "x.h5"
    with create_h5(path, "kind") as file:
        put_json(file, "names", ["cat", "dog"])
        put_json(file, "measured", {"mean": 0.659})
        file.attrs["lr"] = 0.01
        file.attrs["flag"] = True
        group = file.create_group("labels/one")
        group.attrs["mix"] = "cutmix"
        put(group, "values", np.arange(5.0), None)
        file.create_group("labels/two").attrs["mix"] = "mixup"
    return path


def flip(path, text):
    """Flip the lowest bit of each byte of a text, one at a time."""
    raw = path.read_bytes()
    start = raw.index(text)
    for place in range(start, start + len(text)):
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
        yield place
    path.write_bytes(raw)


@pytest.mark.parametrize("text", [b'["cat", "dog"]', b'{"mean": 0.659}', b"cutmix"])
def test_every_flipped_bit_of_an_attribute_is_noticed(text, artefact):
    assert broken_attributes(artefact) == ()
    for _ in flip(artefact, text):
        with pytest.raises(WorkError, match="not what was written"), open_h5(artefact, "kind"):
            pass
    with open_h5(artefact, "kind") as file:
        assert get_json(file, "names") == ["cat", "dog"]


def test_a_damaged_part_does_not_cost_those_beside_it(artefact):
    flip_data(artefact, b"cutmix")
    assert broken_attributes(artefact) == ("labels/one@mix",)
    with open_h5(artefact, "kind", ("labels/one",)) as file:
        assert file["labels/two"].attrs["mix"] == "mixup"
    with open_h5(artefact, "kind", ("labels",)):
        pass
    with pytest.raises(WorkError), open_h5(artefact, "kind", ("labels",), ("labels/one",)):
        pass
    flip_data(artefact, b'{"mean": 0.659}')
    assert broken_attributes(artefact) == ("@measured", "labels/one@mix")
    with open_h5(artefact, "kind", ("@measured", "labels/one")):
        pass


def test_attributes_that_are_added_or_lost_are_noticed(artefact):
    with h5py.File(artefact, "r+") as file:
        file.attrs["more"] = 1
        del file["labels/two"].attrs["mix"]
        file.attrs["lr"] = 0.02
    assert broken_attributes(artefact) == ("@lr", "@more", "labels/two@mix")


def test_a_file_from_before_there_were_digests_is_read(artefact):
    with h5py.File(artefact, "r+") as file:
        for item in (file, file["labels/one"], file["labels/two"]):
            del item.attrs["digests"]
    assert broken_attributes(artefact) is None
    with open_h5(artefact, "kind"):
        pass
