"""The Celery app of worker processes: `python -m celery -A workers.celery_app worker --queues train`."""

from __future__ import annotations

import warnings
from typing import Any

from celery import signals
from celery.platforms import SecurityWarning

from app.db import limit_statements
from app.logs import configure_logging
from app.queue import get_celery
from app.settings import get_settings

# Celery warns root of pickled messages; ours are JSON and carry nothing.
warnings.filterwarnings("ignore", category=SecurityWarning)

limit_statements(get_settings().database_work_limit)
celery = get_celery()
celery.conf.include = ["workers.tasks"]


@signals.setup_logging.connect  # type: ignore[untyped-decorator]
def log_as_we_do(**_: Any) -> None:
    """In place of Celery's own logging."""
    settings = get_settings()
    configure_logging(settings.log_level, settings.log_format)
