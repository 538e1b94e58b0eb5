"""The exact KL of a policy to its start: against enumeration, its errors, and what an answer more is for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from methods.train_config import TrainConfig
from tests.workers.training.model.test_unreadable import of_few_words
from tests.workers.training.support import make_config, make_rows
from workers.training.base.types import Group, Prompt
from workers.training.evaluate import Estimate
from workers.training.measures.kl_probe import (
    AnswerKl,
    ProbeKl,
    answers_wanted,
    estimate_kl,
    probe_kl,
    stratified,
)
from workers.training.model.policy import Policy
from workers.training.prompts import make_prompts
from workers.training.sampling.rollout import Sampling, sample_groups

CASES = 40
NEW_TOKENS = 4
Z95 = 1.959964
VOCABULARY = 8
QUESTIONS = ("a", "bcd", "efab", "dd")


class Leaf(NamedTuple):
    """One way to begin an answer up to its last place: its probability, and the exact KL up to there."""

    probability: float
    total: float
    n_tokens: int


def leaves(policy: Policy, prompt: Prompt) -> Iterator[Leaf]:
    """Every answer of up to four tokens: those that end early one by one, the rest by their first three."""
    (end,) = policy.end_ids
    others = [token for token in range(VOCABULARY) if token != end]
    starts = torch.cartesian_prod(*[torch.tensor(others)] * (NEW_TOKENS - 1))
    ids = torch.cat([torch.tensor(prompt.tokens).repeat(len(starts), 1), starts], 1)
    mine = torch.log_softmax(policy.rollout_model(input_ids=ids).logits[:, -NEW_TOKENS:].double(), -1)
    with policy.reference() as reference:
        theirs = torch.log_softmax(reference(input_ids=ids).logits[:, -NEW_TOKENS:].double(), -1)
    kl = (mine.exp() * (mine - theirs)).sum(-1).cumsum(1)
    chosen = mine[:, :-1].gather(2, starts[:, :, None])[:, :, 0].cumsum(1)
    before = torch.cat([torch.zeros(len(starts), 1), chosen], 1).exp()
    for place in range(NEW_TOKENS):
        each = len(others) ** (NEW_TOKENS - 1 - place)  # rows that begin alike
        last = mine[:, place, end].exp() if place < NEW_TOKENS - 1 else torch.ones(len(starts))
        for row in range(0, len(starts), each):
            yield Leaf(float(before[row, place] * last[row]), float(kl[row, place]), place + 1)


@torch.no_grad()
def enumerated(policy: Policy, probe: list[Prompt]) -> tuple[float, float, float]:
    """The KL per token, over all tokens, and per answer."""
    every = [list(leaves(policy, prompt)) for prompt in probe]
    assert [math.fsum(leaf.probability for leaf in of_prompt) for of_prompt in every] == pytest.approx(
        [1.0] * len(probe), abs=1e-5
    )
    flat = [leaf for of_prompt in every for leaf in of_prompt]
    total = math.fsum(leaf.probability * leaf.total for leaf in flat)
    mean = math.fsum(leaf.probability * leaf.total / leaf.n_tokens for leaf in flat)
    length = math.fsum(leaf.probability * leaf.n_tokens for leaf in flat)
    return mean / len(probe), total / length, total / len(probe)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return of_few_words(tmp_path_factory.mktemp("few") / "model", VOCABULARY)


@pytest.fixture(scope="module")
def measured(few: Path) -> list[tuple[ProbeKl, tuple[float, float, float]]]:
    """Forty policies, from near their start to far from it: the probe's KL, and the exact one."""
    config = probe_config(few)
    policy = Policy.load(config)
    start = {name: weight.detach().clone() for name, weight in policy.trained().items()}
    probe = make_prompts(make_rows(*QUESTIONS), policy.tokenizer, policy.context, "training")
    found = []
    for case in range(CASES):
        policy.load_trained(start)
        move(policy, case, 0.1 * 2 ** (case % 4))
        found.append(
            (
                probe_kl(policy, probe, config.model_copy(update={"seed": case})),
                enumerated(policy, probe),
            )
        )
    return found


def probe_config(model: Path, **changes: object) -> TrainConfig:
    return make_config(
        model, adapter="full", max_completion_tokens=NEW_TOKENS, **{"kl_probe_samples": 64, **changes}
    )


def move(policy: Policy, seed: int, by: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in policy.trained().values():
            weight += by * torch.randn(weight.shape, generator=generator)
    policy.sync_rollout()


@pytest.mark.parametrize("which", [0, 1, 2], ids=["per-token", "pooled", "per-answer"])
def test_intervals_cover_what_enumeration_gives(measured, which):
    deviations = []
    for found, exact in measured:
        estimate = found.start[which]
        assert estimate.stderr is not None
        deviations.append((estimate.mean - exact[which]) / estimate.stderr)
    assert sum(abs(deviation) <= Z95 for deviation in deviations) >= 0.9 * CASES
    # No bias, also not by drawing until the error is small: the mean of 40 has a standard error of 0.16.
    assert abs(math.fsum(deviations) / CASES) < 3 / math.sqrt(CASES)


def test_errors_are_small_enough_near_the_start_and_far_from_it(measured):
    assert min(exact[0] for _, exact in measured) < 0.12
    assert max(exact[0] for _, exact in measured) > 1.5
    for found, _ in measured:
        estimate = found.start.per_token
        assert estimate.stderr <= max(0.05 * estimate.mean, 0.005)


def test_the_error_is_that_of_the_answers_and_not_of_the_prompts():
    # Variances within prompts: 0.5 and 8, mean 4.25; 4 answers.
    assert stratified([[1.0, 2.0], [10.0, 14.0]]) == Estimate(6.75, pytest.approx(math.sqrt(4.25 / 4)), 4)
    assert stratified([[1.0, 1.0], [9.0, 9.0]]) == Estimate(5.0, 0.0, 4)


def test_with_one_answer_each_the_error_is_over_prompts():
    assert stratified([[1.0], [2.0], [6.0]]) == Estimate(3.0, pytest.approx(math.sqrt(7 / 3)), 3)
    assert stratified([[4.0]]) == Estimate(4.0, None, 1)


def test_answers_and_tokens_are_weighted_as_named():
    found = estimate_kl([[AnswerKl(1.0, 1), AnswerKl(6.0, 3)], [AnswerKl(0.0, 2), AnswerKl(3.0, 2)]])
    assert found.per_token.mean == pytest.approx((1 + 2 + 0 + 1.5) / 4)
    assert found.pooled.mean == pytest.approx(10 / 8)
    assert found.per_answer.mean == pytest.approx(10 / 4)
    # Residuals total - 1.25 n, over the mean length 2: -0.125, 1.125; -1.25, 0.25.
    variance = (1.25**2 / 2 + 1.5**2 / 2) / 2
    assert found.pooled.stderr == pytest.approx(math.sqrt(variance / 4))


LONG = AnswerKl(10.0, 100)


@pytest.mark.parametrize(
    ("kl", "stderr", "most", "wanted"),
    [
        pytest.param(0.02, 0.004, 64, 4, id="small-in-nats"),
        pytest.param(1.0, 0.05, 64, 4, id="small-for-its-kl"),
        pytest.param(1.0, 0.1, 64, 18, id="twice-too-large-takes-four-times-as-many"),
        pytest.param(0.02, 0.01, 64, 18, id="in-nats-too"),
        pytest.param(1.0, 0.1, 10, 10, id="not-more-than-allowed"),
        pytest.param(1.0, 0.0501, 64, 5, id="one-more-at-least"),
        pytest.param(math.nan, math.nan, 64, 4, id="a-broken-policy"),
    ],
)
def test_more_answers_are_drawn_until_the_error_is_small(kl, stderr, most, wanted):
    assert answers_wanted([[LONG] * 4, [LONG] * 4], Estimate(kl, stderr, 8), most) == wanted


def test_few_tokens_are_not_believed():
    short = AnswerKl(0.0, 4)
    assert answers_wanted([[short] * 8, [short] * 8], Estimate(0.0, 0.0, 16), 100) == 64


@pytest.fixture
def probed(sharp: Path) -> tuple[Policy, list[Prompt], TrainConfig]:
    config = make_config(sharp, adapter="lora", temperature=0.5, kl_probe_samples=12)
    policy = Policy.load(config)
    move(policy, 7, 0.05)
    probe = make_prompts(make_rows("a", "some longer text"), policy.tokenizer, policy.context, "training")
    return policy, probe, config


def test_answers_that_were_sampled_already_are_taken_first(probed):
    policy, probe, config = probed
    other = config.model_copy(update={"seed": 99})
    groups = sample_groups(policy, probe, Sampling(12, config.max_completion_tokens, 1.0, ("valid", 1)))
    assert probe_kl(policy, probe, config) != probe_kl(policy, probe, other)
    found = probe_kl(policy, probe, config, answers=groups)
    assert found == probe_kl(policy, probe, other, answers=groups[::-1])  # so nothing was drawn
    assert found.start.per_token.n == 24
    # Where they are too few, or to other prompts, the rest is drawn.
    few = [Group(groups[0].prompt, groups[0].completions[:3])]
    mixed = probe_kl(policy, probe, config, answers=few)
    assert mixed.start.per_token.n == 24
    assert mixed not in (found, probe_kl(policy, probe, other, answers=few), probe_kl(policy, probe, config))


def test_two_rows_with_the_same_prompt_have_answers_of_their_own(probed):
    policy, probe, config = probed
    twins = [probe[0], Prompt(5, {}, probe[0].tokens)]
    groups = sample_groups(policy, twins, Sampling(12, config.max_completion_tokens, 1.0, ("valid", 1)))
    both = probe_kl(policy, twins, config, answers=groups).start.per_answer
    singles = [probe_kl(policy, [g.prompt], config, answers=[g]).start.per_answer.mean for g in groups]
    assert both.mean == pytest.approx(sum(singles) / 2, rel=1e-5)
    assert singles[0] != singles[1]


def test_a_warm_start_is_measured_to_its_origin_too(probed, sharp, tiny):
    policy, probe, config = probed
    at_start = probe_kl(policy, probe, config, origin=Policy.load(make_config(sharp)).rollout_model)
    assert at_start.origin is not None
    assert at_start.origin.per_answer.mean == pytest.approx(at_start.start.per_answer.mean, rel=1e-4)
    elsewhere = probe_kl(policy, probe, config, origin=Policy.load(make_config(tiny)).rollout_model)
    assert elsewhere.start == probe_kl(policy, probe, config).start
    assert elsewhere.origin is not None
    assert elsewhere.origin.per_token.mean != pytest.approx(elsewhere.start.per_token.mean, rel=0.1)


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_probe_kl_is_exactly_zero_at_the_base_and_matches_full_forwards_later(sharp, adapter):
    config = make_config(sharp, adapter=adapter, temperature=0.5)
    policy = Policy.load(config)
    probe = make_prompts(make_rows("a", "some longer text"), policy.tokenizer, policy.context, "training")
    assert probe_kl(policy, probe, config).start.per_token == (0.0, 0.0, 2)
    move(policy, 7, 0.05)
    found = probe_kl(policy, probe, config).start.per_token
    assert found.mean > 0.01
    assert found.n == 2
    assert found == probe_kl(policy, probe, config).start.per_token
    assert found.mean == pytest.approx(plain_kl(policy, probe, config), rel=1e-3)


def plain_kl(policy, probe, config):
    key = ("probe", config.seed)
    means = []
    for group in sample_groups(policy, probe, Sampling(1, config.max_completion_tokens, 1.0, key)):
        prompt, completion = group.prompt.tokens, group.completions[0].tokens
        ids = torch.tensor([[*prompt, *completion]])
        mine = torch.log_softmax(policy.model(input_ids=ids).logits[0, len(prompt) - 1 : -1], -1)
        with policy.reference() as reference:
            base = torch.log_softmax(reference(input_ids=ids).logits[0, len(prompt) - 1 : -1], -1)
        means.append((mine.exp() * (mine - base)).sum(-1).mean().item())
    return sum(means) / len(means)
