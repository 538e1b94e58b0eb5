"""Makes runs in a process of its own: an id comes in by line, the result goes out as a line of JSON.

The engine, `methods` and `graders` are those of the folder in which the process starts; the plan and the
evaluation are always this checkout's.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

START = (
    "import sys, benchmarks; benchmarks.__path__.insert(0, sys.argv[1]);"
    " from benchmarks.stability.worker import main; main()"
)
"""What `python -c` gets: `benchmarks` is looked for here first, everything else where the process runs."""


def main() -> None:
    """Answers each line of standard input until it ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    os.environ["TQDM_DISABLE"] = "1"
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="stability-") as folder:
        makes = _Makes(Path(folder))
        for line in sys.stdin:
            answers.write(json.dumps(makes.answer(line.strip())) + "\n")
            answers.flush()


class _Makes:
    """Makes runs one after another; what is made ready once is kept."""

    def __init__(self, folder: Path) -> None:
        from benchmarks.stability.evaluation import Judge
        from benchmarks.stability.models import Models

        self._folder = folder
        self._models = Models(folder)
        self._judge = Judge()
        self._warm: set[str] = set()

    def answer(self, run_id: str) -> dict[str, Any]:
        """Returns the result of a run; that of one that broke tells where."""
        from benchmarks.stability.plan import plan

        run = plan()[run_id]
        try:
            self._warm_up(run)
            return self._make(run)
        except Exception as error:
            said = "".join(traceback.format_exception(error)[-3:])
            return {"status": "broke", "said": f"{error!r}\n{said}"[-1500:]}

    def _make(self, run: Any) -> dict[str, Any]:
        from benchmarks.stability.engine import run_ours
        from benchmarks.stability.material import material_of

        side: Callable[..., Any] = run_ours
        if run.part == "trl":
            from benchmarks.stability.stock import run_stock

            side = run_stock
        material, model = material_of(run), self._models.folder_of(run.task.model)
        with tempfile.TemporaryDirectory(dir=self._folder) as work:
            outcome = side(run, material, model, Path(work))
            return {**outcome.facts, "models": self._judge.judge(run, material, model, outcome.models)}

    def _warm_up(self, run: Any) -> None:
        """Makes a few steps first with each model: kernels are loaded once in a process, not in each run."""
        from dataclasses import replace

        from benchmarks.stability.datasets import DataSet

        if run.part in ("trl", "smol") or run.task.model in self._warm:
            return
        self._warm.add(run.task.model)
        data = DataSet("warm-up", "", (run.task,), train_rows=8)
        self._make(replace(run, data=data, rate=1, seed=0, has_file=True, n_epochs=2))
