"""Several processes are started by the torchrun that is there, whatever options it knows."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

from workers.devices.torchrun import arguments

ROOT = Path(__file__).parents[3]


def parser(*, has_grace: bool) -> argparse.ArgumentParser:
    """Torchrun's own, with or without the option that torch 2.11 has not."""
    found: argparse.ArgumentParser = get_args_parser()
    for action in [each for each in found._actions if each.dest == "shutdown_timeout"]:
        if not has_grace:
            found._remove_action(action)
            for group in found._action_groups:
                group._group_actions = [each for each in group._group_actions if each is not action]
            for option in action.option_strings:
                del found._option_string_actions[option]
    return found


@pytest.mark.parametrize("has_grace", [True, False])
def test_torchruns_parser_takes_what_it_is_given(has_grace: bool, capsys: pytest.CaptureFixture[str]) -> None:
    asked = parser(has_grace=has_grace)
    read = asked.parse_args(arguments(asked, 2, 20, ["program", "--shutdown-timeout", "x"]))
    assert (read.nproc_per_node, read.no_python, read.training_script) == ("2", True, "program")
    assert read.training_script_args == ["--shutdown-timeout", "x"]
    assert getattr(read, "shutdown_timeout", None) == (20 if has_grace else None)
    assert capsys.readouterr().err == ""


def test_a_grace_that_torchrun_cannot_be_told_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    arguments(parser(has_grace=False), 2, 90, ["program"])
    assert "ends its processes after 30 s, not 90 s" in capsys.readouterr().err


@pytest.mark.slow
def test_it_runs_a_program_in_every_process(tmp_path: Path) -> None:
    writes = 'touch "$0/rank-$RANK-of-$WORLD_SIZE"'
    command = [sys.executable, "-m", "workers.devices.torchrun", "2", "20", "sh", "-c", writes, str(tmp_path)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rank-0-of-2", "rank-1-of-2"]
