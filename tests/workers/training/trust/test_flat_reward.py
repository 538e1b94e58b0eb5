"""A grader that does not tell the first completions apart ends the run, and says what that can mean."""

import pytest

from graders import Failure, FailureKind, Grade
from tests.workers.training.support import FunctionGrader, ListRecorder, make_config, make_rows
from workers.training.base.errors import FlatReward, RunCancelled
from workers.training.base.types import Completion, Group, Prompt
from workers.training.loop import train
from workers.training.trust.flat_reward import FlatStart

ROWS = make_rows(*"abcdefgh")
COMPLETION = Completion((5, 2), (-0.1, -0.2), text="no", finish_reason="stop")


def go(sharp, folder, grade, should_stop=lambda: False, **changes):
    recorder = ListRecorder()
    fields = {"n_epochs": 4, "prompts_per_step": 8, "group_size": 8, "eval_interval": 50}
    config = make_config(sharp, **{**fields, "allow_flat_reward": False, **changes})
    train(config, ROWS, make_rows(*"uvwxyz"), FunctionGrader(grade), recorder, folder, should_stop)
    return recorder


def noted(grade, steps=4, **changes):
    """A start that has seen steps of 8 prompts with 8 completions each; `grade` is told prompt and sample."""
    config, start = make_config("m", **{"allow_flat_reward": False, **changes}), FlatStart()
    for step in range(1, steps + 1):
        groups = [
            Group(Prompt(row, {}, (1,)), (COMPLETION,) * 8, tuple(grade(row, sample) for sample in range(8)))
            for row in range(8)
        ]
        start.note(step, groups, config)
    return start


WORDS = {
    0.0: "All were wrong (reward 0)",
    1.0: "All were right (reward 1)",
    0.4: "All got the same reward (0.4), neither right nor wrong",
}


@pytest.mark.parametrize("reward", WORDS)
def test_256_completions_without_spread_fail_the_run_with_examples(reward):
    with pytest.raises(FlatReward) as caught:
        noted(lambda row, sample: Grade(reward))
    message = str(caught.value)
    assert caught.value.code == "flat_reward"
    assert "of 256 completions up to step 4" in message
    assert WORDS[reward] in message
    assert message.count(f"reward {reward:g}: ") == 3


def test_rewards_that_differ_between_prompts_alone_are_told_so():
    with pytest.raises(FlatReward, match=r"Rewards differ between prompts alone \(0 to 1\)"):
        noted(lambda row, sample: Grade(float(row < 3)))


def test_the_range_says_what_is_right():
    with pytest.raises(FlatReward, match="All were right"):
        noted(lambda row, sample: Grade(5.0), reward_range=(0.0, 5.0))


def test_what_does_not_parse_is_shown_with_its_failure():
    failure = Grade(None, Failure(FailureKind.SAMPLE_PARSE, "no JSON"))
    with pytest.raises(FlatReward, match="reward 0, sample_parse_error"):
        noted(lambda row, sample: failure)


def test_one_group_with_spread_is_enough_for_good():
    lucky = iter([0.0] * 40 + [1.0])
    assert noted(lambda row, sample: Grade(next(lucky, 0.0)), steps=6).is_over


def test_jitter_is_no_spread():
    with pytest.raises(FlatReward, match="All got the same reward"):
        noted(lambda row, sample: Grade(0.5 + 1e-5 * sample))


@pytest.mark.parametrize("unit", [1e-6, 1e-12])
def test_small_rewards_of_an_unknown_range_are_told_apart(unit):
    assert noted(lambda row, sample: Grade(unit * (sample == 3))).is_over


def test_small_rewards_are_noise_beside_larger_ones_of_before():
    with pytest.raises(FlatReward, match=r"alone \(1e-06 to 1\)"):
        noted(lambda row, sample: Grade(1.0) if row == 0 else Grade(1e-6 * (1 + sample)))


def test_validation_rows_that_are_as_flat_count_but_decide_nothing_alone(sharp, tmp_path):
    said = r"of 304 completions up to step 1"  # 6 validation rows x 40, and the first step's 8 x 8
    with pytest.raises(FlatReward, match=said):
        go(sharp, tmp_path, lambda text, item: 0.0, n_epochs=1, eval_samples=40, eval_temperature=1.0)


def test_validation_rows_that_differ_do_not_count():
    start, config = FlatStart(), make_config("m", allow_flat_reward=False)
    grades = tuple(Grade(float(sample == 0)) for sample in range(64))
    groups = [Group(Prompt(row, {}, (1,)), (COMPLETION,) * 64, grades) for row in range(4)]
    start.note_unseen(groups, config)
    assert (start.completions, start.is_over) == (0, False)


def test_fewer_completions_say_nothing():
    assert noted(lambda row, sample: Grade(0.0), steps=3).completions == 192


def test_algorithms_that_compare_a_whole_step_learn_from_prompts_that_differ():
    assert noted(lambda row, sample: Grade(float(row < 3)), algorithm="reinforce_pp").is_over


def test_examples_name_rows_of_the_file_where_others_were_held_out():
    group = Group(Prompt(0, {}, (1,), place=7), (COMPLETION,) * 256, (Grade(0.0),) * 256)
    with pytest.raises(FlatReward, match=r"- line 8, reward 0: 'no'"):
        FlatStart().note(1, [group], make_config("m", allow_flat_reward=False))


def test_prompts_that_are_flat_from_the_start_are_not_visited_less_before_it_is_decided(sharp, tmp_path):
    with pytest.raises(FlatReward, match="of 256 completions up to step 8"):
        go(sharp, tmp_path, lambda text, item: 0.0, n_epochs=8, group_size=4, skip_flat_prompts=True)


def test_a_job_may_ask_to_go_on(sharp, tmp_path):
    assert max(go(sharp, tmp_path, lambda text, item: 0.0, allow_flat_reward=True, n_epochs=5).history()) == 5


def test_without_validation_rows_the_bases_own_answers_to_training_rows_count(sharp, tmp_path):
    config = make_config(
        sharp, eval_samples=32, eval_temperature=1.0, allow_flat_reward=False, eval_interval=50
    )
    with pytest.raises(FlatReward, match="up to step 0"):
        train(config, ROWS, [], FunctionGrader(lambda text, item: 0.0), ListRecorder(), tmp_path)


def test_the_count_goes_on_after_a_resume(sharp, tmp_path):
    stops = iter([False, False, True])
    with pytest.raises(RunCancelled):
        go(sharp, tmp_path, lambda text, item: 0.0, lambda: next(stops))
    with pytest.raises(FlatReward, match="of 256 completions up to step 4"):
        go(sharp, tmp_path, lambda text, item: 0.0)
