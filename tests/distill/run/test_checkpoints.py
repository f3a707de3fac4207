"""What a stage keeps: its state with the metric rows that led to it, and numbered parts."""

import pytest
import torch

from distill.run.checkpoints import Checkpoint
from distill.run.folder import Run, open_run


@pytest.fixture
def run(tmp_path):
    with open_run(tmp_path / "run", {"name": "x"}) as run:
        yield run


@pytest.fixture
def said():
    return []


def opened(run, said):
    return Checkpoint(run, "match", run.checkpoint_folder("match", "key"), said.append)


def steps_of(run):
    return [row["step"] for row in run.read_metrics() if row["stage"] == "match"]


def test_state_comes_back_with_the_rows_that_led_to_it(run, said):
    checkpoint = opened(run, said)
    assert checkpoint.load() is None
    run.append_metrics([{"stage": "experts", "step": 0}])
    for step in range(3):
        checkpoint.log({"step": step})
        checkpoint.save({"images": torch.full((2,), step)}, {"step": step})
    checkpoint.log({"step": 3}, {"step": 4})
    assert steps_of(run) == [0, 1, 2, 3, 4]
    # As a process that was killed now, and began again.
    again = opened(run, said)
    tensors, header = again.load()
    assert torch.equal(tensors["images"], torch.full((2,), 2))
    assert header == {"step": 2}
    assert steps_of(run) == [0, 1, 2]
    again.log({"step": 3})
    again.save({}, {"step": 3})
    assert opened(run, said).load() == ({}, {"step": 3})
    assert steps_of(run) == [0, 1, 2, 3]
    assert {"stage": "experts", "step": 0} in run.read_metrics()
    assert said == []


def test_rows_that_a_crash_of_the_machine_lost_come_back(run, said):
    checkpoint = opened(run, said)
    checkpoint.load()
    checkpoint.log({"step": 0})
    checkpoint.save({}, {})
    checkpoint.log({"step": 1}, {"step": 2})
    checkpoint.save({}, {})
    metrics = run.path / "metrics.jsonl"
    metrics.write_text(metrics.read_text().splitlines()[0] + "\n")
    opened(run, said).load()
    assert steps_of(run) == [0, 1, 2]


def test_rows_of_a_state_that_is_gone_are_dropped(run, said):
    checkpoint = opened(run, said)
    checkpoint.log({"step": 0})
    checkpoint.save({}, {})
    (checkpoint.folder / "state.safetensors").unlink()
    assert opened(run, said).load() is None
    assert steps_of(run) == []
    assert said == []


def test_a_file_with_any_flipped_bit_or_lost_tail_is_none_and_is_said(run, said):
    part = opened(run, said).part(3)
    images = torch.arange(5.0)
    part.save({"images": images, "mask": torch.tensor([True, False])}, {"step": 7})
    whole = part.path.read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        part.path.write_bytes(bytes(changed))
        found = part.load()
        # The length of the header may be padded with blanks: nothing else may differ.
        assert found is None or (torch.equal(found[0]["images"], images) and found[1]["step"] == 7)
        assert found is not None or said.pop() == (
            f"checkpoint {part.path} is damaged, and what it held is made again"
        )
    for cut in range(0, len(whole), 5):
        for tail in (b"", bytes(len(whole) - cut)):
            part.path.write_bytes(whole[:cut] + tail)
            found = part.load()
            assert found is None, cut
            assert len(said) == 1
            said.clear()
    part.path.write_bytes(whole)
    assert torch.equal(part.load()[0]["images"], images)
    assert part.load(leave_out=("images",))[0].keys() == {"mask"}


def test_a_flip_in_what_is_left_out_is_noticed(run, said):
    part = opened(run, said).part(0)
    part.save({"ids": torch.zeros(3), "logits": torch.ones(64)}, {})
    raw = bytearray(part.path.read_bytes())
    raw[raw.rindex(torch.ones(1).numpy().tobytes())] ^= 1
    part.path.write_bytes(bytes(raw))
    assert part.load(leave_out=("logits",)) is None


def test_a_file_that_cannot_be_opened_is_not_called_gone(run, said, monkeypatch):
    part = opened(run, said).part(0)
    part.save({}, {})

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("distill.store.tensors.safe_open", refuse)
    with pytest.raises(PermissionError):
        part.load()
    assert said == []


def test_a_reader_of_the_run_writes_nothing(run, said):
    checkpoint = opened(run, said)
    checkpoint.log({"step": 0})
    checkpoint.save({"images": torch.ones(2)}, {"step": 1})
    reader = Run(run.path, read_only=True)
    seen = Checkpoint(reader, "match", reader.checkpoint_folder("match", "key"), said.append)
    seen.log({"step": 1})
    seen.save({}, {"step": 2})
    seen.part(0).save({}, {})
    assert seen.load()[1] == {"step": 1}
    assert seen.part(0).load() is None
    assert steps_of(run) == [0]
    reader.checkpoint_folder("match", "another")
    assert checkpoint.load()[1] == {"step": 1}
