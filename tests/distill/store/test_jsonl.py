"""Rows of JSON lines."""

import pytest

from distill.store.jsonl import append_lines, read_lines


@pytest.mark.parametrize("left", ["", '{"a": 1}\n', '{"a": 1}\n{"a": 2', "[1]\n"])
def test_rows_are_not_glued_to_a_line_that_was_cut_short(left, tmp_path):
    (tmp_path / "rows.jsonl").write_text(left)
    append_lines(tmp_path / "rows.jsonl", [{"a": 3}, {"a": 4}])
    whole = [{"a": 1}] if '"a": 1' in left else []
    assert read_lines(tmp_path / "rows.jsonl") == [*whole, {"a": 3}, {"a": 4}]
