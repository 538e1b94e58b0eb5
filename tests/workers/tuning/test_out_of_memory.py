"""A supervised or dpo run whose pass runs out of memory goes on in smaller ones, with the same results."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workers.training.passes.small_memory import Place, SmallMemory
from tests.workers.tuning.test_run import Told, config, rows
from workers.training.state import newest_state, read_progress
from workers.tuning.run import TuneRun
from workers.tuning.trainers import temporary_files_in

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # TRL's and PEFT's, of transformers
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def trained(method: str, tiny: Path, folder: Path, holds: int, place: Place) -> tuple[Told, TuneRun, int]:
    told = Told()
    wanted = config(method, tiny, n_epochs=2, save_state_every=50)
    data = (rows(method), rows(method, 14)[11:])
    with temporary_files_in(folder / "files"):
        run = TuneRun(wanted, *data, told, folder, lambda: False, lambda: False)
        memory = SmallMemory(run.policy.model, holds, place)
        for epoch in (1, 2):
            run.train_epoch(epoch)
            run.end_epoch(epoch)
    return told, run, memory.failures


@pytest.mark.parametrize(
    "place",
    [
        pytest.param("without gradient", marks=pytest.mark.long),
        pytest.param("forward", marks=pytest.mark.long),
        "backward",
    ],
)
@pytest.mark.parametrize("method", [pytest.param("supervised", marks=pytest.mark.long), "dpo"])
def test_a_run_that_runs_out_of_memory_tells_the_numbers_of_one_that_does_not(
    method: str, place: Place, tiny_folder: Path, tmp_path: Path
) -> None:
    plenty, _, none = trained(method, tiny_folder, tmp_path / "plenty", 10**9, place)
    small, run, failures = trained(method, tiny_folder, tmp_path / "small", 60, place)
    assert (none, failures >= 1) == (0, True)
    assert run.policy.passes.most < 16_384
    assert plenty.steps.keys() == small.steps.keys() == set(range(1, 7))
    for step, values in plenty.steps.items():
        assert small.steps[step] == pytest.approx(values, rel=1e-3, abs=1e-5)
    state, _ = newest_state(tmp_path / "small", run.keeper._belongs_to)
    assert state is not None
    assert read_progress(state).passes.tokens == run.policy.passes.most
