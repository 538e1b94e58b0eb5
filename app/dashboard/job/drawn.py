"""Decides which curves of a job are drawn together, until the page draws them itself."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from app.dashboard.job import queries
from app.dashboard.job.charts import Line, line_chart
from methods import metrics as names


def charts(series: queries.Series) -> list[Markup]:
    """Draws reward, KL, entropy, length, thoughts and turns over steps.

    For supervised and dpo jobs it draws loss, accuracy and KL.
    """

    def line(label: str, style: str, name: str) -> Line:
        return Line(label, style, series.get(name, []))

    def both(name: str) -> list[Line]:
        splits = (("train", "a", "train"), ("validation", "b", "valid"))
        lines = [line(label, style, name.format(split=split)) for label, style, split in splits]
        return lines if any(value for each in lines for _, value in each.points) else []

    reward = [line("train", "a", names.REWARD_MEAN), line("validation", "b", names.VALID_REWARD_MEAN)]
    kl = [line("probe set", "a", names.KL_PROBE_MEAN), line("batch", "b", names.KL_REFERENCE)]
    if series.get(names.LOSS.format(split="train")):
        loss = [
            line("train", "a", names.LOSS.format(split="train")),
            line("validation", "b", names.LOSS.format(split="full_valid")),
        ]
        accuracy = [
            line("train", "a", names.ACCURACY.format(split="train")),
            line("validation", "b", names.ACCURACY.format(split="full_valid")),
        ]
        return [
            line_chart("Loss", loss),
            line_chart("Token accuracy", accuracy),
            line_chart("KL to base, nats/token", kl),
        ]
    gap = [
        line("gap", "a", names.GOLD_GAP),
        line("95 %, from", "b", names.GOLD_GAP_LOW),
        line("to", "b", names.GOLD_GAP_HIGH),
    ]
    marks = guard_marks(series.get(names.GUARD_ACTIONS, []))
    return [
        line_chart("Reward", reward, marks),
        line_chart("Gap to the gold grader, share of range", gap, marks),
        line_chart("KL to base, nats/token", kl, marks),
        line_chart("Entropy, nats/token", [line("train", "a", names.ENTROPY_MEAN)]),
        line_chart(
            "Completion length, tokens",
            [line("train", "a", names.COMPLETION_TOKENS_MEAN.format(split="train"))],
        ),
        line_chart("Thoughts, tokens", both(names.REASONING_TOKENS_MEAN)),
        line_chart("Turns of an episode", both(names.EPISODE_TURNS)),
    ]


def guard_marks(actions: Sequence[tuple[int, float]]) -> dict[int, str]:
    """Returns a text for each step at which the guard acted, from the number of its actions by step."""
    before = [0.0, *(count for _, count in actions)]
    risen = [(step, count) for (step, count), last in zip(actions, before, strict=False) if count > last]
    return {step: f"Step {step}: action {count:.0f} of the guard; see the events" for step, count in risen}
