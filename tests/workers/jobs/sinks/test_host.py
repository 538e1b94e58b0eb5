"""What the process of a sink does with steps: once each, again after a fault, left out after ten minutes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from workers.jobs.sinks.base import ShownRun, Unavailable, numbers, tags
from workers.jobs.sinks.host import PAUSES, serve

RUN = ShownRun("ftjob-1", "cherry-nano", {"tags": ["a"]}, {"lr": 1, "model_path": "/m"}, "/nowhere")


@dataclass
class Store:
    """Refuses the first tries of a step, as many as `faults` says of it."""

    faults: dict[int, int] = field(default_factory=dict)
    there: tuple[int, ...] = ()
    taken: list[int] = field(default_factory=list)
    closed: int = 0

    def has(self, step: int) -> bool:
        return step in self.there

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        assert values == {"reward/mean": 0.5}
        if self.faults.get(step, 0):
            self.faults[step] -= 1
            raise OSError("away")
        self.taken.append(step)

    def close(self) -> None:
        self.closed += 1


def served(store: Store, *steps: int) -> tuple[list[dict[str, Any]], list[float]]:
    told: list[dict[str, Any]] = []
    slept: list[float] = []
    lines = [json.dumps({"step": step, "values": {"reward/mean": 0.5}}) for step in steps]
    serve(lambda _: store, [json.dumps(asdict(RUN)), *lines], told.append, slept.append)
    return told, slept


def test_steps_that_are_there_are_not_sent_again() -> None:
    store = Store(there=(0, 1))
    told, _ = served(store, 0, 1, 2)
    assert store.taken == [2]
    assert told == [{"done": 0}, {"done": 1}, {"done": 2}, {"closed": True}]
    assert store.closed == 1


def test_a_step_is_tried_again_before_the_next_one() -> None:
    store = Store(faults={1: 2})
    told, slept = served(store, 0, 1, 2)
    assert store.taken == [0, 1, 2]
    assert slept == list(PAUSES[:2])
    assert told[1] == {"failing": "OSError: away"}


def test_a_step_that_is_never_taken_is_left_out_after_ten_minutes() -> None:
    store = Store(faults={0: 10**6})
    told, slept = served(store, 0, 1)
    assert 600 <= sum(slept) <= 660
    assert store.taken == [1]
    assert {"dropped": 0} in told


def test_what_cannot_be_is_tried_once() -> None:
    def refuse(run: ShownRun) -> Store:
        raise Unavailable(f"not for {run.job_id}.")

    told: list[dict[str, Any]] = []
    serve(refuse, [json.dumps(asdict(RUN))], told.append, lambda _: None)
    assert told == [{"refused": "not for ftjob-1."}]


def test_only_finite_numbers_are_shown_and_no_folder() -> None:
    assert numbers({"a": 1, "b": 0.5, "c": "x", "d": float("nan"), "e": None}) == {"a": 1.0, "b": 0.5}
    assert RUN.shown_config == {"lr": 1}
    assert list(tags(RUN)) == ["a", "cherry/finetune", "cherry/cherry-nano", "cherry/ftjob-1"]
    assert ShownRun("j", "m", {"name": "n"}, {}, "").name == "n j"
    assert not ShownRun("j", "m", {}, {"n_seeds": 2, "processes": 2}, "").is_in_order
