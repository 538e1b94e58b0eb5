"""Fixtures for workers: a tiny model, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from tests.tiny_model import make_tiny_model
from tests.workers.rows import make_model


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder; nobody writes to it."""
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def tiny_model(db: Session, tiny_folder: Path) -> Path:
    """The tiny model, registered as "tiny"."""
    make_model(db, str(tiny_folder))
    return tiny_folder
