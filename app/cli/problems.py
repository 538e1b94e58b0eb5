"""Words for what goes wrong and is no fault of the program."""

from __future__ import annotations

from app.cli.output import CliError

LISTS = {
    "/fine_tuning/jobs/": "cherry jobs list",
    "/files/": "cherry files list",
    "/evals/": "cherry evals list",
    "/models/": "cherry models list",
    "/datasets/": "cherry datasets list",
    "/feedback/": "cherry feedback list",
}
"""Commands that list what a path names one of."""


def explain(problem: Exception) -> str | None:
    """Returns a sentence for a problem that is no fault of the program, or None for one that is."""
    from openai import APIConnectionError, APIError, APIStatusError
    from pydantic import ValidationError
    from sqlalchemy.exc import OperationalError

    from app.models.folders import BaseModelInvalid
    from app.models.service import AliasInvalid
    from app.process import EmbeddedError
    from app.sealing import NoSecretKey
    from app.settings import SettingUnknown

    known = CliError | EmbeddedError | AliasInvalid | BaseModelInvalid | NoSecretKey | SettingUnknown
    if isinstance(problem, known):
        return str(problem)
    if isinstance(problem, APIConnectionError):
        address = problem.request.url.copy_with(path="/", query=None)
        return (
            f"cannot reach the service at {address}: is it running? `cherry up` starts one here; --url names"
            " one that runs elsewhere"
        )
    if isinstance(problem, APIStatusError):
        body = problem.body if isinstance(problem.body, dict) else {}
        return _with_next_step(
            str(body.get("message") or problem.message), problem.status_code, problem.request.url.path
        )
    if isinstance(problem, APIError):  # in the middle of a stream
        return problem.message
    if isinstance(problem, ValidationError) and problem.title in ("Settings", "Given"):
        faults = (": ".join([*_setting(fault["loc"]), fault["msg"]]) for fault in problem.errors())
        return f"settings are wrong or missing ({'; '.join(faults)})"
    if isinstance(problem, OperationalError):
        return f"the database does not answer: {str(problem.orig).strip().splitlines()[0]}"
    if isinstance(problem, UnicodeEncodeError) and problem.reason == "surrogates not allowed":
        return "an argument, or a text that was read, is no UTF-8"
    if isinstance(problem, OSError):
        return _of_a_file(problem)
    return None


def _with_next_step(message: str, status: int, path: str) -> str:
    """Returns what a service answered, with the command that helps where one does."""
    if status == 401:
        where = "`cherry up` keeps its first key in DIR/api_key"
        return f"{message} Give a key with --key or CHERRY_API_KEY; {where}."
    if status == 404:
        for part, command in LISTS.items():
            if part in path:
                return f"{message} `{command}` shows what there is."
    return message


def _setting(place: tuple[int | str, ...]) -> list[str]:
    """Returns the name in the environment of the setting that a fault is in; none where it is in several."""
    from app.settings import PREFIX

    if not place:
        return []
    field, *inner = map(str, place)
    return [".".join([field if field.isupper() else f"{PREFIX}{field.upper()}", *inner])]


def _of_a_file(problem: OSError) -> str:
    """Returns the system's words without its number: `nope.jsonl: No such file or directory`."""
    if problem.filename is None or problem.strerror is None:
        return str(problem)
    return f"{problem.filename}: {problem.strerror}"
