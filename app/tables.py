"""Imports every table once, for Alembic and for relationships by name."""

from app.checkpoints.models import Checkpoint
from app.db import Base
from app.events.models import JobEvent, JobMetrics
from app.files.models import File
from app.idempotency.models import IdempotencyKey
from app.jobs.models import Job
from app.models.models import Model
from app.rollouts.models import Rollout
from app.tenants.models import ApiKey, Organization, Project
from app.uploads.models import Upload, UploadPart
from app.webhooks.models import WebhookDelivery, WebhookEndpoint, WebhookEvent

__all__ = [
    "ApiKey",
    "Base",
    "Checkpoint",
    "File",
    "IdempotencyKey",
    "Job",
    "JobEvent",
    "JobMetrics",
    "Model",
    "Organization",
    "Project",
    "Rollout",
    "Upload",
    "UploadPart",
    "WebhookDelivery",
    "WebhookEndpoint",
    "WebhookEvent",
]
