"""The engine: what many ask at once is what each would get alone, and what `sample_groups` gives."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from app.errors import BadRequest, NotFound, ServerError, TooManyRequests, Unavailable
from tests.tiny_model import byte_tokenizer, make_tiny_model
from tests.workers.serving.engines import Listener, Served, model_in, serving
from tests.workers.training.families import make_family
from workers.serving.requests import ModelFiles, Options, Request, Started
from workers.training.base.errors import GrammarFailed
from workers.training.base.types import Completion, Prompt
from workers.training.model.base_model import BaseModel, load_base
from workers.training.model.grammar import Grammar, compile_grammar
from workers.training.sampling.rollout import Sampling, sample_groups

CONTEXT = 400
FAMILIES: dict[str, dict[str, Any]] = {
    "compiled": {"family": "llama"},
    "lean": {"family": "llama", "attention_bias": True, "mlp_bias": True},
    "by modules": {"family": "gpt_neox"},
    "windowed": {"family": "mistral"},
    "general": {"family": "mamba", "state_size": 4},
}


def family_folder(folder: Path, family: str, **changes: Any) -> Path:
    tokenizer = byte_tokenizer()
    model = make_family(family, "eager", vocab_size=len(tokenizer), **changes)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("models") / "sharp", scale=0.3, context=CONTEXT)


@pytest.fixture(scope="module")
def base(folder: Path) -> BaseModel:
    return load_base(folder)


@pytest.fixture(scope="module")
def model(folder: Path) -> ModelFiles:
    return model_in(folder)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served")) as made:
        yield made


def prompts(*lengths: int, seed: int = 0) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randrange(256) for _ in range(n)] for n in lengths]


def expected(base: BaseModel, prompt: Sequence[int], seed: int, **changes: Any) -> tuple[Completion, ...]:
    """What the sampler of a training gives."""
    options = {"samples": 1, "max_tokens": 8, "temperature": 1.0, "key": ("chat",), **changes}
    with torch.random.fork_rng():
        (group,) = sample_groups(base, [Prompt(seed, {}, tuple(prompt))], Sampling(**options))
    return group.completions


def assert_same(found: Listener, completions: Sequence[Completion]) -> None:
    for i, completion in enumerate(completions):
        assert found.ids(i) == list(completion.tokens)
        assert found.logprobs(i) == pytest.approx(completion.logprobs, abs=2e-5)
        assert [token.finish for token in found.tokens[i]][-1] == completion.finish_reason
        assert not any(token.finish for token in found.tokens[i][:-1])


@pytest.mark.parametrize("way", FAMILIES)
def test_every_kind_of_model_gives_what_a_trainings_sampler_gives(way: str, tmp_path: Path) -> None:
    folder = family_folder(tmp_path / "model", **FAMILIES[way])
    base, model = load_base(folder), model_in(folder)
    asked = prompts(5, 40, 17, 3, 30)
    with serving(tmp_path / "served") as served:
        tickets = [served.ask(model, p, seed=i, max_tokens=30, samples=2) for i, p in enumerate(asked)]
        for i, (_, listener) in enumerate(tickets):
            assert_same(listener.wait(), expected(base, asked[i], i, max_tokens=30, samples=2))


def test_static_decoders_have_a_prompt_for_each_row(
    tmp_path: Path, model: ModelFiles, base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, without its graphs."""
    monkeypatch.setattr("workers.training.sampling.lasting.GRAPHED", {"cpu"})
    asked = prompts(5, 40, 17, 33)
    with serving(tmp_path, sampler_rows=4) as static:
        told = [static.ask(model, p, seed=i, max_tokens=20, samples=3)[1] for i, p in enumerate(asked)]
        for i, listener in enumerate(told):
            assert_same(listener.wait(), expected(base, asked[i], i, max_tokens=20, samples=3))


def test_mixed_options_go_in_one_batch(served: Served, model: ModelFiles, base: BaseModel) -> None:
    asked = prompts(7, 9, 30, 12, 6, 8)
    options: list[dict[str, Any]] = [
        {"temperature": 0.0, "max_tokens": 25},
        {"temperature": 0.6, "max_tokens": 20},
        {"temperature": 1.7, "top_p": 0.5, "max_tokens": 31},
        {"top_p": 0.2, "max_tokens": 1},
        {"stop": ("e", "xy"), "max_tokens": 60},
        {"samples": 4, "max_tokens": 9},
    ]
    held = threading.Event()
    blocker = Blocker(held)
    served.engine.submit(blocker.request(model))
    told = [served.ask(model, p, seed=i, **o)[1] for i, (p, o) in enumerate(zip(asked, options, strict=True))]
    held.set()
    for i, listener in enumerate(told):
        assert_same(listener.wait(), expected(base, asked[i], i, **options[i]))


class Blocker(Listener):
    """Holds the engine up until it is let go, so that what is asked meanwhile begins together."""

    def __init__(self, go_on: threading.Event) -> None:
        super().__init__(1, 1)
        self._go_on = go_on

    def __call__(self, event: Any) -> None:
        assert self._go_on.wait(60)
        super().__call__(event)

    def request(self, model: ModelFiles) -> Request:
        return Request(model, [1], 1, Options(1), 0, "blocker", self)


def test_requests_join_and_leave_at_any_step(served: Served, model: ModelFiles, base: BaseModel) -> None:
    long, *others = prompts(20, *range(3, 15), seed=1)
    _, first = served.ask(model, long, seed=99, max_tokens=300)
    assert first.first.wait(60)
    for i, prompt in enumerate(others):
        assert_same(
            served.sample(model, prompt, seed=i, max_tokens=3 + i),
            expected(base, prompt, i, max_tokens=3 + i),
        )
    assert_same(first.wait(), expected(base, long, 99, max_tokens=300))


def by_hand(base: BaseModel, tokens: Sequence[int], n: int) -> torch.Tensor:
    """Log-probabilities of the last n tokens' places by a plain forward pass, (n, V)."""
    with torch.no_grad():
        logits = base.model(input_ids=torch.tensor([list(tokens)]), use_cache=False).logits[0]
    return torch.log_softmax(logits[-n - 1 : -1], -1)


def test_alternatives_are_the_most_likely_tokens(served: Served, model: ModelFiles, base: BaseModel) -> None:
    (prompt,) = prompts(10)
    found = served.sample(model, prompt, temperature=0.0, top_logprobs=3, max_tokens=6)
    logprobs = by_hand(base, prompt + found.ids(), 6)
    for place, token in zip(logprobs, found.tokens[0], strict=True):
        values, ids = place.topk(3)
        assert [i for i, _ in token.top] == ids.tolist()
        assert [value for _, value in token.top] == pytest.approx(values.tolist(), abs=2e-5)
        assert (token.token, token.logprob) == token.top[0]


def test_a_bias_bans_and_forces(served: Served, model: ModelFiles) -> None:
    (prompt,) = prompts(10)
    assert served.sample(model, prompt, logit_bias={65: 100.0}).ids() == [65] * 8
    free = served.sample(model, prompt, temperature=0.0).ids()
    assert free[0] not in served.sample(model, prompt, temperature=0.0, logit_bias={free[0]: -100.0}).ids()


def test_penalties_lower_what_was_said(served: Served, model: ModelFiles, base: BaseModel) -> None:
    (prompt,) = prompts(10)
    found = served.sample(
        model, prompt, temperature=0.0, max_tokens=40, frequency_penalty=0.7, presence_penalty=1.1
    )
    written: list[int] = []
    for token in found.tokens[0]:
        with torch.no_grad():
            logits = base.model(input_ids=torch.tensor([prompt + written])).logits[0, -1]
        for known in set(written):
            logits[known] -= 0.7 * written.count(known) + 1.1
        assert token.token == int(logits.argmax())
        assert token.logprob == pytest.approx(float(torch.log_softmax(logits, -1).max()), abs=3e-5)
        written.append(token.token)


def grammar_of(base: BaseModel, schema: dict[str, Any]) -> Grammar:
    asked = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    made = compile_grammar(asked, base.tokenizer, base.model, base.end_ids)
    assert made is not None
    return made


def test_a_grammar_holds_its_own_rows_alone(served: Served, model: ModelFiles, base: BaseModel) -> None:
    grammar = grammar_of(
        base, {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}, "required": ["a"]}
    )
    one, other = prompts(9, 11)
    _, held = served.ask(model, one, seed=4, samples=3, max_tokens=200, grammar=grammar)
    _, free = served.ask(model, other, seed=5, max_tokens=20)
    assert_same(free.wait(), expected(base, other, 5, max_tokens=20))
    assert_same(held.wait(), expected(base, one, 4, samples=3, max_tokens=200, grammar=grammar))
    for sample in range(3):
        if held.tokens[sample][-1].finish == "stop":
            assert json.loads(base.tokenizer.decode(held.ids(sample)[:-1]))["a"] in ("x", "y")


def test_a_grammar_that_fails_ends_its_request_alone(
    tmp_path: Path, model: ModelFiles, base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also samples of it that have not begun."""
    from workers.serving import batch

    def noted(row: Any, _token: int) -> None:
        if row.ticket.request.seed == 77:
            raise GrammarFailed("It is too complex.")

    monkeypatch.setattr(batch, "note", noted)
    one, other = prompts(9, 11)
    with serving(tmp_path, sampler_rows=3) as served:
        _, failing = served.ask(model, one, seed=77, samples=20, presence_penalty=0.1)
        _, beside = served.ask(model, other, seed=5, max_tokens=20)
        with pytest.raises(BadRequest, match="too complex"):
            failing.wait()
        assert_same(beside.wait(), expected(base, other, 5, max_tokens=20))
        served.sample(model, [1])
        (lane,) = served.engine._lanes.values()
        held: Any = lane.base.batches[0]  # type: ignore[union-attr]
        assert (held._promised, held._path._reserved, bool(lane.queue)) == (0, 0, False)


def test_the_prompt_tells_its_own_logprobs(served: Served, model: ModelFiles, base: BaseModel) -> None:
    (prompt,) = prompts(350)  # more than one piece
    served.sample(model, prompt)  # what is known already must not be left out
    found = served.sample(model, prompt, prompt_logprobs=2, max_tokens=0)
    assert found.started is not None
    assert found.started.prompt is not None
    assert [told.token for told in found.started.prompt] == prompt
    assert found.started.prompt[0].logprob is None
    logprobs = by_hand(base, prompt, len(prompt) - 1)
    for place, told in zip(logprobs, found.started.prompt[1:], strict=True):
        assert told.logprob == pytest.approx(float(place[told.token]), abs=3e-5)
        assert [value for _, value in told.top] == pytest.approx(place.topk(2).values.tolist(), abs=3e-5)


def test_a_conversation_is_not_read_again(tmp_path: Path, model: ModelFiles, base: BaseModel) -> None:
    prompt, more = prompts(70, 9, seed=5)
    with serving(tmp_path) as fresh:
        first = fresh.sample(model, prompt, seed=1, max_tokens=30)
        assert first.started is not None
        assert first.started.cached_tokens == 0
        turn = prompt + first.ids() + more
        second = fresh.sample(model, turn, seed=2, max_tokens=30)
        assert second.started is not None
        assert second.started.cached_tokens == len(prompt) + len(first.ids()) - 1
        assert_same(second, expected(base, turn, 2, max_tokens=30))
        again = fresh.sample(model, prompt, seed=1, max_tokens=30)
        assert again.started is not None
        assert again.started.cached_tokens == len(prompt) - 1
        assert_same(again, expected(base, prompt, 1, max_tokens=30))


def test_a_prompt_under_way_is_shared(served: Served, model: ModelFiles, base: BaseModel) -> None:
    start, end = prompts(100, 10, seed=6)
    _, running = served.ask(model, [*start, 7], seed=1, max_tokens=250)
    assert running.first.wait(60)
    beside = served.sample(model, start + end, seed=2)
    assert beside.started is not None
    assert beside.started.cached_tokens == len(start)
    assert_same(beside, expected(base, start + end, 2))
    assert_same(running.wait(), expected(base, [*start, 7], 1, max_tokens=250))


def test_what_is_known_makes_room(tmp_path: Path, model: ModelFiles, base: BaseModel) -> None:
    """1 MiB holds 4,096 tokens of this model: 40 different prompts of 300 do not fit, and each is right."""
    with serving(tmp_path, sampler_cache_mb=1) as small:
        for i, prompt in enumerate(prompts(*[300] * 40, seed=7)):
            assert_same(
                small.sample(model, prompt, seed=i, max_tokens=2), expected(base, prompt, i, max_tokens=2)
            )
        path = next(iter(small.engine._lanes.values())).base.batches[0]._path  # type: ignore[union-attr]
        assert 0 < path._prefixes.nbytes <= 1 << 20  # type: ignore[union-attr]


def test_who_does_not_fit_waits(tmp_path: Path, model: ModelFiles, base: BaseModel) -> None:
    """1 MiB holds ten sequences of the whole context; 30 are asked for at once, and three samples of each."""
    asked = prompts(*[90] * 30, seed=8)
    with serving(tmp_path, sampler_cache_mb=1, sampler_rows=16) as small:
        told = [small.ask(model, p, seed=i, samples=3, max_tokens=10_000)[1] for i, p in enumerate(asked)]
        for i, listener in enumerate(told):
            assert_same(listener.wait(), expected(base, asked[i], i, samples=3, max_tokens=CONTEXT))


def test_more_samples_than_rows(tmp_path: Path, model: ModelFiles, base: BaseModel) -> None:
    (prompt,) = prompts(12)
    with serving(tmp_path, sampler_rows=3) as small:
        found = small.sample(model, prompt, samples=20, seed=3, max_tokens=5)
    assert_same(found, expected(base, prompt, 3, samples=20, max_tokens=5))


def test_long_prompts_are_read_in_pieces_beside_others(
    tmp_path: Path, model: ModelFiles, base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workers.serving import batch

    monkeypatch.setattr(batch.Pace, "tokens", lambda *_: 20)
    running, *long = prompts(10, 300, 150, 299, seed=9)
    with serving(tmp_path) as slow:
        _, first = slow.ask(model, running, seed=50, max_tokens=200)
        assert first.first.wait(60)
        told = [slow.ask(model, p, seed=i)[1] for i, p in enumerate(long)]
        for i, listener in enumerate(told):
            assert_same(listener.wait(), expected(base, long[i], i))
        assert_same(first.wait(), expected(base, running, 50, max_tokens=200))


def test_a_prompt_without_room_for_a_completion_is_refused(served: Served, model: ModelFiles) -> None:
    with pytest.raises(BadRequest) as caught:
        served.sample(model, [1] * CONTEXT)
    assert caught.value.code == "context_length_exceeded"
    assert len(served.sample(model, [1] * (CONTEXT - 3), max_tokens=100, logit_bias={65: 100.0}).ids()) == 3
    assert served.sample(model, [1] * CONTEXT, max_tokens=0).started is not None


@pytest.mark.parametrize(
    ("prompt", "options"), [([-1], {}), ([10_000], {}), ([], {}), ([1], {"logit_bias": {10_000: 1.0}})]
)
def test_tokens_that_are_none_are_refused(
    served: Served, model: ModelFiles, prompt: list[int], options: dict[str, Any]
) -> None:
    with pytest.raises(BadRequest):
        served.sample(model, prompt, **options)
    assert served.sample(model, [1]).ids()


def test_a_model_that_is_gone_or_damaged_is_named(served: Served, tmp_path: Path, folder: Path) -> None:
    with pytest.raises(NotFound, match="'gone' are gone"):
        served.sample(model_in(tmp_path / "nowhere", "gone"), [1])
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(ServerError, match="broken"):
        served.sample(model_in(broken, "broken"), [1])


def test_the_cancelled_leave_and_nothing_of_them_stays(tmp_path: Path, model: ModelFiles) -> None:
    with serving(tmp_path, sampler_rows=8) as small:
        small.sample(model, [1, 2, 3])
        rng = random.Random(0)
        asked = prompts(*[rng.randrange(2, 60) for _ in range(240)], seed=10)
        tickets = []
        for i, prompt in enumerate(asked):
            ticket, listener = small.ask(
                model, prompt, seed=i, samples=1 + i % 3, max_tokens=300, key=f"{i % 7}"
            )
            tickets.append(ticket)
            if i % 40 == 0:
                listener.first.wait(60)
            if i >= 30:
                tickets[i - 30].cancel()
        for ticket in tickets:
            ticket.cancel()
        assert small.sample(model, [1, 2, 3])  # they have left
        counts, engine = small.engine.counts, small.engine
        deadline = time.monotonic() + 60
        while counts.running and time.monotonic() < deadline:  # the last is told before its row is free
            time.sleep(0.01)
        assert (counts.running, counts.waiting, engine._waiting) == (0, 0, {})
        assert counts.cancelled + counts.finished == 242
        lane = next(iter(engine._lanes.values()))
        batch = lane.base.batches[0]  # type: ignore[union-attr]
        path: Any = batch._path
        assert not (lane.queue)
        assert not (batch._tickets)
        assert not (batch._rows)
        assert not (path._reading)
        assert not (path._ready)
        assert (path._reserved, len(path._free)) == (0, 16)
        assert lane.base._users == {}  # type: ignore[union-attr]


def test_keys_take_turns(tmp_path: Path, model: ModelFiles) -> None:
    begun: list[str] = []

    class Noted(Listener):
        def __init__(self, key: str) -> None:
            super().__init__(1, 2)
            self.key = key

        def __call__(self, event: Any) -> None:
            if isinstance(event, Started):
                begun.append(self.key)
            super().__call__(event)

    go_on = threading.Event()
    with serving(tmp_path, sampler_rows=1) as small:
        small.engine.submit(Blocker(go_on).request(model))
        told = [Noted(key) for key in "aaaaabbc"]
        for each in told:
            small.engine.submit(Request(model, [1, 2], 1, Options(2), 0, each.key, each))
        go_on.set()
        for each in told:
            each.wait()
    assert "".join(begun) == "abcabaaa"


def test_too_many_who_wait_are_turned_away(tmp_path: Path, model: ModelFiles) -> None:
    go_on = threading.Event()
    with serving(tmp_path, sampler_rows=1, sampler_waiting=5, sampler_waiting_per_key=3) as small:
        blocker = Blocker(go_on)
        small.engine.submit(blocker.request(model))
        while small.engine.counts.waiting:
            pass
        told = [small.ask(model, [1], key="a")[1] for _ in range(3)]
        with pytest.raises(TooManyRequests) as caught:
            small.ask(model, [1], key="a")
        assert int(caught.value.headers["retry-after"]) >= 1
        told += [small.ask(model, [1], key="b")[1] for _ in range(2)]
        with pytest.raises(Unavailable) as full:
            small.ask(model, [1], key="c")
        assert int(full.value.headers["retry-after"]) >= 1
        go_on.set()
        for listener in told:
            listener.wait()


def test_a_listener_that_fails_is_let_go_alone(served: Served, model: ModelFiles, base: BaseModel) -> None:
    def broken(_: Any) -> None:
        raise RuntimeError("no")

    (prompt,) = prompts(12)
    served.engine.submit(Request(model, prompt, 2, Options(50), 0, "x", broken))
    assert_same(served.sample(model, prompt, seed=3), expected(base, prompt, 3))


def test_a_step_that_fails_ends_its_rows_and_the_engine_goes_on(
    tmp_path: Path, model: ModelFiles, base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workers.training.sampling import lasting

    (prompt,) = prompts(12)
    with serving(tmp_path) as served:
        served.sample(model, prompt)
        with monkeypatch.context() as patch:
            for step in ("decode", "ahead"):
                patch.setattr(lasting.LastingDecoder, step, _out_of_memory)
            with pytest.raises(ServerError, match="its log says why"):
                served.sample(model, prompt)
        assert_same(served.sample(model, prompt, seed=3), expected(base, prompt, 3))
        assert served.engine.counts.failed == 1


def test_a_prompt_that_fails_leaves_those_who_wait(
    tmp_path: Path, model: ModelFiles, base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workers.serving.fast_path import FastPath

    bad, good = prompts(12, 13)
    begin = FastPath.begin

    def begins(self: FastPath, ticket: Any, adapter: int) -> None:
        begin(self, ticket, adapter)
        if ticket.request.prompt == bad:
            raise MemoryError

    monkeypatch.setattr(FastPath, "begin", begins)
    with serving(tmp_path) as served:
        _, failing = served.ask(model, bad)
        assert_same(served.sample(model, good, seed=3), expected(base, good, 3))
        with pytest.raises(ServerError):
            failing.wait()
        assert served.engine.counts.waiting == 0


def _out_of_memory(*_: Any) -> Any:
    raise torch.OutOfMemoryError("no")


def test_bases_take_turns_in_memory(
    tmp_path: Path, model: ModelFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workers.serving import engine

    monkeypatch.setattr(engine, "TURN_SECONDS", 0.0)
    other = model_in(make_tiny_model(tmp_path / "other", seed=1, scale=0.3, context=CONTEXT), "other")
    with serving(tmp_path, sampler_models=1) as served:
        told = [served.ask(each, [1, 2, 3], max_tokens=20, key=each.name)[1] for each in [model, other] * 3]
        tokens = [listener.wait().ids() for listener in told]
        assert tokens[0] == tokens[2] == tokens[4] != tokens[1]
        assert len(served.engine.bases) == 1


def test_plain_text_waits_for_no_grammar_that_is_being_compiled(folder: Path, tmp_path: Path) -> None:
    with serving(tmp_path) as served, ThreadPoolExecutor(1) as threads:
        texts = served.library.texts(model_in(folder))
        with texts._lock:
            assert threads.submit(texts.grammar, None).result(30) is None


def test_memory_is_given_back_when_nobody_asks_and_taken_again_for_who_does(
    tmp_path: Path, model: ModelFiles, base: BaseModel
) -> None:
    (prompt,) = prompts(40, seed=9)
    with serving(tmp_path, sampler_idle=timedelta(seconds=0.2)) as idle:
        assert_same(idle.sample(model, prompt, seed=1), expected(base, prompt, 1))
        deadline = time.monotonic() + 60
        while idle.engine.bases:
            assert time.monotonic() < deadline, "the base stays in memory"
            time.sleep(0.02)
        assert_same(idle.sample(model, prompt, seed=2), expected(base, prompt, 2))
