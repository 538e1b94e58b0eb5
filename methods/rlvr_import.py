"""Turns published RLVR rows (open-instruct's, verl's, SageMaker's) into rows of a job, and names the grader.

Rows of open-instruct's form are a job's rows already, and keep every key. What is put right: the turn of an
assistant at the end, verl's names of things, and columns that a job cannot read; each is told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graders import build_grader, parse_grader, strict_json
from graders.rlvr.grader import find_verifier
from graders.rlvr.judged import JUDGED
from graders.row_check import why_unreadable
from graders.services import Question, Reply, Services, Target
from graders.types import FailureKind, GradeFailed
from methods.faults import MAX_REASONS, Fault
from methods.rows import MAX_TRAIN_ROWS, DatasetInvalid, check_row

_LAST_ASSISTANT = "dropped the assistant's turn at the end of {n} rows: a job samples that answer itself"
_VERL = (
    "read {n} rows of verl's form: prompt, data_source, reward_model became messages, dataset, ground_truth"
)
_RUBRICS = "read {n} rows with a rubric: dataset is rubric, ground_truth the criteria"
_TEXT_PROMPT = "made a user's message of the text prompt of {n} rows"
_TOOLS = "left the tools out of {n} rows: a job's tools are a list of objects"
_SUMMED = (
    "{n} rows have several verifiers, whose scores are added up: such a row is worth up to their number. "
    "open-instruct multiplies rewards by 10 (--scale 10), which matters there because its advantages are not "
    "divided by their standard deviation; here they are, unless scale_advantage is false"
)
_CODE = "{n} rows run code, which needs the sandbox: see cherry doctor on the machine that trains"
_JUDGES = "{n} rows are scored by the judge, {judge}: a call for each answer, which takes time and costs"
_LENGTHS = "{n} rows are scored by their length in tokens of the model that is trained, not of the data's"


@dataclass
class Imported:
    """What became of a file.

    Attributes:
        rows: as a job reads them.
        grader: the grader for all of them.
        verifiers: rows by the verifier that scores them; a row with several counts for each.
        notes: what was put right, and what to know.
    """

    rows: list[dict[str, Any]]
    grader: dict[str, Any]
    verifiers: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)

    def told(self) -> list[str]:
        """Returns the notes, one sentence each, with the numbers of rows that they are about."""
        judge = self.grader.get("judge", {}).get("model", "")
        return [note.format(n=f"{count:,}", judge=judge) for note, count in self.notes.items()]


class _Unasked:
    """Stands for a judge while rows are read: none of them is judged."""

    def check(self, target: Target, sampling: Mapping[str, Any], media: frozenset[str]) -> None:
        """Refuses nothing: whether there is such a judge is seen where the job is made."""

    def ask(self, question: Question) -> Reply:  # noqa: ARG002
        raise GradeFailed(FailureKind.MODEL_SERVER, "Nobody is asked while rows are imported.")


def import_rlvr(
    path: Path, *, remap: Mapping[str, str], scale: float = 1.0, judge: str | None = None
) -> Imported:
    """Read a JSONL file. `judge` names the model that scores the rows which need one.

    Raises `DatasetInvalid` with the first faults, `GraderInvalid` for a bad `remap`.
    """
    grader: dict[str, Any] = {"type": "rlvr", "name": "rlvr"}
    grader |= {"remap": dict(remap)} if remap else {}
    grader |= {"scale": scale} if scale != 1 else {}
    grader |= {"judge": {"model": judge}} if judge is not None else {}
    imported = Imported([], grader)
    services = Services(judge=_Unasked(), why={"sandbox": "it is not needed to import"})
    check = build_grader(parse_grader(grader), services)
    faults: list[Fault] = []
    for line, raw in _rows(path):
        try:
            if len(imported.rows) == MAX_TRAIN_ROWS:
                raise ValueError(f"more than {MAX_TRAIN_ROWS:,} rows; take a part of the file")
            row = _row(raw, imported.notes)
            if why := why_unreadable(check, row):
                raise ValueError(why)
        except ValueError as fault:
            faults.append(Fault(line, str(fault)))
            if len({fault.reason for fault in faults}) == MAX_REASONS or len(imported.rows) == MAX_TRAIN_ROWS:
                break
            continue
        imported.rows.append(row)
        _count(row, remap, imported)
    if not imported.rows and not faults:
        faults.append(Fault(0, "the file has no rows"))
    if faults:
        raise DatasetInvalid(faults, len(imported.rows) + len(faults))
    return imported


def _rows(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        for line, raw in enumerate(file, start=1):
            if raw.strip():
                yield line, raw.removeprefix(b"\xef\xbb\xbf") if line == 1 else raw


def _row(raw: bytes, notes: Counter[str]) -> dict[str, Any]:
    """Raises `ValueError` with what is wrong. Notes are counted only for rows that are right."""
    found: Counter[str] = Counter()
    row = strict_json.loads(raw.strip())
    if not isinstance(row, dict):
        raise ValueError("a row is a JSON object")
    row = _from_rubrics(_from_verl(row, found), found)
    if isinstance(row.get("messages"), list):
        row["messages"] = _without_answer(row["messages"], found)
    tools = row.get("tools")
    if tools is not None and not (isinstance(tools, list) and all(isinstance(one, dict) for one in tools)):
        del row["tools"]
        found[_TOOLS] += 1
    for key in ("dataset", "ground_truth"):
        if key not in row:
            raise ValueError(f"'{key}' is missing: it is not an RLVR row")
    check_row(row)
    notes.update(found)
    return row


def _from_rubrics(row: dict[str, Any], found: Counter[str]) -> dict[str, Any]:
    """HealthBench's rows (`prompt`, `rubrics`) and those of "rubrics as rewards" (`question`, `rubric`) under
    open-instruct's names; their other keys stay."""
    key = next((key for key in ("rubrics", "rubric") if isinstance(row.get(key), list)), None)
    if key is None or "dataset" in row:
        return row
    row = {**row, "dataset": "rubric", "ground_truth": row[key]}
    del row[key]
    found[_RUBRICS] += 1
    if "messages" not in row and isinstance(row.get("question"), str):
        row["messages"] = [{"role": "user", "content": row.pop("question")}]
        found[_TEXT_PROMPT] += 1
    return row


def _from_verl(row: dict[str, Any], found: Counter[str]) -> dict[str, Any]:
    """verl's keys under open-instruct's names; its other keys stay."""
    row = dict(row)
    reward = row.get("reward_model")
    if "dataset" not in row and "data_source" in row and isinstance(reward, dict):
        if reward.get("style", "rule") != "rule":
            raise ValueError(
                f"reward_model.style is '{reward['style']}'; only 'rule' can be scored by a rule"
            )
        row["dataset"] = row.pop("data_source")
        row["ground_truth"] = row.pop("reward_model").get("ground_truth")
        found[_VERL] += 1
    if "messages" not in row and "prompt" in row:
        prompt = row.pop("prompt")
        if isinstance(prompt, str):
            prompt = [{"role": "user", "content": prompt}]
            found[_TEXT_PROMPT] += 1
        row["messages"] = prompt
    return row


def _without_answer(messages: list[Any], found: Counter[str]) -> list[Any]:
    """The prompt: all turns but those of the assistant at the end. A user's turn always stays."""
    end = len(messages)
    while end and isinstance(messages[end - 1], dict) and messages[end - 1].get("role") == "assistant":
        end -= 1
    if end < len(messages):
        found[_LAST_ASSISTANT] += 1
    return messages[:end]


def _count(row: Mapping[str, Any], remap: Mapping[str, str], imported: Imported) -> None:
    names = row["dataset"] if isinstance(row["dataset"], list) else [row["dataset"]]
    lower = {name.lower(): to.lower() for name, to in remap.items()}
    verifiers = [find_verifier(name, lower, has_judge=True) for name in names]
    imported.verifiers.update(set(verifiers))
    imported.notes[_SUMMED] += len(names) > 1
    imported.notes[_CODE] += not {"code", "code_stdio"}.isdisjoint(verifiers)
    imported.notes[_LENGTHS] += not {"max_length", "up_to_max_length"}.isdisjoint(verifiers)
    imported.notes[_JUDGES] += not JUDGED.isdisjoint(verifiers)
    imported.notes = +imported.notes
