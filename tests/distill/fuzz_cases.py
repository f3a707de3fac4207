"""Damage, drawn from a seed, and what every command owes whoever gives it a damaged file."""

import contextlib
import copy
import io
import json
import math
import resource
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from distill.__main__ import run
from distill.machine import resident_bytes

SECONDS = 20
GROWTH = 400 << 20
# Address space beyond what is mapped now: a wrong size fails here rather than take the machine's.
_ROOM = 4 << 30

VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    3.5,
    10**9,
    10**30,
    1e308,
    math.inf,
    math.nan,
    "",
    "x" * 5000,
    "../../../tmp/fuzz",
    "/etc/passwd",
    "<script>alert(1)</script>",
    "nul\0nul",
    "line\nline",
    [],
    {},
    [[[]]],
    {"a": {"b": [1]}},
]


class Hang(BaseException):
    """A case that took too long; no handler of errors may swallow it."""


@contextlib.contextmanager
def bounded(seconds: float = SECONDS) -> Iterator[None]:
    """Stop a case that hangs, or takes gigabytes."""

    def ring(number: int, frame: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + _ROOM, limits[1]))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, limits)


class Tally:
    """Runs cases and remembers what went wrong, so that one run shows all of it.

    Args:
        seconds: after which a case hangs, by the clock on the wall; it is slow after half of
            `SECONDS` of its own.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self.cases = 0
        self.codes: Counter[int] = Counter()
        self.faults: dict[str, int | str] = {}
        self._start = resident_bytes()

    def command(self, seed: int, *words: str | Path, absent: tuple[Path, ...] = ()) -> int:
        """One command; if it fails, none of the files in `absent` may be there."""
        out, err, code = io.StringIO(), io.StringIO(), -1
        with self.case(seed), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run([str(word) for word in words])
        text = err.getvalue()
        self.codes[code] += 1
        line = text.startswith("error: ") and text.count("\n") == 1 and text.endswith("\n")
        notes = all(said.startswith("note: ") for said in text.splitlines())
        if code not in (0, 1, 2, 3) or not (line if code else notes):
            self.fault(seed, f"code {code}, stderr {text[:300]!r}")
        elif "--debug" in text or "too little memory" in text:
            self.fault(seed, f"not foreseen: {text[:300]!r}")
        for path in absent if code else ():
            if path.exists():
                self.fault(seed, f"{path.name} is left behind after {text[:200]!r}")
        return code

    def call(self, seed: int, work: Callable[[], Any], *allowed: type[Exception]) -> Any:
        """One call, which may only raise errors of `allowed` kinds."""
        with self.case(seed):
            try:
                return work()
            except allowed as error:
                if not str(error):
                    self.fault(seed, f"{type(error).__name__} says nothing")
        return None

    @contextlib.contextmanager
    def case(self, seed: int | str) -> Iterator[None]:
        """Count a case; note what escapes from it, and what time and memory it took."""
        self.cases += 1
        started = time.process_time()
        try:
            with bounded(self._seconds):
                yield
        except Hang:
            self.fault(seed, "hangs")
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            place = error.__traceback__
            while place is not None and place.tb_next is not None:
                place = place.tb_next
            where = f"{Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}"
            self.fault(seed, f"{type(error).__name__} from {where}: {str(error)[:200]!r}")
        if time.process_time() - started > SECONDS / 2:
            self.fault(seed, "is slow")
        if resident_bytes() - self._start > GROWTH:
            self.fault(seed, "takes much memory")
            self._start = resident_bytes()

    def fault(self, seed: int | str, words: str) -> None:
        """Note what went wrong, with the first seed that shows it."""
        self.faults.setdefault(words, seed)

    def settle(self) -> None:
        """What is loaded now is no growth of the cases that come."""
        self._start = resident_bytes()

    def check(self) -> None:
        """Fail with every fault that was found, each with the first seed that shows it."""
        assert self.cases
        listed = "\n".join(f"seed {seed}: {words}" for words, seed in self.faults.items())
        assert not self.faults, f"{len(self.faults)} faults in {self.cases} cases:\n{listed}"


def damage(raw: bytes, random: Random) -> bytes:
    """The bytes of a file after one to four accidents."""
    found = bytearray(raw)
    for _ in range(random.randint(1, 4)):
        if not found:
            return b""
        place = random.randrange(len(found))
        # Headers come first, and matter most.
        if random.random() < 0.5:
            place = random.randrange(min(len(found), 4096))
        size = random.choice((1, 2, 4, 8, 64, 1024))
        kind = random.randrange(7)
        if kind == 0:
            found[place] ^= 1 << random.randrange(8)
        elif kind == 1:
            found[place : place + size] = bytes(random.randrange(256) for _ in range(min(size, 64)))
        elif kind == 2:
            found[place : place + size] = bytes([random.choice((0, 0xFF, 0x7F))]) * size
        elif kind == 3:
            del found[place : place + size]
        elif kind == 4:
            found[place:place] = found[place : place + size]
        elif kind == 5:
            del found[place:]
        else:
            found += bytes(size)
    return bytes(found)


def changed(value: Any, random: Random) -> Any:
    """A JSON value with one of its parts replaced, removed or added."""
    found = copy.deepcopy(value)
    holder, key = None, None
    here = found
    while isinstance(here, dict | list) and here and (holder is None or random.random() < 0.8):
        holder = here
        key = random.choice(list(here)) if isinstance(here, dict) else random.randrange(len(here))
        here = here[key]
    if holder is None:
        return random.choice(VALUES)
    kind = random.randrange(5)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[random.choice(("added", "..", "", "a/b"))] = random.choice(VALUES)
    elif kind == 2 and isinstance(holder, list):
        holder.append(random.choice(VALUES))
    else:
        holder[key] = random.choice(VALUES)
    return found


def changed_json(text: str, random: Random) -> str:
    """A JSON text, broken or with a part changed; now and then nested past every stack."""
    draw = random.random()
    if draw < 0.05:
        return "[" * 100_000
    if draw < 0.15:
        return damage(text.encode(), random).decode("utf-8", "replace")
    return json.dumps(changed(json.loads(text), random))
