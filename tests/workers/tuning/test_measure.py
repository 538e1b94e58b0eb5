"""Losses on written answers against transformers' own, and DPO's by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from methods.rows import Row
from tests.workers.rows import chat_rows
from workers.training.base.pass_tokens import PassTokens
from workers.training.model.base_model import load_base
from workers.tuning.examples import make_examples
from workers.tuning.measure import Score, dpo_measure, score, supervised_measure


def test_the_loss_is_that_of_transformers_and_does_not_depend_on_what_shares_a_pass(
    tiny_folder: Path,
) -> None:
    base = load_base(tiny_folder)
    rows = [Row(i, row) for i, row in enumerate(chat_rows(4))]
    examples = make_examples(rows, base.tokenizer, base.context, "training")
    scores = score(base.model, examples, PassTokens(10_000), lambda: None)
    assert [each.n_tokens for each in scores] == [2] * 4  # a letter and the end
    for example, found in zip(examples, scores, strict=True):
        ids = torch.tensor([example.tokens])
        marked = zip(example.tokens, example.is_learned, strict=True)
        labels = torch.tensor([[token if is_learned else -100 for token, is_learned in marked]])
        with torch.no_grad():
            loss = base.model(input_ids=ids, labels=labels).loss
        assert -found.logprob / found.n_tokens == pytest.approx(float(loss), rel=1e-5)
    apart = score(base.model, examples, PassTokens(64), lambda: None)
    assert supervised_measure(apart).loss == pytest.approx(supervised_measure(scores).loss, rel=1e-6)


def test_supervised_means_are_over_tokens_not_over_examples() -> None:
    found = supervised_measure([Score(-1.0, 1, 1), Score(-9.0, 4, 1)])
    assert (found.loss, found.accuracy) == (2.0, 0.4)


def test_the_dpo_loss_by_hand() -> None:
    policy = [Score(-1.0, 2, 1), Score(-4.0, 2, 0), Score(-3.0, 2, 2), Score(-3.0, 1, 0)]
    reference = [Score(-2.0, 2, 0), Score(-3.0, 2, 0), Score(-3.0, 2, 0), Score(-2.0, 1, 0)]
    found = dpo_measure(policy, reference, 0.5)
    margins = [0.5 * ((-1 + 2) - (-4 + 3)), 0.5 * ((-3 + 3) - (-3 + 2))]
    assert found.loss == pytest.approx(sum(-math.log(1 / (1 + math.exp(-m))) for m in margins) / 2)
    assert (found.reward_margin, found.reward_accuracy) == (pytest.approx(0.75), 1.0)
    assert found.accuracy == 0.75  # of the chosen answers' tokens


def test_a_policy_at_its_reference_has_the_loss_of_a_coin() -> None:
    scores = [Score(-1.0, 1, 0), Score(-5.0, 1, 0)]
    found = dpo_measure(scores, scores, 2.0)
    assert (found.loss, found.reward_margin) == (pytest.approx(math.log(2)), 0.0)
