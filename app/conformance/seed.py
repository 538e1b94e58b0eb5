"""Makes the objects that the client's generated tests know by id, fresh before each test."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from sqlalchemy import func, text
from sqlalchemy.orm import Session

from app.chat import service as chats
from app.chat.completion import Frame, whole_completion
from app.checkpoints.models import Checkpoint
from app.conformance.rewrites import RECEIVER
from app.db import unit_of_work
from app.evals.models import Eval, EvalOutputItem, EvalRun
from app.evals.service import whole_schema
from app.files import service as files
from app.files.models import File
from app.inference.reply import Choice, Gathered, Piece, Usage
from app.jobs.models import Job
from app.models.models import Model
from app.permissions.models import CheckpointPermission
from app.responses import service as responses
from app.responses.response import finished, new_response
from app.responses.schemas import ResponseCreate
from app.sealing import Sealer
from app.settings import get_settings
from app.storage import get_storage
from app.tables import Base
from app.tenants import service as tenants
from app.tenants.models import Organization, Project, ServiceAccount
from app.uploads import service as uploads
from app.uploads.models import Upload, UploadPart
from app.webhooks.message import new_key, shown_secret
from app.webhooks.models import WebhookEndpoint

ORGANIZATION, PROJECT = "org-conformance", "proj_conformance"
API_KEY = "My API Key"
ADMIN_KEY = "My Admin API Key"
CHECKPOINTS = ("ft:gpt-4o-mini-2024-07-18:org:weather:B7R9VjQd", "ft-AF1WoRqd3aJAHsqc9NY7iL8F")
PERMISSION = "cp_zc4Q7MP6XxulcVzj4MZdwsAB"
JOB = "ft-AF1WoRqd3aJAHsqc9NY7iL8F"
UPLOAD = "upload_abc123"
ENDPOINT = "whe_123"
FILES = {"file-abc123": "fine-tune", "file_id": "fine-tune"}
BASE_MODELS = ("gpt-4o-mini", "gpt-6-astra", "gpt-3.5-turbo-instruct", "model")
COMPLETION = "completion_id"
EVAL, RUN, OUTPUT_ITEM = "eval_id", "run_id", "output_item_id"
RESPONSE = "resp_677efb5139a88190b512bc3fef8e535d"
RESPONSES = (RESPONSE, "response_id", "previous_response_id", "resp_123")
KEEP = timedelta(days=1)
TUNED_MODEL = "ft:gpt-4o-mini:acemeco:suffix:abc123"
PART = b"Example data"
ROW = b'{"messages": [{"role": "user", "content": "Say a"}], "answer": "a"}\n'
GRADER = {"type": "string_check", "name": "a", "input": "i", "reference": "r", "operation": "eq"}


def reset(base_url: str, test: str) -> None:
    """Empties every table and puts the objects there. `test` names the test that comes next."""
    stored = {name: files.store_bytes(name, ROW * 10) for name in FILES}
    get_storage().put_bytes(uploads.part_key(UPLOAD, "string"), PART)
    with unit_of_work() as db:
        _empty(db)
        _add_tenant(db)
        _add_models(db)
        for name, purpose in FILES.items():
            columns = {"bytes": stored[name].size, "sha256": stored[name].sha256, "filename": "train.jsonl"}
            key = stored[name].key
            db.add(File(id=name, project_id=PROJECT, purpose=purpose, storage_key=key, **columns))
        _add_job(db, "paused" if "resume" in test else "running")
        _add_chat(db)
        _add_responses(db, is_active="cancel" in test)
        _add_evals(db)
        _add_upload(db)
        _add_endpoint(db, base_url)
        _add_checkpoints(db)
        _add_organization(db)


def _empty(db: Session) -> None:
    """Deletes row by row: the tables are tiny, and truncating makes new files for each."""
    for table in reversed(Base.metadata.sorted_tables):
        db.execute(table.delete())


def _add_tenant(db: Session) -> None:
    db.add(Organization(id=ORGANIZATION, name="conformance"))
    db.flush()
    db.add(Project(id=PROJECT, organization_id=ORGANIZATION, name="conformance"))
    db.flush()
    tenants.create_key(db, PROJECT, "tests", plaintext=API_KEY)


def _add_models(db: Session) -> None:
    folder = Path(__file__).parents[2] / "workers" / "models" / "cherry_nano"
    for name in BASE_MODELS:
        db.add(Model(id=f"model_{name}", name=name, folder=str(folder)))
    db.add(
        Model(id="model_tuned", name=TUNED_MODEL, project_id=PROJECT, base=BASE_MODELS[0], storage_key="none")
    )


def _add_job(db: Session, status: str) -> None:
    """Makes a job whose worker is there and does nothing: it can be cancelled, paused or resumed."""
    method = {"type": "reinforcement", "reinforcement": {"grader": GRADER, "hyperparameters": {}}}
    lease = {"lease_owner": "nobody", "lease_expires_at": text("now() + interval '1 day'")}
    db.add(
        Job(
            id=JOB,
            project_id=PROJECT,
            status=status,
            model=BASE_MODELS[0],
            training_file="file-abc123",
            validation_file="file-abc123",
            seed=42,
            method=method,
            attempt=1,
            **(lease if status == "running" else {"pause_requested_at": func.now()}),
        )
    )


def _add_chat(db: Session) -> None:
    """Stores a completion that goes on from what the assistant said: other roles are not in the types."""
    completion = whole_completion(
        Frame(COMPLETION, 0, BASE_MODELS[0]), [Choice("b", [], "stop")], Usage(1, 1)
    )
    messages = [{"role": "assistant", "content": "a"}]
    chats.store(db, PROJECT, completion, messages, metadata=None, keep=KEEP)


def _add_responses(db: Session, *, is_active: bool) -> None:
    """Stores responses; the first is in the background, and at work where it is to be cancelled."""
    asked = ResponseCreate(model=BASE_MODELS[1], input="a", background=True)
    begun, gathered = new_response(asked, asked.model), Gathered()
    gathered.add([Piece(0, "b", None, "stop")])
    for name in RESPONSES:
        is_over = name != RESPONSE or not is_active
        response = finished(begun, "msg_1", gathered, Usage(1, 1)) if is_over else begun
        responses.store(db, PROJECT, {**response, "id": name}, asked.items(), keep=KEEP)


def _add_evals(db: Session) -> None:
    """Makes an eval with a run that waits, so that it can be cancelled, and an item that was judged."""
    config = {"type": "custom", "schema": whole_schema({}, with_sample=True)}
    criteria = [{"id": "a-1", **GRADER}]
    of = Eval(
        id=EVAL, project_id=PROJECT, name="letters", data_source_config=config, testing_criteria=criteria
    )
    db.add(of)
    db.flush()
    rows = {"type": "file_content", "content": [{"item": {"foo": "bar"}}]}
    source = {"type": "jsonl", "source": rows}
    db.add(EvalRun(id=RUN, eval_id=EVAL, project_id=PROJECT, name="a run", data_source=source, total=1))
    db.flush()
    result = {"name": "a-1", "type": "string_check", "score": 1.0, "passed": True}
    place = {"run_id": RUN, "seq": 1, "datasource_item_id": 0, "datasource_item": {"foo": "bar"}}
    db.add(EvalOutputItem(id=OUTPUT_ITEM, **place, status="pass", results=[result], sample={}))
    db.flush()


def _add_checkpoints(db: Session) -> None:
    """Makes the checkpoints that permissions know by these names; one of them is shared already."""
    for step, name in enumerate(CHECKPOINTS, start=1):
        columns = {
            "epoch": 1,
            "attempt": 1,
            "storage_key": "none",
            "manifest": {"files": {}},
            "kl": 0.0,
            "kl_stderr": 0.0,
        }
        db.add(Checkpoint(id=f"ftckpt_{step}", job_id=JOB, step=step, model_name=name, **columns))
    db.add(Project(id="string", organization_id=ORGANIZATION, name="another"))
    db.flush()
    db.add(CheckpointPermission(id=PERMISSION, checkpoint_id="ftckpt_1", project_id="string"))


def _add_organization(db: Session) -> None:
    """Makes what the tests of the admin API manage: a project with a service account and its key."""
    tenants.create_admin_key(db, ORGANIZATION, "tests", plaintext=ADMIN_KEY)
    deletable = tenants.create_admin_key(db, ORGANIZATION, "another").row
    deletable.id = "key_id"
    db.add(Project(id="project_id", organization_id=ORGANIZATION, name="managed"))
    db.flush()
    db.add(ServiceAccount(id="service_account_id", project_id="project_id", name="ci", role="member"))
    db.flush()
    key = tenants.create_key(db, "project_id", "managed", service_account_id="service_account_id").row
    key.id = "api_key_id"


def _add_upload(db: Session) -> None:
    """Makes an upload that lacks nothing but its part, so that completing it with the part succeeds."""
    db.add(
        Upload(
            id=UPLOAD,
            project_id=PROJECT,
            filename="data.bin",
            purpose="assistants",
            bytes=len(PART),
            mime_type="application/octet-stream",
            expires_at=func.now() + uploads.LIFE,
            clear_at=func.now() + uploads.LIFE + uploads.CLEAR_AFTER,
        )
    )
    db.flush()
    db.add(UploadPart(id="string", upload_id=UPLOAD, bytes=len(PART)))


def _add_endpoint(db: Session, base_url: str) -> None:
    key = new_key()
    db.add(
        WebhookEndpoint(
            id=ENDPOINT,
            project_id=PROJECT,
            name="tests",
            url=base_url + RECEIVER,
            event_types=["batch.completed"],
            secret=Sealer(get_settings()).seal(key, ENDPOINT),
            secret_hint=f"whsec_...{shown_secret(key)[-4:]}",
        )
    )
