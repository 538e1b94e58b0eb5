"""What can go wrong with a run as a whole, and with one answer."""

from __future__ import annotations

from app.evals.schemas import ApiErrorOut


class RunInvalid(Exception):
    """The run cannot be carried out as it was asked for."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class AnswerFailed(Exception):
    """There is no answer to one item: by an outage, where a server could not reply whatever it was asked."""

    def __init__(self, code: str, message: str, *, is_outage: bool = False) -> None:
        super().__init__(message)
        self.error = ApiErrorOut(code=code, message=message)
        self.is_outage = is_outage
