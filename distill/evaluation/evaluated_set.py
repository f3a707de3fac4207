"""The set that students are trained on, and whatever labels its images or views of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from distill.recipes.tables.relabel import RelabelTable
from distill.sets.label_encoding import decode_votes
from distill.sets.network_labels import labels_any_view, network_labeller
from distill.sets.set_file import SetFile
from projectors import Deployed, OnlineLabels, Projector
from synth.committee.relabel import StoredVotes
from synth.committee.vote import Committee
from synth.images import gather


@dataclass(frozen=True)
class EvaluatedSet:
    """The set that is evaluated, and the label sources that go with it.

    Attributes:
        content: the synthetic set.
        committee: the teachers, or None where there are none.
        open_projector: reads the projector, which takes seconds; None where there is none.
        relabel: how views are labelled online, and where the set has no votes their temperature.
    """

    content: SetFile
    committee: Committee | None = None
    open_projector: Callable[[], Projector] | None = None
    relabel: RelabelTable = field(default_factory=RelabelTable)
    _decoded: dict[str, StoredVotes] = field(default_factory=dict, init=False, repr=False)
    _networks: dict[str, OnlineLabels] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def online(self) -> OnlineLabels:
        """The projector's labels; one for all students, as those of a seed see the same views.

        Raises:
            WorkError: if the projector cannot be read.
        """
        if self.open_projector is None:
            raise ValueError("there is no projector to ask for labels")
        return OnlineLabels(Deployed(self.open_projector()).logits)

    @cached_property
    def voting(self) -> OnlineLabels:
        """The committee's labels, remembered in the same way."""
        if self.committee is None:
            raise ValueError("there is no committee to ask for labels")
        return OnlineLabels(self.committee.vote)

    def network(self, labels: str, images: Tensor) -> OnlineLabels:
        """What a network among the set's encoded labels says of any view of `images`."""
        if labels not in self._networks:
            labeller = network_labeller(self.content.encoded[labels], images)
            self._networks[labels] = OnlineLabels(labeller)
        return self._networks[labels]

    @property
    def available(self) -> list[str]:
        """The label sources that there are."""
        sources = {
            "hard": True,
            "learned": self.content.learned is not None,
            "votes": self.content.votes is not None,
            "projector": self.open_projector is not None,
        }
        return [name for name, there in sources.items() if there] + list(self.content.encoded)

    def stored(self, labels: str) -> StoredVotes | None:
        """The stored label of every view, as votes or encoded; None for other sources."""
        if labels == "votes":
            return self.content.votes
        encoded = self.content.encoded.get(labels)
        if encoded is None:
            return None
        if labels not in self._decoded:
            # One source at a time: in full they may take gigabytes.
            self._decoded.clear()
            self._decoded[labels] = decode_votes(encoded, gather(self.content.seen_images))
        return self._decoded[labels]

    @property
    def labellers(self) -> list[str]:
        """The label sources that can label other images: a set's stored votes cannot."""
        sources = {
            "votes": self.committee is not None,
            "projector": self.open_projector is not None,
            **{name: labels_any_view(found) for name, found in self.content.encoded.items()},
        }
        return [name for name, there in sources.items() if there]
