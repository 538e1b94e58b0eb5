"""Several steps in one call give what single steps give, and stop where a row ends."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_model import make_tiny_model
from tests.workers.serving.engines import Listener, Served, model_in, serving
from workers.serving import ahead
from workers.serving.requests import ModelFiles

MIXED: Sequence[dict[str, Any]] = (
    {"max_tokens": 60},
    {"max_tokens": 7, "temperature": 0.6},
    {"max_tokens": 90, "logit_bias": {3: 4.0, 200: -100.0}},
    {"max_tokens": 33, "samples": 3, "temperature": 1.7},
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return model_in(make_tiny_model(tmp_path_factory.mktemp("models") / "sharp", scale=0.3, context=400))


def told(served: Served, model: ModelFiles, asked: Sequence[dict[str, Any]]) -> list[Listener]:
    listeners = [
        served.ask(model, list(range(5, 25 + i)), seed=i, **options)[1] for i, options in enumerate(asked)
    ]
    return [listener.wait() for listener in listeners]


def samples(listeners: Sequence[Listener]) -> list[tuple[list[Any], list[float]]]:
    """Tokens and how each sample ended, and logprobs, which follow the pieces that prompts are read in."""
    return [
        ([(token.token, token.finish) for token in sample], [token.logprob for token in sample])
        for listener in listeners
        for sample in listener.tokens
    ]


def assert_same(found: Sequence[Listener], expected: Sequence[Listener]) -> None:
    for (tokens, logprobs), (others, of_others) in zip(samples(found), samples(expected), strict=True):
        assert tokens == others
        assert logprobs == pytest.approx(of_others, abs=2e-5)


def steps_and_told(
    tmp_path: Path, model: ModelFiles, asked: Sequence[dict[str, Any]]
) -> tuple[int, list[Listener]]:
    with serving(tmp_path) as served:
        listeners = told(served, model, asked)
        told(served, model, asked)  # by now it knows how long a step takes
        before = served.engine.counts.steps
        again = told(served, model, asked)
        assert_same(again, listeners)
        return served.engine.counts.steps - before, listeners


def test_rows_that_need_nothing_run_ahead_to_the_same_tokens(
    tmp_path: Path, model: ModelFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "AHEAD_SECONDS", 10.0)
    fewer, found = steps_and_told(tmp_path / "ahead", model, MIXED)
    monkeypatch.setattr(ahead, "MOST_AHEAD", 1)
    singly, same = steps_and_told(tmp_path / "singly", model, MIXED)
    assert_same(found, same)
    assert singly >= 89
    assert fewer < singly / 3


@pytest.mark.parametrize(
    "needs",
    [{"top_p": 0.9}, {"top_logprobs": 2}, {"frequency_penalty": 0.5}, {"temperature": 0.0}, {"stop": ["~"]}],
)
def test_one_row_that_needs_the_host_keeps_all_to_single_steps(
    tmp_path: Path, model: ModelFiles, needs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "AHEAD_SECONDS", 10.0)
    asked = [{"max_tokens": 30}, {"max_tokens": 30, **needs}]
    steps, _ = steps_and_told(tmp_path, model, asked)
    assert steps >= 29
