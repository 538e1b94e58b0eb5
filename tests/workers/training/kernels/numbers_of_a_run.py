"""Prints every number of a short run, for test_kernels.py: `python -m … MODEL RUN_DIR`."""

import sys
from pathlib import Path

import torch

from tests.workers.training.support import FunctionGrader, ListRecorder, early_letters, make_config, make_rows
from workers.training.loop import train


def main(model: str, run_dir: str) -> None:
    torch.set_num_threads(1)
    recorder = ListRecorder()
    config = make_config(Path(model), max_completion_tokens=24, dtype="float32")
    rows = make_rows("one", "two", "three", "four")
    train(config, rows, make_rows("five"), FunctionGrader(early_letters), recorder, Path(run_dir))
    for split, step, _, groups in recorder.all("rollouts"):
        for group in groups:
            for completion in group.completions:
                print(split, step, completion.tokens, [number.hex() for number in completion.logprobs])
    print(recorder.history())


if __name__ == "__main__":
    main(*sys.argv[1:])
