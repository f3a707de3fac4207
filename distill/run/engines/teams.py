"""Teams of a Ray cluster: actors that are placed all at once or not at all."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from distill.errors import LimbeckError
from distill.run.engines.local import torch_threads
from distill.run.engines.protocol import POLL_SECONDS, LostError, OpenMember, Rank, Team, attempt

# What other work holds may be given back within this time; what a lost team held is.
_PLACING_SECONDS = 10.0


class _Actor:
    """A process of a team, in the cluster."""

    def __init__(self, threads: int, folder: str | None) -> None:
        self._threads = threads
        if folder is not None:
            os.chdir(folder)
        self._member: Any = None

    def begin(self, open_member: OpenMember, rank: int, size: int) -> tuple[bool, Any]:
        """Make the member."""
        import ray

        def opened() -> None:
            self._member = open_member(Rank(rank, size, ray.util.get_node_ip_address()))

        return self._attempt(opened)

    def do(self, call: tuple[str, tuple[Any, ...]]) -> tuple[bool, Any]:
        """Call a method of the member."""
        method, arguments = call
        return self._attempt(lambda: getattr(self._member, method)(*arguments))

    def _attempt(self, work: Callable[[], Any]) -> tuple[bool, Any]:
        with torch_threads(self._threads):
            return attempt(work)


class _ActorTeam:
    """See `Team`."""

    def __init__(self, actors: Sequence[Any]) -> None:
        self._actors = actors

    @property
    def size(self) -> int:
        return len(self._actors)

    def ask(self, method: str, *arguments: Any) -> list[Any]:
        import ray

        call = ray.put((method, arguments))
        return _answers([actor.do.remote(call) for actor in self._actors], lambda: None)


@contextmanager
def gathered(
    most: int,
    open_member: OpenMember,
    threads: int,
    check: Callable[[], None],
    *,
    gpu: bool,
    folder: str | None = None,
) -> Iterator[Team | None]:
    """A team of up to `most` processes with so many CPUs each, and a GPU; see `Engine.team`.

    Relative paths are looked up in `folder`, or wherever the cluster is.

    Raises:
        LimbeckError: what `open_member` raised on purpose, or `check`.
        LostError: if a process died.
    """
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    needs = {"CPU": threads, **({"GPU": 1} if gpu else {})}
    with _placed(most, needs, check) as group:
        if group is None:
            yield None
            return
        size, actors = group.bundle_count, list[Any]()
        make = partial(ray.remote(_Actor).options, num_cpus=threads, num_gpus=int(gpu))
        try:
            for rank in range(size):
                place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank)
                actors.append(make(scheduling_strategy=place).remote(threads, folder))
            begun = ray.put(open_member)
            _answers(
                [actor.begin.remote(begun, rank, size) for rank, actor in enumerate(actors)], check
            )
            yield _ActorTeam(actors)
        finally:
            for actor in actors:
                with suppress(ray.exceptions.RayError):
                    ray.kill(actor)


@contextmanager
def _placed(most: int, needs: Mapping[str, int], check: Callable[[], None]) -> Iterator[Any]:
    """A placement group of up to `most` processes with such needs; None where there are not two."""
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group

    size, held = min(most, _room(ray.cluster_resources(), needs)), None
    try:
        while size > 1:
            held = placement_group([dict(needs)] * size, strategy="PACK")
            if _is_ready(held, check):
                yield held
                return
            remove_placement_group(held)
            held = None
            size = min(size - 1, _room(ray.available_resources(), needs))
        yield None
    finally:
        if held is not None:
            with suppress(ray.exceptions.RayError):
                remove_placement_group(held)


def _room(resources: Mapping[str, float], needs: Mapping[str, int]) -> int:
    """For how many processes with such needs there are resources, wherever they are."""
    return min(int(resources.get(name, 0)) // count for name, count in needs.items())


def _is_ready(group: Any, check: Callable[[], None]) -> bool:
    """Whether all of a group was placed, within the time for it."""
    until = time.monotonic() + _PLACING_SECONDS
    while time.monotonic() < until:
        check()
        if group.wait(POLL_SECONDS):
            return True
    return False


def _answers(references: Sequence[Any], check: Callable[[], None]) -> list[Any]:
    """What the calls of all processes return, see `Team.ask`."""
    import ray

    answers, pending = dict[Any, Any](), list(references)
    while pending:
        check()
        try:
            ready, pending = ray.wait(pending, timeout=POLL_SECONDS)
            for reference in ready:
                answers[reference] = _unpacked(*ray.get(reference))
        except ray.exceptions.RayError as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise LostError(f"a process was lost ({lines[0]})") from None
    return [answers[reference] for reference in references]


def _unpacked(failed: bool, value: Any) -> Any:
    """The value; raises it where the member failed."""
    if not failed:
        return value
    if isinstance(value, LimbeckError | FloatingPointError):
        raise value
    lines = str(value).strip().splitlines() or [type(value).__name__]
    raise LostError(f"a process could not go on ({lines[0]})")
