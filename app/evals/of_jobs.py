"""The evals that fine-tuning jobs make: one for each reinforcement job, with a run for each validation.

They are listed as all others, with the metadata `fine_tuning_job`. Deleting one changes nothing of the job,
which then writes no more runs of it.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import delete, func, insert, select
from sqlalchemy.orm import Session

from app.evals import criteria
from app.evals.answers import Answer, told
from app.evals.models import Eval, EvalOutputItem, EvalRun
from app.evals.service import whole_schema
from app.evals.tally import Tally
from app.ids import random_id
from app.jobs.models import Job
from app.webhooks import service as webhooks
from graders import Grade, parse_grader
from graders.types import Sample, TokenUsage, add_usages

JOB, STEP = "fine_tuning_job", "step"
"""Names in the metadata."""
ITEM = {"type": "object", "properties": {"messages": {"type": "array"}}, "required": ["messages"]}


class Judged(NamedTuple):
    """An answer of a validation, and its grade.

    Attributes:
        place: 0-based place of the row in its file.
        item: the row.
        text: what was answered.
        tokens: how many were read and written.
    """

    place: int
    item: Mapping[str, Any]
    text: str
    finish_reason: str
    tokens: TokenUsage
    grade: Grade


def make(db: Session, job: Job) -> None:
    """Makes the eval of a new reinforcement job, whose criterion is the job's grader."""
    grader = dict(job.method["reinforcement"]["grader"])
    if grader["type"] == "text_similarity" and grader.get("pass_threshold") is None:  # it must be told
        grader["pass_threshold"] = criteria.HALF
    row = Eval(
        id=random_id("eval_"),
        project_id=job.project_id,
        name=f"Fine-tuning job {job.id}",
        meta={JOB: job.id},
        data_source_config={"type": "custom", "schema": whole_schema(ITEM, with_sample=True)},
        testing_criteria=[{"id": f"{grader['name']}-{uuid.uuid4()}", **grader}],
        job_id=job.id,
    )
    db.add(row)
    db.flush()
    job.eval_id = row.id


def write_validation(
    db: Session, job: Job, step: int, answers: Sequence[Judged], sampling: Mapping[str, Any]
) -> None:
    """Writes the run of a validation, in place of what an earlier attempt at the step wrote, with its id.

    Webhooks tell of it once. Nothing is written where the eval was deleted. `sampling` holds the parameters
    of a chat call.
    """
    of = db.get(Eval, job.eval_id) if job.eval_id else None
    if of is None:
        return
    earlier = delete(EvalRun).where(EvalRun.eval_id == of.id, EvalRun.job_step == step)
    written = db.scalars(earlier.returning(EvalRun.id)).first()
    run = _run(written or random_id("evalrun_"), job, of, step, len(answers), sampling)
    db.add(run)
    db.flush()
    (criterion,) = of.testing_criteria
    spec = parse_grader(criteria.grader_of(criterion))
    tally, rows = Tally(run, [criterion["id"]]), []
    for seq, one in enumerate(answers, 1):
        results = [criteria.result(criterion["id"], spec, one.grade)]
        usage = add_usages([one.grade.usage, {run.model: one.tokens}])
        tally.add(criteria.status_of(results), results, usage)
        rows.append(_item(run, seq, one, results, sampling))
    if rows:
        db.execute(insert(EvalOutputItem), rows)
    for name, value in tally.columns().items():
        setattr(run, name, value)
    db.flush()
    if written is None:
        webhooks.emit(db, job.project_id, "eval.run.succeeded", run.id, job_id=job.id)


def name_model(db: Session, job: Job, step: int, name: str) -> None:
    """Says what the model of a validation is called, now that it is a checkpoint with a name."""
    mine = (EvalRun.eval_id == job.eval_id, EvalRun.job_step == step)
    run = db.scalars(select(EvalRun).where(*mine)).one_or_none() if job.eval_id else None
    if run is None:
        return
    run.data_source = {**run.data_source, "model": name}
    run.per_model_usage = [
        {**one, "model_name": name} if one["model_name"] == run.model else one for one in run.per_model_usage
    ]
    run.model = name
    db.flush()


def _run(run_id: str, job: Job, of: Eval, step: int, total: int, sampling: Mapping[str, Any]) -> EvalRun:
    source = {
        "type": "completions",
        "model": job.model,
        "source": {"type": "file_id", "id": job.validation_file or job.training_file},
        "input_messages": {"type": "item_reference", "item_reference": "item.messages"},
        "sampling_params": dict(sampling),
    }
    return EvalRun(
        id=run_id,
        eval_id=of.id,
        project_id=job.project_id,
        status="completed",
        name=f"Step {step}",
        model=job.model,
        meta={JOB: job.id, STEP: str(step)},
        data_source=source,
        job_step=step,
        total=total,
        started_at=func.now(),
        finished_at=func.now(),
    )


def _item(
    run: EvalRun, seq: int, one: Judged, results: list[dict[str, Any]], sampling: Mapping[str, Any]
) -> dict[str, Any]:
    answer = Answer(Sample(one.text, one.finish_reason), usage=one.tokens)
    sample = told(one.item.get("messages", ()), answer, sampling)
    del sample["model"]  # it has no name yet; the run is told it (`name_model`)
    return {
        "id": random_id("outputitem_"),
        "run_id": run.id,
        "seq": seq,
        "datasource_item_id": one.place,
        "datasource_item": dict(one.item),
        "status": criteria.status_of(results),
        "results": results,
        "sample": sample,
    }
