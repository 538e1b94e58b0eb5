"""Which devices trainings may have, as the driver, the environment and the operator say."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from app.devices import listing
from app.devices.listing import DeviceUnknown, of_driver, of_service, sampler_device, visible
from app.devices.needs import most_gpus, most_processes, need_of
from app.settings import Settings

LISTED = """\
GPU 0: NVIDIA H200 (UUID: GPU-aaaa1111-0000-0000-0000-000000000000)
GPU 1: NVIDIA H200 (UUID: GPU-bbbb2222-0000-0000-0000-000000000000)
GPU 2: NVIDIA A100-SXM4-40GB (UUID: GPU-cccc3333-0000-0000-0000-000000000000)
  MIG 3g.20gb     Device  0: (UUID: MIG-dddd4444-0000-0000-0000-000000000000)
  MIG 3g.20gb     Device  1: (UUID: MIG-eeee5555-0000-0000-0000-000000000000)
"""
A, B, D, E = (
    f"{name}-0000-0000-0000-000000000000"
    for name in ("GPU-aaaa1111", "GPU-bbbb2222", "MIG-dddd4444", "MIG-eeee5555")
)


def settings(**values: object) -> Settings:
    return Settings(database_url="postgresql://x", broker_url="redis://x", **values)  # type: ignore[arg-type]


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine with two whole GPUs and one that is cut in two."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho asked >> {tmp_path}/asked\ncat <<'EOF'\n{LISTED}EOF\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    yield tmp_path
    listing._of_driver.cache_clear()


def names(found: tuple[listing.Device, ...]) -> list[str]:
    return [device.name for device in found]


def test_the_driver_is_asked_once_and_a_gpu_cut_into_slices_is_those(driver: Path) -> None:
    assert names(of_driver()) == [A, B, D, E]
    assert names(of_driver()) == [A, B, D, E]
    assert (driver / "asked").read_text() == "asked\n"
    assert of_driver()[0].label == "NVIDIA H200"
    assert of_driver()[2].label == "NVIDIA A100-SXM4-40GB MIG 3g.20gb"


@pytest.mark.parametrize(
    ("chosen", "found"),
    [
        ("", []),
        ("1,0", [B, A]),
        ("GPU-bbbb", [B]),
        (E, [E]),
        ("2", [D]),  # a process sees one slice of a GPU that is cut
        ("0,7,1", [A]),  # by CUDA's rule
        ("0,0", [A]),
        ("MIG-GPU-cccc/1/0", ["MIG-GPU-cccc/1/0"]),
    ],
)
def test_cuda_visible_devices_may_have_numbers_uuids_and_slices(
    driver: Path, chosen: str, found: list[str]
) -> None:
    assert names(visible({"CUDA_VISIBLE_DEVICES": chosen})) == found
    assert names(of_service(settings(), {"CUDA_VISIBLE_DEVICES": chosen})) == found


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, [A, B, D, E]),
        ({"devices": "1"}, [B]),
        ({"devices": "GPU-aaaa,cpu:0,cpu:1"}, [A, "cpu:0", "cpu:1"]),
        ({"devices": "cpu,cpu"}, ["cpu:0", "cpu:1"]),
        ({"gpus": 1}, [A]),
        ({"gpus": 0, "devices": "0,cpu"}, ["cpu:1"]),
        ({"sampler_gpu": "0"}, [B, D, E]),
        ({"sampler_gpu": "GPU-bbbb", "gpus": 1}, [A]),
    ],
)
def test_an_operator_says_which_devices_trainings_have(
    driver: Path, given: Mapping[str, object], found: list[str]
) -> None:
    assert names(of_service(settings(**given))) == found


def test_a_device_that_the_operator_names_must_be_there(driver: Path) -> None:
    with pytest.raises(
        DeviceUnknown, match=r"CHERRY_DEVICES names '9', which is not there. The driver has 0"
    ):
        of_service(settings(devices="0,9"))


def test_without_a_driver_names_are_taken_at_their_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert names(of_service(settings(devices="3,GPU-x"), {})) == ["3", "GPU-x"]
    assert names(of_service(settings(gpus=2), {})) == ["0", "1"]
    assert of_service(settings(), {}) == ()


def test_the_folder_of_the_driver_tells_uuids_too(tmp_path: Path) -> None:
    for bus, uuid in (("0000:01:00.0", "GPU-a"), ("0000:02:00.0", "GPU-b")):
        (tmp_path / bus).mkdir()
        (tmp_path / bus / "information").write_text(f"Model: \t NVIDIA L4\nGPU UUID:\t {uuid}\n")
    found = of_driver("no-such-program", tmp_path)
    assert [(device.name, device.label) for device in found] == [
        ("GPU-a", "NVIDIA L4"),
        ("GPU-b", "NVIDIA L4"),
    ]


def test_the_sampler_has_its_own_gpu_or_the_one_that_trainings_take_last(driver: Path) -> None:
    shared = sampler_device(settings(devices="0,1"))
    assert shared
    assert shared.name == B
    own = sampler_device(settings(sampler_gpu="0"))
    assert own
    assert own.name == A
    assert sampler_device(settings(sampler_device="cpu")) is None
    assert sampler_device(settings(devices="cpu")) is None


@pytest.mark.parametrize(
    ("devices", "resources", "candidates", "number"),
    [
        ("0,1,cpu", None, [A, B], 1),
        ("0,1,cpu", {"gpus": 2}, [A, B], 2),
        ("0,1,cpu", {"processes": 2}, ["cpu:2"], 2),
        ("cpu,cpu", None, ["cpu:0", "cpu:1"], 1),
        ("0", {"processes": 2}, [], 0),
        (f"{D},{E}", {"gpus": 1}, [D, E], 1),
        (f"0,{D},1", {"gpus": 2}, [A, B], 2),
    ],
)
def test_what_a_job_needs(
    driver: Path, devices: str, resources: dict[str, int] | None, candidates: list[str], number: int
) -> None:
    need = need_of(resources, of_service(settings(devices=devices)))
    assert (names(need.candidates), need.number) == (candidates, number)


def test_a_job_of_several_processes_has_whole_gpus_and_no_more_than_seats(driver: Path) -> None:
    assert most_gpus(of_driver()) == 2
    assert most_gpus(of_service(settings(devices=f"{D},{E}"))) == 1
    assert most_processes(of_service(settings(devices="cpu,cpu,cpu")), 8) == 3
    assert most_processes(of_driver(), 8) == 8
