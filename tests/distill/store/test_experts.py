import re
from unittest.mock import patch

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from distill.__main__ import run
from distill.errors import WorkError
from distill.recipes.loading import load_recipe
from distill.recipes.schema import kept_epochs
from distill.store.experts import (
    check_snapshots,
    read_info,
    read_last_snapshots,
    read_snapshots,
    write_experts,
)
from distill.store.snapshot_storage import (
    ROUNDING,
    decode_delta,
    decode_nibbles,
    encode_delta,
    encode_nibbles,
    nibble_error,
    share_of_mtt,
    stated_error,
    trajectory_bytes,
)
from distill.store.trajectories import Trajectory
from synth.parameters import ParameterLayout
from tests.distill.cases import TINY, flip_data, outputs_of, read_json, write_recipe

SIXTEEN = ("float16", "bfloat16")
THIN = (*SIXTEEN, "int4")
WIDTH = 1000


def walk(m=6, width=WIDTH, seed=0, size=0.01):
    """A trajectory like an expert's: steps that add up. [m, width]"""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randn(m, width, generator=generator) * size
    return torch.randn(width, generator=generator) * 0.1 + steps.cumsum(dim=0)


def store(path, storage, epochs=None, count=2, m=6):
    layout = ParameterLayout(("a",), (torch.Size([WIDTH]),))
    trained = (epochs[-1] if epochs else m - 1) + 1
    experts = [Trajectory(walk(m, seed=i), [0.5] * trained, epochs) for i in range(count)]
    write_experts(path, "mlp", "digest", layout, experts, storage)
    return experts


vectors = st.integers(1, 20).flatmap(
    lambda n: st.tuples(
        *(
            arrays(np.float32, n, elements=st.floats(-1e6, 1e6, width=32, allow_subnormal=True))
            for _ in range(2)
        )
    )
)


@pytest.mark.parametrize("storage", SIXTEEN)
@given(pair=vectors)
@settings(max_examples=300, deadline=None)
def test_error_of_a_value_stays_below_what_is_stated(storage, pair):
    first, snapshot = pair
    delta, scale = encode_delta(first, snapshot, storage)
    assert delta.dtype.itemsize == 2
    found = decode_delta(first, delta, scale)
    assert found.dtype == np.float32
    error = np.abs(found.astype(np.float64) - snapshot)
    assert error.max() <= stated_error(first, scale, storage)


@pytest.mark.parametrize("storage", SIXTEEN)
def test_stated_error_is_nearly_reached(storage):
    first = np.zeros(5000, dtype=np.float32)
    snapshot = walk(1, 5000)[0].numpy()
    delta, scale = encode_delta(first, snapshot, storage)
    error = np.abs(decode_delta(first, delta, scale) - snapshot).max()
    assert 0.4 * stated_error(first, scale, storage) < error
    assert stated_error(first, scale, storage) < 1.01 * ROUNDING[storage] * np.abs(snapshot).max()


def test_bfloat16_rounds_as_torch_does():
    values = walk(1, 5000)[0].numpy()
    delta, scale = encode_delta(np.zeros_like(values), values, "bfloat16")
    expected = torch.from_numpy(values.astype(np.float64) / scale).float().bfloat16()
    assert np.array_equal(delta, expected.view(torch.uint16).numpy())


@pytest.mark.parametrize("storage", SIXTEEN)
def test_sixteen_bits_round_trip_within_the_errors_of_the_file(storage, tmp_path):
    path = tmp_path / "experts.h5"
    experts = store(path, storage)
    info = read_info(path)
    assert (info.count, info.epochs, info.kept) == (2, 6, tuple(range(6)))
    assert info.storage == storage
    check_snapshots(path)
    with h5py.File(path) as file:
        member = file["experts/0001"]
        assert member["first"].dtype == np.float32
        assert member["deltas"].dtype.itemsize == 2
        assert member["deltas"].chunks == (1, WIDTH)
        assert member["deltas"].fletcher32
        assert member["first"].fletcher32
        errors = member["errors"][()]
    assert 0 < errors.max() <= info.largest_error < 1e-3
    for epoch in range(1, 6):
        start, found = read_snapshots(path, 1, (0, epoch))
        assert torch.equal(start, experts[1].snapshots[0])
        error = float((found - experts[1].snapshots[epoch]).abs().max())
        assert 0 < error <= errors[epoch - 1]


def test_errors_do_not_add_up_along_a_trajectory(tmp_path):
    path = tmp_path / "experts.h5"
    experts = store(path, "float16", count=1, m=60)
    expected = experts[0].snapshots
    _, last = read_snapshots(path, 0, (0, 59))
    move = float((expected[59] - expected[0]).norm())
    assert float((last - expected[59]).norm()) < 3e-4 * move


@pytest.mark.parametrize("storage", ["float32", *THIN])
def test_window_keeps_its_epochs_and_says_which_are_missing(storage, tmp_path):
    path = tmp_path / "experts.h5"
    experts = store(path, storage, epochs=(0, 1, 2, 4, 5, 9))
    info = read_info(path)
    assert info.kept == (0, 1, 2, 4, 5, 9)
    start, target = read_snapshots(path, 0, (4, 9))
    tolerance = info.largest_error
    torch.testing.assert_close(start, experts[0].snapshots[3], atol=tolerance, rtol=0)
    torch.testing.assert_close(target, experts[0].snapshots[5], atol=tolerance, rtol=0)
    with pytest.raises(WorkError) as caught:
        read_snapshots(path, 0, (2, 7))
    assert "holds epochs 0-2, 4-5, 9 of expert 0, not 7; set experts.keep" in str(caught.value)
    assert info.epochs == 10
    with pytest.raises(WorkError, match="not 10"):
        read_last_snapshots(path)


def test_two_snapshots_are_read_without_the_others(tmp_path):
    path = tmp_path / "experts.h5"
    store(path, "float16", count=1)
    read = []
    whole = h5py.Dataset.__getitem__

    def note(dataset, key):
        read.append(whole(dataset, key).nbytes)
        return whole(dataset, key)

    with patch.object(h5py.Dataset, "__getitem__", note):
        read_snapshots(path, 0, (2, 4))
    assert sum(read) == WIDTH * (4 + 2 + 2) + 5 * 8


@pytest.mark.parametrize("name", ["first", "deltas"])
def test_flipped_byte_of_sixteen_bit_storage_is_found(name, tmp_path):
    path = tmp_path / "experts.h5"
    store(path, "bfloat16")
    with h5py.File(path) as file:
        needle = file[f"experts/0001/{name}"][()].tobytes()
    flip_data(path, needle[: 2 * WIDTH])
    with pytest.raises(WorkError, match="make it again"):
        check_snapshots(path)
    read_snapshots(path, 0, (0, 3))


@pytest.mark.parametrize("storage", THIN)
def test_parameters_that_are_not_finite_are_refused(storage, tmp_path):
    layout = ParameterLayout(("a",), (torch.Size([2]),))
    experts = [Trajectory(torch.tensor([[0.0, 1.0], [torch.nan, 1.0]]), [0.1])]
    with pytest.raises(WorkError, match="expert 0 holds NaN"):
        write_experts(tmp_path / "experts.h5", "mlp", "d", layout, experts, storage)


def test_default_storage_adds_nothing_to_the_file(tmp_path):
    store(tmp_path / "experts.h5", "float32")
    with h5py.File(tmp_path / "experts.h5") as file:
        assert set(file.attrs) == {
            *("limbeck", "format", "network", "data", "parameters", "digests")
        }
        assert set(file["experts/0000"]) == {"snapshots"}
        assert set(file["experts/0000"].attrs) == {"accuracies", "digests"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([], (0, 1, 2, 3)),
        (["experts.keep=all"], tuple(range(9))),
        (["match.span=5"], (0, 1, 5, 6)),
        (["match.init=correct"], (0, 1, 2, 3, 8)),
        (["match.init=easy"], (0, 1, 2, 3, 8)),
        (["match.label_init=experts"], (0, 1, 2, 3, 8)),
        (["match.max_start_epoch=5", "match.min_start_epoch=4"], (4, 5, 6, 7)),
    ],
)
def test_window_follows_what_matching_reads(changes, expected):
    window = ["experts.keep=window", "match.max_start_epoch=1"]
    assert kept_epochs(load_recipe("digits", window + changes)) == expected


def test_window_that_starts_late_round_trips(tmp_path):
    path = tmp_path / "experts.h5"
    experts = store(path, "float16", epochs=(4, 5, 6), count=1, m=3)
    start, target = read_snapshots(path, 0, (4, 6))
    assert torch.equal(start, experts[0].snapshots[0])
    assert (target - experts[0].snapshots[2]).abs().max() <= read_info(path).largest_error
    with pytest.raises(WorkError, match="not 0"):
        read_snapshots(path, 0, (0, 6))


def test_bytes_are_those_of_the_arrays(tmp_path):
    for storage in ("float32", *THIN):
        store(tmp_path / "experts.h5", storage, count=1)
        with h5py.File(tmp_path / "experts.h5") as file:
            stored = sum(item.nbytes for item in file["experts/0000"].values())
        assert trajectory_bytes(WIDTH, 6, storage) == stored


@given(pair=vectors)
@settings(max_examples=300, deadline=None)
def test_error_of_a_value_in_four_bits_stays_below_what_is_stated(pair):
    before, snapshot = pair
    packed, steps, scale = encode_nibbles(before, snapshot)
    found = decode_nibbles(before, packed, steps, scale)
    assert (found.dtype, packed.dtype, steps.dtype) == (np.float32, np.uint8, np.float16)
    error = np.abs(found.astype(np.float64) - snapshot)
    assert error.max() <= nibble_error(snapshot, steps, scale)


def test_stated_error_in_four_bits_is_nearly_reached():
    before, snapshot = np.zeros(5000, dtype=np.float32), walk(1, 5000)[0].numpy()
    packed, steps, scale = encode_nibbles(before, snapshot)
    error = np.abs(decode_nibbles(before, packed, steps, scale) - snapshot).max()
    assert 0.8 * nibble_error(snapshot, steps, scale) < error
    assert nibble_error(snapshot, steps, scale) < 1.01 * np.abs(snapshot).max() / 14


def test_four_bits_do_not_add_up_errors_along_a_trajectory(tmp_path):
    path = tmp_path / "experts.h5"
    expected = store(path, "int4", count=1, m=60)[0].snapshots
    with h5py.File(path) as file:
        errors = file["experts/0000/errors"][()]
    for epoch in (1, 30, 59):
        _, found = read_snapshots(path, 0, (0, epoch))
        assert float((found - expected[epoch]).abs().max()) <= errors[epoch - 1]
        # A step of the walk is 0.01 a value; its rounding is about a ninth of it, however late.
        assert float((found - expected[epoch]).square().mean().sqrt()) < 0.0015


def test_four_bits_read_any_two_snapshots_in_any_order(tmp_path):
    path = tmp_path / "experts.h5"
    store(path, "int4", epochs=(4, 5, 6, 8), count=1, m=4)
    four, eight = read_snapshots(path, 0, (4, 8))
    assert torch.equal(torch.stack(read_snapshots(path, 0, (8, 4))), torch.stack([eight, four]))
    assert torch.equal(torch.stack(read_snapshots(path, 0, (8, 8))), torch.stack([eight, eight]))


@pytest.mark.parametrize("name", ["first", "deltas", "steps"])
def test_flipped_byte_of_four_bit_storage_is_found(name, tmp_path):
    path = tmp_path / "experts.h5"
    store(path, "int4", m=60)
    with h5py.File(path) as file:
        needle = file[f"experts/0001/{name}"][()].tobytes()
    flip_data(path, needle[:32])
    with pytest.raises(WorkError, match="make it again"):
        check_snapshots(path)


def test_thin_windows_stay_below_15_percent_of_mtt():
    # MTT's buffer for CIFAR-10 with ConvNet-3: 320,010 parameters. 4 + 2 m of 4 * 51 bytes.
    assert share_of_mtt(51, "float32", 320_010) == 1
    assert share_of_mtt(5, "float16", 320_010) == pytest.approx(12 / 204, abs=1e-4)
    assert share_of_mtt(14, "float16", 320_010) < 0.15 < share_of_mtt(15, "float16", 320_010)
    assert share_of_mtt(23, "bfloat16", 320_010, experts=60) < 0.15
    # The widest published window: starts 0 to 39 and their targets.
    assert share_of_mtt(42, "int4", 320_010) < 0.13


WINDOW = ("--set", "experts.storage=float16", "--set", "experts.keep=window")


@pytest.fixture(scope="module")
def thin(tmp_path_factory, one_thread):
    """A run of experts and matching from thin storage."""
    folder = tmp_path_factory.mktemp("thin")
    recipe = write_recipe(folder, TINY)
    stages = ("--stage", "experts", "--stage", "match", "--quiet")
    assert run(["run", str(recipe), "--out", str(folder / "run"), *stages, *WINDOW]) == 0
    return recipe, folder / "run", stages


def test_matching_from_thin_experts_ends_near_that_from_whole_ones(thin, finished):
    _, out, _ = thin
    with h5py.File(out / "set.h5") as found, h5py.File(finished / "set.h5") as expected:
        np.testing.assert_allclose(found["images"], expected["images"], atol=0.02)
    with h5py.File(out / "experts.h5") as file:
        stored = sum(item.nbytes for item in file["experts/0000"].values())
    assert stored < 0.55 * 4 * 4 * read_info(out / "experts.h5").layout.count


def test_experts_are_kept_unless_their_window_changes(thin):
    recipe, out, stages = thin
    before = read_json(out / "manifest.json")["stages"]["experts"]
    again = ["run", str(recipe), "--out", str(out), *stages, *WINDOW, "--set"]
    assert run([*again, "match.iterations=7"]) == 0
    after = read_json(out / "manifest.json")["stages"]["experts"]
    assert after == before
    assert run([*again, "match.max_start_epoch=2"]) == 0
    assert outputs_of(out)["experts"] != before["outputs"]
    assert read_info(out / "experts.h5").kept == (0, 1, 2, 3)


def test_show_says_how_experts_are_stored(thin, command):
    _, out, _ = thin
    text = command("show", out / "experts.h5").out
    assert re.search(
        r"^Kept: \d+ epochs from 0 to \d+, storage float16, largest error \d", text, re.M
    )
