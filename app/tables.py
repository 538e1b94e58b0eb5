"""Imports every table once, for Alembic and for relationships by name."""

from app.cards.models import CardKey, RunCard
from app.chat.models import StoredChat
from app.checkpoints.models import Checkpoint
from app.datasets.models import Dataset, DatasetSource
from app.db import Base
from app.erasures.models import Erasure
from app.evals.models import Eval, EvalOutputItem, EvalRun
from app.events.models import JobEvent, JobMetrics
from app.exports.models import Export
from app.feedback.models import Feedback
from app.files.models import File, LooseBytes
from app.grading.paces import JudgePace
from app.idempotency.models import IdempotencyKey
from app.jobs.models import Job
from app.left_places import LeftPlace
from app.models.models import Model, ModelAlias
from app.permissions.models import CheckpointPermission
from app.preflights.models import Preflight
from app.regrades.models import Regrade, RegradeResult
from app.responses.models import StoredResponse
from app.rollouts.models import Rollout
from app.tenants.models import (
    AdminApiKey,
    ApiKey,
    DashboardSession,
    Organization,
    Project,
    ServiceAccount,
)
from app.uploads.models import Upload, UploadPart
from app.webhooks.models import WebhookDelivery, WebhookEndpoint, WebhookEvent

__all__ = [
    "AdminApiKey",
    "ApiKey",
    "Base",
    "CardKey",
    "Checkpoint",
    "CheckpointPermission",
    "DashboardSession",
    "Dataset",
    "DatasetSource",
    "Erasure",
    "Eval",
    "EvalOutputItem",
    "EvalRun",
    "Export",
    "Feedback",
    "File",
    "IdempotencyKey",
    "Job",
    "JobEvent",
    "JobMetrics",
    "JudgePace",
    "LeftPlace",
    "LooseBytes",
    "Model",
    "ModelAlias",
    "Organization",
    "Preflight",
    "Project",
    "Regrade",
    "RegradeResult",
    "Rollout",
    "RunCard",
    "ServiceAccount",
    "StoredChat",
    "StoredResponse",
    "Upload",
    "UploadPart",
    "WebhookDelivery",
    "WebhookEndpoint",
    "WebhookEvent",
]
