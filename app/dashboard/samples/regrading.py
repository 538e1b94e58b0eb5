"""Starts regrades from a form, and finds what a page shows of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError
from sqlalchemy.orm import Session

from app.dashboard.samples import queries
from app.dashboard.samples.wanted import SPLITS
from app.errors import BadRequest
from app.jobs.models import Job
from app.regrades import service as regrades
from app.regrades.models import Regrade, RegradeResult
from app.regrades.schemas import JobRegradeCreate
from app.rollouts.models import Rollout
from app.rollouts.service import Place, Split, cursor_of, place_of
from app.settings import get_settings
from graders import strict_json

LONGEST_GRADER = 262_144
"""Characters of a grader that a form may send."""
SCOPES = {
    "step": "the completions of this split at this step",
    "split": "all completions of this split",
    "all": "all completions of the job, but those of a control",
}


class Asked(NamedTuple):
    """What a form says: the grader as JSON, and which completions it shall grade."""

    grader: str
    scope: str
    split: str
    step: int

    def request(self) -> JobRegradeCreate:
        """Returns it as the API has it. Raises `BadRequest`."""
        if len(self.grader) > LONGEST_GRADER:
            raise BadRequest(f"The grader is longer than {LONGEST_GRADER:,} characters.", param="grader")
        try:
            grader = strict_json.loads(self.grader.strip())
        except strict_json.StrictJsonError as fault:
            raise BadRequest(f"The grader is no valid JSON: {fault.message}.", param="grader") from None
        if not isinstance(grader, dict):
            raise BadRequest("A grader is a JSON object, in braces.", param="grader")
        if self.scope not in SCOPES or self.split not in SPLITS:
            raise BadRequest("Choose which completions shall be graded.", param="scope")
        step = self.step if self.scope == "step" else None
        split = None if self.scope == "all" else self.split
        try:
            return JobRegradeCreate(grader=grader, split=split, first_step=step, last_step=step)
        except ValidationError as fault:
            raise BadRequest(str(fault.errors()[0]["msg"]), param="step") from None


class Judged(NamedTuple):
    """A completion with both of its grades; `rollout` is None where it is gone."""

    result: RegradeResult
    place: Place | None
    split: Split
    rollout: Rollout | None


def start(db: Session, job: Job, asked: Asked) -> Regrade:
    """Starts a regrade, as the API does. Raises `BadRequest` or `TooManyJobs`."""
    most = get_settings().max_active_jobs
    return regrades.create_of_job(db, job.project_id, job.id, asked.request(), max_active=most)


def judged(db: Session, regrade: Regrade, results: Sequence[RegradeResult]) -> list[Judged]:
    """Returns results with the completions that they are about."""
    places = [(one, one.ref.partition("-")[0], place_of(one.ref)) for one in results]
    found: dict[str, Rollout] = {}
    for split in {split for _, split, _ in places if split in SPLITS}:
        wanted = [place for _, name, place in places if name == split and place is not None]
        rows: Mapping[Any, Rollout] = queries.at_places(db, regrade.job_id or "", split, wanted)
        found |= {cursor_of(rollout): rollout for rollout in rows.values()}
    return [Judged(one, place, split, found.get(one.ref)) for one, split, place in places]  # type: ignore[arg-type]
