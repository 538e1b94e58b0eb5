"""A tiny model for the engine's tests; one thread, so that timings and bits do not depend on the machine."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import settings

from tests.tiny_model import make_tiny_model
from tests.workers.training.support import make_config
from workers.training.model.policy import Policy

# A property takes as long as the machine lets it, the first example also for its kernels to be compiled.
settings.register_profile("engine", parent=settings(), deadline=None)
settings.load_profile("engine")


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with nearly uniform predictions."""
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def sharp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model that depends on what it reads."""
    return make_tiny_model(tmp_path_factory.mktemp("sharp"), scale=0.3)


@pytest.fixture
def lora_policy(sharp: Path) -> Policy:
    """A LoRA policy that has moved away from its base."""
    return moved(Policy.load(make_config(sharp)))


@pytest.fixture
def full_policy(sharp: Path) -> Policy:
    """A policy with every weight trained, away from its base. Asked for by `request.getfixturevalue`."""
    return moved(Policy.load(make_config(sharp, adapter="full")))


def moved(policy: Policy) -> Policy:
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in policy.trained().values():
            weight += 0.05 * torch.randn(weight.shape, generator=generator)
    policy.sync_rollout()
    return policy
