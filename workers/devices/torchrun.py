"""Starts a program in several processes: `python -m workers.devices.torchrun PROCESSES GRACE PROGRAM...`.

They are of this machine. It is torchrun itself, asked first which options it knows: that of torch 2.11 has
no `--shutdown-timeout`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

GRACE_OPTION = "--shutdown-timeout"
BUILT_IN_GRACE = 30
"""Seconds that torchrun gives its processes to end where nobody can tell it (torch 2.11)."""


def arguments(
    parser: argparse.ArgumentParser, processes: int, grace: int, program: Sequence[str]
) -> list[str]:
    """Returns the arguments for torchrun, as far as its parser knows them.

    `grace` is how many seconds the processes may take to end.
    """
    options = ["--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", str(processes)]
    if GRACE_OPTION in parser.format_help():
        options += [GRACE_OPTION, str(grace)]
    elif grace > BUILT_IN_GRACE:
        print(f"This torchrun ends its processes after {BUILT_IN_GRACE} s, not {grace} s.", file=sys.stderr)
    return [*options, "--no-python", *program]


def main() -> None:
    """Runs torchrun in this process."""
    from torch.distributed.run import get_args_parser
    from torch.distributed.run import main as run

    processes, grace, *program = sys.argv[1:]
    run(arguments(get_args_parser(), int(processes), int(grace), program))


if __name__ == "__main__":
    main()
