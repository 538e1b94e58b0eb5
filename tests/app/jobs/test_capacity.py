"""What a machine can offer to a training."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.jobs import capacity
from app.settings import Settings


def settings(**values: object) -> Settings:
    return Settings(database_url="postgresql://x", broker_url="redis://x", **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("chosen", "count"),
    [("", 0), ("0", 1), ("0,1, 3", 3), ("0,-1,2", 1), ("GPU-8932f937,GPU-3d1a", 2), ("NoDevFiles", 0)],
)
def test_cuda_visible_devices_is_counted_where_no_driver_tells(
    chosen: str, count: int, tmp_path: Path
) -> None:
    assert capacity.count_gpus({"CUDA_VISIBLE_DEVICES": chosen}, driver=tmp_path / "none") == count


def test_the_driver_says_how_many_gpus_there_are(tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: A'\necho '  MIG 1g.5gb Device 0: B'\necho 'GPU 1: A'\n")
    tool.chmod(0o755)
    assert capacity.count_gpus({}, program=str(tool)) == 2


def test_without_its_tools_the_drivers_folder_is_counted(tmp_path: Path) -> None:
    gone = str(tmp_path / "none")
    driver = tmp_path / "gpus"
    assert capacity.count_gpus({}, program=gone, driver=tmp_path / "no-driver") == 0
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (driver / name).mkdir(parents=True)
    assert capacity.count_gpus({}, program=gone, driver=driver) == 2


def test_what_an_operator_sets_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert capacity.of_this_machine(settings(max_processes=3)) == capacity.Capacity(1, 3)
    assert capacity.of_this_machine(settings(gpus=4)) == capacity.Capacity(4, capacity.cores())
