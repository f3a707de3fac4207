"""Rows of JSON lines."""

from dataclasses import dataclass

import pytest

from distill.store.jsonl import append_lines, from_row, read_lines


@pytest.mark.parametrize("left", ["", '{"a": 1}\n', '{"a": 1}\n{"a": 2', "[1]\n"])
def test_rows_are_not_glued_to_a_line_that_was_cut_short(left, tmp_path):
    (tmp_path / "rows.jsonl").write_text(left)
    append_lines(tmp_path / "rows.jsonl", [{"a": 3}, {"a": 4}])
    whole = [{"a": 1}] if '"a": 1' in left else []
    assert read_lines(tmp_path / "rows.jsonl") == [*whole, {"a": 3}, {"a": 4}]


@dataclass(frozen=True)
class Measured:
    accuracy: float
    matrix: list[list[int]] | None = None


def test_a_row_is_read_back_as_what_was_written():
    assert from_row(Measured, {"accuracy": 0.5}) == Measured(0.5)
    assert from_row(Measured, {"accuracy": 1, "matrix": [[1]]}) == Measured(1.0, [[1]])


@pytest.mark.parametrize(
    "row",
    [
        [],
        {},
        {"accuracy": None},
        {"accuracy": [0.5]},
        {"accuracy": 0.5, "matrix": [1]},
        {"accuracy": 0.5, "matrix": [[{}]]},
        {"accuracy": 0.5, "bytes": 3},
    ],
)
def test_a_row_of_another_kind_is_none(row):
    with pytest.raises(ValueError, match="Measured"):
        from_row(Measured, row)
