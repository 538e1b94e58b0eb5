"""What the sampler takes of a GPU, and what it leaves to trainings."""

from __future__ import annotations

import math
import os
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from app.devices.claims import Claim, claims_of, share_of_trainings
from app.devices.listing import Device
from app.errors import ServerError
from app.settings import Settings
from workers.devices.sampler_part import fitting, idle_seconds, share_of, take_part

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
VISIBLE = "CUDA_VISIBLE_DEVICES"


@pytest.fixture(autouse=True)
def no_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv(VISIBLE, "unchanged")


def settings(tmp_path: Path, **values: object) -> Settings:
    own = {"device_folder": tmp_path / "devices", **values}
    return Settings(database_url="postgresql://x", broker_url="redis://x", **own)  # type: ignore[arg-type]


def let_go(kept: list[Claim | int]) -> None:
    for each in kept:
        each.close() if isinstance(each, Claim) else os.close(each)


def test_on_a_shared_gpu_a_training_has_what_the_sampler_leaves(tmp_path: Path) -> None:
    given = settings(tmp_path, devices="GPU-a,GPU-b")
    kept = take_part(given)
    assert os.environ[VISIBLE] == "GPU-b"  # trainings take it last
    assert share_of_trainings(given, {VISIBLE: "GPU-b"}) == 0.75
    assert share_of_trainings(given, {VISIBLE: "GPU-a,GPU-b"}) == 0.75
    assert share_of_trainings(given, {VISIBLE: "GPU-a"}) == 1
    assert share_of_trainings(given, {}) == 1
    let_go(kept)
    assert share_of_trainings(given, {VISIBLE: "GPU-b"}) == 1
    said = settings(tmp_path, trainer_gpu_share=0.6)
    assert share_of_trainings(said, {VISIBLE: "GPU-b"}) == 0.6


def test_a_sampler_with_a_gpu_of_its_own_holds_it(tmp_path: Path) -> None:
    given = settings(tmp_path, devices="GPU-a,GPU-b", sampler_gpu="GPU-b")
    kept = take_part(given)
    assert os.environ[VISIBLE] == "GPU-b"
    holder = claims_of(given).holder(Device("GPU-b", "gpu"))
    assert holder
    assert holder.what == "the sampler"
    let_go(kept)


def test_a_sampler_on_the_cpu_sees_no_gpu_and_one_without_a_driver_what_there_is(tmp_path: Path) -> None:
    assert take_part(settings(tmp_path, devices="cpu")) == []
    assert os.environ[VISIBLE] == "unchanged"
    assert take_part(settings(tmp_path, devices="GPU-a", sampler_device="cpu")) == []
    assert os.environ[VISIBLE] == ""


def test_shares_and_patience_by_the_device(tmp_path: Path) -> None:
    assert share_of(settings(tmp_path)) == 0.25
    assert share_of(settings(tmp_path, sampler_gpu="1")) == 0.95
    assert share_of(settings(tmp_path, sampler_gpu="1", sampler_gpu_share=0.5)) == 0.5
    assert idle_seconds(settings(tmp_path), GPU) == 300
    assert idle_seconds(settings(tmp_path), CPU) == math.inf
    assert idle_seconds(settings(tmp_path, sampler_idle=timedelta(0)), GPU) == math.inf
    assert idle_seconds(settings(tmp_path, sampler_idle=timedelta(seconds=9)), CPU) == 9


def test_a_model_that_does_not_fit_is_told_with_what_can_be_done() -> None:
    told = r"'big' does not fit into the 25% .* \(CHERRY_SAMPLER_GPU_SHARE\)"
    with pytest.raises(ServerError, match=told), fitting("big", 0.25):
        raise torch.OutOfMemoryError("CUDA out of memory")
