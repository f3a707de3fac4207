"""What a line of progress shows in terminals of any width."""

import io

import pytest

from distill.run import progress
from distill.run.progress import bar_parts, shortened

NOTE = "distance 0.710, student lr 0.0104"


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200])
def test_parts_fit_the_width_and_time_left_is_always_there(width):
    parts, room = bar_parts(width, 5000)
    assert {"name", "count", "left", "note"} <= set(parts)
    assert sum(parts.values()) + len(parts) - 1 <= width
    assert parts["note"] == room
    assert width < 80 or room >= len(NOTE)
    assert width < 120 or {"bar", "rate", "elapsed"} <= set(parts)


def test_a_long_note_is_cut_with_an_ellipsis():
    assert shortened(NOTE, 34) == NOTE
    assert shortened(NOTE, 10) == "distance \u2026"
    assert shortened(NOTE, 0) == ""


def test_narrow_terminal_shows_steps_and_time_left(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown = Terminal()
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", shown)
    with progress.Progress().task("match", 5000) as advance:
        advance(NOTE, 1234)
    last = shown.getvalue().replace("\r", "\n")
    assert "1234/5000" in last
    assert ":" in last.partition("1234/5000")[2][:20]
    assert NOTE[:20] in last
