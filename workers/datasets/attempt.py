"""The data sets that wait to be made, as the work of a worker that validates."""

from __future__ import annotations

from app.datasets.runs import LEASES
from workers.leased import LeasedWork

DATASETS = LeasedWork(
    LEASES,
    "workers.datasets.make:make_claimed",
    "dataset",
    "the work on the data set",
    "Narrow 'filter', or lower 'max_rows'.",
)
