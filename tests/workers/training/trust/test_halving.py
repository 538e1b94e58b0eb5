"""Who goes on after a rung."""

from workers.training.arms.outcome import control_in_words
from workers.training.arms.segments import Segments
from workers.training.result import ControlResult
from workers.training.trust.halving import Standing, halve, halved_in_words, ranked, saved_in_words


def standing(arm, gain, kl=0.1, rollbacks=0, is_ended=False):
    return Standing(arm, 100 + arm, is_ended, rollbacks, gain, kl)


def test_the_larger_gain_goes_first_and_of_equals_the_lower_kl():
    given = [standing(0, 0.1), standing(1, 0.3, kl=0.2), standing(2, 0.3, kl=0.1), standing(3, None, None)]
    assert [one.arm for one in ranked(given)] == [2, 1, 0, 3]


def test_what_the_guard_had_to_do_counts_before_the_gain():
    given = [
        standing(0, 0.9, is_ended=True),
        standing(1, 0.8, rollbacks=2),
        standing(2, 0.7, rollbacks=1),
        standing(3, -0.1),
    ]
    assert [one.arm for one in ranked(given)] == [3, 2, 1, 0]
    negative = [standing(0, -0.2), standing(1, None, None)]
    assert [one.arm for one in ranked(negative)] == [0, 1]


def test_the_better_half_rounded_up_goes_on():
    go_on, lost = halve([standing(arm, arm / 10) for arm in range(5)])
    assert [one.arm for one in go_on] == [4, 3, 2]
    assert [one.arm for one in lost] == [1, 0]
    said = halved_in_words(1, 3, go_on, lost)
    assert said.startswith("Halving 1 of 3: Seeds 104 (gain +0.4 at a KL of 0.1), 103 (gain +0.3")
    assert "and 100 (gain +0 at a KL of 0.1) ended" in said


def test_what_halving_saved_is_against_all_seeds_trained_to_the_end():
    said = saved_in_words(4, 80, 40, 40.0)
    assert "4 seeds took 80 steps and 40 seconds" in said
    assert "160 steps, about 80 seconds" in said
    assert "saved 80 steps, about 40 seconds" in said


def test_steps_of_arms_are_numbered_through():
    segments = Segments()
    for arm, first, until in [(0, 0, 10), (1, 0, 10), (1, 4, 10), (0, 10, 45), (2, 0, 5)]:
        segments.reserve(arm, first, until)
    assert len(segments.all) == 4, "a seed that goes on within its rung keeps its numbers"
    assert [segments.of(0, step) for step in (0, 1, 10, 11, 45)] == [0, 1, 10, 21, 55]
    assert [segments.of(1, step) for step in (0, 1, 10)] == [0, 11, 20]
    assert segments.of(2, 3) == 58
    assert segments.end == 60


def control(gain, p, real):
    return ControlResult("random_reward", 10, gain, gain - 0.1, gain + 0.1, p, real, "finished")


def test_a_control_is_spoken_of_only_where_it_gained_beyond_doubt():
    assert control_in_words(control(0.3, 0.06, 0.1)) == ""
    assert control_in_words(control(-0.3, 0.01, 0.1)) == ""
    assert control_in_words(ControlResult("random_reward", 0, None, None, None, None, None, "x")) == ""
    assert "gained as much within 10 steps: +0.3 (+0.2 to +0.4)" in control_in_words(control(0.3, 0.01, 0.2))
    assert "where the real one gained +0.5" in control_in_words(control(0.3, 0.01, 0.5))
