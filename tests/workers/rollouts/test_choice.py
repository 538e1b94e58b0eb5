"""Who samples a job's rollouts is decided before it is queued, and said."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.table_settings import VllmEntry
from tests.workers.rollouts.vllm_server import FakeVllm, running
from tests.workers.training.support import make_config
from workers.rollouts.choice import choose, rollouts_of
from workers.rollouts.errors import RolloutsRefused

NOWHERE = VllmEntry(url="http://127.0.0.1:9")
FAR = "http://vllm.example:8000"


def test_without_a_server_nothing_is_said_and_vllm_is_refused(tiny: Path) -> None:
    config = make_config(tiny)
    assert choose(config, {}, is_asked=False) == (config, "", False)
    assert rollouts_of(config, "ftjob-1") is None
    with pytest.raises(RolloutsRefused, match="no vLLM server for 'tiny'"):
        choose(make_config(tiny, rollouts="vllm"), {}, is_asked=True)


def test_a_server_for_the_model_or_for_every_model_is_taken(tiny: Path) -> None:
    with running(FakeVllm(vocabulary=10)) as server:
        for name in ("tiny", "*"):
            chosen = choose(make_config(tiny), {name: VllmEntry(url=server.url)}, is_asked=False)
            assert chosen.config.rollouts == "vllm"
            assert "vLLM" in chosen.told
            assert rollouts_of(chosen.config, "ftjob-1") is not None


def test_a_job_may_ask_for_the_built_in_sampler(tiny: Path) -> None:
    config = make_config(tiny)
    assert choose(config, {"tiny": NOWHERE}, is_asked=True) == (config, "", False)


def test_a_server_that_does_not_answer_yet_is_doubted_and_waited_for(tiny: Path) -> None:
    chosen = choose(make_config(tiny), {"tiny": NOWHERE}, is_asked=False)
    assert chosen.config.rollouts == "vllm"
    assert chosen.is_doubt
    assert "does not answer yet" in chosen.told


def test_a_server_of_other_models_is_left_out_or_refused(tiny: Path) -> None:
    with running(FakeVllm(vocabulary=10)) as server:
        table = {"tiny": VllmEntry(url=server.url, model="other")}
        chosen = choose(make_config(tiny), table, is_asked=False)
        assert chosen.config.rollouts == "built_in"
        assert "serves tiny, and not other" in chosen.told
        with pytest.raises(RolloutsRefused, match="and not other"):
            choose(make_config(tiny, rollouts="vllm"), table, is_asked=True)


@pytest.mark.parametrize(
    ("config", "entry", "words"),
    [
        pytest.param({"adapter": "full"}, {}, "whole_weights", id="full"),
        pytest.param({"adapter": "full"}, {"whole_weights": True, "url": FAR}, "loopback", id="full far"),
        pytest.param(
            {"adapter": "full", "n_seeds": 2, "processes": 2},
            {"whole_weights": True},
            "a server each",
            id="arms",
        ),
        pytest.param({"base_precision": "nf4"}, {}, "quantised", id="quantised"),
        pytest.param({"response_format": {"type": "json_object"}}, {}, "response_format", id="format"),
        pytest.param({"max_thinking_tokens": 8}, {}, "max_thinking_tokens", id="thoughts"),
        pytest.param({"async_steps": 1}, {"shares_gpu": True}, "async_steps", id="ahead"),
        pytest.param({"n_seeds": 2, "processes": 2}, {"shares_gpu": True}, "side by side", id="seeds"),
        pytest.param({}, {"shares_gpu": True, "url": FAR}, "this machine alone", id="far"),
    ],
)
def test_what_vllm_samples_otherwise_is_left_out_and_refused_by_name(
    tiny: Path, config: dict[str, object], entry: dict[str, object], words: str
) -> None:
    table = {"tiny": VllmEntry(**{"url": NOWHERE.url, **entry})}
    chosen = choose(make_config(tiny, **config), table, is_asked=False)
    assert chosen.config.rollouts == "built_in"
    assert words in chosen.told
    with pytest.raises(RolloutsRefused, match=words):
        choose(make_config(tiny, rollouts="vllm", **config), table, is_asked=True)
