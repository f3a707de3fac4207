"""One honest sentence: does the best label source beat random real images, also at equal bytes?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from distill.report.scales import clean, finite, percent

SOURCE_NAMES = {
    "hard": "hard labels",
    "learned": "learned soft labels",
    "votes": "committee votes",
    "projector": "projector labels",
}

VerdictKind = Literal["beats", "unclear", "below", "unknown"]


@dataclass(frozen=True)
class Score:
    """A student's accuracy with one label source, over seeds; mean and std are fractions."""

    student: str
    source: str
    mean: float
    std: float
    seeds: int

    def text(self) -> str:
        """For example `78.3 ± 0.4 % over 3 seeds`."""
        seeds = f"{self.seeds} seed" + ("" if self.seeds == 1 else "s")
        spread = f" ± {percent(self.std)}" if self.seeds > 1 else ""
        return f"{percent(self.mean)}{spread} % over {seeds}"


@dataclass(frozen=True)
class Verdict:
    """What the run showed: a sentence, and one at equal bytes where that was evaluated."""

    outcome: VerdictKind
    sentence: str


@dataclass(frozen=True)
class Gain:
    """The difference of two accuracies.

    Attributes:
        points: in percent, to a tenth.
        spread: of the difference over seeds, one standard deviation, in the same unit.
        known: whether both have several seeds, without which a spread is unknown.
    """

    points: float
    spread: float
    known: bool

    @property
    def clear(self) -> bool:
        """Whether it is more than the seeds explain."""
        return self.known and abs(self.points) > self.spread

    def text(self, against: str = "") -> str:
        """For example `+12.4 points against random images, more than noise`."""
        points = f"{self.points:+.1f} points" + (f" against {against}" if against else "")
        if not self.known:
            return f"{points}, noise unknown with one seed"
        return f"{points}, {'more than' if self.clear else 'within'} noise"


def gain_of(ours: Score, other: Score) -> Gain:
    """How far `ours` lies above the other."""
    return Gain(
        round(100 * (ours.mean - other.mean), 1),
        100 * math.hypot(ours.std, other.std),
        min(ours.seeds, other.seeds) > 1,
    )


def source_name(source: str) -> str:
    """What a reader calls a label source."""
    return SOURCE_NAMES.get(source, source)


def read_score(student: str, source: str, entry: Mapping[str, Any]) -> Score | None:
    """The score of one entry of a summary, or None if its mean is not finite."""
    mean = finite(entry.get("mean"))
    if mean is None:
        return None
    std = finite(entry.get("std"))
    return Score(student, source, mean, std or 0.0, len(entry.get("runs") or ()) or 1)


def find_verdict(summary: Mapping[str, Any]) -> Verdict:
    """Compares the best label source with the best random control of the same student."""
    tops = best_by_student(summary.get("students") or {})
    if not tops:
        return Verdict("unknown", "No student of this run has a finite accuracy yet.")
    randoms = best_by_student((summary.get("controls") or {}).get("random") or {})
    compared = [top for student, top in tops.items() if student in randoms]
    if not compared:
        best = _best(list(tops.values()))
        return Verdict(
            "unknown",
            f"The best label source ({source_name(best.source)}) trains {best.student} to "
            f"{best.text()}, but no random control was evaluated, so nothing is shown about "
            "the distillation.",
        )
    best = _best(compared)
    outcome, sentence = _compare(best, randoms[best.student])
    return Verdict(outcome, f"{sentence}{_over_students(compared, randoms)}.{_at_bytes(summary)}")


def _compare(best: Score, control: Score) -> tuple[VerdictKind, str]:
    gain = gain_of(best, control)
    points = gain.points
    subject = f"the best label source ({source_name(best.source)}) trains {best.student} to"
    beside = f"random real images ({source_name(control.source)}, {control.text()})"
    unit = "point" if abs(points) == 1.0 else "points"
    if points <= 0:
        gap = f"{-points:.1f} {unit} below" if points < 0 else "no better than"
        text = f"This run does not beat its random control: {subject} {best.text()}, {gap} {beside}"
        return "below", text
    gap = f"{points:.1f} {unit} above {beside}"
    if points <= gain.spread:
        text = f"The gain is within the spread of the seeds: {subject} {best.text()}, only {gap}"
        return "unclear", text
    text = f"{subject[0].upper()}{subject[1:]} {best.text()}, {gap}"
    if not gain.known:
        text += "; with a single seed the spread is unknown"
    return "beats", text


def _over_students(compared: Sequence[Score], randoms: Mapping[str, Score]) -> str:
    if len(compared) == 1:
        return ""
    ahead = sum(top.mean > randoms[top.student].mean for top in compared)
    return f"; the best source is ahead of random on {ahead} of {len(compared)} students"


def _at_bytes(summary: Mapping[str, Any]) -> str:
    """A sentence on coded real images in as many bytes as the set, the least gain first."""
    controls = summary.get("controls") or {}
    gains = []
    for student, sources in (summary.get("students") or {}).items():
        for source, entry in sources.items():
            others = [
                read_score(student, source, group[student][source])
                for group in (controls.get("coded") or {}, controls.get("herded") or {})
                if source in (group.get(student) or {})
            ]
            known = [score for score in others if score is not None]
            ours = read_score(student, source, entry)
            if known and ours is not None:
                gains.append((round(100 * (ours.mean - _best(known).mean), 1), ours, _best(known)))
    if not gains:
        return ""
    points, ours, other = min(gains, key=lambda gain: gain[0])
    ahead = sum(gain[0] > 0 for gain in gains)
    return (
        f" In the same bytes, coded real images train {ours.student} to {other.text()}, the set's "
        f"{source_name(ours.source)} to {ours.text()}: a gain of {points:+.1f} points, the least "
        f"of {len(gains)}; the set is ahead in {ahead}."
    )


def best_by_student(students: Mapping[str, Mapping[str, Any]]) -> dict[str, Score]:
    """The highest score of each student."""
    best: dict[str, Score] = {}
    for student, sources in students.items():
        scores = [read_score(student, source, entry) for source, entry in sources.items()]
        known = [score for score in scores if score is not None]
        if known:
            best[student] = _best(known)
    return best


def _best(scores: Sequence[Score]) -> Score:
    return max(scores, key=lambda score: score.mean)


def runs_of(entry: Mapping[str, Any]) -> list[float]:
    """The finite accuracies of the seeds of one entry."""
    return clean(entry.get("runs") or ())
