"""A run for test_resume.py to kill: `python killed_run.py MODEL RUN_DIR HISTORY.jsonl CHANGES`.

CHANGES are those of the config, as JSON.
"""

import json
import sys
import time
from pathlib import Path

import torch

from tests.workers.training.support import FunctionGrader, ListRecorder, early_letters, make_config, make_rows
from workers.training.loop import train

LAST = 20
"""The step after which a run waits to be killed: on a busy machine it would be over before it is."""


class Told(ListRecorder):
    """Writes each step's metrics to a file as it is told."""

    def metrics(self, step, epoch, values):
        super().metrics(step, epoch, values)
        with Path(sys.argv[3]).open("a") as file:
            file.write(json.dumps({"step": step, **self.history()[step]}) + "\n")
        if step == LAST:
            time.sleep(600)


def run_to_kill(model, run_dir, recorder, changes):
    config = make_config(Path(model), n_epochs=12, save_state_every=1, eval_interval=3, **changes)
    rows = make_rows("one", "two", "three")
    return train(config, rows, make_rows("four"), FunctionGrader(early_letters), recorder, Path(run_dir))


if __name__ == "__main__":
    torch.set_num_threads(1)
    run_to_kill(sys.argv[1], sys.argv[2], Told(), json.loads(sys.argv[4]))
