"""What is delivered, and what is said of it."""

import numpy as np
import pytest

from workers.training.trust.selection import Look
from workers.training.trust.verdict import Sampled, verdict

UNSEEN = Sampled("unseen", 12, 4, 1.0)
TRAINING = Sampled("training", 8, 4, 0.7)
LOW, HIGH = (0.25,) * 12, (0.75, 0.5) * 6


def test_a_gain_on_unseen_rows():
    found = verdict([Look(0, 0.0, LOW), Look(5, 0.3, HIGH)], {0, 5}, UNSEEN, seed=1)
    assert (found.kind, found.step, found.looks, found.kl) == ("better_unseen", 5, 1, 0.3)
    assert found.sentence == (
        "Better on unseen rows: the checkpoint of step 5 gains +0.375 (+0.303 to +0.447) over the base on 12"
        " validation rows (4 times each, at temperature 1), p 0.00024 over 1 checkpoint. It is 0.3 nats per"
        " token from its start, and is delivered."
    )


def test_a_gain_on_training_rows_says_so_everywhere():
    found = verdict([Look(0, 0.0, LOW), Look(5, 0.3, HIGH)], {0, 5}, TRAINING, seed=1)
    assert (found.kind, found.basis, found.step) == ("better_training", "training", 5)
    assert found.sentence.startswith("Better on the training rows: ")
    assert "8 training rows, sampled afresh (4 times each, at temperature 0.7)" in found.sentence
    assert found.sentence.endswith("was not measured: give a validation_file.")


def test_luck_delivers_the_base():
    rng = np.random.default_rng(1)
    found = verdict(
        [Look(step, 0.1 * step, tuple(rng.random(12))) for step in range(4)], range(4), UNSEEN, seed=1
    )
    assert (found.kind, found.step, found.kl) == ("not_distinguishable", 0, 0.0)
    assert found.gain is not None
    assert "the best of 3 checkpoints" in found.sentence
    assert found.sentence.endswith("The base is delivered.")


def test_a_loss_delivers_the_base_and_is_named():
    found = verdict([Look(0, 0.0, HIGH), Look(5, 0.3, LOW)], {0, 5}, UNSEEN, seed=1)
    assert (found.kind, found.step, found.gain) == ("worse", 0, pytest.approx(-0.375))
    assert found.sentence.startswith("Worse than the base: the last checkpoint, of step 5, gains -0.375")


def test_nothing_graded_delivers_the_base():
    found = verdict([Look(0, 0.0, (None,) * 12), Look(5, 0.3, HIGH)], {0, 5}, UNSEEN, seed=1)
    assert (found.kind, found.step, found.gain, found.p) == ("not_distinguishable", 0, None, None)
    assert "no checkpoint has a graded answer" in found.sentence


def test_what_the_guard_gave_up_is_a_look_but_no_checkpoint():
    base, low = Look(0, 0.0, LOW), Look(10, 0.3, (0.25, 0.375) * 6)
    wreck = Look(5, 4.0, HIGH, is_given_up=True)
    found = verdict([base, wreck, low._replace(rows=LOW[:1] + low.rows[1:])], {0, 10}, UNSEEN, seed=1)
    assert (found.looks, found.step) == (2, 10)
    unclear = verdict([base, wreck, low._replace(rows=(0.0, 0.51) * 6)], {0, 10}, UNSEEN, seed=1)
    assert (unclear.kind, unclear.gain) == ("not_distinguishable", pytest.approx(0.005))
    assert "the best of 2 checkpoints, of step 10" in unclear.sentence


def test_a_fall_that_was_given_up_is_no_worse_result():
    fallen = Look(5, 4.0, LOW, is_given_up=True)
    found = verdict([Look(0, 0.0, HIGH), fallen], {0}, UNSEEN, seed=1)
    assert (found.kind, found.step, found.gain) == ("not_distinguishable", 0, None)
    assert "the guard gave up what was measured at each of 1 evaluation" in found.sentence
