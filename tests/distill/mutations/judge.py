"""One case: a thing is damaged, a command reads it, and what came is judged."""

import contextlib
import io
import json
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest

from distill.__main__ import run
from distill.run.artefacts import EXPERTS, SECONDS
from tests.distill.cases import contents
from tests.distill.fuzz_cases import Tally
from tests.distill.mutations.accidents import ACCIDENTS, copy_of, forge
from tests.distill.mutations.meaning import lasting, meaning_of
from tests.distill.mutations.things import Reader, Thing

# What they have done stays, to go on from.
_KEEP_WORK = ("run", "select", "extend", "sweep")


@dataclass(frozen=True)
class Seen:
    """What a command did."""

    code: int
    out: str
    err: str


@dataclass
class Judge:
    """Runs cases in a folder of its own, and tells what went wrong to a tally.

    Attributes:
        estate: of `estate.build`; it is only read.
        work: a folder for one case after another.
        tally: of all cases.
        outcomes: how often a command refused, and how often it went well.
    """

    estate: Path
    work: Path
    tally: Tally
    outcomes: Counter[str] = field(default_factory=Counter)
    _answers: dict[tuple[str, tuple[str, ...]], Any] = field(default_factory=dict)

    def case(self, seed: str, things: Sequence[Thing]) -> None:
        """Draw a thing, a reader and a change from a seed, and judge what the reader does."""
        random = Random(seed)
        thing = random.choices(things, [thing.often for thing in things])[0]
        reader = random.choices(thing.readers, [reader.often for reader in thing.readers])[0]
        wanted = self._answer(thing, reader)
        it = self._laid(thing)
        target = _target(it, thing, random)
        honest = random.random() < 0.65
        how = random.choice(ACCIDENTS) if honest else forge
        before = meaning_of(target)
        with contextlib.suppress(OSError, ValueError, LookupError, RuntimeError, TypeError):
            # A change that the file does not allow leaves it as it is, or half changed.
            how(target, random)
        changed = meaning_of(target) != before
        name = f"{how.__name__} in {target.relative_to(self.work)}"
        kept, seen = contents(self.work), None
        with self.tally.case(f"{seed} ({name}; {' '.join(reader.words)[:60]})"):
            seen = self._seen(thing, reader, it)
        if seen is None:
            return
        self._judge(seed, name, reader, seen, {} if thing.variable else kept)
        if seen.code == 0 and honest and changed:
            self._compare(seed, name, reader, seen, wanted)

    def _laid(self, thing: Thing) -> Path:
        """A fresh copy of a thing."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()
        return copy_of(self.estate / thing.place, self.work / Path(thing.place).name)

    def _answer(self, thing: Thing, reader: Reader) -> Any:
        """What a reader says of a thing as it was."""
        key = thing.place, reader.words
        if key not in self._answers:
            it = self._laid(thing)
            seen = self._seen(thing, reader, it)
            assert seen.code == 0, (reader.words, seen)
            self._answers[key] = self._said(reader, seen)
            self.tally.settle()
        return self._answers[key]

    def _seen(self, thing: Thing, reader: Reader, it: Path) -> Seen:
        places = {
            "IT": it,
            "OUT": self.work / "made" / ("it.h5" if _makes_file(reader) else "it"),
            "RUN": self.estate / "run",
            "RECIPE": self.estate / "tiny.toml",
            "HERD": self.estate / "herd.toml",
        }
        words = [
            re.sub(r"(?<=[:=])IT$", lambda _: str(it), str(places.get(word, word)))
            for word in reader.words
        ]
        words = [re.sub(r"(?:^|(?<==))ESTATE(?=/)", str(self.estate), word) for word in words]
        out, err = io.StringIO(), io.StringIO()
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            if thing.variable:
                patch.setenv(thing.variable, str(it))
            if thing.large:
                patch.setattr("distill.store.large_arrays.HELD_BYTES", 0)
            code = run(words)
        return Seen(code, out.getvalue(), err.getvalue())

    def _judge(
        self, seed: str, name: str, reader: Reader, seen: Seen, kept: dict[str, str]
    ) -> None:
        """Whether errors are one line, and nothing half made is left."""
        verb = reader.words[0]
        self.outcomes["done" if seen.code == 0 else "refused"] += 1
        lines = [line for line in seen.err.splitlines() if line.startswith("error: ")]
        one = seen.code == 0 or (len(lines) == 1 and seen.err.endswith(f"{lines[0]}\n"))
        if seen.code not in (0, 1, 2, 3) or not one or (seen.code == 0 and lines):
            self._fault(seed, "raw error", f"{verb}: code {seen.code}", name, seen)
        elif re.search(r"--debug|Traceback|too little memory", seen.err + seen.out):
            self._fault(seed, "raw error", verb, name, seen)
        if re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", seen.err + seen.out):
            self._fault(seed, "raw error", f"{verb} prints what a terminal obeys", name, seen)
        now = contents(self.work)
        if seen.code and (self.work / "made").exists() and verb not in _KEEP_WORK:
            self._fault(seed, "partial output", f"{verb} leaves something", name, seen)
        if any(re.search(r"\.tmp$|\.earlier$", path) for path in now):
            self._fault(seed, "partial output", f"{verb} leaves a temporary file", name, seen)
        may_write = (
            reader.answer in ("page", "place") or verb == "sweep" or "--record" in reader.words
        )
        own = {path: digest for path, digest in now.items() if not path.startswith("made/")}
        if kept and own != kept and (seen.code or not may_write) and verb not in ("run", "sweep"):
            self._fault(seed, "partial output", f"{verb} changed what it read", name, seen)

    def _compare(self, seed: str, name: str, reader: Reader, seen: Seen, wanted: Any) -> None:
        """Whether damage that no digest fits any more was noticed, or did no harm."""
        if reader.answer == "verdict":
            # What `verify` names as not checked stands at the end of its line.
            named = seen.out.partition("not checked")[2]
            if not re.search(rf"[ ,]{re.escape(_first(name))}(,|;|$)", named, re.MULTILINE):
                self._fault(seed, "flip missed", "verify", name, seen)
        elif "changed since the run" in seen.err:
            # The rows that curves are drawn from, which are told.
            self.outcomes["told"] += 1
        elif self._said(reader, seen) != wanted:
            self._fault(seed, "other result", " ".join(reader.words)[:60], name, seen)

    def _said(self, reader: Reader, seen: Seen) -> Any:
        """What a reader's answer is, in plain values."""
        if reader.answer == "json":
            text = seen.out.replace(str(self.work), "WORK")
            return lasting(json.loads(text))
        if reader.answer == "experts":
            return meaning_of(self.work / "made" / "it" / EXPERTS)
        if reader.answer == "out":
            return meaning_of(self.work / "made")
        it = next(path for path in self.work.iterdir() if path.name != "made")
        if reader.answer == "page":
            return meaning_of(it / "report.html")
        if reader.answer == "place":
            return _results(it)
        return None

    def _fault(self, seed: str, kind: str, what: str, name: str, seen: Seen) -> None:
        said = seen.err.replace(str(self.work), "WORK")[-300:]
        where = re.sub(r"\d+", "N", name)
        self.tally.fault(seed, f"{kind}: {what} [{where}] {seen.code} {said!r}")


def _results(run_folder: Path) -> Any:
    """What a run has made, without costs: the page states them."""
    names = ("experts.h5", "committee.h5", "set.h5", "projector", "encoding.json",
             "evaluation.json", "metrics.jsonl")  # fmt: skip
    return {name: meaning_of(run_folder / name) for name in names}


def _first(name: str) -> str:
    """The name, in a run's folder, of what was changed."""
    parts = Path(name.partition(" in ")[2]).parts
    return parts[1] if len(parts) > 1 else parts[0]


def _makes_file(reader: Reader) -> bool:
    return reader.words[0] in ("compress", "order", "merge", "encode", "import", "report")


def _target(it: Path, thing: Thing, random: Random) -> Path:
    """The file that is changed."""
    if it.is_file():
        return it
    found = {path for pattern in thing.targets for path in it.glob(pattern) if path.is_file()}
    # How long a stopped stage took is all that this file says.
    return random.choice(
        sorted(path for path in found if path.stat().st_size and path.name != SECONDS)
    )
