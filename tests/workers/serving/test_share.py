"""The sampler rests beside a training of this machine, and only beside one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.jobs.status import Claim
from app.jobs.training_mark import is_training, mark_training
from app.settings import Settings
from tests.workers.serving.engines import model_in, serving
from workers.jobs import run
from workers.serving.share import Share


@contextmanager
def a_training(folder: Path) -> Iterator[None]:
    """A process that holds the mark as a training does, and is killed."""
    code = (
        "import sys, time; from pathlib import Path; from app.jobs.training_mark import mark_training\n"
        "held = mark_training(Path(sys.argv[1])); print('held', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    try:
        yield
    finally:
        process.kill()
        process.communicate()


def test_steps_take_their_share_of_the_time_while_a_training_lives(tmp_path: Path) -> None:
    now = [0.0]
    share = Share(0.25, tmp_path, clock=lambda: now[0])
    busy = rested = 0.0

    def step(seconds: float) -> float:
        nonlocal busy, rested
        pause = share.pause(seconds)
        now[0] += seconds + pause
        busy, rested = busy + seconds, rested + pause
        return pause

    assert step(0.5) == 0.0  # nothing is trained
    with a_training(tmp_path):
        now[0] += 1
        busy = rested = 0.0
        for seconds in (0.01, 0.02, 0.07) * 20:
            step(seconds)
        assert busy / (busy + rested) == pytest.approx(0.25)
    now[0] += 1
    assert step(0.5) == 0.0  # it was killed, and the mark went with it


def test_a_whole_share_never_rests(tmp_path: Path) -> None:
    with a_training(tmp_path):
        assert is_training(tmp_path)
        assert Share(1.0, tmp_path).pause(1.0) == 0.0


def test_the_mark_is_looked_at_once_a_second(tmp_path: Path) -> None:
    now = [0.0]
    share = Share(0.5, tmp_path, clock=lambda: now[0])
    with mark_training(tmp_path):
        assert share.pause(0.1) == pytest.approx(0.1)
    now[0] = 0.99
    assert share.pause(0.1) == pytest.approx(0.1)
    now[0] = 1.0
    assert share.pause(0.1) == 0.0


def test_the_engine_rests_after_each_step_as_it_is_told(tmp_path: Path, folder: Path) -> None:
    told: list[float] = []

    def pause(seconds: float) -> float:
        told.append(seconds)
        return 0.0

    with serving(tmp_path, pause=pause) as served:
        served.sample(model_in(folder), [1, 2, 3], max_tokens=8, top_logprobs=1)  # in single steps
    counts = served.engine.counts
    assert len(told) == counts.steps >= 8
    assert sum(told) == pytest.approx(counts.step_seconds)


def test_a_training_marks_its_machine_while_it_runs(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def train(*_: object) -> run.Exit:
        seen.append(is_training(settings.data_dir))
        return run.Exit.STOPPED

    monkeypatch.setattr(run, "_run", train)
    assert run.run(Claim("ftjob-1", 1, "running"), lambda: False, "cpu") is run.Exit.STOPPED  # type: ignore[arg-type]
    assert seen == [True]
    assert not is_training(settings.data_dir)
