"""Devices are one training's at a time, over processes and through their deaths."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.devices.claims import HELD, Claim, Claims, DevicesLost, DevicesUnusable, claims_of, join
from app.devices.listing import Device
from app.settings import Settings
from tests.e2e.service import wait_for

ROOT = Path(__file__).parents[3]
TWO = (Device("GPU-a", "gpu"), Device("GPU-b", "gpu"))
HOLD = """
import os, subprocess, sys
from pathlib import Path
from app.devices.claims import Claims
from app.devices.listing import Device

two = [Device("GPU-a", "gpu"), Device("GPU-b", "gpu")]
claim = Claims(Path(sys.argv[1])).take(two, int(sys.argv[2]), "job ftjob-1")
joins = "from app.devices.claims import join; join(); print('joined', flush=True); input()"
command = [sys.executable, "-c", joins]
env = {**os.environ, **claim.environment()}
pipe = subprocess.PIPE
child = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=env, text=True)
child.stdout.readline()
print(child.pid, flush=True)
sys.stdin.read()
"""


@contextmanager
def holding(folder: Path, number: int) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that holds devices, with a child that has joined it."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", HOLD, str(folder), str(number)]
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as holder:
        assert holder.stdout
        child = int(holder.stdout.readline())
        try:
            yield holder, child
        finally:
            for pid in (holder.pid, child):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue


def take(folder: Path, number: int = 1) -> Claim | int:
    return Claims(folder).take(TWO, number, "job ftjob-2")


def test_a_device_is_free_when_its_last_holder_was_killed(tmp_path: Path) -> None:
    with holding(tmp_path, 2) as (holder, child):
        assert take(tmp_path) == 0
        found = Claims(tmp_path).holder(TWO[0])
        assert found
        assert (found.what, found.pid) == ("job ftjob-1", holder.pid)
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        assert take(tmp_path) == 0  # the training itself is still there
        os.kill(child, signal.SIGKILL)
        claim = wait_for(lambda: isinstance(found := take(tmp_path, 2), Claim) and found, what="the devices")
        assert claim.names == ["GPU-a", "GPU-b"]
        claim.close()
    assert Claims(tmp_path).holder(TWO[0]) is None


def test_all_are_taken_or_none(tmp_path: Path) -> None:
    one = take(tmp_path)
    assert isinstance(one, Claim)
    assert take(tmp_path, 2) == 1
    other = take(tmp_path)  # the refusal has let go of what it had
    assert isinstance(other, Claim)
    assert (one.names, other.names) == (["GPU-a"], ["GPU-b"])
    one.close()
    other.close()
    both = take(tmp_path, 2)
    assert isinstance(both, Claim)
    both.close()


def test_many_that_want_two_at_once_never_have_one_each(tmp_path: Path) -> None:
    def attempt(_: int) -> int:
        claim = Claims(tmp_path).take(TWO, 2, "job")
        if not isinstance(claim, Claim):
            return 0
        assert len(claim.names) == 2
        claim.close()
        return 1

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(200))) >= 1
    last = take(tmp_path, 2)
    assert isinstance(last, Claim)
    last.close()


def test_a_training_sees_its_gpus_and_no_other(tmp_path: Path) -> None:
    claim = Claims(tmp_path).take((*TWO, Device("cpu:0", "cpu")), 3, "job")
    assert isinstance(claim, Claim)
    assert claim.environment()["CUDA_VISIBLE_DEVICES"] == "GPU-a,GPU-b"
    claim.close()
    seat = Claims(tmp_path).take([Device("cpu:0", "cpu")], 1, "job")
    assert isinstance(seat, Claim)
    assert seat.environment()["CUDA_VISIBLE_DEVICES"] == ""
    seat.close()
    nothing = Claims(tmp_path).take((), 0, "job")
    assert isinstance(nothing, Claim)
    assert nothing.environment() == {"CUDA_VISIBLE_DEVICES": ""}


def test_who_comes_too_late_does_not_join_anothers_training(tmp_path: Path) -> None:
    claim = take(tmp_path)
    assert isinstance(claim, Claim)
    environment = claim.environment()
    claim.close()
    other = take(tmp_path)
    assert isinstance(other, Claim)
    with pytest.raises(DevicesLost, match="another training's by now"):
        join(environment)
    other.close()
    join({})  # a training without devices has nothing to join
    assert HELD in environment


def test_a_sampler_is_seen_while_it_lives(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    assert claims.sampler_share(["GPU-a"]) == 0
    lock = claims.mark_sampler(TWO[0], 0.25)
    assert lock is not None
    assert claims.mark_sampler(TWO[0], 0.5) is None
    assert claims.sampler_share(["GPU-a", "GPU-b"]) == 0.25
    assert claims.sampler_share(["GPU-b"]) == 0
    beside = take(tmp_path)  # it shares, and takes nobody's turn
    assert isinstance(beside, Claim)
    beside.close()
    os.close(lock)
    assert claims.sampler_share(["GPU-a"]) == 0


def test_a_folder_of_another_user_or_none_at_all_is_refused(tmp_path: Path) -> None:
    def settings(folder: Path | None) -> Settings:
        return Settings(database_url="postgresql://x", broker_url="redis://x", device_folder=folder)

    (tmp_path / "file").write_text("")
    with pytest.raises(DevicesUnusable, match="cannot be used"):
        claims_of(settings(tmp_path / "file" / "below"))
    assert isinstance(claims_of(settings(tmp_path / "new" / "folder")).take(TWO, 1, "job"), Claim)
    claims_of(settings(None))
    own = Path(f"/tmp/cherry-devices-{os.geteuid()}")
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
