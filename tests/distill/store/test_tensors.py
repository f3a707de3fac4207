"""Named tensors in a file."""

import torch

from distill.store.tensors import load_tensors, save_tensors


def test_checkpoint_round_trip_with_shared_memory(tmp_path):
    path = tmp_path / "state.safetensors"
    shared = torch.rand(3)
    save_tensors(path, {"now": shared, "good": shared, "part": shared[:2]}, {"step": 3})
    tensors, header = load_tensors(path)
    assert header == {"step": 3}
    assert torch.equal(tensors["now"], shared)
    assert torch.equal(tensors["good"], shared)
    assert torch.equal(tensors["part"], shared[:2])


def test_checkpoint_that_is_missing_or_damaged_is_none(tmp_path):
    path = tmp_path / "state.safetensors"
    assert load_tensors(path) is None
    save_tensors(path, {"a": torch.rand(9)}, [])
    raw = path.read_bytes()
    for cut in range(0, len(raw), 7):
        path.write_bytes(raw[:cut])
        assert load_tensors(path) is None
