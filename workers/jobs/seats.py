"""Processes in which seeds of one job train side by side: `python -m workers.jobs.seats FD`.

The training process (run.py) starts one for each seed of a rung, gives it a device and the other end of a
connection, and alone speaks with database and storage about the job. No such process outlives it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection

import torch

import app.tables  # noqa: F401  # foreign keys are found by table name
from app import process
from app.db import limit_statements
from app.devices.claims import join, share_of_trainings
from app.grading.outages import with_patience
from app.grading.services import grader_services
from app.logs import configure_logging
from app.settings import get_settings
from graders import Grader, build_grader
from graders.services import Services
from graders.spec import GraderSpec
from methods.train_config import TrainConfig
from workers.jobs.faults import Exit, exit_code_of
from workers.jobs.judge_remarks import with_remarks
from workers.training.arms.beside import Seats
from workers.training.arms.child import train_for
from workers.training.arms.messages import MakeEnvironment
from workers.training.base.device_memory import limit_share
from workers.training.base.distributed import World
from workers.training.base.errors import DeviceMissing
from workers.training.loop import advance
from workers.training.sampling.backend import OpenRollouts

LAST_STEPS_SECONDS = 20.0
"""How long a process whose training is over may take to end by itself."""


def build_graders(
    spec: GraderSpec, gold: GraderSpec | None, project_id: str, remark: Callable[[str], None]
) -> tuple[Grader, Grader | None]:
    """The grader and the gold grader of a job, with what the service lets them ask; `remark` hears of it."""
    services = services_of_job(project_id, remark)
    return build_grader(spec, services), build_grader(gold, services) if gold is not None else None


def services_of_job(project_id: str, remark: Callable[[str], None]) -> Services:
    """What a job's training may ask: it waits for servers that are down, and `remark` hears of replies."""
    settings = get_settings()
    limit = min(settings.judge_down_limit, settings.phase_limit / 2).total_seconds()
    return with_remarks(with_patience(grader_services(project_id), limit), remark)


def seats_of(
    config: TrainConfig,
    grader: GraderSpec,
    gold: GraderSpec | None,
    project_id: str,
    environment: MakeEnvironment | None = None,
    rollouts: OpenRollouts | None = None,
) -> Seats | None:
    """The places where seeds of a job train side by side; None where they train in turn."""
    if not config.trains_seeds_beside:
        return None
    graders = partial(build_graders, grader, gold, project_id)
    patience = get_settings().phase_limit.total_seconds()
    if config.device == "cpu":
        return Seats(config.processes, lambda _: SeedProcess({}), graders, patience, environment, rollouts)
    gpus = _visible_gpus()
    if len(gpus) < config.processes:
        raise DeviceMissing(
            f"The run needs {config.processes} GPUs on this machine; PyTorch finds {len(gpus)} there."
        )

    def on_gpu(seat: int) -> SeedProcess:
        return SeedProcess({"CUDA_VISIBLE_DEVICES": gpus[seat]})

    return Seats(config.processes, on_gpu, graders, patience, environment, rollouts)


def _visible_gpus() -> list[str]:
    """What CUDA calls the GPUs that this process may use."""
    found = torch.cuda.device_count()
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return named[:found] if named else [str(number) for number in range(found)]


class SeedProcess:
    """A process that trains one seed up to the end of its rung."""

    def __init__(self, environment: dict[str, str]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            program = [sys.executable, "-m", "workers.jobs.seats", str(theirs.fileno())]
            self._child = process.spawn(
                program,
                on_parent_death=signal.SIGKILL,
                env={**os.environ, **environment},
                pass_fds=[theirs.fileno()],
            )
        self.connection = Connection(ours.detach())

    def is_gone(self) -> bool:
        return self._child.poll() is not None

    def leave(self) -> int:
        """Wait for its end, which is near. Returns its exit code."""
        with contextlib.suppress(subprocess.TimeoutExpired):  # what hangs now has nothing left to tell
            self._child.wait(LAST_STEPS_SECONDS)
        self.kill()
        return self._child.returncode

    def kill(self) -> None:
        """End it and all that it has started."""
        process.kill_family(self._child)
        self.connection.close()


def main() -> None:
    """Train one seed as the other end of the connection says."""
    settings = get_settings()
    configure_logging(settings.log_level, settings.log_format)
    limit_statements(settings.database_work_limit)
    join()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the process that started this one says when to stop
    code = Exit.OUTCOME_WRITTEN
    try:
        limit_share(World().device("auto"), share_of_trainings(settings))
        train_for(Connection(int(sys.argv[1])), advance)
    except Exception as problem:
        traceback.print_exc()
        code = exit_code_of(problem)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # taking torch down in order takes seconds


if __name__ == "__main__":
    main()
