"""What lasts long enough is told once; a step that breaks the row begins it anew."""

from __future__ import annotations

from dataclasses import asdict

from methods import metrics as names
from methods.train_config import TrainConfig
from workers.training.hints import STEPS_TRUNCATED, STEPS_WITHOUT_SPREAD, Hints

CUT = names.TRUNCATED_SHARE.format(split="train")


FOUND = {
    "spread": names.NO_SPREAD_SHARE,
    "reward": names.REWARD_MEAN,
    "lowest": names.REWARD_MIN,
    "cut": CUT,
    "lost": names.EPISODES_LOST.format(split="train"),
    "graded": names.GRADES_COUNT.format(split="train"),
}


def told(
    hints: Hints,
    steps: range,
    reward_range: tuple[float, float] | None = None,
    total_steps: int = 100,
    **values: float,
) -> list[str]:
    config = TrainConfig(
        model="m",
        model_path="m",
        seed=1,
        n_epochs=1,
        prompts_per_step=1,
        group_size=2,
        max_completion_tokens=256,
        learning_rate=0.1,
        eval_interval=1,
        reward_range=reward_range,
    )
    step_values = {FOUND[name]: value for name, value in values.items()}
    return [hint for step in steps for hint in hints.after(step, total_steps, step_values, config)]


def test_steps_without_spread_are_told_once() -> None:
    hints = Hints()
    (hint,) = told(hints, range(1, 40), spread=1.0, reward=0.0)
    assert hint.startswith(f"Step {STEPS_WITHOUT_SPREAD}: for {STEPS_WITHOUT_SPREAD} steps")
    assert "(mean 0)" in hint


def test_a_short_run_is_told_when_all_its_steps_were_so() -> None:
    (hint,) = told(Hints(), range(1, 4), total_steps=3, spread=1.0, reward=0.5)
    assert hint.startswith("Step 3: for 3 steps all completions of each prompt had the same reward (mean 0.5")
    (only,) = told(Hints(), range(1, 2), total_steps=1, cut=1.0)
    assert "and for 1 step at least 50%" in only
    begun = Hints()
    assert told(begun, range(1, 2), total_steps=3, spread=0.9) == []
    assert told(begun, range(2, 4), total_steps=3, spread=1.0) == []


def test_one_group_with_spread_begins_the_row_anew() -> None:
    hints = Hints()
    assert told(hints, range(1, STEPS_WITHOUT_SPREAD), spread=1.0) == []
    assert told(hints, range(9, 10), spread=0.99) == []
    assert told(hints, range(10, 10 + STEPS_WITHOUT_SPREAD - 1), spread=1.0) == []
    assert len(told(hints, range(19, 20), spread=1.0)) == 1


def test_answers_cut_at_the_limit_are_told_with_their_share() -> None:
    hints = Hints()
    (hint,) = told(hints, range(1, 20), cut=0.98)
    assert hint.startswith(
        f"Step {STEPS_TRUNCATED}: 98% of the completions were cut at max_completion_tokens (256)"
    )
    assert told(Hints(), range(1, 20), cut=0.4) == []


def test_rewards_below_0_of_a_grader_without_a_range_are_told_once() -> None:
    hints = Hints()
    (hint,) = told(hints, range(1, 5), lowest=-0.4)
    assert "rewards below 0 (-0.4)" in hint
    assert '"range": [least, largest]' in hint
    assert told(Hints(**asdict(hints)), range(5, 9), lowest=-2.0) == []  # nor after a resume
    assert told(Hints(), range(1, 5), lowest=0.0) == []


def test_rewards_below_the_stated_range_are_told() -> None:
    (hint,) = told(Hints(), range(1, 5), (-1.0, 1.0), lowest=-3.0)
    assert "gives -3, below its range of -1 to 1" in hint
    assert told(Hints(), range(1, 5), (-1.0, 1.0), lowest=-1.0 - 1e-12) == []


def test_a_resumed_run_counts_on() -> None:
    hints = Hints()
    told(hints, range(1, STEPS_WITHOUT_SPREAD), spread=1.0)
    assert len(told(Hints(**asdict(hints)), range(STEPS_WITHOUT_SPREAD, 30), spread=1.0)) == 1


def test_lost_episodes_are_told_once_with_their_share() -> None:
    hints = Hints()
    assert told(hints, range(1, 3), lost=1.0, graded=32.0) == []
    (hint,) = told(hints, range(3, 9), lost=12.0, graded=32.0)
    assert hint.startswith("Step 3: 38% of the episodes broke off because a tool server, or the model that")
    assert told(Hints(**asdict(hints)), range(9, 12), lost=12.0, graded=32.0) == []  # nor after a resume
