"""Numbers to pixels and to text: finite values, axis scales, ticks, percents, bytes."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Real

MISSING = "\N{EN DASH}"

_LARGEST = 1e100

_SMALLEST = 1e-100

_LOG_RATIO = 50.0


def finite(value: object) -> float | None:
    """The value as a float, or None if it is no number that an axis can show."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    if not math.isfinite(number) or abs(number) > _LARGEST:
        return None
    return 0.0 if abs(number) < _SMALLEST else number


@dataclass(frozen=True)
class Scale:
    """Maps [low, high] to the pixels [start, end], linearly or in the logarithm."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Pixel of a finite value (positive on a log scale)."""
        low, high = (self._warp(self.low), self._warp(self.high))
        part = (self._warp(value) - low) / (high - low)
        return self.start + part * (self.end - self.start)

    def _warp(self, value: float) -> float:
        return math.log10(value) if self.log else value


def fit_scale(
    values: Sequence[float],
    pixels: tuple[float, float],
    *,
    padding: float = 0.06,
    log: bool = False,
) -> Scale:
    """A scale around finite values.

    Args:
        values: At least one finite value; constant values get a range of their own.
        pixels: Where the lowest and the highest value go.
        padding: Room beyond the values, as a fraction of their range.
        log: Use the logarithm if all values are positive and span a factor of 50.
    """
    low, high = min(values), max(values)
    if log and low > 0 and high / low > _LOG_RATIO:
        room = (high / low) ** padding
        return Scale(low / room, high * room, *pixels, log=True)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        room = 0.1 * abs(high) or 1.0
    else:
        room = padding * (high - low)
    # A quantity that is never negative must not get an axis that suggests it could be.
    bottom = max(0.0, low - room) if low >= 0 else low - room
    return Scale(bottom, high + room, *pixels)


def ticks(scale: Scale, count: int = 5, *, whole: bool = False) -> list[float]:
    """Round values inside a scale, about `count` of them; integers only if `whole`."""
    if scale.log:
        return _log_ticks(scale)
    raw = (scale.high - scale.low) / count
    magnitude = 10.0 ** math.floor(math.log10(raw))
    steps = (m * magnitude for m in (1, 2, 2.5, 5, 10))
    step = min(steps, key=lambda candidate: abs(math.log(candidate / raw)))
    if whole:
        step = max(1.0, float(math.ceil(step)))
    first = math.ceil(scale.low / step - 1e-9)
    last = math.floor(scale.high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def _log_ticks(scale: Scale) -> list[float]:
    powers = range(math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high)) + 1)
    stride = max(1, len(powers) // 6)
    decades = [10.0**p for p in powers if scale.low <= 10.0**p <= scale.high and p % stride == 0]
    if len(decades) > 2:
        return decades
    candidates = [m * 10.0**p for p in powers for m in (1, 2, 5)]
    return [value for value in candidates if scale.low <= value <= scale.high]


def tick_labels(values: Sequence[float], *, percent: bool = False) -> list[str]:
    """Texts for ticks, with as many decimals as tell them apart."""
    shown = [100 * value if percent else value for value in values]
    gaps = [abs(b - a) for a, b in pairwise(shown) if b != a]
    step = min(gaps, default=abs(shown[0]) if shown else 1.0) or 1.0
    largest = max((abs(value) for value in shown), default=0.0)
    if largest >= 1e7 or step < 1e-4 or (gaps and max(gaps) > 5 * step):
        return [f"{value:.4g}" for value in shown]
    decimals = next((d for d in range(6) if abs(round(step, d) - step) < 1e-6 * step), 5)
    return [f"{value:,.{decimals}f}" for value in shown]


def percent(value: object) -> str:
    """A fraction as a percentage with one decimal and no sign of percent: 0.783 -> '78.3'."""
    number = finite(value)
    return MISSING if number is None else f"{100 * number:.1f}"


def count_text(value: object) -> str:
    """A count with its thousands marked, or a dash: 98304 -> '98,304'."""
    number = finite(value)
    return MISSING if number is None else f"{number:,.0f}"


def size_text(value: object) -> str:
    """Bytes with a decimal unit, for reading: 98304 -> '98.3 kB'."""
    number = finite(value)
    if number is None:
        return MISSING
    for unit in ("B", "kB", "MB", "GB"):
        if abs(number) < 1000:
            return f"{number:.0f} B" if unit == "B" else f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.1f} TB"


def clean(values: Iterable[object]) -> list[float]:
    """The finite values among some, in order."""
    return [number for number in map(finite, values) if number is not None]
