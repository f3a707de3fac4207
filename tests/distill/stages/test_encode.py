"""Encoding a set's votes, and training on what was encoded."""

import json
from dataclasses import replace

import pytest
import torch

import distill
from distill.errors import WorkError
from distill.evaluation.evaluated_set import EvaluatedSet
from distill.recipes.specs import parse_codec
from distill.sets.additions import add_encoded, add_votes
from distill.sets.cost import receiver_files, teacher_passes
from distill.sets.encoded_labels import EncodedVotes, put_encoded, read_encoded
from distill.sets.label_encoding import decode_votes, encode_votes
from distill.sets.network_labels import (
    LabelSources,
    encode_network,
    labels_any_view,
    network_labeller,
)
from distill.sets.set_file import read_set, write_set
from distill.sets.soft_labels import ViewPlan
from distill.store.committee import Member
from distill.store.hdf5 import create_h5, open_h5
from projectors.codecs import CodecError, Labels, Weights
from synth.committee.relabel import StoredVotes
from synth.networks import MLP
from tests.distill.sets.cases import make_set, make_votes
from tests.projectors.codecs.test_product import slow_descent

SIZE = (4, 5)
SEED = 3


def votes(epochs=6, n=6, classes=3, batch_size=2, mix="none"):
    """Votes whose views the seed gives."""
    plan = ViewPlan(n, SIZE, ("rotate", "crop"), batch_size, mix)
    ids, views, mixes = plan.draw(SEED, epochs)
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(epochs, n, classes, generator=generator).half()
    return StoredVotes(ids, views, logits, ("rotate", "crop"), batch_size, 4.0, True, mixes)


IMAGES = torch.randn(6, 1, *SIZE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("spec", ["dense", "seed+dense"])
def test_a_lossless_codec_gives_the_votes_back(spec):
    full = votes()
    decoded = decode_votes(encode_votes(full, parse_codec(spec), SEED, SIZE), IMAGES)
    assert torch.equal(decoded.ids, full.ids)
    assert torch.equal(decoded.views, full.views)
    assert torch.equal(decoded.logits, full.logits)
    assert (decoded.temperature, decoded.batch_size) == (4.0, 2)
    assert decoded.batch_statistics


@pytest.mark.parametrize("views", ["", "seed+"])
@pytest.mark.parametrize("unit", ["epoch", "batch", "batch-to-epoch"])
def test_a_pool_keeps_every_label_with_its_view_and_image(unit, views):
    full = votes()
    spec = parse_codec(f"{views}pruned:ratio=0.5:unit={unit}+dense")
    encoded = encode_votes(full, spec, SEED, SIZE)
    decoded = decode_votes(encoded, IMAGES)
    known = {
        (int(i), *view.tolist(), *label.tolist())
        for ids, rows, labels in zip(full.ids, full.views, full.logits, strict=True)
        for i, view, label in zip(ids, rows, labels, strict=True)
    }
    found = [
        (int(i), *view.tolist(), *label.tolist())
        for ids, rows, labels in zip(decoded.ids, decoded.views, decoded.logits, strict=True)
        for i, view, label in zip(ids, rows, labels, strict=True)
    ]
    assert len(found) == full.ids.numel()
    assert set(found) <= known
    assert len(set(found)) <= full.ids.numel() // 2


def seen_and_taught(votes, epochs):
    """What students see at each step: a batch of views, and its labels."""
    for epoch in range(epochs):
        for batch in votes.batches(IMAGES, epoch):
            yield (*batch.images.flatten().tolist(), *batch.labels.flatten().tolist())


@pytest.mark.parametrize("mix", ["cutmix", "mixup"])
@pytest.mark.parametrize("views", ["", "seed+"])
@pytest.mark.parametrize(
    "pool", ["", *(f"pruned:ratio=0.5:unit={u}+" for u in ("epoch", "batch", "batch-to-epoch"))]
)
def test_mixed_views_reach_the_student_with_their_labels(pool, views, mix, tmp_path):
    full = votes(mix=mix)
    encoded = encode_votes(full, parse_codec(f"{views}{pool}dense"), SEED, SIZE)
    with create_h5(tmp_path / "a.h5", "test") as file:
        put_encoded(file.create_group("a"), encoded, len(IMAGES))
    with open_h5(tmp_path / "a.h5", "test") as file:
        decoded = decode_votes(read_encoded(file["a"]), IMAGES)
    known, found = list(seen_and_taught(full, 6)), list(seen_and_taught(decoded, 6))
    assert len(found) == len(known) == 18
    assert set(found) <= set(known)
    assert len(set(found)) <= (9 if pool else 18)
    assert found == known or pool


def test_mixes_cost_their_bytes():
    stored = encode_votes(votes(mix="cutmix"), parse_codec("dense"), SEED, SIZE)
    assert stored.view_bytes(6) == 6 * 6 * (1 + 2 * 3) + 6 * 6 + 6 * 3 * 4 * 2
    parts = {part.name: part.stored for part in receiver_files(stored, 6)}
    assert sum(parts.values()) - parts["labels"] == stored.view_bytes(6)
    pruned = encode_votes(votes(mix="cutmix"), parse_codec("lpld:ratio=0.5"), SEED, SIZE)
    assert pruned.view_bytes(6) == stored.view_bytes(6) / 2


def test_a_pool_does_not_cut_a_batch_of_mixed_views():
    full = votes(mix="cutmix", batch_size=4)
    with pytest.raises(WorkError, match="6 images leave a part of one of 4; use unit=epoch"):
        encode_votes(full, parse_codec("lpld:ratio=0.5"), SEED, SIZE)


def test_a_network_labels_mixed_views_as_they_are_seen():
    networks, network = teacher()
    full = taught(network, mix="cutmix")
    encoded = encode_network(full, parse_codec("teacher"), SEED, networks, IMAGES)
    assert (decode_votes(encoded, IMAGES).logits - full.logits).abs().max() < 0.05


def test_views_cost_what_is_kept_of_them_or_a_seed():
    full = votes()
    pruned = encode_votes(full, parse_codec("pruned:ratio=0.5+dense"), SEED, SIZE)
    assert pruned.view_bytes(6) == 3 * 6 * (1 + 2 * 3)
    seeded = encode_votes(full, parse_codec("seed+pruned:ratio=0.5+dense"), SEED, SIZE)
    assert seeded.view_bytes(6) == 8 + 32


def test_another_seed_is_refused_when_encoding_and_when_decoding():
    full = votes()
    with pytest.raises(WorkError, match="seed 4 does not give the views"):
        encode_votes(full, parse_codec("seed+dense"), 4, SIZE)
    encoded = encode_votes(full, parse_codec("seed+dense"), SEED, SIZE)
    with pytest.raises(WorkError, match="seed 5 does not give the views"):
        decode_votes(replace(encoded, seed=5), IMAGES)


def test_a_payload_of_another_set_or_damaged_is_refused():
    encoded = encode_votes(votes(), parse_codec("topk:k=2"), SEED, SIZE)
    with pytest.raises(WorkError, match="labels of 6 images, but the set has 5"):
        decode_votes(encoded, IMAGES[:5])
    with pytest.raises(WorkError, match="checksum"):
        decode_votes(replace(encoded, payload=encoded.payload[:-1] + b"x"), IMAGES)
    with pytest.raises(WorkError, match="views of the encoded labels do not fit"):
        decode_votes(replace(encoded, ids=encoded.ids[:3]), IMAGES)


def test_a_codec_that_does_not_fit_is_named():
    with pytest.raises(WorkError, match="codec topk:k=3: k=3 of 3 classes"):
        encode_votes(votes(), parse_codec("topk:k=3"), SEED, SIZE)


def teacher():
    torch.manual_seed(0)
    network = MLP(1, SIZE, 3, depth=1, width=8)
    return LabelSources(
        (Member("mlp:depth=1:width=8", 0.9, network.state_dict()),), (1.0,)
    ), network


def taught(network, epochs=6, mix="none"):
    full = votes(epochs, mix=mix)
    labelled = [
        torch.cat([b.images for b in full.batches(IMAGES, epoch)]) for epoch in range(epochs)
    ]
    logits = torch.stack([network(seen).detach().half() for seen in labelled])
    return replace(full, logits=logits)


def test_a_quantised_teacher_labels_as_the_teacher_did():
    networks, network = teacher()
    full = taught(network)
    encoded = encode_network(full, parse_codec("teacher"), SEED, networks, IMAGES)
    decoded = decode_votes(encoded, IMAGES)
    assert torch.equal(decoded.ids, full.ids)
    assert (decoded.logits - full.logits).abs().max() < 0.05
    coarse = encode_network(full, parse_codec("teacher:bits=3"), SEED, networks, IMAGES)
    assert len(coarse.payload) < len(encoded.payload)


def test_logits_that_half_precision_does_not_hold_are_not_trained_on(monkeypatch):
    encoded = encode_votes(votes(), parse_codec("dense"), SEED, SIZE)
    large = Labels(torch.full((6, 6, 3), 1e30), 4.0)
    monkeypatch.setattr("distill.sets.label_encoding.decode", lambda payload: large)
    with pytest.raises(WorkError, match=r"which ends at 65,504; clamp them in its decode"):
        decode_votes(encoded, IMAGES)


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"members": []}, "got no members"),
        ({"members": None}, "do not fit"),
        ({"weights": [0.5, 0.5]}, r"weights of shape \(2,\) for 1 members"),
        ({"weights": [-1.0]}, "negative or not finite"),
        ({"weights": [1e308]}, "negative or not finite"),
        ({"weights": "abc"}, "do not fit"),
        ({"classes": 10**9}, "GB to decode"),
        ({"classes": "many"}, "of 'many' classes"),
        ({"epochs": 0}, "of 0 epochs"),
        ({"members": ["mlp:depth=1:width=100000000"]}, "do not fit"),
    ],
)
def test_teachers_whose_header_was_made_up_are_refused(about, words):
    networks, network = teacher()
    encoded = encode_network(taught(network), parse_codec("teacher"), SEED, networks, IMAGES)
    state, stated = Weights(8).decode(encoded.payload)
    made_up = replace(encoded, payload=Weights(8).encode(state, {**stated, **about}))
    with pytest.raises((WorkError, CodecError), match=words):
        decode_votes(made_up, IMAGES)


def test_epochs_that_no_memory_holds_are_refused_before_they_are_drawn(monkeypatch):
    networks, network = teacher()
    encoded = encode_network(taught(network), parse_codec("teacher"), SEED, networks, IMAGES)
    state, stated = Weights(8).decode(encoded.payload)
    many = replace(encoded, payload=Weights(8).encode(state, {**stated, "epochs": 1_000_000}))
    monkeypatch.setattr("distill.sets.encoded_labels.available_bytes", lambda: 1 << 28)
    with pytest.raises(WorkError, match=r"take 0.3 GB to decode and 0.3 GB are free"):
        decode_votes(many, IMAGES)


def test_a_network_alone_labels_any_view_and_labels_beside_it_do_not():
    networks, network = teacher()
    full = taught(network)
    encoded = encode_network(full, parse_codec("teacher:bits=8"), SEED, networks, IMAGES)
    views = IMAGES.flip(3) * 0.5
    assert labels_any_view(encoded)
    labels = network_labeller(encoded, IMAGES)(views)
    torch.testing.assert_close(labels, network(views).detach(), atol=0.05, rtol=0.05)
    residual = parse_codec("teacher:bits=2:residual=0.25+dense")
    assert not labels_any_view(encode_network(full, residual, SEED, networks, IMAGES))
    assert not labels_any_view(encode_votes(full, parse_codec("seed+dense"), SEED, SIZE))


def test_residual_labels_replace_the_worst_ones():
    networks, network = teacher()
    full = taught(network)

    def worst(spec):
        encoded = encode_network(full, parse_codec(spec), SEED, networks, IMAGES)
        return (decode_votes(encoded, IMAGES).logits - full.logits).abs().amax(dim=2)

    plain, mended = worst("teacher:bits=2"), worst("teacher:bits=2:residual=0.25+dense")
    changed = mended == 0
    assert int((changed & (plain > 0)).sum()) == 9
    assert torch.equal(mended[~changed], plain[~changed])
    assert torch.equal(worst("teacher:bits=2:residual=1+dense"), torch.zeros(6, 6))


def test_networks_cost_passes_of_their_receivers_and_residual_labels_those_of_their_maker():
    networks, network = teacher()
    full = taught(network)

    def passes(spec):
        encoded = encode_network(full, parse_codec(spec), SEED, networks, IMAGES)
        return teacher_passes(encoded, full, networks)

    assert passes("teacher") == {"maker": 0, "each student": 36}
    assert passes("teacher:residual=0.5+dense") == {"maker": 36, "each student": 36}


def test_a_missing_network_is_named():
    for spec, name in (("teacher", "committee"), ("projector", "projector")):
        with pytest.raises(Exception, match=f"no {name} beside the set"):
            encode_network(votes(), parse_codec(spec), SEED, LabelSources(), IMAGES)


def test_encoded_labels_are_kept_in_the_set_until_it_is_voted_on_again(tmp_path):
    path = tmp_path / "set.h5"
    write_set(path, make_set(votes=make_votes()))
    for spec in ("topk:k=2", "dense"):
        encoded = encode_votes(read_set(path).votes, parse_codec(spec), SEED, SIZE)
        add_encoded(path, spec, encoded)
    found = read_set(path).encoded
    assert set(found) == {"topk:k=2", "dense"}
    assert isinstance(found["dense"], EncodedVotes)
    assert found["dense"].payload == encoded.payload
    assert torch.equal(found["dense"].views, make_votes().views)
    assert EvaluatedSet(read_set(path)).available[-2:] == ["dense", "topk:k=2"]
    add_votes(path, make_votes())
    assert read_set(path).encoded == {}


def test_encode_writes_a_copy_that_students_train_on(run_copy, command, tmp_path):
    small = tmp_path / "small.h5"
    spec = "seed+pruned:ratio=0.5+topk:k=3"
    done = command("encode", run_copy, "--codec", spec, "--out", small, "--json", "--quiet")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert (found["codec"], found["views"], found["external"]) == (spec, 40, 0)
    assert found["teacher_passes"] == {"maker": 2 * 10 * 3, "each student": 0}
    parts = {part["name"]: part["stored"] for part in found["files"]}
    assert parts == {"labels": found["payload"], "seed of the views": 40}
    data = distill.load(small)
    assert data.votes.logits.shape == (4, 10, 10)
    assert read_set(small).votes is None
    assert read_set(run_copy / "set.h5").encoded == {}
    judged = command("evaluate", small, "--labels", spec, "--seeds", "1", "--json", "--quiet")
    assert judged.code == 0, judged.err
    evaluation = json.loads(judged.out)
    assert list(*evaluation["students"].values()) == [spec]
    assert evaluation["bytes"]["sources"][spec] == found["payload"] + 40


def test_encode_chooses_by_bytes_and_refuses_two_wishes(run_copy, command, refused):
    done = command("encode", run_copy, "--target-bytes", "700", "--json", "--quiet")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["payload"] + found["views"] <= 700
    assert found["codec"] in read_set(run_copy / "set.h5").encoded
    assert "give one of codec" in refused(
        2, "encode", run_copy, "--codec", "dense", "--target-bytes", "9"
    )
    assert "did you mean topk" in refused(2, "encode", run_copy, "--codec", "topq")


def test_the_weights_of_a_network_keep_their_bound():
    _, network = teacher()
    state = network.state_dict()
    for bits in (2, 4, 8):
        found, about = Weights(bits).decode(Weights(bits).encode(state, {"a": 1}))
        assert about == {"a": 1}
        for name, value in state.items():
            largest = value.flatten(1).abs().amax(dim=1) if value.dim() > 1 else value.abs()
            bound = largest / (2**bits - 2) if value.dim() > 1 else largest * 2**-11
            error = (found[name] - value).abs()
            error = error.flatten(1).amax(dim=1) if value.dim() > 1 else error
            assert (error <= bound * (1 + 2**-9) + 1e-6).all()


def test_words_of_votes_on_digits_are_those_of_a_slow_search(finished, monkeypatch):
    """The product codec on a run's votes, with every choice of words taken by hand."""
    full = read_set(finished / "set.h5").votes
    codec = parse_codec("product:parts=3:words=4:rank=6")
    fast = encode_votes(full, codec, SEED, (8, 8))
    asked = []

    def slow(points, shapes, weights, codebooks, start):
        rows = zip(points.tolist(), weights.tolist(), start.tolist(), strict=True)
        books, directions = [words.tolist() for words in codebooks], shapes.tolist()
        found = [slow_descent(point, directions, p, books, own) for point, p, own in rows]
        asked.append(len(found))
        return torch.tensor(found)

    monkeypatch.setattr("projectors.codecs.product.least_divergent", slow)
    assert encode_votes(full, codec, SEED, (8, 8)).payload == fast.payload
    assert sum(asked) == 40
    found = decode_votes(fast, read_set(finished / "set.h5").images).logits.float()
    wanted = full.logits.float()
    spread = (wanted - wanted.mean(dim=2, keepdim=True)).square().mean()
    gap = (found - found.mean(dim=2, keepdim=True)) - (wanted - wanted.mean(dim=2, keepdim=True))
    assert float(gap.square().mean()) < 0.5 * float(spread)
