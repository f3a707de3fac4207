"""Labels computed by a network: the payload is the network, and labels where it is most wrong."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.errors import RecipeError
from distill.recipes.build import build_codec, build_network
from distill.recipes.schema import Recipe
from distill.recipes.specs import CodecSpec, parse_codec, program_digest
from distill.recipes.tables.relabel import RelabelTable
from distill.sets.encoded_labels import SEED_BYTES, EncodedVotes, check_memory
from distill.sets.views import mix_of
from distill.store.committee import Member
from projectors import Projector, ProjectorError, load
from projectors.codecs import CodecError
from projectors.codecs.container import unseal
from projectors.codecs.labels import MAX_TEMPERATURE
from projectors.codecs.residual import choose_residual, pack_residual, unpack_residual
from projectors.codecs.weights import Weights
from projectors.files.archive import pack_projector, unpack_projector
from synth.committee.relabel import StoredVotes
from synth.committee.vote import Committee
from synth.training.batches import split_parts

Labeller = Callable[[Tensor], Tensor]

_MAX_EPOCHS = 1_000_000

_AGAIN = "encode them again"


@dataclass(frozen=True)
class LabelSources:
    """The networks that labelled a set, or can label it again.

    Attributes:
        members: the teachers with their states; empty where there are none.
        weights: [m] of the members' vote.
        projector: folder of the projector, or None.
        external: bytes of the projector that must be fetched elsewhere.
        fitted: images that the teachers labelled, at most, to fit it.
    """

    members: tuple[Member, ...] = ()
    weights: tuple[float, ...] = ()
    projector: Path | None = None
    external: int = 0
    fitted: int = 0


def encode_network(
    votes: StoredVotes, spec: CodecSpec, seed: int, networks: LabelSources, images: Tensor
) -> EncodedVotes:
    """The network of a spec as the label of every view.

    Args:
        votes: the labels in full; their number of epochs, batches and temperature are kept.
        spec: with a part "network"; with a part "labels" too, the labels that the network gets
            most wrong are stored.
        seed: of the run.
        networks: where the network comes from.
        images: [n, c, h, w] that students see.

    Raises:
        CodecError: if there is no such network, or labels do not fit the codec.
    """
    about: dict[str, Any] = {"epochs": len(votes.ids), "temperature": votes.temperature}
    bits = spec.teacher_bits
    if bits is not None:
        payload = _teacher(networks, bits, {**about, "classes": votes.logits.shape[2]})
        external = 0
    else:
        if networks.projector is None:
            raise CodecError("there is no projector beside the set; run the stage project first")
        payload = pack_projector(networks.projector, about)
        external = networks.external
    encoded = EncodedVotes(
        payload, votes.families, votes.batch_size, votes.batch_statistics, False, seed=seed,
        external=external, parts=votes.parts, mix=mix_of(votes.mixes),
    )  # fmt: skip
    if "labels" not in spec.parts:
        return encoded
    given = _label(payload, votes, images)
    share = float(spec.parts["network"].options["residual"])
    mask = choose_residual(votes.whole, given.whole, votes.temperature, share)
    codec = build_codec(replace(spec, parts={"labels": spec.parts["labels"]}), votes.batch_size)
    both = pack_residual(payload, votes.whole, votes.temperature, mask, codec)
    return replace(encoded, payload=both)


def labelling_codec(recipe: Recipe) -> CodecSpec | None:
    """The codec that keeps the committee to label every view; None for other labels."""
    codec = None if recipe.encode is None else recipe.encode.codec
    spec = None if codec is None else parse_codec(codec)
    if spec is None or not spec.keeps_teachers_alone:
        return None
    return None if recipe.committee is None else spec


def committee_bytes(recipe: Recipe, members: Sequence[Member], classes: int) -> int:
    """Bytes of a committee that labels every view; 0 for other labels.

    Args:
        recipe: its [encode] may ask for the codec `teacher` alone.
        members: the committee.
        classes: of the data.

    Raises:
        RecipeError: if the views are not drawn from a seed, so that they alone would take more.
    """
    spec = labelling_codec(recipe)
    bits = None if spec is None else spec.teacher_bits
    if spec is None or bits is None:
        return 0
    relabel = recipe.relabel or RelabelTable()
    if relabel.views != "seed":
        raise RecipeError(
            f"within a budget of bytes, labels of {spec.text} need views that are drawn from a "
            "seed; set relabel.views = seed"
        )
    about = {"epochs": relabel.epochs, "temperature": relabel.temperature, "classes": classes}
    # The longest text that a weight can have.
    sources = LabelSources(tuple(members), (1 / 7,) * len(members))
    return len(_teacher(sources, bits, about)) + SEED_BYTES


def expected_bytes(recipe: Recipe, channels: int, size: tuple[int, int], classes: int) -> int:
    """About the `committee_bytes` of a committee that is still to be trained.

    Trained weights are nearly normally distributed; untrained ones are uniform, and take more.

    Args:
        recipe: as of `committee_bytes`.
        channels: of the images.
        size: (h, w) of the images.
        classes: of the data.

    Raises:
        RecipeError: as `committee_bytes`.
    """
    if labelling_codec(recipe) is None or recipe.committee is None:
        return 0
    generator = torch.Generator().manual_seed(0)
    members = []
    for spec in recipe.committee.members:
        state = build_network(spec, channels, size, classes, 0).state_dict()
        normal = {
            name: torch.randn(value.shape, generator=generator) if value.dim() > 1 else value
            for name, value in state.items()
        }
        members.append(Member(spec, 0.0, normal))
    return committee_bytes(recipe, members, classes)


def is_network(payload: bytes) -> bool:
    """Whether a payload is a network, rather than labels. Raises CodecError for foreign bytes."""
    document, _ = unseal(payload)
    return "network" in document


def labels_any_view(encoded: EncodedVotes) -> bool:
    """Whether encoded labels are a network alone, which students can ask about views of their own.

    Raises:
        CodecError: for foreign bytes.
    """
    return unseal(encoded.payload)[0].get("network") in ("weights", "projector")


def network_labeller(encoded: EncodedVotes, images: Tensor) -> Labeller:
    """The network of encoded labels, which labels views of `images` [n, c, h, w] on their device.

    Args:
        encoded: for which `labels_any_view` holds.
        images: of whose shape and device views will be.

    Raises:
        CodecError: if the payload is damaged, or does not fit the images.
    """
    return _labeller(encoded.payload, images, encoded.batch_statistics)


def decode_network(encoded: EncodedVotes, images: Tensor) -> StoredVotes:
    """What students train on: the network's label of every view, or the stored one.

    Raises:
        CodecError: if the payload is damaged or foreign, or does not fit the images.
    """
    payload, residual = encoded.payload, None
    if unseal(payload)[0]["network"] == "residual":
        payload, residual = unpack_residual(payload)
    document, _ = unseal(payload)
    about = _checked(document.get("about"))
    # A projector's header does not say how many classes it has, two at least.
    check_memory(about["epochs"] * len(images), about.get("classes", 2))
    size = (images.shape[2], images.shape[3])
    ids, views, mixes = encoded.plan(len(images), size).draw(encoded.seed or 0, about["epochs"])
    plan = StoredVotes(
        ids,
        views,
        torch.zeros(*ids.shape, 0),
        encoded.families,
        encoded.batch_size,
        about["temperature"],
        encoded.batch_statistics,
        mixes,
        encoded.parts,
    )
    votes = _label(payload, plan, images)
    return votes if residual is None else replace(votes, logits=residual.over(votes.whole))


def _teacher(networks: LabelSources, bits: int, about: dict[str, Any]) -> bytes:
    if not networks.members:
        raise CodecError("there is no committee beside the set; run the stage committee first")
    state = {
        f"{index}/{name}": value
        for index, member in enumerate(networks.members)
        for name, value in member.state.items()
    }
    about = {
        **about,
        "members": [member.spec for member in networks.members],
        "weights": list(networks.weights),
    }
    programs = [member.program for member in networks.members]
    if any(programs):
        about["programs"] = programs
    return Weights(bits).encode(state, about)


def _label(payload: bytes, plan: StoredVotes, images: Tensor) -> StoredVotes:
    """The plan's views with the labels that a network gives them."""
    labeller = _labeller(payload, images, plan.batch_statistics)
    epochs = []
    for epoch in range(len(plan.ids)):
        logits = []
        for batch in plan.batches(images, epoch):
            seen = batch.images
            logits += [labeller(seen[part]) for part in split_parts(len(seen), plan.parts)]
        epochs.append(torch.cat(logits).half().cpu())
    return replace(plan, logits=torch.stack(epochs))


def _labeller(payload: bytes, images: Tensor, batch_statistics: bool) -> Labeller:
    document, _ = unseal(payload)
    if document["network"] == "projector":
        return _online_labels(_projector(payload).to(images.device))
    state, about = Weights(document.get("bits", 0)).decode(payload)
    _, channels, height, width = images.shape
    members = []
    try:
        _check_programs(about["members"], about.get("programs", []))
        for index, spec in enumerate(about["members"]):
            prefix = f"{index}/"
            own = {
                key.removeprefix(prefix): value
                for key, value in state.items()
                if key.startswith(prefix)
            }
            with torch.device("meta"):
                # A spec can name any width: allocate memory only once the weights fit.
                wanted = build_network(spec, channels, (height, width), about["classes"], 0)
            wanted.load_state_dict(own, assign=True)
            network = build_network(spec, channels, (height, width), about["classes"], 0)
            network.load_state_dict(own)
            members.append(network.to(images.device).eval().requires_grad_(False))
        committee = Committee(tuple(members), torch.tensor(about["weights"]))
    except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CodecError(
            f"the teachers in encoded labels do not fit ({reason}); {_AGAIN}"
        ) from None
    return lambda batch: committee.vote(batch, batch_statistics=batch_statistics)


def _check_programs(specs: Sequence[str], programs: Sequence[str]) -> None:
    """Raise ValueError where the file of a program is another than the one that was encoded."""
    for spec, digest in zip(specs, programs, strict=False):
        if digest and digest != program_digest(spec):
            raise ValueError(f"the file of {spec} is another than it was")


def _checked(about: Any) -> dict[str, Any]:
    """The header of a packed network's labels, checked before it is used."""
    fields: dict[str, Any] = about if isinstance(about, dict) else {}
    epochs, temperature = fields.get("epochs"), fields.get("temperature")
    if not isinstance(epochs, int) or not 1 <= epochs <= _MAX_EPOCHS:
        raise CodecError(f"encoded labels of {epochs!r} epochs, need 1 to {_MAX_EPOCHS}; {_AGAIN}")
    if not isinstance(fields.get("classes", 2), int):
        raise CodecError(f"encoded labels of {fields['classes']!r} classes; {_AGAIN}")
    if not isinstance(temperature, int | float) or not 0 < temperature <= MAX_TEMPERATURE:
        raise CodecError(f"encoded labels at temperature {temperature!r}; {_AGAIN}")
    return fields


def _projector(payload: bytes) -> Projector:
    with tempfile.TemporaryDirectory() as folder:
        unpack_projector(payload, Path(folder))
        try:
            return load(folder)
        except (OSError, ProjectorError) as error:
            raise CodecError(f"the projector in encoded labels cannot be used: {error}") from None


def _online_labels(projector: Projector) -> Labeller:
    @torch.no_grad()
    def label(batch: Tensor) -> Tensor:
        return projector.logits(batch)

    return label
