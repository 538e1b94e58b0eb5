"""Deterministic runs: what may not run is named, and nothing stays switched on."""

from __future__ import annotations

import pytest
import torch

from workers.training.base.determinism import deterministic, only_deterministic
from workers.training.base.errors import NotDeterministic

CPU = torch.device("cpu")


def put() -> None:
    """An operation without a deterministic implementation, on any device."""
    torch.zeros(3).put_(torch.tensor([0, 1]), torch.ones(2))


def test_an_operation_that_cannot_be_deterministic_is_named() -> None:
    told = "the operation 'put_' has no deterministic"
    with pytest.raises(NotDeterministic, match=told) as raised, only_deterministic():
        put()
    assert raised.value.code == "not_deterministic"
    assert raised.value.operation == "put_"
    assert not torch.are_deterministic_algorithms_enabled()


def test_other_faults_go_through_as_they_are() -> None:
    with pytest.raises(RuntimeError, match="size of tensor"), only_deterministic():
        torch.ones(2) + torch.ones(3)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("wanted", [True, False])
def test_on_a_cpu_it_is_allowed_and_changes_nothing(wanted: bool) -> None:
    with deterministic(wanted, CPU):
        assert not torch.are_deterministic_algorithms_enabled()
        put()


def test_on_a_gpu_it_is_switched_on_and_off_again() -> None:
    with deterministic(True, torch.device("cuda", 0)):  # nothing of CUDA is started
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cudnn.deterministic
        torch.ones(2) @ torch.ones(2)
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.deterministic
