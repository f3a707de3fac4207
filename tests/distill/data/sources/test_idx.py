import gzip
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from distill.data import DataError, read_idx

IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
HEADER = struct.pack(">BBBB3I", 0, 0, 8, 3, 2, 3, 4)


@settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=4, max_side=7)),
    st.sampled_from(["", ".gz"]),
)
def test_idx_round_trip(tmp_path, write_idx, array, suffix):
    path = write_idx(tmp_path / f"array{suffix}", array)
    read = read_idx(path, array.ndim)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_larger_than_one_chunk(tmp_path, write_idx, suffix):
    array = np.random.default_rng(0).integers(0, 256, (1_300, 30, 30), dtype=np.uint8)
    np.testing.assert_array_equal(read_idx(write_idx(tmp_path / f"a{suffix}", array), 3), array)


def test_gzip_is_told_by_content_not_by_name(tmp_path, write_idx):
    packed = write_idx(tmp_path / "packed.gz", IMAGES).rename(tmp_path / "packed")
    np.testing.assert_array_equal(read_idx(packed, 3), IMAGES)


def both_forms(tmp_path, content):
    """The content as a plain and as a gzipped file."""
    plain, packed = tmp_path / "file [red] é", tmp_path / "file [red] é.gz"
    plain.write_bytes(content)
    packed.write_bytes(gzip.compress(content))
    return plain, packed


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "starts with nothing, an idx file"),
        (b"\x00\x00", "starts with 0000, an idx file"),
        (b"\x89PNG\r\n\x1a\n", "starts with 89504e47"),
        (b"\x00\x00\x0d\x03" + HEADER[4:] + bytes(24), "starts with 00000d03"),
        (b"\x00\x00\x08\x01" + struct.pack(">I", 2) + bytes(2), "has 1 dimensions, .* swapped"),
        (HEADER[:9], "ends inside its header"),
        (struct.pack(">BBBB3I", 0, 0, 8, 3, 0, 28, 28), r"is empty \(shape \(0, 28, 28\)\)"),
        (
            struct.pack(">BBBB3I", 0, 0, 8, 3, 2**32 - 1, 0, 2**32 - 1),
            "is empty",
        ),
        (HEADER, r"promises 24 values \(shape \(2, 3, 4\)\) but holds"),
        (HEADER + bytes(23), "promises 24 values .* but holds"),
        (HEADER + bytes(25), "promises 24 values .* but holds more"),
    ],
)
def test_faulty_idx_is_refused(tmp_path, content, message):
    for path in both_forms(tmp_path, content):
        with pytest.raises(DataError, match=message) as caught:
            read_idx(path, 3)
        assert "file [red] é" in str(caught.value)


@pytest.mark.parametrize("cut", [1, 8, 15, 30])
def test_truncated_gzip_is_refused(tmp_path, write_idx, cut):
    path = write_idx(tmp_path / "a.gz", IMAGES)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(DataError, match=r"cannot be read|promises 24 values"):
        read_idx(path, 3)


def test_gzip_with_a_wrong_checksum_is_refused(tmp_path, write_idx):
    path = write_idx(tmp_path / "a.gz", IMAGES)
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"cannot be read .*CRC"):
        read_idx(path, 3)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"cannot be read .*No such file"):
        read_idx(tmp_path / "none", 3)


def peak_bytes(path):
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="promises"):
            read_idx(path, 3)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_lying_header_takes_no_memory(tmp_path):
    content = struct.pack(">BBBB3I", 0, 0, 8, 3, 2**32 - 1, 2**20, 2**20) + bytes(100)
    for path in both_forms(tmp_path, content):
        assert peak_bytes(path) < 1_000_000


def test_a_gzip_bomb_behind_a_small_header_takes_no_memory(tmp_path):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(HEADER + bytes(50_000_000)))
    assert peak_bytes(path) < 1_000_000


def test_a_promise_within_the_expansion_limit_is_kept_to_what_comes(tmp_path):
    # 30 MB are possible for a gzip file of this size, so only reading shows the lie.
    noise = np.random.default_rng(0).integers(0, 256, 30_000, dtype=np.uint8).tobytes()
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(struct.pack(">BBBB3I", 0, 0, 8, 3, 3, 10**4, 10**3) + noise))
    assert peak_bytes(path) < 5_000_000
