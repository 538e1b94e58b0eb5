"""A tiny model for rollouts from a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny_model import make_tiny_model


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with nearly uniform predictions."""
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))
