"""What `cherry jobs check` prints of a report."""

from typing import Any

from app.cli.preflights import _numbers


def rows(training: int | None, validation: int | None) -> str:
    files: dict[str, Any] = {"training_rows": training, "validation_rows": validation}
    return dict(_numbers({"files": files}))["Rows"]


def test_a_file_that_cannot_be_read_has_no_number_of_rows() -> None:
    assert rows(4, 0) == "4 training, 0 validation"
    assert rows(None, 2) == "training file not readable, 2 validation"
    assert rows(2, None) == "2 training, validation file not readable"
