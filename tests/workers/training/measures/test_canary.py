"""The canary: its loss is that of a plain forward, what has been forgotten shows, any model can read it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from methods.canary_rows import MOST_TEXTS, check_canary_row
from methods.rows import Row, read_rows
from tests.workers.training.conftest import moved
from tests.workers.training.model.test_unreadable import of_few_words
from tests.workers.training.support import make_config
from workers.training.base.errors import PromptInvalid
from workers.training.evaluate import estimate
from workers.training.measures.canary import BUILT_IN, MOST_TOKENS, Canary, cut_texts
from workers.training.model.policy import Policy


def own_rows(*texts: str) -> list[Row]:
    return [Row(line=i + 1, item={"text": text}) for i, text in enumerate(texts)]


def plain_loss(model, pieces: list[list[int]]) -> float:
    """Mean over the tokens of a text that have one before them."""
    total, n_tokens = 0.0, 0
    for piece in pieces:
        logprobs = torch.log_softmax(model(input_ids=torch.tensor([piece])).logits[0].double(), -1)
        total -= float(logprobs[range(len(piece) - 1), piece[1:]].sum())
        n_tokens += len(piece) - 1
    return total / n_tokens


@pytest.mark.parametrize("adapter", ["lora", "full"])
@torch.no_grad()
def test_loss_and_difference_are_those_of_plain_forwards(sharp, adapter):
    config = make_config(sharp, adapter=adapter)
    policy = Policy.load(config)
    rows = own_rows("The cat sat on the mat.", "12 + 30 = 42", "for i in range(3): print(i)")
    canary = Canary(policy, rows=rows)
    moved(policy)
    texts = cut_texts(rows, policy.tokenizer, policy.context)
    now = [plain_loss(policy.rollout_model, pieces) for pieces in texts]
    with policy.reference() as start:
        before = [plain_loss(start, pieces) for pieces in texts]
    found = canary.measure()
    assert found is not None
    over = estimate([a - b for a, b in zip(now, before, strict=True)])
    assert found.loss == pytest.approx(tuple(estimate(now)), rel=1e-4)
    assert found.over_base == pytest.approx(tuple(over), rel=1e-3)
    assert found.over_base.mean != 0


def test_at_the_start_nothing_is_forgotten(sharp):
    config = make_config(sharp)
    found = Canary(Policy.load(config)).measure()
    assert found is not None
    assert found.over_base[:2] == (0.0, 0.0)
    assert found.loss.n == 48


def test_long_texts_are_cut_to_the_context_and_to_their_share_of_the_tokens(sharp):
    policy = Policy.load(make_config(sharp))
    (text,) = cut_texts(own_rows("x" * 1000), policy.tokenizer, 256)
    assert [len(piece) for piece in text] == [250] * 4
    assert [sum(map(len, text)) for text in cut_texts(own_rows("y" * 9999), policy.tokenizer, 256)] == [
        MOST_TOKENS
    ]
    many = cut_texts(own_rows(*["word " * 100] * 64), policy.tokenizer, 256)
    assert {len(text[0]) for text in many} == {MOST_TOKENS // 64}


def test_a_model_of_few_words_reads_it_and_texts_of_one_token_are_left_out(tmp_path: Path):
    config = make_config(of_few_words(tmp_path / "few", 8))
    policy = Policy.load(config)
    found = Canary(policy).measure()
    assert found is not None
    assert math.isfinite(found.loss.mean)
    assert Canary(policy, rows=own_rows("a")).measure() is None
    mixed = Canary(policy, rows=own_rows("a", "abcabc")).measure()
    assert mixed is not None
    assert mixed.loss.n == 1
    assert mixed.loss.stderr is None


def test_conversations_are_read_as_the_model_writes_them(sharp):
    policy = Policy.load(make_config(sharp))
    talk = [{"role": "developer", "content": "Be brief."}, {"role": "assistant", "content": "Yes."}]
    (text,) = cut_texts([Row(1, {"messages": talk})], policy.tokenizer, policy.context)
    assert policy.tokenizer.decode(text[0]) == "<begin>system:Be brief.<end><begin>assistant:Yes.<end>"


def test_a_conversation_that_the_template_refuses_is_named(sharp):
    policy = Policy.load(make_config(sharp))
    policy.tokenizer.chat_template = "{{ raise_exception('no system message') }}"
    rows = [Row(7, {"messages": [{"role": "user", "content": "hi"}]})]
    with pytest.raises(PromptInvalid, match="the canary row on line 7: no system message"):
        cut_texts(rows, policy.tokenizer, policy.context)


def test_the_texts_of_the_package_are_varied_and_small():
    rows = read_rows(BUILT_IN, check=check_canary_row)
    texts = [row.item["text"] for row in rows]
    assert 40 <= len(set(texts)) == len(texts) <= MOST_TEXTS
    assert all(100 <= len(text) <= 400 for text in texts)
