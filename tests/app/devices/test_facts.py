"""What the driver tells of GPUs, and what `cherry doctor` makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.devices import facts, listing
from app.devices.claims import Claim, Claims
from app.devices.facts import GpuFacts, describe, newest_cuda, of_gpus, torch_fault
from app.devices.listing import Device


@pytest.fixture
def program(tmp_path: Path) -> str:
    """A driver's tool that answers as `nvidia-smi` does."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        "#!/bin/sh\n"
        'case "$1" in\n'
        "-L) echo 'GPU 0: NVIDIA H200 (UUID: GPU-a)'; echo 'GPU 1: NVIDIA L4 (UUID: GPU-b)';;\n"
        "--query*) echo 'GPU-a, NVIDIA H200, 143771, 580.65.06'\n"
        "echo 'GPU-b, NVIDIA L4, [N/A], 580.65.06';;\n"
        "*) echo '| NVIDIA-SMI 580.65.06   Driver Version: 580.65.06   CUDA Version: 13.0 |';;\n"
        "esac\n"
    )
    tool.chmod(0o755)
    return str(tool)


def test_the_driver_tells_name_memory_and_version_of_those_that_are_seen(program: str) -> None:
    assert of_gpus({"CUDA_VISIBLE_DEVICES": "0"}, program) == [
        GpuFacts("NVIDIA H200", 143771 << 20, "580.65.06")
    ]
    assert of_gpus({"CUDA_VISIBLE_DEVICES": "GPU-b"}, program) == []  # it tells no memory
    assert newest_cuda(program) == (13, 0)
    assert newest_cuda("no-such-program") is None
    listing._of_driver.cache_clear()


@pytest.mark.parametrize(
    ("built_for", "finds", "gpus", "newest", "says"),
    [
        (None, 0, 0, None, None),
        ("13.0", 2, 2, (13, 0), None),
        ("12.8", 2, 2, (13, 0), None),
        (None, 0, 2, (13, 0), "built for the CPU only"),
        ("13.0", 0, 2, (12, 4), "torch is built for CUDA 13.0, and the driver runs 12.4 at most"),
        ("13.0", 1, 2, None, "the driver has 2 GPUs, and torch finds 1"),
    ],
)
def test_torch_and_driver_are_compared(
    built_for: str | None, finds: int, gpus: int, newest: tuple[int, int] | None, says: str | None
) -> None:
    found = torch_fault(built_for, finds, gpus, newest)
    assert found is None if says is None else says in str(found)


def test_gpus_that_are_named_where_the_driver_tells_of_none_are_warned_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seat, named = Device("cpu:0", "cpu"), [Device("0", "gpu"), Device("3", "gpu")]
    monkeypatch.setattr(listing, "of_driver", tuple)
    assert facts.why_unseen([seat]) is None
    told = facts.why_unseen([seat, *named])
    assert told
    assert told.startswith("GPUs 0, 3 are to be used, but this machine shows no GPU")
    monkeypatch.setattr(listing, "of_driver", lambda: (Device("GPU-a", "gpu", "NVIDIA H200", 0),))
    assert facts.why_unseen(named) is None


def test_each_device_is_described_with_its_holder_and_the_samplers_share(tmp_path: Path) -> None:
    claims, device = Claims(tmp_path), Device("cpu:0", "cpu")
    assert describe([device], claims) == ["cpu:0: free"]
    held = claims.take([device], 1, "job ftjob-1")
    assert isinstance(held, Claim)
    (line,) = describe([device], claims)
    assert line.startswith("cpu:0: taken by job ftjob-1 (process ")
    held.close()
    gpu = Device("GPU-a", "gpu", "NVIDIA H200", 0)
    claims.mark_sampler(gpu, 0.25)
    (line,) = describe([gpu], claims)
    assert line == "GPU 0 GPU-a (NVIDIA H200): free, of whose memory the sampler takes up to 25%"
