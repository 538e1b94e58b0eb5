"""Says how a tuned model is called."""

from __future__ import annotations

import re

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.ids import random_id
from app.jobs.models import Job
from app.tenants.models import Organization, Project


def tuned_model_name(db: Session, job: Job) -> str:
    """Makes a new name, ft:BASE:ORGANISATION:SUFFIX:8 CHARACTERS."""
    query = select(Organization.name).join(Project, Project.organization_id == Organization.id)
    organization = db.scalars(query.where(Project.id == job.project_id)).one()
    base = job.model.split(":")[1] if job.model.startswith("ft:") else job.model
    return f"ft:{base}:{slug(organization) or 'org'}:{slug(job.suffix or '')}:{random_id('', 8)}"


def slug(text: str) -> str:
    """Keeps lower-case letters, digits and hyphens: nothing that a model's name or a path gives a meaning."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
