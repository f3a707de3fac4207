"""Kinds, types and digests of HDF5 files."""

import numpy as np
import pytest

from distill.errors import WorkError
from distill.sets.additions import add_measured, add_votes
from distill.sets.set_file import write_set
from distill.store.content_digests import digest_attribute, digest_content
from distill.store.hdf5 import (
    open_h5,
    read_kind,
    smallest_unsigned,
)
from tests.distill.sets.cases import make_set, make_votes


@pytest.mark.parametrize(
    ("count", "kind"), [(1, "uint8"), (256, "uint8"), (257, "uint16"), (65537, "uint32")]
)
def test_hard_labels_take_the_smallest_type(count, kind):
    assert smallest_unsigned(count) == np.dtype(kind)


def test_kind_and_digests_of_a_file(tmp_path):
    path = tmp_path / "set.h5"
    write_set(path, make_set())
    assert read_kind(path) == "set"
    images = digest_content(path, "set", ("images",), attributes=False)
    everything = digest_content(path, "set", ("images", "labels"), attributes=True)
    assert images != everything
    add_measured(path, {"a": 1})
    assert digest_content(path, "set", ("images", "labels"), attributes=True) == everything
    measured = digest_attribute(path, "set", "measured")
    add_measured(path, {"a": 2})
    assert digest_attribute(path, "set", "measured") != measured
    add_votes(path, make_votes())
    assert digest_content(path, "set", ("images",), attributes=False) == images
    assert digest_content(path, "set", ("images", "labels"), attributes=True) != everything
    with pytest.raises(WorkError, match="cannot be read"):
        digest_content(path, "set", ("pictures",), attributes=False)
    with pytest.raises(WorkError, match="holds set, not experts"), open_h5(path, "experts"):
        pass
