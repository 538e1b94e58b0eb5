"""The guard as a state machine: what it is told, what it does, and what it never does."""

import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.properties import examples
from tests.workers.training.support import make_config
from workers.training.trust.guard import LEAST_LIMIT, Guard, Seen, guard_from_json, kl_limit

TOTAL = 100
HIGH, LOW = [1.0, 0.8, 0.9, 1.0, 0.7, 0.9], [0.2, 0.1, 0.3, 0.2, 0.1, 0.3]
ACT = make_config("m", guard="act")


def told(guard, *seen, config=ACT):
    """The kinds of what it does, one for each thing seen: (step, more)."""
    actions = [guard.after(Seen(step, TOTAL, 2.0, **more), config) for step, more in seen]
    return [action and action.kind for action in actions]


def test_a_sound_run_is_left_alone_and_its_evaluations_are_good():
    guard = Guard()
    steps = [(5 * i, {"kl": 0.02 * i, "rows": HIGH}) for i in range(20)]
    assert told(guard, *steps) == [None] * 20
    assert (guard.good_step, guard.lr_scale, guard.beta_scale) == (95, 1.0, 1.0)


def test_a_kl_above_its_limit_goes_back_to_the_last_good_step_and_changes_something():
    guard = Guard()
    told(guard, (0, {"kl": 0.0, "rows": LOW}), (5, {"kl": 0.5, "rows": HIGH}))
    action = guard.after(Seen(10, TOTAL, 2.0, kl=2.1, rows=HIGH), ACT)
    assert (action.kind, action.reason, action.number, action.is_done) == ("roll_back", "kl", 1, True)
    assert action.figures == {"kl": 2.1, "threshold": 2.0, "lr_scale": 0.5, "beta_scale": 2.0}
    assert "after step 5" in action.message
    assert "2.1 nats per token, above 2" in action.message


def test_a_step_with_a_high_kl_or_a_fallen_evaluation_is_not_good():
    guard = Guard()
    told(
        guard, (0, {"kl": 0.0, "rows": HIGH}), (5, {"kl": 1.1, "rows": HIGH}), (10, {"kl": 0.1, "rows": LOW})
    )
    assert guard.good_step == 0
    told(guard, (12, {"kl": 0.1}))
    assert guard.good_step == 0  # an early probe alone shows no reward


def test_a_model_that_forgets_goes_back_to_one_that_did_not():
    guard = Guard()
    forgets = [(step, {"kl": 0.3, "rows": HIGH, "canary": loss}) for step, loss in ((5, 0.3), (10, 0.7))]
    assert told(guard, *forgets) == [None, None]
    assert guard.good_step == 5  # at step 10 more than half of what is allowed was gone
    action = guard.after(Seen(15, TOTAL, 2.0, kl=0.4, rows=HIGH, canary=0.8), ACT)
    assert (action.kind, action.reason) == ("roll_back", "canary")
    assert action.figures == {"canary": 0.8, "threshold": 0.75, "lr_scale": 0.5, "beta_scale": 2.0}
    assert "has risen by 0.8 nats per token, above 0.75" in action.message
    assert told(Guard(), (5, {"kl": 0.3, "canary": float("nan")})) == ["roll_back"]


def test_after_its_rollbacks_it_ends_the_run():
    guard = Guard()
    alarms = [(step, {"kl": 3.0, "rows": LOW}) for step in (5, 10, 15, 20)]
    assert told(guard, *alarms) == ["roll_back", "roll_back", "roll_back", "stop"]
    assert (guard.is_over, guard.lr_scale, guard.beta_scale) == (True, 0.125, 8.0)
    none = make_config("m", guard="act", guard_rollbacks=0)
    assert told(Guard(), (5, {"kl": 3.0}), config=none) == ["stop"]


def test_at_the_last_step_there_is_nothing_to_go_on_with():
    assert told(Guard(), (TOTAL, {"kl": 3.0, "rows": LOW})) == ["stop"]


def test_one_update_that_is_not_finite_is_skipped_two_within_twenty_steps_go_back():
    bad = {"is_finite": False}
    assert told(Guard(), (3, bad), (22, bad)) == ["skip", "roll_back"]
    assert told(Guard(), (3, bad), (23, bad), (43, bad)) == ["skip", "skip", "skip"]
    assert told(Guard(), (3, bad), (4, bad), (5, bad), (6, bad)) == ["skip", "roll_back", "skip", "roll_back"]


def test_a_kl_that_is_no_number_goes_back():
    assert told(Guard(), (5, {"kl": float("nan")})) == ["roll_back"]
    assert told(Guard(), (5, {"kl": float("inf")})) == ["roll_back"]


def test_a_cliff_acts_only_beside_a_high_kl_and_at_first_mildly():
    near, far = {"kl": 0.9, "rows": LOW}, {"kl": 1.1, "rows": LOW}
    best = (5, {"kl": 0.3, "rows": HIGH})
    assert told(Guard(), best, (10, near), (15, near), (20, near)) == [None] * 4
    assert told(Guard(), best, (10, far), (15, far)) == [None, "raise_beta", "roll_back"]
    assert told(Guard(), best, (10, far), (15, {"kl": 1.1, "rows": HIGH}), (20, far))[1:] == [
        "raise_beta",
        None,
        "raise_beta",
    ]
    free = make_config("m", guard="act", beta=0.0)
    assert told(Guard(), best, (10, far), config=free)[1] == "lower_rate"


def test_what_is_given_up_sets_no_bar_for_what_comes():
    """A reward that was had at a KL above the limit would else make every sound evaluation a fallen one."""
    guard, sound = Guard(), [0.6, 0.4, 0.6, 0.6, 0.4, 0.5]
    told(guard, (0, {"kl": 0.0, "rows": LOW}), (5, {"kl": 0.3, "rows": sound}))
    assert told(guard, (10, {"kl": 3.0, "rows": HIGH})) == ["roll_back"]
    assert told(guard, (15, {"kl": 1.1, "rows": sound}), (20, {"kl": 0.9, "rows": sound})) == [None, None]
    assert guard.good_step == 20
    warned = Guard()
    told(warned, (5, {"kl": 3.0, "rows": HIGH}), config=make_config("m", guard="warn"))
    assert warned.best == HIGH  # its weights stay


def test_an_update_that_is_skipped_hides_no_kl_above_its_limit():
    seen = {"is_finite": False, "kl": 3.0, "rows": LOW}
    assert told(Guard(), (5, seen)) == ["roll_back"]
    assert Guard().after(Seen(5, TOTAL, 2.0, **seen), ACT).reason == "kl"


def test_three_rows_show_no_cliff():
    best, far = {"kl": 0.3, "rows": HIGH[:3]}, {"kl": 1.5, "rows": LOW[:3]}
    assert told(Guard(), (5, best), (10, far), (15, far)) == [None] * 3


def test_with_warn_it_says_what_it_would_do_once_until_that_is_over_and_changes_nothing():
    config, guard = make_config("m", guard="warn"), Guard()
    alarm, fine = {"kl": 3.0, "rows": LOW}, {"kl": 0.1, "rows": LOW}
    kinds = told(guard, (5, alarm), (10, alarm), (15, fine), (20, alarm), config=config)
    assert kinds == ["roll_back", None, None, "roll_back"]
    assert (guard.lr_scale, guard.beta_scale, guard.rollbacks, guard.is_over) == (1.0, 1.0, 0, False)
    action = Guard().after(Seen(5, TOTAL, 2.0, **alarm), config)
    assert not action.is_done
    assert "only warns" in action.message


@pytest.mark.parametrize(
    ("entropy", "limit"), [(None, 2.0), (3.0, 2.0), (0.6, 1.2), (0.1, LEAST_LIMIT)], ids=str
)
def test_the_limit_is_the_lower_of_both_but_never_tiny(entropy, limit):
    assert kl_limit(ACT, entropy) == limit


ROWS = st.lists(st.one_of(st.none(), st.floats(-1, 1)), min_size=6, max_size=6)
STEPS = st.lists(
    st.fixed_dictionaries(
        {
            "is_finite": st.booleans(),
            "kl": st.one_of(st.none(), st.floats(0, 4), st.just(float("nan"))),
            "rows": st.one_of(st.none(), ROWS),
        }
    ),
    max_size=40,
)


@examples(60)
@given(
    steps=STEPS, mode=st.sampled_from(["act", "warn"]), rollbacks=st.integers(0, 3), cut=st.integers(0, 40)
)
def test_whatever_it_sees(steps, mode, rollbacks, cut):
    """A resumed guard does the same; rollbacks are bounded; rates only fall, and only where it acts."""
    config = make_config("m", guard=mode, guard_rollbacks=rollbacks)
    guard, resumed = Guard(), Guard()
    for step, more in enumerate(steps, 1):
        if step == cut:
            resumed = guard_from_json(json.loads(json.dumps(asdict(guard), allow_nan=False)))
        elif step < cut:
            resumed.after(Seen(step, TOTAL, 2.0, **more), config)
        before = asdict(guard)
        action = guard.after(Seen(step, TOTAL, 2.0, **more), config)
        if step >= cut:
            assert resumed.after(Seen(step, TOTAL, 2.0, **more), config) == action
        assert guard.rollbacks <= rollbacks
        assert guard.lr_scale <= before["lr_scale"]
        assert guard.beta_scale >= before["beta_scale"]
        assert guard.actions - before["actions"] == (action is not None)
        assert guard.good_step in {0, before["good_step"], step}
        if mode == "warn":
            assert (guard.lr_scale, guard.beta_scale, guard.rollbacks, guard.is_over) == (1.0, 1.0, 0, False)
        elif more["is_finite"] and more["kl"] is not None and more["kl"] > 2:
            assert action is not None
            assert action.kind in {"roll_back", "stop"}
        if action is not None and action.kind != "skip":
            assert guard.good_step != step
