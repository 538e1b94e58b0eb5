"""The leases of data sets: they wait among the validations of jobs, and their projects take turns there."""

from __future__ import annotations

from app import queue
from app.datasets.models import Dataset
from app.jobs.leases import Leases
from app.tenants.models import Project

LEASES = Leases(Dataset, Project.last_validation_at, queue.wake_validator)
