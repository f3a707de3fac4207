import json
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from distill_cases import contents

from distill.errors import WorkError
from distill.run.folder import Run, StageTimer, open_run
from distill.sets.set_file import SetFile, add_measured, add_votes, read_set, write_set
from distill.store.committee import Member, read_committee, write_committee
from distill.store.experts import (
    Trajectory,
    check_snapshots,
    read_info,
    read_last_snapshots,
    read_snapshots,
    write_experts,
)
from distill.store.files import (
    atomic_path,
    digest_json,
    digest_tree,
    remove,
    write_json,
    write_text,
)
from distill.store.hdf5 import (
    digest_attribute,
    digest_content,
    open_h5,
    read_kind,
    smallest_unsigned,
)
from distill.store.jsonl import append_lines, read_lines
from distill.store.tensors import load_tensors, save_tensors
from synth.committee.relabel import StoredVotes
from synth.parameters import ParameterLayout

MANIFEST = {
    "class_names": ["ä", "b", "c"],
    "preprocess": {"mean": [0.5], "std": [0.25]},
    "student_lr": 0.05,
    "augmentation": "none",
    "network": "convnet2",
    "seed": 3,
    "recipe": {"name": "x"},
    "recipe_digest": "0",
    "source": {"name": "digits", "digest": "1"},
    "factor": 1,
}


def make_set(classes=3, ipc=2, **changes):
    generator = torch.Generator().manual_seed(1)
    n = classes * ipc
    names = [f"class {k}" for k in range(classes)]
    return SetFile(
        images=torch.randn(n, 1, 4, 5, generator=generator),
        hard=torch.arange(classes).repeat_interleave(ipc),
        manifest={**MANIFEST, "class_names": names} if classes != 3 else MANIFEST,
        learned=torch.randn(n, classes, generator=generator),
        **changes,
    )


def make_votes(n=6, classes=3, epochs=2, values=1):
    generator = torch.Generator().manual_seed(2)
    return StoredVotes(
        ids=torch.stack([torch.randperm(n, generator=generator) for _ in range(epochs)]),
        views=torch.randn(epochs, n, values, generator=generator).half(),
        logits=torch.randn(epochs, n, classes, generator=generator).half(),
        families=("rotate",) if values else (),
        batch_size=3,
        temperature=4.0,
        batch_statistics=True,
    )


def check_same_votes(found, expected):
    for name in ("ids", "views", "logits"):
        assert torch.equal(getattr(found, name), getattr(expected, name))
        assert getattr(found, name).dtype == getattr(expected, name).dtype
    for name in ("families", "batch_size", "temperature", "batch_statistics"):
        assert getattr(found, name) == getattr(expected, name)


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


def test_artefact_that_fails_half_way_leaves_the_old_one(tmp_path):
    path = tmp_path / "set.h5"
    write_set(path, make_set())
    before = path.read_bytes()
    with pytest.raises(KeyError):
        write_set(path, replace(make_set(), manifest={"class_names": ["a"]}))
    assert path.read_bytes() == before
    assert set(contents(tmp_path)) == {"set.h5"}


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


def test_set_round_trip_keeps_everything(tmp_path):
    path = tmp_path / "set.h5"
    content = make_set(votes=make_votes(), measured={"students": {"x": 0.5}})
    write_set(path, content)
    found = read_set(path)
    assert torch.equal(found.images, content.images)
    assert torch.equal(found.hard, content.hard)
    assert torch.equal(found.learned, content.learned)
    assert found.manifest == content.manifest
    assert found.measured == content.measured
    check_same_votes(found.votes, content.votes)


def test_set_with_images_and_hard_labels_alone_is_a_set(tmp_path):
    path = tmp_path / "set.h5"
    write_set(path, replace(make_set(), learned=None))
    found = read_set(path)
    assert found.learned is None
    assert found.votes is None
    assert found.measured is None


@pytest.mark.parametrize("values", [0, 1])
def test_votes_round_trip_with_and_without_views(values, tmp_path):
    path, votes = tmp_path / "set.h5", make_votes(values=values)
    write_set(path, make_set())
    add_votes(path, votes)
    check_same_votes(read_set(path).votes, votes)


def test_parts_added_one_by_one_give_the_same_bytes(tmp_path):
    votes, measured = make_votes(), {"a": 1}
    write_set(tmp_path / "a.h5", make_set(votes=votes, measured=measured))
    write_set(tmp_path / "b.h5", make_set())
    add_votes(tmp_path / "b.h5", make_votes(epochs=3))
    add_measured(tmp_path / "b.h5", {"b": 2})
    add_votes(tmp_path / "b.h5", votes)
    assert read_set(tmp_path / "b.h5").measured is None
    add_measured(tmp_path / "b.h5", measured)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_set_of_many_classes_keeps_its_labels_and_long_attributes(tmp_path):
    path = tmp_path / "set.h5"
    content = make_set(classes=300, ipc=1)
    names = [f"class {k} {'with a long name ' * 20}" for k in range(300)]
    content = replace(content, manifest={**content.manifest, "class_names": names})
    write_set(path, content)
    found = read_set(path)
    assert found.hard.tolist() == list(range(300))
    assert found.manifest["class_names"] == names
    with h5py.File(path) as file:
        assert file["hard"].dtype == np.uint16


@pytest.mark.parametrize(
    ("count", "kind"), [(1, "uint8"), (256, "uint8"), (257, "uint16"), (65537, "uint32")]
)
def test_hard_labels_take_the_smallest_type(count, kind):
    assert smallest_unsigned(count) == np.dtype(kind)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": torch.zeros(6, 4, 5)}, "need [n, c, h, w]"),
        ({"images": torch.zeros(0, 1, 4, 5)}, "need [n, c, h, w]"),
        ({"images": torch.zeros(6, 3, 4, 5)}, "1, h, w] is needed"),
        ({"images": torch.full((6, 1, 4, 5), torch.nan)}, "NaN"),
        ({"hard": torch.zeros(5, dtype=torch.int64)}, "5 hard labels for 6 images"),
        ({"hard": torch.full((6,), 3)}, "outside the 3 classes"),
        ({"learned": torch.zeros(6, 2)}, "need [6, 3]"),
        ({"learned": torch.full((6, 3), torch.inf)}, "learned labels hold NaN or infinite"),
        ({"votes": make_votes(n=5)}, "do not fit the images"),
        ({"votes": make_votes(classes=2)}, "do not fit the images"),
        ({"votes": replace(make_votes(), ids=torch.full((2, 6), 6))}, "do not fit the images"),
        ({"votes": replace(make_votes(), ids=torch.zeros(3, 6))}, "do not fit the images"),
    ],
)
def test_set_whose_parts_do_not_fit_is_refused(changes, words, tmp_path):
    path = tmp_path / "set.h5"
    write_set(path, replace(make_set(), **changes))
    with pytest.raises(WorkError) as caught:
        read_set(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def make_experts(path, count=2):
    layout = ParameterLayout(("a", "b"), (torch.Size([2, 2]), torch.Size([3])))
    experts = [
        Trajectory(torch.arange(28.0).reshape(4, 7) + 100 * index, [0.1, 0.2, 0.3])
        for index in range(count)
    ]
    write_experts(path, "mlp", "digest", layout, experts)
    return layout, experts


def test_experts_round_trip(tmp_path):
    path = tmp_path / "experts.h5"
    layout, experts = make_experts(path)
    info = read_info(path)
    assert (info.network, info.data, info.count, info.epochs) == ("mlp", "digest", 2, 3)
    assert info.layout == layout
    start, target = read_snapshots(path, 1, (0, 2))
    assert torch.equal(start, experts[1].snapshots[0])
    assert torch.equal(target, experts[1].snapshots[2])
    assert torch.equal(torch.stack(read_last_snapshots(path)), torch.stack(
        [expert.snapshots[-1] for expert in experts]
    ))  # fmt: skip
    check_snapshots(path)


@pytest.mark.parametrize(
    ("expert", "epochs", "words"),
    [
        (2, (0, 1), "there is no expert 2"),
        (0, (0, 4), "holds epochs 0-3 of expert 0, not 4"),
        (0, (-1, 0), "not -1"),
    ],
)
def test_snapshot_that_is_not_there_is_refused(expert, epochs, words, tmp_path):
    make_experts(tmp_path / "experts.h5")
    with pytest.raises(WorkError, match=words):
        read_snapshots(tmp_path / "experts.h5", expert, epochs)


def test_experts_that_do_not_fit_their_network_are_refused(tmp_path):
    path = tmp_path / "experts.h5"
    layout = ParameterLayout(("a",), (torch.Size([2]),))
    write_experts(path, "mlp", "digest", layout, [Trajectory(torch.zeros(4, 7), [0.0])])
    with pytest.raises(WorkError, match="no experts that fit its own network"):
        read_info(path)
    write_experts(path, "mlp", "digest", layout, [])
    with pytest.raises(WorkError, match="no experts that fit its own network"):
        read_info(path)


def test_committee_round_trip(tmp_path):
    path = tmp_path / "committee.h5"
    state = {"z.weight": torch.rand(2, 3), "a.count": torch.tensor(7)}
    write_committee(path, [Member("resnet18", 0.5, state)], "digest", ("a", "b"))
    (member,), data, names = read_committee(path)
    assert (member.spec, member.accuracy, data, names) == ("resnet18", 0.5, "digest", ["a", "b"])
    assert list(member.state) == list(state)
    for name, value in state.items():
        assert torch.equal(member.state[name], value)
        assert member.state[name].dtype == value.dtype


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


@pytest.fixture
def run(tmp_path):
    with open_run(tmp_path / "run", {"name": "x"}) as run:
        yield run


def test_metrics_leave_out_a_last_line_that_was_cut(run):
    rows = [{"stage": "match", "step": 0}, {"stage": "match", "step": 1}, {"stage": "experts"}]
    assert run.read_metrics() == []
    run.append_metrics(rows)
    path = run.path / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + b'{"stage": "mat\xc3')
    assert run.read_metrics() == rows
    run.keep_metrics("match", below=1)
    run.append_metrics([{"stage": "match", "step": 1}])
    assert run.read_metrics() == [rows[0], rows[2], rows[1]]
    run.keep_metrics("match")
    assert run.read_metrics() == [rows[2]]
    assert set(contents(run.path)) == {".lock", "manifest.json", "metrics.jsonl"}


def test_checkpoints_of_another_key_are_thrown_away(run):
    old = run.checkpoint_folder("match", "a" * 64)
    (old / "state").write_text("old")
    other = run.checkpoint_folder("experts", "a" * 64)
    new = run.checkpoint_folder("match", "b" * 64)
    assert new.is_dir()
    assert other.is_dir()
    assert not old.exists()


def test_manifest_is_kept_when_a_run_is_opened_again(tmp_path):
    with open_run(tmp_path / "run", {"name": "x", "seed": 0}) as run:
        run.record_stage("experts", {"key": "k", "outputs": {}})
    with open_run(tmp_path / "run", {"name": "x", "seed": 1}) as again:
        assert isinstance(again, Run)
        assert again.manifest["stages"] == {"experts": {"key": "k", "outputs": {}}}
        assert again.manifest["recipe"] == {"name": "x", "seed": 1}
        stored = json.loads((tmp_path / "run" / "manifest.json").read_text())
        assert stored == again.manifest


def test_run_is_held_by_one_user_at_a_time(tmp_path):
    opened = open_run(tmp_path / "run", {"name": "x"})
    opened.__enter__()
    with pytest.raises(WorkError, match="in use"):
        open_run(tmp_path / "run", {"name": "x"}).__enter__()
    opened.__exit__(None, None, None)
    with open_run(tmp_path / "run", {"name": "x"}):
        pass


def test_seconds_are_kept_with_metrics_for_a_process_that_is_killed(monkeypatch, tmp_path):
    now = [50.0]
    monkeypatch.setattr("distill.run.folder.time.monotonic", lambda: now[0])
    run = Run(tmp_path, {"stages": {}})
    run.watch = StageTimer(tmp_path)
    for moment in (52.0, 57.0, 57.5):
        now[0] = moment
        run.append_metrics([{"step": moment}])
    now[0] = 10.0
    # The count of 57.5 is not kept: that of 57.0 was kept less than a second before.
    again = StageTimer(tmp_path)
    now[0] = 13.0
    assert again.seconds == 7.0 + 3.0


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "-1", "NaN", "1e999", '"x"', "["])
def test_damaged_count_of_seconds_begins_anew(text, tmp_path):
    (tmp_path / "seconds.json").write_text(text)
    assert 0 <= StageTimer(tmp_path).seconds < 1000


@pytest.mark.parametrize("left", ["", '{"a": 1}\n', '{"a": 1}\n{"a": 2', "[1]\n"])
def test_rows_are_not_glued_to_a_line_that_was_cut_short(left, tmp_path):
    (tmp_path / "rows.jsonl").write_text(left)
    append_lines(tmp_path / "rows.jsonl", [{"a": 3}, {"a": 4}])
    whole = [{"a": 1}] if '"a": 1' in left else []
    assert read_lines(tmp_path / "rows.jsonl") == [*whole, {"a": 3}, {"a": 4}]
